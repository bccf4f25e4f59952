-- [code] plan() and apply(): the policy becomes the database. They run as the caller, who owns the tables.
-- GDPR Art. 25. Called by: DBAs, gdprdb policy plan|apply.

set local role gdpr_owner;

create or replace function gdpr_policy.collision_query(p_relation regclass, p_column text, p_kind text)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_blanks constant text := E' \t\r\n';
  v_type regtype := (
    select a.atttypid::regtype from pg_attribute as a where a.attrelid = p_relation and a.attname = p_column and not a.attisdropped
  );
  v_value text := format('(t.%I::pg_catalog.text collate "C")', p_column);
  v_form text;
begin
  if v_type not in ('text', 'varchar') then
    return format(
      'select count(*) from (select from %s as t where t.%2$I is not null group by gdpr_policy.canonical_of(%3$L, gdpr.equal_text(t.%2$I)) having count(*) > 1) as c',
      p_relation, p_column, p_kind
    );
  end if;
  -- gdpr_internal.equal_form() of plain ASCII as an expression: a call for each row is what takes the time
  v_form := case p_kind
    when 'exact' then v_value
    when 'text' then format(
      'case when octet_length(%1$s) = length(%1$s) then btrim(lower(%1$s), %3$L) else gdpr_policy.canonical_of(%2$L, %1$s) end', v_value, p_kind, v_blanks
    )
    when 'email' then format(
      'case when octet_length(%1$s) = length(%1$s) and strpos(lower(%1$s), ''xn--'') = 0 and right(%1$s, 1) between ''0'' and ''z'' '
      'then translate(lower(%1$s), %3$L, '''') else gdpr_policy.canonical_of(%2$L, %1$s) end', v_value, p_kind, v_blanks
    )
    else format('gdpr_policy.canonical_of(%L, %s)', p_kind, v_value)
  end;
  -- of values that are all different two become one only where at least one of them is changed: mostly none is, and nothing is sorted
  return format(
    'select case when exists (select from %1$s as t where %2$s <> %3$s) then ('
    'select count(*) from (select from %1$s as t where t.%4$I is not null group by (%2$s) collate "C" having count(*) > 1) as c) else 0 end',
    p_relation, v_form, v_value, p_column
  );
end
$function$;
comment on function gdpr_policy.collision_query(regclass, text, text) is
  'The query that counts the forms which several values of a UNIQUE column would share as a digest: for plan(), which runs it as its caller.';

create or replace function gdpr_policy.unique_candidates(p_policy jsonb)
returns table (relation regclass, column_name text, query text)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query
  select o.relation, s.column_name, gdpr_policy.collision_query(o.relation, s.column_name, s.kind)
  from gdpr_internal.table_order(p_policy -> 'tables') as o
  cross join lateral gdpr_internal.stored_columns(o.definition) as s
  where s.encrypt = 'searchable'
    and gdpr_internal.original_column(o.relation, s.column_name, s.encrypt) ? 'unique_name'
    and not exists (
      select from gdpr_internal.protected_table as t
      join gdpr_internal.protected_column as c on c.table_id = t.id
      where t.relation = o.relation and t.unprotected_at is null and c.column_name = s.column_name and c.encrypt <> 'no'
    );
end
$function$;
comment on function gdpr_policy.unique_candidates(jsonb) is
  'Unique columns of what gdpr_policy.read() returned whose uniqueness would move to a digest, each with the query that looks for values which would become one.';

create or replace function gdpr.plan(p_policy jsonb)
returns table (step integer, object text, action text, statement text, lock text, rewrite boolean)
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
as $function$
declare
  v_policy jsonb := gdpr_policy.read(p_policy, current_user);
  v_candidate record;
  v_collisions bigint;
  v_problems text[] := '{}';
begin
  return query select * from gdpr_policy.steps(v_policy) as s order by s.step;
  for v_candidate in select * from gdpr_policy.unique_candidates(v_policy) loop
    execute v_candidate.query into v_collisions;
    if v_collisions > 0 then
      v_problems := v_problems || format(
        'tables.%s.columns.%s: is UNIQUE, and %s of its values are written in several ways that become one (see canonical = "exact")',
        to_json(v_candidate.relation::text), to_json(v_candidate.column_name), v_collisions
      );
    end if;
  end loop;
  if v_problems <> '{}' then
    perform gdpr.refuse_policy(v_problems);
  end if;
end
$function$;
comment on function gdpr.plan(jsonb) is
  'The steps that would bring the database to this policy: object, action, statement, strongest lock on the table, whether the table is rewritten; none when it is there already. Changes nothing. p_policy: {"settings", "purposes", "roles", "tables"}, as the TOML file has it. Error: PR001 with every problem on a line of the detail. Art. 25.';

create or replace function gdpr.refuse_policy(p_problems text[])
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.refuse('policy_refused', array_to_string(p_problems, E'\n'));
end;
comment on function gdpr.refuse_policy(text[]) is 'Raises PR001 with these problems.';

create or replace function gdpr.apply(p_policy jsonb)
returns table (step integer, object text, action text, statement text, lock text, rewrite boolean)
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
as $function$
declare
  v_begun boolean;
begin
  -- one at a time: two plans made side by side would both be right and together wrong
  perform pg_advisory_xact_lock(hashtextextended('gdpr.apply', 0));
  perform gdpr.end_reshape();
  for step, object, action, statement, lock, rewrite in select * from gdpr.plan(p_policy) as p order by p.step loop
    if v_begun is null then
      v_begun := gdpr_policy.begin_change('apply');
    end if;
    execute statement;
    return next;
  end loop;
  perform gdpr_policy.end_change(v_begun);
end
$function$;
comment on function gdpr.apply(jsonb) is
  'Brings the database to this policy and returns the steps it took; asked twice, none the second time. All in one transaction: a step that fails undoes them all. Ends what gdpr.reshape() began in this transaction first. Run as the owner of the tables and member of gdpr_admin. Error: PR001 policy refused. Art. 25.';

create or replace function gdpr_policy.partition_tree(p_relation regclass)
returns setof regclass
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select r from gdpr_internal.relation_tree(p_relation) as r;
end;
comment on function gdpr_policy.partition_tree(regclass) is 'A table and all its partitions.';

create or replace function gdpr_policy.table_facts(p_relation regclass, out id smallint, out via text[], out original jsonb, out schema_name name, out last_of_schema boolean)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  select t.id, t.via_columns::text[], t.original, n.nspname, not exists (
    select from gdpr_internal.protected_table as o
    join pg_class as x on x.oid = o.relation
    where o.unprotected_at is null and o.id <> t.id and x.relnamespace = n.oid
  )
  into id, via, original, schema_name, last_of_schema
  from gdpr_internal.protected_table as t
  join pg_class as c on c.oid = t.relation
  join pg_namespace as n on n.oid = c.relnamespace
  where t.id = gdpr_internal.table_id(p_relation);
end
$function$;
comment on function gdpr_policy.table_facts(regclass) is 'What the steps that run as the table''s owner need to know. Error: PR002.';

create or replace function gdpr_policy.hush(p_relation regclass)
returns text[]
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_trigger record;
  v_back text[] := '{}';
  v_forced text[] := '{}';
begin
  for v_relation in select r from gdpr_policy.partition_tree(p_relation) as r loop
    if (select c.relforcerowsecurity from pg_class as c where c.oid = v_relation) then
      execute format('alter table %s no force row level security', v_relation);
      v_forced := v_forced || format('alter table %s force row level security', v_relation);
    end if;
    for v_trigger in
      select t.tgname, t.tgenabled from pg_trigger as t
      where t.tgrelid = v_relation and not t.tgisinternal and t.tgenabled <> 'D' and t.tgparentid = 0
    loop
      execute format('alter table %s disable trigger %I', v_relation, v_trigger.tgname);
      v_back := v_back || format('alter table %s enable %s trigger %I', v_relation,
        case v_trigger.tgenabled when 'A' then 'always' when 'R' then 'replica' else '' end, v_trigger.tgname);
    end loop;
  end loop;
  return v_back || v_forced;
end
$function$;
comment on function gdpr_policy.hush(regclass) is
  'Switches off triggers and forced row security of a table, for its owner to rewrite rows without changing what they say: the application''s triggers must not see it. Returns the statements that switch them on again.';

create or replace function gdpr_policy.backfill(p_relation regclass, p_new boolean)
returns bigint
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_facts record := gdpr_policy.table_facts(p_relation);
  v_back text[] := gdpr_policy.hush(p_relation);
  v_statement text;
  v_rows bigint;
begin
  if v_facts.via is not null then
    execute format('create trigger zzz_gdpr_10_backfill before update on %s for each row execute function gdpr_generated.%I(''all'')',
      p_relation, 'subject_' || v_facts.id);
  end if;
  if p_new then
    execute format('create trigger zzz_gdpr_40_backfill before update on %s for each row execute function gdpr_generated.%I()',
      p_relation, 'protect_' || v_facts.id);
  else
    execute format('create trigger zzz_gdpr_40_backfill before update on %s for each row execute function gdpr_generated.%I(''all'')',
      p_relation, 'change_' || v_facts.id);
  end if;
  execute format('update %s set gdpr_purposes = gdpr_purposes where %s', p_relation,
    case when p_new then 'gdpr_subject_id is null' else 'gdpr_subject_id is not null' end);
  get diagnostics v_rows = row_count;
  if v_facts.via is not null then
    execute format('drop trigger zzz_gdpr_10_backfill on %s', p_relation);
  end if;
  execute format('drop trigger zzz_gdpr_40_backfill on %s', p_relation);
  foreach v_statement in array v_back loop
    execute v_statement;
  end loop;
  return v_rows;
end
$function$;
comment on function gdpr_policy.backfill(regclass, boolean) is
  'Step of apply(): existing rows go through the same trigger as new ones (p_new), or have their changed columns written anew. Returns the rows.';

create or replace function gdpr_policy.controls_off(p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_name name;
begin
  for v_relation in select r from gdpr_policy.partition_tree(p_relation) as r loop
    for v_name in select p.polname from pg_policy as p where p.polrelid = v_relation and p.polname ~ '^gdpr_(30|40|50)_' loop
      execute format('drop policy %I on %s', v_name, v_relation);
    end loop;
    for v_name in
      select t.tgname from pg_trigger as t
      where t.tgrelid = v_relation and t.tgname ~ '^zzz_gdpr_' and t.tgparentid = 0
    loop
      execute format('drop trigger %I on %s', v_name, v_relation);
    end loop;
  end loop;
  perform gdpr_policy.drop_views(p_relation);
end
$function$;
comment on function gdpr_policy.controls_off(regclass) is 'Takes triggers, policies and views off a table; row security stays on, so that nobody sees a row meanwhile.';

create or replace function gdpr_internal.drop_views(p_role name, p_relation regclass)
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
  perform gdpr_generated.drop_redacted_view(v_id, a) from unnest(gdpr_internal.audiences()) as a;
  perform gdpr_internal.drop_search(v_id);
  perform gdpr_generated.drop_clear_view(v_id);
end
$function$;
comment on function gdpr_internal.drop_views(name, regclass) is 'See gdpr_policy.drop_views(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.drop_views(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.drop_views(current_user, p_relation);
end;
comment on function gdpr_policy.drop_views(regclass) is 'Drops the clear view and the redacted views of a table.';

create or replace function gdpr_internal.begin_unprotect(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_child regclass;
begin
  select t.relation into v_child from gdpr_internal.protected_table as t where t.parent_id = v_id and t.unprotected_at is null limit 1;
  if v_child is not null then
    perform gdpr_internal.refuse('invalid_argument', format('unprotect %s first: its rows belong to subjects of this table', v_child));
  end if;
  update gdpr_internal.protected_table as t set unprotecting_xid = pg_current_xact_id() where t.id = v_id;
  -- the server's log keeps this even when the transaction, and its audit record, is rolled back
  raise log 'gdprdb: unprotect of % by %', p_relation, gdpr_internal.acting_role();
  perform gdpr_internal.audit_event('UNPROTECT', null, jsonb_build_object('table', p_relation::text));
end
$function$;
comment on function gdpr_internal.begin_unprotect(name, regclass) is 'See gdpr_policy.begin_unprotect(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.begin_unprotect(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.begin_unprotect(current_user, p_relation);
end;
comment on function gdpr_policy.begin_unprotect(regclass) is 'Step of unprotect(): opens decryption in place for this transaction, on record. Errors: PR002, PR004 while children are protected.';

create or replace function gdpr_internal.restore_statements(p_role name, p_relation regclass)
returns setof text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_alter text[] := '{}';
  v_defaults text[] := '{}';
  v_column gdpr_internal.protected_column;
  v_object record;
  v_drop text[];
  v_create text[];
begin
  for v_column in
    select * from gdpr_internal.protected_column as c where c.table_id = v_id and c.encrypt <> 'no' order by c.position
  loop
    if v_column.original ?| array['default', 'type_default', 'partition_defaults'] then
      v_alter := v_alter || format('alter column %I drop default', v_column.column_name);
    end if;
    v_alter := v_alter || format(
      'alter column %1$I type %2$s%5$s using gdpr_policy.decrypt_for_unprotect(%3$s, %4$s, %1$I)::%2$s',
      v_column.column_name, coalesce(v_column.original ->> 'type', v_column.original_type), 'gdpr_subject_id', v_column.id,
      coalesce(' collate ' || (v_column.original ->> 'collation'), '')
    );
    if v_column.original ? 'default' then
      v_alter := v_alter || format('alter column %I set default %s', v_column.column_name, v_column.original ->> 'default');
    end if;
    v_defaults := v_defaults || array(
      select format('alter table %s alter column %I %s', r.r, v_column.column_name, coalesce('set default ' || nullif(d.value, ''), 'drop default'))
      from jsonb_each_text(v_column.original -> 'partition_defaults') as d
      join gdpr_internal.relation_tree(p_relation) as r (r) on r.r::text = d.key
      order by cardinality(array(select pg_partition_ancestors(r.r))), r.r::oid
    );
  end loop;
  return query
  select format('drop index %s', x.indexrelid::regclass)
  from gdpr_internal.protected_table as t
  join pg_class as c on c.oid = t.relation
  join pg_index as x on x.indrelid = c.oid
  join pg_class as i on i.oid = x.indexrelid and i.relname in (gdpr_internal.search_name(c.relname), ('gdpr_search_' || v_id)::name)
  where t.id = v_id and t.definition ? 'search';
  if v_alter <> '{}' then
    -- triggers that name a column stand in the way of its type; read before the first statement runs
    select array_agg(g.drop_statement order by g.name), array_agg(g.create_statement order by g.name) into v_drop, v_create
    from gdpr_internal.column_triggers(p_relation, array(
      select c.column_name::text from gdpr_internal.protected_column as c where c.table_id = v_id and c.encrypt <> 'no'
    )) as g;
    return query select s from unnest(v_drop) as s;
    return next format('alter table %s %s', p_relation, array_to_string(v_alter, ', '));
    return query select s from unnest(v_defaults || v_create) as s;
  end if;
  return query
  select format('alter table %s %s', p_relation, string_agg(format('drop column %I', a.attname), ', ' order by a.attnum))
  from pg_attribute as a
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and gdpr_internal.is_control_column(v_id, a.attname)
  having count(*) > 0;
  for v_object in
    select distinct k.kind, k.value ->> 'name' as name, k.value ->> 'definition' as definition, k.value ->> 'comment' as comment
    from gdpr_internal.protected_column as c
    cross join lateral (
      select 'constraint' as kind, value
      from jsonb_array_elements(coalesce(c.original -> 'constraints', '[]') || coalesce(c.original -> 'checks', '[]'))
      union all
      select 'index', value from jsonb_array_elements(coalesce(c.original -> 'indexes', '[]'))
    ) as k
    where c.table_id = v_id
      -- an enabling that did not come far has not taken it away
      and not exists (
        select from pg_index as x
        join pg_class as i on i.oid = x.indexrelid
        where x.indrelid in (select r from gdpr_internal.relation_tree(p_relation) as r) and k.value ->> 'name' in (i.relname, i.oid::regclass::text) and not exists (
          select from pg_attribute as a
          where a.attrelid = x.indrelid and a.attnum = any (x.indkey) and gdpr_internal.is_control_column(v_id, a.attname)
        )
      )
      and not exists (select from pg_constraint as o where o.conrelid = p_relation and o.contype = 'c' and o.conname = k.value ->> 'name')
    order by 1, 2
  loop
    if v_object.kind = 'constraint' then
      return next format('alter table %s add constraint %I %s', p_relation, v_object.name, v_object.definition);
      if v_object.comment is not null then
        return next format('comment on constraint %I on %s is %L', v_object.name, p_relation, v_object.comment);
      end if;
    else
      return next v_object.definition;
      if v_object.comment is not null then
        return next format('comment on index %s is %L', v_object.name, v_object.comment);
      end if;
    end if;
  end loop;
end
$function$;
comment on function gdpr_internal.restore_statements(name, regclass) is 'See gdpr_policy.restore_statements(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.restore_statements(p_relation regclass)
returns setof text
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select s from gdpr_internal.restore_statements(current_user, p_relation) as s;
end;
comment on function gdpr_policy.restore_statements(regclass) is 'The statements that give a table back its columns, indexes and constraints.';

create or replace function gdpr_internal.finish_unprotect(p_role name, p_relation regclass)
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
  update gdpr_internal.protected_table as t
  set unprotected_at = statement_timestamp(), unprotecting_xid = null
  where t.id = v_id;
  delete from gdpr_internal.enabling as e where e.table_id = v_id;
  perform gdpr_internal.generate_worker(null);
  perform gdpr_internal.drop_generated_controls(v_id);
  perform gdpr_internal.drop_read_counters(v_id);
  perform gdpr_internal.require_worker();
  perform gdpr_generated.drop_generated_rows(v_id);
  perform gdpr_internal.remember_worker();
  perform gdpr_internal.follow_references(p_relation, '{}', false);
end
$function$;
comment on function gdpr_internal.finish_unprotect(name, regclass) is 'See gdpr_policy.finish_unprotect(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.finish_unprotect(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.finish_unprotect(current_user, p_relation);
end;
comment on function gdpr_policy.finish_unprotect(regclass) is 'Step of unprotect(): the register keeps the table as evidence, the generated functions go.';

create or replace function gdpr.unprotect(p_table regclass)
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
  v_facts record := gdpr_policy.table_facts(p_table);
  v_statement text;
  v_relation regclass;
  v_state jsonb;
  v_begun boolean;
begin
  perform pg_advisory_xact_lock(hashtextextended('gdpr.apply', 0));
  execute format('lock table %s in access exclusive mode', p_table);
  v_begun := gdpr_policy.begin_change('unprotect');
  perform gdpr_policy.begin_unprotect(p_table);
  perform gdpr_policy.controls_off(p_table);
  for v_statement in select s from gdpr_policy.restore_statements(p_table) as s loop
    execute v_statement;
  end loop;
  for v_relation in select r from gdpr_policy.partition_tree(p_table) as r loop
    v_state := coalesce(v_facts.original -> 'partitions' -> v_relation::text, v_facts.original);
    execute format('alter table %s %s row level security, %s row level security', v_relation,
      case when (v_state ->> 'row_security')::boolean then 'enable' else 'disable' end,
      case when (v_state ->> 'force_row_security')::boolean then 'force' else 'no force' end);
  end loop;
  for v_statement in select s from gdpr_policy.registration_grants(p_table, false) as s loop
    execute v_statement;
  end loop;
  execute format('revoke all on table %s from gdpr_worker, gdpr_viewer, gdpr_owner', p_table);
  if v_facts.last_of_schema then
    execute format('revoke usage on schema %I from gdpr_owner, gdpr_keyholder, gdpr_worker, gdpr_viewer, gdpr_dpo', v_facts.schema_name);
  end if;
  perform gdpr_policy.finish_unprotect(p_table);
  perform gdpr_policy.end_change(v_begun);
end
$function$;
comment on function gdpr.unprotect(regclass) is
  'Takes the protection off a table: values are decrypted in place, types, defaults, indexes, constraints and row security are as before; the evidence stays. Run as the owner of the table and member of gdpr_admin. Errors: PR002 not protected, PR004 while tables belong to it, PR402 key locked.';
