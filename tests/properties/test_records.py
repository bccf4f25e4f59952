"""Records of files: what is written as COPY writes CSV is read as COPY reads it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from gdprdb.records import Layout, chunks

#: Fields that have marks of CSV in them, and line breaks of all kinds.
FIELD: st.SearchStrategy[str | None] = st.none() | st.text(
    st.sampled_from('a"";,^]-\\N\t\n\r') | st.characters(codec="utf-8")
)


@given(
    rows=st.lists(st.lists(FIELD, min_size=3, max_size=3), max_size=8),
    delimiter=st.sampled_from([",", ";", "\t", "|", "^", "]", "-"]),
    null=st.sampled_from(["", r"\N", "NULL"]),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
@example(rows=[["", None, ""], [None, "", None]], delimiter=",", null="", end="\n", last=False)
def test_null_is_what_has_no_quotes(
    rows: list[list[str | None]], delimiter: str, null: str, end: str, last: bool
) -> None:
    table: list[list[str | None]] = [["x", "y", "z"], *rows]
    written = [
        delimiter.join(
            null if field is None else '"' + field.replace('"', '""') + '"' for field in row
        )
        for row in table
    ]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "a.csv"
        file.write_text(end.join(written) + end * last, encoding="utf-8", newline="")
        layout = Layout("csv", delimiter=delimiter, null=null)
        read = [
            list((record or {}).values())
            for _, records in chunks(file, layout, 3)
            for record in records
        ]
        forced = Layout("csv", delimiter=delimiter, null=null, force_null=True)
        folded = [
            list((record or {}).values())
            for _, records in chunks(file, forced, 3)
            for record in records
        ]
    assert read == rows
    assert folded == [[None if field == null else field for field in row] for row in rows]
