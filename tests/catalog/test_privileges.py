"""Who may do what: the manifest privileges.txt beside this file, generated from the catalog, read
at review.

After a deliberate change write it anew, look at the difference and commit it:

    GDPRDB_WRITE_PRIVILEGES=1 make test ARGS=tests/catalog/test_privileges.py
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from tests.capabilities.crm import refused
from tests.support import AS_SUPERUSER, Database

MANIFEST = Path(__file__).with_name("privileges.txt")

QUESTION = """
with ours (oid, name) as (
  select oid, nspname from pg_namespace
  where nspname in ('gdpr', 'gdpr_internal', 'gdpr_policy', 'gdpr_generated', 'gdpr_clear',
    'gdpr_bi', 'gdpr_export', 'gdpr_api', 'gdpr_integration')
),
grants (kind, object, owner, acl) as (
  select 'schema', n.nspname::text, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
  from pg_namespace as n join ours on ours.oid = n.oid
  union all
  select case c.relkind when 'S' then 'sequence' when 'v' then 'view' else 'table' end,
    c.oid::regclass::text, c.relowner,
    coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char",
      c.relowner))
  from pg_class as c join ours on ours.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'm', 'S') and c.relname !~ '^audit_record_\\d' and c.relname
    <> 'schema_version'
  union all
  select 'column', format('%s.%I', c.oid::regclass, a.attname), c.relowner, a.attacl
  from pg_class as c join ours on ours.oid = c.relnamespace join pg_attribute as a on a.attrelid =
    c.oid
  where a.attacl is not null
  union all
  select 'function', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f',
    p.proowner))
  from pg_proc as p join ours on ours.oid = p.pronamespace
  where not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid =
    p.oid and d.deptype = 'e')
  union all
  select 'application table', c.oid::regclass::text, c.relowner, c.relacl
  from pg_class as c
  where c.relnamespace = 'crm'::regnamespace and c.relkind = 'r'
)
select format('%s %s (%s): %s', g.kind, g.object, g.owner::regrole, coalesce((
  select string_agg(x.line, ', ' order by x.line collate "C")
  from (
    select format('%s %s', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end,
      string_agg(lower(a.privilege_type) || case when a.is_grantable then '*' else '' end, '+'
        order by a.privilege_type)) as line
    from aclexplode(g.acl) as a
    where a.grantee <> g.owner
    group by a.grantee
  ) as x
), '-')) as line
from grants as g
order by g.kind collate "C", g.object collate "C"
"""


def manifest(database: Database) -> str:
    """One line for each object: kind, name, owner, and what others may do with it (* may be
    handed on)."""
    return "".join(f"{line}\n" for (line,) in database.rows(QUESTION, user="postgres"))


def test_the_manifest_is_the_catalog(crm_database: Database) -> None:
    found = manifest(crm_database)
    if os.environ.get("GDPRDB_WRITE_PRIVILEGES"):
        MANIFEST.write_text(found, encoding="utf-8")
    expected = MANIFEST.read_text(encoding="utf-8")
    difference = "\n".join(
        difflib.unified_diff(
            expected.splitlines(), found.splitlines(), "privileges.txt", "catalog", lineterm="", n=0
        )
    )
    assert not difference, f"{difference}\n{__doc__}"


def test_public_has_nothing_but_what_row_policies_call(crm_database: Database) -> None:
    """Each is reached through a policy or a view only: their schemas are closed to everybody."""
    public = {
        line.partition(" (")[0]
        for line in manifest(crm_database).splitlines()
        if "PUBLIC" in line.partition("): ")[2]
    }
    assert all(
        line.startswith(
            ("function gdpr_internal.", "function gdpr_policy.", "function gdpr_generated.")
        )
        for line in public
    ), public
    assert len(public) <= 20
    for schema in ("gdpr_internal", "gdpr_policy", "gdpr_generated"):
        for user in ("crm_app", "metabase", "portal_app", "dpo_login", "auditor_login"):
            if schema == "gdpr_internal" or user in ("crm_app", "metabase", "portal_app"):
                with refused("42501"):
                    crm_database.rows(f"select '{schema}.x'::regclass", user=user)


#: What a role can do through gdprdb, as the README's table has it.
MAY = {
    "plan('{}')": {"db_owner"},
    "policy()": {"db_owner", "dpo_login", "auditor_login"},
    "doctor()": {"db_owner", "dpo_login", "auditor_login"},
    "create_key('table')": {"db_owner"},
    "erase(0)": {"db_owner", "dpo_login"},
    "restrict(0, 'other')": {"db_owner", "dpo_login"},
    "record_consent(0, 'x', true, 'in_person')": {"db_owner", "dpo_login"},
    "find_subject('email', 'x')": {"db_owner", "dpo_login"},
    "is_blocked('email', 'x')": {"db_owner", "dpo_login"},
    "digest('email', 'x')": {"db_owner", "dpo_login", "crm_app"},
    "reveal('x')": {"db_owner", "dpo_login", "crm_app"},
    "set_context()": {"db_owner", "dpo_login", "crm_app", "metabase"},
}
USERS = {"db_owner", "dpo_login", "auditor_login", "crm_app", "metabase", "portal_app"}


@pytest.mark.skipif(AS_SUPERUSER, reason="db_owner holds what it was given")
@pytest.mark.parametrize("call", MAY)
def test_who_may_call(crm_database: Database, call: str) -> None:
    allowed = set()
    signature = call.partition("(")[0]
    for user in USERS:
        (holds,) = crm_database.rows(
            "select bool_or(has_schema_privilege(%s, 'gdpr', 'usage') and"
            " has_function_privilege(%s, p.oid, 'execute'))"
            " from pg_proc p where pronamespace = 'gdpr'::regnamespace and proname = %s",
            [user, user, signature],
            user="postgres",
        )[0]
        if holds:
            allowed.add(user)
    assert allowed == MAY[call]
