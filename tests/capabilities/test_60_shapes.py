"""Everybody is erased, one after another, from a schema with every shape of foreign key."""

from __future__ import annotations

from typing import Any

from tests.capabilities.crm import apply, subject
from tests.support import Database
from tests.traces import dangling, traces

#: Persons are numbered; every row belongs to one, and says so in its secret.
PERSONS = 8

OWNED = "org integer not null, owner integer not null, secret text"

SCHEMA = f"""
create table person (
  org integer, id integer, secret text not null, mentor_org integer, mentor integer,
  primary key (org, id),
  foreign key (mentor_org, mentor) references person
);
-- a circle of two, a circle of three, all NOT NULL; a reference of a table to itself that is, too
create table account (id integer primary key, {OWNED}, card integer not null);
create table card (
  id integer primary key, {OWNED}, account integer not null references account on delete cascade
);
create table x (id integer primary key, {OWNED}, y integer not null);
create table y (id integer primary key, {OWNED}, z integer not null);
create table z (id integer primary key, {OWNED}, x integer not null references x);
create table node (
  id integer, part integer, {OWNED}, top integer not null, top_part integer not null,
  primary key (id, part), foreign key (top, top_part) references node
);
-- partitions on both sides
create table visit (id integer, day date, {OWNED}, primary key (id, day)) partition by range (day);
create table visit_old partition of visit for values from (minvalue) to ('2020-01-01');
create table visit_new partition of visit for values from ('2020-01-01') to (maxvalue);
create table report (
  id integer primary key, {OWNED}, visit integer, day date,
  foreign key (visit, day) references visit on delete restrict
) partition by hash (id);
create table report_0 partition of report for values with (modulus 2, remainder 0);
create table report_1 partition of report for values with (modulus 2, remainder 1);
-- rows of one person that refer to rows of the next
create table mark (
  id integer primary key, {OWNED},
  cascading integer references account on delete cascade,
  nulled integer references account on delete set null,
  reset integer default null references account on delete set default,
  restricted integer references account on delete restrict,
  plain integer references account on delete no action,
  late integer references account deferrable initially deferred,
  pinned integer not null references account
);
create table sale (id integer primary key, {OWNED}, amount integer not null);
-- a table that nobody declared, of which PostgreSQL takes care
create table badge (
  account integer references account on delete cascade, later integer references account
    on delete set null
);
"""

ROWS = f"""
insert into person select n % 2, n, format('person-of-%s-x', n), (n + 1) % 2, (n + 1) % {PERSONS}
  from generate_series(0, {PERSONS - 1}) as n;
insert into account select n, n % 2, n, format('account-of-%s-x', n), n
  from generate_series(0, {PERSONS - 1}) as n;
insert into card select id, org, owner, format('card-of-%s-x', owner), id from account;
insert into x select id, org, owner, format('x-of-%s-x', owner), id from account;
insert into y select id, org, owner, format('y-of-%s-x', owner), id from account;
insert into z select id, org, owner, format('z-of-%s-x', owner), id from account;
insert into node select id, 1, org, owner, format('node-of-%s-x', owner), (id + 1) % {PERSONS}, 1
  from account;
insert into visit
  select id, date '2019-06-01' + 365 * (id % 3), org, owner, format('visit-of-%s-x', owner)
  from account;
insert into report select v.id, a.org, a.owner, format('report-of-%s-x', a.owner), v.id, v.day
  from visit as v join account as a on a.id = (v.id + 1) % {PERSONS};
insert into mark select id, org, owner, format('mark-of-%s-x', owner), t, t, t, t, t, t, t
  from (select *, (id + 1) % {PERSONS} as t from account) as a;
insert into sale select id, org, owner, format('sale-of-%s-x', owner), 100 + id from account;
insert into badge select id, id from account;
"""

LINKS = """
alter table account add foreign key (card) references card deferrable initially deferred;
alter table x add foreign key (y) references y;
alter table y add foreign key (z) references z on delete cascade;
"""

TABLES = ("account", "card", "x", "y", "z", "node", "visit", "report", "mark", "sale")


def policy() -> dict[str, Any]:
    """Every other table encrypted, sales anonymised, all else deleted."""
    return {
        "purposes": {"orders": {"basis": "contract"}},
        "tables": {
            "public.person": {
                "subject": "self",
                "purposes": ["orders"],
                "columns": {"secret": {"category": "identity"}},
            },
            **{
                f"public.{table}": {
                    "subject": {"via": ["org", "owner"]},
                    "purposes": ["orders"],
                    "erase": "anonymise" if table == "sale" else "delete",
                    "columns": {
                        "secret": {"category": "contact", "encrypt": n % 2 == 1},
                        **({"amount": {"category": "transaction"}} if table == "sale" else {}),
                    },
                }
                for n, table in enumerate(TABLES)
            },
        },
    }


def test_everybody_is_erased_whatever_refers_to_whom(db: Database) -> None:
    """After each: a dump holds nothing of the erased and all of the others, references hold, the
    totals are the same."""
    connection = db.connect()
    connection.execute(SCHEMA.encode())
    connection.execute("begin")
    connection.execute(ROWS.encode())
    connection.execute("commit")
    connection.execute(LINKS.encode())
    for table in TABLES:
        connection.execute(
            f"alter table {table} add foreign key (org, owner) references person".encode()
        )
    apply(db, policy())
    officer = db.connect("dpo_login")
    people = {n: subject(db, "public.person", f'["{n % 2}","{n}"]') for n in range(PERSONS)}
    secrets = {n: {f"{table}-of-{n}-x" for table in ("person", *TABLES)} for n in range(PERSONS)}
    clear = " union all ".join(
        f"select secret from gdpr_clear.{table}" for table in ("person", *TABLES)
    )
    everything = set().union(*secrets.values())
    for number, person in people.items():
        ((receipt,),) = officer.execute("select gdpr.erase(%s, 'asked')", [person]).fetchall()
        assert receipt["key_destroyed"] is True
        gone = set().union(*(secrets[n] for n in range(number + 1)))
        assert traces(db, everything, schema=number in {0, PERSONS - 1}) & gone == set()
        left = {secret for (secret,) in officer.execute(clear.encode()).fetchall()}
        assert left & everything == everything - gone
        assert dangling(db) == []
        assert db.rows("select count(*), sum(amount) from sale", user="postgres") == [
            (PERSONS, sum(range(100, 100 + PERSONS)))
        ]
    # nothing is left of what the table's method deletes but what must be referred to
    assert db.rows("select count(*) from mark", user="postgres") == [(0,)]
    assert db.rows("select count(*) from gdpr_internal.subject_key", user="postgres") == [(0,)]
