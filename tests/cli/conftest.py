"""Running the command line in a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from gdprdb.cli import main
from tests.support import Database


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Standard output, read as JSON."""
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line: ``run("db", "status", stdin="...")``."""
    for variable in ("GDPRDB_DSN", "DATABASE_URL", "GDPRDB_FORMAT", "GDPRDB_KEY"):
        monkeypatch.delenv(variable, raising=False)

    def call(*arguments: str, stdin: str | None = None) -> Outcome:
        result = CliRunner().invoke(main, arguments, input=stdin, prog_name="gdprdb")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def on_db(run: Run, db: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same, with ``db`` as the database and its owner as the login."""
    monkeypatch.setenv("GDPRDB_DSN", db.dsn())
    return run
