"""Station 00: statistics over columns, and rows kept elsewhere, when columns get another type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.capabilities.crm import apply, one_table, plan, problems, refused
from tests.capabilities.enabling import application, finish, state, take, until
from tests.support import Clone, Database

TABLES = """
create schema shop;
create table shop.person (
  id integer primary key, city varchar(20), born date, plain text,
  filler text default repeat('x', 1500)
);
insert into shop.person (id, city, born, plain)
select n, 'Secret-' || n % 3, date '1990-01-01' + n % 3, 'p' || n % 3
from generate_series(1, 60) as n;
create statistics shop.born_city (mcv, dependencies) on born, city from shop.person;
create statistics shop.born_plain on plain, born from shop.person;
create statistics shop.of_plain on (upper(plain)), plain from shop.person;
alter statistics shop.born_city set statistics 77;
comment on statistics shop.born_plain is 'together';
analyze shop.person;
grant usage on schema shop to crm_app;
grant select, insert, update, delete on shop.person to crm_app;
"""

POLICY: dict[str, Any] = one_table(
    "shop.person",
    columns={
        "id": {"category": "key"},
        "city": {"category": "contact", "encrypt": True},
        "born": {"category": "demographic", "encrypt": True},
        "plain": {"category": "other"},
        "filler": {"category": "other"},
    },
)

OBJECTS = """
select stxname, (to_jsonb(x) ->> 'stxstattarget')::integer,
  -- columns stand in the order of their places
  replace(pg_get_statisticsobjdef(oid), 'plain, born', 'born, plain'),
  obj_description(oid, 'pg_statistic_ext'), stxowner::regrole::text
from pg_statistic_ext as x order by 1
"""

DATA = """
select string_agg(d.stxdmcv::text, ' '), count(*) from pg_statistic_ext as x
join pg_statistic_ext_data as d on d.stxoid = x.oid
"""


@pytest.fixture
def shop(clone: Clone, shop_template: str) -> Iterator[Database]:
    with application(clone, shop_template, TABLES) as database:
        yield database


def test_in_batches_or_at_once_is_the_same(
    shop: Database, clone: Clone, shop_template: str
) -> None:
    """They are made anew in the moment in which columns are swapped, and hold no plaintext."""
    before = shop.rows(OBJECTS)
    assert b"Secret-1".hex() in shop.rows(DATA, user="postgres")[0][0]
    with clone(shop_template) as once:
        once.rows("drop schema crm cascade")
        once.rows(TABLES)
        apply(once, POLICY)
        assert once.rows(OBJECTS) == before
    assert shop.rows("select method from gdpr.estimate(%s)", [json.dumps(POLICY)]) == [("batches",)]
    while take(shop, 4, POLICY):
        assert shop.rows(OBJECTS) == before
    ((data, count),) = shop.rows(DATA, user="postgres")
    assert count == 3
    assert b"Secret-1".hex() not in data
    assert plan(shop, POLICY) == []
    shop.rows("select gdpr.unprotect('shop.person')")
    assert [row[0] for row in shop.rows(OBJECTS)] == [row[0] for row in before]


def test_who_may_not_make_them_anew_protects_at_once(shop: Database) -> None:
    shop.rows("create schema other")
    shop.rows("alter statistics shop.born_city set schema other")
    shop.rows("alter schema other owner to postgres", user="postgres")
    ((method, reason),) = shop.rows(
        "select method, reason from gdpr.estimate(%s)", [json.dumps(POLICY)]
    )
    assert method == "at once"
    assert "other.born_city; drop them" in str(reason)


def test_what_computes_from_an_encrypted_column_is_refused(shop: Database) -> None:
    """It would compute from ciphertext, or fail at it."""
    shop.rows("create statistics shop.months on (date_trunc('month', born)) from shop.person")
    (problem,) = problems(shop, POLICY)
    assert problem == (
        'tables."shop.person".columns."born": statistics object shop.months computes from the'
        " column, and would from ciphertext; drop it"
    )


KEPT = {
    "a column": ("create table shop.history (was shop.person)", "shop.history.was"),
    "an array": ("create table shop.history (was shop.person[])", "shop.history.was"),
    "a type": (
        "create type shop.pair as (a shop.person); create table shop.history (was shop.pair)",
        "shop.history.was",
    ),
    "a domain": (
        "create domain shop.row as shop.person; create table shop.history (was shop.row)",
        "shop.history.was",
    ),
    "a materialized view": (
        "create materialized view shop.history as select p as was from shop.person as p",
        "shop.history.was",
    ),
}


@pytest.mark.parametrize("kept", sorted(KEPT))
def test_whole_rows_that_are_kept_elsewhere_are_refused(shop: Database, kept: str) -> None:
    """They are personal data that nothing reaches; in batches they would lose values, too."""
    made, where = KEPT[kept]
    shop.rows(made)
    (problem,) = problems(shop, POLICY)
    assert problem == (
        f'tables."shop.person": its whole rows are kept in {where}, copies that would not be'
        " protected; keep a reference there, or the columns that are needed"
    )


def test_whole_rows_kept_meanwhile_lose_nothing(shop: Database) -> None:
    """It stops before the column goes; and goes on when they are gone."""
    until(shop, "claimed", "shop.person", POLICY)
    shop.rows("create table shop.history (was shop.person)")
    shop.rows("insert into shop.history select p from shop.person as p where id = 1")
    with refused("PR001", "policy_refused"):
        finish(shop, POLICY)
    assert state(shop, "shop.person") == "claimed"
    assert shop.rows("select (was).born::text from shop.history") == [("1990-01-02",)]
    shop.rows("drop table shop.history")
    finish(shop, POLICY)
    assert plan(shop, POLICY) == []


def test_views_and_functions_of_rows_go_on(shop: Database) -> None:
    """They hold nothing: they show a row as it is."""
    shop.rows("create view shop.whole as select p from shop.person as p")
    shop.rows(
        "create function shop.label(shop.person) returns text language sql stable"
        " as 'select $1.plain'"
    )
    labels = "select shop.label(p) from shop.person as p order by id"
    before = shop.rows(labels, user="crm_app")
    assert len(before) == 60
    while state(shop, "shop.person") is not None or plan(shop, POLICY) != []:
        take(shop, 8, POLICY)
        assert shop.rows(labels, user="crm_app") == before
