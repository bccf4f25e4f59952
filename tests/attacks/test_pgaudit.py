"""pgaudit beside gdprdb, with the settings of docs/audit.md: every statement that reads or writes
a protected table leaves a line in the server's log, rolled back or not, and no value of anybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gdprdb import guard, migrate
from gdprdb.server import Cluster
from tests.capabilities.crm import POLICY, ROWS, TABLES, apply, findings, policy, refused
from tests.support import AS_SUPERUSER, INSTALLER, OWNER, Database, cloning, serve

#: The settings of the page, without those that only say where the log goes.
PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


def settings() -> dict[str, str]:
    """What the page says in its block of postgresql.conf."""
    block = PAGE.read_text(encoding="utf-8").split("```ini\n")[1].split("```")[0]
    lines = [line.partition("#")[0].strip() for line in block.splitlines()]
    pairs = (line.split("=", 1) for line in lines if line)
    return {name.strip(): value.strip().strip("'") for name, value in pairs}


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """A server with pgaudit, set up as the page says."""
    if AS_SUPERUSER:
        pytest.skip("the other tests of the installer do")
    try:
        with serve(**settings()) as cluster:
            yield cluster
    except Exception as error:
        if "pgaudit" not in f"{error} {vars(error)}":
            raise
        pytest.skip("pgaudit is not installed")


@pytest.fixture(scope="module")
def db(server: Cluster) -> Iterator[Database]:
    """The application under its policy, reads recorded, pgaudit and the guard beside it."""
    with cloning(server) as clone, clone() as database:
        migrate.init(database.dsn(INSTALLER))
        database.rows("grant gdpr_dpo to dpo_login")
        database.rows("select gdpr.create_key('table')")
        database.rows("create extension pgaudit", user="postgres")
        connection = database.connect()
        connection.execute(TABLES)
        connection.execute(ROWS)
        apply(database, policy(**{"tables__crm.customer__audit_reads": True}))
        database.rows(
            "create role pgaudit_objects; grant select, insert, update, delete"
            " on all tables in schema crm to pgaudit_objects",
            user="postgres",
        )
        with psycopg.connect(database.dsn("postgres")) as superuser:
            guard.install(superuser)
        yield database


def said(server: Cluster, start: int) -> str:
    """The log since a place."""
    return (server.directory / "log").read_bytes()[start:].decode(errors="replace")


def test_statements_are_logged_and_values_are_not(server: Cluster, db: Database) -> None:
    start = (server.directory / "log").stat().st_size
    with psycopg.connect(db.dsn("crm_app")) as app:
        app.execute("select * from gdpr_clear.customer where id = 1")
        app.execute("select id from gdpr_clear.customer where phone = '+49 711 1001'")
        app.execute("select id from crm.customer where last_name = %s", ["Bartok"])
        app.execute("update gdpr_clear.customer set city = 'Zzsecretcity' where id = 2")
        app.rollback()
        app.execute("insert into gdpr_clear.customer (email, last_name) values ('zz@zz.zz', 'Zz')")
        with pytest.raises(psycopg.Error):
            app.execute("select 1 / (id - 1), 'zz@zz.zz' from crm.customer where city = 'Aalen'")
    with psycopg.connect(db.dsn("dpo_login")) as officer:
        officer.execute("select gdpr.find_subject('email', 'anna@example.com')")
        officer.execute("select * from gdpr.access_report(gdpr.subject_of('crm.customer', '1'))")
    text = said(server, start)
    lines = [line for line in text.splitlines() if "AUDIT: " in line]
    # rolled back, and so in no audit record
    assert [line for line in lines if "READ,SELECT,TABLE,crm.customer" in line]
    assert [line for line in lines if "WRITE,UPDATE,TABLE,crm.customer" in line]
    for value in ("anna@example.com", "711", "Bartok", "Zzsecret", "zz@zz.zz", "Aalen", "Ahrens"):
        assert value not in text, value


def test_what_is_rolled_back_is_in_the_log_alone(server: Cluster, db: Database) -> None:
    start = (server.directory / "log").stat().st_size
    with psycopg.connect(db.dsn("crm_app")) as app:
        app.execute("select * from gdpr_clear.customer")
        app.rollback()
    assert "READ,SELECT,TABLE,crm.customer" in said(server, start)
    reads = "select from gdpr.audit_log where operation = 'READ' and old ->> 'rows' = '2-10'"
    assert db.rows(reads, user="dpo_login") == []


def test_both_keep_out_of_each_others_way(db: Database) -> None:
    """pgaudit has event triggers of its own; gdprdb applies, unprotects and upgrades beside it."""
    assert findings(db) <= {("assessment", "analytics")}
    with refused("PR510", "guarded"):
        db.rows("alter table crm.customer disable trigger zzz_gdpr_50_audit")
    apply(db, POLICY)
    db.rows("select gdpr.unprotect('crm.order_line')", user=OWNER)
    db.close()
    migrate.upgrade(db.dsn(INSTALLER))
    assert db.rows("select gdpr.seal_audit()")[0][0] > 0
