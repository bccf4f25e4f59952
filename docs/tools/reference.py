"""The reference: what the database says about itself, and the command line about itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, LiteralString

import click
import psycopg

from docs.tools.stage import DATABASE, OWNER, stage
from gdprdb import migrate
from gdprdb.cli import main

_HEAD = """# Reference

Written by `make docs` from the database's own comments and the command line's own help.
The same words are in the database: `\\df+ gdpr.*` and `\\dd gdpr.*` in psql.
"""

_FUNCTIONS: LiteralString = r"""
select
  p.proname,
  pg_get_function_arguments(p.oid),
  pg_get_function_result(p.oid),
  obj_description(p.oid, 'pg_proc'),
  array(
    select a.grantee::regrole::text
    from aclexplode(p.proacl) as a
    where a.privilege_type = 'EXECUTE' and a.grantee <> 0 and a.grantee::regrole::text ~ '^gdpr_'
      and a.grantee::regrole::text !~ '^gdpr_(owner|keyholder|worker|viewer)$'
    order by 1
  )
from pg_proc as p
where p.pronamespace = 'gdpr'::regnamespace
order by p.proname, 2
"""

_VIEWS: LiteralString = r"""
select
  c.relname,
  obj_description(c.oid, 'pg_class'),
  array(
    select jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod))
    from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 order by a.attnum
  ),
  array(
    select distinct a.grantee::regrole::text
    from aclexplode(c.relacl) as a
    where a.privilege_type = 'SELECT' and a.grantee <> 0 and a.grantee::regrole::text ~ '^gdpr_'
      and a.grantee::regrole::text !~ '^gdpr_(owner|keyholder|worker|viewer)$'
    order by 1
  )
from pg_class as c
where c.relnamespace = 'gdpr'::regnamespace and c.relkind = 'v'
order by c.relname
"""

_ERRORS: LiteralString = """
select sqlstate, name, message, hint, coalesce(article, '')
from gdpr.error_code
order by sqlstate !~ '^PR', sqlstate, name
"""


def generate() -> str:
    """The reference page: functions, views, errors, commands."""
    with stage() as cluster:
        migrate.init(cluster.dsn(DATABASE, OWNER))
        with psycopg.connect(cluster.dsn(DATABASE)) as connection:
            parts = [
                _HEAD,
                "\n## Functions\n",
                *_functions(connection.execute(_FUNCTIONS).fetchall()),
                "\n## Views\n",
                *_views(connection.execute(_VIEWS).fetchall()),
                "\n## Errors\n",
                *_errors(connection.execute(_ERRORS).fetchall()),
                "\n## Commands\n",
                _help(main),
                *_commands(main, ("gdprdb",)),
            ]
    return "".join(parts)


def _functions(rows: list[tuple[Any, ...]]) -> Iterator[str]:
    for name, arguments, result, comment, roles in rows:
        shown = ",\n  ".join(re.split(r", (?=p_)", arguments))
        broken = f"\n  {shown}\n" if len(arguments) > 60 else arguments
        # functions that return tables list the columns as arguments too
        broken = re.sub(r",? ?(OUT|TABLE) .*", "", broken)
        yield f"\n### gdpr.{name}\n\n```sql\ngdpr.{name}({broken}) returns {result}\n```\n\n"
        yield f"{_text(comment)}\n\n{_called_by('Called by', roles)}\n"


def _views(rows: list[tuple[Any, ...]]) -> Iterator[str]:
    for name, comment, columns, roles in rows:
        yield f"\n### gdpr.{name} (view)\n\n{_text(comment)}\n\n{_called_by('Read by', roles)}\n\n"
        yield "| column | type |\n|---|---|\n"
        yield from (f"| {column} | {kind} |\n" for column, kind in columns)


def _errors(rows: list[tuple[Any, ...]]) -> Iterator[str]:
    yield "\nThe constraint of an error is `gdpr_` and its name; no message holds personal data.\n"
    yield "\n| SQLSTATE | name | message | hint | article |\n|---|---|---|---|---|\n"
    yield from (f"| {' | '.join(_cell(value) for value in row)} |\n" for row in rows)


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[str]:
    context = click.Context(group)
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        assert command
        here = (*path, name)
        usage = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
        words = " ".join([*here, *(parameter.human_readable_name for parameter in usage)])
        yield f"\n### {words}\n{_help(command)}"
        options = [option for option in command.params if isinstance(option, click.Option)]
        if options:
            yield "\n| option | |\n|---|---|\n"
            yield from (f"| `{_option(option)}` | {_explained(option)} |\n" for option in options)
        if isinstance(command, click.Group):
            yield from _commands(command, here)


def _help(command: click.Command) -> str:
    """The help of a command; its example as code."""
    words, _, example = (command.help or "").partition("Example:")
    paragraphs = [" ".join(part.split()) for part in words.split("\n\n") if part.strip()]
    code = "\n".join(line.strip() for line in example.strip().splitlines())
    return "".join(f"\n{_text(part)}\n" for part in paragraphs) + f"\n```sh\n{code}\n```\n"


def _option(option: click.Option) -> str:
    names = ", ".join(option.opts) + "".join(f" / {name}" for name in option.secondary_opts)
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(map(str, option.type.choices))}".replace("|", r"\|")
    return f"{names} {option.metavar or option.type.name.upper()}"


def _explained(option: click.Option) -> str:
    notes = []
    if option.required:
        notes.append("required")
    if option.show_default and option.default is not None and not option.is_flag:
        notes.append(f"default {option.default}")
    if option.envvar:
        notes.append(f"environment {option.envvar}")
    return _cell((option.help or "") + (f" ({', '.join(notes)})" if notes else ""))


def _called_by(word: str, roles: list[str]) -> str:
    return f"{word}: {', '.join(roles) or 'nobody by name; the database itself uses it'}."


def _cell(value: str | None) -> str:
    return _text(value).replace("|", r"\|")


def _text(value: str | None) -> str:
    """Words that Markdown must not take for markup."""
    return re.sub(r"([<>*])", r"\\\1", " ".join((value or "").split()))
