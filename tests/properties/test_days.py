"""A day ends when the clocks on the wall of the policy's zone say so, whatever the session."""

from __future__ import annotations

import datetime
import json
import zoneinfo
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from tests.support import Clone

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "Pacific/Apia",
    "Asia/Kathmandu",
)
SECOND = datetime.timedelta(seconds=1)


@pytest.fixture(scope="module")
def session(clone: Clone, installed_template: str) -> Iterator[psycopg.Connection]:
    """A session of the owner, in a database without a policy."""
    with clone(installed_template) as database:
        yield database.connect()


@given(
    zone=some.sampled_from(ZONES),
    theirs=some.sampled_from(ZONES),
    day=some.dates(datetime.date(1990, 1, 1), datetime.date(2036, 12, 31)),
)
@example(zone="Europe/Berlin", theirs="Asia/Tehran", day=datetime.date(2026, 3, 29))
@example(zone="Europe/Berlin", theirs="UTC", day=datetime.date(2026, 10, 25))
@example(zone="America/Havana", theirs="UTC", day=datetime.date(2025, 11, 1))
@example(zone="America/Havana", theirs="UTC", day=datetime.date(2025, 3, 8))
@example(zone="America/Sao_Paulo", theirs="UTC", day=datetime.date(2018, 2, 17))
@example(zone="America/Sao_Paulo", theirs="UTC", day=datetime.date(2018, 11, 3))
@example(zone="Africa/Cairo", theirs="UTC", day=datetime.date(2023, 10, 26))
@example(zone="Asia/Beirut", theirs="UTC", day=datetime.date(2022, 3, 26))
def test_a_day_ends_with_its_last_second(
    session: psycopg.Connection, zone: str, theirs: str, day: datetime.date
) -> None:
    """One second before its end it is still that day there; from the end on it never is again."""
    session.execute(
        "select count(*) from gdpr.apply(%s)", [json.dumps({"settings": {"time_zone": zone}})]
    )
    session.execute("select set_config('TimeZone', %s, false)", [theirs])
    ((end,),) = session.execute("select gdpr.until(%s)", [day]).fetchall()
    there = zoneinfo.ZoneInfo(zone)
    assert (end - SECOND).astimezone(there).date() <= day
    for later in range(4):
        moment = end + later * datetime.timedelta(minutes=30)
        assert moment.astimezone(there).date() > day


def test_the_zone_is_utc_unless_the_policy_names_one(session: psycopg.Connection) -> None:
    session.execute("""select count(*) from gdpr.apply('{"purposes": {}}')""")
    ((end, endless, none),) = session.execute(
        "select gdpr.until('2026-03-31'), gdpr.until('infinity')::text, gdpr.until(null)"
    ).fetchall()
    assert end == datetime.datetime(2026, 4, 1, tzinfo=datetime.UTC)
    assert (endless, none) == ("infinity", None)


@pytest.mark.parametrize("zone", ["CEST", "+2", "Europe/Atlantis", "", 7])
def test_offsets_and_abbreviations_are_no_zones(session: psycopg.Connection, zone: object) -> None:
    with pytest.raises(psycopg.Error) as caught:
        session.execute("select gdpr.apply(%s)", [json.dumps({"settings": {"time_zone": zone}})])
    assert caught.value.sqlstate == "PR001"
    assert "settings.time_zone" in (caught.value.diag.message_detail or "")
