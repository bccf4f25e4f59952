"""``python -m bench``: run the benchmark and show the table of budgets."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from bench import report
from bench.harness import FULL, QUICK, chosen, run
from gdprdb.errors import GdprdbError


def main() -> int:
    """Run what the command line asks for. Exit codes: 0 done, 1 it could not run, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure gdprdb against a plain table and controls built by hand, in one run.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        default=os.environ.get("QUICK", "0") not in ("", "0"),
        help="a tenth of the people, short rounds: two minutes, not fifteen [env: QUICK=1]",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "out",
        help="where the results are written",
    )
    parser.add_argument("operations", nargs="*", help="only these operations")
    arguments = parser.parse_args()
    try:
        operations = chosen(arguments.operations)
    except ValueError as error:
        parser.error(str(error))

    words = Console(stderr=True)
    scale = QUICK if arguments.quick else FULL
    start = time.perf_counter()
    try:
        results, version = run(scale, operations, report.Progress(words))
    except GdprdbError as error:
        words.print(error.message, error.hint or "", style="red")
        return 1
    about = report.about_this_run(version, scale.people, time.perf_counter() - start)
    report.write(results, about, arguments.out)
    # a pipe or a log file has no width of its own: it gets the whole table
    answer = Console() if sys.stdout.isatty() else Console(width=200)
    answer.print(report.terminal_table(results, answer.width), about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
