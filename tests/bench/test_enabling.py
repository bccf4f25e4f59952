"""``bench.enabling`` comes to its end, and says what it has to."""

from __future__ import annotations

import pytest
from rich.console import Console

from bench import enabling


def test_it_measures_a_table_whose_server_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enabling, "ALONE", (0.1, 0.1))
    found = enabling.measure(400, Console(quiet=True), kill=True, types=False, partitions=0)
    assert (found["rows"], found["second_plan"]) == (400, 0)
    assert [found[name] for name in ("plaintext", "without_person", "lost", "failed")] == [
        0,
        0,
        0,
        [],
    ]
    assert found["wal"] > 0
    assert found["heap"][1] > found["heap"][0] > 0
    assert found["writes"]["after"] > 0
    assert found["waits"]["find the persons in existing rows"] >= 0
