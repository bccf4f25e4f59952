"""Mallory and the mails: forms as an oracle, tokens, planted code behind a form, the sender."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.attacks.world import POLICY, World, attempt, leaked, told
from tests.support import Database, Prepared

#: What Eva enters; the values that may turn up nowhere.
EVA = {"email": "eva@evasecret.example", "note": "evas-note-secret"}
SECRETS = ("evasecret", "evas-note-secret")

SUBMIT = "select gdpr.submit('mal.lead', %s)"


def with_form(database: Database) -> None:
    """Give the house a form for Mallory's table, and a role that sends mails."""
    world = World(database)
    new = json.loads(POLICY)
    new["tables"]["mal.lead"]["double_opt_in"] = True
    new["roles"]["mailer"] = {"audience": "mail"}
    world.run("postgres", "grant mallory to db_owner")
    world.run("db_owner", "select count(*) from gdpr.apply(%s)", [json.dumps(new)])
    world.run("postgres", "revoke mallory from db_owner")
    database.close()


@pytest.fixture
def open_house(prepared: Prepared, world_template: str) -> Iterator[World]:
    """The house with a form for Mallory's table, and a role that sends mails."""
    with prepared(world_template, with_form) as database:
        yield World(database)
        database.rows("revoke mallory from db_owner", user="postgres")


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
            errcode = '23514', constraint = new.note, column = new.email; end $$;
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
            "crm.customer",
            "crm.invoice",
            "mal.loot",
            "gdpr_internal.setting",
            "no.where",
            "",
        )
    }
    assert len(refusals) == 1
    assert "PR105" in refusals.pop()


def test_what_waits_is_read_by_nobody_but_the_sender(open_house: World) -> None:
    open_house.run("portal_app", SUBMIT, [json.dumps(EVA)])
    for user in (
        "crm_app",
        "metabase",
        "portal_app",
        "dpo_login",
        "auditor_login",
        "mallory",
        "admin_login",
        "mailer",
    ):
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


def opened_with(world: World, **changes: Any) -> World:
    """The house with a form for customers; changes of the table's policy."""
    new = json.loads(POLICY)
    new["tables"]["crm.customer"] |= {"double_opt_in": {"address": "email"}, **changes}
    new["roles"]["mailer"] = {"audience": "mail"}
    world.run("postgres", "grant mallory to db_owner")
    world.run("db_owner", "select count(*) from gdpr.apply(%s)", [json.dumps(new)])
    world.run("postgres", "revoke mallory from db_owner")
    return world


def register(world: World, row: dict[str, Any], consent: str = "{}") -> dict[str, Any]:
    """Submit a form for customers; the mail that it leads to."""
    world.run(
        "portal_app",
        "select gdpr.submit('crm.customer', %s, null, %s)",
        [json.dumps(row), consent],
    )
    return mail(world)


def customer(world: World, key: int) -> int:
    """The number of a customer."""
    ((number,),) = world.run("dpo_login", f"select gdpr.subject_of('crm.customer', '{key}')")
    return int(number)


def test_nobody_confirms_for_the_owner_of_a_number_that_was_only_entered(world: World) -> None:
    """She confirms her own address, and Vera's phone number stands in the form: Vera consented to
    nothing, and mails to Vera go where they went."""
    opened_with(world, match_on=["email", "phone"])
    vera = customer(world, 3)
    consents = world.run("dpo_login", "select count(*) from gdpr.consent_history")
    token = register(
        world,
        {"email": "mallory@evil.example", "phone": "+49711333333", "last_name": "M"},
        "{marketing}",
    )["token"]
    world.run("portal_app", "select gdpr.confirm(%s)", [token])
    assert world.run(
        "dpo_login",
        "select subject_id = %s from gdpr.consent_history order by at desc limit 1",
        [vera],
    ) == [(False,)]
    assert world.run("dpo_login", "select count(*) from gdpr.consent_history") != consents
    assert world.run("dpo_login", "select gdpr.find_subject('phone', '+49711333333')") == [(vera,)]
    world.run(
        "dpo_login",
        "select gdpr.request_consent(%s, '{marketing}', 'email', null, '1 day')",
        [vera],
    )
    assert mail(world)["to"] == "vera@verasecret.example"


@pytest.mark.parametrize(
    "spelling", ["wei\u00df@a.example", "\uff57eiss@a.example", "weiss@xn--fa-hia.example"]
)
def test_nobody_confirms_for_a_mailbox_that_is_only_spelled_alike(
    open_house: World, spelling: str
) -> None:
    """Matching folds letters that mail servers tell apart."""
    victim = "weiss@fass.example" if "xn--" in spelling else "weiss@a.example"
    open_house.run("crm_app", "insert into gdpr_clear.lead (email) values (%s)", [victim])
    open_house.run("portal_app", SUBMIT, [json.dumps({"email": spelling})])
    message = mail(open_house)
    assert message["to"] == spelling
    attempt(open_house.login("portal_app"), "select gdpr.confirm(%s)", [message["token"]])
    assert (
        open_house.run(
            "postgres",
            "select count(*) from mal.lead group by gdpr_subject_id having count(*) > 1",
        )
        == []
    )


def test_plus_tags_are_no_way_around_interval_and_opt_out(open_house: World) -> None:
    def waiting() -> int:
        ((count,),) = open_house.run("postgres", "select count(*) from gdpr_internal.outbox")
        return int(count)

    for tag in ("", "+1", "+2", "+3"):
        open_house.run("portal_app", SUBMIT, [json.dumps({"email": f"eva{tag}@evasecret.example"})])
    assert waiting() == 1
    open_house.run("portal_app", "select gdpr.opt_out(%s)", [mail(open_house)["token"]])
    assert waiting() == 0
    open_house.run("postgres", "delete from gdpr_internal.registration_mail")
    open_house.run("portal_app", SUBMIT, [json.dumps({"email": "eva+4@evasecret.example"})])
    assert waiting() == 0
    assert open_house.run(
        "dpo_login", "select gdpr.lift_opt_out('eva+5@evasecret.example', 'asked')"
    ) == [(True,)]


def test_a_wake_up_does_not_tell_whether_a_mail_goes_out(open_house: World) -> None:
    """Any login may LISTEN: the blocked address and the other sound the same."""
    open_house.run("dpo_login", "select gdpr.block('email', 'eva@evasecret.example', 'asked')")
    listener = open_house.login("outsider")
    listener.execute("listen gdpr_outbox")
    calls = []
    for address in ("eva@evasecret.example", "other@evasecret.example"):
        open_house.run("portal_app", SUBMIT, [json.dumps({"email": address})])
        calls.append([(n.channel, n.payload) for n in listener.notifies(timeout=1, stop_after=1)])
    assert calls[0] == calls[1] == [("gdpr_outbox", "")]


@pytest.mark.parametrize("key", ["registration", "submitted_at", "confirmed_at", "confirmation"])
@pytest.mark.parametrize(
    "statement",
    [
        "select gdpr.set_context(p_source => %s)",
        (
            "select set_config('gdpr.source', %s, false);"
            " insert into gdpr_clear.customer (email, last_name) values ('n@n.example', 'N')"
        ),
        "select gdpr.submit('mal.lead', '{\"email\": \"n@n.example\"}', %s)",
    ],
)
def test_nobody_forges_the_evidence_of_a_confirmation(
    open_house: World, statement: str, key: str
) -> None:
    source = json.dumps({"kind": "web_form", key: "2020-01-01"})
    session = open_house.login("crm_app")
    for part in statement.split(";"):
        error = attempt(session, part, [source] if "%s" in part else None)
    assert error is not None
    assert error.sqlstate == "PR004"
