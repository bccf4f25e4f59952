"""Helpers of the tests: a database as a test sees it, and servers with the usual logins."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from gdprdb.server import Cluster

#: Owns every database and its tables.
OWNER = "db_owner"

#: Logins that hold nothing until a policy or a group gives it to them.
LOGINS = ("crm_app", "metabase", "portal_app", "mailer", "dpo_login", "auditor_login")

#: Settings of the servers. Tests ask once and leave: compiling a query, loading a library in
#: every process, or vacuuming behind them takes longer than what it is for.
SETTINGS = {
    "max_connections": "50",
    "max_prepared_transactions": "4",
    "jit_above_cost": "-1",
    "autovacuum": "off",
    "shared_preload_libraries": "plpgsql, pgcrypto",
}

#: Whether the superuser installs gdprdb, and not `OWNER`.
AS_SUPERUSER = os.environ.get("GDPRDB_TEST_SUPERUSER") == "1"

#: Who installs gdprdb.
INSTALLER = "postgres" if AS_SUPERUSER else OWNER


@dataclass
class Database:
    """One database of a test.

    Attributes:
        cluster: the server it is on.
        name: its name.
    """

    cluster: Cluster
    name: str
    _connections: ExitStack = field(default_factory=ExitStack)

    def dsn(self, user: str = OWNER) -> str:
        """The connection string for a login."""
        return self.cluster.dsn(self.name, user)

    def connect(
        self, user: str = OWNER, *, autocommit: bool = True, **parameters: Any
    ) -> psycopg.Connection:
        """A new connection, closed when the test ends.

        Args:
            user: the login.
            autocommit: with False, statements are one transaction until commit.
            parameters: more libpq parameters, as ``options="-c ..."``.
        """
        connection = psycopg.connect(self.dsn(user), autocommit=autocommit, **parameters)
        return self._connections.enter_context(connection)

    def rows(
        self,
        statement: str,
        parameters: Sequence[object] | Mapping[str, object] | None = None,
        *,
        user: str = OWNER,
    ) -> list[tuple[Any, ...]]:
        """Run one statement and fetch what it returns, if anything.

        In a session as good as new: of what an earlier statement of the same login set, held or
        made for its session, nothing is left. A setting of an extension's is empty then, not
        unknown, as it is after `set local`.
        """
        with self.session(user) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            found = cursor.fetchall() if cursor.description else []
        if _FOR_LATER_SESSIONS.search(statement):
            _end_sessions()
        return found

    def session(self, user: str = OWNER) -> AbstractContextManager[psycopg.Connection]:
        """A session as good as new, in autocommit mode, to be left idle: others go on with it."""
        return _session(self.dsn(user))

    def close(self) -> None:
        """Close the connections that `connect` and `rows` opened."""
        self._connections.close()
        _end_sessions(f"dbname={self.name} ")


#: Sessions that wait for their next statement, by their connection strings, for any thread. What a
#: server process has read of the catalogs, and compiled, is most of what a first statement costs.
_WAITING: dict[str, list[psycopg.Connection]] = {}

#: Makes a session as good as new, but for what it knows of the catalogs.
_CLEAR = (
    "reset all; reset session authorization; reset role; deallocate all; close all; unlisten *;"
    " select pg_advisory_unlock_all(); discard sequences; discard temp"
)

#: What holds for those sessions only that begin afterwards.
_FOR_LATER_SESSIONS = re.compile(r"(?i)\balter\s+(role|user|database|system)\b")


@contextmanager
def _session(dsn: str) -> Iterator[psycopg.Connection]:
    """A session for one statement: one that waits, or a new one."""
    connection = _waiting(dsn) or psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
    try:
        yield connection
    finally:
        try:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                raise psycopg.InterfaceError("left in a transaction, or gone")
            connection.execute(_CLEAR)
            _WAITING.setdefault(dsn, []).append(connection)
        except psycopg.Error:
            connection.close()


def _waiting(dsn: str) -> psycopg.Connection | None:
    """A session that waits, if there is one."""
    with suppress(KeyError, IndexError):
        while found := _WAITING[dsn].pop():
            # what a server says unasked is that it is gone
            if not select.select([found], [], [], 0)[0]:
                return found
            found.close()
    return None


def _end_sessions(part: str = "") -> None:
    """Close the sessions that wait whose connection string has this part."""
    for dsn in list(_WAITING):
        if part in f"{dsn} ":
            for connection in _WAITING.pop(dsn, []):
                connection.close()


#: Makes a database as a copy of a template, for the length of a block.
Clone = Callable[..., AbstractContextManager[Database]]

#: The same of a template that a function prepares first, once for a module of tests.
Prepared = Callable[[str, Callable[[Database], object]], AbstractContextManager[Database]]


@contextmanager
def serve(**settings: str) -> Iterator[Cluster]:
    """A server with the usual logins.

    Args:
        settings: settings of the server.
    """
    with Cluster(durable=False, settings={**SETTINGS, **settings}) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for login in (OWNER, *LOGINS):
                connection.execute(sql.SQL("create role {} login").format(sql.Identifier(login)))
            if not AS_SUPERUSER:
                connection.execute(f"alter role {OWNER} createrole")
        yield server
        _end_sessions()


@contextmanager
def cloning(cluster: Cluster) -> Iterator[Clone]:
    """What makes databases on a server, each gone at the end of its block.

    Args:
        cluster: the server.
    """
    numbers = itertools.count(1)
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:

        @contextmanager
        def clone(template: str = "template0") -> Iterator[Database]:
            name = f"test_{next(numbers)}"
            _end_sessions(f"dbname={template} ")
            # copied as files: on a server that need not survive a crash, four times as fast
            admin.execute(
                f"create database {name} template {template} owner {OWNER}"
                " strategy file_copy".encode()
            )
            database = Database(cluster, name)
            try:
                yield database
            finally:
                database.close()
                admin.execute(f"drop database {name} with (force)".encode())

        yield clone


def waiting(
    connection: psycopg.Connection, run: Callable[[], object]
) -> Callable[[], BaseException | None]:
    """Run something that has to wait for another session, until it does wait.

    Returns:
        A function that waits for its end and gives the error it ended with, or None.
    """
    errors: list[BaseException] = []

    def body() -> None:
        try:
            run()
        except psycopg.Error as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    with psycopg.connect(connection.info.dsn, user="postgres", autocommit=True) as watcher:
        for _ in range(200):
            waits = watcher.execute(
                "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'",
                [connection.info.backend_pid],
            ).fetchone()
            if waits is not None or not thread.is_alive():
                break
            time.sleep(0.01)

    def end() -> BaseException | None:
        thread.join(10)
        assert not thread.is_alive()
        return errors[0] if errors else None

    return end


def unbind(cluster: Cluster, login: str) -> None:
    """Take a login out of the groups of audiences: memberships outlive the database of a test.

    Args:
        cluster: the server.
        login: a login that a policy bound.
    """
    with psycopg.connect(cluster.dsn()) as connection:
        connection.execute("set role gdpr_owner")
        for group in ("gdpr_export", "gdpr_api", "gdpr_integration"):
            connection.execute(f"revoke {group} from {login}".encode())


def assess(database: Database, purpose: str) -> int:
    """Have the legitimate interests of a purpose assessed, and approved by somebody else.

    Args:
        database: a database under a policy that declares the purpose.
        purpose: its name.

    Returns:
        The number of the assessment, in force until the end of 2099.
    """
    ((number,),) = database.rows(
        "select gdpr.record_assessment(%s, 'knowing the customers', 'no milder means',"
        " 'nobody is surprised', '2099-12-31')",
        [purpose],
    )
    database.rows("select gdpr.approve_assessment(%s)", [number], user="dpo_login")
    return int(number)


def catalog(database: Database) -> str:
    """The schema of a database as pg_dump writes it, without what differs between any two runs."""
    programs = database.cluster.binaries
    done = subprocess.run(
        [
            programs.program("pg_dump"),
            "--schema-only",
            "--exclude-schema=gdpr_evidence_*",
            "--exclude-table=gdpr_internal.schema_version",
            database.dsn("postgres"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    # is_home() holds numbers of the database itself
    own = re.sub(r"(?s)(FUNCTION gdpr_generated\.is_home\(\)).*?\bEND;", r"\1", done.stdout)
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", own)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Standard output, read as JSON."""
        return json.loads(self.out)


Run = Callable[..., Outcome]
