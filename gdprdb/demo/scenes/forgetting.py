"""Forgetting somebody with a lawsuit, a shared lease and data elsewhere; then the door."""

from __future__ import annotations

import psycopg

from gdprdb.demo.page import letter
from gdprdb.demo.scenes.cast import APP, DPO, HOST, WEBSITE
from gdprdb.demo.scenes.scene import JOERG, Scene
from gdprdb.demo.scenes.sharing import MAILBOX

BACKUP = "last-night.dump"

LEASE = """
    select lease_no, holder_id, second_holder_id, monthly, holder_iban, second_iban
    from leases
    """

SALES = "select count(*) as orders, sum(total) as total from orders"

NEWCOMER = """
    insert into customers (customer_no, first_name, last_name, email, country)
    values ('C-NEW', 'J.', 'Somebody', :'email', 'DE')
    """

SPELLINGS = (
    ("JÖRG.MÜLLER@example.com", "in capitals, and without the tag"),
    ("jo\u0308rg.mu\u0308ller+news@example.com", "with letters and dots apart, and another tag"),
    ("\uff2aörg.Müller@example.com", "with a full-width J"),
    ("jörg\u200d.müller@example.com", "with a joiner that nobody sees"),
)
"""What one sees, and what is in it."""


def plan(scene: Scene) -> None:
    """He asks for it; a lawsuit keeps one row; the plan says so before anything happens."""
    story = scene.story
    story.chapter(
        "Before anybody is erased: what goes, what stays, and until when",
        "Art. 17(1), 17(3)",
        """He has seen enough, and asks in the portal to be forgotten. One of his orders is in
        court: that row is held, on a ground of the law, for three years.""",
    )
    story.ask(WEBSITE, "select gdpr.portal_erase(:'session') as request", session=scene.session)
    story.ask(
        DPO,
        """
        select gdpr.place_hold(gdpr.find_subject('email', :'email'), 'legal_claims', '3 O 17/26',
          'crm.orders', (select id::text from gdpr_clear.orders where order_no = 'J-1'),
          p_until => gdpr.until(current_date + 365 * 3)) as hold
        """,
        email=JOERG,
    )
    planned = story.ask(
        DPO,
        """
        select t ->> 'table' as table_name, t ->> 'method' as method, t ->> 'rows' as rows,
          t ->> 'kept' as kept, left(t ->> 'kept_until', 10) as kept_until,
          t ->> 'passed_on' as passed_on
        from jsonb_array_elements(
          gdpr.erasure_plan(gdpr.find_subject('email', :'email')) -> 'tables') as t
        """,
        email=JOERG,
    )
    rows = {row[0]: row[2:] for row in planned.rows}
    story.check(
        "of two orders one goes and one is kept; the lease is passed on to its second holder",
        rows["crm.orders"][:2] == ("1", "1") and rows["crm.leases"][3] == "1",
        planned.rows,
    )
    there = story.fetch(APP, "select count(*) from customers where customer_no = 'C-J'")
    story.check(
        "the plan is exact, because it was carried out and undone: he is still there",
        there.value == 1,
        there.value,
    )


def forgetting(scene: Scene) -> None:
    """Erased as far as the law allows; then the rest, by itself."""
    story = scene.story
    story.chapter(
        "Forgotten as far as the law allows, and the rest when it ends",
        "Art. 17, 18(2), 19",
        """Last night's backup still has him. This morning the officer carries the request out.""",
    )
    scene.run(HOST, f"pg_dump -Fc -f {BACKUP}")
    request = story.fetch(
        DPO,
        "select max(request_id) from gdpr.request_board where kind = 'erasure' and state = 'open'",
    ).value
    subject = scene.subject(JOERG)
    sales, lease = story.fetch(APP, SALES), story.ask(APP, LEASE)
    receipt = story.ask(
        DPO,
        f"""
        begin;
        select gdpr.set_context(p_request => '{request}');
        select gdpr.erase({subject}, 'request {request}') as receipt;
        select gdpr.complete_request({request}, 'fulfilled_in_part');
        commit
        """,
    )
    left = story.ask(
        DPO,
        f"""
        select subject_id, receipt -> 'key_destroyed' as key_destroyed, kept_rows, kept_until
        from gdpr.erasure_ledger
        where subject_id = {subject}
        """,
    )
    story.check(
        "what stays is counted, with its end; with it stays the key, and nothing else does",
        left.rows[0][1:3] == (False, 1) and left.rows[0][3] is not None,
        (left.rows, receipt.rows),
    )
    kept = "select order_no, ship_to from gdpr_clear.orders where order_no like 'J-%' order by 1"
    desk = story.ask(APP, kept)
    officer = story.ask(DPO, kept)
    story.check(
        "the order desk does not see the row that is kept; the officer does",
        ("J-1" in desk.column("order_no"), dict(officer.rows)["J-1"] is not None) == (False, True),
        (desk.rows, officer.rows),
    )
    shared = story.ask(APP, LEASE)
    story.check(
        "the lease is the other's now, with the other's bank account; the rate is what it was",
        (lease.rows[0][2], lease.rows[0][3], lease.rows[0][5])
        == (shared.rows[0][1], shared.rows[0][3], shared.rows[0][5] or shared.rows[0][4])
        and shared.rows[0][4] != lease.rows[0][4],
        (lease.rows, shared.rows),
    )
    story.note("The carrier is told. The notice knows him by the carrier's reference alone:")
    (notice,) = scene.post()
    story.show(letter(notice), "")
    story.check(
        "to the carrier, and no name in it",
        notice["To"] == MAILBOX and "Müller" not in str(notice),
        notice["To"],
    )
    story.note("The case is settled before its time. Nobody has to remember what was kept for it:")
    story.ask(
        DPO,
        f"""
        select gdpr.release_hold(hold_id, 'settled out of court')
        from gdpr.hold
        where subject_id = {subject}
        """,
    )
    done = story.ask(
        DPO,
        f"""
        select f -> 'key_destroyed' as key_destroyed, e.kept_rows
        from gdpr.erasure_ledger as e cross join jsonb_array_elements(e.finished) as f
        where e.subject_id = {subject}
        """,
    )
    story.check(
        "the erasure has finished itself: nothing is kept, and the key is gone",
        done.rows == [(True, None)],
        done.rows,
    )
    books = story.fetch(APP, SALES)
    story.check(
        f"the books add up as before: {books.rows[0][0]:,} orders, the same total",
        books.rows == sales.rows,
        (sales.rows, books.rows),
    )


def door(scene: Scene) -> None:
    """The erased person does not come back by an old list."""
    story = scene.story
    story.chapter(
        "The same person is refused at the door",
        "Art. 17",
        """Weeks later somebody types in an old business card. Nothing in the database says any
        more who that was; a keyed digest of the address is enough to know that it stays out,
        however it is written.""",
    )
    refusals = []
    for spelling, written in SPELLINGS:
        story.note(f"Written with {written}:")
        refusals.append(
            story.refuse(
                APP, NEWCOMER, "the same person, and refused", sqlstate="23505", email=spelling
            )
        )
    story.note("Whoever tries cannot tell this from an address that a customer has:")
    duplicate = story.refuse(
        APP,
        NEWCOMER,
        "this one is a plain duplicate",
        sqlstate="23505",
        email=scene.people[5]["email"],
    )
    story.check(
        "message, detail, hint and constraint do not tell that somebody was erased",
        {wording(blocked) for blocked in refusals} == {wording(duplicate)},
        (*map(wording, refusals), wording(duplicate)),
    )
    story.note("Who merely has a similar name is somebody else:")
    other = story.ask(APP, NEWCOMER, email="jorg.muller@example.com")
    story.check("jorg.muller is welcome", other.affected == 1, other.affected)


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
