"""``gdprdb consent``: what a person said."""

from __future__ import annotations

import datetime

import rich_click as click
from psycopg.types.json import Jsonb

from gdprdb.cli.options import (
    database,
    day_or_moment,
    document,
    dsn_option,
    end_of,
    kind_option,
    purpose_option,
    subject_id_option,
    the_subject,
)
from gdprdb.cli.output import Rows, fetched, output, say

channel_option = click.option(
    "--channel", required=True, help="How the person said so: web_form, phone, letter, ..."
)

evidence_option = click.option(
    "--evidence",
    callback=document,
    help="What shows it, as JSON: a form's version, a document's number. No personal data.",
)


@click.group()
def consent() -> None:
    """Record consent and its withdrawal.

    Example:

        gdprdb consent withdraw --subject-id 42 --purpose marketing --channel phone
    """


@consent.command()
@dsn_option
@subject_id_option
@kind_option
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
def record(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    purpose: str,
    granted: bool,
    channel: str,
    evidence: Jsonb | None,
    valid_until: datetime.date | datetime.datetime | None,
) -> None:
    """Record that a person gave consent, or refused it.

    Example:

        gdprdb consent record --subject-id 42 --purpose marketing --granted --channel phone
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        connection.execute(
            "select gdpr.record_consent(p_subject => %s, p_purpose => %s, p_granted => %s,"
            " p_channel => %s, p_evidence => %s, p_valid_until => %s)",
            [person, purpose, granted, channel, evidence, end_of(connection, valid_until)],
        )
    say("Recorded.")


@consent.command()
@dsn_option
@subject_id_option
@kind_option
@purpose_option
@channel_option
@evidence_option
def withdraw(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    purpose: str,
    channel: str,
    evidence: Jsonb | None,
) -> None:
    """Record that a person withdrew consent. It takes effect with the commit.

    Example:

        gdprdb consent withdraw --subject-id 42 --purpose marketing --channel letter
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        connection.execute(
            "select gdpr.withdraw_consent(p_subject => %s, p_purpose => %s, p_channel => %s,"
            " p_evidence => %s)",
            [person, purpose, channel, evidence],
        )
    say("Recorded.")


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
