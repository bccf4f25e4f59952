-- [code] The generator of functions that read everything a person has in a table, for the person.
-- GDPR Art. 15, 20. They belong to gdpr_worker and return rows as stored; gdpr_keyholder opens what is encrypted afterwards.

set local role gdpr_worker;

create or replace function gdpr_generated.access_code(
  p_table smallint, out rows_of_person text, out concerns_person text, out hidden text, out row_key text
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_parent regclass;
  v_link record;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select t.relation into v_parent from gdpr_internal.protected_table as t where t.id = v_table.parent_id;
  rows_of_person := format('select t.tableoid as gdpr_part, t.ctid, t.* from %s as t where t.gdpr_subject_id = p_subject', v_table.relation);
  concerns_person := 't.gdpr_subject_id = p_subject';
  hidden := '';
  for v_link in
    select
      l.name,
      case when l.name = any (v_table.via_columns) then 't.gdpr_subject_id = p_subject' else format(
        'exists (select from %s as p where p.%I = t.%I and p.gdpr_subject_id = p_subject)', v_parent, v_table.parent_columns[1], l.name
      ) end as mine,
      array(
        select c.column_name from gdpr_internal.protected_column as c where c.table_id = p_table and c.about = l.name order by c.position
      ) as columns,
      l.name = any (v_table.via_columns) as via
    from unnest(v_table.via_columns || v_table.joint_columns) with ordinality as l (name, n)
    where v_table.joint_columns is not null
    order by l.n
  loop
    hidden := hidden || format(
      E'\n      - case when %s then array[]::text[] when t.%I is null and t.gdpr_subject_id = p_subject then array[]::text[] else %L::text[] end',
      v_link.mine, v_link.name, v_link.columns || v_link.name
    );
    if not v_link.via then
      concerns_person := concerns_person || ' or ' || v_link.mine;
      rows_of_person := rows_of_person || format(
        E'\n      union all\n      select t.tableoid, t.ctid, t.* from %s as p join %s as t on t.%I = p.%I where p.gdpr_subject_id = p_subject',
        v_parent, v_table.relation, v_link.name, v_table.parent_columns[1]
      );
    end if;
  end loop;
  if v_table.joint_columns is not null then
    rows_of_person := format(E'select distinct on (u.gdpr_part, u.ctid) u.* from (\n      %s\n    ) as u', rows_of_person);
  end if;
  select coalesce(string_agg(format('t.%I', a.attname), ', ' order by k.n), 't.ctid')
  into row_key
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = v_table.relation and x.indisprimary;
end
$function$;
comment on function gdpr_generated.access_code(smallint) is
  'The SQL from which access to a table is generated: the rows that concern a person, of which she may be a joint holder; whether a row t does; what to take from a joint row because it is about the others; the order of rows.';

create or replace function gdpr_generated.generate_access(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_columns text;
  v_code record := gdpr_generated.access_code(p_table);
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  select string_agg(format('t.%I', a.attname), ', ' order by a.attnum)
  into v_columns
  from pg_attribute as a
  where a.attrelid = v_relation and a.attnum > 0 and not a.attisdropped and not gdpr_internal.is_control_column(p_table, a.attname);

  -- offset 0: the rows are found by the person, or by their place, and sorted then; never read in the order of another index
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_subject bigint, p_part oid, p_places tid[])
returns table (owner_id bigint, content jsonb)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set debug_print_plan = off
set timezone = 'UTC'
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 3
set bytea_output = 'hex'
as $body$
#variable_conflict use_variable
begin
  if p_places is null then
    return query
    select t.gdpr_subject_id, (select to_jsonb(gdpr_row) from (select %3$s) as gdpr_row)%4$s
    from (
      %5$s
      offset 0
    ) as t
    order by %6$s;
  else
    return query
    select t.gdpr_subject_id, (select to_jsonb(gdpr_row) from (select %3$s) as gdpr_row)%4$s
    from (select t.ctid, t.* from %2$s as t where t.tableoid = p_part and t.ctid = any (p_places) offset 0) as t
    where %7$s
    order by %6$s;
  end if;
  set constraints all immediate;
end
$body$
$code$,
    'access_' || p_table, v_relation, v_columns, v_code.hidden, v_code.rows_of_person, v_code.row_key, v_code.concerns_person
  ));
  execute format(
    'comment on function gdpr_generated.%I(bigint, oid, tid[]) is %L', 'access_' || p_table,
    format('A person''s rows in %s as stored: all, or those at some places of a partition. Generated by gdpr.apply().', v_relation)
  );
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_subject bigint, p_size integer)
returns table (part oid, places tid[])
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $body$
#variable_conflict use_variable
begin
  return query
  select p.gdpr_part, array_agg(p.ctid order by p.n)
  from (
    select t.gdpr_part, t.ctid, row_number() over (partition by t.gdpr_part order by %3$s) as n
    from (
      %2$s
      offset 0
    ) as t
  ) as p
  group by p.gdpr_part, (p.n - 1) / p_size
  order by p.gdpr_part, (p.n - 1) / p_size;
  set constraints all immediate;
end
$body$
$code$,
    'access_pages_' || p_table, v_code.rows_of_person, v_code.row_key
  ));
  execute format(
    'comment on function gdpr_generated.%I(bigint, integer) is %L', 'access_pages_' || p_table,
    format('Where a person''s rows in %s are, so many at a time. Generated by gdpr.apply().', v_relation)
  );
end
$function$;
comment on function gdpr_generated.generate_access(smallint) is
  'Generates the functions that read all rows of a person in a protected table, at once or by their places.';

create or replace function gdpr_generated.generate_access_dispatch()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_rows text;
  v_pages text;
begin
  select
    string_agg(format(
      E'  if p_tables is null or %1$s = any (p_tables) then\n'
      '    return query select %1$s::smallint, r.* from gdpr_generated.%2$I(p_subject, p_part, p_places) as r;\n'
      '  end if;\n',
      t.id, 'access_' || t.id
    ), '' order by t.depth, t.id),
    string_agg(format(
      E'  return query select %1$s::smallint, p.part, p.places from gdpr_generated.%2$I(p_subject, p_size) as p;\n',
      t.id, 'access_pages_' || t.id
    ), '' order by t.depth, t.id)
  into v_rows, v_pages
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null;
  perform gdpr_generated.define_dispatch(
    'access_rows(p_subject bigint, p_tables smallint[], p_part oid, p_places tid[])',
    'table (table_id smallint, owner_id bigint, content jsonb)', v_rows
  );
  comment on function gdpr_generated.access_rows(bigint, smallint[], oid, tid[]) is
    'A person''s rows as stored, in some protected tables (null: all), or at some places of one. Generated by gdpr.apply().';
  perform gdpr_generated.define_dispatch(
    'access_pages(p_subject bigint, p_size integer)', 'table (table_id smallint, part oid, places tid[])', v_pages
  );
  comment on function gdpr_generated.access_pages(bigint, integer) is
    'Where a person''s rows are in every protected table, so many at a time. Generated by gdpr.apply().';
  grant execute on function
    gdpr_generated.access_rows(bigint, smallint[], oid, tid[]), gdpr_generated.access_pages(bigint, integer) to gdpr_keyholder;
end
$function$;
comment on function gdpr_generated.generate_access_dispatch() is
  'Generates gdpr_generated.access_rows() and access_pages(): one static call for each protected table.';
