"""What a person is told who asks: everything about them, nothing about others, on record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.capabilities.access import portable, report, rows, table
from tests.capabilities.crm import apply, one_table, policy, refused, subject
from tests.capabilities.sharing import RECIPIENTS
from tests.capabilities.test_60_joint_rows import TABLES as ACCOUNTS
from tests.capabilities.test_60_joint_rows import joint_policy
from tests.support import Database

ORDER = 'crm."order"'


def test_every_row_is_there_in_plaintext_and_its_own_types(crm: Database) -> None:
    found = report(crm, subject(crm, "crm.customer", 1))
    (customer,) = rows(found, "crm.customer")
    assert customer["birth_date"] == "1980-01-02"
    assert customer["phone"] == "+49 711 1001"
    assert [row["total"] for row in rows(found, ORDER)] == [10, 20]
    assert [row["engraving"] for row in rows(found, "crm.order_line")] == ["Forever, Ada", None]
    assert [row["email"] for row in rows(found, "crm.lead")] == ["ANNA@example.com"]
    assert "gdpr1:" not in json.dumps(found)
    assert "gdpr_subject_id" not in json.dumps(found)
    assert table(found, "crm.customer")["row_count"] == 1


def test_columns_that_the_policy_does_not_name_are_there(crm: Database) -> None:
    crm.rows("alter table crm.customer add nickname text")
    crm.rows("update crm.customer set nickname = 'Änni' where id = 1", user="postgres")
    apply(crm, policy())
    person = subject(crm, "crm.customer", 1)
    assert rows(report(crm, person), "crm.customer")[0]["nickname"] == "Änni"
    copy = portable(crm, person)
    assert "nickname" not in rows(copy, "crm.customer")[0]
    assert table(copy, "crm.customer")["left_out"] == ["nickname"]


def test_what_for_where_from_and_to_whom(crm: Database) -> None:
    apply(
        crm,
        policy(
            settings__controller={"name": "Example Ltd", "country": "DE"},
            purposes__orders__retain="7 years",
            purposes__orders__automated_decision="orders above 10,000 EUR are refused",
        ),
    )
    person = subject(crm, "crm.customer", 1)
    dpo = crm.connect("dpo_login")
    dpo.execute(
        "select gdpr.record_consent(%s, 'marketing', true, 'phone', %s)",
        [person, '{"who": "K. Weber", "when": "2026-05-04", "how": "call", "reference": "T-88"}'],
    )
    dpo.execute("select gdpr.open_request('access', %s)", [person])
    dpo.execute(RECIPIENTS.encode())
    dpo.execute(
        "select gdpr.record_disclosure('Parcel AG', %s, 'orders', p_categories => '{contact}')",
        [[person]],
    )
    app = crm.connect("crm_app")
    app.execute(
        "select set_config('gdpr.source', %s, false)",
        ['{"kind": "manual", "user": "K. Weber", "reason": "telephone"}'],
    )
    app.execute("update gdpr_clear.customer set city = 'Ulm' where id = 1")
    found = report(crm, person)
    purposes = {purpose["purpose"]: purpose for purpose in found["purposes"]}
    assert purposes["orders"]["retain"] == "P7Y"
    assert purposes["orders"]["automated_decision"] == "orders above 10,000 EUR are refused"
    assert purposes["orders"]["bases"][0]["basis"] == "contract"
    assert purposes["orders"]["allowed"] is True
    assert found["controller"] == {"name": "Example Ltd", "country": "DE"}
    assert [consent["event"] for consent in found["consents"]] == ["granted"]
    assert found["consents"][0]["evidence"]["reference"] == "T-88"
    assert [request["kind"] for request in found["requests"]] == ["access"]
    assert [recipient["recipient"] for recipient in found["recipients"]] == ["Parcel AG"]
    assert {category["category"] for category in found["categories"]} >= {"contact", "identity"}
    assert found["sources"][-1]["details"] == {"reason": "telephone"}
    assert "eu-gdpr:A77" in found["rights"]
    assert "Weber" not in json.dumps(found), "staff is not the person's data"


def test_the_history_tells_what_changed_and_what_it_was(crm: Database) -> None:
    person = subject(crm, "crm.customer", 1)
    crm.rows(
        "update gdpr_clear.customer set phone = '+49 7', city = 'Ulm' where id = 1", user="crm_app"
    )
    (change,) = [
        entry for entry in report(crm, person)["history"] if entry["operation"] == "UPDATE"
    ]
    assert change["changed"] == ["phone", "city"]
    assert change["before"] == {"phone": "+49 711 1001", "city": "Aalen"}
    assert (change["by"], change["purpose"]) == ("crm_app", "orders")


def test_reading_is_itself_on_record(crm: Database) -> None:
    person = subject(crm, "crm.customer", 1)
    report(crm, person)
    portable(crm, person)
    assert crm.rows(
        "select operation, login, old ->> 'document' from gdpr.audit_log"
        " where operation = 'ACCESS' order by id",
        user="auditor_login",
    ) == [
        ("ACCESS", "dpo_login", "access_report"),
        ("ACCESS", "dpo_login", "portable_copy"),
    ]
    with refused("25006"):
        crm.rows(
            f"begin read only; select gdpr.access_report({person})",
            user="dpo_login",
        )


def test_pages_are_on_record_once_in_a_transaction(crm: Database) -> None:
    person = subject(crm, "crm.customer", 1)
    dpo = crm.connect("dpo_login", autocommit=False)
    pages = dpo.execute("select page::text from gdpr.access_pages(%s)", [person]).fetchall()
    for (page,) in pages:
        dpo.execute("select gdpr.access_rows(%s, %s::jsonb)", [person, page])
    dpo.commit()
    ((count,),) = crm.rows(
        "select count(*) from gdpr.audit_log where operation = 'ACCESS'", user="auditor_login"
    )
    assert count == 1


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_the_pages_together_are_the_report(crm: Database, size: int) -> None:
    person = subject(crm, "crm.customer", 1)
    crm.rows("update gdpr_clear.customer set city = 'Ulm' where id = 1", user="crm_app")
    dpo = crm.connect("dpo_login", autocommit=False)
    ((whole,),) = dpo.execute("select gdpr.access_report(%s)", [person]).fetchall()
    ((facts,),) = dpo.execute("select gdpr.access_report(%s, false)", [person]).fetchall()
    sections: dict[str, list[Any]] = {"sources": [], "history": []}
    tables: dict[str, list[Any]] = {}
    for section, name, page in dpo.execute(
        "select section, table_name, page::text from gdpr.access_pages(%s, p_size => %s)",
        [person, size],
    ).fetchall():
        found = dpo.execute("select gdpr.access_rows(%s, %s::jsonb)", [person, page]).fetchall()
        assert 1 <= len(found) <= size
        into = tables.setdefault(name, []) if section == "rows" else sections[section]
        into += [entry for (entry,) in found]
    assert sections["sources"] == whole["sources"]
    assert sections["history"] == whole["history"]
    assert tables == {described["table"]: described["rows"] for described in whole["tables"]}
    assert facts["tables"] == [
        {key: value for key, value in described.items() if key != "rows"}
        for described in whole["tables"]
    ]


def test_rows_of_partitions_and_of_rows_without_a_key(empty_shop: Database) -> None:
    empty_shop.rows(
        "create table person (id integer, name text, born date) partition by range (id);"
        " create table person_1 partition of person for values from (0) to (10);"
        " create table person_2 partition of person for values from (10) to (20);"
        " insert into person values (1, 'Ada', '1815-12-10'), (11, 'Bela', null)"
    )
    apply(
        empty_shop,
        one_table(
            "public.person",
            match_on=["name"],
            columns={"name": {"identifier": "text"}, "born": {"encrypt": True}},
        ),
    )
    empty_shop.rows("insert into person values (12, 'Ada', '1815-12-10')", user="postgres")
    ((person,),) = empty_shop.rows("select gdpr.find_subject('text', 'Ada')", user="dpo_login")
    assert sorted(row["id"] for row in rows(report(empty_shop, person), "public.person")) == [1, 12]
    pages = empty_shop.rows(
        "select page::text from gdpr.access_pages(%s) where section = 'rows'",
        [person],
        user="dpo_login",
    )
    found = [
        row["id"]
        for (page,) in pages
        for (row,) in empty_shop.rows(
            "select gdpr.access_rows(%s, %s::jsonb)", [person, page], user="dpo_login"
        )
    ]
    assert sorted(found) == [1, 12]


@pytest.fixture
def empty_shop(db: Database) -> Database:
    """A database with gdprdb and no tables of an application."""
    return db


def test_types_are_the_same_encrypted_and_plain(empty_shop: Database) -> None:
    types = {
        "smallint": "7",
        "bigint": "9007199254740993",
        "numeric(10,3)": "1.500",
        "real": "0.1",
        "double precision": "NaN",
        "boolean": "true",
        "date": "2026-05-04",
        "timestamp": "2026-05-04 10:11:12.5",
        "timestamptz": "2026-05-04 10:11:12+02",
        "interval": "1 mon 2 days",
        "uuid": "5b0f3f1e-2f1c-4f3e-9d3a-000000000001",
        "bytea": "\\xdeadbeef",
        "jsonb": '{"a": [1, null]}',
        "text[]": '{a,NULL,"b c"}',
        "integer[]": "{{1,2},{3,4}}",
        "inet": "192.0.2.1/24",
        "char(5)": "ab",
    }
    plain = ", ".join(f"p{n} {kind}" for n, kind in enumerate(types))
    sealed = ", ".join(f"e{n} {kind}" for n, kind in enumerate(types))
    empty_shop.rows(f"create table thing (id integer primary key, {plain}, {sealed})")
    values = list(types.values())
    marks = ", ".join(["%s"] * len(values) * 2)
    empty_shop.rows(f"insert into thing values (1, {marks})", values + values)
    columns = {f"e{n}": {"encrypt": True} for n in range(len(types))}
    apply(empty_shop, one_table("public.thing", columns=columns))
    (row,) = rows(report(empty_shop, subject(empty_shop, "public.thing", 1)), "public.thing")
    assert {n: row[f"e{n}"] for n in range(len(types))} == {
        n: row[f"p{n}"] for n in range(len(types))
    }
    assert row["e1"] == 9007199254740993
    assert row["e12"] == {"a": [1, None]}


def test_columns_about_somebody_else_are_left_out_of_history_too(crm: Database) -> None:
    apply(
        crm,
        policy(**{"tables__crm.order__columns__note": {"encrypt": True, "about": "someone_else"}}),
    )
    person = subject(crm, "crm.customer", 1)
    crm.rows(
        "update gdpr_clear.\"order\" set note = 'for Eve', total = 11 where id = 1", user="crm_app"
    )
    found = report(crm, person)
    assert "note" not in rows(found, ORDER)[0]
    assert table(found, ORDER)["left_out"] == ["note"]
    assert [
        (entry["changed"], entry["before"]) for entry in found["history"] if "changed" in entry
    ] == [(["total"], {"total": 10})]
    assert "Ada" not in json.dumps(rows(found, ORDER))


def test_a_joint_row_is_shown_to_each_holder_without_the_other(empty_shop: Database) -> None:
    empty_shop.rows(ACCOUNTS)
    apply(empty_shop, joint_policy())
    ada, bela, chie = (subject(empty_shop, "person", key) for key in (1, 2, 3))
    assert rows(report(empty_shop, ada), "public.account") == [
        {"id": 10, "holder_id": 1, "balance": 100, "holder_note": "likes Ada", "branch": "Ulm"},
        {"id": 11, "holder_id": 1, "balance": 200, "holder_note": "Ada too", "branch": "Bonn"},
    ]
    assert rows(report(empty_shop, bela), "public.account") == [
        {
            "id": 10,
            "second_holder_id": 2,
            "balance": 100,
            "second_note": "likes Bela",
            "branch": "Ulm",
        }
    ]
    assert [
        (row["id"], row.get("second_note"))
        for row in rows(report(empty_shop, chie), "public.account")
    ] == [
        (11, "Chie too"),
        (12, None),
    ]
    pages = empty_shop.rows(
        "select page::text from gdpr.access_pages(%s) where table_name = 'public.account'",
        [bela],
        user="dpo_login",
    )
    assert [
        row["id"]
        for (page,) in pages
        for (row,) in empty_shop.rows(
            "select gdpr.access_rows(%s, %s::jsonb)", [bela, page], user="dpo_login"
        )
    ] == [10]


def test_a_portable_copy_is_of_consent_and_contract_alone(crm: Database) -> None:
    apply(
        crm,
        policy(
            **{
                "tables__crm.lead__columns__score": {"category": "other", "provided": False},
                "tables__crm.lead__purposes": ["marketing"],
                "tables__crm.order__purposes": ["analytics"],
            }
        ),
    )
    person = subject(crm, "crm.customer", 1)
    assert [found["table"] for found in portable(crm, person)["tables"]] == [
        "crm.customer",
        "crm.order_line",
    ]
    dpo = crm.connect("dpo_login")
    dpo.execute("select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [person])
    (lead,) = rows(portable(crm, person), "crm.lead")
    assert lead == {"id": 1, "email": "ANNA@example.com", "full_name": "Anna Ahrens"}
    assert rows(report(crm, person), "crm.lead")[0]["score"] == 7
    dpo.execute("select gdpr.withdraw_consent(%s, 'marketing')", [person])
    dpo.execute(
        "select gdpr.end_bases(array("
        "select basis_id from gdpr.basis where subject_id = %s and holds), 'left')",
        [person],
    )
    assert portable(crm, person)["tables"] == []


def test_the_restricted_have_access_and_the_unknown_are_told(crm: Database) -> None:
    person = subject(crm, "crm.customer", 1)
    crm.rows("select gdpr.restrict(%s, 'accuracy_contested')", [person], user="dpo_login")
    found = report(crm, person)
    assert rows(found, "crm.customer")
    assert found["subject"]["restrictions"][0]["ground"] == "accuracy_contested"
    for call in ("access_report", "portable_copy"):
        with refused("PR101", "unknown_subject"):
            crm.rows(f"select gdpr.{call}(987654)", user="dpo_login")


def test_of_the_erased_nothing_is_left_but_that_they_were(crm: Database) -> None:
    person = subject(crm, "crm.customer", 2)
    crm.rows("select gdpr.erase(%s)", [person], user="dpo_login")
    found = report(crm, person)
    assert found["tables"] == []
    assert found["subject"]["erased_at"]
    assert "Bartok" not in json.dumps(found)
    for call in ("send_report(%s)", "create_download(%s)"):
        with refused("PR603", "erased"):
            crm.rows(f"select gdpr.{call}", [person], user="dpo_login")


def test_a_report_answers_the_request_that_the_context_names(crm: Database) -> None:
    person, other = subject(crm, "crm.customer", 1), subject(crm, "crm.customer", 2)
    dpo = crm.connect("dpo_login", autocommit=False)
    ((number,),) = dpo.execute("select gdpr.open_request('access', %s)", [person]).fetchall()
    dpo.commit()
    dpo.execute("select gdpr.set_context(p_request => %s)", [str(number)])
    with refused("PR609", "request_of_another"):
        dpo.execute("select gdpr.access_report(%s)", [other])
    dpo.rollback()
    dpo.execute("select gdpr.set_context(p_request => %s)", [str(number)])
    dpo.execute("select gdpr.access_report(%s)", [person])
    dpo.commit()
    dpo.execute("select gdpr.complete_request(%s, 'fulfilled')", [number])
    dpo.commit()
    assert crm.rows(
        "select state from gdpr.request where request_id = %s", [number], user="dpo_login"
    ) == [("completed",)]


def test_a_download_opens_once_and_until_its_end(crm: Database) -> None:
    crm.rows("grant gdpr_portal to portal_app", user="postgres")
    person = subject(crm, "crm.customer", 1)
    ((old,),) = crm.rows("select gdpr.create_download(%s)", [person], user="dpo_login")
    ((token,),) = crm.rows(
        "select gdpr.create_download(%s, '1 hour', true)", [person], user="dpo_login"
    )
    with refused("PR303", "token_refused"):
        crm.rows("select gdpr.portal_download(%s)", [old], user="portal_app")
    ((found,),) = crm.rows("select gdpr.portal_download(%s)", [token], user="portal_app")
    assert found["document"] == "portable_copy"
    assert rows(found, "crm.customer")[0]["last_name"] == "Ahrens"
    with refused("PR303", "token_refused"):
        crm.rows("select gdpr.portal_download(%s)", [token], user="portal_app")
    ((late,),) = crm.rows(
        "select gdpr.create_download(%s, '1 microsecond')", [person], user="dpo_login"
    )
    with refused("PR303", "token_refused"):
        crm.rows("select gdpr.portal_download(%s)", [late], user="portal_app")
    with refused("PR004", "invalid_argument"):
        crm.rows("select gdpr.create_download(%s, '32 days')", [person], user="dpo_login")
    with refused("PR004", "invalid_argument"):
        crm.rows("""select gdpr.access_rows(%s, '{"page": 1}')""", [person], user="dpo_login")
