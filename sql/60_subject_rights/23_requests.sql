-- [code] Receiving a request and moving it on: identity, extension, refusal, answer.
-- GDPR Art. 12(3) one month, 12(5) refusal, 12(6) identity. Called by: gdpr_dpo; the portal opens requests through its functions.

set local role gdpr_owner;

create or replace function gdpr.open_request(
  p_kind text, p_subject bigint, p_channel text default 'office', p_received_at timestamptz default statement_timestamp(),
  p_details jsonb default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_kinds text[] := array['access', 'rectification', 'portability', 'restriction', 'objection', 'erasure', 'withdrawal'];
  v_channels text[] := array['office', 'portal', 'email', 'post', 'phone', 'in_person'];
  v_received timestamptz := coalesce(p_received_at, statement_timestamp());
  v_request gdpr_internal.request_state;
begin
  if p_kind is null or p_kind <> all (v_kinds) then
    perform gdpr_internal.refuse('invalid_argument', 'kind is one of ' || array_to_string(v_kinds, ', '));
  elsif p_channel is null or p_channel <> all (v_channels) then
    perform gdpr_internal.refuse('invalid_argument', 'channel is one of ' || array_to_string(v_channels, ', '));
  elsif v_received > statement_timestamp() or v_received < '2018-05-25' then
    perform gdpr_internal.refuse('invalid_argument', 'received_at is a time in the past, since the Regulation applies');
  elsif p_subject is null and p_details is not null then
    perform gdpr_internal.refuse('invalid_argument', 'details are kept under the key of a person: say first who asks, with gdpr.verify_identity()');
  end if;
  if p_subject is not null then
    perform gdpr_internal.require_subject(p_subject);
  end if;
  insert into gdpr_internal.request (kind, subject_id, channel, details, received_at, actor)
  values (
    p_kind, p_subject, p_channel, gdpr_internal.seal_evidence(p_subject, p_details::text), v_received, gdpr_internal.context_setting('actor')
  )
  returning id into v_request.id;
  v_request.kind := p_kind;
  v_request.subject_id := p_subject;
  perform gdpr_internal.add_request_event(v_request, 'received', p_due_on => gdpr_internal.due_on(v_received, 1, 0));
  return v_request.id;
end
$function$;
comment on function gdpr.open_request(text, bigint, text, timestamptz, jsonb) is
  'Records that a person asks for something and returns the number of the request; the answer is due one calendar month after p_received_at (a time in the past, not in the future), gdpr.request says on which day. p_kind: access, rectification, portability, restriction, objection, erasure, withdrawal. p_subject: null where it is not known who asks, until gdpr.verify_identity(). p_channel: office, portal, email, post, phone, in_person. p_details: what exactly, kept encrypted under the person''s key. While the request is open, gdpr.set_context(p_request => its number) ties what fulfils it to it. Errors: PR004, PR101, PR603. Art. 12(3), 15 to 22.';

create or replace function gdpr.ask_identity(p_request bigint, p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.add_request_event(
    gdpr_internal.take_request(p_request, array['received', 'open', 'extended']), 'identity_asked', p_details => p_details
  );
end
$function$;
comment on function gdpr.ask_identity(bigint, jsonb) is
  'Records that the person was asked to prove who they are: the clock stands until gdpr.verify_identity(). Only where there are reasonable doubts. p_details: how it was asked, kept encrypted. Errors: PR607, PR608 closed or asked already, PR004. Art. 12(6).';

create or replace function gdpr.verify_identity(p_request bigint, p_subject bigint default null, p_details jsonb default null)
returns date
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
  v_paused integer;
  v_due date;
begin
  v_request := gdpr_internal.take_request(p_request, array['received', 'identity_pending']);
  if coalesce(p_subject, v_request.subject_id) is null then
    perform gdpr_internal.refuse('invalid_argument', 'say which person it is');
  elsif p_subject <> v_request.subject_id then
    perform gdpr_internal.refuse('request_of_another');
  end if;
  perform gdpr_internal.require_subject(coalesce(p_subject, v_request.subject_id));
  v_paused := coalesce(gdpr_internal.local_day(statement_timestamp()) - gdpr_internal.local_day(v_request.paused_at), 0);
  v_due := gdpr_internal.due_on(v_request.received_at, case when v_request.extended then 3 else 1 end, v_request.paused_days + v_paused);
  perform gdpr_internal.add_request_event(
    v_request, 'identity_verified', p_details => p_details, p_due_on => v_due, p_paused_days => v_paused, p_subject => p_subject
  );
  return v_due;
end
$function$;
comment on function gdpr.verify_identity(bigint, bigint, jsonb) is
  'Records that it is known who asks, and returns the day until which the answer is due: later by the days since gdpr.ask_identity(). p_subject: the person, where the request names none yet. p_details: by what it was proved, kept encrypted. Errors: PR607, PR608 nothing was asked, PR609 the request is that of another person, PR004, PR101, PR603. Art. 12(6).';

create or replace function gdpr.extend_request(p_request bigint, p_reason text, p_details jsonb default null)
returns date
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
  v_due date;
begin
  if p_reason is null or p_reason not in ('complexity', 'number_of_requests') then
    perform gdpr_internal.refuse('invalid_argument', 'reason is complexity or number_of_requests');
  end if;
  v_request := gdpr_internal.take_request(p_request, array['received', 'open']);
  if v_request.due_at <= statement_timestamp() then
    perform gdpr_internal.refuse('too_late_to_extend', format('the answer was due on %s', to_char(v_request.due_on, 'YYYY-MM-DD')));
  end if;
  v_due := gdpr_internal.due_on(v_request.received_at, 3, v_request.paused_days);
  perform gdpr_internal.add_request_event(v_request, 'extended', p_reason, p_details, p_due_on => v_due);
  return v_due;
end
$function$;
comment on function gdpr.extend_request(bigint, text, jsonb) is
  'Extends the time for the answer by two months, once, within the first; returns the new day. Tell the person, and why, within the first month. p_reason: complexity or number_of_requests. p_details: more of it, kept encrypted. Errors: PR004, PR607, PR608 extended already, paused or closed, PR610 the first month is over. Art. 12(3).';

create or replace view gdpr.refusal_ground (name, kind, article) as
select g.name, k.kind, g.article
from (
  values
  ('manifestly_unfounded', 'access,rectification,portability,restriction,objection,erasure', 'Art. 12(5)(b)'),
  ('excessive', 'access,rectification,portability,restriction,objection,erasure', 'Art. 12(5)(b)'),
  ('not_identified', 'access,rectification,portability,restriction,objection,erasure,withdrawal', 'Art. 11(2), 12(2)'),
  ('rights_of_others', 'access', 'Art. 15(4)'),
  ('rights_of_others', 'portability', 'Art. 20(4)'),
  ('data_accurate', 'rectification', 'Art. 16'),
  ('no_ground', 'erasure', 'Art. 17(1)'),
  ('freedom_of_expression', 'erasure', 'Art. 17(3)(a)'),
  ('legal_obligation', 'erasure', 'Art. 17(3)(b)'),
  ('public_health', 'erasure', 'Art. 17(3)(c)'),
  ('archiving_or_research', 'erasure', 'Art. 17(3)(d)'),
  ('legal_claims', 'erasure', 'Art. 17(3)(e)'),
  ('no_ground', 'restriction', 'Art. 18(1)'),
  ('no_consent_or_contract', 'portability', 'Art. 20(1)(a)'),
  ('not_automated', 'portability', 'Art. 20(1)(b)'),
  ('public_task', 'portability', 'Art. 20(3)'),
  ('not_open_to_objection', 'objection', 'Art. 21(1)'),
  ('compelling_grounds', 'objection', 'Art. 21(1)'),
  ('legal_claims', 'objection', 'Art. 21(1)'),
  ('public_interest_task', 'objection', 'Art. 21(6)')
) as g (name, kinds, article)
cross join lateral unnest(string_to_array(g.kinds, ',')) as k (kind);
comment on view gdpr.refusal_ground is
  'On which grounds a request of which kind can be refused, and where the law says so. Withdrawal of consent is refused to somebody unknown only.';

create or replace function gdpr.refuse_request(p_request bigint, p_ground text, p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
begin
  v_request := gdpr_internal.take_request(p_request, array['received', 'identity_pending', 'open', 'extended']);
  if p_ground is null or not exists (select from gdpr.refusal_ground as g where g.name = p_ground and g.kind = v_request.kind) then
    perform gdpr_internal.refuse('invalid_argument', (
      select format('the ground for refusing %s is one of %s', v_request.kind, string_agg(g.name, ', ' order by g.name))
      from gdpr.refusal_ground as g where g.kind = v_request.kind
    ));
  elsif p_ground = 'not_identified' and v_request.state in ('open', 'extended') then
    perform gdpr_internal.refuse('request_state', 'the person is identified');
  elsif v_request.kind = 'objection' and p_ground <> 'not_identified' and exists (
    select from gdpr_internal.standing_objection as o
    join gdpr_internal.purpose as p on p.id = o.purpose_id
    where o.request_id = p_request and p.direct_marketing
  ) then
    perform gdpr_internal.refuse('request_state', 'an objection to direct marketing is not decided about: it was respected at once');
  end if;
  perform gdpr_internal.add_request_event(v_request, 'refused', p_ground, p_details);
end
$function$;
comment on function gdpr.refuse_request(bigint, text, jsonb) is
  'Closes a request without doing what it asks. p_ground: one of gdpr.refusal_ground for its kind. p_details: the reasons, kept encrypted; tell them to the person within the month, with the right to complain to the authority and to go to court. Errors: PR004 not such a ground, PR607, PR608 closed already. Art. 12(4), 12(5), 17(3).';

create or replace function gdpr.withdraw_request(p_request bigint, p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.add_request_event(
    gdpr_internal.take_request(p_request, array['received', 'identity_pending', 'open', 'extended']), 'withdrawn', p_details => p_details
  );
end
$function$;
comment on function gdpr.withdraw_request(bigint, jsonb) is
  'Closes a request because the person does not want it any more. p_details: kept encrypted. Errors: PR607, PR608 closed already, PR004.';

create or replace function gdpr_internal.request_misses(p_request gdpr_internal.request_state)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when p_request.closed then null
    when p_request.state = 'identity_pending' then 'identity'
    when p_request.state = 'received' then 'person'
    when n.needs = any (p_request.fulfilled) then null
    when p_request.kind = 'erasure' and exists (
      select from gdpr_internal.subject as s where s.id = p_request.subject_id and s.erased_at is not null
    ) then null
    else n.needs
  end
  from (
    select case p_request.kind
      when 'access' then 'access_report' when 'portability' then 'portable_copy' else p_request.kind
    end as needs
  ) as n;
end;
comment on function gdpr_internal.request_misses(gdpr_internal.request_state) is
  'What is still to be done before a request can be completed as fulfilled: person, identity, or the step of its kind; null for nothing.';

create or replace function gdpr.complete_request(p_request bigint, p_outcome text default 'fulfilled', p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_outcomes text[] := array['fulfilled', 'fulfilled_in_part', 'fulfilled_elsewhere', 'done_before', 'nothing_held'];
  v_request gdpr_internal.request_state;
  v_misses text;
begin
  if p_outcome is null or p_outcome <> all (v_outcomes) then
    perform gdpr_internal.refuse('invalid_argument', 'outcome is one of ' || array_to_string(v_outcomes, ', '));
  end if;
  v_request := gdpr_internal.take_request(p_request, case
    -- of somebody who is not known there is nothing that could be done
    when p_outcome = 'nothing_held' then array['received', 'identity_pending', 'open', 'extended'] else array['open', 'extended']
  end);
  v_misses := gdpr_internal.request_misses(v_request);
  if p_outcome = 'fulfilled' and v_misses is not null then
    perform gdpr_internal.refuse('request_unanswered', format('%s of this request misses: %s', v_request.kind, v_misses));
  end if;
  perform gdpr_internal.add_request_event(v_request, 'completed', p_outcome, p_details);
end
$function$;
comment on function gdpr.complete_request(bigint, text, jsonb) is
  'Closes a request that was answered. p_outcome: fulfilled (only if what its kind asks was done: the report given, the person erased, ...), fulfilled_in_part, fulfilled_elsewhere (outside of gdprdb), done_before, nothing_held. p_details: kept encrypted. Errors: PR004, PR607, PR608 closed already or identity pending, PR611 what was asked is not done. Art. 12(3), 5(2).';

create or replace function gdpr_internal.name_request(p_request bigint)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := coalesce(current_setting('gdpr.request', true), '');
begin
  perform set_config('gdpr.request', coalesce(p_request::text, ''), true);
  return v_before;
end
$function$;
comment on function gdpr_internal.name_request(bigint) is
  'Names the request that the next steps fulfil, for functions that do so themselves; returns what the caller''s context said, for end_request().';

create or replace function gdpr_internal.end_request(p_request bigint, p_before text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
begin
  select * into v_request from gdpr_internal.request_state as r where r.id = p_request;
  -- what somebody has to decide stays open
  if v_request.id is not null and gdpr_internal.request_misses(v_request) is null then
    perform gdpr.complete_request(p_request);
  end if;
  perform set_config('gdpr.request', p_before, true);
end
$function$;
comment on function gdpr_internal.end_request(bigint, text) is
  'After name_request(): completes the request if nothing of it is left to be done, and gives the caller''s context back.';
