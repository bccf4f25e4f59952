"""``gdprdb policy``: what is protected, for whom and why."""

from __future__ import annotations

import json
from pathlib import Path

import rich_click as click

from gdprdb import policy as policies
from gdprdb.cli.options import database, dry_run_option, dsn_option, go_ahead, yes_option
from gdprdb.cli.output import Rows, fetched, output, say
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


def _outline(steps: Rows) -> Rows:
    """A plan for people: without the statements, which can be long."""
    shown = [name for name in steps.columns if name != "statement"]
    places = [steps.columns.index(name) for name in shown]
    return Rows(shown, [[row[place] for place in places] for row in steps.rows])
