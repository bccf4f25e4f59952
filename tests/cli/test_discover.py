"""``gdprdb discover``: a policy file is proposed, with reasons, and can be planned and applied."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gdprdb.drafts import Finding, draft
from tests.support import Database, Run


@pytest.fixture
def look(run: Run, monkeypatch: pytest.MonkeyPatch, chinook: Database) -> Run:
    """The command line, which finds the sample shop."""
    monkeypatch.setenv("GDPRDB_DSN", chinook.dsn())
    return run


def test_a_policy_is_written_planned_and_applied(
    look: Run, chinook: Database, tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    written = look("discover", "--write", str(file))
    assert (written.code, written.out) == (0, "")
    assert "4 tables" in written.err
    text = file.read_text()
    assert "# high: a row is a person: first_name (given name)" in text
    policy = tomllib.loads(text)
    assert policy["tables"]["public.customer"]["match_on"] == ["email"]
    assert policy["tables"]["public.customer"]["columns"]["email"] == {
        "category": "contact",
        "identifier": "email",
        "sensitive": True,
        "encrypt": "searchable",
        "mask": "email",
    }
    assert policy["tables"]["public.invoice_line"]["subject"] == {"via": "invoice_id"}
    # what stands in the file is what the database says that it would plan
    (drafted,) = chinook.rows("select gdpr.draft_policy()")[0]
    assert drafted["tables"] == policy["tables"]
    assert "leonekohler" not in text
    assert "Köhler" not in text
    assert look("policy", "plan", str(file)).code == 0
    applied = look("policy", "apply", str(file), "--yes")
    assert applied.code == 0, applied.err
    assert look("policy", "check", str(file)).code == 0
    # nothing is left to find, and a file is never written over
    assert look("discover", "--format", "json").data == []
    again = look("discover", "--write", str(file))
    assert again.code == 1
    assert "exists" in again.err
    added = look("discover", "--write", "-")
    assert "A policy is in force" in added.out


def test_it_is_shown(look: Run) -> None:
    shown = look("discover", "--format", "json")
    assert shown.code == 0
    found = {(row["table_name"], row["column_name"]): row for row in shown.data}
    assert found["public.customer", "phone"]["reason"].startswith("58 of 58 sampled values")
    names = look("discover", "--sample", "0", "--format", "json").data
    assert {row["column_name"] for row in names if row["identifier"] == "email"} == {"email"}
    assert look("discover", "--sample", "-1").code == 2


def test_names_do_not_write_the_file() -> None:
    """A table whose name is TOML, a column whose name ends a line."""
    evil = 'x"]\n[purposes.evil]\nbasis = "contract"\x7f'
    found = [
        Finding(f"public.{evil}", None, "high", f"a row is {evil}", {"subject": "self"}),
        Finding(f"public.{evil}", evil, "high", f"name of {evil}", {"category": evil}),
        Finding(f"public.{evil}", evil + "2", "low", f"not {evil}\u2028", None),
        Finding("public.unsure", None, "low", evil, {"subject": "self"}),
        Finding("public.unsure", evil, "low", evil, {"category": "contact"}),
    ]
    read = tomllib.loads(draft(found))
    assert set(read["purposes"]) == {"service"}
    assert read["tables"] == {
        f"public.{evil}": {"subject": "self", "columns": {evil: {"category": evil}}}
    }
