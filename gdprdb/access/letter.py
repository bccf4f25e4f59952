"""A report as a letter: one HTML page without scripts or anything from elsewhere."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from gdprdb.access.document import Number, Report, Stream, dumped
from gdprdb.outbox.compose import DEFAULT_LANGUAGE, fallbacks
from gdprdb.outbox.words import moment


def letter(report: Report | Stream, language: str | None = None) -> Iterator[str]:
    """A report in the words of a language, in pieces.

    Args:
        report: what.
        language: a tag such as ``de`` or ``de-AT``; English where it is not spoken.
    """
    known = set(languages())
    spoken = next(tag for tag in fallbacks(language, DEFAULT_LANGUAGE) if tag in known)
    return _template().generate(
        facts=report.facts, entries=report.entries, words=words(spoken), language=spoken
    )


def languages() -> list[str]:
    """The languages that letters are written in."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in (files(__package__) / "words").iterdir()
        if entry.name.endswith(".toml")
    )


@cache
def words(language: str) -> dict[str, Any]:
    """The words of letters in a language.

    Args:
        language: one of `languages`.
    """
    return tomllib.loads((files(__package__) / "words" / f"{language}.toml").read_text("utf-8"))


@jinja2.pass_context
def _sentence(context: jinja2.runtime.Context, event: dict[str, Any]) -> str:
    """An entry of the history in words."""
    known = context["words"]["history"]
    names = context["words"]["names"]
    changed = [_column(context, event.get("table"), name) for name in event.get("changed", ())]
    many = "UPDATE_MANY" if len(changed) > 1 else "UPDATE"
    operation = many if event["operation"] == "UPDATE" else event["operation"]
    by, purpose = event.get("by"), event.get("purpose")
    return str(known.get(operation, known["other"])).format(
        operation=event["operation"],
        table=_table(context, event.get("table")),
        columns=known["and"].join([", ".join(changed[:-1]), changed[-1]])
        if len(changed) > 1
        else "".join(changed) or "…",
        by=known["by"].format(by=names.get(by, by)) if by else "",
        purpose=known["for"].format(purpose=names.get(purpose, purpose)) if purpose else "",
    )


def _described(context: jinja2.runtime.Context, table: str | None) -> dict[str, Any]:
    for described in context["facts"]["tables"]:
        if described["table"] == table:
            return dict(described)
    return {"columns": []}


@jinja2.pass_context
def _table(context: jinja2.runtime.Context, table: str | None) -> str:
    """What a table is called: by its own description, else by its name."""
    return str(_described(context, table).get("description") or table or "")


@jinja2.pass_context
def _column(context: jinja2.runtime.Context, table: str | None, name: str) -> str:
    """What a column is called: by its own description, else by its name."""
    for column in _described(context, table)["columns"]:
        if column["name"] == name:
            return str(column.get("description") or name)
    return name


def _shown(value: Any) -> str:
    """A value of a row for people."""
    if value is None:
        return "\N{EM DASH}"
    return str(value) if isinstance(value, (str, Number)) else dumped(value)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__ or "", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": moment,
        "sentence": _sentence,
        "table": _table,
        "column": _column,
        "shown": _shown,
    }
    return environment.get_template("letter.html")
