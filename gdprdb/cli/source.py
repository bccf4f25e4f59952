"""``gdprdb source``: where personal data came from."""

from __future__ import annotations

import rich_click as click

from gdprdb.cli.options import (
    database,
    dsn_option,
    kind_option,
    subject_id_option,
    table_option,
    the_subject,
)
from gdprdb.cli.output import Rows, fetched, output


@click.group()
def source() -> None:
    """Show where personal data came from (Art. 14(2)(f), Art. 15(1)(g)).

    Example:

        gdprdb source show --table customer --key 17
    """


@source.command()
@dsn_option
@table_option("The table.", required=True)
@click.option(
    "--key",
    required=True,
    help="The row's primary key; of several columns a JSON array of texts.",
)
@output
def show(dsn: str | None, table: str, key: str) -> Rows:
    """Show where a row came from: its creation, and its last change that told.

    Example:

        gdprdb source show --table crm.customer --key 17 --format json
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select * from gdpr.source_of(gdpr.table_named(%s), %s)", [table, key]
            )
        )


@source.command("list")
@dsn_option
@subject_id_option
@kind_option
@output
def list_(dsn: str | None, subject_id: int | None, kind: str) -> Rows:
    """List every source of a person's data, in the order they came.

    Example:

        gdprdb source list --subject-id 42
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select table_name::text, event, kind, details, actor, recorded_at"
                " from gdpr.source where subject_id = %s order by id",
                [the_subject(connection, subject_id, kind)],
            )
        )
