"""Mallory brings back a database from before, or pretends that it is none."""

from __future__ import annotations

import json

import psycopg
import pytest

from tests.attacks.world import World, attempt, told
from tests.support import Clone

NAMES = "select last_name from gdpr_clear.customer"


@pytest.fixture
def restored(world: World) -> World:
    """A house that was found to be restored."""
    world.run("postgres", "select gdpr_internal.notice_restore('found')")
    return world


def code(error: psycopg.Error | None) -> str | None:
    """The SQLSTATE of a refusal."""
    return error.sqlstate if error else None


def test_no_claim_and_no_setting_opens_a_restored_database(restored: World) -> None:
    app = restored.login("crm_app")
    for setting in (
        "set gdpr.purpose = ''",
        "set gdpr.purpose = 'marketing'",
        "set recovery_target_time = ''",
        "set default_transaction_read_only = on",
        "set session_replication_role = replica",
        "set search_path = gdpr_clear, public",
        "set role crm_app",
        "begin isolation level serializable read only",
    ):
        attempt(app, setting)
        assert code(attempt(app, NAMES)) in ("PR640", "25P02"), setting
        attempt(app, "rollback")
    app.execute("set row_security = off")
    assert code(attempt(app, NAMES)) == "42501"
    app.execute("reset row_security")
    for claim in ("compliance", "maintenance"):
        app.execute("select set_config('gdpr.purpose', %s, false)", [claim])
        assert code(attempt(app, NAMES)) == "42501"


#: Who gets at data, by which way.
DOORS = [
    ("crm_app", "select last_name from gdpr_clear.customer"),
    ("crm_app", "select last_name from crm.customer"),
    ("crm_app", "insert into gdpr_clear.customer (email, last_name) values ('x@x.org', 'X')"),
    ("crm_app", "update crm.customer set city = 'Ulm'"),
    ("crm_app", "delete from crm.invoice"),
    ("crm_app", "copy gdpr_clear.customer (email, last_name) from stdin"),
    (
        "crm_app",
        """select gdpr.import_rows('crm.customer', '[{"last_name": "X"}]', p_skip => true)""",
    ),
    ("crm_app", "select gdpr.may_contact(1, 'mail', 'marketing')"),
    ("crm_app", "select gdpr.submit('crm.customer', '{}')"),
    ("crm_app", "select gdpr.confirm('token')"),
    ("metabase", "select * from gdpr_bi.customer"),
    ("portal_app", "select gdpr.portal_form('token')"),
    ("portal_app", "select gdpr.answer_consent('token', '{marketing}')"),
    ("portal_app", "select gdpr.portal_withdraw('token')"),
]


def through(session: psycopg.Connection, statement: str) -> None:
    """Run a statement; a COPY gets a row."""
    if statement.startswith("copy "):
        with session.cursor().copy(statement.encode()) as copy:
            copy.write(b"x@x.org\tX\n")
    else:
        session.execute(statement.encode())


def test_every_door_is_closed(restored: World) -> None:
    for user, statement in DOORS:
        session = restored.login(user)
        with pytest.raises(psycopg.Error) as error:
            through(session, statement)
        assert error.value.sqlstate == "PR640", statement
        assert "Annaname" not in told(error.value)


def test_no_mail_leaves(restored: World) -> None:
    """Those that wait were sent before the restore, for all that anybody knows."""
    # a login of its own: memberships are the cluster's, and other tests rely on theirs
    restored.run("postgres", "create role postman login in role gdpr_mail")
    try:
        with psycopg.connect(restored.db.dsn("postman")) as sender:
            assert code(attempt(sender, "select gdpr.next_mail()")) == "PR640"
    finally:
        restored.run("postgres", "drop role postman")


def test_a_ciphertext_taken_along_is_not_revealed(world: World) -> None:
    app = world.login("crm_app")
    row = app.execute("select email from crm.customer where id = 1").fetchone()
    world.run("postgres", "select gdpr_internal.notice_restore('found')")
    assert code(attempt(app, "select gdpr.reveal(%s)", row)) == "PR640"


@pytest.mark.parametrize("user", ["crm_app", "mallory", "outsider", "admin_login"])
def test_nobody_but_an_officer_says_that_it_is_home(restored: World, user: str) -> None:
    session = restored.login(user)
    assert attempt(session, "select gdpr.accept_restore('nothing happened')") is not None
    assert code(attempt(restored.login("crm_app"), NAMES)) == "PR640"


@pytest.mark.parametrize("user", ["crm_app", "mallory", "outsider", "db_owner", "admin_login"])
def test_nobody_makes_it_home_behind_the_officer(restored: World, user: str) -> None:
    """Not even the owner of the database, who is an officer until that is given up."""
    session = restored.login(user)
    for statement in (
        "select gdpr_internal.record_home('accepted', 'x')",
        "select gdpr_internal.generate_home()",
        "create function gdpr_generated.is_home(int) returns bool return true",
        "drop type gdpr_generated.place",
        "alter type gdpr_generated.place add value 'x'",
        "insert into gdpr_internal.home_record (event) values ('accepted')",
    ):
        assert attempt(session, statement) is not None, statement
    assert code(attempt(restored.login("crm_app"), NAMES)) == "PR640"


def test_loading_the_policy_again_makes_nothing_home(restored: World) -> None:
    """apply() generates the function that the row policies ask: from the records alone."""
    restored.run("postgres", "grant mallory to db_owner")
    try:
        restored.run(
            "db_owner",
            "select count(*) from gdpr.apply("
            " jsonb_set(gdpr.policy(), '{roles, crm_app, purposes}', '[\"orders\"]'))",
        )
    finally:
        restored.run("postgres", "revoke mallory from db_owner")
    assert code(attempt(restored.login("crm_app"), NAMES)) == "PR640"


def test_a_ledger_made_by_hand_is_refused(world: World) -> None:
    """By the officer too: without the database's own key there is no MAC."""
    lines = [
        {"gdprdb_ledger": 1, "part": 1, "since": "-infinity", "positions": {}},
        {"kind": "erasure", "subject": 1, "at": "2026-01-01T00:00:00Z"},
        {"seal": {"entries": 1, "more": False, "digest": "00", "mac": "00"}},
    ]
    officer = world.login("dpo_login")
    for call in ("replay", "check_ledger"):
        error = attempt(officer, f"select gdpr.{call}(%s)", [json.dumps(lines)])
        assert code(error) == "PR641"
    assert "Annaname" in repr(world.run("crm_app", NAMES))


def test_a_copy_that_takes_the_place_of_the_original_is_noticed(world: World, clone: Clone) -> None:
    """Beside it, it goes on; the original gone, an old copy could be in its place."""
    with clone(world.db.name) as first:
        first.rows("select gdpr.accept_restore('the original')", user="dpo_login")
        first.close()
        with clone(first.name) as copy:
            old = World(copy)
            assert "Annaname" in repr(old.run("crm_app", NAMES))
            world.run("postgres", f"alter database {first.name} rename to elsewhere")
            assert "Annaname" in repr(old.run("crm_app", NAMES))
            world.run("postgres", "drop database elsewhere")
            assert code(attempt(old.login("crm_app"), NAMES)) == "PR640"
            world.run("postgres", f"create database {first.name}")
            assert code(attempt(old.login("crm_app"), NAMES)) == "PR640"
