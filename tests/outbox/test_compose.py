"""Mails as they are written: languages, two parts, nothing that could become another header."""

from __future__ import annotations

import datetime
import re
from email.headerregistry import Address
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gdprdb.errors import GdprdbError
from gdprdb.outbox.compose import (
    BUILT_IN,
    AddressError,
    Composer,
    Mail,
    TemplateError,
    check_link,
    fallbacks,
    parse_address,
)

SENDER = Address("Example & Co", "privacy", "example.org")
LINK = "https://www.example.org/{page}?token={token}"
REF = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
CONTENT = {
    "to": "anna@example.com",
    "token": "t0-ken_",
    "confirm_by": "2031-03-31T12:00:00+02:00",
    "respond_by": "2031-03-31T12:00:00+02:00",
    "purposes": ["News about apples & pears", "<script>alert(1)</script>"],
    "statement": "First line.\nSecond <b>line</b>.",
}
NAMES = ("registration", "consent_request", "consent_reminder")
LANGUAGES = ("en", "de", "fr", "ja")
DATES = {
    "en": "31 March 2031, 12:00 (UTC+02:00)",
    "de": "31. März 2031, 12:00 Uhr (UTC+02:00)",
    "fr": "31 mars 2031 à 12:00 (UTC+02:00)",
    "ja": "2031年3月31日 12:00 (UTC+02:00)",
}


def mail(template: str = "registration", language: str | None = "en", **content: Any) -> Mail:
    """A mail with the usual content and some changes."""
    at = datetime.datetime(2031, 3, 29, tzinfo=datetime.UTC)
    return Mail(template, language, {**CONTENT, **content}, REF, at)


def parts(composer: Composer, which: Mail) -> tuple[str, str]:
    """The text and the HTML of a mail."""
    message = composer.compose(which)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    one, other = (str(part.get_content()).replace("\r\n", "\n") for part in (text, html))
    return one, other


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_each_template_is_there_in_each_language(name: str, language: str) -> None:
    composer = Composer(SENDER, LINK)
    message = composer.compose(mail(name, language))
    text, html = parts(composer, mail(name, language))
    page = name.partition("_")[0]
    assert message["Content-Language"] == language
    assert "Example & Co" in message["Subject"]
    assert f"https://www.example.org/{page}?token=t0-ken_" in text
    assert f'href="https://www.example.org/{page}?token=t0-ken_"' in html
    assert DATES[language] in text
    if page == "consent":
        assert "- News about apples & pears\n" in text
        assert "<li>News about apples &amp; pears</li>" in html
        assert "<script>" not in html
        assert "<b>" not in html
    else:
        assert "https://www.example.org/opt_out?token=t0-ken_" in text


def test_the_templates_of_a_language_are_complete() -> None:
    found = {path.name for path in BUILT_IN.glob("*.jinja")}
    assert found == {f"{name}.{language}.jinja" for name in NAMES for language in LANGUAGES}


def test_no_two_languages_say_the_same() -> None:
    subjects = {
        Composer(SENDER, LINK).compose(mail(n, lang))["Subject"]
        for n in NAMES
        for lang in LANGUAGES
    }
    assert len(subjects) == len(NAMES) * len(LANGUAGES)


def test_the_language_falls_back() -> None:
    assert list(fallbacks("pt-BR", "de")) == ["pt-BR", "pt", "de", "en"]
    assert list(fallbacks("DE-at", "de")) == ["de-at", "de", "en"]
    assert list(fallbacks(None, "en")) == ["en"]
    assert Composer(SENDER, LINK).compose(mail(language="de-CH"))["Content-Language"] == "de"
    assert Composer(SENDER, LINK).compose(mail(language="eo"))["Content-Language"] == "en"
    german = Composer(SENDER, LINK, language="de")
    assert german.compose(mail(language="eo"))["Content-Language"] == "de"


def test_a_company_replaces_one_mail_and_keeps_the_others(tmp_path: Path) -> None:
    (tmp_path / "registration.de.jinja").write_text(
        "{% extends layout %}{% block subject %}Hallo{% endblock %}"
        "{% block reason %}Eigener Text für <{{ sender }}>{% endblock %}"
    )
    composer = Composer(SENDER, LINK, tmp_path)
    assert composer.compose(mail(language="de"))["Subject"] == "Hallo"
    text, html = parts(composer, mail(language="de"))
    assert "Eigener Text für <Example & Co>" in text
    assert "Eigener Text für <Example &amp; Co>" in html
    assert "confirm" in composer.compose(mail(language="en"))["Subject"]


def test_a_company_replaces_the_layout_alone(tmp_path: Path) -> None:
    (tmp_path / "layout.html").write_text("<h1>Ours</h1>{% block reason %}{% endblock %}")
    _, html = parts(Composer(SENDER, LINK, tmp_path), mail())
    assert html.startswith("<h1>Ours</h1>")


def test_a_message_is_known_again() -> None:
    message = Composer(SENDER, LINK).compose(mail())
    again = Composer(SENDER, LINK).compose(mail())
    assert message["Message-ID"] == again["Message-ID"] == f"<{REF}@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"


def test_values_never_become_headers(tmp_path: Path) -> None:
    (tmp_path / "registration.en.jinja").write_text(
        "{% extends layout %}{% block subject %}Hi {{ name }}{% endblock %}"
    )
    composer = Composer(SENDER, LINK, tmp_path)
    message = composer.compose(mail(name="A\r\nBcc: all@example.com\n\nBody\u2028x\x00"))
    assert message["Subject"] == "Hi A Bcc: all@example.com Body x"
    assert message["Bcc"] is None
    raw = message.as_bytes().split(b"\r\n\r\n")[0]
    assert not re.search(rb"(?im)^bcc", raw)


def test_a_huge_subject_is_cut(tmp_path: Path) -> None:
    (tmp_path / "registration.en.jinja").write_text(
        "{% extends layout %}{% block subject %}{{ name }}{% endblock %}"
    )
    message = Composer(SENDER, LINK, tmp_path).compose(mail(name="ä" * 90_000))
    assert message["Subject"] == "ä" * 200
    assert all(len(line) <= 998 for line in message.as_bytes().split(b"\r\n"))


@pytest.mark.parametrize(
    "address",
    [
        "anna@example.com\nBcc: all@example.com", "anna@example.com, all@example.com",
        "<anna@example.com>", "Anna <anna@example.com>", "anna", "@example.com", "anna@",
        "anna@exam ple.com", "anna@example..com", "a@b@example.com", "anna\x00@example.com",
        "an\u202ena@example.com", '"a b"@example.com', f"{'a' * 250}@example.com",
        "anna@[127.0.0.1]", "anna@" + "x" * 64 + ".com", "",
    ],
)  # fmt: skip
def test_what_is_no_address_of_one_person_is_refused(address: str) -> None:
    with pytest.raises(AddressError) as error:
        parse_address(address)
    assert address == "" or address not in str(error.value)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("anna+tag@example.com", "anna+tag@example.com"),
        ("anna@Bücher.example", "anna@xn--bcher-kva.example"),
        ("jörg@bücher.example", "jörg@xn--bcher-kva.example"),
        ("  o'neill@example.com ", "o'neill@example.com"),
        ("用户@例え.テスト", "用户@xn--r8jz45g.xn--zckzah"),
    ],
)
def test_addresses_in_every_script(written: str, sent: str) -> None:
    assert parse_address(written).addr_spec == sent


def test_a_template_that_asks_for_too_much_says_what(tmp_path: Path) -> None:
    (tmp_path / "registration.en.jinja").write_text(
        "{% extends layout %}{% block subject %}{{ nonsense }}{% endblock %}"
    )
    with pytest.raises(TemplateError, match="'nonsense' is undefined"):
        Composer(SENDER, LINK, tmp_path).compose(mail())
    with pytest.raises(TemplateError, match="unheard_of"):
        Composer(SENDER, LINK).compose(mail("unheard_of"))
    (tmp_path / "registration.en.jinja").write_text("{% extends layout %}")
    with pytest.raises(TemplateError, match="no block subject"):
        Composer(SENDER, LINK, tmp_path).compose(mail())
    with pytest.raises(TemplateError, match="'link' is undefined"):
        Composer(SENDER).compose(mail())


def test_the_token_stays_inside_its_place_in_the_link() -> None:
    text, _ = parts(Composer(SENDER, LINK), mail(token="a&b=c#d e"))
    assert "token=a%26b%3Dc%23d%20e" in text


@pytest.mark.parametrize("link", ["https://example.org/", "javascript:{token}", "x {token}"])
def test_a_link_without_a_place_for_the_token(link: str) -> None:
    with pytest.raises(GdprdbError):
        check_link(link)


def test_a_deadline_that_is_a_day_has_no_time() -> None:
    text, _ = parts(Composer(SENDER, LINK), mail("consent_request", "de", respond_by="2031-04-01"))
    assert "bis 1. April 2031;" in text


@pytest.mark.parametrize(
    ("template", "content"),
    [
        (
            "{% block subject %}{{ confirm_by | moment }}{% endblock %}",
            {"confirm_by": "12031-03-31"},
        ),
        ("{% block subject %}{{ purposes + 1 }}{% endblock %}", {}),
        ("{% block subject %}{{ 1 / 0 }}{% endblock %}", {}),
    ],
)
def test_whatever_a_template_stumbles_over_is_told_without_values(
    tmp_path: Path, template: str, content: dict[str, Any]
) -> None:
    (tmp_path / "registration.en.jinja").write_text(template)
    with pytest.raises(TemplateError) as refusal:
        Composer(SENDER, LINK, tmp_path).compose(mail(**content))
    assert "template registration" in str(refusal.value)
    assert not any(value in str(refusal.value) for value in ("12031", "apples", "t0-ken_"))
