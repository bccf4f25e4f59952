"""``gdprdb policy``: what is protected, for whom and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

import rich_click as click

from gdprdb import policy as policies
from gdprdb.cli.options import database, dry_run_option, dsn_option, go_ahead, yes_option
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.cli.output import show as show_rows
from gdprdb.dsn import one
from gdprdb.errors import FINDINGS

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

    Example:

        gdprdb policy plan policy.toml --format json
    """
    with database(dsn) as connection:
        return fetched(policies.plan(connection, file))


@policy.command()
@dsn_option
@file_argument
@dry_run_option
@yes_option
def apply(dsn: str | None, file: Path, dry_run: bool, yes: bool) -> None:
    """Bring the database to the policy in FILE, in one transaction.

    Shows the plan first. Applied again, the same policy changes nothing.

    Example:

        gdprdb policy apply policy.toml --yes
    """
    with database(dsn) as connection:
        steps = _outline(fetched(policies.plan(connection, file)))
    if not steps.rows:
        say("The database follows this policy: nothing to do.")
    elif go_ahead(steps, "Apply?", dry_run=dry_run, yes=yes):
        with database(dsn) as connection:
            done = len(policies.apply(connection, file).fetchall())
        say(f"Applied: {done} steps.")


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

    Its controls are taken off and put back; renamed columns are followed, new ones hidden until
    the policy names them. Without any statement it follows what plain DDL did to the table. Shows
    first what changes, by doing it and taking it back.

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
