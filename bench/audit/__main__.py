"""``python -m bench.audit``: what the audit costs, and how fast it is sealed, verified and read."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import psycopg
from rich.console import Console

from bench.audit import reading, sealing, site, writing
from bench.harness import SETTINGS
from bench.lines import Line, show, write
from bench.report import about_this_run
from gdprdb.server import Cluster

PARTS = ("writing", "sealing", "reading")


def main() -> int:
    """Measure the parts that are asked for. Exit code 0: it ran, whatever the budgets say."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit", description=__doc__)
    quick = os.environ.get("QUICK", "0") not in ("", "0")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument(
        "--records",
        type=int,
        default=int(os.environ.get("RECORDS") or (200_000 if quick else 2_000_000)),
        help="audit records that are read; 50,000,000 take 25 GB [env: RECORDS]",
    )
    parser.add_argument(
        "--sealed",
        type=int,
        default=100_000 if quick else 1_000_000,
        help="audit records that are sealed and verified",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parents[1] / "out",
        help="where the results are written",
    )
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    words = Console(stderr=True)
    lines: list[Line] = []
    begun = time.perf_counter()
    # records are filled in by statements that need not be written to the WAL
    settings = SETTINGS | {"wal_level": "minimal", "max_wal_senders": "0"}
    with Cluster(settings=settings) as cluster:
        site.make(cluster)
        if "writing" in parts:
            lines += writing.measure(cluster, 10_000 if quick else 100_000, 0 if quick else 10**6)
            words.print("writing: measured")
        if "sealing" in parts:
            lines += sealing.measure(cluster, arguments.sealed)
            words.print("sealing: measured")
        if "reading" in parts:
            lines += reading.measure(cluster, arguments.records, words)
            words.print("reading: measured")
        with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
            ((version,),) = postgres.execute("show server_version").fetchall()
    about = about_this_run(str(version), site.PEOPLE, time.perf_counter() - begun)
    write(lines, about, arguments.out, "audit")
    show(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
