"""A registration that counts once its owner has confirmed it."""

from __future__ import annotations

from gdprdb.demo.page import letter
from gdprdb.demo.scenes.cast import APP, DPO, MAILER, WEBSITE
from gdprdb.demo.scenes.scene import Scene

NEWCOMER = "grace@example.org"

SUBMIT = """
    select gdpr.submit('crm.leads',
      '{"full_name": "Grace Example", "email": "grace@example.org",
        "country": "GB", "campaign": "footer"}',
      '{"kind": "web_form", "form": "footer", "ip": "203.0.113.9", "language": "en"}',
      p_consent => array['marketing'])
    """

FOUND = """
    select count(*) as leads, max(full_name) as name
    from leads
    where email_digest = gdpr.digest('email', :'email')
    """

CONFIRM = """
    select gdpr.confirm(:'token',
      p_evidence => '{"ip": "203.0.113.9"}')
    """


def double_opt_in(scene: Scene) -> None:
    """Registered, mailed, confirmed, and confirmed again."""
    story = scene.story
    story.chapter(
        "Double opt-in: registered is who confirms it",
        "Art. 5(1)(d), 7(1)",
        """Anybody can type anybody's address into a form. The policy says that leads come in by
        registration, and a registration is nothing until the owner of the address says so.""",
    )
    said = story.ask(WEBSITE, SUBMIT)
    before = story.ask(APP, FOUND, email=NEWCOMER)
    story.check("nothing is in the table, and nobody is known", before.rows == [(0, None)], before)
    again = story.ask(WEBSITE, SUBMIT)
    story.check(
        "sent twice, the form answers the same: it does not tell who is known already",
        again.value == said.value,
        (said.value, again.value),
    )
    arrived = scene.post()
    story.check(
        "one mail has arrived, however often the form was sent",
        [mail["To"] for mail in arrived] == [NEWCOMER],
        len(arrived),
    )
    story.show(letter(arrived[0]), "")
    story.note("The click:")
    token = scene.click(NEWCOMER)
    confirmed = story.ask(WEBSITE, CONFIRM, token=token)
    story.check("confirmed", confirmed.value["status"] == "confirmed", confirmed.value)
    twice = story.ask(WEBSITE, CONFIRM, token=token)
    story.check(
        "a second click is told so, kindly",
        twice.value["status"] == "already_confirmed",
        twice.value,
    )
    after = story.ask(MAILER, FOUND, email=NEWCOMER)
    story.check(
        "the row is there, with the consent that was ticked",
        after.rows == [(1, "Grace Example")],
        after.rows,
    )
    source = story.ask(
        DPO,
        """
        select s.kind, s.details
        from gdpr_clear.leads as l
        cross join lateral gdpr.source_of('crm.leads', l.id::text) as s
        where l.email_digest = gdpr.digest('email', :'email')
        """,
        email=NEWCOMER,
    )
    (details,) = source.column("details")
    story.check(
        "and with where it came from: the form, the address, both times",
        source.column("kind") == ["web_form"]
        and {"form", "ip", "submitted_at", "confirmed_at"} <= set(details),
        source.rows,
    )
