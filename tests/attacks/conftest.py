"""The house that Mallory attacks.

world
    A database of the test's own, a clone of one template: two schemas of two
    owners, three persons, every audience with a login. See `World`.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from gdprdb import migrate
from gdprdb.server import Cluster
from tests.attacks.world import LOGINS, POLICY, TABLES, World
from tests.support import AS_SUPERUSER, INSTALLER, OWNER, Clone


@pytest.fixture(scope="session", autouse=True)
def logins(cluster: Cluster) -> None:
    """The attackers' logins: made once and before any database, without any right."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        for login in LOGINS:
            connection.execute(sql.SQL("create role {} login").format(sql.Identifier(login)))


@pytest.fixture(scope="session")
def world_template(clone: Clone) -> Iterator[str]:
    """Name of the database that each test gets a copy of."""
    with clone() as database:
        migrate.init(database.dsn(INSTALLER))
        if AS_SUPERUSER:
            database.rows(
                f"grant gdpr_admin, gdpr_dpo to {OWNER} with admin option", user="postgres"
            )
        database.rows("grant gdpr_dpo to dpo_login", user="postgres")
        database.rows("grant gdpr_auditor to auditor_login", user="postgres")
        database.rows("grant gdpr_admin to admin_login", user="postgres")
        database.rows("grant gdpr_portal to portal_app", user="postgres")
        # the policy is applied by somebody who may act for both owners
        database.rows(f"grant mallory to {OWNER}", user="postgres")
        database.rows(TABLES, user="postgres")
        database.rows("select gdpr.create_key('table')")
        database.rows("select count(*) from gdpr.apply(%s::jsonb)", [POLICY])
        database.rows(f"revoke mallory from {OWNER}", user="postgres")
        dpo = database.connect("dpo_login")
        dpo.execute("select gdpr.restrict(gdpr.subject_of('crm.customer', '2'), 'legal_claims')")
        dpo.execute(
            "select gdpr.record_consent("
            "gdpr.subject_of('crm.customer', '1'), 'marketing', true, 'in_person')"
        )
        dpo.execute(
            "select gdpr.record_consent("
            "gdpr.subject_of('crm.customer', '3'), 'marketing', true, 'in_person')"
        )
        dpo.execute(
            "select gdpr.withdraw_consent(gdpr.subject_of('crm.customer', '3'), 'marketing')"
        )
        database.close()
        yield database.name


@pytest.fixture
def world(clone: Clone, world_template: str) -> Iterator[World]:
    """A copy of the house, for one attack."""
    with clone(world_template) as database:
        yield World(database)
        # memberships are the server's: what a test granted, or did not come to revoke, ends with it
        database.rows(f"revoke mallory from {OWNER}", user="postgres")
