"""``python -m bench.orm``: SQLAlchemy reads 10,000 objects, plain and with encrypted columns."""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench import clock
from bench.contenders import APP, BI, OWNER
from bench.harness import SETTINGS
from gdprdb import migrate
from gdprdb.integrations.sqlalchemy import Personal, protect
from gdprdb.server import PORT, Cluster

HERE = Path(__file__).parent

#: Objects of one reading, rows of a batch of the stream, and how often the slower may cost.
OBJECTS, BATCH, BUDGET = 10_000, 500, 1.5

_FILL = """
insert into person (first_name, last_name, email, phone, birth_date, city)
select 'Ingrid', 'Bergström', 'person.' || n || '@mail.example.org', '+4940' || (1000000 + n),
  date '1950-01-01' + n, 'Hamburg'
from generate_series(1, %s) as n
"""


class Base(DeclarativeBase):
    """Models of the benchmark."""


class Person(Base):
    """A person of the benchmark's application."""

    __tablename__ = "person"
    __table_args__: tuple[Any, ...] = ({"info": {"gdpr": {}}},)

    id: Mapped[int] = mapped_column(primary_key=True)
    first_name: Mapped[str]
    last_name: Mapped[str]
    email: Mapped[str] = mapped_column(Personal)
    phone: Mapped[str] = mapped_column(Personal)
    birth_date: Mapped[datetime.date]
    city: Mapped[str]
    created_at: Mapped[datetime.datetime]


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading all objects took, in milliseconds.

    Attributes:
        wall_ms: on the clock.
        cpu_ms: of the processors, server and client together.
    """

    wall_ms: float
    cpu_ms: float


def make(cluster: Cluster, name: str) -> sa.Engine:
    """A database of the application, protected if its name says so, and its engine."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
        postgres.execute(f"create database {name} owner {OWNER}".encode())
    if name == "protected":
        migrate.init(cluster.dsn(name, OWNER))
    with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as owner:
        owner.execute((HERE / "contenders" / "tables.sql").read_bytes())
        owner.execute(_FILL, [OBJECTS])
        if name == "protected":
            policy = (HERE / "contenders" / "gdprdb" / "policy.toml").read_text(encoding="utf-8")
            owner.execute("select gdpr.create_key('table')")
            owner.execute(
                "select count(*) from gdpr.apply(%s)", [json.dumps(tomllib.loads(policy))]
            )
        owner.execute("vacuum (full, analyze)")
    where = {"host": str(cluster.socket_dir), "port": str(PORT)}
    url = sa.URL.create("postgresql+psycopg", APP, database=name, query=where)
    engine = sa.create_engine(url, pool_size=1, max_overflow=0)
    if name == "protected":
        protect(engine)
    return engine


def read(engine: sa.Engine, *, stream: bool) -> Reading:
    """Read all objects once, in a session that has read some before."""
    options = {"yield_per": BATCH} if stream else {}
    people = sa.select(Person).execution_options(**options)
    with Session(engine) as session:
        pid = session.scalar(sa.select(sa.func.pg_backend_pid()))
        assert pid is not None
        session.scalars(sa.select(Person).limit(10)).all()
        session.expunge_all()
        gc.collect()
        server, client = clock.backend_cpu_us(pid), time.process_time()
        start = time.perf_counter()
        found = session.scalars(people).all()
        wall = time.perf_counter() - start
        used = (clock.backend_cpu_us(pid) - server) / 1000
        used += (time.process_time() - client) * 1000
        assert len(found) == OBJECTS
        assert found[-1].email.endswith("@mail.example.org")
    return Reading(wall * 1000, used)


def main() -> int:
    """Measure. Exit code 0: it ran, whatever the budget says."""
    parser = argparse.ArgumentParser(prog="python -m bench.orm", description=__doc__)
    quick = os.environ.get("QUICK", "0") not in ("", "0")
    parser.add_argument("--rounds", type=int, default=7 if quick else 25)
    rounds = parser.parse_args().rounds
    readings: dict[tuple[bool, str], list[Reading]] = {}
    with Cluster(settings=SETTINGS) as cluster:
        with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
            postgres.execute(f"create role {OWNER} login createrole".encode())
            for login in (APP, BI):
                postgres.execute(f"create role {login} login".encode())
        engines = {name: make(cluster, name) for name in ("plain", "protected")}
        for _ in range(rounds):
            for stream in (True, False):
                for name, engine in engines.items():
                    reading = read(engine, stream=stream)
                    readings.setdefault((stream, name), []).append(reading)
        for engine in engines.values():
            engine.dispose()
    table = Table(
        f"{OBJECTS:,} objects", "plain, ms", "protected, ms", "times", "times CPU", "budget", ""
    )
    for stream in (True, False):
        plain, protected = (
            (median(r.wall_ms for r in taken), median(r.cpu_ms for r in taken))
            for taken in (readings[stream, "plain"], readings[stream, "protected"])
        )
        times = protected[0] / plain[0]
        table.add_row(
            f"as a stream, yield_per={BATCH}" if stream else "all at once",
            f"{plain[0]:.0f}",
            f"{protected[0]:.0f}",
            f"{times:.2f}",
            f"{protected[1] / plain[1]:.2f}",
            f"{BUDGET:g}" if stream else "",
            ("within" if times <= BUDGET else "over") if stream else "-",
        )
    (Console() if sys.stdout.isatty() else Console(width=120)).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
