"""What a sports club knows of people, and what it may be used for."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import Date, ForeignKey, Identity, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from gdprdb.integrations.sqlalchemy import Personal


def gdpr(**words: Any) -> dict[str, Any]:
    """What the policy says of a table or column, as SQLAlchemy's ``info``."""
    return {"gdpr": words}


class Base(DeclarativeBase):
    metadata = MetaData(
        info=gdpr(
            purposes={
                "membership": {"basis": "contract"},
                "newsletter": {"basis": "consent", "valid_for": "2 years"},
            },
            roles={
                "club_app": {
                    "audience": "clear",
                    "purposes": ["membership", "newsletter"],
                    "may": ["consent"],
                },
                "club_board": {"audience": "bi", "purposes": ["membership"]},
            },
        )
    )


class Member(Base):
    __tablename__ = "member"
    __table_args__ = (
        {"info": gdpr(subject="self", match_on=["email"], purposes=["membership", "newsletter"])},
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, info=gdpr(category="key"))
    email: Mapped[str] = mapped_column(
        Personal(String(120)),
        unique=True,
        info=gdpr(category="contact", identifier="email", encrypt="searchable", mask="email"),
    )
    name: Mapped[str] = mapped_column(info=gdpr(category="identity", mask="initial"))
    born: Mapped[datetime.date | None] = mapped_column(
        Personal(Date), info=gdpr(category="demographic", encrypt=True, mask="year")
    )
    courses: Mapped[list[Course]] = relationship(back_populates="member")


class Course(Base):
    __tablename__ = "course"
    __table_args__ = ({"info": gdpr(subject={"via": "member_id"}, purposes=["membership"])},)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, info=gdpr(category="key"))
    member_id: Mapped[int] = mapped_column(
        ForeignKey("member.id"), index=True, info=gdpr(category="key")
    )
    title: Mapped[str] = mapped_column(info=gdpr(category="other"))
    remark: Mapped[str | None] = mapped_column(Personal, info=gdpr(category="other", encrypt=True))
    member: Mapped[Member] = relationship(back_populates="courses")
