"""Station 60: the portal, where a person signs in by a mailed link and asks for what is theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.capabilities.consents import PURPOSES, sees, set_up
from tests.capabilities.consents import ask as ask_consent
from tests.capabilities.crm import apply, policy, refused, subject
from tests.capabilities.test_60_requests import ask, state, steps
from tests.support import Database, Prepared, assess

MAIL = {"roles__mailer": {"audience": "mail"}}


def with_portal(crm: Database) -> None:
    """Give it a portal and a sender of mails."""
    set_up(crm, **MAIL)
    assess(crm, "analytics")


@pytest.fixture
def house(prepared: Prepared, crm_template: str) -> Iterator[Database]:
    """The customers, with a portal and a sender of mails."""
    with prepared(crm_template, with_portal) as database:
        yield database


def link(house: Database, address: str, language: str | None = None) -> Any:
    """Ask for a link as the portal, take the mail that waits as the sender; its content."""
    house.rows("select gdpr.portal_request_sign_in(%s, %s)", [address, language], user="portal_app")
    post = house.connect("mailer")
    ((mail,),) = post.execute("select gdpr.next_mail()").fetchall()
    if mail is None:
        return None
    with post.transaction():
        (found,) = post.execute("select * from gdpr.open_mail(%s)", [mail]).fetchall()
        post.execute("select gdpr.mail_sent(%s)", [mail])
    post.close()
    return found[2] | {"template": found[0], "language": found[1]}


def signed_in(house: Database, address: str = "anna@example.com") -> str:
    """A session of the person."""
    token = link(house, address)["token"]
    return str(ask(house, "select gdpr.portal_sign_in(%s)", token, user="portal_app")["session"])


def portal(house: Database, function: str, *values: object) -> Any:
    """Call a function of the portal."""
    places = ", ".join(["%s"] * len(values))
    adapted = [
        json.dumps(value)
        if isinstance(value, dict | list) and function != "answer_consent"
        else value
        for value in values
    ]
    return ask(house, f"select gdpr.portal_{function}({places})", *adapted, user="portal_app")


def test_a_link_by_mail_opens_a_session_once(house: Database) -> None:
    mail = link(house, "  Anna@Example.com ", "de")
    assert (mail["template"], mail["language"], mail["to"]) == (
        "rights_sign_in",
        "de",
        "Anna@Example.com",
    )
    session = portal(house, "sign_in", mail["token"])
    assert len(session["session"]) == 43
    assert portal(house, "requests", session["session"]) == []
    with refused("PR303", "token_refused"):
        portal(house, "sign_in", mail["token"])
    portal(house, "sign_out", session["session"])
    with refused("PR303", "token_refused"):
        portal(house, "requests", session["session"])


def test_seeing_and_taking_along(house: Database) -> None:
    session = signed_in(house)
    anna = subject(house, "crm.customer", 1)
    report = portal(house, "data", session)
    assert "anna@example.com" in json.dumps(report)
    assert "bela@example.com" not in json.dumps(report)
    portal(house, "data", session)
    portal(house, "copy", session)
    found = house.rows(
        "select kind, state, channel, subject_id, outcome from gdpr.request order by 1",
        user="auditor_login",
    )
    assert found == [
        ("access", "completed", "portal", anna, "fulfilled"),
        ("portability", "completed", "portal", anna, "fulfilled"),
    ]


def test_an_objection_to_marketing_is_done_at_once(house: Database) -> None:
    session = signed_in(house)
    anna = subject(house, "crm.customer", 1)
    house.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [anna], user="dpo_login"
    )
    assert sees(house, 1, "marketing")
    number = portal(house, "object", session, "marketing", {"why": "enough"})
    assert not sees(house, 1, "marketing")
    assert sees(house, 1, "orders")
    assert state(house, number) == "completed"
    assert steps(house, number) == ["received", "objection", "completed"]


def test_other_objections_close_the_purpose_and_wait(house: Database) -> None:
    session = signed_in(house)
    number = portal(house, "object", session, "analytics", {"why": "my situation"})
    assert house.rows("select count(*) from gdpr_bi.customer", user="metabase") == [(2,)]
    assert state(house, number) == "open"
    (shown,) = [p for p in portal(house, "purposes", session) if p["purpose"] == "analytics"]
    assert (shown["objection"], shown["open_to_objection"]) == ("pending", False)
    with refused("PR614", "not_open_to_objection"):
        portal(house, "object", session, "orders")
    # what was refused left nothing behind
    assert [r["request"] for r in portal(house, "requests", session)] == [number]


def test_consent_is_answered_and_taken_back(house: Database) -> None:
    session = signed_in(house)
    anna = subject(house, "crm.customer", 1)
    with refused("PR004", "invalid_argument"):
        portal(house, "answer_consent", session, "marketing", True)
    ask_consent(house, anna, "marketing")
    with refused("PR004", "invalid_argument"):
        portal(house, "answer_consent", session, "marketing", True, ["fax"])
    with refused("PR004", "invalid_argument"):
        portal(house, "answer_consent", session, "profiling", True)
    assert portal(house, "answer_consent", session, "marketing", True, ["mail"]) == "granted"
    (shown,) = [p for p in portal(house, "purposes", session) if p["purpose"] == "marketing"]
    assert (shown["consent"], shown["channels"], shown["allowed"]) == ("granted", ["mail"], True)
    assert portal(house, "withdraw_consent", session, "marketing") == "withdrawn"
    assert portal(house, "withdraw_consent", session, "marketing") == "withdrawn"
    assert not sees(house, 1, "marketing")
    ((kind, outcome),) = house.rows("select kind, outcome from gdpr.request", user="dpo_login")
    assert (kind, outcome) == ("withdrawal", "fulfilled")
    with refused("PR302"):
        portal(house, "withdraw_consent", session, "orders")


def test_what_an_officer_decides_is_recorded_at_once(house: Database) -> None:
    session = signed_in(house)
    words = {"words": "Aalen is wrong"}
    made = [
        portal(house, "correct", session, [{"statement": "Aalen is wrong"}], "I moved"),
        portal(house, "restrict", session, "accuracy_contested", words),
        portal(house, "erase", session),
    ]
    shown = portal(house, "requests", session)
    assert [(r["request"], r["kind"], r["state"]) for r in shown] == [
        (made[2], "erasure", "open"),
        (made[1], "restriction", "open"),
        (made[0], "rectification", "open"),
    ]
    assert shown[1]["details"] == words | {"ground": "accuracy_contested"}
    assert shown[2]["details"]["reason"] == "I moved"
    assert "due_on" in shown[0]
    for call, values in (
        ("correct", ([],)),
        ("correct", (None,)),
        ("restrict", ("other",)),
        ("erase", ({"words": "x" * 200_000},)),
    ):
        with refused("PR004", "invalid_argument"):
            portal(house, call, session, *values)
    for _ in range(17):
        portal(house, "erase", session)
    with refused("PR616", "too_many_requests"):
        portal(house, "erase", session)


def test_a_correction_lands_once_an_officer_approves_it(house: Database) -> None:
    change = {"table": "crm.customer", "key": "1", "column": "last_name", "value": "Ahrend"}
    number = portal(house, "correct", signed_in(house), [change])
    ((details,),) = house.rows("select details from gdpr.request", user="dpo_login")
    officer = house.connect("dpo_login", autocommit=False)
    officer.execute("select gdpr.set_context(p_request => %s)", [str(number)])
    officer.execute("select gdpr.approve_rectification(%s)", [details["proposal"]])
    officer.commit()
    house.rows("select gdpr.complete_request(%s)", [number], user="dpo_login")
    assert house.rows("select last_name from gdpr_clear.customer where id = 1", user="crm_app") == [
        ("Ahrend",)
    ]


def test_a_refusal_is_shown_with_its_article(house: Database) -> None:
    session = signed_in(house)
    number = portal(house, "erase", session)
    house.rows("select gdpr.refuse_request(%s, 'legal_obligation')", [number], user="dpo_login")
    (shown,) = portal(house, "requests", session)
    assert (shown["outcome"], shown["article"]) == ("legal_obligation", "Art. 17(3)(b)")
    assert "due_on" not in shown


def test_an_objection_is_taken_back(house: Database) -> None:
    """One that waits for a decision, with its request; and one to marketing, which was for good."""
    session = signed_in(house)
    anna = subject(house, "crm.customer", 1)
    number = portal(house, "object", session, "analytics", {"why": "my situation"})
    assert portal(house, "take_back_objection", session, "analytics", {"why": "thought again"})
    assert house.rows("select count(*) from gdpr_bi.customer", user="metabase") == [(3,)]
    assert steps(house, number) == ["received", "objection_pending", "objection", "withdrawn"]
    assert portal(house, "take_back_objection", session, "analytics") is False
    house.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [anna], user="dpo_login"
    )
    marketing = portal(house, "object", session, "marketing")
    assert portal(house, "take_back_objection", session, "marketing")
    assert sees(house, 1, "marketing")
    assert state(house, marketing) == "completed"
    assert house.rows(
        "select purpose, status, decision_details, decided_by from gdpr.objection order by 1",
        user="dpo_login",
    ) == [
        ("analytics", "taken_back", {"why": "thought again", "channel": "portal"}, "portal_app"),
        ("marketing", "taken_back", {"channel": "portal"}, "portal_app"),
    ]
    assert not any("objection" in p for p in portal(house, "purposes", session))


def test_to_and_fro_has_a_bound_and_no_is_always_possible(house: Database) -> None:
    session = signed_in(house)
    for _ in range(10):
        portal(house, "object", session, "analytics")
        portal(house, "take_back_objection", session, "analytics")
    portal(house, "object", session, "analytics")
    with refused("PR616", "too_many_requests"):
        portal(house, "take_back_objection", session, "analytics")
    assert house.rows("select count(*) from gdpr_bi.customer", user="metabase") == [(2,)]
    # and requests, withdrawn each time: 49 of today with the eleven, others of yesterday
    for ago, times in (("1 hour", 38), ("25 hours", 30)):
        house.rows(
            "with asked as (insert into gdpr_internal.request (kind, subject_id, channel,"
            " received_at, recorded_at) select 'access', %s, 'portal', now(), now() - %s::interval"
            " from generate_series(1, %s) returning id)"
            " insert into gdpr_internal.request_event (request_id, event, due_on)"
            " select id, 'withdrawn', now() from asked",
            [subject(house, "crm.customer", 1), ago, times],
            user="postgres",
        )
    portal(house, "erase", session)
    with refused("PR616", "too_many_requests"):
        portal(house, "erase", session)


def test_what_was_decided_about_an_objection_is_shown(house: Database) -> None:
    session = signed_in(house)
    anna = subject(house, "crm.customer", 1)
    portal(house, "object", session, "analytics")
    told = {"who": "Ms Ito", "when": "2027-01-31", "how": "by telephone", "reference": "T 7"}
    decide = "select gdpr.decide_objection(%s, 'analytics', 'overridden', 'legal_claims', %s)"
    house.rows(
        "select gdpr.announce_lifting(%s, 'phone', %s)", [anna, json.dumps(told)], user="dpo_login"
    )
    house.rows(decide, [anna, json.dumps({"claim": "3 O 17/26"})], user="dpo_login")
    (shown,) = [p for p in portal(house, "purposes", session) if p["purpose"] == "analytics"]
    assert (shown["objection"], shown["objection_overridden_by"]) == ("overridden", "legal_claims")
    assert shown["open_to_objection"]


def test_an_own_request_is_withdrawn(house: Database) -> None:
    """With what hangs on it: the objection, the correction that was proposed."""
    session = signed_in(house)
    hers = ask(house, "select gdpr.open_request('access', %s)", subject(house, "crm.customer", 2))
    change = {"table": "crm.customer", "key": "1", "column": "last_name", "value": "Ahrend"}
    made = {
        "erase": portal(house, "erase", session),
        "correct": portal(house, "correct", session, [change]),
        "object": portal(house, "object", session, "analytics"),
    }
    house.rows("select gdpr.ask_identity(%s)", [made["erase"]], user="dpo_login")
    house.rows("select gdpr.ask_identity(%s)", [made["object"]], user="dpo_login")
    for number in made.values():
        portal(house, "withdraw_request", session, number, {"why": "thought again"})
        with refused("PR608", "request_state"):
            portal(house, "withdraw_request", session, number)
    shown = {r["request"]: r for r in portal(house, "requests", session)}
    assert {r["state"] for r in shown.values()} == {"withdrawn"}
    assert shown[made["correct"]]["correction"] == {
        "status": "rejected",
        "reason": "taken back by the person",
    }
    assert [s["event"] for s in shown[made["erase"]]["steps"]] == [
        "received",
        "identity_asked",
        "withdrawn",
    ]
    assert house.rows("select status from gdpr.objection", user="dpo_login") == [("taken_back",)]
    # another's, and nobody's: one answer
    for number in (hers, 4711, None):
        with refused("PR607", "unknown_request"):
            portal(house, "withdraw_request", session, number)
    assert state(house, hers) == "open"


def test_reports_in_an_hour_are_counted(house: Database) -> None:
    times = {"reports": 3}
    apply(house, policy(**PURPOSES | MAIL | {"settings__portal": times}))
    session = signed_in(house)
    for function in ("data", "copy", "data"):
        portal(house, function, session)
    for function in ("data", "copy"):
        with refused("PR618", "too_often"):
            portal(house, function, session)
    assert portal(house, "purposes", session)
    portal(house, "data", signed_in(house, "bela@example.com"))
    house.rows(
        "update gdpr_internal.portal_reading set since = since - interval '1 hour'",
        user="postgres",
    )
    portal(house, "data", session)
    house.rows(
        "update gdpr_internal.portal_reading set since = since - interval '1 hour'",
        user="postgres",
    )
    house.rows("select gdpr.tidy_tokens()")
    assert house.rows("select * from gdpr_internal.portal_reading", user="postgres") == []


def test_a_restricted_person_still_reaches_the_portal(house: Database) -> None:
    anna = subject(house, "crm.customer", 1)
    house.rows("select gdpr.restrict(%s, 'legal_claims')", [anna], user="dpo_login")
    assert portal(house, "requests", signed_in(house)) == []


def test_the_policy_says_how_long_links_and_sessions_last(house: Database) -> None:
    times = {"link": "10 minutes", "resend": "1 ms", "session": "20 minutes"}
    apply(house, policy(**PURPOSES | MAIL | {"settings__portal": times}))
    mail = link(house, "anna@example.com")
    assert ask(house, "select %s::timestamptz - now()", mail["sign_in_by"]).seconds // 60 in (9, 10)
    ended = portal(house, "sign_in", mail["token"])["valid_until"]
    assert ask(house, "select %s::timestamptz - now()", ended).seconds // 60 in (19, 20)
    assert link(house, "anna@example.com") is not None


def test_tidying_takes_what_is_over(house: Database) -> None:
    session = signed_in(house)
    link(house, "nobody@example.com")
    house.rows(
        "update gdpr_internal.token set valid_until = '2020-01-01' where kind = 'sign_in';"
        " update gdpr_internal.sign_in_mail set mailed_at = '2020-01-01'",
        user="postgres",
    )
    house.rows("select gdpr.tidy_tokens()")
    assert house.rows(
        "select kind from gdpr_internal.token union all"
        " select 'mail' from gdpr_internal.sign_in_mail",
        user="postgres",
    ) == [("session",)]
    assert portal(house, "requests", session) == []


def test_erasure_ends_sessions_and_links(house: Database) -> None:
    session = signed_in(house)
    token = link(house, "bela@example.com")["token"]
    for key in (1, 2):
        house.rows("select gdpr.erase(%s)", [subject(house, "crm.customer", key)], user="dpo_login")
    with refused("PR303", "token_refused"):
        portal(house, "requests", session)
    with refused("PR303", "token_refused"):
        portal(house, "sign_in", token)
    assert link(house, "anna@example.com") is None
