"""The server's log, as talkative as an administrator can make it, holds no stored value.

What a client writes into its own statements is logged if the administrator says so; gdprdb
itself (nested statements, errors, contexts, plans) must not add what it decrypts.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.attacks.world import ENCRYPTED, World, attempt, leaked

SETTINGS = {
    "log_statement": "all",
    "log_min_error_statement": "error",
    "log_min_messages": "debug1",
    "log_error_verbosity": "verbose",
    "log_min_duration_statement": "0",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "debug_print_plan": "on",
    "debug_print_parse": "on",
    "debug_print_rewritten": "on",
    "log_lock_waits": "on",
    "plan_cache_mode": "force_custom_plan",
}


@pytest.fixture
def log(world: World) -> Callable[[], str]:
    """What the server logged since the test began."""
    path = world.db.cluster.directory / "log"
    start = path.stat().st_size
    for name, value in SETTINGS.items():
        world.run("postgres", f"alter database {world.db.name} set {name} = '{value}'")

    def read() -> str:
        with path.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")

    return read


def bytes_of(secret: str) -> str:
    """A text constant as debug_print_plan prints it."""
    return " ".join(str(byte) for byte in secret.encode())


def test_log_holds_no_stored_value(world: World, log: Callable[[], str]) -> None:
    app, dpo, owner = world.login("crm_app"), world.login("dpo_login"), world.login("db_owner")
    auditor = world.login("auditor_login")
    for statement in (
        "table gdpr_clear.customer",
        "select gdpr.reveal(email) from crm.customer",
        "update gdpr_clear.customer set city = 'Köln'",
        "update gdpr_clear.customer set email = 'm' || id || '@m.example', phone = '1' || id",
        "update gdpr_clear.customer set last_name = null",
        "update gdpr_clear.customer set email = null",
        "update gdpr_clear.customer set birth_date = (phone || 'x')::date",
        "insert into gdpr_clear.invoice (customer_id, note) values (2, 'n'), (1, 'n')",
        "update gdpr_clear.invoice set customer_id = 3 where customer_id = 1",
        "insert into gdpr_clear.customer (id, email, last_name) values (1, 'd@d.example', 'd')",
        "delete from gdpr_clear.invoice where id = 3",
        'set gdpr.source = \'{"kind": "api"}\'',
        "select gdpr.digest('email', email) from gdpr_clear.customer",
    ):
        attempt(app, statement)
    for statement in (
        "select gdpr.find_subject('email', (select email from gdpr_clear.customer where id = 2))",
        "select gdpr.is_blocked('email', (select email from gdpr_clear.customer where id = 2))",
        "select gdpr.block('email', (select email from gdpr_clear.customer where id = 2), 'x')",
        "table gdpr.audit_log",
        "table gdpr.source",
        "select gdpr.erase(gdpr.subject_of('crm.customer', '3'))",
    ):
        attempt(dpo, statement)
    attempt(auditor, "table gdpr.audit_log")
    # a value that was tampered with, a rewrite, and the way back
    world.run(
        "postgres",
        (
            "alter table crm.customer disable trigger user; update crm.customer set phone ="
            " overlay(phone placing 'AA' from 60)"
        ),
    )
    attempt(app, "table gdpr_clear.customer")
    attempt(owner, "select gdpr.unprotect('crm.invoice')")
    attempt(owner, "select gdpr.unprotect('crm.customer')")
    text = log()
    assert "PLANNEDSTMT" in text
    assert "hugo" not in text
    assert not leaked(text, ENCRYPTED)
    assert not [secret for secret in ENCRYPTED if len(secret) > 9 and bytes_of(secret) in text]


def test_log_holds_no_value_of_an_import(world: World, log: Callable[[], str]) -> None:
    """apply() over rows in plaintext: the backfill's statements and errors carry none."""
    owner = world.login("db_owner")
    owner.execute("create table crm.old (id int primary key, email varchar(60) unique, note text)")
    with owner.cursor().copy("copy crm.old from stdin") as copy:
        copy.write(
            "1\tanna@annasecret.example\thugos-note-secret\n"
            "2\tANNA@annasecret.example\tveras-note-secret\n"
        )
    policy = """(gdpr.policy() - 'tables') || '{"tables": {"crm.old": {
      "subject": "self", "purposes": ["orders"],
      "columns": {"email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
        "note": {"category": "x", "encrypt": true}}}}}'"""
    attempt(owner, f"select * from gdpr.plan({policy})")
    attempt(owner, f"select * from gdpr.apply({policy})")
    attempt(owner, "delete from crm.old where id = 2")
    attempt(owner, f"select * from gdpr.apply({policy})")
    text = log()
    assert not leaked(text, ENCRYPTED)
    assert not [secret for secret in ENCRYPTED if len(secret) > 9 and bytes_of(secret) in text]
