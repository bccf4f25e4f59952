"""Release 0.1.0: the first, one slice from end to end."""

from __future__ import annotations

from alembic import op

from gdprdb import release

revision = "0.1.0"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Install everything."""
    release.upgrade(op.get_context(), revision)


def downgrade() -> None:
    """Take the code away and lay the registers aside; evidence is kept."""
    release.downgrade(op.get_context(), revision)
