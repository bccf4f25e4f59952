"""``gdprdb keys``: a key is replaced, locked and proved from the shell, and never an argument."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdprdb import migrate
from tests.support import INSTALLER, Database, Run


@pytest.fixture
def key(run: Run, empty_db: Database, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of a new database, as the command printed it."""
    monkeypatch.setenv("GDPRDB_DSN", empty_db.dsn(INSTALLER))
    migrate.init(empty_db.dsn(INSTALLER))
    created = run("keys", "create", "--provider", "session")
    assert created.code == 0, created.err
    return created.out.strip()


def test_a_key_is_replaced(run: Run, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = run("keys", "rotate")
    assert locked.code != 0
    assert "PR402" in locked.err
    monkeypatch.setenv("GDPRDB_KEY", key)
    early = run("keys", "rotate", "--finish")
    assert early.code != 0
    assert "no rotation is going on" in early.err
    rotated = run("keys", "rotate")
    new = rotated.out.strip()
    assert rotated.code == 0, rotated.err
    assert len(new) == 64
    assert new != key
    # called again it goes on, and shows no key a second time
    again = run("keys", "rotate")
    assert (again.code, again.out) == (0, "")
    monkeypatch.setenv("GDPRDB_KEY", new)
    finished = run("keys", "rotate", "--finish")
    assert finished.code == 0, finished.err
    states = [row["state"] for row in run("keys", "status", "--format", "json").data]
    assert states == ["retired", "in force"]
    monkeypatch.setenv("GDPRDB_KEY", key)
    assert "PR403" in run("keys", "status").err


def test_a_copy_is_proved(run: Run, key: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_text(key + "\n")
    proved = run("keys", "export-check", "--key-file", str(copy), "--format", "json")
    assert [row["state"] for row in proved.data] == ["in force"]
    copy.write_text("0" * 64)
    wrong = run("keys", "export-check", "--key-file", str(copy))
    assert wrong.code != 0
    assert "PR403" in wrong.err
    assert key not in wrong.err


def test_all_sessions_are_locked(run: Run, key: str, empty_db: Database) -> None:
    session = empty_db.connect(INSTALLER)
    session.execute("select gdpr.unlock(%s)", [key])
    status = "select unlocked from gdpr.key_status"
    assert session.execute(status).fetchall() == [(True,)]
    done = run("keys", "lock", "--yes")
    assert done.code == 0, done.err
    assert session.execute(status).fetchall() == [(False,)]
