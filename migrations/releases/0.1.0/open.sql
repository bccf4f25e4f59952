-- 00_foundation/00_open.sql
-- [state] Roles, schemas and pgcrypto; takes the memberships that the load needs (99_seal gives them back).
-- GDPR Art. 25 (by design and by default), Art. 32 (security). Called by: every install, upgrade and downgrade; idempotent.
-- Needs: PostgreSQL >= 15, a UTF8 database owned by a login with CREATEROLE (or a superuser).

do $open$
declare
  v_role text;
  v_schema name;
begin
  if current_setting('server_version_num')::integer < 150000 then
    raise exception using errcode = 'PR010', message = 'gdprdb needs PostgreSQL 15 or later',
      hint = 'Upgrade the server first.';
  end if;
  if current_setting('server_encoding') <> 'UTF8' then
    raise exception using errcode = 'PR010', message = 'gdprdb needs a database encoded in UTF8',
      hint = 'Create the database with ENCODING ''UTF8'' TEMPLATE template0.';
  end if;

  -- from version 16 on a setting of the server, the database or the login may say that who creates a role becomes a member of it
  perform pg_catalog.set_config('createrole_self_grant', '', true)
  from pg_catalog.pg_settings
  where name = 'createrole_self_grant';

  -- owners, nobody logs in as them
  foreach v_role in array array['gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
      execute pg_catalog.format('create role %I nologin noinherit', v_role);
    end if;
  end loop;
  select string_agg(rolname, ', ') into v_role
  from pg_catalog.pg_roles
  where rolname in ('gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer') and (rolcanlogin or rolsuper or rolbypassrls);
  if v_role is not null then
    raise exception using errcode = 'PR010', message = 'roles with the names of gdprdb''s owners may log in or pass row security',
      detail = v_role, hint = 'ALTER ROLE ... NOLOGIN NOSUPERUSER NOBYPASSRLS, or rename them.';
  end if;
  -- groups, given to logins
  foreach v_role in array array[
    'gdpr_admin', 'gdpr_dpo', 'gdpr_auditor', 'gdpr_app', 'gdpr_bi', 'gdpr_export', 'gdpr_api', 'gdpr_integration', 'gdpr_portal', 'gdpr_mail'
  ] loop
    if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
      execute pg_catalog.format('create role %I nologin', v_role);
    end if;
  end loop;

  -- the load creates objects as the three owners; a superuser needs no membership for that
  if not (select rolsuper from pg_catalog.pg_roles where rolname = session_user) then
    foreach v_role in array array['gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer'] loop
      execute pg_catalog.format('grant %I to %I', v_role, session_user);
    end loop;
  end if;
  foreach v_role in array array['gdpr_admin', 'gdpr_dpo'] loop
    if not exists (
      select from pg_catalog.pg_auth_members m
      where m.roleid = v_role::regrole and m.member = session_user::regrole and m.admin_option
    ) then
      execute pg_catalog.format('grant %I to %I with admin option', v_role, session_user);
    elsif not pg_catalog.pg_has_role(session_user, v_role, 'usage') then
      -- from version 16 on who creates a role may hand it on at once, but does not inherit from it yet
      execute pg_catalog.format('grant %I to %I', v_role, session_user);
    end if;
  end loop;
  -- apply() binds logins to these groups on behalf of whoever administers the policy
  foreach v_role in array array[
    'gdpr_app', 'gdpr_bi', 'gdpr_export', 'gdpr_api', 'gdpr_integration', 'gdpr_portal', 'gdpr_mail', 'gdpr_auditor'
  ] loop
    if not exists (
      select from pg_catalog.pg_auth_members m
      where m.roleid = v_role::regrole and m.member = 'gdpr_owner'::regrole and m.admin_option
    ) then
      execute pg_catalog.format('grant %I to gdpr_owner with admin option', v_role);
    end if;
  end loop;

  select string_agg(n.nspname, ', ') into v_role
  from pg_catalog.pg_namespace n
  where n.nspname in (
      'gdpr', 'gdpr_internal', 'gdpr_policy', 'gdpr_generated', 'gdpr_clear', 'gdpr_bi', 'gdpr_export', 'gdpr_api', 'gdpr_integration'
    )
    and n.nspowner <> 'gdpr_owner'::regrole;
  if v_role is not null then
    raise exception using errcode = 'PR010', message = 'schemas with the names of gdprdb belong to somebody else',
      detail = v_role, hint = 'Rename or drop them first: whoever owns a schema can replace what stands in it.';
  end if;

  execute pg_catalog.format('grant create on database %I to gdpr_owner', pg_catalog.current_database());
  set local role gdpr_owner;
  -- where the guard stands it lets the load pass, on record, and looks at what it leaves
  if pg_catalog.to_regprocedure('gdpr_internal.begin_change(text)') is not null then
    perform gdpr_internal.begin_change('load');
  end if;
  create schema if not exists gdpr;
  create schema if not exists gdpr_internal;
  create schema if not exists gdpr_generated;
  create schema if not exists gdpr_policy;
  create schema if not exists gdpr_clear;
  create schema if not exists gdpr_bi;
  create schema if not exists gdpr_export;
  create schema if not exists gdpr_api;
  create schema if not exists gdpr_integration;
  grant usage, create on schema gdpr, gdpr_internal, gdpr_policy, gdpr_generated, gdpr_clear to gdpr_keyholder;
  -- owns the clear and the redacted views; no function runs as it, so what a table's owner plants in row policies gets nothing
  grant usage, create on schema gdpr_generated, gdpr_clear, gdpr_bi, gdpr_export, gdpr_api, gdpr_integration to gdpr_viewer;
  grant usage on schema gdpr_internal, gdpr_policy, gdpr to gdpr_viewer;
  -- not in gdpr_internal: a function planted beside pgcrypto would be handed the keys
  grant usage, create on schema gdpr_generated to gdpr_worker;
  grant usage on schema gdpr_internal, gdpr, gdpr_policy to gdpr_worker;
  reset role;

  select n.nspname into v_schema
  from pg_catalog.pg_extension e
  join pg_catalog.pg_namespace n on n.oid = e.extnamespace
  where e.extname = 'pgcrypto';
  if v_schema is null then
    create extension pgcrypto with schema gdpr_internal;
  elsif v_schema <> 'gdpr_internal' then
    raise exception using errcode = 'PR010', message = 'pgcrypto is installed in a schema that gdprdb does not control',
      hint = 'Run ALTER EXTENSION pgcrypto SET SCHEMA gdpr_internal: the keys pass through its functions.';
  end if;
end
$open$;
