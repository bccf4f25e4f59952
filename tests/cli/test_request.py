"""Requests on the command line, from the letter to the proof."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import Run


def row(office: Run, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
    """The one row that a command prints."""
    done = office("request", *arguments, "--format", "json", stdin=stdin)
    assert done.code == 0, done.err
    (found,) = done.data
    assert isinstance(found, dict)
    return found


def test_from_a_letter_to_the_proof(office: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = row(
        office,
        *("open", "erasure", "--channel", "post", "--received-at", "2026-03-31"),
        stdin="anna@example.com\n",
    )
    # 30 April 2026 is a Thursday
    assert (opened["state"], opened["due_on"]) == ("open", "2026-05-03")
    number = str(opened["request_id"])
    refused = office("request", "complete", number)
    assert refused.code == 4
    assert "PR611" in refused.err
    assert row(office, "board")["status"] == "overdue"
    erase = ("subject", "erase", "--subject-id", str(opened["subject_id"]), "--reason", "asked")
    monkeypatch.setenv("GDPRDB_REQUEST", number)
    assert office(*erase, "--yes").code == 0
    assert row(office, "complete", number)["state"] == "completed"
    assert office("request", "board", "--format", "json").data == []
    steps = office("request", "show", number, "--format", "json").data
    assert (steps[0]["event"], steps[-1]["event"]) == ("received", "completed")


def test_somebody_unknown(office: Run) -> None:
    number = str(row(office, "open", "access", "--unknown")["request_id"])
    assert row(office, "ask-identity", number)["state"] == "identity_pending"
    verified = row(
        office, "verify", number, "--details", '{"how": "passport"}', stdin="bela@example.com\n"
    )
    assert (verified["state"], verified["subject_id"]) == ("open", 2)
    assert row(office, "extend", number, "--reason", "complexity")["state"] == "extended"
    assert row(office, "ask-identity", number)["state"] == "identity_pending"
    assert row(office, "verify", number, "--known")["state"] == "extended"
    assert row(office, "refuse", number, "--ground", "excessive")["outcome"] == "excessive"
    assert row(office, "list", "--state", "refused")["request_id"] == int(number)
    assert office("request", "list", "--subject-id", "1", "--format", "json").data == []


def test_a_dry_run_changes_nothing(office: Run) -> None:
    number = str(row(office, "open", "access", "--subject-id", "1")["request_id"])
    assert row(office, "withdraw", number, "--dry-run")["state"] == "withdrawn"
    assert row(office, "list")["state"] == "open"


def test_what_contradicts_itself(office: Run) -> None:
    for arguments in (
        ("open", "access", "--unknown", "--subject-id", "1"),
        ("open", "holiday", "--unknown"),
        ("verify", "1", "--known", "--subject-id", "1"),
        ("complete", "1", "--outcome", "forgotten"),
    ):
        assert office("request", *arguments).code == 2
