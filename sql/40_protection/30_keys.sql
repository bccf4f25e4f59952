-- [code] Making, giving and showing keys, and reading single values.
-- GDPR Art. 32(1)(a). Called by: DBAs (create_key), applications (unlock, reveal, digest), gdprdb keys.

set local role gdpr_keyholder;

create or replace function gdpr_internal.new_key(p_provider text, p_location text, p_given text default null)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if p_provider is null or p_provider not in ('table', 'session', 'file') then
    perform gdpr_internal.refuse('invalid_argument', 'provider is table, session or file');
  elsif (p_provider = 'file') <> (p_location is not null) or not starts_with(coalesce(p_location, '/'), '/') then
    perform gdpr_internal.refuse('invalid_argument', 'provider file takes the absolute path of a file on the server, in p_location (--location); the other providers take none');
  elsif p_given is not null and (p_provider <> 'session' or p_given !~ '^[0-9a-f]{64}$') then
    perform gdpr_internal.refuse('invalid_argument', 'a key that is given has 64 hexadecimal digits, and is for provider session');
  end if;
  return case when p_provider = 'file' then gdpr_internal.key_file(p_location, true) else coalesce(p_given, encode(gdpr_internal.gen_random_bytes(32), 'hex')) end;
end
$function$;
comment on function gdpr_internal.new_key(text, text, text) is
  'The text of a key to be: random, given by the caller (provider session), or what the file at p_location holds. Errors: PR004, PR412.';

create or replace function gdpr.create_key(p_provider text default 'table', p_location text default null, p_key text default null)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key text;
  v_kek bytea;
begin
  -- one key; a second caller waits here and is refused
  lock table gdpr_internal.key_encryption_key in share row exclusive mode;
  if exists (select from gdpr_internal.key_encryption_key) then
    perform gdpr_internal.refuse('invalid_argument', 'there is a key already: gdpr.rotate_key() (gdprdb keys rotate) replaces it');
  elsif exists (select from gdpr_internal.subject) then
    perform gdpr_internal.refuse('invalid_argument', 'there are persons whose key is lost: restore the key tables from their backup');
  end if;
  v_key := gdpr_internal.new_key(p_provider, p_location, p_key);
  v_kek := gdpr_internal.derive_key(v_key);
  insert into gdpr_internal.key_encryption_key (provider, material, location, check_value, digest_key, audit_key, ticket_key)
  values (
    p_provider,
    case when p_provider = 'table' then v_kek end,
    p_location,
    gdpr_internal.key_check(v_kek),
    gdpr_internal.wrap_key(v_kek, gdpr_internal.gen_random_bytes(16), 'digest'::bytea, gdpr_internal.gen_random_bytes(32)),
    gdpr_internal.gen_random_bytes(32),
    gdpr_internal.gen_random_bytes(64)
  );
  perform gdpr_internal.audit_event('KEY', null, jsonb_build_object('created', p_provider));
  return case when p_provider = 'session' and p_key is null then v_key end;
end
$function$;
comment on function gdpr.create_key(text, text, text) is
  'Creates the key-encryption key. provider table: kept in the database, for development. provider file: 64 hexadecimal digits in a file of the server at p_location, which is there already. provider session: returned once (64 hexadecimal digits) and never stored, or p_key, which the caller keeps already (sent as a bind parameter); each session gives it with gdpr.unlock(). Keep what is returned before you commit. Errors: PR004 there is a key already, or persons whose key has to be restored; PR412 the file, or the right to read it, is missing. Art. 32(1)(a).';

create or replace function gdpr.unlock(p_key text, p_transaction boolean default false)
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
  v_secret bytea;
  v_transaction boolean := coalesce(p_transaction, true);
begin
  select k.ticket_key into v_secret
  from gdpr_internal.key_encryption_key as k
  where k.retired_at is null;
  if v_secret is null then
    perform gdpr_internal.refuse('key_missing');
  elsif not exists (
    select from gdpr_internal.key_encryption_key as k
    join gdpr_internal.key_encryption_key as f on f.retired_at is null and k.id in (f.id, f.replaces)
    where k.check_value = gdpr_internal.key_check(v_kek)
  ) then
    perform gdpr_internal.refuse('key_wrong');
  end if;
  -- the setting is readable by all code of the session: what stands in it opens only with the secret
  perform set_config(
    'gdpr.unlocked',
    case when v_transaction then 'once:' else '' end || translate(
      encode(gdpr_internal.wrap_key(
        v_secret, gdpr_internal.gen_random_bytes(16), gdpr_internal.ticket_context(v_transaction), v_kek
      ), 'base64'), E'\n', ''
    ),
    v_transaction
  );
end
$function$;
comment on function gdpr.unlock(text, boolean) is
  'Gives the key to this session (provider session), or with p_transaction to this transaction: what it leaves opens nothing afterwards. Send it as a bind parameter, never in the statement''s text. RESET gdpr.unlocked locks again. While a rotation lasts the old key is taken too. Errors: PR403 wrong key, PR401 no key yet. Art. 32(1)(a).';

create or replace function gdpr.lock_keys()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  update gdpr_internal.key_encryption_key as k
  set ticket_key = gdpr_internal.gen_random_bytes(64)
  where k.retired_at is null and k.provider = 'session';
  if not found then
    perform gdpr_internal.refuse('invalid_argument', 'only a key of provider session can be locked: any other lies with the server');
  end if;
  perform gdpr_internal.audit_event('KEY', null, '{"locked": true}');
end
$function$;
comment on function gdpr.lock_keys() is
  'Locks the key in all sessions at once: each has to give it again with gdpr.unlock(). Errors: PR004 the key is not of provider session. Art. 32(1)(b).';

create or replace function gdpr.check_key(p_key text, p_sample integer default 1000)
returns table (id smallint, state text, data_keys bigint, opened bigint)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea := gdpr_internal.derive_key(p_key);
  v_key gdpr_internal.key_encryption_key;
begin
  select * into v_key from gdpr_internal.key_encryption_key as k where k.check_value = gdpr_internal.key_check(v_kek);
  if v_key.id is null then
    perform gdpr_internal.refuse(case when exists (select from gdpr_internal.key_encryption_key) then 'key_wrong' else 'key_missing' end);
  elsif v_key.retired_at is null then
    perform gdpr_internal.unwrap_key(v_kek, 'digest'::bytea, v_key.digest_key);
  end if;
  return query
  select v_key.id, gdpr_internal.key_state(v_key),
    (select count(*) from gdpr_internal.subject_key as s where s.kek_id = v_key.id),
    (
      select count(gdpr_internal.unwrap_key(v_kek, int8send(s.subject_id), s.wrapped))
      from (select * from gdpr_internal.subject_key as s where s.kek_id = v_key.id limit p_sample) as s
    );
end
$function$;
comment on function gdpr.check_key(text, integer) is
  'Whether a copy of the key opens this database: which key it is, how many data keys it wraps, and how many of them (p_sample; null: all) were opened to see. Unlocks nothing. Send it as a bind parameter. Errors: PR403 another key, PR404 a wrapped key is damaged, PR401. Art. 32(1)(c).';

create or replace function gdpr_internal.key_state(p_key gdpr_internal.key_encryption_key)
returns text
language sql
immutable
parallel unsafe
security invoker
begin atomic
  select case
    when p_key.retired_at is not null then 'retired'
    when p_key.replaces > p_key.id then 'taking back'
    when p_key.replaces is not null then 'taking over'
    else 'in force'
  end;
end;
comment on function gdpr_internal.key_state(gdpr_internal.key_encryption_key) is 'in force, taking over (a rotation lasts), taking back (a rotation was given up, and lasts) or retired.';

create or replace view gdpr.key_status as
select
  k.id,
  k.provider,
  k.created_at,
  k.retired_at is null and gdpr_internal.is_unlocked() as unlocked,
  s.data_keys,
  gdpr_internal.key_state(k) as state,
  k.retired_at,
  s.oldest_data_key,
  s.renewed
from gdpr_internal.key_encryption_key as k
cross join lateral (
  -- an unrenewed ring is one key of 64 bytes, in 48 of wrapping
  select count(*) as data_keys, min(s.created_at) as oldest_data_key, count(*) filter (where length(s.wrapped) > 112) as renewed
  from gdpr_internal.subject_key as s
  where s.kek_id = k.id
) as s;
comment on view gdpr.key_status is 'Key-encryption keys: provider, age, whether it is at hand in this session, how many data keys it wraps, state (in force, taking over while a rotation lasts, taking back after it was given up, retired), when it was retired; of the data keys, when the oldest one in force was made, and how many persons have one that replaced another. No key material.';

create or replace function gdpr_internal.reveal(p_value text, p_role name, p_claim text)
returns text
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint;
  v_mask bigint;
begin
  if p_value is null then
    return null;
  elsif not starts_with(p_value, 'gdpr1:') then
    if exists (select from gdpr_internal.enabling) then
      -- of which table it is, nobody says
      return p_value;
    elsif exists (
      select from gdpr_internal.protected_column as c
      where c.encrypt <> 'no' and (
        c.erase = 'value:' || p_value
        or c.erase = 'neutral' and (
          gdpr_internal.neutral_value(c.original_type) in (quote_literal(p_value), p_value) or p_value ~ '^erased-[0-9a-f-]+$'
        )
      )
    ) then
      -- erasure has left it in a row of nobody; in any other it is no value either
      return null;
    end if;
    perform gdpr_internal.refuse('tampered');
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
    from gdpr_internal.any_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    where c.id = gdpr_internal.value_column(p_value);
  end if;
  if not gdpr_internal.still_allowed(v_subject, coalesce(v_mask, 0)) or (
    exists (
      select from gdpr_internal.any_column as c where c.id = gdpr_internal.value_column(p_value) and c.special is not null
    )
    and not gdpr_policy.special_allowed(v_subject, p_role, p_claim)
  ) then
    perform gdpr_internal.refuse('not_revealed');
  end if;
  perform gdpr_policy.note_read(t.id, t.definition ->> 'audit_reads' = 'required')
    and gdpr_policy.count_read(format('gdpr_generated.reads_%s', t.id)::regclass)
  from gdpr_internal.protected_column as c
  join gdpr_internal.protected_table as t on t.id = c.table_id and t.definition ? 'audit_reads' and t.unprotected_at is null
  where c.id = gdpr_internal.value_column(p_value);
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
  'Decrypts one value of the base table, for roles of audience clear, while the person may be processed for the role''s purpose; null when the person was erased, and for what erasure puts into columns that cannot be null. Plaintext is returned as it is while some table is being enabled, and refused otherwise: it was planted, or stands in a column that is not encrypted. Errors: 42501 not allowed, PR404 altered value or none, PR402 locked, PR410 the person''s key is gone. Art. 32.';

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
  v_digest uuid;
begin
  -- every look-up by an encrypted value begins here: one statement does what canonical() and keyring() do for most addresses,
  -- which are plain ASCII without an encoded domain
  select gdpr_internal.keyed_digest(
    gdpr_internal.decrypt_iv(
      substr(k.digest_key, 17, 32),
      substr(coalesce(k.material, gdpr_internal.given_key(k.ticket_key)), 1, 32),
      substr(k.digest_key, 1, 16),
      'aes-cbc/pad:none'
    ),
    p_kind,
    case
      when p_kind = 'email' and p_value collate "C" ~ '^[A-Za-z0-9._-]+@(?:[A-Za-z0-9]+[.-])*[A-Za-z0-9]+$' then lower(p_value collate "C")
      else gdpr_internal.canonical(p_kind, p_value)
    end
  )
  into v_digest
  from gdpr_internal.key_encryption_key as k
  where k.retired_at is null;
  if v_digest is null then
    -- of a value without content, or without the key: that is refused
    v_keys := gdpr_internal.keyring();
    v_digest := gdpr_internal.keyed_digest(v_keys.digest_key, p_kind, gdpr_internal.equal_form(p_kind, p_value));
  end if;
  return v_digest;
end
$function$;
comment on function gdpr.digest(text, text) is
  'The keyed digest of an identifier (kind: email, phone, text, exact) for look-ups: where email_digest = gdpr.digest(''email'', $1). A value without content has one, which is nobody''s identifier. Art. 32.';

create or replace function gdpr.digest_of(p_kind text, p_value anyelement)
returns uuid
language sql
stable
parallel restricted
security invoker
as $function$
  select gdpr.digest(p_kind, gdpr.equal_text(p_value));
$function$;
comment on function gdpr.digest_of(text, anyelement) is
  'The keyed digest of a value of any type, which has to be that of the column: where born_digest = gdpr.digest_of(''text'', $1::date). Null for null. Art. 32.';

create or replace function gdpr.digests(p_kind text, p_values text[])
returns uuid[]
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
  return array(
    select gdpr_internal.keyed_digest(v_keys.digest_key, p_kind, coalesce(gdpr_internal.canonical(p_kind, u.value), gdpr_internal.equal_form(p_kind, u.value)))
    from unnest(p_values) with ordinality as u (value, n)
    order by u.n
  );
end
$function$;
comment on function gdpr.digests(text, text[]) is
  'The keyed digests of a list of identifiers, in its order: where email_digest = any (gdpr.digests(''email'', $1)). Art. 32.';

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
  if p_value is null or p_subject is null then
    -- what erasure has left
    return p_value;
  elsif not starts_with(p_value, 'gdpr1:') then
    -- needs no key
    return gdpr_internal.open_value(null, p_subject, p_column, p_value);
  end if;
  return gdpr_internal.open_value(gdpr_internal.data_key(gdpr_internal.keyring(), p_subject), p_subject, p_column, p_value);
end
$function$;
comment on function gdpr_policy.decrypt_for_unprotect(bigint, integer, text) is
  'Step of unprotect(): decrypts a stored value, only in the transaction that takes the protection off, on record. Error: 42501 outside of one.';
