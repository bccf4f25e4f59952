"""A customer database that is protected, one copy for each test."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from gdprdb import migrate
from tests.capabilities.crm import apply
from tests.capabilities.houses import PEOPLE, POLICY, House
from tests.support import AS_SUPERUSER, INSTALLER, OWNER, Clone, Database


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


@pytest.fixture(scope="session")
def house_template(clone: Clone) -> Iterator[tuple[str, str]]:
    """A database whose key of provider session encrypts 25 persons: its name and the key."""
    with clone() as database:
        migrate.init(database.dsn(INSTALLER))
        if AS_SUPERUSER:
            database.rows(
                f"grant gdpr_admin, gdpr_dpo to {OWNER} with admin option", user="postgres"
            )
        (key,) = database.rows("select gdpr.create_key('session')")[0]
        with psycopg.connect(database.dsn(), autocommit=True) as owner:
            owner.execute(
                "create table public.person (id integer primary key, email text, name text);"
                "grant all on public.person to crm_app"
            )
            owner.execute("select gdpr.unlock(%s)", [key])
            apply(owner, POLICY)
        with psycopg.connect(database.dsn("crm_app"), autocommit=True) as app:
            app.execute("select gdpr.unlock(%s)", [key])
            app.execute(
                "insert into gdpr_clear.person select n, n || '@example.com', 'Name ' || n"
                " from generate_series(1, %s) as n",
                [PEOPLE],
            )
        yield database.name, key


@pytest.fixture
def house(clone: Clone, house_template: tuple[str, str]) -> Iterator[House]:
    """A copy of `house_template`, for one test."""
    with clone(house_template[0]) as database:
        yield House(database, house_template[1])
