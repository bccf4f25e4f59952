"""The pages say what is: sessions run again, tables are tried again, names exist."""

from __future__ import annotations

import difflib
import re
import shutil
from pathlib import Path

import pytest

from docs import build
from docs.tools import reference, roles, sessions
from gdprdb.binaries import find_binaries
from tests.support import Database

PAGES = build.pages()
README = build.ROOT / "README.md"


def read(path: Path) -> str:
    """The text of a page."""
    return path.read_text(encoding="utf-8")


def place(page: str, name: str) -> str:
    """What stands between the comments ``name`` and ``/name`` of a page."""
    found = re.search(rf"(?s)<!-- {name} -->\n(.*?)<!-- /{name} -->", page)
    assert found, f"no place called {name}"
    return found[1].strip()


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if sessions.has_sessions(read(path))],
    ids=lambda path: path.name,
)
def test_sessions_are_what_running_gives(path: Path) -> None:
    if not (find_binaries().has("psql") and shutil.which("bash")):
        pytest.skip("the sessions need psql and bash")
    page = read(path)
    lines = zip(
        sessions.steady(sessions.run_page(page)).splitlines(),
        sessions.steady(page).splitlines(),
        strict=False,
    )
    differing = [f"runs as: {now}\nis said: {said}" for now, said in lines if now != said]
    assert not differing, f"make docs\n{differing[0]}"


def test_the_table_of_roles_is_what_trying_gives() -> None:
    page = read(README)
    tried = roles.generate(sessions.files(page)["policy.toml"])
    assert tried.strip().splitlines() == place(page, "roles").splitlines()


def test_the_reference_is_what_the_database_and_the_commands_say() -> None:
    now = reference.generate().splitlines()
    said = read(build.ROOT / "docs" / "reference.md").splitlines()
    differing = list(difflib.unified_diff(said, now, "docs/reference.md", "now", n=0, lineterm=""))
    assert not differing, "make docs\n" + "\n".join(differing[:20])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", read(path)):
        assert not target or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_sections_that_are_linked_exist(path: Path) -> None:
    for target, section in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", read(path)):
        headings = re.findall(r"(?m)^#+ (.*)$", read(path.parent / target if target else path))
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert section in slugs


def test_objects_and_tests_of_the_gdpr_table_exist(db: Database) -> None:
    page = read(build.ROOT / "docs" / "gdpr.md")
    for test in set(re.findall(r"tests/[\w/]+\.py", page)):
        assert (build.ROOT / test).exists(), test
    known = {
        name
        for (name,) in db.rows(
            "select concat_ws('.', n.nspname, p.proname)"
            " from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace"
            " union select concat_ws('.', n.nspname, c.relname, a.attname)"
            " from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
            " cross join lateral (select attname from pg_attribute where attrelid = c.oid"
            "   union all select null) as a",
            user="postgres",
        )
    }
    assert set(re.findall(r"`(gdpr\w*\.[\w.]+)`", page)) <= known


def test_the_pages_name_no_function_that_is_not_there(db: Database) -> None:
    known = {
        name
        for (name,) in db.rows(
            "select concat('gdpr.', proname) from pg_proc where pronamespace = 'gdpr'::regnamespace"
            " union select concat('gdpr.', relname) from pg_class"
            " where relnamespace = 'gdpr'::regnamespace",
            user="postgres",
        )
    }
    settings = {
        "gdpr.actor",
        "gdpr.purpose",
        "gdpr.source",
        "gdpr.request",
        "gdpr.unlocked",
        "gdpr.md",
    }
    for path in PAGES:
        named = set(re.findall(r"(?<![\w/])gdpr\.[a-z_]+", read(path)))
        assert named - settings <= known, path.name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_session_stumbles(path: Path) -> None:
    """A refusal is what a session wants to show; these are accidents."""
    for accident in (
        "transaction is aborted",
        "does not exist",
        "syntax error",
        "Traceback",
        '"severity": "error"',
        "hold plaintext",
    ):
        for block in re.findall(r"(?ms)^```console\n(.*?)^```$", read(path)):
            assert accident not in block


def test_the_doctor_knows_what_the_limits_name() -> None:
    page = read(build.ROOT / "docs" / "limits.md")
    topics = {
        topic
        for line in page.splitlines()
        if "doctor: " in line
        for topic in re.findall(r"`(\w+)`", line.rpartition("doctor: ")[2])
    }
    text = "".join(read(path) for path in sorted((build.ROOT / "sql").rglob("*.sql")))
    assert topics
    assert {topic for topic in topics if f"'{topic}'" not in text} == set()
