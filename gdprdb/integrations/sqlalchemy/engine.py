"""What an application's engine needs to work on protected tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.postgresql.base import PGIdentifierPreparer
from sqlalchemy.ext.asyncio import AsyncEngine

from gdprdb.integrations.sqlalchemy.context import begin, begin_twophase
from gdprdb.integrations.sqlalchemy.metadata import is_protected
from gdprdb.integrations.sqlalchemy.personal import CLEAR
from gdprdb.integrations.sqlalchemy.readahead import ReadAheadConnection
from gdprdb.integrations.sqlalchemy.refusals import translate


def protect(engine: sa.Engine | AsyncEngine) -> None:
    """Make an engine the application's: plaintext in, plaintext out, with a context.

    - Models whose table has ``info["gdpr"]`` are read and written through the clear views.
    - Transactions begin with the context of `acting`.
    - Refusals become the exceptions of this package, without the values that were refused.
    - Results that are streamed (``yield_per``) are decrypted while Python builds objects.
    - Statements are not compiled by the server (``jit``), which takes longer than it saves here.

    Not for the engine of migrations: that one works on the tables themselves.

    Args:
        engine: as its login the policy's role of audience clear. Its dialect becomes part of it.
    """
    inner = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    # error messages repeat the parameters of the statement, which go to logs and trackers
    inner.hide_parameters = True
    inner.dialect.identifier_preparer = _Names(inner.dialect)
    inner.clear_compiled_cache()
    event.listen(inner, "connect", _set_up)
    event.listen(inner, "begin", begin)
    event.listen(inner, "begin_twophase", begin_twophase)
    event.listen(inner, "handle_error", translate, retval=True)
    if inner.dialect.driver == "psycopg" and not inner.dialect.is_async:
        event.listen(inner, "do_connect", _connect)


class _Names(PGIdentifierPreparer):
    """Writes the name of a protected table as that of its clear view."""

    def __init__(self, dialect: sa.Dialect) -> None:
        super().__init__(dialect)
        self._see_clear_views()

    def _see_clear_views(self) -> None:
        named = self.schema_for_object

        def schema(thing: Any) -> Any:
            return CLEAR if is_protected(thing) else named(thing)

        self.schema_for_object = schema

    def _with_schema_translate(self, schemas: Any) -> _Names:
        # the copy that schema_translate_map takes has names of its own
        above: Any = super()
        names: _Names = above._with_schema_translate(schemas)
        names._see_clear_views()
        return names


def _set_up(connection: Any, _record: object) -> None:
    # the planner takes each key of a clear view for a read from disk, and what it thinks that dear
    # it has compiled, each time anew: a fifth of the time of 10,000 rows
    cursor = connection.cursor()
    cursor.execute("set jit = off")
    cursor.close()
    connection.commit()


def _connect(
    _dialect: sa.Dialect, _record: object, arguments: tuple[Any, ...], options: dict[str, Any]
) -> ReadAheadConnection:
    return ReadAheadConnection.connect(*arguments, **options)
