"""Measurements that stand alone, their budgets, and how they are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

HEADINGS = ("operation", "size", "measured", "CPU for one", "budget", "verdict")


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement and its budget.

    Attributes:
        what: the operation.
        people: persons in the database, or whatever else its size is.
        value: what was measured, on the clock.
        cpu_ms: the server's CPU time for one person, or entry.
        unit: of the value and the budget.
        budget: the limit.
        floor: whether the limit is one from below.
        flat: at most so many times the value of the same operation at the smaller size.
    """

    what: str
    people: int
    value: float
    cpu_ms: float
    unit: str
    budget: float
    floor: bool = False
    flat: float | None = None

    def growth(self, lines: Sequence[Line]) -> float | None:
        """How many times the value at the next smaller size this is; None where there is none.

        Args:
            lines: all of the run.
        """
        smaller = [line for line in lines if line.what == self.what and line.people < self.people]
        if not smaller or self.flat is None:
            return None
        return self.value / max(smaller, key=lambda line: line.people).value

    def within(self, lines: Sequence[Line]) -> bool:
        """Whether the budget holds, and time does not grow with the number of people.

        Args:
            lines: all of the run.
        """
        held = self.value >= self.budget if self.floor else self.value <= self.budget
        growth = self.growth(lines)
        return held and (growth is None or self.flat is None or growth <= self.flat)

    def cells(self, lines: Sequence[Line]) -> tuple[str, ...]:
        """The row of a table.

        Args:
            lines: all of the run.
        """
        limit = f"{'≥' if self.floor else '≤'} {self.budget:g} {self.unit}"
        verdict = "within" if self.within(lines) else "over"
        growth = self.growth(lines)
        if growth is not None:
            limit += f", ≤ {self.flat:g} x the smaller size"
            verdict += f", {growth:.2f}x"
        measured = f"{self.value:,.1f} {self.unit}"
        cpu = f"{self.cpu_ms:.2f} ms" if self.cpu_ms >= 0.1 else f"{self.cpu_ms * 1000:.1f} µs"
        return (self.what, f"{self.people:,}", measured, cpu, limit, verdict)


def markdown(lines: Sequence[Line], about: str) -> str:
    """The table in Markdown, under a line that says where it was measured.

    Args:
        lines: all of the run.
        about: that line.
    """
    rows = [" | ".join(line.cells(lines)) for line in lines]
    head = ["| " + " | ".join(HEADINGS) + " |", "|---|---:|---:|---:|---|---|"]
    return "\n".join([about, "", *head, *(f"| {row} |" for row in rows), ""])


def write(lines: Sequence[Line], about: str, directory: Path, name: str) -> None:
    """Write ``<name>.json``, a list of records, and ``<name>.md`` into a directory.

    Args:
        lines: all of the run.
        about: a line that says where it was measured.
        directory: made where it is not there.
        name: of the files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    records = [
        asdict(line) | {"growth": line.growth(lines), "within": line.within(lines)}
        for line in lines
    ]
    (directory / f"{name}.json").write_text(json.dumps(records, indent=2) + "\n")
    (directory / f"{name}.md").write_text(markdown(lines, about))


def show(lines: Sequence[Line]) -> None:
    """Print the table on standard output."""
    table = Table(*HEADINGS)
    for line in lines:
        table.add_row(*line.cells(lines))
    (Console() if sys.stdout.isatty() else Console(width=160)).print(table)
