"""Whoever rules the server changes the record, with all triggers off: it is found."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import psycopg
import pytest

from tests.capabilities.sealing import checkpoint, seal, tamper, verified, write
from tests.support import Clone, Database

#: How often the record is tampered with; 500 shows more than a suite has time for.
TAMPERINGS = int(os.environ.get("GDPRDB_TEST_TAMPERINGS", "20"))

#: Records are gone, and another says that they were dropped when their time was over.
DROP = """
with gone as (delete from gdpr_internal.audit_record where id >= %%(record)s)
insert into gdpr_internal.audit_record (operation, role, payload, at)
select 'AUDIT_DROP', 'x', jsonb_build_object(
  'before', date_trunc('month', now() + interval '1 month')::date, 'records', 1
)::text, %s
"""

EDITS: dict[str, str] = {
    "edit": "update gdpr_internal.audit_record set actor = 'nobody' where id = %(record)s",
    "purpose": (
        "update gdpr_internal.audit_record set purpose_id = coalesce(purpose_id, 0) + 1"
        " where id = %(record)s"
    ),
    "payload": "update gdpr_internal.audit_record set payload = 'gdpr1:' where id = %(record)s",
    "delete": "delete from gdpr_internal.audit_record where id = %(record)s",
    "re-time": (
        "update gdpr_internal.audit_record set at = at - interval '1 second' where id = %(record)s"
    ),
    "another month": (
        "update gdpr_internal.audit_record set at = at - interval '40 days' where id = %(record)s"
    ),
    "another transaction": (
        "update gdpr_internal.audit_record set xid = (xid::text::bigint - 1)::text::xid8"
        " where id = %(record)s"
    ),
    "another place": "update gdpr_internal.audit_record set place = 1 where id = %(record)s",
    "swap": (
        "update gdpr_internal.audit_record as a set operation = b.operation, actor = b.actor,"
        " subject_id = b.subject_id, row_key = b.row_key, row_hash = b.row_hash,"
        " payload = b.payload, changed = b.changed from gdpr_internal.audit_record as b"
        " where (a.id, b.id) in ((%(record)s, %(other)s), (%(other)s, %(record)s))"
    ),
    "insert": (
        "insert into gdpr_internal.audit_record (operation, role, xid, at)"
        " select 'FORGED', role, xid, at from gdpr_internal.audit_record where id = %(record)s"
    ),
    "insert with a number": (
        "insert into gdpr_internal.audit_record (id, operation, role, xid, at)"
        " overriding system value select -id, 'FORGED', role, xid, at"
        " from gdpr_internal.audit_record where id = %(record)s"
    ),
    "future": (
        "insert into gdpr_internal.audit_record (operation, role, xid)"
        " select 'FORGED', role, '9000000000000' from gdpr_internal.audit_record"
        " where id = %(record)s"
    ),
    "a place that was closed": (
        "insert into gdpr_internal.audit_record (operation, role, place) values ('FORGED', 'x', 1)"
    ),
    "a later day": (
        "insert into gdpr_internal.audit_record (operation, role, at)"
        " values ('FORGED', 'x', now() + interval '3 days')"
    ),
    "a drop": DROP % "now()",
    "a drop of a later day": DROP % "now() + interval '3 years'",
    "what sealing begins at": (
        "update gdpr_internal.audit_seal set seen_id = 9e18, own_xid = from_xid"
        " where id = (select max(id) from gdpr_internal.audit_seal)"
    ),
    "numbers set back": (
        "alter sequence gdpr_internal.audit_record_id_seq restart with 1;"
        " insert into gdpr_internal.audit_record (operation, role) values ('FORGED', 'x')"
    ),
    "seals of what has not been": (
        "update gdpr_internal.audit_seal set below_xid = '9000000000000'"
        " where id = (select max(id) from gdpr_internal.audit_seal)"
    ),
    "what names records": (
        "update gdpr_internal.audit_block set leaves = sha256(leaves)"
        " where seal_id = (select max(id) from gdpr_internal.audit_seal)"
    ),
    "cut the records": "delete from gdpr_internal.audit_record where id >= %(record)s",
    "cut the seals": "delete from gdpr_internal.audit_seal where last_id >= %(record)s",
    "what was in the catalog": (
        "update gdpr_internal.audit_catalog set objects = objects[2:]"
        " where fingerprint = (select catalog from gdpr_internal.audit_seal limit 1)"
    ),
    "replace a seal": (
        "update gdpr_internal.audit_seal set root = sha256(root) where last_id >= %(record)s"
    ),
}


@pytest.mark.parametrize("how", EDITS)
def test_each_way_of_tampering_is_found(crm: Database, how: str) -> None:
    write(crm)
    seal(crm)
    write(crm, 2)
    seal(crm)
    kept = checkpoint(crm)
    ((record,),) = crm.rows("select max(id) - 3 from gdpr_internal.audit_record", user="postgres")
    tamper(crm, EDITS[how], record=record, other=record - 1)
    assert verified(crm, kept)


def test_the_record_that_was_changed_is_named(crm: Database) -> None:
    write(crm, 10)
    seal(crm)
    ((record,),) = crm.rows("select max(id) - 7 from gdpr_internal.audit_record", user="postgres")
    tamper(crm, EDITS["edit"], record=record)
    ((_, found, words),) = verified(crm)
    assert found == record
    assert words == "records were changed, first at this record"


def test_an_early_record_of_a_large_seal_is_named(crm: Database) -> None:
    """The rest of the records is read all the same: a COPY that is broken off ends in an error."""
    crm.rows(
        "insert into gdpr_internal.audit_record (operation, role) select 'TEST', 'nobody'"
        " from generate_series(1, 30000)",
        user="postgres",
    )
    seal(crm)
    tamper(crm, EDITS["edit"], record=2)
    ((_, found, _),) = verified(crm)
    assert found == 2


#: The last seal, no checkpoint of which was kept, is changed and given the hash that it has then.
REHASHED = (
    "update gdpr_internal.audit_seal as s"
    " set hash = sha256(convert_to(gdpr_internal.seal_text(s), 'UTF8'))"
    " where id = (select max(id) from gdpr_internal.audit_seal)"
)


@pytest.mark.parametrize("how", ["what sealing begins at", "numbers set back"])
def test_sealing_goes_on_and_what_is_sealed_then_is_found_when_it_is_changed(
    crm: Database, how: str
) -> None:
    write(crm)
    seal(crm)
    kept = checkpoint(crm)
    write(crm, 2)
    seal(crm)
    tamper(crm, EDITS[how].split(";")[0])
    if how == "what sealing begins at":
        tamper(crm, REHASHED)
    assert bool(verified(crm, kept)) == (how == "what sealing begins at")
    write(crm, 2)
    ((unsealed,),) = crm.rows("select unsealed from gdpr.audit_lag()")
    assert unsealed > 0
    assert seal(crm) == unsealed
    assert seal(crm) == 0
    write(crm, 2)
    assert seal(crm) > 0
    kept = checkpoint(crm)
    ((record,),) = crm.rows(
        "select id from gdpr_internal.audit_record order by xid desc, id desc limit 1",
        user="postgres",
    )
    tamper(
        crm,
        "update gdpr_internal.audit_record set actor = 'nobody'"
        " where id = %(record)s and xid = (select max(xid) from gdpr_internal.audit_record)",
        record=record,
    )
    assert (kept["seal"], record) in {(number, found) for number, found, _ in verified(crm, kept)}


def test_records_that_sealing_would_pass_over_are_found(crm: Database) -> None:
    """The last seal says that it has seen numbers that are given soon."""
    write(crm)
    seal(crm)
    kept = checkpoint(crm)
    write(crm, 2)
    seal(crm)
    tamper(
        crm,
        "update gdpr_internal.audit_seal set own_xid = below_xid,"
        " seen_id = (select max(id) + 2 from gdpr_internal.audit_record)"
        " where id = (select max(id) from gdpr_internal.audit_seal)",
    )
    tamper(crm, REHASHED)
    assert verified(crm, kept) == []
    write(crm, 4)
    assert any("given before" in words for _, _, words in verified(crm, kept))
    seal(crm)
    assert "the record was added behind the seals" in {words for _, _, words in verified(crm, kept)}


def test_a_record_is_named_by_what_was_sealed_alone(crm: Database) -> None:
    """What the database keeps to name it is changed as well: then no other record is accused."""
    write(crm, 10)
    seal(crm)
    ((record,),) = crm.rows("select max(id) - 7 from gdpr_internal.audit_record", user="postgres")
    tamper(crm, EDITS["edit"], record=record)
    tamper(crm, EDITS["what names records"])
    ((_, found, words),) = verified(crm)
    assert found is None
    assert words == "records were changed, and what tells which they are"


@pytest.mark.parametrize("how", ["future", "another place", "insert", "a place that was closed"])
def test_a_forged_record_is_named_inside_and_outside(crm: Database, how: str) -> None:
    write(crm)
    seal(crm)
    ((record,),) = crm.rows("select max(id) from gdpr_internal.audit_record", user="postgres")
    tamper(crm, EDITS[how], record=record)
    forged = record if how == "another place" else record + 1
    assert (None, forged) in {(number, found) for number, found, _ in verified(crm)}


def test_seals_made_anew_after_the_edit_are_not_those_of_the_checkpoint(crm: Database) -> None:
    write(crm)
    seal(crm)
    kept = checkpoint(crm)
    tamper(crm, EDITS["edit"], record=3)
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


#: The record as it is now, and what puts it back.
KEEP = """
create schema kept;
create table kept.audit_record as table gdpr_internal.audit_record;
create table kept.audit_seal as table gdpr_internal.audit_seal;
create table kept.audit_block as table gdpr_internal.audit_block;
create table kept.audit_catalog as table gdpr_internal.audit_catalog;
"""
PUT_BACK = """
delete from gdpr_internal.audit_record;
delete from gdpr_internal.audit_block;
delete from gdpr_internal.audit_seal;
delete from gdpr_internal.audit_catalog;
insert into gdpr_internal.audit_record overriding system value table kept.audit_record;
insert into gdpr_internal.audit_catalog table kept.audit_catalog;
insert into gdpr_internal.audit_seal table kept.audit_seal;
insert into gdpr_internal.audit_block table kept.audit_block;
select setval('gdpr_internal.audit_record_id_seq', (select max(id) from kept.audit_record));
"""

#: Everything after a seal is gone: what an older copy of the database holds.
OLDER = """
delete from gdpr_internal.audit_record where xid >= (
  select max(below_xid) from gdpr_internal.audit_seal where id <= %(seal)s
);
delete from gdpr_internal.audit_block where seal_id > %(seal)s;
delete from gdpr_internal.audit_seal where id > %(seal)s;
"""
ANEW = """
delete from gdpr_internal.audit_block;
delete from gdpr_internal.audit_seal;
select gdpr.seal_audit();
"""


def meddle(session: psycopg.Connection, how: str, dice: random.Random, ids: Sequence[int]) -> None:
    """Tamper in one way with a random record, or with everything after a random seal."""
    record, other = dice.sample(ids, 2)
    where = {"record": record, "other": other, "seal": dice.randint(1, 5)}
    if how == "an older copy":
        statements = OLDER
    elif how == "all sealed anew":
        edit = dice.choice(["edit", "purpose", "payload", "delete", "re-time", "insert"])
        statements = f"{EDITS[edit]};{ANEW}"
    else:
        statements = EDITS[how]
    for statement in filter(str.strip, statements.split(";")):
        session.execute(statement.encode(), where)
    session.commit()


def test_random_tamperings_are_found_and_nothing_else(crm: Database) -> None:
    """Each is committed, looked for inside and outside of the database against the last
    checkpoint, and put back: then all is as it was."""
    dice = random.Random(50)
    for _ in range(6):
        write(crm, 3)
        seal(crm)
    kept = checkpoint(crm)
    session = crm.connect("postgres", autocommit=False)
    session.execute("set session_replication_role = replica")
    for table in ("audit_record", "audit_seal", "audit_block", "audit_catalog"):
        session.execute(f"alter table gdpr_internal.{table} disable trigger all".encode())
    session.execute(KEEP)
    session.commit()
    ids = [n for (n,) in session.execute("select id from kept.audit_record order by id")]
    ways = [*EDITS, "an older copy", "all sealed anew"]
    untouched = (
        "select count(*) from"
        " (table kept.audit_record except table gdpr_internal.audit_record) as gone"
    )
    for number in range(TAMPERINGS):
        how = ways[number % len(ways)]
        meddle(session, how, dice, ids)
        assert verified(crm, kept), (number, how)
        session.execute(PUT_BACK)
        session.commit()
        if number % 10 == 0:
            assert session.execute(untouched).fetchall() == [(0,)]
            assert verified(crm, kept) == [], (number, how)
