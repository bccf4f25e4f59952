-- [code] Where each request stands, derived from its steps; and the one function that adds a step.
-- GDPR Art. 12, Art. 5(2). Read by: gdpr_dpo, gdpr_auditor.

set local role gdpr_owner;

create or replace view gdpr_internal.request_state as
select
  r.id,
  r.kind,
  coalesce(r.subject_id, e.subject_id) as subject_id,
  r.channel,
  r.received_at,
  case e.last
    when 'identity_asked' then 'identity_pending'
    when 'completed' then 'completed'
    when 'refused' then 'refused'
    when 'withdrawn' then 'withdrawn'
    else case when e.extended then 'extended' when coalesce(r.subject_id, e.subject_id) is null then 'received' else 'open' end
  end as state,
  coalesce(e.last in ('completed', 'refused', 'withdrawn'), false) as closed,
  e.extended,
  e.due_on,
  gdpr.until(e.due_on) as due_at,
  e.paused_days,
  case when e.last = 'identity_asked' then e.last_at end as paused_at,
  case when e.last in ('completed', 'refused', 'withdrawn') then e.last_at end as closed_at,
  case when e.last in ('completed', 'refused', 'withdrawn') then e.last_reason end as outcome,
  e.fulfilled,
  r.details,
  r.recorded_at,
  r.recorded_by,
  r.actor
from gdpr_internal.request as r
cross join lateral (
  select
    (array_agg(x.event order by x.id desc) filter (where x.moves))[1] as last,
    (array_agg(x.recorded_at order by x.id desc) filter (where x.moves))[1] as last_at,
    (array_agg(x.reason order by x.id desc) filter (where x.moves))[1] as last_reason,
    (array_agg(x.due_on order by x.id desc) filter (where x.due_on is not null))[1] as due_on,
    max(x.subject_id) as subject_id,
    coalesce(bool_or(x.event = 'extended'), false) as extended,
    sum(x.paused_days)::integer as paused_days,
    array_agg(distinct x.event) filter (where not x.moves) as fulfilled
  from (
    select y.*, y.event in (
      'received', 'identity_asked', 'identity_verified', 'extended', 'completed', 'refused', 'withdrawn'
    ) as moves
    from gdpr_internal.request_event as y
    where y.request_id = r.id
  ) as x
) as e;
comment on view gdpr_internal.request_state is
  'Requests as they stand: state, last day for the answer, how long the clock stood, what was done to fulfil them.';

create or replace function gdpr_internal.fulfilling_events()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'access_report', 'portable_copy', 'rectification', 'restriction', 'restriction_lifted', 'objection_pending', 'objection', 'erasure', 'withdrawal'
  ];
end;
comment on function gdpr_internal.fulfilling_events() is 'What can be done to fulfil a request, as its steps are called.';

create or replace function gdpr_internal.add_request_event(
  p_request gdpr_internal.request_state, p_event text, p_reason text default null, p_details jsonb default null, p_facts jsonb default null,
  p_due_on date default null, p_paused_days integer default 0, p_subject bigint default null
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subject bigint := coalesce(p_request.subject_id, p_subject);
begin
  if p_details is not null and v_subject is null then
    perform gdpr_internal.refuse('invalid_argument', 'details are kept under the key of a person: say first who asks, with gdpr.verify_identity()');
  end if;
  insert into gdpr_internal.request_event (request_id, event, subject_id, due_on, paused_days, reason, facts, details, actor)
  values (
    p_request.id, p_event, p_subject, p_due_on, p_paused_days, p_reason, p_facts,
    gdpr_internal.seal_evidence(v_subject, p_details::text), gdpr_internal.context_setting('actor')
  );
  perform gdpr_internal.audit_event('REQUEST', v_subject, jsonb_strip_nulls(jsonb_build_object(
    'request_id', p_request.id, 'kind', p_request.kind, 'event', p_event, 'reason', p_reason, 'due_on', p_due_on
  )));
end
$function$;
comment on function gdpr_internal.add_request_event(gdpr_internal.request_state, text, text, jsonb, jsonb, date, integer, bigint) is
  'Adds a step to a request, and an audit record. p_facts must not hold personal data; p_details are encrypted under the person''s key.';

create or replace function gdpr_internal.take_request(p_request bigint, p_states text[])
returns gdpr_internal.request_state
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
begin
  -- two that answer the same request meet here; the second sees what the first has done
  perform from gdpr_internal.request as r where r.id = p_request for update;
  if not found then
    perform gdpr_internal.refuse('unknown_request');
  end if;
  select * into v_request from gdpr_internal.request_state as r where r.id = p_request;
  if v_request.state <> all (p_states) then
    perform gdpr_internal.refuse(
      'request_state', format('request %s is %s; this takes one that is %s', p_request, v_request.state, array_to_string(p_states, ', '))
    );
  end if;
  return v_request;
end
$function$;
comment on function gdpr_internal.take_request(bigint, text[]) is
  'A request, locked, if it is in one of these states. Errors: PR607 no such request, PR608 in another state.';

create or replace function gdpr_internal.note_request(p_subject bigint, p_event text, p_details jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_named text := gdpr_internal.context_setting('request');
  v_request gdpr_internal.request_state;
begin
  -- digits name a request; anything else is a ticket of the application, which the audit log keeps
  if v_named is null or v_named !~ '^[0-9]{1,18}$' then
    return null;
  elsif p_event is null or p_event <> all (gdpr_internal.fulfilling_events()) then
    perform gdpr_internal.refuse('invalid_argument', 'event is one of ' || array_to_string(gdpr_internal.fulfilling_events(), ', '));
  end if;
  v_request := gdpr_internal.take_request(v_named::bigint, array['open', 'extended']);
  if v_request.subject_id is distinct from p_subject then
    perform gdpr_internal.refuse('request_of_another');
  end if;
  perform gdpr_internal.add_request_event(v_request, p_event, p_facts => p_details);
  return v_request.id;
end
$function$;
comment on function gdpr_internal.note_request(bigint, text, jsonb) is
  'Called by whatever fulfils a right: where the context names a request (gdpr.request, its number) this is appended to it, and its number returned; else null. p_event: access_report, portable_copy, rectification, restriction, restriction_lifted, objection_pending, objection, erasure, withdrawal. p_details: facts without personal data. Errors: PR607 no such request, PR608 it is not open, PR609 of another person. Art. 5(2).';
