"""The officer's desk: what is due, and an answer that nobody else can read."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, timedelta

import pyzipper

from gdprdb.demo.page import letter
from gdprdb.demo.scenes.cast import DPO
from gdprdb.demo.scenes.scene import JOERG, Scene


def board(scene: Scene) -> None:
    """Requests with a clock; one that came by post, and one whose sender is not known."""
    story = scene.story
    story.chapter(
        "The officer's board: what is due, and when",
        "Art. 12(3), 12(6)",
        """Requests come by all ways: through the portal, or by a letter that lay three weeks in
        the wrong tray. The time counts from when it came; one month, and a working day.""",
    )
    story.ask(
        DPO,
        """
        select gdpr.open_request('access', gdpr.find_subject('email', :'email'), 'post',
          now() - interval '21 days') as letter
        """,
        email=JOERG,
    )
    story.note(
        """An e-mail comes from an address that nobody knows. The clock stands until it is clear
        who asks:"""
    )
    unclear = story.ask(DPO, "select gdpr.open_request('erasure', null, 'email') as request").value
    story.ask(DPO, f"select gdpr.ask_identity({unclear})")
    seen = story.ask(
        DPO,
        "select request_id, kind, channel, status, due_on, days_left, misses\n"
        "from gdpr.request_board",
    )
    statuses = dict(zip(seen.column("request_id"), seen.column("status"), strict=True))
    due = seen.column("due_on")[0]
    story.check(
        "the old letter is on top, the unclear one is paused",
        seen.column("channel")[0] == "post"
        and isinstance(due, date)
        and due <= datetime.now(UTC).date() + timedelta(days=14)
        and statuses[unclear] == "paused",
        seen.rows,
    )


def access(scene: Scene) -> None:
    """The report as a letter, in an archive whose passphrase takes another way."""
    story = scene.story
    story.chapter(
        "The answer: everything, in a letter that opens for one person",
        "Art. 12(3), 15, 32(1)(a)",
        """The letter is answered by mail. What waits in the outbox is the order; the report is
        read, encrypted and sent in one go, and lies nowhere.""",
    )
    subject = scene.subject(JOERG)
    request = story.fetch(
        DPO, "select request_id from gdpr.request_board where channel = 'post'"
    ).value
    story.refuse(
        DPO,
        f"select gdpr.complete_request({request})",
        "a request cannot be closed as fulfilled before it is",
        sqlstate="PR611",
    )
    said = scene.run(
        DPO, f"gdprdb subject export --subject-id {subject} --request {request} --mail"
    )
    passphrase = said.splitlines()[-1]
    (mail,) = scene.post()
    story.show(letter(mail), "")
    (attachment,) = mail.iter_attachments()
    archive = pyzipper.AESZipFile(io.BytesIO(attachment.get_content()))
    with archive:
        names = archive.namelist()
        closed = False
        try:
            archive.read("letter.html")
        except RuntimeError:
            closed = True
        page = archive.read("letter.html", pwd=passphrase.encode()).decode()
    story.note(
        f"""He calls, is told the passphrase, and opens {attachment.get_filename()}:
        {", ".join(names)}."""
    )
    story.check(
        "without the passphrase it does not open; with it there is a letter about him, and nothing "
        "of the second holder of his lease",
        closed and JOERG in page and "DE02500105170137075030" not in page,
        names,
    )
    story.ask(DPO, f"select gdpr.complete_request({request})")
    steps = story.ask(
        DPO,
        f"""
        select at, event, due_on, facts
        from gdpr.request_history
        where request_id = {request}
        order by id
        """,
    )
    story.check(
        "received, answered, closed: on record, with who and when",
        steps.column("event")[0] == "received" and steps.column("event")[-1] == "completed",
        steps.column("event"),
    )
