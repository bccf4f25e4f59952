"""The customer database that the capability tests protect, and the words they check it with.

`TABLES` is an application as one finds it: a schema of its own, an identity
column, a quoted table name, children of children, a table of leads in which the
same people turn up. `POLICY` protects it.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.support import Database

TABLES = """
create schema crm;
create table crm.customer (
  id bigint generated always as identity primary key,
  email varchar(120) not null unique,
  phone text,
  last_name text not null,
  birth_date date,
  city varchar(40) default 'Stuttgart',
  created_at timestamptz not null default now()
);
create table crm."order" (
  id serial primary key,
  customer_id bigint references crm.customer on delete restrict,
  total numeric(10, 2),
  note text
);
create table crm.order_line (
  order_id integer not null references crm."order",
  n integer not null,
  engraving text,
  primary key (order_id, n)
);
create table crm.lead (
  id serial primary key,
  email text,
  full_name text,
  score integer
);
grant usage on schema crm to crm_app, dpo_login;
grant select, insert, update, delete on all tables in schema crm to crm_app;
grant usage on all sequences in schema crm to crm_app;
"""

ROWS = """
insert into crm.customer (email, phone, last_name, birth_date, city)
values
  ('anna@example.com', '+49 711 1001', 'Ahrens', '1980-01-02', 'Aalen'),
  ('bela@example.com', '+49 711 1002', 'Bartok', '1981-02-03', 'Bonn'),
  ('chie@example.com', '+81 3 1003', 'Chiba', '1982-03-04', 'Celle');
insert into crm."order" (customer_id, total, note)
values (1, 10, 'gift for Ada'), (1, 20, 'call first'), (2, 30, 'ring twice'), (3, 40, null);
insert into crm.order_line (order_id, n, engraving)
values (1, 1, 'Forever, Ada'), (2, 1, null), (3, 1, 'To Béla');
insert into crm.lead (email, full_name, score)
values ('ANNA@example.com', 'Anna Ahrens', 7), ('dora@example.com', 'Dora Dietz', 3);
"""

POLICY: dict[str, Any] = {
    "settings": {"phone_country_code": "49"},
    "purposes": {
        "orders": {"description": "Fulfil orders", "basis": "contract"},
        "marketing": {
            "basis": "consent",
            "valid_for": "2 years",
            "grace": False,
            "direct_marketing": True,
        },
        "analytics": {"basis": "legitimate_interests", "grace": False},
    },
    "roles": {
        "crm_app": {"audience": "clear", "purposes": ["orders", "marketing"]},
        "metabase": {"audience": "bi", "purposes": ["analytics"]},
    },
    "tables": {
        "crm.customer": {
            "subject": "self",
            "match_on": ["email"],
            "purposes": ["orders", "marketing", "analytics"],
            "columns": {
                "id": {"category": "key"},
                "email": {
                    "category": "contact",
                    "identifier": "email",
                    "encrypt": "searchable",
                    "mask": "email",
                },
                "phone": {"category": "contact", "identifier": "phone", "encrypt": True},
                "last_name": {"category": "identity", "mask": "initial"},
                "birth_date": {"category": "demographic", "encrypt": True, "mask": "year"},
                "city": {"category": "contact"},
                "created_at": {"category": "other"},
            },
        },
        "crm.order": {
            "subject": {"via": "customer_id"},
            "purposes": ["orders", "analytics"],
            "columns": {
                "id": {"category": "key"},
                "customer_id": {"category": "key"},
                "total": {"category": "transaction"},
                "note": {"category": "other", "encrypt": True},
            },
        },
        "crm.order_line": {
            "subject": {"via": "order_id"},
            "purposes": ["orders"],
            "columns": {"engraving": {"category": "other", "encrypt": True}},
        },
        "crm.lead": {
            "subject": "self",
            "match_on": ["email"],
            "purposes": ["marketing", "analytics"],
            "columns": {
                "id": {"category": "key"},
                "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
                "full_name": {"category": "identity", "mask": "pseudonym"},
                "score": {"category": "other"},
            },
        },
    },
}


def policy(**changes: Any) -> dict[str, Any]:
    """A copy of `POLICY` with changes.

    Args:
        changes: paths with ``__`` for each level and the new value, as
            ``tables__crm.customer__mode="observe"`` in a dict; ``...`` removes.
    """
    new = copy.deepcopy(POLICY)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = new
        for key in parents:
            place = place.setdefault(key, {})
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return new


def one_table(name: str, **table: Any) -> dict[str, Any]:
    """The smallest policy for one table: persons, one purpose, the application bound to it.

    Args:
        name: the table as a policy names it.
        table: settings of the table, over the defaults.
    """
    return {
        "purposes": {"orders": {"basis": "contract"}},
        "roles": {
            "crm_app": {"audience": "clear", "purposes": ["orders"]},
            "metabase": {"audience": "bi", "purposes": ["orders"]},
        },
        "tables": {name: {"subject": "self", "purposes": ["orders"], "columns": {}, **table}},
    }


Step = tuple[Any, ...]


def plan(db: Database | psycopg.Connection, new: dict[str, Any]) -> list[Step]:
    """The rows of gdpr.plan(), on a connection or as the owner of the tables."""
    return _ask(db, "select * from gdpr.plan(%s)", new)


def apply(db: Database | psycopg.Connection, new: dict[str, Any]) -> list[Step]:
    """The rows of gdpr.apply(), on a connection or as the owner of the tables."""
    return _ask(db, "select * from gdpr.apply(%s)", new)


def problems(db: Database | psycopg.Connection, new: dict[str, Any]) -> list[str]:
    """The reasons for which gdpr.plan() refuses a policy."""
    with refused("PR001", "policy_refused") as error:
        plan(db, new)
    return (error.value.diag.message_detail or "").splitlines()


def _ask(db: Database | psycopg.Connection, statement: str, new: dict[str, Any]) -> list[Step]:
    if isinstance(db, Database):
        return db.rows(statement, [json.dumps(new)])
    return db.execute(statement.encode(), [json.dumps(new)]).fetchall()


@contextmanager
def refused(
    sqlstate: str, name: str | None = None
) -> Iterator[pytest.ExceptionInfo[psycopg.Error]]:
    """The block raises an error of gdprdb with this code, name and a hint.

    Args:
        sqlstate: its SQLSTATE.
        name: its name in gdpr.error_code, which is its constraint; None: an error
            of PostgreSQL itself.
    """
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    assert caught.value.sqlstate == sqlstate, caught.value
    if name is not None:
        assert caught.value.diag.constraint_name == f"gdpr_{name}"
        assert caught.value.diag.message_hint


def subject(db: Database, table: str, key: object) -> int:
    """The number of the person whose row it is."""
    found = db.rows(
        "select gdpr.subject_of(%s::text::regclass, %s)", [table, str(key)], user="dpo_login"
    )
    number = found[0][0]
    assert isinstance(number, int)
    return number


def findings(
    db: Database, *, severities: tuple[str, ...] = ("error", "warning")
) -> set[tuple[str, str]]:
    """Check and object of what gdpr.doctor() finds, but for the development key of the tests,
    and for analytics of which the tests that apply the policy themselves assess nothing."""
    known = {("warning", "key"), ("warning", "assessment")}
    rows = db.rows("select severity, topic, object from gdpr.doctor()")
    return {
        (check, thing)
        for severity, check, thing in rows
        if severity in severities and (severity, check) not in known
    }


def original(db: Database, schema: str) -> str:
    """A schema of the application as pg_dump writes it, with data, without comments."""
    text = subprocess.run(
        [
            db.cluster.binaries.program("pg_dump"),
            f"--schema={schema}",
            "--no-comments",
            "--inserts",
            db.dsn("postgres"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [
        line
        for line in text.splitlines()
        if line and not line.startswith("--") and not re.match(r"\\(un)?restrict ", line)
    ]
    return "\n".join(lines)
