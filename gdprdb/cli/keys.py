"""``gdprdb keys``: the key that all other keys are wrapped with."""

from __future__ import annotations

import datetime
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import rich_click as click

from gdprdb.cli.options import database, dsn_option, go_ahead, yes_option
from gdprdb.cli.output import Rows, advancing, deliver, fetched, output, say
from gdprdb.dsn import one
from gdprdb.errors import FINDINGS, GdprdbError

#: Data keys wrapped anew by one transaction.
BATCH = 10_000

#: The first version in which a membership says by itself whether rights are inherited.
INHERITANCE_PER_GRANT = 160000

#: Seconds between two looks at what keeps a rotation from its end.
PAUSE = 0.2

#: Persons given a new data key by one transaction.
RENEWAL_BATCH = 200

#: How often a renewal looks again for persons whom somebody was writing, before it gives up.
TRIES = 25

provider_option = click.option(
    "--provider",
    type=click.Choice(["table", "session", "file"]),
    help="Where it is kept: in a table of the database (for development), with you, to be given "
    "in each session, or in a file on the server.",
)

location_option = click.option(
    "--location",
    metavar="PATH",
    help="Provider file: the file on the server, absolute; it holds the key already"
    " (openssl rand -hex 32).",
)

key_file_option = click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file here that holds the key; standard input otherwise.",
)


@click.group()
def keys() -> None:
    """Create, see, replace, lock and prove the key-encryption key; renew the keys of persons.

    Keys are never arguments: those stand in the shell's history and in the list of processes.

    Example:

        gdprdb keys status
    """


def allow_files(connection: psycopg.Connection) -> None:
    """Give gdpr_keyholder the right to read files of the server, where the caller can."""
    (superuser, version) = one(
        connection,
        "select rolsuper, current_setting('server_version_num')::integer"
        " from pg_roles where rolname = current_user",
    )
    if not superuser:
        return
    connection.execute(
        "grant execute on function pg_read_file(text, bigint, bigint, boolean) to gdpr_keyholder"
    )
    if version < INHERITANCE_PER_GRANT:
        connection.execute("grant pg_read_server_files to gdpr_keyholder")
        connection.execute("alter role gdpr_keyholder inherit")
    else:
        connection.execute("grant pg_read_server_files to gdpr_keyholder with inherit true")


def _told(provider: str) -> None:
    """Say where a new key is that is not printed."""
    if provider == "table":
        say("A key was created in the database: for development, not for production.")
    elif provider == "file":
        say("The server reads the key from its file. Keep a copy elsewhere; standbys need it too.")


@keys.command()
@dsn_option
@provider_option
@location_option
def create(dsn: str | None, provider: str | None, location: str | None) -> None:
    """Create the key-encryption key. With --provider session it is printed, once.

    A key that is lost makes all encrypted data unreadable for ever: where it cannot be
    printed, none is created. Called by a superuser, --provider file also gives gdpr_keyholder
    the right to read the file.

    Example:

        gdprdb keys create --provider session > /run/secrets/gdprdb.key

        gdprdb keys create --provider file --location /etc/postgresql/gdprdb.key
    """
    provider = provider or "table"
    with database(dsn) as connection:
        if provider == "file":
            allow_files(connection)
        (key,) = one(connection, "select gdpr.create_key(%s, %s)", [provider, location])
        if key is not None:
            # what cannot be printed is not committed
            deliver(key)
            say("Keep this key: it is shown once. Sessions give it to gdpr.unlock().")
    _told(provider)


@keys.command()
@dsn_option
@output
def status(dsn: str | None) -> Rows:
    """Show which keys there are and how they are kept, never the keys.

    Example:

        gdprdb keys status --format json
    """
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.key_status order by id"))


@keys.command()
@dsn_option
@provider_option
@location_option
@click.option(
    "--finish",
    is_flag=True,
    help="Also end the rotation: the old key opens nothing any more. Implied unless sessions"
    " hold the key. Takes the new key in GDPRDB_KEY, as a proof that it is kept.",
)
@click.option(
    "--abort",
    is_flag=True,
    help="Give up a rotation that has not ended: the old key, in GDPRDB_KEY, stays, and the new"
    " one opens nothing any more.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=BATCH,
    show_default=True,
    help="Keys wrapped by one transaction.",
)
def rotate(
    dsn: str | None,
    provider: str | None,
    location: str | None,
    finish: bool,
    abort: bool,
    batch: int,
) -> None:
    """Replace the key-encryption key while applications work; resumes where it was stopped.

    Data keys are wrapped anew in batches. A new key of provider session is printed before
    that: give it to the applications, then call this again with --finish. Until then the
    old key opens the database too, and whoever calls this again is shown the new key again.

    Example:

        GDPRDB_KEY=$(cat old.key) gdprdb keys rotate > new.key

        GDPRDB_KEY=$(cat new.key) gdprdb keys rotate --finish

        GDPRDB_KEY=$(cat old.key) gdprdb keys rotate --abort
    """
    if abort and (finish or provider or location):
        raise click.UsageError("--abort is given alone")
    with database(dsn) as connection:
        connection.commit()
        connection.autocommit = True
        current = _rotation(connection)
        if current is None and (finish or abort):
            raise GdprdbError("no rotation is going on: call it without --finish or --abort first")
        if current is None:
            current = _begin(connection, provider, location)
        elif abort:
            connection.execute("select gdpr.abort_rotation()")
            current = _rotation(connection)
        elif provider not in (None, current.provider):
            raise GdprdbError(
                f"a rotation to provider {current.provider} is going on: end it with --finish, or"
                " give it up with --abort"
            )
        else:
            say(
                "A rotation is being given up: that is resumed."
                if current.back
                else "A rotation is going on: it is resumed."
            )
            if current.shows_key and not finish:
                _show(one(connection, "select gdpr.show_new_key()")[0])
        _rewrap(connection, batch)
        assert current is not None
        if finish or not current.shows_key:
            _finish(connection)
            say(
                "The rotation was given up. The new key opens nothing any more."
                if current.back
                else "The key was replaced. The old one opens nothing any more but older backups."
            )
        else:
            say("Give the new key to all applications, then, with it: gdprdb keys rotate --finish")


@dataclass(frozen=True, slots=True)
class _Rotation:
    """A rotation that is going on.

    Attributes:
        provider: of the key that takes over.
        back: it was given up, and the old key takes over again.
    """

    provider: str
    back: bool

    @property
    def shows_key(self) -> bool:
        """Whether the key that takes over is one that people have to be given."""
        return self.provider == "session" and not self.back


def _rotation(connection: psycopg.Connection) -> _Rotation | None:
    """The rotation that is going on, if any."""
    row = connection.execute(
        "select provider, state = 'taking back' from gdpr.key_status"
        " where state in ('taking over', 'taking back')"
    ).fetchone()
    return None if row is None else _Rotation(*row)


def _begin(connection: psycopg.Connection, provider: str | None, location: str | None) -> _Rotation:
    """Begin a rotation; a key that is printed is so before the database has it."""
    if provider == "file" or location:
        allow_files(connection)
    with connection.transaction():
        (key,) = one(connection, "select gdpr.rotate_key(%s, %s)", [provider, location])
        if key is not None:
            _show(key)
    current = _rotation(connection)
    assert current is not None
    _told(current.provider)
    return current


def _show(key: str) -> None:
    """Print the new key of a rotation."""
    deliver(key)
    say("Keep this key: after --finish there is no other. Sessions give it to gdpr.unlock().")


def _rewrap(connection: psycopg.Connection, batch: int) -> None:
    """Wrap all data keys by the new key, each batch in a transaction of its own."""
    (total, done) = one(
        connection,
        "select sum(data_keys)::bigint, sum(data_keys) filter (where state <> 'retired')::bigint"
        " from gdpr.key_status",
    )
    with advancing("Wrapping keys", total, done) as advance:
        while True:
            (wrapped,) = one(connection, "select gdpr.rewrap_keys(%s)", [batch])
            if not wrapped:
                return
            advance(wrapped)


def _finish(connection: psycopg.Connection) -> None:
    """End the rotation once transactions older than it have ended."""
    waiting = False
    while True:
        _rewrap(connection, BATCH)
        try:
            connection.execute("select gdpr.finish_rotation()")
        except psycopg.Error as error:
            if error.sqlstate != "PR413":
                raise
            if not waiting:
                say(f"Waiting: {error.diag.message_detail}.")
                waiting = True
            time.sleep(PAUSE)
        else:
            return


@keys.command()
@dsn_option
@click.option("--subject-id", type=int, help="This person alone.")
@click.option(
    "--older-than",
    metavar="INTERVAL",
    help="Persons whose key was made longer ago than this ('2 years'); all by default.",
)
@click.option(
    "--made-under",
    type=int,
    metavar="ID",
    help="Persons whose key was made while this key-encryption key was in force, or before:"
    " the id that keys status shows of a retired one.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=RENEWAL_BATCH,
    show_default=True,
    help="Persons renewed by one transaction.",
)
def renew(
    dsn: str | None,
    subject_id: int | None,
    older_than: str | None,
    made_under: int | None,
    batch: int,
) -> None:
    """Give persons new data keys, and encrypt anew all that is under the old ones.

    Rows, evidence and mails are written anew, in batches, while applications work; called
    again after it was stopped, it goes on. Old values in the audit log stay under the old
    key, which is kept for them until the person is erased.

    Example:

        gdprdb keys renew --older-than '2 years'

        gdprdb keys renew --subject-id 42
    """
    if sum(given is not None for given in (subject_id, older_than, made_under)) > 1:
        raise click.UsageError("one of --subject-id, --older-than and --made-under")
    with database(dsn) as connection:
        if subject_id is not None:
            connection.execute("select gdpr.renew_key(%s)", [subject_id])
            say("The person has a new data key.")
            return
        connection.commit()
        connection.autocommit = True
        current = connection.execute(
            "select made_before, persons - remaining, persons from gdpr.key_renewal"
            " where finished_at is null"
        ).fetchone()
        if current is not None and (older_than or made_under is not None):
            raise GdprdbError(
                f"a renewal of the keys made before {current[0]:%Y-%m-%d %H:%M} is going on:"
                " call it without options to finish that first"
            )
        if current is not None:
            say("A renewal is going on: it is resumed.")
        before = _made_before(connection, older_than, made_under)
        left = _renew(connection, before, batch)
        if left:
            raise GdprdbError(
                f"{left} persons keep their old key for now: others are writing their rows, or"
                " something stands in the way, as gdpr.renew_key() of each says"
            )
        say("Everybody has a new data key.")


def _made_before(
    connection: psycopg.Connection, older_than: str | None, made_under: int | None
) -> datetime.datetime | None:
    """Up to which time keys were made that are to be renewed; None for all there are."""
    if older_than is not None:
        (before,) = one(connection, "select statement_timestamp() - %s::interval", [older_than])
        assert isinstance(before, datetime.datetime)
        return before
    if made_under is not None:
        found = connection.execute(
            "select retired_at from gdpr.key_status where id = %s", [made_under]
        ).fetchone()
        if found is None or found[0] is None:
            raise GdprdbError(
                f"{made_under} is no retired key: see gdprdb keys status, and rotate it first"
            )
        assert isinstance(found[0], datetime.datetime)
        return found[0]
    return None


def _renew(connection: psycopg.Connection, before: datetime.datetime | None, batch: int) -> int:
    """Renew in batches, each a transaction of its own; how many persons are left at the end."""
    told: set[str] = set()

    def tell(said: psycopg.errors.Diagnostic) -> None:
        if said.message_primary and said.message_primary not in told:
            told.add(said.message_primary)
            say(f"Warning: {said.message_primary}. {said.message_hint or ''}")

    connection.add_notice_handler(tell)
    progress = "select persons, remaining from gdpr.key_renewal order by id desc limit 1"
    (renewed,) = one(connection, "select gdpr.renew_keys(%s, %s)", [batch, before])
    (total, remaining) = one(connection, progress)
    tries = TRIES
    with advancing("Renewing keys", total, total - remaining) as advance:
        # a call that finds nothing more to do has ended the renewal, or everybody left is locked
        while renewed or (remaining and tries):
            if not renewed:
                tries -= 1
                time.sleep(PAUSE)
            (renewed,) = one(connection, "select gdpr.renew_keys(%s)", [batch])
            advance(renewed)
            if not renewed:
                (_, remaining) = one(connection, progress)
    assert isinstance(remaining, int)
    return remaining


@keys.command()
@dsn_option
@yes_option
def lock(dsn: str | None, yes: bool) -> None:
    """Lock the key in every session at once: each has to give it again.

    Example:

        gdprdb keys lock --yes
    """
    with database(dsn, done="The key is locked in every session.") as connection:
        plan = fetched(connection.execute("select * from gdpr.key_status where state <> 'retired'"))
        if go_ahead(plan, "Lock the key in all sessions?", dry_run=False, yes=yes):
            connection.execute("select gdpr.lock_keys()")


@keys.command("export-check")
@dsn_option
@key_file_option
@click.option("--all", "every", is_flag=True, help="Open every data key, not a thousand.")
@output
def export_check(dsn: str | None, key_file: Path | None, every: bool) -> Rows:
    """Prove that a copy of the key, as kept in escrow, opens this database.

    The copy is read from a file or from standard input. Nothing is unlocked. The exit code is
    3 for a key that was replaced.

    Example:

        gdprdb keys export-check < /media/safe/gdprdb.key
    """
    key = _copy_of_key(key_file)
    with database(dsn) as connection:
        found = fetched(
            connection.execute(
                "select id, state, data_keys, opened from gdpr.check_key(%s, %s)",
                [key, None if every else 1000],
            )
        )
    if all(state != "retired" for _, state, _, _ in found.rows):
        return found
    say("This key was replaced. Keep it until the rotation has ended, then for older backups only.")
    return replace(found, exit_code=FINDINGS)


def _copy_of_key(key_file: Path | None) -> str:
    """The key that is to be checked."""
    if key_file is not None:
        text = key_file.read_text(encoding="ascii", errors="replace")
    elif sys.stdin.isatty():
        text = str(click.prompt("key", hide_input=True, err=True))
    else:
        text = sys.stdin.read()
    if not text.strip():
        raise click.UsageError("standard input holds no key")
    return text.strip()
