"""``gdprdb outbox send`` against a real mail server, with real TLS, and what goes wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.outbox.conftest import MailServer, MakeServer, Post
from tests.support import Run

Settings = Callable[[MailServer], dict[str, str]]

SEND = ("outbox", "send", "--format", "json")


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@contextmanager
def sending(*options: str) -> Iterator[subprocess.Popen[str]]:
    """A process that sends, with the settings of the environment; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gdprdb", "outbox", "send", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# aiosmtpd does not see that it was handed an encrypted connection
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("tls", [False, True], ids=["STARTTLS", "TLS"])
def test_a_mail_is_sent_encrypted_and_with_a_login(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run, tls: bool
) -> None:
    server = mail_server(tls=tls, login=("user", "secret"))
    settings(server)
    mail = post.queue(to="jörg@bücher.example")
    outcome = run(*SEND)
    assert outcome.code == 0, outcome.err
    assert outcome.data == [{"sent": 1, "later": 0, "dead": 0}]
    assert server.envelopes == [("privacy@example.org", ["jörg@xn--bcher-kva.example"])]
    (message,) = server.received
    assert message["From"] == "Äpfel & Söhne <privacy@example.org>"
    assert message["Subject"] == "Bitte bestätigen Sie Ihre Anmeldung bei Äpfel & Söhne"
    body = message.get_body(("plain",))
    assert body is not None
    assert "https://www.example.org/registration?token=t0ken" in body.get_content()
    assert post.states() == []
    assert post.sent() == [mail]


def test_nothing_waits(post: Post, mail_server: MakeServer, settings: Settings, run: Run) -> None:
    assert post.states() == []
    settings(mail_server())
    assert run(*SEND).data == [{"sent": 0, "later": 0, "dead": 0}]


def test_a_certificate_that_nobody_vouches_for_is_refused(
    post: Post,
    mail_server: MakeServer,
    settings: Settings,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = mail_server()
    settings(server)
    monkeypatch.delenv("GDPRDB_SMTP_CA")
    mail = post.queue()
    outcome = run(*SEND)
    assert outcome.code == 1
    assert "CERTIFICATE_VERIFY_FAILED" in outcome.err
    assert server.received == []
    assert post.states() == [(mail, "waiting", 0, None)]


def test_a_certificate_for_another_name_is_refused(
    post: Post,
    mail_server: MakeServer,
    settings: Settings,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = mail_server(tls=True)
    settings(server)
    monkeypatch.setenv("GDPRDB_SMTP", server.url.replace("localhost", "127.0.0.1"))
    post.queue()
    outcome = run(*SEND)
    assert outcome.code == 1
    assert "IP address mismatch" in outcome.err
    assert server.received == []


def test_a_server_without_starttls_gets_neither_password_nor_mail(
    post: Post,
    mail_server: MakeServer,
    settings: Settings,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = mail_server(starttls=False)
    settings(server)
    monkeypatch.setenv("GDPRDB_SMTP", server.url.replace("smtp+plain://", "smtp://user@"))
    post.queue()
    outcome = run(*SEND)
    assert outcome.code == 1
    assert "STARTTLS" in outcome.err
    assert server.received == []


def test_a_wrong_password_costs_no_attempt(
    post: Post,
    mail_server: MakeServer,
    settings: Settings,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings(mail_server(login=("user", "secret")))
    monkeypatch.setenv("GDPRDB_SMTP_PASSWORD", "wrong")
    mail = post.queue()
    outcome = run(*SEND)
    assert outcome.code == 1
    assert post.states() == [(mail, "waiting", 0, None)]


def test_a_server_that_is_down_costs_no_attempt(
    post: Post,
    mail_server: MakeServer,
    settings: Settings,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings(mail_server())
    with socket.socket() as nobody:
        nobody.bind(("localhost", 0))
        monkeypatch.setenv("GDPRDB_SMTP", f"smtp://localhost:{nobody.getsockname()[1]}")
        mail = post.queue()
        assert run(*SEND).code == 1
    assert post.states() == [(mail, "waiting", 0, None)]


def test_a_transient_failure_is_tried_again(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    server = mail_server()
    settings(server)
    server.answers = ["451 4.7.1 anna@example.com: come back later"]
    mail = post.queue()
    outcome = run(*SEND)
    assert outcome.code == 0
    assert outcome.data == [{"sent": 0, "later": 1, "dead": 0}]
    assert post.states() == [(mail, "retry", 1, "451 4.7.1 content")]
    assert "anna" not in outcome.err
    post.due()
    assert run(*SEND).data == [{"sent": 1, "later": 0, "dead": 0}]
    assert len(server.received) == 1


def test_a_permanent_failure_is_dead_at_once(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    server = mail_server()
    settings(server)
    server.refuse = {"anna@example.com": "550 5.1.1 <anna@example.com>: no such user"}
    dead, sent = post.queue(), post.queue(to="bela@example.com")
    outcome = run(*SEND)
    assert outcome.code == 3
    assert outcome.data == [{"sent": 1, "later": 0, "dead": 1}]
    assert "anna" not in outcome.err
    assert post.states() == [(dead, "dead", 1, "550 5.1.1 recipient")]
    assert post.sent() == [sent]


def test_a_server_that_hangs_up_is_called_again(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    server = mail_server()
    settings(server)
    server.answers = ["421 4.3.2 shutting down"]
    post.queue()
    sent = post.queue()
    assert run(*SEND).data == [{"sent": 1, "later": 1, "dead": 0}]
    assert post.sent() == [sent]


def test_an_address_in_another_script_needs_a_server_that_knows(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    settings(mail_server(smtputf8=False))
    mail = post.queue(to="用户@example.com")
    assert run(*SEND).code == 3
    assert post.states() == [(mail, "dead", 1, "no internationalised addresses")]


def test_an_address_that_is_two_is_not_sent_to(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    server = mail_server()
    settings(server)
    mail = post.queue(to="anna@example.com\r\nRCPT TO:<all@example.com>")
    assert run(*SEND).code == 3
    assert server.envelopes == []
    assert post.states() == [(mail, "dead", 1, "no address")]


def test_a_template_that_is_broken_can_be_mended(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run, tmp_path: Path
) -> None:
    server = mail_server()
    settings(server)
    mail = post.queue()
    (tmp_path / "registration.de.jinja").write_text("{% extends layout %}{{")
    outcome = run(*SEND, "--templates", str(tmp_path))
    assert outcome.data == [{"sent": 0, "later": 1, "dead": 0}]
    assert post.states() == [(mail, "retry", 1, "template")]
    (tmp_path / "registration.de.jinja").write_text(
        "{% extends layout %}{% block subject %}Neu{% endblock %}"
    )
    post.due()
    assert run(*SEND, "--templates", str(tmp_path)).code == 0
    assert server.received[0]["Subject"] == "Neu"


def test_several_workers_send_each_mail_once(
    post: Post, mail_server: MakeServer, settings: Settings
) -> None:
    server = mail_server()
    settings(server)
    mails = [post.queue(to=f"p{n}@example.com") for n in range(60)]
    with (
        sending("--workers", "3", "--format", "json") as one,
        sending("--workers", "3", "--format", "json") as two,
    ):
        assert one.wait(60) == two.wait(60) == 0
    assert sorted(to for _, (to,) in server.envelopes) == sorted(
        f"p{n}@example.com" for n in range(60)
    )
    assert len({message["Message-ID"] for message in server.received}) == 60
    assert post.sent() == mails


def test_a_worker_that_is_killed_loses_nothing_and_repeats_one_at_most(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    server = mail_server()
    settings(server)
    server.delay = 60
    mails = [post.queue(), post.queue()]
    with sending() as process:
        # the server has the message, the worker does not know yet
        until(lambda: server.received)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert post.sent() == []
    server.delay = 0
    until(lambda: all(state in {"retry", "waiting"} for _, state, _, _ in post.states()))
    post.due()
    fresh = mail_server()
    settings(fresh)
    until(lambda: run(*SEND).data and not post.states())
    assert post.sent() == mails
    repeated = [message["Message-ID"] for message in server.received + fresh.received]
    assert len(repeated) == 3
    assert len(set(repeated)) == 2


def test_following_sends_what_comes(
    post: Post, mail_server: MakeServer, settings: Settings
) -> None:
    server = mail_server()
    settings(server)
    with sending("--follow", "--format", "json") as process:
        listening = "select count(*) from pg_stat_activity where query like 'select extract%'"
        until(lambda: post.db.rows(listening, user="postgres")[0][0])
        start = time.monotonic()
        mail = post.queue()
        until(lambda: server.received)
        # woken, and not found at the next look
        assert time.monotonic() - start < 10
        until(lambda: post.sent() == [mail])
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert '"sent": 1' in out


def test_following_outlives_both_servers(
    post: Post, mail_server: MakeServer, settings: Settings
) -> None:
    server = mail_server()
    settings(server)
    with sending("--follow") as process:
        backends = "from pg_stat_activity where usename = 'mailer'"
        until(lambda: post.db.rows(f"select 1 {backends}", user="postgres"))
        post.db.rows(f"select pg_terminate_backend(pid) {backends}", user="postgres")
        mail = post.queue()
        until(lambda: post.sent() == [mail])
        assert process.poll() is None


def test_the_rate_is_kept_by_all_workers_together(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    settings(mail_server())
    for _ in range(6):
        post.queue()
    start = time.monotonic()
    assert run(*SEND, "--workers", "3", "--rate", "5").data[0]["sent"] == 6
    assert time.monotonic() - start >= 1.0


def test_with_a_key_of_the_session_the_sender_unlocks(
    post: Post,
    mail_server: MakeServer,
    settings: Settings,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # what create_key('session') leaves: the database knows how to check the key, not the key
    settings(mail_server())
    key = os.urandom(32).hex()
    post.db.rows(
        "update gdpr_internal.key_encryption_key set provider = 'session', material = null,"
        " check_value = gdpr_internal.hmac('gdprdb/1/check'::bytea,"
        " gdpr_internal.derive_key(%s), 'sha256')",
        [key],
        user="postgres",
    )
    connection = post.db.connect("postgres")
    connection.execute("select gdpr.unlock(%s)", [key])
    connection.execute(
        "update gdpr_internal.subject_key set wrapped = gdpr_internal.wrap_key("
        " (gdpr_internal.keyring()).kek, gdpr_internal.gen_random_bytes(16),"
        " int8send(subject_id), gdpr_internal.gen_random_bytes(64))"
    )
    connection.execute(
        "select gdpr_internal.queue_mail(1, 'registration', 'en',"
        ' \'{"to": "a@example.com", "token": "t", "confirm_by": "2031-03-31"}\')'
    )
    assert "locked" in run(*SEND).err
    monkeypatch.setenv("GDPRDB_KEY", key)
    post.due()
    assert run(*SEND).data == [{"sent": 1, "later": 0, "dead": 0}]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("GDPRDB_SMTP", "smtp://user:pass@localhost", "holds a password"),
        ("GDPRDB_SMTP", "smtp+plain://user@localhost", "in the clear"),
        ("GDPRDB_SMTP", "localhost:25", "cannot be read"),
        ("GDPRDB_SMTP", "smtp://localhost:port", "cannot be read"),
        ("GDPRDB_MAIL_FROM", "nobody", "no address"),
        ("GDPRDB_MAIL_FROM", "a@example.org\nBcc: b@example.org", "no address"),
        ("GDPRDB_MAIL_LINK", "https://example.org/", "no place for the token"),
    ],
)
def test_settings_that_would_not_work_are_refused_first(
    post: Post,
    mail_server: MakeServer,
    settings: Settings,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    words: str,
) -> None:
    assert post.states() == []
    settings(mail_server())
    monkeypatch.setenv(variable, value)
    outcome = run(*SEND)
    assert outcome.code == 1
    assert words in outcome.err
    assert "pass@" not in outcome.err


def test_threads_end(post: Post, mail_server: MakeServer, settings: Settings, run: Run) -> None:
    settings(mail_server())
    post.queue()
    before = threading.active_count()
    assert run(*SEND, "--workers", "4").code == 0
    assert threading.active_count() == before


def test_a_mail_that_was_altered_keeps_no_other_from_leaving(
    post: Post, mail_server: MakeServer, settings: Settings, run: Run
) -> None:
    server = mail_server()
    settings(server)
    altered, good = post.queue(), post.queue(2, "hugo@example.com")
    post.db.rows(
        "update gdpr_internal.outbox as o set message ="
        " (select message from gdpr_internal.outbox where id = %s) where id = %s",
        [good, altered],
        user="postgres",
    )
    outcome = run(*SEND)
    assert outcome.code == 0, outcome.err
    assert post.sent() == [good]
    assert post.states() == [(altered, "dead", 1, "altered")]
