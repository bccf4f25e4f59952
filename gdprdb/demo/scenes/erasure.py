"""A person is forgotten, by one call."""

from __future__ import annotations

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
