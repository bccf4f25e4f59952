"""Row policies that a table had before it was protected go on narrowing it: on the table, through
its views, for each command; and gdprdb's own work for persons passes them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from gdprdb.server import Cluster
from tests.capabilities.crm import (
    apply,
    findings,
    one_table,
    original,
    plan,
    policy,
    problems,
    refused,
)
from tests.support import OWNER, Clone, Database

#: Tenants by a setting for everybody, by role for two logins; one role is kept from row 3.
POLICIES = """
alter table crm.customer enable row level security;
create policy tenant on crm.customer to crm_app
  using (id <= coalesce(nullif(current_setting('app.most', true), ''), '0')::integer);
create policy statistics on crm.customer for select to metabase using (id <> 1);
create policy narrow on crm.customer as restrictive for select to crm_app using (id <> 3);
create policy stays on crm.customer as restrictive for delete to public using (id <> 2);
"""

PROTECTED = policy(roles__metabase__purposes=["orders"])


@pytest.fixture(scope="module")
def template(clone: Clone, shop_template: str) -> Iterator[str]:
    with clone(shop_template) as database:
        database.rows(POLICIES)
        apply(database, PROTECTED)
        yield database.name


@pytest.fixture
def crm(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        yield database


def app(crm: Database, most: int | None) -> psycopg.Connection:
    """A session of the application's for the customers up to a number."""
    session = crm.connect("crm_app", options="-c gdpr.purpose=orders")
    if most is not None:
        session.execute(f"set app.most = {most}".encode())
    return session


def seen(session: psycopg.Connection, relation: str) -> list[int]:
    return [key for (key,) in session.execute(f"select id from {relation} order by id".encode())]


@pytest.mark.parametrize("relation", ["crm.customer", "gdpr_clear.customer"])
def test_a_tenant_sees_and_changes_its_own(crm: Database, relation: str) -> None:
    """By whatever way, and Mallory with whatever settings of gdprdb's."""
    assert seen(app(crm, None), relation) == []
    for most, rows in ((1, [1]), (2, [1, 2]), (3, [1, 2])):
        assert seen(app(crm, most), relation) == rows
    one = app(crm, 1)
    one.execute("set gdpr.enabling = on")
    assert one.execute(f"update {relation} set city = 'Ulm'".encode()).rowcount == 1
    assert one.execute(f"update {relation} set city = 'Ulm' where id = 2".encode()).rowcount == 0
    with refused("42501"):
        one.execute(
            f"insert into {relation} (email, last_name) values ('m@x.example', 'M')".encode()
        )
    assert crm.rows("select count(*) from crm.customer", user=OWNER) == [(3,)]
    mine = f"insert into {relation} (email, last_name) values ('m@x.example', 'M') returning city"
    assert app(crm, 9).execute(mine.encode()).fetchall() == [("Stuttgart",)]
    crm.rows('delete from crm.order_line; delete from crm."order"', user="postgres")
    # the restrictive one for everybody, the one that says what is seen, and the tenant's
    assert app(crm, 3).execute(f"delete from {relation} where id > 0".encode()).rowcount == 1
    assert seen(app(crm, 9), relation)[0] == 2


def test_a_role_of_bi_sees_the_rows_that_are_for_it(crm: Database) -> None:
    read = "select city from gdpr_bi.customer order by city"
    assert crm.rows(read, user="metabase") == [("Bonn",), ("Celle",)]
    crm.rows("drop policy statistics on crm.customer")
    apply(crm, PROTECTED)
    assert crm.rows(read, user="metabase") == []


def test_the_owner_is_free_of_them_unless_they_are_forced(clone: Clone, shop_template: str) -> None:
    for force, rows in (("no force", 3), ("force", 0)):
        with clone(shop_template) as crm:
            crm.rows(POLICIES)
            crm.rows(f"alter table crm.customer {force} row level security")
            before = original(crm, "crm")
            ((there,),) = crm.rows("select count(*) from crm.customer")
            assert there == rows
            apply_as = "postgres" if force == "force" else OWNER
            crm.rows("select gdpr.apply(%s)", [json.dumps(PROTECTED)], user=apply_as)
            assert crm.rows("select count(*) from crm.customer") == [(rows,)]
            crm.rows("select gdpr.unprotect('crm.order_line')")
            crm.rows("select gdpr.unprotect('crm.order')")
            crm.rows("select gdpr.unprotect('crm.customer')", user=apply_as)
            crm.rows("select gdpr.unprotect('crm.lead')")
            assert original(crm, "crm") == before


def test_what_gdprdb_does_for_persons_passes_them(crm: Database) -> None:
    ((person,),) = crm.rows(
        "select gdpr.find_subject('email', 'chie@example.com')", user="dpo_login"
    )
    assert seen(crm.connect("dpo_login"), "gdpr_clear.customer") == [1, 2, 3]
    ((report,),) = crm.rows("select gdpr.access_report(%s)", [person], user="dpo_login")
    assert "Chiba" in json.dumps(report)
    crm.rows("select gdpr.restrict(%s, 'accuracy_contested')", [person], user="dpo_login")
    assert seen(app(crm, 9), "crm.customer") == [1, 2]
    crm.rows('delete from crm.order_line; delete from crm."order"', user="postgres")
    crm.rows("select gdpr.erase(%s, 'asked')", [person], user="dpo_login")
    assert crm.rows("select id from crm.customer order by id", user="postgres") == [(1,), (2,)]


def test_what_hides_rows_from_everybody_is_not_taken_for_done(
    crm: Database, clone: Clone, shop_template: str
) -> None:
    """A restrictive policy for everybody is for gdprdb, too: the plan refuses it, the doctor finds
    one that comes later, and no receipt says that a person is gone who is not."""
    hides = "create policy hides on crm.customer as restrictive for {} to public using (id <> 3)"
    problem = (
        "restrictive row policies that are for everybody: hides on crm.customer; withdrawal,"
        " erasure and reports would miss what they hide; let each be for the roles that it is"
        " meant for (ALTER POLICY ... TO)"
    )
    for command in ("select", "update", "all"):
        with clone(shop_template) as before:
            before.rows(hides.format(command))
            assert problems(before, PROTECTED) == [f'tables."crm.customer": {problem}']
    crm.rows('delete from crm.order_line; delete from crm."order"', user="postgres")
    ((person,),) = crm.rows(
        "select gdpr.find_subject('email', 'chie@example.com')", user="dpo_login"
    )
    crm.rows(hides.format("select"))
    assert ("policies", "crm.customer") in findings(crm, severities=("error",))
    with refused("PR605", "erasure_incomplete"):
        crm.rows("select gdpr.erase(%s, 'asked')", [person], user="dpo_login")
    crm.rows("alter policy hides on crm.customer to crm_app")
    apply(crm, PROTECTED)
    assert findings(crm, severities=("error",)) == set()
    crm.rows("select gdpr.erase(%s, 'asked')", [person], user="dpo_login")
    assert crm.rows("select id from crm.customer order by id", user="postgres") == [(1,), (2,)]
    # what keeps rows from being deleted is found by looking
    ((person,),) = crm.rows(
        "select gdpr.find_subject('email', 'bela@example.com')", user="dpo_login"
    )
    with refused("PR605", "erasure_incomplete"):
        crm.rows("select gdpr.erase(%s, 'asked')", [person], user="dpo_login")


def test_what_is_changed_of_them_is_told_and_followed(crm: Database) -> None:
    """The gate's own is permissive: one more would narrow nothing, one less would not open."""
    assert plan(crm, PROTECTED) == []
    crm.rows("create policy more on crm.customer for select to crm_app using (id = 2)")
    assert ("drift", "crm.customer") in findings(crm)
    assert seen(app(crm, 1), "crm.customer") == [1]
    apply(crm, PROTECTED)
    assert seen(app(crm, 1), "crm.customer") == [1, 2]
    assert seen(app(crm, 1), "gdpr_clear.customer") == [1, 2]
    assert plan(crm, PROTECTED) == []


def test_row_security_without_a_policy_shows_nobody_a_row(clone: Clone, shop_template: str) -> None:
    with clone(shop_template) as crm:
        crm.rows("alter table crm.customer enable row level security")
        crm.rows("create policy asleep on crm.order_line using (false)")
        apply(crm, PROTECTED)
        for relation in ("crm.customer", "gdpr_clear.customer"):
            assert seen(app(crm, 9), relation) == []
        assert app(crm, None).execute("table crm.order_line").rowcount == 3


def test_policies_of_a_partition_hold_on_the_partition(db: Database) -> None:
    db.rows("""
        create table public.person (id integer primary key, email text) partition by range (id);
        create table public.person_1 partition of public.person for values from (1) to (10);
        grant all on public.person, public.person_1 to crm_app;
        create table public.person_2 partition of public.person for values from (11) to (20);
        grant all on public.person_2 to crm_app;
        insert into public.person values (1, 'a@x.example'), (2, 'b@x.example');
        insert into public.person values (11, 'c@x.example');
        alter table public.person_1 enable row level security;
        create policy one on public.person_1 to crm_app using (id = 1);
        create policy asleep on public.person_2 to crm_app using (false);
    """)
    apply(db, one_table("public.person", columns={"email": {"encrypt": True}}))
    session = db.connect("crm_app")
    assert seen(session, "public.person_1") == [1]
    assert seen(session, "public.person_2") == [11]
    assert seen(session, "gdpr_clear.person") == seen(session, "public.person") == [1, 2, 11]


def test_roles_of_any_name_and_those_that_are_renamed(
    clone: Clone, shop_template: str, cluster: Cluster
) -> None:
    """A role of another name is nobody until the policy is applied again; nothing breaks."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        admin.execute('create role "Crm ""App"')
        admin.execute('grant "Crm ""App" to crm_app')
        try:
            with clone(shop_template) as crm:
                crm.rows("""
                    alter table crm.customer enable row level security;
                    create policy named on crm.customer to "Crm ""App" using (id < 3);
                    create policy narrow on crm.customer as restrictive to "Crm ""App"
                      using (id <> 1);
                """)
                apply(crm, PROTECTED)
                relations = ("crm.customer", "gdpr_clear.customer")
                assert [seen(app(crm, None), r) for r in relations] == [[2], [2]]
                admin.execute('alter role "Crm ""App" rename to crm_other')
                assert [seen(app(crm, None), r) for r in relations] == [[], []]
                assert crm.rows("select count(*) from crm.customer") == [(3,)]
                assert ("drift", "crm.customer") in findings(crm)
                apply(crm, PROTECTED)
                assert [seen(app(crm, None), r) for r in relations] == [[2], [2]]
        finally:
            for role in ('"Crm ""App"', "crm_other"):
                admin.execute(f"drop role if exists {role}".encode())
