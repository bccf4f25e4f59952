"""A contender's database: loaded, protected, and ready to be measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import make_conninfo

from bench.contenders import APP, BI, OWNER, Contender, create_application
from gdprdb.server import Cluster


@dataclass(slots=True)
class Site:
    """One contender's database.

    Attributes:
        cluster: the server.
        contender: who lives there.
        database: its name.
        people: how many persons it holds.
        bulk_rows: rows of one bulk insert.
        scan_rows: rows that a scan reads; fewer than `people` where all would take minutes.
        small: it is there only to show whether time grows with the number of people.
        bulks: bulk inserts done so far.
        persons: ids of persons who have rows in all tables, each once, in scattered order.
    """

    cluster: Cluster
    contender: Contender
    database: str
    people: int
    bulk_rows: int
    scan_rows: int
    small: bool = False
    bulks: int = 0
    persons: Iterator[int] = field(init=False)
    _sessions: dict[str, psycopg.Connection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tenth = self.people // 10
        # 7919 is prime and no factor of tenth, so these steps visit all of them
        self.persons = iter(10 * (1 + step * 7919 % tenth) for step in range(tenth))

    def load(self) -> None:
        """Make the application in the empty database, and protect it."""
        with psycopg.connect(self.cluster.dsn(self.database, OWNER), autocommit=True) as owner:
            with owner.transaction():
                create_application(owner, self.people, self.bulk_rows)
            owner.execute("vacuum analyze")
            self.contender.protect(owner)
            # protection in place rewrites rows; all contenders start compact
            owner.execute("vacuum (full, analyze)")

    def dsn(self, user: str) -> str:
        """The connection string of a login, with the session settings of an application."""
        settings = self.contender.settings if user in (APP, BI) else {}
        options = " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())
        return make_conninfo(self.cluster.dsn(self.database, user), options=options)

    def session(self, user: str) -> psycopg.Connection:
        """The one long session that a login has here, so that its backend can be measured."""
        if user not in self._sessions:
            self._sessions[user] = psycopg.connect(self.dsn(user), autocommit=True)
        return self._sessions[user]

    def close(self) -> None:
        """End the sessions."""
        for connection in self._sessions.values():
            connection.close()
        self._sessions.clear()


def _escaped(value: str) -> str:
    """Escape a value for libpq's ``options``, which are split at blanks."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
