"""Station 30: the texts that persons agree to, kept as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import psycopg
import pytest

from tests.capabilities.consents import PURPOSES
from tests.capabilities.crm import apply, policy, refused
from tests.support import Database, Prepared

RECORD = (
    "select gdpr.record_form(%(name)s, %(language)s, %(purposes)s, %(channels)s, %(title)s,"
    " %(statement)s, %(notice)s)"
)
FORM = {
    "name": "news",
    "language": "en",
    "purposes": ["marketing"],
    "channels": ["mail"],
    "title": "May we?",
    "statement": "I agree.",
    "notice": "https://shop.example/privacy",
}


def with_purposes(crm: Database) -> None:
    """Give it two purposes of consent."""
    apply(crm, policy(**PURPOSES))


@pytest.fixture
def shop(prepared: Prepared, crm_template: str) -> Iterator[Database]:
    """The customer database with two purposes of consent."""
    with prepared(crm_template, with_purposes) as database:
        yield database


def record(shop: Database, **changes: object) -> int:
    """Record a form; its version."""
    ((version,),) = shop.rows(RECORD, FORM | changes, user="dpo_login")
    return int(version)


def publish(shop: Database, language: str = "en") -> int:
    """Publish the draft; its version."""
    ((version,),) = shop.rows("select gdpr.publish_form('news', %s)", [language], user="dpo_login")
    return int(version)


def test_a_draft_is_replaced_a_published_form_followed(shop: Database) -> None:
    assert record(shop) == 1
    assert record(shop, statement="I do agree.") == 1
    assert record(shop, language="de_AT", title="Dürfen wir?") == 1
    assert publish(shop) == 1
    assert record(shop, statement="I agree to more.") == 2
    assert shop.rows(
        "select version, language, statement, is_current, is_default from gdpr.consent_form"
        " order by 1, 2",
        user="crm_app",
    ) == [
        (1, "de-at", "I agree.", True, False),
        (1, "en", "I do agree.", True, True),
        (2, "en", "I agree to more.", False, False),
    ]
    assert publish(shop) == 2
    assert shop.rows(
        "select version from gdpr.consent_form where is_current", user="auditor_login"
    ) == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        "update gdpr_internal.consent_form set statement = 'I agree to all'",
        "update gdpr_internal.consent_form set version = 2",
        "delete from gdpr_internal.consent_form",
        "truncate gdpr_internal.consent_form cascade",
        "delete from gdpr_internal.consent_form_version",
    ],
)
def test_a_published_form_cannot_be_changed_by_anybody(shop: Database, statement: str) -> None:
    record(shop)
    publish(shop)
    with refused("55000", "append_only"):
        shop.rows(statement, user="postgres")


def test_the_digest_is_that_of_the_text_that_is_shown(shop: Database) -> None:
    """Line ends and compositions of letters do not tell two forms apart."""
    record(shop, statement="  Je consens\r\nà tout. \n", title="Consentez-vous ?")
    rows = "select digest, canonical_text from gdpr.consent_form"
    ((digest, text),) = shop.rows(rows, user="auditor_login")
    assert text == (
        "gdprdb consent form 1\nname: news\nversion: 1\nlanguage: en\npurposes: marketing\n"
        "channels: mail\nprivacy notice: https://shop.example/privacy\ntitle: Consentez-vous ?\n\n"
        "Je consens\nà tout."
    )
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    record(shop, statement="Je consens\na\u0300 tout.", title="Consentez-vous ?")
    assert shop.rows(rows, user="auditor_login") == [(digest, text)]


@pytest.mark.parametrize(
    ("changes", "code", "name"),
    [
        ({"name": "No spaces"}, "PR004", "invalid_argument"),
        ({"name": None}, "PR004", "invalid_argument"),
        ({"language": "english language"}, "PR004", "invalid_argument"),
        ({"language": None}, "PR004", "invalid_argument"),
        ({"statement": " \n"}, "PR004", "invalid_argument"),
        ({"statement": None}, "PR004", "invalid_argument"),
        ({"title": "two\nlines"}, "PR004", "invalid_argument"),
        ({"notice": "javascript:alert(1)"}, "PR004", "invalid_argument"),
        ({"notice": "https://x.example/\nname: y"}, "PR004", "invalid_argument"),
        ({"channels": ["fax"]}, "PR004", "invalid_argument"),
        ({"purposes": []}, "PR004", "invalid_argument"),
        ({"purposes": ["fun"]}, "PR003", "unknown_purpose"),
        ({"purposes": ["orders"]}, "PR302", "consent_not_asked"),
    ],
)
def test_a_form_that_is_none(
    shop: Database, changes: dict[str, object], code: str, name: str
) -> None:
    with refused(code, name):
        record(shop, **changes)


def test_what_cannot_be_published(shop: Database) -> None:
    with refused("PR305", "form_refused"):
        publish(shop)
    record(shop)
    with refused("PR305", "form_refused"):
        publish(shop, "de")
    record(shop, language="de", channels=["mail", "phone"])
    with refused("PR305", "form_refused"):
        publish(shop)
    record(shop, language="de")
    assert publish(shop) == 1
    with refused("PR305", "form_refused"):
        publish(shop)


@pytest.mark.parametrize("user", ["crm_app", "metabase", "auditor_login", "portal_app"])
def test_texts_are_the_officers(shop: Database, user: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shop.rows(RECORD, FORM, user=user)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shop.rows("select gdpr.publish_form('news', 'en')", user=user)
