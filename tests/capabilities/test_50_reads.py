"""audit_reads: one record for each statement that reads a table, with about how many rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, plan, policy, problems, refused
from tests.support import OWNER, Clone, Database

#: As the application names what it reads.
CLEAR, BASE = "gdpr_clear.customer", "crm.customer"


@pytest.fixture(scope="module")
def recording(clone: Clone, crm_template: str) -> Iterator[Database]:
    """A database in which reads of customers are recorded, and reads of leads have to be."""
    with clone(crm_template) as database:
        database.rows(
            "insert into crm.customer (email, last_name)"
            " select format('p%s@example.org', i), 'P' from generate_series(1, 117) as i"
        )
        apply(
            database,
            policy(
                **{"tables__crm.customer__audit_reads": True},
                **{"tables__crm.lead__audit_reads": "required"},
            ),
        )
        yield database


@pytest.fixture
def app(recording: Database) -> Iterator[psycopg.Connection]:
    """The application, on a connection of its own."""
    with psycopg.connect(recording.dsn("crm_app"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def since(recording: Database) -> int:
    """The last record there was."""
    return int(recording.rows("select max(id) from gdpr.audit_log", user="auditor_login")[0][0])


def reads(db: Database, since: int) -> list[tuple[str, str]]:
    """Table and row class of the reads that were recorded."""
    return db.rows(
        "select table_name::text, old ->> 'rows' from gdpr.audit_log"
        " where operation = 'READ' and id > %s order by id",
        [since],
        user="auditor_login",
    )


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("select email from gdpr_clear.customer where id = 1", "1"),
        ("select email from gdpr_clear.customer where id in (1, 2)", "2-10"),
        ("select * from gdpr_clear.customer where id <= 50", "11-100"),
        ("select * from gdpr_clear.customer", "101-1000"),
        ("select count(*) from gdpr_clear.customer", "101-1000"),
        ("select exists (select from gdpr_clear.customer where id = 3)", "1"),
        ("select email from gdpr_clear.customer limit 1", "1"),
        ("select * from crm.customer where id = 1", "1"),
        ("select count(city) from crm.customer", "101-1000"),
        ("select gdpr.reveal((select email from crm.customer where id = 1))", "1"),
        (
            "select from gdpr_clear.customer a, gdpr_clear.customer b where a.id = 1 and b.id = 2",
            "2-10",
        ),
        (
            "with c as materialized (table gdpr_clear.customer limit 3) select count(*) from c",
            "2-10",
        ),
        ("table gdpr_clear.customer limit 11", "11-100"),
        ("copy (select * from gdpr_clear.customer where id <= 20) to stdout", "11-100"),
        ("update gdpr_clear.customer set city = city where id = 4", "2-10"),
        ("select id from gdpr_clear.customer where id = 5 for update", "1"),
    ],
)
def test_a_statement_leaves_one_record(
    recording: Database, app: psycopg.Connection, since: int, statement: str, rows: str
) -> None:
    """An update counts a row twice: as it was read, and as it would be read."""
    if statement.startswith("copy"):
        with app.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            assert list(copy)
    else:
        app.execute(statement.encode())
    assert reads(recording, since) == [(BASE, rows)]


def test_the_record_says_who_why_and_when_and_nothing_of_anybody(
    recording: Database, app: psycopg.Connection, since: int
) -> None:
    with app.transaction():
        app.execute("select gdpr.set_context('ada', 'marketing', null, '7')")
        app.execute("select email from gdpr_clear.customer where id = 1")
    # marketing needs a consent that nobody has given: no row was shown
    assert reads(recording, since) == [(BASE, "0")]
    with app.transaction():
        app.execute("select gdpr.set_context('ada', 'orders', null, '7')")
        app.execute("select email from gdpr_clear.customer where id = 1")
    _, (record,) = recording.rows(
        "select to_jsonb(a) from gdpr.audit_log as a where id > %s order by id",
        [since],
        user="dpo_login",
    )
    assert (record["actor"], record["purpose"], record["request"]) == ("ada", "orders", "7")
    assert (record["login"], record["role"], record["table_name"]) == ("crm_app", "crm_app", BASE)
    assert (record["subject_id"], record["row_key"], record["changed"]) == (None, None, None)
    assert set(record["old"]) == {"rows", "at"}
    assert "anna" not in json.dumps(record).lower()


def test_what_reads_nothing_leaves_none(
    recording: Database, app: psycopg.Connection, since: int
) -> None:
    for statement in (
        "select * from gdpr_clear.customer where id = -1",
        "select * from gdpr_clear.customer limit 0",
        "explain select * from gdpr_clear.customer",
        'select * from gdpr_clear."order"',
        "insert into crm.customer (email, last_name) values ('new@example.org', 'New')",
    ):
        app.execute(statement.encode())
    assert reads(recording, since) == []


def test_each_statement_of_a_transaction_and_each_execution_of_a_plan(
    recording: Database, app: psycopg.Connection, since: int
) -> None:
    with app.transaction():
        app.execute("select * from gdpr_clear.customer where id <= 3")
        app.execute("select * from gdpr_clear.customer where id = 1")
        app.execute("select * from crm.customer where id <= 20")
    assert reads(recording, since) == [(BASE, "2-10"), (BASE, "1"), (BASE, "11-100")]
    app.execute("prepare p (bigint) as select * from gdpr_clear.customer where id = $1")
    app.execute("set plan_cache_mode = force_generic_plan")
    for key in (1, 2, 3):
        app.execute(f"execute p ({key})".encode())
    for _ in range(3):
        app.execute("select * from gdpr_clear.customer where id = %s", [1], prepare=True)
    assert reads(recording, since)[3:] == [(BASE, "1")] * 6


def test_a_cursor_counts_what_was_fetched_when_it_is_closed(
    recording: Database, app: psycopg.Connection, since: int
) -> None:
    with app.transaction():
        app.execute("declare c cursor for select email from gdpr_clear.customer")
        assert len(app.execute("fetch 15 from c").fetchall()) == 15
        app.execute("close c")
    assert reads(recording, since) == [(BASE, "11-100")]


def test_two_tables_are_two_records(
    recording: Database, app: psycopg.Connection, since: int
) -> None:
    app.execute("select from gdpr_clear.customer as c, gdpr_clear.lead as l where c.id = 1")
    # the purpose orders is none of leads: no lead was shown
    assert sorted(reads(recording, since)) == [(BASE, "1"), ("crm.lead", "0")]
    consent = "select gdpr.record_consent(gdpr.subject_of('crm.lead', '1'), 'marketing', true,"
    recording.rows(consent + " 'web_form')", user="dpo_login")
    recording.rows("select * from gdpr_clear.lead", user="dpo_login")
    assert reads(recording, since)[2:] == [("crm.lead", "2-10")]


def test_a_read_only_transaction_says_so_or_is_refused(
    recording: Database, app: psycopg.Connection, since: int
) -> None:
    told: list[str] = []
    app.add_notice_handler(lambda diagnosis: told.append(str(diagnosis.message_primary)))
    app.execute("set default_transaction_read_only = on")
    assert app.execute("select email from gdpr_clear.customer where id = 1").fetchone()
    assert told == ["that crm.customer was read cannot be recorded: the transaction is read-only"]
    with (
        psycopg.connect(recording.dsn("dpo_login")) as officer,
        refused("PR503", "read_unrecorded") as error,
    ):
        officer.execute("set transaction read only")
        officer.execute("select * from gdpr_clear.lead")
    assert error.value.diag.message_detail == "crm.lead"
    assert reads(recording, since) == []


@pytest.mark.parametrize("column", ["city", "email"])
@pytest.mark.parametrize("cost", ["0.0000001", "10000"])
@pytest.mark.parametrize("table", [CLEAR, BASE])
def test_a_condition_that_tells_is_a_read(
    recording: Database, app: psycopg.Connection, since: int, table: str, cost: str, column: str
) -> None:
    """A function in WHERE hears of each row, and lets none through."""
    app.execute(
        "create or replace function pg_temp.hear(text) returns boolean language plpgsql"
        f" cost {cost} as 'begin raise notice ''heard''; return false; end'".encode()
    )
    heard: list[str] = []
    app.add_notice_handler(lambda diagnosis: heard.append(str(diagnosis.message_primary)))
    assert app.execute(f"select from {table} where pg_temp.hear({column})".encode()).rowcount == 0
    assert "heard" in heard
    ((of, _),) = reads(recording, since)
    assert of == BASE
    if table == BASE:
        return
    # where reads have to be recorded and cannot be, nothing is heard
    heard.clear()
    officer = recording.connect("dpo_login", autocommit=False)
    officer.add_notice_handler(lambda diagnosis: heard.append(str(diagnosis.message_primary)))
    recording.rows(
        "select gdpr.record_consent(gdpr.subject_of('crm.lead', '1'), 'marketing', true, 'api')",
        user="dpo_login",
    )
    officer.execute(
        "create or replace function pg_temp.hear(text) returns boolean language plpgsql"
        f" cost {cost} as 'begin raise notice ''heard''; return false; end'".encode()
    )
    officer.commit()
    officer.execute("set transaction read only")
    with refused("PR503", "read_unrecorded"):
        officer.execute(
            f"select from {table.replace('customer', 'lead')} where pg_temp.hear(email)".encode()
        )
    assert heard == []


def test_rolled_back_reads_leave_no_record(
    recording: Database, app: psycopg.Connection, since: int
) -> None:
    """As the documentation says: what is rolled back takes its record with it."""
    with app.transaction(force_rollback=True):
        app.execute("select * from gdpr_clear.customer")
    assert reads(recording, since) == []


@pytest.mark.parametrize(
    "statements",
    [
        ["set constraints all immediate", "select * from gdpr_clear.customer"],
        ["select * from gdpr_clear.customer", "set constraints all immediate"],
    ],
)
def test_constraints_that_are_immediate_change_nothing(
    recording: Database, app: psycopg.Connection, since: int, statements: list[str]
) -> None:
    with app.transaction():
        for statement in statements:
            app.execute(statement.encode())
    assert reads(recording, since) == [(BASE, "101-1000")]


def test_counting_before_the_end_is_no_way_out(
    recording: Database, app: psycopg.Connection, since: int
) -> None:
    """A function that a statement calls cannot have it counted before it has read all."""
    app.execute(
        "create function pg_temp.now(bigint) returns bigint language plpgsql volatile as"
        " 'begin set constraints all immediate; return $1; end'"
    )
    app.execute("select pg_temp.now(id), email from gdpr_clear.customer")
    app.execute(
        "do $$ declare v record; begin for v in select * from gdpr_clear.customer loop"
        " set constraints all immediate; end loop; end $$"
    )
    assert [rows for _, rows in reads(recording, since)] == ["101-1000"] * 2


def test_what_a_cursor_reads_later_is_not_counted(
    recording: Database, app: psycopg.Connection, since: int
) -> None:
    """Nor is it told to be less: the record says that nobody counted."""
    with app.transaction():
        app.execute("declare c cursor for select email from gdpr_clear.customer")
        app.execute("fetch 1 from c")
        app.execute("set constraints all immediate")
        app.execute("fetch all from c")
    app.execute("declare h cursor with hold for select email from gdpr_clear.customer")
    app.execute("close h")
    with app.transaction():
        app.execute("declare h cursor with hold for select email from gdpr_clear.customer")
        app.execute("fetch 1 from h")
    app.execute("close h")
    assert [rows for _, rows in reads(recording, since)] == ["not counted"] * 3


def test_nobody_but_the_database_counts(app: psycopg.Connection) -> None:
    for statement in (
        "delete from gdpr_internal.read_note",
        "select gdpr_policy.note_read(1::smallint, false)",
        "select setval('gdpr_generated.reads_1', 1)",
        "alter table gdpr_internal.read_note disable trigger all",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(statement.encode())


def test_the_policy_says_it(recording: Database) -> None:
    assert plan(recording, recording.rows("select gdpr.policy()")[0][0]) == []
    assert problems(recording, policy(**{"tables__crm.lead__audit_reads": "always"})) == [
        'tables."crm.lead".audit_reads: true, false or "required"'
    ]
    assert findings(recording) == set()


def test_it_comes_and_goes_with_the_policy(crm: Database) -> None:
    before: list[Any] = crm.rows("select id from gdpr.audit_log", user="dpo_login")
    apply(crm, policy(**{"tables__crm.customer__audit_reads": True}))
    crm.rows("select * from gdpr_clear.customer", user="crm_app")
    assert len(reads(crm, len(before))) == 1
    apply(crm, policy())
    crm.rows("select * from gdpr_clear.customer", user="crm_app")
    assert len(reads(crm, len(before))) == 1
    assert plan(crm, policy()) == []
    apply(crm, policy(**{"tables__crm.lead__audit_reads": "required"}))
    crm.rows("select gdpr.unprotect('crm.lead')", user=OWNER)
    # what is counted is counted on when the policy says so again; with the table it goes
    left = crm.rows("select count(*) from pg_class where relname ~ 'reads_[0-9]+$'")
    assert left == [(2,)]
    assert crm.rows("select gdpr.seal_audit()")[0][0] > 0
    assert crm.rows("select * from gdpr.verify_audit()", user="auditor_login") == []
