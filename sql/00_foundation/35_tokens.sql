-- [code] One-time tokens: made, known, taken.
-- GDPR Art. 32(1)(b). Called by: asking for consent, double opt-in, the portal. A token leaves the database once, in the mail
-- that carries it. The functions pin debug_print_plan: with it the log would show the constants of nested statements.

set local role gdpr_owner;

create or replace function gdpr_internal.create_tokens(
  p_kind text, p_references bigint[], p_subjects bigint[], p_valid_until timestamptz[]
)
returns table (reference bigint, token text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  return query
  with made as materialized (
    select
      n.reference, n.subject_id, n.valid_until,
      rtrim(translate(encode(gdpr_internal.gen_random_bytes(32), 'base64'), '+/', '-_'), '=') as token
    from unnest(p_references, p_subjects, p_valid_until) as n (reference, subject_id, valid_until)
  ),
  kept as (
    insert into gdpr_internal.token (digest, kind, reference, subject_id, valid_until)
    select sha256(convert_to(m.token, 'UTF8')), p_kind, m.reference, m.subject_id, m.valid_until
    from made as m
  )
  select m.reference, m.token from made as m;
end
$function$;
comment on function gdpr_internal.create_tokens(text, bigint[], bigint[], timestamptz[]) is
  'Makes one token for each reference, with its person (null: nobody yet) and the instant until which it can be taken. The only time that the tokens are seen.';

create or replace function gdpr_internal.create_token(p_kind text, p_reference bigint, p_subject bigint, p_valid_until timestamptz)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_token text;
begin
  select t.token into v_token
  from gdpr_internal.create_tokens(p_kind, array[p_reference], array[p_subject], array[p_valid_until]) as t;
  return v_token;
end
$function$;
comment on function gdpr_internal.create_token(text, bigint, bigint, timestamptz) is
  'Makes a token of 32 random bytes (base64url, 43 characters). Only its digest is kept.';

create or replace function gdpr_internal.know_token(p_token text, p_kind text, p_fresh boolean default false)
returns gdpr_internal.token
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  -- whatever was given, one digest of 43 bytes at the most and one probe of the index; the text and not the bytes it stands
  -- for is digested, so that a token has one spelling
  v_digest bytea := sha256(convert_to(case when octet_length(p_token) = 43 then p_token else '' end, 'UTF8'));
  v_token gdpr_internal.token;
begin
  perform gdpr_internal.require_home();
  -- first the person, then the token: as everybody does who asks anew or records an answer, so that they never wait in a ring
  perform from gdpr_internal.subject as s
  where s.id = (select t.subject_id from gdpr_internal.token as t where t.digest = v_digest and t.kind = p_kind)
  for no key update;
  select t.* into v_token
  from gdpr_internal.token as t
  where t.digest = v_digest
    and t.kind = p_kind
    -- the clock: a statement that began before the deadline and waited is late
    and case when t.used_at is null then t.valid_until > clock_timestamp() else not p_fresh end
  for update;
  if not found then
    perform gdpr_internal.refuse('token_refused');
  end if;
  return v_token;
end
$function$;
comment on function gdpr_internal.know_token(text, text, boolean) is
  'The token of this kind, locked: one that can be taken or, unless p_fresh, one that was (used_at). Error: PR303, the same for a token that was guessed, mangled, made for something else, withdrawn or not used in time.';

create or replace function gdpr_internal.take_token(p_token text, p_kind text)
returns gdpr_internal.token
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_token gdpr_internal.token;
begin
  v_token := gdpr_internal.know_token(p_token, p_kind, true);
  update gdpr_internal.token as t set used_at = statement_timestamp() where t.digest = v_token.digest;
  return v_token;
end
$function$;
comment on function gdpr_internal.take_token(text, text) is
  'Takes a token of this kind, once: whoever comes second, at the same time too, is refused. Error: PR303, as know_token() raises it.';
