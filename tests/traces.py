"""What is left of values in a database, wherever they could be, and whether its references hold."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import psycopg

from tests.support import Database


def traces(db: Database, values: set[str], *, schema: bool = True) -> set[str]:
    """Those of some values that can be found in a database.

    Searched are a full dump, and what a dump leaves out: the samples of the planner, after the
    tables of the application were analysed anew.

    Args:
        db: the database.
        values: texts; one must not be part of another.
        schema: with False the dump is of every row, and not of the definitions.
    """
    with tempfile.TemporaryDirectory() as directory:
        patterns, heap = Path(directory, "values"), Path(directory, "heap")
        patterns.write_text("".join(f"{value}\n" for value in sorted(values)), encoding="utf-8")
        with heap.open("wb") as file:
            subprocess.run(
                [
                    db.cluster.binaries.program("pg_dump"),
                    *([] if schema else ["--data-only"]),
                    db.dsn("postgres"),
                ],
                stdout=file,
                check=True,
            )
            with psycopg.connect(db.dsn("postgres"), autocommit=True) as connection:
                connection.execute(ANALYSE)
                for catalog in ("pg_statistic", "pg_statistic_ext_data"):
                    with connection.cursor().copy(f"copy {catalog} to stdout".encode()) as copy:
                        file.writelines(copy)
        found = subprocess.run(
            ["grep", "-a", "-o", "-F", "-f", patterns, heap],
            capture_output=True,
            check=False,
            env={"LC_ALL": "C"},
        )
    assert found.returncode in {0, 1}, found.stderr
    return set(found.stdout.decode().splitlines())


ANALYSE = """
do $analyse$
declare
  v_table regclass;
begin
  for v_table in
    select c.oid from pg_class as c
    where c.relkind in ('r', 'p')
      and c.relnamespace::regnamespace::text !~ '^(pg_|gdpr|information_schema)'
  loop
    execute format('analyze %s', v_table);
  end loop;
end
$analyse$
"""


def dangling(db: Database) -> list[str]:
    """Foreign keys, as their definitions say them, of which a row refers to nothing."""
    with psycopg.connect(db.dsn("postgres"), autocommit=True) as connection:
        links = connection.execute(
            """
            select
              pg_get_constraintdef(k.oid),
              format(
                'select from %s as c where %s and not exists (select from %s as p where %s)',
                k.conrelid::regclass,
                string_agg(format('c.%I is not null', a.attname), ' and '),
                k.confrelid::regclass,
                string_agg(format('p.%I = c.%I', f.attname, a.attname), ' and ')
              )
            from pg_constraint as k
            cross join lateral unnest(k.conkey, k.confkey) as u (child, parent)
            join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.child
            join pg_attribute as f on f.attrelid = k.confrelid and f.attnum = u.parent
            where k.contype = 'f' and k.conparentid = 0
            group by k.oid, k.conrelid, k.confrelid
            """
        ).fetchall()
        return [link for link, broken in links if connection.execute(broken).fetchall() != []]
