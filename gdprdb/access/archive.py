"""A report as one ZIP: the letter, the document as JSON and a CSV for each table.

With a passphrase every entry is encrypted with AES-256 (WinZip AE-2: 7-Zip, WinZip, macOS and
KDE open it). The ZIP is written from front to back: its target need not be a file.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import IO, Any

import pyzipper

from gdprdb.access.document import Report, Stream
from gdprdb.access.letter import letter
from gdprdb.access.sheets import csv

#: Bytes collected before they are compressed.
_CHUNK = 64 * 1024


def passphrase() -> str:
    """A passphrase to be read out over the telephone: 120 random bits, no letter like another."""
    letters = [secrets.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(24)]
    return "-".join("".join(letters[start : start + 4]) for start in range(0, 24, 4))


def write(
    target: IO[bytes],
    report: Report | Stream,
    *,
    language: str | None = None,
    passphrase: str | None = None,
) -> None:
    """Write the ZIP of a report.

    Args:
        target: where to; written once, never read.
        report: what.
        language: of the letter.
        passphrase: of the encryption; without one there is none.
    """
    secured: dict[str, Any] = {"encryption": pyzipper.WZ_AES} if passphrase else {}
    with pyzipper.AESZipFile(
        target, "w", compression=pyzipper.ZIP_DEFLATED, allowZip64=True, **secured
    ) as archive:
        if passphrase:
            archive.setpassword(passphrase.encode())
            archive.setencryption(pyzipper.WZ_AES, nbits=256)
        for name, pieces in _entries(report, language):
            with archive.open(name, "w", force_zip64=True) as entry:
                for chunk in _chunks(pieces):
                    entry.write(chunk)


def _entries(report: Report | Stream, language: str | None) -> Iterator[tuple[str, Iterator[str]]]:
    yield "letter.html", letter(report, language)
    yield "report.json", report.json()
    taken: set[str] = set()
    for number, table in enumerate(report.facts["tables"], 1):
        # a name that every system can unpack, whatever the table is called
        plain = (
            re.sub(r"[^A-Za-z0-9._-]+", "_", table["table"].replace('"', "")).strip("._") or "table"
        )
        name = plain if plain.lower() not in taken else f"{plain}-{number}"
        taken.add(name.lower())
        yield f"tables/{name}.csv", csv(report, table)


def _chunks(pieces: Iterator[str]) -> Iterator[bytes]:
    held = bytearray()
    for piece in pieces:
        held += piece.encode()
        if len(held) >= _CHUNK:
            yield bytes(held)
            held.clear()
    yield bytes(held)
