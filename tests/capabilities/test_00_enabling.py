"""Station 00: a table is protected in moments and batches, and comes out as it does at once."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from gdprdb import enabling
from tests.capabilities.crm import apply, findings, original, plan, problems, refused
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
    told,
    until,
)
from tests.support import Clone, Database


@pytest.fixture(scope="module")
def template(clone: Clone, shop_template: str) -> Iterator[str]:
    """The shop before its policy, for cloning."""
    with application(clone, shop_template, TABLES, ROWS) as database:
        yield database.name


@pytest.fixture
def shop(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        yield database


@pytest.fixture(scope="module")
def at_once(clone: Clone, template: str) -> Iterator[Database]:
    """The same shop, protected in one transaction."""
    with clone(template) as database:
        apply(database, POLICY)
        yield database


def same(batched: Database, once: Database) -> None:
    """Nothing tells how the tables were protected."""
    for table in ("shop.buyer", "shop.purchase"):
        assert catalog(batched, table) == catalog(once, table)
    assert clear(batched, "buyer") == clear(once, "buyer")
    assert clear(batched, "purchase") == clear(once, "purchase")
    assert told(batched) == told(once)
    assert plan(batched, POLICY) == []
    assert batched.rows("select * from gdpr.next_step(%s)", [json.dumps(POLICY)]) == []
    assert findings(batched) == findings(once)


def test_in_batches_or_at_once_is_the_same(shop: Database, at_once: Database) -> None:
    finish(shop)
    same(shop, at_once)


def test_who_stops_after_any_statement_goes_on(shop: Database, at_once: Database) -> None:
    """Each statement runs on a connection of its own; what was done is in the database alone."""
    seen = []
    while action := take(shop):
        if action not in seen:
            seen.append(action)
    assert seen == [
        "purposes, roles, and tables protected before",
        "register, add columns",
        "generate functions",
        "index the subject and the digests",
        "triggers: new rows get their persons",
        "find the persons in existing rows",
        "room for ciphertext, the clear view, triggers: new rows are encrypted",
        "encrypt existing rows",
        "statistics forget the plaintext",
        "switch on: triggers, views, the gate",
    ]
    same(shop, at_once)


@pytest.mark.parametrize("where", ["generated", "claiming", "claimed", "sealing", "sealed"])
def test_apply_ends_what_was_begun_in_batches(
    shop: Database, at_once: Database, where: str
) -> None:
    until(shop, where)
    assert ("warning", "enabling") in {
        (severity, topic)
        for severity, topic in shop.rows("select severity, topic from gdpr.doctor()")
    }
    (only, *_) = [s for s in plan(shop, POLICY) if s[1] == "shop.buyer"]
    assert only[2] == "finish enabling at once"
    apply(shop, POLICY)
    same(shop, at_once)


@pytest.mark.parametrize("where", ["begun", "claiming", "claimed", "sealing", "analysed"])
def test_unprotect_in_the_middle_gives_back_the_original(shop: Database, where: str) -> None:
    before = sorted(original(shop, "shop").splitlines())
    until(shop, where)
    if where in ("claiming", "sealing"):
        for _ in range(3):
            take(shop)
        assert state(shop) == where
    shop.rows("select gdpr.unprotect('shop.buyer')")
    assert sorted(original(shop, "shop").splitlines()) == before
    assert shop.rows("select * from gdpr.enabling") == []
    # and it can begin again
    finish(shop)
    assert len(clear(shop, "buyer")) == 40
    assert plan(shop, POLICY) == []


def test_the_application_goes_on_with_what_it_had(shop: Database) -> None:
    """Until all have their persons the table is as it was; then the clear view is there, whole."""
    before = shop.rows("select id, email, login, phone, city from shop.buyer order by id")
    session = shop.connect("crm_app")
    session.execute("set search_path = gdpr_clear, shop")
    session.execute("prepare by_city as select email, city from buyer order by city, id")
    sorted_before = session.execute("execute by_city").fetchall()
    until(shop, "claiming")
    for _ in range(4):
        take(shop)
        assert before == shop.rows(
            "select id, email, login, phone, city from shop.buyer order by id", user="crm_app"
        )
    assert shop.rows("select to_regclass('gdpr_clear.buyer') is null") == [(True,)]
    until(shop, "sealing")
    for _ in range(5):
        rows = clear(shop, "buyer")
        assert [row[:5] for row in rows] == before
        # found by its digest, whether the row is sealed or not
        found = shop.rows(
            "select id from gdpr_clear.buyer"
            " where email_digest = gdpr.digest('email', 'buyer39@example.com')",
            user="crm_app",
        )
        assert found == [(39,)]
        assert state(shop) == "sealing"
        # a session from before, with its prepared statements: the path leads it to the view
        assert session.execute("execute by_city").fetchall() == sorted_before
        take(shop)
    sealed = shop.rows(
        "select count(*) filter (where starts_with(email, 'gdpr1:')), count(*) from shop.buyer"
    )[0]
    assert 0 < sealed[0] < sealed[1]


def test_plaintext_has_its_place_until_it_ends(shop: Database) -> None:
    """What was not yet encrypted is read, reported and told as ever; afterwards it is refused."""
    seen = set()
    while True:
        now = state(shop)
        seen.add(now)
        if now is None and plan(shop, POLICY) == []:
            break
        if now not in (None, "begun", "generated"):
            assert shop.rows("select * from gdpr.broken_values('shop.buyer')") == []
            ((person,),) = shop.rows(
                "select gdpr.find_subject('email', 'buyer38@example.com')", user="dpo_login"
            )
            if person is not None:
                ((report,),) = shop.rows(
                    "select gdpr.access_report(%s)::text", [person], user="dpo_login"
                )
                assert "Buyer38@Example.com" in report
                assert "+49 711 38" in report
            assert shop.rows(
                "select gdpr.reveal(email) from shop.buyer where id in (1, 38) order by id",
                user="crm_app",
            ) == [("Buyer1@Example.com",), ("Buyer38@Example.com",)]
        if shop.rows("select to_regclass('gdpr_clear.buyer') is not null") == [(True,)]:
            assert len(clear(shop, "buyer")) == 40
        take(shop, 20)
    assert seen == {
        None,
        "begun",
        "generated",
        "claiming",
        "claimed",
        "sealing",
        "sealed",
        "analysed",
    }
    assert len(clear(shop, "buyer")) == 40
    with psycopg.connect(shop.dsn("postgres")) as superuser:
        superuser.execute("alter table shop.buyer disable trigger user")
        superuser.execute("update shop.buyer set city = 'Ulm' where id = 1")
    for statement in (
        "select city from gdpr_clear.buyer where id = 1",
        "select gdpr.reveal(city) from shop.buyer where id = 1",
    ):
        with refused("PR404", "tampered"):
            shop.rows(statement, user="crm_app")
    assert shop.rows("select row_key, column_name from gdpr.broken_values('shop.buyer')") == [
        ("1", "city")
    ]


def test_writes_between_batches_are_kept(shop: Database) -> None:
    app = shop.connect("crm_app")
    until(shop, "claiming")
    take(shop)
    # not seen yet, seen already, new, gone
    app.execute("update shop.buyer set email = 'moved39@example.com', city = 'Ulm' where id = 39")
    app.execute("update shop.buyer set email = 'moved1@example.com' where id = 1")
    app.execute("insert into shop.buyer (email, login) values ('new@example.com', 'new')")
    app.execute("delete from shop.purchase where buyer_id = 3")
    app.execute("delete from shop.buyer where id = 3")
    until(shop, "sealing")
    take(shop)
    app.execute("set search_path = gdpr_clear, shop")
    app.execute("update buyer set email = 'again39@example.com' where id = 39")
    app.execute("update buyer set phone = '+49 711 99' where id = 1")
    app.execute("insert into buyer (email, login) values ('newer@example.com', 'newer')")
    app.execute("update buyer set nickname = 'N' where id = 38")
    with pytest.raises(psycopg.errors.UniqueViolation):
        app.execute("insert into buyer (email) values ('BUYER40@example.com')")
    finish(shop)
    rows = {row[0]: row for row in clear(shop, "buyer")}
    assert (rows[39][1], rows[39][4]) == ("again39@example.com", "Ulm")
    assert (rows[1][1], rows[1][3]) == ("moved1@example.com", "+49 711 99")
    assert {row[1] for row in rows.values()} >= {"new@example.com", "newer@example.com"}
    assert 3 not in rows
    assert len(rows) == 41
    assert rows[38][5] == "N"
    assert shop.rows(
        "select count(*) from shop.buyer where not starts_with(email, 'gdpr1:')", user="postgres"
    ) == [(0,)]
    # each address, past or present, is that of one person
    find = "select gdpr.find_subject('email', %s)"
    for address, key in (
        ("again39@example.com", 39),
        ("moved1@example.com", 1),
        ("newer@example.com", None),
    ):
        ((person,),) = shop.rows(find, [address], user="dpo_login")
        assert person is not None
        if key:
            assert shop.rows(
                "select gdpr.subject_of('shop.buyer', %s)", [str(key)], user="dpo_login"
            ) == [(person,)]
    assert shop.rows(find, ["Buyer39@example.com"], user="dpo_login") == [(None,)]
    assert plan(shop, POLICY) == []
    assert findings(shop) == set()


def test_a_locked_row_is_passed_over_and_waited_for(shop: Database) -> None:
    until(shop, "claiming")
    app = shop.connect("crm_app", autocommit=False)
    app.execute("update shop.buyer set city = 'Ulm' where id = 5")
    with shop.connect() as owner:
        owner.execute("set lock_timeout = '200ms'")
        while owner.execute("select sweep from gdpr.enabling").fetchone() == (1,):
            owner.execute("select gdpr.backfill('shop.buyer', 1)")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            owner.execute("select gdpr.backfill('shop.buyer', 1000)")
        app.commit()
    finish(shop)
    assert clear(shop, "buyer")[4][4] == "Ulm"


def test_what_is_refused_on_the_way(shop: Database) -> None:
    app = shop.connect("crm_app")
    changed = copy.deepcopy(POLICY)
    changed["tables"]["shop.buyer"]["columns"]["city"]["mask"] = "hide"
    until(shop, "claiming")
    assert problems(shop, changed) == [
        (
            'tables."shop.buyer": is being enabled under another definition;'
            " let that come to its end, or unprotect it"
        )
    ]
    with refused("PR006", "enabling_state"):
        shop.rows("select gdpr_policy.move_enabling('shop.buyer', 'analysed')")
    with refused("PR006", "enabling_state"):
        shop.rows("select gdpr_policy.switch_on('shop.buyer')")
    for who in ("crm_app", "dpo_login"):
        with refused("42501"):
            shop.rows("select gdpr.backfill('shop.buyer')", user=who)
    with refused("PR407", "truncate_refused"):
        shop.rows("truncate shop.buyer cascade")
    for column in (
        "gdpr_subject_id = 1",
        "gdpr_purposes = -1",
        "gdpr_email_digest = gen_random_uuid()",
    ):
        with refused("PR406", "gate_columns"):
            app.execute(f"update shop.buyer set {column} where id = 1")
    with refused("PR405", "ciphertext_written"):
        app.execute("update shop.buyer set city = 'gdpr1:AAAA' where id = 1")
    with refused("PR405", "ciphertext_written"):
        app.execute("insert into shop.buyer (email, city) values ('x@example.com', 'gdpr1:AAAA')")
    until(shop, "sealing")
    with refused("PR405", "ciphertext_written"):
        app.execute("update gdpr_clear.buyer set city = 'gdpr1:AAAA' where id = 1")
    with refused("22001"):
        app.execute("update gdpr_clear.buyer set city = repeat('x', 41) where id = 1")


def test_plaintext_that_looks_like_ciphertext_stops_it_and_is_not_lost(shop: Database) -> None:
    shop.rows("update shop.buyer set city = 'gdpr1:Köln' where id = 9")
    with refused("PR405", "ciphertext_written"):
        finish(shop)
    assert shop.rows("select city from shop.buyer where id = 9") == [("gdpr1:Köln",)]
    shop.rows("update shop.buyer set city = 'Köln' where id = 9")
    finish(shop)
    assert clear(shop, "buyer")[8][4] == "Köln"


def test_a_blocked_address_stops_it_as_it_stops_apply(shop: Database) -> None:
    shop.rows("select gdpr.block('email', 'buyer20@example.com', 'asked')", user="dpo_login")
    with refused("PR103", "blocked_rows"):
        finish(shop)
    # the application may still write that row, and take it away
    shop.rows("update shop.buyer set city = 'Ulm' where id = 20", user="crm_app")
    shop.rows("select gdpr.unblock('email', 'buyer20@example.com', 'mistake')", user="dpo_login")
    finish(shop)
    assert clear(shop, "buyer")[19][4] == "Ulm"


def test_values_that_became_one_meanwhile_are_told(shop: Database) -> None:
    until(shop, "claiming")
    shop.rows("insert into shop.buyer (email) values ('BUYER1@example.com')", user="crm_app")
    with pytest.raises(Exception, match="values count as one"):
        finish(shop)
    shop.rows("delete from shop.buyer where email = 'BUYER1@example.com'", user="crm_app")
    finish(shop)
    assert plan(shop, POLICY) == []
    assert shop.rows("select count(*) from pg_index where not indisvalid") == [(0,)]


def test_a_table_that_cannot_go_in_batches_is_protected_at_once(shop: Database) -> None:
    shop.rows("alter table shop.buyer enable row level security, force row level security")
    shop.rows("create policy narrow on shop.buyer as restrictive to db_owner using (id < 1000)")
    shop.rows("create policy everybody on shop.buyer using (true)")
    reason = (
        "row security is forced on the table, and restrictive policies hide rows from its owner:"
        " narrow"
    )
    (buyer, purchase) = shop.rows(
        "select object, rows, method, reason, seconds >= 0, room > 0, wal > 0, lock, rewrite"
        " from gdpr.estimate(%s)",
        [json.dumps(POLICY)],
    )
    assert buyer[2:] == (
        "at once",
        reason,
        True,
        True,
        True,
        "ACCESS EXCLUSIVE all the time",
        True,
    )
    assert purchase[2:] == (
        "batches",
        None,
        True,
        True,
        True,
        "ACCESS EXCLUSIVE for moments",
        False,
    )
    seen = []
    with psycopg.connect(shop.dsn(), autocommit=True) as connection:
        enabling.run(
            connection,
            Jsonb(POLICY),
            lambda what: seen.append(what) if isinstance(what, enabling.Step) else None,
        )
    assert [s.action for s in seen if s.object == "shop.buyer"] == [f"protect at once: {reason}"]
    assert len([s for s in seen if s.object == "shop.purchase"]) > 5
    assert plan(shop, POLICY) == []
    assert len(clear(shop, "buyer")) == 40


def test_persons_have_their_rights_on_the_way(shop: Database) -> None:
    """Who has been found can be shown what there is, and forgotten, before the table is done."""
    finish(shop, _only("shop.buyer"))
    until(shop, "sealing", "shop.purchase")
    for _ in range(9):
        take(shop)
    assert state(shop, "shop.purchase") == "sealing"
    find = "select gdpr.find_subject('email', %s)"
    ((whole,),) = shop.rows(find, ["buyer26@example.com"], user="dpo_login")
    ((halfway,),) = shop.rows(find, ["buyer20@example.com"], user="dpo_login")
    ((report,),) = shop.rows("select gdpr.access_report(%s)", [whole], user="dpo_login")
    assert "note 25" in json.dumps(report)
    shop.rows("select gdpr.erase(%s, 'asked')", [whole], user="dpo_login")
    # rows of whom nobody knows yet whose they are: it says so, and nothing is half done
    with refused("23503", "erasure_blocked"):
        shop.rows("select gdpr.erase(%s, 'asked')", [halfway], user="dpo_login")
    finish(shop)
    assert {row[0] for row in clear(shop, "buyer")} == set(range(1, 41)) - {26}
    shop.rows("select gdpr.erase(%s, 'asked')", [halfway], user="dpo_login")
    assert plan(shop, POLICY) == []
    assert findings(shop, severities=("error",)) == set()


def _only(*tables: str) -> dict[str, Any]:
    policy = copy.deepcopy(POLICY)
    policy["tables"] = {name: policy["tables"][name] for name in tables}
    return policy
