"""The persons of many rows, chosen by a condition in SQL."""

from __future__ import annotations

import psycopg
from psycopg import sql

from gdprdb.cli.output import progress
from gdprdb.errors import GdprdbError

#: Keys looked up by one call.
CHUNK = 10_000

#: The clear view of a table, and the columns of its primary key.
TABLE = """
select n.nspname, v.relname, (
  select array_agg(a.attname::text order by k.n)
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = (select gdpr.table_named(%(table)s)) and x.indisprimary
)
from pg_class as v
join pg_namespace as n on n.oid = v.relnamespace
where n.nspname = 'gdpr_clear' and exists (
  select from pg_depend as d
  join pg_rewrite as r on r.oid = d.objid
  where d.classid = 'pg_rewrite'::regclass and d.refobjid = (select gdpr.table_named(%(table)s))
    and r.ev_class = v.oid
)
"""


def persons_where(connection: psycopg.Connection, table: str, condition: str) -> list[int]:
    """The persons to whom the rows of a protected table belong that meet a condition.

    The condition runs with the caller's own rights, in a transaction that cannot write.

    Args:
        connection: outside a transaction that has work to lose.
        table: its name, as `gdpr.table_named` takes it.
        condition: SQL over the columns of its clear view.

    Raises:
        GdprdbError: the table is not protected, or has no primary key.
    """
    row = connection.execute(TABLE, {"table": table}).fetchone()
    if row is None:
        raise GdprdbError(f"{table} is not a protected table")
    schema, view, key = row
    if not key:
        raise GdprdbError(f"{table} has no primary key: its rows cannot be named")
    columns = [sql.SQL("format('%s', {})").format(sql.Identifier(column)) for column in key]
    name = columns[0]
    if len(columns) > 1:
        name = sql.SQL("jsonb_build_array({})::text").format(sql.SQL(", ").join(columns))
    query = sql.SQL("select {} from {} where ({})").format(
        name,
        sql.Identifier(schema, view),
        sql.SQL(condition),
    )
    connection.commit()
    connection.execute("set transaction read only")
    # binary: the protocol that takes one statement only
    keys = [key for (key,) in connection.execute(query, binary=True)]
    connection.rollback()
    persons: set[int] = set()
    for start in progress(range(0, len(keys), CHUNK), "Looking up persons"):
        (found,) = connection.execute(
            "select gdpr.subjects_of(gdpr.table_named(%s), %s)",
            [table, keys[start : start + CHUNK]],
        ).fetchone() or ([],)
        persons.update(found)
    connection.rollback()
    return sorted(persons)
