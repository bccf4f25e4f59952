"""``gdprdb import``: a file into a protected table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import rich_click as click
from psycopg.types.json import Jsonb

from gdprdb import records
from gdprdb.cli.options import database, dry_run_option, dsn_option
from gdprdb.cli.output import Rows, advancing, output, say
from gdprdb.dsn import one
from gdprdb.errors import FINDINGS

#: Records of a file that go to the database at a time.
BATCH = 5_000

_IMPORT = (
    "select line, problem, taken from gdpr.import_rows(%s::text::regclass, %s, %s,"
    " p_skip => %s, p_first => %s, p_file => %s, p_lines => %s)"
)
_DONE = (
    "select coalesce(max(last_row), 0) from gdpr.import"
    " where table_name = %s::text::regclass and file = %s"
)


def _mapping(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """``FIELD=COLUMN``, many times, as a mapping."""
    split = [pair.partition("=") for pair in pairs]
    if any(not equals for _, equals, _ in split):
        raise click.BadParameter("write FIELD=COLUMN, or FIELD= to leave the field out")
    return {name: column for name, _, column in split}


@click.command("import")
@dsn_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--table", required=True, help="The table, as schema.table.")
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
@click.option("--encoding", default="utf-8-sig", show_default=True, help="Of the text in FILE.")
@click.option("--note", help="More about where the data come from, for the record.")
@click.option(
    "--skip",
    is_flag=True,
    help="Take the other rows when some are refused, some thousands at a time.",
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
    note: str | None,
    skip: bool,
    batch: int,
    dry_run: bool,
    **layout: Any,
) -> Rows:
    """Import FILE, CSV or JSON lines, into a protected TABLE, and list the lines that were refused.

    And, where the policy only warns of blocked identifiers, the lines that have one.

    COPY FROM is refused by PostgreSQL where row security is on. Rows are inserted with your
    own rights; their source is the import and the name of the file. Either all of the file
    is taken or nothing; with --skip all that can be, and if that stops in between, the same
    command goes on after the last record that was done.

    Example:

        gdprdb import fair.csv --table crm.customer --map Mail=email --dry-run
    """
    style = written or ("jsonl" if file.suffix in {".jsonl", ".ndjson", ".json"} else "csv")
    wanted = records.Layout(style, **layout)
    digest, lines = records.fingerprint(file)
    source = {"file": file.name} | ({"note": note} if note else {})
    told: list[tuple[Any, ...]] = []
    first, taken, refused = 1, 0, 0
    warnings = Counter[str]()
    with database(dsn, dry_run=dry_run) as connection:
        connection.add_notice_handler(lambda said: _count(warnings, said))
        (done,) = one(connection, _DONE, [table, digest])
        with advancing("importing", lines, done) as advance:
            for places, rows in records.chunks(file, wanted, batch):
                if first + len(rows) - 1 > done:
                    answer = connection.execute(
                        _IMPORT, [table, Jsonb(rows), Jsonb(source), skip, first, digest, places]
                    ).fetchall()
                    if skip and not dry_run:
                        connection.commit()
                    told += answer
                    failed = sum(not came for *_, came in answer)
                    refused += failed
                    taken += len(rows) - max(0, done - first + 1) - failed
                    advance(len(rows))
                first += len(rows)
    if done:
        say(f"The first {done} records of the file had been imported before.")
    for words, count in warnings.items():
        say(f"Warning, {count} times: {words}")
    warned = len(told) - refused
    say(
        f"{taken} rows {'would be ' * dry_run}imported"
        + f", {warned} of them with a blocked identifier" * bool(warned)
        + f", {refused} refused."
    )
    return Rows(("line", "problem", "taken"), told, exit_code=FINDINGS if told else 0)


def _count(warnings: Counter[str], said: psycopg.errors.Diagnostic) -> None:
    """Count a warning of the database by its words; blocked identifiers are named by line."""
    if (
        said.severity_nonlocalized == "WARNING"
        and said.message_primary
        and said.constraint_name != "gdpr_blocked_identifier"
    ):
        warnings[said.message_primary] += 1
