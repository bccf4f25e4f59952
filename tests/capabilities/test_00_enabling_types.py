"""Station 00: columns of any type are protected in batches, and hold the same values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.capabilities.crm import apply, findings, one_table, plan, refused
from tests.capabilities.enabling import (
    application,
    catalog,
    columns,
    finish,
    state,
    take,
    told,
    until,
)
from tests.support import Clone, Database

#: Each column: its type, and values as SQL, written so that their text could differ.
TYPES: dict[str, tuple[str, list[str]]] = {
    "born": ("date not null", ["'1980-02-29'", "'0044-03-15 BC'", "'infinity'"]),
    "seen": ("timestamptz", ["'2024-03-31 02:30:00.123456+02'", "'-infinity'", "null"]),
    "woken": ("time with time zone", ["'23:59:60+14'", "'00:00-12:30'"]),
    "wage": ("numeric(12,3)", ["'1.5'", "'NaN'", "'-0.000'", "null"]),
    "rank": ("integer default 7", ["1", "-2147483648", "default"]),
    "vip": ("boolean", ["true", "false", "null"]),
    "token": ("uuid", ["gen_random_uuid()", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"]),
    "address": ("inet", ["'10.0.0.1'", "'::1/64'", "null"]),
    "facts": ("jsonb", ["""'{"b": 1.50, "a": [null, "gdpr1:"]}'""", "'null'", "null"]),
    "notes": ("json", ["""'{"b":  1, "b": 2}'""", "null"]),
    "tags": ("text[]", ["array['a,b', null, '\"']", "'{}'", "'[0:1]={x,y}'"]),
    "times": ("timestamptz[]", ["array['2024-01-01 00:00+05'::timestamptz]", "null"]),
    "blob": ("bytea", ["'\\x00ff'", "''"]),
    "share": ("double precision", ["0.1", "'-0'", "'NaN'", "1e300"]),
    "stay": ("interval", ["'1 mon 30 days 24:00'", "'-1 day +02:03'"]),
    "span": ("daterange", ["'[2024-01-01,2024-02-01]'", "'empty'"]),
    "code": ("character(5)", ["'ab'", "'ab   '", "''"]),
    "mail": ("shop.citext not null", ["'Ada@Example.com'"]),
    "mood": ("shop.mood", ["'glad'", "'so ''so'''", "null"]),
    "moods": ("shop.mood[]", ["array['glad', null]::shop.mood[]", "'{}'"]),
    "zip": ("shop.zip", ["'70173'", "default"]),
    "flag": ("shop.flag", ["true", "false"]),
    "net": ("shop.net", ["'10.1.2.3'"]),
}

TABLE, CLEAR = "shop.person", "gdpr_clear.person"

STATES = ("begun", "generated", "claiming", "claimed", "sealing", "sealed", "analysed")

#: What constraints and types refuse, by whatever they are held.
WRONG = {
    "born = '2301-01-01'": "23514",
    "rank = null, city = ''": "23514",
    "zip = 'x'": "23514",
    "net = '::1'": "23514",
    "born = null": "23502",
    "mail = 'P1.Ada@Example.com'": "23505",
}

NAMES = """
select attname from pg_attribute
where attrelid = %s::text::regclass and attnum > 0 and not attisdropped and attname !~ '^gdpr_'
order by attnum
"""

MASKS = {"born": "year", "mail": "email"}


def _rows(count: int) -> str:
    lines = []
    for n in range(count):
        values = [
            f"'p{n}.' || {values[0]}" if name == "mail" else values[n % len(values)]
            for name, (_, values) in TYPES.items()
        ]
        lines.append(f"({', '.join(values)}, 'plain {n}')")
    return f"insert into shop.person ({', '.join(TYPES)}, city) values {', '.join(lines)}"


TABLES = f"""
create schema shop;
create extension citext schema shop;
create type shop.mood as enum ('glad', 'so ''so''');
create domain shop.zip as varchar(5) default '00000' check (value ~ '^[0-9]+$');
create domain shop.flag as boolean;
create domain shop.net as inet check (family(value) = 4);
create table shop.person (
  id bigint generated always as identity primary key,
  {", ".join(f"{name} {kind}" for name, (kind, _) in TYPES.items())},
  city varchar(40),
  filler text default repeat('x', 1500),
  number serial,
  constraint person_mail unique (mail),
  constraint grown check (born < '2300-01-01' or born = 'infinity'),
  constraint paid check (wage is null or rank is not null or city <> '')
);
create index person_born on shop.person (born, city);
create index person_city on shop.person (city);
comment on column shop.person.born is 'of birth';
alter table shop.person alter column born set statistics 33;
alter table shop.person alter column seen set (n_distinct = 5);
grant usage on schema shop to crm_app, dpo_login;
grant select, insert, delete on shop.person to crm_app;
grant update (id, number) on shop.person to crm_app;
grant update ({", ".join(TYPES)}, city) on shop.person to crm_app;
grant usage on all sequences in schema shop to crm_app;
"""

POLICY: dict[str, Any] = one_table(
    "shop.person",
    match_on=["mail"],
    columns={
        "id": {"category": "key"},
        **{
            name: {"category": "other", "encrypt": True}
            | ({"mask": MASKS[name]} if name in MASKS else {})
            for name in TYPES
        },
        "city": {"category": "contact", "encrypt": True},
        "number": {"category": "other", "encrypt": True},
        "filler": {"category": "other"},
    },
)
for name, extra in {
    "mail": {"identifier": "email", "encrypt": "searchable", "category": "contact"},
    "wage": {"encrypt": "searchable"},
    "flag": {"encrypt": "searchable"},
    "net": {"encrypt": "searchable"},
    "code": {"encrypt": "searchable"},
    "stay": {"encrypt": "searchable"},
}.items():
    POLICY["tables"]["shop.person"]["columns"][name] |= extra


@pytest.fixture(scope="module")
def template(clone: Clone, shop_template: str) -> Iterator[str]:
    with application(clone, shop_template, TABLES, _rows(40)) as database:
        yield database.name


@pytest.fixture
def shop(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        yield database


@pytest.fixture(scope="module")
def at_once(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        apply(database, POLICY)
        yield database


def people(db: Database, relation: str) -> list[tuple[Any, ...]]:
    """The rows of the table or its view, as text: Python has no dates before Christ."""
    names = ["id", *TYPES, "city", "number"]
    texts = ", ".join(f"format('%%s', {name})" for name in names)
    return db.rows(f"select {texts} from {relation} order by id", [], user="crm_app")


def test_in_batches_or_at_once_is_the_same(shop: Database, at_once: Database) -> None:
    before = people(shop, TABLE)
    finish(shop, POLICY)
    assert people(shop, CLEAR) == before == people(at_once, CLEAR)
    assert columns(catalog(shop, TABLE)) == columns(catalog(at_once, TABLE))
    assert told(shop) == told(at_once)
    assert plan(shop, POLICY) == []
    assert findings(shop) == findings(at_once)


def test_who_stops_after_any_statement_goes_on(shop: Database, at_once: Database) -> None:
    seen = []
    while action := take(shop, policy=POLICY):
        if action not in seen:
            seen.append(action)
    assert seen == [
        "purposes, roles, and tables protected before",
        "register, add columns",
        "generate functions",
        "index the subject and the digests",
        "triggers: new rows get their persons",
        "find the persons in existing rows",
        "make sure that NOT NULL holds",
        "room for ciphertext, the clear view, triggers: new rows are encrypted",
        "encrypt existing rows",
        "statistics forget the plaintext",
        "switch on: triggers, views, the gate",
    ]
    assert people(shop, CLEAR) == people(at_once, CLEAR)
    assert columns(catalog(shop, TABLE)) == columns(catalog(at_once, TABLE))


@pytest.mark.parametrize("where", ["begun", "generated", "claiming", "claimed", "sealing"])
def test_apply_ends_what_was_begun_in_batches(
    shop: Database, at_once: Database, where: str
) -> None:
    until(shop, where, TABLE, POLICY)
    apply(shop, POLICY)
    assert people(shop, CLEAR) == people(at_once, CLEAR)
    assert columns(catalog(shop, TABLE)) == columns(catalog(at_once, TABLE))


@pytest.mark.parametrize("where", ["begun", "claiming", "claimed", "sealing", "analysed"])
def test_unprotect_in_the_middle_gives_back_the_original(shop: Database, where: str) -> None:
    """As it was; once shadows have taken names, at the end of the table."""
    rows, before = people(shop, TABLE), columns(catalog(shop, TABLE))
    until(shop, where, TABLE, POLICY)
    if where in ("claiming", "sealing"):
        for _ in range(3):
            take(shop, policy=POLICY)
        assert state(shop, TABLE) == where
    shop.rows("select gdpr.unprotect('shop.person')")
    assert columns(catalog(shop, TABLE)) == before
    assert people(shop, TABLE) == rows
    if where in ("begun", "claiming", "sealing"):
        # and it can begin again
        finish(shop, POLICY)
        assert people(shop, CLEAR) == rows
        assert plan(shop, POLICY) == []


def test_the_application_goes_on_with_what_it_had(shop: Database) -> None:
    """Its types, its order of columns, its constraints and its report, at every moment."""
    names = [name for (name,) in shop.rows(NAMES, [TABLE])]
    rows = people(shop, TABLE)
    seen = set()
    while (now := state(shop, TABLE)) is not None or now not in seen:
        seen.add(now)
        if shop.rows("select to_regclass('gdpr_clear.person') is null") == [(True,)]:
            relation = TABLE
        else:
            relation = CLEAR
            shown = [name for (name,) in shop.rows(NAMES, [CLEAR])]
            assert shown[: len(names)] == names
        assert people(shop, relation) == rows
        key = 1 + len(rows)
        shop.rows(
            f"insert into {relation} (born, mail, wage, mood, facts, zip) values"
            " ('1999-12-31', 'new' || %s || '@Example.com', 1.50, 'glad', '{\"a\": 1}', '1')",
            [key],
            user="crm_app",
        )
        shop.rows(
            f"update {relation} set born = born + 1, tags = '{{x}}', net = '10.9.8.7'"
            " where id = %s",
            [key],
            user="crm_app",
        )
        for change, error in WRONG.items():
            with refused(error):
                shop.rows(f"update {relation} set {change} where id = %s", [key], user="crm_app")
        rows = people(shop, relation)
        if now not in (None, "begun", "generated"):
            assert shop.rows("select * from gdpr.broken_values('shop.person')") == []
            ((person,),) = shop.rows(
                "select gdpr.find_subject('email', %s)", [f"new{key}@example.com"], user="dpo_login"
            )
            ((report,),) = shop.rows("select gdpr.access_report(%s)", [person], user="dpo_login")
            told = json.dumps(report)
            assert '"born": "2000-01-01"' in told
            assert "10.9.8.7" in told
            assert "gdpr_text" not in told
            assert "gdpr1:" not in told.replace('[null, "gdpr1:"]', "")
        for _ in range(4):
            if state(shop, TABLE) == now:
                take(shop, policy=POLICY)
    assert seen == {*STATES, None}
