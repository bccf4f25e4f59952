"""The owner of a protected table plants code where gdprdb's own functions will run it.

She may do anything to her table (that is what an owner is); she must not get the rights of
gdpr_keyholder, gdpr_owner or gdpr_worker, of the officer who erases, nor another owner's rows.
"""

from __future__ import annotations

import json

import pytest

from tests.attacks.world import MACHINERY, POLICY, World, attempt, leaked

CHANGE_LEADS = """
insert into gdpr_clear.lead (email, note, mood) values ('new@lead.example', 'n', 'good');
update gdpr_clear.lead set mood = 'bad', email = 'newer@lead.example' where email =
  'new@lead.example';
delete from gdpr_clear.lead where email = 'newer@lead.example';
"""


def touch_leads(world: World) -> None:
    """The application inserts, updates and deletes leads, the officer spreads a gate and erases."""
    app = world.login("crm_app")
    for statement in filter(str.strip, CHANGE_LEADS.split(";")):
        attempt(app, statement)
    dpo = world.login("dpo_login")
    subject = "gdpr.subject_of('mal.lead', '1')"
    attempt(dpo, f"select gdpr.record_consent({subject}, 'marketing', true, 'in_person')")
    attempt(dpo, f"select gdpr.restrict({subject}, 'other')")
    attempt(dpo, f"select gdpr.erase({subject}, 'asked')")


def test_cast_of_the_row_type_to_text(world: World) -> None:
    world.plant_thief()
    world.run(
        "mallory",
        """
        create function mal.row_text(r mal.lead) returns text language plpgsql as
          $f$ begin perform mal.thief(); return 'x'; end $f$;
        create cast (mal.lead as text) with function mal.row_text(mal.lead);
    """,
    )
    touch_leads(world)
    assert not {who for who, _, _ in world.loot()} & MACHINERY
    assert not world.keys_taken()


@pytest.mark.parametrize("target", ["json", "jsonb", "text"])
def test_cast_of_a_column_type(world: World, target: str) -> None:
    world.plant_thief()
    world.run(
        "mallory",
        f"""
        create function mal.mood_cast(m mal.mood) returns {target} language plpgsql as
          $f$ begin perform mal.thief(); return '1'; end $f$;
        create cast (mal.mood as {target}) with function mal.mood_cast(mal.mood) as implicit;
    """,
    )
    touch_leads(world)
    assert not {who for who, _, _ in world.loot()} & MACHINERY
    assert not world.keys_taken()


@pytest.mark.parametrize(
    ("column", "type_"),
    [
        ("gdpr_until", "timestamptz"),
        ("gdpr_purposes", "bigint"),
        ("gdpr_subject_ref", "uuid"),
        ("gdpr_email_digest", "uuid"),
        ("email", "text"),
        ("note", "text"),
    ],
)
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_domain_under_a_column_that_gdprdb_fills(
    world: World, column: str, type_: str, isolation: str
) -> None:
    """In a session that begins afterwards, and in one whose plans were made before."""
    app = world.login("crm_app")
    app.execute(f"set default_transaction_isolation = '{isolation}'".encode())
    writes = (
        "insert into mal.lead (email, note) values ('new@lead.example', 'n')",
        "update mal.lead set mood = 'bad'",
        "update mal.lead set note = 'other'",
    )
    for statement in writes:
        assert attempt(app, statement) is None
    world.plant_thief()
    world.run(
        "mallory",
        f"""
        create domain mal.trap as {type_} check (mal.thief());
        create table mal.twin (like mal.lead including all);
    """,
    )
    mallory = world.login("mallory")
    for statement in (
        "alter table mal.lead disable row level security",
        "drop policy gdpr_40_gate on mal.lead",
        "drop trigger zzz_gdpr_05_guard on mal.lead",
        "drop trigger zzz_gdpr_40_change on mal.lead",
        f"alter table mal.lead drop column {column} cascade",
        f"alter table mal.lead add column {column} mal.trap",
    ):
        attempt(mallory, statement)
    for session in (app, world.login("crm_app")):
        for statement in writes:
            attempt(session, statement)
    assert not {who for who, _, _ in world.loot()} & {"gdpr_keyholder", "gdpr_owner"}
    assert not world.keys_taken()


@pytest.mark.parametrize("target", ["json", "text", "bigint"])
@pytest.mark.parametrize(
    "column",
    ["id", "last_name", "email", "note", "gdpr_subject_id", "gdpr_until", "gdpr_email_digest"],
)
def test_cast_of_a_type_that_came_after_apply(world: World, column: str, target: str) -> None:
    """The functions were made for the types of that day; the owner changes them the day after."""
    world.plant_thief()
    world.run(
        "mallory",
        f"""
        create type mal.late as enum ('a', 'b');
        create function mal.late_cast(m mal.late) returns {target} language plpgsql as
          $f$ begin perform mal.thief(); return '1'; end $f$;
        create cast (mal.late as {target}) with function mal.late_cast(mal.late) as implicit;
    """,
    )
    mallory = world.login("mallory")
    for statement in (
        "alter table mal.lead disable row level security",
        "drop trigger zzz_gdpr_05_guard on mal.lead",
        f"alter table mal.lead drop column {column} cascade",
        f"alter table mal.lead add column {column} mal.late default 'a'",
        "alter table mal.lead add primary key (id)" if column == "id" else "select 1",
    ):
        attempt(mallory, statement)
    app = world.login("crm_app")
    attempt(app, "insert into mal.lead (email, note) values ('new@lead.example', 'n')")
    attempt(app, f"update mal.lead set {column} = 'b'")
    attempt(app, f"insert into mal.lead (last_name, {column}) values ('n', 'b')")
    attempt(app, "update mal.lead set note = 'changed'")
    attempt(app, "delete from mal.lead")
    assert not {who for who, _, _ in world.loot()} & MACHINERY


@pytest.mark.parametrize("type_", ["text", "mal.ear"])
def test_trigger_functions_on_a_forged_table(world: World, type_: str) -> None:
    """An administrator who may create triggers puts gdprdb's functions on a table of her own."""
    world.run("postgres", "grant gdpr_admin to mallory")
    try:
        table = world.run(
            "postgres",
            """
            select id from gdpr_internal.protected_table where relation = 'crm.customer'::regclass
        """,
        )[0][0]
        victim, email, birth_date = world.run(
            "postgres",
            """
            select gdpr_subject_id, email, birth_date from crm.customer where id = 2
        """,
        )[0]
        own = world.run("postgres", "select gdpr_subject_id from mal.lead where id = 2")[0][0]
        columns = world.run(
            "postgres",
            """
            select string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', '
              order by attnum)
            from pg_attribute where attrelid = 'crm.customer'::regclass and attnum > 0 and not
              attisdropped
        """,
        )[0][0]
        world.plant_thief()
        mallory = world.login("mallory")
        mallory.execute(
            f"""
            create function mal.listen(v text) returns boolean language plpgsql as $f$
            begin insert into mal.loot (what) values (v); perform mal.thief(); return true; end $f$;
            create domain mal.ear as text check (mal.listen(value));
            create table mal.forged ({columns});
            alter table mal.forged alter column email type {type_};
        """.encode()
        )
        mallory.execute(
            (
                "insert into mal.forged (id, email, birth_date, gdpr_subject_id) values (1, %s,"
                " %s, %s)"
            ),
            [email, birth_date, victim],
        )
        mallory.execute("create table mal.stolen (id bigint, email text, birth_date text)")
        mallory.execute("insert into mal.stolen values (1, %s, %s)", [email, birth_date])
        mallory.execute("delete from mal.loot")
        row = "for each row"
        for name, when, level in (
            ("protect", "before insert", row),
            ("change", "before update", row),
            ("audit", "after delete", row),
            (
                "audit_arrivals",
                "after insert",
                "referencing new table as arrivals for each statement",
            ),
        ):
            attempt(
                mallory,
                f"""
                create trigger {name} {when} on mal.forged {level}
                execute function gdpr_generated.{name}_{table}()
            """,
            )
        ran = [
            statement
            for statement in (
                f"update mal.forged set gdpr_subject_id = {own}",
                "update mal.forged set phone = '1'",
                (
                    f"insert into mal.forged (id, email, birth_date, gdpr_subject_id) select 2,"
                    f" email, birth_date, {victim} from mal.stolen"
                ),
                "insert into mal.forged (id, email) values (3, 'x@x.example')",
                "delete from mal.forged where id = 1",
            )
            if attempt(mallory, statement) is None
        ]
    finally:
        world.run("postgres", "revoke gdpr_admin from mallory")
    assert not {who for who, _, _ in world.loot()} & MACHINERY
    assert ran == []
    assert set(
        world.run("postgres", "select gdpr_email_mask, gdpr_birth_date_mask from mal.forged")
    ) <= {(None, None)}


#: Run as gdpr_worker: what it owns becomes code of the caller's, or the planter's.
FLIPS = {
    "replace": "create or replace function gdpr_generated.spread_gate(p_subjects bigint[]) "
    "returns void language plpgsql security invoker as 'begin perform mal.thief(); end'",
    "alter": "alter function gdpr_generated.subjects_of_2(text[]) security invoker",
    "add": "create function gdpr_generated.spread_gate(p_subjects anyarray) "
    "returns void language plpgsql security invoker as 'begin perform mal.thief(); end'",
    "grant": "grant all on all functions in schema gdpr_generated to public",
    "grant one": "grant execute on function gdpr_generated.t1_delete(bigint[]) to gdpr_admin",
    "drop": "drop function gdpr_generated.t1_delete(bigint[])",
    "settings": "alter function gdpr_generated.t1_delete(bigint[]) set row_security = off",
}


@pytest.mark.parametrize(
    ("flip", "counted"), [*((flip, "on") for flip in FLIPS), ("alter", "off"), ("drop", "off")]
)
def test_trigger_turns_the_worker_functions_against_their_callers(
    world: World, flip: str, counted: str
) -> None:
    """What runs as gdpr_worker may own functions that gdpr_owner calls: it must not change them,
    whether the server counts changes (track_counts) or not."""
    world.run(
        "postgres",
        "do $$ begin execute format('alter database %I set track_counts = "
        f"{counted}', current_database()); end $$",
    )
    world.plant_thief()
    world.run(
        "mallory",
        f"""
        create function mal.flip() returns trigger language plpgsql as $f$
        begin
          if current_user = 'gdpr_worker' then
            begin
              {FLIPS[flip]};
              insert into mal.loot (what) values ('flipped');
            exception when others then
              insert into mal.loot (what) values (sqlerrm);
            end;
          end if;
          return null;
        end $f$;
        create trigger planted after insert or update or delete on mal.lead
          for each row execute function mal.flip();
    """,
    )
    dpo = world.login("dpo_login")
    attempt(dpo, "select gdpr.restrict(gdpr.subject_of('mal.lead', '1'), 'other')")
    attempt(
        world.login("mallory"),
        "create policy planted on mal.lead as restrictive using (mal.thief())",
    )
    attempt(dpo, "select gdpr.restrict(gdpr.subject_of('mal.lead', '2'), 'other')")
    attempt(dpo, "select gdpr.erase(gdpr.subject_of('crm.customer', '3'), 'asked')")
    assert not {who for who, _, _ in world.loot()} & {"gdpr_owner", "gdpr_keyholder"}
    assert "flipped" not in {what for _, _, what in world.loot()}


PEEK = """
create function mal.peek() returns trigger language plpgsql as $f$
begin
  begin
    insert into mal.loot (what) select c.email from crm.customer as c;
    perform mal.thief();
    update crm.customer set last_name = 'forged';
  exception when others then
    null;
  end;
  return null;
end $f$;
create trigger planted after insert or update or delete on mal.lead for each row execute function
  mal.peek();
"""


def test_trigger_reaches_another_owners_rows_as_the_worker(world: World) -> None:
    """Owners of protected tables trust each other for rows (the doctor says so), not for keys."""
    world.plant_thief()
    world.run("mallory", PEEK)
    dpo = world.login("dpo_login")
    attempt(dpo, "select gdpr.restrict(gdpr.subject_of('mal.lead', '2'), 'other')")
    attempt(dpo, "select gdpr.erase(gdpr.subject_of('mal.lead', '2'), 'asked')")
    assert not leaked(str(world.loot()))
    assert not world.keys_taken()
    assert "several_owners" in str(world.run("db_owner", "select d::text from gdpr.doctor() as d"))


def test_trigger_writes_another_owners_rows_on_record(world: World) -> None:
    world.run(
        "mallory", "create function mal.thief() returns boolean language sql as 'select true'"
    )
    world.run("mallory", PEEK)
    attempt(
        world.login("dpo_login"), "select gdpr.restrict(gdpr.subject_of('mal.lead', '2'), 'other')"
    )
    forged = world.run("postgres", "select count(*) from crm.customer where last_name = 'forged'")[
        0
    ][0]
    recorded = world.run(
        "postgres",
        """
        select count(*) from gdpr_internal.audit_record where operation = 'UPDATE' and 'last_name'
          = any (changed)
    """,
    )[0][0]
    assert recorded == forged


LATE = """
create function mal.late() returns trigger language plpgsql as $f$
begin
  insert into mal.loot (what) values ('late');
  begin
    insert into mal.loot (what) select c.email from gdpr_clear.customer as c;
  exception when others then
    null;
  end;
  return null;
end $f$;
"""

#: Ways to have something deferred queued by gdprdb's own writes.
DEFERRED = {
    "on the table": """
        create constraint trigger planted after insert or update or delete on mal.lead
          deferrable initially deferred for each row execute function mal.late();
    """,
    "on a child that is deleted along": """
        create table mal.child (id bigint references mal.lead on delete cascade);
        insert into mal.child values (2);
        create constraint trigger planted after insert or update or delete on mal.child
          deferrable initially deferred for each row execute function mal.late();
    """,
    "by way of a trigger": """
        create table mal.other (id bigint);
        grant all on mal.other to public;
        create constraint trigger planted after insert on mal.other
          deferrable initially deferred for each row execute function mal.late();
        create function mal.relay() returns trigger language plpgsql security definer as
          $f$ begin insert into mal.other values (1); return null; end $f$;
        create trigger planted after insert or update or delete on mal.lead for each row execute
          function mal.relay();
    """,
    "by way of a policy": """
        create table mal.other (id bigint);
        grant all on mal.other to public;
        create constraint trigger planted after insert on mal.other
          deferrable initially deferred for each row execute function mal.late();
        create function mal.relay() returns boolean language plpgsql as
          $f$ begin insert into mal.other values (1); return false; end $f$;
        create policy planted on mal.lead as restrictive using (mal.relay());
    """,
    "deferred by the trigger itself": """
        create table mal.other (id bigint);
        grant all on mal.other to public;
        create constraint trigger planted after insert on mal.other
          deferrable initially immediate for each row execute function mal.late();
        create function mal.relay() returns trigger language plpgsql as
          $f$ begin set constraints mal.planted deferred; insert into mal.other values (1); return
            null; end $f$;
        create trigger planted after insert or update or delete on mal.lead for each row execute
          function mal.relay();
    """,
}


@pytest.mark.parametrize("way", DEFERRED)
def test_deferred_trigger_waits_for_the_officer(world: World, way: str) -> None:
    """A deferred trigger fires at commit, the definer function long left: as the officer."""
    world.run("mallory", LATE + DEFERRED[way])
    dpo = world.login("dpo_login")
    attempt(dpo, "select gdpr.subject_of('mal.lead', '2')")
    attempt(dpo, "select gdpr.restrict(gdpr.find_subject('email', 'other@lead.example'), 'other')")
    attempt(
        dpo,
        "select gdpr.lift_restriction(gdpr.find_subject('email', 'other@lead.example'), 'other')",
    )
    attempt(dpo, "select gdpr.erase(gdpr.find_subject('email', 'other@lead.example'), 'asked')")
    assert [what for who, _, what in world.loot() if who == "dpo_login"] == []


@pytest.mark.parametrize("relation", ["crm.customer", "gdpr_clear.customer", "gdpr_clear.invoice"])
def test_policy_reads_another_table_with_the_rights_of_the_views_owner(
    world: World, relation: str
) -> None:
    """Sub-queries of a row policy are checked as the owner of the view through which it is met.

    So plain columns of other protected tables can be reached (the doctor sees the policy); what is
    encrypted cannot.
    """
    world.run("postgres", "grant gdpr_app to mallory")
    try:
        world.run(
            "mallory",
            f"""
            create function mal.listen(v text) returns boolean language plpgsql as
              $f$ begin insert into mal.loot (what) values (v); return true; end $f$;
            create policy planted on mal.lead as restrictive
              using (mal.listen((select string_agg(c::text, ' ') from {relation} as c)));
        """,
        )
    finally:
        world.run("postgres", "revoke gdpr_app from mallory")
    attempt(world.login("metabase"), "select * from gdpr_bi.lead")
    assert not leaked(str(world.loot()))
    found = str(
        world.run("db_owner", "select d::text from gdpr.doctor() as d where d.severity <> 'info'")
    )
    assert "several_owners" in found
    assert "drift" in found


@pytest.mark.parametrize(
    "view", ["audit_log", "source", "consent", "basis", "subject", "blocklist"]
)
def test_policy_reads_the_registers_with_the_rights_of_the_views_owner(
    world: World, view: str
) -> None:
    world.run(
        "mallory",
        "create function mal.listen(v text) returns boolean language plpgsql as "
        "$f$ begin insert into mal.loot (what) values (v); return true; end $f$",
    )
    # whoever may name the schema gdpr can plant this
    world.run("postgres", "grant gdpr_app to mallory")
    try:
        mallory = world.login("mallory")
        attempt(
            mallory,
            f"""
            create policy planted on mal.lead as restrictive
            using (mal.listen((select string_agg(v::text, ' ') from gdpr.{view} as v)))
        """,
        )
    finally:
        world.run("postgres", "revoke gdpr_app from mallory")
    attempt(world.login("metabase"), "select * from gdpr_bi.lead")
    attempt(world.login("crm_app"), "select * from gdpr_clear.lead")
    assert [what for _, _, what in world.loot() if what] == []


#: Names that a generator might mistake for its own syntax.
NAMES = (
    "$body$;select mal.thief();select $body$",
    "$code$;select mal.thief();select $code$",
    "x$body$",
    "%I%s%1$L",
    "it's",
    'say "no"',
    "a\nb",
    "\\",
    "new",
    "v_claim",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["column", "table"])
def test_names_that_are_code(world: World, name: str, what: str) -> None:
    world.plant_thief()
    world.run("postgres", "grant gdpr_admin to mallory")
    try:
        mallory = world.login("mallory")
        quoted = '"' + name.replace('"', '""') + '"'
        table, column = (quoted, "v") if what == "table" else ("odd", quoted)
        policy = {
            **{part: value for part, value in json.loads(POLICY).items() if part != "tables"},
            "tables": {
                f"mal.{table}": {
                    "subject": "self",
                    "purposes": ["orders"],
                    "columns": {
                        name if what == "column" else "v": {
                            "category": "contact",
                            "identifier": "text",
                            "encrypt": "searchable",
                            "mask": "initial",
                        }
                    },
                }
            },
        }
        mallory.execute("set check_function_bodies = off")
        mallory.execute(f"create table mal.{table} (id int primary key, {column} text)".encode())
        mallory.execute("delete from mal.loot")
        attempt(mallory, "select * from gdpr.apply(%s::jsonb)", [json.dumps(policy)])
        attempt(mallory, f"insert into mal.{table} values (1, 'x')")
        attempt(mallory, f"update mal.{table} set {column} = 'y'")
        attempt(mallory, f"delete from mal.{table}")
    finally:
        world.run("postgres", "revoke gdpr_admin from mallory")
    assert world.loot() == []


@pytest.mark.parametrize(
    ("user", "statement"),
    [
        ("crm_app", "insert into gdpr_clear.invoice (customer_id, note) values (1, 'n')"),
        ("crm_app", "update gdpr_clear.invoice set customer_id = 3 where customer_id = 1"),
        ("dpo_login", "select gdpr.subject_of('crm.customer', '1')"),
        ("dpo_login", "select gdpr.restrict(1, 'other')"),
        ("auditor_login", "select d from gdpr.doctor() as d"),
    ],
)
def test_policy_turns_the_worker_functions_where_rows_are_read(
    world: World, user: str, statement: str
) -> None:
    """A parent, a row of an officer's, the doctor's counts: rows are read as gdpr_worker."""
    world.run(
        "db_owner",
        """
        create function crm.flip() returns boolean language plpgsql as $f$
        begin
          if current_user = 'gdpr_worker' then
            alter function gdpr_generated.subjects_of_1(text[]) security invoker;
          end if;
          return true;
        end $f$;
        grant execute on function crm.flip() to public;
        create policy planted on crm.customer as restrictive using (crm.flip());
    """,
    )
    attempt(world.login(user), statement)
    flipped = world.run(
        "postgres",
        """
        select p.oid::regprocedure::text from pg_proc as p
        where p.proname = 'subjects_of_1' and not p.prosecdef
    """,
    )
    assert flipped == []
