"""Where the integrations are tested: engines on a database of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from gdprdb.integrations.sqlalchemy import protect
from tests.support import Database


def url(database: Database, user: str = "crm_app") -> sa.URL:
    """The database as SQLAlchemy names it."""
    return sa.URL.create(
        "postgresql+psycopg",
        user,
        database=database.name,
        query={"host": str(database.cluster.socket_dir)},
    )


@contextmanager
def application(database: Database) -> Iterator[sa.Engine]:
    """The engine of an application, with one connection that is handed on."""
    engine = sa.create_engine(url(database), pool_size=1, max_overflow=0)
    protect(engine)
    try:
        yield engine
    finally:
        engine.dispose()
