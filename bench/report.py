"""What a run says: words on stderr, a table in the terminal, ``latest.json``, ``latest.md``."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.budgets import Budget, Metric, Result, Task

_HEADINGS = (
    "operation",
    "plain",
    "by hand",
    "gdprdb",
    "x plain",
    "x plain, CPU",
    "x faster than by hand",
    "budget",
    "verdict",
)
#: The width from which all columns fit, and the columns that are shown below it.
_WIDE, _ESSENTIAL = 170, (0, 3, 4, 6, 8)
_COLOURS = {"within": "green", "within twice": "yellow", "over": "red", "-": "dim"}
_LEGEND = (
    "Medians, wall time / CPU time of the server, for one operation;"
    " of scans and bulk inserts, for one row."
)


class Progress:
    """Words about the run, for a person at a terminal or a log.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, words: str) -> None:
        """Print a line."""
        self._console.print(words.ljust(self._console.width - 1), highlight=False)

    def show(self, words: str) -> None:
        """Show, on a terminal, a line that the next one overwrites."""
        if self._console.is_terminal:
            line = words[: self._console.width - 1].ljust(self._console.width - 1)
            self._console.print(line, end="\r", style="dim", highlight=False)


def rows_of_table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The table of budgets: one row of text cells for each task, in the order of the run."""
    by_task: dict[Task, dict[str, Result]] = {}
    for result in results:
        if result.main:
            by_task.setdefault(result.task, {})[result.measured.contender] = result
    rows = []
    for task, contenders in by_task.items():
        ours = contenders["gdprdb"]
        verdict = str(ours.verdict)
        if ours.ratio_to_small is not None:
            verdict += f", {ours.ratio_to_small:.2f}x the time at a tenth"
        rows.append(
            (
                _title(task, ours.measured.rows),
                *(_times(contenders.get(name)) for name in ("plain", "by_hand", "gdprdb")),
                _factor(ours.ratio_to_plain),
                _factor(ours.cpu_ratio_to_plain),
                _factor(ours.times_faster_than_by_hand),
                _budget(task.budget, task.metric),
                verdict,
            )
        )
    return rows


def terminal_table(results: Sequence[Result], width: int) -> Table:
    """The table of budgets for a terminal.

    Args:
        results: of a run.
        width: columns of the terminal; in a narrow one the table keeps to what decides.
    """
    table = Table(title="What protection costs, and what it saves", caption=_LEGEND)
    shown = range(len(_HEADINGS)) if width >= _WIDE else _ESSENTIAL
    for number in shown:
        table.add_column(_HEADINGS[number], justify="right" if 0 < number < 7 else "left")
    for row in rows_of_table(results):
        colour = _COLOURS[row[-1].split(",")[0]]
        coloured = (*row[:-1], f"[{colour}]{row[-1]}[/]")
        table.add_row(*(coloured[number] for number in shown))
    return table


def markdown(results: Sequence[Result], about: str) -> str:
    """The table of budgets in Markdown, under a line that says where it was measured."""
    lines = [
        about,
        "",
        "| " + " | ".join(_HEADINGS) + " |",
        "|---" + "|---:" * 6 + "|---" * 2 + "|",
        *("| " + " | ".join(row) + " |" for row in rows_of_table(results)),
        "",
        _LEGEND,
        "",
    ]
    return "\n".join(lines)


def write(results: Sequence[Result], about: str, directory: Path) -> None:
    """Write ``latest.json``, a list of records, and ``latest.md`` into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    records = [result.record() for result in results]
    (directory / "latest.json").write_text(json.dumps(records, indent=2) + "\n")
    (directory / "latest.md").write_text(markdown(results, about))


def about_this_run(version: str, people: int, seconds: float) -> str:
    """One line on the server, the machine, the size and the time that it took."""
    return (
        f"PostgreSQL {version}, {os.cpu_count()} CPUs ({platform.machine()}), {people:,} people,"
        f" measured in {seconds / 60:.1f} minutes."
    )


def _title(task: Task, rows: int) -> str:
    if task.per_row:
        return f"{task.title} ({rows:,} rows)"
    return f"{task.title} ({task.clients} client{'s' if task.clients > 1 else ''})"


def _times(result: Result | None) -> str:
    if result is None:
        return "-"
    return f"{_microseconds(result.measured.wall_us)} / {_microseconds(result.measured.cpu_us)}"


def _microseconds(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.1f} ms"
    return f"{value:,.2f} µs" if value < 10 else f"{value:,.0f} µs"


def _factor(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _budget(budget: Budget, metric: Metric) -> str:
    words = []
    if budget.ratio_to_plain is not None:
        words.append(f"≤ {budget.ratio_to_plain:g} x plain")
    if budget.cpu_ratio_to_plain is not None:
        words.append(f"CPU ≤ {budget.cpu_ratio_to_plain:g} x")
    if budget.us_per_op is not None:
        limit = budget.us_per_op
        words.append(
            ("CPU " if metric == "cpu" else "")
            + (f"≤ {limit / 1000:g} ms" if limit >= 1000 else f"≤ {limit:g} µs")
        )
    if budget.times_faster_than_by_hand is not None:
        words.append(f"≥ {budget.times_faster_than_by_hand:g} x faster")
    if budget.ratio_to_small is not None:
        words.append(f"≤ {budget.ratio_to_small:g} x a tenth")
    return ", ".join(words) or "-"
