"""Alembic: a policy is migrated with the tables it is about.

In ``env.py`` of an application:

    from gdprdb.integrations.alembic import Filters

    filters = Filters(connection)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_schemas=True,
        **filters.options(),
    )

Importing this package is what gives ``op`` its ``gdpr_apply``, ``gdpr_protect``,
``gdpr_unprotect``, ``gdpr_reshape`` and ``gdpr_retype``, and autogenerate its eye for
``info["gdpr"]``. See docs/alembic.md.
"""

from __future__ import annotations

from gdprdb.integrations.alembic.autogenerate import compare_policy
from gdprdb.integrations.alembic.filters import Filters
from gdprdb.integrations.alembic.operations import (
    GdprApplyOp,
    GdprProtectOp,
    GdprReshapeOp,
    GdprRetypeOp,
    GdprUnprotectOp,
)

__all__ = [
    "Filters",
    "GdprApplyOp",
    "GdprProtectOp",
    "GdprReshapeOp",
    "GdprRetypeOp",
    "GdprUnprotectOp",
    "compare_policy",
]
