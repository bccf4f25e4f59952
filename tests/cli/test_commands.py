"""Each noun of the command line, on a real database."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gdprdb import __version__
from gdprdb.server import Cluster
from tests.capabilities.crm import apply
from tests.capabilities.sharing import RECIPIENTS, disclose
from tests.support import INSTALLER, Clone, Database, Prepared, Run

POLICY = """\
[purposes.orders]
description = "Fulfil orders"
basis = "contract"
[purposes.marketing]
description = "Newsletters"
basis = "consent"

[roles.crm_app]
audience = "clear"
purposes = ["orders", "marketing"]

[tables."public.customer"]
subject = "self"
match_on = ["email"]
purposes = ["orders", "marketing"]
[tables."public.customer".columns]
email = { category = "contact", identifier = "email", encrypt = "searchable" }
name = { category = "identity", mask = "initial" }
"""


#: The command line, interruptible even where the test run was put in the background.
INTERRUPTIBLE = """
import signal
from gdprdb.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """A policy file."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return str(path)


def with_ada(db: Database) -> None:
    """One protected customer, Ada."""
    db.rows("create table public.customer (id int primary key, email text, name text)")
    db.rows("grant select, insert, update, delete on public.customer to crm_app")
    apply(db, tomllib.loads(POLICY))
    db.rows(
        "insert into gdpr_clear.customer (id, email, name) values (1, 'ada@example.org', 'Ada')",
        user="crm_app",
    )


@pytest.fixture
def db(
    request: pytest.FixtureRequest, clone: Clone, prepared: Prepared, installed_template: str
) -> Iterator[Database]:
    """A database with gdprdb; with Ada for the tests that ask for ``crm``."""
    customers = "crm" in request.fixturenames
    with (
        prepared(installed_template, with_ada) if customers else clone(installed_template)
    ) as database:
        yield database


@pytest.fixture
def crm(on_db: Run) -> Run:
    """The command line on a database with one protected customer, Ada, of number `ADA`."""
    return on_db


def number(run: Run, address: str = "ada@example.org") -> str:
    """The number of the person with this address."""
    found = run("subject", "find", "--format", "json", stdin=address)
    assert found.code == 0, found.err
    return str(found.data[0]["subject_id"])


def test_db_status_of_an_installed_database(on_db: Run, db: Database) -> None:
    outcome = on_db("db", "status", "--format", "json")
    assert outcome.code == 0
    assert outcome.data == [
        {
            "database": db.name,
            "installed": __version__,
            "program": __version__,
            "protected_tables": 0,
            "whereabouts": "copy",
        }
    ]


def test_db_status_of_a_database_without_gdprdb(run: Run, empty_db: Database) -> None:
    assert run("db", "status", "--dsn", empty_db.dsn()).code == 5
    outcome = run("policy", "show", "--dsn", empty_db.dsn())
    assert (outcome.code, outcome.out) == (5, "")
    assert "gdprdb db init" in outcome.err


def test_db_upgrade_has_nothing_to_do(run: Run, db: Database) -> None:
    outcome = run("db", "upgrade", "--dsn", db.dsn(INSTALLER))
    assert (outcome.code, outcome.out) == (0, "")
    assert "nothing to do" in outcome.err


def test_db_upgrade_wants_an_installed_database(run: Run, empty_db: Database) -> None:
    assert run("db", "upgrade", "--dsn", empty_db.dsn()).code == 5


def test_db_sql_needs_no_database(run: Run) -> None:
    outcome = run("db", "sql")
    assert outcome.code == 0
    assert outcome.out.startswith("\\set ON_ERROR_STOP on")
    assert run("db", "sql", "--from", "0.0.1").code == 1


def test_db_uninstall_shows_the_plan_and_asks(on_db: Run, db: Database) -> None:
    dry = on_db("db", "uninstall", "--dry-run")
    assert dry.code == 0
    assert "gdpr_internal" in dry.err
    assert "Nothing was changed" in dry.err
    unasked = on_db("db", "uninstall")
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    assert db.rows("select gdpr.release()") == [(__version__,)]


def test_db_uninstall_is_refused_while_tables_are_protected(crm: Run) -> None:
    outcome = crm("db", "uninstall", "--yes")
    assert outcome.code == 4
    assert "  public.customer\n" in outcome.err


def test_policy_reshape_changes_a_protected_table(crm: Run, db: Database, tmp_path: Path) -> None:
    ddl = tmp_path / "change.sql"
    ddl.write_text(
        "alter table customer rename name to full_name;\nalter table customer add age int;\n"
    )
    dry = crm("policy", "reshape", "customer", str(ddl), "--dry-run")
    assert dry.code == 0, dry.err
    assert "full_name" in dry.err
    assert "Nothing was changed" in dry.err
    unasked = crm("policy", "reshape", "customer", str(ddl))
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    columns = (
        "select count(*) from pg_attribute"
        " where attrelid = 'customer'::regclass and attname in ('full_name', 'age')"
    )
    assert db.rows(columns) == [(0,)]
    done = crm("policy", "reshape", "customer", "-", "--yes", stdin=ddl.read_text())
    assert done.code == 0, done.err
    assert "controls are back" in done.err
    assert db.rows("select full_name from gdpr_clear.customer", user="crm_app") == [("Ada",)]
    # what plain DDL did is followed without a word
    db.rows("alter table customer rename full_name to name")
    assert crm("doctor").code == 3
    assert crm("policy", "reshape", "customer", "--yes").code == 0
    assert db.rows("select name from gdpr_clear.customer", user="crm_app") == [("Ada",)]


def test_policy_reshape_says_why_not(crm: Run, db: Database) -> None:
    refused = crm("policy", "reshape", "customer", "-c", "alter table customer drop email", "--yes")
    assert refused.code == 4
    assert "match_on" in refused.err
    assert crm("policy", "reshape", "nobody", "--yes").code == 1
    broken = crm(
        "policy", "reshape", "customer", "-c", "alter table customer drop nothing", "--yes"
    )
    assert broken.code == 1
    committed = crm("policy", "reshape", "customer", "-c", "commit", "--yes")
    assert committed.code == 4
    with db.connect("crm_app", autocommit=False) as application:
        application.execute("select from customer")
        locked = crm("policy", "reshape", "customer", "--lock-timeout", "50ms", "--yes")
        assert locked.code == 1
    assert "customer" in crm("policy", "show").out


def test_policy_apply_shows_the_plan_first_and_is_idempotent(crm: Run, policy: str) -> None:
    again = crm("policy", "apply", policy)
    assert again.code == 0
    assert "nothing to do" in again.err
    assert crm("policy", "plan", policy, "--format", "json").data == []
    assert crm("policy", "check", policy).code == 0


def test_policy_plan_changes_nothing(on_db: Run, db: Database, policy: str) -> None:
    db.rows("create table public.customer (id int primary key, email text, name text)")
    planned = on_db("policy", "plan", policy, "--format", "json")
    assert planned.code == 0
    assert {"step", "object", "action", "statement", "lock", "rewrite"} == set(planned.data[0])
    assert on_db("policy", "apply", policy, "--dry-run").code == 0
    assert on_db("policy", "check", policy).code == 3
    assert db.rows("select count(*) from gdpr.protected_table") == [(0,)]


def test_a_refused_policy_names_file_line_and_problem(
    on_db: Run, db: Database, tmp_path: Path
) -> None:
    db.rows("create table public.customer (id int primary key, email text)")
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    outcome = on_db("policy", "plan", str(path))
    assert outcome.code == 4
    line = POLICY.splitlines().index('name = { category = "identity", mask = "initial" }') + 1
    assert f"{path}:{line}: " in outcome.err


def test_policy_show_is_the_policy(crm: Run) -> None:
    shown = crm("policy", "show").data
    assert set(shown["tables"]) == {"public.customer"}
    assert set(shown["purposes"]) == {"orders", "marketing"}


def test_keys(on_db: Run) -> None:
    assert on_db("keys", "status", "--format", "json").data
    again = on_db("keys", "create")
    assert again.code != 0
    assert "SQLSTATE" in again.err


def test_doctor_finds_what_was_taken_away(crm: Run, db: Database) -> None:
    before = crm("doctor", "--format", "json")
    assert {finding["topic"] for finding in before.data if finding["severity"] != "info"} <= {"key"}
    assert before.code == 3
    db.rows("alter table public.customer no force row level security")
    sick = crm("doctor", "--format", "json")
    assert sick.code == 3
    new = [finding for finding in sick.data if finding not in before.data]
    assert any("customer" in finding["object"] for finding in new)


def test_a_person_is_found_by_standard_input_and_shown_by_number(crm: Run) -> None:
    person = number(crm)
    shown = crm("subject", "show", "--subject-id", person, "--format", "json")
    assert shown.code == 0
    assert "ada" not in shown.out.lower()
    unknown = crm("subject", "find", stdin="nobody@example.org\n")
    assert (unknown.code, unknown.out) == (1, "")
    assert crm("subject", "find", stdin="").code == 2


def test_erasure_shows_an_exact_plan_then_a_receipt(crm: Run, db: Database) -> None:
    person = number(crm)
    officer = db.connect("dpo_login")
    officer.execute(RECIPIENTS)
    disclose(officer, [int(person)], recipient="Call Centre Inc")
    dry = crm("subject", "erase", "--subject-id", person, "--reason", "request", "--dry-run")
    assert dry.code == 0
    assert "public.customer" in dry.err
    assert re.search(r"notice to Call Centre Inc +by hand", dry.err)
    assert re.search(r"blocklist email +1", dry.err)
    assert db.rows("select count(*) from gdpr_clear.customer", user="crm_app") == [(1,)]
    done = crm(
        "subject",
        "erase",
        "--subject-id",
        person,
        "--reason",
        "request",
        "--yes",
        "--format",
        "json",
    )
    assert done.code == 0, done.err
    assert "public.customer" in json.dumps(done.data)
    assert "ada@example.org" not in done.out + done.err
    assert db.rows("select count(*) from gdpr_clear.customer", user="crm_app") == [(0,)]
    check = crm("blocklist", "check", "--format", "json", stdin="ada@example.org")
    assert check.data == [{"blocked": True}]


def test_a_person_is_told_what_was_erased(crm: Run) -> None:
    person = number(crm)
    early = crm("subject", "receipt", "--subject-id", person)
    assert (early.code, early.out) == (1, "")
    crm("subject", "erase", "--subject-id", person, "--reason", "asked", "--yes")
    letter = crm("subject", "receipt", "--subject-id", person)
    assert letter.code == 0
    assert "we erased your personal data: 1 records in 1 parts" in letter.out
    assert "cannot be read any more" in letter.out
    assert "ada" not in letter.out.lower()
    again = crm("subject", "erase", "--subject-id", person, "--reason", "asked", "--yes")
    assert again.code == 4
    assert "PR603" in again.err


def test_texts_to_review_are_listed_and_noted(crm: Run) -> None:
    assert crm("subject", "reviews", "--format", "json").data == []
    unknown = crm("subject", "review", "--id", "1", "--outcome", "kept")
    assert unknown.code == 4
    assert "PR617" in unknown.err


def test_consent_is_recorded_and_withdrawn(crm: Run) -> None:
    person = number(crm)

    def status() -> str:
        listed = crm("consent", "list", "--subject-id", person, "--format", "json").data
        return str({row["purpose"]: row["status"] for row in listed}.get("marketing"))

    recorded = crm(
        "consent",
        "record",
        "--subject-id",
        person,
        "--purpose",
        "marketing",
        "--granted",
        "--channel",
        "web_form",
        "--evidence",
        '{"form": 7}',
        "--valid-until",
        "2999-01-01",
    )
    assert recorded.code == 0, recorded.err
    assert status() == "granted"
    withdrawn = crm(
        "consent",
        "withdraw",
        "--purpose",
        "marketing",
        "--channel",
        "phone",
        stdin="ada@example.org",
    )
    assert withdrawn.code == 0, withdrawn.err
    assert status() == "withdrawn"


def test_evidence_and_times_are_checked_before_anything_happens(crm: Run) -> None:
    base = (
        "consent",
        "record",
        "--subject-id",
        "1",
        "--purpose",
        "marketing",
        "--granted",
        "--channel",
        "web_form",
    )
    assert crm(*base, "--evidence", "{").code == 2
    assert crm(*base, "--valid-until", "soon").code == 2


def test_a_basis_is_recorded_listed_and_ended(crm: Run) -> None:
    person = number(crm)
    recorded = crm(
        "basis",
        "record",
        "--subject-id",
        person,
        "--purpose",
        "marketing",
        "--basis",
        "contract",
        "--reason",
        "existing customer",
        "--format",
        "json",
    )
    assert recorded.code == 0, recorded.err
    basis = str(recorded.data[0]["basis_id"])
    listed = crm("basis", "list", "--subject-id", person, "--format", "json").data
    assert basis in {str(row["basis_id"]) for row in listed}
    assert crm("basis", "end", basis, "--reason", "no longer").code == 0
    again = crm("basis", "end", basis, "--reason", "no longer")
    assert (again.code, "PR203" in again.err) == (4, True)


def test_the_blocklist_takes_values_from_standard_input(crm: Run) -> None:
    def blocked() -> bool:
        check = crm("blocklist", "check", "--format", "json", stdin="eve@example.org")
        return bool(check.data[0]["blocked"])

    assert crm("blocklist", "block", "--reason", "letter", stdin="eve@example.org\n").code == 0
    assert blocked()
    listed = crm("blocklist", "list", "--format", "csv")
    assert listed.code == 0
    assert "eve@" not in listed.out
    assert crm("blocklist", "unblock", "--reason", "asked", stdin="eve@example.org\n").code == 0
    assert not blocked()


def test_audit_tail_shows_the_latest_records_of_a_table(crm: Run, db: Database) -> None:
    db.rows("update gdpr_clear.customer set name = 'Ada L.' where id = 1", user="crm_app")
    tail = crm("audit", "tail", "-n", "1", "--table", "public.customer", "--format", "json")
    assert tail.code == 0, tail.err
    (record,) = tail.data
    assert (record["operation"], record["login"]) == ("UPDATE", "crm_app")
    assert record["changed"] == ["name"]
    assert "Ada" not in tail.out
    none = crm("audit", "tail", "--since", "2999-01-01", "--format", "json")
    assert none.data == []


def test_audit_tail_follows(crm: Run, db: Database) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            INTERRUPTIBLE,
            "audit",
            "tail",
            "-n",
            "1",
            "--follow",
            "--operation",
            "UPDATE",
            "--format",
            "jsonl",
        ],
        env={**os.environ, "GDPRDB_DSN": db.dsn()},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for name in ("one", "two"):
            db.rows(f"update gdpr_clear.customer set name = '{name}' where id = 1", user="crm_app")
            assert json.loads(process.stdout.readline())["operation"] == "UPDATE"
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert crm("audit", "tail").code == 0


def test_errors_of_the_database_come_with_hint_and_sqlstate(crm: Run) -> None:
    outcome = crm(
        "consent",
        "withdraw",
        "--subject-id",
        "999999",
        "--purpose",
        "marketing",
        "--channel",
        "phone",
    )
    assert (outcome.code, outcome.out) == (4, "")
    assert "Hint: " in outcome.err
    assert "SQLSTATE: PR101" in outcome.err


def test_a_server_that_is_not_there_is_words(run: Run) -> None:
    outcome = run("db", "status", "--dsn", "host=/nonexistent dbname=x")
    assert (outcome.code, outcome.out) == (1, "")
    assert "Hint: Check --dsn" in outcome.err


def test_server_start_status_psql_stop_remove(run: Run, reachable: Path) -> None:
    place = ("--directory", str(reachable))
    try:
        started = run("server", "start", *place)
        assert started.code == 0, started.err
        assert f"host={reachable}" in started.out or "host=/tmp/" in started.out
        assert run("db", "init", "--dsn", started.out.strip()).code == 0
        status = run("server", "status", *place, "--format", "json")
        assert (status.code, status.data[0]["running"]) == (0, True)
        psql = subprocess.run(
            [sys.executable, "-m", "gdprdb", "server", "psql", *place, "-AtXc", "select 6 * 7"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (psql.returncode, psql.stdout) == (0, "42\n")
        assert run("server", "stop", *place).code == 0
        assert run("server", "status", *place).code == 1
        assert run("server", "psql", *place).code == 1
        assert run("server", "remove", *place, "--yes").code == 0
        assert not reachable.exists()
    finally:
        Cluster(reachable).remove()
