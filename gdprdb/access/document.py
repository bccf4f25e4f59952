"""A report about a person as the database gives it: the facts at once, the rest page by page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import IsolationLevel

from gdprdb.dsn import one

#: Entries fetched at once.
PAGE = 1_000


class Number(str):
    """A JSON number with the digits that it was written with: 10.00 is not 10.0."""

    __slots__ = ()


def parsed(text: str) -> Any:
    """A JSON document, its numbers as `Number`."""
    return json.loads(text, parse_float=Number, parse_int=Number)


@dataclass(frozen=True, slots=True)
class Report:
    """A report that is whole already: one that a mail carries.

    Attributes:
        text: the document as JSON.
    """

    text: str
    facts: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", parsed(self.text))

    def entries(self, section: str, table: str | None = None) -> Iterator[dict[str, Any]]:
        """The entries of a section: rows (of a table), sources or history."""
        if table is None:
            yield from self.facts[section]
        else:
            for described in self.facts["tables"]:
                if described["table"] == table:
                    yield from described["rows"]

    def json(self) -> Iterator[str]:
        """The document as JSON, in pieces."""
        yield self.text
        yield "\n"


class Stream:
    """A report that is read while it is written, as often as it is asked for.

    The connection is put into a transaction in which all readings see the same: the report
    holds together whatever others write meanwhile.

    Args:
        connection: outside a transaction.
        person: the number of the person.
        portable: the portable copy (Art. 20) instead of the access report (Art. 15).
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        person: int,
        *,
        portable: bool = False,
    ) -> None:
        self._connection = connection
        self._person = person
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        query = (
            "select gdpr.portable_copy(%s, false)::text"
            if portable
            else "select gdpr.access_report(%s, false)::text"
        )
        (text,) = one(connection, query, [person])
        self.facts: dict[str, Any] = parsed(text)
        self._pages: list[tuple[str, str | None, str]] = connection.execute(
            "select section, table_name, page::text from gdpr.access_pages(%s, %s, %s)",
            [person, portable, PAGE],
        ).fetchall()

    def entries(self, section: str, table: str | None = None) -> Iterator[dict[str, Any]]:
        """The entries of a section: rows (of a table), sources or history."""
        return (parsed(text) for text in self._texts(section, table))

    def json(self) -> Iterator[str]:
        """The document as JSON, in pieces; numbers with the digits that the database has."""
        facts = dict(self.facts)
        tables = facts.pop("tables")
        yield dumped(facts)[:-1] + ', "tables": ['
        for n, table in enumerate(tables):
            yield ("" if n == 0 else ", ") + dumped(table)[:-1] + ', "rows": ['
            yield from _joined(self._texts("rows", table["table"]))
            yield "]}"
        yield "]"
        for section in ("sources", "history") if "subject" in facts else ():
            yield f', "{section}": ['
            yield from _joined(self._texts(section))
            yield "]"
        yield "}\n"

    def _texts(self, section: str, table: str | None = None) -> Iterator[str]:
        for found, name, page in self._pages:
            if (found, name) == (section, table):
                for (text,) in self._connection.execute(
                    "select r::text from gdpr.access_rows(%s, %s::jsonb) as r", [self._person, page]
                ):
                    yield text


def dumped(value: Any) -> str:
    """What `parsed` made of a JSON document, as JSON again."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{dumped(key)}: {dumped(item)}" for key, item in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(dumped, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _joined(texts: Iterator[str]) -> Iterator[str]:
    for n, text in enumerate(texts):
        yield text if n == 0 else f",\n{text}"
