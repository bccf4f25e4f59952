"""Whoever is erased is being entered again at the same moment, by everybody at once."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import psycopg

from tests.attacks.world import World

#: How long the storm lasts; GDPRDB_TEST_SECONDS=60 is the long one.
SECONDS = float(os.environ.get("GDPRDB_TEST_SECONDS", "2"))

#: Application sessions that insert.
SESSIONS = 8

#: Rows of somebody who is blocked; rows whose identifier is nobody's, or another's.
BOTH_AND_NEITHER = """
select
  count(*) filter (where i.blocked_at is not null),
  count(*) filter (where i.blocked_at is null and i.subject_id is distinct from l.gdpr_subject_id)
from mal.lead as l
left join gdpr_internal.identifier as i on i.digest = l.gdpr_email_digest
where l.gdpr_subject_id is not null
"""


@dataclass
class Storm:
    """What the sessions share.

    Attributes:
        until: when they stop.
        person: the number in the address that is entered and erased now.
        inserted: rows that went in.
        refused: rows that did not, as the identifier was blocked.
        others: errors that should not be.
    """

    until: float
    person: int = 0
    inserted: int = 0
    refused: int = 0
    others: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def goes_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.until


def enter(session: psycopg.Connection, storm: Storm) -> None:
    """Enter whoever is current, again and again, in one of the ways an application has."""
    while storm.goes_on():
        address = f"storm{storm.person}@storm.example"
        try:
            session.execute("insert into gdpr_clear.lead (email) values (%s)", [address])
        except psycopg.errors.UniqueViolation:
            with storm.lock:
                storm.refused += 1
        except psycopg.Error as error:
            storm.others.append(f"{error.sqlstate} {error}")
        else:
            with storm.lock:
                storm.inserted += 1


def erase(officer: psycopg.Connection, storm: Storm) -> int:
    """Erase whoever is current as soon as there is somebody; how many."""
    erased = 0
    while storm.goes_on():
        row = officer.execute(
            "select gdpr.find_subject('email', %s)", [f"storm{storm.person}@storm.example"]
        ).fetchone()
        if row and row[0]:
            officer.execute("select gdpr.erase(%s, 'storm')", [row[0]])
            erased += 1
            # time for those who were late, and for those who come too late
            time.sleep(0.005)
            storm.person += 1
    return erased


def watch(watcher: psycopg.Connection, storm: Storm) -> set[tuple[int, ...]]:
    """What anybody sees who looks in the middle of it."""
    seen = set()
    while storm.goes_on():
        seen.update(watcher.execute(BOTH_AND_NEITHER).fetchall())
        time.sleep(0.01)
    return seen


def test_nobody_is_both_erased_and_there(world: World) -> None:
    apps = [world.login("crm_app") for _ in range(SESSIONS)]
    officer, watcher = world.login("dpo_login"), world.login("postgres")
    storm = Storm(time.monotonic() + SECONDS)
    with ThreadPoolExecutor(SESSIONS + 2) as threads:
        work = [threads.submit(enter, app, storm) for app in apps]
        erasing = threads.submit(erase, officer, storm)
        watching = threads.submit(watch, watcher, storm)
        for done in work:
            done.result()
        erased = erasing.result()
        assert watching.result() == {(0, 0)}
    assert storm.others == []
    assert erased > 5 * SECONDS
    assert storm.inserted > erased
    assert storm.refused > erased
    assert world.run("postgres", BOTH_AND_NEITHER) == [(0, 0)]
    addresses = [f"storm{n}@storm.example" for n in range(storm.person)]
    ((blocked, left),) = world.run(
        "dpo_login",
        "select count(*) filter (where gdpr.is_blocked('email', a)),"
        " count(gdpr.find_subject('email', a)) from unnest(%s::text[]) as a",
        [addresses],
    )
    assert (blocked, left) == (erased, 0)
