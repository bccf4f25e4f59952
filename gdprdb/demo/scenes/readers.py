"""One statement, and what the application, the BI tool, the DBA and the superuser see."""

from __future__ import annotations

from gdprdb.demo.scenes.cast import APP, BI, DPO, HOST, OWNER
from gdprdb.demo.scenes.scene import PEOPLE, Scene


def application(scene: Scene) -> None:
    """The same statement as before, and a look-up by e-mail."""
    story = scene.story
    story.chapter(
        "The application reads plaintext, and was not changed",
        "Art. 32(1)(a)",
        """Its search_path puts the schema gdpr_clear first. The views there carry the names,
        columns and types of the tables, can be written to, and decrypt for this role and its
        purposes.""",
    )
    answer = story.ask(APP, PEOPLE)
    story.check(
        "the application reads what it read before",
        [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        == list(scene.people.values()),
        answer.rows,
    )
    email = scene.people[2]["email"]
    story.note(
        """Mail addresses are encrypted, yet found through an index: on a keyed digest of their
        canonical form, so that spelling does not matter."""
    )
    found = story.ask(
        APP,
        """
        select id, first_name, last_name, email
        from customers
        where email_digest = gdpr.digest('email', :'email')
        """,
        email=email.upper(),
    )
    story.check("the customer is found", found.column("email") == [email], found.rows)


def analyst(scene: Scene) -> None:
    """Redacted views, statistics that still work, and no way round them."""
    story = scene.story
    story.chapter(
        "BI reads the same tables redacted",
        "Art. 5(1)(c), 25",
        """The same statement as the BI tool. Masks and missing columns follow from the policy; a
        column that nobody classified is empty until somebody does.""",
    )
    story.note(
        """BI works on a legitimate interest. It has to be weighed, and who weighs it cannot approve
        it; rows of today have a grace period, rows of tomorrow wait for it."""
    )
    number = story.ask(
        OWNER,
        """
        select gdpr.record_assessment(
          'analytics',
          p_interest => 'know which goods sell, and where',
          p_necessity => 'sums alone do not tell',
          p_balancing => 'no name leaves; nobody is judged by it',
          p_review => current_date + 365
        )
        """,
    )
    story.refuse(
        OWNER,
        f"select gdpr.approve_assessment({number.value})",
        "four eyes: who wrote it cannot approve it",
        sqlstate="PR206",
    )
    story.ask(DPO, f"select gdpr.approve_assessment({number.value})")
    answer = story.ask(BI, PEOPLE)
    story.check(
        "no name, no mail address, no birthday: a letter, a domain, a year",
        len(answer.rows) == 5 and not scene.leaks(answer),
        scene.leaks(answer),
    )
    story.note("What BI is for goes on working. subject_ref is one stable pseudonym per person:")
    revenue = story.ask(
        BI,
        """
        select c.country, count(distinct o.subject_ref) as customers, count(*) as orders,
          sum(o.total) as revenue
        from orders as o
        join customers as c using (subject_ref)
        group by c.country
        order by revenue desc
        """,
    )
    books = story.fetch(APP, "select sum(total) from orders")
    story.check(
        "sales by country add up to what the application has, and nobody is known",
        sum(revenue.column("revenue")) == books.value,
        (revenue.rows, books.value),
    )
    story.note("And the way round, to the table itself:")
    story.refuse(
        BI,
        "select email from crm.customers limit 1",
        "SELECT was granted once, and does not help any more",
        sqlstate="42501",
    )


def administrator(scene: Scene) -> None:
    """The owner of the table sees ciphertext."""
    story = scene.story
    story.chapter(
        "The DBA sees ciphertext",
        "Art. 32(1)(a)",
        """The owner of the tables keeps them running and needs nobody's birthday. What identifies
        people is encrypted, there and in every backup and replica, with one key per person.""",
    )
    answer = story.ask(
        OWNER,
        """
        select id, email, birth_date, phone
        from crm.customers
        where id <= 5
        order by id
        """,
    )
    values = [value for row in answer.rows for value in row[1:]]
    story.check(
        f"{len(values)} values, {len(set(values))} ciphertexts, nothing to read",
        len(values) == 15 and all(str(value).startswith("gdpr1:") for value in values),
        values,
    )
    story.note(
        """A superuser passes every row policy, and finds the same. What stays open to a superuser
        is the memory of the running server, while somebody works with the key."""
    )
    found = story.ask(
        HOST,
        """
        select count(*) as customers, count(*) filter (where email like '%@%') as with_an_address
        from crm.customers
        """,
    )
    story.check("no address in any row", found.rows[0][0] > 0 == found.rows[0][1], found.rows)
    story.refuse(
        HOST,
        "select gdpr.reveal(email) from crm.customers where id = 1",
        "all the rights in a database do not open what it has no key to",
        sqlstate="PR402",
    )
