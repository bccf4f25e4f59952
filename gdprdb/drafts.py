"""Drafts of policy files: what `gdpr.discover` found, as TOML with the reasons beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

#: What stands above every draft.
HEAD = """\
# A draft of a policy, by gdprdb discover. Read it, decide, complete it:
#  - name the purposes that the data are for, and their lawful bases (docs/policy.md);
#  - name the logins of your applications, and what each of them may process for;
#  - what begins with # was not recognised, or not with confidence: classify it, or it stays
#    hidden from redacted views;
#  - see what it would change: gdprdb policy plan FILE
"""

#: In which order the settings of a column are read.
_ORDER = {
    key: place
    for place, key in enumerate(
        ("category", "identifier", "special", "sensitive", "encrypt", "mask", "age", "review")
    )
}

#: What no look at tables can tell.
PURPOSES = """\
[purposes.service]
description = "What these data are for: say it, and part it into purposes"
basis = "contract"

# [roles.your_application]
# audience = "clear"
# purposes = ["service"]
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of `gdpr.discover`.

    Attributes:
        table: schema and name.
        column: None for what is said of the table itself.
        confidence: high, medium or low.
        reason: for people.
        definition: what a policy would say; None: nothing.
    """

    table: str
    column: str | None
    confidence: str
    reason: str
    definition: dict[str, Any] | None


def draft(findings: Iterable[Finding], *, added: bool = False) -> str:
    """A policy file.

    Args:
        findings: what was found, table by table.
        added: a policy is in force already; these tables are to be added to its file.
    """
    head = HEAD
    if added:
        head += (
            "# A policy is in force: add these tables to its file. Roles that the applied file\n"
            "# does not name lose their rights.\n"
        )
    parts = [head, PURPOSES]
    for _, group in groupby(findings, key=lambda finding: finding.table):
        parts.append(_table(list(group)))
    return "\n".join(parts)


def _table(findings: Sequence[Finding]) -> str:
    table, columns = findings[0], findings[1:]
    name = f"tables.{_text(table.table)}"
    sure = table.definition is not None and table.confidence != "low"
    lines = [_comment(f"{table.confidence}: {table.reason}"), f"[{name}]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in (table.definition or {}).items()]
    if columns:
        lines.append(f"[{name}.columns]")
    said = [
        f"{_key(column.column or '')} = {_value(column.definition or {})}" for column in columns
    ]
    width = min(max(map(len, said), default=0), 60)
    for column, text in zip(columns, said, strict=True):
        known = column.definition is not None and (column.confidence != "low" or not sure)
        lines.append(
            f"{'' if known else '# '}{text:<{width}}"
            f"  {_comment(f'{column.confidence}: {column.reason}')}"
        )
    if not sure:
        lines = [line if line.startswith("#") else f"# {line}" for line in lines]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """A comment on one line, whatever names of tables and columns are made of."""
    return "# " + re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(text: str) -> str:
    """A basic string of TOML: as in JSON, and the one control character that JSON lets stand."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER)))
        pairs = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in ordered)
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else str(value)
