"""``gdprdb keys``: the key that all other keys are wrapped with."""

from __future__ import annotations

import rich_click as click

from gdprdb.cli.options import database, dsn_option
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.dsn import one


@click.group()
def keys() -> None:
    """Create the key-encryption key, and see how it is kept.

    Example:

        gdprdb keys status
    """


@keys.command()
@dsn_option
@click.option(
    "--provider",
    type=click.Choice(["table", "session"]),
    default="table",
    show_default=True,
    help="Where it is kept: in a table of the database (for development), or with you, "
    "to be given in each session.",
)
def create(dsn: str | None, provider: str) -> None:
    """Create the key-encryption key. With --provider session it is printed, once.

    A key that is lost makes all encrypted data unreadable for ever.

    Example:

        gdprdb keys create --provider session > /run/secrets/gdprdb.key
    """
    with database(dsn) as connection:
        (key,) = one(connection, "select gdpr.create_key(%s)", [provider])
    if provider == "session":
        say("Keep this key: it is shown once. Sessions give it to gdpr.unlock().")
        click.echo(key)
    else:
        say("A key was created in the database: for development, not for production.")


@keys.command()
@dsn_option
@output
def status(dsn: str | None) -> Rows:
    """Show which keys there are and how they are kept, never the keys.

    Example:

        gdprdb keys status --format json
    """
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.key_status"))
