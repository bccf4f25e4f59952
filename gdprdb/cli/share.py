"""``gdprdb share``: recipients, what they were told, and the notices that they have to get."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import rich_click as click

from gdprdb.cli.options import (
    database,
    day_or_moment,
    dry_run_option,
    dsn_option,
    end_of,
    kind_option,
    moment,
    purpose_option,
    reason_option,
    subject_id_option,
    table_option,
    the_subject,
)
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.cli.persons import persons_where

ROLES = ("controller", "joint_controller", "processor", "sub_processor", "authority")

SAFEGUARDS = (
    "adequacy",
    "standard_clauses",
    "binding_rules",
    "code_of_conduct",
    "certification",
    "public_instrument",
    "authorised_clauses",
    "derogation",
)

recipient_option = click.option("--recipient", required=True, help="As gdprdb share recipients.")


@click.group()
def share() -> None:
    """Register recipients, record and export what they get, tell them what has changed.

    Example:

        gdprdb share recipients
    """


@share.command()
@dsn_option
@click.option("--history", is_flag=True, help="All versions.")
@output
def recipients(dsn: str | None, history: bool) -> Rows:
    """List recipients, on what a transfer rests, and why nothing may go to them.

    Example:

        gdprdb share recipients --format json
    """
    with database(dsn) as connection:
        if history:
            return fetched(connection.execute("select * from gdpr.recipient_history order by id"))
        return fetched(connection.execute("select * from gdpr.recipient order by name"))


@share.command()
@dsn_option
@output
def countries(dsn: str | None) -> Rows:
    """List the countries where data may go without a safeguard, with the decisions.

    Example:

        gdprdb share countries --format csv
    """
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.adequacy order by country"))


@share.group()
def recipient() -> None:
    """Register a recipient, or end its entry.

    Example:

        gdprdb share recipient end 'Parcel AG'
    """


@recipient.command()
@dsn_option
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES), help="Art. 4(7), 4(8), 26, 28.")
@click.option("--country", required=True, help="Where the data go: ISO 3166-1, as DE.")
@click.option("--safeguard", type=click.Choice(SAFEGUARDS), help="Of a transfer, Art. 45 to 49.")
@click.option("--ground", help="Of a derogation, Art. 49(1): contract, legal_claims, ...")
@click.option("--safeguard-reference", help="What shows the safeguard: clauses, certificate.")
@click.option("--safeguard-until", callback=day_or_moment, help="When it ends (ISO 8601).")
@click.option("--contract", help="The contract of Art. 26 or 28.")
@click.option("--address", help="Where notices go: a mailbox of the organisation.")
@click.option("--language", help="Of the notices: a tag such as de.")
@click.option("--parent", help="The processor that a sub-processor works for.")
@click.option("--valid-until", callback=day_or_moment, help="Nothing goes there from then on.")
@dry_run_option
@output
def add(dsn: str | None, dry_run: bool, **options: Any) -> Rows:
    """Register a recipient, or a new version of it; prints its number.

    Example:

        gdprdb share recipient add 'Parcel AG' --role processor --country DE
        --contract AV-7 --address privacy@parcel.example
    """
    with database(dsn, dry_run=dry_run) as connection:
        for name in ("safeguard_until", "valid_until"):
            options[name] = end_of(connection, options[name])
        named = ", ".join(f"p_{name} => %({name})s" for name in options)
        recorded = fetched(
            connection.execute(
                f"select gdpr.record_recipient({named}) as recipient_id".encode(), options
            )
        )
    return Rows(recorded.columns, []) if dry_run else recorded


@recipient.command()
@dsn_option
@click.argument("name")
@dry_run_option
def end(dsn: str | None, name: str, dry_run: bool) -> None:
    """End a recipient's entry: nothing may be disclosed to it from now on.

    Example:

        gdprdb share recipient end 'Parcel AG'
    """
    with database(dsn, dry_run=dry_run, done="Ended.") as connection:
        connection.execute("select gdpr.end_recipient(%s)", [name])


@share.command()
@dsn_option
@recipient_option
@purpose_option
@subject_id_option
@kind_option
@table_option("A protected table.")
@click.option("--where", help="Which rows' persons: SQL over the table's clear view.")
@click.option("--column", "columns", multiple=True, help="Of the table; else all. Repeatable.")
@click.option("--category", "categories", multiple=True, help="What was told. Repeatable.")
@click.option("--reason", help="Why, for the record. No personal data.")
@click.option("--leave-out", is_flag=True, help="Leave out who may not be shared, and go on.")
@click.option("--at", "disclosed_at", callback=moment, help="Of one made earlier (ISO 8601).")
@dry_run_option
@output
def disclose(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    where: str | None,
    leave_out: bool,
    dry_run: bool,
    **options: Any,
) -> Rows:
    """Record that data go to a recipient: of one person, or of the persons of many rows.

    Example:

        gdprdb share disclose --recipient 'Parcel AG' --purpose orders
        --table crm.customer --where "city = 'Ulm'" --column city
    """
    with database(dsn, dry_run=dry_run) as connection:
        if where is not None:
            if options["table"] is None:
                raise click.UsageError("--where is about the rows of --table")
            options["subjects"] = persons_where(connection, options["table"], where)
        else:
            options["subjects"] = [the_subject(connection, subject_id, kind)]
        options["locked"] = "leave_out" if leave_out else "refuse"
        for name in ("columns", "categories"):
            options[name] = list(options[name]) or None
        named = ", ".join(
            f"p_{name} => {'gdpr.table_named(%(table)s)' if name == 'table' else f'%({name})s'}"
            for name in options
        )
        (done,) = connection.execute(
            f"select gdpr.record_disclosure({named})".encode(), options
        ).fetchone() or ({},)
    return Rows(list(done), [list(done.values())], document=done)


@share.command()
@dsn_option
@click.option("--recipient", help="Only to this one.")
@output
def disclosures(dsn: str | None, recipient: str | None) -> Rows:
    """List disclosures, the latest first.

    Example:

        gdprdb share disclosures --recipient 'Parcel AG' --format csv
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select * from gdpr.disclosure where recipient = coalesce(%s::text, recipient)"
                " order by disclosure_id desc",
                [recipient],
            )
        )


@share.command()
@dsn_option
@subject_id_option
@kind_option
@output
def told(dsn: str | None, subject_id: int | None, kind: str) -> Rows:
    """List to whom data of a person were disclosed (Art. 15(1)(c) GDPR).

    Example:

        gdprdb share told --subject-id 42
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        return fetched(connection.execute("select * from gdpr.recipients_of(%s)", [person]))


@share.command()
@dsn_option
@click.argument("table")
@click.option("--recipient", help="Who gets it; a role that is bound to one need not say.")
@click.option("--purpose", help="A purpose of the role; else its first.")
@click.option("--key", "keys", multiple=True, help="Only rows of these keys. Repeatable.")
@click.option("--reason", help="Why, for the record. No personal data.")
@click.option("--strict", is_flag=True, help="Refuse all when a person may not be shared.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["csv", "json", "jsonl"]),
    default="csv",
    show_default=True,
    help="How to print the rows.",
)
def export(
    dsn: str | None,
    table: str,
    recipient: str | None,
    purpose: str | None,
    keys: tuple[str, ...],
    reason: str | None,
    strict: bool,
    style: str,
) -> None:
    """Print the rows of TABLE as redacted views show them, on record before the first leaves.

    TABLE is named as in the policy, or quoted as in SQL.

    Example:

        gdprdb share export crm.customer --recipient 'Parcel AG' --purpose orders > customers.csv
    """
    with database(dsn) as connection, connection.cursor("export", withhold=True) as rows:
        rows.execute(
            "select subject_ref, data from gdpr.export_rows(%s, %s, %s, %s, %s, %s)",
            [table, list(keys) or None, recipient, purpose, _locked(strict), reason],
        )
        # whoever breaks the pipe has got rows all the same: they are on record by then
        connection.commit()
        count = _WRITERS[style](
            {"subject_ref": None if ref is None else str(ref), **data} for ref, data in rows
        )
    say(f"{count} rows.")


def _locked(strict: bool) -> str:
    return "refuse" if strict else "leave_out"


def _cell(value: Any) -> Any:
    """A JSON value in a cell of CSV."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | dict | list) else value


def _csv(rows: Iterator[dict[str, Any]]) -> int:
    written = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for row in rows:
        if not written:
            writer.writerow(row)
        writer.writerow([_cell(value) for value in row.values()])
        written += 1
    return written


def _json(rows: Iterator[dict[str, Any]]) -> int:
    written = 0
    click.echo("[", nl=False)
    for row in rows:
        click.echo(",\n" if written else "\n", nl=False)
        click.echo(json.dumps(row, ensure_ascii=False), nl=False)
        written += 1
    click.echo("\n]")
    return written


def _jsonl(rows: Iterator[dict[str, Any]]) -> int:
    written = 0
    for row in rows:
        click.echo(json.dumps(row, ensure_ascii=False))
        written += 1
    return written


_WRITERS: dict[str, Callable[[Iterator[dict[str, Any]]], int]] = {
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
}


@share.command()
@dsn_option
@click.option("--due", is_flag=True, help="Only those that the recipient has not got.")
@output
def notices(dsn: str | None, due: bool) -> Rows:
    """List the notices of rectification, erasure and restriction (Art. 19 GDPR).

    Example:

        gdprdb share notices --due
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select * from gdpr.notice where state = 'due' or not %s order by notice_id", [due]
            )
        )


@share.group()
def notice() -> None:
    """Read a notice that is told by other means than mail, and say what came of it.

    Example:

        gdprdb share notice show 7
    """


@notice.command()
@dsn_option
@click.argument("notice_id", type=int)
@output
def show(dsn: str | None, notice_id: int) -> Rows:
    """Show what a due notice says: the references by which the recipient knows the persons.

    Example:

        gdprdb share notice show 7 --format json
    """
    with database(dsn) as connection:
        (message,) = connection.execute("select gdpr.open_notice(%s)", [notice_id]).fetchone() or (
            {},
        )
    return Rows(list(message), [list(message.values())], document=message)


@notice.command()
@dsn_option
@click.argument("notice_id", type=int)
@click.option("--channel", required=True, help="How: phone, post, a portal of theirs.")
@dry_run_option
def sent(dsn: str | None, notice_id: int, channel: str, dry_run: bool) -> None:
    """Say that a recipient was told; what the notice said is deleted.

    Example:

        gdprdb share notice sent 7 --channel phone
    """
    with database(dsn, dry_run=dry_run, done="On record.") as connection:
        connection.execute("select gdpr.notice_sent(%s, %s)", [notice_id, channel])


@notice.command()
@dsn_option
@click.argument("notice_id", type=int)
@click.option("--reason", help="What the recipient said. No personal data.")
@dry_run_option
def confirm(dsn: str | None, notice_id: int, reason: str | None, dry_run: bool) -> None:
    """Say that a recipient has done what the notice told.

    Example:

        gdprdb share notice confirm 7
    """
    with database(dsn, dry_run=dry_run, done="On record.") as connection:
        connection.execute("select gdpr.confirm_notice(%s, %s)", [notice_id, reason])


@notice.command()
@dsn_option
@click.argument("notice_id", type=int)
@reason_option
@dry_run_option
def impossible(dsn: str | None, notice_id: int, reason: str, dry_run: bool) -> None:
    """Say that a recipient cannot be told, or not with a proportionate effort, and why.

    Example:

        gdprdb share notice impossible 7 --reason 'wound up in 2025'
    """
    with database(dsn, dry_run=dry_run, done="On record.") as connection:
        connection.execute("select gdpr.notice_impossible(%s, %s)", [notice_id, reason])
