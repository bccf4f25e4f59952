"""A shop that is protected in batches, and the words the tests drive that with."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from gdprdb import enabling
from tests.capabilities.crm import one_table
from tests.support import Clone, Database

#: Rows so wide that a block holds few: a small table has many batches.
TABLES = """
create schema shop;
create table shop.buyer (
  id bigint generated always as identity primary key,
  email varchar(120) not null unique,
  login text,
  phone varchar(40),
  city varchar(40) default 'Stuttgart',
  nickname text,
  filler text default repeat('x', 1500)
);
create unique index buyer_login on shop.buyer (login);
create index buyer_city on shop.buyer (city);
create index buyer_phone on shop.buyer (lower(phone));
comment on index shop.buyer_login is 'one login, one buyer';
create table shop.purchase (
  id serial primary key,
  buyer_id bigint references shop.buyer,
  note text,
  filler text default repeat('x', 1500)
);
grant usage on schema shop to crm_app, dpo_login;
grant select, insert, update, delete on all tables in schema shop to crm_app;
grant usage on all sequences in schema shop to crm_app;
"""

ROWS = """
insert into shop.buyer (email, login, phone, nickname)
select 'Buyer' || n || '@Example.com', 'login' || n, case when n % 3 > 0 then '+49 711 ' || n end,
  case when n % 2 = 0 then '' else 'Ä' || n end
from generate_series(1, 40) as n;
update shop.buyer set city = null where id = 7;
insert into shop.purchase (buyer_id, note)
select case when n % 10 > 0 then 1 + n % 40 end, case when n % 4 > 0 then 'note ' || n end
from generate_series(1, 60) as n;
"""

POLICY: dict[str, Any] = one_table(
    "shop.buyer",
    match_on=["email"],
    columns={
        "id": {"category": "key"},
        "email": {
            "category": "contact",
            "identifier": "email",
            "encrypt": "searchable",
            "mask": "email",
        },
        "login": {"category": "identity", "encrypt": "searchable", "canonical": "exact"},
        "phone": {"category": "contact", "identifier": "phone", "encrypt": "searchable"},
        "city": {"category": "contact", "encrypt": True, "mask": "initial"},
        "nickname": {"category": "identity", "mask": "pseudonym"},
        "filler": {"category": "other"},
    },
)
POLICY["purposes"]["news"] = {"basis": "consent", "grace": "30 days"}
POLICY["tables"]["shop.buyer"]["purposes"] = ["orders", "news"]
POLICY["tables"]["shop.purchase"] = {
    "subject": {"via": "buyer_id"},
    "purposes": ["orders"],
    "columns": {
        "id": {"category": "key"},
        "buyer_id": {"category": "key"},
        "note": {"category": "other", "encrypt": True},
        "filler": {"category": "other"},
    },
}


@contextmanager
def application(clone: Clone, template: str, *statements: str) -> Iterator[Database]:
    """A database with gdprdb and nothing of an application's but what these statements make.

    Args:
        clone: makes copies.
        template: ``shop_template``, with the shop's schema ``crm``, which goes.
        statements: run one after the other, as the owner.
    """
    with clone(template) as database:
        for statement in ("drop schema crm cascade", *statements):
            database.rows(statement)
        yield database


def step(db: Database, policy: dict[str, Any] | None = None) -> enabling.Step | None:
    """What comes next."""
    with db.session() as connection:
        return enabling.next_step(connection, Jsonb(policy or POLICY))


def take(db: Database, blocks: int = 1, policy: dict[str, Any] | None = None) -> str | None:
    """Run one statement of what comes next, in a session of its own: one batch of batches."""
    following = step(db, policy)
    if following is None:
        return None
    db.rows(_limited(following, blocks))
    return following.action


def _limited(following: enabling.Step, blocks: int) -> str:
    """Its statement; of batches, one batch."""
    if following.kind != "batches":
        return following.statement
    return following.statement.replace("')", f"', {blocks})")


STATE = "select state from gdpr.enabling where table_name = %s::text::regclass"


def state(db: Database, table: str = "shop.buyer") -> str | None:
    """How far the enabling of a table is."""
    found = db.rows(STATE, [table])
    return found[0][0] if found else None


def until(
    db: Database,
    wanted: str | None,
    table: str = "shop.buyer",
    policy: dict[str, Any] | None = None,
) -> None:
    """Go on, in one session, until the enabling of a table is in a state; None: has ended."""
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        while (connection.execute(STATE, [table]).fetchone() or (None,))[0] != wanted:
            following = enabling.next_step(connection, Jsonb(policy or POLICY))
            assert following is not None
            connection.execute(_limited(following, 1).encode())


def finish(db: Database, policy: dict[str, Any] | None = None) -> None:
    """Go on to the end, one block at a time."""
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        enabling.run(connection, Jsonb(policy or POLICY), blocks=1)


def finish_though_killed(db: Database, policy: dict[str, Any], seed: int) -> int:
    """Go on to the end, in sessions that are terminated, at whatever they are; how many were."""
    dice = random.Random(seed)
    kills = 0
    while True:
        with psycopg.connect(db.dsn(), autocommit=True) as connection:
            number = connection.info.backend_pid
            timer = threading.Timer(
                # longer each time: the longest step has to come to its end on any machine
                dice.uniform(0.02, 0.15 + 0.1 * kills),
                lambda number=number: db.rows(
                    "select pg_terminate_backend(%s)", [number], user="postgres"
                ),
            )
            timer.start()
            try:
                enabling.run(connection, Jsonb(policy), blocks=1)
            except psycopg.OperationalError:
                kills += 1
                continue
            finally:
                timer.cancel()
                timer.join()
        return kills


CATALOG = """
select format('%%s %%s %%s', c.kind, c.name, c.definition)
from gdpr_internal.controls(%(table)s::text::regclass) as c
union all
select format('attribute %%s %%s %%s %%s %%s', a.attnum, a.attname,
  format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
from pg_attribute as a
left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = %(table)s::text::regclass and a.attnum > 0
union all
select format('source %%s %%s', p.proname, p.prosrc) from pg_proc as p
where p.pronamespace = 'gdpr_generated'::regnamespace and p.proname ~ '_[0-9]+$'
union all
select format('index %%s %%s %%s %%s', pg_get_indexdef(x.indexrelid), x.indisvalid, x.indisprimary,
  obj_description(x.indexrelid, 'pg_class'))
from pg_index as x where x.indrelid = %(table)s::text::regclass
union all
select format('constraint %%s %%s %%s', k.conname, pg_get_constraintdef(k.oid), k.convalidated)
from pg_constraint as k where k.conrelid = %(table)s::text::regclass
union all
select format('grants %%s', c.relacl) from pg_class as c where c.oid = %(table)s::text::regclass
union all
select format('generated %%s', p.oid::regprocedure) from pg_proc as p
where p.pronamespace = 'gdpr_generated'::regnamespace
order by 1
"""


def catalog(db: Database, table: str) -> list[str]:
    """All that the catalog says of a table."""
    lines = [line for (line,) in db.rows(CATALOG, {"table": table}, user="postgres")]
    # what is generated names the end of the grace period, which depends on when it began
    return [
        re.sub(r"'20\d\d-[^']*'", "'then'", re.sub(r" [0-9a-f]{32}$", "", line)) for line in lines
    ]


def columns(lines: list[str]) -> list[str]:
    """The catalog of a table, but for the places of its columns, in whose order code is written."""
    return sorted(
        line.split(" ", 2)[2] if line.startswith("attribute") else line
        for line in lines
        if "........pg.dropped" not in line and not line.startswith("source")
    )


EVIDENCE = """
select (select count(*) from gdpr_internal.subject where erased_at is null),
  (select count(*) from gdpr_internal.subject_key),
  (select jsonb_agg(to_jsonb(i) order by i.digest) from (
    select digest, kind, bare_digest, by_match, retired_at is null as held
    from gdpr_internal.identifier
  ) as i),
  (select jsonb_agg(to_jsonb(s) order by to_jsonb(s)) from (
    select table_id, event, kind, details, count(*) from gdpr_internal.source group by 1, 2, 3, 4
  ) as s),
  (select jsonb_agg(to_jsonb(b) order by to_jsonb(b)) from (
    select purpose_id, basis, reason, by_table, count(*)
    from gdpr_internal.basis_record group by 1, 2, 3, 4
  ) as b)
"""


def told(db: Database) -> str:
    """The persons, and what is recorded of them, but for numbers and times."""
    return json.dumps(db.rows(EVIDENCE, user="postgres"), default=str)


def clear(db: Database, view: str) -> list[tuple[Any, ...]]:
    """The rows of a clear view."""
    return db.rows(f"select * from gdpr_clear.{view} order by id", user="crm_app")
