"""Consent as a state machine: the database and a model in Python agree, whatever happens.

The model knows nothing of gates: it keeps what was said, and asks it anew for each read, at
the instant that the database says the read had.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.types.datetime import TimestamptzLoader

from tests.capabilities.consents import EVIDENCE, set_up
from tests.capabilities.crm import subject
from tests.support import Clone

Time = datetime.datetime
FOREVER = Time.max.replace(tzinfo=datetime.UTC)
PURPOSES = ("marketing", "profiling")
ALLOWS_WHILE_WAITING = {"marketing"}
#: Rows of crm.customer: Anna and Bela.
KEYS = (1, 2)


@dataclass
class Question:
    """What one person was asked, and what became of the token."""

    number: int
    person: int
    purposes: list[str]
    until: Time
    token: str
    token_state: str = "fresh"


@dataclass
class Answer:
    """What one person said about one purpose."""

    number: int
    event: str
    valid_until: Time
    question: Question | None


@dataclass
class Person:
    """All that is known of one person."""

    questions: list[Question] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=lambda: {p: [] for p in PURPOSES})
    bases: dict[int, tuple[str, Time]] = field(default_factory=dict)
    restricted: bool = False
    objections: set[str] = field(default_factory=set)

    def last(self, purpose: str) -> Answer | None:
        """The last word about a purpose."""
        return self.answers[purpose][-1] if self.answers[purpose] else None

    def since(self, purpose: str) -> list[Question]:
        """Questions after the last word."""
        last = self.last(purpose)
        return [
            q
            for q in self.questions
            if purpose in q.purposes and q.number > (last.number if last else 0)
        ]

    def status(self, purpose: str, at: Time) -> str:
        """Where the consent stands."""
        last, since = self.last(purpose), self.since(purpose)
        if last and last.event == "granted" and at < last.valid_until:
            return "granted"
        if since:
            return "waiting" if at < since[-1].until else "not_responded"
        if last is None:
            return "pending"
        return "expired" if last.event == "granted" else last.event

    def open(self, question: Question) -> list[str]:
        """The purposes of a question that wait for an answer to it."""
        return [p for p in question.purposes if self.since(p)[-1:] == [question]]

    def close(self) -> None:
        """After a word or a question: tokens with nothing left to answer are spent, or dead."""
        said = [a.question for answers in self.answers.values() for a in answers]
        for question in self.questions:
            if question.token_state == "fresh" and not self.open(question):
                question.token_state = "used" if question in said else "dead"

    def allowed(self, purpose: str, at: Time) -> bool:
        """Whether the person may be processed."""
        if self.restricted or purpose in self.objections:
            return False
        if purpose == "orders" or any(p == purpose and at < u for p, u in self.bases.values()):
            return True
        if self.status(purpose, at) == "granted":
            return True
        last, since = self.last(purpose), self.since(purpose)
        return (
            purpose in ALLOWS_WHILE_WAITING
            and (last is None or last.event == "granted")
            and bool(since)
            and at < min(q.until for q in since)
        )


class _Infinity(TimestamptzLoader):
    def load(self, data: Any) -> Any:
        return FOREVER if bytes(data) == b"infinity" else super().load(data)


def attempt(
    connection: psycopg.Connection, statement: str, parameters: list[Any]
) -> tuple[str, Any]:
    """The SQLSTATE with which a statement was refused, or an empty one and the first row."""
    try:
        return "", connection.execute(statement.encode(), parameters).fetchone()
    except psycopg.Error as error:
        return error.sqlstate or "?", None


class Consents(RuleBasedStateMachine):
    """Drives the database and the model side by side."""

    clone: Clone
    template: str

    def __init__(self) -> None:
        super().__init__()
        self.context = type(self).clone(type(self).template)
        self.db = self.context.__enter__()
        self.numbers = {key: subject(self.db, "crm.customer", key) for key in KEYS}
        self.people = {number: Person() for number in self.numbers.values()}
        self.count = 0
        self.dpo = self.connect("dpo_login")
        self.portal = self.connect("portal_app")
        self.apps = {purpose: self.connect("crm_app") for purpose in ("orders", *PURPOSES)}
        for purpose, app in self.apps.items():
            app.execute("select set_config('gdpr.purpose', %s, false)", [purpose])

    def connect(self, user: str) -> psycopg.Connection:
        """A session in which infinity is a time."""
        connection = self.db.connect(user, options="-c TimeZone=Asia/Tokyo")
        connection.adapters.register_loader("timestamptz", _Infinity)
        return connection

    def teardown(self) -> None:
        """Drop the database."""
        self.context.__exit__(None, None, None)

    def number(self) -> int:
        """The next in the order of questions and answers."""
        self.count += 1
        return self.count

    def say(
        self, number: int, purposes: list[str], events: list[str], valid: Time = FOREVER
    ) -> None:
        """Note answers."""
        person = self.people[number]
        for purpose, event in zip(purposes, events, strict=True):
            since = person.since(purpose)
            person.answers[purpose].append(
                Answer(self.number(), event, valid, since[-1] if since else None)
            )
        person.close()

    def now(self) -> Time:
        """The database's clock."""
        row = self.dpo.execute("select statement_timestamp()").fetchone()
        assert row
        found: Time = row[0]
        return found

    people_drawn = st.sampled_from(KEYS)
    purposes_drawn = st.sampled_from(PURPOSES)
    several = st.lists(st.sampled_from(PURPOSES), min_size=1, max_size=2, unique=True)
    instants = st.sampled_from([60, 150, 400, 3_600_000])

    @initialize()
    def begin(self) -> None:
        """Nothing has been said."""
        self.agree()

    @rule(key=people_drawn, purposes=several, within=instants)
    def ask(self, key: int, purposes: list[str], within: int) -> None:
        """A question in the portal."""
        number = self.numbers[key]
        person = self.people[number]
        refused, row = attempt(
            self.dpo,
            "select respond_until, token from gdpr.request_consent(%s, %s, 'portal', 'news',"
            " make_interval(secs => %s / 1000.0))",
            [number, purposes, within],
        )
        if person.restricted:
            assert refused == "PR601"
            return
        if person.objections & set(purposes):
            assert refused == "PR602"
            return
        assert not refused
        person.questions.append(Question(self.number(), number, purposes, row[0], row[1]))
        person.close()

    @precondition(lambda self: any(p.questions for p in self.people.values()))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """An answer by a token, one that may be spent, dead or late."""
        question = data.draw(
            st.sampled_from([q for p in self.people.values() for q in p.questions])
        )
        person = self.people[question.person]
        opened = person.open(question)
        granted = [p for p in opened if data.draw(st.booleans())]
        before = self.now()
        refused, _ = attempt(
            self.portal, "select gdpr.answer_consent(%s, %s)", [question.token, granted]
        )
        if refused:
            assert refused == "PR303"
            assert question.token_state != "fresh" or question.until <= self.now()
            return
        assert question.token_state == "fresh"
        assert before < question.until
        question.token_state = "used"
        self.say(
            question.person, opened, ["granted" if p in granted else "declined" for p in opened]
        )

    @precondition(lambda self: any(p.questions for p in self.people.values()))
    @rule(data=st.data())
    def withdraw_by_token(self, data: st.DataObject) -> None:
        """A withdrawal by a token."""
        question = data.draw(
            st.sampled_from([q for p in self.people.values() for q in p.questions])
        )
        person = self.people[question.person]
        before = self.now()
        refused, row = attempt(self.portal, "select gdpr.portal_withdraw(%s)", [question.token])
        if refused:
            assert refused == "PR303"
            assert question.token_state == "dead" or (
                question.token_state == "fresh" and question.until <= self.now()
            )
            return
        assert question.token_state == "used" or (
            question.token_state == "fresh" and before < question.until
        )
        # what stood at a deadline at that moment, the database has decided
        said = [
            p
            for p in question.purposes
            if row[0][p] == "withdrawn" and person.status(p, before) != "withdrawn"
        ]
        for purpose in question.purposes:
            if purpose not in said:
                assert row[0][purpose] in {
                    person.status(purpose, before),
                    person.status(purpose, self.now()),
                }
        self.say(question.person, said, ["withdrawn"] * len(said))

    @rule(key=people_drawn, purpose=purposes_drawn, granted=st.booleans(), valid=instants)
    def record(self, key: int, purpose: str, granted: bool, valid: int) -> None:
        """An answer by phone."""
        self.dpo.execute(
            "select gdpr.record_consent(%s, %s, %s, 'phone', %s,"
            " statement_timestamp() + make_interval(secs => %s / 1000.0))",
            [self.numbers[key], purpose, granted, EVIDENCE, valid],
        )
        row = self.dpo.execute(
            "select coalesce(valid_until, 'infinity') from gdpr.consent"
            " where subject_id = %s and purpose = %s",
            [self.numbers[key], purpose],
        ).fetchone()
        assert row
        event = "granted" if granted else "declined"
        self.say(self.numbers[key], [purpose], [event], row[0])

    @rule(key=people_drawn, purpose=purposes_drawn)
    def withdraw(self, key: int, purpose: str) -> None:
        """A withdrawal by letter."""
        self.dpo.execute(
            "select gdpr.withdraw_consent(%s, %s, 'paper')", [self.numbers[key], purpose]
        )
        self.say(self.numbers[key], [purpose], ["withdrawn"])

    @rule(key=people_drawn)
    def restrict_or_lift(self, key: int) -> None:
        """A restriction, or the end of all."""
        person = self.people[self.numbers[key]]
        call = "lift_restriction(%s, 'x')" if person.restricted else "restrict(%s, 'other')"
        self.dpo.execute(f"select gdpr.{call}".encode(), [self.numbers[key]])
        person.restricted = not person.restricted

    @rule(key=people_drawn, purpose=purposes_drawn)
    @precondition(lambda self: self.count > 12)
    def object_to(self, key: int, purpose: str) -> None:
        """An objection, rarely: nothing undoes it."""
        self.dpo.execute("select gdpr.object_to(%s, %s)", [self.numbers[key], purpose])
        self.people[self.numbers[key]].objections.add(purpose)

    @rule(key=people_drawn, purpose=purposes_drawn, valid=instants)
    def record_basis(self, key: int, purpose: str, valid: int) -> None:
        """Another basis for the same purpose."""
        row = self.dpo.execute(
            "with b as (select gdpr.record_basis(%s, %s, 'vital_interests', 'r',"
            " statement_timestamp() + make_interval(secs => %s / 1000.0)) as id)"
            " select id, statement_timestamp() + make_interval(secs => %s / 1000.0) from b",
            [self.numbers[key], purpose, valid, valid],
        ).fetchone()
        assert row
        self.people[self.numbers[key]].bases[row[0]] = (purpose, row[1])

    @rule(data=st.data())
    @precondition(lambda self: any(p.bases for p in self.people.values()))
    def end_basis(self, data: st.DataObject) -> None:
        """The end of a basis before its time."""
        person = data.draw(st.sampled_from([p for p in self.people.values() if p.bases]))
        number = data.draw(st.sampled_from(sorted(person.bases)))
        refused, _ = attempt(self.dpo, "select gdpr.end_basis(%s, 'r')::text", [number])
        assert refused in ("", "PR203")
        assert not refused or person.bases[number][1] <= self.now()
        del person.bases[number]

    @rule(milliseconds=st.sampled_from([30, 100, 250]))
    def wait(self, milliseconds: int) -> None:
        """Time passes; no job runs."""
        time.sleep(milliseconds / 1000)

    @rule()
    def tidy(self) -> None:
        """The job that changes nothing but speed."""
        self.db.rows("select gdpr.tidy_gates()")

    @invariant()
    def agree(self) -> None:
        """Every role reads what the model says it may, at the instant of the read."""
        for purpose, app in self.apps.items():
            row = app.execute(
                "select statement_timestamp(), array(select id from gdpr_clear.customer"
                " where id in (1, 2) order by id)"
            ).fetchone()
            assert row
            at, seen = row
            expected = [k for k in KEYS if self.people[self.numbers[k]].allowed(purpose, at)]
            assert seen == expected, (purpose, at)
        rows = self.dpo.execute(
            "select statement_timestamp(), subject_id, purpose, status from gdpr.consent"
            " where subject_id = any (%s)",
            [list(self.people)],
        ).fetchall()
        assert len(rows) == len(KEYS) * len(PURPOSES)
        for at, number, purpose, status in rows:
            assert status == self.people[number].status(purpose, at)


@pytest.fixture(scope="module")
def news_template(clone: Clone, crm_template: str) -> Iterator[str]:
    """Name of a database that can ask."""
    with clone(crm_template) as database:
        set_up(database)
        database.close()
        yield database.name


def test_the_database_agrees_with_the_model(clone: Clone, news_template: str) -> None:
    machine = type(
        "Machine", (Consents,), {"clone": staticmethod(clone), "template": news_template}
    )
    run_state_machine_as_test(
        machine, settings=settings(max_examples=20, stateful_step_count=30, deadline=None)
    )
