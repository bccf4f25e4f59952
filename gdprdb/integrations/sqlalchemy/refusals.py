"""What the database refuses, as Python exceptions.

They are what SQLAlchemy would have raised (`IntegrityError` for a duplicate, `ProgrammingError`
for a missing right), so code that handles those goes on to work, and say more: which rule it was.
"""

from __future__ import annotations

from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import ExceptionContext


class RefusalError(sa.exc.DatabaseError):
    """A rule of the policy, or of gdprdb itself, does not allow it."""

    @property
    def diagnosis(self) -> Any:
        """What the server said."""
        return self.orig.diag if isinstance(self.orig, psycopg.Error) else None

    @property
    def sqlstate(self) -> str | None:
        """The SQLSTATE."""
        return self.orig.sqlstate if isinstance(self.orig, psycopg.Error) else None

    @property
    def name(self) -> str:
        """The error's name in `gdpr.error_code`."""
        return str(self.diagnosis.constraint_name).removeprefix("gdpr_")

    @property
    def hint(self) -> str:
        """What can be done about it."""
        return str(self.diagnosis.message_hint)


class NotPermittedError(RefusalError, sa.exc.ProgrammingError):
    """The role may not: it does not hold the purpose, or has no such audience (42501)."""


class BlockedError(RefusalError, sa.exc.IntegrityError):
    """The identifier may not be stored, in a table where it need not be unique (23505).

    Where it has to be, a blocked one is refused as a duplicate is: a plain `IntegrityError`.
    """


class NoBasisError(RefusalError):
    """No lawful basis or no consent holds for the purpose (PR2.., PR3..)."""


class RestrictedError(RefusalError):
    """The person's data are restricted, objected to or erased (PR601, PR602, PR603)."""


class KeyUnavailableError(RefusalError):
    """A key is missing, locked or wrong (PR401, PR402, PR403, PR410)."""


class BrokenValueError(RefusalError):
    """An encrypted value was altered, or moved from elsewhere (PR404)."""


class RowChangedError(RefusalError, sa.exc.OperationalError):
    """Another transaction changed the row while the statement ran: repeat it (40001)."""


#: What is raised for the names of `gdpr.error_code`; anything else is a `RefusalError`.
CLASSES: dict[str, type[RefusalError]] = {
    "basis_missing": NoBasisError,
    "condition_missing": NoBasisError,
    "consent_missing": NoBasisError,
    "restricted": RestrictedError,
    "objected": RestrictedError,
    "erased": RestrictedError,
    "key_missing": KeyUnavailableError,
    "key_locked": KeyUnavailableError,
    "key_wrong": KeyUnavailableError,
    "data_key_missing": KeyUnavailableError,
    "tampered": BrokenValueError,
    "row_changed": RowChangedError,
}

_STANDARD: dict[str, type[RefusalError]] = {"42501": NotPermittedError, "23505": BlockedError}


def translate(context: ExceptionContext) -> Exception | None:
    """Listener of engines: the exception to raise instead, for errors of gdprdb."""
    error, wrapped = context.original_exception, context.sqlalchemy_exception
    if not isinstance(error, psycopg.Error) or not isinstance(wrapped, sa.exc.DBAPIError):
        return None
    name = error.diag.constraint_name or ""
    if not name.startswith("gdpr_"):
        return None
    kind = CLASSES.get(name.removeprefix("gdpr_")) or _STANDARD.get(error.sqlstate or "")
    return (kind or RefusalError)(
        wrapped.statement,
        wrapped.params,
        error,
        hide_parameters=True,
        connection_invalidated=wrapped.connection_invalidated,
        ismulti=wrapped.ismulti,
    )
