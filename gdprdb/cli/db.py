"""``gdprdb db``: gdprdb itself in a database."""

from __future__ import annotations

import rich_click as click

from gdprdb import dsn as dsns
from gdprdb import migrate
from gdprdb.cli.options import dry_run_option, dsn_option, go_ahead, yes_option
from gdprdb.cli.output import Rows, output, say
from gdprdb.errors import WRONG_RELEASE, WrongReleaseError

lock_timeout_option = click.option(
    "--lock-timeout",
    default=migrate.LOCK_TIMEOUT,
    show_default=True,
    help="How long a statement waits for a lock of the application before it gives up.",
)


@click.group()
def db() -> None:
    """Install, upgrade and remove gdprdb in a database.

    Example:

        gdprdb db init --dsn postgresql://owner@localhost/crm
    """


@db.command()
@dsn_option
@lock_timeout_option
def init(dsn: str | None, lock_timeout: str) -> None:
    """Install gdprdb, as the owner of the database with CREATEROLE.

    Makes the roles and schemas; no table of yours is touched before a policy is applied.

    Example:

        gdprdb db init && gdprdb keys create
    """
    migrate.init(dsns.resolve(dsn), lock_timeout=lock_timeout)
    with dsns.connect(dsn) as connection:
        found = migrate.status(connection)
    say(f"gdprdb {found.installed} is installed in {found.database}.")
    say("Next: gdprdb keys create, then gdprdb policy apply FILE.")


@db.command()
@dsn_option
@lock_timeout_option
@click.option("--to", "release", default="head", show_default=True, help="The release to come to.")
def upgrade(dsn: str | None, lock_timeout: str, release: str) -> None:
    """Bring the database to this program's release.

    Example:

        gdprdb db upgrade --lock-timeout 2s
    """
    with dsns.connect(dsn) as connection:
        before = migrate.status(connection)
    if before.installed is None:
        raise WrongReleaseError(
            f"gdprdb is not installed in the database {before.database}",
            hint="Install it: gdprdb db init.",
        )
    migrate.upgrade(dsns.resolve(dsn), release, lock_timeout=lock_timeout)
    with dsns.connect(dsn) as connection:
        after = migrate.status(connection)
    if after.installed == before.installed:
        say(f"{after.database} is at release {after.installed}: nothing to do.")
    else:
        say(f"{after.database}: release {before.installed} became {after.installed}.")


@db.command()
@dsn_option
@lock_timeout_option
@click.option("--to", "release", required=True, help="The release to go back to, or base for none.")
@dry_run_option
@yes_option
def downgrade(dsn: str | None, lock_timeout: str, release: str, dry_run: bool, yes: bool) -> None:
    """Take the database back to an earlier release. Evidence is kept.

    Example:

        gdprdb db downgrade --to base
    """
    with dsns.connect(dsn) as connection:
        found = migrate.status(connection)
    plan = Rows(["database", "from", "to"], [(found.database, found.installed, release)])
    if go_ahead(plan, "Go back?", dry_run=dry_run, yes=yes):
        migrate.downgrade(dsns.resolve(dsn), release, lock_timeout=lock_timeout)
        say("Done.")


@db.command()
@dsn_option
@output
def status(dsn: str | None) -> Rows:
    """Show the installed release beside this program's; exit code 5 if they differ.

    Whereabouts: home, or restored (processing is refused), promoted, copy.

    Example:

        gdprdb db status --format json
    """
    with dsns.connect(dsn) as connection:
        found = migrate.status(connection)
    return Rows(
        ["database", "installed", "program", "protected_tables", "whereabouts"],
        [
            (
                found.database,
                found.installed,
                found.program,
                found.protected_tables,
                found.whereabouts,
            )
        ],
        exit_code=0 if found.current else WRONG_RELEASE,
    )


@db.command("sql")
@click.option("--from", "start", default="base", show_default=True, help="The release it is at.")
@click.option("--to", "end", default="head", show_default=True, help="The release to come to.")
@lock_timeout_option
def script(start: str, end: str, lock_timeout: str) -> None:
    """Print the statements of an upgrade or a downgrade as a script for psql.

    Needs no database. The script is one transaction, and refuses a database at another release.

    Example:

        gdprdb db sql | psql -X crm
    """
    click.echo(migrate.script(start, end, lock_timeout=lock_timeout), nl=False)


@db.command()
@dsn_option
@dry_run_option
@yes_option
def uninstall(dsn: str | None, dry_run: bool, yes: bool) -> None:
    """Remove gdprdb with all its evidence. Refused while tables are protected.

    Example:

        gdprdb db uninstall --dry-run
    """
    with dsns.connect(dsn) as connection:
        plan = Rows(["drop", "name"], migrate.uninstall_plan(connection))
    if not plan.rows:
        say("gdprdb is not installed here: nothing to do.")
    elif go_ahead(plan, "Drop all this?", dry_run=dry_run, yes=yes):
        with dsns.connect(dsn) as connection:
            migrate.uninstall(connection)
        say("gdprdb is removed.")
