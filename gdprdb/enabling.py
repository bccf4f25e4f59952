"""Enabling at size: a policy applied in moments and batches while applications work.

`gdpr.next_step` says what comes next, from the policy and the database alone; this module
runs it and asks again. So it may be stopped at any point, and whoever calls it again goes on.

Strong locks are asked for with a short ``lock_timeout``, again and again: a request that
waits makes everybody behind it wait too. Batches are as large as fits `BATCH_SECONDS`:
whoever wants a row of a batch waits that long at the most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from gdprdb.dsn import one
from gdprdb.errors import GdprdbError

#: How long a batch may take, in seconds: what it holds, others wait for.
BATCH_SECONDS = 0.08

#: A batch that takes longer than this, in milliseconds, is taken back and tried again, smaller:
#: a busy machine would make it hold its rows for long.
BATCH_LIMIT = 150

#: How long to wait for a lock, and to keep everybody behind waiting, before trying again.
LOCK_TIMEOUT = "50ms"

#: Seconds between two tries: the first pause, and the longest.
PAUSES = (0.05, 2.0)

#: Blocks of the first batch, and of the largest.
BLOCKS = (4, 8192)

#: The table, or a partition, is vacuumed after batches have passed one part in so many of it ...
VACUUM_PART = 10

#: ... and written at least so many rows.
VACUUM_ROWS = 10_000

#: Somebody else has the lock, was in a deadlock with us, moved a row to another partition, or was
#: faster.
_AGAIN = ("55P03", "40P01", "40001")

#: What `gdpr.backfill` returns of a batch.
_BACKFILL = "select rows, state, block, blocks, part::text, part_block, part_blocks, kept_out"


@dataclass(frozen=True)
class Step:
    """What `gdpr.next_step` says.

    Attributes:
        object: the table.
        action: what happens.
        statement: what runs.
        kind: transaction, alone or batches.
    """

    object: str
    action: str
    statement: str
    kind: str


@dataclass(frozen=True)
class Progress:
    """How far the batches of a step are.

    Attributes:
        step: the step.
        block: the block of the table at which they are, of its partitions together.
        blocks: how many it has now.
        rows: rows written by this batch.
        seconds: how long it took.
    """

    step: Step
    block: int
    blocks: int
    rows: int
    seconds: float


#: Is told of each step when it begins, and of each batch when it is done.
Watch = Callable[[Step | Progress], None]


def next_step(connection: psycopg.Connection, policy: Jsonb) -> Step | None:
    """The next step towards a policy, or None when the database is there.

    Args:
        connection: as an administrator who owns the tables.
        policy: the document, as `gdpr.apply` takes it.
    """
    row = connection.execute("select * from gdpr.next_step(%s)", [policy]).fetchone()
    return None if row is None else Step(*row)


def run(
    connection: psycopg.Connection,
    policy: Jsonb,
    watch: Watch = lambda _: None,
    *,
    blocks: int | None = None,
) -> int:
    """Bring the database to a policy while applications work; goes on where it was stopped.

    Args:
        connection: in autocommit, as an administrator who owns the tables.
        policy: the document.
        watch: is told of steps and batches.
        blocks: blocks of each batch; by default as many as fit `BATCH_SECONDS`.

    Returns:
        How many steps it took.

    Raises:
        GdprdbError: somebody else is at it; or a UNIQUE column got values meanwhile that its
            digest takes for one.
    """
    steps = 0
    with _settings(connection):
        while step := next_step(connection, policy):
            watch(step)
            steps += 1
            if step.kind == "batches":
                _batches(connection, step, watch, blocks)
            elif step.kind == "alone":
                _alone(connection, step)
            else:
                _patiently(connection, step.statement)
    return steps


@contextmanager
def _settings(connection: psycopg.Connection) -> Iterator[None]:
    """One at a time; what is lost with the server is done again, so nobody waits for the disk."""
    (free,) = one(connection, "select pg_try_advisory_lock(hashtextextended('gdpr.enabling', 0))")
    if not free:
        raise GdprdbError(
            "somebody else is enabling tables of this database",
            hint="gdpr.enabling shows how far it is; the session may also be one that was left.",
        )
    connection.execute("set synchronous_commit = off")
    connection.execute(sql.SQL("set lock_timeout = {}").format(LOCK_TIMEOUT))
    try:
        yield
    finally:
        # where the server is gone, that is what the caller has to hear of
        with suppress(psycopg.OperationalError):
            connection.execute("select pg_advisory_unlock(hashtextextended('gdpr.enabling', 0))")
            connection.execute("reset lock_timeout")
            connection.execute("reset synchronous_commit")


def _patiently(connection: psycopg.Connection, statement: str) -> tuple[Any, ...] | None:
    """Run a transaction, again and again while somebody is in its way."""
    pause, longest = PAUSES
    while True:
        try:
            cursor = connection.execute(statement.encode())
            return cursor.fetchone() if cursor.description else None
        except psycopg.Error as error:
            if error.sqlstate == "PR006":
                return None
            if error.sqlstate not in _AGAIN:
                raise
        time.sleep(pause)
        pause = min(2 * pause, longest)


def _alone(connection: psycopg.Connection, step: Step) -> None:
    """Run what takes no transaction and stops nobody; it waits as long as it has to."""
    connection.execute("set lock_timeout = 0")
    try:
        connection.execute(step.statement.encode())
    except psycopg.errors.UniqueViolation as error:
        raise GdprdbError(
            f"{step.object}: rows were written meanwhile whose values count as one",
            details=("A UNIQUE column is unique by its canonical form from now on.",),
            hint="Change one of them (they differ in case or spelling only), and go on.",
        ) from error
    finally:
        connection.execute(sql.SQL("set lock_timeout = {}").format(LOCK_TIMEOUT))


def _batches(connection: psycopg.Connection, step: Step, watch: Watch, fixed: int | None) -> None:
    """Write rows a range of blocks after the other, until the state changes."""
    least, most = BLOCKS
    size = fixed or least
    passed = written = 0
    limit = BATCH_LIMIT
    while True:
        began = time.monotonic()
        connection.execute(sql.SQL("set statement_timeout = {}").format(limit))
        try:
            row = _patiently(connection, f"{_BACKFILL} from gdpr.backfill({_quoted(step)}, {size})")
        except psycopg.errors.QueryCanceled:
            # one block that takes longer has to have its time in the end
            limit = limit if size > 1 else 2 * limit
            size = max(1, size // 2)
            # who waited for these rows goes first, or would wait for the next try, too
            time.sleep(PAUSES[0])
            continue
        finally:
            with suppress(psycopg.OperationalError):
                connection.execute("set statement_timeout = 0")
        seconds = time.monotonic() - began
        if row is None or row[3] is None:
            return
        rows, _, block, blocks, part, part_block, part_blocks, kept_out = row
        watch(Progress(step, min(block + size, blocks), blocks, rows, seconds))
        if kept_out:
            # half of the time is theirs
            time.sleep(seconds)
        passed += size
        written += rows
        over = part_block >= part_blocks
        # what comes after the last block reads the whole table, or partition, and holds nothing
        limit = 0 if not over and part_block + size >= part_blocks else BATCH_LIMIT
        if written and (over or (passed * VACUUM_PART >= part_blocks and written >= VACUUM_ROWS)):
            _vacuum(connection, part)
            passed = written = 0
        elif over:
            passed = 0
        if fixed is None and part_block + size <= part_blocks:
            # a step up at the most doubles: one empty stretch says nothing of the next, nor does
            # the end of a partition
            size = max(1, min(2 * size, most, int(size * BATCH_SECONDS / max(seconds, 0.001))))


def _quoted(step: Step) -> str:
    return sql.Literal(step.object).as_string(None)


def _vacuum(connection: psycopg.Connection, table: str) -> None:
    """Make room for the next batches where the last ones left it. Nobody waits for this."""
    # cutting the end off would take a strong lock
    _patiently(connection, f"vacuum (truncate false) {table}")
