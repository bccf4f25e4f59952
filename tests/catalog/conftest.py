"""A protected database for questions to the catalog: asked, never changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.capabilities.crm import POLICY, ROWS, TABLES, apply
from tests.support import Clone, Database


@pytest.fixture(scope="session")
def crm_database(clone: Clone, installed_template: str) -> Iterator[Database]:
    """The application of the capability tests under its policy."""
    with clone(installed_template) as database:
        connection = database.connect()
        connection.execute(TABLES)
        connection.execute(ROWS)
        apply(database, POLICY)
        yield database
