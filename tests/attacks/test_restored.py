"""What Mallory gets of a restored database that has not forgotten again yet."""

from __future__ import annotations

import json

import pytest

from tests.attacks.test_portal import ANNA, CALLS, LINK, count, token
from tests.attacks.test_tokens import person
from tests.attacks.world import World, attempt


def restore(world: World) -> None:
    """The database is found to be an older one."""
    world.run("postgres", "select gdpr_internal.notice_restore('test')")


def refusal(world: World, login: str, statement: str, *parameters: object) -> str | None:
    """The code of the error that a statement ends with."""
    error = attempt(world.login(login), statement, parameters)
    return error.sqlstate if error else None


@pytest.mark.parametrize("call", CALLS)
def test_a_session_out_of_the_backup_opens_nothing(world: World, call: str) -> None:
    """Whose it is may have been erased since, or the session have been ended."""
    session = token(world, "session", ANNA)
    restore(world)
    assert refusal(world, "portal_app", f"select gdpr.{call}", session) == "PR640"


def test_no_link_is_mailed_to_somebody_who_was_forgotten(world: World) -> None:
    restore(world)
    assert refusal(world, "portal_app", LINK, "anna@annasecret.example") == "PR640"
    assert count(world, "outbox") == 0


def test_nothing_leaves_for_a_recipient(world: World) -> None:
    """The function, where the view of the audience is closed."""
    policy = {"audience": "export", "purposes": ["orders"], "recipient": "Parcel AG"}
    world.run("postgres", "grant mallory to db_owner")
    world.run(
        "db_owner",
        "select count(*) from gdpr.apply(gdpr.policy() || jsonb_build_object('roles',"
        " gdpr.policy() -> 'roles' || jsonb_build_object('outsider', %s::jsonb)))",
        [json.dumps(policy)],
    )
    world.run("postgres", "revoke mallory from db_owner")
    world.run(
        "dpo_login",
        "select gdpr.record_recipient('Parcel AG', 'processor', 'DE', p_contract => 'AV-7')",
    )
    export = "select * from gdpr.export_rows('crm.customer')"
    try:
        assert refusal(world, "outsider", export) is None
        restore(world)
        assert refusal(world, "outsider", export) == "PR640"
    finally:
        world.run("postgres", "revoke gdpr_export from outsider")


def test_what_jobs_do_waits_for_holds_that_the_ledger_knows(world: World) -> None:
    """They run before the ledger is replayed; in it may be another hold on what is due."""
    vera = person(world, 3)
    world.run("dpo_login", "select gdpr.place_hold(%s, 'legal_claims', 'file 7')", [vera])
    world.run("dpo_login", "select gdpr.erase(%s)", [vera])
    world.run("postgres", "update gdpr_internal.erasure_remainder set due_at = now()")
    restore(world)
    for login in ("admin_login", "db_owner"):
        assert refusal(world, login, "select gdpr.run_retention()") == "PR640"
        ((looked_at,),) = world.run(login, "select tidied from gdpr.tidy() where what = 'erasures'")
        assert looked_at == 0
