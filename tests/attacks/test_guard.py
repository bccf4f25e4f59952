"""The guard: the owner of the tables, who is no superuser, weakens what protects them; and what
of that is found where no guard stands."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator

import psycopg
import pytest

from gdprdb import guard, migrate
from gdprdb.errors import RefusedError
from tests.capabilities.crm import apply, one_table, policy, refused
from tests.support import AS_SUPERUSER, INSTALLER, OWNER, Clone, Database, Run

#: What the owner has made beforehand, and what stands beside the protected tables.
TABLES = """
create function crm.do_nothing() returns trigger language plpgsql as 'begin return new; end';
create function crm.turn_off() returns void language plpgsql as
  'begin alter table crm.customer disable trigger zzz_gdpr_50_audit; end';
create role other_owner;
create table crm.visit (id integer, at date not null, visitor text, primary key (id, at))
  partition by range (at);
create table crm.visit_2026 partition of crm.visit for values from ('2026-01-01') to ('2027-01-01');
create table crm.parcel (id integer primary key, weight integer);
create table crm.loose (like crm.visit);
create policy mine on crm.lead as restrictive for select using (score > -1);
grant create on schema crm to other_owner;
"""

POLICY = policy(
    **{
        "tables__crm.visit": {
            "subject": "self",
            "purposes": ["orders"],
            "columns": {"visitor": {"category": "identity", "encrypt": True}},
        }
    }
)

#: By the table's owner, one statement each (or several at once).
BY_OWNER = {
    "disable a trigger": "alter table crm.customer disable trigger zzz_gdpr_50_audit",
    "disable all triggers": "alter table crm.customer disable trigger user",
    "fire on replicas only": "alter table crm.customer enable replica trigger zzz_gdpr_50_audit",
    "not in replica sessions": "alter table crm.customer enable trigger zzz_gdpr_50_audit",
    "drop a trigger": "drop trigger zzz_gdpr_40_protect on crm.customer",
    "replace a trigger": "create or replace trigger zzz_gdpr_50_audit after insert on crm.customer"
    " for each row execute function crm.do_nothing()",
    "rename a trigger": "alter trigger zzz_gdpr_50_audit on crm.customer rename to harmless",
    "come after encryption": "create trigger zzzz_last before update on crm.customer"
    " for each row execute function crm.do_nothing()",
    "run at commit": "create constraint trigger later after update on crm.customer"
    " deferrable for each row execute function crm.do_nothing()",
    "row security off": "alter table crm.customer disable row level security",
    "row security not forced": "alter table crm.customer no force row level security",
    "drop the gate": "drop policy gdpr_40_gate on crm.customer",
    "open the gate": "alter policy gdpr_40_gate on crm.customer using (true)",
    "rename the gate": "alter policy gdpr_40_gate on crm.customer rename to gdpr_40_door",
    "a gate for nobody": "alter policy gdpr_40_gate on crm.customer to pg_monitor",
    "a policy that opens": "create policy all_in on crm.customer using (true)",
    "a policy of one's own goes": "drop policy mine on crm.lead",
    "a rule": "create rule r as on delete to crm.lead do instead nothing",
    "a cast of rows": "create cast (crm.customer as text) with inout",
    "drop the table": "drop table crm.order_line cascade",
    "drop the schema": "drop schema crm cascade",
    "drop a column": "alter table crm.customer drop column phone cascade",
    "drop a control column": "alter table crm.lead drop column gdpr_until cascade",
    "rename the table": "alter table crm.customer rename to client",
    "rename a column": "alter table crm.customer rename column phone to telephone",
    "rename the schema": "alter schema crm rename to shop",
    "move the table": "create schema other; alter table crm.lead set schema other",
    "uniqueness goes": "alter table crm.customer drop constraint customer_email_key",
    "the machinery reads no more": "revoke select on crm.customer from gdpr_worker",
    "detach a partition": "alter table crm.visit detach partition crm.visit_2026",
    "drop a partition": "drop table crm.visit_2026",
    "weaken a partition": "alter table crm.visit_2026 no force row level security",
    "truncate a partition": "drop trigger zzz_gdpr_40_truncate on crm.visit_2026",
    "inherit": "create table crm.heir () inherits (crm.lead)",
    "in a block": "do $$ begin execute 'alter table crm.customer disable trigger user'; end $$",
    "in a function": "select crm.turn_off()",
    "among others": "create table crm.x (id int); alter table crm.customer disable trigger user;"
    " drop table crm.x",
    "off and on again": "alter table crm.customer disable trigger zzz_gdpr_50_audit;"
    " update crm.customer set city = 'Rome';"
    " alter table crm.customer enable always trigger zzz_gdpr_50_audit",
    "copy of the table": "create materialized view crm.copy as select * from crm.lead",
    "copy of the clear view": "grant usage on schema gdpr_clear to db_owner;"
    " create materialized view crm.copy as select * from gdpr_clear.customer",
    "copy through a view": "create view crm.v as select * from crm.lead;"
    " create materialized view crm.copy as select * from crm.v",
    "another owner": "grant other_owner to db_owner; alter table crm.lead owner to other_owner",
}

#: These an owner of gdprdb's objects could do. Before version 16 whoever has CREATEROLE can make
#: himself one; here it is the superuser who takes the role.
BY_MACHINERY = {
    "replace a function": "create or replace function gdpr_internal.append_only() returns trigger"
    " language plpgsql as 'begin return new; end'",
    "plant a function": "create function gdpr_internal.hmac(text, text, varchar) returns bytea"
    " language sql as 'select null::bytea'",
    "invoker": "alter function gdpr_internal.append_only() security invoker",
    "another path": "alter function gdpr_internal.append_only() set search_path = public",
    "no path": "alter function gdpr_internal.append_only() reset all",
    "drop a function": "drop function gdpr_internal.append_only() cascade",
    "drop the guard": "drop function gdpr_internal.guard(text)",
    "drop it all": "drop schema gdpr_internal cascade",
    "drop what is owned": "drop owned by gdpr_owner cascade",
    "move the guard": "alter function gdpr_internal.guard(text) rename to watch",
    "rename a schema": "alter schema gdpr_internal rename to elsewhere",
    "a schema for all": "grant usage on schema gdpr_internal to crm_app",
    "a function for all": "grant execute on function gdpr_internal.fingerprint(regclass) to public",
    "a table for all": "grant select on gdpr_internal.identifier to crm_app",
    "a column for all": "grant select (digest) on gdpr_internal.identifier to crm_app",
    "evidence can change": "alter table gdpr_internal.basis_record"
    " disable trigger gdpr_50_append_only",
    "evidence opens": "alter table gdpr_internal.basis_record disable row level security",
    "a policy on evidence": "create policy p on gdpr_internal.basis_record using (true)",
    "drop a month": "drop table gdpr_internal.audit_record_rest cascade",
    "what is demanded": "delete from gdpr_internal.control",
    "what is protected": "update gdpr_internal.protected_table set unprotected_at = now()",
    "a view for others": "grant select on gdpr.subject to crm_app",
}

BY_VIEWER = {
    "no barrier": "alter view gdpr_bi.customer set (security_barrier = false)",
    "drop the view": "drop view gdpr_clear.customer",
    "more for bi": "create or replace view gdpr_bi.lead with (security_barrier) as"
    " select gdpr_subject_ref as subject_ref, id, email, full_name, score from crm.lead",
    "the clear view for bi": "grant select on gdpr_clear.customer to gdpr_bi",
}

#: What migrations of applications do, and what administrators do beside them.
HARMLESS = {
    "a column": "alter table crm.customer add column nickname text",
    "a column with a default": "alter table crm.lead add column seen integer not null default 0",
    "a default": "alter table crm.customer alter column city set default 'Ulm'",
    "not null": "alter table crm.lead alter column score set not null",
    "null": "alter table crm.customer alter column last_name drop not null",
    "a check": "alter table crm.lead add constraint positive check (score >= 0)",
    "an index": "create index on crm.customer (city)",
    "a unique index": "create unique index on crm.lead (score)",
    "an index goes": "create index i on crm.customer (city); drop index crm.i",
    "a foreign key": 'create table crm.gift (o integer references crm."order")',
    "a trigger": "create trigger stamp before update on crm.customer"
    " for each row execute function crm.do_nothing()",
    "a trigger goes": "create trigger stamp before update on crm.customer"
    " for each row execute function crm.do_nothing(); drop trigger stamp on crm.customer",
    "a policy that narrows": "create policy narrow on crm.lead as restrictive using (score > 0)",
    "words": "comment on table crm.customer is 'people'; comment on column crm.lead.email is 'x'",
    "statistics": "create statistics crm.s on id, city from crm.customer; analyze crm.customer",
    "storage": "alter table crm.customer set (fillfactor = 90);"
    " alter table crm.customer alter column city set statistics 500",
    "a right": "grant select on crm.customer to mailer; revoke select on crm.customer from mailer",
    "rights on all": "grant all on all tables in schema crm to crm_app",
    "a view": "create view crm.cities as select city from crm.customer",
    "another table": "alter table crm.parcel add column note text; alter table crm.parcel"
    " rename to packet; drop table crm.packet",
    "a table": "create table crm.t (id int primary key); create table crm.u as select 1 as one",
    "a temporary table": "create temporary table t (id int) on commit drop; drop table t",
    "a schema": "create schema s create table t (id int); drop schema s cascade",
    "a type": "create type crm.mood as enum ('good'); alter type crm.mood add value 'bad'",
    "a function": "create or replace function crm.f() returns int language sql as 'select 1';"
    " drop function crm.f()",
    "an extension": "create extension if not exists citext; drop extension citext",
    "a partition": "create table crm.visit_2027 partition of crm.visit"
    " for values from ('2027-01-01') to ('2028-01-01')",
    "owned objects go": "create role nobody; grant nobody to db_owner; drop owned by nobody",
    "default privileges": "alter default privileges in schema crm grant select on tables to crm_app",
}


@pytest.fixture(scope="module")
def unguarded(clone: Clone, shop_template: str) -> Iterator[Database]:
    """A protected database without the guard."""
    with clone(shop_template) as database:
        database.rows(TABLES)
        apply(database, POLICY)
        database.rows("grant gdpr_viewer, gdpr_owner to postgres", user="postgres")
        yield database
        database.rows("revoke gdpr_viewer, gdpr_owner from postgres", user="postgres")
        database.rows("drop owned by other_owner; drop role other_owner", user="postgres")


@pytest.fixture(scope="module")
def guarded(clone: Clone, unguarded: Database) -> Iterator[Database]:
    """The same with the guard, for tests that leave it as it is."""
    unguarded.close()
    with clone(unguarded.name) as database:
        stand(database)
        yield database


@pytest.fixture
def fresh(clone: Clone, unguarded: Database) -> Iterator[Database]:
    """The same, of the test's own."""
    with clone(unguarded.name) as database:
        stand(database)
        yield database


def stand(database: Database) -> None:
    """Install the guard."""
    with psycopg.connect(database.dsn("postgres")) as connection:
        guard.install(connection)


def statements(text: str) -> list[str]:
    """The statements of a text, as they are sent one by one."""
    return re.findall(r"(?s)\s*((?:'.*?'|\$\$.*?\$\$|[^;])+)", text)


CASES = (
    [(OWNER, name, text) for name, text in BY_OWNER.items()]
    + [("gdpr_owner", name, text) for name, text in BY_MACHINERY.items()]
    + [("gdpr_viewer", name, text) for name, text in BY_VIEWER.items()]
)


def session(database: Database, role: str) -> psycopg.Connection:
    """A transaction of the tables' owner, or of somebody who made himself an owner of gdprdb."""
    if role == OWNER:
        return database.connect(OWNER, autocommit=False)
    connection = database.connect("postgres", autocommit=False)
    connection.execute(f"set session authorization {role}".encode())
    return connection


@pytest.mark.parametrize(("role", "name", "text"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES])
def test_with_the_guard_it_is_refused(guarded: Database, role: str, name: str, text: str) -> None:
    connection = session(guarded, role)
    try:
        with refused("PR510", "guarded") as error:
            for statement in statements(text):
                connection.execute(statement.encode())
        assert error.value.diag.message_detail
    finally:
        connection.rollback()
        connection.close()
