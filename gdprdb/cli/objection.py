"""``gdprdb objection``: what persons object to, and what was decided about it."""

from __future__ import annotations

import psycopg
import rich_click as click
from psycopg.types.json import Jsonb

from gdprdb.cli.options import (
    database,
    details_option,
    dry_run_option,
    dsn_option,
    kind_option,
    purpose_option,
    request_option,
    subject_id_option,
    the_subject,
)
from gdprdb.cli.output import Rows, fetched, output

STANDING = (
    "select objection_id, subject_id, purpose, status, ground, request_id, lifting_announced,"
    " recorded_at, decided_at, decided_by from gdpr.objection"
)


@click.group()
def objection() -> None:
    """Record objections, decide about those that have to be weighed, show where they stand.

    Example:

        gdprdb objection list --status pending
    """


@objection.command()
@dsn_option
@subject_id_option
@kind_option
@purpose_option
@details_option
@request_option
@dry_run_option
@output
def record(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    purpose: str,
    details: Jsonb | None,
    dry_run: bool,
) -> Rows:
    """Close a purpose for a person who objects: for good, or until it is decided.

    For good: direct marketing, and what rests on consent. Until decided: legitimate interests and
    public tasks (status pending).

    Example:

        gdprdb objection record --subject-id 42 --purpose analytics
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        person = the_subject(connection, subject_id, kind)
        connection.execute("select gdpr.object_to(%s, %s, %s)", [person, purpose, details])
        return _last(connection, person, purpose)


@objection.command()
@dsn_option
@subject_id_option
@kind_option
@purpose_option
@click.option(
    "--decision",
    required=True,
    type=click.Choice(["upheld", "overridden", "taken_back"]),
    help="overridden wants --ground, and the person told: gdprdb restriction announce.",
)
@click.option(
    "--ground",
    type=click.Choice(["compelling_grounds", "legal_claims", "public_interest_task"]),
    help="What overrides (Art. 21(1), 21(6)).",
)
@details_option
@request_option
@dry_run_option
@output
def decide(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    purpose: str,
    decision: str,
    ground: str | None,
    details: Jsonb | None,
    dry_run: bool,
) -> Rows:
    """Decide about an objection, or record that the person takes it back.

    Unless it is upheld, --details show the grounds, or how it was taken back.

    Example:

        gdprdb objection decide --subject-id 42 --purpose analytics --decision upheld
    """
    with database(dsn, dry_run=dry_run, done="Decided.") as connection:
        person = the_subject(connection, subject_id, kind)
        connection.execute(
            "select gdpr.decide_objection(%s, %s, %s, %s, %s)",
            [person, purpose, decision, ground, details],
        )
        return _last(connection, person, purpose)


@objection.command("list")
@dsn_option
@click.option("--subject-id", type=int, help="Of one person.")
@click.option(
    "--status",
    type=click.Choice(["pending", "upheld", "overridden", "taken_back"]),
    help="pending: somebody has to decide.",
)
@output
def list_(dsn: str | None, subject_id: int | None, status: str | None) -> Rows:
    """List objections, the newest first.

    Example:

        gdprdb objection list --status pending
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                STANDING + " where (%(who)s::bigint is null or subject_id = %(who)s)"
                " and (%(status)s::text is null or status = %(status)s)"
                " order by objection_id desc",
                {"who": subject_id, "status": status},
            )
        )


def _last(connection: psycopg.Connection, person: int, purpose: str) -> Rows:
    """Where a person's last objection to a purpose stands."""
    return fetched(
        connection.execute(
            STANDING + " where subject_id = %s and purpose = %s order by objection_id desc limit 1",
            [person, purpose],
        )
    )
