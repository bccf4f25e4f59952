"""Sessions that keep what they have once been allowed: cursors, plans, transactions, partitions."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.attacks.world import World, attempt

NAMES = "select last_name from gdpr_clear.customer order by id"


def names(connection: psycopg.Connection, query: str = NAMES) -> list[str]:
    return [row[0] for row in connection.execute(query.encode()).fetchall()]


def test_prepared_statement_after_a_change_of_purpose(world: World) -> None:
    app = world.login("crm_app")
    app.execute("set plan_cache_mode = force_generic_plan")
    app.execute(f"prepare p as {NAMES}".encode())
    assert names(app, "execute p") == ["Annaname", "Veraname"]
    app.execute("set gdpr.purpose = 'marketing'")
    assert names(app, "execute p") == ["Annaname"]
    app.execute("set gdpr.purpose = 'compliance'")
    error = attempt(app, "execute p")
    assert error is not None
    assert error.sqlstate == "42501"


def test_plan_of_another_role(world: World) -> None:
    """SET ROLE between executions: the plan asks for whom it runs."""
    world.run(
        "postgres",
        "create role two_faced login noinherit; grant crm_app, metabase to two_faced",
    )
    try:
        session = world.login("two_faced")
        session.execute("set plan_cache_mode = force_generic_plan")
        session.execute("set role crm_app")
        session.execute(f"prepare p as {NAMES}".encode())
        assert names(session, "execute p") == ["Annaname", "Veraname"]
        session.execute(
            "create function pg_temp.f() returns setof text language plpgsql as "
            "$f$ begin return query select last_name::text from gdpr_clear.customer order by"
            " id; end $f$"
        )
        assert names(session, "select pg_temp.f()") == ["Annaname", "Veraname"]
        for role in ("metabase", "none"):
            session.execute(f"set role {role}".encode())
            for statement in ("execute p", "select pg_temp.f()", "table crm.customer"):
                error = attempt(session, statement)
                assert error is not None
                assert error.sqlstate == "42501"
    finally:
        world.db.close()
        world.run("postgres", "drop role two_faced")


def test_function_plan_after_a_change_of_purpose(world: World) -> None:
    app = world.login("crm_app")
    app.execute(
        "create function pg_temp.f() returns setof text language plpgsql stable as "
        "$f$ begin return query select last_name::text from gdpr_clear.customer order by"
        " id; end $f$"
    )
    for _ in range(7):
        assert names(app, "select pg_temp.f()") == ["Annaname", "Veraname"]
    app.execute("set gdpr.purpose = 'marketing'")
    assert names(app, "select pg_temp.f()") == ["Annaname"]


def test_transaction_that_was_open_before(world: World) -> None:
    app = world.login("crm_app", autocommit=False)
    app.execute("set gdpr.purpose = 'marketing'")
    assert names(app) == ["Annaname"]
    world.run(
        "dpo_login",
        "select gdpr.withdraw_consent(gdpr.subject_of('crm.customer', '1'), 'marketing')",
    )
    assert names(app) == []


def test_consent_that_ends_while_a_cursor_is_open(world: World) -> None:
    """Expiry needs no new snapshot: rows not fetched yet stay where they are."""
    world.run(
        "dpo_login",
        "select gdpr.record_consent(gdpr.subject_of('crm.customer', '1'), 'marketing',"
        " true, 'in_person',"
        " null, clock_timestamp() + interval '700 ms')",
    )
    app = world.login("crm_app", autocommit=False)
    app.execute("set gdpr.purpose = 'marketing'")
    app.execute("declare c cursor for select last_name from gdpr_clear.customer")
    assert names(app) == ["Annaname"]
    time.sleep(0.8)
    assert names(app) == []
    assert names(app, "fetch all from c") == []


def test_repeatable_read_does_not_outlive_expiry(world: World) -> None:
    world.run(
        "dpo_login",
        "select gdpr.record_consent(gdpr.subject_of('crm.customer', '1'), 'marketing',"
        " true, 'in_person',"
        " null, clock_timestamp() + interval '700 ms')",
    )
    app = world.login("crm_app", autocommit=False)
    app.execute("set transaction isolation level repeatable read")
    app.execute("set gdpr.purpose = 'marketing'")
    assert names(app) == ["Annaname"]
    time.sleep(0.8)
    assert names(app) == []


@pytest.fixture
def parted(world: World) -> World:
    """A partitioned table of persons, protected; a partition of 2027 comes later."""
    owner = world.login("db_owner")
    owner.execute("""
        create table crm.visitor (id int, year int, email text, name text, primary key (id, year))
          partition by list (year);
        create table crm.visitor_2025 partition of crm.visitor for values in (2025);
        create table crm.visitor_2026 partition of crm.visitor for values in (2026);
        insert into crm.visitor values (1, 2025, 'anna@annasecret.example', 'Annaname'), (2, 2026,
          'hugo@hugosecret.example', 'Hugoname');
        grant select, insert, update, delete, truncate on crm.visitor, crm.visitor_2025,
          crm.visitor_2026 to crm_app, metabase;
    """)
    owner.execute("""
        select count(*) from gdpr.apply((gdpr.policy() - 'tables') ||
          '{"tables": {"crm.visitor": {"subject": "self",
          "match_on": ["email"], "purposes": ["orders"], "columns": {"email": {"category":
            "contact", "identifier": "email",
          "encrypt": true}, "name": {"category": "identity"}}}}}')
    """)
    return world


def test_partitions_addressed_directly(parted: World) -> None:
    app, bi = parted.login("crm_app"), parted.login("metabase")
    for partition in ("crm.visitor", "crm.visitor_2025", "crm.visitor_2026"):
        assert "Hugoname" not in str(app.execute(f"table {partition}".encode()).fetchall())
        for statement in (
            f"table {partition}",
            f"truncate {partition}",
            f"delete from {partition}",
        ):
            assert attempt(bi, statement) is not None
        assert attempt(app, f"truncate {partition}") is not None
        app.execute(f"delete from {partition} where id = 2".encode())
        app.execute(f"update {partition} set name = 'x' where id = 2".encode())
    assert parted.run("postgres", "select count(*) from crm.visitor where name = 'Hugoname'") == [
        (1,)
    ]
    error = attempt(
        app,
        (
            "insert into crm.visitor_2026 (id, year, email, name) values (3, 2026,"
            " 'hugo@hugosecret.example', 'x')"
        ),
    )
    assert error is not None
    assert error.sqlstate == "PR601"


def test_partition_that_came_later_is_found(parted: World) -> None:
    parted.run(
        "db_owner", "create table crm.visitor_2027 partition of crm.visitor for values in (2027)"
    )
    found = parted.run(
        "db_owner",
        (
            "select d::text from gdpr.doctor() as d where d.object = 'crm.visitor_2027' and"
            " d.severity = 'error'"
        ),
    )
    assert "row_security" in str(found)


def test_rows_that_move_between_partitions(parted: World) -> None:
    app = parted.login("crm_app")
    app.execute("update gdpr_clear.visitor set year = 2026 where id = 1")
    assert app.execute("select email, year from gdpr_clear.visitor").fetchall() == [
        ("anna@annasecret.example", 2026)
    ]
    assert attempt(app, "update crm.visitor set year = 2025 where id = 2") is None
    assert parted.run("postgres", "select year from crm.visitor where id = 2") == [(2026,)]
