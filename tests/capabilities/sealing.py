"""What the tests of sealing share: writing, sealing, taking checkpoints, tampering."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from gdprdb.audit import checkpoints, verifier
from tests.support import Database

INSERT = (
    "insert into crm.customer (email, last_name)"
    " values ('p' || gen_random_uuid() || '@example.com', 'P')"
)
UPDATE = "update gdpr_clear.customer set city = 'Q' || id where id % 2 = 0"


def seal(db: Database) -> int:
    """Seal as an administrator."""
    return int(db.rows("select gdpr.seal_audit()")[0][0])


def checkpoint(db: Database) -> dict[str, Any]:
    """The last seal, as an auditor takes it away."""
    document: dict[str, Any] = db.rows("select gdpr.audit_checkpoint()", user="auditor_login")[0][0]
    return document


def verified(db: Database, kept: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """What the database finds, which has to be what is found outside of it."""
    inside = db.rows(
        "select * from gdpr.verify_audit(%s)",
        [json.dumps(kept) if kept else None],
        user="auditor_login",
    )
    points = [checkpoints.Checkpoint(kept["seal"], kept["hash"], kept)] if kept else []
    with psycopg.connect(db.dsn("auditor_login")) as connection:
        outside = list(verifier.verify(connection, points))
    assert {(f.seal, f.record) for f in outside} >= {(f[0], f[1]) for f in inside}
    assert bool(inside) == bool(outside)
    return inside


def write(db: Database, rows: int = 4) -> None:
    """What an application does."""
    app = db.connect("crm_app")
    for _ in range(rows):
        app.execute(INSERT)
    app.execute(UPDATE)


_TABLES = ("audit_record", "audit_catalog", "audit_seal", "audit_block")


def tamper(db: Database, statement: str, **parameters: Any) -> None:
    """What a superuser does with all triggers off."""
    session = db.connect("postgres")
    session.execute("set session_replication_role = replica")
    for table in _TABLES:
        session.execute(f"alter table gdpr_internal.{table} disable trigger all".encode())
    assert session.execute(statement.encode(), parameters).rowcount != 0
    for table in _TABLES:
        session.execute(
            f"alter table gdpr_internal.{table} enable always trigger gdpr_50_append_only".encode()
        )
    session.close()


#: Records that are not in one seal each, of those that seals can hold, and numbers given twice.
_ASTRAY = """
select
  count(*) filter (where s.seals <> 1),
  count(*) - count(distinct a.id),
  count(*) - (select coalesce(sum(t.records), 0) from gdpr_internal.audit_seal as t)
from gdpr_internal.audit_record as a
cross join lateral (
  select count(*) as seals
  from gdpr_internal.audit_seal as s
  where s.place = a.place and s.month = date_trunc('month', a.at at time zone 'UTC')
    and a.xid >= s.from_xid and a.xid < s.below_xid and a.id between s.first_id and s.last_id
) as s
"""


def settled(db: Database) -> dict[str, Any]:
    """Seal when nobody writes any more: each record is in one seal, and as it was sealed.

    Returns:
        The checkpoint.
    """
    seal(db)
    assert db.rows("select unsealed, waiting from gdpr.audit_lag()") == [(0, 0)]
    assert db.rows(_ASTRAY, user="postgres") == [(0, 0, 0)]
    kept = checkpoint(db)
    assert verified(db, kept) == []
    return kept
