"""Station 90: personal data breaches. 72 hours from the first word, and nobody forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.capabilities.crm import apply, policy, refused, subject
from tests.support import Database

FACTS = {"nature": "A laptop was stolen", "kinds": ["confidentiality"]}


def officer(crm: Database, call: str, *values: Any) -> Any:
    """The answer of a function of gdpr that the officer calls."""
    ((answer,),) = crm.rows(f"select gdpr.{call}", values, user="dpo_login")
    return answer


def status(crm: Database, breach: int) -> str:
    """What is to be done next, as the auditor sees it."""
    ((state,),) = crm.rows(
        "select status from gdpr.breach where breach_id = %s", [breach], user="auditor_login"
    )
    return str(state)


@pytest.fixture
def breach(crm: Database) -> int:
    """An open case, an hour old."""
    return int(
        officer(crm, "record_breach(%s::jsonb, now() - interval '1 hour')", json.dumps(FACTS))
    )


def test_a_case_from_the_first_word_to_the_last(crm: Database, breach: int) -> None:
    assert status(crm, breach) == "to_assess"
    officer(crm, "assess_breach(%s, 'high', 'passwords in clear text')", breach)
    assert status(crm, breach) == "to_notify"
    officer(crm, "notify_breach(%s, 'LfDI BW', '2027/114')", breach)
    assert status(crm, breach) == "to_find_persons"
    anna, bela = (subject(crm, "crm.customer", n) for n in (1, 2))
    assert officer(crm, "add_breach_persons(%s, %s)", breach, [anna, bela, anna]) == 2
    assert officer(crm, "add_breach_persons(%s, %s)", breach, [bela]) == 0
    assert status(crm, breach) == "to_communicate"
    for person in (anna, bela):
        evidence = json.dumps({"who": "K", "when": "now", "how": "letter", "reference": "R-1"})
        officer(crm, "breach_told(%s, %s, 'post', %s::jsonb)", breach, person, evidence)
    assert status(crm, breach) == "to_close"
    officer(crm, "close_breach(%s, 'disks are encrypted')", breach)
    assert status(crm, breach) == "closed"
    assert crm.rows(
        "select persons, persons_told, risk, authority, overdue from gdpr.breach", user="dpo_login"
    ) == [(2, 2, "high", "LfDI BW", False)]


def test_a_risk_that_is_unlikely_is_documented_and_not_notified(crm: Database, breach: int) -> None:
    officer(crm, "assess_breach(%s, 'unlikely', 'the disk was encrypted')", breach)
    assert status(crm, breach) == "to_close"
    officer(crm, "close_breach(%s, 'nothing more')", breach)


def test_a_case_is_not_closed_while_something_is_left(crm: Database, breach: int) -> None:
    for call in (None, "assess_breach(%s, 'risk', 'names')"):
        if call:
            officer(crm, call, breach)
        with refused("PR902", "breach_open"):
            officer(crm, "close_breach(%s, 'done')", breach)
    assert status(crm, breach) == "to_notify"
    # refused as a whole: the case is open, and says so
    assert crm.rows(
        "select count(*) from gdpr.breach_history where event = 'closed'", user="dpo_login"
    ) == [(0,)]


def test_72_hours_pass_with_no_job_running(crm: Database) -> None:
    late = officer(
        crm,
        "record_breach(%s::jsonb, now() - interval '72 hours' + interval '300 milliseconds')",
        json.dumps(FACTS),
    )
    reader = crm.connect("dpo_login", autocommit=False)
    query = "select overdue from gdpr.breach where breach_id = %s"
    assert reader.execute(query, [late]).fetchone() == (False,)
    reader.execute("select pg_sleep(0.4)")
    assert reader.execute(query, [late]).fetchone() == (True,)
    reader.rollback()
    assert crm.rows(
        "select severity, object from gdpr.doctor() where topic = 'breach'", user="dpo_login"
    ) == [("error", f"breach {late}")]
    officer(crm, "assess_breach(%s, 'risk', 'names')", late)
    with refused("PR904", "breach_late"):
        officer(crm, "notify_breach(%s, 'LfDI', '1')", late)
    officer(crm, "notify_breach(%s, 'LfDI', '1', p_delay_reason => 'found on a Friday')", late)
    assert status(crm, late) == "to_close"


def test_a_case_that_is_none(crm: Database) -> None:
    for call in ("assess_breach(77, 'risk', 'x')", "breach_told(77, 1, 'post', %s)"):
        evidence = [json.dumps(dict.fromkeys(("who", "when", "how", "reference"), "x"))]
        with refused("PR903", "unknown_breach"):
            officer(crm, call, *evidence[: call.count("%s")])


def test_an_unlikely_risk_is_never_overdue(crm: Database) -> None:
    old = officer(crm, "record_breach(%s::jsonb, now() - interval '9 days')", json.dumps(FACTS))
    officer(crm, "assess_breach(%s, 'unlikely', 'encrypted')", old)
    assert crm.rows("select overdue from gdpr.breach", user="dpo_login") == [(False,)]


def test_later_facts_replace_earlier_ones_and_the_history_keeps_both(
    crm: Database, breach: int
) -> None:
    officer(crm, "amend_breach(%s, %s::jsonb)", breach, '{"persons": 300, "measures": "locked"}')
    officer(crm, "amend_breach(%s, %s::jsonb)", breach, '{"persons": 280}')
    assert crm.rows(
        "select nature, approximate_persons, measures, kinds from gdpr.breach", user="dpo_login"
    ) == [("A laptop was stolen", 280, "locked", ["confidentiality"])]
    assert crm.rows(
        "select details ->> 'persons' from gdpr.breach_history order by id", user="auditor_login"
    ) == [(None,), ("300",), ("280",)]


def test_times_are_the_same_in_every_session(crm: Database) -> None:
    writer = crm.connect("dpo_login")
    writer.execute("set timezone = 'Asia/Tokyo'; set datestyle = 'German'")
    facts = FACTS | {"occurred_from": "03.02.2026 09:00", "occurred_until": "2026-02-03 10:00"}
    writer.execute("select gdpr.record_breach(%s::jsonb)", [json.dumps(facts)])
    reader = crm.connect("auditor_login")
    for zone in ("UTC", "America/New_York"):
        reader.execute(f"set timezone = '{zone}'".encode())
        assert reader.execute(
            "select occurred_from = '2026-02-03 00:00Z', occurred_until = '2026-02-03 01:00Z'"
            " from gdpr.breach"
        ).fetchall() == [(True, True)]


@pytest.mark.parametrize(
    "facts",
    [
        "[]",
        "{}",
        '{"nature": "x"}',
        '{"nature": " ", "kinds": ["integrity"]}',
        '{"nature": "x", "kinds": []}',
        '{"nature": "x", "kinds": ["theft"]}',
        '{"nature": "x", "kinds": "integrity"}',
        '{"nature": "x", "kinds": ["integrity"], "who": "Anna"}',
        '{"nature": "x", "kinds": ["integrity"], "persons": "many"}',
        '{"nature": "x", "kinds": ["integrity"], "persons": -1}',
        '{"nature": "x", "kinds": ["integrity"], "processor": "Nobody AG"}',
        '{"nature": "x", "kinds": ["integrity"], "occurred_from": "yesterday morning"}',
        '{"nature": "x", "kinds": ["integrity"], "occurred_from": "2099-01-01"}',
        '{"nature": "", "kinds": ["integrity"], "occurred_until": "2020-01-01"}',
    ],
)
def test_facts_that_are_none(crm: Database, facts: str) -> None:
    with refused("PR004", "invalid_argument"):
        officer(crm, "record_breach(%s::jsonb)", facts)
    assert crm.rows("select count(*) from gdpr.breach", user="dpo_login") == [(0,)]


@pytest.mark.parametrize(
    ("call", "state"),
    [
        ('record_breach(\'{"nature": "x", "kinds": ["integrity"]}\', now() + \'1 day\')', "PR004"),
        ("assess_breach(77, 'risk', 'x')", "PR903"),
        ("assess_breach(1, 'grave', 'x')", "PR004"),
        ("assess_breach(1, 'risk', ' ')", "PR004"),
        ("notify_breach(1, '', '7')", "PR004"),
        ("notify_breach(1, 'LfDI', '7', now() - interval '2 days')", "PR004"),
        ("notify_breach(1, 'LfDI', '7', now() + interval '2 days')", "PR004"),
        ("amend_breach(77, '{\"persons\": 1}')", "PR903"),
        ("amend_breach(1, '{}')", "PR004"),
        ("add_breach_persons(77, '{}')", "PR903"),
        ("add_breach_persons(1, array[987654])", "PR101"),
        ("excuse_breach(1, 'too_many', 'x')", "PR004"),
        ("breach_told(1, 1, 'email', '{}')", "PR004"),
        ("breach_told(1, 1, 'post', '{}')", "PR304"),
        ("tell_breach(1, '{}')", "PR004"),
        ('tell_breach(1, \'{"english": "x"}\')', "PR004"),
        ('tell_breach(1, \'{"en": "x"}\')', "PR902"),
        ("close_breach(1, '')", "PR004"),
    ],
)
def test_what_is_refused(crm: Database, breach: int, call: str, state: str) -> None:
    assert breach == 1
    with refused(state):
        officer(crm, call)


def test_persons_are_told_by_mail_in_their_language_whatever_locks_them(
    crm: Database, breach: int
) -> None:
    apply(
        crm,
        policy(
            roles__mailer={"audience": "mail"},
            **{"tables__crm.customer__columns__city": {"category": "contact", "language": True}},
        ),
    )
    application = crm.connect("crm_app")
    application.execute("update gdpr_clear.customer set city = 'de' where id = 1")
    anna, bela = (subject(crm, "crm.customer", n) for n in (1, 2))
    officer(crm, "restrict(%s, 'legal_claims')", anna)
    officer(crm, "add_breach_persons(%s, %s)", breach, [anna, bela])
    officer(
        crm, "amend_breach(%s, %s::jsonb)", breach, '{"consequences": "spam", "measures": "reset"}'
    )
    words = json.dumps({"en": "Your password leaked.", "de": "Ihr Passwort ist bekannt."})
    query = "select * from gdpr.tell_breach(%s, %s::jsonb)"
    assert crm.rows(query, [breach, words], user="dpo_login") == [(2, 0, max(anna, bela))]
    assert crm.rows(query, [breach, words], user="dpo_login") == [(0, 0, None)]
    post = crm.connect("mailer")
    mails = {}
    for _ in range(2):
        ((number,),) = post.execute("select gdpr.next_mail()").fetchall()
        ((template, language, message),) = post.execute(
            "select template, language, message from gdpr.open_mail(%s)", [number]
        ).fetchall()
        assert template == "rights_breach"
        post.execute("select gdpr.mail_sent(%s)", [number])
        mails[message["to"]] = (language, message["message"])
    assert mails == {
        "anna@example.com": ("de", "Ihr Passwort ist bekannt."),
        "bela@example.com": ("en", "Your password leaked."),
    }


def test_who_has_no_address_is_left_to_be_told_otherwise(crm: Database, breach: int) -> None:
    apply(crm, policy(**{"tables__crm.lead__purposes": ["orders", "marketing", "analytics"]}))
    crm.connect("crm_app").execute(
        "insert into gdpr_clear.lead (full_name) values ('No Mail'), ('None Either')"
    )
    nobody = [subject(crm, "crm.lead", n) for n in (3, 4)]
    officer(crm, "assess_breach(%s, 'high', 'x')", breach)
    officer(crm, "notify_breach(%s, 'LfDI', '1')", breach)
    anna = subject(crm, "crm.customer", 1)
    officer(crm, "add_breach_persons(%s, %s)", breach, [*nobody, anna])
    officer(crm, "amend_breach(%s, %s::jsonb)", breach, '{"consequences": "x", "measures": "y"}')
    last, queued = 0, 0
    while last is not None:
        ((sent, _, last),) = crm.rows(
            'select * from gdpr.tell_breach(%s, \'{"en": "x"}\', 1, %s)',
            [breach, last],
            user="dpo_login",
        )
        queued += sent
    assert queued == 1
    assert status(crm, breach) == "to_communicate"
    officer(crm, "excuse_breach(%s, 'public_communication', 'in the newspapers')", breach)
    assert status(crm, breach) == "to_close"


def test_an_erased_person_cannot_be_told_and_holds_nothing_up(crm: Database, breach: int) -> None:
    officer(crm, "assess_breach(%s, 'high', 'x')", breach)
    officer(crm, "notify_breach(%s, 'LfDI', '1')", breach)
    anna = subject(crm, "crm.customer", 1)
    officer(crm, "add_breach_persons(%s, %s)", breach, [anna])
    assert status(crm, breach) == "to_communicate"
    officer(crm, "erase(%s, 'her letter')", anna)
    assert status(crm, breach) == "to_close"
    assert crm.rows("select erased, told_at from gdpr.breach_person", user="dpo_login") == [
        (True, None)
    ]


def test_whose_data_a_login_changed(crm: Database) -> None:
    crm.connect("crm_app").execute("update gdpr_clear.customer set phone = '1' where id < 3")
    query = (
        "select subject_id, records from gdpr.persons_touched("
        "%s, now() - interval '1 hour', now() + interval '1 hour', %s::regclass) order by 1"
    )
    people = sorted(subject(crm, "crm.customer", n) for n in (1, 2))
    touched = [(person, 1) for person in people]
    assert crm.rows(query, ["crm_app", "crm.customer"], user="dpo_login") == touched
    assert crm.rows(query, ["crm_app", None], user="auditor_login") == touched
    assert crm.rows(query, ["crm_app", "crm.lead"], user="dpo_login") == []
    assert crm.rows(query, ["metabase", None], user="dpo_login") == []


def test_only_officers_keep_the_register(crm: Database, breach: int) -> None:
    for user in ("crm_app", "metabase", "portal_app", "auditor_login"):
        with refused("42501"):
            crm.rows("select gdpr.assess_breach(%s, 'risk', 'x')", [breach], user=user)
    for user in ("crm_app", "metabase", "portal_app", "db_owner"):
        if user != "db_owner":
            with refused("42501"):
                crm.rows("select * from gdpr.breach", user=user)


@pytest.mark.usefixtures("breach")
def test_the_register_is_append_only_and_on_record(crm: Database) -> None:
    superuser = crm.connect("postgres")
    for table in ("breach_record", "breach_event"):
        for change in (
            f"delete from gdpr_internal.{table}",
            f"truncate gdpr_internal.{table} cascade",
        ):
            with refused("55000", "append_only"):
                superuser.execute(change.encode())
    assert crm.rows(
        "select old ->> 'event' from gdpr.audit_log where operation = 'BREACH'", user="dpo_login"
    ) == [("facts",)]
