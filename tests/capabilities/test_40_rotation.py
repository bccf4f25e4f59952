"""Station 40: the key is replaced while applications work, or the attempt is given up."""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import suppress

import psycopg

from tests.capabilities.crm import refused
from tests.capabilities.houses import PEOPLE, READ, House, states
from tests.support import OWNER, Database, waiting


def rewrap(admin: psycopg.Connection, limit: int = 10_000) -> None:
    """Wrap all data keys by the key that takes over."""
    while admin.execute("select gdpr.rewrap_keys(%s)", [limit]).fetchall() != [(0,)]:
        pass


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
    (new,) = admin.execute("select gdpr.rotate_key()").fetchone() or ("",)
    admin.execute("select gdpr.unlock(%s)", [new])
    rewrap(admin)
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
        admin.execute("select gdpr.unlock(%s)", [new])
        rewrap(admin)
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
    # the key in the table opens the database until the end
    assert reader.execute(READ.encode()).fetchall() == [(PEOPLE,)]
    rewrap(admin)
    admin.execute("select gdpr.unlock(%s)", [mine])
    admin.execute("select gdpr.finish_rotation()")
    with refused("PR402", "key_locked"):
        reader.execute(READ.encode())
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


# ---------------------------------------------------------------- a new key that is lost


def trail(db: Database) -> list[object]:
    """What the audit log says of keys, since the key was created."""
    rows = db.rows("select old from gdpr.audit_log where operation = 'KEY' order by id offset 1")
    return [old for (old,) in rows]


def test_nobodys_key_never_becomes_the_only_one(house: House) -> None:
    """The answer of rotate_key() is lost: whoever holds the old key still has a way on and back."""
    admin = house.login(user=OWNER)
    (new,) = admin.execute("select gdpr.rotate_key()").fetchone() or ("",)
    rewrap(admin)
    with refused("PR417", "key_not_shown"):
        admin.execute("select gdpr.finish_rotation()")
    assert states(house.db) == [("retired", 0), ("taking over", PEOPLE)]
    # a session that forgot the old key has none at all
    with refused("PR402", "key_locked"):
        house.db.rows("select gdpr.show_new_key()")
    for user in ("crm_app", "metabase", "dpo_login", "auditor_login"):
        for call in ("show_new_key()", "abort_rotation()"):
            with refused("42501"):
                house.db.rows(f"select gdpr.{call}", user=user)
    # with either key
    for session in (admin, house.login(new, user=OWNER)):
        assert session.execute("select gdpr.show_new_key()").fetchall() == [(new,)]
    # a ticket of another session proves nothing
    (ticket,) = house.login(new).execute("show gdpr.unlocked").fetchone() or ("",)
    admin.execute("select set_config('gdpr.unlocked', %s, false)", [ticket])
    with refused("PR417", "key_not_shown"):
        admin.execute("select gdpr.finish_rotation()")
    admin.execute("select gdpr.unlock(%s)", [new])
    admin.execute("select gdpr.finish_rotation()")
    assert house.login(new).execute(READ.encode()).fetchall() == [(PEOPLE,)]
    for call in ("show_new_key", "abort_rotation"):
        with refused("PR413", "rotation_state"):
            admin.execute(f"select gdpr.{call}()".encode())
    assert trail(house.db) == [
        {"rotating_to": "session"},
        {"shown": True},
        {"shown": True},
        {"rotated": True},
    ]


def test_a_key_of_ones_own_is_shown_again(house: House) -> None:
    mine = "0123456789abcdef" * 4
    admin = house.login(user=OWNER)
    admin.execute("select gdpr.rotate_key('session', null, %s)", [mine])
    assert admin.execute("select gdpr.show_new_key()").fetchall() == [(mine,)]


def test_a_rotation_is_given_up(house: House) -> None:
    db = house.db
    app, admin = house.login(), house.login(user=OWNER)
    (new,) = admin.execute("select gdpr.rotate_key()").fetchone() or ("",)
    admin.execute("select gdpr.rewrap_keys(10)")
    app.execute("insert into gdpr_clear.person values (100, 'new@example.com', 'Name 100')")
    admin.execute(
        "select gdpr.renew_key(gdpr.subject_of('public.person', key)) from unnest(array['3', '24',"
        " '100']) as key"
    )
    holder = house.login(new)
    # the new key alone gives up nothing: the old one may be lost
    with refused("PR417", "key_not_shown"):
        house.login(new, user=OWNER).execute("select gdpr.abort_rotation()")
    slow = house.login()
    slow.autocommit = False
    slow.execute("insert into gdpr_clear.person values (101, 'slow@example.com', 'Name 101')")
    admin.execute("select gdpr.abort_rotation()")
    admin.execute("select gdpr.abort_rotation()")
    assert [state for (state, _) in states(db)] == ["taking back", "retired"]
    for call in ("rotate_key", "show_new_key"):
        with refused("PR413", "rotation_state"):
            admin.execute(f"select gdpr.{call}()".encode())
    # both keys open, whoever has which; who comes now, or is renewed, has the old one
    for session in (app, holder, house.login(), house.login(new)):
        assert session.execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]
    holder.execute("insert into gdpr_clear.person values (102, 'late@example.com', 'Name 102')")
    app.execute("update gdpr_clear.person set name = 'Name ' || id where id in (1, 24, 100)")
    killed = house.login(user=OWNER)
    killed.autocommit = False
    killed.execute("select gdpr.rewrap_keys(5)")
    killed.close()
    admin.execute("select gdpr.renew_key(gdpr.subject_of('public.person', '3'))")
    rewrap(admin, 5)
    with refused("PR413", "rotation_state"):
        admin.execute("select gdpr.finish_rotation()")
    slow.commit()
    with refused("PR413", "rotation_state"):
        admin.execute("select gdpr.finish_rotation()")
    rewrap(admin)
    with refused("PR417", "key_not_shown"):
        house.login(new, user=OWNER).execute("select gdpr.finish_rotation()")
    admin.execute("select gdpr.finish_rotation()")
    assert states(db) == [("in force", PEOPLE + 3), ("retired", 0)]
    assert app.execute(READ.encode()).fetchall() == [(PEOPLE + 3,)]
    for locked in (holder, house.db.connect("crm_app")):
        with refused("PR402", "key_locked"):
            locked.execute(READ.encode())
    with refused("PR403", "key_wrong"):
        house.login(new)
    told = [kept for kept in trail(db) if isinstance(kept, dict) and "renewed" not in kept]
    assert told == [
        {"rotating_to": "session"},
        {"rotating_back_to": "session"},
        {"rotated_back": True},
    ]
    # a key that was given up is not taken again; another is
    with refused("PR004", "invalid_argument"):
        admin.execute("select gdpr.rotate_key('session', null, %s)", [new])
    (third,) = admin.execute("select gdpr.rotate_key()").fetchone() or ("",)
    rewrap(admin)
    assert app.execute(READ.encode()).fetchall() == [(PEOPLE + 3,)]
    admin.execute("select gdpr.unlock(%s)", [third])
    admin.execute("select gdpr.finish_rotation()")
    assert states(db) == [("retired", 0), ("retired", 0), ("in force", PEOPLE + 3)]
    assert house.login(third).execute(READ.encode()).fetchall() == [(PEOPLE + 3,)]


def test_from_the_table_and_back_to_it(house: House) -> None:
    """A key of provider table opens the database until the rotation has ended."""
    admin, reader = house.login(user=OWNER), house.db.connect("crm_app")
    admin.execute("select gdpr.rotate_key('table')")
    rewrap(admin)
    admin.execute("select gdpr.finish_rotation()")
    for ending in ("abort_rotation", "finish_rotation"):
        admin.execute("reset gdpr.unlocked")
        (new,) = admin.execute("select gdpr.rotate_key('session')").fetchone() or ("",)
        rewrap(admin, 7)
        assert reader.execute(READ.encode()).fetchall() == [(PEOPLE,)]
        with refused("PR417", "key_not_shown"):
            admin.execute("select gdpr.finish_rotation()")
        if ending == "finish_rotation":
            admin.execute("select gdpr.unlock(%s)", [new])
        else:
            admin.execute("select gdpr.abort_rotation()")
            assert reader.execute(READ.encode()).fetchall() == [(PEOPLE,)]
            rewrap(admin)
        admin.execute("select gdpr.finish_rotation()")
        if ending == "abort_rotation":
            assert reader.execute(READ.encode()).fetchall() == [(PEOPLE,)]
    with refused("PR402", "key_locked"):
        reader.execute(READ.encode())
    assert house.login(new).execute(READ.encode()).fetchall() == [(PEOPLE,)]
    assert house.db.rows(
        "select count(*) from gdpr_internal.key_encryption_key where material is not null",
        user="postgres",
    ) == [(0,)]
    # doctor() no longer warns of it
    assert not house.db.rows("select from gdpr.doctor() where topic = 'key'")


def test_who_read_before_the_rotation_cannot_write_after_it(house: House) -> None:
    """At REPEATABLE READ a session goes on with the key it saw, which then opens nothing."""
    admin, writer = house.login(user=OWNER), house.login()
    writer.autocommit = False
    writer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    writer.execute(READ.encode())
    (new,) = admin.execute("select gdpr.rotate_key()").fetchone() or ("",)
    admin.execute("select gdpr.unlock(%s)", [new])
    rewrap(admin)
    with refused("PR413", "rotation_state"):
        admin.execute("select gdpr.finish_rotation()")
    writer.execute("insert into gdpr_clear.person values (200, 'slow@example.com', 'Name 200')")
    writer.commit()
    with refused("PR413", "rotation_state"):
        admin.execute("select gdpr.finish_rotation()")
    rewrap(admin)
    admin.execute("select gdpr.finish_rotation()")
    assert house.login(new).execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]


def test_all_in_one_transaction_is_refused(house: House) -> None:
    """Others could begin before it commits, with the old key."""
    admin = house.login(user=OWNER)
    admin.autocommit = False
    admin.execute("select gdpr.rotate_key('table')")
    rewrap(admin)
    with refused("PR413", "rotation_state"):
        admin.execute("select gdpr.finish_rotation()")
    admin.rollback()
    assert states(house.db) == [("in force", PEOPLE)]


def test_two_at_once_end_in_one_state(house: House) -> None:
    """Batches, an end and a way back at the same time: no deadlock, nobody's key is lost."""
    app, admin = house.login(), house.login(user=OWNER)
    (new,) = admin.execute("select gdpr.rotate_key()").fetchone() or ("",)
    rewrap(admin)
    ending, aborting, batches = (
        house.login(new, user=OWNER),
        house.login(user=OWNER),
        house.login(user=OWNER),
    )
    batches.autocommit = False
    batches.execute("select gdpr.rewrap_keys(5)")
    first = waiting(aborting, lambda: aborting.execute("select gdpr.abort_rotation()"))
    second = waiting(ending, lambda: ending.execute("select gdpr.finish_rotation()"))
    batches.commit()
    assert first() is None
    error = second()
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate == "PR417"
    rewrap(admin)
    admin.execute("select gdpr.finish_rotation()")
    assert app.execute(READ.encode()).fetchall() == [(PEOPLE,)]


#: Rotations under load; GDPRDB_TEST_ROTATIONS=50 is the long run.
ROTATIONS = int(os.environ.get("GDPRDB_TEST_ROTATIONS", "4"))

WORK = (
    "insert into gdpr_clear.person values ({0}, '{0}@example.com', 'Name {0}')",
    "update gdpr_clear.person set name = 'Name ' || id where id = 1 + {0} % 20",
    "select 1 / bool_and(name = 'Name ' || id)::integer from gdpr_clear.person where id > -{0}",
    "select gdpr.renew_key(gdpr.subject_of('public.person', (1 + {0} % 20)::text))",
)


def test_work_goes_on_through_rotations_and_their_giving_up(house: House) -> None:
    """Who writes, reads and is renewed meanwhile meets no other error than the lock at the end."""
    held, stop = [house.key], threading.Event()
    problems: list[str] = []
    done: Counter[str] = Counter()

    def work(task: str) -> None:
        session, n = house.login(user=OWNER if "renew" in task else "crm_app"), 1000
        while not stop.is_set():
            n += 1
            try:
                session.execute(task.format(n).encode())
                done[task] += 1
            except psycopg.Error as error:
                if error.sqlstate != "PR402":
                    problems.append(str(error))
                    return
                session.execute("select gdpr.unlock(%s)", [held[-1]])

    workers = [threading.Thread(target=work, args=(task,)) for task in WORK]
    for worker in workers:
        worker.start()
    admin = house.login(user=OWNER)
    try:
        for n in range(ROTATIONS):
            (new,) = admin.execute("select gdpr.rotate_key()").fetchone() or ("",)
            admin.execute("select gdpr.rewrap_keys(7)")
            if n % 2:
                admin.execute("select gdpr.unlock(%s)", [new])
                held.append(new)
            else:
                admin.execute("select gdpr.abort_rotation()")
            while any(str(state).startswith("taking") for state, _ in states(house.db)):
                rewrap(admin, 20)
                with suppress(psycopg.Error):
                    admin.execute("select gdpr.finish_rotation()")
    finally:
        stop.set()
        for worker in workers:
            worker.join(30)
    assert not problems
    assert min(done[task] for task in WORK) > 0
    expected = PEOPLE + done[WORK[0]]
    assert house.login(held[-1]).execute(READ.encode()).fetchall() == [(expected,)]
