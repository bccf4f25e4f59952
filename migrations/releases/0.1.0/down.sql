-- Takes release 0.1.0 back. Evidence is never dropped: every register moves, rows and all, to a schema of its own,
-- gdpr_evidence_<time>, which only the members of gdpr_owner can enter; a later install finds nothing in its way.
-- Refused while tables are protected: their triggers, policies and ciphertexts need the code; and while the guard stands.

set local client_min_messages = warning;

do $down$
declare
  v_evidence name := pg_catalog.format('gdpr_evidence_%s', pg_catalog.to_char(pg_catalog.clock_timestamp(), 'YYYYMMDD_HH24MISS_US'));
  v_object record;
  v_role name;
begin
  foreach v_role in array array['gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer'] loop
    execute pg_catalog.format('set local role %I', v_role);
    alter default privileges grant execute on functions to public;
  end loop;
  set local role gdpr_owner;
  if exists (select from gdpr_internal.protected_table as t where t.unprotected_at is null) then
    raise exception using errcode = 'PR011',
      message = 'gdprdb cannot be taken away while tables are protected',
      detail = (
        select pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), E'\n' order by n.nspname, c.relname)
        from gdpr_internal.protected_table as t
        join pg_catalog.pg_class as c on c.oid = t.relation
        join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
        where t.unprotected_at is null
      ),
      hint = 'Call gdpr.unprotect() for each table first.';
  end if;
  if exists (select from pg_catalog.pg_event_trigger where evtname in ('gdpr_guard_end', 'gdpr_guard_drop')) then
    raise exception using errcode = 'PR011',
      message = 'gdprdb cannot be taken away while its guard stands',
      hint = 'A superuser takes the guard away first: gdprdb guard remove.';
  end if;
  execute pg_catalog.format('create schema %I', v_evidence);
  execute pg_catalog.format('comment on schema %I is %L', v_evidence, 'Registers that gdprdb 0.1.0 left behind when it was taken away.');
  execute pg_catalog.format('grant usage, create on schema %I to gdpr_keyholder, gdpr_worker', v_evidence);

  -- everything that people and applications call
  for v_object in
    select n.nspname as name
    from pg_catalog.pg_namespace as n
    where n.nspowner = 'gdpr_owner'::pg_catalog.regrole
      and n.nspname <> 'gdpr_internal' and n.nspname not like 'gdpr\_evidence\_%'
  loop
    execute pg_catalog.format('drop schema %I cascade', v_object.name);
  end loop;

  for v_object in
    select pg_catalog.format('gdpr_internal.%I', c.relname) as name
    from pg_catalog.pg_class as c
    where c.relnamespace = 'gdpr_internal'::pg_catalog.regnamespace and c.relkind = 'v'
  loop
    execute pg_catalog.format('drop view if exists %s cascade', v_object.name);
  end loop;

  -- the registers, and what they are made of
  for v_object in
    select c.oid::pg_catalog.regclass as name, r.rolname as owner
    from pg_catalog.pg_class as c
    join pg_catalog.pg_roles as r on r.oid = c.relowner
    where c.relnamespace = 'gdpr_internal'::pg_catalog.regnamespace
      and c.relkind in ('r', 'p') and c.relname <> 'schema_version'
  loop
    execute pg_catalog.format('set local role %I', v_object.owner);
    execute pg_catalog.format('alter table %s set schema %I', v_object.name, v_evidence);
  end loop;
  for v_object in
    select t.oid::pg_catalog.regtype as name, r.rolname as owner
    from pg_catalog.pg_type as t
    join pg_catalog.pg_roles as r on r.oid = t.typowner
    where t.typnamespace = 'gdpr_internal'::pg_catalog.regnamespace
      and (
        t.typtype in ('d', 'e')
        or exists (select from pg_catalog.pg_class as c where c.oid = t.typrelid and c.relkind = 'c')
      )
  loop
    execute pg_catalog.format('set local role %I', v_object.owner);
    execute pg_catalog.format('alter type %s set schema %I', v_object.name, v_evidence);
  end loop;

  -- functions go, but for those that the registers' own triggers and constraints call; pgcrypto's belong to the extension
  for v_object in
    select p.oid, p.oid::pg_catalog.regprocedure::text as name, r.rolname as owner,
      exists (
        select from pg_catalog.pg_depend as d
        where d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.refobjid = p.oid
          and d.classid in (
            'pg_catalog.pg_trigger'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass,
            'pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass
          )
      ) as held
    from pg_catalog.pg_proc as p
    join pg_catalog.pg_roles as r on r.oid = p.proowner
    where p.pronamespace = 'gdpr_internal'::pg_catalog.regnamespace
      and not exists (
        select from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e'
      )
    order by held desc
  loop
    execute pg_catalog.format('set local role %I', v_object.owner);
    if v_object.held then
      execute pg_catalog.format('alter routine %s set schema %I', v_object.name, v_evidence);
    elsif exists (select from pg_catalog.pg_proc as p where p.oid = v_object.oid) then
      execute pg_catalog.format('drop routine %s cascade', v_object.name);
    end if;
  end loop;
  reset role;
end
$down$;
