-- [code] Writing and reading audit records.
-- GDPR Art. 5(2), Art. 32(1)(d). Written by the generated triggers and by gdprdb's own functions; read by gdpr_dpo, gdpr_auditor.

set local role gdpr_keyholder;

create or replace function gdpr_internal.audit_event(p_operation text, p_subject bigint, p_details jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_role name := gdpr_internal.acting_role();
begin
  -- a transaction has its number before its records have theirs: gdpr.seal_audit() counts on it
  perform pg_current_xact_id();
  insert into gdpr_internal.audit_record (
    operation, subject_id, purpose_id, actor, request, role, application_name, payload
  )
  values (
    p_operation, p_subject,
    gdpr_generated.purpose_held(v_role, gdpr_internal.context_setting('purpose')),
    gdpr_internal.context_setting('actor'),
    gdpr_internal.context_setting('request'),
    v_role,
    nullif(current_setting('application_name'), ''),
    p_details::text
  );
end
$function$;
comment on function gdpr_internal.audit_event(text, bigint, jsonb) is
  'Records an event of gdprdb itself (policy, key, basis, consent, restriction, erasure, maintenance). p_details must not hold personal data.';

create or replace function gdpr_internal.note_maintenance()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if current_setting('transaction_read_only')::boolean then
    raise log 'gdprdb: purpose maintenance used by % in a read-only transaction', gdpr_internal.acting_role();
  elsif pg_current_xact_id_if_assigned() is null or not exists (
    select from gdpr_internal.audit_record as a
    where a.at >= transaction_timestamp() - interval '1 minute'
      and a.xid = pg_current_xact_id() and a.operation = 'MAINTENANCE'
  ) then
    perform gdpr_internal.audit_event('MAINTENANCE', null, '{}');
  end if;
end
$function$;
comment on function gdpr_internal.note_maintenance() is
  'One record for each transaction that uses purpose maintenance; a read-only transaction leaves a line in the server''s log instead.';

create or replace view gdpr.audit_log as
select
  a.id,
  a.at,
  a.xid,
  t.relation as table_name,
  a.operation,
  a.subject_id,
  a.row_key,
  p.name as purpose,
  a.actor,
  a.login,
  a.role,
  a.client_addr,
  a.application_name,
  a.request,
  a.changed,
  case
    when a.table_id is null or a.operation = 'READ' then a.payload::jsonb
    when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_changes(a.subject_id, a.payload)
  end as old,
  a.row_hash,
  a.table_id,
  a.purpose_id
from gdpr_internal.audit_record as a
left join gdpr_internal.protected_table as t on t.id = a.table_id
left join gdpr_internal.purpose as p on p.id = a.purpose_id;
comment on view gdpr.audit_log is
  'Audit records. operation: INSERT, UPDATE, DELETE of a protected row; MOVE beside an UPDATE that gave the row another primary key or person: the same change, under what it has now; READ of a table whose policy says audit_reads: a statement, with about how many rows and when; or an event of gdprdb (POLICY, KEY, BASIS, CONSENT, ERASE, ...). old: what the changed columns held before (for gdpr_dpo, until the person is erased), or the details of an event. row_key: keyed digest of the primary key. Records are found fast by subject_id, by id, and in months that are over by actor, row_key (select gdpr.audit_row_key(table, key)), table_id and purpose_id (gdpr.audit_table_id(), gdpr.audit_purpose_id()), best given as constants; a condition on at leaves out other months. Art. 5(2).';

create or replace view gdpr.source as
select
  s.id,
  s.subject_id,
  t.relation as table_name,
  s.event,
  s.kind,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(s.subject_id, s.details)::jsonb end as details,
  s.actor,
  s.recorded_at
from gdpr_internal.source as s
left join gdpr_internal.protected_table as t on t.id = s.table_id;
comment on view gdpr.source is
  'Where each row of personal data came from, and its changes as far as that was told (event created, changed; Art. 14(2)(f)); details are shown to gdpr_dpo, while the person is not erased.';

set local role gdpr_owner;

create or replace function gdpr_internal.append_only()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- the same evidence under the person's new key is no change; what is sealed stays as it is
  if tg_op = 'UPDATE' and coalesce(current_setting('gdpr.renewing', true), '') <> ''
    and not starts_with(tg_table_name, 'audit_') and gdpr_internal.is_renewed(to_jsonb(old), to_jsonb(new))
  then
    return new;
  end if;
  perform gdpr_internal.refuse('append_only', tg_table_name);
  return null;
end
$function$;
comment on function gdpr_internal.append_only() is
  'Refuses every change of evidence but one: the same text, encrypted under the key that the person has been given in this transaction. Error: 55000.';

create or replace function gdpr_internal.make_audit_partition(p_month timestamptz, p_fill boolean)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_name name := 'audit_record_' || to_char(p_month, 'YYYY_MM');
  v_until timestamptz := p_month + interval '1 month';
begin
  -- made apart and attached: writers do not wait
  execute format('create table gdpr_internal.%I (like gdpr_internal.audit_record including defaults)', v_name);
  if p_fill then
    -- DELETE and not TRUNCATE: what an older snapshot does not see stays, and the rest cannot be attached again
    execute format(
      'with moved as (delete from gdpr_internal.audit_record_rest as a where a.at >= %L and a.at < %L returning a.*) '
      'insert into gdpr_internal.%I select m.* from moved as m',
      p_month, v_until, v_name
    );
  end if;
  execute format(
    'alter table gdpr_internal.audit_record attach partition gdpr_internal.%I for values from (%L) to (%L)', v_name, p_month, v_until
  );
  execute format('comment on table gdpr_internal.%I is %L', v_name, 'Audit records of one month (UTC).');
  execute format('alter table gdpr_internal.%I enable row level security', v_name);
end
$function$;
comment on function gdpr_internal.make_audit_partition(timestamptz, boolean) is
  'Makes the partition of a month (UTC); p_fill: with the records of that month from the default partition, which is detached.';

create or replace function gdpr_internal.settle_audit_rest()
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
-- it locks out writers while it waits: rather give up, and try again another night
set lock_timeout = '2s'
as $function$
declare
  v_made integer;
begin
  alter table gdpr_internal.audit_record detach partition gdpr_internal.audit_record_rest;
  select count(gdpr_internal.make_audit_partition(m.month, true)) into v_made
  from (select distinct date_trunc('month', a.at) as month from gdpr_internal.audit_record_rest as a) as m;
  alter table gdpr_internal.audit_record attach partition gdpr_internal.audit_record_rest default;
  return v_made;
exception
  when lock_not_available then
    return 0;
end
$function$;
comment on function gdpr_internal.settle_audit_rest() is
  'Gives records of months for which no partition was made ahead their months, as they are: writers wait meanwhile. Returns how many months were made; 0 where the lock was not to be had.';

create or replace function gdpr_internal.make_audit_partitions(p_months integer default 3)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_month timestamptz;
  v_made integer := 0;
  v_begun boolean;
begin
  if exists (select from gdpr_internal.audit_record_rest) then
    v_begun := gdpr_internal.begin_change('audit partitions');
    v_made := gdpr_internal.settle_audit_rest();
  end if;
  for v_month in
    select generate_series(date_trunc('month', statement_timestamp()), statement_timestamp() + make_interval(months => p_months), '1 month')
  loop
    if to_regclass('gdpr_internal.audit_record_' || to_char(v_month, 'YYYY_MM')) is null
      and not exists (select from gdpr_internal.audit_record_rest as a where a.at >= v_month and a.at < v_month + interval '1 month')
    then
      v_begun := gdpr_internal.begin_change('audit partitions') or coalesce(v_begun, false);
      perform gdpr_internal.make_audit_partition(v_month, false);
      v_made := v_made + 1;
    end if;
  end loop;
  perform gdpr_internal.end_change(v_begun);
  return v_made;
end
$function$;
comment on function gdpr_internal.make_audit_partitions(integer) is
  'Makes the monthly partitions of this month and the next p_months, and of months whose records lie in the default partition; returns how many were missing.';
