"""``gdprdb outbox``: mails that wait, and sending them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from email.headerregistry import Address
from email.utils import parseaddr
from functools import partial
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import LiteralString

import psycopg
import rich_click as click
from psycopg import sql

from gdprdb.cli.options import (
    UNCHANGED,
    database,
    dry_run_option,
    dsn_option,
    go_ahead,
    reason_option,
    yes_option,
)
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.errors import DONE, FINDINGS, GdprdbError
from gdprdb.outbox.compose import (
    DEFAULT_LANGUAGE,
    AddressError,
    Composer,
    check_link,
    parse_address,
)
from gdprdb.outbox.sender import Pace, Sender
from gdprdb.outbox.smtp import Server

mail_option = click.option(
    "--mail-id", "mails", type=int, multiple=True, help="The mail's number; may be repeated."
)

all_dead_option = click.option("--all-dead", is_flag=True, help="All mails that are dead.")


@click.group()
def outbox() -> None:
    """Send the mails that wait in the database, and look after those that cannot be sent.

    Example:

        gdprdb outbox send --follow
    """


@outbox.command()
@dsn_option
@click.option(
    "--smtp",
    "url",
    required=True,
    envvar="GDPRDB_SMTP",
    show_envvar=True,
    metavar="URL",
    help="The mail server: smtp://user@host (STARTTLS, port 587), smtps://user@host (TLS, 465) or"
    " smtp+plain://host (no encryption, 25). The password is read from GDPRDB_SMTP_PASSWORD.",
)
@click.option(
    "--smtp-ca",
    envvar="GDPRDB_SMTP_CA",
    show_envvar=True,
    type=click.Path(exists=True, dir_okay=False),
    help="Certificates to trust instead of the system's.",
)
@click.option(
    "--from",
    "sender",
    required=True,
    envvar="GDPRDB_MAIL_FROM",
    show_envvar=True,
    help="Who writes: 'Example Ltd <privacy@example.org>'.",
)
@click.option(
    "--link",
    envvar="GDPRDB_MAIL_LINK",
    show_envvar=True,
    help="The page that a token opens: https://www.example.org/privacy/{page}?token={token}."
    " {page} is what for: consent, registration, opt_out.",
)
@click.option(
    "--templates",
    envvar="GDPRDB_MAIL_TEMPLATES",
    show_envvar=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A directory of templates that replace the built-in ones.",
)
@click.option(
    "--language",
    default=DEFAULT_LANGUAGE,
    show_default=True,
    help="For persons whose language is unknown or has no template.",
)
@click.option("--follow", is_flag=True, help="Go on: wait for new mails until stopped.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Mails sent at once.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Mails a second at the most, all workers together.",
)
@output
def send(
    dsn: str | None,
    url: str,
    smtp_ca: str | None,
    sender: str,
    link: str | None,
    templates: Path | None,
    language: str,
    follow: bool,
    workers: int,
    rate: float | None,
) -> Rows:
    """Send the mails that are due, as a login that the policy binds to audience mail.

    Mails that fail are tried again later, up to twelve times over a day; what is dead then, or was
    refused for good, is listed by gdprdb outbox list. Exit code 3: some were refused for good.

    Example:

        gdprdb outbox send --smtp smtp://privacy@mail.example.org
    """
    composer = Composer(_author(sender), check_link(link) if link else None, templates, language)
    server = Server.parse(url, password=os.environ.get("GDPRDB_SMTP_PASSWORD"), ca=smtp_ca)
    work = Sender(partial(database, dsn), server, composer, Pace(rate), follow, say)
    with _stopped_by_signals(work.stop):
        work.run(workers)
    tally = work.tally
    return Rows(
        ["sent", "later", "dead"],
        [(tally["sent"], tally["later"], tally["dead"])],
        exit_code=FINDINGS if tally["dead"] else DONE,
    )


@outbox.command("list")
@dsn_option
@click.option("--dead", is_flag=True, help="Only those that were given up.")
@output
def list_(dsn: str | None, dead: bool) -> Rows:
    """List the mails that have not left: to whom, which template, since when; no content.

    Example:

        gdprdb outbox list --dead
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select mail_id, subject_id, template, language, state, attempts, due_at, failure"
                " from gdpr.outbox where state = 'dead' or not %s order by mail_id",
                [dead],
            )
        )


@outbox.command()
@dsn_option
@output
def status(dsn: str | None) -> Rows:
    """Count the mails that wait, and those of the last day that left.

    Example:

        gdprdb outbox status --format json
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select template, state, count(*) as mails, min(queued_at) as oldest"
                " from gdpr.outbox group by template, state"
                " union all"
                " select template, event, count(*), min(queued_at) from gdpr.mail_log"
                " where recorded_at > statement_timestamp() - interval '1 day'"
                " group by template, event order by 1, 2"
            )
        )


@outbox.command()
@dsn_option
@mail_option
@all_dead_option
@dry_run_option
@output
def retry(dsn: str | None, mails: tuple[int, ...], all_dead: bool, dry_run: bool) -> Rows:
    """Try dead mails again, from the next sending on.

    Example:

        gdprdb outbox retry --all-dead
    """
    with database(dsn) as connection:
        chosen = _chosen(connection, mails, all_dead, "state = 'dead'")
        if dry_run:
            say(UNCHANGED)
        else:
            connection.execute("select gdpr.retry_mails(%s)", [[row[0] for row in chosen.rows]])
        return chosen


@outbox.command()
@dsn_option
@mail_option
@all_dead_option
@reason_option
@dry_run_option
@yes_option
def drop(
    dsn: str | None, mails: tuple[int, ...], all_dead: bool, reason: str, dry_run: bool, yes: bool
) -> None:
    """Delete mails that were not sent; which they were, and why, stays on record.

    Example:

        gdprdb outbox drop --all-dead --reason 'addresses are wrong' --yes
    """
    with database(dsn) as connection:
        chosen = _chosen(connection, mails, all_dead, "true")
        if go_ahead(chosen, "Delete these mails?", dry_run=dry_run, yes=yes):
            connection.execute(
                "select gdpr.drop_mails(%s, %s)", [[row[0] for row in chosen.rows], reason]
            )
            say("Deleted.")


def _chosen(
    connection: psycopg.Connection, mails: tuple[int, ...], all_dead: bool, condition: LiteralString
) -> Rows:
    """The mails that a command is about."""
    if bool(mails) == all_dead:
        raise click.UsageError("give --mail-id or --all-dead")
    which = sql.SQL("state = 'dead'") if all_dead else sql.SQL("mail_id = any (%(mails)s)")
    return fetched(
        connection.execute(
            sql.SQL(
                "select mail_id, subject_id, template, state, failure from gdpr.outbox"
                " where {} and {} order by mail_id"
            ).format(which, sql.SQL(condition)),
            {"mails": list(mails)},
        )
    )


def _author(text: str) -> Address:
    """Who writes, from what the user gave."""
    name, address = parseaddr(text) if text.isprintable() else ("", "")
    try:
        parsed = parse_address(address)
        return Address(name, parsed.username, parsed.domain)
    except (AddressError, ValueError):
        raise GdprdbError(
            "--from is no address", hint="Write it as 'Example Ltd <privacy@example.org>'."
        ) from None


@contextmanager
def _stopped_by_signals(stop: Event) -> Iterator[None]:
    """An interrupt or SIGTERM lets the mails in hand be finished; a second one does not."""
    if current_thread() is not main_thread():
        yield
        return

    def finish(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, finish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
