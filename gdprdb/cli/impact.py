"""``gdprdb impact``: data protection impact assessments."""

from __future__ import annotations

import datetime
from typing import Any

import rich_click as click

from gdprdb.cli.options import database, day, dry_run_option, dsn_option, reason_option
from gdprdb.cli.output import Rows, fetched, output

_number = click.argument("assessment_id", type=int)


@click.group()
def impact() -> None:
    """Assess what processing may do to persons, before it does (Art. 35, 36).

    Example:

        gdprdb impact due
    """


@impact.command("list")
@dsn_option
@output
def list_(dsn: str | None) -> Rows:
    """List impact assessments and where they stand; everything as JSON.

    Example:

        gdprdb impact list --format json
    """
    with database(dsn) as connection:
        shown = fetched(
            connection.execute(
                "select impact_assessment_id, name, version, purposes, status, residual_risk,"
                " author, approver, review_at from gdpr.impact_assessment order by name, version"
            )
        )
        whole = [
            row
            for (row,) in connection.execute(
                "select to_jsonb(a) from gdpr.impact_assessment as a order by a.name, a.version"
            )
        ]
    return Rows(shown.columns, shown.rows, document=whole)


@impact.command()
@dsn_option
@output
def due(dsn: str | None) -> Rows:
    """List the purposes that call for an impact assessment and have none in force.

    Example:

        gdprdb impact due
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute("select * from gdpr.impact_assessment_due order by purpose")
        )


@impact.command()
@dsn_option
@click.argument("name")
@click.option("--purpose", "purposes", multiple=True, required=True, help="Repeatable.")
@click.option("--description", required=True, help="What is done, with what, and why.")
@click.option("--necessity", required=True, help="Necessity and proportionality.")
@click.option("--risks", required=True, help="For the rights and freedoms of the persons.")
@click.option("--measures", required=True, help="Against the risks.")
@click.option("--review", required=True, callback=day, help="The last day on which it counts.")
@click.option("--views-sought", help="What the persons or their representatives said.")
@dry_run_option
@output
def record(dsn: str | None, name: str, dry_run: bool, **options: Any) -> Rows:
    """Record an assessment, or a new version of it; prints its number.

    Example:

        gdprdb impact record 'Patient files' --purpose care --description "$(cat dpia.txt)"
        --necessity 'no other way' --risks 'disclosure' --measures 'encryption' --review 2028-01-31
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        options["purposes"] = list(options["purposes"])
        return fetched(
            connection.execute(
                "select gdpr.record_impact_assessment(p_name => %(name)s,"
                " p_purposes => %(purposes)s, p_description => %(description)s,"
                " p_necessity => %(necessity)s, p_risks => %(risks)s, p_measures => %(measures)s,"
                " p_review => %(review)s, p_views_sought => %(views_sought)s)"
                " as impact_assessment_id",
                {"name": name, **options},
            )
        )


@impact.command()
@dsn_option
@_number
@click.option(
    "--residual-risk",
    required=True,
    type=click.Choice(["low", "medium", "high"]),
    help="What the measures leave; high needs --consultation.",
)
@click.option("--advice", required=True, help="Of the data protection officer (Art. 35(2)).")
@click.option("--consultation", help="The supervisory authority's case (Art. 36).")
@click.option("--review", callback=day, help="The last day on which it counts.")
@dry_run_option
def approve(
    dsn: str | None,
    assessment_id: int,
    residual_risk: str,
    advice: str,
    consultation: str | None,
    review: datetime.date | None,
    dry_run: bool,
) -> None:
    """Approve an assessment that somebody else wrote, or renew it.

    Example:

        gdprdb impact approve 2 --residual-risk low --advice 'no objection'
    """
    with database(dsn, dry_run=dry_run, done="Approved.") as connection:
        connection.execute(
            "select gdpr.approve_impact_assessment(%s, %s, %s, %s, %s)",
            [assessment_id, residual_risk, advice, consultation, review],
        )


@impact.command()
@dsn_option
@_number
@reason_option
@dry_run_option
def reject(dsn: str | None, assessment_id: int, reason: str, dry_run: bool) -> None:
    """Reject an assessment, also one in force.

    Example:

        gdprdb impact reject 2 --reason 'the risks to children are missing'
    """
    with database(dsn, dry_run=dry_run, done="Rejected.") as connection:
        connection.execute("select gdpr.reject_impact_assessment(%s, %s)", [assessment_id, reason])
