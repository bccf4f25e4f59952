"""Members of a club in partitions of every kind, for the tests of enabling."""

from __future__ import annotations

import re
from typing import Any

from tests.capabilities.crm import one_table
from tests.capabilities.enabling import catalog, columns
from tests.support import Database

TABLE, CLEAR = "shop.member", "gdpr_clear.member"

#: Partitions of partitions, one for whatever is left, one in another schema that was made by itself
#: with another order of columns and things of its own, one without rows, one without partitions.
TABLES = """
create schema shop;
create schema far;
create table shop.member (
  gone text,
  id bigint not null,
  region text not null,
  year integer not null,
  email varchar(120) not null,
  phone varchar(40),
  city varchar(40) default 'Stuttgart',
  born date not null default '1980-01-01',
  wage numeric(12, 2),
  nickname text,
  filler text default repeat('x', 1500),
  primary key (region, year, id),
  constraint paid check (wage is null or wage >= 0)
) partition by list (region);
alter table shop.member drop column gone;
create index member_city on shop.member (city);
create index on shop.member (born, id);
create table shop.member_eu partition of shop.member for values in ('eu') partition by range (year);
create table shop.member_eu_old partition of shop.member_eu for values from (0) to (2000);
create table shop.member_eu_new partition of shop.member_eu for values from (2000) to (3000);
create table far.member_us (
  filler text,
  wage numeric(12, 2),
  more text,
  nickname text,
  born date not null default '1990-09-09',
  city varchar(40),
  phone varchar(40) not null,
  email varchar(120) not null,
  year integer not null,
  region text not null,
  id bigserial not null,
  constraint paid check (wage is null or wage >= 0)
);
alter table far.member_us drop column more;
alter table far.member_us alter column wage set not null, alter column wage set default 5;
alter table far.member_us alter column born set statistics 77;
alter table far.member_us alter column born set (n_distinct = 5);
comment on column far.member_us.born is 'of birth, over there';
create sequence far.member_us_wage_seq owned by far.member_us.wage;
alter table far.member_us enable row level security;
create policy everybody on far.member_us using (true);
create index member_us_phone on far.member_us (lower(phone));
create index member_us_wage on far.member_us (wage);
comment on index far.member_us_wage is 'who earns what';
alter table shop.member attach partition far.member_us for values in ('us');
create table shop.member_rest partition of shop.member default;
create table shop.member_none partition of shop.member for values in ('xx');
create table shop.member_void partition of shop.member for values in ('vv')
  partition by range (year);
comment on column shop.member.born is 'of birth';
grant usage on schema shop, far to crm_app, dpo_login;
grant select, insert, update, delete
  on shop.member, shop.member_eu, shop.member_eu_old, far.member_us to crm_app;
grant select (born) on shop.member_rest to crm_app;
"""

ROWS = """
insert into shop.member (id, region, year, email, phone, city, born, wage, nickname)
select n, (array['eu', 'us', 'eu', 'other'])[1 + n % 4], 1990 + n % 20,
  'Member' || n || '@Example.com', '+49 711 ' || n % 30,
  case when n % 7 > 0 then 'Ulm' end, date '1970-01-01' + n, n, 'N' || n
from generate_series(1, 60) as n;
"""

POLICY: dict[str, Any] = one_table(
    TABLE,
    match_on=["email"],
    columns={
        "id": {"category": "key"},
        "region": {"category": "key"},
        "year": {"category": "key"},
        "email": {
            "category": "contact",
            "identifier": "email",
            "encrypt": "searchable",
            "mask": "email",
        },
        "phone": {"category": "contact", "identifier": "phone", "encrypt": True},
        "city": {"category": "contact", "encrypt": True, "mask": "initial"},
        "born": {"category": "demographic", "encrypt": True, "mask": "year"},
        "wage": {"category": "other", "encrypt": "searchable"},
        "nickname": {"category": "identity", "mask": "pseudonym"},
        "filler": {"category": "other"},
    },
)

#: Without columns that become text: no shadows.
TEXTS: dict[str, Any] = one_table(
    TABLE,
    match_on=["email"],
    columns={
        name: rule if name not in ("born", "wage") else {"category": rule["category"]}
        for name, rule in POLICY["tables"][TABLE]["columns"].items()
    },
)

#: Nothing that is looked for: one pass.
SEALED: dict[str, Any] = one_table(
    TABLE,
    columns={
        "email": {"category": "contact", "identifier": "email", "encrypt": True},
        "city": {"category": "contact", "encrypt": True},
    },
)

#: Nothing encrypted.
PLAIN: dict[str, Any] = one_table(
    TABLE, match_on=["email"], columns={"email": {"category": "contact", "identifier": "email"}}
)

POLICIES = {"shadows": POLICY, "texts": TEXTS, "sealed": SEALED, "plain": PLAIN}


def parts(db: Database) -> list[str]:
    """The table and all its partitions."""
    found = db.rows(
        "select relid::regclass::text from pg_partition_tree(%s::text::regclass) order by 1",
        [TABLE],
    )
    return [name for (name,) in found]


ATTACHED = """
select c.oid::regclass::text, i.inhparent::regclass::text, x.indisvalid
from pg_inherits as i
join pg_class as c on c.oid = i.inhrelid
join pg_index as x on x.indexrelid = c.oid
order by 1
"""

COLUMNS = """
select c.oid::regclass::text, a.attname, obj_description(c.oid), col_description(c.oid, a.attnum),
  coalesce(nullif(to_jsonb(a) ->> 'attstattarget', '')::integer, -1), a.attoptions::text,
  array(select g::text from unnest(a.attacl) as g order by g::text)::text
from pg_attribute as a
join pg_class as c on c.oid = a.attrelid
where c.oid in (select relid from pg_partition_tree(%s::text::regclass))
  and a.attnum > 0 and not a.attisdropped
order by 1, 2
"""


def whole(db: Database) -> list[str]:
    """All that the catalog says of the table and its partitions, but for the places of columns."""
    lines = [
        # in PostgreSQL 18 ALTER TABLE gives NOT NULL of partitions the name that the table has
        re.sub(r"constraint \S+ (NOT NULL)", r"constraint \1", f"{part}: {line}")
        for part in parts(db)
        for line in columns(catalog(db, part))
    ]
    lines += [str(row) for row in db.rows(ATTACHED, user="postgres")]
    return sorted(lines + [str(row) for row in db.rows(COLUMNS, [TABLE], user="postgres")])


def people(db: Database, relation: str) -> list[tuple[Any, ...]]:
    """The rows of the table or its view, and the partition in which each is."""
    return db.rows(
        "select id, region, year, email, phone, city, born::text, wage::text, nickname"
        f" from {relation} order by id",
        user="crm_app",
    )
