"""Releases: how one is frozen, and how one is laid over a database.

``sql/`` is the product as it is now, in files that say in their first line what
they are: ``-- [state]`` files make roles, tables and indexes and run once;
``-- [code]`` files are replaced whole. Freezing writes them to
``migrations/releases/X.Y.Z/`` as four files: ``open.sql`` and ``close.sql``, which
stand around every load (roles made and memberships taken, memberships given
back), ``up.sql`` (all other state) and ``code.sql`` (all other code). ``down.sql`` is
written by hand, and so is ``up.sql`` from the second release on. ``SHA256SUMS``
makes sure that nobody changes history.

    python -m gdprdb.release freeze     # make the release of this version
    python -m gdprdb.release check      # fail if it is not what sql/ says
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from gdprdb import __version__, resources
from gdprdb.errors import GdprdbError, explain

#: The files of ``sql/`` that stand around every load.
OPENING = Path("00_foundation/00_open.sql")
CLOSING = Path("99_seal/99_close.sql")

_SUMS = "SHA256SUMS"


def assemble(sql: Path) -> dict[str, str]:
    """The frozen files that ``sql/`` makes.

    Args:
        sql: the directory of the current SQL.

    Returns:
        File name to text: ``open.sql``, ``up.sql``, ``code.sql``, ``close.sql``.

    Raises:
        GdprdbError: a file does not say whether it is state or code, or one of the
            two around every load is missing.
    """
    paths = sorted(path.relative_to(sql) for path in sql.rglob("*.sql"))
    for path in (OPENING, CLOSING):
        if path not in paths:
            raise GdprdbError(f"{sql / path} is missing")
        paths.remove(path)
    kinds = {path: _kind(sql / path) for path in paths}
    return {
        "open.sql": _join(sql, [OPENING]),
        "up.sql": _join(sql, [path for path in paths if kinds[path] == "state"]),
        "code.sql": _join(sql, [path for path in paths if kinds[path] == "code"]),
        "close.sql": _join(sql, [CLOSING]),
    }


def frozen(sql: Path, releases: Path, release: str = __version__) -> dict[str, str]:
    """The files of a release that ``sql/`` decides.

    The first release makes all state. A later one changes what stands in databases: its
    ``up.sql`` is written by hand, and a test compares where both ways lead.

    Args:
        sql: the directory of the current SQL.
        releases: the directory of all releases.
        release: the one that is meant.
    """
    files = assemble(sql)
    if any(path.name != release for path in releases.iterdir() if path.is_dir()):
        del files["up.sql"]
    return files


def freeze(sql: Path, releases: Path, release: str = __version__) -> list[Path]:
    """Write the frozen files of a release and the checksums of all of them.

    Args:
        sql: the directory of the current SQL.
        releases: the directory of all releases.
        release: the one to write; its ``down.sql`` must be there.

    Returns:
        The files that changed.

    Raises:
        GdprdbError: an earlier release is not what its checksum says.
    """
    broken = [
        problem for problem in broken_checksums(releases) if not problem.startswith(f"{release}/")
    ]
    if broken:
        raise GdprdbError(
            "files of an earlier release have changed",
            hint="History is frozen: take the changes back, and make a new release.",
            details=tuple(broken),
        )
    directory = releases / release
    for name in {"up.sql", "down.sql"} - frozen(sql, releases, release).keys():
        if not (directory / name).exists():
            raise GdprdbError(f"{directory / name} is missing", hint="Write it by hand.")
    changed = []
    for name, text in frozen(sql, releases, release).items():
        changed += _write(directory / name, text)
    sums = "".join(f"{_digest(path)}  {name}\n" for name, path in _frozen_files(releases))
    return changed + _write(releases / _SUMS, sums)


def broken_checksums(releases: Path) -> list[str]:
    """Frozen files that are missing, new or other than ``SHA256SUMS`` says, as ``release/file``."""
    sums = releases / _SUMS
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.exists() else []
    written = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    found = {name: _digest(path) for name, path in _frozen_files(releases)}
    return sorted(
        name for name in written.keys() | found.keys() if written.get(name) != found.get(name)
    )


def open_load(context: Any, release: str) -> None:
    """Make roles and schemas as far as they lack, and go on as the version table's owner.

    Args:
        context: the Alembic migration context, online or writing a script.
        release: the release whose opening it is.
    """
    _run_files(context, release, "open.sql")
    _as_owner(context)


def upgrade(context: Any, release: str) -> None:
    """Bring a database from the release before to the state of this one; `finish` follows.

    Args:
        context: the Alembic migration context, online or writing a script.
        release: the release to come to.
    """
    _run_files(context, release, "open.sql", "up.sql")
    _as_owner(context)


def downgrade(context: Any, release: str) -> None:
    """Take the state of a release back; `finish` follows.

    Args:
        context: the Alembic migration context, online or writing a script.
        release: the release to take back.
    """
    _run_files(context, release, "open.sql", "down.sql")
    _as_owner(context)


def finish(context: Any, release: str | None, newest: str) -> None:
    """After a step: replace all code by that of the release arrived at, and close the load.

    Args:
        context: the Alembic migration context, online or writing a script.
        release: the release the database is now at; None when nothing is installed any more.
        newest: the newest release, whose closing gives back what any opening took.
    """
    if release is None:
        _run_files(context, newest, "close.sql")
    else:
        _run_files(context, release, "code.sql", "close.sql")


def run(context: Any, sql: str) -> None:
    """Run SQL untouched, or write it to the script.

    The text goes to the server as it is: no binding of ``:name``, no ``%``.
    """
    if context.as_sql:
        context.impl.static_output(sql)
    else:
        context.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def _run_files(context: Any, release: str, *names: str) -> None:
    """Run frozen files as the login itself."""
    run(context, "reset role;\n")
    for name in names:
        run(context, resources.release_file(release, name))


def _as_owner(context: Any) -> None:
    """What Alembic does by itself touches the version table, which is gdpr_owner's."""
    run(context, "set local role gdpr_owner;\n")


def _kind(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    for kind in ("state", "code"):
        if first.startswith(f"-- [{kind}] "):
            return kind
    raise GdprdbError(
        f"{path} does not say what it is",
        hint="The first line of an SQL file is '-- [state] what' or '-- [code] what'.",
    )


def _join(sql: Path, paths: Iterable[Path]) -> str:
    texts = (
        f"-- {path.as_posix()}\n{(sql / path).read_text(encoding='utf-8').strip()}\n"
        for path in paths
    )
    return "\n".join(texts)


def _frozen_files(releases: Path) -> list[tuple[str, Path]]:
    return [
        (path.relative_to(releases).as_posix(), path) for path in sorted(releases.glob("*/*.sql"))
    ]


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _write(path: Path, text: str) -> list[Path]:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return []
    path.write_text(text, encoding="utf-8")
    return [path]


def main(arguments: list[str]) -> int:
    """The developers' command: ``freeze`` or ``check``."""
    sql, releases = resources.sql(), resources.migrations() / "releases"
    try:
        if arguments == ["freeze"]:
            for path in freeze(sql, releases):
                print(f"wrote {path}")
            return 0
        if arguments == ["check"]:
            wrong = broken_checksums(releases)
            for name, text in frozen(sql, releases).items():
                path = releases / __version__ / name
                if not path.exists() or path.read_text(encoding="utf-8") != text:
                    wrong.append(f"{__version__}/{name} is not what sql/ makes")
            for problem in wrong:
                print(problem, file=sys.stderr)
            return 1 if wrong else 0
    except GdprdbError as error:
        print(explain(error).message, *error.details, error.hint or "", sep="\n", file=sys.stderr)
        return 1
    print("usage: python -m gdprdb.release freeze|check", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
