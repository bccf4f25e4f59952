"""Sealing and verification: what was recorded can no longer be changed unseen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as some

from gdprdb.audit import checkpoints, proofs
from gdprdb.audit.tree import EMPTY, Tree, follow, leaf_hash, node_hash
from gdprdb.errors import GdprdbError, RefusedError
from gdprdb.signing import new_keys, signer
from tests.capabilities.crm import refused
from tests.capabilities.sealing import checkpoint, seal, tamper, verified, write
from tests.support import Clone, Database


@pytest.fixture
def crm(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The protected customer database, sealed once."""
    with clone(crm_template) as database:
        seal(database)
        yield database


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


@pytest.mark.parametrize(
    ("kind", "names", "swap"),
    [
        (
            "purpose",
            "select name from gdpr_internal.purpose where id in (1, 2)",
            "update gdpr_internal.purpose set id = 3 - id where id in (1, 2)",
        ),
        (
            "table",
            "select relation::text from gdpr_internal.protected_table where id in (1, 2)",
            (
                "update gdpr_internal.protected_table as t set relation = o.relation"
                " from gdpr_internal.protected_table as o where t.id in (1, 2) and o.id = 3 - t.id"
            ),
        ),
    ],
    ids=["purposes", "tables"],
)
def test_what_the_numbers_in_records_mean_is_sealed(
    crm: Database, kind: str, names: str, swap: str
) -> None:
    """Swapped, all that is sealed would read otherwise and still verify."""
    told = {f"{kind} {n} {name}" for n in (1, 2) for (name,) in crm.rows(names, user="postgres")}
    assert len(told) == 4
    with psycopg.connect(crm.dsn("postgres")) as mallory:
        mallory.execute("set session_replication_role = replica")
        mallory.execute("drop index gdpr_internal.protected_table_relation")
        mallory.execute("alter table gdpr_internal.purpose drop constraint purpose_pkey cascade")
        mallory.execute(swap.encode())
    compare = "select object from gdpr.audit_catalog_changes(%s) where change <> 'changed'"
    for number in (None, 2):
        assert {thing for (thing,) in crm.rows(compare, [number], user="auditor_login")} >= told
        crm.rows("select gdpr.seal_audit()")
        ((last, changed),) = crm.rows(
            "select id, catalog_changed from gdpr.audit_seal order by id desc limit 1"
        )
        assert (last, changed) == (2, True)


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
    proven = proofs.check(json.dumps(proof), [point])
    assert proven.record["id"] == str(record)
    assert proven.record["login"] == "crm_app"
    assert crm.rows(
        "select id, sealed_at from gdpr.audit_seal where %s between first_id and last_id"
        " and sealed_at = %s",
        [record, proven.sealed_at],
    ) == [(proven.seal, datetime.fromisoformat(proven.sealed_at))]
    for changes in (
        {"record": proof["record"].replace("crm_app", "mallory")},
        {"seals": proof["seals"][:-1]},
        {"seals": [proof["seals"][0], proof["seals"][1].replace("/1/", "/2/", 1)]},
        {"path": proof["path"][1:]},
        {"path": "x"},
    ):
        with pytest.raises(RefusedError):
            proofs.check(json.dumps(proof | changes), [point])


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
    index = data.draw(some.integers(0, max(len(leaves) - 1, 0)))
    tree = Tree()
    for number, leaf in enumerate(leaves):
        tree.add(leaf, wanted=number == index)
    assert tree.root() == defined(leaves)
    path = tree.path()
    if leaves:
        assert path is not None
        assert follow(leaves[index], path) == tree.root()
        assert len(path) <= (len(leaves) - 1).bit_length()
    else:
        assert path is None


def test_the_database_grows_the_same_tree(crm: Database) -> None:
    session = crm.connect("postgres")
    for size in (0, 1, 2, 3, 5, 8, 13, 64, 100):
        leaves = [leaf_hash(str(number).encode()) for number in range(size)]
        ((root,),) = session.execute(
            "select gdpr_internal.tree_hash(%s)", [b"".join(leaves)]
        ).fetchall()
        assert bytes(root) == defined(leaves), size
