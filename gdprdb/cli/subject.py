"""``gdprdb subject``: one person."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg
import rich_click as click

from gdprdb.access import archive
from gdprdb.access.document import Stream
from gdprdb.access.letter import letter
from gdprdb.access.sheets import csv
from gdprdb.cli.batch import erase_batch
from gdprdb.cli.options import (
    database,
    dry_run_option,
    dsn_option,
    go_ahead,
    kind_option,
    reason_option,
    request_option,
    subject_id_option,
    table_option,
    the_subject,
    yes_option,
)
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.dsn import one
from gdprdb.erasure import erasure_letter
from gdprdb.errors import GdprdbError

#: The table of a name, as a report calls it.
_SAME_TABLE = (
    "select t from unnest(%s::text[]) as t where gdpr.table_named(t) = gdpr.table_named(%s)"
)


@click.group()
def subject() -> None:
    """Find, look at, answer and erase one person.

    Example:

        gdprdb subject find --kind email < address.txt
    """


@subject.command()
@dsn_option
@kind_option
@table_option("With --key: the person of a row, instead of an identifier.")
@click.option("--key", help="The row's primary key; of several columns a JSON array of texts.")
@output
def find(dsn: str | None, kind: str, table: str | None, key: str | None) -> Rows:
    """Find the number of a person: by the identifier on standard input, or by a row.

    Example:

        gdprdb subject find --kind email < address.txt
        gdprdb subject find --table crm.customer --key 17
    """
    if (table is None) != (key is None):
        raise click.UsageError("--table and --key go together")
    with database(dsn) as connection:
        if table is None:
            return Rows(["subject_id"], [(the_subject(connection, None, kind),)])
        (person,) = one(
            connection, "select gdpr.subject_of(gdpr.table_named(%s), %s)", [table, key]
        )
    if person is None:
        raise GdprdbError("the row is not there, or is nobody's")
    return Rows(["subject_id"], [(person,)])


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
@request_option
@dry_run_option
@yes_option
@output
def erase(
    dsn: str | None, subject_id: int | None, kind: str, reason: str, dry_run: bool, yes: bool
) -> Rows:
    """Erase a person: rows, key, identifiers. Prints the receipt. Not to be undone.

    The plan shown first is exact: the erasure is carried out and undone. It names tables, rows,
    what stays, until when and why, what goes to the blocklist, recipients who get a notice, and
    texts that a human has to read.

    Example:

        gdprdb subject erase --subject-id 42 --reason 'request of 2027-01-31'
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        (plan,) = one(connection, "select gdpr.erasure_plan(%s)", [person])
    blocked = plan.get("blocked_by")
    if blocked:
        raise GdprdbError(f"rows outside the policy stand in the way: {blocked}")
    if not go_ahead(_laid_out(plan), "Erase this person?", dry_run=dry_run, yes=yes):
        return Rows(["what", "value"], [])
    with database(dsn) as connection:
        (receipt,) = one(connection, "select gdpr.erase(%s, %s)", [person, reason])
    say("The person is erased.")
    return _laid_out(receipt)


def _laid_out(receipt: dict[str, Any]) -> Rows:
    """A receipt as rows: a line for each table of which there is something to say."""
    lines = [
        (f"table {line.pop('table')}", ", ".join(f"{key} {value}" for key, value in line.items()))
        for line in map(dict, receipt["tables"])
        if set(line) - {"table", "method", "rows"} or line["rows"]
    ]
    facts = [
        (key, value)
        for key, value in receipt.items()
        if key not in {"tables", "notices", "blocked"}
    ]
    blocked = [(f"blocklist {kind}", count) for kind, count in receipt.get("blocked", {}).items()]
    notices = [
        (f"notice to {notice['recipient']}", notice["delivery"])
        for notice in receipt.get("notices", [])
    ]
    return Rows(["what", "value"], [*facts, *blocked, *notices, *lines], document=receipt)


@subject.command("receipt")
@dsn_option
@subject_id_option
def receipt_(dsn: str | None, subject_id: int | None) -> None:
    """Print the letter that tells a person what was erased and what stays. No values.

    Example:

        gdprdb subject receipt --subject-id 42 > letter.txt
    """
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, "email")
        found = connection.execute(
            "select receipt, finished from gdpr.erasure_ledger where subject_id = %s", [person]
        ).fetchone()
    if found is None:
        raise GdprdbError("the person has not been erased")
    click.echo(erasure_letter(*found), nl=False)


@subject.command()
@dsn_option
@output
def reviews(dsn: str | None) -> Rows:
    """List free text in rows that outlived an erasure: where it stands, never the text.

    Example:

        gdprdb subject reviews
    """
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.review_due order by review_id"))


@subject.command()
@dsn_option
@click.option("--id", "review", type=int, required=True, help="Its number in the list of reviews.")
@click.option(
    "--outcome",
    type=click.Choice(["kept", "cleared"]),
    required=True,
    help="kept: it does not speak of the erased; cleared: it did, and was changed in the table.",
)
def review(dsn: str | None, review: int, outcome: str) -> None:
    """Say that a text of the list was read.

    Example:

        gdprdb subject review --id 7 --outcome cleared
    """
    with database(dsn) as connection:
        connection.execute("select gdpr.finish_review(%s, %s)", [review, outcome])
    say("Noted.")


@subject.command()
@dsn_option
@subject_id_option
@kind_option
@click.option(
    "--as",
    "form",
    type=click.Choice(["json", "csv", "html", "zip"]),
    default="json",
    show_default=True,
    help="One document, one table, a letter, or all of them in a ZIP.",
)
@click.option("--portable", is_flag=True, help="What the person provided, to take along (Art. 20).")
@table_option("Of --as csv: the table, where the person has rows in several.")
@click.option("--language", help="Of the letter: de, en, fr, ja.  [default: en]")
@click.option("--encrypt", is_flag=True, help="Of --as zip: AES-256; the passphrase is shown once.")
@click.option(
    "--mail", is_flag=True, help="Send it as an encrypted ZIP; prints the passphrase, once."
)
@click.option("--link", is_flag=True, help="Print a token that opens a download once, for a week.")
@request_option
@click.option(
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    default="-",
    show_default=True,
    help="A new file, readable by you alone, instead of standard output.",
)
def export(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    form: str,
    portable: bool,
    table: str | None,
    language: str | None,
    encrypt: bool,
    mail: bool,
    link: bool,
    target: Path,
) -> None:
    """Hand out everything that is stored about a person, to the person. It is on record.

    The export is written as it is read, to standard output: no copy is left anywhere.

    Example:

        gdprdb subject export --subject-id 42 --as zip --encrypt > answer.zip
    """
    if mail and link:
        raise click.UsageError("--mail or --link, not both")
    if encrypt and form != "zip":
        raise click.UsageError("--encrypt is for --as zip")
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        connection.commit()
        if mail or link:
            click.echo(_ordered(connection, person, mail, portable))
            return
        report = Stream(connection, person, portable=portable)
        passphrase = None
        if encrypt:
            passphrase = archive.passphrase()
        with _written(target, binary=form == "zip") as out:
            if form == "zip":
                archive.write(out, report, language=language, passphrase=passphrase)
            else:
                if form == "csv":
                    pieces = csv(report, _one_table(connection, report, table))
                else:
                    pieces = letter(report, language) if form == "html" else report.json()
                for piece in pieces:
                    out.write(piece.encode())
    if passphrase:
        say(f"Passphrase: {passphrase}")
        say("Tell it by another channel: it is shown this once.")


def _ordered(connection: psycopg.Connection, person: int, mail: bool, portable: bool) -> str:
    """Order a mail, or make a token for a download; the passphrase, or the token."""
    if mail:
        number, passphrase = one(
            connection,
            "select mail_id, passphrase from gdpr.send_report(%s, %s)",
            [person, portable],
        )
        say(f"Mail {number} waits for gdprdb outbox send. Tell the passphrase by another channel.")
        return str(passphrase)
    (token,) = one(
        connection, "select gdpr.create_download(%s, p_portable => %s)", [person, portable]
    )
    say("The token opens the download once, within seven days.")
    return str(token)


def _one_table(connection: psycopg.Connection, report: Stream, table: str | None) -> dict[str, Any]:
    """The description of the table that is asked for."""
    tables: dict[str, dict[str, Any]] = {
        described["table"]: described for described in report.facts["tables"]
    }
    if table is None and len(tables) == 1:
        return next(iter(tables.values()))
    row = connection.execute(_SAME_TABLE, [list(tables), table]).fetchone()
    if row is None:
        raise GdprdbError(
            "no rows of the person in this table" if table else "rows in several tables",
            hint="Name one with --table, or take all of them with --as zip.",
            details=tuple(tables),
        )
    return tables[row[0]]


@contextmanager
def _written(target: Path, *, binary: bool) -> Iterator[IO[bytes]]:
    """Standard output, or a new file of one's own that goes again if it is not finished."""
    if str(target) == "-":
        if binary and sys.stdout.isatty():
            raise click.UsageError("a ZIP is nothing for a terminal: give --output FILE")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        try:
            yield file
        except BaseException:
            target.unlink()
            raise


subject.add_command(erase_batch)
