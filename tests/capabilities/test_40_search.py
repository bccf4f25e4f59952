"""Station 40: searching for parts of words through an index, in a table whose rows are hidden."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, one_table, original, plan, problems, refused
from tests.support import Clone, Database

TABLES = """
create extension pg_trgm schema public;
create table public.person (id bigint generated always as identity primary key, first_name text,
  last_name varchar(80) not null, secret text, city text);
insert into public.person (first_name, last_name, city)
select 'First' || n, 'Last' || md5(n::text), 'City' from generate_series(1, 3000) as n;
insert into public.person (first_name, last_name, city) values
  ('Ada', 'Müller-Lüdenscheidt', 'Ulm'), ('Bela', 'Müllerin', 'Ulm'),
  ('Chie', '100%_sure\\', 'Ulm'), (null, 'Mueller', 'Ulm');
analyze public.person;
grant all on public.person to crm_app;
"""
POLICY = one_table(
    "public.person",
    search=["first_name", "last_name"],
    columns={"id": {"category": "key"}, "secret": {"encrypt": True}},
)


@pytest.fixture(scope="module")
def people(clone: Clone, installed_template: str) -> Iterator[Database]:
    """Three thousand people under a policy that lets their names be searched."""
    with clone(installed_template) as db:
        owner = db.connect()
        owner.execute(TABLES)
        before = original(db, "public")
        apply(db, POLICY)
        assert plan(db, POLICY) == []
        db.rows("select gdpr.unprotect('public.person')")
        assert original(db, "public") == before
        apply(db, POLICY)
        assert plan(db, POLICY) == []
        db.rows("vacuum analyze public.person")
        yield db


@pytest.fixture
def app(people: Database) -> Iterator[psycopg.Connection]:
    """The application, in a transaction that is rolled back."""
    connection = people.connect(
        "crm_app", autocommit=False, options="-c search_path=gdpr_clear,public"
    )
    yield connection
    connection.close()


def found(connection: psycopg.Connection, words: str | None) -> list[str]:
    """The last names of those whose names hold the words, as an application asks."""
    return [
        name
        for (name,) in connection.execute(
            "select last_name from person where id in (select id from person_search(%s))"
            " order by last_name",
            [words],
        )
    ]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("müller", ["Müller-Lüdenscheidt", "Müllerin"]),
        ("ÜLLE", ["Müller-Lüdenscheidt", "Müllerin"]),
        ("  lüden   ADA ", ["Müller-Lüdenscheidt"]),
        ("ada müllerin", []),
        ("mueller", ["Mueller"]),
        ("100%_sure\\", ["100%_sure\\"]),
        ("m%ller", []),
        ("müll_r", []),
        ("müll' or '1'='1", []),
        ("", []),
        ("   ", []),
        (None, []),
    ],
)
def test_what_is_found(app: psycopg.Connection, words: str | None, names: list[str]) -> None:
    """Every word, anywhere, in whatever case; each sign stands for itself."""
    assert found(app, words) == names


@pytest.mark.parametrize("words", ["ab", "%%%%", "a b c d", "one two three four five"])
def test_words_that_would_read_everything(app: psycopg.Connection, words: str) -> None:
    with refused("PR420", "search_words"):
        found(app, words)


def test_the_search_goes_through_the_index(app: psycopg.Connection) -> None:
    app.execute("set local gdpr.search = 'lüdenscheidt'")
    lines = "\n".join(
        line for (line,) in app.execute("explain select id from gdpr_clear.person_search")
    )
    assert "Bitmap Index Scan on person_search" in lines
    assert "lüden" not in lines


def test_hidden_rows_are_not_found(people: Database, app: psycopg.Connection) -> None:
    """The gate decides about each row that has the words, as about every other."""
    people.rows(
        "select gdpr.restrict(gdpr.subject_of('public.person', id::text), 'other')"
        " from gdpr_clear.person where last_name = 'Müllerin'",
        user="dpo_login",
    )
    try:
        assert found(app, "müller") == ["Müller-Lüdenscheidt"]
        assert people.rows(
            "select count(*) from gdpr_clear.person_search('müller')", user="dpo_login"
        ) == [(2,)]
    finally:
        people.rows(
            "select gdpr.lift_restriction(gdpr.subject_of('public.person', id::text), 'over')"
            " from gdpr_clear.person where last_name = 'Müllerin'",
            user="dpo_login",
        )


def test_no_function_of_the_caller_meets_a_hidden_row(people: Database) -> None:
    """Neither through the view nor through an operator that stands in the way of a built-in one."""
    people.rows("grant create on schema public to crm_app", user="postgres")
    app = people.connect("crm_app", autocommit=False)
    app.execute("""
        create function public.tell(a text, b text) returns boolean language plpgsql cost 0.0001 as
          $$ begin raise notice 'seen %', a; return true; end $$;
        create operator public.~~* (leftarg = text, rightarg = text, function = public.tell);
        create function public.tell(a bigint) returns boolean language plpgsql cost 0.0001 as
          $$ begin raise notice 'seen %', a; return true; end $$;
        set search_path = public, pg_catalog, gdpr_clear;
        set local gdpr.purpose = 'nothing of mine';
    """)
    heard: list[str] = []
    app.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    for statement in (
        "select * from gdpr_clear.person_search('müller')",
        "select * from gdpr_clear.person_search where public.tell(id)",
    ):
        app.execute("savepoint before; set local gdpr.search = 'müller'")
        with pytest.raises(psycopg.Error):
            app.execute(statement.encode())
        app.execute("rollback to before")
    assert heard == []


def test_who_may_search(people: Database) -> None:
    for user in ("metabase", "portal_app", "auditor_login"):
        for statement in (
            "select * from gdpr_clear.person_search('müller')",
            "select * from gdpr_clear.person_search",
        ):
            with refused("42501"):
                people.rows(statement, user=user)
    people.rows("revoke select on public.person from crm_app")
    try:
        with refused("42501", "clear_refused"):
            people.rows("select * from gdpr_clear.person_search('müller')", user="crm_app")
    finally:
        people.rows("grant select on public.person to crm_app")


def test_nothing_of_the_words_stays(app: psycopg.Connection) -> None:
    found(app, "müller")
    assert app.execute("select current_setting('gdpr.search')").fetchone() == ("",)
    assert app.execute("select count(*) from gdpr_clear.person_search").fetchone() == (0,)


def test_a_table_that_is_only_observed_is_searched_too(people: Database) -> None:
    observed = {
        **POLICY,
        "tables": {"public.person": {**POLICY["tables"]["public.person"], "mode": "observe"}},
    }
    apply(people, observed)
    assert len(found(people.connect("crm_app", options="-c search_path=gdpr_clear"), "müller")) == 2
    without = {**POLICY, "tables": {"public.person": {**POLICY["tables"]["public.person"]}}}
    del without["tables"]["public.person"]["search"]
    apply(people, without)
    assert plan(people, without) == []
    assert people.rows(
        "select to_regclass('public.person_search'), to_regclass('gdpr_clear.person_search')",
        user="postgres",
    ) == [(None, None)]
    apply(people, POLICY)
    notes = findings(people, severities=("info",))
    assert ("search", "public.person") in notes
    assert ("index_unused", "public.person_search") not in notes


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        (["secret"], "is encrypted"),
        (["nothing"], "there is no column"),
        (["id"], "is not text"),
        ("last_name", "a list"),
        ([], "a list"),
    ],
)
def test_what_cannot_be_searched(people: Database, search: object, reason: str) -> None:
    new = {
        **POLICY,
        "tables": {"public.person": {**POLICY["tables"]["public.person"], "search": search}},
    }
    assert any(reason in line for line in problems(people, new))


def test_what_it_needs(db: Database) -> None:
    db.rows("create table public.person (name text)")
    lines = problems(db, one_table("public.person", search=["name"]))
    assert any("primary key" in line for line in lines)
    assert any("create extension pg_trgm" in line for line in lines)
