"""A mail server to send to, and a database with mails that wait.

mail_server
    Starts servers, gone after the test: ``mail_server(tls=True, login=("user", "secret"))``.
    See `MailServer`.
post
    The customer database, with mailer as the role that sends mails. See `Post`.
"""

from __future__ import annotations

import asyncio
import datetime
import email
import email.policy
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.capabilities.crm import POLICY, ROWS, TABLES, apply, policy
from tests.support import Clone, Database


@dataclass
class MailServer:
    """A mail server of the test's own.

    Attributes:
        url: its address, as gdprdb takes it.
        ca: the certificate to trust.
        answers: what it says to the next messages instead of accepting them; then it accepts.
        refuse: recipients that it refuses, with the answer.
        delay: seconds that it takes over a message.
        received: the messages it has accepted, as they came.
        envelopes: their senders and recipients.
    """

    url: str = ""
    ca: str = ""
    answers: list[str] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    received: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str | None, list[str]]] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or refuse it."""
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a message, or refuse it."""
        if self.answers:
            return self.answers.pop(0)
        content = envelope.content
        assert isinstance(content, bytes)
        self.received.append(email.message_from_bytes(content, policy=email.policy.default))
        self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        # accepted, and not yet answered: who is killed now does not know that it was
        await asyncio.sleep(self.delay)
        return "250 OK"


MakeServer = Callable[..., MailServer]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of a certificate for localhost, signed by itself, and of its key."""
    place = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (place / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (place / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(place / "cert.pem"), str(place / "key.pem")


@pytest.fixture
def mail_server(certificate: tuple[str, str]) -> Iterator[MakeServer]:
    """Starts mail servers."""
    running: list[Controller] = []

    def start(
        *,
        tls: bool = False,
        starttls: bool = True,
        login: tuple[str, str] | None = None,
        smtputf8: bool = True,
    ) -> MailServer:
        server = MailServer(ca=certificate[0])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)

        def check(_: Any, __: Any, ___: Any, ____: str, data: Any) -> AuthResult:
            assert isinstance(data, LoginPassword)
            given = (data.login.decode(), data.password.decode())
            return AuthResult(success=given == login, handled=False)

        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        controller = Controller(
            server,
            hostname="localhost",
            port=port,
            enable_SMTPUTF8=smtputf8,
            ssl_context=context if tls else None,
            tls_context=context if starttls and not tls else None,
            require_starttls=starttls and not tls,
            authenticator=check if login else None,
            auth_required=login is not None,
            auth_require_tls=not tls,
        )
        controller.start()
        running.append(controller)
        scheme = "smtps" if tls else "smtp" if starttls else "smtp+plain"
        user = f"{login[0]}@" if login else ""
        server.url = f"{scheme}://{user}localhost:{port}"
        return server

    yield start
    for controller in running:
        controller.stop(no_assert=True)


@dataclass
class Post:
    """The customer database as the outbox sees it.

    Attributes:
        db: the database.
    """

    db: Database

    def queue(self, subject: int = 1, to: str = "anna@example.com", language: str = "de") -> int:
        """Queue a mail that asks for confirmation; its number."""
        content = {"to": to, "token": "t0ken", "confirm_by": "2031-03-31T12:00:00+02:00"}
        ((mail,),) = self.db.rows(
            "select gdpr_internal.queue_mail(%s, 'registration', %s, %s)",
            [subject, language, json.dumps(content)],
            user="postgres",
        )
        return int(mail)

    def due(self) -> None:
        """Let every mail that waits be due now."""
        self.db.rows("update gdpr_internal.outbox set due_at = now()", user="postgres")

    def states(self) -> list[tuple[int, str, int, str | None]]:
        """Number, state, attempts and failure of the mails that wait."""
        return [
            (mail, state, attempts, failure)
            for mail, state, attempts, failure in self.db.rows(
                "select mail_id, state, attempts, failure from gdpr.outbox order by mail_id"
            )
        ]

    def sent(self) -> list[int]:
        """The numbers of the mails that were sent."""
        return [
            row[0]
            for row in self.db.rows(
                "select mail_id from gdpr.mail_log where event = 'sent' order by mail_id"
            )
        ]


@pytest.fixture(scope="session")
def post_template(clone: Clone, installed_template: str) -> Iterator[str]:
    """Name of a database with customers and a role that sends mails."""
    with clone(installed_template) as database:
        connection = database.connect()
        connection.execute(TABLES)
        connection.execute(ROWS)
        apply(database, POLICY)
        apply(database, policy(roles__mailer={"audience": "mail"}))
        database.close()
        yield database.name


@pytest.fixture
def post(clone: Clone, post_template: str) -> Iterator[Post]:
    """A copy of it."""
    with clone(post_template) as database:
        yield Post(database)


@pytest.fixture
def settings(post: Post, monkeypatch: pytest.MonkeyPatch) -> Callable[[MailServer], dict[str, str]]:
    """Points the command line at a mail server; the variables of the environment it set."""

    def use(server: MailServer) -> dict[str, str]:
        variables = {
            "GDPRDB_DSN": post.db.dsn("mailer"),
            "GDPRDB_SMTP": server.url,
            "GDPRDB_SMTP_CA": server.ca,
            "GDPRDB_SMTP_PASSWORD": "secret",
            "GDPRDB_MAIL_FROM": "Äpfel & Söhne <privacy@example.org>",
            "GDPRDB_MAIL_LINK": "https://www.example.org/{page}?token={token}",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return variables

    return use
