"""What is no longer needed goes by rule; what is held stays."""

from __future__ import annotations

import time

from gdprdb.demo.scenes.cast import APP, DPO, OWNER
from gdprdb.demo.scenes.scene import Scene

OLD = """
    select full_name from gdpr_clear.leads where campaign = 'fair of long ago' order by 1
    """


def retention(scene: Scene) -> None:
    """Planned, held, carried out."""
    story = scene.story
    story.chapter(
        "What is over goes by itself",
        "Art. 5(1)(e)",
        """The policy keeps leads for 60 days: who has not bought by then will not. Two of them
        come from a fair of long ago, their last second runs, and about one there is a dispute.""",
    )
    story.ask(
        APP,
        """
        insert into leads (full_name, email, country, campaign, created_at)
        select l.*, 'GB', 'fair of long ago', now() - interval '60 days' + interval '1 second'
        from (values ('Ann Disputed', 'ann@example.org'), ('Bob Forgotten', 'bob@example.org')) as l
        """,
    )
    story.ask(
        DPO,
        """
        select gdpr.place_hold(gdpr.find_subject('email', 'ann@example.org'),
          'legal_claims', 'complaint 12/26') as hold
        """,
    )
    time.sleep(1)
    seen = story.ask(APP, f"select count(*) from ({OLD.strip()}) as l")
    story.check("at that instant nobody works with them any more", seen.value == 0, seen.value)
    plan = story.ask(
        DPO,
        """
        select table_name, kept_for, counted_from, rows_due, rows_held
        from gdpr.retention_plan()
        """,
    )
    (due,), (held,) = plan.column("rows_due"), plan.column("rows_held")
    story.check("the plan counts what is due, and what is held", due >= 1 and held == 1, plan.rows)
    story.note("The DBA has it run each night:")
    scene.run(OWNER, "gdprdb retention run --yes --format csv")
    left = story.ask(DPO, OLD)
    again = story.ask(DPO, "select sum(rows_due) as still_due from gdpr.retention_plan()")
    story.check(
        "who was due is gone, who is held is there; the next run has nothing to do",
        left.rows == [("Ann Disputed",)] and again.value == 0,
        (left.rows, again.rows),
    )
