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
    breach,
    consent,
    db,
    demo,
    discover,
    doctor,
    form,
    guard,
    impact,
    importing,
    keys,
    ledger,
    objection,
    outbox,
    policy,
    rectify,
    report,
    request,
    restriction,
    retention,
    server,
    share,
    source,
    subject,
)
from gdprdb.cli.options import Commands

#: What there is, in the order of the journey of a datum.
PANELS: dict[str, tuple[click.Command, ...]] = {
    "Install and declare": (db.db, keys.keys, discover.discover, policy.policy),
    "Collect on a lawful basis": (
        importing.import_,
        source.source,
        blocklist.blocklist,
        basis.basis,
        form.form,
        consent.consent,
        outbox.outbox,
    ),
    "Rights of persons": (
        subject.subject,
        request.request,
        rectify.rectify,
        restriction.restriction,
        objection.objection,
    ),
    "Share, keep, forget": (share.share, retention.retention, ledger.ledger),
    "Prove": (
        audit.audit,
        guard.guard,
        report.report,
        impact.impact,
        breach.breach,
        doctor.doctor,
    ),
    "Try it": (demo.demo, server.server),
}


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


for panel, commands in PANELS.items():
    main = click.command_panel(panel, commands=[str(command.name) for command in commands])(main)
    for command in commands:
        main.add_command(command)
