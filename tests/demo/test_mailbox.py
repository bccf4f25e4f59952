"""The demo's mail server: what a sender hands over lies in it as it was written."""

from __future__ import annotations

import io
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from rich.console import Console

from gdprdb.demo.mailbox import Mailbox
from gdprdb.demo.page import letter, text_of


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    yield mailbox
    mailbox.close()


def mail(text: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Shop <shop@example.org>"
    message["To"] = "ada@example.org"
    message["Subject"] = "Dürfen wir?"
    message.set_content(text)
    message.add_alternative("<p>HTML</p>", subtype="html")
    return message


def send(mailbox: Mailbox, *messages: EmailMessage) -> None:
    _, port = mailbox.url.removeprefix("smtp+plain://").split(":")
    with smtplib.SMTP("127.0.0.1", int(port), timeout=10) as smtp:
        for message in messages:
            smtp.send_message(message)


def test_mails_arrive_word_for_word(mailbox: Mailbox) -> None:
    text = "Straße\n.a leading dot\n..two\n.\nthe end"
    send(mailbox, mail(text), mail("another"))
    first, second = mailbox.empty()
    assert first["Subject"] == "Dürfen wir?"
    for arrived, sent in ((first, text), (second, "another")):
        assert text_of(arrived) == sent


def test_what_was_taken_out_is_gone(mailbox: Mailbox) -> None:
    send(mailbox, mail("one"))
    assert len(mailbox.empty()) == 1
    assert mailbox.empty() == []


def test_a_letter_shows_headers_and_text_and_no_html() -> None:
    page = io.StringIO()
    console = Console(file=page, width=60, color_system=None)
    console.print(letter(mail("Hello Ada")))
    text = page.getvalue()
    for part in ("From:  Shop <shop@example.org>", "Subject:  Dürfen wir?", "Hello Ada"):
        assert part in text
    assert "HTML" not in text


def test_an_address_in_any_script_arrives_as_written(mailbox: Mailbox) -> None:
    message = mail("Guten Tag")
    del message["To"]
    message["To"] = "jörg.müller@example.org"
    send(mailbox, message)
    (arrived,) = mailbox.empty()
    assert arrived["To"] == "jörg.müller@example.org"
