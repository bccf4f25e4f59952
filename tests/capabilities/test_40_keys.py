"""Station 40: where the key is kept, how it is given, replaced, proved and missed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from gdprdb import migrate
from tests.capabilities.crm import apply, one_table, refused
from tests.support import AS_SUPERUSER, INSTALLER, OWNER, Clone, Database

PEOPLE = 25

POLICY = one_table(
    "public.person",
    columns={
        "id": {"category": "key"},
        "email": {"identifier": "email", "encrypt": "searchable", "mask": "email"},
        "name": {"category": "identity", "encrypt": True},
    },
)


@dataclass
class House:
    """A protected database and its key, which no session has yet."""

    db: Database
    key: str

    def login(self, key: str | None = None, user: str = "crm_app") -> psycopg.Connection:
        """A session that was given the key."""
        connection = self.db.connect(user)
        connection.execute("select gdpr.unlock(%s)", [key or self.key])
        return connection

    def ciphertext(self) -> list[tuple[object, ...]]:
        """What is stored, for comparison."""
        return self.db.rows(
            "select id, email, name, email_digest_stored from (select id, email, name,"
            " gdpr_email_digest as email_digest_stored from public.person) as p order by id",
            user="postgres",
        )


@pytest.fixture(scope="module")
def template(clone: Clone) -> Iterator[tuple[str, str]]:
    """A database whose key of provider session encrypts 25 persons: its name and the key."""
    with clone() as database:
        migrate.init(database.dsn(INSTALLER))
        if AS_SUPERUSER:
            database.rows(
                f"grant gdpr_admin, gdpr_dpo to {OWNER} with admin option", user="postgres"
            )
        (key,) = database.rows("select gdpr.create_key('session')")[0]
        with psycopg.connect(database.dsn(), autocommit=True) as owner:
            owner.execute(
                "create table public.person (id integer primary key, email text, name text);"
                "grant all on public.person to crm_app"
            )
            owner.execute("select gdpr.unlock(%s)", [key])
            apply(owner, POLICY)
        with psycopg.connect(database.dsn("crm_app"), autocommit=True) as app:
            app.execute("select gdpr.unlock(%s)", [key])
            app.execute(
                "insert into gdpr_clear.person select n, n || '@example.com', 'Name ' || n"
                " from generate_series(1, %s) as n",
                [PEOPLE],
            )
        yield database.name, key


@pytest.fixture
def house(clone: Clone, template: tuple[str, str]) -> Iterator[House]:
    """A copy of the template, for one test."""
    with clone(template[0]) as database:
        yield House(database, template[1])


READ = "select count(*) from gdpr_clear.person where name = 'Name ' || id"


def states(db: Database) -> list[tuple[object, ...]]:
    """State and number of data keys of each key-encryption key."""
    return db.rows("select state, data_keys from gdpr.key_status order by id")


# ---------------------------------------------------------------- another key


def test_the_key_is_replaced_while_applications_work(house: House) -> None:
    db = house.db
    app, admin = house.login(), house.login(user=OWNER)
    before = house.ciphertext()
    (new,) = admin.execute("select gdpr.rotate_key()").fetchone() or ("",)
    assert new != house.key
    assert states(db) == [("retired", PEOPLE), ("taking over", 0)]
    with refused("PR413", "rotation_state"):
        admin.execute("select gdpr.rotate_key()")

    # who holds the old key works on, also in new sessions; who holds the new one works already
    for session in (app, house.login(), house.login(new)):
        assert session.execute(READ.encode()).fetchall() == [(PEOPLE,)]
        found = session.execute(
            "select id from gdpr_clear.person where email_digest ="
            " gdpr.digest('email', '7@EXAMPLE.com')"
        )
        assert found.fetchall() == [(7,)]
    app.execute("insert into gdpr_clear.person values (100, 'new@example.com', 'Name 100')")
    assert states(db) == [("retired", PEOPLE), ("taking over", 1)]

    # a batch, a session that dies, another one that goes on with the new key
    assert admin.execute("select gdpr.rewrap_keys(10)").fetchall() == [(10,)]
    assert states(db) == [("retired", PEOPLE - 10), ("taking over", 11)]
    assert app.execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]
    app.execute("update gdpr_clear.person set name = 'Name ' || id where id in (1, 20)")
    killed = house.login(user=OWNER)
    killed.autocommit = False
    killed.execute("select gdpr.rewrap_keys(10)")
    killed.close()
    admin = house.login(new, user=OWNER)
    with refused("PR413", "rotation_state"):
        admin.execute("select gdpr.finish_rotation()")
    while admin.execute("select gdpr.rewrap_keys(10)").fetchall() != [(0,)]:
        assert app.execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]
    assert states(db) == [("retired", 0), ("taking over", PEOPLE + 1)]
    admin.execute("select gdpr.finish_rotation()")
    assert states(db) == [("retired", 0), ("in force", PEOPLE + 1)]

    # the old key opens nothing any more, nor does what the new one left in a session change
    with refused("PR402", "key_locked"):
        app.execute(READ.encode())
    with refused("PR403", "key_wrong"):
        house.login()
    after = house.login(new)
    assert after.execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]
    # the data was not written: the keys were
    untouched = [row for row in house.ciphertext() if row[0] not in (1, 20, 100)]
    assert untouched == [row for row in before if row[0] not in (1, 20)]
    for (leftover,) in db.rows(
        "select to_jsonb(k) - array['id', 'provider', 'check_value', 'created_at', 'created_xid',"
        " 'retired_at', 'rewrapped_to'] from gdpr_internal.key_encryption_key k where retired_at"
        " is not null",
        user="postgres",
    ):
        assert set(leftover.values()) == {None}


def test_a_rotation_waits_for_writers_that_began_before(house: House) -> None:
    admin, writer = house.login(user=OWNER), house.login()
    writer.autocommit = False
    writer.execute("insert into gdpr_clear.person values (200, 'slow@example.com', 'Name 200')")
    admin.execute("select gdpr.rotate_key()")
    while admin.execute("select gdpr.rewrap_keys()").fetchall() != [(0,)]:
        pass
    with refused("PR413", "rotation_state"):
        admin.execute("select gdpr.finish_rotation()")
    writer.commit()
    # the person came with the old key, below the place that the batches had reached
    with refused("PR413", "rotation_state"):
        admin.execute("select gdpr.finish_rotation()")
    assert admin.execute("select gdpr.rewrap_keys()").fetchall() == [(1,)]
    admin.execute("select gdpr.finish_rotation()")
    assert states(house.db) == [("retired", 0), ("in force", PEOPLE + 1)]


def test_keys_of_notices_and_registrations_come_along(house: House) -> None:
    admin = house.login(user=OWNER)
    (old,) = house.db.rows(
        "select encode(gdpr_internal.derive_key(%s), 'hex')", [house.key], user="postgres"
    )[0]
    wrap = "gdpr_internal.wrap_key(decode(%s, 'hex'), gdpr_internal.gen_random_bytes(16), {}, %s)"
    secret = bytes(range(64))
    with psycopg.connect(house.db.dsn("postgres"), autocommit=True) as superuser:
        superuser.execute("set session_replication_role = replica")
        for table, context in (
            ("notice_key", "'notice'::bytea || int8send(5)"),
            ("registration_key", "int8send(-5)"),
        ):
            superuser.execute(
                f"insert into gdpr_internal.{table} values (5, {wrap.format(context)})".encode(),
                [old, secret],
            )
        (new,) = admin.execute("select gdpr.rotate_key()").fetchone() or ("",)
        while admin.execute("select gdpr.rewrap_keys()").fetchall() != [(0,)]:
            pass
        admin.execute("select gdpr.finish_rotation()")
        for table, context in (
            ("notice_key", "'notice'::bytea || int8send(5)"),
            ("registration_key", "int8send(-5)"),
        ):
            assert superuser.execute(
                f"select gdpr_internal.unwrap_key(gdpr_internal.derive_key(%s), {context}, wrapped)"
                f" from gdpr_internal.{table}".encode(),
                [new],
            ).fetchall() == [(secret,)]


def test_a_key_of_development_becomes_one_of_production(house: House) -> None:
    admin = house.login(user=OWNER)
    admin.execute("select gdpr.rotate_key('table')")
    reader = house.db.connect("crm_app")
    for _ in range(2):
        assert reader.execute(READ.encode()).fetchall() == [(PEOPLE,)]
        while admin.execute("select gdpr.rewrap_keys(7)").fetchall() != [(0,)]:
            assert reader.execute(READ.encode()).fetchall() == [(PEOPLE,)]
    admin.execute("select gdpr.finish_rotation()")
    assert reader.execute(READ.encode()).fetchall() == [(PEOPLE,)]
    mine = "0123456789abcdef" * 4
    assert admin.execute("select gdpr.rotate_key('session', null, %s)", [mine]).fetchall() == [
        (None,)
    ]
    with refused("PR402", "key_locked"):
        reader.execute(READ.encode())
    admin.execute("select gdpr.unlock(%s)", [mine])
    while admin.execute("select gdpr.rewrap_keys()").fetchall() != [(0,)]:
        pass
    admin.execute("select gdpr.finish_rotation()")
    assert house.login(mine).execute(READ.encode()).fetchall() == [(PEOPLE,)]


def test_who_may_not_rotate(house: House) -> None:
    for user in ("crm_app", "metabase", "dpo_login", "auditor_login"):
        for call in ("rotate_key()", "rewrap_keys()", "finish_rotation()", "lock_keys()"):
            with refused("42501"):
                house.db.rows(f"select gdpr.{call}", user=user)
    admin = house.login(user=OWNER)
    for call in ("rewrap_keys()", "finish_rotation()"):
        with refused("PR413", "rotation_state"):
            admin.execute(f"select gdpr.{call}".encode())
    for given in ("short", house.key, house.key.upper()):
        with refused("PR004", "invalid_argument"):
            admin.execute("select gdpr.rotate_key('session', null, %s)", [given])
    with refused("PR402", "key_locked"):
        house.db.rows("select gdpr.rotate_key()")


# ---------------------------------------------------------------- given by the session


def test_a_key_for_one_transaction(house: House) -> None:
    app = house.db.connect("crm_app", autocommit=False)
    app.execute("select gdpr.unlock(%s, true)", [house.key])
    assert app.execute(READ.encode()).fetchall() == [(PEOPLE,)]
    with app.transaction():
        assert app.execute(READ.encode()).fetchall() == [(PEOPLE,)]
    (ticket,) = app.execute("select current_setting('gdpr.unlocked')").fetchone() or ("",)
    app.commit()
    with refused("PR402", "key_locked"):
        app.execute(READ.encode())
    app.rollback()
    # who kept a copy of what stood in the setting has nothing
    for copied in (ticket, ticket.removeprefix("once:")):
        app.execute("select set_config('gdpr.unlocked', %s, false)", [copied])
        with refused("PR402", "key_locked"):
            app.execute(READ.encode())
        app.rollback()
    # nor does a rolled back transaction leave the key behind
    app.execute("select gdpr.unlock(%s)", [house.key])
    app.rollback()
    with refused("PR402", "key_locked"):
        app.execute(READ.encode())


def test_all_sessions_are_locked_at_once(house: House) -> None:
    sessions = [house.login(), house.login(), house.login(user=OWNER)]
    sessions[2].execute("select gdpr.lock_keys()")
    for session in sessions[:2]:
        with refused("PR402", "key_locked"):
            session.execute(READ.encode())
        session.execute("select gdpr.unlock(%s)", [house.key])
        assert session.execute(READ.encode()).fetchall() == [(PEOPLE,)]


# ---------------------------------------------------------------- in a file of the server


def test_a_key_in_a_file_of_the_server(house: House, reachable: Path) -> None:
    db = house.db
    reachable.mkdir()
    file, another = reachable / "gdprdb.key", reachable / "other.key"
    for path, text in ((file, "ab" * 32), (another, "cd" * 32)):
        path.write_text(text + "\n")
        path.chmod(0o644)
    reachable.chmod(0o755)
    admin, app = house.login(user=OWNER), house.db.connect("crm_app")
    rotate = "select gdpr.rotate_key('file', %s)"

    def missing() -> str:
        with pytest.raises(psycopg.Error) as caught:
            admin.execute(rotate.encode(), [str(file)])
        assert caught.value.sqlstate == "PR412"
        return str(caught.value.diag.message_detail)

    # each refusal names the statement that mends it
    granted = []
    try:
        for _ in range(2):
            statement = missing().partition("As a superuser: ")[2]
            granted.append(statement)
            db.rows(statement, user="postgres")
        for wrong in ("relative.key", None):
            with refused("PR004", "invalid_argument"):
                admin.execute(rotate.encode(), [wrong])
        for wrong in (str(reachable / "none"), "/etc/hostname"):
            with refused("PR412", "key_file"):
                admin.execute(rotate.encode(), [wrong])
        assert admin.execute(rotate.encode(), [str(file)]).fetchall() == [(None,)]
        assert app.execute(READ.encode()).fetchall() == [(PEOPLE,)]
        app.execute("insert into gdpr_clear.person values (300, 'f@example.com', 'Name 300')")
        while admin.execute("select gdpr.rewrap_keys()").fetchall() != [(0,)]:
            pass
        admin.execute("select gdpr.finish_rotation()")
        assert app.execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]
        before = house.ciphertext()
        # the file is lost, or is another one: nothing opens, is written, or is told of it
        for make, code in (
            (lambda: file.write_text("ef" * 32), "PR403"),
            (lambda: file.write_text("secret content"), "PR412"),
            (file.unlink, "PR412"),
        ):
            make()
            for attempt in (
                READ,
                "insert into gdpr_clear.person values (301, 'g@example.com', 'x')",
                "update public.person set name = 'x' where id = 1",
            ):
                with pytest.raises(psycopg.Error) as caught:
                    app.execute(attempt.encode())
                assert caught.value.sqlstate == code
                assert "secret" not in f"{caught.value}{caught.value.diag.message_detail}"
                assert "efef" not in f"{caught.value}{caught.value.diag.message_detail}"
            assert db.rows("select unlocked from gdpr.key_status where state = 'in force'") == [
                (False,)
            ]
        assert house.ciphertext() == before
        file.write_text("ab" * 32)
        assert app.execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]
        # nobody but gdprdb's own functions reads files this way
        for user in ("crm_app", OWNER):
            with refused("42501"):
                db.rows("select gdpr_internal.key_file('/etc/hostname')", user=user)
    finally:
        if len(granted) == 2:
            db.rows("revoke pg_read_server_files from gdpr_keyholder", user="postgres")
            db.rows("alter role gdpr_keyholder noinherit", user="postgres")


# ---------------------------------------------------------------- a lost key, a proved copy


def test_a_copy_in_escrow_is_proved(house: House) -> None:
    check = "select id, state, data_keys, opened from gdpr.check_key(%s, %s)"
    for user in ("auditor_login", "dpo_login"):
        house.db.rows(f"grant gdpr_auditor to {user}", user="postgres")
        assert house.db.rows(check, [house.key, None], user=user) == [
            (1, "in force", PEOPLE, PEOPLE)
        ]
    with refused("PR403", "key_wrong"):
        house.db.rows(check, ["0" * 64, 10])
    with refused("42501"):
        house.db.rows(check, [house.key, 10], user="crm_app")
    # it is not unlocked by that; and a copy that fits damaged keys is no good
    assert house.db.rows("select unlocked from gdpr.key_status") == [(False,)]
    house.db.rows(
        "update gdpr_internal.subject_key set wrapped = set_byte(wrapped, 30, get_byte(wrapped,"
        " 30) # 1) where subject_id = (select max(subject_id) from gdpr_internal.subject_key)",
        user="postgres",
    )
    with refused("PR404", "tampered"):
        house.db.rows(check, [house.key, None])


WRITES = (
    "insert into {}.person (id, email, name) values (500, 'n@example.com', 'x')",
    "update {}.person set name = 'x' where id = 1",
    "update {}.person set name = null where id = 1",
    "update {}.person set email = 'changed@example.com'",
    "delete from {}.person where id = 1",
)


@pytest.mark.parametrize("schema", ["gdpr_clear", "public"])
def test_without_the_key_nothing_is_overwritten(house: House, schema: str) -> None:
    before = house.ciphertext()
    app = house.db.connect("crm_app")
    for write in WRITES:
        with refused("PR402", "key_locked"):
            app.execute(write.format(schema).encode())
    assert house.ciphertext() == before


def test_without_the_persons_keys_nothing_is_overwritten(house: House) -> None:
    """A restore that left the key tables out: ciphertext stands, and says why it is not read."""
    before = house.ciphertext()
    house.db.rows("delete from gdpr_internal.subject_key", user="postgres")
    app = house.login()
    for statement in (
        READ,
        "update gdpr_clear.person set name = 'x' where id = 1",
        "update public.person set name = 'x' where id = 1",
        "update public.person set email = 'changed@example.com' where id = 1",
    ):
        with refused("PR410", "data_key_missing"):
            app.execute(statement.encode())
    assert house.ciphertext() == before
    assert all(
        str(value).startswith("gdpr1:")
        for (value,) in app.execute("select name from public.person").fetchall()
    )
