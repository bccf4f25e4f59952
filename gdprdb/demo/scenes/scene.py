"""What the chapters share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from gdprdb.demo.page import cell, text_of
from gdprdb.demo.scenes.cast import DPO, POSTMAN
from gdprdb.demo.story import Actor, Answer, DemoError, Story

PEOPLE = """
    select id, customer_no, first_name, last_name, email, birth_date, country
    from customers
    where id <= 5
    order by id
    """
"""One statement, run unchanged by everybody."""

JOERG = "Jörg.Müller+shop@Example.com"
"""Who asks for everything that a person can ask for."""


@dataclass(slots=True)
class Scene:
    """The shop, as far as the story goes.

    Attributes:
        story: who is told what, over which connections.
        policy_text: the policy file as written.
        policy: the same as JSON.
        command: runs a command line as somebody, who expects an exit code; returns what it
            printed and the mails that have arrived since.
        seconds: how long a permission lasts whose end is watched.
        people: what the first chapter read, by the customer's number.
        letters: the last mail to each address, in small letters.
        session: of who is signed in on the web site, ...
        customer: ... and the number of his row.
    """

    story: Story
    policy_text: str
    policy: str
    command: Callable[[Actor, str, int], tuple[str, list[EmailMessage]]]
    seconds: float = 3.0
    people: dict[int, dict[str, Any]] = field(default_factory=dict)
    letters: dict[str, EmailMessage] = field(default_factory=dict)
    session: str = ""
    customer: int = 0

    def leaks(self, answer: Answer) -> list[str]:
        """Personal data of the first customers that appear anywhere in an answer."""
        text = "\n".join(str(cell(value)) for row in answer.rows for value in row)
        return [
            str(value)
            for person in self.people.values()
            for name, value in person.items()
            if name in ("email", "birth_date") and str(value) in text
        ]

    def post(self) -> list[EmailMessage]:
        """Let the sender send what waits, show that, and return what arrived."""
        command = "gdprdb outbox send"
        printed, arrived = self.command(POSTMAN, command, 0)
        self.story.ran(POSTMAN, command, printed)
        self.letters |= {letter["To"].casefold(): letter for letter in arrived}
        return arrived

    def run(self, actor: Actor, command: str, code: int = 0) -> str:
        """Run a command as somebody, show it, and return what it printed."""
        printed, _ = self.command(actor, command, code)
        self.story.ran(actor, command, printed)
        return printed

    def subject(self, email: str) -> int:
        """The number of the person with an address, as the officer finds it."""
        found = self.story.ask(DPO, "select gdpr.find_subject('email', :'email')", email=email)
        number: int = found.value
        return number

    def click(self, email: str) -> str:
        """The token in the link of the last mail to somebody."""
        email = email.casefold()
        if email not in self.letters:
            raise DemoError("a mail that was awaited did not arrive")
        found = re.search(r"token=([\w-]+)", text_of(self.letters[email]))
        if found is None:
            raise DemoError("there is no link in the mail")
        return found[1]
