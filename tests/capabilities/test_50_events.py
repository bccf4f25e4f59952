"""What gdprdb itself does is on record: once when it is committed, never when it is undone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.capabilities.events import ELSEWHERE, SILENT, STEPS, Step, begun
from tests.support import Clone, Database

#: Functions of the API that may change something and that somebody else than their owner may call.
VOLATILE = """
select p.proname::text, p.oid::regprocedure::text, count(*) over (partition by p.proname)
from pg_proc as p
where p.pronamespace = 'gdpr'::regnamespace and p.provolatile = 'v'
  and p.prorettype <> 'trigger'::regtype
  and exists (select from aclexplode(p.proacl) as x where x.grantee <> p.proowner)
"""
LAST = "select coalesce(max(id), 0) from gdpr_internal.audit_record"
OPERATIONS = """
select array_agg(distinct operation), bool_and(xid = %s::text::xid8), bool_and(login = %s)
from gdpr_internal.audit_record
where id > %s
"""


#: All that the audit consists of, and all of it that somebody without the right to decrypt gets.
AUDIT = (
    ("postgres", "gdpr_internal.audit_record"),
    ("postgres", "gdpr_internal.audit_seal"),
    ("postgres", "gdpr_internal.audit_catalog"),
    ("postgres", "gdpr_internal.audit_block"),
    ("auditor_login", "gdpr.audit_log"),
    ("auditor_login", "gdpr.audit_leaf"),
    ("auditor_login", "gdpr.audit_checkpoint()"),
)

#: Values of persons: before the steps, and as these changed them; none is a part of another word.
VALUES = re.compile(
    r"@example|\+49 711|\+81 3|Ahrens|Bartok|Chiba|Arens|Arendt|Dietz|Stuttgart|Aalen|1980-01-02"
    r"|gift for|K\. Weber"
)


@pytest.fixture
def house(clone: Clone, shop_template: str) -> Iterator[Database]:
    """The application before its policy, with leads that were seen."""
    with clone(shop_template) as database:
        database.rows("alter table crm.lead add seen timestamptz")
        database.rows("grant gdpr_portal to portal_app", user="postgres")
        yield database


def take(house: Database, session: psycopg.Connection, step: Step, known: dict[str, Any]) -> None:
    """Take a step twice, first undone and then committed, and look what was recorded."""
    ((last,),) = house.rows(LAST, user="postgres")
    parameters = known if "%(" in step.call else None
    if step.records:
        session.execute(step.call.encode(), parameters)
        session.rollback()
        assert house.rows(f"{LAST} where id > {last}", user="postgres") == [(0,)], step.call
    cursor = session.execute(step.call.encode(), parameters)
    row = cursor.fetchone() if cursor.description else None
    number = session.execute("select pg_current_xact_id_if_assigned()::text").fetchone()
    session.commit()
    if step.found:
        assert row is not None
        found = row[0]
        assert found is not None, step.call
        known[step.found] = json.dumps(found) if isinstance(found, list | dict) else found
    assert number is not None
    ((operations, together, right),) = house.rows(
        OPERATIONS, [number[0], step.user, last], user="postgres"
    )
    assert step.records <= set(operations or ()), (step.call, operations)
    if operations:
        assert together, step.call
        assert right, step.call


def test_each_function_that_changes_something_records_it(house: Database) -> None:
    known = begun()
    sessions: dict[str, psycopg.Connection] = {}
    for step in STEPS:
        if step.user not in sessions:
            sessions[step.user] = house.connect(step.user, autocommit=False)
        take(house, sessions[step.user], step, known)
    house.rows("select gdpr.seal_audit()")
    for user, relation in AUDIT:
        for (row,) in house.rows(f"select a::text from {relation} as a", user=user):
            assert VALUES.search(row) is None, (relation, row)


def test_the_first_key_is_on_record(house: Database) -> None:
    assert house.rows(
        "select operation from gdpr_internal.audit_record order by id limit 1", user="postgres"
    ) == [("KEY",)]


def test_no_function_is_left_out(same: Database) -> None:
    """A new one needs a step that shows its record, or a reason why it has none."""
    shown = {
        name
        for step in STEPS
        if step.records
        for name in [step.of] * bool(step.of) or re.findall(r"gdpr\.(\w+)\(", step.call)
    }
    there = {
        signature.removeprefix("gdpr.") if several > 1 else name
        for name, signature, several in same.rows(VOLATILE, user="postgres")
    }
    assert there - shown - set(SILENT) - set(ELSEWHERE) == set(), "say what they record"
    assert (set(SILENT) | set(ELSEWHERE)) - there == set(), "there are no such functions"
    assert set(SILENT) & shown == set(), "they do leave records"
