"""A backup remembers; the ledger forgets again."""

from __future__ import annotations

from dataclasses import replace

from gdprdb.demo.scenes.cast import APP, DPO, HOST
from gdprdb.demo.scenes.forgetting import BACKUP, NEWCOMER, SPELLINGS
from gdprdb.demo.scenes.scene import Scene

DATABASE = "restored"

READ = "select customer_no, first_name, last_name, email from customers where customer_no = 'C-J'"


def restore(scene: Scene) -> None:
    """Restored from before the erasure: refused, replayed, forgotten again."""
    story = scene.story
    story.chapter(
        "A restored backup refuses to work until it has forgotten again",
        "Art. 17, 32(1)(c)",
        """The disk fails. The newest backup is from before the erasure. What must not come back
        stands in the ledger: numbers and keyed digests, signed, kept where the backups are not.""",
    )
    scene.run(DPO, "gdprdb ledger keygen ledger.key > ledger.pub")
    scene.run(DPO, "gdprdb ledger export --signing-key ledger.key > ledger.jsonl")
    scene.run(HOST, f"createdb -O crm_owner {DATABASE}")
    scene.run(HOST, f"pg_restore -d {DATABASE} {BACKUP}")
    desk, officer = (
        replace(actor, who=f"{actor.who}, in the restored database", database=DATABASE)
        for actor in (APP, DPO)
    )
    remembered = story.ask(officer, READ.replace("from ", "from gdpr_clear."))
    story.check(
        "he is back, as an officer can see",
        remembered.column("last_name") == ["Müller"],
        remembered.rows,
    )
    story.refuse(
        desk, READ, "nobody works with it: the database knows it was restored", sqlstate="PR640"
    )
    scene.run(officer, "gdprdb ledger check ledger.jsonl --public-key ledger.pub", code=3)
    scene.run(officer, "gdprdb ledger replay ledger.jsonl --public-key ledger.pub --yes")
    forgotten = story.ask(desk, READ)
    story.check(
        "work goes on, and he is forgotten once more",
        [(row[1], row[2]) for row in forgotten.rows] == [("erased", "erased")]
        and "üller" not in str(forgotten.rows),
        forgotten.rows,
    )
    story.refuse(
        desk,
        NEWCOMER,
        "nor does he come back at this door",
        sqlstate="23505",
        email=SPELLINGS[0][0],
    )
