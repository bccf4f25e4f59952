"""Station 30: consent as evidence, in force from one statement to the next."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.capabilities.crm import refused, subject
from tests.support import Database, waiting

COUNT = "select count(*) from gdpr_clear.customer"


def marketing(crm: Database, *, autocommit: bool = True) -> psycopg.Connection:
    """The application at work for marketing."""
    app = crm.connect("crm_app", autocommit=autocommit)
    app.execute("select set_config('gdpr.purpose', 'marketing', false)")
    return app


def grant(crm: Database, person: int, *, until: str = "null") -> None:
    """Record a consent to marketing; until: SQL."""
    crm.rows(
        f"select gdpr.record_consent(%s, 'marketing', true, 'in_person', null, {until})",
        [person],
        user="dpo_login",
    )


def test_consent_opens_and_withdrawal_closes(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    app = marketing(crm, autocommit=False)
    assert app.execute(COUNT).fetchone() == (0,)
    grant(crm, anna)
    assert app.execute("select id from gdpr_clear.customer").fetchall() == [(1,)]
    crm.rows("select gdpr.withdraw_consent(%s, 'marketing', 'email')", [anna], user="dpo_login")
    assert app.execute(COUNT).fetchone() == (0,)
    assert crm.rows(
        "select status, channel from gdpr.consent where status <> 'pending'", user="auditor_login"
    ) == [("withdrawn", "email")]
    assert crm.rows("select count(*) from gdpr_internal.consent_record", user="postgres") == [(2,)]


def test_consent_that_expires_is_gone_without_any_job(crm: Database) -> None:
    """A read before T sees the row, a read after T in a transaction that was opened before does
    not."""
    app = marketing(crm, autocommit=False)
    app.execute("select 1")
    grant(crm, subject(crm, "crm.customer", 1), until="statement_timestamp() + interval '1 second'")
    (until,) = crm.rows(
        "select valid_until from gdpr.consent where status <> 'pending'", user="dpo_login"
    )[0]
    before = app.execute(
        "select count(*), statement_timestamp() < %s - interval '100 ms' from gdpr_clear.customer",
        [until],
    ).fetchone()
    assert before == (1, True)
    time.sleep(1.1)
    assert app.execute(
        "select count(*), now() < %s, statement_timestamp() >= %s from gdpr_clear.customer",
        [until, until],
    ).fetchone() == (0, True, True)
    with refused("PR301", "consent_missing"):
        app.execute(
            "update gdpr_clear.lead set score = 1; insert into gdpr_clear.lead"
            " (email) values ('anna@example.com')"
        )
    assert crm.rows(
        "select status from gdpr.consent where status <> 'pending'", user="dpo_login"
    ) == [("expired",)]


def test_consent_counts_at_the_start_of_the_statement(crm: Database) -> None:
    """A prepared statement, planned while the consent held, asks anew each time; so does an open
    cursor's successor."""
    app = marketing(crm)
    grant(crm, subject(crm, "crm.customer", 1), until="statement_timestamp() + interval '700 ms'")
    app.execute("set plan_cache_mode = force_generic_plan")
    app.execute("prepare q as " + COUNT)
    assert app.execute("execute q").fetchone() == (1,)
    time.sleep(0.8)
    assert app.execute("execute q").fetchone() == (0,)


def test_the_tidy_job_changes_nothing_but_speed(crm: Database) -> None:
    grant(crm, subject(crm, "crm.customer", 1), until="statement_timestamp() + interval '300 ms'")
    time.sleep(0.4)
    app = marketing(crm)
    assert app.execute(COUNT).fetchone() == (0,)
    assert crm.rows("select topic from gdpr.doctor() where topic = 'stale_gates'") == [
        ("stale_gates",)
    ]
    assert crm.rows("select gdpr.tidy_gates()") == [(1,)]
    assert crm.rows("select gdpr.tidy_gates()") == [(0,)]
    assert crm.rows("select topic from gdpr.doctor() where topic = 'stale_gates'") == []
    assert app.execute(COUNT).fetchone() == (0,)
    assert crm.rows(COUNT, user="crm_app") == [(3,)]


def test_a_consent_is_valid_as_long_as_its_purpose_says(crm: Database) -> None:
    grant(crm, subject(crm, "crm.customer", 1))
    assert crm.rows(
        "select valid_until - recorded_at = interval '2 years' or valid_until ="
        " recorded_at + interval '2 years' from gdpr.consent where status <> 'pending'",
        user="dpo_login",
    ) == [(True,)]


def test_the_last_word_counts(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    app = marketing(crm)
    grant(crm, anna)
    crm.rows(
        "select gdpr.record_consent(%s, 'marketing', false, 'portal')", [anna], user="dpo_login"
    )
    assert app.execute(COUNT).fetchone() == (0,)
    grant(crm, anna)
    assert app.execute(COUNT).fetchone() == (1,)
    assert crm.rows(
        "select status from gdpr.consent where status <> 'pending'", user="dpo_login"
    ) == [("granted",)]


def test_consent_of_a_person_reaches_all_tables_of_the_purpose(crm: Database) -> None:
    grant(crm, subject(crm, "crm.customer", 1))
    app = marketing(crm)
    assert app.execute("select id from gdpr_clear.lead").fetchall() == [(1,)]
    crm.rows(
        "select gdpr.withdraw_consent(%s, 'marketing')",
        [subject(crm, "crm.customer", 1)],
        user="dpo_login",
    )
    assert app.execute("select id from gdpr_clear.lead").fetchall() == []


def test_evidence_is_ciphertext_under_the_persons_key(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    crm.rows(
        """select gdpr.record_consent(%s, 'marketing', true, 'web_form', '{"signed": "Anna Ahrens",
        "page": 3}')""",
        [anna],
        user="dpo_login",
    )
    stored = crm.rows("select evidence from gdpr_internal.consent_record", user="postgres")[0][0]
    assert stored.startswith("gdpr1:")
    everything = crm.rows(
        "select string_agg(c::text, '') || (select string_agg(a::text, '') from"
        " gdpr_internal.audit_record a) from gdpr_internal.consent_record c",
        user="postgres",
    )[0][0]
    assert "Ahrens" not in everything


@pytest.mark.parametrize(
    ("call", "code", "name"),
    [
        ("record_consent(999, 'marketing', true, 'in_person')", "PR101", "unknown_subject"),
        ("record_consent(1, 'fun', true, 'in_person')", "PR003", "unknown_purpose"),
        ("record_consent(1, 'marketing', null, 'phone')", "PR004", "invalid_argument"),
        ("record_consent(1, 'marketing', true, 'pigeon')", "PR004", "invalid_argument"),
        ("record_consent(1, 'marketing', true, null)", "PR004", "invalid_argument"),
        (
            "record_consent(1, 'marketing', true, 'in_person', null, now() - interval '1 day')",
            "PR004",
            "invalid_argument",
        ),
        ("withdraw_consent(999, 'marketing')", "PR101", "unknown_subject"),
        ("withdraw_consent(1, 'fun')", "PR003", "unknown_purpose"),
    ],
)
def test_a_consent_that_is_none_is_refused(crm: Database, call: str, code: str, name: str) -> None:
    with refused(code, name):
        crm.rows(f"select gdpr.{call}", user="dpo_login")


@pytest.mark.parametrize("purpose", ["orders", "analytics", "compliance", "maintenance"])
def test_consent_is_for_purposes_that_ask_for_it(crm: Database, purpose: str) -> None:
    """A consent to a purpose that rests on another basis would be asked for nothing and withdrawn
    in vain."""
    for call in (
        "record_consent(1, %s, true, 'in_person')",
        "record_consent(1, %s, false, 'phone')",
        "withdraw_consent(1, %s)",
    ):
        with refused("PR302", "consent_not_asked"):
            crm.rows(f"select gdpr.{call}", [purpose], user="dpo_login")


def test_an_application_that_may_records_consent(crm: Database) -> None:
    for user in ("crm_app", "metabase", "auditor_login"):
        for call in (
            "record_consent(1, 'marketing', true, 'in_person')",
            "withdraw_consent(1, 'marketing')",
        ):
            with refused("42501"):
                crm.rows(f"select gdpr.{call}", user=user)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_a_row_inserted_while_consent_is_withdrawn(crm: Database, isolation: str) -> None:
    """Withdrawal first: the row sees it, or its transaction has to be tried again."""
    anna = subject(crm, "crm.customer", 1)
    grant(crm, anna)
    officer = crm.connect("dpo_login", autocommit=False)
    app = marketing(crm, autocommit=False)
    app.rollback()
    app.execute(f"set transaction isolation level {isolation}".encode())
    app.execute("select set_config('gdpr.purpose', 'marketing', true)")
    assert app.execute(COUNT).fetchone() == (1,)
    officer.execute("select gdpr.withdraw_consent(%s, 'marketing')", [anna])
    end = waiting(
        app, lambda: app.execute("insert into gdpr_clear.lead (email) values ('anna@example.com')")
    )
    officer.commit()
    error = end()
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate in ("PR301", "40001")


def test_consent_withdrawn_while_a_row_is_inserted(crm: Database) -> None:
    """Row first: the withdrawal waits for it and closes it."""
    anna = subject(crm, "crm.customer", 1)
    grant(crm, anna)
    app = marketing(crm, autocommit=False)
    app.execute("insert into gdpr_clear.lead (email, score) values ('anna@example.com', 99)")
    officer = crm.connect("dpo_login", autocommit=False)
    end = waiting(
        officer, lambda: officer.execute("select gdpr.withdraw_consent(%s, 'marketing')", [anna])
    )
    app.commit()
    assert end() is None
    officer.commit()
    app.execute("select set_config('gdpr.purpose', 'marketing', true)")
    assert app.execute("select count(*) from gdpr_clear.lead").fetchone() == (0,)


def test_an_update_of_a_row_waits_for_no_withdrawal_and_loses(crm: Database) -> None:
    """A withdrawal that is committed hides the row from an update that begins later in an older
    transaction."""
    anna = subject(crm, "crm.customer", 1)
    grant(crm, anna)
    app = marketing(crm, autocommit=False)
    assert app.execute(COUNT).fetchone() == (1,)
    crm.rows("select gdpr.withdraw_consent(%s, 'marketing')", [anna], user="dpo_login")
    assert app.execute("update gdpr_clear.customer set city = 'X'").rowcount == 0
