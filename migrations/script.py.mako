"""Release ${up_revision}: ${message}."""

from __future__ import annotations

from alembic import op

from gdprdb import release

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Come to ${up_revision}."""
    release.upgrade(op.get_context(), revision)


def downgrade() -> None:
    """Go back to the release before."""
    release.downgrade(op.get_context(), revision)
