-- [code] Signing in to the portal: a link by mail, once, for a session that ends.
-- GDPR Art. 12(2), 12(6), Art. 32(1)(b). Called by: gdpr_portal. Who asks for a link learns nothing about the address: known or
-- not, blocked or written to a minute ago, the answer and the work are the same.

set local role gdpr_keyholder;

create or replace function gdpr_internal.put_sign_in(p_subject bigint, p_to text, p_language text, p_until timestamptz)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea := (gdpr_internal.keyring()).kek;
  v_owner bigint := coalesce(p_subject, 0);
  v_wrapped bytea;
  v_message text;
  v_mail jsonb;
begin
  -- of nobody there is no key: one is made, and thrown away, so that as much is done
  v_wrapped := gdpr_internal.wrap_key(v_kek, gdpr_internal.gen_random_bytes(16), int8send(v_owner), gdpr_internal.gen_random_bytes(64));
  v_wrapped := coalesce((select k.wrapped from gdpr_internal.subject_key as k where k.subject_id = v_owner), v_wrapped);
  v_mail := jsonb_build_object(
    'to', p_to, 'token', gdpr_internal.create_token('sign_in', v_owner, p_subject, p_until),
    'sign_in_by', to_char(p_until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')
  );
  perform gdpr_internal.check_mail('rights_sign_in', p_language, v_mail);
  v_message := gdpr_internal.seal_value(
    gdpr_internal.unwrap_key(v_kek, int8send(v_owner), v_wrapped), gdpr_internal.gen_random_bytes(16), v_owner, 0, v_mail::text
  );
  if p_subject is not null then
    insert into gdpr_internal.outbox (subject_id, template, language, message, due_at, expires_at)
    values (p_subject, 'rights_sign_in', p_language, v_message, statement_timestamp(), p_until);
  end if;
  -- in any case: everybody may listen
  perform pg_notify('gdpr_outbox', '');
end
$function$;
comment on function gdpr_internal.put_sign_in(bigint, text, text, timestamptz) is
  'Makes a token for signing in and queues the mail that carries it; p_subject null: does as much, and nothing comes of it. Errors: PR004, PR401, PR402.';

set local role gdpr_owner;

create or replace function gdpr_internal.portal_time(p_name text)
returns interval
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(
    (select (s.value ->> p_name)::interval from gdpr_internal.setting as s where s.name = 'portal'),
    case p_name when 'link' then interval '30 minutes' when 'resend' then interval '5 minutes' when 'session' then interval '1 hour' end
  );
end;
comment on function gdpr_internal.portal_time(text) is
  'settings.portal: link (how long one works), resend (one mail to a mailbox in this time), session (how long it lasts).';

create or replace function gdpr.portal_request_sign_in(p_email text, p_language text default null)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_to text := btrim(p_email);
  v_until timestamptz := statement_timestamp() + gdpr_internal.portal_time('link');
  v_digests record;
  v_subject bigint;
begin
  perform gdpr_internal.require_home();
  if not gdpr_internal.is_address(v_to) then
    perform gdpr_internal.refuse('invalid_argument', 'this is no e-mail address');
  end if;
  v_digests := gdpr_internal.identifier_digests('email', v_to);
  select i.subject_id into v_subject from gdpr_internal.identifier as i where i.digest = v_digests.digest and i.retired_at is null;
  -- whoever enters the telephone number of another beside an address of their own is given to that person, or gets theirs: who has
  -- addresses that came in such a way is signed in by none, and asks at the office. Of nobody it is asked too
  if exists (
    select from gdpr_internal.identifier as i
    where i.subject_id = coalesce(v_subject, 0) and i.kind = 'email' and i.by_match and i.retired_at is null
  ) then
    v_subject := null;
  end if;
  insert into gdpr_internal.sign_in_mail as m (mailbox, mailed_at)
  values (v_digests.bare, statement_timestamp())
  on conflict (mailbox) do update
  set mailed_at = excluded.mailed_at
  where m.mailed_at <= statement_timestamp() - gdpr_internal.portal_time('resend');
  perform gdpr_internal.put_sign_in(
    -- to the spelling that was entered: only if whoever reads it owns the mailbox of the one that is known
    case when found and gdpr_internal.proves_mailbox(v_to) then v_subject end, v_to, p_language, v_until
  );
  return jsonb_build_object('status', 'sent_if_known', 'link_for', gdpr_internal.portal_time('link')::text);
end
$function$;
comment on function gdpr.portal_request_sign_in(text, text) is
  'Sends a link by which the owner of an address signs in to the portal (template rights_sign_in, in p_language), if a person is known by it, and by no address that came with a row matched by something else; one mail to a mailbox in each interval (settings.portal.resend). The answer is always the same. Send the address as a bind parameter. Errors: PR004 no address, PR401, PR402 key locked, PR640 the database was restored. Art. 12(2), 32(1)(b).';

create or replace function gdpr.portal_sign_in(p_token text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint;
  v_until timestamptz := statement_timestamp() + gdpr_internal.portal_time('session');
begin
  v_subject := (gdpr_internal.take_token(p_token, 'sign_in')).subject_id;
  if not exists (select from gdpr_internal.subject as s where s.id = v_subject and s.erased_at is null) then
    perform gdpr_internal.refuse('token_refused');
  end if;
  perform gdpr_internal.audit_event('SIGN_IN', v_subject, '{}');
  return jsonb_build_object('session', gdpr_internal.create_token('session', v_subject, v_subject, v_until), 'valid_until', v_until);
end
$function$;
comment on function gdpr.portal_sign_in(text) is
  'Takes the token of a link, once, and returns {"session", "valid_until"}: the secret by which the other portal_ functions know the person, until then (settings.portal.session) or gdpr.portal_sign_out(). Call it on POST alone: programs that look at links before the person does send GET. Keep the session in a cookie (Secure, HttpOnly, SameSite), never in an address. Error: PR303, the same for every token that is none. Art. 12(6), 32(1)(b).';

create or replace function gdpr_internal.session_subject(p_session text)
returns bigint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint;
begin
  -- a backup holds sessions too, and what it shows may have been forgotten since
  perform gdpr_internal.require_home();
  select t.subject_id into v_subject
  from gdpr_internal.token as t
  join gdpr_internal.subject as s on s.id = t.subject_id
  where t.digest = sha256(convert_to(case when octet_length(p_session) = 43 then p_session else '' end, 'UTF8'))
    and t.kind = 'session' and t.valid_until > clock_timestamp() and s.erased_at is null;
  if not found then
    perform gdpr_internal.refuse('token_refused');
  end if;
  return v_subject;
end
$function$;
comment on function gdpr_internal.session_subject(text) is
  'The person who is signed in. Errors: PR303, the same for a session that was guessed, has ended, or is a token for something else; PR640 the database was restored.';

create or replace function gdpr.portal_sign_out(p_session text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  perform gdpr_internal.session_subject(p_session);
  delete from gdpr_internal.token as t where t.digest = sha256(convert_to(p_session, 'UTF8'));
end
$function$;
comment on function gdpr.portal_sign_out(text) is 'Ends a session. Error: PR303 it has ended.';
