"""Operators, functions and temporary objects of Mallory's, found where a built-in one was meant."""

from __future__ import annotations

import pytest

from tests.attacks.world import World, attempt

#: Exact matches for types that pg_catalog only serves by way of another type.
OPERATORS = """
create function public.listen(a {type}, b {type}) returns boolean language plpgsql as $f$
begin
  insert into mal.loot (what) values (coalesce(a::text, '') || coalesce(b::text, ''));
  return a::text = b::text;
end $f$;
create operator public.= (function = public.listen, leftarg = {type}, rightarg = {type});
create operator public.<> (function = public.listen, leftarg = {type}, rightarg = {type});
"""


@pytest.mark.parametrize("type_", ["varchar", "varchar[]", "bpchar", "cidr", "text", "numeric"])
def test_operator_of_the_same_name_in_public(world: World, type_: str) -> None:
    """An outsider who may CREATE in public listens to what the application writes."""
    world.run("outsider", OPERATORS.format(type=type_))
    app = world.login("crm_app")
    app.execute("update gdpr_clear.customer set email = 'anna2@annasecret.example' where id = 1")
    app.execute("update gdpr_clear.customer set last_name = 'Annanew', city = 'x' where id = 1")
    app.execute("insert into gdpr_clear.customer (email, last_name) values ('five@x.example', 'f')")
    app.execute(
        "update crm.customer set email = 'five2@x.example', last_name = 'g' where"
        " last_name = 'f'::text"
    )
    app.execute("delete from gdpr_clear.customer where id = 4")
    assert world.loot() == []


TEMPORARY = """
create temp table subject (id bigint, ref uuid, purposes bigint, until timestamptz, erased_at
  timestamptz);
create temp table pg_class (oid oid, relname name);
create temp table pg_roles (rolname name, rolsuper boolean);
create temp table key_encryption_key (id int, material bytea);
create domain pg_temp.text as pg_catalog.text check (value <> 'x');
create domain pg_temp.bytea as pg_catalog.bytea;
create domain pg_temp.bigint as pg_catalog.int8;
create function pg_temp.hmac(bytea, bytea, text) returns bytea language plpgsql as
  'begin raise exception ''stolen %'', $2; end';
create function pg_temp.decrypt_iv(bytea, bytea, bytea, text) returns bytea language plpgsql as
  'begin raise exception ''stolen %'', $2; end';
create function pg_temp.keyring() returns text language sql as 'select 1::text';
create function pg_temp.refuse(text, text) returns boolean language sql as 'select true';
create function pg_temp.pg_has_role(name, oid, text) returns boolean language sql as 'select true';
set search_path = pg_temp, public, gdpr, gdpr_clear, pg_catalog;
"""


def test_temporary_objects_in_the_way(world: World) -> None:
    app = world.login("crm_app")
    for statement in filter(None, (line.strip() for line in TEMPORARY.split(";\n"))):
        attempt(app, statement)
    assert "anna@annasecret.example" in str(app.execute("table gdpr_clear.customer").fetchall())
    assert "hugo" not in str(app.execute("table gdpr_clear.customer").fetchall())
    app.execute("insert into gdpr_clear.customer (email, last_name) values ('t@t.example', 't')")
    app.execute("update gdpr_clear.customer set email = 't2@t.example' where last_name = 't'")
    error = attempt(app, "insert into gdpr_clear.invoice (customer_id, note) values (2, 'y')")
    assert error is not None
    assert error.sqlstate == "PR601"
    assert app.execute("select gdpr.reveal(email) from crm.customer where id = 1").fetchall() == [
        ("anna@annasecret.example",)
    ]


def test_objects_beside_the_machinery(world: World) -> None:
    """Nobody who logs in can create anything in gdprdb's schemas."""
    for user in (
        "crm_app",
        "metabase",
        "mallory",
        "outsider",
        "admin_login",
        "db_owner",
        "dpo_login",
        "auditor_login",
    ):
        connection = world.login(user)
        for schema in (
            "gdpr",
            "gdpr_internal",
            "gdpr_policy",
            "gdpr_generated",
            "gdpr_clear",
            "gdpr_bi",
            "gdpr_export",
        ):
            for statement in (
                (
                    f"create function {schema}.hmac(text, bytea, text)"
                    f" returns bytea language sql as"
                    f" 'select $2'"
                ),
                f"create table {schema}.t (a int)",
                f"alter schema {schema} owner to {user}",
                f"alter function gdpr.digest(text, text) set schema {schema}",
                f"drop schema {schema} cascade",
            ):
                error = attempt(connection, statement)
                assert error is not None, f"{user}: {statement}"


def test_views_of_the_machinery_are_not_altered(world: World) -> None:
    for user in ("crm_app", "mallory", "db_owner", "admin_login"):
        connection = world.login(user)
        for statement in (
            "alter view gdpr_bi.customer reset (security_barrier)",
            "create or replace view gdpr_bi.customer as select 1",
            "drop view gdpr_clear.customer",
            "alter view gdpr_clear.customer owner to mallory",
            "create rule r as on select to gdpr_bi.customer do instead select 1",
            (
                "create trigger t instead of insert on gdpr_clear.customer for each row execute"
                " function suppress_redundant_updates_trigger()"
            ),
            "comment on view gdpr_clear.customer is 'x'",
        ):
            error = attempt(connection, statement)
            assert error is not None, f"{user}: {statement}"
