"""Which database is meant: the option, then two variables, then libpq's own."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from gdprdb import dsn
from gdprdb.errors import GdprdbError
from tests.support import Database, Run


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the variables is set."""
    for variable in ("GDPRDB_DSN", "DATABASE_URL", "PGHOST", "PGDATABASE", "PGUSER"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    "given",
    [
        "host=h port=5433 dbname=d user=u",
        "postgresql://u@h:5433/d",
        "postgres://u@h:5433/d",
        "postgresql+psycopg://u@h:5433/d",
        "postgresql+asyncpg://u@h:5433/d",
        " postgresql://u@h:5433/d\n",
    ],
)
def test_every_form_is_understood(given: str) -> None:
    found = conninfo_to_dict(dsn.resolve(given))
    assert {name: found.get(name) for name in ("host", "port", "dbname", "user")} == {
        "host": "h",
        "port": "5433",
        "dbname": "d",
        "user": "u",
    }


def test_the_order_of_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    def database() -> object:
        return conninfo_to_dict(dsn.resolve()).get("dbname")

    assert database() is None
    monkeypatch.setenv("DATABASE_URL", "postgresql:///second")
    assert database() == "second"
    monkeypatch.setenv("GDPRDB_DSN", "postgresql:///first")
    assert database() == "first"
    assert conninfo_to_dict(dsn.resolve("dbname=given")).get("dbname") == "given"


def test_a_password_is_not_repeated_in_the_error() -> None:
    with pytest.raises(GdprdbError) as caught:
        dsn.resolve("postgresql://u:secret@h/d?nonsense=1")
    assert "secret" not in f"{caught.value.message} {caught.value.hint} {caught.value.details}"
    assert caught.value.__cause__ is None


def test_libpq_variables_are_the_last_resort(
    run: Run, empty_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", str(empty_db.cluster.socket_dir))
    monkeypatch.setenv("PGDATABASE", empty_db.name)
    monkeypatch.setenv("PGUSER", "db_owner")
    outcome = run("db", "status", "--format", "json")
    assert (outcome.code, outcome.data[0]["database"]) == (5, empty_db.name)


def test_one_wants_its_row(empty_db: Database) -> None:
    connection: psycopg.Connection = empty_db.connect()
    assert dsn.one(connection, "select %s::int", [1]) == (1,)
    with pytest.raises(LookupError):
        dsn.one(connection, "select 1 where false")
