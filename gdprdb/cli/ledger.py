"""``gdprdb ledger``: what has to be forgotten again after a restore."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import rich_click as click

from gdprdb import ledger as ledgers
from gdprdb.cli.options import (
    database,
    dry_run_option,
    dsn_option,
    go_ahead,
    moment,
    reason_option,
    yes_option,
)
from gdprdb.cli.output import Rows, flattened, output, say
from gdprdb.dsn import one
from gdprdb.errors import FINDINGS, GdprdbError
from gdprdb.signing import new_keys, read_key, signer

#: Entries of a part: what the database keeps in memory at once.
_PART = 100_000

#: What came of each part that is no count.
_LISTS = ("rectifications_refused", "granted_again", "unknown_purposes", "unknown_tables")

_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))

_public_key = click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the public key: what it did not sign is refused.",
)


@click.group()
def ledger() -> None:
    """Take the ledger away, and forget again after a restore.

    Example:

        gdprdb ledger export --signing-key ledger.key > ledger.jsonl
    """


@ledger.command()
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Make a key that signs ledgers, in FILE, and print the public key.

    Keep FILE away from the database server: who rules that could sign what he likes.

    Example:

        gdprdb ledger keygen ledger.key > ledger.pub
    """
    private, public = new_keys()
    # never over another key: what that one signed could not be told any more
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(private + "\n")
    say(f"The private key is in {file}. The public key, for check and replay:")
    click.echo(public)


@ledger.command()
@dsn_option
@click.option(
    "--signing-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the private key that signs it.",
)
@click.option("--since", callback=moment, help="Only what was recorded since (ISO 8601).")
@click.option(
    "--checkpoint",
    is_flag=True,
    help="Only how far the database has come, in two lines: for a copy every minute.",
)
def export(
    dsn: str | None, signing_key: Path | None, since: datetime.datetime | None, checkpoint: bool
) -> None:
    """Print the ledger as JSON lines: numbers of persons and keyed digests, no identities.

    Keep it where the backups are not. Restored from a backup, the database is only as
    forgetful as the newest ledger.

    Example:

        gdprdb ledger export --signing-key ledger.key > ledger.jsonl
    """
    if checkpoint and since is not None:
        raise click.UsageError("a checkpoint has no --since")
    if signing_key is None:
        say("The ledger is not signed: give --signing-key.")
        sign = None
    else:
        sign = signer(read_key(signing_key))
    start = "infinity" if checkpoint else since or "-infinity"
    with database(dsn) as connection:
        lines = _lines(connection, start)
        for line in ledgers.signing(lines, sign) if sign else lines:
            click.echo(line)


@ledger.command()
@dsn_option
@_file
@_public_key
@output
def check(dsn: str | None, file: Path, public_key: Path | None) -> Rows:
    """Compare the database with a ledger, or a checkpoint, that it wrote; exit code 3 if it is
    behind.

    A database that is behind was restored from an older state. From then on it refuses to
    process, until it is replayed.

    Example:

        gdprdb ledger check ledger.jsonl --public-key ledger.pub
    """
    found: list[dict[str, Any]] = []
    with database(dsn) as connection:
        for part in _verified(file, public_key):
            (result,) = one(connection, "select gdpr.check_ledger(%s)", [part.document])
            found.append(result)
    missing = _sum(result["missing"] for result in found)
    behind = found[-1]["behind"]
    rows = [("missing", name, count) for name, count in missing.items()]
    rows += [("behind", name, count) for name, count in behind.items()]
    if rows:
        say("The database is behind its ledger: it refuses to process. Next: gdprdb ledger replay.")
    else:
        say(f"The database has all that the ledger of {found[-1]['taken_at']} knows.")
    return Rows(["finding", "what", "records"], rows, exit_code=FINDINGS if rows else 0)


@ledger.command()
@dsn_option
@_file
@_public_key
@dry_run_option
@yes_option
@output
def replay(dsn: str | None, file: Path, public_key: Path | None, dry_run: bool, yes: bool) -> Rows:
    """Forget again, after a restore, what the ledger in FILE says; then processing goes on.

    The plan shown first is exact: the ledger is replayed and rolled back; --yes goes without. A
    ledger without --public-key is trusted because this database wrote it.

    Example:

        gdprdb ledger replay ledger.jsonl --public-key ledger.pub
    """
    # nobody reads the plan of --yes, which says what is done twice, and takes as long
    if dry_run or not yes:
        with database(dsn) as connection, connection.transaction(force_rollback=True):
            plan = _replay(connection, file, public_key)
        if not go_ahead(plan, "Forget all this again?", dry_run=dry_run, yes=False):
            return Rows(plan.columns, [])
    with database(dsn) as connection:
        done = _replay(connection, file, public_key)
    say("The ledger is replayed: the database processes again.")
    return done


@ledger.command()
@dsn_option
@reason_option
@yes_option
def accept(dsn: str | None, reason: str, yes: bool) -> None:
    """Declare that a moved or copied database has lost nothing, and is at home here.

    Not after a restore: who was erased since the backup would stay in the database.

    Example:

        gdprdb ledger accept --reason 'moved to the new server, nothing written since'
    """
    with database(dsn) as connection:
        (where,) = one(connection, "select gdpr.whereabouts()")
        plan = Rows(["database", "becomes"], [(where, "home")])
        if go_ahead(plan, "Was nothing lost?", dry_run=False, yes=yes):
            connection.execute("select gdpr.accept_restore(%s)", [reason])
            say("The database is at home here.")


def _lines(connection: psycopg.Connection, since: datetime.datetime | str) -> Iterator[str]:
    """The lines of the ledger as they come."""
    with connection.cursor(name="ledger") as cursor:
        cursor.itersize = 5000
        cursor.execute("select l::text from gdpr.ledger(%s, %s) as l", [since, _PART])
        for (line,) in cursor:
            yield str(line)


def _verified(file: Path, public_key: Path | None) -> Iterator[ledgers.Part]:
    """The parts of a ledger, whole and, where a key is given, signed by it."""
    key = read_key(public_key) if public_key else None
    with file.open(encoding="utf-8") as lines:
        for part in ledgers.parts(lines):
            if key is not None:
                ledgers.verify(part, key)
            yield part


def _replay(connection: psycopg.Connection, file: Path, public_key: Path | None) -> Rows:
    """Replay all parts, and lay out what came of it."""
    total: dict[str, Any] = {}
    for part in _verified(file, public_key):
        (result,) = one(connection, "select gdpr.replay(%s)", [part.document])
        lost = result.pop("lost")
        total.pop("lost", None)
        lists = {name: [*total.pop(name, []), *result.pop(name)] for name in _LISTS}
        total = {**_sum([total, result]), **lists, "lost": lost}
    if not total:
        raise GdprdbError("the ledger has no part")
    return Rows(["what", "value"], list(flattened(total)), document=total)


def _sum(counts: Any) -> dict[str, int]:
    """Counts of several parts, added up."""
    total: dict[str, int] = {}
    for part in counts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total
