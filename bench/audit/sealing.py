"""At what rate records are sealed and verified, inside the database and outside, and whether memory
grows with their number."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Generator, Iterator
from typing import Any

import psycopg

from bench import clock
from bench.audit.site import AUDIT, AUDITOR, memory_of
from bench.contenders import OWNER
from bench.lines import Line
from gdprdb.server import Cluster

#: Records in a second of CPU time, at least: on a shared machine the clock tells of the neighbours.
RATE = 100_000
#: Memory in MB, at most, however many records there are.
MEMORY = 100

_FILL = """
insert into gdpr_internal.audit_record (
  operation, table_id, subject_id, row_key, purpose_id, actor, request, login, role,
  application_name, changed, row_hash, payload
)
select
  'UPDATE', 1, 1000000 + n %% 10000, gen_random_uuid(), 1, 'clerk ' || n %% 100, '7f3c', 'crm_app',
  'crm_app', 'shop', '{phone,city}', sha256(int8send(n)), 'gdpr1:' || repeat(md5(n::text), 6)
from generate_series(1, %s) as n
"""


def measure(cluster: Cluster, records: int) -> Iterator[Line]:
    """Fill in records, seal them, and verify all seals there are; first a tenth, for the memory."""
    for line in _measure(cluster, records // 10):
        if line.unit == "MB":
            yield line
    yield from _measure(cluster, records)


def _measure(cluster: Cluster, records: int) -> Iterator[Line]:
    with psycopg.connect(cluster.dsn(AUDIT), autocommit=True) as postgres:
        with postgres.transaction():
            postgres.execute("set local synchronous_commit = off")
            postgres.execute("select gdpr.seal_audit()")
        postgres.execute(_FILL, [records])
        postgres.execute("analyze gdpr_internal.audit_record")
    with psycopg.connect(cluster.dsn(AUDIT, OWNER), autocommit=True) as owner:
        ((sealed,),) = yield from _timed(owner, "select gdpr.seal_audit()", "seal", records)
        assert sealed == records
    with psycopg.connect(cluster.dsn(AUDIT, AUDITOR), autocommit=True) as auditor:
        ((total,),) = auditor.execute("select sum(records)::bigint from gdpr.audit_seal").fetchall()
        statement = "select * from gdpr.verify_audit()"
        found = yield from _timed(auditor, statement, "verify in SQL", total, records)
        assert found == []
    yield from _outside(cluster, total, records)


def _timed(
    session: psycopg.Connection, statement: str, what: str, handled: int, records: int = 0
) -> Generator[Line, None, list[Any]]:
    """Run a statement and tell its rate and memory; its rows are what the generator returns."""
    pid = session.info.backend_pid
    with memory_of(pid) as memory:
        begun = clock.backend_cpu_us(pid)
        rows = session.execute(statement.encode()).fetchall()
        cpu = (clock.backend_cpu_us(pid) - begun) / handled
    yield from _lines(what, records or handled, cpu, memory.peak)
    return rows


def _outside(cluster: Cluster, total: int, records: int) -> Iterator[Line]:
    """``gdprdb audit verify``, a process of its own: its CPU time, beside that of the server."""
    command = [sys.executable, "-m", "gdprdb", "audit", "verify", "--format", "json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*command, "--dsn", cluster.dsn(AUDIT, AUDITOR)], check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    yield from _lines("verify in Python", records, seconds * 1e6 / total, after.ru_maxrss / 1024)


def _lines(what: str, records: int, cpu_us: float, memory: float) -> Iterator[Line]:
    rate = 1e6 / cpu_us
    yield Line(what, records, rate, cpu_us / 1000, "a CPU second", RATE, floor=True)
    yield Line(f"{what}: memory", records, memory, cpu_us / 1000, "MB", MEMORY)
