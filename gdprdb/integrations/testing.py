"""What the pytest plugin works with: a private server, its clock, and databases under a policy.

The server's clock can be moved, so that a test sees a deadline pass: libfaketime stands between
PostgreSQL and the system's clock. It is the server's clock alone; Python's stays as it is.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from gdprdb import migrate
from gdprdb import policy as policies
from gdprdb.errors import GdprdbError
from gdprdb.server import PORT, Cluster

#: The login that owns the tables, as a team's own would.
OWNER = "gdpr_test_owner"

_SELECT = sql.SQL("select {} from {} as t where {}")
_REF = sql.SQL("t.gdpr_subject_ref")

_LIBRARIES = ("/usr/lib/*/faketime", "/usr/lib*/faketime", "/usr/local/lib/faketime")


class Clock:
    """The clock of a server.

    Args:
        directory: a directory that the server can read.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._library = _find_library()
        self.offset = timedelta()
        if self._library is not None:
            shutil.copy(self._library, directory / "faketime")
            self._set(self.offset)

    def environment(self) -> dict[str, str]:
        """What makes a server look at this clock; nothing where there is no library for it."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._file.with_name("faketime")),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_RESET": "1",
            # what waits for so many milliseconds goes on to
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    @contextmanager
    def at(self, when: datetime | timedelta) -> Iterator[None]:
        """The server's time in the block: it goes on from there, and is as before at the end.

        Args:
            when: an instant, in UTC unless it says otherwise, or how far from now.

        Raises:
            GdprdbError: there is no libfaketime on this machine.
        """
        if self._library is None:
            raise GdprdbError(
                "the clock of the server cannot be moved without libfaketime",
                hint="pip install 'gdprdb[testing]', or install the system's package libfaketime.",
            )
        if isinstance(when, datetime):
            when = (when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)
        before = self.offset
        self._set(when)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, offset: timedelta) -> None:
        self.offset = offset
        self._file.write_text(f"{offset.total_seconds():+.6f}\n")
        self._file.chmod(0o644)


@dataclass
class Database:
    """A database of one test, with the application's tables under their policy.

    Attributes:
        cluster: the server.
        clock: the server's clock.
        name: the database's name.
    """

    cluster: Cluster
    clock: Clock
    name: str
    _connections: ExitStack = field(default_factory=ExitStack)

    def dsn(self, role: str = OWNER) -> str:
        """The connection string for a role; by default the owner of the tables."""
        return self.cluster.dsn(self.name, _login(role))

    def url(self, role: str = OWNER) -> sa.URL:
        """The same for SQLAlchemy."""
        query = {"host": str(self.cluster.socket_dir), "port": str(PORT)}
        return sa.URL.create("postgresql+psycopg", _login(role), database=self.name, query=query)

    def connect(self, role: str = OWNER) -> psycopg.Connection:
        """A connection as a role, each statement its own transaction; closed after the test.

        Args:
            role: one of the policy's, or one of gdprdb's groups, as ``gdpr_dpo``.
        """
        self._make_login(role)
        connection = psycopg.connect(self.dsn(role), autocommit=True)
        return self._connections.enter_context(connection)

    def seen_by(
        self, role: str, table: str, key: Mapping[str, Any], purpose: str | None = None
    ) -> tuple[int, int]:
        """How many rows there are, and how many of them a role finds in its views.

        Args:
            role: one of the policy's.
            table: as the policy names it.
            key: names and values of columns that are not encrypted.
            purpose: which the role works for; by default its first.
        """
        schema, dot, name = table.partition(".")
        schema, name = (schema, name) if dot else ("public", schema)
        wanted: sql.Composable = sql.SQL(" and ").join(
            sql.SQL("t.{} = {}").format(sql.Identifier(column), sql.Literal(value))
            for column, value in key.items()
        )
        with psycopg.connect(self.cluster.dsn(self.name)) as superuser:
            rows = superuser.execute(_SELECT.format(_REF, sql.Identifier(schema, name), wanted))
            persons = [person for (person,) in rows]
            ((audience,),) = superuser.execute(
                "select gdpr.policy() #>> array['roles', %s, 'audience']", [role]
            )
        if audience is None:
            raise GdprdbError(
                f"the policy binds no role {role}", hint="[roles.NAME] binds it to an audience."
            )
        if audience != "clear":
            # a redacted view may hide the key: the person's pseudonym stands in it as well
            wanted = sql.SQL("t.subject_ref = any ({})").format(sql.Literal(persons))
        view = sql.Identifier(f"gdpr_{audience}", name)
        with psycopg.connect(self.dsn(role)) as connection:
            connection.execute("select set_config('gdpr.purpose', %s, true)", [purpose or ""])
            seen = connection.execute(_SELECT.format(sql.SQL("1"), view, wanted)).fetchall()
        return len(persons), len(seen)

    @contextmanager
    def at_time(self, when: datetime | timedelta) -> Iterator[None]:
        """The server's time in the block; see `Clock.at`.

        Raises:
            GdprdbError: there is no libfaketime, or none for this machine.
        """
        with self.clock.at(when):
            with psycopg.connect(self.cluster.dsn(self.name)) as connection:
                ((now,),) = connection.execute("select statement_timestamp()")
            wanted = datetime.now(UTC) + self.clock.offset
            if abs(now - wanted) > timedelta(minutes=1):
                raise GdprdbError(f"the server's clock says {now}, and not {wanted}")
            yield

    def close(self) -> None:
        """Close the connections that `connect` opened."""
        self._connections.close()

    def _make_login(self, role: str) -> None:
        """A login for one of gdprdb's groups, which have none."""
        if role == OWNER or not role.startswith("gdpr_"):
            return
        with psycopg.connect(self.cluster.dsn(self.name), autocommit=True) as superuser:
            _create_login(superuser, _login(role))
            superuser.execute(
                sql.SQL("grant {} to {}").format(sql.Identifier(role), sql.Identifier(_login(role)))
            )


#: Makes the application's tables, as their owner, in the database that is copied for each test.
Schema = Callable[[Database], object]


@dataclass(frozen=True)
class Laboratory:
    """A server with a template: the application's tables under their policy, and no rows.

    Attributes:
        cluster: the server.
        clock: the server's clock.
        numbers: of the databases.
    """

    cluster: Cluster
    clock: Clock
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """A copy of the template, gone at the end of the block."""
        name = f"gdpr_test_{next(self.numbers)}"
        with psycopg.connect(self.cluster.dsn(), autocommit=True) as superuser:
            superuser.execute(
                f"create database {name} template gdpr_template owner {OWNER}".encode()
            )
            database = Database(self.cluster, self.clock, name)
            try:
                yield database
            finally:
                database.close()
                superuser.execute(f"drop database {name} with (force)".encode())


@contextmanager
def laboratory(schema: Schema, policy: Mapping[str, Any] | Path | None) -> Iterator[Laboratory]:
    """A private server with gdprdb, the tables of an application, and their policy.

    Args:
        schema: makes the tables, as their owner.
        policy: a document, or its TOML file; None where making the tables applies it.
    """
    with tempfile.TemporaryDirectory(prefix="gdprdb-clock-") as directory:
        Path(directory).chmod(0o755)
        clock = Clock(Path(directory))
        with Cluster(durable=False, environment=clock.environment()) as cluster:
            document = policies.load(policy) if isinstance(policy, Path) else policy
            _make_template(Database(cluster, clock, "gdpr_template"), schema, document)
            yield Laboratory(cluster, clock)


def _make_template(database: Database, schema: Schema, policy: Mapping[str, Any] | None) -> None:
    with psycopg.connect(database.cluster.dsn(), autocommit=True) as superuser:
        _create_login(superuser, OWNER)
        superuser.execute(f"alter role {OWNER} createrole")
        # the policy's logins are there before the tables: what makes those, grants rights
        for role in (policy or {}).get("roles", {}):
            _create_login(superuser, role)
        superuser.execute(f"create database gdpr_template owner {OWNER}")
        migrate.init(database.dsn())
        with psycopg.connect(database.dsn(), autocommit=True) as owner:
            owner.execute("select gdpr.create_key('table')")
        schema(database)
        database.close()
        if policy is not None:
            with psycopg.connect(database.dsn()) as owner:
                document = json.dumps(policy, default=str)
                owner.execute("select count(*) from gdpr.apply(%s::jsonb)", [document])
        superuser.execute("alter database gdpr_template allow_connections false")
        superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'gdpr_template'"
        )


def _create_login(superuser: psycopg.Connection, name: str) -> None:
    if superuser.execute("select from pg_roles where rolname = %s", [name]).fetchone() is None:
        superuser.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))


def _login(role: str) -> str:
    """The login that acts as a role: of gdprdb's groups, a member."""
    return role if role == OWNER or not role.startswith("gdpr_") else f"test_{role}"


def _find_library() -> Path | None:
    """libfaketime, from Python's package of that name or the system's."""
    found = importlib.util.find_spec("libfaketime")
    packaged = found.submodule_search_locations or () if found else ()
    places = [*(Path(place) / "vendor/libfaketime/src" for place in packaged)]
    places += [place for pattern in _LIBRARIES for place in Path("/").glob(pattern.lstrip("/"))]
    for place in places:
        library = place / "libfaketime.so.1"
        if library.is_file():
            return library
    return None
