"""The mail server: how it is reached, and what its answers mean."""

from __future__ import annotations

import re
import smtplib
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from gdprdb.errors import GdprdbError

#: Scheme of the server's address: its usual port, and how the connection is protected.
_SCHEMES = {"smtp": (587, "starttls"), "smtps": (465, "tls"), "smtp+plain": (25, "none")}

#: Seconds after which an idle connection is asked whether it is still there.
_IDLE = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    """A mail server.

    Attributes:
        host: its name, which its certificate has to bear.
        port: where it listens.
        security: ``starttls``, ``tls`` or ``none``.
        user: the login, or None.
        password: of the login.
        ca: a file of certificates to trust instead of the system's.
        timeout: seconds that one answer may take.
    """

    host: str
    port: int
    security: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str | None = None
    timeout: float = 60.0

    @classmethod
    def parse(cls, url: str, *, password: str | None = None, ca: str | None = None) -> Server:
        """The server that an address means.

        Args:
            url: ``smtp://user@host:587`` (STARTTLS, required), ``smtps://user@host:465``
                (TLS from the start) or ``smtp+plain://host:25`` (neither, for a relay on
                the same machine).
            password: of the user.
            ca: a file of certificates to trust.

        Raises:
            GdprdbError: it cannot be understood, or would send a password in the clear.
        """
        hint = "Write it as smtp://user@mail.example.org:587 or smtps://user@mail.example.org."
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise GdprdbError("the address of the mail server cannot be read", hint=hint) from None
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.path.strip("/"):
            raise GdprdbError("the address of the mail server cannot be read", hint=hint)
        if parts.password is not None:
            raise GdprdbError(
                "the address of the mail server holds a password",
                hint="Give it in GDPRDB_SMTP_PASSWORD: addresses are shown and logged.",
            )
        usual, security = _SCHEMES[parts.scheme]
        if parts.username and security == "none":
            raise GdprdbError(
                "a password would be sent in the clear", hint="Use smtp:// or smtps:// to log in."
            )
        if parts.username and password is None:
            raise GdprdbError(
                "the password of the mail server is missing",
                hint="Give it in GDPRDB_SMTP_PASSWORD.",
            )
        user = unquote(parts.username) if parts.username else None
        return cls(parts.hostname, port or usual, security, user, password if user else None, ca)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a mail was not sent.

    Attributes:
        permanent: trying again is of no use.
        reason: codes and words of ours; never what the server wrote, which may hold addresses.
    """

    permanent: bool
    reason: str


class Connection:
    """A connection to a mail server, made when needed and made anew when it was lost.

    Args:
        server: where.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._smtp: smtplib.SMTP | None = None
        self._used = 0.0

    def ready(self) -> None:
        """Be connected and logged in.

        Raises:
            OSError: the server cannot be reached, trusted or logged in to;
                `smtplib.SMTPException` and `ssl.SSLError` are among them.
        """
        if self._smtp is not None and time.monotonic() - self._used > _IDLE:
            try:
                alive = self._smtp.noop()[0] == 250
            except OSError:
                alive = False
            if not alive:
                self.close()
        if self._smtp is None:
            self._smtp = self._connect()
        self._used = time.monotonic()

    def send(self, message: EmailMessage, sender: str, recipient: str) -> Failure | None:
        """Send a message to one recipient; what kept it from being sent, if anything did.

        Args:
            message: what.
            sender: the envelope's sender.
            recipient: the envelope's recipient.
        """
        if self._smtp is None:
            raise RuntimeError("not connected")
        try:
            self._smtp.send_message(message, sender, [recipient])
        except smtplib.SMTPRecipientsRefused as error:
            return self._failure(*next(iter(error.recipients.values())), "recipient")
        except smtplib.SMTPDataError as error:
            return self._failure(error.smtp_code, error.smtp_error, "content")
        except smtplib.SMTPNotSupportedError:
            return Failure(True, "no internationalised addresses")
        except smtplib.SMTPResponseException as error:
            # the sender or the login is refused: that is not this mail's fault
            self.close()
            return Failure(False, _reason(error.smtp_code, error.smtp_error, "sender"))
        except (smtplib.SMTPException, OSError):
            self.close()
            return Failure(False, "connection lost")
        self._used = time.monotonic()
        return None

    def close(self) -> None:
        """Take leave."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            with suppress(OSError):
                smtp.quit()

    def _failure(self, code: int, text: bytes | str, what: str) -> Failure:
        if code == 421:
            self.close()
        return Failure(500 <= code < 600, _reason(code, text, what))

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        trust = ssl.create_default_context(cafile=server.ca)
        smtp: smtplib.SMTP
        if server.security == "tls":
            smtp = smtplib.SMTP_SSL(server.host, server.port, timeout=server.timeout, context=trust)
        else:
            smtp = smtplib.SMTP(server.host, server.port, timeout=server.timeout)
        try:
            if server.security == "starttls":
                smtp.starttls(context=trust)
            if server.user is not None:
                smtp.login(server.user, server.password or "")
        except BaseException:
            smtp.close()
            raise
        return smtp


def _reason(code: int, text: bytes | str, what: str) -> str:
    """The codes of an answer: ``550 5.1.1 recipient``."""
    words = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", words)
    return " ".join(filter(None, [str(code), enhanced and enhanced[0], what]))
