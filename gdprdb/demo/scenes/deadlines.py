"""Permissions that end at their instant, while a transaction looks on; no job runs."""

from __future__ import annotations

import time
from datetime import datetime

from rich.text import Text

from gdprdb.demo.page import Margin
from gdprdb.demo.scenes.cast import APP, AUDITOR, MAILER
from gdprdb.demo.scenes.scene import Scene
from gdprdb.demo.story import Story

LOOK_EVERY = 0.4
LINGER = 0.8
"""Seconds between two looks at an ending permission, and how long to look on after its end."""


def expiry(scene: Scene) -> None:
    """A consent ends while a transaction looks at it."""
    story, seconds = scene.story, scene.seconds
    story.chapter(
        "A consent expires while you watch",
        "Art. 6(1)(a), 7",
        """The newsletter tool works for marketing, and marketing needs consent. Out of all
        customers and leads it sees those who gave one: so far nobody.""",
    )
    nobody = story.ask(
        MAILER,
        """
        select (select count(*) from customers) as customers,
          (select count(*) from leads) as leads
        """,
    )
    story.check("it sees nobody", nobody.rows == [(0, 0)], nobody.rows)
    story.note(
        f"""Now somebody asks for an offer in the shop and ticks a box. To have something to
        watch, this consent is good for {seconds:g} seconds; usually the policy's two years
        apply."""
    )
    story.ask(
        APP,
        """
        begin;
        select gdpr.set_context(p_actor => 'sales desk',
          p_source => '{"kind": "manual", "user": "ben"}');
        insert into leads (full_name, email, country, campaign)
        values ('Ada Example', 'ada@example.org', 'GB', 'shop');
        select gdpr.record_consent(gdpr.find_subject('email', 'ada@example.org'), 'marketing',
          p_granted => true, p_channel => 'in_person', p_evidence => '{"card": "B-17"}',
          p_valid_until => clock_timestamp() + :'validity'::interval);
        commit;
        """,
        validity=f"{seconds:g} seconds",
    )
    look = (
        "select count(*) as leads, max(email) as email,\n"
        "  now() as transaction_began, statement_timestamp() as asked_at\n"
        "from leads;"
    )
    story.note("The newsletter tool opens a transaction, and keeps asking from inside it:")
    story.ask(MAILER, f"begin;\n{look}")
    looks = watch(story, look, seconds)
    story.ask(MAILER, f"{look}\ncommit;")
    consent = story.ask(
        AUDITOR,
        "select purpose, status, channel, valid_until from gdpr.consent where status <> 'pending'",
    )
    (ends,) = consent.column("valid_until")
    story.check(
        "the row was there until that instant and not after, inside one transaction; no job ran",
        ended(looks, ends),
        (looks, ends),
    )


def silence(scene: Scene) -> None:
    """A question whose deadline passes without an answer."""
    story, seconds = scene.story, scene.seconds
    story.chapter(
        "Nobody answers, and silence is no consent",
        "Art. 4(11), 7(1)",
        """Whoever is asked may be reminded of the service as before, until the deadline: so the
        policy says, by while_waiting. Another customer is asked, by a link in the portal, and has
        not two weeks but a few seconds.""",
    )
    asked = story.ask(
        APP,
        """
        select r.request_id, r.respond_until
        from gdpr.request_consent(
          gdpr.find_subject('email', :'email'),
          array['service'], p_channel => 'portal', p_form => 'news',
          p_respond_within => :'deadline') as r
        """,
        email=scene.people[5]["email"],
        deadline=f"{seconds:g} seconds",
    )
    look = (
        "select count(*) as customers, max(email) as email,\n"
        "  now() as transaction_began, statement_timestamp() as asked_at\n"
        "from customers where id = 5;"
    )
    story.ask(MAILER, f"begin;\nset local gdpr.purpose = 'service';\n{look}")
    looks = watch(story, look, seconds)
    story.ask(MAILER, f"{look}\ncommit;")
    (request,) = asked.column("request_id")
    consent = story.ask(
        AUDITOR,
        f"""
        select purpose, status, respond_until
        from gdpr.consent
        where request_id = {request}
        """,
    )
    (deadline,) = consent.column("respond_until")
    story.check(
        "hidden from the deadline on, in the midst of a transaction; no job ran",
        consent.column("status") == ["not_responded"] and ended(looks, deadline),
        (looks, consent.rows),
    )


def ended(looks: list[tuple[int, datetime]], end: datetime) -> bool:
    """Whether somebody was seen in every look before ``end`` and in none from it on."""
    return all((count == 1) == (asked_at < end) for count, asked_at in looks) and {
        count for count, _ in looks
    } == {0, 1}


def watch(story: Story, statement: str, seconds: float) -> list[tuple[int, datetime]]:
    """Look until a little after ``seconds``, drawing each look; returns what was seen, and when."""
    began = time.monotonic()
    looks: list[tuple[int, datetime]] = []
    while (elapsed := time.monotonic() - began) < seconds + LINGER:
        answer = story.fetch(MAILER, statement)
        count, email, _, asked_at = answer.rows[0]
        looks.append((count, asked_at))
        story.show(countdown(story, elapsed, seconds, email))
        time.sleep(LOOK_EVERY)
    story.show("")
    return looks


def countdown(story: Story, elapsed: float, seconds: float, seen: str | None) -> Margin:
    """One look: how late it is, how much of the permission is left, who could be seen."""
    full, empty = "#-" if story.ascii else "█░"
    left = round(24 * max(seconds - elapsed, 0) / seconds)
    look = Text.assemble(
        f"{elapsed:4.1f} s  ",
        (full * left, "green"),
        (empty * (24 - left), "bright_black"),
        "  ",
        seen or ("nobody", "bold red"),
    )
    return story.beside(MAILER, look)
