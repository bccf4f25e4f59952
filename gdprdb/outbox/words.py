"""Days, times and channels of contact in the languages of the built-in templates."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

import jinja2

_MONTHS = {
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "en": "January February March April May June July August September October November December",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
}
#: Of a language: how a day is written, and a point in time.
_DATES = {
    "de": ("{day}. {month} {year}", "{date}, {time} Uhr ({zone})"),
    "en": ("{day} {month} {year}", "{date}, {time} ({zone})"),
    "fr": ("{day} {month} {year}", "{date} à {time} ({zone})"),
    "ja": ("{year}年{number}月{day}日", "{date} {time} ({zone})"),
}
_CHANNELS = {
    "de": {"mail": "E-Mail", "phone": "Telefon", "post": "Post", "social": "soziale Medien"},
    "en": {"mail": "e-mail", "phone": "telephone", "post": "post", "social": "social media"},
    "fr": {"mail": "e-mail", "phone": "téléphone", "post": "courrier", "social": "réseaux sociaux"},
    "ja": {"mail": "メール", "phone": "電話", "post": "郵便", "social": "SNS"},
}


@jinja2.pass_context
def moment(context: jinja2.runtime.Context, value: str) -> str:
    """A day, or a point in time with its offset (ISO 8601), in the words of the mail's language."""
    at = datetime.datetime.fromisoformat(value)
    language = _base(context)
    day, instant = _DATES.get(language, ("{year}-{number:02}-{day:02}", "{date} {time} ({zone})"))
    months = _MONTHS.get(language, "").split()
    date = day.format(
        day=at.day,
        number=at.month,
        month=months[at.month - 1] if months else "",
        year=at.year,
    )
    if "T" not in value and " " not in value:
        return date
    return instant.format(date=date, time=f"{at:%H:%M}", zone=at.tzname() or "UTC")


@jinja2.pass_context
def contact(context: jinja2.runtime.Context, channels: Iterable[str]) -> list[str]:
    """Channels of contact in the words of the mail's language."""
    words = _CHANNELS.get(_base(context), {})
    return [words.get(channel, channel) for channel in channels]


def _base(context: jinja2.runtime.Context) -> str:
    return str(context["language"]).split("-")[0]
