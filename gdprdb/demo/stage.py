"""Where the story plays: a private server, the database on it, and who connects how."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo

from gdprdb import migrate
from gdprdb.demo import crm
from gdprdb.demo.mailbox import Mailbox
from gdprdb.demo.scenes.cast import OWNER, POSTMAN
from gdprdb.demo.story import DemoError

if TYPE_CHECKING:
    from datetime import date
    from email.message import EmailMessage

    from gdprdb.demo.story import Actor
    from gdprdb.server import Cluster

DATABASE = "crm"
SENDER = "Bicycle Shop <privacy@shop.example>"
LINK = "https://shop.example/{page}?token={token}"


@dataclass(slots=True)
class Stage:
    """One server with the CRM on it, and one for its mails.

    Attributes:
        cluster: the server.
        mailbox: where its mails arrive.
        key: the key-encryption key, once there is one. It is nowhere in the database.
    """

    cluster: Cluster
    mailbox: Mailbox = field(default_factory=Mailbox)
    key: str = field(default="", repr=False)

    def open(self) -> None:
        """Start the server, and make the logins and an empty database."""
        self.cluster.start()
        with psycopg.connect(self.cluster.dsn(), autocommit=True) as superuser:
            crm.create_logins(superuser, database=DATABASE)

    def fill(self, rows: int, today: date) -> crm.Size:
        """Build the CRM as its owner: ``rows`` customers, and all that is theirs."""
        with self.connect(OWNER) as owner:
            return crm.create_crm(owner, rows=rows, today=today)

    def install(self) -> None:
        """Install gdprdb as the owner of the database, and make a key that stays outside of it."""
        migrate.init(self.cluster.dsn(DATABASE, OWNER.login))
        with self.connect(OWNER) as owner:
            owner.execute("grant gdpr_dpo to dpo")
            owner.execute("grant gdpr_auditor to auditor")
            owner.execute("grant gdpr_portal to website")
            row = owner.execute("select gdpr.create_key('session')").fetchone()
        assert row is not None
        self.key = row[0]

    def conninfo(self, actor: Actor) -> str:
        """The connection string of somebody of the story."""
        search_path = actor.search_path.replace(" ", "")
        return make_conninfo(
            self.cluster.dsn(DATABASE, actor.login), options=f"-c search_path={search_path}"
        )

    def connect(self, actor: Actor) -> psycopg.Connection[Any]:
        """Connect as somebody of the story; who works with plaintext brings the key along."""
        connection = psycopg.connect(
            self.conninfo(actor), application_name=f"demo/{actor.login}", autocommit=True
        )
        if actor.unlocks and self.key:
            connection.execute("select gdpr.unlock(%s)", [self.key])
        return connection

    def send(self, command: str) -> tuple[str, list[EmailMessage]]:
        """Run a command of gdprdb as the sender of mails.

        Args:
            command: the command line.

        Returns:
            What it printed, and the mails that arrived.

        Raises:
            DemoError: it failed.
        """
        environment = {
            "GDPRDB_DSN": self.conninfo(POSTMAN),
            "GDPRDB_KEY": self.key,
            "GDPRDB_SMTP": self.mailbox.url,
            "GDPRDB_MAIL_FROM": SENDER,
            "GDPRDB_MAIL_LINK": LINK,
        }
        _, *arguments = command.split()
        done = subprocess.run(
            [sys.executable, "-m", "gdprdb", *arguments],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DemoError(f"{command}: {done.stderr.strip()}")
        return done.stdout.strip(), self.mailbox.empty()

    def close(self) -> None:
        """Close the mailbox."""
        self.mailbox.close()
