"""What the rights of one person, and of many, cost at a size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import psycopg

from bench import clock
from bench.contenders import DPO
from bench.lines import Line
from gdprdb.server import Cluster

#: Persons handled one by one, after some that are not counted.
PERSONS, WARM_UP = 50, 10


def each(officer: psycopg.Connection, call: bytes, persons: Iterator[int]) -> tuple[float, float]:
    """The medians of milliseconds that a call for one person takes: on the clock, of the CPU."""
    wall, cpu = [], []
    for number in range(WARM_UP + PERSONS):
        start, spent = time.perf_counter(), clock.backend_cpu_us(officer.info.backend_pid)
        officer.execute(call, [next(persons)], prepare=True).fetchall()
        if number >= WARM_UP:
            wall.append((time.perf_counter() - start) * 1000)
            cpu.append((clock.backend_cpu_us(officer.info.backend_pid) - spent) / 1000)
    return median(wall), median(cpu)


def batch(officer: psycopg.Connection, persons: list[int]) -> tuple[float, float]:
    """Erasures in a second of a batch in chunks of 500, and the CPU's milliseconds for each."""
    row = officer.execute("select gdpr.open_erasure_batch(%s, 'bench')", [persons]).fetchone()
    assert row is not None
    start, remaining = time.perf_counter(), len(persons)
    spent = clock.backend_cpu_us(officer.info.backend_pid)
    while remaining:
        done = officer.execute("select * from gdpr.run_erasure_batch(%s)", [row[0]]).fetchone()
        assert done is not None
        assert done[1] == 0, "somebody could not be erased"
        remaining = done[2]
    cpu = clock.backend_cpu_us(officer.info.backend_pid) - spent
    return len(persons) / (time.perf_counter() - start), cpu / 1000 / len(persons)


def measure(cluster: Cluster, name: str, people: int, many: int) -> list[Line]:
    """All measurements in one database.

    Args:
        cluster: where it is.
        name: the database.
        people: persons in it.
        many: how many a batch erases.
    """
    busy = people // 10
    # 7919 is prime and no factor of the size, so these steps visit everybody once
    persons = iter(
        [10 * (1 + step * 7919 % busy) for step in range(2 * (PERSONS + WARM_UP) + many)]
    )
    with psycopg.connect(cluster.dsn(name, DPO), autocommit=True) as officer:
        access = each(officer, b"select gdpr.access_report(%s)", persons)
        erase = each(officer, b"select gdpr.erase(%s, 'bench')", persons)
        rate = batch(officer, [next(persons) for _ in range(many)])
    return [
        Line("access report, rows in 9 tables", people, *access, "ms", 10, flat=1.3),
        Line("erase one person, rows in 9 tables", people, *erase, "ms", 15, flat=1.3),
        Line(f"erase {many:,}, in chunks of 500", people, *rate, "a second", 500, floor=True),
    ]
