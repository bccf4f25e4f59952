"""``python -m bench.reads``: what reading one person takes at a size and a tenth of it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psycopg
from rich.console import Console
from rich.table import Table

from bench.budgets import Sample
from bench.contenders import APP, BI, GDPRDB, OWNER, PLAIN, Contender
from bench.harness import SETTINGS, chosen
from bench.operations import Operation
from bench.reads.lines import HEADINGS, Line, markdown
from bench.reads.people import make
from bench.report import about_this_run
from bench.site import Site
from gdprdb.server import Cluster

#: Nothing is written while reading is measured: filling need not survive a crash.
_FILLING = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
}


def main() -> int:
    """Measure. Exit code 0: it ran, whatever the budgets say."""
    parser = argparse.ArgumentParser(prog="python -m bench.reads", description=__doc__)
    quick = os.environ.get("QUICK", "0") not in ("", "0")
    parser.add_argument(
        "--people",
        type=int,
        default=int(os.environ.get("PEOPLE") or (100_000 if quick else 1_000_000)),
        help="persons at the larger size [env: PEOPLE]",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parents[1] / "out",
        help="where the results are written",
    )
    arguments = parser.parse_args()
    seconds, rounds = (1, 3) if quick else (2, 7)
    words = Console(stderr=True)
    begun = time.perf_counter()
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(settings=SETTINGS | _FILLING))
        with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
            postgres.execute(f"create role {OWNER} login createrole".encode())
            for login in (APP, BI):
                postgres.execute(f"create role {login} login".encode())
            row = postgres.execute("show server_version").fetchone()
        sizes = arguments.people // 10, arguments.people
        with ThreadPoolExecutor(2) as pool:
            # gdprdb's roles belong to the server: its two sites are filled one after the other
            filled = [
                pool.submit(_fill, cluster, contender, sizes, words)
                for contender in (PLAIN, GDPRDB)
            ]
            sites = [site for done in filled for site in done.result()]
        for site in sites:
            stack.callback(site.close)
        lines: list[Line] = []
        for operation in chosen(["read_by_key", "read_by_email"]):
            lines += _measure(operation, sites, seconds, rounds)
    assert row is not None
    about = about_this_run(str(row[0]), arguments.people, time.perf_counter() - begun)
    arguments.out.mkdir(parents=True, exist_ok=True)
    records = [line.record(lines) for line in lines]
    (arguments.out / "reads.json").write_text(json.dumps(records, indent=2) + "\n")
    (arguments.out / "reads.md").write_text(markdown(lines, about))
    table = Table(*HEADINGS)
    for line in lines:
        table.add_row(*line.cells(lines))
    (Console() if sys.stdout.isatty() else Console(width=160)).print(table)
    return 0


def _fill(
    cluster: Cluster, contender: Contender, sizes: tuple[int, int], words: Console
) -> list[Site]:
    sites = []
    for people in sizes:
        start = time.perf_counter()
        sites.append(make(cluster, contender, people))
        words.print(f"{sites[-1].database} filled in {time.perf_counter() - start:.0f} s")
    return sites


def _measure(operation: Operation, sites: list[Site], seconds: int, rounds: int) -> list[Line]:
    """All sites in turn, each round beginning with another one; one line for each size."""
    samples: dict[str, list[Sample]] = {site.database: [] for site in sites}
    for turn in range(rounds + 1):
        first = turn % len(sites)
        for site in sites[first:] + sites[:first]:
            taken = operation.take(site, seconds)
            if turn:  # the first one warms the caches
                samples[site.database] += taken
    budget = operation.task.budget.ratio_to_plain
    assert budget is not None
    medians = {
        (site.contender.name, site.people): (
            median(sample.wall_us for sample in samples[site.database]),
            median(sample.cpu_us for sample in samples[site.database]),
        )
        for site in sites
    }
    return [
        Line(
            operation.task.title,
            operation.task.clients,
            people,
            medians[PLAIN.name, people],
            medians[GDPRDB.name, people],
            budget,
        )
        for people in sorted({site.people for site in sites})
    ]


if __name__ == "__main__":
    sys.exit(main())
