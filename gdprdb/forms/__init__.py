"""Consent forms in files: one TOML file for each language of a form.

Beside this module stand examples in several languages, to start from.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from gdprdb.errors import GdprdbError


@dataclass(frozen=True, slots=True)
class Form:
    """What a person is asked, in one language.

    Attributes:
        name: of the form, the same in all its languages.
        language: a tag such as ``de`` or ``de-at``.
        purposes: of the policy, for which it asks.
        channels: of contact that it asks for: mail, phone, post, social.
        title: one line.
        statement: the words that the person agrees to.
        privacy_notice: a link.
    """

    name: str
    language: str
    purposes: list[str]
    channels: list[str]
    title: str
    statement: str
    privacy_notice: str


def read(path: Path) -> Form:
    """Read a form from a file.

    Args:
        path: a TOML file.

    Raises:
        GdprdbError: it is no TOML, or says too little or too much.
    """
    hint = f"gdprdb form example prints one that is complete: {', '.join(names())}."
    try:
        given: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GdprdbError(f"{path} is not TOML: {error}", hint=hint) from None
    known = {field.name for field in fields(Form)}
    if wrong := sorted(known ^ set(given)):
        details = tuple(f"{name}: {'missing' if name in known else 'unknown'}" for name in wrong)
        raise GdprdbError(f"{path} is not a consent form", details=details, hint=hint)
    return Form(**given)


def example(language: str) -> str:
    """The text of the example in a language.

    Args:
        language: one of `languages`.
    """
    return (files(__name__) / f"newsletter.{language}.toml").read_text(encoding="utf-8")


def languages() -> list[str]:
    """The languages of the examples."""
    found = (entry.name.split(".") for entry in files(__name__).iterdir())
    return sorted(parts[1] for parts in found if parts[-1] == "toml")


def names() -> list[str]:
    """The settings of a form."""
    return [field.name for field in fields(Form)]
