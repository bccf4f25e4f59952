"""``gdprdb import``: a file into a protected table."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import rich_click as click
from psycopg.types.json import Jsonb

from gdprdb import records
from gdprdb.cli.options import database, dry_run_option, dsn_option, table_option
from gdprdb.cli.output import Rows, advancing, output, say
from gdprdb.errors import FINDINGS, GdprdbError

#: Records of a file that go to the database at a time.
BATCH = 5_000

_IMPORT = (
    "select line, problem, taken from gdpr.import_rows(gdpr.table_named(%s), %s, %s,"
    " p_skip => %s, p_first => %s, p_file => %s, p_lines => %s, p_retry => %s, p_run => %s,"
    " p_double => %s)"
)
_BEFORE = (
    "select run, last_row, refused from gdpr.import"
    " where table_name = (select gdpr.table_named(%s)) and file = %s order by run desc limit 1"
)
_REFUSED = (
    "select row_number, line, problem from gdpr.import_refusal"
    " where table_name = (select gdpr.table_named(%s)) and file = %s and run = %s"
    " order by row_number"
)


@dataclass(slots=True)
class _Before:
    """What was done of a file before.

    Attributes:
        run: how many times it was given on purpose, with this one.
        done: its records up to this one are done.
        refused: how many of them are not taken.
        noted: line and problem of these, by the number of the record; those of long ago are not.
    """

    run: int | None = None
    done: int = 0
    refused: int = 0
    noted: dict[int, tuple[int, str]] = field(default_factory=dict)


def _mapping(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """``FIELD=COLUMN``, many times, as a mapping."""
    split = [pair.partition("=") for pair in pairs]
    if any(not equals for _, equals, _ in split):
        raise click.BadParameter("write FIELD=COLUMN, or FIELD= to leave the field out")
    return {name: column for name, _, column in split}


@click.command("import")
@dsn_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@table_option("The table.", required=True)
@click.option(
    "--input",
    "written",
    type=click.Choice(["csv", "jsonl"]),
    help="How FILE is written; without it, its name says so.",
)
@click.option(
    "--map",
    "columns",
    metavar="FIELD=COLUMN",
    multiple=True,
    callback=_mapping,
    help="The column for a field of another name; FIELD= leaves a field out.",
)
@click.option("--delimiter", default=",", show_default=True, help="Between fields of CSV.")
@click.option("--null", default="", help="What stands for NULL in CSV.  [default: nothing]")
@click.option("--force-null", is_flag=True, help="That stands for NULL with quotes around it, too.")
@click.option("--encoding", default="utf-8-sig", show_default=True, help="Of the text in FILE.")
@click.option(
    "--source",
    metavar="NAME",
    help="The list or system that the data come from, for the record.  [default: the file's name]",
)
@click.option("--note", help="More about where the data come from, for the record.")
@click.option(
    "--skip",
    is_flag=True,
    help="Take the other rows when some are refused, some thousands at a time.",
)
@click.option(
    "--retry-refused",
    "retry",
    is_flag=True,
    help="Try the lines of FILE again that were refused before, and no others that are done.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Import all of FILE once more, from its beginning; goes on with that if it stopped.",
)
@click.option(
    "--double",
    is_flag=True,
    help="With --again: even rows that no unique key of the table tells from those taken before.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=BATCH,
    show_default=True,
    help="Records that go to the database at a time; with --skip, each time a transaction.",
)
@dry_run_option
@output
def import_(
    dsn: str | None,
    file: Path,
    table: str,
    written: str | None,
    source: str | None,
    note: str | None,
    skip: bool,
    retry: bool,
    again: bool,
    double: bool,
    batch: int,
    dry_run: bool,
    **layout: Any,
) -> Rows:
    """Import FILE, CSV or JSON lines, into a protected TABLE, and list the lines that were refused.

    And, where the policy only warns of blocked identifiers, the lines that have one.

    COPY FROM is refused by PostgreSQL where row security is on. Rows are inserted with your
    own rights; their source is the import and the name of the file, or --source. Either all of
    the file is taken or nothing; with --skip all that can be, and if that stops in between, the
    same command goes on after the last record that was done. Lines that were refused are listed
    on every later run, until --retry-refused brings them in.

    Example:

        gdprdb import fair.csv --table crm.customer --map Mail=email --dry-run
    """
    if retry and again:
        raise click.UsageError("--retry-refused and --again exclude each other")
    if source is not None and not source.strip():
        raise click.UsageError("--source is the name of a list or a system")
    style = written or ("jsonl" if file.suffix in {".jsonl", ".ndjson", ".json"} else "csv")
    wanted = records.Layout(style, lenient=skip, **layout)
    digest, lines = records.fingerprint(file)
    origin = {"file": source or file.name} | ({"note": note} if note else {})
    told: list[tuple[Any, ...]] = []
    number, taken, refused = 0, 0, 0
    warnings = Counter[str]()
    with database(dsn, dry_run=dry_run) as connection:
        connection.add_notice_handler(lambda said: _count(warnings, said))
        before = _before(connection, table, digest)
        if retry and before.run is None:
            raise GdprdbError(
                "this file was not imported into this table before",
                hint="A file is known by its content: it has to be the same, to the byte.",
            )
        if again:
            before = _again(before, file, wanted)
        if before.done:
            say(
                f"The first {before.done} records of the file had been done before,"
                f" {before.refused} of them refused."
            )
        if lost := before.refused - len(before.noted):
            say(f"The lines of {lost} of these are not known any more.")
        with advancing("importing", lines) as advance:
            for places, rows in records.chunks(file, wanted, batch):
                tried = [
                    n
                    for n in range(number + 1, number + len(rows) + 1)
                    if n > before.done or (retry and n in before.noted)
                ]
                if tried:
                    part = slice(tried[0] - number - 1, tried[-1] - number)
                    answer = connection.execute(
                        _IMPORT,
                        [
                            *(table, Jsonb(rows[part]), Jsonb(origin), skip, tried[0], digest),
                            *(places[part], retry, before.run, double),
                        ],
                    ).fetchall()
                    if skip and not dry_run:
                        connection.commit()
                    told += answer
                    failed = sum(not came for *_, came in answer)
                    refused += failed
                    taken += len(tried) - failed
                    for n in tried:
                        before.noted.pop(n, None)
                advance(len(rows))
                number += len(rows)
    for words, count in warnings.items():
        say(f"Warning, {count} times: {words}")
    warned = len(told) - refused
    say(
        f"{taken} rows {'would be ' * dry_run}imported"
        + f", {warned} of them with a blocked identifier" * bool(warned)
        + f", {refused} refused."
    )
    told += [(line, problem, False) for line, problem in before.noted.values()]
    told.sort(key=lambda row: row[0])
    return Rows(("line", "problem", "taken"), told, exit_code=FINDINGS if told or lost else 0)


def _before(connection: psycopg.Connection, table: str, digest: str) -> _Before:
    """What was done before of a file, the last time that it was given."""
    last = connection.execute(_BEFORE, [table, digest]).fetchone()
    if last is None:
        return _Before()
    noted = connection.execute(_REFUSED, [table, digest, last[0]])
    run, done, refused = last
    # a million lines may have the same few problems
    lines = {row: (line, sys.intern(problem)) for row, line, problem in noted}
    return _Before(run, done, refused, lines)


def _again(before: _Before, file: Path, layout: records.Layout) -> _Before:
    """The next import of a file; the last one, if it was a second one that has not come to its end.

    The same command that was killed half way must not begin a third.
    """
    if before.run is None:
        return before
    if before.run > 1:
        count = sum(len(rows) for _, rows in records.chunks(file, layout, BATCH))
        if before.done < count:
            return before
    return _Before(run=before.run + 1)


def _count(warnings: Counter[str], said: psycopg.errors.Diagnostic) -> None:
    """Count a warning of the database by its words; blocked identifiers are named by line."""
    if (
        said.severity_nonlocalized == "WARNING"
        and said.message_primary
        and said.constraint_name != "gdpr_blocked_identifier"
    ):
        warnings[said.message_primary] += 1
