-- [code] Making, giving and showing keys, and reading single values.
-- GDPR Art. 32(1)(a). Called by: DBAs (create_key), applications (unlock, reveal, digest), gdprdb keys.

set local role gdpr_keyholder;

create or replace function gdpr.create_key(p_provider text default 'table')
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key text := encode(gdpr_internal.gen_random_bytes(32), 'hex');
  v_kek bytea := gdpr_internal.derive_key(v_key);
  v_stored bytea;
begin
  if p_provider is null or p_provider not in ('table', 'session') then
    perform gdpr_internal.refuse('invalid_argument', 'provider is table or session');
  end if;
  -- one key; a second caller waits here and is refused
  lock table gdpr_internal.key_encryption_key in share row exclusive mode;
  if exists (select from gdpr_internal.key_encryption_key) then
    perform gdpr_internal.refuse('invalid_argument', 'there is a key already');
  elsif exists (select from gdpr_internal.subject) then
    perform gdpr_internal.refuse('invalid_argument', 'there are persons whose key is lost: restore the key tables from their backup');
  end if;
  if p_provider = 'table' then
    v_stored := v_kek;
  end if;
  insert into gdpr_internal.key_encryption_key (provider, material, check_value, digest_key, audit_key, ticket_key)
  values (
    p_provider,
    v_stored,
    gdpr_internal.hmac('gdprdb/1/check'::bytea, v_kek, 'sha256'),
    gdpr_internal.wrap_key(v_kek, gdpr_internal.gen_random_bytes(16), 'digest'::bytea, gdpr_internal.gen_random_bytes(32)),
    gdpr_internal.gen_random_bytes(32),
    gdpr_internal.gen_random_bytes(64)
  );
  perform gdpr_internal.audit_event('KEY', null, jsonb_build_object('created', p_provider));
  return case p_provider when 'session' then v_key end;
end
$function$;
comment on function gdpr.create_key(text) is
  'Creates the key-encryption key. provider table: kept in the database, for development. provider session: returned once (64 hexadecimal digits) and never stored; each session gives it with gdpr.unlock(). Errors: PR004 there is a key already, or persons whose key has to be restored. Art. 32(1)(a).';

create or replace function gdpr.unlock(p_key text)
returns void
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea := gdpr_internal.derive_key(p_key);
  v_check bytea;
  v_secret bytea;
begin
  select k.check_value, k.ticket_key into v_check, v_secret
  from gdpr_internal.key_encryption_key as k
  where k.retired_at is null;
  if v_check is null then
    perform gdpr_internal.refuse('key_missing');
  elsif v_kek is null or v_check <> gdpr_internal.hmac('gdprdb/1/check'::bytea, v_kek, 'sha256') then
    perform gdpr_internal.refuse('key_wrong');
  end if;
  -- the setting is readable by all code of the session: what stands in it opens only with the secret
  perform set_config(
    'gdpr.unlocked',
    translate(
      encode(gdpr_internal.wrap_key(v_secret, gdpr_internal.gen_random_bytes(16), gdpr_internal.ticket_context(), v_kek), 'base64'), E'\n', ''
    ),
    false
  );
end
$function$;
comment on function gdpr.unlock(text) is
  'Gives the key to this session (provider session). Send it as a bind parameter, never in the statement''s text. RESET gdpr.unlocked locks again. Errors: PR403 wrong key, PR401 no key yet. Art. 32(1)(a).';

create or replace view gdpr.key_status as
select
  k.id,
  k.provider,
  k.created_at,
  k.provider = 'table' or gdpr_internal.open_ticket(k.ticket_key) is not null as unlocked,
  (select count(*) from gdpr_internal.subject_key as s where s.kek_id = k.id) as data_keys
from gdpr_internal.key_encryption_key as k;
comment on view gdpr.key_status is 'The key-encryption key: provider, age, whether it is unlocked in this session, how many data keys it wraps. No key material.';

create or replace function gdpr_internal.reveal(p_value text, p_role name, p_claim text)
returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint;
  v_mask bigint;
begin
  if p_value is null or not starts_with(p_value, 'gdpr1:') then
    return p_value;
  end if;
  begin
    v_subject := gdpr_internal.value_subject(p_value);
  exception when others then
    v_subject := null;
  end;
  if v_subject is null then
    perform gdpr_internal.refuse('tampered');
  end if;
  perform gdpr_policy.refuse_base(p_role);
  v_mask := gdpr_policy.purpose_mask(p_role, p_claim);
  if exists (select from gdpr_internal.subject as s where s.id = v_subject and s.erased_at is not null) then
    return null;
  end if;
  if v_mask <> 1::bigint << 62 then
    -- the table's purposes count too; evidence (column 0) is for compliance alone
    select t.purpose_mask & v_mask into v_mask
    from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    where c.id = gdpr_internal.value_column(p_value);
  end if;
  if not gdpr_internal.still_allowed(v_subject, coalesce(v_mask, 0)) or (
    exists (
      select from gdpr_internal.protected_column as c where c.id = gdpr_internal.value_column(p_value) and c.special is not null
    )
    and not gdpr_policy.special_allowed(v_subject, p_role, p_claim)
  ) then
    perform gdpr_internal.refuse('not_revealed');
  end if;
  return gdpr_internal.open_value(
    gdpr_internal.data_key(gdpr_internal.keyring(), v_subject), v_subject, gdpr_internal.value_column(p_value), p_value
  );
end
$function$;
comment on function gdpr_internal.reveal(text, name, text) is 'See gdpr.reveal(text); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr.reveal(p_value text)
returns text
language sql
stable
parallel restricted
security invoker
begin atomic
  select gdpr_internal.reveal(p_value, current_user, current_setting('gdpr.purpose', true));
end;
comment on function gdpr.reveal(text) is
  'Decrypts one value of the base table, for roles of audience clear, while the person may be processed for the role''s purpose; null when the person was erased. Errors: 42501 not allowed, PR404 altered value, PR402 locked, PR410 the person''s key is gone. Art. 32.';

create or replace function gdpr_internal.keyed_digest(p_key bytea, p_kind text, p_canonical text)
returns uuid
language sql
-- stable, as convert_to() is: declared immutable it would not be inlined
stable
parallel safe
security invoker
begin atomic
  select encode(substr(gdpr_internal.hmac(convert_to(p_kind || ':' || p_canonical, 'UTF8'), p_key, 'sha256'), 1, 16), 'hex')::uuid;
end;
comment on function gdpr_internal.keyed_digest(bytea, text, text) is 'The first 128 bits of HMAC-SHA-256 over kind and canonical form.';

create or replace function gdpr.digest(p_kind text, p_value text)
returns uuid
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
begin
  v_keys := gdpr_internal.keyring();
  return gdpr_internal.keyed_digest(v_keys.digest_key, p_kind, gdpr_internal.canonical(p_kind, p_value));
end
$function$;
comment on function gdpr.digest(text, text) is
  'The keyed digest of an identifier (kind: email, phone, text, exact) for look-ups: where email_digest = gdpr.digest(''email'', $1). Null for a value without content. Art. 32.';

create or replace function gdpr_internal.has_key()
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (select from gdpr_internal.key_encryption_key);
end;
comment on function gdpr_internal.has_key() is 'Whether gdpr.create_key() was called.';

create or replace function gdpr_policy.decrypt_for_unprotect(p_subject bigint, p_column integer, p_value text)
returns text
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if not exists (
    select from gdpr_internal.protected_table as t
    join gdpr_internal.protected_column as c on c.table_id = t.id
    where c.id = p_column and t.unprotecting_xid = pg_current_xact_id_if_assigned()
  ) then
    perform gdpr_internal.refuse('not_revealed');
  end if;
  if p_value is null or not starts_with(p_value, 'gdpr1:') then
    return p_value;
  end if;
  return gdpr_internal.open_value(gdpr_internal.data_key(gdpr_internal.keyring(), p_subject), p_subject, p_column, p_value);
end
$function$;
comment on function gdpr_policy.decrypt_for_unprotect(bigint, integer, text) is
  'Step of unprotect(): decrypts a stored value, only in the transaction that takes the protection off, on record. Error: 42501 outside of one.';
