"""Station 90: the record of processing activities, who answers for it, impact assessments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.capabilities.crm import apply, policy, refused
from tests.support import Database

PARTS = "'what', 'why', 'risks', 'measures'"


def assessed(crm: Database, name: str = "Offers", purposes: str = "{marketing}") -> int:
    """The number of an impact assessment that the officer has written."""
    ((number,),) = crm.rows(
        f"select gdpr.record_impact_assessment(%s, %s, {PARTS}, current_date + 365)",
        [name, purposes],
        user="dpo_login",
    )
    return int(number)


def approve(
    crm: Database, number: int, risk: str = "low", *more: Any, user: str = "db_owner"
) -> None:
    """Another officer approves it."""
    crm.rows(
        f"select gdpr.approve_impact_assessment(%s, %s, 'no objection'{', %s' * len(more)})",
        [number, risk, *more],
        user=user,
    )


def states(crm: Database) -> list[tuple[Any, ...]]:
    """Name, version and status of all, as an auditor sees them."""
    return crm.rows(
        "select name, version, status from gdpr.impact_assessment order by name, version",
        user="auditor_login",
    )


def record(crm: Database, user: str = "dpo_login") -> Any:
    """The record of processing activities."""
    ((document,),) = crm.rows("select gdpr.processing_record()", user=user)
    return document


def test_the_record_says_what_the_policy_and_the_registers_say(crm: Database) -> None:
    apply(
        crm,
        policy(
            settings__controller={"name": "Example AG", "country": "DE", "email": "x@example.org"}
        ),
    )
    crm.rows(
        "select gdpr.record_party('data_protection_officer', 'Office', 'dpo@example.org', 'DE')",
        user="dpo_login",
    )
    crm.rows(
        "select gdpr.record_recipient('Parcel AG', 'processor', 'DE', p_contract => 'AV-7');",
        user="dpo_login",
    )
    person = crm.rows("select gdpr.subject_of('crm.customer', '1')", user="dpo_login")[0][0]
    crm.rows(
        "select gdpr.record_disclosure('Parcel AG', %s, 'orders', p_categories => '{contact}')",
        [[person]],
        user="dpo_login",
    )
    document = record(crm)
    assert [(p["role"], p["name"]) for p in document["parties"]] == [
        ("controller", "Example AG"),
        ("data_protection_officer", "Office"),
    ]
    orders = next(a for a in document["activities"] if a["purpose"] == "orders")
    assert orders["description"] == "Fulfil orders"
    assert orders["lawful_bases"] == ["contract"]
    assert orders["recipients"] == ["Parcel AG"]
    assert "crm.customer" in orders["persons"]
    assert "contact" in orders["categories"]
    marketing = next(a for a in document["activities"] if a["purpose"] == "marketing")
    assert marketing["recipients"] == []
    assert document["recipients"][0]["transfer"] == "EEA"
    measures = document["security_measures"]
    assert "crm.customer.email" in measures["encryption"]["columns"]
    assert "crm.customer" in measures["access_control"]["enforced"]
    assert {"compliance", "maintenance"}.isdisjoint(a["purpose"] for a in document["activities"])
    # nothing about anybody
    text = json.dumps(document)
    assert not any(word in text for word in ("anna@", "Ahrens", "Aalen"))


def test_who_draws_up_the_record(crm: Database) -> None:
    first = record(crm)
    for user in ("auditor_login", "db_owner"):
        assert record(crm, user)["activities"] == first["activities"]
    for user in ("crm_app", "metabase", "portal_app"):
        with refused("42501"):
            record(crm, user)


def test_the_record_does_not_depend_on_the_session(crm: Database) -> None:
    odd = crm.connect("dpo_login")
    odd.execute(
        "set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set intervalstyle = 'iso_8601'"
    )
    ((document,),) = odd.execute("select gdpr.processing_record()").fetchall()
    assert document["activities"] == record(crm)["activities"]
    assert document["drawn_up_at"].endswith("+00:00")


@pytest.mark.parametrize(
    "arguments",
    [
        "'controller', 'Example AG', 'x', 'DE'",
        "'processor', 'Example AG', 'x', 'DE'",
        "null, 'Example AG', 'x', 'DE'",
        "'representative', ' ', 'x', 'DE'",
        "'representative', 'R', null, 'DE'",
        "'representative', 'R', 'x', 'Germany'",
        "'joint_controller', 'J', 'x', 'DE'",
    ],
)
def test_parties_that_are_none(crm: Database, arguments: str) -> None:
    with refused("PR004", "invalid_argument"):
        crm.rows(f"select gdpr.record_party({arguments})", user="dpo_login")


def test_a_party_has_versions_and_an_end(crm: Database) -> None:
    call = "select gdpr.record_party('representative', 'R', %s, 'FR', p_valid_until => %s)"
    assert crm.rows(call, ["old", None], user="dpo_login") == [(1,)]
    assert crm.rows(call, ["new", None], user="dpo_login") == [(1,)]
    query = "select contact from gdpr.party where valid_until > now()"
    assert crm.rows(query, user="auditor_login") == [("new",)]
    crm.rows(call, ["new", "2020-01-01"], user="dpo_login")
    assert crm.rows(query, user="auditor_login") == []
    assert record(crm)["parties"] == []


def test_an_impact_assessment_is_approved_by_somebody_else(crm: Database) -> None:
    number = assessed(crm)
    assert states(crm) == [("Offers", 1, "draft")]
    with refused("PR905", "impact_four_eyes"):
        approve(crm, number, user="dpo_login")
    approve(crm, number)
    assert states(crm) == [("Offers", 1, "in_force")]
    second = assessed(crm)
    assert states(crm) == [("Offers", 1, "in_force"), ("Offers", 2, "draft")]
    approve(crm, second)
    assert states(crm) == [("Offers", 1, "superseded"), ("Offers", 2, "in_force")]
    crm.rows("select gdpr.reject_impact_assessment(%s, 'wrong')", [second], user="dpo_login")
    assert states(crm) == [("Offers", 1, "in_force"), ("Offers", 2, "rejected")]


def test_a_high_risk_that_is_left_needs_the_authority_first(crm: Database) -> None:
    number = assessed(crm)
    with refused("PR901", "prior_consultation"):
        approve(crm, number, "high")
    approve(crm, number, "high", "LfDI 2027/9")
    assert states(crm) == [("Offers", 1, "in_force")]


def test_its_review_is_due_at_that_instant(crm: Database) -> None:
    approve(crm, assessed(crm))
    crm.connect("postgres").execute(
        "alter table gdpr_internal.impact_assessment_decision disable trigger all;"
        "update gdpr_internal.impact_assessment_decision"
        " set review_at = clock_timestamp() + interval '300 milliseconds';"
        "alter table gdpr_internal.impact_assessment_decision enable trigger all;"
        "alter table gdpr_internal.impact_assessment_decision"
        " enable always trigger gdpr_50_append_only;"
        "alter table gdpr_internal.impact_assessment_decision"
        " enable always trigger gdpr_50_no_truncate"
    )
    reader = crm.connect("auditor_login", autocommit=False)
    assert reader.execute("select status from gdpr.impact_assessment").fetchall() == [("in_force",)]
    reader.execute("select pg_sleep(0.4)")
    assert reader.execute("select status from gdpr.impact_assessment").fetchall() == [
        ("review_due",)
    ]
    reader.rollback()
    assert crm.rows(
        "select object from gdpr.doctor() where topic = 'impact_assessment'", user="dpo_login"
    ) == [("Offers, version 1",)]


@pytest.mark.parametrize(
    ("call", "state"),
    [
        (f"record_impact_assessment('', '{{orders}}', {PARTS}, current_date + 1)", "PR004"),
        (f"record_impact_assessment('x', '{{}}', {PARTS}, current_date + 1)", "PR004"),
        (f"record_impact_assessment('x', array[[null]], {PARTS}, current_date + 1)", "PR004"),
        (f"record_impact_assessment('x', '{{nothing}}', {PARTS}, current_date + 1)", "PR003"),
        (f"record_impact_assessment('x', '{{orders}}', {PARTS}, current_date - 2)", "PR004"),
        (f"record_impact_assessment('x', '{{orders}}', {PARTS}, 'infinity')", "PR004"),
        (
            "record_impact_assessment('x', '{orders}', 'a', 'b', ' ', 'd', current_date + 1)",
            "PR004",
        ),
        ("approve_impact_assessment(77, 'low', 'ok')", "PR004"),
        ("reject_impact_assessment(77, 'no')", "PR004"),
        ("reject_impact_assessment(1, '')", "PR004"),
    ],
)
def test_what_is_refused(crm: Database, call: str, state: str) -> None:
    with refused(state):
        crm.rows(f"select gdpr.{call}", user="dpo_login")


@pytest.mark.parametrize(("risk", "advice"), [("none", "'ok'"), ("low", "' '"), ("low", "null")])
def test_an_approval_without_its_parts(crm: Database, risk: str, advice: str) -> None:
    number = assessed(crm)
    with refused("PR004"):
        crm.rows(f"select gdpr.approve_impact_assessment(%s, %s, {advice})", [number, risk])


def test_special_categories_call_for_an_assessment(crm: Database) -> None:
    apply(
        crm,
        policy(
            purposes__orders__condition="explicit_consent",
            **{
                "tables__crm.customer__columns__city": {
                    "category": "health",
                    "special": "health",
                    "encrypt": True,
                    "mask": "hide",
                }
            },
        ),
    )
    due = dict(crm.rows("select purpose, reasons from gdpr.impact_assessment_due"))
    assert due["orders"] == ["special_categories"]
    topics = "select object from gdpr.doctor() where topic = 'impact_assessment'"
    assert ("orders",) in crm.rows(topics)
    approve(crm, assessed(crm, "All", "{orders,marketing,analytics}"))
    assert crm.rows("select * from gdpr.impact_assessment_due") == []
    assert crm.rows(topics) == []
