"""Elements of arrays, and strings in documents, that are an identifier of the erased: they go, and
the others' stay."""

from __future__ import annotations

from typing import Any

import pytest

from tests.capabilities.crm import apply, one_table, problems, subject
from tests.support import Database

THREADS = """
create table person (id integer primary key, email text, phone text);
create table thread (
  id integer primary key, person_id integer not null references person, second_id integer
    references person,
  people text[], copies varchar(60)[] not null, callers citext[], head json, body jsonb
);
insert into person values
  (1, 'Anna.Berg@example.com', '+49 711 1001'), (2, 'bela@example.com', '+49 711 1002');
insert into thread values
  (10, 1, 2, '{bela@example.com,NULL,"ANNA.BERG@EXAMPLE.COM",anna.berg+shop@example.com}',
    '{anna.berg@example.com}', '{"+49 (711) 1001",+497111002}',
    '{"cc": ["bela@example.com", "anna.berg@example.com", 7], "from": "Anna.Berg@example.com"}',
    '{"seen": {"anna.berg@example.com": 1, "bela@example.com": 2}, "deep": [[{"x":
      ["anna.berg@example.com", "not anna.berg@example.com"]}]]}'),
  (11, 1, null, null, '{}', '{}', '"anna.berg@example.com"', null),
  (12, 2, null, '{anna.berg@example.com,bela@example.com}', '{}', null, null, '[]');
"""


def threads(**table: Any) -> dict[str, Any]:
    """Persons, and threads whose addresses go with them."""
    new = one_table(
        "public.person",
        columns={
            "email": {"identifier": "email", "encrypt": True},
            "phone": {"identifier": "phone", "encrypt": True},
        },
        erase="anonymise",
    )
    mails: dict[str, Any] = {"category": "contact", "erase": {"elements": "email"}}
    new["tables"]["public.thread"] = {
        "subject": {"via": "person_id"},
        "purposes": ["orders"],
        "erase": "anonymise",
        "columns": {
            "people": mails,
            "copies": mails,
            "callers": {"category": "contact", "erase": {"elements": ["phone", "email"]}},
            "head": mails,
            "body": mails,
        },
        **table,
    }
    return new


def rows(db: Database) -> dict[int, tuple[Any, ...]]:
    """The threads as stored."""
    return {
        key: tuple(values)
        for key, *values in db.rows(
            "select id, people, copies::text[], callers::text[], head, body from thread",
            user="postgres",
        )
    }


def erase(db: Database, *keys: int) -> None:
    persons = [subject(db, "public.person", key) for key in keys]
    db.rows("select gdpr.erase(%s::bigint[], 'asked')", [persons], user="dpo_login")


@pytest.fixture
def mails(db: Database) -> Database:
    db.connect("postgres").execute("create extension citext with schema public")
    db.connect().execute(THREADS.encode())
    return db


def test_elements_that_are_the_persons_address_go_and_the_others_stay(mails: Database) -> None:
    """In whatever spelling; in rows of the person."""
    apply(mails, threads())
    others = rows(mails)[12]
    erase(mails, 1)
    found = rows(mails)
    assert found[10] == (
        ["bela@example.com", None],
        [],
        ["+497111002"],
        {"cc": ["bela@example.com", 7]},
        {"seen": {"bela@example.com": 2}, "deep": [[{"x": ["not anna.berg@example.com"]}]]},
    )
    assert found[11] == (None, [], [], None, None)
    assert found[12] == others


def test_an_address_goes_from_a_joint_row_with_either_person(mails: Database) -> None:
    new = threads(subject={"via": "person_id", "joint": ["second_id"]})
    columns = new["tables"]["public.thread"]["columns"]
    columns["people"] = {**columns["people"], "about": "person_id"}
    columns["copies"] = {**columns["copies"], "about": "second_id"}
    apply(mails, new)
    mails.rows("update thread set copies = '{bela@example.com,c@example.com}' where id = 10")
    erase(mails, 2)
    people, copies, *_ = rows(mails)[10]
    assert copies == ["c@example.com"]
    assert "bela@example.com" in people


def test_what_a_period_kept_loses_the_address_when_it_ends(mails: Database) -> None:
    """By then the address is nobody's, and only blocked."""
    mails.rows("alter table thread add until date default '2000-01-01'")
    mails.rows("update thread set until = current_date + 1 where id = 10")
    new = threads()
    keep = {"keep_until": "1 day after until", "then": {"elements": "email"}}
    columns = new["tables"]["public.thread"]["columns"]
    columns |= {"until": {"category": "other"}, "people": {"category": "contact", "erase": keep}}
    apply(mails, new)
    anna = subject(mails, "public.person", 1)
    erase(mails, 1)
    assert "anna.berg+shop@example.com" in rows(mails)[10][0]
    assert rows(mails)[10][1] == []
    mails.rows("update thread set until = '2000-01-01' where id = 10", user="postgres")
    mails.rows("select gdpr_internal.finish_erasures(10, %s)", [[anna]], user="postgres")
    assert rows(mails)[10][0] == ["bela@example.com", None]


def test_retention_takes_them_out_of_rows_of_the_living(mails: Database) -> None:
    mails.rows("alter table thread add day date default '2000-01-01'")
    new = threads(retain=[{"for": "1 year", "after": "day"}])
    new["tables"]["public.thread"]["columns"]["day"] = {"category": "other"}
    apply(mails, new)
    assert mails.rows("select sum(removed) from gdpr.run_retention()") == [(3,)]
    assert [row[0] for _, row in sorted(rows(mails).items())] == [
        ["bela@example.com", None],
        None,
        ["anna.berg@example.com"],
    ]


@pytest.mark.parametrize(
    ("column", "definition", "problem"),
    [
        ("people", {"elements": "emails"}, "email"),
        ("people", {"elements": []}, "all"),
        ("people", {"elements": 1}, "all"),
        ("email", {"elements": "email"}, "arrays of text"),
        ("head", {"elements": "all"}, "arrays"),
        ("numbers", {"elements": "email"}, "arrays of text"),
    ],
)
def test_elements_that_cannot_be_meant_are_refused(
    db: Database, column: str, definition: dict[str, Any], problem: str
) -> None:
    db.rows(
        "create table t (id integer primary key, people text[], email text, head json,"
        " numbers integer[])"
    )
    (found,) = problems(db, one_table("public.t", columns={column: {"erase": definition}}))
    assert "elements: " in found
    assert problem in found


def test_whose_address_it_is_cannot_be_asked_of_those_erased_before(mails: Database) -> None:
    """What is planted in a table runs as gdpr_worker, and may call what erasure calls."""
    apply(mails, threads())
    anna = subject(mails, "public.person", 1)
    erase(mails, 1)
    ask = "select gdpr_internal.without_identifiers(%s, '{email}', '{anna.berg@example.com}')"
    worker = mails.connect("postgres")
    worker.execute("set role gdpr_worker")
    assert worker.execute(ask, [[anna]]).fetchone() == (["anna.berg@example.com"],)


def test_a_circle_of_links_leads_to_nobody(db: Database) -> None:
    """A reply belongs to who wrote it, and not to the comment that it answers."""
    db.connect().execute(
        b"""
        create table person (id integer primary key, name text);
        create table comment (
          id integer primary key, author_id integer not null references person,
          parent_id integer references comment, words text
        );
        create table a (id integer primary key, next integer);
        create table b (id integer primary key, next integer references a);
        alter table a add foreign key (next) references b;
        insert into person values (1, 'Ada'), (2, 'Bela');
        insert into comment values (1, 1, null, 'first'), (2, 2, 1, 'second'), (3, 1, 2, 'third'),
          (4, 1, 3, 'fourth'), (5, 2, 4, 'fifth');
        """
    )
    new = one_table("public.person", columns={"name": {"category": "identity"}})
    comment: dict[str, Any] = {
        "subject": {"via": "parent_id"},
        "purposes": ["orders"],
        "columns": {"words": {"category": "other", "encrypt": True}},
    }
    new["tables"]["public.comment"] = comment
    (problem,) = problems(db, new)
    assert 'tables."public.comment".subject.via: leads back to the table itself' in problem
    assert "author" in problem
    circle = one_table("public.a", subject={"via": "next"})
    circle["tables"]["public.b"] = {"subject": {"via": "next"}, "purposes": ["orders"]}
    assert [line.split(":")[0] for line in problems(db, circle)] == [
        'tables."public.a".subject.via',
        'tables."public.b".subject.via',
    ]
    comment["subject"] = {"via": "author_id"}
    apply(db, new)
    erase(db, 1)
    assert db.rows(
        "select id, parent_id, words from gdpr_clear.comment order by id", user="dpo_login"
    ) == [(2, None, "second"), (5, None, "fifth")]
