"""Station 30: asking, the deadline, answering, taking back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.capabilities.consents import EVIDENCE, answer, ask, sees, set_up, status
from tests.capabilities.crm import policy, problems, refused, subject
from tests.support import Clone, Database


@pytest.fixture(scope="module")
def news_template(clone: Clone, crm_template: str) -> Iterator[str]:
    """Name of a database that can ask."""
    with clone(crm_template) as database:
        set_up(database)
        database.close()
        yield database.name


@pytest.fixture
def news(clone: Clone, news_template: str) -> Iterator[Database]:
    """The customer database with two purposes of consent and a form."""
    with clone(news_template) as database:
        yield database


@pytest.fixture
def anna(news: Database) -> int:
    """Anna's number."""
    return subject(news, "crm.customer", 1)


def test_from_pending_to_withdrawn(news: Database, anna: int) -> None:
    assert status(news, anna) == "pending"
    token = ask(news, anna, "marketing", "profiling")
    assert (status(news, anna), status(news, anna, "profiling")) == ("waiting", "waiting")
    assert answer(news, token, "marketing") == {"marketing": "granted", "profiling": "declined"}
    assert (sees(news, 1), sees(news, 1, "profiling")) == (True, False)
    after = news.rows("select gdpr.portal_withdraw(%s)", [token], user="portal_app")
    assert after == [({"marketing": "withdrawn", "profiling": "declined"},)]
    assert not sees(news, 1)
    story = news.rows(
        "select purpose, event, channel from gdpr.consent_history where subject_id = %s"
        " order by at, purpose",
        [anna],
        user="auditor_login",
    )
    assert story == [
        ("marketing", "asked", "portal"),
        ("profiling", "asked", "portal"),
        ("marketing", "granted", "portal"),
        ("profiling", "declined", "portal"),
        ("marketing", "withdrawn", "portal"),
    ]


def test_each_status_has_its_term_in_the_vocabulary(news: Database, anna: int) -> None:
    def dpv(purpose: str = "marketing") -> tuple[str, str]:
        ((state, term),) = news.rows(
            "select status, dpv from gdpr.consent where subject_id = %s and purpose = %s",
            [anna, purpose],
            user="dpo_login",
        )
        return state, term

    assert dpv() == ("pending", "dpv:ConsentUnknown")
    ask(news, anna, within="300 ms")
    assert dpv() == ("waiting", "dpv:ConsentRequested")
    time.sleep(0.4)
    assert dpv() == ("not_responded", "dpv:ConsentRequestDeferred")
    answer(news, ask(news, anna))
    assert dpv() == ("declined", "dpv:ConsentRefused")
    news.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'web_form',"
        " p_valid_until => statement_timestamp() + interval '300 ms')",
        [anna],
        user="dpo_login",
    )
    assert dpv() == ("granted", "dpv:ConsentGiven")
    time.sleep(0.4)
    assert dpv() == ("expired", "dpv:ConsentExpired")
    news.rows("select gdpr.withdraw_consent(%s, 'marketing')", [anna], user="dpo_login")
    assert dpv() == ("withdrawn", "dpv:ConsentWithdrawn")


def test_allowed_while_waiting_and_locked_at_the_deadline(news: Database, anna: int) -> None:
    """By the policy of each purpose, and with no job: marketing allows, profiling locks."""
    ask(news, anna, "marketing", "profiling", within="1 second")
    assert (sees(news, 1), sees(news, 1, "profiling")) == (True, False)
    time.sleep(1.1)
    assert (sees(news, 1), sees(news, 1, "profiling")) == (False, False)
    assert status(news, anna) == "not_responded"
    assert news.rows("select gdpr.tidy_gates()") == [(1,)]
    assert not sees(news, 1)


def test_asking_again_prolongs_no_waiting(news: Database, anna: int) -> None:
    ask(news, anna, within="700 ms")
    ask(news, anna, within="1 hour")
    assert sees(news, 1)
    time.sleep(0.8)
    assert (status(news, anna), sees(news, 1)) == ("waiting", False)
    ask(news, anna, within="1 hour")
    assert not sees(news, 1)


def test_a_no_stays_a_no_while_the_person_is_asked_again(news: Database, anna: int) -> None:
    answer(news, ask(news, anna))
    token = ask(news, anna)
    assert (status(news, anna), sees(news, 1)) == ("waiting", False)
    answer(news, token, "marketing")
    assert sees(news, 1)


def test_a_grant_that_holds_is_not_shaken_by_a_new_question(news: Database, anna: int) -> None:
    answer(news, ask(news, anna), "marketing")
    ask(news, anna, within="300 ms")
    assert (status(news, anna), sees(news, 1)) == ("granted", True)
    time.sleep(0.4)
    assert (status(news, anna), sees(news, 1)) == ("granted", True)


@pytest.mark.parametrize("granted", [True, False])
def test_a_late_answer_unlocks_only_if_it_grants(news: Database, anna: int, granted: bool) -> None:
    token = ask(news, anna, within="300 ms")
    time.sleep(0.4)
    with refused("PR303", "token_refused"):
        answer(news, token, "marketing")
    news.rows(
        "select gdpr.record_consent(%s, 'marketing', %s, 'phone', %s)",
        [anna, granted, EVIDENCE],
        user="dpo_login",
    )
    assert sees(news, 1) is granted
    kept = news.rows(
        "select c.status, h.request_id is not null, f.name, f.language from gdpr.consent c"
        " join gdpr.consent_history h on h.event = c.status join gdpr.consent_form f on f.form_id ="
        " h.form_id where c.subject_id = %s and c.purpose = 'marketing'",
        [anna],
        user="dpo_login",
    )
    assert kept == [("granted" if granted else "declined", True, "news", "de")]


def test_the_token_is_useless_after_another_answer_but_takes_it_back(
    news: Database, anna: int
) -> None:
    token = ask(news, anna)
    news.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'phone', %s)",
        [anna, EVIDENCE],
        user="dpo_login",
    )
    with refused("PR303", "token_refused"):
        answer(news, token)
    assert sees(news, 1)
    news.rows("select gdpr.portal_withdraw(%s)", [token], user="portal_app")
    assert not sees(news, 1)


def test_a_new_question_takes_the_place_of_the_old(news: Database, anna: int) -> None:
    old = ask(news, anna)
    new = ask(news, anna)
    with refused("PR303", "token_refused"):
        answer(news, old, "marketing")
    assert answer(news, new, "marketing") == {"marketing": "granted"}


def test_of_several_purposes_each_belongs_to_its_last_question(news: Database, anna: int) -> None:
    both = ask(news, anna, "marketing", "profiling")
    one = ask(news, anna, "marketing")
    shown = news.rows("select gdpr.portal_form(%s)", [both], user="portal_app")[0][0]
    assert {p["name"]: p["answerable"] for p in shown["purposes"]} == {
        "marketing": False,
        "profiling": True,
    }
    with refused("PR004", "invalid_argument"):
        answer(news, both, "marketing")
    assert answer(news, both, "profiling") == {"profiling": "granted"}
    assert answer(news, one, "marketing") == {"marketing": "granted"}


def test_the_deadline_is_the_policys_the_shortest_of_several(news: Database, anna: int) -> None:
    days = (
        "select extract(day from respond_until - statement_timestamp())::int"
        " from gdpr.request_consent(%s, %s, 'paper')"
    )
    for purposes, left in ((["marketing"], 14), (["marketing", "profiling"], 7)):
        assert news.rows(days, [anna, purposes], user="dpo_login") in ([(left,)], [(left - 1,)])


def test_the_portal_shows_what_was_asked_in_the_persons_language(news: Database) -> None:
    shown = {}
    for key in (1, 2, 3):
        token = ask(news, subject(news, "crm.customer", key))
        shown[key] = news.rows("select gdpr.portal_form(%s)", [token], user="portal_app")[0][0]
    assert [shown[key]["language"] for key in (1, 2, 3)] == ["de", "en", "ja"]
    assert shown[1]["title"] == "Dürfen wir?"
    assert shown[1]["statement"] == "Dürfen wir?\nYes or no."
    assert shown[1]["purposes"] == [
        {
            "name": "marketing",
            "description": "Newsletters and offers",
            "status": "waiting",
            "channels": None,
            "answerable": True,
        }
    ]
    assert not any(word in json.dumps(shown) for word in ("Ahrens", "anna@", "subject"))


def test_partial_consent_by_channel(news: Database, anna: int) -> None:
    may = (
        "select array(select c from unnest('{mail,phone,post,social}'::text[]) c"
        " where gdpr.may_contact(%s, c, 'marketing'))"
    )
    token = ask(news, anna)
    assert sees(news, 1)
    assert news.rows(may, [anna], user="dpo_login") == [([],)], "no contact while waiting"
    with refused("PR004", "invalid_argument"):
        answer(news, token, "marketing", channels=["post"])
    answer(news, token, "marketing", channels=["phone"])
    assert news.rows(may, [anna], user="dpo_login") == [(["phone"],)]
    answer(news, ask(news, anna), "marketing")
    assert news.rows(may, [anna], user="dpo_login") == [(["mail", "phone"],)]
    news.rows("select gdpr.restrict(%s, 'legal_claims')", [anna], user="dpo_login")
    assert news.rows(may, [anna], user="dpo_login") == [([],)]


def test_contact_for_a_purpose_that_needs_no_consent(news: Database, anna: int) -> None:
    ask_app = "select gdpr.may_contact(%s, 'post', 'orders')"
    assert news.rows(ask_app, [anna], user="crm_app") == [(True,)]
    news.rows(
        "select gdpr.record_basis(%s, 'orders', 'public_task'), gdpr.object_to(%s, 'orders')",
        [anna, anna],
        user="dpo_login",
    )
    assert news.rows(ask_app, [anna], user="crm_app") == [(False,)]
    with refused("42501", "purpose_not_held"):
        news.rows("select gdpr.may_contact(%s, 'post', 'analytics')", [anna], user="crm_app")
    with refused("PR004", "invalid_argument"):
        news.rows("select gdpr.may_contact(%s, 'pigeon', 'orders')", [anna], user="crm_app")


@pytest.mark.parametrize("channel", ["phone", "paper"])
@pytest.mark.parametrize(
    "evidence",
    [None, "{}", "[]", '"yes"', '{"who": "W", "when": "now", "how": " ", "reference": "1"}'],
)
def test_consent_by_phone_or_on_paper_needs_evidence(
    news: Database, anna: int, channel: str, evidence: str | None
) -> None:
    with refused("PR304", "evidence_missing"):
        news.rows(
            "select gdpr.record_consent(%s, 'marketing', true, %s, %s)",
            [anna, channel, evidence],
            user="dpo_login",
        )


def test_evidence_is_shown_to_the_officer_alone(news: Database, anna: int) -> None:
    news.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'paper', %s)",
        [anna, EVIDENCE],
        user="dpo_login",
    )
    read = "select evidence ->> 'reference' from gdpr.consent_history where event = 'granted'"
    assert news.rows(read, user="dpo_login") == [("T-88",)]
    assert news.rows(read, user="auditor_login") == [(None,)]


def test_a_form_in_the_mail_is_answered_on_paper(news: Database, anna: int) -> None:
    """No token is made; the number of the question is in the form, and leads staff to it."""
    ((request,),) = news.rows(
        "select request_id from gdpr.request_consent(%s, '{marketing,profiling}', 'email', 'news',"
        " p_attach_form => true)",
        [anna],
        user="dpo_login",
    )
    messages = news.rows(
        "select gdpr_internal.open_evidence(subject_id, message)::jsonb from gdpr_internal.outbox",
        user="postgres",
    )
    assert len(messages) == 2
    for (message,) in messages:
        assert (message["attach_form"], message["token"]) == (True, None)
        assert message["reference"] == str(request)
        assert message["title"] == "Dürfen wir?"
        assert message["channels"] == ["mail", "phone"]
    assert news.rows("select count(*) from gdpr_internal.token", user="postgres") == [(0,)]
    asked = "select distinct subject_id from gdpr.consent where request_id = %s"
    assert news.rows(asked, [request], user="dpo_login") == [(anna,)]
    for purpose, granted in (("marketing", True), ("profiling", False)):
        news.rows(
            "select gdpr.record_consent(%s, %s, %s, 'paper', %s, p_contact => '{mail}')",
            [anna, purpose, granted, EVIDENCE.replace("T-88", str(request))],
            user="dpo_login",
        )
    answers = news.rows(
        "select event, request_id, form_id is not null from gdpr.consent_history"
        " where event <> 'asked' order by at",
        user="auditor_login",
    )
    assert answers == [("granted", request, True), ("declined", request, True)]
    assert news.rows("select count(*) from gdpr_internal.outbox", user="postgres") == [(0,)]


def test_a_mail_asks_and_another_reminds_until_the_answer(news: Database, anna: int) -> None:
    ask(news, anna, channel="email")
    waiting = news.rows(
        "select template, language, due_at - queued_at >= interval '10 days',"
        " expires_at - queued_at > '13 days' from gdpr_internal.outbox order by id",
        user="postgres",
    )
    assert waiting == [
        ("consent_request", "de", False, True),
        ("consent_reminder", "de", True, True),
    ]
    messages = [
        json.loads(text)
        for (text,) in news.rows(
            "select gdpr_internal.open_evidence(subject_id, message) from gdpr_internal.outbox"
            " order by id",
            user="postgres",
        )
    ]
    assert messages[0] == messages[1]
    assert messages[0]["to"] == "anna@example.com"
    assert messages[0]["purposes"] == ["Newsletters and offers"]
    assert messages[0]["statement"] == "Dürfen wir?\nYes or no."
    assert answer(news, messages[0]["token"], "marketing") == {"marketing": "granted"}
    assert news.rows("select count(*) from gdpr_internal.outbox", user="postgres") == [(0,)]


def test_a_mail_is_called_back_when_the_person_is_asked_anew(news: Database, anna: int) -> None:
    ask(news, anna, channel="email")
    ask(news, anna, channel="phone")
    assert news.rows("select count(*) from gdpr_internal.outbox", user="postgres") == [(0,)]


@pytest.mark.parametrize(
    ("call", "code", "name"),
    [
        ("request_consent(999, '{marketing}', 'email')", "PR101", "unknown_subject"),
        ("request_consent(ID, '{fun}', 'email')", "PR003", "unknown_purpose"),
        ("request_consent(ID, '{}', 'email')", "PR004", "invalid_argument"),
        ("request_consent(ID, null, 'email')", "PR004", "invalid_argument"),
        ("request_consent(ID, '{orders}', 'email')", "PR302", "consent_not_asked"),
        ("request_consent(ID, '{marketing}', 'pigeon')", "PR004", "invalid_argument"),
        ("request_consent(ID, '{marketing}', null)", "PR004", "invalid_argument"),
        ("request_consent(ID, '{marketing}', 'paper', 'none')", "PR305", "form_refused"),
        (
            "request_consent(ID, '{marketing}', 'email', p_attach_form => true)",
            "PR004",
            "invalid_argument",
        ),
        (
            "request_consent(ID, '{marketing}', 'paper', 'news', p_attach_form => true)",
            "PR004",
            "invalid_argument",
        ),
        (
            "request_consent(ID, '{marketing}', 'paper', null, '-1 day')",
            "PR004",
            "invalid_argument",
        ),
        ("record_consent(ID, 'marketing', true, 'api', p_form => 0)", "PR305", "form_refused"),
        (
            "record_consent(ID, 'marketing', true, 'api', p_contact => '{fax}')",
            "PR004",
            "invalid_argument",
        ),
    ],
)
def test_a_question_that_cannot_be_asked(
    news: Database, anna: int, call: str, code: str, name: str
) -> None:
    with refused(code, name):
        news.rows(f"select gdpr.{call.replace('ID', str(anna))}", user="dpo_login")


def test_who_may_not_be_asked(news: Database, anna: int) -> None:
    bela, chie = subject(news, "crm.customer", 2), subject(news, "crm.customer", 3)
    news.rows("select gdpr.restrict(%s, 'legal_claims')", [anna], user="dpo_login")
    news.rows("select gdpr.object_to(%s, 'marketing')", [bela], user="dpo_login")
    news.rows("select gdpr.erase(%s)", [chie], user="dpo_login")
    nobody = news.rows(
        "insert into crm.lead (full_name) values ('N. N.') returning gdpr_subject_id",
        user="postgres",
    )[0][0]
    call = "select gdpr.request_consent(%s, '{marketing}', 'email')"
    for person, code, name in (
        (anna, "PR601", "restricted"),
        (bela, "PR602", "objected"),
        (chie, "PR603", "erased"),
        (nobody, "PR306", "no_address"),
    ):
        with refused(code, name):
            news.rows(call, [person], user="dpo_login")
    dora = subject(news, "crm.lead", 2)
    asked = news.rows(
        "select subject_id from gdpr.request_consents(%s, '{marketing}', 'email')",
        [[anna, bela, chie, dora, nobody, 999, None]],
        user="dpo_login",
    )
    assert asked == [(dora,)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"purposes__orders__remind": "1 day"}, "remind, valid_for and while_waiting are for"),
        ({"purposes__marketing__remind": "1 day"}, "no deadline to remind of"),
        (
            {
                "purposes__marketing": {
                    "basis": "consent",
                    "remind": "3 days",
                    "respond_within": "2 days",
                }
            },
            "shorter than respond_within",
        ),
        (
            {
                "purposes__marketing": {
                    "basis": "consent",
                    "remind": "soon",
                    "respond_within": "2 days",
                }
            },
            "not a duration",
        ),
        ({"tables__crm.customer__columns__city": {"language": "de"}}, "language: true or false"),
        (
            {"tables__crm.customer__columns__birth_date": {"language": True}},
            "language: is for text",
        ),
        ({"settings__controller": {"email": "a@b.example"}}, "settings.controller.name"),
        ({"settings__controller": {"name": "X", "fax": "1"}}, "unknown setting"),
        ({"settings__controller": "X"}, "table of settings"),
    ],
)
def test_a_policy_that_asks_wrongly(crm: Database, changes: dict[str, Any], reason: str) -> None:
    assert any(reason in line for line in problems(crm, policy(**changes)))


def test_only_those_who_may_ask(news: Database, anna: int) -> None:
    calls = (
        f"select gdpr.request_consent({anna}, '{{marketing}}', 'paper')",
        f"select * from gdpr.request_consents('{{{anna}}}', '{{marketing}}', 'paper')",
    )
    for user in ("crm_app", "metabase", "auditor_login", "portal_app"):
        for call in calls:
            with refused("42501"):
                news.rows(call, user=user)
    set_up(news, roles__crm_app__may=["consent"])
    for call in calls:
        assert len(news.rows(call, user="crm_app")) == 1


def test_erasure_kills_the_tokens(news: Database, anna: int) -> None:
    token = ask(news, anna)
    news.rows("select gdpr.erase(%s)", [anna], user="dpo_login")
    for call in ("portal_form(%s)", "answer_consent(%s, '{}')", "portal_withdraw(%s)"):
        with refused("PR303", "token_refused"):
            news.rows(f"select gdpr.{call}", [token], user="portal_app")


def test_two_answers_at_once_are_one(news: Database, anna: int) -> None:
    """The portal's answer waits for the phone's, and comes too late."""
    token = ask(news, anna)
    phone = news.connect("dpo_login", autocommit=False)
    phone.execute("select gdpr.record_consent(%s, 'marketing', false, 'phone')", [anna])
    portal = news.connect("portal_app")
    portal.execute("set lock_timeout = '200 ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        portal.execute("select gdpr.answer_consent(%s, '{marketing}')", [token])
    phone.commit()
    with refused("PR303", "token_refused"):
        portal.execute("select gdpr.answer_consent(%s, '{marketing}')", [token])
    assert status(news, anna) == "declined"


def test_the_time_zone_of_the_session_moves_no_deadline(news: Database, anna: int) -> None:
    """A day is a day in the zone of the policy, DST or not, whoever asks."""
    ends = set()
    for zone in ("America/New_York", "Pacific/Kiritimati", "UTC"):
        officer = news.connect("dpo_login", options=f"-c TimeZone={zone}")
        row = officer.execute(
            "select (respond_until - statement_timestamp())::text"
            " from gdpr.request_consent(%s, '{profiling}', 'paper', null, '200 days')",
            [anna],
        ).fetchone()
        assert row is not None
        ends.add(row[0])
    assert ends == {"200 days"}
