"""The demo as a whole: told to the end, stopped at what does not hold, and nothing left behind."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from rich.cells import cell_len
from rich.console import Console

from gdprdb import demo
from gdprdb.demo import DemoError
from gdprdb.demo.scenes.cast import CAST
from gdprdb.server import Cluster

CHAPTERS = 26
"""Of the story; the issue asks for what each of them shows."""


def silent() -> Console:
    return Console(file=io.StringIO(), width=100, color_system=None)


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Path, Cluster]]:
    """The servers that the demo has started, by their directories."""
    started: dict[Path, Cluster] = {}

    class Watched(Cluster):
        def start(self) -> None:
            super().start()
            started[self.directory] = self

    monkeypatch.setattr(demo, "Cluster", Watched)
    yield started
    for directory, cluster in started.items():
        if directory.exists():
            cluster.remove()


def test_the_whole_story_holds_and_its_people_can_be_met_afterwards(
    servers: dict[Path, Cluster],
) -> None:
    console = silent()
    demo.run(40, keep=True, console=console)
    text = told(console)
    assert len(re.findall(r"^ {1,2}\d{1,2}  \S", text, re.MULTILINE)) == CHAPTERS
    assert "all of them hold" in text
    story = text[: text.index("The server keeps running")]
    assert max(map(cell_len, story.splitlines())) <= 100
    (directory,) = servers
    assert f"gdprdb server remove --directory {directory}" in text
    key = re.search(r"=> select gdpr\.unlock\('([0-9a-f]{64})'\);", text)
    assert key is not None
    everybody = re.findall(r'psql "(.+)"', text)
    assert len(everybody) == len(CAST)
    for string in everybody:
        psycopg.connect(string).close()
    with psycopg.connect(everybody[0]) as application:
        application.execute("select gdpr.unlock(%s)", [key[1]])
        row = application.execute("select email from customers where id = 1").fetchone()
    assert row is not None
    assert "@example." in row[0]


def test_a_story_that_ends_well_leaves_nothing(
    servers: dict[Path, Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a story without chapters; the whole one is told above."""
    monkeypatch.setattr(demo.scenes, "tell", lambda _: None)
    console = silent()
    demo.run(20, keep=False, console=console)
    assert "0 claims checked, all of them hold" in told(console)
    assert len(servers) == 1
    assert not any(directory.exists() for directory in servers)


def test_the_demo_stops_at_what_does_not_hold(
    servers: dict[Path, Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a policy that only observes nothing is hidden: the demo must not claim otherwise."""
    observing = demo.policy_text().replace("\nsubject = ", '\nmode = "observe"\nsubject = ')
    monkeypatch.setattr(demo, "policy_text", lambda: observing)
    console = silent()
    with pytest.raises(DemoError, match=r"it does not hold that|should have been refused"):
        demo.run(20, keep=False, console=console)
    assert "all of them hold" not in told(console)
    assert not any(directory.exists() for directory in servers)
