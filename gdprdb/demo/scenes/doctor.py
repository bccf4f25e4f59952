"""What is not yet in order."""

from __future__ import annotations

from gdprdb.demo.scenes.cast import BI, OWNER
from gdprdb.demo.scenes.scene import Scene


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
