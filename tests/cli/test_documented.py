"""No command and no option without words, and an example that is right, for each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from gdprdb.cli import main


def inside(group: click.Command, name: str) -> click.Command:
    """The command of a name in a group."""
    assert isinstance(group, click.Group)
    found = group.get_command(click.Context(group), name)
    assert found
    return found


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all commands and groups."""
    yield path
    if isinstance(group, click.Group):
        for name in group.list_commands(click.Context(group)):
            yield from commands(inside(group, name), (*path, name))


def find(path: tuple[str, ...]) -> click.Command:
    """The command with a path."""
    found: click.Command = main
    for name in path:
        found = inside(found, name)
    return found


ALL = list(commands(main))


def examples(path: tuple[str, ...]) -> list[str]:
    """The calls of gdprdb in the examples of a command."""
    text = (find(path).help or "").partition("Example:")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [
        call.removesuffix(")") if "$(" in line else call
        for line in lines
        for call in re.findall(r"gdprdb [^|&\"]*", line)
    ]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_a_command_says_what_it_does_in_a_line(path: tuple[str, ...]) -> None:
    first = (find(path).help or "").strip().split("\n")[0]
    assert 15 <= len(first) <= 100, first
    assert first[0].isupper()


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    silent = [
        parameter.name
        for parameter in find(path).params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_example_is_a_call_of_the_command_that_parses(path: tuple[str, ...]) -> None:
    calls = examples(path)
    assert calls, "no example"
    assert any(tuple(shlex.split(call)[1 : 1 + len(path)]) == path for call in calls)
    for call in calls:
        words = shlex.split(call.split("<")[0].split(">")[0], comments=True)[1:]
        command: click.Command = main
        while isinstance(command, click.Group) and words:
            command = inside(command, words.pop(0))
        context = click.Context(command, resilient_parsing=True)
        _, rest, _ = command.make_parser(context).parse_args(words)
        unknown = [word for word in rest if word.startswith("-")]
        assert unknown == [], call


def test_no_command_takes_a_person_as_an_argument() -> None:
    """Arguments stand in the shell's history and in the list of processes."""
    named = {
        (*path, parameter.name)
        for path in ALL
        for parameter in find(path).params
        if isinstance(parameter, click.Argument)
    }
    assert {argument[-1] for argument in named} == {
        "file",
        "basis_id",
        "assessment_id",
        "number",
        "right",
        "rectification_id",
        "table",
        "arguments",
        # of a recipient, a notice, a table and a script
        "name",
        "notice_id",
        "record",
        # of a row; standard input where it is personal
        "key",
    }


def test_help_shows_the_exit_codes() -> None:
    for code in range(6):
        assert f"{code} " in (main.help or "")
