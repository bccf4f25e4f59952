"""Whoever rules the server can change a record; that it was changed shows."""

from __future__ import annotations

import json

from gdprdb.demo.scenes.cast import AUDITOR, HOST, OWNER
from gdprdb.demo.scenes.scene import Scene

FORGERY = """
    begin;
    alter table gdpr_internal.audit_record disable trigger gdpr_50_append_only;
    update gdpr_internal.audit_record set actor = :'name' where request = 'T-2041';
    alter table gdpr_internal.audit_record enable always trigger gdpr_50_append_only;
    commit;
    """

VERIFY = "gdprdb audit verify --checkpoint checkpoints.jsonl --public-key audit.pub --format json"


def seals(scene: Scene) -> None:
    """Sealed, taken away, forged by the superuser, and found."""
    story = scene.story
    story.chapter(
        "The record cannot be changed without it showing",
        "Art. 5(2), 32(1)(b)",
        """A superuser can switch every trigger off. So records are sealed, like the pages of a
        ledger, and the last seal is kept, signed, where the hosting provider cannot reach it.""",
    )
    scene.run(OWNER, "gdprdb audit seal")
    scene.run(AUDITOR, "gdprdb ledger keygen audit.key > audit.pub")
    scene.run(AUDITOR, "gdprdb audit checkpoint --signing-key audit.key > checkpoints.jsonl")
    story.note("The hosting provider puts another name into the help desk's record:")
    story.ask(HOST, FORGERY, name="bert@helpdesk")
    found = json.loads(scene.run(AUDITOR, VERIFY, code=3))
    forged = story.fetch(
        AUDITOR, "select id from gdpr.audit_log where request = 'T-2041' and table_name is not null"
    )
    story.check(
        "the auditor computes the seals anew, and is told which record it is",
        [finding["record"] for finding in found] == forged.column("id"),
        found,
    )
    story.ask(HOST, FORGERY, name="anna@helpdesk")
    again = json.loads(scene.run(AUDITOR, VERIFY))
    story.check("put back as it was, it fits again", again == [], again)
