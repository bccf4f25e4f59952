"""Station 50: what a statement inserts is recorded once, however the rows come in."""

from __future__ import annotations

import psycopg
import pytest

from tests.capabilities.crm import refused
from tests.support import Database

#: The records of leads that came in, beside the leads that there are: whose, and of what number.
RECORDED = (
    "select a.subject_id = l.gdpr_subject_id and a.row_key = gdpr_internal.keyed_digest("
    "k.audit_key, a.table_id::text, l.id::text) from gdpr_internal.audit_record as a"
    " join crm.lead as l on l.gdpr_subject_id = a.subject_id,"
    " gdpr_internal.key_encryption_key as k"
    " where a.operation = 'INSERT' and a.table_id is not null and a.id > %s"
)
LAST = "select coalesce(max(id), 0) from gdpr_internal.audit_record"


def last(crm: Database) -> int:
    """The number of the last record."""
    ((number,),) = crm.rows(LAST, user="postgres")
    assert isinstance(number, int)
    return number


def arrivals(crm: Database, since: int) -> list[tuple[object, ...]]:
    """For each record of a lead that came in: is it of the lead's person and key?"""
    return crm.rows(RECORDED, [since], user="postgres")


#: Statements, and how many leads come in.
STATEMENTS = {
    "several": ("insert into crm.lead (email) values ('a@x.example'), ('b@x.example')", 2),
    "none": ("insert into crm.lead (email) select 'a@x.example' where false", 0),
    "two of one statement": (
        """
        with a as (insert into crm.lead (email) values ('a@x.example') returning id)
        insert into crm.lead (email) select id || '@x.example' from a
        """,
        2,
    ),
    "in a query": (
        """
        with a as (insert into crm.lead (email) values ('a@x.example') returning id)
        select * from a
        """,
        1,
    ),
    "merge": (
        """
        merge into crm.lead as l using (values ('a@x.example'), ('b@x.example')) as v (email)
        on l.email = v.email when not matched then insert (email) values (v.email)
        """,
        2,
    ),
    "savepoints": (
        """
        do $$
        begin
          for n in 1..3 loop
            begin
              insert into crm.lead (email) values (n || '@x.example');
              if n = 2 then
                raise 'undone';
              end if;
            exception when raise_exception then
              null;
            end;
          end loop;
        end $$
        """,
        2,
    ),
}


@pytest.mark.parametrize("what", STATEMENTS)
@pytest.mark.parametrize("place", ["origin", "replica"])
def test_each_row_has_one_record(crm: Database, what: str, place: str) -> None:
    """Where the change is made, and where a subscription repeats it."""
    statement, rows = STATEMENTS[what]
    since = last(crm)
    with psycopg.connect(crm.dsn("postgres"), autocommit=True) as session:
        session.execute(f"set session_replication_role = {place}".encode())
        session.execute("set gdpr.purpose = 'orders'")
        session.execute(statement.encode())
    assert arrivals(crm, since) == [(True,)] * rows


def test_records_stand_in_the_order_of_the_rows(crm: Database) -> None:
    since = last(crm)
    crm.rows(
        "insert into gdpr_clear.customer (email, last_name)"
        " select n || '@x.example', 'N' from generate_series(1, 500) as n",
        user="crm_app",
    )
    ((ordered, records),) = crm.rows(
        "select array_agg(c.id order by a.id) = array_agg(c.id order by c.id), count(*)"
        " from gdpr_internal.audit_record as a join crm.customer as c"
        " on c.gdpr_subject_id = a.subject_id"
        " where a.operation = 'INSERT' and a.table_id is not null and a.id > %s",
        [since],
        user="postgres",
    )
    assert (ordered, records) == (True, 500)


def test_the_record_holds_what_was_stored_when_a_trigger_changes_the_row(crm: Database) -> None:
    """A trigger of the application that fires after the row has come in."""
    crm.rows(
        "create function crm.stamp() returns trigger language plpgsql as $$ begin"
        " update crm.customer set city = 'Ulm' where id = new.id; return null; end $$"
    )
    crm.rows(
        "create trigger stamp after insert on crm.customer"
        " for each row execute function crm.stamp()"
    )
    crm.rows(
        "insert into gdpr_clear.customer (email, last_name, city) values ('a@x.example', 'N', 'X')",
        user="crm_app",
    )
    ((key,),) = crm.rows("select max(id) from crm.customer", user="postgres")
    history = crm.rows(
        "select operation, changed, content ->> 'city', at <= until, purpose"
        " from gdpr.history('crm.customer', %s)",
        [str(key)],
        user="dpo_login",
    )
    assert history == [
        ("UPDATE", ["city"], "Ulm", None, "orders"),
        ("INSERT", None, "X", True, "orders"),
    ]


def test_a_number_of_another_type_is_not_converted(crm: Database) -> None:
    """The owner changes the type of the person's number: her cast would run with the keys."""
    owner = crm.connect()
    for statement in (
        "create type crm.late as enum ('1')",
        (
            "create function crm.late_cast(crm.late) returns bigint language plpgsql as"
            " 'begin raise ''ran as %'', current_user; end'"
        ),
        "create cast (crm.late as bigint) with function crm.late_cast(crm.late) as implicit",
        "alter table crm.lead disable row level security",
        "alter table crm.lead disable trigger user",
        "alter table crm.lead enable trigger zzz_gdpr_50_audit_arrivals",
        "alter table crm.lead drop column gdpr_subject_id cascade",
        "alter table crm.lead add column gdpr_subject_id crm.late",
    ):
        owner.execute(statement.encode())
    with refused("PR409", "drifted"):
        owner.execute("insert into crm.lead (email, gdpr_subject_id) values ('a@x.example', '1')")
