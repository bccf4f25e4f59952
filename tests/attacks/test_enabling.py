"""Mallory, and the application, while a table is being enabled; the power goes in the middle."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from gdprdb import enabling, migrate
from gdprdb.server import Cluster
from tests.attacks.test_crashes import kill
from tests.capabilities.crm import findings, plan, refused
from tests.capabilities.enabling import (
    POLICY,
    ROWS,
    TABLES,
    application,
    clear,
    finish,
    take,
    until,
)
from tests.support import OWNER, Clone, Database

#: Kills; GDPRDB_TEST_KILLS=20 is the long run.
KILLS = int(os.environ.get("GDPRDB_TEST_KILLS", "2"))


@pytest.fixture
def shop(clone: Clone, shop_template: str) -> Iterator[Database]:
    """A shop before its policy."""
    with application(clone, shop_template, TABLES, ROWS) as database:
        yield database


class Writer(threading.Thread):
    """An application that inserts, changes and deletes, and remembers what was confirmed."""

    def __init__(self, db: Database, number: int) -> None:
        super().__init__()
        self.db, self.number = db, number
        self.over = threading.Event()
        self.kept: dict[int, str] = {}
        self.gone: set[int] = set()
        self.errors: list[str] = []
        self.count = 0

    def run(self) -> None:
        dice = random.Random(self.number)
        with psycopg.connect(self.db.dsn("crm_app"), autocommit=True) as app:
            app.execute("set search_path = gdpr_clear, shop")
            while not self.over.is_set():
                self.count += 1
                try:
                    self.write(app, dice)
                except psycopg.Error as error:
                    self.errors.append(str(error))
                time.sleep(0.01)

    def write(self, app: psycopg.Connection, dice: random.Random) -> None:
        # each writer has rows of its own, so that it knows what they should be
        key = self.number + 2 * dice.randrange(1, 20)
        email = f"w{self.number}.{self.count}@example.com"
        what = dice.randrange(4)
        if key in self.gone or what == 0:
            # a telephone that many share: it is one person's, and nobody waits for nobody
            row = app.execute(
                "insert into buyer (email, phone) values (%s, '+49 711 5') returning id", [email]
            ).fetchone()
            assert row is not None
            self.kept[row[0]] = email
        elif what == 1 and dice.randrange(5) == 0:
            app.execute("delete from purchase where buyer_id = %s", [key])
            app.execute("delete from buyer where id = %s", [key])
            self.gone.add(key)
            self.kept.pop(key, None)
        elif what == 2:
            app.execute("update buyer set city = 'Ulm' where id = %s", [key])
        else:
            app.execute("update buyer set email = %s where id = %s", [email, key])
            self.kept[key] = email


def test_writers_race_with_the_backfill(shop: Database) -> None:
    """They are let in at every moment, nothing of theirs is lost, and nothing stays plaintext."""
    writers = [Writer(shop, number) for number in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        finish(shop)
    finally:
        for writer in writers:
            writer.over.set()
            writer.join(30)
    # the session of a writer is older than its purposes: nothing is refused for that either
    assert [set(writer.errors) for writer in writers] == [set(), set()]
    rows = {row[0]: row[1] for row in clear(shop, "buyer")}
    for writer in writers:
        assert writer.count > 20
        assert {key: rows.get(key) for key in writer.kept} == writer.kept
        assert not writer.gone & rows.keys()
    assert shop.rows(
        "select count(*) filter (where not starts_with(email, 'gdpr1:')),"
        " count(*) filter (where gdpr_subject_id is null) from shop.buyer",
        user="postgres",
    ) == [(0, 0)]
    assert plan(shop, POLICY) == []
    assert findings(shop, severities=("error",)) == set()
    # the address that a person has now finds that person, one that was changed finds nobody
    for key, email in list(rows.items())[:10]:
        assert shop.rows(
            "select gdpr.find_subject('email', %s) = gdpr.subject_of('shop.buyer', %s)",
            [email, str(key)],
            user="dpo_login",
        ) == [(True,)]


def test_who_touches_rows_by_a_setting_finishes_them_and_no_more(shop: Database) -> None:
    """gdpr.enabling is a setting: anybody can set it, and it opens nothing."""
    until(shop, "claiming")
    app = shop.connect("crm_app")
    app.execute("set gdpr.enabling = 'on'")
    app.execute("update shop.buyer set nickname = nickname where id = 40")
    assert app.execute(
        "select id from shop.buyer where gdpr_subject_id is not null"
    ).fetchall() == [(40,)]
    for column in ("gdpr_subject_id = 1", "gdpr_until = 'infinity'", "gdpr_purposes = -1"):
        with refused("PR406", "gate_columns"):
            app.execute(f"update shop.buyer set {column} where id = 2")
    until(shop, "sealing")
    sealed = "select count(*) from shop.buyer where starts_with(city, 'gdpr1:') and id = 1"
    while shop.rows(sealed) == [(0,)]:
        take(shop)
    # ciphertext of one row does not get into another
    with refused("PR405", "ciphertext_written"):
        app.execute(
            "update shop.buyer set city = (select city from shop.buyer where id = 1) where id = 39"
        )
    with refused("PR405", "ciphertext_written"):
        app.execute(
            "insert into shop.buyer (email, city) select 'm@example.com', city from shop.buyer"
            " where id = 1"
        )
    finish(shop)
    assert len(clear(shop, "buyer")) == 40


def test_only_the_owner_goes_on_with_it(shop: Database) -> None:
    shop.rows("create role other_admin login", user="postgres")
    try:
        shop.rows("grant gdpr_admin to other_admin")
        shop.rows("grant usage on schema shop to other_admin")
        until(shop, "sealing")
        for call in (
            "gdpr.backfill('shop.buyer')",
            "gdpr_policy.move_enabling('shop.buyer', 'sealed')",
            "gdpr_policy.put_enabling('shop.buyer', 'sealed')",
            "gdpr_policy.take_blocks('shop.buyer', 1000)",
            "gdpr_policy.switch_on('shop.buyer')",
        ):
            with refused("42501", "not_table_owner"):
                shop.rows(f"select {call}", user="other_admin")
        # who is in no audience reads no clear view, on the way as afterwards
        with refused("42501"):
            shop.rows("select * from gdpr_clear.buyer", user="metabase")
    finally:
        shop.rows("revoke gdpr_admin from other_admin")
        shop.rows("revoke usage on schema shop from other_admin")
        shop.rows("drop role other_admin", user="postgres")


def test_a_forged_table_gets_nothing_from_the_sealing_trigger(shop: Database) -> None:
    until(shop, "sealing")
    shop.rows("create table shop.forged (like shop.buyer)")
    shop.rows(
        "create trigger forged before update on shop.forged for each row"
        " execute function gdpr_generated.seal_1()"
    )
    shop.rows("insert into shop.forged (id, email, gdpr_subject_id) values (1, 'x', 1)")
    with refused("PR409", "drifted"):
        shop.rows("update shop.forged set email = 'y'")


def test_errors_and_plans_name_no_person(shop: Database) -> None:
    shop.rows("select gdpr.block('email', 'buyer20@example.com', 'asked')", user="dpo_login")
    with pytest.raises(psycopg.Error) as caught:
        finish(shop)
    diag = caught.value.diag
    words = [diag.message_primary, diag.message_detail, diag.message_hint, diag.context]
    words += [str(row) for row in shop.rows("select * from gdpr.enabling")]
    words += [str(row) for row in shop.rows("select * from gdpr.estimate(%s)", [Jsonb(POLICY)])]
    assert "uyer20" not in " ".join(filter(None, words)).replace("shop.buyer", "")


@pytest.fixture(scope="module")
def house() -> Iterator[Database]:
    """A server of its own; what it has written survives it, as the machine does."""
    directory = Path(tempfile.mkdtemp(prefix="gdprdb-crash-"))
    directory.chmod(0o711)
    server = Cluster(directory / "server", settings={"restart_after_crash": "off", "fsync": "off"})
    try:
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for login in (f"{OWNER} createrole", "crm_app", "metabase", "dpo_login"):
                connection.execute(f"create role {login} login".encode())
            connection.execute(f"create database house owner {OWNER}".encode())
        database = Database(server, "house")
        migrate.init(database.dsn())
        database.rows("select gdpr.create_key('table')")
        database.rows("grant gdpr_dpo to dpo_login")
        database.rows(TABLES)
        database.rows(ROWS)
        yield database
        database.close()
    finally:
        server.remove()
        directory.rmdir()


@pytest.mark.parametrize("n", range(KILLS))
def test_a_killed_server_loses_nothing_and_goes_on(house: Database, n: int) -> None:
    """The server is killed while persons are found, or values encrypted; then it goes on."""
    columns = "id, email, login, phone, city, nickname"
    before = house.rows(f"select {columns} from shop.buyer order by id", user="postgres")
    until(house, "claiming" if n % 2 == 0 else "sealing")
    began = threading.Event()

    def work() -> None:
        with psycopg.connect(house.dsn(), autocommit=True) as connection:
            try:
                enabling.run(connection, Jsonb(POLICY), lambda _: began.set(), blocks=1)
            except psycopg.OperationalError:
                return

    thread = threading.Thread(target=work)
    thread.start()
    began.wait(10)
    time.sleep(random.Random(n).uniform(0.005, 0.15))
    kill(house.cluster)
    thread.join(10)
    assert not thread.is_alive()
    finish(house)
    assert plan(house, POLICY) == []
    found = house.rows(f"select {columns} from gdpr_clear.buyer order by id", user="crm_app")
    assert found == before
    assert house.rows(
        "select count(*), count(distinct gdpr_subject_id) from shop.buyer", user="postgres"
    ) == [(40, 40)]
    assert findings(house, severities=("error",)) == set()
    house.rows("select gdpr.unprotect('shop.purchase'), gdpr.unprotect('shop.buyer')")
    again = house.rows(f"select {columns} from shop.buyer order by id", user="postgres")
    assert again == before


def test_many_bring_an_identifier_that_is_somebodys(shop: Database) -> None:
    """A telephone that a family shares, in rows that come at once: nobody waits in a circle."""
    finish(shop)
    errors: list[str] = []

    def insert(number: int) -> None:
        with psycopg.connect(shop.dsn("crm_app"), autocommit=True) as app:
            for n in range(15):
                try:
                    app.execute(
                        "insert into gdpr_clear.buyer (email, phone) values (%s, '+49 711 5')",
                        [f"family{number}.{n}@example.com"],
                    )
                except psycopg.Error as error:
                    errors.append(str(error))

    threads = [threading.Thread(target=insert, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert shop.rows(
        "select count(*) from gdpr_internal.identifier where kind = 'phone'"
        " and subject_id is not null",
        user="postgres",
    ) == [(27,)]
