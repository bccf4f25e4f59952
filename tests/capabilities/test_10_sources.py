"""Where data came from: of each row, at its creation and its last change that told."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, policy, problems, refused
from tests.support import Database

DETAILS: list[dict[str, Any]] = [
    {
        "kind": "web_form",
        "form": "join",
        "url": "https://shop.example/join",
        "ip": "203.0.113.7",
        "referrer": "https://search.example/",
        "user_agent": "Firefox",
    },
    {"kind": "web_form", "ip": "2001:db8::1"},
    {"kind": "import", "file": "fair.csv", "line": 17},
    {"kind": "manual", "user": "jo", "reason": "phone call"},
    {"kind": "api", "service": "shop", "ip": "203.0.113.7"},
    {"kind": "integration", "system": "ERP", "record": "4711"},
    {"kind": "migration", "system": "old CRM", "record": "17"},
]


def insert(db: Database, source: dict[str, Any] | None, address: str = "zoe@example.com") -> str:
    """A new customer from a source; the key of the row."""
    connection = db.connect("crm_app", autocommit=False)
    if source is not None:
        connection.execute(
            "select gdpr.set_context(p_purpose => 'orders', p_source => %s)", [json.dumps(source)]
        )
    ((key,),) = connection.execute(
        "insert into crm.customer (email, last_name) values (%s, 'Zimmer') returning id", [address]
    ).fetchall()
    connection.commit()
    return str(key)


def source_of(db: Database, table: str, key: str) -> list[tuple[Any, ...]]:
    """Event, kind and details of a row's sources."""
    return db.rows(
        "select event, kind, details from gdpr.source_of(%s, %s)", [table, key], user="dpo_login"
    )


@pytest.mark.parametrize("source", DETAILS, ids=lambda source: str(source["kind"]))
def test_each_kind_keeps_its_details_encrypted(crm: Database, source: dict[str, Any]) -> None:
    key = insert(crm, source)
    details = {name: value for name, value in source.items() if name != "kind"}
    assert source_of(crm, "crm.customer", key) == [("created", source["kind"], details)]
    ((stored,),) = crm.rows(
        "select s::text from gdpr_internal.source as s order by id desc limit 1", user="postgres"
    )
    assert all(str(value) not in stored for value in details.values() if len(str(value)) > 3)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "web_form", "file": "fair.csv"},
        {"kind": "import", "ip": "203.0.113.7"},
        {"kind": "manual", "service": "shop"},
        {"kind": "api", "line": 1},
        {"kind": "integration", "form": "join"},
        {"kind": "web_form", "ip": "anna@example.com"},
        {"kind": "import", "line": "last"},
        {"kind": "import", "line": 0},
        {"kind": "web_form", "url": "javascript:alert(1)"},
        {"kind": "web_form", "referrer": "search"},
    ],
)
def test_a_detail_that_does_not_fit_is_refused_without_its_value(
    crm: Database, source: dict[str, Any]
) -> None:
    with refused("PR004", "invalid_argument") as error:
        insert(crm, source)
    assert "anna" not in str(error.value)


def test_a_row_without_a_word_is_of_unspecified_source(crm: Database) -> None:
    key = insert(crm, None)
    assert source_of(crm, "crm.customer", key) == [("created", "unspecified", None)]


def test_rows_from_before_are_known_as_such(crm: Database) -> None:
    assert source_of(crm, "crm.customer", "1") == [("created", "before_gdprdb", None)]
    assert source_of(crm, "crm.order", "1") == [("created", "before_gdprdb", None)]
    assert source_of(crm, "crm.order_line", '["1","1"]') == [("created", "before_gdprdb", None)]


def test_a_change_is_noted_when_it_tells_where_it_comes_from(crm: Database) -> None:
    key = insert(crm, DETAILS[0])
    change = f"update crm.customer set city = city || '!' where id = {key}"
    crm.rows(change, user="crm_app")
    assert len(source_of(crm, "crm.customer", key)) == 1
    for number in (1, 2):
        connection = crm.connect("crm_app", autocommit=False)
        connection.execute(
            "select gdpr.set_context(p_source => %s)",
            [json.dumps({"kind": "integration", "system": "ERP", "record": number})],
        )
        connection.execute(change.encode())
        # the same again changes nothing, and comes from nowhere
        connection.execute(f"update crm.customer set city = city where id = {key}".encode())
        connection.commit()
    assert [row[:2] for row in source_of(crm, "crm.customer", key)] == [
        ("created", "web_form"),
        ("changed", "integration"),
    ]
    assert source_of(crm, "crm.customer", key)[1][2] == {"system": "ERP", "record": 2}
    assert crm.rows(
        "select count(*) from gdpr.source where event = 'changed'", user="dpo_login"
    ) == [(2,)]


def test_a_changed_policy_is_no_source(crm: Database) -> None:
    """Rows are written anew when a column is encrypted later; nothing has come from anywhere."""
    ((before,),) = crm.rows("select count(*) from gdpr.source", user="dpo_login")
    encrypted = policy()
    encrypted["tables"]["crm.customer"]["columns"]["last_name"]["encrypt"] = True
    steps = apply(crm, encrypted)
    assert "rewrite rows for the changed columns" in {step[2] for step in steps}
    assert crm.rows(
        "select count(*), count(*) filter (where kind = 'before_gdprdb') from gdpr.source",
        user="dpo_login",
    ) == [(before, before)]


def test_several_rows_of_a_person_each_have_their_own(crm: Database) -> None:
    key = insert(crm, None)
    for line in (1, 2):
        connection = crm.connect("crm_app", autocommit=False)
        connection.execute(
            "select gdpr.set_context(p_source => %s)",
            [json.dumps({"kind": "import", "file": "orders.csv", "line": line})],
        )
        connection.execute(
            'insert into crm."order" (id, customer_id, total) values (%s, %s, 1)', [70 + line, key]
        )
        connection.commit()
    assert [source_of(crm, "crm.order", str(n))[0][2]["line"] for n in (71, 72)] == [1, 2]


def test_the_source_goes_with_the_person(crm: Database) -> None:
    key = insert(crm, DETAILS[0])
    ((person,),) = crm.rows("select gdpr.subject_of('crm.customer', %s)", [key], user="dpo_login")
    crm.rows("select gdpr.erase(%s)", [person], user="dpo_login")
    assert crm.rows(
        "select details from gdpr.source where subject_id = %s", [person], user="dpo_login"
    ) == [(None,)]
    assert source_of(crm, "crm.customer", key) == []


def test_a_policy_may_demand_a_source(crm: Database) -> None:
    new = policy(**{"tables__crm.customer__source": "required"})
    apply(crm, new)
    assert apply(crm, new) == []
    with refused("PR108", "source_missing"):
        insert(crm, None)
    key = insert(crm, DETAILS[0])
    # a change needs none
    crm.rows(f"update crm.customer set city = 'Ulm' where id = {key}", user="crm_app")
    # the clear view is no way around
    with refused("PR108", "source_missing"):
        crm.rows(
            "insert into gdpr_clear.customer (email, last_name) values ('y@example.com', 'Y')",
            user="crm_app",
        )


def test_a_table_that_demands_a_source_takes_in_what_it_held(shop: Database) -> None:
    apply(shop, policy(**{"tables__crm.customer__source": "required"}))
    assert source_of(shop, "crm.customer", "1") == [("created", "before_gdprdb", None)]


def test_no_other_word_is_a_demand(unchanged: Database) -> None:
    new = policy(**{"tables__crm.customer__source": "always"})
    assert any(".source: " in line for line in problems(unchanged, new))


def test_a_copied_row_has_its_own_person_basis_and_source(crm: Database) -> None:
    anna = crm.rows("select gdpr.subject_of('crm.customer', '1')", user="dpo_login")[0][0]
    crm.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'web_form')", [anna], user="dpo_login"
    )
    app = crm.connect("crm_app")
    # every control column is copied too, and that of consent with them
    app.execute(
        "insert into crm.customer (email, last_name, gdpr_subject_id, gdpr_subject_ref,"
        " gdpr_purposes, gdpr_until)"
        " select 'copy@example.com', last_name, gdpr_subject_id, gdpr_subject_ref,"
        " gdpr_purposes, gdpr_until from crm.customer where id = 1"
    )
    ((key, subject),) = app.execute(
        "select id::text, gdpr_subject_id from crm.customer"
        " where gdpr_email_digest = gdpr.digest('email', 'copy@example.com')"
    ).fetchall()
    assert subject != anna
    assert source_of(crm, "crm.customer", key) == [("created", "unspecified", None)]
    assert crm.rows(
        "select status from gdpr.consent where subject_id = %s", [subject], user="dpo_login"
    ) in ([], [("pending",)])
    app.execute("set gdpr.purpose = 'marketing'")
    seen = app.execute("select email from gdpr_clear.customer").fetchall()
    assert seen == [("anna@example.com",)]


def test_a_copy_of_ciphertext_stays_with_its_person(crm: Database) -> None:
    app = crm.connect("crm_app")
    ((anna, other),) = app.execute(
        "select (select gdpr_subject_id from crm.customer where id = 1),"
        " (select gdpr_subject_id from crm.customer where id = 2)"
    ).fetchall()
    # the phone number of one, handed to another: the header of the ciphertext says whose it is
    with refused("PR405", "ciphertext_written"):
        app.execute(
            "insert into crm.customer (email, last_name, phone, gdpr_subject_id)"
            " select 'thief@example.com', 'T', phone, %s from crm.customer where id = 1",
            [other],
        )
    assert anna != other


def test_only_the_officer_asks(crm: Database) -> None:
    for user in ("crm_app", "metabase", "auditor_login"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            crm.rows("select * from gdpr.source_of('crm.customer', '1')", user=user)
