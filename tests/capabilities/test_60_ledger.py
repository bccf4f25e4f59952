"""Station 60: what is forgotten stays forgotten, though a backup brings it back.

A backup here is a copy of the database (CREATE DATABASE ... TEMPLATE), made before the deeds
that the ledger brings back; tests/restore does it with real dumps and base backups."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.capabilities.crm import refused, subject
from tests.support import Clone, Database

Lines = list[dict[str, Any]]

#: Evidence that somebody was told by phone.
TOLD = {"who": "kw", "when": "today", "how": "phone", "reference": "1"}


def ledger(db: Database, since: str = "-infinity", part: int = 100_000) -> Lines:
    """The lines of the ledger."""
    rows = db.rows("select gdpr.ledger(%s, %s)", [since, part], user="dpo_login")
    return [line for (line,) in rows]


def replay(db: Database, lines: Lines) -> dict[str, Any]:
    """Replay one part, as the officer."""
    ((result,),) = db.rows("select gdpr.replay(%s)", [json.dumps(lines)], user="dpo_login")
    assert isinstance(result, dict)
    return result


def counts(result: dict[str, Any]) -> dict[str, int]:
    """How many records of each kind a replay brought back."""
    return {name: count for name, count in result.items() if isinstance(count, int) and count}


def officer(db: Database, statement: str, *parameters: object) -> Any:
    """The single value of a statement of the officer."""
    return db.rows(statement, parameters, user="dpo_login")[0][0]


def seen(db: Database, purpose: str = "orders") -> list[str]:
    """The last names that the application sees."""
    with db.connect("crm_app") as app:
        app.execute("select set_config('gdpr.purpose', %s, false)", [purpose])
        rows = app.execute("select last_name from gdpr_clear.customer order by 1").fetchall()
    return [name for (name,) in rows]


def evidence(db: Database) -> list[tuple[Any, ...]]:
    """The records that replay() may add to, but its own, by what they say."""
    rows: list[tuple[Any, ...]] = []
    for table, columns in (
        ("erasure_record", "subject_id"),
        ("restriction_record", "subject_id, ground, recorded_at"),
        ("restriction_end", "restriction_id, ended_at"),
        ("objection_record", "subject_id, purpose_id, recorded_at"),
        ("consent_record", "subject_id, purpose_id, event, channel, recorded_at"),
        ("basis_end", "basis_id, ended_at"),
        ("opt_out_record", "mailbox, event, recorded_at"),
    ):
        rows += [
            (table, *row)
            for row in db.rows(
                f"select {columns} from gdpr_internal.{table} order by 1, 2"
                if "," in columns
                else f"select {columns} from gdpr_internal.{table} order by 1",
                user="postgres",
            )
        ]
    return rows


@pytest.fixture
def backup(clone: Clone, crm: Database) -> Iterator[Database]:
    """A copy of ``crm`` from before the test changed it: Anna consented to marketing."""
    anna = subject(crm, "crm.customer", 1)
    officer(crm, "select gdpr.record_consent(%s, 'marketing', true, 'in_person')", anna)
    with clone(crm.name) as database:
        yield database


def test_everything_that_locks_is_brought_back(crm: Database, backup: Database) -> None:
    anna, bela, chie = (subject(crm, "crm.customer", n) for n in (1, 2, 3))
    officer(crm, "select gdpr.withdraw_consent(%s, 'marketing')", anna)
    officer(crm, "select gdpr.object_to(%s, 'analytics')", anna)
    officer(crm, "select gdpr.restrict(%s, 'accuracy_contested')", bela)
    officer(crm, "select gdpr.erase(%s)", chie)
    officer(crm, "select gdpr.block('email', 'never@example.com', 'asked by phone')")
    ended = officer(
        crm,
        "select gdpr.record_basis(%s, 'marketing', 'public_task')",
        anna,
    )
    officer(crm, "select gdpr.end_basis(%s, 'over')", ended)
    assert seen(backup) == ["Ahrens", "Bartok", "Chiba"]
    result = replay(backup, ledger(crm))
    assert counts(result) == {
        "erasures": 1,
        "blocks": 1,
        "restrictions": 1,
        "objections": 1,
        "consents": 1,
    }
    assert seen(backup) == ["Ahrens"]
    assert seen(backup, "marketing") == []
    with refused("23505"):
        backup.rows(
            "insert into gdpr_clear.customer (email, last_name) values ('chie@example.com', 'C')",
            user="crm_app",
        )
    assert officer(backup, "select gdpr.is_blocked('email', 'never@example.com')")
    assert not officer(backup, "select gdpr.may_contact(%s, 'mail', 'marketing')", anna)
    assert officer(backup, "select gdpr.whereabouts()") == "home"


def test_records_keep_their_time_and_say_that_they_were_replayed(
    crm: Database, backup: Database
) -> None:
    anna = subject(crm, "crm.customer", 1)
    officer(crm, "select gdpr.withdraw_consent(%s, 'marketing')", anna)
    question = "select recorded_at, recorded_by from gdpr.consent where subject_id = %s"
    ((at, by),) = crm.rows(question, [anna], user="dpo_login")
    replay(backup, ledger(crm))
    assert backup.rows(question, [anna], user="dpo_login") == [(at, "ledger replay by dpo_login")]
    assert by == "dpo_login"
    ((log,),) = backup.rows("select result from gdpr.replay_log", user="auditor_login")
    assert log["consents"] == 1


def test_twice_changes_nothing(crm: Database, backup: Database) -> None:
    anna, bela, chie = (subject(crm, "crm.customer", n) for n in (1, 2, 3))
    officer(crm, "select gdpr.withdraw_consent(%s, 'marketing')", anna)
    officer(crm, "select gdpr.restrict(%s, 'other')", anna)
    officer(crm, "select gdpr.lift_restriction(%s, 'told')", anna)
    officer(crm, "select gdpr.object_to(%s, 'analytics')", bela)
    officer(crm, "select gdpr.erase(%s)", chie)
    lines = ledger(crm)
    first = replay(backup, lines)
    assert (first["restrictions"], first["restriction_ends"]) == (1, 1)
    before = evidence(backup)
    assert sorted(before) == sorted(evidence(crm))
    second = replay(backup, lines)
    assert counts(second) == {}
    assert evidence(backup) == before
    # in the database that wrote it, nothing is to be done either
    assert counts(replay(crm, lines)) == {}


def test_a_withdrawal_comes_back_and_a_later_grant_is_named(
    crm: Database, backup: Database
) -> None:
    anna = subject(crm, "crm.customer", 1)
    officer(crm, "select gdpr.withdraw_consent(%s, 'marketing')", anna)
    officer(crm, "select gdpr.record_consent(%s, 'marketing', true, 'in_person')", anna)
    result = replay(backup, ledger(crm))
    assert seen(crm, "marketing") == ["Ahrens"]
    assert seen(backup, "marketing") == []
    assert [(g["subject"], g["purpose"]) for g in result["granted_again"]] == [(anna, "marketing")]
    assert result["lost"]["consent_record"] == 2


def test_who_came_and_went_after_the_backup_stays_away(crm: Database, backup: Database) -> None:
    app = crm.connect("crm_app")
    app.execute("insert into gdpr_clear.customer (email, last_name) values ('e@example.com', 'E')")
    app.execute("insert into gdpr_clear.customer (email, last_name) values ('f@example.com', 'F')")
    emil, fanny = (subject(crm, "crm.customer", n) for n in (4, 5))
    officer(crm, "select gdpr.erase(%s)", emil)
    result = replay(backup, ledger(crm))
    assert result["erasures"] == 1
    assert result["lost"]["subject"] == 2
    assert officer(backup, "select gdpr.is_blocked('email', 'e@example.com')")
    assert officer(
        backup, "select erased_at is not null from gdpr.subject where subject_id = %s", emil
    )
    # no number that was given is given to somebody else
    backup.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('g@example.com', 'G')",
        user="crm_app",
    )
    assert officer(backup, "select max(subject_id) from gdpr.subject") > fanny


def test_numbers_given_to_others_after_the_restore_are_noticed(
    crm: Database, backup: Database
) -> None:
    for database, address in ((crm, "e@example.com"), (backup, "other@example.com")):
        database.rows(
            "insert into gdpr_clear.customer (email, last_name) values (%s, 'E')",
            [address],
            user="crm_app",
        )
    emil = subject(crm, "crm.customer", 4)
    officer(crm, "select gdpr.erase(%s)", emil)
    with refused("PR641", "ledger_refused") as error:
        replay(backup, ledger(crm))
    assert str(emil) in (error.value.diag.message_detail or "")
    assert "E" in seen(backup)


def test_a_ledger_that_was_changed_is_refused(crm: Database) -> None:
    for n in (1, 2):
        officer(crm, "select gdpr.restrict(%s, 'other')", subject(crm, "crm.customer", n))
    header, first, second, seal = ledger(crm)
    positions = {**header["positions"], "subject": 99}
    for changed in (
        [header, second, seal],
        [header, {**first, "subject": 3}, second, seal],
        [header, first, first, second, seal],
        [header, second, first, seal],
        [{**header, "positions": positions}, first, second, seal],
        [header, first, second, {"seal": {**seal["seal"], "more": True}}],
        [header, first, second, {"seal": {**seal["seal"], "mac": "0" * 64}}],
        [header, first, second],
        [header],
        [],
        [1],
    ):
        for call in ("replay", "check_ledger"):
            with refused("PR641", "ledger_refused"):
                officer(crm, f"select gdpr.{call}(%s)", json.dumps(changed))
    for nonsense in ("null", "{}", '"x"', '[{"gdprdb_ledger": 1}]'):
        with refused("PR641", "ledger_refused"):
            officer(crm, "select gdpr.replay(%s)", nonsense)


def test_a_ledger_of_another_database_is_refused(crm: Database, db: Database) -> None:
    officer(db, "select gdpr.block('email', 'x@example.com', 'y')")
    db.rows(
        "update gdpr_internal.key_encryption_key set audit_key = sha256('another')",
        user="postgres",
    )
    with refused("PR641", "ledger_refused"):
        replay(crm, ledger(db))


def test_parts_are_replayed_in_their_order_and_none_is_left_out(
    crm: Database, backup: Database
) -> None:
    for n in (1, 2, 3):
        officer(crm, "select gdpr.restrict(%s, 'other')", subject(crm, "crm.customer", n))
    lines = ledger(crm, part=1)
    parts = [lines[n : n + 3] for n in range(0, len(lines), 3)]
    assert [part[0]["part"] for part in parts] == [1, 2, 3]
    with refused("PR641", "ledger_refused"):
        replay(backup, parts[1])
    replay(backup, parts[0])
    assert officer(backup, "select gdpr.whereabouts()") == "copy"
    with refused("PR641", "ledger_refused"):
        replay(backup, parts[2])
    replay(backup, parts[1])
    assert replay(backup, parts[2])["restrictions"] == 1
    assert seen(backup) == []
    assert officer(backup, "select gdpr.whereabouts()") == "home"


def test_a_ledger_that_begins_too_late_is_refused(crm: Database, backup: Database) -> None:
    officer(crm, "select gdpr.erase(%s)", subject(crm, "crm.customer", 3))
    with refused("PR641", "ledger_refused"):
        replay(backup, ledger(crm, since="infinity"))
    ((since,),) = backup.rows("select max(at)::text from gdpr.audit_log", user="dpo_login")
    assert replay(backup, ledger(crm, since=since))["erasures"] == 1


def test_a_checkpoint_is_two_lines_and_tells_that_the_database_is_behind(
    crm: Database, backup: Database
) -> None:
    crm.rows("update gdpr_clear.customer set city = 'Ulm' where id = 1", user="crm_app")
    checkpoint = ledger(crm, since="infinity")
    assert [len(checkpoint), checkpoint[-1]["seal"]["entries"]] == [2, 0]
    pooled = backup.connect("crm_app")
    pooled.execute("set plan_cache_mode = force_generic_plan")
    pooled.execute("prepare names as select last_name from gdpr_clear.customer")
    assert len(pooled.execute("execute names").fetchall()) == 3
    question = "select gdpr.check_ledger(%s)"
    here = officer(crm, question, json.dumps(checkpoint))
    assert (here["missing"], here["behind"], here["whereabouts"]) == ({}, {}, "copy")
    there = officer(backup, question, json.dumps(checkpoint))
    assert there["behind"] == {"audit_record": 1}
    assert there["whereabouts"] == "restored"
    with refused("PR640", "restored"):
        seen(backup)
    # what was noticed stays so, in sessions and plans of before, too; with the ledger it ends
    with refused("PR640", "restored"):
        pooled.execute("execute names")
    replay(backup, ledger(crm))
    assert seen(backup) == ["Ahrens", "Bartok", "Chiba"]
    assert len(pooled.execute("execute names").fetchall()) == 3
    assert officer(backup, question, json.dumps(checkpoint))["behind"] == {}


def test_the_ledger_holds_no_identities_and_no_words(crm: Database) -> None:
    chie = subject(crm, "crm.customer", 3)
    officer(crm, "select gdpr.restrict(%s, 'other')", chie)
    officer(crm, "select gdpr.lift_restriction(%s, 'Chiba rang us')", chie)
    officer(crm, "select gdpr.block('email', 'never@example.com', 'Nora asked')")
    officer(crm, "select gdpr.erase(%s, 'letter of Chiba')", chie)
    lines = ledger(crm)
    assert {line.get("kind") for line in lines[1:-1]} == {
        "block",
        "erasure",
        "restriction",
        "restriction_end",
    }
    text = json.dumps(lines)
    for word in ("Chiba", "chie", "Nora", "never@", "1003", "dpo_login"):
        assert re.search(rf"\b{word}", text) is None


def test_only_officers_replay_and_auditors_may_take_it_away(crm: Database) -> None:
    assert crm.rows("select gdpr.ledger()", user="auditor_login")
    for user in ("auditor_login", "crm_app", "metabase"):
        with refused("42501"):
            crm.rows("select gdpr.replay('[]')", user=user)
        with refused("42501"):
            crm.rows("select gdpr.accept_restore('because')", user=user)


def test_replay_waits_for_nobody_with_an_older_snapshot(crm: Database) -> None:
    session = crm.connect("dpo_login")
    session.execute("begin isolation level repeatable read")
    with refused("PR005", "needs_read_committed"):
        session.execute("select gdpr.replay('[]')")


def test_a_purpose_that_is_not_there_is_named(crm: Database, backup: Database) -> None:
    """The policy of the backup is older than a purpose that somebody objected to."""
    anna = subject(crm, "crm.customer", 1)
    crm.rows(
        "update gdpr_internal.purpose set name = 'later' where name = 'analytics'", user="postgres"
    )
    officer(crm, "select gdpr.object_to(%s, 'later')", anna)
    result = replay(backup, ledger(crm))
    assert (result["unknown_purposes"], result["objections"]) == (["later"], 0)


def test_a_correction_is_carried_out_again(crm: Database, backup: Database) -> None:
    """Twice, and the later one stands; the ledger holds ciphertext alone."""
    anna = subject(crm, "crm.customer", 1)
    for city in ("Ulm", "Trier"):
        change = [{"table": "crm.customer", "key": "1", "column": "city", "value": city}]
        officer(crm, "select gdpr.rectify(%s, %s, 'moved')", anna, json.dumps(change))
    lines = ledger(crm)
    assert "Trier" not in json.dumps(lines)
    assert counts(replay(backup, lines)) == {"rectifications": 2}
    question = "select city from gdpr_clear.customer where id = 1"
    assert backup.rows(question, user="crm_app") == [("Trier",)]
    assert counts(replay(backup, lines)) == {}


def test_a_correction_that_no_table_takes_is_named_and_the_rest_is_replayed(
    crm: Database, backup: Database
) -> None:
    anna, bela = (subject(crm, "crm.customer", n) for n in (1, 2))
    change = [{"table": "crm.customer", "key": "1", "column": "email", "value": "a@example.com"}]
    officer(crm, "select gdpr.rectify(%s, %s, 'typo')", anna, json.dumps(change))
    officer(crm, "select gdpr.restrict(%s, 'other')", bela)
    backup.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('a@example.com', 'A')",
        user="crm_app",
    )
    result = replay(backup, ledger(crm))
    assert (len(result["rectifications_refused"]), result["restrictions"]) == (1, 1)
    assert "anna@example.com" in repr(
        backup.rows("select email from gdpr_clear.customer where id = 1", user="crm_app")
    )


def test_what_is_held_is_not_erased_by_the_replay(crm: Database, backup: Database) -> None:
    """A hold placed after the backup keeps what it kept; one that was released does not."""
    anna, bela = (subject(crm, "crm.customer", n) for n in (1, 2))
    place = "select gdpr.place_hold(%s, 'legal_claims', 'file 4711', %s::text::regclass)"
    officer(crm, place, anna, 'crm."order"')
    released = officer(crm, place, bela, 'crm."order"')
    officer(crm, "select gdpr.release_hold(%s, 'settled')", released)
    officer(crm, "select gdpr.erase(%s)", anna)
    officer(crm, "select gdpr.erase(%s)", bela)
    assert "4711" not in json.dumps(ledger(crm))
    assert counts(replay(backup, ledger(crm))) == {"holds": 2, "hold_ends": 1, "erasures": 2}
    kept = 'select count(*) from crm."order" where customer_id = %s'
    for database in (crm, backup):
        assert [database.rows(kept, [n], user="postgres")[0][0] for n in (1, 2)] == [2, 0]


def test_decisions_about_objections_come_back(crm: Database, backup: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    officer(crm, "select gdpr.object_to(%s, 'analytics')", anna)
    officer(crm, "select gdpr.announce_lifting(%s, 'phone', %s)", anna, json.dumps(TOLD))
    officer(
        crm,
        "select gdpr.decide_objection(%s, 'analytics', 'overridden', 'legal_claims', %s)",
        anna,
        json.dumps({"file": 4711}),
    )
    assert counts(replay(backup, ledger(crm))) == {"objections": 1, "objection_decisions": 1}
    standing = "select count(*) from gdpr_internal.standing_objection"
    assert backup.rows(standing, user="postgres") == [(0,)]
