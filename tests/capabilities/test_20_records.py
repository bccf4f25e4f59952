"""Station 20: what a recorded basis says, for one person and for many, and what it does to the
gate."""

from __future__ import annotations

import json

import pytest

from tests.capabilities.crm import apply, policy, refused, subject
from tests.support import Database

OPEN = "select id from gdpr_clear.customer order by id"


def marketing(crm: Database) -> list[int]:
    """Customers whom the application may write to."""
    app = crm.connect("crm_app")
    app.execute("set gdpr.purpose = 'marketing'")
    return [key for (key,) in app.execute(OPEN)]


def test_a_record_says_who_why_from_when_until_when_and_shows_what(crm: Database) -> None:
    officer = crm.connect("dpo_login", autocommit=False)
    officer.execute("select set_config('gdpr.actor', 'Olga', true)")
    (number,) = officer.execute(
        "select gdpr.record_basis(1, 'marketing', 'contract', 'club member', '2099-01-01', null,"
        " '2020-01-01', '{\"letter\": \"L-17\"}')"
    ).fetchone() or (0,)
    officer.commit()
    question = (
        "select basis, reason, valid_from::date::text, valid_until::date::text, holds, status,"
        " recorded_by, actor, evidence from gdpr.basis where basis_id = %s"
    )
    record = (
        "contract",
        "club member",
        "2020-01-01",
        "2099-01-01",
        True,
        "holds",
        "dpo_login",
        "Olga",
    )
    assert crm.rows(question, [number], user="dpo_login") == [(*record, {"letter": "L-17"})]
    assert crm.rows(question, [number], user="auditor_login") == [(*record, None)]
    ((stored,),) = crm.rows(
        "select evidence from gdpr_internal.basis_record where id = %s", [number], user="postgres"
    )
    assert stored.startswith("gdpr1:")
    assert crm.rows(
        "select old ->> 'purpose' from gdpr.audit_log where operation = 'BASIS'"
        " and subject_id = 1 and (old ->> 'basis_id')::bigint = %s",
        [number],
        user="auditor_login",
    ) == [("marketing",)]


def test_evidence_goes_with_the_person(crm: Database) -> None:
    crm.rows(
        "select gdpr.record_basis(1, 'orders', 'legal_obligation', 'tax',"
        " p_evidence => '{\"letter\": 1}')",
        user="dpo_login",
    )
    crm.rows("select gdpr.erase(1)", user="dpo_login")
    assert crm.rows(
        "select evidence from gdpr.basis where subject_id = 1 and reason = 'tax'", user="dpo_login"
    ) == [(None,)]


def test_a_basis_of_the_future_opens_by_itself_and_is_tidied(crm: Database) -> None:
    """The gate asks the evidence until the day comes; afterwards the row says it alone."""
    app = crm.connect("crm_app", autocommit=False)
    app.execute("set local gdpr.purpose = 'marketing'")
    crm.rows(
        "select gdpr.record_basis(1, 'marketing', 'contract', 'starts soon',"
        " p_valid_from => statement_timestamp() + interval '400 ms')",
        user="dpo_login",
    )
    assert app.execute(OPEN).fetchall() == []
    assert crm.rows(
        "select status from gdpr.basis where reason = 'starts soon'", user="dpo_login"
    ) == [("future",)]
    assert crm.rows("select gdpr.tidy_gates()") == [(0,)]
    app.execute("select pg_sleep(0.5)")
    assert app.execute(OPEN).fetchall() == [(1,)]
    app.commit()
    assert crm.rows("select gdpr.tidy_gates()") == [(1,)]
    assert crm.rows("select gdpr_until::text from crm.customer where id = 1", user="postgres") != [
        ("-infinity",)
    ]
    assert marketing(crm) == [1]


def test_many_persons_in_one_statement(crm: Database) -> None:
    """All of them or none; nulls and repetitions count for nothing."""
    call = "select gdpr.record_bases(%s, 'marketing', 'contract', 'club')"
    persons = [subject(crm, "crm.customer", key) for key in (1, 2)]
    assert crm.rows(call, [[*persons, None, persons[0]]], user="dpo_login") == [(2,)]
    assert marketing(crm) == [1, 2]
    assert crm.rows(call, [[]], user="dpo_login") == [(0,)]
    third = subject(crm, "crm.customer", 3)
    with refused("PR101", "unknown_subject"):
        crm.rows(call, [[third, 999]], user="dpo_login")
    crm.rows("select gdpr.erase(%s)", [persons[0]], user="dpo_login")
    with refused("PR603", "erased"):
        crm.rows(call, [[third, persons[0]]], user="dpo_login")
    assert marketing(crm) == [2]


def test_one_call_for_each_row_of_a_query(crm: Database) -> None:
    crm.rows("create role steward login in role gdpr_dpo", user="postgres")
    try:
        crm.rows("grant select on crm.customer to steward")
        crm.rows(
            "select gdpr.record_basis(gdpr_subject_id, 'marketing', 'contract', 'club')"
            " from crm.customer where city < 'C'",
            user="steward",
        )
    finally:
        crm.rows("drop owned by steward; drop role steward", user="postgres")
    assert marketing(crm) == [1, 2]


def test_many_ends_in_one_statement(crm: Database) -> None:
    crm.rows(
        "select gdpr.record_bases('{1,2,3}', 'marketing', 'contract', 'club')", user="dpo_login"
    )
    numbers = "array(select basis_id from gdpr.basis where reason = 'club' and subject_id < 3)"
    assert crm.rows(f"select gdpr.end_bases({numbers}, 'over')", user="dpo_login") == [(2,)]
    assert marketing(crm) == [3]
    with refused("PR203", "basis_ended"):
        crm.rows(f"select gdpr.end_bases({numbers}, 'over')", user="dpo_login")


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        ("1, 'orders', 'undetermined', 'x'", "PR202", "basis_refused"),
        (
            "1, 'orders', 'contract', 'x', '2099-01-01', null, '2099-01-02'",
            "PR202",
            "basis_refused",
        ),
        ("1, 'orders', 'contract', 'x', p_assessment => 1", "PR202", "basis_refused"),
        ("1, 'orders', 'contract', 'x', p_condition => 'curiosity'", "PR202", "basis_refused"),
        ("1, 'orders', 'legitimate_interests', 'x'", "PR205", "assessment_missing"),
        (
            "1, 'analytics', 'legitimate_interests', 'x', p_assessment => 99",
            "PR205",
            "assessment_missing",
        ),
    ],
)
def test_nothing_half_said_is_recorded(crm: Database, arguments: str, code: str, name: str) -> None:
    with refused(code, name):
        crm.rows(f"select gdpr.record_basis({arguments})", user="dpo_login")


def test_marketing_ends_and_bookkeeping_goes_on(shop: Database) -> None:
    """Consent withdrawn, invoices kept by law: marketing reads nothing, bookkeeping all, and
    nobody makes one into the other without a decision on record."""
    crm = shop
    new = policy(
        purposes__bookkeeping={"basis": "legal_obligation"},
        roles__crm_app={"audience": "clear", "purposes": ["marketing", "bookkeeping"]},
    )
    new["tables"]["crm.order"]["purposes"] = ["bookkeeping", "marketing", "analytics"]
    apply(crm, new)
    anna = subject(crm, "crm.customer", 1)
    crm.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [anna], user="dpo_login"
    )
    app = crm.connect("crm_app", autocommit=False)
    orders = 'select count(*) from gdpr_clear."order"'
    assert app.execute(orders).fetchone() == (2,)
    crm.rows("select gdpr.withdraw_consent(%s, 'marketing')", [anna], user="dpo_login")
    assert app.execute(orders).fetchone() == (0,)
    app.execute("set local gdpr.purpose = 'bookkeeping'")
    assert app.execute(orders).fetchone() == (4,)
    with refused("PR406", "gate_columns"):
        app.execute('update crm."order" set gdpr_purposes = -1')
    app.rollback()
    for relabel in (
        f"select gdpr.record_basis({anna}, 'marketing', 'contract', 'we like to')",
        f"select gdpr.record_bases(array[{anna}], 'marketing', 'contract', 'we like to')",
        f"insert into gdpr_internal.basis_record (subject_id, purpose_id) values ({anna}, 1)",
    ):
        for user in ("crm_app", "metabase"):
            with refused("42501"):
                crm.rows(relabel, user=user)
    assert crm.rows(
        "select count(*) from gdpr.basis where purpose = 'marketing'", user="dpo_login"
    ) == [(0,)]


def test_a_long_history_costs_the_reader_nothing(crm: Database) -> None:
    """A hundred bases, ended and running, leave one row with one gate: reading touches as many
    pages of it as before, and none of the evidence."""
    app = crm.connect("crm_app")
    question = (
        "explain (analyze, buffers, costs off, timing off, summary off, format json)"
        " select city from crm.customer where id = 1"
    )

    def touched() -> tuple[int, str]:
        for _ in range(2):
            ((found,),) = app.execute(question).fetchall()
        plan = found[0]["Plan"]
        return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], json.dumps(plan)

    before, _ = touched()
    for _ in range(50):
        crm.rows(
            "select gdpr.end_basis(gdpr.record_basis(1, 'orders', 'legal_obligation', 'x'), 'y');"
            "select gdpr.record_basis(1, 'orders', 'public_task', 'x')",
            user="dpo_login",
        )
    after, plan = touched()
    assert after <= before
    assert "basis_record" not in plan
