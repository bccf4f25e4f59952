"""Laws of rectification: a correction lands exactly as the column would hold it, and a file that
nobody touched changes nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gdprdb import corrections
from tests.capabilities.crm import apply, one_table
from tests.properties.test_round_trip import EXACT, OWN_TYPES, SESSIONS, TEXT, TYPES
from tests.support import Clone

KINDS = list(TYPES)

#: A type and two of its values.
PAIRS = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), st.one_of(st.none(), TYPES[kind]))
)


def column(kind: str) -> str:
    """The number of a type, as the name of its columns ends."""
    return str(KINDS.index(kind))


@pytest.fixture(scope="module")
def officers(clone: Clone, installed_template: str) -> Iterator[list[psycopg.Connection]]:
    """Officers with several settings, on a database with each type twice, encrypted and plain, in
    public.exact, and once in a twin that is not protected."""
    with clone(installed_template) as db:
        owner = db.connect()
        owner.execute(OWN_TYPES)
        columns = ", ".join(f"{twin}{column(kind)} {kind}" for kind in KINDS for twin in "ep")
        for name in ("exact", "twin"):
            owner.execute(
                f"create table public.{name} (id integer primary key, {columns})".encode()
            )
            owner.execute(f"insert into public.{name} values (1), (2)".encode())
        owner.execute("grant all on public.twin to dpo_login")
        apply(
            db,
            one_table(
                "public.exact", columns={f"e{column(kind)}": {"encrypt": True} for kind in KINDS}
            ),
        )
        yield [db.connect("dpo_login", options=options) for options in (EXACT, *SESSIONS)]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(PAIRS, st.integers(1, len(SESSIONS)))
def test_a_correction_lands_exactly(
    officers: list[psycopg.Connection], pair: tuple[str, str | None], session: int
) -> None:
    """Whatever the officer's session says of dates and floats, and whether encrypted or not."""
    kind, value = pair
    names = [f"{twin}{column(kind)}" for twin in "ep"]
    reader, writer = officers[0], officers[session]
    changes = [
        {"table": "public.exact", "key": "1", "column": name, "value": value} for name in names
    ]
    writer.execute("select gdpr.rectify_rows(%s, 'law')", [json.dumps(changes)])
    reader.execute(
        f"update public.twin set {', '.join(f'{name} = %s::text::{kind}' for name in names)}"
        " where id = 1".encode(),
        [value, value],
    )
    shown = ", ".join(f"{name}::text, {name} is null" for name in names)
    found, expected = (
        reader.execute(f"select {shown} from {table} where id = 1".encode()).fetchone()
        for table in ("gdpr_clear.exact", "public.twin")
    )
    assert found == expected
    # and again: it is so already
    ((again,),) = writer.execute("select gdpr.rectify_rows(%s, 'law')", [json.dumps(changes)])
    assert again == {"persons": 0, "rows": 0}


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(PAIRS, min_size=1, max_size=6, unique_by=lambda pair: pair[0]))
def test_a_file_that_nobody_touched_changes_nothing(
    officers: list[psycopg.Connection], pairs: list[tuple[str, str | None]]
) -> None:
    """Out, through a spreadsheet that keeps no quotes, and in again."""
    officer = officers[0]
    changes = [
        {"table": "public.exact", "key": "2", "column": f"{twin}{column(kind)}", "value": value}
        for kind, value in pairs
        for twin in "ep"
    ]
    officer.execute("select gdpr.rectify_rows(%s, 'law')", [json.dumps(changes)])
    with officer.transaction():
        layout = corrections.layout_of(officer, "public.exact")
        written = "".join(corrections.write(officer, layout, None))
        saved = io.StringIO()
        csv.writer(saved).writerows(csv.reader(io.StringIO(written)))
        lines, problems = corrections.read(io.BytesIO(saved.getvalue().encode()), layout)
        assert problems == []
        assert [line.key for line in lines] == [("1",), ("2",)]
        assert corrections.edits(officer, layout, lines) == ([], [], [])


@given(st.one_of(st.none(), TEXT))
@example("")
@example("'")
@example("=1+1")
@example("'=1+1")
def test_a_guarded_cell_comes_back_and_is_no_formula(value: str | None) -> None:
    cell = corrections.guarded(value)
    assert corrections.unguarded(cell) == value
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
