"""``gdprdb demo``: a CRM full of invented people, protected, and shown at work.

The modules: `people` invents, `crm` builds the application's database, `policy.toml` says what is
lawful, `stage` is the server, `mailbox` where mails arrive, `story` runs statements, `page` shows
them, `scenes` is what happens.
"""

from __future__ import annotations

import io
import json
import sys
import time
import tomllib
from datetime import UTC, datetime
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from rich.text import Text

from gdprdb import __version__
from gdprdb.demo import scenes
from gdprdb.demo.scenes.cast import CAST, OWNER
from gdprdb.demo.scenes.scene import Scene
from gdprdb.demo.stage import Stage
from gdprdb.demo.story import DemoError, Story
from gdprdb.errors import GdprdbError
from gdprdb.server import Cluster

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DemoError", "policy_text", "run"]


def run(rows: int, keep: bool, console: Console) -> None:
    """Build a CRM on a private server, protect it, and tell what happens then.

    Args:
        rows: number of customers, at least 10; leads, orders and tickets come in proportion.
        keep: leave the server running afterwards, and say how to connect to it and how to end it.
        console: where to tell it; 100 columns are used where there are as many.

    Raises:
        DemoError: a step did not give what it should. The server is ended, kept or not.
        GdprdbError: the demo cannot run here: no PostgreSQL, no Faker, too few rows.
    """
    if rows < scenes.SMALLEST:
        raise GdprdbError(f"the demo needs at least {scenes.SMALLEST} customers")
    if find_spec("faker") is None:
        raise GdprdbError(
            "the demo invents its people with Faker, which is not installed",
            hint="Install it: pip install 'gdprdb[demo]'.",
        )
    _tolerate_narrow_encodings(console)
    began = time.monotonic()
    stage = Stage(Cluster(durable=False))
    story = Story(console, stage.connect)
    kept = False
    try:
        _build(story, stage, rows)
        policy = policy_text()
        scenes.tell(Scene(story, policy, json.dumps(tomllib.loads(policy)), stage.run))
        kept = keep
    finally:
        story.close()
        stage.close()
        if kept:
            stage.cluster.leave_running()
        else:
            stage.cluster.stop()
    _summarise(story, time.monotonic() - began)
    if kept:
        _say_how_to_connect(story, stage)


def policy_text() -> str:
    """The policy file that is shipped with the demo."""
    return files(__package__).joinpath("policy.toml").read_text("utf-8")


def _build(story: Story, stage: Stage, rows: int) -> None:
    """The shop as it was, and gdprdb beside it, doing nothing yet."""
    title = Text.assemble((f"gdprdb {__version__}", "bold"), "  a CRM full of people, protected")
    story.show("", title, "")
    with story.step("Starting a server") as done:
        stage.open()
        done(f"PostgreSQL {stage.cluster.binaries.version}, a private server of its own")
    with story.step("Filling the CRM") as done:
        size = stage.fill(rows, today=datetime.now(UTC).date())
        done(
            f"a CRM with {size.customers:,} customers, {size.leads:,} leads, "
            f"{size.orders:,} orders, {size.tickets:,} tickets"
        )
    with story.step("Installing gdprdb") as done:
        stage.install()
        done(f"gdprdb {__version__}, installed by {OWNER.login}, who is no superuser")


def _tolerate_narrow_encodings(console: Console) -> None:
    """Print a question mark where a terminal has no letter for a name, rather than fail."""
    if isinstance(console.file, io.TextIOWrapper):
        console.file.reconfigure(errors="replace")


def _summarise(story: Story, seconds: float) -> None:
    """What was shown, counted."""
    story.rule()
    story.show("")
    story.tick(
        f"{len(story.chapters)} chapters, {story.statements} statements through "
        f"{story.actors} connections, {story.claims} claims checked, all of them hold",
        f"{seconds:.0f} s",
    )
    story.show("")


def _say_how_to_connect(story: Story, stage: Stage) -> None:
    """How to be each of the people of the story, and how to end the server."""
    psql = "psql" if which("psql") else stage.cluster.binaries.program("psql")
    story.note("The server keeps running. Be whom you like:")
    for actor in CAST:
        story.show(Text(f"     {actor.login}, {actor.who}", style=actor.colour))
        story.command(f'{psql} "{stage.conninfo(actor)}"')
    names = ", ".join(actor.login for actor in CAST if actor.unlocks)
    story.note(f"The key is not in the database: to read plaintext, {names} say first")
    story.command(f"select gdpr.unlock('{stage.key}');", prompt="=>")
    story.note("When you have seen enough, this stops the server and deletes it:")
    gdprdb = "gdprdb" if which("gdprdb") else Path(sys.executable).with_name("gdprdb")
    story.command(f"{gdprdb} server remove --directory {stage.cluster.directory}")
