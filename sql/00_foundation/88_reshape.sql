-- [code] reshape() and end_reshape(): the shape of a protected table changes, between taking its controls off and putting them back.
-- GDPR Art. 25. Called by: DBAs, gdprdb policy reshape, op.gdpr_reshape(). They run as the caller, who owns the table.
-- Meanwhile nobody else sees the table (ACCESS EXCLUSIVE), this transaction sees no row of it and writes none, and it cannot
-- commit before the controls are back.

set local role gdpr_owner;

create or replace function gdpr.reshape(p_table regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
as $function$
declare
  v_relation regclass;
  v_name name;
  v_statement text;
begin
  -- asked before it waits for anybody
  perform gdpr_policy.own_table(p_table);
  -- one at a time, as apply()
  perform pg_advisory_xact_lock(hashtextextended('gdpr.apply', 0));
  execute format('lock table %s in access exclusive mode', p_table);
  -- the guard lets it pass until the commit, and looks then at what it left
  perform gdpr_policy.begin_change('reshape');
  if not gdpr_policy.open_reshape(p_table) then
    return;
  end if;
  perform gdpr_policy.drop_views(p_table);
  for v_relation in select r from gdpr_policy.partition_tree(p_table) as r loop
    for v_name in select p.polname from pg_policy as p where p.polrelid = v_relation and p.polname ~ '^gdpr_(30|40|50)_' loop
      execute format('drop policy %I on %s', v_name, v_relation);
    end loop;
    execute format('create policy gdpr_40_reshape on %s for all to public using (gdpr_policy.refuse_reshape(%L)) with check (false)', v_relation, v_relation);
    execute format('alter table %s enable row level security, force row level security', v_relation);
    -- the row triggers stay: should anybody write after all, they are there
    execute format(
      'create or replace trigger zzz_gdpr_00_reshape before insert or update or delete on %s for each statement execute function gdpr_policy.guard_reshape()',
      v_relation
    );
    execute format('alter table %s enable always trigger zzz_gdpr_00_reshape', v_relation);
  end loop;
  foreach v_statement in array array(select s from gdpr_policy.tripwires(p_table) as s) loop
    execute v_statement;
  end loop;
  perform gdpr_policy.watch_reshape(p_table);
end
$function$;
comment on function gdpr.reshape(regclass) is
  'Takes off a protected table what its DDL would stumble over, until gdpr.end_reshape() in the same transaction: add, rename and drop columns, change types, defaults and NOT NULL, rename the table, move it to another schema, add and drop constraints and indexes. Meanwhile the table is locked, its rows can be neither read nor written, and the transaction cannot commit. Asked twice, the second does nothing. Run as the owner of the table and member of gdpr_admin. Errors: PR002 not protected, 42501 not the owner, PR409 cannot be followed, PR415 at commit. Art. 25.';

create or replace function gdpr.end_reshape(p_table regclass default null)
returns table (table_name regclass, change text, name text, now text)
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
-- what is dropped need not be there
set client_min_messages = 'warning'
as $function$
declare
  v_tables regclass[] := case when p_table is null then array(select t from gdpr_policy.open_reshapes() as t) else array[p_table] end;
  v_relation regclass;
  v_followed record;
  v_statement text;
begin
  foreach table_name in array v_tables loop
    v_followed := gdpr_policy.follow_shape(table_name);
    for v_relation in select r from gdpr_policy.partition_tree(table_name) as r loop
      execute format('drop policy if exists gdpr_40_reshape on %s', v_relation);
      execute format('drop trigger if exists zzz_gdpr_00_reshape on %s', v_relation);
    end loop;
    foreach v_statement in array array(select s from gdpr_policy.leaving_steps(table_name) as s) loop
      execute v_statement;
    end loop;
    -- it holds on to digests and masks
    execute format('drop trigger if exists zzz_gdpr_05_guard on %s', table_name);
    foreach v_statement in array v_followed.statements loop
      execute v_statement;
    end loop;
    return query
    select table_name, c.change, c.name, c.now
    from jsonb_to_recordset(v_followed.changes) as c (change text, name text, now text);
  end loop;
  foreach table_name in array v_tables loop
    for v_statement in select s from gdpr_policy.control_steps(table_name) as s loop
      execute v_statement;
    end loop;
  end loop;
  if v_tables <> '{}' then
    perform gdpr_policy.generate_erasure();
  end if;
  foreach table_name in array v_tables loop
    perform gdpr_policy.close_reshape(table_name);
  end loop;
end
$function$;
comment on function gdpr.end_reshape(regclass) is
  'Puts the controls back on a table that gdpr.reshape() opened (null: on all of them), and follows what was done to it: renamed columns keep their protection, their ciphertext and their history; dropped ones leave the policy; new ones are hidden from every view until the policy classifies them. Returns the changes. On record as RESHAPE. Errors: PR414 a shape that the policy does not allow, with each problem; PR416 no reshape() before. Art. 25.';

create or replace function gdpr.reshape(p_table regclass, p_statements text[], p_path text default current_setting('search_path'))
returns table (table_name regclass, change text, name text, now text)
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_statement text;
begin
  perform gdpr.reshape(p_table);
  foreach v_statement in array p_statements loop
    -- names mean what they mean to the caller; the setting ends with this function
    perform pg_catalog.set_config('search_path', p_path, true);
    execute v_statement;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  end loop;
  return query select * from gdpr.end_reshape(p_table);
end
$function$;
comment on function gdpr.reshape(regclass, text[], text) is
  'gdpr.reshape(), these statements, gdpr.end_reshape(): one call, so that it needs no transaction around it. Without statements it follows what plain DDL did to the table. Returns the changes. Errors: those of the three.';

create or replace function gdpr.retype(p_table regclass, p_column name, p_type text, p_lossy boolean default false)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_statement text;
begin
  foreach v_statement in array array(select s from gdpr_policy.retype_column(p_table, p_column, p_type, p_lossy) as s) loop
    execute v_statement;
  end loop;
end
$function$;
comment on function gdpr.retype(regclass, name, text, boolean) is
  'Changes the type that an encrypted column has in the views, between gdpr.reshape() and gdpr.end_reshape(), which then decrypts each value, reads it as the new type, and encrypts it anew; a value that is none (22023, 22001), or that would be another one when it is read back as the old type (22023), refuses the change, without being named. p_type: a type of PostgreSQL, with its length. p_lossy: rounds and shortens as the new type does. Errors: PR416 no reshape() before, PR004 not encrypted, or not such a type.';

create or replace function gdpr_policy.control_steps(p_relation regclass)
returns setof text
language sql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select s.statement
  from gdpr_internal.protected_table as t
  cross join lateral gdpr_internal.table_steps(p_relation, t.definition, null) as s
  where t.relation = p_relation and t.unprotected_at is null;
end;
comment on function gdpr_policy.control_steps(regclass) is 'The statements that put the controls on a table as its definition wants them.';

create or replace function gdpr_policy.leaving_steps(p_relation regclass)
returns setof text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select format(s.statement, f.relation)
  from gdpr_internal.protected_table as t
  join gdpr_internal.reshape as h on h.table_id = t.id
  cross join lateral (
    select distinct (g.value ->> 'relation')::oid::regclass as relation from jsonb_array_elements(h.state -> 'guards') as g
  ) as f
  join pg_class as c on c.oid = f.relation
  cross join lateral (select coalesce(t.original -> 'partitions' -> f.relation::text, t.original) as state) as o
  cross join lateral (
    values
    (1, true, 'drop policy if exists gdpr_40_reshape on %1$s'),
    (2, true, 'drop trigger if exists zzz_gdpr_00_reshape on %1$s'),
    (3, t.mode = 'enforce', 'create policy gdpr_40_gate on %1$s as restrictive for all to public using (false)'),
    (4, t.mode <> 'enforce' and (o.state ->> 'row_security')::boolean is not true, 'alter table %1$s disable row level security'),
    (5, t.mode <> 'enforce' and (o.state ->> 'force_row_security')::boolean is not true, 'alter table %1$s no force row level security')
  ) as s (n, wanted, statement)
  where t.relation = p_relation and f.relation not in (select r from gdpr_internal.relation_tree(p_relation) as r) and s.wanted
  order by f.relation::oid, s.n;
end;
comment on function gdpr_policy.leaving_steps(regclass) is
  'The statements that end the reshape of partitions that were detached in it: their rows stay hidden, as after any other DETACH PARTITION.';

create or replace function gdpr_internal.missing_controls(p_relation regclass)
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with relations as (
    select t.id, t.relation, t.mode, t.parent_id is not null as child, r.r as part
    from gdpr_internal.protected_table as t
    cross join lateral gdpr_internal.relation_tree(t.relation) as r (r)
    where t.relation = p_relation and t.unprotected_at is null
  )
  select 'error', 'row_security', r.part::text,
    case when not c.relrowsecurity then 'row security is off' else 'row security is not forced: the owner sees every row' end,
    'Apply the policy again: gdprdb policy apply.'
  from relations as r join pg_class as c on c.oid = r.part
  where r.mode = 'enforce' and not (c.relrowsecurity and c.relforcerowsecurity)
  union all
  select 'error', 'policies', r.part::text, 'a row policy of gdprdb is missing', 'Apply the policy again: gdprdb policy apply.'
  from relations as r
  where r.mode = 'enforce' and (
    select count(*) from pg_policy as p where p.polrelid = r.part and p.polname in ('gdpr_40_owners', 'gdpr_40_base', 'gdpr_40_gate')
  ) < 3
  union all
  select 'error', 'policies', h.relation::text,
    format('restrictive row policies for everybody hide rows from withdrawal, erasure and reports: %s', h.policies),
    'Let each be for the roles that it is meant for: ALTER POLICY ... TO ...; then apply the policy again: gdprdb policy apply.'
  from gdpr_internal.hiding_policies(p_relation) as h
  where exists (select from relations)
  union all
  select 'error', 'triggers', r.part::text, format('trigger %s is %s', n.name, case when g.oid is null then 'missing' else 'disabled' end),
    'Apply the policy again: gdprdb policy apply.'
  from relations as r
  cross join lateral (
    select n.name, 'A'::"char" as enabled
    from unnest(
      array['zzz_gdpr_05_guard', 'zzz_gdpr_40_protect', 'zzz_gdpr_40_truncate']
      || case when r.child then array['zzz_gdpr_10_subject', 'zzz_gdpr_10_subject_move'] end
      || case when to_regprocedure(format('gdpr_generated.%I()', 'change_' || r.id)) is not null then array['zzz_gdpr_40_change'] end
      || case when to_regprocedure(format('gdpr_generated.%I()', 'values_' || r.id)) is not null then array['zzz_gdpr_30_open', 'zzz_gdpr_36_close'] end
    ) as n (name)
    union all
    select a.name, a.enabled from gdpr_internal.audit_triggers(r.part, r.id) as a
  ) as n
  left join pg_trigger as g on g.tgrelid = r.part and g.tgname = n.name
  where g.oid is null or g.tgenabled <> n.enabled;
end;
comment on function gdpr_internal.missing_controls(regclass) is
  'Findings about the controls of a table and its partitions: row security, policies, triggers.';

create or replace function gdpr_internal.close_reshape(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_reshape gdpr_internal.reshape;
  v_missing text;
begin
  select * into v_reshape from gdpr_internal.reshape as r where r.table_id = v_id and r.closing;
  if v_reshape.table_id is null then
    perform gdpr_internal.refuse('reshape_closed', p_relation::text);
  end if;
  select string_agg(format('%s: %s', m.object, m.finding), E'\n') into v_missing from gdpr_internal.missing_controls(p_relation) as m;
  if v_missing is not null then
    perform gdpr_internal.refuse('drifted', v_missing);
  end if;
  perform gdpr_internal.refuse_opened(v_id);
  if v_reshape.was <> '{}' then
    -- without the comparison of old and new values
    update gdpr_internal.reshape as r set was = '{}' where r.table_id = v_id;
    perform gdpr_internal.generate_triggers(v_id);
  end if;
  perform gdpr_internal.remember_controls(t.id)
  from gdpr_internal.protected_table as t
  where t.id = any (v_reshape.neighbours || v_id) and t.unprotected_at is null
    and not exists (select from gdpr_internal.reshape as r where r.table_id = t.id and t.id <> v_id);
  delete from gdpr_internal.reshape as r where r.table_id = v_id;
end
$function$;
comment on function gdpr_internal.close_reshape(name, regclass) is 'See gdpr_policy.close_reshape(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.close_reshape(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.close_reshape(current_user, p_relation);
end;
comment on function gdpr_policy.close_reshape(regclass) is
  'Step of end_reshape(): makes sure that the controls are there, and lets the transaction commit. Errors: PR409 a control is missing, PR416.';

create or replace function gdpr_internal.type_named(p_type text)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_parts text[] := regexp_match(btrim(lower(p_type)), '^([a-z][a-z0-9_ ]*?)\s*(?:\(\s*(\d{1,8})\s*(?:,\s*(\d{1,4}))?\s*\))?((?: with| without) time zone)?(\[\])*$');
  v_type regtype := to_regtype(v_parts[1] || coalesce(v_parts[4], '') || coalesce(substring(p_type from '(?:\[\])+\s*$'), ''));
  v_base regtype;
begin
  v_base := coalesce((select t.typelem from pg_type as t where t.oid = v_type and t.typcategory = 'A'), v_type);
  if v_type is null or v_type >= 16384 or (v_parts[2] is not null and v_base::text not in (
    'character varying', 'character', 'numeric', 'timestamp without time zone', 'timestamp with time zone', 'time without time zone'
  )) or (v_parts[3] is not null and v_base <> 'numeric'::regtype) then
    return null;
  end if;
  return format_type(v_type, case
    when v_parts[2] is null then case when v_base = 'character'::regtype then 5 end
    when v_base in ('character varying'::regtype, 'character'::regtype) then v_parts[2]::integer + 4
    when v_base = 'numeric'::regtype then ((v_parts[2]::integer << 16) | coalesce(v_parts[3], '0')::integer) + 4
    else v_parts[2]::integer
  end);
end
$function$;
comment on function gdpr_internal.type_named(text) is 'A type of PostgreSQL itself, as the catalog writes it; null if it is none.';

create or replace function gdpr_internal.retype_column(p_role name, p_relation regclass, p_column name, p_type text, p_lossy boolean)
returns setof text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_type text := gdpr_internal.type_named(p_type);
  v_column gdpr_internal.protected_column;
begin
  if not exists (select from gdpr_internal.reshape as r where r.table_id = v_id and not r.closing) then
    perform gdpr_internal.refuse('reshape_closed', p_relation::text);
  end if;
  select c.* into v_column
  from gdpr_internal.protected_column as c
  join gdpr_internal.known_column as k on k.table_id = c.table_id and k.column_name = c.column_name
  join pg_attribute as a on a.attrelid = p_relation and a.attnum = k.position and a.attname = p_column and not a.attisdropped
  where c.table_id = v_id and c.encrypt <> 'no';
  if v_column.id is null then
    perform gdpr_internal.refuse('invalid_argument', 'the table has no such encrypted column; others change their type with ALTER TABLE');
  elsif v_type is null or not exists (
    select from pg_type as y
    where y.oid = to_regtype(v_type) and y.typtype = 'b'
      and y.typname <> all (array['money', 'xml', 'tsvector', 'tsquery', 'pg_lsn', 'oid', 'regclass'])
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'a type of PostgreSQL that can be encrypted is needed');
  elsif v_type = v_column.original_type then
    return;
  end if;
  if v_column.original ? 'default' then
    v_column.original := v_column.original || jsonb_build_object('default', format('(%s)::%s', v_column.original ->> 'default', v_type));
    -- end_reshape() sets it again, in its new type
    return next format('alter table %s alter column %I drop default', p_relation, p_column);
    update gdpr_internal.reshape as r
    set defaults = r.defaults - (
      select k.position::text from gdpr_internal.known_column as k where k.table_id = v_id and k.column_name = v_column.column_name
    )
    where r.table_id = v_id;
  end if;
  update gdpr_internal.protected_column as c
  set original_type = v_type, original = v_column.original - 'collation'
  where c.id = v_column.id;
  update gdpr_internal.reshape as r
  set retyped = r.retyped || v_column.column_name,
    was = r.was || jsonb_build_object(v_column.id, jsonb_build_object(
      -- after two changes the values are of the type before the first still
      'type', coalesce(r.was -> v_column.id::text ->> 'type', v_column.original_type), 'lossy', coalesce(p_lossy, false)
    ))
  where r.table_id = v_id;
end
$function$;
comment on function gdpr_internal.retype_column(name, regclass, name, text, boolean) is 'See gdpr_policy.retype_column(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.retype_column(p_relation regclass, p_column name, p_type text, p_lossy boolean)
returns setof text
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select s from gdpr_internal.retype_column(current_user, p_relation, p_column, p_type, p_lossy) as s;
end;
comment on function gdpr_policy.retype_column(regclass, name, text, boolean) is
  'Step of retype(): the register has the new type. Returns what the owner of the table has to do. Errors: PR416, PR004.';

create or replace function gdpr_policy.empty_rows_of_nobody(p_relation regclass, p_column name, p_value text)
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
  v_statements := format('update %1$s set %2$I = %3$s where gdpr_subject_id is null and %2$I is not null', p_relation, p_column,
    case
      when not (select a.attnotnull from pg_attribute as a where a.attrelid = p_relation and a.attname = p_column) then 'null'
      else coalesce(format('(%s)::text', p_value), 'null')
    end) || v_statements;
  foreach v_statement in array v_statements loop
    execute v_statement;
  end loop;
end
$function$;
comment on function gdpr_policy.empty_rows_of_nobody(regclass, name, text) is
  'Step of end_reshape() after retype(): rows whose person was erased hold what erasure left there; it has to be of the new type. p_value: the SQL of a neutral value, for a column that cannot be null.';
