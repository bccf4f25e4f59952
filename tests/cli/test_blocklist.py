"""``gdprdb blocklist``: what an owner of a mailbox wants, and wants no more."""

from __future__ import annotations

from tests.support import Database, Run


def test_an_opt_out_is_listed_and_lifted_once(db: Database, on_db: Run) -> None:
    db.rows(
        "insert into gdpr_internal.opt_out_record (mailbox, event)"
        " values (gdpr.digest('email', 'anna@example.com'), 'opted_out')",
        user="postgres",
    )
    listed = on_db("blocklist", "opt-outs", "--format", "json").data
    assert [set(row) for row in listed] == [{"digest", "opted_out_at"}]
    lift = ("blocklist", "lift-opt-out", "--reason", "asked by letter")
    for words in ("Lifted.", "Its owner had not opted out."):
        # the mailbox, not the spelling
        done = on_db(*lift, stdin="Anna+news@Example.com\n")
        assert (done.code, done.err.strip()) == (0, words)
    assert on_db("blocklist", "opt-outs", "--format", "json").data == []
