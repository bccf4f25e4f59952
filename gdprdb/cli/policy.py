"""``gdprdb policy``: what is protected, for whom and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

import psycopg
import rich_click as click

from gdprdb import enabling
from gdprdb import policy as policies
from gdprdb.cli.options import database, dry_run_option, dsn_option, go_ahead, yes_option
from gdprdb.cli.output import Rows, fetched, following, output, say
from gdprdb.cli.output import show as show_rows
from gdprdb.dsn import one
from gdprdb.errors import FINDINGS

#: Rows from which on a table is protected in batches.
LARGE = 100_000

#: Rows from which on it is told what protecting a table takes.
WORTH_A_WORD = 10_000

#: Seconds from which on people count in minutes; bytes of a kB; from where on decimals say nothing.
MINUTES, KILO, TENS = 120, 1024, 10

file_argument = click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
)


@click.group()
def policy() -> None:
    """Plan, apply and check the policy: a TOML file that you keep under version control.

    Example:

        gdprdb policy plan policy.toml
    """


@policy.command()
@dsn_option
@file_argument
@output
def plan(dsn: str | None, file: Path) -> Rows:
    """Show the steps that applying FILE would take: statement, lock, rewrite. Changes nothing.

    Beside them, what it would take: rows, time (from a sample), room on the disk, and whether
    applications can go on meanwhile.

    Example:

        gdprdb policy plan policy.toml --format json
    """
    with database(dsn) as connection:
        steps = fetched(policies.plan(connection, file))
        if steps.rows:
            _foresee(fetched(policies.estimate(connection, file)))
    return steps


@policy.command()
@dsn_option
@file_argument
@click.option(
    "--batches/--at-once",
    "batches",
    default=None,
    help="Protect tables while applications work, in batches, or in one transaction that locks"
    f" them. By default in batches from {LARGE:,} rows on.",
)
@dry_run_option
@yes_option
def apply(dsn: str | None, file: Path, batches: bool | None, dry_run: bool, yes: bool) -> None:
    """Bring the database to the policy in FILE.

    Shows the plan first. Applied again, the same policy changes nothing. Large tables are
    protected in batches while applications work: stopped at any point, the same command goes on.

    Example:

        gdprdb policy apply policy.toml --yes

        gdprdb policy apply policy.toml --batches
    """
    with database(dsn) as connection:
        steps = _outline(fetched(policies.plan(connection, file)))
        if steps.rows:
            ahead = fetched(policies.estimate(connection, file))
            _foresee(ahead)
            (unfinished,) = one(connection, "select exists (select from gdpr.enabling)")
    if not steps.rows:
        say("The database follows this policy: nothing to do.")
    elif go_ahead(steps, "Apply?", dry_run=dry_run, yes=yes):
        if batches is None:
            batches = unfinished or any(row["rows"] >= LARGE for row in _batched(ahead))
        with database(dsn) as connection:
            if batches:
                done = _in_batches(connection, file)
            else:
                done = len(policies.apply(connection, file).fetchall())
        say(f"Applied: {done} steps.")


def _in_batches(connection: psycopg.Connection, file: Path) -> int:
    """Apply a policy step by step, each in a transaction of its own, with bars."""
    connection.commit()
    connection.autocommit = True
    with following() as (line, move):

        def watch(what: enabling.Step | enabling.Progress) -> None:
            if isinstance(what, enabling.Step):
                line(f"{what.object}: {what.action}")
            else:
                move(f"{what.step.object}: {what.step.action}", what.block, what.blocks)

        try:
            return enabling.run(connection, policies.document(file), watch)
        except KeyboardInterrupt:
            say("Stopped. Nothing is lost: the same command goes on.")
            raise


def _batched(ahead: Rows) -> list[dict[str, Any]]:
    """The estimates of tables that can be protected in batches."""
    rows = [dict(zip(ahead.columns, row, strict=True)) for row in ahead.rows]
    return [row for row in rows if row["method"] == "batches"]


def _foresee(ahead: Rows) -> None:
    """Tell people what protecting each table will take, where that is worth a word."""
    for values in ahead.rows:
        row = dict(zip(ahead.columns, values, strict=True))
        if row["rows"] < WORTH_A_WORD:
            continue
        seconds = row["seconds"]
        say(
            f"{row['object']}: about {row['rows']:,} rows, "
            + ("time unknown (the key is locked)" if seconds is None else f"{_period(seconds)}")
            + f", {_size(row['room'])} more on the disk, {_size(row['wal'])} of WAL; "
            + (
                "in batches, while applications work"
                + (f" ({row['reason']})" if row["reason"] else "")
                if row["method"] == "batches"
                else f"locked all the time ({row['reason']})"
            )
            + "."
        )


def _period(seconds: int) -> str:
    return f"{seconds} s" if seconds < MINUTES else f"{round(seconds / 60)} minutes"


def _size(size: int) -> str:
    units = iter(["B", "kB", "MB", "GB"])
    number, unit = float(size), next(units)
    while number >= KILO and unit != "GB":
        number, unit = number / KILO, next(units)
    return f"{number:.0f} {unit}" if number >= TENS else f"{number:.1f} {unit}"


@policy.command()
@dsn_option
@file_argument
@output
def check(dsn: str | None, file: Path) -> Rows:
    """Check that FILE is valid and in force; exit code 3 if something would change.

    For a scheduled job that looks for drift: prints the steps that are missing.

    Example:

        gdprdb policy check policy.toml
    """
    with database(dsn) as connection:
        steps = _outline(fetched(policies.plan(connection, file)))
    return Rows(steps.columns, steps.rows, exit_code=FINDINGS if steps.rows else 0)


@policy.command()
@dsn_option
def show(dsn: str | None) -> None:
    """Print the policy now in force, as JSON of the same shape as the file.

    Example:

        gdprdb policy show | jq .tables
    """
    with database(dsn) as connection:
        (document,) = one(connection, "select gdpr.policy()")
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


@policy.command()
@dsn_option
@click.argument("table")
@click.argument("file", type=click.File(encoding="utf-8"), required=False)
@click.option(
    "-c",
    "--command",
    "commands",
    multiple=True,
    metavar="SQL",
    help="A statement, instead of FILE or after it; may be given several times.",
)
@click.option(
    "--lock-timeout",
    default="5s",
    show_default=True,
    help="How long to wait for the application, which waits behind this.",
)
@dry_run_option
@yes_option
def reshape(
    dsn: str | None,
    table: str,
    file: TextIO | None,
    commands: tuple[str, ...],
    lock_timeout: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Change a protected TABLE by the DDL in FILE (- for standard input), in one transaction.

    TABLE is named as in the policy, or quoted as in SQL. Its controls are taken off and put back;
    renamed columns are followed, new ones hidden until the policy names them. Without any
    statement it follows what plain DDL did to the table. Shows first what changes, by doing it and
    taking it back.

    Example:

        gdprdb policy reshape public.customer -c "alter table customer add nickname text"
    """
    statements = ([file.read()] if file else []) + list(commands)

    def change(*, keep: bool) -> Rows:
        with database(dsn) as connection:
            connection.execute("select set_config('lock_timeout', %s, true)", [lock_timeout])
            changes = fetched(policies.reshape(connection, table, statements))
            if not keep:
                connection.rollback()
            return changes

    changes = change(keep=yes and not dry_run)
    if yes and not dry_run:
        show_rows(changes)
    elif go_ahead(changes, "Change the table?", dry_run=dry_run, yes=yes):
        change(keep=True)
    else:
        return
    say("The table is changed, and its controls are back.")


def _outline(steps: Rows) -> Rows:
    """A plan for people: without the statements, which can be long."""
    shown = [name for name in steps.columns if name != "statement"]
    places = [steps.columns.index(name) for name in shown]
    return Rows(shown, [[row[place] for place in places] for row in steps.rows])
