-- [code] Who answers for the processing: joint controllers, the representative, the data protection officer, the authority.
-- GDPR Art. 26, 27, 30(1)(a), 37(7), 51. Called by: gdpr_dpo; read by the record of processing activities.

set local role gdpr_owner;

create or replace function gdpr_internal.party_roles()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['joint_controller', 'representative', 'data_protection_officer', 'supervisory_authority'];
end;
comment on function gdpr_internal.party_roles() is 'The roles of parties besides the controller, whom the policy names (settings.controller). Art. 26, 27, 37, 51.';

create or replace view gdpr_internal.party_now as
select distinct on (p.party_id) p.*
from gdpr_internal.party_record as p
order by p.party_id, p.id desc;
comment on view gdpr_internal.party_now is 'The version of each party that holds.';

create or replace function gdpr.record_party(
  p_role text,
  p_name text,
  p_contact text,
  p_country text,
  p_reference text default null,
  p_valid_until timestamptz default null
)
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
  if p_role is null or p_role <> all (gdpr_internal.party_roles()) then
    perform gdpr_internal.refuse('invalid_argument', format(
      'role is one of %s; the policy names the controller (settings.controller), gdpr.record_recipient() processors',
      array_to_string(gdpr_internal.party_roles(), ', ')
    ));
  elsif '' in (coalesce(btrim(p_name), ''), coalesce(btrim(p_contact), '')) then
    perform gdpr_internal.refuse('invalid_argument', 'a party has a name and a contact');
  elsif p_country is null or p_country <> all (gdpr_internal.countries()) then
    perform gdpr_internal.refuse('invalid_argument', 'country is two capital letters of ISO 3166-1, as GB');
  elsif p_role = 'joint_controller' and coalesce(btrim(p_reference), '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'joint controllers have an arrangement (Art. 26): name it');
  end if;
  -- two who register the same party at once make one
  perform pg_advisory_xact_lock(hashtextextended('gdpr.party', 0));
  select p.party_id into v_id from gdpr_internal.party_now as p where p.role = p_role and p.name = p_name;
  insert into gdpr_internal.party_record (party_id, role, name, contact, country, reference, valid_until, actor)
  values (
    coalesce(v_id, (select coalesce(max(p.party_id), 0) + 1 from gdpr_internal.party_record as p)),
    p_role, p_name, p_contact, p_country, p_reference, coalesce(p_valid_until, 'infinity'), gdpr_internal.context_setting('actor')
  )
  returning party_id into v_id;
  perform gdpr_internal.audit_event('PARTY', null, jsonb_build_object('party_id', v_id, 'role', p_role));
  return v_id;
end
$function$;
comment on function gdpr.record_party(text, text, text, text, text, timestamptz) is
  'Registers who answers for the processing, or a new version of the one of this role and name; returns its number. p_role: joint_controller (with p_reference, the arrangement), representative, data_protection_officer, supervisory_authority. p_contact: how to reach it, preferably a function and not a person. p_country: ISO 3166-1 (alpha-2). p_valid_until: now or earlier ends the entry. Error: PR004. Art. 26, 27, 30(1)(a), 37.';

create or replace view gdpr.party as
select
  null::bigint as party_id,
  'controller' as role,
  s.value ->> 'name' as name,
  coalesce(s.value ->> 'email', s.value ->> 'url', s.value ->> 'address') as contact,
  s.value ->> 'country' as country,
  null::text as reference,
  'infinity'::timestamptz as valid_until,
  null::timestamptz as recorded_at,
  null::text as recorded_by
from gdpr_internal.setting as s
where s.name = 'controller'
union all
select p.party_id, p.role, p.name, p.contact, p.country, p.reference, p.valid_until, p.recorded_at, p.recorded_by
from gdpr_internal.party_now as p;
comment on view gdpr.party is
  'Who answers for the processing: the controller, as the policy names it, and the parties that gdpr.record_party() registered. An entry has ended where valid_until has passed. Art. 30(1)(a).';
