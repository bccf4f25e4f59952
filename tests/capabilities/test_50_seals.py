"""Sealing and verification: what was recorded can no longer be changed unseen."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as some

from gdprdb.audit import checkpoints, proofs, verifier
from gdprdb.audit.tree import EMPTY, Tree, audit_path, follow, leaf_hash, node_hash
from gdprdb.errors import GdprdbError, RefusedError
from gdprdb.signing import new_keys, signer
from tests.capabilities.crm import refused
from tests.support import Clone, Database

#: How often the record is tampered with; 500 shows more than a suite has time for.
TAMPERINGS = int(os.environ.get("GDPRDB_TEST_TAMPERINGS", "20"))

INSERT = (
    "insert into crm.customer (email, last_name)"
    " values ('p' || gen_random_uuid() || '@example.com', 'P')"
)
UPDATE = "update gdpr_clear.customer set city = 'Q' || id where id % 2 = 0"


@pytest.fixture
def crm(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The protected customer database, sealed once."""
    with clone(crm_template) as database:
        seal(database)
        yield database


def seal(db: Database) -> int:
    """Seal as an administrator."""
    return int(db.rows("select gdpr.seal_audit()")[0][0])


def checkpoint(db: Database) -> dict[str, Any]:
    """The last seal, as an auditor takes it away."""
    document: dict[str, Any] = db.rows("select gdpr.audit_checkpoint()", user="auditor_login")[0][0]
    return document


def verified(db: Database, kept: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """What the database finds, which has to be what is found outside of it."""
    inside = db.rows(
        "select * from gdpr.verify_audit(%s)",
        [json.dumps(kept) if kept else None],
        user="auditor_login",
    )
    points = [checkpoints.Checkpoint(kept["seal"], kept["hash"], kept)] if kept else []
    with psycopg.connect(db.dsn("auditor_login")) as connection:
        outside = list(verifier.verify(connection, points))
    known = {(f[0], f[1]) for f in inside if f[0] is not None}
    assert {(f.seal, f.record) for f in outside if f.seal is not None} >= known
    assert bool(inside) == bool(outside) or all(f[0] is None for f in inside)
    return inside


def write(db: Database, rows: int = 4) -> None:
    """What an application does."""
    app = db.connect("crm_app")
    for _ in range(rows):
        app.execute(INSERT)
    app.execute(UPDATE)


def tamper(db: Database, statement: str, *parameters: Any) -> None:
    """What a superuser does with all triggers off."""
    session = db.connect("postgres")
    session.execute("set session_replication_role = replica")
    for table in ("audit_record", "audit_seal", "audit_block"):
        session.execute(f"alter table gdpr_internal.{table} disable trigger all".encode())
    assert session.execute(statement.encode(), parameters).rowcount != 0
    for table in ("audit_record", "audit_seal", "audit_block"):
        session.execute(
            f"alter table gdpr_internal.{table} enable always trigger gdpr_50_append_only".encode()
        )
    session.close()


def test_what_was_recorded_is_sealed_and_found_unchanged(crm: Database) -> None:
    write(crm)
    recorded = crm.rows("select count(*) from gdpr_internal.audit_record", user="postgres")[0][0]
    seal(crm)
    seals = crm.rows(
        "select id, records, previous = lag(hash, 1, '') over (order by id) from gdpr.audit_seal",
        user="auditor_login",
    )
    assert [number for number, _, _ in seals] == list(range(1, len(seals) + 1))
    assert sum(records for _, records, _ in seals) == recorded
    assert all(chained for _, _, chained in seals)
    assert verified(crm, checkpoint(crm)) == []
    assert checkpoint(crm)["records"] == recorded
    assert crm.rows("select unsealed, waiting from gdpr.audit_lag()") == [(0, 0)]


def test_sealing_again_seals_nothing(crm: Database) -> None:
    before = checkpoint(crm)
    assert seal(crm) == 0
    assert checkpoint(crm) == before


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
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
    assert crm.rows("select unsealed from gdpr.audit_lag()") == [(0,)]
    assert verified(crm, checkpoint(crm)) == []


def test_a_transaction_that_wrote_before_it_seals(crm: Database) -> None:
    """Its own records come with the next seal, and so do those with numbers before them."""
    session = crm.connect("db_owner", autocommit=False)
    session.execute("select gdpr.block('email', 'a@example.com', 'asked')")
    session.execute("select gdpr.seal_audit()")
    write(crm)
    session.commit()
    seal(crm)
    assert crm.rows("select unsealed from gdpr.audit_lag()") == [(0,)]
    assert verified(crm, checkpoint(crm)) == []


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
    seal(crm)
    assert verified(crm, checkpoint(crm)) == []


def test_the_seal_of_a_month_that_nothing_was_written_in(crm: Database) -> None:
    """Records of two months in one seal's time are sealed apart, so that a month can go."""
    tamper(
        crm,
        "insert into gdpr_internal.audit_record (at, operation, role)"
        " select now() - n * interval '40 days', 'TEST', 'x' from generate_series(0, 2) as n",
    )
    before = checkpoint(crm)["seal"]
    seal(crm)
    assert checkpoint(crm)["seal"] == before + 3
    assert verified(crm, checkpoint(crm)) == []


EDITS: dict[str, str] = {
    "edit": "update gdpr_internal.audit_record set actor = 'nobody' where id = %s",
    "purpose": (
        "update gdpr_internal.audit_record set purpose_id = coalesce(purpose_id, 0) + 1"
        " where id = %s"
    ),
    "payload": "update gdpr_internal.audit_record set payload = 'gdpr1:' where id = %s",
    "delete": "delete from gdpr_internal.audit_record where id = %s",
    "re-time": "update gdpr_internal.audit_record set at = at - interval '1 second' where id = %s",
    "another month": (
        "update gdpr_internal.audit_record set at = at - interval '40 days' where id = %s"
    ),
    "another transaction": (
        "update gdpr_internal.audit_record set xid = (xid::text::bigint - 1)::text::xid8"
        " where id = %s"
    ),
    "another place": "update gdpr_internal.audit_record set place = 1 where id = %s",
    "swap": (
        "update gdpr_internal.audit_record as a set at = b.at, operation = b.operation,"
        " subject_id = b.subject_id from gdpr_internal.audit_record as b"
        " where a.id = %s and b.id = a.id - 1"
    ),
    "insert": (
        "insert into gdpr_internal.audit_record (operation, role, xid, at)"
        " select 'FORGED', role, xid, at from gdpr_internal.audit_record where id = %s"
    ),
    "insert with a number": (
        "insert into gdpr_internal.audit_record (id, operation, role, xid, at)"
        " overriding system value select -id, 'FORGED', role, xid, at"
        " from gdpr_internal.audit_record where id = %s"
    ),
    "future": (
        "insert into gdpr_internal.audit_record (operation, role, xid)"
        " select 'FORGED', role, '9000000000000' from gdpr_internal.audit_record where id = %s"
    ),
    "cut the records": "delete from gdpr_internal.audit_record where id >= %s",
    "cut the seals": "delete from gdpr_internal.audit_seal where last_id >= %s",
    "replace a seal": "update gdpr_internal.audit_seal set root = sha256(root) where last_id >= %s",
}


@pytest.mark.parametrize("how", EDITS)
def test_each_way_of_tampering_is_found(crm: Database, how: str) -> None:
    write(crm)
    seal(crm)
    write(crm, 2)
    seal(crm)
    kept = checkpoint(crm)
    ((record,),) = crm.rows("select max(id) - 3 from gdpr_internal.audit_record", user="postgres")
    tamper(crm, EDITS[how], record)
    assert verified(crm, kept)


def test_the_record_that_was_changed_is_named(crm: Database) -> None:
    write(crm, 10)
    seal(crm)
    ((record,),) = crm.rows("select max(id) - 7 from gdpr_internal.audit_record", user="postgres")
    tamper(crm, EDITS["edit"], record)
    ((_, found, words),) = verified(crm)
    assert found == record
    assert words == "records were changed, first at this record"


def test_seals_made_anew_after_the_edit_are_not_those_of_the_checkpoint(crm: Database) -> None:
    write(crm)
    seal(crm)
    kept = checkpoint(crm)
    tamper(crm, EDITS["edit"], 3)
    tamper(crm, "delete from gdpr_internal.audit_seal")
    tamper(crm, "delete from gdpr_internal.audit_block")
    seal(crm)
    assert verified(crm) == []
    assert [number for number, _, _ in verified(crm, kept)] == [kept["seal"]]


def test_an_older_copy_is_told_by_the_checkpoint(clone: Clone, crm_template: str) -> None:
    with clone(crm_template) as original:
        seal(original)
        with clone(original.name) as copy:
            write(original)
            seal(original)
            kept = checkpoint(original)
            assert verified(copy) == []
            assert len(verified(copy, kept)) == 1


def test_random_tamperings_are_found_and_nothing_else(crm: Database) -> None:
    """Each against the last checkpoint; what was put back is found unchanged again."""
    dice = random.Random(50)
    for _ in range(3):
        write(crm, 3)
        seal(crm)
    kept = checkpoint(crm)
    ids = [
        number
        for (number,) in crm.rows(
            "select id from gdpr_internal.audit_record order by id", user="postgres"
        )
    ]
    session = crm.connect("postgres", autocommit=False)
    session.execute("set session_replication_role = replica")
    for table in ("audit_record", "audit_seal", "audit_block"):
        session.execute(f"alter table gdpr_internal.{table} disable trigger all".encode())
    session.commit()
    verify = "select * from gdpr.verify_audit(%s)"
    for number in range(TAMPERINGS):
        how = dice.choice(list(EDITS))
        # the first record has none before it to be swapped with
        changed = session.execute(EDITS[how].encode(), [dice.choice(ids[1:])]).rowcount
        found = session.execute(verify, [json.dumps(kept)]).fetchall()
        session.rollback()
        assert found or not changed, (number, how)
        assert session.execute(verify, [json.dumps(kept)]).fetchall() == [], number
        session.rollback()


def test_a_change_of_what_protects_is_in_the_next_seal(crm: Database) -> None:
    crm.rows("alter table crm.customer disable trigger zzz_gdpr_40_protect", user="postgres")
    assert crm.rows("select gdpr.seal_audit()") == [(0,)]
    ((number, changed),) = crm.rows(
        "select id, catalog_changed from gdpr.audit_seal order by id desc limit 1"
    )
    assert changed
    assert crm.rows(
        "select * from gdpr.audit_catalog_changes(%s)", [number], user="auditor_login"
    ) == [("protected table crm.customer", "changed")]


def test_erasure_breaks_no_seal(crm: Database) -> None:
    write(crm)
    seal(crm)
    crm.rows("select gdpr.erase(gdpr.subject_of('crm.customer', '1'), 'asked')", user="dpo_login")
    seal(crm)
    assert verified(crm, checkpoint(crm)) == []


@pytest.mark.parametrize(
    "user", ["crm_app", "metabase", "portal_app", "auditor_login", "dpo_login"]
)
def test_who_may_seal(crm: Database, user: str) -> None:
    """Auditors write nothing; an officer may seal."""
    if user == "dpo_login":
        crm.rows("select gdpr.seal_audit()", user=user)
    else:
        with refused("42501"):
            crm.rows("select gdpr.seal_audit()", user=user)


def test_what_is_no_checkpoint(crm: Database) -> None:
    for wrong in ("[]", "{}", '"x"', '{"gdprdb_checkpoint": 2}'):
        with refused("PR501", "checkpoint_invalid"):
            crm.rows("select * from gdpr.verify_audit(%s)", [wrong], user="auditor_login")


def test_a_proof_holds_without_the_database(crm: Database) -> None:
    write(crm, 5)
    seal(crm)
    ((record,),) = crm.rows("select max(id) - 4 from gdpr_internal.audit_record", user="postgres")
    write(crm, 2)
    seal(crm)
    kept = checkpoint(crm)
    point = checkpoints.Checkpoint(kept["seal"], kept["hash"], kept)
    with psycopg.connect(crm.dsn("auditor_login")) as connection:
        proof = proofs.prove(connection, record)
    assert proofs.check(json.dumps(proof), point).startswith(f"({record},")
    for changes in (
        {"record": proof["record"].replace("crm_app", "mallory")},
        {"seals": proof["seals"][:-1]},
        {"seals": [proof["seals"][0], proof["seals"][1].replace("/1/", "/2/", 1)]},
        {"path": proof["path"][1:]},
        {"path": "x"},
    ):
        with pytest.raises(RefusedError):
            proofs.check(json.dumps(proof | changes), point)


def test_what_is_not_sealed_has_no_proof(crm: Database) -> None:
    write(crm)
    ((record,),) = crm.rows("select max(id) from gdpr_internal.audit_record", user="postgres")
    with (
        psycopg.connect(crm.dsn("auditor_login")) as connection,
        pytest.raises(GdprdbError, match="not sealed"),
    ):
        proofs.prove(connection, record)


def test_checkpoints_that_were_changed_are_refused() -> None:
    private, public = new_keys()
    line = checkpoints.written({"seal": 1, "hash": "ab", "gdprdb_checkpoint": 1}, signer(private))
    assert [c.seal for c in checkpoints.read([line], public)] == [1]
    for lines in (
        [],
        ["x"],
        [line.replace("ab", "cd")],
        [line, "{}"],
        [line.replace(private, "")[:-5]],
    ):
        with pytest.raises(RefusedError):
            list(checkpoints.read(lines, public))
    with pytest.raises(RefusedError):
        list(checkpoints.read([line], new_keys()[1]))


def defined(leaves: list[bytes]) -> bytes:
    """The tree hash as the RFC defines it: split at the largest power of two."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else EMPTY
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(defined(leaves[:split]), defined(leaves[split:]))


@given(some.lists(some.binary(max_size=4), max_size=40), some.data())
def test_the_tree_is_that_of_the_rfc(records: list[bytes], data: some.DataObject) -> None:
    leaves = [leaf_hash(record) for record in records]
    tree = Tree()
    for leaf in leaves:
        tree.add(leaf)
    assert tree.root() == defined(leaves)
    if leaves:
        index = data.draw(some.integers(0, len(leaves) - 1))
        assert follow(leaves[index], audit_path(leaves, index)) == tree.root()


def test_the_database_grows_the_same_tree(crm: Database) -> None:
    session = crm.connect("postgres")
    for size in (0, 1, 2, 3, 5, 8, 13, 64, 100):
        leaves = [leaf_hash(str(number).encode()) for number in range(size)]
        ((root,),) = session.execute(
            "select gdpr_internal.tree_hash(%s)", [b"".join(leaves)]
        ).fetchall()
        assert bytes(root) == defined(leaves), size


def test_writers_never_wait_and_nothing_is_lost(crm: Database) -> None:
    """Sealing while others write, roll back, and use savepoints; every record is sealed once."""
    sessions = [crm.connect("crm_app", autocommit=False) for _ in range(4)]
    dice = random.Random(8)
    for step in range(60):
        session = dice.choice(sessions)
        session.execute("savepoint s")
        session.execute(INSERT)
        if dice.random() < 0.3:
            session.execute("rollback to savepoint s")
        if dice.random() < 0.4:
            dice.choice([session.commit, session.rollback])()
        if step % 7 == 0:
            seal(crm)
    for session in sessions:
        session.commit()
    seal(crm)
    assert crm.rows("select unsealed from gdpr.audit_lag()") == [(0,)]
    assert verified(crm, checkpoint(crm)) == []
