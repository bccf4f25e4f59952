"""The story that the demo tells, chapter by chapter.

Each chapter is a function that runs statements as the people of the shop and checks what they get.
The persons it is about are taken from the data: customers 1 to 5, one after the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from rich.padding import Padding
from rich.text import Text

from gdprdb.demo.page import Margin, cell, code
from gdprdb.demo.story import Actor, Answer, Story

if TYPE_CHECKING:
    from datetime import datetime

APP = Actor("crm_app", "the CRM application", "green", "gdpr_clear, crm", unlocks=True)
BI = Actor("metabase", "the BI tool", "cyan", "gdpr_bi, crm")
MAILER = Actor("mailer", "the newsletter tool", "dark_orange3", "gdpr_clear, crm", unlocks=True)
OWNER = Actor("crm_owner", "the DBA, who owns the tables", "magenta", "crm", unlocks=True)
DPO = Actor("dpo", "the data protection officer", "blue", "crm", unlocks=True)
AUDITOR = Actor("auditor", "the auditor", "bright_blue", "crm")
HOST = Actor("postgres", "the hosting provider, superuser", "red", "crm")
CAST = (APP, MAILER, BI, OWNER, DPO, AUDITOR, HOST)

PEOPLE = """
    select id, customer_no, first_name, last_name, email, birth_date, country
    from customers
    where id <= 5
    order by id
    """
"""One statement, run unchanged by everybody."""


LOOK_EVERY = 0.4
LINGER = 0.8
"""Seconds between two looks at an expiring consent, and how long to look on after its end."""

SMALLEST = 10
"""Customers that the story needs at least."""


@dataclass(slots=True)
class Scene:
    """What the chapters share.

    Attributes:
        story: who is told what, over which connections.
        policy_text: the policy file as written.
        policy: the same as JSON.
        seconds: how long the consent of chapter 6 lasts.
        people: what the first chapter read, by the customer's number.
    """

    story: Story
    policy_text: str
    policy: str
    seconds: float = 3.0
    people: dict[int, dict[str, Any]] = field(default_factory=dict)

    def leaks(self, answer: Answer) -> list[str]:
        """Personal data of the first customers that appear anywhere in an answer."""
        text = "\n".join(str(cell(value)) for row in answer.rows for value in row)
        return [
            str(value)
            for person in self.people.values()
            for name, value in person.items()
            if name in ("email", "birth_date") and str(value) in text
        ]


def tell(scene: Scene) -> None:
    """The whole story. Raises DemoError at the first thing that is not as it should be."""
    for chapter in (
        before,
        declare,
        application,
        analyst,
        administrator,
        expiry,
        withdrawal,
        unlawful_write,
        audit,
        erasure,
        door,
        doctor,
    ):
        chapter(scene)


def before(scene: Scene) -> None:
    """The CRM without gdprdb: who may read a table reads the people in it."""
    story = scene.story
    story.chapter(
        "Before: whoever is let in sees everything",
        "Art. 5(1)(f)",
        """A CRM as there are many. The BI tool was given SELECT to count orders; it got names,
        mail addresses and birthdays with it, because that is where the orders are.""",
    )
    answer = story.ask(BI, PEOPLE)
    scene.people = {row[0]: dict(zip(answer.columns, row, strict=True)) for row in answer.rows}
    emails = answer.column("email")
    story.check(
        f"the BI tool reads {len(emails)} mail addresses that are none of its business",
        len(emails) == 5 and all("@example." in email for email in emails),
        emails,
    )


def declare(scene: Scene) -> None:
    """Plan, apply, and apply again."""
    story = scene.story
    story.chapter(
        "One document says who may use what, for what, on what basis",
        "Art. 5(1)(b), 6, 25",
        """A readable file under version control: purposes and their lawful bases, roles and their
        purposes, tables and what is in them. From it, the roles and the customers:""",
    )
    for start, end in (
        ("[roles.crm_app]", '[tables."crm.customers"]'),
        ('[tables."crm.customers"]', '[tables."crm.leads"]'),
    ):
        excerpt = code(section(scene.policy_text, start, end), "toml")
        story.show(Padding(excerpt, (0, 0, 1, 5), expand=False))
    story.note("gdprdb says first what it would do. Nothing is changed by asking:")
    plan = story.ask(
        OWNER,
        """
        select object, count(*) as steps, bool_or(rewrite) as rewritten,
          coalesce(bool_or(lock = 'ACCESS EXCLUSIVE'), false) as locked
        from gdpr.plan(:'policy')
        group by object
        order by min(step)
        """,
        policy=scene.policy,
    )
    steps = sum(plan.column("steps"))
    story.check(f"{steps} steps, all of them known beforehand", steps > 0, plan.rows)
    story.note(
        """Then it does it, in one transaction, on the tables as they are, rows and all. The key was
        made at installation and is kept outside of the database; who needs it brings it along, as
        a bind parameter. The DBA needs it this once and then puts it away."""
    )
    applied = story.ask(
        OWNER, "select count(*) as steps from gdpr.apply(:'policy')", policy=scene.policy
    )
    story.check("what was planned was done", applied.value == steps, applied.value)
    story.ask(OWNER, "reset gdpr.unlocked")
    again = story.ask(
        OWNER, "select count(*) as steps from gdpr.plan(:'policy')", policy=scene.policy
    )
    story.check("the same policy again has nothing to do", again.value == 0, again.value)


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
        f"""Now somebody asks for an offer on the web site and ticks a box. To have something to
        watch, this consent is good for {seconds:g} seconds; usually the policy's two years
        apply."""
    )
    story.ask(
        APP,
        """
        begin;
        select gdpr.set_context(p_actor => 'web shop',
          p_source => '{"kind": "web_form", "form": "offer"}');
        insert into leads (full_name, email, country, campaign)
        values ('Ada Example', 'ada@example.org', 'GB', 'web form');
        select gdpr.record_consent(gdpr.find_subject('email', 'ada@example.org'), 'marketing',
          p_granted => true, p_channel => 'web_form', p_evidence => '{"form": "offer"}',
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
        "select purpose, status, channel, valid_until from gdpr.consent order by consent_id",
    )
    (ends,) = consent.column("valid_until")
    story.check(
        "the row was there until that instant and not after, inside one transaction; no job ran",
        all((leads == 1) == (asked_at < ends) for leads, asked_at in looks)
        and {leads for leads, _ in looks} == {0, 1},
        (looks, ends),
    )


def watch(story: Story, statement: str, seconds: float) -> list[tuple[int, datetime]]:
    """Look until a little after ``seconds``, drawing each look; returns what was seen, and when."""
    began = time.monotonic()
    looks: list[tuple[int, datetime]] = []
    while (elapsed := time.monotonic() - began) < seconds + LINGER:
        answer = story.fetch(MAILER, statement)
        leads, email, _, asked_at = answer.rows[0]
        looks.append((leads, asked_at))
        story.show(countdown(story, elapsed, seconds, email))
        time.sleep(LOOK_EVERY)
    story.show("")
    return looks


def countdown(story: Story, elapsed: float, seconds: float, seen: str | None) -> Margin:
    """One look: how late it is, how much of the consent is left, who could be seen."""
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


def withdrawal(scene: Scene) -> None:
    """Withdrawn for one purpose, unaffected for another."""
    story = scene.story
    story.chapter(
        "A consent is withdrawn",
        "Art. 7(3)",
        """A customer agrees to the newsletter and thinks better of it. It ends there and then, for
        that purpose; the contract about the bicycle goes on.""",
    )
    email = scene.people[2]["email"]
    read = "select id, first_name, last_name, email from customers where id = 2"
    story.ask(
        APP,
        """
        select gdpr.record_consent(
          gdpr.find_subject('email', :'email'), 'marketing', true, 'in_person')
        """,
        email=email,
    )
    given = story.ask(MAILER, read)
    story.check("the newsletter tool sees the customer", len(given.rows) == 1, given.rows)
    story.ask(
        APP,
        """
        select gdpr.withdraw_consent(
          gdpr.find_subject('email', :'email'), 'marketing', 'email')
        """,
        email=email,
    )
    withdrawn = story.ask(MAILER, read)
    story.check("and now no more", withdrawn.rows == [], withdrawn.rows)
    contract = story.ask(APP, read)
    story.check("the order desk still does", len(contract.rows) == 1, contract.rows)


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
    story.ask(
        DPO,
        """
        select gdpr.lift_restriction(
          gdpr.find_subject('email', :'email'), 'the data were corrected')
        """,
        email=email,
    )
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


OLD_PHONE = """
    select gdpr.reveal(old ->> 'phone') as old_phone
    from gdpr.audit_log
    where request = 'T-2041'
    """

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


def doctor(scene: Scene) -> None:
    """What is not yet in order, what to do about it, and that it helped."""
    story = scene.story
    story.chapter(
        "The doctor finds what was left undone, and then nothing",
        "Art. 5(2), 24",
        """All this holds while the controls stand. The doctor compares the catalog with the policy:
        triggers, row security, new columns, rights that somebody should not have.""",
    )
    ask = """
        select severity, object, finding
        from gdpr.doctor()
        where severity in ('error', 'warning')
        """
    found = story.ask(OWNER, ask)
    story.check(
        "no error; the BI tool still has the rights that it was once given, and erased values may "
        "stand in the planner's statistics",
        set(found.column("severity")) == {"warning"}
        and any(BI.login in name for name in found.column("object")),
        found.rows,
    )
    story.note("The hints of these findings are statements. They are taken at their word:")
    hints = story.fetch(OWNER, "select hint from gdpr.doctor() where severity = 'warning'")
    story.ask(OWNER, "\n".join(hints.column("hint")))
    clean = story.ask(OWNER, ask)
    story.check("the doctor has no findings", clean.rows == [], clean.rows)


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


def section(text: str, start: str, end: str) -> str:
    """The lines of a document from the one beginning with ``start`` to before ``end``'s."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(start))
    last = next(number for number, line in enumerate(lines) if line.startswith(end))
    while not lines[last - 1].strip() or lines[last - 1].startswith("# --"):
        last -= 1
    return "\n".join(lines[first:last])
