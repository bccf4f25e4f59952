"""What autogenerate proposes where alembic-utils looks for functions, triggers and grants as well.

A program of its own: alembic-utils joins every autogenerate of the process that imports it.
"""

from __future__ import annotations

import json
import sys

import psycopg
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from alembic_utils.pg_trigger import PGTrigger
from alembic_utils.replaceable_entity import register_entities

from gdprdb.integrations.alembic import Filters
from tests.integrations.models import Base

TOUCHED = PGTrigger(
    schema="crm",
    signature="touched",
    on_entity="crm.customer",
    definition="before update on crm.customer for each row execute function crm.touch()",
)


def no_schemas(name: str | None, kind: str, _parents: object) -> bool:
    """The one filter without which Alembic ends in an error: these schemas are closed to it."""
    return kind != "schema" or not (name or "").startswith("gdpr")


def proposed(connection: sa.Connection, *, filtered: bool) -> list[str]:
    """The changes that are proposed, in words."""
    options = Filters(connection).options() if filtered else {"include_name": no_schemas}
    context = MigrationContext.configure(connection, opts={"include_schemas": True, **options})
    script = produce_migrations(context, Base.metadata)
    assert script.upgrade_ops is not None
    return [
        f"{type(change).__name__} {change.target.identity}"
        for change in script.upgrade_ops.ops
        if hasattr(change, "target")
    ]


def main(dsn: str) -> None:
    """Print what is proposed with the filters, and without."""
    register_entities([TOUCHED])
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    with engine.connect() as connection:
        found = {
            "filtered": proposed(connection, filtered=True),
            "unfiltered": proposed(connection, filtered=False),
        }
    engine.dispose()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
