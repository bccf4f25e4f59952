"""What leaves for a recipient leaves on record, and a notice tells nobody else whom it is about."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from gdprdb.server import Cluster
from tests.attacks.world import ENCRYPTED, HIDDEN, POLICY, World, attempt, leaked, told
from tests.support import unbind

PARTNER = {"audience": "export", "purposes": ["orders"], "recipient": "Parcel AG"}


@pytest.fixture(autouse=True, scope="module")
def unbound(cluster: Cluster) -> Iterator[None]:
    """No binding outlives these tests."""
    yield
    unbind(cluster, "portal_app")


@pytest.fixture
def partner(world: World) -> psycopg.Connection:
    """A login that is bound to a recipient, and to nothing else."""
    policy = json.loads(POLICY)
    policy["roles"]["portal_app"] = PARTNER
    world.run("postgres", "grant mallory to db_owner")
    world.run("db_owner", "select count(*) from gdpr.apply(%s::jsonb)", [json.dumps(policy)])
    world.run("postgres", "revoke mallory from db_owner")
    world.run(
        "dpo_login",
        "select gdpr.record_recipient('Parcel AG', 'processor', 'DE', p_contract => 'AV-7')",
    )
    return world.login("portal_app")


def recorded(world: World) -> int:
    """How many persons stand in disclosures."""
    ((count,),) = world.run("postgres", "select count(*) from gdpr_internal.disclosure_person")
    return int(count)


@pytest.mark.parametrize(
    "statement",
    [
        "select * from gdpr_export.customer",
        "select count(*) from gdpr_export.customer",
        "declare c cursor with hold for select * from gdpr_export.customer",
        "select * from gdpr_api.customer",
        "select * from gdpr_bi.customer",
        "select * from gdpr_clear.customer",
        "select * from crm.customer",
        "explain analyze select * from gdpr_export.customer",
        "select gdpr_generated.export_1(null, 1, array[1, 2, 3])",
        "select gdpr_generated.persons_1()",
        "select gdpr.recipients_of(1)",
        "select gdpr.record_disclosure('Parcel AG', '{}', 'orders', p_categories => '{x}')",
        "select * from gdpr.disclosure",
        "select * from gdpr_internal.disclosure_person",
    ],
)
def test_reading_past_the_record(world: World, partner: psycopg.Connection, statement: str) -> None:
    assert attempt(partner, statement) is not None
    assert recorded(world) == 0


@pytest.mark.parametrize("purpose", ["orders", "analytics", "compliance", "maintenance", "x"])
def test_claiming_a_purpose_opens_no_view(partner: psycopg.Connection, purpose: str) -> None:
    partner.execute("select set_config('gdpr.purpose', %s, false)", [purpose])
    error = attempt(partner, "select * from gdpr_export.customer")
    assert error is not None
    assert error.sqlstate == "42501"


@pytest.mark.usefixtures("partner")
def test_a_member_of_the_bound_role_is_bound(world: World) -> None:
    """A login below the role, without a binding of its own."""
    world.run("postgres", "grant portal_app to outsider")
    try:
        outsider = world.login("outsider")
        error = attempt(outsider, "select * from gdpr_export.customer")
        assert error is not None
        assert error.diag.constraint_name == "gdpr_export_only"
        assert outsider.execute("select from gdpr.export_rows('crm.customer')").rowcount == 2
        assert recorded(world) == 2
    finally:
        world.run("postgres", "revoke portal_app from outsider")


def test_an_export_holds_no_plaintext_of_sensitive_columns_and_no_hidden_person(
    world: World, partner: psycopg.Connection
) -> None:
    rows = partner.execute("select * from gdpr.export_rows('crm.customer')").fetchall()
    assert leaked(str(rows), [*ENCRYPTED, *HIDDEN]) == []
    assert sorted(data["id"] for _, data in rows) == [1, 3]
    # an export that is rolled back has shown its rows to nobody but who rolled it back
    with partner.transaction(force_rollback=True):
        partner.execute("select * from gdpr.export_rows('crm.invoice')")
    assert recorded(world) == 2


def test_code_planted_in_the_table_runs_without_keys_and_evidence(
    world: World, partner: psycopg.Connection
) -> None:
    world.plant_thief()
    world.run(
        "mallory",
        "create policy planted on mal.lead for select to public using (mal.thief())",
    )
    attempt(partner, "select * from gdpr.export_rows('mal.lead')")
    assert not world.keys_taken()
    assert {who for who, _, what in world.loot() if what == "ran"} <= {"gdpr_worker"}


def test_table_names_are_names(partner: psycopg.Connection) -> None:
    for name in (
        "crm.customer; drop table crm.customer",
        "gdpr_internal.subject_key",
        'crm."customer" --',
        "pg_catalog.pg_authid",
    ):
        error = attempt(partner, "select * from gdpr.export_rows(%s)", [name])
        assert error is not None
        assert error.sqlstate == "PR002"
        assert not leaked(told(error))


def test_a_notice_is_opened_by_officers_alone(world: World) -> None:
    world.run(
        "dpo_login",
        "select gdpr.record_recipient('Parcel AG', 'processor', 'DE', p_contract => 'AV-7');"
        "select gdpr.record_disclosure('Parcel AG',"
        " array[gdpr.subject_of('crm.customer', '1')], 'orders', p_categories => '{contact}',"
        " p_references => '{partner-number-77}');"
        "select gdpr.erase(gdpr.subject_of('crm.customer', '1'))",
    )
    for user in ("auditor_login", "admin_login", "crm_app", "metabase", "portal_app", "mallory"):
        for statement in (
            "select gdpr.open_notice(1)",
            "select gdpr_internal.open_notice(1)",
            "select * from gdpr_internal.notice_content",
            "select * from gdpr_internal.notice_key",
            "select gdpr_internal.queue_notices('{1}', 'erasure')",
            "select gdpr.notice_sent(1, 'phone')",
        ):
            assert attempt(world.login(user), statement) is not None, f"{user}: {statement}"
    for (table,) in world.run(
        "postgres",
        "select c.oid::regclass::text from pg_class as c where c.relkind in ('r', 'p')"
        " and c.relnamespace = 'gdpr_internal'::regnamespace",
    ):
        assert "partner-number-77" not in str(
            world.run("postgres", f"select t::text from {table} as t")
        ), table
    ((message,),) = world.run("dpo_login", "select gdpr.open_notice(1)")
    assert message["references"] == ["partner-number-77"]
    opened = world.run("dpo_login", "select old from gdpr.audit_log where operation = 'NOTICE'")
    assert opened == [({"notice": 1, "opened": True},)]
