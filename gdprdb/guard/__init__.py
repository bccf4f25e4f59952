"""The guard: event triggers that refuse statements after which a table is protected less.

Only a superuser can install them, so they are no part of a release: two scripts, ``install.sql``
and ``remove.sql``, which psql takes as well. What they ask stands in the database
(``gdpr_internal.guard``) and comes with gdprdb.
"""

from __future__ import annotations

from importlib.resources import files

import psycopg


def script(name: str) -> str:
    """The statements that install the guard or take it away.

    Args:
        name: ``install`` or ``remove``.
    """
    return (files("gdprdb.guard") / f"{name}.sql").read_text(encoding="utf-8")


def install(connection: psycopg.Connection) -> None:
    """Install the guard, or put it right where it stands; the caller commits.

    Args:
        connection: as a superuser.

    Raises:
        psycopg.Error: the login is no superuser, or gdprdb is not installed.
    """
    connection.execute(script("install").encode())


def remove(connection: psycopg.Connection) -> None:
    """Take the guard away, on record; the caller commits.

    Args:
        connection: as a superuser.

    Raises:
        psycopg.Error: the login is no superuser.
    """
    connection.execute(script("remove").encode())
