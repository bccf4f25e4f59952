"""The run: one server, all contenders loaded and protected, then rounds in alternation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby

import psycopg

from bench.budgets import Result, Sample, compare, summarise
from bench.contenders import APP, BI, BY_HAND, CONTENDERS, DPO, GDPRDB, OWNER
from bench.operations import OPERATIONS, Operation
from bench.report import Progress
from bench.site import Site
from gdprdb.server import Cluster

#: What differs from PostgreSQL's defaults, and what must not: durability is as shipped.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "1GB",
    # a checkpoint or a vacuum would fall into the turn of one contender by chance
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    # one process does the work, so CPU and wall time mean the same for all
    "max_parallel_workers_per_gather": "0",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How large and how long a run is.

    Attributes:
        people: persons at the site of the plain table and of gdprdb.
        by_hand_people: persons of the contender built by hand, whose encryption takes long.
        bulk_rows: rows of one bulk insert.
        by_hand_bulk_rows: the same, of the contender built by hand.
        by_hand_scan_rows: rows that the contender built by hand reads in a scan.
        seconds: of one pgbench run.
        rounds: how often each contender takes its turn.
    """

    people: int
    by_hand_people: int
    bulk_rows: int
    by_hand_bulk_rows: int
    by_hand_scan_rows: int
    seconds: int
    rounds: int

    def sites(self, cluster: Cluster) -> list[Site]:
        """One site for each contender, and a second of gdprdb with a tenth of the people."""
        sites = []
        for contender in CONTENDERS:
            if contender is BY_HAND:
                sizes = self.by_hand_people, self.by_hand_bulk_rows, self.by_hand_scan_rows
            else:
                sizes = self.people, self.bulk_rows, self.people
            sites.append(Site(cluster, contender, f"bench_{contender.name}", *sizes))
        tenth = self.people // 10
        sites.append(Site(cluster, GDPRDB, "bench_gdprdb_small", tenth, 0, tenth, small=True))
        return sites


FULL = Scale(1_000_000, 50_000, 100_000, 5_000, 10_000, seconds=2, rounds=5)
QUICK = Scale(100_000, 5_000, 10_000, 1_000, 1_000, seconds=1, rounds=3)


def run(
    scale: Scale, operations: Sequence[Operation], progress: Progress
) -> tuple[list[Result], str]:
    """Run the benchmark.

    Args:
        scale: how large.
        operations: which operations.
        progress: told what happens.

    Returns:
        The results, and the version of the server.

    Raises:
        GdprdbError: the server cannot run here, or gdprdb cannot be installed.
    """
    results: list[Result] = []
    with loaded_sites(scale, progress) as (cluster, sites):
        for operation in operations:
            results += _measure(operation, sites, scale, progress)
        return results, cluster.binaries.version


@contextmanager
def loaded_sites(scale: Scale, progress: Progress) -> Iterator[tuple[Cluster, list[Site]]]:
    """A private server with all contenders loaded and protected; gone at the end."""
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(settings=SETTINGS))
        sites = scale.sites(cluster)
        with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
            postgres.execute(f"create role {OWNER} login createrole".encode())
            for login in (APP, BI, DPO):
                postgres.execute(f"create role {login} login".encode())
            for site in sites:
                postgres.execute(f"create database {site.database} owner {OWNER}".encode())
                stack.callback(site.close)
        # gdprdb's roles belong to the server: its two sites are loaded one after the other
        groups = [list(group) for _, group in groupby(sites, lambda site: site.contender.name)]
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(_load, group, progress) for group in groups]:
                done.result()
        with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
            postgres.execute("checkpoint")
        yield cluster, sites


def _load(sites: Sequence[Site], progress: Progress) -> None:
    for site in sites:
        start = time.perf_counter()
        site.load()
        seconds = time.perf_counter() - start
        progress.say(f"{site.database}: {site.people:,} people loaded in {seconds:.0f} s")


def _measure(
    operation: Operation, sites: Sequence[Site], scale: Scale, progress: Progress
) -> list[Result]:
    """Take all rounds of an operation, each beginning with another contender."""
    task = operation.task
    taking = [site for site in sites if operation.takes_part(site)]
    samples: dict[str, list[Sample]] = {site.database: [] for site in taking}
    for turn in range(scale.rounds):
        progress.show(f"{task.title}, clients: {task.clients}, round {turn + 1} of {scale.rounds}")
        first = turn % len(taking)
        for site in taking[first:] + taking[:first]:
            samples[site.database] += operation.take(site, scale.seconds)
    return compare(
        task,
        [
            summarise(site.contender.name, operation.rows(site), samples[site.database])
            for site in taking
        ],
    )


def chosen(names: Sequence[str]) -> list[Operation]:
    """The operations of these names, or all if there are none.

    Raises:
        ValueError: no operation has such a name; the message lists those that there are.
    """
    known = {operation.task.name for operation in OPERATIONS}
    if unknown := set(names) - known:
        raise ValueError(f"no operation {', '.join(sorted(unknown))}; there are {sorted(known)}")
    return [operation for operation in OPERATIONS if not names or operation.task.name in names]
