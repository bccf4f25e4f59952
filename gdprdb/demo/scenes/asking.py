"""Consent: asked for, given in part, taken back by the same link."""

from __future__ import annotations

from gdprdb.demo.page import letter
from gdprdb.demo.scenes.cast import APP, AUDITOR, DPO, HOST, MAILER, WEBSITE
from gdprdb.demo.scenes.scene import Scene

CUSTOMER = 3
"""Who is asked, answers, and thinks better of it. Customer 1 is asked in German beside."""


def asking(scene: Scene) -> None:
    """A form in two languages, two mails."""
    story = scene.story
    story.chapter(
        "The shop asks for consent",
        "Art. 7(1), 7(2)",
        """What people agree to has to be known word for word, years later. The data protection
        officer records the words, in each language of the customers that the shop speaks.""",
    )
    story.ask(
        DPO,
        """
        select gdpr.record_form('news', f.language, array['marketing', 'service'],
          array['mail', 'phone'], f.title, f.statement, 'https://shop.example/privacy')
        from (values
          ('en', 'May we write to you?',
            'I would like to hear from the bicycle shop: offers once a month, and a word when '
            'my bicycle is due for its service. I decide freely, and can change my mind.'),
          ('de', 'Dürfen wir Ihnen schreiben?',
            'Ich möchte vom Fahrradladen hören: Angebote einmal im Monat, und eine Nachricht, '
            'wenn mein Rad zur Inspektion sollte. Ich entscheide frei und kann es mir anders '
            'überlegen.')
        ) as f (language, title, statement);
        select gdpr.publish_form('news', p_default_language => 'en') as version
        """,
    )
    story.refuse(
        HOST,
        "update gdpr_internal.consent_form set statement = 'I agree to everything.'",
        "once published, the words stay what they were",
        sqlstate="55000",
    )
    story.note(
        """The desk asks two customers at once. Each is asked in their own language, and has the
        two weeks of the policy to answer."""
    )
    asked = story.ask(
        APP,
        """
        select r.request_id, r.respond_until
        from gdpr.request_consents(
          array[
            gdpr.find_subject('email', :'one'),
            gdpr.find_subject('email', :'other')
          ],
          array['marketing', 'service'], p_channel => 'email', p_form => 'news') as r
        """,
        one=scene.people[1]["email"],
        other=scene.people[CUSTOMER]["email"],
    )
    story.check("two questions are asked", len(asked.rows) == 2, asked.rows)
    story.note(
        """The mails wait in the database, encrypted. A login that can do nothing else hands them
        to the mail server:"""
    )
    arrived = scene.post()
    german = scene.letters[scene.people[1]["email"]]["Subject"]
    story.check(
        f"two mails have arrived, one in German (“{german}”), and this one:",
        {mail["To"]: mail["Content-Language"] for mail in arrived}
        == {scene.people[1]["email"]: "de", scene.people[CUSTOMER]["email"]: "en"},
        [mail["Content-Language"] for mail in arrived],
    )
    story.show(letter(scene.letters[scene.people[CUSTOMER]["email"]]), "")
    left = story.ask(AUDITOR, "select template, language, event, attempts from gdpr.mail_log")
    story.check(
        "what stays is that they were sent; the content is deleted",
        left.column("event") == ["sent", "sent"] and not scene.leaks(left),
        left.rows,
    )


def answering(scene: Scene) -> None:
    """By the token, in part, once."""
    story = scene.story
    email = scene.people[CUSTOMER]["email"]
    token = scene.click(email)
    story.chapter(
        "The customer answers, in part",
        "Art. 4(11), 7",
        """The link leads to the shop's web site. Its login knows nobody: who it is about, the
        token says, of which the database keeps a digest only.""",
    )
    shown = story.ask(WEBSITE, "select gdpr.portal_form(:'token')", token=token)
    story.check(
        "it reads what was asked, and nothing that tells who was",
        len(shown.value["purposes"]) == 2 and not scene.leaks(shown),
        shown.value,
    )
    story.note("The customer wants offers, by mail, and not to be reminded of the service:")
    answered = story.ask(
        WEBSITE,
        """
        select gdpr.answer_consent(:'token',
          p_granted => array['marketing'], p_channels => array['mail'],
          p_evidence => '{"ip": "203.0.113.7"}')
        """,
        token=token,
    )
    story.check(
        "granted what was granted, declined the rest",
        answered.value == {"marketing": "granted", "service": "declined"},
        answered.value,
    )
    story.refuse(
        WEBSITE,
        "select gdpr.answer_consent(:'token',\n  p_granted => array['marketing', 'service'])",
        "a link answers once; guessed, late or used, the refusal is the same",
        sqlstate="PR303",
        token=token,
    )
    contact = story.ask(
        MAILER,
        f"""
        select id,
          gdpr.may_contact(gdpr_subject_id, 'mail', 'marketing') as by_mail,
          gdpr.may_contact(gdpr_subject_id, 'phone', 'marketing') as by_phone
        from crm.customers
        where id = {CUSTOMER}
        """,
    )
    story.check(
        "the newsletter tool may write, and not ring",
        contact.rows == [(CUSTOMER, True, False)],
        contact.rows,
    )


def withdrawal(scene: Scene) -> None:
    """Withdrawn by the link that asked, unaffected for another purpose."""
    story = scene.story
    email = scene.people[CUSTOMER]["email"]
    story.chapter(
        "A consent is withdrawn",
        "Art. 7(3)",
        """The customer thinks better of it, and follows the same link: taking back is as easy as
        giving. It ends there and then, for that purpose; the contract about the bicycle goes
        on.""",
    )
    read = f"select id, first_name, last_name, email from customers where id = {CUSTOMER}"
    given = story.ask(MAILER, read)
    story.check("the newsletter tool sees the customer", len(given.rows) == 1, given.rows)
    said = story.ask(WEBSITE, "select gdpr.portal_withdraw(:'token')", token=scene.click(email))
    story.check(
        "taken back",
        said.value == {"marketing": "withdrawn", "service": "declined"},
        said.value,
    )
    withdrawn = story.ask(MAILER, read)
    story.check("and now no more", withdrawn.rows == [], withdrawn.rows)
    contract = story.ask(APP, read)
    story.check("the order desk still does", len(contract.rows) == 1, contract.rows)
