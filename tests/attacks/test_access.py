"""Attacks on access reports: by whom they are read, whose data are in them, what is planted."""

from __future__ import annotations

import json

import psycopg
import pytest

from tests.attacks.world import ENCRYPTED, TAKE_KEYS, World, attempt, leaked, told

#: What only Hugo and Vera are: nothing of it belongs into Anna's report.
OTHERS = (
    "hugosecret",
    "verasecret",
    "711222222",
    "711333333",
    "hugos-note",
    "veras-note",
    "Hugoname",
)


def person(world: World, key: int = 1) -> int:
    """The number of a customer."""
    ((number,),) = world.run("dpo_login", "select gdpr.subject_of('crm.customer', %s)", [str(key)])
    return int(number)


CALLS = (
    "gdpr.access_report(1)",
    "gdpr.portable_copy(1)",
    "gdpr.access_pages(1)",
    "gdpr.access_rows(1, '{}')",
    "gdpr.send_report(1)",
    "gdpr.create_download(1)",
    "gdpr.mail_report(1)",
    "gdpr_internal.access_document(1, true)",
    "gdpr_internal.opened_rows(1, null, false)",
    "gdpr_generated.access_rows(1, null, null, null)",
)


def test_only_the_officer_reads_reports(world: World) -> None:
    for user in ("crm_app", "metabase", "portal_app", "auditor_login", "admin_login", "mallory"):
        connection = world.login(user)
        for call in CALLS:
            error = attempt(connection, f"select {call}")
            assert error is not None, (user, call)
            assert error.sqlstate == "42501", (user, call)


def test_the_officer_reaches_no_machinery_either(world: World) -> None:
    for call in CALLS[6:]:
        error = attempt(world.login("dpo_login"), f"select {call}")
        assert error is not None
        assert error.sqlstate == "42501", call


def test_a_forged_page_gives_nothing_of_others(world: World) -> None:
    dpo = world.login("dpo_login")
    anna, hugo = person(world, 1), person(world, 2)
    pages = dpo.execute("select page::text from gdpr.access_pages(%s)", [hugo]).fetchall()
    assert len(pages) >= 3
    for (page,) in pages:
        found = dpo.execute("select gdpr.access_rows(%s, %s::jsonb)", [anna, page]).fetchall()
        assert not [text for text in OTHERS if text in json.dumps(found)]
        assert not any("places" in page for _ in found), "a row of another person"
    for page in ("null", "[]", "1", '{"places": "{}"}', '{"places": "x", "table": 1, "part": 1}'):
        error = attempt(dpo, "select gdpr.access_rows(%s, %s::jsonb)", [anna, page])
        assert leaked(told(error)) == []


def test_a_download_is_of_the_token_alone(world: World) -> None:
    ((token,),) = world.run("dpo_login", "select gdpr.create_download(%s)", [person(world)])
    portal = world.login("portal_app")
    for wrong in ("", "x" * 43, token.swapcase(), token + "=", token[:-1]):
        error = attempt(portal, "select gdpr.portal_download(%s)", [wrong])
        assert error is not None
        assert error.sqlstate == "PR303"
        assert token not in told(error)
    for other in ("portal_form", "portal_withdraw", "portal_data"):
        error = attempt(portal, f"select gdpr.{other}(%s)", [token])
        assert error is not None
        assert error.sqlstate == "PR303", other
    ((found,),) = portal.execute("select gdpr.portal_download(%s)::text", [token]).fetchall()
    assert "annas-note-secret" in found
    assert not [text for text in OTHERS if text in found]
    assert world.run(
        "postgres", "select count(*) from gdpr_internal.token where kind = 'download'"
    ) == [(0,)]


def test_two_at_once_open_a_download_once(world: World) -> None:
    ((token,),) = world.run("dpo_login", "select gdpr.create_download(%s)", [person(world)])
    first = world.login("portal_app", autocommit=False)
    first.execute("select gdpr.portal_download(%s)", [token])
    second = world.login("portal_app", options="-c lock_timeout=300ms")
    error = attempt(second, "select gdpr.portal_download(%s)", [token])
    assert error is not None
    assert error.sqlstate in {"55P03", "PR303"}
    first.commit()
    error = attempt(second, "select gdpr.portal_download(%s)", [token])
    assert error is not None
    assert error.sqlstate == "PR303"


def test_a_planted_row_policy_gets_no_key_and_no_plaintext(world: World) -> None:
    world.plant_thief()
    world.run(
        "mallory",
        "create policy narrow on mal.lead as restrictive for select using (mal.thief())",
    )
    read_by_officer(world)


def test_a_planted_cast_to_json_gets_no_key_and_no_plaintext(world: World) -> None:
    world.run(
        "mallory",
        "create function mal.mood_json(mal.mood) returns json language plpgsql as"
        f" $f$ begin {TAKE_KEYS} return to_json('stolen'::text); end $f$;"
        " create cast (mal.mood as json) with function mal.mood_json(mal.mood)",
    )
    read_by_officer(world)


def read_by_officer(world: World) -> None:
    """Have Anna's report read: what was planted runs, as gdpr_worker and to no avail."""
    world.run("dpo_login", "select gdpr.access_report(%s)", [person(world)])
    assert {(who, what) for who, _, what in world.loot()} == {("gdpr_worker", "ran")}


def test_code_that_changes_the_session_stops_the_report(world: World) -> None:
    world.run(
        "mallory",
        "create function mal.stay() returns boolean language plpgsql as"
        " $f$ begin set search_path = mal, pg_catalog; return true; end $f$;"
        " create policy stay on mal.lead as restrictive for select using (mal.stay())",
    )
    error = attempt(world.login("dpo_login"), "select gdpr.access_report(%s)", [person(world)])
    assert error is None or error.sqlstate == "PR411"
    assert leaked(told(error)) == []


def test_a_report_does_not_leave_its_values_in_plans_and_notices(world: World) -> None:
    notices: list[str] = []
    dpo = world.login("dpo_login", options="-c debug_print_plan=on -c client_min_messages=debug1")
    dpo.add_notice_handler(lambda diagnosis: notices.append(str(diagnosis.message_primary)))
    dpo.execute("select gdpr.access_report(%s)", [person(world)])
    assert notices
    assert leaked("\n".join(notices)) == []


def test_rolling_back_does_not_undo_the_line_in_the_log(world: World) -> None:
    messages: list[str] = []
    dpo = world.login("dpo_login", autocommit=False)
    dpo.add_notice_handler(lambda diagnosis: messages.append(diagnosis.message_primary or ""))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        dpo.execute("set log_min_messages = panic")
    dpo.rollback()
    dpo.execute("set client_min_messages = log")
    dpo.execute("select gdpr.access_report(%s)", [person(world)])
    dpo.rollback()
    assert any("access_report of subject" in message for message in messages)
    assert leaked("\n".join(messages), ENCRYPTED) == []
