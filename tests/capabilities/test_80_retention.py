"""Station 80: what is over goes, by rule, and what is held stays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.capabilities.crm import apply, problems, refused, subject
from tests.support import Clone, Database, waiting

TABLES = """
create schema shop;
create table shop.person (
  id integer primary key,
  email text not null,
  name text,
  phone text,
  born date,
  city text not null default 'Ulm',
  note text,
  entered timestamptz not null
);
create table shop.sale (
  id integer primary key,
  person_id integer not null references shop.person,
  sold date not null,
  total numeric not null,
  remark text
);
create table shop.visit (
  id integer generated always as identity primary key,
  person_id integer references shop.person on delete set null,
  at timestamp not null
);
grant usage on schema shop to crm_app;
grant select, insert, update, delete on all tables in schema shop to crm_app;
"""

#: Persons who entered so many years ago, with a sale and a visit at the same time.
ROWS = """
insert into shop.person (id, email, name, phone, born, note, entered)
select n, 'p' || n || '@example.com', 'Name' || n, '+49 7' || n, '1970-01-01', 'note',
  now() - n * interval '1 year' - interval '1 day'
from generate_series(1, 5) as n;
insert into shop.sale
select n, n, now() - n * interval '1 year' - interval '1 day', n * 10, 'remark'
from generate_series(1, 5) as n;
insert into shop.visit (person_id, at)
select n, now() - n * interval '1 year' - interval '1 day' from generate_series(1, 5) as n;
"""

COLUMNS: dict[str, Any] = {
    "person": {
        "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
        "name": {"category": "identity", "encrypt": True},
        "phone": {"category": "contact", "identifier": "phone", "encrypt": "searchable"},
        "born": {"category": "demographic"},
        "city": {"category": "contact"},
        "note": {"category": "other", "sensitive": True},
        "entered": {"category": "other"},
    },
    "sale": {
        "sold": {"category": "other"},
        "total": {"category": "transaction"},
        "remark": {"category": "other", "sensitive": True},
    },
    "visit": {"at": {"category": "other"}},
}


def rules(
    *, retain: dict[str, str] | None = None, erase: dict[str, str] | None = None, **tables: Any
) -> dict[str, Any]:
    """A policy for the shop.

    Args:
        retain: how long purposes retain.
        erase: the method of tables.
        tables: the retention rules of tables.
    """
    purposes: dict[str, Any] = {
        "orders": {"basis": "contract"},
        "books": {"basis": "legal_obligation"},
    }
    for purpose, period in (retain or {}).items():
        purposes[purpose]["retain"] = period
    made: dict[str, Any] = {}
    for table, columns in COLUMNS.items():
        made[f"shop.{table}"] = {
            "subject": "self" if table == "person" else {"via": "person_id"},
            "purposes": ["orders", "books"] if table == "sale" else ["orders"],
            "erase": (erase or {}).get(table, "delete"),
            "columns": columns,
            **({"retain": tables[table]} if table in tables else {}),
        }
    return {
        "settings": {"time_zone": "Europe/Berlin"},
        "purposes": purposes,
        "roles": {"crm_app": {"audience": "clear", "purposes": ["orders", "books"]}},
        "tables": made,
    }


@pytest.fixture(scope="module")
def shop_rows(clone: Clone, installed_template: str) -> Iterator[str]:
    """Name of a database with the shop under a policy without rules."""
    with clone(installed_template) as database:
        connection = database.connect()
        connection.execute(TABLES)
        connection.execute(ROWS)
        apply(database, rules())
        database.close()
        yield database.name


@pytest.fixture
def shop(clone: Clone, shop_rows: str) -> Iterator[Database]:
    """A shop of the test's own."""
    with clone(shop_rows) as database:
        yield database


@pytest.fixture(scope="module")
def calm(clone: Clone, shop_rows: str) -> Iterator[Database]:
    """One shop for all tests that leave it as it is."""
    with clone(shop_rows) as database:
        yield database


def ids(db: Database, table: str, condition: str = "true") -> list[int]:
    """The rows of a table that are there, whoever may see them."""
    return [
        number
        for (number,) in db.rows(
            f"select id from shop.{table} where {condition} order by id", user="postgres"
        )
    ]


def run(db: Database, limit: int = 10000) -> list[tuple[str, int, int]]:
    """Run retention until it has gone through all tables."""
    done = []
    for _ in range(100):
        rows = db.rows("select * from gdpr.run_retention(%s)", [limit])
        done += [(str(table), removed, emptied) for table, removed, emptied, *_ in rows if table]
        if not rows[-1][-1]:
            return done
    raise AssertionError("it never ends")


def due(db: Database) -> dict[tuple[str, int], tuple[int, int, int]]:
    """What is due, held, referred to, by table and rule."""
    return {
        (str(table), rule): (rows, held, referred)
        for table, rule, rows, held, referred in db.rows(
            "select table_name, rule, rows_due, rows_held, rows_referred from gdpr.retention_due"
        )
    }


def test_rows_go_when_their_time_is_over(shop: Database) -> None:
    """Children too; a parent waits for them."""
    apply(
        shop,
        rules(
            sale=[{"for": "4 years", "after": "sold"}],
            person=[{"for": "2 years", "after": "entered"}],
        ),
    )
    assert due(shop) == {("shop.sale", 1): (2, 0, 0), ("shop.person", 1): (0, 0, 4)}
    assert run(shop) == [("shop.sale", 2, 0), ("shop.person", 2, 0)]
    assert ids(shop, "sale") == [1, 2, 3]
    assert ids(shop, "person") == [1, 2, 3]
    assert ids(shop, "visit", "person_id is null") == [4, 5]
    assert run(shop) == []


def test_names_ten_years_the_rest_two(shop: Database) -> None:
    """Columns are emptied when their rule is due, the row goes when all are."""
    shop.rows("alter table shop.person alter email drop not null")
    names = {"columns": ["name", "born"], "for": "4 years", "after": "entered"}
    rest = {"for": "2 years", "after": "entered"}
    apply(shop, rules(erase={"person": "anonymise"}, person=[names, rest]))
    assert due(shop) == {("shop.person", 1): (2, 0, 0), ("shop.person", 2): (4, 0, 0)}
    assert run(shop) == [("shop.person", 2, 2)]
    seen = shop.rows(
        "select id, name, email, phone, city, note from gdpr_clear.person order by id",
        user="dpo_login",
    )
    assert seen[1][:4] == (2, "Name2", None, None)
    assert seen[2] == (3, "Name3", None, None, "erased", None)
    assert seen[0] == (1, "Name1", "p1@example.com", "+49 71", "Ulm", "note")
    assert ids(shop, "person", "gdpr_subject_id is null") == [4, 5]
    assert ids(shop, "person", "gdpr_email_digest is null") == [2, 3, 4, 5]
    assert run(shop) == []
    assert due(shop) == {}


def test_columns_alone_never_end_the_row(shop: Database) -> None:
    apply(shop, rules(person=[{"columns": ["phone"], "for": "6 months", "after": "entered"}]))
    assert run(shop) == [("shop.person", 0, 5)]
    assert ids(shop, "person", "phone is null") == [1, 2, 3, 4, 5]
    assert run(shop) == []


@pytest.mark.parametrize("by_purpose", [False, True])
def test_after_the_end_of_the_last_basis(shop: Database, by_purpose: bool) -> None:
    """A rule of the table, or what its purposes say."""
    if by_purpose:
        apply(shop, rules(retain={"orders": "1 year", "books": "2 years"}))
    else:
        rule = {"for": "1 year", "after": "last_basis"}
        books = {"for": "2 years", "after": "last_basis", "purpose": "books"}
        apply(shop, rules(person=[rule], sale=[books], visit=[rule]))
    who = person(shop, 1)
    end(shop, who, "orders", ago="1 year 1 day")
    # the sale is for the books as well, whose basis goes on; it keeps the person
    assert due(shop) == {("shop.person", 1): (0, 0, 1), ("shop.visit", 1): (1, 0, 0)}
    end(shop, who, "books", ago="1 year 1 day")
    assert run(shop) == [("shop.visit", 1, 0)]
    end(shop, who, "books", ago="1 year")
    assert run(shop) == [("shop.sale", 1, 0), ("shop.person", 1, 0)]
    assert ids(shop, "person") == ids(shop, "sale") == ids(shop, "visit") == [2, 3, 4, 5]


def test_a_basis_that_comes_back_begins_anew(shop: Database) -> None:
    apply(shop, rules(visit=[{"for": "1 year", "after": "last_basis"}]))
    who = person(shop, 1)
    end(shop, who, "orders", ago="2 years")
    basis = "select gdpr.record_basis(%s, 'orders', 'contract', 'new order')"
    shop.rows(basis, [who], user="dpo_login")
    assert due(shop) == {}


def test_an_objection_that_was_taken_back_ends_nothing(shop: Database) -> None:
    """The basis that went on meanwhile is still the last one."""
    apply(shop, rules(visit=[{"for": "1 ms", "after": "last_basis"}]))
    who = person(shop, 1)
    shop.rows("select gdpr.object_to(%s, 'orders')", [who], user="dpo_login")
    assert due(shop) == {("shop.visit", 1): (1, 0, 0)}
    back = "select gdpr.decide_objection(%s, 'orders', 'taken_back', null, %s)"
    shop.rows(back, [who, '{"by": "phone"}'], user="dpo_login")
    # a gate past its instant: the evidence is what is asked
    shop.rows("alter table shop.visit disable trigger all", user="postgres")
    shop.rows("update shop.visit set gdpr_until = '-infinity'", user="postgres")
    assert due(shop) == {}


def test_a_table_with_a_purpose_that_says_nothing_keeps_its_rows(shop: Database) -> None:
    apply(shop, rules(retain={"orders": "1 day"}))
    who = person(shop, 1)
    end(shop, who, "orders", ago="1 year")
    end(shop, who, "books", ago="1 year")
    assert due(shop).keys() == {("shop.person", 1), ("shop.visit", 1)}


SALES: dict[str, Any] = {"sale": [{"for": "1 year", "after": "sold"}]}


@pytest.mark.parametrize(
    ("hold", "stay"),
    [
        ("%s, 'legal_claims', 'x'", [3]),
        ("%s, 'legal_claims', 'x', 'shop.sale'", [3]),
        ("%s, 'legal_claims', 'x', 'shop.sale', '3'", [3]),
        ("%s, 'legal_claims', 'x', 'shop.sale', '3', '{remark}'", [3]),
        ("%s, 'legal_claims', 'x', 'shop.visit'", []),
        ("null, 'legal_obligation', 'x' || %s, 'shop.sale'", [1, 2, 3, 4, 5]),
    ],
)
def test_holds_win(shop: Database, hold: str, stay: list[int]) -> None:
    """Until they are released."""
    apply(shop, rules(**SALES))
    ((number,),) = shop.rows(f"select gdpr.place_hold({hold})", [person(shop, 3)], user="dpo_login")
    assert due(shop) == {("shop.sale", 1): (5 - len(stay), len(stay), 0)}
    run(shop)
    assert ids(shop, "sale") == stay
    shop.rows("select gdpr.release_hold(%s, 'over')", [number], user="dpo_login")
    run(shop)
    assert ids(shop, "sale") == []


def test_a_hold_on_a_column_lets_the_others_be_emptied(shop: Database) -> None:
    six = {"for": "6 months", "after": "entered"}
    apply(shop, rules(person=[{"columns": ["phone"], **six}, {"columns": ["name"], **six}]))
    shop.rows(
        "select gdpr.place_hold(%s, 'legal_claims', 'x', 'shop.person', null, '{phone}')",
        [person(shop, 1)],
        user="dpo_login",
    )
    assert due(shop) == {("shop.person", 1): (4, 1, 0), ("shop.person", 2): (5, 0, 0)}
    assert run(shop) == [("shop.person", 0, 5)]
    assert ids(shop, "person", "phone is not null") == [1]
    assert ids(shop, "person", "name is not null") == []


def test_restricted_data_are_stored(shop: Database) -> None:
    """Art. 18(2): who asked for restriction asked for that, and not for deletion."""
    apply(shop, rules(**SALES))
    who = person(shop, 2)
    shop.rows("select gdpr.restrict(%s, 'unlawful_processing')", [who], user="dpo_login")
    assert due(shop) == {("shop.sale", 1): (4, 1, 0)}
    run(shop)
    assert ids(shop, "sale") == [2]


def test_a_run_goes_on_where_the_last_stopped(shop: Database) -> None:
    apply(shop, rules(**SALES, visit=[{"for": "1 year", "after": "at"}]))
    steps = []
    for _ in range(20):
        rows = shop.rows("select * from gdpr.run_retention(2)")
        steps.append([(str(table), gone) for table, gone, *_ in rows if table])
        if not rows[-1][-1]:
            break
    assert [sum(gone for _, gone in step) for step in steps[:5]] == [2, 2, 2, 2, 2]
    assert sum(gone for step in steps for _, gone in step) == 10
    assert ids(shop, "sale") == ids(shop, "visit") == []


def test_two_runs_at_once_do_it_once(shop: Database) -> None:
    apply(shop, rules(**SALES))
    one, two = shop.connect(autocommit=False), shop.connect(autocommit=False)
    one.execute("select count(*) from gdpr.run_retention()")
    end_of_wait = waiting(two, lambda: two.execute("select * from gdpr.run_retention()"))
    one.commit()
    assert end_of_wait() is None
    assert ids(shop, "sale") == []


def test_who_is_decided_about_at_this_moment_is_kept(shop: Database) -> None:
    """The officer has decided and not committed when retention comes by. Nothing of these persons
    is open any more: restricting one changes no row on which the two could meet."""
    apply(shop, rules(visit=[{"for": "1 year", "after": "last_basis"}]))
    for key, purpose in itertools.product((1, 2, 3), ("orders", "books")):
        end(shop, person(shop, key), purpose, ago="2 years")
    officer = shop.connect("dpo_login", autocommit=False)
    officer.execute("select gdpr.restrict(%s, 'legal_claims')", [person(shop, 1)])
    officer.execute(
        "select gdpr.record_basis(%s, 'orders', 'contract', 'a new order')", [person(shop, 2)]
    )
    clerk = shop.connect()
    ended = waiting(clerk, lambda: clerk.execute("select * from gdpr.run_retention()"))
    officer.commit()
    assert ended() is None
    assert run(shop) == []
    assert ids(shop, "visit", "person_id <= 3") == [1, 2]


def test_who_decides_while_retention_runs_waits_for_it(shop: Database) -> None:
    """And restricts what is left: rows that were due are gone, not half of them."""
    apply(shop, rules(**SALES))
    clerk = shop.connect(autocommit=False)
    clerk.execute("select count(*) from gdpr.run_retention()")
    officer = shop.connect("dpo_login")
    call = "select gdpr.restrict(%s, 'legal_claims')"
    ended = waiting(officer, lambda: officer.execute(call, [person(shop, 1)]))
    assert shop.rows("select count(*) from gdpr.restriction") == [(0,)]
    clerk.commit()
    assert ended() is None
    assert ids(shop, "sale") == []


def test_the_trail_says_that_and_not_what(shop: Database) -> None:
    apply(shop, rules(**SALES, person=[{"columns": ["phone"], "for": "1 day", "after": "entered"}]))
    run(shop)
    log = "select operation, old from gdpr.audit_log where operation in ('DELETE', 'UPDATE')"
    kept = shop.rows(log, user="dpo_login")
    assert sorted({operation for operation, _ in kept}) == ["DELETE", "UPDATE"]
    assert [old for _, old in kept if old is not None] == []
    told = "select old from gdpr.audit_log where operation = 'RETAIN' order by id"
    assert shop.rows(told) == [
        ({"table": "shop.sale", "removed": 5, "emptied": 0},),
        ({"table": "shop.person", "removed": 0, "emptied": 5},),
    ]


@pytest.mark.parametrize(
    ("table", "after"), [("sale", "sold"), ("visit", "at"), ("person", "entered")]
)
def test_a_row_is_hidden_when_its_time_comes_and_no_job_has_run(
    shop: Database, table: str, after: str
) -> None:
    """But for compliance, which has to see what is held."""
    named: dict[str, Any] = {table: [{"for": "3 years", "after": after}]}
    apply(shop, rules(**named))
    seen = f"select array_agg(id order by id) from gdpr_clear.{table}"
    assert shop.rows(seen, user="crm_app") == [([1, 2],)]
    assert shop.rows(seen, user="dpo_login") == [([1, 2, 3, 4, 5],)]
    assert shop.rows(f"delete from shop.{table} where id = 5 returning id", user="crm_app") == []
    # nor can a row be made one that nobody may see
    with refused("42501"):
        shop.rows(f"update shop.{table} set {after} = '2001-01-01' where id = 2", user="crm_app")


def test_names_keep_the_row_in_sight(shop: Database) -> None:
    shop.rows("alter table shop.person alter email drop not null")
    names = {"columns": ["name", "born"], "for": "4 years", "after": "entered"}
    apply(shop, rules(person=[names, {"for": "2 years", "after": "entered"}]))
    seen = "select array_agg(id order by id) from gdpr_clear.person"
    assert shop.rows(seen, user="crm_app") == [([1, 2, 3],)]


def test_tables_that_are_only_observed_are_counted(shop: Database) -> None:
    new = rules(**SALES)
    new["tables"]["shop.sale"]["mode"] = "observe"
    apply(shop, new)
    assert due(shop) == {("shop.sale", 1): (5, 0, 0)}
    assert run(shop) == []


def test_a_table_that_nobody_declared_stands_in_the_way(shop: Database) -> None:
    """Of the policy; and one that came later, of the run: with no value in the error."""
    apply(shop, rules(**SALES))
    later = "create table shop.later (sale_id integer references shop.sale)"
    shop.rows(f"{later}; insert into shop.later values (4)")
    with refused("PR802", "row_referenced") as error:
        run(shop)
    assert error.value.diag.message_detail == ("table shop.later, constraint later_sale_id_fkey")
    (problem,) = problems(shop, rules(sale=[{"for": "2 years", "after": "sold"}]))
    assert "shop.later refers to, which is not protected" in problem


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ([], "retain: a list of rules"),
        ({"for": "1 year"}, "retain: a list of rules"),
        ([{"after": "entered"}], "for: how long"),
        ([{"for": "soon", "after": "entered"}], "not a duration"),
        ([{"for": "1 year"}], "after: a date or timestamp column"),
        ([{"for": "1 year", "after": "name"}], "after: a date or timestamp column"),
        ([{"for": "1 year", "after": "entered", "purpose": "orders"}], "purpose: one of"),
        ([{"for": "1 year", "after": "last_basis", "purpose": "books"}], "purpose: one of"),
        ([{"for": "1 year", "after": "entered", "columns": ["id"]}], "no part of a key"),
        ([{"for": "1 year", "after": "entered", "columns": ["email"]}], "cannot be emptied"),
        ([{"for": "1 year", "after": "entered", "columns": []}], "columns: at least one"),
        ([{"for": "1 year", "after": "entered", "when": 1}], "unknown setting"),
        ([{"for": "1 year", "after": "entered"}] * 2, "one rule without columns"),
        ([{"for": "1 year", "after": "entered", "columns": ["born"]}] * 2, "named by one rule"),
        ([{"for": "1 year", "after": "entered", "columns": ["entered"]}], "count from stays"),
        (
            [
                {"for": "1 year", "after": "entered"},
                {"for": "2 years", "after": "entered", "columns": ["name"]},
            ],
            '"email" cannot be emptied before the row goes',
        ),
    ],
)
def test_rules_that_make_no_sense_are_refused(calm: Database, rule: Any, problem: str) -> None:
    assert any(problem in found for found in problems(calm, rules(person=rule)))


@pytest.mark.parametrize("user", ["crm_app", "dpo_login", "auditor_login"])
def test_running_it_is_the_administrators(calm: Database, user: str) -> None:
    with refused("42501"):
        calm.rows("select gdpr.run_retention()", user=user)
    if user != "crm_app":
        assert calm.rows("select * from gdpr.retention_plan()", user=user) == []


def person(db: Database, key: int) -> int:
    """The number of the person of a row."""
    return subject(db, "shop.person", key)


def end(db: Database, who: int, purpose: str, *, ago: str) -> None:
    """Let a person's bases for a purpose have ended; said again, so much earlier."""
    db.rows(
        "select gdpr.end_bases(array_agg(basis_id), 'cancelled') from gdpr.basis"
        " where subject_id = %s and purpose = %s and status = 'holds' having count(*) > 0",
        [who, purpose],
        user="dpo_login",
    )
    connection = db.connect("postgres")
    connection.execute("alter table gdpr_internal.basis_end disable trigger all")
    connection.execute(
        "update gdpr_internal.basis_end as e set ended_at = e.ended_at - %s::interval"
        " from gdpr_internal.basis_record as b, gdpr_internal.purpose as p"
        " where b.id = e.basis_id and b.subject_id = %s and p.id = b.purpose_id and p.name = %s",
        [ago, who, purpose],
    )


def test_nobody_without_a_basis_is_forgotten_by_himself(shop: Database) -> None:
    """The officer is shown whom nothing speaks for; what she approves, retention carries out."""
    apply(shop, rules(retain={"books": "2 years"}))
    one, two = person(shop, 1), person(shop, 2)
    for who, ago in ((one, "2 years 1 day"), (two, "1 year")):
        end(shop, who, "orders", ago="3 years")
        end(shop, who, "books", ago=ago)
    proposals = "select subject_id from gdpr.erasure_proposals()"
    assert shop.rows(proposals, user="dpo_login") == [(one,)]
    assert run(shop) == []
    with refused("PR804", "not_proposed"):
        shop.rows("select gdpr.approve_erasures(array[%s, %s])", [one, two], user="dpo_login")
    ((batch,),) = shop.rows("select gdpr.approve_erasures()", user="dpo_login")
    assert shop.rows(proposals, user="dpo_login") == []
    run(shop)
    state = "select erased, remaining, reason from gdpr.erasure_batch where batch_id = %s"
    assert shop.rows(state, [batch]) == [(1, 0, "no lawful basis left")]
    assert ids(shop, "person") == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "keep",
    [
        "gdpr.place_hold(%s, 'legal_claims', 'x')",
        "gdpr.restrict(%s, 'legal_claims')",
        "gdpr.record_basis(%s, 'books', 'legal_obligation', 'audit')",
        "gdpr.open_erasure_batch(array[%s::bigint], 'asked')",
    ],
)
def test_who_is_not_proposed(shop: Database, keep: str) -> None:
    one = person(shop, 1)
    for purpose in ("orders", "books"):
        end(shop, one, purpose, ago="1 day")
    proposals = "select subject_id from gdpr.erasure_proposals()"
    assert shop.rows(proposals, user="dpo_login") == [(one,)]
    shop.rows(f"select {keep}", [one], user="dpo_login")
    assert shop.rows(proposals, user="dpo_login") == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "gdpr.restrict(%s, 'legal_claims')",
            "gdpr.record_basis(%s, 'books', 'legal_obligation', 'audit')",
        ),
        ("gdpr.place_hold(%s, 'legal_claims', 'x')", "%s"),
    ],
)
def test_who_came_back_after_the_approval_is_not_erased(
    shop: Database, one: str, other: str
) -> None:
    """The officer approved three; some of them are decided about, in another session, when their
    turn comes. Afterwards they can be proposed again."""
    persons = [person(shop, key) for key in (1, 2, 3)]
    for who, purpose in itertools.product(persons, ("orders", "books")):
        end(shop, who, purpose, ago="1 day")
    ((batch,),) = shop.rows("select gdpr.approve_erasures()", user="dpo_login")
    officer = shop.connect("dpo_login", autocommit=False)
    officer.execute(f"select {one}".encode(), [persons[0]])
    officer.execute(f"select {other}".encode(), [persons[1]])
    clerk = shop.connect()
    ended = waiting(clerk, lambda: clerk.execute("select * from gdpr.run_retention()"))
    officer.commit()
    assert ended() is None
    left = persons[:1] if other == "%s" else persons[:2]
    state = "select persons, erased, failed, remaining from gdpr.erasure_batch where batch_id = %s"
    assert shop.rows(state, [batch]) == [(3 - len(left), 3 - len(left), 0, 0)]
    assert ids(shop, "person") == [*range(1, 1 + len(left)), 4, 5]
    ((told,),) = shop.rows(
        "select old from gdpr.audit_log where operation = 'BATCH' order by id desc limit 1",
        user="auditor_login",
    )
    assert told == {"batch": batch, "left_out": left}
