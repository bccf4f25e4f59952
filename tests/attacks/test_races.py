"""Mallory is quick, or slow: she acts in the middle of what others do."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import psycopg
import pytest

from tests.attacks.test_tokens import ask, person
from tests.attacks.world import POLICY, World, attempt
from tests.support import waiting


@pytest.mark.parametrize("call", ["answer_consent(%s, '{marketing}')", "portal_withdraw(%s)"])
def test_a_person_and_an_officer_answer_at_once_and_neither_is_sent_away(
    world: World, call: str
) -> None:
    """The officer holds the person and goes for the token; the person must not come the other
    way."""
    token, vera = ask(world, 3), person(world, 3)
    officer = world.db.connect("dpo_login", autocommit=False)
    officer.execute("select gdpr.restrict(%s, 'other')", [vera])
    portal = world.login("portal_app")
    end = waiting(portal, lambda: portal.execute(f"select gdpr.{call}".encode(), [token]))
    officer.execute("select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [vera])
    officer.commit()
    error = end()
    # what was asked has been answered meanwhile; it can be taken back all the same
    assert getattr(error, "sqlstate", None) == ("PR303" if "answer" in call else None)


def test_a_statement_that_waited_is_late(world: World) -> None:
    """Her statement began before the deadline; the clock says that it has passed."""
    token = ask(world, 3, within="1 s")
    error = attempt(
        world.login("portal_app"),
        "do $$ begin perform pg_sleep(1.2);"
        f" perform gdpr.answer_consent('{token}', '{{marketing}}'); end $$",
    )
    assert error is not None
    assert error.sqlstate == "PR303"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize(
    "statement",
    [
        "insert into gdpr_clear.invoice (customer_id, total) values (1, 5)",
        "update gdpr_clear.invoice set total = 6 where customer_id = 1",
    ],
)
def test_an_old_snapshot_writes_nothing_after_the_end_of_a_basis(
    world: World, statement: str, level: str
) -> None:
    """Anna's gate asks the evidence each time, because bases of hers begin tomorrow: it reads the
    same before and after."""
    officer, anna = world.login("dpo_login"), person(world, 1)
    end = (
        "select gdpr.end_bases(array(select basis_id from gdpr.basis"
        " where subject_id = %s and purpose = %s and status = 'holds'), 'over')"
    )
    officer.execute(end, [anna, "analytics"])
    for purpose in ("analytics", "orders"):
        officer.execute(
            "select gdpr.record_basis(%s, %s, 'public_task',"
            " p_valid_from => statement_timestamp() + interval '1 day')",
            [anna, purpose],
        )
    app = world.db.connect("crm_app", autocommit=False)
    app.execute(f"set transaction isolation level {level}".encode())
    assert app.execute("select count(*) from gdpr_clear.invoice").fetchone() == (2,)
    officer.execute(end, [anna, "orders"])
    error = attempt(app, statement)
    assert error is not None
    assert error.sqlstate == "40001", error


def insert(session: psycopg.Connection, start: threading.Barrier, key: int) -> psycopg.Error | None:
    """Inserts an invoice of the customer at the moment when all the others do."""
    start.wait()
    return attempt(
        session, "insert into gdpr_clear.invoice (customer_id, total) values (%s, 5)", [key]
    )


def test_first_rows_of_a_person_at_once(world: World) -> None:
    """Each brings the bases of its table: who reads the gate and changes it then must not meet
    another who does the same."""
    sessions = [world.login("crm_app") for _ in range(4)]
    officer = world.login("dpo_login")
    for n in range(30):
        ((key,),) = sessions[0].execute(
            "insert into gdpr_clear.customer (email, last_name) values (%s, 'N') returning id",
            [f"n{n}@n.example"],
        )
        # the contract that came with the customer has ended: the first invoice brings another
        officer.execute(
            "select gdpr.end_bases(array(select basis_id from gdpr.basis"
            " where subject_id = gdpr.subject_of('crm.customer', %s)"
            " and purpose = 'orders'), 'over')",
            [str(key)],
        )
        start = threading.Barrier(len(sessions))
        with ThreadPoolExecutor(len(sessions)) as threads:
            met = set(threads.map(insert, sessions, repeat(start), repeat(key)))
        assert met == {None}


def test_nobody_unlocks_data_by_asking_for_an_answer_in_a_hundred_years(world: World) -> None:
    """While an answer is waited for the data are open, if the policy allows that: for as long as it
    says."""
    new = json.loads(POLICY)
    new["purposes"]["marketing"] |= {"while_waiting": "allow", "respond_within": "14 days"}
    world.run("postgres", "grant mallory to db_owner")
    world.run("db_owner", "select count(*) from gdpr.apply(%s)", [json.dumps(new)])
    world.run("postgres", "revoke mallory from db_owner")
    officer = world.login("dpo_login")
    ask_for = "select gdpr.request_consent(%s, '{marketing}', 'portal', null, %s::interval)"
    error = attempt(officer, ask_for, [person(world, 1), "100 years"])
    assert error is not None
    assert error.sqlstate == "PR004"
    officer.execute(ask_for, [person(world, 1), "7 days"])
