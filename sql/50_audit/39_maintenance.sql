-- [code] Maintenance windows: the time in which the guard lets controls be weakened, and who opened it.
-- GDPR Art. 5(2), Art. 32(1)(b). Called by: gdpr_dpo, gdprdb guard open|close.

set local role gdpr_owner;

create or replace function gdpr.open_maintenance(p_reason text, p_until timestamptz)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id bigint;
begin
  if coalesce(p_reason, '') !~ '\S' or length(p_reason) > 1000 then
    perform gdpr_internal.refuse('invalid_argument', 'a maintenance window needs a reason, of at most 1,000 characters');
  elsif p_until is null or p_until <= clock_timestamp() or p_until > clock_timestamp() + interval '1 day' then
    perform gdpr_internal.refuse('invalid_argument', 'a maintenance window ends in the future, within a day');
  end if;
  -- one at a time
  lock table gdpr_internal.maintenance_window in share row exclusive mode;
  if gdpr_internal.open_window() is not null then
    perform gdpr_internal.refuse('window_state', 'one is open');
  end if;
  insert into gdpr_internal.maintenance_window (reason, until) values (p_reason, p_until) returning id into v_id;
  return v_id;
end
$function$;
comment on function gdpr.open_maintenance(text, timestamptz) is
  'Opens a maintenance window until a time within a day: meanwhile the guard lets what protects tables be changed, and puts each weakening on record. It ends by itself. p_reason: no personal data. For officers, so that who changes things does not give himself leave. Errors: PR004 no reason or no such time, PR511 one is open. Art. 32(1)(b).';

create or replace function gdpr.close_maintenance()
returns table (table_name regclass, finding text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id bigint := gdpr_internal.open_window();
begin
  if v_id is null then
    perform gdpr_internal.refuse('window_state', 'none is open');
  end if;
  insert into gdpr_internal.maintenance_window_end (window_id) values (v_id);
  return query
  select t.relation, w
  from gdpr_internal.protected_table as t
  cross join lateral gdpr_internal.weakened(t.id) as w
  where t.unprotected_at is null
  order by t.relation::text, w;
end
$function$;
comment on function gdpr.close_maintenance() is
  'Closes the maintenance window before its time, and returns what is weaker than apply() left it: gdprdb policy apply mends it. Error: PR511 none is open. Art. 32(1)(b).';

create or replace view gdpr.guard as
select
  gdpr_internal.guard_stands() as stands,
  w.id as maintenance,
  w.until as maintenance_until
from (values (gdpr_internal.open_window())) as o (id)
left join gdpr_internal.maintenance_window as w on w.id = o.id;
comment on view gdpr.guard is 'Whether the guard stands, and the maintenance window that is open, if one is.';

create or replace view gdpr.maintenance as
select w.id, w.reason, w.opened_at, w.login as opened_by, w.until, e.ended_at, e.login as ended_by
from gdpr_internal.maintenance_window as w
left join gdpr_internal.maintenance_window_end as e on e.window_id = w.id;
comment on view gdpr.maintenance is 'Maintenance windows: why, from when, by whom, until when, and when and by whom they were closed before their time. What was weakened in them stands in gdpr.audit_log, operation GUARD.';
