"""The power goes: the server is killed at any point of an erasure, of a batch, of a renewal of
keys, of an import; the importer itself is killed, too."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gdprdb import migrate, records
from gdprdb.server import Cluster
from tests.capabilities.crm import apply, one_table
from tests.support import OWNER, Database

#: Kills of each kind; GDPRDB_TEST_KILLS=20 is the long run.
KILLS = int(os.environ.get("GDPRDB_TEST_KILLS", "2"))

#: Persons for each kill.
PERSONS = 80

TABLES = """
create table public.person (id integer primary key, email text, name text);
create table public.sale (
  id integer primary key, person_id integer references public.person, remark text
);
create table public.guest (email text, name text);
grant select, insert on public.person, public.sale, public.guest to crm_app;
"""

POLICY: dict[str, Any] = one_table(
    "public.person",
    match_on=["email"],
    columns={
        "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
        "name": {"category": "identity", "encrypt": True},
    },
)
POLICY["roles"].pop("metabase")
POLICY["tables"]["public.sale"] = {
    "subject": {"via": "person_id"},
    "purposes": ["orders"],
    "columns": {"remark": {"category": "other", "encrypt": True}},
}
POLICY["tables"]["public.guest"] = {
    "purposes": ["orders"],
    "columns": {"email": {"encrypt": True}, "name": {"encrypt": True}},
}

#: Everything that an erasure takes or leaves of each person.
STATE = """
select s.id, s.erased_at is not null, e.receipt is not null, k.subject_id is not null,
  (select count(*) from gdpr_internal.identifier as i where i.subject_id = s.id),
  (select count(*) from public.person as p where p.gdpr_subject_id = s.id),
  (select count(*) from public.sale as p where p.gdpr_subject_id = s.id)
from gdpr_internal.subject as s
left join gdpr_internal.erasure_record as e on e.subject_id = s.id
left join gdpr_internal.subject_key as k on k.subject_id = s.id
order by 1
"""

NOT_BEGUN = (False, False, True, 1, 1, 2)
FINISHED = (True, True, False, 0, 0, 0)


@pytest.fixture(scope="module")
def house() -> Iterator[Database]:
    """A server of its own; what it has written survives it, as the machine does."""
    # not pytest's: another run on the machine would close that again
    directory = Path(tempfile.mkdtemp(prefix="gdprdb-crash-"))
    directory.chmod(0o711)
    settings = {"restart_after_crash": "off", "fsync": "off", "max_prepared_transactions": "4"}
    server = Cluster(directory / "server", settings=settings)
    try:
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for login in (f"{OWNER} createrole", "crm_app", "dpo_login", "auditor_login"):
                connection.execute(f"create role {login} login".encode())
            connection.execute(f"create database house owner {OWNER}".encode())
        database = Database(server, "house")
        migrate.init(database.dsn())
        database.rows("select gdpr.create_key('table')")
        database.rows("grant gdpr_dpo to dpo_login")
        database.rows("grant gdpr_auditor to auditor_login", user="postgres")
        database.rows(TABLES)
        apply(database, POLICY)
        yield database
        database.close()
    finally:
        server.remove()
        directory.rmdir()


def move_in(db: Database) -> list[int]:
    """So many persons more, with two sales each; their numbers."""
    ((first,),) = db.rows(
        "select coalesce(max(id), 0) + 1 from gdpr_internal.subject", user="postgres"
    )
    db.rows(
        "insert into public.person select n, 'p' || n || '@example.com', 'name'"
        " from generate_series(%s::integer, %s::integer) as n",
        [first, first + PERSONS - 1],
        user="crm_app",
    )
    db.rows(
        "insert into public.sale select 2 * n + x, n, 'remark'"
        " from generate_series(%s::integer, %s::integer) as n, generate_series(0, 1) as x",
        [first, first + PERSONS - 1],
        user="crm_app",
    )
    keys = [str(first + n) for n in range(PERSONS)]
    ((found,),) = db.rows("select gdpr.subjects_of('person', %s)", [keys], user="dpo_login")
    return sorted(found)


def kill(server: Cluster) -> None:
    """kill -9 of the server and all its processes, at once; then start it again."""
    postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    everybody = [postmaster, *map(int, children)]
    for process in everybody:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + 10
    while any(_runs(process) for process in everybody):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # where nobody collects the dead their numbers are still taken, and the server would not start
    (server.data / "postmaster.pid").unlink()
    for lock in server.socket_dir.glob(".s.PGSQL.*.lock"):
        lock.unlink()
    server.start()


def _runs(process: int) -> bool:
    """Whether a process is there, and not only waiting to be collected."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def interrupted(
    db: Database,
    work: Callable[[psycopg.Connection], None],
    delay: float,
    user: str = "dpo_login",
) -> None:
    """Let an officer, or somebody else, work, kill the server after a while, and start it again."""
    began = threading.Event()

    def body() -> None:
        with psycopg.connect(db.dsn(user), autocommit=True) as connection:
            began.set()
            try:
                work(connection)
            except psycopg.OperationalError:
                return

    thread = threading.Thread(target=body)
    thread.start()
    began.wait(10)
    time.sleep(delay)
    kill(db.cluster)
    thread.join(10)
    assert not thread.is_alive()


def standing(db: Database, persons: list[int]) -> dict[int, tuple[object, ...]]:
    """What there is of each of these persons."""
    return {
        number: tuple(facts)
        for number, *facts in db.rows(STATE, user="postgres")
        if number in set(persons)
    }


@pytest.mark.parametrize("n", range(KILLS))
def test_an_erasure_is_done_or_not_begun(house: Database, n: int) -> None:
    """And a receipt in somebody's hands is a receipt of what happened."""
    persons = move_in(house)
    receipts: dict[int, Any] = {}

    def work(officer: psycopg.Connection) -> None:
        for person in persons:
            row = officer.execute("select gdpr.erase(%s, 'asked')", [person]).fetchone()
            receipts[person] = row and row[0]

    interrupted(house, work, random.Random(n).uniform(0.02, 0.4))
    found = standing(house, persons)
    assert set(found.values()) <= {NOT_BEGUN, FINISHED}
    assert {person for person in receipts if found[person] != FINISHED} == set()
    ledger = dict(house.rows("select subject_id, receipt from gdpr.erasure_ledger"))
    assert all(ledger[person] == receipt for person, receipt in receipts.items())
    # asked again, it is finished: with the receipt of then, or a new one
    again = "select gdpr.erase(%s, 'asked')"
    now = dict(zip(persons, house.rows(again, [persons], user="dpo_login"), strict=True))
    assert all(now[person] == (receipt,) for person, receipt in receipts.items())
    assert set(standing(house, persons).values()) == {FINISHED}


@pytest.mark.parametrize("n", range(KILLS))
def test_a_batch_goes_on_after_a_crash(house: Database, n: int) -> None:
    persons = move_in(house)
    ((batch,),) = house.rows(
        "select gdpr.open_erasure_batch(%s, 'inactive')", [persons], user="dpo_login"
    )
    told = []

    def work(officer: psycopg.Connection) -> None:
        remaining = 1
        while remaining:
            row = officer.execute(
                "select erased, remaining from gdpr.run_erasure_batch(%s, 7)", [batch]
            ).fetchone()
            assert row is not None
            remaining = row[1]
            told.append(row[0])

    interrupted(house, work, random.Random(1000 + n).uniform(0.02, 0.3))
    found = standing(house, persons)
    assert set(found.values()) <= {NOT_BEGUN, FINISHED}
    erased = list(found.values()).count(FINISHED)
    assert sum(told) <= erased <= sum(told) + 7
    progress = "select erased, remaining from gdpr.erasure_batch where batch_id = %s"
    assert house.rows(progress, [batch]) == [(erased, PERSONS - erased)]
    with psycopg.connect(house.dsn("dpo_login"), autocommit=True) as officer:
        work(officer)
    assert set(standing(house, persons).values()) == {FINISHED}


#: Of each person: the version of the key in force, and those that made what is stored.
KEYS = """
select k.subject_id, (length(k.wrapped) - 48 + 16) / 80,
  array(
    select distinct get_byte(decode(substr(v.value, 7), 'base64'), 4)
    from (
      select p.email from public.person as p where p.gdpr_subject_id = k.subject_id
      union all
      select p.name from public.person as p where p.gdpr_subject_id = k.subject_id
      union all
      select s.remark from public.sale as s where s.gdpr_subject_id = k.subject_id
    ) as v (value)
  )
from gdpr_internal.subject_key as k
"""


@pytest.mark.parametrize("n", range(KILLS))
def test_a_renewal_of_keys_goes_on_after_a_crash(house: Database, n: int) -> None:
    """Each person has one key and values under that, before and after the crash."""
    persons = move_in(house)
    done = []

    def work(admin: psycopg.Connection) -> None:
        while True:
            (renewed,) = admin.execute("select gdpr.renew_keys(7)").fetchone() or (0,)
            if not renewed:
                return
            done.append(renewed)

    interrupted(house, work, random.Random(2000 + n).uniform(0.05, 0.6), user=OWNER)
    for _ in range(2):
        mine = [row for row in house.rows(KEYS, user="postgres") if row[0] in set(persons)]
        assert len(mine) == PERSONS
        assert all(made == [max(version, 1)] for _, version, made in mine)
        assert house.rows(
            "select count(*) from gdpr_clear.person"
            " where name = 'name' and email = 'p' || id || '@example.com'",
            user="crm_app",
        ) == house.rows("select count(*) from public.person", user="postgres")
        while house.rows("select gdpr.renew_keys(50)") != [(0,)]:
            pass
    assert {version for _, version, _ in mine} <= {2, 3}
    assert house.rows("select count(*) from gdpr.key_renewal where finished_at is null") == [(0,)]


#: Records of a file that is imported.
RECORDS = 600


def file_of(directory: Path, n: int, part: str) -> Path:
    """A file of so many guests, each known by the number of the test and its own."""
    file = directory / f"guests-{part}-{n}.csv"
    file.write_text(
        "email,name\n"
        + "".join(f'{part}{n}-{i}@example.com,"Guest\n{i}"\n' for i in range(RECORDS))
    )
    return file


def importer(house: Database, file: Path, *how: str) -> subprocess.Popen[str]:
    """The command line, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gdprdb", "import", str(file), "--table", "public.guest", *how],
        env={**os.environ, "GDPRDB_DSN": house.dsn("crm_app")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def came(house: Database, part: str, n: int) -> list[tuple[Any, ...]]:
    """How many guests of a file are there, and how many different ones."""
    return house.rows(
        "select count(*), count(distinct email) from gdpr_clear.guest where starts_with(email, %s)",
        [f"{part}{n}-"],
        user="crm_app",
    )


def in_the_middle(
    house: Database,
    process: subprocess.Popen[str],
    before: int,
    query: str = "select coalesce(sum(last_row), 0)::integer from gdpr.import",
) -> None:
    """Wait until some of a file is imported and not all."""
    deadline = time.monotonic() + 60
    while True:
        ((rows,),) = house.rows(query)
        if rows > before:
            return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("victim", ["server", "client"])
@pytest.mark.parametrize("n", range(max(1, KILLS // 2)))
def test_an_import_goes_on_after_a_crash(
    house: Database, tmp_path: Path, victim: str, n: int
) -> None:
    """Nothing is doubled, nothing lost, whoever dies half way."""
    file = file_of(tmp_path, n, victim)
    ((before,),) = house.rows("select coalesce(sum(last_row), 0)::integer from gdpr.import")
    process = importer(house, file, "--skip", "--batch", "20")
    in_the_middle(house, process, before)
    time.sleep(random.Random(3000 + n).uniform(0, 0.02))
    if victim == "server":
        kill(house.cluster)
    else:
        process.kill()
    process.communicate(timeout=60)
    # a server whose client died notices with its next word; until then the file is locked to others
    ((half, _),) = came(house, victim, n)
    assert half % 20 == 0
    again = importer(house, file, "--skip", "--batch", "20")
    (_, said) = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert came(house, victim, n) == [(RECORDS, RECORDS)]
    taken = house.rows(
        "select taken, refused, last_row from gdpr.import where file = %s",
        [records.fingerprint(file)[0]],
    )
    assert set(taken) == {(RECORDS, 0, RECORDS)}
    assert half < RECORDS
    assert "had been done before" in said


@pytest.mark.parametrize("n", range(max(1, KILLS // 2)))
def test_refused_lines_survive_a_crash(house: Database, tmp_path: Path, n: int) -> None:
    """Of an import, and of the second try of what it refused: none forgotten, none doubled."""
    victim = ("server", "client")[n % 2]
    file = file_of(tmp_path, n, "retry")
    digest, _ = records.fingerprint(file)
    progress = {
        (): "select coalesce(sum(last_row), 0)::integer from gdpr.import",
        ("--retry-refused",): "select coalesce(sum(taken), 0)::integer from gdpr.import",
    }
    house.rows("alter table public.guest add constraint full_house check (false) not valid")
    try:
        for extra, query in progress.items():
            ((before,),) = house.rows(query)
            process = importer(house, file, "--batch", "20", "--skip", *extra)
            in_the_middle(house, process, before, query)
            kill(house.cluster) if victim == "server" else process.kill()
            process.communicate(timeout=60)
            if not extra:
                house.rows("alter table public.guest drop constraint full_house")
            ((noted, lines, refused, last),) = house.rows(
                "select count(r), count(distinct r.line), max(i.refused), max(i.last_row)"
                " from gdpr.import as i"
                " left join gdpr.import_refusal as r using (file, table_name, run)"
                " where i.file = %s",
                [digest],
            )
            ((half, different),) = came(house, "retry", n)
            assert half == different
            assert noted == lines == refused == last - half
            assert (half > 0) == bool(extra)
    finally:
        house.rows("alter table public.guest drop constraint if exists full_house")
    last_try = importer(house, file, "--batch", "20", "--skip", "--retry-refused")
    _, said = last_try.communicate(timeout=120)
    assert last_try.returncode == 0, said
    assert came(house, "retry", n) == [(RECORDS, RECORDS)]


def test_an_import_as_a_whole_is_whole_or_nothing(house: Database, tmp_path: Path) -> None:
    file = file_of(tmp_path, 0, "whole")
    process = importer(house, file, "--batch", "20")
    deadline = time.monotonic() + 60
    busy = (
        "select count(*) from pg_stat_activity"
        " where usename = 'crm_app' and backend_xid is not null"
    )
    while house.rows(busy, user="postgres") == [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill(house.cluster)
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert came(house, "whole", 0) == [(0, 0)]
    again = importer(house, file, "--batch", "20")
    again.communicate(timeout=120)
    assert again.returncode == 0
    assert came(house, "whole", 0) == [(RECORDS, RECORDS)]
