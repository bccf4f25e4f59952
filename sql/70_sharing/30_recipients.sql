-- [code] The register of recipients.
-- GDPR Art. 13(1)(e), 26, 28, 30(1)(d), 44 to 49. Called by: gdpr_dpo; read by disclosures, exports and access reports.

set local role gdpr_owner;

create or replace view gdpr_internal.recipient_now as
select distinct on (r.recipient_id) r.*
from gdpr_internal.recipient_record as r
order by r.recipient_id, r.id desc;
comment on view gdpr_internal.recipient_now is 'The version of each recipient that holds.';

create or replace function gdpr_internal.check_recipient(p_recipient gdpr_internal.recipient_record)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_problem text;
begin
  v_problem := case
    when coalesce(p_recipient.name, '') = '' then 'a recipient has a name'
    when p_recipient.role is null or p_recipient.role <> all (array['controller', 'joint_controller', 'processor', 'sub_processor', 'authority'])
      then 'role is one of controller, joint_controller, processor, sub_processor, authority'
    when p_recipient.country is null or p_recipient.country <> all (gdpr_internal.countries())
      then 'country is two capital letters of ISO 3166-1, as GB'
    when p_recipient.safeguard <> all (gdpr_internal.safeguards())
      then format('safeguard is one of %s', array_to_string(gdpr_internal.safeguards(), ', '))
    when p_recipient.safeguard = 'derogation' and (p_recipient.ground is null or p_recipient.ground <> all (gdpr_internal.derogations()))
      then format('a derogation has a ground: %s', array_to_string(gdpr_internal.derogations(), ', '))
    when p_recipient.safeguard = 'adequacy' and p_recipient.safeguard_reference is null
      then 'a decision limited in scope needs a reference that shows that the recipient is covered'
    when p_recipient.ground is not null and p_recipient.safeguard is distinct from 'derogation' then 'a ground is for a derogation'
    when p_recipient.role in ('joint_controller', 'processor', 'sub_processor') and p_recipient.contract is null
      then 'joint controllers and processors work under a contract (Art. 26, 28): name it'
    when (p_recipient.role = 'sub_processor') <> (p_recipient.parent_id is not null)
      then 'a sub-processor, and nobody else, works for a registered processor'
    when p_recipient.address is not null and not gdpr_internal.is_address(p_recipient.address) then 'address is a mail address, of the organisation and not of a person'
    when p_recipient.language !~ '^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$' then 'language is a tag such as de or pt-BR'
  end;
  if v_problem is not null then
    perform gdpr_internal.refuse('invalid_argument', v_problem);
  end if;
end
$function$;
comment on function gdpr_internal.check_recipient(gdpr_internal.recipient_record) is 'Refuses an entry of the register that is none. Error: PR004.';

create or replace function gdpr.record_recipient(
  p_name text,
  p_role text,
  p_country text,
  p_safeguard text default null,
  p_contract text default null,
  p_address text default null,
  p_parent text default null,
  p_valid_until timestamptz default null,
  p_ground text default null,
  p_safeguard_reference text default null,
  p_safeguard_until timestamptz default null,
  p_language text default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_new gdpr_internal.recipient_record;
  v_ancestor bigint;
  v_problem text;
begin
  -- two who register the same name at once make one recipient
  perform pg_advisory_xact_lock(hashtextextended('gdpr.recipient', 0));
  v_new.name := p_name;
  v_new.role := p_role;
  v_new.country := p_country;
  v_new.safeguard := p_safeguard;
  v_new.ground := p_ground;
  v_new.safeguard_reference := p_safeguard_reference;
  v_new.safeguard_until := p_safeguard_until;
  v_new.contract := p_contract;
  v_new.address := p_address;
  v_new.language := p_language;
  v_new.valid_until := coalesce(p_valid_until, 'infinity');
  select r.recipient_id into v_new.recipient_id from gdpr_internal.recipient_now as r where r.name = p_name;
  select r.recipient_id into v_new.parent_id
  from gdpr_internal.recipient_now as r
  where r.name = p_parent and r.role in ('processor', 'sub_processor');
  perform gdpr_internal.check_recipient(v_new);
  v_ancestor := v_new.parent_id;
  while v_ancestor is not null loop
    if v_ancestor = v_new.recipient_id then
      perform gdpr_internal.refuse('invalid_argument', 'a processor cannot work for itself');
    end if;
    select r.parent_id into v_ancestor from gdpr_internal.recipient_now as r where r.recipient_id = v_ancestor;
  end loop;
  -- an entry that ends here and now needs no safeguard any more
  v_problem := case when v_new.valid_until > statement_timestamp() then gdpr_internal.transfer_problem(v_new) end;
  if v_problem is not null then
    perform gdpr_internal.refuse('transfer_refused', v_problem);
  end if;
  insert into gdpr_internal.recipient_record (
    recipient_id, name, role, country, safeguard, ground, safeguard_reference, safeguard_until, contract, address, language, parent_id, valid_until
  )
  values (
    coalesce(v_new.recipient_id, (select coalesce(max(r.recipient_id), 0) + 1 from gdpr_internal.recipient_record as r)),
    v_new.name, v_new.role, v_new.country, v_new.safeguard, v_new.ground, v_new.safeguard_reference, v_new.safeguard_until, v_new.contract,
    v_new.address, v_new.language, v_new.parent_id, v_new.valid_until
  )
  returning recipient_id into v_new.recipient_id;
  perform gdpr_internal.audit_event('RECIPIENT', null, jsonb_build_object('recipient', v_new.recipient_id, 'name', p_name, 'role', p_role, 'country', p_country));
  return v_new.recipient_id;
end
$function$;
comment on function gdpr.record_recipient(text, text, text, text, text, text, text, timestamptz, text, text, timestamptz, text) is
  'Registers a recipient, or a new version of the one of this name; returns its number. p_role: controller, joint_controller, processor, sub_processor, authority. p_country: where the data go, ISO 3166-1 (alpha-2). p_safeguard: what a transfer rests on where neither the EEA nor an adequacy decision covers the country (gdpr.adequacy): standard_clauses, binding_rules, code_of_conduct, certification, public_instrument, authorised_clauses, derogation (with p_ground, of Art. 49(1)), or adequacy where the decision is limited in scope (with p_safeguard_reference that shows that the recipient is covered). p_contract: needed for joint controllers and processors. p_address: a mailbox of the organisation, where notices go (in p_language). p_parent: the processor that a sub-processor works for. p_valid_until: nothing is disclosed from then on; now or earlier ends the entry. Errors: PR004, PR701 transfer without a safeguard. Art. 28, 30(1)(d), 44.';

create or replace function gdpr_internal.require_recipient(p_name text)
returns gdpr_internal.recipient_record
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_recipient gdpr_internal.recipient_record;
  v_problem text;
begin
  select * into v_recipient from gdpr_internal.recipient_now as r where r.name = p_name;
  if v_recipient.id is null then
    perform gdpr_internal.refuse('unknown_recipient');
  end if;
  v_problem := gdpr_internal.transfer_problem(v_recipient);
  if v_problem is not null then
    perform gdpr_internal.refuse('transfer_refused', v_problem);
  end if;
  return v_recipient;
end
$function$;
comment on function gdpr_internal.require_recipient(text) is
  'The recipient of this name, to whom something may be disclosed now. Errors: PR702 unknown, PR701 it has ended, or its transfer rests on nothing.';

create or replace view gdpr.recipient as
select
  r.recipient_id,
  r.name,
  r.role,
  r.country,
  coalesce((
    select case when a.source = 'EEA' then 'EEA' else 'adequacy' end
    from gdpr.adequacy as a
    where a.country = r.country and a.scope is null and gdpr_internal.adequate_now(a.valid_from, a.valid_until)
    limit 1
  ), r.safeguard) as transfer,
  r.safeguard,
  r.ground,
  r.safeguard_reference,
  r.safeguard_until,
  r.contract,
  r.address,
  r.language,
  p.name as works_for,
  r.valid_until,
  gdpr_internal.transfer_problem(t) as problem,
  (select count(*) from gdpr_internal.recipient_record as v where v.recipient_id = r.recipient_id) as versions,
  r.recorded_at,
  r.recorded_by
from gdpr_internal.recipient_now as r
join gdpr_internal.recipient_record as t on t.id = r.id
left join gdpr_internal.recipient_now as p on p.recipient_id = r.parent_id;
comment on view gdpr.recipient is
  'Recipients of personal data as registered last. transfer: what the data may go there on (EEA, adequacy, a safeguard). problem: why nothing may be disclosed to it now. Art. 30(1)(d), (e).';

create or replace view gdpr.recipient_history as
select
  r.id, r.recipient_id, r.name, r.role, r.country, r.safeguard, r.ground, r.safeguard_reference, r.safeguard_until, r.contract, r.address,
  r.language, r.parent_id, r.valid_until, r.recorded_at, r.recorded_by
from gdpr_internal.recipient_record as r;
comment on view gdpr.recipient_history is 'All versions of the recipients, oldest first by id: who changed what about them, when. Art. 5(2).';
