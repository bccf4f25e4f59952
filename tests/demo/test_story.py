"""The story engine shows what it runs, and stops at the first thing that is not as it should be."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from gdprdb.demo.page import WIDTH, Grid, cell, fit, pretty
from gdprdb.demo.story import Actor, DemoError, Story
from gdprdb.server import Cluster

SOMEBODY = Actor("postgres", "the superuser", "green", "public")

Tell = Callable[..., Story]


@pytest.fixture
def tell(cluster: Cluster) -> Iterator[Tell]:
    """Makes stories that are told into a string; `printed` reads it."""
    stories: list[Story] = []

    def make(width: int = WIDTH, encoding: str = "utf-8") -> Story:
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
        console = Console(file=file, width=width, color_system=None)
        story = Story(console, lambda _: psycopg.connect(cluster.dsn(), autocommit=True))
        stories.append(story)
        return story

    yield make
    for story in stories:
        story.close()


def printed(story: Story) -> str:
    file = story.console.file
    assert isinstance(file, io.TextIOWrapper)
    assert isinstance(file.buffer, io.BytesIO)
    return file.buffer.getvalue().decode()


def test_a_statement_is_shown_with_who_ran_it_and_what_came_back(tell: Tell) -> None:
    story = tell()
    answer = story.ask(SOMEBODY, "select 40 + 2 as answer, null as nothing")
    assert answer.columns == ("answer", "nothing")
    assert answer.rows == [(42, None)]
    text = printed(story)
    for part in ("postgres", "the superuser", "select 40 + 2 as answer", "42", "null", "1 row in"):
        assert part in text


def test_of_several_statements_the_last_with_columns_answers(tell: Tell) -> None:
    answer = tell().ask(
        SOMEBODY, "begin; select 1 as a; select pg_sleep(0); set local x.y = 'z'; commit"
    )
    assert answer.rows == [(1,)]


def test_rows_changed_are_counted(tell: Tell) -> None:
    story = tell()
    story.fetch(SOMEBODY, "create temporary table t (i integer)")
    assert story.ask(SOMEBODY, "insert into t values (1), (2)").affected == 2
    assert "2 rows changed" in printed(story)


def test_a_command_is_shown_with_what_it_printed(tell: Tell) -> None:
    story = tell()
    story.ran(SOMEBODY, "gdprdb outbox send", "sent\n1")
    assert re.search(r"the superuser\n.*\$ gdprdb outbox send\n.* sent\n.* 1\n", printed(story))


def test_a_command_that_says_nothing_leaves_no_gap(tell: Tell) -> None:
    story = tell()
    story.ran(SOMEBODY, "createdb other", "")
    assert printed(story).rstrip().endswith("$ createdb other")


def test_one_login_in_two_databases_has_two_connections(tell: Tell) -> None:
    story = tell()
    elsewhere = replace(SOMEBODY, database="restored")
    assert story.connection(SOMEBODY) is not story.connection(elsewhere)
    assert story.actors == 2


def test_a_short_variable_is_shown_as_the_literal_that_was_sent(tell: Tell) -> None:
    story = tell()
    answer = story.ask(SOMEBODY, "select :'name' as name", name="O'Neill'; select 1; --")
    assert answer.rows == [("O'Neill'; select 1; --",)]
    assert "select 'O''Neill''; select 1; --' as name" in printed(story)


def test_a_long_variable_keeps_its_name_on_the_screen(tell: Tell) -> None:
    story = tell()
    answer = story.ask(SOMEBODY, "select length(:'document') as length", document="x" * 5000)
    assert answer.value == 5000
    assert "select length(:'document')" in printed(story)


def test_a_claim_that_holds_is_ticked(tell: Tell) -> None:
    story = tell()
    story.check("water is wet", True)
    assert "✔ water is wet" in printed(story)
    assert story.claims == 1


def test_a_claim_that_does_not_hold_stops_the_story(tell: Tell) -> None:
    story = tell()
    story.chapter("Water", "Art. 1", "About water.")
    with pytest.raises(DemoError, match=r"chapter 1, Water.*water is dry.*found 'wet'"):
        story.check("water is dry", False, "wet")
    assert "✔" not in printed(story)


def test_a_refused_statement_stops_the_story_and_shows_why(tell: Tell) -> None:
    story = tell()
    with pytest.raises(DemoError, match="22012 division by zero"):
        story.ask(SOMEBODY, "select 1 / 0")
    assert "ERROR 22012" in printed(story)


def test_an_expected_refusal_is_shown_with_its_hint(tell: Tell) -> None:
    story = tell()
    statement = (
        "do $$ begin raise exception using errcode = 'PR999', message = 'no', hint = 'Ask.'; end $$"
    )
    error = story.refuse(SOMEBODY, statement, "no", sqlstate="PR999")
    assert error.sqlstate == "PR999"
    assert "ERROR PR999  no" in printed(story)
    assert "Hint:  Ask." in printed(story)


def test_a_refusal_inside_a_transaction_leaves_the_connection_usable(tell: Tell) -> None:
    story = tell()
    story.refuse(SOMEBODY, "begin; select 1 / 0", "no", sqlstate="22012")
    assert story.ask(SOMEBODY, "select 1").value == 1


def test_a_refusal_for_another_reason_stops_the_story(tell: Tell) -> None:
    with pytest.raises(DemoError, match="not with 42501: 22012"):
        tell().refuse(SOMEBODY, "select 1 / 0", "no", sqlstate="42501")


def test_an_expected_refusal_that_does_not_come_stops_the_story(tell: Tell) -> None:
    with pytest.raises(DemoError, match="went through that should have been refused"):
        tell().refuse(SOMEBODY, "select 1", "no", sqlstate="42501")


def test_warnings_of_the_server_are_shown(tell: Tell) -> None:
    story = tell()
    story.ask(SOMEBODY, "do $$ begin raise warning 'mind the gap'; end $$")
    assert "WARNING:  mind the gap" in printed(story)


def test_a_failed_step_is_not_reported_as_done(tell: Tell) -> None:
    story = tell()
    with pytest.raises(ZeroDivisionError), story.step("trying") as done:
        done(str(1 // 0))
    assert "✔" not in printed(story)


@pytest.mark.parametrize("width", [40, 80, 100, 180])
def test_nothing_is_wider_than_the_terminal_or_the_page(tell: Tell, width: int) -> None:
    story = tell(width)
    story.chapter("A title that is rather long for a narrow terminal", "Art. 5(1)(f)", "word " * 60)
    story.ask(
        SOMEBODY, "select repeat('漢字', 30) as kanji, repeat('x', 200) as long, 1.5 as number"
    )
    story.check("a claim " * 20, True)
    longest = max(cell_len(line) for line in printed(story).splitlines())
    assert longest <= min(width, WIDTH)


def test_a_terminal_without_unicode_gets_plain_characters(tell: Tell) -> None:
    story = tell(encoding="ascii")
    story.chapter("Title", "Art. 5", "Text.")
    story.ask(SOMEBODY, "select 1 as one")
    story.refuse(SOMEBODY, "select 1 / 0", "no", sqlstate="22012")
    story.check("fine", True)
    assert printed(story).isascii()


def test_values_look_as_in_psql() -> None:
    assert cell(None).plain == "null"
    assert cell(True).plain == "true"
    assert cell(Decimal("79.90")).plain == "79.90"
    assert cell(date(2026, 5, 25)).plain == "2026-05-25"
    assert cell(["phone", "email"]).plain == "phone, email"
    assert cell("gdpr1:AAEC").style == "red"


def test_the_widest_column_gives_way_first() -> None:
    page = io.StringIO()
    console = Console(file=page, width=40, color_system=None)
    console.print(Grid(["id", "text"], [(1, "x" * 90), (22, "y")]))
    lines = page.getvalue().splitlines()
    assert lines[0].split() == ["id", "text"]
    assert lines[2].startswith(" 1  xxx")
    assert lines[2].rstrip().endswith("…")


def test_prose_is_wrapped_and_ciphertext_is_cut() -> None:
    page = io.StringIO()
    console = Console(file=page, width=50, color_system=None)
    console.print(Grid(["cipher", "prose"], [("gdpr1:" + "A" * 60, "some words " * 6)]))
    text = page.getvalue()
    assert text.count("words") == 6
    assert "A…" in text


def test_short_documents_stay_on_one_line_and_long_ones_open_up() -> None:
    short = {"a": [1, 2], "b": None}
    assert pretty(short) == '{"a": [1, 2], "b": null}'
    receipt = {"tables": [{"table": f"crm.table_{number}", "rows": 3} for number in range(5)]}
    lines = pretty(receipt).splitlines()
    assert lines[0] == "{"
    assert lines[1] == '  "tables": ['
    assert lines[2] == '    {"table": "crm.table_0", "rows": 3},'
    assert lines[-1] == "}"


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_document_means_the_same_however_it_is_laid_out(document: object) -> None:
    assert json.loads(pretty(document)) == document


@given(
    natural=st.lists(st.integers(1, 200), min_size=1, max_size=12), available=st.integers(0, 200)
)
def test_widths_fit_and_no_column_grows_or_vanishes(natural: list[int], available: int) -> None:
    widths = fit(natural, available)
    assert sum(widths) <= max(available, len(natural))
    assert all(1 <= width <= wanted for width, wanted in zip(widths, natural, strict=True))
    if sum(natural) <= available:
        assert widths == natural
