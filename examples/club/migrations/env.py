"""Alembic's environment of the club: ``alembic -x url=... upgrade head``, as the tables' owner."""

from __future__ import annotations

from alembic import context
from models import Base
from sqlalchemy import create_engine

from gdprdb.integrations.alembic import Filters

url = context.get_x_argument(as_dictionary=True).get("url")

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(url or context.config.attributes["url"])
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_schemas=True,
            **Filters(connection).options(),
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()
