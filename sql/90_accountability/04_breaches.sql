-- [code] The register of personal data breaches: what is known, the 72 hours, the authority, and when a case may be closed.
-- GDPR Art. 33, 34. Called by: gdpr_dpo. Deadlines are compared when somebody asks: no job has to run.

set local role gdpr_owner;

create or replace view gdpr_internal.breach_state as
select
  b.id,
  b.aware_at,
  b.aware_at + interval '72 hours' as notify_by,
  f.facts,
  a.details ->> 'risk' as risk,
  a.details ->> 'reason' as risk_reason,
  n.happened_at as notified_at,
  n.details as notification,
  x.details as excuse,
  c.recorded_at as closed_at,
  c.details ->> 'reason' as closing_reason,
  b.recorded_at,
  b.recorded_by
from gdpr_internal.breach_record as b
cross join lateral (
  -- what is known later replaces what was known before, fact by fact
  select coalesce(jsonb_object_agg(k.key, k.value order by e.id), '{}') as facts
  from gdpr_internal.breach_event as e
  cross join lateral jsonb_each(e.details) as k
  where e.breach_id = b.id and e.event = 'facts'
) as f
left join lateral (
  select e.details from gdpr_internal.breach_event as e where e.breach_id = b.id and e.event = 'assessed' order by e.id desc limit 1
) as a on true
left join lateral (
  -- the first counts for the 72 hours: later ones tell more (Art. 33(4))
  select e.happened_at, e.details from gdpr_internal.breach_event as e where e.breach_id = b.id and e.event = 'notified' order by e.happened_at, e.id limit 1
) as n on true
left join lateral (
  select e.details from gdpr_internal.breach_event as e where e.breach_id = b.id and e.event = 'excused' order by e.id desc limit 1
) as x on true
left join lateral (
  select e.recorded_at, e.details from gdpr_internal.breach_event as e where e.breach_id = b.id and e.event = 'closed' order by e.id desc limit 1
) as c on true;
comment on view gdpr_internal.breach_state is 'Where each breach stands, from its events.';

create or replace function gdpr_internal.breach_status(p_breach gdpr_internal.breach_state)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when (p_breach).closed_at is not null then 'closed'
    when (p_breach).risk is null then 'to_assess'
    when (p_breach).risk <> 'unlikely' and (p_breach).notified_at is null then 'to_notify'
    when (p_breach).risk = 'high' and (p_breach).excuse is null and not exists (
      select from gdpr_internal.breach_person as p where p.breach_id = (p_breach).id
    ) then 'to_find_persons'
    when (p_breach).risk = 'high' and (p_breach).excuse is null and exists (
      select from gdpr_internal.breach_person as p
      join gdpr_internal.subject as s on s.id = p.subject_id and s.erased_at is null
      where p.breach_id = (p_breach).id and not exists (
        select from gdpr_internal.breach_communication as c where c.breach_id = p.breach_id and c.subject_id = p.subject_id
      )
    ) then 'to_communicate'
    else 'to_close'
  end;
end;
comment on function gdpr_internal.breach_status(gdpr_internal.breach_state) is
  'What is to be done next about a breach: to_assess, to_notify (the authority), to_find_persons, to_communicate (to the persons), to_close; closed.';

create or replace view gdpr.breach as
select
  b.id as breach_id,
  gdpr_internal.breach_status(b) as status,
  b.aware_at,
  b.notify_by,
  b.notified_at is null and b.closed_at is null and coalesce(b.risk <> 'unlikely', true) and b.notify_by <= statement_timestamp() as overdue,
  b.risk,
  b.risk_reason,
  b.facts ->> 'nature' as nature,
  array(select jsonb_array_elements_text(b.facts -> 'kinds')) as kinds,
  (b.facts ->> 'occurred_from')::timestamptz as occurred_from,
  (b.facts ->> 'occurred_until')::timestamptz as occurred_until,
  (b.facts ->> 'persons')::bigint as approximate_persons,
  (b.facts ->> 'records')::bigint as approximate_records,
  array(select jsonb_array_elements_text(b.facts -> 'categories')) as categories,
  b.facts ->> 'consequences' as consequences,
  b.facts ->> 'measures' as measures,
  b.facts ->> 'processor' as processor,
  b.notified_at,
  b.notification ->> 'authority' as authority,
  b.notification ->> 'reference' as reference,
  b.notification ->> 'delay_reason' as delay_reason,
  (select count(*) from gdpr_internal.breach_person as p where p.breach_id = b.id) as persons,
  (select count(*) from gdpr_internal.breach_communication as c where c.breach_id = b.id) as persons_told,
  b.excuse ->> 'ground' as not_told_ground,
  b.excuse ->> 'reason' as not_told_reason,
  b.closed_at,
  b.closing_reason,
  b.recorded_at,
  b.recorded_by
from gdpr_internal.breach_state as b;
comment on view gdpr.breach is
  'Personal data breaches (Art. 33(5)): what is known, what was done, what is to be done next (status: to_assess, to_notify, to_find_persons, to_communicate, to_close, closed). notify_by: 72 hours after the controller became aware; overdue: it has passed and the authority does not know. persons: whose data it is about, as far as recorded; persons_told: of them.';

create or replace view gdpr.breach_history as
select e.id, e.breach_id, e.event, e.details, e.happened_at, e.recorded_at, e.recorded_by, e.actor
from gdpr_internal.breach_event as e;
comment on view gdpr.breach_history is 'All that was recorded of breaches, oldest first by id. Art. 33(5).';

create or replace function gdpr_internal.read_breach_facts(p_facts jsonb, p_aware_at timestamptz)
returns jsonb
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_problem text;
begin
  if jsonb_typeof(p_facts) is distinct from 'object' then
    perform gdpr_internal.refuse('invalid_argument', 'what is known is a JSON object');
  end if;
  v_problem := case
    when p_facts - array[
      'nature', 'kinds', 'occurred_from', 'occurred_until', 'persons', 'records', 'categories', 'consequences', 'measures', 'processor'
    ] <> '{}' then
      'what is known are nature, kinds, occurred_from, occurred_until, persons, records, categories, consequences, measures, processor'
    when exists (
      select from jsonb_each(p_facts) as f
      where f.key in ('nature', 'consequences', 'measures', 'processor')
        and (jsonb_typeof(f.value) <> 'string' or btrim(f.value #>> '{}') = '')
    ) then 'nature, consequences, measures and processor are texts'
    when exists (
      select from jsonb_each(p_facts) as f where f.key in ('kinds', 'categories') and (jsonb_typeof(f.value) <> 'array' or f.value = '[]')
    ) then 'kinds and categories are lists'
    when not p_facts -> 'kinds' <@ '["confidentiality", "integrity", "availability"]' then
      'kinds are confidentiality, integrity and availability: which of them was lost'
    when exists (
      select from jsonb_each(p_facts) as f where f.key in ('persons', 'records') and f.value #>> '{}' !~ '^[0-9]{1,15}$'
    ) then 'persons and records are numbers, as near as is known'
    when p_facts ? 'processor' and not exists (select from gdpr_internal.recipient_now as r where r.name = p_facts ->> 'processor') then
      'processor is one of gdpr.recipient'
  end;
  if v_problem is null then
    begin
      if (p_facts ->> 'occurred_until')::timestamptz < (p_facts ->> 'occurred_from')::timestamptz
        or (p_facts ->> 'occurred_from')::timestamptz > p_aware_at
      then
        v_problem := 'a breach begins before it ends, and before anybody is aware of it';
      end if;
    exception when data_exception then
      v_problem := 'occurred_from and occurred_until are points in time (ISO 8601)';
    end;
  end if;
  if v_problem is not null then
    perform gdpr_internal.refuse('invalid_argument', v_problem);
  end if;
  -- whoever reads them may live in another time zone
  return p_facts || jsonb_strip_nulls(jsonb_build_object(
    'occurred_from', gdpr_internal.utc((p_facts ->> 'occurred_from')::timestamptz),
    'occurred_until', gdpr_internal.utc((p_facts ->> 'occurred_until')::timestamptz)
  ));
end
$function$;
comment on function gdpr_internal.read_breach_facts(jsonb, timestamptz) is 'The facts of a breach, their times in UTC. Error: PR004 what is none.';

create or replace function gdpr_internal.add_breach_event(p_breach bigint, p_event text, p_details jsonb, p_at timestamptz default statement_timestamp())
returns gdpr_internal.breach_state
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_state gdpr_internal.breach_state;
begin
  -- one decision after the other: the state that the next one sees is what this one leaves
  perform from gdpr_internal.breach_record as b where b.id = p_breach for update;
  select * into v_state from gdpr_internal.breach_state as s where s.id = p_breach;
  if v_state.id is null then
    perform gdpr_internal.refuse('unknown_breach');
  elsif v_state.closed_at is not null and p_event <> 'facts' then
    perform gdpr_internal.refuse('breach_open', 'the case is closed');
  end if;
  if p_at > statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'this is still to come');
  end if;
  insert into gdpr_internal.breach_event (breach_id, event, details, happened_at, actor)
  values (p_breach, p_event, p_details, p_at, gdpr_internal.context_setting('actor'));
  perform gdpr_internal.audit_event('BREACH', null, jsonb_build_object('breach_id', p_breach, 'event', p_event));
  return v_state;
end
$function$;
comment on function gdpr_internal.add_breach_event(bigint, text, jsonb, timestamptz) is
  'Adds an event to a breach that is open (facts: to any), and returns the state before it. Errors: PR903 unknown, PR902 closed, PR004 a time to come.';

create or replace function gdpr.record_breach(p_facts jsonb, p_aware_at timestamptz default statement_timestamp())
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id bigint;
  v_facts jsonb;
begin
  if p_aware_at is null or p_aware_at > statement_timestamp() or not isfinite(p_aware_at) then
    perform gdpr_internal.refuse('invalid_argument', 'nobody becomes aware of a breach in the future');
  end if;
  v_facts := gdpr_internal.read_breach_facts(p_facts, p_aware_at);
  if not p_facts ?& array['nature', 'kinds'] then
    perform gdpr_internal.refuse('invalid_argument', 'the nature of the breach and its kinds are needed; the rest may follow');
  end if;
  insert into gdpr_internal.breach_record (aware_at, actor)
  values (p_aware_at, gdpr_internal.context_setting('actor'))
  returning id into v_id;
  perform gdpr_internal.add_breach_event(v_id, 'facts', v_facts);
  return v_id;
end
$function$;
comment on function gdpr.record_breach(jsonb, timestamptz) is
  'Opens a case about a personal data breach and returns its number. p_facts: {"nature": what happened, "kinds": of confidentiality, integrity, availability, and as far as known "occurred_from", "occurred_until", "persons", "records" (about how many), "categories" (of data and of persons), "consequences", "measures", "processor" (a recipient, whose breach it was)}; no personal data. p_aware_at: when the controller became aware; the authority is told within 72 hours of it. Error: PR004. Art. 33(3), (5).';

create or replace function gdpr.amend_breach(p_breach bigint, p_facts jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_aware_at timestamptz := (select b.aware_at from gdpr_internal.breach_record as b where b.id = p_breach);
  v_facts jsonb;
begin
  if v_aware_at is null then
    perform gdpr_internal.refuse('unknown_breach');
  end if;
  v_facts := gdpr_internal.read_breach_facts(p_facts, v_aware_at);
  if p_facts = '{}' then
    perform gdpr_internal.refuse('invalid_argument', 'there is nothing to add');
  end if;
  perform gdpr_internal.add_breach_event(p_breach, 'facts', v_facts);
end
$function$;
comment on function gdpr.amend_breach(bigint, jsonb) is
  'Adds what has become known of a breach, as gdpr.record_breach() takes it: later facts replace earlier ones, and the history keeps both. Also of a closed case. No personal data of those affected in it. Errors: PR004, PR903. Art. 33(4).';

create or replace function gdpr.assess_breach(p_breach bigint, p_risk text, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_risk is null or p_risk not in ('unlikely', 'risk', 'high') then
    perform gdpr_internal.refuse('invalid_argument', 'a risk to the persons is unlikely, or there is a risk, or a high one: unlikely, risk, high');
  elsif coalesce(btrim(p_reason), '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  perform gdpr_internal.add_breach_event(p_breach, 'assessed', jsonb_build_object('risk', p_risk, 'reason', p_reason));
end
$function$;
comment on function gdpr.assess_breach(bigint, text, text) is
  'Says what a breach means for the persons: unlikely to be a risk (documented, the authority is not told), risk (the authority is told), high (the persons are told too). The latest assessment counts. p_reason must hold no personal data. Errors: PR004, PR902 closed, PR903. Art. 33(1), 34(1).';

create or replace function gdpr.notify_breach(
  p_breach bigint, p_authority text, p_reference text, p_at timestamptz default statement_timestamp(), p_delay_reason text default null
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_state gdpr_internal.breach_state;
begin
  if '' in (coalesce(btrim(p_authority), ''), coalesce(btrim(p_reference), '')) then
    perform gdpr_internal.refuse('invalid_argument', 'the authority and its reference, or that of the letter, are needed');
  elsif p_at is null or not isfinite(p_at) then
    perform gdpr_internal.refuse('invalid_argument', 'a point in time is needed');
  end if;
  v_state := gdpr_internal.add_breach_event(
    p_breach, 'notified',
    jsonb_strip_nulls(jsonb_build_object('authority', p_authority, 'reference', p_reference, 'delay_reason', nullif(btrim(p_delay_reason), ''))), p_at
  );
  if p_at < v_state.aware_at then
    perform gdpr_internal.refuse('invalid_argument', 'nobody tells of a breach before being aware of it');
  elsif v_state.notified_at is null and p_at > v_state.notify_by and coalesce(btrim(p_delay_reason), '') = '' then
    perform gdpr_internal.refuse('breach_late');
  end if;
end
$function$;
comment on function gdpr.notify_breach(bigint, text, text, timestamptz, text) is
  'Records that the supervisory authority was told of a breach; again for what is told later (Art. 33(4)). p_at: when. More than 72 hours after the controller became aware, the first notification says why (p_delay_reason). No personal data of those affected in it. Errors: PR004, PR902 closed, PR903, PR904 late without reasons. Art. 33(1).';

create or replace function gdpr.excuse_breach(p_breach bigint, p_ground text, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_ground is null or p_ground not in ('data_unintelligible', 'risk_averted', 'public_communication') then
    perform gdpr_internal.refuse('invalid_argument', 'ground is data_unintelligible, risk_averted or public_communication (Art. 34(3))');
  elsif coalesce(btrim(p_reason), '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  perform gdpr_internal.add_breach_event(p_breach, 'excused', jsonb_build_object('ground', p_ground, 'reason', p_reason));
end
$function$;
comment on function gdpr.excuse_breach(bigint, text, text) is
  'Records why persons are not told one by one of a breach with a high risk: data_unintelligible (what was lost is encrypted and the key was not), risk_averted, public_communication (telling each would be out of proportion; p_reason says where it was published). p_reason must hold no personal data. Errors: PR004, PR902 closed, PR903. Art. 34(3).';

create or replace function gdpr.close_breach(p_breach bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_state gdpr_internal.breach_state;
begin
  if coalesce(btrim(p_reason), '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'say what was done so that it does not happen again');
  end if;
  v_state := gdpr_internal.add_breach_event(p_breach, 'closed', jsonb_build_object('reason', p_reason));
  if gdpr_internal.breach_status(v_state) <> 'to_close' then
    perform gdpr_internal.refuse('breach_open', format('next: %s', gdpr_internal.breach_status(v_state)));
  end if;
end
$function$;
comment on function gdpr.close_breach(bigint, text) is
  'Closes the case about a breach once it is assessed and whoever has to be told was told. p_reason: what was done so that it does not happen again. No personal data in it. Errors: PR004, PR902 something is left to do, PR903. Art. 33(5).';
