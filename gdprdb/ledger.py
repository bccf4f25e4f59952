"""The ledger as a file: lines that the database wrote, and the signature of each part.

The database knows a ledger of its own by a MAC. That is no proof against who rules the
database, so whoever exports it signs it with a key that is kept elsewhere: Ed25519
(RFC 8032) over the text of the part's seal, which commits to every line before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from gdprdb.errors import GdprdbError, RefusedError

#: How a signature line begins: what is signed says itself who wrote it.
_SIGNATURE = '{"signature": "'

_HEX = re.compile(r"[0-9a-f]+")


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


def signer(key: str) -> Callable[[str], str]:
    """What signs with a private key.

    Args:
        key: 64 hexadecimal digits.

    Raises:
        GdprdbError: it is no such key.
    """
    private = Ed25519PrivateKey.from_private_bytes(_bytes(key))
    return lambda text: private.sign(text.encode()).hex()


def new_keys() -> tuple[str, str]:
    """A new private key, and the public key that goes with it: 64 hexadecimal digits each."""
    private = Ed25519PrivateKey.generate()
    return private.private_bytes_raw().hex(), private.public_key().public_bytes_raw().hex()


def read_key(path: Path) -> str:
    """The key that a file holds.

    Raises:
        OSError: the file cannot be read.
    """
    return path.read_text(encoding="ascii", errors="replace").strip()


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
    key = Ed25519PublicKey.from_public_bytes(_bytes(public_key))
    if part.signature is None:
        raise _refused("it is not signed")
    try:
        key.verify(bytes.fromhex(part.signature), part.lines[-1].encode())
    except (InvalidSignature, ValueError):
        raise _refused("the signature is not that of this key") from None


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


def _bytes(key: str) -> bytes:
    if len(key) != 64 or not _HEX.fullmatch(key):
        raise GdprdbError(
            "a key of the ledger is 64 hexadecimal digits",
            hint="Make one with gdprdb ledger keygen.",
        )
    return bytes.fromhex(key)


def _refused(why: str) -> RefusedError:
    return RefusedError(
        "the ledger is not as it was exported",
        details=(why,),
        hint="Take another copy of it: this one has been changed or cut.",
    )
