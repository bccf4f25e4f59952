"""Sealing while others write: no record is lost, sealed twice, or left outside the next seal."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

from gdprdb.audit import checkpoints, verifier
from tests.capabilities.crm import refused
from tests.capabilities.sealing import INSERT, checkpoint, seal, settled, verified, write
from tests.support import Database

#: Verifications beside eight writers that must find nothing; 500 shows more than a suite has
#: time for.
UNTOUCHED = int(os.environ.get("GDPRDB_TEST_UNTOUCHED", "20"))

#: Verifications in one database: they read all that was recorded.
_EACH = 50

LEVELS = ("read committed", "repeatable read", "serializable")
INSERTED = (
    "select count(*) from gdpr_internal.audit_record as a"
    " join gdpr_internal.protected_table as t on t.id = a.table_id"
    " where t.relation = 'crm.customer'::regclass and a.operation = 'INSERT' and a.id > %s"
)


def last_record(db: Database) -> int:
    """The highest number that a record has."""
    return int(db.rows("select max(id) from gdpr_internal.audit_record", user="postgres")[0][0])


@pytest.mark.parametrize("level", LEVELS)
def test_a_slow_transaction_keeps_its_records_for_the_next_seal(crm: Database, level: str) -> None:
    slow, fast = crm.connect("crm_app", autocommit=False), crm.connect("crm_app")
    slow.execute(INSERT)
    fast.execute(INSERT)
    sealer = crm.connect()
    sealer.execute(f"set default_transaction_isolation = '{level}'".encode())
    sealer.execute("select gdpr.seal_audit()")
    assert crm.rows("select unsealed > 0, waiting > 0 from gdpr.audit_lag()") == [(True, True)]
    slow.execute(INSERT)
    slow.commit()
    assert sealer.execute("select gdpr.seal_audit()").fetchall()[0][0] > 0
    settled(crm)


def test_a_transaction_that_wrote_before_it_seals(crm: Database) -> None:
    """Its own records come with the next seal, and so do those with numbers before them."""
    session = crm.connect("db_owner", autocommit=False)
    session.execute("select gdpr.block('email', 'a@example.com', 'asked')")
    session.execute("select gdpr.seal_audit()")
    write(crm)
    session.commit()
    settled(crm)


def test_savepoints_and_many_subtransactions(crm: Database) -> None:
    """More than a snapshot keeps by name (64), some undone, with seals in between."""
    before = last_record(crm)
    slow, other = crm.connect("crm_app", autocommit=False), crm.connect("crm_app")
    kept = 0
    for number in range(100):
        slow.execute("savepoint s")
        slow.execute(INSERT)
        if number % 3:
            slow.execute("release savepoint s")
            kept += 1
        else:
            slow.execute("rollback to savepoint s")
        if number % 25 == 0:
            other.execute(INSERT)
            kept += 1
            seal(crm)
            assert verified(crm, checkpoint(crm)) == []
    # of these the inner block is undone by its error, the outer stays
    slow.execute(
        "do $$ begin"
        f"  {INSERT};"
        f"  begin {INSERT}; perform 1 / 0; exception when division_by_zero then null; end;"
        " end $$"
    )
    seal(crm)
    slow.commit()
    settled(crm)
    assert crm.rows(INSERTED, [before], user="postgres") == [(kept + 1,)]


def test_prepared_transactions_are_sealed_when_they_are_committed(crm: Database) -> None:
    before = last_record(crm)
    session = crm.connect("crm_app", autocommit=False)
    for name in ("kept", "undone"):
        session.execute(INSERT)
        session.execute(INSERT)
        session.execute(f"prepare transaction '{crm.name}_{name}'".encode())
        session.commit()
    session.close()
    write(crm, 2)
    seal(crm)
    assert crm.rows("select unsealed > 0, waiting > 0 from gdpr.audit_lag()") == [(True, True)]
    assert verified(crm, checkpoint(crm)) == []
    crm.rows(f"commit prepared '{crm.name}_kept'", user="crm_app")
    seal(crm)
    write(crm, 1)
    crm.rows(f"rollback prepared '{crm.name}_undone'", user="crm_app")
    settled(crm)
    assert crm.rows(INSERTED, [before], user="postgres") == [(2 + 3,)]


def test_gaps_in_the_numbers(crm: Database) -> None:
    """Rolled-back records leave gaps, a server that was killed leaves some, an owner makes one."""
    before = last_record(crm)
    app = crm.connect("crm_app", autocommit=False)
    for number in range(12):
        app.execute(INSERT)
        app.rollback() if number % 2 else app.commit()
        if number == 6:
            crm.rows(
                "select setval('gdpr_internal.audit_record_id_seq', last_value + 5000000000)"
                " from gdpr_internal.audit_record_id_seq",
                user="postgres",
            )
            seal(crm)
    settled(crm)
    assert crm.rows(INSERTED, [before], user="postgres") == [(6,)]


def test_a_slow_transaction_with_lower_numbers_than_what_is_sealed(crm: Database) -> None:
    """The order of numbers is not that of transactions: it slips in behind no seal."""
    slow = crm.connect("crm_app", autocommit=False)
    slow.execute(INSERT)
    early = crm.connect("crm_app", autocommit=False)
    early.execute("select pg_current_xact_id()")
    write(crm, 2)
    slow.commit()
    seal(crm)
    early.execute(INSERT)
    seal(crm)
    write(crm, 1)
    early.commit()
    settled(crm)


def test_two_who_seal_at_once(crm: Database) -> None:
    write(crm)
    first, late = crm.connect(autocommit=False), crm.connect(autocommit=False)
    late.execute("set transaction isolation level repeatable read")
    late.execute("select count(*) from gdpr.audit_seal")
    first.execute("select gdpr.seal_audit()")
    first.commit()
    write(crm, 2)
    with refused("40001"):
        late.execute("select gdpr.seal_audit()")
        late.commit()
    settled(crm)


def test_writers_do_not_wait_for_who_seals(crm: Database) -> None:
    sealer = crm.connect(autocommit=False)
    write(crm, 1)
    sealer.execute("select gdpr.seal_audit()")
    app = crm.connect("crm_app", options="-c lock_timeout=1s")
    app.execute(INSERT)
    assert verified(crm) == []
    sealer.commit()
    settled(crm)


class Writers:
    """Eight applications that write until they are told to stop.

    Attributes:
        committed: rows of customers that were inserted, and committed.
    """

    def __init__(self, db: Database) -> None:
        self.committed = 0
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._write, args=(db, n)) for n in range(8)]

    def _write(self, db: Database, number: int) -> None:
        dice = random.Random(number)
        try:
            with psycopg.connect(db.dsn("crm_app")) as connection:
                while not self._stop.is_set():
                    self._transaction(connection, dice)
        except BaseException as error:
            self._errors.append(error)

    def _transaction(self, connection: psycopg.Connection, dice: random.Random) -> None:
        connection.execute(f"set transaction isolation level {dice.choice(LEVELS)}".encode())
        inserted = 0
        for _ in range(dice.randint(1, 3)):
            with suppress(psycopg.Rollback), connection.transaction() as inner:
                connection.execute(INSERT.encode())
                if dice.random() < 0.3:
                    raise psycopg.Rollback(inner)
                inserted += 1
            self._stop.wait(dice.uniform(0, 0.04))
        if dice.random() < 0.2:
            connection.rollback()
            return
        try:
            connection.commit()
        except psycopg.errors.SerializationFailure:
            connection.rollback()
            return
        with self._lock:
            self.committed += inserted

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """They write during the block; what befell one of them is raised after it."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(30)
        if self._errors:
            raise self._errors[0]


@pytest.mark.parametrize("part", range(-(-UNTOUCHED // _EACH)))
def test_eight_writers_and_no_false_alarm(crm: Database, part: int) -> None:
    """Sealing and verification beside them, against every checkpoint so far."""
    before = last_record(crm)
    dice = random.Random(part)
    writers = Writers(crm)
    sealer = crm.connect()
    kept: list[dict[str, Any]] = []
    with writers.at_work(), psycopg.connect(crm.dsn("auditor_login")) as auditor:
        for _ in range(min(_EACH, UNTOUCHED - part * _EACH)):
            level = dice.choice(LEVELS)
            sealer.execute(f"set default_transaction_isolation = '{level}'".encode())
            sealer.execute("select gdpr.seal_audit()")
            kept.append(checkpoint(crm))
            time.sleep(dice.uniform(0, 0.05))
            assert verified_inside(crm, dice.choice(kept)) == []
            points = [checkpoints.Checkpoint(c["seal"], c["hash"], c) for c in kept]
            assert list(verifier.verify(auditor, points)) == []
            auditor.rollback()
    settled(crm)
    assert crm.rows(INSERTED, [before], user="postgres") == [(writers.committed,)]
    assert writers.committed > len(kept)


def verified_inside(db: Database, kept: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What the database finds."""
    return db.rows(
        "select * from gdpr.verify_audit(%s)",
        [json.dumps(kept)],
        user="auditor_login",
    )
