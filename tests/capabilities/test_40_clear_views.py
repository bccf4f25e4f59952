"""Station 40: what applications do to a table, done to its clear view."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest

from tests.capabilities.crm import apply, one_table, refused
from tests.support import Clone, Database


@pytest.fixture(scope="module")
def shared(clone: Clone, crm_template: str) -> Iterator[Database]:
    """One database for the tests of this page, each of which rolls back what it does."""
    with clone(crm_template) as database:
        yield database


@pytest.fixture
def app(shared: Database) -> Iterator[psycopg.Connection]:
    """The application, with nothing changed but its search_path."""
    connection = shared.connect(
        "crm_app", autocommit=False, options="-c search_path=gdpr_clear,crm"
    )
    yield connection
    connection.close()


ANNA = ["anna@example.com"]


@pytest.mark.parametrize("strength", ["update", "no key update", "share", "key share"])
def test_rows_are_locked_through_the_view(
    shared: Database, app: psycopg.Connection, strength: str
) -> None:
    """FOR UPDATE and its kin lock the row of the table, and nothing of gdprdb."""
    locked = app.execute(f"select email from customer where id = 1 for {strength}".encode())
    assert locked.fetchone() == ("anna@example.com",)
    other = shared.connect("crm_app")
    with refused("55P03"):
        other.execute(
            "select from gdpr_clear.customer where id = 1 for update nowait"
            if strength != "update"
            else "select from gdpr_clear.customer where id = 1 for key share nowait"
        ).fetchall()
    assert other.execute(
        "select id from gdpr_clear.customer where id in (1, 2) order by id for update skip locked"
    ).fetchall() == [(2,)]
    other.execute(
        "insert into gdpr_clear.customer (email, last_name) values ('new@x.example', 'N')"
    )
    other.execute("delete from gdpr_clear.customer where last_name = 'N'")


def test_a_hidden_row_is_not_locked(shared: Database, app: psycopg.Connection) -> None:
    """The lock goes through the gate; and what the views' owner got for it writes no data."""
    app.execute("set local gdpr.purpose = 'marketing'")
    shown = app.execute("select id from customer order by id").fetchall()
    assert len(shown) < shared.rows("select count(*) from crm.customer", user="postgres")[0][0]
    assert shown == app.execute("select id from customer order by id for update").fetchall()
    assert shared.rows(
        "select attname from pg_attribute where attrelid = 'crm.customer'::regclass and attnum > 0"
        " and has_column_privilege('gdpr_viewer', attrelid, attnum, 'update')"
    ) == [("gdpr_until",)]


def test_lists_of_encrypted_values(app: psycopg.Connection) -> None:
    """IN compares plaintext; the planner's estimate opens nothing and raises nothing."""
    found = app.execute(
        "select email from customer where email in ('anna@example.com', 'nobody@x.example')"
    )
    assert found.fetchall() == [("anna@example.com",)]
    assert app.execute(
        "select count(*) from customer where email <> all (%s)", [ANNA]
    ).fetchone() == (2,)
    app.execute("set local enable_seqscan = off")
    plan = "\n".join(
        line
        for (line,) in app.execute(
            "explain select id from customer where email_digest in"
            " (gdpr.digest('email', 'anna@example.com'), gdpr.digest('email', 'b@x.example'))"
        )
    )
    assert "Index Scan using customer_email_key" in plan
    assert "Index Cond: (gdpr_email_digest = ANY" in plan


def test_a_list_of_encrypted_values_as_one_parameter(app: psycopg.Connection) -> None:
    """= ANY of digests that are made of an array: one index condition, duplicates and NULL in it
    or not."""
    wanted = ["BELA@example.com", None, "nobody@x.example", "anna@example.com", ""]
    statement = (
        "select id from customer where email_digest = any (gdpr.digests('email', %s)) order by id"
    )
    assert app.execute(statement, [wanted]).fetchall() == [(1,), (2,)]
    assert app.execute(statement, [[]]).fetchall() == []
    assert app.execute(
        "select gdpr.digests('email', %s) = array(select gdpr.digest('email', v) from"
        " unnest(%s::text[]) as v)",
        [wanted, wanted],
    ).fetchone() == (True,)
    app.execute("set local enable_seqscan = off")
    unordered = "explain " + statement.removesuffix(" order by id")
    lines = app.execute(unordered.encode(), [wanted]).fetchall()
    plan = "\n".join(line for (line,) in lines)
    assert "Index Cond: (gdpr_email_digest = ANY" in plan
    assert "customer_email_key" in plan


def test_two_tables_are_joined_by_their_digests(shared: Database, app: psycopg.Connection) -> None:
    """A lead and a customer of one address, in whatever spelling, through the index."""
    app.execute("set local gdpr.purpose = 'marketing'")
    question = (
        "select l.full_name, c.last_name from lead as l join customer as c using (email_digest)"
    )
    shared.rows(
        "select gdpr.record_consent(gdpr.subject_of('crm.customer', '1'), 'marketing', true,"
        " 'web_form')",
        user="dpo_login",
    )
    assert app.execute(question).fetchall() == [("Anna Ahrens", "Ahrens")]
    app.execute(
        "set local enable_seqscan = off; set local enable_hashjoin = off;"
        " set local enable_mergejoin = off"
    )
    plan = "\n".join(line for (line,) in app.execute("explain " + question))
    assert "Index Cond: (gdpr_email_digest = " in plan


def test_rows_without_a_primary_key(db: Database) -> None:
    """A unique key that is never null names a row as well; without one, a row cannot be changed
    through the view."""
    owner = db.connect()
    owner.execute("""
        create table public.one (a integer not null, b text not null, c text, unique (a, b));
        create table public.two (a integer unique, b text not null, c text);
        create table public.three (a integer not null, b text, c text);
        create unique index on public.three (a) where b is null;
        grant all on public.one, public.two, public.three to crm_app;
    """)
    new = one_table("public.one", columns={"c": {"encrypt": True}})
    for name in ("public.two", "public.three"):
        new["tables"].update(one_table(name, columns={"c": {"encrypt": True}})["tables"])
    apply(db, new)
    app = db.connect("crm_app", options="-c search_path=gdpr_clear")
    for name in ("one", "two", "three"):
        app.execute(f"insert into {name} values (1, 'x', 'c1'), (2, 'y', 'c2')".encode())
    assert app.execute("update one set c = 'new', a = 3 where a = 1 returning c").fetchall() == [
        ("new",)
    ]
    assert app.execute("delete from one where a = 2").rowcount == 1
    assert app.execute("select * from one").fetchall() == [(3, "x", "new")]
    for name in ("two", "three"):
        with refused("PR408", "no_primary_key"):
            app.execute(f"update {name} set c = 'new' where a = 1".encode())
        with refused("PR408", "no_primary_key"):
            app.execute(f"delete from {name} where a = 1".encode())


def test_numbers_that_a_sequence_gave(app: psycopg.Connection) -> None:
    """RETURNING and currval() of the table's own sequence; lastval() meets one of gdprdb's."""
    (key,) = app.execute(
        "insert into customer (email, last_name) values ('q@x.example', 'Q') returning id"
    ).fetchone() or (0,)
    assert app.execute(
        "select currval(pg_get_serial_sequence('crm.customer', 'id'))"
    ).fetchone() == (key,)
    with refused("42501"):
        app.execute("select lastval()")


def test_many_rows_in_one_statement(app: psycopg.Connection) -> None:
    """As an ORM inserts them; GDPRDB_TEST_BULK=100000 for as many as an import has."""
    rows = int(os.environ.get("GDPRDB_TEST_BULK", "2000"))
    done = app.execute(
        "insert into customer (email, last_name, phone) select 'bulk' || n || '@x.example', 'Bulk',"
        " '+49 711 ' || n from generate_series(1, %s) as n",
        [rows],
    )
    assert done.rowcount == rows
    assert app.execute(
        "select count(*), count(distinct phone), count(distinct email_digest) from customer"
        " where last_name = 'Bulk'"
    ).fetchone() == (rows, rows, rows)
    done = app.execute("update customer set phone = phone || '0' where last_name = 'Bulk'")
    assert done.rowcount == rows
    assert app.execute("delete from customer where last_name = 'Bulk'").rowcount == rows


def test_defaults_in_every_way_to_write_them(app: psycopg.Connection) -> None:
    """DEFAULT as a value, in a list of rows, in an UPDATE, for an identity, and none given."""
    app.execute(
        "insert into customer (id, email, last_name, city) values"
        " (default, 'd1@x.example', 'D', default), (default, 'd2@x.example', 'D', null)"
    )
    app.execute("insert into customer (email, last_name) values ('d3@x.example', 'D')")
    app.execute("update customer set city = default where email = 'd2@x.example'")
    assert app.execute("select distinct city from customer where last_name = 'D'").fetchall() == [
        ("Stuttgart",)
    ]


def test_joins_on_equality_of_two_encrypted_columns(app: psycopg.Connection) -> None:
    """Columns of one kind have the same digests: the canonical form decides, in a join too."""
    app.execute("insert into customer (email, last_name) values ('Same@Example.com', 'S')")
    app.execute("insert into customer (email, last_name) values ('same@x.example', 'T')")
    found = app.execute(
        "select a.last_name from customer as a join customer as b using (email_digest)"
        " where b.email = 'Same@Example.com'"
    )
    assert found.fetchall() == [("S",)]


def test_copy_in_and_out(app: psycopg.Connection) -> None:
    """COPY FROM takes plaintext; COPY TO wants a query, as of every view."""
    with app.cursor() as cursor, cursor.copy("copy customer (email, last_name) from stdin") as copy:
        for n in range(50):
            copy.write_row((f"copy{n}@example.com", "Copied"))
    with (
        app.cursor() as cursor,
        cursor.copy("copy (select email from customer where city = 'Stuttgart') to stdout") as copy,
    ):
        assert sum(b"copy" in bytes(line) for line in copy) == 50
    with refused("42809"), app.cursor() as cursor, cursor.copy("copy customer to stdout") as copy:
        copy.read()


def test_cursors_and_prepared_statements(app: psycopg.Connection) -> None:
    app.execute("declare c scroll cursor for select email from customer order by id")
    assert app.execute("fetch last from c").fetchone() is not None
    assert app.execute("fetch first from c").fetchone() == ("anna@example.com",)
    for number in (1, 2, 3, 1, 2, 3, 1):
        (row,) = app.execute("select id from customer where id = %s", [number], prepare=True)
        assert row == (number,)
    with refused("0A000"):
        app.execute("update customer set city = 'Ulm' where current of c")


def test_returning_gives_what_the_table_would(app: psycopg.Connection) -> None:
    """Identity, defaults and encrypted values, of rows inserted, changed and deleted."""
    row = app.execute(
        "insert into customer (email, last_name, birth_date) values ('r@x.example', 'R',"
        " '1990-02-03') returning id > 3, email, birth_date::text, city, created_at = now(),"
        " email_digest = gdpr.digest('email', 'r@x.example')"
    ).fetchone()
    assert row == (True, "r@x.example", "1990-02-03", "Stuttgart", True, True)
    changed = app.execute(
        "update customer set email = 'R2@x.example' where email = 'r@x.example'"
        " returning email, email_digest = gdpr.digest('email', 'r2@x.example'), birth_date::text"
    )
    assert changed.fetchone() == ("R2@x.example", True, "1990-02-03")
    gone = app.execute("delete from customer where email = 'R2@x.example' returning last_name")
    assert gone.fetchone() == ("R",)


def test_a_value_that_the_table_refuses_is_not_swallowed(db: Database) -> None:
    """Generated columns, and identity columns that are always generated: the same error."""
    owner, app = db.connect(), db.connect("crm_app")
    owner.execute("""
        create table public.person (
          id integer generated always as identity primary key, name text,
          "a'b" integer, twice integer generated always as ("a'b" * 2) stored);
        grant all on public.person to crm_app;
    """)
    apply(db, one_table("public.person", columns={"name": {"encrypt": True}}))
    app.execute("""insert into gdpr_clear.person (name, "a'b") values ('A', 1)""")
    for relation in ("gdpr_clear.person", "public.person"):
        for column in ("twice", "id"):
            with refused("428C9") as refusal:
                app.execute(f"insert into {relation} (name, {column}) values ('B', 7)".encode())
            assert f'"{column}"' in str(refusal.value)
            with refused("428C9") as refusal:
                app.execute(f"update {relation} set {column} = 7".encode())
            assert f'"{column}" can only be updated to DEFAULT' in str(refusal.value)
    app.execute("""update gdpr_clear.person set "a'b" = 3, twice = twice, id = id""")
    assert app.execute("select id, name, twice from gdpr_clear.person").fetchall() == [(1, "A", 6)]


def test_triggers_of_a_column_fire_when_it_changes(db: Database) -> None:
    """An UPDATE through the view is not one of all columns to a trigger UPDATE OF one."""
    owner, app = db.connect(), db.connect("crm_app")
    owner.execute("""
        create table public.person (id integer primary key, email text, city text, checked boolean);
        grant all on public.person to crm_app;
        create function public.uncheck() returns trigger language plpgsql as
          $$ begin new.checked = false; return new; end $$;
    """)
    apply(db, one_table("public.person", columns={"email": {"encrypt": True}}))
    app.execute("insert into gdpr_clear.person values (1, 'a@x.example', 'Ulm', true)")
    owner.execute(
        "create trigger uncheck before update of email on public.person"
        " for each row execute function public.uncheck()"
    )
    for change, after in (
        ("city = 'Bonn'", ("a@x.example", "Bonn", True)),
        ("email = email", ("a@x.example", "Bonn", False)),
        ("checked = true", ("a@x.example", "Bonn", True)),
        ("email = 'b@x.example'", ("b@x.example", "Bonn", False)),
    ):
        app.execute(f"update gdpr_clear.person set {change}".encode())
        found = app.execute("select email, city, checked from gdpr_clear.person").fetchone()
        assert found == after, change


def test_each_row_is_a_statement_of_its_own(db: Database) -> None:
    """What a table checks when a statement ends is checked after each row; on the table, and
    with constraints that wait, it is as ever."""
    db.rows("""
        create table public.tree (id integer primary key, parent integer references public.tree,
          position integer, name text, unique (position) deferrable);
        grant all on public.tree to crm_app;
    """)
    apply(db, one_table("public.tree", columns={"name": {"encrypt": True}}))
    app = db.connect("crm_app", options="-c search_path=gdpr_clear")
    rows = "values (2, 1, 2, 'leaf'), (1, null, 1, 'root')"
    with refused("23503"):
        app.execute(f"insert into tree {rows}".encode())
    app.execute(f"insert into public.tree {rows}".encode())
    with refused("23505"):
        app.execute("update tree set position = 3 - position")
    with app.transaction():
        app.execute("set constraints all deferred")
        app.execute("update tree set position = 3 - position")
    assert app.execute("select name from tree order by position").fetchall() == [
        ("leaf",),
        ("root",),
    ]
    app.execute("update tree set name = 'oak' where id = 2")
    with refused("23503"):
        app.execute("delete from tree")
    assert app.execute("delete from public.tree").rowcount == 2


def test_a_row_that_a_trigger_keeps_out_is_no_row(crm: Database) -> None:
    """What the table's own trigger drops is not counted, and does not come back."""
    crm.rows("""
        create function crm.skip() returns trigger language plpgsql as $$
        begin
          return case when new.last_name <> 'skip' then new end;
        end $$;
        create trigger a_skip before insert or update on crm.customer for each row
          execute function crm.skip();
    """)
    app = crm.connect("crm_app", options="-c search_path=gdpr_clear")
    done = app.execute(
        "insert into customer (email, last_name) values ('s@x.example', 'skip'),"
        " ('t@x.example', 'T') returning email"
    )
    assert (done.rowcount, done.fetchall()) == (1, [("t@x.example",)])
    # PostgreSQL itself counts all rows that are copied into a view
    with app.cursor().copy("copy customer (email, last_name) from stdin") as copy:
        copy.write("u@x.example\tskip\nv@x.example\tV\n")
    assert app.execute("update customer set last_name = 'skip' where id = 1").rowcount == 0
    assert app.execute(
        "select count(*) from customer where last_name in ('T', 'V')"
    ).fetchone() == (2,)


CITY, EMAIL = "city = city || '.'", "email = email || '.'"


@pytest.fixture
def marked(db: Database) -> Database:
    """Table person, protected, and a trigger function that puts a mark on a row."""
    db.rows("""
        create table public.person (
          id integer primary key, email text, city text, marks integer not null default 0
        );
        grant all on public.person to crm_app;
        create function public.mark() returns trigger language plpgsql as
          $$ begin new.marks = new.marks + 1; return new; end $$;
    """)
    apply(db, one_table("public.person", columns={"email": {"encrypt": True}}))
    db.rows("insert into gdpr_clear.person values (1, 'a@x.example', 'Ulm')", user="crm_app")
    return db


def marks(session: psycopg.Connection, change: str) -> bool:
    """Whether a change through the view, prepared once in a session, fires the trigger."""
    read = "select marks from gdpr_clear.person where id = 1"
    before = session.execute(read).fetchall()
    session.execute(f"update gdpr_clear.person set {change} where id = 1".encode(), prepare=True)
    return session.execute(read).fetchall() != before


def test_a_trigger_of_a_column_is_noticed_whenever_it_comes(marked: Database) -> None:
    """By sessions that have updated before it came, and by those that saw it go again."""
    owner, app = marked.connect(), marked.connect("crm_app")
    create = (
        "create trigger t before update of email on person for each row execute function mark()"
    )
    assert not marks(app, CITY)
    assert not marks(app, EMAIL)
    owner.execute(create.encode())
    assert not marks(app, CITY)
    assert marks(app, EMAIL)
    owner.execute("alter trigger t on person rename to u")
    assert not marks(app, CITY)
    assert marks(app, EMAIL)
    owner.execute("alter table person disable trigger u")
    assert not marks(app, EMAIL)
    owner.execute("alter table person enable trigger u")
    assert not marks(app, CITY)
    assert marks(app, EMAIL)
    owner.execute("drop trigger u on person")
    assert not marks(app, CITY)
    assert not marks(app, EMAIL)
    owner.execute("create trigger v before update on person for each row execute function mark()")
    assert marks(app, CITY)


def test_a_trigger_of_a_column_made_in_a_transaction_is_noticed_in_it(marked: Database) -> None:
    both = marked.connect("crm_app", autocommit=False)
    create = (
        "create trigger t before update of email on person for each row execute function mark()"
    )
    assert not marks(both, CITY)
    both.execute("savepoint before")
    both.execute(create.encode())
    assert not marks(both, CITY)
    assert marks(both, EMAIL)
    both.execute("rollback to before")
    assert not marks(both, EMAIL)
    both.rollback()


def test_what_an_old_snapshot_does_not_show_is_not_taken_for_granted_later(
    marked: Database,
) -> None:
    """The plan that a transaction with one snapshot makes outlives it."""
    app = marked.connect("crm_app")
    assert not marks(app, EMAIL)
    app.execute("begin isolation level repeatable read")
    app.execute("select from pg_trigger limit 1")
    marked.rows(
        "create trigger t before update of email on person for each row execute function mark()"
    )
    app.execute("update gdpr_clear.person set city = 'Bonn' where id = 1")
    app.execute("rollback")
    assert not marks(app, CITY)
    assert marks(app, EMAIL)


def test_a_trigger_of_a_column_of_one_partition_is_noticed(db: Database) -> None:
    db.rows("""
        create table public.person (
          id integer primary key, email text, city text, marks integer not null default 0
        ) partition by range (id);
        create table public.person_1 partition of public.person for values from (1) to (9);
        grant all on public.person to crm_app;
        create function public.mark() returns trigger language plpgsql as
          $$ begin new.marks = new.marks + 1; return new; end $$;
    """)
    apply(db, one_table("public.person", columns={"email": {"encrypt": True}}))
    app = db.connect("crm_app")
    app.execute("insert into gdpr_clear.person values (1, 'a@x.example', 'Ulm')")
    assert not marks(app, CITY)
    db.rows(
        "create trigger t before update of email on person_1 for each row execute function mark()"
    )
    assert not marks(app, CITY)
    assert marks(app, EMAIL)


def test_on_conflict_through_a_view_is_postgresqls_no(app: psycopg.Connection) -> None:
    """No inference on views with triggers; DO NOTHING does not catch what happens underneath."""
    with refused("42P10"), app.transaction():
        app.execute(
            "insert into customer (email, last_name) values ('anna@example.com', 'A')"
            " on conflict (email) do update set last_name = 'A'"
        )
    with refused("23505"), app.transaction():
        app.execute(
            "insert into customer (email, last_name) values ('anna@example.com', 'A')"
            " on conflict do nothing"
        )


def test_on_conflict_on_the_table_itself(app: psycopg.Connection) -> None:
    """The digest is what is unique. excluded holds ciphertext already: encrypted columns are
    set from the values themselves."""
    upsert = (
        "insert into crm.customer (email, last_name, phone) values (%(email)s, %(name)s, %(phone)s)"
        " on conflict (gdpr_email_digest) do update"
        " set last_name = excluded.last_name, phone = %(phone)s returning id"
    )
    values = {"email": "Anna@Example.com", "name": "Upserted", "phone": "+49 711 9"}
    assert app.execute(upsert, values).fetchone() == (1,)
    assert app.execute("select last_name, phone from customer where id = 1").fetchone() == (
        "Upserted",
        "+49 711 9",
    )
    with refused("PR405", "ciphertext_written"), app.transaction():
        app.execute(upsert.replace("phone = %(phone)s", "phone = excluded.phone"), values)
    done = app.execute(
        "insert into crm.customer (email, last_name) values ('anna@example.com', 'A')"
        " on conflict do nothing"
    )
    assert done.rowcount == 0


def test_merge_through_a_view(app: psycopg.Connection) -> None:
    """From PostgreSQL 17 on; before it the same is an UPDATE, and an INSERT where it found none."""
    statement = (
        "merge into customer as c using (values (%s)) as v (email)"
        " on c.email_digest = gdpr.digest('email', v.email)"
        " when matched then update set last_name = 'Merged'"
        " when not matched then insert (email, last_name) values (v.email, 'Merged')"
    )
    if app.info.server_version < 170000:
        with refused("0A000"):
            app.execute(statement, ANNA)
        return
    app.execute(statement, ANNA)
    app.execute(statement, ["merged@x.example"])
    assert app.execute(
        "select email from customer where last_name = 'Merged' order by id"
    ).fetchall() == [("anna@example.com",), ("merged@x.example",)]


def test_a_range_of_names_goes_through_an_index(shared: Database, app: psycopg.Connection) -> None:
    """LIKE does not pass row security; the range that means the same does."""
    shared.rows('create index if not exists name_range on crm.customer (last_name collate "C")')
    app.execute("set local enable_seqscan = off")
    plan = "\n".join(
        line
        for (line,) in app.execute(
            "explain select id from customer where last_name collate \"C\" >= 'Ah'"
            " and last_name collate \"C\" < 'Ai'"
        )
    )
    assert "Scan on name_range" in plan or "Scan using name_range" in plan
    assert "Index Cond" in plan


COUNTED = """
select f.funcname, f.calls from pg_stat_xact_user_functions as f
order by f.funcname
"""


def test_a_read_opens_keys_and_values_and_calls_nothing_else(
    shared: Database, app: psycopg.Connection
) -> None:
    """What reading one row costs: its key unwrapped, two values checked and opened, once each."""
    app.execute("set local plan_cache_mode = force_generic_plan")
    app.execute("prepare read as select * from customer where id = $1")
    app.execute("execute read (2)").fetchall()
    plan = [line for (line,) in app.execute("explain (costs off) execute read (1)")]
    reads = [
        line.split(" on ")[1].split()[0]
        for line in plan
        if " Scan " in line and "Bitmap Index" not in line
    ]
    assert sorted(reads) == ["customer", "key_encryption_key", "subject_key"]
    with shared.connect("postgres") as superuser:
        superuser.execute("set track_functions = 'all'")
        superuser.execute("set session authorization crm_app")
        (encrypted,) = superuser.execute(
            "select count(*) from jsonb_each_text((select to_jsonb(c) from crm.customer as c"
            " where c.id = 1)) as f where f.value ^@ 'gdpr1:'"
        ).fetchone() or (0,)
        assert encrypted > 1
        superuser.execute("set plan_cache_mode = force_generic_plan")
        superuser.execute("prepare read as select * from gdpr_clear.customer where id = 1")
        # who may read which column is asked when a statement is planned
        superuser.execute("execute read").fetchall()
        superuser.execute("select pg_stat_force_next_flush()")
        with superuser.transaction():
            superuser.execute("execute read").fetchall()
            called: dict[str, int] = dict(superuser.execute(COUNTED).fetchall())
    # the tests' databases are copies, which have to ask where they are
    whereabouts = {"purpose_mask", "whereabouts", "current_place"}
    assert {name: calls for name, calls in called.items() if name not in whereabouts} == {
        "decrypt_iv": encrypted + 1,
        "hmac": encrypted,
    }


def test_values_of_every_length(app: psycopg.Connection) -> None:
    """The view tells the length of a ciphertext from that of its text: all remainders of both."""
    app.execute(
        "insert into customer (email, last_name, phone)"
        " select n || '@length.example', 'Length', repeat('é', n / 2) || repeat('x', n % 2)"
        " from generate_series(0, 100) as n"
    )
    assert app.execute(
        "select count(*), count(distinct octet_length(c.phone)) from customer as c"
        " join generate_series(0, 100) as n on c.email = n || '@length.example'"
        " and c.phone = repeat('é', n / 2) || repeat('x', n % 2)"
        " where c.last_name = 'Length'"
    ).fetchone() == (101, 101)


def test_columns_that_are_not_encrypted_ask_for_no_key(app: psycopg.Connection) -> None:
    for statement in ("select id, last_name from customer", "select count(*) from customer"):
        plan = "\n".join(line for (line,) in app.execute(f"explain {statement}".encode()))
        assert "key" not in plan


def test_many_roles_are_no_longer_statement(shared: Database) -> None:
    """What a statement prepares for the gate does not grow with the roles of the policy."""
    (code,) = shared.rows(
        "select pg_get_functiondef('gdpr_generated.purpose_mask'::regproc)", user="postgres"
    )[0]
    assert code.count("crm_app") == 1
    assert code.count("gdpr_policy.purpose_mask") == 1


def test_what_introspection_sees(app: psycopg.Connection) -> None:
    """Names and types of the table. A view has no keys and no sample: a model names its key."""
    assert app.execute("select 'customer'::regclass::text").fetchone() == ("customer",)
    seen = app.execute(
        "select column_name from information_schema.columns where table_schema = 'gdpr_clear'"
        " and table_name = 'customer' order by ordinal_position"
    ).fetchall()
    assert [name for (name,) in seen][:3] == ["id", "email", "phone"]
    assert app.execute(
        "select is_trigger_insertable_into, is_trigger_updatable, is_trigger_deletable"
        " from information_schema.views where table_schema = 'gdpr_clear' and"
        " table_name = 'customer'"
    ).fetchone() == ("YES", "YES", "YES")
    assert app.execute(
        "select count(*) from pg_constraint where conrelid = 'customer'::regclass"
    ).fetchone() == (0,)
    with refused("0A000"):
        app.execute("select from customer tablesample system (50)")
