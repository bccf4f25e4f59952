"""Station 40: rights to single columns hold in the clear view as they do in its table."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.capabilities.crm import apply, one_table, policy, refused
from tests.support import Clone, Database

GRANTED = "grant select (id, last_name, city) on crm.customer to crm_app"


@pytest.fixture(scope="module")
def shared(clone: Clone, crm_template: str) -> Iterator[Database]:
    """One database in which the application may select three columns of the customers."""
    with clone(crm_template) as database:
        database.rows("revoke select on crm.customer from crm_app")
        database.rows(GRANTED)
        yield database


@pytest.fixture
def mallory(shared: Database) -> Iterator[psycopg.Connection]:
    """The application with its three columns, in a transaction that is rolled back."""
    connection = shared.connect(
        "crm_app", autocommit=False, options="-c search_path=gdpr_clear,crm"
    )
    yield connection
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "select id, last_name, city from customer order by last_name",
        "select count(*) from customer where city = 'Aalen'",
        "select c.id from customer as c join crm.order as o on o.customer_id = c.id",
        "select o.id, c.last_name from crm.order o left join customer c on c.id = o.customer_id",
        "select id from (select * from customer) as c",
        "select id from customer where id = 1 for update",
        "with c as (select * from customer) select last_name from c",
    ],
)
def test_columns_that_may_be_selected(mallory: psycopg.Connection, statement: str) -> None:
    assert mallory.execute(statement.encode()).fetchall()


PROBES = [
    "select email from customer",
    "select phone, id from customer",
    "select birth_date from customer where id = 1",
    "select created_at from customer",
    "select email_digest from customer",
    "select id from customer where email = 'anna@example.com'",
    "select id from customer where phone like '%1001'",
    "select id from customer where email_digest = gdpr.digest('email', 'anna@example.com')",
    "select id from customer where email is not null",
    "select id from customer where id = 1 or created_at < now()",
    "select id from customer where coalesce(phone, '') = 'x'",
    "select id from customer order by birth_date",
    "select count(distinct created_at) from customer",
    "select max(created_at) from customer",
    "select created_at, count(*) from customer group by created_at",
    "select id from customer group by id, phone",
    "select a.id from customer as a join customer as b using (created_at)",
    "select l.id from lead as l join customer as c using (email_digest)",
    "select where exists (select from customer as c where c.email = 'anna@example.com')",
    "select c from customer as c",
    "select * from customer",
    "table customer",
    "select row_to_json(c) from customer as c",
    "select c::text from customer as c",
    "select (c).phone from customer as c",
    "select c is not null from customer as c",
    "select lag(phone) over (order by id) from customer",
    "select id, case when phone = '+49 711 1001' then 1 else 0 end from customer",
    "select id from customer where 1 / (case when phone = '+49 711 1001' then 0 else 1 end) = 1",
    "with c as materialized (select * from customer) select id from c",
    "copy (select phone from customer) to stdout",
    "explain analyze select id from customer where created_at > 'epoch'",
    "insert into lead (email, full_name) select email, last_name from customer",
    "update crm.order as o set note = c.phone from customer as c where c.id = o.customer_id",
    "delete from lead as l using customer as c where c.email_digest = l.email_digest",
    "update customer set city = 'Ulm' where id = 1",
    "update customer set city = 'Ulm' where id = 1 returning email",
    "update customer set city = phone where id = 1",
    "delete from customer where id = 1",
    "delete from customer where id = 1 returning phone",
    "insert into customer (email, last_name) values ('x@example.com', 'X') returning phone",
    "select id from customer where id = 1 and created_at > 'epoch' for update",
]


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("statement", PROBES)
def test_columns_that_may_not(mallory: psycopg.Connection, statement: str, plans: str) -> None:
    """However a statement touches them: 42501 that names the column and tells no value."""
    mallory.execute(f"set local plan_cache_mode = {plans}".encode())
    with refused("42501") as caught:
        if statement.startswith("copy"):
            with mallory.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                copy.read()
        else:
            mallory.execute(statement.encode(), prepare=True).fetchall()
    said = " ".join(
        filter(None, [caught.value.diag.message_primary, caught.value.diag.message_detail])
    )
    assert not [value for value in ("anna", "1001", "Ahrens", "Aalen") if value in said]
    if statement.startswith("select"):
        assert caught.value.diag.constraint_name == "gdpr_column_refused"
        assert "on table crm.customer, role crm_app" in said


def test_the_error_names_the_column(mallory: psycopg.Connection) -> None:
    with refused("42501", "column_refused") as error:
        mallory.execute("select id, phone from customer").fetchall()
    assert error.value.diag.message_detail == "SELECT (phone) on table crm.customer, role crm_app"


def test_cursors(mallory: psycopg.Connection) -> None:
    mallory.execute("declare c cursor for select id, last_name from customer order by id")
    assert mallory.execute("fetch c").fetchall() == [(1, "Ahrens")]
    with refused("42501", "column_refused"):
        mallory.execute("declare d cursor for select birth_date from customer; fetch d")


def test_nobodys_view_on_top_shows_more(shared: Database, mallory: psycopg.Connection) -> None:
    """A view on the clear view, whoever owns it, shows what its reader may select."""
    shared.rows(
        "create view crm.on_top as select id, last_name, phone from gdpr_clear.customer;"
        "alter view crm.on_top owner to dpo_login; grant select on crm.on_top to crm_app",
        user="postgres",
    )
    mallory.execute("create temp view mine as select * from customer")
    for view in ("crm.on_top", "mine"):
        assert mallory.execute(
            f"select id from {view} where last_name = 'Ahrens'".encode()
        ).fetchall() == [(1,)]
        with refused("42501", "column_refused"), mallory.transaction():
            mallory.execute(f"select phone from {view}".encode()).fetchall()


def test_an_index_finds_the_row(mallory: psycopg.Connection) -> None:
    """The rights are part of the plan: a column is a column, and nothing is asked for each row."""
    mallory.execute("set local enable_seqscan = off")
    lines = mallory.execute("explain (verbose) select id, last_name from customer where id = 1")
    plan = "\n".join(line for (line,) in lines)
    assert "Index Cond: (b.id = 1)" in plan
    assert "_column(" not in plan


def test_rights_change_without_apply(crm: Database) -> None:
    """Prepared statements as well: a REVOKE holds from the next execution on, a GRANT too."""
    owner, app = crm.connect(), crm.connect("crm_app")
    app.execute("set plan_cache_mode = force_generic_plan")
    app.execute("prepare phones as select phone from gdpr_clear.customer where id = $1")
    app.execute("prepare names as select last_name from gdpr_clear.customer where id = $1")
    assert app.execute("execute phones (1)").fetchall() == [("+49 711 1001",)]
    owner.execute("revoke select on crm.customer from crm_app")
    for name in ("phones", "names"):
        with refused("42501", "clear_refused"):
            app.execute(f"execute {name} (1)".encode()).fetchall()
    owner.execute("grant select (id, last_name) on crm.customer to crm_app")
    assert app.execute("execute names (1)").fetchall() == [("Ahrens",)]
    with refused("42501", "column_refused"):
        app.execute("execute phones (1)").fetchall()
    owner.execute("grant select (phone) on crm.customer to crm_app")
    assert app.execute("execute phones (1)").fetchall() == [("+49 711 1001",)]
    owner.execute("revoke select (phone) on crm.customer from crm_app")
    with refused("42501", "column_refused"):
        app.execute("execute phones (1)").fetchall()
    owner.execute("grant select on crm.customer to crm_app")
    assert app.execute("execute phones (1)").fetchall() == [("+49 711 1001",)]


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_rights_through_a_group(crm: Database, mode: str) -> None:
    """What a role inherits counts; and no plan outlives the membership, of which it hears
    nothing."""
    apply(crm, policy_in(mode))
    superuser = crm.connect("postgres")
    superuser.execute("create role crm_readers nologin")
    try:
        crm.rows("revoke select on crm.customer from crm_app")
        crm.rows("grant select (id, last_name, phone) on crm.customer to crm_readers")
        crm.rows("grant select (id, last_name) on crm.customer to crm_app")
        app = crm.connect("crm_app")
        app.execute("set plan_cache_mode = force_generic_plan")
        app.execute("prepare phones as select phone from gdpr_clear.customer where id = 1")
        with refused("42501", "column_refused"):
            app.execute("execute phones").fetchall()
        superuser.execute("grant crm_readers to crm_app")
        # a plan that was made before asks again
        assert app.execute("execute phones").fetchall() == [("+49 711 1001",)]
        app.execute("deallocate phones")
        app.execute("prepare phones as select phone from gdpr_clear.customer where id = 1")
        assert app.execute("execute phones").fetchall() == [("+49 711 1001",)]
        superuser.execute("revoke crm_readers from crm_app")
        # PostgreSQL 18 plans anew when a membership ends, and names the column
        with refused("42501") as error:
            app.execute("execute phones").fetchall()
        assert error.value.diag.constraint_name in ("gdpr_clear_refused", "gdpr_column_refused")
        assert app.execute("select last_name from gdpr_clear.customer where id = 1").fetchall() == [
            ("Ahrens",)
        ]
    finally:
        crm.rows("revoke all on crm.customer from crm_readers")
        superuser.execute("drop role crm_readers")


def policy_in(mode: str) -> dict[str, object]:
    """The policy with the customers in a mode."""
    new = policy()
    new["tables"]["crm.customer"]["mode"] = mode
    return new


def test_definer_functions_show_what_their_owner_may(crm: Database) -> None:
    """As on the table: who runs the statement is who is asked."""
    crm.rows("revoke select on crm.customer from crm_app")
    crm.rows(GRANTED)
    superuser = crm.connect("postgres")
    for name, kind in (("mine", "security definer"), ("yours", "security invoker")):
        superuser.execute(
            f"create function crm.{name}() returns setof text language plpgsql {kind} as"
            " $$begin return query select c.phone from gdpr_clear.customer as c; end$$;"
            f" alter function crm.{name}() owner to crm_app;"
            f" grant execute on function crm.{name}() to dpo_login".encode()
        )
    with refused("42501", "column_refused"):
        crm.rows("select crm.mine()", user="crm_app")
    # the officer may read all, her plan is her own
    dpo = crm.connect("dpo_login")
    with refused("42501", "column_refused"):
        dpo.execute("select crm.mine()").fetchall()
    assert len(dpo.execute("select crm.yours()").fetchall()) == 3
    with refused("42501", "column_refused"):
        dpo.execute("select crm.mine()").fetchall()


def test_one_session_and_two_roles(crm: Database) -> None:
    """A plan of one role, run by another that may see less, in a table that is only observed."""
    apply(crm, policy_in("observe"))
    crm.rows("revoke select on crm.customer from crm_app")
    crm.rows(GRANTED)
    with crm.connect("postgres") as session:
        session.execute("set plan_cache_mode = force_generic_plan")
        session.execute("set role dpo_login")
        session.execute("prepare phones as select phone from gdpr_clear.customer where id = 1")
        assert session.execute("execute phones").fetchall() == [("+49 711 1001",)]
        session.execute("set role crm_app")
        with refused("42501"):
            session.execute("execute phones").fetchall()
        session.execute("deallocate phones")
        session.execute("prepare phones as select phone from gdpr_clear.customer where id = 1")
        with refused("42501", "column_refused"):
            session.execute("execute phones").fetchall()
        session.execute("set role dpo_login")
        assert session.execute("execute phones").fetchall() == [("+49 711 1001",)]


def test_columns_that_may_be_updated(crm: Database) -> None:
    """Only what changes counts; what may not is named, and nothing of the row is written."""
    crm.rows("revoke update on crm.customer from crm_app")
    app = crm.connect("crm_app", options="-c search_path=gdpr_clear,crm")
    with refused("42501"):
        app.execute("update customer set phone = '+49 1' where id = 1")
    crm.rows("grant update (phone, last_name, email) on crm.customer to crm_app")
    changed = app.execute(
        "update customer set phone = '+49 1', last_name = 'A', city = city, birth_date = birth_date"
        " where id = 1 returning phone, last_name, city, birth_date::text"
    )
    assert changed.fetchall() == [("+49 1", "A", "Aalen", "1980-01-02")]
    for column, value in (("city", "'Ulm'"), ("birth_date", "'1999-01-01'"), ("city", "null")):
        with refused("42501", "column_refused") as error:
            app.execute(f"update customer set phone = null, {column} = {value}".encode())
        assert (
            error.value.diag.message_detail
            == f"UPDATE ({column}) on table crm.customer, role crm_app"
        )
    # an address is found by its new digest, which comes back
    assert app.execute(
        "update customer set email = 'new@example.com' where id = 1"
        " returning email_digest = gdpr.digest('email', 'NEW@example.com')"
    ).fetchall() == [(True,)]
    assert app.execute("update customer set phone = phone").rowcount == 3
    app.execute("update customer set phone = null where id = 2")
    assert app.execute(
        "select id, email, phone, last_name, city from customer order by id"
    ).fetchall() == [
        (1, "new@example.com", "+49 1", "A", "Aalen"),
        (2, "bela@example.com", None, "Bartok", "Bonn"),
        (3, "chie@example.com", "+81 3 1003", "Chiba", "Celle"),
    ]
    assert crm.rows("select left(phone, 6) from crm.customer where id = 1", user="postgres") == [
        ("gdpr1:",)
    ]


def test_update_as_mallory_plants_operators(crm: Database) -> None:
    """No operator of the caller's search_path hears a value or says that nothing changed."""
    crm.rows("revoke update on crm.customer from crm_app")
    crm.rows("grant update (phone) on crm.customer to crm_app")
    crm.rows("create schema planted; grant usage on schema planted to crm_app")
    crm.rows(
        "create function planted.eq(text, text) returns boolean language plpgsql as $$begin"
        " if $1 operator(pg_catalog.!~) '^(INSERT|UPDATE)$' then raise exception 'heard'; end if;"
        " return $1 operator(pg_catalog.~) $2; end$$;"
        "create operator planted.= (function = planted.eq, leftarg = text, rightarg = text);"
        "create function planted.texteq(text, text) returns boolean language sql as 'select true';"
        "create function planted.has_table_privilege(regclass, text) returns boolean"
        " language sql as 'select true';"
    )
    app = crm.connect("crm_app", options="-c search_path=planted,pg_catalog")
    app.execute("update gdpr_clear.customer set phone = '+49 5' where id = 1")
    with refused("42501", "column_refused"):
        app.execute("update gdpr_clear.customer set city = 'Ulm' where id = 1")
    assert crm.rows("select phone, city from gdpr_clear.customer where id = 1", user="crm_app") == [
        ("+49 5", "Aalen")
    ]


def test_columns_keep_their_types(db: Database) -> None:
    """Length, precision, domain and collation of a column survive its guard, its index too."""
    owner = db.connect()
    owner.execute("""
        create domain public.code as varchar(9) not null check (value <> '');
        create type public.mood as enum ('glad', 'sad');
        create table public.thing (id bigint primary key, "%s'a" char(5), n numeric(10, 2),
          t timestamptz(3), c public.code, m public.mood[], w varchar(7) collate "C",
          v varchar(30));
        create index on public.thing ("%s'a"); create index on public.thing (w);
        grant all on public.thing to crm_app;
    """)
    apply(db, one_table("public.thing", columns={"v": {"encrypt": True}}))
    types = (
        "select attname, format_type(atttypid, atttypmod), attcollation from pg_attribute"
        " where attrelid = %s::regclass and attnum > 0 and attname not like 'gdpr%%'"
        " and attname <> 'v' order by attnum"
    )
    assert db.rows(types, ["public.thing"]) == db.rows(types, ["gdpr_clear.thing"], user="postgres")
    app = db.connect("crm_app", options="-c search_path=gdpr_clear")
    app.execute("insert into thing values (1, 'x', 1, now(), 'c', '{glad}', 'w', 'secret')")
    app.execute("set enable_seqscan = off")
    for column in ('"%s\'a"', "w"):
        plan = app.execute(f"explain select id from thing where {column} = 'x'".encode()).fetchall()
        assert any("Index Cond" in line for (line,) in plan)
    owner.execute("revoke all on public.thing from crm_app")
    owner.execute("""grant select on public.thing to crm_app;
        grant update ("%s'a", v) on public.thing to crm_app""")
    app.execute("""update thing set "%s'a" = 'y', v = 'v' where id = 1""")
    assert app.execute("""select "%s'a", v, c from thing""").fetchall() == [("y    ", "v", "c")]
    with refused("42501", "column_refused"):
        app.execute("update thing set m = '{sad}'")


def test_imports_take_the_columns_that_may_be_inserted(crm: Database) -> None:
    """gdpr.import_rows() writes the table as the caller, only the columns that are given."""
    crm.rows("revoke insert on crm.customer from crm_app")
    crm.rows("grant insert (email, last_name) on crm.customer to crm_app")
    take = "select * from gdpr.import_rows('crm.customer', %s)"
    crm.rows(take, ['[{"email": "i@example.com", "last_name": "I"}]'], user="crm_app")
    more = '[{"email": "j@example.com", "last_name": "J", "city": "Ulm"}]'
    with pytest.raises(psycopg.Error) as caught:
        crm.rows(take, [more], user="crm_app")
    assert "42501" in f"{caught.value.sqlstate} {caught.value.diag.message_detail}"
    assert crm.rows(
        "select last_name, city from gdpr_clear.customer where id > 3", user="crm_app"
    ) == [("I", "Stuttgart")]


def test_a_search_takes_the_columns_that_it_meets(db: Database) -> None:
    """Parts of words of a column that the role may not select are not found out."""
    owner = db.connect()
    owner.execute("""
        create extension if not exists pg_trgm schema public;
        create table public.person (id bigint primary key, last_name text, maiden_name text);
        grant select, insert on public.person to crm_app;
    """)
    columns = {"maiden_name": {"category": "identity"}}
    apply(db, one_table("public.person", search=["last_name", "maiden_name"], columns=columns))
    app = db.connect("crm_app", options="-c search_path=gdpr_clear")
    app.execute("insert into person values (1, 'Ahrens', 'Bartok')")
    assert app.execute("select id from person_search('bart')").fetchall() == [(1,)]
    owner.execute("revoke select on public.person from crm_app")
    owner.execute("grant select (id, last_name) on public.person to crm_app")
    assert app.execute("select last_name from person where id = 1").fetchall() == [("Ahrens",)]
    for statement in ("select id from person_search('bart')", "select count(*) from person_search"):
        with refused("42501", "clear_refused"):
            app.execute(statement.encode()).fetchall()
    owner.execute("grant select (maiden_name) on public.person to crm_app")
    assert app.execute("select id from person_search('bart')").fetchall() == [(1,)]
