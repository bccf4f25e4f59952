-- [code] Verification: every sealed record is there as it was, and the seals are those that a checkpoint has seen.
-- GDPR Art. 5(2), Art. 32(1)(d). Called by: auditors. gdprdb audit verify computes the same outside of the database.

set local role gdpr_owner;

create or replace view gdpr.audit_seal as
select
  s.id,
  s.sealed_at,
  s.month,
  s.records,
  s.first_id,
  s.last_id,
  s.from_xid,
  s.below_xid,
  s.place,
  encode(s.root, 'hex') as root,
  encode(s.catalog, 'hex') as catalog,
  encode(s.previous, 'hex') as previous,
  encode(s.hash, 'hex') as hash,
  s.catalog is distinct from lag(s.catalog) over w as catalog_changed,
  encode(s.leaves, 'hex') as leaves,
  s.own_xid,
  s.seen_id
from gdpr_internal.audit_seal as s
window w as (order by s.id);
comment on view gdpr.audit_seal is
  'The seals over the audit records, each chained to the one before by its hash. catalog_changed: what protects personal data was changed since the previous seal; gdpr.audit_catalog_changes(id) names it. leaves: the hash over what tells which record it is that no longer fits (gdpr.audit_block). own_xid, seen_id: the transaction that sealed, and the last number a record had before. Art. 5(2).';

create or replace view gdpr.audit_block as
select b.seal_id as seal, b.block, b.leaves
from gdpr_internal.audit_block as b;
comment on view gdpr.audit_block is
  'The first 8 bytes of the hash of each record of a seal, in blocks of 65,536: where a root no longer fits, they tell which record it is.';

create or replace view gdpr.audit_catalog as
select encode(c.fingerprint, 'hex') as catalog, c.objects, c.recorded_at
from gdpr_internal.audit_catalog as c;
comment on view gdpr.audit_catalog is
  'What protects personal data in the catalog, as seals found it (gdpr.audit_seal.catalog): each object by name, with the first bytes of the hash of its definition. catalog is SHA-256 over these lines, as UTF-8 with line feeds between them. gdpr.audit_catalog_changes() compares them. Art. 32(1)(d).';

create or replace view gdpr.audit_leaf as
select l.place, date_trunc('month', l.at at time zone 'UTC')::date as month, l.at, l.xid, l.id, l.record
from gdpr_internal.audit_leaf as l;
comment on view gdpr.audit_leaf is
  'Audit records as the text that is sealed (set TimeZone to UTC, DateStyle to ISO and bytea_output to hex): values are ciphertext. For verification outside of the database.';

create or replace function gdpr.audit_lag()
returns table (unsealed bigint, waiting bigint, oldest timestamptz, last_seal bigint, last_sealed_at timestamptz)
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set jit = off
begin atomic
  with
  here as (
    select coalesce(max(s.below_xid) filter (where s.place = (select gdpr_internal.here())), '0') as from_xid, max(s.id) as last_seal, max(s.sealed_at) as last_sealed_at
    from gdpr_internal.audit_seal as s
  )
  select
    count(a.id), count(a.id) filter (where a.xid >= pg_snapshot_xmin(pg_current_snapshot())), min(a.at), h.last_seal, h.last_sealed_at
  from here as h
  left join gdpr_internal.audit_record as a on a.id > gdpr_internal.seen_before(h.from_xid)
    and a.place = (select gdpr_internal.here()) and a.xid >= h.from_xid
  group by h.last_seal, h.last_sealed_at;
end;
comment on function gdpr.audit_lag() is
  'How many audit records are not sealed yet, since when, and how many of them wait for a transaction that is still open; the last seal. Art. 5(2).';

create or replace function gdpr.audit_catalog_changes(p_seal bigint default null)
returns table (object text, change text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set jit = off
begin atomic
  with
  compared as (
    select
      case when p_seal is null then gdpr_internal.catalog_objects() else (
        select c.objects from gdpr_internal.audit_catalog as c
        join gdpr_internal.audit_seal as s on s.catalog = c.fingerprint
        where s.id = p_seal
      ) end as new_objects,
      (
        select f.objects from gdpr_internal.audit_catalog as f
        join gdpr_internal.audit_seal as t on t.catalog = f.fingerprint
        where t.id < coalesce(p_seal, 9223372036854775807)
        order by t.id desc limit 1
      ) as old_objects
  ),
  line as (
    select left(u.line, -17) as name, right(u.line, 16) as new_definition, null::text as old_definition
    from compared as k cross join lateral unnest(k.new_objects) as u (line)
    union all
    select left(u.line, -17), null, right(u.line, 16)
    from compared as k cross join lateral unnest(k.old_objects) as u (line)
  )
  select l.name, case when count(l.old_definition) = 0 then 'added' when count(l.new_definition) = 0 then 'removed' else 'changed' end
  from line as l
  group by l.name
  having array_agg(l.new_definition order by l.new_definition) filter (where l.new_definition is not null)
    is distinct from array_agg(l.old_definition order by l.old_definition) filter (where l.old_definition is not null)
  order by l.name;
end;
comment on function gdpr.audit_catalog_changes(bigint) is
  'What protects personal data and was added, removed or changed between a seal and the one before it; without a number, since the last seal. Art. 32(1)(d).';

create or replace function gdpr.audit_checkpoint()
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
begin atomic
  select jsonb_build_object(
    'gdprdb_checkpoint', 1, 'seal', s.id, 'hash', encode(s.hash, 'hex'), 'sealed_at', s.sealed_at,
    'records', (select sum(r.records) from gdpr_internal.audit_seal as r)
  )
  from gdpr_internal.audit_seal as s
  order by s.id desc
  limit 1;
end;
comment on function gdpr.audit_checkpoint() is
  'The last seal as a checkpoint: kept outside, best signed (gdprdb audit checkpoint), it shows later that nothing before it was changed. Null before the first seal. No personal data. Art. 5(2).';

create or replace function gdpr_internal.verify_chain(p_checkpoint jsonb)
returns table (seal bigint, record bigint, finding text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set jit = off
begin atomic
  with chain as (
    select
      s.id, s.hash, s.previous, row_number() over w as n, lag(s.hash, 1, ''::bytea) over w as before,
      sha256(convert_to(gdpr_internal.seal_text(s), 'UTF8')) as computed
    from gdpr_internal.audit_seal as s
    window w as (order by s.id)
  )
  (
    select c.id, null::bigint, case
      when c.id <> c.n then 'a seal before it is missing'
      when c.computed <> c.hash then 'the seal was changed'
      else 'it does not follow the seal before it'
    end
    from chain as c
    where c.id <> c.n or c.computed <> c.hash or c.previous <> c.before
    order by c.id
    limit 1
  )
  union all
  select
    (p_checkpoint ->> 'seal')::bigint, null,
    case when s.id is null then 'the seal of the checkpoint is missing: seals were cut off, or the database is older' else 'it is not the seal of the checkpoint' end
  from (values (1)) as one
  left join gdpr_internal.audit_seal as s on s.id = (p_checkpoint ->> 'seal')::bigint
  where p_checkpoint is not null and encode(s.hash, 'hex') is distinct from p_checkpoint ->> 'hash'
  union all
  select min(s.id), null, 'what the seal found in the catalog was changed'
  from gdpr_internal.audit_seal as s
  left join gdpr_internal.audit_catalog as c on c.fingerprint = s.catalog
  where gdpr_internal.objects_fingerprint(c.objects) is distinct from s.catalog
  group by s.catalog
  union all
  (
    select s.id, null, case when s.sealed_at > clock_timestamp() + interval '1 day' then 'the seal is dated after today' else 'the seal is of transactions that have not been' end
    from gdpr_internal.audit_seal as s
    where s.sealed_at > clock_timestamp() + interval '1 day'
      or (s.place = (select gdpr_internal.here()) and s.below_xid > pg_snapshot_xmax(pg_current_snapshot()))
    order by s.id
    limit 1
  )
  union all
  (
    select n.seal, null, 'its records have numbers that had been given before'
    from (
      select e.seal, e.first_id, max(e.seen_id) over (partition by e.place order by e.xid, e.first_id nulls first rows unbounded preceding) as seen_id
      from (
        select s.place, s.own_xid as xid, s.seen_id, null::bigint as seal, null::bigint as first_id from gdpr_internal.audit_seal as s
        union all
        select s.place, s.from_xid, null, s.id, s.first_id from gdpr_internal.audit_seal as s where s.records > 0
      ) as e
    ) as n
    where n.first_id <= n.seen_id
    order by n.seal
    limit 1
  );
end;
comment on function gdpr_internal.verify_chain(jsonb) is
  'The first seal that does not follow the one before it, whether the seal of a checkpoint is the one there is, whether what seals found in the catalog is as they found it, and whether times, transactions and numbers of records are such as there can be.';

create or replace function gdpr_internal.verify_seal(p_seal gdpr_internal.audit_seal)
returns table (seal bigint, record bigint, finding text)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_block record;
  v_stored gdpr_internal.audit_block;
  v_hashes bytea := '';
  v_records bigint := 0;
  v_short bytea;
  v_place integer;
  v_kept boolean := p_seal.leaves = (
    select sha256(coalesce(string_agg(sha256(b.leaves), ''::bytea order by b.block), ''))
    from gdpr_internal.audit_block as b
    where b.seal_id = p_seal.id
  );
begin
  seal := p_seal.id;
  for v_block in
    select * from gdpr_internal.leaf_blocks(
      p_seal.place, p_seal.month, p_seal.from_xid, p_seal.below_xid, p_seal.first_id - 1, p_seal.last_id) as b
  loop
    v_hashes := v_hashes || gdpr_internal.tree_hash(v_block.leaves);
    v_records := v_records + v_block.records;
    select * into v_stored from gdpr_internal.audit_block as b where b.seal_id = p_seal.id and b.block = v_block.block;
    v_short := gdpr_internal.short_leaves(v_block.leaves);
    if finding is null and v_kept and v_stored.leaves is distinct from v_short then
      select min(n.i) into v_place
      from generate_series(0, v_block.records - 1) as n (i)
      where substr(v_short, 8 * n.i + 1, 8) is distinct from substr(v_stored.leaves, 8 * n.i + 1, 8);
      record := gdpr_internal.record_at(p_seal, v_block.block, coalesce(v_place, v_block.records));
      finding := 'from here on';
    end if;
  end loop;
  if gdpr_internal.tree_hash(v_hashes) = p_seal.root and v_records = p_seal.records then
    if not v_kept then
      finding := 'what tells which record no longer fits was changed';
      return next;
    end if;
    return;
  end if;
  finding := case
    when v_records < p_seal.records then format('%s of %s records are missing', p_seal.records - v_records, p_seal.records)
    when v_records > p_seal.records then format('%s records were added', v_records - p_seal.records)
    else 'records were changed'
  end || case when record is not null then ', first at this record' when not v_kept then ', and what tells which they are' else '' end;
  return next;
end
$function$;
comment on function gdpr_internal.verify_seal(gdpr_internal.audit_seal) is 'Nothing where the records of a seal are those it was made of; else what is wrong, and with which record it begins.';

create or replace function gdpr_internal.later_record(p_seal gdpr_internal.audit_seal)
returns table (seal bigint, record bigint, finding text)
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
begin atomic
  -- a day: clocks are put right
  select p_seal.id, min(a.id), 'the record is dated after its seal'
  from gdpr_internal.audit_record as a
  where p_seal.sealed_at + interval '1 day' < p_seal.month::timestamptz + interval '1 month'
    and a.place = p_seal.place and a.at > p_seal.sealed_at + interval '1 day'
    and a.at >= p_seal.month::timestamptz and a.at < p_seal.month::timestamptz + interval '1 month'
    and a.xid >= p_seal.from_xid and a.xid < p_seal.below_xid and a.id >= p_seal.first_id and a.id <= p_seal.last_id
  having min(a.id) is not null;
end;
comment on function gdpr_internal.later_record(gdpr_internal.audit_seal) is
  'The first record of a seal that is dated more than a day after it: nobody wrote it as it is.';

create or replace function gdpr_internal.record_at(p_seal gdpr_internal.audit_seal, p_block integer, p_place integer)
returns bigint
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
begin atomic
  select a.id
  from gdpr_internal.audit_record as a
  where a.place = p_seal.place and a.at >= p_seal.month::timestamptz and a.at < p_seal.month::timestamptz + interval '1 month'
    and a.xid >= p_seal.from_xid and a.xid < p_seal.below_xid and a.id >= p_seal.first_id and a.id <= p_seal.last_id
  order by a.xid, a.id
  offset p_block::bigint * 65536 + p_place
  limit 1;
end;
comment on function gdpr_internal.record_at(gdpr_internal.audit_seal, integer, integer) is 'The record that now stands at a place of a block of a seal; null where the block ends before.';

create or replace function gdpr_internal.verify_rest()
returns table (seal bigint, record bigint, finding text)
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set jit = off
begin atomic
  with
  sealed as (
    select s.place, max(s.below_xid) as below, max(s.seen_id) as seen_id from gdpr_internal.audit_seal as s group by s.place
  ),
  found as (
    select a.place, date_trunc('month', a.at)::date as month, count(*) as records
    from gdpr_internal.audit_record as a
    join sealed as s on s.place = a.place and a.xid < s.below
    group by a.place, date_trunc('month', a.at)
  ),
  wrong as (
    select f.place, f.month
    from found as f
    where f.records <> (select coalesce(sum(s.records), 0) from gdpr_internal.audit_seal as s where s.place = f.place and s.month = f.month)
  )
  (
    select null::bigint, a.id, 'the record was added behind the seals'
    from wrong as w
    join gdpr_internal.audit_record as a on a.place = w.place and date_trunc('month', a.at)::date = w.month
    join sealed as s on s.place = a.place and a.xid < s.below
    where not exists (
      select from gdpr_internal.audit_seal as t
      where t.place = a.place and t.month = w.month and a.xid >= t.from_xid and a.xid < t.below_xid and a.id between t.first_id and t.last_id
    )
    order by a.id
    limit 100
  )
  union all
  (
    select null, a.id, case
      when a.place <> (select gdpr_internal.here()) then 'the record is of a place that was closed'
      when a.xid >= pg_snapshot_xmax(pg_current_snapshot()) then 'the record is of a transaction that has not been'
      when a.at > clock_timestamp() + interval '1 day' then 'the record is dated after today'
      else 'the record has a number that was given before it: sealing may pass over it'
    end
    from gdpr_internal.audit_record as a
    left join sealed as s on s.place = a.place
    where (
      a.place = (select gdpr_internal.here()) and (a.xid >= s.below or s.below is null) and (
        a.xid >= pg_snapshot_xmax(pg_current_snapshot())
        or a.at > clock_timestamp() + interval '1 day'
        or (
          a.id <= s.seen_id
          and a.id <= (select max(t.seen_id) from gdpr_internal.audit_seal as t where t.place = a.place and t.own_xid <= a.xid)
        )
      )
    ) or (
      a.place <> (select gdpr_internal.here()) and (a.xid >= s.below or s.below is null)
      and exists (select from sealed as h where h.place = (select gdpr_internal.here()))
    )
    order by a.id
    limit 100
  );
end;
comment on function gdpr_internal.verify_rest() is
  'Records that no seal holds and none can hold any more: added after it was made, or with numbers, times, transactions or lives of the database that there were not. The first hundred of each.';

create or replace function gdpr_internal.verify_drops(p_before date, p_checkpoint jsonb)
returns table (seal bigint, record bigint, finding text)
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
begin atomic
  (
    select null::bigint, a.id, 'the record is of a month that was dropped'
    from gdpr_internal.audit_record as a
    where a.at < p_before::timestamptz
    order by a.id
    limit 100
  )
  union all
  select null, d.record, case
    when d.too_early then 'the record drops months before their time'
    else 'the record drops months that were kept when the checkpoint was made: audit_retain is younger than it'
  end
  from gdpr.audit_dropped as d
  where d.too_early or (
    coalesce(d.seal > (p_checkpoint ->> 'seal')::bigint, p_checkpoint is not null)
    and (d.before <= d.dropped_at at time zone 'UTC' - gdpr_internal.sealed_retain((p_checkpoint ->> 'seal')::bigint)) is not true
  );
end;
comment on function gdpr_internal.verify_drops(date, jsonb) is
  'What does not agree with the records that months were dropped: without this, such a record would hide what was changed in them. The first hundred.';

create or replace function gdpr.verify_audit(p_checkpoint jsonb default null)
returns table (seal bigint, record bigint, finding text)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_seal gdpr_internal.audit_seal;
  v_before date := gdpr_internal.dropped_before();
  v_drop record;
begin
  if p_checkpoint is not null and (
    jsonb_typeof(p_checkpoint) <> 'object' or coalesce(p_checkpoint ->> 'gdprdb_checkpoint', '') <> '1'
    or coalesce(p_checkpoint ->> 'seal', '') !~ '^[0-9]{1,18}$'
  ) then
    perform gdpr_internal.refuse('checkpoint_invalid');
  end if;
  for v_drop in
    select d.record, d.before, d.dropped_at, d.login
    from gdpr.audit_dropped as d
    where not d.too_early and coalesce(d.seal > coalesce((p_checkpoint ->> 'seal')::bigint, 0), true)
    order by d.record
  loop
    raise notice 'audit records before % were dropped on % by %: record %', v_drop.before, v_drop.dropped_at::date, v_drop.login, v_drop.record;
  end loop;
  return query select * from gdpr_internal.verify_chain(p_checkpoint);
  for v_seal in select * from gdpr_internal.audit_seal as s where s.records > 0 and s.month >= v_before order by s.id loop
    return query select * from gdpr_internal.verify_seal(v_seal);
    return query select * from gdpr_internal.later_record(v_seal);
  end loop;
  return query select * from gdpr_internal.verify_drops(v_before, p_checkpoint);
  return query select * from gdpr_internal.verify_rest();
end
$function$;
comment on function gdpr.verify_audit(jsonb) is
  'Recomputes every seal from the audit records as they are, and compares: no rows where all is as it was sealed, else what is wrong, with the first seal and record. p_checkpoint: one that gdpr.audit_checkpoint() gave earlier and that was kept outside; without it, who rules the database could have sealed everything anew. Months that were dropped since the checkpoint are told as a notice each; they are a finding where the audit_retain that the checkpoint has sealed keeps them. Records not sealed yet cannot be verified. Error: PR501 no checkpoint. Art. 5(2), Art. 32(1)(d).';
