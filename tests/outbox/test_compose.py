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
CONTENT: dict[str, Any] = {
    "to": "anna@example.com",
    "token": "t0-ken_",
    "confirm_by": "2031-03-31T12:00:00+02:00",
    "respond_by": "2031-03-31T12:00:00+02:00",
    "sign_in_by": "2031-03-31T12:00:00+02:00",
    "purposes": ["News about apples & pears", "<script>alert(1)</script>"],
    "statement": "First line.\nSecond <b>line</b>.",
}
NAMES = ("registration", "consent_request", "consent_reminder", "rights_sign_in")
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
    elif page == "registration":
        assert "https://www.example.org/opt_out?token=t0-ken_" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mail_without_a_token_has_no_link(language: str) -> None:
    text, html = parts(Composer(SENDER, LINK), mail("rights_lifting", language, token=None))
    assert "https://www.example.org" not in text + html
    assert "privacy@example.org" in text


def test_the_templates_of_a_language_are_complete() -> None:
    found = {path.name for path in BUILT_IN.glob("*.jinja")}
    names = (
        *NAMES,
        *("consent_form", "notice", "rights_breach", "rights_copy", "rights_lifting"),
        "rights_report",
    )
    assert found == {f"{name}.{language}.jinja" for name in names for language in LANGUAGES}


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
        "anna@example.com\nBcc: all@example.com",
        "anna@example.com, all@example.com",
        "<anna@example.com>",
        "Anna <anna@example.com>",
        "anna",
        "@example.com",
        "anna@",
        "anna@exam ple.com",
        "anna@example..com",
        "a@b@example.com",
        "anna\x00@example.com",
        "an\u202ena@example.com",
        '"a b"@example.com',
        f"{'a' * 250}@example.com",
        "anna@[127.0.0.1]",
        "anna@" + "x" * 64 + ".com",
        "",
    ],
)
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


#: What asking by a published form puts into a mail.
FORM: dict[str, Any] = {
    "title": "May we <write>?",
    "privacy_notice": "https://shop.example/privacy",
    "channels": ["mail", "post"],
    "reference": "17",
    "attach_form": False,
    "controller": {"name": "Shop & Co Ltd", "address": "1 High Street, Ulm", "country": "DE"},
}


@pytest.mark.parametrize(
    ("language", "channels"),
    [
        ("en", "e-mail, post"),
        ("de", "E-Mail, Post"),
        ("fr", "e-mail, courrier"),
        ("ja", "メール、郵便"),
    ],
)
@pytest.mark.parametrize("name", ["consent_request", "consent_reminder"])
def test_a_mail_that_asks_shows_the_whole_question(name: str, language: str, channels: str) -> None:
    text, html = parts(Composer(SENDER, LINK), mail(name, language, **FORM))
    for part in (text, html):
        assert "https://shop.example/privacy" in part
        assert channels in part
    assert "May we <write>?" in text
    assert "May we &lt;write&gt;?" in html


@pytest.mark.parametrize("name", ["consent_request", "consent_reminder"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_attached_form_can_be_answered_and_opens_nothing(name: str, language: str) -> None:
    """Everything that a person has to know is in it; no link, no token."""
    content = {**FORM, "attach_form": True, "token": None}
    message = Composer(SENDER, LINK).compose(mail(name, language, **content))
    (attachment,) = message.iter_attachments()
    form = str(attachment.get_content())
    assert attachment.get_filename() == "consent-17.html"
    assert attachment.get_content_type() == "text/html"
    for words in (
        "May we &lt;write&gt;?",
        "First line.\nSecond &lt;b&gt;line&lt;/b&gt;.",
        "<b>17</b>",
        "News about apples &amp; pears",
        "&lt;script&gt;",
        "https://shop.example/privacy",
        "Shop &amp; Co Ltd",
        "1 High Street, Ulm",
        "privacy@example.org",
        DATES[language],
    ):
        assert words in form
    assert form.count("☐") == 2 * len(CONTENT["purposes"]) + len(FORM["channels"])
    assert "token" not in message.as_string()
    for kind in ("plain", "html"):
        body = message.get_body((kind,))
        assert body is not None
        assert "consent-17.html" in str(body.get_content())
        assert "privacy@example.org" in str(body.get_content())
        assert "example.org/consent" not in str(body.get_content())


def test_a_form_of_a_company_without_controller_in_the_policy_comes_from_the_sender() -> None:
    content = {**FORM, "attach_form": True, "token": None, "controller": None}
    (attachment,) = (
        Composer(SENDER, LINK).compose(mail("consent_request", **content)).iter_attachments()
    )
    assert "<br>\nExample &amp; Co<br>\nprivacy@example.org<br>" in str(attachment.get_content())


@pytest.mark.parametrize(
    ("name", "page"), [("registration", "opt_out"), ("consent_reminder", "withdraw")]
)
def test_one_click_says_no(name: str, page: str) -> None:
    """RFC 8058; the address stands on one line, however long it is."""
    token = "x" * 43
    link = f"https://www.example.org/{'long/' * 30}{{page}}?token={{token}}"
    message = Composer(SENDER, link).compose(mail(name, token=token))
    address = link.replace("{page}", page).replace("{token}", token)
    assert message["List-Unsubscribe"] == f"<{address}>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert f"<{address}>\r\n".encode() in message.as_bytes()


@pytest.mark.parametrize(
    ("link", "content"),
    [
        ("https://www.example.org/?token={token}", {}),
        (LINK, {"token": None, **FORM, "attach_form": True}),
    ],
)
def test_one_click_is_not_offered_where_it_could_be_a_yes(
    link: str, content: dict[str, Any]
) -> None:
    message = Composer(SENDER, link).compose(mail("consent_request", **content))
    assert not [name for name in message if name.startswith("List-")]


def test_one_click_needs_https() -> None:
    message = Composer(SENDER, LINK.replace("https", "http")).compose(mail())
    assert message["List-Unsubscribe"] == "<http://www.example.org/opt_out?token=t0-ken_>"
    assert message["List-Unsubscribe-Post"] is None


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("event", ["erasure", "rectification", "restriction"])
def test_a_notice_tells_a_recipient_whom_and_what(event: str, language: str) -> None:
    content = {
        "to": "privacy@parcel.example",
        "recipient": "Parcel & Sons",
        "event": event,
        "notice": 17,
        "references": ["A-1", "<b>B-2</b>"],
    }
    at = datetime.datetime(2031, 3, 29, tzinfo=datetime.UTC)
    composer = Composer(SENDER)
    notice = Mail("notice", language, content, REF, at)
    message = composer.compose(notice)
    text, html = parts(composer, notice)
    assert "17" in message["Subject"]
    assert message["Content-Language"] == language
    assert "Parcel & Sons" in text
    assert "- A-1\n- <b>B-2</b>" in text
    assert "<li>&lt;b&gt;B-2&lt;/b&gt;</li>" in html
    article = {"erasure": "17", "rectification": "16", "restriction": "18"}[event]
    assert re.search(rf"(Art\. |art\. |第){article}", text)
    changed = Mail("notice", language, {**content, "columns": ["crm.customer.city"]}, REF, at)
    assert "- crm.customer.city" in parts(composer, changed)[0]
    assert "crm.customer.city" not in text


def test_notices_differ_by_event_and_language() -> None:
    at = datetime.datetime(2031, 3, 29, tzinfo=datetime.UTC)
    subjects = {
        Composer(SENDER).compose(
            Mail(
                "notice",
                language,
                {
                    "to": "privacy@parcel.example",
                    "recipient": "P",
                    "event": event,
                    "notice": 1,
                    "references": [],
                },
                REF,
                at,
            )
        )["Subject"]
        for language in LANGUAGES
        for event in ("erasure", "rectification", "restriction")
    }
    assert len(subjects) == 12
