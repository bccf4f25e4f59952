"""The budgets, and the arithmetic from samples to verdicts. Nothing here touches a database.

Single-row operations are judged by wall time (with ``synchronous_commit = on``)
and beside it by CPU time; scans and bulk operations by CPU time alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Literal

Metric = Literal["wall", "cpu"]
Verdict = Literal["within", "within twice", "over", "-"]


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one operation; None sets none.

    Attributes:
        ratio_to_plain: at most so many times the plain table, in the operation's metric.
        cpu_ratio_to_plain: the same in CPU time, where the metric is wall time.
        times_faster_than_by_hand: at least so many times, in the operation's metric.
        us_per_op: at most so many microseconds, in the operation's metric.
        ratio_to_small: at most so many times the same operation on a tenth of the people.
    """

    ratio_to_plain: float | None = None
    cpu_ratio_to_plain: float | None = None
    times_faster_than_by_hand: float | None = None
    us_per_op: float | None = None
    ratio_to_small: float | None = None

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: limit for name, limit in named.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one operation.

    Attributes:
        wall_us: microseconds on the clock.
        cpu_us: microseconds of CPU time of the server.
    """

    wall_us: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be measured.

    Attributes:
        name: as in the records; with `clients` it identifies the task.
        title: as in the tables.
        clients: how many do it at once.
        metric: the time that judges it.
        per_row: whether the times are for one row of many.
        budget: its limits.
    """

    name: str
    title: str
    clients: int
    metric: Metric
    per_row: bool
    budget: Budget


@dataclass(frozen=True, slots=True)
class Measurement:
    """The medians of one task for one contender.

    Attributes:
        contender: its name.
        rows: rows handled, where times are per row; else the people in the table.
        wall_us: microseconds on the clock for one operation.
        cpu_us: microseconds of CPU time for one operation.
    """

    contender: str
    rows: int
    wall_us: float
    cpu_us: float

    def value(self, metric: Metric) -> float:
        """The time that the metric names."""
        return self.wall_us if metric == "wall" else self.cpu_us


@dataclass(frozen=True, slots=True)
class Result:
    """A measurement, what it is compared with, and how it stands to its budget.

    Attributes:
        task: what was measured.
        measured: the medians.
        ratio_to_plain: in the task's metric; None where there is nothing to compare with.
        cpu_ratio_to_plain: in CPU time; likewise.
        times_faster_than_by_hand: in the task's metric; likewise.
        ratio_to_small: in the task's metric; likewise.
        main: false for the second, smaller size of a contender, to which its larger is compared.
    """

    task: Task
    measured: Measurement
    ratio_to_plain: float | None
    cpu_ratio_to_plain: float | None
    times_faster_than_by_hand: float | None
    ratio_to_small: float | None
    main: bool

    @property
    def judged(self) -> bool:
        """Whether budgets apply: they are gdprdb's, at its larger size."""
        return self.main and self.measured.contender == "gdprdb" and bool(self.task.budget.limits())

    @property
    def overshoot(self) -> float | None:
        """How far the worst limit is passed: 1 is on it, 2 is twice as slow as allowed."""
        if not self.judged:
            return None
        found = {
            "ratio_to_plain": self.ratio_to_plain,
            "cpu_ratio_to_plain": self.cpu_ratio_to_plain,
            "us_per_op": self.measured.value(self.task.metric),
            "times_faster_than_by_hand": self.times_faster_than_by_hand,
            "ratio_to_small": self.ratio_to_small,
        }
        factors = []
        for name, limit in self.task.budget.limits().items():
            if (value := found[name]) is not None:
                floor = name == "times_faster_than_by_hand"
                factors.append(limit / value if floor else value / limit)
        return max(factors, default=None)

    @property
    def verdict(self) -> Verdict:
        """Whether all limits hold, hold within a factor of two, or not; ``-`` without a limit."""
        if self.overshoot is None:
            return "-"
        return (
            "within" if self.overshoot <= 1 else "within twice" if self.overshoot <= 2 else "over"
        )

    def record(self) -> dict[str, object]:
        """The record that ``latest.json`` keeps."""
        return {
            "operation": self.task.name,
            "contender": self.measured.contender,
            "clients": self.task.clients,
            "rows": self.measured.rows,
            "wall_us_per_op": round(self.measured.wall_us, 3),
            "cpu_us_per_op": round(self.measured.cpu_us, 3),
            "ratio_to_plain": _rounded(self.ratio_to_plain),
            "times_faster_than_by_hand": _rounded(self.times_faster_than_by_hand),
            "budget": self.task.budget.limits() if self.judged else None,
            "within": None if self.overshoot is None else self.overshoot <= 1,
        }


def summarise(contender: str, rows: int, samples: Sequence[Sample]) -> Measurement:
    """Reduce the samples of all rounds to their medians.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError(f"no samples of {contender}")
    return Measurement(
        contender=contender,
        rows=rows,
        wall_us=median(sample.wall_us for sample in samples),
        cpu_us=median(sample.cpu_us for sample in samples),
    )


def compare(task: Task, measured: Iterable[Measurement]) -> list[Result]:
    """Compare the contenders of one task with each other.

    A contender measured at two sizes is compared and judged at the larger one;
    the smaller shows whether time grows with the number of people.
    """
    measurements = list(measured)
    main: dict[str, Measurement] = {}
    small: dict[str, Measurement] = {}
    for one in sorted(measurements, key=lambda m: m.rows):
        if one.contender in main:
            small[one.contender] = main[one.contender]
        main[one.contender] = one
    results = []
    for one in measurements:
        is_main = main[one.contender] is one
        plain, by_hand = (main.get(name) if is_main else None for name in ("plain", "by_hand"))
        results.append(
            Result(
                task=task,
                measured=one,
                ratio_to_plain=_ratio(one, plain, task.metric),
                cpu_ratio_to_plain=_ratio(one, plain, "cpu"),
                times_faster_than_by_hand=_ratio(by_hand, one, task.metric),
                ratio_to_small=_ratio(one, small.get(one.contender), task.metric)
                if is_main
                else None,
                main=is_main,
            )
        )
    return results


def _ratio(one: Measurement | None, other: Measurement | None, metric: Metric) -> float | None:
    if one is None or other is None or other.value(metric) == 0:
        return None
    return one.value(metric) / other.value(metric)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
