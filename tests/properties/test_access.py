"""A law of access: every value of the person is in the report, and none of anybody else."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.capabilities.access import rows, valid
from tests.capabilities.crm import apply, one_table
from tests.support import Clone, Database

TABLES = """
create table person (id integer primary key, code text not null, note text, extra jsonb);
create table deal (id integer primary key, person_id integer references person, text text);
create table item (
  deal_id integer not null references deal, n integer, text text, primary key (deal_id, n)
);
"""

#: Texts that a store of data might stumble over; each value is made unique by a prefix.
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12
)

PERSONS = st.lists(
    st.tuples(TEXTS, TEXTS, st.lists(st.lists(TEXTS, max_size=3), max_size=3)),
    min_size=2,
    max_size=4,
)


@pytest.fixture(scope="module")
def house(clone: Clone, installed_template: str) -> Any:
    """Persons with deals with items, partly encrypted."""
    with clone(installed_template) as database:
        database.rows(TABLES)
        policy = one_table("public.person", columns={"note": {"encrypt": True}})
        policy["tables"]["public.deal"] = {
            "subject": {"via": "person_id"},
            "purposes": ["orders"],
            "columns": {"text": {"encrypt": True}},
        }
        policy["tables"]["public.item"] = {"subject": {"via": "deal_id"}, "purposes": ["orders"]}
        apply(database, policy)
        yield database


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(persons=PERSONS)
def test_all_of_the_person_and_nothing_of_others(house: Database, persons: list[Any]) -> None:
    with psycopg.connect(house.dsn("postgres")) as connection:
        expected, subjects = _stored(connection, persons)
        for owner, subject in enumerate(subjects):
            ((report,),) = connection.execute("select gdpr.access_report(%s)", [subject]).fetchall()
            assert {
                table: rows(valid(report), f"public.{table}")
                for table in ("person", "deal", "item")
                if expected[owner][table]
            } == {table: found for table, found in expected[owner].items() if found}
            told = json.dumps(report)
            for other in range(len(persons)):
                assert (f"owned-by-{other}-" in told) == (other == owner)
        connection.rollback()


def _stored(
    connection: psycopg.Connection, persons: list[Any]
) -> tuple[list[dict[str, list[Any]]], list[int]]:
    """Store the persons; the rows that each has, and their numbers."""
    expected: list[dict[str, list[Any]]] = []
    deals = 0
    for owner, (note, extra, theirs) in enumerate(persons):
        mark = f"owned-by-{owner}-"
        person = {
            "id": owner,
            "code": f"{mark}{extra}",
            "note": f"{mark}{note}",
            "extra": {mark: [extra, None]},
        }
        found: dict[str, list[Any]] = {"person": [person], "deal": [], "item": []}
        connection.execute(
            "insert into person values (%s, %s, %s, %s)",
            [owner, person["code"], person["note"], json.dumps(person["extra"])],
        )
        for texts in theirs:
            deals += 1
            deal = {"id": deals, "person_id": owner, "text": f"{mark}{note}"}
            found["deal"].append(deal)
            connection.execute("insert into deal values (%s, %s, %s)", [deals, owner, deal["text"]])
            for n, text in enumerate(texts):
                item = {"deal_id": deals, "n": n, "text": f"{mark}{text}"}
                found["item"].append(item)
                connection.execute("insert into item values (%s, %s, %s)", [deals, n, item["text"]])
        expected.append(found)
    subjects = connection.execute("select gdpr_subject_id from person order by id").fetchall()
    return expected, [number for (number,) in subjects]
