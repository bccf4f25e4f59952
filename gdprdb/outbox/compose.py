"""From a template and a person's data to a mail: text and HTML, in the person's language."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import localtime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import jinja2
from markupsafe import Markup

from gdprdb.errors import GdprdbError
from gdprdb.outbox.words import contact, moment

#: The templates that come with gdprdb.
BUILT_IN = Path(__file__).with_name("templates")

#: The language of last resort.
DEFAULT_LANGUAGE = "en"

#: Of a kind of mail: the page on which one click says no to it.
_UNSUBSCRIBE = {"registration": "opt_out", "consent": "withdraw"}


#: What a mail carries for the sender alone: templates do not see it.
_SECRET = {"to", "token", "passphrase"}

#: What an encrypted report is called.
ARCHIVE = "data.zip"


class _Verbatim(UnstructuredHeader, BaseHeader):
    """A header that holds an address of the web: folded as text it could not be read any more."""

    def fold(self, *, policy: Policy) -> str:
        """The header on one line."""
        return f"{self.name}: {self}{policy.linesep}"


_HEADERS = HeaderRegistry()
_HEADERS.map_to_type("list-unsubscribe", _Verbatim)


class AddressError(ValueError):
    """No mail can be sent to this address; the message does not repeat it."""


class TemplateError(ValueError):
    """A template is missing, or asks for what the mail does not have."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as the database hands it out.

    Attributes:
        template: the name of the template.
        language: of the person, as a tag; None where it is not known.
        content: ``to``, ``token`` and the variables of the template.
        ref: the same in every attempt.
        queued_at: when it was queued.
        archive: the encrypted ZIP that it carries.
    """

    template: str
    language: str | None
    content: Mapping[str, Any]
    ref: UUID
    queued_at: datetime.datetime
    archive: bytes | None = None


def parse_address(text: str) -> Address:
    """An address that stands for one mailbox and cannot become a second header or recipient.

    Args:
        text: ``local@domain``, in any script; the domain becomes its ASCII form (IDNA).

    Raises:
        AddressError: it is no such address.
    """
    text = unicodedata.normalize("NFC", text.strip())
    local, at, domain = text.rpartition("@")
    if (
        not at
        or len(text.encode()) > 254
        or re.search(r"[\s<>()\[\]\\,;:\"@]|\.\.", local + domain)
    ):
        raise AddressError("no address")
    if not local or any(unicodedata.category(char).startswith("C") for char in text):
        raise AddressError("no address")
    try:
        ascii_domain = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise AddressError("no domain") from None
    if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", ascii_domain):
        raise AddressError("no domain")
    return Address(username=local, domain=ascii_domain)


class Composer:
    """Makes messages.

    Args:
        sender: who writes, with the name that the person reads.
        link: the address of the page that a token opens, with ``{token}`` and, where
            several pages do, ``{page}``.
        directory: templates of the company's own, tried before the built-in ones of the
            same language.
        language: for persons whose language is unknown or has no template.
    """

    def __init__(
        self,
        sender: Address,
        link: str | None = None,
        directory: Path | None = None,
        language: str = DEFAULT_LANGUAGE,
    ) -> None:
        self.sender = sender
        self._link = link
        self._language = language
        places = [str(place) for place in (directory, BUILT_IN) if place is not None]
        self._text = _environment(places, "layout.txt", autoescape=False)
        self._html = _environment(places, "layout.html", autoescape=True)

    def compose(self, mail: Mail) -> EmailMessage:
        """The message of a mail.

        Raises:
            AddressError: it cannot go where it should.
            TemplateError: it cannot be written.
        """
        recipient = parse_address(str(mail.content["to"]))
        message = EmailMessage(policy=SMTP.clone(header_factory=_HEADERS))
        try:
            template, language = self._find(mail)
            variables = self._variables(mail, language)
            message["Subject"] = _one_line(_block(template, "subject", variables))
            text = re.sub(r"\n{3,}", "\n\n", template.render(variables)).strip() + "\n"
            message.set_content(text)
            html = self._html.get_template(template.name or "")
            message.add_alternative(html.render(variables), subtype="html")
            if variables["attach_form"]:
                form = self._html.get_template(f"consent_form.{language}.jinja")
                message.add_attachment(
                    form.render(variables), subtype="html", filename=variables["attachment"]
                )
            if mail.archive is not None:
                message.add_attachment(
                    mail.archive, maintype="application", subtype="zip", filename=ARCHIVE
                )
        except jinja2.TemplateError as error:
            raise TemplateError(f"template {mail.template}: {error}") from error
        except Exception as error:
            # what a template stumbles over may hold values of the person: its kind has to do
            raise TemplateError(f"template {mail.template}: {type(error).__name__}") from error
        message["From"] = self.sender
        message["To"] = recipient
        message["Date"] = localtime()
        message["Message-ID"] = f"<{mail.ref}@{self.sender.domain}>"
        message["Content-Language"] = language
        # RFC 3834: no out-of-office answer, please
        message["Auto-Submitted"] = "auto-generated"
        for name, value in self._unsubscribe(mail):
            message[name] = value
        return message

    def _find(self, mail: Mail) -> tuple[jinja2.Template, str]:
        for language in fallbacks(mail.language, self._language):
            try:
                return self._text.get_template(f"{mail.template}.{language}.jinja"), language
            except jinja2.TemplateNotFound as error:
                # one that it extends or includes is missing: another language would be too
                if error.name != f"{mail.template}.{language}.jinja":
                    raise
        raise jinja2.TemplateNotFound(mail.template)

    def _variables(self, mail: Mail, language: str) -> dict[str, Any]:
        variables = {k: v for k, v in mail.content.items() if k not in _SECRET}
        variables["sender"] = self.sender.display_name or str(self.sender)
        variables["sender_address"] = self.sender.addr_spec
        variables["language"] = language
        variables.setdefault("attach_form", False)
        if mail.content.get("token") is None:
            variables["link"] = None
        if variables["attach_form"]:
            variables["attachment"] = f"consent-{variables['reference']}.html"
        if mail.archive is not None:
            variables["link"] = None
        if mail.content.get("token") is not None and self._link is not None:
            variables["link"] = self._page(mail, mail.template.partition("_")[0])
            variables["opt_out_link"] = self._page(mail, "opt_out")
        return variables

    def _page(self, mail: Mail, page: str) -> str:
        """The address of a page with the mail's token."""
        token = quote(str(mail.content["token"]), safe="")
        return (self._link or "").replace("{page}", page).replace("{token}", token)

    def _unsubscribe(self, mail: Mail) -> Iterator[tuple[str, str]]:
        """Headers by which a mail program offers to say no (RFC 2369, RFC 8058)."""
        page = _UNSUBSCRIBE.get(mail.template.partition("_")[0])
        link = self._link or ""
        # one page for everything would take the click of a machine for a yes
        if page and mail.content.get("token") is not None and "{page}" in link and link.isascii():
            yield "List-Unsubscribe", f"<{self._page(mail, page)}>"
            if link.startswith("https:"):
                yield "List-Unsubscribe-Post", "List-Unsubscribe=One-Click"


def check_link(link: str) -> str:
    """The address of the page for tokens, if it can be one.

    Raises:
        GdprdbError: it has no place for the token, or is no web address.
    """
    if "{token}" not in link or not re.match(r"https?://[^\s]+$", link):
        raise GdprdbError(
            "the link has no place for the token",
            hint="Write it as https://www.example.org/privacy/{page}?token={token}.",
        )
    return link


def fallbacks(language: str | None, default: str) -> Iterator[str]:
    """The languages to try: ``pt-BR``, ``pt``, the default, English."""
    seen = set[str]()
    for tag in (language, default, DEFAULT_LANGUAGE):
        parts = (tag or "").split("-")
        for length in range(len(parts), 0, -1):
            name = "-".join([parts[0].lower(), *parts[1:length]])
            if name and name not in seen:
                seen.add(name)
                yield name


def _environment(places: list[str], layout: str, *, autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(places),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["layout"] = layout
    environment.filters["moment"] = moment
    environment.filters["contact"] = contact
    environment.filters["bullets"] = _bullets if autoescape else _dashes
    environment.filters["lines"] = _lines if autoescape else str
    environment.filters["hyperlink"] = _anchor if autoescape else str
    return environment


def _block(template: jinja2.Template, name: str, variables: dict[str, Any]) -> str:
    if name not in template.blocks:
        raise jinja2.TemplateRuntimeError(f"{template.name} has no block {name}")
    return "".join(template.blocks[name](template.new_context(variables)))


def _one_line(text: str) -> str:
    """Text for a header: no control character, no line break, not longer than a subject is."""
    plain = "".join(
        " " if unicodedata.category(char) in {"Cc", "Zl", "Zp"} else char for char in text
    )
    return " ".join(plain.split())[:200]


def _dashes(items: Iterable[str]) -> str:
    """A list in plain text."""
    return "\n".join(f"- {_one_line(item)}" for item in items)


def _bullets(items: Iterable[str]) -> Markup:
    """A list in HTML."""
    return Markup("<ul>{}</ul>").format(
        Markup("").join(Markup("<li>{}</li>").format(item) for item in items)
    )


def _lines(text: str) -> Markup:
    """Text in HTML that keeps its line breaks."""
    return Markup('<p style="white-space:pre-line">{}</p>').format(text)


def _anchor(link: str) -> Markup:
    """A link in HTML that shows where it leads."""
    return Markup('<a href="{0}">{0}</a>').format(link)
