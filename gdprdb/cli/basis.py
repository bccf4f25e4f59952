"""``gdprdb basis``: on what grounds a person's data may be used."""

from __future__ import annotations

import datetime

import rich_click as click

from gdprdb.cli.options import (
    database,
    dsn_option,
    kind_option,
    moment,
    purpose_option,
    reason_option,
    subject_id_option,
    the_subject,
)
from gdprdb.cli.output import Rows, fetched, output, say


@click.group()
def basis() -> None:
    """Record, end and list lawful bases other than consent.

    Example:

        gdprdb basis list --subject-id 42
    """


@basis.command()
@dsn_option
@subject_id_option
@kind_option
@purpose_option
@click.option(
    "--basis",
    "ground",
    required=True,
    type=click.Choice(
        [
            "contract",
            "legal_obligation",
            "vital_interests",
            "public_task",
            "legitimate_interests",
        ]
    ),
    help="Art. 6(1) GDPR, letters b to f.",
)
@reason_option
@click.option("--valid-until", callback=moment, help="When it ends (ISO 8601); else open.")
@click.option("--assessment", type=int, help="Number of the legitimate-interests assessment.")
@output
def record(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    purpose: str,
    ground: str,
    reason: str,
    valid_until: datetime.datetime | None,
    assessment: int | None,
) -> Rows:
    """Record a lawful basis for one person and purpose; prints its number.

    Example:

        gdprdb basis record --subject-id 42 --purpose orders --basis contract --reason 'order 1001'
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute(
                "select gdpr.record_basis(p_subject => %s, p_purpose => %s, p_basis => %s,"
                " p_reason => %s, p_valid_until => %s, p_assessment => %s) as basis_id",
                [person, purpose, ground, reason, valid_until, assessment],
            )
        )


@basis.command()
@dsn_option
@click.argument("basis_id", type=int)
@reason_option
def end(dsn: str | None, basis_id: int, reason: str) -> None:
    """End a lawful basis from now on.

    Example:

        gdprdb basis end 7 --reason 'contract terminated'
    """
    with database(dsn) as connection:
        connection.execute("select gdpr.end_basis(%s, %s)", [basis_id, reason])
    say("Ended.")


@basis.command("list")
@dsn_option
@subject_id_option
@kind_option
@output
def list_(dsn: str | None, subject_id: int | None, kind: str) -> Rows:
    """List a person's lawful bases.

    Example:

        gdprdb basis list --subject-id 42 --format json
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute("select * from gdpr.basis where subject_id = %s", [person])
        )
