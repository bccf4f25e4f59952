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


RETRY = (
    "select line, problem from gdpr.import_rows(%s::text::regclass, %s, '{}', true, %s, %s,"
    " p_retry => true)"
)
REFUSED = "select row_number, line, problem from gdpr.import_refusal order by 1"


def some(*wrong: int, count: int = 12) -> list[dict[str, object]]:
    """Rows of customers, of which these are wrong."""
    return [
        {"email": f"r{n}@new.example", "last_name": None if n in wrong else f"R{n}"}
        for n in range(1, count + 1)
    ]


@pytest.mark.parametrize("batch", [1, 3, 12])
def test_refused_lines_are_kept_until_they_are_taken(crm: Database, batch: int) -> None:
    """Whatever the batches they are tried in, and whichever of them come."""
    missing = "SQLSTATE 23502, column last_name"
    take(crm, some(2, 3, 4, 5, 9, 12)[:7], skip=True, file=FILE)
    take(crm, some(2, 3, 4, 5, 9, 12)[7:], skip=True, first=8, file=FILE)
    kept = [(n, n, missing) for n in (2, 3, 4, 5, 9, 12)]
    assert crm.rows(REFUSED, user="crm_app") == kept
    assert crm.rows("select count(*) from gdpr_internal.import_refusal", user="postgres") == [(3,)]
    for still in ({3, 9}, set[int]()):
        rows = some(*still)
        for first in range(0, 12, batch):
            crm.rows(
                RETRY,
                ["crm.customer", json.dumps(rows[first : first + batch]), first + 1, FILE],
                user="crm_app",
            )
        assert crm.rows(REFUSED, user="auditor_login") == [(n, n, missing) for n in sorted(still)]
        assert crm.rows("select last_row, taken, refused from gdpr.import", user="crm_app") == [
            (12, 12 - len(still), len(still))
        ]
    assert sorted(row[0] for row in customers(crm)) == sorted(f"R{n}" for n in range(1, 13))
    assert (
        crm.rows(
            "select sum((old ->> 'taken')::integer), sum((old ->> 'retried')::integer)"
            " from gdpr.audit_log where operation = 'IMPORT'",
            user="auditor_login",
        )[0][0]
        == 12
    )


def test_a_file_that_is_wrong_as_a_whole_is_one_note(crm: Database) -> None:
    rows = [{"email": f"w{n}@new.example", "birth_date": "secret"} for n in range(500)]
    assert len(take(crm, rows, skip=True, file=FILE)) == 500
    assert crm.rows(
        "select first_row, last_row, first_line, problem from gdpr_internal.import_refusal",
        user="postgres",
    ) == [(1, 500, 1, "SQLSTATE 22007, column birth_date")]


def test_what_is_kept_of_a_refused_line_has_no_value(crm: Database) -> None:
    take(crm, BAD, skip=True, file=FILE)
    kept = crm.rows("select line, problem from gdpr.import_refusal order by 1", user="dpo_login")
    assert kept == PROBLEMS
    stored = crm.rows("select r::text from gdpr_internal.import_refusal as r", user="postgres")
    assert not any(word in text for (text,) in stored for word in ("@", "secret", "ssss"))
    # a role that may not bring rows in learns nothing of those who were not
    crm.rows("revoke insert on crm.customer from crm_app")
    assert crm.rows("select * from gdpr.import_refusal", user="crm_app") == []
    with refused("42501"):
        crm.rows("select * from gdpr.import_refusal", user="metabase")


def test_an_erased_person_does_not_come_back_by_a_retry(crm: Database) -> None:
    """And the note says no more of them than of any other duplicate."""
    rows = [{"email": "anna@example.com", "last_name": "Ahrens"}, {"email": "bela@example.com"}]
    take(crm, rows, skip=True, file=FILE)
    before = crm.rows(REFUSED, user="auditor_login")
    crm.rows("select gdpr.erase(gdpr.subject_of('crm.customer', '1'), 'asked')", user="dpo_login")
    again = crm.rows(RETRY, ["crm.customer", json.dumps(rows), 1, FILE], user="crm_app")
    assert again[0] == (1, "SQLSTATE 23505, constraint customer_email_key")
    assert crm.rows(REFUSED, user="auditor_login") == before
    assert customers(crm) == []


def test_notes_of_long_ago_go_and_their_number_stays(crm: Database) -> None:
    take(crm, BAD, skip=True, file=FILE)
    tidy = "select tidied from gdpr.tidy() where what = 'imports'"
    assert crm.rows(tidy) == [(0,)]
    crm.rows(
        "update gdpr_internal.import_refusal set noted_at = noted_at - interval '6 months 1 day'"
        " where first_row < 4",
        user="postgres",
    )
    assert crm.rows(tidy) == [(2,)]
    assert [n for n, *_ in crm.rows(REFUSED, user="crm_app")] == [4, 5]
    assert crm.rows("select refused from gdpr.import", user="crm_app") == [(4,)]


def test_two_who_retry_at_once_take_a_line_once(crm: Database) -> None:
    bad = [{"customer_id": 4711, "total": 1}]
    take(crm, bad, table="crm.order", skip=True, file=FILE)
    good = json.dumps([{"customer_id": 1, "total": 77}])
    with psycopg.connect(crm.dsn("crm_app")) as one, crm.connect("crm_app") as other:
        one.execute(RETRY, ["crm.order", good, 1, FILE])
        other.execute("set lock_timeout = '200ms'")
        with refused("55P03"):
            other.execute(RETRY, ["crm.order", good, 1, FILE])
        one.commit()
        other.execute(RETRY, ["crm.order", good, 1, FILE])
    assert crm.rows('select count(*) from gdpr_clear."order" where total = 77', user="crm_app") == [
        (1,)
    ]


def test_a_file_is_not_given_again_by_mistake(crm: Database) -> None:
    call = (
        "select line from gdpr.import_rows(%s::text::regclass, %s, p_first => %s, p_file => %s,"
        " p_skip => true, p_run => %s, p_double => %s)"
    )

    def give(
        table: str, row: dict[str, object], run: int | None, double: bool, first: int = 1
    ) -> int:
        return len(
            crm.rows(call, [table, json.dumps([row]), first, FILE, run, double], user="crm_app")
        )

    order: dict[str, object] = {"customer_id": 1, "total": 77}
    for run in (0, 2, -1):
        with refused("PR004", "invalid_argument"):
            give("crm.order", order, run, True)
    assert give("crm.order", order, 1, False) == 0
    with refused("PR110", "import_doubled"):
        give("crm.order", order, 2, False)
    with refused("PR110", "import_doubled"):
        # a part of a key is none
        give("crm.order", order | {"id": None}, 2, False)
    assert give("crm.order", order, 2, True) == 0
    with refused("PR110", "import_doubled"):
        give("crm.order", order, None, False, first=2)
    for run in (1, 4):
        with refused("PR004", "invalid_argument"):
            give("crm.order", order, run, True)
    # the same number again is the same import
    assert give("crm.order", order, 2, False) == 0
    assert crm.rows('select count(*) from gdpr_clear."order" where total = 77', user="crm_app") == [
        (2,)
    ]
    # the digest of an encrypted column is a key
    person = people("Uni")[0]
    assert give("crm.customer", person, None, False) == 0
    assert give("crm.customer", person, 2, False) == 1
    with refused("PR004", "invalid_argument"):
        crm.rows("select gdpr.import_rows('crm.order', '[]', p_retry => true)", user="crm_app")


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
