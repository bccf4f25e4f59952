"""Station 50: every change leaves a record that says who and why, shows nothing, and stays."""

from __future__ import annotations

import psycopg
import pytest

from tests.capabilities.crm import apply, one_table, policy, refused, subject
from tests.support import Database

LOG = (
    "select operation, table_name::text, changed, old from gdpr.audit_log where"
    " table_name is not null order by id"
)


def log(crm: Database, user: str = "dpo_login") -> list[tuple[object, ...]]:
    """Operation, table, changed columns and old values of the records of rows."""
    return crm.rows(LOG, user=user)


def test_protecting_a_table_is_no_change_of_data(crm: Database) -> None:
    assert log(crm) == []
    events = {
        operation
        for (operation,) in crm.rows(
            "select distinct operation from gdpr.audit_log", user="auditor_login"
        )
    }
    assert events == {"POLICY", "KEY", "ASSESSMENT"}


def test_every_operation_leaves_its_record(crm: Database) -> None:
    app = crm.connect("crm_app")
    app.execute("insert into gdpr_clear.customer (email, last_name) values ('n@example.com', 'N')")
    app.execute(
        "update gdpr_clear.customer set phone = '+49 5', city = 'Ulm' where last_name = 'N'"
    )
    app.execute("update gdpr_clear.customer set email = 'n2@example.com' where last_name = 'N'")
    app.execute("delete from gdpr_clear.customer where last_name = 'N'")
    records = log(crm)
    assert [record[:3] for record in records] == [
        ("INSERT", "crm.customer", None),
        ("UPDATE", "crm.customer", ["phone", "city"]),
        ("UPDATE", "crm.customer", ["email"]),
        ("DELETE", "crm.customer", None),
    ]
    assert records[0][3] is None
    old = records[1][3]
    assert isinstance(old, dict)
    assert old["city"] == "Stuttgart"
    assert old["phone"] is None


def test_old_values_are_plaintext_for_officers_and_nothing_for_auditors(crm: Database) -> None:
    crm.rows(
        "update gdpr_clear.customer set phone = '+49 5', last_name = 'New',"
        " birth_date = null where id = 1",
        user="crm_app",
    )
    ((_, _, changed, old),) = log(crm)
    assert changed == ["phone", "last_name", "birth_date"]
    assert old == {"phone": "+49 711 1001", "last_name": "Ahrens", "birth_date": "1980-01-02"}
    ((_, _, changed, hidden),) = log(crm, "auditor_login")
    assert changed == ["phone", "last_name", "birth_date"]
    assert hidden is None


def test_nothing_readable_lies_in_the_records(crm: Database) -> None:
    app = crm.connect("crm_app")
    app.execute(
        "update gdpr_clear.customer set last_name = 'Newname', city = 'Xanten',"
        " phone = '+49 99999' where id = 1"
    )
    app.execute("delete from gdpr_clear.order_line where order_id = 1")
    (content,) = crm.rows(
        "select string_agg(a::text, E'\\n') from gdpr_internal.audit_record a"
        " where table_id is not null",
        user="postgres",
    )[0]
    # whole values: three letters may well stand in ciphertext by chance
    for value in ("Newname", "Xanten", "+49 99999", "Ahrens", "anna@", "Ada,", ", Ada", "+49 711"):
        assert value not in content


def test_who_and_why(crm: Database) -> None:
    app = crm.connect("crm_app", autocommit=False, application_name="shop 2.1")
    app.execute("select gdpr.set_context('jo@desk', 'orders', null, 'req-77')")
    app.execute("update gdpr_clear.customer set city = 'Ulm' where id = 1")
    app.commit()
    (record,) = crm.rows(
        "select actor, request, purpose, login::text, role::text,"
        " application_name, client_addr, subject_id, row_key is not null,"
        " row_hash is not null, xid::text::bigint > 0, at <= clock_timestamp()"
        " from gdpr.audit_log where operation = 'UPDATE'",
        user="auditor_login",
    )
    anna = subject(crm, "crm.customer", 1)
    assert record == (
        "jo@desk",
        "req-77",
        "orders",
        "crm_app",
        "crm_app",
        "shop 2.1",
        None,
        anna,
        True,
        True,
        True,
        True,
    )


def test_the_role_that_acts_and_the_login_that_is_liable(crm: Database) -> None:
    crm.rows("create role alice login in role crm_app", user="postgres")
    try:
        alice = crm.connect("alice")
        alice.execute("set role crm_app")
        alice.execute("set gdpr.purpose = 'orders'")
        alice.execute("update crm.customer set city = 'Ulm' where id = 1")
        alice.close()
        assert crm.rows(
            "select login::text, role::text from gdpr.audit_log where operation = 'UPDATE'",
            user="auditor_login",
        ) == [("alice", "crm_app")]
    finally:
        crm.rows("drop role alice", user="postgres")


def test_a_rolled_back_change_leaves_no_record(crm: Database) -> None:
    app = crm.connect("crm_app", autocommit=False)
    app.execute("update gdpr_clear.customer set city = 'Ulm'")
    app.rollback()
    assert log(crm) == []


def test_an_update_of_nothing_says_so(crm: Database) -> None:
    crm.rows("update crm.customer set city = city, phone = phone where id = 1", user="crm_app")
    records = log(crm)
    assert [record[:3] for record in records] in ([], [("UPDATE", "crm.customer", [])])


def test_the_gates_own_copies_are_no_changes(crm: Database) -> None:
    """Consent for a person with rows in three tables is one event and no change of data."""
    anna = subject(crm, "crm.customer", 1)
    crm.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [anna], user="dpo_login"
    )
    crm.rows("select gdpr.restrict(%s, 'other')", [anna], user="dpo_login")
    assert log(crm) == []
    events = crm.rows(
        "select operation from gdpr.audit_log where subject_id = %s order by id",
        [anna],
        user="auditor_login",
    )
    assert events == [("CONSENT",), ("RESTRICT",)]


def test_events_of_rights_are_recorded(crm: Database) -> None:
    officer = crm.connect("dpo_login")
    for call in (
        "record_basis(1, 'orders', 'contract', 'order')",
        "end_basis(1, 'x')",
        "record_consent(1, 'marketing', true, 'in_person')",
        "withdraw_consent(1, 'marketing')",
        "restrict(1, 'other')",
        "lift_restriction(1, 'x')",
        "object_to(1, 'analytics')",
        "block('email', 'b@example.com', 'x')",
        "unblock('email', 'b@example.com', 'x')",
        "erase(2)",
    ):
        officer.execute(f"select gdpr.{call}".encode())
    events = {
        operation
        for (operation,) in crm.rows(
            "select operation from gdpr.audit_log where table_name is null", user="auditor_login"
        )
    }
    assert events >= {
        "BASIS",
        "CONSENT",
        "RESTRICT",
        "LIFT",
        "OBJECT",
        "BLOCK",
        "UNBLOCK",
        "ERASE",
        "POLICY",
        "KEY",
    }
    (content,) = crm.rows(
        "select string_agg(a::text, '') from gdpr_internal.audit_record a", user="postgres"
    )[0]
    assert "b@example.com" not in content


EVIDENCE = [
    "audit_record",
    "source",
    "basis_record",
    "basis_end",
    "consent_record",
    "restriction_record",
    "restriction_end",
    "objection_record",
    "erasure_record",
]


@pytest.mark.parametrize("table", EVIDENCE)
def test_evidence_is_append_only_for_the_superuser_too(crm: Database, table: str) -> None:
    officer = crm.connect("dpo_login")
    for call in (
        "end_basis(1, 'x')",
        "record_consent(1, 'marketing', true, 'in_person')",
        "restrict(1, 'other')",
        "lift_restriction(1, 'x')",
        "object_to(1, 'analytics')",
        "erase(2)",
    ):
        officer.execute(f"select gdpr.{call}".encode())
    superuser = crm.connect("postgres")
    superuser.execute("set session_replication_role = replica")
    (column,) = superuser.execute(
        "select attname from pg_attribute where attrelid = %s::text::regclass and attnum = 1",
        [f"gdpr_internal.{table}"],
    ).fetchone() or ("",)
    assert superuser.execute(
        f"select count(*) > 0 from gdpr_internal.{table}".encode()
    ).fetchone() == (True,)
    for statement in (
        f"update gdpr_internal.{table} set {column} = default",
        f"delete from gdpr_internal.{table}",
        f"truncate gdpr_internal.{table} cascade",
    ):
        with refused("55000", "append_only"):
            superuser.execute(statement.encode())


@pytest.mark.parametrize("user", ["db_owner", "dpo_login", "auditor_login", "crm_app", "metabase"])
def test_nobody_who_logs_in_touches_evidence(crm: Database, user: str) -> None:
    for table in EVIDENCE:
        for statement in (
            f"select * from gdpr_internal.{table}",
            f"delete from gdpr_internal.{table}",
        ):
            with refused("42501"):
                crm.rows(statement, user=user)
    for statement in (
        "delete from gdpr.audit_log",
        "update gdpr.audit_log set actor = 'x'",
        "insert into gdpr.audit_log (actor) values ('x')",
    ):
        with pytest.raises(psycopg.Error) as error:
            crm.rows(statement, user=user)
        assert error.value.sqlstate in ("42501", "55000")


def test_records_go_to_the_partition_of_their_month(crm: Database) -> None:
    crm.rows("update gdpr_clear.customer set city = 'Ulm' where id = 1", user="crm_app")
    (part,) = crm.rows(
        "select tableoid::regclass::text from gdpr_internal.audit_record order by id desc limit 1",
        user="postgres",
    )[0]
    (expected,) = crm.rows(
        "select 'gdpr_internal.audit_record_' || to_char(now() at time zone 'UTC', 'YYYY_MM')",
        user="postgres",
    )[0]
    assert part == expected
    parts = crm.rows(
        "select count(*) from pg_inherits where inhparent = 'gdpr_internal.audit_record'::regclass",
        user="postgres",
    )[0][0]
    assert parts >= 4


def test_old_values_read_the_same_in_every_session(db: Database) -> None:
    db.connect().execute(
        "create table public.person (id integer primary key, d date, t"
        " timestamptz, i interval, f float8, b bytea); grant all on public.person"
        " to crm_app"
    )
    apply(db, one_table("public.person", columns={"d": {"encrypt": True}}))
    app = db.connect(
        "crm_app",
        options="-c datestyle=German -c timezone=Asia/Tokyo -c intervalstyle=iso_8601 -c"
        " extra_float_digits=-5 -c bytea_output=escape",
    )
    app.execute(
        "insert into gdpr_clear.person values (1, '2020-02-01', '2020-02-01"
        " 00:00+00', '1 day 02:00', 0.1::float8 + 0.2, '\\x00ff')"
    )
    app.execute("update gdpr_clear.person set d = null, t = null, i = null, f = null, b = null")
    old = db.rows("select old from gdpr.audit_log where operation = 'UPDATE'", user="dpo_login")[0][
        0
    ]
    assert old == {
        "d": "2020-02-01",
        "t": "2020-02-01T00:00:00+00:00",
        "i": "1 day 02:00:00",
        "f": 0.30000000000000004,
        "b": "\\x00ff",
    }


def test_types_without_equality_are_compared_all_the_same(db: Database) -> None:
    """json, point and box have no equality, or one that is not identity."""
    db.connect().execute(
        "create table public.person (id integer primary key, j json, p point, b"
        " box, x xml, name text); grant all on public.person to crm_app"
    )
    apply(
        db, one_table("public.person", columns={"name": {"encrypt": True}, "b": {"encrypt": True}})
    )
    app = db.connect("crm_app")
    app.execute(
        """insert into gdpr_clear.person (id, j, p, b, name) values (1, '{"a": 1}', '(1,2)',
        '(1,1),(0,0)', 'x')"""
    )
    app.execute("""update gdpr_clear.person set j = '{"a": 2}', p = '(2,1)', b = '(2,1),(1,0)'""")
    assert app.execute("select j::text, p::text, b::text from gdpr_clear.person").fetchone() == (
        '{"a": 2}',
        "(2,1)",
        "(2,1),(1,0)",
    )
    ((_, _, changed, _),) = [record for record in log(db) if record[0] == "UPDATE"]
    assert changed == ["j", "p", "b"]


def test_rows_of_erased_persons_stay_recorded_and_unreadable(crm: Database) -> None:
    crm.rows("update gdpr_clear.customer set phone = '+49 5' where id = 1", user="crm_app")
    anna = subject(crm, "crm.customer", 1)
    crm.rows("select gdpr.erase(%s)", [anna], user="dpo_login")
    records = crm.rows(
        "select operation, old from gdpr.audit_log where subject_id = %s and"
        " table_name is not null order by id",
        [anna],
        user="dpo_login",
    )
    assert [operation for operation, _ in records].count("DELETE") == 6
    assert all(old is None for _, old in records)


def test_observed_tables_are_audited_too(crm: Database) -> None:
    apply(crm, policy(**{"tables__crm.customer__mode": "observe"}))
    crm.rows("update crm.customer set city = 'Ulm' where id = 1", user="crm_app")
    assert [record[:3] for record in log(crm)] == [("UPDATE", "crm.customer", ["city"])]
