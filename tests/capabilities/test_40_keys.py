"""Station 40: where the key is kept, how it is given, proved and missed."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.capabilities.crm import refused
from tests.capabilities.houses import PEOPLE, READ, House
from tests.support import OWNER

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


#: What the doctor says of a file, by the error that everybody else meets.
FILES = {"PR403": "another key", "PR412": "file", "22021": "cannot be read (SQLSTATE 22021)"}


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
        # lost, or another, before the rotation has ended: it cannot end, and who has the old key
        # works on and can go back
        for make, code in (
            (lambda: file.write_text("ef" * 32), "PR403"),
            (file.unlink, "PR412"),
        ):
            make()
            while admin.execute("select gdpr.rewrap_keys()").fetchall() != [(0,)]:
                pass
            for session, call in ((admin, "select gdpr.finish_rotation()"), (app, READ)):
                with pytest.raises(psycopg.Error) as caught:
                    session.execute(call.encode())
                assert caught.value.sqlstate == code
            assert house.login().execute(READ.encode()).fetchall() == [(PEOPLE,)]
        admin.execute("select gdpr.abort_rotation()")
        while admin.execute("select gdpr.rewrap_keys()").fetchall() != [(0,)]:
            pass
        admin.execute("select gdpr.finish_rotation()")
        assert house.login().execute(READ.encode()).fetchall() == [(PEOPLE,)]
        with refused("PR402", "key_locked"):
            app.execute(READ.encode())
        file.write_text("ba" * 32)
        assert admin.execute(rotate.encode(), [str(file)]).fetchall() == [(None,)]
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
            (lambda: file.write_bytes(b"secret \xff"), "22021"),
            (file.unlink, "PR412"),
        ):
            make()
            found = db.rows(
                "select finding from gdpr.doctor() where topic = 'key' and severity = 'error'"
            )
            assert len(found) == 1
            assert FILES[code] in found[0][0]
            assert "secret" not in found[0][0]
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
        file.write_text("ba" * 32)
        assert app.execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]
        assert db.rows("select finding from gdpr.doctor() where topic = 'key'") == []
        # from one file to another, which is lost: the first opens the database still
        admin.execute("reset gdpr.unlocked")
        admin.execute(rotate.encode(), [str(another)])
        another.unlink()
        assert app.execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]
        with refused("PR412", "key_file"):
            admin.execute("select gdpr.finish_rotation()")
        admin.execute("select gdpr.abort_rotation()")
        while admin.execute("select gdpr.rewrap_keys()").fetchall() != [(0,)]:
            pass
        file.rename(another)
        with refused("PR412", "key_file"):
            admin.execute("select gdpr.finish_rotation()")
        another.rename(file)
        admin.execute("select gdpr.finish_rotation()")
        assert app.execute(READ.encode()).fetchall() == [(PEOPLE + 1,)]
        # nobody but gdprdb's own functions reads files this way
        for user in ("crm_app", OWNER):
            with refused("42501"):
                db.rows("select gdpr_internal.key_file('/etc/hostname', true)", user=user)
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
