"""``gdprdb subject``: one person."""

from __future__ import annotations

import psycopg
import rich_click as click

from gdprdb.cli.batch import erase_batch
from gdprdb.cli.options import (
    database,
    dry_run_option,
    dsn_option,
    go_ahead,
    kind_option,
    reason_option,
    subject_id_option,
    the_subject,
    yes_option,
)
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.dsn import one


@click.group()
def subject() -> None:
    """Find, look at and erase one person.

    Example:

        gdprdb subject find --kind email < address.txt
    """


@subject.command()
@dsn_option
@kind_option
@output
def find(dsn: str | None, kind: str) -> Rows:
    """Find the number of the person whose identifier is on standard input.

    Example:

        gdprdb subject find --kind email < address.txt
    """
    with database(dsn) as connection:
        return Rows(["subject_id"], [(the_subject(connection, None, kind),)])


@subject.command("show")
@dsn_option
@subject_id_option
@kind_option
@output
def show_(dsn: str | None, subject_id: int | None, kind: str) -> Rows:
    """Show a person's standing: restricted, erased, and when. No personal data.

    Example:

        gdprdb subject show --subject-id 42
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(
            connection.execute("select * from gdpr.subject where subject_id = %s", [person])
        )


@subject.command()
@dsn_option
@subject_id_option
@kind_option
@reason_option
@dry_run_option
@yes_option
@output
def erase(
    dsn: str | None, subject_id: int | None, kind: str, reason: str, dry_run: bool, yes: bool
) -> Rows:
    """Erase a person: rows, key, identifiers. Prints the receipt. Not to be undone.

    The plan shown first is exact: the erasure is carried out and rolled back.

    Example:

        gdprdb subject erase --subject-id 42 --reason 'request of 2027-01-31'
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        with connection.transaction(force_rollback=True):
            plan = _erase(connection, person, reason)
    if not go_ahead(plan, "Erase this person?", dry_run=dry_run, yes=yes):
        return Rows(plan.columns, [])
    with database(dsn) as connection:
        receipt = _erase(connection, person, reason)
    say("The person is erased.")
    return receipt


def _erase(connection: psycopg.Connection, person: int, reason: str) -> Rows:
    """Erase, and lay the receipt out as rows."""
    (receipt,) = one(connection, "select gdpr.erase(%s, %s)", [person, reason])
    return Rows(["what", "value"], list(receipt.items()))


subject.add_command(erase_batch)
