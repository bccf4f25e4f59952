"""``python -m bench.rights``: measure the rights of persons, forgetting after a restore, and
replacing the key."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import psycopg
from rich.console import Console

from bench.contenders import APP, DPO, OWNER
from bench.harness import SETTINGS
from bench.lines import Line, show, write
from bench.report import about_this_run
from bench.rights.people import make
from bench.rights.persons import PERSONS, WARM_UP, measure
from bench.rights.replay import replay
from bench.rights.rotation import rotation
from gdprdb.server import Cluster

#: Seconds that the replay of a ledger of 100,000 entries may take.
REPLAY = 120


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
    parser.add_argument(
        "--entries",
        type=int,
        default=10_000 if quick else 100_000,
        help="of the ledger that is replayed",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parents[1] / "out",
        help="where the results are written",
    )
    arguments = parser.parse_args()
    people = max(arguments.people, 50_000)
    words = Console(stderr=True)
    lines: list[Line] = []
    begun = time.perf_counter()
    with Cluster(settings=SETTINGS) as cluster:
        with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
            postgres.execute(f"create role {OWNER} login createrole".encode())
            for login in (APP, DPO):
                postgres.execute(f"create role {login} login".encode())
            row = postgres.execute("show server_version").fetchone()
        for size in (people, people // 10):
            start = time.perf_counter()
            name = make(cluster, size)
            words.print(f"{size:,} persons filled in {time.perf_counter() - start:.0f} s")
            many = min(10_000, size // 10 - 2 * (PERSONS + WARM_UP))
            lines += measure(cluster, name, size, many)
            lines.append(rotation(cluster, name, size))
        replayed = replay(cluster, arguments.entries)
    limit = REPLAY * replayed.entries / 100_000
    lines.append(
        Line(
            f"replay a ledger of {replayed.entries:,} entries",
            replayed.people,
            replayed.seconds,
            replayed.cpu_ms,
            "s",
            limit,
        )
    )
    assert row is not None
    about = about_this_run(str(row[0]), people, time.perf_counter() - begun)
    write(lines, about, arguments.out, "rights")
    show(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
