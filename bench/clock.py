"""CPU time of PostgreSQL's processes, exact, from Linux's ``/proc``.

Wall time on a shared machine says as much about the neighbours as about the
database; the CPU time of the server's own processes does not. There are two
ways to read it, because a backend's counters vanish with it:

- a backend that stays is read before and after: `backend_cpu_us`, from the
  scheduler's nanosecond counters;
- backends that come and go, as pgbench's do, are counted in the children's
  total of the postmaster, to which the kernel adds them when it reaps them:
  `cpu_of_new_backends`. Parallel workers are in it. Autovacuum is off in the
  benchmark's cluster, so nothing else comes and goes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(slots=True)
class Spent:
    """What a block of work cost.

    Attributes:
        cpu_us: microseconds of CPU time, set when the block ends.
    """

    cpu_us: float = 0.0


def stat_fields(text: str) -> list[str]:
    """The fields of a ``/proc/PID/stat`` line after the command's name, from the state on.

    The name stands in brackets and may itself hold blanks and brackets, as in
    ``(postgres: crm_app)``; the last closing bracket ends it.
    """
    return text[text.rindex(")") + 2 :].split()


def parent_of(pid: int) -> int:
    """The parent of a process: the postmaster, when ``pid`` is a backend."""
    return int(_stat(pid)[1])


def backend_cpu_us(pid: int) -> float:
    """The microseconds of CPU time that a living backend has used since it began."""
    try:
        nanoseconds = int((_PROC / str(pid) / "schedstat").read_text().split()[0])
    except FileNotFoundError:  # a kernel without scheduler statistics: clock ticks must do
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) * _TICK_US
    return nanoseconds / 1_000


def reaped_cpu_us(pid: int) -> float:
    """The microseconds of CPU time of all children of ``pid`` that have ended."""
    fields = _stat(pid)
    return (int(fields[13]) + int(fields[14])) * _TICK_US


def children_of(pid: int) -> set[int]:
    """The process ids of the living children of ``pid``."""
    children = set()
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                if parent_of(int(entry.name)) == pid:
                    children.add(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
                continue
    return children


@contextmanager
def cpu_of_new_backends(postmaster: int, patience: float = 30.0) -> Iterator[Spent]:
    """Measure the CPU time of every backend that starts and ends inside the ``with`` block.

    Args:
        postmaster: the server's first process.
        patience: seconds to wait for the last backend to be reaped.

    Raises:
        TimeoutError: one is still there, its time would be missing from the sum.
    """
    spent = Spent()
    before = children_of(postmaster)
    start = reaped_cpu_us(postmaster)
    yield spent
    deadline = time.monotonic() + patience
    while children_of(postmaster) - before:
        if time.monotonic() > deadline:
            raise TimeoutError("a backend is still running, its CPU time cannot be counted")
        time.sleep(0.005)
    spent.cpu_us = reaped_cpu_us(postmaster) - start


def _stat(pid: int) -> list[str]:
    return stat_fields((_PROC / str(pid) / "stat").read_text())
