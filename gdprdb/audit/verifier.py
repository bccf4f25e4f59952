"""Verification: every seal computed again from the records, every checkpoint compared."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from heapq import heappop, heappush

import psycopg

from gdprdb.audit.checkpoints import Checkpoint
from gdprdb.audit.drops import Drop, read_drops
from gdprdb.audit.seals import A_DAY, BLOCK, Seal, prepare, read_records, read_seals, text_hash
from gdprdb.audit.tree import Tree, leaf_hash
from gdprdb.dsn import one

#: Bytes of each leaf that the database keeps to tell which record no longer fits.
_SHORT = 8

_BLOCKS = "select sha256(leaves) from gdpr.audit_block where seal = %s order by block"
_LEAVES = "select leaves from gdpr.audit_block where seal = %s and block = %s"

_CATALOGS = """
select s.seal, c.objects, s.catalog
from (select min(id) as seal, catalog from gdpr.audit_seal group by catalog) as s
left join gdpr.audit_catalog as c on c.catalog = s.catalog
order by s.seal
"""

_LEFT_BEHIND = """
select id from gdpr.audit_leaf where at < %s::timestamp at time zone 'UTC' order by id limit 100
"""

#: The first record that is dated after its seal: a day, for clocks are put right.
_LATER = """
select id
from gdpr.audit_leaf
where place = %(place)s::oid and at > %(sealed_at)s::timestamptz + interval '1 day'
  and at >= %(month)s::timestamp at time zone 'UTC'
  and at < (%(month)s::timestamp + interval '1 month') at time zone 'UTC'
  and xid >= %(from_xid)s::text::xid8 and xid < %(below_xid)s::text::xid8
  and id between %(first_id)s and %(last_id)s
order by id
limit 1
"""

#: The life of the database that goes on, and the transaction from which on there has been none.
_HOME = """
select t.oid as place, pg_snapshot_xmax(pg_current_snapshot()) as below
from pg_catalog.pg_type as t
join pg_catalog.pg_namespace as n on n.oid = t.typnamespace
where n.nspname = 'gdpr_generated' and t.typname = 'place'
"""
_HERE = f"select place::bigint, below::text::numeric from ({_HOME}) as h"

_BEHIND = """
with sealed as (
  select place, max(below_xid) as below from gdpr.audit_seal group by place
),
found as (
  select a.place, a.month, count(*) as records
  from gdpr.audit_leaf as a
  join sealed as s on s.place = a.place and a.xid < s.below
  group by a.place, a.month
),
wrong as (
  select f.place, f.month
  from found as f
  where f.records <> (
    select coalesce(sum(s.records), 0)
    from gdpr.audit_seal as s
    where s.place = f.place and s.month = f.month
  )
)
select a.id
from wrong as w
join gdpr.audit_leaf as a on a.place = w.place and a.month = w.month
join sealed as s on s.place = a.place and a.xid < s.below
where not exists (
  select
  from gdpr.audit_seal as t
  where t.place = a.place and t.month = a.month
    and a.xid >= t.from_xid and a.xid < t.below_xid and a.id between t.first_id and t.last_id
)
order by a.id
limit 100
"""

_BEYOND = f"""
with sealed as (
  select place, max(below_xid) as below, max(seen_id) as seen_id
  from gdpr.audit_seal
  group by place
),
home as ({_HOME})
select a.id, case
  when a.place <> h.place then 'the record is of a place that was closed'
  when a.xid >= h.below then 'the record is of a transaction that has not been'
  when a.at > %(latest)s then 'the record is dated after today'
  else 'the record has a number that was given before it: sealing may pass over it'
end
from home as h
cross join gdpr.audit_leaf as a
left join sealed as s on s.place = a.place
where (a.xid >= s.below or s.below is null)
  and (
    a.place <> h.place and exists (select from sealed as b where b.place = h.place)
    or a.place = h.place and (
      a.xid >= h.below
      or a.at > %(latest)s
      or a.id <= s.seen_id and a.id <= (
        select max(t.seen_id)
        from gdpr.audit_seal as t
        where t.place = a.place and t.own_xid <= a.xid
      )
    )
  )
order by a.id
limit 100
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not as it was sealed: the first seal and, where it can be told, record."""

    seal: int | None
    record: int | None
    finding: str


def verify(
    connection: psycopg.Connection,
    checkpoints: Iterable[Checkpoint] = (),
    advance: Callable[[int], object] = int,
) -> Iterator[Finding]:
    """Compute all seals anew, in constant memory.

    Args:
        connection: of an auditor, in a transaction of its own.
        checkpoints: kept from earlier; each seal they name has to be the one there is.
        advance: called with the records of each seal that was read.

    Yields:
        What was found; nothing where all is as it was.
    """
    connection.execute("set transaction isolation level repeatable read, read only")
    prepare(connection)
    seen = {c.seal: c.hash for c in checkpoints}
    drops = read_drops(connection, max(seen, default=None))
    dropped = max((d.before for d in drops if d.before and not d.forged), default=datetime.date.min)
    yield from _verify_chain(connection, seen, dropped, advance)
    yield from _verify_catalogs(connection)
    yield from _verify_drops(connection, drops, dropped)
    for (record,) in connection.execute(_BEHIND):
        yield Finding(None, record, "the record was added behind the seals")
    latest = {"latest": datetime.datetime.now(datetime.UTC) + A_DAY}
    for record, words in connection.execute(_BEYOND, latest):
        yield Finding(None, record, words)


def _verify_chain(
    connection: psycopg.Connection,
    seen: dict[int, str],
    dropped: datetime.date,
    advance: Callable[[int], object],
) -> Iterator[Finding]:
    """Compare seal by seal with the one before it, with checkpoints, and with its records."""
    here, below = one(connection, _HERE)
    numbers = _Numbers()
    kept = dict(seen)
    previous, number = "", 0
    for seal in read_seals(connection):
        number += 1
        if seal.id != number:
            yield Finding(seal.id, None, "a seal before it is missing")
            number = seal.id
        elif seal.previous != previous:
            yield Finding(seal.id, None, "it does not follow the seal before it")
        if seal.computed != seal.hash:
            yield Finding(seal.id, None, "the seal was changed")
        if kept.pop(seal.id, seal.hash) != seal.hash:
            yield Finding(seal.id, None, "it is not the seal of the checkpoint")
        if seal.ahead:
            yield Finding(seal.id, None, "the seal is dated after today")
        if seal.place == here and seal.below_xid > below:
            yield Finding(seal.id, None, "the seal is of transactions that have not been")
        if numbers.set_back(seal):
            yield Finding(
                seal.id,
                None,
                "its records have numbers that had been given before",
            )
        previous = seal.hash
        if seal.records and seal.month >= dropped:
            yield from _verify_seal(connection, seal)
            advance(seal.records)
    for number in sorted(kept):
        yield Finding(
            number,
            None,
            "the seal of the checkpoint is missing: seals were cut off, or the database is older",
        )


class _Numbers:
    """What seals have seen of the numbers of records: those of later transactions are higher."""

    def __init__(self) -> None:
        #: By place: the highest number that is settled.
        self._highest: dict[int, int] = {}
        #: By place: from which transaction on numbers are higher than which, the first first.
        self._later: dict[int, list[tuple[int, int]]] = {}

    def set_back(self, seal: Seal) -> bool:
        """Whether a seal holds a number that was given before its first transaction began."""
        highest = self._highest.get(seal.place, 0)
        later = self._later.setdefault(seal.place, [])
        if seal.seen_id is not None:
            heappush(later, (seal.own_xid, seal.seen_id))
        while later and later[0][0] <= seal.from_xid:
            highest = max(highest, heappop(later)[1])
        self._highest[seal.place] = highest
        return seal.first_id is not None and seal.first_id <= highest


def _verify_catalogs(connection: psycopg.Connection) -> Iterator[Finding]:
    """Compare what seals found in the catalog with the hash that they hold of it."""
    for seal, objects, catalog in connection.execute(_CATALOGS):
        if text_hash("\n".join(objects or ())) != catalog:
            yield Finding(seal, None, "what the seal found in the catalog was changed")


def _verify_drops(
    connection: psycopg.Connection, drops: list[Drop], dropped: datetime.date
) -> Iterator[Finding]:
    """What does not agree with the records that months were dropped."""
    for drop in drops:
        if drop.forged:
            yield Finding(None, drop.record, "the record drops months before their time")
        elif drop.younger:
            yield Finding(
                None,
                drop.record,
                "the record drops months that were kept when the checkpoint was made:"
                " audit_retain is younger than it",
            )
    if dropped > datetime.date.min:
        for (record,) in connection.execute(_LEFT_BEHIND, [dropped]):
            yield Finding(None, record, "the record is of a month that was dropped")


def _verify_seal(connection: psycopg.Connection, seal: Seal) -> Iterator[Finding]:
    """Compare the records of a seal with its root, and name the first that does not fit."""
    tree = Tree()
    blocks: list[bytes] = []
    short, full = bytearray(), _SHORT * BLOCK
    for _, record in read_records(connection, seal):
        leaf = leaf_hash(record)
        tree.add(leaf)
        short += leaf[:_SHORT]
        if len(short) == full:
            blocks.append(sha256(short).digest())
            short.clear()
    if short:
        blocks.append(sha256(short).digest())
    kept = bytes(seal.kept).hex() == seal.leaves
    if tree.root().hex() != seal.root or tree.size != seal.records:
        words = _difference(tree.size, seal.records)
        if kept:
            yield Finding(seal.id, _first(connection, seal, blocks), words)
        else:
            yield Finding(seal.id, None, f"{words}, and what tells which they are")
    elif not kept:
        yield Finding(seal.id, None, "what tells which record no longer fits was changed")
    yield from _verify_times(connection, seal)


def _first(connection: psycopg.Connection, seal: Seal, blocks: list[bytes]) -> int | None:
    """The first record that is not the one sealed in its place, as far as the seal tells."""
    sealed = [bytes(digest) for (digest,) in connection.execute(_BLOCKS, [seal.id])]
    for block, digest in enumerate(blocks):
        if block >= len(sealed) or digest != sealed[block]:
            break
    else:
        return None
    (leaves,) = connection.execute(_LEAVES, [seal.id, block]).fetchone() or (b"",)
    kept = bytes(leaves)
    first = None
    # to the end: a COPY that is broken off takes the transaction along
    for place, (number, record) in enumerate(read_records(connection, seal, block)):
        if (
            first is None
            and leaf_hash(record)[:_SHORT] != (kept[_SHORT * place : _SHORT * (place + 1)])
        ):
            first = number
    return first


def _verify_times(connection: psycopg.Connection, seal: Seal) -> Iterator[Finding]:
    """A record is not dated after its seal."""
    if seal.sealed_at[:7] > f"{seal.month:%Y-%m}":
        return
    where = {
        "place": seal.place,
        "sealed_at": seal.sealed_at,
        "month": seal.month,
        "from_xid": str(seal.from_xid),
        "below_xid": str(seal.below_xid),
        "first_id": seal.first_id,
        "last_id": seal.last_id,
    }
    for (record,) in connection.execute(_LATER, where):
        yield Finding(seal.id, record, "the record is dated after its seal")


def _difference(found: int, sealed: int) -> str:
    if found < sealed:
        missing = sealed - found
        return f"{missing} of {sealed} records {'is' if missing == 1 else 'are'} missing"
    if found > sealed:
        added = found - sealed
        return f"{added} record{' was' if added == 1 else 's were'} added"
    return "records were changed"
