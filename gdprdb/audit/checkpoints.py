"""Checkpoints: what is kept outside of the database, a line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gdprdb.errors import RefusedError
from gdprdb.signing import is_signed


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A seal as it was seen.

    Attributes:
        seal: its number.
        hash: its hash, hexadecimal.
        document: the whole, as `gdpr.audit_checkpoint()` gave it.
    """

    seal: int
    hash: str
    document: dict[str, Any]


def written(document: dict[str, Any], sign: Callable[[str], str] | None) -> str:
    """A checkpoint as a line, signed where there is a key."""
    signature = {"signature": sign(_text(document))} if sign else {}
    return _text({"checkpoint": document, **signature})


def read(lines: Iterable[str], public_key: str | None) -> Iterator[Checkpoint]:
    """The checkpoints of a file.

    Args:
        lines: of the file.
        public_key: what has to have signed each of them.

    Raises:
        RefusedError: a line is no checkpoint, or not signed by that key.
    """
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            document = entry["checkpoint"]
            checkpoint = Checkpoint(int(document["seal"]), str(document["hash"]), document)
        except (ValueError, TypeError, KeyError):
            raise _refused(f"line {number} is no checkpoint") from None
        if public_key and not is_signed(
            _text(document), str(entry.get("signature", "")), public_key
        ):
            raise _refused(f"line {number} is not signed with this key")
        yield checkpoint
    if not number:
        raise _refused("there is no line in it")


def _text(document: dict[str, Any]) -> str:
    """JSON in one way only: it is signed."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _refused(why: str) -> RefusedError:
    return RefusedError(
        "the checkpoints are not as they were written",
        details=(why,),
        hint="Take another copy of the file: this one has been changed or cut.",
    )
