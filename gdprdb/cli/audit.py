"""``gdprdb audit``: who changed what, and why."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import rich_click as click
from psycopg import sql

from gdprdb.cli.options import database, dsn_option, moment
from gdprdb.cli.output import Rows, output
from gdprdb.dsn import one

_COLUMNS = (
    "id",
    "at",
    "table_name",
    "operation",
    "subject_id",
    "purpose",
    "actor",
    "login",
    "changed",
)

#: Seconds between two looks of --follow.
_INTERVAL = 1.0


@click.group()
def audit() -> None:
    """Read the audit log.

    Example:

        gdprdb audit tail --follow
    """


@audit.command()
@dsn_option
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many records to show, the latest.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on and show records as they come.")
@click.option("--table", "table_name", help="Only this table, as schema.table.")
@click.option("--subject-id", type=int, help="Only this person.")
@click.option("--operation", help="Only this operation: INSERT, UPDATE, DELETE, ...")
@click.option("--actor", help="Only this actor.")
@click.option("--purpose", help="Only this purpose.")
@click.option("--since", callback=moment, help="Only from this time on (ISO 8601).")
@output
def tail(
    dsn: str | None,
    lines: int,
    follow: bool,
    table_name: str | None,
    since: datetime.datetime | None,
    **equal: Any,
) -> Rows:
    """Show the latest records of the audit log. Values stay encrypted; columns are named.

    Example:

        gdprdb audit tail -n 100 --table public.customer --format csv
    """
    conditions = [
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in equal.items()
        if value is not None
    ]
    if table_name is not None:
        conditions.append(sql.SQL("table_name = {}::regclass").format(sql.Literal(table_name)))
    if since is not None:
        conditions.append(sql.SQL("at >= {}").format(sql.Literal(since)))
    if follow:
        return Rows(_COLUMNS, _following(dsn, conditions, lines), live=True)
    with database(dsn) as connection:
        return Rows(_COLUMNS, _latest(connection, conditions, lines))


def _latest(
    connection: psycopg.Connection, conditions: list[sql.Composed], lines: int
) -> list[tuple[Any, ...]]:
    """The last records that meet all conditions, oldest first."""
    query = _select(conditions) + sql.SQL(" order by id desc limit {}").format(sql.Literal(lines))
    return connection.execute(query).fetchall()[::-1]


def _following(
    dsn: str | None, conditions: list[sql.Composed], lines: int
) -> Iterator[tuple[Any, ...]]:
    """The last records, then each new one, until interrupted.

    A slow transaction commits records with lower numbers than some already shown, so what
    was shown is remembered by transaction: `xid` below the oldest one still running is settled.
    """
    with database(dsn) as connection:
        connection.commit()
        connection.autocommit = True
        horizon = _horizon(connection)
        shown = set[int]()
        for row in _latest(connection, conditions, lines):
            shown.add(row[0])
            yield row
        while True:
            time.sleep(_INTERVAL)
            settled = _horizon(connection)
            new = sql.SQL("xid >= {}::xid8").format(sql.Literal(horizon))
            query = _select([*conditions, new]) + sql.SQL(" order by id")
            for row in connection.execute(query):
                if row[0] not in shown:
                    shown.add(row[0])
                    yield row
            horizon = settled


def _horizon(connection: psycopg.Connection) -> str:
    """Transactions below this one have ended: what they recorded can be seen."""
    (horizon,) = one(connection, "select pg_snapshot_xmin(pg_current_snapshot())::text")
    return str(horizon)


def _select(conditions: list[sql.Composed]) -> sql.Composed:
    columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
    where = sql.SQL(" and ").join(conditions or [sql.SQL("true").format()])
    return sql.SQL("select {} from gdpr.audit_log where {}").format(columns, where)
