"""A report by mail: an archive that only the passphrase opens, made when it is sent."""

from __future__ import annotations

import io
import json
from email.message import EmailMessage

import pyzipper

from tests.capabilities.access import valid
from tests.capabilities.crm import refused
from tests.outbox.conftest import MakeServer, Post
from tests.outbox.test_send import SEND, Settings
from tests.support import Run


def attached(message: EmailMessage) -> bytes:
    """The archive that a mail carries."""
    (found,) = message.iter_attachments()
    assert found.get_content_type() == "application/zip"
    assert found.get_filename() == "data.zip"
    content = found.get_content()
    assert isinstance(content, bytes)
    return content


def test_a_report_arrives_encrypted_and_as_it_is_when_it_leaves(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    server = mail_server(starttls=False)
    settings(server)
    ((mail, passphrase),) = post.db.rows("select * from gdpr.send_report(1)", user="dpo_login")
    post.db.rows("select gdpr.restrict(1, 'accuracy_contested')", user="dpo_login")
    outcome = run(*SEND)
    assert outcome.data == [{"sent": 1, "later": 0, "dead": 0}], outcome.err
    (message,) = server.received
    assert message["To"] == "anna@example.com"
    body = message.get_body(("plain",))
    assert body is not None
    assert passphrase not in message.as_string()
    assert "Ahrens" not in body.get_content()
    with pyzipper.AESZipFile(io.BytesIO(attached(message))) as archive:
        archive.setpassword(passphrase.encode())
        report = valid(json.loads(archive.read("report.json")))
    assert next(found["table"] for found in report["tables"]) == "crm.customer"
    assert report["subject"]["restrictions"], "what was recorded after the mail was ordered"
    assert post.states() == []
    assert post.sent() == [mail]
    assert post.db.rows(
        "select login from gdpr.audit_log where operation = 'ACCESS'", user="auditor_login"
    ) == [("mailer",)]


def test_a_sender_reads_the_report_of_the_mail_that_it_holds_and_no_other(post: Post) -> None:
    ((mail, _),) = post.db.rows("select * from gdpr.send_report(1)", user="dpo_login")
    sender = post.db.connect("mailer")
    question = "select gdpr.mail_report(%s)"
    for number in (mail, 0):
        with refused("PR606", "mail_not_taken"):
            sender.execute(question, [number])
    assert sender.execute("select gdpr.next_mail()").fetchone() == (mail,)
    ((report,),) = sender.execute(question, [mail]).fetchall()
    assert valid(report)["subject"]["subject_id"] == 1


def test_a_report_that_no_mail_server_would_take_is_refused(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    settings(mail_server(starttls=False))
    post.db.rows("select gdpr.send_report(1, true)", user="dpo_login")
    # the many rows come after the order: written past the triggers, for speed
    post.db.rows(
        "set session_replication_role = replica;"
        ' alter table crm."order" disable trigger all;'
        ' insert into crm."order" (id, customer_id, total, gdpr_subject_id, gdpr_purposes,'
        " gdpr_until) select n, 1, 1, 1, 4611686018427387911, 'infinity'"
        " from generate_series(1000, 21000) as n",
        user="postgres",
    )
    run(*SEND)
    assert post.states()[0][1:] == ("dead", 1, "too large")
    with refused("PR620", "report_too_large"):
        post.db.rows("select gdpr.send_report(1)", user="dpo_login")
