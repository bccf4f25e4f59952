"""pgbouncer in transaction mode: two clients take turns on one connection to the server, and
neither sees what the other said of itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from gdprdb import migrate
from tests.capabilities.crm import apply, one_table
from tests.support import AS_SUPERUSER, INSTALLER, OWNER, Clone, Database

PGBOUNCER = shutil.which(
    "pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
)

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

#: Where the pooler's socket says it listens; no TCP port is opened.
PORT = 6432


@dataclass
class Pool:
    """Two clients of one server connection."""

    db: Database
    key: str
    first: psycopg.Connection
    second: psycopg.Connection


@pytest.fixture(scope="module")
def protected(clone: Clone) -> Iterator[tuple[Database, str]]:
    """A database whose key each session gives, with a person, and two purposes for crm_app."""
    with clone() as database:
        migrate.init(database.dsn(INSTALLER))
        if AS_SUPERUSER:
            database.rows(
                f"grant gdpr_admin, gdpr_dpo to {OWNER} with admin option", user="postgres"
            )
        (key,) = database.rows("select gdpr.create_key('session')")[0]
        with psycopg.connect(database.dsn(), autocommit=True) as owner:
            owner.execute(
                "create table public.person (id integer primary key, name text);"
                "grant all on public.person to crm_app"
            )
            owner.execute("select gdpr.unlock(%s)", [key])
            policy = one_table(
                "public.person",
                columns={
                    "id": {"category": "key"},
                    "name": {"category": "identity", "encrypt": True},
                },
            )
            policy["purposes"]["support"] = {"basis": "contract"}
            policy["roles"]["crm_app"]["purposes"].append("support")
            policy["tables"]["public.person"]["purposes"].append("support")
            apply(owner, policy)
        yield database, key


@pytest.fixture
def pool(protected: tuple[Database, str], reachable: Path) -> Iterator[Pool]:
    """pgbouncer with one server connection, and two clients."""
    assert PGBOUNCER is not None
    db, key = protected
    reachable.mkdir()
    reachable.chmod(0o777)
    config = reachable / "pgbouncer.ini"
    upstream = db.cluster
    config.write_text(
        "[databases]\n"
        f"pooled = host={upstream.socket_dir} port={_port(db)} dbname={db.name} user=crm_app\n"
        "[pgbouncer]\n"
        f"unix_socket_dir = {reachable}\nlisten_port = {PORT}\nlisten_addr =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n"
        "max_client_conn = 10\nignore_startup_parameters = extra_float_digits\n"
    )
    config.chmod(0o644)
    # pgbouncer does not run as root: it runs as the server does
    owner = upstream.socket_dir.stat()
    user, group = (owner.st_uid, owner.st_gid) if os.geteuid() == 0 else (None, None)
    with (reachable / "log").open("wb") as log:
        process = subprocess.Popen(
            [PGBOUNCER, str(config)],
            stdout=log,
            stderr=log,
            user=user,
            group=group,
        )
    try:
        dsn = f"host={reachable} port={PORT} dbname=pooled user=crm_app"
        first = _client(dsn, reachable / "log")
        second = _client(dsn, reachable / "log")
        with first, second:
            yield Pool(db, key, first, second)
    finally:
        process.terminate()
        process.wait(10)


def _port(db: Database) -> int:
    """The port of the server."""
    with psycopg.connect(db.dsn("postgres")) as connection:
        return connection.info.port


def _client(dsn: str, log: Path) -> psycopg.Connection:
    """A client of the pooler, as soon as it listens."""
    for _ in range(100):
        try:
            # prepared statements are the pooler's own matter
            return psycopg.connect(dsn, prepare_threshold=None)
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())


CONTEXT = (
    "select pg_backend_pid(), current_setting('gdpr.actor', true),"
    " current_setting('gdpr.purpose', true), current_setting('gdpr.source', true),"
    " current_setting('gdpr.request', true), current_setting('gdpr.unlocked', true)"
)


def test_two_clients_on_one_connection(pool: Pool) -> None:
    """What a client says with set_context() and unlock(..., true) ends with its transaction."""
    pids = set()
    for turn in range(6):
        speaker, other = (pool.first, pool.second)[:: 1 if turn % 2 == 0 else -1]
        speaker.execute("select gdpr.unlock(%s, true)", [pool.key])
        speaker.execute(
            "select gdpr.set_context(%s, 'support', '{\"kind\": \"api\"}', %s)",
            [f"anna-{turn}", f"request-{turn}"],
        )
        speaker.execute("insert into gdpr_clear.person values (%s, 'Ada')", [turn])
        pid, *said = speaker.execute(CONTEXT).fetchone() or ()
        assert said[:2] == [f"anna-{turn}", "support"]
        ticket = said[-1]
        pids.add(pid)
        speaker.commit()

        pid, *seen = other.execute(CONTEXT).fetchone() or ()
        pids.add(pid)
        assert not any(seen), seen
        with pytest.raises(psycopg.Error) as caught:
            other.execute("select name from gdpr_clear.person")
        assert caught.value.sqlstate == "PR402"
        other.rollback()
        # not even for who has seen what stood in the setting, on the same connection to the server
        other.execute("select set_config('gdpr.unlocked', %s, true)", [ticket])
        with pytest.raises(psycopg.Error) as caught:
            other.execute("select name from gdpr_clear.person")
        assert caught.value.sqlstate == "PR402"
        other.rollback()
    assert len(pids) == 1
    recorded = pool.db.rows(
        "select distinct actor, purpose from gdpr.audit_log where table_name ="
        " 'public.person'::regclass and operation = 'INSERT'",
        user=OWNER,
    )
    assert set(recorded) == {(f"anna-{turn}", "support") for turn in range(6)}


def test_a_transaction_that_fails_leaves_nothing(pool: Pool) -> None:
    pool.first.execute("select gdpr.unlock(%s, true)", [pool.key])
    pool.first.execute("select gdpr.set_context('anna', 'support')")
    with pytest.raises(psycopg.Error):
        pool.first.execute("select 1 / 0")
    pool.first.rollback()
    _, *seen = pool.second.execute(CONTEXT).fetchone() or ()
    assert not any(seen), seen
