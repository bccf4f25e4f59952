"""``gdprdb audit``: who changed what, and why."""

from __future__ import annotations

import datetime
import functools
import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, LiteralString

import psycopg
import rich_click as click
from psycopg import sql

from gdprdb.audit import checkpoints, drops, proofs, verifier
from gdprdb.cli.options import (
    database,
    dry_run_option,
    dsn_option,
    go_ahead,
    moment,
    read_identifier,
    table_option,
    yes_option,
)
from gdprdb.cli.output import Rows, advancing, fetched, flattened, output, output_as, say
from gdprdb.dsn import one
from gdprdb.errors import FINDINGS, GdprdbError, explain
from gdprdb.signing import read_key, signer

_COLUMNS = (
    "id",
    "at",
    "table_name",
    "operation",
    "subject_id",
    "purpose",
    "actor",
    "login",
    "changed",
)

#: What an export has of each record: all but the old values, which it has only when asked.
_RECORD = (
    *("id", "at", "xid", "table_name", "operation", "subject_id", "row_key", "purpose", "actor"),
    *("login", "role", "client_addr", "application_name", "request", "changed"),
)

#: How many rows of an export are fetched at a time.
_PAGE = 10_000

#: How many records there should be.
_KEPT = "select coalesce(sum(records), 0)::bigint from gdpr.audit_seal where month >= %s"

#: Below which transaction all have ended, from which on none has begun, and the last record.
_HORIZON = """
select pg_snapshot_xmin(s)::text::numeric, pg_snapshot_xmax(s)::text::numeric,
  coalesce((select id from gdpr.audit_leaf order by id desc limit 1), 0)
from pg_current_snapshot() as s
"""

#: Conditions that are not that a column has a value.
_CONDITIONS: dict[str, LiteralString] = {"at": "{0} >= {1}", "until": "at < {1}"}

#: What the log knows a table, a row and a purpose by.
_TABLE_ID = "select gdpr.audit_table_id(%s)"
_ROW_KEY = "select gdpr.audit_row_key(%s, %s)"
_PURPOSE_ID = "select gdpr.audit_purpose_id(%s)"

#: Seconds between two looks of --follow.
_INTERVAL = 1.0

#: Seconds until the server is looked for again, at first and at the most.
_PATIENCE = (1.0, 60.0)


_signing_key = click.option(
    "--signing-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the private key that signs it: gdprdb ledger keygen makes one.",
)
_public_key = click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the public key: what it did not sign is refused.",
)
_checkpoint, _checkpoint_required = (
    click.option(
        "--checkpoint",
        "checkpoint_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        required=required,
        help="File with checkpoints, a line each.",
    )
    for required in (False, True)
)


@click.group()
def audit() -> None:
    """Read the audit log, seal it, and show that nobody has changed it.

    Example:

        gdprdb audit tail --follow
    """


class Selected(list[sql.Composed]):
    """The conditions of a query, and the values by their names that they were made of."""

    def __init__(self, given: dict[str, Any]) -> None:
        """Make the conditions."""
        self.given = given
        super().__init__(
            sql.SQL(_CONDITIONS.get(name, "{0} = {1}")).format(
                sql.Identifier(name), sql.Literal(value)
            )
            for name, value in given.items()
        )


def _selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which records, and their conditions as `selected`."""

    @table_option("Only this table.", "table_name")
    @click.option("--row", help="Only the row of the table with this primary key; - reads it.")
    @click.option("--subject-id", type=int, help="Only this person.")
    @click.option("--operation", help="Only this operation: INSERT, UPDATE, DELETE, ...")
    @click.option("--actor", help="Only this actor.")
    @click.option("--purpose", help="Only this purpose.")
    @click.option("--since", callback=moment, help="Only from this time on (ISO 8601).")
    @click.option("--until", callback=moment, help="Only before this time (ISO 8601).")
    @functools.wraps(command)
    def selecting(
        table_name: str | None,
        row: str | None,
        since: datetime.datetime | None,
        until: datetime.datetime | None,
        subject_id: int | None,
        operation: str | None,
        actor: str | None,
        purpose: str | None,
        **options: Any,
    ) -> Any:
        if row is not None and table_name is None:
            raise click.UsageError("--row takes --table beside it.")
        key = read_identifier("key") if row == "-" else row
        conditions: dict[str, Any] = {
            "table_id": table_name and [_TABLE_ID, table_name],
            "row_key": key and [_ROW_KEY, table_name, key],
            "at": since,
            "until": until,
            "subject_id": subject_id,
            "operation": operation,
            "actor": actor,
            "purpose_id": purpose and [_PURPOSE_ID, purpose],
        }
        chosen = {what: value for what, value in conditions.items() if value is not None}
        # as constants, they tell the planner how many records there are
        if any(isinstance(value, list) for value in chosen.values()):
            with database(options["dsn"]) as connection:
                for what, value in chosen.items():
                    if isinstance(value, list):
                        (chosen[what],) = one(connection, value[0], value[1:])
                        if chosen[what] is None:
                            raise GdprdbError(
                                f"the log knows no {what.split('_')[0]} {value[1]}",
                                hint="A table is named as in the policy, or quoted as in SQL;"
                                " gdprdb policy show has tables and purposes.",
                            )
        options["selected"] = Selected(chosen)
        return command(**options)

    return selecting


@audit.command()
@dsn_option
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many records to show, the latest.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on and show records as they come.")
@_selection
@output
def tail(dsn: str | None, lines: int, follow: bool, selected: list[sql.Composed]) -> Rows:
    """Show the latest records of the audit log. Values stay encrypted; columns are named.

    Example:

        gdprdb audit tail -n 100 --table public.customer --format csv
    """
    if follow:
        return Rows(_COLUMNS, _following(dsn, selected, lines), live=True)
    with database(dsn) as connection:
        return Rows(_COLUMNS, _latest(connection, selected, lines))


@audit.command()
@dsn_option
@click.argument("record", type=int)
@output
def show(dsn: str | None, record: int) -> Rows:
    """Show all of RECORD, by its id; to a data protection officer with what was there before,
    and on record.

    Example:

        gdprdb audit show 4711
    """
    with database(dsn) as connection:
        _note_access(connection, {"id": record})
        found = fetched(connection.execute("select * from gdpr.audit_log where id = %s", [record]))
    if not found.rows:
        raise GdprdbError(
            f"there is no audit record {record}",
            hint="gdprdb audit tail shows ids. Months can have been dropped.",
        )
    document = dict(zip(found.columns, next(iter(found.rows)), strict=True))
    return Rows(("field", "value"), list(flattened(document)), document=document)


@audit.command()
@dsn_option
@click.argument("table")
@click.argument("key")
@click.option("--subject-id", type=int, help="Whose row it was, if it is no longer there.")
@output
def history(dsn: str | None, table: str, key: str, subject_id: int | None) -> Rows:
    """Show the versions of the row of TABLE with the primary key KEY, latest first, in
    plaintext: for a data protection officer, and on record.

    TABLE is named as in the policy, or quoted as in SQL. A KEY of several columns is a JSON array
    of texts. A key that is personal, as an e-mail address, is read from standard input where KEY
    is -.

    Example:

        gdprdb audit history public.customer 42 --format json
    """
    if key == "-":
        key = read_identifier("key")
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select * from gdpr.history(gdpr.table_named(%s), %s, %s)", [table, key, subject_id]
            )
        )


@audit.command()
@dsn_option
@click.option(
    "--values",
    is_flag=True,
    help="With the old values, which a data protection officer may read: on record.",
)
@_selection
@output_as("jsonl", "csv")
def export(dsn: str | None, values: bool, selected: Selected) -> Rows:
    """Print the audit log, oldest first, a record at a time however long it is.

    Example:

        gdprdb audit export --since 2026-01-01 --until 2026-02-01 > january.jsonl
    """
    columns = (*_RECORD, "old") if values else _RECORD
    if values:
        with database(dsn) as connection:
            _note_access(connection, selected.given)
    return Rows(columns, _streamed(dsn, _select(selected, columns) + sql.SQL(" order by id")))


@audit.command()
@dsn_option
@click.option("--follow", "-f", type=click.FloatRange(min=0.1), help="Again every so many seconds.")
@output
def seal(dsn: str | None, follow: float | None) -> Rows:
    """Seal what was recorded since the last seal: no record can be changed unseen from then on.

    Records of a transaction that is still open, and all that came after it began, wait for
    the next seal.

    Example:

        gdprdb audit seal --follow 60
    """
    columns = ("sealed", "unsealed", "waiting", "last_seal")
    if follow is None:
        with database(dsn) as connection:
            return Rows(columns, [_seal(connection)])
    return Rows(columns, _sealing(dsn, follow), live=True)


@audit.command()
@dsn_option
@_signing_key
def checkpoint(dsn: str | None, signing_key: Path | None) -> None:
    """Print the last seal as a line to keep outside: with it, whoever rules the database cannot
    seal anew what he changed.

    Example:

        gdprdb audit checkpoint --signing-key audit.key >> checkpoints.jsonl
    """
    with database(dsn) as connection:
        (document,) = one(connection, "select gdpr.audit_checkpoint()")
    if document is None:
        raise GdprdbError("nothing is sealed yet", hint="Seal first: gdprdb audit seal.")
    if signing_key is None:
        say("The checkpoint is not signed: give --signing-key.")
    sign = signer(read_key(signing_key)) if signing_key else None
    click.echo(checkpoints.written(document, sign))


@audit.command()
@dsn_option
@_checkpoint
@_public_key
@output
def verify(dsn: str | None, checkpoint_file: Path | None, public_key: Path | None) -> Rows:
    """Compute every seal again from the records and compare; exit code 3 on findings.

    All checkpoints in the file are compared, so that each extends the ones before it. The
    database is only asked for records: what is computed, is computed here. It may be a
    standby, or a restored dump. Months that were dropped since the last checkpoint are told on
    standard error; they are a finding where the period that it has sealed keeps them.

    Example:

        gdprdb audit verify --checkpoint checkpoints.jsonl --public-key audit.pub
    """
    kept = _read_checkpoints(checkpoint_file, public_key) if checkpoint_file else []
    if not kept:
        say("Without --checkpoint, who rules the database could have sealed everything anew.")
    with database(dsn) as connection:
        told = [
            drop
            for drop in drops.read_drops(connection, max((c.seal for c in kept), default=None))
            if not drop.forged
        ]
        first = max((drop.before for drop in told if drop.before), default="-infinity")
        (total,) = one(connection, _KEPT, [first])
        connection.rollback()
        with advancing("verifying", total) as advance:
            found = list(verifier.verify(connection, kept, advance))
    # all since the checkpoint; of those that it has seen, the last
    for drop in [drop for drop in told if drop.since] or told[-1:]:
        say(
            f"Records before {drop.before} were dropped on {drop.dropped_at[:10]}"
            f" by {drop.login}: record {drop.record}."
        )
    if not found:
        say(f"All {total} sealed records are as they were sealed.")
    rows = [(finding.seal, finding.record, finding.finding) for finding in found]
    return Rows(("seal", "record", "finding"), rows, exit_code=FINDINGS if rows else 0)


@audit.command()
@dsn_option
@click.argument("record", type=int)
def prove(dsn: str | None, record: int) -> None:
    """Print what proves to a third party that RECORD is in the audit, and since when.

    Values in it are ciphertext. The proof is checked with a checkpoint and without the
    database: gdprdb audit check-proof.

    Example:

        gdprdb audit prove 4711 > proof.json
    """
    with database(dsn) as connection:
        click.echo(json.dumps(proofs.prove(connection, record)))


@audit.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@_checkpoint_required
@_public_key
@output
def check_proof(file: IO[str], checkpoint_file: Path, public_key: Path | None) -> Rows:
    """Check the proof in FILE with checkpoints, and print the record that it proves, its seal
    and since when. One of the checkpoints has to be of that seal, or of a later one that was
    there when the proof was made.

    Example:

        gdprdb audit check-proof proof.json --checkpoint checkpoints.jsonl
    """
    proven = proofs.check(file.read(), _read_checkpoints(checkpoint_file, public_key))
    document = {
        "record": proven.record,
        "seal": proven.seal,
        "sealed_at": proven.sealed_at,
        "checkpoint": proven.checkpoint.document,
    }
    return Rows(("field", "value"), list(flattened(document)), document=document)


@audit.command()
@dsn_option
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Only months before this day, the first of a month; without it, all that are due.",
)
@dry_run_option
@yes_option
@output
def drop(dsn: str | None, before: datetime.datetime | None, dry_run: bool, yes: bool) -> Rows:
    """Drop the records of months whose time, settings.audit_retain of the policy, is over.

    The months have to be sealed and unchanged. Their seals stay: verification and checkpoints
    hold as before.

    Example:

        gdprdb audit drop --dry-run
    """
    day = before.date() if before else None
    with database(dsn) as connection:
        due = fetched(connection.execute("select * from gdpr.due_audit(%s)", [day]))
    if not go_ahead(due, "Drop these months?", dry_run=dry_run, yes=yes):
        return Rows(due.columns, [])
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.drop_audit(%s)", [day]))


def _read_checkpoints(path: Path, public_key: Path | None) -> list[checkpoints.Checkpoint]:
    """The checkpoints of a file, signed where a key is given."""
    with path.open(encoding="utf-8") as lines:
        return list(checkpoints.read(lines, read_key(public_key) if public_key else None))


def _seal(connection: psycopg.Connection) -> tuple[Any, ...]:
    """Seal once: how many records, and what is left."""
    (sealed,) = one(connection, "select gdpr.seal_audit()")
    connection.commit()
    lag = one(connection, "select unsealed, waiting, last_seal from gdpr.audit_lag()")
    connection.commit()
    return (sealed, *lag)


def _sealing(dsn: str | None, pause: float) -> Generator[tuple[Any, ...], None, None]:
    """Seal again and again, until interrupted; what sealed nothing is not told.

    A server that goes away comes back: only at the beginning is that an error.
    """
    patience, longest = _PATIENCE
    begun = False
    while True:
        try:
            with database(dsn) as connection:
                while True:
                    row = _seal(connection)
                    begun, patience = True, _PATIENCE[0]
                    if row[0]:
                        yield row
                    time.sleep(pause)
        except psycopg.OperationalError as error:
            if not begun:
                raise
            say(f"{explain(error).message}; trying again in {patience:.0f} s")
            time.sleep(patience)
            patience = min(patience * 2, longest)


def _note_access(connection: psycopg.Connection, selection: dict[str, Any]) -> None:
    """Put on record that old values are read, before the first leaves: where the login sees any."""
    (opens,) = one(connection, "select pg_has_role('gdpr_dpo', 'usage')")
    if opens:
        connection.execute(
            "select gdpr.note_audit_access(%s)", [json.dumps(selection, default=str)]
        )
    connection.commit()


def _streamed(dsn: str | None, query: sql.Composed) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, fetched as they are printed."""
    with database(dsn) as connection, connection.cursor("export") as cursor:
        cursor.itersize = _PAGE
        yield from cursor.execute(query)


def _latest(
    connection: psycopg.Connection, conditions: list[sql.Composed], lines: int
) -> list[tuple[Any, ...]]:
    """The last records that meet all conditions, oldest first."""
    query = _select(conditions) + sql.SQL(" order by id desc limit {}").format(sql.Literal(lines))
    return connection.execute(query).fetchall()[::-1]


def _following(
    dsn: str | None, conditions: list[sql.Composed], lines: int
) -> Generator[tuple[Any, ...], None, None]:
    """The last records, then each new one, until interrupted.

    A slow transaction commits records with lower numbers than some already shown, so what
    was shown is remembered by transaction: `xid` below the oldest one still running is settled.
    Those from there on have higher numbers than what was there before any of them began: so no
    look reads more than what is new.
    """
    with database(dsn) as connection:
        connection.commit()
        connection.autocommit = True
        horizon, began, last = one(connection, _HORIZON)
        looks = deque([(began, last)])
        floor = 0
        shown = set[int]()
        for row in _latest(connection, conditions, lines):
            shown.add(row[0])
            yield row
        while True:
            time.sleep(_INTERVAL)
            while looks and looks[0][0] <= horizon:
                floor = looks.popleft()[1]
            settled, began, last = one(connection, _HORIZON)
            looks.append((began, last))
            new = sql.SQL("xid >= {}::text::xid8 and id > {}").format(
                sql.Literal(str(horizon)), sql.Literal(floor)
            )
            query = _select([*conditions, new]) + sql.SQL(" order by id")
            for row in connection.execute(query):
                if row[0] not in shown:
                    shown.add(row[0])
                    yield row
            shown = {number for number in shown if number > floor}
            horizon = settled


def _select(conditions: list[sql.Composed], columns: Sequence[str] = _COLUMNS) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    where = sql.SQL(" and ").join(conditions or [sql.SQL("true").format()])
    return sql.SQL("select {} from gdpr.audit_log where {}").format(names, where)
