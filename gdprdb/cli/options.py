"""What commands have in common: the database, the person, the question before a deed."""

from __future__ import annotations

import datetime
import errno
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg
import rich_click as click
from click.exceptions import Exit
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.json import Jsonb

from gdprdb import dsn as dsns
from gdprdb import migrate
from gdprdb.cli.output import Rows, report, say, show
from gdprdb.errors import GdprdbError, explain

F = TypeVar("F", bound=Callable[..., Any])

dsn_option = click.option(
    "--dsn",
    metavar="DSN",
    help="The database: a libpq URI, key=value pairs or a SQLAlchemy URL."
    "  [env var: GDPRDB_DSN, DATABASE_URL, PG*]",
)

reason_option = click.option(
    "--reason", required=True, help="Why, for the record. No personal data."
)

purpose_option = click.option("--purpose", required=True, help="A purpose of the policy.")

kind_option = click.option(
    "--kind",
    default="email",
    show_default=True,
    help="What the identifier on standard input is: email, phone, ...",
)

subject_id_option = click.option(
    "--subject-id",
    type=int,
    help="The person's number. Without it, an identifier is read from standard input.",
)


def table_option(what: str, *names: str, required: bool = False) -> Callable[[F], F]:
    """The option by which every command is told a table; `gdpr.table_named` reads it.

    Args:
        what: what the table is, for the help.
        names: names of the parameter, beside ``--table``.
        required: whether it has to be given.
    """
    return click.option(
        "--table",
        *names,
        metavar="TABLE",
        required=required,
        help=f"{what} Named as in the policy, as 'crm.Big Order', or quoted as in SQL.",
    )


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would be done, and change nothing."
)

#: What a dry run says in the end.
UNCHANGED = "Nothing was changed (--dry-run)."

#: Where the number of a request is kept until a connection is made.
_REQUEST = "gdprdb.request"


def _named(context: click.Context, _: click.Parameter, value: int | None) -> None:
    context.meta[_REQUEST] = value


request_option = click.option(
    "--request",
    type=int,
    callback=_named,
    expose_value=False,
    help="The number of the request that this answers.  [env var: GDPRDB_REQUEST]",
)

yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


class Commands(click.RichGroup):
    """The top of the command line: every failure is shown in words, none as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn what it raises into words and an exit code."""
        try:
            return super().invoke(ctx)
        except (GdprdbError, psycopg.Error) as error:
            failure = explain(error)
        except OSError as error:
            # `gdprdb ... | head`: click ends quietly by itself.
            if error.errno == errno.EPIPE:
                raise
            failure = explain(error)
        report(failure)
        raise Exit(failure.exit_code)


class _OpenEnded(TimestamptzLoader):
    """Times as Python has them, and ``infinity``, which it has not, as the word."""

    def load(self, data: Buffer) -> Any:
        """Read one value."""
        text = bytes(data).decode()
        return text if text.endswith("infinity") else super().load(data)


@contextmanager
def database(
    dsn: str | None, *, dry_run: bool = False, done: str | None = None
) -> Iterator[psycopg.Connection]:
    """A connection to a database at this program's release; commits at the end.

    The operating system's user is claimed as the actor. Where GDPRDB_KEY is set, it
    unlocks the key for the session; where --request or GDPRDB_REQUEST is given, what is
    done fulfils the request of that number.

    Args:
        dsn: what the user gave.
        dry_run: take everything back at the end instead, and say so.
        done: words to say once it is committed.

    Raises:
        WrongReleaseError: gdprdb is not installed there, or in another release.
    """
    with dsns.connect(dsn) as connection:
        migrate.require_current(connection)
        connection.adapters.register_loader("timestamptz", _OpenEnded)
        connection.execute("select set_config('gdpr.actor', %s, false)", [getpass.getuser()])
        if request := _request():
            connection.execute("select set_config('gdpr.request', %s, false)", [request])
        if key := os.environ.get("GDPRDB_KEY"):
            _unlock(connection, key)
        yield connection
        if dry_run:
            connection.rollback()
    if dry_run:
        say(UNCHANGED)
    elif done:
        say(done)


def _unlock(connection: psycopg.Connection, key: str) -> None:
    """Give the key to the session; where the database has none, what needs it says so itself."""
    try:
        with connection.transaction():
            connection.execute("select gdpr.unlock(%s)", [key])
    except psycopg.Error as error:
        if error.sqlstate != "PR401":
            raise
        say("Warning: GDPRDB_KEY opens nothing: the database has no key-encryption key.")


def _request() -> str | None:
    """The request that the user named, if any; not a number: a ticket of somebody's."""
    context = click.get_current_context(silent=True)
    named = context.meta.get(_REQUEST) if context else None
    return os.environ.get("GDPRDB_REQUEST") if named is None else str(named)


def read_identifier(kind: str) -> str:
    """The identifier on standard input; asked for without echo where that is a terminal.

    Never an argument: those stand in the shell's history and in the list of processes.

    Args:
        kind: what it is, for the question.
    """
    if sys.stdin.isatty():
        value = str(click.prompt(kind, hide_input=True, err=True))
    else:
        value = sys.stdin.readline()
    if not value.strip():
        raise click.UsageError(f"standard input holds no {kind}")
    return value.rstrip("\r\n")


def the_subject(connection: psycopg.Connection, subject_id: int | None, kind: str) -> int:
    """The person that a command is about.

    Args:
        connection: where to look.
        subject_id: the person's number, where it was given.
        kind: what the identifier on standard input is.

    Raises:
        GdprdbError: nobody is known by the identifier.
    """
    if subject_id is not None:
        return subject_id
    row = connection.execute(
        "select gdpr.find_subject(%s, %s)", [kind, read_identifier(kind)]
    ).fetchone()
    if row is None or row[0] is None:
        raise GdprdbError(f"nobody is known by this {kind}")
    return int(row[0])


def go_ahead(plan: Rows, question: str, *, dry_run: bool, yes: bool) -> bool:
    """Show the plan, and whether to carry it out.

    Args:
        plan: what would be done.
        question: asked on a terminal unless `yes`.
        dry_run: show only.
        yes: do not ask.

    Raises:
        click.UsageError: nobody is there to be asked.
    """
    show(plan)
    if dry_run:
        say(UNCHANGED)
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to be asked: give --yes")
    click.confirm(question, abort=True, err=True)
    return True


def moment(_: click.Context, __: click.Parameter, value: str | None) -> datetime.datetime | None:
    """A point in time as the user wrote it, ISO 8601; local time where no zone is given."""
    if value is None:
        return None
    try:
        return datetime.datetime.fromisoformat(value).astimezone()
    except ValueError:
        message = f"{value!r} is no time; write it as 2027-01-31 or 2027-01-31T12:00+01:00"
        raise click.BadParameter(message) from None


def day_or_moment(
    _: click.Context, __: click.Parameter, value: str | None
) -> datetime.date | datetime.datetime | None:
    """A day, which ends where the policy is, or a point in time (ISO 8601)."""
    if value is None:
        return None
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        return moment(_, __, value)


def day(_: click.Context, __: click.Parameter, value: str | None) -> datetime.date | None:
    """A day as the user wrote it, ISO 8601."""
    if value is None:
        return None
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        message = f"{value!r} is no day; write it as 2027-01-31"
        raise click.BadParameter(message) from None


def end_of(
    connection: psycopg.Connection, when: datetime.date | datetime.datetime | None
) -> datetime.datetime | None:
    """The instant from which on something no longer holds: a day counts to its end, in the time
    zone of the policy.

    Args:
        connection: a database with that policy.
        when: what the user gave.
    """
    if when is None or isinstance(when, datetime.datetime):
        return when
    (end,) = dsns.one(connection, "select gdpr.until(%s)", [when])
    return cast("datetime.datetime", end)


def start_of(
    connection: psycopg.Connection, when: datetime.date | datetime.datetime | None
) -> datetime.datetime | None:
    """The instant from which on something holds: a day counts from its beginning.

    Args:
        connection: a database with the policy.
        when: what the user gave.
    """
    if when is None or isinstance(when, datetime.datetime):
        return when
    return end_of(connection, when - datetime.timedelta(days=1))


def document(_: click.Context, __: click.Parameter, value: str | None) -> Jsonb | None:
    """A JSON document as the user wrote it."""
    try:
        return Jsonb(json.loads(value)) if value else None
    except json.JSONDecodeError as error:
        message = f"not JSON: {error}"
        raise click.BadParameter(message) from None


details_option = click.option(
    "--details",
    callback=document,
    help="More about it, as JSON; kept encrypted under the person's key, gone with erasure.",
)
