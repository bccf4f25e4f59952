"""``gdprdb doctor``: whether the protection still stands."""

from __future__ import annotations

import rich_click as click

from gdprdb.cli.options import database, dsn_option
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.errors import FINDINGS


@click.command()
@dsn_option
@output
def doctor(dsn: str | None) -> Rows:
    """Look for everything that would let data past the rules; exit code 3 on findings.

    Findings of severity info are shown, and do not count.

    Example:

        gdprdb doctor --format jsonl
    """
    with database(dsn) as connection:
        found = fetched(connection.execute("select * from gdpr.doctor()"))
    severity = found.columns.index("severity")
    serious = [row for row in found.rows if row[severity] != "info"]
    if not serious:
        say("The doctor found nothing wrong.")
    return Rows(found.columns, found.rows, exit_code=FINDINGS if serious else 0)
