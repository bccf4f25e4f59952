"""The published format: another library opens what gdprdb wrote, from docs/format.md alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from docs import build
from docs.tools import vectors

PAGE = (build.ROOT / "docs" / "format.md").read_text(encoding="utf-8")
FOUND = re.search(r"(?s)<!-- vectors -->\n+```json\n(.*?)```", PAGE)
VECTORS: dict[str, Any] = json.loads(FOUND[1] if FOUND else "{}")


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256."""
    return hmac.digest(key, message, hashlib.sha256)


def decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """AES-256-CBC, without looking at the padding."""
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return decryptor.update(ciphertext) + decryptor.finalize()


def open_value(data_key: bytes, subject: int, column: int, value: str, version: int = 1) -> str:
    """A value, as docs/format.md says."""
    assert value.startswith("gdpr1:")
    raw = base64.b64decode(value.removeprefix("gdpr1:"), validate=True)
    header = (
        b"\x01"
        + version.to_bytes(4, "big")
        + subject.to_bytes(8, "big")
        + column.to_bytes(4, "big")
    )
    assert raw[:17] == header
    assert hmac.compare_digest(raw[-32:], mac(data_key[32:], raw[:-32]))
    unpadder = PKCS7(128).unpadder()
    padded = decrypt(data_key[:32], raw[17:33], raw[33:-32])
    return (unpadder.update(padded) + unpadder.finalize()).decode()


def kek() -> bytes:
    """The key-encryption key behind the text of the vectors."""
    text = VECTORS["key"].encode()
    return mac(text, b"gdprdb/1/encrypt") + mac(text, b"gdprdb/1/authenticate")


@pytest.mark.parametrize("vector", VECTORS["values"], ids=lambda vector: vector["plaintext"][:10])
def test_a_value_is_opened(vector: dict[str, Any]) -> None:
    opened = open_value(
        bytes.fromhex(vector["data_key"]), vector["subject"], vector["column"], vector["value"]
    )
    assert opened == vector["plaintext"]


def test_a_key_ring_opens_values_of_each_of_its_keys() -> None:
    vector = VECTORS["key_ring"]
    ring = bytes.fromhex(vector["ring"])
    keys = {
        int.from_bytes(ring[place + 64 : place + 68], "big"): ring[place : place + 64]
        for place in range(0, len(ring), 80)
    }
    assert list(keys) == [2, 1]
    for value in vector["values"]:
        opened = open_value(
            keys[value["version"]],
            vector["subject"],
            vector["column"],
            value["value"],
            value["version"],
        )
        assert opened == value["plaintext"]


def test_the_key_encryption_key_is_derived() -> None:
    assert kek().hex() == VECTORS["key_encryption_key"]
    assert mac(kek(), b"gdprdb/1/check").hex() == VECTORS["check_value"]


@pytest.mark.parametrize("vector", VECTORS["wrapped_keys"], ids=lambda vector: vector["context"])
def test_a_wrapped_key_is_opened(vector: dict[str, Any]) -> None:
    wrapped = bytes.fromhex(vector["wrapped"])
    context = bytes.fromhex(vector["context"])
    assert wrapped[-32:] == mac(kek()[32:], context + wrapped[:-32])
    assert decrypt(kek()[:32], wrapped[:16], wrapped[16:-32]).hex() == vector["key"]


@pytest.mark.parametrize("vector", VECTORS["digests"], ids=lambda vector: vector["value"])
def test_a_digest_is_computed(vector: dict[str, Any]) -> None:
    message = f"{vector['kind']}:{vector['canonical']}".encode()
    digest = mac(bytes.fromhex(vector["digest_key"]), message)[:16]
    assert uuid.UUID(bytes=digest) == uuid.UUID(vector["digest"])


def test_the_vectors_are_what_the_database_gives() -> None:
    assert json.loads(vectors.generate()) == VECTORS
