"""Roles of PostgreSQL that read or write everything, granted to backups and BI tools alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.attacks.world import ENCRYPTED, HIDDEN, World, attempt, leaked, told


@contextmanager
def granted(world: World, role: str, member: str) -> Iterator[psycopg.Connection]:
    """A connection of a login that holds a role meanwhile."""
    world.run("postgres", f"grant {role} to {member}")
    try:
        yield world.login(member)
    finally:
        world.run("postgres", f"revoke {role} from {member}")


def every_relation(world: World) -> list[str]:
    """Tables and views of gdprdb and of the application."""
    return [
        name
        for (name,) in world.run(
            "postgres",
            """
            select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid =
              c.relnamespace
            where c.relkind in ('r', 'p', 'v') and (n.nspname ~ '^gdpr' or n.nspname = 'crm')
        """,
        )
    ]


@pytest.mark.parametrize("member", ["outsider", "metabase"])
def test_reading_all_data_shows_no_key_and_no_person(world: World, member: str) -> None:
    secret = world.run(
        "postgres", "select encode(material, 'hex') from gdpr_internal.key_encryption_key"
    )[0][0]
    found = {}
    with granted(world, "pg_read_all_data", member) as connection:
        for name in every_relation(world):
            try:
                rows = str(
                    connection.execute(f"select r::text from {name} as r".encode()).fetchall()
                )
            except psycopg.Error as error:
                rows = told(error)
            bad = leaked(rows, (*ENCRYPTED, *HIDDEN, secret))
            if bad:
                found[name] = bad
        keys = connection.execute("select count(*) from gdpr_internal.subject_key").fetchall()
    assert found == {}
    assert keys == [(0,)]


@pytest.mark.parametrize(
    "table",
    [
        "key_encryption_key",
        "subject_key",
        "role_purpose",
        "role_binding",
        "consent_record",
        "basis_record",
        "audit_record",
        "subject",
        "identifier",
        "protected_table",
        "protected_column",
        "fold",
        "setting",
    ],
)
def test_writing_all_data_changes_no_evidence(world: World, table: str) -> None:
    name = f"gdpr_internal.{table}"
    before = world.run("postgres", f"select r::text from {name} as r order by 1")
    with granted(world, "pg_write_all_data", "outsider") as connection:
        attempt(connection, f"delete from {name}")
        attempt(connection, f"truncate {name}")
        column = world.run(
            "postgres",
            f"select attname from pg_attribute where attrelid = '{name}'::regclass and attnum = 1",
        )[0][0]
        attempt(connection, f"update {name} set {column} = default")
        attempt(connection, f"insert into {name} default values")
    assert world.run("postgres", f"select r::text from {name} as r order by 1") == before


def test_doctor_names_logins_that_read_all_data(world: World) -> None:
    with granted(world, "pg_read_all_data", "outsider"):
        findings = world.run(
            "db_owner", "select finding from gdpr.doctor() where object ~ 'outsider'"
        )
    assert findings


def test_doctor_names_members_that_do_not_inherit(world: World) -> None:
    """NOINHERIT or through another role: SET ROLE is enough to act as the keyholder."""
    world.run(
        "postgres",
        (
            "create role quiet nologin; grant gdpr_keyholder to quiet; grant quiet to"
            " outsider; alter role outsider noinherit"
        ),
    )
    try:
        findings = world.run(
            "db_owner", "select finding from gdpr.doctor() where object ~ 'outsider'"
        )
    finally:
        world.run("postgres", "drop role quiet; alter role outsider inherit")
    assert findings
