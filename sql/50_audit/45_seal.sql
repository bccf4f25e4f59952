-- [code] Sealing: the records of transactions that have ended are closed into a Merkle tree, each seal chained to the one before.
-- GDPR Art. 5(2), Art. 32(1)(b). Called by: gdpr_admin, gdprdb audit seal.

set local role gdpr_owner;

create or replace function gdpr_internal.seal_text(p_seal gdpr_internal.audit_seal)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
begin atomic
  select format(
    'gdprdb/1/seal/%s/%s/%s/%s/%s/%s/%s/%s/%s/%s/%s/%s/%s/%s/%s',
    p_seal.id, p_seal.place, p_seal.month, p_seal.from_xid, p_seal.below_xid, p_seal.records, p_seal.first_id, p_seal.last_id,
    encode(p_seal.root, 'hex'), encode(p_seal.leaves, 'hex'), encode(p_seal.catalog, 'hex'), p_seal.sealed_at, p_seal.own_xid, p_seal.seen_id,
    encode(p_seal.previous, 'hex')
  );
end;
comment on function gdpr_internal.seal_text(gdpr_internal.audit_seal) is 'A seal as the text whose SHA-256 is its hash.';

create or replace function gdpr_internal.seal_part(p_seal gdpr_internal.audit_seal, p_after bigint)
returns gdpr_internal.audit_seal
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_block record;
  v_hash bytea;
  v_hashes bytea := '';
  v_short bytea;
  v_leaves bytea := '';
begin
  p_seal.id := p_seal.id + 1;
  p_seal.records := 0;
  p_seal.first_id := null;
  p_seal.last_id := null;
  for v_block in
    select * from gdpr_internal.leaf_blocks(p_seal.place, p_seal.month, p_seal.from_xid, p_seal.below_xid, p_after, 9223372036854775807) as b
  loop
    v_hash := gdpr_internal.tree_hash(v_block.leaves);
    v_hashes := v_hashes || v_hash;
    v_short := gdpr_internal.short_leaves(v_block.leaves);
    v_leaves := v_leaves || sha256(v_short);
    insert into gdpr_internal.audit_block (seal_id, block, hash, leaves) values (p_seal.id, v_block.block, v_hash, v_short)
    on conflict do nothing;
    p_seal.records := p_seal.records + v_block.records;
    p_seal.first_id := least(p_seal.first_id, v_block.first_id);
    p_seal.last_id := greatest(p_seal.last_id, v_block.last_id);
  end loop;
  if p_seal.records = 0 and p_after is not null then
    -- a month between others in which nothing was written
    p_seal.id := p_seal.id - 1;
    return p_seal;
  end if;
  p_seal.root := gdpr_internal.tree_hash(v_hashes);
  p_seal.leaves := sha256(v_leaves);
  p_seal.hash := sha256(convert_to(gdpr_internal.seal_text(p_seal), 'UTF8'));
  insert into gdpr_internal.audit_seal select p_seal.* on conflict do nothing;
  -- the next seal follows this one
  p_seal.previous := p_seal.hash;
  return p_seal;
end
$function$;
comment on function gdpr_internal.seal_part(gdpr_internal.audit_seal, bigint) is
  'The next seal after p_seal: over the records that p_seal names by place, month and transactions, and that have numbers above p_after; none where there are no records. p_after null: over no records, for the catalog alone.';

create or replace function gdpr_internal.seen_before(p_xid xid8)
returns bigint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce((
    select case when s.seen_id <= q.last_value then s.seen_id end
    from gdpr_internal.audit_seal as s
    -- what is numbered from below again, or is said to be numbered higher than anything is, must not escape the next seal
    cross join gdpr_internal.audit_record_id_seq as q
    where s.own_xid <= p_xid and s.place = (select gdpr_internal.here()) and s.seen_id is not null
    order by s.id desc
    limit 1
  ), 0);
end;
comment on function gdpr_internal.seen_before(xid8) is
  'A number that every record of the transactions from p_xid on exceeds, as former seals have seen it: there the search for what is not sealed begins. 0 where the numbers do not go that far: they were set back.';

create or replace function gdpr_internal.unsealed(p_below xid8)
returns table (place oid, month date, from_xid xid8, below_xid xid8, after_id bigint)
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
    select s.place, max(s.below_xid) as below
    from gdpr_internal.audit_seal as s
    group by s.place
  ),
  here as (
    select
      coalesce((select s.below from sealed as s where s.place = (select gdpr_internal.here())), '0') as from_xid,
      (
        select s.place from gdpr_internal.audit_seal as s order by s.id desc limit 1
      ) is not distinct from (select gdpr_internal.here()) as settled
  ),
  part as (
    -- what was written before a restore is whole, and is closed once
    select
      a.place, coalesce(s.below, '0') as from_xid, '18446744073709551615'::xid8 as below_xid, 0::bigint as after_id, min(a.at) as since, max(a.at) as until
    from gdpr_internal.audit_record as a
    left join sealed as s on s.place = a.place
    where not (select h.settled from here as h)
      and a.place <> (select gdpr_internal.here()) and a.xid >= coalesce(s.below, '0')
    group by a.place, s.below
    union all
    select a.place, h.from_xid, p_below, h.after_id, min(a.at), max(a.at)
    from (select g.from_xid, gdpr_internal.seen_before(g.from_xid) as after_id from here as g offset 0) as h
    join gdpr_internal.audit_record as a on a.id > h.after_id
      and a.place = (select gdpr_internal.here()) and a.xid >= h.from_xid and a.xid < p_below
    group by a.place, h.from_xid, h.after_id
  )
  select p.place, m.month::date, p.from_xid, p.below_xid, p.after_id
  from part as p
  cross join lateral generate_series(date_trunc('month', p.since), p.until, interval '1 month') as m (month)
  order by p.place = (select gdpr_internal.here()), p.place, m.month;
end;
comment on function gdpr_internal.unsealed(xid8) is
  'What there is to seal, by place and month (UTC): records of transactions that had ended before p_below, and all that are left from before a restore.';

create or replace function gdpr.seal_audit()
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  -- looked at before this transaction has a number: later ones, and it, give their records higher numbers than the last one seen
  v_fresh boolean := pg_current_xact_id_if_assigned() is null;
  v_seen bigint := (select case when s.is_called then s.last_value else 0 end from gdpr_internal.audit_record_id_seq as s);
  v_last gdpr_internal.audit_seal;
  v_seal gdpr_internal.audit_seal;
  v_part record;
  v_objects text[];
  v_records bigint := 0;
begin
  -- one at a time; who writes records never waits for it
  lock table gdpr_internal.audit_seal in share row exclusive mode;
  select * into v_last from gdpr_internal.audit_seal as s order by s.id desc limit 1;
  v_objects := gdpr_internal.catalog_objects();
  v_seal.id := coalesce(v_last.id, 0);
  v_seal.previous := coalesce(v_last.hash, '');
  v_seal.catalog := gdpr_internal.objects_fingerprint(v_objects);
  v_seal.sealed_at := clock_timestamp();
  v_seal.own_xid := pg_current_xact_id();
  v_seal.seen_id := case when v_fresh then v_seen end;
  insert into gdpr_internal.audit_catalog (fingerprint, objects) values (v_seal.catalog, v_objects) on conflict do nothing;
  for v_part in select * from gdpr_internal.unsealed(pg_snapshot_xmin(pg_current_snapshot())) loop
    v_seal.place := v_part.place;
    v_seal.month := v_part.month;
    v_seal.from_xid := v_part.from_xid;
    v_seal.below_xid := v_part.below_xid;
    v_seal := gdpr_internal.seal_part(v_seal, v_part.after_id);
    v_records := v_records + v_seal.records;
  end loop;
  if v_records = 0 and v_seal.catalog is distinct from v_last.catalog then
    -- nobody changed data, somebody changed what protects them
    v_seal.place := gdpr_internal.here();
    v_seal.month := date_trunc('month', statement_timestamp() at time zone 'UTC');
    v_seal.from_xid := coalesce(
      (select max(s.below_xid) from gdpr_internal.audit_seal as s where s.place = (select gdpr_internal.here())), '0');
    v_seal.below_xid := v_seal.from_xid;
    v_seal := gdpr_internal.seal_part(v_seal, null);
  end if;
  return v_records;
end
$function$;
comment on function gdpr.seal_audit() is
  'Seals the audit records of all transactions that had ended when this one began, and what protects personal data in the catalog as it stands now; returns how many records. A transaction that stays open keeps its records, and those of all that came after it, out of the seal; gdpr.audit_lag shows it. Any isolation level; writers never wait. Error: 40001 another session sealed meanwhile (REPEATABLE READ and above). Art. 5(2), Art. 32(1)(b).';
