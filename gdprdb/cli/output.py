"""What a command shows: rows on standard output in four formats, words on standard error."""

from __future__ import annotations

import csv
import datetime
import functools
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.progress import Progress, TaskID, track
from rich.table import Table
from rich.text import Text

from gdprdb.errors import Explanation, GdprdbError


@dataclass(frozen=True, slots=True)
class Rows:
    """What a command returns to be shown.

    Attributes:
        columns: their names.
        rows: the values; an iterator that never ends is fine where `live` is set.
        live: show each row as it comes, where a table would wait for the last, until interrupted.
        exit_code: the exit code of the command once all is shown.
        document: what the rows were taken from; it is what programs are given as JSON.
    """

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]
    live: bool = False
    exit_code: int = 0
    document: Any = None


def fetched(cursor: psycopg.Cursor[tuple[Any, ...]]) -> Rows:
    """All rows of a query that has been executed."""
    return Rows([column.name for column in cursor.description or ()], cursor.fetchall())


def flattened(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """A JSON document as rows for people: the path of each value, and the value."""
    if isinstance(document, dict) and document:
        for key, value in document.items():
            yield from flattened(value, f"{path}.{key}".lstrip("."))
    elif isinstance(document, list) and any(isinstance(item, dict | list) for item in document):
        for number, item in enumerate(document, 1):
            yield from flattened(item, f"{path}[{number}]")
    else:
        yield path, document


def output(command: Callable[..., Rows]) -> Callable[..., None]:
    """Give a command ``--format``, and print the `Rows` it returns."""
    return output_as("table", "json", "jsonl", "csv")(command)


def output_as(*styles: str) -> Callable[[Callable[..., Rows]], Callable[..., None]]:
    """Like `output`, in these formats only, the first by default: where there is much to print,
    those that print each row as it comes."""

    def decorate(command: Callable[..., Rows]) -> Callable[..., None]:
        @click.option(
            "--format",
            "style",
            cls=_Format,
            type=click.Choice(styles),
            default=styles[0],
            show_default=True,
            envvar="GDPRDB_FORMAT",
            show_envvar=True,
            help="How to print the result: for people, or for programs.",
        )
        @functools.wraps(command)
        def printing(style: str, **options: Any) -> None:
            result = command(**options)
            # what goes on until it is interrupted has then done its work, wherever that finds it
            with suppress(KeyboardInterrupt) if result.live else nullcontext():
                _WRITERS[style](result)
            if result.exit_code:
                raise Exit(result.exit_code)

        return printing

    return decorate


class _Format(click.Option):
    """``--format``; what a session prefers for all commands turns into the nearest that there is:
    where there is much to print, JSON is a line for each row."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        style = super().resolve_envvar_value(ctx)
        if not isinstance(self.type, click.Choice) or style in self.type.choices:
            return style
        return {"json": "jsonl", "table": self.type.choices[0]}.get(style or "", style)


def show(result: Rows) -> None:
    """Print rows for people on standard error: a plan that comes before a question."""
    _table(result, Console(stderr=True, width=None if sys.stderr.isatty() else 1000))


def say(message: str) -> None:
    """One line of words for people."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, markup=False)


def deliver(secret: str) -> None:
    """Print what is shown once, and return when it is where standard output leads.

    Whoever commits only then has lost nothing when the disk is full or the reader is gone.

    Args:
        secret: one line.

    Raises:
        GdprdbError: standard output is closed, or leads nowhere.
        OSError: it could not be written.
    """
    nowhere = Path(os.devnull).stat()
    try:
        target: os.stat_result | None = os.fstat(sys.stdout.fileno())
    except AttributeError:
        raise GdprdbError("standard output is closed: nobody would see the key") from None
    except ValueError:
        # kept in memory, by a program that calls this one
        target = None
    if target and stat.S_ISCHR(target.st_mode) and os.path.samestat(target, nowhere):
        raise GdprdbError(f"standard output is {os.devnull}: nobody would see the key")
    click.echo(secret)
    sys.stdout.flush()
    if target and stat.S_ISREG(target.st_mode):
        os.fsync(sys.stdout.fileno())


def progress(steps: Sequence[int], what: str) -> Iterator[int]:
    """The steps one by one, with a bar for people while they go by.

    Args:
        steps: as many as there are.
        what: the words beside the bar.
    """
    console = Console(stderr=True)
    yield from track(steps, what, console=console, disable=not console.is_terminal)


@contextmanager
def advancing(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar for people over work whose steps are not known before.

    Args:
        what: the words beside the bar.
        total: how much there is in all.
        done: how much of it was done before.

    Yields:
        What to call with the size of each step.
    """
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda step: bar.advance(task, step)


@contextmanager
def following() -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int], None]]]:
    """Words and bars for people over works that come one after the other.

    Yields:
        What says a line; and what moves the bar of a work, given by its name, to how much of how
        much is done.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def move(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield lambda line: console.print(line, markup=False), move


def report(failure: Explanation) -> None:
    """Show a failure: message, details, hint and the SQLSTATE."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("Error: ", "bold red"), failure.message))
    for detail in failure.details:
        console.print(Text(f"  {detail}"))
    if failure.hint:
        console.print(Text.assemble(("Hint: ", "bold"), failure.hint))
    if failure.sqlstate:
        console.print(Text(f"SQLSTATE: {failure.sqlstate}", style="dim"))


def _table(result: Rows, console: Console | None = None) -> None:
    # Behind a pipe there is no edge to wrap at.
    console = console or Console(width=None if sys.stdout.isatty() else 1000)
    if result.live:
        for row in result.rows:
            console.print(
                "  ".join(_brief(value) for value in row),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in result.columns:
        table.add_column(column, overflow="fold")
    for row in result.rows:
        table.add_row(*(Text(_brief(value)) for value in row))
    console.print(table)


def _json(result: Rows) -> None:
    if result.live:
        _jsonl(result)
        return
    objects = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    click.echo(
        json.dumps(
            objects if result.document is None else result.document,
            default=_plain,
            ensure_ascii=False,
            indent=2,
        )
    )


def _jsonl(result: Rows) -> None:
    if result.document is not None:
        # a list is not one document: a line each
        documents = result.document if isinstance(result.document, list) else [result.document]
        for document in documents:
            click.echo(json.dumps(document, default=_plain, ensure_ascii=False))
        return
    for row in result.rows:
        click.echo(
            json.dumps(
                dict(zip(result.columns, row, strict=True)), default=_plain, ensure_ascii=False
            )
        )


def _csv(result: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(result.columns)
    for row in result.rows:
        writer.writerow(_plain(value) for value in row)
        if result.live:
            sys.stdout.flush()


def _brief(value: Any) -> str:
    """A value for people: a list of words as they write it, times without parts of a second."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return _plain(value)


def _plain(value: Any) -> str:
    """A value for programs: NULL is empty, times are ISO 8601 as precise as they are, lists and
    documents are JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict | list):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return str(value)


_WRITERS: dict[str, Callable[[Rows], None]] = {
    "table": _table,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
}
