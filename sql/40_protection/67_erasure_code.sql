-- [code] What erasure needs to know of tables: the foreign keys between them, and the SQL that empties a column.
-- GDPR Art. 17. Read by: the generator of erasure; the doctor.

set local role gdpr_owner;

create or replace view gdpr_internal.protected_link as
select
  k.oid as id,
  k.conname as name,
  c.id as child_id,
  c.relation as child,
  p.id as parent_id,
  p.relation as parent,
  k.confdeltype as on_delete,
  n.child_columns,
  n.parent_columns,
  case
    when k.confmatchtype <> 'f' then n.nullable[1:1]
    when cardinality(n.nullable) = cardinality(n.child_columns) then n.nullable
  end as cut_columns
from pg_constraint as k
join gdpr_internal.protected_table as c on c.unprotected_at is null and c.relation = coalesce(pg_partition_root(k.conrelid), k.conrelid)
join gdpr_internal.protected_table as p on p.unprotected_at is null and p.relation = coalesce(pg_partition_root(k.confrelid), k.confrelid)
cross join lateral (
  select
    array_agg(a.attname order by u.n) as child_columns,
    array_agg(f.attname order by u.n) as parent_columns,
    -- of a composite key the column that tells nothing else: one null is enough
    array_agg(a.attname order by s.shared, u.n desc) filter (where not a.attnotnull and a.attgenerated = '' and not s.partitions) as nullable
  from unnest(k.conkey, k.confkey) with ordinality as u (child, parent, n)
  join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.child
  join pg_attribute as f on f.attrelid = k.confrelid and f.attnum = u.parent
  cross join lateral (
    select
      (
        select count(*) from pg_constraint as o
        where o.conrelid = k.conrelid and o.contype in ('f', 'u') and o.conparentid = 0 and u.child = any (o.conkey)
      ) as shared,
      exists (
        select from pg_partitioned_table as x
        join pg_attribute as b on b.attrelid = x.partrelid and b.attnum = any (x.partattrs)
        where x.partrelid = c.relation and b.attname = a.attname
      ) as partitions
  ) as s
) as n
where k.contype = 'f' and k.conparentid = 0;
comment on view gdpr_internal.protected_link is
  'Foreign keys between protected tables, partitions counted as their table. cut_columns: what has to be null to cut the link (null: it cannot be cut).';

create or replace function gdpr_internal.link_fingerprint()
returns text
-- asked for each erasure: up to PostgreSQL 17 a function of SQL would be planned each time
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select md5(coalesce(string_agg(
      concat_ws(' ', l.child_id, l.name, l.parent_id, l.on_delete, l.child_columns::text, l.parent_columns::text, l.cut_columns::text), ','
      order by l.child_id, l.name
    ), ''))
    from gdpr_internal.protected_link as l
  );
end
$function$;
comment on function gdpr_internal.link_fingerprint() is 'A hash of the foreign keys that erasure was generated for: the application may have added one since.';

create or replace function gdpr_internal.erase_columns(p_table smallint, p_about name default null)
returns setof gdpr_internal.erase_fact
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query
  select
    a.attname,
    r.rule,
    y.type,
    substring(y.type from '^character(?: varying)?\((\d+)\)$')::integer,
    coalesce(c.original ? 'unique_name', false) or exists (
      select from pg_index as x where x.indrelid = t.relation and x.indisunique and x.indkey::text = a.attnum::text
    ),
    coalesce(c.encrypt <> 'no', false)
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
    and a.attname !~ '^gdpr_' and a.attidentity = '' and a.attgenerated = ''
  left join gdpr_internal.protected_column as c on c.table_id = t.id and c.column_name = a.attname
  cross join lateral (
    select coalesce(case when p_about is null or c.erase <> 'keep' then c.erase end, gdpr_internal.erase_rule(t.relation, a.attname, null)) as rule
  ) as r
  cross join lateral (select coalesce(c.original_type, format_type(a.atttypid, a.atttypmod)) as type) as y
  where t.id = p_table and r.rule <> 'keep' and (p_about is null or c.about = p_about)
    -- keys say nothing by themselves, and others refer to them: only the policy's word empties one
    and (c.erase is not null and r.rule <> 'neutral' or a.attname = any (gdpr_internal.emptied_columns(t.relation)))
  order by a.attnum;
end
$function$;
comment on function gdpr_internal.erase_columns(smallint, name) is 'The columns that anonymisation empties, and how; one that nobody classified, too. p_about: those about the person whom this link of a joint row leads to.';

create or replace function gdpr_internal.generalised_code(p_column gdpr_internal.erase_fact, p_row text, p_to text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when p_to = 'initial' and (p_column).encrypted then format('left(%s.%I, 1)', p_row, 'gdpr_' || (p_column).column_name || '_mask')
    when p_to = 'initial' then format('left(%s.%I, 1)', p_row, (p_column).column_name)
    when p_to = 'year' and (p_column).encrypted then format('to_char(%s.%I, ''YYYY-MM-DD'')', p_row, 'gdpr_' || (p_column).column_name || '_mask')
    when p_to in ('year', 'decade') and gdpr_internal.base_type((p_column).type) = 'timestamp with time zone'
      then format('date_trunc(%L, %s.%I at time zone ''UTC'') at time zone ''UTC''', p_to, p_row, (p_column).column_name)
    when p_to in ('year', 'decade') then format('date_trunc(%L, %s.%I)::%s', p_to, p_row, (p_column).column_name, (p_column).type)
    when gdpr_internal.base_type((p_column).type) in ('text', 'character varying', 'character')
      then format('left(%s.%I, %s)', p_row, (p_column).column_name, p_to)
    else format('(floor(%1$s.%2$I::numeric / %3$s) * %3$s)::%4$s', p_row, (p_column).column_name, p_to, (p_column).type)
  end;
end;
comment on function gdpr_internal.generalised_code(gdpr_internal.erase_fact, text, text) is
  'The SQL of a value made coarser; of an encrypted column, whose key goes, what its mask shows.';

create or replace function gdpr_internal.pruned_code(p_column gdpr_internal.erase_fact, p_row text, p_paths jsonb, p_only boolean)
returns text
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_code text := format('%s.%I::jsonb', p_row, p_column.column_name);
  v_path jsonb;
begin
  if p_only then
    v_code := format('gdpr_internal.json_only(%s, %L)', v_code, p_paths);
  else
    for v_path in select p from jsonb_array_elements(p_paths) as p loop
      v_code := format('gdpr_internal.json_without(%s, %L)', v_code, array(select jsonb_array_elements_text(v_path)));
    end loop;
  end if;
  return format('(%s)::%s', v_code, p_column.type);
end
$function$;
comment on function gdpr_internal.pruned_code(gdpr_internal.erase_fact, text, jsonb, boolean) is
  'The SQL of a document without what stands at these paths, or (p_only) with nothing else.';

create or replace function gdpr_internal.erase_expression(p_column gdpr_internal.erase_fact, p_row text, p_persons text default null)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when (p_column).erase = 'null' then 'null'
    when starts_with((p_column).erase, 'value:') then quote_literal(substr((p_column).erase, 7))
    when starts_with((p_column).erase, 'generalise:') then gdpr_internal.generalised_code(p_column, p_row, substr((p_column).erase, 12))
    when starts_with((p_column).erase, 'without:') then gdpr_internal.pruned_code(p_column, p_row, substr((p_column).erase, 9)::jsonb, false)
    when starts_with((p_column).erase, 'elements:') then format(
      case when (p_column).type in ('json', 'jsonb') then '(gdpr_internal.json_without_identifiers(%s, %L, %s.%I::jsonb))::%s'
      else '(gdpr_internal.without_identifiers(%s, %L, %s.%I::text[]))::%s' end,
      coalesce(p_persons, format('array[%s.gdpr_subject_id]', p_row)),
      substr((p_column).erase, 10), p_row, (p_column).column_name, (p_column).type
    )
    when starts_with((p_column).erase, 'only:') then gdpr_internal.pruned_code(p_column, p_row, substr((p_column).erase, 6)::jsonb, true)
    when (p_column).is_unique then 'left(''erased-'' || gen_random_uuid()::text, ' || coalesce((p_column).maximum, 43) || ')'
    else gdpr_internal.neutral_value((p_column).type)
  end;
end;
comment on function gdpr_internal.erase_expression(gdpr_internal.erase_fact, text, text) is
  'What an erased column of the row p_row holds afterwards: null, the policy''s value, less of what it was, or a neutral value where null is not allowed. p_persons: the SQL of whose addresses go, where that is not the person of the row.';
