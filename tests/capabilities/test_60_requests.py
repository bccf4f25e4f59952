"""Station 60: a request is received, moved on, answered in time and proved."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from tests.capabilities.crm import apply, policy, refused, subject
from tests.support import Database

UTC = datetime.timezone.utc


def ask(db: Database, statement: str, *values: object, user: str = "dpo_login") -> Any:
    """The one value of a statement."""
    ((value,),) = db.rows(statement, values, user=user)
    return value


def opened(db: Database, kind: str, person: int | None = 1, **more: Any) -> int:
    """The number of a request that was received just now, or at ``at``."""
    return int(
        ask(
            db,
            "select gdpr.open_request(%s, %s, coalesce(%s, 'office'),"
            " coalesce(%s::timestamptz, statement_timestamp()), %s)",
            kind,
            person,
            more.get("channel"),
            more.get("at"),
            more.get("details"),
        )
    )


def state(db: Database, request: int) -> str:
    """Where a request stands."""
    return str(ask(db, "select state from gdpr.request where request_id = %s", request))


def steps(db: Database, request: int) -> list[str]:
    """The steps of a request, in order."""
    rows = db.rows(
        "select event from gdpr.request_history where request_id = %s order by id",
        [request],
        user="auditor_login",
    )
    return [event for (event,) in rows]


def within(db: Database, request: object, call: str) -> None:
    """Fulfil something in the context of a request."""
    connection = db.connect("dpo_login", autocommit=False)
    connection.execute("select gdpr.set_context(p_request => %s)", [str(request)])
    connection.execute(f"select gdpr.{call}".encode())
    connection.commit()
    connection.close()


def test_what_fulfils_a_request_is_tied_to_it(crm: Database) -> None:
    anna, bela = (subject(crm, "crm.customer", key) for key in (1, 2))
    number = opened(crm, "restriction", anna)
    within(crm, number, f"restrict({anna}, 'legal_claims')")
    assert steps(crm, number) == ["received", "restriction"]
    # the request of one person fulfils nothing for another
    with refused("PR609", "request_of_another"):
        within(crm, number, f"restrict({bela}, 'legal_claims')")
    with refused("PR607", "unknown_request"):
        within(crm, 999, f"restrict({anna}, 'legal_claims')")
    # an application's own ticket is no request
    within(crm, "T-88", f"restrict({bela}, 'legal_claims')")
    crm.rows("select gdpr.complete_request(%s)", [number], user="dpo_login")
    with refused("PR608", "request_state"):
        within(crm, number, f"restrict({anna}, 'legal_claims')")
    assert crm.rows("select count(*) from gdpr.restriction", user="auditor_login") == [(2,)]
