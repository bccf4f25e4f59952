-- [code] What the bearer of a token may do: read what was asked, answer it once, take consent back whenever.
-- GDPR Art. 7(3): as easy to withdraw as to give. Called by: gdpr_portal, which can do nothing else with a token; the person
-- comes from the token, never from the caller.

set local role gdpr_owner;

create or replace function gdpr.portal_form(p_token text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_request gdpr_internal.consent_request;
  v_token gdpr_internal.token;
begin
  v_token := gdpr_internal.know_token(p_token, 'consent');
  select q.* into v_request from gdpr_internal.consent_request as q where q.id = v_token.reference;
  return (
    select jsonb_build_object(
      'answerable', v_token.used_at is null,
      'respond_until', v_request.respond_until,
      'language', f.language, 'title', f.title, 'statement', f.statement, 'privacy_notice', f.privacy_notice, 'channels', f.channels,
      'purposes', (
        select jsonb_agg(jsonb_build_object(
          'name', c.purpose, 'description', p.description, 'status', c.status, 'channels', c.contact,
          'answerable', v_token.used_at is null and c.purpose_id = any (gdpr_internal.open_purposes(v_request))
        ) order by c.purpose_id)
        from gdpr_internal.consent_state as c
        join gdpr_internal.purpose as p on p.id = c.purpose_id
        where c.subject_id = v_request.subject_id and c.purpose_id = any (v_request.purposes)
      )
    )
    from (values (v_request.form_id)) as r (form_id)
    left join gdpr_internal.consent_form as f on f.id = r.form_id
  );
end
$function$;
comment on function gdpr.portal_form(text) is
  'What the bearer of a token was asked, to be shown: title and statement in the person''s language, privacy_notice, channels, respond_until, and purposes with name, description, status and whether they can still be answered. Nothing that identifies anybody. Error: PR303 the token is not valid. Art. 7(2).';

create or replace function gdpr_internal.check_portal_evidence(p_evidence jsonb)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if pg_column_size(p_evidence) > 16384 then
    perform gdpr_internal.refuse('invalid_argument', 'evidence has 16 kB at the most');
  end if;
end
$function$;
comment on function gdpr_internal.check_portal_evidence(jsonb) is
  'What a visitor of the portal may have kept for good, as evidence is. Error: PR004 more than 16 kB.';

create or replace function gdpr.answer_consent(
  p_token text, p_granted text[], p_channels text[] default null, p_evidence jsonb default null
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_token gdpr_internal.token;
  v_request gdpr_internal.consent_request;
  v_open smallint[];
  v_granted smallint[] := '{}';
  v_asked text[];
begin
  perform gdpr_internal.require_read_committed();
  v_token := gdpr_internal.take_token(p_token, 'consent');
  perform gdpr_internal.check_portal_evidence(p_evidence);
  select q.* into v_request from gdpr_internal.consent_request as q where q.id = v_token.reference;
  v_open := gdpr_internal.open_purposes(v_request);
  if v_open = '{}' then
    perform gdpr_internal.refuse('token_refused');
  end if;
  if p_granted <> '{}' then
    v_granted := gdpr_internal.consent_purposes(p_granted);
  end if;
  if p_granted is null or not v_granted <@ v_open then
    perform gdpr_internal.refuse('invalid_argument', 'granted: purposes that were asked and are open; an empty list declines all');
  end if;
  select f.channels into v_asked from gdpr_internal.consent_form as f where f.id = v_request.form_id;
  if not p_channels <@ v_asked then
    perform gdpr_internal.refuse('invalid_argument', 'channels: those that the form asks for');
  end if;
  perform gdpr_internal.add_consents(
    v_request.subject_id, v_open, (select array_agg(case when u = any (v_granted) then 'granted' else 'declined' end) from unnest(v_open) as u),
    v_request.channel, p_channels, null, p_evidence, null
  );
  return (
    select jsonb_object_agg(c.purpose, c.status) from gdpr_internal.consent_state as c
    where c.subject_id = v_request.subject_id and c.purpose_id = any (v_open)
  );
end
$function$;
comment on function gdpr.answer_consent(text, text[], text[], jsonb) is
  'Answers a question by its token, once, before its deadline: p_granted are granted, the other purposes that were asked are declined. p_channels: of those that the form asks for, the channels of contact that the person allows (null: all of them). p_evidence: how the answer was given (kept encrypted, 16 kB at the most). Returns the status of each purpose. Errors: PR303 the token is not valid, PR004 a purpose or channel that was not asked, PR310 a child without a guardian, PR005. Art. 7, 8.';

create or replace function gdpr.portal_withdraw(p_token text, p_purposes text[] default null)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_token gdpr_internal.token;
  v_request gdpr_internal.consent_request;
  v_purposes smallint[];
begin
  perform gdpr_internal.require_read_committed();
  v_token := gdpr_internal.know_token(p_token, 'consent');
  select q.* into v_request from gdpr_internal.consent_request as q where q.id = v_token.reference;
  if p_purposes is not null and not gdpr_internal.consent_purposes(p_purposes) <@ v_request.purposes then
    perform gdpr_internal.refuse('invalid_argument', 'purposes: those that were asked');
  end if;
  -- what is not granted, nor allowed while an answer is waited for, is withdrawn already
  select array_agg(c.purpose_id) into v_purposes
  from gdpr_internal.consent_state as c
  where c.subject_id = v_request.subject_id and c.purpose_id = any (v_request.purposes)
    and (p_purposes is null or c.purpose = any (p_purposes))
    and c.status in ('granted', 'waiting');
  if v_purposes is not null then
    perform gdpr_internal.add_consents(
      v_request.subject_id, v_purposes, array_fill('withdrawn'::text, array[cardinality(v_purposes)]), v_request.channel, null, null, null, null
    );
  end if;
  return (
    select jsonb_object_agg(c.purpose, c.status) from gdpr_internal.consent_state as c
    where c.subject_id = v_request.subject_id and c.purpose_id = any (v_request.purposes)
  );
end
$function$;
comment on function gdpr.portal_withdraw(text, text[]) is
  'Withdraws consent by the token with which it was given, or asked for: for p_purposes, or all that were asked; as often and as long after as the person likes; in force in the next statement of every session. Returns the status of each purpose. Errors: PR303 the token is not valid, PR004 a purpose that was not asked, PR005. Art. 7(3).';
