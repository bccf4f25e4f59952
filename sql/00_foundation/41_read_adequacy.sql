-- [code] What a policy says about countries with an adequacy decision.
-- GDPR Art. 45. Called by: gdpr_internal.settings_problems(), the register of recipients.

set local role gdpr_owner;

create or replace function gdpr_internal.countries()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select string_to_array(
    'AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI '
    'CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ '
    'GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS '
    'LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG '
    'PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK '
    'TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW',
    ' '
  );
end;
comment on function gdpr_internal.countries() is 'The country codes of ISO 3166-1 (alpha-2).';

create or replace function gdpr_internal.adequacy_problems(p_adequacy jsonb)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_entry jsonb;
  v_where text;
  v_setting text;
  v_problems text[] := '{}';
begin
  if p_adequacy is null then
    return '{}';
  elsif jsonb_typeof(p_adequacy) <> 'array' then
    return array['settings.adequacy: has to be a list of tables, [[settings.adequacy]]'];
  end if;
  for v_entry in select e.value from jsonb_array_elements(p_adequacy) as e loop
    v_where := format('settings.adequacy.%s', coalesce(to_json(v_entry ->> 'country')::text, '?'));
    v_problems := v_problems || gdpr_internal.unknown_keys(v_where, v_entry, array['country', 'scope', 'from', 'until', 'source']);
    continue when jsonb_typeof(v_entry) <> 'object';
    if coalesce(v_entry ->> 'country', '') <> all (gdpr_internal.countries()) then
      v_problems := v_problems || format('%s.country: two letters of ISO 3166-1, as "GB"', v_where);
    end if;
    if coalesce(v_entry ->> 'source', '') = '' then
      v_problems := v_problems || format('%s.source: the decision, as "(EU) 2026/179"', v_where);
    end if;
    foreach v_setting in array array['from', 'until'] loop
      if v_entry ->> v_setting !~ '^\d{4}-\d{2}-\d{2}$' or v_setting = 'from' and not v_entry ? 'from' then
        v_problems := v_problems || format('%s.%s: a day, as "2026-01-31"', v_where, v_setting);
      end if;
    end loop;
  end loop;
  return v_problems;
end
$function$;
comment on function gdpr_internal.adequacy_problems(jsonb) is 'What is wrong with settings.adequacy of a policy.';
