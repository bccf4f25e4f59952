-- [code] The sweep over a table that is being enabled: leaf after leaf, in each a range of blocks after the other.
-- GDPR Art. 25. Called by: gdpr.backfill(), the steps of enabling.
--
-- The leaf of a plain table is the table. A partitioned one has its partitions, which come and go while it is being enabled: each has
-- a mark, and one whose mark is another than when it was passed may hold rows that were written past the triggers. It is swept again.

set local role gdpr_owner;

create or replace function gdpr_internal.enabling_leaves(p_table smallint)
returns table (leaf regclass, mark text, blocks bigint)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with recursive tree (relation, kind, mark) as (
    select c.oid, c.relkind, ''
    from gdpr_internal.protected_table as t
    join pg_class as c on c.oid = t.relation
    where t.id = p_table
    union all
    -- detached and attached again, it is another version of its row
    select c.oid, c.relkind, format('%s %s', t.mark, i.xmin)
    from tree as t
    join pg_inherits as i on i.inhparent = t.relation and not i.inhdetachpending
    join pg_class as c on c.oid = i.inhrelid
    where t.kind = 'p'
  ),
  shadowed (shadowed) as (
    select exists (select from gdpr_internal.shadows(p_table, 't'))
  )
  select
    t.relation::regclass,
    t.mark || case when s.shadowed then (
      -- disabled and enabled again, too
      select format(' %s %s', g.oid, g.xmin) from pg_trigger as g
      where g.tgrelid = t.relation and g.tgname = 'zzz_gdpr_03_text' and g.tgenabled = 'A'
    ) else '' end,
    coalesce(pg_relation_size(t.relation), 0) / current_setting('block_size')::bigint
  from tree as t
  cross join shadowed as s
  where t.kind = 'r'
  order by t.relation;
end;
comment on function gdpr_internal.enabling_leaves(smallint) is
  'Where the rows of a table are: its partitions, or itself, with their size in blocks. mark: how each came to be part of it, and the trigger that keeps its shadows, as the catalog has them; null: that trigger is off. Another mark than before, and rows may have been written past the triggers.';

create or replace function gdpr_internal.are_leaves_kept(p_table smallint, p_passed jsonb)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(bool_and(coalesce(l.mark = p_passed ->> l.leaf::oid::text, false)), true)
  from gdpr_internal.enabling_leaves(p_table) as l;
end;
comment on function gdpr_internal.are_leaves_kept(smallint, jsonb) is
  'Whether each leaf of a table is among those that were passed, and the triggers of each have been on since then.';

create or replace function gdpr_policy.passed_leaves(p_relation regclass)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select e.passed from gdpr_internal.enabling as e where e.table_id = gdpr_internal.table_id(p_relation);
end;
comment on function gdpr_policy.passed_leaves(regclass) is 'The leaves that the enabling of a table has passed.';

create or replace function gdpr_policy.require_kept(p_relation regclass, p_passed jsonb)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not gdpr_internal.are_leaves_kept(gdpr_internal.table_id(p_relation), p_passed) then
    perform gdpr_internal.refuse('enabling_state', format('table %s', p_relation));
  elsif gdpr_internal.row_copies(p_relation) is not null then
    -- a column that is dropped would be gone from them, too
    perform gdpr_internal.refuse('policy_refused', format('tables.%s: %s', to_json(p_relation::text), gdpr_internal.row_copies(p_relation)));
  end if;
end
$function$;
comment on function gdpr_policy.require_kept(regclass, jsonb) is
  'Step of enabling, under the lock: no row was written past the triggers since its leaf was passed. Error: PR006 a partition came meanwhile, or the trigger that keeps shadows was off; the rows are looked at once more; PR001 another table came to hold rows of this one.';

create or replace function gdpr_internal.take_blocks(
  p_role name, p_relation regclass, p_blocks bigint,
  out leaf regclass, out mark text, out block bigint, out leaf_blocks bigint, out passed bigint, out blocks bigint
)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_enabling gdpr_internal.enabling;
  v_left boolean;
begin
  -- who held this row until now may have come to the end
  select * into v_enabling from gdpr_internal.enabling as e
  where e.table_id = gdpr_internal.own_table(p_role, p_relation) and e.state in ('claiming', 'sealing')
  for update;
  select l.leaf, l.mark, l.blocks, coalesce(sum(l.blocks) filter (where not l.is_left) over (), 0), sum(l.blocks) over (), l.is_left
  into leaf, mark, leaf_blocks, passed, blocks, v_left
  from (
    select f.leaf, f.mark, f.blocks, f.mark is null or f.mark is distinct from v_enabling.passed ->> f.leaf::oid::text as is_left
    from gdpr_internal.enabling_leaves(v_enabling.table_id) as f
  ) as l
  order by l.is_left desc, l.leaf::oid <> v_enabling.leaf, l.leaf::oid
  limit 1;
  if not v_left then
    leaf := null;
  end if;
  update gdpr_internal.enabling as e
  set leaf = take_blocks.leaf, sweeping_xid = pg_current_xact_id(), worked_at = statement_timestamp(),
    block = p_blocks + case when e.leaf = take_blocks.leaf then e.block else 0 end,
    sweep = case when e.leaf = take_blocks.leaf then e.sweep else 1 end
  where e.table_id = v_enabling.table_id
  returning e.block - p_blocks into block;
end
$function$;
comment on function gdpr_internal.take_blocks(name, regclass, bigint) is 'See gdpr_policy.take_blocks(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.take_blocks(
  p_relation regclass, p_blocks bigint,
  out leaf regclass, out mark text, out block bigint, out leaf_blocks bigint, out passed bigint, out blocks bigint
)
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select t.leaf, t.mark, t.block, t.leaf_blocks, t.passed, t.blocks from gdpr_internal.take_blocks(current_user, p_relation, p_blocks) as t;
end;
comment on function gdpr_policy.take_blocks(regclass, bigint) is
  'Step of enabling: takes the next blocks of the sweep (who comes at the same time waits, and takes the ones after). leaf: in which they are, null when all are passed; mark: its mark; block: the first of them, of leaf_blocks; passed: blocks of the leaves that are done, of blocks in all.';

create or replace function gdpr_internal.pass_leaf(p_role name, p_relation regclass, p_leaf regclass, p_mark text)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  update gdpr_internal.enabling as e
  set leaf = case when p_mark is null then e.leaf end, block = 0, sweep = e.sweep + 1, sweeping_xid = null,
    passed = e.passed || case when p_mark is null then '{}' else jsonb_build_object(p_leaf::oid, p_mark) end
  where e.table_id = gdpr_internal.own_table(p_role, p_relation);
end;
comment on function gdpr_internal.pass_leaf(name, regclass, regclass, text) is 'See gdpr_policy.pass_leaf(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.pass_leaf(p_relation regclass, p_leaf regclass, p_mark text)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.pass_leaf(current_user, p_relation, p_leaf, p_mark);
end;
comment on function gdpr_policy.pass_leaf(regclass, regclass, text) is
  'Step of enabling: no row of a leaf is left, which had this mark before that was looked up; null: rows are left, and there is another sweep over it.';

create or replace function gdpr_internal.count_written(p_role name, p_relation regclass, p_rows bigint)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  update gdpr_internal.enabling as e set done = e.done + p_rows, sweeping_xid = null where e.table_id = gdpr_internal.own_table(p_role, p_relation);
end;
comment on function gdpr_internal.count_written(name, regclass, bigint) is 'See gdpr_policy.count_written(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.count_written(p_relation regclass, p_rows bigint)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.count_written(current_user, p_relation, p_rows);
end;
comment on function gdpr_policy.count_written(regclass, bigint) is 'Step of enabling: so many rows more were written in this state.';
