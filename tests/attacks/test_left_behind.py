"""Mallory plants code that changes the session it runs in, or leaves something there for later.

What she plants in her table runs as gdpr_worker while an officer restricts, asks or erases. It must
neither reach the functions that called it nor stay until the officer's own rights are back.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.attacks.world import World, attempt, told

#: Operators and functions that take the place of PostgreSQL's where the path leads to her schema.
SHADOWS = """
create function mal.plus(bigint, bigint) returns bigint language plpgsql as
  $f$ begin perform mal.thief(); return pg_catalog.int8pl($1, $2); end $f$;
create operator mal.+ (function = mal.plus, leftarg = bigint, rightarg = bigint);
create function mal.cat(text[], text[]) returns text[] language plpgsql as
  $f$ begin perform mal.thief(); return pg_catalog.array_cat($1, $2); end $f$;
create operator mal.|| (function = mal.cat, leftarg = text[], rightarg = text[]);
create function mal.cats(bigint[], bigint[]) returns bigint[] language plpgsql as
  $f$ begin perform mal.thief(); return pg_catalog.array_cat($1, $2); end $f$;
create operator mal.|| (function = mal.cats, leftarg = bigint[], rightarg = bigint[]);
create function mal.starts_with(text, text) returns boolean language plpgsql as
  $f$ begin perform mal.thief(); return true; end $f$;
create function mal.cardinality(bigint[]) returns integer language plpgsql as
  $f$ begin perform mal.thief(); return 1; end $f$;
"""

#: Where code can be planted; %s is what it does.
PLACES = {
    "a trigger": """
        create function mal.plant() returns trigger language plpgsql as $p$ begin %s; return
          coalesce(new, old); end $p$;
        create trigger aaa before update or delete on mal.lead for each row execute function
          mal.plant();
    """,
    "a policy": """
        create function mal.plant() returns boolean language plpgsql as $p$ begin %s; return true;
          end $p$;
        create policy planted on mal.lead as restrictive using (mal.plant());
    """,
}

#: What makes gdprdb touch the rows of Anna, who stands in Mallory's table too.
OFFICER = (
    "select gdpr.restrict(%s, 'other')",
    "select gdpr.lift_restriction(%s, 'x')",
    "select gdpr.request_consent(%s, '{marketing}', 'email', null, '1 day')",
    "select gdpr.withdraw_consent(%s, 'marketing')",
    "select gdpr.subjects_of('mal.lead', '{1,2}'), %s::bigint",
    "select gdpr.record_basis(%s, 'analytics', 'public_task')",
    "select gdpr.erase(%s, 'asked')",
)


def anna(world: World) -> int:
    """The number of Anna."""
    ((number,),) = world.run(
        "dpo_login", "select gdpr.find_subject('email', 'anna@annasecret.example')"
    )
    assert isinstance(number, int)
    return number


def work(world: World, officer: psycopg.Connection) -> list[str]:
    """An officer's day; what was refused."""
    number = anna(world)
    return [told(attempt(officer, statement, [number])) for statement in OFFICER]


@pytest.mark.parametrize("place", PLACES)
def test_a_search_path_set_by_planted_code_reaches_no_function_of_gdprdb(
    world: World, place: str
) -> None:
    """A plain SET outlives the SET clause of every function on the way up."""
    world.plant_thief()
    world.run("mallory", SHADOWS + PLACES[place] % "set search_path = mal, pg_catalog")
    officer = world.login("dpo_login")
    refusals = work(world, officer)
    assert any("gdpr_session_changed" in refusal for refusal in refusals)
    assert {who for who, _, _ in world.loot()} <= {"gdpr_worker"}
    assert not world.keys_taken()
    assert officer.execute("show search_path").fetchall() == [('"$user", public',)]


#: Ways to have code run when gdpr_worker's functions are left.
LATER = {
    "a cursor": (
        "",
        (
            "begin execute 'declare later cursor with hold for select mal.thief()'; exception"
            " when duplicate_cursor then null; end"
        ),
    ),
    "a trigger that puts itself off": (
        """
        create table mal.other (id bigint);
        grant all on mal.other to public;
        create function mal.late() returns trigger language plpgsql as $f$ begin
          perform mal.thief();
          if current_user = 'gdpr_worker' then set constraints all deferred; insert into mal.other
            values (2); end if;
          return null; end $f$;
        create constraint trigger planted after insert on mal.other deferrable initially deferred
          for each row execute function mal.late();
        """,
        "insert into mal.other values (1)",
    ),
    "a constraint that calls her function": (
        """
        create table mal.other (id bigint);
        grant all on mal.other to public;
        create function mal.same(bigint) returns bigint language plpgsql immutable as
          $f$ begin perform mal.thief(); return 1; end $f$;
        alter table mal.other add exclude using btree (mal.same(id) with =) deferrable initially
          deferred;
        """,
        (
            "set constraints all deferred; delete from mal.other; insert into mal.other"
            " values (1), (2); delete from mal.other where id = 1"
        ),
    ),
    "a trigger made on the way": (
        """
        create table mal.other (id bigint);
        grant all on mal.other to public;
        create function mal.late() returns trigger language plpgsql as $f$ begin
          perform mal.thief();
          if current_user = 'gdpr_worker' then set constraints all deferred; insert into mal.other
            values (2); end if;
          return null; end $f$;
        create function mal.arm() returns void language plpgsql security definer as $f$ begin
          create constraint trigger planted after insert on mal.other deferrable initially deferred
            for each row execute function mal.late();
        exception when duplicate_object or object_in_use then null; end $f$;
        """,
        "perform mal.arm(); insert into mal.other values (1)",
    ),
    "a view over a name of the officer's": (
        "",
        (
            "begin execute 'create temp view subject as select mal.thief()'; grant select on"
            " pg_temp.subject to public; exception when duplicate_table then null; end"
        ),
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", LATER)
def test_what_planted_code_leaves_does_not_run_as_the_officer(
    world: World, way: str, place: str
) -> None:
    prepared, plant = LATER[way]
    world.plant_thief()
    world.run("mallory", prepared + PLACES[place] % plant)
    world.run("postgres", "truncate mal.loot")
    officer = world.login("dpo_login")
    refusals = work(world, officer)
    assert any("gdpr_session_changed" in r or "gdpr_deferred_trigger" in r for r in refusals)
    attempt(officer, "select * from subject")
    assert {who for who, _, _ in world.loot()} <= {"gdpr_worker"}
    assert not world.keys_taken()


def test_deferred_triggers_of_the_officers_own_transaction_are_her_own(world: World) -> None:
    """What she wrote herself before may wait for her commit."""
    world.run(
        "mallory",
        """
        create table mal.other (id bigint);
        grant all on mal.other to public;
        create function mal.late() returns trigger language plpgsql as $f$ begin return null; end
          $f$;
        create constraint trigger harmless after insert on mal.other deferrable initially deferred
          for each row execute function mal.late();
        """,
    )
    number = anna(world)
    with world.login("dpo_login").transaction() as transaction:
        officer = transaction.connection
        officer.execute("insert into mal.other values (1)")
        officer.execute("select gdpr.restrict(%s, 'other')", [number])
    assert world.run(
        "dpo_login", "select restricted from gdpr.subject where subject_id = %s", [number]
    ) == [(True,)]
