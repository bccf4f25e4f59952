-- [code] Answers: consent granted, declined and withdrawn, by staff and by the person.
-- GDPR Art. 6(1)(a), Art. 7. Called by: gdpr_dpo, and roles to which the policy gives may = ["consent"].

set local role gdpr_owner;

create or replace function gdpr_internal.open_purposes(p_request gdpr_internal.consent_request)
returns smallint[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
-- a plan outlives the statistics it was made with: planned while this table had one page, it would read all of it by now
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
set plan_cache_mode = force_generic_plan
as $function$
begin
  return (
    select coalesce(array_agg(u.purpose_id order by u.purpose_id), '{}')
    from unnest(p_request.purposes) as u (purpose_id)
    where not exists (
        select from gdpr_internal.consent_record as r
        where r.subject_id = p_request.subject_id and r.purpose_id = u.purpose_id and r.id > p_request.id
      )
      and not exists (
        select from gdpr_internal.consent_request as q
        where q.subject_id = p_request.subject_id and q.id > p_request.id and u.purpose_id = any (q.purposes)
      )
  );
end
$function$;
comment on function gdpr_internal.open_purposes(gdpr_internal.consent_request) is
  'The purposes of a question that nobody has answered, and about which the person was not asked anew.';

create or replace function gdpr_internal.close_questions(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
set plan_cache_mode = force_generic_plan
as $function$
declare
  v_closed bigint[];
  v_mails bigint[];
begin
  -- first the few that something still waits for, found by index one by one: whether a question is open is the dearer look
  with waited_for as materialized (
    select q
    from gdpr_internal.consent_request as q
    cross join lateral (
      (select from gdpr_internal.token as t where t.reference = q.id and t.kind = 'consent' and t.used_at is null)
      union all
      (select from gdpr_internal.consent_mail as m where m.request_id = q.id)
      limit 1
    ) as waiting
    where q.subject_id = any (p_subjects)
  )
  select array_agg((w.q).id) into v_closed
  from waited_for as w
  where gdpr_internal.open_purposes(w.q) = '{}';
  if v_closed is null then
    return;
  end if;
  -- the link of a question that was answered still withdraws; that of one asked anew is dead
  delete from gdpr_internal.token as t
  where t.kind = 'consent' and t.reference = any (v_closed) and t.used_at is null
    and not exists (
      select from gdpr_internal.consent_record as r where r.subject_id = t.subject_id and r.request_id = t.reference
    );
  update gdpr_internal.token as t
  set used_at = statement_timestamp()
  where t.kind = 'consent' and t.reference = any (v_closed) and t.used_at is null;
  with called as (
    delete from gdpr_internal.consent_mail as m where m.request_id = any (v_closed) returning m.mail_id
  )
  select array_agg(c.mail_id) into v_mails from called as c;
  perform gdpr_internal.cancel_mails(v_mails, 'the question is closed');
end
$function$;
comment on function gdpr_internal.close_questions(bigint[]) is
  'After an answer, or a new question: questions of these persons that have nothing open any more take no answer by their token, and their mails not yet sent are called back.';

create or replace function gdpr_internal.add_consents(
  p_subject bigint,
  p_purposes smallint[],
  p_events text[],
  p_channel text,
  p_contact text[],
  p_form bigint,
  p_evidence jsonb,
  p_valid_until timestamptz
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
-- as in open_purposes(), for the checks of foreign keys too
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
as $function$
declare
  v_evidence text;
  v_id bigint;
begin
  perform gdpr_internal.require_home();
  -- before the record takes its number: of two that come at once, the one that commits last has the last word
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  perform gdpr_internal.require_subject(p_subject);
  if p_channel is null or p_channel <> all (
    array['email', 'portal', 'phone', 'paper', 'web_form', 'api', 'import', 'in_person']
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'channel is one of email, portal, phone, paper, web_form, api, import, in_person');
  end if;
  if 'granted' = any (p_events) then
    perform gdpr_internal.require_guardian(p_subject, p_evidence);
  end if;
  v_evidence := gdpr_internal.seal_evidence(p_subject, p_evidence::text);
  with added as (
    insert into gdpr_internal.consent_record (
      subject_id, purpose_id, event, channel, contact, request_id, form_id, evidence, valid_until, actor
    )
    select
      p_subject, n.purpose_id, n.event, p_channel,
      case when n.event = 'granted' then coalesce(gdpr_internal.known_channels(p_contact), f.channels) end,
      q.id, f.id, v_evidence,
      coalesce(p_valid_until, gdpr_internal.after(p.valid_for), 'infinity'),
      gdpr_internal.context_setting('actor')
    from unnest(p_purposes, p_events) as n (purpose_id, event)
    join gdpr_internal.consent_state as c on c.subject_id = p_subject and c.purpose_id = n.purpose_id
    join gdpr_internal.purpose as p on p.id = n.purpose_id
    left join gdpr_internal.consent_request as q on q.id = c.request_id
    left join gdpr_internal.consent_form as f on f.id = coalesce(p_form, q.form_id)
    order by n.purpose_id
    returning id, purpose_id, event
  )
  select max(a.id) into v_id
  from added as a
  join gdpr_internal.purpose as p on p.id = a.purpose_id
  cross join lateral gdpr_internal.audit_event(
    'CONSENT', p_subject, jsonb_build_object('consent_id', a.id, 'purpose', p.name, 'event', a.event, 'channel', p_channel)
  ) as e;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.close_questions(array[p_subject]);
  return v_id;
end
$function$;
comment on function gdpr_internal.add_consents(bigint, smallint[], text[], text, text[], bigint, jsonb, timestamptz) is
  'Adds one record for each purpose, spreads the gate, and closes the questions that they answer. The text that a person agreed to is that of the question, unless p_form names one.';

create or replace function gdpr.record_consent(
  p_subject bigint,
  p_purpose text,
  p_granted boolean,
  p_channel text,
  p_evidence jsonb default null,
  p_valid_until timestamptz default null,
  p_contact text[] default null,
  p_form bigint default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purposes smallint[] := gdpr_internal.consent_purposes(array[p_purpose]);
begin
  if p_granted is null then
    perform gdpr_internal.refuse('invalid_argument', 'granted is true or false');
  elsif not p_granted then
    perform gdpr_internal.require_read_committed();
  elsif p_channel in ('phone', 'paper') and exists (
    select from unnest(array['who', 'when', 'how', 'reference']) as k where coalesce(btrim(p_evidence ->> k), '') = ''
  ) then
    perform gdpr_internal.refuse('evidence_missing');
  end if;
  if p_valid_until <= statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'valid_until has passed');
  end if;
  if p_form is not null then
    perform gdpr_internal.require_form(p_form, array[p_purpose]);
  end if;
  return gdpr_internal.add_consents(
    p_subject, v_purposes, array[case when p_granted then 'granted' else 'declined' end], p_channel, p_contact, p_form,
    p_evidence, p_valid_until
  );
end
$function$;
comment on function gdpr.record_consent(bigint, text, boolean, text, jsonb, timestamptz, text[], bigint) is
  'Records that a person granted or declined consent for a purpose: by which channel (email, portal, phone, paper, web_form, api, import, in_person); with which evidence (jsonb, kept encrypted; by phone and on paper {"who", "when", "how", "reference"} are required for a grant); until when (else as long as the purpose''s valid_for says); by which channels the person may be contacted (mail, phone, post, social; else those of the form); by which published text (number of gdpr.consent_form; else that of an open question). Returns its number. Errors: PR101, PR603, PR003, PR004, PR005, PR302, PR304 evidence is missing, PR305 not such a form, PR310 a child without a guardian. Art. 6(1)(a), 7(1).';

create or replace function gdpr.withdraw_consent(p_subject bigint, p_purpose text, p_channel text default 'portal', p_evidence jsonb default null)
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
  perform gdpr_internal.require_read_committed();
  v_id := gdpr_internal.add_consents(
    p_subject, gdpr_internal.consent_purposes(array[p_purpose]), array['withdrawn'], p_channel, null, null, p_evidence, null
  );
  perform gdpr_internal.note_request(p_subject, 'withdrawal', jsonb_build_object('consent_id', v_id, 'purpose', p_purpose));
  return v_id;
end
$function$;
comment on function gdpr.withdraw_consent(bigint, text, text, jsonb) is
  'Withdraws a person''s consent for a purpose; in force in the next statement of every session once committed. p_evidence: kept encrypted. Errors: PR101, PR603, PR003, PR004, PR005, PR302; PR607, PR608, PR609 for the request that the context names. Art. 7(3).';
