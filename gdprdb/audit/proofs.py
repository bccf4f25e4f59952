"""Proofs: that one record is under a checkpoint, for a third party without the database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from gdprdb.audit.checkpoints import Checkpoint
from gdprdb.audit.drops import read_drops
from gdprdb.audit.seals import prepare, read_records, read_seals, text_hash
from gdprdb.audit.tree import Tree, follow, leaf_hash
from gdprdb.dsn import one
from gdprdb.errors import GdprdbError, RefusedError

#: Which parts of a seal's text its number, its root and its time are.
_ID, _ROOT, _SEALED_AT = 3, 11, 14

#: The columns of a record, in the order of its text.
COLUMNS = (
    *("id", "at", "xid", "operation", "table_id", "subject_id", "row_key", "purpose_id", "actor"),
    *("request", "login", "role", "client_addr", "application_name", "changed", "row_hash"),
    "payload",
)

#: A column in the text of a row: quoted, as it is, or nothing for NULL.
_COLUMN = re.compile(r'(?:"((?:[^"\\]|""|\\.)*)"|([^,"\\]*))(?:,|$)', re.DOTALL)
_ESCAPED = re.compile(r'"(")|\\(.)', re.DOTALL)

_SEAL_OF = """
select coalesce(min(s.id), 0)
from gdpr.audit_leaf as a
join gdpr.audit_seal as s on s.place = a.place and s.month = a.month
  and a.xid >= s.from_xid and a.xid < s.below_xid and a.id between s.first_id and s.last_id
where a.id = %s
"""

_IS_RECORDED = "select exists (select from gdpr.audit_leaf where id = %s)"

_WAS_SEALED = """
select exists (
  select from gdpr.audit_seal where month < %s and %s between first_id and last_id
)
"""


def prove(connection: psycopg.Connection, record: int) -> dict[str, Any]:
    """What shows that a record is under the last seal.

    Args:
        connection: of an auditor.
        record: its number.

    Returns:
        ``record`` (the text), ``path`` (sides and hashes from the leaf to the root of its seal),
        ``seals`` (the texts of its seal and all later ones, each naming the hash of the former).

    Raises:
        GdprdbError: there is no such record, or it is not sealed yet.
    """
    prepare(connection)
    (number,) = one(connection, _SEAL_OF, [record])
    if not number:
        raise _missing(connection, record)
    seals = list(read_seals(connection, number - 1))
    text, tree = b"", Tree()
    for found, content in read_records(connection, seals[0]):
        if found == record:
            text = content
        tree.add(leaf_hash(content), wanted=found == record)
    return {
        "gdprdb_proof": 1,
        "record": text.decode(),
        "path": [[side, sibling.hex()] for side, sibling in tree.path() or ()],
        "seals": [seal.text for seal in seals],
    }


def _missing(connection: psycopg.Connection, record: int) -> GdprdbError:
    """Why there is no proof of a record."""
    (recorded,) = one(connection, _IS_RECORDED, [record])
    if recorded:
        return GdprdbError(
            f"audit record {record} is not sealed yet",
            hint="gdprdb audit seal seals it, once the transactions that were open beside it end.",
        )
    for drop in reversed(read_drops(connection)):
        if not drop.forged and one(connection, _WAS_SEALED, [drop.before, record])[0]:
            return GdprdbError(
                f"audit record {record} is of a month that was dropped",
                hint=f"Months before {drop.before} were dropped on {drop.dropped_at[:10]}.",
            )
    return GdprdbError(
        f"there is no audit record {record}", hint="gdprdb audit tail shows numbers of records."
    )


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows.

    Attributes:
        record: its columns by name, as texts; None for NULL.
        seal: the number of its seal.
        sealed_at: since when it is sealed.
        checkpoint: the first that the proof leads to.
    """

    record: dict[str, str | None]
    seal: int
    sealed_at: str
    checkpoint: Checkpoint


def check(proof: str, checkpoints: Iterable[Checkpoint]) -> Proven:
    """Make sure of a proof, with nothing but checkpoints.

    Args:
        proof: as `prove` gives it, as JSON.
        checkpoints: that are trusted; one has to be of the record's seal, or of a later one that
            the proof names. Those made after the proof say nothing about it.

    Returns:
        The record that is proven, and since when.

    Raises:
        RefusedError: it proves nothing.
    """
    try:
        document = json.loads(proof)
        record = str(document["record"])
        path = [(str(side), bytes.fromhex(sibling)) for side, sibling in document["path"]]
        seals = [str(text) for text in document["seals"]]
        parts = seals[0].split("/")
        seal, root, sealed_at = int(parts[_ID]), parts[_ROOT], parts[_SEALED_AT]
    except (ValueError, TypeError, KeyError, IndexError):
        raise _refused("it is no proof") from None
    if follow(leaf_hash(record.encode()), path).hex() != root:
        raise _refused("the record is not under its seal")
    hashes = [text_hash(text) for text in seals]
    for former, text in zip(hashes, seals[1:], strict=False):
        if text.rsplit("/", 1)[1] != former:
            raise _refused("a seal does not follow the one before it")
    # the first of them: what was seen then, was so since then
    for checkpoint in sorted(checkpoints, key=lambda c: c.seal):
        if checkpoint.hash in hashes:
            return Proven(_columns(record), seal, sealed_at, checkpoint)
    raise _refused("its seals do not lead to a checkpoint of the file")


def _columns(record: str) -> dict[str, str | None]:
    """The columns of a record, from the text that PostgreSQL makes of a row."""
    texts = [
        match[2] or None if match[1] is None else _ESCAPED.sub(r"\1\2", match[1])
        for match in _COLUMN.finditer(record[1:-1])
    ]
    # where the last column is not NULL, the end is found once more as a column
    return dict(zip(COLUMNS, texts, strict=False))


def _refused(why: str) -> RefusedError:
    return RefusedError("the proof does not hold", details=(why,))
