"""Every command takes the name of a table as the policy writes it, and as SQL quotes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gdprdb.errors import FAILED
from tests.capabilities.crm import apply, one_table, refused
from tests.support import Database, Prepared, Run

#: Tables by the names that a policy gives them, and SQL.
NAMES = {
    "public.plain": "public.plain",
    "Capitals": 'public."Capitals"',
    "crm.Big Customer": 'crm."Big Customer"',
    'crm.Quo"ted': 'crm."Quo""ted"',
    "crm.big Table.2026": 'crm."big Table.2026"',
    "old.shop.customer": '"old.shop".customer',
}

#: One of them, as commands are given it.
SPELLED = ["crm.big Table.2026", 'crm."big Table.2026"']
VIEW = 'gdpr_clear."big Table.2026"'


def with_names(database: Database) -> None:
    """Tables with names of all kinds, each with one row, under a policy."""
    owner = database.connect()
    owner.execute('create schema crm; create schema "old.shop"')
    owner.execute('grant usage on schema crm, "old.shop" to crm_app')
    policy = one_table("public.plain")
    for name, quoted in NAMES.items():
        owner.execute(f"create table {quoted} (id int primary key, note text)".encode())
        owner.execute(f"insert into {quoted} values (1, 'old')".encode())
        owner.execute(f"grant select, insert, update on {quoted} to crm_app".encode())
        policy["tables"][name] = {
            "subject": "self",
            "purposes": ["orders"],
            "columns": {"note": {"encrypt": True}},
        }
    apply(database, policy)


@pytest.fixture
def named(prepared: Prepared, installed_template: str) -> Iterator[Database]:
    """A database with these tables."""
    with prepared(installed_template, with_names) as database:
        yield database


@pytest.fixture
def officer(named: Database, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line as the officer."""
    monkeypatch.setenv("GDPRDB_DSN", named.dsn("dpo_login"))
    return run


@pytest.mark.parametrize("table", SPELLED)
def test_a_table_is_named_as_in_the_policy_or_as_in_sql(
    named: Database, officer: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: str
) -> None:
    def done(*arguments: str) -> str:
        outcome = officer(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome.out

    named.rows(f"update {VIEW} set note = 'new'", user="crm_app")
    assert "UPDATE" in done("audit", "tail", "--table", table, "--format", "csv")
    assert "new" in done("audit", "history", table, "1", "--format", "csv")
    found = done("subject", "find", "--table", table, "--key", "1").split()[-1]
    person = ("--subject-id", found)
    assert "note" in done("rectify", "export", table, *person)
    done("source", "show", "--table", table, "--key", "1")
    done("subject", "export", *person, "--as", "csv", "--table", table)
    where = ("--table", table, "--where", "note = 'new'")
    done(
        "basis",
        "set",
        *where,
        "--purpose",
        "orders",
        "--basis",
        "contract",
        "--reason",
        "r",
        "--yes",
    )
    hold = ("retention", "hold", *person, "--ground", "legal_claims", "--reference", "1")
    done(*hold, "--table", table)

    sheet = tmp_path / "rows.csv"
    sheet.write_text("id,note\n2,two\n")
    monkeypatch.setenv("GDPRDB_DSN", named.dsn("crm_app"))
    done("import", str(sheet), "--table", table)
    monkeypatch.setenv("GDPRDB_DSN", named.dsn())
    done("policy", "reshape", table, "--yes")


def test_tables_of_all_names_are_found(named: Database) -> None:
    for name, quoted in NAMES.items():
        assert named.rows(
            "select gdpr.table_named(%(name)s) = %(quoted)s::text::regclass,"
            " gdpr.table_named(%(quoted)s) = %(quoted)s::text::regclass,"
            " gdpr.audit_table_id(%(name)s) = gdpr.audit_table_id(%(quoted)s)",
            {"name": name, "quoted": quoted},
            user="postgres",
        ) == [(True, True, True)]


def test_a_name_that_no_table_has(named: Database, officer: Run) -> None:
    for arguments in (
        ("audit", "history", "crm.nobody", "1"),
        ("rectify", "export", 'crm."Big'),
        ("retention", "hold", "--ground", "legal_claims", "--reference", "1", "--table", ""),
    ):
        outcome = officer(*arguments)
        assert outcome.code == FAILED
        assert "there is no such table" in outcome.err
        assert "quoted as in SQL" in outcome.err
    outcome = officer("audit", "tail", "--table", "crm.nobody")
    assert outcome.code == FAILED
    assert "the log knows no table crm.nobody" in outcome.err
    with refused("PR007", "unknown_table"):
        named.rows("select gdpr.table_named('crm.nobody')", user="crm_app")
    assert named.rows("select gdpr.table_named(null)", user="crm_app") == [(None,)]


def test_a_name_is_taken_as_it_is_before_it_is_taken_as_sql(named: Database) -> None:
    named.rows('create table public.capitals (); create schema "crm.big Table"')
    named.rows('create table "crm.big Table"."2026" ()')
    found = {
        name: named.rows("select gdpr.table_named(%s)::text", [name], user="dpo_login")[0][0]
        for name in (
            "Capitals",
            "capitals",
            "CAPITALS",
            'public . "Capitals"',
            "crm.big Table.2026",
        )
    }
    assert found == {
        "Capitals": '"Capitals"',
        "capitals": "capitals",
        "CAPITALS": "capitals",
        'public . "Capitals"': '"Capitals"',
        "crm.big Table.2026": 'crm."big Table.2026"',
    }


@pytest.mark.parametrize(
    "name",
    ["a.", ".a", "", " ", '"', '""', '"a', "1a", "a b", "a..b", "a.b.c.d", "ä.ö", '"a"".b'],
)
def test_what_is_no_name_is_no_table(named: Database, name: str) -> None:
    with refused("PR007", "unknown_table"):
        named.rows("select gdpr.table_named(%s)", [name], user="auditor_login")


def test_records_of_a_table_that_was_dropped_are_found_by_its_name(
    named: Database, officer: Run
) -> None:
    named.rows(f"update {VIEW} set note = 'new'", user="crm_app")
    named.rows("select gdpr.unprotect(gdpr.table_named(%s))", [SPELLED[0]])
    named.rows(f"drop table {SPELLED[1]}")
    for table in SPELLED:
        outcome = officer("audit", "tail", "--table", table, "--format", "json")
        assert outcome.code == 0, outcome.err
        assert {row["operation"] for row in outcome.data} == {"UPDATE"}
