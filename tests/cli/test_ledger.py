"""``gdprdb ledger``: keys, files, what is wrong with them."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from gdprdb import ledger, signing
from gdprdb.errors import GdprdbError, RefusedError
from tests.support import Clone, Database, Run

BLOCK = "select gdpr.block('email', %s, 'asked by phone')"


@pytest.fixture
def keys(run: Run, tmp_path: Path) -> tuple[Path, Path]:
    """Files with a private key and its public key."""
    private, public = tmp_path / "key", tmp_path / "pub"
    public.write_text(run("ledger", "keygen", str(private)).out)
    return private, public


@pytest.fixture
def file(on_db: Run, db: Database, keys: tuple[Path, Path], tmp_path: Path) -> Path:
    """A signed ledger of ``db`` with two entries."""
    for address in ("a@example.com", "b@example.com"):
        db.rows(BLOCK, [address])
    path = tmp_path / "ledger.jsonl"
    path.write_text(on_db("ledger", "export", f"--signing-key={keys[0]}").out)
    return path


def test_a_key_is_made_once_and_for_its_owner_alone(run: Run, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert len(public.read_text().strip()) == 64
    before = private.read_text()
    assert run("ledger", "keygen", str(private)).code == 1
    assert private.read_text() == before


def test_a_ledger_of_this_database_has_nothing_to_add(
    on_db: Run, file: Path, keys: tuple[Path, Path]
) -> None:
    options = [str(file), f"--public-key={keys[1]}", "--format=json"]
    checked = on_db("ledger", "check", *options)
    assert (checked.code, checked.data) == (0, [])
    replayed = on_db("ledger", "replay", *options, "--yes")
    assert (replayed.code, replayed.data["blocks"]) == (0, 0)


def test_a_dry_run_says_what_would_be_and_changes_nothing(
    on_db: Run, db: Database, clone: Clone, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "ledger.jsonl"
    with clone(db.name) as backup:
        db.rows(BLOCK, ["a@example.com"])
        path.write_text(on_db("ledger", "export", f"--signing-key={keys[0]}").out)
        options = ["--dsn", backup.dsn(), str(path), f"--public-key={keys[1]}"]
        dry = on_db("ledger", "replay", *options, "--dry-run")
        assert (dry.code, "Nothing was changed" in dry.err) == (0, True)
        blocked = "select gdpr.is_blocked('email', 'a@example.com')"
        assert backup.rows(blocked) == [(False,)]
        assert on_db("ledger", "replay", *options).code == 2  # nobody is there to be asked
        done = on_db("ledger", "replay", *options, "--yes")
        # said once
        assert (done.code, "erasures" in done.out, "erasures" in done.err) == (0, True, False)
        assert backup.rows(blocked) == [(True,)]


def test_a_checkpoint_is_a_ledger_without_entries(
    on_db: Run, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    done = on_db("ledger", "export", f"--signing-key={keys[0]}", "--checkpoint")
    assert len(done.out.splitlines()) == 3
    path = tmp_path / "checkpoint"
    path.write_text(done.out)
    assert on_db("ledger", "check", str(path), f"--public-key={keys[1]}").code == 0
    assert on_db("ledger", "export", "--checkpoint", "--since=2026-01-01").code == 2


def test_accept_is_asked_and_recorded(on_db: Run, db: Database) -> None:
    assert on_db("db", "status", "--format=json").data[0]["whereabouts"] == "copy"
    assert on_db("ledger", "accept", "--reason=moved").code == 2
    assert on_db("ledger", "accept", "--reason=moved", "--yes").code == 0
    assert on_db("db", "status", "--format=json").data[0]["whereabouts"] == "home"
    assert db.rows("select event, reason from gdpr.home order by id desc limit 1") == [
        ("accepted", "moved")
    ]


def _cut(lines: list[str]) -> None:
    del lines[1]


def _cut_the_end(lines: list[str]) -> None:
    del lines[-2:]


def _edit(lines: list[str]) -> None:
    lines[1] = lines[1].replace('"block"', '"blocK"')


def _add(lines: list[str]) -> None:
    lines.insert(1, lines[1])


def _seal_anew(lines: list[str]) -> None:
    """What somebody does who knows how a ledger is made, and has no key."""
    del lines[1]
    digest = b""
    for line in lines[:-2]:
        digest = sha256(digest + line.encode()).digest()
    seal = json.loads(lines[-2])
    seal["seal"] |= {"digest": digest.hex(), "entries": len(lines) - 3}
    lines[-2] = json.dumps(seal)


def _unsign(lines: list[str]) -> None:
    del lines[-1]


def _sign_with_another_key(lines: list[str]) -> None:
    signature = signing.signer(signing.new_keys()[0])(lines[-2])
    lines[-1] = json.dumps({"signature": signature})


def _no_json(lines: list[str]) -> None:
    lines[1] = "x"


def _no_document(lines: list[str]) -> None:
    lines[1] = "1"


def _two_signatures(lines: list[str]) -> None:
    lines.append(lines[-1])


def _twice(lines: list[str]) -> None:
    lines += lines


def _empty(lines: list[str]) -> None:
    lines.clear()


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _cut_the_end,
        _edit,
        _add,
        _seal_anew,
        _unsign,
        _sign_with_another_key,
        _no_json,
        _no_document,
        _two_signatures,
        _twice,
        _empty,
    ],
)
def test_a_file_that_was_changed_is_refused(damage: Callable[[list[str]], None]) -> None:
    private, public = signing.new_keys()
    entry = json.dumps({"kind": "block", "digest": "1"})
    lines = list(ledger.signing([*part(1, None, entry, more=False)[0]], signing.signer(private)))
    read(lines, public)
    damage(lines)
    with pytest.raises(RefusedError):
        read(lines, public)


@pytest.mark.parametrize("command", ["check", "replay"])
def test_a_changed_file_comes_to_no_database(
    on_db: Run, file: Path, keys: tuple[Path, Path], command: str
) -> None:
    file.write_text(file.read_text().replace('"block"', '"blocK"'))
    done = on_db("ledger", command, str(file), f"--public-key={keys[1]}")
    assert (done.code, "not as it was exported" in done.err) == (4, True)


def read(lines: list[str], public: str) -> None:
    """Read a ledger that has to be signed."""
    for each in ledger.parts(lines):
        ledger.verify(each, public)


def part(number: int, previous: str | None, *entries: str, more: bool) -> tuple[list[str], str]:
    """The lines of a part, and its digest."""
    header = json.dumps({"gdprdb_ledger": 1, "part": number, "previous": previous})
    digest = b""
    for line in (header, *entries):
        digest = sha256(digest + line.encode()).digest()
    seal = {"entries": len(entries), "digest": digest.hex(), "more": more, "mac": ""}
    return [header, *entries, json.dumps({"seal": seal})], digest.hex()


def test_parts_are_a_chain() -> None:
    first, digest = part(1, None, more=True)
    second, _ = part(2, digest, more=False)
    assert [p.lines for p in ledger.parts([*first, *second])] == [first, second]
    for wrong in (first, second, [*second, *first], [*first, *first], [*first, *second, *second]):
        with pytest.raises(RefusedError):
            list(ledger.parts(wrong))


@pytest.mark.parametrize("key", ["", "x" * 64, "ab", "AB" * 32, "ab" * 33])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(GdprdbError):
        signing.signer(key)
