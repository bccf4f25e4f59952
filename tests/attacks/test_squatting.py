"""Before gdprdb comes, somebody who may CREATE in the database prepares the place."""

from __future__ import annotations

import psycopg
import pytest

from gdprdb import migrate
from gdprdb.errors import GdprdbError
from tests.support import AS_SUPERUSER, INSTALLER, Database


def prepare(database: Database, schema: str, *, pgcrypto: bool = False) -> None:
    """mallory owns a schema of gdprdb's name, and may be kind enough to bring pgcrypto."""
    database.rows(
        f"grant create on database {database.name} to mallory",
        user="postgres",
    )
    database.rows(f"create schema {schema}; grant all on schema {schema} to public", user="mallory")
    if pgcrypto:
        database.rows(f"create extension pgcrypto with schema {schema}", user="mallory")


@pytest.mark.parametrize(
    "schema",
    ["gdpr", "gdpr_internal", "gdpr_policy", "gdpr_generated", "gdpr_clear", "gdpr_export"],
)
def test_schema_that_somebody_else_owns(empty_db: Database, schema: str) -> None:
    """The owner of a schema drops what stands in it and puts her own in its place."""
    prepare(empty_db, schema)
    try:
        migrate.init(empty_db.dsn(INSTALLER))
    except (psycopg.Error, GdprdbError):
        return
    owner = empty_db.rows(
        "select nspowner::regrole::text from pg_namespace where nspname = %s", [schema]
    )
    assert owner != [("mallory",)], "installed into a schema of mallory's"


def test_pgcrypto_in_a_prepared_schema(empty_db: Database) -> None:
    prepare(empty_db, "gdpr_internal", pgcrypto=True)
    with pytest.raises((psycopg.Error, GdprdbError)):
        migrate.init(empty_db.dsn(INSTALLER))


def test_pgcrypto_in_public(empty_db: Database) -> None:
    empty_db.rows("create extension pgcrypto with schema public", user="postgres")
    if not AS_SUPERUSER:
        with pytest.raises((psycopg.Error, GdprdbError)):
            migrate.init(empty_db.dsn(INSTALLER))
