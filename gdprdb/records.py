"""Records of a file, CSV or JSON lines, read a few at a time however long the file is."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from gdprdb.errors import GdprdbError

#: One record: the values of its columns.
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is to be read.

    Attributes:
        style: ``csv`` with a header, or ``jsonl``.
        encoding: of the text; a byte order mark is no part of it.
        delimiter: between the fields of CSV.
        null: the field of CSV that stands for NULL, where it has no quotes around it: as COPY
            has it, ``,,`` is NULL and ``,"",`` an empty text.
        force_null: with quotes, too.
        columns: names of columns for names in the file, where they differ; an empty
            name leaves a field out.
        lenient: a record that cannot be read is told as None, and the next ones are read.
    """

    style: str
    encoding: str = "utf-8-sig"
    delimiter: str = ","
    null: str = ""
    force_null: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    lenient: bool = False


def fingerprint(path: Path) -> tuple[str, int]:
    """The SHA-256 of a file's content in hexadecimal, and how many lines it has."""
    digest, lines = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            lines += block.count(b"\n")
    return digest.hexdigest(), lines


@dataclass(slots=True)
class _Place:
    """Where in a file reading has come to.

    Attributes:
        line: on which the next record begins, or the one that cannot be read.
    """

    line: int = 1


def chunks(
    path: Path, layout: Layout, size: int
) -> Iterator[tuple[list[int], list[Record | None]]]:
    """The records of a file, so many at a time.

    Args:
        path: the file.
        layout: how to read it.
        size: records of a chunk.

    Yields:
        The line on which each record of the chunk begins, and the records; None for one that
        cannot be read.

    Raises:
        GdprdbError: a record cannot be read; it is named by its line, never shown.
    """
    with path.open(encoding=layout.encoding, newline="") as file:
        place = _Place()
        records = _told(
            _csv(file, layout, place) if layout.style == "csv" else _jsonl(file, layout, place),
            place,
        )
        while chunk := list(islice(records, size)):
            lines = [line for line, _ in chunk]
            yield lines, [_renamed(record, layout.columns) for _, record in chunk]


def _told(
    records: Iterator[tuple[int, Record | None]], place: _Place
) -> Iterator[tuple[int, Record | None]]:
    """The same records; what cannot be read is told by its line."""
    while True:
        try:
            record = next(records, None)
        except UnicodeDecodeError as error:
            raise GdprdbError(
                f"the file is not in {error.encoding}, near line {place.line}",
                hint="--encoding says what it is in.",
            ) from None
        except (csv.Error, json.JSONDecodeError, ValueError) as error:
            said = str(error) if type(error) is ValueError else "it is not in the format"
            raise GdprdbError(
                f"line {place.line} cannot be read: {said}",
                hint="--delimiter and --input say how the file is written.",
            ) from None
        if record is None:
            return
        yield record


def _csv(file: TextIO, layout: Layout, place: _Place) -> Iterator[tuple[int, Record | None]]:
    """Records of CSV, as RFC 4180 has it; the first names the columns."""
    read: list[str] = []
    reader = csv.reader(_kept(file, read), delimiter=layout.delimiter, strict=True)
    mark = re.escape(layout.delimiter)
    fields = re.compile(rf'("(?:[^"]|"")*"|[^{mark}\r\n]*)(?:{mark}|[\r\n]*\Z)')
    quoted_null = f'"{layout.null}"'
    header = next(reader, [])
    read.clear()
    if len(set(header)) != len(header) or not all(header):
        raise ValueError("the header has no name, or the same twice")
    place.line = reader.line_num + 1
    for values in reader:
        line = place.line
        record = "".join(read)
        read.clear()
        if values and len(values) != len(header) and not layout.lenient:
            raise ValueError(f"{len(values)} fields where the header has {len(header)}")
        # a record may have line breaks in it
        place.line = reader.line_num + 1
        if not values:
            continue
        if len(values) != len(header):
            yield line, None
            continue
        nulls = [value == layout.null for value in values]
        if not layout.force_null and True in nulls and quoted_null in record:
            # the reader does not tell `""` from nothing, which is what it is about
            nulls = [
                null and field[1] != quoted_null
                for null, field in zip(nulls, fields.finditer(record), strict=False)
            ]
        yield (
            line,
            {
                name: None if null else value
                for name, value, null in zip(header, values, nulls, strict=True)
            },
        )


def _kept(file: Iterator[str], read: list[str]) -> Iterator[str]:
    """The lines of a file, which stay in a list until it is cleared."""
    for line in file:
        read.append(line)
        yield line


def _jsonl(file: TextIO, layout: Layout, place: _Place) -> Iterator[tuple[int, Record | None]]:
    """Records of JSON lines; numbers stay as they are written."""
    for number, line in enumerate(file, 1):
        place.line = number
        if not line.strip():
            continue
        try:
            record = _object(line)
        except ValueError:
            if not layout.lenient:
                raise
            record = None
        yield number, record


def _object(line: str) -> Record:
    """The JSON object that a line is."""
    try:
        found = json.loads(line, parse_float=str)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def _renamed(record: Record | None, columns: Mapping[str, str]) -> Record | None:
    """A record under the names of the table's columns."""
    if record is None:
        return None
    named = ((columns.get(name, name), value) for name, value in record.items())
    return {name: value for name, value in named if name}
