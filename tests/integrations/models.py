"""The application of `tests.capabilities.crm` as SQLAlchemy models that declare its policy."""

from __future__ import annotations

import datetime
import decimal
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    func,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from gdprdb.integrations.sqlalchemy import Personal
from tests.capabilities.crm import POLICY


def gdpr(**words: Any) -> dict[str, Any]:
    """What the policy says, as ``info``."""
    return {"gdpr": words}


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {str: Text, int: Integer}
    metadata = MetaData(
        schema="crm", info={"gdpr": {k: POLICY[k] for k in ("settings", "purposes", "roles")}}
    )


class Customer(Base):
    __tablename__ = "customer"
    __table_args__ = (
        {
            "info": gdpr(
                subject="self", match_on=["email"], purposes=["orders", "marketing", "analytics"]
            )
        },
    )

    id: Mapped[int] = mapped_column(
        BigInteger, Identity(always=True), primary_key=True, info=gdpr(category="key")
    )
    email: Mapped[str] = mapped_column(
        Personal(String(120)),
        unique=True,
        info=gdpr(category="contact", identifier="email", encrypt="searchable", mask="email"),
    )
    phone: Mapped[str | None] = mapped_column(
        Personal, info=gdpr(category="contact", identifier="phone", encrypt=True)
    )
    last_name: Mapped[str] = mapped_column(info=gdpr(category="identity", mask="initial"))
    birth_date: Mapped[datetime.date | None] = mapped_column(
        Personal(Date), info=gdpr(category="demographic", encrypt=True, mask="year")
    )
    city: Mapped[str | None] = mapped_column(
        String(40), server_default="Stuttgart", info=gdpr(category="contact")
    )
    created_at: Mapped[datetime.datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), info=gdpr(category="other")
    )
    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Order(Base):
    __tablename__ = "order"
    __table_args__ = (
        {"info": gdpr(subject={"via": "customer_id"}, purposes=["orders", "analytics"])},
    )

    id: Mapped[int] = mapped_column(primary_key=True, info=gdpr(category="key"))
    customer_id: Mapped[int | None] = mapped_column(
        ForeignKey("crm.customer.id", ondelete="RESTRICT"), info=gdpr(category="key")
    )
    total: Mapped[decimal.Decimal | None] = mapped_column(
        Numeric(10, 2), info=gdpr(category="transaction")
    )
    note: Mapped[str | None] = mapped_column(Personal, info=gdpr(category="other", encrypt=True))
    customer: Mapped[Customer] = relationship(back_populates="orders")


class OrderLine(Base):
    __tablename__ = "order_line"
    __table_args__ = ({"info": gdpr(subject={"via": "order_id"}, purposes=["orders"])},)

    order_id: Mapped[int] = mapped_column(ForeignKey("crm.order.id"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    engraving: Mapped[str | None] = mapped_column(
        Personal, info=gdpr(category="other", encrypt=True)
    )


class Lead(Base):
    __tablename__ = "lead"
    __table_args__ = (
        {"info": gdpr(subject="self", match_on=["email"], purposes=["marketing", "analytics"])},
    )

    id: Mapped[int] = mapped_column(primary_key=True, info=gdpr(category="key"))
    email: Mapped[str | None] = mapped_column(
        Personal, info=gdpr(category="contact", identifier="email", encrypt="searchable")
    )
    full_name: Mapped[str | None] = mapped_column(info=gdpr(category="identity", mask="pseudonym"))
    score: Mapped[int | None] = mapped_column(info=gdpr(category="other"))


#: A smaller application, whose policy is migrated back and forth.
club = MetaData(
    info=gdpr(
        purposes={"stay": {"basis": "contract"}},
        roles={"crm_app": {"audience": "clear", "purposes": ["stay"]}},
    )
)
Table(
    "member",
    club,
    Column("id", Integer, primary_key=True, info=gdpr(category="key")),
    Column(
        "email",
        Personal(String(80)),
        nullable=False,
        unique=True,
        info=gdpr(category="contact", identifier="email", encrypt="searchable"),
    ),
    Column("name", Text, index=True, info=gdpr(category="identity")),
    Column("city", String(40), server_default="Ulm", info=gdpr(category="contact")),
    info=gdpr(match_on=["email"], purposes=["stay"]),
)
Table(
    "booking",
    club,
    Column("id", Integer, primary_key=True, info=gdpr(category="key")),
    Column("member_id", ForeignKey("member.id"), nullable=False, info=gdpr(category="key")),
    Column("note", Personal, info=gdpr(category="other", encrypt=True)),
    info=gdpr(subject={"via": "member_id"}, purposes=["stay"]),
)
