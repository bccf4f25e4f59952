"""The plugin for users: runs of pytest as they have them, the page's and the example's."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from docs.tools import sessions
from tests.integrations.sites import url
from tests.support import Database

ROOT = Path(__file__).parents[2]
CLUB = ROOT / "examples" / "club"
PAGES = ROOT / "docs"

#: Tests of what has to fail, beside those of the page.
FAILING = """
import psycopg
import pytest
from datetime import datetime, timedelta
from test_shop import consent, dora


def fails(match):
    return pytest.raises(pytest.fail.Exception, match=match)


def test_a_row_that_is_not_there_is_not_hidden(dora, assert_hidden, assert_visible):
    with fails("would mean nothing"):
        assert_hidden("shop_app", "customer", id=dora + 1)
    with fails("0 of 0 rows"):
        assert_visible("shop_app", "customer", id=dora + 1)


def test_what_is_seen_is_not_hidden(dora, assert_hidden, assert_visible):
    for role in ("shop_app", "analyst"):
        with fails("sees 1 of 1 rows"):
            assert_hidden(role, "public.customer", id=dora)
    with fails("sees 0 of 1 rows"):
        assert_visible("shop_app", "customer", purpose="newsletter", id=dora)


def test_a_refusal_is_this_one_or_none(dora, as_role, assert_refused):
    shop = as_role("shop_app")
    with fails("nothing was refused"), assert_refused("42501"):
        shop.execute("select 1")
    with fails("refused with 42P01"), assert_refused("42501"):
        shop.execute("select * from nowhere")
    with fails("purpose_not_held"), assert_refused("42501", name="no_purpose"):
        shop.execute("set gdpr.purpose = 'marketing'; select * from gdpr_clear.customer")
    with pytest.raises(ZeroDivisionError), assert_refused("42501"):
        1 / 0
    with assert_refused("42P01") as refusal:
        shop.execute("select * from nowhere")
    assert isinstance(refusal.error, psycopg.errors.UndefinedTable)


def test_the_clock_goes_on_from_another_time_and_comes_back(as_role, at_time):
    shop = as_role("shop_app")

    def year():
        return shop.execute("select extract(year from clock_timestamp())::int").fetchone()[0]

    now = year()
    with at_time(datetime(2040, 5, 6)):
        assert year() == 2040
        with at_time(timedelta(days=-3660)):
            assert year() in (now - 10, now - 11)
        assert year() == 2040
    assert year() == now


def test_each_test_has_a_database_of_its_own(gdpr_db):
    assert gdpr_db.connect().execute("select count(*) from gdpr.protected_table").fetchone() == (1,)
    assert gdpr_db.connect("gdpr_dpo").execute("select * from gdpr_clear.customer").fetchall() == []
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.Popen[str]]:
    """The runs, side by side: each has a server of its own."""
    page = tmp_path_factory.mktemp("shop")
    for name, text in sessions.files((PAGES / "testing.md").read_text(encoding="utf-8")).items():
        (page / name).write_text(text, encoding="utf-8")
    (page / "test_failing.py").write_text(FAILING, encoding="utf-8")
    club = tmp_path_factory.mktemp("example") / "club"
    shutil.copytree(CLUB, club, ignore=shutil.ignore_patterns("__pycache__"))
    (club / "pytest.ini").write_text("[pytest]\n")
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    return {
        directory.name.rstrip("0"): subprocess.Popen(
            run, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for directory in (page, club)
    }


@pytest.mark.parametrize(("name", "passed"), [("shop", 8), ("club", 4)])
def test_a_run_of_pytest(runs: dict[str, subprocess.Popen[str]], name: str, passed: int) -> None:
    said, _ = runs[name].communicate(timeout=120)
    assert re.search(rf"^{passed} passed in", said, re.MULTILINE), said


def test_the_example_is_migrated_and_runs(
    db: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for role in ("club_app", "club_board"):
        db.rows(f"create role {role} login", user="postgres")
    monkeypatch.syspath_prepend(CLUB)
    config = Config(CLUB / "alembic.ini")
    config.attributes["url"] = url(db, "db_owner")
    command.upgrade(config, "head")
    command.check(config)
    importlib.import_module("club").main(url(db, "club_app").render_as_string())
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "Anna Ahrens ['Swimming', 'Judo']",
        "readers: []",
    ]
    command.downgrade(config, "base")
    assert db.rows("select to_regclass('member')") == [(None,)]
    assert db.rows("select count(*) from gdpr.protected_table") == [(0,)]


@pytest.mark.parametrize("page", ["sqlalchemy.md", "alembic.md"])
def test_what_the_pages_show_is_what_the_example_runs(page: str) -> None:
    text = (PAGES / page).read_text(encoding="utf-8")
    shown = re.findall(r"(?ms)^```python ([\w/.]+)\n(.*?)^```$", text)
    assert shown
    for name, block in shown:
        for part in block.split("...\n"):
            assert part.strip("\n") in (CLUB / name).read_text(encoding="utf-8"), name
