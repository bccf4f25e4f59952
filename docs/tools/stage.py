"""Where the documentation's examples run: a private server with the logins of the shop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from gdprdb.server import Cluster

DOCS = Path(__file__).parents[1]

#: The database of the examples, and the login that owns it and installs gdprdb.
DATABASE, OWNER = "shop", "shop_owner"

#: Logins that hold nothing until the examples give it to them.
LOGINS = (
    "crm_app",
    "mailer",
    "metabase",
    "website",
    "postman",
    "officer",
    "auditor",
    "admin",
    "importer",
    "table_owner",
)


@contextmanager
def stage() -> Iterator[Cluster]:
    """A server with the logins and an empty database, gone at the end of the block."""
    with Cluster(durable=False, settings={"timezone": "UTC"}) as cluster:
        with psycopg.connect(cluster.dsn(), autocommit=True) as superuser:
            superuser.execute(f"create role {OWNER} login createrole".encode())
            for login in LOGINS:
                superuser.execute(f"create role {login} login".encode())
            superuser.execute(f"create database {DATABASE} owner {OWNER}".encode())
        yield cluster
