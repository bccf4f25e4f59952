"""Where the story plays: a private server, the database on it, and who connects how."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gdprdb import migrate
from gdprdb.demo import crm
from gdprdb.demo.mailbox import Mailbox
from gdprdb.demo.scenes.cast import OWNER
from gdprdb.demo.story import DemoError

if TYPE_CHECKING:
    from datetime import date
    from email.message import EmailMessage

    from gdprdb.demo.story import Actor
    from gdprdb.server import Cluster

SENDER = "Bicycle Shop <privacy@shop.example>"
LINK = "https://shop.example/{page}?token={token}"


@dataclass(slots=True)
class Stage:
    """One server with the CRM on it, and one for its mails.

    Attributes:
        cluster: the server.
        mailbox: where its mails arrive.
        desk: where commands leave files; gone with the stage.
        key: the key-encryption key, once there is one. It is nowhere in the database.
    """

    cluster: Cluster
    mailbox: Mailbox = field(default_factory=Mailbox)
    desk: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory)
    key: str = field(default="", repr=False)

    def open(self) -> None:
        """Start the server, and make the logins and an empty database."""
        self.cluster.start()
        with psycopg.connect(self.cluster.dsn(), autocommit=True) as superuser:
            crm.create_logins(superuser, database=OWNER.database)

    def fill(self, rows: int, today: date) -> crm.Size:
        """Build the CRM as its owner: ``rows`` customers, and all that is theirs."""
        with self.connect(OWNER) as owner:
            return crm.create_crm(owner, rows=rows, today=today)

    def install(self) -> None:
        """Install gdprdb as the owner of the database, and make a key that stays outside of it."""
        migrate.init(self.cluster.dsn(OWNER.database, OWNER.login))
        with self.connect(OWNER) as owner:
            owner.execute("grant gdpr_dpo to dpo, deputy")
            owner.execute("grant gdpr_auditor to auditor")
            owner.execute("grant gdpr_portal to website")
            row = owner.execute("select gdpr.create_key('session')").fetchone()
        assert row is not None
        self.key = row[0]

    def conninfo(self, actor: Actor) -> str:
        """The connection string of somebody of the story."""
        search_path = actor.search_path.replace(" ", "")
        return make_conninfo(
            self.cluster.dsn(actor.database, actor.login), options=f"-c search_path={search_path}"
        )

    def connect(self, actor: Actor) -> psycopg.Connection[Any]:
        """Connect as somebody of the story; who works with plaintext brings the key along."""
        connection = psycopg.connect(
            self.conninfo(actor), application_name=f"demo/{actor.login}", autocommit=True
        )
        if actor.unlocks and self.key:
            connection.execute("select gdpr.unlock(%s)", [self.key])
        return connection

    def run(self, actor: Actor, command: str, code: int = 0) -> tuple[str, list[EmailMessage]]:
        """Run a command line of gdprdb, or of one of PostgreSQL's programs.

        Args:
            actor: as whom.
            command: the command line; it may end in ``> file``.
            code: the exit code to expect.

        Returns:
            What it printed, or else what it said, and the mails that have arrived since.

        Raises:
            DemoError: it ended with another code.
        """
        conninfo = self.conninfo(actor)
        environment = {
            **{f"PG{name.upper()}": value for name, value in self._libpq(conninfo).items()},
            "GDPRDB_DSN": conninfo,
            "GDPRDB_KEY": self.key if actor.unlocks else "",
            "GDPRDB_SMTP": self.mailbox.url,
            "GDPRDB_MAIL_FROM": SENDER,
            "GDPRDB_MAIL_LINK": LINK,
        }
        line, _, target = command.partition(" > ")
        program, *arguments = shlex.split(line)
        path = (
            [sys.executable, "-m", "gdprdb"]
            if program == "gdprdb"
            else [str(self.cluster.binaries.program(program))]
        )
        done = subprocess.run(
            [*path, *arguments],
            env=os.environ | environment,
            cwd=self.desk.name,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != code:
            raise DemoError(f"{command}: exit code {done.returncode}: {done.stderr.strip()}")
        if target:
            Path(self.desk.name, target).write_text(done.stdout, encoding="utf-8")
            return "", self.mailbox.empty()
        return (done.stdout or done.stderr).strip(), self.mailbox.empty()

    @staticmethod
    def _libpq(conninfo: str) -> dict[str, str]:
        """The variables by which PostgreSQL's own programs find the database."""
        given = conninfo_to_dict(conninfo)
        names = {"host": "host", "port": "port", "user": "user", "dbname": "database"}
        return {short: str(given[name]) for name, short in names.items() if name in given}

    def close(self) -> None:
        """Close the mailbox, and clear the desk."""
        self.mailbox.close()
        self.desk.cleanup()
