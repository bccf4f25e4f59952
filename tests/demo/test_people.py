"""The invented people: repeatable, distinct, and nobody's real address."""

from __future__ import annotations

from datetime import date

import pytest

from gdprdb.demo.people import DOMAINS, LOCALES, Person, people

pytest.importorskip("faker")

TODAY = date(2026, 5, 25)


@pytest.fixture(scope="module")
def crowd() -> list[Person]:
    return list(people(7000, seed=679, today=TODAY))


def test_the_same_seed_and_day_give_the_same_people(crowd: list[Person]) -> None:
    assert list(people(50, seed=679, today=TODAY)) == crowd[:50]


def test_another_seed_gives_other_people(crowd: list[Person]) -> None:
    assert list(people(50, seed=680, today=TODAY)) != crowd[:50]


@pytest.mark.parametrize("identifier", ["email", "phone"])
def test_no_two_people_share_an_identifier(crowd: list[Person], identifier: str) -> None:
    values = {getattr(who, identifier) for who in crowd}
    assert len(values) == len(crowd)


def test_mail_addresses_are_ascii_and_in_domains_reserved_for_examples(crowd: list[Person]) -> None:
    for who in crowd:
        mailbox, _, domain = who.email.partition("@")
        assert domain in DOMAINS
        assert mailbox.isascii()
        assert all(mailbox.rstrip("0123456789").split("."))


def test_telephone_numbers_are_international(crowd: list[Person]) -> None:
    for who in crowd:
        digits = who.phone.replace(" ", "")
        assert digits.startswith("+")
        assert digits[1:].isdecimal()
        assert 10 <= len(digits) <= 16


def test_everybody_is_of_age(crowd: list[Person]) -> None:
    for who in crowd:
        assert 18 <= (TODAY - who.birth_date).days / 365.25 <= 90


def test_the_locales_take_turns(crowd: list[Person]) -> None:
    countries = [locale.country for locale in LOCALES]
    assert [who.country for who in crowd[: len(countries)]] == countries
    assert {"DE", "JP"} <= set(countries)


def test_everybody_speaks_the_language_of_the_country(crowd: list[Person]) -> None:
    spoken = {who.country: who.language for who in crowd}
    assert {"DE": "de", "GB": "en", "JP": "ja", "SE": "sv"}.items() <= spoken.items()
    assert len(spoken) == len(LOCALES)


def test_japanese_people_have_japanese_names_family_name_first(crowd: list[Person]) -> None:
    japanese = [who for who in crowd if who.country == "JP"]
    assert all(not who.last_name.isascii() for who in japanese)
    assert all(who.full_name == f"{who.last_name} {who.first_name}" for who in japanese)


def test_nobody_bears_an_unwanted_name(crowd: list[Person]) -> None:
    assert not any("Heydrich" in str(who) for who in crowd)
