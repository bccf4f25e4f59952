-- [code] The register follows what was done to a table while its controls were off.
-- GDPR Art. 25, 5(2). Called by: gdpr.end_reshape(), as its steps; granted to gdpr_admin.

set local role gdpr_owner;

create or replace function gdpr_internal.column_defaults(p_relation regclass)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(jsonb_object_agg(d.adnum, pg_get_expr(d.adbin, d.adrelid)), '{}') from pg_attrdef as d where d.adrelid = p_relation;
end;
comment on function gdpr_internal.column_defaults(regclass) is 'The defaults of a table''s columns, by position.';

create or replace function gdpr_internal.open_reshape(p_role name, p_relation regclass)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_settled boolean;
begin
  select * into v_table from gdpr_internal.protected_table as t where t.id = gdpr_internal.own_table(p_role, p_relation);
  if exists (select from gdpr_internal.reshape as r where r.table_id = v_table.id) then
    return false;
  end if;
  v_settled := v_table.fingerprint is not distinct from gdpr_internal.fingerprint(p_relation);
  if v_settled or not exists (select from gdpr_internal.known_column as k where k.table_id = v_table.id) then
    -- a restored table has its columns at other positions
    perform gdpr_internal.know_columns(v_table.id);
  elsif exists (
    select from gdpr_internal.changed_names(v_table.id) as c
    join pg_attribute as a on a.attrelid = p_relation and a.attname = c.was and a.attnum > 0 and not a.attisdropped
  ) then
    perform gdpr_internal.refuse('drifted', 'columns have each other''s names, or a restored table was changed: apply() first, or give them their names back');
  end if;
  -- whoever set all constraints to immediate would be refused here instead of at the end
  set constraints gdpr_internal.gdpr_00_closed deferred;
  insert into gdpr_internal.reshape (table_id, drifted, defaults, neighbours)
  select v_table.id, not v_settled, gdpr_internal.column_defaults(p_relation), array(
    select t.id from gdpr_internal.protected_table as t
    where t.unprotected_at is null and t.id = any (gdpr_internal.neighbours(v_table.id))
      and t.fingerprint is not distinct from gdpr_internal.fingerprint(t.relation)
  );
  update gdpr_internal.protected_table as t set fingerprint = null where t.id = v_table.id;
  return true;
end
$function$;
comment on function gdpr_internal.open_reshape(name, regclass) is 'See gdpr_policy.open_reshape(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.open_reshape(p_relation regclass)
returns boolean
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.open_reshape(current_user, p_relation);
end;
comment on function gdpr_policy.open_reshape(regclass) is
  'Step of reshape(): from here on this transaction cannot commit before end_reshape(). false: it is open already. Errors: PR002, PR409, 42501.';

create or replace function gdpr_internal.neighbours(p_table smallint)
returns smallint[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(distinct o.id), '{}')
  from gdpr_internal.protected_table as t
  join gdpr_internal.protected_table as o on o.unprotected_at is null and o.id <> t.id and (
    o.parent_id = t.id or o.id = t.parent_id
    or exists (
      select from pg_constraint as k
      where k.contype = 'f' and (k.conrelid, k.confrelid) in ((t.relation, o.relation), (o.relation, t.relation))
    )
    or exists (
      select from gdpr_internal.protected_column as c where c.table_id = o.id and starts_with(c.same_as, t.known_as || '.')
    )
  )
  where t.id = p_table;
end;
comment on function gdpr_internal.neighbours(smallint) is
  'Protected tables whose definition or generated code names this one: parents, children, all that foreign keys join, copies.';

create or replace function gdpr_policy.open_reshapes()
returns setof regclass
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select t.relation
  from gdpr_internal.reshape as r
  join gdpr_internal.protected_table as t on t.id = r.table_id
  order by t.depth, t.id;
end;
comment on function gdpr_policy.open_reshapes() is 'The tables whose controls this transaction has taken off, parents first.';

create or replace function gdpr_policy.own_table(p_relation regclass)
returns smallint
language sql
stable
parallel safe
security invoker
begin atomic
  select gdpr_internal.own_table(current_user, p_relation);
end;
comment on function gdpr_policy.own_table(regclass) is 'The number of a protected table that the caller owns. Errors: PR002, 42501.';

create or replace function gdpr_internal.require_closed()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if exists (select from gdpr_internal.reshape as r where r.table_id = new.table_id) then
    perform gdpr_internal.refuse('reshape_open', (select t.relation::text from gdpr_internal.protected_table as t where t.id = new.table_id));
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.require_closed() is 'At the commit of a transaction that took the controls off a table: refuses it while they are off. Error: PR415.';

do $trigger$
begin
  if not exists (select from pg_trigger as g where g.tgrelid = 'gdpr_internal.reshape'::regclass and g.tgname = 'gdpr_00_closed') then
    create constraint trigger gdpr_00_closed after insert or update on gdpr_internal.reshape
    deferrable initially deferred for each row execute function gdpr_internal.require_closed();
  end if;
end
$trigger$;
alter table gdpr_internal.reshape enable always trigger gdpr_00_closed;

create or replace function gdpr_policy.guard_reshape()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refuse('reshape_open', tg_relid::regclass::text);
  return null;
end
$function$;
comment on function gdpr_policy.guard_reshape() is 'Refuses to write rows while no audit trigger would see it. Error: PR415.';

create or replace function gdpr_policy.refuse_reshape(p_relation regclass)
returns boolean
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.refuse('reshape_open', p_relation::text);
end;
comment on function gdpr_policy.refuse_reshape(regclass) is 'Row policy of a table whose controls are off: no row is shown, with an error that says why. Error: PR415.';

create or replace function gdpr_internal.tripwires(p_table smallint)
returns table ("position" smallint, name name, wire oid)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select s.position, s.name, w.oid
  from (
    select t.relation, k.position, format('gdpr_00_reshape_%s_%s', t.id, k.position)::name as name
    from gdpr_internal.protected_table as t
    join gdpr_internal.known_column as k on k.table_id = t.id
    where t.id = p_table and k.column_name !~ '^gdpr_'
  ) as s
  left join pg_statistic_ext as w on w.stxrelid = s.relation and w.stxname = s.name;
end;
comment on function gdpr_internal.tripwires(smallint) is
  'Statistics objects that stand over columns while a table is reshaped, and hold no statistics: of all that depends on a column they go along when it is dropped, and are made anew, with another oid, when ALTER COLUMN TYPE changes it.';

create or replace function gdpr_internal.reshape_guards(p_relation regclass)
returns table (name name, "row" jsonb)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- disabled and enabled again, it is another version of its row
  select g.tgname, jsonb_build_array(g.oid, g.ctid)
  from pg_trigger as g
  where g.tgrelid = p_relation and g.tgparentid = 0 and g.tgname in ('zzz_gdpr_00_reshape', 'zzz_gdpr_05_guard', 'zzz_gdpr_40_truncate');
end;
comment on function gdpr_internal.reshape_guards(regclass) is
  'The triggers without which a table, or a partition, is not written while its shape is changed: statements, the columns gdpr_*, TRUNCATE.';

create or replace function gdpr_internal.watch_reshape(p_role name, p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- once: who changes something first, and looks then, has looked too late
  update gdpr_internal.reshape as r
  set state = jsonb_build_object(
    'columns', (select coalesce(jsonb_object_agg(w.position, w.wire), '{}') from gdpr_internal.tripwires(r.table_id) as w),
    'files', (
      select jsonb_object_agg(f.f::oid, pg_relation_filenode(f.f)) from gdpr_internal.relation_tree(p_relation) as f (f)
      where pg_relation_filenode(f.f) is not null
    ),
    'guards', (
      select coalesce(jsonb_agg(jsonb_build_object('relation', f.f::oid, 'name', g.name, 'row', g."row")), '[]')
      from gdpr_internal.relation_tree(p_relation) as f (f)
      cross join lateral gdpr_internal.reshape_guards(f.f) as g
    )
  )
  where r.table_id = gdpr_internal.own_table(p_role, p_relation) and r.state is null;
end;
comment on function gdpr_internal.watch_reshape(name, regclass) is 'See gdpr_policy.watch_reshape(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.watch_reshape(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.watch_reshape(current_user, p_relation);
end;
comment on function gdpr_policy.watch_reshape(regclass) is
  'Step of reshape(): remembers by what end_reshape() will tell which columns ALTER TABLE has written, and whether rows were.';

create or replace function gdpr_policy.tripwires(p_relation regclass)
returns setof text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select format('create statistics %I.%I on (%I is null) from %s', n.nspname, w.name, a.attname, p_relation)
  from gdpr_internal.tripwires(gdpr_internal.table_id(p_relation)) as w
  join pg_attribute as a on a.attrelid = p_relation and a.attnum = w.position and not a.attisdropped and a.attgenerated = ''
  join pg_class as c on c.oid = p_relation
  join pg_namespace as n on n.oid = c.relnamespace
  where w.wire is null
  order by w.position;
end;
comment on function gdpr_policy.tripwires(regclass) is
  'Step of reshape(): statements that make what tells of ALTER COLUMN TYPE. Its table''s owner needs CREATE on the schema.';

create or replace function gdpr_internal.altered_columns(p_table smallint)
returns setof smallint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select w.position
  from gdpr_internal.reshape as r
  cross join lateral jsonb_each_text(r.state -> 'columns') as s (key, wire)
  join gdpr_internal.tripwires(p_table) as w on w.position = s.key::smallint and w.wire::text is distinct from s.wire
  where r.table_id = p_table;
end;
comment on function gdpr_internal.altered_columns(smallint) is
  'Positions of columns that were altered by ALTER COLUMN TYPE since reshape(), or dropped; or whose tripwire was.';

create or replace function gdpr_internal.is_rewritten(p_table smallint)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (
    select from gdpr_internal.reshape as r
    cross join lateral jsonb_each_text(r.state -> 'files') as f (relation, file)
    join pg_class as c on c.oid = f.relation::oid
    where r.table_id = p_table and pg_relation_filenode(c.oid)::text is distinct from f.file
  );
end;
comment on function gdpr_internal.is_rewritten(smallint) is
  'Whether a table or one of its partitions lies in another file since reshape(): only then may ALTER COLUMN TYPE have changed values. So it does after CLUSTER, or a new column with a default of its own in each row.';

create or replace function gdpr_internal.shape_problems(p_table smallint)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_problems text[];
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select coalesce(array_agg(p.problem), '{}') into v_problems
  from (
    select format('%I: is kept by gdprdb; it cannot be renamed, dropped or changed', c.was) as problem
    from gdpr_internal.changed_names(p_table) as c
    where gdpr_internal.is_control_column(p_table, c.was)
    union all
    select format('%I: names that begin with gdpr_ are gdprdb''s own', a.attname)
    from pg_attribute as a
    where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped and a.attname ~ '^gdpr_'
      and not exists (
        select from gdpr_internal.known_column as k where k.table_id = p_table and k.position = a.attnum and k.column_name ~ '^gdpr_'
      )
    union all
    select format('%I: is kept by gdprdb; its type cannot be changed', a.attname)
    from gdpr_internal.control_columns(v_table.relation, v_table.definition) as c
    join pg_attribute as a on a.attrelid = v_table.relation and a.attname = c.column_name and not a.attisdropped
    where a.atttypid <> c.type::regtype and c.column_name !~ '_mask$'
    union all
    select format('%I: says whose the rows are; gdpr.unprotect() the table first', c.was)
    from gdpr_internal.changed_names(p_table) as c
    where c.now is null and c.was = any (v_table.via_columns || v_table.joint_columns)
    union all
    select format('%I: hold %s keeps it; gdpr.release_hold() first, or leave the column', c.was, h.id)
    from gdpr_internal.changed_names(p_table) as c
    join gdpr_internal.live_hold as h on coalesce(h.table_id, p_table) = p_table and (h.columns is null or c.was = any (h.columns))
    where c.now is null and not gdpr_internal.is_control_column(p_table, c.was)
    union all
    select format(
      '%I: is encrypted, and text for PostgreSQL: ALTER COLUMN TYPE would change ciphertext; before or after, UPDATE gdpr_clear.%I changes its values, and gdpr.retype() its type',
      a.attname, v_table.view_name
    )
    from gdpr_internal.protected_column as p
    join gdpr_internal.known_column as k on k.table_id = p.table_id and k.column_name = p.column_name
    join pg_attribute as a on a.attrelid = v_table.relation and a.attnum = k.position and not a.attisdropped
    where p.table_id = p_table and p.encrypt <> 'no'
      and (a.atttypid <> 'text'::regtype or a.attnum in (select gdpr_internal.altered_columns(p_table)))
    union all
    select format(
      'trigger %I on %s was dropped or changed: rows may have been written past the audit log; they are written before gdpr.reshape() or after it',
      g.name, g.relation
    )
    from gdpr_internal.reshape as r
    cross join lateral jsonb_to_recordset(r.state -> 'guards') as g (relation regclass, name name, "row" jsonb)
    where r.table_id = p_table
      and exists (select from pg_class as c where c.oid = g.relation)
      and not exists (select from gdpr_internal.reshape_guards(g.relation) as n where n.name = g.name and n."row" = g."row")
    union all
    select format('%I: %s', p.column_name, d.problem)
    from gdpr_internal.protected_column as p
    join gdpr_internal.known_column as k on k.table_id = p.table_id and k.column_name = p.column_name
    join pg_attribute as a on a.attrelid = v_table.relation and a.attnum = k.position and not a.attisdropped
    cross join lateral (
      select u from unnest(gdpr_internal.dependent_problems(v_table.relation, a, p.encrypt)) as u
      union all
      -- those that apply() found are held by a trigger
      select format('constraint %I would test the ciphertext; drop it, and test in the application or a trigger', k.conname)
      from pg_constraint as k where k.conrelid = v_table.relation and k.contype = 'c' and a.attnum = any (k.conkey)
    ) as d (problem)
    where p.table_id = p_table and p.encrypt <> 'no'
  ) as p;
  return v_problems;
end
$function$;
comment on function gdpr_internal.shape_problems(smallint) is 'What was done to a table that its protection cannot follow.';

create or replace function gdpr_internal.renamed_unique(p_original jsonb, p_name text)
returns jsonb
language sql
immutable
parallel safe
security invoker
begin atomic
  select (p_original - array['unique_name', 'unique_constraint', 'constraints', 'indexes'])
    || case when p_name is null then '{}' else jsonb_strip_nulls(jsonb_build_object('unique_name', p_name, 'unique_constraint', p_original -> 'unique_constraint')) end
    || coalesce(jsonb_object_agg(k.kind, k.list), '{}')
  from (
    select o.kind, jsonb_agg(case
      when not o.is_unique then o.value
      else o.value || jsonb_build_object(
        'name', case when strpos(o.value ->> 'name', '.') > 0 then format('%s.%I', split_part(o.value ->> 'name', '.', 1), p_name) else p_name end,
        'definition', regexp_replace(o.value ->> 'definition', '^(CREATE UNIQUE INDEX )("(?:[^"]|"")+"|\S+)', format('\1%I', p_name))
      )
    end order by o.n) as list
    from (
      select 'constraints' as kind, c.value, c.n, c.value ->> 'name' = p_original ->> 'unique_name' as is_unique
      from jsonb_array_elements(p_original -> 'constraints') with ordinality as c (value, n)
      union all
      select 'indexes', i.value, i.n, (parse_ident(i.value ->> 'name'))[2] = p_original ->> 'unique_name'
      from jsonb_array_elements(p_original -> 'indexes') with ordinality as i (value, n)
    ) as o
    where p_name is not null or o.is_unique is not true
    group by o.kind
  ) as k;
end;
comment on function gdpr_internal.renamed_unique(jsonb, text) is
  'What unprotect() will put back of a column, after its unique index was renamed (p_name), or dropped (null).';

create or replace function gdpr_internal.digest_statements(p_table smallint, p_names jsonb)
returns setof text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_relation regclass := (select t.relation from gdpr_internal.protected_table as t where t.id = p_table);
  v_column record;
  v_new jsonb;
  v_unique record;
begin
  -- what UNIQUE became when the column was encrypted, and what has become of it now
  for v_column in
    select
      c.id, c.column_name, c.encrypt, c.original, c.original_type, a.attnum, d.attnum as digest, r.defaults ->> a.attnum::text as was,
      gdpr_internal.column_defaults(v_relation) ->> a.attnum::text as given
    from gdpr_internal.protected_column as c
    join gdpr_internal.reshape as r on r.table_id = c.table_id
    join pg_attribute as a on a.attrelid = v_relation and a.attname = c.column_name and not a.attisdropped
    left join pg_attribute as d on d.attrelid = v_relation and not d.attisdropped
      -- it is not renamed yet
      and d.attname = 'gdpr_' || coalesce((select n.key from jsonb_each_text(p_names) as n where n.value = c.column_name), c.column_name) || '_digest'
    where c.table_id = p_table and c.encrypt <> 'no'
  loop
    v_new := gdpr_internal.original_column(v_relation, v_column.column_name, v_column.encrypt);
    if v_column.original ? 'unique_name' then
      select i.relname, k.oid is not null as is_constraint into v_unique
      from pg_index as x
      join pg_class as i on i.oid = x.indexrelid
      left join pg_constraint as k on k.conindid = x.indexrelid and k.contype = 'u'
      where x.indrelid = v_relation and x.indisunique and x.indkey::text = v_column.digest::text
      order by i.relname
      limit 1;
      -- dropped, renamed, or as it was
      v_column.original := gdpr_internal.renamed_unique(v_column.original, v_unique.relname);
    end if;
    -- indexes and constraints that were made over ciphertext move as they did when it was encrypted
    for v_unique in
      select case when k.oid is not null then format('alter table %s drop constraint %I', v_relation, k.conname)
        else format('drop index %s', x.indexrelid::regclass) end as statement
      from pg_index as x
      left join pg_constraint as k on k.conindid = x.indexrelid and k.conrelid = v_relation and k.contype = 'u'
      where x.indrelid = v_relation and not x.indisprimary and (v_column.attnum = any (x.indkey) or exists (
        select from pg_depend as d
        where d.classid = 'pg_class'::regclass and d.objid = x.indexrelid and d.refobjid = v_relation and d.refobjsubid = v_column.attnum
      ))
    loop
      return next v_unique.statement;
    end loop;
    if v_column.given is distinct from v_column.was then
      v_column.original := v_column.original - 'default' || case
        when v_column.given is null then '{}'
        when v_column.original_type = 'text' then jsonb_build_object('default', v_column.given)
        else jsonb_build_object('default', format('(%s)::%s', v_column.given, v_column.original_type))
      end;
    end if;
    if v_column.original ? 'default' and (v_column.given is null or v_column.given is distinct from v_column.was)
      and not (v_column.given is not null and v_column.original_type = 'text')
    then
      return next format('alter table %s alter column %I set default %s', v_relation, v_column.column_name,
        gdpr_internal.text_expression(format('(%s)', v_column.original ->> 'default'), v_column.original_type));
    end if;
    update gdpr_internal.protected_column as c
    set original = v_column.original || (v_new - array['default', 'collation', 'constraints', 'indexes', 'checks'])
      || jsonb_strip_nulls(jsonb_build_object(
        'constraints', nullif(coalesce(v_column.original -> 'constraints', '[]') || coalesce(v_new -> 'constraints', '[]'), '[]'),
        'indexes', nullif(coalesce(v_column.original -> 'indexes', '[]') || coalesce(v_new -> 'indexes', '[]'), '[]')
      ))
    where c.id = v_column.id;
  end loop;
end
$function$;
comment on function gdpr_internal.digest_statements(smallint, jsonb) is
  'Follows what became of indexes and constraints of encrypted columns; returns the statements that take away those that were made over ciphertext.';

create or replace function gdpr_internal.value_statements(p_table smallint)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
begin
  return (
    with shape as (
      select t.relation, r.retyped, c.column_name, c.original_type, c.encrypt, c.identifier, c.canonical, a.attname, a.attnum,
        format_type(a.atttypid, a.atttypmod) as type
      from gdpr_internal.protected_table as t
      join gdpr_internal.reshape as r on r.table_id = t.id
      join gdpr_internal.protected_column as c on c.table_id = t.id
      join gdpr_internal.known_column as k on k.table_id = t.id and k.column_name = c.column_name
      join pg_attribute as a on a.attrelid = t.relation and a.attnum = k.position and not a.attisdropped
      where t.id = p_table
    )
    select coalesce(array_agg(s.statement order by s.n, s.place), '{}')
    from (
      select 1 as n, 0 as place, format('drop statistics %s.%I', w.stxnamespace::regnamespace, w.stxname) as statement
      from pg_statistic_ext as w
      join gdpr_internal.protected_table as t on t.relation = w.stxrelid
      where t.id = p_table and w.stxname ~ '^gdpr_00_reshape_'
      union all
      -- rows of nobody hold what erasure left there, in plaintext
      select 2, x.attnum, format('select gdpr_policy.empty_rows_of_nobody(%L, %L, %L)', x.relation, x.attname, gdpr_internal.neutral_value(x.original_type))
      from shape as x
      where x.encrypt <> 'no' and x.column_name = any (x.retyped)
      union all
      select 3, x.attnum, format(
        'select gdpr_policy.check_identifiers(%L, %L, %L, %L)', x.relation, x.attname,
        case when x.canonical = 'exact' then 'exact' else x.identifier end, gdpr_internal.text_expression(format('t.%I', x.attname), x.type)
      )
      from shape as x
      where x.encrypt = 'no' and x.identifier is not null
        and gdpr_internal.is_rewritten(p_table) and x.attnum in (select gdpr_internal.altered_columns(p_table))
    ) as s
  );
end
$function$;
comment on function gdpr_internal.value_statements(smallint) is
  'Statements of end_reshape() about values: the tripwires go, what is left of erased persons gets its type, identifiers that ALTER COLUMN TYPE has written are looked up.';

create or replace function gdpr_policy.check_identifiers(p_relation regclass, p_column name, p_kind text, p_expression text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_statements text[] := gdpr_policy.hush(p_relation);
  v_statement text;
begin
  v_statements := format(
    'select count(gdpr_policy.require_identifier(%1$L, %2$L, %3$L, %4$s)) from %1$s as t where gdpr_subject_id is not null and t.%2$I is not null',
    p_relation, p_column, p_kind, p_expression
  ) || v_statements;
  foreach v_statement in array v_statements loop
    execute v_statement;
  end loop;
end
$function$;
comment on function gdpr_policy.check_identifiers(regclass, name, text, text) is
  'Step of end_reshape(): whether the values of an identifier are those that persons are known by. p_expression: a value as text, of row t. Errors: PR414, PR402 locked.';

create or replace function gdpr_policy.require_identifier(p_relation regclass, p_column name, p_kind text, p_value text)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not exists (
    select from gdpr_internal.reshape as r join gdpr_internal.protected_table as t on t.id = r.table_id
    where t.relation = p_relation and r.closing
  ) then
    perform gdpr_internal.refuse('reshape_closed', p_relation::text);
  elsif gdpr_internal.canonical(p_kind, p_value) is not null and not exists (
    select from gdpr_internal.identifier as i where i.digest = (gdpr_internal.identifier_digests(p_kind, p_value)).digest
  ) then
    perform gdpr_internal.refuse('reshape_refused', format(
      '%I: persons are known by it, and ALTER COLUMN TYPE has changed its values; before or after, UPDATE gdpr_clear.%I changes them', p_column,
      (select t.view_name from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null)
    ));
  end if;
  return true;
end
$function$;
comment on function gdpr_policy.require_identifier(regclass, name, text, text) is
  'Refuses a value that no person is known by, while its table''s shape is changed. Errors: PR414, PR402 locked, PR416.';

create or replace function gdpr_internal.follow_shape(p_role name, p_relation regclass, out statements text[], out changes jsonb)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_table gdpr_internal.protected_table;
  v_reshape gdpr_internal.reshape;
  v_now text := p_relation::text;
  v_at timestamptz := clock_timestamp();
  v_names jsonb;
  v_dropped text[];
  v_places jsonb;
  v_problems text[];
  v_ids jsonb;
  v_stale name[];
  v_other record;
  v_read record;
  v_schema name;
begin
  select * into v_reshape from gdpr_internal.reshape as r where r.table_id = v_id;
  if v_reshape.state is null then
    perform gdpr_internal.refuse('reshape_closed', v_now);
  end if;
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = v_id;
  v_problems := gdpr_internal.shape_problems(v_id);
  if v_problems <> '{}' then
    perform gdpr_internal.refuse('reshape_refused', array_to_string(v_problems, E'\n'));
  end if;
  select
    coalesce(jsonb_object_agg(c.was, c.now) filter (where c.now is not null), '{}'),
    coalesce(array_agg(c.was::text) filter (where c.now is null), '{}')
  into v_names, v_dropped
  from gdpr_internal.changed_names(v_id) as c;
  select coalesce(jsonb_object_agg(format('%s.%I', v_table.known_as, k.column_name), format('%s.%I', v_now, gdpr_internal.renamed(k.column_name, v_names))), '{}')
    || jsonb_build_object(v_table.known_as, v_now)
  into v_places
  from gdpr_internal.known_column as k
  where k.table_id = v_id;
  changes := gdpr_internal.shape_changes(v_id, v_reshape);
  v_stale := array(
    select c.column_name
    from gdpr_internal.protected_column as c
    join gdpr_internal.known_column as k on k.table_id = c.table_id and k.column_name = c.column_name
    join pg_attribute as a on a.attrelid = p_relation and a.attnum = k.position and not a.attisdropped
    where c.table_id = v_id and c.encrypt = 'no' and c.mask = 'pseudonym' and (
      c.original_type <> format_type(a.atttypid, a.atttypmod)
      or gdpr_internal.is_rewritten(v_id) and a.attnum in (select gdpr_internal.altered_columns(v_id))
    )
  );
  statements := gdpr_internal.value_statements(v_id) || gdpr_internal.shadow_statements(v_id, v_reshape.retyped || v_stale);

  insert into gdpr_internal.former_name (table_id, position, name, became, column_id, original_type, special, withheld, until)
  select
    v_id, c.position, c.was, c.now, case when c.now is null then p.id end, case when c.now is null then p.original_type end,
    case when c.now is null then p.special end,
    c.now is null and coalesce(c.was = any (gdpr_internal.about_columns(v_table.definition)), false), v_at
  from gdpr_internal.changed_names(v_id) as c
  left join gdpr_internal.protected_column as p on p.table_id = v_id and p.column_name = c.was;
  if v_now <> v_table.known_as then
    insert into gdpr_internal.former_name (table_id, name, became, until) values (v_id, v_table.known_as, v_now, v_at);
    select n.nspname into v_schema from pg_namespace as n where n.nspname = (parse_ident(v_table.known_as))[1];
    if not exists (
      select from gdpr_internal.protected_table as t
      join pg_class as c on c.oid = t.relation
      where t.unprotected_at is null and c.relnamespace = to_regnamespace(quote_ident(v_schema))
    ) and v_schema is not null then
      statements := statements || format('revoke usage on schema %I from gdpr_owner, gdpr_keyholder, gdpr_worker, gdpr_viewer, gdpr_dpo', v_schema);
    end if;
  end if;

  -- two columns may have changed places: by way of names that no column has
  delete from gdpr_internal.protected_column as c where c.table_id = v_id and c.column_name = any (v_dropped);
  select coalesce(jsonb_object_agg(c.id, v_names ->> c.column_name), '{}') into v_ids
  from gdpr_internal.protected_column as c
  where c.table_id = v_id and v_names ? c.column_name::text;
  update gdpr_internal.protected_column as c set column_name = 'gdpr_' || c.id where c.table_id = v_id and v_ids ? c.id::text;
  update gdpr_internal.protected_column as c set column_name = v_ids ->> c.id::text where c.table_id = v_id and v_ids ? c.id::text;
  update gdpr_internal.erasure_review as r set column_name = v_names ->> r.column_name where r.table_id = v_id and v_names ? r.column_name::text;
  delete from gdpr_internal.known_column as k where k.table_id = v_id and k.column_name = any (v_dropped);
  update gdpr_internal.known_column as k set column_name = v_names ->> k.column_name where k.table_id = v_id and v_names ? k.column_name::text;
  update gdpr_internal.protected_column as c
  set original = gdpr_internal.renamed_original(c.original, v_names, v_dropped, v_table.known_as, v_now)
  where c.table_id = v_id and c.encrypt <> 'no';
  update gdpr_internal.protected_table as t
  set view_name = gdpr_internal.name_of_view(p_relation)
  where t.id = v_id and v_now <> t.known_as;

  -- its own definition, and those that name it
  for v_other in
    select t.id, t.relation,
      case when t.id = v_id then gdpr_internal.renamed_definition(gdpr_internal.definition_as_written(t.definition), v_names, v_dropped, v_places)
        else gdpr_internal.renamed_definition(gdpr_internal.definition_as_written(t.definition), '{}', '{}', v_places)
      end as definition
    from gdpr_internal.protected_table as t
    where t.unprotected_at is null
      and (t.id = v_id or t.parent_id = v_id or exists (
        select from gdpr_internal.protected_column as c where c.table_id = t.id and v_places ? c.same_as
      ))
    order by t.id <> v_id, t.id
  loop
    if v_other.id <> v_id and exists (select from gdpr_internal.reshape as r where r.table_id = v_other.id and not r.closing) then
      -- its own turn comes: until then its columns have names that nobody has followed
      update gdpr_internal.protected_table as t
      set definition = gdpr_internal.renamed_definition(t.definition, '{}', '{}', v_places)
      where t.id = v_other.id;
      continue;
    end if;
    v_read := gdpr_internal.read_table(v_other.relation::text, v_other.relation, v_other.definition, gdpr.policy() -> 'purposes');
    if v_read.problems <> '{}' then
      perform gdpr_internal.refuse('reshape_refused', array_to_string(v_read.problems, E'\n'));
    end if;
    perform gdpr_internal.put_table(v_other.id, v_read.definition);
  end loop;
  v_problems := array(
    -- what was wrong with purposes and roles before is not this change's
    select p from unnest((gdpr_internal.read_policy(gdpr.policy())).problems) as p
    where starts_with(p, 'tables.')
      and not exists (select from gdpr_internal.reshape as r where r.table_id <> v_id and not r.closing)
  );
  if v_problems <> '{}' then
    perform gdpr_internal.refuse('reshape_refused', array_to_string(v_problems, E'\n'));
  end if;
  statements := statements || array(select s from gdpr_internal.digest_statements(v_id, v_names) as s);
  update gdpr_internal.reshape as r set closing = true, retyped = r.retyped || v_stale where r.table_id = v_id;
  perform gdpr_internal.audit_event('RESHAPE', null, jsonb_strip_nulls(jsonb_build_object(
    'table', v_now, 'changes', changes, 'drifted', nullif(v_reshape.drifted, false)
  )));
end
$function$;
comment on function gdpr_internal.follow_shape(name, regclass) is 'See gdpr_policy.follow_shape(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.follow_shape(p_relation regclass, out statements text[], out changes jsonb)
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select f.statements, f.changes from gdpr_internal.follow_shape(current_user, p_relation) as f;
end;
comment on function gdpr_policy.follow_shape(regclass) is
  'Step of end_reshape(): the register follows the columns and the name that the table has now, and the definitions of tables that name it. statements: what its owner has to do to the columns that gdprdb added; changes: what was done to the table. On record. Errors: PR414 refused, PR416.';

create or replace function gdpr_internal.shape_changes(p_table smallint, p_reshape gdpr_internal.reshape)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('change', c.change, 'name', c.name, 'now', c.now)) order by c.n, c.place), '[]')
  from (
    select 1 as n, 0 as place, 'table renamed' as change, t.known_as as name, t.relation::text as now
    from gdpr_internal.protected_table as t
    where t.id = p_table and t.known_as <> t.relation::text
    union all
    select 2, h.position, case when h.now is null then 'column dropped' else 'column renamed' end, h.was::text, h.now::text
    from gdpr_internal.changed_names(p_table) as h
    union all
    select 3, k.position, 'type changed', c.column_name::text, case when c.encrypt = 'no' then format_type(a.atttypid, a.atttypmod) else c.original_type end
    from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    join gdpr_internal.known_column as k on k.table_id = c.table_id and k.column_name = c.column_name
    join pg_attribute as a on a.attrelid = t.relation and a.attnum = k.position and not a.attisdropped
    where c.table_id = p_table and (
      c.encrypt = 'no' and c.original_type <> format_type(a.atttypid, a.atttypmod) or c.column_name = any ((p_reshape).retyped)
    )
    union all
    -- what a USING has made of them, row by row, is in no audit record
    select 4, a.attnum, 'values rewritten', a.attname::text, 'by ALTER COLUMN TYPE, without a record for each row'
    from gdpr_internal.protected_table as t
    join pg_attribute as a on a.attrelid = t.relation and not a.attisdropped
    where t.id = p_table and gdpr_internal.is_rewritten(p_table) and a.attnum in (select gdpr_internal.altered_columns(p_table))
    union all
    select 5, a.attnum, 'column added', a.attname::text, 'hidden until the policy classifies it' || case
      when a.attnotnull and not a.atthasdef and a.attidentity = '' then '; NOT NULL without a default: until then no row can be inserted through gdpr_clear'
      else ''
    end
    from gdpr_internal.protected_table as t
    join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
    where t.id = p_table and not exists (select from gdpr_internal.known_column as k where k.table_id = p_table and k.position = a.attnum)
  ) as c;
end;
comment on function gdpr_internal.shape_changes(smallint, gdpr_internal.reshape) is 'What was done to a table and its columns since apply() or end_reshape() last saw it.';

create or replace function gdpr_internal.shadow_statements(p_table smallint, p_retyped name[])
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  -- by way of names that no column has: two columns may have changed places
  select coalesce(array_agg(format('alter table %s %s', x.relation, s.statement) order by s.n, x.attnum), '{}')
  from (
    select t.relation, a.attnum, a.attname, c.column_name,
      p.attname as now, substring(a.attname from '_(?:digest|mask)$') as kind,
      -- its type follows the column; its values are written anew
      a.attname ~ '_mask$' and p.attname is not null and (
        c.column_name = any (p_retyped) or c.encrypt = 'no' and c.original_type <> format_type(p.atttypid, p.atttypmod)
      ) as stale
    from gdpr_internal.protected_table as t
    join gdpr_internal.protected_column as c on c.table_id = t.id
    join gdpr_internal.known_column as k on k.table_id = t.id and k.column_name = c.column_name
    join pg_attribute as a on a.attrelid = t.relation and not a.attisdropped
      and a.attname in ('gdpr_' || c.column_name || '_digest', 'gdpr_' || c.column_name || '_mask')
    left join pg_attribute as p on p.attrelid = t.relation and p.attnum = k.position and not p.attisdropped
    where t.id = p_table
  ) as x
  cross join lateral (
    select 1 as n, format('drop column %I', x.attname) as statement where x.now is null or x.stale
    union all
    select 2, format('rename column %I to %I', x.attname, 'gdpr_' || x.attnum || x.kind) where x.now <> x.column_name and not x.stale
    union all
    select 3, format('rename column %I to %I', 'gdpr_' || x.attnum || x.kind, 'gdpr_' || x.now || x.kind) where x.now <> x.column_name and not x.stale
  ) as s;
end;
comment on function gdpr_internal.shadow_statements(smallint, name[]) is
  'Statements by which digests and stored masks follow their columns: renamed, dropped, or dropped to be added in another type.';
