"""SQLAlchemy: models declare the policy, and live on the clear views without knowing it."""

from __future__ import annotations

import asyncio
import datetime
import operator
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, aliased, joinedload

from gdprdb.errors import GdprdbError
from gdprdb.integrations.sqlalchemy import (
    BlockedError,
    BrokenValueError,
    Context,
    KeyUnavailableError,
    NoBasisError,
    NotPermittedError,
    RefusalError,
    RestrictedError,
    acting,
    digest,
    policy_from_metadata,
    protect,
    set_context,
)
from gdprdb.integrations.sqlalchemy.refusals import CLASSES
from tests.capabilities.crm import POLICY, subject
from tests.integrations.models import Base, Customer, Lead, Order, gdpr
from tests.integrations.sites import application, url
from tests.support import Clone, Database


@pytest.fixture(scope="module")
def crm(clone: Clone, crm_template: str) -> Iterator[Database]:
    """The application under its policy, for tests that leave it as it was."""
    with clone(crm_template) as database:
        yield database


@pytest.fixture(scope="module")
def engine(crm: Database) -> Iterator[sa.Engine]:
    """The application's engine, on the database that all share."""
    with application(crm) as engine:
        yield engine


@pytest.fixture
def own(clone: Clone, crm_template: str) -> Iterator[tuple[Database, Session]]:
    """A database under the policy for one test, and the application's session there."""
    with (
        clone(crm_template) as database,
        application(database) as engine,
        Session(engine) as session,
    ):
        yield database, session


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    """A session of the application that is rolled back."""
    with Session(engine) as session:
        yield session


def rendered(statement: sa.ClauseElement, engine: sa.Engine) -> str:
    """A statement as the engine would write it, in one line."""
    return " ".join(str(statement.compile(engine)).split())


# ---------------------------------------------------------------- the policy in the models


def test_models_say_what_a_policy_file_says() -> None:
    assert policy_from_metadata(Base.metadata) == POLICY


def test_a_table_without_a_word_of_its_own_is_no_protected_table() -> None:
    metadata = sa.MetaData()
    sa.Table("product", metadata, sa.Column("id", sa.Integer))
    assert policy_from_metadata(metadata) == {"tables": {}}
    sa.Table("person", metadata, sa.Column("name", sa.Text, info=gdpr(category="identity")))
    with pytest.raises(GdprdbError, match="columns of person are classified"):
        policy_from_metadata(metadata)


def test_a_policy_from_models_is_a_copy() -> None:
    policy_from_metadata(Base.metadata)["purposes"].clear()
    assert policy_from_metadata(Base.metadata) == POLICY


# ---------------------------------------------------------------- reading and writing


def test_objects_are_read_and_written_in_plaintext(own: tuple[Database, Session]) -> None:
    database, session = own
    customer = Customer(
        email="Eva@Example.com", last_name="Ek", birth_date=datetime.date(1990, 5, 6)
    )
    customer.orders = [Order(total=5, note="bell broken"), Order(total=6, note=None)]
    session.add(customer)
    session.commit()
    assert (customer.id, customer.city) == (4, "Stuttgart")
    customer.birth_date = datetime.date(1991, 5, 6)
    session.commit()
    read = session.scalars(
        sa.select(Customer).options(joinedload(Customer.orders)).where(Customer.id == 4)
    ).unique()
    assert [(c.email, c.birth_date, [o.note for o in c.orders]) for c in read] == [
        ("Eva@Example.com", datetime.date(1991, 5, 6), ["bell broken", None])
    ]
    session.delete(customer.orders[0])
    session.commit()
    assert len(customer.orders) == 1
    ((stored,),) = database.rows("select email from crm.customer where id = 4", user="postgres")
    assert stored.startswith("gdpr1:")


def test_many_objects_are_written_at_once(own: tuple[Database, Session]) -> None:
    _, session = own
    people = [Customer(email=f"p{n}@example.com", last_name=f"P{n}") for n in range(50)]
    session.add_all(people)
    session.commit()
    found = session.execute(sa.select(Customer.id, Customer.email).where(Customer.id > 3))
    assert {row.id: row.email for row in found} == {p.id: p.email for p in people}


def test_written_rows_come_back(own: tuple[Database, Session]) -> None:
    """RETURNING of encrypted columns, in bulk and from UPDATE and DELETE: where SQLAlchemy looks a
    column up, it finds it."""
    _, session = own
    people = [{"email": f"p{n}@example.com", "last_name": f"P{n}"} for n in range(30)]
    back = session.execute(sa.insert(Customer).returning(Customer.email, Customer.phone), people)
    assert {email for email, _ in back} == {person["email"] for person in people}
    (new,) = session.scalars(
        sa.insert(Customer).values(email="q@example.com", last_name="Q").returning(Customer)
    )
    assert new.email == "q@example.com"
    changed = sa.update(Customer).where(Customer.email == "Q@example.com").values(phone="1")
    assert session.execute(changed.returning(Customer.phone)).all() == [("1",)]
    gone = sa.delete(Customer).where(Customer.email.in_(["P1@example.com", "q@example.com"]))
    assert set(session.scalars(gone.returning(Customer.email))) == {
        "p1@example.com",
        "q@example.com",
    }


def test_columns_are_found_in_sets_and_dictionaries() -> None:
    """Their comparison is a condition, and is true of the column itself in all its forms."""
    email: Any = sa.inspect(Customer).columns["email"]
    phone: Any = sa.inspect(Customer).columns["phone"]
    annotated = email._annotate({"as": "the ORM"})
    assert {email: 1}[annotated] == 1
    assert annotated in {email, phone}
    assert bool(email == annotated)
    assert not bool(email != annotated)
    assert not bool(email == phone)


def test_the_owner_works_on_the_tables_themselves(crm: Database) -> None:
    owner = sa.create_engine(url(crm, "db_owner"))
    assert "FROM crm.customer" in rendered(sa.select(Customer), owner)
    assert "crm.customer.gdpr_email_digest" in rendered(digest(Customer.email), owner)
    owner.dispose()


def test_tables_that_are_not_protected_stay_where_they_are(engine: sa.Engine) -> None:
    product = sa.Table("product", sa.MetaData(schema="crm"), sa.Column("id", sa.Integer))
    assert "FROM crm.product" in rendered(sa.select(product), engine)


def test_translated_schemas_leave_protected_tables_where_they_are(engine: sa.Engine) -> None:
    product = sa.Table("product", sa.MetaData(schema="crm"), sa.Column("id", sa.Integer))
    translating = engine.execution_options(schema_translate_map={"crm": "elsewhere"})
    with translating.connect() as connection:
        found = sa.select(Customer.email).where(Customer.email == "anna@example.com")
        assert connection.scalars(found).all() == ["anna@example.com"]
        with pytest.raises(sa.exc.ProgrammingError, match=r"elsewhere\.product"):
            connection.execute(sa.select(product))


# ---------------------------------------------------------------- equality


def test_equality_is_that_of_the_canonical_form(session: Session) -> None:
    found = sa.select(Customer.id).where(Customer.email == "ANNA@EXAMPLE.COM")
    assert session.scalars(found).all() == [1]
    others = sa.select(Customer.id).where(Customer.email != "anna@example.com")
    assert set(session.scalars(others)) == {2, 3}
    other = aliased(Customer)
    assert session.scalars(sa.select(other.id).where(other.email == "Bela@example.com")).all() == [
        2
    ]
    none = sa.select(Customer.id).where(operator.eq(Customer.email, None))
    assert session.scalars(none).all() == []
    assert session.scalars(sa.select(Customer.id).filter_by(email="chie@example.com")).all() == [3]


def test_equality_reaches_the_index(session: Session, engine: sa.Engine) -> None:
    # three rows are too few for the planner to look anything up
    session.execute(sa.text("set local enable_seqscan = off"))
    session.execute(sa.text("set local enable_indexscan = off"))
    statements = (
        sa.select(Customer.email).where(Customer.email == "anna@example.com"),
        sa.select(Customer.email).where(Customer.email.in_(["anna@example.com", "x@example.com"])),
        sa.select(Customer.email).where(aliased(Customer).email == "anna@example.com"),
    )
    for statement in statements:
        sql = statement.compile(engine, compile_kwargs={"literal_binds": True})
        plan = "\n".join(session.scalars(sa.text(f"explain (costs off) {sql}".replace(":", r"\:"))))
        assert "Index Cond: (gdpr_email_digest = " in plan, plan


def test_membership_is_that_of_the_digest(session: Session, engine: sa.Engine) -> None:
    listed = Customer.email.in_(["ANNA@example.com", "chie@example.com", "nobody@example.com"])
    assert set(session.scalars(sa.select(Customer.id).where(listed))) == {1, 3}
    assert set(session.scalars(sa.select(Customer.id).where(~listed))) == {2}
    assert session.scalars(sa.select(Customer.id).where(Customer.email.in_([]))).all() == []
    context = Context(purpose="marketing")
    session.rollback()
    with acting(context):
        leads = sa.select(Lead.email).where(Lead.score > 5)
        assert "lead.email_digest" in rendered(Customer.email.in_(leads), engine)
        assert session.scalars(sa.select(Lead.id).where(Lead.email.in_(leads))).all() == []


def test_encrypted_columns_are_joined_by_their_digests(session: Session, engine: sa.Engine) -> None:
    joined = sa.select(Customer.id, Lead.id).join(Lead, Lead.email == Customer.email)
    assert "lead.email_digest = gdpr_clear.customer.email_digest" in rendered(joined, engine)
    session.execute(sa.text("set local gdpr.purpose = 'orders'"))
    one, two = aliased(Customer), aliased(Customer)
    pairs = sa.select(one.id, two.id).where(one.email == two.email)
    assert set(session.execute(pairs)) == {(1, 1), (2, 2), (3, 3)}


def test_a_subquery_is_compared_by_computed_digests(session: Session) -> None:
    customers = sa.select(Customer).subquery()
    found = sa.select(customers.c.id).where(customers.c.email == "BELA@example.com")
    assert session.scalars(found).all() == [2]
    named = aliased(Customer, customers)
    assert session.scalars(sa.select(named.id).where(named.email == "bela@example.com")).all() == [
        2
    ]


def test_what_has_no_digest_is_compared_by_value(session: Session, engine: sa.Engine) -> None:
    by_phone = sa.select(Customer.id).where(Customer.phone == "+49 711 1002")
    assert session.scalars(by_phone).all() == [2]
    assert session.scalars(sa.select(Customer.id).where(Customer.email.like("chie%"))).all() == [3]
    born = sa.select(Customer.id).where(Customer.birth_date > datetime.date(1981, 12, 31))
    assert session.scalars(born).all() == [3]
    assert "digest" not in rendered(Customer.email + "x" == "y", engine)
    with pytest.raises(GdprdbError, match="has no digest"):
        digest(Customer.phone)


def test_a_digest_groups_and_counts(session: Session) -> None:
    counted = sa.select(sa.func.count()).select_from(Customer).group_by(digest(Customer.email))
    assert session.scalars(counted).all() == [1, 1, 1]


def test_conditions_on_a_related_person(session: Session) -> None:
    of_bela = sa.select(Order.id).where(Order.customer.has(email="BELA@example.com"))
    assert session.scalars(of_bela).all() == [3]


def test_conditions_survive_what_the_orm_does_with_statements(session: Session) -> None:
    anna = Customer.email == "ANNA@example.com"
    wrapped = sa.select(Customer).options(joinedload(Customer.orders)).where(anna).limit(1)
    assert [len(c.orders) for c in session.scalars(wrapped).unique()] == [2]
    later = sa.select(Customer.id).order_by(Customer.id).where(~anna)
    assert session.scalars(later.union_all(sa.select(Customer.id).where(anna))).all() == [2, 3, 1]
    other = aliased(Order)
    related = sa.select(other.id).join(other.customer).where(anna)
    assert set(session.scalars(related)) == {1, 2}
    session.execute(sa.update(Customer).where(anna).values(city="Ulm"))
    assert session.get_one(Customer, 1).city == "Ulm"
    assert session.scalars(sa.select(Customer.id).where(Customer.email.is_(None))).all() == []


# ---------------------------------------------------------------- context


SETTINGS = sa.text(
    "select current_setting('gdpr.actor', true), current_setting('gdpr.purpose', true),"
    " current_setting('gdpr.source', true), current_setting('gdpr.request', true),"
    " pg_backend_pid()"
)


def claims(connection: sa.Connection) -> list[str]:
    """The context of a transaction, as the database has it."""
    return [value or "" for value in connection.execute(SETTINGS).one()[:4]]


FORM = Context("anna", "marketing", {"kind": "web_form", "form": "newsletter"}, 7)
AS_STORED = ["anna", "marketing", '{"form": "newsletter", "kind": "web_form"}', "7"]


def test_each_transaction_of_a_block_has_its_context(engine: sa.Engine) -> None:
    with acting(FORM), engine.connect() as connection:
        for _ in range(2):
            assert claims(connection) == AS_STORED
            connection.rollback()
    with engine.connect() as connection:
        assert claims(connection) == [""] * 4


def test_a_context_ends_with_its_transaction_and_not_with_its_block(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        with acting(FORM):
            assert claims(connection) == AS_STORED
        assert claims(connection) == AS_STORED
        connection.commit()
        assert claims(connection) == [""] * 4


def test_the_next_user_of_a_pooled_connection_inherits_nothing(engine: sa.Engine) -> None:
    pids = set()
    for name in ("anna", "bela"):
        with acting(Context(actor=name)), Session(engine) as session:
            assert claims(session.connection())[0] == name
            pids.add(session.scalar(sa.text("select pg_backend_pid()")))
            session.commit()
        with Session(engine) as session:
            assert claims(session.connection()) == [""] * 4
    assert len(pids) == 1


def test_a_session_carries_its_own_context(engine: sa.Engine) -> None:
    with acting(Context(actor="middleware")), Session(engine) as session:
        set_context(session, FORM)
        for _ in range(2):
            assert claims(session.connection()) == AS_STORED
            session.rollback()
        set_context(session, Context(actor="anna"))
        assert claims(session.connection())[0] == "anna"
        with pytest.raises(GdprdbError, match="has begun its transaction"):
            set_context(session, FORM)


def test_a_transaction_in_two_phases_has_the_context_of_its_session(engine: sa.Engine) -> None:
    with (
        acting(FORM),
        engine.connect() as connection,
        pytest.raises(GdprdbError, match="in two phases"),
    ):
        connection.begin_twophase()
    with Session(engine, twophase=True) as session:
        set_context(session, FORM)
        assert claims(session.connection()) == AS_STORED
        session.rollback()


def test_a_context_without_a_transaction_is_refused(crm: Database) -> None:
    with application(crm) as engine:
        automatic = engine.execution_options(isolation_level="AUTOCOMMIT")
        with (
            acting(FORM),
            automatic.connect() as connection,
            pytest.raises(GdprdbError, match="belongs to a transaction"),
        ):
            connection.execute(SETTINGS)


def test_who_and_why_stand_in_the_audit_log(own: tuple[Database, Session]) -> None:
    database, session = own
    with acting(Context(actor="anna", purpose="orders")):
        session.get_one(Customer, 1).city = "Ulm"
        session.commit()
    found = database.rows(
        "select actor, purpose from gdpr.audit_log order by id desc limit 1", user="dpo_login"
    )
    assert found == [("anna", "orders")]


def test_a_purpose_decides_what_is_there(own: tuple[Database, Session]) -> None:
    database, session = own
    person = subject(database, "crm.customer", 1)
    database.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'web_form')", [person], user="dpo_login"
    )
    everybody = sa.select(Customer.id)
    with acting(Context(purpose="marketing")):
        assert session.scalars(everybody).all() == [1]
        session.rollback()
    assert len(session.scalars(everybody).all()) == 3


def test_tasks_of_an_event_loop_keep_their_contexts_apart(crm: Database) -> None:
    async def act(engine: AsyncEngine, name: str) -> list[Any]:
        with acting(Context(actor=name)):
            async with AsyncSession(engine) as session:
                mine = [(await session.scalar(sa.text("select current_setting('gdpr.actor')")))]
                await asyncio.sleep(0.01)
                found = sa.select(Customer.last_name).where(Customer.email == "anna@example.com")
                mine += (await session.scalars(found)).all()
                await session.rollback()
                await asyncio.sleep(0)
                return [
                    *mine,
                    await session.scalar(sa.text("select current_setting('gdpr.actor')")),
                ]

    async def main() -> list[list[Any]]:
        engine = create_async_engine(url(crm), pool_size=2, max_overflow=0)
        protect(engine)
        try:
            async with AsyncSession(engine) as session:
                set_context(session, FORM)
                connection = await session.connection()
                assert await connection.run_sync(claims) == AS_STORED
            return await asyncio.gather(*(act(engine, f"user {n}") for n in range(6)))
        finally:
            await engine.dispose()

    found = asyncio.run(main())
    assert found == [[f"user {n}", "Ahrens", f"user {n}"] for n in range(6)]


# ---------------------------------------------------------------- refusals


def test_a_refusal_says_which_rule_it_was(own: tuple[Database, Session]) -> None:
    database, session = own
    database.rows("select gdpr.block('email', 'gone@example.com', 'objected')", user="dpo_login")
    session.add(Lead(email="Gone@example.com"))
    with acting(Context(purpose="marketing")), pytest.raises(BlockedError) as caught:
        session.flush()
    error = caught.value
    assert isinstance(error, sa.exc.IntegrityError)
    assert (error.sqlstate, error.name) == ("23505", "blocked_identifier")
    assert error.hint


def test_values_are_in_no_message(session: Session) -> None:
    session.add(Customer(email="anna@example.com", last_name="Zyzzyva"))
    with pytest.raises(sa.exc.IntegrityError) as caught:
        session.flush()
    assert "anna@example.com" not in str(caught.value)
    assert "Zyzzyva" not in str(caught.value)


def test_a_purpose_that_the_role_does_not_hold(engine: sa.Engine) -> None:
    with (
        acting(Context(purpose="analytics")),
        Session(engine) as session,
        pytest.raises(NotPermittedError) as caught,
    ):
        session.scalars(sa.select(Customer)).all()
    assert isinstance(caught.value, sa.exc.ProgrammingError)
    assert caught.value.name == "purpose_not_held"


def test_persons_whose_data_may_not_be_used(own: tuple[Database, Session]) -> None:
    database, session = own
    session.add(Order(customer_id=1))
    with acting(Context(purpose="marketing")), pytest.raises(NoBasisError) as caught:
        session.flush()
    assert caught.value.sqlstate == "PR301"
    session.rollback()
    person = subject(database, "crm.customer", 2)
    database.rows("select gdpr.restrict(%s, 'accuracy_contested')", [person], user="dpo_login")
    session.add(Order(customer_id=2))
    with pytest.raises(RestrictedError):
        session.flush()


def test_values_that_were_moved_and_keys_that_are_gone(own: tuple[Database, Session]) -> None:
    database, session = own
    database.rows(
        "alter table crm.customer disable trigger user;"
        "update crm.customer set phone = (select phone from crm.customer where id = 1)"
        " where id = 2;"
        "delete from gdpr_internal.subject_key as k using crm.customer as c"
        " where c.id = 3 and k.subject_id = c.gdpr_subject_id",
        user="postgres",
    )
    with pytest.raises(BrokenValueError):
        session.scalars(sa.select(Customer.phone).where(Customer.id == 2)).all()
    session.rollback()
    with pytest.raises(KeyUnavailableError):
        session.scalars(sa.select(Customer.phone).where(Customer.id == 3)).all()


def test_other_errors_are_left_alone(session: Session) -> None:
    with pytest.raises(sa.exc.ProgrammingError) as caught:
        session.execute(sa.text("select * from nowhere"))
    assert not isinstance(caught.value, RefusalError)


def test_every_class_stands_for_errors_that_there_are(crm: Database) -> None:
    assert set(CLASSES) <= {name for (name,) in crm.rows("select name from gdpr.error_code")}
