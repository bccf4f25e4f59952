"""Two truths, one test: ``sql/`` as people read it, and the frozen release."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from gdprdb import __version__, migrate, release, resources
from gdprdb.errors import GdprdbError
from tests.support import INSTALLER, Clone, Database, catalog

RELEASES = resources.migrations() / "releases"


def test_the_release_is_what_the_current_sql_makes() -> None:
    for name, text in release.frozen(resources.sql(), RELEASES).items():
        assert resources.release_file(__version__, name) == text, f"{name}: run make freeze"


def test_the_current_sql_and_the_stairway_of_releases_make_the_same_database(
    lone_clone: Clone,
) -> None:
    with lone_clone() as stairway, lone_clone() as current:
        migrate.init(stairway.dsn(INSTALLER))
        connection = current.connect(INSTALLER, autocommit=False)
        files = release.assemble(resources.sql())
        for name in ("open.sql", "up.sql", "code.sql", "close.sql"):
            connection.execute(files[name].encode())
        connection.commit()
        assert catalog(current) == catalog(stairway)


def test_the_database_is_at_the_release_of_the_package(bare: Database) -> None:
    migrate.init(bare.dsn(INSTALLER))
    with bare.connect(INSTALLER) as connection:
        found = migrate.status(connection)
    assert (found.installed, found.program, found.current) == (__version__, __version__, True)


def test_frozen_files_are_what_their_checksums_say() -> None:
    assert release.broken_checksums(RELEASES) == []


def test_a_change_of_history_is_noticed_and_not_frozen(tmp_path: Path) -> None:
    copy = tmp_path / "releases"
    shutil.copytree(RELEASES, copy)
    with (copy / __version__ / "up.sql").open("a") as file:
        file.write("-- quietly changed\n")
    assert release.broken_checksums(copy) == [f"{__version__}/up.sql"]
    shutil.copytree(copy / __version__, copy / "9.9.9")
    with pytest.raises(GdprdbError) as caught:
        release.freeze(resources.sql(), copy, "9.9.9")
    assert caught.value.details == (f"{__version__}/up.sql",)


def test_freezing_again_changes_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "releases"
    shutil.copytree(RELEASES, copy)
    assert release.freeze(resources.sql(), copy) == []


@pytest.mark.parametrize(
    ("first_line", "problem"),
    [("-- [state] ok", None), ("-- a table", "does not say what it is")],
)
def test_every_file_says_whether_it_is_state_or_code(
    tmp_path: Path, first_line: str, problem: str | None
) -> None:
    for path in (release.OPENING, release.CLOSING, Path("10_collection/10_x.sql")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{first_line}\nselect 1;\n")
    if problem is None:
        assert "10_collection/10_x.sql" in release.assemble(tmp_path)["up.sql"]
    else:
        with pytest.raises(GdprdbError, match=problem):
            release.assemble(tmp_path)


def test_current_alembic_head_is_the_version() -> None:
    scripts = ScriptDirectory(str(resources.migrations()))
    assert scripts.get_current_head() == migrate.head() == __version__
