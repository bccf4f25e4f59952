"""Station 80: erasing many persons, in chunks that somebody else may go on with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.capabilities.crm import refused
from tests.support import Clone, Database


@pytest.fixture
def many(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The customer database with twenty customers more."""
    with clone(crm_template) as database:
        database.rows(
            "insert into crm.customer (email, last_name)"
            " select 'n' || n || '@example.com', 'N' from generate_series(1, 20) as n",
            user="crm_app",
        )
        yield database


def people(db: Database) -> list[int]:
    """The numbers of the twenty."""
    keys = [
        str(key) for (key,) in db.rows("select id from crm.customer where id > 3", user="postgres")
    ]
    ((found,),) = db.rows("select gdpr.subjects_of('crm.customer', %s)", [keys], user="dpo_login")
    return sorted(found)


def begin(db: Database, subjects: list[int]) -> int:
    """Open a batch."""
    ((batch,),) = db.rows(
        "select gdpr.open_erasure_batch(%s, 'inactive')", [subjects], user="dpo_login"
    )
    return int(batch)


def work(db: Database, batch: int, chunk: int) -> tuple[int, int, int]:
    """Run one chunk: erased, failed, remaining."""
    ((erased, failed, remaining),) = db.rows(
        "select * from gdpr.run_erasure_batch(%s, %s)", [batch, chunk], user="dpo_login"
    )
    return erased, failed, remaining


def test_a_batch_runs_chunk_by_chunk(many: Database) -> None:
    everybody = people(many)
    many.rows("select gdpr.erase(%s, 'before')", [everybody[0]], user="dpo_login")
    batch = begin(many, [*everybody, everybody[3]])
    assert [work(many, batch, 8) for _ in range(4)] == [(8, 0, 12), (8, 0, 4), (4, 0, 0), (0, 0, 0)]
    reasons = "select reason, count(*) from gdpr.erasure_ledger group by 1 order by 1"
    assert many.rows(reasons, user="dpo_login") == [("before", 1), ("inactive", 19)]
    view = "select persons, erased, failed, remaining, finished_at is not null"
    assert many.rows(f"{view} from gdpr.erasure_batch") == [(20, 20, 0, 0, True)]


def test_two_sessions_share_a_batch(many: Database) -> None:
    batch = begin(many, people(many))
    one, two = (many.connect("dpo_login", autocommit=False) for _ in range(2))
    call = "select erased from gdpr.run_erasure_batch(%s, 15)"
    assert one.execute(call, [batch]).fetchone() == (15,)
    assert two.execute(call, [batch]).fetchone() == (5,)
    one.rollback()
    two.commit()
    assert work(many, batch, 100) == (15, 0, 0)


def test_one_who_cannot_be_erased_stops_nobody_else(many: Database) -> None:
    """A trigger of the application refuses one row: that person is named, the others go."""
    everybody = people(many)
    batch = begin(many, everybody)
    many.rows(
        "create function crm.no() returns trigger language plpgsql as $$ begin"
        " if old.id = 7 then raise exception 'not this one'; end if; return old; end $$;"
        " create trigger no before delete on crm.customer for each row execute function crm.no()"
    )
    assert work(many, batch, 10) == (9, 1, 10)
    assert work(many, batch, 10) == (10, 0, 0)
    ((failed, failures),) = many.rows("select failed, failures from gdpr.erasure_batch")
    assert (failed, failures) == (1, {"P0001": [everybody[3]]})
    many.rows("drop trigger no on crm.customer")
    again = "select gdpr.retry_erasure_batch(%s)"
    assert many.rows(again, [batch], user="dpo_login") == [(1,)]
    assert work(many, batch, 10) == (1, 0, 0)


def test_what_is_no_batch_is_refused(many: Database) -> None:
    with refused("PR101", "unknown_subject"):
        begin(many, [1, 99999])
    with refused("PR004", "invalid_argument"):
        begin(many, [])
    with refused("PR803", "batch_unknown"):
        work(many, 99, 10)
    with refused("42501"):
        many.rows("select gdpr.open_erasure_batch(array[1::bigint], 'x')", user="crm_app")
