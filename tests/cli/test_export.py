"""gdprdb subject export: what is handed out, in which shape, and that nothing of it stays."""

from __future__ import annotations

import csv
import io
import json
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import pyzipper
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gdprdb.access.document import Number, Report, Stream, parsed
from gdprdb.access.letter import languages, letter, words
from gdprdb.access.sheets import csv as csv_of
from gdprdb.access.sheets import field, guarded, unguarded
from gdprdb.cli import main
from tests.capabilities.access import valid
from tests.capabilities.crm import apply, policy, subject
from tests.support import Clone, Database

#: A name that is a formula, a tag, a template and a CSV field at once.
NASTY = '=cmd|"/c calc"!A1,<script>alert(1)</script>{{ 7*7 }}</td><img src=//evil.example>'


@pytest.fixture(scope="module")
def shop(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The customer database for all tests here; they only read."""
    with clone(crm_template) as database:
        apply(database, policy(settings__controller={"name": "Example <b>Ltd</b>"}))
        database.rows(
            "insert into gdpr_clear.customer (email, last_name, city, phone)"
            " values ('nasty@example.com', %s, '', null)",
            [NASTY],
            user="crm_app",
        )
        database.rows("comment on column crm.customer.last_name is 'Surname <i>'")
        yield database


def export(database: Database, *arguments: str, key: int = 1, expect: int = 0) -> tuple[bytes, str]:
    """What the command writes for a customer, and says."""
    person = subject(database, "crm.customer", key)
    result = CliRunner().invoke(
        main,
        [
            "subject",
            "export",
            f"--dsn={database.dsn('dpo_login')}",
            f"--subject-id={person}",
            *arguments,
        ],
        prog_name="gdprdb",
    )
    assert result.exit_code == expect, result.stderr
    return result.stdout_bytes, result.stderr


class Page(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


def test_json_is_the_report(shop: Database) -> None:
    out, _ = export(shop)
    document = valid(json.loads(out))
    ((whole,),) = shop.rows(
        "select gdpr.access_report(%s)", [document["subject"]["subject_id"]], user="dpo_login"
    )
    for key in ("tables", "purposes", "sources", "categories", "controller"):
        assert document[key] == whole[key]
    assert b'"total": 10.00' in out, "the digits of the database"


def test_portable_json_is_the_copy(shop: Database) -> None:
    document = valid(json.loads(export(shop, "--portable")[0]))
    assert document["document"] == "portable_copy"
    assert {found["table"] for found in document["tables"]} == {
        "crm.customer",
        'crm."order"',
        "crm.order_line",
    }


def test_csv_has_exact_values_and_no_formulas(shop: Database) -> None:
    out, _ = export(shop, "--as", "csv", "--table", 'crm."order"')
    assert out.decode() == (
        "id,customer_id,total,note\r\n1,1,10.00,gift for Ada\r\n2,1,20.00,call first\r\n"
    )
    out, _ = export(shop, "--as", "csv", key=4)
    (row,) = csv.DictReader(io.StringIO(out.decode(), newline=""))
    assert row["last_name"] == "'" + NASTY
    assert unguarded(row["last_name"]) == NASTY
    # NULL and the empty text differ
    header, line = out.decode().splitlines()[:2]
    fields = dict(zip(header.split(","), next(_raw_fields(line)), strict=True))
    assert (fields["phone"], fields["city"]) == ("", '""')


def _raw_fields(line: str) -> Iterator[list[str]]:
    """The fields of a line with their quotes."""
    found, inside, current = [], False, ""
    for letter_ in line:
        inside ^= letter_ == '"'
        if letter_ == "," and not inside:
            found.append(current)
            current = ""
        else:
            current += letter_
    yield [*found, current]


def test_one_of_several_tables_has_to_be_named(shop: Database) -> None:
    _, words_ = export(shop, "--as", "csv", expect=1)
    assert "crm.customer" in words_
    _, words_ = export(shop, "--as", "csv", "--table", "crm.nothing", expect=1)
    assert "there is no such table" in words_
    _, words_ = export(shop, "--as", "csv", "--table", "pg_catalog.pg_class", expect=1)
    assert "no rows of the person in this table" in words_


def test_a_name_stays_text_in_the_letter(shop: Database) -> None:
    page = Page(export(shop, "--as", "html", key=4)[0].decode())
    assert NASTY in page.text
    assert page.tags.isdisjoint({"script", "img", "b", "i", "link", "iframe", "object"})
    assert page.attributes <= {
        "lang", "charset", "name", "content", "http-equiv", "class", "scope",
    }  # fmt: skip
    assert "Example <b>Ltd</b>" in page.text
    assert "Surname <i>" in page.text


def test_letters_speak_the_person_s_language(shop: Database) -> None:
    shop.rows("update gdpr_clear.customer set phone = '+49 2' where id = 2", user="crm_app")
    expected = {
        "en": "phone in crm.customer was changed by crm_app for orders.",
        "de-AT": "phone in crm.customer wurde geändert durch crm_app für orders.",
        "fr": "Modification de phone dans crm.customer par crm_app pour orders.",
        "ja": "crm.customer の phone が変更されました",
        "pt": "phone in crm.customer was changed by crm_app for orders.",
    }
    for language, sentence in expected.items():
        text = Page(export(shop, "--as", "html", "--language", language, key=2)[0].decode()).text
        assert sentence in text
        assert "+49 711 1002" in text, "what it was before"


def test_every_language_has_the_same_words() -> None:
    def paths(place: dict[str, Any], path: str = "") -> set[str]:
        return {
            deeper
            for key, value in place.items()
            for deeper in (
                paths(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}"}
            )
        }

    assert set(languages()) == {"de", "en", "fr", "ja"}
    for language in languages():
        assert paths(words(language)) == paths(words("en"))


def test_every_event_of_a_person_has_words(shop: Database) -> None:
    """What the audit log can say of a person, the letter says in words."""
    ((operations,),) = shop.rows(
        "select array_agg(distinct m[1]) from pg_proc as p,"
        " regexp_matches(p.prosrc, 'audit_events?\\(\\s*''([A-Z_]+)'',(?! *null)', 'g') as m"
        " where p.pronamespace in ('gdpr'::regnamespace, 'gdpr_internal'::regnamespace)",
        user="postgres",
    )
    nobody = {"POLICY", "KEY", "FORM", "ASSESSMENT", "BLOCK", "UNBLOCK", "MAINTENANCE", "UNPROTECT"}
    assert set(operations) - nobody - {"RECIPIENT"} <= set(words("en")["history"])


def test_a_zip_holds_letter_document_and_tables(shop: Database) -> None:
    with zipfile.ZipFile(io.BytesIO(export(shop, "--as", "zip")[0])) as archive:
        assert set(archive.namelist()) == {
            "letter.html",
            "report.json",
            "tables/crm.customer.csv",
            "tables/crm.order.csv",
            "tables/crm.order_line.csv",
            "tables/crm.lead.csv",
        }
        assert archive.testzip() is None
        valid(json.loads(archive.read("report.json")))
        assert b"gift for Ada" in archive.read("tables/crm.order.csv")


def test_an_encrypted_zip_opens_with_the_passphrase_alone(shop: Database) -> None:
    out, said = export(shop, "--as", "zip", "--encrypt")
    passphrase = said.split("Passphrase: ")[1].split()[0]
    assert len(passphrase) == 29
    assert b"anna@example.com" not in out
    with pyzipper.AESZipFile(io.BytesIO(out)) as archive:
        assert {entry.wz_aes_strength for entry in archive.infolist()} == {3}
        archive.setpassword(b"wrong")
        with pytest.raises(RuntimeError, match="password"):
            archive.read("report.json")
        archive.setpassword(passphrase.encode())
        valid(json.loads(archive.read("report.json")))
    assert passphrase not in export(shop, "--as", "zip", "--encrypt")[1]


def test_a_file_is_new_and_its_owner_s_alone(shop: Database, tmp_path: Path) -> None:
    target = tmp_path / "answer.zip"
    out, _ = export(shop, "--as", "zip", "--output", str(target))
    assert out == b""
    assert target.stat().st_mode & 0o777 == 0o600
    before = target.read_bytes()
    export(shop, "--as", "zip", "--output", str(target), expect=1)
    assert target.read_bytes() == before
    broken = tmp_path / "broken.csv"
    export(shop, "--as", "csv", "--output", str(broken), expect=1)
    assert not broken.exists()


#: Files that were opened for writing while the watch is on.
_OPENED: list[str] = []
_WATCH = [False]


def _watch(event: str, arguments: tuple[Any, ...], watch: list[bool] = _WATCH) -> None:
    # it cannot be taken off, and is asked until the interpreter has ended
    if watch[0] and event == "open" and arguments[1] is not None:
        path, mode, _ = arguments
        if set(str(mode)) & set("wax+"):
            _OPENED.append(str(path))


sys.addaudithook(_watch)


@pytest.mark.parametrize("form", ["json", "html", "zip"])
def test_no_copy_is_left_on_a_disk(shop: Database, form: str) -> None:
    """Neither by the program (it opens no file to write) nor by the server (no temporary file,
    no large object)."""
    kept = "select sum(temp_files), (select count(*) from pg_largeobject_metadata)"
    question = f"{kept} from pg_stat_database where datname = current_database()"
    before = shop.rows(question, user="postgres")
    _OPENED.clear()
    _WATCH[0] = True
    try:
        out, _ = export(shop, "--as", form)
    finally:
        _WATCH[0] = False
    assert len(out) > 1000
    assert _OPENED == []
    assert shop.rows(question, user="postgres") == before


def test_a_person_with_many_rows_is_never_held_whole(shop: Database) -> None:
    """What is kept of a row while others are written is its place: some 20 bytes."""
    peaks = []
    for rows in (1_000, 3_000):
        shop.rows(
            'insert into crm."order" (customer_id, total)'
            " select 3, n from generate_series(1, %s::integer) as n",
            [rows],
            user="crm_app",
        )
        person = subject(shop, "crm.customer", 3)
        with shop.connect("dpo_login", autocommit=False) as connection:
            tracemalloc.start()
            report = Stream(connection, person)
            count = sum(1 for _ in csv_of(report, report.facts["tables"][1]))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert count == 4_002
    assert peaks[1] - peaks[0] < 3_000 * 50


def test_a_mail_or_a_link_is_ordered(shop: Database) -> None:
    out, said = export(shop, "--mail")
    passphrase = out.decode().strip()
    assert passphrase not in said
    assert shop.rows("select template, state from gdpr.outbox", user="dpo_login") == [
        ("rights_report", "waiting")
    ]
    ((stored,),) = shop.rows("select o::text from gdpr_internal.outbox as o", user="postgres")
    assert passphrase not in stored
    token = export(shop, "--link", "--portable")[0].decode().strip()
    shop.rows("grant gdpr_portal to portal_app", user="postgres")
    ((found,),) = shop.rows("select gdpr.portal_download(%s)", [token], user="portal_app")
    assert valid(found)["document"] == "portable_copy"
    export(shop, "--link", "--mail", expect=2)
    export(shop, "--encrypt", expect=2)


@given(st.text())
def test_a_guard_is_taken_off_without_loss(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert guarded(text)[:1] not in {"=", "+", "-", "@", "\t", "\r", "\n"}


@given(st.one_of(st.none(), st.text(), st.integers().map(lambda n: Number(str(n)))))
def test_a_field_gives_its_value_back(value: Any) -> None:
    (row,) = csv.reader(io.StringIO(f"{field(value)},x\r\n", newline=""), strict=True)
    read = unguarded(row[0]) if isinstance(value, str) and not isinstance(value, Number) else row[0]
    assert read == ("" if value is None else value)
    assert (field(value) == "") == (value is None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
def test_a_letter_shows_any_value_as_text(value: Any) -> None:
    table = {
        "table": "t",
        "columns": [{"name": "items", "type": "text"}],
        "left_out": [],
        "row_count": 1,
        "rows": [{"items": value}],
    }
    document = {
        "document": "portable_copy",
        "created_at": "2026-05-04T10:00:00.000000Z",
        "controller": {},
        "tables": [table],
    }
    page = Page("".join(letter(Report(json.dumps(document)))))
    shown = parsed(json.dumps(value))
    assert page.tags.isdisjoint({"script", "img"})
    if isinstance(shown, str):
        assert shown in page.text
