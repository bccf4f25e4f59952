"""The Alembic environment of gdprdb, apart from any environment of the application.

Everything happens in one transaction: the advisory lock that makes a second
upgrade wait, the opening that creates roles and schemas (the version table
lives in one of them), the steps, and after each step the code of the release
arrived at. Where no step was needed the transaction is rolled back, so that
what the opening took (memberships in the owning roles) is given back.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext

from gdprdb import migrate, release

config = context.config
newest = str(context.script.get_current_head())
steps: list[set[str]] = []


def finish(*, ctx: MigrationContext, heads: set[str], **_: Any) -> None:
    """After a step: the code of the release arrived at."""
    steps.append(heads)
    release.finish(ctx, next(iter(heads), None), newest)


options: dict[str, Any] = {
    "version_table": migrate.VERSION_TABLE,
    "version_table_schema": migrate.SCHEMA,
    "transaction_per_migration": False,
    "on_version_apply": finish,
}

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    script = context.get_context()
    with context.begin_transaction():
        release.run(script, migrate.QUIET)
        release.run(script, migrate.LOCK)
        release.run(script, migrate.lock_timeout(config.attributes))
        release.open_load(script, newest)
        release.run(script, migrate.check_start(context.get_starting_revision_argument()))
        context.run_migrations()
else:
    with migrate.engine(config.attributes).connect() as connection:
        context.configure(connection=connection, **options)
        online = context.get_context()
        with connection.begin() as transaction:
            # `alembic current` only looks.
            if not online.opts.get("dont_mutate"):
                release.run(online, migrate.LOCK)
                release.run(online, migrate.lock_timeout(config.attributes))
                release.open_load(online, newest)
            context.run_migrations()
            if not steps:
                transaction.rollback()
