"""What the benchmark prints and writes, and what it reads from pgbench."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench import report
from bench.budgets import Budget, Measurement, Result, Task, compare
from bench.contenders import APP, BY_HAND, DPO, GDPRDB
from bench.harness import QUICK, chosen
from bench.operations import OPERATIONS, read_pgbench
from bench.site import Site
from gdprdb.server import Cluster

INSERT = Task("insert", "insert one row", 4, "wall", False, Budget(1.8, 7, 2))
ERASE = Task("erase", "erase", 1, "wall", False, Budget(us_per_op=10_000, ratio_to_small=1.3))

PGBENCH = """\
transaction type: insert.sql
number of clients: 4
duration: 2 s
number of transactions actually processed: 16000
number of failed transactions: 0 (0.000%)
latency average = 0.500 ms
initial connection time = 9.121 ms
tps = 8000.000000 (without initial connection time)
"""


@pytest.fixture
def results() -> list[Result]:
    return [
        *compare(
            INSERT,
            [
                Measurement("plain", 1_000, 100, 10),
                Measurement("by_hand", 100, 600, 500),
                Measurement("gdprdb", 1_000, 200, 60),
            ],
        ),
        *compare(
            ERASE,
            [
                Measurement("gdprdb", 1_000, 12_000, 9_000),
                Measurement("gdprdb", 100, 10_000, 8_000),
            ],
        ),
    ]


def test_table_has_one_row_for_each_task(results: list[Result]) -> None:
    insert, erase = report.rows_of_table(results)
    assert insert == (
        "insert one row (4 clients)",
        "100 µs / 10 µs",
        "600 µs / 500 µs",
        "200 µs / 60 µs",
        "2.00",
        "6.00",
        "3.00",
        "≤ 1.8 x plain, CPU ≤ 7 x, ≥ 2 x faster",
        "within twice",
    )
    assert erase == (
        "erase (1 client)",
        "-",
        "-",
        "12.0 ms / 9,000 µs",
        "-",
        "-",
        "-",
        "≤ 10 ms, ≤ 1.3 x a tenth",
        "within twice, 1.20x the time at a tenth",
    )


def test_terminal_and_markdown_show_the_same_cells(results: list[Result]) -> None:
    console = Console(width=300, record=True, file=StringIO())
    console.print(report.terminal_table(results, 300))
    shown = console.export_text()
    written = report.markdown(results, "About.")
    for row in report.rows_of_table(results):
        assert all(cell in shown for cell in row)
        assert "| " + " | ".join(row) + " |" in written


def test_a_narrow_terminal_shows_what_decides(results: list[Result]) -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(report.terminal_table(results, 80))
    shown = console.export_text()
    assert "insert one row" in shown
    assert "within twice" in shown
    assert "…" not in shown


def test_results_are_written(results: list[Result], tmp_path: Path) -> None:
    report.write(results, "About.", tmp_path / "out")
    records = json.loads((tmp_path / "out" / "latest.json").read_text())
    assert records == [result.record() for result in results]
    assert (tmp_path / "out" / "latest.md").read_text().startswith("About.\n")


def test_pgbench_time_is_what_one_client_waits() -> None:
    assert read_pgbench(PGBENCH, 4) == (16_000, 500.0)


def test_pgbench_without_a_transaction_counts_nothing() -> None:
    assert read_pgbench("pgbench: error: connection failed", 4) == (0, 0.0)


def test_only_known_operations_can_be_chosen() -> None:
    assert chosen([]) == list(OPERATIONS)
    assert [one.task.clients for one in chosen(["insert"])] == [1, 4]
    with pytest.raises(ValueError, match="no operation sing"):
        chosen(["sing"])


def test_every_operation_has_a_budget_and_its_own_name_and_clients() -> None:
    tasks = [operation.task for operation in OPERATIONS]
    assert all(task.budget.limits() for task in tasks)
    assert len({(task.name, task.clients) for task in tasks}) == len(tasks)


def test_a_site_names_each_person_with_children_once(tmp_path: Path) -> None:
    site = Site(Cluster(tmp_path), GDPRDB, "bench", 1_000, 1, 1)
    persons = list(site.persons)
    assert sorted(persons) == list(range(10, 1_001, 10))
    assert persons != sorted(persons)


def test_settings_of_the_application_survive_the_connection_string(tmp_path: Path) -> None:
    site = Site(Cluster(tmp_path), BY_HAND, "bench", 1_000, 1, 1)
    assert r"-c app.key=correct\\ horse\\ battery\\ staple" in site.dsn(APP)
    assert "app.key" not in site.dsn(DPO)


def test_the_small_site_is_a_tenth_of_the_large(tmp_path: Path) -> None:
    sites = QUICK.sites(Cluster(tmp_path))
    large, small = [site for site in sites if site.contender is GDPRDB]
    assert small.small
    assert not large.small
    assert large.people == 10 * small.people
    assert len({site.database for site in sites}) == len(sites)
