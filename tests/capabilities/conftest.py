"""A customer database that is protected, one copy for each test."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support import Clone, Database


@pytest.fixture
def shop(clone: Clone, shop_template: str) -> Iterator[Database]:
    """The application before its policy: ``crm.TABLES`` and ``crm.ROWS``."""
    with clone(shop_template) as database:
        yield database


@pytest.fixture
def crm(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The application under ``crm.POLICY``."""
    with clone(crm_template) as database:
        yield database


@pytest.fixture(scope="module")
def unchanged(clone: Clone, shop_template: str) -> Iterator[Database]:
    """Like ``shop``, one for all tests of a module that leave it as it is."""
    with clone(shop_template) as database:
        yield database


@pytest.fixture(scope="module")
def same(clone: Clone, crm_template: str) -> Iterator[Database]:
    """Like ``crm``, one for all tests of a module whose calls are refused."""
    with clone(crm_template) as database:
        yield database


@pytest.fixture
def undone(unchanged: Database) -> Iterator[psycopg.Connection]:
    """A connection of the tables' owner to ``unchanged``, in a transaction that is rolled back."""
    with psycopg.connect(unchanged.dsn()) as connection:
        yield connection
        connection.rollback()
