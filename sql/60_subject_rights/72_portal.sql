-- [code] The portal: what a person who is signed in sees and asks for.
-- GDPR Art. 7(3), 12(2), 15 to 22. Called by: gdpr_portal, which has nothing else. The person comes from the session, never from
-- the caller; what is asked for is recorded as a request at once, and done at once where nobody has to decide.

set local role gdpr_owner;

create or replace function gdpr_internal.portal_report(p_session text, p_portable boolean)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_request bigint;
  v_before text;
  v_report jsonb;
begin
  perform gdpr_internal.count_report(v_subject);
  v_request := gdpr_internal.portal_answered(v_subject, case when p_portable then 'portability' else 'access' end);
  v_before := gdpr_internal.name_request(v_request);
  v_report := gdpr_internal.report(v_subject, p_portable);
  perform gdpr_internal.end_request(v_request, v_before);
  return v_report;
end
$function$;
comment on function gdpr_internal.portal_report(text, boolean) is
  'The access report, or the portable copy, of the person who is signed in, and the request that it answers. Errors: PR303, PR402, PR618.';

create or replace function gdpr.portal_data(p_session text)
returns jsonb
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  select gdpr_internal.portal_report(p_session, false);
end;
comment on function gdpr.portal_data(text) is
  'Everything about the person who is signed in, as gdpr.access_report() gives it. The first time on a day is recorded as a request for access, answered. Errors: PR303 the session has ended, PR402, PR618 too many in an hour (settings.portal.reports). Art. 15.';

create or replace function gdpr.portal_copy(p_session text)
returns jsonb
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  select gdpr_internal.portal_report(p_session, true);
end;
comment on function gdpr.portal_copy(text) is
  'What the person who is signed in provided, to take along, as gdpr.portable_copy() gives it. The first time on a day is recorded as a request for portability, answered. Errors: PR303 the session has ended, PR402, PR618 too many in an hour (settings.portal.reports). Art. 20.';

create or replace function gdpr.portal_purposes(p_session text)
returns jsonb
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
  return (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'purpose', p.name,
      'description', p.description,
      'allowed', g.allowed & (1::bigint << p.id) <> 0,
      'bases', b.bases,
      'consent', c.status,
      'channels', c.contact,
      'consent_until', nullif(c.valid_until, 'infinity'),
      'respond_until', case when c.status = 'waiting' then c.respond_until end,
      'objection', o.status,
      'objection_overridden_by', o.ground,
      'direct_marketing', p.direct_marketing,
      'open_to_objection', o.status is distinct from 'pending' and o.status is distinct from 'upheld' and (
        p.direct_marketing or p.basis in ('legitimate_interests', 'public_task') or b.bases && array['legitimate_interests', 'public_task']
      )
    )) order by p.id), '[]')
    from gdpr_internal.gate(array[v_subject]) as g
    cross join gdpr_internal.purpose as p
    left join gdpr.consent as c on c.subject_id = v_subject and c.purpose = p.name
    left join lateral (
      select array_agg(distinct h.basis) as bases from gdpr_internal.held_basis as h
      where h.subject_id = v_subject and h.purpose_id = p.id and h.valid_until > statement_timestamp()
    ) as b on true
    left join lateral (
      select nullif(x.status, 'taken_back') as status, x.ground from gdpr.objection as x
      where x.subject_id = v_subject and x.purpose = p.name
      order by x.objection_id desc
      limit 1
    ) as o on true
    where p.id < 62 and (b.bases is not null or c.status is not null or o.status is not null)
  );
end
$function$;
comment on function gdpr.portal_purposes(text) is
  'For what the data of the person who is signed in are used: each purpose with description, whether it is allowed now, its bases, where consent stands (channels, until when), the objection (pending, upheld, or overridden by which ground), and whether the person can object. Error: PR303 the session has ended. Art. 7(3), 21(4).';

create or replace function gdpr.portal_withdraw_consent(p_session text, p_purpose text)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_request bigint;
  v_before text;
begin
  perform gdpr_internal.consent_purposes(array[p_purpose]);
  if exists (
    select from gdpr.consent as c where c.subject_id = v_subject and c.purpose = p_purpose and c.status in ('granted', 'waiting')
  ) then
    v_request := gdpr_internal.portal_open(v_subject, 'withdrawal', null, true);
    v_before := gdpr_internal.name_request(v_request);
    perform gdpr.withdraw_consent(v_subject, p_purpose, 'portal');
    perform gdpr_internal.end_request(v_request, v_before);
  end if;
  return (select c.status from gdpr.consent as c where c.subject_id = v_subject and c.purpose = p_purpose);
end
$function$;
comment on function gdpr.portal_withdraw_consent(text, text) is
  'Withdraws consent to a purpose, in force in the next statement of every session; on record as a request that was fulfilled. What is not granted stays as it is. Returns where the consent stands. Errors: PR303 the session has ended, PR003, PR302, PR005. Art. 7(3).';

create or replace function gdpr.portal_answer_consent(
  p_session text, p_purpose text, p_granted boolean, p_channels text[] default null, p_evidence jsonb default null
)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_purpose smallint := (gdpr_internal.consent_purposes(array[p_purpose]))[1];
  v_asked record;
begin
  perform gdpr_internal.require_read_committed();
  if p_granted is null then
    perform gdpr_internal.refuse('invalid_argument', 'granted is true or false');
  end if;
  perform gdpr_internal.check_portal_evidence(p_evidence);
  -- a question that another session answers meanwhile is closed when it is looked at
  perform from gdpr_internal.subject as s where s.id = v_subject for no key update;
  select c.status, f.channels into v_asked
  from gdpr_internal.consent_state as c
  left join gdpr_internal.consent_request as q on q.id = c.request_id
  left join gdpr_internal.consent_form as f on f.id = q.form_id
  where c.subject_id = v_subject and c.purpose_id = v_purpose;
  if v_asked.status is distinct from 'waiting' then
    perform gdpr_internal.refuse('invalid_argument', 'this purpose was not asked, or not in time');
  elsif not p_channels <@ v_asked.channels then
    perform gdpr_internal.refuse('invalid_argument', 'channels: those that the form asks for');
  end if;
  perform gdpr_internal.add_consents(
    v_subject, array[v_purpose], array[case when p_granted then 'granted' else 'declined' end], 'portal', p_channels, null, p_evidence, null
  );
  return (select c.status from gdpr.consent as c where c.subject_id = v_subject and c.purpose = p_purpose);
end
$function$;
comment on function gdpr.portal_answer_consent(text, text, boolean, text[], jsonb) is
  'Grants or declines a purpose that the person was asked for and that waits for an answer. p_channels: of those that the form asks for, the channels of contact that the person allows (null: all). p_evidence: how the answer was given, kept encrypted. Returns where the consent stands. Errors: PR303 the session has ended, PR003, PR004 not asked, PR005, PR302, PR310. Art. 7, 8.';

create or replace function gdpr.portal_object(p_session text, p_purpose text, p_details jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_request bigint;
  v_before text;
begin
  perform gdpr_internal.require_objectionable(v_subject, p_purpose);
  -- the first one closes the purpose; said again, it is one request more
  v_request := gdpr_internal.portal_open(v_subject, 'objection', p_details, not exists (
    select from gdpr.objection as o where o.subject_id = v_subject and o.purpose = p_purpose and o.status in ('pending', 'upheld')
  ));
  v_before := gdpr_internal.name_request(v_request);
  perform gdpr.object_to(v_subject, p_purpose, p_details);
  perform gdpr_internal.end_request(v_request, v_before);
  return v_request;
end
$function$;
comment on function gdpr.portal_object(text, text, jsonb) is
  'Objects to a purpose: closed from the next statement on; direct marketing for good, others until an officer has decided. p_details: the person''s reasons, kept encrypted. Returns the number of the request. Errors: PR303 the session has ended, PR003, PR004, PR005, PR614 the purpose is not open to objection, PR616 said again while twenty requests are open. Art. 21.';

create or replace function gdpr.portal_restrict(p_session text, p_ground text, p_details jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if p_ground is null or p_ground not in ('accuracy_contested', 'unlawful_processing', 'legal_claims') then
    perform gdpr_internal.refuse('invalid_argument', 'ground is accuracy_contested, unlawful_processing or legal_claims; see portal_object() for objections');
  end if;
  return gdpr_internal.portal_open(
    gdpr_internal.session_subject(p_session), 'restriction', coalesce(p_details, '{}') || jsonb_build_object('ground', p_ground)
  );
end
$function$;
comment on function gdpr.portal_restrict(text, text, jsonb) is
  'Asks for restriction of processing: accuracy_contested, unlawful_processing, legal_claims. An officer decides. p_details: why, kept encrypted. Returns the number of the request. Errors: PR303 the session has ended, PR004, PR616. Art. 18(1).';

create or replace function gdpr.portal_correct(p_session text, p_changes jsonb, p_reason text default null)
returns bigint
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
  return gdpr_internal.portal_open(v_subject, 'rectification', jsonb_strip_nulls(jsonb_build_object(
    'proposal', gdpr_internal.propose_rectification(v_subject, p_changes, p_reason, true), 'reason', p_reason
  )));
end
$function$;
comment on function gdpr.portal_correct(text, jsonb, text) is
  'Asks for something to be corrected or completed. p_changes: a list of {"table", "key", "column", "value"}, rows and keys as portal_data() shows them, or of {"statement"}, words to be kept beside the data; an officer approves them (gdpr.approve_rectification()). p_reason: kept encrypted. Returns the number of the request. Errors: PR303 the session has ended, PR004, PR616, and those of gdpr.propose_rectification(): a change that cannot be, somebody else''s row. Art. 16.';

create or replace function gdpr.portal_erase(p_session text, p_details jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  return gdpr_internal.portal_open(gdpr_internal.session_subject(p_session), 'erasure', p_details);
end
$function$;
comment on function gdpr.portal_erase(text, jsonb) is
  'Asks to be erased. An officer carries it out, or says why not. p_details: kept encrypted. Returns the number of the request. Errors: PR303 the session has ended, PR004, PR616. Art. 17.';

create or replace function gdpr.portal_requests(p_session text)
returns jsonb
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
  return (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'request', r.id, 'kind', r.kind, 'state', r.state, 'channel', r.channel, 'received_at', r.received_at,
      'due_on', case when not r.closed and r.state <> 'identity_pending' then r.due_on end,
      'extended', r.extended, 'closed_at', r.closed_at, 'outcome', r.outcome,
      'article', (select g.article from gdpr.refusal_ground as g where r.state = 'refused' and g.name = r.outcome and g.kind = r.kind),
      'details', d.details,
      'correction', (
        select jsonb_build_object('status', c.status, 'reason', (
          -- the person is told why, whoever may read it otherwise
          select gdpr_internal.open_evidence(v_subject, x.reason) from gdpr_internal.rectification_decision as x
          where x.rectification_id = c.rectification_id
        ))
        from gdpr.rectification as c
        where r.kind = 'rectification' and c.subject_id = v_subject and to_jsonb(c.rectification_id) = d.details -> 'proposal'
      ),
      'steps', (
        select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('at', e.recorded_at, 'event', e.event, 'reason', e.reason)) order by e.id)
        from gdpr_internal.request_event as e where e.request_id = r.id
      )
    )) order by r.id desc), '[]')
    from gdpr_internal.request_state as r
    cross join lateral (select gdpr_internal.open_evidence(v_subject, r.details)::jsonb as details) as d
    where r.subject_id = v_subject
  );
end
$function$;
comment on function gdpr.portal_requests(text) is
  'The requests of the person who is signed in, the newest first: number, kind, state, when it was received and until when the answer is due, what came of it and, of one that was refused, by which article; of a correction, whether it was approved, and why not; every step, when. Error: PR303 the session has ended. Art. 12(3), 12(4).';
