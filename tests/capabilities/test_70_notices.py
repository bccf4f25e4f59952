"""Station 70: who was told, is told again when it was wrong or has to go (Art. 19)."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import policy, refused
from tests.capabilities.sharing import RECIPIENTS, disclose, persons
from tests.support import Database

WITH_MAILER = policy(roles__mailer={"audience": "mail"})

DUE = "select recipient, event, persons, delivery from gdpr.notice_due order by notice_id"


@pytest.fixture
def dpo(crm: Database) -> psycopg.Connection:
    """An officer, in a database with two recipients."""
    connection = crm.connect("dpo_login")
    connection.execute(RECIPIENTS)
    return connection


def queue(crm: Database, whom: list[int], event: str = "erasure", details: Any = None) -> int:
    """Call what erasure, rectification and restriction call."""
    ((queued,),) = crm.rows(
        "select gdpr_internal.queue_notices(%s, %s, %s)", [whom, event, details], user="postgres"
    )
    return int(queued)


def test_every_recipient_of_a_person_gets_one_notice(
    crm: Database, dpo: psycopg.Connection
) -> None:
    anna, bela, chie = persons(crm)
    disclose(dpo, [anna, bela])
    disclose(dpo, [anna], purpose="orders", categories=["identity"])
    disclose(dpo, [anna], recipient="Call Centre Inc")
    assert queue(crm, [anna, bela, chie]) == 2
    assert dpo.execute(DUE).fetchall() == [
        ("Parcel AG", "erasure", 2, "waiting"),
        ("Call Centre Inc", "erasure", 1, "by hand"),
    ]
    assert queue(crm, [chie]) == 0
    with refused("PR004", "invalid_argument"):
        queue(crm, [anna], "gossip")


def test_a_notice_names_the_person_as_the_recipient_knows_it_even_after_the_erasure(
    crm: Database, dpo: psycopg.Connection
) -> None:
    anna, bela, _ = persons(crm)
    ((ref,),) = crm.rows(
        "select ref from gdpr_internal.subject where id = %s", [anna], user="postgres"
    )
    disclose(dpo, [bela, anna, anna], references=["B-2", "A-1", "A-1"], recipient="Call Centre Inc")
    disclose(dpo, [anna], recipient="Call Centre Inc")
    dpo.execute("select gdpr.erase(%s)", [anna])
    ((number,),) = dpo.execute(
        "select min(notice_id) from gdpr.notice_due where recipient = 'Call Centre Inc'"
    ).fetchall()
    ((message,),) = dpo.execute("select gdpr.open_notice(%s)", [number]).fetchall()
    assert sorted(message["references"]) == sorted(["A-1", str(ref)])
    assert message["event"] == "erasure"
    # here nothing leads from the reference to the person any more
    assert (
        crm.rows("select from gdpr_internal.subject where ref = %s", [ref], user="postgres") == []
    )
    for table in ("notice_content", "disclosure_person", "notice_record"):
        text = crm.rows(f"select * from gdpr_internal.{table}", user="postgres")
        assert "A-1" not in str(text)
        assert str(ref) not in str(text)


def test_what_a_notice_said_is_deleted_when_it_was_sent(
    crm: Database, dpo: psycopg.Connection
) -> None:
    anna, bela, chie = persons(crm)
    for person in (anna, bela, chie):
        disclose(dpo, [person])
        queue(crm, [person], "rectification")
    first, second, third = (n for (n,) in dpo.execute("select notice_id from gdpr.notice_due"))
    with refused("PR004", "invalid_argument"):
        dpo.execute("select gdpr.notice_sent(%s, '')", [first])
    dpo.execute("select gdpr.notice_sent(%s, 'phone')", [first])
    dpo.execute("select gdpr.confirm_notice(%s, 'done')", [first])
    dpo.execute("select gdpr.confirm_notice(%s)", [second])
    dpo.execute("select gdpr.notice_impossible(%s, 'wound up in 2025')", [third])
    assert dpo.execute(
        "select state, reason, settled_by from gdpr.notice order by notice_id"
    ).fetchall() == [
        ("confirmed", "done", "dpo_login"),
        ("confirmed", None, "dpo_login"),
        ("impossible", "wound up in 2025", "dpo_login"),
    ]
    assert dpo.execute(DUE).fetchall() == []
    for table in ("notice_content", "notice_key", "outbox"):
        assert crm.rows(f"select from gdpr_internal.{table}", user="postgres") == []
    for again in ("notice_sent(%s, 'post')", "confirm_notice(%s)", "notice_impossible(%s, 'x')"):
        with refused("PR704", "notice_settled"):
            dpo.execute(f"select gdpr.{again}".encode(), [first])
    with refused("PR704", "notice_settled"):
        dpo.execute("select gdpr.open_notice(%s)", [first])


def test_a_notice_leaves_by_mail(crm: Database, dpo: psycopg.Connection) -> None:
    anna, *_ = persons(crm)
    crm.rows("select count(*) from gdpr.apply(%s::jsonb)", [json.dumps(WITH_MAILER)])
    disclose(dpo, [anna], references=["A-1"])
    queue(crm, [anna], "rectification", '{"columns": ["crm.customer.city"]}')
    mailer = crm.connect("mailer")
    ((mail,),) = mailer.execute("select gdpr.next_mail()").fetchall()
    ((template, language, message),) = mailer.execute(
        "select template, language, message from gdpr.open_mail(%s)", [mail]
    ).fetchall()
    assert (template, language) == ("notice", "de")
    assert message == {
        "to": "privacy@parcel.example",
        "event": "rectification",
        "notice": message["notice"],
        "columns": ["crm.customer.city"],
        "recipient": "Parcel AG",
        "references": ["A-1"],
    }
    mailer.execute("select gdpr.mail_sent(%s)", [mail])
    assert dpo.execute("select state, channel from gdpr.notice").fetchall() == [("sent", "mail")]
    assert crm.rows("select from gdpr_internal.notice_key", user="postgres") == []
    assert dpo.execute("select event, notice_id from gdpr.mail_log").fetchall() == [
        ("sent", message["notice"])
    ]


def test_a_mail_that_was_dropped_leaves_the_notice_due(
    crm: Database, dpo: psycopg.Connection
) -> None:
    anna, *_ = persons(crm)
    disclose(dpo, [anna])
    dpo.execute("select gdpr.restrict(%s, 'legal_claims')", [anna])
    dpo.execute("select gdpr.drop_mails(array(select mail_id from gdpr.outbox), 'no such box')")
    assert dpo.execute(DUE).fetchall() == [("Parcel AG", "restriction", 1, "by hand")]
    assert dpo.execute("select gdpr.open_notice(min(notice_id)) from gdpr.notice_due").fetchone()


def test_a_large_batch_is_told_in_mails_of_a_size_that_arrives(
    crm: Database, dpo: psycopg.Connection
) -> None:
    crm.rows(
        "insert into gdpr_internal.subject (id, purposes, until)"
        " select n, -1, 'infinity' from generate_series(10001, 11001) as n",
        user="postgres",
    )
    many = list(range(10001, 11002))
    disclose(dpo, many)
    assert queue(crm, many) == 3
    assert dpo.execute("select persons from gdpr.notice order by persons").fetchall() == [
        (1,),
        (500,),
        (500,),
    ]
