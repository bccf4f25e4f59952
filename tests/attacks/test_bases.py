"""Mallory makes her processing lawful: bases, assessments, conditions and days of her own."""

from __future__ import annotations

import json

import pytest

from tests.attacks.world import POLICY, World, attempt, told

#: What only officers, and roles that the policy names, may do.
DECISIONS = (
    "select gdpr.record_basis(1, 'marketing', 'contract', 'I like to')",
    "select gdpr.record_bases('{1,2,3}', 'marketing', 'contract', 'I like to')",
    "select gdpr.end_basis(1, 'x')",
    "select gdpr.end_bases('{1,2,3}', 'x')",
    "select gdpr.record_assessment('analytics', 'i', 'n', 'b', '2099-12-31')",
    "select gdpr.approve_assessment(1)",
    "select gdpr.reject_assessment(1, 'x')",
    "select gdpr.subjects_of('crm.customer', '{1,2,3}')",
    "select gdpr_internal.refresh_gate('{1}')",
    "select gdpr_internal.decide_assessment(1, true, 'x', null)",
    "select gdpr_internal.follow_assessment(2::smallint)",
    "select gdpr_internal.give_bases(1::smallint)",
    "select gdpr_internal.audit_events('BASIS', '{1}', 'basis_id', '{1}', '{}')",
    "insert into gdpr_internal.basis_record (subject_id, purpose_id) values (1, 1)",
    "insert into gdpr_internal.assessment_decision (assessment_id, approved) values (1, true)",
    "update gdpr_internal.purpose set assessed_until = 'infinity'",
    "update gdpr_internal.table_basis set valid_until = 'infinity'",
    "select * from gdpr.basis",
    "select * from gdpr.would_lock",
    "select * from gdpr_internal.ground",
)


@pytest.mark.parametrize("statement", DECISIONS)
@pytest.mark.parametrize("user", ["crm_app", "mallory", "outsider", "metabase", "portal_app"])
def test_nobody_decides_who_was_not_asked(world: World, user: str, statement: str) -> None:
    error = attempt(world.login(user), statement)
    assert error is not None
    assert error.sqlstate == "42501", told(error)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("basis_record", "basis"),
        ("basis_end", "reason"),
        ("assessment", "interest"),
        ("assessment_decision", "reason"),
    ],
)
def test_even_the_superuser_only_adds(world: World, table: str, column: str) -> None:
    session = world.login("postgres")
    session.execute(
        "select gdpr.end_basis(gdpr.record_basis(1, 'orders', 'contract', 'x'), 'y');"
        "select gdpr.reject_assessment("
        "gdpr.record_assessment('analytics', 'i', 'n', 'b', '2099-12-31'), 'z')"
    )
    for statement in (
        f"update gdpr_internal.{table} set {column} = 'contract'",
        f"delete from gdpr_internal.{table}",
        f"truncate gdpr_internal.{table} cascade",
    ):
        error = attempt(session, statement)
        assert error is not None
        assert error.sqlstate == "55000", told(error)


def test_settings_of_the_session_move_no_deadline(world: World) -> None:
    """Her time zone, her styles: the same instant."""
    session = world.login("dpo_login")
    ends = set()
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", "FOO+9"):
        for style in ("ISO, DMY", "SQL, MDY", "German"):
            session.execute("select set_config('TimeZone', %s, false)", [zone])
            session.execute("select set_config('DateStyle', %s, false)", [style])
            ((end,),) = session.execute(
                "select extract(epoch from gdpr.until(date '2027-03-31'))"
            ).fetchall()
            ends.add(end)
    assert len(ends) == 1


def test_who_plants_code_where_birth_dates_are_read_gains_nothing(world: World) -> None:
    """The row policy of the owner runs when an officer records consent: as gdpr_worker, which has
    no keys."""
    policy = json.loads(POLICY)
    policy["tables"] = {"crm.customer": policy["tables"]["crm.customer"]}
    policy["tables"]["crm.customer"]["columns"]["birth_date"]["age"] = True
    world.run("db_owner", "select count(*) from gdpr.apply(%s::jsonb)", [json.dumps(policy)])
    world.plant_thief()
    world.run("postgres", "grant usage on schema mal to db_owner")
    world.run(
        "db_owner",
        "create policy steal on crm.customer as restrictive for select to public"
        " using (mal.thief())",
    )
    attempt(
        world.login("dpo_login"), "select gdpr.record_consent(1, 'marketing', true, 'in_person')"
    )
    assert "gdpr_worker" in {who for who, _, _ in world.loot()}
    assert not world.keys_taken()
