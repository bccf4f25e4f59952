"""``gdprdb import``: files as people have them, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.capabilities.crm import POLICY, apply, policy
from tests.support import Database, Outcome, Run

CSV = """Mail;last_name;birth_date;shoe size
x@new.example;Xi;1990-01-02;41
y@new.example;"Yao, \"\"Y\"\"\n2nd";;
anna@example.com;Twice;;
z@new.example;Zoë;not a day;
"""
HOW = ("--table", "crm.customer", "--map", "Mail=email", "--map", "shoe size=", "--delimiter", ";")


@pytest.fixture
def importer(crm: Database, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line as the application."""
    monkeypatch.setenv("GDPRDB_DSN", crm.dsn("crm_app"))

    def call(*arguments: str, stdin: str | None = None) -> Outcome:
        return run("import", *arguments, stdin=stdin)

    return call


def names(crm: Database) -> list[str]:
    """Names of the customers that came."""
    query = "select last_name from gdpr_clear.customer where id > 3 order by id"
    return [name for (name,) in crm.rows(query, user="crm_app")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_a_file_of_a_spreadsheet(
    crm: Database, importer: Run, tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "fair.csv"
    file.write_bytes(CSV.replace("\n", "\r\n").encode(encoding))
    how = (str(file), *HOW, *(("--encoding", encoding) if encoding == "cp1252" else ()))
    everything = importer(*how)
    assert everything.code == 4
    assert "line 5" in everything.err
    assert "Twice" not in everything.err
    assert names(crm) == []
    dry = importer(*how, "--skip", "--dry-run", "--format", "json")
    assert [row["line"] for row in dry.data] == [5, 6]
    assert names(crm) == []
    done = importer(*how, "--skip", "--note", "Fair 2026", "--format", "json")
    assert done.code == 3
    assert done.data == [
        {"line": 5, "problem": "SQLSTATE 23505, constraint customer_email_key", "taken": False},
        {"line": 6, "problem": "SQLSTATE 22007, column birth_date", "taken": False},
    ]
    assert names(crm) == ["Xi", 'Yao, "Y"\r\n2nd']
    again = importer(*how, "--skip", "--format", "json")
    assert (again.code, again.data) == (0, [])
    assert "before" in again.err
    sources = crm.rows(
        "select distinct details from gdpr.source where kind = 'import'", user="dpo_login"
    )
    assert sources == [({"file": "fair.csv", "note": "Fair 2026"},)]


def test_json_lines(crm: Database, importer: Run, tmp_path: Path) -> None:
    file = tmp_path / "people.jsonl"
    rows = [{"email": f"n{n}@new.example", "last_name": f"N{n}", "city": None} for n in range(3)]
    file.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert importer(str(file), "--table", "crm.customer").code == 0
    assert names(crm) == ["N0", "N1", "N2"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"email,last_name\nsecret@x.example\n", "line 2 cannot be read: 1 fields"),
        ("a.csv", b"email,email\n", "line 1 cannot be read: the header"),
        ("a.csv", b'email,last_name\n"secret\n', "line 2 cannot be read"),
        ("a.csv", "email\nsecr\u00e9t\n".encode("latin-1"), "--encoding"),
        ("a.jsonl", b'{"email": "a@new.example", "last_name": "A"}\nsecret\n', "line 2"),
        ("a.jsonl", b"[1]\n", "line 1 cannot be read: it is no JSON object"),
        ("a.csv", b"secret@x.example,Muster\nsecret@y.example,X\n", "takes the columns"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(
    crm: Database, importer: Run, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    outcome = importer(str(file), "--table", "crm.customer")
    assert outcome.code in {1, 4}
    assert told in outcome.err
    assert "secr" not in outcome.out + outcome.err
    assert names(crm) == []


def test_a_mapping_has_two_sides(importer: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("email\n")
    outcome = importer(str(file), "--table", "crm.customer", "--map", "email")
    assert outcome.code == 2
    assert "FIELD=COLUMN" in outcome.err


def test_lines_are_those_of_the_file(importer: Run, tmp_path: Path) -> None:
    """Line breaks in fields, empty lines, and batches that part anywhere."""
    file = tmp_path / "fair.csv"
    file.write_text(
        'email,last_name\n"a@new.example","A\n\n2"\n\nanna@example.com,Twice\n'
        '"b@new.example","B\n2"\n\n\nbela@example.com,"T\nwice"\n'
    )
    for batch in ("1", "3", "100"):
        how = ("--table", "crm.customer", "--skip", "--batch", batch, "--dry-run")
        dry = importer(str(file), *how, "--format", "json")
        assert [row["line"] for row in dry.data] == [6, 11], batch
    assert "line 6:" in importer(str(file), "--table", "crm.customer").err
    file.write_text('email,last_name\n"a@new.example","A\n2"\nb@new.example\n')
    assert "line 4 cannot be read" in importer(str(file), "--table", "crm.customer").err


def test_blocked_persons_are_named_where_the_policy_warns(
    crm: Database, importer: Run, tmp_path: Path
) -> None:
    apply(crm, policy(**{"tables__crm.customer__blocklist": "warn"}))
    for blocked in ("gone@new.example", "late@new.example"):
        crm.rows("select gdpr.block('email', %s, 'asked')", [blocked], user="dpo_login")
    file = tmp_path / "fair.csv"
    file.write_text(
        "email,last_name,birth_date\nGone@new.example,G,\nok@new.example,O,\n"
        "anna@example.com,Twice,\nlate+tag@new.example,L,\nx@new.example,X,no day\n"
        "gone@new.example,G,no day\n"
    )
    done = importer(str(file), "--table", "crm.customer", "--skip", "--format", "json")
    warned = "SQLSTATE 01000, constraint gdpr_blocked_identifier, column email"
    assert done.data == [
        {"line": 2, "problem": warned, "taken": True},
        {"line": 4, "problem": "SQLSTATE 23505, constraint customer_email_key", "taken": False},
        {"line": 5, "problem": warned, "taken": True},
        {"line": 6, "problem": "SQLSTATE 22007, column birth_date", "taken": False},
        {"line": 7, "problem": "SQLSTATE 22007, column birth_date", "taken": False},
    ]
    assert done.code == 3
    assert "3 rows imported, 2 of them with a blocked identifier, 3 refused." in done.err
    assert "new.example" not in done.err
    assert names(crm) == ["G", "O", "L"]
    # where the policy refuses them nothing tells a blocked one from a duplicate
    apply(crm, POLICY)
    file.write_text("email,last_name\nlate@new.example,L\nanna@example.com,A\n")
    refused = importer(str(file), "--table", "crm.customer", "--skip", "--format", "json")
    assert {row["problem"] for row in refused.data} == {
        "SQLSTATE 23505, constraint customer_email_key"
    }
    assert {row["taken"] for row in refused.data} == {False}
