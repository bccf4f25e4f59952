"""What Mallory does so that somebody is not forgotten, or more than that."""

from __future__ import annotations

import itertools
import json
from typing import Any

import psycopg
import pytest

from tests.attacks.test_portal import ANNA, token
from tests.attacks.test_tokens import person
from tests.attacks.world import HIDDEN, POLICY, World, attempt, leaked, told
from tests.support import waiting


def apply(world: World, policy: dict[str, Any]) -> None:
    """Apply a policy to the tables of both owners."""
    world.run("postgres", "grant mallory to db_owner")
    world.run("db_owner", "select count(*) from gdpr.apply(%s)", [json.dumps(policy)])
    world.run("postgres", "revoke mallory from db_owner")


def test_no_hold_is_promised_on_rows_that_retention_is_deleting(world: World) -> None:
    """Who places a hold while retention runs waits for it, and is told what is gone."""
    world.run("db_owner", "alter table crm.invoice add column paid date default '2000-01-01'")
    policy = json.loads(POLICY)
    policy["tables"]["crm.invoice"]["columns"]["paid"] = {"category": "other"}
    policy["tables"]["crm.invoice"]["retain"] = [{"for": "1 year", "after": "paid"}]
    apply(world, policy)
    officer = world.login("dpo_login")
    retention = world.db.connect("admin_login", autocommit=False)
    retention.execute("select gdpr.run_retention()")
    hold = "select gdpr.place_hold(%s, 'legal_claims', 'file 7', 'crm.invoice', '1')"
    end = waiting(officer, lambda: officer.execute(hold, [person(world, ANNA)]))
    retention.commit()
    error = end()
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate == "PR004"
    assert world.run("postgres", "select count(*) from gdpr_internal.hold") == [(0,)]


def work(world: World, keys: list[int]) -> tuple[int, int, int]:
    """A batch of erasures, run at once."""
    officer = world.login("dpo_login")
    people = [person(world, key) for key in keys]
    (batch,) = officer.execute("select gdpr.open_erasure_batch(%s, 'x')", [people]).fetchone() or ()
    row = officer.execute("select * from gdpr.run_erasure_batch(%s)", [batch]).fetchone()
    assert row is not None
    erased, failed, remaining = row
    return erased, failed, remaining


def plant(world: World, body: str) -> None:
    """A trigger that meets every customer who is being deleted."""
    world.run(
        "db_owner",
        f"create function crm.meet() returns trigger language plpgsql as $f$ begin {body}"
        " return old; end $f$;"
        " create trigger meet before delete on crm.customer"
        " for each row execute function crm.meet()",
    )


def test_an_error_of_any_kind_keeps_nobody_else_from_being_erased(world: World) -> None:
    plant(world, "if old.id = 3 then perform 1 / 0; end if;")
    assert work(world, [1, 2, 3]) == (2, 1, 0)
    ((failures,),) = world.run("dpo_login", "select failures from gdpr.erasure_batch")
    assert failures == {"22012": [person(world, 3)]}


def test_code_that_changes_the_session_keeps_nobody_else_from_being_erased(world: World) -> None:
    plant(world, "if old.id = 3 then perform set_config('role', 'none', false); end if;")
    assert work(world, [1, 2, 3]) == (2, 1, 0)


def test_an_error_leaves_no_value_in_the_list_of_work(world: World) -> None:
    """The name of a constraint is whatever planted code says; the list outlives the person."""
    plant(
        world,
        "raise exception using errcode = '23503', constraint = old.last_name,"
        " message = old.last_name;",
    )
    assert work(world, [1]) == (0, 1, 0)
    ((batches,),) = world.run("dpo_login", "select jsonb_agg(b) from gdpr.erasure_batch as b")
    assert "23503" in str(batches)
    assert leaked(str(batches), HIDDEN) == []


def test_a_full_list_of_requests_keeps_nobody_from_saying_no(world: World) -> None:
    """With a stolen session, or out of zeal: what takes force at once is always open."""
    session = token(world, "session", ANNA)
    portal = world.login("portal_app")
    for _ in range(20):
        portal.execute("select gdpr.portal_erase(%s)", [session])
    error = attempt(portal, "select gdpr.portal_erase(%s)", [session])
    assert error is not None
    assert error.sqlstate == "PR616"
    withdraw = "select gdpr.portal_withdraw_consent(%s, 'marketing')"
    assert portal.execute(withdraw, [session]).fetchone() == ("withdrawn",)
    portal.execute("select gdpr.portal_object(%s, 'analytics')", [session])
    portal.execute("select gdpr.portal_data(%s)", [session])
    # said again, it is no more closed than before, and not kept without end
    error = attempt(portal, "select gdpr.portal_object(%s, 'analytics')", [session])
    assert error is not None
    assert error.sqlstate == "PR616"


def test_evidence_kept_for_good_is_no_place_to_fill(world: World) -> None:
    session = token(world, "session", ANNA)
    answer = "select gdpr.portal_answer_consent(%s, 'marketing', true, null, %s::jsonb)"
    words = json.dumps({"words": "annas-words-" + "x" * 200_000})
    error = attempt(world.login("portal_app"), answer, [session, words])
    assert error is not None
    assert error.sqlstate == "PR004"
    assert "16 kB" in told(error)
    assert leaked(told(error), ["annas-words"]) == []


#: What planted code may say of a constraint: words of its own, a name that is none, gdprdb's own.
FORGED = [
    "constraint = old.last_name, table = 'customer', schema = 'crm'",
    "constraint = 'gdpr_erased', detail = old.last_name",
    "constraint = 'gdpr_' || old.last_name",
    "constraint = 'gdpr_duplicate', table = old.last_name",
    "constraint = 'gdpr_blocked; nothing else is', table = 'x', schema = E'crm\n'",
    "column = old.last_name, table = 'customer', schema = 'crm'",
]


def test_what_planted_code_says_of_a_constraint_is_not_repeated(world: World) -> None:
    plant(world, "")
    officer = world.login("dpo_login")
    anna = person(world, ANNA)
    for code, words in itertools.product(("23503", "23001", "23505", "23514", "23502"), FORGED):
        world.run(
            "db_owner",
            "create or replace function crm.meet() returns trigger language plpgsql as $f$ begin"
            f" raise exception using errcode = '{code}', message = old.last_name, {words}; end $f$",
        )
        error = attempt(officer, "select gdpr.erase(%s)", [anna])
        assert error is not None
        assert error.diag.constraint_name == "gdpr_erasure_blocked"
        assert error.diag.message_detail == "code of the application"
        assert leaked(told(error), HIDDEN) == []
        attempt(officer, "select gdpr.erasure_plan(%s)", [anna])
    ((left,),) = world.run("postgres", "select count(*) from crm.customer where id = 1")
    assert left == 1


def test_a_constraint_with_a_misleading_name_is_named_on_one_line_and_shows_no_row(
    world: World,
) -> None:
    """gdpr_ before a name makes it no message of gdprdb's."""
    name = 'gdpr_erased"\nHINT: all is well'.replace('"', '""')
    world.run(
        "db_owner",
        f'create table crm.letter (customer_id bigint, constraint "{name}" foreign key'
        " (customer_id) references crm.customer on delete restrict);"
        " insert into crm.letter values (1)",
    )
    error = attempt(world.login("dpo_login"), "select gdpr.erase(%s)", [person(world, ANNA)])
    assert error is not None
    assert error.diag.constraint_name == "gdpr_erasure_blocked"
    assert error.diag.message_detail == (
        'table crm.letter, constraint "gdpr_erased"" HINT: all is well"'
    )


#: What the owner of mal.lead does to another owner's rows while gdprdb writes hers.
MEDDLE = """
create function mal.meddle() returns trigger language plpgsql as $f$
begin
  update crm.customer set last_name = 'forged' where id = 2;
  delete from crm.invoice where id = 3;
  return null;
end $f$;
create trigger planted after delete on mal.lead for each row execute function mal.meddle();
"""


@pytest.mark.parametrize("way", ["erasure", "retention"])
def test_what_planted_code_does_to_rows_of_others_is_on_record_with_what_stood_there(
    world: World, way: str
) -> None:
    """Owners of protected tables trust each other for rows (the doctor says so); what one does
    to another's can be undone."""
    if way == "retention":
        world.run("mallory", "alter table mal.lead add column day date default '2000-01-01'")
        policy = json.loads(POLICY)
        policy["tables"]["mal.lead"]["columns"]["day"] = {"category": "other"}
        policy["tables"]["mal.lead"]["retain"] = [{"for": "1 year", "after": "day"}]
        apply(world, policy)
    world.run("mallory", MEDDLE)
    if way == "retention":
        world.run("admin_login", "select gdpr.run_retention()")
    else:
        world.run(
            "dpo_login",
            "select gdpr.erase(gdpr.find_subject('email', 'other@lead.example'), 'asked')",
        )
    assert world.run("postgres", "select last_name from crm.customer where id = 2") == [("forged",)]
    recorded = world.run(
        "dpo_login",
        "select operation, table_name::text, old ->> 'last_name', old ->> 'note' is not null"
        " from gdpr.audit_log where table_name in ('crm.customer'::regclass,"
        " 'crm.invoice'::regclass) order by id desc limit 2",
    )
    assert sorted(recorded) == [
        ("DELETE", "crm.invoice", None, True),
        ("UPDATE", "crm.customer", "Hugoname", False),
    ]
