"""Who acts, and why: the context of a transaction, from Python.

Either of a block, which suits a middleware and reaches every engine that `protect` knows, threads
and tasks apart; or of one session, which suits a session per request:

    with acting(Context(actor="anna", purpose="orders")): ...
    set_context(session, Context(actor="anna", purpose="orders"))

It is given to the database when a transaction begins and ends with it: what the pool hands on
carries nobody's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from gdprdb.errors import GdprdbError

_KEY = "gdpr_context"

_SET = sa.text(
    "select gdpr.set_context(:actor, :purpose, cast(:source as jsonb), cast(:request as text))"
)


@dataclass(frozen=True, slots=True)
class Context:
    """What a transaction claims of itself; see `gdpr.set_context()`.

    Attributes:
        actor: the end user, free text.
        purpose: one of the role's purposes; by default its first.
        source: where new data comes from, as ``{"kind": "web_form", "form": "newsletter"}``.
        request: the number of the request that is being fulfilled.
    """

    actor: str | None = None
    purpose: str | None = None
    source: Mapping[str, Any] | None = None
    request: int | str | None = None

    def apply(self, connection: sa.Connection) -> None:
        """Give it to the transaction of a connection.

        Raises:
            GdprdbError: the connection commits each statement by itself, and the context with it.
        """
        if getattr(connection.connection.dbapi_connection, "autocommit", False):
            raise GdprdbError(
                "a context belongs to a transaction, and this connection has none",
                hint="Leave isolation_level at its default instead of AUTOCOMMIT.",
            )
        connection.execute(
            _SET,
            {
                "actor": self.actor,
                "purpose": self.purpose,
                "source": None if self.source is None else json.dumps(dict(self.source)),
                "request": None if self.request is None else str(self.request),
            },
        )


_current: ContextVar[Context | None] = ContextVar(_KEY, default=None)


@contextmanager
def acting(context: Context) -> Iterator[None]:
    """Transactions that begin in the block, in this thread or task, have this context."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def set_context(session: Session | AsyncSession, context: Context) -> None:
    """Every transaction of a session that begins from now on has this context, block or not.

    Args:
        session: one that has no transaction yet.
        context: who, why.

    Raises:
        GdprdbError: the session is in a transaction, which began without it.
    """
    inner = session.sync_session if isinstance(session, AsyncSession) else session
    if inner.in_transaction():
        raise GdprdbError(
            "the session has begun its transaction without this context",
            hint="Set the context before the first statement, or commit first.",
        )
    if _KEY not in inner.info:
        event.listen(inner, "after_begin", _begin_of_session)
    inner.info[_KEY] = context


def begin(connection: sa.Connection) -> None:
    """Listener of engines: a transaction begins, with the context of the block."""
    if context := _current.get():
        context.apply(connection)


def begin_twophase(_connection: sa.Connection, _xid: object) -> None:
    """Listener of engines: nothing can be said before the transaction has its identifier.

    Raises:
        GdprdbError: there is a context to give.
    """
    if _current.get():
        raise GdprdbError(
            "a transaction in two phases cannot begin with the context of a block",
            hint="Give it to the session: set_context(session, context).",
        )


def _begin_of_session(
    session: Session, _transaction: SessionTransaction, connection: sa.Connection
) -> None:
    session.info[_KEY].apply(connection)
