"""``python -m bench.enabling``: a large table is protected while an application writes it.

10,000,000 rows (``QUICK=1``: 100,000; ``--rows``), a narrow table, two encrypted columns of
which one is searchable and unique (``--types``: a date and a number, too; ``--partitions``: in
so many, where nothing is unique but the key). A writer inserts, changes, finds and deletes rows
all the time, one statement after the other, and keeps a record of what the server has confirmed.
In the middle the server is killed with ``kill -9`` and started again. In the end everything that
was confirmed has to be there, every value has to be encrypted, and the second plan empty.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table

from gdprdb import enabling, migrate
from gdprdb.dsn import one
from gdprdb.errors import GdprdbError
from gdprdb.server import Cluster

OUT = Path(__file__).parent / "out"

#: Seconds that a writer may wait at the most.
BUDGET = 0.2

#: Seconds between two statements of the writer.
PAUSE = 0.002

#: Seconds that the writer works alone, before and afterwards.
ALONE = (3.0, 2.0)

#: Rows that the writer touches and keeps a record of.
TOUCHED = 20_000

SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "2GB",
    "maintenance_work_mem": "256MB",
    "wal_compression": "on",
    "restart_after_crash": "off",
}

POLICY: dict[str, Any] = {
    "purposes": {"orders": {"basis": "contract"}},
    "roles": {"app": {"audience": "clear", "purposes": ["orders"]}},
    "tables": {
        "public.person": {
            "subject": "self",
            "match_on": ["email"],
            "purposes": ["orders"],
            "columns": {
                "email": {
                    "category": "contact",
                    "identifier": "email",
                    "encrypt": "searchable",
                    "mask": "email",
                },
                "name": {"category": "identity", "encrypt": True},
                "city": {"category": "contact"},
            },
        }
    },
}

#: Columns that become text: see ``--types``.
TYPES = {"born": "date not null default '1980-05-17'", "balance": "numeric(12, 2) default 19.90"}

_FILL = """
insert into person (email, name, city)
select 'person.' || n || '@example.com', 'Ingrid Bergström', 'Hamburg'
from generate_series(1, %s) as n
"""


_LOOK = """
select extract(epoch from clock_timestamp() - query_start), wait_event_type, wait_event
from pg_stat_activity where application_name = 'writer' and state = 'active'
"""


@dataclass(slots=True)
class Writer:
    """An application that goes on.

    Attributes:
        dsn: where.
        rows: how many there were in the beginning.
        stop: set when it is to end.
        phase: what goes on meanwhile.
        waits: the longest statement of each phase, in seconds.
        writes: how many statements in each phase.
        known: e-mail and city of the rows it touched, as the server confirmed them; None: deleted.
        failed: errors but those of a server that was killed.
        unknown: rows of which the server was killed before it confirmed what happened to them.
        locked: the longest wait for a lock in each phase, in seconds, as seen from outside.
        reasons: what statements waited for that took too long, by hundredths of seconds.
    """

    dsn: str
    rows: int
    stop: threading.Event = field(default_factory=threading.Event)
    phase: str = "before"
    waits: dict[str, float] = field(default_factory=dict)
    late: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    known: dict[int, tuple[str, str] | None] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)
    locked: dict[str, float] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    def look(self, admin: str) -> None:
        """See a hundred times a second what the writer waits for, from outside.

        On a busy machine a statement may take long because nobody lets it run: only what
        waits for a lock waits for us.
        """
        while not self.stop.is_set():
            try:
                with psycopg.connect(admin, autocommit=True) as connection:
                    while not self.stop.is_set():
                        row = connection.execute(_LOOK).fetchone()
                        if row is not None:
                            self._seen(float(row[0]), row[1], row[2])
                        time.sleep(0.01)
            except psycopg.OperationalError:
                time.sleep(0.05)

    def _seen(self, seconds: float, kind: str | None, event: str | None) -> None:
        if kind == "Lock":
            self.locked[self.phase] = max(self.locked.get(self.phase, 0), seconds)
        if seconds > BUDGET:
            self.reasons[f"{kind} {event}"] += 1

    def run(self) -> None:
        """Work until told to stop; come back after the server was away."""
        dice = random.Random(7)
        while not self.stop.is_set():
            try:
                with psycopg.connect(
                    self.dsn, autocommit=True, application_name="writer"
                ) as connection:
                    while not self.stop.is_set():
                        self._write(connection, dice)
                        time.sleep(PAUSE)
            except psycopg.OperationalError:
                # the server was killed: what it had not confirmed, nobody knows
                time.sleep(0.05)
            except psycopg.Error as error:
                self.failed.append(f"{self.phase}: {error}")

    def _write(self, connection: psycopg.Connection, dice: random.Random) -> None:
        key = 1 + dice.randrange(TOUCHED) * (self.rows // TOUCHED or 1) % self.rows
        number = dice.randrange(1_000_000_000)
        if key in self.unknown:
            return
        before = self.known.get(key, (f"person.{key}@example.com", "Hamburg"))
        after: tuple[str, str] | None
        parameters: list[object]
        if before is None:
            after = None
            statement, parameters = (
                "insert into person (email, name, city) values (%s, 'N', 'Ulm')",
                [f"new.{number}.{time.monotonic_ns()}@example.com"],
            )
        elif number % 10 == 0:
            after = (f"moved.{key}.{number}@example.com", before[1])
            statement, parameters = "update person set email = %s where id = %s", [after[0], key]
        elif number % 50 == 1:
            after = None
            statement, parameters = "delete from person where id = %s", [key]
        elif number % 10 == 2:
            after = before
            statement, parameters = "select email from person where id = %s", [key]
        else:
            after = (before[0], f"City {number}")
            statement, parameters = "update person set city = %s where id = %s", [after[1], key]
        phase = self.phase
        began = time.monotonic()
        try:
            connection.execute(statement.encode(), parameters)
        except psycopg.OperationalError:
            # done or not: nobody knows
            self.unknown.add(key)
            self.known.pop(key, None)
            raise
        seconds = time.monotonic() - began
        self.known[key] = after
        self.writes[phase] += 1
        self.waits[phase] = max(self.waits.get(phase, 0), seconds)
        self.late[phase] += seconds > BUDGET


def _kill(cluster: Cluster) -> None:
    """kill -9 of the server and all its processes at once."""
    postmaster = int((cluster.data / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    processes = [postmaster, *map(int, children)]
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    while any(_runs(process) for process in processes):
        time.sleep(0.01)
    (cluster.data / "postmaster.pid").unlink()
    for lock in cluster.socket_dir.glob(".s.PGSQL.*.lock"):
        lock.unlink()


def _runs(process: int) -> bool:
    """Whether a process is there, and not only waiting to be collected."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def _start(cluster: Cluster) -> None:
    """Start the server again, however long it takes to recover."""
    with contextlib.suppress(GdprdbError):
        cluster.start()
    deadline = time.monotonic() + 1800
    while True:
        try:
            psycopg.connect(cluster.dsn()).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


class _KilledError(Exception):
    """The server was killed."""


def _enable(
    cluster: Cluster, writer: Writer, kill_at: float | None, say: Any, seconds: dict[str, float]
) -> None:
    """Apply the policy in batches; what each step takes is added to its seconds."""
    began = time.monotonic()
    action = "begin"
    told = 0.0

    def watch(what: enabling.Step | enabling.Progress) -> None:
        nonlocal began, action, told
        if isinstance(what, enabling.Step):
            now = time.monotonic()
            seconds[action] += now - began
            began, action = now, what.action
            writer.phase = action
            say(f"{time.strftime('%H:%M:%S')} {action}")
        else:
            if time.monotonic() > told + 20:
                told = time.monotonic()
                took = round(what.seconds * 1000)
                say(f"  block {what.block:,} of {what.blocks:,}: {what.rows} rows, {took} ms")
            if kill_at is not None and what.block > kill_at * what.blocks and "persons" in action:
                _kill(cluster)
                raise _KilledError

    try:
        with psycopg.connect(cluster.dsn("bench", "owner"), autocommit=True) as connection:
            enabling.run(connection, Jsonb(POLICY), watch)
    finally:
        seconds[action] += time.monotonic() - began


def _facts(connection: psycopg.Connection) -> dict[str, Any]:
    row = connection.execute(
        "select sum(pg_relation_size(relid))::bigint, sum(pg_indexes_size(relid))::bigint,"
        " pg_database_size('bench'), pg_current_wal_insert_lsn()::text"
        " from (select 'person'::regclass union"
        " select relid from pg_partition_tree('person')) as p (relid)"
    ).fetchone()
    assert row is not None
    return dict(zip(("heap", "indexes", "database", "lsn"), row, strict=True))


def _create(owner: psycopg.Connection, partitions: int) -> None:
    """The table; of one with partitions nothing can be unique but with its key."""
    owner.execute(
        "create table person (id bigint generated always as identity primary key,"
        f" email varchar(100) not null{'' if partitions else ' unique'}, name text, city text)"
        f"{' partition by hash (id)' if partitions else ''}".encode()
    )
    for number in range(partitions):
        owner.execute(
            f"create table person_{number} partition of person"
            f" for values with (modulus {partitions}, remainder {number})".encode()
        )


def measure(
    rows: int, console: Console, *, kill: bool, types: bool, partitions: int
) -> dict[str, Any]:
    """Make a table, protect it while it is written, and look at what came out.

    Args:
        rows: how many.
        console: where the course is told.
        kill: the server is killed in the middle.
        types: the table has columns that are not text, which are encrypted, too.
        partitions: how many the table has; 0: it is not partitioned.
    """
    if types:
        POLICY["tables"]["public.person"]["columns"] |= {
            name: {"category": "demographic", "encrypt": True} for name in TYPES
        }
    say = console.print
    directory = Path(tempfile.mkdtemp(prefix="gdprdb-enabling-", dir="/var/tmp"))
    directory.chmod(0o711)
    cluster = Cluster(directory / "server", settings=SETTINGS)
    try:
        cluster.start()
        with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
            admin.execute("create role owner login createrole")
            admin.execute("create role app login")
            admin.execute("alter role app set search_path = gdpr_clear, public")
            admin.execute("create database bench owner owner")
        migrate.init(cluster.dsn("bench", "owner"))
        owner = psycopg.connect(cluster.dsn("bench", "owner"), autocommit=True)
        owner.execute("select gdpr.create_key('table')")
        _create(owner, partitions)
        for name, definition in TYPES.items() if types else ():
            owner.execute(f"alter table person add column {name} {definition}".encode())
        owner.execute("grant select, insert, update, delete on person to app")
        say(f"{time.strftime('%H:%M:%S')} {rows:,} rows")
        owner.execute(_FILL, [rows])
        owner.execute("vacuum analyze person")
        before = _facts(owner)
        (_, _, _, _, guess, room, wal_guess, *_) = (
            owner.execute("select * from gdpr.estimate(%s)", [Jsonb(POLICY)]).fetchone()
            or [None] * 9
        )
        owner.close()
        writer = Writer(cluster.dsn("bench", "app"), rows)
        thread = threading.Thread(target=writer.run, daemon=True)
        thread.start()
        threading.Thread(target=writer.look, args=[cluster.dsn("bench")], daemon=True).start()
        time.sleep(ALONE[0])
        began = time.monotonic()
        seconds: dict[str, float] = defaultdict(float)
        try:
            _enable(cluster, writer, 0.5 if kill else None, say, seconds)
        except _KilledError:
            say(f"{time.strftime('%H:%M:%S')} the server was killed")
            writer.phase = "away"
            _start(cluster)
            say(f"{time.strftime('%H:%M:%S')} it is back")
            _enable(cluster, writer, None, say, seconds)
        took = time.monotonic() - began
        writer.phase = "after"
        time.sleep(ALONE[1])
        writer.stop.set()
        thread.join(60)
        return {
            "rows": rows,
            "partitions": partitions,
            "seconds": round(took, 1),
            "rows_per_second": round(rows / took),
            "estimate": {"seconds": guess, "room": room, "wal": wal_guess},
            "steps": {action: round(value, 2) for action, value in seconds.items()},
            "waits": {phase: round(wait, 4) for phase, wait in writer.waits.items()},
            "late": dict(writer.late),
            "locked": {phase: round(wait, 4) for phase, wait in writer.locked.items()},
            "reasons": dict(writer.reasons),
            "writes": dict(writer.writes),
            "failed": writer.failed,
            **_look(cluster, writer, before),
        }
    finally:
        cluster.remove()
        shutil.rmtree(directory, ignore_errors=True)


def _look(cluster: Cluster, writer: Writer, before: dict[str, Any]) -> dict[str, Any]:
    """What came out: sizes, WAL, bloat, and whether anything is lost or left in plaintext."""
    with psycopg.connect(cluster.dsn("bench", "owner"), autocommit=True) as owner:
        left = owner.execute("select count(*) from gdpr.plan(%s)", [Jsonb(POLICY)]).fetchone()
    with psycopg.connect(cluster.dsn("bench"), autocommit=True) as admin:
        after = _facts(admin)
        (wal,) = one(admin, "select pg_wal_lsn_diff(%s, %s)", [after["lsn"], before["lsn"]])
        (plain, unclaimed, keyless) = (
            admin.execute(
                "select count(*) filter (where not starts_with(email, 'gdpr1:') or not"
                " starts_with(name, 'gdpr1:')), count(*) filter (where gdpr_subject_id is null),"
                " count(*) filter (where not exists (select from gdpr_internal.subject_key as k"
                " where k.subject_id = p.gdpr_subject_id)) from person as p"
            ).fetchone()
            or [None] * 3
        )
        admin.execute("create table compact as select * from person")
        (compact,) = admin.execute("select pg_relation_size('compact')").fetchone() or [0]
    with psycopg.connect(cluster.dsn("bench", "app"), autocommit=True) as app:
        lost = 0
        for key, (email, city) in [(k, v) for k, v in writer.known.items() if v is not None][:5000]:
            found = app.execute("select email, city from person where id = %s", [key]).fetchone()
            lost += found != (email, city)
        for key in [k for k, v in writer.known.items() if v is None]:
            lost += app.execute("select from person where id = %s", [key]).fetchone() is not None
    return {
        "wal": int(wal),
        "heap": [before["heap"], after["heap"]],
        "indexes": [before["indexes"], after["indexes"]],
        "database": [before["database"], after["database"]],
        "bloat": round(after["heap"] / compact - 1, 3),
        "plaintext": plain,
        "without_person": unclaimed,
        "without_key": keyless,
        "lost": lost,
        "second_plan": left[0] if left else None,
    }


def main() -> int:
    """Measure and report; 3 when a writer waited too long or something was lost."""
    parser = argparse.ArgumentParser(description="Protect a large table while it is written.")
    parser.add_argument(
        "--rows", type=int, default=100_000 if os.environ.get("QUICK") else 10_000_000
    )
    parser.add_argument("--no-kill", action="store_true", help="let the server live")
    parser.add_argument("--types", action="store_true", help="a date and a number, too")
    parser.add_argument("--partitions", type=int, default=0, help="of the table; 0: it has none")
    arguments = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    found = measure(
        arguments.rows,
        console,
        kill=not arguments.no_kill,
        types=arguments.types,
        partitions=arguments.partitions,
    )
    OUT.mkdir(exist_ok=True)
    (OUT / "enabling.json").write_text(json.dumps(found, indent=2) + "\n")
    table = Table("while", "seconds", "statements", "longest", "over 200 ms", "for a lock")
    for phase, wait in found["waits"].items():
        table.add_row(
            phase,
            f"{found['steps'].get(phase, 0):.1f}",
            f"{found['writes'][phase]:,}",
            f"{wait * 1000:.0f} ms",
            str(found["late"].get(phase, 0)),
            f"{found['locked'].get(phase, 0) * 1000:.0f} ms",
        )
    Console().print(table)
    print(json.dumps({k: v for k, v in found.items() if k not in ("steps", "waits", "writes")}))
    wrong = (
        found["plaintext"]
        or found["without_person"]
        or found["without_key"]
        or found["lost"]
        or found["second_plan"]
        or found["failed"]
    )
    return 3 if wrong or max(found["locked"].values(), default=0) > BUDGET else 0


if __name__ == "__main__":
    sys.exit(main())
