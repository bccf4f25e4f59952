-- [code] Reading what of a table may be searched for parts of words.
-- GDPR Art. 25. Called by: gdpr.plan().

set local role gdpr_owner;

create or replace function gdpr_internal.search_expression(p_columns jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select string_agg(format('coalesce(%I::text, '''')', c.name), ' || '' '' || ' order by c.n)
  from jsonb_array_elements_text(p_columns) with ordinality as c (name, n);
end;
comment on function gdpr_internal.search_expression(jsonb) is
  'The SQL of the text that is searched: the same in index, policy and view.';

create or replace function gdpr_internal.search_name(p_name name)
returns name
language sql
immutable
parallel safe
security invoker
begin atomic
  select (left(p_name::text, 56) || '_search')::name;
end;
comment on function gdpr_internal.search_name(name) is 'The name of view, function and index by which a table is searched.';

create or replace function gdpr_internal.search_problems(p_where text, p_relation regclass, p_search jsonb, p_columns jsonb)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_names text[] := gdpr_internal.text_array(p_search);
  v_problems text[] := '{}';
  v_column record;
begin
  if p_search is null then
    return '{}';
  elsif jsonb_typeof(p_search) <> 'array' or cardinality(v_names) not between 1 and 8 then
    return array[format('%s.search: a list of one to eight columns', p_where)];
  end if;
  for v_column in
    select u.name, a.attnum, c.collisdeterministic as deterministic, p_columns -> u.name as definition,
      a.atttypid in ('text'::regtype, 'character varying'::regtype, 'character'::regtype) as is_text
    from unnest(v_names) as u (name)
    left join pg_attribute as a on a.attrelid = p_relation and a.attname = u.name and a.attnum > 0 and not a.attisdropped
    left join pg_collation as c on c.oid = a.attcollation
  loop
    v_problems := array_remove(v_problems || case
      when v_column.attnum is null then format('%s.search: there is no column %s', p_where, to_json(v_column.name))
      when coalesce(v_column.definition ->> 'encrypt', 'no') <> 'no'
        then format('%s.search: %s is encrypted, and its parts are nowhere; search it whole by its digest', p_where, to_json(v_column.name))
      when not v_column.is_text then format('%s.search: %s is not text', p_where, to_json(v_column.name))
      when not v_column.deterministic then format('%s.search: %s has a nondeterministic collation', p_where, to_json(v_column.name))
    end, null);
  end loop;
  if not exists (select from pg_index as x where x.indrelid = p_relation and x.indisprimary) then
    v_problems := v_problems || format('%s.search: what is found is named by its primary key, and the table has none', p_where);
  end if;
  if exists (
    select from gdpr_internal.protected_table as t
    join pg_class as c on c.oid = p_relation
    where t.unprotected_at is null and t.relation <> p_relation and t.view_name = gdpr_internal.search_name(c.relname)
  ) then
    v_problems := v_problems || format('%s.search: another protected table has the name of the search', p_where);
  end if;
  if exists (
    select from pg_class as c
    join pg_class as o on o.relnamespace = c.relnamespace and o.relname = gdpr_internal.search_name(c.relname)
    where c.oid = p_relation and coalesce(obj_description(o.oid, 'pg_class') not like 'gdprdb: %', true)
  ) then
    v_problems := v_problems || format('%s.search: its index will be called %s, and there is something of that name; rename that', p_where, (
      select quote_ident(gdpr_internal.search_name(c.relname)) from pg_class as c where c.oid = p_relation
    ));
  end if;
  if not exists (select from pg_extension as e where e.extname = 'pg_trgm') then
    v_problems := v_problems || format('%s.search: needs pg_trgm: create extension pg_trgm;', p_where);
  end if;
  return v_problems;
end
$function$;
comment on function gdpr_internal.search_problems(text, regclass, jsonb, jsonb) is 'Why a table cannot be searched as the policy says.';
