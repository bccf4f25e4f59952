-- [code] Backfill: existing rows of a table that is being enabled, a range of blocks after the other.
-- GDPR Art. 25. Called by: gdprdb policy apply --batches, or psql with \watch.

set local role gdpr_owner;

create or replace function gdpr_internal.enabling_work(
  p_role name, p_relation regclass, out state text, out sweep integer, out condition text, out as_replica boolean, out switched text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
begin
  select e.state, e.sweep into state, sweep from gdpr_internal.enabling as e where e.table_id = v_id;
  if state in ('claiming', 'sealing') then
    perform gdpr_internal.require_all_rows(p_role, r.r) from gdpr_internal.relation_tree(p_relation) as r (r);
    condition := gdpr_internal.incomplete_code(v_id);
    select q.as_replica, q.switched into as_replica, switched from gdpr_internal.quiet_triggers(p_role, p_relation) as q;
  end if;
end
$function$;
comment on function gdpr_internal.enabling_work(name, regclass) is 'See gdpr_policy.enabling_work(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.enabling_work(
  p_relation regclass, out state text, out sweep integer, out condition text, out as_replica boolean, out switched text[]
)
language sql
stable
parallel safe
security invoker
begin atomic
  select w.state, w.sweep, w.condition, w.as_replica, w.switched from gdpr_internal.enabling_work(current_user, p_relation) as w;
end;
comment on function gdpr_policy.enabling_work(regclass) is
  'What there is to do in the enabling of a table: which rows (condition, SQL over row t), and how triggers of the application are kept quiet (gdpr_internal.quiet_triggers()).';

create or replace function gdpr.backfill(
  p_table regclass, p_blocks integer default 64,
  out rows bigint, out state text, out block bigint, out blocks bigint, out part regclass, out part_block bigint, out part_blocks bigint, out kept_out boolean
)
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_place record := gdpr_policy.take_blocks(p_table, p_blocks);
  v_work record := gdpr_policy.enabling_work(p_table);
  v_left boolean;
  v_trigger text;
  v_timeout text := current_setting('lock_timeout');
begin
  rows := 0;
  state := v_work.state;
  if v_work.condition is null then
    return;
  elsif v_place.leaf is null then
    state := case v_work.state when 'claiming' then 'claimed' else 'sealed' end;
    perform gdpr_policy.put_enabling(p_table, state);
    return;
  end if;
  part := v_place.leaf;
  part_block := v_place.block;
  part_blocks := v_place.leaf_blocks;
  block := v_place.passed + least(part_block, part_blocks);
  blocks := v_place.blocks;
  if v_place.mark is null then
    -- somebody switched the trigger off that keeps the shadows: on again, and once more from the beginning
    perform gdpr_policy.run_step(p_table, 'triggers');
    perform gdpr_policy.pass_leaf(p_table, part, null);
    return;
  elsif part_block >= part_blocks then
    -- all its rows were passed; that none is left is not believed but looked up, with no row locked meanwhile
    execute format('select exists (select from only %s as t where %s)', part, v_work.condition) into v_left;
    perform gdpr_policy.pass_leaf(p_table, part, case when not v_left then v_place.mark end);
    return;
  end if;
  perform set_config('gdpr.enabling', 'on', true);
  kept_out := v_work.switched <> '{}';
  if v_work.as_replica then
    perform set_config('session_replication_role', 'replica', true);
  elsif kept_out and current_setting('lock_timeout')::interval = '0' then
    -- a request that waits makes everybody behind it wait
    perform set_config('lock_timeout', '50ms', true);
  end if;
  foreach v_trigger in array v_work.switched loop
    execute format('alter table %s disable %s', p_table, regexp_replace(v_trigger, '^always ', ''));
  end loop;
  perform set_config('lock_timeout', v_timeout, true);
  execute format(
    'update only %1$s as t set gdpr_until = t.gdpr_until where t.ctid = any (array('
    'select t.ctid from only %1$s as t where t.ctid >= %2$L::tid and t.ctid < %3$L::tid and (%4$s) for no key update%5$s))',
    part, format('(%s,0)', part_block), format('(%s,0)', least(part_block + p_blocks, 4294967295)), v_work.condition,
    -- a row that somebody is changing is left to the next sweep, which waits for it
    case when v_work.sweep = 1 then ' skip locked' else '' end
  );
  get diagnostics rows = row_count;
  foreach v_trigger in array v_work.switched loop
    execute format('alter table %s enable %s', p_table, v_trigger);
  end loop;
  if v_work.as_replica then
    perform set_config('session_replication_role', 'origin', true);
  end if;
  perform set_config('gdpr.enabling', '', true);
  perform gdpr_policy.count_written(p_table, rows);
end
$function$;
comment on function gdpr.backfill(regclass, integer) is
  'Writes the next p_blocks blocks of a table that is being enabled, in this transaction: rows, written; state, of the enabling; block of blocks, where the sweep is; part, the partition in which it is (or the table itself), at part_block of its part_blocks; kept_out, whether writers were kept out of the table meanwhile (its triggers for any UPDATE were off, as the role may not set session_replication_role). Call it until state changes; stop at any time. Run as the owner of the table. Errors: PR002 not protected, PR008 row security hides rows, PR103 a row carries a blocked identifier, PR405 one looks like ciphertext. Art. 25.';

create or replace view gdpr.enabling as
select
  t.relation as table_name,
  e.state,
  e.sweep,
  l.passed + case when e.state in ('claiming', 'sealing') then least(e.block, l.part_blocks) else 0 end as block,
  l.blocks,
  e.done as rows,
  l.part,
  e.started_at,
  e.worked_at
from gdpr_internal.enabling as e
join gdpr_internal.protected_table as t on t.id = e.table_id
cross join lateral (
  select
    coalesce(sum(f.blocks), 0)::bigint as blocks,
    coalesce(sum(f.blocks) filter (where f.mark = e.passed ->> f.leaf::oid::text), 0)::bigint as passed,
    coalesce(max(f.blocks) filter (where f.leaf::oid = e.leaf), 0) as part_blocks,
    (array_agg(f.leaf) filter (where f.leaf::oid = e.leaf))[1] as part
  from gdpr_internal.enabling_leaves(e.table_id) as f
) as l;
comment on view gdpr.enabling is
  'Tables that are being enabled, and how far: state (begun, generated, claiming: persons; claimed, sealing: ciphertext; sealed, analysed), the block of blocks at which the sweep is, rows written in this state, the partition in which it is.';
