-- [code] Recording and withdrawing consent, and its status at the statement's time.
-- GDPR Art. 6(1)(a), Art. 7. Called by: gdpr_dpo, and roles to which the policy gives may = ["consent"].

set local role gdpr_owner;

create or replace function gdpr_internal.add_consent(
  p_subject bigint, p_purpose text, p_event text, p_channel text, p_evidence jsonb, p_valid_until timestamptz
)
returns bigint
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
  v_id bigint;
begin
  perform gdpr_internal.require_subject(p_subject);
  if p_event = 'granted' then
    perform gdpr_internal.require_guardian(p_subject, p_evidence);
  end if;
  if not exists (select from gdpr_internal.purpose as p where p.id = v_purpose and p.basis = 'consent') then
    perform gdpr_internal.refuse('consent_not_asked');
  end if;
  if p_channel is null or p_channel <> all (
    array['email', 'portal', 'phone', 'paper', 'web_form', 'api', 'import', 'in_person']
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'channel is one of email, portal, phone, paper, web_form, api, import, in_person');
  end if;
  insert into gdpr_internal.consent_record (subject_id, purpose_id, event, channel, evidence, valid_until, actor)
  select
    p_subject, v_purpose, p_event, p_channel,
    gdpr_internal.seal_evidence(p_subject, p_evidence::text),
    coalesce(p_valid_until, statement_timestamp() + p.valid_for, 'infinity'),
    gdpr_internal.context_setting('actor')
  from gdpr_internal.purpose as p
  where p.id = v_purpose
  returning id into v_id;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.audit_event(
    'CONSENT', p_subject, jsonb_build_object('consent_id', v_id, 'purpose', p_purpose, 'event', p_event, 'channel', p_channel)
  );
  return v_id;
end
$function$;
comment on function gdpr_internal.add_consent(bigint, text, text, text, jsonb, timestamptz) is 'Adds one record of consent and spreads the gate.';

create or replace function gdpr.record_consent(
  p_subject bigint,
  p_purpose text,
  p_granted boolean,
  p_channel text,
  p_evidence jsonb default null,
  p_valid_until timestamptz default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_granted is null then
    perform gdpr_internal.refuse('invalid_argument', 'granted is true or false');
  elsif not p_granted then
    perform gdpr_internal.require_read_committed();
  end if;
  if p_valid_until <= statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'valid_until has passed');
  end if;
  return gdpr_internal.add_consent(
    p_subject, p_purpose, case when p_granted then 'granted' else 'declined' end, p_channel, p_evidence, p_valid_until
  );
end
$function$;
comment on function gdpr.record_consent(bigint, text, boolean, text, jsonb, timestamptz) is
  'Records that a person granted or declined consent for a purpose, by which channel (email, portal, phone, paper, web_form, api, import, in_person) and with which evidence (jsonb, kept encrypted); valid until p_valid_until, else as long as the purpose''s valid_for says. Returns its number. A person known to be a child needs {"guardian": {"name", "verified"}} in the evidence. Errors: PR101, PR603, PR003, PR004, PR005, PR310 no guardian. Art. 6(1)(a), 7(1), 8.';

create or replace function gdpr.withdraw_consent(p_subject bigint, p_purpose text, p_channel text default 'portal', p_evidence jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_read_committed();
  return gdpr_internal.add_consent(p_subject, p_purpose, 'withdrawn', p_channel, p_evidence, null);
end
$function$;
comment on function gdpr.withdraw_consent(bigint, text, text, jsonb) is
  'Withdraws a person''s consent for a purpose; in force in the next statement of every session once committed. Errors: PR101, PR603, PR003, PR004, PR005. Art. 7(3).';

create or replace view gdpr.consent as
select distinct on (c.subject_id, c.purpose_id)
  c.id as consent_id,
  c.subject_id,
  p.name as purpose,
  case
    when c.event = 'granted' and c.valid_until <= statement_timestamp() then 'expired'
    else c.event
  end as status,
  c.channel,
  c.recorded_at,
  case when c.event = 'granted' then c.valid_until end as valid_until,
  c.recorded_by,
  c.actor
from gdpr_internal.consent_record as c
join gdpr_internal.purpose as p on p.id = c.purpose_id
order by c.subject_id, c.purpose_id, c.id desc;
comment on view gdpr.consent is
  'The consent in force per person and purpose; status granted, declined, withdrawn or expired, derived at the statement''s time. Art. 7.';
