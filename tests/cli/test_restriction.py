"""Restrictions and objections on the command line, as an officer works through them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.test_request import row as request
from tests.support import Run

TOLD = json.dumps({"who": "Ito", "when": "2027-01-31", "how": "phone", "reference": "T 7"})

ANNA = ("--subject-id", "1")


def row(office: Run, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
    """The one row that a command prints."""
    done = office(*arguments, "--format", "json", stdin=stdin)
    assert done.code == 0, done.err
    (found,) = done.data
    assert isinstance(found, dict)
    return found


def test_a_restriction_from_the_letter_to_its_end(
    office: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = request(office, "open", "restriction", *ANNA, "--channel", "post")
    # what the command line says goes before what the shell does
    monkeypatch.setenv("GDPRDB_REQUEST", "4711")
    placed = row(
        office,
        *("restriction", "place", "--ground", "accuracy_contested"),
        *("--request", str(letter["request_id"])),
        stdin="anna@example.com\n",
    )
    monkeypatch.setenv("GDPRDB_REQUEST", "ticket 4711")
    assert placed == {"restriction_id": 1, "subject_id": 1}
    assert request(office, "complete", str(letter["request_id"]))["state"] == "completed"
    except_ = ("restriction", "except", *ANNA, "--purpose", "orders", "--ground", "legal_claims")
    assert "PR004" in office(*except_, "--until", "2030-12-31").err
    allowed = row(office, *except_, "--until", "2030-12-31", "--details", '{"claim": "3 O 17"}')
    # the day counts to its end, where the policy is
    assert allowed["valid_until"] == "2031-01-01 00:00:00+00:00"
    assert row(office, "restriction", "exceptions", *ANNA)["details"] == {"claim": "3 O 17"}
    end = ("restriction", "end-exception", "--id", "1", "--reason", "settled")
    assert row(office, *end)["end_reason"] == "settled"
    assert row(office, "restriction", "list", "--standing")["lifting_announced"] is False
    told = ("restriction", "announce", *ANNA, "--channel", "phone", "--evidence", TOLD)
    assert row(office, *told) == {"announced": 1}
    assert row(office, "restriction", "lift", *ANNA, "--reason", "corrected") == {"lifted": 1}
    assert office("restriction", "list", "--standing", "--format", "json").data == []
    assert row(office, "restriction", "list", *ANNA)["end_reason"] == "corrected"


def test_an_objection_is_weighed(office: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    letter = request(office, "open", "objection", *ANNA)
    monkeypatch.setenv("GDPRDB_REQUEST", str(letter["request_id"]))
    recorded = row(office, "objection", "record", *ANNA, "--purpose", "analytics")
    assert (recorded["status"], recorded["request_id"]) == ("pending", letter["request_id"])
    assert row(office, "objection", "list", "--status", "pending")["objection_id"] == 1
    decide = ("objection", "decide", *ANNA, "--purpose", "analytics", "--decision")
    override = (*decide, "overridden", "--ground", "legal_claims", "--details", '{"claim": "3"}')
    refused = office(*override)
    assert refused.code == 4
    assert "PR612" in refused.err
    row(office, "restriction", "announce", *ANNA, "--channel", "post", "--evidence", TOLD)
    assert row(office, *override)["status"] == "overridden"
    assert request(office, "complete", str(letter["request_id"]))["state"] == "completed"
    assert office("objection", "list", "--status", "pending", "--format", "json").data == []


def test_a_dry_run_changes_nothing(office: Run) -> None:
    for call, listed in (
        (("restriction", "place", *ANNA, "--ground", "other"), "restriction"),
        (("objection", "record", *ANNA, "--purpose", "marketing"), "objection"),
    ):
        assert row(office, *call, "--dry-run")["subject_id"] == 1
        assert office(listed, "list", "--format", "json").data == []
        assert row(office, *call)["subject_id"] == 1
        assert row(office, listed, "list")["subject_id"] == 1


def test_whom_a_row_belongs_to_and_whether_they_may_be_contacted(office: Run) -> None:
    find = ("subject", "find", "--table", "crm.customer")
    assert row(office, *find, "--key", "1") == {"subject_id": 1}
    assert office(*find, "--key", "999").code == 1
    assert office(*find).code == 2
    may = ("consent", "may-contact", *ANNA, "--purpose", "orders", "--channel", "post")
    assert row(office, *may) == {"may_contact": True}
    row(office, "restriction", "place", *ANNA, "--ground", "other")
    assert row(office, *may) == {"may_contact": False}
