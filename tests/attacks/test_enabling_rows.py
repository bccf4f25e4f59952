"""Row security of the application's own while its table is enabled: nothing hidden stays plaintext,
and nobody is shown more than before."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, original, plan, refused
from tests.capabilities.enabling import (
    POLICY,
    ROWS,
    TABLES,
    application,
    catalog,
    clear,
    finish,
    state,
    take,
    until,
)
from tests.support import OWNER, Clone, Database

#: One policy for everybody, one for a role: together they show the application ten rows of forty.
POLICIES = """
alter table shop.buyer enable row level security;
create policy ten on shop.buyer for select to crm_app using (id <= 10);
create policy changes on shop.buyer for update to crm_app using (id <= 10);
create policy arrivals on shop.buyer for insert to crm_app with check (nickname is null);
create policy nobody on shop.buyer to public using (false);
create policy narrow on shop.buyer as restrictive for select to crm_app using (id <> 3);
"""

MINE = [1, 2, 4, 5, 6, 7, 8, 9, 10]


@pytest.fixture(scope="module")
def template(clone: Clone, shop_template: str) -> Iterator[str]:
    with application(clone, shop_template, TABLES, ROWS, POLICIES) as database:
        yield database.name


@pytest.fixture(params=["for others", "forced"])
def shop(clone: Clone, template: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    with clone(template) as database:
        if request.param == "forced":
            database.rows("alter table shop.buyer force row level security")
        yield database


@pytest.fixture
def forced(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        database.rows("alter table shop.buyer force row level security")
        yield database


def seen(db: Database, relation: str, user: str = OWNER) -> list[int]:
    return [key for (key,) in db.rows(f"select id from {relation} order by id", user=user)]


def plaintext(db: Database) -> int:
    ((count,),) = db.rows(
        "select count(*) from shop.buyer where not starts_with(email, 'gdpr1:')", user="postgres"
    )
    return int(count)


def test_in_batches_or_at_once_is_the_same(shop: Database, clone: Clone, template: str) -> None:
    ((method,),) = shop.rows(
        "select method from gdpr.estimate(%s) where object = 'shop.buyer'", [json.dumps(POLICY)]
    )
    assert method == "batches"
    with clone(template) as once:
        forced = "select relforcerowsecurity from pg_class where oid = 'shop.buyer'::regclass"
        if shop.rows(forced) == [(True,)]:
            once.rows("alter table shop.buyer force row level security")
        apply(once, POLICY)
        finish(shop)
        assert catalog(shop, "shop.buyer") == catalog(once, "shop.buyer")
        assert clear(shop, "buyer") == clear(once, "buyer")
        assert findings(shop) == findings(once)
    assert plaintext(shop) == 0
    assert plan(shop, POLICY) == []


def test_nobody_is_shown_more_or_less_than_before(shop: Database) -> None:
    """At every moment, through the table and through its view."""
    owner_sees = seen(shop, "shop.buyer")
    assert seen(shop, "shop.buyer", "crm_app") == MINE
    states: set[str | None] = set()
    while (now := state(shop)) is not None or not states - {None}:
        states.add(now)
        assert seen(shop, "shop.buyer") == owner_sees
        assert seen(shop, "shop.buyer", "crm_app") == MINE
        if shop.rows("select to_regclass('gdpr_clear.buyer') is not null") == [(True,)]:
            assert seen(shop, "gdpr_clear.buyer", "crm_app") == MINE
            for change, rows in (("id = 5", 1), ("id = 3", 0), ("id = 30", 0)):
                assert (
                    shop.connect("crm_app")
                    .execute(f"update gdpr_clear.buyer set city = 'Ulm' where {change}")
                    .rowcount
                    == rows
                )
            with refused("42501"):
                shop.rows(
                    "insert into gdpr_clear.buyer (email, nickname) values ('x@example.com', 'x')",
                    user="crm_app",
                )
        take(shop, 6)
    assert states >= {"begun", "claiming", "claimed", "sealing", "sealed", "analysed"}
    assert plaintext(shop) == 0
    assert seen(shop, "shop.buyer") == owner_sees
    for relation in ("shop.buyer", "gdpr_clear.buyer"):
        assert seen(shop, relation, "crm_app") == MINE


def test_persons_behind_row_security_have_their_rights(shop: Database) -> None:
    """In the middle of it; the rows that a policy hides from the application, too."""
    finish(shop, {**POLICY, "tables": {"shop.buyer": POLICY["tables"]["shop.buyer"]}})
    shop.rows("select gdpr.unprotect('shop.buyer')")
    until(shop, "sealing")
    for _ in range(4):
        take(shop)
    assert state(shop) == "sealing"
    for key in (2, 33):
        ((person,),) = shop.rows(
            "select gdpr.find_subject('email', %s)", [f"buyer{key}@example.com"], user="dpo_login"
        )
        ((report,),) = shop.rows("select gdpr.access_report(%s)", [person], user="dpo_login")
        assert f"Buyer{key}@Example.com" in json.dumps(report)
        shop.rows("delete from shop.purchase where buyer_id = %s", [key])
        shop.rows("select gdpr.erase(%s, 'asked')", [person], user="dpo_login")
    assert shop.rows("select id from shop.buyer where id in (2, 33)", user="postgres") == []
    assert shop.rows("select * from gdpr.broken_values('shop.buyer')") == []


def test_unprotect_in_the_middle_gives_back_the_original(shop: Database) -> None:
    before = sorted(original(shop, "shop").splitlines())
    until(shop, "sealing")
    for _ in range(3):
        take(shop)
    shop.rows("select gdpr.unprotect('shop.buyer')")
    assert sorted(original(shop, "shop").splitlines()) == before


def test_no_setting_shows_the_owner_what_is_hidden(forced: Database) -> None:
    """An application that is the owner, as FORCE supposes, and Mallory who speaks through it."""
    until(forced, "claiming")
    owner = forced.connect()
    for setting in ("gdpr.enabling", "gdpr.sweeping", "session_replication_role"):
        try:
            owner.execute(f"set {setting} = on")
        except psycopg.Error:
            continue
    assert owner.execute("select count(*) from shop.buyer").fetchone() == (0,)
    # of a batch nothing is left open in its transaction
    with owner.transaction():
        owner.execute("select gdpr.backfill('shop.buyer', 1)")
        assert owner.execute("select count(*) from shop.buyer").fetchone() == (0,)
    # nor for others, while it lasts
    with owner.transaction():
        owner.execute("select gdpr_policy.take_blocks('shop.buyer', 1)")
        for user in ("crm_app", OWNER):
            count = {"crm_app": len(MINE), OWNER: 0}[user]
            assert len(forced.rows("select id from shop.buyer", user=user)) == count
    for user in ("crm_app", "dpo_login"):
        with refused("42501"):
            forced.rows("select gdpr_policy.take_blocks('shop.buyer', 1)", user=user)


RESTRICTIVE = "create policy {} on shop.buyer as restrictive to public using (id <> 20)"


def test_rows_that_a_restrictive_policy_hides_are_not_passed_over(forced: Database) -> None:
    """Before: at once. Meanwhile: it stops, says so, and nothing counts as done."""
    forced.rows(RESTRICTIVE.format("tenants"))
    ((method, reason),) = forced.rows(
        "select method, reason from gdpr.estimate(%s) where object = 'shop.buyer'",
        [json.dumps(POLICY)],
    )
    assert (method, reason) == (
        "at once",
        (
            "row security is forced on the table, and restrictive policies hide rows from its"
            " owner: tenants"
        ),
    )
    forced.rows("drop policy tenants on shop.buyer")
    until(forced, "sealing")
    forced.rows(RESTRICTIVE.format("tenants"))
    with refused("PR008", "rows_hidden"):
        finish(forced)
    assert state(forced) == "sealing"
    assert plaintext(forced) == 40
    # another role may be meant
    forced.rows("alter policy tenants on shop.buyer to metabase")
    finish(forced)
    assert plaintext(forced) == 0


@pytest.mark.parametrize("what", ["dropped", "for another role"])
def test_without_its_policy_the_backfill_stops(forced: Database, what: str) -> None:
    until(forced, "claiming")
    forced.rows(
        "drop policy gdpr_40_sweep on shop.buyer"
        if what == "dropped"
        else "alter policy gdpr_40_sweep on shop.buyer to metabase"
    )
    with refused("PR008", "rows_hidden"):
        finish(forced)
    assert state(forced) == "claiming"
    forced.rows("alter table shop.buyer no force row level security")
    finish(forced)
    assert plaintext(forced) == 0


def test_row_security_that_comes_meanwhile_hides_nothing_from_it(
    clone: Clone, shop_template: str
) -> None:
    with clone(shop_template) as shop:
        shop.rows("drop schema crm cascade")
        shop.rows(TABLES)
        shop.rows(ROWS)
        until(shop, "claiming")
        shop.rows("alter table shop.buyer enable row level security, force row level security")
        finish(shop)
        assert plaintext(shop) == 0
        assert plan(shop, POLICY) == []
