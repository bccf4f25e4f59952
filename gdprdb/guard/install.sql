-- Installs the guard, or puts it right. As a superuser, in one transaction: psql -1 -f, or gdprdb guard install.
--
-- The superuser's own part is one line that calls a function of gdpr_owner, with the rights of gdpr_owner: nobody but
-- superusers may enter this schema, so its owner cannot make that function run with other rights.

set local client_min_messages = warning;

do $check$
begin
  if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
    raise exception using errcode = '42501', message = 'the guard is installed by a superuser',
      hint = 'PostgreSQL lets only superusers make event triggers; managed services have a role of their own for it, or none.';
  elsif pg_catalog.to_regprocedure('gdpr_internal.guard(text)') is null then
    raise exception using errcode = 'PR012', message = 'gdprdb is not installed in this database, or in an older release',
      hint = 'Install or upgrade it first: gdprdb db init, gdprdb db upgrade.';
  end if;
end
$check$;

drop event trigger if exists gdpr_guard_end;
drop event trigger if exists gdpr_guard_drop;
drop schema if exists gdpr_guard cascade;
create schema gdpr_guard;
comment on schema gdpr_guard is 'gdprdb''s guard: belongs to a superuser, and nobody else may enter it.';

create function gdpr_guard.check_command(p_event text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_ours boolean;
begin
  if to_regprocedure('gdpr_internal.guard(text)') is not null then
    perform gdpr_internal.guard(p_event);
    return;
  end if;
  -- the statement has taken the guard itself away
  if p_event = 'sql_drop' then
    v_ours := exists (select from pg_event_trigger_dropped_objects() as d where d.object_identity ~ '^gdpr_internal($|\.guard\()');
  else
    v_ours := exists (
      select from pg_event_trigger_ddl_commands() as c
      join pg_namespace as n on n.nspname = c.schema_name or (c.classid = 'pg_namespace'::regclass and n.oid = c.objid)
      where n.nspowner = to_regrole('gdpr_owner')
    );
  end if;
  if v_ours then
    raise exception using errcode = 'PR510', constraint = 'gdpr_guarded',
      message = 'what protects personal data would be weakened', detail = 'gdprdb itself would go',
      hint = 'A superuser takes the guard away first: gdprdb guard remove.';
  end if;
end
$function$;
comment on function gdpr_guard.check_command(text) is 'Asks gdpr_internal.guard(), with the rights of gdpr_owner. Error: PR510.';

create function gdpr_guard.note(p_what text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if to_regprocedure('gdpr_internal.note_guard(text)') is not null then
    perform gdpr_internal.note_guard(p_what);
  end if;
end
$function$;
comment on function gdpr_guard.note(text) is 'Puts on record that the guard was installed or removed.';

alter function gdpr_guard.check_command(text) owner to gdpr_owner;
alter function gdpr_guard.note(text) owner to gdpr_owner;

create function gdpr_guard.on_command()
returns event_trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if to_regprocedure('gdpr_guard.check_command(text)') is null then
    raise exception using errcode = 'PR510', constraint = 'gdpr_guarded',
      message = 'what protects personal data would be weakened', detail = 'the guard itself would go',
      hint = 'A superuser takes it away, or puts it right: gdprdb guard remove, gdprdb guard install.';
  end if;
  perform gdpr_guard.check_command(tg_event);
end
$function$;
comment on function gdpr_guard.on_command() is 'Called at the end of every statement that defines or drops something.';
revoke all on function gdpr_guard.on_command(), gdpr_guard.check_command(text), gdpr_guard.note(text) from public;

select gdpr_guard.note('installed');

-- enabled always: session_replication_role does not switch it off
create event trigger gdpr_guard_end on ddl_command_end execute function gdpr_guard.on_command();
alter event trigger gdpr_guard_end enable always;
comment on event trigger gdpr_guard_end is 'gdprdb: refuses statements after which a table is protected less.';
create event trigger gdpr_guard_drop on sql_drop execute function gdpr_guard.on_command();
alter event trigger gdpr_guard_drop enable always;
comment on event trigger gdpr_guard_drop is 'gdprdb: refuses to drop what protects a table.';
