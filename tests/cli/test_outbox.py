"""``gdprdb outbox``: looking after mails that wait."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.capabilities.crm import POLICY, ROWS, TABLES, apply
from tests.support import Database, Prepared, Run


def with_mails(db: Database) -> None:
    """The customers under their policy; mail 1 is dead and mail 2 waits."""
    connection = db.connect()
    connection.execute(TABLES)
    connection.execute(ROWS)
    apply(db, POLICY)
    for subject in (1, 2):
        db.rows(
            "select gdpr_internal.queue_mail(%s, 'registration', 'de', %s)",
            [subject, json.dumps({"to": "anna@example.com"})],
            user="postgres",
        )
    db.rows(
        "update gdpr_internal.outbox set dead_at = now(), failure = '550 5.1.1 recipient'"
        " where id = 1",
        user="postgres",
    )


@pytest.fixture
def db(prepared: Prepared, installed_template: str) -> Iterator[Database]:
    """A database where mail 1 is dead and mail 2 waits."""
    with prepared(installed_template, with_mails) as database:
        yield database


@pytest.fixture
def waiting(on_db: Run) -> Run:
    """The command line on that database."""
    return on_db


def test_list_shows_who_and_never_what(waiting: Run) -> None:
    outcome = waiting("outbox", "list", "--format", "json")
    assert [(mail["mail_id"], mail["subject_id"], mail["state"]) for mail in outcome.data] == [
        (1, 1, "dead"),
        (2, 2, "waiting"),
    ]
    assert "anna" not in outcome.out
    dead = waiting("outbox", "list", "--dead", "--format", "json").data
    assert [mail["failure"] for mail in dead] == ["550 5.1.1 recipient"]


def test_status_counts(waiting: Run) -> None:
    assert waiting("outbox", "drop", "--mail-id", "2", "--reason", "test", "-y").code == 0
    counts = waiting("outbox", "status", "--format", "json").data
    assert {(row["template"], row["state"], row["mails"]) for row in counts} == {
        ("registration", "dead", 1),
        ("registration", "dropped", 1),
    }


def test_retry(waiting: Run, db: Database) -> None:
    chosen = waiting("outbox", "retry", "--all-dead", "--dry-run", "--format", "json")
    assert [mail["mail_id"] for mail in chosen.data] == [1]
    assert "--dry-run" in chosen.err
    assert db.rows("select state from gdpr.outbox where mail_id = 1") == [("dead",)]
    # one that is not dead is left alone
    assert waiting("outbox", "retry", "--mail-id", "2", "--format", "json").data == []
    assert waiting("outbox", "retry", "--mail-id", "1").code == 0
    assert db.rows("select state from gdpr.outbox where mail_id = 1") == [("waiting",)]


def test_drop_asks_first_and_leaves_a_record(waiting: Run, db: Database) -> None:
    arguments = ("outbox", "drop", "--all-dead", "--reason", "addresses are wrong")
    assert waiting(*arguments).code == 2
    assert waiting(*arguments, "--dry-run").code == 0
    assert db.rows("select count(*) from gdpr.outbox") == [(2,)]
    assert waiting(*arguments, "--yes").code == 0
    assert db.rows("select mail_id from gdpr.outbox") == [(2,)]
    assert db.rows("select mail_id, event, reason from gdpr.mail_log") == [
        (1, "dropped", "addresses are wrong")
    ]


@pytest.mark.parametrize("command", [("retry",), ("drop", "--reason", "x")])
def test_which_mails_has_to_be_said(waiting: Run, command: tuple[str, ...]) -> None:
    assert waiting("outbox", *command).code == 2
    assert waiting("outbox", *command, "--mail-id", "1", "--all-dead").code == 2
