"""The contenders: the same application, protected in three ways.

Each starts as the same tables with the same people (``people.sql``, ``tables.sql``,
``rows.sql``) and is then protected as its users would do it: ``plain`` not at
all, ``by_hand`` by the script that people write, ``gdprdb`` by a policy. After
that the application's statements are the same text for all; ``search_path``
finds the right ``person`` for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from gdprdb import migrate, policy

_HERE = Path(__file__).parent

#: The login that owns the databases: CREATEROLE, and no superuser, as on a hosted server.
OWNER = "bench_owner"
#: The logins that do the work: the application, the BI tool, the data protection officer.
APP, BI, DPO = "crm_app", "metabase", "bench_dpo"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to protect people, and how the benchmark's statements are written for it.

    Attributes:
        name: as in the reports.
        protect: protects the tables; called with a connection of the owner.
        settings: settings of the sessions of APP and BI.
        email_is: the condition that finds a person by ``{email}``, an SQL expression.
        redacted: the view that BI reads.
        officer: the login that withdraws consent and erases.
        subject: turns a person's id into what `consent`, `withdraw` and `erase` take.
        consent: records the consent that `withdraw` ends; not measured.
        withdraw: withdraws consent; None where there is no consent to withdraw.
        erase: erases the person.
        import_rows: inserts persons that come as one JSON array.
    """

    name: str
    protect: Callable[[psycopg.Connection], None]
    email_is: str
    redacted: str
    officer: str
    subject: str
    erase: str
    consent: str | None = None
    withdraw: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    import_rows: str = (
        "insert into person (first_name, last_name, email, phone, birth_date, city, created_at)"
        " select r.first_name, r.last_name, r.email, r.phone, r.birth_date, r.city, r.created_at"
        " from jsonb_to_recordset(%s::jsonb) as r (first_name text, last_name text, email text,"
        " phone text, birth_date date, city text, created_at timestamptz)"
    )


def create_tables(connection: psycopg.Connection) -> None:
    """Make the application's tables, empty, and ``bench.people``, which fills them.

    Args:
        connection: of the owner of an empty database.
    """
    for name in ("people.sql", "tables.sql"):
        _run(connection, name)


def create_application(connection: psycopg.Connection, people: int, staged: int) -> None:
    """Make the unprotected application.

    Args:
        connection: of the owner of an empty database.
        people: how many persons it has; every tenth has a row in each of four child tables.
        staged: how many more stand ready in ``bench.staged`` for the bulk insert.
    """
    create_tables(connection)
    connection.execute("insert into person select * from bench.people(1, %s)", [people])
    connection.execute("select setval(pg_get_serial_sequence('person', 'id'), %s)", [people])
    _run(connection, "rows.sql")
    connection.execute(
        "create table bench.staged as select * from bench.people(%s, %s) order by md5(email)",
        [people + 1, people + staged],
    )
    connection.execute("grant select on bench.staged to public")


def _run(connection: psycopg.Connection, name: str) -> None:
    connection.execute((_HERE / name).read_bytes())


def _protect_plain(connection: psycopg.Connection) -> None:
    _run(connection, "plain/protect.sql")


def _protect_by_hand(connection: psycopg.Connection) -> None:
    connection.execute("select set_config('app.key', %s, false)", [BY_HAND.settings["app.key"]])
    audit_by_hand(connection)
    _run(connection, "by_hand/protect.sql")


def audit_by_hand(connection: psycopg.Connection) -> None:
    """Make the generic audit trigger function ``audit.record_change()``, and put it on nothing."""
    _run(connection, "by_hand/audit.sql")


def _protect_with_gdprdb(connection: psycopg.Connection) -> None:
    migrate.init(connection.info.dsn)
    connection.execute("select gdpr.create_key('table')")
    policy.apply(connection, _HERE / "gdprdb" / "policy.toml")
    connection.execute(f"grant gdpr_dpo to {DPO}")


PLAIN = Contender(
    name="plain",
    protect=_protect_plain,
    email_is="email = {email}",
    redacted="bi.person",
    officer=OWNER,
    subject="select %s::bigint",
    erase="delete from person where id = %s",
    settings={"search_path": "public"},
)

BY_HAND = Contender(
    name="by_hand",
    protect=_protect_by_hand,
    email_is="email_digest = encode(digest(lower({email}), 'sha256'), 'hex')",
    redacted="bi.person",
    officer=OWNER,
    subject="select %s::bigint",
    erase="delete from public.person where id = %s",
    consent="update consent set granted = true where person_id = %s and purpose = 'orders'",
    withdraw="update consent set granted = false where person_id = %s and purpose = 'orders'",
    settings={
        "search_path": "clear, public",
        "app.key": "correct horse battery staple",
        "app.actor": "clerk 7",
    },
)

GDPRDB = Contender(
    name="gdprdb",
    protect=_protect_with_gdprdb,
    email_is="email_digest = gdpr.digest('email', {email})",
    redacted="gdpr_bi.person",
    officer=DPO,
    subject="select gdpr.subject_of('public.person', %s::text)",
    erase="select gdpr.erase(%s, 'request of the person')",
    consent="select gdpr.record_consent(%s, 'marketing', true, 'email')",
    withdraw="select gdpr.withdraw_consent(%s, 'marketing', 'email')",
    settings={
        "search_path": "gdpr_clear, public",
        "gdpr.actor": "clerk 7",
        "gdpr.source": '{"kind": "web_form", "form": "sign-up"}',
        "gdpr.request": "7f3c",
    },
    import_rows="select count(*) from gdpr.import_rows('public.person', %s::jsonb)",
)

CONTENDERS = (PLAIN, BY_HAND, GDPRDB)
