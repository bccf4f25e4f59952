"""Station 20: legitimate interests rest on an assessment that somebody else approved, until it
is due for review."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.capabilities.crm import POLICY, apply, findings, policy, refused
from tests.support import Database, Prepared, assess

SEEN = "select count(*) from gdpr_bi.customer"
RECORD = "select gdpr.record_assessment('analytics', 'i', 'n', 'b', '2099-12-31')"


def under_policy(shop: Database) -> None:
    """Apply the policy, and assess nothing."""
    apply(shop, POLICY)


@pytest.fixture
def fresh(prepared: Prepared, shop_template: str) -> Iterator[Database]:
    """Under the policy, with nothing assessed and no grace."""
    with prepared(shop_template, under_policy) as database:
        yield database


def states(crm: Database) -> list[tuple[int, str]]:
    """Version and status of the assessments."""
    return crm.rows(
        "select version, status from gdpr.assessment order by version", user="auditor_login"
    )


def test_without_an_approved_assessment_there_is_no_such_basis(fresh: Database) -> None:
    assert fresh.rows(SEEN, user="metabase") == [(0,)]
    assert fresh.rows(
        "select count(*) from gdpr.basis where purpose = 'analytics'", user="dpo_login"
    ) == [(0,)]
    ((number,),) = fresh.rows(RECORD)
    assert states(fresh) == [(1, "draft")]
    assert fresh.rows(SEEN, user="metabase") == [(0,)]
    for call in ("'x'", f"'x', p_assessment => {number}"):
        with refused("PR205", "assessment_missing"):
            fresh.rows(
                f"select gdpr.record_basis(1, 'analytics', 'legitimate_interests', {call})",
                user="dpo_login",
            )


def test_the_author_cannot_approve(fresh: Database) -> None:
    ((number,),) = fresh.rows(RECORD, user="dpo_login")
    officer = fresh.connect("dpo_login")
    officer.execute("set role gdpr_dpo")
    with refused("PR206", "four_eyes"):
        officer.execute("select gdpr.approve_assessment(%s)", [number])
    fresh.rows("select gdpr.approve_assessment(%s)", [number])
    assert fresh.rows("select author, approver from gdpr.assessment", user="auditor_login") == [
        ("dpo_login", "db_owner")
    ]


def test_approval_opens_what_rests_on_it_for_old_and_new_rows(fresh: Database) -> None:
    number = assess(fresh, "analytics")
    assert states(fresh) == [(1, "in_force")]
    assert fresh.rows(SEEN, user="metabase") == [(3,)]
    fresh.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('n@example.com', 'N')",
        user="crm_app",
    )
    assert fresh.rows(SEEN, user="metabase") == [(4,)]
    fresh.rows(
        "select gdpr.record_basis(1, 'analytics', 'legitimate_interests', 'x')", user="dpo_login"
    )
    assert fresh.rows(
        "select assessment_id from gdpr.basis where reason = 'x'", user="dpo_login"
    ) == [(number,)]
    assert {topic for topic, _ in findings(fresh)} == set()
    assert apply(fresh, POLICY) == []


def test_when_the_review_is_due_the_basis_no_longer_holds_and_renewal_brings_it_back(
    fresh: Database,
) -> None:
    """At that instant, in an open transaction, with no job; and back for all with one call."""
    number = assess(fresh, "analytics")
    soon = "statement_timestamp() + interval '700 ms'"
    # a day is the shortest that the functions take
    fresh.rows(
        f"update gdpr_internal.purpose set assessed_until = {soon} where name = 'analytics'",
        user="postgres",
    )
    fresh.rows(
        "alter table gdpr_internal.assessment_decision disable trigger gdpr_50_append_only;"
        f"update gdpr_internal.assessment_decision set review_at = {soon};"
        "alter table gdpr_internal.assessment_decision enable always trigger gdpr_50_append_only;"
        "select gdpr_internal.follow_assessment("
        "(select id from gdpr_internal.purpose where name = 'analytics'))",
        user="postgres",
    )
    app = fresh.connect("metabase", autocommit=False)
    assert app.execute(SEEN).fetchone() == (3,)
    fresh.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('n@example.com', 'N')",
        user="crm_app",
    )
    assert app.execute(SEEN).fetchone() == (4,)
    time.sleep(0.8)
    assert app.execute(SEEN).fetchone() == (0,)
    assert states(fresh) == [(1, "review_due")]
    assert fresh.rows(
        "select distinct status, holds from gdpr.basis where purpose = 'analytics'",
        user="dpo_login",
    ) == [("review_due", False)]
    fresh.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('m@example.com', 'M')",
        user="crm_app",
    )
    assert app.execute(SEEN).fetchone() == (0,)
    fresh.rows("select gdpr.tidy_gates()")
    assert app.execute(SEEN).fetchone() == (0,)
    fresh.rows(
        "select gdpr.approve_assessment(%s, '2098-12-31', 'reviewed')", [number], user="dpo_login"
    )
    assert app.execute(SEEN).fetchone() == (5,)
    assert states(fresh) == [(1, "in_force")]


def test_rejection_closes_at_once_and_an_earlier_version_takes_over(fresh: Database) -> None:
    first = assess(fresh, "analytics")
    second = assess(fresh, "analytics")
    assert states(fresh) == [(1, "superseded"), (2, "in_force")]
    reject = "select gdpr.reject_assessment(%s, 'not balanced')"
    with refused("PR004", "invalid_argument"):
        fresh.rows("select gdpr.reject_assessment(%s, '')", [second], user="dpo_login")
    fresh.rows(reject, [second], user="dpo_login")
    assert states(fresh) == [(1, "in_force"), (2, "rejected")]
    assert fresh.rows(SEEN, user="metabase") == [(3,)]
    fresh.rows(reject, [first], user="dpo_login")
    assert fresh.rows(SEEN, user="metabase") == [(0,)]


def test_a_basis_that_was_ended_is_not_brought_back_by_an_assessment(fresh: Database) -> None:
    """Approval gives legitimate interests, and nothing else anew."""
    fresh.rows(
        "select gdpr.end_bases(array(select basis_id from gdpr.basis where subject_id = 2),"
        " 'over')",
        user="dpo_login",
    )
    assess(fresh, "analytics")
    assert fresh.rows(
        "select purpose from gdpr.basis where subject_id = 2 and holds", user="dpo_login"
    ) == [("analytics",)]


@pytest.mark.parametrize(
    "arguments",
    [
        "'analytics', '', 'n', 'b', '2099-12-31'",
        "'analytics', 'i', null, 'b', '2099-12-31'",
        "'analytics', 'i', 'n', 'b', null",
        "'analytics', 'i', 'n', 'b', 'infinity'",
        "'analytics', 'i', 'n', 'b', '2001-01-01'",
    ],
)
def test_an_assessment_is_whole_and_has_a_day_of_review(fresh: Database, arguments: str) -> None:
    with refused("PR004", "invalid_argument"):
        fresh.rows(f"select gdpr.record_assessment({arguments})", user="dpo_login")


def test_assessing_is_for_officers_and_roles_that_may(fresh: Database) -> None:
    number = assess(fresh, "analytics")
    for user in ("crm_app", "metabase", "portal_app", "auditor_login"):
        for call in (
            RECORD,
            f"select gdpr.approve_assessment({number})",
            f"select gdpr.reject_assessment({number}, 'x')",
        ):
            with refused("42501"):
                fresh.rows(call, user=user)


def test_the_doctor_names_purposes_without_assessment(fresh: Database) -> None:
    found = "select severity, object from gdpr.doctor() where topic = 'assessment'"
    assert fresh.rows(found) == [("warning", "analytics")]
    ((number,),) = fresh.rows(
        "select gdpr.record_assessment('analytics', 'i', 'n', 'b', current_date + 7)"
    )
    fresh.rows("select gdpr.approve_assessment(%s)", [number], user="dpo_login")
    assert fresh.rows(found) == [("info", "analytics")]


def test_existing_rows_have_a_grace_period_until_somebody_decides(shop: Database) -> None:
    apply(shop, policy(purposes__analytics={"basis": "legitimate_interests"}))
    assert shop.rows(SEEN, user="metabase") == [(3,)]
    shop.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('n@example.com', 'N')",
        user="crm_app",
    )
    assert shop.rows(SEEN, user="metabase") == [(3,)]
    ((number,),) = shop.rows(RECORD)
    shop.rows("select gdpr.reject_assessment(%s, 'no')", [number], user="dpo_login")
    assert shop.rows(SEEN, user="metabase") == [(0,)]
