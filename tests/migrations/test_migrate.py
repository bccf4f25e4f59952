"""Installing, going up and down, removing: by whom, how often, at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from gdprdb import __version__, migrate
from gdprdb.errors import GdprdbError, RefusedError, WrongReleaseError
from tests.support import AS_SUPERUSER, INSTALLER, OWNER, Clone, Database, catalog

POLICY = """
  {"purposes": {"orders": {"basis": "contract"}},
   "roles": {"crm_app": {"audience": "clear", "purposes": ["orders"]}},
   "tables": {"public.customer": {"subject": "self", "purposes": ["orders"],
     "columns": {"email": {"category": "contact", "identifier": "email"}}}}}
"""


def psql(
    database: Database, script: str, user: str = INSTALLER
) -> subprocess.CompletedProcess[str]:
    """Run a script through psql."""
    return subprocess.run(
        [database.cluster.binaries.program("psql"), "-qX", database.dsn(user)],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )


def memberships(database: Database, login: str) -> set[str]:
    """The groups of gdprdb whose rights a login has."""
    query = """
      select r.rolname from pg_roles r join pg_auth_members m on m.roleid = r.oid
      where m.member = %(login)s::regrole and r.rolname like 'gdpr%%'
        and pg_has_role(%(login)s, r.oid, 'usage')
    """
    return {name for (name,) in database.rows(query, {"login": login})}


@pytest.fixture
def protected(bare: Database) -> Database:
    """A database with one protected table."""
    migrate.init(bare.dsn(INSTALLER))
    if AS_SUPERUSER:
        bare.rows(f"grant gdpr_admin to {OWNER}", user="postgres")
    bare.rows("create table public.customer (id int primary key, email text)")
    bare.rows("select gdpr.create_key('table')")
    bare.rows("select count(*) from gdpr.apply(%s::jsonb)", [POLICY])
    return bare


def test_stairway_up_down_up(bare: Database) -> None:
    dsn = bare.dsn(INSTALLER)
    migrate.upgrade(dsn)
    first = catalog(bare)
    migrate.downgrade(dsn, "base")
    with bare.connect(INSTALLER) as connection:
        assert migrate.status(connection).installed is None
    migrate.upgrade(dsn)
    assert catalog(bare) == first


def test_a_downgrade_keeps_the_evidence(bare: Database) -> None:
    dsn = bare.dsn(INSTALLER)
    migrate.upgrade(dsn)
    tables = "select count(*) from pg_tables where schemaname {}"
    registers = bare.rows(tables.format("= 'gdpr_internal' and tablename <> 'schema_version'"))
    migrate.downgrade(dsn, "base")
    assert bare.rows(tables.format("like 'gdpr_evidence_%'")) == registers
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        bare.rows(
            "select * from "
            + bare.rows(
                "select format('%I.%I', schemaname, tablename) from pg_tables"
                " where schemaname like 'gdpr_evidence_%' limit 1"
            )[0][0],
            user="crm_app",
        )


def test_a_downgrade_is_refused_while_a_table_is_protected(protected: Database) -> None:
    with pytest.raises(psycopg.Error) as caught:
        migrate.downgrade(protected.dsn(INSTALLER), "base")
    assert caught.value.sqlstate == "PR011"
    assert caught.value.diag.message_detail == "public.customer"
    assert protected.rows("select gdpr.release()") == [(__version__,)]


def test_an_upgrade_that_has_nothing_to_do_changes_nothing(bare: Database) -> None:
    dsn = bare.dsn(INSTALLER)
    migrate.upgrade(dsn)
    before, groups = catalog(bare), memberships(bare, INSTALLER)
    migrate.upgrade(dsn)
    assert (catalog(bare), memberships(bare, INSTALLER)) == (before, groups)


def test_the_installing_login_administers_and_owns_nothing(bare: Database) -> None:
    migrate.init(bare.dsn(INSTALLER))
    assert memberships(bare, INSTALLER) == {"gdpr_admin", "gdpr_dpo"}
    migrate.downgrade(bare.dsn(INSTALLER), "base")
    assert "gdpr_owner" not in memberships(bare, INSTALLER)


def test_two_upgrades_at_once_install_once(bare: Database) -> None:
    command = [sys.executable, "-m", "gdprdb", "db", "init", "--dsn", bare.dsn(INSTALLER)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [(process.communicate()[1], process.returncode) for process in both]
    assert [code for _, code in results] == [0, 0], results
    assert bare.rows("select count(*) from gdpr_internal.schema_version", user="postgres") == [(1,)]


def test_an_upgrade_does_not_wait_for_ever_behind_the_application(bare: Database) -> None:
    migrate.upgrade(bare.dsn(INSTALLER))
    holder = bare.connect("postgres", autocommit=False)
    holder.execute("lock table gdpr_internal.protected_table in access share mode")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        migrate.downgrade(bare.dsn(INSTALLER), "base", lock_timeout="50ms")
    holder.rollback()
    assert bare.rows("select gdpr.release()", user=INSTALLER) == [(__version__,)]


def test_the_script_for_psql_makes_the_same_database(lone_clone: Clone) -> None:
    with lone_clone() as installed, lone_clone() as scripted:
        migrate.init(installed.dsn(INSTALLER))
        done = psql(scripted, migrate.script())
        assert (done.returncode, done.stderr) == (0, "")
        assert catalog(scripted) == catalog(installed)
        assert scripted.rows("select gdpr.release()", user=INSTALLER) == [(__version__,)]
        migrate.upgrade(scripted.dsn(INSTALLER))


def test_the_script_goes_down_and_up_again(bare: Database) -> None:
    for script in (
        migrate.script(),
        migrate.script(__version__, "base"),
        migrate.script("base", "head"),
    ):
        done = psql(bare, script)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_script_refuses_a_database_at_another_release(bare: Database) -> None:
    migrate.init(bare.dsn(INSTALLER))
    before = catalog(bare)
    done = psql(bare, migrate.script())
    assert done.returncode == 3
    assert f"the database is at {__version__}" in done.stderr
    assert catalog(bare) == before
    migrate.downgrade(bare.dsn(INSTALLER), "base")
    assert "starts from release" in psql(bare, migrate.script(__version__, "base")).stderr


def test_a_script_for_an_unknown_release_names_the_known() -> None:
    with pytest.raises(GdprdbError) as caught:
        migrate.script("0.0.9")
    assert __version__ in str(caught.value.hint)


@pytest.mark.parametrize("revision", ["0.0.9", "nonsense"])
def test_an_unknown_release_is_an_error(bare: Database, revision: str) -> None:
    with pytest.raises(GdprdbError, match=revision):
        migrate.upgrade(bare.dsn(INSTALLER), revision)


def test_uninstall_leaves_no_trace(bare: Database) -> None:
    empty = catalog(bare)
    migrate.init(bare.dsn(INSTALLER))
    migrate.downgrade(bare.dsn(INSTALLER), "base")
    migrate.upgrade(bare.dsn(INSTALLER))
    with bare.connect(INSTALLER, autocommit=False) as connection:
        kinds = {kind for kind, _ in migrate.uninstall_plan(connection)}
        assert kinds == {"schema", "role"}
        migrate.uninstall(connection)
        connection.commit()
        assert migrate.uninstall_plan(connection) == []
    assert catalog(bare) == empty
    assert bare.rows("select rolname from pg_roles where rolname like 'gdpr%'") == []


def test_uninstall_keeps_roles_that_another_database_needs(lone_clone: Clone) -> None:
    with lone_clone() as one, lone_clone() as other:
        migrate.init(one.dsn(INSTALLER))
        migrate.init(other.dsn(INSTALLER))
        before = catalog(other)
        with one.connect(INSTALLER, autocommit=False) as connection:
            assert {kind for kind, _ in migrate.uninstall_plan(connection)} == {"schema"}
            migrate.uninstall(connection)
            connection.commit()
        assert catalog(other) == before
        assert memberships(other, INSTALLER) == {"gdpr_admin", "gdpr_dpo"}


def test_uninstall_is_refused_while_a_table_is_protected(protected: Database) -> None:
    connection = protected.connect(INSTALLER)
    with pytest.raises(RefusedError) as caught:
        migrate.uninstall(connection)
    assert caught.value.details == ("public.customer",)
    protected.rows("select gdpr.unprotect('public.customer')")
    with protected.connect(INSTALLER, autocommit=False) as installer:
        migrate.uninstall(installer)
        installer.commit()


@pytest.fixture
def newcomer(bare: Database) -> Iterator[str]:
    """A login that holds nothing."""
    bare.rows("create role newcomer login", user="postgres")
    yield "newcomer"
    bare.rows("drop owned by newcomer; drop role newcomer", user="postgres")


def test_a_login_without_rights_is_told_all_that_is_missing(bare: Database, newcomer: str) -> None:
    with pytest.raises(GdprdbError) as caught:
        migrate.init(bare.dsn(newcomer))
    assert [line.split(":")[0] for line in caught.value.details] == [
        "the login newcomer has no CREATEROLE",
        f"the login newcomer may not create schemas in {bare.name}",
    ]


def test_another_encoding_is_refused(bare: Database) -> None:
    bare.rows(
        f"create database latin1 owner {OWNER} template template0 encoding 'LATIN1' locale 'C'",
        user="postgres",
    )
    try:
        with pytest.raises(GdprdbError) as caught:
            migrate.init(bare.cluster.dsn("latin1", INSTALLER))
        assert any("LATIN1" in line for line in caught.value.details)
    finally:
        bare.rows("drop database latin1", user="postgres")


def test_the_program_refuses_a_database_without_gdprdb(bare: Database) -> None:
    with pytest.raises(WrongReleaseError, match="not installed"):
        migrate.require_current(bare.connect())


def test_the_program_refuses_a_database_of_another_release(bare: Database) -> None:
    migrate.init(bare.dsn(INSTALLER))
    bare.rows("update gdpr_internal.schema_version set version_num = '9.9.9'", user="postgres")
    with pytest.raises(WrongReleaseError, match=r"9\.9\.9"):
        migrate.require_current(bare.connect(INSTALLER))
