"""Mallory proposes, forges, approves her own, plants code where corrections are written, and
listens to what refusals tell."""

from __future__ import annotations

import json

from tests.attacks.world import ENCRYPTED, HIDDEN, MACHINERY, POLICY, World, attempt, leaked, told

SECRET = "the-new-value-of-anna"

#: Logins that the policy gives nothing of this.
STRANGERS = (
    "crm_app",
    "metabase",
    "portal_app",
    "auditor_login",
    "admin_login",
    "mallory",
    "outsider",
)

PROPOSE = "select gdpr.propose_rectification(%s, %s)"


def subject(world: World, table: str, key: int) -> int:
    """The number of the person whose row it is."""
    ((number,),) = world.run("dpo_login", f"select gdpr.subject_of('{table}', '{key}')")
    assert isinstance(number, int)
    return number


def changes(table: str, key: int, column: str, value: str | None = SECRET) -> str:
    """A list of one change."""
    return json.dumps([{"table": table, "key": str(key), "column": column, "value": value}])


def allow(world: World) -> None:
    """The application may propose."""
    policy = json.loads(POLICY)
    policy["roles"]["crm_app"]["may"] = ["rectify"]
    world.run("postgres", "grant mallory to db_owner")
    world.run("db_owner", "select count(*) from gdpr.apply(%s)", [json.dumps(policy)])


def test_nobody_without_the_right(world: World) -> None:
    for user in STRANGERS:
        login = world.login(user)
        for statement in (
            "select gdpr.propose_rectification(1, '[]')",
            "select gdpr.approve_rectification(1)",
            "select gdpr.reject_rectification(1, 'x')",
            "select gdpr.rectify(1, '[]', 'x')",
            "select gdpr.rectify_rows('[]', 'x')",
            "select * from gdpr.compare_rectification('[]')",
            "select * from gdpr.rows_of('crm.customer', 1)",
            "select gdpr_internal.propose_rectification(1, '[]', 'x', true)",
            "select gdpr_internal.carry_out('[]', 1, null, 'x')",
            "select gdpr_internal.apply_rectification(1)",
            "select gdpr_internal.open_values('{1}', '{1}', '{x}')",
            "select * from gdpr_internal.digests_of('{email}', '{x}')",
            "select * from gdpr_generated.read_cells(1::smallint, '{1}', '{email}', '{x}', false)",
            "select * from gdpr_generated.cells_of(1::smallint, '{1}', 'email', false)",
            "select gdpr_generated.rectify_1('{1}', '{1}', array['{}']::jsonb[])",
            "select * from gdpr.supplementary_statement",
        ):
            error = attempt(login, statement)
            assert error is not None, (user, statement)
            assert error.sqlstate == "42501", (user, statement)


def test_a_proposal_tells_nothing_of_other_rows(world: World) -> None:
    """There is such a row or there is not, blocked or another's: the answers are the same."""
    allow(world)
    anna = subject(world, "crm.customer", 1)
    world.run("dpo_login", "select gdpr.block('email', 'blocked@x.example', 'x')")
    app = world.login("crm_app")
    answers = {
        told(attempt(app, PROPOSE, [anna, changes("crm.customer", key, "last_name")]))
        for key in (2, 99)
    }
    assert len(answers) == 1
    for address in ("hugo@hugosecret.example", "blocked@x.example", "free@x.example"):
        assert attempt(app, PROPOSE, [anna, changes("crm.customer", 1, "email", address)]) is None
    # what stands there now is not told by a proposal that is conditional on it
    for was in ("1981-01-11", "1981-01-12"):
        one = [
            {"table": "crm.customer", "key": "1", "column": "birth_date", "value": None, "was": was}
        ]
        assert attempt(app, PROPOSE, [anna, json.dumps(one)]) is None


def test_no_refusal_tells_a_value(world: World) -> None:
    anna = subject(world, "crm.customer", 1)
    world.run(
        "mallory",
        "create function mal.tell() returns trigger language plpgsql as $f$ begin"
        " raise exception using message = new.last_name, detail = new.last_name,"
        " hint = new.last_name, constraint = new.last_name, column = new.last_name;"
        " end $f$; create trigger tell before update on mal.lead for each row execute function"
        " mal.tell()",
    )
    officer = world.login("dpo_login")
    call = "select gdpr.rectify(%s, %s, 'x')"
    for table, column, value in (
        ("mal.lead", "last_name", SECRET),
        ("mal.lead", "mood", SECRET),
        ("crm.customer", "birth_date", SECRET),
        ("crm.customer", "email", "hugo@hugosecret.example"),
        ("crm.customer", "last_name", None),
        ("crm.invoice", "total", SECRET),
        ("crm.customer", SECRET, "x"),
        (SECRET, "x", "x"),
    ):
        error = attempt(officer, call, [anna, changes(table, 1, column, value)])
        assert error is not None
        assert leaked(told(error), (SECRET, *ENCRYPTED, *HIDDEN)) == [], (table, column)


def test_nothing_of_a_proposal_stands_in_plaintext(world: World) -> None:
    anna = subject(world, "crm.customer", 1)
    world.run("dpo_login", PROPOSE, [anna, changes("crm.customer", 1, "last_name")])
    world.run("db_owner", "select gdpr.reject_rectification(1, 'no')")
    world.run(
        "dpo_login", "select gdpr.rectify(%s, %s, 'x')", [anna, changes("crm.invoice", 1, "note")]
    )
    root = world.login("postgres")
    for (name,) in root.execute(
        "select c.oid::regclass::text from pg_class as c where c.relkind = 'r'"
        " and c.relnamespace::regnamespace::text not in ('pg_catalog', 'information_schema')"
    ).fetchall():
        for (row,) in root.execute(f"select t::text from {name} as t".encode()):
            assert SECRET not in (row or ""), name
    assert world.run("dpo_login", "select note from gdpr_clear.invoice where id = 1") == [(SECRET,)]


def test_evidence_cannot_be_forged(world: World) -> None:
    anna = subject(world, "crm.customer", 1)
    world.run("dpo_login", PROPOSE, [anna, changes("crm.customer", 1, "last_name")])
    for user in ("crm_app", "dpo_login", "admin_login", "auditor_login", "mallory"):
        login = world.login(user)
        for statement in (
            (
                "insert into gdpr_internal.rectification (subject_id, content, by_person)"
                " values (1, 'x', true)"
            ),
            "update gdpr_internal.rectification set by_person = true",
            (
                "insert into gdpr_internal.rectification_decision (rectification_id,"
                " approved) values (1, true)"
            ),
            (
                "insert into gdpr_internal.rectification_record (subject_id, content,"
                " columns) values (1, 'x', '{}')"
            ),
        ):
            error = attempt(login, statement)
            assert error is not None
            assert error.sqlstate == "42501", statement
    root = world.login("postgres")
    for statement in (
        "update gdpr_internal.rectification set by_person = true",
        "delete from gdpr_internal.rectification",
        "truncate gdpr_internal.rectification_decision",
    ):
        error = attempt(root, statement)
        assert error is not None
        assert error.sqlstate in ("55000", "0A000"), statement


def test_the_proposer_does_not_become_another_by_claiming(world: World) -> None:
    anna = subject(world, "crm.customer", 1)
    world.run("dpo_login", PROPOSE, [anna, changes("crm.customer", 1, "last_name")])
    officer = world.login("dpo_login")
    officer.execute("set gdpr.actor = 'somebody else'")
    officer.execute("set role gdpr_dpo")
    error = attempt(officer, "select gdpr.approve_rectification(1)")
    assert error is not None
    assert error.sqlstate == "PR631"


def test_ciphertext_of_another_is_not_opened_as_a_value(world: World) -> None:
    """Mallory reads Vera's ciphertext, and has it written as Anna's value."""
    anna = subject(world, "crm.customer", 1)
    ((stolen,),) = world.run("postgres", "select note from crm.invoice where id = 3")
    error = attempt(
        world.login("dpo_login"),
        "select gdpr.rectify(%s, %s, 'x')",
        [anna, changes("crm.invoice", 1, "note", stolen)],
    )
    assert error is not None
    assert "PR405" in told(error)
    world.run(
        "dpo_login",
        "select gdpr.rectify(%s, %s, 'x')",
        [anna, changes("crm.customer", 1, "city", stolen[:120])],
    )
    assert world.run("dpo_login", "select city from gdpr_clear.customer where id = 1") == [
        (stolen[:120],)
    ]


def test_planted_code_gets_neither_keys_nor_what_is_left_behind(world: World) -> None:
    """A trigger runs as gdpr_worker while a correction is written; what it changes of the
    machinery or of the session is noticed."""
    anna = subject(world, "mal.lead", 1)
    world.plant_thief()
    world.run(
        "mallory",
        """
        create function mal.spy() returns trigger language plpgsql as
          $f$ begin perform mal.thief(); return new; end $f$;
        create trigger spy before update on mal.lead for each row execute function mal.spy();
        """,
    )
    officer = world.login("dpo_login")
    call = "select gdpr.rectify(%s, %s, 'x')"
    officer.execute(call, [anna, changes("mal.lead", 1, "last_name")])
    assert {who for who, _, _ in world.loot()} & MACHINERY == {"gdpr_worker"}
    assert not world.keys_taken()
    for planted in (
        "set search_path = mal",
        "alter function gdpr_generated.rectify_1(text[], bigint[], jsonb[]) security invoker",
        "create temporary table left_behind ()",
    ):
        world.run(
            "mallory",
            "create or replace function mal.spy() returns trigger language plpgsql as"
            f" $f$ begin {planted}; return new; end $f$",
        )
        error = attempt(officer, call, [anna, changes("mal.lead", 1, "last_name", planted)])
        assert error is not None, planted
        assert error.sqlstate in ("PR409", "PR411", "PR630"), planted
    # a row that the trigger keeps as it is is no correction
    world.run(
        "mallory",
        "create or replace function mal.spy() returns trigger language plpgsql as"
        " $f$ begin return null; end $f$",
    )
    error = attempt(officer, call, [anna, changes("mal.lead", 1, "last_name", "kept")])
    assert error is not None
    assert error.sqlstate == "PR630"
