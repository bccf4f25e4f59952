"""Station 80: what is under hold stays, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.capabilities.crm import refused, subject
from tests.support import Clone, Database


@pytest.fixture(scope="module")
def held(clone: Clone, crm_template: str) -> Iterator[Database]:
    """One protected database for the tests that end what they began."""
    with clone(crm_template) as database:
        yield database


def place(db: Database, who: int | None, ground: str = "legal_claims", **more: Any) -> int:
    """A hold, placed by the officer; its number."""
    named = "".join(
        f", p_{name} => %({name})s" + ("::text::regclass" if name == "table" else "")
        for name in more
    )
    ((number,),) = db.rows(
        f"select gdpr.place_hold(%(who)s, %(ground)s, '3 O 17/26'{named})",
        {"who": who, "ground": ground, **more},
        user="dpo_login",
    )
    return int(number)


def release(db: Database, number: int) -> None:
    """End a hold."""
    db.rows("select gdpr.release_hold(%s, 'settled')", [number], user="dpo_login")


def kept(db: Database, table: str, *who: int) -> set[tuple[Any, ...]]:
    """What holds keep of persons in a table, as erasure and retention ask for it."""
    rows = db.rows(
        "select subject_id, row_key, columns from gdpr_internal.held_rows("
        "(select id from gdpr_internal.protected_table where relation = %s::text::regclass), %s)",
        [table, list(who)],
        user="postgres",
    )
    return {(person, key, tuple(columns) if columns else None) for person, key, columns in rows}


@pytest.mark.parametrize(
    ("more", "orders", "customer"),
    [
        ({}, (None, None), (None, None)),
        ({"table": 'crm."order"'}, (None, None), None),
        ({"table": 'crm."order"', "key": "2"}, ("2", None), None),
        ({"table": 'crm."order"', "columns": ["note"]}, (None, ("note",)), None),
        (
            {"table": 'crm."order"', "key": "02", "columns": ["note", "total"]},
            ("2", ("note", "total")),
            None,
        ),
    ],
)
def test_a_hold_is_of_a_person_a_table_a_row_some_columns(
    held: Database, more: dict[str, Any], orders: Any, customer: Any
) -> None:
    anna, bela = subject(held, "crm.customer", 1), subject(held, "crm.customer", 2)
    number = place(held, anna, **more)
    assert kept(held, 'crm."order"', anna, bela) == {(anna, *orders)}
    assert kept(held, "crm.customer", anna, bela) == ({(anna, *customer)} if customer else set())
    assert kept(held, 'crm."order"', bela) == set()
    release(held, number)
    assert kept(held, 'crm."order"', anna, bela) == set()


def test_a_hold_on_a_table_is_of_everybody_there(held: Database) -> None:
    anna, bela = subject(held, "crm.customer", 1), subject(held, "crm.customer", 2)
    number = place(held, None, "legal_obligation", table="crm.lead")
    assert kept(held, "crm.lead", anna, bela) == {(anna, None, None), (bela, None, None)}
    assert kept(held, "crm.customer", anna, bela) == set()
    release(held, number)


def test_rows_with_a_key_of_several_columns(held: Database) -> None:
    anna = subject(held, "crm.customer", 1)
    number = place(held, None, table="crm.order_line", key="[1,1]")
    assert kept(held, "crm.order_line", anna) == {(anna, '["1", "1"]', None)}
    release(held, number)


def test_a_hold_ends_by_itself(held: Database) -> None:
    """The day that it was placed for comes: no job has to run."""
    anna = subject(held, "crm.customer", 1)
    ((number, _),) = held.rows(
        "select gdpr.place_hold(%s, 'archiving', 'law', p_until => now() + interval '300 ms'),"
        " pg_sleep(0)",
        [anna],
        user="dpo_login",
    )
    assert kept(held, "crm.customer", anna)
    held.rows("select pg_sleep(0.4)")
    assert not kept(held, "crm.customer", anna)
    state = "select state, article from gdpr.hold where hold_id = %s"
    assert held.rows(state, [number], user="auditor_login") == [("over", "Art. 17(3)(d)")]
    with refused("PR801", "hold_ended"):
        release(held, number)


def test_the_record_stays_and_names_no_row(held: Database) -> None:
    number = place(held, None, table='crm."order"', key="3")
    release(held, number)
    ((state, key, reason),) = held.rows(
        "select state, row_key::text, release_reason from gdpr.hold where hold_id = %s", [number]
    )
    assert (state, reason) == ("released", "settled")
    assert len(key) == 36
    for statement in (
        "update gdpr_internal.hold set ground = 'archiving'",
        "delete from gdpr_internal.hold_end",
    ):
        with refused("55000", "append_only"):
            held.rows(statement, user="postgres")
    with refused("PR801", "hold_ended"):
        release(held, number)
    events = (
        "select operation from gdpr.audit_log where (old ->> 'hold_id')::bigint = %s order by id"
    )
    assert held.rows(events, [number]) == [("HOLD",), ("RELEASE",)]


@pytest.mark.parametrize(
    ("who", "more"),
    [
        (1, {"ground": "because"}),
        (1, {"until": "2001-01-01"}),
        (None, {}),
        (1, {"key": "1"}),
        (1, {"columns": ["note"]}),
        (1, {"table": 'crm."order"', "columns": ["nothing"]}),
        (1, {"table": 'crm."order"', "columns": []}),
        (1, {"table": 'crm."order"', "key": "3"}),
        (None, {"table": 'crm."order"', "key": "99"}),
        (None, {"table": 'crm."order"', "key": "x"}),
    ],
)
def test_what_is_no_hold_is_refused(held: Database, who: int | None, more: dict[str, Any]) -> None:
    with refused("PR004", "invalid_argument"):
        place(held, who and subject(held, "crm.customer", who), **more)


@pytest.mark.parametrize("user", ["crm_app", "metabase", "auditor_login"])
def test_holds_are_the_officers(held: Database, user: str) -> None:
    with refused("42501"):
        held.rows("select gdpr.place_hold(1, 'legal_claims', 'x')", user=user)


def notes(db: Database) -> list[tuple[int, bool]]:
    """The orders there are, and whether they have a note."""
    return [
        (number, note)
        for number, note in db.rows(
            'select id, note is not null from crm."order" order by id', user="postgres"
        )
    ]


def test_erasure_leaves_what_is_held_until_the_hold_is_released(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    number = place(crm, anna, table='crm."order"', key="2")
    crm.rows("select gdpr.erase(%s, 'asked')", [anna], user="dpo_login")
    assert notes(crm) == [(2, True), (3, True), (4, False)]
    release(crm, number)
    assert notes(crm) == [(3, True), (4, False)]
    finished = "select kept_rows, finished is not null from gdpr.erasure_ledger"
    assert crm.rows(finished, user="dpo_login") == [(None, True)]


def test_what_is_kept_of_the_erased_can_be_held_further(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    first = place(crm, anna, table='crm."order"')
    crm.rows("select gdpr.erase(%s, 'asked')", [anna], user="dpo_login")
    second = place(crm, anna, "legal_obligation", table='crm."order"', key="1")
    release(crm, first)
    assert notes(crm) == [(1, True), (3, True), (4, False)]
    release(crm, second)
    assert notes(crm) == [(3, True), (4, False)]
    with refused("PR603", "erased"):
        place(crm, anna)
