"""The CRM of the demo: its logins, its schema (crm.sql) and its rows.

This is the application *before* gdprdb: what a shop would already have.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

from gdprdb.demo.people import Person, people

Row = tuple[Any, ...]
"""A row with all its columns, in the order of crm.sql."""

SEED = 679  # as in Regulation (EU) 2016/679

ITEMS = (
    ("City bike", Decimal("649.00")),
    ("Cargo bike", Decimal("3290.00")),
    ("Gravel bike", Decimal("1890.00")),
    ("Folding bike", Decimal("1120.00")),
    ("Child seat", Decimal("119.90")),
    ("Helmet", Decimal("79.95")),
    ("Lock", Decimal("64.50")),
    ("Pannier", Decimal("54.00")),
    ("Service, large", Decimal("129.00")),
)
CAMPAIGNS = ("spring fair", "cargo bike day", "newsletter", "web form", "recommended")
TOPICS = (
    ("Delivery", "Nobody was at home at {street}. Please call {phone} before you come again."),
    ("Invoice", "The invoice is made out to the wrong name. It should read {name}."),
    ("Return", "I have hurt my back and cannot ride for months. May I return it? {name}"),
    ("Repair", "The gears slip since last week. I am at home after six, {street}, {city}."),
    ("Account", "I cannot log in with {email} any more."),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows each table of the CRM gets."""

    customers: int
    leads: int
    orders: int
    tickets: int

    @classmethod
    def of(cls, rows: int) -> Size:
        """A CRM of ``rows`` customers: with two orders each, and a lead for every fourth."""
        return cls(customers=rows, leads=max(rows // 4, 1), orders=rows * 2, tickets=rows * 2 // 5)

    @property
    def total(self) -> int:
        return self.customers + self.leads + self.orders + self.tickets


def create_logins(superuser: psycopg.Connection[Any], *, database: str) -> None:
    """Make the logins of the story and an empty database; ``crm_owner`` is no superuser."""
    superuser.execute(
        """
        create role crm_owner login createrole;
        create role crm_app login;
        create role mailer login;
        create role website login;
        create role postman login;
        create role metabase login;
        create role dpo login;
        create role deputy login;
        create role auditor login;
        """
    )
    superuser.execute(
        sql.SQL("create database {} owner crm_owner").format(sql.Identifier(database))
    )


def create_crm(owner: psycopg.Connection[Any], *, rows: int, today: date) -> Size:
    """Build the schema as ``crm_owner`` and fill it; one transaction.

    Arguments: ``rows`` customers, at least 1; ``today`` is the newest day in the data.
    Returns the number of rows in each table.
    """
    size = Size.of(rows)
    everybody = list(people(size.customers + size.leads, seed=SEED, today=today))
    customers, leads = everybody[: size.customers], everybody[size.customers :]
    pick = random.Random(SEED)
    with owner.transaction():
        owner.execute(files(__package__).joinpath("crm.sql").read_text("utf-8").encode())
        _copy(owner, "customers", _customer_rows(customers, pick, today))
        _copy(owner, "leads", _lead_rows(leads, pick, today))
        orders = list(_order_rows(customers, size.orders, pick, today))
        _copy(owner, "orders", orders)
        _copy(owner, "tickets", _ticket_rows(customers, orders, size.tickets, pick, today))
        owner.execute(
            """
            grant usage on schema crm to crm_app, mailer, metabase;
            grant select, insert, update, delete on all tables in schema crm to crm_app;
            grant usage on all sequences in schema crm to crm_app;
            grant select on all tables in schema crm to mailer, metabase;
            """
        )
    owner.execute("analyze")
    return size


def _copy(connection: psycopg.Connection[Any], table: str, rows: Iterable[Row]) -> None:
    """Load whole rows, and let the identity, their first column, go on behind them."""
    name = sql.Identifier("crm", table)
    last = 0
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("copy {} from stdin").format(name)) as copy,
    ):
        for row in rows:
            copy.write_row(row)
            last = row[0]
    connection.execute(
        sql.SQL("alter table {} alter column id restart with {}").format(
            name, sql.Literal(last + 1)
        )
    )


def _moment(pick: random.Random, today: date, *, within_days: int) -> datetime:
    """An instant of a working day's opening hours, some days before ``today``."""
    day = today - timedelta(days=pick.randint(1, within_days))
    return datetime.combine(day, time(pick.randint(8, 18), pick.randint(0, 59)), tzinfo=UTC)


def _customer_rows(customers: list[Person], pick: random.Random, today: date) -> Iterator[Row]:
    for number, who in enumerate(customers, start=1):
        yield (
            number,
            f"C-{number:06}",
            who.first_name,
            who.last_name,
            who.email,
            who.phone,
            who.birth_date,
            who.street,
            who.postal_code,
            who.city,
            who.country,
            who.language,
            pick.choice((0, 500, 1000, 5000)),
            _moment(pick, today, within_days=1500),
        )


def _lead_rows(leads: list[Person], pick: random.Random, today: date) -> Iterator[Row]:
    for number, who in enumerate(leads, start=1):
        yield (
            number,
            who.full_name,
            who.email,
            who.phone,
            who.company if number % 3 == 0 else None,
            who.country,
            pick.choice(CAMPAIGNS),
            pick.choice(("new", "contacted", "qualified")),
            _moment(pick, today, within_days=90),
        )


def _order_rows(
    customers: list[Person], count: int, pick: random.Random, today: date
) -> Iterator[Row]:
    for number in range(1, count + 1):
        # everybody orders once before anybody orders twice: the story's people have orders to lose
        customer = number if number <= len(customers) else pick.randint(1, len(customers))
        who = customers[customer - 1]
        item, price = pick.choice(ITEMS)
        yield (
            number,
            f"{today.year}-{number:07}",
            customer,
            _moment(pick, today, within_days=700).date(),
            item,
            price,
            "EUR",
            pick.choice(("open", "paid", "shipped")),
            f"{who.full_name}, {who.street}, {who.postal_code} {who.city}",
        )


def _ticket_rows(
    customers: list[Person],
    orders: list[Row],
    count: int,
    pick: random.Random,
    today: date,
) -> Iterator[Row]:
    for number in range(1, count + 1):
        order, _, customer, *_ = orders[number - 1]
        who = customers[customer - 1]
        topic, body = pick.choice(TOPICS)
        opened = _moment(pick, today, within_days=60)
        yield (
            number,
            customer,
            order,
            opened,
            opened + timedelta(hours=pick.randint(1, 72)) if number % 3 else None,
            pick.randint(1, 5),
            topic,
            body.format(
                name=who.full_name,
                street=who.street,
                city=who.city,
                phone=who.phone,
                email=who.email,
            ),
        )
