"""Whatever DDL is done to a protected table, its rows are those of a plain table after the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.capabilities.crm import apply, findings
from tests.support import Clone, Database

#: Sequences of changes; GDPRDB_TEST_RESHAPES=100 is the long run.
SEQUENCES = int(os.environ.get("GDPRDB_TEST_RESHAPES", "3"))

#: Types that a value of the first can be read as.
WIDER = {
    "date": ["timestamp without time zone", "text"],
    "integer": ["bigint", "numeric", "text"],
    "character varying(40)": ["character varying(80)", "text"],
    "timestamp without time zone": ["text"],
    "bigint": ["numeric", "text"],
    "numeric": ["text"],
    "character varying(80)": ["text"],
    "boolean": ["text"],
}

VALUES = {
    "date": ["1980-02-03", "2024-02-29"],
    "integer": ["7", "-1"],
    "character varying(40)": ["Ada", "Ünal 'x' \\ %"],
    "text": ["gdpr", "a\nb", ""],
    "boolean": ["true", "false"],
    "timestamp without time zone": ["1980-02-03 04:05:06", "2024-02-29"],
    "bigint": ["12345678901"],
    "numeric": ["1.50"],
    "character varying(80)": ["x" * 80],
}

NAMES = ["plain", "Order", "a b", "é", "select", "x%I", "name", "value", "new", "t"]


@dataclass
class Column:
    """A column of both tables.

    Attributes:
        name: what it is called.
        kind: its type.
        encrypted: whether the protected one is, or is going to be.
        stored: whether it holds ciphertext already.
    """

    name: str
    kind: str
    encrypted: bool
    stored: bool = False


@dataclass
class Pair:
    """A protected table, safe.<name>, and its plain twin.<name>."""

    db: Database
    owner: psycopg.Connection
    name: str = "person"
    columns: list[Column] = field(default_factory=list)
    rows: int = 0

    def both(self, statement: Callable[[str], str], *, of_twin: str | None = None) -> None:
        """DDL on both tables. statement: from the table's qualified name."""
        self.owner.execute(statement(f'safe."{self.name}"').encode())
        self.owner.execute((of_twin or statement(f'twin."{self.name}"')).encode())

    def insert(self, value: Callable[[Column], str]) -> None:
        """A row, through the clear view and into the twin."""
        self.rows += 1
        given = {column.name: value(column) for column in self.columns}
        names = ", ".join(f'"{quoted(name)}"' for name in ["id", *given])
        marks = ", ".join(["%s"] * (len(given) + 1))
        for schema, login in (("gdpr_clear", "crm_app"), ("twin", "db_owner")):
            self.db.rows(
                f'insert into {schema}."{self.name}" ({names.replace("%", "%%")}) values ({marks})',
                [self.rows, *given.values()],
                user=login,
            )

    def content(self, schema: str, login: str) -> list[tuple[object, ...]]:
        """All rows of the columns that both know."""
        names = ", ".join(f'"{quoted(column.name)}"' for column in self.columns)
        names = f"id, {names}" if names else "id"
        return self.db.rows(f'select {names} from {schema}."{self.name}" order by id', user=login)

    def equal(self) -> None:
        """Both have the same rows, and the doctor has nothing to say."""
        assert self.content("gdpr_clear", "crm_app") == self.content("twin", "db_owner")
        assert findings(self.db) == set()

    def classify(self) -> None:
        """The policy says of each column what it is."""
        for column in self.columns:
            column.stored = column.encrypted
        apply(
            self.db,
            {
                "purposes": {"orders": {"basis": "contract"}},
                "roles": {"crm_app": {"audience": "clear", "purposes": ["orders"]}},
                "tables": {
                    f"safe.{self.name}": {
                        "subject": "self",
                        "purposes": ["orders"],
                        "columns": {
                            column.name: {
                                "encrypt": "searchable" if "text" in column.kind else True
                            }
                            if column.encrypted
                            else {"category": "other"}
                            for column in self.columns
                        },
                    }
                },
            },
        )


def quoted(name: str) -> str:
    """A name between double quotes."""
    return name.replace('"', '""')


def shape(db: Database, schema: str) -> list[tuple[object, ...]]:
    """Columns, constraints and indexes as the catalog has them."""
    return db.rows(
        "select 'column', a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,"
        "   pg_get_expr(d.adbin, d.adrelid)"
        " from pg_class as c join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0"
        " left join pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum"
        " where c.relnamespace = %(schema)s::text::regnamespace and c.relkind = 'r'"
        " and not a.attisdropped"
        " union all"
        " select 'index', i.relname::text,"
        "   replace(pg_get_indexdef(i.oid), %(schema)s::text, ''), null, null"
        " from pg_class as i"
        " where i.relnamespace = %(schema)s::text::regnamespace and i.relkind = 'i'"
        " order by 1, 2",
        {"schema": schema},
    )


@pytest.fixture(scope="module")
def pair_template(clone: Clone, installed_template: str) -> Iterator[str]:
    """Name of a database with the two tables."""
    with clone(installed_template) as database:
        for schema in ("safe", "twin"):
            database.rows(
                f"create schema {schema};"
                f"grant usage on schema {schema} to crm_app;"
                f'create table {schema}.person (id int primary key, "full name" varchar(40),'
                " born date, points int, note text, vip boolean);"
                f"grant select, insert, update, delete on {schema}.person to crm_app"
            )
        yield database.name


# no shrinking: each example is seconds long
@settings(
    max_examples=SEQUENCES,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_a_protected_table_and_its_plain_twin_stay_equal(
    clone: Clone, pair_template: str, data: st.DataObject
) -> None:
    def value(column: Column) -> str:
        return data.draw(st.sampled_from(VALUES[column.kind]))

    with (
        clone(pair_template) as database,
        psycopg.connect(database.dsn(), autocommit=True) as owner,
    ):
        pair = Pair(database, owner)
        pair.columns = [
            Column(name, kind, data.draw(st.booleans()))
            for name, kind in (
                ("full name", "character varying(40)"),
                ("born", "date"),
                ("points", "integer"),
                ("note", "text"),
                ("vip", "boolean"),
            )
        ]
        pair.classify()
        pair.insert(value)
        pair.insert(value)
        for _ in range(data.draw(st.integers(2, 4))):
            pair.owner.execute("begin")
            pair.owner.execute(f"select gdpr.reshape('safe.\"{pair.name}\"')".encode())
            for _ in range(data.draw(st.integers(1, 4))):
                change(pair, data)
            pair.owner.execute("select gdpr.end_reshape()")
            pair.owner.execute("commit")
            pair.classify()
            pair.equal()
            pair.insert(value)
            pair.equal()
        pair.owner.execute(f"select gdpr.unprotect('safe.\"{pair.name}\"')".encode())
        assert pair.content("safe", "db_owner") == pair.content("twin", "db_owner")
        assert shape(database, "safe") == shape(database, "twin")


def change(pair: Pair, data: st.DataObject) -> None:
    """One change of both tables."""
    kinds = ["add", "rename", "drop", "swap", "retype", "default", "table", "index"]
    kind = data.draw(st.sampled_from(kinds))
    free = [name for name in NAMES if name not in {column.name for column in pair.columns}]
    if kind == "table":
        name = data.draw(st.sampled_from(["person", "Client", "a.b"]))
        if name != pair.name:
            pair.both(lambda table: f'alter table {table} rename to "{name}"')
            pair.name = name
    elif kind == "add":
        new = Column(
            data.draw(st.sampled_from(free)),
            data.draw(st.sampled_from(list(VALUES))),
            data.draw(st.booleans()),
        )
        default = VALUES[new.kind][0].replace("'", "''")
        pair.both(
            lambda table: f"alter table {table} add \"{new.name}\" {new.kind} default '{default}'"
        )
        pair.columns.append(new)
    elif pair.columns:
        column = data.draw(st.sampled_from(pair.columns))
        old = column.name
        if kind == "rename":
            to = data.draw(st.sampled_from(free))
            rename(pair, old, to)
            column.name = to
        elif kind == "drop":
            pair.both(lambda table: f'alter table {table} drop "{old}"')
            pair.columns.remove(column)
        elif kind == "swap":
            other = data.draw(st.sampled_from(pair.columns))
            if other is not column:
                rename(pair, old, "between")
                rename(pair, other.name, old)
                rename(pair, "between", other.name)
                column.name, other.name = other.name, old
        elif kind == "index":
            pair.both(lambda table: f'create index on {table} ("{old}", id)')
        elif kind == "default":
            pair.both(lambda table: f'alter table {table} alter "{old}" drop default')
        elif column.kind in WIDER:
            retype(pair, column, data.draw(st.sampled_from(WIDER[column.kind])))


def rename(pair: Pair, was: str, now: str) -> None:
    """Another name for a column."""
    pair.both(lambda table: f'alter table {table} rename "{was}" to "{now}"')


def retype(pair: Pair, column: Column, to: str) -> None:
    """Another type for a column."""
    name, plain = column.name, 'alter table {} alter "{}" drop default, alter "{}" type {}'
    twin = plain.format(f'twin."{pair.name}"', name, name, to)
    safe = plain.format(f'safe."{pair.name}"', name, name, to)
    pair.owner.execute(twin.encode())
    if column.encrypted and column.stored:
        pair.owner.execute(f'alter table safe."{pair.name}" alter "{name}" drop default'.encode())
        pair.owner.execute(
            b"select gdpr.retype(%s::text::regclass, %s, %s)",
            [f'safe."{pair.name}"', name, to],
        )
    else:
        pair.owner.execute(safe.encode())
    column.kind = to
