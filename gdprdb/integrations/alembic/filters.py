"""What autogenerate shall not see: what gdprdb put into the database beside the application's own.

Of a protected table these are its columns, constraints, indexes, triggers, policies and grants;
besides, whole schemas. A column that is encrypted is text for PostgreSQL: its type and
constraints are compared with nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import render

from gdprdb.integrations.sqlalchemy import Personal

_ENCRYPTED = sa.text(
    "select n.nspname, c.relname, p.column_name from gdpr.protected_column as p"
    " join pg_class as c on c.oid = p.table_name join pg_namespace as n on n.oid = c.relnamespace"
    " where p.encrypt <> 'no'"
)


def is_ours(name: str | None) -> bool:
    """Whether something of this name was made by gdprdb: nobody else may begin names so."""
    return (name or "").startswith(("gdpr_", "zzz_gdpr_", "_gdpr_")) or name == "gdpr"


def is_installed(connection: sa.Connection) -> bool:
    """Whether the database has gdprdb."""
    return connection.scalar(sa.text("select to_regprocedure('gdpr.release()')")) is not None


class Filters:
    """The filters of one database, from its own register.

    Args:
        connection: of the migration, as a member of gdpr_admin; gdprdb need not be installed yet.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self._default_schema = connection.dialect.default_schema_name
        self._encrypted: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        begun = connection.in_transaction()
        if is_installed(connection):
            for schema, table, column in connection.execute(_ENCRYPTED):
                self._encrypted[schema, table].add(column)
        if not begun:
            # Alembic would take the transaction for somebody else's, and leave it uncommitted
            connection.rollback()

    def options(self) -> dict[str, Any]:
        """All of them, as ``context.configure()`` takes them."""
        return {
            "include_name": self.include_name,
            "include_object": self.include_object,
            "compare_type": self.compare_type,
            "render_item": self.render_item,
        }

    def include_name(self, name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
        """Whether something in the database is looked at: not gdprdb's schemas and columns."""
        return kind not in {"schema", "column"} or not is_ours(name)

    def include_object(
        self, thing: Any, name: str | None, _kind: str, reflected: bool, _compare_to: Any
    ) -> bool:
        """Whether something in the database or the models takes part in the comparison."""
        if isinstance(thing, sa.Index | sa.UniqueConstraint):
            columns = {column.name for column in thing.columns}
            if reflected:
                return not any(map(is_ours, columns))
            return not columns & self._columns(thing.table)
        if not isinstance(thing, sa.schema.SchemaItem):
            return not _is_our_entity(thing)
        return not is_ours(name)

    def compare_type(
        self, _context: Any, _inspected: Any, column: Any, *_types: Any
    ) -> bool | None:
        """Never different where the column is encrypted; else as Alembic would have it."""
        return False if column.name in self._columns(column.table) else None

    def render_item(self, kind: str, thing: Any, context: Any) -> Any:
        """`Personal` is the type inside, in a migration: that is what the column is made of."""
        if kind == "type" and isinstance(thing, Personal):
            return render._repr_type(thing.inner, context)
        return False

    def _columns(self, table: sa.Table | None) -> set[str]:
        """The columns of a table that are encrypted in this database."""
        if table is None:
            return set()
        schema = table.schema or self._default_schema or "public"
        return self._encrypted.get((schema, table.name), set())


def _is_our_entity(entity: Any) -> bool:
    """Whether an object of alembic-utils is gdprdb's: a function, a trigger, a grant, ..."""
    names = (getattr(entity, part, None) for part in ("schema", "signature", "role"))
    return any(is_ours(name) for name in names if isinstance(name, str))
