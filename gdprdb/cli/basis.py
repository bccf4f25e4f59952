"""``gdprdb basis``: on what grounds a person's data may be used."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import psycopg
import rich_click as click

from gdprdb.cli.options import (
    F,
    database,
    day,
    day_or_moment,
    document,
    dry_run_option,
    dsn_option,
    end_of,
    go_ahead,
    kind_option,
    purpose_option,
    reason_option,
    start_of,
    subject_id_option,
    table_option,
    the_subject,
    yes_option,
)
from gdprdb.cli.output import Rows, fetched, output, progress
from gdprdb.cli.persons import persons_where

GROUNDS = (
    "contract",
    "legal_obligation",
    "vital_interests",
    "public_task",
    "legitimate_interests",
)

CONDITIONS = (
    "explicit_consent",
    "employment_law",
    "vital_interests",
    "not_for_profit",
    "made_public",
    "legal_claims",
    "public_interest",
    "health_care",
    "public_health",
    "archiving",
)

#: The arguments of gdpr.record_basis() and gdpr.record_bases() after the persons.
DECISION = (
    "p_purpose => %(purpose)s, p_basis => %(ground)s, p_reason => %(reason)s,"
    " p_valid_until => %(valid_until)s, p_assessment => %(assessment)s,"
    " p_valid_from => %(valid_from)s, p_evidence => %(evidence)s, p_condition => %(condition)s"
)

#: What persons have for a purpose now; those who may record bases need not be able to look.
STANDING = """
select basis as now, status, count(distinct subject_id) as persons
from (
  select subject_id, basis, status from gdpr.basis where purpose = %(purpose)s
  union all
  select subject_id, 'consent', status from gdpr.consent where purpose = %(purpose)s
) as standing
where subject_id = any (%(persons)s)
group by 1, 2
order by 1, 2
"""


def decision(command: F) -> F:
    """Give a command the options that say which basis is recorded, and why."""
    options: tuple[Callable[[F], F], ...] = (
        purpose_option,
        click.option(
            "--basis",
            "ground",
            required=True,
            type=click.Choice(GROUNDS),
            help="Art. 6(1) GDPR, letters b to f.",
        ),
        reason_option,
        click.option(
            "--valid-from",
            callback=day_or_moment,
            help="When it begins: a day, or a time (ISO 8601); else now.",
        ),
        click.option(
            "--valid-until",
            callback=day_or_moment,
            help="When it ends: a day, whose end in the policy's time zone counts, or a time"
            " (ISO 8601); else open.",
        ),
        click.option("--assessment", type=int, help="The assessment of legitimate interests."),
        click.option("--evidence", callback=document, help="What shows it, as JSON; encrypted."),
        click.option(
            "--condition",
            type=click.Choice(CONDITIONS),
            help="Of Art. 9(2) GDPR, for special categories of data.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def basis() -> None:
    """Record, end and list lawful bases other than consent, and assess interests.

    Example:

        gdprdb basis overview
    """


@basis.command()
@dsn_option
@subject_id_option
@kind_option
@decision
@dry_run_option
@output
def record(
    dsn: str | None, subject_id: int | None, kind: str, dry_run: bool, **options: Any
) -> Rows:
    """Record a lawful basis for one person and purpose; prints its number.

    Example:

        gdprdb basis record --subject-id 42 --purpose orders --basis contract --reason 'order 1001'
    """
    with database(dsn, dry_run=dry_run) as connection:
        person = the_subject(connection, subject_id, kind)
        options["valid_from"] = start_of(connection, options["valid_from"])
        options["valid_until"] = end_of(connection, options["valid_until"])
        recorded = fetched(
            connection.execute(
                f"select gdpr.record_basis(p_subject => %(person)s, {DECISION}) as basis_id",
                {"person": person, **options},
            )
        )
    # a number that was taken back is nobody's
    return Rows(recorded.columns, []) if dry_run else recorded


@basis.command("set")
@dsn_option
@table_option("A protected table.", required=True)
@click.option(
    "--where",
    "condition_of_rows",
    required=True,
    help="Which rows' persons: an SQL condition over the table's clear view, run as you"
    " ('true' for all).",
)
@decision
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    help="Persons in one transaction.",
)
@click.option(
    "--missing",
    is_flag=True,
    help="Only persons who do not have this basis for the purpose now. Needs a look at gdpr.basis.",
)
@dry_run_option
@yes_option
@output
def set_(
    dsn: str | None,
    table: str,
    condition_of_rows: str,
    chunk: int,
    missing: bool,
    dry_run: bool,
    yes: bool,
    **options: Any,
) -> Rows:
    """Record a lawful basis for the persons of many rows, after showing what they have now.

    Each chunk is committed by itself: what was recorded before an error stays.

    Example:

        gdprdb basis set --table crm.customer --where "city = 'Ulm'" --purpose club
        --basis contract --reason 'members of the club in Ulm' --dry-run
    """
    with database(dsn) as connection:
        persons = persons_where(connection, table, condition_of_rows)
        options["valid_from"] = start_of(connection, options["valid_from"])
        options["valid_until"] = end_of(connection, options["valid_until"])
        arguments = {"persons": persons, **options}
        skipped = set(persons) & _holding(connection, arguments) if missing else set()
        arguments["persons"] = persons = [person for person in persons if person not in skipped]
        plan = [("would have", options["ground"], len(persons))]
        if missing:
            plan.append(("skipped", options["ground"], len(skipped)))
        (may_look,) = connection.execute(
            "select has_table_privilege('gdpr.basis', 'select')"
            " and has_table_privilege('gdpr.consent', 'select')"
        ).fetchone() or (False,)
        if may_look:
            plan += [
                (f"has now ({status})", name, count)
                for name, status, count in connection.execute(STANDING, arguments)
            ]
    if not go_ahead(
        Rows(["what", "basis", "persons"], plan),
        f"Record {options['ground']} for {len(persons)} persons?",
        dry_run=dry_run,
        yes=yes,
    ):
        return Rows(["persons"], [])
    with database(dsn) as connection:
        for start in progress(range(0, len(persons), chunk), "Recording"):
            arguments["persons"] = persons[start : start + chunk]
            connection.execute(
                f"select gdpr.record_bases(p_subjects => %(persons)s, {DECISION})", arguments
            )
            connection.commit()
    return Rows(["persons"], [(len(persons),)])


def _holding(connection: psycopg.Connection, arguments: dict[str, Any]) -> set[int]:
    """Those of the persons who have the basis for the purpose now."""
    return {
        person
        for (person,) in connection.execute(
            "select subject_id from gdpr.basis where subject_id = any (%(persons)s)"
            " and purpose = %(purpose)s and basis = %(ground)s and status = 'holds'",
            arguments,
        )
    }


@basis.command()
@dsn_option
@click.argument("basis_id", type=int, nargs=-1, required=True)
@reason_option
@dry_run_option
def end(dsn: str | None, basis_id: tuple[int, ...], reason: str, dry_run: bool) -> None:
    """End lawful bases from now on, by their numbers.

    Example:

        gdprdb basis end 7 8 --reason 'contract terminated'
    """
    with database(dsn, dry_run=dry_run, done="Ended.") as connection:
        connection.execute("select gdpr.end_bases(%s, %s)", [list(basis_id), reason])


@basis.command("list")
@dsn_option
@subject_id_option
@kind_option
@output
def list_(dsn: str | None, subject_id: int | None, kind: str) -> Rows:
    """List a person's lawful bases, those that are over too.

    Example:

        gdprdb basis list --subject-id 42 --format json
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute(
                "select * from gdpr.basis where subject_id = %s order by basis_id", [person]
            )
        )


@basis.command()
@dsn_option
@click.option(
    "--would-lock", is_flag=True, help="Only what enforcement hides, or would hide, and when."
)
@output
def overview(dsn: str | None, would_lock: bool) -> Rows:
    """Count persons by table, purpose, basis and status, and what enforcement hides when.

    Example:

        gdprdb basis overview --would-lock
    """
    with database(dsn) as connection:
        if would_lock:
            query = "select * from gdpr.would_lock order by table_name::text, purpose, locks_at"
        else:
            query = "select * from gdpr.basis_overview order by table_name::text, purpose, basis"
        return fetched(connection.execute(query))


@basis.command()
@dsn_option
@purpose_option
@click.option("--interest", required=True, help="Which legitimate interest is pursued.")
@click.option("--necessity", required=True, help="Why the processing is necessary for it.")
@click.option("--balancing", required=True, help="How it weighs against the persons' rights.")
@click.option("--review", required=True, callback=day, help="The last day it counts (ISO 8601).")
@dry_run_option
@output
def assess(
    dsn: str | None,
    purpose: str,
    interest: str,
    necessity: str,
    balancing: str,
    review: datetime.date,
    dry_run: bool,
) -> Rows:
    """Record an assessment of legitimate interests; somebody else has to approve it.

    Example:

        gdprdb basis assess --purpose analytics --interest 'know which goods sell'
        --necessity 'sums alone do not tell' --balancing 'no profiles' --review 2028-12-31
    """
    with database(dsn, dry_run=dry_run) as connection:
        recorded = fetched(
            connection.execute(
                "select gdpr.record_assessment(%s, %s, %s, %s, %s) as assessment_id",
                [purpose, interest, necessity, balancing, review],
            )
        )
    return Rows(recorded.columns, []) if dry_run else recorded


@basis.command()
@dsn_option
@click.argument("assessment_id", type=int)
@click.option("--review", callback=day, help="The last day it counts; else the author's.")
@click.option("--reason", help="Why, for the record.")
@dry_run_option
def approve(
    dsn: str | None,
    assessment_id: int,
    review: datetime.date | None,
    reason: str | None,
    dry_run: bool,
) -> None:
    """Approve an assessment that somebody else wrote, or renew it.

    Example:

        gdprdb basis approve 3 --review 2029-12-31
    """
    with database(dsn, dry_run=dry_run, done="Approved.") as connection:
        connection.execute(
            "select gdpr.approve_assessment(%s, %s, %s)", [assessment_id, review, reason]
        )


@basis.command()
@dsn_option
@click.argument("assessment_id", type=int)
@reason_option
@dry_run_option
def reject(dsn: str | None, assessment_id: int, reason: str, dry_run: bool) -> None:
    """Reject an assessment: nothing rests on it from now on.

    Example:

        gdprdb basis reject 3 --reason 'the balance fails for children'
    """
    with database(dsn, dry_run=dry_run, done="Rejected.") as connection:
        connection.execute("select gdpr.reject_assessment(%s, %s)", [assessment_id, reason])


@basis.command()
@dsn_option
@output
def assessments(dsn: str | None) -> Rows:
    """List the assessments of legitimate interests, all versions.

    Example:

        gdprdb basis assessments --format json
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute("select * from gdpr.assessment order by purpose, version")
        )
