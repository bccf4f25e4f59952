"""A committed change always has its record, a rolled-back one never, however it came about."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.capabilities.crm import apply, policy, refused
from tests.capabilities.sealing import settled
from tests.support import Clone, Database

CLUB = """
create table crm.member (
  id integer,
  region text,
  email text,
  level text,
  primary key (id, region)
) partition by list (region);
create table crm.member_north partition of crm.member for values in ('north');
create table crm.member_south partition of crm.member for values in ('south');
create table crm.visit (
  n integer primary key,
  id integer,
  region text,
  words text,
  foreign key (id, region) references crm.member on delete cascade on update cascade
);
create table crm.friend (
  n integer primary key,
  email text,
  likes integer references crm.visit on delete set null
);
grant select, insert, update, delete on crm.member, crm.visit, crm.friend to crm_app;
"""
SELF = {"subject": "self", "match_on": ["email"], "purposes": ["orders"]}
EMAIL = {"category": "contact", "identifier": "email", "encrypt": "searchable"}
TABLES = {
    "crm.member": SELF | {"columns": {"email": EMAIL, "level": {"category": "other"}}},
    "crm.visit": {
        "subject": {"via": ["id", "region"]},
        "purposes": ["orders"],
        "columns": {"words": {"category": "other", "encrypt": True}},
    },
    "crm.friend": SELF | {"columns": {"email": EMAIL}},
}
LOG = (
    "select operation, table_name::text, changed from gdpr.audit_log"
    " where table_name is not null and id > %s order by id"
)


@pytest.fixture(scope="module")
def club_template(clone: Clone, shop_template: str) -> Iterator[str]:
    """Partitioned members, whose visits go and move with them, and friends who like visits."""
    with clone(shop_template) as database:
        database.connect().execute(CLUB)
        new = policy()
        new["tables"] |= TABLES
        apply(database, new)
        app = database.connect("crm_app")
        app.execute(
            "insert into crm.member values"
            " (1, 'north', 'n@x.example', 'a'), (2, 'south', 's@x.example', 'a')"
        )
        app.execute("insert into crm.visit values (10, 1, 'north', 'hi'), (11, 1, 'north', 'ho')")
        app.execute("insert into crm.friend values (1, 'f@x.example', 10)")
        database.close()
        yield database.name


@pytest.fixture
def club(clone: Clone, club_template: str) -> Iterator[Database]:
    """A copy of the club for one test."""
    with clone(club_template) as database:
        yield database


def records(db: Database, statement: str, user: str = "crm_app") -> list[tuple[object, ...]]:
    """What a statement leaves in the log."""
    ((last,),) = db.rows("select max(id) from gdpr.audit_log", user="auditor_login")
    db.rows(statement, user=user)
    return db.rows(LOG, [last], user="auditor_login")


def test_merge_leaves_a_record_of_each_row(club: Database) -> None:
    told = records(
        club,
        "merge into crm.member as m"
        " using (values (1, 'north', 'b'), (2, 'south', 'gone'), (3, 'south', 'new'))"
        "   as v (id, region, level)"
        " on m.id = v.id and m.region = v.region"
        " when matched and v.level = 'gone' then delete"
        " when matched then update set level = v.level"
        " when not matched then insert (id, region, level) values (v.id, v.region, v.level)",
    )
    assert sorted(told, key=str) == [
        ("DELETE", "crm.member", None),
        ("INSERT", "crm.member", None),
        ("UPDATE", "crm.member", ["level"]),
    ]


def test_upsert_leaves_what_it_did(club: Database) -> None:
    upsert = (
        "insert into crm.member (id, region, level) values (1, 'north', '{0}'), (4, 'north', '{0}')"
        " on conflict (id, region) do {1}"
    )
    assert records(club, upsert.format("z", "update set level = excluded.level")) == [
        ("UPDATE", "crm.member", ["level"]),
        ("INSERT", "crm.member", None),
    ]
    assert records(club, upsert.format("y", "nothing")) == []


def test_copy_through_the_clear_view(club: Database) -> None:
    with (
        psycopg.connect(club.dsn("crm_app")) as connection,
        connection.cursor() as cursor,
        cursor.copy("copy gdpr_clear.friend (n, email) from stdin") as copy,
    ):
        copy.write_row((7, "g@x.example"))
        copy.write_row((8, "h@x.example"))
    told = club.rows(LOG, [0], user="auditor_login")
    assert told[-2:] == [("INSERT", "crm.friend", None)] * 2


def test_a_row_that_moves_between_partitions(club: Database) -> None:
    told = records(club, "update crm.member set region = 'south' where id = 1")
    assert told == [
        ("DELETE", "crm.member", None),
        ("INSERT", "crm.member", None),
        ("UPDATE", "crm.visit", ["region"]),
        ("UPDATE", "crm.visit", ["region"]),
    ], "to PostgreSQL, and so to its record, the row leaves one partition and enters another"


def test_cascades_leave_records_too(club: Database) -> None:
    told = records(club, "delete from crm.member where id = 1")
    assert sorted(told, key=str) == [
        ("DELETE", "crm.member", None),
        ("DELETE", "crm.visit", None),
        ("DELETE", "crm.visit", None),
        ("UPDATE", "crm.friend", ["likes"]),
    ]


@pytest.mark.parametrize("table", ["crm.member", "crm.member_north"])
def test_truncate_is_refused_to_everybody(club: Database, table: str) -> None:
    with refused("42501"):
        club.rows(f"truncate {table} cascade", user="crm_app")
    for connection in (club.connect(), club.connect("postgres")):
        with refused("PR407", "truncate_refused"):
            connection.execute(f"truncate {table} cascade".encode())


def test_only_what_is_committed_is_recorded(club: Database) -> None:
    ((last,),) = club.rows("select max(id) from gdpr.audit_log", user="auditor_login")
    with psycopg.connect(club.dsn("crm_app")) as connection:
        connection.execute("update crm.member set level = 'outer' where id = 1")
        with connection.transaction():
            connection.execute("update crm.member set level = 'inner' where id = 2")
            with connection.transaction(force_rollback=True):
                connection.execute("delete from crm.visit")
    told = club.rows(LOG, [last], user="auditor_login")
    assert told == [("UPDATE", "crm.member", ["level"])] * 2
    with psycopg.connect(club.dsn("crm_app")) as connection:
        connection.execute("delete from crm.visit")
        connection.rollback()
    assert len(club.rows(LOG, [last], user="auditor_login")) == 2


def test_the_record_holds_what_was_stored(club: Database) -> None:
    """A trigger of the application, fired after ours by its name, has the last word."""
    club.connect().execute(
        "create function crm.raise_level() returns trigger language plpgsql as"
        " $$ begin new.level := upper(new.level); return new; end $$;"
        " create trigger zz_level before insert or update on crm.member"
        " for each row execute function crm.raise_level()"
    )
    club.rows("update crm.member set level = 'gold' where id = 1", user="crm_app")
    versions = club.rows(
        """select content ->> 'level' from gdpr.history('crm.member', '["1", "north"]')""",
        user="dpo_login",
    )
    assert versions == [("GOLD",), ("a",)]


def test_records_are_written_in_every_session(club: Database) -> None:
    """Also where a replica's setting switches ordinary triggers off."""
    with psycopg.connect(club.dsn("postgres"), autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute("set gdpr.purpose = 'maintenance'")
        ((last,),) = connection.execute("select max(id) from gdpr_internal.audit_record").fetchall()
        connection.execute("update crm.member set level = 'r' where id = 1")
    assert ("UPDATE", "crm.member", ["level"]) in club.rows(LOG, [last], user="auditor_login")


def test_a_table_that_is_not_there_for_the_caller_leaves_nothing(club: Database) -> None:
    with refused("42501"):
        records(club, "update crm.member set level = 'x'", user="metabase")


def test_the_history_of_a_row_that_moved_between_partitions(club: Database) -> None:
    for level, region in (("b", "south"), ("c", "north"), ("d", "south")):
        club.rows(
            "update crm.member set level = %s, region = %s where id = 1",
            [level, region],
            user="crm_app",
        )
    club.rows("update crm.member set level = 'e' where id = 1", user="crm_app")
    # another row that has the key which it left
    club.rows("insert into crm.member values (1, 'north', 'x@x.example', 'x')", user="crm_app")
    versions = club.rows(
        "select operation, changed, content ->> 'region', content ->> 'level'"
        """ from gdpr.history('crm.member', '["1", "south"]')""",
        user="dpo_login",
    )
    assert versions == [
        ("UPDATE", ["level"], "south", "e"),
        ("UPDATE", ["level", "region"], "south", "d"),
        ("UPDATE", ["level", "region"], "north", "c"),
        ("UPDATE", ["level", "region"], "south", "b"),
        ("INSERT", None, "north", "a"),
    ]
    assert club.rows(
        """select operation from gdpr.history('crm.member', '["1", "north"]')""", user="dpo_login"
    ) == [("INSERT",)]


def test_what_only_looks_like_a_move_is_none(club: Database) -> None:
    """Another member of the same transaction: the rest of the key is not the same."""
    with psycopg.connect(club.dsn("crm_app")) as connection:
        connection.execute("delete from crm.member where id = 2")
        connection.execute("insert into crm.member values (3, 'north', 's@x.example', 'a')")
    versions = club.rows(
        """select operation from gdpr.history('crm.member', '["3", "north"]')""", user="dpo_login"
    )
    assert versions == [("INSERT",)]


def test_a_statement_that_touches_many_rows(club: Database) -> None:
    """One record each, all of one transaction and in one seal."""
    rows = 700
    last = club.rows("select max(id) from gdpr.audit_log", user="auditor_login")[0][0]
    for statement in (
        f"""insert into crm.member select n + 100, case n % 2 when 0 then 'north' else 'south' end,
          'm' || n || '@x.example', 'a' from generate_series(1, {rows}) as n""",
        "update crm.member set level = 'b' where id > 100",
        "delete from crm.member where id > 100",
    ):
        club.rows(statement, user="crm_app")
    assert club.rows(
        "select operation, count(*), count(distinct xid), count(distinct subject_id)"
        " from gdpr.audit_log where id > %s group by operation order by min(id)",
        [last],
        user="auditor_login",
    ) == [(operation, rows, 1, rows) for operation in ("INSERT", "UPDATE", "DELETE")]
    settled(club)
