-- [code] Days as the policy counts them: "until 31 March" ends where the company is, whatever the session's TimeZone.
-- GDPR Art. 5(1)(e). Called by: whoever records something that ends; gdprdb's own functions.

set local role gdpr_owner;

create or replace function gdpr_internal.time_zone()
returns text
-- up to PostgreSQL 17 a function of SQL would be planned for each call
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return coalesce((select s.value #>> '{}' from gdpr_internal.setting as s where s.name = 'time_zone'), 'UTC');
end
$function$;
comment on function gdpr_internal.time_zone() is 'The time zone of the policy (settings.time_zone), else UTC.';

create or replace function gdpr.until(p_date date)
returns timestamptz
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_zone text := gdpr_internal.time_zone();
  v_midnight timestamp := p_date + 1;
  v_end timestamptz := v_midnight at time zone v_zone;
begin
  -- where clocks go back from one to midnight it strikes twelve twice, and PostgreSQL means the second time
  if (v_end - interval '1 hour') at time zone v_zone = v_midnight then
    v_end := v_end - interval '1 hour';
  end if;
  return v_end;
end
$function$;
comment on function gdpr.until(date) is
  'The instant at which a day ends in the time zone of the policy (settings.time_zone, else UTC): what is valid until 31 March holds through all of it. Days on which the clocks change included.';

create or replace function gdpr_internal.utc(p_at timestamptz)
returns text
language sql
stable
parallel safe
security invoker
begin atomic
  select case when isfinite(p_at) then to_char(timezone('UTC', p_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end;
end;
comment on function gdpr_internal.utc(timestamptz) is 'An instant as documents have it: ISO 8601 in UTC; null for one that never comes.';
