"""Station 60: rectification, proposed, approved, carried out in all tables that hold the value."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, policy, problems, refused, subject
from tests.support import Database

Change = dict[str, Any]


def change(key: object, column: str, value: object, table: str = "crm.customer") -> Change:
    """One change of a list."""
    return {"table": table, "key": str(key), "column": column, "value": value}


def rectify(db: Database, person: int, *changes: Change) -> int | None:
    """The officer's one call; the number of its record."""
    ((record,),) = db.rows(
        "select gdpr.rectify(%s, %s, 'letter of today')",
        [person, json.dumps(changes)],
        user="dpo_login",
    )
    assert record is None or isinstance(record, int)
    return record


def test_values_change_with_all_that_depends_on_them(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    record = rectify(
        crm,
        anna,
        change(1, "email", "Anna.New@example.com"),
        change(1, "birth_date", "1980-02-01"),
        change(1, "city", None),
        change(1, "note", "gift for Eda", "crm.order"),
    )
    assert record is not None
    assert crm.rows(
        "select email, birth_date::text, city, email_digest = gdpr.digest('email', email)"
        " from gdpr_clear.customer where id = 1",
        user="crm_app",
    ) == [("Anna.New@example.com", "1980-02-01", None, True)]
    assert crm.rows('select note from gdpr_clear."order" where id = 1', user="crm_app") == [
        ("gift for Eda",)
    ]
