"""The databases: people under gdprdb, and the same people under a generic audit trigger."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.contenders import APP, DPO, GDPRDB, OWNER, audit_by_hand, create_application
from gdprdb.server import Cluster

#: An auditor, who reads no values.
AUDITOR = "bench_auditor"

#: The databases.
AUDIT, JSONB = "bench_audit", "bench_jsonb"

#: Persons in each.
PEOPLE = 10_000


def make(cluster: Cluster) -> None:
    """Make both databases."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
        postgres.execute(f"create role {OWNER} login createrole".encode())
        for login in (APP, DPO, AUDITOR, "metabase"):
            postgres.execute(f"create role {login} login".encode())
        for name in (AUDIT, JSONB):
            postgres.execute(f"create database {name} owner {OWNER}".encode())
    for name in (AUDIT, JSONB):
        with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as owner:
            create_application(owner, PEOPLE, 0)
            if name == AUDIT:
                GDPRDB.protect(owner)
                owner.execute(f"grant gdpr_dpo to {DPO}".encode())
                owner.execute(f"grant gdpr_auditor to {AUDITOR}".encode())
            else:
                audit_by_hand(owner)
            owner.execute("vacuum (full, analyze)")


@dataclass(slots=True)
class Memory:
    """Memory of a process that is its own.

    Attributes:
        peak: the most that was seen, in MB.
    """

    peak: float = 0.0


@contextmanager
def memory_of(pid: int) -> Iterator[Memory]:
    """Watch the memory of a process, without what it shares, during the block."""
    memory, ended = Memory(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    memory.peak = max(memory.peak, int(line.split()[1]) / 1024)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()
