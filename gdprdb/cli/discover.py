"""``gdprdb discover``: where personal data are, and how a policy would protect them."""

from __future__ import annotations

from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from gdprdb.cli.options import database, dsn_option
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.drafts import Finding, draft
from gdprdb.dsn import one
from gdprdb.errors import GdprdbError

#: What people see: not the definition, which says the same once more.
SHOWN = (
    "table_name, column_name, category, identifier, special, sensitive, encrypt, mask,"
    " confidence, reason"
)


@click.command()
@dsn_option
@click.option(
    "--sample",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Rows of each table that are looked at; 0: names, types and comments only.",
)
@click.option(
    "--write",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a policy file, with the reasons as comments, and print nothing."
    " - is standard output.",
)
@output
def discover(dsn: str | None, sample: int, file: Path | None) -> Rows:
    """Find tables and columns that hold personal data, and propose a policy.

    Looks at names, types, comments and a sample of values of every table that you may read
    and no policy protects. Reads only; values do not leave the database, and are in no
    error and no log.

    Example:

        gdprdb discover

        gdprdb discover --write policy.toml
    """
    if file is not None and file.exists():
        raise GdprdbError(f"{file} exists: name another file, or move it away")
    with database(dsn) as connection:
        connection.execute("set transaction read only")
        if file is None:
            return fetched(
                connection.execute(f"select {SHOWN} from gdpr.discover(%s)".encode(), [sample])
            )
        found = [
            Finding(*row)
            for row in connection.execute(
                "select table_name, column_name, confidence, reason, definition"
                " from gdpr.discover(%s)",
                [sample],
            )
        ]
        (added,) = one(connection, "select exists (select from gdpr.protected_table)")
    text = draft(found, added=added)
    if str(file) == "-":
        click.echo(text, nl=False)
        raise Exit(0)
    file.write_text(text, encoding="utf-8")
    tables = [row for row in found if row.column is None]
    unsure = sum(row.confidence == "low" for row in found)
    say(
        f"{file}: {len(tables)} tables, {len(found) - len(tables)} columns;"
        f" {unsure} lines are yours to decide."
    )
    say(f"Next: read it, then gdprdb policy plan {file}")
    raise Exit(0)
