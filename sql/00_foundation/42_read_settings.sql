-- [code] Reading the settings of a policy.
-- GDPR Art. 25. Called by: gdpr_internal.read_policy(), and gdpr_policy.put_settings(), which anybody in gdpr_admin can call.

set local role gdpr_owner;

create or replace function gdpr_internal.weekdays()
returns text[]
language sql
immutable
parallel unsafe
security invoker
begin atomic
  select array['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'];
end;
comment on function gdpr_internal.weekdays() is 'The days of the week in the order of ISO 8601.';

create or replace function gdpr_internal.is_holiday(p_text text)
returns boolean
language plpgsql
immutable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
as $function$
begin
  -- 2024 has a 29 February
  return p_text ~ '^([0-9]{4}-)?[0-9]{2}-[0-9]{2}$' and right('2024-' || p_text, 10)::date is not null;
exception when data_exception then
  return false;
end
$function$;
comment on function gdpr_internal.is_holiday(text) is 'Whether a text is a day (2027-03-26) or one of every year (12-25).';

create or replace function gdpr_internal.retain_problem(p_name text, p_retain jsonb, p_least interval)
returns text
language sql
stable
parallel safe
security invoker
begin atomic
  select case
    when r.problem is not null then r.problem
    when r.value < p_least then format('settings.%s: at least %s', p_name, p_least)
  end
  from gdpr_internal.read_interval('settings.' || p_name, p_retain #>> '{}') as r
  where p_retain is not null;
end;
comment on function gdpr_internal.retain_problem(text, jsonb, interval) is
  'What is wrong with a setting of a policy that says how long evidence is kept, at least p_least; or null.';

create or replace function gdpr_internal.settings_problems(p_settings jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.unknown_keys('settings', p_settings, array[
      'phone_country_code', 'time_zone', 'child_age', 'new_timeline', 'controller', 'working_days', 'holidays', 'portal', 'adequacy',
      'addresses', 'blocklist_retain', 'audit_retain'
    ])
    || gdpr_internal.unknown_keys('settings.controller', p_settings -> 'controller', array['name', 'address', 'country', 'email', 'url'])
    || gdpr_internal.unknown_keys('settings.portal', p_settings -> 'portal', array['link', 'resend', 'session', 'reports'])
    || gdpr_internal.adequacy_problems(p_settings -> 'adequacy')
    || gdpr_internal.address_problems(p_settings -> 'addresses')
    || array_remove(array[
    (gdpr_internal.read_interval('settings.portal.link', p_settings #>> '{portal,link}')).problem,
    (gdpr_internal.read_interval('settings.portal.resend', p_settings #>> '{portal,resend}')).problem,
    (gdpr_internal.read_interval('settings.portal.session', p_settings #>> '{portal,session}')).problem,
    case when p_settings #>> '{portal,reports}' !~ '^[1-9][0-9]{0,4}$' then 'settings.portal.reports: how many a person has in an hour, 1 to 99999' end,
    gdpr_internal.retain_problem('blocklist_retain', p_settings -> 'blocklist_retain', '0'),
    gdpr_internal.retain_problem('audit_retain', p_settings -> 'audit_retain', '1 year'),
    case when p_settings ->> 'phone_country_code' !~ '^[1-9][0-9]{0,2}$' then 'settings.phone_country_code: digits such as "49"' end,
    case when p_settings ? 'time_zone' and not exists (
      -- names only: offsets and abbreviations know no summer, and '+2' counts westwards
      select from pg_timezone_names as z where z.name = p_settings ->> 'time_zone'
    ) then 'settings.time_zone: a name of the time zone database such as "Europe/Berlin"' end,
    case when p_settings ->> 'new_timeline' not in ('warn', 'refuse') then 'settings.new_timeline: warn or refuse' end,
    case when p_settings ->> 'child_age' !~ '^1[3-6]$' then 'settings.child_age: 13 to 16' end,
    case when jsonb_typeof(p_settings -> 'controller') = 'object' and coalesce(p_settings -> 'controller' ->> 'name', '') = ''
      then 'settings.controller.name: who decides on the processing (Art. 4(7))' end,
    case when p_settings ? 'working_days' and (
      jsonb_typeof(p_settings -> 'working_days') <> 'array' or p_settings -> 'working_days' = '[]'
      or not gdpr_internal.text_array(p_settings -> 'working_days') <@ gdpr_internal.weekdays()
    ) then 'settings.working_days: a list of ' || array_to_string(gdpr_internal.weekdays(), ', ') end,
    case when p_settings ? 'holidays' and (jsonb_typeof(p_settings -> 'holidays') <> 'array' or exists (
      select from unnest(gdpr_internal.text_array(p_settings -> 'holidays')) as h (day)
      where not coalesce(gdpr_internal.is_holiday(h.day), false)
    )) then 'settings.holidays: a list of days such as "2027-03-26", or "12-25" for every year' end
  ], null);
end;
comment on function gdpr_internal.settings_problems(jsonb) is 'What is wrong with the settings of a policy.';
