"""The table of who can do what: each cell is an attempt in a real database.

Each action is tried by each role in a transaction that is rolled back. What came
back is the cell: ``yes``, ``no`` (refused, or nothing came back), or what the role was
shown instead.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from docs.tools.stage import DATABASE, DOCS, OWNER, stage
from gdprdb import migrate
from gdprdb.dsn import one
from gdprdb.server import Cluster

#: Column heading, the login that stands for it, and where it reads customers.
ROLES = (
    ("application", "crm_app", "gdpr_clear.customer"),
    ("BI", "metabase", "gdpr_bi.customer"),
    ("portal", "website", "public.customer"),
    ("sender", "postman", "public.customer"),
    ("DPO", "officer", "gdpr_clear.customer"),
    ("auditor", "auditor", "public.customer"),
    ("admin", "admin", "public.customer"),
    ("table owner", "table_owner", "public.customer"),
    ("superuser", "postgres", "public.customer"),
)


@dataclass(frozen=True, slots=True)
class Action:
    """Something that people may want to do.

    Attributes:
        what: its words in the table.
        statements: what does it; the last one tells by what it returns: null or no row
            is a no. ``{customer}`` is where the role reads customers, ``{policy}`` the policy,
            ``{token}`` the token of a question to a person.
        shown: what a value that came back is called, by how it begins.
    """

    what: str
    statements: tuple[str, ...]
    shown: tuple[tuple[str, str], ...] = ()


_SEEN = (("gdpr1:", "ciphertext"), ("a***", "redacted"), ("", "plaintext"))

ACTIONS = (
    Action("read the clear view", ("select email from gdpr_clear.customer where id = 1",), _SEEN),
    Action("read the table itself", ("select email from public.customer where id = 1",), _SEEN),
    Action("read the redacted view", ("select email from gdpr_bi.customer where id = 1",), _SEEN),
    Action(
        "see a person without a basis for the role's purpose",
        ("select 1 from {customer} where id = 2",),
    ),
    Action(
        "see a person whose processing is restricted", ("select 1 from {customer} where id = 3",)
    ),
    Action(
        "write personal data", ("update {customer} set city = 'Odense' where id = 1 returning 1",)
    ),
    Action(
        "write the columns `gdpr_*`",
        ("update public.customer set gdpr_purposes = 0 where id = 1 returning 1",),
    ),
    Action("truncate a protected table", ("truncate public.customer cascade", "select 1")),
    Action(
        "look a person up by identifier", ("select gdpr.find_subject('email', 'ada@example.org')",)
    ),
    Action(
        "record and withdraw consent",
        (
            "select gdpr.record_consent(1, 'newsletter', true, 'in_person')",
            "select gdpr.withdraw_consent(1, 'newsletter', 'phone')",
        ),
    ),
    Action(
        "ask a person for consent",
        ("select gdpr.request_consent(1, array['newsletter'], 'portal', null, '1 day')",),
    ),
    Action(
        "answer a question by its token",
        ("select gdpr.answer_consent('{token}', array['newsletter'])",),
    ),
    Action("open a mail that waits", ("select gdpr.open_mail(gdpr.next_mail())",)),
    Action(
        "record and end a basis",
        (
            "select gdpr.end_basis(gdpr.record_basis(1, 'orders', 'contract', 'order'), 'over')",
            "select 1",
        ),
    ),
    Action(
        "restrict, record an objection, erase",
        (
            "select gdpr.restrict(1, 'legal_claims')",
            "select gdpr.object_to(1, 'analytics')",
            "select gdpr.erase(1)",
        ),
    ),
    Action(
        "ask for a link to one's own data",
        ("select gdpr.portal_request_sign_in('ada@example.org')",),
    ),
    Action("see which requests are due", ("select count(*) from gdpr.request_board",)),
    Action("hand out everything about a person", ("select gdpr.access_report(1)",)),
    Action(
        "propose a correction",
        ("""select gdpr.propose_rectification(1, '[{"statement": "moved"}]')""",),
    ),
    Action(
        "register a recipient, record a disclosure",
        (
            "select gdpr.record_recipient('Parcel AG', 'processor', 'DE', p_contract => 'AV-7')",
            "select gdpr.record_disclosure('Parcel AG', array[1], 'orders', p_categories => '{x}')",
        ),
    ),
    Action(
        "hold data, release a hold",
        (
            "select gdpr.release_hold(gdpr.place_hold(1, 'legal_claims', '3 O 17/26'), 'settled')",
            "select 1",
        ),
    ),
    Action("see what retention would delete", ("select count(*) from gdpr.retention_plan()",)),
    Action("run retention", ("select count(*) from gdpr.run_retention()",)),
    Action("take the ledger away", ("select count(*) from gdpr.ledger()",)),
    Action(
        "block and unblock an identifier",
        (
            "select gdpr.block('email', 'x@example.org', 'test')",
            "select gdpr.unblock('email', 'x@example.org', 'test')",
        ),
    ),
    Action(
        "read bases, consents, erasures",
        ("select 1 from gdpr.basis, gdpr.consent, gdpr.erasure_ledger having count(*) >= 0",),
    ),
    Action("read who changed what", ("select 1 from gdpr.audit_log where operation = 'UPDATE'",)),
    Action(
        "read the old values of a change",
        ("select old ->> 'city' from gdpr.audit_log where operation = 'UPDATE'",),
    ),
    Action("change or delete evidence", ("delete from gdpr_internal.basis_record", "select 1")),
    Action("plan and apply a policy", ("select count(*) from gdpr.apply('{policy}')",)),
    Action("create the key", ("select count(gdpr.create_key())",)),
    Action("read key material", ("select 1 from gdpr_internal.subject_key limit 1",)),
    Action("ask the doctor", ("select count(*) from gdpr.doctor()",)),
)

#: What a function says that was reached and had nothing to do.
_REACHED = {"PR004"}


def generate(policy_text: str) -> str:
    """The table in Markdown.

    Args:
        policy_text: the policy, as TOML: that of the README.
    """
    with stage() as cluster:
        document, token = _prepare(cluster, policy_text)
        words = {"{policy}": json.dumps(document).replace("'", "''"), "{token}": token}
        lines = [
            f"| | {' | '.join(name for name, _, _ in ROLES)} |",
            f"|---|{'---|' * len(ROLES)}",
        ]
        for action in ACTIONS:
            cells = (
                attempt(cluster.dsn(DATABASE, login), action, words | {"{customer}": customer})
                for _, login, customer in ROLES
            )
            lines.append(f"| {action.what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def attempt(dsn: str, action: Action, words: dict[str, str]) -> str:
    """What comes back when a login tries an action; nothing of it stays.

    Args:
        dsn: the database, as the login.
        action: what to try.
        words: what stands for the words in braces.
    """
    row = None
    with psycopg.connect(dsn) as connection:
        try:
            for statement in action.statements:
                cursor = connection.execute(_filled(statement, words).encode())
                row = cursor.fetchone() if cursor.description else None
        except psycopg.Error as error:
            return "yes" if error.sqlstate in _REACHED else "no"
        finally:
            connection.rollback()
    if row is None or row[0] is None:
        return "no"
    return next((name for start, name in action.shown if str(row[0]).startswith(start)), "yes")


def _filled(statement: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        statement = statement.replace(word, value)
    return statement


def _prepare(cluster: Cluster, policy_text: str) -> tuple[dict[str, Any], str]:
    """The shop, protected, with its people in several states, and somebody for every part.

    Returns the policy, and the token of a question to a person.
    """
    with psycopg.connect(cluster.dsn(DATABASE, OWNER)) as owner:
        owner.execute((DOCS / "shop.sql").read_bytes())
    migrate.init(cluster.dsn(DATABASE, OWNER))
    document = tomllib.loads(policy_text)
    with psycopg.connect(cluster.dsn(DATABASE, OWNER)) as owner:
        owner.execute("select gdpr.create_key()")
        owner.execute("select * from gdpr.apply(%s)", [Jsonb(document)])
        owner.execute("grant gdpr_dpo to officer")
        owner.execute("grant gdpr_auditor to auditor")
        owner.execute("grant gdpr_admin to admin")
        owner.execute("grant gdpr_portal to website")
    with psycopg.connect(cluster.dsn(DATABASE, "crm_app")) as application:
        application.execute("update gdpr_clear.customer set city = 'Aalborg' where id = 1")
    with psycopg.connect(cluster.dsn(DATABASE, "officer")) as officer:
        officer.execute(
            "select gdpr.end_basis(basis_id, 'account closed') from gdpr.basis where subject_id = 2"
        )
        officer.execute("select gdpr.restrict(3, 'accuracy_contested')")
        ask: LiteralString = (
            "select token from gdpr.request_consent(%s, array['newsletter'], %s, null, '1 day')"
        )
        officer.execute(ask, [2, "email"])
        (token,) = one(officer, ask, [1, "portal"])
    with psycopg.connect(cluster.dsn(DATABASE)) as superuser:
        # a DBA who owns the tables and holds no purpose
        for table in ("customer", "invoice"):
            superuser.execute(f"alter table public.{table} owner to table_owner".encode())
        superuser.execute("grant table_owner to admin")
    return document, token
