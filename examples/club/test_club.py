"""What the club promises its members, as tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from club import find, join, readers
from sqlalchemy.orm import Session


def agree(as_role: Any, member_id: int) -> int:
    """A member says yes to the newsletter; the number of the person."""
    officer = as_role("gdpr_dpo")
    query = "select gdpr.subject_of('member', %s)"
    (person,) = officer.execute(query, [str(member_id)]).fetchone()
    officer.execute("select gdpr.record_consent(%s, 'newsletter', true, 'web_form')", [person])
    return int(person)


def test_members_are_found_in_any_spelling(session: Session) -> None:
    join(session, "anna@example.com", "Anna", "Judo")
    found = find(session, "Anna@EXAMPLE.com")
    assert found is not None
    assert [course.title for course in found.courses] == ["Judo"]


def test_consent_ends_by_itself(session: Session, as_role: Any, at_time: Any) -> None:
    agree(as_role, join(session, "anna@example.com", "Anna").id)
    session.rollback()
    assert readers(session) == ["anna@example.com"]
    with at_time(timedelta(days=800)):
        assert readers(session) == []


def test_a_withdrawal_hides_the_member_from_the_newsletter_alone(
    session: Session, as_role: Any, assert_hidden: Any, assert_visible: Any
) -> None:
    member = join(session, "anna@example.com", "Anna", "Judo").id
    session.rollback()
    person = agree(as_role, member)
    assert_visible("club_app", "member", id=member, purpose="newsletter")
    as_role("gdpr_dpo").execute(
        "select gdpr.withdraw_consent(%s, 'newsletter', 'email', null)", [person]
    )
    assert_hidden("club_app", "member", id=member, purpose="newsletter")
    assert_visible("club_app", "member", id=member)


def test_the_board_sees_no_addresses(as_role: Any, session: Session, assert_refused: Any) -> None:
    join(session, "anna@example.com", "Anna")
    board = as_role("club_board")
    assert board.execute("select email, name from gdpr_bi.member").fetchall() == [
        ("a***@***.com", "A.")
    ]
    with assert_refused("42501"):
        board.execute("select email from member")
