"""Server-side cursors that ask for the next rows before the last ones are worked on.

Decrypting is the server's work, building objects is Python's: done in turns they add up, done side
by side the slower of the two is what counts. No thread is needed: a FETCH is sent, and its answer
taken when the rows are wanted, or before the connection is used for anything else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Self

import psycopg
from psycopg.waiting import Ready, Wait

_Exchange = Generator[Wait, Ready, Any]


class ReadAheadConnection(psycopg.Connection[Any]):
    """A connection whose server-side cursors read ahead."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.server_cursor_factory = ReadAheadCursor
        self.reader: ReadAheadCursor | None = None

    def wait(self, *arguments: Any, **options: Any) -> Any:
        """Let an exchange with the server take place, once the one that is under way is over."""
        failed = self.settle()
        try:
            return super().wait(*arguments, **options)
        except psycopg.errors.InFailedSqlTransaction as error:
            raise failed or error from None

    def settle(self) -> psycopg.Error | None:
        """Take the answer that is under way; the error that it turned out to be."""
        reader, self.reader = self.reader, None
        return reader.receive(super().wait) if reader else None


class ReadAheadCursor(psycopg.ServerCursor[Any]):
    """Fetches a batch of rows ahead of those that were asked for; forwards only."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._ready: deque[Any] = deque()
        self._begun: _Exchange | None = None
        self._failed: psycopg.Error | None = None

    def receive(self, wait: Callable[[Any], Any]) -> psycopg.Error | None:
        """Take the answer to what was asked ahead; its error waits for who reads on.

        Args:
            wait: psycopg's own way to go through with an exchange.
        """
        begun, self._begun = self._begun, None
        try:
            self._ready += wait(begun)
        except psycopg.Error as error:
            self._failed = error
        return self._failed

    def fetchmany(self, size: int = 0) -> list[Any]:
        """The next rows; as many after them are on their way when it returns.

        Args:
            size: how many; 0 for the cursor's `arraysize`.
        """
        size = size or self.arraysize
        self._catch_up()
        if len(self._ready) < size:
            self._ready += super().fetchmany(size - len(self._ready))
        rows = [self._ready.popleft() for _ in range(min(size, len(self._ready)))]
        if 1 < size == len(rows) and not self._ready:
            self._ask(size)
        return rows

    def fetchone(self) -> Any:
        """The next row, or None."""
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        self._catch_up()
        rows = [*self._ready, *super().fetchall()]
        self._ready.clear()
        return rows

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if not self._ready:
            self._ready += self.fetchmany(self.itersize)
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Not here: the server is ahead of the rows that were taken.

        Raises:
            psycopg.NotSupportedError: always.
        """
        raise psycopg.NotSupportedError(f"this cursor reads ahead: no {mode} scroll by {value}")

    def _ask(self, size: int) -> None:
        """Send a FETCH, and leave its answer to the server for the time being."""
        with self._connection.lock:
            self._connection.settle()
            exchange = self._fetch_gen(size)
            self._begun = _resumed(exchange, next(exchange))
            self._connection.reader = self

    def _catch_up(self) -> None:
        """Have the answer that is under way, if there is one."""
        with self._connection.lock:
            if self._connection.reader is self:
                self._connection.settle()
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    @property
    def _connection(self) -> ReadAheadConnection:
        assert isinstance(self.connection, ReadAheadConnection)
        return self.connection


def _resumed(exchange: _Exchange, state: Wait) -> _Exchange:
    """The rest of an exchange whose first step was done: what it waits for, and what comes of it.

    Args:
        exchange: a generator of psycopg's that has been advanced once.
        state: what it said then.
    """
    while True:
        ready = yield state
        try:
            state = exchange.send(ready)
        except StopIteration as end:
            return end.value
