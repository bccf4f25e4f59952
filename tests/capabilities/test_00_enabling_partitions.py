"""Station 00: partitioned tables are protected in batches, leaf after leaf."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.capabilities.crm import apply, findings, plan
from tests.capabilities.enabling import application, finish, state, step, take, told, until
from tests.capabilities.partitions import (
    CLEAR,
    POLICIES,
    POLICY,
    ROWS,
    TABLE,
    TABLES,
    people,
    whole,
)
from tests.support import Clone, Database

#: How a table of three levels with five leaves is indexed.
INDEXING = ("create index on only ", "create index concurrently on ", " attach partition ")


@pytest.fixture(scope="module")
def template(clone: Clone, shop_template: str) -> Iterator[str]:
    with application(clone, shop_template, TABLES, ROWS) as database:
        yield database.name


@pytest.fixture
def shop(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        yield database


@pytest.mark.parametrize("kind", POLICIES)
def test_in_batches_or_at_once_is_the_same(
    shop: Database, clone: Clone, template: str, kind: str
) -> None:
    policy = POLICIES[kind]
    before = people(shop, TABLE)
    with clone(template) as once:
        apply(once, policy)
        finish(shop, policy)
        assert people(shop, CLEAR) == before == people(once, CLEAR)
        assert whole(shop) == whole(once)
        assert told(shop) == told(once)
        assert plan(shop, policy) == []
        assert findings(shop) == findings(once)
    shop.rows("select gdpr.unprotect('shop.member')")


@pytest.mark.parametrize("kind", POLICIES)
def test_at_once_and_back_is_as_it_was(shop: Database, kind: str) -> None:
    rows, before = people(shop, TABLE), whole(shop)
    apply(shop, POLICIES[kind])
    shop.rows("select gdpr.unprotect('shop.member')")
    assert whole(shop) == before
    assert people(shop, TABLE) == rows


@pytest.mark.parametrize("where", ["begun", "claiming", "sealing", "analysed"])
def test_unprotect_in_the_middle_gives_back_the_original(shop: Database, where: str) -> None:
    rows, before = people(shop, TABLE), whole(shop)
    until(shop, where, TABLE, POLICY)
    if where in ("claiming", "sealing"):
        for _ in range(9):
            take(shop, policy=POLICY)
        assert state(shop, TABLE) == where
    shop.rows("select gdpr.unprotect('shop.member')")
    assert whole(shop) == before
    assert people(shop, TABLE) == rows
    if where in ("begun", "claiming", "sealing"):
        # and it can begin again
        finish(shop, POLICY)
        assert people(shop, CLEAR) == rows
        assert plan(shop, POLICY) == []


def test_who_stops_after_any_statement_goes_on(shop: Database) -> None:
    before = people(shop, TABLE)
    seen, statements = [], []
    while (following := step(shop, POLICY)) is not None:
        if following.action not in seen:
            seen.append(following.action)
        statements.append(following.statement)
        take(shop, policy=POLICY)
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
    indexing = [s for s in statements if "(gdpr_subject_id)" in s or "subject_id_idx" in s]
    assert [len([s for s in indexing if words in s]) for words in INDEXING] == [3, 5, 7]
    assert len(indexing) == 15
    assert people(shop, CLEAR) == before
