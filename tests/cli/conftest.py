"""Running the command line in a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.capabilities.crm import POLICY, apply
from tests.support import Clone, Database, Prepared, Run


@pytest.fixture
def on_db(run: Run, db: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same, with ``db`` as the database and its owner as the login."""
    monkeypatch.setenv("GDPRDB_DSN", db.dsn())
    return run


def with_working_days(shop: Database) -> None:
    """Apply the policy, with two working days a week."""
    apply(shop, POLICY | {"settings": {"working_days": ["monday", "sunday"]}})


@pytest.fixture
def office(
    prepared: Prepared, shop_template: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """The command line as the officer, on the customer database."""
    with prepared(shop_template, with_working_days) as database:
        monkeypatch.setenv("GDPRDB_DSN", database.dsn("dpo_login"))
        yield run


@pytest.fixture
def crm(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The application under its policy, as in the tests of the capabilities."""
    with clone(crm_template) as database:
        yield database
