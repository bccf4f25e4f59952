"""``python -m bench.rights``: measure access and erasure of persons with rows in nine tables,
and the rate at which the key is replaced."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from bench import clock
from bench.contenders import APP, DPO, OWNER
from bench.harness import SETTINGS
from gdprdb import migrate
from gdprdb.server import Cluster

HERE = Path(__file__).parent

#: Persons handled one by one, after some that are not counted.
PERSONS, WARM_UP = 50, 10

POLICY: dict[str, Any] = {
    "purposes": {"orders": {"basis": "contract"}},
    "roles": {APP: {"audience": "clear", "purposes": ["orders"]}},
    "tables": {
        "public.person": {
            "match_on": ["email"],
            "purposes": ["orders"],
            "columns": {
                "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
                "name": {"category": "identity", "encrypt": True},
                "city": {"category": "contact"},
            },
        },
        **{
            f"public.doing_{n}": {
                "subject": {"via": "person_id"},
                "purposes": ["orders"],
                "columns": {
                    "amount": {"category": "transaction"},
                    "note": {"category": "other", "sensitive": True},
                },
            }
            for n in range(1, 9)
        },
    },
}


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement and its budget.

    Attributes:
        what: the operation.
        people: persons in the database.
        value: what was measured, on the clock.
        cpu_ms: the server's CPU time for one person.
        unit: of the value and the budget.
        budget: the limit; None where the line is there to compare with.
        at_least: whether the limit is a floor.
    """

    what: str
    people: int
    value: float
    cpu_ms: float
    unit: str
    budget: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether the budget holds."""
        if self.budget is None:
            return "-"
        within = self.value >= self.budget if self.at_least else self.value <= self.budget
        return "within" if within else "over"


def make(cluster: Cluster, people: int) -> str:
    """A protected database with so many persons; its name.

    Raises:
        RuntimeError: what was filled is not what the application would have written.
    """
    name = f"rights_{people}"
    with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
        postgres.execute(f"create database {name} owner {OWNER}".encode())
    migrate.init(cluster.dsn(name, OWNER))
    with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as owner:
        owner.execute((HERE / "tables.sql").read_bytes())
        owner.execute(f"grant select on all tables in schema public to {APP}".encode())
        owner.execute("select gdpr.create_key('table')")
        owner.execute("select count(*) from gdpr.apply(%s)", [json.dumps(POLICY)])
        owner.execute(f"grant gdpr_dpo to {DPO}".encode())
    with psycopg.connect(cluster.dsn(name), autocommit=True) as postgres:
        postgres.execute("select set_config('bench.people', %s, false)", [str(people)])
        postgres.execute((HERE / "fill.sql").read_bytes())
        postgres.execute("vacuum analyze")
        wrong = postgres.execute(
            "select * from gdpr.doctor() where severity = 'error' or topic in ('drift', 'gate')"
        ).fetchall()
    with psycopg.connect(cluster.dsn(name, APP), autocommit=True) as app:
        seen = app.execute(
            "select p.id, p.name from gdpr_clear.person as p"
            " where p.email_digest = gdpr.digest('email', 'p10@example.com')"
        ).fetchall()
    if seen != [(10, "Name")] or wrong:
        raise RuntimeError(f"{name} is not filled as it should be: {seen}, {wrong}")
    return name


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


def rotation(owner: psycopg.Connection) -> tuple[float, float]:
    """Data keys wrapped by another key in a second, in transactions of 10,000, and the CPU's
    milliseconds for each."""
    row = owner.execute("select sum(data_keys)::bigint from gdpr.key_status").fetchone()
    assert row is not None
    start, spent = time.perf_counter(), clock.backend_cpu_us(owner.info.backend_pid)
    owner.execute("select gdpr.rotate_key()")
    while owner.execute("select gdpr.rewrap_keys()").fetchall() != [(0,)]:
        pass
    owner.execute("select gdpr.finish_rotation()")
    cpu = clock.backend_cpu_us(owner.info.backend_pid) - spent
    return row[0] / (time.perf_counter() - start), cpu / 1000 / row[0]


def measure(cluster: Cluster, name: str, people: int, many: int, *, main: bool) -> list[Line]:
    """All measurements at one size."""
    busy = people // 10
    # 7919 is prime and no factor of the size, so these steps visit everybody once
    persons = iter(
        [10 * (1 + step * 7919 % busy) for step in range(2 * (PERSONS + WARM_UP) + many)]
    )
    with psycopg.connect(cluster.dsn(name, DPO), autocommit=True) as officer:
        access = each(officer, b"select gdpr.access_report(%s)", persons)
        erase = each(officer, b"select gdpr.erase(%s, 'bench')", persons)
        rate = batch(officer, [next(persons) for _ in range(many)])
    with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as owner:
        wrapped = rotation(owner)
    return [
        Line("access report, rows in 9 tables", people, *access, "ms", 10 if main else None),
        Line("erase one person, rows in 9 tables", people, *erase, "ms", 15 if main else None),
        Line(f"erase {many:,} persons", people, *rate, "a second", 500 if main else None, True),
        Line("replace the key: data keys wrapped anew", people, *wrapped, "a second"),
    ]


def main() -> int:
    """Measure at a size and a tenth of it. Exit code 0: it ran, whatever the budgets say."""
    parser = argparse.ArgumentParser(prog="python -m bench.rights", description=__doc__)
    quick = os.environ.get("QUICK", "0") not in ("", "0")
    parser.add_argument(
        "--people",
        type=int,
        default=int(os.environ.get("PEOPLE") or (100_000 if quick else 1_000_000)),
        help="persons, at least 50,000; every tenth has rows in all tables [env: PEOPLE]",
    )
    people = max(parser.parse_args().people, 50_000)
    words = Console(stderr=True)
    lines: list[Line] = []
    with Cluster(settings=SETTINGS) as cluster:
        with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
            postgres.execute(f"create role {OWNER} login createrole".encode())
            for login in (APP, DPO):
                postgres.execute(f"create role {login} login".encode())
        for size in (people, people // 10):
            start = time.perf_counter()
            name = make(cluster, size)
            words.print(f"{size:,} persons filled in {time.perf_counter() - start:.0f} s")
            many = min(10_000, size // 10 - 2 * (PERSONS + WARM_UP))
            lines += measure(cluster, name, size, many, main=size == people)
    table = Table("operation", "people", "measured", "CPU", "budget", "")
    for line in lines:
        limit = "" if line.budget is None else f"{line.budget:g}"
        table.add_row(
            line.what,
            f"{line.people:,}",
            f"{line.value:,.1f} {line.unit}",
            f"{line.cpu_ms:.1f} ms",
            limit,
            line.verdict,
        )
    (Console() if sys.stdout.isatty() else Console(width=120)).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
