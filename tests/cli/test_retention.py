"""``gdprdb retention`` and ``gdprdb subject erase-batch``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.capabilities.crm import refused
from tests.support import Database, Run

POLICY = """\
[purposes.orders]
basis = "contract"

[tables."public.member"]
match_on = ["email"]
purposes = ["orders"]
[[tables."public.member".retain]]
columns = ["city"]
for = "2 years"
after = "entered"
[[tables."public.member".retain]]
columns = ["email"]
for = "1 year"
after = "last_basis"
[tables."public.member".columns]
email = { category = "contact", identifier = "email", encrypt = "searchable" }
city = { category = "contact" }
entered = { category = "other" }
"""


@pytest.fixture
def members(db: Database, on_db: Run, tmp_path: Path) -> Run:
    """The command line on a database of ten members; six entered three years ago."""
    db.rows(
        "create table public.member (id int primary key, email text, city text, entered date);"
        "insert into public.member select n, 'm' || n || '@example.org', 'Ulm', current_date"
        " - case when n < 7 then interval '3 years' else '1 year' end"
        " from generate_series(1, 10) as n"
    )
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    assert on_db("policy", "apply", str(path), "--yes").code == 0
    return on_db


def test_the_plan_and_the_run(db: Database, members: Run) -> None:
    plan = members("retention", "plan", "--format", "json")
    assert [(row["rule"], row["rows_due"], row["kept_for"]) for row in plan.data] == [
        (1, 6, "2 years"),
        (2, 0, "1 year"),
    ]
    shown = members("retention", "run", "--dry-run")
    assert shown.code == 0
    assert "Nothing was changed" in shown.err
    assert members("retention", "run").code == 2
    done = members("retention", "run", "--limit", "2", "--yes", "--format", "json")
    assert done.data == [{"table_name": "member", "removed": 0, "emptied": 6}]
    assert "member: 0 rows removed, 4 emptied" in done.err
    left = "select count(*) from public.member where city is not null"
    assert db.rows(left, user="postgres") == [(4,)]


def test_holding_and_releasing(members: Run) -> None:
    words = ("--table", "member", "--key", "3", "--column", "city")
    held = members(
        "retention", "hold", *words, "--ground", "legal_claims", "--reference", "3 O 17/26",
        "--until", "2099-12-31", "--format", "json",
    )  # fmt: skip
    number = str(held.data[0]["hold_id"])
    (shown,) = members("retention", "holds", "--format", "json").data
    assert (shown["columns"], shown["article"]) == (["city"], "Art. 17(3)(e)")
    assert members("retention", "plan", "--format", "json").data[0]["rows_held"] == 1
    assert members("retention", "release", "--hold-id", number, "--reason", "over").code == 0
    assert members("retention", "holds", "--format", "json").data == []
    assert len(members("retention", "holds", "--all", "--format", "json").data) == 1


def numbers(db: Database) -> list[int]:
    """The numbers of all members."""
    ((found,),) = db.rows(
        "select gdpr.subjects_of('member', array(select n::text from generate_series(1, 10) as n))"
    )
    return sorted(found)


def test_proposals_and_their_approval(db: Database, members: Run) -> None:
    one, two, *_ = numbers(db)
    db.rows(
        "select gdpr.end_bases(array(select basis_id from gdpr.basis"
        " where subject_id in (%s, %s)), 'over')",
        [one, two],
    )
    proposed = members("retention", "proposals", "--format", "json").data
    assert [row["subject_id"] for row in proposed] == [one, two]
    words = ("retention", "approve", "--reason", "nothing speaks for it", "--subject-id", str(one))
    assert members(*words, "--dry-run").code == 0
    assert len(members("retention", "proposals", "--format", "json").data) == 2
    assert members(*words, "--yes").code == 0
    assert "1 persons erased" in members("retention", "run", "--yes").err
    erased = "select subject_id, reason from gdpr.erasure_ledger"
    assert db.rows(erased) == [(one, "nothing speaks for it")]


def test_a_batch_from_a_file_and_what_is_left_of_it(
    db: Database, members: Run, tmp_path: Path
) -> None:
    everybody = numbers(db)
    path = tmp_path / "numbers"
    # as Windows writes it
    path.write_text("\r\n".join(str(n) for n in everybody[:9]) + "\r\n\r\n", "utf-8-sig")
    call = ("subject", "erase-batch", "--file", str(path), "--reason", "inactive", "--chunk", "4")
    dry = members(*call, "--dry-run")
    assert dry.code == 0
    assert db.rows("select count(*) from gdpr.erasure_batch") == [(0,)]
    done = members(*call, "--yes", "--format", "json")
    (row,) = done.data
    assert (row["persons"], row["erased"], row["failed"]) == (9, 9, 0)
    assert f"--resume {row['batch_id']}" in done.err
    again = members("subject", "erase-batch", "--resume", str(row["batch_id"]), "--yes")
    assert again.code == 0
    assert members("subject", "erase-batch", "--resume", "99", "--yes").code == 1
    assert members("subject", "erase-batch", "--file", str(path)).code == 2
    for wrong in (b"anna@example.com", b"-7", b"1;2", "²".encode(), b"\xff\xfe1"):
        path.write_bytes(b"1\n\n" + wrong + b"\n")
        refused = members(*call, "--yes")
        assert refused.code == 2
        assert "line 3 of the file is no number" in refused.err
        assert "anna" not in refused.err


def test_somebody_who_cannot_be_erased_is_a_finding(db: Database, members: Run) -> None:
    db.rows(
        "create table public.note (member_id int references public.member);"
        "insert into public.note values (2)"
    )
    everybody = "\n".join(str(number) for number in numbers(db))
    call = ("subject", "erase-batch", "--file", "-", "--reason", "inactive", "--yes")
    done = members(*call, "--format", "json", stdin=everybody)
    assert done.code == 3
    assert [(row["erased"], row["failed"]) for row in done.data] == [(9, 1)]
    assert "erase-batch" in members("doctor").out
    db.rows("drop table public.note")
    batch = str(done.data[0]["batch_id"])
    assert members("subject", "erase-batch", "--resume", batch, "--retry", "--yes").code == 0


def test_pg_cron_where_there_is_one(db: Database, members: Run) -> None:
    """Not a function of that name that somebody else made."""
    fake = (
        "create schema cron; create table cron.job (name text primary key, at text, what text);"
        "create function cron.schedule(n text, s text, c text) returns bigint language sql as"
        " $$ insert into cron.job values (n, s, c) on conflict (name) do update set at = s"
        " returning 1::bigint $$"
    )
    assert members("retention", "schedule").code == 4
    db.rows(fake)
    with refused("PR805", "cron_missing"):
        db.rows("select * from gdpr.schedule_jobs()")
    db.rows("drop schema cron cascade")
    db.rows(
        f"{fake}; grant usage on schema cron to public;"
        " grant insert, update, select on cron.job to public",
        user="postgres",
    )
    assert members("retention", "schedule").code == 0
    assert members("retention", "schedule").code == 0
    jobs = "select name, what from cron.job order by name"
    assert db.rows(jobs) == [
        ("gdprdb retention", "select count(*) from gdpr.run_retention()"),
        ("gdprdb seal", "select gdpr.seal_audit()"),
        ("gdprdb tidy", "select count(*) from gdpr.tidy()"),
    ]


def test_tidying_goes_on_until_nothing_is_left(
    db: Database, on_db: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gdprdb.cli.retention.PAGE", 2)
    db.rows(
        "select gdpr_internal.create_token('session', n, n, now() - interval '1 day')"
        " from generate_series(1, 5) as n",
        user="postgres",
    )
    done = {
        row["what"]: row["tidied"] for row in on_db("retention", "tidy", "--format", "json").data
    }
    assert (done["tokens"], done["gates"]) == (5, 0)
    assert db.rows("select count(*) from gdpr_internal.token", user="postgres") == [(0,)]
