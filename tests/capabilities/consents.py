"""Words for asking and answering: the customer database with purposes that rest on consent."""

from __future__ import annotations

from typing import Any

from tests.capabilities.crm import apply, policy
from tests.support import Database

#: Two purposes of consent: one locks while it waits, the other does not.
PURPOSES = {
    "purposes__marketing": {
        "basis": "consent",
        "description": "Newsletters and offers",
        "respond_within": "14 days",
        "remind": "3 days",
        "valid_for": "2 years",
        "while_waiting": "allow",
        "grace": False,
        "direct_marketing": True,
    },
    "purposes__profiling": {
        "basis": "consent",
        "description": "Offers chosen for you",
        "respond_within": "7 days",
        "grace": False,
        "direct_marketing": True,
    },
    "tables__crm.lead__purposes": ["marketing", "analytics", "profiling"],
    "tables__crm.customer__purposes": ["orders", "marketing", "analytics", "profiling"],
    "tables__crm.customer__columns__city": {"category": "contact", "language": True},
    "roles__crm_app__purposes": ["orders", "marketing", "profiling"],
}

EVIDENCE = '{"who": "K. Weber", "when": "2026-05-04 10:12", "how": "call", "reference": "T-88"}'


def set_up(crm: Database, **changes: Any) -> Database:
    """Apply the policy with `PURPOSES`, give the portal its group, and publish a form.

    The city of a customer stands for the language: Anna's is German, Bela's nothing
    that the form speaks, Chie's Japanese.
    """
    apply(crm, policy(**PURPOSES | changes))
    crm.rows("grant gdpr_portal to portal_app", user="postgres")
    crm.rows(
        "update gdpr_clear.customer set city ="
        " case id when 1 then 'de_AT' when 2 then 'Bonn am Rhein' else 'ja' end",
        user="crm_app",
    )
    for language, title in (("en", "May we?"), ("de", "Dürfen wir?"), ("ja", "よろしいですか")):
        crm.rows(
            "select gdpr.record_form('news', %s, '{marketing,profiling}', '{mail,phone}', %s, %s,"
            " 'https://shop.example/privacy')",
            [language, title, f"{title}\nYes or no."],
            user="dpo_login",
        )
    crm.rows("select gdpr.publish_form('news', 'en')", user="dpo_login")
    return crm


def ask(
    crm: Database,
    person: int,
    *purposes: str,
    channel: str = "portal",
    within: str | None = None,
    form: str | None = "news",
) -> str:
    """Ask one person; the token, where the channel is the portal."""
    ((token,),) = crm.rows(
        "select token from gdpr.request_consent(%s, %s, %s, %s, %s::interval)",
        [person, list(purposes or ("marketing",)), channel, form, within],
        user="dpo_login",
    )
    return str(token)


def answer(crm: Database, token: str, *granted: str, **more: Any) -> dict[str, str]:
    """Answer by a token as the portal; the status of each purpose."""
    ((statuses,),) = crm.rows(
        "select gdpr.answer_consent(%s, %s::text[], %s::text[])",
        [token, list(granted), more.get("channels")],
        user="portal_app",
    )
    return dict(statuses)


def status(crm: Database, person: int, purpose: str = "marketing") -> str:
    """Where the consent of a person stands."""
    ((found,),) = crm.rows(
        "select status from gdpr.consent where subject_id = %s and purpose = %s",
        [person, purpose],
        user="auditor_login",
    )
    return str(found)


def sees(crm: Database, table_key: int, purpose: str = "marketing") -> bool:
    """Whether the application reads a customer for a purpose."""
    app = crm.connect("crm_app")
    app.execute("select set_config('gdpr.purpose', %s, false)", [purpose])
    found = app.execute("select from gdpr_clear.customer where id = %s", [table_key]).fetchall()
    app.close()
    return len(found) == 1
