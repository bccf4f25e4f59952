"""Sites for reading: the application's people, plain and protected, filled set by set."""

from __future__ import annotations

from pathlib import Path

import psycopg

from bench.contenders import APP, OWNER, PLAIN, Contender, create_tables
from bench.site import Site
from gdprdb import migrate, policy
from gdprdb.server import Cluster

_HERE = Path(__file__).parent
_POLICY = _HERE.parent / "contenders" / "gdprdb" / "policy.toml"


def make(cluster: Cluster, contender: Contender, people: int) -> Site:
    """A contender's database with so many persons and nothing in the other tables.

    Raises:
        RuntimeError: what was filled is not what the application would have written.
    """
    name = f"reads_{contender.name}_{people}"
    with psycopg.connect(cluster.dsn(), autocommit=True) as postgres:
        postgres.execute(f"create database {name} owner {OWNER}".encode())
    with psycopg.connect(cluster.dsn(name, OWNER), autocommit=True) as owner:
        create_tables(owner)
        if contender is PLAIN:
            owner.execute("insert into person select * from bench.people(1, %s)", [people])
            owner.execute("vacuum analyze")
        else:
            migrate.init(owner.info.dsn)
            owner.execute("select gdpr.create_key('table')")
            policy.apply(owner, _POLICY)
    site = Site(cluster, contender, name, people, 0, people)
    if contender is not PLAIN:
        _fill(site)
    return site


def _fill(site: Site) -> None:
    with psycopg.connect(site.cluster.dsn(site.database), autocommit=True) as postgres:
        postgres.execute("select set_config('bench.people', %s, false)", [str(site.people)])
        postgres.execute((_HERE / "fill.sql").read_bytes())
        postgres.execute("vacuum analyze")
    found = (
        site.session(APP)
        .execute(
            "select p.id, p.phone = b.phone, p.email = b.email"
            " from bench.people(%(n)s, %(n)s) as b"
            " join person as p on p.email_digest = gdpr.digest('email', b.email)",
            {"n": site.people},
        )
        .fetchall()
    )
    if found != [(site.people, True, True)]:
        raise RuntimeError(f"{site.database} is not filled as it should be")
