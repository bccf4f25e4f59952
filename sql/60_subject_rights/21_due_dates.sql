-- [code] The last day for an answer: months of the calendar, pauses, days off.
-- GDPR Art. 12(3); Regulation (EEC, Euratom) 1182/71 Art. 3: the day of receipt does not count, a period of months ends with the
-- same date or the last day of the month, and one that would end on a day off with the next working day.

set local role gdpr_owner;

create or replace function gdpr_internal.local_day(p_at timestamptz)
returns date
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return timezone(gdpr_internal.time_zone(), p_at)::date;
end
$function$;
comment on function gdpr_internal.local_day(timestamptz) is 'The day that an instant belongs to, in the time zone of the policy.';

create or replace function gdpr_internal.working_days()
returns integer[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(
    (
      select array_agg(array_position(gdpr_internal.weekdays(), d.name))
      from gdpr_internal.setting as s
      cross join lateral jsonb_array_elements_text(s.value) as d (name)
      where s.name = 'working_days'
    ),
    array[1, 2, 3, 4, 5]
  );
end;
comment on function gdpr_internal.working_days() is 'The days of the week on which people work (settings.working_days), by their ISO numbers; else Monday to Friday.';

create or replace function gdpr_internal.working_day(p_day date)
returns date
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
as $function$
declare
  v_week integer[] := gdpr_internal.working_days();
  v_holidays text[] := array(
    select h.day from gdpr_internal.setting as s cross join lateral jsonb_array_elements_text(s.value) as h (day) where s.name = 'holidays'
  );
  v_day date := p_day;
begin
  while extract(isodow from v_day)::integer <> all (v_week)
    or to_char(v_day, 'YYYY-MM-DD') = any (v_holidays) or to_char(v_day, 'MM-DD') = any (v_holidays)
  loop
    v_day := v_day + 1;
    -- a year without a working day is a mistake in the settings, and no reason to wait for ever
    exit when v_day > p_day + 366;
  end loop;
  return v_day;
end
$function$;
comment on function gdpr_internal.working_day(date) is
  'The day itself, or the next working day after it: settings.working_days and settings.holidays ("2027-03-26", or "12-25" for every year).';

create or replace function gdpr_internal.due_on(p_received_at timestamptz, p_months integer, p_paused_days integer)
returns date
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.working_day(
    (gdpr_internal.local_day(p_received_at) + make_interval(months => p_months))::date + p_paused_days
  );
end;
comment on function gdpr_internal.due_on(timestamptz, integer, integer) is
  'The last day for the answer to a request: months after the day it was received in the policy''s time zone (31 January: the last day of February), moved on by the days that the clock stood, and to the next working day. Art. 12(3).';
