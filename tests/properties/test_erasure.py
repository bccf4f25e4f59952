"""The law of erasure: for every shape of tables and foreign keys, no value of the person is left,
every value of the others is, and every foreign key holds.

Run more examples than the suite does with ``GDPRDB_ERASURE_EXAMPLES=300``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support import OWNER, Clone, Database

EXAMPLES = int(os.environ.get("GDPRDB_ERASURE_EXAMPLES", "16"))

#: Rows of each table.
ROWS = 6


@dataclass(frozen=True)
class Link:
    """A foreign key between two tables of the schema.

    Attributes:
        child: number of the referring table.
        parent: number of the table it refers to, the same one too.
        nullable: whether its column may be null.
        action: what happens when the row it refers to is deleted.
        deferred: whether it is checked at commit.
        composite: whether it goes over two columns.
        targets: for each row of the child, the row of the parent; None: null.
    """

    child: int
    parent: int
    nullable: bool
    action: str
    deferred: bool
    composite: bool
    targets: tuple[int | None, ...]

    def columns(self, n: int) -> list[str]:
        """The referring columns, for the n-th foreign key of the schema."""
        return [f"l{n}", f"l{n}_half"] if self.composite else [f"l{n}"]


@dataclass(frozen=True)
class Schema:
    """Tables, and foreign keys between them.

    Attributes:
        anonymise: for each table, whether its rows are anonymised.
        notnull: for each table, whether its value may not be null.
        encrypt: for each table, whether its value is encrypted.
        partitioned: for each table, whether it has partitions.
        paired: for each table, whether its primary key has two columns.
        via: for each table, the number of the foreign key that says whose its rows are; None:
            they are persons.
        links: the foreign keys.
    """

    anonymise: tuple[bool, ...]
    notnull: tuple[bool, ...]
    encrypt: tuple[bool, ...]
    partitioned: tuple[bool, ...]
    paired: tuple[bool, ...]
    via: tuple[int | None, ...]
    links: tuple[Link, ...]

    def address(self, table: int, row: int) -> str | None:
        """The address of the person whose row it is; None: the row belongs to no other row."""
        via = self.via[table]
        if via is None:
            return f"secret-{table}-{row}-x@example.com"
        target = self.links[via].targets[row]
        return None if target is None else self.address(self.links[via].parent, target)

    def statements(self) -> Iterator[str]:
        """The tables with their rows; foreign keys last, so that rows go in in any order."""
        for table, notnull in enumerate(self.notnull):
            mine = [(n, link) for n, link in enumerate(self.links) if link.child == table]
            columns = "".join(
                f", {column} integer{'' if link.nullable else ' not null'}"
                for n, link in mine
                for column in link.columns(n)
            )
            parts = self.partitioned[table]
            keys = ["(half, id)", "(id)"] if self.paired[table] else ["(id)", "(id, half)"]
            yield (
                f"create table t{table} (id integer not null, half integer not null, email text,"
                f" people text[], value text{' not null' if notnull else ''}{columns},"
                f" primary key {keys[0]}, unique {keys[1]})"
                f"{' partition by hash (id)' if parts else ''}"
            )
            for part in range(2 * parts):
                yield (
                    f"create table t{table}_{part} partition of t{table}"
                    f" for values with (modulus 2, remainder {part})"
                )
            if self.paired[table]:
                yield f"alter table t{table} add unique (id, half)"
            for row in range(ROWS):
                address = self.address(table, row)
                own = "null" if address is None else f"'{address}'"
                cells: list[object] = [
                    row,
                    row % 2,
                    "null" if self.via[table] is not None else own,
                    f"array_remove(array[{own}, 'kept@example.com'], null)",
                    f"'secret-{table}-{row}-x'",
                ]
                for _, link in mine:
                    target = link.targets[row]
                    cell = "null" if target is None else target
                    half = "null" if target is None else target % 2
                    cells += [cell, half] if link.composite else [cell]
                yield f"insert into t{table} values ({', '.join(map(str, cells))})"
        for n, link in enumerate(self.links):
            yield f"create index on t{link.child} (l{n})"
            yield (
                f"alter table t{link.child} add foreign key ({', '.join(link.columns(n))})"
                f" references t{link.parent} ({'id, half' if link.composite else 'id'})"
                f" on delete {link.action}"
                f"{' deferrable initially deferred' if link.deferred else ''}"
            )

    def policy(self) -> dict[str, Any]:
        """All tables protected."""
        tables = {}
        for table, anonymise in enumerate(self.anonymise):
            via = self.via[table]
            tables[f"public.t{table}"] = {
                "subject": "self" if via is None else {"via": self.links[via].columns(via)},
                "purposes": ["orders"],
                "erase": "anonymise" if anonymise else "delete",
                "columns": {
                    "value": {"category": "identity", "encrypt": self.encrypt[table]},
                    "half": {"category": "key"},
                    "people": {"category": "contact", "erase": {"elements": "email"}},
                    "email": {"encrypt": True, **({"identifier": "email"} if via is None else {})},
                    **{
                        column: {"category": "key"}
                        for n, link in enumerate(self.links)
                        if link.child == table
                        for column in link.columns(n)
                    },
                },
            }
        return {"purposes": {"orders": {"basis": "contract"}}, "tables": tables}


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Two to four tables, each with up to three foreign keys to any."""
    count = draw(st.integers(2, 4))
    flags = st.tuples(*[st.booleans()] * count)
    rows = st.integers(0, ROWS - 1)
    links: list[Link] = []
    via: list[int | None] = []
    for table in range(count):
        for place in range(draw(st.integers(0, 3))):
            parent = draw(st.integers(0, count - 1))
            nullable = draw(st.booleans())
            action = draw(
                st.sampled_from(
                    ["no action", "restrict", "cascade", "set null", "set default"]
                    if nullable
                    else ["no action", "restrict", "cascade"]
                )
            )
            target = st.one_of(st.none(), rows) if nullable else rows
            links.append(
                Link(
                    table,
                    parent,
                    nullable,
                    action,
                    action != "restrict" and draw(st.booleans()),
                    draw(st.booleans()),
                    draw(st.tuples(*[target] * ROWS)),
                )
            )
            if place == 0:
                via.append(len(links) - 1 if parent < table and draw(st.booleans()) else None)
        if len(via) == table:
            via.append(None)
    kinds = [draw(flags) for _ in range(5)]
    return Schema(kinds[0], kinds[1], kinds[2], kinds[3], kinds[4], tuple(via), tuple(links))


@pytest.fixture(scope="module")
def server(clone: Clone, installed_template: str) -> Iterator[Database]:
    """A database whose every use is rolled back."""
    with clone(installed_template) as database:
        yield database


@settings(
    max_examples=EXAMPLES,
    # a smaller schema is not worth minutes
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(schema=schemas(), row=st.integers(0, ROWS - 1), many=st.booleans())
def test_nothing_of_the_erased_and_everything_of_the_others(
    server: Database, schema: Schema, row: int, many: bool
) -> None:
    with psycopg.connect(server.dsn("postgres")) as connection:
        connection.execute(f"set session authorization {OWNER}".encode())
        for statement in schema.statements():
            connection.execute(statement.encode())
        connection.execute("set constraints all immediate")
        connection.execute("select count(*) from gdpr.apply(%s)", [json.dumps(schema.policy())])
        connection.execute("reset session authorization")
        owners = _owners(connection, schema)
        erased = {owners["t0", row]}
        if many:
            erased.add(owners["t1", row])
        connection.execute("set session authorization dpo_login")
        receipts = connection.execute(
            "select gdpr.erase(%s::bigint[], 'asked')", [sorted(erased)]
        ).fetchall()
        left = _content(connection, schema, "value")
        people = _content(connection, schema, "people")
        connection.execute("reset session authorization")
        connection.execute("set constraints all immediate")
        stored = _stored(connection)
        for (table, number), owner in owners.items():
            value = f"secret-{table[1:]}-{number}-x"
            if owner in erased:
                assert value not in stored
                assert value not in left.values()
                assert people.get((table, number), KEPT) == KEPT
            else:
                assert left[table, number] == value, (table, number)
                address = schema.address(int(table[1:]), number)
                assert people[table, number] == [*([address] if address else []), *KEPT]
        for n, link in enumerate(schema.links):
            assert connection.execute(_dangling(n, link).encode()).fetchall() == [], link
        counted: dict[str, int] = {}
        for (receipt,) in receipts:
            assert receipt["key_destroyed"] is True
            for line in receipt["tables"]:
                counted[line["table"]] = counted.get(line["table"], 0) + line["rows"]
        for number in range(len(schema.via)):
            assert counted[f"public.t{number}"] == sum(
                owner in erased for (of, _), owner in owners.items() if of == f"t{number}"
            )
        connection.rollback()


def _owners(connection: psycopg.Connection, schema: Schema) -> dict[tuple[str, int], int]:
    """Whose every row is."""
    found: dict[tuple[str, int], int] = {}
    for table in range(len(schema.via)):
        rows = connection.execute(f"select id, gdpr_subject_id from t{table}".encode())
        found |= {(f"t{table}", key): owner for key, owner in rows}
    return found


#: What of a list of addresses outlives the person.
KEPT = ["kept@example.com"]


def _content(
    connection: psycopg.Connection, schema: Schema, column: str
) -> dict[tuple[str, int], Any]:
    """A column of every row, in the clear."""
    found: dict[tuple[str, int], Any] = {}
    for table in range(len(schema.via)):
        rows = connection.execute(f"select id, {column} from gdpr_clear.t{table}".encode())
        found |= {(f"t{table}", key): value for key, value in rows}
    return found


def _stored(connection: psycopg.Connection) -> str:
    """Every row of every table of the application and of gdprdb, as stored."""
    tables = connection.execute(
        "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace in"
        " ('public'::regnamespace, 'gdpr_internal'::regnamespace)"
    ).fetchall()
    return "".join(
        str(connection.execute(f"select t::text from {table} as t".encode()).fetchall())
        for (table,) in tables
    )


def _dangling(n: int, link: Link) -> str:
    """Rows whose foreign key refers to nothing."""
    columns = link.columns(n)
    match = " and ".join(
        f"p.{parent} = c.{child}" for parent, child in zip(["id", "half"], columns, strict=False)
    )
    present = " and ".join(f"c.{column} is not null" for column in columns)
    return (
        f"select c.id from t{link.child} as c where {present}"
        f" and not exists (select from t{link.parent} as p where {match})"
    )
