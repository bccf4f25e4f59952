"""Station 40: what a searchable column counts as equal is what its type does, or more. UNIQUE is
never looser than before; a value without content is one like any other, but nobody's identifier."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.capabilities.crm import apply, one_table, plan, problems, subject
from tests.capabilities.enabling import finish, until
from tests.properties.test_round_trip import OWN_TYPES, SESSIONS, TYPES
from tests.support import Clone, Database

TABLES = """
create table public.person (
  id integer generated always as identity primary key,
  word text unique,
  email text unique,
  phone text unique,
  code text unique,
  short char(4) unique,
  price numeric unique,
  span interval unique,
  ratio float8 unique
);
grant all on public.person to crm_app;
"""
COLUMNS = {
    "word": {"encrypt": "searchable"},
    "email": {"encrypt": "searchable", "identifier": "email"},
    "phone": {"encrypt": "searchable", "identifier": "phone"},
    "code": {"encrypt": "searchable", "canonical": "exact"},
    "short": {"encrypt": "searchable", "canonical": "exact"},
    "price": {"encrypt": "searchable"},
    "span": {"encrypt": "searchable"},
    "ratio": {"encrypt": "searchable"},
}
POLICY = one_table(
    "public.person", columns=COLUMNS, match_on=["email", "phone"], blocklist="refuse"
)
#: The types of columns that are no text.
CASTS = {"short": "char(4)", "price": "numeric", "span": "interval", "ratio": "float8"}
#: Column, value, one that equals it, and one that does not.
EQUALS = [
    ("word", "", " ", "x"),
    ("word", "\t", "\u200b", "."),
    ("email", "", "\u3000", "a@example.com"),
    ("phone", "", "  ", "unknown"),
    ("phone", "unknown", " UNKNOWN", "n/a"),
    ("code", "", "", " "),
    ("short", "", "    ", "x"),
    ("short", "ab", "ab  ", " ab"),
    ("price", "1.5", "1.50", "1.51"),
    ("price", "100", "1e2", "10"),
    ("span", "1 day", "24 hours", "25 hours"),
    ("span", "1 mon -1 day", "29 days", "1 mon"),
    ("ratio", "0", "-0", "1e-300"),
]


@pytest.fixture(scope="module")
def template(clone: Clone, installed_template: str) -> Iterator[Database]:
    """The table before it is protected."""
    with clone(installed_template) as database:
        database.rows(TABLES)
        yield database


@pytest.fixture(scope="module")
def database(clone: Clone, template: Database) -> Iterator[Database]:
    """The table under its policy."""
    with clone(template.name) as database:
        apply(database, POLICY)
        assert plan(database, POLICY) == []
        yield database


@pytest.fixture
def app(database: Database) -> Iterator[psycopg.Connection]:
    """The application, in a transaction that is rolled back."""
    connection = database.connect("crm_app", autocommit=False)
    yield connection
    connection.close()


def kind(column: str) -> str:
    """What `gdpr.digest` calls the kind of a column."""
    said = COLUMNS[column]
    return "exact" if said.get("canonical") == "exact" else said.get("identifier", "text")


@pytest.mark.parametrize("name", ["gdpr_clear.person", "public.person"])
@pytest.mark.parametrize(("column", "value", "equal", "other"), EQUALS)
def test_unique_refuses_what_it_refused(
    app: psycopg.Connection, name: str, column: str, value: str, equal: str, other: str
) -> None:
    """By INSERT and UPDATE, through view and table, under the name of its constraint."""
    insert = f"insert into {name} ({column}) values (%s), (%s), (null), (null)".encode()
    app.execute(insert, [value, other])
    for statement in (
        f"insert into {name} ({column}) values (%s)",
        f"update {name} set {column} = %s where id = (select max(id) from {name})",
    ):
        with pytest.raises(psycopg.errors.UniqueViolation) as error, app.transaction():
            app.execute(statement.encode(), [equal])
        assert error.value.diag.constraint_name == f"person_{column}_key"
        assert not error.value.diag.message_detail or value.strip() == ""
    app.execute(f"delete from {name} where {column} is not null".encode())
    app.execute(f"insert into {name} ({column}) values (%s)".encode(), [equal])


@pytest.mark.parametrize(("column", "value", "equal", "other"), EQUALS)
def test_a_look_up_finds_what_is_equal(
    app: psycopg.Connection, column: str, value: str, equal: str, other: str
) -> None:
    insert = f"insert into public.person ({column}) values (%s), (%s), (null) returning id".encode()
    cursor = app.execute(insert, [value, other])
    asked = f"gdpr.digest_of('{kind(column)}', %s::{CASTS.get(column, 'text')})"
    (one, two, _) = [key for (key,) in cursor.fetchall()]
    for condition, key in ((f"= {asked}", one), (f"<> {asked}", two)):
        found = app.execute(
            f"select id from gdpr_clear.person where {column}_digest {condition}".encode(), [equal]
        ).fetchall()
        assert found == [(key,)]
    if column not in CASTS:
        listed = f"{column}_digest = any (gdpr.digests('{kind(column)}', %s))"
        found = app.execute(
            f"select id from gdpr_clear.person where {listed} order by id".encode(),
            [[other, equal, None]],
        ).fetchall()
        assert found == [(one,), (two,)]
    joined = app.execute(
        f"select a.id, b.id from gdpr_clear.person as a join gdpr_clear.person as b"
        f" using ({column}_digest)".encode()
    ).fetchall()
    assert set(joined) == {(one, one), (two, two)}


def test_a_value_without_content_is_nobodys_identifier(database: Database) -> None:
    def write(statement: str, *values: object) -> None:
        database.rows(statement, values, user="crm_app")

    def identifiers() -> int:
        ((count,),) = database.rows(
            "select count(*) from gdpr_internal.identifier where retired_at is null",
            user="postgres",
        )
        return int(count)

    for column, value in (("email", ""), ("email", None), ("phone", "-"), ("phone", "?")):
        write(f"insert into public.person ({column}) values (%s)", value)
    keys = [
        key for (key,) in database.rows("select id from public.person order by id", user="postgres")
    ]
    assert len({subject(database, "public.person", key) for key in keys}) == len(keys) == 4
    assert identifiers() == 0
    for asked in ("gdpr.find_subject('email', '')", "gdpr.block('phone', '-', 'x')"):
        with pytest.raises(psycopg.Error) as error:
            database.rows(f"select {asked}", user="dpo_login")
        assert error.value.sqlstate == "PR004"
    # who gives an address up leaves no emptiness behind that another could take over
    change = "update gdpr_clear.person set email = %s where id = %s"
    write(change, "a@b.example", keys[0])
    assert identifiers() == 1
    write(change, "", keys[1])
    write(change, "\u3000", keys[1])
    write(change, None, keys[1])
    write(change, "", keys[0])
    assert identifiers() == 0
    # an erasure blocks none, and makes room
    number = subject(database, "public.person", keys[0])
    database.rows("select gdpr.erase(%s, 'asked')", [number], user="dpo_login")
    write("insert into public.person (email) values ('')")
    write("delete from public.person")


def test_plan_counts_values_without_content_as_others(clone: Clone, template: Database) -> None:
    with clone(template.name) as database:
        database.rows(
            "insert into public.person (word, phone, price, span) values ('', '', 1, '1 day'),"
            " (' ', 'unknown', 2, '25 hours'), (E'\\t', 'n/a', 2.5, null), ('x', '-', null, null)"
        )
        reason = (
            'tables."public.person".columns."{}": is UNIQUE, and 1 of its values are written in'
            ' several ways that become one (see canonical = "exact")'
        )
        assert problems(database, POLICY) == [reason.format("word")]
        database.rows("update public.person set word = id::text")
        apply(database, POLICY)
        assert plan(database, POLICY) == []
        found = database.rows(
            "select phone from gdpr_clear.person where phone_digest = gdpr.digest('phone', 'N/A')",
            user="crm_app",
        )
        assert found == [("n/a",)]


def test_uniqueness_moves_in_batches(clone: Clone, template: Database) -> None:
    words = one_table("public.person", columns={name: COLUMNS[name] for name in ("word", "phone")})
    with clone(template.name) as database:
        database.rows("alter table public.person drop price, drop span, drop ratio, drop short")
        database.rows(
            "insert into public.person (word, phone) values ('', ''), ('a', 'n/a'), (null, '?')"
        )
        until(database, "claiming", "public.person", words)
        insert = "insert into public.person (word, phone) values (%s, %s)"
        database.rows(insert, ["b", "unknown"], user="crm_app")
        finish(database, words)
        assert plan(database, words) == []
        for word, phone in ((" ", "x"), ("c", " \t"), ("c", "N/A"), ("B", "x"), ("c", "Unknown")):
            with pytest.raises(psycopg.errors.UniqueViolation):
                database.rows(insert, [word, phone], user="crm_app")
        found = database.rows(
            "select word from gdpr_clear.person where phone_digest = gdpr.digest('phone', ' ')",
            user="crm_app",
        )
        assert found == [("",)]
        assert database.rows("select * from gdpr_internal.identifier", user="postgres") == []


def test_digests_outlive_keys(clone: Clone, template: Database) -> None:
    """A renewal, a rotation and a policy that changes leave what is equal equal."""
    stored = "select id, word_digest, price_digest, span_digest from gdpr_clear.person order by id"
    with clone(template.name) as database:
        apply(database, POLICY)
        insert = "insert into public.person (word, email, price, span) values (%s, %s, %s, %s)"
        database.rows(insert, ["", "", "1.50", "24 hours"], user="crm_app")
        database.rows(insert, ["x", "a@b.example", None, None], user="crm_app")
        before = database.rows(stored, user="crm_app")
        for key in (1, 2):
            number = subject(database, "public.person", key)
            database.rows("select gdpr.renew_key(%s)", [number])
        database.rows("select gdpr.rotate_key()")
        masked = {**COLUMNS, "word": {"encrypt": "searchable", "mask": "initial"}}
        apply(database, one_table("public.person", columns=masked, match_on=["email", "phone"]))
        assert database.rows(stored, user="crm_app") == before
        for values in ([" ", None, None, None], [None, None, "1.5", None]):
            with pytest.raises(psycopg.errors.UniqueViolation):
                database.rows(insert, values, user="crm_app")


# ---------------------------------------------------------------- every type

#: All but those that have no operator = and those whose values hold numbers of several spellings.
COMPARED = [
    name
    for name in TYPES
    if name
    not in (
        "json",
        "jsonb",
        "jsonb[]",
        "point",
        "numeric[]",
        "float8[]",
        "interval[]",
        "public.feeling",
    )
]


def place(name: str) -> tuple[str, str]:
    """Table and column of a type."""
    n = COMPARED.index(name)
    return f"of_{n // 10}", f"v{n}"


@pytest.fixture(scope="module")
def types(clone: Clone, installed_template: str) -> Iterator[list[psycopg.Connection]]:
    """Sessions with several settings, and tables with a searchable column for each type."""
    with clone(installed_template) as database:
        database.rows(OWN_TYPES)
        policy = one_table("")
        policy["tables"] = {}
        for table in sorted({place(name)[0] for name in COMPARED}):
            names = [name for name in COMPARED if place(name)[0] == table]
            columns = ", ".join(f"{place(name)[1]} {name}" for name in names)
            database.rows(f"create table public.{table} (id integer primary key, {columns})")
            database.rows(f"grant all on public.{table} to crm_app")
            searchable = {
                place(name)[1]: {
                    "encrypt": "searchable",
                    "canonical": "identifier" if "citext" in name else "exact",
                }
                for name in names
            }
            policy["tables"].update(one_table(f"public.{table}", columns=searchable)["tables"])
        apply(database, policy)
        yield [database.connect("crm_app", options=options) for options in SESSIONS]


@pytest.mark.parametrize("name", COMPARED)
def test_a_value_is_found_in_every_session(types: list[psycopg.Connection], name: str) -> None:
    """By the digest of the value cast to the type of the column: what the type calls equal, and
    nothing else."""
    table, column = place(name)
    kind = "text" if "citext" in name else "exact"
    equal = f"{column}::{name} = %s::text::{name}"
    digested = f"{column}_digest = gdpr.digest_of('{kind}', %s::text::{name})"

    @settings(
        max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(TYPES[name], TYPES[name], st.permutations(range(len(types))))
    def law(one: str, two: str, order: list[int]) -> None:
        writer, reader, *_ = (types[n] for n in order)
        writer.execute(f"delete from public.{table}".encode())
        for view, typed in (("gdpr_clear", f"%s::text::{name}"), ("public", "%s")):
            writer.execute(
                f"insert into {view}.{table} (id, {column}) values"
                f" ((select count(*) from gdpr_clear.{table}), {typed})".encode(),
                [one],
            )
        for value in (one, two):
            for is_equal, is_found in reader.execute(
                f"select {equal}, {digested} from gdpr_clear.{table}".encode(), [value, value]
            ):
                assert is_found == is_equal or ("citext" in name and is_found)
        read = (
            f"select {column}_digest = gdpr.digest_of('{kind}', {column}) from gdpr_clear.{table}"
        )
        assert reader.execute(read.encode()).fetchall() == [(True,), (True,)]

    law()
