"""``gdprdb breach``: personal data breaches, from the first word to the last."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import rich_click as click

from gdprdb.cli.options import (
    database,
    document,
    dry_run_option,
    dsn_option,
    go_ahead,
    moment,
    reason_option,
    table_option,
    yes_option,
)
from gdprdb.cli.output import Rows, fetched, flattened, output, say
from gdprdb.cli.persons import persons_where
from gdprdb.dsn import one
from gdprdb.errors import GdprdbError

KINDS = ("confidentiality", "integrity", "availability")

#: What a list of breaches shows; `show` shows everything.
BOARD = (
    "select breach_id, status, overdue, risk, nature, aware_at, notify_by, notified_at,"
    " persons, persons_told, closed_at from gdpr.breach"
)

_number = click.argument("number", type=int)


@click.group()
def breach() -> None:
    """Keep the register of breaches: what happened, the 72 hours, who was told.

    Example:

        gdprdb breach list
    """


@breach.command("list")
@dsn_option
@click.option("--all", "everything", is_flag=True, help="Closed ones, too.")
@output
def list_(dsn: str | None, everything: bool) -> Rows:
    """List breaches, what is to be done next, and by when.

    Example:

        gdprdb breach list --all --format csv
    """
    with database(dsn) as connection:
        closed = "" if everything else " where status <> 'closed'"
        return fetched(connection.execute(f"{BOARD}{closed} order by notify_by".encode()))


@breach.command()
@dsn_option
@_number
@click.option("--history", is_flag=True, help="Event by event.")
@output
def show(dsn: str | None, number: int, history: bool) -> Rows:
    """Show all that is known of a breach.

    Example:

        gdprdb breach show 3 --history
    """
    with database(dsn) as connection:
        if history:
            return fetched(
                connection.execute(
                    "select id, event, details, happened_at, recorded_by from gdpr.breach_history"
                    " where breach_id = %s order by id",
                    [number],
                )
            )
        row = connection.execute(
            "select to_jsonb(b) from gdpr.breach as b where b.breach_id = %s", [number]
        ).fetchone()
    if row is None:
        raise GdprdbError("there is no such breach")
    return Rows(["what", "value"], list(flattened(row[0])), document=row[0])


def _facts(command: Any) -> Any:
    """The options by which a breach is described."""
    for option in reversed(
        (
            click.option("--nature", help="What happened. No personal data."),
            click.option(
                *("--kind", "kinds"), type=click.Choice(KINDS), multiple=True, help="What was lost."
            ),
            click.option("--occurred-from", callback=moment, help="When it began (ISO 8601)."),
            click.option("--occurred-until", callback=moment, help="When it ended."),
            click.option("--persons", type=int, help="About how many persons."),
            click.option("--records", type=int, help="About how many records."),
            click.option(
                *("--category", "categories"),
                multiple=True,
                help="Of data and persons. Repeatable.",
            ),
            click.option("--consequences", help="What it may lead to."),
            click.option("--measures", help="What was done and will be done."),
            click.option("--processor", help="Whose breach it was: gdprdb share recipients."),
        )
    ):
        command = option(command)
    return command


def _told(options: dict[str, Any]) -> str:
    """What the user said, as JSON, without what they left out."""
    said = {key: value for key, value in options.items() if value not in (None, ())}
    return json.dumps(said, default=lambda value: value.isoformat())


@breach.command()
@dsn_option
@click.option("--aware-at", callback=moment, help="When you became aware; else now (ISO 8601).")
@_facts
@dry_run_option
@output
def record(
    dsn: str | None, aware_at: datetime.datetime | None, dry_run: bool, **options: Any
) -> Rows:
    """Open a case; prints its number and the end of the 72 hours.

    Example:

        gdprdb breach record --nature 'A laptop was stolen' --kind confidentiality --persons 300
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        (opened,) = one(
            connection,
            "select gdpr.record_breach(%s::jsonb, coalesce(%s, statement_timestamp()))",
            [_told(options), aware_at],
        )
        return fetched(connection.execute(f"{BOARD} where breach_id = %s".encode(), [opened]))


@breach.command()
@dsn_option
@_number
@_facts
@dry_run_option
def amend(dsn: str | None, number: int, dry_run: bool, **options: Any) -> None:
    """Add what has become known; later facts replace earlier ones, the history keeps both.

    Example:

        gdprdb breach amend 3 --persons 280 --measures 'Passwords were reset'
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        connection.execute("select gdpr.amend_breach(%s, %s)", [number, _told(options)])


@breach.command()
@dsn_option
@_number
@click.option(
    "--risk",
    required=True,
    type=click.Choice(["unlikely", "risk", "high"]),
    help="To the persons: the authority is told of a risk, they of a high one.",
)
@reason_option
@dry_run_option
def assess(dsn: str | None, number: int, risk: str, reason: str, dry_run: bool) -> None:
    """Say what a breach means for the persons, and so who has to be told.

    Example:

        gdprdb breach assess 3 --risk high --reason 'passwords in clear text'
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        connection.execute("select gdpr.assess_breach(%s, %s, %s)", [number, risk, reason])


@breach.command()
@dsn_option
@_number
@click.option("--authority", required=True, help="Which supervisory authority.")
@click.option("--reference", required=True, help="Its case, or that of your letter.")
@click.option("--at", "told_at", callback=moment, help="When; else now (ISO 8601).")
@click.option("--delay-reason", help="Why not within 72 hours.")
@dry_run_option
def notify(
    dsn: str | None,
    number: int,
    authority: str,
    reference: str,
    told_at: datetime.datetime | None,
    delay_reason: str | None,
    dry_run: bool,
) -> None:
    """Record that the supervisory authority was told.

    Example:

        gdprdb breach notify 3 --authority 'LfDI BW' --reference 2027/114
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        connection.execute(
            "select gdpr.notify_breach(%s, %s, %s, coalesce(%s, statement_timestamp()), %s)",
            [number, authority, reference, told_at, delay_reason],
        )


@breach.command()
@dsn_option
@_number
@click.option("--subject-id", "subjects", type=int, multiple=True, help="A person. Repeatable.")
@table_option("A protected table: the persons of its rows.")
@click.option("--where", help="Which rows' persons: SQL over the table's clear view.")
@click.option("--login", help="Whose data this login changed, as the audit has it.")
@click.option("--from", "since", callback=moment, help="With --login: from when (ISO 8601).")
@click.option("--until", callback=moment, help="With --login: until when; else now.")
@dry_run_option
def persons(
    dsn: str | None,
    number: int,
    subjects: tuple[int, ...],
    table: str | None,
    where: str | None,
    login: str | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    dry_run: bool,
) -> None:
    """Record whose data a breach is about: by number, by rows, or by who changed them.

    Example:

        gdprdb breach persons 3 --table crm.customer --where "city = 'Ulm'"
    """
    if bool(subjects) + (where is not None) + (login is not None) != 1:
        raise click.UsageError(
            "name persons by --subject-id, by --table and --where, or by --login"
        )
    if (where is not None and table is None) or (login is not None and since is None):
        raise click.UsageError("--where is about the rows of --table; --login takes --from")
    with database(dsn, dry_run=dry_run) as connection:
        found = list(subjects)
        if table is not None and where is not None:
            found = persons_where(connection, table, where)
        elif login is not None:
            found = [
                person
                for (person,) in connection.execute(
                    "select subject_id from gdpr.persons_touched("
                    "%s, %s, coalesce(%s, statement_timestamp()), gdpr.table_named(%s))",
                    [login, since, until, table],
                )
            ]
        (added,) = one(connection, "select gdpr.add_breach_persons(%s, %s)", [number, found])
    say(f"{added:,} persons were added.")


@breach.command()
@dsn_option
@_number
@click.option(
    "--message",
    "messages",
    required=True,
    multiple=True,
    metavar="LANGUAGE=FILE",
    help="The words in one language, from a file: en=letter.txt. Repeatable.",
)
@dry_run_option
@yes_option
def tell(dsn: str | None, number: int, messages: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Write to the persons who were not told yet; gdprdb outbox send takes the mails out.

    Example:

        gdprdb breach tell 3 --message en=letter.en.txt --message de=letter.de.txt
    """
    words = {}
    for message in messages:
        language, equals, path = message.partition("=")
        if not equals:
            raise click.UsageError("write --message as LANGUAGE=FILE: en=letter.txt")
        words[language] = Path(path).read_text(encoding="utf-8")
    with database(dsn) as connection:
        plan = fetched(
            connection.execute(
                "select persons - persons_told as persons_to_tell, nature from gdpr.breach"
                " where breach_id = %s",
                [number],
            )
        )
        if not go_ahead(plan, "Write to them?", dry_run=dry_run, yes=yes):
            return
        queued, unreachable, last = 0, 0, 0
        while last is not None:
            sent, without_address, last = one(
                connection,
                "select * from gdpr.tell_breach(%s, %s::jsonb, p_after => %s)",
                [number, json.dumps(words), last],
            )
            connection.commit()
            queued, unreachable = queued + sent, unreachable + without_address
    say(f"{queued:,} mails wait to be sent; {unreachable:,} persons have no address.")


@breach.command()
@dsn_option
@_number
@click.option("--subject-id", type=int, required=True, help="The person's number.")
@click.option(
    "--channel",
    required=True,
    type=click.Choice(["post", "phone", "in_person"]),
    help="How they were told.",
)
@click.option(
    "--evidence",
    required=True,
    callback=document,
    help='{"who", "when", "how", "reference"}, as JSON; kept encrypted.',
)
@dry_run_option
def told(
    dsn: str | None, number: int, subject_id: int, channel: str, evidence: Any, dry_run: bool
) -> None:
    """Record that a person was told by post, by phone or in person.

    Example:

        gdprdb breach told 3 --subject-id 42 --channel post --evidence "$(cat letter.json)"
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        connection.execute(
            "select gdpr.breach_told(%s, %s, %s, %s)", [number, subject_id, channel, evidence]
        )


@breach.command()
@dsn_option
@_number
@click.option(
    "--ground",
    required=True,
    type=click.Choice(["data_unintelligible", "risk_averted", "public_communication"]),
    help="Art. 34(3)(a) to (c).",
)
@reason_option
@dry_run_option
def excuse(dsn: str | None, number: int, ground: str, reason: str, dry_run: bool) -> None:
    """Say why the persons are not told one by one.

    Example:

        gdprdb breach excuse 3 --ground data_unintelligible --reason 'the key was elsewhere'
    """
    with database(dsn, dry_run=dry_run, done="Recorded.") as connection:
        connection.execute("select gdpr.excuse_breach(%s, %s, %s)", [number, ground, reason])


@breach.command()
@dsn_option
@_number
@reason_option
@dry_run_option
def close(dsn: str | None, number: int, reason: str, dry_run: bool) -> None:
    """Close a case, once whoever has to be told was told.

    Example:

        gdprdb breach close 3 --reason 'disks are encrypted now'
    """
    with database(dsn, dry_run=dry_run, done="Closed.") as connection:
        connection.execute("select gdpr.close_breach(%s, %s)", [number, reason])
