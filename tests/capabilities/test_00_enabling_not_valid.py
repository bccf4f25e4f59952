"""Station 00: constraints that are NOT VALID, while a table is protected in batches: rows that were
there before keep their values and are encrypted; what is written is tested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, one_table, original, plan
from tests.capabilities.enabling import application, catalog, columns, finish, state, take, until
from tests.support import Clone, Database

#: Three rows in four violate something: a CHECK of one column, text or not; one of two; a domain.
TABLES = """
create schema shop;
create domain shop.percent as integer;
create table shop.person (
  id integer primary key, city varchar(20), born date, died date, share shop.percent not null,
  plain text, filler text default repeat('x', 1500), constraint sane check (share is not null)
);
insert into shop.person (id, city, born, died, share, plain)
select n, case when n % 4 = 1 then 'x' else 'Ulm' end,
  case when n % 4 = 2 then '1066-10-14' else '1990-01-01' end::date, '2024-01-01',
  case when n % 4 = 3 then 200 else 20 end, 'p'
from generate_series(1, 48) as n;
update shop.person set died = '1989-01-01' where id = 40;
alter table shop.person add constraint named check (length(city) > 1) not valid;
alter table shop.person add constraint modern check (born > '1900-01-01') not valid;
alter table shop.person add constraint mortal check (died >= born) not valid;
alter domain shop.percent add constraint whole check (value between 0 and 100) not valid;
comment on constraint modern on shop.person is 'no ancestors';
grant usage on schema shop to crm_app;
grant select, insert, update, delete on shop.person to crm_app;
"""

POLICY: dict[str, Any] = one_table(
    "shop.person",
    columns={
        "id": {"category": "key"},
        "city": {"category": "contact", "encrypt": True},
        "born": {"category": "demographic", "encrypt": True},
        "died": {"category": "demographic"},
        "share": {"category": "other", "encrypt": True},
        "plain": {"category": "other"},
        "filler": {"category": "other"},
    },
)

STATES = ("begun", "generated", "claiming", "claimed", "sealing", "sealed", "analysed")

#: What the constraints refuse; of rows that violate them already, too.
WRONG = {
    "city = 'y'": "named",
    "born = '1067-01-01'": "modern",
    "born = '2030-01-01'": "mortal",
    "share = 101": "whole",
}


@pytest.fixture(scope="module")
def template(clone: Clone, shop_template: str) -> Iterator[str]:
    with application(clone, shop_template, TABLES) as database:
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


@contextmanager
def violates(constraint: str) -> Iterator[None]:
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        yield
    assert caught.value.diag.constraint_name == constraint


def people(db: Database, relation: str) -> list[tuple[Any, ...]]:
    return db.rows(
        f"select id, city, born, died, share::integer, plain from {relation} order by id",
        user="crm_app",
    )


def test_in_batches_or_at_once_is_the_same(shop: Database, at_once: Database) -> None:
    assert shop.rows("select method from gdpr.estimate(%s)", [json.dumps(POLICY)]) == [("batches",)]
    before = people(shop, "shop.person")
    finish(shop, POLICY)
    assert people(shop, "gdpr_clear.person") == before == people(at_once, "gdpr_clear.person")
    assert columns(catalog(shop, "shop.person")) == columns(catalog(at_once, "shop.person"))
    assert plan(shop, POLICY) == []
    assert findings(shop) == findings(at_once)


@pytest.mark.parametrize("where", STATES)
def test_what_is_written_is_tested_and_what_was_is_not(shop: Database, where: str) -> None:
    """In every state, in rows whose turn has come and others, that violate something and do not."""
    until(shop, where, "shop.person", POLICY)
    if where in ("claiming", "sealing"):
        for _ in range(4):
            take(shop, policy=POLICY)
        assert state(shop, "shop.person") == where
    view = shop.rows("select to_regclass('gdpr_clear.person') is not null") == [(True,)]
    relation = "gdpr_clear.person" if view else "shop.person"
    app = shop.connect("crm_app")
    for key in (4, 48, *((1, 2, 3, 45, 46, 47, 40) if where not in ("begun", "generated") else ())):
        for change, constraint in WRONG.items():
            with violates(constraint):
                app.execute(f"update {relation} set {change} where id = {key}")
    with violates("named"):
        app.execute(f"insert into {relation} (id, city, share) values (100, 'y', 1)")
    with violates("whole"):
        app.execute(f"insert into {relation} (id, city, share) values (100, 'Ulm', 300)")
    if where not in ("begun", "generated"):
        # a change of something else is nobody's business; PostgreSQL itself would refuse it
        for key in (1, 2, 3, 40, 45, 46, 47):
            app.execute(f"update {relation} set plain = 'changed' where id = {key}")
        assert len([row for row in people(shop, relation) if row[5] == "changed"]) == 7
    # who mends it, mends it
    app.execute(f"update {relation} set city = 'Bonn' where id in (1, 45)")
    app.execute(f"update {relation} set born = '1999-01-01' where id in (2, 46)")
    rows = people(shop, relation)
    finish(shop, POLICY)
    assert people(shop, "gdpr_clear.person") == rows
    for key in (4, 48):
        for change, constraint in WRONG.items():
            with violates(constraint):
                app.execute(f"update gdpr_clear.person set {change} where id = {key}")


@pytest.mark.parametrize("where", ["begun", "claiming", "claimed"])
def test_unprotect_in_the_middle_gives_back_the_original(shop: Database, where: str) -> None:
    before = sorted(original(shop, "shop").splitlines())
    until(shop, where, "shop.person", POLICY)
    shop.rows("select gdpr.unprotect('shop.person')")
    assert sorted(original(shop, "shop").splitlines()) == before
    finish(shop, POLICY)
    assert plan(shop, POLICY) == []


@pytest.mark.parametrize("where", ["generated", "claiming", "claimed", "sealing"])
def test_apply_ends_what_was_begun_in_batches(
    shop: Database, at_once: Database, where: str
) -> None:
    until(shop, where, "shop.person", POLICY)
    apply(shop, POLICY)
    assert people(shop, "gdpr_clear.person") == people(at_once, "gdpr_clear.person")
    assert columns(catalog(shop, "shop.person")) == columns(catalog(at_once, "shop.person"))


def test_an_erasure_in_the_middle_fulfils_nothing(shop: Database) -> None:
    """Constraints do not stand in its way, in no state."""
    for where in ("claimed", "sealing", "sealed"):
        until(shop, where, "shop.person", POLICY)
        ((person,),) = shop.rows(
            "select gdpr.subject_of('shop.person', (select min(id) from shop.person)::text)",
            user="postgres",
        )
        shop.rows("select gdpr.erase(%s, 'asked')", [person], user="dpo_login")
    finish(shop, POLICY)
    assert len(people(shop, "gdpr_clear.person")) == 45
    assert plan(shop, POLICY) == []


def test_constraints_that_came_and_went_meanwhile(shop: Database) -> None:
    """What holds in the end is what held when encryption began."""
    until(shop, "claiming", "shop.person", POLICY)
    shop.rows("alter table shop.person add constraint later check (city <> 'Bonn')")
    shop.rows("alter table shop.person drop constraint sane")
    shop.rows("create index person_city on shop.person (city)")
    finish(shop, POLICY)
    with violates("later"):
        shop.rows("update gdpr_clear.person set city = 'Bonn' where id = 4", user="crm_app")
    assert plan(shop, POLICY) == []
    shop.rows("update gdpr_clear.person set share = 1 where share > 100", user="crm_app")
    shop.rows("select gdpr.unprotect('shop.person')")
    assert {
        name
        for (name,) in shop.rows(
            "select conname from pg_constraint where conrelid = 'shop.person'::regclass"
            " and contype = 'c'"
        )
    } == {"named", "modern", "mortal", "later"}
    assert shop.rows("select to_regclass('shop.person_city') is not null") == [(True,)]
