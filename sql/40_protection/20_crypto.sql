-- [code] Values and keys: the format gdpr1:, wrapping, the unlocked key of a session.
-- GDPR Art. 32(1)(a). AES-256-CBC with a random IV, then HMAC-SHA-256 over everything before it (encrypt-then-MAC).
-- Format and test vectors: docs/format.md. The functions here take keys as arguments; which keys, says 30_keys.sql.
-- They pin debug_print_plan: with it the caller would be shown the plans of nested statements.

set local role gdpr_keyholder;

create or replace function gdpr_internal.key_version(p_key bytea)
returns bytea
language sql
immutable
parallel safe
security invoker
begin atomic
  -- 64 bytes: a key that was never replaced
  select case when length(p_key) = 64 then '\x00000001'::bytea else substr(p_key, 65, 4) end;
end;
comment on function gdpr_internal.key_version(bytea) is 'The version (4 bytes) of the data key with which a key ring encrypts.';

create or replace function gdpr_internal.ring_key(p_ring bytea, p_version bytea)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  -- the key in force, before all those that it replaced
  select case
    when length(p_ring) = 64 then case when p_version = '\x00000001' then p_ring end
    else (
      select substr(p_ring, e.n * 80 + 1, 64)
      from generate_series(0, length(p_ring) / 80 - 1) as e (n)
      where substr(p_ring, e.n * 80 + 65, 4) = p_version
    )
  end;
end;
comment on function gdpr_internal.ring_key(bytea, bytea) is 'The key of a version in a person''s key ring; null when it has none of that version.';

create or replace function gdpr_internal.value_header(p_version bytea, p_subject bigint, p_column integer)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select '\x01'::bytea || p_version || int8send(p_subject) || int4send(p_column);
end;
comment on function gdpr_internal.value_header(bytea, bigint, integer) is
  'The 17 bytes before every ciphertext: version 1 of the format, version of the key (4 bytes), subject (8), column id (4), big-endian.';

create or replace function gdpr_internal.seal_value(p_key bytea, p_iv bytea, p_subject bigint, p_column integer, p_value text)
returns text
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_body bytea := gdpr_internal.value_header(gdpr_internal.key_version(p_key), p_subject, p_column) || p_iv
    || gdpr_internal.encrypt_iv(convert_to(p_value, 'UTF8'), substr(p_key, 1, 32), p_iv, 'aes-cbc/pad:pkcs');
begin
  return 'gdpr1:' || replace(encode(v_body || gdpr_internal.hmac(v_body, substr(p_key, 33, 32), 'sha256'), 'base64'), E'\n', '');
end
$function$;
comment on function gdpr_internal.seal_value(bytea, bytea, bigint, integer, text) is
  'Encrypts a value: p_key 64 bytes (AES-256, HMAC), or a key ring that begins with them; p_iv 16 random bytes. Returns gdpr1: and base64 of header, IV, ciphertext, MAC.';

create or replace function gdpr_internal.ring_now(p_key bytea, p_subject bigint)
returns bytea
language plpgsql
-- volatile, to see what was committed after the statement began
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea;
  v_wrapped bytea;
  v_ring bytea;
begin
  select coalesce(e.material, gdpr_internal.given_key(e.ticket_key)) into v_kek
  from gdpr_internal.key_encryption_key as e
  where e.retired_at is null;
  select k.wrapped into v_wrapped from gdpr_internal.subject_key as k where k.subject_id = p_subject;
  v_ring := gdpr_internal.unwrap_key(v_kek, int8send(p_subject), v_wrapped);
  -- for those alone who have the key that was
  if gdpr_internal.ring_key(v_ring, gdpr_internal.key_version(p_key)) = substr(p_key, 1, 64) then
    return v_ring;
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.ring_now(bytea, bigint) is
  'The key ring of a person as it is now, for whoever holds the one that it was a moment ago: a row that was locked can be younger than the statement, and so than the key that this has read.';

create or replace function gdpr_internal.open_value(p_key bytea, p_subject bigint, p_column integer, p_value text)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_raw bytea;
  v_length integer;
  v_key bytea := p_key;
begin
  if p_value is null then
    return null;
  elsif not starts_with(p_value, 'gdpr1:') then
    -- a row that is not yet encrypted, or what somebody planted
    if p_column is not null and not gdpr_internal.holds_plaintext(p_column) then
      perform gdpr_internal.refuse('tampered', format('column id %s', p_column));
    end if;
    return p_value;
  elsif p_key is null then
    -- a restore without the key tables: no value at all would look like one that was never given
    perform gdpr_internal.refuse('data_key_missing', format('column id %s', p_column));
  end if;
  -- 81 bytes are the least: header, IV, one block, MAC
  if octet_length(p_value) % 4 = 2 and octet_length(p_value) >= 114 and p_value ~ '^gdpr1:[A-Za-z0-9+/]+={0,2}$' then
    v_raw := decode(substr(p_value, 7), 'base64');
    v_length := length(v_raw);
    if substr(v_raw, 2, 4) <> gdpr_internal.key_version(p_key) then
      v_key := coalesce(
        gdpr_internal.ring_key(p_key, substr(v_raw, 2, 4)),
        gdpr_internal.ring_key(gdpr_internal.ring_now(p_key, p_subject), substr(v_raw, 2, 4))
      );
    end if;
  end if;
  if v_raw is null or right(p_value, 4) <> encode(substr(v_raw, (v_length - 1) / 3 * 3 + 1), 'base64')
    or substr(v_raw, 6, 12) is distinct from int8send(p_subject) || coalesce(int4send(p_column), substr(v_raw, 14, 4))
    or substr(v_raw, v_length - 31) is distinct from
      gdpr_internal.hmac(substr(v_raw, 1, v_length - 32), substr(v_key, 33, 32), 'sha256')
  then
    if p_column is null then
      return null;
    end if;
    perform gdpr_internal.refuse('tampered', format('column id %s', p_column));
  end if;
  return convert_from(
    gdpr_internal.decrypt_iv(substr(v_raw, 34, v_length - 65), substr(v_key, 1, 32), substr(v_raw, 18, 16), 'aes-cbc/pad:pkcs'),
    'UTF8'
  );
end
$function$;
comment on function gdpr_internal.open_value(bytea, bigint, integer, text) is
  'Checks and decrypts a value that belongs to this subject and column, with whichever key of the person''s ring made it; plaintext is returned as it is while the column may hold it (a row not yet encrypted). p_column null: of any column; plaintext, and null, without an error, for what only begins like a ciphertext. Errors: PR404 altered, moved or planted value, PR410 the person''s key is gone.';

create or replace function gdpr_internal.value_or_null(p_key bytea, p_subject bigint, p_column integer, p_value text)
returns text
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_internal.open_value(p_key, p_subject, p_column, p_value);
exception when sqlstate 'PR404' then
  return null;
end
$function$;
comment on function gdpr_internal.value_or_null(bytea, bigint, integer, text) is
  'gdpr_internal.open_value() for a value that is about to be replaced: null when it is broken. Error: PR410.';

create or replace function gdpr_internal.holds_plaintext(p_column integer)
returns boolean
language plpgsql
stable
-- in parallel plans, too: there is an id in workers that their leader has
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  return exists (
    select from gdpr_internal.protected_column as c
    where c.id = p_column and (
      c.encrypt = 'no' or c.encrypting_xid = pg_current_xact_id_if_assigned()
      or exists (select from gdpr_internal.enabling as e where e.table_id = c.table_id)
    )
  );
end
$function$;
comment on function gdpr_internal.holds_plaintext(integer) is
  'Whether rows of persons may hold plaintext in a column: one that is not encrypted, or whose table is being enabled, or in the transaction that encrypts it. False for column 0, evidence.';

create or replace function gdpr_internal.value_subject(p_value text)
returns bigint
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select ('x' || encode(substr(decode(substr(p_value, 7), 'base64'), 6, 8), 'hex'))::bit(64)::bigint;
end;
comment on function gdpr_internal.value_subject(text) is 'The subject in a ciphertext''s header.';

create or replace function gdpr_internal.value_column(p_value text)
returns integer
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select ('x' || encode(substr(decode(substr(p_value, 7), 'base64'), 14, 4), 'hex'))::bit(32)::integer;
end;
comment on function gdpr_internal.value_column(text) is 'The column id in a ciphertext''s header (0: evidence and audit payloads).';

create or replace function gdpr_internal.wrap_key(p_kek bytea, p_iv bytea, p_context bytea, p_key bytea)
returns bytea
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_body bytea := p_iv || gdpr_internal.encrypt_iv(p_key, substr(p_kek, 1, 32), p_iv, 'aes-cbc/pad:none');
begin
  return v_body || gdpr_internal.hmac(p_context || v_body, substr(p_kek, 33, 32), 'sha256');
end
$function$;
comment on function gdpr_internal.wrap_key(bytea, bytea, bytea, bytea) is
  'Wraps a key (a multiple of 16 bytes) under a key-encryption key (its first 64 bytes): IV, ciphertext, HMAC over context, IV and ciphertext.';

create or replace function gdpr_internal.unwrap_key(p_kek bytea, p_context bytea, p_wrapped bytea)
returns bytea
language sql
-- not strict, and stable as refuse() is: the planner puts it into the expression that calls it
stable
parallel safe
security invoker
begin atomic
  select case
    when substr(p_wrapped, length(p_wrapped) - 31)
      = gdpr_internal.hmac(p_context || substr(p_wrapped, 1, length(p_wrapped) - 32), substr(p_kek, 33, 32), 'sha256')
      then gdpr_internal.decrypt_iv(
        substr(p_wrapped, 17, length(p_wrapped) - 48), substr(p_kek, 1, 32), substr(p_wrapped, 1, 16), 'aes-cbc/pad:none'
      )
    when p_wrapped is null or p_kek is null then null
    -- while a rotation lasts: the key before
    when substr(p_wrapped, length(p_wrapped) - 31)
      = gdpr_internal.hmac(p_context || substr(p_wrapped, 1, length(p_wrapped) - 32), nullif(substr(p_kek, 97, 32), ''), 'sha256')
      then gdpr_internal.decrypt_iv(
        substr(p_wrapped, 17, length(p_wrapped) - 48), substr(p_kek, 65, 32), substr(p_wrapped, 1, 16), 'aes-cbc/pad:none'
      )
    else case when gdpr_internal.refuse(case when p_wrapped is not null then 'tampered' end, 'wrapped key') then null::bytea end
  end;
end;
comment on function gdpr_internal.unwrap_key(bytea, bytea, bytea) is
  'Checks and unwraps a key; p_kek of 128 bytes: the key in force and the one before it, while a rotation lasts. Error: PR404. Writers use it: a damaged key must never encrypt; readers need no check, the MAC of each value covers the key.';

create or replace function gdpr_internal.derive_key(p_key text)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select
    gdpr_internal.hmac('gdprdb/1/encrypt'::bytea, convert_to(p_key, 'UTF8'), 'sha256')
    || gdpr_internal.hmac('gdprdb/1/authenticate'::bytea, convert_to(p_key, 'UTF8'), 'sha256');
end;
comment on function gdpr_internal.derive_key(text) is
  'The 64 bytes of key-encryption key behind the text that gdpr.create_key() returned: two HMAC-SHA-256 with separate labels.';

create or replace function gdpr_internal.data_key(p_keys gdpr_internal.keyring, p_subject bigint)
returns bytea
language plpgsql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_wrapped bytea;
begin
  select k.wrapped into v_wrapped from gdpr_internal.subject_key as k where k.subject_id = p_subject;
  if v_wrapped is null then
    return null;
  end if;
  return gdpr_internal.unwrap_key(p_keys.kek, int8send(p_subject), v_wrapped);
end
$function$;
comment on function gdpr_internal.data_key(gdpr_internal.keyring, bigint) is 'A person''s data key with those that it replaced, checked; null when they were destroyed.';

create or replace function gdpr_internal.broken_columns(p_subject bigint, p_columns integer[], p_values text[])
returns table (column_id integer, error text)
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
begin
  for i in 1 .. coalesce(cardinality(p_columns), 0) loop
    begin
      perform gdpr_internal.open_value(v_key, p_subject, p_columns[i], p_values[i]);
    exception when sqlstate 'PR404' or sqlstate 'PR410' then
      column_id := p_columns[i];
      error := sqlstate;
      return next;
    end;
  end loop;
end
$function$;
comment on function gdpr_internal.broken_columns(bigint, integer[], text[]) is
  'Which of the values that a person''s row holds in these encrypted columns cannot be opened, and with what error: PR404 altered, moved or planted, PR410 the key is gone. Nothing of a value. Error: PR402 key locked.';

create or replace function gdpr_internal.seal_evidence(p_subject bigint, p_value text)
returns text
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if p_value is null then
    return null;
  end if;
  v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  return gdpr_internal.seal_value(v_key, gdpr_internal.gen_random_bytes(16), p_subject, 0, p_value);
end
$function$;
comment on function gdpr_internal.seal_evidence(bigint, text) is
  'Encrypts a detail of evidence (source, consent) under the person''s key: erasure takes it along. Null if the key is gone.';

create or replace function gdpr_internal.open_columns(p_key bytea, p_subject bigint, p_row jsonb, p_typed boolean default false)
returns jsonb
language plpgsql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_row jsonb := p_row;
  v_column text;
  v_value text;
  v_plain text;
begin
  for v_column, v_value in select key, value #>> '{}' from jsonb_each(p_row) where jsonb_typeof(value) = 'string' loop
    continue when not starts_with(v_value, 'gdpr1:');
    -- anybody can write a text that begins like this into a plain column; it must not close the record to its reader
    v_plain := gdpr_internal.open_value(p_key, p_subject, null, v_value);
    continue when v_plain is null;
    v_row := v_row || jsonb_build_object(v_column, case
      when p_typed then gdpr_internal.value_as_json(coalesce(
        (select c.original_type from gdpr_internal.any_column as c where c.id = gdpr_internal.value_column(v_value)), 'text'
      ), v_plain)
      else to_jsonb(v_plain)
    end);
  end loop;
  return v_row;
end
$function$;
comment on function gdpr_internal.open_columns(bytea, bigint, jsonb, boolean) is
  'A row as audit records keep it, what is encrypted opened, as text or (p_typed: not in parallel plans) in its type; text that only looks encrypted stays as it is.';

create or replace function gdpr_internal.open_payload(p_key bytea, p_subject bigint, p_value text)
returns jsonb
language sql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  select gdpr_internal.open_columns(p_key, p_subject, gdpr_internal.open_value(p_key, p_subject, 0, p_value)::jsonb);
end;
comment on function gdpr_internal.open_payload(bytea, bigint, text) is
  'The old values in the payload of an audit record, encrypted columns opened too.';

create or replace function gdpr_internal.open_changes(p_subject bigint, p_value text)
returns jsonb
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if p_value is null then
    return null;
  end if;
  v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  return case when v_key is not null then gdpr_internal.open_payload(v_key, p_subject, p_value) end;
end
$function$;
comment on function gdpr_internal.open_changes(bigint, text) is
  'Decrypts the old values of an audit record, encrypted columns too; null when the person''s key was destroyed. Only views that ask for gdpr_dpo call it.';

create or replace function gdpr_internal.open_evidence(p_subject bigint, p_value text)
returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if p_value is null then
    return null;
  end if;
  v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  return case when v_key is not null then gdpr_internal.open_value(v_key, p_subject, 0, p_value) end;
end
$function$;
comment on function gdpr_internal.open_evidence(bigint, text) is
  'Decrypts a detail of evidence; null when the person''s key was destroyed. Only views that ask for gdpr_dpo call it.';

create or replace function gdpr_internal.open_reason(p_subject bigint, p_reason text)
returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  return case
    when not starts_with(p_reason, 'gdpr1:') then p_reason
    when pg_has_role(gdpr_internal.acting_role(), 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(p_subject, p_reason)
  end;
end
$function$;
comment on function gdpr_internal.open_reason(bigint, text) is
  'The words with which an officer gave a reason that is about a person: for gdpr_dpo, until the person''s key was destroyed. What gdprdb gave as a reason itself (a replay) is no ciphertext, and for everybody.';
