"""Station 60: restriction with its exceptions, told before it ends; objection, and who decides."""

from __future__ import annotations

import json

import pytest

from tests.capabilities.consents import EVIDENCE, sees
from tests.capabilities.crm import apply, policy, refused, subject
from tests.capabilities.test_60_requests import ask
from tests.support import Database

COUNT = "select count(*) from gdpr_clear.customer"
WHY = json.dumps({"claim": "case 7 O 12/26"})
SOON = "statement_timestamp() + interval '1 day'"


@pytest.fixture
def anna(crm: Database) -> int:
    """The number of a customer who is a lead, too."""
    return subject(crm, "crm.customer", 1)


def officer(crm: Database, call: str, *values: object) -> object:
    """A call of the data protection officer."""
    return ask(crm, f"select gdpr.{call}", *values)


def analytics(crm: Database) -> int:
    """How many customers analysts see."""
    return int(ask(crm, "select count(*) from gdpr_bi.customer", user="metabase"))


# ---------------------------------------------------------------- restriction


def test_restriction_hides_from_all_but_the_officer_until_lifted(crm: Database, anna: int) -> None:
    app = crm.connect("crm_app", autocommit=False)
    assert app.execute(COUNT.encode()).fetchone() == (3,)
    first = officer(crm, "restrict(%s, 'accuracy_contested')", anna)
    second = officer(crm, "restrict(%s, 'other')", anna)
    assert first != second
    assert app.execute(COUNT.encode()).fetchone() == (2,)
    assert analytics(crm) == 2
    assert crm.rows(COUNT, user="dpo_login") == [(3,)]
    assert ask(crm, "select restricted from gdpr.subject where subject_id = %s", anna) is True
    with refused("PR004", "invalid_argument"):
        officer(crm, "lift_restriction(%s, null)", anna)
    assert officer(crm, "announce_lifting(%s, 'phone', %s)", anna, EVIDENCE) == 2
    assert officer(crm, "lift_restriction(%s, 'corrected')", anna) == 2
    assert officer(crm, "lift_restriction(%s, 'corrected')", anna) == 0
    assert officer(crm, "announce_lifting(%s)", anna) == 0
    assert app.execute(COUNT.encode()).fetchone() == (3,)
    assert crm.rows(
        "select ground, lifting_announced, end_reason from gdpr.restriction order by 1",
        user="dpo_login",
    ) == [("accuracy_contested", True, "corrected"), ("other", True, "corrected")]


def test_the_person_is_told_by_mail_though_restricted(crm: Database, anna: int) -> None:
    apply(crm, policy(roles__mailer={"audience": "mail"}))
    officer(crm, "restrict(%s, 'legal_claims')", anna)
    assert officer(crm, "announce_lifting(%s)", anna) == 1
    post = crm.connect("mailer")
    ((number,),) = post.execute("select gdpr.next_mail()").fetchall()
    ((template, message),) = post.execute(
        "select template, message from gdpr.open_mail(%s)", [number]
    ).fetchall()
    assert (template, message["to"]) == ("rights_lifting", "anna@example.com")
    assert officer(crm, "lift_restriction(%s, 'the claim was settled')", anna) == 1
    assert told(crm, anna) == 1


def told(crm: Database, person: int) -> int:
    """How many mails about a lifting wait or left."""
    query = "select count(*) from gdpr.outbox where template = 'rights_lifting' and subject_id = %s"
    return int(ask(crm, query, person))


def test_who_lifts_without_a_word_tells_the_person_by_mail(crm: Database, anna: int) -> None:
    officer(crm, "restrict(%s, 'legal_claims')", anna)
    officer(crm, "announce_lifting(%s, 'post', %s)", anna, EVIDENCE)
    # a notice does not cover a later restriction
    officer(crm, "restrict(%s, 'unlawful_processing')", anna)
    assert told(crm, anna) == 0
    assert officer(crm, "lift_restriction(%s, 'x')", anna) == 2
    assert told(crm, anna) == 1


def test_the_words_in_the_reason_tell_nobody(crm: Database) -> None:
    ((nobody,),) = crm.rows(
        "insert into crm.lead (full_name) values ('N. N.') returning gdpr_subject_id",
        user="postgres",
    )
    officer(crm, "restrict(%s, 'accuracy_contested')", nobody)
    with refused("PR612", "lifting_not_announced"):
        officer(crm, "lift_restriction(%s, 'she was told')", nobody)
    officer(crm, "announce_lifting(%s, 'phone', %s)", nobody, EVIDENCE)
    assert officer(crm, "lift_restriction(%s, 'corrected')", nobody) == 1


def test_telling_needs_evidence_or_an_address(crm: Database, anna: int) -> None:
    officer(crm, "restrict(%s, 'legal_claims')", anna)
    with refused("PR304", "evidence_missing"):
        officer(crm, "announce_lifting(%s, 'post', %s)", anna, '{"who": "K. Weber"}')
    with refused("PR004", "invalid_argument"):
        officer(crm, "announce_lifting(%s, 'pigeon')", anna)
    ((nobody,),) = crm.rows(
        "insert into crm.lead (full_name) values ('N. N.') returning gdpr_subject_id",
        user="postgres",
    )
    officer(crm, "restrict(%s, 'legal_claims')", nobody)
    with refused("PR306", "no_address"):
        officer(crm, "announce_lifting(%s)", nobody)


# ---------------------------------------------------------------- exceptions


def test_an_exception_opens_one_purpose_and_ends(crm: Database, anna: int) -> None:
    officer(crm, "restrict(%s, 'accuracy_contested')", anna)
    call = f"except_from_restriction(%s, 'orders', 'legal_claims', {SOON}, %s)"
    number = officer(crm, call, anna, WHY)
    assert sees(crm, 1, "orders")
    assert not sees(crm, 1, "marketing")
    assert analytics(crm) == 2
    assert crm.rows("select id from gdpr_clear.customer where id = 2", user="crm_app") == [(2,)]
    crm.rows("insert into gdpr_clear.\"order\" (customer_id, note) values (1, 'x')", user="crm_app")
    officer(crm, "end_exception(%s, 'the case is closed')", number)
    assert not sees(crm, 1, "orders")
    with refused("PR613", "exception_refused"):
        officer(crm, "end_exception(%s, 'again')", number)
    shown = crm.rows(
        "select purpose, ground, end_reason, details from gdpr.restriction_exception",
        user="auditor_login",
    )
    assert shown == [("orders", "legal_claims", None, None)]
    assert ask(crm, "select details from gdpr.restriction_exception") == json.loads(WHY)


def test_an_exception_ends_by_itself_at_its_instant(crm: Database, anna: int) -> None:
    officer(crm, "restrict(%s, 'accuracy_contested')", anna)
    crm.rows(
        "select gdpr.except_from_restriction(%s, 'orders', 'public_interest',"
        " statement_timestamp() + interval '1 s', %s)",
        [anna, WHY],
        user="dpo_login",
    )
    assert sees(crm, 1, "orders")
    crm.rows("select pg_sleep(1.05)")
    assert not sees(crm, 1, "orders")


def test_an_exception_opens_nothing_that_no_basis_carries(crm: Database, anna: int) -> None:
    officer(crm, "restrict(%s, 'accuracy_contested')", anna)
    call = f"except_from_restriction(%s, 'marketing', 'legal_claims', {SOON}, %s)"
    officer(crm, call, anna, WHY)
    assert not sees(crm, 1, "marketing")


def test_by_consent_that_is_newer_than_the_restriction(crm: Database, anna: int) -> None:
    granted = "record_consent(%s, 'marketing', true, 'in_person')"
    officer(crm, granted, anna)
    officer(crm, "restrict(%s, 'accuracy_contested')", anna)
    call = f"except_from_restriction(%s, 'marketing', 'consent', {SOON})"
    with refused("PR613", "exception_refused"):
        officer(crm, call, anna)
    officer(crm, granted, anna)
    assert not sees(crm, 1, "marketing")
    officer(crm, call, anna)
    assert sees(crm, 1, "marketing")
    assert not sees(crm, 1, "orders")
    officer(crm, "withdraw_consent(%s, 'marketing')", anna)
    assert not sees(crm, 1, "marketing")


@pytest.mark.parametrize(
    ("call", "code", "name"),
    [
        (f"1, 'orders', 'because', {SOON}, '{WHY}'", "PR004", "invalid_argument"),
        (f"1, 'orders', 'legal_claims', {SOON}", "PR004", "invalid_argument"),
        (f"1, 'orders', 'legal_claims', '2020-01-01', '{WHY}'", "PR004", "invalid_argument"),
        (f"1, 'orders', 'legal_claims', 'infinity', '{WHY}'", "PR004", "invalid_argument"),
        (f"1, 'fun', 'legal_claims', {SOON}, '{WHY}'", "PR003", "unknown_purpose"),
        (f"1, 'compliance', 'legal_claims', {SOON}, '{WHY}'", "PR204", "built_in_purpose"),
        (f"1, 'orders', 'consent', {SOON}", "PR613", "exception_refused"),
        (f"2, 'orders', 'legal_claims', {SOON}, '{WHY}'", "PR613", "exception_refused"),
        (f"999, 'orders', 'legal_claims', {SOON}, '{WHY}'", "PR101", "unknown_subject"),
    ],
)
def test_no_such_exception(same: Database, call: str, code: str, name: str) -> None:
    officer(same, "restrict(1, 'accuracy_contested')")
    with refused(code, name):
        officer(same, f"except_from_restriction({call})")


# ---------------------------------------------------------------- objection


def test_direct_marketing_ends_at_once_and_for_good(crm: Database, anna: int) -> None:
    officer(crm, "record_consent(%s, 'marketing', true, 'in_person')", anna)
    assert sees(crm, 1, "marketing")
    officer(crm, "object_to(%s, 'marketing')", anna)
    assert not sees(crm, 1, "marketing")
    officer(crm, "record_consent(%s, 'marketing', true, 'in_person')", anna)
    assert not sees(crm, 1, "marketing")
    with refused("PR615", "no_objection"):
        officer(
            crm,
            "decide_objection(%s, 'marketing', 'overridden', 'compelling_grounds', %s)",
            anna,
            WHY,
        )
    officer(crm, "decide_objection(%s, 'marketing', 'taken_back', null, %s)", anna, WHY)
    assert sees(crm, 1, "marketing")
    officer(crm, "object_to(%s, 'marketing')", anna)
    assert not sees(crm, 1, "marketing")


def test_another_objection_closes_one_purpose_until_it_is_decided(crm: Database, anna: int) -> None:
    officer(crm, "object_to(%s, 'analytics', %s)", anna, '{"why": "my situation"}')
    officer(crm, "object_to(%s, 'analytics')", anna)
    assert analytics(crm) == 2
    assert crm.rows(COUNT, user="crm_app") == [(3,)]
    officer(crm, "record_basis(%s, 'analytics', 'legitimate_interests', 'new interest')", anna)
    assert analytics(crm) == 2
    overridden = "decide_objection(%s, 'analytics', 'overridden', 'compelling_grounds', %s)"
    with refused("PR612", "lifting_not_announced"):
        officer(crm, overridden, anna, WHY)
    assert officer(crm, "announce_lifting(%s, 'post', %s)", anna, EVIDENCE) == 1
    officer(crm, overridden, anna, WHY)
    assert analytics(crm) == 3
    assert crm.rows("select status, ground, details from gdpr.objection", user="auditor_login") == [
        ("overridden", "compelling_grounds", None)
    ]
    # new circumstances: she may object again
    officer(crm, "object_to(%s, 'analytics')", anna)
    assert analytics(crm) == 2
    officer(crm, "decide_objection(%s, 'analytics', 'upheld')", anna)
    with refused("PR615", "no_objection"):
        officer(crm, "decide_objection(%s, 'analytics', 'upheld')", anna)
    assert analytics(crm) == 2
    officer(crm, "decide_objection(%s, 'analytics', 'taken_back', null, %s)", anna, WHY)
    assert analytics(crm) == 3


@pytest.mark.parametrize("basis", [None, "public_task"])
def test_an_officer_may_honour_more_than_the_law_asks(
    crm: Database, anna: int, basis: str | None
) -> None:
    """A contract is not open to objection; a public task is, and is then decided about."""
    if basis:
        officer(crm, "record_basis(%s, 'orders', %s)", anna, basis)
    officer(crm, "object_to(%s, 'orders')", anna)
    assert not sees(crm, 1, "orders")
    assert ask(crm, "select status from gdpr.objection") == ("pending" if basis else "upheld")


@pytest.mark.parametrize(
    ("call", "code", "name"),
    [
        ("restrict(999, 'other')", "PR101", "unknown_subject"),
        ("restrict(1, 'because')", "PR004", "invalid_argument"),
        ("restrict(1, null)", "PR004", "invalid_argument"),
        ("lift_restriction(999, 'x')", "PR101", "unknown_subject"),
        ("announce_lifting(999)", "PR101", "unknown_subject"),
        ("object_to(1, 'fun')", "PR003", "unknown_purpose"),
        ("object_to(999, 'analytics')", "PR101", "unknown_subject"),
        ("decide_objection(1, 'analytics', 'upheld')", "PR615", "no_objection"),
        ("decide_objection(1, 'analytics', 'maybe')", "PR004", "invalid_argument"),
        ("decide_objection(1, 'analytics', 'overridden')", "PR004", "invalid_argument"),
        ("decide_objection(1, 'analytics', 'upheld', 'legal_claims')", "PR004", "invalid_argument"),
        ("decide_objection(1, 'analytics', 'taken_back')", "PR004", "invalid_argument"),
        ("end_exception(999, 'x')", "PR613", "exception_refused"),
        ("end_exception(999, '')", "PR004", "invalid_argument"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused(
    same: Database, call: str, code: str, name: str
) -> None:
    with refused(code, name):
        officer(same, call)


def test_rights_are_the_officers(same: Database) -> None:
    for user in ("crm_app", "metabase", "auditor_login", "portal_app"):
        for call in (
            "restrict(1, 'other')",
            "announce_lifting(1)",
            "lift_restriction(1, 'x')",
            f"except_from_restriction(1, 'orders', 'legal_claims', {SOON}, '{WHY}')",
            "end_exception(1, 'x')",
            "object_to(1, 'orders')",
            "decide_objection(1, 'orders', 'upheld')",
        ):
            with refused("42501"):
                same.rows(f"select gdpr.{call}", user=user)
