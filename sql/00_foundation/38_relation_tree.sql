-- [code] A table is what it is with its partitions.
-- GDPR Art. 25. Called by: whatever looks at a table, or changes it.

set local role gdpr_owner;

create or replace function gdpr_internal.relation_tree(p_relation regclass)
returns setof regclass
-- up to PostgreSQL 17 a function of SQL would be planned for each call
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query
  select p_relation
  union
  select t.relid from pg_partition_tree(p_relation) as t;
end
$function$;
comment on function gdpr_internal.relation_tree(regclass) is 'A table and all its partitions.';
