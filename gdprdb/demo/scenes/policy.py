"""The CRM as it was, and the document that says what is lawful."""

from __future__ import annotations

from rich.padding import Padding

from gdprdb.demo.page import code
from gdprdb.demo.scenes.cast import BI, OWNER
from gdprdb.demo.scenes.scene import PEOPLE, Scene


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


def section(text: str, start: str, end: str) -> str:
    """The lines of a document from the one beginning with ``start`` to before ``end``'s."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(start))
    last = next(number for number, line in enumerate(lines) if line.startswith(end))
    while not lines[last - 1].strip() or lines[last - 1].startswith("# --"):
        last -= 1
    return "\n".join(lines[first:last])
