"""What Mallory does at the portal: without a session, with a token for something else, with one."""

from __future__ import annotations

import json
import re
import secrets
import threading
from typing import Any

import psycopg
import pytest

from tests.attacks.test_logs import SETTINGS, bytes_of
from tests.attacks.test_tokens import ask, person
from tests.attacks.world import POLICY, World, attempt, leaked, told
from tests.support import waiting

ANNA, HUGO, VERA = 1, 2, 3

#: The functions that want a session, with arguments that would be taken.
CALLS = (
    "portal_data(%s)",
    "portal_copy(%s)",
    "portal_purposes(%s)",
    "portal_requests(%s)",
    "portal_sign_out(%s)",
    "portal_withdraw_consent(%s, 'marketing')",
    "portal_answer_consent(%s, 'marketing', true)",
    "portal_object(%s, 'analytics')",
    "portal_restrict(%s, 'legal_claims')",
    'portal_correct(%s, \'{"words": "x"}\')',
    "portal_erase(%s)",
    "portal_take_back_objection(%s, 'analytics')",
    "portal_withdraw_request(%s, 1)",
)

LINK = "select gdpr.portal_request_sign_in(%s)"


def token(world: World, kind: str, key: int, until: str = "infinity") -> str:
    """A token of a customer, as the house makes it."""
    number = person(world, key)
    ((made,),) = world.run(
        "postgres",
        "select gdpr_internal.create_token(%s, %s, %s, %s)",
        [kind, number, number, until],
    )
    return str(made)


def count(world: World, table: str) -> int:
    """How many rows there are."""
    ((rows,),) = world.run("postgres", f"select count(*) from gdpr_internal.{table}")
    return int(rows)


@pytest.mark.parametrize("call", CALLS)
def test_one_answer_to_every_session_that_is_none(world: World, call: str) -> None:
    """A token for something else, stolen, is none; the answer tells nothing but that."""
    consent, gone = ask(world, ANNA), token(world, "session", ANNA)
    world.run("portal_app", "select gdpr.portal_sign_out(%s)", [gone])
    good = token(world, "session", ANNA)
    before = count(world, "request_event"), count(world, "consent_record")
    portal = world.login("portal_app")
    answers = {
        told(attempt(portal, f"select gdpr.{call}", [wrong]))
        for wrong in (
            None,
            "",
            good[:-1],
            good + "=",
            good.swapcase(),
            secrets.token_urlsafe(32),
            "A" * 1_000_000,
            "' or true --",
            str(person(world, ANNA)),
            consent,
            token(world, "sign_in", ANNA),
            token(world, "registration", ANNA),
            token(world, "session", ANNA, "2026-01-01"),
            gone,
        )
    }
    assert len(answers) == 1
    assert "gdpr_token_refused" in answers.pop()
    assert (count(world, "request_event"), count(world, "consent_record")) == before


def test_a_session_is_no_token_for_anything_else(world: World) -> None:
    session = token(world, "session", ANNA)
    portal = world.login("portal_app")
    for call in (
        "portal_sign_in(%s)",
        "portal_form(%s)",
        "portal_withdraw(%s)",
        "answer_consent(%s, '{}')",
        "confirm(%s)",
        "opt_out(%s)",
    ):
        assert "gdpr_token_refused" in told(attempt(portal, f"select gdpr.{call}", [session])), call


def test_a_link_opens_one_session_whoever_else_comes_at_once(world: World) -> None:
    link = token(world, "sign_in", ANNA)
    opened: list[Any] = []
    start = threading.Barrier(4)

    def come() -> None:
        with psycopg.connect(world.db.dsn("portal_app"), autocommit=True) as portal:
            start.wait()
            opened.append(attempt(portal, "select gdpr.portal_sign_in(%s)", [link]))

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(error is None for error in opened) == 1
    ((sessions,),) = world.run(
        "postgres", "select count(*) from gdpr_internal.token where kind = 'session'"
    )
    assert sessions == 1


def test_a_late_link_opens_nothing(world: World) -> None:
    portal = world.login("portal_app")
    late = token(world, "sign_in", ANNA, "2026-01-01")
    assert "gdpr_token_refused" in told(attempt(portal, "select gdpr.portal_sign_in(%s)", [late]))


def test_the_portal_can_do_nothing_else(world: World) -> None:
    anna = person(world, ANNA)
    portal = world.login("portal_app")
    for statement in (
        f"select gdpr.access_report({anna})",
        f"select gdpr.portable_copy({anna})",
        f"select gdpr.open_request('access', {anna})",
        "select gdpr.complete_request(1)",
        f"select gdpr.object_to({anna}, 'analytics')",
        f"select gdpr.restrict({anna}, 'other')",
        f"select gdpr_internal.portal_open({anna}, 'erasure')",
        f"select gdpr_internal.note_request({anna}, 'erasure')",
        "select gdpr_internal.session_subject('x')",
        f"select gdpr_internal.put_sign_in({anna}, 'm@x.example', 'en', 'infinity')",
        f"select gdpr_internal.create_token('session', 1, {anna}, 'infinity')",
        "table gdpr.request",
        "table gdpr.request_board",
        "table gdpr.objection",
        "table gdpr_internal.request",
        "table gdpr_internal.sign_in_mail",
        "table gdpr_internal.token",
    ):
        error = attempt(portal, statement)
        assert error is not None, statement
        assert error.sqlstate == "42501", statement


def test_a_session_shows_its_own_person_alone(world: World) -> None:
    """Whatever the caller claims: the request, the purpose and the actor of somebody else."""
    vera = person(world, VERA)
    ((hers,),) = world.run("dpo_login", "select gdpr.open_request('access', %s)", [vera])
    session = token(world, "session", ANNA)
    portal = world.login("portal_app")
    portal.execute("select set_config('gdpr.request', %s, false)", [str(hers)])
    portal.execute("set gdpr.purpose = 'compliance'")
    portal.execute("set gdpr.actor = 'vera'")
    seen = ""
    for call in CALLS:
        if "sign_out" not in call:
            error = attempt(portal, f"select gdpr.{call}", [session])
            answer = [] if error else portal.execute(f"select gdpr.{call}", [session]).fetchall()
            seen += told(error) + json.dumps(answer, default=str)
    assert "annasecret" in seen
    assert not leaked(seen, ("hugo", "vera", "Hugo", "Vera"))
    steps = "select count(*) from gdpr.request_history where request_id = %s"
    assert world.run("dpo_login", steps, [hers]) == [(1,)]
    ((others,),) = world.run(
        "dpo_login",
        "select count(*) from gdpr.request where channel = 'portal' and subject_id <> %s",
        [person(world, ANNA)],
    )
    assert others == 0


def test_the_rows_of_others_are_not_corrected(world: World) -> None:
    session = token(world, "session", ANNA)
    portal = world.login("portal_app")
    refusals = []
    for key in ("3", "999"):
        change = [{"table": "crm.customer", "key": key, "column": "city", "value": "Mallorca"}]
        call = "select gdpr.portal_correct(%s, %s)"
        error = attempt(portal, call, [session, json.dumps(change)])
        assert error is not None
        refusals.append(re.sub(rf"\b{key}\b", "KEY", error.diag.message_detail or ""))
    # hers or nobody's: one answer
    assert refusals[0]
    assert refusals[0] == refusals[1]
    assert count(world, "request") == 0


def test_a_form_that_asks_for_a_link_tells_nothing(world: World) -> None:
    """Known, unknown, restricted, erased, blocked, asked a moment ago: one answer."""
    dpo = world.login("dpo_login")
    dpo.execute("select gdpr.block('email', 'blocked@x.example', 'asked')")
    dpo.execute("select gdpr.erase(%s)", [person(world, VERA)])
    portal = world.login("portal_app")
    answers = {
        str(portal.execute(LINK, [address]).fetchall())
        for address in (
            "anna@annasecret.example",
            "anna@annasecret.example",
            "hugo@hugosecret.example",
            "vera@verasecret.example",
            "blocked@x.example",
            "nobody@x.example",
        )
    }
    assert len(answers) == 1
    # letters that a mail server may tell apart: the owner of the look-alike gets nothing
    portal.execute(LINK, ["\uff48ugo@hugosecret.example"])
    assert sorted(world.run("dpo_login", "select subject_id from gdpr.outbox")) == [
        (person(world, ANNA),),
        (person(world, HUGO),),
    ]
    # what is no address, and a language that is none, are refused before anybody is looked for
    for wrong in ("xyzzy", "", None, "a@b.example,c@d.example", "a@b.example\r\nBcc: c@d.example"):
        error = attempt(portal, LINK, [wrong])
        assert error is not None
        assert error.sqlstate == "PR004"
        assert not wrong or wrong not in told(error)
    refusals = {
        told(attempt(portal, "select gdpr.portal_request_sign_in(%s, 'x; y')", [address]))
        for address in ("hugo@hugosecret.example", "new@x.example")
    }
    assert len(refusals) == 1


def test_as_much_is_done_for_an_address_that_nobody_has(world: World) -> None:
    """Row by row and look by look: all that differs is the mail in the outbox."""
    work = """
        select relname, coalesce(n_tup_ins, 0), coalesce(n_tup_upd, 0),
          coalesce(seq_scan, 0) + coalesce(idx_scan, 0)
        from pg_stat_xact_all_tables
        where schemaname = 'gdpr_internal' order by relname
    """
    done: dict[tuple[str, int], set[tuple[Any, ...]]] = {}
    for address in ("anna@annasecret.example", "nobody@x.example", "anna@annasecret.example"):
        portal = world.login("portal_app", autocommit=False)
        # plans are made once in each session
        portal.execute(LINK, [f"warm-{len(done)}@x.example"])
        portal.commit()
        portal.execute(LINK, [address])
        rows = portal.execute(work).fetchall()
        done[address, len(done)] = {row for row in rows if row[0] != "outbox" and any(row[1:])}
        portal.rollback()
    first, second, third = done.values()
    assert {row[0] for row in first} >= {"token", "sign_in_mail", "identifier", "subject_key"}
    assert first == second == third


def test_a_flood_of_links_is_one_mail(world: World) -> None:
    portal = world.login("portal_app")
    for n in range(20):
        portal.execute(LINK, ["anna@annasecret.example" if n % 2 else "ANNA@annasecret.example"])
    assert count(world, "outbox") == 1


def test_nothing_of_a_session_is_kept_or_logged(world: World) -> None:
    path = world.db.cluster.directory / "log"
    start = path.stat().st_size
    quiet = {
        "log_statement": "none",
        "log_min_duration_statement": "-1",
        "log_min_error_statement": "panic",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
    }
    link = token(world, "sign_in", ANNA)
    for name, value in (SETTINGS | quiet).items():
        world.run("postgres", f"alter database {world.db.name} set {name} = '{value}'")
    portal = world.login("portal_app")
    portal.execute(LINK, ["anna@annasecret.example"])
    ((answer,),) = portal.execute("select gdpr.portal_sign_in(%s)", [link]).fetchall()
    session = answer["session"]
    portal.execute(
        "select gdpr.portal_correct(%s, %s)", [session, '[{"statement": "annas-words-secret"}]']
    )
    for call in CALLS:
        attempt(portal, f"select gdpr.{call}", [session])
    attempt(portal, "select gdpr.portal_requests(%s)", [session])
    with path.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    assert "PLANNEDSTMT" in text
    # the plan of the client's own statement holds its constants; none of gdprdb's may
    for secret in (link, session, "annas-words-secret"):
        assert secret not in text
        assert text.count(bytes_of(secret)) == 0
    assert not leaked(text)
    tables = world.run(
        "postgres",
        "select c.oid::regclass::text from pg_class c where c.relkind = 'r'"
        " and c.relnamespace = 'gdpr_internal'::regnamespace",
    )
    kept = "".join(
        str(world.run("postgres", f"select t::text from {table} as t")) for (table,) in tables
    )
    for secret in (link, session, "annas-words-secret", "annasecret"):
        assert secret not in kept


def test_planted_code_sees_no_session(world: World) -> None:
    """A trigger of a table's owner runs while an objection spreads the gate."""
    world.plant_thief()
    world.run(
        "mallory",
        "create function mal.spy() returns trigger language plpgsql as $$ begin"
        " insert into mal.loot (what) values"
        " (current_query() || current_setting('gdpr.request', true)); return new; end $$;"
        " create trigger spy before update on mal.lead"
        " for each row execute function mal.spy()",
    )
    session = token(world, "session", ANNA)
    with psycopg.connect(world.db.dsn("portal_app"), autocommit=True) as portal:
        portal.execute("select gdpr.portal_object(%s, 'analytics', '{\"why\": \"x\"}')", [session])
    assert [what for _, _, what in world.loot() if "portal_object" in what]
    assert not [what for _, _, what in world.loot() if session in what]
    assert not world.keys_taken()


def test_evidence_of_requests_cannot_be_changed(world: World) -> None:
    anna = person(world, ANNA)
    dpo = world.login("dpo_login")
    ((number,),) = dpo.execute("select gdpr.open_request('erasure', %s)", [anna]).fetchall()
    dpo.execute("select gdpr.object_to(%s, 'analytics')", [anna])
    dpo.execute("select gdpr.decide_objection(%s, 'analytics', 'upheld')", [anna])
    superuser = world.login("postgres")
    superuser.execute("set session_replication_role = replica")
    for statement in (
        "update gdpr_internal.request set received_at = now()",
        "delete from gdpr_internal.request_event",
        "update gdpr_internal.request_event set due_on = '2099-12-31'",
        "update gdpr_internal.objection_decision set decision = 'overridden'",
        "truncate gdpr_internal.request cascade",
    ):
        error = attempt(superuser, statement)
        assert error is not None, statement
        assert error.sqlstate == "55000", statement
    # and the officer who would finish without doing it
    assert "gdpr_request_unanswered" in told(
        attempt(dpo, "select gdpr.complete_request(%s)", [number])
    )


def test_a_request_of_another_is_not_withdrawn(world: World) -> None:
    """Nor the objection behind it; and hers or nobody's, the answer is one."""
    number = "select gdpr.portal_object(%s, 'analytics')"
    ((hers,),) = world.run("portal_app", number, [token(world, "session", VERA)])
    session, portal = token(world, "session", ANNA), world.login("portal_app")
    answers = {
        told(attempt(portal, "select gdpr.portal_withdraw_request(%s, %s)", [session, asked]))
        for asked in (hers, 999, -1, None)
    }
    assert len(answers) == 1
    assert "gdpr_unknown_request" in answers.pop()
    ((taken,),) = world.run(
        "portal_app", "select gdpr.portal_take_back_objection(%s, 'analytics')", [session]
    )
    assert taken is False
    assert world.run("dpo_login", "select status from gdpr.objection") == [("pending",)]


def test_a_correction_is_approved_or_taken_back_and_not_both(world: World) -> None:
    """The officer approves, the person withdraws at that moment: neither waits for ever."""
    session, portal = token(world, "session", ANNA), world.login("portal_app")
    change = json.dumps([{"table": "crm.customer", "key": "1", "column": "city", "value": "Ulm"}])
    ((asked,),) = world.run("portal_app", "select gdpr.portal_correct(%s, %s)", [session, change])
    ((proposal,),) = world.run("dpo_login", "select rectification_id from gdpr.rectification")
    officer = world.db.connect("dpo_login", autocommit=False)
    officer.execute("select gdpr.set_context(p_request => %s)", [str(asked)])
    officer.execute("select gdpr.approve_rectification(%s)", [proposal])
    ended = waiting(
        portal,
        lambda: portal.execute("select gdpr.portal_withdraw_request(%s, %s)", [session, asked]),
    )
    officer.commit()
    # what was corrected stays so, and the request of which nothing is left to do is closed
    assert ended() is None
    assert world.run("dpo_login", "select status from gdpr.rectification") == [("approved",)]
    assert world.run("dpo_login", "select state from gdpr.request") == [("withdrawn",)]


def test_two_officers_answer_one_request_once(world: World) -> None:
    """Whoever comes second sees what the first has done."""
    dpo = world.login("dpo_login", autocommit=False)
    ((number,),) = dpo.execute(
        "select gdpr.open_request('access', %s)", [person(world, ANNA)]
    ).fetchall()
    dpo.commit()
    dpo.execute("select gdpr.complete_request(%s, 'done_before')", [number])
    other = world.login("dpo_login")
    other.execute("set lock_timeout = '100ms'")
    blocked = attempt(other, "select gdpr.refuse_request(%s, 'excessive')", [number])
    assert blocked is not None
    assert blocked.sqlstate == "55P03"
    dpo.commit()
    late = attempt(other, "select gdpr.refuse_request(%s, 'excessive')", [number])
    assert "gdpr_request_state" in told(late)


@pytest.mark.parametrize("first", ["victim", "mallory"])
def test_the_number_of_another_beside_an_own_address_signs_nobody_in(
    world: World, first: str
) -> None:
    """Rows are matched by telephone number too, and a shop's form takes any: the one who comes
    second is given to the person of the first, and neither reads what is the other's."""
    policy = json.loads(POLICY)
    policy["tables"]["crm.customer"]["match_on"] = ["email", "phone"]
    world.run("postgres", "grant mallory to db_owner")
    world.run("db_owner", "select count(*) from gdpr.apply(%s)", [json.dumps(policy)])
    world.run("postgres", "revoke mallory from db_owner")
    addresses = ["nina@ninasecret.example", "mallory@mallory.example"]
    for number, address in enumerate(addresses if first == "victim" else addresses[::-1]):
        world.run(
            "crm_app",
            "insert into gdpr_clear.customer (email, phone, last_name) values (%s, %s, 'N')",
            [address, "+4971177777"],
        )
        world.run("portal_app", LINK, [address])
        # alone, the address is the person's
        assert count(world, "outbox") == 1 - number
        world.run("postgres", "delete from gdpr_internal.outbox")
        world.run("postgres", "delete from gdpr_internal.sign_in_mail")
    world.run("portal_app", LINK, [addresses[first == "mallory"]])
    assert count(world, "outbox") == 0
    # nor by another address, to which the account of the second is changed
    world.run(
        "crm_app",
        "update gdpr_clear.customer set email = 'second@mallory.example'"
        " where id = (select max(id) from gdpr_clear.customer)",
    )
    world.run("portal_app", LINK, ["second@mallory.example"])
    assert count(world, "outbox") == 0
    people = "select count(distinct gdpr_subject_id) from crm.customer where last_name = 'N'"
    assert world.run("postgres", people) == [(1,)]
