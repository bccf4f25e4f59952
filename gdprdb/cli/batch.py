"""``gdprdb subject erase-batch``: many persons, in chunks."""

from __future__ import annotations

from typing import TextIO

import psycopg
import rich_click as click

from gdprdb.cli.options import database, dry_run_option, dsn_option, go_ahead, yes_option
from gdprdb.cli.output import Rows, advancing, output, say
from gdprdb.dsn import one
from gdprdb.errors import DONE, FINDINGS, GdprdbError

STATE = "select persons, erased, failed, remaining from gdpr.erasure_batch where batch_id = %s"


@click.command("erase-batch")
@dsn_option
@click.option(
    "--file",
    "numbers",
    type=click.File(encoding="utf-8", errors="replace"),
    help="The numbers of the persons, one a line; - is standard input. Begins a batch.",
)
@click.option("--resume", type=int, metavar="BATCH", help="Go on with a batch.")
@click.option("--retry", is_flag=True, help="With --resume: also those who could not be erased.")
@click.option("--reason", help="With --file: why, for the record. No personal data.")
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Persons in one transaction.",
)
@dry_run_option
@yes_option
@output
def erase_batch(
    dsn: str | None,
    numbers: TextIO | None,
    resume: int | None,
    retry: bool,
    reason: str | None,
    chunk: int,
    dry_run: bool,
    yes: bool,
) -> Rows:
    """Erase many persons, in chunks, each in a transaction of its own. Not to be undone.

    Stopped or crashed, it goes on with --resume; several may work on one batch.
    Exit code 3: somebody could not be erased.

    Example:

        gdprdb subject erase-batch --file inactive.txt --reason 'inactive since 2020'
        gdprdb subject erase-batch --resume 7
    """
    if (numbers is None) == (resume is None) or (numbers is None) != (reason is None):
        raise click.UsageError("give --file and --reason, or --resume")
    persons = _read(numbers) if numbers else []
    # a chunk is erased and taken back: what the plan says of it is exact
    with database(dsn) as connection, connection.transaction(force_rollback=True):
        batch = _begin(connection, persons, reason, resume, retry=retry)
        total, done, failed, remaining = one(connection, STATE, [batch])
        tried, refused, _ = _run(connection, batch, chunk)
    plan = Rows(
        ["persons", "erased_before", "failed_before", "to_erase", "tried", "would_fail"],
        [(total, done, failed, remaining, tried + refused, refused)],
    )
    if not go_ahead(plan, "Erase these persons?", dry_run=dry_run, yes=yes):
        return Rows(plan.columns, [])
    with database(dsn) as connection:
        batch = _begin(connection, persons, reason, resume, retry=retry)
        connection.commit()
        say(f"Batch {batch}: after a crash, gdprdb subject erase-batch --resume {batch}")
        total, _, _, remaining = one(connection, STATE, [batch])
        with advancing("Erasing", total, total - remaining) as advance:
            while remaining:
                erased, refused, remaining = _run(connection, batch, chunk)
                connection.commit()
                advance(erased + refused)
        total, done, failed, remaining = one(connection, STATE, [batch])
    return Rows(
        ["batch_id", "persons", "erased", "failed"],
        [(batch, total, done, failed)],
        exit_code=FINDINGS if failed else DONE,
    )


def _read(numbers: TextIO) -> list[int]:
    """The persons of a file, one a line."""
    persons = []
    for number, line in enumerate(numbers, 1):
        text = line.removeprefix("\ufeff").strip()
        if text and not (text.isascii() and text.isdigit()):
            raise click.UsageError(f"line {number} of the file is no number of a person")
        if text:
            persons.append(int(text))
    return persons


def _begin(
    connection: psycopg.Connection,
    persons: list[int],
    reason: str | None,
    resume: int | None,
    *,
    retry: bool,
) -> int:
    """Open a batch, or find the one to go on with; its number."""
    if resume is None:
        (number,) = one(connection, "select gdpr.open_erasure_batch(%s, %s)", [persons, reason])
        return int(number)
    if connection.execute(STATE, [resume]).fetchone() is None:
        raise GdprdbError(f"there is no batch {resume}")
    if retry:
        connection.execute("select gdpr.retry_erasure_batch(%s)", [resume])
    return resume


def _run(connection: psycopg.Connection, batch: int, chunk: int) -> tuple[int, int, int]:
    """Erase the next chunk: erased, failed, remaining."""
    erased, failed, remaining = one(
        connection, "select * from gdpr.run_erasure_batch(%s, %s)", [batch, chunk]
    )
    return int(erased), int(failed), int(remaining)
