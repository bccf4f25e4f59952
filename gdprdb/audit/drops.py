"""Months of audit records that were dropped: which records say so, and whether they can be true."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

import psycopg

_DROPS = """
select d.record, d.before, d.dropped_at::text, d.login, d.seal, k.objects,
  d.dropped_at > least(o.sealed_at, %s) + interval '1 day'
from gdpr.audit_dropped as d
left join gdpr.audit_seal as o on o.id = d.seal
left join lateral (
  select c.objects
  from gdpr.audit_seal as s
  left join gdpr.audit_catalog as c on c.catalog = s.catalog
  where s.sealed_at <= d.dropped_at and (s.id < d.seal or d.seal is null)
  order by s.id desc
  limit 1
) as k on true
order by d.record
"""

_OBJECTS = """
select c.objects
from gdpr.audit_seal as s
join gdpr.audit_catalog as c on c.catalog = s.catalog
where s.id = %s
"""

#: How long audit records are kept, as the line of a catalog says it.
_RETAIN = re.compile(r"audit_retain (.*) [0-9a-f]{16}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Drop:
    """A record that says that the months before a day were dropped.

    Attributes:
        record: its number.
        before: the day; None where it names none.
        dropped_at: when, as PostgreSQL writes it.
        login: who.
        since: whether no checkpoint has seen it.
        forged: what was sealed before does not allow it, or it is dated after its seal.
        younger: what the last checkpoint has sealed does not allow it.
    """

    record: int
    before: datetime.date | None
    dropped_at: str
    login: str
    since: bool
    forged: bool
    younger: bool


def read_drops(connection: psycopg.Connection, checkpoint: int | None = None) -> list[Drop]:
    """The records that months were dropped, each judged by the seals; the seals themselves are
    verified elsewhere.

    Args:
        connection: of an auditor.
        checkpoint: the seal of the last one.
    """
    now = datetime.datetime.now(datetime.UTC)
    kept = connection.execute(_OBJECTS, [checkpoint]).fetchone() or (None,)
    drops = []
    for record, before, at, login, seal, objects, late in connection.execute(
        _DROPS, [now]
    ).fetchall():
        since = seal is None or seal > (checkpoint or 0)
        forged = late or not _due(connection, before, at, objects)
        younger = since and checkpoint is not None and not _due(connection, before, at, kept[0])
        drops.append(Drop(record, before, at, login, since, forged, younger))
    return drops


def _due(
    connection: psycopg.Connection,
    before: datetime.date | None,
    at: str,
    objects: list[str] | None,
) -> bool:
    """Whether months before a day are no longer kept at a time, by what a seal found."""
    found = [match for line in objects or () if (match := _RETAIN.fullmatch(line))]
    if before is None or len(found) != 1:
        return False
    # PostgreSQL knows what its intervals mean; a year is the least that a policy may say
    answer = connection.execute(
        "select %s::date <= %s::timestamptz at time zone 'UTC'"
        " - greatest(%s::interval, interval '1 year')",
        [before, at, found[0][1]],
    ).fetchone()
    return bool(answer and answer[0])
