"""gdpr.reshape(): the tables of an application change under protection."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import (
    apply,
    findings,
    one_table,
    plan,
    policy,
    problems,
    refused,
    subject,
)
from tests.support import Clone, Database

CUSTOMERS = (
    "select id, email, phone, last_name, birth_date, city from gdpr_clear.customer order by id"
)


def reshape(db: Database, table: str, *statements: str, user: str = "db_owner") -> list[Any]:
    """What changed in a table by these statements."""
    return [
        row[1:]
        for row in db.rows(
            "select * from gdpr.reshape(%s::text::regclass, %s)",
            [table, list(statements)],
            user=user,
        )
    ]


def sound(db: Database) -> bool:
    """Whether the doctor finds nothing."""
    assert findings(db) == set()
    return True


def test_a_column_that_is_renamed_stays_encrypted_and_readable(crm: Database) -> None:
    before = crm.rows(CUSTOMERS, user="crm_app")
    assert reshape(crm, "crm.customer", "alter table crm.customer rename birth_date to born") == [
        ("column renamed", "birth_date", "born")
    ]
    after = crm.rows(CUSTOMERS.replace("birth_date", "born"), user="crm_app")
    assert after == before
    assert sound(crm)


def test_a_searchable_identifier_is_renamed_with_its_digest_mask_and_uniqueness(
    crm: Database,
) -> None:
    reshape(crm, "crm.customer", "alter table crm.customer rename email to mail")
    found = crm.rows(
        "select id from gdpr_clear.customer where mail_digest = gdpr.digest('email', %s)",
        ["ANNA@example.com"],
        user="crm_app",
    )
    assert found == [(1,)]
    assert crm.rows("select mail from gdpr_bi.customer order by 1", user="metabase")[0] == (
        "a***@***.com",
    )
    with refused("23505"):
        crm.rows(
            "insert into gdpr_clear.customer (mail, last_name) values ('bela@example.com', 'x')",
            user="crm_app",
        )
    assert subject(crm, "crm.customer", 1) == subject(crm, "crm.lead", 1)
    assert sound(crm)


def test_two_columns_that_change_places_keep_their_own_protection(crm: Database) -> None:
    before = crm.rows(CUSTOMERS, user="crm_app")
    reshape(
        crm,
        "crm.customer",
        "alter table crm.customer rename email to spare",
        "alter table crm.customer rename birth_date to email",
        "alter table crm.customer rename spare to birth_date",
    )
    after = crm.rows(
        "select id, birth_date, phone, last_name, email, city from gdpr_clear.customer order by id",
        user="crm_app",
    )
    assert after == before
    definition = crm.rows("select gdpr.policy() -> 'tables' -> 'crm.customer'")[0][0]
    assert definition["match_on"] == ["birth_date"]
    assert definition["columns"]["birth_date"]["identifier"] == "email"
    assert definition["columns"]["email"]["mask"] == "year"
    assert sound(crm)


def test_a_table_that_is_renamed_takes_views_children_and_history_along(crm: Database) -> None:
    crm.rows("update gdpr_clear.customer set city = 'Aachen' where id = 1", user="crm_app")
    changes = reshape(crm, "crm.customer", "alter table crm.customer rename to client")
    assert changes == [("table renamed", "crm.customer", "crm.client")]
    assert crm.rows("select city from gdpr_clear.client where id = 1", user="crm_app") == [
        ("Aachen",)
    ]
    views = crm.rows(
        "select schemaname from pg_views where viewname = 'client' and schemaname like 'gdpr%%'"
    )
    assert len(views) == 5
    assert crm.rows("select from pg_views where viewname = 'customer'") == []
    # a child finds its parent, an invoice of a client
    crm.rows('insert into gdpr_clear."order" (customer_id, total) values (1, 5)', user="crm_app")
    assert crm.rows(
        "select distinct table_name::text from gdpr.audit_log where changed = '{city}'",
        user="auditor_login",
    ) == [("crm.client",)]
    versions = crm.rows(
        "select operation, content ->> 'city' from gdpr.history('crm.client', '1')",
        user="dpo_login",
    )
    assert versions == [("UPDATE", "Aachen"), (None, "Aalen")]
    report = crm.rows(
        "select gdpr.access_report(%s)", [subject(crm, "crm.client", 1)], user="dpo_login"
    )
    assert "crm.client" in str(report)
    assert sound(crm)


def test_a_table_that_moves_to_another_schema_is_followed(crm: Database) -> None:
    crm.rows("create schema sales")
    crm.rows("grant usage on schema sales to crm_app")
    reshape(crm, "crm.lead", "alter table crm.lead set schema sales")
    assert crm.rows("select count(*) from gdpr_clear.lead", user="crm_app") == [(0,)]
    crm.rows("insert into gdpr_clear.lead (email) values ('anna@example.com')", user="postgres")
    assert sound(crm)
    assert "sales.lead" in crm.rows("select gdpr.policy()")[0][0]["tables"]


def test_a_new_column_shows_nowhere_until_it_is_classified(crm: Database) -> None:
    assert reshape(
        crm, "crm.customer", "alter table crm.customer add nickname text default 'Nick'"
    ) == [("column added", "nickname", "hidden until the policy classifies it")]
    with refused("42703"):
        crm.rows("select nickname from gdpr_clear.customer", user="crm_app")
    assert crm.rows("select distinct nickname from gdpr_bi.customer", user="metabase") == [(None,)]
    assert findings(crm) == {("unclassified", "crm.customer")}
    # it is no way in either
    crm.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('eva@example.com', 'Eder')",
        user="crm_app",
    )
    # applied again the same, it stays hidden
    apply(crm, policy())
    with refused("42703"):
        crm.rows("select nickname from gdpr_clear.customer", user="crm_app")
    new = policy()
    new["tables"]["crm.customer"]["columns"]["nickname"] = {"category": "identity", "encrypt": True}
    apply(crm, new)
    assert crm.rows("select nickname from gdpr_clear.customer where id = 1", user="crm_app") == [
        ("Nick",)
    ]
    assert crm.rows(
        "select nickname like 'gdpr1:%%' from crm.customer where id = 1", user="crm_app"
    ) == [(True,)]
    assert sound(crm)


def test_columns_and_their_policy_change_in_one_transaction(crm: Database) -> None:
    new = policy()
    columns = new["tables"]["crm.customer"]["columns"]
    columns["surname"] = columns.pop("last_name")
    columns["nickname"] = {"category": "identity", "encrypt": True}
    with psycopg.connect(crm.dsn()) as owner:
        owner.execute("select gdpr.reshape('crm.customer')")
        owner.execute("alter table crm.customer rename last_name to surname")
        owner.execute("alter table crm.customer add nickname text not null default 'Nick'")
        apply(owner, new)
    assert crm.rows(
        "select surname, nickname from gdpr_clear.customer where id = 1", user="crm_app"
    ) == [("Ahrens", "Nick")]
    assert plan(crm, new) == []
    assert sound(crm)


def test_a_dropped_column_leaves_policy_digest_and_mask_but_not_the_records(crm: Database) -> None:
    crm.rows(
        "update gdpr_clear.customer set birth_date = '1999-09-09' where id = 1", user="crm_app"
    )
    reshape(crm, "crm.customer", "alter table crm.customer drop birth_date")
    assert crm.rows(
        "select count(*) from pg_attribute where attrelid = 'crm.customer'::regclass"
        " and attname like 'gdpr_birth%%'"
    ) == [(0,)]
    assert (
        "birth_date"
        not in crm.rows("select gdpr.policy()")[0][0]["tables"]["crm.customer"]["columns"]
    )
    assert sound(crm)
    # another column of that name is another column
    reshape(crm, "crm.customer", "alter table crm.customer add birth_date text")
    newest, oldest = crm.rows(
        "select content from gdpr.history('crm.customer', '1')", user="dpo_login"
    )
    (old,) = [name for name in oldest[0] if name.startswith("birth_date (dropped ")]
    assert oldest[0][old] == "1980-01-02"
    assert oldest[0]["birth_date"] is None
    assert old not in newest[0]


def test_what_the_policy_says_about_a_column_is_changed_before_it_is_dropped(crm: Database) -> None:
    with refused("PR414", "reshape_refused") as error:
        reshape(crm, "crm.customer", "alter table crm.customer drop email")
    assert "match_on" in (error.value.diag.message_detail or "")
    assert sound(crm)
    new = policy()
    new["tables"]["crm.customer"]["match_on"] = []
    new["tables"]["crm.lead"]["match_on"] = []
    apply(crm, new)
    reshape(crm, "crm.customer", "alter table crm.customer drop email")
    assert crm.rows("select count(*) from gdpr_clear.customer", user="crm_app") == [(3,)]
    assert sound(crm)


def test_the_link_to_the_person_stays(crm: Database) -> None:
    with refused("PR414", "reshape_refused") as error:
        reshape(crm, "crm.order", 'alter table crm."order" drop customer_id')
    assert "customer_id" in (error.value.diag.message_detail or "")
    with refused("PR414", "reshape_refused"):
        reshape(crm, "crm.order", 'alter table crm."order" drop constraint order_customer_id_fkey')
    assert sound(crm)


def test_a_link_and_what_it_leads_to_are_renamed(crm: Database) -> None:
    reshape(
        crm,
        "crm.order",
        'alter table crm."order" rename customer_id to client',
        'alter table crm."order" rename id to number',
        'alter table crm."order" rename to purchase',
    )
    reshape(crm, "crm.customer", "alter table crm.customer rename id to number")
    crm.rows("insert into gdpr_clear.purchase (client, note) values (2, 'n')", user="crm_app")
    crm.rows(
        "insert into gdpr_clear.order_line (order_id, n, engraving)"
        " select max(number), 1, 'Ida' from gdpr_clear.purchase",
        user="crm_app",
    )
    person = subject(crm, "crm.customer", 2)
    assert crm.rows(
        "select distinct gdpr_subject_id from crm.order_line where order_id > 4", user="postgres"
    ) == [(person,)]
    assert sound(crm)
    receipt = crm.rows("select gdpr.erase(%s, 'asked')", [person], user="dpo_login")
    assert "crm.purchase" in str(receipt)
    assert crm.rows(
        "select count(*) from gdpr_clear.purchase where client = 2", user="crm_app"
    ) == [(0,)]
    for table in ("crm.purchase", "crm.customer", "crm.order_line"):
        crm.rows(f"analyze {table}")
    assert sound(crm)


@pytest.mark.parametrize(
    "statement",
    [
        "alter table crm.customer rename gdpr_subject_id to person",
        "alter table crm.customer drop gdpr_until cascade",
        "alter table crm.customer drop gdpr_email_digest cascade",
        "alter table crm.customer add gdpr_note text",
        "alter table crm.customer rename city to gdpr_city",
        "alter table crm.customer alter birth_date type varchar(400)",
        "alter table crm.customer add check (length(phone) < 500)",
        "alter table crm.customer add unique (phone)",
        "alter table crm.customer add exclude (phone with =)",
    ],
)
def test_what_the_protection_stands_on_cannot_be_changed(same: Database, statement: str) -> None:
    with refused("PR414", "reshape_refused") as error:
        reshape(same, "crm.customer", statement)
    assert error.value.diag.message_detail
    assert sound(same)


def test_plain_columns_change_their_type_and_defaults(crm: Database) -> None:
    changes = reshape(
        crm,
        "crm.customer",
        "alter table crm.customer alter city type text, alter city set default 'Ulm'",
        "alter table crm.customer alter city set not null",
        "alter table crm.customer alter last_name drop not null",
    )
    assert changes == [("type changed", "city", "text")]
    crm.rows("insert into gdpr_clear.customer (email) values ('eva@example.com')", user="crm_app")
    assert crm.rows(
        "select city, last_name from gdpr_clear.customer where id > 3", user="crm_app"
    ) == [("Ulm", None)]
    assert sound(crm)


def test_an_encrypted_column_changes_its_type(crm: Database) -> None:
    with psycopg.connect(crm.dsn()) as owner:
        owner.execute("select gdpr.reshape('crm.customer')")
        owner.execute("select gdpr.retype('crm.customer', 'birth_date', 'timestamp(0)')")
        owner.execute("select gdpr.retype('crm.customer', 'email', 'varchar(200)')")
        changes = owner.execute("select change, name, now from gdpr.end_reshape()").fetchall()
    assert changes == [
        ("type changed", "email", "character varying(200)"),
        ("type changed", "birth_date", "timestamp(0) without time zone"),
    ]
    assert crm.rows(
        "select birth_date::text, pg_typeof(birth_date)::text, email"
        " from gdpr_clear.customer where id = 1",
        user="crm_app",
    ) == [("1980-01-02 00:00:00", "timestamp without time zone", "anna@example.com")]
    assert crm.rows("select birth_date::text from gdpr_bi.customer order by 1", user="metabase")[
        0
    ] == ("1980-01-01 00:00:00",)
    long = "e" * 150 + "@example.com"
    crm.rows(
        "insert into gdpr_clear.customer (email, last_name) values (%s, 'x')",
        [long],
        user="crm_app",
    )
    assert sound(crm)


def test_a_value_that_does_not_fit_the_new_type_stops_the_change_without_being_told(
    crm: Database,
) -> None:
    owner = psycopg.connect(crm.dsn())
    owner.execute("select gdpr.reshape('crm.customer')")
    owner.execute("select gdpr.retype('crm.customer', 'phone', 'integer')")
    with refused("22023", "invalid_value") as error:
        owner.execute("select gdpr.end_reshape()")
    assert "711" not in str(error.value) + str(error.value.diag.message_detail)
    owner.rollback()
    owner.close()
    assert sound(crm)


@pytest.mark.parametrize(
    "statements",
    [
        ["alter table crm.lead alter email type text using lower(email)"],
        ["alter table crm.lead alter email type text using trim(email)"],
        ["alter table crm.lead alter email type text using null"],
        ["alter table crm.lead alter email type text using case when email ~ '@' then email end"],
        ["alter table crm.lead alter email type text using full_name"],
        ["alter table crm.lead alter email type varchar(10) using left(email, 10)"],
        [
            "alter table crm.lead alter email type varchar(10) using left(email, 10)",
            "alter table crm.lead alter email type text",
        ],
        [
            "alter table crm.lead rename email to mail",
            "alter table crm.lead alter mail type text using lower(mail)",
            "alter table crm.lead rename mail to email",
        ],
        [
            """
            do $$ begin
              execute (select format('drop statistics crm.%I', stxname)
                       from pg_statistic_ext where stxname like 'gdpr%\\_2');
            end $$
            """,
            "alter table crm.lead alter email type text using lower(email)",
            "create statistics crm.mine on (email is null) from crm.lead",
        ],
        ["alter table crm.lead alter email type text"],
    ],
)
def test_ddl_over_ciphertext_is_refused_with_a_way_out(
    same: Database, statements: list[str]
) -> None:
    before = same.rows("select * from crm.lead order by id", user="postgres")
    with refused("PR414", "reshape_refused") as error:
        reshape(same, "crm.lead", *statements)
    told = error.value.diag.message_detail or ""
    assert "email: is encrypted" in told
    assert "UPDATE gdpr_clear.lead" in told
    assert "gdpr.retype()" in told
    assert same.rows("select * from crm.lead order by id", user="postgres") == before
    assert sound(same)


#: What is told of a column whose values ALTER TABLE may have made others.
REWRITTEN = "by ALTER COLUMN TYPE, without a record for each row"


def test_values_that_ddl_writes_are_on_record(crm: Database) -> None:
    """USING can give every row another value, and no trigger sees it: the record says so."""
    assert reshape(
        crm, "crm.customer", "alter table crm.customer alter city type varchar(40) using 'Mallory'"
    ) == [("values rewritten", "city", REWRITTEN)]
    assert crm.rows(
        "select old -> 'changes' from gdpr.audit_log where operation = 'RESHAPE'",
        user="auditor_login",
    ) == [([{"change": "values rewritten", "name": "city", "now": REWRITTEN}],)]


def test_what_moves_rows_to_another_file_is_no_change_of_their_values(crm: Database) -> None:
    before = crm.rows(CUSTOMERS, user="crm_app")
    assert reshape(
        crm,
        "crm.customer",
        "alter table crm.customer add token uuid default gen_random_uuid()",
        "cluster crm.customer using customer_pkey",
        "alter table crm.customer alter city type varchar(30)",
        "alter table crm.customer alter birth_date set not null, alter email set statistics 7",
        "alter table crm.customer rename email to mail",
    ) == [
        ("column renamed", "email", "mail"),
        ("type changed", "city", "character varying(30)"),
        ("values rewritten", "city", REWRITTEN),
        ("column added", "token", "hidden until the policy classifies it"),
    ]
    assert crm.rows(CUSTOMERS.replace("email", "mail"), user="crm_app") == before
    assert crm.rows("select from pg_statistic_ext") == []
    assert findings(crm) == {("unclassified", "crm.customer")}


def test_a_column_that_comes_anew_under_its_old_name_is_another(crm: Database) -> None:
    changes = reshape(
        crm,
        "crm.customer",
        "alter table crm.customer drop phone",
        "alter table crm.customer add phone text",
    )
    assert changes == [
        ("column dropped", "phone", None),
        ("column added", "phone", "hidden until the policy classifies it"),
    ]
    definition = crm.rows("select gdpr.policy() -> 'tables' -> 'crm.customer'")[0][0]
    assert "phone" not in definition["columns"]
    assert crm.rows("select from pg_statistic_ext") == []


def test_a_pseudonym_follows_values_that_ddl_has_changed(crm: Database) -> None:
    def masks() -> list[Any]:
        return crm.rows("select gdpr_full_name_mask from crm.lead order by id", user="postgres")

    before = masks()
    reshape(crm, "crm.lead", "alter table crm.lead alter full_name type text using full_name")
    assert masks() == before
    reshape(
        crm, "crm.lead", "alter table crm.lead alter full_name type text using lower(full_name)"
    )
    changed = masks()
    assert len({*before, *changed}) == 4
    crm.rows("update gdpr_clear.lead set full_name = full_name || ''", user="crm_app")
    crm.rows("update gdpr_clear.lead set full_name = upper(full_name)", user="crm_app")
    crm.rows("update gdpr_clear.lead set full_name = lower(full_name)", user="crm_app")
    assert masks() == changed
    assert sound(crm)


@pytest.mark.parametrize("observed", [False, True])
def test_plain_identifiers_stay_those_that_persons_are_known_by(
    crm: Database, observed: bool
) -> None:
    new = policy()
    new["tables"]["crm.customer"]["columns"]["city"] = {
        "category": "contact",
        "identifier": "text",
    }
    crm.rows("create table crm.guest (id int primary key, email varchar(90), nr int)")
    crm.rows("insert into crm.guest values (1, 'Gus@example.com', 70), (2, null, 71)")
    new["tables"]["crm.guest"] = {
        "subject": "self",
        "match_on": ["email"],
        "mode": "observe" if observed else "enforce",
        "purposes": ["orders"],
        "columns": {
            "email": {"category": "contact", "identifier": "email"},
            "nr": {"category": "key", "identifier": "text"},
        },
    }
    apply(crm, new)
    reshape(
        crm,
        "crm.guest",
        "alter table crm.guest alter nr type bigint, alter email type text using lower(email)",
    )
    for statement in (
        "alter table crm.guest alter nr type bigint using nr + 1",
        "alter table crm.guest alter email type text using left(email, 4)",
    ):
        with refused("PR414", "reshape_refused") as error:
            reshape(crm, "crm.guest", statement)
        told = error.value.diag.message_detail or ""
        assert "UPDATE gdpr_clear.guest" in told
        assert "gus@" not in told
    assert (
        subject(crm, "crm.guest", 1)
        == crm.rows("select gdpr.find_subject('email', 'gus@example.com')", user="dpo_login")[0][0]
    )
    assert sound(crm)


#: A type, a value, and a type in which it would be another: what that would be.
LOSSY = [
    ("numeric(10,2)", "1.25", "numeric(10,0)", "1"),
    ("numeric", "1.23456789", "real", "1.2345679"),
    ("integer", "16777217", "real", "1.6777216e+07"),
    ("numeric", "7.5", "integer", None),
    ("timestamp", "2020-01-02 03:04:05.678", "timestamp(0)", "2020-01-02 03:04:06"),
    ("timestamp", "2020-01-02 03:04:05", "date", "2020-01-02"),
    ("timestamptz", "2020-01-02 03:04:05+09", "timestamp", "2020-01-01 18:04:05"),
    ("text", "01234", "integer", "1234"),
    ("text", "ab   ", "varchar(3)", "ab "),
    ("numeric[]", "{1.25}", "numeric(3,1)[]", "{1.3}"),
]

#: A type, a value, and a type in which it is the same.
LOSSLESS = [
    ("numeric(10,2)", "7.00", "numeric(10,0)"),
    ("numeric", "7.50", "numeric(3,1)"),
    ("integer", "1000000", "real"),
    ("integer", "1000000", "numeric(12,4)"),
    ("bigint", "9007199254740992", "double precision"),
    ("real", "1000", "integer"),
    ("date", "2020-02-29", "timestamp"),
    ("timestamp", "2020-01-02 03:04:05", "timestamptz"),
    ("timestamp(3)", "2020-01-02 00:00:00", "date"),
    ("text", "42", "bigint"),
    ("char(5)", "ab", "text"),
    ("text", "ab", "char(5)"),
    ('varchar(9) collate "C"', "ab", "varchar(2)"),
    ("json", '{"a":  1}', "jsonb"),
    ("integer[]", "{1,2}", "bigint[]"),
    ("inet", "10.0.0.1", "text"),
    ("boolean", "true", "text"),
    ("point", "(1,2)", "text"),
    ("uuid", "d1f4b6e8-3f3c-4c3d-9a57-0d6ff5bb0a11", "varchar(36)"),
    ("interval", "24:00:00", "text"),
]


def _values(db: Database, values: list[tuple[str, str]]) -> psycopg.Connection:
    """A protected table with one value, and a NULL, in each of its encrypted columns.

    Returns:
        A connection of its owner, far from Greenwich.
    """
    names = [f"v{n}" for n, _ in enumerate(values)]
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in zip(names, values, strict=True))
    db.rows(f"create table public.thing (id int primary key, {columns})")
    db.rows("insert into public.thing (id) values (2)")
    db.rows(
        f"insert into public.thing values (1, {', '.join(['%s'] * len(values))})",
        [value for _, value in values],
    )
    db.rows("grant select on public.thing to crm_app")
    classified = {name: {"category": "other", "encrypt": True} for name in names}
    apply(db, one_table("public.thing", columns=classified))
    owner = db.connect(autocommit=False)
    owner.execute("set timezone = 'Asia/Tokyo'")
    return owner


def _thing(db: Database, *expressions: str) -> tuple[Any, ...]:
    """What the application sees of the values."""
    with db.connect("crm_app") as reader:
        reader.execute("set timezone = 'Asia/Tokyo'")
        query = f"select {', '.join(expressions)} from gdpr_clear.thing where id = 1"
        (row,) = reader.execute(query.encode()).fetchall()
        return row


def test_a_type_in_which_a_value_would_be_another_is_refused_unless_asked_for(
    db: Database,
) -> None:
    owner = _values(db, [(was, value) for was, value, _, _ in LOSSY])
    taken = [n for n, (_, _, _, becomes) in enumerate(LOSSY) if becomes is not None]
    owner.execute("select gdpr.reshape('public.thing')")
    owner.execute("savepoint a")
    for n, (was, value, now, becomes) in enumerate(LOSSY):
        owner.execute("select gdpr.retype('public.thing', %s, %s)", [f"v{n}", now])
        name = "invalid_value" if becomes is None else "value_changes"
        with refused("22023", name) as error:
            owner.execute("select gdpr.end_reshape()")
        assert error.value.diag.message_detail == f"column v{n}", was
        assert value not in str(error.value), was
        owner.execute("rollback to a")
    for n in taken:
        owner.execute("select gdpr.retype('public.thing', %s, %s, true)", [f"v{n}", LOSSY[n][2]])
    owner.execute("select gdpr.end_reshape()")
    owner.commit()
    assert _thing(db, *(f"v{n}::text" for n in taken)) == tuple(LOSSY[n][3] for n in taken)
    assert sound(db)


def test_a_type_in_which_every_value_is_the_same_is_taken(db: Database) -> None:
    owner = _values(db, [(was, value) for was, value, _ in LOSSLESS])
    back = [f"v{n}::{was.split(' collate')[0]}" for n, (was, _, _) in enumerate(LOSSLESS)]
    before = _thing(db, *back)
    owner.execute("select gdpr.reshape('public.thing')")
    for n, (_, _, now) in enumerate(LOSSLESS):
        owner.execute("select gdpr.retype('public.thing', %s, %s)", [f"v{n}", now])
    owner.execute("select gdpr.end_reshape()")
    owner.commit()
    assert _thing(db, *back) == before
    # nothing of the comparison stays behind
    assert (
        db.rows(
            "select from pg_proc where pronamespace = 'gdpr_generated'::regnamespace"
            " and strpos(prosrc, 'v_kept') > 0"
        )
        == []
    )
    assert sound(db)


def test_the_last_word_about_a_type_counts(db: Database) -> None:
    owner = _values(db, [("numeric", "1.25")])
    for first, last in (("numeric(9,0)", "numeric(9,1)"), ("text", "numeric(9,1)")):
        owner.execute("select gdpr.reshape('public.thing')")
        owner.execute("select gdpr.retype('public.thing', 'v0', %s, true)", [first])
        owner.execute("select gdpr.retype('public.thing', 'v0', %s)", [last])
        # the value is of the type before the first still
        with refused("22023", "value_changes"):
            owner.execute("select gdpr.end_reshape()")
        owner.rollback()
    owner.execute("select gdpr.reshape('public.thing')")
    owner.execute("select gdpr.retype('public.thing', 'v0', 'integer')")
    owner.execute("select gdpr.retype('public.thing', 'v0', 'numeric(9,1)', true)")
    owner.execute("select gdpr.end_reshape()")
    owner.commit()
    assert _thing(db, "v0::text") == ("1.3",)


def test_indexes_and_constraints_come_and_go(crm: Database) -> None:
    reshape(
        crm,
        "crm.customer",
        "alter table crm.customer add constraint grown check (city <> '')",
        "create index customer_city on crm.customer (city)",
        "create index customer_phone on crm.customer (phone)",
        "alter table crm.customer rename constraint customer_email_key to one_mail",
    )
    indexes = {
        name
        for (name,) in crm.rows("select indexname from pg_indexes where tablename = 'customer'")
    }
    assert {"customer_city", "one_mail"} <= indexes
    assert "customer_phone" not in indexes
    with pytest.raises(psycopg.errors.UniqueViolation) as error:
        crm.rows(
            "insert into gdpr_clear.customer (email, last_name) values ('bela@example.com', 'x')",
            user="crm_app",
        )
    assert error.value.diag.constraint_name == "one_mail"
    assert sound(crm)
    reshape(crm, "crm.customer", "alter table crm.customer drop constraint one_mail")
    crm.rows(
        "insert into gdpr_clear.customer (email, last_name) values ('bela@example.com', 'x')",
        user="crm_app",
    )
    assert sound(crm)
    with pytest.raises(psycopg.errors.UniqueViolation):
        reshape(
            crm, "crm.customer", "alter table crm.customer add constraint one_mail unique (email)"
        )
    crm.rows("delete from gdpr_clear.customer where id > 3", user="crm_app")
    reshape(crm, "crm.customer", "alter table crm.customer add constraint one_mail unique (email)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        crm.rows(
            "insert into gdpr_clear.customer (email, last_name) values ('bela@example.com', 'x')",
            user="crm_app",
        )
    assert sound(crm)
    for table in ("crm.order_line", 'crm."order"', "crm.lead", "crm.customer"):
        crm.rows("select gdpr.unprotect(%s::text::regclass)", [table])
    assert crm.rows(
        "select conname, pg_get_constraintdef(oid) from pg_constraint"
        " where conrelid = 'crm.customer'::regclass and contype = 'u'"
    ) == [("one_mail", "UNIQUE (email)")]
    indexes = {
        name
        for (name,) in crm.rows("select indexname from pg_indexes where tablename = 'customer'")
    }
    assert {"customer_city", "customer_phone", "one_mail"} <= indexes


def test_plain_ddl_is_found_and_followed(crm: Database) -> None:
    owner = crm.connect()
    before = crm.rows(CUSTOMERS, user="crm_app")
    owner.execute("alter table crm.customer rename last_name to surname")
    owner.execute("alter table crm.customer rename email to mail")
    owner.execute("alter table crm.lead rename to prospect")
    owner.execute("alter table crm.customer add nickname text")
    # nothing goes in under a wrong name, and what can be read is what could be read before
    with pytest.raises(psycopg.Error):
        crm.rows("insert into gdpr_clear.customer (last_name) values ('x')", user="crm_app")
    with pytest.raises(psycopg.Error):
        crm.rows("insert into crm.customer (surname, mail) values ('x', 'y')", user="crm_app")
    assert crm.rows(CUSTOMERS, user="crm_app") == before
    assert {("renamed", "crm.customer"), ("renamed", "crm.prospect")} <= findings(crm)
    (hint,) = {
        hint
        for topic, thing, hint in crm.rows("select topic, object, hint from gdpr.doctor()")
        if (topic, thing) == ("renamed", "crm.customer")
    }
    told = problems(crm, policy())
    assert any('it is called "crm.prospect" now' in line for line in told)
    assert any('it is called "surname" now' in line for line in told)
    owner.execute(hint.split(";")[0])
    reshape(crm, "crm.prospect")
    assert (
        crm.rows(
            "select id, mail, phone, surname, birth_date, city"
            " from gdpr_clear.customer order by id",
            user="crm_app",
        )
        == before
    )
    assert findings(crm) == {("unclassified", "crm.customer")}
    # the file on disk still has the old names, and is told the new ones
    told = problems(crm, policy())
    assert any("name it so in the policy" in line and "surname" in line for line in told)
    assert any("name it so in the policy" in line and "crm.prospect" in line for line in told)


def test_a_column_dropped_with_all_that_depends_on_it_is_followed(crm: Database) -> None:
    crm.rows("alter table crm.customer drop birth_date cascade")
    assert {("renamed", "crm.customer"), ("drift", "crm.customer")} <= findings(crm)
    assert any("it was dropped" in line for line in problems(crm, policy()))
    assert reshape(crm, "crm.customer") == [("column dropped", "birth_date", None)]
    assert sound(crm)
    assert any("it was dropped on" in line for line in problems(crm, policy()))


def test_what_is_generated_is_what_would_be_generated_anew(crm: Database) -> None:
    reshape(
        crm,
        "crm.customer",
        "alter table crm.customer rename id to number",
        "alter table crm.customer rename email to mail",
        "alter table crm.customer rename to client",
        "alter table crm.client set schema public",
    )
    sources = (
        "select oid::regprocedure::text, prosrc from pg_proc"
        " where pronamespace = 'gdpr_generated'::regnamespace order by 1"
    )
    before = crm.rows(sources)
    admin = crm.connect("postgres")
    admin.execute(
        "select gdpr_internal.generate_triggers(id), gdpr_internal.generate_worker(id)"
        " from gdpr_internal.protected_table"
    )
    assert crm.rows(sources) == before


def test_protection_is_taken_off_a_table_of_another_shape(crm: Database) -> None:
    crm.rows("create index by_mail on crm.lead (lower(email), score) where email <> ''")
    crm.rows("select gdpr.unprotect('crm.lead')")
    apply(crm, policy())
    reshape(
        crm,
        "crm.lead",
        "alter table crm.lead rename email to mail",
        "alter table crm.lead rename to prospect",
        "alter table crm.prospect alter mail set default 'nobody@example.com'",
    )
    with psycopg.connect(crm.dsn()) as owner:
        owner.execute("select gdpr.reshape('crm.prospect')")
        owner.execute("select gdpr.retype('crm.prospect', 'mail', 'varchar(99)')")
        owner.execute("select gdpr.end_reshape()")
    crm.rows("insert into gdpr_clear.prospect (score) values (4)", user="postgres")
    crm.rows("select gdpr.unprotect('crm.prospect')")
    assert crm.rows("select mail from crm.prospect order by id") == [
        ("ANNA@example.com",),
        ("dora@example.com",),
        ("nobody@example.com",),
    ]
    assert crm.rows("select indexdef from pg_indexes where indexname = 'by_mail'") == [
        (
            (
                "CREATE INDEX by_mail ON crm.prospect USING btree (lower((mail)::text), score)"
                " WHERE ((mail)::text <> ''::text)"
            ),
        )
    ]
    assert crm.rows(
        "select column_default from information_schema.columns where column_name = 'mail'"
    ) == [("('nobody@example.com'::text)::character varying(99)",)]


def test_a_reshape_is_on_record(crm: Database) -> None:
    reshape(crm, "crm.customer", "alter table crm.customer rename city to town")
    assert crm.rows(
        "select old - 'drifted' from gdpr.audit_log where operation = 'RESHAPE'",
        user="auditor_login",
    ) == [
        (
            {
                "table": "crm.customer",
                "changes": [{"change": "column renamed", "name": "city", "now": "town"}],
            },
        )
    ]


def test_a_partition_attached_later_is_reported_and_covered(db: Database) -> None:
    from tests.capabilities.crm import one_table

    owner = db.connect()
    owner.execute(
        "create table public.person (id int, born int, name text, primary key (id, born))"
        " partition by range (born)"
    )
    owner.execute(
        "create table public.old partition of public.person for values from (0) to (2000)"
    )
    owner.execute("grant select, insert on public.person to crm_app")
    owner.execute("insert into public.person values (1, 1980, 'Ada')")
    apply(db, one_table("public.person", columns={"name": {"encrypt": True}}))
    owner.execute(
        "create table public.young partition of public.person for values from (2000) to (3000)"
    )
    owner.execute("grant select, insert on public.young to crm_app")
    assert ("row_security", "public.young") in findings(db)
    # its triggers are there at once
    db.rows("insert into gdpr_clear.person values (2, 2001, 'Bea')", user="crm_app")
    assert reshape(db, "public.person", "alter table public.person rename name to called") == [
        ("column renamed", "name", "called")
    ]
    assert findings(db) - {("unclassified", "public.person")} == set()
    assert db.rows("select called from gdpr_clear.person order by id", user="crm_app") == [
        ("Ada",),
        ("Bea",),
    ]
    owner.execute("begin")
    owner.execute("select gdpr.reshape('public.person')")
    owner.execute("alter table public.person add note text")
    owner.execute(
        "create table public.future partition of public.person for values from (3000) to (4000)"
    )
    with refused("PR415", "reshape_open"):
        owner.execute("insert into public.young values (3, 2002, 'Cleo')")
    owner.execute("rollback")


DECADES = """
create table public.person (id int, born int, name text, primary key (id, born))
partition by range (born);
create table public.old partition of public.person for values from (0) to (2000)
partition by range (born);
create table public.nineties partition of public.old for values from (1990) to (2000);
create table public.young partition of public.person for values from (2000) to (3000);
grant select, insert on public.person, public.nineties to crm_app;
insert into public.person values (1, 1990, 'Ada'), (2, 2001, 'Bea');
"""
DETACH = "alter table public.person detach partition public.old"
ATTACH = "alter table public.person attach partition public.old for values from (0) to (2000)"


def controls(db: Database, *tables: str) -> dict[str, list[str]]:
    """The policies and triggers of gdprdb that tables have, inherited ones aside."""
    return {
        table: [
            name
            for (name,) in db.rows(
                "select polname from pg_policy where polrelid = %(table)s::text::regclass"
                " union all select tgname from pg_trigger"
                " where tgrelid = %(table)s::text::regclass and tgparentid = 0 order by 1",
                {"table": table},
            )
        ]
        for table in tables
    }


def test_a_partition_that_is_detached_meanwhile_stays_hidden(db: Database) -> None:
    db.rows(DECADES)
    new = one_table("public.person", columns={"name": {"encrypt": True}})
    apply(db, new)
    with psycopg.connect(db.dsn()) as owner:
        owner.execute("select gdpr.reshape('public.person')")
        owner.execute(DETACH.encode())
        owner.execute("alter table public.old rename to gone")
        owner.execute("alter table public.person rename name to called")
        owner.execute("select gdpr.end_reshape()")
    left = ["gdpr_40_gate", "zzz_gdpr_40_truncate"]
    assert controls(db, "gone", "nineties") == {"gone": left, "nineties": left}
    for user in ("crm_app", "db_owner"):
        assert db.rows("select * from nineties", user=user) == []
        with refused("42501"):
            db.rows("insert into nineties (id, born, name) values (3, 1991, 'C')", user=user)
    assert {("detached", "public.gone"), ("detached", "public.nineties")} <= findings(db)
    assert db.rows("select called from gdpr_clear.person", user="crm_app") == [("Bea",)]
    db.rows("drop table gone")
    assert sound(db)


def test_a_partition_that_was_detached_meanwhile_is_attached_again(db: Database) -> None:
    db.rows(DECADES)
    new = one_table("public.person", columns={"name": {"encrypt": True}})
    apply(db, new)
    reshape(db, "public.person", DETACH)
    reshape(db, "public.person", ATTACH)
    assert "gdpr_40_base" in controls(db, "nineties")["nineties"]
    apply(db, new)
    assert db.rows("select name from gdpr_clear.person order by id", user="crm_app") == [
        ("Ada",),
        ("Bea",),
    ]
    assert sound(db)
    # out and in again, in one block
    reshape(db, "public.person", DETACH, ATTACH)
    assert sound(db)
    # and dropped in it
    reshape(db, "public.person", DETACH, "drop table public.old")
    assert sound(db)


def test_a_partition_that_is_detached_meanwhile_from_an_observed_table_is_as_it_was(
    db: Database,
) -> None:
    db.rows(DECADES)
    apply(db, one_table("public.person", mode="observe"))
    reshape(db, "public.person", DETACH)
    assert controls(db, "nineties") == {"nineties": ["zzz_gdpr_40_truncate"]}
    assert db.rows("select name from nineties", user="crm_app") == [("Ada",)]


def test_ddl_over_ciphertext_of_partitions_is_refused_too(db: Database) -> None:
    db.rows(
        "create table public.old (id int, year int, name text, nr int, primary key (id, year))"
        " partition by range (year);"
        "create table public.old_1 partition of public.old for values from (2000) to (2001);"
        "insert into public.old values (1, 2000, 'Anna', 5)"
    )
    columns = {
        "name": {"category": "identity", "encrypt": True},
        "nr": {"category": "key", "identifier": "text"},
    }
    apply(db, one_table("public.old", columns=columns))
    young = (
        "create table public.old_2 (like public.old)",
        "alter table public.old attach partition public.old_2 for values from (2001) to (2002)",
    )
    with refused("PR414", "reshape_refused") as error:
        reshape(db, "public.old", *young, "alter table public.old alter name type text using null")
    assert "name: is encrypted" in (error.value.diag.message_detail or "")
    with refused("PR414", "reshape_refused") as error:
        reshape(db, "public.old", *young, "alter table public.old alter nr type int using nr + 1")
    assert "nr: persons are known by it" in (error.value.diag.message_detail or "")
    reshape(db, "public.old", *young, "alter table public.old alter nr type bigint")
    assert sound(db)


def test_a_locked_key_is_told_where_values_have_to_be_looked_at(
    clone: Clone, installed_template: str
) -> None:
    with clone(installed_template) as db:
        db.rows("create table public.guest (id int primary key, nr int, note text)")
        db.rows("insert into public.guest values (1, 7, 'a')")
        columns = {
            "nr": {"category": "key", "identifier": "text"},
            "note": {"category": "other", "encrypt": True},
        }
        apply(db, one_table("public.guest", columns=columns))
        (key,) = db.rows("select gdpr.rotate_key('session')")[0]
        with db.connect() as owner:
            owner.execute("select gdpr.unlock(%s)", [key])
            owner.execute("select gdpr.rewrap_keys()")
            owner.execute("select gdpr.finish_rotation()")
        for statement in (
            "alter table public.guest alter nr type bigint",
            "select gdpr.retype('public.guest', 'note', 'varchar(9)')",
        ):
            with refused("PR402", "key_locked"):
                reshape(db, "public.guest", statement)
        with refused("PR414", "reshape_refused"):
            reshape(db, "public.guest", "alter table public.guest alter note type text using ''")
        reshape(db, "public.guest", "alter table public.guest rename note to remark")


def test_a_column_of_children_changes_its_type_rows_of_nobody_too(crm: Database) -> None:
    new = policy()
    new["tables"]["crm.order"]["erase"] = "anonymise"
    apply(crm, new)
    crm.rows("select gdpr.erase(%s, 'asked')", [subject(crm, "crm.customer", 1)], user="dpo_login")
    with psycopg.connect(crm.dsn()) as owner:
        owner.execute("""select gdpr.reshape('crm."order"')""")
        owner.execute("""alter table crm."order" rename note to remark""")
        owner.execute("""select gdpr.retype('crm."order"', 'remark', 'varchar(20)')""")
        owner.execute("select gdpr.end_reshape()")
    assert crm.rows(
        """select remark, pg_typeof(remark)::text from gdpr_clear."order" where customer_id = 2""",
        user="crm_app",
    ) == [("ring twice", "character varying")]
    assert crm.rows(
        """select count(*) from gdpr_clear."order" where customer_id is null""", user="dpo_login"
    ) == [(2,)]


def test_holds_follow_their_columns_and_keep_them(crm: Database) -> None:
    person = subject(crm, "crm.customer", 1)
    crm.rows(
        "select gdpr.place_hold(%s, 'legal_claims', 'file 7', 'crm.customer', null, '{city}')",
        [person],
        user="dpo_login",
    )
    with refused("PR414", "reshape_refused") as error:
        reshape(crm, "crm.customer", "alter table crm.customer drop city")
    assert "hold" in (error.value.diag.message_detail or "")
    reshape(crm, "crm.customer", "alter table crm.customer rename city to town")
    crm.rows("select gdpr.erase(%s, 'asked')", [person], user="dpo_login")
    assert crm.rows("select town from gdpr_clear.customer where id = 1", user="dpo_login") == [
        ("Aalen",)
    ]


def test_what_was_about_somebody_else_stays_out_of_the_report(crm: Database) -> None:
    new = policy()
    new["tables"]["crm.lead"]["columns"]["full_name"] = {"about": "someone_else"}
    new["tables"]["crm.lead"]["purposes"] = ["orders"]
    apply(crm, new)
    crm.rows("update gdpr_clear.lead set full_name = 'Neu', score = 1 where id = 1", user="crm_app")
    person = subject(crm, "crm.lead", 1)

    def report() -> str:
        return str(crm.rows("select gdpr.access_report(%s)", [person], user="dpo_login"))

    assert "Anna Ahrens" not in report()
    reshape(crm, "crm.lead", "alter table crm.lead rename full_name to other")
    assert "Anna Ahrens" not in report()
    reshape(crm, "crm.lead", "alter table crm.lead drop other, drop score")
    assert "Anna Ahrens" not in report()
    assert "score (dropped " in report()


def test_a_new_column_that_must_be_filled_is_told(crm: Database) -> None:
    crm.rows(
        "create table crm.visit (id int primary key, customer_id bigint references crm.customer)"
    )
    new = policy()
    new["tables"]["crm.visit"] = {"subject": {"via": "customer_id"}, "purposes": ["orders"]}
    apply(crm, new)
    ((_, name, told),) = reshape(crm, "crm.visit", "alter table crm.visit add place text not null")
    assert name == "place"
    assert "NOT NULL" in told


def test_a_reshape_rewrites_and_scans_nothing_by_itself(crm: Database) -> None:
    looked = (
        "select c.relname, pg_relation_filenode(c.oid), pg_stat_get_xact_numscans(c.oid),"
        " pg_stat_get_xact_tuples_returned(c.oid)"
        " from pg_class as c where c.relnamespace = 'crm'::regnamespace and c.relkind = 'r'"
        " order by 1"
    )
    with psycopg.connect(crm.dsn()) as owner:
        before = owner.execute(looked).fetchall()
        owner.execute("select gdpr.reshape('crm.customer')")
        owner.execute("alter table crm.customer rename birth_date to born")
        owner.execute("alter table crm.customer add nickname text default 'Nick'")
        owner.execute("alter table crm.customer drop phone")
        owner.execute("select gdpr.end_reshape()")
        assert owner.execute(looked).fetchall() == before


def test_a_table_that_is_only_observed_is_reshaped(crm: Database) -> None:
    new = policy()
    new["tables"]["crm.lead"]["mode"] = "observe"
    apply(crm, new)
    reshape(crm, "crm.lead", "alter table crm.lead rename score to points")
    assert crm.rows("select relrowsecurity from pg_class where oid = 'crm.lead'::regclass") == [
        (False,)
    ]
    assert sound(crm)


def test_what_cannot_be_protected_cannot_come_by_reshape(crm: Database) -> None:
    crm.rows("create table crm.base (id int)")
    for statement in (
        "create rule r as on insert to crm.lead do also nothing",
        "create table crm.heir () inherits (crm.lead)",
    ):
        with refused("PR414", "reshape_refused"):
            reshape(crm, "crm.lead", statement)
    assert sound(crm)


def test_searches_and_recorded_reads_come_back(crm: Database) -> None:
    """All row policies are taken off and put back, those of other capabilities, too."""
    crm.rows("create extension if not exists pg_trgm schema public")
    apply(
        crm,
        policy(
            **{
                "tables__crm.customer__search": ["last_name"],
                "tables__crm.customer__audit_reads": True,
            }
        ),
    )
    query = (
        "select polname::text from pg_policy where polrelid = 'crm.customer'::regclass order by 1"
    )
    before = crm.rows(query)
    assert {("gdpr_30_search",), ("gdpr_50_reads",)} <= set(before)
    crm.rows(
        "select * from gdpr.reshape('crm.customer', array['alter table crm.customer add x int'])"
    )
    assert crm.rows(query) == before
    found = "select count(*) from gdpr_clear.customer_search('hren')"
    assert crm.rows(found, user="crm_app") == [(1,)]
    assert ("drift",) not in crm.rows("select topic from gdpr.doctor()")


def test_names_that_have_to_be_quoted(db: Database) -> None:
    """Schema, table and columns, before and after."""
    owner = db.connect()
    table = '"Mixed \'Case"."Base ""x"""'
    owner.execute(f"""
        create schema "Mixed 'Case";
        create table {table} (
          "Id" integer primary key, "E-Mail" text not null unique, "Na'me" text);
        insert into {table} values (1, 'a@x.example', 'Ada');
        grant usage on schema "Mixed 'Case" to crm_app;
        grant all on {table} to crm_app;
    """)
    columns = {
        "E-Mail": {"identifier": "email", "encrypt": "searchable", "mask": "email"},
        "Na'me": {"encrypt": True},
    }
    apply(db, one_table('Mixed \'Case.Base "x"', match_on=["E-Mail"], columns=columns))
    owner.execute(
        "select * from gdpr.reshape(%s::text::regclass, %s)",
        [
            table,
            [
                f"""alter table {table} rename "Na'me" to "Vor %s's" """,
                f"""alter table {table} rename to "Kunde n" """,
            ],
        ],
    )
    moved = """alter table "Mixed 'Case"."Kunde n" set schema public"""
    owner.execute(
        "select * from gdpr.reshape(%s::text::regclass, %s)", ['"Mixed \'Case"."Kunde n"', [moved]]
    )
    found = db.rows('select * from gdpr_clear."Kunde n"', user="crm_app")
    assert [row[:3] for row in found] == [(1, "a@x.example", "Ada")]
    versions = db.rows(
        "select content from gdpr.history(%s::text::regclass, '1')",
        ['public."Kunde n"'],
        user="dpo_login",
    )
    assert versions == [({"Id": 1, "E-Mail": "a@x.example", "Vor %s's": "Ada"},)]
