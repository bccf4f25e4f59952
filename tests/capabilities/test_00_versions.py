"""What later versions of PostgreSQL brought, and what it must not do to protection."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from gdprdb import migrate
from tests.capabilities.crm import apply, findings, one_table, plan, problems, refused
from tests.support import AS_SUPERUSER, INSTALLER, Database, cloning, serve


@pytest.fixture
def version(db: Database) -> int:
    """The server's major version."""
    ((number,),) = db.rows("select current_setting('server_version_num')::integer / 10000")
    return int(number)


def protected(db: Database, tables: str, new: dict[str, Any]) -> None:
    """Makes tables and applies a policy."""
    if tables:
        db.rows(tables)
    apply(db, new)


def need(version: int, least: int) -> None:
    """Skips where the server is older."""
    if version < least:
        pytest.skip(f"since PostgreSQL {least}")


def person(**more: Any) -> dict[str, Any]:
    """A policy for public.person."""
    columns = {
        "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
        "code": {"category": "other", "encrypt": True},
        "name": {"category": "identity", "mask": "hide"},
    }
    return one_table("public.person", columns=columns | more, match_on=["email"])


PERSON = (
    "create table person (id integer primary key, email text, code text, name text);"
    " insert into person values (1, 'ada@x.example', '12', 'Ada')"
)


def test_a_restricting_reference_blocks_an_erasure_in_our_words(db: Database) -> None:
    """RESTRICT fails with 23001 since PostgreSQL 18, and NO ACTION with 23503 as ever."""
    protected(db, PERSON, person())
    db.rows(
        "create table later (person_id integer constraint stays references person"
        " on delete restrict); insert into later values (1)"
    )
    apply(db, person())
    for statement in ("gdpr.erase(%s)",):
        with refused("23503", "erasure_blocked") as error:
            db.rows(
                f"select {statement}",
                db.rows("select gdpr.subject_of('public.person', '1')", user="dpo_login")[0],
                user="dpo_login",
            )
        assert error.value.diag.message_detail == "table public.later, constraint stays"
    ((found,),) = db.rows(
        "select gdpr.erasure_plan(gdpr.subject_of('public.person', '1'))", user="dpo_login"
    )
    assert found["blocked_by"] == "table public.later, constraint stays"


def test_a_link_that_nothing_enforces_is_no_link(db: Database, version: int) -> None:
    need(version, 18)
    new = person()
    protected(db, PERSON, new)
    db.rows(
        "create table letter (id integer primary key, body text,"
        " person_id integer references person not enforced); insert into letter values (1, 'x', 9)"
    )
    new["tables"]["public.letter"] = {
        "subject": {"via": "person_id"},
        "purposes": next(iter(new["tables"].values()))["purposes"],
        "columns": {"body": {"category": "other"}},
    }
    (problem,) = problems(db, new)
    assert "NOT ENFORCED" in problem
    db.rows(
        "delete from letter; alter table letter alter constraint letter_person_id_fkey enforced"
    )
    apply(db, new)
    assert plan(db, new) == []
    db.rows("alter table letter alter constraint letter_person_id_fkey not enforced")
    assert ("drift", "public.letter") in findings(db)
    (problem,) = problems(db, new)
    assert "NOT ENFORCED" in problem


def test_a_check_that_is_not_enforced_stays_so(db: Database, version: int) -> None:
    need(version, 18)
    protected(
        db,
        f"{PERSON}; alter table person add constraint short check (length(code) < 3) not enforced;"
        " alter table person add constraint given check (length(code) > 0)",
        person(),
    )
    db.rows("insert into person values (2, 'bo@x.example', 'a long one', 'Bo')")
    with pytest.raises(psycopg.errors.CheckViolation):
        db.rows("insert into person values (3, 'cy@x.example', '', 'Cy')")
    db.rows("select gdpr.unprotect('public.person')")
    assert db.rows(
        "select conname, pg_get_constraintdef(oid) ~ 'NOT ENFORCED' from pg_constraint"
        " where conrelid = 'public.person'::regclass and contype = 'c' order by 1"
    ) == [("given", False), ("short", True)]
    assert db.rows("select code from person order by id") == [("12",), ("a long one",)]


def test_a_virtual_column_shows_no_more_than_a_stored_one(db: Database, version: int) -> None:
    need(version, 18)
    db.rows(f"{PERSON}; alter table person add copy text generated always as (code)")
    (problem,) = problems(db, person())
    assert "copy" in problem
    db.rows("alter table person drop copy, add copy text generated always as (name)")
    protected(db, "", person())
    db.rows("grant select on person to crm_app")
    shown = "select copy from gdpr_clear.person"
    apply(db, person(copy={"category": "identity", "mask": "hide"}))
    assert db.rows(shown, user="crm_app") == [("Ada",)]
    assert db.rows("select copy from gdpr_bi.person", user="metabase") == [(None,)]
    assert plan(db, person(copy={"category": "identity", "mask": "hide"})) == []


def test_a_generated_column_that_is_computed_anew_is_drift(db: Database, version: int) -> None:
    need(version, 17)
    new = person(copy={"category": "other"})
    protected(
        db, f"{PERSON}; alter table person add copy text generated always as ('x') stored", new
    )
    assert plan(db, new) == []
    db.rows("alter table person alter copy set expression as (name)")
    assert "drift" in {topic for topic, _ in findings(db)}
    apply(db, new)
    assert plan(db, new) == []


def test_who_inherits_from_the_machinery_is_told_even_without_set_role(
    db: Database, version: int
) -> None:
    need(version, 16)
    db.rows("grant gdpr_keyholder to mailer with inherit true, set false", user="postgres")
    try:
        assert ("owner_member", "mailer") in findings(db)
    finally:
        db.rows("revoke gdpr_keyholder from mailer", user="postgres")
    assert ("owner_member", "mailer") not in findings(db)


def test_a_bound_role_inherits_its_group_though_noinherit(db: Database, version: int) -> None:
    need(version, 16)
    db.rows("create role aloof login noinherit", user="postgres")
    new = person()
    purpose = next(iter(new["purposes"]))
    new["roles"] = {"aloof": {"audience": "clear", "purposes": [purpose]}}
    try:
        protected(db, PERSON, new)
        db.rows("grant select on person to aloof")
        assert db.rows("select name from gdpr_clear.person", user="aloof") == [("Ada",)]
        assert plan(db, new) == []
    finally:
        db.close()
        db.rows("drop owned by aloof; drop role aloof", user="postgres")


def test_who_installs_becomes_a_member_of_nothing_but_what_is_said(version: int) -> None:
    """createrole_self_grant makes whoever creates a role a member of it: of a sender's and a
    portal's as well."""
    need(version, 16)
    with (
        serve(createrole_self_grant="set, inherit") as server,
        cloning(server) as clone,
        clone() as own,
    ):
        migrate.init(own.dsn(INSTALLER))
        assert own.rows(
            "select r.rolname from pg_roles as r where r.rolname like 'gdpr%'"
            " and (pg_has_role(current_user, r.oid, 'usage')"
            " or pg_has_role(current_user, r.oid, 'set')) order by 1",
            # the owner of the tables, who is nobody where a superuser installed
        ) == ([] if AS_SUPERUSER else [("gdpr_admin",), ("gdpr_dpo",)])
