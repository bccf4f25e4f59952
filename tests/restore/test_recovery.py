"""A base backup: recovered to before an erasure, and to its end, as a standby that takes over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from gdprdb import migrate
from gdprdb.server import Cluster
from tests.capabilities.crm import POLICY, ROWS, TABLES, apply, findings, refused, subject
from tests.capabilities.test_60_ledger import counts, ledger, officer, seen
from tests.restore.test_dumps import found
from tests.support import AS_SUPERUSER, INSTALLER, OWNER, SETTINGS, Database, Run, serve

#: Keeps each WAL file beside the data directory.
ARCHIVE = "mkdir -p ../archive && cp %p ../archive/%f"


@pytest.fixture(scope="module")
def primary() -> Iterator[Database]:
    """The application under its policy, on a server of its own that archives its WAL."""
    with serve(archive_mode="on", archive_command=ARCHIVE, wal_level="replica") as cluster:
        with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
            admin.execute(f"create database shop owner {OWNER}".encode())
        shop = Database(cluster, "shop")
        migrate.init(shop.dsn(INSTALLER))
        if AS_SUPERUSER:
            shop.rows(f"grant gdpr_admin, gdpr_dpo to {OWNER} with admin option", user="postgres")
        shop.rows("grant gdpr_dpo to dpo_login", user="postgres")
        shop.rows("select gdpr.create_key('table')")
        shop.rows(TABLES)
        shop.rows(ROWS)
        apply(shop, POLICY)
        yield shop


@pytest.fixture(scope="module")
def base(primary: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base backup of the server."""
    path = tmp_path_factory.mktemp("base") / "data"
    subprocess.run(
        [
            primary.cluster.binaries.program("pg_basebackup"),
            f"--dbname={primary.cluster.dsn()}",
            f"--pgdata={path}",
            "--checkpoint=fast",
        ],
        check=True,
    )
    return path


def archived(primary: Database) -> None:
    """Wait until everything written so far is in the archive."""
    with psycopg.connect(primary.dsn("postgres"), autocommit=True) as superuser:
        superuser.execute("set synchronous_commit = on")
        superuser.execute("select pg_logical_emit_message(true, 'all', '')")
        row = superuser.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
        assert row is not None
        deadline = time.monotonic() + 30
        question = "select coalesce(last_archived_wal >= %s, false) from pg_stat_archiver"
        while superuser.execute(question, row).fetchone() != (True,):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextmanager
def recovered(
    primary: Database, base: Path, directory: Path, **settings: str
) -> Iterator[Database]:
    """A server that recovered the base backup with the archive, and went on.

    Args:
        settings: where recovery ends, as postgresql.conf names it; without any, at the end.
    """
    archive = primary.cluster.directory / "archive"
    server = Cluster(directory, binaries=primary.cluster.binaries, durable=False)
    # what makes a directory one of a server, so that none is made in it
    directory.mkdir()
    (directory / "gdprdb.conf").touch()
    shutil.copytree(base, server.data, symlinks=True)
    (server.data / "recovery.signal").touch()
    # a standby needs what the primary has at least
    settings |= SETTINGS
    settings |= {"restore_command": f"cp {archive}/%f %p", "recovery_target_action": "promote"}
    with (server.data / "postgresql.auto.conf").open("a") as conf:
        conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        conf.write("archive_mode = off\n")
    owner = primary.cluster.directory.stat()
    for path in (directory, server.data, *server.data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    server.data.chmod(0o700)
    with server:
        shop = Database(server, "shop")
        deadline = time.monotonic() + 30
        while shop.rows("select pg_is_in_recovery()", user="postgres") != [(False,)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        try:
            yield shop
        finally:
            shop.close()
            server.remove()


def test_point_in_time_recovery_refuses_until_replayed(
    primary: Database, base: Path, reachable: Path, run: Run, tmp_path: Path
) -> None:
    """To before an erasure: noticed at the start, by every login, without anybody's help."""
    ((before,),) = primary.rows("select clock_timestamp()::text")
    officer(primary, "select gdpr.object_to(%s, 'analytics')", subject(primary, "crm.customer", 1))
    officer(primary, "select gdpr.erase(%s)", subject(primary, "crm.customer", 3))
    key, public, file = (tmp_path / name for name in ("key", "pub", "ledger.jsonl"))
    public.write_text(run("ledger", "keygen", str(key)).out)
    dsn = ["--dsn", primary.dsn("dpo_login")]
    file.write_text(run("ledger", "export", *dsn, "--signing-key", str(key)).out)
    archived(primary)
    with recovered(primary, base, reachable, recovery_target_time=before) as shop:
        for _ in range(2):
            with refused("PR640", "restored"):
                seen(shop)
        assert "Chiba" in found(shop)
        assert officer(shop, "select count(*) from gdpr_clear.customer") == 3
        there = ["--dsn", shop.dsn("dpo_login")]
        assert run("db", "status", *there, "--format=json").data[0]["whereabouts"] == "restored"
        checked = run(
            "ledger", "check", str(file), *there, f"--public-key={public}", "--format=json"
        )
        assert checked.code == 3
        assert {"finding": "missing", "what": "erasure", "records": 1} in checked.data
        # noticed for good: the settings of the recovery may go
        assert officer(shop, "select event from gdpr.home order by id desc limit 1") == "noticed"
        done = run(
            "ledger",
            "replay",
            str(file),
            *there,
            f"--public-key={public}",
            "--yes",
            "--format=json",
        )
        assert (done.code, counts(done.data)) == (0, {"erasures": 1, "objections": 1})
        assert seen(shop) == ["Ahrens", "Bartok"]
        assert found(shop) == []
        shop.rows("analyze", user="postgres")
        assert findings(shop) == set()
        assert run("ledger", "check", str(file), *there, f"--public-key={public}").code == 0


def test_a_failover_goes_on_and_the_ledger_says_that_nothing_was_lost(
    primary: Database, base: Path, reachable: Path
) -> None:
    """The end of the archive on a new timeline is what a standby is that takes over."""
    archived(primary)
    lines = ledger(primary)
    with recovered(primary, base, reachable) as shop:
        assert officer(shop, "select gdpr.whereabouts()") == "promoted"
        assert seen(shop) == seen(primary)
        assert ("restore", "shop") in findings(shop)
        # where there are no standbys, the policy can say that this is no failover
        for setting, place in (("refuse", "restored"), ("warn", "promoted")):
            apply(shop, {**POLICY, "settings": {**POLICY["settings"], "new_timeline": setting}})
            assert officer(shop, "select gdpr.whereabouts()") == place
        result = officer(shop, "select gdpr.check_ledger(%s)", json.dumps(lines))
        assert (result["missing"], result["behind"]) == ({}, {})
        officer(shop, "select gdpr.accept_restore('failover, nothing lost')")
        assert officer(shop, "select gdpr.whereabouts()") == "home"
        assert seen(shop) == seen(primary)
