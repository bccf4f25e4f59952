"""Words for access reports: reading them, and the schemas that they have to keep to."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from tests.support import Database

DOCS = Path(__file__).parents[2] / "docs"


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((DOCS / name).read_text(encoding="utf-8")))


def valid(document: dict[str, Any]) -> dict[str, Any]:
    """A document that keeps to its published schema."""
    name = document["document"].replace("_", "-") + ".schema.json"
    _validator(name).validate(document)
    return document


def report(db: Database, person: int, *, user: str = "dpo_login") -> dict[str, Any]:
    """The access report of a person."""
    ((found,),) = db.rows("select gdpr.access_report(%s)", [person], user=user)
    return valid(found)


def portable(db: Database, person: int) -> dict[str, Any]:
    """The portable copy of a person."""
    ((found,),) = db.rows("select gdpr.portable_copy(%s)", [person], user="dpo_login")
    return valid(found)


def rows(document: dict[str, Any], table: str) -> list[dict[str, Any]]:
    """The rows of a table in a document."""
    return [row for found in document["tables"] if found["table"] == table for row in found["rows"]]


def table(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A table of a document."""
    (found,) = [found for found in document["tables"] if found["table"] == name]
    return dict(found)
