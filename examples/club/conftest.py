"""The club's tests run on databases that its migrations made, the policy with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from club import connect
from models import Base
from sqlalchemy.orm import Session

from gdprdb.integrations.sqlalchemy import policy_from_metadata
from gdprdb.integrations.testing import Database


@pytest.fixture(scope="session")
def gdpr_schema() -> Callable[[Database], None]:
    """The tables, as they are made in production."""

    def migrate(database: Database) -> None:
        config = Config(Path(__file__).with_name("alembic.ini"))
        config.attributes["url"] = database.url()
        command.upgrade(config, "head")

    return migrate


@pytest.fixture(scope="session")
def gdpr_policy() -> dict[str, Any]:
    """The policy of the models: its roles are there before the migrations run."""
    return policy_from_metadata(Base.metadata)


@pytest.fixture
def session(gdpr_db: Database) -> Iterator[Session]:
    """A session of the application."""
    engine = connect(gdpr_db.url("club_app"))
    with Session(engine) as session:
        yield session
    engine.dispose()
