"""Mallory and the mails: forms as an oracle, tokens, planted code behind a form, the sender."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.attacks.world import POLICY, World, attempt, leaked, told

#: What Eva enters; the values that may turn up nowhere.
EVA = {"email": "eva@evasecret.example", "note": "evas-note-secret"}
SECRETS = ("evasecret", "evas-note-secret")

SUBMIT = "select gdpr.submit('mal.lead', %s)"


@pytest.fixture
def open_house(world: World) -> World:
    """The house with a form for Mallory's table, and a role that sends mails."""
    new = json.loads(POLICY)
    new["tables"]["mal.lead"]["double_opt_in"] = True
    new["roles"]["mailer"] = {"audience": "mail"}
    world.run("postgres", "grant mallory to db_owner")
    world.run("db_owner", "select count(*) from gdpr.apply(%s)", [json.dumps(new)])
    world.run("postgres", "revoke mallory from db_owner")
    return world


def mail(world: World) -> dict[str, Any]:
    """The mail that waits, taken by the sender."""
    sender = world.login("mailer")
    ((number,),) = sender.execute("select gdpr.next_mail()").fetchall()
    ((message,),) = sender.execute("select message from gdpr.open_mail(%s)", [number]).fetchall()
    return dict(message)


def test_no_token_but_the_right_one_opens_anything(open_house: World) -> None:
    open_house.run("portal_app", SUBMIT, [json.dumps(EVA)])
    right = mail(open_house)["token"]
    portal = open_house.login("portal_app")
    answers = {
        told(attempt(portal, f"select gdpr.{verb}(%s)", [token])).replace(verb, "verb")
        for verb in ("confirm", "opt_out")
        for token in (
            "",
            " ",
            None,
            right[:-1],
            right + "=",
            right.swapcase(),
            right[1:] + "A",
            "1",
            "x" * 43,
            "x" * 1_000_000,
            "' or true --",
            f" {right}",
        )
    }
    # the line of the function that refused is all that differs between the verbs
    assert all("PR303" in answer for answer in answers)
    assert len({answer.split("CONTEXT")[0].split("PL/pgSQL")[0] for answer in answers}) == 1
    assert not any(right in answer for answer in answers)


def test_code_planted_in_a_table_runs_without_keys(open_house: World) -> None:
    open_house.plant_thief()
    open_house.run(
        "mallory",
        """
        alter table mal.lead add check (mal.thief());
        create function mal.steal() returns trigger language plpgsql as
          $$ begin perform mal.thief(); return new; end $$;
        create trigger aaa before insert on mal.lead for each row execute function mal.steal();
        create trigger zzzz after insert on mal.lead for each row execute function mal.steal();
        """,
    )
    # the check ran over her own rows when she added it
    open_house.run("postgres", "truncate mal.loot")
    open_house.run("portal_app", SUBMIT, [json.dumps(EVA)])
    assert {who for who, _, _ in open_house.loot()} == {"gdpr_worker"}
    open_house.run("portal_app", "select gdpr.confirm(%s)", [mail(open_house)["token"]])
    assert {who for who, _, _ in open_house.loot()} == {"gdpr_worker"}
    assert not open_house.keys_taken()


def test_code_planted_in_a_table_opens_no_other_door_while_a_row_is_confirmed(
    open_house: World,
) -> None:
    # a function of her own, called from the trigger: as mallory, in a transaction that confirms
    open_house.run(
        "mallory",
        """
        create function mal.peek() returns void language plpgsql security definer as $$
          begin
            insert into mal.loot (what) select 'row ' || last_name from crm.customer;
          exception when insufficient_privilege then
            insert into mal.loot (what) values ('refused');
          end $$;
        create function mal.look() returns trigger language plpgsql as
          $$ begin perform mal.peek(); return new; end $$;
        create trigger aaa before insert on mal.lead for each row execute function mal.look();
        """,
    )
    open_house.run("db_owner", "grant select on crm.customer to mallory")
    open_house.run("portal_app", SUBMIT, [json.dumps(EVA)])
    open_house.run("portal_app", "select gdpr.confirm(%s)", [mail(open_house)["token"]])
    assert [what for _, _, what in open_house.loot()] == ["refused"]


def test_a_planted_trigger_cannot_make_the_error_tell_a_value(open_house: World) -> None:
    open_house.run(
        "mallory",
        """
        create function mal.tell() returns trigger language plpgsql as $$
          begin raise exception using message = new.note, detail = new.email, hint = new.note,
            errcode = '23514', constraint = 'some_check'; end $$;
        create trigger aaa before insert on mal.lead for each row execute function mal.tell();
        """,
    )
    open_house.run("portal_app", SUBMIT, [json.dumps(EVA)])
    token = mail(open_house)["token"]
    error = attempt(open_house.login("portal_app"), "select gdpr.confirm(%s)", [token])
    assert error is not None
    assert error.sqlstate == "PR106"
    assert leaked(told(error), SECRETS) == []
    assert token not in told(error)


def test_a_form_reaches_no_table_that_the_policy_did_not_open(open_house: World) -> None:
    portal = open_house.login("portal_app")
    refusals = {
        told(attempt(portal, "select gdpr.submit(%s, '{}')", [table]))
        for table in (
            "crm.customer", "crm.invoice", "mal.loot", "gdpr_internal.setting", "no.where", "",
        )
    }  # fmt: skip
    assert len(refusals) == 1
    assert "PR105" in refusals.pop()


def test_what_waits_is_read_by_nobody_but_the_sender(open_house: World) -> None:
    open_house.run("portal_app", SUBMIT, [json.dumps(EVA)])
    for user in ("crm_app", "metabase", "portal_app", "dpo_login", "auditor_login", "mallory",
                 "admin_login", "mailer"):  # fmt: skip
        connection = open_house.login(user)
        for table in ("outbox", "registration", "registration_key", "token", "mail_record"):
            error = attempt(connection, f"select * from gdpr_internal.{table}")
            assert isinstance(error, psycopg.errors.InsufficientPrivilege), (user, table)
    ((stored,),) = open_house.run(
        "postgres",
        "select (select string_agg(o::text, '') from gdpr_internal.outbox as o)"
        " || (select string_agg(r::text, '') from gdpr_internal.registration as r)",
    )
    assert leaked(stored, SECRETS) == []


def test_a_sender_opens_only_what_was_given_to_it(open_house: World) -> None:
    open_house.run("portal_app", SUBMIT, [json.dumps(EVA)])
    ((number,),) = open_house.run("postgres", "select id from gdpr_internal.outbox")
    sender = open_house.login("mailer")
    error = attempt(sender, "select gdpr.open_mail(%s)", [number])
    assert error is not None
    assert error.sqlstate == "PR606"
    # nor the values of a person, by way of the ciphertext
    ((stored,),) = open_house.run("postgres", "select email from crm.customer where id = 1")
    for statement in ("select gdpr.reveal(%s)", "select gdpr.digest('email', %s)"):
        assert isinstance(
            attempt(sender, statement, [stored]), psycopg.errors.InsufficientPrivilege
        )


def test_the_ciphertext_of_a_registration_opens_as_nobody(open_house: World) -> None:
    open_house.run("portal_app", SUBMIT, [json.dumps(EVA)])
    ((content,),) = open_house.run("postgres", "select content from gdpr_internal.registration")
    for user in ("crm_app", "dpo_login"):
        error = attempt(open_house.login(user), "select gdpr.reveal(%s)", [content])
        assert error is not None, user
        assert leaked(told(error), SECRETS) == []
