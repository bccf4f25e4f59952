"""``gdprdb guard``: nobody weakens what protects tables, outside a maintenance window."""

from __future__ import annotations

import datetime

import rich_click as click

from gdprdb import guard as guards
from gdprdb.cli.options import database, dry_run_option, dsn_option, go_ahead, moment, yes_option
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.dsn import one
from gdprdb.errors import FINDINGS

#: How long a window stays open where nobody says.
_HOUR = datetime.timedelta(hours=1)


@click.group()
def guard() -> None:
    """Refuse statements that weaken what protects tables, but in a maintenance window.

    Without the guard the doctor and the next seal of the audit report them.

    Example:

        gdprdb guard status
    """


@guard.command()
@dsn_option
def install(dsn: str | None) -> None:
    """Install the guard, or put it right where it stands; as a superuser.

    Example:

        gdprdb guard install --dsn "dbname=crm user=postgres"
    """
    with database(dsn) as connection:
        guards.install(connection)
    say("The guard stands.")


@guard.command()
@dsn_option
@dry_run_option
@yes_option
def remove(dsn: str | None, dry_run: bool, yes: bool) -> None:
    """Take the guard away, on record; as a superuser. Before gdprdb is uninstalled.

    Example:

        gdprdb guard remove --yes --dsn "dbname=crm user=postgres"
    """
    plan = Rows(
        ["drop", "name"],
        [("event trigger", "gdpr_guard_end, gdpr_guard_drop"), ("schema", "gdpr_guard")],
    )
    if go_ahead(plan, "Take the guard away?", dry_run=dry_run, yes=yes):
        with database(dsn) as connection:
            guards.remove(connection)
        say("The guard is gone.")


@guard.command()
@dsn_option
@output
def status(dsn: str | None) -> Rows:
    """Show whether the guard stands, and the window that is open.

    Example:

        gdprdb guard status --format json
    """
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.guard"))


@guard.command("open")
@dsn_option
@click.option("--reason", required=True, help="Why, without personal data.")
@click.option(
    "--until",
    callback=moment,
    help="When it ends by itself (ISO 8601), within a day; without it, in an hour.",
)
def open_(dsn: str | None, reason: str, until: datetime.datetime | None) -> None:
    """Open a maintenance window, on record; as an officer.

    Example:

        gdprdb guard open --reason "ticket 4711: the archive table moves"
    """
    until = until or datetime.datetime.now().astimezone() + _HOUR
    with database(dsn) as connection:
        (number,) = one(connection, "select gdpr.open_maintenance(%s, %s)", [reason, until])
    say(f"Window {number} is open until {until.isoformat(timespec='minutes')}.")


@guard.command()
@dsn_option
@output
def close(dsn: str | None) -> Rows:
    """Close the window before its time; exit code 3 if something was left weaker.

    Example:

        gdprdb guard close
    """
    with database(dsn) as connection:
        left = fetched(connection.execute("select * from gdpr.close_maintenance()"))
    if left.rows:
        say("Weaker than the policy left it; gdprdb policy apply mends it:")
    else:
        say("The window is closed, and everything is as the policy left it.")
    return Rows(left.columns, left.rows, exit_code=FINDINGS if left.rows else 0)


@guard.command("sql")
@click.argument("name", type=click.Choice(["install", "remove"]))
def sql(name: str) -> None:
    """Print the statements that install the guard or take it away, for psql.

    Example:

        gdprdb guard sql install | psql -X -1 -U postgres crm
    """
    click.echo(guards.script(name), nl=False)
