"""Every object of gdprdb is described, fixed to its search_path and of the volatility its source
states."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import Database

SQL = Path(__file__).parents[2] / "sql"

SCHEMAS = (
    "('gdpr', 'gdpr_internal', 'gdpr_policy', 'gdpr_generated', 'gdpr_clear',"
    " 'gdpr_bi', 'gdpr_export', 'gdpr_api', 'gdpr_integration')"
)

#: Functions of pgcrypto, which lives beside gdprdb's own, are not ours.
OURS = f"""
    select p.oid::regprocedure::text as name, p.proname::text, p.prosecdef, p.provolatile::text,
      p.proparallel::text, p.proisstrict,
      p.proconfig, p.prosqlbody is not null as atomic, l.lanname::text as language,
        p.proowner::regrole::text as owner,
      obj_description(p.oid, 'pg_proc') as comment
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    join pg_language as l on l.oid = p.prolang
    where n.nspname in {SCHEMAS}
      and not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid
        = p.oid and d.deptype = 'e')
"""

HEADER = re.compile(
    r"create or replace"
    r" function\s+(?P<name>[\w.]+)\((?P<arguments>[^;]*?)\)\s*\n(?P<header>(?:.*\n)*?)(?:as"
    r" \$\w*\$|begin atomic)",
    re.IGNORECASE,
)


def headers() -> dict[str, str]:
    """Header of each function of sql/ by its qualified name, as it stands in the source."""
    found: dict[str, str] = {}
    for path in sorted(SQL.rglob("*.sql")):
        for match in HEADER.finditer(path.read_text(encoding="utf-8")):
            found[match["name"]] = match["header"]
    return found


def test_the_source_states_the_whole_header() -> None:
    stated = headers()
    assert len(stated) > 100
    for name, header in stated.items():
        lines = [line.strip() for line in header.splitlines()]
        assert any(line.startswith("language ") for line in lines), name
        assert any(line in ("volatile", "stable", "immutable") for line in lines), name
        assert "security definer" in lines or "security invoker" in lines, name
        if "returns trigger" not in lines:
            assert any(line.startswith("parallel ") for line in lines), name


def test_the_catalog_is_what_the_source_states(db: Database) -> None:
    stated = headers()
    short = {"v": "volatile", "s": "stable", "i": "immutable"}
    parallel = {"s": "parallel safe", "r": "parallel restricted", "u": "parallel unsafe"}
    names = set()
    for row in db.rows(
        "select name, prosecdef, provolatile, proparallel, proisstrict, language"
        f" from ({OURS}) as f",
        user="postgres",
    ):
        name, definer, volatility, safety, strict, language = row
        plain = name.partition("(")[0]
        if plain.startswith("gdpr_generated.") and plain not in stated:
            continue
        names.add(plain)
        lines = {line.strip() for line in stated[plain].splitlines()}
        assert ("security definer" in lines) == definer, name
        assert short[volatility] in lines, name
        assert parallel[safety] in lines or "returns trigger" in lines, name
        assert ("strict" in lines) == strict, name
        assert f"language {language}" in lines, name
    assert names == set(stated)


def test_definer_functions_are_fixed_to_a_search_path(crm_database: Database) -> None:
    """Generated ones too: SECURITY DEFINER without it would look names up where the caller says."""
    for name, config in crm_database.rows(
        f"select name, proconfig from ({OURS}) as f where prosecdef", user="postgres"
    ):
        paths = [setting for setting in config or () if setting.startswith("search_path=")]
        assert len(paths) == 1, name
        assert re.fullmatch(r"search_path=pg_catalog(, \"?[^,]+\"?)?, pg_temp", paths[0]), name


def test_plans_that_count_as_dear_are_not_compiled(db: Database) -> None:
    """With a kind of plan switched off the estimate may pass the threshold of JIT, which then
    takes sixty milliseconds over a statement of half a one."""
    found = db.rows(
        f"select name, proconfig from ({OURS}) as f"
        " where exists (select from unnest(proconfig) as c where c like 'enable%%=off')",
        user="postgres",
    )
    assert found
    assert [name for name, settings in found if "jit=off" not in settings] == []


def test_invoker_functions_with_a_body_of_text_are_fixed_too(db: Database) -> None:
    """A body that is text is looked up at run time; one that is bound at creation needs no path."""
    question = (
        f"select name, proconfig, language from ({OURS}) as f where not prosecdef and not atomic"
    )
    for name, config, language in db.rows(question, user="postgres"):
        fixed = any(setting.startswith("search_path=pg_catalog") for setting in config or ())
        # generators of code are one expression over pg_catalog: only their owners may call them
        # it inserts as the caller: the application's own triggers run in the application's path
        inserts = name.startswith("gdpr_internal.insert_rows(")
        assert fixed or language == "sql" or inserts, name


def test_what_catches_errors_is_in_no_parallel_plan(crm_database: Database) -> None:
    """PostgreSQL before 17 begins no subtransaction while a parallel plan runs, nor in its leader;
    the error would come only where a table is large enough for one."""
    question = f"""
        select f.name from ({OURS}) as f join pg_proc as p on p.oid::regprocedure::text = f.name
        where f.language = 'plpgsql' and p.prosrc ~ '\\mexception\\s+when\\M'"""
    catching = {name for (name,) in crm_database.rows(question, user="postgres")}
    assert catching
    unsafe = f"{question} and p.proparallel = 'u'"
    assert catching == {name for (name,) in crm_database.rows(unsafe, user="postgres")}


def test_keys_do_not_come_out_with_plans(crm_database: Database) -> None:
    """debug_print_plan shows constants of nested statements to the caller: pinned wherever a
    keyring is held."""
    question = f"""
        select f.name, f.proconfig from ({OURS}) as f join pg_proc as p on
          p.oid::regprocedure::text = f.name
        where f.owner = 'gdpr_keyholder' and f.language = 'plpgsql' and f.prosecdef and p.proname
          !~ '^generate_' and p.prosrc ~ 'keyring\\(\\)|v_kek|v_ring'"""
    rows = crm_database.rows(question, user="postgres")
    assert len(rows) > 8
    for name, config in rows:
        assert "debug_print_plan=off" in (config or ()), name


@pytest.mark.parametrize(
    ("kind", "question"),
    [
        ("functions", f"select name from ({OURS}) as f where comment is null"),
        (
            "relations",
            f"""select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid =
              c.relnamespace
            where n.nspname in {SCHEMAS} and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c') and
              obj_description(c.oid, 'pg_class') is null
              and not (c.relkind = 'c' and exists (select from pg_type t where t.typrelid = c.oid
                and obj_description(t.oid, 'pg_type') is not null))
              and c.relname <> 'schema_version'""",
        ),
        (
            "types",
            f"""select t.oid::regtype::text from pg_type as t join pg_namespace as n on n.oid =
              t.typnamespace
            left join pg_class as c on c.oid = t.typrelid
            where n.nspname in {SCHEMAS} and t.typcategory <> 'A' and (c.oid is null or c.relkind
              = 'c')
              and obj_description(t.oid, 'pg_type') is null and (c.oid is null or
                obj_description(c.oid, 'pg_class') is null)""",
        ),
        (
            "schemas",
            (
                f"select nspname from pg_namespace where nspname in {SCHEMAS} and"
                " obj_description(oid, 'pg_namespace') is null"
            ),
        ),
    ],
)
def test_everything_has_a_comment(crm_database: Database, kind: str, question: str) -> None:
    assert crm_database.rows(question, user="postgres") == [], kind


def test_nothing_belongs_to_a_login(crm_database: Database) -> None:
    owners = crm_database.rows(
        f"""select distinct owner from ({OURS}) as f
        union select c.relowner::regrole::text from pg_class c join pg_namespace n on n.oid =
          c.relnamespace
          where n.nspname in {SCHEMAS} and c.relname not in ('schema_version', 'schema_version_pkc')
        union select nspowner::regrole::text from pg_namespace where nspname in {SCHEMAS}""",
        user="postgres",
    )
    assert {owner for (owner,) in owners} <= {
        "gdpr_owner",
        "gdpr_keyholder",
        "gdpr_worker",
        "gdpr_viewer",
    }
    roles = crm_database.rows(
        "select rolname, rolcanlogin or rolsuper or rolbypassrls or rolcreaterole"
        " or rolcreatedb from pg_roles where rolname ~ '^gdpr_'",
        user="postgres",
    )
    assert not any(special for _, special in roles)


def test_redacted_views_are_barriers_and_no_view_runs_decryption_for_them(
    crm_database: Database,
) -> None:
    rows = crm_database.rows(
        "select c.oid::regclass::text, c.reloptions, pg_get_viewdef(c.oid) from"
        " pg_class c where relkind = 'v' and relnamespace::regnamespace::text in"
        " ('gdpr_bi', 'gdpr_export', 'gdpr_api', 'gdpr_integration')",
        user="postgres",
    )
    assert len(rows) == 4 * 4
    for name, options, definition in rows:
        assert "security_barrier=true" in (options or ()) or "security_barrier=on" in (
            options or ()
        ), name
        assert not re.search(r"open_value|opened_key|decrypt|reveal|keyring", definition), name
