"""What can be got out of a table while its shape is changed, or left undone at the end."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from tests.attacks.world import World, attempt, leaked, told
from tests.capabilities.crm import findings, refused

RESHAPE = "select gdpr.reshape('crm.customer')"
CLEAR = "select email, phone, birth_date from gdpr_clear.customer"


def settled(world: World) -> bool:
    """Whether every table is as apply() or end_reshape() left it, and no control is missing."""
    left = world.run("postgres", "select count(*) from gdpr_internal.reshape")
    wrong = findings(world.db) & {
        (topic, thing)
        for topic in ("drift", "policies", "triggers", "row_security", "renamed")
        for thing in ("crm.customer", "crm.invoice", "mal.lead")
    }
    return left == [(0,)] and wrong == set()


def test_nobody_else_sees_the_table_while_its_controls_are_off(world: World) -> None:
    owner = world.db.connect(autocommit=False)
    owner.execute(RESHAPE)
    for login, statement in (
        ("crm_app", "select * from crm.customer"),
        ("metabase", "select * from gdpr_bi.customer"),
        ("crm_app", CLEAR),
        ("crm_app", "update crm.customer set city = 'x'"),
        ("postgres", "select * from crm.customer"),
    ):
        with world.login(login) as other:
            other.execute("set lock_timeout = '50ms'")
            error = attempt(other, statement)
            assert error is not None, statement
            assert error.sqlstate == "55P03", statement
    owner.rollback()
    assert settled(world)


def test_the_owner_cannot_commit_before_the_controls_are_back(world: World) -> None:
    owner = world.db.connect(autocommit=False)
    owner.execute(RESHAPE)
    owner.execute("alter table crm.customer add nickname text")
    with refused("PR415", "reshape_open"):
        owner.commit()
    assert world.run("db_owner", "select from pg_attribute where attname = 'nickname'") == []
    # alone, it is a transaction of its own
    with refused("PR415", "reshape_open"):
        world.run("db_owner", RESHAPE)
    with refused("PR415", "reshape_open"):
        owner.execute(RESHAPE)
        owner.execute("set constraints all immediate")
    owner.rollback()
    # deferring is not for the caller to take away
    owner.execute("set constraints all immediate")
    owner.execute(RESHAPE)
    with refused("PR415", "reshape_open"):
        owner.commit()
    assert settled(world)


@pytest.mark.parametrize(
    "statements",
    [
        ["savepoint a", RESHAPE, "release a"],
        [RESHAPE, "savepoint a", "select gdpr.end_reshape()", "rollback to a"],
        [RESHAPE, "select gdpr.end_reshape()", RESHAPE],
        [RESHAPE, "select gdpr_policy.follow_shape('crm.customer')"],
        [RESHAPE, "drop policy gdpr_40_reshape on crm.customer"],
        [RESHAPE, "alter table crm.customer disable row level security"],
        ["savepoint a", RESHAPE, "rollback to a", RESHAPE],
    ],
)
def test_no_savepoint_and_no_half_step_gets_past_the_commit(
    world: World, statements: list[str]
) -> None:
    owner = world.db.connect(autocommit=False)
    for statement in statements:
        owner.execute(statement.encode())
    with refused("PR415", "reshape_open"):
        owner.commit()
    assert settled(world)


def test_what_is_rolled_back_to_a_savepoint_was_never_begun(world: World) -> None:
    owner = world.db.connect(autocommit=False)
    owner.execute("savepoint a")
    owner.execute(RESHAPE)
    owner.execute("rollback to a")
    owner.commit()
    assert settled(world)
    assert len(world.run("crm_app", CLEAR)) == 2


def test_a_step_left_out_is_missed(world: World) -> None:
    """The steps of end_reshape() can be called one by one; the last of them looks."""
    owner = world.db.connect(autocommit=False)
    owner.execute(RESHAPE)
    with refused("PR416", "reshape_closed"):
        owner.execute("select gdpr_policy.close_reshape('crm.customer')")
    owner.rollback()
    owner.execute(RESHAPE)
    owner.execute("select gdpr_policy.follow_shape('crm.customer')")
    with refused("PR409", "drifted"):
        owner.execute("select gdpr_policy.close_reshape('crm.customer')")
    owner.rollback()
    # as settled as one says it is, but without its policies
    owner.execute(RESHAPE)
    owner.execute("select gdpr_policy.follow_shape('crm.customer')")
    owner.execute("select gdpr_policy.settle_table('crm.customer')")
    with refused("PR409", "drifted"):
        owner.execute("select gdpr_policy.close_reshape('crm.customer')")
    owner.rollback()
    assert settled(world)


@pytest.mark.parametrize(
    "statement",
    [
        "insert into crm.customer (email, last_name) values ('new@example.com', 'New')",
        "update crm.customer set city = 'x'",
        "delete from crm.invoice; delete from crm.customer",
        "select * from crm.customer",
        (
            "merge into crm.customer as c using (values (1)) as v on c.id = v.column1"
            " when matched then update set city = 'x'"
        ),
        "truncate crm.customer cascade",
        "create table public.copy as select * from crm.customer",
    ],
)
def test_rows_are_neither_read_nor_written_while_no_record_would_be_made(
    world: World, statement: str
) -> None:
    world.run("db_owner", "grant create on schema public to db_owner")
    for role in (None, "postgres"):
        owner = world.db.connect(autocommit=False)
        owner.execute(RESHAPE)
        with pytest.raises(psycopg.Error) as error:
            owner.execute(statement.encode())
        assert error.value.sqlstate in {"PR415", "PR407", "42501"}, role
        owner.close()


def test_only_the_owner_who_administers_the_policy_reshapes(world: World) -> None:
    for login in ("crm_app", "metabase", "portal_app", "dpo_login", "auditor_login", "outsider"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            world.run(login, RESHAPE)
    # who administers, and does not own
    with refused("42501", "not_table_owner"):
        world.run("admin_login", RESHAPE)
    with refused("42501", "not_table_owner"):
        world.run("admin_login", "select gdpr_policy.open_reshape('crm.customer')")
    # who owns, and does not administer
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        world.run("mallory", "select gdpr.reshape('mal.lead')")
    with refused("42501", "not_table_owner"):
        world.run("db_owner", "select gdpr.reshape('mal.lead')")
    with refused("PR002", "not_protected"):
        world.run("postgres", "select gdpr.reshape('mal.loot')")
    with refused("PR416", "reshape_closed"):
        world.run("db_owner", "select gdpr.end_reshape('crm.customer')")
    with refused("PR416", "reshape_closed"):
        world.run("db_owner", "select gdpr.retype('crm.customer', 'phone', 'varchar(99)')")
    assert settled(world)


def test_planted_code_that_runs_meanwhile_gets_neither_keys_nor_plaintext(world: World) -> None:
    """Mallory's own table, reshaped by somebody who may act for both owners."""
    world.plant_thief()
    world.run(
        "mallory",
        "create function mal.spy() returns trigger language plpgsql as $f$ begin"
        "   insert into mal.loot (what) values (coalesce(new.email, '') || coalesce(new.note, ''));"
        "   perform mal.thief(); return new; end $f$;"
        "create function mal.peek(text) returns text language plpgsql as $f$ begin"
        "   insert into mal.loot (what) values ($1); perform mal.thief(); return $1; end $f$;"
        "create trigger aaa before insert or update on mal.lead"
        " for each row execute function mal.spy();"
        "alter table mal.lead enable always trigger aaa;",
    )
    world.run("postgres", "grant mallory to db_owner")
    owner = world.db.connect(autocommit=False)
    owner.execute("select gdpr.reshape('mal.lead')")
    owner.execute("alter table mal.lead alter note type text using mal.peek(note)")
    taken = [what for (what,) in owner.execute("select what from mal.loot").fetchall()]
    assert any(what.startswith("gdpr1:") for what in taken)
    assert not any(len(what) == 128 for what in taken)
    assert leaked(str(taken)) == []
    with refused("PR414", "reshape_refused"):
        owner.execute("select gdpr.end_reshape()")
    owner.rollback()
    world.run(
        "db_owner",
        "begin;"
        "select gdpr.reshape('mal.lead');"
        "alter table mal.lead add copied text default mal.peek('x');"
        "select gdpr.retype('mal.lead', 'email', 'varchar(300)');"
        "select gdpr.end_reshape();"
        "commit",
    )
    seen = world.loot()
    assert seen
    assert not world.keys_taken()
    assert {who for who, _, _ in seen} == {"db_owner"}
    assert leaked(str(seen), ["anna@annasecret.example", "other@lead.example", "lead'"]) == []


def test_a_planted_deferrable_trigger_stops_it(world: World) -> None:
    world.plant_thief()
    world.run(
        "postgres",
        "create function mal.late() returns trigger language plpgsql as"
        " $f$ begin perform mal.thief(); return null; end $f$;"
        "create constraint trigger late after insert on crm.invoice deferrable initially deferred"
        " for each row execute function mal.late()",
    )
    owner = world.db.connect(autocommit=False)
    owner.execute("select gdpr.reshape('crm.invoice')")
    with refused("PR414", "reshape_refused") as error:
        owner.execute("select gdpr.end_reshape()")
    assert "deferrable" in (error.value.diag.message_detail or "")


def test_a_name_cannot_carry_code(world: World) -> None:
    evil = "x'; drop table crm.invoice; --"
    quoted = '"' + evil + '"'
    world.run(
        "db_owner",
        "begin;"
        "select gdpr.reshape('crm.customer');"
        f"alter table crm.customer rename birth_date to {quoted};"
        'alter table crm.customer rename email to "E%I $body$";'
        f"alter table crm.customer rename to {quoted};"
        "select gdpr.end_reshape(); commit",
    )
    assert world.run("crm_app", f"select {quoted}::text from gdpr_clear.{quoted} order by 1")[
        0
    ] == ("1981-01-11",)
    world.run("crm_app", f"update gdpr_clear.{quoted} set {quoted} = '1990-09-09' where id = 1")
    assert world.run("db_owner", "select to_regclass('crm.invoice') is not null") == [(True,)]
    assert settled(world)


def test_no_error_tells_a_value(world: World) -> None:
    for column, kind in (("phone", "integer"), ("email", "varchar(5)")):
        owner = world.db.connect(autocommit=False)
        owner.execute(RESHAPE)
        owner.execute("select gdpr.retype('crm.customer', %s, %s)", [column, kind])
        error = attempt(owner, "select gdpr.end_reshape()")
        assert error is not None
        assert error.sqlstate in {"22023", "22001"}
        assert leaked(told(error)) == []
        owner.close()


@pytest.mark.parametrize(
    "kind",
    ["mal.mood", "text; drop table crm.invoice", "", "integer)", "xml", "serial", "text[](3)"],
)
def test_a_type_is_one_of_postgresql(world: World, kind: str) -> None:
    owner = world.db.connect(autocommit=False)
    owner.execute(RESHAPE)
    with refused("PR004", "invalid_argument"):
        owner.execute("select gdpr.retype('crm.customer', 'phone', %s)", [kind])
    owner.close()


def test_two_reshapes_at_once_wait_for_each_other(world: World) -> None:
    first = world.db.connect(autocommit=False)
    first.execute(RESHAPE)
    first.execute("alter table crm.customer rename city to town")
    ended: list[list[tuple[object, ...]]] = []

    def second() -> None:
        ended.append(
            world.run(
                "db_owner",
                "select change, name, now from gdpr.reshape('crm.invoice',"
                " array['alter table crm.invoice rename note to remark'])",
            )
        )

    waiting = threading.Thread(target=second)
    waiting.start()
    time.sleep(0.3)
    assert ended == []
    first.execute("select gdpr.end_reshape()")
    first.commit()
    waiting.join(timeout=30)
    assert ended == [[("column renamed", "note", "remark")]]
    assert settled(world)


def test_two_tables_are_reshaped_in_one_transaction(world: World) -> None:
    owner = world.db.connect(autocommit=False)
    owner.execute(RESHAPE)
    owner.execute("select gdpr.reshape('crm.invoice')")
    owner.execute("alter table crm.customer rename id to number")
    owner.execute("alter table crm.invoice rename customer_id to client")
    owner.execute("alter table crm.customer rename to client")
    owner.execute("select gdpr.end_reshape()")
    owner.commit()
    assert settled(world)
    world.run("crm_app", "insert into gdpr_clear.invoice (client, note) values (1, 'fine')")


def test_a_killed_session_leaves_the_table_as_it_was(world: World) -> None:
    owner = psycopg.connect(world.db.dsn())
    owner.execute(RESHAPE)
    owner.execute("alter table crm.customer rename email to mail")
    owner.execute("select gdpr.retype('crm.customer', 'birth_date', 'timestamp')")
    owner.execute("select gdpr_policy.follow_shape('crm.customer')")
    (pid,) = owner.execute("select pg_backend_pid()").fetchone() or (None,)
    world.run("postgres", "select pg_terminate_backend(%s)", [pid])
    owner.close()
    assert len(world.run("crm_app", CLEAR)) == 2
    assert settled(world)


def test_plain_ddl_cannot_take_ciphertext_out_of_its_column(world: World) -> None:
    """A ciphertext opens in the column it was written for and in no other."""
    stored = world.run("postgres", "select phone from crm.customer where id = 1")[0][0]
    world.run(
        "db_owner",
        "select * from gdpr.reshape('crm.customer', array["
        "'alter table crm.customer rename phone to other',"
        "'alter table crm.customer rename birth_date to phone'])",
    )
    world.run("postgres", "alter table crm.customer disable trigger user")
    world.run("postgres", "update crm.customer set phone = %s where id = 1", [stored])
    world.run("postgres", "alter table crm.customer enable always trigger zzz_gdpr_40_change")
    with refused("PR404", "tampered"):
        world.run("crm_app", "select phone from gdpr_clear.customer where id = 1")


def test_statements_mean_what_they_mean_to_the_caller_and_nothing_else(world: World) -> None:
    world.plant_thief()
    world.run(
        "mallory",
        "create function mal.set_config(text, text, boolean) returns text language sql as"
        " 'select mal.thief()::text'; grant execute on all functions in schema mal to public",
    )
    with world.login("db_owner") as owner:
        owner.execute("set search_path = mal, pg_catalog, crm")
        owner.execute(
            "select * from gdpr.reshape('crm.customer', array["
            "'alter table customer rename city to town',"
            "'alter table customer rename town to place'])"
        )
        assert owner.execute("show search_path").fetchall() == [("mal, pg_catalog, crm",)]
    assert world.loot() == []
    assert world.run("crm_app", "select place from gdpr_clear.customer where id = 1") == [("Ulm",)]


@pytest.mark.parametrize(
    "statement",
    [
        "alter table crm.customer disable trigger user",
        "alter table crm.customer disable trigger zzz_gdpr_00_reshape",
        "drop trigger zzz_gdpr_00_reshape on crm.customer",
        "alter table crm.customer disable trigger zzz_gdpr_40_truncate",
        "alter table crm.customer enable replica trigger zzz_gdpr_00_reshape",
        "drop trigger zzz_gdpr_05_guard on crm.customer",
    ],
)
def test_rows_cannot_be_written_past_triggers_that_are_put_back(
    world: World, statement: str
) -> None:
    """Values of one person exchanged between columns, the gate opened, all on the quiet."""
    before = world.run("postgres", "select c::text from crm.customer as c order by id")
    owner = world.db.connect(autocommit=False)
    owner.execute(RESHAPE)
    owner.execute(statement.encode())
    owner.execute("drop policy gdpr_40_reshape on crm.customer")
    owner.execute("alter table crm.customer disable row level security")
    owner.execute("savepoint written")
    try:
        owner.execute("alter table crm.customer disable trigger all")
    except psycopg.errors.InsufficientPrivilege:
        owner.execute("rollback to written")
        owner.execute("alter table crm.customer disable trigger user")
    owner.execute("update crm.customer set phone = email, email = phone, gdpr_purposes = -1")
    owner.execute("alter table crm.customer enable trigger user")
    for name in ("zzz_gdpr_05_guard", "zzz_gdpr_40_truncate"):
        owner.execute("savepoint put_back")
        if attempt(owner, f"alter table crm.customer enable always trigger {name}") is not None:
            owner.execute("rollback to put_back")
    owner.execute(
        "create or replace trigger zzz_gdpr_00_reshape before insert or update or delete"
        " on crm.customer for each statement execute function gdpr_policy.guard_reshape()"
    )
    owner.execute("alter table crm.customer enable always trigger zzz_gdpr_00_reshape")
    with refused("PR414", "reshape_refused") as error:
        owner.execute("select gdpr.end_reshape()")
    assert "zzz_gdpr_" in (error.value.diag.message_detail or "")
    owner.rollback()
    assert world.run("postgres", "select c::text from crm.customer as c order by id") == before
    assert settled(world)


@pytest.mark.parametrize(
    "statement",
    [
        "alter table crm.customer alter gdpr_purposes type bigint using -1",
        "alter table crm.customer alter gdpr_until type timestamptz using 'infinity'",
        "alter table crm.customer alter gdpr_subject_id type bigint using 1",
        "alter table crm.customer alter gdpr_email_digest type uuid using gen_random_uuid()",
    ],
)
def test_the_gate_cannot_be_opened_by_a_change_of_type(world: World, statement: str) -> None:
    owner = world.db.connect(autocommit=False)
    owner.execute(RESHAPE)
    error = attempt(owner, statement)
    assert isinstance(error, psycopg.errors.FeatureNotSupported)
    owner.rollback()
    # without what stands in the way, it is missed
    owner.execute(RESHAPE)
    owner.execute("drop trigger zzz_gdpr_05_guard on crm.customer")
    owner.execute(statement.encode())
    with refused("PR414", "reshape_refused"):
        owner.execute("select gdpr.end_reshape()")
    owner.close()


def test_who_looks_after_the_change_has_looked_too_late(world: World) -> None:
    """The steps of reshape() one by one: what it watches is looked at once."""
    owner = world.db.connect(autocommit=False)
    owner.execute("select gdpr_policy.open_reshape('crm.customer')")
    with refused("PR416", "reshape_closed"):
        owner.execute("select gdpr.end_reshape()")
    owner.rollback()
    owner.execute(RESHAPE)
    owner.execute("alter table crm.customer alter phone type text using lower(phone)")
    owner.execute("select gdpr_policy.watch_reshape('crm.customer')")
    with refused("PR414", "reshape_refused"):
        owner.execute("select gdpr.end_reshape()")
    owner.rollback()
    with refused("42501", "not_table_owner"):
        world.run("admin_login", "select gdpr_policy.watch_reshape('crm.customer')")
    with refused("PR416", "reshape_closed"):
        world.run(
            "db_owner",
            "select gdpr_policy.require_identifier('crm.customer', 'email', 'email', 'a@b.test')",
        )
