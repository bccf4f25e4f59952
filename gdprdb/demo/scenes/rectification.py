"""A value that is wrong is corrected wherever it stands, by two pairs of eyes."""

from __future__ import annotations

from gdprdb.demo.page import letter, text_of
from gdprdb.demo.scenes.cast import APP, DEPUTY, DPO
from gdprdb.demo.scenes.scene import JOERG, Scene
from gdprdb.demo.scenes.sharing import CARRIER

PHONES = """
    select c.phone as customer, l.phone as lead
    from customers as c
    join leads as l on l.email_digest = c.email_digest
    where c.customer_no = 'C-J'
    """


def rectification(scene: Scene) -> None:
    """Proposed by the person, or by one officer, and approved by another; then others are told."""
    story = scene.story
    story.chapter(
        "What is wrong is corrected, in every table, by four eyes",
        "Art. 16, 19",
        """The number that he gave in the portal waits as a proposal. It stands in two tables; the
        policy says that the one is a copy of the other.""",
    )
    waiting = story.ask(
        DPO,
        """
        select rectification_id, by_person, c ->> 'table' as table_name, c ->> 'column' as column,
          c ->> 'value' as value
        from gdpr.rectification cross join jsonb_array_elements(changes) as c
        where status = 'proposed'
        """,
    )
    (proposal,) = waiting.column("rectification_id")
    request = story.fetch(
        DPO, "select request_id from gdpr.request_board where kind = 'rectification'"
    ).value
    before = story.ask(APP, PHONES)
    story.ask(
        DPO,
        f"""
        begin;
        select gdpr.set_context(p_request => '{request}');
        select gdpr.approve_rectification({proposal}, 'called back');
        select gdpr.complete_request({request});
        commit;
        """,
    )
    after = story.ask(APP, PHONES)
    story.check(
        "corrected where he is a customer, and where he was a lead",
        before.rows == [("+49 151 20304050",) * 2] and after.rows == [("+49 151 20304051",) * 2],
        (before.rows, after.rows),
    )
    story.note("What an officer finds wrong takes another one. The postal code, says the carrier:")
    own = story.ask(
        DPO,
        f"""
        select gdpr.propose_rectification(gdpr.find_subject('email', :'email'),
          '[{{"table": "crm.customers", "key": "{scene.customer}",
            "column": "postal_code", "value": "89075"}}]')
        """,
        email=JOERG,
    ).value
    approve = f"select gdpr.approve_rectification({own}) as record"
    story.refuse(DPO, approve, "who proposed it cannot approve it", sqlstate="PR631")
    story.ask(DEPUTY, approve)
    due = story.ask(
        DPO, "select recipient, event, details, persons from gdpr.notice_due order by notice_id"
    )
    story.check(
        "the carrier, who has the wrong ones, is to be told",
        due.column("recipient") == [CARRIER] * 2 and set(due.column("event")) == {"rectification"},
        due.rows,
    )
    notices = scene.post()
    story.show(letter(notices[0]), "")
    story.check(
        "by mails that say which person, by the carrier's reference, and which column; no value",
        [
            name in text_of(mail)
            for mail, name in zip(notices, ("phone", "postal_code"), strict=True)
        ]
        == [True, True]
        and not any(value in text_of(mail) for mail in notices for value in ("2030405", "8907")),
        [text_of(mail) for mail in notices],
    )
