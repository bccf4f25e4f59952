"""SQLAlchemy: conditions on encrypted columns find what they find in a plain table, whatever type
the values have."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import ipaddress
import operator
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import ARRAY, CIDR, INET, MACADDR
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from gdprdb.integrations.sqlalchemy import Personal, digest, policy_from_metadata, protect
from tests.capabilities.crm import apply
from tests.integrations.models import gdpr
from tests.integrations.sites import application, url
from tests.support import Clone, Database


class Mood(enum.Enum):
    SAD = "sad"
    GLAD = "Glücklich"


class Upper(sa.types.TypeDecorator[str]):
    """Text that is stored in capitals."""

    impl = sa.String(5)
    cache_ok = True

    def process_bind_param(self, value: str | None, _: sa.Dialect) -> str | None:
        return None if value is None else value.upper()


WORDS = st.text(st.sampled_from("aB ß'\\%:"), max_size=4)
TIMES = st.datetimes(
    datetime.datetime.fromisoformat("1900-01-01"), datetime.datetime.fromisoformat("2100-01-01")
)
WHOLE = st.integers(-3, 3)
TYPES: dict[str, tuple[sa.types.TypeEngine[Any], st.SearchStrategy[Any]]] = {
    "string": (sa.String(20), WORDS),
    "short": (sa.String(3), WORDS.map(lambda word: word[:3]) | st.just("abcd")),
    "char": (sa.CHAR(4), WORDS),
    "text": (sa.Text(), WORDS),
    "upper": (Upper(), st.text("aAb", max_size=2)),
    "mood": (sa.Enum(Mood, name="mood", schema="public"), st.sampled_from(Mood)),
    "label": (
        sa.Enum("ja", "Nein", name="label", native_enum=False),
        st.sampled_from(["ja", "Nein"]),
    ),
    "date": (sa.Date(), st.dates()),
    "stamp": (sa.DateTime(), TIMES),
    "zoned": (
        sa.DateTime(timezone=True),
        st.builds(
            lambda at, hours: at.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=hours))),
            TIMES,
            st.integers(-12, 14),
        ),
    ),
    "time": (sa.Time(), st.times()),
    "span": (sa.Interval(), st.timedeltas(datetime.timedelta(-400), datetime.timedelta(400))),
    "money": (
        sa.Numeric(10, 2),
        st.builds(decimal.Decimal, st.sampled_from(["1.5", "1.50", "0", "-0.00", "1.555", "20"])),
    ),
    "number": (
        sa.Numeric(),
        st.builds(decimal.Decimal, st.sampled_from(["1.5", "1.50", "1e3", "NaN", "7"])),
    ),
    "float": (sa.Float(), st.sampled_from([0.0, -0.0, 0.1, 1e300, float("inf")])),
    "small": (sa.SmallInteger(), WHOLE),
    "big": (sa.BigInteger(), st.integers(-(2**63), 2**63 - 1)),
    "flag": (sa.Boolean(), st.booleans()),
    "uuid": (sa.Uuid(), st.uuids()),
    "inet": (INET(), st.ip_addresses()),
    "cidr": (CIDR(), st.ip_addresses().map(ipaddress.ip_network)),
    "mac": (MACADDR(), st.sampled_from(["08:00:2b:01:02:03", "08-00-2B-01-02-03"])),
    "bytes": (sa.LargeBinary(), st.binary(max_size=3)),
    "words": (ARRAY(sa.String(5)), st.lists(WORDS, max_size=2)),
}


class Base(DeclarativeBase):
    metadata = sa.MetaData(
        schema="public",
        info=gdpr(
            purposes={"orders": {"basis": "contract"}},
            roles={"crm_app": {"audience": "clear", "purposes": ["orders"]}},
        ),
    )


def columns(words: dict[str, Any]) -> list[sa.Column[Any]]:
    """The columns of a table with all types, plain or `Personal`."""
    return [
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        *(
            sa.Column(f"v_{key}", Personal(kind) if words else kind, info=words)
            for key, (kind, _) in TYPES.items()
        ),
    ]


SEARCHABLE = gdpr(encrypt="searchable", canonical="exact")
Secret = sa.Table(
    "secret",
    Base.metadata,
    *columns(SEARCHABLE),
    info=gdpr(subject="self", purposes=["orders"]),
)
Plain = sa.Table("plain", Base.metadata, *columns({}))


class Member(Base):
    __tablename__ = "member"
    __table_args__ = ({"info": gdpr(subject="self", purposes=["orders"])},)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(Personal(), info=gdpr(encrypt="searchable"))
    seen: Mapped[datetime.datetime | None] = mapped_column(
        Personal(sa.DateTime(timezone=True)), info=gdpr(encrypt="searchable")
    )
    paid: Mapped[decimal.Decimal | None] = mapped_column(
        Personal(sa.Numeric(10, 2)), info=gdpr(encrypt="searchable")
    )
    parts: Mapped[int | None] = mapped_column(
        Personal(sa.Integer()), info=gdpr(encrypt="searchable")
    )
    nick: Mapped[str | None]


NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
CET = datetime.timezone(datetime.timedelta(hours=1))
MEMBERS: list[dict[str, Any]] = [
    {
        "id": 1,
        "name": "Bob",
        "seen": NOON,
        "paid": decimal.Decimal("1.5"),
        "parts": 2,
        "nick": "BOB",
    },
    {"id": 2, "name": "", "seen": NOON, "paid": decimal.Decimal(2), "parts": 2, "nick": ""},
    {"id": 3, "name": None, "seen": None, "paid": None, "parts": None, "nick": None},
    {
        "id": 4,
        "name": "Ada",
        "seen": NOON.replace(hour=3),
        "paid": decimal.Decimal(7),
        "parts": 1,
        "nick": "x",
    },
]


@pytest.fixture(scope="module")
def database(clone: Clone, installed_template: str) -> Iterator[Database]:
    """Tables as the models have them, under their policy."""
    with clone(installed_template) as database:
        owner = sa.create_engine(url(database, "db_owner"))
        Base.metadata.create_all(owner)
        owner.dispose()
        database.rows("grant all on all tables in schema public to crm_app")
        apply(database, policy_from_metadata(Base.metadata))
        with application(database) as engine, Session(engine) as session:
            session.execute(sa.insert(Member), MEMBERS)
            session.commit()
        yield database


@pytest.fixture(scope="module")
def session(database: Database) -> Iterator[Session]:
    """A session of the application, which lives in another time zone."""
    with application(database) as engine, Session(engine) as session:
        session.execute(sa.text("set timezone = 'Asia/Tokyo'"))
        session.commit()
        yield session


def conditions(column: Any, one: Any, two: Any) -> dict[str, Any]:
    """What an application asks of a column."""
    return {
        "==": column == one,
        "!=": column != one,
        "in": column.in_([one, two]),
        "in with none": column.in_([one, None]),
        "in nothing": column.in_([]),
        "not in": column.not_in([one, two]),
        "not in with none": column.not_in([one, None]),
        "not in nothing": column.not_in([]),
        "distinct": column.is_distinct_from(one),
        "not distinct": column.is_not_distinct_from(one),
        "is none": column.is_(None),
        "is not none": column.is_not(None),
        "== none": operator.eq(column, None),
        "not": ~(column == one),
        "bound": column == sa.bindparam("asked", one, column_type(column)),
        "bound to none": column != sa.bindparam("nothing", None),
        "expression": column.in_(
            [sa.cast(sa.literal(one, column_type(column)), column_type(column))]
        ),
    }


def column_type(column: Any) -> Any:
    """The type of the values of a column."""
    return column.type.inner if isinstance(column.type, Personal) else column.type


@pytest.mark.parametrize("name", TYPES)
def test_conditions_find_what_they_find_in_a_plain_table(session: Session, name: str) -> None:
    _, values = TYPES[name]
    plain, secret = Plain.c[f"v_{name}"], Secret.c[f"v_{name}"]
    # PostgreSQL compares these as it does nothing else
    stored = values.filter(lambda value: value != "abcd")

    @settings(
        max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(stored, stored, values)
    def law(one: Any, two: Any, asked: Any) -> None:
        session.rollback()
        rows = [{"id": 1, "v": one}, {"id": 2, "v": two}, {"id": 3, "v": None}]
        for column in (plain, secret):
            session.execute(sa.delete(column.table))
            for row in rows:
                session.execute(
                    sa.insert(column.table).values(id=row["id"], **{column.name: row["v"]})
                )
        (read,) = session.scalars(sa.select(secret).where(secret.table.c.id == 1))
        for first, second in ((one, two), (asked, one), (read, asked)):
            expected, found = (
                session.execute(
                    sa.select(
                        column.table.c.id,
                        *(
                            condition.label(what)
                            for what, condition in conditions(column, first, second).items()
                        ),
                    ).order_by(column.table.c.id)
                )
                .mappings()
                .all()
                for column in (plain, secret)
            )
            assert found == expected, (first, second)
        other = Secret.alias()
        joined = sa.select(Secret.c.id, other.c.id).where(secret == other.c[secret.name])
        twin = Plain.alias()
        plainly = sa.select(Plain.c.id, twin.c.id).where(plain == twin.c[plain.name])
        assert set(session.execute(joined)) == set(session.execute(plainly))
        inner, outer = sa.select(Secret).subquery(), sa.select(Plain).subquery()
        nested = sa.select(inner.c.id).where(inner.c[secret.name] == one)
        plainly = sa.select(outer.c.id).where(outer.c[plain.name] == one)
        assert set(session.scalars(nested)) == set(session.scalars(plainly))

    try:
        law()
    finally:
        session.rollback()


def found(session: Session, condition: sa.ColumnElement[bool]) -> list[int]:
    """The members of whom a condition holds."""
    return list(session.scalars(sa.select(Member.id).where(condition).order_by(Member.id)))


def test_what_has_no_content_is_a_value(session: Session) -> None:
    assert found(session, Member.name == "") == [2]
    assert found(session, Member.name == " ") == [2]
    assert found(session, Member.name != "") == [1, 4]
    assert found(session, Member.name != "bob") == [2, 4]
    assert found(session, Member.name.not_in(["", "Bob"])) == [4]
    assert found(session, Member.name.in_(["", "BOB"])) == [1, 2]
    assert found(session, Member.name.is_distinct_from("")) == [1, 3, 4]


def test_objects_are_compared_by_what_they_hold(session: Session) -> None:
    bob = session.get_one(Member, 1)
    for column in (Member.name, Member.seen, Member.paid, Member.parts):
        value = getattr(bob, column.key)
        assert 1 in found(session, column == value), column
        assert 1 not in found(session, column != value), column
        assert 1 in found(session, column.in_([value])), column
    assert found(session, Member.seen == NOON.astimezone(CET)) == [1, 2]
    assert found(session, Member.paid == decimal.Decimal("1.500")) == [1]
    assert found(session, Member.paid == decimal.Decimal("1.499")) == []


def test_columns_are_joined_whose_values_are_alike(session: Session) -> None:
    other = aliased(Member)
    pairs = sa.select(Member.id, other.id).order_by(Member.id, other.id)
    assert session.execute(pairs.where(Member.seen == other.seen)).all() == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
        (4, 4),
    ]
    # a whole number and one with a fraction; an encrypted column and a plain one
    assert session.execute(pairs.where(Member.paid == other.parts)).all() == [(2, 1), (2, 2)]
    assert session.execute(pairs.where(Member.parts == other.paid)).all() == [(1, 2), (2, 2)]
    assert session.execute(pairs.where(Member.name == other.nick)).all() == [(1, 1), (2, 2)]
    # a time and a number have nothing in common
    plan = str(sa.select(Member.id).where(Member.parts == other.paid).compile(session.get_bind()))
    assert "parts_digest = member_1.paid_digest" in " ".join(plan.split()).replace(
        "gdpr_clear.", ""
    )


def test_queries_stand_where_values_do(session: Session) -> None:
    inner = aliased(Member)
    names = sa.select(inner.nick).where(inner.id < 3)
    assert found(session, Member.name.in_(names)) == [1, 2]
    assert found(session, Member.name.not_in(names)) == [4]
    assert found(session, Member.name.in_(names.union(sa.select(sa.literal("ada"))))) == [1, 2, 4]
    assert found(session, Member.name == names.where(inner.id == 1).scalar_subquery()) == [1]
    latest = sa.select(sa.func.max(inner.seen, type_=Member.seen.type)).scalar_subquery()
    assert found(session, Member.seen == latest) == [1, 2]
    asked: sa.BindParameter[Any] = sa.bindparam("asked", expanding=True)
    statement = sa.select(Member.id).where(Member.paid.in_(asked)).order_by(Member.id)
    for numbers, expected in (([1.5, 2], [1, 2]), ([7], [4]), ([], [])):
        values = [decimal.Decimal(number) for number in numbers]
        assert session.scalars(statement, {"asked": values}).all() == expected
    mixed = Member.name.in_([sa.func.lower("BOB"), "", None, inner.nick])
    assert session.scalars(
        sa.select(Member.id).where(mixed, inner.id == 4).order_by(Member.id)
    ).all() == [1, 2]
    assert found(session, Member.name == sa.any_(sa.literal(["Bob"], ARRAY(sa.Text)))) == [1]


def test_a_value_is_digested_once_and_looked_up(session: Session) -> None:
    """Before the rows are read, whatever the plan; where there is an index, by it."""
    session.execute(sa.text("set local enable_seqscan = off"))
    for condition in (
        Member.name == "Bob",
        Member.seen == NOON,
        Member.paid == decimal.Decimal("1.5"),
        Member.name.in_(["Bob", ""]),
        Member.seen.in_([NOON]),
    ):
        sql = (
            sa.select(Member.id)
            .where(condition)
            .compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        )
        plan = "\n".join(session.scalars(sa.text(f"explain (costs off) {sql}".replace(":", r"\:"))))
        assert "Index Cond: (gdpr_" in plan, plan
        assert "InitPlan" in plan, plan
        sql = (
            sa.select(Member.id)
            .where(~condition)
            .compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        )
        plan = "\n".join(session.scalars(sa.text(f"explain (costs off) {sql}".replace(":", r"\:"))))
        assert "InitPlan" in plan, plan
        assert not any("Filter" in line and ".digest" in line for line in plan.splitlines()), plan
    session.rollback()


def test_an_asynchronous_session_finds_the_same(database: Database) -> None:
    async def main() -> list[Any]:
        engine = create_async_engine(url(database))
        protect(engine)
        try:
            async with AsyncSession(engine) as session:
                ids = sa.select(Member.id).order_by(Member.id)
                member = await session.get_one(Member, 1)
                return [
                    (await session.scalars(ids.where(condition))).all()
                    for condition in (
                        Member.seen == member.seen,
                        Member.paid == decimal.Decimal("1.5"),
                        Member.name != "",
                        Member.seen.in_([NOON.astimezone(CET)]),
                        Member.name.not_in(["", "bob"]),
                    )
                ]
        finally:
            await engine.dispose()

    assert asyncio.run(main()) == [[1, 2], [1], [1, 4], [1, 2], [4]]


def test_a_digest_groups_what_is_equal(session: Session) -> None:
    counted = (
        sa.select(sa.func.count())
        .select_from(Member)
        .group_by(digest(Member.seen))
        .order_by(sa.func.count())
    )
    assert session.scalars(counted).all() == [1, 1, 2]
    assert uuid.UUID(str(session.scalar(sa.select(digest(Member.name)).where(Member.id == 2))))
