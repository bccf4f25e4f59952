"""At what rate the key of a database is replaced."""

from __future__ import annotations

import time

import psycopg

from bench import clock
from bench.contenders import OWNER
from bench.lines import Line
from gdprdb.server import Cluster


def rotation(cluster: Cluster, name: str, people: int) -> Line:
    """Data keys wrapped by another key in a second, in transactions of 10,000."""
    with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as owner:
        row = owner.execute("select sum(data_keys)::bigint from gdpr.key_status").fetchone()
        assert row is not None
        keys = row[0]
        start, spent = time.perf_counter(), clock.backend_cpu_us(owner.info.backend_pid)
        owner.execute("select gdpr.rotate_key()")
        while owner.execute("select gdpr.rewrap_keys()").fetchall() != [(0,)]:
            pass
        owner.execute("select gdpr.finish_rotation()")
        cpu = clock.backend_cpu_us(owner.info.backend_pid) - spent
        rate = keys / (time.perf_counter() - start)
    what = "replace the key: data keys wrapped anew"
    return Line(what, people, rate, cpu / 1000 / keys, "a second", 10_000, floor=True)
