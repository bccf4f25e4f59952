"""The lines of ``bench.reads``: what is within, and what grows."""

from __future__ import annotations

import pytest

from bench.reads.lines import Line, markdown


def read(people: int, wall: float, cpu: float) -> Line:
    """A measured read; the plain table takes 50 µs on the clock."""
    return Line("read by key", 4, people, (50.0, 20.0), (wall, cpu), 2.2)


@pytest.mark.parametrize(
    ("wall", "cpu", "within", "verdict"),
    [
        (105.0, 48.0, True, "within, 1.20x"),
        # in time, and not flat
        (105.0, 56.0, False, "over, 1.40x"),
        (115.0, 48.0, False, "over, 1.20x"),
    ],
)
def test_it_is_judged_by_the_plain_table_and_by_its_growth(
    wall: float, cpu: float, within: bool, verdict: str
) -> None:
    run = [read(1_000, wall, cpu), read(100, 100.0, 40.0)]
    assert run[0].within(run) is within
    assert run[0].cells(run)[-1] == verdict
    assert run[1].cells(run)[-1] == "within"
    assert run[0].record(run)["growth"] == pytest.approx(cpu / 40)


def test_other_clients_are_another_line() -> None:
    alone = Line("read by key", 1, 100, (50.0, 20.0), (60.0, 10.0), 2.2)
    run = [read(1_000, 100.0, 40.0), alone]
    assert run[0].growth(run) is None


def test_the_table_in_markdown() -> None:
    run = [read(1_000, 105.0, 48.0), read(100, 100.0, 40.0)]
    page = markdown(run, "On this machine.").splitlines()
    assert page[0] == "On this machine."
    assert page[4] == (
        "| read by key | 4 | 1,000 | 50 µs / 20 µs | 105 µs / 48 µs | 2.10 "
        "| ≤ 2.2 x plain, CPU ≤ 1.3 x at a tenth | within, 1.20x |"
    )
