"""`find_binaries`: which PostgreSQL a private server runs on."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gdprdb import binaries
from gdprdb.binaries import find_binaries
from gdprdb.errors import GdprdbError


def pretend(directory: Path, version: str) -> Path:
    """A directory with the programs of a PostgreSQL of that version, which can say so."""
    directory.mkdir(parents=True)
    for name in ("initdb", "pg_ctl", "postgres"):
        program = directory / name
        program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return directory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with versions 14, 15 and 16 under one of the usual places, and nothing on PATH."""
    for version in ("14.9", "15.7", "16.3"):
        pretend(tmp_path / version.split(".")[0] / "bin", version)
    monkeypatch.setattr(binaries, "_USUAL_PLACES", (f"{tmp_path}/*/bin",))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("GDPRDB_PG_BIN", raising=False)
    return tmp_path


def test_takes_the_newest_of_the_machine(machine: Path) -> None:
    found = find_binaries()
    assert (found.bin_dir, found.major, found.version) == (machine / "16" / "bin", 16, "16.3")


def test_takes_the_major_version_that_made_the_data(machine: Path) -> None:
    assert find_binaries(15).bin_dir == machine / "15" / "bin"


def test_takes_what_stands_on_the_path(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = pretend(machine / "elsewhere", "17.2")
    monkeypatch.setenv("PATH", str(elsewhere))
    assert find_binaries().bin_dir == elsewhere


def test_the_variable_decides(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDPRDB_PG_BIN", str(machine / "15" / "bin"))
    assert find_binaries().major == 15


@pytest.mark.parametrize("named", ["14/bin", "missing"])
def test_a_variable_that_names_no_server_is_an_error(
    machine: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("GDPRDB_PG_BIN", str(machine / named))
    with pytest.raises(GdprdbError, match="GDPRDB_PG_BIN"):
        find_binaries()


def test_a_server_without_pgcrypto_is_none(machine: Path) -> None:
    config = machine / "16" / "bin" / "pg_config"
    config.write_text(f"#!/bin/sh\necho {machine}\n")
    config.chmod(0o755)
    assert find_binaries().major == 15


@pytest.mark.usefixtures("machine")
def test_without_any_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_USUAL_PLACES", ())
    monkeypatch.setattr(binaries, "_PACKAGES", ())
    with pytest.raises(GdprdbError) as caught:
        find_binaries()
    assert "gdprdb[server]" in str(caught.value.hint)
