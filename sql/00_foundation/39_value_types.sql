-- [code] What encryption makes of a column's type, and which of its CHECK constraints go on in triggers.
-- GDPR Art. 32. Called by: gdpr.plan(), the generators. Ciphertext is text: the type of before has to hold elsewhere.
-- Code with the keys in reach handles PostgreSQL's own types only. Values of the owner's types (enum, domain) travel as a type of
-- the system, their carrier; what the owner made of the type runs as whoever writes, as it did before.

set local role gdpr_owner;

create or replace function gdpr_internal.reads_latest()
returns boolean
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  -- a snapshot that is kept does not have what came after it, and what a plan takes for granted outlives the transaction
  select current_setting('transaction_isolation') in ('read committed', 'read uncommitted');
end;
comment on function gdpr_internal.reads_latest() is
  'Whether volatile functions read the catalog as it is now: what functions that the planner asks may be certain of.';

create or replace function gdpr_internal.has_types(p_table regclass, p_columns name[], p_types regtype[])
returns boolean
language sql
-- reads, but with a snapshot of its own: what changed since the statement that asks began is seen
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  select not exists (
    select from unnest(p_columns, p_types) as c (name, type)
    left join pg_attribute as a on a.attrelid = p_table and a.attname = c.name and a.attnum > 0 and not a.attisdropped
    where a.atttypid is distinct from c.type::oid
  );
end;
comment on function gdpr_internal.has_types(regclass, name[], regtype[]) is 'Whether the columns of a table have these types.';

create or replace function gdpr_internal.keeps_types(p_table regclass, p_columns name[], p_types regtype[])
returns boolean
language plpgsql
-- not true, but what lets the planner ask: an ALTER of the table makes plans that name it anew
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_internal.reads_latest() and gdpr_internal.has_types(p_table, p_columns, p_types);
end
$function$;
comment on function gdpr_internal.keeps_types(regclass, name[], regtype[]) is
  'Whether the columns of a table have these types; true is certain. For the planner, which asks before each plan of a condition in a trigger function.';

create or replace function gdpr_internal.type_forms(
  p_type oid, p_typmod integer, out carrier text, out shown text, out is_domain boolean, out labels text
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_type pg_type;
begin
  is_domain := false;
  select * into v_type from pg_type as y where y.oid = p_type;
  if v_type.typtype = 'd' then
    select f.carrier, f.shown, f.labels into carrier, shown, labels from gdpr_internal.type_forms(v_type.typbasetype, v_type.typtypmod) as f;
    is_domain := true;
  elsif v_type.typelem <> 0 and v_type.typsubscript = 'array_subscript_handler'::regproc then
    select f.carrier || '[]', f.shown || '[]', f.is_domain, f.labels into carrier, shown, is_domain, labels
    from gdpr_internal.type_forms(v_type.typelem, p_typmod) as f;
  elsif v_type.typtype = 'e' then
    carrier := 'text';
    shown := format_type(p_type, null);
    labels := shown;
  elsif v_type.typtype in ('b', 'r', 'm') and v_type.typnamespace = 'pg_catalog'::regnamespace
    and v_type.typname !~ '^reg' and v_type.typname <> all (array['money', 'xml', 'tsvector', 'tsquery', 'pg_lsn', 'oid'])
  then
    carrier := format_type(p_type, p_typmod);
    shown := carrier;
  elsif exists (
    select from pg_depend as d
    join pg_extension as e on e.oid = d.refobjid
    where d.classid = 'pg_type'::regclass and d.objid = p_type and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
      and e.extname = 'citext'
  ) then
    carrier := 'text';
    shown := format_type(p_type, null);
  end if;
end
$function$;
comment on function gdpr_internal.type_forms(oid, integer) is
  'A column''s type under encryption. carrier: the type of PostgreSQL''s own as which its values are read and checked, null where they cannot be encrypted; shown: the type in views, a domain''s base type; is_domain: constraints of a domain hold; labels: the enum whose labels alone are values.';

create or replace function gdpr_internal.column_type(p_relation regclass, p_column name, p_encrypted boolean)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
begin
  return (
    select coalesce(
      (
        select coalesce(c.original ->> 'labels', c.original_type) from gdpr_internal.protected_column as c
        join gdpr_internal.protected_table as t on t.id = c.table_id
        where t.relation = p_relation and t.unprotected_at is null and c.column_name = p_column and c.encrypt <> 'no'
      ),
      (
        select coalesce(case when p_encrypted then coalesce(f.labels, f.carrier) end, format_type(a.atttypid, a.atttypmod))
        from pg_attribute as a
        cross join lateral gdpr_internal.type_forms(a.atttypid, a.atttypmod) as f
        where a.attrelid = p_relation and a.attname = p_column and a.attnum > 0 and not a.attisdropped
      )
    )
  );
end
$function$;
comment on function gdpr_internal.column_type(regclass, name, boolean) is
  'The type by which a policy is judged: of a column that is or will be encrypted what its values are, else the column''s own.';

create or replace function gdpr_internal.type_default(p_type oid)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    with recursive chain (oid, base, expression, n) as (
      select y.oid, y.typbasetype, pg_get_expr(y.typdefaultbin, 0), 1 from pg_type as y where y.oid = p_type and y.typtype = 'd'
      union all
      select y.oid, y.typbasetype, pg_get_expr(y.typdefaultbin, 0), c.n + 1
      from chain as c join pg_type as y on y.oid = c.base and y.typtype = 'd'
    )
    select c.expression from chain as c where c.expression is not null order by c.n limit 1
  );
end
$function$;
comment on function gdpr_internal.type_default(oid) is 'The default of a domain, which its columns have without saying so.';

create or replace function gdpr_internal.checks_over(p_relation regclass, p_attnum smallint)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  -- under this search_path everything outside pg_catalog is written with its schema
  select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
    'name', k.conname, 'definition', pg_get_constraintdef(k.oid), 'comment', obj_description(k.oid, 'pg_constraint'),
    -- one that is NOT ENFORCED (since PostgreSQL 18) is put back, and tested no more than before
    'check', case when not to_jsonb(k) @> '{"conenforced": false}' then pg_get_expr(k.conbin, k.conrelid) end,
    'columns', (
      select jsonb_agg(jsonb_build_object(
        'position', a.attnum, 'name', a.attname,
        'type', coalesce(
          (
            select coalesce(c.original ->> 'type', c.original_type) from gdpr_internal.protected_column as c
            join gdpr_internal.protected_table as t on t.id = c.table_id
            where t.relation = p_relation and t.unprotected_at is null and c.position = a.attnum and c.encrypt <> 'no'
          ), format_type(a.atttypid, a.atttypmod)
        )
      ) order by a.attnum)
      from pg_attribute as a where a.attrelid = k.conrelid and a.attnum = any (k.conkey)
    )
  )) order by k.conname)
  from pg_constraint as k
  where k.conrelid = p_relation and k.contype = 'c' and p_attnum = any (k.conkey);
end;
comment on function gdpr_internal.checks_over(regclass, smallint) is
  'The CHECK constraints over a column, as apply() keeps them: what unprotect() puts back, and the expression with its columns for the triggers that test it meanwhile.';

create or replace function gdpr_internal.is_loose(p_check jsonb)
returns boolean
language sql
immutable
parallel safe
security invoker
begin atomic
  select p_check ->> 'definition' like '% NOT VALID';
end;
comment on function gdpr_internal.is_loose(jsonb) is
  'Whether a CHECK constraint, as apply() keeps it, is NOT VALID: rows that were there before need not fulfil it, as long as nobody changes them.';

create or replace function gdpr_internal.with_loose_checks(p_original jsonb, p_before jsonb)
returns jsonb
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select p_original || coalesce((
    select jsonb_build_object('checks', coalesce(p_original -> 'checks', '[]') || jsonb_agg(c order by c ->> 'name'))
    from jsonb_array_elements(p_before -> 'checks') as c
    where gdpr_internal.is_loose(c) and not exists (
      select from jsonb_array_elements(p_original -> 'checks') as o where o ->> 'name' = c ->> 'name'
    )
    having count(*) > 0
  ), '{}');
end;
comment on function gdpr_internal.with_loose_checks(jsonb, jsonb) is
  'What encryption takes from a column, with those CHECK constraints that enabling took off its table before (p_before) because they are NOT VALID.';

create or replace function gdpr_internal.closed_schema(p_namespace oid, p_relation regclass)
returns name
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select n.nspname from pg_namespace as n
    where n.oid = p_namespace and n.oid <> (select c.relnamespace from pg_class as c where c.oid = p_relation)
      and not (has_schema_privilege('gdpr_keyholder', n.oid, 'usage') and has_schema_privilege('gdpr_viewer', n.oid, 'usage'))
  );
end
$function$;
comment on function gdpr_internal.closed_schema(oid, regclass) is
  'The name of a schema that the generators cannot look into; null for one that they can: that of the table will be opened to them.';

create or replace function gdpr_internal.check_problem(p_relation regclass, p_constraint oid)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when exists (
      select from unnest(k.conkey) as u (attnum)
      left join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.attnum
      where u.attnum <= 0 or a.attgenerated <> ''
    ) then 'looks at the row as a whole, at a system column or at a generated one, which a trigger cannot; write it over plain columns'
    else (
      select format('uses something in schema %1$I; grant usage on schema %1$I to gdpr_keyholder, gdpr_viewer', min(c.name))
      from pg_depend as d
      cross join lateral (
        select gdpr_internal.closed_schema(coalesce(
          (select p.pronamespace from pg_proc as p where d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid),
          (select o.oprnamespace from pg_operator as o where d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid),
          (select y.typnamespace from pg_type as y where d.refclassid = 'pg_type'::regclass and y.oid = d.refobjid),
          (select l.collnamespace from pg_collation as l where d.refclassid = 'pg_collation'::regclass and l.oid = d.refobjid)
        ), p_relation) as name
      ) as c
      where d.classid = 'pg_constraint'::regclass and d.objid = k.oid and c.name is not null
      having min(c.name) is not null
    )
  end
  from pg_constraint as k
  where k.oid = p_constraint;
end;
comment on function gdpr_internal.check_problem(regclass, oid) is 'Why a CHECK constraint cannot go on as a trigger; null when it can.';

create or replace function gdpr_internal.publication_problems(p_where text, p_relation regclass, p_column name)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select coalesce(array_agg(distinct format(
      '%s: publication %I sends it to subscribers, who would get ciphertext, and columns that they do not have; %s', p_where, p.pubname,
      case
        when p.puballtables then 'FOR ALL TABLES leaves none out: publish the tables by name, without this one; then apply'
        else 'take the table out of the publication and apply; publish it again with a list of columns'
      end
    )), '{}')
    from pg_publication as p
    cross join lateral pg_get_publication_tables(p.pubname::text) as g
    join pg_attribute as a on a.attrelid = g.relid and a.attname = p_column
    where (g.relid = p_relation or g.relid in (select i.relid from pg_partition_tree(p_relation) as i))
      and (g.attrs is null or a.attnum = any (g.attrs))
  );
end
$function$;
comment on function gdpr_internal.publication_problems(text, regclass, name) is 'Publications that would send the ciphertext of a column.';
