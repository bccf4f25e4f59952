"""``gdprdb blocklist``: identifiers that may not come back."""

from __future__ import annotations

import rich_click as click

from gdprdb.cli.options import database, dsn_option, kind_option, read_identifier, reason_option
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.dsn import one


@click.group()
def blocklist() -> None:
    """Block identifiers, unblock them, look them up. The value is read from standard input.

    Example:

        gdprdb blocklist check --kind email < address.txt
    """


@blocklist.command()
@dsn_option
@kind_option
@reason_option
def block(dsn: str | None, kind: str, reason: str) -> None:
    """Block the identifier on standard input.

    Example:

        gdprdb blocklist block --reason 'objection by letter' < address.txt
    """
    with database(dsn) as connection:
        connection.execute("select gdpr.block(%s, %s, %s)", [kind, read_identifier(kind), reason])
    say("Blocked.")


@blocklist.command()
@dsn_option
@kind_option
@reason_option
def unblock(dsn: str | None, kind: str, reason: str) -> None:
    """Unblock the identifier on standard input; that it was blocked stays on record.

    Example:

        gdprdb blocklist unblock --reason 'asked to come back' < address.txt
    """
    with database(dsn) as connection:
        connection.execute("select gdpr.unblock(%s, %s, %s)", [kind, read_identifier(kind), reason])
    say("Unblocked.")


@blocklist.command()
@dsn_option
@kind_option
@output
def check(dsn: str | None, kind: str) -> Rows:
    """Tell whether the identifier on standard input is blocked.

    Example:

        gdprdb blocklist check --kind phone --format json < number.txt
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select gdpr.is_blocked(%s, %s) as blocked", [kind, read_identifier(kind)]
            )
        )


@blocklist.command("list")
@dsn_option
@output
def list_(dsn: str | None) -> Rows:
    """List what is blocked: kinds, digests, reasons; the values are not kept.

    Example:

        gdprdb blocklist list --format csv
    """
    with database(dsn) as connection:
        return fetched(connection.execute("select * from gdpr.blocklist"))


@blocklist.command()
@dsn_option
@output
def probes(dsn: str | None) -> Rows:
    """Count the rows that met the blocklist, by role and time; which they were is not kept.

    Example:

        gdprdb blocklist probes
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select * from gdpr.probe where tries > 0 order by counted_until desc, role"
            )
        )


@blocklist.command("opt-outs")
@dsn_option
@output
def opt_outs(dsn: str | None) -> Rows:
    """List mailboxes, as digests, whose owners want no mails about registrations.

    Example:

        gdprdb blocklist opt-outs
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute("select * from gdpr.opt_out order by opted_out_at desc, digest")
        )


@blocklist.command("lift-opt-out")
@dsn_option
@reason_option
def lift_opt_out(dsn: str | None, reason: str) -> None:
    """Let registrations be mailed again to the e-mail address on standard input.

    Example:

        gdprdb blocklist lift-opt-out --reason 'asked for it by letter' < address.txt
    """
    with database(dsn) as connection:
        (lifted,) = one(
            connection,
            "select gdpr.lift_opt_out(%s, %s)",
            [read_identifier("e-mail address"), reason],
        )
    say("Lifted." if lifted else "Its owner had not opted out.")
