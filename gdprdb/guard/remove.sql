-- Takes the guard away, on record. As a superuser, in one transaction: psql -1 -f, or gdprdb guard remove.

set local client_min_messages = warning;

do $note$
begin
  -- a schema of that name that somebody else made would run with a superuser's rights
  if pg_catalog.to_regprocedure('gdpr_guard.note(text)') is not null and (
    select r.rolsuper from pg_catalog.pg_namespace as n join pg_catalog.pg_roles as r on r.oid = n.nspowner where n.nspname = 'gdpr_guard'
  ) then
    perform gdpr_guard.note('removed');
  end if;
end
$note$;

drop event trigger if exists gdpr_guard_end;
drop event trigger if exists gdpr_guard_drop;
drop schema if exists gdpr_guard cascade;
