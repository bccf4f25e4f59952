"""The power goes while audit records are sealed: none is lost, sealed twice, or left out."""

from __future__ import annotations

import random
import threading
from itertools import count
from typing import Any

import psycopg
import pytest

from tests.attacks.test_crashes import KILLS, house, interrupted
from tests.capabilities.sealing import checkpoint, settled, verified
from tests.support import Database

__all__ = ["house"]

#: Each has a number of its own; the highest so far is in the table.
INSERT = "insert into public.person select n, 'p' || n || '@example.com', 'name' from %s as n"
RECORDED = """
select count(*), count(distinct p.id)
from public.person as p
left join gdpr_internal.audit_record as a on a.subject_id = p.gdpr_subject_id
  and a.operation = 'INSERT'
  and a.table_id = (
    select t.id from gdpr_internal.protected_table as t where t.relation = 'public.person'::regclass
  )
where a.id is not null
"""


def write(db: Database, numbers: count[int], done: list[int]) -> None:
    """Insert persons one by one until the server is gone; who was committed is told."""
    try:
        with psycopg.connect(db.dsn("crm_app"), autocommit=True) as connection:
            for number in numbers:
                connection.execute(
                    "insert into public.person values (%s, 'p' || %s::text || '@example.com', 'n')",
                    [number, number],
                )
                done.append(number)
    except psycopg.OperationalError:
        return


@pytest.mark.parametrize("n", range(KILLS))
def test_what_was_sealed_stays_so_and_the_rest_is_in_the_next_seal(house: Database, n: int) -> None:
    dice = random.Random(2000 + n)
    ((first,),) = house.rows("select coalesce(max(id), 0) + 1 from public.person", user="postgres")
    house.rows(
        "insert into public.person select n, 'p' || n || '@example.com', 'name'"
        " from generate_series(%s::integer, %s::integer) as n",
        [first, first + 499],
        user="crm_app",
    )
    with psycopg.connect(house.dsn("crm_app")) as waiting:
        waiting.execute(
            "insert into public.person values (%s, 'w' || %s::text || '@example.com', 'n')",
            [first + 500, first + 500],
        )
        waiting.execute(f"prepare transaction 'w{n}'".encode())
    done: list[int] = []
    kept: list[dict[str, Any]] = []
    numbers = count(first + 501)
    writers = [threading.Thread(target=write, args=(house, numbers, done)) for _ in range(3)]

    def work(officer: psycopg.Connection) -> None:
        for writer in writers:
            writer.start()
        while True:
            officer.execute("select gdpr.seal_audit()")
            kept.append(checkpoint(house))

    interrupted(house, work, dice.uniform(0.03, 0.5))
    for writer in writers:
        writer.join(10)
        assert not writer.is_alive()
    # what was told before the server was killed, holds
    for point in kept[-3:]:
        assert verified(house, point) == []
    assert house.rows("select waiting > 0 from gdpr.audit_lag()") == [(True,)]
    house.rows(f"commit prepared 'w{n}'", user="crm_app")
    settled(house)
    ((there,),) = house.rows("select count(*) from public.person", user="postgres")
    assert house.rows(RECORDED, user="postgres") == [(there, there)]
    ((found,),) = house.rows(
        "select count(*) from public.person where id = any (%s)",
        [[*done, *range(first, first + 501)]],
        user="postgres",
    )
    assert found == len(done) + 501
