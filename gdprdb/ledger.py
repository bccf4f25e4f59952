"""The ledger as a file: lines that the database wrote, and the signature of each part.

The database knows a ledger of its own by a MAC. That is no proof against who rules the
database, so whoever exports it signs it with a key that is kept elsewhere: Ed25519
(RFC 8032) over the text of the part's seal, which commits to every line before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from gdprdb.errors import RefusedError
from gdprdb.signing import is_signed

#: How a signature line begins: what is signed says itself who wrote it.
_SIGNATURE = '{"signature": "'


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a ledger, as the database takes it.

    Attributes:
        lines: header, entries and seal.
        signature: of the seal, hexadecimal; None where it was not signed.
        digest: of the lines before the seal, as the file has them.
    """

    lines: list[str]
    signature: str | None
    digest: str

    @property
    def document(self) -> str:
        """The part as one JSON document, for gdpr.replay() and gdpr.check_ledger()."""
        return f"[{','.join(self.lines)}]"


def signing(lines: Iterable[str], sign: Callable[[str], str]) -> Iterator[str]:
    """The lines of a ledger, with a signature after each seal.

    Args:
        lines: as gdpr.ledger() gives them.
        sign: what signs a text.
    """
    for line in lines:
        yield line
        if "seal" in json.loads(line):
            yield f'{_SIGNATURE}{sign(line)}"}}'


def parts(lines: Iterable[str]) -> Iterator[Part]:
    """The parts of a ledger, each whole, in their order and the last one there.

    Args:
        lines: those of the file.

    Raises:
        RefusedError: lines were cut, added or changed.
    """
    previous, more = None, True
    for part in _parts(lines):
        header = json.loads(part.lines[0])
        seal = json.loads(part.lines[-1])["seal"]
        if not more or header.get("previous") != previous:
            raise _refused("a part is missing, or stands in another place")
        if seal["digest"] != part.digest or seal["entries"] != len(part.lines) - 2:
            raise _refused("lines were changed, added or taken away")
        yield part
        previous, more = part.digest, seal["more"]
    if more:
        raise _refused("it ends before its last part")


def verify(part: Part, public_key: str) -> None:
    """Make sure that a part was signed by the owner of a key.

    Args:
        part: the part.
        public_key: 64 hexadecimal digits.

    Raises:
        RefusedError: it was not.
        GdprdbError: that is no public key.
    """
    if part.signature is None:
        raise _refused("it is not signed")
    if not is_signed(part.lines[-1], part.signature, public_key):
        raise _refused("the signature is not that of this key")


def _parts(lines: Iterable[str]) -> Iterator[Part]:
    """Lines put together to parts, each with the digest of what it holds."""
    part: list[str] = []
    signature, digest, sealed = None, b"", False
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        try:
            document = json.loads(line)
        except json.JSONDecodeError:
            raise _refused(f"line {number} is not JSON") from None
        if not isinstance(document, dict):
            raise _refused(f"line {number} is no document")
        if "gdprdb_ledger" in document and sealed:
            yield Part(part, signature, digest.hex())
            part, signature, digest, sealed = [], None, b"", False
        if "signature" in document and sealed and signature is None:
            signature = str(document["signature"])
        elif ("gdprdb_ledger" in document) == bool(part) or sealed:
            raise _refused(f"line {number} stands in the wrong place")
        else:
            part.append(line)
            sealed = "seal" in document
            digest = digest if sealed else sha256(digest + line.encode()).digest()
    if not sealed:
        raise _refused("it ends without a seal")
    yield Part(part, signature, digest.hex())


def _refused(why: str) -> RefusedError:
    return RefusedError(
        "the ledger is not as it was exported",
        details=(why,),
        hint="Take another copy of it: this one has been changed or cut.",
    )
