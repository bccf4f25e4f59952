"""``gdprdb source``."""

from __future__ import annotations

import json

import pytest

from tests.capabilities.crm import POLICY, ROWS, TABLES, apply
from tests.support import Database, Run


@pytest.fixture
def told(db: Database, on_db: Run) -> Run:
    """The command line on a database where Zoe (4) signed up by a form."""
    connection = db.connect()
    connection.execute(TABLES)
    connection.execute(ROWS)
    apply(db, POLICY)
    app = db.connect("crm_app", autocommit=False)
    app.execute(
        "select gdpr.set_context(p_source => %s)", [json.dumps({"kind": "web_form", "form": "x"})]
    )
    app.execute("insert into crm.customer (email, last_name) values ('zoe@example.com', 'Z')")
    app.commit()
    return on_db


def test_show(told: Run) -> None:
    (row,) = told(
        "source", "show", "--table", "crm.customer", "--key", "4", "--format", "json"
    ).data
    assert (row["event"], row["kind"], row["details"]) == ("created", "web_form", {"form": "x"})


def test_show_of_a_table_that_is_not_protected(told: Run) -> None:
    outcome = told("source", "show", "--table", "pg_catalog.pg_class", "--key", "4")
    assert outcome.code == 4
    assert "not protected" in outcome.err


def test_list_by_an_identifier_from_standard_input(told: Run) -> None:
    outcome = told("source", "list", "--format", "json", stdin="zoe@example.com\n")
    assert [(row["table_name"], row["kind"]) for row in outcome.data] == [
        ("crm.customer", "web_form")
    ]
