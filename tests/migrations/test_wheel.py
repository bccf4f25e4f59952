"""The installed wheel brings the SQL along: what users get is what the checkout is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gdprdb import __version__, resources
from tests.support import INSTALLER, Database

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources; needs the build backend from the network."""
    sources = tmp_path_factory.mktemp("sources") / "gdprdb"
    ignore = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".hypothesis")
    shutil.copytree(ROOT, sources, ignore=ignore)
    out = sources.parent / "wheels"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, sources],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "Could not find a version that satisfies" in done.stderr:
        pytest.skip("the build backend cannot be fetched: no network")
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def test_the_wheel_holds_sql_and_migrations(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for directory in (resources.sql(), resources.migrations()):
        for path in directory.rglob("*.sql"):
            assert f"gdprdb/{path.relative_to(directory.parent)}" in names
    assert {"gdprdb/migrations/env.py", "gdprdb/py.typed"} <= names
    assert not [name for name in names if name.startswith("tests")]


def test_the_installed_wheel_installs_gdprdb(wheel: Path, bare: Database, tmp_path: Path) -> None:
    """Installed outside the checkout, with the libraries of this environment."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", site, wheel], check=True)
    program = (
        "import gdprdb, sys; from gdprdb import migrate, resources;"
        f"assert gdprdb.__file__.startswith({str(site)!r}), gdprdb.__file__;"
        f"assert str(resources.migrations()).startswith({str(site)!r});"
        "migrate.init(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, bare.dsn(INSTALLER)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert bare.rows("select gdpr.release()", user=INSTALLER) == [(__version__,)]
