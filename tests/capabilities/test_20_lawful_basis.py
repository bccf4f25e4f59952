"""Station 20: without a lawful basis for the purpose, no processing. And who works for which
purpose."""

from __future__ import annotations

import time

import pytest

from tests.capabilities.crm import apply, policy, refused, subject
from tests.support import Database

COUNT = "select count(*) from gdpr_clear.customer"


def seen(crm: Database, purpose: str | None = None) -> list[int]:
    """Keys of the customers that the application sees, for a purpose."""
    app = crm.connect("crm_app")
    app.execute("select set_config('gdpr.purpose', %s, false)", [purpose or ""])
    return [key for (key,) in app.execute("select id from gdpr_clear.customer order by id")]


def basis(crm: Database, person: int, purpose: str) -> int:
    """The number of the basis that holds."""
    found = crm.rows(
        "select basis_id from gdpr.basis where subject_id = %s and purpose = %s and holds",
        [person, purpose],
        user="dpo_login",
    )
    number = found[0][0]
    assert isinstance(number, int)
    return number


# ---------------------------------------------------------------- bases


def test_bases_come_from_the_purposes_of_the_table(crm: Database) -> None:
    rows = crm.rows(
        "select distinct purpose, basis, by_table::text, holds from gdpr.basis order by 1, 3",
        user="auditor_login",
    )
    assert {(purpose, name) for purpose, name, _, _ in rows} == {
        ("orders", "contract"),
        ("analytics", "legitimate_interests"),
    }
    assert all(holds for *_, holds in rows)


def test_a_new_row_brings_its_basis(crm: Database) -> None:
    app = crm.connect("crm_app")
    (key,) = app.execute(
        "insert into gdpr_clear.customer (email, last_name) values"
        " ('n@example.com', 'N') returning id"
    ).fetchone() or (0,)
    person = subject(crm, "crm.customer", key)
    found = crm.rows(
        "select purpose, reason, recorded_by from gdpr.basis where subject_id = %s order by 1",
        [person],
        user="dpo_login",
    )
    assert found == [
        ("analytics", "by default of the table", "crm_app"),
        ("orders", "by default of the table", "crm_app"),
    ]


def test_the_end_of_a_basis_hides_the_rows_with_the_next_statement(crm: Database) -> None:
    app = crm.connect("crm_app", autocommit=False)
    assert app.execute(COUNT).fetchone() == (3,)
    person = subject(crm, "crm.customer", 2)
    crm.rows(
        "select gdpr.end_basis(%s, 'contract fulfilled')",
        [basis(crm, person, "orders")],
        user="dpo_login",
    )
    assert app.execute(COUNT).fetchone() == (2,)
    assert app.execute(
        'select count(*) from gdpr_clear."order" where customer_id = 2'
    ).fetchone() == (0,)
    assert crm.rows("select count(*) from gdpr_bi.customer", user="metabase") == [(3,)]
    ended = crm.rows(
        "select end_reason, holds from gdpr.basis where subject_id = %s and purpose = 'orders'",
        [person],
        user="dpo_login",
    )
    assert ended == [("contract fulfilled", False)]


def test_a_basis_ends_once_and_with_a_reason(crm: Database) -> None:
    number = basis(crm, subject(crm, "crm.customer", 2), "orders")
    with refused("PR004", "invalid_argument"):
        crm.rows("select gdpr.end_basis(%s, null)", [number], user="dpo_login")
    crm.rows("select gdpr.end_basis(%s, 'done')", [number], user="dpo_login")
    for missing in (number, 999_999):
        with refused("PR203", "basis_ended"):
            crm.rows("select gdpr.end_basis(%s, 'again')", [missing], user="dpo_login")


def test_a_recorded_basis_opens_and_closes_by_itself(crm: Database) -> None:
    """Valid until T: seen before T, gone after T, in one transaction and without a job."""
    person = subject(crm, "crm.customer", 1)
    assert seen(crm, "marketing") == []
    app = crm.connect("crm_app", autocommit=False)
    app.execute("set local gdpr.purpose = 'marketing'")
    crm.rows(
        "select gdpr.record_basis(%s, 'marketing', 'contract',"
        " 'existing customer', statement_timestamp() + '600 ms')",
        [person],
        user="dpo_login",
    )
    assert app.execute(COUNT).fetchone() == (1,)
    time.sleep(0.7)
    assert app.execute(COUNT).fetchone() == (0,)


def test_other_bases_keep_the_row_when_one_ends(crm: Database) -> None:
    person = subject(crm, "crm.customer", 1)
    crm.rows(
        "select gdpr.record_basis(%s, 'orders', 'legal_obligation', 'tax')",
        [person],
        user="dpo_login",
    )
    old = crm.rows(
        "select basis_id from gdpr.basis where subject_id = %s and purpose ="
        " 'orders' and basis = 'contract'",
        [person],
        user="dpo_login",
    )
    for (number,) in old:
        crm.rows("select gdpr.end_basis(%s, 'over')", [number], user="dpo_login")
    assert seen(crm) == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        ("999, 'orders', 'contract', 'order'", "PR101", "unknown_subject"),
        ("null, 'orders', 'contract', 'order'", "PR101", "unknown_subject"),
        ("1, 'fun', 'contract', 'order'", "PR003", "unknown_purpose"),
        ("1, null, 'contract', 'order'", "PR003", "unknown_purpose"),
        ("1, 'orders', 'consent', 'order'", "PR202", "basis_refused"),
        ("1, 'orders', null, 'order'", "PR202", "basis_refused"),
        ("1, 'orders', 'contract', 'order', now() - interval '1 day'", "PR202", "basis_refused"),
    ],
)
def test_a_basis_that_is_none_is_refused(
    crm: Database, arguments: str, code: str, name: str
) -> None:
    with refused(code, name):
        crm.rows(f"select gdpr.record_basis({arguments})", user="dpo_login")


@pytest.mark.parametrize("purpose", ["compliance", "maintenance"])
def test_the_built_in_purposes_take_no_basis_and_no_objection(crm: Database, purpose: str) -> None:
    for call in ("record_basis(1, %s, 'contract', 'order')", "object_to(1, %s)"):
        with refused("PR204", "built_in_purpose"):
            crm.rows(f"select gdpr.{call}", [purpose], user="dpo_login")


def test_bases_are_recorded_by_officers_and_by_roles_that_may(crm: Database) -> None:
    call = "select gdpr.record_basis(1, 'orders', 'contract', 'order')"
    for user in ("crm_app", "metabase", "portal_app", "auditor_login"):
        with refused("42501"):
            crm.rows(call, user=user)
    crm.rows("create role clerk login", user="postgres")
    try:
        apply(
            crm,
            policy(roles__clerk={"audience": "clear", "purposes": ["orders"], "may": ["basis"]}),
        )
        number = crm.rows(call, user="clerk")[0][0]
        crm.rows("select gdpr.end_basis(%s, 'no')", [number], user="clerk")
        with refused("42501"):
            crm.rows("select gdpr.record_consent(1, 'marketing', true, 'in_person')", user="clerk")
    finally:
        crm.rows("drop owned by clerk; drop role clerk", user="postgres")


def test_locking_needs_read_committed(crm: Database) -> None:
    """Under an older snapshot rows that others inserted meanwhile would stay open."""
    officer = crm.connect("dpo_login", autocommit=False)
    number = basis(crm, 1, "orders")
    for level in ("repeatable read", "serializable"):
        for call in (
            f"gdpr.end_basis({number}, 'x')",
            "gdpr.withdraw_consent(1, 'marketing')",
            "gdpr.record_consent(1, 'marketing', false, 'phone')",
            "gdpr.restrict(1, 'other')",
            "gdpr.object_to(1, 'analytics')",
            "gdpr.erase(1)",
        ):
            officer.execute(f"set transaction isolation level {level}".encode())
            with refused("PR005", "needs_read_committed"):
                officer.execute(f"select {call}".encode())
            officer.rollback()


def test_a_person_who_comes_to_a_table_later_gets_its_bases_then(crm: Database) -> None:
    """Dora is a lead; once she is a customer too, the contract opens her row to the orders
    purpose."""
    dora = subject(crm, "crm.lead", 2)
    held = "select purpose from gdpr.basis where subject_id = %s and holds order by 1"
    assert crm.rows(held, [dora], user="dpo_login") == [("analytics",)]
    crm.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('dora@example.com', 'Dietz')",
        user="crm_app",
    )
    assert ("orders",) in crm.rows(held, [dora], user="dpo_login")
    assert seen(crm) == [1, 2, 3, 4]


def test_what_ended_is_not_brought_back_by_the_next_row(crm: Database) -> None:
    """An ended basis stays ended: a further row in the same table is no new contract."""
    person = subject(crm, "crm.customer", 2)
    crm.rows("select gdpr.end_basis(%s, 'over')", [basis(crm, person, "orders")], user="dpo_login")
    for number in [
        row[0]
        for row in crm.rows(
            "select basis_id from gdpr.basis where subject_id = %s and purpose ="
            " 'orders' and holds",
            [person],
            user="dpo_login",
        )
    ]:
        crm.rows("select gdpr.end_basis(%s, 'over')", [number], user="dpo_login")
    with refused("PR201", "basis_missing"):
        crm.rows(
            "insert into gdpr_clear.\"order\" (customer_id, note) values (2, 'more')",
            user="crm_app",
        )


# ---------------------------------------------------------------- purposes of roles


def test_a_role_works_for_its_first_purpose_unless_it_says(crm: Database) -> None:
    assert seen(crm) == [1, 2, 3]
    assert seen(crm, "orders") == [1, 2, 3]
    assert seen(crm, "marketing") == []


def test_claims_only_narrow(crm: Database) -> None:
    """A setting is a claim: it chooses among the purposes of the role and adds none."""
    for claim in ("analytics", "compliance", "maintenance", "no such", "orders; drop"):
        app = crm.connect("crm_app")
        app.execute("select set_config('gdpr.purpose', %s, false)", [claim])
        for statement in (
            COUNT,
            "select count(*) from crm.customer",
            "insert into gdpr_clear.customer (email, last_name) values ('x@example.com', 'X')",
            "update gdpr_clear.customer set city = 'X'",
            "delete from crm.lead",
        ):
            with refused("42501", "purpose_not_held"):
                app.execute(statement.encode())


def test_a_role_without_purpose_gets_an_error_and_not_an_empty_table(crm: Database) -> None:
    crm.rows(
        "grant usage on schema crm to portal_app; grant all on all tables in"
        " schema crm to portal_app;"
        " grant usage on all sequences in schema crm to portal_app"
    )
    for statement in (
        "select * from crm.customer",
        "delete from crm.lead",
        "update crm.customer set city = 'X'",
        "insert into crm.lead (email) values ('x@example.com')",
    ):
        with refused("42501", "no_purpose"):
            crm.rows(statement, user="portal_app")
    with refused("42501"):
        crm.rows("select * from gdpr_clear.customer", user="portal_app")


def test_a_table_owner_without_purpose_is_told_too(crm: Database) -> None:
    """Neither owner nor creator: FORCE row security binds the owner of the table."""
    crm.rows("create role keeper login", user="postgres")
    try:
        crm.rows(
            "grant usage on schema crm to keeper; alter table crm.lead owner to keeper",
            user="postgres",
        )
        for statement in (
            "select * from crm.lead",
            "update crm.lead set score = 1",
            "delete from crm.lead",
        ):
            with refused("42501", "no_purpose"):
                crm.rows(statement, user="keeper")
    finally:
        crm.rows(
            "reassign owned by keeper to db_owner; drop owned by keeper; drop role keeper",
            user="postgres",
        )


def test_members_inherit_the_purposes_of_a_bound_role(crm: Database) -> None:
    crm.rows(
        "create role alice login in role crm_app; create role bob login noinherit in role crm_app",
        user="postgres",
    )
    try:
        assert crm.rows(COUNT, user="alice") == [(3,)]
        bob = crm.connect("bob")
        with refused("42501"):
            bob.execute(COUNT)
        bob.execute("set role crm_app")
        assert bob.execute(COUNT).fetchone() == (3,)
        bob.close()
    finally:
        crm.rows("drop role alice; drop role bob", user="postgres")


def test_the_redacted_audience_may_not_touch_the_table(crm: Database) -> None:
    crm.rows("grant usage on schema crm to metabase; grant select on crm.customer to metabase")
    with refused("42501", "base_refused"):
        crm.rows("select * from crm.customer", user="metabase")


def test_a_purpose_that_is_not_the_tables_sees_nothing(crm: Database) -> None:
    """Orders may be used for orders and analytics: never for marketing, whatever the person
    consents to."""
    for person in {subject(crm, "crm.customer", key) for key in (1, 2, 3)}:
        crm.rows(
            "select gdpr.record_consent(%s, 'marketing', true, 'in_person')",
            [person],
            user="dpo_login",
        )
    app = crm.connect("crm_app")
    app.execute("set gdpr.purpose = 'marketing'")
    assert app.execute(COUNT).fetchone() == (3,)
    assert app.execute('select count(*) from gdpr_clear."order"').fetchone() == (0,)


def test_dpo_sees_for_compliance_what_others_may_not(crm: Database) -> None:
    crm.rows(
        "select gdpr.restrict(%s, 'other')", [subject(crm, "crm.customer", 1)], user="dpo_login"
    )
    assert crm.rows(COUNT, user="crm_app") == [(2,)]
    assert crm.rows("select email from gdpr_clear.customer order by id", user="dpo_login")[0] == (
        "anna@example.com",
    )
    with refused("42501"):
        crm.rows("update gdpr_clear.customer set city = 'X'", user="dpo_login")
    with refused("42501"):
        crm.rows(COUNT, user="auditor_login")


def test_maintenance_sees_all_and_leaves_a_record(crm: Database) -> None:
    crm.rows("create role migrator login", user="postgres")
    try:
        crm.rows(
            "grant usage on schema crm to migrator; grant all on all tables in"
            " schema crm to migrator"
        )
        apply(crm, policy(roles__migrator={"audience": "clear", "purposes": ["maintenance"]}))
        crm.rows(
            "select gdpr.restrict(%s, 'other')", [subject(crm, "crm.customer", 1)], user="dpo_login"
        )
        work = crm.connect("migrator", autocommit=False)
        assert work.execute("select count(*) from crm.customer").fetchone() == (3,)
        work.execute("update crm.customer set city = upper(city)")
        work.execute("select count(*) from crm.lead")
        work.commit()
        events = crm.rows(
            "select login::text, purpose from gdpr.audit_log where operation = 'MAINTENANCE'",
            user="auditor_login",
        )
        assert events == [("migrator", "maintenance")]
        work.execute("set transaction read only")
        assert work.execute("select count(*) from crm.customer").fetchone() == (3,)
        work.commit()
        crm.rows("select gdpr.erase(%s)", [subject(crm, "crm.customer", 2)], user="dpo_login")
        assert work.execute("select count(*) from crm.customer").fetchone() == (2,)
        work.close()
    finally:
        crm.rows("drop owned by migrator; drop role migrator", user="postgres")


# ---------------------------------------------------------------- writes that the gate refuses


def test_delete_and_update_without_where_leave_hidden_rows(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    crm.rows("select gdpr.restrict(%s, 'other')", [anna], user="dpo_login")
    app = crm.connect("crm_app")
    app.execute("update crm.customer set city = 'X'")
    app.execute("update gdpr_clear.customer set city = 'X'")
    app.execute("delete from crm.order_line")
    app.execute('delete from gdpr_clear."order"')
    app.execute("delete from crm.customer")
    crm.rows("select gdpr.lift_restriction(%s, 'resolved')", [anna], user="dpo_login")
    assert app.execute("select id, city, email from gdpr_clear.customer").fetchall() == [
        (1, "Aalen", "anna@example.com")
    ]
    assert app.execute('select note from gdpr_clear."order" order by id').fetchall() == [
        ("gift for Ada",),
        ("call first",),
    ]
    assert app.execute("select count(*) from gdpr_clear.order_line").fetchone() == (2,)


@pytest.mark.parametrize(
    ("lock", "code", "name"),
    [
        ("gdpr.restrict({0}, 'other')", "PR601", "restricted"),
        (
            "gdpr.record_basis({0}, 'orders', 'public_task'), gdpr.object_to({0}, 'orders')",
            "PR602",
            "objected",
        ),
        (
            (
                "gdpr.end_basis(basis_id, 'x') from gdpr.basis where subject_id = {0}"
                " and purpose = 'orders'"
            ),
            "PR201",
            "basis_missing",
        ),
    ],
)
@pytest.mark.parametrize(
    "write",
    [
        "insert into gdpr_clear.\"order\" (customer_id, note) values (2, 'x')",
        'insert into crm."order" (customer_id) values (2)',
        'update gdpr_clear."order" set customer_id = 2 where id = 1',
        'insert into crm."order" (customer_id) values (2) on conflict do nothing',
        (
            'merge into crm."order" o using (values (2)) v (c) on o.id = -1 when not'
            " matched then insert (customer_id) values (c)"
        ),
    ],
)
def test_a_write_that_is_not_allowed_says_why(
    crm: Database, lock: str, code: str, name: str, write: str
) -> None:
    bela = subject(crm, "crm.customer", 2)
    crm.rows("select " + lock.format(bela), user="dpo_login")
    with refused(code, name) as error:
        crm.rows(write, user="crm_app")
    assert error.value.diag.message_detail == f"subject {bela}, purpose orders"


def test_a_person_of_a_table_is_written_for_the_purpose_that_has_a_basis(crm: Database) -> None:
    app = crm.connect("crm_app")
    app.execute("set gdpr.purpose = 'marketing'")
    with refused("PR301", "consent_missing"):
        app.execute(
            "insert into gdpr_clear.customer (email, last_name) values ('m@example.com', 'M')"
        )
    with refused("PR301", "consent_missing"):
        app.execute("insert into gdpr_clear.lead (email) values ('m@example.com')")
    app.execute("reset gdpr.purpose")
    with refused("PR201", "basis_missing"):
        app.execute("insert into gdpr_clear.lead (email) values ('m@example.com')")


def test_gate_columns_are_not_written_by_anybody(crm: Database) -> None:
    for user in ("crm_app", "db_owner"):
        session = crm.connect(user)
        for change in (
            "gdpr_purposes = -1",
            "gdpr_until = 'infinity', gdpr_purposes = 0",
            "gdpr_subject_id = 2",
            "gdpr_subject_ref = gen_random_uuid()",
            "gdpr_email_digest = null",
            "gdpr_birth_date_mask = null",
        ):
            with refused("PR406", "gate_columns"):
                session.execute(f"update crm.customer set {change} where id = 1".encode())


def test_gate_columns_of_an_insert_are_the_databases(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    crm.rows(
        "insert into crm.customer"
        " (email, last_name, gdpr_subject_id, gdpr_purposes, gdpr_until)"
        " values ('n@example.com', 'N', %s, -1, 'infinity')",
        [anna],
        user="crm_app",
    )
    question = "select gdpr_subject_id, gdpr_purposes from crm.customer where last_name = 'N'"
    ((person, purposes),) = crm.rows(question, user="postgres")
    assert person != anna
    assert purposes >= 0
