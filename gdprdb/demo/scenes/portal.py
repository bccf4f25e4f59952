"""What a person does alone, on the web site: look, take along, correct, object."""

from __future__ import annotations

from gdprdb.demo.page import letter
from gdprdb.demo.scenes.cast import APP, BI, WEBSITE
from gdprdb.demo.scenes.scene import JOERG, Scene

REQUESTS = """
    select r ->> 'request' as request, r ->> 'kind' as kind, r ->> 'state' as state,
      r ->> 'due_on' as due_on
    from jsonb_array_elements(gdpr.portal_requests(:'session')) as r
    """

COUNTED = "select count(*) as customers from customers"


def portal(scene: Scene) -> None:
    """Signed in by a mailed link, once; what is asked for is a request with a date."""
    story = scene.story
    story.chapter(
        "A person looks after their own data",
        "Art. 12(2), 15, 16, 20, 21",
        """Jörg Müller has bought a cargo bike, and leases another one together with somebody else.
        He was a lead before; the same address makes him the same person.""",
    )
    story.ask(
        APP,
        """
        begin;
        select gdpr.set_context(p_actor => 'sales desk', p_source => '{"kind": "manual"}');
        insert into leads (full_name, email, phone, country, campaign)
        values ('Jörg Müller', :'email', '+49 151 20304050', 'DE', 'spring fair');
        insert into customers (customer_no, first_name, last_name, email, phone, street,
          postal_code, city, country, language)
        values ('C-J', 'Jörg', 'Müller', :'email', '+49 151 20304050', 'Lindenstraße 7',
          '89073', 'Ulm', 'DE', 'en');
        insert into orders (order_no, customer_id, item, total, ship_to)
        select o.no, c.id, o.item, o.total, 'Jörg Müller, Lindenstraße 7, 89073 Ulm'
        from customers as c,
          (values ('J-1', 'Cargo bike', 3290.00), ('J-2', 'Helmet', 79.95)) as o (no, item, total)
        where c.customer_no = 'C-J';
        insert into leases (lease_no, holder_id, second_holder_id, item, monthly,
          holder_iban, second_iban)
        select 'L-1', c.id, 2, 'Folding bike', 39.00,
          'DE02120300000000202051', 'DE02500105170137075030'
        from customers as c where c.customer_no = 'C-J';
        commit;
        """,
        email=JOERG,
    )
    story.note("On the web site he asks for a link. Whoever asks learns nothing:")
    known = story.ask(WEBSITE, "select gdpr.portal_request_sign_in(:'email', 'en')", email=JOERG)
    unknown = story.ask(WEBSITE, "select gdpr.portal_request_sign_in('nobody@example.org', 'en')")
    arrived = scene.post()
    story.check(
        "the same answer for a stranger's address, and one mail: to the person who is known",
        known.value == unknown.value
        and [mail["To"].casefold() for mail in arrived] == [JOERG.casefold()],
        [mail["To"] for mail in arrived],
    )
    story.show(letter(arrived[0]), "")
    token = scene.click(JOERG)
    session = story.ask(
        WEBSITE,
        "select s ->> 'session' as session from gdpr.portal_sign_in(:'token') as s",
        token=token,
    ).value
    story.refuse(
        WEBSITE,
        "select gdpr.portal_sign_in(:'token')",
        "the link signs in once",
        sqlstate="PR303",
        token=token,
    )
    story.note("Everything about him, from each table. Of the lease that is shared, his part:")
    data = story.ask(
        WEBSITE,
        """
        select t ->> 'table' as table_name, jsonb_array_length(t -> 'rows') as rows,
          t -> 'rows' -> 0 as first_row
        from jsonb_array_elements(gdpr.portal_data(:'session') -> 'tables') as t
        order by 1
        """,
        session=session,
    )
    shown = str(data.rows)
    story.check(
        "his rows of four tables; the bank account of the second holder is not among them",
        data.column("rows") == [1, 1, 1, 2]
        and "DE02120300000000202051" in shown
        and "DE02500105170137075030" not in shown,
        data.rows,
    )
    copy = story.ask(
        WEBSITE,
        "select c ->> 'document' as document, length(c::text) as characters\n"
        "from gdpr.portal_copy(:'session') as c",
        session=session,
    )
    story.check("he takes a copy along", copy.column("document") == ["portable_copy"], copy.rows)
    story.note(
        """His telephone number is wrong, and he does not want to be counted by BI, whose basis is
        an interest of the shop. The first waits for an officer; the second holds at once."""
    )
    key = next(row[2]["id"] for row in data.rows if row[0] == "crm.customers")
    before = story.ask(BI, COUNTED)
    story.ask(
        WEBSITE,
        f"""
        select gdpr.portal_correct(:'session',
          '[{{"table": "crm.customers", "key": "{key}", "column": "phone",
            "value": "+49 151 20304051"}}]') as correction;
        select gdpr.portal_object(:'session', 'analytics') as objection
        """,
        session=session,
    )
    after = story.ask(BI, COUNTED)
    story.check(
        "BI counts one customer less", after.value == before.value - 1, (before.value, after.value)
    )
    requests = story.ask(WEBSITE, REQUESTS, session=session)
    story.check(
        "each step is a request on record; he sees what was done, and until when the rest is due",
        requests.column("kind") == ["objection", "rectification", "portability", "access"]
        and requests.column("state") == ["open", "open", "completed", "completed"],
        requests.rows,
    )
    scene.session, scene.customer = session, key
