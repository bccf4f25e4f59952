"""Errors are an interface: one table of all, each raised somewhere, each tested."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from tests.support import Database

ROOT = Path(__file__).parents[2]
SQL = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "sql").rglob("*.sql")))
TESTS = "\n".join(
    path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    if path.name != "test_errors.py"
)

#: Names given to refuse(): quoted in a call, or as a branch of a CASE inside one.
RAISED = set(re.findall(r"refuse\(\s*'{1,2}(\w+)'{1,2}", SQL)) | set(
    re.findall(r"(?:then|else) '(\w+)'", SQL)
)


def codes(database: Database) -> dict[str, tuple[str, str, str]]:
    """SQLSTATE, message and hint by name."""
    rows = database.rows(
        "select name, sqlstate, message, hint from gdpr.error_code", user="crm_app"
    )
    return {name: (state, message, hint) for name, state, message, hint in rows}


def test_every_error_that_is_raised_is_in_the_table(crm_database: Database) -> None:
    called = set(re.findall(r"refuse\(\s*'{1,2}(\w+)'{1,2}", SQL))
    assert len(called) > 20
    assert called <= set(codes(crm_database))


def test_every_error_in_the_table_is_raised(crm_database: Database) -> None:
    named = {
        name
        for name in codes(crm_database)
        if re.search(rf"'{name}'", SQL.replace("gdpr.error_code (name", ""))
        and SQL.count(f"'{name}'") > 1
    }
    assert set(codes(crm_database)) - named == set()


def test_codes_and_words(crm_database: Database) -> None:
    for name, (state, message, hint) in codes(crm_database).items():
        assert re.fullmatch(r"PR\d{3}|23505|40001|42501|22001|22023|55000|23503|23514", state), name
        assert message[0].islower(), name
        assert not message.endswith("."), name
        assert hint.endswith("."), name
        assert hint[0].isupper() or hint.startswith(("gdpr.", "consent ", "compliance ")), name


def test_a_code_of_gdprdb_is_one_error(crm_database: Database) -> None:
    own = [state for state, _, _ in codes(crm_database).values() if state.startswith("PR")]
    assert sorted(own) == sorted(set(own))


def test_every_error_is_provoked_by_a_test(crm_database: Database) -> None:
    missing = [
        name for name in codes(crm_database) if not re.search(rf"[\"'](gdpr_)?{name}[\"']", TESTS)
    ]
    assert not missing, missing


def test_the_installer_and_the_uninstaller_raise_their_own() -> None:
    """PR010 and PR011 stand where the table of errors does not exist (yet, or any more)."""
    assert "PR010" in SQL
    assert "PR011" in (ROOT / "migrations" / "releases" / "0.1.0" / "down.sql").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("name", sorted(RAISED & {"no_purpose", "policy_refused"}))
def test_an_error_carries_code_name_and_hint(crm_database: Database, name: str) -> None:
    statement = {
        "no_purpose": "select * from crm.customer",
        "policy_refused": "select * from gdpr.plan('[]')",
    }[name]
    crm_database.rows(
        "grant usage on schema crm to portal_app; grant select on crm.customer to portal_app"
    )
    with pytest.raises(psycopg.Error) as error:
        crm_database.rows(statement, user="portal_app" if name == "no_purpose" else "db_owner")
    state, message, hint = codes(crm_database)[name]
    assert error.value.sqlstate == state
    diag = error.value.diag
    assert (diag.message_primary, diag.message_hint, diag.constraint_name) == (
        message,
        hint,
        f"gdpr_{name}",
    )
    crm_database.rows(
        "revoke all on crm.customer from portal_app; revoke usage on schema crm from portal_app"
    )
