-- [code] The generator of functions that check and insert registered rows.
-- GDPR Art. 25. They belong to gdpr_worker: casts, domains, CHECK constraints, defaults and triggers that a table's owner made
-- run in them, with neither keys nor evidence in reach.

set local role gdpr_worker;

create or replace function gdpr_generated.registered_columns(p_table smallint)
returns table (column_name name, type text, maximum text, needed boolean, optional boolean)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    a.attname,
    coalesce(c.original_type, format_type(a.atttypid, a.atttypmod)),
    substring(coalesce(c.original_type, format_type(a.atttypid, a.atttypmod)) from '^character(?: varying)?\((\d+)\)$'),
    a.attnotnull,
    a.atthasdef or a.attidentity <> ''
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
  left join gdpr_internal.protected_column as c on c.table_id = t.id and c.column_name = a.attname
  where t.id = p_table and a.attidentity <> 'a' and a.attgenerated = '' and a.attname !~ '^gdpr_'
    and not gdpr_internal.is_hidden_column(t.id, a.attname)
  order by a.attnum;
end;
comment on function gdpr_generated.registered_columns(smallint) is 'The columns that a registration can fill, with the types they have for applications.';

create or replace function gdpr_generated.failed_checks(p_relation regclass, p_row jsonb)
returns text[]
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_check record;
  v_failed boolean;
  v_problems text[] := '{}';
begin
  for v_check in
    select k.name, k.expression, k.source
    from (
      select k.conname::text as name, pg_get_expr(k.conbin, k.conrelid) as expression, k.conkey,
        format('jsonb_populate_record(null::%s, $1)', p_relation) as source
      from pg_constraint as k
      where k.conrelid = p_relation and k.contype = 'c' and not to_jsonb(k) @> '{"conenforced": false}'
      union
      -- those that encryption took off the table
      select e.value ->> 'name', e.value ->> 'check', u.keys, format('jsonb_to_record($1) as r (%s)', u.columns)
      from gdpr_internal.protected_column as c
      join gdpr_internal.protected_table as t on t.id = c.table_id and t.relation = p_relation and t.unprotected_at is null
      cross join lateral jsonb_array_elements(c.original -> 'checks') as e
      cross join lateral (
        select array_agg(r.position) as keys, string_agg(format('%I %s', r.name, r.type), ', ') as columns
        from jsonb_to_recordset(e.value -> 'columns') as r (position smallint, name text, type text)
      ) as u
      where c.encrypt <> 'no' and e.value ? 'check'
    ) as k
    -- a column that was not given may have a default, which nobody knows yet
    where not exists (
      select from pg_attribute as a
      where a.attrelid = p_relation and a.attnum = any (k.conkey) and (a.atthasdef or a.attidentity <> '') and not p_row ? a.attname::text
    )
    order by k.name
  loop
    begin
      execute format('select exists (select from %s where not (%s))', v_check.source, v_check.expression)
      into v_failed using p_row;
    exception when others then
      -- what cannot be known now is known when the row is inserted
      v_failed := false;
    end;
    if v_failed then
      v_problems := v_problems || format('constraint %I', v_check.name);
    end if;
  end loop;
  return v_problems;
end
$function$;
comment on function gdpr_generated.failed_checks(regclass, jsonb) is
  'The CHECK constraints of a table that a row would violate; they run here as gdpr_worker, like everything that a table''s owner made.';

create or replace function gdpr_generated.generate_registrations(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
-- what is dropped need not have been there
set client_min_messages = warning
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_schema name;
  v_names text;
  v_columns text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  if not v_table.definition ? 'double_opt_in' then
    execute format('drop function if exists gdpr_generated.%I(jsonb)', 'check_registration_' || p_table);
    execute format('drop function if exists gdpr_generated.%I(jsonb)', 'insert_registration_' || p_table);
    return;
  end if;
  select n.nspname into v_schema from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = v_table.relation;
  select
    string_agg(quote_literal(c.column_name), ', '),
    string_agg(concat(
      -- the values themselves never go into a problem
      format(
        E'  begin\n    perform from jsonb_to_record(p_row) as x (%1$I %2$s);\n'
        '  exception when others then\n    v_problems := v_problems || %3$L::text;\n  end;\n',
        c.column_name, c.type,
        format('column %I: ', c.column_name) || case when c.maximum is not null then format('longer than %s characters', c.maximum) else 'no value of type ' || c.type end
      ),
      case when c.needed then format(
        E'  if %1$sp_row ->> %2$L is null then\n    v_problems := v_problems || %3$L::text;\n  end if;\n',
        case when c.optional then format('p_row ? %L and ', c.column_name) else '' end, c.column_name, format('column %I: is missing', c.column_name)
      ) end
    ), '')
  into v_names, v_columns
  from gdpr_generated.registered_columns(p_table) as c;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_row jsonb)
returns text[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, %2$I, pg_temp
set debug_print_plan = off
as $body$
declare
  v_problems text[];
begin
  select coalesce(array_agg(format('column %%I: there is no such column', k.name) order by k.name), '{}') into v_problems
  from jsonb_object_keys(p_row) as k (name)
  where k.name <> all (array[%3$s]);
%4$s  v_problems := v_problems || gdpr_generated.failed_checks(%5$L, p_row);
  set constraints all immediate;
  return v_problems;
end
$body$
$code$,
    'check_registration_' || p_table, v_schema, v_names, v_columns, v_table.relation
  ));
  execute format(
    'comment on function gdpr_generated.%I(jsonb) is %L', 'check_registration_' || p_table,
    format('What keeps a row out of %s, as far as it can be known before. Generated by gdpr.apply().', v_table.relation)
  );
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_row jsonb)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, %2$I, pg_temp
set row_security = on
set debug_print_plan = off
as $body$
declare
  v_subject bigint;
begin
  perform gdpr_internal.refuse_deferred(%3$L);
  -- only the columns that were given: the others have their defaults
  execute (
    select format(%4$L, string_agg(format('%%I', k.name), ', '), string_agg(format('r.%%I', k.name), ', '))
    from jsonb_object_keys(p_row) as k (name)
    where k.name = any (array[%5$s])
  ) into v_subject using p_row;
  set constraints all immediate;
  return v_subject;
end
$body$
$code$,
    'insert_registration_' || p_table, v_schema, v_table.relation,
    format(
      'insert into %1$s (%%s) select %%s from jsonb_populate_record(null::%1$s, $1) as r returning gdpr_subject_id',
      replace(v_table.relation::text, '%', '%%')
    ),
    v_names
  ));
  execute format(
    'comment on function gdpr_generated.%I(jsonb) is %L', 'insert_registration_' || p_table,
    format('Inserts a confirmed registration into %s and returns its person. Generated by gdpr.apply().', v_table.relation)
  );
  execute format(
    'grant execute on function gdpr_generated.%I(jsonb), gdpr_generated.%I(jsonb) to gdpr_owner',
    'check_registration_' || p_table, 'insert_registration_' || p_table
  );
end
$function$;
comment on function gdpr_generated.generate_registrations(smallint) is
  'Generates the functions that check and insert registered rows of a table whose policy says double_opt_in, drops them elsewhere.';
