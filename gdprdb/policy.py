"""Policy files: TOML on disk, jsonb in the database.

The database judges a policy (`gdpr.plan`); this module only reads the file and
says where in it a problem lies.
"""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from gdprdb.errors import GdprdbError, RefusedError

#: What `gdpr.plan` raises for a policy it refuses; one problem a line in the DETAIL.
_REFUSED = "PR001"


def load(path: Path) -> dict[str, Any]:
    """Read a policy file.

    Args:
        path: a TOML file in UTF-8.

    Raises:
        GdprdbError: the file cannot be read or is no TOML; the message names the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise GdprdbError(
            f"{path} is not valid TOML: {error}", hint="See https://toml.io for the format."
        ) from None
    except UnicodeDecodeError as error:
        raise GdprdbError(f"{path} is not UTF-8 (byte {error.start})") from None


def plan(connection: psycopg.Connection, path: Path) -> psycopg.Cursor[tuple[Any, ...]]:
    """The steps that would bring the database to the policy, and change nothing.

    Args:
        connection: as an administrator who owns the tables.
        path: the policy file.

    Raises:
        RefusedError: the policy is refused; the details name file, line and problem.
    """
    return _call(connection, "select * from gdpr.plan(%s)", path)


def apply(connection: psycopg.Connection, path: Path) -> psycopg.Cursor[tuple[Any, ...]]:
    """Bring the database to the policy; the steps that this took. The caller commits.

    Args:
        connection: as an administrator who owns the tables.
        path: the policy file.

    Raises:
        RefusedError: the policy is refused; the details name file, line and problem.
    """
    return _call(connection, "select * from gdpr.apply(%s)", path)


def reshape(
    connection: psycopg.Connection, table: str, statements: Iterable[str]
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Change a protected table, between `gdpr.reshape()` and `gdpr.end_reshape()`.

    Args:
        connection: as an administrator who owns the table; in a transaction of the caller's.
        table: its name, as `gdpr.table_named` takes it.
        statements: DDL; each may be several statements.

    Raises:
        psycopg.Error: the table is not protected, a statement fails, or the policy does not allow
            the shape.
    """
    connection.execute("select gdpr.reshape(gdpr.table_named(%s))", [table])
    for statement in statements:
        connection.execute(statement.encode())
    return connection.execute("select * from gdpr.end_reshape()")


def estimate(connection: psycopg.Connection, path: Path) -> psycopg.Cursor[tuple[Any, ...]]:
    """What protecting the policy's tables would take: rows, time, room, in batches or at once.

    Args:
        connection: as an administrator who owns the tables.
        path: the policy file.

    Raises:
        RefusedError: the policy is refused; the details name file, line and problem.
    """
    return _call(connection, "select * from gdpr.estimate(%s)", path)


def document(path: Path) -> Jsonb:
    """A policy file as the database takes it.

    Args:
        path: the policy file.
    """
    return Jsonb(load(path), dumps=_dumps)


def locate(text: str, names: list[str]) -> int | None:
    """The line of a TOML text where something is said, counted from 1.

    Args:
        text: the file.
        names: its keys from the outermost, as ``["tables", "public.customer", "mode"]``. Where
            the last is not found, the line of the longest part that is.
    """
    best_depth, best_line, table = 0, None, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?(.+?)\]\]?\s*(#.*)?$", line):
            table = here = _keys(header[1])
        elif assignment := re.match(r"""\s*((?:[\w.-]|"[^"]*"|'[^']*')+)\s*=""", line):
            here = table + _keys(assignment[1])
        else:
            continue
        if len(here) > best_depth and here == names[: len(here)]:
            best_depth, best_line = len(here), number
    return best_line


def _call(
    connection: psycopg.Connection, statement: str, path: Path
) -> psycopg.Cursor[tuple[Any, ...]]:
    new = document(path)
    try:
        return connection.execute(statement.encode(), [new])
    except psycopg.Error as error:
        if error.sqlstate != _REFUSED:
            raise
        text = path.read_text(encoding="utf-8")
        details = (error.diag.message_detail or "").splitlines()
        raise RefusedError(
            f"the policy {path} is refused",
            details=tuple(_with_place(text, path, detail) for detail in details),
            hint=error.diag.message_hint,
        ) from error


def _with_place(text: str, path: Path, detail: str) -> str:
    """``path:line: problem`` where the problem begins with the key it is about."""
    key, colon, _ = detail.partition(": ")
    line = locate(text, _keys(key)) if colon else None
    return f"{path}:{line}: {detail}" if line else detail


def _keys(dotted: str) -> list[str]:
    """The parts of a dotted key of TOML, quoted or bare."""
    parts = re.findall(r"""\s*(?:"([^"]*)"|'([^']*)'|([^\s."']+))\s*(?:\.|$)""", dotted)
    return [double or single or bare for double, single, bare in parts]


def _dumps(document: object) -> str:
    return json.dumps(document, default=_text, ensure_ascii=False)


def _text(value: object) -> str:
    """TOML has dates and times; JSON writes them as ISO 8601."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(type(value).__name__)
