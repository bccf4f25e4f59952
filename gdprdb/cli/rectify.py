"""``gdprdb rectify``: correcting what is wrong about persons."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

import psycopg
import rich_click as click

from gdprdb import corrections
from gdprdb.cli.options import (
    database,
    dry_run_option,
    dsn_option,
    go_ahead,
    kind_option,
    reason_option,
    request_option,
    subject_id_option,
    the_subject,
    yes_option,
)
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.dsn import one
from gdprdb.errors import FINDINGS, RefusedError

values_option = click.option(
    "--values", is_flag=True, help="Show the values, too: personal data on your screen."
)

changes_argument = click.argument("file", type=click.File(encoding="utf-8"))

#: What a comparison shows.
COLUMNS = ["change", "table_name", "row_key", "column_name", "problem"]


@click.group()
def rectify() -> None:
    """Correct and complete personal data (Art. 16), one person's or many rows'.

    Changes are a JSON list of {"table", "key", "column", "value"}, or of {"table", "key",
    "column", "statement"} for words kept beside a value.

    Example:

        gdprdb rectify list
    """


@rectify.command()
@dsn_option
@subject_id_option
@kind_option
@click.option("--reason", help="Why; kept encrypted under the person's key.")
@changes_argument
@dry_run_option
@output
def propose(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    reason: str | None,
    file: TextIO,
    dry_run: bool,
) -> Rows:
    """Propose the changes in FILE; another officer approves them.

    Example:

        gdprdb rectify propose --subject-id 42 --reason 'letter of May' changes.json
    """
    changes = file.read()
    with database(dsn, dry_run=dry_run) as connection:
        person = the_subject(connection, subject_id, kind)
        (number,) = one(
            connection,
            "select gdpr.propose_rectification(%s, %s, %s)",
            [person, _json(changes), reason],
        )
    return Rows(["rectification_id"], [(number,)])


@rectify.command()
@dsn_option
@subject_id_option
@kind_option
@reason_option
@changes_argument
@values_option
@request_option
@dry_run_option
@yes_option
@output
def apply(
    dsn: str | None,
    subject_id: int | None,
    kind: str,
    reason: str,
    file: TextIO,
    values: bool,
    dry_run: bool,
    yes: bool,
) -> Rows:
    """Carry the changes in FILE out at once; shows first what differs.

    Example:

        gdprdb rectify apply --subject-id 42 --reason 'letter of May' changes.json --dry-run
    """
    changes = _json(file.read())
    with database(dsn) as connection:
        person = the_subject(connection, subject_id, kind)
        plan = _compared(connection, changes, person, values=values)
        if not go_ahead(plan, "Change this?", dry_run=dry_run, yes=yes):
            return Rows(["record_id"], [])
        (record,) = one(connection, "select gdpr.rectify(%s, %s, %s)", [person, changes, reason])
    say("Nothing differed." if record is None else "Changed.")
    return Rows(["record_id"], [] if record is None else [(record,)])


@rectify.command("list")
@dsn_option
@click.option(
    "--status",
    type=click.Choice(["proposed", "approved", "rejected"]),
    default="proposed",
    show_default=True,
    help="Which proposals.",
)
@values_option
@output
def list_(dsn: str | None, status: str, values: bool) -> Rows:
    """List proposals: whose data, which columns, who proposed and decided.

    Example:

        gdprdb rectify list --status approved --format json
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select rectification_id, subject_id, status, by_person, case when %s then changes"
                " else (select jsonb_agg(c - array['value', 'was', 'statement']) from"
                " jsonb_array_elements(changes) as c) end as changes, proposed_at, proposed_by,"
                " decided_at, decided_by from gdpr.rectification where status = %s"
                " order by rectification_id",
                [values, status],
            )
        )


@rectify.command()
@dsn_option
@click.argument("rectification_id", type=int)
@click.option("--reason", help="Why, for the record. No personal data.")
@values_option
@request_option
@dry_run_option
@yes_option
@output
def approve(
    dsn: str | None,
    rectification_id: int,
    reason: str | None,
    values: bool,
    dry_run: bool,
    yes: bool,
) -> Rows:
    """Approve a proposal and carry it out; not by the login that made it.

    Example:

        gdprdb rectify approve 7 --reason 'passport seen' --yes
    """
    with database(dsn) as connection:
        row = connection.execute(
            "select changes, subject_id from gdpr.rectification where rectification_id = %s",
            [rectification_id],
        ).fetchone() or (None, None)
        plan = _compared(connection, json.dumps(row[0] or []), row[1], values=values)
        if not go_ahead(plan, "Approve this?", dry_run=dry_run, yes=yes):
            return Rows(["record_id"], [])
        (record,) = one(
            connection, "select gdpr.approve_rectification(%s, %s)", [rectification_id, reason]
        )
    say("Nothing differed." if record is None else "Changed.")
    return Rows(["record_id"], [] if record is None else [(record,)])


@rectify.command()
@dsn_option
@click.argument("rectification_id", type=int)
@reason_option
@dry_run_option
def reject(dsn: str | None, rectification_id: int, reason: str, dry_run: bool) -> None:
    """Reject a proposal, or take your own back.

    Example:

        gdprdb rectify reject 7 --reason 'the passport says otherwise'
    """
    with database(dsn, dry_run=dry_run, done="Rejected.") as connection:
        connection.execute("select gdpr.reject_rectification(%s, %s)", [rectification_id, reason])


@rectify.command()
@dsn_option
@click.argument("table")
@click.option("--subject-id", type=int, help="Only the rows of this person.")
def export(dsn: str | None, table: str, subject_id: int | None) -> None:
    """Write the rows of TABLE as CSV, to be corrected in a spreadsheet and imported again.

    TABLE is named as in the policy, or quoted as in SQL.
    Personal data in plaintext: keep the file where they may be, and delete it afterwards.

    Example:

        gdprdb rectify export crm.customer --subject-id 42 > customer.csv
    """
    with database(dsn) as connection:
        layout = corrections.layout_of(connection, table)
        keys = None
        if subject_id is not None:
            keys = [
                layout.read_key(key)
                for (key,) in connection.execute(
                    "select * from gdpr.rows_of(gdpr.table_named(%s), %s)", [table, subject_id]
                )
            ]
        for line in corrections.write(connection, layout, keys):
            click.echo(line, nl=False)


@rectify.command("import")
@dsn_option
@click.argument("table")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@reason_option
@values_option
@dry_run_option
@yes_option
@output
def import_(
    dsn: str | None,
    table: str,
    file: Path,
    reason: str,
    values: bool,
    dry_run: bool,
    yes: bool,
) -> Rows:
    """Take the corrections in FILE, which 'rectify export' wrote, over into TABLE.

    TABLE is named as in the policy, or quoted as in SQL.
    Only cells that differ are written, all in one transaction. Rows that were changed since the
    export are left as they are and named (exit code 3); with any other problem nothing is done.

    Example:

        gdprdb rectify import crm.customer customer.csv --reason 'letter of May' --dry-run
    """
    with database(dsn) as connection:
        layout = corrections.layout_of(connection, table)
        with file.open("rb") as sheet:
            lines, problems = corrections.read(sheet, layout)
        found: list[corrections.Edit] = []
        changed: list[corrections.Problem] = []
        if not problems:
            found, problems, changed = corrections.edits(connection, layout, lines)
        differences, refused = corrections.judge(connection, layout, found)
        problems += refused
        if problems:
            raise RefusedError(
                "the file cannot be taken over",
                hint="Nothing was changed.",
                details=tuple(_words(problem) for problem in sorted(problems, key=_place)),
            )
        for problem in changed:
            say(_words(problem))
        counts = Counter((entry["table"], entry["column"]) for entry in differences)
        plan = Rows(["table", "column", "values"], [(*place, n) for place, n in counts.items()])
        shown = ["line", "table", "key", "column", *(["old", "new"] if values else [])]
        result = Rows(
            shown,
            [[entry[name] for name in shown] for entry in differences],
            exit_code=FINDINGS if changed else 0,
        )
        if not differences:
            say("Nothing differs.")
        elif go_ahead(plan, "Change these values?", dry_run=dry_run, yes=yes):
            connection.execute(
                "select set_config('gdpr.source', %s, true)",
                [json.dumps({"kind": "import", "file": file.name})],
            )
            corrections.carry_out(connection, layout, found, reason)
            connection.commit()
            say(f"Changed: {len(differences)} values.")
    return result


def _place(problem: corrections.Problem) -> tuple[int, str]:
    return problem.line, problem.column or ""


def _words(problem: corrections.Problem) -> str:
    where = f"line {problem.line}" + (f", column {problem.column}" if problem.column else "")
    return f"{where}: {problem.problem}"


def _json(text: str) -> str:
    """The changes as the user wrote them, if they are JSON at all."""
    try:
        return json.dumps(json.loads(text))
    except json.JSONDecodeError as error:
        message = f"the changes are not JSON: {error}"
        raise click.UsageError(message) from None


def _compared(
    connection: psycopg.Connection, changes: str, person: int | None, *, values: bool
) -> Rows:
    """What the changes would do, without values unless they were asked for."""
    names = [*COLUMNS, *(["old", "new"] if values else [])]
    cursor: psycopg.Cursor[Any] = connection.execute(
        "select * from gdpr.compare_rectification(%s, %s)", [changes, person]
    )
    columns = [column.name for column in cursor.description or ()]
    return Rows(names, [[row[columns.index(name)] for name in names] for row in cursor])
