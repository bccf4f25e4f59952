-- [code] Where a person's consent stands, purpose by purpose: derived from questions and answers when somebody asks.
-- GDPR Art. 7. Read by: the gate (consent_state), everybody who works with consent (gdpr.consent).

set local role gdpr_owner;

create or replace function gdpr_internal.after(p_interval interval)
returns timestamptz
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_zone text := gdpr_internal.time_zone();
begin
  return timezone(v_zone, timezone(v_zone, statement_timestamp()) + p_interval);
end
$function$;
comment on function gdpr_internal.after(interval) is
  'This statement''s time and a duration, counted in the time zone of the policy: a day is a day there, whatever zone the session has.';

create or replace view gdpr_internal.consent_state as
select
  s.id as subject_id,
  s.erased_at is not null as erased,
  p.id as purpose_id,
  p.name as purpose,
  p.basis,
  r.id as record_id,
  r.event,
  r.channel,
  r.contact,
  r.form_id,
  r.valid_until,
  r.recorded_at,
  r.recorded_by,
  r.actor,
  q.request_id,
  q.respond_until,
  case
    -- a grant that holds is not shaken by a new question
    when r.event = 'granted' and r.valid_until > statement_timestamp() then 'granted'
    when q.respond_until > statement_timestamp() then 'waiting'
    when q.respond_until is not null then 'not_responded'
    when r.event = 'granted' then 'expired'
    else coalesce(r.event, 'pending')
  end as status,
  greatest(
    case when r.event = 'granted' then r.valid_until end,
    -- a no stays a no while the person is asked again; and asking again prolongs no waiting
    case when p.while_waiting = 'allow' and coalesce(r.event = 'granted', true) then q.first_until end
  ) as holds_until
from gdpr_internal.subject as s
cross join gdpr_internal.purpose as p
left join lateral (
  select x.*
  from gdpr_internal.consent_record as x
  where x.subject_id = s.id and x.purpose_id = p.id
  order by x.id desc
  limit 1
) as r on true
left join lateral (
  select
    max(x.id) as request_id,
    (array_agg(x.respond_until order by x.id desc))[1] as respond_until,
    min(x.respond_until) as first_until
  from gdpr_internal.consent_request as x
  where x.subject_id = s.id and x.id > coalesce(r.id, 0) and p.id = any (x.purposes)
) as q on true
where p.id < 62;
comment on view gdpr_internal.consent_state is
  'Consent of each person by purpose: the last answer, the last question since and its deadline, found by one probe of an index each. holds_until: until when it is a basis: as long as a grant is valid or, with while_waiting = allow and no earlier no, until the first deadline that passes without an answer.';

create or replace view gdpr.consent as
select
  c.record_id as consent_id,
  c.subject_id,
  c.purpose,
  c.status,
  case c.status
    when 'pending' then 'dpv:ConsentUnknown'
    when 'waiting' then 'dpv:ConsentRequested'
    when 'granted' then 'dpv:ConsentGiven'
    when 'declined' then 'dpv:ConsentRefused'
    when 'not_responded' then 'dpv:ConsentRequestDeferred'
    when 'expired' then 'dpv:ConsentExpired'
    when 'withdrawn' then 'dpv:ConsentWithdrawn'
  end as dpv,
  coalesce(c.holds_until > statement_timestamp(), false) as holds,
  c.channel,
  c.contact,
  c.recorded_at,
  case when c.event = 'granted' then c.valid_until end as valid_until,
  c.request_id,
  c.respond_until,
  c.form_id,
  c.recorded_by,
  c.actor
from gdpr_internal.consent_state as c
where c.record_id is not null
  or c.request_id is not null
  or c.basis = 'consent' and not c.erased and exists (
    select from gdpr_internal.source as o
    join gdpr_internal.protected_table as h on h.id = o.table_id
    where o.subject_id = c.subject_id and h.unprotected_at is null and h.purpose_mask & (1::bigint << c.purpose_id) <> 0
  );
comment on view gdpr.consent is
  'Where the consent of each person stands at the statement''s time, for each purpose that asks for it. status: pending (known, not asked), waiting, granted, declined, not_responded, expired, withdrawn; dpv: the same in the W3C Data Privacy Vocabulary. holds: whether it allows processing now, other bases, restriction and objection aside. contact: channels by which the person may be contacted. respond_until: the deadline of a question that is open or was not answered. Art. 7.';
