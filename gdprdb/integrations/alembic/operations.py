"""The operations of a migration: apply a policy, protect a table, take it off, change a table.

They are SQL and nothing else, so that ``alembic upgrade --sql`` writes them like any other. They
run as the owner of the tables, who is a member of gdpr_admin.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import ModifyTableOps

Policy = Mapping[str, Any]

_APPLY = "select count(*) from gdpr.apply({policy}::jsonb)"

# Tables that belong to one of these have to be unprotected before it.
_UNPROTECT = """
with recursive lost as (
  select t.table_name, 0 as depth from gdpr.protected_table as t
  where t.table_name = any ({tables}::regclass[])
  union
  select t.table_name, l.depth + 1
  from gdpr.protected_table as t join lost as l on t.parent = l.table_name
)
select gdpr.unprotect(l.table_name)
from (select table_name, max(depth) from lost group by 1 order by 2 desc) as l
"""

_PROTECT = """
select count(*)
from gdpr.policy() as p
cross join gdpr.apply(jsonb_set(p, '{{tables}}', coalesce((
  select jsonb_object_agg(t.key, t.value) from jsonb_each(p -> 'tables') as t
  where to_regclass(t.key) is distinct from {relation}::regclass
), '{{}}') || jsonb_build_object({table}, {definition}::jsonb)))
"""

_UNPROTECT_ONE = "select gdpr.unprotect({relation}::regclass)"

_RESHAPE = "select gdpr.reshape({relation}::regclass)"

_RETYPE = "select gdpr.retype({relation}::regclass, {column}, {to}, {lossy}::boolean)"

# Not by name: the block may have given the table another.
_END_RESHAPE = "select count(*) from gdpr.end_reshape()"


def relation(table: str) -> str:
    """A table as the policy names it, in the form that ``regclass`` reads.

    Args:
        table: as ``crm.Customer Base``; in schema public without one.
    """
    schema, dot, name = table.partition(".")
    parts = (schema, name) if dot else ("public", schema)
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _run(operations: Operations, statement: str, **values: str) -> None:
    """Run a statement with its values in it: a script has no parameters."""
    literals = {name: "'" + value.replace("'", "''") + "'" for name, value in values.items()}
    text = statement.format(**literals)
    # a colon before a word would be a parameter of SQLAlchemy's
    operations.execute(sa.text(re.sub(r"(?<!:):(?=\w)", r"\:", text)))


def _json(document: Policy) -> str:
    """A document as JSON, without the characters that mean something to SQLAlchemy."""
    text = json.dumps(document, sort_keys=True)
    return re.sub(r":(?=\w)", r"\\u003a", text).replace("%", r"\u0025")


@Operations.register_operation("gdpr_apply")
class GdprApplyOp(MigrateOperation):
    """Bring the database to a policy.

    Args:
        policy: the whole of it, as `gdpr.apply()` takes it.
        previous: the policy before it, which a reversal brings back.
        unprotect: tables whose protection is taken off first; those that belong to them too.
    """

    def __init__(
        self, policy: Policy, *, previous: Policy | None = None, unprotect: Iterable[str] = ()
    ) -> None:
        self.policy = policy
        self.previous = previous
        self.unprotect = list(unprotect)

    @classmethod
    def gdpr_apply(
        cls, operations: Operations, policy: Policy, *, unprotect: Iterable[str] = ()
    ) -> None:
        """Bring the database to a policy; see `GdprApplyOp`."""
        operations.invoke(cls(policy, unprotect=unprotect))

    def reverse(self) -> GdprApplyOp:
        """Back to the policy before; what only this one protects, or encrypts, is given up."""
        if self.previous is None:
            raise NotImplementedError("the policy before this one is not known")
        return GdprApplyOp(
            self.previous, previous=self.policy, unprotect=_gained(self.policy, self.previous)
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` shows."""
        return ("gdpr_apply", self.policy)


@Operations.register_operation("gdpr_protect")
class GdprProtectOp(MigrateOperation):
    """Protect one table, and leave the rest of the policy as it is.

    Args:
        table: as the policy names it.
        definition: its section of the policy.
    """

    def __init__(self, table: str, definition: Policy) -> None:
        self.table = table
        self.definition = definition

    @classmethod
    def gdpr_protect(cls, operations: Operations, table: str, definition: Policy) -> None:
        """Protect one table; see `GdprProtectOp`."""
        operations.invoke(cls(table, definition))

    def reverse(self) -> GdprUnprotectOp:
        """Take the protection off again."""
        return GdprUnprotectOp(self.table, self.definition)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` shows."""
        return ("gdpr_protect", self.table, self.definition)


@Operations.register_operation("gdpr_unprotect")
class GdprUnprotectOp(MigrateOperation):
    """Take the protection off a table: its values are decrypted in place, the evidence stays.

    Args:
        table: as the policy names it.
        definition: its section of the policy, for a reversal.
    """

    def __init__(self, table: str, definition: Policy | None = None) -> None:
        self.table = table
        self.definition = definition

    @classmethod
    def gdpr_unprotect(cls, operations: Operations, table: str) -> None:
        """Take the protection off a table; see `GdprUnprotectOp`."""
        operations.invoke(cls(table))

    def reverse(self) -> GdprProtectOp:
        """Protect it as before."""
        if self.definition is None:
            raise NotImplementedError(f"how {self.table} was protected is not known")
        return GdprProtectOp(self.table, self.definition)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` shows."""
        return ("gdpr_unprotect", self.table)


@Operations.register_operation("gdpr_reshape")
class GdprReshapeOp(ModifyTableOps):
    """Changes of a protected table, between taking its controls off and putting them back."""

    @classmethod
    def gdpr_reshape(
        cls, operations: Operations, table: str, *, policy: Policy | None = None
    ) -> AbstractContextManager[None]:
        """A block in which a protected table may be changed, in one transaction.

        Args:
            operations: of the migration.
            table: as the policy names it, before the block.
            policy: what applies afterwards; by default the one in force, which follows what the
                block renames and drops.
        """
        return _reshaping(operations, table, policy)

    def reverse(self) -> GdprReshapeOp:
        """The changes undone, in a block of their own."""
        return GdprReshapeOp(
            self.table_name,
            ops=[change.reverse() for change in reversed(self.ops)],
            schema=self.schema,
        )


@Operations.register_operation("gdpr_retype")
class GdprRetypeOp(MigrateOperation):
    """Change the type of an encrypted column, which is text for PostgreSQL; inside gdpr_reshape.

    Args:
        table: as the policy names it.
        column: its name now.
        to: the new type, as PostgreSQL writes it.
        previous: the type before, which a reversal brings back.
        lossy: values may become others, rounded or shortened as the new type does.
    """

    def __init__(
        self,
        table: str,
        column: str,
        to: str,
        *,
        previous: str | None = None,
        lossy: bool = False,
    ) -> None:
        self.table = table
        self.column = column
        self.to = to
        self.previous = previous
        self.lossy = lossy

    @classmethod
    def gdpr_retype(
        cls, operations: Operations, table: str, column: str, to: str, *, lossy: bool = False
    ) -> None:
        """Change the type of an encrypted column; see `GdprRetypeOp`."""
        operations.invoke(cls(table, column, to, lossy=lossy))

    def reverse(self) -> GdprRetypeOp:
        """Back to the type before."""
        if self.previous is None:
            raise NotImplementedError(f"the type of {self.column} before this one is not known")
        return GdprRetypeOp(self.table, self.column, self.previous, previous=self.to)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` shows."""
        return ("gdpr_retype", self.table, self.column, self.to)


@contextmanager
def _reshaping(operations: Operations, table: str, policy: Policy | None) -> Iterator[None]:
    _run(operations, _RESHAPE, relation=relation(table))
    yield
    _run(operations, _END_RESHAPE)
    if policy is not None:
        _run(operations, _APPLY, policy=_json(policy))


@Operations.implementation_for(GdprRetypeOp)
def _retype(operations: Operations, operation: GdprRetypeOp) -> None:
    _run(
        operations,
        _RETYPE,
        relation=relation(operation.table),
        column=operation.column,
        to=operation.to,
        lossy=str(operation.lossy).lower(),
    )


@Operations.implementation_for(GdprApplyOp)
def _apply(operations: Operations, operation: GdprApplyOp) -> None:
    if operation.unprotect:
        names = [relation(table) for table in operation.unprotect]
        _run(operations, _UNPROTECT, tables=_array(names))
    _run(operations, _APPLY, policy=_json(operation.policy))


@Operations.implementation_for(GdprProtectOp)
def _protect(operations: Operations, operation: GdprProtectOp) -> None:
    _run(
        operations,
        _PROTECT,
        relation=relation(operation.table),
        table=operation.table,
        definition=_json(operation.definition),
    )


@Operations.implementation_for(GdprUnprotectOp)
def _unprotect(operations: Operations, operation: GdprUnprotectOp) -> None:
    _run(operations, _UNPROTECT_ONE, relation=relation(operation.table))


def _array(texts: Iterable[str]) -> str:
    """An array of texts as PostgreSQL reads it."""
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"


def _gained(policy: Policy, previous: Policy) -> list[str]:
    """Tables that a policy protects, or of which it encrypts more, than the one before."""
    before = previous.get("tables", {})
    return sorted(
        name
        for name, table in policy.get("tables", {}).items()
        if name not in before or _encrypted(table) - _encrypted(before[name])
    )


def _encrypted(table: Policy) -> set[str]:
    return {name for name, said in table.get("columns", {}).items() if said.get("encrypt")}
