-- [code] The portal: what a person who is signed in takes back, an objection or a request.
-- GDPR Art. 12(2), 21. Called by: gdpr_portal. The person comes from the session, never from the caller. Nobody is kept from
-- saying no; taking it back has a bound, so that the two in turn do not fill the evidence.

set local role gdpr_owner;

create or replace function gdpr_internal.take_back_objection(p_subject bigint, p_purpose text, p_details jsonb)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
  v_request gdpr_internal.request_state;
  v_before text;
begin
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  if not exists (select from gdpr_internal.standing_objection as o where o.subject_id = p_subject and o.purpose_id = v_purpose) then
    return false;
  elsif (
    select count(*) from gdpr_internal.objection_decision as d
    join gdpr_internal.objection_record as o on o.id = d.objection_id
    where o.subject_id = p_subject and d.decision = 'taken_back' and d.decided_at > statement_timestamp() - interval '1 day'
  ) >= 10 then
    perform gdpr_internal.refuse('too_many_requests', 'ten objections were taken back in a day');
  end if;
  -- somebody may be waiting to decide about it
  select r.* into v_request
  from gdpr_internal.standing_objection as o
  join gdpr_internal.request_state as r on r.id = o.request_id
  where o.subject_id = p_subject and o.purpose_id = v_purpose and not r.closed;
  v_before := gdpr_internal.name_request(case when v_request.state in ('open', 'extended') then v_request.id end);
  perform gdpr.decide_objection(p_subject, p_purpose, 'taken_back', null, coalesce(p_details, '{}') || '{"channel": "portal"}');
  perform set_config('gdpr.request', v_before, true);
  if v_request.id is not null then
    perform gdpr.withdraw_request(v_request.id);
  end if;
  return true;
end
$function$;
comment on function gdpr_internal.take_back_objection(bigint, text, jsonb) is
  'Ends an objection because the person says so in the portal, and withdraws the request that still waits for a decision about it. False: there is none. Errors: PR003, PR005, PR616 ten in a day.';

create or replace function gdpr.portal_take_back_objection(p_session text, p_purpose text, p_details jsonb default null)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
begin
  perform gdpr_internal.check_details(p_details);
  return gdpr_internal.take_back_objection(v_subject, p_purpose, p_details);
end
$function$;
comment on function gdpr.portal_take_back_objection(text, text, jsonb) is
  'Takes back an objection, one to direct marketing too: the purpose is open again where a basis carries it. A request that waits for the decision is withdrawn. p_details: why, kept encrypted. Returns whether there was an objection. Errors: PR303 the session has ended, PR003, PR004, PR005, PR616 ten in a day. Art. 21.';

create or replace function gdpr.portal_withdraw_request(p_session text, p_request bigint, p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_request gdpr_internal.request_state;
  v_purpose text;
  v_proposal bigint;
begin
  perform gdpr_internal.check_details(p_details);
  select r.* into v_request from gdpr_internal.request_state as r where r.id = p_request and r.subject_id = v_subject;
  if v_request.id is null then
    perform gdpr_internal.refuse('unknown_request');
  elsif v_request.kind = 'rectification' then
    -- the proposal before the person, as an officer who approves it
    select c.id into v_proposal
    from gdpr_internal.rectification as c
    where c.subject_id = v_subject and to_jsonb(c.id) = gdpr_internal.open_evidence(v_subject, v_request.details)::jsonb -> 'proposal'
    for update;
  end if;
  perform from gdpr_internal.subject as s where s.id = v_subject for no key update;
  select p.name into v_purpose
  from gdpr_internal.standing_objection as o
  join gdpr_internal.purpose as p on p.id = o.purpose_id
  where o.subject_id = v_subject and o.request_id = p_request and not v_request.closed;
  if v_purpose is not null then
    perform gdpr_internal.take_back_objection(v_subject, v_purpose, p_details);
    return;
  end if;
  perform gdpr.withdraw_request(p_request, p_details);
  if v_proposal is not null and not exists (
    select from gdpr_internal.rectification_decision as d where d.rectification_id = v_proposal
  ) then
    perform gdpr.reject_rectification(v_proposal, 'taken back by the person');
  end if;
end
$function$;
comment on function gdpr.portal_withdraw_request(text, bigint, jsonb) is
  'Closes a request of the person who is signed in, whom nobody needs to answer any more; with a request to object the objection is taken back, with one to correct what was proposed. What was done stays done. p_details: why, kept encrypted. Errors: PR303 the session has ended, PR607 no such request of this person, PR608 closed already, PR004, PR005, PR616. Art. 12(2).';
