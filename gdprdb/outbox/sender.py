"""Workers that empty the outbox.

Each has a connection to the database and one to the mail server. An attempt is two
transactions, as ``sql/60_subject_rights/50_outbox.sql`` explains: the first counts it and
sets the time of the next, the second holds the mail's row until the mail is sent and that
is recorded. A worker that dies in between loses nothing; the mail comes back at the time
that was set, with the same Message-ID.
"""

from __future__ import annotations

import io
import random
import select
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import psycopg

from gdprdb.access import archive
from gdprdb.access.document import Report
from gdprdb.dsn import one
from gdprdb.outbox.compose import AddressError, Composer, Mail, TemplateError, parse_address
from gdprdb.outbox.smtp import Connection, Failure, Server

#: Seconds between two looks when nobody calls: a notification may be lost with its connection.
_LOOK = 30.0

#: Seconds between two looks at whether the worker has to stop.
_BEAT = 0.5

#: Seconds to wait for a server that cannot be reached: the first time, and at the most.
_PATIENCE = (1.0, 300.0)


#: Templates of mails that carry a report.
_REPORTS = {"rights_report", "rights_copy"}


class Pace:
    """Lets through so many a second at the most, all workers together.

    Args:
        rate: how many; None for as many as come.
    """

    def __init__(self, rate: float | None) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Wait for one's turn, or until `stop` is set."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap
        stop.wait(turn - time.monotonic())


@dataclass
class Sender:
    """What the workers share.

    Attributes:
        connect: opens a connection to the database, unlocked where that is needed.
        server: the mail server.
        composer: makes the messages.
        pace: how fast.
        follow: go on when the outbox is empty.
        say: tells people, in a line.
        stop: set, it makes every worker finish its mail and leave.
        tally: what became of attempts: ``sent``, ``later``, ``dead``.
    """

    connect: Callable[[], AbstractContextManager[psycopg.Connection]]
    server: Server
    composer: Composer
    pace: Pace
    follow: bool
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    tally: Counter[str] = field(default_factory=Counter)

    def run(self, workers: int) -> None:
        """Send with so many workers until the outbox is empty, or `stop` is set.

        Raises:
            OSError, psycopg.Error: a server cannot be reached; only without `follow`.
        """
        failures: list[Exception] = []

        def work() -> None:
            try:
                self._persist()
            except Exception as error:
                failures.append(error)
                self.stop.set()

        threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            # a join without end would keep a signal from being handled
            while thread.is_alive():
                thread.join(_BEAT)
        if failures:
            raise failures[0]

    def _persist(self) -> None:
        """Work; with `follow`, come back after a failure of either server."""
        patience, longest = _PATIENCE
        while not self.stop.is_set():
            try:
                with self.connect() as connection:
                    connection.commit()
                    connection.autocommit = True
                    self._work(connection)
            except (psycopg.OperationalError, OSError) as error:
                if not self.follow:
                    raise
                self.say(f"{_what(error)}; trying again in {patience:.0f} s")
                self.stop.wait(patience * random.uniform(0.75, 1.25))
                patience = min(patience * 2, longest)
            else:
                return

    def _work(self, connection: psycopg.Connection) -> None:
        calls: list[psycopg.Notify] = []
        connection.add_notify_handler(calls.append)
        connection.execute("listen gdpr_outbox")
        smtp = Connection(self.server)
        try:
            while not self.stop.is_set():
                calls.clear()
                (wait,) = one(
                    connection,
                    "select extract(epoch from gdpr.next_mail_at() - statement_timestamp())::float",
                )
                if wait is not None and wait <= 0:
                    # first the server: a mail should not pay for one that is down
                    smtp.ready()
                    self._attempt(connection, smtp)
                elif not self.follow:
                    return
                else:
                    smtp.close()
                    self._sleep(connection, calls, min(_LOOK, wait or _LOOK))
        finally:
            smtp.close()

    def _attempt(self, connection: psycopg.Connection, smtp: Connection) -> None:
        self.pace.wait(self.stop)
        if self.stop.is_set():
            return
        (number,) = one(connection, "select gdpr.next_mail()")
        if number is None:
            return
        with connection.transaction():
            mail = _open(connection, number)
            if mail is None:
                return
            failure = self._deliver(mail, smtp)
            if failure is None:
                connection.execute("select gdpr.mail_sent(%s)", [number])
            else:
                connection.execute(
                    "select gdpr.mail_failed(%s, %s, %s)",
                    [number, failure.permanent, failure.reason],
                )
        if failure is None:
            self.tally["sent"] += 1
        else:
            self.tally["dead" if failure.permanent else "later"] += 1
            self.say(f"mail {number}: {failure.reason}")

    def _deliver(self, mail: Mail, smtp: Connection) -> Failure | None:
        try:
            message = self.composer.compose(mail)
        except AddressError as error:
            return Failure(True, str(error))
        except TemplateError as error:
            # mending the template should be enough
            self.say(str(error))
            return Failure(False, "template")
        recipient = parse_address(str(mail.content["to"])).addr_spec
        return smtp.send(message, self.composer.sender.addr_spec, recipient)

    def _sleep(
        self, connection: psycopg.Connection, calls: list[psycopg.Notify], seconds: float
    ) -> None:
        end = time.monotonic() + seconds
        while not calls and not self.stop.is_set() and (left := end - time.monotonic()) > 0:
            if select.select([connection], [], [], min(_BEAT, left))[0]:
                # reading an answer reads the notifications before it
                connection.execute("select 1")


def _open(connection: psycopg.Connection, number: int) -> Mail | None:
    """The mail, locked; None when it was dropped meanwhile."""
    try:
        with connection.transaction():
            template, language, content, ref, queued_at = one(
                connection, "select * from gdpr.open_mail(%s)", [number]
            )
    except psycopg.Error as error:
        if error.sqlstate == "PR606":
            return None
        if error.sqlstate != "PR404":
            raise
        # one that was altered must not keep the others from leaving
        connection.execute("select gdpr.mail_failed(%s, true, 'altered')", [number])
        return None
    if content is None:
        connection.execute("select gdpr.mail_failed(%s, true, 'key destroyed')", [number])
        return None
    if template not in _REPORTS:
        return Mail(template, language, content, ref, queued_at)
    try:
        with connection.transaction():
            packed = _archive(connection, number, language, str(content["passphrase"]))
    except psycopg.Error as error:
        if error.sqlstate != "PR620":
            raise
        connection.execute("select gdpr.mail_failed(%s, true, 'too large')", [number])
        return None
    return Mail(template, language, content, ref, queued_at, packed)


def _archive(
    connection: psycopg.Connection, number: int, language: str | None, passphrase: str
) -> bytes:
    """The encrypted report that a mail carries: made now, in memory, and nowhere else."""
    (text,) = one(connection, "select gdpr.mail_report(%s)::text", [number])
    packed = io.BytesIO()
    archive.write(packed, Report(text), language=language, passphrase=passphrase)
    return packed.getvalue()


def _what(error: Exception) -> str:
    """A failure of a server in a line; of the mail server only its codes, not its words."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the mail server answered {error.smtp_code}"
    if isinstance(error, psycopg.Error):
        return str(error).strip().splitlines()[0] if str(error).strip() else "database lost"
    return f"the mail server cannot be used: {type(error).__name__}: {error}"
