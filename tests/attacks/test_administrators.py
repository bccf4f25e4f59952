"""Administrators want data: gdpr_admin applies policies and keeps keys, and sees no person.

What an administrator may do at all (bind a role, change a mask) is on record; what is not
his (another owner's table, purpose compliance, decryption) is refused.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.attacks.world import ENCRYPTED, World, attempt, leaked, told
from tests.support import OWNER

STEPS = {
    "change the definition": (
        "select gdpr_policy.register_table('crm.customer', jsonb_set("
        "gdpr.policy() -> 'tables' -> 'crm.customer', '{{columns,last_name,mask}}', '\"show\"'))"
    ),
    "regenerate the views": "select gdpr_policy.generate_views('crm.customer')",
    "regenerate the functions": "select gdpr_policy.generate_functions('crm.customer')",
    "drop the views": "select gdpr_policy.drop_views('crm.customer')",
    "settle drift": "select gdpr_policy.settle_table('crm.customer')",
    "begin to unprotect": "select gdpr_policy.begin_unprotect('crm.invoice')",
    "finish to unprotect": "select gdpr_policy.finish_unprotect('crm.invoice')",
    "register a table of gdprdb": (
        "select gdpr_policy.register_table((select c.oid from pg_class as c where"
        " c.relname = 'subject_key'), "
        '\'{{"subject": "self", "purposes": ["orders"], "columns": {{}}, "mode":'
        ' "enforce", "blocklist": "refuse"}}\')'
    ),
    "register somebody's table": (
        "select gdpr_policy.register_table('mal.loot', "
        '\'{{"subject": "self", "purposes": ["orders"], "columns": {{}}, "mode":'
        ' "enforce", "blocklist": "refuse"}}\')'
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_steps_of_apply_on_a_table_of_somebody_else(world: World, step: str) -> None:
    admin = world.login("admin_login")
    before = world.run(
        "postgres", "select t::text from gdpr_internal.protected_table as t order by id"
    )
    error = attempt(admin, STEPS[step].replace("{{", "{").replace("}}", "}"))
    assert error is not None, f"an administrator could {step}"
    assert (
        world.run("postgres", "select t::text from gdpr_internal.protected_table as t order by id")
        == before
    )


BINDINGS = (
    {"audience": "clear", "purposes": ["compliance"], "may": []},
    {"audience": "clear", "purposes": ["nonsense"], "may": []},
    {"audience": "auditor", "purposes": ["orders"], "may": []},
    {"audience": "owner", "purposes": ["orders"], "may": []},
    {"audience": "keyholder", "purposes": ["orders"], "may": []},
    {"audience": "dpo", "purposes": ["orders"], "may": []},
    {"audience": "bi", "purposes": ["maintenance"], "may": []},
)


@pytest.mark.parametrize("binding", BINDINGS, ids=json.dumps)
def test_binding_that_the_policy_would_refuse(world: World, binding: dict[str, object]) -> None:
    """The steps of apply() refuse what plan() refuses."""
    admin = world.login("admin_login", autocommit=False)
    error = attempt(
        admin, "select gdpr_policy.bind_role('admin_login', %s::jsonb)", [json.dumps(binding)]
    )
    admin.rollback()
    assert error is not None


@pytest.mark.parametrize(
    "role", ["gdpr_bi", "gdpr_admin", "gdpr_auditor", "gdpr_owner", "postgres", "dpo_login"]
)
def test_binding_of_a_role_that_the_policy_would_refuse(world: World, role: str) -> None:
    admin = world.login("admin_login", autocommit=False)
    error = attempt(
        admin,
        "select gdpr_policy.bind_role(%s, %s::jsonb)",
        [role, json.dumps({"audience": "clear", "purposes": ["orders"], "may": []})],
    )
    admin.rollback()
    if role == "dpo_login":
        return  # an ordinary login: his to bind, on record
    assert error is not None


def test_binding_oneself_is_on_record(world: World) -> None:
    policy = world.run("admin_login", "select gdpr.policy()")[0][0]
    tables = policy.pop("tables")
    assert tables
    policy["roles"]["admin_login"] = {"audience": "clear", "purposes": ["orders"]}
    admin = world.login("admin_login", autocommit=False)
    admin.execute("select count(*) from gdpr.apply(%s::jsonb)", [json.dumps(policy)])
    found = admin.execute(
        "select count(*) from pg_auth_members where member = 'admin_login'::regrole and"
        " roleid = 'gdpr_app'::regrole"
    ).fetchall()
    admin.rollback()
    assert found == [(1,)]


def ciphertexts(world: World) -> list[tuple[int, int, str]]:
    """Subject, column and ciphertext of every invoice's note: what a backup tape holds."""
    return world.run(
        "postgres",
        """
        select t.gdpr_subject_id, c.id, t.note
        from crm.invoice as t
        join gdpr_internal.protected_column as c on c.column_name = 'note'
        join gdpr_internal.protected_table as p on p.id = c.table_id and p.relation =
          'crm.invoice'::regclass
        order by t.id
    """,
    )


@pytest.mark.parametrize("table", ["crm.invoice", "mal.lead"])
def test_decrypting_under_cover_of_unprotect(world: World, table: str) -> None:
    """begin_unprotect() opens decryption: for whoever may unprotect that table, nobody else."""
    subject, column, value = ciphertexts(world)[0]
    admin = world.login("admin_login", autocommit=False)
    if attempt(admin, f"select gdpr_policy.begin_unprotect('{table}')") is not None:
        admin.rollback()
    try:
        found = str(
            admin.execute(
                "select gdpr_policy.decrypt_for_unprotect(%s, %s, %s)", [subject, column, value]
            ).fetchall()
        )
    except psycopg.Error as error:
        found = told(error)
    assert not leaked(found)


def test_unprotect_that_is_rolled_back_leaves_a_trace(world: World) -> None:
    """The owner may decrypt her table by unprotecting it; taking it back does not hide that."""
    owner = world.login(OWNER, autocommit=False)
    notices: list[str] = []
    owner.add_notice_handler(lambda diagnosis: notices.append(str(diagnosis.message_primary)))
    owner.execute("set client_min_messages = log")
    owner.execute("select gdpr.unprotect('crm.invoice')")
    owner.rollback()
    assert [n for n in notices if "unprotect" in n], "nothing outside the transaction says so"


def test_definer_function_in_a_session_of_the_owner(world: World) -> None:
    """An administrator's own SECURITY DEFINER function runs as her in the owner's session."""
    subject, column, value = ciphertexts(world)[0]
    world.run("postgres", "grant gdpr_admin to mallory")
    try:
        world.run(
            "mallory",
            f"""
            create function mal.deputy() returns trigger language plpgsql security definer as $f$
            begin
              begin
                perform gdpr_policy.begin_unprotect('crm.invoice');
                insert into mal.loot (what) values (gdpr_policy.decrypt_for_unprotect({subject},
                  {column}, '{value}'));
              exception when others then
                insert into mal.loot (what) values ('refused: ' || sqlstate);
              end;
              return null;
            end $f$;
            create trigger planted after insert or update or delete on mal.lead for each row
              execute function mal.deputy();
        """,
        )
        # the owner of crm.invoice is an officer too, and restricts somebody
        world.run(
            OWNER,
            (
                "select gdpr.restrict((select gdpr.find_subject('email', 'other@lead.example')),"
                " 'other')"
            ),
        )
    finally:
        world.run("postgres", "revoke gdpr_admin from mallory")
    assert [what for _, _, what in world.loot()] == ["refused: 42501"]


@pytest.mark.parametrize(
    "function", ["decrypt_for_unprotect(1, 1, %s)", "canonical_of('email', %s)"]
)
def test_decrypting_without_unprotecting(world: World, function: str) -> None:
    value = ciphertexts(world)[0][2]
    admin = world.login("admin_login")
    try:
        found = str(admin.execute(f"select gdpr_policy.{function}".encode(), [value]).fetchall())
    except psycopg.Error as error:
        found = told(error)
    assert not leaked(found)


@pytest.mark.parametrize(
    "statement",
    [
        "table crm.customer",
        "table gdpr_clear.customer",
        "table gdpr_bi.customer",
        "select gdpr.reveal('gdpr1:')",
        "select gdpr.digest('email', 'x')",
        "table gdpr.audit_log",
        "table gdpr.source",
        "table gdpr.consent",
        "table gdpr.blocklist",
        "table gdpr_internal.key_encryption_key",
        "table gdpr_internal.current_key",
        "table gdpr_internal.opened_key",
        "select gdpr_internal.keyring()",
        "set role gdpr_owner",
        "set role gdpr_keyholder",
        "set role gdpr_worker",
        "set role gdpr_dpo",
        "set session authorization postgres",
        "grant gdpr_app to admin_login",
        "grant gdpr_dpo to admin_login",
        "select gdpr.erase(1)",
        "select gdpr.restrict(1, 'other')",
        "select gdpr_generated.erase_rows(array[1::bigint], null)",
        "select gdpr_generated.spread_gate('{1}')",
        "select gdpr_generated.subjects_of_1('{1}')",
    ],
)
def test_administrator_is_no_reader(world: World, statement: str) -> None:
    error = attempt(world.login("admin_login"), statement)
    assert error is not None
    assert error.sqlstate in ("42501", "42883", "42P01")
    assert not leaked(told(error), ENCRYPTED)


def test_policy_document_with_code_in_every_place(world: World) -> None:
    """Every text of a policy that could reach a statement is data there, or refused."""
    world.plant_thief()
    world.run("mallory", "delete from mal.loot")
    code = "x'); select mal.thief(); --"
    base = world.run("postgres", "select gdpr.policy()")[0][0]
    lead = base["tables"]["mal.lead"]
    documents: list[dict[str, Any]] = [
        {"settings": {"phone_country_code": code}},
        {"purposes": {code: {"basis": "contract"}}},
        {"purposes": {"orders": {"basis": "contract", "description": code, "retain": code}}},
        {"purposes": {"orders": {"basis": "contract", "description": code}}},
        {"roles": {code: {"audience": "clear", "purposes": ["orders"]}}},
        {"roles": {"crm_app": {"audience": code, "purposes": ["orders"]}}},
        {"roles": {"crm_app": {"audience": "clear", "purposes": [code], "may": [code]}}},
        {"tables": {"mal.lead": {**lead, "mode": code}}},
        {"tables": {"mal.lead": {**lead, "subject": {"via": code, "references": code}}}},
        {
            "tables": {
                "mal.lead": {**lead, "erase": {"keep_until": f"1 year after {code}", "then": code}}
            }
        },
        {
            "tables": {
                "mal.lead": {
                    **lead,
                    "columns": {
                        **lead["columns"],
                        "mood": {"category": code, "erase": {"value": code}},
                        "last_name": {
                            "category": code,
                            "identifier": code,
                            "mask": code,
                            "canonical": code,
                            "encrypt": code,
                        },
                    },
                }
            }
        },
        {
            "tables": {
                "mal.lead": {
                    **lead,
                    "columns": {
                        **lead["columns"],
                        "last_name": {"category": code, "erase": {"value": code}},
                    },
                }
            }
        },
    ]
    world.run("postgres", "grant gdpr_admin to mallory")
    try:
        mallory = world.login("mallory", autocommit=False)
        for document in documents:
            attempt(
                mallory,
                "select * from gdpr.apply(%s::jsonb)",
                [json.dumps({**base, "tables": {}, **document})],
            )
            assert (
                attempt(mallory, "select 1") is not None
                or mallory.execute("table mal.loot").fetchall() == []
            )
            mallory.rollback()
        for kind in ("identifier", "category", "canonical", "mask", "encrypt", "erase"):
            crafted = {
                **lead,
                "columns": {
                    **lead["columns"],
                    "last_name": {
                        "category": "x",
                        "encrypt": "no",
                        "sensitive": False,
                        "mask": "show",
                        "canonical": "identifier",
                        kind: code,
                    },
                },
            }
            for step in (
                "select gdpr_policy.register_table('mal.lead', %s::jsonb)",
                "select gdpr_policy.generate_functions('mal.lead') where %s <> ''",
                "select gdpr_policy.generate_views('mal.lead') where %s <> ''",
            ):
                if attempt(mallory, step, [json.dumps(crafted)]) is not None:
                    break
            else:
                attempt(
                    mallory, "insert into mal.lead (email, last_name) values ('a@b.example', 'x')"
                )
            mallory.rollback()
    finally:
        mallory.rollback()
        world.run("postgres", "revoke gdpr_admin from mallory")
    assert world.loot() == []
