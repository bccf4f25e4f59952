"""Station 70: what leaves through an audience is recorded by leaving."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, policy, problems, refused, subject
from tests.capabilities.sharing import RECIPIENTS, persons
from tests.support import Database, assess

EXPORT = "select subject_ref, data from gdpr.export_rows(%s)"

PARTNER = {"audience": "export", "purposes": ["orders", "analytics"], "recipient": "Parcel AG"}


@pytest.fixture
def partner(crm: Database) -> psycopg.Connection:
    """A login that the policy binds to a recipient."""
    crm.rows(RECIPIENTS, user="dpo_login")
    apply(crm, policy(roles__portal_app=PARTNER))
    return crm.connect("portal_app")


def disclosed(crm: Database) -> list[tuple[Any, ...]]:
    """The disclosures, without their times."""
    return crm.rows(
        "select recipient, purpose, audience, table_name::text, persons from gdpr.disclosure"
        " order by disclosure_id",
        user="dpo_login",
    )


def test_rows_leave_as_the_redacted_view_has_them_and_are_recorded(
    crm: Database, partner: psycopg.Connection
) -> None:
    rows = partner.execute(EXPORT, ["crm.customer"]).fetchall()
    views = crm.rows(
        "select subject_ref, to_jsonb(v) - 'subject_ref' from gdpr_bi.customer as v",
        user="metabase",
    )
    assert sorted(rows, key=str) == sorted(views, key=str)
    assert len(rows) == 3
    assert "example.com" not in str(rows)
    assert list(rows[0][1]) == [
        "id",
        "email",
        "phone",
        "last_name",
        "birth_date",
        "city",
        "created_at",
    ]
    assert disclosed(crm) == [("Parcel AG", "orders", "export", "crm.customer", 3)]
    ((columns,),) = crm.rows("select columns from gdpr.disclosure", user="dpo_login")
    # what is hidden in every row was not disclosed
    assert columns == ["id", "email", "last_name", "birth_date", "city", "created_at"]


def test_only_who_may_be_shared_is_returned_and_recorded(
    crm: Database, partner: psycopg.Connection
) -> None:
    anna, bela, chie = persons(crm)
    dpo = crm.connect("dpo_login")
    dpo.execute("select gdpr.restrict(%s, 'legal_claims')", [bela])
    dpo.execute("select gdpr.erase(%s)", [chie])
    rows = partner.execute(EXPORT, ["crm.customer"]).fetchall()
    assert [data["id"] for _, data in rows] == [1]
    assert disclosed(crm) == [("Parcel AG", "orders", "export", "crm.customer", 1)]
    assert crm.rows(
        "select subject_id from gdpr_internal.disclosure_person", user="postgres"
    ) == [(anna,)]
    dpo.execute("select gdpr.restrict(%s, 'legal_claims')", [anna])
    assert partner.execute(EXPORT, ["crm.customer"]).fetchall() == []
    assert len(disclosed(crm)) == 1


def test_rows_by_their_keys(crm: Database, partner: psycopg.Connection) -> None:
    by_key = "select data from gdpr.export_rows(%s, %s)"
    rows = partner.execute(by_key, ["crm.order", ["4", "1", "99"]]).fetchall()
    assert [data["id"] for (data,) in rows] == [4, 1]
    assert disclosed(crm) == [("Parcel AG", "orders", "export", 'crm."order"', 2)]
    with refused("PR004", "invalid_argument"):
        partner.execute(by_key, ["crm.order", ["one"]])
    with refused("PR705", "purpose_of_table"):
        partner.execute(EXPORT, ["crm.lead"])
    refuse = "select data from gdpr.export_rows(%s, %s, p_locked => 'refuse')"
    crm.rows(
        "select gdpr.restrict(%s, 'legal_claims')",
        [subject(crm, "crm.customer", 1)],
        user="dpo_login",
    )
    with refused("PR703", "not_sharable"):
        crm.rows(
            "select data from gdpr.export_rows('crm.customer', p_recipient => 'Parcel AG',"
            " p_purpose => 'marketing', p_locked => 'refuse')",
            user="dpo_login",
        )
    assert [d["id"] for (d,) in partner.execute(refuse, ["crm.order", ["4"]])] == [4]


def test_a_role_with_a_recipient_reads_nothing_unrecorded(
    crm: Database, partner: psycopg.Connection
) -> None:
    for relation in ("gdpr_export.customer", "gdpr_export.lead"):
        with refused("42501", "export_only"):
            partner.execute(f"select * from {relation}".encode())
    partner.execute("set gdpr.purpose = 'analytics'")
    with refused("42501", "export_only"):
        partner.execute("select * from gdpr_export.customer")
    assess(crm, "analytics")
    partner.execute(EXPORT, ["crm.lead"])
    assert {row[1] for row in disclosed(crm)} <= {"analytics"}
    for schema in ("gdpr_bi", "gdpr_api", "gdpr_clear"):
        with refused("42501"):
            partner.execute(f"select * from {schema}.customer".encode())
    other = "select from gdpr.export_rows('crm.customer', p_recipient => 'Call Centre Inc')"
    with refused("PR004", "invalid_argument"):
        partner.execute(other.encode())
    with refused("42501", "purpose_not_held"):
        partner.execute("select from gdpr.export_rows('crm.customer', p_purpose => 'marketing')")


def test_a_role_without_one_reads_the_views_and_names_the_recipient_of_an_export(
    crm: Database,
) -> None:
    crm.rows(RECIPIENTS, user="dpo_login")
    apply(crm, policy(roles__portal_app={"audience": "api", "purposes": ["orders"]}))
    assert crm.rows("select count(*) from gdpr_api.customer", user="portal_app") == [(3,)]
    with refused("PR702", "unknown_recipient"):
        crm.rows("select from gdpr.export_rows('crm.customer')", user="portal_app")
    crm.rows(
        "select from gdpr.export_rows('crm.customer', p_recipient => 'Call Centre Inc')",
        user="portal_app",
    )
    assert disclosed(crm) == [("Call Centre Inc", "orders", "api", "crm.customer", 3)]
    topics = crm.rows("select severity from gdpr.doctor() where object = 'portal_app'")
    assert topics == [("info",)]


def test_who_exports(crm: Database, partner: psycopg.Connection) -> None:
    with refused("42501"):
        crm.rows("select from gdpr.export_rows('crm.customer')", user="metabase")
    # a member of the server's group that this database binds to nothing
    crm.rows("grant gdpr_export to metabase", user="postgres")
    with refused("42501", "export_refused"):
        crm.rows("select from gdpr.export_rows('crm.customer')", user="metabase")
    crm.rows("revoke gdpr_export from metabase", user="postgres")
    with refused("PR002", "not_protected"):
        partner.execute(EXPORT, ["crm.shoe"])
    with refused("PR003"):
        crm.rows(
            "select from gdpr.export_rows('crm.customer', p_recipient => 'Parcel AG')",
            user="dpo_login",
        )
    apply(crm, policy())
    with refused("42501", "export_refused"):
        partner.execute(EXPORT, ["crm.customer"])


def test_a_recipient_that_nobody_registered(crm: Database) -> None:
    apply(crm, policy(roles__portal_app={**PARTNER, "recipient": "Nobody"}))
    assert ("recipient", "portal_app") in findings(crm)
    with refused("PR702", "unknown_recipient"):
        crm.rows("select from gdpr.export_rows('crm.customer')", user="portal_app")


def test_bindings_that_the_policy_refuses(crm: Database) -> None:
    for wrong in (
        {"audience": "clear", "purposes": ["orders"], "recipient": "Parcel AG"},
        {"audience": "bi", "purposes": ["orders"], "recipient": "Parcel AG"},
        {"audience": "export", "purposes": ["orders"], "recipient": ""},
        {"audience": "exports", "purposes": ["orders"]},
        {"audience": "export", "purposes": ["maintenance"]},
    ):
        assert problems(crm, policy(roles__portal_app=wrong))


def test_the_plan_of_a_policy_with_exports_is_empty_the_second_time(crm: Database) -> None:
    new = json.loads(json.dumps(policy(roles__portal_app=PARTNER)))
    apply(crm, new)
    assert apply(crm, new) == []
