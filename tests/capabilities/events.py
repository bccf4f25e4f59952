"""What gdprdb itself does, one step after another in one database, and what it has to record.

`STEPS` calls every function of schema gdpr that changes something and may be called by somebody
at least once; `SILENT` names those that leave no record, with the reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.capabilities.consents import EVIDENCE, PURPOSES
from tests.capabilities.crm import policy

OWNER, DPO, APP, PORTAL, MAILER = "db_owner", "dpo_login", "crm_app", "portal_app", "mailer"

#: Customers by name, and their keys.
PERSONS = {"anna": 1, "bela": 2, "chie": 3, "dora": 4, "emil": 5, "fina": 6, "gerd": 7}

#: A policy with everything in it that steps need.
CHANGES: dict[str, Any] = PURPOSES | {
    "roles__mailer": {"audience": "mail"},
    "roles__db_owner": {"audience": "clear", "purposes": ["maintenance"]},
    "tables__crm.customer__double_opt_in": True,
    "tables__crm.lead__retain": [{"columns": ["full_name"], "for": "1 day", "after": "seen"}],
    "tables__crm.lead__columns__seen": {"category": "other"},
    "tables__crm.lead__columns__score": {"category": "other", "review": True},
    "tables__crm.lead__erase": "anonymise",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A call, as somebody makes it.

    Attributes:
        user: the login.
        call: the statement; ``%(name)s`` is what an earlier step found.
        records: the operations that the log has of it, at least; nothing for what prepares.
        found: the name under which the first value of the first row is kept.
        of: the function that it is for, where there are several of the name.
    """

    user: str
    call: str
    records: frozenset[str] = field(default_factory=frozenset)
    found: str = ""
    of: str = ""


def step(user: str, call: str, *records: str, found: str = "", of: str = "") -> Step:
    """A step, its records as words."""
    return Step(user, call, frozenset(records), found, of)


def change(key: int, name: str) -> str:
    """A correction of the name of a customer."""
    what = {"table": "crm.customer", "key": str(key), "column": "last_name", "value": name}
    return json.dumps([what])


def begun() -> dict[str, Any]:
    """What the first steps take: the policies."""
    bound = policy(**CHANGES, roles__metabase__purposes=["orders", "analytics"])
    return {"policy": json.dumps(policy(**CHANGES)), "bound": json.dumps(bound)}


STEPS = (
    step(OWNER, "select count(*) from gdpr.apply(%(policy)s)", "POLICY"),
    # the same with another role: who may do what is part of the policy
    step(OWNER, "select count(*) from gdpr.apply(%(bound)s)", "POLICY"),
    step(
        OWNER,
        "select gdpr.record_assessment('analytics', 'a', 'b', 'c', '2099-12-31')",
        "ASSESSMENT",
        found="assessment",
    ),
    step(DPO, "select gdpr.approve_assessment(%(assessment)s)", "ASSESSMENT"),
    step(
        OWNER,
        "select gdpr.record_assessment('analytics', 'a', 'b', 'c', '2099-12-31')",
        "ASSESSMENT",
        found="assessment",
    ),
    step(DPO, "select gdpr.reject_assessment(%(assessment)s, 'no')", "ASSESSMENT"),
    step(
        APP,
        "insert into gdpr_clear.customer (email, last_name) select 'p' || n ||"
        " '@example.com', 'P' from generate_series(4, 12) as n",
    ),
    step(
        APP,
        """select count(*) from gdpr.import_rows('crm.customer', '[{"email":"""
        """ "i@example.com", "last_name": "I"}]', '{"kind": "import"}')""",
        "IMPORT",
        "INSERT",
    ),
    *(
        step(DPO, f"select gdpr.subject_of('crm.customer', '{key}')", found=name)
        for name, key in PERSONS.items()
    ),
    # consent
    step(
        DPO,
        "select gdpr.record_form('news', 'en', '{marketing,profiling}', '{mail,phone}',"
        " 'May we?', 'Yes or no.', 'https://shop.example/privacy')",
        "FORM",
    ),
    step(DPO, "select gdpr.publish_form('news', 'en')", "FORM"),
    step(
        DPO,
        "select token from gdpr.request_consent(%(anna)s, '{marketing}', 'portal', 'news', null)",
        "ASK",
        found="token",
    ),
    step(
        DPO,
        "select count(*) from gdpr.request_consents(array[%(bela)s, %(chie)s]::bigint[],"
        " '{marketing,profiling}', 'portal', 'news', null)",
        "ASK",
    ),
    step(PORTAL, "select gdpr.answer_consent(%(token)s, '{marketing}')", "CONSENT"),
    step(PORTAL, "select gdpr.portal_withdraw(%(token)s, '{marketing}')", "CONSENT"),
    step(DPO, "select gdpr.record_consent(%(bela)s, 'marketing', true, 'in_person')", "CONSENT"),
    step(DPO, "select gdpr.withdraw_consent(%(bela)s, 'marketing')", "CONSENT"),
    # bases
    step(
        DPO, "select gdpr.record_basis(%(anna)s, 'orders', 'contract', 'x')", "BASIS", found="basis"
    ),
    step(
        DPO,
        "select gdpr.record_bases(array[%(anna)s, %(bela)s]::bigint[], 'orders', 'contract', 'x')",
        "BASIS",
    ),
    step(DPO, "select gdpr.end_basis(%(basis)s, 'over')", "BASIS"),
    step(DPO, "select max(basis_id) from gdpr.basis where subject_id = %(bela)s", found="basis"),
    step(DPO, "select gdpr.end_bases(array[%(basis)s]::bigint[], 'over')", "BASIS"),
    # registrations and the blocklist
    step(
        PORTAL,
        """select gdpr.submit('crm.customer', '{"email": "new@example.com", "last_name": "N"}')""",
    ),
    step(MAILER, "select gdpr.next_mail()", found="mail"),
    step(MAILER, "select (gdpr.open_mail(%(mail)s)).message ->> 'token'", found="token"),
    step(MAILER, "select gdpr.mail_sent(%(mail)s)"),
    step(PORTAL, "select gdpr.confirm(%(token)s)", "CONFIRM", "INSERT"),
    step(
        PORTAL,
        """select gdpr.submit('crm.customer', '{"email": "other@example.com", "last_name":"""
        """ "N"}')""",
    ),
    step(MAILER, "select gdpr.next_mail()", found="mail"),
    step(MAILER, "select (gdpr.open_mail(%(mail)s)).message ->> 'token'", found="token"),
    step(MAILER, "select gdpr.mail_sent(%(mail)s)"),
    step(PORTAL, "select gdpr.opt_out(%(token)s)", "OPT_OUT"),
    step(DPO, "select gdpr.lift_opt_out('other@example.com', 'asked by phone')", "OPT_OUT"),
    step(DPO, "select gdpr.block('email', 'never@example.com', 'asked')", "BLOCK"),
    step(DPO, "select gdpr.unblock('email', 'never@example.com', 'asked')", "UNBLOCK"),
    # what is told of a person, to whom
    step(DPO, "select gdpr.access_report(%(anna)s)", "ACCESS"),
    step(
        DPO,
        "select page from gdpr.access_pages(%(anna)s) where page is not null limit 1",
        "ACCESS",
        found="page",
    ),
    step(DPO, "select count(*) from gdpr.access_rows(%(anna)s, %(page)s::jsonb)", "ACCESS"),
    step(DPO, "select gdpr.portable_copy(%(anna)s)", "ACCESS"),
    step(DPO, "select count(*) from gdpr.history('crm.customer', '1')", "ACCESS"),
    step(DPO, "select gdpr.note_audit_access()", "ACCESS"),
    step(DPO, "select gdpr.create_download(%(anna)s)", "DOWNLOAD", found="token"),
    step(PORTAL, "select gdpr.portal_download(%(token)s)", "ACCESS"),
    step(DPO, "select mail_id from gdpr.send_report(%(anna)s)", "SEND"),
    step(MAILER, "select gdpr.next_mail()", found="mail"),
    step(MAILER, "select gdpr.mail_report(%(mail)s)", "ACCESS"),
    step(MAILER, "select gdpr.mail_failed(%(mail)s, true, '550 5.1.1')"),
    step(DPO, "select gdpr.retry_mails()", "MAIL"),
    step(DPO, "select gdpr.drop_mails(array[%(mail)s]::bigint[], 'told otherwise')", "MAIL"),
    # requests
    step(DPO, "select gdpr.open_request('access', %(anna)s, 'email')", "REQUEST", found="request"),
    step(DPO, "select gdpr.ask_identity(%(request)s)", "REQUEST"),
    step(DPO, "select gdpr.verify_identity(%(request)s, %(anna)s)", "REQUEST"),
    step(DPO, "select gdpr.extend_request(%(request)s, 'complexity')", "REQUEST"),
    step(DPO, "select gdpr.complete_request(%(request)s, 'nothing_held')", "REQUEST"),
    step(DPO, "select gdpr.open_request('access', %(bela)s, 'email')", "REQUEST", found="request"),
    step(
        DPO,
        """select gdpr.refuse_request(%(request)s, 'manifestly_unfounded', '{"why": "x"}')""",
        "REQUEST",
    ),
    step(DPO, "select gdpr.open_request('access', %(bela)s, 'email')", "REQUEST", found="request"),
    step(DPO, "select gdpr.withdraw_request(%(request)s)", "REQUEST"),
    # sharing, and rectification, of which recipients are told
    step(
        DPO,
        "select gdpr.record_recipient('Parcel AG', 'processor', 'DE', p_contract => 'AV-7')",
        "RECIPIENT",
    ),
    step(
        DPO,
        "select gdpr.record_disclosure('Parcel AG', array[%(anna)s, %(bela)s,"
        " %(emil)s]::bigint[], 'orders', p_categories => '{identity}')",
        "DISCLOSE",
    ),
    step(
        DPO,
        "select count(*) from gdpr.export_rows('crm.customer', p_recipient => 'Parcel AG',"
        " p_purpose => 'orders')",
        "DISCLOSE",
    ),
    step(DPO, f"select gdpr.rectify(%(anna)s, '{change(1, 'Arens')}', 'x')", "RECTIFY", "UPDATE"),
    step(
        OWNER,
        f"select gdpr.propose_rectification(%(bela)s, '{change(2, 'Bart')}', 'x')",
        "RECTIFY",
        found="proposal",
    ),
    step(DPO, "select gdpr.approve_rectification(%(proposal)s, 'yes')", "RECTIFY", "UPDATE"),
    step(
        DPO,
        f"select gdpr.propose_rectification(%(anna)s, '{change(1, 'Arendt')}', 'x')",
        "RECTIFY",
        found="proposal",
    ),
    step(DPO, "select gdpr.reject_rectification(%(proposal)s, 'no')", "RECTIFY"),
    step(DPO, f"select gdpr.rectify_rows('{change(5, 'Emil')}', 'x')", "RECTIFY", "UPDATE"),
    step(DPO, "select min(notice_id) from gdpr.notice_due", found="notice"),
    step(DPO, "select gdpr.open_notice(%(notice)s)", "NOTICE"),
    step(DPO, "select gdpr.notice_sent(%(notice)s, 'phone')", "NOTICE"),
    step(DPO, "select gdpr.confirm_notice(%(notice)s, 'done')", "NOTICE"),
    step(DPO, "select min(notice_id) from gdpr.notice_due", found="notice"),
    step(DPO, "select gdpr.notice_impossible(%(notice)s, 'wound up')", "NOTICE"),
    step(DPO, "select gdpr.end_recipient('Parcel AG')", "RECIPIENT"),
    # restriction and objection
    step(DPO, "select gdpr.restrict(%(bela)s, 'accuracy_contested')", "RESTRICT"),
    step(
        DPO,
        "select gdpr.except_from_restriction(%(bela)s, 'orders', 'legal_claims', now() +"
        """ interval '1 day', '{"reason": "x"}')""",
        "EXCEPT",
        found="exception",
    ),
    step(DPO, "select gdpr.end_exception(%(exception)s, 'over')", "EXCEPT"),
    step(DPO, f"select gdpr.announce_lifting(%(bela)s, 'phone', '{EVIDENCE}')", "ANNOUNCE"),
    step(DPO, "select gdpr.lift_restriction(%(bela)s, 'told')", "LIFT"),
    step(DPO, "select gdpr.object_to(%(bela)s, 'analytics')", "OBJECT"),
    step(DPO, "select gdpr.decide_objection(%(bela)s, 'analytics', 'upheld')", "DECIDE"),
    # the portal
    step(PORTAL, "select gdpr.portal_request_sign_in('chie@example.com')"),
    step(MAILER, "select gdpr.next_mail()", found="mail"),
    step(MAILER, "select (gdpr.open_mail(%(mail)s)).message ->> 'token'", found="token"),
    step(PORTAL, "select gdpr.portal_sign_in(%(token)s) ->> 'session'", "SIGN_IN", found="session"),
    step(PORTAL, "select gdpr.portal_data(%(session)s)", "ACCESS", "REQUEST"),
    step(PORTAL, "select gdpr.portal_copy(%(session)s)", "ACCESS", "REQUEST"),
    step(
        PORTAL,
        f"select gdpr.portal_correct(%(session)s, '{change(3, 'Cho')}', 'x')",
        "RECTIFY",
        "REQUEST",
    ),
    step(
        PORTAL,
        "select gdpr.portal_answer_consent(%(session)s, 'marketing', true, '{mail}')",
        "CONSENT",
    ),
    step(
        PORTAL,
        "select gdpr.portal_withdraw_consent(%(session)s, 'marketing')",
        "CONSENT",
        "REQUEST",
    ),
    step(PORTAL, "select gdpr.portal_object(%(session)s, 'analytics', null)", "OBJECT", "REQUEST"),
    step(
        PORTAL, "select gdpr.portal_take_back_objection(%(session)s, 'analytics', null)", "DECIDE"
    ),
    step(PORTAL, "select gdpr.portal_restrict(%(session)s, 'accuracy_contested')", "REQUEST"),
    step(PORTAL, "select gdpr.portal_erase(%(session)s)", "REQUEST", found="request"),
    step(PORTAL, "select gdpr.portal_withdraw_request(%(session)s, %(request)s)", "REQUEST"),
    # accountability
    step(
        DPO,
        "select gdpr.record_party('representative', 'R', 'r@example.org', 'FR')",
        "PARTY",
    ),
    step(
        OWNER,
        "select gdpr.record_impact_assessment("
        "'X', '{marketing}', 'a', 'b', 'c', 'd', '2099-12-31')",
        "IMPACT_ASSESSMENT",
        found="impact",
    ),
    step(
        DPO, "select gdpr.approve_impact_assessment(%(impact)s, 'low', 'ok')", "IMPACT_ASSESSMENT"
    ),
    step(DPO, "select gdpr.reject_impact_assessment(%(impact)s, 'no')", "IMPACT_ASSESSMENT"),
    step(
        DPO,
        """select gdpr.record_breach('{"nature": "x", "kinds": ["integrity"]}')""",
        "BREACH",
        found="breach",
    ),
    step(
        DPO,
        """select gdpr.amend_breach(%(breach)s, '{"measures": "x", "consequences": "y"}')""",
        "BREACH",
    ),
    step(DPO, "select gdpr.assess_breach(%(breach)s, 'high', 'x')", "BREACH"),
    step(DPO, "select gdpr.notify_breach(%(breach)s, 'LfDI', '7')", "BREACH"),
    step(
        DPO,
        "select gdpr.add_breach_persons(%(breach)s, array[%(anna)s, %(bela)s]::bigint[])",
        "BREACH",
    ),
    step(DPO, f"select gdpr.breach_told(%(breach)s, %(anna)s, 'post', '{EVIDENCE}')", "BREACH"),
    step(DPO, """select queued from gdpr.tell_breach(%(breach)s, '{"en": "x"}')""", "BREACH"),
    step(DPO, "select gdpr.excuse_breach(%(breach)s, 'risk_averted', 'x')", "BREACH"),
    step(DPO, "select gdpr.close_breach(%(breach)s, 'x')", "BREACH"),
    # the guard
    step(DPO, "select gdpr.open_maintenance('x', now() + interval '1 hour')", "GUARD"),
    step(DPO, "select gdpr.close_maintenance()", "GUARD"),
    # holds, erasure, retention
    step(
        DPO, "select gdpr.place_hold(%(dora)s, 'legal_claims', '3 O 17/26')", "HOLD", found="hold"
    ),
    step(DPO, "select gdpr.release_hold(%(hold)s, 'over')", "RELEASE"),
    step(DPO, "select gdpr.erase(%(dora)s, 'asked')", "DELETE", "ERASE", of="erase(bigint,text)"),
    step(
        DPO,
        "select count(*) from gdpr.erase(array[%(emil)s]::bigint[], 'asked')",
        "DELETE",
        "ERASE",
        of="erase(bigint[],text)",
    ),
    step(
        DPO,
        "select gdpr.open_erasure_batch(array[%(fina)s]::bigint[], 'inactive')",
        "BATCH",
        found="batch",
    ),
    step(
        OWNER,
        "create function crm.no() returns trigger language plpgsql as 'begin raise"
        " exception ''no''; end'; create trigger no before delete on crm.customer for each"
        " row execute function crm.no()",
    ),
    step(DPO, "select gdpr.run_erasure_batch(%(batch)s, 7)"),
    step(OWNER, "drop trigger no on crm.customer"),
    step(DPO, "select gdpr.retry_erasure_batch(%(batch)s)", "BATCH"),
    step(DPO, "select gdpr.run_erasure_batch(%(batch)s, 7)", "DELETE", "ERASE"),
    step(DPO, "select gdpr.subject_of('crm.lead', '1')", found="anna"),
    step(DPO, "select gdpr.erase(%(anna)s)"),
    step(DPO, "select min(review_id) from gdpr.review_due", found="review"),
    step(DPO, "select gdpr.finish_review(%(review)s, 'cleared')", "REVIEW"),
    step(OWNER, "update crm.lead set seen = now() - interval '1 year'", "MAINTENANCE", "UPDATE"),
    step(OWNER, "select count(*) from gdpr.run_retention()", "RETAIN", "UPDATE"),
    # after a restore
    step(DPO, "select jsonb_agg(l) from gdpr.ledger() as l", "LEDGER", found="ledger"),
    step(DPO, "select gdpr.replay(%(ledger)s)", "REPLAY"),
    step(DPO, "select gdpr.accept_restore('the original')", "HOME"),
    step(APP, "delete from gdpr_clear.customer where email = 'i@example.com'", "DELETE"),
    # keys, months, tables
    step(OWNER, "select gdpr.rotate_key()", "KEY"),
    step(OWNER, "select gdpr.rewrap_keys(1000)"),
    step(OWNER, "select gdpr.rewrap_keys(1000)"),
    step(OWNER, "select gdpr.finish_rotation()", "KEY"),
    step(OWNER, "select gdpr.renew_key(%(bela)s)", "KEY"),
    step(OWNER, "select gdpr.renew_keys(1000)", "KEY"),
    step(
        OWNER,
        "select count(*) from gdpr.reshape("
        "'crm.customer', array['alter table crm.customer add x text'])",
        "RESHAPE",
        of="reshape(regclass,text[],text)",
    ),
    step(OWNER, "select gdpr.unprotect('crm.order_line')", "UNPROTECT"),
    step(OWNER, "select gdpr.rotate_key('session')", "KEY"),
    step(OWNER, "select gdpr.lock_keys()", "KEY"),
    step(OWNER, "select gdpr.show_new_key()", "KEY"),
    step(OWNER, "select gdpr.abort_rotation()", "KEY"),
)

_SHOWN = "shows what is there; documents about persons are recorded, look-ups are not"
_EXPIRED = "deletes what has expired by itself and holds for nothing any more"
_MAIL = "gdpr_internal.mail_record says what became of each mail, and is evidence itself"
_SESSION = "is about a session, and changes nothing that is kept"

#: Functions whose calls leave no record, and why none is wanted.
SILENT = {
    "broken_values": _SHOWN,
    "check_ledger": _SHOWN,
    "compare_rectification": _SHOWN,
    "doctor": _SHOWN,
    "erasure_plan": _SHOWN,
    "portal_form": _SHOWN,
    "portal_purposes": _SHOWN,
    "portal_requests": _SHOWN,
    "retention_plan": _SHOWN,
    "rows_of": _SHOWN,
    "source_of": _SHOWN,
    "subject_of": _SHOWN,
    "subjects_of": _SHOWN,
    "next_mail": _MAIL,
    "next_mail_at": _MAIL,
    "open_mail": _MAIL,
    "mail_sent": _MAIL,
    "mail_failed": _MAIL,
    "portal_request_sign_in": "must not tell whether anybody has this address",
    "portal_sign_out": _SESSION,
    "set_context": _SESSION,
    "unlock": _SESSION,
    "estimate": _SHOWN,
    "refuse_policy": "raises an error",
    "submit": "nothing is in a table until it is confirmed, and that is recorded",
    "rewrap_keys": "goes between rotate_key() and finish_rotation(), which are recorded",
    "schedule_jobs": "pg_cron keeps what it runs; the jobs leave their own records",
    "seal_audit": "a seal is more than a record",
    "tidy": "calls the others",
    "reshape(regclass)": "goes before end_reshape(), which is recorded; alone it cannot commit",
    "retype": "goes before end_reshape(), which is recorded; alone it cannot commit",
    "backfill": "goes between steps of apply() in batches, which are recorded",
    "tidy_gates": "copies what the evidence says",
    "tidy_registrations": _EXPIRED,
    "tidy_tokens": _EXPIRED,
    "tidy_imports": _EXPIRED,
}

#: Functions that leave records, and where that is tested: they do not fit in between.
ELSEWHERE = {
    "create_key": "the first record of every database: test_50_events.py",
    "drop_audit": "test_50_drop.py",
    "approve_erasures": "BATCH, as open_erasure_batch: test_80_retention.py",
    "end_reshape": "RESHAPE, as reshape() with its statements: test_00_reshape.py",
    "tidy_blocklist": "UNBLOCK, where the policy has blocklist_retain: test_10_blocklist.py",
}
