"""``gdprdb restriction``: processing that is restricted, what is excepted from it, and its end."""

from __future__ import annotations

import datetime

import psycopg
import rich_click as click
from psycopg.types.json import Jsonb

from gdprdb.cli.options import (
    database,
    day_or_moment,
    details_option,
    document,
    dry_run_option,
    dsn_option,
    end_of,
    kind_option,
    purpose_option,
    reason_option,
    request_option,
    subject_id_option,
    the_subject,
)
from gdprdb.cli.output import Rows, fetched, output
from gdprdb.dsn import one


@click.group()
def restriction() -> None:
    """Restrict processing of a person's data, allow exceptions, tell the person, lift it.

    Example:

        gdprdb restriction list --standing
    """


@restriction.command()
@dsn_option
@subject_id_option
@kind_option
@click.option(
    "--ground",
    required=True,
    type=click.Choice(
        [
            "accuracy_contested",
            "unlawful_processing",
            "legal_claims",
            "objection_pending",
            "other",
        ]
    ),
    help="Art. 18(1)(a) to (d); other: your own caution.",
)
@request_option
@dry_run_option
@output
def place(dsn: str | None, subject_id: int | None, kind: str, ground: str, dry_run: bool) -> Rows:
    """Hide a person from every purpose but compliance, from the next statement on.

    Example:

        gdprdb restriction place --subject-id 42 --ground accuracy_contested
    """
    with database(dsn, dry_run=dry_run, done="Restricted.") as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute(
                "select gdpr.restrict(%s, %s) as restriction_id, %s::bigint as subject_id",
                [person, ground, person],
            )
        )


@restriction.command("list")
@dsn_option
@click.option("--subject-id", type=int, help="Of one person.")
@click.option("--standing", is_flag=True, help="Those that were not lifted.")
@output
def list_(dsn: str | None, subject_id: int | None, standing: bool) -> Rows:
    """List restrictions, the newest first: why, since when, whether the person was told.

    Example:

        gdprdb restriction list --standing --format csv
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select restriction_id, subject_id, ground, recorded_at as since,"
                " lifting_announced, ended_at, end_reason from gdpr.restriction"
                " where (%(who)s::bigint is null or subject_id = %(who)s)"
                " and (not %(standing)s or ended_at is null) order by restriction_id desc",
                {"who": subject_id, "standing": standing},
            )
        )


@restriction.command()
@dsn_option
@subject_id_option
@kind_option
@click.option(
    "--channel",
    type=click.Choice(["email", "post", "phone", "in_person"]),
    default="email",
    show_default=True,
    help="email: a mail to the address in the tables; else --evidence says how they were told.",
)
@click.option(
    "--evidence",
    callback=document,
    help='As JSON: {"who", "when", "how", "reference"}; kept encrypted.',
)
@dry_run_option
@output
def announce(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    channel: str,
    evidence: Jsonb | None,
    dry_run: bool,
) -> Rows:
    """Tell a person that restrictions, and objections being examined, are going to end.

    Before that nothing lifts them (Art. 18(3)).

    Example:

        gdprdb restriction announce --subject-id 42
    """
    with database(dsn, dry_run=dry_run) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute(
                "select gdpr.announce_lifting(%s, %s, %s) as announced", [person, channel, evidence]
            )
        )


@restriction.command()
@dsn_option
@subject_id_option
@kind_option
@reason_option
@request_option
@dry_run_option
@output
def lift(dsn: str | None, subject_id: int | None, kind: str, reason: str, dry_run: bool) -> Rows:
    """Lift all restrictions of a person. Who was not told gets a mail first.

    Example:

        gdprdb restriction lift --subject-id 42 --reason 'address checked and corrected'
    """
    with database(dsn, dry_run=dry_run) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute("select gdpr.lift_restriction(%s, %s) as lifted", [person, reason])
        )


@restriction.command("except")
@dsn_option
@subject_id_option
@kind_option
@purpose_option
@click.option(
    "--ground",
    required=True,
    type=click.Choice(["consent", "legal_claims", "rights_of_others", "public_interest"]),
    help="Art. 18(2); consent: given to this purpose since the restriction.",
)
@click.option(
    "--until",
    required=True,
    callback=day_or_moment,
    help="A day, whose end in the policy's time zone counts, or a time (ISO 8601).",
)
@details_option
@dry_run_option
@output
def except_(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    purpose: str,
    ground: str,
    until: datetime.date | datetime.datetime,
    details: Jsonb | None,
    dry_run: bool,
) -> Rows:
    """Let one purpose work with a restricted person, on a ground of the law, until a day.

    All but consent want --details: which claim, whose rights, which interest.

    Example:

        gdprdb restriction except --subject-id 42 --purpose orders --ground legal_claims
        --until 2027-12-31 --details '{"claim": "3 O 17/26"}'
    """
    with database(dsn, dry_run=dry_run, done="Excepted.") as connection:
        person = the_subject(connection, subject_id, kind)
        (number,) = one(
            connection,
            "select gdpr.except_from_restriction(%s, %s, %s, %s, %s)",
            [person, purpose, ground, end_of(connection, until), details],
        )
        return _exception(connection, number)


@restriction.command("end-exception")
@dsn_option
@click.option("--id", "number", type=int, required=True, help="Its number in the list.")
@reason_option
@dry_run_option
@output
def end_exception(dsn: str | None, number: int, reason: str, dry_run: bool) -> Rows:
    """End an exception before its time.

    Example:

        gdprdb restriction end-exception --id 7 --reason 'the claim was settled'
    """
    with database(dsn, dry_run=dry_run, done="Ended.") as connection:
        connection.execute("select gdpr.end_exception(%s, %s)", [number, reason])
        return _exception(connection, number)


def _exception(connection: psycopg.Connection, number: int) -> Rows:
    """Where an exception stands."""
    return fetched(
        connection.execute(
            "select exception_id, subject_id, purpose, ground, valid_until, end_reason"
            " from gdpr.restriction_exception where exception_id = %s",
            [number],
        )
    )


@restriction.command()
@dsn_option
@click.option("--subject-id", type=int, help="Of one person.")
@output
def exceptions(dsn: str | None, subject_id: int | None) -> Rows:
    """List exceptions from restrictions, the newest first, with who allowed them.

    Example:

        gdprdb restriction exceptions --subject-id 42
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select * from gdpr.restriction_exception"
                " where %(who)s::bigint is null or subject_id = %(who)s order by exception_id desc",
                {"who": subject_id},
            )
        )
