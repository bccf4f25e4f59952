"""Station 20: switching a table on locks nothing; what will be locked, and when, is told."""

from __future__ import annotations

import time

from tests.capabilities.crm import apply, policy, problems, refused, subject
from tests.support import Database

LAZY = policy(purposes__marketing={"basis": "consent"})


def seen(db: Database, purpose: str) -> int:
    """How many customers the application sees for a purpose."""
    app = db.connect("crm_app")
    app.execute("select set_config('gdpr.purpose', %s, false)", [purpose])
    ((count,),) = app.execute("select count(*) from gdpr_clear.customer").fetchall()
    return int(count)


def test_switching_on_locks_nothing_and_new_rows_have_no_grace(shop: Database) -> None:
    apply(shop, LAZY)
    assert (seen(shop, "orders"), seen(shop, "marketing")) == (3, 3)
    shop.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('n@example.com', 'N')",
        user="crm_app",
    )
    assert (seen(shop, "orders"), seen(shop, "marketing")) == (4, 3)
    assert shop.rows(
        "select distinct basis, reason, valid_until - t.protected_at = interval '90 days'"
        " from gdpr.basis as b join gdpr.protected_table as t on t.table_name = b.by_table"
        " where purpose = 'marketing'",
        user="dpo_login",
    ) == [("undetermined", "in the table before gdprdb", True)]
    assert apply(shop, LAZY) == []


def test_the_grace_period_ends_by_itself(shop: Database) -> None:
    """Mallory leaves a transaction open over the deadline: it locks there, too."""
    apply(shop, policy(purposes__marketing={"basis": "consent", "grace": "4 seconds"}))
    app = shop.connect("crm_app", autocommit=False)
    app.execute("set local gdpr.purpose = 'marketing'")
    count = "select count(*) from gdpr_clear.customer"
    assert app.execute(count).fetchone() == (3,)
    time.sleep(4.1)
    assert app.execute(count).fetchone() == (0,)
    app.rollback()
    assert seen(shop, "orders") == 3
    assert shop.rows("select gdpr.tidy_gates()")[0][0] > 0
    assert (seen(shop, "orders"), seen(shop, "marketing")) == (3, 0)


def test_undetermined_is_over_once_the_person_has_spoken(shop: Database) -> None:
    apply(shop, LAZY)
    consent = "select gdpr.record_consent(%s, 'marketing', %s, 'in_person')"
    persons = [subject(shop, "crm.customer", key) for key in (1, 2)]
    shop.rows(consent, [persons[0], False], user="dpo_login")
    assert seen(shop, "marketing") == 2
    shop.rows(consent, [persons[1], True], user="dpo_login")
    shop.rows("select gdpr.withdraw_consent(%s, 'marketing')", [persons[1]], user="dpo_login")
    assert seen(shop, "marketing") == 1
    assert shop.rows(
        "select status, holds from gdpr.basis where purpose = 'marketing'"
        " and by_table = 'crm.customer'::regclass and subject_id = %s",
        [persons[1]],
        user="dpo_login",
    ) == [("decided", False)]


def test_a_person_known_from_an_earlier_table_has_the_grace_of_the_later_one(
    shop: Database,
) -> None:
    """Anna is a customer under protection; then the leads are switched on, and she is in them."""
    tables = policy()["tables"]
    first = policy(tables={name: table for name, table in tables.items() if name != "crm.lead"})
    apply(shop, first)
    apply(shop, policy(purposes__marketing={"basis": "consent", "grace": "5 days"}))
    app = shop.connect("crm_app")
    app.execute("set gdpr.purpose = 'marketing'")
    assert app.execute("select count(*) from gdpr_clear.lead").fetchone() == (2,)


def test_another_grace_moves_the_deadline_and_none_locks(shop: Database) -> None:
    apply(shop, LAZY)
    deadlines = (
        "select distinct b.valid_until - t.protected_at from gdpr.basis as b"
        " join gdpr.protected_table as t on t.table_name = b.by_table"
        " where purpose = 'marketing' and holds"
    )
    longer = policy(purposes__marketing={"basis": "consent", "grace": "180 days"})
    apply(shop, longer)
    ((length,),) = shop.rows(deadlines, user="dpo_login")
    assert length.days == 180
    assert apply(shop, longer) == []
    apply(shop, policy(purposes__marketing={"basis": "consent", "grace": False}))
    assert shop.rows(deadlines, user="dpo_login") == []
    assert seen(shop, "marketing") == 0
    apply(shop, longer)
    assert seen(shop, "marketing") == 3


def test_what_a_grace_period_can_be(shop: Database) -> None:
    assert problems(shop, policy(purposes__orders={"basis": "contract", "grace": "3 days"})) == [
        "purposes.orders: grace is for consent and legitimate_interests"
    ]
    for grace in ("soon", "0 days", True):
        new = policy(purposes__marketing={"basis": "consent", "grace": grace})
        (problem,) = problems(shop, new)
        assert problem.startswith("purposes.marketing.grace: ")


def test_what_enforcement_would_hide_is_told_before_it_does(shop: Database) -> None:
    """Mode observe, one of each: restricted, objected, refused, without a basis, in grace."""
    new = policy(purposes__marketing__grace="90 days")
    new["tables"]["crm.customer"]["mode"] = "observe"
    apply(shop, new)
    anna, bela, chie = (subject(shop, "crm.customer", key) for key in (1, 2, 3))
    shop.rows("select gdpr.restrict(%s, 'other')", [anna], user="dpo_login")
    shop.rows("select gdpr.object_to(%s, 'marketing')", [bela], user="dpo_login")
    assert seen(shop, "orders") == 3
    told = (
        "select purpose, cause, persons, locks_at <= statement_timestamp() from gdpr.would_lock"
        " where table_name::text = 'crm.customer' and mode = 'observe' order by 1, 2"
    )
    assert shop.rows(told, user="auditor_login") == [
        ("analytics", "no_basis", 2, True),
        ("analytics", "restricted", 1, True),
        ("marketing", "basis_ends", 1, False),
        ("marketing", "objected", 1, True),
        ("marketing", "restricted", 1, True),
        ("orders", "restricted", 1, True),
    ]
    shop.rows(
        "select gdpr.record_consent(%s, 'marketing', false, 'phone')", [chie], user="dpo_login"
    )
    assert ("marketing", "no_basis", 1, True) in shop.rows(told, user="dpo_login")
    new["tables"]["crm.customer"]["mode"] = "enforce"
    apply(shop, new)
    assert (seen(shop, "orders"), seen(shop, "marketing")) == (2, 0)


def test_a_basis_that_continues_another_locks_at_the_end_of_both(shop: Database) -> None:
    apply(shop, policy())
    for begins, ends in (
        ("now()", "'2090-01-01'"),
        ("'2089-12-31'", "'2091-01-01'"),
        ("'2092-01-01'", "'2093-01-01'"),
    ):
        shop.rows(
            f"select gdpr.record_basis(1, 'marketing', 'contract', 'x', {ends},"
            f" p_valid_from => {begins})",
            user="dpo_login",
        )
    assert shop.rows(
        "select (locks_at at time zone 'UTC')::date::text from gdpr.would_lock where purpose ="
        " 'marketing' and cause = 'basis_ends' and table_name = 'crm.customer'::regclass",
        user="dpo_login",
    ) == [("2091-01-01",)]


def test_the_overview_counts_persons_by_table_purpose_basis_and_status(shop: Database) -> None:
    apply(shop, LAZY)
    anna = subject(shop, "crm.customer", 1)
    shop.rows(
        "select gdpr.record_consent(%s, 'marketing', false, 'phone')", [anna], user="dpo_login"
    )
    assert shop.rows(
        "select purpose, basis, status, persons, first_end is null from gdpr.basis_overview"
        " where table_name::text = 'crm.customer' order by 1, 2, 3",
        user="auditor_login",
    ) == [
        ("analytics", "none", "none", 3, True),
        ("marketing", "consent", "declined", 1, True),
        ("marketing", "undetermined", "holds", 2, False),
        ("orders", "contract", "holds", 3, True),
    ]
    for view in ("basis_overview", "would_lock", "assessment"):
        with refused("42501"):
            shop.rows(f"select * from gdpr.{view}", user="crm_app")


def test_thousands_of_rows_are_switched_on_with_everything_open(shop: Database) -> None:
    """As the million of the benchmark, smaller: no gate is closed, each is closed in time."""
    shop.rows(
        "insert into crm.customer (email, last_name)"
        " select 'p' || n || '@example.com', 'P' from generate_series(1, 3000) as n"
    )
    apply(shop, LAZY)
    assert (seen(shop, "orders"), seen(shop, "marketing")) == (3003, 3003)
    assert shop.rows(
        "select cause, persons from gdpr.would_lock where purpose = 'marketing'"
        " and table_name = 'crm.customer'::regclass",
        user="dpo_login",
    ) == [("basis_ends", 3003)]
