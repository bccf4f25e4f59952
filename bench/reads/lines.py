"""The measurements of reading, their budgets, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

HEADINGS = ("operation", "clients", "people", "plain", "gdprdb", "x plain", "budget", "verdict")

#: What a size may cost more than a tenth of it.
FLAT = 1.3


@dataclass(frozen=True, slots=True)
class Line:
    """What one read took at one size.

    Attributes:
        what: the operation.
        clients: how many did it at the same time.
        people: persons in the table.
        plain: microseconds on the clock and of the server's processors, of the plain table.
        gdprdb: the same, through the clear view.
        budget: how many times the plain table's time on the clock it may take.
    """

    what: str
    clients: int
    people: int
    plain: tuple[float, float]
    gdprdb: tuple[float, float]
    budget: float

    @property
    def ratio(self) -> float:
        """To the plain table, on the clock."""
        return self.gdprdb[0] / self.plain[0]

    def growth(self, lines: Sequence[Line]) -> float | None:
        """How many times the CPU time at the smaller size this is; None at that size.

        Args:
            lines: all of the run.
        """
        for line in lines:
            if (line.what, line.clients) == (self.what, self.clients) and line.people < self.people:
                return self.gdprdb[1] / line.gdprdb[1]
        return None

    def within(self, lines: Sequence[Line]) -> bool:
        """Whether the budget holds, and the cost does not grow with the table.

        Args:
            lines: all of the run.
        """
        return self.ratio <= self.budget and (self.growth(lines) or 1) <= FLAT

    def cells(self, lines: Sequence[Line]) -> tuple[str, ...]:
        """The row of a table.

        Args:
            lines: all of the run.
        """
        growth = self.growth(lines)
        limit = f"≤ {self.budget:g} x plain"
        verdict = "within" if self.within(lines) else "over"
        if growth is not None:
            limit += f", CPU ≤ {FLAT:g} x at a tenth"
            verdict += f", {growth:.2f}x"
        return (
            self.what,
            str(self.clients),
            f"{self.people:,}",
            *(f"{wall:,.0f} µs / {cpu:,.0f} µs" for wall, cpu in (self.plain, self.gdprdb)),
            f"{self.ratio:.2f}",
            limit,
            verdict,
        )

    def record(self, lines: Sequence[Line]) -> dict[str, Any]:
        """The line as JSON.

        Args:
            lines: all of the run.
        """
        return asdict(self) | {"growth": self.growth(lines), "within": self.within(lines)}


def markdown(lines: Sequence[Line], about: str) -> str:
    """The table in Markdown, under a line that says where it was measured.

    Args:
        lines: all of the run.
        about: that line.
    """
    rows = [" | ".join(line.cells(lines)) for line in lines]
    head = ["| " + " | ".join(HEADINGS) + " |", "|---|---:|---:|---:|---:|---:|---|---|"]
    return "\n".join([about, "", *head, *(f"| {row} |" for row in rows), ""])
