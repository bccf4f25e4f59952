"""``gdprdb request``: what persons ask for, and the answer in time."""

from __future__ import annotations

import datetime
from typing import Any

import psycopg
import rich_click as click
from psycopg import sql
from psycopg.types.json import Jsonb

from gdprdb.cli.options import (
    database,
    details_option,
    dry_run_option,
    dsn_option,
    kind_option,
    moment,
    subject_id_option,
    the_subject,
)
from gdprdb.cli.output import Rows, fetched, output
from gdprdb.dsn import one

request_argument = click.argument("number", type=int)


@click.group()
def request() -> None:
    """Receive requests of persons, move them on, close them; see what is due.

    Example:

        gdprdb request board
    """


@request.command("open")
@dsn_option
@click.argument(
    "right",
    metavar="KIND",
    type=click.Choice(
        [
            "access",
            "rectification",
            "portability",
            "restriction",
            "objection",
            "erasure",
            "withdrawal",
        ]
    ),
)
@subject_id_option
@kind_option
@click.option("--unknown", is_flag=True, help="Nobody knows yet who asks; see request verify.")
@click.option(
    "--channel",
    default="office",
    show_default=True,
    help="How it came: office, portal, email, post, phone, in_person.",
)
@click.option(
    "--received-at",
    callback=moment,
    help="When it came, ISO 8601; local time where no zone is given. Else now.",
)
@details_option
@dry_run_option
@output
def open_(
    dsn: str | None,
    right: str,
    subject_id: int | None,
    kind: str,
    unknown: bool,
    channel: str,
    received_at: datetime.datetime | None,
    details: Jsonb | None,
    dry_run: bool,
) -> Rows:
    """Record a request, and show until when it has to be answered.

    Example:

        gdprdb request open access --subject-id 42 --channel post --received-at 2026-11-02
    """
    if unknown and subject_id is not None:
        raise click.UsageError("either --unknown or --subject-id")
    with database(dsn, dry_run=dry_run) as connection:
        person = None if unknown else the_subject(connection, subject_id, kind)
        (number,) = one(
            connection,
            "select gdpr.open_request(%s, %s, %s, coalesce(%s, statement_timestamp()), %s)",
            [right, person, channel, received_at, details],
        )
        return _standing(connection, number)


@request.command("list")
@dsn_option
@click.option("--subject-id", type=int, help="Of one person.")
@click.option("--state", help="received, identity_pending, open, extended, completed, ...")
@output
def list_(dsn: str | None, subject_id: int | None, state: str | None) -> Rows:
    """List requests, closed ones too, the newest first.

    Example:

        gdprdb request list --state refused --format csv
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select request_id, kind, subject_id, state, received_at, due_on, closed_at,"
                " outcome from gdpr.request where (%(person)s::bigint is null or subject_id ="
                " %(person)s) and (%(state)s::text is null or state = %(state)s)"
                " order by request_id desc",
                {"person": subject_id, "state": state},
            )
        )


@request.command()
@dsn_option
@request_argument
@output
def show(dsn: str | None, number: int) -> Rows:
    """Show every step of a request: what happened, when, by whom, and the new last day.

    Example:

        gdprdb request show 7
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select at, event, reason, due_on, facts, details, recorded_by, actor"
                " from gdpr.request_history where request_id = %s order by id",
                [number],
            )
        )


@request.command()
@dsn_option
@output
def board(dsn: str | None) -> Rows:
    """Show what is not closed, the most urgent first: days left, and what is missing.

    Example:

        gdprdb request board --format json
    """
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.request_board"))


@request.command("ask-identity")
@dsn_option
@request_argument
@details_option
@dry_run_option
@output
def ask_identity(dsn: str | None, number: int, details: Jsonb | None, dry_run: bool) -> Rows:
    """Record that the person was asked to prove who they are. The clock stands.

    Example:

        gdprdb request ask-identity 7
    """
    return _move(dsn, "ask_identity", number, details, dry_run=dry_run)


@request.command()
@dsn_option
@request_argument
@subject_id_option
@kind_option
@click.option("--known", is_flag=True, help="The request names the person already.")
@details_option
@dry_run_option
@output
def verify(
    dsn: str | None,
    number: int,
    subject_id: int | None,
    kind: str,
    known: bool,
    details: Jsonb | None,
    dry_run: bool,
) -> Rows:
    """Record that it is known who asks. The clock goes on.

    Example:

        gdprdb request verify 7 --subject-id 42
    """
    if known and subject_id is not None:
        raise click.UsageError("either --known or --subject-id")
    with database(dsn, dry_run=dry_run) as connection:
        person = None if known else the_subject(connection, subject_id, kind)
        connection.execute("select gdpr.verify_identity(%s, %s, %s)", [number, person, details])
        return _standing(connection, number)


@request.command()
@dsn_option
@request_argument
@click.option(
    "--reason", required=True, type=click.Choice(["complexity", "number_of_requests"]), help="Why."
)
@details_option
@dry_run_option
@output
def extend(dsn: str | None, number: int, reason: str, details: Jsonb | None, dry_run: bool) -> Rows:
    """Extend the time by two months, once, within the first. Tell the person why.

    Example:

        gdprdb request extend 7 --reason complexity
    """
    return _move(dsn, "extend_request", number, reason, details, dry_run=dry_run)


@request.command()
@dsn_option
@request_argument
@click.option("--ground", required=True, help="One of gdpr.refusal_ground for its kind.")
@details_option
@dry_run_option
@output
def refuse(dsn: str | None, number: int, ground: str, details: Jsonb | None, dry_run: bool) -> Rows:
    """Close a request without doing what it asks, on a ground of the law.

    Example:

        gdprdb request refuse 7 --ground legal_obligation
    """
    return _move(dsn, "refuse_request", number, ground, details, dry_run=dry_run)


@request.command()
@dsn_option
@request_argument
@details_option
@dry_run_option
@output
def withdraw(dsn: str | None, number: int, details: Jsonb | None, dry_run: bool) -> Rows:
    """Close a request that the person does not want any more.

    Example:

        gdprdb request withdraw 7
    """
    return _move(dsn, "withdraw_request", number, details, dry_run=dry_run)


@request.command()
@dsn_option
@request_argument
@click.option(
    "--outcome",
    default="fulfilled",
    show_default=True,
    type=click.Choice(
        ["fulfilled", "fulfilled_in_part", "fulfilled_elsewhere", "done_before", "nothing_held"]
    ),
    help="fulfilled is refused while what the request asks is not done.",
)
@details_option
@dry_run_option
@output
def complete(
    dsn: str | None, number: int, outcome: str, details: Jsonb | None, dry_run: bool
) -> Rows:
    """Close a request that was answered.

    Example:

        gdprdb request complete 7
    """
    return _move(dsn, "complete_request", number, outcome, details, dry_run=dry_run)


def _move(dsn: str | None, function: str, *values: Any, dry_run: bool) -> Rows:
    """Call a function of a request, and show where it stands then."""
    call = sql.SQL("select gdpr.{}({})").format(
        sql.Identifier(function), sql.SQL(", ").join([sql.Placeholder()] * len(values))
    )
    with database(dsn, dry_run=dry_run) as connection:
        connection.execute(call, values)
        return _standing(connection, int(values[0]))


def _standing(connection: psycopg.Connection, number: int) -> Rows:
    """Where a request stands."""
    return fetched(
        connection.execute(
            "select request_id, kind, subject_id, state, due_on, outcome from gdpr.request"
            " where request_id = %s",
            [number],
        )
    )
