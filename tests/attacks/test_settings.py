"""Settings that anybody may change must not change what gdprdb's functions do."""

from __future__ import annotations

import pytest

from tests.attacks.world import ENCRYPTED, World, attempt, leaked, told

HOSTILE = {
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "escape_string_warning": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "xmloption": "document",
    "check_function_bodies": "off",
    "plan_cache_mode": "force_generic_plan",
    "client_encoding": "LATIN1",
    "search_path": "mal, pg_temp, public, pg_catalog",
    "default_transaction_deferrable": "on",
    "join_collapse_limit": "1",
    "enable_nestloop": "off",
    "enable_seqscan": "off",
    "plpgsql.check_asserts": "off",
    "plpgsql.extra_warnings": "all",
    "plpgsql.extra_errors": "all",
    "lc_numeric": "C",
    "gdpr.unlocked": "x",
    "gdpr.actor": "'; drop table x; --",
    "application_name": "anna",
    "constraint_exclusion": "on",
    "default_table_access_method": "heap",
    "default_toast_compression": "pglz",
    "createrole_self_grant": "set",
    "idle_session_timeout": "0",
    "vacuum_cost_delay": "0",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_setting_of_the_application(world: World, name: str) -> None:
    app = world.login("crm_app")
    if (
        attempt(app, f"set {name} = $v${HOSTILE[name]}$v$") is not None
        and attempt(app, f"set {name} = {HOSTILE[name]}") is not None
    ):
        pytest.skip("not a setting of this server")
    seen = app.execute(
        "select id, email, phone, birth_date from gdpr_clear.customer order by id"
    ).fetchall()
    assert [row[:3] for row in seen] == [
        (1, "anna@annasecret.example", "+49711111111"),
        (3, "vera@verasecret.example", "+49711333333"),
    ]
    app.execute(
        "insert into gdpr_clear.customer (email, phone, last_name, birth_date) values "
        "('Back\\slash''x@x.example', '+1', 'x', date '2001-02-03')"
    )
    app.execute(
        "update gdpr_clear.customer set birth_date = birth_date + 1, phone = '+2' where"
        " last_name = 'x'"
    )
    duplicate = attempt(
        app,
        (
            "insert into gdpr_clear.customer (email, last_name) values"
            " ('BACK\\SLASH''X@x.example', 'x')"
        ),
    )
    assert duplicate is not None
    assert duplicate.sqlstate == "23505", told(duplicate)
    hidden = attempt(app, "insert into gdpr_clear.invoice (customer_id, note) values (2, 'y')")
    assert hidden is not None
    assert hidden.sqlstate == "PR601", told(hidden)
    plain = world.login("crm_app")
    assert plain.execute(
        "select phone, birth_date::text from gdpr_clear.customer where last_name = 'x'"
    ).fetchall() == [("+2", "2001-02-04")]
    wrong = attempt(app, "select gdpr.set_context('x', 'compliance')")
    assert wrong is not None
    assert wrong.sqlstate == "42501"


@pytest.mark.parametrize("name", HOSTILE)
def test_setting_of_the_officer(world: World, name: str) -> None:
    dpo = world.login("dpo_login")
    if (
        attempt(dpo, f"set {name} = $v${HOSTILE[name]}$v$") is not None
        and attempt(dpo, f"set {name} = {HOSTILE[name]}") is not None
    ):
        pytest.skip("not a setting of this server")
    receipt = dpo.execute(
        "select gdpr.erase(gdpr.find_subject('email', 'vera@verasecret.example'), 'asked')"
    ).fetchall()
    assert receipt[0][0]["identifiers_blocked"] > 0
    assert dpo.execute("select gdpr.is_blocked('email', 'Vera@verasecret.example')").fetchall() == [
        (True,)
    ]
    everything = str(world.run("postgres", "select c::text from crm.customer as c")) + str(
        world.run("postgres", "select c::text from crm.invoice as c")
    )
    assert "Veraname" not in everything


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "client_encoding"])
def test_same_policy_under_other_settings(world: World, name: str) -> None:
    """A session's settings make no drift."""
    world.run("postgres", "grant mallory to db_owner")
    try:
        owner = world.login("db_owner")
        policy = owner.execute("select gdpr.policy()::text").fetchall()[0][0]
        findings = owner.execute("select d::text from gdpr.doctor() as d").fetchall()
        value = HOSTILE[name] if name in ("datestyle", "search_path") else f"'{HOSTILE[name]}'"
        if attempt(owner, f"set {name} = {value}") is not None:
            pytest.skip("not a setting of this server")
        # what is costed at 10^10, as without nested loops, is compiled for seconds
        owner.execute("set jit = off")
        assert owner.execute("select * from gdpr.plan(%s::jsonb)", [policy]).fetchall() == []
        assert owner.execute("select d::text from gdpr.doctor() as d").fetchall() == findings
    finally:
        world.run("postgres", "revoke mallory from db_owner")


def test_row_security_off_for_the_officer(world: World) -> None:
    """It makes statements fail; it shows nothing and skips no row."""
    dpo = world.login("dpo_login")
    dpo.execute("set row_security = off")
    error = attempt(dpo, "select gdpr.erase(gdpr.subject_of('crm.customer', '3'), 'asked')")
    left = world.run("postgres", "select count(*) from crm.customer where id = 3")
    erased = world.run("postgres", "select count(*) from gdpr_internal.erasure_record")
    assert (error is None, left, erased) in ((True, [(0,)], [(1,)]), (False, [(1,)], [(0,)]))


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize(
    "statement",
    [
        "gdpr.erase(3)",
        "gdpr.restrict(3, 'other')",
        "gdpr.object_to(3, 'orders')",
        "gdpr.withdraw_consent(3, 'marketing')",
    ],
)
def test_closing_under_an_old_snapshot(world: World, level: str, statement: str) -> None:
    dpo = world.login("dpo_login", autocommit=False)
    dpo.execute(f"set transaction isolation level {level}".encode())
    error = attempt(dpo, f"select {statement}")
    assert error is not None
    assert error.sqlstate == "PR005"


def test_errors_of_functions_hold_no_argument(world: World) -> None:
    """Values given as parameters are not told back, also not where parameters are logged."""
    said: list[str] = []
    dpo = world.login("dpo_login")
    dpo.add_notice_handler(
        lambda d: said.append(f"{d.message_primary} {d.message_detail} {d.context}")
    )
    dpo.execute("set client_min_messages = debug5")
    for statement in (
        "select gdpr.find_subject('email', %s)",
        "select gdpr.block('email', %s, 'x')",
        "select gdpr.unblock('email', %s, 'x')",
        "select gdpr.is_blocked('nonsense', %s)",
        "select gdpr.subject_of('crm.customer', %s)",
        (
            "select gdpr.record_consent(1, 'marketing', true, 'nonsense',"
            " jsonb_build_object('a', %s::text))"
        ),
        (
            "select gdpr.record_consent(99, 'marketing', true, 'in_person',"
            " jsonb_build_object('a', %s::text))"
        ),
        "select gdpr.unlock(%s)",
        "select gdpr.reveal(%s)",
    ):
        said += [told(attempt(dpo, statement, ["anna@annasecret.example"]))]
    assert not leaked("\n".join(said), ENCRYPTED)


def test_last_value_is_not_the_applications(world: World) -> None:
    """A documented limit: lastval() after an insert is refused, never another table's number."""
    app = world.login("crm_app")
    app.execute("insert into gdpr_clear.customer (email, last_name) values ('l@l.example', 'l')")
    error = attempt(app, "select lastval()")
    assert error is not None
    assert error.sqlstate == "42501"
    made = app.execute(
        "insert into gdpr_clear.customer (email, last_name) values ('m@l.example', 'l')"
        " returning id"
    )
    assert made.fetchall() == [(5,)]
