"""What Mallory does with the tokens of other people, and with a token of her own."""

from __future__ import annotations

import secrets

import psycopg
import pytest

from tests.attacks.test_logs import SETTINGS, bytes_of
from tests.attacks.world import World, attempt, leaked, told


def person(world: World, key: int) -> int:
    """The number of a customer."""
    ((number,),) = world.run("dpo_login", f"select gdpr.subject_of('crm.customer', '{key}')")
    assert isinstance(number, int)
    return number


def ask(world: World, key: int, channel: str = "portal", within: str = "1 day") -> str:
    """Ask a customer for consent to marketing; the token."""
    ((token,),) = world.run(
        "dpo_login",
        "select token from gdpr.request_consent(%s, '{marketing}', %s, null, %s::interval)",
        [person(world, key), channel, within],
    )
    return str(token)


def events(world: World) -> int:
    """How many answers there are."""
    ((count,),) = world.run("postgres", "select count(*) from gdpr_internal.consent_record")
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize(
    "call",
    ["portal_form(%s)", "answer_consent(%s, '{marketing}')", "portal_withdraw(%s)"],
)
def test_one_answer_to_every_token_that_is_none(world: World, call: str) -> None:
    """Same code, words, hint and context, whatever it was that came: there is nothing to learn."""
    late, dead, good = ask(world, 1, within="1 ms"), ask(world, 3), ask(world, 3)
    ((other,),) = world.run(
        "postgres",
        "select gdpr_internal.create_token('registration', 1, null, 'infinity')",
    )
    before = events(world)
    portal = world.login("portal_app")
    answers = {
        told(attempt(portal, f"select gdpr.{call}", [wrong]))
        for wrong in (
            None,
            "",
            "x",
            good[:-1],
            good + "=",
            good.upper(),
            f" {good}",
            secrets.token_urlsafe(32),
            "A" * 1_000_000,
            "\u202e" * 43,
            "' or true --",
            good.encode().hex(),
            late,
            dead,
            other,
        )
    }
    assert len(answers) == 1
    assert "gdpr_token_refused" in answers.pop()
    assert events(world) == before


def test_a_token_answers_for_its_own_person_alone(world: World) -> None:
    token = ask(world, 3)
    portal = world.login("portal_app")
    portal.execute("select gdpr.answer_consent(%s, '{marketing}')", [token])
    assert world.run(
        "auditor_login",
        "select subject_id, status from gdpr.consent where channel = 'portal'",
    ) == [(person(world, 3), "granted")]


def test_the_portal_can_do_nothing_else(world: World) -> None:
    ask(world, 1)
    portal = world.login("portal_app")
    for statement in (
        "table gdpr.consent",
        "table gdpr.consent_history",
        "table gdpr.subject",
        "table gdpr_internal.token",
        "table gdpr_internal.consent_request",
        "select gdpr_internal.create_token('consent', 1, 1, 'infinity')",
        "select gdpr_internal.take_token('x', 'consent')",
        "select gdpr.request_consent(1, '{marketing}', 'portal')",
        "select gdpr.record_consent(1, 'marketing', true, 'portal')",
        "select gdpr.withdraw_consent(1, 'marketing')",
        "select gdpr.consent_receipt(1, 'marketing')",
        "select gdpr.may_contact(1, 'mail', 'marketing')",
        "select gdpr.find_subject('email', 'x')",
        "table crm.customer",
        "table gdpr_clear.customer",
    ):
        error = attempt(portal, statement)
        assert error is not None, statement
        assert error.sqlstate == "42501", statement


def test_answers_that_were_not_asked_for(world: World) -> None:
    """A token is for what was asked: not for more purposes, nor for channels of contact."""
    token = ask(world, 3)
    portal = world.login("portal_app")
    for call in (
        "answer_consent(%s, '{marketing,orders}')",
        "answer_consent(%s, '{nonsense}')",
        "answer_consent(%s, null)",
        "answer_consent(%s, array[null])",
        "answer_consent(%s, '{marketing}', '{fax}')",
        "portal_withdraw(%s, '{orders}')",
    ):
        error = attempt(portal, f"select gdpr.{call}", [token])
        assert error is not None, call
        assert error.sqlstate in ("PR003", "PR004", "PR302"), (call, error)
    portal.execute("select gdpr.answer_consent(%s, '{marketing}')", [token])


def test_no_token_in_the_database(world: World) -> None:
    """Neither in a table nor, before it is sent, in the outbox."""
    token = ask(world, 3)
    ask(world, 1, channel="email")
    tables = world.run(
        "postgres",
        "select c.oid::regclass::text from pg_class c where c.relkind = 'r'"
        " and c.relnamespace in ('gdpr_internal'::regnamespace, 'gdpr'::regnamespace)",
    )
    assert len(tables) > 20
    everything = "".join(
        str(world.run("postgres", f"select t::text from {table} as t")) for (table,) in tables
    )
    assert token not in everything
    assert not leaked(everything)


def test_no_token_in_the_log(world: World) -> None:
    """The log as talkative as can be, but for what clients themselves send and are sent: the
    statement's text and its bind parameters."""
    path = world.db.cluster.directory / "log"
    start = path.stat().st_size
    quiet = {
        "log_statement": "none",
        "log_min_duration_statement": "-1",
        "log_min_error_statement": "panic",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
    }
    for name, value in (SETTINGS | quiet).items():
        world.run("postgres", f"alter database {world.db.name} set {name} = '{value}'")
    token = ask(world, 3)
    ask(world, 1, channel="email")
    portal = world.login("portal_app")
    portal.execute("select gdpr.portal_form(%s)", [token])
    attempt(portal, "select gdpr.answer_consent(%s, '{nonsense}')", [token])
    portal.execute("select gdpr.answer_consent(%s, '{marketing}')", [token])
    attempt(portal, "select gdpr.answer_consent(%s, '{marketing}')", [token])
    portal.execute("select gdpr.portal_withdraw(%s)", [token])
    with path.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    assert "PLANNEDSTMT" in text
    assert "gdpr_token_refused" in text or "the token is not valid" in text
    assert token not in text
    # the plan of the client's own statement holds its constants; none of gdprdb's may
    assert text.count(bytes_of(token)) == 0
    assert not leaked(text)


def test_planted_code_sees_no_token(world: World) -> None:
    """A trigger that the owner of a table plants runs while an answer spreads the gate."""
    world.plant_thief()
    world.run(
        "mallory",
        "create function mal.spy() returns trigger language plpgsql as $$ begin"
        " insert into mal.loot (what) select current_query(); return new; end $$;"
        " create trigger spy before update on mal.lead"
        " for each row execute function mal.spy()",
    )
    token = ask(world, 1)
    with psycopg.connect(world.db.dsn("portal_app"), autocommit=True) as portal:
        portal.execute("select gdpr.answer_consent(%s, '{}')", [token])
    assert not [what for _, _, what in world.loot() if token in what]
    assert not world.keys_taken()
