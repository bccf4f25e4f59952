"""The outbox: mails wait as ciphertext, leave once, and leave behind that they left."""

from __future__ import annotations

import json
import time
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, policy, refused
from tests.support import Database

MAILER = {"roles__mailer": {"audience": "mail"}}


@pytest.fixture
def post(crm: Database) -> Database:
    """The application, with mailer as the role that sends mails."""
    apply(crm, policy(**MAILER))
    return crm


def queue(db: Database, **options: str) -> int:
    """Queue a mail to the first person; options as SQL, by argument."""
    extra = "".join(f", p_{name} => {value}" for name, value in options.items())
    ((mail,),) = db.rows(
        f"select gdpr_internal.queue_mail(1, 'registration', 'de', %s{extra})",
        [json.dumps({"to": "anna@example.com", "token": "t0ken", "n": 1})],
        user="postgres",
    )
    return int(mail)


def take(sender: psycopg.Connection) -> int | None:
    """The number of the mail that a sender gets next."""
    row = sender.execute("select gdpr.next_mail()").fetchone()
    return row[0] if row else None


def state(db: Database) -> list[Any]:
    """The states of the mails that wait."""
    return [row[0] for row in db.rows("select state from gdpr.outbox order by mail_id")]


def test_a_mail_waits_as_ciphertext(post: Database) -> None:
    queue(post)
    ((stored,),) = post.rows("select o::text from gdpr_internal.outbox as o", user="postgres")
    assert "anna" not in stored
    assert "t0ken" not in stored
    assert "gdpr1:" in stored


def test_a_mail_is_taken_opened_and_gone_after_it_was_sent(post: Database) -> None:
    mail = queue(post)
    with psycopg.connect(post.dsn("mailer"), autocommit=True) as sender:
        assert take(sender) == mail
        opened = sender.execute("select * from gdpr.open_mail(%s)", [mail]).fetchone()
        assert opened is not None
        assert opened[:3] == (
            "registration",
            "de",
            {"to": "anna@example.com", "token": "t0ken", "n": 1},
        )
        sender.execute("select gdpr.mail_sent(%s)", [mail])
    assert post.rows("select * from gdpr.outbox") == []
    assert post.rows(
        "select mail_id, subject_id, template, language, event, attempts, recorded_by"
        " from gdpr.mail_log"
    ) == [(mail, 1, "registration", "de", "sent", 1, "mailer")]


def test_queueing_many_keeps_their_order(post: Database) -> None:
    ((numbers,),) = post.rows(
        "select gdpr_internal.queue_mails(array[3, 1, 2], 'reminder', array['de', null, 'ja'],"
        ' array[\'{"to": "c"}\', \'{"to": "a"}\', \'{"to": "b"}\']::jsonb[])',
        user="postgres",
    )
    waiting = post.rows("select mail_id, subject_id, language from gdpr.outbox order by mail_id")
    assert waiting == list(zip(numbers, [3, 1, 2], ["de", None, "ja"], strict=True))


def test_a_person_without_a_key_gets_no_mail(post: Database) -> None:
    with refused("PR410", "data_key_missing"):
        post.rows(
            "select gdpr_internal.queue_mail(999, 'reminder', 'de', '{\"to\": \"a@b.example\"}')",
            user="postgres",
        )


@pytest.mark.parametrize(
    ("template", "language", "message"),
    [
        ("../etc/passwd", "de", {"to": "a@b.example"}),
        ("reminder", "de/../../x", {"to": "a@b.example"}),
        ("reminder", "de", {"address": "a@b.example"}),
        ("reminder", "de", {"to": ["a@b.example", "c@d.example"]}),
        ("reminder", "de", {"to": "a@b.example", "text": "x" * 100_001}),
    ],
)
def test_what_nobody_could_send_is_not_queued(
    post: Database, template: str, language: str, message: dict[str, Any]
) -> None:
    with refused("PR004", "invalid_argument"):
        post.rows(
            "select gdpr_internal.queue_mail(1, %s, %s, %s)",
            [template, language, json.dumps(message)],
            user="postgres",
        )


def test_each_sender_gets_another_mail(post: Database) -> None:
    mails = {queue(post), queue(post)}
    one, two = (post.connect("mailer") for _ in range(2))
    assert {take(one), take(two)} == mails
    assert take(one) is None


def test_a_mail_of_one_sender_is_not_for_another(post: Database) -> None:
    mail = queue(post)
    one, two = (post.connect("mailer") for _ in range(2))
    assert take(one) == mail
    for statement in (
        "select gdpr.open_mail(%s)",
        "select gdpr.mail_sent(%s)",
        "select gdpr.mail_failed(%s, true, 'x')",
    ):
        with refused("PR606", "mail_not_taken"):
            two.execute(statement.encode(), [mail])


def test_a_mail_being_sent_is_not_taken_again_however_long_it_takes(post: Database) -> None:
    mail = queue(post)
    sender = post.connect("mailer", autocommit=False)
    assert take(sender) == mail
    sender.commit()
    post.rows("update gdpr_internal.outbox set due_at = now()", user="postgres")
    sender.execute("select * from gdpr.open_mail(%s)", [mail])
    assert take(post.connect("mailer")) is None
    sender.rollback()
    assert take(post.connect("mailer")) == mail


def test_a_failure_is_tried_again_later_and_later(post: Database) -> None:
    mail = queue(post)
    sender = post.connect("mailer")
    waits = []
    for _ in range(3):
        post.rows("update gdpr_internal.outbox set due_at = now()", user="postgres")
        assert take(sender) == mail
        sender.execute("select gdpr.mail_failed(%s, false, '451 4.7.1')", [mail])
        ((wait, failure),) = post.rows(
            "select extract(epoch from due_at - statement_timestamp())::float, failure"
            " from gdpr.outbox"
        )
        waits.append(wait)
        assert failure == "451 4.7.1"
    assert 40 < waits[0] < 76
    assert 85 < waits[1] < 151
    assert 175 < waits[2] < 301
    assert state(post) == ["retry"]


def test_after_twelve_attempts_a_mail_is_dead(post: Database) -> None:
    mail = queue(post)
    post.rows("update gdpr_internal.outbox set attempts = 11", user="postgres")
    sender = post.connect("mailer")
    assert take(sender) == mail
    sender.execute("select gdpr.mail_failed(%s, false, '451')", [mail])
    assert state(post) == ["dead"]


def test_a_mail_whose_senders_all_died_is_dead_in_the_end(post: Database) -> None:
    queue(post)
    post.rows("update gdpr_internal.outbox set attempts = 12", user="postgres")
    assert take(post.connect("mailer")) is None
    assert post.rows("select state, failure from gdpr.outbox") == [("dead", "never finished")]


def test_a_permanent_failure_is_dead_until_somebody_retries(post: Database) -> None:
    mail = queue(post)
    sender = post.connect("mailer")
    take(sender)
    sender.execute("select gdpr.mail_failed(%s, true, '550 5.1.1')", [mail])
    assert state(post) == ["dead"]
    assert take(sender) is None
    assert post.rows("select gdpr.retry_mails()", user="dpo_login") == [(1,)]
    assert take(sender) == mail


def test_a_dead_mail_can_be_dropped_with_a_reason(post: Database) -> None:
    mail = queue(post)
    assert post.rows("select gdpr.drop_mails(%s, 'wrong address')", [[mail]]) == [(1,)]
    assert post.rows("select event, reason from gdpr.mail_log") == [("dropped", "wrong address")]
    with refused("PR004", "invalid_argument"):
        post.rows("select gdpr.drop_mails(null, 'all')")


def test_what_a_server_said_is_kept_without_addresses(post: Database) -> None:
    mail = queue(post)
    sender = post.connect("mailer")
    take(sender)
    sender.execute("select gdpr.mail_failed(%s, true, '550 <anna@example.com> unknown')", [mail])
    assert post.rows("select failure from gdpr.outbox") == [("unspecified",)]


def test_not_before_and_not_after(post: Database) -> None:
    queue(post, not_before="statement_timestamp() + interval '1 hour'")
    expired = queue(post, not_after="statement_timestamp()")
    sender = post.connect("mailer")
    assert take(sender) is None
    assert state(post) == ["later"]
    assert post.rows("select mail_id, event from gdpr.mail_log") == [(expired, "expired")]
    ((due,),) = sender.execute("select gdpr.next_mail_at() > now()").fetchall()
    assert due


def test_mails_of_a_restricted_person_wait(post: Database) -> None:
    mail = queue(post)
    post.rows("select gdpr.restrict(1, 'other')", user="dpo_login")
    sender = post.connect("mailer")
    assert take(sender) is None
    post.rows("select gdpr.lift_restriction(1, 'settled')", user="dpo_login")
    post.rows("update gdpr_internal.outbox set due_at = now()", user="postgres")
    assert take(sender) == mail


def test_erasure_takes_the_mails_along(post: Database) -> None:
    queue(post)
    post.rows("select gdpr.erase(1)", user="dpo_login")
    assert post.rows("select * from gdpr.outbox") == []
    assert post.rows("select subject_id, event, reason from gdpr.mail_log") == [
        (1, "dropped", "erased")
    ]


def test_a_cancelled_mail_is_gone_and_one_being_sent_is_left(post: Database) -> None:
    kept, gone = queue(post), queue(post)
    sender = post.connect("mailer", autocommit=False)
    assert take(sender) == kept
    sender.commit()
    sender.execute("select * from gdpr.open_mail(%s)", [kept])
    post.rows("select gdpr_internal.cancel_mails(%s, 'answered')", [[kept, gone]], user="postgres")
    sender.execute("select gdpr.mail_sent(%s)", [kept])
    sender.commit()
    assert post.rows("select mail_id, event from gdpr.mail_log order by mail_id") == [
        (kept, "sent"),
        (gone, "dropped"),
    ]


def test_who_waits_is_woken_without_a_word(post: Database) -> None:
    listener = post.connect("mailer")
    heard: list[psycopg.Notify] = []
    listener.add_notify_handler(heard.append)
    listener.execute("listen gdpr_outbox")
    queue(post)
    deadline = time.monotonic() + 10
    while not heard and time.monotonic() < deadline:
        listener.execute("select 1")
    assert [(notify.channel, notify.payload) for notify in heard] == [("gdpr_outbox", "")]


def test_only_the_audience_mail_takes_mails(post: Database) -> None:
    queue(post)
    for user in ("crm_app", "dpo_login", "metabase", "auditor_login"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            post.rows("select gdpr.next_mail()", user=user)
    apply(post, policy())
    # still a member of the group, which belongs to the whole server
    with refused("42501", "mail_refused"):
        post.rows("select gdpr.next_mail()", user="mailer")


def test_a_sender_does_nothing_else(post: Database) -> None:
    for statement in (
        "select * from gdpr_clear.customer",
        "select * from gdpr.outbox",
        "select * from gdpr.mail_log",
        "select gdpr.find_subject('email', 'anna@example.com')",
        "select gdpr.reveal('x')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            post.rows(statement, user="mailer")


def test_a_sender_has_no_purposes(post: Database) -> None:
    with refused("PR001", "policy_refused") as error:
        apply(post, policy(roles__mailer={"audience": "mail", "purposes": ["orders"]}))
    assert "has no purposes" in (error.value.diag.message_detail or "")


def test_a_policy_with_a_sender_is_applied_once(post: Database) -> None:
    assert apply(post, policy(**MAILER)) == []
