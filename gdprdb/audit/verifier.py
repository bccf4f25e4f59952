"""Verification: every seal computed again from the records, every checkpoint compared."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import psycopg

from gdprdb.audit.checkpoints import Checkpoint
from gdprdb.audit.seals import Seal, prepare, read_records, read_seals, text_hash
from gdprdb.audit.tree import Tree, leaf_hash
from gdprdb.dsn import one

#: Bytes of each leaf that the database keeps to tell which record no longer fits.
_SHORT = 8

_LEAVES = "select leaves from gdpr.audit_block where seal = %s order by block"

_CATALOGS = """
select s.seal, c.objects, s.catalog
from (select min(id) as seal, catalog from gdpr.audit_seal group by catalog) as s
left join gdpr.audit_catalog as c on c.catalog = s.catalog
order by s.seal
"""

_DROPPED = """
select coalesce(max(before) filter (where not too_early), '-infinity')::text,
  array_agg(record) filter (where too_early)
from gdpr.audit_dropped
"""

_LEFT_BEHIND = """
select id from gdpr.audit_leaf where at < %s::timestamp at time zone 'UTC' order by id limit 1
"""

_BEYOND = """
with sealed as (
  select place, max(below_xid::text::numeric) as below from gdpr.audit_seal group by place
),
found as (
  select a.place, a.month, count(*) as records
  from gdpr.audit_leaf as a
  join sealed as s on s.place = a.place and a.xid::text::numeric < s.below
  group by a.place, a.month
)
select f.records - coalesce((
  select sum(s.records) from gdpr.audit_seal as s where s.place = f.place and s.month = f.month
), 0), f.month::text
from found as f
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
    before, early = one(connection, _DROPPED)
    dropped = datetime.date.min if before == "-infinity" else datetime.date.fromisoformat(before)
    previous, number = "", 0
    for seal in _seals(connection):
        number += 1
        if seal.id != number:
            yield Finding(seal.id, None, "a seal before it is missing")
            number = seal.id
        elif seal.previous != previous:
            yield Finding(seal.id, None, "it does not follow the seal before it")
        if seal.computed != seal.hash:
            yield Finding(seal.id, None, "the seal was changed")
        if seen.pop(seal.id, seal.hash) != seal.hash:
            yield Finding(seal.id, None, "it is not the seal of the checkpoint")
        previous = seal.hash
        if seal.records and seal.month >= dropped:
            yield from _verify_seal(connection, seal)
            advance(seal.records)
    for number in sorted(seen):
        yield Finding(
            number,
            None,
            "the seal of the checkpoint is missing: seals were cut off, or the database is older",
        )
    yield from _verify_catalogs(connection)
    for record in early or ():
        yield Finding(None, record, "the record drops months before their time")
    for (record,) in connection.execute(_LEFT_BEHIND, [before]):
        yield Finding(None, record, "the record is of a month that was dropped")
    for more, month in connection.execute(_BEYOND):
        if more > 0:
            yield Finding(None, None, f"{more} records of {month} were added behind the seals")


def _seals(connection: psycopg.Connection) -> Iterator[Seal]:
    """The seals in portions: a cursor cannot stay open while records are copied."""
    after = 0
    while portion := read_seals(connection, after):
        yield from portion
        after = portion[-1].id


def _verify_catalogs(connection: psycopg.Connection) -> Iterator[Finding]:
    """Compare what seals found in the catalog with the hash that they hold of it."""
    for seal, objects, catalog in connection.execute(_CATALOGS):
        if text_hash("\n".join(objects or ())) != catalog:
            yield Finding(seal, None, "what the seal found in the catalog was changed")


def _verify_seal(connection: psycopg.Connection, seal: Seal) -> Iterator[Finding]:
    """Compare the records of a seal with its root, and name the first that does not fit."""
    tree = Tree()
    for _, record in read_records(connection, seal):
        tree.add(leaf_hash(record))
    if tree.root().hex() != seal.root or tree.size != seal.records:
        yield Finding(seal.id, _first(connection, seal), _difference(tree.size, seal.records))


def _first(connection: psycopg.Connection, seal: Seal) -> int | None:
    """The first record that is not the one sealed in its place, as far as the database tells."""
    sealed = b"".join(bytes(leaves) for (leaves,) in connection.execute(_LEAVES, [seal.id]))
    first = None
    # to the end: a COPY that is broken off takes the transaction along
    for place, (number, record) in enumerate(read_records(connection, seal)):
        if (
            first is None
            and leaf_hash(record)[:_SHORT] != (sealed[_SHORT * place : _SHORT * (place + 1)])
        ):
            first = number
    return first


def _difference(found: int, sealed: int) -> str:
    if found < sealed:
        return f"{sealed - found} of {sealed} records are missing"
    if found > sealed:
        return f"{found - sealed} records were added"
    return "records were changed"
