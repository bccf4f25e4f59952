"""Station 30: receipts, against the schema that the documentation ships."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.capabilities.consents import EVIDENCE, answer, ask, set_up
from tests.capabilities.crm import refused, subject
from tests.support import Database

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "consent-receipt.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(
    SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)


@pytest.fixture
def news(crm: Database) -> Database:
    """The customer database that can ask, and says who it belongs to."""
    return set_up(
        crm,
        settings__controller={
            "name": "Radhaus GmbH",
            "address": "Hauptstr. 1, Ulm",
            "country": "DE",
            "email": "privacy@shop.example",
            "url": "https://shop.example",
        },
    )


def receipt(news: Database, person: int, user: str = "dpo_login") -> dict[str, Any]:
    """A receipt for marketing, valid by the schema."""
    ((document,),) = news.rows("select gdpr.consent_receipt(%s, 'marketing')", [person], user=user)
    VALIDATOR.validate(document)
    return dict(document)


def test_the_schema_is_one_and_says_no() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert not VALIDATOR.is_valid({})


def test_a_receipt_tells_the_whole_story(news: Database) -> None:
    anna = subject(news, "crm.customer", 1)
    token = ask(news, anna)
    answer(news, token, "marketing", channels=["mail"])
    given = receipt(news, anna)
    assert given["status"] == "granted"
    assert given["party_identification"][0]["party_name"] == "Radhaus GmbH"
    (processing,) = given["pii_processing"]
    assert processing["language"] == "de"
    assert processing["privacy_notice"] == "https://shop.example/privacy"
    assert processing["purposes"][0]["purpose"] == "Newsletters and offers"
    assert processing["retention_period"] == "P2Y"
    ((text,),) = news.rows(
        "select canonical_text from gdpr.consent_form where language = 'de'", user="auditor_login"
    )
    assert processing["notice"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert [e["event_state"] for e in given["events"]] == [
        "dpv:ConsentRequested",
        "dpv:ConsentGiven",
    ]
    assert given["events"][1]["contact_channels"] == ["mail"]
    news.rows("select gdpr.portal_withdraw(%s)", [token], user="portal_app")
    after = receipt(news, anna)
    assert (after["status"], after["events"][-1]["event_state"]) == (
        "withdrawn",
        "dpv:ConsentWithdrawn",
    )


def test_a_receipt_names_nobody(news: Database) -> None:
    anna = subject(news, "crm.customer", 1)
    news.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'paper', %s)",
        [anna, EVIDENCE],
        user="dpo_login",
    )
    text = json.dumps(receipt(news, anna))
    assert not [word for word in ("Ahrens", "anna@", "Weber", "T-88") if word in text]


def test_no_receipt_without_an_answer(news: Database) -> None:
    anna = subject(news, "crm.customer", 1)
    ask(news, anna)
    with refused("PR301", "consent_missing"):
        receipt(news, anna)
    for user in ("crm_app", "portal_app", "auditor_login"):
        with refused("42501"):
            receipt(news, anna, user)
