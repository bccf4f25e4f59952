"""Words about a person that officers type as reasons, details and evidence: ciphertext at once,
and gone with the person."""

from __future__ import annotations

import json

from tests.capabilities.crm import subject
from tests.support import Database
from tests.traces import traces

#: As an officer, in this order; %(words)s, or %(json)s with them, is what is typed. The last
#: column of what each returns is the number that %(id)s is in the next.
CALLS = [
    "record_basis(%(anna)s, 'orders', 'contract', 'an order', p_evidence => %(json)s)",
    "record_consent(%(anna)s, 'marketing', true, 'phone', %(json)s)",
    "withdraw_consent(%(anna)s, 'marketing', 'phone', %(json)s)",
    "restrict(%(anna)s, 'accuracy_contested')",
    (
        "except_from_restriction(%(anna)s, 'orders', 'legal_claims',"
        " clock_timestamp() + interval '1 day', %(json)s)"
    ),
    "end_exception(%(id)s, %(words)s)",
    "announce_lifting(%(anna)s, 'phone', %(json)s)",
    "lift_restriction(%(anna)s, %(words)s)",
    "object_to(%(anna)s, 'analytics', %(json)s)",
    "decide_objection(%(anna)s, 'analytics', 'upheld', null, %(json)s)",
    "place_hold(%(anna)s, 'legal_claims', 'file 7')",
    "release_hold(%(id)s, %(words)s)",
    "propose_rectification(%(anna)s, %(changes)s, %(words)s)",
    "reject_rectification(%(id)s, %(words)s)",
    "rectify(%(anna)s, %(changes)s, %(words)s)",
    "open_request('access', %(anna)s, 'phone', p_details => %(json)s)",
    "extend_request(%(id)s, 'complexity', %(json)s)",
    "open_request('access', %(anna)s, 'phone', p_details => %(json)s)",
    "refuse_request(%(id)s, 'excessive', %(json)s)",
    "open_request('access', %(anna)s, 'phone', p_details => %(json)s)",
    "complete_request(%(id)s, 'fulfilled_elsewhere', %(json)s)",
    "open_request('access', %(anna)s, 'phone', p_details => %(json)s)",
    "withdraw_request(%(id)s, %(json)s)",
    'record_breach(\'{"nature": "A laptop was stolen", "kinds": ["confidentiality"]}\')',
    "assess_breach(1, 'high', 'not encrypted')",
    "add_breach_persons(1, array[%(anna)s::bigint])",
    "breach_told(1, %(anna)s, 'post', %(json)s)",
]


def shown(crm: Database, views: tuple[str, ...], user: str) -> str:
    """All that somebody sees in views of gdpr."""
    return " ".join(
        text
        for view in views
        for (text,) in crm.rows(f"select to_jsonb(v)::text from gdpr.{view} as v", user=user)
    )


def test_words_about_a_person_are_sealed_and_go_with_the_person(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    officer = crm.connect("dpo_login")
    words = set()
    last = None
    for n, call in enumerate(CALLS):
        said = f"zq{n:02}zq"
        words.add(said)
        told = dict.fromkeys(("who", "when", "how", "reference", "note"), said)
        change = {"table": "crm.customer", "key": "1", "column": "phone", "value": said}
        row = officer.execute(
            f"select gdpr.{call}".encode(),
            {
                "anna": anna,
                "words": said,
                "json": json.dumps(told),
                "changes": json.dumps([change]),
                "id": last,
            },
        ).fetchone()
        last = row[0] if row else None
    assert traces(crm, words) == set()
    views = (
        *("restriction", "restriction_exception", "hold", "rectification", "rectification_log"),
        *("objection", "audit_log"),
    )
    seen = shown(crm, views, "dpo_login")
    assert {said for said in words if said in seen} >= {
        f"zq{n:02}zq" for n in (4, 5, 7, 8, 9, 11, 12, 13, 14)
    }
    assert "zq" not in shown(crm, views, "auditor_login")
    crm.rows("create role only_admin login in role gdpr_admin", user="postgres")
    try:
        assert "zq" not in shown(crm, ("hold",), "only_admin")
    finally:
        crm.rows("drop role only_admin", user="postgres")
    officer.execute("select gdpr.erase(%s, 'asked')", [anna])
    assert traces(crm, words) == set()
    assert "zq" not in shown(crm, views, "dpo_login")


def test_why_a_restriction_ended_is_in_the_report_of_the_person(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    officer = crm.connect("dpo_login")
    officer.execute("select gdpr.restrict(%s, 'other')", [anna])
    officer.execute("select gdpr.lift_restriction(%s, 'the number was right')", [anna])
    (report,) = officer.execute("select gdpr.access_report(%s)::text", [anna]).fetchone() or ("",)
    assert "the number was right" in report


def test_a_hold_on_everybody_and_on_who_is_erased_is_released(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    officer = crm.connect("dpo_login")
    for whose, where in ((None, "crm.customer"), (anna, None)):
        (hold,) = officer.execute(
            "select gdpr.place_hold(%s, 'legal_claims', 'file 7', %s::text::regclass)",
            [whose, where],
        ).fetchone() or (None,)
        if whose is not None:
            officer.execute("select gdpr.erase(%s, 'asked')", [whose])
        officer.execute("select gdpr.release_hold(%s, 'settled')", [hold])
    assert crm.rows(
        "select subject_id, state, release_reason from gdpr.hold order by hold_id",
        user="auditor_login",
    ) == [(None, "released", "settled"), (anna, "released", None)]


def test_every_function_says_what_becomes_of_the_words_that_it_takes(crm: Database) -> None:
    """Kept encrypted, one of a few words, or not to be about a person."""
    assert [
        name
        for (name,) in crm.rows(
            "select p.oid::regprocedure::text from pg_proc as p"
            " where p.pronamespace = 'gdpr'::regnamespace and p.provolatile = 'v' and exists ("
            "   select from unnest(p.proargnames[1:p.pronargs]) as a where a ~"
            "   '^p_(reason|details|evidence|note|words|advice|facts|delay_reason)$')"
            " and obj_description(p.oid) !~"
            "   'encrypted|ciphertext|personal data|never an address|gdpr.record_basis\\(\\)'"
            " order by 1",
            user="postgres",
        )
    ] == []
