-- [code] Another key-encryption key: data keys are wrapped anew in batches, while applications work on.
-- GDPR Art. 32(1)(a), 32(1)(d). Called by: gdpr_admin, gdprdb keys rotate. Between rotate_key() and finish_rotation() both keys open
-- the database: who holds the old one reaches the new one through it. New persons get the new key at once. What nobody can show never
-- becomes the only key; abort_rotation() turns a rotation round, which then ends like any other.

set local role gdpr_keyholder;

create or replace function gdpr.rotate_key(p_provider text default null, p_location text default null, p_key text default null)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_old gdpr_internal.key_encryption_key;
  v_keys gdpr_internal.keyring;
  v_provider text;
  v_key text;
  v_kek bytea;
begin
  -- statements that began with the old key read on
  lock table gdpr_internal.key_encryption_key in share row exclusive mode;
  select * into v_old from gdpr_internal.key_encryption_key as k where k.retired_at is null;
  v_keys := gdpr_internal.keyring();
  v_provider := coalesce(p_provider, v_old.provider);
  if v_old.replaces is not null then
    perform gdpr_internal.refuse('rotation_state', 'one is going on');
  end if;
  v_key := gdpr_internal.new_key(v_provider, p_location, p_key);
  v_kek := gdpr_internal.derive_key(v_key);
  if exists (select from gdpr_internal.key_encryption_key as k where k.check_value = gdpr_internal.key_check(v_kek)) then
    perform gdpr_internal.refuse('invalid_argument', 'the new key has been used before');
  end if;
  update gdpr_internal.key_encryption_key as k
  set retired_at = statement_timestamp(), digest_key = null, audit_key = null, ticket_key = null
  where k.id = v_old.id;
  insert into gdpr_internal.key_encryption_key (
    provider, material, location, check_value, digest_key, audit_key, ticket_key, replaces, predecessor, successor
  )
  values (
    v_provider,
    case when v_provider = 'table' then v_kek || v_keys.kek end,
    p_location,
    gdpr_internal.key_check(v_kek),
    gdpr_internal.wrap_key(v_kek, gdpr_internal.gen_random_bytes(16), 'digest'::bytea, v_keys.digest_key),
    v_old.audit_key,
    v_old.ticket_key,
    v_old.id,
    gdpr_internal.wrap_key(v_kek, gdpr_internal.gen_random_bytes(16), 'predecessor'::bytea, v_keys.kek),
    gdpr_internal.wrap_key(
      v_keys.kek, gdpr_internal.gen_random_bytes(16), 'successor'::bytea,
      v_kek || case when v_provider = 'session' then decode(v_key, 'hex') else '' end
    )
  );
  perform gdpr_internal.audit_event('KEY', null, jsonb_build_object('rotating_to', v_provider));
  return case when v_provider = 'session' and p_key is null then v_key end;
end
$function$;
comment on function gdpr.rotate_key(text, text, text) is
  'Begins to replace the key-encryption key. p_provider: as it is now by default; file takes the new key from p_location; session returns the new key, or takes p_key (64 hexadecimal digits, sent as a bind parameter). From now on persons get the new key; gdpr.rewrap_keys() brings the others over, gdpr.finish_rotation() ends it. Until then either key opens the database, gdpr.show_new_key() shows a new one of provider session again, and gdpr.abort_rotation() gives up. Data is not encrypted anew. Errors: PR402 the old key is locked, PR413 a rotation is going on, PR004, PR412. Art. 32(1)(a).';

create or replace function gdpr_internal.rewrap_lesser_keys(p_kek bytea, p_limit integer)
returns bigint
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_registrations bigint;
  v_notices bigint;
begin
  -- these rows do not say which key wrapped them: their MAC does
  update gdpr_internal.registration_key as r
  set wrapped = gdpr_internal.wrap_key(
    p_kek, gdpr_internal.gen_random_bytes(16), b.context, gdpr_internal.unwrap_key(p_kek, b.context, r.wrapped)
  )
  from (
    select k.registration_id, int8send(-k.registration_id) as context
    from gdpr_internal.registration_key as k
    where not gdpr_internal.is_wrapped_by(p_kek, int8send(-k.registration_id), k.wrapped)
    limit p_limit
    for update skip locked
  ) as b
  where b.registration_id = r.registration_id;
  get diagnostics v_registrations = row_count;
  update gdpr_internal.notice_key as n
  set wrapped = gdpr_internal.wrap_key(
    p_kek, gdpr_internal.gen_random_bytes(16), b.context, gdpr_internal.unwrap_key(p_kek, b.context, n.wrapped)
  )
  from (
    select k.notice_id, 'notice'::bytea || int8send(k.notice_id) as context
    from gdpr_internal.notice_key as k
    where not gdpr_internal.is_wrapped_by(p_kek, 'notice'::bytea || int8send(k.notice_id), k.wrapped)
    limit p_limit
    for update skip locked
  ) as b
  where b.notice_id = n.notice_id;
  get diagnostics v_notices = row_count;
  return v_registrations + v_notices;
end
$function$;
comment on function gdpr_internal.rewrap_lesser_keys(bytea, integer) is
  'Wraps keys of registrations and notices anew that the key in force did not wrap; returns how many. Error: PR404.';

create or replace function gdpr_internal.is_wrapped_by(p_kek bytea, p_context bytea, p_wrapped bytea)
returns boolean
language sql
immutable
parallel safe
security invoker
begin atomic
  select substr(p_wrapped, length(p_wrapped) - 31)
    = gdpr_internal.hmac(p_context || substr(p_wrapped, 1, length(p_wrapped) - 32), substr(p_kek, 33, 32), 'sha256');
end;
comment on function gdpr_internal.is_wrapped_by(bytea, bytea, bytea) is 'Whether the first 64 bytes of p_kek wrapped this key.';

create or replace function gdpr_internal.transactions_here()
returns text[]
language sql
volatile
parallel unsafe
security invoker
begin atomic
  -- by number of an assigned transaction one would miss who has only read so far: at REPEATABLE READ he goes on with the key he saw
  select coalesce(array_agg(l.virtualxid), '{}')
  from pg_locks as l
  join pg_stat_activity as a on a.pid = l.pid
  where l.locktype = 'virtualxid' and l.pid <> pg_backend_pid()
    and a.datid = (select d.oid from pg_database as d where d.datname = current_database()) and a.usesysid is not null;
end;
comment on function gdpr_internal.transactions_here() is 'The transactions of other sessions in this database, by their virtual number.';

create or replace function gdpr.rewrap_keys(p_limit integer default 10000)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
  v_from bigint;
  v_to bigint;
  v_done bigint;
begin
  if p_limit is null or p_limit < 1 then
    perform gdpr_internal.refuse('invalid_argument', 'the limit is a positive number');
  end if;
  -- a second caller waits and goes on where the first one came to
  lock table gdpr_internal.key_encryption_key in share row exclusive mode;
  select k.rewrapped_to into v_from
  from gdpr_internal.key_encryption_key as k
  where k.retired_at is null and k.replaces is not null;
  if v_from is null then
    perform gdpr_internal.refuse('rotation_state', 'none is going on');
  end if;
  v_keys := gdpr_internal.keyring();
  -- not in the transaction that began it: others may still begin without it
  update gdpr_internal.key_encryption_key as k
  set waits_for = gdpr_internal.transactions_here()
  where k.id = v_keys.kek_id and k.waits_for is null and k.created_xid <> pg_current_xact_id();
  select max(b.subject_id) into v_to
  from (
    select s.subject_id from gdpr_internal.subject_key as s where s.subject_id > v_from order by s.subject_id limit p_limit
  ) as b;
  with batch as materialized (
    select s.subject_id, s.wrapped
    from gdpr_internal.subject_key as s
    where s.subject_id > v_from and s.subject_id <= v_to and s.kek_id <> v_keys.kek_id
    for update skip locked
  )
  update gdpr_internal.subject_key as s
  set kek_id = v_keys.kek_id, wrapped = gdpr_internal.wrap_key(
    v_keys.kek, gdpr_internal.gen_random_bytes(16), int8send(b.subject_id),
    gdpr_internal.unwrap_key(substr(v_keys.kek, 65), int8send(b.subject_id), b.wrapped)
  )
  from batch as b
  where s.subject_id = b.subject_id;
  get diagnostics v_done = row_count;
  if v_to is null then
    -- the end is reached: now those that were locked, or were being written with the old key, when their turn came
    with batch as materialized (
      select s.subject_id, s.wrapped
      from gdpr_internal.subject_key as s
      where s.kek_id <> v_keys.kek_id
      limit p_limit
      for update skip locked
    )
    update gdpr_internal.subject_key as s
    set kek_id = v_keys.kek_id, wrapped = gdpr_internal.wrap_key(
      v_keys.kek, gdpr_internal.gen_random_bytes(16), int8send(b.subject_id),
      gdpr_internal.unwrap_key(substr(v_keys.kek, 65), int8send(b.subject_id), b.wrapped)
    )
    from batch as b
    where s.subject_id = b.subject_id;
    get diagnostics v_done = row_count;
    return v_done + gdpr_internal.rewrap_lesser_keys(v_keys.kek, p_limit);
  end if;
  update gdpr_internal.key_encryption_key as k set rewrapped_to = v_to where k.id = v_keys.kek_id;
  -- a batch may find all of its keys new, or locked: the next one goes on
  return greatest(v_done, 1);
end
$function$;
comment on function gdpr.rewrap_keys(integer) is
  'Wraps up to p_limit data keys by the new key-encryption key; call it, each time in a transaction of its own, until it returns 0. Writers do not wait for it longer than for one batch, and only on the persons in it. Resumes by itself. Errors: PR413 no rotation is going on, PR402, PR404 a wrapped key is damaged. Art. 32(1)(a).';

create or replace function gdpr.show_new_key()
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key gdpr_internal.key_encryption_key;
  v_text bytea;
begin
  select * into v_key
  from gdpr_internal.key_encryption_key as k
  where k.retired_at is null and k.replaces < k.id and k.provider = 'session';
  if v_key.id is null then
    perform gdpr_internal.refuse('rotation_state', 'no rotation to a key of provider session is going on');
  end if;
  v_text := substr(gdpr_internal.unwrap_key(substr((gdpr_internal.keyring()).kek, 65), 'successor'::bytea, v_key.successor), 65);
  perform gdpr_internal.audit_event('KEY', null, '{"shown": true}');
  return encode(v_text, 'hex');
end
$function$;
comment on function gdpr.show_new_key() is
  'The new key of provider session again, while the rotation to it lasts, for a session that was given it or the key before: who lost the answer of gdpr.rotate_key(). Is recorded. Errors: PR413 no such rotation is going on, PR402. Art. 32(1)(b).';

create or replace function gdpr.finish_rotation()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key gdpr_internal.key_encryption_key;
  v_kek bytea;
begin
  lock table gdpr_internal.key_encryption_key in share row exclusive mode;
  select * into v_key from gdpr_internal.key_encryption_key as k where k.retired_at is null and k.replaces is not null;
  if v_key.id is null then
    perform gdpr_internal.refuse('rotation_state', 'none is going on');
  end if;
  -- not by way of the other key: nobody may have this one
  v_kek := gdpr_internal.held_key(v_key, v_key.ticket_key, true);
  if v_key.waits_for is null then
    perform gdpr_internal.refuse('rotation_state', 'gdpr.rewrap_keys() has not been called since the transaction that began it');
  elsif v_key.waits_for && gdpr_internal.transactions_here()
    -- prepared ones have no session
    or (v_key.created_xid >= pg_snapshot_xmin(pg_current_snapshot()) and v_key.created_xid < pg_snapshot_xmax(pg_current_snapshot()))
  then
    -- they may still write a person with the other key
    perform gdpr_internal.refuse('rotation_state', 'transactions that are older than the rotation are still going on: wait for their end');
  elsif exists (select from gdpr_internal.subject_key as s where s.kek_id <> v_key.id)
    or exists (
      select from gdpr_internal.registration_key as r where not gdpr_internal.is_wrapped_by(v_kek, int8send(-r.registration_id), r.wrapped)
    )
    or exists (
      select from gdpr_internal.notice_key as n where not gdpr_internal.is_wrapped_by(v_kek, 'notice'::bytea || int8send(n.notice_id), n.wrapped)
    )
  then
    perform gdpr_internal.refuse('rotation_state', 'data keys are still wrapped by the other key: gdpr.rewrap_keys()');
  end if;
  update gdpr_internal.key_encryption_key as k
  set replaces = null, predecessor = null, successor = null, waits_for = null, material = substr(k.material, 1, 64)
  where k.id = v_key.id;
  update gdpr_internal.key_encryption_key as k set material = null where k.id = v_key.replaces;
  perform gdpr_internal.audit_event('KEY', null, jsonb_build_object(case when v_key.replaces < v_key.id then 'rotated' else 'rotated_back' end, true));
end
$function$;
comment on function gdpr.finish_rotation() is
  'Ends a rotation: from now on the old key opens nothing; sessions that hold it are locked. The caller''s session has to hold the new key itself (provider file: the server reads it from its file), or nobody might. After gdpr.abort_rotation() it is the other way round. Errors: PR417 the session was not given the key that takes over, PR412 and PR403 its file is missing or another; PR413 data keys are still wrapped by the other key, or older transactions are going on, or there is no rotation. Art. 32(1)(a).';

create or replace function gdpr.abort_rotation()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_new gdpr_internal.key_encryption_key;
  v_old gdpr_internal.key_encryption_key;
  v_keys gdpr_internal.keyring;
  v_kek bytea;
begin
  lock table gdpr_internal.key_encryption_key in share row exclusive mode;
  select * into v_new from gdpr_internal.key_encryption_key as k where k.retired_at is null and k.replaces is not null;
  if v_new.id is null then
    perform gdpr_internal.refuse('rotation_state', 'none is going on');
  elsif v_new.replaces > v_new.id then
    -- called again
    return;
  end if;
  select * into v_old from gdpr_internal.key_encryption_key as k where k.id = v_new.replaces;
  v_kek := gdpr_internal.held_key(v_old, v_new.ticket_key, true);
  v_keys := gdpr_internal.keyring();
  update gdpr_internal.key_encryption_key as k
  set retired_at = statement_timestamp(), material = substr(k.material, 1, 64), digest_key = null, audit_key = null, ticket_key = null,
    replaces = null, predecessor = null, successor = null, waits_for = null
  where k.id = v_new.id;
  update gdpr_internal.key_encryption_key as k
  set retired_at = null,
    material = case when v_old.provider = 'table' then v_kek || substr(v_keys.kek, 1, 64) end,
    digest_key = gdpr_internal.wrap_key(v_kek, gdpr_internal.gen_random_bytes(16), 'digest'::bytea, v_keys.digest_key),
    audit_key = v_new.audit_key,
    ticket_key = v_new.ticket_key,
    replaces = v_new.id,
    predecessor = gdpr_internal.wrap_key(v_kek, gdpr_internal.gen_random_bytes(16), 'predecessor'::bytea, substr(v_keys.kek, 1, 64)),
    successor = gdpr_internal.wrap_key(v_keys.kek, gdpr_internal.gen_random_bytes(16), 'successor'::bytea, v_kek),
    rewrapped_to = 0,
    waits_for = null,
    created_xid = pg_current_xact_id()
  where k.id = v_old.id;
  perform gdpr_internal.audit_event('KEY', null, jsonb_build_object('rotating_back_to', v_old.provider));
end
$function$;
comment on function gdpr.abort_rotation() is
  'Gives up a rotation that has not ended, because the new key was lost, or is not wanted: from now on persons get the old key again; gdpr.rewrap_keys() brings back those who had come over, gdpr.finish_rotation() ends it, and the new key opens nothing any more. Until then either key opens the database. The caller''s session has to hold the old key itself. Called again it changes nothing. Errors: PR413 no rotation is going on, PR417 the session was not given the old key, PR412 and PR403 its file is missing or another. Art. 32(1)(b).';
