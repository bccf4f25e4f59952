"""The policy that models declare: ``info={"gdpr": ...}`` of metadata, tables and columns."""

from __future__ import annotations

import copy
from typing import Any

import sqlalchemy as sa

from gdprdb.errors import GdprdbError

#: The key in ``info`` under which a policy stands.
KEY = "gdpr"


def policy_from_metadata(metadata: sa.MetaData) -> dict[str, Any]:
    """The policy document of models: what `gdpr.plan()` and `gdpr.apply()` take.

    ``info["gdpr"]`` holds the words of the policy file: of the metadata ``settings``,
    ``purposes`` and ``roles``; of a table its section; of a column its line. A table without it
    is not protected.

    Args:
        metadata: of the models.

    Raises:
        GdprdbError: a column is classified in a table that is not.
    """
    policy: dict[str, Any] = copy.deepcopy(metadata.info.get(KEY, {}))
    tables = policy.setdefault("tables", {})
    for table in metadata.tables.values():
        columns = {
            column.name: copy.deepcopy(column.info[KEY])
            for column in table.columns
            if KEY in column.info
        }
        if is_protected(table):
            tables[policy_name(table)] = {**copy.deepcopy(table.info[KEY]), "columns": columns}
        elif columns:
            raise GdprdbError(
                f"columns of {table.fullname} are classified, the table is not",
                hint=f'Give the table info={{"{KEY}": {{...}}}} as well, with its purposes.',
                details=tuple(columns),
            )
    return policy


def is_protected(table: object) -> bool:
    """Whether a model's table stands in the policy."""
    return isinstance(table, sa.Table) and KEY in table.info


def policy_name(table: sa.Table) -> str:
    """The name of a table as the policy writes it."""
    return f"{table.schema or 'public'}.{table.name}"


def digest_kind(column: sa.Column[Any]) -> str | None:
    """What the digest beside a column counts as equal; None where there is no digest."""
    said = column.info.get(KEY, {})
    if said.get("encrypt") != "searchable":
        return None
    return "exact" if said.get("canonical") == "exact" else said.get("identifier", "text")
