"""Proofs: that one record is under a checkpoint, for a third party without the database."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from gdprdb.audit.checkpoints import Checkpoint
from gdprdb.audit.seals import Seal, prepare, read_records, read_seals, text_hash
from gdprdb.audit.tree import audit_path, follow, leaf_hash
from gdprdb.dsn import one
from gdprdb.errors import GdprdbError, RefusedError

#: Which part of a seal's text the root is.
_ROOT = 11

_SEAL_OF = """
select coalesce(min(s.id), 0)
from gdpr.audit_leaf as a
join gdpr.audit_seal as s on s.place = a.place and s.month = a.month
  and a.xid >= s.from_xid and a.xid < s.below_xid and a.id between s.first_id and s.last_id
where a.id = %s
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
        raise GdprdbError(
            "the record is not sealed", hint="gdprdb audit seal seals what has been recorded."
        )
    seals: list[Seal] = []
    while portion := read_seals(connection, seals[-1].id if seals else number - 1):
        seals += portion
    place, text = -1, b""
    leaves: list[bytes] = []
    for found, content in read_records(connection, seals[0]):
        if found == record:
            place, text = len(leaves), content
        leaves.append(leaf_hash(content))
    path = audit_path(leaves, place)
    return {
        "gdprdb_proof": 1,
        "record": text.decode(),
        "path": [[side, sibling.hex()] for side, sibling in path],
        "seals": [seal.text for seal in seals],
    }


def check(proof: str, checkpoint: Checkpoint) -> str:
    """Make sure of a proof, with nothing but a checkpoint.

    Args:
        proof: as `prove` gives it, as JSON.
        checkpoint: one that is trusted, of the record's seal or of a later one.

    Returns:
        The record that is proven.

    Raises:
        RefusedError: it proves nothing.
    """
    try:
        document = json.loads(proof)
        record = str(document["record"])
        path = [(str(side), bytes.fromhex(sibling)) for side, sibling in document["path"]]
        seals = [str(text) for text in document["seals"]]
        root = seals[0].split("/")[_ROOT]
    except (ValueError, TypeError, KeyError, IndexError):
        raise _refused("it is no proof") from None
    if follow(leaf_hash(record.encode()), path).hex() != root:
        raise _refused("the record is not under its seal")
    hashes = [text_hash(text) for text in seals]
    for former, text in zip(hashes, seals[1:], strict=False):
        if text.rsplit("/", 1)[1] != former:
            raise _refused("a seal does not follow the one before it")
    if checkpoint.hash not in hashes:
        raise _refused("its seals do not lead to the checkpoint")
    return record


def _refused(why: str) -> RefusedError:
    return RefusedError("the proof does not hold", details=(why,))
