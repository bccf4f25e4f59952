-- [code] Retention of the audit itself: whole sealed months go, their seals stay.
-- GDPR Art. 5(1)(e). Called by: gdpr_admin, gdprdb audit drop; pg_cron through gdpr.schedule_jobs().

set local role gdpr_owner;

create or replace function gdpr_internal.drops()
returns setof gdpr_internal.audit_record
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select a.*
  from gdpr_internal.audit_record as a
  where a.subject_id is null and a.operation = 'AUDIT_DROP' and a.table_id is null;
end;
comment on function gdpr_internal.drops() is
  'The records that say that audit records of all months before {"before"} were dropped. Such a record is younger than what it tells of: the last one is never among what is dropped.';

create or replace function gdpr_internal.sealed_retain(p_seal bigint)
returns interval
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- what is younger than a year is never due
  select greatest(substring(o.line from '^audit_retain (.*) [0-9a-f]{16}$')::interval, interval '1 year')
  from gdpr_internal.audit_seal as s
  join gdpr_internal.audit_catalog as c on c.fingerprint = s.catalog
  cross join lateral unnest(c.objects) as o (line)
  where s.id = p_seal and o.line ~ '^audit_retain .* [0-9a-f]{16}$';
end;
comment on function gdpr_internal.sealed_retain(bigint) is
  'How long audit records were kept when a seal was made, by what it found in the catalog; null where for ever.';

create or replace view gdpr.audit_dropped as
select
  a.id as record, d.before, a.at as dropped_at, a.login, d.records, o.id as seal, k.retain,
  (
    d.before <= (a.at at time zone 'UTC') - k.retain
    and a.at <= least(clock_timestamp(), o.sealed_at) + interval '1 day'
  ) is not true as too_early
from gdpr_internal.drops() as a
cross join lateral (
  -- nothing but what is a day and a number: the record may be forged
  select
    substring(a.payload from '"before": ?"([1-9][0-9]{3}-(?:0[1-9]|1[0-2])-01)"')::date as before,
    substring(a.payload from '"records": ?([0-9]{1,18})\M')::bigint as records
) as d
left join lateral (
  select s.id, s.sealed_at
  from gdpr_internal.audit_seal as s
  where s.place = a.place and s.month = date_trunc('month', a.at at time zone 'UTC')::date
    and a.xid >= s.from_xid and a.xid < s.below_xid and a.id between s.first_id and s.last_id
  order by s.from_xid desc
  limit 1
) as o on true
left join lateral (
  select gdpr_internal.sealed_retain(s.id) as retain
  from gdpr_internal.audit_seal as s
  where s.sealed_at <= a.at and s.id < coalesce(o.id, 9223372036854775807)
  order by s.id desc
  limit 1
) as k on true;
comment on view gdpr.audit_dropped is
  'Audit records that were dropped when their time was over: those of all months (UTC) before a day, when, by which login, how many; the seal over the record that says so (null: not sealed yet), and how long records were kept by the seal before. Their seals are still there. too_early: no policy that was sealed before allows this, or it is dated after its seal: somebody has made the record. Art. 5(1)(e), Art. 5(2).';

create or replace function gdpr_internal.dropped_before()
returns date
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(max(d.before), '-infinity') from gdpr.audit_dropped as d where not d.too_early;
end;
comment on function gdpr_internal.dropped_before() is 'The first day of which audit records are there.';

create or replace function gdpr_internal.droppable_months(p_before date)
returns table (month date, partition regclass)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select m.month, m.partition
  from (
    select to_date(right(c.relname, 7), 'YYYY_MM') as month, i.inhrelid::regclass as partition
    from pg_inherits as i
    join pg_class as c on c.oid = i.inhrelid
    where i.inhparent = 'gdpr_internal.audit_record'::regclass and c.relname ~ '^audit_record_[0-9]{4}_[0-9]{2}$'
  ) as m
  where m.month < p_before
  order by m.month;
end;
comment on function gdpr_internal.droppable_months(date) is 'The monthly partitions of the audit before a day.';

create or replace function gdpr_internal.drop_day()
returns date
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
begin atomic
  select date_trunc('month', statement_timestamp() - (s.value #>> '{}')::interval)::date
  from gdpr_internal.setting as s
  where s.name = 'audit_retain';
end;
comment on function gdpr_internal.drop_day() is 'The day before which audit records are no longer kept, by settings.audit_retain; null without it.';

create or replace function gdpr.due_audit(p_before date default null)
returns table (month date, records bigint)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select m.month, coalesce(sum(s.records), 0)::bigint
  from gdpr_internal.droppable_months(coalesce(p_before, gdpr_internal.drop_day())) as m
  left join gdpr_internal.audit_seal as s on s.month = m.month
  group by m.month
  order by m.month;
end;
comment on function gdpr.due_audit(date) is
  'The months of audit records, and how many are sealed in each, that gdpr.drop_audit(p_before) would drop. Art. 5(1)(e).';

create or replace function gdpr_internal.drop_refusal(p_before date)
returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_retain interval := (select (s.value #>> '{}')::interval from gdpr_internal.setting as s where s.name = 'audit_retain');
  v_seal gdpr_internal.audit_seal;
begin
  if v_retain is null then
    return 'the policy has no settings.audit_retain';
  elsif p_before <> date_trunc('month', p_before) or p_before > statement_timestamp() - v_retain then
    return format('only whole months (UTC) that ended %s ago', v_retain);
  elsif (
    select gdpr_internal.sealed_retain(s.id) from gdpr_internal.audit_seal as s order by s.id desc limit 1
  ) is distinct from v_retain then
    return 'no seal holds this settings.audit_retain yet: gdpr.seal_audit()';
  elsif exists (select from gdpr_internal.audit_record_rest as a where a.at < p_before::timestamptz) then
    return 'there are records in gdpr_internal.audit_record_rest, of months that have no partition: gdpr.tidy()';
  end if;
  for v_seal in
    select * from gdpr_internal.audit_seal as s where s.month < p_before and s.month >= gdpr_internal.dropped_before() and s.records > 0 order by s.id
  loop
    if exists (select from gdpr_internal.verify_seal(v_seal)) then
      return format('records are not as they were sealed, seal %s: gdpr.verify_audit()', v_seal.id);
    end if;
  end loop;
  if (select count(*) from gdpr_internal.audit_record as a where a.at < p_before::timestamptz) <> (
    select coalesce(sum(s.records), 0) from gdpr_internal.audit_seal as s where s.month < p_before and s.month >= gdpr_internal.dropped_before()
  ) then
    return 'records are not sealed yet: gdpr.seal_audit()';
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.drop_refusal(date) is
  'Why audit records before a day cannot be dropped; null where they can: their time is over by a setting that is sealed, all are sealed, and all are as they were sealed.';

create or replace function gdpr.drop_audit(p_before date default null)
returns table (month date, records bigint)
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
  v_before date := coalesce(p_before, gdpr_internal.drop_day());
  v_months date[];
  v_counts bigint[];
  v_partition regclass;
  v_refusal text;
  v_begun boolean;
begin
  -- nobody seals meanwhile, and nobody else drops
  lock table gdpr_internal.audit_seal in share row exclusive mode;
  v_refusal := gdpr_internal.drop_refusal(v_before);
  if v_refusal is not null then
    perform gdpr_internal.refuse('audit_kept', v_refusal);
  end if;
  select array_agg(d.month), array_agg(d.records) into v_months, v_counts from gdpr.due_audit(v_before) as d;
  if v_months is null then
    return;
  end if;
  v_begun := gdpr_internal.begin_change('drop audit records');
  for v_partition in select m.partition from gdpr_internal.droppable_months(v_before) as m loop
    execute format('drop table %s', v_partition);
  end loop;
  perform gdpr_internal.end_change(v_begun);
  perform gdpr_internal.audit_event('AUDIT_DROP', null, jsonb_build_object(
    'before', v_before, 'records', (select sum(u.n) from unnest(v_counts) as u (n)),
    'retain', (select s.value from gdpr_internal.setting as s where s.name = 'audit_retain')
  ));
  return query select * from unnest(v_months, v_counts);
end
$function$;
comment on function gdpr.drop_audit(date) is
  'Drops the audit records of whole months (UTC) before p_before (without it: all whose time by settings.audit_retain is over), on record; returns how many of each month. The months have to be sealed, and to be as they were sealed. Their seals stay: verification and checkpoints hold. Writers wait for a moment, at the most two seconds. Errors: PR502 no setting, too early, not sealed or altered; 55P03 the lock was not to be had, try again. Art. 5(1)(e).';
