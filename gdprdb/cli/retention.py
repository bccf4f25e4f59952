"""``gdprdb retention``: what is over goes, what is held stays."""

from __future__ import annotations

import datetime

import rich_click as click

from gdprdb.cli.options import (
    database,
    day_or_moment,
    dry_run_option,
    dsn_option,
    end_of,
    go_ahead,
    reason_option,
    table_option,
    yes_option,
)
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.dsn import one

GROUNDS = (
    "legal_claims",
    "legal_obligation",
    "public_health",
    "archiving",
    "freedom_of_expression",
)

PLAN = "select * from gdpr.retention_plan()"

#: How much of each kind is tidied in one transaction.
PAGE = 10_000

hold_option = click.option("--hold-id", type=int, required=True, help="The number of the hold.")


@click.group()
def retention() -> None:
    """Carry out retention rules, hold data, and approve what is proposed for erasure.

    Example:

        gdprdb retention plan
    """


@retention.command("plan")
@dsn_option
@output
def plan_(dsn: str | None) -> Rows:
    """Show, rule by rule, how many rows are due, held, or waiting for others. Changes nothing.

    Example:

        gdprdb retention plan
    """
    with database(dsn) as connection:
        return fetched(connection.execute(PLAN))


@retention.command("run")
@dsn_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Rows, or a tenth as many persons, in one transaction.",
)
@dry_run_option
@yes_option
@output
def run_(dsn: str | None, limit: int, dry_run: bool, yes: bool) -> Rows:
    """Delete and empty what is over, in batches, until all tables have been gone through.

    Stopped at any moment, it goes on there the next time. Approved erasures are carried out too.

    Example:

        gdprdb retention run --limit 5000 --yes
    """
    with database(dsn) as connection:
        todo = fetched(connection.execute(PLAN))
    if not go_ahead(todo, "Delete what is due?", dry_run=dry_run, yes=yes):
        return Rows(["table_name", "removed", "emptied"], [])
    done: dict[str, list[int]] = {}
    persons = 0
    with database(dsn) as connection:
        connection.commit()
        more = True
        while more:
            rows = connection.execute("select * from gdpr.run_retention(%s)", [limit]).fetchall()
            connection.commit()
            for table, removed, emptied, erased, _ in rows:
                persons += erased
                if table:
                    counts = done.setdefault(str(table), [0, 0])
                    counts[0] += removed
                    counts[1] += emptied
                    say(f"{table}: {counts[0]} rows removed, {counts[1]} emptied")
            more = rows[-1][-1]
    if persons:
        say(f"{persons} persons erased")
    return Rows(
        ["table_name", "removed", "emptied"], [(table, *counts) for table, counts in done.items()]
    )


@retention.command()
@dsn_option
@click.option("--all", "everything", is_flag=True, help="Also those that ended.")
@output
def holds(dsn: str | None, everything: bool) -> Rows:
    """List what may not be deleted, on which ground, until when.

    Example:

        gdprdb retention holds
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select * from gdpr.hold where %s or state = 'holds' order by hold_id",
                [everything],
            )
        )


@retention.command()
@dsn_option
@click.option("--subject-id", type=int, help="The person's number; else everybody in --table.")
@table_option("Only in this table.")
@click.option("--key", help="Only this row: its primary key; of several columns, a JSON array.")
@click.option("--column", "columns", multiple=True, help="Only this column; may be repeated.")
@click.option(
    "--ground", required=True, type=click.Choice(GROUNDS), help="Art. 17(3) GDPR, letters a to e."
)
@click.option("--reference", required=True, help="The law or file number. No personal data.")
@click.option(
    "--until", callback=day_or_moment, help="When it ends: a day, or a time; else when released."
)
@output
def hold(
    dsn: str | None,
    subject_id: int | None,
    table: str | None,
    key: str | None,
    columns: tuple[str, ...],
    ground: str,
    reference: str,
    until: datetime.date | datetime.datetime | None,
) -> Rows:
    """Hold data of a person, a table, a row or some columns: nothing deletes them meanwhile.

    Example:

        gdprdb retention hold --subject-id 42 --table crm.invoice --ground legal_claims
            --reference '3 O 17/26'
    """
    with database(dsn, done="Held.") as connection:
        (number,) = one(
            connection,
            "select gdpr.place_hold(%s, %s, %s, gdpr.table_named(%s), %s, %s::name[],"
            " coalesce(%s::timestamptz, 'infinity'))",
            [
                subject_id,
                ground,
                reference,
                table,
                key,
                list(columns) or None,
                end_of(connection, until),
            ],
        )
    return Rows(["hold_id"], [(number,)])


@retention.command()
@dsn_option
@hold_option
@reason_option
@output
def release(dsn: str | None, hold_id: int, reason: str) -> Rows:
    """End a hold; what it kept of persons who were erased goes at once.

    Example:

        gdprdb retention release --hold-id 7 --reason 'judgment of 2027-01-31 is final'
    """
    with database(dsn, done="Released.") as connection:
        connection.execute("select gdpr.release_hold(%s, %s)", [hold_id, reason])
        return fetched(connection.execute("select * from gdpr.hold where hold_id = %s", [hold_id]))


@retention.command()
@dsn_option
@output
def proposals(dsn: str | None) -> Rows:
    """List persons for whose data no basis is left. Nothing happens to them by itself.

    Example:

        gdprdb retention proposals
    """
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.erasure_proposals()"))


@retention.command()
@dsn_option
@click.option(
    "--subject-id",
    "subjects",
    type=int,
    multiple=True,
    help="This person; may be repeated. Without it, everybody who is proposed.",
)
@reason_option
@dry_run_option
@yes_option
@output
def approve(
    dsn: str | None, subjects: tuple[int, ...], reason: str, dry_run: bool, yes: bool
) -> Rows:
    """Approve proposed erasures; the next run of retention carries them out.

    Example:

        gdprdb retention approve --subject-id 42 --reason 'no contract since 2020'
    """
    with database(dsn) as connection:
        proposed = fetched(
            connection.execute(
                "select * from gdpr.erasure_proposals() where %(who)s::bigint[] is null"
                " or subject_id = any (%(who)s)",
                {"who": list(subjects) or None},
            )
        )
    if not go_ahead(proposed, "Erase these persons?", dry_run=dry_run, yes=yes):
        return Rows(["batch_id"], [])
    with database(dsn) as connection:
        (batch,) = one(
            connection, "select gdpr.approve_erasures(%s, %s)", [list(subjects) or None, reason]
        )
    return Rows(["batch_id"], [(batch,)] if batch else [])


@retention.command()
@dsn_option
@output
def tidy(dsn: str | None) -> Rows:
    """Delete what is of no effect any more, and make expired gates fast again. For each night.

    Example:

        gdprdb retention tidy
    """
    done: dict[str, int] = {}
    with database(dsn) as connection:
        while True:
            page = connection.execute("select what, tidied from gdpr.tidy(%s)", [PAGE]).fetchall()
            connection.commit()
            for what, tidied in page:
                done[what] = done.get(what, 0) + tidied
            if all(tidied < PAGE for _, tidied in page):
                return Rows(["what", "tidied"], list(done.items()))


@retention.command()
@dsn_option
@output
def schedule(dsn: str | None) -> Rows:
    """Have pg_cron, where the server has it, tidy and run retention each night.

    Example:

        gdprdb retention schedule
    """
    with database(dsn, done="Scheduled.") as connection:
        return fetched(connection.execute("select * from gdpr.schedule_jobs()"))
