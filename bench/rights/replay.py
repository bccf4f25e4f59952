"""How long a database that was restored takes to forget again: the replay of a long ledger."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import psycopg
from psycopg import sql

from bench import clock
from bench.contenders import DPO, OWNER
from gdprdb import migrate
from gdprdb.server import Cluster

#: Of each hundred persons so many are erased, withdraw, object, are restricted: an entry each.
_ERASED, _WITHDRAWN, _OBJECTED, _RESTRICTED = 20, 40, 20, 20

_POLICY = {
    "purposes": {
        "orders": {"basis": "contract"},
        "marketing": {"basis": "consent"},
        "analytics": {"basis": "public_task"},
    },
    "tables": {
        "public.person": {
            "match_on": ["email"],
            "purposes": ["orders", "marketing", "analytics"],
            "columns": {
                "id": {"category": "key"},
                "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
            },
        },
        "public.invoice": {
            "subject": {"via": "person_id"},
            "purposes": ["orders"],
            "columns": {"total": {"category": "transaction"}},
        },
    },
}

_PURPOSE = "select id from gdpr_internal.purpose where name"

_TABLES = """
create table person (id bigint primary key, email text not null unique);
create table invoice (
  id bigint primary key, person_id bigint not null references person, total numeric(10, 2)
);
create index on invoice (person_id);
insert into person select n, 'person.' || n || '@mail.example.org' from generate_series(1, {0}) n;
insert into invoice select n, n, 10 from generate_series(1, {0}) n;
"""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one replay took.

    Attributes:
        entries: how many the ledger had.
        people: persons in the database.
        seconds: for gdpr.replay() of all its parts.
        cpu_ms: of the server, for one entry.
    """

    entries: int
    people: int
    seconds: float
    cpu_ms: float


def replay(cluster: Cluster, entries: int = 100_000) -> Replayed:
    """Write a ledger of about so many entries, and replay it in a copy from before.

    Args:
        cluster: a server with the logins of the benchmark.
        entries: of the ledger; one person each, hundreds of them.

    Raises:
        RuntimeError: the copy did not forget whom it should.
    """
    original, copy = "bench_ledger", "bench_ledger_restored"
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        admin.execute(f"create database {original} owner {OWNER}".encode())
        _load(cluster, original, entries)
        admin.execute(f"create database {copy} template {original}".encode())
        _change(cluster, original, entries)
        with psycopg.connect(cluster.dsn(original, DPO)) as officer:
            lines = [line for (line,) in officer.execute("select gdpr.ledger()::text")]
        ends = [n for n, line in enumerate(lines, 1) if '"seal"' in line]
        with psycopg.connect(cluster.dsn(copy, DPO), autocommit=True) as officer:
            pid = officer.info.backend_pid
            started, spent = time.perf_counter(), clock.backend_cpu_us(pid)
            done = []
            for start, end in zip([0, *ends[:-1]], ends, strict=True):
                part = f"[{','.join(lines[start:end])}]"
                done += officer.execute("select gdpr.replay(%s)", [part]).fetchall()
            seconds = time.perf_counter() - started
            cpu = clock.backend_cpu_us(pid) - spent
        for name in (original, copy):
            admin.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))
    forgotten = sum(result["erasures"] for (result,) in done)
    if forgotten != entries * _ERASED // 100:
        raise RuntimeError(f"{forgotten} persons were erased again, of {entries}")
    count = len(lines) - 2 * len(ends)
    return Replayed(count, entries, seconds, cpu / 1000 / count)


def _load(cluster: Cluster, name: str, people: int) -> None:
    """Persons who have an invoice each and consented to marketing."""
    migrate.init(cluster.dsn(name, OWNER))
    with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as owner:
        owner.execute(f"grant gdpr_dpo to {DPO}".encode())
        owner.execute("select gdpr.create_key('table')")
        owner.execute(_TABLES.format(people).encode())
        owner.execute("select count(*) from gdpr.apply(%s)", [json.dumps(_POLICY)])
    with psycopg.connect(cluster.dsn(name), autocommit=True) as admin:
        # as they would have come in one by one, which is not what is measured
        admin.execute(
            "insert into gdpr_internal.consent_record (subject_id, purpose_id, event, channel)"
            " select s.id, p.id, 'granted', 'import' from gdpr_internal.subject s"
            " join gdpr_internal.purpose p on p.name = 'marketing'"
        )
        admin.execute(
            "select gdpr_internal.refresh_gate(array(select id from gdpr_internal.subject))"
        )
        admin.execute("vacuum analyze")


def _change(cluster: Cluster, name: str, people: int) -> None:
    """What the ledger tells of: each person does one thing."""
    withdrawn = _ERASED + _WITHDRAWN
    objected = withdrawn + _OBJECTED
    with psycopg.connect(cluster.dsn(name), autocommit=True) as admin:
        records = {
            "consent_record (subject_id, purpose_id, event, channel)": (
                _ERASED,
                withdrawn,
                f"s.id, ({_PURPOSE} = 'marketing'), 'withdrawn', 'portal'",
            ),
            "objection_record (subject_id, purpose_id)": (
                withdrawn,
                objected,
                f"s.id, ({_PURPOSE} = 'analytics')",
            ),
            "restriction_record (subject_id, ground)": (
                objected,
                objected + _RESTRICTED,
                "s.id, 'accuracy_contested'",
            ),
        }
        for table, (low, high, values) in records.items():
            admin.execute(
                f"insert into gdpr_internal.{table} select {values}"
                f" from gdpr_internal.subject s where s.id % 100 >= {low}"
                f" and s.id % 100 < {high}".encode()
            )
    with psycopg.connect(cluster.dsn(name, DPO), autocommit=True) as officer:
        for start in range(0, people, 10_000):
            officer.execute(
                "select count(*) from gdpr.erase(array(select subject_id from gdpr.subject"
                " where subject_id > %s and subject_id <= %s and subject_id %% 100 < %s),"
                " 'measured')",
                [start, start + 10_000, _ERASED],
            )
