"""People who do not exist, for the demo: names, addresses and birthdays in seven languages.

Faker knows the names; drawing each field of each person through it would take most of the demo's
time, so this module asks it once for a pool per locale and then combines from the pools. The same
seed and the same day give the same people. Every mail address is in a domain reserved for examples
(RFC 2606).
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from faker import Faker

T = TypeVar("T")

POOL = 240
"""Draws per locale and field; 240 given and 240 family names make 57,600 full names."""

DOMAINS = ("example.com", "example.org", "example.net")

# Faker's German names, and the streets made of them, include some that nobody wants to meet.
_UNWANTED = ("Heydrich", "Adolf")

# What Unicode does not decompose but people write in their addresses all the same.
_SPELLING = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ł": "l", "ø": "o", "æ": "ae", "œ": "oe", "đ": "d"}
)


@dataclass(frozen=True, slots=True)
class Locale:
    """A language area: its name in Faker, its country, its mobile numbers (``#``: a digit)."""

    name: str
    country: str
    mobile: str


LOCALES = (
    Locale("de_DE", "DE", "+49 151 ########"),
    Locale("ja_JP", "JP", "+81 90 ########"),
    Locale("en_GB", "GB", "+44 7### ######"),
    Locale("fr_FR", "FR", "+33 6 ########"),
    Locale("pl_PL", "PL", "+48 5########"),
    Locale("es_ES", "ES", "+34 6########"),
    Locale("sv_SE", "SE", "+46 70 #######"),
)


@dataclass(frozen=True, slots=True)
class Person:
    """One invented person, as a shop would know them."""

    first_name: str
    last_name: str
    email: str
    phone: str
    birth_date: date
    street: str
    postal_code: str
    city: str
    country: str
    language: str
    company: str

    @property
    def full_name(self) -> str:
        """Family name first in Japan, last elsewhere."""
        if self.country == "JP":
            return f"{self.last_name} {self.first_name}"
        return f"{self.first_name} {self.last_name}"


@dataclass(frozen=True, slots=True)
class _Pool:
    """What one locale has to offer. Names come as (as written, in Latin letters)."""

    locale: Locale
    first_names: list[tuple[str, str]]
    last_names: list[tuple[str, str]]
    streets: list[str]
    towns: list[tuple[str, str]]
    companies: list[str]


def _latin(text: str) -> str:
    """``text`` in the letters a to z: 'Strauß-Żak' becomes 'strausszak'."""
    decomposed = unicodedata.normalize("NFKD", text.lower().translate(_SPELLING))
    return "".join(c for c in decomposed if c.isascii() and c.isalpha())


def _name(fake: Faker, kind: str) -> tuple[str, str]:
    """A given or family name and its Latin form; Japanese names need Faker's own romanisation."""
    if hasattr(fake, f"{kind}_pair"):
        written, _, romanised = getattr(fake, f"{kind}_pair")()
        return written, _latin(romanised)
    written = getattr(fake, kind)()
    return written, _latin(written)


def _street(fake: Faker) -> str:
    if hasattr(fake, "chome"):  # Japan: district, block and house instead of a street
        return f"{fake.town()}{fake.chome()}{fake.ban()}{fake.gou()}"
    return str(fake.street_address()).strip().replace("\n", ", ")


def _draw(count: int, make: Callable[[], T]) -> list[T]:
    """``count`` draws, without the unwanted ones."""
    drawn: list[T] = []
    while len(drawn) < count:
        value = make()
        if not any(name in str(value) for name in _UNWANTED):
            drawn.append(value)
    return drawn


def _pool(locale: Locale, seed: int) -> _Pool:
    from faker import Faker

    fake = Faker(locale.name, use_weighting=False)
    fake.seed_instance(seed)
    return _Pool(
        locale=locale,
        first_names=_draw(POOL, lambda: _name(fake, "first_name")),
        last_names=_draw(POOL, lambda: _name(fake, "last_name")),
        streets=_draw(POOL, lambda: _street(fake)),
        towns=_draw(POOL, lambda: (str(fake.postcode()), str(fake.city()))),
        companies=_draw(POOL // 4, lambda: str(fake.company())),
    )


def _phone(pattern: str, serial: int) -> str:
    """``pattern`` with digits for its ``#``; serials below a million give distinct numbers."""
    width = pattern.count("#")
    # a factor prime to 10 permutes the numbers of that width: they look random and are unique
    digits = iter(f"{serial * 7_368_787 % 10**width:0{width}}")
    return "".join(next(digits) if c == "#" else c for c in pattern)


def people(count: int, *, seed: int, today: date) -> Iterator[Person]:
    """Invent ``count`` people, the locales taking turns.

    Args:
        count: how many; no two share a mail address or a telephone number.
        seed: the same seed and day give the same people.
        today: the day on which everybody is 18 to 90 years old.
    """
    pick = random.Random(seed)
    pools = [_pool(locale, seed) for locale in LOCALES]
    taken: dict[str, int] = {}
    for serial in range(1, count + 1):
        pool = pools[(serial - 1) % len(pools)]
        first, first_latin = pick.choice(pool.first_names)
        last, last_latin = pick.choice(pool.last_names)
        postal_code, city = pick.choice(pool.towns)
        mailbox = f"{first_latin}.{last_latin}"
        taken[mailbox] = taken.get(mailbox, 0) + 1
        if taken[mailbox] > 1:
            mailbox += str(taken[mailbox])
        yield Person(
            first_name=first,
            last_name=last,
            email=f"{mailbox}@{pick.choice(DOMAINS)}",
            phone=_phone(pool.locale.mobile, serial),
            birth_date=today - timedelta(days=pick.randint(18 * 366, 90 * 365)),
            street=pick.choice(pool.streets),
            postal_code=postal_code,
            city=city,
            country=pool.locale.country,
            language=pool.locale.name.partition("_")[0],
            company=pick.choice(pool.companies),
        )
