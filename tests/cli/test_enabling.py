"""``gdprdb policy apply --batches``: shown before, stopped, and gone on with, from the shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gdprdb import enabling
from gdprdb.cli import policy as command
from tests.support import Clone, Database, Run

POLICY = """
[purposes.orders]
basis = "contract"
[roles.crm_app]
audience = "clear"
purposes = ["orders"]
[tables."shop.buyer"]
subject = "self"
purposes = ["orders"]
[tables."shop.buyer".columns]
email = { category = "contact", identifier = "email", encrypt = "searchable" }
city  = { category = "contact", encrypt = true }
"""


@pytest.fixture
def shop(clone: Clone, shop_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A table in a database of its own, which is the one of the command line."""
    with clone(shop_template) as database:
        database.rows("create schema shop create table buyer (id serial, email text, city text)")
        database.rows(
            "insert into shop.buyer (email, city)"
            " select n || '@example.com', 'Ulm' from generate_series(1, 500) as n"
        )
        monkeypatch.setenv("GDPRDB_DSN", database.dsn())
        yield database


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return str(path)


def test_in_batches(run: Run, shop: Database, file: str) -> None:
    done = run("policy", "apply", file, "--batches", "--yes")
    assert done.code == 0, done.err
    assert "shop.buyer: find the persons in existing rows" in done.err
    assert "shop.buyer: switch on" in done.err
    assert "Applied: 11 steps." in done.err
    assert run("policy", "check", file).code == 0
    again = run("policy", "apply", file, "--batches", "--yes")
    assert "nothing to do" in again.err
    assert shop.rows(
        "select count(*) from shop.buyer where not starts_with(city, 'gdpr1:')", user="postgres"
    ) == [(0,)]


def test_two_do_not_get_in_each_others_way(run: Run, shop: Database, file: str) -> None:
    other = shop.connect()
    other.execute("select pg_advisory_lock(hashtextextended('gdpr.enabling', 0))")
    refused = run("policy", "apply", file, "--batches", "--yes")
    assert refused.code == 1
    assert "somebody else is enabling tables" in refused.err
    assert shop.rows("select * from gdpr.enabling") == []


def test_large_tables_go_in_batches_and_what_it_takes_is_told(
    run: Run, shop: Database, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LARGE", 100)
    monkeypatch.setattr(command, "WORTH_A_WORD", 100)
    shop.rows("analyze shop.buyer")
    planned = run("policy", "plan", file, "--format", "json")
    assert planned.data
    assert "shop.buyer: about 500 rows, " in planned.err
    assert "in batches, while applications work" in planned.err
    done = run("policy", "apply", file, "--yes")
    assert "find the persons" in done.err


def test_small_tables_are_protected_at_once(run: Run, shop: Database, file: str) -> None:
    done = run("policy", "apply", file, "--yes")
    assert done.code == 0, done.err
    assert "shop.buyer: " not in done.err
    assert shop.rows(
        "select count(*) from shop.buyer where gdpr_subject_id is null", user="postgres"
    ) == [(0,)]


@pytest.mark.parametrize("way", ["--at-once", None])
def test_who_was_stopped_calls_it_again(
    run: Run, shop: Database, file: str, monkeypatch: pytest.MonkeyPatch, way: str | None
) -> None:
    patiently = enabling._patiently

    def stopped(connection: psycopg.Connection, statement: str) -> tuple[Any, ...] | None:
        middle = "select from gdpr.enabling where state = 'sealing' and block > 1"
        if shop.rows(f"select exists ({middle})") == [(True,)]:
            raise KeyboardInterrupt
        return patiently(connection, statement)

    with monkeypatch.context() as patched:
        patched.setattr(enabling, "BLOCKS", (1, 1))
        patched.setattr(enabling, "_patiently", stopped)
        outcome = run("policy", "apply", file, "--batches", "--yes")
    assert outcome.code != 0
    assert "the same command goes on" in outcome.err
    assert shop.rows("select state from gdpr.enabling") == [("sealing",)]
    assert run("policy", "check", file).code == 3
    assert "enabling" in run("doctor").out
    done = run("policy", "apply", file, "--yes", *([way] if way else []))
    assert done.code == 0, done.err
    assert run("policy", "check", file).code == 0
    assert shop.rows("select * from gdpr.enabling") == []
