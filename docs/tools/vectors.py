"""Test vectors of the format: fixed keys and IVs through the very functions that protect data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg

from docs.tools.stage import DATABASE, OWNER, stage
from gdprdb import migrate
from gdprdb.dsn import one

#: The text that gdpr.create_key('session') would have returned, and fixed random bytes.
KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
DATA_KEY = bytes(range(0x40, 0x80))
RENEWED_KEY = bytes(range(0xA0, 0xE0))
DIGEST_KEY = bytes(range(0x80, 0xA0))
IV = bytes(range(0xF0, 0x100))

#: Subject, column and plaintext of the values.
VALUES: tuple[tuple[int, int, str], ...] = (
    (1, 3, "Ada Larsen"),
    (2, 3, "Bruno Weiß"),
    (9007199254740993, 2147483647, ""),
    (42, 0, '{"file": "leads-2026.csv"}'),
)

#: Kind and spellings of one identifier each.
IDENTIFIERS: tuple[tuple[str, str], ...] = (
    ("email", "Ada@Example.org"),
    ("email", " \uff41\uff44\uff41@example.org. "),  # full-width letters
    ("email", "ada+news@example.org"),
    ("email", "info@xn--bcher-kva.example"),
    ("phone", "+45 32 12 34 56"),
    ("phone", "0045 (32) 123456"),
    ("text", "Straße"),
    ("exact", "AB-12"),
    ("phone", "n/a"),  # no identifier, and no other one's equal
    ("email", " "),
    ("exact", " "),
)


def generate() -> str:
    """The vectors as a JSON document; bytes are hexadecimal."""
    with stage() as cluster:
        migrate.init(cluster.dsn(DATABASE, OWNER))
        with psycopg.connect(cluster.dsn(DATABASE)) as superuser:
            return json.dumps(_vectors(superuser), ensure_ascii=False, indent=2) + "\n"


def _ring(ask: Callable[..., Any]) -> dict[str, Any]:
    """A person's key ring after one renewal, and a value under each of its keys."""
    ring = ask(
        "select gdpr_internal.ring_entry(%s, 2, '2026-10-01 00:00:00+00')"
        " || gdpr_internal.ring_entry(%s, 1, '2026-02-03 04:05:06+00')",
        RENEWED_KEY,
        DATA_KEY,
    )
    seal = "select gdpr_internal.seal_value(%s, %s, 1, 3, %s)"
    return {
        "ring": ring,
        "subject": 1,
        "column": 3,
        "values": [
            {"version": version, "plaintext": plaintext, "value": ask(seal, key, IV, plaintext)}
            for version, key, plaintext in (
                (2, bytes.fromhex(ring), "Ada Larsen"),
                (1, DATA_KEY, "Ada Byron"),
            )
        ],
    }


def _vectors(superuser: psycopg.Connection) -> dict[str, Any]:
    def ask(query: LiteralString, *parameters: object) -> Any:
        (answer,) = one(superuser, query, parameters)
        return answer.hex() if isinstance(answer, bytes) else answer

    kek = ask("select gdpr_internal.derive_key(%s)", KEY)
    return {
        "key": KEY,
        "key_encryption_key": kek,
        "check_value": ask(
            "select gdpr_internal.hmac('gdprdb/1/check'::bytea, %s, 'sha256')", bytes.fromhex(kek)
        ),
        "wrapped_keys": [
            {
                "context": context.hex(),
                "iv": IV.hex(),
                "key": key.hex(),
                "wrapped": ask(
                    "select gdpr_internal.wrap_key(%s, %s, %s, %s)",
                    bytes.fromhex(kek),
                    IV,
                    context,
                    key,
                ),
            }
            for context, key in (((1).to_bytes(8, "big"), DATA_KEY), (b"digest", DIGEST_KEY))
        ],
        "values": [
            {
                "data_key": DATA_KEY.hex(),
                "iv": IV.hex(),
                "subject": subject,
                "column": column,
                "plaintext": plaintext,
                "value": ask(
                    "select gdpr_internal.seal_value(%s, %s, %s::bigint, %s::integer, %s)",
                    DATA_KEY,
                    IV,
                    subject,
                    column,
                    plaintext,
                ),
            }
            for subject, column, plaintext in VALUES
        ],
        "key_ring": _ring(ask),
        "digests": [
            {
                "digest_key": DIGEST_KEY.hex(),
                "kind": kind,
                "value": value,
                "canonical": ask("select gdpr_internal.equal_form(%s, %s)", kind, value),
                "digest": str(
                    ask(
                        (
                            "select gdpr_internal.keyed_digest(%s, %s,"
                            " gdpr_internal.equal_form(%s, %s))"
                        ),
                        DIGEST_KEY,
                        kind,
                        kind,
                        value,
                    )
                ),
            }
            for kind, value in IDENTIFIERS
        ],
        "bare_forms": [
            {
                "canonical": canonical,
                "bare": ask("select gdpr_internal.bare_form('email', %s)", canonical),
            }
            for canonical in ("ada+news@example.org", "ada@example.org")
        ],
    }
