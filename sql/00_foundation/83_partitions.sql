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
  select string_agg(c.oid::regclass::text, ', ' order by c.oid::regclass::text) into v_name
  from gdpr_internal.relation_tree(p_relation) as r (r)
  join pg_class as c on c.oid = r.r and c.oid <> p_relation
  where c.relhasrules;
  if v_name is not null then
    return format('partitions that have rules: %s', v_name);
  end if;
  select string_agg(c.oid::regclass::text, ', ' order by c.oid::regclass::text) into v_name
  from gdpr_internal.relation_tree(p_relation) as r (r)
  join pg_class as c on c.oid = r.r and c.oid <> p_relation
  where c.relforcerowsecurity and not exists (select from pg_roles as o where o.rolname = p_role and (o.rolsuper or o.rolbypassrls));
  if v_name is not null then
    return format('row security is forced on partitions, and hides rows from their owner: %s', v_name);
  end if;
  select string_agg(format('%I.%I', x.stxnamespace::regnamespace::name, x.stxname), ', ' order by x.stxname) into v_name
  from gdpr_internal.relation_tree(p_relation) as r (r)
  join pg_statistic_ext as x on x.stxrelid = r.r and x.stxrelid <> p_relation
  where exists (
    select from pg_depend as d
    join pg_attribute as a on a.attrelid = x.stxrelid and a.attnum = d.refobjsubid
    where d.classid = 'pg_statistic_ext'::regclass and d.objid = x.oid and d.refobjid = x.stxrelid
      and a.attname = any (gdpr_internal.becomes_text(p_relation, p_definition))
  );
  if v_name is not null then
    return format('statistics over columns of partitions that become text: %s; drop them', v_name);
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.partition_obstacle(name, regclass, jsonb) is
  'Why a table cannot be enabled in batches because of one of its partitions; null when it can. No personal data.';

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
    -- as PostgreSQL locks them
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
