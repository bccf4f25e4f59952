"""Station 70: what was disclosed to whom about whom, and only of persons who may be shared."""

from __future__ import annotations

import json

import psycopg
import pytest

from tests.capabilities.crm import policy, refused
from tests.capabilities.sharing import RECIPIENTS, disclose, persons
from tests.support import Database, waiting


@pytest.fixture
def dpo(crm: Database) -> psycopg.Connection:
    """An officer, in a database with two recipients."""
    connection = crm.connect("dpo_login")
    connection.execute(RECIPIENTS)
    return connection


def test_a_disclosure_and_who_was_told_of_a_person(crm: Database, dpo: psycopg.Connection) -> None:
    anna, bela, _ = persons(crm)
    done = disclose(
        dpo,
        [bela, anna, anna],
        table="crm.customer",
        columns=["email", "city"],
        categories=None,
        reason="parcels of May",
    )
    assert done == {"disclosure": done["disclosure"], "persons": 2, "left_out": 0}
    disclose(dpo, [anna], recipient="Call Centre Inc", categories=["identity"])
    assert dpo.execute(
        "select recipient, purpose, table_name::text, columns, categories, persons, reason,"
        " recorded_by, audience from gdpr.disclosure order by disclosure_id"
    ).fetchall() == [
        (
            "Parcel AG",
            "orders",
            "crm.customer",
            ["email", "city"],
            ["contact"],
            2,
            "parcels of May",
            "dpo_login",
            None,
        ),
        ("Call Centre Inc", "orders", None, None, ["identity"], 1, None, "dpo_login", None),
    ]
    told = "select recipient, country, transfer, purposes, categories from gdpr.recipients_of(%s)"
    assert dpo.execute(told, [anna]).fetchall() == [
        ("Call Centre Inc", "IN", "standard_clauses", ["orders"], ["identity"]),
        ("Parcel AG", "DE", "EEA", ["orders"], ["contact"]),
    ]
    assert len(dpo.execute(told, [bela]).fetchall()) == 1
    with refused("55000", "append_only"):
        crm.rows("delete from gdpr_internal.disclosure_person", user="postgres")


def test_persons_who_are_locked_are_not_shared(crm: Database, dpo: psycopg.Connection) -> None:
    anna, bela, chie = persons(crm)
    dpo.execute("select gdpr.restrict(%s, 'legal_claims')", [bela])
    dpo.execute("select gdpr.erase(%s)", [chie])
    with refused("PR703", "not_sharable") as error:
        disclose(dpo, [anna, bela, chie])
    assert error.value.diag.message_detail == "2 of 3"
    assert dpo.execute("select from gdpr.disclosure").fetchall() == []
    done = disclose(dpo, [anna, bela, chie], locked="leave_out")
    assert (done["persons"], done["left_out"]) == (1, 2)
    assert disclose(dpo, [bela], locked="leave_out") == {"persons": 0, "left_out": 1}
    # a purpose that rests on a consent that nobody gave
    with refused("PR703", "not_sharable"):
        disclose(dpo, [anna], purpose="marketing")
    dpo.execute("select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [anna])
    disclose(dpo, [anna], purpose="marketing")
    dpo.execute("select gdpr.withdraw_consent(%s, 'marketing')", [anna])
    with refused("PR703", "not_sharable"):
        disclose(dpo, [anna], purpose="marketing")


def test_one_that_was_made_is_recorded_whatever_holds_today(
    crm: Database, dpo: psycopg.Connection
) -> None:
    anna, bela, _ = persons(crm)
    dpo.execute("select gdpr.restrict(%s, 'legal_claims')", [bela])
    dpo.execute(
        "select gdpr.record_recipient('Call Centre Inc', 'processor', 'IN', null, 'AV-8',"
        " p_valid_until => now())"
    )
    done = disclose(
        dpo, [anna, bela], recipient="Call Centre Inc", disclosed_at="2024-05-01T12:00Z"
    )
    assert done["persons"] == 2
    assert dpo.execute(
        "select disclosed_at < recorded_at from gdpr.disclosure"
    ).fetchall() == [(True,)]
    with refused("PR004", "invalid_argument"):
        disclose(dpo, [anna], disclosed_at="2999-01-01")
    with refused("PR702", "unknown_recipient"):
        disclose(dpo, [anna], recipient="Nobody", disclosed_at="2024-05-01")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"recipient": "Nobody"}, "PR702"),
        ({"purpose": "gossip"}, "PR003"),
        ({"purpose": "compliance"}, "PR204"),
        ({"categories": None}, "PR004"),
        ({"columns": ["email"]}, "PR004"),
        ({"table": "crm.customer", "columns": ["shoe_size"]}, "PR004"),
        ({"table": "pg_class", "columns": ["relname"]}, "PR002"),
        ({"locked": "share"}, "PR004"),
        ({"references": ["A", "B"]}, "PR004"),
        ({"subjects": None}, "PR004"),
    ],
)
def test_what_is_no_disclosure(
    crm: Database, dpo: psycopg.Connection, wrong: dict[str, object], code: str
) -> None:
    anna, *_ = persons(crm)
    with refused(code):
        disclose(dpo, [anna], **wrong)
    assert dpo.execute("select from gdpr.disclosure").fetchall() == []


def test_a_role_discloses_for_its_own_purposes_where_the_policy_lets_it(crm: Database) -> None:
    crm.rows(RECIPIENTS, user="dpo_login")
    anna, *_ = persons(crm)
    app = crm.connect("crm_app")
    with refused("42501"):
        disclose(app, [anna])
    may = policy(roles__crm_app__may=["disclose"], roles__crm_app__purposes=["orders"])
    crm.rows("select count(*) from gdpr.apply(%s::jsonb)", [json.dumps(may)])
    assert disclose(app, [anna])["persons"] == 1
    with refused("42501", "purpose_not_held"):
        disclose(app, [anna], purpose="analytics")
    crm.rows("select count(*) from gdpr.apply(%s::jsonb)", [json.dumps(policy())])
    with refused("42501"):
        disclose(app, [anna])


def test_a_withdrawal_under_way_is_waited_for(crm: Database, dpo: psycopg.Connection) -> None:
    anna, *_ = persons(crm)
    dpo.execute("select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [anna])
    withdrawing = crm.connect("dpo_login", autocommit=False)
    withdrawing.execute("select gdpr.withdraw_consent(%s, 'marketing')", [anna])
    end = waiting(dpo, lambda: disclose(dpo, [anna], purpose="marketing"))
    withdrawing.commit()
    error = end()
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate == "PR703"


def test_an_erasure_under_way_tells_whom_a_disclosure_under_way_told(
    crm: Database, dpo: psycopg.Connection
) -> None:
    anna, *_ = persons(crm)
    disclosing = crm.connect("dpo_login", autocommit=False)
    disclose(disclosing, [anna])
    end = waiting(dpo, lambda: dpo.execute("select gdpr.erase(%s)", [anna]))
    disclosing.commit()
    assert end() is None
    assert dpo.execute("select recipient, event from gdpr.notice_due").fetchall() == [
        ("Parcel AG", "erasure")
    ]
