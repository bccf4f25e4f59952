"""Erasure in its depth: foreign keys of the shapes that people have, what happens to each column,
what is kept and goes by itself, texts that a human reads, many persons at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, one_table, plan, problems, refused, subject
from tests.capabilities.sharing import RECIPIENTS, disclose, persons
from tests.support import Clone, Database


def erase(db: Database, *persons: int) -> list[dict[str, Any]]:
    """Receipts of persons erased together."""
    return [
        receipt
        for (receipt,) in db.rows(
            "select gdpr.erase(%s::bigint[], 'asked')", [list(persons)], user="dpo_login"
        )
    ]


def lines(receipt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables of a receipt by name, without those of which there is nothing to say."""
    return {
        line.pop("table"): {key: value for key, value in line.items() if value not in (0, "delete")}
        for line in receipt["tables"]
    }


def protected(db: Database, tables: str, policy: dict[str, Any]) -> None:
    """Make tables and protect them."""
    db.connect().execute(tables.encode())
    apply(db, policy)


# ---------------------------------------------------------------- foreign keys


STAFF = """
create table person (
  id integer primary key, name text not null,
  manager_id integer references person, buddy_id integer not null references person
);
insert into person values
  (1, 'Ada', null, 2), (2, 'Bela', 1, 1), (3, 'Chie', 1, 3), (4, 'Dora', 3, 3);
"""


def test_a_manager_goes_and_the_team_stays(db: Database) -> None:
    """References that may be null are cut; one that may not makes the row stay, empty."""
    columns = {name: {"category": "key"} for name in ("manager_id", "buddy_id")}
    new = one_table("public.person", columns={"name": {"category": "identity"}, **columns})
    protected(db, STAFF, new)
    (receipt,) = erase(db, subject(db, "public.person", 1))
    assert lines(receipt) == {
        "public.person": {"rows": 1, "anonymised_instead": 1},
    }
    assert db.rows(
        "select id, name, manager_id, buddy_id from gdpr_clear.person order by id", user="dpo_login"
    ) == [
        (1, "erased", None, 2),
        (2, "Bela", 1, 1),
        (3, "Chie", 1, 3),
        (4, "Dora", 3, 3),
    ]
    erase(db, subject(db, "public.person", 4))
    (receipt,) = erase(db, subject(db, "public.person", 3))
    assert lines(receipt) == {"public.person": {"rows": 1}}
    assert db.rows("select id from public.person order by id", user="postgres") == [(1,), (2,)]


def test_a_foreign_key_added_since_stops_erasure_until_it_is_applied(db: Database) -> None:
    """A cascade to rows of others would take them along, and nobody would say so."""
    new = one_table("public.person", columns={"name": {"category": "identity"}})
    new["tables"]["public.letter"] = one_table("public.letter")["tables"]["public.letter"]
    tables = """
        create table person (id integer primary key, name text);
        create table letter (id integer primary key, about_id integer);
        insert into person values (1, 'Ada');
        insert into letter values (10, 1);
    """
    protected(db, tables, new)
    ada = subject(db, "public.person", 1)
    db.rows("alter table letter add foreign key (about_id) references person on delete cascade")
    with refused("PR409", "drifted"):
        erase(db, ada)
    assert ("drift", "public.letter") in findings(db)
    apply(db, new)
    assert lines(erase(db, ada)[0]) == {
        "public.person": {"rows": 1},
        "public.letter": {"unlinked": 1},
    }
    assert db.rows("select id, about_id from letter", user="postgres") == [(10, None)]
    assert plan(db, new) == []


def test_a_check_of_the_application_is_named_and_shows_no_value(db: Database) -> None:
    new = one_table("public.person", columns={"name": {"category": "identity"}}, erase="anonymise")
    protected(
        db,
        "create table person (id integer primary key, name text,"
        " constraint named check (name is not null)); insert into person values (1, 'Ada')",
        new,
    )
    with refused("23503", "erasure_blocked") as error:
        erase(db, subject(db, "public.person", 1))
    assert error.value.diag.message_detail == "table public.person, constraint named"
    assert "Ada" not in str(error.value)


# ---------------------------------------------------------------- columns


METHODS = """
create table person (
  id integer primary key, born date, joined timestamptz, income integer, weight numeric,
  postcode text, surname text, birthday date, nickname varchar(20), tags text[] not null,
  contact jsonb, history json, kept text, unknown text, unknown_too integer not null
);
insert into person values (
  1, '1987-06-05', '2019-08-07 10:00+00', 43210, 71.5, '70173', 'Ahrens', '1987-06-05', 'Addie',
  '{a,b}', '{"email": "a@x.de", "city": "Ulm", "more": [{"ip": "1.2.3.4", "at": 1}, {"ip": "5"}]}',
  '{"name": "Ada", "score": {"value": 7, "note": "n"}}', 'kept', 'x', 5
), (2, null, null, null, null, null, null, null, null, '{}', null, null, null, null, 6);
"""


def test_each_column_in_its_own_way(db: Database) -> None:
    other = {"category": "identity"}
    columns: dict[str, Any] = {
        "born": {**other, "erase": {"generalise": "decade"}},
        "joined": {**other, "erase": {"generalise": "year"}},
        "income": {**other, "erase": {"generalise": 5000}},
        "weight": {**other, "erase": {"generalise": 2.5}},
        "postcode": {**other, "erase": {"generalise": 2}},
        "surname": {"encrypt": True, "mask": "initial", "erase": {"generalise": "initial"}},
        "birthday": {"encrypt": True, "mask": "year", "erase": {"generalise": "year"}},
        "nickname": {**other, "erase": {"generalise": "initial"}},
        "tags": {**other, "erase": {"elements": "all"}},
        "contact": {**other, "erase": {"paths": ["$.email", "$.more[*].ip", "$.none[0].x"]}},
        "history": {**other, "erase": {"keep_paths": ["$.score.value"]}},
        "kept": {"category": "transaction"},
        "unknown": {"category": "identity"},
        "unknown_too": {"category": "identity"},
    }
    protected(db, METHODS, one_table("public.person", columns=columns, erase="anonymise"))
    erase(db, subject(db, "public.person", 1), subject(db, "public.person", 2))
    found = db.rows(
        "select born::text, joined at time zone 'UTC', income, weight::text, postcode, surname,"
        " birthday::text, nickname, tags, contact, history, kept, unknown, unknown_too"
        " from gdpr_clear.person order by id",
        user="dpo_login",
    )
    assert found[0][0] == "1980-01-01"
    assert str(found[0][1]) == "2019-01-01 00:00:00"
    assert found[0][2:] == (
        40000,
        "70.0",
        "70",
        "A",
        "1987-01-01",
        "A",
        [],
        {"city": "Ulm", "more": [{"at": 1}, {}]},
        {"score": {"value": 7}},
        "kept",
        None,
        0,
    )
    assert found[1] == (*[None] * 8, [], *[None] * 4, 0)


@pytest.mark.parametrize(
    ("column", "definition", "problem"),
    [
        ("born", {"erase": {"generalise": "week"}}, "year"),
        ("born", {"erase": {"generalise": 10}}, "text and numbers"),
        ("surname", {"erase": {"generalise": "year"}}, "dates"),
        ("surname", {"erase": {"generalise": 0}}, "step"),
        ("surname", {"erase": {"generalise": 1.5}}, "characters"),
        ("income", {"erase": {"generalise": 1.5}}, "whole"),
        ("income", {"erase": {"generalise": "initial"}}, "text"),
        ("income", {"encrypt": True, "erase": {"generalise": 10}}, "key is gone"),
        ("surname", {"encrypt": True, "erase": {"generalise": "initial"}}, "mask"),
        ("born", {"encrypt": True, "mask": "year", "erase": {"generalise": "decade"}}, "mask"),
        ("contact", {"erase": {"paths": ["email"]}}, "paths"),
        ("contact", {"erase": {"paths": []}}, "paths"),
        ("contact", {"encrypt": True, "erase": {"paths": ["$.a"]}}, "not encrypted"),
        ("surname", {"erase": {"paths": ["$.a"]}}, "json"),
        ("surname", {"erase": {"elements": "all"}}, "arrays"),
        ("tags", {"erase": {"elements": "some"}}, "all"),
        ("surname", {"erase": {"keep_until": "2 years after surname"}}, "date column"),
        ("surname", {"erase": {"keep_until": "2 years after born", "then": "x"}}, "keep"),
        ("surname", {"erase": {"value": "x", "generalise": 1}}, "keep"),
        ("surname", {"erase": {"forget": True}}, "keep"),
        ("surname", {"review": "yes"}, "true or false"),
    ],
)
def test_a_way_that_cannot_be_meant_is_refused(
    methods: Database, column: str, definition: dict[str, Any], problem: str
) -> None:
    found = problems(methods, one_table("public.person", columns={column: definition}))
    assert len(found) == 1, found
    assert problem in found[0]


@pytest.fixture(scope="module")
def methods(clone: Clone, installed_template: str) -> Iterator[Database]:
    """A table with columns of many types, unprotected and unchanged."""
    with clone(installed_template) as database:
        database.connect().execute(METHODS.encode())
        yield database


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("$.a", {"b": [1, {"c": 2, "d": 3}], "e f": {}}),
        ("$.b[1].c", {"a": "x", "b": [1, {"d": 3}], "e f": {}}),
        ("$.b[0]", {"a": "x", "b": [{"c": 2, "d": 3}], "e f": {}}),
        ("$.b[*].c", {"a": "x", "b": [1, {"d": 3}], "e f": {}}),
        ("$.b[*]", {"a": "x", "b": [], "e f": {}}),
        ('$["e f"]', {"a": "x", "b": [1, {"c": 2, "d": 3}]}),
        ("$.*", {}),
        ("$.*.d", {"a": "x", "b": [1, {"c": 2, "d": 3}], "e f": {}}),
        ("$.a.b.c", {"a": "x", "b": [1, {"c": 2, "d": 3}], "e f": {}}),
        ("$.b[7].c", {"a": "x", "b": [1, {"c": 2, "d": 3}], "e f": {}}),
    ],
)
def test_paths(methods: Database, path: str, left: dict[str, Any]) -> None:
    document = {"a": "x", "b": [1, {"c": 2, "d": 3}], "e f": {}}
    assert methods.rows(
        "select gdpr_internal.json_without(%s, array(select jsonb_array_elements_text("
        "gdpr_internal.json_steps(%s))))",
        [json.dumps(document), path],
        user="postgres",
    ) == [(left,)]


# ---------------------------------------------------------------- what is kept


KEPT = """
create table person (id integer primary key, name text not null, email text, made timestamptz);
create table invoice (
  id integer primary key, person_id integer not null references person, placed timestamptz,
  total integer, note text
);
insert into person values (1, 'Ada', 'ada@example.com', now()), (2, 'Bela', null, now());
insert into invoice values (10, 1, now(), 5, 'a'), (11, 1, now() - interval '8 years', 6, 'b'),
  (12, 2, now(), 7, 'c');
"""


def kept_policy(invoice: Any, **columns: Any) -> dict[str, Any]:
    """Persons and their invoices, of which the law keeps some."""
    new = one_table(
        "public.person",
        columns={
            "name": {"category": "identity", **columns.get("name", {})},
            "email": {"encrypt": True, "identifier": "email"},
            "made": {"category": "other"},
        },
    )
    new["tables"]["public.invoice"] = {
        "subject": {"via": "person_id"},
        "purposes": ["orders"],
        "erase": invoice,
        "columns": {
            "note": {"category": "other", "encrypt": True},
            "placed": {"category": "other"},
            "total": {"category": "other"},
        },
    }
    return new


def test_what_is_kept_goes_by_itself_at_the_very_instant(db: Database) -> None:
    db.connect().execute(KEPT.encode())
    db.rows("update invoice set placed = now() - interval '7 years' + interval '3 s' where id = 10")
    apply(db, kept_policy({"keep_until": "7 years after placed", "then": "delete"}))
    ada = subject(db, "public.person", 1)
    (receipt,) = erase(db, ada)
    person, invoice = receipt["tables"][1], receipt["tables"][0]
    assert (person["rows"], person["anonymised_instead"]) == (1, 1)
    assert (invoice["rows"], invoice["kept"]) == (1, 1)
    assert invoice["kept_for"] == "7 years after placed"
    assert receipt["key_destroyed"] is False
    seen = "select id, note from gdpr_clear.invoice where id in (10, 11)"
    assert db.rows(seen, user="dpo_login") == [(10, "a")]
    assert db.rows("select name from gdpr_clear.person where id = 1", user="dpo_login") == [
        ("erased",)
    ]
    assert db.rows("select kept_rows from gdpr.erasure_ledger", user="auditor_login") == [(1,)]
    assert finish(db) == 0
    time.sleep(3.2)
    assert db.rows(seen, user="dpo_login") == []
    assert db.rows("select count(*) from invoice where id = 10", user="postgres") == [(1,)]
    tidied = dict(db.rows("select * from gdpr.tidy()"))
    assert tidied["erasures"] == 1
    assert db.rows("select id from invoice", user="postgres") == [(12,)]
    ((finished,),) = db.rows("select finished[0] from gdpr.erasure_ledger", user="auditor_login")
    assert finished["key_destroyed"] is True
    assert lines(finished)["public.invoice"] == {"rows": 1}
    assert db.rows(
        "select count(*) from gdpr_internal.subject_key where subject_id = %s",
        [ada],
        user="postgres",
    ) == [(0,)]
    assert finish(db) == 0
    assert erase(db, ada) == [receipt]


def finish(db: Database) -> int:
    """Persons of whom something was due."""
    return int(db.rows("select gdpr_internal.finish_erasures(100)", user="postgres")[0][0])


def test_one_column_is_kept_for_a_time(db: Database) -> None:
    db.connect().execute(KEPT.encode())
    db.rows("update person set made = now() - interval '10 years' + interval '4 s' where id = 1")
    keep = {"erase": {"keep_until": "10 years after made"}}
    apply(db, kept_policy("delete", name=keep))
    ada = subject(db, "public.person", 1)
    (receipt,) = erase(db, ada)
    assert lines(receipt)["public.person"]["kept"] == 1
    row = "select name, email from gdpr_clear.person where id = 1"
    assert db.rows(row, user="dpo_login") == [("Ada", None)]
    assert db.rows("select count(*) from invoice where person_id = 1", user="postgres") == [(0,)]
    assert db.rows("select gdpr.is_blocked('email', 'ada@example.com')", user="dpo_login") == [
        (True,)
    ]
    time.sleep(4.1)
    assert db.rows(row, user="dpo_login") == []
    assert finish(db) == 1
    assert db.rows("select id from person", user="postgres") == [(2,)]


def test_holds_of_a_row_and_of_a_column(db: Database) -> None:
    protected(db, KEPT, kept_policy("delete"))
    officer = db.connect("dpo_login")
    officer.execute(
        "select gdpr.place_hold(null, 'legal_claims', 'file 1', 'public.invoice', '10', '{note}')"
    )
    (row,) = officer.execute(
        "select gdpr.place_hold(null, 'legal_claims', 'file 2', 'public.invoice', '11')"
    ).fetchall()
    ada = subject(db, "public.person", 1)
    ((planned,),) = db.rows("select gdpr.erasure_plan(%s)", [ada], user="dpo_login")
    (receipt,) = erase(db, ada)
    assert planned["tables"] == receipt["tables"]
    assert lines(receipt)["public.invoice"] == {"kept": 2, "kept_for": "hold: legal_claims"}
    assert db.rows(
        "select id, total, note, placed is not null from gdpr_clear.invoice where person_id = 1"
        " order by id",
        user="dpo_login",
    ) == [(10, 5, "a", True), (11, 6, "b", True)]
    db.rows("grant select on invoice to crm_app")
    assert db.rows("select id from gdpr_clear.invoice", user="crm_app") == [(12,)]
    officer.execute("select gdpr.release_hold(%s, 'over')", [row[0]])
    db.rows("select gdpr_internal.finish_erasures(10, %s)", [[ada]], user="postgres")
    assert db.rows("select id from invoice order by id", user="postgres") == [(10,), (12,)]


def test_what_cannot_be_emptied_cannot_be_kept_waiting(db: Database) -> None:
    """The person's row would have to stay for the invoice, and a range has no neutral value."""
    db.connect().execute(KEPT.encode())
    db.rows("alter table person add span int4range not null default '[1,2]'")
    keep = {"keep_until": "7 years after placed", "then": "delete"}
    (problem,) = problems(db, kept_policy(keep))
    assert "public.person" in problem
    assert "span" in problem
    assert problems_of(db, kept_policy("delete")) == []


def problems_of(db: Database, new: dict[str, Any]) -> list[str]:
    """Reasons for which a policy is refused, none for one that is not."""
    try:
        plan(db, new)
    except psycopg.Error as error:
        return (error.diag.message_detail or "").splitlines()
    return []


# ---------------------------------------------------------------- many, planned, reviewed


def test_many_at_once_are_all_or_none(crm: Database) -> None:
    persons = [subject(crm, "crm.customer", key) for key in (3, 1)]
    with refused("PR101", "unknown_subject"):
        erase(crm, persons[0], 999)
    with refused("PR101", "unknown_subject"):
        crm.rows("select gdpr.erase(array[1, null]::bigint[], 'asked')", user="dpo_login")
    with refused("PR101", "unknown_subject"):
        crm.rows("select gdpr.erase('{{1},{null}}'::bigint[], 'asked')", user="dpo_login")
    for call in ("erase(null::bigint[], 'asked')", "erase('{1}'::bigint[], null)"):
        with refused("PR004", "invalid_argument"):
            crm.rows(f"select gdpr.{call}", user="dpo_login")
    assert erase(crm) == []
    receipts = erase(crm, *persons, persons[0])
    assert [receipt["subject"] for receipt in receipts] == [*persons, persons[0]]
    assert [lines(receipt).get('crm."order"') for receipt in receipts[:2]] == [
        {"rows": 1},
        {"rows": 2},
    ]
    assert crm.rows("select id from crm.customer", user="postgres") == [(2,)]
    assert crm.rows(
        "select count(*), min(recorded_by) from gdpr.erasure_ledger", user="dpo_login"
    ) == [(2, "dpo_login")]
    with refused("42501"):
        crm.rows("select gdpr.erase(%s::bigint[], 'x')", [persons], user="crm_app")


def test_a_plan_is_the_receipt_and_changes_nothing(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    before = crm.rows("select count(*) from gdpr.audit_log", user="dpo_login")
    ((planned,),) = crm.rows("select gdpr.erasure_plan(%s)", [anna], user="dpo_login")
    assert crm.rows("select count(*) from gdpr.audit_log", user="dpo_login") == before
    assert crm.rows("select count(*) from crm.customer", user="postgres") == [(3,)]
    (receipt,) = erase(crm, anna)
    assert "erased_at" not in planned
    del planned["planned_at"], receipt["erased_at"]
    assert planned == receipt
    with refused("PR603", "erased"):
        crm.rows("select gdpr.erasure_plan(%s)", [anna], user="dpo_login")


def test_a_plan_names_who_is_told_what_is_blocked_and_what_stays_until_when(crm: Database) -> None:
    anna, _, chie = persons(crm)
    officer = crm.connect("dpo_login")
    officer.execute(RECIPIENTS)
    disclose(officer, [anna])
    disclose(officer, [anna], recipient="Call Centre Inc")
    officer.execute(
        "select gdpr.place_hold(%s, 'legal_claims', 'file 3', 'crm.order',"
        " null, null, '2099-01-01')",
        [anna],
    )
    ((planned,),) = officer.execute("select gdpr.erasure_plan(%s)", [anna]).fetchall()
    assert officer.execute("select from gdpr.notice_due").fetchall() == []
    assert planned["notices"] == [
        {"recipient": "Call Centre Inc", "delivery": "by hand"},
        {"recipient": "Parcel AG", "delivery": "mail"},
    ]
    assert planned["blocked"] == {"email": 1, "phone": 1}
    assert planned["identifiers_blocked"] == 2
    orders = lines(planned)['crm."order"']
    assert orders["kept_until"].startswith("2099-01-01")
    assert {key: orders[key] for key in ("kept", "kept_for")} == {
        "kept": 2,
        "kept_for": "hold: legal_claims",
    }
    (receipt,) = erase(crm, anna)
    assert {key: receipt[key] for key in ("notices", "blocked")} == {
        key: planned[key] for key in ("notices", "blocked")
    }
    told = officer.execute("select recipient, event from gdpr.notice_due order by 1").fetchall()
    assert told == [("Call Centre Inc", "erasure"), ("Parcel AG", "erasure")]
    ((planned,),) = officer.execute("select gdpr.erasure_plan(%s)", [chie]).fetchall()
    assert (planned["notices"], planned["blocked"]) == ([], {"email": 1, "phone": 1})


def test_free_text_that_stays_is_for_a_human_to_read(db: Database) -> None:
    new = one_table(
        "public.ticket",
        columns={"who": {"category": "identity"}, "story": {"category": "other", "review": True}},
        erase="anonymise",
    )
    protected(
        db,
        "create table ticket (id integer primary key, who text, story text);"
        " insert into ticket values (1, 'Ada', 'Ada called'), (2, 'Bela', null)",
        new,
    )
    receipts = erase(db, subject(db, "public.ticket", 1), subject(db, "public.ticket", 2))
    assert [lines(receipt)["public.ticket"].get("review") for receipt in receipts] == [
        {"story": 1},
        None,
    ]
    ((review, *due),) = db.rows(
        "select review_id, table_name::text, column_name, row_key from gdpr.review_due",
        user="auditor_login",
    )
    assert due == ["ticket", "story", "1"]
    with refused("PR004", "invalid_argument"):
        db.rows("select gdpr.finish_review(%s, 'read')", [review], user="dpo_login")
    db.rows("select gdpr.finish_review(%s, 'cleared')", [review], user="dpo_login")
    with refused("PR617", "review_done"):
        db.rows("select gdpr.finish_review(%s, 'cleared')", [review], user="dpo_login")
    assert db.rows("select count(*) from gdpr.review_due", user="dpo_login") == [(0,)]
    assert db.rows(
        "select old ->> 'outcome' from gdpr.audit_log where operation = 'REVIEW'",
        user="auditor_login",
    ) == [("cleared",)]
