"""``gdprdb server``: a private PostgreSQL server, for trying things out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from gdprdb.cli.options import dry_run_option, go_ahead, yes_option
from gdprdb.cli.output import Rows, output, say
from gdprdb.errors import FAILED, GdprdbError
from gdprdb.server import Cluster, default_directory

directory_option = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="GDPRDB_SERVER",
    show_envvar=True,
    default=default_directory,
    help="Where the server keeps its data; by default in the user's data directory.",
)


@click.group()
def server() -> None:
    """Run a PostgreSQL server of your own: no TCP port, reachable by you alone.

    Example:

        gdprdb server start && gdprdb server psql
    """


@server.command()
@directory_option
def start(directory: Path) -> None:
    """Start the server, making its data directory the first time; prints how to connect.

    Example:

        export GDPRDB_DSN="$(gdprdb server start)"
    """
    cluster = Cluster(directory)
    cluster.start()
    say(f"PostgreSQL {cluster.binaries.version} is running in {directory}.")
    click.echo(cluster.dsn())


@server.command()
@directory_option
def stop(directory: Path) -> None:
    """Stop the server; its data stay.

    Example:

        gdprdb server stop
    """
    cluster = Cluster(directory)
    was_running = cluster.is_running()
    cluster.stop()
    say("The server is stopped." if was_running else "The server was not running.")


@server.command()
@directory_option
@dry_run_option
@yes_option
def remove(directory: Path, dry_run: bool, yes: bool) -> None:
    """Stop the server and delete its data.

    Example:

        gdprdb server remove --directory /tmp/gdprdb-try
    """
    plan = Rows(["delete"], [(str(directory),)])
    if go_ahead(plan, "Delete all databases of this server?", dry_run=dry_run, yes=yes):
        Cluster(directory).remove()
        say("The server is gone.")


@server.command()
@directory_option
@output
def status(directory: Path) -> Rows:
    """Show whether the server runs, and how to connect; exit code 1 if it does not.

    Example:

        gdprdb server status --format json
    """
    cluster = Cluster(directory)
    running = cluster.is_running()
    return Rows(
        ["directory", "running", "version", "dsn"],
        [
            (
                str(directory),
                running,
                cluster.binaries.version if running else None,
                cluster.dsn() if running else None,
            )
        ],
        exit_code=0 if running else FAILED,
    )


@server.command(context_settings={"ignore_unknown_options": True})
@directory_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(directory: Path, arguments: tuple[str, ...]) -> None:
    """Open psql on the server; further arguments are psql's.

    Example:

        gdprdb server psql -c 'select version()'
    """
    cluster = Cluster(directory)
    if not cluster.is_running():
        raise GdprdbError("the server is not running", hint="Start it: gdprdb server start.")
    if not cluster.binaries.has("psql"):
        raise GdprdbError("this PostgreSQL comes without psql")
    program = cluster.binaries.program("psql")
    done = subprocess.run([program, cluster.dsn(), *arguments], check=False)
    raise Exit(done.returncode)
