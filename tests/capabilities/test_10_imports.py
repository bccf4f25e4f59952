"""Import: many rows in one call, each refused for itself, none taken twice, their source kept."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, policy, refused
from tests.support import Database

FILE = "ab12" * 16
IMPORT = (
    "select line, problem from gdpr.import_rows(%s::text::regclass, %s, %s, p_skip => %s,"
    " p_first => %s, p_file => %s)"
)


def take(
    db: Database,
    rows: Any,
    *,
    table: str = "crm.customer",
    source: dict[str, Any] | None = None,
    skip: bool = False,
    first: int = 1,
    file: str | None = None,
    user: str = "crm_app",
) -> list[tuple[Any, ...]]:
    """Import rows; the lines that were refused."""
    return db.rows(
        IMPORT,
        [table, json.dumps(rows), json.dumps(source or {}), skip, first, file],
        user=user,
    )


def people(*names: str, **more: object) -> list[dict[str, object]]:
    """Rows of customers."""
    return [{"email": f"{name.lower()}@new.example", "last_name": name} | more for name in names]


def customers(db: Database) -> list[tuple[Any, ...]]:
    """Names of all customers that came later than those of the fixture."""
    return db.rows(
        "select last_name, phone, birth_date::text, city from gdpr_clear.customer"
        " where id > 3 order by id",
        user="crm_app",
    )


def test_rows_come_in_protected_and_with_their_source(crm: Database) -> None:
    rows = people("Xi", phone="+49 1", birth_date="1990-01-02") + people("Yao", city=None)
    assert take(crm, rows, source={"file": "fair.csv"}) == []
    assert customers(crm) == [
        ("Xi", "+49 1", "1990-01-02", "Stuttgart"),
        ("Yao", None, None, None),
    ]
    stored = crm.rows("select email, birth_date from crm.customer where id > 3", user="postgres")
    assert all(value is None or value.startswith("gdpr1:") for row in stored for value in row)
    sources = crm.rows(
        "select kind, details from gdpr.source where kind = 'import'", user="dpo_login"
    )
    assert sources == [("import", {"file": "fair.csv"})] * 2
    assert crm.rows(
        "select old from gdpr.audit_log where operation = 'IMPORT'", user="dpo_login"
    ) == [({"table": "crm.customer", "taken": 2, "refused": 0},)]


def test_rows_of_known_persons_are_theirs(crm: Database) -> None:
    orders = [{"customer_id": 2, "total": "5.50", "note": "ring"}, {"customer_id": 2}]
    assert take(crm, orders, table="crm.order") == []
    whose = crm.rows(
        "select gdpr.subject_of('crm.order', '5') = gdpr.subject_of('crm.customer', '2')",
        user="dpo_login",
    )
    assert whose == [(True,)]
    assert take(crm, [{"customer_id": 4711}], table="crm.order", skip=True) != []


BAD = [
    *people("Ok"),
    {"email": "anna@example.com", "last_name": "Twice"},
    {"email": "d@new.example", "last_name": "Day", "birth_date": "31.02.1990 secret"},
    {"email": "n@new.example", "last_name": None},
    {"email": "c@new.example", "last_name": "City", "city": "s" * 41},
    *people("Fine"),
]
PROBLEMS = [
    (2, "SQLSTATE 23505, constraint customer_email_key"),
    (3, "SQLSTATE 22007, column birth_date"),
    (4, "SQLSTATE 23502, column last_name"),
    (5, "SQLSTATE 22001, column city"),
]


def test_bad_rows_are_named_by_line_and_nothing_is_taken(crm: Database) -> None:
    with refused("PR109", "import_refused") as caught:
        take(crm, BAD)
    detail = str(caught.value.diag.message_detail)
    assert sorted(detail.splitlines()) == [f"line {n}: {problem}" for n, problem in PROBLEMS]
    assert "secret" not in str(caught.value)
    assert customers(crm) == []
    assert crm.rows("select * from gdpr.import", user="auditor_login") == []


def test_bad_rows_are_skipped_when_asked(crm: Database) -> None:
    assert sorted(take(crm, BAD, skip=True)) == PROBLEMS
    assert {row[0] for row in customers(crm)} == {"Ok", "Fine"}
    numbered = take(crm, [BAD[1]], skip=True, first=1000)
    assert numbered == [(1000, PROBLEMS[0][1])]


def test_duplicates_within_the_file_are_told(crm: Database) -> None:
    assert take(crm, people("Same", "Other", "Same"), skip=True) == [
        (3, "SQLSTATE 23505, constraint customer_email_key")
    ]


def test_who_was_blocked_does_not_come_back_by_import(crm: Database) -> None:
    new = policy()
    new["tables"]["crm.customer"]["blocklist"] = "refuse"
    apply(crm, new)
    crm.rows("select gdpr.block('email', 'gone@new.example', 'asked')", user="dpo_login")
    assert [line for line, _ in take(crm, people("Here", "Gone"), skip=True)] == [2]
    assert [row[0] for row in customers(crm)] == ["Here"]


def test_a_file_goes_on_where_it_stopped_and_is_never_doubled(crm: Database) -> None:
    rows = people("A1", "A2", "A3", "A4")
    assert take(crm, rows[:2], file=FILE) == []
    with psycopg.connect(crm.dsn("crm_app")) as connection:
        connection.execute(IMPORT, ["crm.customer", json.dumps(rows[2:]), "{}", False, 3, FILE])
        connection.rollback()
    assert take(crm, rows, file=FILE) == []
    assert take(crm, rows, file=FILE) == []
    assert [row[0] for row in customers(crm)] == ["A1", "A2", "A3", "A4"]
    assert crm.rows(
        "select table_name::text, file, last_row, taken, refused from gdpr.import",
        user="auditor_login",
    ) == [("crm.customer", FILE, 4, 4, 0)]


def test_lines_of_a_file_cannot_be_left_out(crm: Database) -> None:
    assert take(crm, people("A1", "A2"), file=FILE) == []
    with refused("PR004", "invalid_argument") as caught:
        take(crm, people("A4"), first=4, file=FILE)
    assert "go on with row 3" in str(caught.value.diag.message_detail)
    assert take(crm, people("A3"), first=3, file=FILE) == []
    for name in ("fair of Anna Ahrens.csv", "", "ab12"):
        with refused("PR004", "invalid_argument"):
            take(crm, people("X"), file=name)


def test_neither_yes_nor_no_is_no(crm: Database) -> None:
    with refused("PR109", "import_refused"):
        crm.rows(
            "select gdpr.import_rows('crm.customer', %s, p_skip => null)",
            [json.dumps(BAD)],
            user="crm_app",
        )


def test_the_session_is_left_as_it_was(crm: Database) -> None:
    connection = crm.connect("crm_app")
    connection.execute('select gdpr.set_context(p_source => \'{"kind": "manual"}\')')
    before = connection.execute("select current_setting('gdpr.source')").fetchone()
    connection.execute(IMPORT, ["crm.customer", json.dumps(people("Zed")), "{}", False, 1, None])
    assert connection.execute("select current_setting('gdpr.source')").fetchone() == before


@pytest.mark.parametrize(
    ("rows", "source"),
    [
        ({"email": "x"}, {}),
        ([1], {}),
        ([{"mail": "x@new.example"}], {}),
        ([{"gdpr_subject_id": 1}], {}),
        ([{"id": 7}], {}),
        (people("X"), {"ip": "203.0.113.7"}),
    ],
)
def test_what_cannot_be_rows_is_refused(same: Database, rows: Any, source: dict[str, Any]) -> None:
    with refused("PR004", "invalid_argument") as caught:
        take(same, rows, source=source)
    assert "new.example" not in str(caught.value)


def test_an_import_has_no_more_rights_than_its_caller(same: Database) -> None:
    with refused("42501"):
        take(same, people("X"), user="metabase")
    with refused("42501"):
        take(same, people("X"), user="dpo_login")
    with refused("PR002", "not_protected"):
        take(same, people("X"), table="pg_class")
    same.connect().execute("revoke insert on crm.customer from crm_app")
    with refused("42501"):
        take(same, people("X"), skip=True)
    same.connect().execute("grant insert on crm.customer to crm_app")
