"""Lint the bodies of all plpgsql functions with the extension plpgsql_check.

gdprdb is installed on a private server and applied to a small sample, so that the
functions it generates for tables are there too. Trigger functions are checked with
every table that they are triggers of.

    python tools/plpgsql_check.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import psycopg
from psycopg.types.json import Jsonb

from gdprdb import migrate
from gdprdb.errors import GdprdbError, explain
from gdprdb.server import Binaries, Cluster, find_binaries

SAMPLE = """
create type public.mood as enum ('sad', 'glad');
create table public.customer (
  id bigint generated always as identity primary key,
  email varchar(200) not null unique,
  phone text,
  last_name text not null check (last_name <> phone),
  birth_date date check (birth_date > '1900-01-01'),
  mood public.mood
);
create table public.invoice (
  id bigint generated always as identity primary key,
  customer_id bigint not null references public.customer,
  invoice_date date not null default current_date,
  address text
);
create role lint_app login;
create role lint_bi login;
"""

POLICY = {
    "purposes": {
        "orders": {"description": "Fulfil orders", "basis": "contract"},
        "marketing": {"description": "Newsletters", "basis": "consent", "valid_for": "2 years"},
    },
    "roles": {
        "lint_app": {"audience": "clear", "purposes": ["orders", "marketing"]},
        "lint_bi": {"audience": "bi", "purposes": ["orders"]},
    },
    "tables": {
        "public.customer": {
            "subject": "self",
            "match_on": ["email"],
            "purposes": ["orders", "marketing"],
            "columns": {
                "email": {
                    "category": "contact",
                    "identifier": "email",
                    "sensitive": True,
                    "encrypt": "searchable",
                    "mask": "email",
                },
                "phone": {"category": "contact", "sensitive": True, "encrypt": True},
                "last_name": {"category": "identity", "mask": "initial"},
                "birth_date": {"category": "demographic", "encrypt": True, "mask": "year"},
                "mood": {"encrypt": True},
            },
        },
        "public.invoice": {
            "subject": {"via": "customer_id"},
            "purposes": ["orders"],
            "columns": {"address": {"category": "contact", "encrypt": True, "mask": "hide"}},
        },
    },
}

_RUNS = "text type variable is not sanitized"

#: Findings that were looked at and are as they should be: function, beginning of the message.
REVIEWED = {
    # These write and run the code of one table: names went through format('%I') or regclass,
    # words through format('%L'); only gdprdb's owners may call them.
    ("gdpr.apply", _RUNS),
    ("gdpr.unprotect", _RUNS),
    ("gdpr.backfill", _RUNS),
    ("gdpr_policy.finish_enabling", _RUNS),
    ("gdpr_policy.run_step", _RUNS),
    ("gdpr_generated.define", _RUNS),
    ("gdpr_generated.drop_clear_view", _RUNS),
    ("gdpr_generated.drop_redacted_view", _RUNS),
    ("gdpr_generated.generate_clear_view", _RUNS),
    ("gdpr_generated.generate_redacted_view", _RUNS),
    ("gdpr_generated.move_children", _RUNS),
    ("gdpr_internal.generate_addresses", _RUNS),
    ("gdpr_internal.generate_purposes", _RUNS),
    ("gdpr_internal.generate_search", _RUNS),
    # Writes, and puts into triggers, CHECK constraints as the catalog writes them; they run as
    # whoever writes the table.
    ("gdpr_internal.generate_values", _RUNS),
    ("gdpr_policy.put_checks", _RUNS),
    # Runs CHECK constraints as the catalog writes them, as gdpr_worker, which may be made to
    # run anything by the owner of a table anyway.
    ("gdpr_generated.failed_checks", _RUNS),
    # Run as gdpr_worker over names of the catalog; the columns they return come out of that.
    ("gdpr_generated.cells_of", _RUNS),
    ("gdpr_generated.cells_of", "OUT variable"),
    ("gdpr_generated.read_cells", _RUNS),
    ("gdpr_generated.read_cells", "OUT variable"),
    ("gdpr_generated.broken_rows", _RUNS),
    ("gdpr_generated.broken_rows", "OUT variable"),
    # Counts values, as its caller, by the query of collision_query(): names through regclass and
    # format('%I'), words through format('%L').
    ("gdpr.plan", _RUNS),
    # Runs what begin_import() wrote, with the rights of its caller and no others.
    ("gdpr_internal.insert_rows", _RUNS),
    # A name through format('%I'), and a type that to_regtype() knows as one of PostgreSQL's own.
    ("gdpr_internal.failed_column", _RUNS),
    # Assigned for what an assignment refuses: a value that is none of the type.
    ("gdpr_generated.values_1", "never read variable"),
    # Lists the columns to write, each through format('%I') from those of the table.
    ("gdpr_generated.rectify_1", "the expression is not SQL injection safe"),
    ("gdpr_generated.rectify_2", "the expression is not SQL injection safe"),
    # Joins the assignments of the columns that change, each a constant of the function.
    ("gdpr_generated.write_1", _RUNS),
    ("gdpr_generated.write_2", _RUNS),
}

#: Every plpgsql function of gdprdb, a trigger function once for each table it is a trigger of.
FINDINGS = """
select distinct p.oid::regprocedure::text, coalesce(r.lineno, 0), r.level, r.message,
  coalesce(r.detail, r.hint, '')
from pg_proc p
join pg_language l on l.oid = p.prolang
join pg_namespace n on n.oid = p.pronamespace
left join pg_trigger t on t.tgfoid = p.oid and p.prorettype = 'trigger'::regtype
cross join lateral plpgsql_check_function_tb(
  funcoid => p.oid, relid => coalesce(t.tgrelid, 0),
  oldtable => t.tgoldtable, newtable => t.tgnewtable,
  extra_warnings => true, performance_warnings => false, security_warnings => true
) r
where l.lanname = 'plpgsql' and n.nspname like 'gdpr%'
  -- constants such as '{}' are written as text and cast once
  and r.message <> 'target type is different type than source type'
  and (p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype) or t.oid is not null)
order by 1, 2
"""

COUNT = """
select count(*) from pg_proc p join pg_language l on l.oid = p.prolang
where l.lanname = 'plpgsql' and p.pronamespace::regnamespace::text like 'gdpr%'
"""


def main() -> int:
    """Check all functions; print what was found."""
    binaries = checking_binaries()
    if binaries is None:
        print(
            "plpgsql_check is not installed. On Debian and Ubuntu: "
            "apt-get install postgresql-15-plpgsql-check",
            file=sys.stderr,
        )
        return 1 if os.environ.get("CI") == "true" else 0
    with Cluster(durable=False, binaries=binaries) as cluster:
        migrate.init(cluster.dsn())
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            connection.execute(SAMPLE)
            connection.execute("select gdpr.create_key('table')")
            connection.execute("select count(*) from gdpr.apply(%s)", [Jsonb(POLICY)])
            connection.execute("create extension plpgsql_check")
            findings = [
                finding
                for finding in connection.execute(FINDINGS)
                if not any(
                    finding[0].startswith(f"{function}(") and finding[3].startswith(message)
                    for function, message in REVIEWED
                )
            ]
            (functions,) = connection.execute(COUNT).fetchone() or (0,)
    for function, line, level, message, more in findings:
        print(f"{function}:{line}: {level}: {message}" + (f" ({more})" if more else ""))
    print(f"{functions} functions checked, {len(findings)} findings")
    return 1 if findings or not functions else 0


def checking_binaries() -> Binaries | None:
    """A PostgreSQL that has plpgsql_check; installed by root from Debian's package if need be."""
    found = with_extension()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive", **os.environ}
        for command in (
            ["apt-get", "update", "-qq"],
            [
                "apt-get",
                "install",
                "-qq",
                "-y",
                "--no-install-recommends",
                "postgresql-15-plpgsql-check",
            ],
        ):
            subprocess.run(command, check=False, env=quiet, stdout=subprocess.DEVNULL)
        found = with_extension()
    return found


def with_extension() -> Binaries | None:
    """The newest PostgreSQL found, or version 15 as Debian's package has it, with the extension."""
    for major in (None, 15):
        try:
            binaries = find_binaries(major)
        except GdprdbError:
            continue
        with Cluster(durable=False, binaries=binaries) as cluster:
            with psycopg.connect(cluster.dsn()) as connection:
                available = connection.execute(
                    "select from pg_available_extensions where name = 'plpgsql_check'"
                ).fetchone()
            if available is not None:
                return binaries
    return None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (GdprdbError, psycopg.Error) as error:
        failure = explain(error)
        print(failure.message, *failure.details, failure.hint or "", sep="\n", file=sys.stderr)
        sys.exit(1)
