-- [code] Reading the retention rules of a table: what is kept for how long, counted from when.
-- GDPR Art. 5(1)(e). Called by: gdpr_internal.read_table().

set local role gdpr_owner;

create or replace function gdpr_internal.empty_value(p_relation regclass, p_column name, p_encrypted boolean)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when not a.attnotnull then 'null'
    -- a value that cannot be told from others would be emptied again and again
    when p_encrypted or n.value ~ '[()]' or exists (
      select from pg_index as x where x.indrelid = p_relation and x.indisunique and a.attnum = any (x.indkey)
    ) then null
    else n.value
  end
  from pg_attribute as a
  cross join lateral (select gdpr_internal.neutral_value(format_type(a.atttypid, a.atttypmod)) as value) as n
  where a.attrelid = p_relation and a.attname = p_column and not a.attisdropped;
end;
comment on function gdpr_internal.empty_value(regclass, name, boolean) is
  'The SQL of what retention leaves in a column whose time is over: NULL, else a neutral constant; null where neither can be stored and recognised.';

create or replace function gdpr_internal.is_date_column(p_relation regclass, p_column text, p_columns jsonb)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(p_columns -> p_column ->> 'encrypt', 'no') = 'no' and exists (
    select from pg_attribute as a
    where a.attrelid = p_relation and a.attname = p_column and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
      and a.atttypid in ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
  );
end;
comment on function gdpr_internal.is_date_column(regclass, text, jsonb) is 'Whether retention can count from a column: a date or timestamp that is not encrypted.';

create or replace function gdpr_internal.is_key_column(p_relation regclass, p_column text)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (
    select from pg_constraint as k
    join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = any (k.conkey)
    where k.conrelid = p_relation and k.contype in ('p', 'f') and a.attname = p_column
  );
end;
comment on function gdpr_internal.is_key_column(regclass, text) is 'Whether a column is part of a primary or foreign key.';

create or replace function gdpr_internal.read_retention_rule(
  p_where text, p_relation regclass, p_in jsonb, p_columns jsonb, p_purposes text[], out definition jsonb, out problems text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
declare
  v_period record := gdpr_internal.read_interval(p_where || '.for', p_in ->> 'for');
  v_after text := p_in ->> 'after';
  v_columns text[] := gdpr_internal.text_array(p_in -> 'columns');
  v_name text;
begin
  problems := gdpr_internal.unknown_keys(p_where, p_in, array['columns', 'for', 'after', 'purpose']);
  if jsonb_typeof(p_in) <> 'object' then
    return;
  end if;
  if not p_in ? 'for' then
    problems := problems || format('%s.for: how long, as "2 years"', p_where);
  end if;
  problems := array_remove(problems || v_period.problem, null);
  if not coalesce(v_after = 'last_basis' or gdpr_internal.is_date_column(p_relation, v_after, p_columns), false) then
    problems := problems || format('%s.after: a date or timestamp column that is not encrypted, or "last_basis"', p_where);
  end if;
  if p_in ? 'purpose' and (v_after is distinct from 'last_basis' or not coalesce(p_in ->> 'purpose' = any (p_purposes), false)) then
    problems := problems || format('%s.purpose: one of the table''s purposes, with after = "last_basis"', p_where);
  end if;
  if p_in ? 'columns' and coalesce(v_columns, '{}') = '{}' then
    problems := problems || format('%s.columns: at least one; without it the rule is for the rest of the row', p_where);
  end if;
  foreach v_name in array coalesce(v_columns, '{}') loop
    if not p_columns ? v_name or gdpr_internal.is_key_column(p_relation, v_name) then
      problems := problems || format('%s.columns: %s has to be classified, and no part of a key', p_where, to_json(v_name));
    elsif gdpr_internal.empty_value(p_relation, v_name, p_columns -> v_name ->> 'encrypt' <> 'no') is null then
      problems := problems || format('%s.columns: %s cannot be emptied; let it be null', p_where, to_json(v_name));
    end if;
  end loop;
  definition := jsonb_strip_nulls(jsonb_build_object(
    'columns', to_jsonb(v_columns), 'for', v_period.value::text, 'after', v_after, 'purpose', p_in -> 'purpose'
  ));
end
$function$;
comment on function gdpr_internal.read_retention_rule(text, regclass, jsonb, jsonb, text[]) is 'One retention rule in normal form, and its problems.';

create or replace function gdpr_internal.read_retention(
  p_where text, p_relation regclass, p_in jsonb, p_columns jsonb, p_purposes text[], out definition jsonb, out problems text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_in jsonb;
  v_rule record;
  v_n integer := 0;
  v_facts jsonb;
begin
  problems := '{}';
  if p_in is null then
    return;
  elsif jsonb_typeof(p_in) <> 'array' or jsonb_array_length(p_in) not between 1 and 30 then
    problems := array[format('%s.retain: a list of rules, 30 at the most', p_where)];
    return;
  end if;
  definition := '[]';
  for v_in in select r.rule from jsonb_array_elements(p_in) as r (rule) loop
    v_n := v_n + 1;
    v_rule := gdpr_internal.read_retention_rule(format('%s.retain[%s]', p_where, v_n), p_relation, v_in, p_columns, p_purposes);
    problems := problems || v_rule.problems;
    definition := definition || jsonb_build_array(v_rule.definition);
  end loop;
  if (select count(*) <> count(distinct c.name) from jsonb_array_elements(definition) as r (rule), jsonb_array_elements_text(r.rule -> 'columns') as c (name)) then
    problems := problems || format('%s.retain: a column is named by one rule', p_where);
  end if;
  if exists (
    select from jsonb_array_elements(definition) as r (rule), jsonb_array_elements(definition) as o (rule) where o.rule -> 'columns' ? (r.rule ->> 'after')
  ) then
    problems := problems || format('%s.retain: a column that rules count from stays as long as the row', p_where);
  end if;
  case (select count(*) from jsonb_array_elements(definition) as r (rule) where not r.rule ? 'columns')
    when 0 then null;
    when 1 then
      if v_n > 1 then
        v_facts := jsonb_build_object('columns', p_columns, 'retain', definition);
        problems := problems || gdpr_internal.anonymise_problems(p_where, p_relation, p_columns) || (
          select coalesce(array_agg(format('%s.retain: %s cannot be emptied before the row goes; let it be null, or name it in a rule', p_where, to_json(c.name))), '{}')
          from unnest(gdpr_internal.rest_columns(p_relation, v_facts)) as c (name)
          where gdpr_internal.empty_value(p_relation, c.name, p_columns -> c.name::text ->> 'encrypt' <> 'no') is null
        );
      end if;
    else
      problems := problems || format('%s.retain: one rule without columns, for the rest of the row', p_where);
  end case;
end
$function$;
comment on function gdpr_internal.read_retention(text, regclass, jsonb, jsonb, text[]) is 'The retention rules of a table in normal form, and their problems.';

create or replace function gdpr_internal.retention_order_problems(p_tables jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(distinct format(
    'tables.%s.retain: deletes rows that %s refers to, which is not protected; protect it too, or say erase = "anonymise"', to_json(t.key), k.conrelid::regclass
  )), '{}')
  from (select e.key, e.value, gdpr_internal.find_table(e.key) as relation from jsonb_each(p_tables) as e offset 0) as t
  join pg_constraint as k on k.confrelid = t.relation
  where k.contype = 'f' and k.confdeltype not in ('n', 'd') and k.conparentid = 0
    and gdpr_internal.erasure_method(t.value) = 'delete'
    and exists (select from jsonb_array_elements(t.value -> 'retain') as r (rule) where not r.rule ? 'columns')
    and not p_tables ? k.conrelid::regclass::text
    and not exists (select from gdpr_internal.protected_table as o where o.relation = k.conrelid and o.unprotected_at is null);
end;
comment on function gdpr_internal.retention_order_problems(jsonb) is
  'Tables whose rows would stand in the way of rows that retention deletes, or go along, and of which gdprdb knows nothing.';
