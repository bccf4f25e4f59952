"""Install, upgrade, downgrade and remove gdprdb in a database.

The steps are Alembic's, with an environment and a version table of their own
(`migrations/`), so that an application's migrations are not touched. Alembic and
SQLAlchemy are imported where a step is taken: most commands only ask for the release,
and would spend half of their time on that. Each call
runs in one transaction, under an advisory lock: of two upgrades at once the
second waits and then finds nothing to do.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from gdprdb import __version__, resources
from gdprdb import dsn as dsns
from gdprdb.binaries import OLDEST_MAJOR
from gdprdb.dsn import one
from gdprdb.errors import GdprdbError, RefusedError, WrongReleaseError

if TYPE_CHECKING:
    import sqlalchemy as sa
    from alembic.config import Config

#: Where Alembic keeps the installed release.
SCHEMA, VERSION_TABLE = "gdpr_internal", "schema_version"

#: Taken before anything is read, held to the end of the transaction.
LOCK = "select pg_catalog.pg_advisory_xact_lock(1195655250, 1);\n"

#: "Already exists, skipping" tells a reader nothing.
QUIET = "set local client_min_messages = warning;\n"

#: How long a statement of an upgrade waits for a lock that an application holds.
LOCK_TIMEOUT = "5s"

#: Alembic keeps the environment it runs in global names.
_ONE_AT_A_TIME = threading.Lock()

_ROLES = (
    "gdpr_mail",
    "gdpr_portal",
    "gdpr_integration",
    "gdpr_api",
    "gdpr_export",
    "gdpr_bi",
    "gdpr_app",
    "gdpr_auditor",
    "gdpr_dpo",
    "gdpr_admin",
    "gdpr_viewer",
    "gdpr_worker",
    "gdpr_keyholder",
    "gdpr_owner",
)


@dataclass(frozen=True, slots=True)
class Status:
    """What is installed, beside what this program would install.

    Attributes:
        database: name of the database.
        installed: the release in the database; None where there is none.
        program: the release this program brings.
        protected_tables: how many tables hold people under gdprdb's protection.
        whereabouts: home, or what the database was made by: restored, promoted, copy.
    """

    database: str
    installed: str | None
    program: str
    protected_tables: int
    whereabouts: str | None = None

    @property
    def current(self) -> bool:
        """Whether the database is at the program's release."""
        return self.installed == self.program


def head() -> str:
    """The newest release that this program can install."""
    return __version__


def status(connection: psycopg.Connection) -> Status:
    """What is installed in the database of the connection.

    Raises:
        psycopg.errors.InsufficientPrivilege: the login is in none of gdprdb's groups.
    """
    database, release = _installed(connection)
    if release is None:
        return Status(database, None, head(), 0)
    (tables, where) = one(
        connection, "select count(*), gdpr.whereabouts() from gdpr.protected_table"
    )
    return Status(database, release, head(), tables, where)


def require_current(connection: psycopg.Connection) -> None:
    """Make sure that the program and the database speak the same release.

    Raises:
        WrongReleaseError: gdprdb is not installed, or in another release.
    """
    database, release = _installed(connection)
    if release is None:
        raise WrongReleaseError(
            f"gdprdb is not installed in the database {database}",
            hint="Install it: gdprdb db init.",
        )
    if release != head():
        raise WrongReleaseError(
            f"the database is at release {release}, this program at {head()}",
            hint="Upgrade the database (gdprdb db upgrade), or use the program of its release.",
        )


def _installed(connection: psycopg.Connection) -> tuple[str, str | None]:
    """The database's name and the release installed in it."""
    database, installed = one(
        connection, "select current_database(), to_regprocedure('gdpr.release()') is not null"
    )
    return database, one(connection, "select gdpr.release()")[0] if installed else None


def init(dsn: str, *, lock_timeout: str = LOCK_TIMEOUT) -> None:
    """Install gdprdb: roles, schemas, everything of the newest release. Keys come later.

    Args:
        dsn: the database, as the login that owns it.
        lock_timeout: how long a statement waits for a lock, as PostgreSQL writes it.

    Raises:
        GdprdbError: this database, server or login cannot carry gdprdb; the details say why.
        psycopg.Error: the database refused a statement.
    """
    with dsns.connect(dsn) as connection:
        _check_prerequisites(connection)
    upgrade(dsn, lock_timeout=lock_timeout)


def upgrade(dsn: str, revision: str = "head", *, lock_timeout: str = LOCK_TIMEOUT) -> None:
    """Bring a database to a later release; nothing happens where it is there already.

    Args:
        dsn: the database, as a login that may upgrade it.
        revision: the release to come to, or ``head``.
        lock_timeout: how long a statement waits for a lock, as PostgreSQL writes it.

    Raises:
        GdprdbError: there is no such release.
        psycopg.Error: the database refused a statement; nothing has changed.
    """
    from alembic import command

    with _alembic():
        command.upgrade(_config(dsn, lock_timeout), revision)


def downgrade(dsn: str, revision: str, *, lock_timeout: str = LOCK_TIMEOUT) -> None:
    """Take a database back to an earlier release. Evidence is kept.

    Args:
        dsn: the database, as a login that may upgrade it.
        revision: the release to go back to, or ``base`` for none.
        lock_timeout: how long a statement waits for a lock, as PostgreSQL writes it.

    Raises:
        GdprdbError: there is no such release.
        psycopg.Error: the database refused a statement; nothing has changed.
    """
    from alembic import command

    with _alembic():
        command.downgrade(_config(dsn, lock_timeout), revision)


def script(start: str = "base", end: str = "head", *, lock_timeout: str = LOCK_TIMEOUT) -> str:
    """The statements of an upgrade, or of a downgrade, as a script for psql.

    Args:
        start: the release the database is at; ``base`` for none.
        end: the release it shall come to; ``head`` for the newest.
        lock_timeout: how long a statement waits for a lock, as PostgreSQL writes it.

    Raises:
        GdprdbError: there is no such release.
    """
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config(lock_timeout=lock_timeout)
    config.output_buffer = buffer = io.StringIO()
    with _alembic():
        directory = ScriptDirectory.from_config(config)
        releases = ["base", *(step.revision for step in reversed(list(directory.walk_revisions())))]
        first, last = (_position(releases, name) for name in (start, end))
        run = command.upgrade if first <= last else command.downgrade
        run(config, f"{releases[first]}:{releases[last]}", sql=True)
    return f"\\set ON_ERROR_STOP on\n\n{buffer.getvalue()}"


def uninstall_plan(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """What `uninstall` would remove, as (kind, name), in order.

    Schemas of gdprdb go with everything in them. Roles belong to the whole server:
    they go only when no other database needs them.

    Raises:
        RefusedError: tables are protected, and would be left unreadable; or the guard stands.
    """
    (guarded,) = one(
        connection, "select count(*) from pg_event_trigger where evtname ~ '^gdpr_guard_'"
    )
    if guarded:
        raise RefusedError(
            "the guard stands: gdprdb would be dropped",
            hint="A superuser takes it away first: gdprdb guard remove.",
        )
    protected = connection.execute(
        "select format('%I.%I', n.nspname, c.relname) from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace"
        " join pg_attribute a on a.attrelid = c.oid"
        " where a.attname = 'gdpr_subject_id' and not a.attisdropped and c.relkind in ('r', 'p')"
        " and n.nspowner <> (select oid from pg_roles where rolname = 'gdpr_owner') order by 1"
    ).fetchall()
    if protected:
        raise RefusedError(
            "tables are still protected: without gdprdb nobody could read them again",
            hint="Call gdpr.unprotect() for each of them first.",
            details=tuple(name for (name,) in protected),
        )
    schemas = connection.execute(
        "select nspname from pg_namespace n join pg_roles r on r.oid = n.nspowner"
        " where r.rolname = 'gdpr_owner' order by 1"
    ).fetchall()
    plan = [("schema", name) for (name,) in schemas]
    if not _roles_needed_elsewhere(connection):
        plan += [("role", name) for name in _existing_roles(connection)]
    return plan


def uninstall(connection: psycopg.Connection) -> None:
    """Remove gdprdb from the database, evidence and all. Not to be undone.

    Args:
        connection: as the login that installed it; the caller commits.

    Raises:
        RefusedError: tables are protected.
        psycopg.Error: the login may not.
    """
    plan = uninstall_plan(connection)
    schemas = [name for kind, name in plan if kind == "schema"]
    connection.execute("set local client_min_messages = warning")
    connection.execute(_literal(LOCK))
    connection.execute(_literal(f"set local lock_timeout = '{LOCK_TIMEOUT}'"))
    if schemas:
        # Only their owner may drop them: take the membership as a load does.
        connection.execute(_literal(resources.release_file(head(), "open.sql")))
    for name in schemas:
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))
    if _roles_needed_elsewhere(connection):
        connection.execute(_literal(resources.release_file(head(), "close.sql")))
        return
    for name in _existing_roles(connection):
        role = sql.Identifier(name)
        connection.execute(sql.SQL("grant {} to current_user").format(role))
        connection.execute(sql.SQL("drop owned by {}").format(role))
    for name in _existing_roles(connection):
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def check_start(start: object) -> str:
    """A statement that stops a script laid over a database of another release.

    Args:
        start: the release the script starts from; None for none.
    """
    expected = "null" if start in (None, "base") else f"'{start}'"
    table = f"{SCHEMA}.{VERSION_TABLE}"
    return f"""do $check$
declare
  v_found text;
begin
  if pg_catalog.to_regclass('{table}') is not null then
    execute 'select version_num from {table}' into v_found;
  end if;
  if v_found is distinct from {expected} then
    raise exception using errcode = 'PR012',
      message = pg_catalog.format('this script starts from release %s, the database is at %s',
        coalesce({expected}, 'none'), coalesce(v_found, 'none')),
      hint = 'Write the script again: gdprdb db sql --from RELEASE.';
  end if;
  if v_found is null then
    drop table if exists {table};
  end if;
end
$check$;
"""


def lock_timeout(attributes: MutableMapping[str, Any]) -> str:
    """The statement that limits how long an upgrade waits for an application's locks."""
    value = attributes.get("lock_timeout", LOCK_TIMEOUT)
    literal = sql.Literal(value).as_string(None)
    return f"select pg_catalog.set_config('lock_timeout', {literal}, true);\n"


def engine(attributes: MutableMapping[str, Any]) -> sa.Engine:
    """SQLAlchemy on top of psycopg's own reading of the connection string."""
    import sqlalchemy as sa

    return sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: dsns.connect(attributes.get("dsn")),
        poolclass=sa.NullPool,
    )


def _config(dsn: str | None = None, lock_timeout: str = LOCK_TIMEOUT) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.migrations()).replace("%", "%%"))
    config.attributes.update(dsn=dsn, lock_timeout=lock_timeout)
    return config


def _check_prerequisites(connection: psycopg.Connection) -> None:
    """All reasons at once why gdprdb cannot be installed here."""
    database, login, may_make_roles, may_make_schemas, major, encoding, pgcrypto = one(
        connection,
        "select current_database(), current_user::text, r.rolsuper or r.rolcreaterole,"
        " has_database_privilege(current_database(), 'CREATE'),"
        " current_setting('server_version_num')::int / 10000,"
        " current_setting('server_encoding'),"
        " exists (select from pg_available_extensions where name = 'pgcrypto')"
        " from pg_roles r where r.rolname = current_user",
    )
    reasons = {
        f"the login {login} has no CREATEROLE: alter role {login} createrole": may_make_roles,
        f"the login {login} may not create schemas in {database}: "
        f"alter database {database} owner to {login}": may_make_schemas,
        f"the server is PostgreSQL {major}, the oldest supported is {OLDEST_MAJOR}": major
        >= OLDEST_MAJOR,
        f"the database is encoded in {encoding}: create one with encoding 'UTF8'": encoding
        == "UTF8",
        "the extension pgcrypto is not available: install PostgreSQL's contrib package": pgcrypto,
    }
    lacking = tuple(reason for reason, holds in reasons.items() if not holds)
    if lacking:
        raise GdprdbError(
            f"gdprdb cannot be installed in the database {database} by {login}",
            details=lacking,
            hint="Each line names what is missing and how to get it.",
        )


def _existing_roles(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "select rolname::text from pg_roles where rolname = any(%s)", [list(_ROLES)]
    )
    found = {name for (name,) in rows}
    return [name for name in _ROLES if name in found]


def _roles_needed_elsewhere(connection: psycopg.Connection) -> bool:
    """Whether gdprdb's roles own or may do something in another database of the server."""
    (needed,) = one(
        connection,
        "select exists (select from pg_shdepend d join pg_roles r on r.oid = d.refobjid"
        " where d.refclassid = 'pg_authid'::regclass and r.rolname = any(%s)"
        " and d.dbid not in (0, (select oid from pg_database where datname = current_database())))",
        [list(_ROLES)],
    )
    return bool(needed)


def _literal(text: str) -> bytes:
    """Our own SQL, to be sent as it is."""
    return text.encode()


def _position(releases: list[str], name: str) -> int:
    wanted = releases[-1] if name == "head" else name
    if wanted not in releases:
        raise GdprdbError(
            f"there is no release {name}", hint=f"Releases: {', '.join(releases[1:])}."
        )
    return releases.index(wanted)


@contextmanager
def _alembic() -> Iterator[None]:
    """One call of Alembic at a time, with errors as the database or gdprdb said them."""
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    try:
        with _ONE_AT_A_TIME:
            yield
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from None
        raise
    except CommandError as error:
        raise GdprdbError(str(error)) from None
