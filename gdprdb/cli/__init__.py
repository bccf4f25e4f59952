"""The command line: ``gdprdb <noun> <verb>``, one module per noun.

A command parses, calls SQL and returns rows; printing them, reporting errors
and choosing the exit code happen in one place each (`output`, `options`).
"""

from __future__ import annotations

import rich_click as click

from gdprdb import __version__
from gdprdb.cli import (
    audit,
    basis,
    blocklist,
    consent,
    db,
    demo,
    doctor,
    form,
    keys,
    outbox,
    policy,
    rectify,
    request,
    server,
    source,
    subject,
)
from gdprdb.cli.options import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="gdprdb %(version)s")
def main() -> None:
    """Protect personal data in PostgreSQL, and see that it stays so.

    The database is given by --dsn, GDPRDB_DSN, DATABASE_URL or libpq's PG* variables.
    Data go to standard output, words to standard error.

    Exit codes: 0 done, 1 error, 2 usage, 3 findings, 4 refused by the policy,
    5 the database is at another release of gdprdb.

    Example:

        gdprdb demo
    """


for command in (
    db.db,
    policy.policy,
    subject.subject,
    consent.consent,
    form.form,
    request.request,
    basis.basis,
    blocklist.blocklist,
    outbox.outbox,
    source.source,
    rectify.rectify,
    audit.audit,
    keys.keys,
    doctor.doctor,
    server.server,
    demo.demo,
):
    main.add_command(command)
