"""``gdprdb share``: recipients, disclosures, exports and notices from the shell."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.capabilities.crm import subject
from tests.support import Database, Outcome, Run


@pytest.fixture
def share(run: Run, crm: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``gdprdb share`` of an officer, in a database with one recipient."""
    monkeypatch.setenv("GDPRDB_DSN", crm.dsn("dpo_login"))

    def call(*arguments: str, stdin: str | None = None) -> Outcome:
        return run("share", *arguments, stdin=stdin)

    added = run(
        *("share", "recipient", "add", "Parcel AG", "--role", "processor", "--country", "DE"),
        *("--contract", "AV-7", "--valid-until", "2099-12-31", "--format", "json"),
    )
    assert added.data == [{"recipient_id": 1}]
    return call


def test_recipients(share: Run) -> None:
    assert share("recipients", "--format", "json").data[0]["transfer"] == "EEA"
    clauses = ("recipient", "add", "Call Centre", "--role", "controller", "--country", "IN")
    refused = share(*clauses)
    assert refused.code == 4
    assert "PR701" in refused.err
    dry = share(*clauses, "--safeguard", "standard_clauses", "--dry-run", "--format", "json")
    assert (dry.code, dry.data) == (0, [])
    assert len(share("recipients", "--history", "--format", "json").data) == 1
    assert share("recipient", "end", "Parcel AG").code == 0
    assert share("recipient", "end", "Nobody").code != 0
    assert share("recipients", "--format", "json").data[0]["problem"]
    listed = share("countries", "--format", "json").data
    assert {"country": "CH", "scope": None}.items() <= next(
        row for row in listed if row["country"] == "CH"
    ).items()


def test_disclosures(share: Run, crm: Database) -> None:
    common = ("disclose", "--recipient", "Parcel AG", "--purpose", "orders", "--format", "json")
    one = share(*common, "--category", "contact", stdin="anna@example.com\n")
    assert (one.data["persons"], one.data["left_out"]) == (1, 0)
    crm.rows(
        "select gdpr.restrict(%s, 'legal_claims')",
        [subject(crm, "crm.customer", 2)],
        user="dpo_login",
    )
    rows = ("--table", "crm.customer", "--where", "city in ('Aalen', 'Bonn')", "--column", "city")
    many = share(*common, *rows)
    assert many.code == 4
    assert "1 of 2" in many.err
    assert share(*common, *rows, "--leave-out").data["left_out"] == 1
    assert share(*common, *rows, "--leave-out", "--dry-run").code == 0
    listed = share("disclosures", "--recipient", "Parcel AG", "--format", "json").data
    assert [row["columns"] for row in listed] == [["city"], None]
    assert share("disclose", "--recipient", "x", "--purpose", "y", "--where", "true").code == 2
    told = share("told", "--format", "json", stdin="anna@example.com\n").data
    assert [(row["recipient"], row["disclosures"]) for row in told] == [("Parcel AG", 2)]


def test_an_export_is_on_record(share: Run) -> None:
    common = ("export", "crm.customer", "--recipient", "Parcel AG", "--purpose", "orders")
    lines = list(csv.DictReader(io.StringIO(share(*common).out)))
    assert [line["last_name"] for line in lines] == ["A.", "B.", "C."]
    assert list(lines[0])[:2] == ["subject_ref", "id"]
    rows = share(*common, "--format", "json", "--key", "3", "--key", "1").data
    assert [row["id"] for row in rows] == [3, 1]
    one = share(*common, "--format", "jsonl", "--key", "2", "--reason", "parcel 7", "--strict")
    assert json.loads(one.out)["city"] == "Bonn"
    assert one.err == "1 rows.\n"
    assert share(*common, "--format", "json", "--key", "99").data == []
    listed = share("disclosures", "--format", "json").data
    assert [(row["persons"], row["audience"], row["reason"]) for row in listed] == [
        (1, "export", "parcel 7"),
        (2, "export", None),
        (3, "export", None),
    ]


def test_notices(share: Run, crm: Database) -> None:
    for person in ("anna", "bela", "chie"):
        share(
            *("disclose", "--recipient", "Parcel AG", "--purpose", "orders"),
            *("--category", "contact"),
            stdin=f"{person}@example.com\n",
        )
        crm.rows(
            "select gdpr.erase(gdpr.find_subject('email', %s))",
            [f"{person}@example.com"],
            user="dpo_login",
        )
    due = share("notices", "--due", "--format", "json").data
    assert [(row["event"], row["delivery"]) for row in due] == [("erasure", "by hand")] * 3
    first, second, third = (str(row["notice_id"]) for row in due)
    shown = share("notice", "show", first, "--format", "json").data
    assert len(shown["references"]) == 1
    assert share("notice", "sent", first, "--channel", "phone", "--dry-run").code == 0
    assert share("notice", "sent", first, "--channel", "phone").code == 0
    assert share("notice", "confirm", second, "--reason", "done").code == 0
    assert share("notice", "impossible", third, "--reason", "wound up").code == 0
    assert share("notices", "--due", "--format", "json").data == []
    assert [row["state"] for row in share("notices", "--format", "json").data] == [
        "sent",
        "confirmed",
        "impossible",
    ]
    assert share("notice", "show", first).code != 0


@pytest.mark.usefixtures("share")
def test_probes(run: Run, crm: Database) -> None:
    crm.rows("select gdpr.block('email', 'troll@example.com', 'x')", user="dpo_login")
    assert run("blocklist", "probes", "--format", "json").data == []
    with pytest.raises(Exception, match="duplicate"):
        crm.rows(
            "insert into crm.customer (email, last_name) values ('troll@example.com', 'T')",
            user="crm_app",
        )
    (row,) = run("blocklist", "probes", "--format", "json").data
    assert (row["role"], row["tries"]) == ("crm_app", 1)
