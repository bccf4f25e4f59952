"""The column type of encrypted values: they are compared by their digests.

Reading and writing happen in the clear view, which decrypts and encrypts; Python sees plaintext of
the type that stands inside, as ``Personal(Date())``. Comparing plaintext would decrypt every row of
the table. So ``==``, ``!=`` and ``in_`` of a column with ``encrypt = "searchable"`` become
comparisons of its digest, which is indexed and equal where the canonical forms are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from gdprdb.errors import GdprdbError
from gdprdb.integrations.sqlalchemy.metadata import digest_kind

#: The schema of the views that decrypt.
CLEAR = "gdpr_clear"

_EQUALITY = frozenset[Callable[..., Any]](
    (operator.eq, operator.ne, operators.is_distinct_from, operators.is_not_distinct_from)
)


class _Comparator(TypeDecorator.Comparator[Any]):
    """Equality is that of digests; everything else is left to the type inside."""

    def operate(self, op: Callable[..., Any], *other: Any, **options: Any) -> Any:
        kind = _kind(self.expr)
        if kind and other and not _is_null(other[0]):
            if op in _EQUALITY:
                return op(_Digest(self.expr), _digested(other[0], kind))
            if op is operators.in_op:
                return _Digest(self.expr) == sa.any_(_digested_set(other[0], kind))
            if op is operators.not_in_op:
                return _Digest(self.expr) != sa.all_(_digested_set(other[0], kind))
        inner = self.type.inner if isinstance(self.type, Personal) else self.type
        return op(sa.type_coerce(self.expr, inner), *other, **options)


class Personal(TypeDecorator[Any]):
    """Values that the database encrypts.

    Args:
        inner: the type of the values in Python, as ``String(120)`` or ``Date()``; text if left out.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = sa.Text
    cache_ok = True

    def __init__(self, inner: TypeEngine[Any] | type[TypeEngine[Any]] | None = None) -> None:
        super().__init__()
        self.inner: TypeEngine[Any] = sa.types.to_instance(inner or sa.Text)
        self.impl = self.inner

    comparator_factory = _Comparator


def digest(column: Any) -> sa.ColumnElement[UUID]:
    """The digest of a searchable column, as an expression: to group, join or count by.

    The digest that is stored, where the column is one of a table or its alias; computed by
    `gdpr.digest()` where it comes out of a subquery.

    Args:
        column: of type `Personal`, in a model or a table.

    Raises:
        GdprdbError: the column has no digest.
    """
    found = _Digest(column)
    if _kind(found.column) is None:
        raise GdprdbError(
            f"{column} has no digest", hint='Its info["gdpr"] needs encrypt = "searchable".'
        )
    return found


class _Digest(FunctionElement[UUID]):
    """Stands for the digest of a column until the statement is written out."""

    name = "digest"
    type = sa.Uuid()
    inherit_cache = True

    @property
    def column(self) -> Any:
        """The column whose digest it is."""
        (column,) = self.clauses
        return column


@compiles(_Digest)
def _render(element: _Digest, compiler: SQLCompiler, **options: Any) -> str:
    """Named only now: by this time, aliases and subqueries have taken the place of tables."""
    table = element.column.table
    while isinstance(table, sa.Alias):
        table = table.element
    if not isinstance(table, sa.Table):
        return compiler.process(_computed(element.column, str(_kind(element.column))), **options)
    is_clear = compiler.preparer.schema_for_object(table) == CLEAR
    name = f"{_source(element.column).name}_digest"
    stored: sa.ColumnClause[UUID] = sa.column(name if is_clear else f"gdpr_{name}")
    stored.table = element.column.table
    return compiler.process(stored, **options)


def _source(expression: Any) -> Any:
    """The column of a table that an expression shows unchanged; None for any other expression."""
    found = [
        column
        for column in getattr(expression, "base_columns", ())
        if isinstance(column, sa.Column) and isinstance(column.type, Personal)
    ]
    return found[0] if len(found) == 1 and hasattr(expression, "table") else None


def _kind(expression: Any) -> str | None:
    """The kind of an expression's digest; None where it has none."""
    source = _source(expression)
    return None if source is None else digest_kind(source)


def _computed(value: Any, kind: str) -> sa.ColumnElement[UUID]:
    """`gdpr.digest()` of a value or an expression; STABLE, so that an index can be asked for it."""
    text = sa.cast(value, sa.Text) if isinstance(value, sa.ClauseElement) else str(value)
    return sa.func.gdpr.digest(kind, text, type_=sa.Uuid())


def _digested(value: Any, kind: str) -> sa.ColumnElement[UUID]:
    """What a digest of this kind is compared with, for the other side of an equality."""
    element = value.__clause_element__() if hasattr(value, "__clause_element__") else value
    return _Digest(element) if _kind(element) == kind else _computed(element, kind)


def _digested_set(values: Any, kind: str) -> Any:
    """What a digest of this kind is looked up in, for the other side of IN: a subquery or an array.

    An array is one parameter however many values it has: statement and plan stay the same.
    """
    if isinstance(values, sa.Select):
        (column,) = values.selected_columns
        digests = values.with_only_columns(_digested(column, kind), maintain_column_froms=True)
        return digests.scalar_subquery()
    texts = [None if value is None else str(value) for value in values]
    value = sa.func.unnest(sa.literal(texts, ARRAY(sa.Text))).column_valued("value")
    digests = sa.select(sa.func.gdpr.digest(kind, value, type_=sa.Uuid()))
    return sa.func.array(digests.scalar_subquery(), type_=ARRAY(sa.Uuid()))


def _is_null(value: Any) -> bool:
    return value is None or isinstance(value, sa.Null)
