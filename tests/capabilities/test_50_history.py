"""The versions of a row: what it was, when, and whose, for those who may read it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from tests.capabilities.crm import apply, one_table, policy, refused, subject
from tests.support import Database

DPO = "dpo_login"
HISTORY = "select * from gdpr.history(%s::text::regclass, %s, %s)"


def history(
    db: Database, table: str, key: object, person: int | None = None, *, user: str = DPO
) -> list[dict[str, Any]]:
    """The versions of a row, latest first."""
    with psycopg.connect(db.dsn(user), autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(HISTORY, [table, str(key), person]).fetchall()


def app(crm: Database, statement: str, *parameters: object) -> None:
    """Run a statement as the application."""
    crm.rows(statement, parameters or None, user="crm_app")


def told(versions: list[dict[str, Any]], *columns: str) -> list[tuple[object, ...]]:
    """Operation and these columns of each version."""
    return [
        (version["operation"], *((version["content"] or {}).get(column) for column in columns))
        for version in versions
    ]


def test_every_version_of_a_row_in_plaintext(crm: Database) -> None:
    app(crm, "insert into gdpr_clear.customer (email, last_name) values ('n@example.com', 'Nagy')")
    app(
        crm,
        "update gdpr_clear.customer set phone = '+49 5', birth_date = '1990-05-06'"
        " where last_name = 'Nagy'",
    )
    app(crm, "update gdpr_clear.customer set last_name = 'Noble' where last_name = 'Nagy'")
    app(crm, "update gdpr_clear.customer set phone = null, city = 'Ulm' where last_name = 'Noble'")
    versions = history(crm, "crm.customer", 4)
    assert told(versions, "last_name", "phone", "birth_date", "city") == [
        ("UPDATE", "Noble", None, "1990-05-06", "Ulm"),
        ("UPDATE", "Noble", "+49 5", "1990-05-06", "Stuttgart"),
        ("UPDATE", "Nagy", "+49 5", "1990-05-06", "Stuttgart"),
        ("INSERT", "Nagy", None, None, "Stuttgart"),
    ]
    assert [version["changed"] for version in versions] == [
        ["phone", "city"],
        ["last_name"],
        ["phone", "birth_date"],
        None,
    ]
    assert {version["subject_id"] for version in versions} == {subject(crm, "crm.customer", 4)}
    assert {version["login"] for version in versions} == {"crm_app"}
    assert [version["until"] for version in versions] == [
        None,
        *(version["at"] for version in versions[:-1]),
    ]
    assert {"id", "email", "created_at"} <= versions[0]["content"].keys()
    assert "gdpr_subject_id" not in versions[0]["content"]


def test_the_versions_are_what_the_application_saw(crm: Database) -> None:
    """A law: whatever is written, each version is what the clear view showed at its time."""
    words = st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
    column = st.sampled_from(["phone", "last_name", "city", "birth_date"])
    connection = crm.connect("crm_app")

    @settings(
        max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(changes=st.lists(st.tuples(column, words, st.dates()), min_size=1, max_size=8))
    def law(changes: list[tuple[str, str | None, object]]) -> None:
        row = connection.execute(
            "insert into gdpr_clear.customer (email, last_name) values"
            " (gen_random_uuid() || '@example.com', 'N') returning id"
        ).fetchone()
        assert row is not None
        read = "select to_jsonb(c) - 'email_digest' from gdpr_clear.customer as c where c.id = %s"
        seen = [connection.execute(read, row).fetchone()]
        for name, word, day in changes:
            value = day if name == "birth_date" else (word or "") if name == "last_name" else word
            connection.execute(
                f"update gdpr_clear.customer set {name} = %s where id = %s".encode(),
                [value, row[0]],
            )
            now = connection.execute(read, row).fetchone()
            if now != seen[-1]:
                seen.append(now)
        versions = history(crm, "crm.customer", row[0])
        assert [v["content"] for v in reversed(versions) if v["changed"] != []] == [
            one[0] for one in seen if one is not None
        ]

    law()


def test_rows_that_were_there_before_begin_without_a_time(crm: Database) -> None:
    app(crm, "update gdpr_clear.customer set city = 'Ulm' where id = 1")
    versions = history(crm, "crm.customer", 1)
    assert told(versions, "city", "phone") == [
        ("UPDATE", "Ulm", "+49 711 1001"),
        (None, "Aalen", "+49 711 1001"),
    ]
    assert versions[1]["at"] is None
    assert versions[1]["until"] == versions[0]["at"]
    assert told(history(crm, "crm.customer", 2), "last_name") == [(None, "Bartok")]


def test_a_deleted_row_is_told_with_what_it_held(crm: Database) -> None:
    person = subject(crm, "crm.order", 3)
    app(crm, "update gdpr_clear.order set note = 'ring once' where id = 3")
    app(crm, "delete from gdpr_clear.order_line where order_id = 3")
    app(crm, "delete from gdpr_clear.order where id = 3")
    expected = [("DELETE", None), ("UPDATE", "ring once"), (None, "ring twice")]
    for versions in (history(crm, "crm.order", 3), history(crm, "crm.order", 3, person)):
        assert told(versions, "note") == expected
        assert versions[0]["content"] is None
    assert history(crm, "crm.order", 3, subject(crm, "crm.customer", 1)) == []
    assert history(crm, "crm.order", 4711) == []


def test_a_row_that_came_back_is_told_with_what_it_was_before(crm: Database) -> None:
    app(crm, "delete from gdpr_clear.order_line where order_id = 1")
    app(
        crm,
        "insert into gdpr_clear.order_line (order_id, n, engraving) values (1, 1, 'Second, Ada')",
    )
    versions = history(crm, "crm.order_line", '["1", "1"]')
    assert told(versions, "engraving") == [
        ("INSERT", "Second, Ada"),
        ("DELETE", None),
        (None, "Forever, Ada"),
    ]


def test_a_changed_key_is_followed(crm: Database) -> None:
    app(crm, "insert into gdpr_clear.order_line (order_id, n, engraving) values (2, 7, 'Eins')")
    app(crm, "update gdpr_clear.order_line set n = 8 where n = 7")
    app(crm, "update gdpr_clear.order_line set engraving = 'Zwei' where n = 8")
    app(crm, "update gdpr_clear.order_line set n = 9, engraving = 'Drei' where n = 8")
    versions = history(crm, "crm.order_line", '["2", "9"]')
    assert told(versions, "n", "engraving") == [
        ("UPDATE", 9, "Drei"),
        ("UPDATE", 8, "Zwei"),
        ("UPDATE", 8, "Eins"),
        ("INSERT", 7, "Eins"),
    ]
    log = crm.rows(
        "select operation, changed from gdpr.audit_log where operation = 'MOVE' order by id",
        user="auditor_login",
    )
    assert log == [("MOVE", ["n"]), ("MOVE", ["n", "engraving"])]


def test_a_changed_person_is_followed_and_both_can_be_told(crm: Database) -> None:
    first, second = (subject(crm, "crm.customer", key) for key in (1, 2))
    app(crm, "update gdpr_clear.order set note = 'gift' where id = 1")
    app(crm, "update gdpr_clear.order set customer_id = 2, note = 'mine' where id = 1")
    versions = history(crm, "crm.order", 1)
    assert told(versions, "customer_id", "note") == [
        ("UPDATE", 2, "mine"),
        ("UPDATE", 1, "gift"),
        (None, 1, "gift for Ada"),
    ]
    assert versions[0]["subject_id"] == first, "the record of a change is of the row that was"
    moved = crm.rows(
        "select subject_id, old from gdpr.audit_log where operation = 'MOVE'", user=DPO
    )
    assert moved == [(second, None), (second, None)], "the order, and its line"
    app(crm, "delete from gdpr_clear.order_line where order_id = 1")
    app(crm, "delete from gdpr_clear.order where id = 1")
    assert told(history(crm, "crm.order", 1), "note") == [
        ("DELETE", None),
        ("UPDATE", "mine"),
        ("UPDATE", "gift"),
        (None, "gift for Ada"),
    ]


def test_nothing_of_an_erased_person_can_be_opened(crm: Database) -> None:
    person = subject(crm, "crm.customer", 3)
    app(crm, "update gdpr_clear.customer set last_name = 'Chou' where id = 3")
    app(crm, "update gdpr_clear.order set note = 'to Chiba' where customer_id = 3")
    crm.rows("select gdpr.erase(%s, 'request')", [person], user=DPO)
    versions = history(crm, "crm.customer", 3, person)
    assert versions, "that there were changes stays known"
    assert {version["content"] is None for version in versions} == {True}
    assert "Ch" not in str(versions)


def test_a_text_that_looks_encrypted_closes_nothing(crm: Database) -> None:
    """Mallory moves to a city whose name begins as ciphertext does."""
    foreign = crm.rows("select email from crm.customer where id = 2", user="crm_app")[0][0]
    for city in ("gdpr1:", "gdpr1:hello", "gdpr1:AAAA", "Ulm"):
        app(crm, "update gdpr_clear.customer set city = %s where id = 1", city)
    app(crm, "update gdpr_clear.customer set last_name = %s where id = 3", foreign)
    assert told(history(crm, "crm.customer", 1), "city") == [
        ("UPDATE", "Ulm"),
        ("UPDATE", "gdpr1:AAAA"),
        ("UPDATE", "gdpr1:hello"),
        ("UPDATE", "gdpr1:"),
        (None, "Aalen"),
    ]
    assert told(history(crm, "crm.customer", 3), "last_name") == [
        ("UPDATE", foreign),
        (None, "Chiba"),
    ]
    log = crm.rows("select old ->> 'city' from gdpr.audit_log where changed = '{city}'", user=DPO)
    assert len(log) == 4
    parallel = crm.connect(DPO)
    for setting in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        parallel.execute(f"set {setting} = 0".encode())
    question = "select old ->> 'city' from gdpr.audit_log where changed = '{city}' order by id"
    plan = "\n".join(line for (line,) in parallel.execute(f"explain {question}".encode()))
    assert "Gather" in plan
    assert len(parallel.execute(question.encode()).fetchall()) == 4
    report = crm.rows(
        "select gdpr.access_report(%s)::text", [subject(crm, "crm.customer", 1)], user=DPO
    )
    assert "gdpr1:hello" in report[0][0]


def test_who_may_read_it_and_that_it_was_read(crm: Database) -> None:
    for user in ("crm_app", "metabase", "auditor_login"):
        with refused("42501"):
            history(crm, "crm.customer", 1, user=user)
    before = crm.rows("select count(*) from gdpr.audit_log where operation = 'ACCESS'")
    history(crm, "crm.customer", 1)
    read = crm.rows(
        "select subject_id, old from gdpr.audit_log where operation = 'ACCESS'"
        " order by id desc limit 1",
        user=DPO,
    )
    assert before == [(0,)]
    assert read == [
        (subject(crm, "crm.customer", 1), {"document": "history", "table": "crm.customer"})
    ]


def test_bad_keys_and_tables_are_refused_without_their_content(crm: Database) -> None:
    with refused("PR004", "invalid_argument") as caught:
        history(crm, "crm.customer", "anna@example.com")
    assert "anna" not in str(caught.value)
    with refused("PR004", "invalid_argument"):
        history(crm, "crm.order_line", '["1", "x"]')
    with refused("PR002"):
        history(crm, "pg_class", 1)
    crm.connect().execute("create table crm.note (email text, words text)")
    new = policy()
    new["tables"]["crm.note"] = one_table(
        "crm.note",
        columns={"email": {"identifier": "email"}, "words": {"category": "other"}},
    )["tables"]["crm.note"]
    apply(crm, new)
    with refused("PR408", "no_primary_key"):
        history(crm, "crm.note", 1)


def test_what_the_record_of_reading_needs(crm: Database) -> None:
    with psycopg.connect(crm.dsn(DPO)) as connection:
        connection.execute("set transaction read only")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute(HISTORY, ["crm.customer", "1", None])
