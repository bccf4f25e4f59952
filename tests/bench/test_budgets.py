"""The arithmetic of the benchmark: medians, ratios, verdicts, records."""

from __future__ import annotations

import pytest

from bench.budgets import Budget, Measurement, Result, Sample, Task, compare, summarise

INSERT = Task("insert", "insert one row", 4, "wall", False, Budget(1.8, 7, 2))
SCAN = Task("scan", "scan", 1, "cpu", True, Budget(us_per_op=12))
ERASE = Task("erase", "erase", 1, "wall", False, Budget(us_per_op=10_000, ratio_to_small=1.3))


def measured(contender: str, wall_us: float, cpu_us: float, rows: int = 1_000) -> Measurement:
    return Measurement(contender, rows, wall_us, cpu_us)


def result_of(results: list[Result], contender: str, rows: int = 1_000) -> Result:
    (found,) = [
        result
        for result in results
        if result.measured.contender == contender and result.measured.rows == rows
    ]
    return found


def test_summary_is_the_median_of_each_time_by_itself() -> None:
    samples = [Sample(10, 5), Sample(900, 1), Sample(20, 3)]
    assert summarise("plain", 7, samples) == Measurement("plain", 7, 20, 3)


def test_summary_of_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples of plain"):
        summarise("plain", 7, [])


def test_ratios_are_in_the_metric_of_the_task() -> None:
    results = compare(
        INSERT,
        [
            measured("plain", 100, 10),
            measured("by_hand", 600, 500),
            measured("gdprdb", 150, 60),
        ],
    )
    ours = result_of(results, "gdprdb")
    assert ours.ratio_to_plain == 1.5
    assert ours.cpu_ratio_to_plain == 6
    assert ours.times_faster_than_by_hand == 4
    assert result_of(results, "plain").ratio_to_plain == 1
    assert result_of(results, "by_hand").ratio_to_plain == 6


def test_scans_are_judged_by_cpu_time() -> None:
    results = compare(SCAN, [measured("plain", 9, 2), measured("gdprdb", 99, 11)])
    ours = result_of(results, "gdprdb")
    assert ours.ratio_to_plain == 5.5
    assert ours.overshoot == pytest.approx(11 / 12)
    assert ours.verdict == "within"


def test_a_contender_that_did_not_take_part_leaves_no_ratio() -> None:
    (ours,) = compare(SCAN, [measured("gdprdb", 1, 1)])
    assert ours.ratio_to_plain is None
    assert ours.times_faster_than_by_hand is None
    assert ours.verdict == "within"


@pytest.mark.parametrize(
    ("wall_us", "cpu_us", "verdict"),
    [
        (180, 70, "within"),
        (180, 71, "within twice"),
        (181, 10, "within twice"),
        (360, 10, "within twice"),
        (361, 10, "over"),
        (100, 141, "over"),
    ],
)
def test_the_worst_limit_decides(wall_us: float, cpu_us: float, verdict: str) -> None:
    results = compare(INSERT, [measured("plain", 100, 10), measured("gdprdb", wall_us, cpu_us)])
    assert result_of(results, "gdprdb").verdict == verdict


def test_a_floor_is_missed_from_below() -> None:
    results = compare(INSERT, [measured("by_hand", 150, 1), measured("gdprdb", 100, 1)])
    ours = result_of(results, "gdprdb")
    assert ours.overshoot == pytest.approx(2 / 1.5)
    assert ours.verdict == "within twice"


def test_the_smaller_size_is_compared_with_and_not_judged() -> None:
    results = compare(
        ERASE,
        [
            measured("gdprdb", 6_000, 1, rows=100),
            measured("gdprdb", 9_000, 1, rows=1_000),
            measured("plain", 3_000, 1, rows=1_000),
        ],
    )
    large = result_of(results, "gdprdb", 1_000)
    assert large.ratio_to_small == 1.5
    assert large.ratio_to_plain == 3
    assert large.verdict == "within twice"
    small = result_of(results, "gdprdb", 100)
    assert not small.main
    assert small.verdict == "-"
    assert small.ratio_to_plain is None
    assert small.record()["budget"] is None


def test_records_have_the_agreed_fields() -> None:
    results = compare(
        INSERT,
        [
            measured("plain", 100, 10),
            measured("by_hand", 600, 500),
            measured("gdprdb", 150.00049, 60),
        ],
    )
    assert result_of(results, "gdprdb").record() == {
        "operation": "insert",
        "contender": "gdprdb",
        "clients": 4,
        "rows": 1_000,
        "wall_us_per_op": 150.0,
        "cpu_us_per_op": 60,
        "ratio_to_plain": 1.5,
        "times_faster_than_by_hand": 4.0,
        "budget": {
            "ratio_to_plain": 1.8,
            "cpu_ratio_to_plain": 7,
            "times_faster_than_by_hand": 2,
        },
        "within": True,
    }
    plain = result_of(results, "plain").record()
    assert plain["budget"] is None
    assert plain["within"] is None
