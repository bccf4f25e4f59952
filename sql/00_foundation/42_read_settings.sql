-- [code] Reading the settings of a policy.
-- GDPR Art. 25. Called by: gdpr_internal.read_policy(), and gdpr_policy.put_settings(), which anybody in gdpr_admin can call.

set local role gdpr_owner;

create or replace function gdpr_internal.settings_problems(p_settings jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.unknown_keys('settings', p_settings, array['phone_country_code', 'time_zone', 'child_age', 'controller', 'adequacy'])
    || gdpr_internal.unknown_keys('settings.controller', p_settings -> 'controller', array['name', 'address', 'country', 'email', 'url'])
    || gdpr_internal.adequacy_problems(p_settings -> 'adequacy')
    || array_remove(array[
    case when p_settings ->> 'phone_country_code' !~ '^[1-9][0-9]{0,2}$' then 'settings.phone_country_code: digits such as "49"' end,
    case when p_settings ? 'time_zone' and not exists (
      -- names only: offsets and abbreviations know no summer, and '+2' counts westwards
      select from pg_timezone_names as z where z.name = p_settings ->> 'time_zone'
    ) then 'settings.time_zone: a name of the time zone database such as "Europe/Berlin"' end,
    case when p_settings ->> 'child_age' !~ '^1[3-6]$' then 'settings.child_age: 13 to 16' end,
    case when jsonb_typeof(p_settings -> 'controller') = 'object' and coalesce(p_settings -> 'controller' ->> 'name', '') = ''
      then 'settings.controller.name: who decides on the processing (Art. 4(7))' end
  ], null);
end;
comment on function gdpr_internal.settings_problems(jsonb) is 'What is wrong with the settings of a policy.';
