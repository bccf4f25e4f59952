"""What gdprdb tells people when something cannot be done.

Two kinds of failure reach a user: those gdprdb finds itself (`GdprdbError`) and
those the database reports (`psycopg.Error`). Both are shown the same way, as a
message, the details, a hint and, for the database, its SQLSTATE; `explain`
turns either into that shape together with the exit code of the command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg

#: Exit codes of the command line, the same for every command.
DONE, FAILED, USAGE, FINDINGS, REFUSED, WRONG_RELEASE = range(6)


class GdprdbError(Exception):
    """Something gdprdb cannot do, said in one line, with a hint for what to do next.

    Args:
        message: what is wrong, one line, no full stop.
        hint: what the reader can do about it, a sentence.
        details: further lines, one fact each.
    """

    exit_code = FAILED

    def __init__(
        self, message: str, *, hint: str | None = None, details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        # what a traceback shows beside the message
        for line in details:
            self.add_note(line)


class RefusedError(GdprdbError):
    """The policy, or a rule of gdprdb itself, does not allow it."""

    exit_code = REFUSED


class WrongReleaseError(GdprdbError):
    """gdprdb is not installed in the database, or in another release than the program's."""

    exit_code = WRONG_RELEASE


@dataclass(frozen=True, slots=True)
class Explanation:
    """A failure in the words shown to a person."""

    message: str
    details: tuple[str, ...]
    hint: str | None
    sqlstate: str | None
    exit_code: int


def explain(error: Exception) -> Explanation:
    """The words and the exit code for a failure of gdprdb or of the database."""
    if isinstance(error, GdprdbError):
        return Explanation(error.message, error.details, error.hint, None, error.exit_code)
    if isinstance(error, psycopg.Error):
        return _explain_database(error)
    return Explanation(str(error) or type(error).__name__, (), None, None, FAILED)


def _explain_database(error: psycopg.Error) -> Explanation:
    """Read the fields the server sent; a failed connection has only a text."""
    diag = error.diag
    if diag.message_primary is None:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Explanation(
            lines[0] if lines else "the connection failed",
            tuple(lines[1:]),
            "Check --dsn, GDPRDB_DSN, DATABASE_URL or the PG* variables."
            if isinstance(error, psycopg.OperationalError)
            else None,
            error.sqlstate,
            FAILED,
        )
    details = tuple((diag.message_detail or "").splitlines())
    hint = diag.message_hint
    code = _exit_code(error.sqlstate, diag.constraint_name, diag.message_primary)
    if code == WRONG_RELEASE:
        hint = "Install or upgrade gdprdb in this database: gdprdb db init, gdprdb db upgrade."
    elif diag.constraint_name == "gdpr_invalid_argument":
        # the server's hint is for who calls the function; here the detail says it all
        hint = None
    return Explanation(diag.message_primary, details, hint, error.sqlstate, code)


def _exit_code(sqlstate: str | None, constraint: str | None, message: str) -> int:
    """Class PR, and standard classes raised under one of gdprdb's names, are refusals.

    But PR007: nothing is refused where there is no table of this name.
    """
    if sqlstate is None or sqlstate == "PR007":
        return FAILED
    if sqlstate.startswith("PR") or (constraint or "").startswith("gdpr"):
        return REFUSED
    # Schema, function or relation of ours missing: the database is not the one
    # this program was written for. A table of the user's is missing for other reasons.
    if sqlstate in {"3F000", "42883", "42P01"} and re.search(r"\bgdpr\b|\bgdpr_", message):
        return WRONG_RELEASE
    return FAILED
