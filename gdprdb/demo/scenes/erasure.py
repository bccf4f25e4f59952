"""A person is forgotten, and does not come back by an old list."""

from __future__ import annotations

import psycopg

from gdprdb.demo.scenes.cast import APP, DPO
from gdprdb.demo.scenes.scene import Scene
from gdprdb.demo.scenes.writes import OLD_PHONE

DOSSIER = """
    select c.id, c.last_name, c.email, c.birth_date,
      (select count(*) from orders as o where o.customer_id = c.id) as orders,
      (select sum(o.total) from orders as o where o.customer_id = c.id) as revenue,
      (select count(*) from tickets as t where t.customer_id = c.id) as tickets
    from customers as c
    where c.id = 4
    """


def erasure(scene: Scene) -> None:
    """The right to be forgotten, with a receipt."""
    story = scene.story
    story.chapter(
        "A person is erased",
        "Art. 17",
        """A customer wants to be forgotten. One call follows the policy through every table,
        destroys the person's key, so that no copy of a ciphertext can be read, and gives a
        receipt.""",
    )
    email = scene.people[4]["email"]
    before = story.ask(APP, DOSSIER)
    story.check("the customer is there", scene.leaks(before) != [], before.rows)
    receipt = story.ask(DPO, "select gdpr.erase(gdpr.find_subject('email', :'email'))", email=email)
    story.check(
        "the receipt counts what was done and names nobody",
        receipt.value["key_destroyed"] and not scene.leaks(receipt),
        receipt.value,
    )
    after = story.ask(APP, DOSSIER)
    story.check(
        "nobody is left in it; the books still add up",
        not scene.leaks(after) and after.rows[0][4:] == (*before.rows[0][4:6], 0),
        after.rows,
    )
    old = story.ask(DPO, OLD_PHONE)
    story.check("not even the record of the change can be read any more", old.value is None, old)


def door(scene: Scene) -> None:
    """The erased person does not come back by an old list."""
    story = scene.story
    email = scene.people[4]["email"]
    name, domain = email.split("@")
    story.chapter(
        "The same person is refused at the door",
        "Art. 17",
        """Weeks later somebody types in an old business card. Nothing in the database says any
        more who that was; a keyed digest of the address is enough to know that it stays out.""",
    )
    newcomer = """
        insert into customers (customer_no, first_name, last_name, email, country)
        values ('C-NEW', 'G.', 'Somebody', :'email', 'FR')
        """
    blocked = story.refuse(
        APP,
        newcomer,
        "capitals, blanks and a plus-tag do not make another person",
        sqlstate="23505",
        email=f" {name.title()}+bike@{domain.upper()}",
    )
    story.note("Whoever tries cannot tell this from an address that a customer has:")
    duplicate = story.refuse(
        APP,
        newcomer,
        "this one is a plain duplicate",
        sqlstate="23505",
        email=scene.people[5]["email"],
    )
    story.check(
        "message, detail, hint and constraint do not tell that somebody was erased",
        wording(blocked) == wording(duplicate),
        (wording(blocked), wording(duplicate)),
    )
    answer = story.ask(
        DPO,
        """
        select gdpr.is_blocked('email', :'erased') as erased,
          gdpr.is_blocked('email', :'other') as somebody_else
        """,
        erased=email,
        other=scene.people[5]["email"],
    )
    story.check(
        "blocked is who was erased, nobody else", answer.rows == [(True, False)], answer.rows
    )


def wording(error: psycopg.Error) -> tuple[str | None, ...]:
    """What an error says."""
    said = error.diag
    return (
        said.sqlstate,
        said.message_primary,
        said.message_detail,
        said.message_hint,
        said.constraint_name,
    )
