"""``gdprdb report``, ``breach`` and ``impact``: what a controller has to be able to show."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.capabilities.crm import subject
from tests.support import Database, Run

RECORD = ("breach", "record", "--nature", "A laptop was stolen", "--kind", "confidentiality")


@pytest.fixture
def call(run: Run, crm: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line of an officer."""
    monkeypatch.setenv("GDPRDB_DSN", crm.dsn("dpo_login"))
    return run


def test_the_record_of_processing(call: Run) -> None:
    party = ("report", "party", "Office", "--role", "data_protection_officer")
    reach = ("--contact", "dpo@example.org", "--country", "DE")
    assert call(*party, *reach, "--dry-run").code == 0
    assert call("report", "parties", "--format", "json").data == []
    assert call(*party, *reach, "--format", "json").data == [{"party_id": 1}]
    wrong = call(*party, "--contact", "x", "--country", "Germany")
    assert wrong.code != 0
    assert "PR004" in wrong.err
    document = call("report", "processing", "--format", "json").data
    assert [party["name"] for party in document["parties"]] == ["Office"]
    rows = list(csv.DictReader(io.StringIO(call("report", "processing", "--format", "csv").out)))
    assert {"orders", "marketing"} <= {row["purpose"] for row in rows}


def test_a_breach_from_the_shell(call: Run, crm: Database, tmp_path: Path) -> None:
    assert call(*RECORD, "--dry-run").code == 0
    assert call("breach", "list", "--format", "json").data == []
    (case,) = call(
        *(*RECORD, "--persons", "300", "--occurred-from", "2026-01-02T03:04+00:00"),
        *("--category", "contact", "--aware-at", "2026-01-03T00:00+00:00", "--format", "json"),
    ).data
    assert (case["status"], case["overdue"]) == ("to_assess", True)
    number = str(case["breach_id"])
    assert call("breach", "assess", number, "--risk", "high", "--reason", "passwords").code == 0
    notify = ("breach", "notify", number, "--authority", "LfDI", "--reference", "7")
    late = call(*notify)
    assert (late.code, "PR904" in late.err) == (4, True)
    assert call(*notify, "--delay-reason", "holidays").code == 0
    assert call("breach", "persons", number).code == 2
    assert call("breach", "persons", number, "--login", "crm_app").code == 2
    where = ("--table", "crm.customer", "--where", "city in ('Aalen', 'Bonn')")
    added = call("breach", "persons", number, *where)
    assert "2 persons were added" in added.err
    chie = subject(crm, "crm.customer", 3)
    assert "1 persons" in call("breach", "persons", number, "--subject-id", str(chie)).err
    since = ("--login", "crm_app", "--from", "2026-01-01")
    assert "0 persons" in call("breach", "persons", number, *since).err
    letter = tmp_path / "letter.txt"
    letter.write_text("Your password leaked.", encoding="utf-8")
    tell = ("breach", "tell", number, "--message", f"en={letter}")
    assert call(*tell, "--yes").code == 4  # neither consequences nor measures are known
    facts = ("--consequences", "spam", "--measures", "passwords were reset")
    assert call("breach", "amend", number, *facts).code == 0
    assert call("breach", "tell", number, "--message", str(letter), "--yes").code == 2
    assert "Nothing was changed" in call(*tell, "--dry-run").err
    done = call(*tell, "--yes")
    assert "3 mails wait to be sent; 0 persons have no address" in done.err
    shown = call("breach", "show", number, "--format", "json").data
    assert (shown["status"], shown["persons_told"]) == ("to_close", 3)
    assert call("breach", "close", number, "--reason", "encrypted now").code == 0
    assert call("breach", "list", "--format", "json").data == []
    assert len(call("breach", "list", "--all", "--format", "json").data) == 1
    history = call("breach", "show", number, "--history", "--format", "json").data
    assert [event["event"] for event in history] == [
        *("facts", "assessed", "notified", "facts", "closed")
    ]
    assert call("breach", "show", "77").code == 1


def test_telling_in_another_way_and_not_at_all(call: Run, crm: Database) -> None:
    number = str(call(*RECORD, "--format", "json").data[0]["breach_id"])
    person = str(subject(crm, "crm.customer", 1))
    call("breach", "persons", number, "--subject-id", person)
    told = ("breach", "told", number, "--subject-id", person, "--channel", "post", "--evidence")
    assert "PR304" in call(*told, "{}").err
    evidence = '{"who": "K", "when": "2026-05-04", "how": "letter", "reference": "R-1"}'
    assert call(*told, evidence).code == 0
    excuse = ("breach", "excuse", number, "--ground", "risk_averted", "--reason")
    assert call(*excuse, "the thief was caught").code == 0
    assert call("breach", "show", number, "--format", "json").data["persons_told"] == 1


def test_impact_assessments(call: Run, crm: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ("--description", "d", "--necessity", "n", "--risks", "r", "--measures", "m")
    record = ("impact", "record", "Offers", "--purpose", "marketing", *parts)
    assert call(*record, "--review", "2099-12-31", "--dry-run").code == 0
    recorded = call(*record, "--review", "2099-12-31", "--format", "json")
    number = str(recorded.data[0]["impact_assessment_id"])
    approve = ("impact", "approve", number, "--residual-risk", "low", "--advice", "none")
    assert "PR905" in call(*approve).err
    monkeypatch.setenv("GDPRDB_DSN", crm.dsn())
    assert call(*approve, "--review", "2098-12-31").code == 0
    (listed,) = call("impact", "list", "--format", "json").data
    assert (listed["status"], listed["risks"]) == ("in_force", "r")
    assert call("impact", "due", "--format", "json").data == []
    assert call("impact", "reject", number, "--reason", "outdated").code == 0
    assert call("impact", "list", "--format", "json").data[0]["status"] == "rejected"
