"""Whatever else is open: grants, owners, sequences, large objects, locks, publications, dumps."""

from __future__ import annotations

import time

import pytest

from tests.attacks.world import ENCRYPTED, HIDDEN, MACHINERY, World, attempt, leaked, told

EVERYBODY = (
    "crm_app",
    "metabase",
    "portal_app",
    "auditor_login",
    "admin_login",
    "mallory",
    "outsider",
)

GRABS = (
    "grant gdpr_keyholder to {user}",
    "grant gdpr_owner to {user}",
    "grant gdpr_worker to {user}",
    "grant gdpr_dpo to {user}",
    "grant gdpr_app to {user}",
    "grant gdpr_admin to {user}",
    "grant select on gdpr_internal.subject_key to {user}",
    "grant usage on schema gdpr_internal to {user}",
    "grant execute on function gdpr.erase(bigint, text) to {user}",
    "alter role gdpr_owner login",
    "alter function gdpr.reveal(text) owner to {user}",
    "alter function gdpr.reveal(text) security definer",
    "alter table gdpr_internal.subject_key owner to {user}",
    "alter table crm.customer owner to {user}",
    "alter table crm.customer disable row level security",
    "alter table crm.customer disable trigger all",
    "alter policy gdpr_40_gate on crm.customer using (true)",
    "drop policy gdpr_40_gate on crm.customer",
    "create policy p on crm.customer using (true)",
    (
        "create trigger t before insert on crm.customer for each row execute function"
        " suppress_redundant_updates_trigger()"
    ),
    "create rule r as on insert to crm.customer do instead nothing",
    "truncate crm.customer",
    "alter system set gdpr.purpose = 'compliance'",
    "alter role {user} set session_replication_role = replica",
    "set session_replication_role = replica",
    "set local session_replication_role = replica",
    "alter database {database} set row_security = off",
    "create publication p for table crm.customer",
    "create subscription s connection 'x' publication p",
    "create event trigger e on ddl_command_end execute function x()",
    "create extension dblink",
    "create extension file_fdw",
    "create extension pg_stat_statements",
    "load 'auto_explain'",
    "copy crm.customer to '/tmp/x'",
    "copy (select 1) to program 'true'",
    "select pg_read_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "select pg_ls_dir('.')",
    "select * from pg_authid",
    "table pg_statistic",
    "select pg_logical_slot_get_changes('x', null, null)",
    "select pg_create_logical_replication_slot('x', 'test_decoding')",
    "vacuum full gdpr_internal.subject_key",
    "cluster gdpr_internal.subject_key",
    "reindex table gdpr_internal.subject_key",
    "lock table gdpr_internal.subject_key",
    "lock table crm.customer in access exclusive mode nowait",
    "comment on table gdpr_internal.subject_key is 'x'",
    "analyze gdpr_internal.subject_key",
    "select nextval('gdpr_internal.subject_id_seq')",
    "select setval('gdpr_internal.subject_id_seq', 1)",
    "create index on crm.customer (lower(last_name))",
    "create statistics s on last_name, city from crm.customer",
    "create table public.c (like crm.customer including all)",
    "create table public.c () inherits (crm.customer)",
    "create table public.c (id bigint references crm.customer)",
    "create materialized view public.m as table crm.customer",
    "alter default privileges for role gdpr_owner grant all on tables to public",
    "reassign owned by gdpr_owner to {user}",
    "drop owned by gdpr_owner",
    "drop owned by gdpr_keyholder",
    "do $$ begin set local role gdpr_worker; end $$",
    "drop extension pgcrypto cascade",
    "alter extension pgcrypto set schema public",
    "drop schema gdpr_internal cascade",
    "drop function gdpr.erase(bigint, text)",
    "security label on table crm.customer is 'x'",
)

#: What a role may by its own rights; no rule of gdprdb's is met by it.
OWN_RIGHTS = {
    ("crm_app", "lock table crm.customer in access exclusive mode nowait"),  # it may DELETE
    ("crm_app", "create materialized view public.m as table crm.customer"),
}


@pytest.mark.parametrize("user", EVERYBODY)
def test_grabs(world: World, user: str) -> None:
    connection = world.login(user)
    got = []
    said: list[str] = []
    connection.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    for grab in GRABS:
        statement = grab.format(user=user, database=world.db.name)
        said.clear()
        error = attempt(connection, statement)
        assert not leaked(told(error), [*ENCRYPTED, *HIDDEN])
        skipped = any("no privileges" in s or "skipping" in s or "not all" in s for s in said)
        if error is None and not skipped and (user, statement) not in OWN_RIGHTS:
            got.append(statement)
    assert got == []


def test_nobody_who_logs_in_acts_as_an_owner(world: World) -> None:
    members = world.run(
        "postgres",
        """
        select u.rolname, r.rolname from pg_roles as r join pg_roles as u
          on u.rolcanlogin and not u.rolsuper
          -- from version 16 on the creator of a role may hand it on, but not act as it
          and pg_has_role(u.oid, r.oid, case
            when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end)
        where r.rolname = any (%s)
    """,
        [[*MACHINERY, "gdpr_viewer"]],
    )
    assert members == []


def test_functions_that_anybody_may_call(world: World) -> None:
    """Nothing of gdprdb's is both executable by PUBLIC and in a schema that PUBLIC may use."""
    callable_ = world.run(
        "postgres",
        """
        select p.oid::regprocedure::text from pg_proc as p join pg_namespace as n on n.oid =
          p.pronamespace
        where n.nspname ~ '^gdpr' and has_function_privilege('outsider', p.oid, 'execute')
          and has_schema_privilege('outsider', n.oid, 'usage')
    """,
    )
    assert callable_ == []


@pytest.mark.parametrize(
    "user", ["crm_app", "metabase", "portal_app", "auditor_login", "outsider", "mallory"]
)
def test_every_callable_function_with_nothing_in_it(world: World, user: str) -> None:
    """Whatever a role may call, called with nulls and nonsense, tells no secret."""
    secret = world.run(
        "postgres", "select encode(material, 'hex') from gdpr_internal.key_encryption_key"
    )[0][0]
    connection = world.login(user)
    calls = world.run(
        "postgres",
        f"""
        select format('select %s(%s)', p.oid::regproc, (
          select coalesce(string_agg(format('null::%s', format_type(t, null)), ', '), '') from
            unnest(p.proargtypes) as t
        ))
        from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname ~ '^gdpr' and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
          and has_function_privilege('{user}', p.oid, 'execute') and has_schema_privilege('{user}',
            n.oid, 'usage')
          and not exists (select from unnest(p.proargtypes) as t where t = 'anyelement'::regtype)
    """,
    )
    said = ""
    for (call,) in calls:
        try:
            said += str(connection.execute(call.encode()).fetchall())
        except Exception as error:
            said += str(error)
    assert not leaked(said, [*ENCRYPTED, *HIDDEN, secret])


def test_locks_that_anybody_can_hold(world: World) -> None:
    """Somebody who holds every advisory lock she can guess stops nobody's reading or writing."""
    outsider = world.login("outsider")
    outsider.execute("select pg_advisory_lock(hashtextextended('gdpr.apply', 0))")
    app = world.login("crm_app")
    app.execute("set statement_timeout = '3s'")
    app.execute("insert into gdpr_clear.customer (email, last_name) values ('lock@x.example', 'l')")
    dpo = world.login("dpo_login")
    dpo.execute("set statement_timeout = '3s'")
    dpo.execute("select gdpr.erase(gdpr.find_subject('email', 'lock@x.example'), 'asked')")


def test_bases_come_back_by_another_table(world: World) -> None:
    """A row in another table does not open what the officer closed: restriction, objection."""
    dpo = world.login("dpo_login")
    vera = "gdpr.subject_of('crm.customer', '3')"
    dpo.execute(f"select gdpr.record_basis({vera}, 'orders', 'public_task')".encode())
    dpo.execute(f"select gdpr.object_to({vera}, 'orders')".encode())
    app = world.login("crm_app")
    error = attempt(
        app, "insert into gdpr_clear.lead (email, note) values ('vera@verasecret.example', 'n')"
    )
    assert error is not None
    assert error.sqlstate == "PR602"
    assert app.execute("select id from gdpr_clear.customer where id = 3").fetchall() == []


def test_planned_rows_tell_no_value(world: World) -> None:
    """EXPLAIN of the redacted view shows masks and the gate, no constant of the data."""
    world.run("db_owner", "analyze crm.customer")
    plans = world.run(
        "metabase",
        "explain (analyze, verbose, costs) select * from gdpr_bi.customer where last_name = 'A.'",
    )
    assert not leaked(str(plans), [*ENCRYPTED, *HIDDEN])
    assert world.run(
        "metabase",
        "select count(*) from pg_stats where schemaname in ('crm', 'gdpr_internal', 'mal')",
    ) == [(0,)]
    assert world.run(
        "crm_app", "select count(*) from pg_stats where schemaname in ('crm', 'gdpr_internal')"
    ) == [(0,)]


def test_large_values_and_deep_json(world: World) -> None:
    """Exhausting the machinery makes it fail, not talk."""
    app = world.login("crm_app")
    for statement in (
        (
            "insert into gdpr_clear.invoice (customer_id, note) select 1, repeat('annas-note'"
            " || '-secret', 100000)"
        ),
        "select gdpr.digest('email', repeat('a', 1000000))",
        "select gdpr.reveal('gdpr1:' || repeat('A', 1000000))",
        "select set_config('gdpr.source', repeat('[', 100000), false)",
        "insert into gdpr_clear.customer (email, last_name) values ('deep@x.example', 'd')",
    ):
        error = attempt(app, statement)
        assert not leaked(told(error), [*ENCRYPTED, *HIDDEN])


LONG = {
    "letters": ("email", "ä" * 20_000),
    "labels": ("email", "a@" + "xn--a-." * 4_000),
    "tags": ("email", "+" * 20_000 + "@x"),
    "digits": ("phone", "1 " * 20_000),
    "trunk zeros": ("phone", "+(0)" * 10_000),
    "sharp s": ("text", "ß" * 20_000),
    "one long label": ("email", "a@xn--" + "a" * 20_000),
    "a table": ("submit", "x." * 50_000),
}


@pytest.mark.parametrize("name", LONG)
def test_long_values_take_no_time(world: World, name: str) -> None:
    """What a visitor can type into a form cannot stop a backend."""
    kind, value = LONG[name]
    app = world.login("crm_app")
    app.execute("set statement_timeout = '1s'")
    started = time.monotonic()
    if kind == "submit":
        error = attempt(app, "select gdpr.submit(%s, '{}', '{}')", [value])
        assert error is not None
        assert error.sqlstate == "PR105"
    else:
        assert attempt(app, "select gdpr.digest(%s, %s)", [kind, value]) is None
    assert time.monotonic() - started < 1
