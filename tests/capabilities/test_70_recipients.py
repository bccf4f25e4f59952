"""Station 70: who gets personal data, where they are, and on what a transfer rests
(Art. 28, 44 to 49)."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import findings, policy, problems, refused
from tests.capabilities.sharing import disclose, persons
from tests.support import Database


@pytest.fixture
def dpo(crm: Database) -> psycopg.Connection:
    """An officer."""
    return crm.connect("dpo_login")


def record(dpo: psycopg.Connection, name: str, role: str, country: str, **more: Any) -> int:
    """Register a recipient."""
    given = {"name": name, "role": role, "country": country, **more}
    named = ", ".join(f"p_{key} => %({key})s" for key in given)
    row = dpo.execute(f"select gdpr.record_recipient({named})", given).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("country", "more"),
    [
        ("DE", {}),
        ("NO", {}),
        ("CH", {}),
        ("JP", {}),
        ("US", {"safeguard": "adequacy", "safeguard_reference": "DPF participant 4711"}),
        ("CA", {"safeguard": "adequacy", "safeguard_reference": "PIPEDA"}),
        ("US", {"safeguard": "standard_clauses"}),
        ("IN", {"safeguard": "binding_rules"}),
        ("IN", {"safeguard": "derogation", "ground": "legal_claims"}),
    ],
)
def test_where_data_may_go(dpo: psycopg.Connection, country: str, more: dict[str, Any]) -> None:
    record(dpo, "Partner", "controller", country, **more)
    assert dpo.execute("select problem from gdpr.recipient").fetchall() == [(None,)]


@pytest.mark.parametrize(
    ("country", "more"),
    [
        ("IN", {}),
        ("US", {}),
        ("CA", {}),
        ("IN", {"safeguard": "adequacy", "safeguard_reference": "wishful"}),
        ("US", {"safeguard": "standard_clauses", "safeguard_until": "2020-01-01"}),
    ],
)
def test_a_transfer_without_a_safeguard_is_refused(
    dpo: psycopg.Connection, country: str, more: dict[str, Any]
) -> None:
    with refused("PR701", "transfer_refused"):
        record(dpo, "Partner", "controller", country, **more)
    assert dpo.execute("select from gdpr.recipient").fetchall() == []


@pytest.mark.parametrize(
    ("role", "country", "more"),
    [
        ("friend", "DE", {}),
        ("controller", "UK", {}),
        ("controller", "de", {}),
        ("processor", "DE", {}),
        ("sub_processor", "DE", {"contract": "AV-9"}),
        ("controller", "DE", {"parent": "nobody"}),
        ("controller", "IN", {"safeguard": "trust"}),
        ("controller", "IN", {"safeguard": "derogation"}),
        ("controller", "IN", {"safeguard": "derogation", "ground": "convenience"}),
        ("controller", "IN", {"safeguard": "standard_clauses", "ground": "contract"}),
        ("controller", "US", {"safeguard": "adequacy"}),
        ("controller", "DE", {"address": "the door on the left"}),
        ("controller", "DE", {"language": "Deutsch!"}),
    ],
)
def test_what_is_no_entry_of_the_register(
    dpo: psycopg.Connection, role: str, country: str, more: dict[str, Any]
) -> None:
    if more.get("parent"):
        # of a controller nobody is a parent, whether it exists or not
        record(dpo, "nobody", "processor", "DE", contract="AV-1")
    with refused("PR004", "invalid_argument"):
        record(dpo, "Partner", role, country, **more)


def test_a_recipient_has_versions(crm: Database, dpo: psycopg.Connection) -> None:
    first = record(dpo, "Parcel AG", "processor", "DE", contract="AV-7")
    again = record(dpo, "Parcel AG", "processor", "FR", contract="AV-7a")
    assert first == again
    assert dpo.execute("select country, contract, versions from gdpr.recipient").fetchall() == [
        ("FR", "AV-7a", 2)
    ]
    assert dpo.execute("select country from gdpr.recipient_history order by id").fetchall() == [
        ("DE",),
        ("FR",),
    ]
    with refused("55000", "append_only"):
        crm.rows("update gdpr_internal.recipient_record set country = 'IN'", user="postgres")


def test_a_sub_processor_falls_with_its_processor(dpo: psycopg.Connection) -> None:
    record(dpo, "Cloud", "processor", "DE", contract="AV-1")
    record(dpo, "Rack", "sub_processor", "DE", contract="AV-2", parent="Cloud")
    with refused("PR004", "invalid_argument"):
        record(dpo, "Rack", "sub_processor", "DE", contract="AV-2", parent="Rack")
    record(dpo, "Cloud", "processor", "DE", contract="AV-1", valid_until="2020-01-01")
    rows = dpo.execute("select name, works_for, problem from gdpr.recipient order by name")
    assert rows.fetchall() == [
        ("Cloud", None, "its entry in the register has ended"),
        ("Rack", "Cloud", "Cloud, for which it works: its entry in the register has ended"),
    ]


def test_a_decision_that_falls_stops_disclosures(crm: Database, dpo: psycopg.Connection) -> None:
    record(dpo, "Parcel AG", "processor", "CH", contract="AV-7")
    anna, bela, _ = persons(crm)
    disclose(dpo, [anna])
    fallen = {
        "country": "CH",
        "from": "2000-07-26",
        "until": "2026-01-31",
        "source": "annulled",
    }
    crm.rows("select count(*) from gdpr.apply(%s::jsonb)", [_json(fallen)])
    with refused("PR701", "transfer_refused"):
        disclose(dpo, [bela])
    assert ("transfer", "Parcel AG") in findings(crm)
    assert dpo.execute("select transfer, problem from gdpr.recipient").fetchall() == [
        (None, "a transfer to CH needs a safeguard")
    ]
    # a safeguard mends it
    record(dpo, "Parcel AG", "processor", "CH", contract="AV-7", safeguard="standard_clauses")
    disclose(dpo, [bela])
    assert ("transfer", "Parcel AG") not in findings(crm)


def test_a_country_that_the_operator_adds(crm: Database, dpo: psycopg.Connection) -> None:
    with refused("PR701"):
        record(dpo, "Partner", "controller", "IN")
    added = {"country": "IN", "from": "2026-02-01", "source": "(EU) 2026/999"}
    crm.rows("select count(*) from gdpr.apply(%s::jsonb)", [_json(added)])
    record(dpo, "Partner", "controller", "IN")
    for wrong in (
        "IN",
        [{"country": "XX", "from": "2026-02-01", "source": "s"}],
        [{"country": "IN", "from": "soon", "source": "s"}],
        [{"country": "IN", "source": "s"}],
        [{"country": "IN", "from": "2026-02-01"}],
        [{"country": "IN", "from": "2026-02-01", "source": "s", "why": "x"}],
    ):
        assert problems(crm, policy(settings__adequacy=wrong))


def test_the_doctor_says_what_is_about_to_end(crm: Database, dpo: psycopg.Connection) -> None:
    record(dpo, "Parcel AG", "processor", "DE", contract="AV-7", valid_until="2099-01-01")
    assert ("transfer", "Parcel AG") not in findings(crm)
    ((soon,),) = dpo.execute("select now() + interval '20 days'").fetchall()
    record(dpo, "Parcel AG", "processor", "DE", contract="AV-7", valid_until=soon)
    assert ("transfer", "Parcel AG") in findings(crm)


def test_only_officers_keep_the_register(crm: Database) -> None:
    for user in ("crm_app", "metabase", "auditor_login"):
        with refused("42501"):
            crm.rows("select gdpr.record_recipient('Mine', 'controller', 'DE')", user=user)
    assert crm.rows("select from gdpr.recipient", user="auditor_login") == []


def _json(entry: dict[str, str]) -> str:
    """The policy with an entry in its list of countries."""
    return json.dumps(policy(settings__adequacy=[entry]))
