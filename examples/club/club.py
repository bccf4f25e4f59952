"""The club's program: ``python club.py URL`` lets people join, and looks them up."""

from __future__ import annotations

import sys

from models import Course, Member
from sqlalchemy import URL, Engine, create_engine, select
from sqlalchemy.orm import Session

from gdprdb.integrations.sqlalchemy import Context, acting, protect


def connect(url: str | URL) -> Engine:
    """The engine of the application, whose login the policy binds to audience clear."""
    engine = create_engine(url)
    protect(engine)
    return engine


def join(session: Session, email: str, name: str, *courses: str) -> Member:
    """A new member."""
    member = Member(email=email, name=name, courses=[Course(title=title) for title in courses])
    session.add(member)
    session.commit()
    return member


def find(session: Session, email: str) -> Member | None:
    """A member by e-mail address: in any spelling, through an index."""
    return session.scalars(select(Member).where(Member.email == email)).one_or_none()


def readers(session: Session) -> list[str]:
    """Who may be written to, at this very moment."""
    with acting(Context(actor="newsletter", purpose="newsletter")):
        addresses = session.scalars(select(Member.email).order_by(Member.id)).all()
        session.rollback()
    return list(addresses)


def main(url: str) -> None:
    """A day at the club."""
    website = Context(
        actor="website", purpose="membership", source={"kind": "web_form", "form": "join"}
    )
    engine = connect(url)
    with acting(website), Session(engine) as session:
        join(session, "anna@example.com", "Anna Ahrens", "Swimming", "Judo")
        join(session, "bela@example.com", "Béla Bartók", "Rowing")
        found = find(session, "ANNA@Example.com")
        assert found is not None
        print(found.name, [course.title for course in found.courses])
        session.rollback()
        print("readers:", readers(session))
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
