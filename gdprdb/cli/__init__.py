"""The command line: ``gdprdb <noun> <verb>``, one module per noun.

A command parses, calls SQL and returns rows; printing them, reporting errors
and choosing the exit code happen in one place each (`output`, `options`). A module is
loaded when its noun is asked for.
"""

from __future__ import annotations

from importlib import import_module

import rich_click as click

from gdprdb import __version__
from gdprdb.cli.options import Commands

#: What there is, in the order of the journey of a datum.
PANELS = {
    "Install and declare": ("db", "keys", "discover", "policy"),
    "Collect on a lawful basis": (
        "import",
        "source",
        "blocklist",
        "basis",
        "form",
        "consent",
        "outbox",
    ),
    "Rights of persons": ("subject", "request", "rectify", "restriction", "objection"),
    "Share, keep, forget": ("share", "retention", "ledger"),
    "Prove": ("audit", "guard", "report", "impact", "breach", "doctor"),
    "Try it": ("demo", "server"),
}

_NOUNS = [noun for nouns in PANELS.values() for noun in nouns]

#: Module and command of a noun that is no name in Python.
_OTHERWISE = {"import": ("importing", "import_")}


class Nouns(Commands):
    """The commands of `PANELS`, each loaded when it is asked for: they share little."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, and those of commands that somebody added."""
        return list(dict.fromkeys([*_NOUNS, *super().list_commands(ctx)]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, if there is one."""
        if cmd_name not in self.commands and cmd_name in _NOUNS:
            module, command = _OTHERWISE.get(cmd_name, (cmd_name, cmd_name))
            self.add_command(getattr(import_module(f"gdprdb.cli.{module}"), command))
        return super().get_command(ctx, cmd_name)


@click.group(cls=Nouns, context_settings={"help_option_names": ["-h", "--help"]})
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


for panel, nouns in PANELS.items():
    main = click.command_panel(panel, commands=list(nouns))(main)
