"""Columns that become text while somebody writes them, switches their triggers off, or lies."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import findings, one_table, plan, refused
from tests.capabilities.enabling import (
    application,
    finish,
    finish_though_killed,
    state,
    take,
    until,
)
from tests.support import Clone, Database

TABLE = "shop.patient"

TABLES = """
create schema shop;
create type shop.mood as enum ('glad', 'sad');
create domain shop.percent as integer check (value between 0 and 100);
create table shop.patient (
  id integer primary key,
  born date not null,
  seen timestamptz,
  share shop.percent,
  mood shop.mood,
  city varchar(10),
  filler text default repeat('x', 1500),
  check (seen > born)
);
insert into shop.patient (id, born, seen, share, mood, city)
select n, date '1990-01-01' + n, '2020-01-01 12:00+05', n, 'glad', 'Ulm'
from generate_series(1, 60) as n;
grant usage on schema shop to crm_app;
grant select, insert, update, delete on shop.patient to crm_app;
"""

POLICY: dict[str, Any] = one_table(
    TABLE,
    columns={
        "id": {"category": "key"},
        **{
            name: {"category": "other", "encrypt": True}
            for name in ("born", "seen", "share", "mood", "city")
        },
        "filler": {"category": "other"},
    },
)

DAY = datetime.date(2000, 1, 1)


@pytest.fixture
def shop(clone: Clone, shop_template: str) -> Iterator[Database]:
    with application(clone, shop_template, TABLES) as database:
        yield database


class Writer(threading.Thread):
    """Changes dates of rows of its own all the time, and remembers what was confirmed."""

    def __init__(self, db: Database, number: int) -> None:
        super().__init__()
        self.db, self.number = db, number
        self.over = threading.Event()
        self.kept: dict[int, tuple[datetime.date, str | None]] = {}
        self.errors: set[str] = set()
        self.longest = 0.0

    def run(self) -> None:
        with psycopg.connect(self.db.dsn("crm_app"), autocommit=True) as app:
            app.execute("set search_path = gdpr_clear, shop")
            n = 0
            while not self.over.is_set():
                n += 1
                key = self.number + 2 * (n % 30)
                # a slow machine does not get past the day of "seen"
                born = DAY + datetime.timedelta(n % 5000)
                began = time.monotonic()
                try:
                    if n % 5 == 0:
                        key = 1000 * n + self.number
                        app.execute(
                            "insert into patient (id, born, mood) values (%s, %s, 'sad')",
                            [key, born],
                        )
                        self.kept[key] = (born, "sad")
                    elif key in range(1, 61):
                        app.execute(
                            "update patient set born = %s, mood = null where id = %s", [born, key]
                        )
                        self.kept[key] = (born, None)
                except psycopg.Error as error:
                    self.errors.add(str(error))
                self.longest = max(self.longest, time.monotonic() - began)
                time.sleep(0.005)


def test_writers_race_with_the_change_of_types(shop: Database) -> None:
    writers = [Writer(shop, number) for number in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        finish(shop, POLICY)
    finally:
        for writer in writers:
            writer.over.set()
            writer.join(30)
    assert [writer.errors for writer in writers] == [set(), set()]
    rows = {
        key: (born, mood)
        for key, born, mood in shop.rows(
            "select id, born, mood from gdpr_clear.patient", user="crm_app"
        )
    }
    for writer in writers:
        assert len(writer.kept) > 20
        assert {key: rows.get(key) for key in writer.kept} == writer.kept
        # moments: a rewrite, or waiting for one, would be seconds on a busy machine
        assert writer.longest < 5
    assert no_plaintext(shop)
    assert plan(shop, POLICY) == []
    assert findings(shop, severities=("error",)) == set()


def no_plaintext(db: Database) -> bool:
    names = ("born", "seen", "share", "mood", "city")
    wrong = " or ".join(f"not starts_with({name}, 'gdpr1:')" for name in names)
    return db.rows(f"select count(*) from {TABLE} where {wrong}", user="postgres") == [(0,)]


def test_who_is_killed_anywhere_goes_on(shop: Database) -> None:
    """The session that enables is terminated again and again, at whatever it is."""
    columns = "id, born, seen, share, mood::text, city"
    before = shop.rows(f"select {columns} from shop.patient order by id")
    assert finish_though_killed(shop, POLICY, 11) > 2
    assert (
        shop.rows(f"select {columns} from gdpr_clear.patient order by id", user="crm_app") == before
    )
    assert no_plaintext(shop)
    assert plan(shop, POLICY) == []
    assert findings(shop, severities=("error",)) == set()


@pytest.mark.parametrize("where", ["claiming", "claimed"])
def test_a_keeper_that_was_off_loses_nothing(shop: Database, where: str) -> None:
    """Rows that were written past the trigger are found by comparison, before a column goes."""
    until(shop, where, TABLE, POLICY)
    # one that has no shadow yet, and must have one, is refused
    changed = [1, 60] if where == "claimed" else [1]
    if where == "claiming":
        for _ in range(6):
            take(shop, policy=POLICY)
    shop.rows("alter table shop.patient disable trigger zzz_gdpr_03_text")
    shop.rows(
        "update shop.patient set born = '1970-01-01', share = null where id = any (%s)", [changed]
    )
    shop.rows("alter table shop.patient enable always trigger zzz_gdpr_03_text")
    if where == "claimed":
        # who would go on regardless is stopped
        while (action := take(shop, policy=POLICY)) and "persons" not in action:
            assert state(shop, TABLE) in ("claimed", "claiming")
    finish(shop, POLICY)
    assert shop.rows(
        "select id, born::text, share from gdpr_clear.patient where id = any (%s) order by id",
        [changed],
        user="crm_app",
    ) == [(key, "1970-01-01", None) for key in changed]
    assert no_plaintext(shop)


def test_who_goes_on_while_the_keeper_is_off_is_refused(shop: Database) -> None:
    until(shop, "claimed", TABLE, POLICY)
    while "validate" in str(shop.rows("select statement from gdpr.next_step(null)")):
        take(shop, policy=POLICY)
    shop.rows("alter table shop.patient disable trigger zzz_gdpr_03_text")
    with refused("PR006", "enabling_state"):
        shop.rows("select gdpr_policy.move_enabling('shop.patient', 'sealing')")
    assert state(shop, TABLE) == "claimed"
    finish(shop, POLICY)
    assert no_plaintext(shop)


def test_a_shadow_cannot_be_forged(shop: Database) -> None:
    """Whoever writes it writes nothing: the trigger has the last word."""
    until(shop, "claiming", TABLE, POLICY)
    app = shop.connect("crm_app")
    app.execute("update shop.patient set gdpr_text_2 = '1066-10-14' where id = 1")
    app.execute(
        "insert into shop.patient (id, born, gdpr_text_2) values (99, '2001-01-01', 'gdpr1:x')"
    )
    finish(shop, POLICY)
    assert shop.rows(
        "select born::text from gdpr_clear.patient where id in (1, 99) order by id", user="crm_app"
    ) == [("1990-01-02",), ("2001-01-01",)]


def test_code_of_types_runs_beside_no_key(shop: Database) -> None:
    """A cast that the owner planted: nothing of gdprdb's calls it as its own role."""
    shop.rows("create table shop.spied (who name)")
    shop.rows("grant insert on shop.spied to public")
    shop.rows(
        "create function shop.spy(shop.mood) returns text language plpgsql as"
        " 'begin insert into shop.spied values (current_user); return ''glad''; end'"
    )
    shop.rows("create cast (shop.mood as text) with function shop.spy(shop.mood) as implicit")
    finish(shop, POLICY)
    spied = {who for (who,) in shop.rows("select who from shop.spied")}
    assert spied <= {"db_owner", "crm_app"}
    assert no_plaintext(shop)


def test_a_drop_in_the_middle_is_told(shop: Database) -> None:
    """A view that came meanwhile stands in the way, and goes on being there; then it goes on."""
    until(shop, "claimed", TABLE, POLICY)
    shop.rows("create view shop.births as select born from shop.patient")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        finish(shop, POLICY)
    assert state(shop, TABLE) == "claimed"
    shop.rows("drop view shop.births")
    finish(shop, POLICY)
    assert no_plaintext(shop)


def test_a_dropped_column_leaves_nothing_in_the_rows(shop: Database) -> None:
    """Not hidden, but gone: as it lies on the disk."""
    finish(shop, POLICY)
    shop.rows("create extension pageinspect", user="postgres")
    ((values,),) = shop.rows(
        "select count(*) from generate_series(0, pg_relation_size('shop.patient') / 8192 - 1) as b,"
        " heap_page_item_attrs(get_raw_page('shop.patient', b::integer), 'shop.patient') as i"
        " join shop.patient as p on i.t_ctid = p.ctid and i.t_xmax = '0'"
        " where num_nonnulls(i.t_attrs[2], i.t_attrs[3], i.t_attrs[4], i.t_attrs[5]) > 0",
        user="postgres",
    )
    assert values == 0


def test_a_row_that_waits_for_its_turn_is_held_to_its_type(shop: Database) -> None:
    """Room for ciphertext is no room for plaintext: or the backfill would stop at it."""
    shop.rows("create table shop.note (id integer primary key, city varchar(6), filler text)")
    shop.rows(
        "insert into shop.note select n, 'Ulm', repeat('x', 1500) from generate_series(1, 30) as n"
    )
    shop.rows("grant select, insert, update on shop.note to crm_app")
    policy = one_table(
        "shop.note",
        columns={
            "id": {"category": "key"},
            "city": {"category": "contact", "encrypt": True},
            "filler": {"category": "other"},
        },
    )
    until(shop, "sealing", "shop.note", policy)
    take(shop, policy=policy)
    assert shop.rows(
        "select gdpr_subject_id is null from shop.note where id in (1, 30) order by id"
    ) == [(False,), (True,)]
    app = shop.connect("crm_app")
    for key in (1, 30):
        with refused("22001", "value_too_long"):
            app.execute("update shop.note set city = 'Bad Urach' where id = %s", [key])
        with refused("PR405", "ciphertext_written"):
            app.execute("update shop.note set city = 'gdpr1:' where id = %s", [key])
        # blanks at the end that are too many are cut off, as ever
        app.execute("update shop.note set city = 'Essen   ' where id = %s", [key])
    finish(shop, policy)
    assert shop.rows(
        "select id, city from gdpr_clear.note where id in (1, 2, 30) order by id", user="crm_app"
    ) == [(1, "Essen "), (2, "Ulm"), (30, "Essen ")]
