"""What every test can ask for.

cluster (session)
    A private server, `gdprdb.server.Cluster`. Its superuser is ``postgres``.
db
    A database of the test's own with gdprdb installed and a development key: a
    clone of one template, gone after the test. A `tests.support.Database`: ``db.dsn(user)``,
    ``db.connect(user)`` (a psycopg connection, autocommit unless told otherwise,
    closed after the test), ``db.rows(sql, params, user=...)``, ``db.name``.
empty_db
    The same without gdprdb: what an application's database is before.
shop_template, crm_template (session)
    Names of databases with the customer tables of `tests.capabilities.crm`, before and under
    their policy, for cloning.
prepared (module)
    Copies of a template that a function prepares first: ``prepared(crm_template, with_forms)``.
run
    The command line, run in this process: ``run("db", "status").out``. A `tests.support.Outcome`.
chinook
    ``db`` with the sample shop's tables and rows in schema public; the test is
    skipped where the data are not at hand.
reachable
    A path for the data directory of a server, below what the server's account can enter.
postgresql_noproc (session)
    The server as pytest-postgresql knows it.

Logins, made once for the server: `OWNER` owns every database and its tables and
installs gdprdb, with CREATEROLE and no superuser rights; ``crm_app``,
``metabase``, ``portal_app``, ``mailer`` hold nothing until a policy binds them;
``dpo_login`` is in gdpr_dpo, ``auditor_login`` in gdpr_auditor.
With GDPRDB_TEST_SUPERUSER=1 the superuser installs, and hands the
administration to `OWNER`, who then is an ordinary login without CREATEROLE.
With GDPRDB_TEST_GUARD=1 the guard stands in ``db`` and all that is cloned from its template.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import settings
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

from gdprdb import guard, migrate
from gdprdb.cli import main
from gdprdb.server import PORT, Cluster
from tests.capabilities.crm import POLICY, ROWS, TABLES, apply
from tests.support import (
    AS_SUPERUSER,
    INSTALLER,
    OWNER,
    Clone,
    Database,
    Outcome,
    Prepared,
    Run,
    assess,
    cloning,
    serve,
)

CHINOOK = Path(__file__).parents[2] / "shared" / "data" / "chinook"

# The same examples in every run: a test that fails, fails for everybody.
settings.register_profile("gdprdb", derandomize=True, deadline=None)
settings.load_profile("gdprdb")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The server of this test run, with its logins."""
    with serve() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_noproc(cluster: Cluster) -> NoopExecutor:
    """The server in the shape that pytest-postgresql's own fixtures take."""
    return NoopExecutor(
        host=str(cluster.socket_dir), port=PORT, user="postgres", options="", dbname="tests"
    )


@pytest.fixture(scope="session")
def installed_template(cluster: Cluster, postgresql_noproc: NoopExecutor) -> Iterator[str]:
    """Name of a database with gdprdb and a development key, for cloning."""
    server = postgresql_noproc
    with DatabaseJanitor(
        user=server.user, host=server.host, port=server.port, dbname=server.template_dbname
    ):
        database = Database(cluster, server.template_dbname)
        database.rows(f"alter database {database.name} owner to {OWNER}", user="postgres")
        migrate.init(database.dsn(INSTALLER))
        if AS_SUPERUSER:
            database.rows(
                f"grant gdpr_admin, gdpr_dpo to {OWNER} with admin option", user="postgres"
            )
        database.rows("grant gdpr_dpo to dpo_login")
        database.rows("grant gdpr_auditor to auditor_login", user="postgres")
        database.rows("select gdpr.create_key('table')")
        if os.environ.get("GDPRDB_TEST_GUARD") == "1":
            with psycopg.connect(database.dsn("postgres")) as connection:
                guard.install(connection)
        # what is copied for each test is as small as it can be, and need not be marked as read
        database.rows("vacuum (full, freeze)", user="postgres")
        database.close()
        yield database.name


@pytest.fixture(scope="session")
def clone(cluster: Cluster) -> Iterator[Clone]:
    """Makes databases as copies of a template: ``with clone(template) as database``."""
    with cloning(cluster) as make:
        yield make


@pytest.fixture(scope="module")
def prepared(clone: Clone) -> Iterator[Prepared]:
    """Copies of what a function of the module makes of a template, once for all its tests:
    ``with prepared(crm_template, with_forms) as database``."""
    with ExitStack() as templates:
        names: dict[Callable[[Database], object], str] = {}

        def copy(
            template: str, prepare: Callable[[Database], object]
        ) -> AbstractContextManager[Database]:
            if prepare not in names:
                database = templates.enter_context(clone(template))
                prepare(database)
                database.close()
                names[prepare] = database.name
            return clone(names[prepare])

        yield copy


@pytest.fixture
def db(clone: Clone, installed_template: str) -> Iterator[Database]:
    """A database of the test's own with gdprdb installed."""
    with clone(installed_template) as database:
        yield database


@pytest.fixture
def empty_db(clone: Clone) -> Iterator[Database]:
    """A database of the test's own without gdprdb."""
    with clone() as database:
        yield database


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A directory, not yet there, that the account of a server started by root can reach."""
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/") and path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | stat.S_IXOTH)
    return tmp_path / "server"


@pytest.fixture
def chinook(db: Database) -> Database:
    """The sample shop in schema public: employee, customer, invoice, invoice_line."""
    if not CHINOOK.is_dir():
        pytest.skip("the sample shop is not at hand (shared/data/chinook)")
    connection = db.connect()
    connection.execute(_CHINOOK_TABLES)
    for table in ("employee", "customer", "invoice", "invoice_line"):
        with (
            connection.cursor() as cursor,
            cursor.copy(f"copy public.{table} from stdin with (format csv, header)") as copy,
        ):
            copy.write((CHINOOK / f"{table}.csv").read_bytes())
    return db


_CHINOOK_TABLES = """
create table public.employee (
  employee_id integer primary key,
  last_name varchar(20) not null,
  first_name varchar(20) not null,
  title varchar(30),
  reports_to integer references public.employee,
  birth_date timestamp,
  hire_date timestamp,
  address varchar(70),
  city varchar(40),
  state varchar(40),
  country varchar(40),
  postal_code varchar(10),
  phone varchar(24),
  fax varchar(24),
  email varchar(60)
);
create table public.customer (
  customer_id integer primary key,
  first_name varchar(40) not null,
  last_name varchar(20) not null,
  company varchar(80),
  address varchar(70),
  city varchar(40),
  state varchar(40),
  country varchar(40),
  postal_code varchar(10),
  phone varchar(24),
  fax varchar(24),
  email varchar(60) not null,
  support_rep_id integer references public.employee
);
create table public.invoice (
  invoice_id integer primary key,
  customer_id integer not null references public.customer,
  invoice_date timestamp not null,
  billing_address varchar(70),
  billing_city varchar(40),
  billing_state varchar(40),
  billing_country varchar(40),
  billing_postal_code varchar(10),
  total numeric(10, 2) not null
);
create table public.invoice_line (
  invoice_line_id integer primary key,
  invoice_id integer not null references public.invoice,
  track_id integer not null,
  unit_price numeric(10, 2) not null,
  quantity integer not null
);
create index on public.customer (support_rep_id);
create index on public.invoice (customer_id);
create index on public.invoice_line (invoice_id);
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line: ``run("db", "status", stdin="...")``."""
    for variable in ("GDPRDB_DSN", "DATABASE_URL", "GDPRDB_FORMAT", "GDPRDB_KEY", "GDPRDB_REQUEST"):
        monkeypatch.delenv(variable, raising=False)

    def call(*arguments: str, stdin: str | None = None) -> Outcome:
        result = CliRunner().invoke(main, arguments, input=stdin, prog_name="gdprdb")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture(scope="session")
def shop_template(clone: Clone, installed_template: str) -> Iterator[str]:
    """Name of a database with the tables and rows of the application, and gdprdb not yet
    applied."""
    with clone(installed_template) as database:
        connection = database.connect()
        connection.execute(TABLES)
        connection.execute(ROWS)
        database.close()
        yield database.name


@pytest.fixture(scope="session")
def crm_template(clone: Clone, shop_template: str) -> Iterator[str]:
    """Name of a database with the application under its policy."""
    with clone(shop_template) as database:
        apply(database, POLICY)
        assess(database, "analytics")
        yield database.name
