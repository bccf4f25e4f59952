"""Telling a story with a database: run a statement as a role, show both, and check what came back.

What is shown is what was executed: one text goes to the server and to the screen, and every claim
printed with a tick has been evaluated just before. A claim that does not hold ends the story with
:class:`DemoError`.

Statements are written as psql would take them: ``:'name'`` stands for a value, quoted as a
literal. Short values are shown in place; a long one (a whole policy) keeps its name on the screen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

import psycopg
from psycopg import sql
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from gdprdb.demo.page import VARIABLE, WIDTH, Grid, Margin, code, pretty
from gdprdb.errors import GdprdbError

LONG_VALUE = 64
"""Variables longer than this many characters are shown by name."""

ROWS_SHOWN = 12
"""Rows of an answer that are shown."""

_VOID = 2278  # the type of functions that return nothing


class DemoError(GdprdbError):
    """A step of the demo did not give what it should."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody at a connection of their own.

    Attributes:
        login: the database role.
        who: who uses it.
        colour: to know them by.
        search_path: set for the connection, as an application's configuration would set it.
        unlocks: whether the connection brings the key of the database with it.
        database: the one to connect to.
    """

    login: str
    who: str
    colour: str
    search_path: str
    unlocks: bool = False
    database: str = "crm"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gave back: the last result that has columns, or only a count of rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    affected: int
    seconds: float
    notices: tuple[str, ...] = ()

    def column(self, name: str) -> list[Any]:
        """All values of one column."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    @property
    def value(self) -> Any:
        """The only value of an answer of one row and one column."""
        if len(self.rows) != 1 or len(self.columns) != 1:
            raise DemoError(
                f"expected one value, got {len(self.rows)} rows of {len(self.columns)} columns"
            )
        return self.rows[0][0]


@dataclass
class Story:
    """The screen, the connections of the actors, and the count of what was shown.

    Attributes:
        console: where it is shown.
        connect: opens an autocommit connection for an actor; each gets one, kept for the story.
        statements: how many were run.
        claims: how many were checked, and held.
        chapters: their titles.
    """

    console: Console
    connect: Callable[[Actor], psycopg.Connection[Any]]
    statements: int = 0
    claims: int = 0
    chapters: list[str] = field(default_factory=list)
    _connections: dict[Actor, psycopg.Connection[Any]] = field(default_factory=dict)
    _notices: list[str] = field(default_factory=list)

    # -- the page -----------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Columns of the page."""
        return min(self.console.width, WIDTH)

    @property
    def ascii(self) -> bool:
        """Whether the terminal knows no more than ASCII."""
        return self.console.options.ascii_only

    def show(self, *content: RenderableType) -> None:
        """Print on the page, not wider than the page."""
        for part in content:
            self.console.print(part, width=self.width)

    def chapter(self, title: str, article: str, text: str) -> None:
        """Begin the next chapter; ``article`` says which rule of the GDPR it is about."""
        self.chapters.append(title)
        heading = Text.assemble((f" {len(self.chapters):2}  ", "bold"), (title, "bold"))
        self.rule()
        self.show(_sides(heading, Text(article, style="bright_black")), "")
        self.note(text)

    def rule(self) -> None:
        """A line across the page."""
        # said outright: an untitled Rule keeps its own character on terminals that cannot show it
        self.show("", Rule(style="bright_black", characters="-" if self.ascii else "─"))

    def note(self, text: str) -> None:
        """A paragraph of the story."""
        self.show(Padding(Text(" ".join(text.split())), (0, 4, 1, 5), expand=False))

    def check(self, claim: str, holds: bool, found: object = None) -> None:
        """Print ``claim`` with a tick, or stop the story: ``found`` is what was there instead."""
        if not holds:
            where = (
                f"chapter {len(self.chapters)}, {self.chapters[-1]}"
                if self.chapters
                else "before chapter 1"
            )
            raise DemoError(f"{where}: it does not hold that {claim}; found {found!r}")
        self.claims += 1
        self.tick(claim)
        self.show("")

    def tick(self, done: str, aside: str = "") -> None:
        """A line with a tick before it: something is done, or holds."""
        mark = "     + " if self.ascii else "     ✔ "
        line = Text.assemble(done, (f"  {aside}", "bright_black") if aside else "")
        self.show(Margin(line, "bold green", mark, " " * len(mark)))

    def command(self, line: str, prompt: str = "$") -> None:
        """Something to copy: unlike everything else, never broken into lines."""
        self.console.print(Text(f"     {prompt} {line}"), soft_wrap=True)
        self.show("")

    @property
    def actors(self) -> int:
        """How many have run something."""
        return len(self._connections)

    @contextmanager
    def step(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Work before the story: ``doing`` shows meanwhile, what is reported done shows after."""
        outcome: list[str] = []
        start = time.perf_counter()
        with self.console.status(Text(doing)):
            yield outcome.append
        for text in outcome:
            self.tick(text, f"{time.perf_counter() - start:.1f} s")

    # -- the statements -----------------------------------------------------------------------

    def connection(self, actor: Actor) -> psycopg.Connection[Any]:
        """The actor's connection, opened on first use."""
        if actor not in self._connections:
            connection = self.connect(actor)
            connection.add_notice_handler(
                lambda d: self._notices.append(f"{d.severity}:  {d.message_primary}")
            )
            self._connections[actor] = connection
        return self._connections[actor]

    def close(self) -> None:
        """Close every connection; the story is over."""
        for connection in self._connections.values():
            connection.close()

    def ask(self, actor: Actor, statement: str, **variables: str) -> Answer:
        """Run ``statement`` as ``actor`` and show both.

        Args:
            actor: over whose connection.
            statement: one statement or several; ``:'name'`` stands for a variable.
            variables: values, each sent as a quoted literal.

        Raises:
            DemoError: the server refused it.
        """
        executed, shown = self._fill(actor, statement, variables)
        try:
            answer = self.fetch(actor, executed)
        except psycopg.Error as error:
            self._exchange(actor, shown, _refusal(error, "red"))
            raise DemoError(
                f"the server refused a statement of {actor.login}: {_one_line(error)}"
            ) from error
        self._exchange(actor, shown, _answer(answer))
        return answer

    def refuse(
        self, actor: Actor, statement: str, claim: str, *, sqlstate: str, **variables: str
    ) -> psycopg.Error:
        """Run a statement that the database must refuse; show it and the refusal.

        Args:
            actor: over whose connection.
            statement: one statement or several; ``:'name'`` stands for a variable.
            claim: what the refusal shows.
            sqlstate: the SQLSTATE to expect.
            variables: values, each sent as a quoted literal.

        Raises:
            DemoError: it went through, or was refused for another reason.
        """
        executed, shown = self._fill(actor, statement, variables)
        try:
            answer = self.fetch(actor, executed)
        except psycopg.Error as error:
            self._exchange(actor, shown, _refusal(error, "yellow"))
            if error.sqlstate != sqlstate:
                raise DemoError(f"refused, but not with {sqlstate}: {_one_line(error)}") from error
            self.check(claim, holds=True)
            return error
        self._exchange(actor, shown, _answer(answer))
        raise DemoError(f"a statement of {actor.login} went through that should have been refused")

    def fetch(self, actor: Actor, statement: str) -> Answer:
        """Run ``statement``, one or several, without showing it; roll back if it fails."""
        connection = self.connection(actor)
        self._notices.clear()
        start = time.perf_counter()
        try:
            cursor = connection.execute(statement.encode())
            columns: tuple[str, ...] = ()
            rows: list[tuple[Any, ...]] = []
            affected = 0
            for result in _results(cursor):
                if result.description is None:
                    affected += max(result.rowcount, 0)
                elif any(column.type_code != _VOID for column in result.description):
                    columns = tuple(column.name for column in result.description)
                    rows = result.fetchall()
        except psycopg.Error:
            connection.rollback()
            raise
        finally:
            self.statements += 1
        return Answer(columns, rows, affected, time.perf_counter() - start, tuple(self._notices))

    def _fill(self, actor: Actor, statement: str, variables: dict[str, str]) -> tuple[str, str]:
        """The statement as it is executed and as it is shown."""
        text = dedent(statement).strip()
        literals = {
            name: sql.Literal(value).as_string(self.connection(actor))
            for name, value in variables.items()
        }
        brief = {
            name: literals[name] for name, value in variables.items() if len(value) <= LONG_VALUE
        }
        executed = VARIABLE.sub(lambda match: literals[match[1]], text)
        shown = VARIABLE.sub(lambda match: brief.get(match[1], match[0]), text)
        return executed, shown

    def _exchange(self, actor: Actor, statement: str, answer: RenderableType) -> None:
        """One statement and its answer, held together by a bar in the actor's colour."""
        who = _name(actor, f"{actor.who} (search_path {actor.search_path})")
        content = Group(who, code(statement, "postgresql"), answer)
        self.show(self.beside(actor, content), "")

    def ran(self, actor: Actor, command: str, printed: str) -> None:
        """Show a command line that was run, and what it printed."""
        lines = [Text(text) for text in (f"$ {command}", printed) if text]
        content = Group(_name(actor, actor.who), *lines)
        self.show(self.beside(actor, content), "")

    def beside(self, actor: Actor, content: RenderableType) -> Margin:
        """Content with a bar in the actor's colour beside it."""
        bar = "  | " if self.ascii else "  ▌ "
        return Margin(content, actor.colour, bar, bar)


def _name(actor: Actor, who: str) -> Text:
    return Text.assemble((actor.login, f"bold {actor.colour}"), (f"  {who}", "bright_black"))


def _answer(answer: Answer) -> RenderableType:
    parts: list[RenderableType] = [Text(notice, style="yellow") for notice in answer.notices]
    count = f"{answer.affected} {_plural('row', answer.affected)} changed"
    if answer.columns:
        count = f"{len(answer.rows)} {_plural('row', len(answer.rows))}"
        if (
            len(answer.rows) == 1
            and len(answer.columns) == 1
            and isinstance(answer.rows[0][0], dict)
        ):
            parts += [Text(), code(pretty(answer.rows[0][0]), "json")]
        elif answer.rows:
            parts.append(Text())
            parts.append(Grid(answer.columns, answer.rows[:ROWS_SHOWN]))
        if len(answer.rows) > ROWS_SHOWN:
            count += f", {ROWS_SHOWN} shown"
    took = f"{answer.seconds:.1f} s" if answer.seconds > 1 else f"{answer.seconds * 1000:.1f} ms"
    parts.append(Text(f"{count} in {took}", style="bright_black"))
    return Group(*parts)


def _refusal(error: psycopg.Error, colour: str) -> RenderableType:
    diagnosis = error.diag
    lines = Text.assemble(
        (f"{diagnosis.severity or 'ERROR'} {error.sqlstate}  ", "bold red"), _primary(error)
    )
    for label, text in (("Detail", diagnosis.message_detail), ("Hint", diagnosis.message_hint)):
        if text:
            lines.append_text(Text.assemble("\n", (f"{label}:  ", "bold"), text))
    return Padding(Panel(lines, box=box.ROUNDED, border_style=colour, expand=False), (1, 0, 0, 0))


def _results(cursor: psycopg.Cursor[Any]) -> Iterable[psycopg.Cursor[Any]]:
    yield cursor
    while cursor.nextset():
        yield cursor


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error)


def _one_line(error: psycopg.Error) -> str:
    return f"{error.sqlstate} {_primary(error)}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _sides(left: Text, right: Text) -> Table:
    table = Table.grid(expand=True)
    table.add_column(ratio=1)
    table.add_column(justify="right")
    table.add_row(left, right)
    return table
