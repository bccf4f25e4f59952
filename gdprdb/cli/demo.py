"""``gdprdb demo``: see it work."""

from __future__ import annotations

import rich_click as click
from rich.console import Console

from gdprdb import demo as story


@click.command()
@click.option("--rows", type=int, default=3000, show_default=True, help="How many customers.")
@click.option("--keep", is_flag=True, help="Leave the server running, to look around.")
def demo(rows: int, keep: bool) -> None:
    """Build a CRM of invented people, protect it, and tell what happens, step by step.

    Runs on a server of its own; nothing else is touched.

    Example:

        gdprdb demo --rows 10000 --keep
    """
    story.run(rows, keep, Console())
