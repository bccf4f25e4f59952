"""``gdprdb report``: the record of processing activities, and who answers for it."""

from __future__ import annotations

from typing import Any

import rich_click as click

from gdprdb.cli.options import database, day_or_moment, dry_run_option, dsn_option, end_of
from gdprdb.cli.output import Rows, fetched, output
from gdprdb.dsn import one

ROLES = ("joint_controller", "representative", "data_protection_officer", "supervisory_authority")


@click.group()
def report() -> None:
    """Draw up the record of processing activities; say who answers for it.

    Example:

        gdprdb report processing --format json > record.json
    """


@report.command()
@dsn_option
@output
def processing(dsn: str | None) -> Rows:
    """Print the record of processing activities (Art. 30): whole as JSON, else a row a purpose.

    Example:

        gdprdb report processing --format csv
    """
    with database(dsn) as connection:
        (record,) = one(connection, "select gdpr.processing_record()")
        activities = fetched(
            connection.execute(
                "select purpose, lawful_bases, persons, categories, special_categories,"
                " recipients, retained_after_last_basis as retained, assessment_id,"
                " impact_assessments from gdpr.processing_activity order by purpose"
            )
        )
    return Rows(activities.columns, activities.rows, document=record)


@report.command()
@dsn_option
@output
def parties(dsn: str | None) -> Rows:
    """List who answers for the processing: controller, representative, officer, authority.

    Example:

        gdprdb report parties
    """
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.party order by role, name"))


@report.command()
@dsn_option
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES), help="Art. 26, 27, 37, 51.")
@click.option("--contact", required=True, help="How to reach it: rather a function than a person.")
@click.option("--country", required=True, help="ISO 3166-1, as DE.")
@click.option("--reference", help="Arrangement (Art. 26), mandate (27), designation (37).")
@click.option("--valid-until", callback=day_or_moment, help="When the entry ends (ISO 8601).")
@dry_run_option
@output
def party(dsn: str | None, name: str, role: str, dry_run: bool, **options: Any) -> Rows:
    """Register one of them, or a new version of the entry; prints its number.

    Example:

        gdprdb report party 'Data Protection Office' --role data_protection_officer
        --contact dpo@example.org --country DE
    """
    with database(dsn, dry_run=dry_run, done="Registered.") as connection:
        options["valid_until"] = end_of(connection, options["valid_until"])
        return fetched(
            connection.execute(
                "select gdpr.record_party(p_role => %(role)s, p_name => %(name)s,"
                " p_contact => %(contact)s, p_country => %(country)s,"
                " p_reference => %(reference)s, p_valid_until => %(valid_until)s) as party_id",
                {"role": role, "name": name, **options},
            )
        )
