"""Station 60: a request is received, moved on, answered in time and proved."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from tests.capabilities.crm import apply, policy, problems, refused, subject
from tests.support import Database


def ask(db: Database, statement: str, *values: object, user: str = "dpo_login") -> Any:
    """The one value of a statement."""
    ((value,),) = db.rows(statement, values, user=user)
    return value


def opened(db: Database, kind: str, person: int | None = 1, **more: Any) -> int:
    """The number of a request that was received just now, or at ``at``."""
    return int(
        ask(
            db,
            "select gdpr.open_request(%s, %s, coalesce(%s, 'office'),"
            " coalesce(%s::timestamptz, statement_timestamp()), %s)",
            kind,
            person,
            more.get("channel"),
            more.get("at"),
            more.get("details"),
        )
    )


def state(db: Database, request: int) -> str:
    """Where a request stands."""
    return str(ask(db, "select state from gdpr.request where request_id = %s", request))


def steps(db: Database, request: int) -> list[str]:
    """The steps of a request, in order."""
    rows = db.rows(
        "select event from gdpr.request_history where request_id = %s order by id",
        [request],
        user="auditor_login",
    )
    return [event for (event,) in rows]


def within(db: Database, request: object, call: str) -> None:
    """Fulfil something in the context of a request."""
    connection = db.connect("dpo_login", autocommit=False)
    connection.execute("select gdpr.set_context(p_request => %s)", [str(request)])
    connection.execute(f"select gdpr.{call}".encode())
    connection.commit()
    connection.close()


def test_what_fulfils_a_request_is_tied_to_it(crm: Database) -> None:
    anna, bela = (subject(crm, "crm.customer", key) for key in (1, 2))
    number = opened(crm, "restriction", anna)
    within(crm, number, f"restrict({anna}, 'legal_claims')")
    assert steps(crm, number) == ["received", "restriction"]
    # the request of one person fulfils nothing for another
    with refused("PR609", "request_of_another"):
        within(crm, number, f"restrict({bela}, 'legal_claims')")
    with refused("PR607", "unknown_request"):
        within(crm, 999, f"restrict({anna}, 'legal_claims')")
    # an application's own ticket is no request
    within(crm, "T-88", f"restrict({bela}, 'legal_claims')")
    crm.rows("select gdpr.complete_request(%s)", [number], user="dpo_login")
    with refused("PR608", "request_state"):
        within(crm, number, f"restrict({anna}, 'legal_claims')")
    assert crm.rows("select count(*) from gdpr.restriction", user="auditor_login") == [(2,)]


def move(db: Database, call: str, *values: object) -> Any:
    """A step by the officer."""
    return ask(db, f"select gdpr.{call}", *values)


def test_a_request_is_received_and_stands_on_the_board(crm: Database) -> None:
    number = opened(crm, "access", details='{"words": "everything since 2020"}')
    assert crm.rows(
        "select kind, subject_id, status, state, misses, days_left between 28 and 33"
        " from gdpr.request_board",
        user="auditor_login",
    ) == [("access", 1, "open", "open", "access_report", True)]
    shown = "select details from gdpr.request where request_id = %s"
    assert ask(crm, shown, number) == {"words": "everything since 2020"}
    assert ask(crm, shown, number, user="auditor_login") is None
    assert "since 2020" not in str(
        crm.rows("select r::text from gdpr_internal.request as r", user="postgres")
    )


def test_the_board_sorts_and_counts_days(crm: Database) -> None:
    apply(crm, policy(settings__working_days=WEEK))
    today = ask(crm, "select statement_timestamp()::date")
    made = {}
    for name, days in (("open", 2), ("due_soon", 27), ("overdue", 45)):
        made[name] = opened(crm, "access", at=today - datetime.timedelta(days=days))
    made["paused"] = opened(crm, "erasure", at=today - datetime.timedelta(days=20))
    move(crm, "ask_identity(%s)", made["paused"])
    board = crm.rows(
        "select request_id, status, days_left, misses from gdpr.request_board", user="dpo_login"
    )
    assert {number: status for number, status, _, _ in board} == {
        number: status for status, number in made.items()
    }
    left = {number: days for number, _, days, _ in board}
    assert left[made["paused"]] is None
    assert left[made["overdue"]] < 0 <= left[made["due_soon"]] <= 7 < left[made["open"]]
    assert next(number for number, *_ in board) == made["overdue"]
    assert {number: misses for number, _, _, misses in board}[made["paused"]] == "identity"


WEEK = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def test_the_doctor_tells_who_waits(crm: Database) -> None:
    """Requests past their last day; objections that no request reminds of."""
    found = (
        "select topic, object, finding from gdpr.doctor()"
        " where topic in ('request', 'objection') order by 1"
    )
    opened(crm, "access", at="2026-03-31")
    opened(crm, "access", at="2026-04-30")
    opened(crm, "erasure")
    asked = opened(crm, "access", 2, at="2026-03-31")
    move(crm, "ask_identity(%s)", asked)
    number = opened(crm, "objection")
    within(crm, number, "object_to(1, 'analytics')")
    move(crm, "object_to(2, 'analytics')")
    late = [("request", "access", "2 overdue, since 2026-04-30")]
    assert crm.rows(found, user="auditor_login") == late
    move(crm, "withdraw_request(%s)", number)
    waits = "1 wait for a decision, and no open request reminds of it"
    assert crm.rows(found) == [("objection", "analytics", waits), *late]
    move(crm, "decide_objection(1, 'analytics', 'upheld')")
    assert crm.rows(found) == late


def test_somebody_unknown_asks_and_turns_out_to_be_anna(crm: Database) -> None:
    number = opened(crm, "access", None)
    assert state(crm, number) == "received"
    with refused("PR004", "invalid_argument"):
        opened(crm, "access", None, details='{"words": "x"}')
    with refused("PR004", "invalid_argument"):
        move(crm, "ask_identity(%s, %s)", number, '{"how": "by letter"}')
    with refused("PR608", "request_state"):
        move(crm, "complete_request(%s)", number)
    move(crm, "ask_identity(%s)", number)
    assert state(crm, number) == "identity_pending"
    with refused("PR004", "invalid_argument"):
        move(crm, "verify_identity(%s)", number)
    with refused("PR101", "unknown_subject"):
        move(crm, "verify_identity(%s, 999)", number)
    move(crm, "verify_identity(%s, 1, %s)", number, '{"how": "passport"}')
    assert state(crm, number) == "open"
    assert ask(crm, "select subject_id from gdpr.request") == 1
    assert ask(
        crm, "select details from gdpr.request_history where event = 'identity_verified'"
    ) == {"how": "passport"}
    other = opened(crm, "access", 2)
    move(crm, "ask_identity(%s)", other)
    with refused("PR609", "request_of_another"):
        move(crm, "verify_identity(%s, 1)", other)


def test_the_clock_stands_while_the_person_is_asked_who_they_are(crm: Database) -> None:
    apply(crm, policy(settings__working_days=WEEK))
    at = "2026-03-10T12:00:00Z"
    number = opened(crm, "access", at=at)
    before = ask(crm, "select due_on from gdpr.request")
    assert before == datetime.date(2026, 4, 10)
    move(crm, "ask_identity(%s)", number)
    asked(crm, number, "interval '40 days'")
    assert move(crm, "verify_identity(%s)", number) == before + datetime.timedelta(days=40)
    move(crm, "ask_identity(%s)", number)
    asked(crm, number, "interval '2 days'")
    assert move(crm, "verify_identity(%s)", number) == before + datetime.timedelta(days=42)


def asked(db: Database, request: int, ago: str) -> None:
    """Let the last step of a request have happened earlier."""
    connection = db.connect("postgres")
    connection.execute("set session_replication_role = replica")
    connection.execute(
        "alter table gdpr_internal.request_event disable trigger gdpr_50_append_only"
    )
    connection.execute(
        f"update gdpr_internal.request_event set recorded_at = recorded_at - {ago} where id ="
        " (select max(id) from gdpr_internal.request_event where request_id = %s)".encode(),
        [request],
    )
    connection.execute(
        "alter table gdpr_internal.request_event enable always trigger gdpr_50_append_only"
    )
    connection.close()


def test_two_months_more_with_a_reason_and_in_time(crm: Database) -> None:
    apply(crm, policy(settings__working_days=WEEK))
    number = opened(crm, "access")
    with refused("PR004", "invalid_argument"):
        move(crm, "extend_request(%s, 'holidays')", number)
    due = move(crm, "extend_request(%s, 'complexity', %s)", number, '{"why": "nine systems"}')
    assert (due - ask(crm, "select statement_timestamp()::date")).days in range(88, 94)
    assert state(crm, number) == "extended"
    with refused("PR608", "request_state"):
        move(crm, "extend_request(%s, 'complexity')", number)
    late = opened(crm, "access", at="2025-01-31T12:00:00Z")
    with refused("PR610", "too_late_to_extend"):
        move(crm, "extend_request(%s, 'number_of_requests')", late)
    # the pause of an extended one moves its later day
    move(crm, "ask_identity(%s)", number)
    asked(crm, number, "interval '3 days'")
    assert move(crm, "verify_identity(%s)", number) == due + datetime.timedelta(days=3)
    assert state(crm, number) == "extended"


#: What each kind of request needs, as calls, before it can be completed as fulfilled.
FULFILMENT = {
    "access": "access_report(1)",
    "portability": "portable_copy(1)",
    "restriction": "restrict(1, 'legal_claims')",
    "objection": "object_to(1, 'marketing')",
    "erasure": "erase(1)",
    "withdrawal": "withdraw_consent(1, 'marketing')",
}


@pytest.mark.parametrize("kind", FULFILMENT)
def test_completed_means_done(crm: Database, kind: str) -> None:
    number = opened(crm, kind)
    with refused("PR611", "request_unanswered"):
        move(crm, "complete_request(%s)", number)
    within(crm, number, FULFILMENT[kind])
    assert ask(crm, "select misses from gdpr.request_board") is None
    move(crm, "complete_request(%s)", number)
    assert crm.rows(
        "select state, outcome from gdpr.request where closed_at is not null", user="dpo_login"
    ) == [("completed", "fulfilled")]
    assert crm.rows("table gdpr.request_board", user="dpo_login") == []


def test_an_objection_is_answered_when_it_is_decided(crm: Database) -> None:
    number = opened(crm, "objection")
    within(crm, number, "object_to(1, 'analytics')")
    with refused("PR611", "request_unanswered"):
        move(crm, "complete_request(%s)", number)
    within(crm, number, "decide_objection(1, 'analytics', 'upheld')")
    move(crm, "complete_request(%s)", number)


@pytest.mark.parametrize(
    "outcome", ["fulfilled_in_part", "fulfilled_elsewhere", "done_before", "nothing_held"]
)
def test_an_outcome_says_why_nothing_was_done_here(crm: Database, outcome: str) -> None:
    number = opened(crm, "erasure")
    move(crm, "complete_request(%s, %s, %s)", number, outcome, '{"why": "by letter"}')
    assert ask(crm, "select outcome from gdpr.request") == outcome


def test_of_somebody_unknown_nothing_is_held(crm: Database) -> None:
    number = opened(crm, "access", None)
    with refused("PR608", "request_state"):
        move(crm, "complete_request(%s, 'done_before')", number)
    move(crm, "complete_request(%s, 'nothing_held')", number)


def test_every_refusal_has_a_ground_of_the_law(crm: Database) -> None:
    grounds = crm.rows("select name, kind, article from gdpr.refusal_ground", user="auditor_login")
    kinds = {kind for _, kind, _ in grounds}
    assert kinds == {*FULFILMENT, "rectification"}
    assert {name for name, kind, _ in grounds if kind == "withdrawal"} == {"not_identified"}
    names = {name for name, _, _ in grounds}
    for kind in sorted(kinds):
        number = opened(crm, kind)
        fit = {name for name, of, _ in grounds if of == kind} - {"not_identified"}
        for name in sorted(names - fit - {"not_identified"}):
            with refused("PR004", "invalid_argument"):
                move(crm, "refuse_request(%s, %s)", number, name)
        with refused("PR608", "request_state"):
            move(crm, "refuse_request(%s, 'not_identified')", number)
        if fit:
            move(crm, "refuse_request(%s, %s, %s)", number, min(fit), '{"why": "see letter"}')
            assert state(crm, number) == "refused"
    stranger = opened(crm, "access", None)
    move(crm, "ask_identity(%s)", stranger)
    move(crm, "refuse_request(%s, 'not_identified')", stranger)


def test_an_objection_to_marketing_cannot_be_refused(crm: Database) -> None:
    number = opened(crm, "objection")
    within(crm, number, "object_to(1, 'marketing')")
    with refused("PR608", "request_state"):
        move(crm, "refuse_request(%s, 'compelling_grounds')", number)


STEPS = {
    "ask_identity(%s)": {"received", "open", "extended"},
    "verify_identity(%s, 1)": {"received", "identity_pending"},
    "extend_request(%s, 'complexity')": {"received", "open"},
    "refuse_request(%s, 'excessive')": {"received", "identity_pending", "open", "extended"},
    "withdraw_request(%s)": {"received", "identity_pending", "open", "extended"},
    "complete_request(%s, 'done_before')": {"open", "extended"},
}
WAYS = {
    "received": (None, ()),
    "identity_pending": (1, ("ask_identity(%s)",)),
    "open": (1, ()),
    "extended": (1, ("extend_request(%s, 'complexity')",)),
    "completed": (1, ("complete_request(%s, 'done_before')",)),
    "refused": (1, ("refuse_request(%s, 'excessive')",)),
    "withdrawn": (1, ("withdraw_request(%s)",)),
}


def test_every_step_is_taken_from_the_states_that_allow_it_alone(crm: Database) -> None:
    for name, (person, calls) in WAYS.items():
        for step, states in STEPS.items():
            number = opened(crm, "access", person)
            for call in calls:
                move(crm, call, number)
            assert state(crm, number) == name
            if name in states:
                move(crm, step, number)
            else:
                with refused("PR608", "request_state"):
                    move(crm, step, number)
                assert state(crm, number) == name
    with refused("PR607", "unknown_request"):
        move(crm, "withdraw_request(999)")


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        ("'access', 999", "PR101", "unknown_subject"),
        ("'holiday', 1", "PR004", "invalid_argument"),
        ("null, 1", "PR004", "invalid_argument"),
        ("'access', 1, 'pigeon'", "PR004", "invalid_argument"),
        ("'access', 1, 'office', now() + interval '1 minute'", "PR004", "invalid_argument"),
        ("'access', 1, 'office', '-infinity'", "PR004", "invalid_argument"),
    ],
)
def test_a_request_that_cannot_be_meant(
    same: Database, arguments: str, code: str, name: str
) -> None:
    with refused(code, name):
        same.rows(f"select gdpr.open_request({arguments})", user="dpo_login")


def test_requests_survive_erasure_and_their_words_do_not(crm: Database) -> None:
    number = opened(crm, "erasure", details='{"words": "forget me, says Quentin"}')
    within(crm, number, "erase(1, 'asked')")
    move(crm, "complete_request(%s, 'fulfilled', %s)", number, '{"told": "by letter to Quentin"}')
    assert crm.rows("select state, subject_id, details from gdpr.request", user="dpo_login") == [
        ("completed", 1, None)
    ]
    assert crm.rows("select details from gdpr.request_history", user="dpo_login") == [
        (None,) for _ in steps(crm, number)
    ]
    with refused("PR603", "erased"):
        opened(crm, "access")


def test_requests_are_the_officers(same: Database) -> None:
    number = opened(same, "access")
    for user in ("crm_app", "metabase", "auditor_login", "portal_app"):
        for call in (
            "open_request('access', 1)",
            f"ask_identity({number})",
            f"verify_identity({number})",
            f"extend_request({number}, 'complexity')",
            f"refuse_request({number}, 'excessive')",
            f"withdraw_request({number})",
            f"complete_request({number}, 'done_before')",
        ):
            with refused("42501"):
                same.rows(f"select gdpr.{call}", user=user)
    for user in ("crm_app", "metabase", "portal_app"):
        for view in ("request", "request_history", "request_board", "restriction", "objection"):
            with refused("42501"):
                same.rows(f"table gdpr.{view}", user=user)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("working_days", []),
        ("working_days", "monday"),
        ("working_days", ["mon"]),
        ("holidays", "12-25"),
        ("holidays", ["2027-02-29"]),
        ("holidays", ["25.12."]),
        ("holidays", [1225]),
        ("portal", {"link": "soon"}),
        ("portal", {"session": "-1 h"}),
        ("portal", {"links": "1 h"}),
    ],
)
def test_settings_that_cannot_be_meant(same: Database, setting: str, value: object) -> None:
    (problem,) = problems(same, policy(**{f"settings__{setting}": value}))
    assert problem.startswith(f"settings.{setting}")
