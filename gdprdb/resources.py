"""Where the SQL and the migrations are: inside the installed package, or in the checkout.

The wheel carries ``sql/`` and ``migrations/`` inside the package; in an editable
install they are still beside it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from gdprdb.errors import GdprdbError


@cache
def migrations() -> Path:
    """The Alembic environment: ``env.py``, ``versions/``, ``releases/``."""
    return _find("migrations")


@cache
def sql() -> Path:
    """The current SQL, as people read it."""
    return _find("sql")


def release_file(release: str, name: str) -> str:
    """The text of one frozen file of a release.

    Args:
        release: the release, as ``0.1.0``.
        name: ``open.sql``, ``up.sql``, ``down.sql`` or ``code.sql``.
    """
    return (migrations() / "releases" / release / name).read_text(encoding="utf-8")


def _find(name: str) -> Path:
    package = Path(str(files("gdprdb")))
    for place in (package / name, package.parent / name):
        if place.is_dir():
            return place
    raise GdprdbError(
        f"the directory {name} is missing from this installation of gdprdb",
        hint="Install gdprdb again.",
    )
