"""Seals as the database has them, and the records they were made of."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import psycopg
from psycopg.rows import class_row

#: Records in a block of a seal.
BLOCK = 65_536

#: How far a clock may have been wrong.
A_DAY = datetime.timedelta(days=1)

#: How records and seals turn into text, whatever the session says.
_SETTINGS = "set timezone = 'UTC'; set datestyle = 'ISO'; set bytea_output = 'hex'"

_SEALS = """
select id, place::bigint, month, from_xid::text::numeric as from_xid,
  below_xid::text::numeric as below_xid, records, first_id, last_id, root, leaves,
  catalog, sealed_at::text, own_xid::text::numeric as own_xid, seen_id, previous, hash,
  sealed_at > %s as ahead,
  (
    select sha256(coalesce(string_agg(sha256(b.leaves), ''::bytea order by b.block), ''))
    from gdpr.audit_block as b
    where b.seal = s.id
  ) as kept
from gdpr.audit_seal as s
where id > %s
order by id
limit 1000
"""

_RECORDS = """
copy (
  select id, record
  from gdpr.audit_leaf
  where place = {place}::oid and at >= '{month} 00:00+00'
    and at < '{month} 00:00+00'::timestamptz + interval '1 month'
    and xid >= '{from_xid}'::xid8 and xid < '{below_xid}'::xid8
    and id between {first_id} and {last_id}
  order by xid, id{part}
) to stdout (format binary)
"""


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal: see `gdpr.audit_seal`. Hashes in it are hexadecimal."""

    id: int
    place: int
    month: datetime.date
    from_xid: int
    below_xid: int
    records: int
    first_id: int | None
    last_id: int | None
    root: str
    leaves: str
    catalog: str
    sealed_at: str
    own_xid: int
    seen_id: int | None
    previous: str
    hash: str
    #: Whether it is dated after the time that was asked for.
    ahead: bool
    #: The hash that `leaves` should be, of what the database keeps now.
    kept: bytes

    @property
    def text(self) -> str:
        """What was hashed."""
        return "/".join(
            "" if part is None else str(part)
            for part in (
                "gdprdb/1/seal",
                self.id,
                self.place,
                self.month,
                self.from_xid,
                self.below_xid,
                self.records,
                self.first_id,
                self.last_id,
                self.root,
                self.leaves,
                self.catalog,
                self.sealed_at,
                self.own_xid,
                self.seen_id,
                self.previous,
            )
        )

    @property
    def computed(self) -> str:
        """The hash that it should have."""
        return text_hash(self.text)


def text_hash(text: str) -> str:
    """The hash of a seal's text."""
    return sha256(text.encode()).hexdigest()


def prepare(connection: psycopg.Connection) -> None:
    """Make the session write records as they were sealed."""
    connection.execute(_SETTINGS)


def read_seals(connection: psycopg.Connection, after: int = 0) -> Iterator[Seal]:
    """The seals after one of them, in their order.

    They come in portions: a cursor cannot stay open while records are copied.
    """
    latest = datetime.datetime.now(datetime.UTC) + A_DAY
    while True:
        with connection.cursor(row_factory=class_row(Seal)) as cursor:
            portion = cursor.execute(_SEALS, [latest, after]).fetchall()
        if not portion:
            return
        yield from portion
        after = portion[-1].id


def read_records(
    connection: psycopg.Connection, seal: Seal, block: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Number and text of each record that now stands where the seal was made; all of them, or
    those of one block."""
    query = _RECORDS.format(
        place=int(seal.place),
        month=seal.month.isoformat(),
        from_xid=int(seal.from_xid),
        below_xid=int(seal.below_xid),
        first_id=int(seal.first_id or 0),
        last_id=int(seal.last_id or -1),
        part="" if block is None else f" limit {BLOCK} offset {BLOCK * block}",
    )
    with connection.cursor().copy(query.encode()) as copy:
        copy.set_types(["int8", "bytea"])
        yield from copy.rows()
