"""CPU time from /proc: any process may stand for a postmaster and its backends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import clock

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")

BURN = "import time\nwhile time.process_time() < 0.3: pass"


def test_names_with_blanks_and_brackets_do_not_shift_the_fields() -> None:
    line = "42 (postgres: a (b) c) S 7 42 42 0 -1"
    assert clock.stat_fields(line)[:2] == ["S", "7"]


def test_parent_is_found() -> None:
    assert clock.parent_of(os.getpid()) == os.getppid()


def test_a_living_process_is_measured() -> None:
    before, used = clock.backend_cpu_us(os.getpid()), time.process_time()
    while time.process_time() < used + 0.1:
        pass
    assert 0.09e6 < clock.backend_cpu_us(os.getpid()) - before < 1e6


def test_processes_that_came_and_went_are_measured() -> None:
    with clock.cpu_of_new_backends(os.getpid()) as spent:
        subprocess.run([sys.executable, "-c", BURN], check=True)
    assert 0.25e6 < spent.cpu_us < 2e6


def test_a_process_that_stays_is_an_error() -> None:
    stays: list[subprocess.Popen[bytes]] = []
    try:
        with (
            pytest.raises(TimeoutError, match="still running"),
            clock.cpu_of_new_backends(os.getpid(), patience=0.05),
        ):
            stays.append(subprocess.Popen(["sleep", "60"]))
    finally:
        stays[0].kill()
        stays[0].wait()
