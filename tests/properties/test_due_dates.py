"""The last day for an answer, against a calendar of its own."""

from __future__ import annotations

import calendar
import datetime
import json
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import Clone

WEEK = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
#: Zones with and without summer time, with changes at midnight, of half an hour, and across the
#: date line.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
]

#: From June 2018 to the end of 2031.
instants = st.integers(1_527_811_200, 1_956_528_000).map(
    lambda seconds: datetime.datetime.fromtimestamp(seconds, datetime.UTC)
)
days = st.dates(datetime.date(2018, 6, 1), datetime.date(2032, 6, 30))
yearly = st.dates(datetime.date(2024, 1, 1), datetime.date(2024, 12, 31))


def model(
    at: datetime.datetime,
    months: int,
    paused: int,
    zone: str,
    week: list[str],
    holidays: set[datetime.date],
    every_year: set[tuple[int, int]],
) -> datetime.date:
    """The same day of a later month or its last, moved on by a pause, then past days off."""
    received = at.astimezone(ZoneInfo(zone)).date()
    year, month = divmod(received.year * 12 + received.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    due = datetime.date(year, month + 1, min(received.day, last)) + datetime.timedelta(days=paused)
    while (
        calendar.day_name[due.weekday()].lower() not in week
        or due in holidays
        or (due.month, due.day) in every_year
    ):
        due += datetime.timedelta(days=1)
    return due


@pytest.fixture(scope="module")
def calendar_of_the_policy(clone: Clone, installed_template: str) -> Iterator[psycopg.Connection]:
    """A connection on which settings can be tried out."""
    with clone(installed_template) as database:
        yield database.connect("postgres")


def put(connection: psycopg.Connection, name: str, value: object) -> None:
    """A setting of the policy, as gdpr.apply() stores it."""
    connection.execute(
        "insert into gdpr_internal.setting values (%s, %s)"
        " on conflict (name) do update set value = excluded.value",
        [name, json.dumps(value)],
    )


@given(
    at=instants,
    months=st.sampled_from([1, 3]),
    paused=st.integers(0, 400),
    zone=st.sampled_from(ZONES),
    week=st.lists(st.sampled_from(WEEK), min_size=1, unique=True),
    holidays=st.sets(days, max_size=20),
    every_year=st.sets(yearly, max_size=10),
)
@example(
    # the last day of January, and an evening in which it is February elsewhere
    datetime.datetime(2027, 1, 31, 22, 59, tzinfo=datetime.UTC),
    1,
    0,
    "Europe/Berlin",
    WEEK[:5],
    set(),
    set(),
)
@example(datetime.datetime(2024, 1, 31, 12, tzinfo=datetime.UTC), 1, 0, "UTC", WEEK, set(), set())
@example(
    # Good Friday to Easter Monday
    datetime.datetime(2027, 2, 26, 12, tzinfo=datetime.UTC),
    1,
    0,
    "Europe/Berlin",
    WEEK[:5],
    {datetime.date(2027, 3, 26), datetime.date(2027, 3, 29)},
    set(),
)
@settings(max_examples=250)
def test_the_last_day_is_that_of_an_independent_calendar(
    calendar_of_the_policy: psycopg.Connection,
    at: datetime.datetime,
    months: int,
    paused: int,
    zone: str,
    week: list[str],
    holidays: set[datetime.date],
    every_year: set[datetime.date],
) -> None:
    put(calendar_of_the_policy, "time_zone", zone)
    put(calendar_of_the_policy, "working_days", week)
    put(
        calendar_of_the_policy,
        "holidays",
        [day.isoformat() for day in holidays] + [f"{day:%m-%d}" for day in every_year],
    )
    ((due, day, before, after),) = calendar_of_the_policy.execute(
        "select d, gdpr_internal.local_day(%(at)s),"
        " gdpr_internal.local_day(gdpr.until(d) - interval '1 microsecond'),"
        " gdpr_internal.local_day(gdpr.until(d))"
        " from gdpr_internal.due_on(%(at)s, %(months)s, %(paused)s) as d",
        {"at": at, "months": months, "paused": paused},
    ).fetchall()
    recurring = {(day.month, day.day) for day in every_year}
    assert due == model(at, months, paused, zone, week, holidays, recurring)
    assert day == at.astimezone(ZoneInfo(zone)).date()
    # overdue from the end of that day on, wherever that is
    assert before <= due < after


def test_a_calendar_without_a_working_day_ends(
    calendar_of_the_policy: psycopg.Connection,
) -> None:
    """A mistake in the settings, and no reason to wait for ever."""
    year = [
        (datetime.date(2024, 1, 1) + datetime.timedelta(days=n)).strftime("%m-%d")
        for n in range(366)
    ]
    put(calendar_of_the_policy, "holidays", year)
    ((due,),) = calendar_of_the_policy.execute(
        "select gdpr_internal.due_on('2027-01-10', 1, 0)"
    ).fetchall()
    assert due.year == 2028
