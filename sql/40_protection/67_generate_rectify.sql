-- [code] Reading single values of rows as stored, and the generator of the function that corrects them.
-- GDPR Art. 16. They belong to gdpr_worker: casts, domains, triggers and constraints that a table's owner made run in them, with
-- neither keys nor evidence in reach. Values are told as text that is the same in every session.

set local role gdpr_worker;

create or replace function gdpr_generated.key_code(p_relation regclass, p_key text, p_typed boolean)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select string_agg(
    case when p_typed then format('t.%I = ', a.attname) else '' end
    || format('(%s)::%s', case when x.indnatts = 1 then p_key else format('%s::jsonb ->> %s', p_key, k.n - 1) end, format_type(a.atttypid, a.atttypmod)),
    case when p_typed then ' and ' else ', ' end order by k.n
  )
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = p_relation and x.indisprimary;
end;
comment on function gdpr_generated.key_code(regclass, text, boolean) is
  'The SQL that finds a row t by its primary key as text, or (p_typed false) that only reads the text with the key''s types; null without a primary key.';

create or replace function gdpr_generated.readable_keys(p_relation regclass, p_keys text[])
returns text[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_read text := format(
    'select count((%s)) from unnest($1) as k (key)', coalesce(gdpr_generated.key_code(p_relation, 'k.key', false), 'k.key')
  );
  v_keys text[] := p_keys;
begin
  begin
    execute v_read using p_keys;
  exception when others then
    -- one of them is no key of this table: which, only one at a time can tell
    for i in 1 .. cardinality(p_keys) loop
      begin
        execute v_read using array[p_keys[i]];
      exception when others then
        v_keys[i] := null;
      end;
    end loop;
  end;
  return v_keys;
end
$function$;
comment on function gdpr_generated.readable_keys(regclass, text[]) is 'The keys, null for those that cannot be one of this table: they find no row.';

create or replace function gdpr_generated.read_values(p_relation regclass, p_column name, p_type text, p_values text[])
returns table (value text, wrong boolean)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
as $function$
declare
  v_read text;
  v_values text[];
  v_one text[];
  v_wrong boolean[] := array_fill(false, array[cardinality(p_values)]);
begin
  -- the type's own input function, as COPY would call it: a cast would cut a text that is too long. A type of p_type is
  -- PostgreSQL's own; any other is read as part of a row, because its schema may be closed to gdpr_worker.
  v_read := format(
    'select array_agg(%s order by v.n) from unnest($1) with ordinality as v (value, n)',
    case
      when p_type in ('json', 'jsonb') then format('v.value::%s::text', p_type)
      when p_type is not null then gdpr_internal.text_expression(
        format('(select x.value from jsonb_to_record(jsonb_build_object(''value'', v.value)) as x (value %s))', p_type), p_type
      )
      else format('gdpr.text_of((jsonb_populate_record((select t from %s as t limit 1), jsonb_build_object(%L, v.value))).%I)', p_relation, p_column, p_column)
    end
  );
  begin
    execute v_read into v_values using p_values;
  exception when others then
    v_values := '{}';
    for i in 1 .. cardinality(p_values) loop
      begin
        execute v_read into v_one using p_values[i:i];
        v_values[i] := v_one[1];
      exception when others then
        v_values[i] := null;
        v_wrong[i] := true;
      end;
    end loop;
  end;
  return query select u.value, u.wrong from unnest(v_values, v_wrong) as u (value, wrong);
end
$function$;
comment on function gdpr_generated.read_values(regclass, name, text, text[]) is
  'Values as a column would hold them, in order, as text that is the same in every session; wrong: the column cannot hold it. p_type: a type of PostgreSQL''s own that the column has or, encrypted, had; else null.';

create or replace function gdpr_generated.read_cells(p_table smallint, p_keys text[], p_columns name[], p_values text[], p_lock boolean)
returns table (n bigint, row_key text, subject_id bigint, stored text, value text, wrong boolean)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
as $function$
declare
  v_relation regclass;
  v_keys text[];
  v_column record;
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  v_keys := gdpr_generated.readable_keys(v_relation, p_keys);
  for v_column in
    select c.column_name, c.stored_expression, c.own_type, array_agg(u.n order by u.n) as places,
      array_agg(u.key order by u.n) as keys, array_agg(u.value order by u.n) as given
    from unnest(v_keys, p_columns, p_values) with ordinality as u (key, column_name, value, n)
    join gdpr_internal.rectifiable_columns(p_table) as c on c.column_name = u.column_name
    group by c.column_name, c.stored_expression, c.own_type
  loop
    return query execute format(
      'select $1[r.n], f.row_key, f.subject_id, f.stored, r.value, r.wrong '
      'from gdpr_generated.read_values($2, $3, $4, $5) with ordinality as r (value, wrong, n) '
      'left join ('
      'select k.n, %1$s as row_key, t.gdpr_subject_id as subject_id, %2$s as stored '
      'from unnest($6) with ordinality as k (key, n) join %3$s as t on %4$s where t.gdpr_subject_id is not null%5$s'
      ') as f on f.n = r.n',
      gdpr_internal.key_text(v_relation, 't'), v_column.stored_expression, v_relation,
      coalesce(gdpr_generated.key_code(v_relation, 'k.key', true), 'gdpr_internal.refuse(''no_primary_key'')'),
      case when p_lock then ' for no key update of t' else '' end
    ) using v_column.places, v_relation, v_column.column_name, v_column.own_type, v_column.given, v_column.keys;
  end loop;
  set constraints all immediate;
end
$function$;
comment on function gdpr_generated.read_cells(smallint, text[], name[], text[], boolean) is
  'For each place of the lists: the row of that key, whose it is, what the column holds as stored (ciphertext stays so), and the new value as the column would hold it. p_lock: against changes until the transaction ends. Error: PR408.';

create or replace function gdpr_generated.cells_of(p_table smallint, p_subjects bigint[], p_column name, p_lock boolean)
returns table (row_key text, subject_id bigint, stored text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
as $function$
declare
  v_relation regclass;
  v_stored text;
begin
  select t.relation, c.stored_expression into strict v_relation, v_stored
  from gdpr_internal.protected_table as t
  join gdpr_internal.rectifiable_columns(p_table) as c on c.column_name = p_column
  where t.id = p_table;
  return query execute format(
    'select %s, t.gdpr_subject_id, %s from %s as t where t.gdpr_subject_id = any ($1) and t.%I is not null%s',
    gdpr_internal.key_text(v_relation, 't'), v_stored, v_relation, p_column, case when p_lock then ' for no key update of t' else '' end
  ) using p_subjects;
  set constraints all immediate;
end
$function$;
comment on function gdpr_generated.cells_of(smallint, bigint[], name, boolean) is 'What a column holds in all rows of these persons, as stored.';

create or replace function gdpr_generated.generate_rectify(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_schema name;
  v_columns text;
begin
  select t.relation, n.nspname into strict v_relation, v_schema
  from gdpr_internal.protected_table as t
  join pg_class as c on c.oid = t.relation
  join pg_namespace as n on n.oid = c.relnamespace
  where t.id = p_table;
  select string_agg(
    format('(%L, %L)', c.column_name, format(
      case when not c.encrypted and c.own_type in ('json', 'jsonb')
        then 'case when v.changes ? %1$L then (v.changes ->> %1$L)::%3$s else t.%2$I end' else '(jsonb_populate_record(t, v.changes)).%2$I' end,
      c.column_name, c.column_name, c.own_type
    )), ', '
  )
  into v_columns
  from gdpr_internal.rectifiable_columns(p_table) as c
  where c.refusal is null;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_keys text[], p_subjects bigint[], p_changes jsonb[])
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, %2$I, pg_temp
set row_security = on
set debug_print_plan = off
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
as $body$
declare
  v_rows bigint;
begin
  perform gdpr_internal.refuse_deferred(%3$L);
  -- only columns that some row changes: the application's triggers of the others stay quiet
  execute (
    select format(%4$L, string_agg(format('%%I = %%s', c.name, c.value), ', '))
    from (values %5$s) as c (name, value)
    where exists (select from unnest(p_changes) as x where x ? c.name)
  ) using p_keys, p_subjects, p_changes;
  get diagnostics v_rows = row_count;
  set constraints all immediate;
  return v_rows;
end
$body$
$code$,
    'rectify_' || p_table, v_schema, v_relation,
    format(
      'update %s as t set %%s from unnest($1, $2, $3) as v (key, subject_id, changes) where %s and t.gdpr_subject_id = v.subject_id',
      replace(v_relation::text, '%', '%%'), replace(coalesce(gdpr_generated.key_code(v_relation, 'v.key', true), 'false'), '%', '%%')
    ),
    coalesce(v_columns, '(null, null)')
  ));
  execute format(
    'comment on function gdpr_generated.%I(text[], bigint[], jsonb[]) is %L', 'rectify_' || p_table,
    format('Corrects rows of %s by primary key and person; {"column": value as text}. Returns the rows. Generated by gdpr.apply().', v_relation)
  );
  execute format('grant execute on function gdpr_generated.%I(text[], bigint[], jsonb[]) to gdpr_owner', 'rectify_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_rectify(smallint) is 'Generates the function that corrects rows of a protected table.';
