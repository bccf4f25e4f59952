"""Fixtures for the tests of an application: a database under its policy, roles, time, refusals.

Where the tables and the policy come from is said in pytest's configuration

    [tool.pytest.ini_options]
    gdpr_schema = "schema.sql"
    gdpr_policy = "policy.toml"

or by fixtures of these names in ``conftest.py``. See docs/testing.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

    from gdprdb.integrations.testing import Database, Laboratory, Schema


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the files are."""
    parser.addini("gdpr_schema", "SQL file that makes the application's tables", default="")
    parser.addini("gdpr_policy", "TOML file of the policy", default="")


@pytest.fixture(scope="session")
def gdpr_schema(pytestconfig: pytest.Config) -> Schema:
    """Makes the application's tables: a function of the database that is copied for each test.

    By default, it runs the file that the setting ``gdpr_schema`` names, as the tables' owner.
    """

    def create(database: Database) -> None:
        if path := _setting(pytestconfig, "gdpr_schema"):
            database.connect().execute(path.read_bytes())

    return create


@pytest.fixture(scope="session")
def gdpr_policy(pytestconfig: pytest.Config) -> dict[str, Any] | Path | None:
    """The policy: a document, or its file. By default, what the setting ``gdpr_policy`` names."""
    return _setting(pytestconfig, "gdpr_policy")


@pytest.fixture(scope="session")
def gdpr_laboratory(
    gdpr_schema: Schema, gdpr_policy: dict[str, Any] | Path | None
) -> Iterator[Laboratory]:
    """The server of this run, with a template of the protected database."""
    from gdprdb.integrations.testing import laboratory

    with laboratory(gdpr_schema, gdpr_policy) as found:
        yield found


@pytest.fixture
def gdpr_db(gdpr_laboratory: Laboratory) -> Iterator[Database]:
    """A database of the test's own: gdprdb, the tables, the policy, and no rows."""
    with gdpr_laboratory.database() as database:
        yield database


@pytest.fixture
def as_role(gdpr_db: Database) -> Callable[[str], psycopg.Connection]:
    """``as_role("crm_app")``: a connection as a role of the policy, or a group as ``gdpr_dpo``."""
    return gdpr_db.connect


@pytest.fixture
def at_time(
    gdpr_db: Database,
) -> Callable[[datetime | timedelta], AbstractContextManager[None]]:
    """``with at_time(timedelta(days=31)):`` what the server does in the block, it does then."""
    return gdpr_db.at_time


@pytest.fixture
def assert_hidden(gdpr_db: Database) -> Callable[..., None]:
    """``assert_hidden("crm_app", "customer", id=7)``: the row is there, and the role is shown none.

    With ``purpose="..."`` for another than the role's first purpose.
    """

    def check(role: str, table: str, *, purpose: str | None = None, **key: Any) -> None:
        rows, seen = gdpr_db.seen_by(role, table, key, purpose)
        if not rows:
            pytest.fail(f"{table} has no row with {key}: that it is hidden would mean nothing")
        if seen:
            pytest.fail(f"{role} sees {seen} of {rows} rows of {table} with {key}")

    return check


@pytest.fixture
def assert_visible(gdpr_db: Database) -> Callable[..., None]:
    """The opposite of `assert_hidden`: the role is shown every such row, and there is one."""

    def check(role: str, table: str, *, purpose: str | None = None, **key: Any) -> None:
        rows, seen = gdpr_db.seen_by(role, table, key, purpose)
        if not rows or seen < rows:
            pytest.fail(f"{role} sees {seen} of {rows} rows of {table} with {key}")

    return check


@pytest.fixture
def assert_refused() -> Callable[..., AbstractContextManager[Refusal]]:
    """``with assert_refused("PR301"):`` the block is refused by the database, with this SQLSTATE.

    ``name="consent_missing"`` asks for an error of `gdpr.error_code`, where a SQLSTATE has several.
    ``as refusal`` has it in `refusal.error` afterwards.
    """
    return _refused


@dataclass
class Refusal:
    """What a block was refused with: the error of psycopg, whoever wrapped it."""

    error: psycopg.Error | None = None


@contextmanager
def _refused(sqlstate: str, *, name: str | None = None) -> Iterator[Refusal]:
    import psycopg

    refusal = Refusal()
    try:
        yield refusal
    except Exception as raised:
        found = getattr(raised, "orig", raised)
        if not isinstance(found, psycopg.Error):
            raise
        refusal.error = found
    if refusal.error is None:
        pytest.fail(f"nothing was refused with {sqlstate}")
    said = (refusal.error.diag.constraint_name or "").removeprefix("gdpr_")
    if refusal.error.sqlstate != sqlstate or (name is not None and said != name):
        pytest.fail(f"refused with {refusal.error.sqlstate} {said}: {refusal.error}")


def _setting(config: pytest.Config, name: str) -> Path | None:
    """The file that a setting names, from the directory of pytest's configuration."""
    given = config.getini(name)
    return config.rootpath / given if given else None
