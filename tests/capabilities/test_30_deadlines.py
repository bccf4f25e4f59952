"""Station 30: everybody agrees with the clock, and with the last word."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gdprdb.cli.keys import allow_files
from gdprdb.server import Cluster
from tests.capabilities.consents import ask, set_up
from tests.capabilities.crm import subject
from tests.capabilities.sealing import checkpoint, seal, tamper, verified, write
from tests.support import SETTINGS, Database, cloning, serve

ANNA = "select count(*) from gdpr_clear.customer where id = 1"


@pytest.fixture
def news(crm: Database) -> Database:
    """The customer database that can ask."""
    return set_up(crm)


def at_work(db: Database, zone: str = "UTC", *, autocommit: bool = True) -> psycopg.Connection:
    """A session of the application that works for marketing."""
    return db.connect(
        "crm_app", autocommit=autocommit, options=f"-c gdpr.purpose=marketing -c TimeZone={zone}"
    )


def test_all_sessions_agree_on_a_deadline(news: Database) -> None:
    """Zones, an older transaction, a prepared statement, a cursor: each statement by its clock.

    A cursor is one statement: it shows what it was opened on. The next one does not.
    """
    anna = subject(news, "crm.customer", 1)
    sessions = [at_work(news, zone) for zone in ("Pacific/Kiritimati", "America/Adak")]
    older = at_work(news, autocommit=False)
    older.execute("select 1")
    prepared = at_work(news)
    prepared.execute("set plan_cache_mode = force_generic_plan")
    prepared.execute(f"prepare q as {ANNA}".encode())
    ask(news, anna, channel="paper", within="1500 ms")
    older.execute(f"declare open_before cursor for {ANNA}".encode())
    reads = [
        *((session, ANNA) for session in sessions),
        (older, ANNA),
        (prepared, "execute q"),
        (older, "fetch 1 from open_before"),
    ]
    before = [session.execute(read.encode()).fetchone() for session, read in reads]
    assert before == [(1,)] * 5
    time.sleep(1.6)
    older.execute(f"declare open_after cursor for {ANNA}".encode())
    reads[-1] = (older, "fetch 1 from open_after")
    after = [session.execute(read.encode()).fetchone() for session, read in reads]
    assert after == [(0,)] * 5


@contextmanager
def standby_of(primary: Cluster, directory: Path) -> Iterator[Cluster]:
    """A hot standby, streaming from a server."""
    standby = Cluster(directory, settings=SETTINGS, binaries=primary.binaries, durable=False)
    standby.start()
    standby.stop()
    shutil.rmtree(standby.data)
    subprocess.run(
        [
            primary.binaries.program("pg_basebackup"),
            "--dbname",
            primary.dsn(),
            "--pgdata",
            standby.data,
            "--checkpoint=fast",
        ],
        check=True,
    )
    # in our own words: pg_basebackup names options that an older libpq beside the server lacks
    (standby.data / "standby.signal").touch()
    with (standby.data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = '{primary.dsn()}'\n")
    owner = standby.directory.stat()
    for path in (standby.data, *standby.data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    with standby:
        yield standby


def catch_up(news: Database, copy: Database, seconds: float) -> None:
    """Wait until the standby has replayed all that is written now; fail after that time.

    The message is committed at once: what else is written, a server without durability keeps to
    itself for a while.
    """
    superuser = news.connect("postgres")
    superuser.execute("set synchronous_commit = on")
    ((position,),) = superuser.execute("select pg_logical_emit_message(true, 'catch up', '')")
    replayed = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
    deadline = time.monotonic() + seconds
    while copy.rows(replayed, [position], user="postgres") != [(True,)]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("news")
def test_a_hot_standby_agrees(news: Database, reachable: Path) -> None:
    """Nothing has to be written for a deadline to pass."""
    with standby_of(news.cluster, reachable) as standby:
        copy = Database(standby, news.name)
        # what other tests left to replay is no part of this one
        catch_up(news, copy, seconds=60)
        here, there = at_work(news), at_work(copy)
        ask(news, subject(news, "crm.customer", 1), channel="paper", within="3 seconds")
        catch_up(news, copy, seconds=2)
        status = "select status from gdpr.consent where purpose = 'marketing' order by subject_id"
        for expected, state in (((1,), "waiting"), ((0,), "not_responded")):
            assert here.execute(ANNA.encode()).fetchone() == expected
            assert there.execute(ANNA.encode()).fetchone() == expected
            for db in (news, copy):
                assert db.rows(status, user="auditor_login")[0] == (state,)
            time.sleep(3.1 if state == "waiting" else 0)
        # nor for the audit to be verified there
        write(news)
        seal(news)
        kept = checkpoint(news)
        write(news, 1)
        catch_up(news, copy, seconds=5)
        assert verified(copy, kept) == []
        tamper(news, "update gdpr_internal.audit_record set actor = 'nobody' where id = 1")
        catch_up(news, copy, seconds=5)
        assert [record for _, record, _ in verified(copy, kept)] == [1]
        a_key_file_of_each_server(news, copy)
        copy.close()


def a_key_file_of_each_server(primary: Database, standby: Database) -> None:
    """A standby reads the key of provider file from its own disk, and is locked without."""
    read = "select count(*) filter (where email like '%@%'), count(*) from gdpr_clear.customer"
    # a path that means another file to each of them: servers run in their data directory
    here, there = (db.cluster.data / "gdprdb.key" for db in (primary, standby))
    here.write_text("ab" * 32)
    here.chmod(0o644)

    def locked() -> str | None:
        with pytest.raises(psycopg.Error) as caught:
            standby.rows(read, user="crm_app")
        return caught.value.sqlstate

    try:
        with psycopg.connect(primary.dsn("postgres"), autocommit=True) as superuser:
            allow_files(superuser)
        before = primary.rows(read, user="crm_app")
        assert before[0][0] == before[0][1] > 1
        primary.rows("select gdpr.rotate_key('file', '/proc/self/cwd/gdprdb.key')")
        while primary.rows("select gdpr.rewrap_keys()") != [(0,)]:
            pass
        # until the end the key before opens the database, there too
        catch_up(primary, standby, seconds=60)
        assert standby.rows(read, user="crm_app") == before
        primary.rows("select gdpr.finish_rotation()")
        catch_up(primary, standby, seconds=60)
        assert primary.rows(read, user="crm_app") == before
        assert locked() == "PR412"
        there.write_text("cd" * 32)
        there.chmod(0o644)
        assert locked() == "PR403"
        there.write_text("ab" * 32)
        assert standby.rows(read, user="crm_app") == before
        there.unlink()
        assert locked() == "PR412"
    finally:
        here.unlink()
        primary.rows("revoke pg_read_server_files from gdpr_keyholder", user="postgres")
        primary.rows("alter role gdpr_keyholder noinherit", user="postgres")


SECONDS = float(os.environ.get("GDPRDB_RACE_SECONDS", "4"))


def test_no_row_after_a_withdrawal(news: Database) -> None:
    """Twenty sessions insert for a person while another withdraws, grants, withdraws ...

    Once a withdrawal has committed not one row more comes to stand, and nobody ends in a
    deadlock. Each round goes on until rows were accepted and, after the withdrawal, refused,
    however slow the machine is. GDPRDB_RACE_SECONDS=60 runs it for longer.
    """
    anna = subject(news, "crm.customer", 1)
    stop = threading.Event()
    outcomes: list[Counter[str]] = [Counter() for _ in range(20)]

    def insert(outcome: Counter[str]) -> None:
        app = at_work(news)
        while not stop.is_set():
            try:
                app.execute("insert into gdpr_clear.lead (email) values ('anna@example.com')")
                outcome["accepted"] += 1
            except psycopg.Error as error:
                outcome[error.sqlstate or "lost"] += 1

    def wait_for_more(what: str) -> None:
        """Until the sessions have met an outcome as often again as there are of them."""
        enough = sum(outcome[what] for outcome in outcomes) + len(outcomes)
        patience = time.monotonic() + 60
        while sum(outcome[what] for outcome in outcomes) < enough:
            assert time.monotonic() < patience, f"nothing {what}: {outcomes}"
            time.sleep(0.01)

    threads = [threading.Thread(target=insert, args=(outcome,)) for outcome in outcomes]
    for thread in threads:
        thread.start()
    officer, watcher = news.connect("dpo_login"), news.connect("postgres")
    rows = "select count(*) from crm.lead"
    counts: list[tuple[Any, Any]] = []
    until = time.monotonic() + SECONDS
    try:
        while len(counts) < 4 or time.monotonic() < until:
            officer.execute("select gdpr.record_consent(%s, 'marketing', true, 'api')", [anna])
            wait_for_more("accepted")
            officer.execute("select gdpr.withdraw_consent(%s, 'marketing')", [anna])
            at_once = watcher.execute(rows).fetchone()
            wait_for_more("PR301")
            counts.append((at_once, watcher.execute(rows).fetchone()))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set().union(*outcomes) == {"accepted", "PR301"}
    assert [pair for pair in counts if pair[0] != pair[1]] == []


def test_a_hundred_past_consents_cost_no_more_to_read(news: Database) -> None:
    """Past its deadline, too: the last answer is found by index, however many came before."""
    anna, bela = subject(news, "crm.customer", 1), subject(news, "crm.customer", 2)
    news.rows(
        "select gdpr.record_consent(%s, 'marketing', n %% 2 = 0, 'api')"
        " from generate_series(1, 200) as n",
        [anna],
        user="dpo_login",
    )
    for person in (anna, bela):
        news.rows(
            "select gdpr.record_consent(%s, 'marketing', true, 'api', null,"
            " statement_timestamp() + interval '1 day')",
            [person],
            user="dpo_login",
        )
    news.rows("analyze", user="postgres")

    def blocks(person: int) -> int:
        ((plan,),) = news.rows(
            "explain (analyze, buffers, format json)"
            f" select holds_until from gdpr_internal.consent_state where subject_id = {person}",
            user="postgres",
        )
        return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])

    assert blocks(anna) <= blocks(bela) + 3


def test_asking_many_is_linear() -> None:
    """Ten times as many persons take about ten times as long, in one statement."""
    with serve() as server, cloning(server) as clone, clone() as db:
        del clone
        times = _ask_many(db, (1_000, 10_000))
    assert times[1] < times[0] * 25


def test_many_calls_in_one_transaction_read_no_table_whole(news: Database) -> None:
    """Plans are made while the tables are as good as empty, and have to fit to the end.

    A session keeps its plans, and in one transaction no statistics are renewed: a table that
    was read whole when it had a page would be read whole for each of 100,000 persons.
    """
    news.rows("vacuum analyze", user="postgres")
    anna, bela = subject(news, "crm.customer", 1), subject(news, "crm.customer", 2)
    calls = (
        "gdpr.request_consent(p, '{marketing}', 'email', 'news')",
        "gdpr.request_consent(p, '{profiling}', 'portal', 'news')",
        "gdpr.record_consent(p, 'marketing', true, 'api')",
        "gdpr.withdraw_consent(p, 'marketing')",
    )
    officer = news.connect("dpo_login")
    for _ in range(40):
        for call in calls:
            for person in (anna, bela):
                officer.execute(f"select {call} from (values (%s::bigint)) as v (p)", [person])
    officer.execute("select pg_stat_force_next_flush()")
    officer.close()
    read = news.rows(
        "select relname from pg_stat_user_tables where relname = any (%s) and seq_tup_read > 2000",
        [["consent_request", "consent_record", "consent_mail", "token", "outbox", "basis_record"]],
        user="postgres",
    )
    assert read == []


def _ask_many(db: Database, counts: tuple[int, ...]) -> list[float]:
    from gdprdb import migrate
    from tests.capabilities.crm import apply
    from tests.support import INSTALLER, OWNER

    migrate.init(db.dsn(INSTALLER))
    db.rows("grant gdpr_dpo to dpo_login", user="postgres")
    db.rows(f"grant gdpr_admin, gdpr_dpo to {OWNER} with admin option", user="postgres")
    db.rows("select gdpr.create_key('table')", user="postgres")
    db.rows("create table public.person (id int primary key, email text)")
    db.rows(
        "insert into public.person select n, 'p' || n || '@example.org'"
        " from generate_series(1, %s) as n",
        [sum(counts)],
    )
    apply(
        db,
        {
            "purposes": {"news": {"basis": "consent", "respond_within": "14 days", "grace": False}},
            "tables": {
                "public.person": {
                    "subject": "self",
                    "match_on": ["email"],
                    "purposes": ["news"],
                    "columns": {
                        "email": {"category": "contact", "identifier": "email", "encrypt": True}
                    },
                }
            },
        },
    )
    db.rows("vacuum analyze", user="postgres")
    times = []
    officer = db.connect("dpo_login")
    for count in counts:
        started = time.perf_counter()
        row = officer.execute(
            "select count(*) from gdpr.request_consents(array(select subject_id from gdpr.consent"
            " where status = 'pending' limit %s), '{news}', 'email')",
            [count],
        ).fetchone()
        times.append(time.perf_counter() - started)
        assert row == (count,)
    return times
