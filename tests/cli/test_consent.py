"""Asking, answering and the texts, on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gdprdb import forms
from gdprdb.cli import main
from tests.support import Clone, Database, Outcome, Run

POLICY = """\
[purposes.orders]
basis = "contract"
[purposes.marketing]
basis = "consent"
respond_within = "14 days"
grace = false

[roles.crm_app]
audience = "clear"
purposes = ["orders", "marketing"]

[tables."public.customer"]
subject = "self"
match_on = ["email"]
purposes = ["orders", "marketing"]
[tables."public.customer".columns]
email = { category = "contact", identifier = "email", encrypt = "searchable" }
lang = { category = "other", language = true }
"""


def example(run: Run, language: str, directory: Path) -> str:
    """Write an example form; the path of its file."""
    path = directory / f"{language}.toml"
    path.write_text(run("form", "example", "--language", language).out, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def shop_with_forms(
    clone: Clone, installed_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Name of a database with three customers, and the example forms published."""

    def call(*arguments: str) -> Outcome:
        done = CliRunner().invoke(main, arguments, env={"GDPRDB_DSN": database.dsn()})
        assert done.exit_code == 0, done.stderr
        return Outcome(done.exit_code, done.stdout, done.stderr)

    with clone(installed_template) as database:
        database.rows("create table public.customer (id int primary key, email text, lang text)")
        database.rows("grant select, insert on public.customer to crm_app")
        database.rows("grant gdpr_portal to portal_app", user="postgres")
        directory = tmp_path_factory.mktemp("forms")
        policy = directory / "policy.toml"
        policy.write_text(POLICY)
        call("policy", "apply", str(policy), "--yes")
        database.rows(
            "insert into gdpr_clear.customer values (1, 'ada@example.org', 'de'),"
            " (2, 'bob@example.org', 'sv'), (3, null, 'ja')",
            user="crm_app",
        )
        call("form", "load", *(example(call, name, directory) for name in forms.languages()))
        call("form", "publish", "--name", "newsletter", "--default-language", "en", "--yes")
        yield database.name


@pytest.fixture
def db(clone: Clone, shop_with_forms: str) -> Iterator[Database]:
    """A copy of that database."""
    with clone(shop_with_forms) as database:
        yield database


@pytest.fixture
def shop(on_db: Run) -> Run:
    """The command line on that copy."""
    return on_db


def test_the_examples_are_in_force_as_written(shop: Run) -> None:
    assert forms.languages() == ["de", "en", "fr", "ja"]
    listed = shop("form", "list", "--format", "json").data
    assert {(row["language"], row["version"], row["is_current"]) for row in listed} == {
        (language, 1, True) for language in forms.languages()
    }
    shown = shop("form", "show", "--name", "newsletter", "--language", "ja", "--format", "json")
    assert shown.data[0]["statement"].startswith("私は、")
    default = shop("form", "show", "--name", "newsletter", "--format", "json").data
    assert default[0]["language"] == "en"


def test_a_file_that_is_no_form_is_refused(shop: Run, tmp_path: Path) -> None:
    for text, word in (
        ("name = ", "not TOML"),
        ('name = "x"', "language: missing"),
        (forms.example("en") + 'colour = "red"\n', "colour: unknown"),
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(text, encoding="utf-8")
        outcome = shop("form", "load", str(path))
        assert (outcome.code, outcome.out) == (1, "")
        assert word in outcome.err


def test_publishing_shows_the_texts_first(shop: Run, tmp_path: Path) -> None:
    path = Path(example(shop, "en", tmp_path))
    assert shop("form", "load", str(path)).code == 0
    dry = shop("form", "publish", "--name", "newsletter", "--default-language", "en", "--dry-run")
    assert dry.code == 0
    assert "May we write to you?" in dry.err
    listed = shop("form", "list", "--format", "json").data
    assert [row["version"] for row in listed if row["published_at"] is None] == [2]


def test_everybody_pending_is_asked_by_mail_once(shop: Run, db: Database) -> None:
    everybody = (
        "consent",
        "request",
        "--status",
        "pending",
        "--purpose",
        "marketing",
        "--channel",
        "email",
        "--form",
        "newsletter",
        "--format",
        "json",
    )
    dry = shop(*everybody, "--dry-run")
    assert (dry.code, dry.data) == (0, [])
    assert "3" in dry.err
    asked = shop(*everybody, "--yes")
    assert asked.code == 0, asked.err
    assert "Asked: 2 of 3." in asked.err
    assert {row["token"] for row in asked.data} == {None}
    languages = db.rows("select language from gdpr_internal.outbox order by 1", user="postgres")
    assert languages == [("de",), ("en",)]
    board = shop("consent", "board", "--format", "json").data
    assert {row["status"]: row["persons"] for row in board} == {"waiting": 2, "pending": 1}


def test_the_portals_way_and_a_receipt(shop: Run, db: Database) -> None:
    portal = ("--dsn", db.dsn("portal_app"))
    asked = shop(
        "consent",
        "request",
        "--purpose",
        "marketing",
        "--channel",
        "portal",
        "--form",
        "newsletter",
        "--respond-within",
        "2 days",
        "--format",
        "json",
        stdin="ada@example.org",
    )
    assert asked.code == 0, asked.err
    person, token = str(asked.data[0]["subject_id"]), asked.data[0]["token"]
    answered = shop(
        "consent",
        "answer",
        *portal,
        "--granted",
        "marketing",
        "--contact",
        "mail",
        "--format",
        "json",
        stdin=token,
    )
    assert answered.code == 0, answered.err
    assert answered.data == [{"purpose": "marketing", "status": "granted"}]
    again = shop("consent", "answer", *portal, stdin=token)
    assert (again.code, "PR303" in again.err, token in again.err) == (4, True, False)
    show = ("consent", "receipt", "--subject-id", person, "--purpose", "marketing", "--format")
    receipt = shop(*show, "json").data
    assert receipt["pii_processing"][0]["notice"]["form"] == "newsletter"
    line = json.loads(shop(*show, "jsonl").out)
    assert line == receipt | {"receipt_created": line["receipt_created"]}
    table = [line.split() for line in shop(*show, "table").out.splitlines()]
    assert ["status", "granted"] in table
    assert ["pii_processing[1].notice.form", "newsletter"] in table
    assert ["events[2].contact_channels", "mail"] in table
    assert "events[2].contact_channels" in shop(*show, "csv").out
    history = shop("consent", "history", "--subject-id", person, "--format", "json").data
    assert [row["event"] for row in history] == ["asked", "granted"]


def test_evidence_on_the_command_line(shop: Run) -> None:
    record = (
        "consent",
        "record",
        "--purpose",
        "marketing",
        "--granted",
        "--channel",
        "phone",
        "--contact",
        "phone",
    )
    refused = shop(*record, stdin="ada@example.org")
    assert (refused.code, "PR304" in refused.err) == (4, True)
    evidence = '{"who": "kw", "when": "today", "how": "call", "reference": "T-1"}'
    assert shop(*record, "--evidence", evidence, stdin="ada@example.org").code == 0
    listed = shop("consent", "list", "--format", "json", stdin="ada@example.org").data
    assert [(row["status"], row["contact"]) for row in listed] == [("granted", ["phone"])]


def test_a_form_that_came_back_is_recorded_by_its_number(shop: Run, db: Database) -> None:
    asked = shop(
        "consent",
        "request",
        "--purpose",
        "marketing",
        "--channel",
        "email",
        "--form",
        "newsletter",
        "--attach-form",
        "--format",
        "json",
        stdin="ada@example.org",
    )
    assert asked.code == 0, asked.err
    assert asked.data[0]["token"] is None
    assert db.rows("select count(*) from gdpr_internal.token", user="postgres") == [(0,)]
    number = str(asked.data[0]["request_id"])
    record = (
        "consent",
        "record",
        "--request-id",
        number,
        "--purpose",
        "marketing",
        "--granted",
        "--channel",
        "paper",
        "--evidence",
        json.dumps({"who": "kw", "when": "today", "how": "letter", "reference": number}),
    )
    assert shop(*record).code == 0
    listed = shop("consent", "list", "--format", "json", stdin="ada@example.org").data
    assert [(row["status"], row["channel"]) for row in listed] == [("granted", "paper")]
    again = shop(*record)
    assert again.code == 1
    assert f"question {number} is not open" in again.err


@pytest.mark.parametrize(
    "command",
    [
        ("record", "--purpose", "marketing", "--granted", "--channel", "api"),
        ("withdraw", "--purpose", "marketing", "--channel", "api"),
        (
            "request",
            "--purpose",
            "marketing",
            "--channel",
            "portal",
            "--format",
            "json",
        ),
    ],
)
def test_a_dry_run_leaves_consent_as_it_was(shop: Run, command: tuple[str, ...]) -> None:
    """It is tried with everything that can be refused, and taken back."""
    before = shop("consent", "board", "--format", "json").data
    dry = shop("consent", *command, "--dry-run", stdin="ada@example.org")
    assert dry.code == 0, dry.err
    assert dry.err.splitlines()[-1] == "Nothing was changed (--dry-run)."
    assert "Recorded" not in dry.err
    assert shop("consent", "board", "--format", "json").data == before


def test_a_dry_run_is_refused_what_the_deed_would_be(shop: Run) -> None:
    dry = shop(
        "consent",
        "record",
        "--purpose",
        "marketing",
        "--granted",
        "--channel",
        "paper",
        "--dry-run",
        stdin="ada@example.org",
    )
    assert (dry.code, "PR304" in dry.err) == (4, True)


def test_a_dry_answer_leaves_the_token_alive(shop: Run, db: Database) -> None:
    asked = shop(
        "consent",
        "request",
        "--purpose",
        "marketing",
        "--channel",
        "portal",
        "--format",
        "json",
        stdin="ada@example.org",
    )
    portal = ("--dsn", db.dsn("portal_app"))
    answer = ("consent", "answer", *portal, "--granted", "marketing", "--format", "json")
    token = asked.data[0]["token"]
    expected = [{"purpose": "marketing", "status": "granted"}]
    dry = shop(*answer, "--dry-run", stdin=token)
    assert (dry.data, "Nothing was changed" in dry.err) == (expected, True)
    assert shop(*answer, stdin=token).data == expected
    assert shop(*answer, stdin=token).code == 4


def test_forms_are_checked_by_a_dry_run_and_not_kept(shop: Run, tmp_path: Path) -> None:
    before = shop("form", "list", "--format", "json").data
    dry = shop("form", "load", example(shop, "de", tmp_path), "--dry-run", "--format", "json")
    assert dry.data == [{"name": "newsletter", "version": 2, "language": "de"}]
    assert "Recorded" not in dry.err
    assert shop("form", "list", "--format", "json").data == before
