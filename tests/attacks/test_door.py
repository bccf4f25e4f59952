"""The door must not tell an erased person from a duplicate, nor a hidden one from nobody."""

from __future__ import annotations

import psycopg
import pytest

from tests.attacks.world import ENCRYPTED, World, attempt, leaked, told


def seen(error: psycopg.Error | None) -> dict[str, str | None]:
    """What an application shows or logs of an error."""
    assert error is not None
    d = error.diag
    return {
        "sqlstate": d.sqlstate,
        "message": d.message_primary,
        "detail": d.message_detail,
        "hint": d.message_hint,
        "constraint": d.constraint_name,
        "table": d.table_name,
        "schema": d.schema_name,
        "column": d.column_name,
    }


@pytest.mark.parametrize("relation", ["gdpr_clear.customer", "crm.customer"])
def test_erased_looks_like_a_duplicate(world: World, relation: str) -> None:
    dpo = world.login("dpo_login")
    dpo.execute("select gdpr.erase(gdpr.subject_of('crm.invoice', '3'), 'asked')")
    app = world.login("crm_app")
    insert = f"insert into {relation} (email, last_name) values (%s, 'x')"
    duplicate = seen(attempt(app, insert, ["anna@annasecret.example"]))
    erased = seen(attempt(app, insert, ["Vera@VeraSecret.example"]))
    hidden = seen(attempt(app, insert, ["hugo@hugosecret.example"]))
    assert duplicate["sqlstate"] == "23505"
    assert erased == duplicate
    assert hidden["sqlstate"] in ("23505", "PR601")


@pytest.mark.parametrize("relation", ["gdpr_clear.customer", "crm.customer"])
def test_changing_to_an_erased_address_looks_like_a_duplicate(world: World, relation: str) -> None:
    dpo = world.login("dpo_login")
    dpo.execute("select gdpr.erase(gdpr.subject_of('crm.customer', '3'), 'asked')")
    app = world.login("crm_app")
    app.execute(
        "insert into gdpr_clear.customer (email, last_name) values ('own@x.example', 'own')"
    )
    update = f"update {relation} set email = %s where last_name = 'own'"
    duplicate = seen(attempt(app, update, ["anna@annasecret.example"]))
    erased = seen(attempt(app, update, ["vera+tag@verasecret.example"]))
    assert erased == duplicate


def test_errors_of_writers_hold_no_value(world: World) -> None:
    """Duplicates, overflow, missing values and wrong types: the details name columns only."""
    app = world.login("crm_app")
    statements = (
        "insert into crm.customer (email, last_name) select 'anna@' || 'annasecret.example', 'x'",
        "update crm.customer set email = 'anna@' || 'annasecret.example' where id = 3",
        "update crm.customer set birth_date = 'nonsense' || birth_date",
        "update crm.customer set last_name = null",
        "update crm.customer set email = null",
        "update crm.customer set id = 7",
        "update gdpr_clear.customer set email = repeat(email, 20)",
        "update gdpr_clear.customer set birth_date = (birth_date || 'x')::date",
        "insert into crm.invoice (id, customer_id, note) values (2, 1, 'x')",
    )
    for statement in statements:
        error = attempt(app, statement)
        assert error is not None, statement
        said = told(error)
        if "::date" in statement or "'nonsense' ||" in statement:
            continue  # the statement itself made text of what the app may read
        assert not leaked(said), f"{statement}\n{said}"


def test_identifier_of_a_hidden_person_opens_nothing(world: World) -> None:
    """A row of the same address joins the person, and her restriction."""
    app = world.login("crm_app")
    error = attempt(
        app, "insert into gdpr_clear.lead (email, note) values ('hugo@hugosecret.example', 'n')"
    )
    assert error is not None
    assert error.sqlstate == "PR601"
    assert not leaked(told(error), [*ENCRYPTED[1:2]])


def test_plus_tags_and_spellings_of_an_erased_person(world: World) -> None:
    world.run("dpo_login", "select gdpr.erase(gdpr.subject_of('crm.customer', '3'), 'asked')")
    app = world.login("crm_app")
    for spelling in (
        "vera@verasecret.example",
        " VERA@verasecret.EXAMPLE ",
        "vera+2@verasecret.example",
        "ve\u200bra@verasecret.example",
        "\uff56era@verasecret.example",
        "vera@verasecret.example.",
        "vera@verasecret\u3002example",
        "ve\u00adra@verasecret.example",
        "vera\u2060@verasecret.example",
    ):
        error = attempt(
            app, "insert into gdpr_clear.customer (email, last_name) values (%s, 'x')", [spelling]
        )
        assert error is not None, spelling.encode("unicode_escape")
        assert error.sqlstate == "23505"


def test_foreign_key_tells_a_hidden_parent_only_by_its_gate(world: World) -> None:
    app = world.login("crm_app")
    hidden = attempt(app, "insert into crm.invoice (customer_id, note) values (2, 'x')")
    assert hidden is not None
    assert hidden.sqlstate == "PR601"
    assert not leaked(told(hidden), [*ENCRYPTED, "Hugoname"])
