-- [code] Erasure: every row of a person, the key, the identifiers.
-- GDPR Art. 17. Called by: gdpr_dpo. The rows are touched by gdpr_worker's generated functions, the key by gdpr_keyholder's.

set local role gdpr_keyholder;

create or replace function gdpr_internal.destroy_key(p_subject bigint)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.subject_key as k where k.subject_id = p_subject;
  return found;
end
$function$;
comment on function gdpr_internal.destroy_key(bigint) is
  'Destroys a person''s data key: every copy of the ciphertext (table, log, replica, backup, audit) is unreadable from then on.';

create or replace function gdpr_internal.destroy_erased_keys()
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_destroyed bigint;
begin
  delete from gdpr_internal.subject_key as k
  using gdpr_internal.subject as s, gdpr_internal.erasure_record as e
  where s.id = k.subject_id and s.erased_at is not null and e.subject_id = s.id and (e.receipt -> 'key_destroyed')::boolean;
  get diagnostics v_destroyed = row_count;
  return v_destroyed;
end
$function$;
comment on function gdpr_internal.destroy_erased_keys() is
  'Destroys again the data keys that erasures have destroyed: a backup of the keys that is older than the data brings them back.';

set local role gdpr_owner;

create or replace function gdpr_internal.block_subject(p_subject bigint, p_reason text)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_blocked integer;
begin
  insert into gdpr_internal.identifier (digest, kind, blocked_at, block_reason)
  select distinct i.bare_digest, i.kind, statement_timestamp(), p_reason
  from gdpr_internal.identifier as i
  where i.subject_id = p_subject and i.bare_digest is not null
  on conflict (digest) do nothing;
  update gdpr_internal.identifier as i
  set subject_id = null, bare_digest = null, retired_at = null, blocked_at = statement_timestamp(), block_reason = p_reason
  where i.subject_id = p_subject;
  get diagnostics v_blocked = row_count;
  return v_blocked;
end
$function$;
comment on function gdpr_internal.block_subject(bigint, text) is 'Turns a person''s identifiers, and their addresses without plus-tags, into blocked ones; returns how many.';

create or replace function gdpr.erase(p_subject bigint, p_reason text default 'erasure request')
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_table record;
  v_before text;
  v_changed bigint;
  v_kept bigint;
  v_kept_all bigint := 0;
  v_tables jsonb := '[]';
  v_receipt jsonb;
  v_key_destroyed boolean := false;
  v_identifiers integer;
begin
  perform gdpr_internal.require_read_committed();
  if p_reason is null then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  -- before the person, as a confirmation locks them
  perform from gdpr_internal.registration as r
  join gdpr_internal.identifier as i on i.digest = r.address
  where i.subject_id = p_subject
  order by r.id
  for update of r;
  -- whoever is inserting rows of this person holds a share lock here or on an identifier: they are waited for
  perform from gdpr_internal.subject as s where s.id = p_subject for update;
  if not found then
    perform gdpr_internal.refuse('unknown_subject');
  end if;
  select e.receipt into v_receipt from gdpr_internal.erasure_record as e where e.subject_id = p_subject;
  if found then
    return v_receipt;
  end if;
  perform gdpr_internal.forget_mails(p_subject);
  delete from gdpr_internal.token as t where t.subject_id = p_subject;
  v_identifiers := gdpr_internal.block_subject(p_subject, 'erased');
  update gdpr_internal.subject as s
  set erased_at = statement_timestamp(), ref = gen_random_uuid(), purposes = 1::bigint << 62, until = 'infinity'
  where s.id = p_subject;

  for v_table in
    select
      t.id, t.relation,
      gdpr_internal.erasure_method(t.definition) as method,
      t.definition -> 'erase' ->> 'keep_until' as keep_until
    from gdpr_internal.protected_table as t
    where t.unprotected_at is null
    order by t.depth desc, t.id
  loop
    -- the generated function's name comes from the register
    v_before := gdpr_internal.before_worker();
    execute format('select * from gdpr_generated.%I($1)', 'erase_' || v_table.id)
    into v_changed, v_kept
    using p_subject;
    perform gdpr_internal.after_worker(v_before);
    v_kept_all := v_kept_all + v_kept;
    v_tables := v_tables || jsonb_strip_nulls(jsonb_build_object(
      'table', v_table.relation::text, 'method', v_table.method, 'rows', v_changed,
      'kept', nullif(v_kept, 0), 'kept_for', case when v_kept > 0 then v_table.keep_until end
    ));
  end loop;

  if v_kept_all = 0 then
    v_key_destroyed := gdpr_internal.destroy_key(p_subject);
  end if;
  v_receipt := jsonb_build_object(
    'subject', p_subject,
    'erased_at', statement_timestamp(),
    'tables', v_tables,
    'identifiers_blocked', v_identifiers,
    'key_destroyed', v_key_destroyed
  );
  insert into gdpr_internal.erasure_record (subject_id, reason, receipt) values (p_subject, p_reason, v_receipt);
  perform gdpr_internal.audit_event('ERASE', p_subject, v_receipt - 'subject');
  return v_receipt;
end
$function$;
comment on function gdpr.erase(bigint, text) is
  'Erases a person: rows of every protected table are deleted or anonymised, children first; identifiers are blocked; the data key is destroyed unless a retention period keeps rows (those are restricted). Returns a receipt without values; asked twice it gives the first one. The planner''s statistics keep sample values of plaintext columns until the next ANALYZE (gdprdb subject erase runs it). Errors: PR101 unknown person, PR005 not at READ COMMITTED. Art. 17.';

create or replace view gdpr.erasure_ledger as
select e.id, e.subject_id, e.reason, e.erased_at, e.recorded_by, e.receipt
from gdpr_internal.erasure_record as e;
comment on view gdpr.erasure_ledger is 'Persons erased: number, time, reason, receipt. No values. Art. 17, Art. 5(2).';

create or replace function gdpr.subjects_of(p_table regclass, p_keys text[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint;
  v_before text;
  v_subjects bigint[];
begin
  select t.id into v_table from gdpr_internal.protected_table as t where t.relation = p_table and t.unprotected_at is null;
  if v_table is null then
    perform gdpr_internal.refuse('not_protected');
  end if;
  v_before := gdpr_internal.before_worker();
  execute format('select gdpr_generated.%I($1)', 'subjects_of_' || v_table) into v_subjects using p_keys;
  perform gdpr_internal.after_worker(v_before);
  return coalesce(v_subjects, '{}');
end
$function$;
comment on function gdpr.subjects_of(regclass, text[]) is
  'The persons to whom rows belong, each once, by the rows'' primary keys as text (several columns: a JSON array of texts); keys without a row, and rows of nobody, count for nothing. Errors: PR002 not protected, PR004 key of the wrong type, PR408 no primary key.';

create or replace function gdpr.subject_of(p_table regclass, p_key text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (gdpr.subjects_of(p_table, array[p_key]))[1];
end
$function$;
comment on function gdpr.subject_of(regclass, text) is
  'The person a row belongs to, by the row''s primary key as text (several columns: a JSON array of texts); null when there is no such row. Errors: PR002 not protected, PR004 key of the wrong type, PR408 no primary key.';
