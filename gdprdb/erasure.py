"""The letter that tells a person what was erased, from the receipts in the ledger."""

from __future__ import annotations

import datetime
from typing import Any


def erasure_letter(receipt: dict[str, Any], finished: list[dict[str, Any]] | None) -> str:
    """What to tell the person, without a value of theirs.

    Args:
        receipt: of the erasure.
        finished: of what was erased later, when what kept it had ended.

    Returns:
        Paragraphs of plain text.
    """
    later = finished or []
    rows = sum(_rows(each) for each in [receipt, *later])
    kept = [line for line in (later or [receipt])[-1]["tables"] if line.get("kept")]
    places = sum(_touched(line) for line in receipt["tables"])
    paragraphs = [
        f"On {_day(receipt['erased_at'])} we erased your personal data:"
        f" {rows} records in {places} parts of our database."
    ]
    paragraphs.append(
        "Your addresses and numbers are kept as a one-way fingerprint only, so that we notice"
        " and refuse them should they come back to us by mistake."
    )
    if kept:
        paragraphs.append(
            "The law, or a claim, obliges us to keep some records. They are locked, nobody"
            " uses them for anything else, and they are erased by themselves when that ends:"
        )
        paragraphs.extend(_kept(line) for line in kept)
    if any(line.get("passed_on") for line in receipt["tables"]):
        paragraphs.append(
            "Records that are about somebody else, too, stay with that person,"
            " without what they said about you."
        )
    if any(each["key_destroyed"] for each in [receipt, *later]):
        paragraphs.append(
            "The key under which your data was encrypted has been destroyed:"
            " copies in our backups cannot be read any more."
        )
    paragraphs.append(
        "You may lodge a complaint with a supervisory authority, and seek a judicial remedy"
        " (Art. 77 and 79 GDPR)."
    )
    return "\n\n".join(paragraphs) + "\n"


def _rows(receipt: dict[str, Any]) -> int:
    return sum(int(line["rows"]) for line in receipt["tables"])


def _touched(line: dict[str, Any]) -> bool:
    return bool(line["rows"] or line.get("passed_on"))


def _kept(line: dict[str, Any]) -> str:
    until = f", until {_day(line['kept_until'])} at the earliest" if "kept_until" in line else ""
    return f"- {line['kept']} records ({line['table']}){until}"


def _day(moment: str) -> str:
    day = datetime.datetime.fromisoformat(moment)
    return f"{day.day} {day:%B %Y}"
