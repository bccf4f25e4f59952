"""Station 00: the index for parts of words is built while a table is protected in batches."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.capabilities.crm import apply, findings, original, plan, problems, refused
from tests.capabilities.enabling import (
    POLICY,
    ROWS,
    TABLES,
    application,
    catalog,
    finish,
    state,
    step,
    take,
    until,
)
from tests.support import Clone, Database

BUYERS = ["nickname", "filler"]

SEARCHED: dict[str, Any] = copy.deepcopy(POLICY)
SEARCHED["tables"]["shop.buyer"]["search"] = BUYERS
SEARCHED["tables"]["shop.buyer"]["columns"]["nickname"] = {"category": "identity"}
# nothing of it is encrypted: it ends after its persons are found
SEARCHED["tables"]["shop.purchase"]["search"] = ["note"]
SEARCHED["tables"]["shop.purchase"]["columns"]["note"] = {"category": "other"}

TABLES_ = ("shop.buyer", "shop.purchase")


@pytest.fixture(scope="module")
def template(clone: Clone, shop_template: str) -> Iterator[str]:
    with application(
        clone, shop_template, "create extension pg_trgm schema public", TABLES, ROWS
    ) as database:
        yield database.name


@pytest.fixture
def shop(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        yield database


@pytest.fixture(scope="module")
def at_once(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        apply(database, SEARCHED)
        yield database


def found(db: Database, view: str, words: str) -> list[int]:
    return [
        key
        for (key,) in db.rows(
            f"select id from gdpr_clear.{view}_search(%s) order by id", [words], user="crm_app"
        )
    ]


def same(batched: Database, once: Database) -> None:
    for table in TABLES_:
        assert catalog(batched, table) == catalog(once, table)
    assert plan(batched, SEARCHED) == []
    assert findings(batched) == findings(once)
    for view, words in (("buyer", "Ä37"), ("purchase", "note 25"), ("purchase", "note 2")):
        assert found(batched, view, words) == found(once, view, words) != []


def indexes(db: Database, *, valid: bool) -> list[str]:
    return [
        name
        for (name,) in db.rows(
            "select i.relname from pg_index as x join pg_class as i on i.oid = x.indexrelid"
            " where i.relname ~ 'search' and x.indisvalid = %s order by 1",
            [valid],
        )
    ]


def test_in_batches_or_at_once_is_the_same(shop: Database, at_once: Database) -> None:
    assert shop.rows("select distinct method from gdpr.estimate(%s)", [Jsonb(SEARCHED)]) == [
        ("batches",)
    ]
    finish(shop, SEARCHED)
    same(shop, at_once)


def test_who_stops_after_any_statement_goes_on(shop: Database, at_once: Database) -> None:
    """It is built when all rows are written, and before their statistics."""
    seen: dict[str, list[str]] = {name: [] for name in TABLES_}
    while following := step(shop, SEARCHED):
        if following.object in seen and following.action not in seen[following.object]:
            seen[following.object].append(following.action)
        if " using gin " in following.statement:
            assert following.kind == "alone"
        take(shop, policy=SEARCHED)
    for actions in seen.values():
        here = actions.index("index what is searched")
        assert "existing rows" in actions[here - 1]
        assert actions[here + 1 :] == [
            "statistics forget the plaintext",
            "switch on: triggers, views, the gate",
        ]
    same(shop, at_once)


@pytest.mark.parametrize("ended", ["in batches", "at once", "unprotected"])
def test_a_build_that_was_killed_is_begun_anew(
    shop: Database, at_once: Database, ended: str
) -> None:
    """What it leaves is no index; it is dropped, as soon as somebody goes on."""
    before = sorted(original(shop, "shop").splitlines())
    until(shop, "sealed", policy=SEARCHED)
    following = step(shop, SEARCHED)
    assert following is not None
    assert following.action == "index what is searched"
    # a transaction that began before: the build waits for it at its end
    reader = shop.connect(autocommit=False)
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    reader.execute("select count(*) from shop.buyer")
    builder = shop.connect()
    number = builder.info.backend_pid
    statement = following.statement.encode()

    def build() -> None:
        with pytest.raises(psycopg.OperationalError):
            builder.execute(statement)

    thread = threading.Thread(target=build)
    thread.start()
    while indexes(shop, valid=False) == []:
        time.sleep(0.01)
    # whoever writes meanwhile is not kept
    app = shop.connect("crm_app")
    app.execute("set lock_timeout = '5s'")
    app.execute("update gdpr_clear.buyer set nickname = 'Xaver' where id = 1")
    app.execute("update gdpr_clear.buyer set nickname = 'Ä1' where id = 1")
    shop.rows("select pg_terminate_backend(%s)", [number], user="postgres")
    thread.join(10)
    reader.close()
    assert indexes(shop, valid=False) == ["gdpr_search_1"]
    following = step(shop, SEARCHED)
    assert following is not None
    assert following.action == "drop an index that was not finished"
    if ended == "in batches":
        finish(shop, SEARCHED)
        same(shop, at_once)
    elif ended == "at once":
        apply(shop, SEARCHED)
        same(shop, at_once)
    else:
        shop.rows("select gdpr.unprotect('shop.buyer')")
        assert sorted(original(shop, "shop").splitlines()) == before
    assert indexes(shop, valid=False) == []


@pytest.mark.parametrize("where", ["sealed", "analysed"])
def test_without_the_extension_it_says_so_and_goes_on(
    shop: Database, at_once: Database, where: str
) -> None:
    until(shop, where, policy=SEARCHED)
    # the index goes with it
    shop.rows("drop extension pg_trgm cascade")
    with refused("PR001", "policy_refused"):
        finish(shop, SEARCHED)
    with refused("PR001", "policy_refused"):
        apply(shop, SEARCHED)
    assert state(shop) == where
    shop.rows("create extension pg_trgm schema public")
    finish(shop, SEARCHED)
    same(shop, at_once)


def test_an_index_that_has_the_name_is_nobodys_to_drop(shop: Database) -> None:
    shop.rows("create index buyer_search on shop.buyer (nickname)")
    (problem,) = problems(shop, SEARCHED)
    assert problem == (
        'tables."shop.buyer".search: its index will be called buyer_search, and there is'
        " something of that name; rename that"
    )
    shop.rows("alter index shop.buyer_search rename to buyer_nickname")
    finish(shop, SEARCHED)
    assert indexes(shop, valid=True) == ["buyer_search", "purchase_search"]
