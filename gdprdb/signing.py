"""Keys that sign what the database gives away: Ed25519 (RFC 8032), kept where the database is not.

Who rules the database could change what it says later; a signature from elsewhere shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from gdprdb.errors import GdprdbError

_HEX = re.compile(r"[0-9a-f]{64}")


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


def signer(key: str) -> Callable[[str], str]:
    """What signs with a private key.

    Args:
        key: 64 hexadecimal digits.

    Returns:
        A function from a text to its signature, hexadecimal.

    Raises:
        GdprdbError: it is no such key.
    """
    private = Ed25519PrivateKey.from_private_bytes(_bytes(key))
    return lambda text: private.sign(text.encode()).hex()


def is_signed(text: str, signature: str, public_key: str) -> bool:
    """Whether a text was signed by the owner of a key.

    Args:
        text: what was signed.
        signature: hexadecimal.
        public_key: 64 hexadecimal digits.

    Raises:
        GdprdbError: that is no public key.
    """
    key = Ed25519PublicKey.from_public_bytes(_bytes(public_key))
    try:
        key.verify(bytes.fromhex(signature), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _bytes(key: str) -> bytes:
    if not _HEX.fullmatch(key):
        raise GdprdbError(
            "a key is 64 hexadecimal digits", hint="Make one with gdprdb ledger keygen."
        )
    return bytes.fromhex(key)
