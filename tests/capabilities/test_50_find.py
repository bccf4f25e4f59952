"""The log finds records by actor, table, purpose and row; months that are over have indexes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.capabilities.crm import refused, subject
from tests.support import Clone, Database

#: A month that is over.
MONTH = f"{datetime.now(UTC).date().replace(day=1) - timedelta(days=40):%Y-%m}"
PARTITION = f"audit_record_{MONTH.replace('-', '_')}"
COLUMNS = (
    "operation, table_id, subject_id, row_key, purpose_id, actor, request, login, role,"
    " application_name, changed, row_hash, payload, xid, place"
)
#: What the application did this month, moved to that one, and many records of others.
PAST = f"""
create table gdpr_internal.{PARTITION} (like gdpr_internal.audit_record including defaults);
alter table gdpr_internal.{PARTITION} owner to gdpr_owner;
alter table gdpr_internal.audit_record attach partition gdpr_internal.{PARTITION}
  for values from ('{MONTH}-01 00:00Z') to (timestamptz '{MONTH}-01 00:00Z' + interval '1 month');
alter table gdpr_internal.audit_record disable trigger all;
insert into gdpr_internal.audit_record (at, id, {COLUMNS}) overriding system value
select timestamptz '{MONTH}-03 00:00Z' + a.id * interval '1 second', -a.id, {COLUMNS}
from gdpr_internal.audit_record as a where a.table_id is not null;
delete from gdpr_internal.audit_record where table_id is not null and id > 0;
insert into gdpr_internal.audit_record (at, id, operation, table_id, row_key, actor, role)
overriding system value
select timestamptz '{MONTH}-02 00:00Z', -100000 - n, 'UPDATE', 99, gen_random_uuid(), 'x' || n, 'x'
from generate_series(1, 5000) as n;
"""
TIDY = "select tidied from gdpr.tidy() where what = 'audit_indexes'"


@pytest.fixture
def past(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The application, with what it did in a month that is over: a row was changed and deleted."""
    with clone(crm_template) as database:
        app = database.connect("crm_app")
        app.execute("set gdpr.actor = 'clerk 7'")
        app.execute("update gdpr_clear.order set note = 'ring once' where id = 3")
        app.execute("delete from gdpr_clear.order_line where order_id = 3")
        app.execute("delete from gdpr_clear.order where id = 3")
        database.connect("postgres").execute(PAST)
        yield database


def plan(db: Database, condition: str) -> str:
    """How the log is read."""
    lines = db.rows(f"explain select * from gdpr.audit_log where {condition}", user="auditor_login")
    return "\n".join(line for (line,) in lines)


def found(db: Database, condition: str) -> list[str]:
    """The operations of the records."""
    return [
        operation
        for (operation,) in db.rows(
            f"select operation from gdpr.audit_log where {condition} order by at",
            user="auditor_login",
        )
    ]


def test_a_month_that_is_over_is_indexed_once(past: Database) -> None:
    assert past.rows(TIDY) == [(1,)]
    assert past.rows(TIDY) == [(0,)]
    table = past.rows("select gdpr.audit_table_id('crm.order')", user="auditor_login")[0][0]
    purpose = past.rows("select gdpr.audit_purpose_id('orders')", user="auditor_login")[0][0]
    row = "row_key = (select gdpr.audit_row_key('crm.order', '3'))"
    for condition, index in (
        ("actor = 'clerk 7'", "actor"),
        (f"table_id = {table}", "table_id"),
        (f"purpose_id = {purpose}", "purpose_id"),
        (row, "row_key"),
    ):
        assert f"{PARTITION}_{index}" in plan(past, condition)
        assert "DELETE" in found(past, condition)
    assert found(past, row) == ["UPDATE", "DELETE"]
    indexes = past.rows(
        "select count(*) from pg_index where indrelid = 'gdpr_internal.audit_record'::regclass",
        user="postgres",
    )
    assert indexes == [(2,)], "the month that goes on has those of all months, and no others"


def test_the_history_of_a_row_that_was_deleted_then(past: Database) -> None:
    """It is the index that finds whose it was."""
    person = subject(past, "crm.customer", 2)
    past.rows(TIDY)
    for _ in range(2):
        versions = past.rows(
            "select operation, subject_id, content ->> 'note' from gdpr.history('crm.order', '3')",
            user="dpo_login",
        )
        assert versions == [
            ("DELETE", person, None),
            ("UPDATE", person, "ring once"),
            (None, person, "ring twice"),
        ]


def test_a_transaction_that_still_writes_in_that_month_is_not_waited_for(past: Database) -> None:
    slow = past.connect("postgres", autocommit=False)
    slow.execute(f"lock table gdpr_internal.{PARTITION} in row exclusive mode".encode())
    assert past.rows(TIDY) == [(0,)]
    slow.rollback()
    assert past.rows(TIDY) == [(1,)]


def test_what_was_never_protected_has_no_numbers(past: Database) -> None:
    assert past.rows(
        "select gdpr.audit_table_id('pg_catalog.pg_class'), gdpr.audit_row_key('none', '1'),"
        " gdpr.audit_purpose_id('none')",
        user="auditor_login",
    ) == [(None, None, None)]
    for user in ("crm_app", "metabase"):
        with refused("42501"), psycopg.connect(past.dsn(user)) as connection:
            connection.execute("select gdpr.audit_row_key('crm.order', '3')")
