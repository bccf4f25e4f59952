"""What may be written, and the record of what was."""

from __future__ import annotations

from gdprdb.demo.scenes.cast import APP, AUDITOR, DPO, HOST, MAILER
from gdprdb.demo.scenes.scene import Scene

OLD_PHONE = """
    select old ->> 'phone' as old_phone
    from gdpr.audit_log
    where request = 'T-2041'
    """


def unlawful_write(scene: Scene) -> None:
    """Writing about a restricted person, and claiming a purpose that one does not hold."""
    story = scene.story
    story.chapter(
        "An unlawful write is refused",
        "Art. 5(1)(b), 18",
        """A customer says that what we hold about her is wrong. Until that is settled it may be
        kept, and nothing else. The application does not know; the database does.""",
    )
    email = scene.people[3]["email"]
    story.ask(
        DPO,
        """
        select gdpr.restrict(
          gdpr.find_subject('email', :'email'), 'accuracy_contested')
        """,
        email=email,
    )
    order = """
        insert into orders (order_no, customer_id, item, total)
        values ('W-1', 3, 'Helmet', 79.95)
        """
    story.refuse(APP, order, "no order for a restricted person", sqlstate="PR601")
    lift = """
        select gdpr.lift_restriction(
          gdpr.find_subject('email', :'email'), 'the data were corrected')
        """
    story.ask(DPO, lift, email=email)
    (told,) = scene.post()
    story.check("it does not end behind her back: she is told", told["To"] == email, told["To"])
    taken = story.ask(APP, order)
    story.check("lifted, the same order is taken", taken.affected == 1, taken.affected)
    story.note("Nor does it help to say that one works for something else:")
    story.refuse(
        MAILER,
        """
        begin;
        set local gdpr.purpose = 'orders';
        select email from customers limit 1;
        """,
        "a purpose can be claimed only by a role that holds it",
        sqlstate="42501",
    )


def audit(scene: Scene) -> None:
    """Who changed what, when, for what; and that nobody rubs it out."""
    story = scene.story
    story.chapter(
        "Every change is on record",
        "Art. 5(2), 30",
        """The help desk corrects a telephone number. The application says for whom it works; the
        database adds what it knows itself. What was there before is kept, encrypted.""",
    )
    story.ask(
        APP,
        """
        begin;
        select gdpr.set_context(p_actor => 'anna@helpdesk', p_request => 'T-2041');
        update customers set phone = '+33 1 70189999' where id = 4;
        commit;
        """,
    )
    record = story.ask(
        AUDITOR,
        """
        select at, actor, login, purpose, table_name, operation, changed
        from gdpr.audit_log
        where request = 'T-2041'
        """,
    )
    story.check(
        "the auditor sees who, over which login, for what, and which column; no value",
        record.column("login") == [APP.login] and record.column("changed") == [["phone"]],
        record.rows,
    )
    old = story.ask(DPO, OLD_PHONE)
    story.check(
        "the data protection officer can look up what was there before",
        old.value is not None and old.value.startswith("+33"),
        old.rows,
    )
    story.note("And there it stays, for the superuser too:")
    story.refuse(
        HOST,
        "delete from gdpr_internal.audit_record where request = 'T-2041'",
        "evidence can be added to, and not taken back",
        sqlstate="55000",
    )
