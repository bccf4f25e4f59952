-- [code] Shadows: columns that are not text get their type changed while applications write them.
-- GDPR Art. 25, 32. Called by: the steps of enabling.
--
-- Ciphertext is text, and ALTER COLUMN TYPE would write the whole table under a lock. So such a column gets a shadow, gdpr_text_<n>:
-- a trigger keeps the text of every row that is written in it, the backfill that of all others. In the moment in which encryption
-- begins, the column is dropped and its shadow takes its name: the catalog alone changes. Until then it counts as not encrypted.
-- It comes to stand at the end of the table; the views keep its place.

set local role gdpr_owner;

create or replace function gdpr_internal.becomes_text(p_relation regclass, p_definition jsonb)
returns name[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return array(
    select a.attname
    from gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name and not a.attisdropped
    -- the two have one form on the disk
    where s.encrypt <> 'no' and a.atttypid not in ('text'::regtype, 'varchar'::regtype)
    order by a.attnum
  );
end
$function$;
comment on function gdpr_internal.becomes_text(regclass, jsonb) is 'The columns of a table that encryption makes text of, which they are not yet.';

create or replace function gdpr_internal.shadows(p_table smallint, p_row text)
returns table (column_name name, shadow name, place smallint, value text, required boolean)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
begin
  return query
  select
    a.attname, s.attname, a.attnum,
    case when f.is_domain then gdpr_internal.text_expression(format('%s.%I::%s', p_row, a.attname, f.carrier), f.carrier)
      else gdpr_internal.text_expression(format('%s.%I', p_row, a.attname), format_type(a.atttypid, a.atttypmod))
    end,
    a.attnotnull
  from gdpr_internal.protected_table as t
  join gdpr_internal.protected_column as c on c.table_id = t.id
  join pg_attribute as a on a.attrelid = t.relation and a.attname = c.column_name and not a.attisdropped
  join pg_attribute as s on s.attrelid = t.relation and s.attname = 'gdpr_text_' || a.attnum and not s.attisdropped
  cross join lateral gdpr_internal.type_forms(a.atttypid, a.atttypmod) as f
  where t.id = p_table
  order by a.attnum;
end
$function$;
comment on function gdpr_internal.shadows(smallint, text) is
  'The columns of a table that have a shadow: their place, the SQL of their text in row p_row, whether they are NOT NULL.';

create or replace function gdpr_policy.has_shadows(p_relation regclass)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (select from gdpr_internal.shadows(gdpr_internal.table_id(p_relation), 't'));
end;
comment on function gdpr_policy.has_shadows(regclass) is 'Whether columns of a table that is being enabled have shadows.';

create or replace function gdpr_internal.waits_for_shadow(p_column gdpr_internal.protected_column, out waits boolean, out encrypt text, out carrier text)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
begin
  select t.relation, t.definition -> 'columns' -> (p_column).column_name::text ->> 'encrypt' into v_relation, encrypt
  from gdpr_internal.protected_table as t
  where t.id = (p_column).table_id;
  waits := (p_column).encrypt = 'no' and coalesce(encrypt <> 'no', false);
  if waits then
    select f.carrier into carrier
    from pg_attribute as a
    cross join lateral gdpr_internal.type_forms(a.atttypid, a.atttypmod) as f
    where a.attrelid = v_relation and a.attname = (p_column).column_name and not a.attisdropped;
  end if;
end
$function$;
comment on function gdpr_internal.waits_for_shadow(gdpr_internal.protected_column) is
  'Whether a column is going to be encrypted (encrypt: how) and counts as plain until its shadow takes its name; carrier: the type as which its values will be read.';

create or replace function gdpr_internal.stored_type(p_relation regclass, p_attribute pg_attribute)
returns oid
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not exists (
    select from gdpr_internal.enabling as e
    join gdpr_internal.protected_table as t on t.id = e.table_id
    where t.relation = p_relation and e.state = 'sealing'
  ) then
    return (p_attribute).atttypid;
  elsif (p_attribute).attname ~ '^gdpr_text_[0-9]+$' then
    return null;
  end if;
  return coalesce(
    (
      select a.atttypid from pg_attribute as a
      where a.attrelid = p_relation and a.attname = 'gdpr_text_' || (p_attribute).attnum and not a.attisdropped
    ), (p_attribute).atttypid
  );
end
$function$;
comment on function gdpr_internal.stored_type(regclass, pg_attribute) is
  'The type that a column has for the triggers of its table: in the transaction in which shadows take the names of their columns, which has no time to generate functions under its lock, the type to come; null: it goes.';

create or replace function gdpr_internal.defer_encryption(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
begin
  update gdpr_internal.protected_column as c
  set encrypt = 'no', original = gdpr_internal.with_loose_checks('{}', c.original), encrypting_xid = null, original_type = format_type(a.atttypid, a.atttypmod)
  from gdpr_internal.protected_table as t, pg_attribute as a
  where c.table_id = p_table and t.id = p_table and a.attrelid = t.relation and a.attname = c.column_name and not a.attisdropped
    and a.attname = any (gdpr_internal.becomes_text(t.relation, t.definition));
end
$function$;
comment on function gdpr_internal.defer_encryption(smallint) is 'Columns of a table that are not text count as not encrypted until their shadows take their names.';

create or replace function gdpr_internal.encrypt_columns(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
begin
  if gdpr_internal.enabling_state(v_id) is distinct from 'sealing' then
    perform gdpr_internal.refuse('enabling_state', format('table %s', p_relation));
  end if;
  if exists (select from gdpr_internal.shadows(v_id, 't')) then
    perform gdpr_internal.put_table(v_id, t.definition) from gdpr_internal.protected_table as t where t.id = v_id;
  end if;
  -- indexes and constraints came and went since it was begun
  update gdpr_internal.protected_column as c
  set original = gdpr_internal.with_loose_checks(gdpr_internal.original_column(p_relation, c.column_name, c.encrypt), c.original)
  where c.table_id = v_id and c.encrypt <> 'no';
end
$function$;
comment on function gdpr_internal.encrypt_columns(name, regclass) is 'See gdpr_policy.encrypt_columns(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.encrypt_columns(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.encrypt_columns(current_user, p_relation);
end;
comment on function gdpr_policy.encrypt_columns(regclass) is
  'Step of enabling: columns that have a shadow are encrypted from now on, as the register says; it remembers what all encrypted ones have by now. Error: PR006 not the state for it.';

create or replace function gdpr_internal.required_shadows(p_table smallint)
returns table (relation regclass, shadow name)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select t.relation, s.shadow
  from gdpr_internal.shadows(p_table, 't') as s
  join gdpr_internal.protected_table as t on t.id = p_table
  where s.required
  union all
  select r.r, s.shadow
  from gdpr_internal.shadows(p_table, 't') as s
  join gdpr_internal.protected_table as t on t.id = p_table
  cross join lateral gdpr_internal.relation_tree(t.relation) as r (r)
  join pg_class as c on c.oid = r.r and c.relkind = 'r'
  join pg_attribute as a on a.attrelid = c.oid and a.attname = s.column_name and not a.attisdropped
  where a.attnotnull and not s.required;
end;
comment on function gdpr_internal.required_shadows(smallint) is
  'Shadows of columns that are NOT NULL: in the table, or in a partition alone. A CHECK of the same name says so of the shadow meanwhile.';

create or replace function gdpr_internal.shadowed_columns(p_relation regclass)
returns table (
  relation regclass, is_whole boolean, column_name name, shadow name, type text, required boolean, required_name name, checked boolean, expression text,
  target integer, options text[], comment text, privileges aclitem[], sequences regclass[]
)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select
    r.r, r.r = p_relation, s.column_name, s.shadow, format_type(a.atttypid, a.atttypmod),
    -- what a partition has from that of which it is part comes with that
    a.attnotnull and not coalesce(
      (
        select w.attnotnull from pg_inherits as i join pg_attribute as w on w.attrelid = i.inhparent and w.attname = a.attname
        where i.inhrelid = r.r and r.r <> p_relation
      ), false
    ),
    (
      select k.conname from pg_constraint as k
      -- an object with a name since PostgreSQL 18
      where k.conrelid = r.r and k.contype = 'n' and k.conkey = array[a.attnum]
    ),
    exists (select from pg_constraint as k where k.conrelid = r.r and k.contype = 'c' and k.conname = s.shadow and k.conislocal),
    coalesce(
      (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef as d where d.adrelid = r.r and d.adnum = a.attnum),
      gdpr_internal.type_default(a.atttypid)
    ),
    coalesce(nullif(to_jsonb(a) ->> 'attstattarget', '')::integer, -1), a.attoptions, col_description(r.r, a.attnum), a.attacl,
    array(
      select q.objid::regclass from pg_depend as q
      join pg_class as c on c.oid = q.objid and c.relkind = 'S'
      where q.classid = 'pg_class'::regclass and q.refclassid = 'pg_class'::regclass and q.refobjid = r.r and q.refobjsubid = a.attnum and q.deptype = 'a'
    )
  from gdpr_internal.relation_tree(p_relation) as r (r)
  cross join gdpr_internal.shadows(gdpr_internal.table_id(p_relation), 't') as s
  join pg_attribute as a on a.attrelid = r.r and a.attname = s.column_name and not a.attisdropped
  order by r.r <> p_relation, cardinality(array(select pg_partition_ancestors(r.r))), r.r::oid, s.place;
end;
comment on function gdpr_internal.shadowed_columns(regclass) is
  'The columns of a table that have a shadow, in the table (is_whole) and in each of its partitions, with all that belongs to them there. required: NOT NULL, and not because of the table that it is part of; checked: by a CHECK of its own over the shadow.';

create or replace function gdpr_internal.text_statistics(p_relation regclass, p_definition jsonb)
returns table (name text, namespace oid)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select format('%I.%I', x.stxnamespace::regnamespace::name, x.stxname), x.stxnamespace
  from gdpr_internal.relation_tree(p_relation) as r (r)
  join pg_statistic_ext as x on x.stxrelid = r.r
  where exists (
    select from pg_depend as d
    join pg_attribute as a on a.attrelid = x.stxrelid and a.attnum = d.refobjsubid
    where d.classid = 'pg_statistic_ext'::regclass and d.objid = x.oid and d.refobjid = x.stxrelid
      and a.attname = any (gdpr_internal.becomes_text(p_relation, p_definition))
  );
end;
comment on function gdpr_internal.text_statistics(regclass, jsonb) is
  'Extended statistics of a table and its partitions over columns that become text, and their schemas.';

create or replace function gdpr_internal.statistics_statements(p_relation regclass, p_columns text[], p_anew boolean)
returns setof text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select s.statement
  from (
    select x.oid, format('statistics %I.%I', x.stxnamespace::regnamespace::name, x.stxname) as name, pg_get_statisticsobjdef(x.oid) as definition,
      obj_description(x.oid, 'pg_statistic_ext') as comment, (to_jsonb(x) ->> 'stxstattarget')::integer as target
    from pg_statistic_ext as x
    where x.stxrelid = p_relation and exists (
      select from pg_attribute as a where a.attrelid = p_relation and a.attnum = any (x.stxkeys) and a.attname::text = any (p_columns)
    )
  ) as x
  cross join lateral (
    values
      (1, case when p_anew then x.definition end),
      (2, case when p_anew then format('comment on %s is %L', x.name, x.comment) end),
      (3, case when x.target >= 0 then format('alter %s set statistics %s', x.name, x.target) end)
  ) as s (n, statement)
  where s.statement is not null
  order by x.oid, s.n;
end;
comment on function gdpr_internal.statistics_statements(regclass, text[], boolean) is
  'The statements that give back what extended statistics over these columns lose: their target, when a column gets another type; themselves (p_anew), when it is dropped.';

create or replace function gdpr_internal.swap_statements(p_relation regclass)
returns setof text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_column record;
  v_before text[] := '{}';
  v_drops text[] := '{}';
  v_after text[] := '{}';
  v_last text[] := '{}';
  v_whole jsonb := '{}';
  v_of_whole jsonb;
  v_alter text;
begin
  for v_column in select * from gdpr_internal.shadowed_columns(p_relation) loop
    v_alter := format('alter table %s ', v_column.relation);
    v_before := v_before || array(select format('alter sequence %s owned by none', s) from unnest(v_column.sequences) as s);
    if v_column.is_whole then
      v_drops := v_drops || format('drop column %I', v_column.column_name);
      v_after := v_after || format('%srename column %I to %I', v_alter, v_column.shadow, v_column.column_name);
      v_whole := v_whole || jsonb_build_object(v_column.column_name, to_jsonb(v_column));
      v_of_whole := '{"target": -1}';
    else
      -- partitions take over what is said of the table
      v_of_whole := v_whole -> v_column.column_name::text;
    end if;
    if v_column.expression is distinct from v_of_whole ->> 'expression' then
      v_after := v_after || format('%salter column %I %s', v_alter, v_column.column_name, case
        when v_column.expression is null then 'drop default'
        else 'set default ' || gdpr_internal.text_expression('(' || v_column.expression || ')', v_column.type)
      end);
    end if;
    if v_column.required then
      -- its CHECK has been validated: no row is looked at
      v_after := v_after || case
        when v_column.required_name is not null then format('%sadd constraint %I not null %I', v_alter, v_column.required_name, v_column.column_name)
        else format('%salter column %I set not null', v_alter, v_column.column_name)
      end;
    end if;
    if v_column.checked then
      v_last := v_last || format('%sdrop constraint %I', v_alter, v_column.shadow);
    end if;
    if v_column.target <> (v_of_whole ->> 'target')::integer then
      v_after := v_after || format('%salter column %I set statistics %s', v_alter, v_column.column_name, v_column.target);
    end if;
    if v_column.options is not null then
      v_after := v_after || format('%salter column %I set (%s)', v_alter, v_column.column_name, array_to_string(v_column.options, ', '));
    end if;
    if v_column.comment is not null then
      v_after := v_after || format('comment on column %s.%I is %L', v_column.relation, v_column.column_name, v_column.comment);
    end if;
    v_after := v_after || array(
      select format('grant %s (%I) on table %s to %s%s', g.privilege_type, v_column.column_name, v_column.relation,
        case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end, case when g.is_grantable then ' with grant option' else '' end)
      from aclexplode(v_column.privileges) as g
    ) || array(select format('alter sequence %s owned by %s.%I', s, v_column.relation, v_column.column_name) from unnest(v_column.sequences) as s);
  end loop;
  if v_drops <> '{}' then
    v_last := v_last || array(
      select s from gdpr_internal.statistics_statements(p_relation, array(select jsonb_object_keys(v_whole)), true) as s
    );
    return query
    select s from unnest(v_before || format('alter table %s %s', p_relation, array_to_string(v_drops, ', ')) || v_after || v_last) as s;
  end if;
end
$function$;
comment on function gdpr_internal.swap_statements(regclass) is
  'The statements by which shadows take the names of their columns, with all that belongs to these, in the table and in its partitions: defaults, NOT NULL, privileges, comments, statistics and their targets, sequences. None of them reads a row.';

create or replace function gdpr_internal.put_places(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_moved jsonb := (
    select coalesce(jsonb_object_agg(c.position, a.attnum), '{}')
    from gdpr_internal.protected_column as c
    join pg_attribute as a on a.attrelid = p_relation and a.attname = c.column_name and not a.attisdropped and a.attnum <> c.position
    where c.table_id = v_id
  );
begin
  update gdpr_internal.protected_column as c
  set position = coalesce((v_moved ->> c.position::text)::smallint, c.position),
    original = c.original
      || case when v_moved ? c.position::text then jsonb_build_object('place', c.position) else '{}' end
      || case when c.original ? 'checks' then jsonb_build_object('checks', (
        -- the columns of a constraint are known by their positions
        select jsonb_agg(k.value || jsonb_build_object('columns', (
          select jsonb_agg(u.value || jsonb_build_object('position', coalesce(v_moved -> (u.value ->> 'position'), u.value -> 'position')) order by u.n)
          from jsonb_array_elements(k.value -> 'columns') with ordinality as u (value, n)
        )) order by k.n)
        from jsonb_array_elements(c.original -> 'checks') with ordinality as k (value, n)
      )) else '{}' end
  where c.table_id = v_id;
  perform gdpr_internal.know_columns(v_id);
end
$function$;
comment on function gdpr_internal.put_places(name, regclass) is 'See gdpr_policy.put_places(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.put_places(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.put_places(current_user, p_relation);
end;
comment on function gdpr_policy.put_places(regclass) is
  'Step of enabling: the register follows columns to the end of the table, and remembers the place that they keep in the views.';
