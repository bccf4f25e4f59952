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
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL, array
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
#: What dictionaries ask: SQLAlchemy's own hold columns, and find them in other forms of themselves.
_IDENTITY = frozenset[Callable[..., Any]]((operator.eq, operator.ne))


class _Comparator(TypeDecorator.Comparator[Any]):
    """Equality is that of digests; everything else is left to the type inside."""

    def operate(self, op: Callable[..., Any], *other: Any, **options: Any) -> Any:
        if op in _IDENTITY and isinstance(other[0], sa.ClauseElement) and _is_same(self, other[0]):
            return super().operate(op, *other, **options)
        kind, inner = _kind(self.expr), _inner(self.expr)
        if kind and other and not _is_null(other[0]):
            if op in _EQUALITY and not isinstance(other[0], sa.CollectionAggregate):
                return op(_Digest(self.expr), _digested(other[0], kind, inner))
            if op is operators.in_op:
                return _Digest(self.expr) == sa.any_(_digested_set(other[0], kind, inner))
            if op is operators.not_in_op:
                return _Digest(self.expr) != sa.all_(_digested_set(other[0], kind, inner))
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
        computed = _computed(element.column, str(_kind(element.column)), _inner(element.column))
        return compiler.process(computed, **options)
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


def _inner(expression: Any) -> TypeEngine[Any]:
    """The type of an expression's values in Python."""
    kind: TypeEngine[Any] = expression.type
    return kind.inner if isinstance(kind, Personal) else kind


def _whole(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type in the database that takes every value of a type as it is.

    A cast to ``varchar(5)`` would cut, one to ``numeric(10, 2)`` round: what equals nothing in the
    column would equal something. Digests are the same with and without such bounds.
    """
    while isinstance(kind, TypeDecorator) and not isinstance(kind, sa.Interval):
        kind = kind.impl_instance
    match kind:
        case sa.Enum():
            return kind if kind.native_enum else sa.Text()
        case sa.String():
            return sa.Text()
        case sa.Float():
            return kind
        case sa.Integer() | sa.Numeric():
            return sa.Numeric()
        case sa.DateTime():
            return sa.DateTime(timezone=kind.timezone)
        case sa.Time():
            return sa.Time(timezone=kind.timezone)
        case sa.Interval() | INTERVAL():
            return INTERVAL()
        case sa.ARRAY():
            return ARRAY(_whole(kind.item_type), dimensions=kind.dimensions)
    return kind


def _computed(value: Any, kind: str, inner: TypeEngine[Any]) -> sa.ColumnElement[UUID]:
    """The digest of a value or an expression, of which the database makes the text it stores.

    One of a value is computed once, before the rows are read.
    """
    whole = _whole(inner)
    is_value = not isinstance(value, sa.ClauseElement) or isinstance(value, sa.BindParameter)
    typed: sa.ColumnElement[Any] = sa.type_coerce(value, inner if is_value else _inner(value))
    # a number keeps the fraction that a cast to the type of whole ones would round off
    if is_value or not (type(whole) is type(_whole(typed.type)) is sa.Numeric):
        typed = sa.cast(typed, whole)
    if isinstance(inner, sa.CHAR):
        typed = sa.func.rtrim(typed)
    named = sa.func.gdpr.digest if isinstance(whole, sa.Text) else sa.func.gdpr.digest_of
    computed = named(kind, typed, type_=sa.Uuid())
    return sa.select(computed).scalar_subquery() if is_value else computed


def _digested(value: Any, kind: str, inner: TypeEngine[Any]) -> sa.ColumnElement[UUID]:
    """What a digest of this kind is compared with, for the other side of an equality."""
    element = value.__clause_element__() if hasattr(value, "__clause_element__") else value
    if isinstance(element, sa.ScalarSelect):
        digests: sa.ScalarSelect[UUID] = _digests_of(element.element, kind, inner)
        return digests
    if _kind(element) == kind and _alike(_inner(element), inner):
        return _Digest(element)
    return _computed(element, kind, inner)


def _alike(one: TypeEngine[Any], other: TypeEngine[Any]) -> bool:
    """Whether equal values of two types have equal digests."""
    one, other = _whole(one), _whole(other)
    return type(one) is type(other) and (
        getattr(one, "timezone", None) == getattr(other, "timezone", None)
    )


def _digests_of(query: Any, kind: str, inner: TypeEngine[Any]) -> Any:
    """The digests of what a query finds, as a subquery."""
    if not isinstance(query, sa.Select):
        query = sa.select(*query.subquery().c)
    (column,) = query.selected_columns
    digests = query.with_only_columns(_digested(column, kind, inner), maintain_column_froms=True)
    return digests.scalar_subquery()


def _digested_set(values: Any, kind: str, inner: TypeEngine[Any]) -> Any:
    """What a digest of this kind is looked up in, for the other side of IN: a subquery or an array.

    An array is one parameter however many values it has: statement and plan stay the same.
    """
    if isinstance(values, sa.ScalarSelect):
        values = values.element
    if isinstance(values, sa.SelectBase):
        return _digests_of(values, kind, inner)
    whole = _whole(inner)
    # types that make something of a value in Python know how for one, not for an array
    is_plain = isinstance(inner, sa.Interval) or not isinstance(inner, TypeDecorator)
    if isinstance(values, sa.BindParameter):
        items = ARRAY(whole if is_plain else inner)
        values = sa.bindparam(values.key, values.value, items, unique=values.unique)
    else:
        values = list(values)
        # as many parameters as values, where there is no other way
        if (
            not is_plain
            or isinstance(whole, sa.ARRAY | sa.JSON)
            or any(
                isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__")
                for value in values
            )
        ):
            each = [
                sa.null() if _is_null(value) else _digested(value, kind, inner) for value in values
            ]
            return sa.cast(array(each), ARRAY(sa.Uuid()))
        values = sa.literal(values, ARRAY(whole))
    values = sa.cast(values, ARRAY(whole))
    if isinstance(whole, sa.Text) and not isinstance(inner, sa.CHAR):
        digests: sa.ColumnElement[UUID] = sa.func.unnest(sa.func.gdpr.digests(kind, values))
    else:
        value = sa.func.unnest(values).column_valued("value")
        digests = _computed(sa.type_coerce(value, whole), kind, inner)
    return sa.func.array(sa.select(digests).scalar_subquery(), type_=ARRAY(sa.Uuid()))


def _is_same(comparator: _Comparator, other: sa.ClauseElement) -> bool:
    """Whether a column is compared with itself, as annotated by the ORM or not."""
    return hash(comparator.expr) == hash(other)


def _is_null(value: Any) -> bool:
    return value is None or isinstance(value, sa.Null)
