-- [code] What stands in the catalog between a program and personal data, as a seal remembers it.
-- GDPR Art. 25, Art. 32(1)(d). Called by: sealing and verification.

set local role gdpr_owner;

create or replace function gdpr_internal.restorable_code(p_code text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select replace(
    regexp_replace(
      p_code,
      '(::[a-z0-9 "]+(?:\[\])*) AS (?:text|bool|bytea|date|float8|int2|int4|int8|interval|jsonb|name|numeric|oid|regclass|timestamptz|uuid|"char"|"varchar")(?=[,;)]*$)',
      '\1', 'gn'
    ),
    'FROM ( VALUES', 'FROM (VALUES'
  );
end;
comment on function gdpr_internal.restorable_code(text) is
  'SQL that PostgreSQL wrote from what it has stored, without what it adds when it has read its own words: a cast that had no name is named after its type, and there is a blank before VALUES.';

create or replace function gdpr_internal.catalog_objects()
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
set bytea_output = 'hex'
set quote_all_identifiers = off
set jit = off
begin atomic
  with tables as (
    select c.oid, c.oid::regclass::text as name, c.relowner, c.relacl, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.reloptions
    from pg_class as c
    where c.relkind in ('r', 'p', 'v') and c.relnamespace in (
      select n.oid from pg_namespace as n
      where n.nspname in ('gdpr', 'gdpr_internal') or n.nspname = any (gdpr_internal.view_schemas())
    )
  ),
  guarded as (
    select t.id, t.relation as oid from gdpr_internal.protected_table as t where t.unprotected_at is null
  )
  select array_agg(o.kind || ' ' || left(encode(sha256(convert_to(o.definition, 'UTF8')), 'hex'), 16) order by (o.kind) collate "C", o.definition collate "C")
  from (
    select
      'function ' || p.oid::regprocedure as kind,
      format(
        '%s %s %s %s %s', p.proowner::regrole, p.prosecdef, p.proconfig, gdpr_internal.rights('f', p.proowner, p.proacl),
        -- as SQL: the stored tree has the numbers that objects have in this database
        md5(p.prosrc || coalesce(gdpr_internal.restorable_code(pg_get_function_sqlbody(p.oid)), ''))
      ) as definition
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname in ('gdpr', 'gdpr_internal', 'gdpr_policy', 'gdpr_generated')
    union all
    select
      format('%s %s', case t.relkind when 'v' then 'view' else 'table' end, t.name),
      format('%s %s %s %s %s %s', t.relowner::regrole, gdpr_internal.rights('r', t.relowner, t.relacl), t.relrowsecurity, t.relforcerowsecurity, t.reloptions, (
        select string_agg(format('%s %s', a.attname, gdpr_internal.rights('c', t.relowner, a.attacl)), ' ' order by a.attname collate "C") from pg_attribute as a where a.attrelid = t.oid and a.attacl is not null
      ))
      || case t.relkind when 'v' then gdpr_internal.restorable_code(pg_get_viewdef(t.oid)) else '' end
    from tables as t
    where t.name !~ '^gdpr_internal\.audit_record_'
    union all
    select format('trigger %s of %s', g.tgname, t.name), format('%s %s', pg_get_triggerdef(g.oid), g.tgenabled)
    from tables as t
    join pg_trigger as g on g.tgrelid = t.oid and not g.tgisinternal and g.tgparentid = 0
    union all
    select
      format('policy %s of %s', p.polname, t.name),
      format(
        '%s %s %s %s %s', p.polcmd, p.polpermissive,
        -- a restored dump has the same roles in another order
        array(select o.role::regrole::text from unnest(p.polroles) as o (role) order by o.role::regrole::text collate "C"),
        pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)
      )
    from tables as t
    join pg_policy as p on p.polrelid = t.oid
    union all
    select
      format('protected table %s', g.oid::regclass),
      format('%s %s %s', c.relowner::regrole, encode(gdpr_internal.fingerprint(g.oid), 'hex'), (
        select md5(string_agg(format('%s %s %s', k.kind, k.name, k.definition), E'\n' order by k.kind collate "C", k.name collate "C"))
        from gdpr_internal.control as k
        where k.table_id = g.id and k.keeps
      ))
    from guarded as g
    join pg_class as c on c.oid = g.oid
    union all
    select format('schema %s', n.nspname), format('%s %s', n.nspowner::regrole, gdpr_internal.rights('n', n.nspowner, n.nspacl))
    from pg_namespace as n
    where n.nspowner::regrole::text = 'gdpr_owner'
    union all
    select format('materialized view %s', m.oid::regclass), gdpr_internal.restorable_code(pg_get_viewdef(m.oid))
    from pg_class as m
    where m.relkind = 'm' and exists (select from gdpr_internal.read_tables(m.oid))
    union all
    select format('event trigger %s', e.evtname), format('%s %s %s', e.evtevent, e.evtenabled, e.evtfoid::regprocedure)
    from pg_event_trigger as e
    union all
    select format('role %s', r.rolname), format('%s %s %s', r.rolsuper, r.rolbypassrls, r.rolcreaterole)
    from pg_roles as r
    where r.rolsuper or r.rolbypassrls or r.rolname ~ '^gdpr_'
    union all
    select format('member %s of %s', m.member::regrole, m.roleid::regrole), m.admin_option::text
    from pg_auth_members as m
    where m.roleid::regrole::text ~ '^gdpr_'
    union all
    select 'policy', gdpr.policy()::text
    union all
    -- records say them by number: what the number means
    select format('purpose %s %s', u.id, u.name), ''
    from gdpr_internal.purpose as u
    union all
    select
      format('table %s %s', t.id, case
        when t.unprotected_at is null or exists (select from pg_class as c where c.oid = t.relation) then t.relation::text
        else t.known_as
      end),
      t.known_as
    from gdpr_internal.protected_table as t
    union all
    -- in words: what was dropped later is judged by it
    select 'audit_retain ' || (s.value #>> '{}'), ''
    from gdpr_internal.setting as s
    where s.name = 'audit_retain'
  ) as o;
end;
comment on function gdpr_internal.catalog_objects() is
  'What protects personal data, by name, each with the first 8 bytes of the SHA-256 of its definition: functions and views of gdprdb, tables of evidence with their triggers and policies, the controls of protected tables, event triggers, roles that bypass row security, members of gdprdb''s groups, the policy, the numbers by which records name tables and purposes, and how long audit records are kept.';

create or replace function gdpr_internal.objects_fingerprint(p_objects text[])
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select sha256(convert_to(array_to_string(p_objects, E'\n'), 'UTF8'));
end;
comment on function gdpr_internal.objects_fingerprint(text[]) is 'SHA-256 over the lines of gdpr_internal.catalog_objects().';
