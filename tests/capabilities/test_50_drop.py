"""Retention of the audit: months go when their time is over, and nothing else looks like it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from gdprdb.audit.drops import read_drops
from tests.capabilities.crm import apply, policy, refused
from tests.capabilities.sealing import checkpoint, seal, tamper, verified, write
from tests.support import Clone, Database

#: A month three years ago, and one more than a year ago.
OLD, RECENT = (
    f"{(datetime.now(UTC).date() - timedelta(days=days)):%Y-%m}-01" for days in (3 * 365, 15 * 30)
)
#: The first days of the months after them.
AFTER_OLD, AFTER_RECENT = (
    f"{(date.fromisoformat(day) + timedelta(days=31)):%Y-%m}-01" for day in (OLD, RECENT)
)

FORGED = (
    "insert into gdpr_internal.audit_record (operation, role, payload)"
    " values ('AUDIT_DROP', 'x', '{\"before\": \"%s\", \"records\": 1}')"
)


@pytest.fixture
def crm(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The protected customer database, with records of two former months, sealed."""
    with clone(crm_template) as database:
        for month in (OLD, RECENT):
            name = f"gdpr_internal.audit_record_{month[:7].replace('-', '_')}"
            database.connect("postgres").execute(
                f"create table {name} (like gdpr_internal.audit_record including defaults);"
                f" alter table {name} owner to gdpr_owner;"
                " alter table gdpr_internal.audit_record attach partition"
                f" {name} for values from ('{month} 00:00Z')"
                f" to (timestamptz '{month} 00:00Z' + interval '1 month')".encode()
            )
            tamper(
                database,
                "insert into gdpr_internal.audit_record (at, operation, role)"
                f" select timestamptz '{month} 00:00Z' + n * interval '1 day', 'TEST', 'x'"
                " from generate_series(0, 20) as n",
            )
        seal(database)
        yield database


def retain(db: Database, period: str) -> None:
    """Set how long the audit is kept."""
    wanted = policy()
    wanted.setdefault("settings", {})["audit_retain"] = period
    apply(db, wanted)
    seal(db)


def test_a_month_goes_when_its_time_is_over(crm: Database) -> None:
    retain(crm, "2 years")
    kept = checkpoint(crm)
    due = crm.rows("select month::text, records from gdpr.due_audit()", user="auditor_login")
    assert due == crm.rows("select month::text, records from gdpr.drop_audit()") == [(OLD, 21)]
    assert verified(crm, kept) == []
    seal(crm)
    assert verified(crm, checkpoint(crm)) == []
    assert crm.rows(
        "select before < now() - interval '2 years', records, too_early from gdpr.audit_dropped",
        user="auditor_login",
    ) == [(True, 21, False)]
    assert crm.rows("select count(*) from gdpr.drop_audit()") == [(0,)]
    retain(crm, "1 year")
    assert crm.rows("select month::text, records from gdpr.drop_audit()") == [(RECENT, 21)]
    write(crm)
    seal(crm)
    assert verified(crm, checkpoint(crm)) == []


@pytest.mark.parametrize(
    ("period", "before", "why"),
    [
        (None, AFTER_OLD, "has no settings.audit_retain"),
        ("2 years", AFTER_RECENT, "only whole months"),
        ("2 years", OLD[:8] + "15", "only whole months"),
    ],
)
def test_what_is_not_due_stays(crm: Database, period: str | None, before: str, why: str) -> None:
    if period:
        retain(crm, period)
    with refused("PR502", "audit_kept") as caught:
        crm.rows("select * from gdpr.drop_audit(%s)", [before])
    assert why in str(caught.value)


def test_what_is_not_sealed_or_was_changed_stays(crm: Database) -> None:
    retain(crm, "2 years")
    tamper(
        crm,
        "insert into gdpr_internal.audit_record (at, operation, role)"
        f" values (timestamptz '{OLD}' + interval '3 days', 'TEST', 'x')",
    )
    with refused("PR502", "audit_kept") as caught:
        crm.rows("select * from gdpr.drop_audit()")
    assert "not sealed" in str(caught.value)
    tamper(crm, f"update gdpr_internal.audit_record set actor = 'me' where at = '{OLD} 00:00Z'")
    with refused("PR502", "audit_kept") as caught:
        crm.rows("select * from gdpr.drop_audit()")
    assert "seal" in str(caught.value)


def late(db: Database) -> tuple[str, str]:
    """Records of two months for which no partition was made, one of them this month; sealed."""
    now = f"{datetime.now(UTC):%Y_%m}"
    partition = f"gdpr_internal.audit_record_{now}"
    db.rows(
        f"alter table gdpr_internal.audit_record detach partition {partition};"
        " insert into gdpr_internal.audit_record overriding system value"
        f" select * from {partition}; drop table {partition}",
        user="postgres",
    )
    tamper(
        db,
        "insert into gdpr_internal.audit_record (at, operation, role)"
        f" values (timestamptz '{OLD} 00:00Z' - interval '3 days', 'TEST', 'x')",
    )
    seal(db)
    return f"{date.fromisoformat(OLD) - timedelta(days=3):%Y_%m}", now


REST = "select count(*) from gdpr_internal.audit_record_rest"
OUTSIDE = "select count(*) from gdpr.doctor() where topic = 'audit_partition'"


def test_records_outside_the_partitions_get_their_months(crm: Database) -> None:
    """Nobody made partitions in time: the nightly job gives the records theirs, as they were."""
    retain(crm, "2 years")
    months = late(crm)
    kept = checkpoint(crm)
    with refused("PR502", "audit_kept") as caught:
        crm.rows("select * from gdpr.drop_audit()")
    assert "audit_record_rest" in str(caught.value)
    assert crm.rows(OUTSIDE) == [(1,)]
    ((before,),) = crm.rows("select count(*) from gdpr_internal.audit_record", user="postgres")
    assert crm.rows("select tidied from gdpr.tidy() where what = 'audit_months'") == [(2,)]
    assert crm.rows(OUTSIDE) == [(0,)]
    assert crm.rows(REST, user="postgres") == [(0,)]
    assert crm.rows(
        "select bool_and(tableoid::regclass::text = 'gdpr_internal.audit_record_' ||"
        " to_char(at at time zone 'UTC', 'YYYY_MM')), count(*) from gdpr_internal.audit_record",
        user="postgres",
    ) == [(True, before)]
    for month in months:
        for change in ("delete from {}", "update {} set actor = null"):
            with refused("55000"):
                crm.rows(change.format(f"gdpr_internal.audit_record_{month}"), user="postgres")
    assert crm.rows("select tidied from gdpr.tidy() where what = 'audit_months'") == [(0,)]
    assert verified(crm, kept) == []
    write(crm)
    seal(crm)
    assert crm.rows(REST, user="postgres") == [(0,)]
    assert crm.rows("select sum(records) from gdpr.drop_audit()") == [(22,)]
    assert verified(crm, checkpoint(crm)) == []


def test_records_outside_wait_for_another_night(crm: Database) -> None:
    """A writer that does not end keeps the job from it, for two seconds, and loses nothing."""
    retain(crm, "2 years")
    late(crm)
    (held,) = crm.rows(REST, user="postgres")
    writer = crm.connect("crm_app", autocommit=False)
    writer.execute("update gdpr_clear.customer set city = 'Ulm' where id = 1")
    assert crm.rows("select tidied from gdpr.tidy() where what = 'audit_months'") == [(0,)]
    writer.commit()
    assert crm.rows(REST, user="postgres") == [(held[0] + 1,)]
    assert crm.rows("select tidied from gdpr.tidy() where what = 'audit_months'") == [(2,)]
    assert crm.rows(REST, user="postgres") == [(0,)]


def test_an_old_snapshot_loses_no_record(crm: Database) -> None:
    """The job in a transaction that does not see the last record: refused, and nothing moved."""
    late(crm)
    job = crm.connect("postgres", autocommit=False)
    job.execute("set transaction isolation level repeatable read")
    job.execute("select from gdpr_internal.audit_record_rest limit 1")
    crm.rows("update gdpr_clear.customer set city = 'Ulm' where id = 1", user="crm_app")
    before = crm.rows(REST, user="postgres")
    with pytest.raises(psycopg.Error, match="violated by some row"):
        job.execute("select gdpr_internal.make_audit_partitions()")
    job.rollback()
    assert crm.rows(REST, user="postgres") == before
    seal(crm)
    assert verified(crm, checkpoint(crm)) == []


def test_a_partition_that_somebody_dropped_is_missing(crm: Database) -> None:
    crm.rows(f"drop table gdpr_internal.audit_record_{OLD[:7].replace('-', '_')}", user="postgres")
    ((_, _, words),) = verified(crm, checkpoint(crm))
    assert words == "21 of 21 records are missing"


def test_a_forged_drop_hides_no_edit(crm: Database) -> None:
    """The records of the month are there: so it was not dropped."""
    retain(crm, "2 years")
    kept = checkpoint(crm)
    tamper(crm, f"update gdpr_internal.audit_record set actor = 'me' where at = '{OLD} 00:00Z'")
    tamper(crm, FORGED % AFTER_OLD)
    assert len(verified(crm, kept)) == 21
    seal(crm)
    assert verified(crm, kept)


def test_a_forged_drop_of_what_is_not_due_hides_nothing(crm: Database) -> None:
    write(crm)
    seal(crm)
    kept = checkpoint(crm)
    tamper(crm, "delete from gdpr_internal.audit_record where at > now() - interval '1 day'")
    tamper(crm, FORGED % "2099-01-01")
    seal(crm)
    found = [words for _, _, words in verified(crm, kept)]
    assert "the record drops months before their time" in found
    assert any("missing" in words for words in found)


def test_a_forged_drop_hides_no_deletion(crm: Database) -> None:
    """Nothing that was sealed let those months go; not even what comes from a later day."""
    kept = checkpoint(crm)
    tamper(crm, f"delete from gdpr_internal.audit_record where at < '{AFTER_RECENT}'")
    tamper(crm, FORGED % AFTER_RECENT)
    for _ in range(2):
        found = verified(crm, kept)
        assert [words for _, _, words in found].count("21 of 21 records are missing") == 2
        assert "the record drops months before their time" in {words for _, _, words in found}
        seal(crm)


@pytest.mark.parametrize("period", [None, "2 years"])
def test_a_forged_drop_from_a_later_day_hides_nothing(crm: Database, period: str | None) -> None:
    if period:
        retain(crm, period)
    write(crm)
    seal(crm)
    kept = checkpoint(crm)
    this_month = f"{datetime.now(UTC):%Y-%m}-01"
    tamper(crm, f"delete from gdpr_internal.audit_record where at < '{this_month} 00:00Z'")
    tamper(
        crm,
        (FORGED % this_month)
        .replace("(operation", "(at, operation")
        .replace("('AUDIT_DROP'", "(now() + interval '3 years', 'AUDIT_DROP'"),
    )
    for sealed in (False, True):
        found = [words for _, _, words in verified(crm, kept)]
        assert found.count("21 of 21 records are missing") == 2
        assert f"the record is dated after {'its seal' if sealed else 'today'}" in found
        assert "the record drops months before their time" in found
        seal(crm)


@pytest.mark.parametrize(
    "payload", ["x", "", "{}", '{"before": "2024-02-30"}', '{"before": "2024-13-01"}', "null"]
)
def test_a_forged_drop_that_says_nothing(crm: Database, payload: str) -> None:
    """It stops no verification."""
    kept = checkpoint(crm)
    tamper(
        crm,
        "insert into gdpr_internal.audit_record (operation, role, payload)"
        f" values ('AUDIT_DROP', 'x', nullif('{payload}', 'null'))",
    )
    ((_, _, words),) = verified(crm, kept)
    assert words == "the record drops months before their time"


def test_a_drop_under_a_policy_that_no_seal_holds(crm: Database) -> None:
    wanted = policy()
    wanted.setdefault("settings", {})["audit_retain"] = "2 years"
    apply(crm, wanted)
    with refused("PR502", "audit_kept") as caught:
        crm.rows("select * from gdpr.drop_audit()")
    assert "no seal holds" in str(caught.value)
    seal(crm)
    assert crm.rows("select records from gdpr.drop_audit()") == [(21,)]


@pytest.mark.parametrize("before", [None, "2 years"])
def test_a_period_that_is_younger_than_the_checkpoint(crm: Database, before: str | None) -> None:
    """Who rules the server can always shorten it and drop: verification says so."""
    if before:
        retain(crm, before)
    kept = checkpoint(crm)
    retain(crm, "1 year")
    crm.rows("select * from gdpr.drop_audit()")
    for _ in range(2):
        ((_, record, words),) = verified(crm, kept)
        assert words.endswith("audit_retain is younger than it")
        assert crm.rows(
            "select operation from gdpr.audit_log where id = %s", [record], user="auditor_login"
        ) == [("AUDIT_DROP",)]
        seal(crm)
    # whoever keeps the next checkpoint has seen it
    assert verified(crm, checkpoint(crm)) == []


def test_a_drop_since_the_checkpoint_is_told(crm: Database) -> None:
    retain(crm, "2 years")
    kept = checkpoint(crm)
    crm.rows("select * from gdpr.drop_audit()")
    session = crm.connect("auditor_login")
    told: list[str] = []
    session.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    verify = "select * from gdpr.verify_audit(%s)"
    assert session.execute(verify, [json.dumps(kept)]).fetchall() == []
    (line,) = told
    ((before,),) = crm.rows("select before::text from gdpr.audit_dropped", user="auditor_login")
    assert f"before {before} were dropped on" in line
    assert "by db_owner" in line
    with psycopg.connect(crm.dsn("auditor_login")) as connection:
        ((at, login),) = [
            (str(drop.before), drop.login) for drop in read_drops(connection, kept["seal"])
        ]
    assert (at, login) == (before, "db_owner")
    seal(crm)
    told.clear()
    assert session.execute(verify, [json.dumps(checkpoint(crm))]).fetchall() == []
    assert told == []


@pytest.mark.parametrize("period", ["11 months", "long", "0 days"])
def test_a_period_that_is_too_short(crm: Database, period: str) -> None:
    with refused("PR001"):
        retain(crm, period)


@pytest.mark.parametrize("user", ["crm_app", "metabase", "auditor_login", "dpo_login"])
def test_who_may_drop(crm: Database, user: str) -> None:
    with refused("42501"):
        crm.rows("select * from gdpr.drop_audit()", user=user)
