"""What is done for each row, and for one person, is planned once in a session: planning costs many
times what the answer does, and PostgreSQL plans anew, unasked, where it takes a plan for the
values at hand to be cheaper, and each call of a function of SQL (up to version 17)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest

from tests.capabilities.crm import apply, policy
from tests.support import Clone, Database

#: Statements that find other rows and persons each time, and what they are run as.
OPERATIONS = {
    "insert": (
        "crm_app",
        (
            "insert into gdpr_clear.customer (email, phone, last_name)"
            " values ('new' || %(n)s || '@example.com', '+49 711 ' || %(n)s, 'N')"
        ),
    ),
    "insert a child": (
        "crm_app",
        "insert into gdpr_clear.\"order\" (customer_id, note) values (%(n)s, 'to ' || %(n)s)",
    ),
    "update": (
        "crm_app",
        "update gdpr_clear.customer set phone = '+49 7 ' || %(n)s where id = %(n)s",
    ),
    "delete": ("crm_app", "delete from gdpr_clear.order where customer_id = %(n)s"),
    "read by key": ("crm_app", "select * from gdpr_clear.customer where id = %(n)s"),
    "read by e-mail": (
        "crm_app",
        (
            "select * from gdpr_clear.customer where email_digest"
            " = gdpr.digest('email', 'person' || %(n)s || '@example.com')"
        ),
    ),
    "consent": ("dpo_login", "select gdpr.record_consent(%(person)s, 'marketing', true, 'api')"),
    "withdraw": ("dpo_login", "select gdpr.withdraw_consent(%(person)s, 'marketing')"),
    "find": ("dpo_login", "select gdpr.find_subject('email', 'person' || %(n)s || '@example.com')"),
    "erase": ("dpo_login", "select gdpr.erase(%(person)s)"),
}


@pytest.fixture(scope="module")
def people(clone: Clone, shop_template: str) -> Iterator[Database]:
    """A hundred persons with an order each, one application that may plan in public."""
    with clone(shop_template) as database:
        database.rows('delete from crm.order_line; delete from crm.lead; delete from crm."order"')
        database.rows(
            "insert into crm.customer (email, last_name)"
            " select 'person' || n || '@example.com', 'P' from generate_series(4, 200) as n"
        )
        database.rows(
            "insert into crm.\"order\" (customer_id, note) select id, 'x' from crm.customer"
        )
        apply(database, policy())
        database.rows("vacuum analyze", user="postgres")
        logins = "crm_app, dpo_login"
        database.rows(f"grant set on parameter log_planner_stats to {logins}", user="postgres")
        yield database
        database.rows(f"revoke set on parameter log_planner_stats from {logins}", user="postgres")


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_is_planned_again(people: Database, name: str) -> None:
    login, statement = OPERATIONS[name]
    numbers = itertools.count(4 + 25 * list(OPERATIONS).index(name) % 150)
    planned: list[str] = []

    def note(told: psycopg.errors.Diagnostic) -> None:
        if told.message_primary == "PLANNER STATISTICS":
            planned.append(told.context or "the statement")

    session = people.connect(login)
    session.add_notice_handler(note)

    def run() -> None:
        n = next(numbers)
        ((person,),) = people.rows(
            "select gdpr.subject_of('crm.customer', %s)", [str(n)], user="dpo_login"
        )
        session.execute(statement, {"n": n, "person": person}, prepare=True)

    for _ in range(12):
        run()
    session.execute("set log_planner_stats = on")
    session.execute("set client_min_messages = log")
    for _ in range(3):
        run()
    session.close()
    assert "\n".join(planned) == ""
