"""``gdprdb consent``: what a person said."""

from __future__ import annotations

import datetime
from typing import Any

import psycopg
import rich_click as click
from psycopg.types.json import Jsonb

from gdprdb.cli.options import (
    database,
    day_or_moment,
    document,
    dry_run_option,
    dsn_option,
    end_of,
    go_ahead,
    kind_option,
    purpose_option,
    read_identifier,
    request_option,
    subject_id_option,
    the_subject,
    yes_option,
)
from gdprdb.cli.output import Rows, fetched, flattened, output, progress, say
from gdprdb.dsn import one
from gdprdb.errors import GdprdbError

#: Persons asked by one statement; all in one transaction.
CHUNK = 5_000

channel_option = click.option(
    "--channel",
    required=True,
    help="How the person said so: email, portal, phone, paper, web_form, api, import, in_person.",
)

purposes_option = click.option(
    "--purpose", "purposes", required=True, multiple=True, help="A purpose of the policy; repeat."
)

contact_option = click.option(
    "--contact", multiple=True, help="The person may be contacted by mail, phone, post, social."
)

evidence_option = click.option(
    "--evidence",
    callback=document,
    help="What shows it, as JSON; by phone and on paper: who, when, how, reference.",
)


@click.group()
def consent() -> None:
    """Ask for consent, record answers and withdrawals, show where it stands.

    Example:

        gdprdb consent board
    """


@consent.command()
@dsn_option
@subject_id_option
@kind_option
@click.option(
    "--status",
    type=click.Choice(["pending", "not_responded", "expired"]),
    help="Everybody whose consent to all of the purposes stands so, instead of one person.",
)
@purposes_option
@click.option(
    "--channel",
    required=True,
    type=click.Choice(["email", "portal", "phone", "paper"]),
    help="How they are asked; for the portal, tokens are printed.",
)
@click.option("--form", help="A published form, in each person's language.")
@click.option("--respond-within", help="A duration such as '14 days'; else by the policy.")
@click.option(
    "--attach-form",
    is_flag=True,
    help="The mail has no link, and the form attached, to be filled in and sent back.",
)
@dry_run_option
@yes_option
@output
def request(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    status: str | None,
    purposes: tuple[str, ...],
    channel: str,
    form: str | None,
    respond_within: str | None,
    attach_form: bool,
    dry_run: bool,
    yes: bool,
) -> Rows:
    """Ask a person, or everybody whose consent stands in a certain way.

    Those who cannot be asked (restricted, no e-mail address, ...) are left out.

    Example:

        gdprdb consent request --status pending --purpose marketing --channel email --form news
        --dry-run
    """
    with database(dsn) as connection:
        if status is None:
            persons = [the_subject(connection, subject_id, kind)]
        else:
            persons = [
                person
                for (person,) in connection.execute(
                    "select subject_id from gdpr.consent where status = %s and purpose = any (%s)"
                    " group by subject_id having count(*) = %s order by subject_id",
                    [status, list(purposes), len(set(purposes))],
                )
            ]
        plan = Rows(["persons", "purposes", "channel"], [(len(persons), purposes, channel)])
        columns = ["subject_id", "request_id", "respond_until", "token"]
        if not go_ahead(plan, "Ask them?", dry_run=dry_run, yes=yes or status is None):
            return Rows(columns, [])
        asked: list[tuple[Any, ...]] = []
        how = [list(purposes), channel, form, respond_within, attach_form]
        for start in progress(range(0, len(persons), CHUNK), "Asking"):
            asked += connection.execute(
                "select * from gdpr.request_consents(%s, %s, %s, %s, %s::interval, %s)",
                [persons[start : start + CHUNK], *how],
            ).fetchall()
    say(f"Asked: {len(asked)} of {len(persons)}.")
    return Rows(columns, asked)


@consent.command()
@dsn_option
@click.option("--granted", multiple=True, help="A purpose that is granted; repeat. None: all no.")
@contact_option
@evidence_option
@dry_run_option
@output
def answer(
    dsn: str | None,
    granted: tuple[str, ...],
    contact: tuple[str, ...],
    evidence: Jsonb | None,
    dry_run: bool,
) -> Rows:
    """Answer by the token on standard input, as the portal does. What is not granted is declined.

    Example:

        gdprdb consent answer --granted marketing --contact mail < token.txt
    """
    with database(dsn, dry_run=dry_run) as connection:
        (statuses,) = one(
            connection,
            "select gdpr.answer_consent(%s, %s, %s, %s)",
            [read_identifier("token"), list(granted), list(contact) or None, evidence],
        )
    return Rows(["purpose", "status"], list(statuses.items()))


@consent.command()
@dsn_option
@subject_id_option
@kind_option
@click.option(
    "--request-id",
    type=int,
    help="Of the question, as on the form that came back, instead of the person.",
)
@purpose_option
@click.option("--granted/--refused", required=True, help="What the person answered.")
@channel_option
@evidence_option
@click.option(
    "--valid-until",
    callback=day_or_moment,
    help="When it ends: a day, whose end in the policy's time zone counts, or a time (ISO 8601);"
    " else by the policy.",
)
@contact_option
@click.option("--form-id", type=int, help="The very text agreed to; see gdprdb form list.")
@dry_run_option
def record(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    request_id: int | None,
    purpose: str,
    granted: bool,
    channel: str,
    evidence: Jsonb | None,
    valid_until: datetime.date | datetime.datetime | None,
    contact: tuple[str, ...],
    form_id: int | None,
    dry_run: bool,
) -> None:
    """Record that a person gave consent, or refused it.

    Example:

        gdprdb consent record --subject-id 42 --purpose marketing --granted --channel in_person
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        if request_id is not None:
            subject_id = _asked(connection, request_id)
        person = the_subject(connection, subject_id, kind)
        connection.execute(
            "select gdpr.record_consent(p_subject => %s, p_purpose => %s, p_granted => %s,"
            " p_channel => %s, p_evidence => %s, p_valid_until => %s, p_contact => %s,"
            " p_form => %s)",
            [
                person,
                purpose,
                granted,
                channel,
                evidence,
                end_of(connection, valid_until),
                list(contact) or None,
                form_id,
            ],
        )


def _asked(connection: psycopg.Connection, request_id: int) -> int:
    """The person who was asked, where an answer is still looked for."""
    row = connection.execute(
        "select subject_id from gdpr.consent where request_id = %s", [request_id]
    ).fetchone()
    if row is None:
        raise GdprdbError(
            f"question {request_id} is not open",
            hint="It was answered, or asked anew: gdprdb consent history shows a person's.",
        )
    return int(row[0])


@consent.command()
@dsn_option
@subject_id_option
@kind_option
@purpose_option
@channel_option
@evidence_option
@request_option
@dry_run_option
def withdraw(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    purpose: str,
    channel: str,
    evidence: Jsonb | None,
    dry_run: bool,
) -> None:
    """Record that a person withdrew consent. It takes effect with the commit.

    Example:

        gdprdb consent withdraw --subject-id 42 --purpose marketing --channel paper
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        person = the_subject(connection, subject_id, kind)
        connection.execute(
            "select gdpr.withdraw_consent(p_subject => %s, p_purpose => %s, p_channel => %s,"
            " p_evidence => %s)",
            [person, purpose, channel, evidence],
        )


@consent.command("list")
@dsn_option
@subject_id_option
@kind_option
@output
def list_(dsn: str | None, subject_id: int | None, kind: str) -> Rows:
    """Show where a person's consent stands, purpose by purpose.

    Example:

        gdprdb consent list --subject-id 42 --format json
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute("select * from gdpr.consent where subject_id = %s", [person])
        )


@consent.command()
@dsn_option
@subject_id_option
@kind_option
@output
def history(dsn: str | None, subject_id: int | None, kind: str) -> Rows:
    """Show every question to a person, and every answer, with the evidence.

    Example:

        gdprdb consent history --subject-id 42 --format json
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute("select * from gdpr.consent_history where subject_id = %s", [person])
        )


@consent.command()
@dsn_option
@output
def board(dsn: str | None) -> Rows:
    """Count persons by purpose and status, with the next deadline.

    Example:

        gdprdb consent board --format csv
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select purpose, status, dpv, count(*) as persons,"
                " count(*) filter (where holds) as allowed,"
                " min(case status when 'waiting' then respond_until when 'granted' then valid_until"
                " end) as next_end from gdpr.consent group by purpose, status, dpv"
                " order by purpose, status"
            )
        )


@consent.command()
@dsn_option
@subject_id_option
@kind_option
@purpose_option
@output
def receipt(dsn: str | None, subject_id: int | None, kind: str, purpose: str) -> Rows:
    """Show the receipt of a person's answer; json: in the structure of ISO/IEC TS 27560.

    Example:

        gdprdb consent receipt --subject-id 42 --purpose marketing --format json > receipt.json
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        (paper,) = one(connection, "select gdpr.consent_receipt(%s, %s)", [person, purpose])
    return Rows(["field", "value"], list(flattened(paper)), document=paper)


@consent.command("may-contact")
@dsn_option
@subject_id_option
@kind_option
@purpose_option
@click.option(
    "--channel",
    required=True,
    type=click.Choice(["mail", "phone", "post", "social"]),
    help="By what.",
)
@output
def may_contact(
    dsn: str | None, subject_id: int | None, kind: str, purpose: str, channel: str
) -> Rows:
    """Tell whether a person may be contacted for a purpose by a channel, at this moment.

    Example:

        gdprdb consent may-contact --subject-id 42 --purpose marketing --channel phone
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute(
                "select gdpr.may_contact(%s, %s, %s) as may_contact", [person, channel, purpose]
            )
        )
