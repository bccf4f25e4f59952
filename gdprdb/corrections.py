"""Rows of a protected table as a CSV file that officers correct in a spreadsheet, and what
they changed.

The file has the primary key, every column that can be corrected, and `VERSION`, a
digest of the row by which a row that changed meanwhile is known. A spreadsheet loses
quotes and runs formulas, so both are written otherwise: an empty cell is NULL, and text
that is empty, begins with an apostrophe or like a formula has an apostrophe in front.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from gdprdb.errors import GdprdbError

#: The column of the file that no row of a table has.
VERSION = "gdpr_version"

#: Keys looked up, and changes made, by one call.
CHUNK = 10_000

#: What a spreadsheet would run; the apostrophe, so that taking it away gives the value back.
_GUARDED = ("=", "+", "-", "@", "\t", "\r", "'")

#: Values as the server compares them, whatever the session says.
_EXACT = """
select set_config('datestyle', 'ISO, YMD', true), set_config('timezone', 'UTC', true),
  set_config('intervalstyle', 'postgres', true), set_config('extra_float_digits', '3', true),
  set_config('bytea_output', 'hex', true)
"""

_LAYOUT = """
select t.table_name::text, parse_ident(t.clear_view), (
  select array_agg(a.attname::text order by k.n)
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = t.table_name and x.indisprimary
), (
  select array_agg(format_type(a.atttypid, a.atttypmod) order by k.n)
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = t.table_name and x.indisprimary
), (
  select array_agg(c.column_name::text) from gdpr.rectifiable_column as c
  where c.table_name = t.table_name
)
from gdpr.protected_table as t
where t.table_name = (select gdpr.table_named(%s))
"""

Key = tuple[str, ...]
Values = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file of a table looks like.

    Attributes:
        table: its name, as `gdpr.table_named` takes it.
        view: its clear view.
        key: the columns of the primary key.
        key_types: their types.
        columns: those that can be corrected.
    """

    table: str
    view: tuple[str, ...]
    key: tuple[str, ...]
    key_types: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def header(self) -> list[str]:
        """The first line of the file."""
        return [*self.key, *self.columns, VERSION]

    def key_text(self, key: Key) -> str:
        """A key as gdprdb's functions take it."""
        return key[0] if len(key) == 1 else json.dumps(list(key), ensure_ascii=False)

    def read_key(self, text: str) -> Key:
        """A key from the form in which gdprdb's functions give it."""
        return (text,) if len(self.key) == 1 else tuple(json.loads(text))

    def version(self, key: Key, values: Values) -> str:
        """What differs as soon as anything in the row does."""
        return hashlib.sha256(json.dumps([*key, *values]).encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class Line:
    """A row as the file has it: its number there, and the cells that can be corrected."""

    number: int
    key: Key
    cells: dict[str, str | None]
    version: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file, and where."""

    line: int
    column: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A value that somebody changed in the file."""

    line: Line
    column: str
    old: str | None
    new: str | None

    def change(self, layout: Layout) -> dict[str, str | None]:
        """The same as gdpr.rectify_rows() takes it."""
        return {
            "table": layout.table,
            "key": layout.key_text(self.line.key),
            "column": self.column,
            "value": self.new,
            "was": self.old,
        }


def layout_of(connection: psycopg.Connection, table: str) -> Layout:
    """How a file of this table looks.

    Args:
        connection: of an officer.
        table: its name, as `gdpr.table_named` takes it.

    Raises:
        GdprdbError: it is not protected, or its rows cannot be named.
    """
    row = connection.execute(_LAYOUT, [table]).fetchone()
    if row is None:
        raise GdprdbError(f"{table} is not a protected table")
    name, view, key, types, columns = row
    if not key:
        raise GdprdbError(f"{table} has no primary key: its rows cannot be named")
    if not columns:
        raise GdprdbError(f"{table} has no column that can be corrected")
    return Layout(name, tuple(view), tuple(key), tuple(types), tuple(columns))


def guarded(value: str | None) -> str:
    """A value as a cell of a spreadsheet that comes back as it was."""
    if value is None:
        return ""
    return f"'{value}" if value == "" or value.startswith(_GUARDED) else value


def unguarded(cell: str) -> str | None:
    """The value of a cell."""
    return cell.removeprefix("'") if cell else None


def rows(
    connection: psycopg.Connection, layout: Layout, keys: Sequence[Key] | None = None
) -> Iterator[tuple[Key, Values]]:
    """Rows in plaintext, streamed, with the rights of whoever asks.

    Args:
        connection: in a transaction.
        layout: of the table.
        keys: which rows; None: all.
    """
    connection.execute(_EXACT)
    query = sql.SQL("select {} from {} as t").format(
        sql.SQL(", ").join(
            sql.SQL("t.{}::text").format(sql.Identifier(name))
            for name in (*layout.key, *layout.columns)
        ),
        sql.Identifier(*layout.view),
    )
    parameters: list[object] = []
    if keys is not None:
        parameters = [[key[n] for key in keys] for n in range(len(layout.key))]
        query += sql.SQL(" where ({}) in (select {} from unnest({}) as k ({}))").format(
            sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in layout.key),
            sql.SQL(", ").join(sql.Identifier(name) for name in layout.key),
            sql.SQL(", ").join(
                sql.SQL("%s::text[]::{}[]").format(sql.SQL(kind)) for kind in layout.key_types
            ),
            sql.SQL(", ").join(sql.Identifier(name) for name in layout.key),
        )
    query += sql.SQL(" order by {}").format(
        sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in layout.key)
    )
    with connection.cursor(name="gdprdb_rows") as cursor:
        cursor.itersize = 5_000
        cursor.execute(query, parameters)
        width = len(layout.key)
        for row in cursor:
            yield tuple(row[:width]), tuple(row[width:])


def write(
    connection: psycopg.Connection, layout: Layout, keys: Sequence[Key] | None
) -> Iterator[str]:
    """The lines of a file.

    Args:
        connection: in a transaction.
        layout: of the table.
        keys: which rows; None: all.
    """
    sheet = csv.writer(_Echo(), lineterminator="\n")
    yield sheet.writerow(layout.header)
    for key, values in rows(connection, layout, keys):
        cells = [guarded(value) for value in (*key, *values)]
        yield sheet.writerow([*cells, layout.version(key, values)])


class _Echo:
    """A file that gives back what is written to it."""

    def write(self, text: str) -> str:
        """Give the text back."""
        return text


def read(file: Iterable[bytes], layout: Layout) -> tuple[list[Line], list[Problem]]:
    """The rows of a file, and what is wrong with it at first sight.

    Args:
        file: its lines, as bytes; columns may be left out, but for the key and the version.
        layout: of its table.
    """
    problems: list[Problem] = []
    records = _records(file, problems)
    header = next(records, (1, []))[1]
    problems += [
        Problem(1, name, "is no column of the table that can be corrected")
        for name in header
        if name not in layout.header
    ]
    problems += [
        Problem(1, name, "is named twice") for name in sorted(set(header)) if header.count(name) > 1
    ]
    problems += [
        Problem(1, name, "is missing") for name in (*layout.key, VERSION) if name not in header
    ]
    if problems:
        return [], problems
    lines: list[Line] = []
    seen: dict[Key, int] = {}
    for number, cells in records:
        if len(cells) != len(header):
            problems.append(Problem(number, None, f"has {len(cells)} cells of {len(header)}"))
            continue
        named = {name: unguarded(cell) for name, cell in zip(header, cells, strict=True)}
        key = tuple(named[name] or "" for name in layout.key)
        if key in seen:
            problems.append(Problem(number, layout.key[0], f"is the row of line {seen[key]}"))
            continue
        seen[key] = number
        values = {name: named[name] for name in header if name in layout.columns}
        lines.append(Line(number, key, values, named[VERSION] or ""))
    return lines, problems


def _records(file: Iterable[bytes], problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """The records of a file that are not empty, each with the line that it begins on.

    Args:
        file: its lines.
        problems: gets what ends the reading before the end of the file.
    """
    text = _decoded(file, problems)
    first = next(text, "")
    # what spreadsheets write, by country
    delimiter = max(",;\t", key=first.count)
    sheet = csv.reader(itertools.chain([first], text), delimiter=delimiter, strict=True)
    csv.field_size_limit(2**31 - 1)  # a value may be as long as the server takes it
    begins = 1
    try:
        for cells in sheet:
            # a spreadsheet keeps rows that were emptied
            if any(cells):
                yield begins, cells
            begins = sheet.line_num + 1
    except csv.Error as error:
        problems.append(Problem(begins, None, f"is no CSV from here on: {error}"))


def _decoded(file: Iterable[bytes], problems: list[Problem]) -> Iterator[str]:
    """The lines of a file as text, without a byte order mark."""
    for number, line in enumerate(file, 1):
        try:
            text = line.decode()
            if "\0" in text:
                raise UnicodeError
        except UnicodeError:
            problems.append(Problem(number, None, "is not UTF-8: save the file as CSV UTF-8"))
            return
        yield text.removeprefix("\ufeff") if number == 1 else text


def edits(
    connection: psycopg.Connection, layout: Layout, lines: Sequence[Line]
) -> tuple[list[Edit], list[Problem], list[Problem]]:
    """What differs between a file and the rows, what is wrong, and rows that changed meanwhile.

    Args:
        connection: in a transaction.
        layout: of the table.
        lines: of the file.
    """
    found: list[Edit] = []
    problems: list[Problem] = []
    changed: list[Problem] = []
    for start in range(0, len(lines), CHUNK):
        part = lines[start : start + CHUNK]
        there = _there(connection, layout, [line.key for line in part])
        for line in part:
            values = there.get(line.key)
            if values is None:
                problems.append(Problem(line.number, layout.key[0], "is the key of no row"))
                continue
            now = dict(zip(layout.columns, values, strict=True))
            differing = [
                Edit(line, name, now[name], value)
                for name, value in line.cells.items()
                if _lines_alike(value) != _lines_alike(now[name])
            ]
            if differing and layout.version(line.key, values) != line.version:
                # nobody knows which of the two is meant
                changed.append(Problem(line.number, None, "the row was changed meanwhile"))
            else:
                found += differing
    return found, problems, changed


def _lines_alike(value: str | None) -> str | None:
    """A value with one kind of line ends: programs on Windows write theirs."""
    return value and value.replace("\r\n", "\n")


def _there(
    connection: psycopg.Connection, layout: Layout, keys: Sequence[Key]
) -> dict[Key, Values]:
    """The rows of these keys; what cannot be a key has none."""
    try:
        with connection.transaction():
            return dict(rows(connection, layout, keys))
    except psycopg.DataError:
        if len(keys) == 1:
            return {}
    half = len(keys) // 2
    return _there(connection, layout, keys[:half]) | _there(connection, layout, keys[half:])


def judge(
    connection: psycopg.Connection, layout: Layout, found: Sequence[Edit]
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """What the database would change, copies in other tables included, and what it refuses.

    Args:
        connection: in a transaction.
        layout: of the table.
        found: the changes.
    """
    differences: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for start in range(0, len(found), CHUNK):
        part = found[start : start + CHUNK]
        for number, table, key, column, old, new, problem in connection.execute(
            "select change, table_name, row_key, column_name, old, new, problem"
            " from gdpr.compare_rectification(%s)",
            [_document(layout, part)],
        ):
            edit = part[number - 1]
            if problem is not None:
                problems.append(Problem(edit.line.number, edit.column, problem))
            else:
                differences.append(
                    {
                        "line": edit.line.number,
                        "table": table,
                        "key": key,
                        "column": column,
                        "old": old,
                        "new": new,
                    }
                )
    return differences, problems


def carry_out(
    connection: psycopg.Connection, layout: Layout, found: Sequence[Edit], reason: str
) -> None:
    """Change the rows; all or, with an error, none.

    Args:
        connection: in a transaction.
        layout: of the table.
        found: the changes.
        reason: for the record.
    """
    for start in range(0, len(found), CHUNK):
        connection.execute(
            "select gdpr.rectify_rows(%s, %s)",
            [_document(layout, found[start : start + CHUNK]), reason],
        )


def _document(layout: Layout, found: Sequence[Edit]) -> str:
    return json.dumps([edit.change(layout) for edit in found])
