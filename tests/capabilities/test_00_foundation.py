"""Station 00: the policy becomes the database, whole or not at all, and can be taken off again."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.capabilities.crm import (
    POLICY,
    apply,
    findings,
    one_table,
    original,
    plan,
    policy,
    problems,
    refused,
    subject,
)
from tests.support import Clone, Database


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return sql.Identifier(name).as_string(None)


# ---------------------------------------------------------------- plan and apply


def test_plan_lists_steps_with_locks_and_changes_nothing(shop: Database) -> None:
    before = original(shop, "crm")
    steps = plan(shop, POLICY)
    assert [step[0] for step in steps] == list(range(1, len(steps) + 1))
    assert all(step[1] and step[2] and step[3] for step in steps)
    assert {step[4] for step in steps} <= {
        None,
        "SHARE UPDATE EXCLUSIVE",
        "SHARE",
        "SHARE ROW EXCLUSIVE",
        "ACCESS EXCLUSIVE",
    }
    assert any(step[5] for step in steps)
    assert original(shop, "crm") == before
    assert shop.rows("select count(*) from gdpr.protected_table") == [(0,)]


def test_plan_comes_true(shop: Database) -> None:
    assert plan(shop, POLICY) == apply(shop, POLICY)


def test_second_apply_has_nothing_to_do(crm: Database) -> None:
    assert plan(crm, POLICY) == []
    assert apply(crm, POLICY) == []


def test_the_policy_in_force_is_the_policy_of_the_next_apply(crm: Database) -> None:
    in_force = crm.rows("select gdpr.policy()")[0][0]
    assert plan(crm, in_force) == []
    assert in_force["purposes"]["marketing"]["valid_for"] == "2 years"


def test_apply_is_one_transaction(shop: Database) -> None:
    """The last table cannot take its row policy: nothing of the first ones stays."""
    shop.connect("postgres").execute("""
        create function crm.stop() returns event_trigger language plpgsql as $$begin
          if exists (
            select from pg_event_trigger_ddl_commands() where object_identity ~ 'on crm.order_line$'
          ) then
            raise exception 'enough' using errcode = 'P0007';
          end if;
        end$$;
        create event trigger stop on ddl_command_end when tag in ('CREATE POLICY')
          execute function crm.stop();
    """)
    before = original(shop, "crm")
    with refused("P0007"):
        apply(shop, POLICY)
    assert original(shop, "crm") == before
    assert shop.rows("select count(*) from gdpr.protected_table") == [(0,)]
    assert shop.rows("select gdpr.policy()->'purposes'") == [({},)]


def test_two_applies_at_once_leave_one_policy(shop: Database) -> None:
    first = shop.connect(autocommit=False)
    first.execute("select count(*) from gdpr.apply(%s)", [json.dumps(POLICY)])
    second = shop.connect(options="-c lock_timeout=200ms")
    with refused("55P03"):
        second.execute("select count(*) from gdpr.apply(%s)", [json.dumps(POLICY)])
    first.commit()
    assert apply(shop, POLICY) == []


@pytest.mark.parametrize(
    "user", ["crm_app", "metabase", "portal_app", "dpo_login", "auditor_login"]
)
def test_only_an_administrator_plans_and_applies(crm: Database, user: str) -> None:
    for call in ("gdpr.plan('{}')", "gdpr.apply('{}')", "gdpr.unprotect('crm.lead')"):
        with refused("42501"):
            crm.rows(f"select * from {call}", user=user)


def test_an_administrator_without_the_tables_is_told_whose_they_are(shop: Database) -> None:
    shop.rows("create role steward login; grant gdpr_admin to steward", user="postgres")
    try:
        lines = problems(shop.connect("steward"), POLICY)
        assert (
            'tables."crm.customer": belongs to role db_owner; apply the policy as its owner'
            in lines
        )
    finally:
        shop.close()
        shop.rows("drop role steward", user="postgres")


def test_the_steps_of_apply_are_for_the_owner_of_the_table(crm: Database) -> None:
    crm.rows(
        "create role steward login; grant gdpr_admin to steward; grant usage on"
        " schema crm to steward",
        user="postgres",
    )
    try:
        steward = crm.connect("steward")
        for call in (
            "drop_views('crm.customer')",
            "settle_table('crm.customer')",
            "generate_views('crm.customer')",
            "begin_unprotect('crm.lead')",
        ):
            with refused("42501", "not_table_owner"):
                steward.execute(f"select gdpr_policy.{call}".encode())
    finally:
        crm.close()
        crm.rows("drop owned by steward; drop role steward", user="postgres")


# ---------------------------------------------------------------- names


NAMES = [
    ("public", "Kunde"),
    ("public", "customer list"),
    ("Verkauf Süd", "Kunden"),
    ("public", 'say "hi"'),
    ("public", "it's"),
    ("public", "100%s of %I"),
    ("public", "a.b"),
    ("public", "$body$"),
    ("public", "back\\slash"),
    ("public", "select"),
    ("public", "顧客"),
    ("public", "n" * 63),
]


@pytest.mark.parametrize(("schema", "table"), NAMES)
def test_any_name_of_a_table(db: Database, schema: str, table: str) -> None:
    where = f"{quoted(schema)}.{quoted(table)}"
    owner = db.connect()
    owner.execute(f"create schema if not exists {quoted(schema)}".encode())
    owner.execute(f"create table {where} (id integer primary key, email text, born date)".encode())
    owner.execute(f"insert into {where} values (1, 'a@example.com', '2000-01-01')".encode())
    owner.execute(f"grant usage on schema {quoted(schema)} to crm_app, dpo_login".encode())
    owner.execute(f"grant all on {where} to crm_app".encode())
    new = one_table(
        f"{schema}.{table}",
        columns={
            "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
            "born": {"category": "demographic", "encrypt": True, "mask": "year"},
        },
    )
    apply(db, new)
    assert plan(db, new) == []
    app = db.connect("crm_app")
    view = f"gdpr_clear.{quoted(table)}"
    app.execute(f"insert into {view} values (2, 'b@example.com', '2001-01-01')".encode())
    app.execute(f"update {view} set born = '2002-02-02' where id = 1".encode())
    assert app.execute(
        f"select id, email, born::text from {view} order by id".encode()
    ).fetchall() == [
        (1, "a@example.com", "2002-02-02"),
        (2, "b@example.com", "2001-01-01"),
    ]
    bi = db.rows(
        f"select id, email, born::text from gdpr_bi.{quoted(table)} where born is not null",
        user="metabase",
    )
    assert {row[2] for row in bi} == {"2002-01-01", "2001-01-01"}
    person = subject(db, where, 2)
    db.rows("select gdpr.erase(%s)", [person], user="dpo_login")
    db.rows("select gdpr.unprotect(%s::text::regclass)", [where])
    assert owner.execute(f"select * from {where}".encode()).fetchall()[0][1] == "a@example.com"


@pytest.mark.parametrize(
    "column",
    ["E-Mail", 'the "mail"', "mail's", "select", "100%s", "メール", "new", "$body$", "back\\slash"],
)
def test_any_name_of_a_column(db: Database, column: str) -> None:
    name = quoted(column)
    owner = db.connect()
    owner.execute(
        f"create table public.person (id integer primary key, {name} text unique)".encode()
    )
    owner.execute("insert into public.person values (1, 'a@example.com')")
    owner.execute("grant all on public.person to crm_app")
    settings = {
        "category": "contact",
        "identifier": "email",
        "encrypt": "searchable",
        "mask": "email",
    }
    new = one_table("public.person", match_on=[column], columns={column: settings})
    apply(db, new)
    assert plan(db, new) == []
    app = db.connect("crm_app")
    app.execute(f"insert into gdpr_clear.person (id, {name}) values (2, 'b@example.com')".encode())
    app.execute(f"update gdpr_clear.person set {name} = 'c@example.com' where id = 2".encode())
    found = app.execute(f"select {name} from gdpr_clear.person order by id".encode()).fetchall()
    assert found == [("a@example.com",), ("c@example.com",)]
    assert db.rows(
        f"select {name} from gdpr_bi.person where id is null limit 1", user="metabase"
    ) == [("a***@***.com",)]
    changed = db.rows(
        "select changed from gdpr.audit_log where operation = 'UPDATE'", user="dpo_login"
    )
    assert changed == [([column],)]
    db.rows("select gdpr.unprotect('public.person')")
    assert (
        owner.execute(f"select {name} from public.person order by 1".encode()).fetchall() == found
    )


@pytest.mark.parametrize("length", [50, 51])
def test_a_long_column_name(db: Database, length: int) -> None:
    column = "c" * length
    db.rows(f"create table public.person (id integer primary key, {column} text)")
    new = one_table("public.person", columns={column: {"encrypt": "searchable", "mask": "initial"}})
    apply(db, new)
    assert plan(db, new) == []


@pytest.mark.parametrize("length", [52, 60, 63])
def test_a_column_name_that_leaves_no_room_is_refused(db: Database, length: int) -> None:
    """The columns that apply() adds are named after it, and names end after 63 bytes."""
    column = "c" * length
    db.rows(f"create table public.person (id integer primary key, {column} text)")
    new = one_table("public.person", columns={column: {"encrypt": "searchable", "mask": "initial"}})
    assert any(column in line for line in problems(db, new))


def test_two_tables_of_one_name_get_two_views(db: Database) -> None:
    owner = db.connect()
    new: dict[str, Any] = one_table("a.person")
    for schema in ("a", "b"):
        owner.execute(f"create schema {schema}".encode())
        owner.execute(f"create table {schema}.person (id integer primary key, note text)".encode())
        owner.execute(f"insert into {schema}.person values (1, 'of {schema}')".encode())
        owner.execute(f"grant select on {schema}.person to crm_app".encode())
        new["tables"][f"{schema}.person"] = new["tables"]["a.person"]
    apply(db, new)
    assert plan(db, new) == []
    assert db.rows("select note from gdpr_clear.person", user="crm_app") == [("of a",)]
    assert db.rows("select note from gdpr_clear.b_person", user="crm_app") == [("of b",)]


def test_two_tables_whose_long_names_begin_alike(db: Database) -> None:
    new: dict[str, Any] = one_table("public." + "t" * 50 + "_one")
    for end in ("_one", "_two"):
        db.rows(f"create table public.{'t' * 50}{end} (id integer primary key)")
        new["tables"]["public." + "t" * 50 + end] = new["tables"]["public." + "t" * 50 + "_one"]
    apply(db, new)
    assert plan(db, new) == []


# ---------------------------------------------------------------- kinds of tables


def test_a_table_without_primary_key_is_read_and_inserted(db: Database) -> None:
    owner = db.connect()
    owner.execute("create table public.person (email text); grant all on public.person to crm_app")
    owner.execute("insert into public.person values ('a@example.com')")
    apply(
        db, one_table("public.person", columns={"email": {"encrypt": True, "identifier": "email"}})
    )
    app = db.connect("crm_app")
    app.execute("insert into gdpr_clear.person values ('b@example.com')")
    assert app.execute("select * from gdpr_clear.person order by 1").fetchall() == [
        ("a@example.com",),
        ("b@example.com",),
    ]
    with refused("PR408", "no_primary_key"):
        app.execute("update gdpr_clear.person set email = 'x@example.com'")
    with refused("PR408", "no_primary_key"):
        app.execute("delete from gdpr_clear.person")
    with refused("PR408", "no_primary_key"):
        subject(db, "public.person", 1)
    found = db.rows("select gdpr.find_subject('email', 'b@example.com')", user="dpo_login")[0][0]
    db.rows("select gdpr.erase(%s)", [found], user="dpo_login")
    assert app.execute("select * from gdpr_clear.person").fetchall() == [("a@example.com",)]


PARTITIONED = """
create table public.person (id integer, region text, email text, primary key (id, region))
  partition by list (region);
create table public.person_eu partition of public.person for values in ('eu');
create table public.person_us partition of public.person for values in ('us');
insert into public.person values (1, 'eu', 'a@example.com'), (2, 'us', 'b@example.com');
grant all on public.person, public.person_eu, public.person_us to crm_app;
"""
PARTITIONED_POLICY = one_table(
    "public.person",
    match_on=["email"],
    columns={
        "id": {"category": "key"},
        "region": {"category": "key"},
        "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
    },
)


def test_a_partitioned_table_is_protected_with_its_partitions(db: Database) -> None:
    db.connect().execute(PARTITIONED)
    apply(db, PARTITIONED_POLICY)
    assert plan(db, PARTITIONED_POLICY) == []
    assert findings(db) == set()
    app = db.connect("crm_app")
    everyone = "select id, region, email from gdpr_clear.person order by id"
    assert app.execute(everyone).fetchall() == [
        (1, "eu", "a@example.com"),
        (2, "us", "b@example.com"),
    ]
    app.execute("insert into gdpr_clear.person values (3, 'eu', 'c@example.com')")
    # to another partition, and directly into one
    app.execute("update gdpr_clear.person set region = 'us' where id = 1")
    app.execute(
        "insert into public.person_eu (id, region, email) values (4, 'eu', 'd@example.com')"
    )
    assert app.execute(everyone).fetchall() == [
        (1, "us", "a@example.com"),
        (2, "us", "b@example.com"),
        (3, "eu", "c@example.com"),
        (4, "eu", "d@example.com"),
    ]
    for part in ("person", "person_eu", "person_us"):
        stored = db.rows(f"select email from public.{part}", user="crm_app")
        assert stored
        assert all(value.startswith("gdpr1:") for (value,) in stored)
        with refused("42501"):
            db.rows(f"select * from public.{part}", user="portal_app")
    with refused("PR407", "truncate_refused"):
        app.execute("truncate public.person_eu")
    person = db.rows("select gdpr.find_subject('email', 'a@example.com')", user="dpo_login")[0][0]
    db.rows("select gdpr.erase(%s)", [person], user="dpo_login")
    assert app.execute("select count(*) from gdpr_clear.person").fetchall() == [(3,)]


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_row_keeps_its_person_on_its_way_to_another_partition(
    db: Database, encrypt: bool
) -> None:
    """Also one of whom nothing is matched, and nothing is encrypted."""
    db.connect().execute(PARTITIONED)
    policy = copy.deepcopy(PARTITIONED_POLICY)
    table = policy["tables"]["public.person"]
    table["match_on"] = []
    table["columns"]["email"]["encrypt"] = encrypt
    apply(db, policy)
    app = db.connect("crm_app")
    app.execute("insert into gdpr_clear.person values (3, 'eu', null)")
    # who brings a person's number without that person's mark is a person of its own
    app.execute(
        "insert into public.person (id, region, gdpr_subject_id, gdpr_subject_ref)"
        " select 4, 'eu', gdpr_subject_id, gen_random_uuid() from public.person where id = 1"
    )
    persons = "select id, gdpr_subject_id, gdpr_subject_ref from public.person order by id"
    before = db.rows(persons, user="postgres")
    assert len({person for _, person, _ in before}) == 4
    app.execute("update gdpr_clear.person set region = 'us' where region = 'eu'")
    assert db.rows(persons, user="postgres") == before
    assert app.execute("select region, email from gdpr_clear.person order by id").fetchall() == [
        ("us", "a@example.com"),
        ("us", "b@example.com"),
        ("us", None),
        ("us", None),
    ]


def test_a_partition_attached_later_is_found_and_taken_in(db: Database) -> None:
    db.connect().execute(PARTITIONED)
    apply(db, PARTITIONED_POLICY)
    db.rows("create table public.person_asia partition of public.person for values in ('asia')")
    assert {("row_security", "public.person_asia"), ("policies", "public.person_asia")} <= findings(
        db
    )
    assert apply(db, PARTITIONED_POLICY)
    assert findings(db) == set()
    assert plan(db, PARTITIONED_POLICY) == []


def test_a_partition_that_brings_rows_and_one_that_leaves(db: Database) -> None:
    """Attached with plaintext in it: found, and its rows go through the same door. Detached: the
    doctor says that nothing keeps it any more; attached again, all is well."""
    owner = db.connect()
    owner.execute(PARTITIONED)
    apply(db, PARTITIONED_POLICY)
    owner.execute(
        "create table public.person_old (like public.person including all);"
        " insert into public.person_old (id, region, email) values (7, 'old', 'o@example.com'),"
        " (8, 'old', 'A@example.com'); grant all on public.person_old to crm_app;"
        " alter table public.person attach partition public.person_old for values in ('old')"
    )
    assert ("policies", "public.person_old") in findings(db)
    app = db.connect("crm_app")
    everyone = "select id, email from gdpr_clear.person order by id"
    assert app.execute(everyone).fetchall() == [(1, "a@example.com"), (2, "b@example.com")]
    assert any("backfill_partition" in step[3] for step in apply(db, PARTITIONED_POLICY))
    assert plan(db, PARTITIONED_POLICY) == []
    assert findings(db) == set()
    after = [(1, "a@example.com"), (2, "b@example.com"), (7, "o@example.com"), (8, "A@example.com")]
    assert app.execute(everyone).fetchall() == after
    stored = app.execute("select starts_with(email, 'gdpr1:') from public.person_old").fetchall()
    assert stored == [(True,), (True,)]
    assert db.rows(
        "select count(distinct gdpr_subject_id) from public.person where id in (1, 8)",
        user="postgres",
    ) == [(1,)], "the same address, the same person"

    owner.execute("alter table public.person detach partition public.person_old")
    assert {("detached", "public.person_old"), ("drift", "public.person")} <= findings(db)
    apply(db, PARTITIONED_POLICY)
    assert findings(db) == {("detached", "public.person_old")}
    assert app.execute(everyone).fetchall() == after[:2]
    owner.execute(
        "alter table public.person attach partition public.person_old for values in ('old')"
    )
    apply(db, PARTITIONED_POLICY)
    assert findings(db) == set()
    assert app.execute(everyone).fetchall() == after


def test_unprotect_of_a_partitioned_table(db: Database) -> None:
    db.connect().execute(PARTITIONED)
    before = original(db, "public")
    apply(db, PARTITIONED_POLICY)
    db.rows("select gdpr.unprotect('public.person')")
    assert original(db, "public") == before


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        ("create view public.v as select 1 as id", "public.v", "is not a table"),
        ("create materialized view public.v as select 1 as id", "public.v", "is not a table"),
        (
            (
                "create foreign data wrapper w; create server s foreign data wrapper w;"
                " create foreign table public.v (id integer) server s"
            ),
            "public.v",
            "is not a table",
        ),
        (
            (
                "create table public.base (id integer); create table public.v () inherits"
                " (public.base)"
            ),
            "public.v",
            "inheritance",
        ),
        (
            "create table public.v (id integer); create table public.child () inherits (public.v)",
            "public.v",
            "inheritance",
        ),
        (
            (
                "create table public.v (id integer); create rule r as on delete to"
                " public.v do instead nothing"
            ),
            "public.v",
            "rules",
        ),
        (
            (
                "create table public.base (id integer) partition by list (id);"
                " create table public.v partition of public.base default"
            ),
            "public.v",
            "is a partition",
        ),
        ("create table public.v (id integer, gdpr_subject_id bigint)", "public.v", "gdpr_"),
        ("select", "public.nothing", "there is no such table"),
        ("select", "gdpr_internal.subject", "belongs to the system"),
        ("select", "pg_catalog.pg_class", "belongs to the system"),
    ],
)
def test_what_cannot_be_protected_is_refused_with_the_reason(
    db: Database, make: str, name: str, reason: str
) -> None:
    db.rows(make.replace("create foreign", "create foreign"), user="postgres")
    lines = problems(db, one_table(name))
    assert any(line.startswith(f'tables."{name}"') and reason in line for line in lines), lines


# ---------------------------------------------------------------- contradictions


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"tables__crm.customer__columns__mail": {}},
            'tables."crm.customer".columns."mail": the table has no such column',
        ),
        ({"tables__crm.customer__colums": {}}, "unknown setting"),
        ({"purpose": {}}, "unknown setting"),
        ({"tables": []}, "tables: has to be a table of settings"),
        ({"tables__crm.customer": "self"}, "has to be a table of settings"),
        ({"tables__crm.customer__mode": "off"}, '.mode: "enforce" or "observe"'),
        ({"tables__crm.customer__blocklist": "no"}, '.blocklist: "refuse" or "warn"'),
        ({"tables__crm.customer__purposes": []}, ".purposes: at least one"),
        ({"tables__crm.customer__purposes": ["fun"]}, '.purposes: there is no purpose "fun"'),
        (
            {"tables__crm.customer__match_on": ["city"]},
            '.match_on: "city" is not declared with an identifier',
        ),
        (
            {"tables__crm.order__match_on": ["note"]},
            ".match_on: is for tables whose rows are persons",
        ),
        (
            {"tables__crm.order__subject": {"via": "total"}},
            ".subject.via: there is no foreign key over (total)",
        ),
        ({"tables__crm.order__subject": "parent"}, ".subject:"),
        ({"tables__crm.customer": ...}, "crm.customer is not protected"),
        ({"tables__crm.customer__erase": "burn"}, '.erase: "delete" or "anonymise"'),
        (
            {
                "tables__crm.customer__erase": {
                    "keep_until": "7 years after city",
                    "then": "anonymise",
                }
            },
            "keep_until",
        ),
        (
            {"tables__crm.customer__erase": {"keep_until": "soon after created_at"}},
            "is not a duration",
        ),
        ({"tables__crm.customer__erase": {"keep_until": ["7 years"]}}, "keep_until"),
        (
            {"tables__crm.lead__erase": "anonymise", "tables__crm.lead__columns__score": ...},
            'every column classified, "score" is not',
        ),
        (
            {"tables__crm.customer__columns__city__encrypt": "maybe"},
            '.encrypt: true, false or "searchable"',
        ),
        (
            {"tables__crm.customer__columns__city__encrypt": "yes"},
            '.encrypt: true, false or "searchable"',
        ),
        # taken for anything but true, it would leave the column open to redacted views
        ({"tables__crm.customer__columns__city__sensitive": "yes"}, ".sensitive: true or false"),
        ({"tables__crm.customer__columns__city__sensitive": 1}, ".sensitive: true or false"),
        ({"tables__crm.customer__columns__city__mask": "black"}, ".mask: one of"),
        (
            {"tables__crm.customer__columns__phone__mask": "show"},
            "a sensitive column cannot be shown",
        ),
        ({"tables__crm.customer__columns__city__mask": "year"}, "year is for dates"),
        ({"tables__crm.customer__columns__birth_date__mask": "initial"}, "initial is for text"),
        ({"tables__crm.customer__columns__phone__sensitive": False}, "contradict each other"),
        (
            {"tables__crm.customer__columns__phone__identifier": "fax"},
            ".identifier: one of email, phone, text",
        ),
        (
            {"tables__crm.customer__columns__phone__canonical": "exact"},
            "an identifier is compared in its canonical form",
        ),
        ({"tables__crm.customer__columns__phone__erase": "keep"}, "ciphertext cannot be kept"),
        ({"tables__crm.customer__columns__last_name__erase": "null"}, "the column is NOT NULL"),
        ({"tables__crm.customer__columns__id__encrypt": True}, "is part of the primary key"),
        ({"tables__crm.customer__columns__email__encrypt": True}, 'needs encrypt = "searchable"'),
        ({"tables__crm.order__columns__customer_id__encrypt": True}, "is part of a foreign key"),
        ({"purposes__marketing__basis": "because"}, "purposes.marketing.basis: one of"),
        ({"purposes__orders__valid_for": "2 years"}, "are for consent"),
        ({"purposes__marketing__valid_for": "soon"}, "is not a duration"),
        ({"purposes__marketing__valid_for": "-1 day"}, "longer than nothing"),
        ({"purposes__marketing__while_waiting": "hope"}, 'while_waiting: "allow" or "lock"'),
        ({"purposes__Very Bad": {"basis": "contract"}}, "a name is lower case"),
        ({"purposes__compliance": {"basis": "contract"}}, "is built in"),
        (
            {"roles__nobody_here": {"audience": "clear", "purposes": ["orders"]}},
            "there is no such role",
        ),
        (
            {"roles__crm_app__audience": "everyone"},
            '.audience: "clear", "bi", "export", "api", "integration" or "mail"',
        ),
        ({"roles__crm_app__purposes": []}, ".purposes: at least one"),
        ({"roles__crm_app__purposes": ["compliance"]}, "compliance belongs to gdpr_dpo"),
        ({"roles__metabase__purposes": ["maintenance"]}, "needs audience clear"),
        ({"roles__crm_app__may": ["erase"]}, '.may: "basis", "consent", "disclose" and "rectify"'),
        ({"roles__gdpr_dpo": {"audience": "bi", "purposes": ["orders"]}}, "is gdprdb's own"),
        ({"roles__postgres": {"audience": "clear", "purposes": ["orders"]}}, "superuser"),
        ({"settings__phone_country_code": "+49"}, "digits"),
        ({"settings__portal": {"reports": 0}}, "settings.portal.reports"),
        ({"settings__portal": {"reports": "many"}}, "settings.portal.reports"),
        ({"tables__crm.customer__purposes": None}, ".purposes: at least one"),
    ],
)
def test_a_contradiction_is_refused_and_nothing_changes(
    shop: Database, changes: dict[str, Any], reason: str
) -> None:
    before = original(shop, "crm")
    lines = problems(shop, policy(**changes))
    assert any(reason in line for line in lines), lines
    with refused("PR001", "policy_refused"):
        apply(shop, policy(**changes))
    assert original(shop, "crm") == before


def test_every_problem_is_named_at_once(undone: psycopg.Connection) -> None:
    lines = problems(
        undone,
        policy(
            **{
                "purposes__orders__basis": "because",
                "roles__crm_app__audience": "all",
                "tables__crm.customer__mode": "off",
            }
        ),
    )
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("ddl", "reason"),
    [
        ("alter table crm.customer add check (customer is not null)", "the row as a whole"),
        ("create view crm.phones as select phone from crm.customer", "depends on the column"),
        (
            (
                "alter table crm.customer add phone_digits text generated always as"
                " (ltrim(phone, '+')) stored"
            ),
            "phone",
        ),
        (
            (
                "alter table crm.customer alter phone set default '+49', add digits text"
                " generated always as"
                " (ltrim(phone, '+')) stored"
            ),
            "phone",
        ),
        ("create unique index on crm.customer (phone, last_name)", "needs encrypt"),
        ("create unique index on crm.customer (lower(phone))", "needs encrypt"),
        ("create policy p on crm.customer using (phone is not null)", "depends on the column"),
        (
            (
                "create trigger t before update of phone on crm.customer for each row"
                " when (new.phone like '+%') execute function suppress_redundant_updates_trigger()"
            ),
            "in its WHEN",
        ),
        ("alter table crm.customer alter phone type xml using null", "cannot be encrypted"),
        (
            (
                "create collation crm.ci (provider = icu, locale = 'und-u-ks-level2',"
                " deterministic = false);"
                " alter table crm.customer alter phone type text collate crm.ci"
            ),
            "nondeterministic collation",
        ),
    ],
)
def test_what_encryption_would_break_is_refused(
    undone: psycopg.Connection, ddl: str, reason: str
) -> None:
    """A constraint or object over the column would from now on see ciphertext."""
    try:
        undone.execute(ddl.encode())
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL was built without ICU")
    new = policy(
        **{"tables__crm.customer__columns__phone": {"category": "contact", "encrypt": True}}
    )
    lines = problems(undone, new)
    assert any(
        line.startswith('tables."crm.customer".columns."phone"') and reason in line
        for line in lines
    ), lines


def test_values_that_become_equal_are_counted_before_anything_changes(shop: Database) -> None:
    shop.rows(
        "insert into crm.customer (email, last_name) values ('ANNA@Example.com',"
        " 'A'), ('Straße@x.de', 'B'), ('strasse@x.de', 'C')"
    )
    before = original(shop, "crm")
    assert problems(shop, POLICY) == [
        (
            'tables."crm.customer".columns."email": is UNIQUE, and 2 of its values are'
            " written in several ways"
            ' that become one (see canonical = "exact")'
        )
    ]
    assert original(shop, "crm") == before
    exact = {"category": "contact", "encrypt": "searchable", "canonical": "exact"}
    changes = {"tables__crm.customer__columns__email": exact, "tables__crm.customer__match_on": []}
    apply(shop, policy(**changes))
    found = shop.rows(
        "select count(*) from gdpr_clear.customer where email_digest ="
        " gdpr.digest('exact', 'ANNA@Example.com')",
        user="crm_app",
    )
    assert found == [(1,)]


def test_a_column_named_as_a_digest_is_refused(undone: psycopg.Connection) -> None:
    """The clear view adds <column>_digest: the table must not have such a column."""
    undone.execute(
        "create table crm.person (id integer primary key, email text, email_digest text)"
    )
    new = one_table("crm.person", columns={"email": {"encrypt": "searchable"}})
    assert any("email_digest" in line for line in problems(undone, new))


def test_no_key_no_protection(shop: Database) -> None:
    shop.rows("truncate gdpr_internal.key_encryption_key", user="postgres")
    assert problems(shop, POLICY) == [
        "keys: there is no key-encryption key; call gdpr.create_key() first"
    ]


def test_an_empty_policy_is_a_policy_and_null_is_not(db: Database) -> None:
    assert apply(db, {}) == []
    for nothing in ("null", "'null'", "'[]'"):
        with refused("PR001", "policy_refused"):
            db.rows(f"select * from gdpr.plan({nothing})")


# ---------------------------------------------------------------- a policy that changes


CUSTOMER = (
    "select id, email, phone, last_name, birth_date::text, city from"
    " gdpr_clear.customer order by id"
)


@pytest.mark.parametrize(
    "changes",
    [
        {"tables__crm.customer__columns__city": {"category": "contact", "encrypt": True}},
        {
            "tables__crm.customer__columns__last_name": {
                "category": "identity",
                "encrypt": "searchable",
            }
        },
        {"tables__crm.customer__columns__phone__mask": "initial"},
        {"tables__crm.customer__columns__phone__mask": "pseudonym"},
        {"tables__crm.customer__columns__birth_date__mask": "hide"},
        {"tables__crm.customer__columns__phone__encrypt": "searchable"},
        {"tables__crm.customer__columns__last_name__mask": "pseudonym"},
        {"tables__crm.customer__columns__city__identifier": "text"},
        {"tables__crm.customer__columns__created_at": ...},
        {"tables__crm.customer__blocklist": "warn"},
        {"tables__crm.customer__mode": "observe"},
        {"tables__crm.customer__purposes": ["orders"]},
        {"tables__crm.customer__match_on": []},
        {"purposes__marketing__valid_for": "1 year"},
        {"purposes__fun": {"basis": "consent"}},
        {"roles__metabase__purposes": ["analytics", "orders"]},
    ],
)
def test_a_changed_policy_is_followed_by_the_rows(crm: Database, changes: dict[str, Any]) -> None:
    """There and back: the data is the same, the second apply has nothing to do, the doctor is
    content."""
    data = crm.rows(CUSTOMER, user="crm_app")
    new = policy(**changes)
    assert apply(crm, new)
    assert plan(crm, new) == []
    assert findings(crm) - {("unclassified", "crm.customer")} == set()
    assert crm.rows(CUSTOMER, user="crm_app") == data
    crm.rows(
        "update gdpr_clear.customer set phone = phone || '0', city = 'Ulm' where id = 1",
        user="crm_app",
    )
    crm.rows(
        "update gdpr_clear.customer set phone = '+49 711 1001', city = 'Aalen' where id = 1",
        user="crm_app",
    )
    encrypts = any("encrypt" in str(key) + str(value) for key, value in changes.items())
    if not encrypts:
        # a purpose, once declared, stays: evidence points at it
        assert apply(crm, POLICY) or "purposes__fun" in changes
        assert plan(crm, POLICY) == []
    assert crm.rows(CUSTOMER, user="crm_app") == data


def test_encryption_is_not_taken_away_in_passing(crm: Database) -> None:
    plain = policy(
        **{"tables__crm.customer__columns__phone": {"category": "contact", "identifier": "phone"}}
    )
    assert problems(crm, plain) == [
        'tables."crm.customer".columns."phone": is encrypted; unprotect the table to take that away'
    ]
    assert problems(crm, policy(**{"tables__crm.customer__columns__phone": ...}))


def test_from_encrypted_to_searchable_and_its_digests(crm: Database) -> None:
    apply(crm, policy(**{"tables__crm.customer__columns__phone__encrypt": "searchable"}))
    found = crm.rows(
        "select id from gdpr_clear.customer where phone_digest = gdpr.digest('phone', '0711 1002')",
        user="crm_app",
    )
    assert found == [(2,)]


def test_a_table_left_out_of_the_policy_is_still_protected(crm: Database) -> None:
    """Silence takes no protection away: only unprotect() does."""
    apply(crm, policy(**{"tables__crm.lead": ...}))
    assert crm.rows("select gdpr.policy()->'tables' ? 'crm.lead'") == [(True,)]
    with refused("PR407", "truncate_refused"):
        crm.rows("truncate crm.lead")
    assert findings(crm) == set()


def test_a_role_left_out_loses_its_purposes(crm: Database) -> None:
    crm.rows("create role temp_app login", user="postgres")
    try:
        crm.rows(
            "grant usage on schema crm to temp_app; grant select on all tables in"
            " schema crm to temp_app"
        )
        apply(
            crm,
            policy(
                roles__temp_app={
                    "audience": "clear",
                    "purposes": ["orders"],
                    "may": ["consent"],
                }
            ),
        )
        assert crm.rows("select count(*) from gdpr_clear.customer", user="temp_app") == [(3,)]
        assert [step[2] for step in apply(crm, POLICY)] == ["unbind"]
        for statement in (
            "select * from gdpr_clear.customer",
            "select gdpr.withdraw_consent(1, 'marketing')",
        ):
            with refused("42501"):
                crm.rows(statement, user="temp_app")
        with refused("42501", "no_purpose"):
            crm.rows("select * from crm.customer", user="temp_app")
    finally:
        crm.rows("drop owned by temp_app; drop role temp_app", user="postgres")


def test_observe_locks_nothing_and_still_encrypts(shop: Database) -> None:
    apply(shop, policy(**{"tables__crm.customer__mode": "observe"}))
    assert shop.rows("select count(*) from crm.customer", user="postgres") == [(3,)]
    person = subject(shop, "crm.customer", 1)
    shop.rows("select gdpr.restrict(%s, 'other')", [person], user="dpo_login")
    assert shop.rows("select count(*) from gdpr_clear.customer", user="crm_app") == [(3,)]
    assert shop.rows("select count(*) from crm.customer") == [(3,)]
    assert shop.rows("select bool_and(email like 'gdpr1:%') from crm.customer") == [(True,)]
    apply(shop, POLICY)
    assert shop.rows("select count(*) from gdpr_clear.customer", user="crm_app") == [(2,)]


def test_a_changed_list_of_purposes_reaches_the_rows(crm: Database) -> None:
    """What a table may no longer be used for is hidden at once; what it may be used for from now
    on is seen."""
    count = "select count(*) from gdpr_bi.customer"
    assert crm.rows(count, user="metabase") == [(3,)]
    apply(crm, policy(**{"tables__crm.customer__purposes": ["orders", "marketing"]}))
    assert crm.rows(count, user="metabase") == [(0,)]
    assert crm.rows("select count(*) from gdpr_clear.customer", user="crm_app") == [(3,)]
    apply(crm, POLICY)
    assert crm.rows(count, user="metabase") == [(3,)]
    apply(
        crm,
        policy(
            **{
                "purposes__service": {"basis": "contract"},
                "tables__crm.customer__purposes": ["orders", "analytics", "service"],
                "roles__metabase__purposes": ["service"],
            }
        ),
    )
    assert crm.rows(count, user="metabase") == [(3,)]
    apply(crm, POLICY)


def test_a_purpose_that_comes_to_rest_on_consent_waits_for_it(crm: Database) -> None:
    """From legitimate interests to consent: who has not consented is not analysed any more."""
    apply(crm, policy(purposes__analytics={"basis": "consent", "grace": False}))
    person = subject(crm, "crm.customer", 1)
    assert crm.rows("select count(*) from gdpr_bi.customer", user="metabase") == [(0,)]
    crm.rows(
        "select gdpr.record_consent(%s, 'analytics', true, 'in_person')", [person], user="dpo_login"
    )
    assert crm.rows("select count(*) from gdpr_bi.customer", user="metabase") == [(1,)]


def test_purposes_keep_their_bit(crm: Database) -> None:
    """Evidence points at a purpose: taking it out of the policy gives its bit to nobody."""
    new = policy(
        purposes__analytics=...,
        purposes__aardvark={"basis": "contract"},
        roles__metabase__purposes=["orders"],
    )
    for table in new["tables"].values():
        table["purposes"] = [name for name in table["purposes"] if name != "analytics"]
    apply(crm, new)
    bits = dict(
        crm.rows("select name, id from gdpr_internal.purpose where id < 62", user="postgres")
    )
    assert len(set(bits.values())) == len(bits) == 4


def test_sixty_two_purposes_and_no_more(db: Database) -> None:
    purposes = {f"p{n}": {"basis": "contract"} for n in range(62)}
    assert len(apply(db, {"purposes": purposes})) == 62
    lines = problems(db, {"purposes": {**purposes, "p62": {"basis": "contract"}}})
    assert lines == ["purposes: at most 62, those used before counted"]
    db.rows(
        "create table public.person (id integer primary key); grant all on public.person to crm_app"
    )
    everything = {
        "purposes": purposes,
        "roles": {"crm_app": {"audience": "clear", "purposes": ["p61"]}},
        "tables": {"public.person": {"purposes": list(purposes), "columns": {}}},
    }
    apply(db, everything)
    db.rows("insert into public.person values (1)", user="crm_app")
    assert db.rows("select id from public.person", user="crm_app") == [(1,)]


# ---------------------------------------------------------------- drift


@pytest.mark.parametrize(
    ("drift", "check"),
    [
        ("alter table crm.customer disable trigger zzz_gdpr_40_protect", "triggers"),
        ("alter table crm.customer enable trigger zzz_gdpr_05_guard", "triggers"),
        ("alter table crm.order disable trigger zzz_gdpr_10_subject", "drift"),
        ("drop trigger zzz_gdpr_40_truncate on crm.customer", "triggers"),
        ("drop policy gdpr_40_gate on crm.customer", "policies"),
        ("alter policy gdpr_40_gate on crm.customer using (true)", "drift"),
        ("alter policy gdpr_40_base on crm.customer to crm_app", "drift"),
        ("alter table crm.customer no force row level security", "row_security"),
        ("alter table crm.customer disable row level security", "row_security"),
        ("alter table crm.customer add nickname text", "unclassified"),
        ("alter table crm.customer alter last_name drop not null", "drift"),
        ("drop index crm.customer_gdpr_subject_id_idx", "drift"),
        ("alter table crm.customer drop constraint customer_email_key", "drift"),
        (
            (
                "drop trigger zzz_gdpr_50_audit on crm.customer; create trigger"
                " zzz_gdpr_50_audit after insert or delete"
                " on crm.customer for each row when (false) execute function"
                " gdpr_policy.guard_gate();"
                " alter table crm.customer enable always trigger zzz_gdpr_50_audit"
            ),
            "drift",
        ),
    ],
)
def test_drift_is_found_planned_and_mended(crm: Database, drift: str, check: str) -> None:
    statement = drift.replace("crm.order ", 'crm."order" ')
    crm.connect().execute(statement.encode())
    assert check in {found for found, _ in findings(crm)}
    assert plan(crm, POLICY)
    assert apply(crm, POLICY)
    assert plan(crm, POLICY) == []
    assert findings(crm) - {("unclassified", "crm.customer")} == set()
    assert len(crm.rows(CUSTOMER, user="crm_app")) == 3


def test_a_new_column_shows_when_the_policy_names_it(crm: Database) -> None:
    crm.rows("alter table crm.customer add nickname text default 'Spatz'")
    apply(crm, POLICY)
    shown = "select distinct nickname from gdpr_clear.customer"
    with refused("42703"):
        crm.rows(shown, user="crm_app")
    new = policy()
    new["tables"]["crm.customer"]["columns"]["nickname"] = {"category": "identity"}
    apply(crm, new)
    assert crm.rows(shown, user="crm_app") == [("Spatz",)]
    assert crm.rows("select distinct nickname from gdpr_bi.customer", user="metabase") == [
        ("Spatz",)
    ]


# ---------------------------------------------------------------- unprotect


ODDS_AND_ENDS = """
create schema zoo;
create table zoo.thing (
  id bigint generated by default as identity primary key,
  a text collate "C" default 'none',
  b varchar(20) default 'b' not null,
  c char(6) default 'c',
  d date default date '2000-01-01',
  e timestamptz default now(),
  f timestamp(3) default '2000-01-01 00:00:00',
  g numeric(12, 4) default 0.5,
  h integer default 42 not null,
  i bigint default 7,
  j smallint,
  k boolean default false,
  l uuid default gen_random_uuid(),
  m inet default '127.0.0.1',
  n jsonb default '{}',
  o json,
  p text[] default '{}',
  q bytea default '\\x00',
  r double precision default 1.5,
  s interval default '1 day',
  t varchar(5)[] default '{}',
  u real,
  v time default '12:00',
  w date[],
  x cidr,
  y numeric,
  z name,
  plain text default 'plain',
  unique (b) deferrable initially deferred
);
create index thing_a on zoo.thing (a text_pattern_ops);
create index thing_dp on zoo.thing (d, plain) where k;
create unique index thing_h on zoo.thing (h);
create index thing_lower on zoo.thing (lower(a)) with (fillfactor = 70);
alter table zoo.thing add constraint thing_c unique (c);
alter table zoo.thing alter a set statistics 200;
alter table zoo.thing enable row level security;
create policy everyone on zoo.thing using (true);
grant select (id, b) on zoo.thing to crm_app;
grant update on zoo.thing to metabase;
insert into zoo.thing (b, h, c) values ('first', 1, 'x'), ('Zwölf Ämter', 2, null);
insert into zoo.thing (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t, u, v, w, x, y, z)
values (
  E'tab\\tquote\\'"\\\\', '', 'ab', '0044-03-15 BC', 'infinity', '1999-12-31 23:59:59.999', -1.25,
    3, -9e15, -5, true,
  '2001:db8::1/64', '{"a": [1, 2.50, null]}', '{"b":  1, "b": 2}', '{"a b", NULL, "x\\"y"}',
    '\\xdeadbeef', 'NaN',
  '-1 year 2 mons -3 days 04:05:06.789', '{abc,de}', 3.4e38, '23:59:59.999999',
    '{2020-02-29,infinity}', '10.0.0.0/8',
  123456789012345678901234567890.12345678901234567890, 'somebody'
);
"""


def zoo_policy() -> dict[str, Any]:
    """Every column of zoo.thing but its key is encrypted."""
    encrypt: dict[str, dict[str, Any]] = {
        name: {"encrypt": "searchable" if name in "bch" else True}
        for name in "abcdefghijklmnopqrstuvwxyz"
    }
    for name in "bc":
        encrypt[name]["canonical"] = "exact"
    return one_table("zoo.thing", columns=encrypt)


def test_unprotect_gives_back_the_table_that_was(shop: Database) -> None:
    before = original(shop, "crm")
    apply(shop, POLICY)
    for table in ("crm.lead", "crm.order_line", 'crm."order"', "crm.customer"):
        shop.rows("select gdpr.unprotect(%s::text::regclass)", [table])
    assert original(shop, "crm") == before


def test_unprotect_gives_back_types_defaults_indexes_constraints_and_flags(db: Database) -> None:
    db.connect().execute(ODDS_AND_ENDS)
    before = original(db, "zoo")
    apply(db, zoo_policy())
    assert plan(db, zoo_policy()) == []
    assert db.rows(
        "select count(*) from zoo.thing where a like 'gdpr1:%' and g like 'gdpr1:%'",
        user="postgres",
    ) == [(3,)]
    db.rows("select gdpr.unprotect('zoo.thing')")
    assert original(db, "zoo") == before


def test_unprotect_after_changes_of_the_policy(shop: Database) -> None:
    before = original(shop, "crm")
    apply(shop, POLICY)
    apply(
        shop,
        policy(
            **{
                "tables__crm.customer__columns__city": {"category": "contact", "encrypt": True},
                "tables__crm.customer__columns__last_name": {
                    "category": "identity",
                    "encrypt": "searchable",
                    "mask": "initial",
                },
                "tables__crm.customer__mode": "observe",
            }
        ),
    )
    for table in ("crm.lead", "crm.order_line", 'crm."order"', "crm.customer"):
        shop.rows("select gdpr.unprotect(%s::text::regclass)", [table])
    assert original(shop, "crm") == before


def test_unprotect_keeps_comments_of_what_it_recreates(shop: Database) -> None:
    owner = shop.connect()
    owner.execute("comment on constraint customer_email_key on crm.customer is 'one account each'")
    owner.execute("comment on column crm.customer.email is 'their address'")
    apply(shop, POLICY)
    for table in ("crm.lead", "crm.order_line", 'crm."order"', "crm.customer"):
        shop.rows("select gdpr.unprotect(%s::text::regclass)", [table])
    assert shop.rows(
        "select col_description('crm.customer'::regclass, 2), obj_description(oid, 'pg_constraint')"
        " from pg_constraint where conname = 'customer_email_key'"
    ) == [("their address", "one account each")]


def test_unprotect_and_protect_again_finds_the_same_person(crm: Database) -> None:
    person = subject(crm, "crm.customer", 1)
    for table in ("crm.lead", "crm.order_line", 'crm."order"', "crm.customer"):
        crm.rows("select gdpr.unprotect(%s::text::regclass)", [table])
    apply(crm, POLICY)
    assert plan(crm, POLICY) == []
    assert subject(crm, "crm.customer", 1) == person
    assert findings(crm) == set()


def test_unprotect_of_a_parent_names_the_child(crm: Database) -> None:
    with refused("PR004", "invalid_argument") as error:
        crm.rows("select gdpr.unprotect('crm.customer')")
    assert "order" in (error.value.diag.message_detail or "")
    crm.rows("create table crm.free (id integer)")
    with refused("PR002", "not_protected"):
        crm.rows("select gdpr.unprotect('crm.free')")


def test_unprotect_leaves_the_evidence(crm: Database) -> None:
    crm.rows(
        "update gdpr_clear.lead set score = 9 where id = 1", user="dpo_login"
    ) if False else None
    count = crm.rows("select count(*) from gdpr.source", user="dpo_login")
    crm.rows("select gdpr.unprotect('crm.lead')")
    assert crm.rows("select count(*) from gdpr.source", user="dpo_login") == count
    events = crm.rows(
        "select old->>'table' from gdpr.audit_log where operation = 'UNPROTECT'", user="dpo_login"
    )
    assert events == [("crm.lead",)]


# ---------------------------------------------------------------- context


def test_context_lasts_for_the_transaction(crm: Database) -> None:
    app = crm.connect("crm_app", autocommit=False)
    app.execute("select gdpr.set_context('anna@desk', 'marketing', '{\"kind\": \"api\"}', 'r-1')")
    assert app.execute("select current_setting('gdpr.purpose')").fetchone() == ("marketing",)
    app.commit()
    assert app.execute("select current_setting('gdpr.purpose')").fetchone() == ("",)
    assert app.execute("select count(*) from gdpr_clear.customer").fetchone() == (3,)


def test_context_refuses_foreign_purposes_and_odd_sources(crm: Database) -> None:
    with refused("42501", "purpose_not_held"):
        crm.rows("select gdpr.set_context(p_purpose => 'analytics')", user="crm_app")
    with refused("42501", "purpose_not_held"):
        crm.rows("select gdpr.set_context(p_purpose => 'no such thing')", user="crm_app")
    for source in ('{"kind": "rumour"}', "{}", "[]", '"api"'):
        with refused("PR004", "invalid_argument"):
            crm.rows("select gdpr.set_context(p_source => %s)", [source], user="crm_app")


def test_settings_are_read_by_every_officer(crm: Database) -> None:
    for user in ("db_owner", "dpo_login", "auditor_login"):
        assert crm.rows("select * from gdpr.settings", user=user) == [("phone_country_code", "49")]
        assert len(crm.rows("select * from gdpr.protected_table", user=user)) == 4
        assert len(crm.rows("select * from gdpr.protected_column", user=user)) == 16


@pytest.fixture(scope="module")
def spelt(clone: Clone, installed_template: str) -> Iterator[Database]:
    """A table of values that are all different."""
    with clone(installed_template) as database:
        database.rows("create table public.spelt (value text unique)")
        yield database


@given(st.lists(st.text("aA1@.-+ \t\nxn\u00dfS\u017f\u00a0\u3002\u00e9", max_size=8), unique=True))
@settings(max_examples=60, deadline=None)
def test_plan_finds_the_values_that_become_one(spelt: Database, values: list[str]) -> None:
    """Its short cuts for plain ASCII say the same as the canonical forms themselves."""
    with spelt.connect(autocommit=False) as owner:
        owner.cursor().executemany(
            "insert into public.spelt values (%s)", [(value,) for value in values]
        )
        for kind in ("email", "phone", "text", "exact"):
            (query,) = owner.execute(
                "select gdpr_policy.collision_query('public.spelt', 'value', %s)", [kind]
            ).fetchone() or ("",)
            assert (
                owner.execute(query).fetchone()
                == owner.execute(
                    "select count(*) from (select from public.spelt"
                    " group by gdpr_policy.canonical_of(%s, value) having count(*) > 1) as c",
                    [kind],
                ).fetchone()
            )
        owner.rollback()
