"""Corrections on the command line: proposed, approved, and out and in as a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Database, Outcome, Run

Officer = Callable[..., Outcome]


@pytest.fixture
def officer(crm: Database, run: Run) -> Officer:
    """The command line as the officer."""

    def call(*arguments: str, stdin: str | None = None, user: str = "dpo_login") -> Outcome:
        noun, verb, *rest = arguments
        return run(noun, verb, "--dsn", crm.dsn(user), *rest, stdin=stdin)

    return call


@pytest.fixture
def changes(tmp_path: Path) -> str:
    """A file with a change of the first customer."""
    path = tmp_path / "changes.json"
    path.write_text(
        json.dumps([{"table": "crm.customer", "key": "1", "column": "last_name", "value": "Arens"}])
    )
    return str(path)


def names(crm: Database) -> list[str]:
    """The last names of the customers."""
    return [
        name
        for (name,) in crm.rows(
            "select last_name from gdpr_clear.customer order by id", user="crm_app"
        )
    ]


def sheet(text: str) -> list[dict[str, str]]:
    """The rows of a file."""
    return list(csv.DictReader(io.StringIO(text)))


def saved(path: Path, rows: list[dict[str, str]]) -> str:
    """A file of these rows, as a spreadsheet saves it: no quotes but where they are needed."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_proposed_by_one_and_approved_by_another(
    crm: Database, officer: Officer, changes: str
) -> None:
    proposed = officer(
        "rectify",
        "propose",
        "--reason",
        "passport",
        changes,
        "--format",
        "json",
        stdin="anna@example.com\n",
    )
    assert proposed.code == 0, proposed.err
    number = str(proposed.data[0]["rectification_id"])
    listed = officer("rectify", "list", "--format", "json")
    assert listed.data[0]["changes"] == [
        {"table": "crm.customer", "key": "1", "column": "last_name"}
    ]
    assert "Arens" not in listed.out
    assert "Arens" in officer("rectify", "list", "--values").out
    own = officer("rectify", "approve", number, "--yes")
    assert own.code == 4
    assert "PR631" in own.err
    dry = officer("rectify", "approve", number, "--dry-run", user="db_owner")
    assert (dry.code, names(crm)[0]) == (0, "Ahrens")
    assert "last_name" in dry.err
    assert "Arens" not in dry.err
    done = officer("rectify", "approve", number, "--yes", "--values", user="db_owner")
    assert (done.code, names(crm)[0]) == (0, "Arens")
    assert "Arens" in done.err
    assert officer("rectify", "list", "--status", "approved", "--format", "json").data


def test_rejected(crm: Database, officer: Officer, changes: str) -> None:
    officer("rectify", "propose", "--subject-id", "1", changes)
    assert officer("rectify", "reject", "1", "--reason", "no", "--dry-run").code == 0
    assert officer("rectify", "reject", "1", "--reason", "no").code == 0
    assert officer("rectify", "approve", "1", "--yes", user="db_owner").code == 4
    assert names(crm)[0] == "Ahrens"


def test_applied_at_once(crm: Database, officer: Officer, changes: str) -> None:
    call = ("rectify", "apply", "--subject-id", "1", "--reason", "letter", changes)
    dry = officer(*call, "--dry-run")
    assert (dry.code, names(crm)[0]) == (0, "Ahrens")
    done = officer(*call, "--yes")
    assert (done.code, names(crm)[0]) == (0, "Arens")
    assert "Nothing differed." in officer(*call, "--yes").err
    Path(changes).write_text("no JSON")
    assert officer(*call, "--yes").code == 2


def test_out_corrected_and_in_again(crm: Database, officer: Officer, tmp_path: Path) -> None:
    exported = officer("rectify", "export", "crm.customer")
    rows = sheet(exported.out)
    assert list(rows[0]) == [
        "id",
        "email",
        "phone",
        "last_name",
        "birth_date",
        "city",
        "created_at",
        "gdpr_version",
    ]
    # a formula to a spreadsheet
    assert rows[0]["phone"] == "'+49 711 1001"
    path = tmp_path / "customers.csv"
    call = ("rectify", "import", "crm.customer", str(path), "--reason", "letters of May")
    saved(path, rows)
    assert "Nothing differs." in officer(*call, "--yes").err
    rows[0]["last_name"] = "Arens"
    rows[1]["city"] = ""
    rows[2]["birth_date"] = "1982-03-05"
    for row in rows:
        # what the officer did not need
        del row["created_at"]
    saved(path, rows)
    dry = officer(*call, "--dry-run", "--format", "json")
    assert dry.code == 0, dry.err
    assert dry.data == [
        {"line": line, "table": "crm.customer", "key": key, "column": column}
        for line, key, column in ((2, "1", "last_name"), (3, "2", "city"), (4, "3", "birth_date"))
    ]
    assert "Arens" not in dry.out + dry.err
    assert names(crm)[0] == "Ahrens"
    shown = officer(*call, "--dry-run", "--values", "--format", "json").data
    assert [(entry["old"], entry["new"]) for entry in shown] == [
        ("Ahrens", "Arens"),
        ("Bonn", None),
        ("1982-03-04", "1982-03-05"),
    ]
    done = officer(*call, "--yes")
    assert done.code == 0, done.err
    assert crm.rows(
        "select last_name, city, birth_date::text from gdpr_clear.customer order by id",
        user="crm_app",
    ) == [
        ("Arens", "Aalen", "1980-01-02"),
        ("Bartok", None, "1981-02-03"),
        ("Chiba", "Celle", "1982-03-05"),
    ]
    assert (
        crm.rows("select kind, details from gdpr.source where event = 'changed'", user="dpo_login")
        == [("import", {"file": "customers.csv"})] * 3
    )
    assert "Nothing differs." in officer(*call, "--yes").err


def test_rows_that_changed_meanwhile_are_left(
    crm: Database, officer: Officer, tmp_path: Path
) -> None:
    rows = sheet(officer("rectify", "export", "crm.customer").out)
    for row in rows:
        row["last_name"] += " d. Ä."
    crm.rows("update gdpr_clear.customer set city = 'Ulm' where id = 2", user="crm_app")
    path = saved(tmp_path / "c.csv", rows)
    done = officer("rectify", "import", "crm.customer", path, "--reason", "x", "--yes")
    assert done.code == 3
    assert "line 3: the row was changed meanwhile" in done.err
    assert names(crm) == ["Ahrens d. Ä.", "Bartok", "Chiba d. Ä."]


def test_problems_are_named_by_line_and_column_and_nothing_is_done(
    crm: Database, officer: Officer, tmp_path: Path
) -> None:
    rows = sheet(officer("rectify", "export", "crm.customer").out)
    rows[0] |= {"birth_date": "31.12.1980", "last_name": ""}
    rows[1] |= {"email": "Chie@example.com", "city": "x" * 41}
    rows[2] |= {"last_name": "Chiba-Ito"}
    rows += [rows[2] | {"id": "17"}, rows[2] | {"id": "seventeen"}]
    path = tmp_path / "c.csv"
    call = ("rectify", "import", "crm.customer", str(path), "--reason", "x", "--yes")
    saved(path, rows[:3])
    refused = officer(*call)
    assert refused.code == 4
    assert [line.strip() for line in refused.err.splitlines() if "line" in line] == [
        "line 2, column birth_date: has a value that the column cannot hold",
        "line 2, column last_name: leaves a column empty that may not be",
        "line 3, column city: has a value that the column cannot hold",
        "line 3, column email: has an identifier of another person",
    ]
    saved(path, [*rows, rows[0]])
    assert "line 7, column id: is the row of line 2" in officer(*call).err
    saved(path, rows)
    refused = officer(*call)
    assert "line 5, column id: is the key of no row" in refused.err
    assert "line 6, column id: is the key of no row" in refused.err
    path.write_text("id,colour,id\n1,red,1,2\n")
    refused = officer(*call)
    for words in (
        "column colour: is no column",
        "column id: is named twice",
        "column gdpr_version: is missing",
    ):
        assert f"line 1, {words}" in refused.err
    path.write_text("id,last_name,gdpr_version\n1,Arens\n")
    assert "line 2: has 2 cells of 3" in officer(*call).err
    assert names(crm) == ["Ahrens", "Bartok", "Chiba"]


def test_what_spreadsheets_make_of_a_file(crm: Database, officer: Officer, tmp_path: Path) -> None:
    """A byte order mark, line ends of Windows, quotes around everything, rows that were emptied;
    line ends within a cell are theirs, too, and no correction."""
    crm.rows("update gdpr_clear.customer set city = E'a\nb' where id = 2", user="crm_app")
    path = tmp_path / "customers.csv"
    call = ("rectify", "import", "crm.customer", str(path), "--reason", "x", "--yes")
    for delimiter in (",", ";", "\t"):
        name = f'Arens{delimiter} "the elder"'
        rows = sheet(officer("rectify", "export", "crm.customer").out)
        rows[0]["last_name"] = name
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            out = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            out.writerow(rows[0])
            out.writerows([cell.replace("\n", "\r\n") for cell in row.values()] for row in rows)
            file.write(delimiter * (len(rows[0]) - 1) + "\r\n\r\n")
        done = officer(*call, "--format", "json")
        assert done.code == 0, done.err
        assert [(entry["line"], entry["column"]) for entry in done.data] == [(2, "last_name")]
        assert names(crm)[0] == name


def test_a_broken_file_is_named_by_the_line_where_it_breaks(
    crm: Database, officer: Officer, tmp_path: Path
) -> None:
    path = tmp_path / "c.csv"
    for broken, words in (
        ("1,Arens,x\n2,B\u00e4r,y\n".encode("cp1252"), "line 3: is not UTF-8"),
        ("1,Arens,x\n".encode("utf-16"), "line 2: is not UTF-8"),
        (b"1,Arens,x\n2,B\0r,y\n", "line 3: is not UTF-8"),
        (b'1,"Are\nns",x\n2,"Bartok,y\n3,Chiba,z\n', "line 4: is no CSV from here on"),
        (b'1,"Are"ns,x\n', "line 2: is no CSV from here on"),
        (b'1,"Are\nns",x\n2,Bartok,y,z\n', "line 4: has 4 cells of 3"),
    ):
        path.write_bytes(b"id,last_name,gdpr_version\n" + broken)
        refused = officer("rectify", "import", "crm.customer", str(path), "--reason", "x", "--yes")
        assert refused.code == 4
        assert words in refused.err
    assert names(crm) == ["Ahrens", "Bartok", "Chiba"]


def test_the_rows_of_one_person(officer: Officer) -> None:
    rows = sheet(officer("rectify", "export", 'crm."order"', "--subject-id", "1").out)
    assert [(row["id"], row["note"]) for row in rows] == [
        ("1", "gift for Ada"),
        ("2", "call first"),
    ]
    rows = sheet(officer("rectify", "export", "crm.order_line", "--subject-id", "1").out)
    assert [(row["order_id"], row["n"]) for row in rows] == [("1", "1"), ("2", "1")]


def test_what_cannot_be_exported(crm: Database, officer: Officer) -> None:
    crm.rows("create table crm.bare (id integer)")
    assert "is not a protected table" in officer("rectify", "export", "crm.bare").err
