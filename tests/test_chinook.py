"""A well-known sample shop, protected: what four pairs of eyes see before and after a customer is
forgotten."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from tests.capabilities.crm import apply, findings, plan, refused, subject
from tests.conftest import CHINOOK
from tests.support import Clone, Database
from tests.traces import dangling, traces

PEOPLE = {
    "address": {"category": "contact"},
    "city": {"category": "contact", "mask": "show"},
    "state": {"category": "contact"},
    "country": {"category": "contact", "mask": "show"},
    "postal_code": {"category": "contact", "mask": "hide"},
    "first_name": {"category": "identity", "mask": "initial"},
    "last_name": {"category": "identity", "mask": "initial"},
    "phone": {"category": "contact", "identifier": "phone", "encrypt": True},
    "fax": {"category": "contact", "encrypt": True},
    "email": {
        "category": "contact",
        "identifier": "email",
        "encrypt": "searchable",
        "mask": "email",
    },
}
POLICY: dict[str, Any] = {
    "purposes": {
        "sales": {"basis": "contract"},
        "staff": {"basis": "contract"},
        "reporting": {"basis": "legitimate_interests"},
    },
    "roles": {
        "crm_app": {"audience": "clear", "purposes": ["sales", "staff"]},
        "metabase": {"audience": "bi", "purposes": ["reporting"]},
    },
    "tables": {
        "public.employee": {
            "subject": "self",
            "match_on": ["email"],
            "purposes": ["staff", "reporting"],
            "erase": "anonymise",
            "columns": {
                **PEOPLE,
                "employee_id": {"category": "key"},
                "reports_to": {"category": "key"},
                "title": {"category": "other"},
                "birth_date": {"category": "demographic", "encrypt": True, "mask": "year"},
                "hire_date": {"category": "other", "mask": "year"},
            },
        },
        "public.customer": {
            "subject": "self",
            "match_on": ["email"],
            "purposes": ["sales", "reporting"],
            "erase": "anonymise",
            "columns": {
                **PEOPLE,
                "customer_id": {"category": "key"},
                "support_rep_id": {"category": "key"},
                "company": {"category": "contact", "mask": "hide"},
            },
        },
        "public.invoice": {
            "subject": {"via": "customer_id"},
            "purposes": ["sales", "reporting"],
            "erase": "anonymise",
            "columns": {
                "invoice_id": {"category": "key"},
                "customer_id": {"category": "key"},
                "invoice_date": {"category": "transaction"},
                "total": {"category": "transaction"},
                **{
                    f"billing_{name}": {"category": "contact", "encrypt": True}
                    for name in ("address", "city", "state", "country", "postal_code")
                },
            },
        },
    },
}

LEONIE = 2


@pytest.fixture
def protected(chinook: Database) -> Database:
    """The shop under its policy."""
    chinook.rows(
        "grant select, insert, update, delete on all tables in schema public to"
        " crm_app; grant usage on schema public to crm_app;"
        " grant select on public.invoice_line to dpo_login"
    )
    apply(chinook, POLICY)
    return chinook


def test_the_shop_is_protected_and_content(protected: Database) -> None:
    assert plan(protected, POLICY) == []
    assert findings(protected) == set()
    assert protected.rows("select count(*) from gdpr.subject", user="dpo_login") == [(59 + 8,)]
    ciphers = protected.rows(
        "select count(*) filter (where email like 'gdpr1:%'), count(*) filter"
        " (where fax like 'gdpr1:%'), count(fax) from public.customer",
        user="postgres",
    )
    assert ciphers[0][0] == 59
    assert ciphers[0][1] == ciphers[0][2]


def test_with_the_eyes_of_four(protected: Database) -> None:
    """The application, the analyst, the officer and the auditor look at Leonie and her seven
    invoices."""
    app = protected.connect("crm_app", options="-c search_path=gdpr_clear,public")
    row = app.execute(
        "select first_name, last_name, phone, email, city, company from customer"
        " where email_digest = gdpr.digest('email', 'LeoneKohler@surfeu.de')"
    ).fetchone()
    assert row == (
        "Leonie",
        "Köhler",
        "+49 0711 2842222",
        "leonekohler@surfeu.de",
        "Stuttgart",
        None,
    )
    assert app.execute(
        "select count(*), sum(total)::text, min(billing_address) from invoice"
        " where customer_id = %s",
        [LEONIE],
    ).fetchone() == (7, "37.62", "Theodor-Heuss-Straße 34")
    assert (
        app.execute(
            "select e.first_name, count(*) from customer c join public.employee e"
            " on e.employee_id = c.support_rep_id group by 1"
        ).fetchall()
        == []
    )
    app.execute("set gdpr.purpose = 'staff'")
    assert app.execute(
        "select first_name, birth_date::text from employee where employee_id = 1"
    ).fetchone() == ("Andrew", "1962-02-18 00:00:00")
    assert app.execute("select count(*) from customer").fetchone() == (0,)

    analyst = protected.rows(
        "select customer_id, first_name, last_name, phone, email, city, country,"
        " company from gdpr_bi.customer where customer_id = %s",
        [LEONIE],
        user="metabase",
    )
    assert analyst == [(LEONIE, "L.", "K.", None, "l***@***.de", "Stuttgart", "Germany", None)]
    revenue = protected.rows(
        "select c.country, sum(i.total)::text from gdpr_bi.invoice i join"
        " gdpr_bi.customer c using (customer_id) where c.country = 'Germany' group"
        " by 1",
        user="metabase",
    )
    assert revenue == [("Germany", "156.48")]
    assert protected.rows(
        "select count(*) from gdpr_bi.invoice where subject_ref = (select"
        " subject_ref from gdpr_bi.customer where customer_id = %s)",
        [LEONIE],
        user="metabase",
    ) == [(7,)]
    assert protected.rows(
        "select extract(year from birth_date)::integer, first_name from"
        " gdpr_bi.employee where employee_id = 1",
        user="metabase",
    ) == [(1962, "A.")]
    for table in ("public.customer", "gdpr_clear.customer"):
        with refused("42501"):
            protected.rows(f"select * from {table}", user="metabase")

    officer = protected.rows(
        "select last_name, phone from gdpr_clear.customer where customer_id = %s",
        [LEONIE],
        user="dpo_login",
    )
    assert officer == [("Köhler", "+49 0711 2842222")]

    for table in ("public.customer", "gdpr_clear.customer", "gdpr_bi.customer"):
        with refused("42501"):
            protected.rows(f"select * from {table}", user="auditor_login")
    assert protected.rows("select count(*) from gdpr.basis where holds", user="auditor_login") == [
        (2 * 59 + 2 * 8,)
    ]


def test_leonie_is_forgotten_and_her_invoices_stay(protected: Database) -> None:
    leonie = subject(protected, "public.customer", LEONIE)
    receipt = protected.rows(
        "select gdpr.erase(%s, 'letter of 1 March')", [leonie], user="dpo_login"
    )[0][0]
    assert {table["table"]: table["rows"] for table in receipt["tables"]} == {
        "public.invoice": 7,
        "public.customer": 1,
        "public.employee": 0,
    }

    app = protected.connect("crm_app", options="-c search_path=gdpr_clear,public")
    row = app.execute(
        "select customer_id, first_name, last_name, phone, fax, address, city,"
        " company from customer where customer_id = %s",
        [LEONIE],
    ).fetchone()
    assert row == (LEONIE, "erased", "erased", None, None, None, None, None)
    assert app.execute(
        "select count(*), sum(total)::text, count(billing_address) from invoice"
        " where customer_id = %s",
        [LEONIE],
    ).fetchone() == (7, "37.62", 0)
    assert app.execute("select sum(total)::text from invoice").fetchone() == ("2328.60",)
    assert app.execute(
        "select count(*) from customer where email_digest = gdpr.digest('email',"
        " 'leonekohler@surfeu.de')"
    ).fetchone() == (0,)
    with refused("23505") as error:
        app.execute(
            "insert into customer (customer_id, first_name, last_name, email)"
            " values (60, 'L', 'K', 'LEONEKOHLER@surfeu.de')"
        )
    assert "leone" not in str(error.value).lower()
    with refused("23505"):
        app.execute(
            "insert into customer (customer_id, first_name, last_name, email,"
            " phone) values (60, 'L', 'K', 'new@example.com', '+4907112842222')"
        )

    assert protected.rows(
        "select first_name, email, city from gdpr_bi.customer where customer_id = %s",
        [LEONIE],
        user="metabase",
    ) == [("e.", None, None)]
    assert protected.rows("select sum(total)::text from gdpr_bi.invoice", user="metabase") == [
        ("2328.60",)
    ]
    assert protected.rows(
        "select reason from gdpr.erasure_ledger where subject_id = %s",
        [leonie],
        user="auditor_login",
    ) == [("letter of 1 March",)]

    protected.rows("analyze public.customer, public.invoice, public.employee")
    superuser = protected.connect("postgres")
    tables = superuser.execute(
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid"
        " = c.relnamespace where relkind = 'r' and nspname !~ '^pg_|^information'"
    ).fetchall()
    for (table,) in [*tables, ("pg_stats",)]:
        (content,) = superuser.execute(
            f"select coalesce(string_agg(t::text, ''), '') from {table} t".encode()
        ).fetchone() or ("",)
        for value in ("Leonie", "Köhler", "leonekohler", "2842222", "Heuss"):
            assert value not in content, (table, value)
    assert findings(protected) == set()


def test_everybody_is_forgotten_one_after_another(
    protected: Database, clone: Clone, installed_template: str
) -> None:
    """After each, a full dump is searched for what only those forgotten had; the books
    stay as they were."""
    alone = _values_of_one()
    officer = protected.connect("dpo_login")
    persons = [
        (customer, subject(protected, "public.customer", customer)) for customer in range(1, 60)
    ]
    everything = set().union(*alone.values())
    with clone(installed_template) as without:
        # a Helena is in every database: the island has data protection of its own
        everything -= traces(without, everything)
    gone: set[str] = set()
    for number, (customer, person) in enumerate(persons, 1):
        officer.execute("select gdpr.erase(%s, 'asked')", [person])
        gone |= alone[customer] & everything
        found = traces(protected, everything, schema=number % 15 == 14)
        assert found & gone == set()
        assert number == len(persons) or found & alone[persons[number][0]]
        assert dangling(protected) == []
        assert officer.execute(BOOKS).fetchone() == ("2328.60", 412, "2328.60", number)
    assert len(gone) > 300
    assert protected.rows("select count(*) from gdpr_internal.subject_key", user="postgres") == [
        (8,)
    ]


#: The totals, which stay, and how many were forgotten.
BOOKS = """
select
  (select sum(total)::text from gdpr_clear.invoice),
  (select count(*) from gdpr_clear.invoice),
  (select sum(unit_price * quantity)::text from public.invoice_line),
  (select count(*) from gdpr.erasure_ledger)
"""


def _values_of_one() -> dict[int, set[str]]:
    """For each customer the values of the shop that nobody else has."""
    holders: dict[str, set[tuple[str, str]]] = {}
    for table in ("employee", "customer", "invoice"):
        with (CHINOOK / f"{table}.csv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                who = (
                    ("employee", row["employee_id"])
                    if table == "employee"
                    else ("customer", row["customer_id"])
                )
                for column, value in row.items():
                    if len(value) > 5 and column not in {"invoice_date", "total"}:
                        holders.setdefault(value, set()).add(who)
    alone: dict[int, set[str]] = {customer: set() for customer in range(1, 60)}
    for value, people in holders.items():
        # no part of what somebody else has
        if len(people) == 1 and not any(value in other for other in holders if other != value):
            ((kind, key),) = people
            if kind == "customer":
                alone[int(key)].add(value)
    return alone


def test_the_other_tables_of_the_shop_work_as_before(protected: Database) -> None:
    """invoice_line is not personal and not protected; the foreign keys and the order of the day
    go on."""
    app = protected.connect("crm_app", options="-c search_path=gdpr_clear,public")
    app.execute(
        "insert into customer (customer_id, first_name, last_name, email,"
        " support_rep_id) values (60, 'Ny', 'Kund', 'ny@example.no', 3)"
    )
    app.execute(
        "insert into invoice (invoice_id, customer_id, invoice_date, total,"
        " billing_city) values (500, 60, now(), 1.98, 'Oslo')"
    )
    app.execute("insert into invoice_line values (5000, 500, 1, 0.99, 2)")
    assert app.execute(
        "select c.last_name, i.billing_city, l.quantity from customer c join"
        " invoice i using (customer_id) join invoice_line l using (invoice_id)"
        " where invoice_id = 500"
    ).fetchone() == ("Kund", "Oslo", 2)
    with refused("23503"):
        app.execute("delete from customer where customer_id = 60")
    assert subject(protected, "public.invoice", 500) == subject(protected, "public.customer", 60)


def test_unprotected_again_the_shop_is_what_it_was(chinook: Database) -> None:
    question = "select md5(string_agg(t::text, E'\\n' order by t::text)) from public.{} t"
    tables = ("employee", "customer", "invoice", "invoice_line")
    before = [chinook.rows(question.format(table)) for table in tables]
    apply(chinook, POLICY)
    for table in ("invoice", "customer", "employee"):
        chinook.rows("select gdpr.unprotect(%s::text::regclass)", [f"public.{table}"])
    assert [chinook.rows(question.format(table)) for table in tables] == before
