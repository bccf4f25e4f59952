"""Autogenerate: a policy that changed in the models becomes an operation of the migration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import util
from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import render_op
from alembic.operations.ops import MigrateOperation, ModifyTableOps, UpgradeOps

from gdprdb.errors import RefusedError
from gdprdb.integrations.alembic.filters import is_installed
from gdprdb.integrations.alembic.operations import (
    GdprApplyOp,
    GdprProtectOp,
    GdprReshapeOp,
    GdprRetypeOp,
    GdprUnprotectOp,
)
from gdprdb.integrations.sqlalchemy import policy_from_metadata

#: Of a line of a migration.
_WIDTH = 88

_PLAN = sa.text("select count(*) from gdpr.plan(cast(:policy as jsonb))")

# gdpr.policy() names tables as SQL does; the models, as the policy file does.
_POLICY = sa.text("""
select jsonb_set(p, '{tables}', coalesce((
  select jsonb_object_agg(n.nspname || '.' || c.relname, t.value)
  from jsonb_each(p -> 'tables') as t
  join pg_class as c on c.oid = to_regclass(t.key)
  join pg_namespace as n on n.oid = c.relnamespace
), '{}'))
from gdpr.policy() as p
""")


# Alembic 1.18 and later asks its own comparisons after those of others, unless told otherwise.
_LAST: dict[str, Any] = (
    {"priority": util.DispatchPriority.LAST} if hasattr(util, "DispatchPriority") else {}
)


@comparators.dispatch_for("schema", **_LAST)
def compare_policy(
    context: AutogenContext, upgrade: UpgradeOps, _schemas: Sequence[str | None]
) -> None:
    """Adds the change of policy, and puts changes of protected tables between reshape and apply.

    Raises:
        RefusedError: the policy of the models is refused, and nothing in the migration is going to
            change that.
    """
    connection = context.connection
    if connection is None:
        return
    installed = is_installed(connection)
    current = connection.scalar(_POLICY) if installed else {"tables": {}}
    upgrade.ops[:] = [_reshaped(change, current["tables"]) for change in upgrade.ops]
    declared = _declared(context.metadata)
    if declared and not (installed and _is_there(connection, declared, changing=bool(upgrade.ops))):
        upgrade.ops.append(GdprApplyOp(declared, previous=current))


def _declared(metadata: sa.MetaData | Sequence[sa.MetaData] | None) -> dict[str, Any]:
    """The policy of all models; empty where they say nothing about one."""
    policy: dict[str, Any] = {}
    for part in [metadata] if isinstance(metadata, sa.MetaData) else metadata or ():
        for section, entries in policy_from_metadata(part).items():
            policy.setdefault(section, {}).update(entries)
    return policy if any(policy.values()) else {}


def _is_there(connection: sa.Connection, declared: dict[str, Any], *, changing: bool) -> bool:
    """Whether a database is as a policy wants it.

    Args:
        connection: to the database.
        declared: the policy.
        changing: whether the migration changes tables: a policy that is refused now may be about
            what is not there yet.
    """
    try:
        with connection.begin_nested():
            return not connection.scalar(_PLAN, {"policy": json.dumps(declared)})
    except sa.exc.DatabaseError as error:
        if not isinstance(error.orig, psycopg.Error) or error.orig.sqlstate != "PR001":
            raise
        if changing:
            return False
        raise RefusedError(
            "the policy of the models is refused",
            details=tuple((error.orig.diag.message_detail or "").splitlines()),
            hint=error.orig.diag.message_hint,
        ) from None


def _reshaped(change: MigrateOperation, protected: Mapping[str, Any]) -> MigrateOperation:
    """A change, in a block that takes the controls off where its table is protected."""
    if not isinstance(change, ModifyTableOps):
        return change
    if f"{change.schema or 'public'}.{change.table_name}" not in protected:
        return change
    return GdprReshapeOp(change.table_name, change.ops, schema=change.schema)


@renderers.dispatch_for(GdprApplyOp)
def _render_apply(_context: AutogenContext, operation: GdprApplyOp) -> str:
    unprotect = f",\n    unprotect={operation.unprotect!r}" if operation.unprotect else ""
    return f"op.gdpr_apply(\n    {_literal(operation.policy)}{unprotect},\n)"


@renderers.dispatch_for(GdprProtectOp)
def _render_protect(_context: AutogenContext, operation: GdprProtectOp) -> str:
    return f"op.gdpr_protect({operation.table!r}, {_literal(operation.definition)})"


@renderers.dispatch_for(GdprUnprotectOp)
def _render_unprotect(_context: AutogenContext, operation: GdprUnprotectOp) -> str:
    return f"op.gdpr_unprotect({operation.table!r})"


@renderers.dispatch_for(GdprRetypeOp)
def _render_retype(_context: AutogenContext, operation: GdprRetypeOp) -> str:
    lossy = ", lossy=True" if operation.lossy else ""
    return f"op.gdpr_retype({operation.table!r}, {operation.column!r}, {operation.to!r}{lossy})"


@renderers.dispatch_for(GdprReshapeOp)
def _render_reshape(context: AutogenContext, operation: GdprReshapeOp) -> list[str]:
    name = f"{operation.schema or 'public'}.{operation.table_name}"
    inside = [line for change in operation.ops for line in render_op(context, change)]
    return [f"with op.gdpr_reshape({name!r}):", *inside, ""]


def _literal(document: object, indent: int = 1) -> str:
    """A document as Python writes it: on one line where it fits, an entry to a line elsewhere."""
    line = repr(document)
    if not isinstance(document, Mapping) or len(line) + 4 * indent <= _WIDTH:
        return line
    margin = "    " * indent
    entries = (
        f"{margin}    {key!r}: {_literal(value, indent + 1)},\n" for key, value in document.items()
    )
    return "{\n" + "".join(entries) + margin + "}"
