"""``gdprdb basis``: bases of one and of many, assessments, and what will be locked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest

from tests.capabilities.crm import apply
from tests.support import Database, Prepared, Run

POLICY = """\
[settings]
time_zone = "Europe/Berlin"
[purposes.orders]
basis = "contract"
[purposes.marketing]
basis = "consent"
[purposes.analytics]
basis = "legitimate_interests"
grace = false

[roles.crm_app]
audience = "clear"
purposes = ["orders", "marketing", "analytics"]

[tables."public.member"]
match_on = ["email"]
purposes = ["orders", "marketing", "analytics"]
[tables."public.member".columns]
email = { category = "contact", identifier = "email", encrypt = "searchable" }
city = { category = "contact" }
"""

CLUB = ("--purpose", "marketing", "--basis", "contract", "--reason", "club")


def with_members(db: Database) -> None:
    """Ten members who were there before gdprdb, with a primary key of two columns."""
    db.rows(
        "create table public.member (club int, n int, email text, city text,"
        " primary key (club, n));"
        "insert into public.member select n % 2, n, 'm' || n || '@example.org',"
        " case when n < 5 then 'Ulm 100%' else 'Bonn' end from generate_series(1, 10) as n;"
        "grant select, insert on public.member to crm_app"
    )
    apply(db, tomllib.loads(POLICY))


@pytest.fixture
def db(prepared: Prepared, installed_template: str) -> Iterator[Database]:
    """A database with these members."""
    with prepared(installed_template, with_members) as database:
        yield database


@pytest.fixture
def members(on_db: Run) -> Run:
    """The command line on that database."""
    return on_db


def recorded(db: Database) -> int:
    """How many bases were recorded by somebody."""
    ((count,),) = db.rows(
        "select count(*) from gdpr.basis where by_table is null", user="dpo_login"
    )
    return int(count)


def chosen(where: str, *more: str) -> tuple[str, ...]:
    """Arguments of ``basis set`` for some members."""
    return ("basis", "set", "--table", "public.member", "--where", where, *CLUB, *more)


def test_set_shows_the_plan_and_stops_at_dry_run(members: Run, db: Database) -> None:
    outcome = members(*chosen("city like 'Ulm 100%'", "--dry-run", "--format", "json"))
    assert (outcome.code, outcome.data) == (0, [])
    lines = [line.split() for line in outcome.err.splitlines()]
    assert ["would", "have", "contract", "4"] in lines
    assert ["has", "now", "(holds)", "undetermined", "4"] in lines
    assert recorded(db) == 0


def test_set_records_in_chunks_for_the_rows_that_meet_a_condition(
    members: Run, db: Database
) -> None:
    """The condition sees plaintext: it is asked of the clear view."""
    outcome = members(
        *chosen(
            "email like 'm1%' or n = 2",
            "--chunk",
            "2",
            "--valid-until",
            "2099-03-31",
            "--yes",
            "--format",
            "json",
        )
    )
    assert (outcome.code, outcome.data) == (0, [{"persons": 3}]), outcome.err
    assert db.rows(
        "select count(*), min(valid_until) = timestamptz '2099-04-01 00:00 Europe/Berlin',"
        " max(reason) from gdpr.basis where by_table is null",
        user="dpo_login",
    ) == [(3, True, "club")]


def test_set_can_leave_out_who_has_the_basis_already(members: Run, db: Database) -> None:
    """Set twice it is recorded twice, as two decisions; with --missing for the others alone."""
    assert members(*chosen("city like 'Ulm 100%'", "--yes")).code == 0
    dry = members(*chosen("true", "--missing", "--dry-run"))
    lines = [line.split() for line in dry.err.splitlines()]
    assert ["would", "have", "contract", "6"] in lines
    assert ["skipped", "contract", "4"] in lines
    others = members(*chosen("true", "--missing", "--yes", "--format", "json"))
    assert others.data == [{"persons": 6}]
    assert recorded(db) == 10
    none = members(*chosen("true", "--missing", "--yes", "--format", "json"))
    assert (none.code, none.data) == (0, [{"persons": 0}])
    assert recorded(db) == 10


def test_a_dry_run_records_and_ends_nothing(members: Run, db: Database) -> None:
    one = ("basis", "record", *CLUB, "--format", "json")
    dry = members(*one, "--dry-run", stdin="m1@example.org")
    assert (dry.code, dry.data, recorded(db)) == (0, [], 0)
    assert "Nothing was changed (--dry-run)." in dry.err
    number = str(members(*one, stdin="m1@example.org").data[0]["basis_id"])
    ended = members("basis", "end", number, "--reason", "over", "--dry-run")
    assert (ended.code, ended.err) == (0, "Nothing was changed (--dry-run).\n")
    standing = "select status from gdpr.basis where basis_id = %s"
    assert db.rows(standing, [number], user="dpo_login") == [("holds",)]
    again = members("basis", "end", "999", "--reason", "over", "--dry-run")
    assert (again.code, "PR203" in again.err) == (4, True)


def test_a_dry_run_decides_no_assessment(members: Run, db: Database) -> None:
    words = ("--interest", "a", "--necessity", "b", "--balancing", "c", "--review", "2099-12-31")
    assess = ("basis", "assess", "--purpose", "analytics", *words, "--format", "json")
    dry = members(*assess, "--dry-run")
    assert (dry.code, dry.data) == (0, [])
    number = str(members(*assess).data[0]["assessment_id"])
    before = members("basis", "assessments", "--format", "json").data
    assert len(before) == 1
    dsn = ("--dsn", db.dsn("dpo_login"))
    for command in (("approve", number), ("reject", number, "--reason", "no")):
        dry = members("basis", *command, *dsn, "--dry-run")
        assert (dry.code, dry.err) == (0, "Nothing was changed (--dry-run).\n")
    assert members("basis", "assessments", "--format", "json").data == before


def test_set_asks_unless_told(members: Run, db: Database) -> None:
    outcome = members(*chosen("true"))
    assert outcome.code == 2
    assert "--yes" in outcome.err
    assert recorded(db) == 0


@pytest.mark.parametrize(
    ("where", "code"),
    [("no such column", 1), ("true); delete from public.member; select (true", 1)],
)
def test_a_condition_is_one_condition(members: Run, db: Database, where: str, code: int) -> None:
    assert members(*chosen(where, "--yes")).code == code
    assert recorded(db) == 0
    assert db.rows("select count(*) from gdpr_clear.member", user="dpo_login") == [(10,)]


def test_a_condition_cannot_write(members: Run, db: Database) -> None:
    db.rows(
        "create table public.trace (n int); create function public.leave() returns boolean"
        " language plpgsql as $$begin insert into public.trace values (1); return true; end$$"
    )
    assert members(*chosen("public.leave()", "--yes")).code != 0
    assert db.rows("select count(*) from public.trace") == [(0,)]


def test_set_runs_with_the_rights_of_who_calls(
    members: Run, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDPRDB_DSN", db.dsn("crm_app"))
    outcome = members(*chosen("true", "--yes"))
    assert outcome.code != 0
    assert "42501" in outcome.err
    assert recorded(db) == 0


def test_a_table_that_is_not_protected_is_named(members: Run, db: Database) -> None:
    db.rows("create table public.other (n int primary key)")
    outcome = members("basis", "set", "--table", "public.other", "--where", "true", *CLUB, "--yes")
    assert outcome.code == 1
    assert "public.other is not a protected table" in outcome.err


def test_a_day_is_a_whole_day_of_the_policy(members: Run, db: Database) -> None:
    outcome = members(
        "basis",
        "record",
        "--subject-id",
        "1",
        *CLUB,
        "--valid-from",
        "2026-03-29",
        "--valid-until",
        "2099-10-31",
        "--evidence",
        '{"letter": 7}',
        "--format",
        "json",
    )
    assert outcome.code == 0, outcome.err
    assert db.rows(
        "select valid_from = timestamptz '2026-03-29 00:00 Europe/Berlin',"
        " valid_until = timestamptz '2099-11-01 00:00 Europe/Berlin', evidence"
        " from gdpr.basis where basis_id = %s",
        [outcome.data[0]["basis_id"]],
        user="dpo_login",
    ) == [(True, True, {"letter": 7})]
    assert members("basis", "record", "--subject-id", "1", *CLUB, "--valid-until", "x").code == 2


def test_several_bases_end_together(members: Run, db: Database) -> None:
    numbers = [
        str(
            members("basis", "record", "--subject-id", person, *CLUB, "--format", "json").data[0][
                "basis_id"
            ]
        )
        for person in ("1", "2")
    ]
    assert members("basis", "end", *numbers, "--reason", "over").code == 0
    assert db.rows(
        "select count(*) from gdpr.basis where end_reason = 'over'", user="dpo_login"
    ) == [(2,)]


def test_overview_counts_and_says_what_would_be_locked(members: Run) -> None:
    assert (
        members(
            "consent",
            "record",
            "--subject-id",
            "3",
            "--purpose",
            "marketing",
            "--refused",
            "--channel",
            "phone",
        ).code
        == 0
    )
    counted = members("basis", "overview", "--format", "json").data
    assert [(row["purpose"], row["basis"], row["status"], row["persons"]) for row in counted] == [
        ("analytics", "none", "none", 10),
        ("marketing", "consent", "declined", 1),
        ("marketing", "undetermined", "holds", 9),
        ("orders", "contract", "holds", 10),
    ]
    locked = members("basis", "overview", "--would-lock", "--format", "json").data
    assert [(row["purpose"], row["cause"], row["persons"]) for row in locked] == [
        ("analytics", "no_basis", 10),
        ("marketing", "no_basis", 1),
        ("marketing", "basis_ends", 9),
    ]


def test_an_assessment_is_written_approved_and_rejected(
    members: Run, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = members(
        "basis",
        "assess",
        "--purpose",
        "analytics",
        "--interest",
        "i",
        "--necessity",
        "n",
        "--balancing",
        "b",
        "--review",
        "2099-12-31",
        "--format",
        "json",
    )
    number = str(written.data[0]["assessment_id"])
    refused = members("basis", "approve", number)
    assert (refused.code, "PR206" in refused.err) == (4, True)

    def status() -> tuple[str, str]:
        (row,) = members("basis", "assessments", "--format", "json").data
        return row["status"], row["review_at"][:10]

    assert status() == ("draft", "2099-12-31")
    monkeypatch.setenv("GDPRDB_DSN", db.dsn("dpo_login"))
    assert members("basis", "approve", number, "--review", "2098-12-31", "--reason", "ok").code == 0
    assert status() == ("in_force", "2098-12-31")
    assert members("basis", "reject", number, "--reason", "no").code == 0
    assert status()[0] == "rejected"
