"""Which database is meant, and a connection to it.

A connection string may be anything libpq takes, a URI or ``key=value`` pairs,
or a URL of SQLAlchemy with its driver (``postgresql+psycopg://...``). Without
one, ``GDPRDB_DSN`` counts, then ``DATABASE_URL``, then libpq's own PG* variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from gdprdb.errors import GdprdbError

_VARIABLES = ("GDPRDB_DSN", "DATABASE_URL")


def resolve(dsn: str | None = None) -> str:
    """The libpq connection string for what the user gave, or left to the environment.

    Args:
        dsn: a connection string in any of the forms above; empty or None to look further.

    Raises:
        GdprdbError: it cannot be understood. The string itself is not repeated: it may
            hold a password.
    """
    where = "the connection string"
    given = dsn
    for variable in _VARIABLES:
        if not given:
            given, where = os.environ.get(variable), variable
    if not given:
        return make_conninfo("", fallback_application_name="gdprdb")
    plain = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", given.strip())
    try:
        return make_conninfo(plain, fallback_application_name="gdprdb")
    except psycopg.ProgrammingError:
        raise GdprdbError(
            f"{where} cannot be read",
            hint="Write it as postgresql://user@host/database or as "
            "'host=... dbname=... user=...'.",
        ) from None


def connect(dsn: str | None = None, *, autocommit: bool = False) -> psycopg.Connection:
    """A connection to the database that is meant.

    Args:
        dsn: as for `resolve`.
        autocommit: each statement a transaction of its own.

    Raises:
        GdprdbError: the connection string cannot be read.
        psycopg.OperationalError: the server cannot be reached.
    """
    return psycopg.connect(resolve(dsn), autocommit=autocommit)


def one(
    connection: psycopg.Connection, query: LiteralString, parameters: Sequence[object] = ()
) -> tuple[Any, ...]:
    """The single row of a query that always has one.

    Args:
        connection: where to run it.
        query: what to run.
        parameters: its values.
    """
    row = connection.execute(query, parameters).fetchone()
    if row is None:
        raise LookupError(query)
    return row
