-- [code] Where the key-encryption key comes from: a table, the session's ticket, a file of the server.
-- GDPR Art. 32(1)(a). While a rotation lasts a key is 128 bytes: the one in force and the one before it, so that what either wrapped
-- can be opened and nothing is wrapped by the old one any more.

set local role gdpr_keyholder;

create or replace function gdpr_internal.ticket_context(p_transaction boolean)
returns bytea
language sql
stable
strict
parallel restricted
security invoker
begin atomic
  select convert_to(
    format('%s/%s/%s', pg_backend_pid(), extract(epoch from pg_postmaster_start_time()), session_user)
    || case when p_transaction then format('/%s', extract(epoch from transaction_timestamp())) else '' end,
    'UTF8'
  );
end;
comment on function gdpr_internal.ticket_context(boolean) is
  'Binds an unlocked key to this session of this server, or (p_transaction) to this very transaction: its ticket opens nothing elsewhere, even for who kept a copy.';

create or replace function gdpr_internal.open_ticket(p_ticket_key bytea)
returns bytea
language sql
stable
parallel restricted
security invoker
begin atomic
  select case
    when substr(t.ticket, 81) = gdpr_internal.hmac(
      gdpr_internal.ticket_context(t.of_transaction) || substr(t.ticket, 1, 80), substr(p_ticket_key, 33), 'sha256'
    ) then gdpr_internal.decrypt_iv(substr(t.ticket, 17, 64), substr(p_ticket_key, 1, 32), substr(t.ticket, 1, 16), 'aes-cbc/pad:none')
  end
  from (
    select starts_with(s.setting, 'once:') as of_transaction,
      case when s.setting ~ '^(once:)?[A-Za-z0-9+/]{150}==$' then decode(right(s.setting, 152), 'base64') end as ticket
    from (select current_setting('gdpr.unlocked', true)) as s (setting)
  ) as t;
end;
comment on function gdpr_internal.open_ticket(bytea) is
  'The key-encryption key that gdpr.unlock() left in this session, sealed by the ticket key; null when there is none, or it is another session''s or transaction''s.';

create or replace function gdpr_internal.key_file(p_location text, p_required boolean)
returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key text;
begin
  if not p_required and not (
    has_function_privilege('pg_read_file(text, bigint, bigint, boolean)', 'execute') and pg_has_role('pg_read_server_files', 'usage')
  ) then
    return null;
  elsif not has_function_privilege('pg_read_file(text, bigint, bigint, boolean)', 'execute') then
    perform gdpr_internal.refuse('key_file',
      'gdpr_keyholder may not read files of the server. As a superuser: grant execute on function pg_read_file(text, bigint, bigint, boolean) to gdpr_keyholder');
  elsif not pg_has_role('pg_read_server_files', 'usage') then
    perform gdpr_internal.refuse('key_file', format(
      'gdpr_keyholder may not read files outside of the data directory. As a superuser: %s',
      case when current_setting('server_version_num')::integer < 160000
        then 'grant pg_read_server_files to gdpr_keyholder; alter role gdpr_keyholder inherit'
        else 'grant pg_read_server_files to gdpr_keyholder with inherit true' end
    ));
  end if;
  v_key := rtrim(pg_read_file(p_location, 0, 128, true), E'\r\n');
  if not p_required and v_key !~ '^[0-9a-f]{64}$' then
    return null;
  elsif not p_required then
    return v_key;
  elsif v_key is null then
    perform gdpr_internal.refuse('key_file', 'there is no such file on this server');
  elsif v_key !~ '^[0-9a-f]{64}$' then
    perform gdpr_internal.refuse('key_file', 'the file does not hold a key: 64 hexadecimal digits, as openssl rand -hex 32 gives them');
  end if;
  return v_key;
end
$function$;
comment on function gdpr_internal.key_file(text, boolean) is
  'The key in a file of the server; the one function that reads files. Null instead of an error unless p_required. Error: PR412, which names what is missing and the statement that gives it, never what the file holds.';

create or replace function gdpr_internal.key_check(p_kek bytea)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select gdpr_internal.hmac('gdprdb/1/check'::bytea, p_kek, 'sha256');
end;
comment on function gdpr_internal.key_check(bytea) is 'What is kept to tell a key-encryption key from a wrong one.';

create or replace function gdpr_internal.held_key(p_key gdpr_internal.key_encryption_key, p_ticket_key bytea, p_required boolean)
returns bytea
language plpgsql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea;
begin
  v_kek := case p_key.provider
    when 'table' then substr(p_key.material, 1, 64)
    when 'file' then gdpr_internal.derive_key(gdpr_internal.key_file(p_key.location, p_required))
    else gdpr_internal.open_ticket(p_ticket_key)
  end;
  if gdpr_internal.key_check(v_kek) = p_key.check_value then
    return v_kek;
  elsif p_required then
    perform gdpr_internal.refuse(
      case p_key.provider when 'session' then 'key_not_shown' else 'key_wrong' end,
      case p_key.provider when 'file' then 'the file on this server holds another key' end
    );
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.held_key(gdpr_internal.key_encryption_key, bytea, boolean) is
  'The 64 bytes of this very key from where it is kept: the table, its file, or the session. Unless they are there: null, or with p_required an error. Errors: PR403, PR412, PR417.';

create or replace function gdpr_internal.key_file_problem()
returns text
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key gdpr_internal.key_encryption_key;
  v_detail text;
begin
  select * into v_key from gdpr_internal.key_encryption_key as k where k.retired_at is null and k.provider = 'file';
  if v_key.id is not null then
    perform gdpr_internal.held_key(v_key, v_key.ticket_key, true);
  end if;
  return null;
exception when others then
  get stacked diagnostics v_detail = pg_exception_detail;
  -- words of others may repeat what stands in the file
  return case when sqlstate ~ '^PR' then v_detail else format('it cannot be read (SQLSTATE %s)', sqlstate) end;
end
$function$;
comment on function gdpr_internal.key_file_problem() is
  'Why the key in force does not open from its file; null where it does, or has none.';

create or replace function gdpr_internal.given_key(p_ticket_key bytea)
returns bytea
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key gdpr_internal.key_encryption_key;
  v_before gdpr_internal.key_encryption_key;
  v_kek bytea;
begin
  select * into v_key from gdpr_internal.key_encryption_key as k where k.retired_at is null and k.ticket_key = p_ticket_key;
  v_kek := gdpr_internal.held_key(v_key, p_ticket_key, v_key.provider = 'file' and v_key.replaces is null);
  if v_kek is not null then
    return v_kek || coalesce(gdpr_internal.unwrap_key(v_kek, 'predecessor'::bytea, v_key.predecessor), '');
  elsif v_key.replaces is not null then
    -- who has the key before works on until the rotation ends
    select * into v_before from gdpr_internal.key_encryption_key as k where k.id = v_key.replaces;
    v_kek := gdpr_internal.held_key(v_before, p_ticket_key, false);
    if v_kek is not null then
      return substr(gdpr_internal.unwrap_key(v_kek, 'successor'::bytea, v_key.successor), 1, 64) || v_kek;
    elsif v_key.provider = 'file' then
      -- says what is wrong with it
      perform gdpr_internal.held_key(v_key, p_ticket_key, true);
    end if;
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.given_key(bytea) is
  'The key-encryption key that a file or the session holds, for whoever knows the ticket key. Null when it is locked. While a rotation lasts 128 bytes, the new key and the old, and either is enough, wherever it is kept. Errors: PR403, PR412.';

create or replace function gdpr_internal.given_keys(p_ticket_key bytea)
returns bytea[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key gdpr_internal.key_encryption_key;
  v_kek bytea;
begin
  select * into v_key from gdpr_internal.key_encryption_key as k where k.retired_at is null and k.ticket_key = p_ticket_key;
  v_kek := coalesce(v_key.material, gdpr_internal.given_key(p_ticket_key));
  return case
    when v_kek is null then null
    when v_key.replaces is null then array_fill(substr(v_kek, 1, 32), array[1], array[v_key.id::integer])
    else array_fill(
      substr(v_kek, case when v_key.replaces < v_key.id then 65 else 1 end, 32),
      array[abs(v_key.id - v_key.replaces)::integer], array[least(v_key.id, v_key.replaces)::integer]
    ) || substr(v_kek, case when v_key.replaces < v_key.id then 1 else 65 end, 32)
  end;
end
$function$;
comment on function gdpr_internal.given_keys(bytea) is
  'The AES keys that unwrap data keys, each under the number of its key-encryption key: the one in force and, while a rotation lasts, the one before it. For whoever knows the ticket key: the clear views. Null when the key is locked. Errors: PR403, PR412.';

create or replace function gdpr_internal.opened_digest_key(p_keys gdpr_internal.keyring)
returns bytea
language sql
immutable
parallel safe
security invoker
begin atomic
  -- unchecked: doctor() checks its MAC, and this runs for every row
  select gdpr_internal.decrypt_iv(
    substr((p_keys).digest_key, 17, 32), substr((p_keys).kek, 1, 32), substr((p_keys).digest_key, 1, 16), 'aes-cbc/pad:none'
  );
end;
comment on function gdpr_internal.opened_digest_key(gdpr_internal.keyring) is
  'The key of identifier digests, from a keyring that still holds it wrapped.';

create or replace function gdpr_internal.keyring()
returns gdpr_internal.keyring
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
  v_ticket_key bytea;
begin
  select k.id, k.material, k.digest_key, k.ticket_key into v_keys.kek_id, v_keys.kek, v_keys.digest_key, v_ticket_key
  from gdpr_internal.key_encryption_key as k
  where k.retired_at is null;
  if v_keys.kek is null then
    v_keys.kek := gdpr_internal.given_key(v_ticket_key);
  end if;
  if v_keys.kek_id is null then
    perform gdpr_internal.refuse('key_missing');
  elsif v_keys.kek is null then
    perform gdpr_internal.refuse('key_locked');
  end if;
  v_keys.digest_key := gdpr_internal.opened_digest_key(v_keys);
  return v_keys;
end
$function$;
comment on function gdpr_internal.keyring() is 'The keys of this statement, for functions of gdpr_keyholder. Errors: PR401 no key yet, PR402 locked, PR403 and PR412 the key''s file.';

create or replace function gdpr_internal.is_unlocked()
returns boolean
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  return (gdpr_internal.keyring()).kek is not null;
exception when others then
  -- whatever is wrong with the key: it does not open
  return false;
end
$function$;
comment on function gdpr_internal.is_unlocked() is 'Whether the key-encryption key is at hand in this session.';
