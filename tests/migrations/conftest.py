"""Tests that install and remove gdprdb need a server of their own: roles belong to all of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import Clone, Database, cloning, serve


@pytest.fixture(scope="session")
def lone_clone() -> Iterator[Clone]:
    """Makes databases on a server where nothing was ever installed."""
    with serve() as server, cloning(server) as make:
        yield make


@pytest.fixture
def bare(lone_clone: Clone) -> Iterator[Database]:
    """A database without gdprdb, the only one on its server that may get it."""
    with lone_clone() as database:
        yield database
