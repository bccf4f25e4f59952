"""Partitions that come and go, and rows that move, while their table is being enabled."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.capabilities.crm import findings, plan, problems, refused
from tests.capabilities.enabling import (
    application,
    finish,
    finish_though_killed,
    state,
    take,
    until,
)
from tests.capabilities.partitions import (
    CLEAR,
    POLICIES,
    POLICY,
    ROWS,
    TABLE,
    TABLES,
    TEXTS,
    people,
)
from tests.support import Clone, Database

STATES = ("begun", "generated", "claiming", "claimed", "sealing", "sealed", "analysed")

#: Kinds of policies and states in which something happens to a partition.
MADE = [
    *(("shadows", where) for where in STATES),
    ("sealed", "sealing"),
    ("plain", "claiming"),
    ("plain", "analysed"),
]
ATTACHED = [
    *(("texts", where) for where in STATES),
    ("shadows", "sealing"),
    ("sealed", "sealed"),
    ("plain", "analysed"),
]
AWAY = [
    *(("shadows", where, False, False) for where in STATES),
    ("sealed", "sealing", False, False),
    ("plain", "claiming", False, False),
    ("shadows", "claimed", True, False),
    ("texts", "claiming", True, False),
    ("sealed", "generated", True, True),
]


@pytest.fixture(scope="module")
def template(clone: Clone, shop_template: str) -> Iterator[str]:
    with application(clone, shop_template, TABLES, ROWS, "drop table shop.member_rest") as database:
        yield database.name


@pytest.fixture
def shop(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        yield database


def encrypted(db: Database, kind: str) -> bool:
    """No value is left in plaintext, no row without its person, and nothing is amiss."""
    columns = [n for n, c in POLICIES[kind]["tables"][TABLE]["columns"].items() if c.get("encrypt")]
    wrong = " or ".join(
        ["gdpr_subject_id is null", *(f"not starts_with({name}, 'gdpr1:')" for name in columns)]
    )
    found = db.rows(f"select tableoid::regclass, id from {TABLE} where {wrong}", user="postgres")
    return (
        found == []
        and plan(db, POLICIES[kind]) == []
        and findings(db, severities=("error",)) == set()
    )


INSERT = (
    "insert into {} (id, region, year, email, phone, city, born)"
    " values ({}, '{}', 2001, 'late{}@example.com', '+49 711 77', 'Aalen', '1999-09-09')"
)


@pytest.mark.parametrize(("kind", "where"), MADE)
def test_a_partition_that_is_made_meanwhile_is_taken_in(
    shop: Database, kind: str, where: str
) -> None:
    before = len(people(shop, TABLE))
    until(shop, where, TABLE, POLICIES[kind])
    shop.rows("create table shop.late partition of shop.member for values in ('late')")
    shop.rows("grant select, insert, update on shop.late to crm_app")
    for key, relation in ((101, TABLE), (102, "shop.late")):
        shop.rows(INSERT.format(relation, key, "late", key), user="crm_app")
    finish(shop, POLICIES[kind])
    assert [row[0] for row in people(shop, CLEAR)][before:] == [101, 102]
    assert people(shop, CLEAR)[-1][3:7] == (
        "late102@example.com",
        "+49 711 77",
        "Aalen",
        "1999-09-09",
    )
    assert encrypted(shop, kind)


LATE = "alter table shop.member attach partition shop.late for values in ('late')"


@pytest.mark.parametrize(("kind", "where"), ATTACHED)
def test_a_partition_that_brings_rows_is_swept(shop: Database, kind: str, where: str) -> None:
    """They were written where no trigger saw them."""
    before = len(people(shop, TABLE))
    until(shop, where, TABLE, POLICIES[kind])
    shop.rows("create table shop.late (like shop.member including all)")
    shop.rows(INSERT.format("shop.late", 101, "late", 101))
    shop.rows(LATE)
    finish(shop, POLICIES[kind])
    assert len(people(shop, CLEAR)) == before + 1
    assert people(shop, CLEAR)[-1][3:7] == (
        "late101@example.com",
        "+49 711 77",
        "Aalen",
        "1999-09-09",
    )
    assert encrypted(shop, kind)


def test_a_partition_without_the_columns_is_refused_by_postgresql(shop: Database) -> None:
    """One from before has no columns gdpr_*; one that says nothing of NOT NULL does not fit."""
    shop.rows("create table shop.late (like shop.member including all)")
    until(shop, "claiming", TABLE, POLICY)
    with refused("42804"):
        shop.rows(LATE)
    shop.rows("drop table shop.late")
    shop.rows("create table shop.late (like shop.member including all excluding constraints)")
    with refused("42804"):
        shop.rows(LATE)
    finish(shop, POLICY)


@pytest.mark.parametrize(("kind", "where", "later", "misfits"), AWAY)
def test_a_partition_that_was_away_is_swept_again(
    shop: Database, kind: str, where: str, later: bool, misfits: bool
) -> None:
    """What was written into it meanwhile was seen by no trigger. It is refused (misfits) when
    columns became text while it was away."""
    rows = people(shop, TABLE)
    until(shop, where, TABLE, POLICIES[kind])
    if where in ("claiming", "sealing"):
        for _ in range(5):
            take(shop, policy=POLICIES[kind])
    shop.rows("alter table shop.member_eu detach partition shop.member_eu_old")
    if where not in ("begun", "generated"):
        # nothing was put on it before
        assert ("error", "detached", "shop.member_eu_old") in shop.rows(
            "select severity, topic, object from gdpr.doctor()"
        )
    shop.rows("update shop.member_eu_old set nickname = 'away', city = 'Essen' where id = 4")
    if later:
        for _ in range(12):
            take(shop, policy=POLICIES[kind])
    attach = (
        "alter table shop.member_eu attach partition shop.member_eu_old"
        " for values from (0) to (2000)"
    )
    if misfits:
        with refused("42804"):
            shop.rows(attach)
        for column in ("email", "phone", "city"):
            if POLICIES[kind]["tables"][TABLE]["columns"].get(column, {}).get("encrypt"):
                shop.rows(f"alter table shop.member_eu_old alter column {column} type text")
    shop.rows(attach)
    finish(shop, POLICIES[kind])
    assert [row[0] for row in people(shop, CLEAR)] == [row[0] for row in rows]
    changed = {row[0]: row for row in people(shop, CLEAR)}
    assert changed[4][5] == "Essen"
    del changed[4]
    assert list(changed.values()) == [row for row in rows if row[0] != 4]
    assert encrypted(shop, kind)


class Mover(threading.Thread):
    """Sends rows of its own from partition to partition, and remembers what was confirmed."""

    def __init__(self, db: Database, number: int) -> None:
        super().__init__()
        self.db, self.number = db, number
        self.over = threading.Event()
        self.kept: dict[int, tuple[str, str | None]] = {}
        self.errors: set[str] = set()
        self.moves = 0

    def run(self) -> None:
        dice = random.Random(self.number)
        with psycopg.connect(self.db.dsn("crm_app"), autocommit=True) as app:
            app.execute("set search_path = gdpr_clear, shop")
            while not self.over.is_set():
                key = self.number + 2 * dice.randrange(30)
                region = dice.choice(["eu", "us", "other", "xx"])
                city = dice.choice(["Ulm", "Essen", None])
                try:
                    found = app.execute(
                        "update member set region = %s, year = %s, city = %s where id = %s"
                        " returning id",
                        [region, dice.choice([1999, 2001]), city, key],
                    ).fetchall()
                    if found:
                        self.kept[key] = (region, city)
                        self.moves += 1
                except psycopg.errors.SerializationFailure:
                    # as PostgreSQL says it of a row that moved while it was waited for
                    pass
                except psycopg.Error as error:
                    self.errors.add(str(error))
                time.sleep(0.003)


@pytest.mark.parametrize("kind", ["shadows", "sealed"])
def test_rows_that_move_while_they_are_swept(shop: Database, kind: str) -> None:
    """None is missed, none is done twice, and each stays its person's."""
    shop.rows("create table shop.member_rest partition of shop.member default")
    before = people(shop, TABLE)
    movers = [Mover(shop, number) for number in (1, 2)]
    for mover in movers:
        mover.start()
    try:
        finish(shop, POLICIES[kind])
    finally:
        for mover in movers:
            mover.over.set()
            mover.join(30)
    assert [mover.errors for mover in movers] == [set(), set()]
    rows = {row[0]: row for row in people(shop, CLEAR)}
    assert [row[3] for row in rows.values()] == [row[3] for row in before]
    for mover in movers:
        assert mover.moves > 50
        assert {key: (rows[key][1], rows[key][5]) for key in mover.kept} == mover.kept
    assert shop.rows(
        "select count(*), count(distinct gdpr_subject_id) from shop.member", user="postgres"
    ) == [(len(before), len(before))]
    assert encrypted(shop, kind)


def test_who_is_killed_anywhere_goes_on(shop: Database) -> None:
    """The session that enables is terminated again and again, at whatever it is."""
    before = people(shop, TABLE)
    assert finish_though_killed(shop, POLICY, 17) > 2
    assert people(shop, CLEAR) == before
    assert encrypted(shop, "shadows")
    assert shop.rows("select count(*) from pg_index where not indisvalid") == [(0,)]


def test_an_index_that_was_not_finished_is_built_anew(shop: Database) -> None:
    """In a partition; that of the table is not valid before all are there."""
    until(shop, "generated", TABLE, TEXTS)
    while "concurrently" not in str(shop.rows("select statement from gdpr.next_step(null)")):
        take(shop, policy=TEXTS)
    take(shop, policy=TEXTS)
    # as one whose building was interrupted
    ((index,),) = shop.rows(
        "update pg_index set indisvalid = false where indexrelid = (select max(indexrelid)"
        " from pg_index where indexrelid::regclass::text ~ 'subject_id_idx'"
        " and exists (select from pg_class where oid = indexrelid and relkind = 'i'))"
        " returning indexrelid::regclass::text",
        user="postgres",
    )
    assert shop.rows("select statement from gdpr.next_step(null)") == [
        (f"drop index concurrently {index}",)
    ]
    finish(shop, TEXTS)
    assert shop.rows("select count(*) from pg_index where not indisvalid") == [(0,)]
    assert encrypted(shop, "texts")


def test_a_trigger_switched_off_in_one_partition_loses_nothing(shop: Database) -> None:
    until(shop, "claimed", TABLE, POLICY)
    shop.rows("alter table far.member_us disable trigger zzz_gdpr_03_text")
    shop.rows("update far.member_us set wage = 77.5 where id = 1")
    with refused("PR006", "enabling_state"):
        shop.rows("select gdpr_policy.move_enabling('shop.member', 'sealing')")
    finish(shop, POLICY)
    assert people(shop, CLEAR)[0][7] == "77.50"
    assert encrypted(shop, "shadows")


def test_a_trigger_switched_off_while_rows_are_swept_is_put_back(shop: Database) -> None:
    """Or the sweep would begin again for ever."""
    until(shop, "claiming", TABLE, POLICY)
    unclaimed = "select id from far.member_us where id = 1 and gdpr_subject_id is null"
    while shop.rows(unclaimed, user="postgres"):
        take(shop, policy=POLICY)
    assert state(shop, TABLE) == "claiming"
    shop.rows("alter table far.member_us disable trigger zzz_gdpr_03_text")
    shop.rows("update far.member_us set wage = 77.5 where id = 1")
    finish(shop, POLICY)
    assert people(shop, CLEAR)[0][7] == "77.50"
    assert encrypted(shop, "shadows")


def test_a_partition_that_hides_its_rows_is_not_passed_over(shop: Database) -> None:
    """Its owner sees none of them: they would stay plaintext, and be taken for ciphertext."""
    until(shop, "claiming", TABLE, TEXTS)
    shop.rows("create table shop.late (like shop.member including all)")
    shop.rows(INSERT.format("shop.late", 101, "late", 101))
    shop.rows("alter table shop.late enable row level security, force row level security")
    shop.rows(LATE)
    with refused("PR008", "rows_hidden"):
        finish(shop, TEXTS)
    shop.rows("alter table shop.late no force row level security")
    finish(shop, TEXTS)
    assert people(shop, CLEAR)[-1][3] == "late101@example.com"
    assert encrypted(shop, "texts")


def test_the_plan_refuses_what_partitions_cannot_keep(shop: Database) -> None:
    shop.rows(
        "create foreign data wrapper w; create server s foreign data wrapper w", user="postgres"
    )
    shop.rows("grant usage on foreign server s to db_owner", user="postgres")
    # unique indexes keep foreign tables away themselves
    shop.rows("alter table shop.member drop constraint member_pkey")
    shop.rows(
        "create foreign table shop.away partition of shop.member for values in ('aa') server s"
    )
    assert problems(shop, POLICY) == [
        (
            'tables."shop.member": partition shop.away is a foreign table,'
            " which takes no row security; detach it"
        )
    ]
    shop.rows("drop foreign table shop.away")
    shop.rows("create role elsewhere", user="postgres")
    try:
        shop.rows("alter table shop.member_none owner to elsewhere", user="postgres")
        assert problems(shop, POLICY) == [
            (
                'tables."shop.member": partition shop.member_none belongs to role elsewhere;'
                " apply the policy as its owner"
            )
        ]
    finally:
        shop.rows("reassign owned by elsewhere to db_owner", user="postgres")
        shop.rows("drop role elsewhere", user="postgres")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            "create rule r as on update to far.member_us do nothing",
            "partitions that have rules: far.member_us",
        ),
        (
            "alter table far.member_us force row level security",
            (
                "row security is forced on a table with partitions, or on one of them, and hides"
                " rows from their owner: far.member_us"
            ),
        ),
        (
            "create statistics far.two on born, city from far.member_us",
            (
                "statistics over columns that become text, of a table with partitions: far.two;"
                " drop them"
            ),
        ),
        (
            (
                "create trigger any_update before update on far.member_us"
                " for each row execute function suppress_redundant_updates_trigger()"
            ),
            (
                "triggers for any UPDATE of a table with partitions, which the role may not keep"
                " quiet: any_update (grant set on parameter session_replication_role; none may be"
                " ENABLE ALWAYS or REPLICA)"
            ),
        ),
        (
            "alter table shop.member add constraint old check (born > '1900-01-01') not valid",
            "constraints that are NOT VALID, of a table with partitions: old; validate them",
        ),
    ],
)
def test_why_a_partitioned_table_is_protected_at_once(
    shop: Database, statement: str, reason: str
) -> None:
    shop.rows(statement)
    assert shop.rows("select method, reason from gdpr.estimate(%s)", [Jsonb(POLICY)]) == [
        ("at once", reason)
    ]
    before = people(shop, TABLE)
    finish(shop, POLICY)
    assert people(shop, CLEAR) == before
    assert encrypted(shop, "shadows")
