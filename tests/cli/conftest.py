"""Running the command line in a test."""

from __future__ import annotations

import pytest

from tests.support import Database, Run


@pytest.fixture
def on_db(run: Run, db: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same, with ``db`` as the database and its owner as the login."""
    monkeypatch.setenv("GDPRDB_DSN", db.dsn())
    return run
