-- [code] What of an error of the application may be repeated.
-- GDPR Art. 32. Called by: erasure and retention, when a constraint of the application stands in their way.

set local role gdpr_owner;

create or replace function gdpr_internal.known_obstacle(p_schema text, p_table text, p_column text, p_constraint text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- code of a table's owner can raise an error that names anything: only what is in the catalog is repeated
  select coalesce(max(regexp_replace(format('table %I.%I, %s', n.nspname, c.relname, o.name), '[[:cntrl:]]', ' ', 'g')), 'code of the application')
  from pg_namespace as n
  join pg_class as c on c.relnamespace = n.oid
  cross join lateral (
    select format('constraint %I', k.conname) as name from pg_constraint as k where k.conrelid = c.oid and k.conname = p_constraint
    union
    select format('constraint %I', i.relname)
    from pg_index as x
    join pg_class as i on i.oid = x.indexrelid
    where x.indrelid = c.oid and x.indisunique and i.relname = p_constraint
    union
    select format('column %I, which is NOT NULL', a.attname)
    from pg_attribute as a
    where a.attrelid = c.oid and a.attname = p_column and a.attnotnull and p_constraint = ''
  ) as o
  where n.nspname = p_schema and c.relname = p_table;
end;
comment on function gdpr_internal.known_obstacle(text, text, text, text) is
  'Names table and constraint (or column) of an error as the catalog has them, if it has: what stands in the way of an erasure or of retention.';
