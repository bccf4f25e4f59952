"""However an address is written, it is one mailbox; and the mailbox of a mailbox is itself."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Clone

RULES = {
    "dots.example": {"ignore_dots": True},
    "also.example": {"same_as": "dots.example"},
    "minus.example": {"tag": "-"},
    "none.example": {"tag": ""},
}

DOMAINS = st.sampled_from(["plain.example", "bücher.example", *RULES])

LOCAL = st.text(alphabet="abzäöüßéñøжщλя漢09._-", min_size=1, max_size=12)

#: Ways to write a text that mean the same text.
SPELLINGS = (
    str.upper,
    str.title,
    lambda text: unicodedata.normalize("NFD", text),
    "\u200d".join,
    lambda text: "\u00ad".join(text) + "\u2060",
    lambda text: "".join(
        chr(ord(char) + 0xFEE0) if "a" <= char <= "z" or "0" <= char <= "9" else char
        for char in text
    ),
)


@pytest.fixture(scope="module")
def asked(clone: Clone, installed_template: str) -> Iterator[psycopg.Connection]:
    """A connection to a database with rules for some domains."""
    with clone(installed_template) as database:
        connection = database.connect("postgres")
        connection.execute(
            "insert into gdpr_internal.setting values ('addresses', %s)", [json.dumps(RULES)]
        )
        connection.execute("select gdpr_internal.generate_addresses()")
        yield connection


def forms(asked: psycopg.Connection, address: str) -> tuple[str, str]:
    """The canonical form of an address, and its mailbox."""
    row = asked.execute(
        "select c, gdpr_internal.bare_form('email', c)"
        " from gdpr_internal.canonical('email', %s) as c",
        [address],
    ).fetchone()
    assert row is not None
    return str(row[0]), str(row[1])


@settings(max_examples=150)
@given(local=LOCAL, domain=DOMAINS, spell=st.lists(st.sampled_from(SPELLINGS), max_size=3))
def test_spellings_of_an_address_are_one(
    asked: psycopg.Connection, local: str, domain: str, spell: list[object]
) -> None:
    written, host = local, domain
    for way in spell:
        assert callable(way)
        written, host = way(written), way(host)
    assert forms(asked, f"{written}@{host}") == forms(asked, f"{local}@{domain}")


@settings(max_examples=100)
@given(local=LOCAL, tag=LOCAL, domain=DOMAINS)
def test_the_mailbox_is_that_of_every_tag_and_of_itself(
    asked: psycopg.Connection, local: str, tag: str, domain: str
) -> None:
    _, mailbox = forms(asked, f"{local}@{domain}")
    assert forms(asked, mailbox) == (mailbox, mailbox)
    sign = {"minus.example": "-", "none.example": ""}.get(domain, "+")
    _, tagged = forms(asked, f"{local}{sign}{tag}@{domain}")
    assert (tagged == mailbox) is (sign != "")


@settings(max_examples=60)
@given(one=LOCAL, other=LOCAL)
def test_other_letters_are_somebody_else(asked: psycopg.Connection, one: str, other: str) -> None:
    same = unicodedata.normalize("NFKC", one.casefold()) == unicodedata.normalize(
        "NFKC", other.casefold()
    )
    here, there = forms(asked, f"{one}@plain.example"), forms(asked, f"{other}@plain.example")
    assert (here == there) is same
