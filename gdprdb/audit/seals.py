"""Seals as the database has them, and the records they were made of."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import psycopg
from psycopg.rows import class_row

#: How records and seals turn into text, whatever the session says.
_SETTINGS = "set timezone = 'UTC'; set datestyle = 'ISO'; set bytea_output = 'hex'"

_SEALS = """
select id, place::bigint, month, from_xid::text::numeric as from_xid,
  below_xid::text::numeric as below_xid, records, first_id, last_id, root, catalog,
  sealed_at::text, previous, hash
from gdpr.audit_seal
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
  order by xid, id
) to stdout (format binary)
"""


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal: see `gdpr.audit_seal`. Hashes are hexadecimal."""

    id: int
    place: int
    month: datetime.date
    from_xid: int
    below_xid: int
    records: int
    first_id: int | None
    last_id: int | None
    root: str
    catalog: str
    sealed_at: str
    previous: str
    hash: str

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
                self.catalog,
                self.sealed_at,
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


def read_seals(connection: psycopg.Connection, after: int = 0) -> list[Seal]:
    """The seals after one of them, in their order, a thousand at the most."""
    with connection.cursor(row_factory=class_row(Seal)) as cursor:
        return cursor.execute(_SEALS, [after]).fetchall()


def read_records(connection: psycopg.Connection, seal: Seal) -> Iterator[tuple[int, bytes]]:
    """Number and text of each record that now stands where the seal was made."""
    query = _RECORDS.format(
        place=int(seal.place),
        month=seal.month.isoformat(),
        from_xid=int(seal.from_xid),
        below_xid=int(seal.below_xid),
        first_id=int(seal.first_id or 0),
        last_id=int(seal.last_id or -1),
    )
    with connection.cursor().copy(query.encode()) as copy:
        copy.set_types(["int8", "bytea"])
        yield from copy.rows()
