"""Station 60: rectification, proposed, approved, carried out in all tables that hold the value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import (
    POLICY,
    apply,
    findings,
    one_table,
    policy,
    problems,
    refused,
    subject,
)
from tests.support import Clone, Database

Change = dict[str, Any]

#: Orders have the city they went to, and a mail address, as the customer had them.
COPIES = policy(
    **{
        "tables__crm.order__columns__ship_city": {
            "category": "contact",
            "same_as": "crm.customer.city",
        },
        "tables__crm.order__columns__mail": {
            "category": "contact",
            "encrypt": True,
            "same_as": "crm.customer.email",
        },
    }
)


@pytest.fixture(scope="module")
def shared(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The application under its policy, once for all tests that are refused."""
    with clone(crm_template) as database:
        yield database


@pytest.fixture(scope="module")
def copies_template(clone: Clone, shop_template: str) -> Iterator[str]:
    """Name of a database in which orders hold copies of what the customer table holds."""
    with clone(shop_template) as database:
        database.rows('alter table crm."order" add ship_city varchar(40), add mail varchar(120)')
        database.rows(
            "update crm.\"order\" as o set ship_city = case o.id when 2 then 'Berlin' else c.city end,"
            " mail = case o.id when 2 then 'ANNA@Example.com' else c.email end"
            " from crm.customer as c where c.id = o.customer_id"
        )
        apply(database, COPIES)
        database.close()
        yield database.name


@pytest.fixture
def copies(clone: Clone, copies_template: str) -> Iterator[Database]:
    """A copy of `copies_template`."""
    with clone(copies_template) as database:
        yield database


def change(
    key: object, column: str, value: object, table: str = "crm.customer", **more: object
) -> Change:
    """One change of a list."""
    return {"table": table, "key": str(key), "column": column, "value": value, **more}


def rectify(db: Database, person: int, *changes: Change, user: str = "dpo_login") -> int | None:
    """The officer's one call; the number of its record."""
    ((record,),) = db.rows(
        "select gdpr.rectify(%s, %s, 'letter of today')", [person, json.dumps(changes)], user=user
    )
    assert record is None or isinstance(record, int)
    return record


def propose(db: Database, person: int, *changes: Change, user: str = "db_owner") -> int:
    """A proposal by staff; its number."""
    ((number,),) = db.rows(
        "select gdpr.propose_rectification(%s, %s, 'her passport says so')",
        [person, json.dumps(changes)],
        user=user,
    )
    assert isinstance(number, int)
    return number


def customers(db: Database) -> list[tuple[Any, ...]]:
    """All customers in plaintext."""
    return db.rows(
        "select id, email, phone, last_name, birth_date::text, city from gdpr_clear.customer order by id",
        user="crm_app",
    )


@contextmanager
def lines(*expected: str) -> Iterator[None]:
    """The block is refused as PR630 with these lines."""
    with refused("PR630", "rectification_refused") as error:
        yield
    assert (error.value.diag.message_detail or "").splitlines() == list(expected)


# ---------------------------------------------------------------- carrying out


def test_values_change_with_all_that_depends_on_them(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    before = customers(crm)
    record = rectify(
        crm,
        anna,
        change(1, "email", "Anna.New@example.com"),
        change(1, "birth_date", "1980-2-1"),
        change(1, "city", None),
        change(1, "note", "gift for Eda", "crm.order"),
        change('["1", "1"]', "engraving", "Forever, Eda", "crm.order_line"),
        change(1, "score", 8, "crm.lead"),
    )
    assert customers(crm) == [
        (1, "Anna.New@example.com", "+49 711 1001", "Ahrens", "1980-02-01", None),
        *before[1:],
    ]
    assert crm.rows('select note from gdpr_clear."order" order by id', user="crm_app") == [
        ("gift for Eda",),
        ("call first",),
        ("ring twice",),
        (None,),
    ]
    assert crm.rows(
        "select engraving from gdpr_clear.order_line where order_id = 1", user="crm_app"
    ) == [("Forever, Eda",)]
    # digest, identifier, mask and audit follow by the table's own triggers
    assert crm.rows(
        "select gdpr.find_subject('email', 'anna.new@example.com'),"
        " (select email_digest from gdpr_clear.customer where id = 1) = gdpr.digest('email', 'anna.new@example.com')",
        user="dpo_login",
    ) == [(anna, True)]
    assert crm.rows(
        "select email, birth_date::text from gdpr_bi.customer where id = 1", user="metabase"
    ) == [("A***@***.com", "1980-01-01")]
    ((columns, content, reason, by),) = crm.rows(
        "select columns, content, reason, recorded_by from gdpr.rectification_log where record_id = %s",
        [record],
        user="dpo_login",
    )
    assert set(columns) == {
        "crm.customer.email",
        "crm.customer.birth_date",
        "crm.customer.city",
        'crm."order".note',
        "crm.order_line.engraving",
        "crm.lead.score",
    }
    assert {(v["column"], v["value"]) for v in content["values"]} >= {
        ("city", None),
        ("score", "8"),
    }
    assert (reason, by) == ("letter of today", "dpo_login")
    assert crm.rows(
        "select old from gdpr.audit_log where operation = 'UPDATE' and table_name = 'crm.customer'::regclass"
        " and subject_id = %s",
        [anna],
        user="dpo_login",
    ) == [({"email": "anna@example.com", "birth_date": "1980-01-02", "city": "Aalen"},)]
    assert crm.rows(
        "select old from gdpr.audit_log where operation = 'RECTIFY'", user="auditor_login"
    ) == [({"rectification_record": record},)]
    assert findings(crm) - {("statistics", "crm.customer")} == set()


def test_what_is_so_already_is_not_written(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    assert (
        rectify(
            crm, anna, change(1, "email", "anna@example.com"), change(1, "birth_date", "1980-1-2")
        )
        is None
    )
    assert crm.rows(
        "select count(*) from gdpr.audit_log where operation in ('UPDATE', 'RECTIFY')"
    ) == [(0,)]


def test_a_person_under_restriction_is_corrected_and_stays_restricted(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    crm.rows("select gdpr.restrict(%s, 'accuracy_contested')", [anna], user="dpo_login")
    assert rectify(crm, anna, change(1, "last_name", "Arens")) is not None
    assert crm.rows("select last_name from gdpr_clear.customer where id = 1", user="dpo_login") == [
        ("Arens",)
    ]
    assert [row[0] for row in customers(crm)] == [2, 3]


def test_null_and_nothing_are_two_values(crm: Database) -> None:
    chie = subject(crm, "crm.customer", 3)
    rectify(crm, chie, change(4, "note", "", "crm.order"), change(3, "city", ""))
    assert crm.rows('select note from gdpr_clear."order" where id = 4', user="crm_app") == [("",)]
    rectify(crm, chie, change(4, "note", None, "crm.order"))
    assert crm.rows('select note from gdpr_clear."order" where id = 4', user="crm_app") == [(None,)]
    assert customers(crm)[2][5] == ""


def test_an_incomplete_datum_is_completed_by_a_statement(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    rectify(
        crm,
        anna,
        {
            "table": "crm.customer",
            "key": "1",
            "column": "city",
            "statement": "Since May in Ulm, too.",
        },
        {"statement": "The claim of 2019 was settled."},
    )
    assert crm.rows(
        "select subject_id, table_name, row_key, column_name, statement from gdpr.supplementary_statement"
        " order by column_name",
        user="dpo_login",
    ) == [
        (anna, "crm.customer", "1", "city", "Since May in Ulm, too."),
        (anna, None, None, None, "The claim of 2019 was settled."),
    ]
    assert customers(crm)[0][5] == "Aalen"


# ---------------------------------------------------------------- copies of a value


def test_a_correction_reaches_the_copies_that_held_the_old_value(copies: Database) -> None:
    anna = subject(copies, "crm.customer", 1)
    rectify(copies, anna, change(1, "city", "Ahlen"), change(1, "email", "anna@new.example"))
    ask = 'select id, ship_city, mail from gdpr_clear."order" order by id'
    assert copies.rows(ask, user="crm_app") == [
        # the same address, written otherwise, is the same; another city is another fact
        (1, "Ahlen", "anna@new.example"),
        (2, "Berlin", "anna@new.example"),
        (3, "Bonn", "bela@example.com"),
        (4, "Celle", "chie@example.com"),
    ]
    rectify(copies, anna, change(1, "ship_city", "Aalen", "crm.order"))
    assert copies.rows("select city from gdpr_clear.customer where id = 1", user="crm_app") == [
        ("Aalen",)
    ]
    assert copies.rows(
        "select subject_id, columns from gdpr.rectification_log order by record_id",
        user="auditor_login",
    ) == [
        (
            anna,
            [
                'crm."order".mail',
                'crm."order".ship_city',
                "crm.customer.city",
                "crm.customer.email",
            ],
        ),
        (anna, ['crm."order".ship_city', "crm.customer.city"]),
    ]


def test_a_copy_that_is_corrected_itself_takes_its_own_value(copies: Database) -> None:
    anna = subject(copies, "crm.customer", 1)
    rectify(copies, anna, change(1, "city", "Ahlen"), change(1, "ship_city", "Ulm", "crm.order"))
    assert copies.rows(
        'select c.city, o.ship_city from gdpr_clear."order" as o join gdpr_clear.customer as c'
        " on c.id = o.customer_id where o.id = 1",
        user="crm_app",
    ) == [("Ahlen", "Ulm")]


def test_an_empty_value_has_no_copies(copies: Database) -> None:
    anna = subject(copies, "crm.customer", 1)
    copies.rows("update gdpr_clear.customer set city = null where id = 1", user="crm_app")
    copies.rows('update gdpr_clear."order" set ship_city = null where id = 1', user="crm_app")
    rectify(copies, anna, change(1, "city", "Ahlen"))
    assert copies.rows(
        'select ship_city from gdpr_clear."order" where id in (1, 2) order by id', user="crm_app"
    ) == [(None,), ("Berlin",)]


@pytest.mark.parametrize(
    ("place", "same_as", "words"),
    [
        ("crm.order__columns__note", "crm.customer.nothing", "no column that this policy declares"),
        ("crm.order__columns__note", "nothing", "no column that this policy declares"),
        ("crm.order__columns__note", "crm.order.note", "is the column itself"),
        (
            "crm.order__columns__note",
            "crm.customer.email",
            "is character varying(120), this column is text",
        ),
        ("crm.order__columns__note", "crm.order_line.engraving", "is a copy itself"),
    ],
)
def test_links_that_cannot_be_meant_are_refused(
    shared: Database, place: str, same_as: str, words: str
) -> None:
    new = policy(
        **{
            f"tables__{place}__same_as": same_as,
            "tables__crm.order_line__columns__engraving__same_as": "crm.customer.last_name",
        }
    )
    (problem,) = problems(shared, new)
    assert 'columns."note".same_as: ' in problem
    assert words in problem


def test_rows_of_persons_who_never_meet_cannot_be_linked(shared: Database) -> None:
    new = policy(
        **{
            "tables__crm.lead__match_on": [],
            "tables__crm.lead__columns__full_name__same_as": "crm.customer.last_name",
        }
    )
    assert problems(shared, new) == [
        'tables."crm.lead".columns."full_name".same_as: rows of crm.customer are never of the same person'
    ]


def test_a_link_is_shown_and_stays_in_the_policy(copies: Database) -> None:
    assert copies.rows(
        "select column_name, same_as from gdpr.protected_column where same_as is not null order by 1",
        user="dpo_login",
    ) == [("mail", "crm.customer.email"), ("ship_city", "crm.customer.city")]
    assert apply(copies, COPIES) == []


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (change(2, "city", "Ulm"), "has the key of no row of this person"),
        (change(99, "city", "Ulm"), "has the key of no row of this person"),
        (change("one", "city", "Ulm"), "has the key of no row of this person"),
        (change("", "city", "Ulm"), "needs a table, the primary key of a row and a column"),
        (change(1, "id", 7), "column id is generated"),
        (change(1, "customer_id", 2, "crm.order"), "column customer_id is part of a foreign key"),
        (change(1, "gdpr_subject_id", 2), "column gdpr_subject_id is kept by the database"),
        (change(1, "gdpr_until", "infinity"), "column gdpr_until is kept by the database"),
        (change(1, "gdpr_email_digest", None), "column gdpr_email_digest is kept by the database"),
        (change('["1", "1"]', "n", 2, "crm.order_line"), "column n is part of the primary key"),
        (change(1, "colour", "red"), "names a column that the table does not have"),
        (change(1, "city", "Ulm", "crm.nothing"), "names a table that is not protected"),
        (change(1, "birth_date", "1980-13-01"), "has a value that the column cannot hold"),
        (change(1, "birth_date", "01/02/1980"), "has a value that the column cannot hold"),
        (change(1, "city", "x" * 41), "has a value that the column cannot hold"),
        (change(1, "email", "x" * 121), "has a value that the column cannot hold"),
        (change(1, "total", "much", "crm.order"), "has a value that the column cannot hold"),
        (change(1, "last_name", None), "leaves a column empty that may not be"),
        (change(1, "city", "Ulm", was="Bonn"), "was changed meanwhile"),
        (change(1, "city", "Ulm", statement="x"), "needs either a value or a statement"),
        (
            change(1, "city", "Ulm", why="x"),
            "has other settings than table, key, column, value, was, statement",
        ),
        ({"statement": " "}, "needs words in its statement"),
        (
            {"table": "crm.customer", "statement": "x"},
            "needs a table, the primary key of a row and a column",
        ),
    ],
)
def test_a_change_that_cannot_be_is_named_and_nothing_done(
    shared: Database, one: Change, line: str
) -> None:
    anna = subject(shared, "crm.customer", 1)
    before = customers(shared)
    with lines(f"change 2 {line}"):
        rectify(shared, anna, change(1, "phone", None), one)
    assert customers(shared) == before


def test_a_value_named_twice_is_refused(shared: Database) -> None:
    anna = subject(shared, "crm.customer", 1)
    with lines(*(f"change {n} is about a value that the list names twice" for n in (1, 2))):
        rectify(shared, anna, change(1, "city", "Ulm"), change(" 01", "city", "Bonn"))


@pytest.mark.parametrize("changes", ["{}", "null", '"x"'])
def test_what_is_no_list_is_refused(shared: Database, changes: str) -> None:
    with refused("PR004", "invalid_argument"):
        shared.rows("select gdpr.rectify(1, %s, 'x')", [changes], user="dpo_login")


def test_an_identifier_of_another_or_a_blocked_one_is_refused(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    crm.rows("select gdpr.block('email', 'gone@example.com', 'asked')", user="dpo_login")
    for address, problem in (
        ("BELA@example.com", "has an identifier of another person"),
        ("gone@example.com", "has an identifier that is blocked"),
        ("gone+tag@example.com", "has an identifier that is blocked"),
    ):
        for key, table in ((1, "crm.customer"), (1, "crm.lead")):
            with lines(f"change 1 {problem}"):
                rectify(crm, anna, change(key, "email", address, table))
    # many share a number
    rectify(crm, anna, change(1, "phone", "+49 711 1002"))


def test_special_categories_need_a_condition(db: Database) -> None:
    owner = db.connect()
    owner.execute("create table public.patient (id integer primary key, illness text)")
    owner.execute("insert into public.patient values (1, null)")
    table = one_table(
        "public.patient",
        columns={"illness": {"encrypt": True, "mask": "hide", "special": "health"}},
    )
    apply(db, table)
    person = subject(db, "public.patient", 1)
    asked = change(1, "illness", "asthma", "public.patient")
    with refused("PR208", "condition_missing"):
        rectify(db, person, asked)
    with refused("PR208", "condition_missing"):
        db.rows(
            "select gdpr.approve_rectification(%s)", [propose(db, person, asked)], user="dpo_login"
        )
    db.rows(
        "select gdpr.record_basis(%s, 'orders', 'contract', 'x', p_condition => 'health_care')",
        [person],
        user="dpo_login",
    )
    assert rectify(db, person, asked) is not None


def test_what_a_table_says_of_a_value_is_not_told(crm: Database) -> None:
    crm.rows("alter table crm.customer add constraint short check (length(last_name) < 10)")
    apply(crm, POLICY)
    anna = subject(crm, "crm.customer", 1)
    with refused("PR630", "rectification_refused") as error:
        rectify(crm, anna, change(1, "last_name", "Ahrens-Secretive"))
    assert error.value.diag.message_detail == "SQLSTATE 23514, constraint short"
    assert "Secretive" not in str(error.value)


def test_a_correction_waits_for_read_committed(shared: Database) -> None:
    officer = shared.connect("dpo_login", autocommit=False)
    officer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with refused("PR005", "needs_read_committed"):
        officer.execute("select gdpr.rectify(1, '[]', 'x')")


# ---------------------------------------------------------------- proposals


def test_a_proposal_waits_for_an_officer_who_did_not_make_it(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    before = customers(crm)
    number = propose(crm, anna, change(1, "last_name", "Arens"), user="dpo_login")
    assert customers(crm) == before
    officer = crm.connect("dpo_login")
    officer.execute("set role gdpr_dpo")
    with refused("PR631", "rectification_four_eyes"):
        officer.execute("select gdpr.approve_rectification(%s)", [number])
    ((record,),) = crm.rows("select gdpr.approve_rectification(%s, 'passport seen')", [number])
    assert customers(crm)[0][3] == "Arens"
    with refused("PR632", "rectification_decided"):
        crm.rows("select gdpr.approve_rectification(%s)", [number])
    with refused("PR632", "rectification_decided"):
        crm.rows("select gdpr.reject_rectification(%s, 'x')", [number])
    assert crm.rows(
        "select status, changes, reason, by_person, proposed_by, decided_by, decision_reason, record_id"
        " from gdpr.rectification",
        user="dpo_login",
    ) == [
        (
            "approved",
            [change(1, "last_name", "Arens")],
            "her passport says so",
            False,
            "dpo_login",
            "db_owner",
            "passport seen",
            record,
        )
    ]
    # auditors see that it was, not what
    assert crm.rows(
        "select status, changes, reason from gdpr.rectification", user="auditor_login"
    ) == [("approved", None, None)]


def test_a_rejected_proposal_changes_nothing(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    before = customers(crm)
    number = propose(crm, anna, change(1, "last_name", "Arens"), user="dpo_login")
    with refused("PR004", "invalid_argument"):
        crm.rows("select gdpr.reject_rectification(%s, '')", [number], user="dpo_login")
    # who made it may take it back
    crm.rows("select gdpr.reject_rectification(%s, 'a mistake')", [number], user="dpo_login")
    with refused("PR632", "rectification_decided"):
        crm.rows("select gdpr.approve_rectification(%s)", [number])
    assert customers(crm) == before
    assert crm.rows("select status from gdpr.rectification", user="dpo_login") == [("rejected",)]


def test_what_the_person_asks_for_any_officer_may_approve(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    ((number,),) = crm.rows(
        "select gdpr_internal.propose_rectification(%s, %s, 'I should know', true)",
        [anna, json.dumps([change(1, "last_name", "Arens")])],
        user="postgres",
    )
    crm.rows("select gdpr.approve_rectification(%s)", [number], user="dpo_login")
    assert customers(crm)[0][3] == "Arens"


def test_a_proposal_is_judged_when_it_is_made_and_again_when_it_is_approved(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    with lines("change 1 has the key of no row of this person"):
        propose(crm, anna, change(2, "last_name", "Arens"))
    with refused("PR004", "invalid_argument"):
        propose(crm, anna)
    number = propose(
        crm, anna, change(1, "city", "Ulm", was="Aalen"), change(1, "email", "bela@example.com")
    )
    crm.rows("update gdpr_clear.customer set city = 'Celle' where id = 1", user="crm_app")
    with lines("change 1 was changed meanwhile", "change 2 has an identifier of another person"):
        crm.rows("select gdpr.approve_rectification(%s)", [number], user="dpo_login")
    assert crm.rows("select status from gdpr.rectification", user="dpo_login") == [("proposed",)]


def test_staff_propose_by_right_of_the_policy(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    with refused("42501"):
        propose(crm, anna, change(1, "city", "Ulm"), user="crm_app")
    apply(crm, policy(roles__crm_app__may=["rectify"]))
    number = propose(crm, anna, change(1, "city", "Ulm"), user="crm_app")
    for call in (
        f"approve_rectification({number})",
        f"reject_rectification({number}, 'x')",
        "rectify(1, '[]', 'x')",
        "rectify_rows('[]', 'x')",
        "compare_rectification('[]')",
    ):
        with refused("42501"):
            crm.rows(f"select gdpr.{call}", user="crm_app")
    with refused("42501"):
        crm.rows("select * from gdpr.rectification", user="crm_app")
    crm.rows("select gdpr.approve_rectification(%s)", [number], user="dpo_login")
    assert customers(crm)[0][5] == "Ulm"
    apply(crm, POLICY)
    with refused("42501"):
        propose(crm, anna, change(1, "city", "Ulm"), user="crm_app")


def test_an_erased_person_has_nothing_to_correct(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    number = propose(crm, anna, change(1, "city", "Ulm"))
    crm.rows("select gdpr.erase(%s)", [anna], user="dpo_login")
    for call in (
        f"approve_rectification({number})",
        f"rectify({anna}, '[]', 'x')",
        f"propose_rectification({anna}, '[]')",
    ):
        with refused("PR603", "erased"):
            crm.rows(f"select gdpr.{call}", user="dpo_login" if "approve" in call else "db_owner")
    assert crm.rows("select changes, reason from gdpr.rectification", user="dpo_login") == [
        (None, None)
    ]
    with refused("PR101", "unknown_subject"):
        crm.rows("select gdpr.rectify(999, '[]', 'x')", user="dpo_login")


# ---------------------------------------------------------------- others who are told


def test_the_request_and_the_recipients_hear_of_it(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    crm.rows(
        "select gdpr.record_recipient('Carrier', 'processor', 'DE', p_contract => 'of 2027')",
        user="dpo_login",
    )
    crm.rows(
        "select gdpr.record_disclosure('Carrier', array[%s]::bigint[], 'orders', p_categories => '{contact}')",
        [anna],
        user="dpo_login",
    )
    ((request,),) = crm.rows(
        "select gdpr.open_request('rectification', %s)", [anna], user="dpo_login"
    )
    officer = crm.connect("dpo_login", autocommit=False)
    officer.execute("select gdpr.set_context(p_request => %s)", [str(request)])
    officer.execute(
        "select gdpr.rectify(%s, %s, 'letter')", [anna, json.dumps([change(1, "city", "Ulm")])]
    )
    officer.execute("select gdpr.complete_request(%s, 'fulfilled')", [request])
    officer.commit()
    assert crm.rows("select event, details, persons from gdpr.notice", user="dpo_login") == [
        ("rectification", {"columns": ["crm.customer.city"]}, 1)
    ]
    with refused("PR609"):
        officer.execute(
            "select gdpr.set_context(p_request => %s)",
            [
                str(
                    crm.rows(
                        "select gdpr.open_request('rectification', %s)", [anna], user="dpo_login"
                    )[0][0]
                )
            ],
        )
        officer.execute(
            "select gdpr.rectify(%s, %s, 'x')",
            [subject(crm, "crm.customer", 2), json.dumps([change(2, "city", "Ulm")])],
        )


# ---------------------------------------------------------------- many at once, and again


def test_rows_of_many_persons_in_one_call(crm: Database) -> None:
    changes = [
        change(key, "city", f"City {key}", was=city)
        for key, city in ((1, "Aalen"), (2, "Bonn"), (3, "Celle"))
    ]
    ask = "select change, old, new, problem from gdpr.compare_rectification(%s)"
    assert crm.rows(ask, [json.dumps(changes)], user="dpo_login") == [
        (1, "Aalen", "City 1", None),
        (2, "Bonn", "City 2", None),
        (3, "Celle", "City 3", None),
    ]
    call = "select gdpr.rectify_rows(%s, 'import of cities')"
    assert crm.rows(call, [json.dumps(changes)], user="dpo_login") == [({"persons": 3, "rows": 3},)]
    assert [row[5] for row in customers(crm)] == ["City 1", "City 2", "City 3"]
    with lines(*(f"change {n} was changed meanwhile" for n in (1, 2, 3))):
        crm.rows(call, [json.dumps(changes)], user="dpo_login")
    with lines("change 1 has the key of no row", "change 2 does not say of whom it is"):
        crm.rows(call, [json.dumps([change(9, "city", "x"), {"statement": "x"}])], user="dpo_login")
    with lines(
        *(f"change {n} has an identifier that the list gives to two persons" for n in (1, 2))
    ):
        crm.rows(
            call,
            [json.dumps([change(n, "email", "new@example.com") for n in (1, 2)])],
            user="dpo_login",
        )


def test_recorded_rectifications_can_be_carried_out_again(copies: Database) -> None:
    """As after a restore: the rows are as they were before, the records are there."""
    anna, bela = (subject(copies, "crm.customer", key) for key in (1, 2))
    records = [
        rectify(copies, anna, change(1, "city", "Ahlen")),
        rectify(copies, anna, change(1, "city", "Aalen an der Kocher"), change(1, "phone", None)),
        rectify(copies, bela, change(2, "birth_date", "1981-02-04")),
    ]
    state = 'select city, ship_city, phone, birth_date from gdpr_clear.customer as c join gdpr_clear."order" as o on o.customer_id = c.id order by o.id'
    after = copies.rows(state, user="crm_app")
    app = copies.connect("crm_app")
    app.execute(
        "update gdpr_clear.customer set city = 'Aalen', phone = '+49 711 1001' where id = 1"
    )
    app.execute("update gdpr_clear.\"order\" set ship_city = 'Aalen' where id = 1")
    app.execute("update gdpr_clear.customer set birth_date = '1981-02-03' where id = 2")
    again = "select gdpr_internal.apply_rectification(%s)"
    # the later one counts, whichever comes first
    assert [copies.rows(again, [record], user="postgres")[0][0] for record in records] == [0, 3, 1]
    assert copies.rows(state, user="crm_app") == after
    assert [copies.rows(again, [record], user="postgres")[0][0] for record in records] == [0, 0, 0]
    app.execute("delete from gdpr_clear.customer where id = 4")
    copies.rows("select gdpr.erase(%s)", [anna], user="dpo_login")
    assert copies.rows(
        "select gdpr_internal.apply_rectifications(%s)", [records], user="postgres"
    ) == [(0,)]
