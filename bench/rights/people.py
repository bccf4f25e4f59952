"""Databases of people with rows in nine tables, filled set by set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg

from bench.contenders import APP, DPO, OWNER
from gdprdb import migrate
from gdprdb.server import Cluster

HERE = Path(__file__).parent

POLICY: dict[str, Any] = {
    "purposes": {"orders": {"basis": "contract"}},
    "roles": {APP: {"audience": "clear", "purposes": ["orders"]}},
    "tables": {
        "public.person": {
            "match_on": ["email"],
            "purposes": ["orders"],
            "columns": {
                "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
                "name": {"category": "identity", "encrypt": True},
                "city": {"category": "contact"},
            },
        },
        **{
            f"public.doing_{n}": {
                "subject": {"via": "person_id"},
                "purposes": ["orders"],
                "columns": {
                    "amount": {"category": "transaction"},
                    "note": {"category": "other", "sensitive": True},
                },
            }
            for n in range(1, 9)
        },
    },
}


def make(cluster: Cluster, people: int) -> str:
    """A protected database with so many persons; its name.

    Raises:
        RuntimeError: what was filled is not what the application would have written.
    """
    name = f"rights_{people}"
    with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
        postgres.execute(f"create database {name} owner {OWNER}".encode())
    migrate.init(cluster.dsn(name, OWNER))
    with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as owner:
        owner.execute((HERE / "tables.sql").read_bytes())
        owner.execute(f"grant select on all tables in schema public to {APP}".encode())
        owner.execute("select gdpr.create_key('table')")
        owner.execute("select count(*) from gdpr.apply(%s)", [json.dumps(POLICY)])
        owner.execute(f"grant gdpr_dpo to {DPO}".encode())
    with psycopg.connect(cluster.dsn(name), autocommit=True) as postgres:
        postgres.execute("select set_config('bench.people', %s, false)", [str(people)])
        postgres.execute((HERE / "fill.sql").read_bytes())
        postgres.execute("vacuum analyze")
        wrong = postgres.execute(
            "select * from gdpr.doctor() where severity = 'error' or topic in ('drift', 'gate')"
        ).fetchall()
    with psycopg.connect(cluster.dsn(name, APP), autocommit=True) as app:
        seen = app.execute(
            "select p.id, p.name from gdpr_clear.person as p"
            " where p.email_digest = gdpr.digest('email', 'p10@example.com')"
        ).fetchall()
    if seen != [(10, "Name")] or wrong:
        raise RuntimeError(f"{name} is not filled as it should be: {seen}, {wrong}")
    return name
