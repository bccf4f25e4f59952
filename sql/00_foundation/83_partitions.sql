-- [code] What partitions ask for while their table is being enabled.
-- GDPR Art. 25. Called by: the steps of enabling.

set local role gdpr_owner;

create or replace function gdpr_internal.partition_obstacle(p_role name, p_relation regclass, p_definition jsonb)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_name text;
begin
  if (select c.relkind <> 'p' from pg_class as c where c.oid = p_relation) then
    return null;
  elsif p_definition ? 'search' then
    return 'the index for its search is built at once where a table has partitions';
  end if;
  select string_agg(c.oid::regclass::text, ', ' order by c.oid::regclass::text) into v_name
  from gdpr_internal.relation_tree(p_relation) as r (r)
  join pg_class as c on c.oid = r.r
  where c.relhasrules;
  if v_name is not null then
    return format('partitions that have rules: %s', v_name);
  end if;
  select string_agg(r.r::text, ', ' order by r.r::text) into v_name
  from gdpr_internal.relation_tree(p_relation) as r (r)
  where gdpr_internal.hides_rows(p_role, r.r);
  if v_name is not null then
    return format('row security is forced on a table with partitions, or on one of them, and hides rows from their owner: %s', v_name);
  end if;
  with recursive held (relation, oid, attnum) as (
    select r.r, a.atttypid, a.attnum
    from gdpr_internal.relation_tree(p_relation) as r (r)
    cross join gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = r.r and a.attname = s.column_name and not a.attisdropped
    where s.encrypt <> 'no'
    union
    select h.relation, u.oid, h.attnum
    from held as h
    join pg_type as y on y.oid = h.oid
    cross join lateral unnest(array[y.typbasetype, y.typelem]) as u (oid)
    where u.oid <> 0
  )
  select string_agg(distinct quote_ident(k.conname), ', ') into v_name
  from held as h
  join pg_constraint as k on k.conrelid = h.relation and h.attnum = any (k.conkey) or k.contypid = h.oid
  where k.contype = 'c' and not k.convalidated and to_jsonb(k) @> '{"conenforced": false}' is not true;
  if v_name is not null then
    return format('constraints that are NOT VALID, of a table with partitions: %s; validate them', v_name);
  end if;
  select string_agg(s.name, ', ' order by s.name) into v_name from gdpr_internal.text_statistics(p_relation, p_definition) as s;
  if v_name is not null then
    return format('statistics over columns that become text, of a table with partitions: %s; drop them', v_name);
  end if;
  select string_agg(distinct format('%I', g.tgname), ', ') into v_name
  from gdpr_internal.relation_tree(p_relation) as r (r)
  join pg_class as c on c.oid = r.r and c.relkind = 'r'
  cross join lateral gdpr_internal.noisy_triggers(r.r) as g
  where g.tgenabled <> 'O' or not has_parameter_privilege(p_role, 'session_replication_role', 'set');
  if v_name is not null then
    return format('triggers for any UPDATE of a table with partitions, which the role may not keep quiet: %s (grant set on parameter session_replication_role; none may be ENABLE ALWAYS or REPLICA)', v_name);
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.partition_obstacle(name, regclass, jsonb) is
  'Why a table that has partitions cannot be enabled in batches; null when it can, and for tables without. No personal data.';

create or replace function gdpr_policy.lock_tree(p_relation regclass, p_readers boolean)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_timeout text := current_setting('lock_timeout');
  v_limit interval := v_timeout::interval;
  v_began timestamptz := clock_timestamp();
begin
  for v_relation in
    -- what others are part of first
    select r from gdpr_policy.partition_tree(p_relation) as r
    order by r <> p_relation, cardinality(array(select pg_partition_ancestors(r))), r::oid
  loop
    if v_limit > '0' then
      -- who waits for the first of them waits for all
      perform set_config('lock_timeout', greatest(1, extract(epoch from v_limit - (clock_timestamp() - v_began)) * 1000)::integer::text, true);
    end if;
    if p_readers then
      execute format('lock table only %s in access exclusive mode', v_relation);
    else
      execute format('lock table only %s in share row exclusive mode', v_relation);
    end if;
  end loop;
  perform set_config('lock_timeout', v_timeout, true);
end
$function$;
comment on function gdpr_policy.lock_tree(regclass, boolean) is
  'Locks a table and all its partitions against writers, or readers too (p_readers), and waits no longer for all of them together than lock_timeout allows for one.';
