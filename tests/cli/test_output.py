"""One way to print rows, in four formats; words never mix with data."""

from __future__ import annotations

import csv
import datetime
import io
import json
from typing import Any

import psycopg
import pytest
import rich_click as click
from click.testing import CliRunner

from gdprdb.cli.options import Commands
from gdprdb.cli.output import Rows, output
from gdprdb.errors import GdprdbError, RefusedError, WrongReleaseError

MOMENT = datetime.datetime(2027, 1, 31, 12, tzinfo=datetime.UTC)

ROWS = Rows(
    ["id", "name", "tags", "at", "gone"],
    [
        (1, 'Ünal, "B"', ["a", "b"], MOMENT, None),
        (2, "[bold]x[/bold]", [], None, True),
    ],
)


def call(rows: Rows, *arguments: str) -> Any:
    """Run a command that shows these rows."""

    @click.command()
    @output
    def command() -> Rows:
        return rows

    return CliRunner().invoke(command, arguments)


def test_json_is_one_document() -> None:
    first, second = json.loads(call(ROWS, "--format", "json").stdout)
    assert first == {
        "id": 1,
        "name": 'Ünal, "B"',
        "tags": ["a", "b"],
        "at": "2027-01-31 12:00:00+00:00",
        "gone": None,
    }
    assert second["gone"] is True


def test_jsonl_is_a_document_a_line() -> None:
    lines = call(ROWS, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2]


def test_jsonl_of_a_list_of_documents_is_a_line_each() -> None:
    for documents in ([], [{"id": 1}], [{"id": 1}, {"id": 2}]):
        lines = call(Rows(["id"], [], document=documents), "--format", "jsonl").stdout.splitlines()
        assert [json.loads(line) for line in lines] == documents


def test_csv_is_read_back_by_its_reader() -> None:
    rows = list(csv.reader(io.StringIO(call(ROWS, "--format", "csv").stdout)))
    assert rows[0] == list(ROWS.columns)
    assert rows[1] == ["1", 'Ünal, "B"', '["a", "b"]', "2027-01-31 12:00:00+00:00", ""]


def test_a_table_shows_values_as_they_are_and_never_folds_them_behind_a_pipe() -> None:
    shown = call(Rows(["x"], [("[bold]y[/bold] " + "z" * 300,)])).stdout
    assert "[bold]y[/bold] " + "z" * 300 in shown


def test_no_rows_are_valid_in_every_format() -> None:
    nothing = Rows(["id"], [])
    assert json.loads(call(nothing, "--format", "json").stdout) == []
    assert call(nothing, "--format", "jsonl").stdout == ""
    assert call(nothing, "--format", "csv").stdout == "id\n"
    assert call(nothing).exit_code == 0


def test_live_rows_are_shown_as_they_come() -> None:
    seen: list[str] = []

    def rows() -> Any:
        for number in range(3):
            seen.append(f"made {number}")
            yield (number,)

    shown = call(Rows(["n"], rows(), live=True), "--format", "json").stdout
    assert [json.loads(line)["n"] for line in shown.splitlines()] == [0, 1, 2]
    assert call(Rows(["n"], iter([(1,), (2,)]), live=True)).stdout == "1\n2\n"


def test_the_exit_code_comes_after_the_rows() -> None:
    result = call(Rows(["id"], [(1,)], exit_code=3), "--format", "csv")
    assert (result.exit_code, result.stdout) == (3, "id\n1\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GdprdbError("it broke", hint="Mend it.", details=("here",)), 1),
        (RefusedError("not so", hint="Mend it.", details=("here",)), 4),
        (WrongReleaseError("too old", hint="Mend it.", details=("here",)), 5),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (psycopg.OperationalError("connection failed:\n  no such socket"), 1),
    ],
)
def test_a_failure_is_words_and_an_exit_code(error: Exception, code: int) -> None:
    @click.group(cls=Commands)
    def top() -> None:
        """Nothing."""

    @top.command()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(top, ["fail"])
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    if isinstance(error, GdprdbError):
        assert "  here\nHint: Mend it.\n" in result.stderr
