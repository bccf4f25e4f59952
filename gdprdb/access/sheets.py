"""Tables of a report as CSV: exact values, and nothing that a spreadsheet would run.

NULL is an empty field, an empty text is ``""``. A text that a spreadsheet would take for a
formula has an apostrophe before it, and so has one that begins with apostrophes and goes on like
that: taking one apostrophe away (`unguarded`) gives every value back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gdprdb.access.document import Number, Report, Stream, dumped

#: How a text begins that a spreadsheet may take for a formula, full-width signs included.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")

#: What has to stand in quotes; an empty text has to as well.
_QUOTED = re.compile('[",\r\n]|^\\s|\\s$|^$')


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """The text that `guarded` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def field(value: Any) -> str:
    """A value of a JSON document as a field."""
    if value is None:
        return ""
    if isinstance(value, Number):
        return str(value)
    text = guarded(value) if isinstance(value, str) else dumped(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def csv(report: Report | Stream, table: dict[str, Any]) -> Iterator[str]:
    """A table as CSV, line by line (RFC 4180, with a header).

    Args:
        report: where the rows come from.
        table: its description in the report.
    """
    columns = [column["name"] for column in table["columns"]]
    yield _line(columns)
    for row in report.entries("rows", table["table"]):
        yield _line([row.get(column) for column in columns])


def _line(values: list[Any]) -> str:
    return ",".join(field(value) for value in values) + "\r\n"
