"""How the story looks: code in the terminal's colours, marks in the margin, results as tables."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from email.message import EmailMessage
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

WIDTH = 100
"""The story is set for 100 columns and never wider; narrower terminals get narrower tables."""

PROSE = 40
"""Columns with values longer than this and blanks in them are wrapped; others are cut."""

VARIABLE = re.compile(r":'(\w+)'")
"""A variable of psql, quoted as a literal."""


def code(source: str, language: str) -> Text:
    """Source text in the terminal's own colours, whatever its background."""
    syntax = Syntax("", language, theme="ansi_dark", background_color="default", word_wrap=True)
    text = syntax.highlight(source)
    text.rstrip()
    text.highlight_regex(VARIABLE, "cyan")  # psql's, unknown to the lexer
    return text


@dataclass(frozen=True, slots=True)
class Margin:
    """Any content with a mark in the margin: ``first`` before line one, then ``rest``."""

    content: RenderableType
    style: str
    first: str
    rest: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inner = options.update_width(options.max_width - cell_len(self.first))
        style = Style.parse(self.style)
        mark = self.first
        for line in console.render_lines(self.content, inner, pad=False):
            yield Segment(mark, style)
            yield from line
            yield Segment.line()
            mark = self.rest


@dataclass(frozen=True, slots=True)
class Grid:
    """A result as a table; where space is short, the widest columns give way."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        body = [[cell(value) for value in row] for row in self.rows]
        natural = [
            max(cell_len(name), *(text[index].cell_len for text in body))
            for index, name in enumerate(self.columns)
        ]
        widths = fit(natural, options.max_width - 2 * len(natural))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), border_style="bright_black")
        table.show_edge = table.pad_edge = False
        for index, name in enumerate(self.columns):
            numeric = any(_is_number(row[index]) for row in self.rows)
            prose = any(" " in row[index].plain and natural[index] > PROSE for row in body)
            table.add_column(
                name,
                justify="right" if numeric else "left",
                width=widths[index],
                no_wrap=not prose,
                overflow="ellipsis",
            )
        for row in body:
            table.add_row(*row)
        yield table


def text_of(message: EmailMessage) -> str:
    """The plain text of a mail, its lines ended as terminals expect."""
    body = message.get_body(("plain",))
    return "" if body is None else "\n".join(str(body.get_content()).splitlines())


def letter(message: EmailMessage) -> RenderableType:
    """A mail as its reader sees it: three headers and the plain text."""
    headers = [
        Text.assemble((f"{name}:  ", "bold"), str(message[name]))
        for name in ("From", "To", "Subject")
    ]
    panel = Panel(
        Group(*headers, Text(), Text(text_of(message))),
        box=box.ROUNDED,
        border_style="bright_black",
        expand=False,
    )
    return Padding(panel, (0, 4, 0, 5))


def fit(natural: Sequence[int], available: int) -> list[int]:
    """Widths of at most ``available`` in all, at least 1 each; the widest give way first."""
    widths = list(natural)
    while sum(widths) > max(available, len(widths)):
        widths[widths.index(max(widths))] -= 1
    return widths


def cell(value: Any) -> Text:
    """One value as psql would write it, with ciphertext and NULL told apart at a glance."""
    if value is None:
        return Text("null", style="bright_black")
    if isinstance(value, bool):
        return Text("true" if value else "false")
    if isinstance(value, datetime):
        return Text(value.replace(tzinfo=None).isoformat(" ", "milliseconds"))
    if isinstance(value, date | int | float | Decimal):
        return Text(str(value))
    if isinstance(value, list):
        return Text(", ".join(str(item) for item in value))
    if isinstance(value, dict):
        return Text(json.dumps(value, ensure_ascii=False))
    text = str(value)
    return Text(text, style="red" if text.startswith("gdpr1:") else "")


def pretty(value: Any, indent: int = 0) -> str:
    """JSON with as few lines as fit on the page: what is short stays on one."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(flat) + indent < WIDTH - 16:
        return flat
    inner = "\n" + " " * (indent + 2)
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {pretty(item, indent + 2)}" for key, item in value.items()]
    else:
        items = [pretty(item, indent + 2) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}{inner}{(',' + inner).join(items)}\n{' ' * indent}{closing}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
