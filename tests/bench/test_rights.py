"""The lines of ``bench.rights``: what is within, and what grows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import lines
from bench.lines import Line


def access(people: int, value: float) -> Line:
    """A measured access report."""
    return Line("access", people, value, 2.5, "ms", 10, flat=1.3)


@pytest.mark.parametrize(
    ("small", "large", "within", "verdict"),
    [
        (4.0, 5.0, True, "within, 1.25x"),
        # in time, and not flat
        (4.0, 5.4, False, "over, 1.35x"),
        (9.0, 10.5, False, "over, 1.17x"),
    ],
)
def test_it_is_judged_by_its_time_and_by_its_growth(
    small: float, large: float, within: bool, verdict: str
) -> None:
    run = [access(1_000, large), access(100, small)]
    assert run[0].within(run) is within
    assert run[0].cells(run)[-1] == verdict
    assert run[1].cells(run)[-1] == "within"
    assert run[0].cells(run)[4] == "≤ 10 ms, ≤ 1.3 x the smaller size"


def test_a_rate_has_a_floor() -> None:
    slow, fast = (Line("erase", 100, rate, 1, "a second", 500, floor=True) for rate in (499, 501))
    assert not slow.within([slow])
    assert fast.within([fast])
    assert fast.cells([fast]) == (
        "erase",
        "100",
        "501.0 a second",
        "1.00 ms",
        "≥ 500 a second",
        "within",
    )


def test_what_is_written(tmp_path: Path) -> None:
    run = [access(1_000, 5.4), access(100, 4.0)]
    lines.write(run, "On this machine.", tmp_path / "out", "rights")
    records = json.loads((tmp_path / "out" / "rights.json").read_text())
    assert [(r["people"], r["within"], r["growth"]) for r in records] == [
        (1_000, False, pytest.approx(1.35)),
        (100, True, None),
    ]
    page = (tmp_path / "out" / "rights.md").read_text().splitlines()
    assert page[0] == "On this machine."
    assert page[2].count("|") == page[3].count("|") == page[4].count("|") == 7
