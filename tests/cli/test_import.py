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
    assert (again.code, again.data) == (3, done.data)
    assert "The first 4 records of the file had been done before, 2 of them refused." in again.err
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
        ("a.jsonl", b"[" * 100_000, "line 1 cannot be read: it is nested too deeply"),
        ("a.csv", b"secret@x.example,Muster\nsecret@y.example,X\n", "takes the columns"),
        ("a.csv", b"email,secret\nsecret@y.example,X\n", "and 1 of the fields given are none"),
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


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "a.csv",
            "email,last_name\na@new.example,A\n{}\nb@new.example,B\n{}\nanna@example.com,X\n",
            ("secret@new.example", "secret,secret,secret"),
        ),
        (
            "a.jsonl",
            (
                '\n{{"email": "a@new.example", "last_name": "A"}}\n{}\n'
                '{{"email": "b@new.example", "last_name": "B"}}\n{}\n'
                '{{"email": "anna@example.com", "last_name": "X"}}\n'
            ),
            ('{"email": "secret', '["secret"]'),
        ),
    ],
)
def test_lines_that_cannot_be_read_are_skipped(
    crm: Database, importer: Run, tmp_path: Path, name: str, good: str, bad: tuple[str, str]
) -> None:
    """Told by their line like any other that is refused, in one part or several, and once only."""
    file = tmp_path / name
    file.write_text(good.format(*bad))
    how = (str(file), "--table", "crm.customer", "--format", "json")
    expected = [
        {"line": 3, "problem": "SQLSTATE 22P02", "taken": False},
        {"line": 5, "problem": "SQLSTATE 22P02", "taken": False},
        {"line": 6, "problem": "SQLSTATE 23505, constraint customer_email_key", "taken": False},
    ]
    for batch in ("1", "2", "100"):
        dry = importer(*how, "--skip", "--dry-run", "--batch", batch)
        assert dry.code == 3, dry.err
        assert (dry.code, dry.data) == (3, expected), dry.err
    strict = importer(*how)
    assert strict.code == 1
    assert "line 3 cannot be read" in strict.err
    assert names(crm) == []
    for told in ("2 rows imported, 3 refused", "0 rows imported, 0 refused"):
        done = importer(*how, "--skip", "--batch", "2")
        assert (done.code, done.data) == (3, expected), done.err
        assert told in done.err
        assert "secret" not in done.out + done.err
        assert names(crm) == ["A", "B"]
    again = importer(*how, "--skip", "--retry-refused")
    assert (again.code, again.data) == (3, expected)
    assert "0 rows imported, 3 refused" in again.err
    twice = importer(*how, "--skip", "--again")
    assert [row["line"] for row in twice.data] == [2, 3, 4, 5, 6], twice.err
    assert names(crm) == ["A", "B"]


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


CHILDREN = "customer_id,total\n1,5\n4711,6\n4711,7\n2,no\n2,8\n"


@pytest.fixture
def orders(tmp_path: Path) -> tuple[str, ...]:
    """A file of orders, two of a customer who is not there, and one that is wrong in itself."""
    file = tmp_path / "orders.csv"
    file.write_text(CHILDREN)
    return str(file), "--table", "crm.order", "--skip", "--batch", "2", "--format", "json"


def totals(crm: Database) -> list[int]:
    """What the orders that came are worth."""
    query = 'select total::integer from gdpr_clear."order" where id > 4 order by 1'
    return [total for (total,) in crm.rows(query, user="crm_app")]


def come(crm: Database, key: int) -> None:
    """A customer of this number comes."""
    crm.rows(
        "insert into crm.customer (id, email, last_name) overriding system value"
        " values (%s, %s, 'Late')",
        [key, f"c{key}@new.example"],
        user="crm_app",
    )


def test_refused_lines_come_in_when_the_table_takes_them(
    crm: Database, importer: Run, orders: tuple[str, ...]
) -> None:
    assert importer(*orders).code == 3
    for _ in range(2):
        later = importer(*orders)
        assert (later.code, [row["line"] for row in later.data]) == (3, [3, 4, 5])
        assert "5 records of the file had been done before, 3 of them refused" in later.err
        assert "0 rows imported, 0 refused" in later.err
    sequence = crm.rows("select max(id) from crm.order", user="crm_app")
    come(crm, 4711)
    dry = importer(*orders, "--retry-refused", "--dry-run")
    assert [row["line"] for row in dry.data] == [5]
    assert crm.rows("select max(id) from crm.order", user="crm_app") == sequence
    # without --skip it is all of them or none
    whole = [word for word in orders if word != "--skip"]
    assert importer(*whole, "--retry-refused").code == 4
    assert totals(crm) == [5, 8]
    tried = importer(*orders, "--retry-refused")
    assert (tried.code, [row["line"] for row in tried.data]) == (3, [5])
    assert "2 rows imported, 1 refused" in tried.err
    assert totals(crm) == [5, 6, 7, 8]
    for _ in range(2):
        once_more = importer(*orders, "--retry-refused")
        assert (once_more.code, [row["line"] for row in once_more.data]) == (3, [5])
    assert totals(crm) == [5, 6, 7, 8]
    assert crm.rows("select taken, refused, last_row from gdpr.import", user="crm_app") == [
        (4, 1, 5)
    ]


def test_a_wrong_mapping_is_no_dead_end(crm: Database, importer: Run, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("mail,name\n" + "".join(f"p{n}@new.example,P{n}\n" for n in range(9)))
    how = (str(file), "--table", "crm.customer", "--skip", "--batch", "4", "--format", "json")
    wrong = importer(*how, "--map", "mail=email", "--map", "name=birth_date")
    assert (wrong.code, len(wrong.data)) == (3, 9)
    right = importer(*how, "--map", "mail=email", "--map", "name=last_name", "--retry-refused")
    assert (right.code, right.data) == (0, [])
    assert names(crm) == [f"P{n}" for n in range(9)]
    done = importer(*how, "--map", "mail=email", "--map", "name=last_name")
    assert (done.code, done.data) == (0, [])
    assert "9 records of the file had been done before, 0 of them refused" in done.err


def test_a_file_is_given_again_on_purpose(
    crm: Database, importer: Run, orders: tuple[str, ...], tmp_path: Path
) -> None:
    importer(*orders)
    doubled = importer(*orders, "--again")
    assert doubled.code == 4
    assert "second time" in doubled.err
    assert "--double" in doubled.err
    assert totals(crm) == [5, 8]
    assert importer(*orders, "--again", "--double").code == 3
    assert totals(crm) == [5, 5, 8, 8]
    # one that stopped half way goes on, and does not begin a third
    file = tmp_path / "people.csv"
    file.write_text("email,last_name\n" + "".join(f"p{n}@new.example,P{n}\n" for n in range(4)))
    how = (str(file), "--table", "crm.customer", "--skip", "--batch", "2", "--format", "json")
    assert importer(*how).code == 0
    crm.rows("delete from crm.customer where last_name like 'P%'", user="crm_app")
    assert importer(*how, "--again", "--dry-run").code == 0
    crm.rows(
        "select gdpr.import_rows('crm.customer', %s, p_file => file, p_run => 2) from gdpr.import"
        " where table_name = 'crm.customer'::regclass",
        [json.dumps([{"email": "p0@new.example", "last_name": "P0"}])],
        user="crm_app",
    )
    going_on = importer(*how, "--again")
    assert going_on.code == 0
    assert "The first 1 records" in going_on.err
    assert names(crm) == ["P0", "P1", "P2", "P3"]
    # rows with a unique key: the table itself tells
    third = importer(*how, "--again")
    assert {row["problem"] for row in third.data} == {
        "SQLSTATE 23505, constraint customer_email_key"
    }
    assert crm.rows("select max(run) from gdpr.import", user="crm_app") == [(3,)]


def test_what_cannot_be_tried_again(importer: Run, orders: tuple[str, ...]) -> None:
    fresh = importer(*orders, "--retry-refused")
    assert fresh.code == 1
    assert "not imported into this table before" in fresh.err
    assert importer(*orders, "--retry-refused", "--again").code == 2
    assert importer(*orders, "--source", " ").code == 2


def test_quotes_tell_an_empty_text_from_null(crm: Database, importer: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    text = 'email,last_name,city,phone\na@new.example,"A\n""",,""\nb@new.example,"",,\r\n'
    file.write_text(text + 'c@new.example,"C","",\n"d@new.example","a"",""b","",""', newline="")
    assert importer(str(file), "--table", "crm.customer").code == 0
    stored = "select last_name, city, phone from gdpr_clear.customer where id > 3 order by id"
    assert crm.rows(stored, user="crm_app") == [
        ('A\n"', None, ""),
        ("", None, None),
        ("C", "", None),
        ('a","b', "", ""),
    ]
    file.write_text('email,last_name,city\ne@new.example,"\\N",\\N\nf@new.example,,""\n')
    assert importer(str(file), "--table", "crm.customer", "--null", "\\N").code == 0
    file.write_text('email,last_name,city\n"g@new.example","G",""\n')
    assert importer(str(file), "--table", "crm.customer", "--force-null").code == 0
    assert crm.rows(stored, user="crm_app")[4:] == [
        ("\\N", None, None),
        ("", "", None),
        ("G", None, None),
    ]


def test_the_source_has_a_name_of_its_own(crm: Database, importer: Run, tmp_path: Path) -> None:
    file = tmp_path / "Anna Ahrens.csv"
    file.write_text("email,last_name\nx@new.example,Xi\n")
    how = ("--table", "crm.customer", "--source", "Fair of Stuttgart", "--note", "by hand")
    assert importer(str(file), *how).code == 0
    assert crm.rows("select details from gdpr.source where kind = 'import'", user="dpo_login") == [
        ({"file": "Fair of Stuttgart", "note": "by hand"},)
    ]
