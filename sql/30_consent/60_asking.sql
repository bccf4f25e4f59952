-- [code] Asking for consent: by e-mail, in the portal, by phone, on paper; one person or a hundred thousand.
-- GDPR Art. 7(1), 7(2), 12(1). Called by: gdpr_dpo, and roles to which the policy gives may = ["consent"].

set local role gdpr_owner;

create or replace function gdpr_internal.askable(p_subjects bigint[], p_purposes smallint[])
returns bigint[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
-- a plan outlives the statistics it was made with: see open_purposes()
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
as $function$
begin
  return (
    select coalesce(array_agg(s.id order by s.id), '{}')
    from gdpr_internal.subject as s
    where s.id = any (p_subjects)
      and s.erased_at is null
      and not exists (
        select from gdpr_internal.restriction_record as x
        where x.subject_id = s.id
          and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = x.id)
      )
      and not exists (
        select from gdpr_internal.standing_objection as o where o.subject_id = s.id and o.purpose_id = any (p_purposes)
      )
  );
end
$function$;
comment on function gdpr_internal.askable(bigint[], smallint[]) is
  'Of these persons, those that may be asked: not erased, not restricted, without an objection to one of the purposes.';

create or replace function gdpr_internal.respond_until(p_purposes smallint[], p_respond_within interval)
returns timestamptz
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_until timestamptz;
begin
  -- one link has one deadline: of several purposes, the shortest
  select gdpr_internal.after(coalesce(p_respond_within, min(p.respond_within))) into v_until
  from gdpr_internal.purpose as p
  where p.id = any (p_purposes);
  if v_until is null then
    perform gdpr_internal.refuse('invalid_argument', 'neither the call nor the policy says respond_within');
  elsif v_until <= statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'respond_within is a time to come');
  elsif exists (
    select from gdpr_internal.purpose as p
    where p.id = any (p_purposes) and p.while_waiting = 'allow' and v_until > gdpr_internal.after(p.respond_within)
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'data are unlocked while an answer is waited for: no longer than the policy says');
  end if;
  return v_until;
end
$function$;
comment on function gdpr_internal.respond_until(smallint[], interval) is
  'The deadline of a question that is asked now, in the time zone of the policy. Error: PR004 no deadline, or with while_waiting = allow one later than the policy''s.';

create or replace function gdpr_internal.queue_question(
  p_subjects bigint[], p_requests bigint[], p_tokens text[], p_emails text[], p_languages text[], p_forms bigint[],
  p_purposes smallint[], p_respond_until timestamptz, p_attach_form boolean
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
as $function$
declare
  v_controller jsonb := (select s.value from gdpr_internal.setting as s where s.name = 'controller');
  v_purposes text[];
  v_remind_at timestamptz;
  v_messages jsonb[];
begin
  select
    array_agg(coalesce(p.description, p.name) order by p.id),
    timezone(gdpr_internal.time_zone(), timezone(gdpr_internal.time_zone(), p_respond_until) - max(p.remind))
  into v_purposes, v_remind_at
  from gdpr_internal.purpose as p
  where p.id = any (p_purposes);
  select array_agg(
    jsonb_build_object(
      'to', u.email, 'token', u.token, 'purposes', v_purposes,
      'respond_by', to_char(timezone(gdpr_internal.time_zone(), p_respond_until), 'YYYY-MM-DD'),
      'title', f.title, 'statement', f.statement, 'privacy_notice', f.privacy_notice, 'channels', f.channels,
      'reference', u.request_id::text, 'attach_form', p_attach_form, 'controller', v_controller
    )
    order by u.n
  )
  into v_messages
  from unnest(p_emails, p_tokens, p_forms, p_requests) with ordinality as u (email, token, form_id, request_id, n)
  left join gdpr_internal.consent_form as f on f.id = u.form_id;
  insert into gdpr_internal.consent_mail (mail_id, request_id)
  select q.mail_id, q.request_id
  from unnest(
    gdpr_internal.queue_mails(p_subjects, 'consent_request', p_languages, v_messages, statement_timestamp(), p_respond_until), p_requests
  ) as q (mail_id, request_id);
  if v_remind_at > statement_timestamp() then
    insert into gdpr_internal.consent_mail (mail_id, request_id)
    select q.mail_id, q.request_id
    from unnest(
      gdpr_internal.queue_mails(p_subjects, 'consent_reminder', p_languages, v_messages, v_remind_at, p_respond_until), p_requests
    ) as q (mail_id, request_id);
  end if;
end
$function$;
comment on function gdpr_internal.queue_question(bigint[], bigint[], text[], text[], text[], bigint[], smallint[], timestamptz, boolean) is
  'Queues the mails that ask, and those that remind where a purpose of the policy says so: with a link or, p_attach_form, with the form to be filled in and no token. All arrays stand in the order of the persons.';

create or replace function gdpr.request_consents(
  p_subjects bigint[],
  p_purposes text[],
  p_channel text,
  p_form text default null,
  p_respond_within interval default null,
  p_attach_form boolean default false
)
returns table (subject_id bigint, request_id bigint, respond_until timestamptz, token text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
-- one plan for the session: asked one by one, planning took twice as long as asking
set plan_cache_mode = force_generic_plan
as $function$
declare
  v_purposes smallint[] := gdpr_internal.consent_purposes(p_purposes);
  v_until timestamptz := gdpr_internal.respond_until(v_purposes, p_respond_within);
  v_asks text[];
  v_subjects bigint[];
  v_emails text[];
  v_languages text[];
  v_forms bigint[];
  v_requests bigint[];
  v_tokens text[];
begin
  if p_channel is null or p_channel not in ('email', 'portal', 'phone', 'paper') then
    perform gdpr_internal.refuse('invalid_argument', 'channel is one of email, portal, phone, paper');
  elsif p_attach_form is null or p_attach_form and (p_channel <> 'email' or p_form is null) then
    perform gdpr_internal.refuse('invalid_argument', 'a form is attached to a mail that asks by a published form');
  end if;
  if p_form is not null then
    select f.purposes into v_asks
    from gdpr.consent_form as f
    where f.name = p_form and f.is_current and f.is_default;
    if v_asks is null then
      perform gdpr_internal.refuse('form_refused', 'there is no published form of this name');
    elsif not p_purposes <@ v_asks then
      perform gdpr_internal.refuse('form_refused', 'it does not ask for all of the purposes');
    end if;
  end if;
  -- an answer that is being recorded is waited for
  perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for no key update;
  v_subjects := gdpr_internal.askable(p_subjects, v_purposes);
  select
    array_agg(a.id order by a.id), array_agg(c.email order by a.id),
    array_agg(coalesce(f.language, substring(l.tags[2] from '^[a-z]{2,3}$')) order by a.id), array_agg(f.form_id order by a.id)
  into v_subjects, v_emails, v_languages, v_forms
  from unnest(v_subjects) as a (id)
  -- nobody looks at rows of the tables for what is asked on paper without a form
  left join gdpr_internal.contacts(case when p_channel = 'email' or p_form is not null then v_subjects end) as c on c.subject_id = a.id
  cross join lateral (select gdpr_internal.language_chain(coalesce(c.language, '')) as tags) as l
  left join lateral (
    select x.form_id, x.language
    from gdpr_internal.form_languages(p_form) as x
    where x.tag = any (l.tags)
    order by array_position(l.tags, x.tag)
    limit 1
  ) as f on true
  where p_channel <> 'email' or c.email is not null;
  if v_subjects is null then
    return;
  end if;
  with asked as (
    insert into gdpr_internal.consent_request (subject_id, purposes, channel, form_id, respond_until, actor)
    select u.subject_id, v_purposes, p_channel, u.form_id, v_until, gdpr_internal.context_setting('actor')
    from unnest(v_subjects, v_forms) with ordinality as u (subject_id, form_id, n)
    order by u.n
    returning id
  )
  select array_agg(a.id order by a.id) into v_requests from asked as a;
  perform gdpr_internal.close_questions(v_subjects);
  -- who holds a form in hand needs no link, and a form that is passed on opens nothing
  if p_channel in ('email', 'portal') and not p_attach_form then
    select array_agg(t.token order by t.reference) into v_tokens
    from gdpr_internal.create_tokens('consent', v_requests, v_subjects, array_fill(v_until, array[cardinality(v_subjects)])) as t;
  end if;
  if p_channel = 'email' then
    perform gdpr_internal.queue_question(v_subjects, v_requests, v_tokens, v_emails, v_languages, v_forms, v_purposes, v_until, p_attach_form);
    v_tokens := null;
  end if;
  -- asking changes what is allowed only where the policy allows while it waits
  if exists (select from gdpr_internal.purpose as p where p.id = any (v_purposes) and p.while_waiting = 'allow') then
    perform gdpr_internal.refresh_gate(v_subjects);
  end if;
  perform gdpr_internal.audit_event('ASK', u.subject_id, jsonb_build_object(
    'request_id', u.request_id, 'purposes', p_purposes, 'channel', p_channel, 'form_id', u.form_id
  ))
  from unnest(v_subjects, v_requests, v_forms) as u (subject_id, request_id, form_id);
  return query
  select u.subject_id, u.request_id, v_until, u.token
  from unnest(v_subjects, v_requests, v_tokens) as u (subject_id, request_id, token);
end
$function$;
comment on function gdpr.request_consents(bigint[], text[], text, text, interval, boolean) is
  'Asks persons for consent to purposes, once for all of them, by channel email (a mail with a link is queued), portal (the token is returned, for a link), phone or paper; by the published form p_form in each person''s language; to be answered within p_respond_within (else as the policy says; of several purposes, the shortest). p_attach_form: the mail has no link, and the form attached, to be filled in and sent back; it bears the number of the question, and staff record the answer with gdpr.record_consent(). Persons that cannot be asked are left out: unknown, erased, restricted, with an objection, by e-mail without an address. A question asked anew takes the place of the one before. Errors: PR003, PR004, PR302 not a purpose of consent, PR305 not such a form. Art. 7.';

create or replace function gdpr.request_consent(
  p_subject bigint,
  p_purposes text[],
  p_channel text,
  p_form text default null,
  p_respond_within interval default null,
  p_attach_form boolean default false,
  out request_id bigint,
  out respond_until timestamptz,
  out token text
)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  select r.request_id, r.respond_until, r.token into request_id, respond_until, token
  from gdpr.request_consents(array[p_subject], p_purposes, p_channel, p_form, p_respond_within, p_attach_form) as r;
  if request_id is null then
    perform gdpr_internal.require_subject(p_subject);
    perform gdpr_internal.refuse(case
      when gdpr_internal.askable(array[p_subject], gdpr_internal.consent_purposes(p_purposes)) <> '{}' then 'no_address'
      when gdpr_internal.askable(array[p_subject], '{}') <> '{}' then 'objected'
      else 'restricted'
    end);
  end if;
end
$function$;
comment on function gdpr.request_consent(bigint, text[], text, text, interval, boolean) is
  'Asks one person for consent, as request_consents() does; returns the number of the question, its deadline and, for the portal, the token. Errors: PR101, PR603, PR601 restricted, PR602 objected, PR306 no e-mail address, PR003, PR004, PR302, PR305. Art. 7.';
