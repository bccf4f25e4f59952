"""What an owner can do to her own table cannot be prevented: the doctor has to see it."""

from __future__ import annotations

import pytest

from tests.attacks.world import World

TAMPERING = {
    "permissive policy": "create policy p on mal.lead using (true)",
    "restrictive policy": "create policy p on mal.lead as restrictive using (true)",
    "trigger before encryption": "create function mal.f() returns trigger language plpgsql"
    " as 'begin return new;"
    " end'; "
    "create trigger _a before insert on mal.lead for each row execute function mal.f()",
    "trigger after the guard": "create function mal.f() returns trigger language plpgsql as "
    "'begin new.gdpr_purposes := -1; return new; end'; create trigger m before update"
    " on mal.lead for each row execute function mal.f()",
    "deferred trigger": "create function mal.f() returns trigger language plpgsql"
    " as 'begin return null;"
    " end'; "
    "create constraint trigger c after update on mal.lead deferrable initially"
    " deferred for each row execute function mal.f()",
    "rule": (
        "create rule r as on update to mal.lead do also insert into mal.loot (what)"
        " values (old.note)"
    ),
    "inheritance": "create table mal.child () inherits (mal.lead)",
    "row security off": "alter table mal.lead disable row level security",
    "row security not forced": "alter table mal.lead no force row level security",
    "triggers disabled": "alter table mal.lead disable trigger user",
    "audit as replica": "alter table mal.lead enable replica trigger zzz_gdpr_50_audit",
    "arrivals disabled": "alter table mal.lead disable trigger zzz_gdpr_50_audit_arrivals",
    "arrivals as replica": "alter table mal.lead enable replica trigger zzz_gdpr_50_audit_arrivals",
    "arrivals gone": "drop trigger zzz_gdpr_50_audit_arrivals on mal.lead",
    "replicated rows": "alter table mal.lead disable trigger zzz_gdpr_50_audit_replicated",
    # PostgreSQL fires no trigger of a statement for rows that come by way of the whole
    "part of another table": (
        "create table mal.whole (like mal.lead) partition by list (id);"
        " alter table mal.whole attach partition mal.lead default"
    ),
    "policy dropped": "drop policy gdpr_40_gate on mal.lead",
    "policy changed": "alter policy gdpr_40_gate on mal.lead using (true)",
    "policy for others only": "alter policy gdpr_40_gate on mal.lead to mallory",
    "column retyped": (
        "alter table mal.lead drop column last_name cascade, add column last_name int"
    ),
    "generated column": (
        "alter table mal.lead add column copy text generated always as (last_name) stored"
    ),
    "table renamed": "alter table mal.lead rename to other",
    "expression index": "create index on mal.lead (lower(last_name))",
    "cast of the row type": "create function mal.f(mal.lead) returns text language"
    " sql as $$select ''$$; "
    "create cast (mal.lead as text) with function mal.f(mal.lead)",
    "gate opened by hand": "select mal.quietly('update mal.lead set gdpr_purposes = -1')",
    "gate never closing": (
        "select mal.quietly('update mal.lead set gdpr_until = ''-infinity'', gdpr_purposes = 0')"
    ),
    "row of another person": (
        "select mal.quietly('update mal.lead set gdpr_subject_id = 2 where id = 1')"
    ),
    "plaintext put back": "select mal.quietly('update mal.lead set note = ''plain''')",
    "row without a person": (
        "select mal.quietly('insert into mal.lead (email, note) values (''p@p.example'',"
        " ''plain'')')"
    ),
    "view for everybody": (
        "create view mal.v as select * from mal.lead; grant select on mal.v to public"
    ),
    "materialized view": "create materialized view mal.v as select * from"
    " mal.loot; drop materialized view"
    " mal.v; "
    "alter table mal.lead disable row level security; create materialized view mal.v"
    " as select * from mal.lead; "
    "alter table mal.lead enable row level security",
}

#: Runs a statement with every control taken off and put back as it was.
QUIETLY = """
create function mal.quietly(p_statement text) returns void language plpgsql as $f$
declare
  v_back text;
begin
  select string_agg(format('alter table mal.lead enable %s trigger %I;',
    case tgenabled when 'A' then 'always' when 'R' then 'replica' else '' end, tgname), ' ')
  into v_back
  from pg_trigger where tgrelid = 'mal.lead'::regclass and not tgisinternal;
  alter table mal.lead no force row level security;
  alter table mal.lead disable trigger user;
  execute p_statement;
  execute v_back;
  alter table mal.lead force row level security;
end $f$
"""

#: Allowed, or of no use to the owner.
HARMLESS = {"expression index", "table renamed", "view for everybody"}


@pytest.mark.parametrize("deed", TAMPERING)
def test_doctor_notices(world: World, deed: str) -> None:
    before = world.run(
        "db_owner",
        "select d::text from gdpr.doctor() as d where d.severity in ('error', 'warning')",
    )
    world.run("mallory", QUIETLY)
    # the officer's and the application's schemas stay as they are: this is all the owner's own
    world.run("mallory", TAMPERING[deed])
    after = world.run(
        "db_owner",
        "select d::text from gdpr.doctor() as d where d.severity in ('error', 'warning')",
    )
    assert deed in HARMLESS or set(after) - set(before), "nobody would know"
