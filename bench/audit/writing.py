"""What one generated trigger costs, alone, and a generic one beside it.

Of a protected table all triggers are off but the one of the audit, and then that one too; the
difference is what it costs. The same of a plain table and a trigger that keeps rows as jsonb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import psycopg

from bench import clock
from bench.audit.site import AUDIT, JSONB, PEOPLE, memory_of
from bench.contenders import APP
from bench.lines import Line
from gdprdb.server import Cluster

#: Microseconds of CPU that the audit may add to a row.
SINGLE, BULK = 25.0, 12.0
#: How many times less than the generic trigger.
LESS = 5.0

_ROUNDS = 5
#: The first of the persons that are changed past the gate: those before stay readable.
_FIRST = 1001
_COLUMNS = "first_name, last_name, email, phone, birth_date, city"
_KEPT = "gdpr_subject_id, gdpr_subject_ref, gdpr_purposes, gdpr_until, gdpr_email_mask"

_UPDATE = "update public.person set phone = %s, city = %s where id = %s"
_BULK_UPDATE = "update public.person set phone = phone || '1', city = city || '1'"


@dataclass(frozen=True, slots=True)
class Contender:
    """A table, its audit triggers and how each is enabled, and how rows come into it."""

    database: str
    triggers: dict[str, str]
    insert: str
    bulk: str


OURS = Contender(
    AUDIT,
    {"zzz_gdpr_50_audit": "enable always", "zzz_gdpr_50_audit_arrivals": "enable"},
    f"insert into public.person ({_COLUMNS}, {_KEPT}, gdpr_email_digest)"
    f" select {_COLUMNS}, {_KEPT}, gen_random_uuid() from public.person where id = %s",
    f"insert into public.person ({_COLUMNS}, {_KEPT}, gdpr_email_digest)"
    f" select {_COLUMNS}, {_KEPT}, gen_random_uuid()"
    " from public.person, generate_series(1, {times}) where id <= {people}",
)
THEIRS = Contender(
    JSONB,
    {"audit": "enable"},
    f"insert into public.person ({_COLUMNS}) select"
    " first_name, last_name, gen_random_uuid() || email, phone, birth_date, city"
    " from public.person where id = %s",
    f"insert into public.person ({_COLUMNS}) select"
    " first_name, last_name, gen_random_uuid() || email, phone, birth_date, city"
    " from public.person, generate_series(1, {times}) where id <= {people}",
)


def measure(cluster: Cluster, bulk_rows: int, huge: int) -> Iterator[Line]:
    """All lines of writing.

    Args:
        cluster: the server.
        bulk_rows: rows of a bulk statement.
        huge: rows of the one whose memory is looked at; 0 for none.
    """
    times = bulk_rows // PEOPLE
    added: dict[str, dict[str, float]] = {"single insert": {}, "single update": {}}
    added |= {"bulk insert": {}, "bulk update": {}}
    for contender in (OURS, THEIRS):
        with _table(cluster, contender) as (app, set_trigger):
            for what, take in _operations(app, contender, times).items():
                with_it: list[float] = []
                without: list[float] = []
                for _ in range(_ROUNDS):
                    for on, samples in ((True, with_it), (False, without)):
                        set_trigger(on)
                        samples.append(take())
                added[what][contender.database] = median(with_it) - median(without)
            if contender is OURS and huge:
                set_trigger(True)
                yield from _huge(app, huge)
    for what, cost in added.items():
        limit = SINGLE if what.startswith("single") else BULK
        size = 1 if what.startswith("single") else bulk_rows
        ours, theirs = cost[AUDIT], cost[JSONB]
        yield Line(f"audit of a {what}, a row", size, ours, ours / 1000, "µs", limit)
        factor = f"audit of a {what}: times less than a jsonb trigger"
        yield Line(factor, size, theirs / ours, theirs / 1000, "x", LESS, floor=True)


@contextmanager
def _table(
    cluster: Cluster, contender: Contender
) -> Iterator[tuple[psycopg.Connection, Callable[[bool], None]]]:
    """A session of the application, and what sets the trigger of the audit on and off."""
    with (
        psycopg.connect(cluster.dsn(contender.database), autocommit=True) as postgres,
        psycopg.connect(cluster.dsn(contender.database, APP), autocommit=True) as app,
    ):
        postgres.execute("alter table public.person disable trigger user")
        if contender is THEIRS:
            postgres.execute(
                "create trigger audit after insert or update or delete on person"
                " for each row execute function audit.record_change()"
            )
        app.execute("set gdpr.actor = 'clerk 7'; set app.actor = 'clerk 7'")
        app.execute("set synchronous_commit = off")

        def set_trigger(on: bool) -> None:
            for trigger, enable in contender.triggers.items():
                how = enable if on else "disable"
                postgres.execute(f"alter table public.person {how} trigger {trigger}".encode())

        yield app, set_trigger


def _operations(
    app: psycopg.Connection, contender: Contender, times: int
) -> dict[str, Callable[[], float]]:
    """What is measured: each takes a sample, in microseconds of CPU for a row."""
    ((phone,),) = app.execute("select max(phone) from public.person").fetchall()

    def single(statement: str, parameters: Callable[[int], list[object]]) -> float:
        for number in range(_FIRST, _FIRST + 30):
            app.execute(statement.encode(), parameters(number), prepare=True)
        begun = clock.backend_cpu_us(app.info.backend_pid)
        for number in range(_FIRST + 30, _FIRST + 530):
            app.execute(statement.encode(), parameters(number), prepare=True)
        return (clock.backend_cpu_us(app.info.backend_pid) - begun) / 500

    def bulk(statement: str, undone: bool) -> float:
        sql = statement.format(times=times, people=PEOPLE)
        with app.transaction(force_rollback=undone):
            begun = clock.backend_cpu_us(app.info.backend_pid)
            rows = app.execute(sql.encode()).rowcount
            return (clock.backend_cpu_us(app.info.backend_pid) - begun) / rows

    cities = iter(range(1, 10_000_000))
    return {
        "single insert": lambda: single(contender.insert, lambda number: [number]),
        "single update": lambda: single(
            _UPDATE, lambda number: [phone, f"City {next(cities)}", number]
        ),
        "bulk insert": lambda: bulk(contender.bulk, undone=True),
        "bulk update": lambda: bulk(_BULK_UPDATE, undone=True),
    }


def _huge(app: psycopg.Connection, rows: int) -> Iterator[Line]:
    """One statement that inserts very many rows: its time, memory and WAL."""
    sql = OURS.bulk.format(times=rows // PEOPLE, people=PEOPLE)
    position = "select pg_current_wal_insert_lsn() - '0/0'"
    pid = app.info.backend_pid
    with memory_of(pid) as memory, app.transaction(force_rollback=True):
        before = int(app.execute(position).fetchall()[0][0])
        begun = clock.backend_cpu_us(pid)
        app.execute(sql.encode())
        cpu = (clock.backend_cpu_us(pid) - begun) / rows
        written = (int(app.execute(position).fetchall()[0][0]) - before) / rows
    yield Line("one statement, its rows and records: a row", rows, cpu, cpu / 1000, "µs", 60)
    yield Line("one statement: memory of its own", rows, memory.peak, cpu / 1000, "MB", 400)
    yield Line("one statement: WAL a row", rows, written, cpu / 1000, "bytes", 2_000)
