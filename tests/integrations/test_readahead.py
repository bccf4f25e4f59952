"""Streaming: the next rows are decrypted while the last ones are worked on, and nobody notices."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, defer

from gdprdb.integrations.sqlalchemy import BrokenValueError, protect
from gdprdb.integrations.sqlalchemy.readahead import ReadAheadConnection
from tests.integrations.models import Customer
from tests.integrations.sites import application
from tests.support import Clone, Database

ROWS = 23


@pytest.fixture(scope="module")
def crowd(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The application with `ROWS` customers, the 20th of them with a value that was moved."""
    with clone(crm_template) as database:
        with database.connect("crm_app") as app:
            app.execute(
                "insert into gdpr_clear.customer (email, last_name, phone)"
                " select 'p' || n || '@example.com', 'P', n from generate_series(4, %s) as n",
                [ROWS],
            )
        database.rows(
            "alter table crm.customer disable trigger user;"
            "update crm.customer set phone = (select phone from crm.customer where id = 1)"
            " where id = 20",
            user="postgres",
        )
        yield database


@pytest.fixture
def session(crowd: Database) -> Iterator[Session]:
    """A session of the application, on a connection that has to do for everything."""
    with application(crowd) as engine, Session(engine) as session:
        yield session


NAMES = sa.select(Customer.email).order_by(Customer.id)
PHONES = sa.select(Customer.phone).order_by(Customer.id)


@pytest.mark.parametrize("size", [1, 2, 5, ROWS, 100])
def test_all_rows_come_in_their_order(session: Session, size: int) -> None:
    streamed = session.scalars(NAMES.execution_options(yield_per=size)).all()
    assert streamed == session.scalars(NAMES).all()
    assert len(streamed) == ROWS


def test_rows_are_asked_for_before_they_are_wanted(session: Session) -> None:
    connection = session.connection().connection.dbapi_connection
    assert isinstance(connection, ReadAheadConnection)
    result = session.scalars(NAMES.execution_options(yield_per=5))
    batches = result.partitions()
    assert [len(next(batches)) for _ in range(2)] == [5, 5]
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
    result.close()


def test_other_statements_go_in_between(session: Session) -> None:
    numbers = sa.select(Customer).options(defer(Customer.phone)).order_by(Customer.id)
    seen = []
    for customer in session.scalars(numbers.execution_options(yield_per=4)):
        assert customer.orders is not None
        seen.append((customer.id, session.scalar(sa.select(sa.literal(customer.id)))))
    assert seen == [(n, n) for n in range(1, ROWS + 1)]


def test_a_stream_can_be_left_at_any_time(session: Session) -> None:
    for taken in range(1, 12, 3):
        result = session.scalars(NAMES.execution_options(yield_per=3))
        rows = iter(result)
        assert next(next(rows) for _ in range(taken)) == "anna@example.com"
        (session.rollback if taken % 2 else session.commit)()
        result.close()
        assert session.scalar(sa.text("select 1")) == 1


def test_two_streams_take_turns(session: Session) -> None:
    one, two = (session.scalars(NAMES.execution_options(yield_per=4)) for _ in range(2))
    pairs = list(zip(one, two, strict=True))
    assert len(pairs) == ROWS
    assert all(first == second for first, second in pairs)


def test_an_error_ahead_meets_who_reads_on(session: Session) -> None:
    with pytest.raises(BrokenValueError):
        session.scalars(PHONES.execution_options(yield_per=6)).all()
    session.rollback()
    assert session.scalar(sa.text("select 1")) == 1


def test_an_error_ahead_is_told_to_other_statements(session: Session) -> None:
    result = session.scalars(PHONES.execution_options(yield_per=6))
    rows = iter(result)
    assert [next(rows) for _ in range(13)][-1] == "13"
    with pytest.raises(BrokenValueError):
        session.scalar(sa.text("select 1"))
    session.rollback()
    result.close()
    assert session.scalar(sa.text("select 1")) == 1


def test_the_cursor_is_still_one_of_psycopg(crowd: Database) -> None:
    numbers = "select generate_series(1, 9)"
    with ReadAheadConnection.connect(crowd.dsn("crm_app")) as connection:
        with connection.cursor("one") as cursor:
            cursor.execute(numbers)
            assert [row[0] for row in cursor.fetchmany(2)] == [1, 2]
            assert cursor.fetchone() == (3,)
            assert [row[0] for row in cursor.fetchmany(2)] == [4, 5]
            assert [row[0] for row in cursor.fetchall()] == [6, 7, 8, 9]
            assert cursor.fetchone() is None
        with connection.cursor("two") as cursor:
            cursor.itersize = 2
            assert [row[0] for row in cursor.execute(numbers)] == list(range(1, 10))
            with pytest.raises(psycopg.NotSupportedError, match="reads ahead"):
                cursor.scroll(-1)


def test_listeners_that_were_there_are_asked_first(crowd: Database) -> None:
    engine = sa.create_engine("postgresql+psycopg://", connect_args={"user": "nobody"})

    @sa.event.listens_for(engine, "do_connect")
    def log_in(
        _dialect: object, _record: object, _arguments: object, options: dict[str, object]
    ) -> None:
        options |= psycopg.conninfo.conninfo_to_dict(crowd.dsn("crm_app"))

    protect(engine)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select current_user")) == "crm_app"
        connection.rollback()
        # and no statement is compiled, whatever the planner thinks it costs
        assert connection.scalar(sa.text("select current_setting('jit')")) == "off"
    engine.dispose()
