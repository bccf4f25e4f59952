"""``gdprdb keys``: a key is replaced, locked and proved from the shell, and never an argument."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gdprdb import migrate
from gdprdb.cli import main
from tests.capabilities.crm import apply, one_table
from tests.support import INSTALLER, Database, Run


@pytest.fixture
def key(run: Run, empty_db: Database, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of a new database, as the command printed it."""
    monkeypatch.setenv("GDPRDB_DSN", empty_db.dsn(INSTALLER))
    migrate.init(empty_db.dsn(INSTALLER))
    created = run("keys", "create", "--provider", "session")
    assert created.code == 0, created.err
    return created.out.strip()


def standing(run: Run) -> list[str]:
    """The states of the keys there are."""
    return [row["state"] for row in run("keys", "status", "--format", "json").data]


def test_a_key_is_replaced(run: Run, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = run("keys", "rotate")
    assert locked.code != 0
    assert "PR402" in locked.err
    monkeypatch.setenv("GDPRDB_KEY", key)
    for early in ("--finish", "--abort"):
        refused = run("keys", "rotate", early)
        assert refused.code != 0
        assert "no rotation is going on" in refused.err
    rotated = run("keys", "rotate")
    new = rotated.out.strip()
    assert rotated.code == 0, rotated.err
    assert len(new) == 64
    assert new != key
    # called again, with either key, it goes on and shows the same key
    for holding in (key, new):
        monkeypatch.setenv("GDPRDB_KEY", holding)
        again = run("keys", "rotate")
        assert (again.code, again.out) == (0, rotated.out)
    other = run("keys", "rotate", "--provider", "table")
    assert other.code == 1
    assert "a rotation to provider session is going on" in other.err
    # who has not the new key does not make it the only one
    monkeypatch.setenv("GDPRDB_KEY", key)
    refused = run("keys", "rotate", "--finish")
    assert (refused.code, refused.out) == (4, "")
    assert "PR417" in refused.err
    assert standing(run) == ["retired", "taking over"]
    monkeypatch.setenv("GDPRDB_KEY", new)
    finished = run("keys", "rotate", "--finish")
    assert (finished.code, finished.out) == (0, ""), finished.err
    assert standing(run) == ["retired", "in force"]
    monkeypatch.setenv("GDPRDB_KEY", key)
    assert "PR403" in run("keys", "status").err


def test_a_rotation_is_given_up(run: Run, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDPRDB_KEY", key)
    new = run("keys", "rotate").out.strip()
    assert run("keys", "rotate", "--abort", "--finish").code == 2
    monkeypatch.setenv("GDPRDB_KEY", new)
    assert "PR417" in run("keys", "rotate", "--abort").err
    monkeypatch.setenv("GDPRDB_KEY", key)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("gdprdb.cli.keys._rewrap", killed)
        assert run("keys", "rotate", "--abort").code != 0
    assert standing(run) == ["taking back", "retired"]
    # nothing of the new key is shown any more; called again, with or without the option, it goes on
    monkeypatch.setenv("GDPRDB_KEY", new)
    assert "PR417" in run("keys", "rotate", "--finish").err
    monkeypatch.setenv("GDPRDB_KEY", key)
    done = run("keys", "rotate", "--abort")
    assert (done.code, done.out) == (0, ""), done.err
    assert "given up" in done.err
    assert standing(run) == ["in force", "retired"]
    monkeypatch.setenv("GDPRDB_KEY", new)
    assert "PR403" in run("keys", "status").err
    monkeypatch.setenv("GDPRDB_KEY", key)
    assert run("keys", "rotate").out.strip() not in (key, new)


def into(target: Path | None, *arguments: str) -> int:
    """The exit code of the command when standard output leads there; None: when it is closed."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", target.open("w") if target else None)
        with pytest.raises(SystemExit) as end:
            main(arguments, prog_name="gdprdb")
    return int(end.value.code or 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_key_that_nobody_would_see_is_not_made(
    run: Run, empty_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDPRDB_DSN", empty_db.dsn(INSTALLER))
    migrate.init(empty_db.dsn(INSTALLER))
    create = ("keys", "create", "--provider", "session")
    lost = (Path("/dev/full"), Path("/dev/null"), None)
    for target in lost:
        assert into(target, *create) == 1
        assert standing(run) == []
    # the connection to the database is what the closed number then stands for
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" -m gdprdb keys create --provider session >&-', sys.executable],
        capture_output=True,
        check=False,
    )
    assert closed.returncode == 1
    assert b"standard output is closed" in closed.stderr
    assert standing(run) == []
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    assert into(old, *create) == 0
    monkeypatch.setenv("GDPRDB_KEY", old.read_text().strip())
    for target in lost:
        assert into(target, "keys", "rotate") == 1
        assert standing(run) == ["in force"]
    # the very same line twice leaves the very same key
    assert into(new, "keys", "rotate") == 0
    key = new.read_text().strip()
    new.unlink()
    assert into(new, "keys", "rotate") == 0
    assert new.read_text().strip() == key
    for target in lost:
        assert into(target, "keys", "rotate") == 1
        assert standing(run) == ["retired", "taking over"]
    # a second key of a database is refused, and none printed that would not open it
    assert into(old, *create) == 4
    assert old.read_text() == ""
    monkeypatch.setenv("GDPRDB_KEY", key)
    assert run("keys", "rotate", "--finish").code == 0
    assert standing(run) == ["retired", "in force"]


def test_a_copy_is_proved(run: Run, key: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_text(key + "\n")
    proved = run("keys", "export-check", "--key-file", str(copy), "--format", "json")
    assert [row["state"] for row in proved.data] == ["in force"]
    assert proved.code == 0
    copy.write_text("0" * 64)
    wrong = run("keys", "export-check", "--key-file", str(copy))
    assert wrong.code != 0
    assert "PR403" in wrong.err
    assert key not in wrong.err


def test_a_copy_of_a_key_that_was_replaced(
    run: Run, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the safe is no longer what opens the database: a check in a schedule fails."""
    copy = tmp_path / "copy"
    copy.write_text(key)
    monkeypatch.setenv("GDPRDB_KEY", key)
    monkeypatch.setenv("GDPRDB_KEY", run("keys", "rotate").out.strip())
    assert run("keys", "rotate", "--finish").code == 0
    proved = run("keys", "export-check", "--key-file", str(copy), "--format", "json")
    assert (proved.code, proved.data[0]["state"]) == (3, "retired")
    assert "This key was replaced" in proved.err


def test_a_database_without_its_keys_is_looked_at(
    run: Run, key: str, empty_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restore without the key tables, by who has GDPRDB_KEY set as on every day."""
    empty_db.rows(
        "insert into gdpr_internal.subject (purposes, until) values (0, 'infinity');"
        "alter table gdpr_internal.key_encryption_key disable trigger all;"
        "delete from gdpr_internal.key_encryption_key",
        user="postgres",
    )
    monkeypatch.setenv("GDPRDB_KEY", key)
    doctor = run("doctor", "--format", "json")
    assert doctor.code == 3
    assert "GDPRDB_KEY opens nothing" in doctor.err
    assert {"key", "data_keys"} <= {row["topic"] for row in doctor.data}
    assert run("keys", "status").code == 0
    # no new key takes the place of the lost one, and nobody is told to make one
    for command in (["keys", "create"], ["keys", "create", "--provider", "session"]):
        refused = run(*command)
        assert refused.code == 4
        assert "restore the key tables" in refused.err
        assert refused.out == ""


def test_all_sessions_are_locked(run: Run, key: str, empty_db: Database) -> None:
    session = empty_db.connect(INSTALLER)
    session.execute("select gdpr.unlock(%s)", [key])
    status = "select unlocked from gdpr.key_status"
    assert session.execute(status).fetchall() == [(True,)]
    done = run("keys", "lock", "--yes")
    assert done.code == 0, done.err
    assert session.execute(status).fetchall() == [(False,)]


def test_persons_get_new_keys(run: Run, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDPRDB_DSN", db.dsn())
    monkeypatch.setattr("gdprdb.cli.keys.TRIES", 2)
    monkeypatch.setattr("gdprdb.cli.keys.PAUSE", 0.05)
    db.rows(
        "create table public.person (id integer primary key, email text);"
        "grant all on public.person to crm_app"
    )
    apply(db, one_table("public.person", columns={"email": {"encrypt": True}}))
    db.rows(
        "insert into public.person select n, n || '@example.com' from generate_series(1, 9) as n",
        user="crm_app",
    )
    one = run("keys", "renew", "--subject-id", "3")
    assert one.code == 0, one.err
    assert run("keys", "renew", "--older-than", "1 day").code == 0
    status = "select renewed from gdpr.key_status"
    assert db.rows(status) == [(1,)]
    # somebody is writing: all the others, and the rest when it is called again
    writer = db.connect("crm_app", autocommit=False)
    writer.execute("update public.person set email = 'x' where id = 5")
    most = run("keys", "renew", "--batch", "2")
    assert most.code == 1
    assert "1 persons keep their old key" in most.err
    assert db.rows(status) == [(8,)]
    refused = run("keys", "renew", "--older-than", "1 day")
    assert refused.code == 1
    assert "is going on" in refused.err
    writer.commit()
    rest = run("keys", "renew")
    assert rest.code == 0, rest.err
    assert "resumed" in rest.err
    assert db.rows("select renewed, finished_at is null from gdpr.key_renewal order by id") == [
        (0, False),
        (9, False),
    ]
    # those that a retired key has wrapped
    assert "no retired key" in run("keys", "renew", "--made-under", "1").err
    run("keys", "rotate")
    db.rows("insert into public.person values (10, '10@example.com')", user="crm_app")
    assert run("keys", "renew", "--made-under", "1").code == 0
    assert db.rows("select persons, renewed from gdpr.key_renewal order by id desc limit 1") == [
        (9, 9)
    ]
    assert run("keys", "renew", "--made-under", "1", "--older-than", "1 day").code == 2
    # what stands in the way is named, never what it says
    db.rows(
        """
        create function refuse() returns trigger language plpgsql as $$
        begin
          if old.id = 4 then raise exception 'secret of %', old.email; end if;
          return new;
        end $$;
        create trigger refuse before update on public.person for each row execute function refuse()
        """
    )
    stuck = run("keys", "renew")
    assert stuck.code == 1
    assert "secret" not in stuck.err
    assert stuck.err.count("is not renewed: SQLSTATE P0001") == 1
    assert db.rows(
        "select count(*) from gdpr_clear.person where email = id || '@example.com'", user="crm_app"
    ) == [(9,)]
