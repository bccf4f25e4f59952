"""The CRM of the demo, and the policy file that fits it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import date
from typing import Any

import psycopg
import pytest

from gdprdb import demo
from gdprdb.demo import crm
from gdprdb.demo.page import WIDTH
from gdprdb.server import Cluster

DATABASE = "demo_crm"


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    """The CRM with 300 customers, as its owner would see it, in a database of its own."""
    roles = "crm_app, mailer, metabase"
    with psycopg.connect(cluster.dsn(), autocommit=True) as superuser:
        superuser.execute(f"drop database if exists {DATABASE}".encode())
        superuser.execute(f"create database {DATABASE}".encode())
        for role in roles.split(", "):
            create = f"create role {role} login"
            superuser.execute(
                f"do $$ begin {create}; exception when duplicate_object then end $$".encode()
            )
        with psycopg.connect(cluster.dsn(DATABASE), autocommit=True) as connection:
            crm.create_crm(connection, rows=300, today=date(2026, 5, 25))
            yield connection
        superuser.execute(f"drop database {DATABASE}".encode())


@pytest.fixture(scope="module")
def policy() -> dict[str, Any]:
    return tomllib.loads(demo.policy_text())


def one(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def test_the_tables_have_the_promised_sizes(shop: psycopg.Connection[Any]) -> None:
    size = crm.Size.of(300)
    assert size.total == 300 + 75 + 600 + 120
    for table in ("customers", "leads", "orders", "tickets"):
        assert one(shop, f"select count(*) from crm.{table}") == getattr(size, table)


def test_every_customer_has_ordered(shop: psycopg.Connection[Any]) -> None:
    assert one(shop, "select count(distinct customer_id) from crm.orders") == 300


def test_a_ticket_is_about_an_order_of_the_same_customer(shop: psycopg.Connection[Any]) -> None:
    mismatched = """
        select count(*) from crm.tickets t join crm.orders o on o.id = t.order_id
        where o.customer_id <> t.customer_id
        """
    assert one(shop, mismatched) == 0


@pytest.mark.parametrize("table", ["customers", "leads", "orders", "tickets"])
def test_identities_go_on_behind_the_loaded_rows(shop: psycopg.Connection[Any], table: str) -> None:
    following = one(shop, f"select nextval(pg_get_serial_sequence('crm.{table}', 'id'))")
    assert following > one(shop, f"select max(id) from crm.{table}")


def test_free_text_holds_personal_data(shop: psycopg.Connection[Any]) -> None:
    """Else there would be nothing to protect in it."""
    assert one(shop, "select bool_or(body like '%%@example.%%') from crm.tickets")
    assert one(shop, "select bool_and(ship_to <> '') from crm.orders")


def test_the_policy_names_only_tables_and_columns_that_exist(
    shop: psycopg.Connection[Any], policy: dict[str, Any]
) -> None:
    for table, definition in policy["tables"].items():
        found = shop.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0", [table]
        )
        existing = {name for (name,) in found}
        assert set(definition["columns"]) <= existing, table


def test_the_policy_protects_every_table_of_the_crm(
    shop: psycopg.Connection[Any], policy: dict[str, Any]
) -> None:
    found = shop.execute(
        "select 'crm.' || relname from pg_class where relkind = 'r' "
        "and relnamespace = 'crm'::regnamespace"
    )
    assert {name for (name,) in found} == set(policy["tables"])


def test_the_policy_classifies_every_column(
    shop: psycopg.Connection[Any], policy: dict[str, Any]
) -> None:
    """But the foreign keys, which say no more than the rows they point at."""
    found = shop.execute(
        "select 'crm.' || c.relname, a.attname from pg_class c"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum > 0"
        " where c.relkind = 'r' and c.relnamespace = 'crm'::regnamespace and not exists ("
        " select from pg_constraint k"
        " where k.conrelid = c.oid and k.contype = 'f' and a.attnum = any (k.conkey))"
    )
    missing = [
        (table, name) for table, name in found if name not in policy["tables"][table]["columns"]
    ]
    assert missing == []


def test_the_policy_fits_the_page() -> None:
    """The story shows parts of it, indented by five."""
    lines = demo.policy_text().splitlines()
    assert max(len(line) for line in lines if not line.startswith("#")) <= WIDTH - 5


def test_every_purpose_used_is_declared(policy: dict[str, Any]) -> None:
    declared = set(policy["purposes"])
    for user in (*policy["tables"].values(), *policy["roles"].values()):
        assert set(user.get("purposes", [])) <= declared
