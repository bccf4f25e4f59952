-- [code] plan(): what a policy would change, step by step, and every reason to refuse it.
-- GDPR Art. 25. Called by: DBAs, gdprdb policy plan, gdpr.apply().

set local role gdpr_owner;

do $type$
begin
  if to_regtype('gdpr_policy.step') is null then
    create type gdpr_policy.step as (object text, action text, statement text, lock text, rewrite boolean);
  end if;
end
$type$;
comment on type gdpr_policy.step is 'One step of a plan: the object, what happens, the statement, the strongest lock it takes on the table, whether the table is rewritten.';

create or replace function gdpr_internal.register_steps(p_policy jsonb)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_now jsonb := gdpr.policy();
  v_name text;
  v_in jsonb;
begin
  if p_policy -> 'settings' <> v_now -> 'settings' then
    return next row('settings', 'set', format('select gdpr_policy.put_settings(%L)', p_policy -> 'settings'), null, false)::gdpr_policy.step;
  end if;
  for v_name, v_in in select key, value from jsonb_each(p_policy -> 'purposes') order by key loop
    if v_in is distinct from v_now -> 'purposes' -> v_name then
      return next row(
        'purpose ' || v_name, case when v_now -> 'purposes' ? v_name then 'change' else 'declare' end,
        format('select gdpr_policy.put_purpose(%L, %L)', v_name, v_in), null, false
      )::gdpr_policy.step;
    end if;
  end loop;
  for v_name, v_in in select key, value from jsonb_each(p_policy -> 'roles') order by key loop
    if v_in is distinct from v_now -> 'roles' -> v_name
      or not gdpr_internal.in_audience(v_name, v_in ->> 'audience')
    then
      return next row('role ' || v_name, 'bind', format('select gdpr_policy.bind_role(%L, %L)', v_name, v_in), null, false)::gdpr_policy.step;
    end if;
  end loop;
  for v_name in select key from jsonb_object_keys(v_now -> 'roles') as r (key) order by key loop
    if not p_policy -> 'roles' ? v_name then
      return next row('role ' || v_name, 'unbind', format('select gdpr_policy.unbind_role(%L)', v_name), null, false)::gdpr_policy.step;
    end if;
  end loop;
end
$function$;
comment on function gdpr_internal.register_steps(jsonb) is 'Steps for settings, purposes and roles.';

create or replace function gdpr_internal.stored_columns(p_definition jsonb)
returns table (column_name text, encrypt text, kind text, masked boolean)
language sql
immutable
parallel safe
security invoker
begin atomic
  select
    d.key,
    d.value ->> 'encrypt',
    case when d.value ->> 'canonical' = 'exact' then 'exact' else coalesce(d.value ->> 'identifier', 'text') end,
    d.value ->> 'mask' = 'pseudonym' or (d.value ->> 'encrypt' <> 'no' and d.value ->> 'mask' in ('initial', 'email', 'year'))
  from jsonb_each(p_definition -> 'columns') as d;
end;
comment on function gdpr_internal.stored_columns(jsonb) is 'The columns of a definition that keep something beside or instead of the plaintext.';

create or replace function gdpr_internal.control_columns(p_relation regclass, p_definition jsonb)
returns table (column_name text, type text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select c.column_name, c.type
  from (
    values ('gdpr_subject_id', 'bigint', 1), ('gdpr_subject_ref', 'uuid', 2), ('gdpr_purposes', 'bigint', 3), ('gdpr_until', 'timestamptz', 4)
    union all
    select 'gdpr_' || s.column_name || '_digest', 'uuid', 5
    from gdpr_internal.stored_columns(p_definition) as s where s.encrypt = 'searchable'
    union all
    select 'gdpr_' || s.column_name || '_mask',
      coalesce(
        (
          select c.original_type from gdpr_internal.protected_column as c
          join gdpr_internal.protected_table as t on t.id = c.table_id
          where t.relation = p_relation and t.unprotected_at is null and c.column_name = s.column_name and c.encrypt <> 'no'
        ),
        case when s.encrypt <> 'no' then f.carrier end,
        format_type(a.atttypid, a.atttypmod)
      ), 6
    from gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name
    cross join lateral gdpr_internal.type_forms(a.atttypid, a.atttypmod) as f
    where s.masked
  ) as c (column_name, type, n)
  order by c.n, c.column_name;
end;
comment on function gdpr_internal.control_columns(regclass, jsonb) is 'The columns that a definition adds to its table.';

create or replace function gdpr_internal.encrypt_steps(p_relation regclass, p_definition jsonb, p_old jsonb)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_column record;
  v_id smallint := (select t.id from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null);
  v_alter text[] := '{}';
  v_altered text[] := '{}';
  v_defaults text[] := '{}';
  v_parts text[];
  v_object record;
  v_drop text[];
  v_create text[];
  v_statement text;
begin
  for v_object in
    select distinct
      case when k.oid is not null then format('alter table %s drop constraint %I', p_relation, k.conname)
        else format('drop index %s', x.indexrelid::regclass) end as statement,
      coalesce(k.conname, x.indexrelid::regclass::text) as name
    from gdpr_internal.stored_columns(p_definition) as s
    cross join gdpr_internal.relation_tree(p_relation) as r (r)
    join pg_attribute as a on a.attrelid = r.r and a.attname = s.column_name
    -- one that is part of the table's goes with that
    join pg_index as x on x.indrelid = r.r and not x.indisprimary and not exists (select from pg_inherits as i where i.inhrelid = x.indexrelid) and x.indexrelid in (
      select d.objid from pg_depend as d
      where d.classid = 'pg_class'::regclass and d.refobjid = r.r and d.refobjsubid = a.attnum
      union all
      select i.indexrelid from pg_index as i where i.indrelid = r.r and a.attnum = any (i.indkey)
    )
    left join pg_constraint as k on k.conindid = x.indexrelid and k.conrelid = p_relation and k.contype = 'u'
    where s.encrypt <> 'no' and coalesce(p_old -> 'columns' -> s.column_name ->> 'encrypt', 'no') = 'no'
    order by 2
  loop
    return next row(p_relation::text, format('drop %s, which would index ciphertext', v_object.name), v_object.statement, 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
  end loop;
  for v_object in
    select distinct k.conname
    from gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name
    join pg_constraint as k on k.conrelid = p_relation and k.contype = 'c' and a.attnum = any (k.conkey)
    where s.encrypt <> 'no' and coalesce(p_old -> 'columns' -> s.column_name ->> 'encrypt', 'no') = 'no'
    order by 1
  loop
    return next row(
      p_relation::text, format('constraint %I goes on in a trigger, which sees plaintext', v_object.conname),
      format('alter table %s drop constraint %I', p_relation, v_object.conname), 'ACCESS EXCLUSIVE', false
    )::gdpr_policy.step;
  end loop;
  select array_agg(g.drop_statement order by g.name), array_agg(g.create_statement order by g.name) into v_drop, v_create
  from gdpr_internal.column_triggers(p_relation, array(
    select s.column_name from gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name and a.atttypid <> 'text'::regtype
    where s.encrypt <> 'no' and coalesce(p_old -> 'columns' -> s.column_name ->> 'encrypt', 'no') = 'no'
  )) as g;
  foreach v_statement in array coalesce(v_drop, '{}') loop
    return next row(p_relation::text, 'a trigger makes room for the new type', v_statement, 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
  end loop;
  for v_column in
    select a.attname, a.attnum, format_type(a.atttypid, a.atttypmod) as type, s.encrypt,
      exists (select from pg_attribute as w where w.attrelid = p_relation and w.attname = 'gdpr_text_' || a.attnum and not w.attisdropped) as has_shadow,
      coalesce(
        (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef as d where d.adrelid = p_relation and d.adnum = a.attnum),
        gdpr_internal.type_default(a.atttypid)
      ) as expression
    from gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name
    where s.encrypt <> 'no' and coalesce(p_old -> 'columns' -> s.column_name ->> 'encrypt', 'no') = 'no'
    order by a.attnum
  loop
    if v_column.type <> 'text' and not v_column.has_shadow then
      v_altered := v_altered || v_column.attname::text;
      v_parts := array(
        select format('alter table %s alter column %I %s', d.relation, v_column.attname,
          case when d.expression is null then 'drop default' else 'set default ' || gdpr_internal.text_expression('(' || d.expression || ')', v_column.type) end)
        from gdpr_internal.partition_defaults(p_relation, v_column.attname) as d
      );
      v_defaults := v_defaults || v_parts;
      if v_column.expression is not null or v_parts <> '{}' then
        v_alter := v_alter || format('alter column %I drop default', v_column.attname);
      end if;
      v_alter := v_alter || format(
        'alter column %1$I type text using %2$s', v_column.attname,
        replace(gdpr_internal.text_expression(format('%I', v_column.attname), v_column.type), 'gdpr_internal.', 'gdpr.')
      );
      if v_column.expression is not null then
        v_alter := v_alter || format(
          'alter column %I set default %s', v_column.attname, gdpr_internal.text_expression(format('(%s)', v_column.expression), v_column.type)
        );
      end if;
    end if;
  end loop;
  if v_alter <> '{}' then
    return next row(
      p_relation::text, 'encrypted columns become text',
      format('alter table %s %s', p_relation, array_to_string(v_alter, ', ')), 'ACCESS EXCLUSIVE', true
    )::gdpr_policy.step;
    return query
    select p_relation::text, 'statistics keep their target', s, null::text, false
    from gdpr_internal.statistics_statements(p_relation, v_altered, false) as s;
  end if;
  foreach v_statement in array v_defaults loop
    return next row(p_relation::text, 'a partition keeps its default', v_statement, 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
  end loop;
  if gdpr_internal.enabling_state(v_id) is not null then
    return query
    select p_relation::text, 'shadows take the names of their columns', s, 'ACCESS EXCLUSIVE', false from gdpr_internal.swap_statements(p_relation) as s;
  end if;
  foreach v_statement in array coalesce(v_create, '{}') loop
    return next row(p_relation::text, 'and comes back', v_statement, 'SHARE ROW EXCLUSIVE', false)::gdpr_policy.step;
  end loop;
end
$function$;
comment on function gdpr_internal.encrypt_steps(regclass, jsonb, jsonb) is 'Steps that make room for ciphertext in columns that are encrypted from now on.';

create or replace function gdpr_internal.index_steps(p_relation regclass, p_definition jsonb)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_column record;
  v_unique jsonb;
  v_name name;
begin
  if not exists (
    select from pg_index as x
    join pg_attribute as a on a.attrelid = x.indrelid and a.attname = 'gdpr_subject_id'
    where x.indrelid = p_relation and x.indkey::text = a.attnum::text
  ) then
    return next row(
      p_relation::text, 'index the subject',
      format('create index on %s (gdpr_subject_id)', p_relation), 'SHARE', false
    )::gdpr_policy.step;
  end if;
  for v_column in
    select s.column_name, 'gdpr_' || s.column_name || '_digest' as digest
    from gdpr_internal.stored_columns(p_definition) as s
    where s.encrypt = 'searchable'
    order by s.column_name
  loop
    v_unique := coalesce(
      (
        select c.original from gdpr_internal.protected_column as c
        join gdpr_internal.protected_table as t on t.id = c.table_id
        where t.relation = p_relation and t.unprotected_at is null and c.column_name = v_column.column_name and c.encrypt <> 'no'
      ),
      gdpr_internal.original_column(p_relation, v_column.column_name, 'searchable')
    );
    v_name := v_unique ->> 'unique_name';
    continue when exists (
      select from pg_index as x
      join pg_attribute as a on a.attrelid = x.indrelid and a.attname = v_column.digest
      where x.indrelid = p_relation and x.indkey::text = a.attnum::text and (x.indisunique or v_name is null)
    );
    return next row(
      p_relation::text, format('index the digest of %I', v_column.column_name),
      case
        when v_unique ? 'unique_constraint' then rtrim(
          format('alter table %s add constraint %I unique (%I) %s', p_relation, v_name, v_column.digest, v_unique ->> 'unique_timing')
        )
        when v_name is not null then format('create unique index %I on %s (%I)', v_name, p_relation, v_column.digest)
        else format('create index on %s (%I)', p_relation, v_column.digest)
      end,
      'SHARE', false
    )::gdpr_policy.step;
  end loop;
end
$function$;
comment on function gdpr_internal.index_steps(regclass, jsonb) is 'Steps that index the subject and the digests; UNIQUE of a column moves, with its name, to its digest.';

create or replace function gdpr_internal.audit_triggers(p_relation regclass, p_table smallint)
returns table (name name, timing text, level text, enable text, enabled "char", function name)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- what arrives is recorded by the statement, in half the time of a call for each row; not where PostgreSQL fires no trigger
  -- of a statement: for a row that a partition gets through its table, or a subscription brings
  select t.name, t.timing, t.level, t.enable, t.enabled::"char", (t.function || p_table)::name
  from (values
    ('zzz_gdpr_50_audit', 'after insert or update or delete', 'for each row', 'enable always', 'A', 'audit_', true),
    ('zzz_gdpr_50_audit', 'after update or delete', 'for each row', 'enable always', 'A', 'audit_', false),
    ('zzz_gdpr_50_audit_arrivals', 'after insert', 'referencing new table as arrivals for each statement', 'enable', 'O', 'audit_arrivals_', false),
    ('zzz_gdpr_50_audit_replicated', 'after insert', 'for each row', 'enable replica', 'R', 'audit_', false)
  ) as t (name, timing, level, enable, enabled, function, partitioned)
  join pg_class as c on c.oid = p_relation and (c.relkind = 'p' or c.relispartition) = t.partitioned;
end;
comment on function gdpr_internal.audit_triggers(regclass, smallint) is
  'The triggers that write the audit records of a table or partition, and when each fires: always, where the change is made, or where it is replicated to.';

create or replace function gdpr_internal.trigger_steps(p_relation regclass, p_definition jsonb, p_table smallint)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_via text[] := gdpr_internal.text_array(p_definition -> 'subject' -> 'via');
  v_watched boolean;
  v_controls text;
  v_trigger record;
begin
  select coalesce(bool_or(d.value ? 'identifier' or s.encrypt <> 'no' or s.masked), false) into v_watched
  from jsonb_each(p_definition -> 'columns') as d
  join gdpr_internal.stored_columns(p_definition) as s on s.column_name = d.key;
  select string_agg(format('%I', c.column_name), ', ') into v_controls
  from gdpr_internal.control_columns(p_relation, p_definition) as c;

  -- after the application's own BEFORE triggers: they work with plaintext, and what they change is encrypted too.
  -- hardly a WHEN: its expression would be parsed again for every statement, which costs more than the call
  for v_trigger in
    select t.name, t.timing, concat_ws(' ', 'for each row', t.condition) as level, 'enable always' as enable, t.function
    from (values
      ('zzz_gdpr_05_guard', format('before update of %s', v_controls), 'when (current_user <> ''gdpr_worker'')', 'gdpr_policy.guard_gate'),
      ('zzz_gdpr_10_subject', case when v_via is not null then 'before insert' end, null, format('gdpr_generated.%I', 'subject_' || p_table)),
      ('zzz_gdpr_10_subject_move', case when v_via is not null then 'before update' end, null, format('gdpr_generated.%I', 'subject_' || p_table)),
      ('zzz_gdpr_40_protect', 'before insert', null, format('gdpr_generated.%I', 'protect_' || p_table)),
      ('zzz_gdpr_40_change', case when v_watched or v_via is not null then 'before update' end, null, format('gdpr_generated.%I', 'change_' || p_table))
    ) as t (name, timing, condition, function)
    where t.timing is not null
    union all
    select a.name, a.timing, a.level, a.enable, format('gdpr_generated.%I', a.function) from gdpr_internal.audit_triggers(p_relation, p_table) as a
  loop
    return next row(
      p_relation::text, 'trigger ' || v_trigger.name,
      format('create or replace trigger %I %s on %s %s execute function %s()',
        v_trigger.name, v_trigger.timing, p_relation, v_trigger.level, v_trigger.function),
      'SHARE ROW EXCLUSIVE', false
    )::gdpr_policy.step;
    return next row(
      p_relation::text, format('%s %s', v_trigger.enable, v_trigger.name),
      format('alter table %s %s trigger %I', p_relation, v_trigger.enable, v_trigger.name), 'SHARE ROW EXCLUSIVE', false
    )::gdpr_policy.step;
  end loop;
  for v_trigger in select r.relation from gdpr_internal.relation_tree(p_relation) as r (relation) loop
    return next row(
      v_trigger.relation::text, 'trigger zzz_gdpr_40_truncate',
      format('create or replace trigger zzz_gdpr_40_truncate before truncate on %s for each statement execute function gdpr_policy.guard_truncate()', v_trigger.relation),
      'SHARE ROW EXCLUSIVE', false
    )::gdpr_policy.step;
    return next row(
      v_trigger.relation::text, 'enable always zzz_gdpr_40_truncate',
      format('alter table %s enable always trigger zzz_gdpr_40_truncate', v_trigger.relation), 'SHARE ROW EXCLUSIVE', false
    )::gdpr_policy.step;
  end loop;
  if gdpr_internal.has_held_values(p_relation, p_definition) then
    return next row(
      p_relation::text, 'constraints and types of encrypted columns hold', format('select gdpr_policy.put_checks(%L)', p_relation),
      'SHARE ROW EXCLUSIVE', false
    )::gdpr_policy.step;
  end if;
end
$function$;
comment on function gdpr_internal.trigger_steps(regclass, jsonb, smallint) is 'Steps that put the triggers on a table.';

create or replace function gdpr_internal.retention_condition(p_relation regclass, p_definition jsonb)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select '((' || string_agg(format(
    '%I > (select gdpr_policy.kept_since(current_user, current_setting(''gdpr.purpose'', true), %L, null::%s))', coalesce(a.attname, ''), r.rule ->> 'for',
    format_type(a.atttypid, null)
  ), ' or ' order by r.n) || ') is not false)'
  from jsonb_array_elements(p_definition -> 'retain') with ordinality as r (rule, n)
  left join pg_attribute as a on a.attrelid = p_relation and a.attname = r.rule ->> 'after' and not a.attisdropped
  having bool_and(a.attname is not null) and not bool_and(r.rule ? 'columns');
end;
comment on function gdpr_internal.retention_condition(regclass, jsonb) is
  'The SQL by which rows are shown whose time is not over, for tables all of whose rules count from columns; null for others: without a basis the gate is closed anyway.';

create or replace function gdpr_internal.note_code(p_table smallint, p_definition jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select format('(select gdpr_policy.note_read(%s::smallint, %L))', p_table, p_definition ->> 'audit_reads' = 'required')
  where p_definition ? 'audit_reads';
end;
comment on function gdpr_internal.note_code(smallint, jsonb) is
  'The SQL by which a statement that reads a table is recorded; null for tables whose reads are not recorded.';

create or replace function gdpr_internal.count_code(p_table smallint, p_noted text, p_counter text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select format('case when %s then gdpr_policy.count_read(%L::regclass) else true end', p_noted, 'gdpr_generated.' || p_counter || p_table)
  where p_noted is not null;
end;
comment on function gdpr_internal.count_code(smallint, text, text) is
  'The SQL by which the rows that a statement reads are counted, where it is recorded (p_noted); null where that is null.';

create or replace function gdpr_internal.policy_steps(p_relation regclass, p_definition jsonb, p_original jsonb, p_table smallint)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_enforce boolean := p_definition ->> 'mode' = 'enforce';
  v_mask text := '(select gdpr_generated.purpose_mask(current_user, current_setting(''gdpr.purpose'', true)))';
  v_caller text := 'current_user, current_setting(''gdpr.purpose'', true)';
  v_gate text := format(
    -- gdpr_worker sees rows that somebody closed by hand, too: erasure and the doctor have to find them
    '((gdpr_purposes & %s) <> 0 and (gdpr_until > statement_timestamp() or gdpr_policy.still_allowed(gdpr_subject_id, gdpr_purposes, %s))) or current_user = ''gdpr_worker''',
    v_mask, v_caller
  );
  v_base text := '(select gdpr_generated.is_clear(current_user) or gdpr_policy.refuse_base(current_user))';
  -- a row whose time is over is hidden at that instant, whenever retention comes to delete it
  v_shown text := format('(%s)', v_gate) || coalesce(' and ' || gdpr_internal.retention_condition(p_relation, p_definition), '');
  v_policy record;
  v_state jsonb;
begin
  for v_relation in select r from gdpr_internal.relation_tree(p_relation) as r loop
    v_state := coalesce(p_original -> 'partitions' -> v_relation::text, p_original);
    for v_policy in
      select * from (values
        ('gdpr_40_owners', 'for all to gdpr_worker, gdpr_viewer using (true) with check (true)'),
        ('gdpr_40_base', format('for all to public using (%1$s) with check (%1$s)', v_base)),
        ('gdpr_40_gate', format(
          -- the same to see and to write: PostgreSQL drops a check that says it twice; why a write is refused, the trigger says
          'as restrictive for all to public using (%s) with check (%s)', v_shown, v_gate
        )),
        -- the clear view counts for itself: its owner reads the table
        ('gdpr_50_reads', 'as restrictive for select to gdpr_app, gdpr_dpo using (' || gdpr_internal.count_code(p_table, gdpr_internal.note_code(p_table, p_definition), 'base_reads_') || ')')
      ) as p (name, definition)
      union all
      select o.name::text, o.definition from gdpr_internal.own_policies(v_relation, v_state) as o
    loop
      if exists (select from pg_policy as p where p.polrelid = v_relation and p.polname = v_policy.name) then
        return next row(
          v_relation::text, 'drop policy ' || v_policy.name,
          format('drop policy if exists %I on %s', v_policy.name, v_relation), 'ACCESS EXCLUSIVE', false
        )::gdpr_policy.step;
      end if;
      if v_enforce and v_policy.definition is not null then
        return next row(
          v_relation::text, 'policy ' || v_policy.name,
          format('create policy %I on %s %s', v_policy.name, v_relation, v_policy.definition), 'ACCESS EXCLUSIVE', false
        )::gdpr_policy.step;
      end if;
    end loop;
    return next row(
      v_relation::text, case when v_enforce then 'force row security' else 'observe: row security as it was' end,
      format('alter table %s %s row level security, %s row level security', v_relation,
        case when v_enforce or (v_state ->> 'row_security')::boolean then 'enable' else 'disable' end,
        case when v_enforce or (v_state ->> 'force_row_security')::boolean then 'force' else 'no force' end),
      'ACCESS EXCLUSIVE', false
    )::gdpr_policy.step;
  end loop;
end
$function$;
comment on function gdpr_internal.policy_steps(regclass, jsonb, jsonb, smallint) is
  'Steps that put the gate on a table and its partitions: owners of the machinery, roles that may touch the table, the gate itself (restrictive, for all, to public), and what policies of the table''s own show (restrictive).';

create or replace function gdpr_internal.grant_steps(p_relation regclass, p_definition jsonb, p_old jsonb)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_schema name := (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = p_relation);
begin
  return query
  select p_relation::text, 'let the machinery read and write', s.statement, null::text, false
  from (values
    (1, format('grant usage on schema %I to gdpr_owner, gdpr_keyholder, gdpr_worker, gdpr_viewer, gdpr_dpo', v_schema)),
    (2, format('grant select on table %s to gdpr_worker, gdpr_viewer', p_relation)),
    -- one column is enough for SELECT ... FOR UPDATE through the clear view, which asks its owner too
    (3, format('grant update (gdpr_until) on table %s to gdpr_viewer', p_relation)),
    (4, format('grant update, delete on table %s to gdpr_worker', p_relation))
  ) as s (n, statement)
  order by s.n;
  if p_definition ? 'double_opt_in' or p_old ? 'double_opt_in' then
    return query
    select p_relation::text, 'confirmed registrations', s.statement, null::text, false
    from gdpr_policy.registration_grants(p_relation, p_definition ? 'double_opt_in') as s (statement);
  end if;
end
$function$;
comment on function gdpr_internal.grant_steps(regclass, jsonb, jsonb) is 'Steps that let the owners of gdprdb''s functions read and write a table.';

create or replace function gdpr_internal.table_steps(p_relation regclass, p_definition jsonb, p_next_id smallint)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_new boolean;
  v_changed boolean;
  v_rewrite boolean;
  v_columns text;
begin
  select * into v_table from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null;
  if gdpr_internal.enabling_state(v_table.id) is not null then
    return next row(
      p_relation::text, 'finish enabling at once', format('select gdpr_policy.finish_enabling(%L)', p_relation), 'ACCESS EXCLUSIVE', false
    )::gdpr_policy.step;
    return;
  end if;
  v_new := v_table.id is null;
  v_changed := v_new or v_table.definition <> p_definition;
  if not v_changed and v_table.fingerprint is not distinct from gdpr_internal.fingerprint(p_relation) then
    return;
  end if;
  v_rewrite := not v_new and exists (
    select s.column_name, s.encrypt, s.kind, s.masked, p_definition -> 'columns' -> s.column_name ->> 'mask',
      p_definition -> 'columns' -> s.column_name ->> 'identifier'
    from gdpr_internal.stored_columns(p_definition) as s
    where s.encrypt <> 'no' or s.masked or p_definition -> 'columns' -> s.column_name ? 'identifier'
    except
    select s.column_name, s.encrypt, s.kind, s.masked, v_table.definition -> 'columns' -> s.column_name ->> 'mask',
      v_table.definition -> 'columns' -> s.column_name ->> 'identifier'
    from gdpr_internal.stored_columns(v_table.definition) as s
  ) or exists (select from gdpr_internal.reshape as r where r.table_id = v_table.id and r.retyped <> '{}');

  if v_changed then
    if not v_new then
      return next row(p_relation::text, 'take the controls off', format('select gdpr_policy.controls_off(%L)', p_relation), 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
    end if;
    return next row(
      p_relation::text, case when v_new then 'register' else 'change' end,
      format('select gdpr_policy.register_table(%L, %L)', p_relation, p_definition), null, false
    )::gdpr_policy.step;
  end if;
  select string_agg(format('add column %I %s', c.column_name, c.type), ', ') into v_columns
  from gdpr_internal.control_columns(p_relation, p_definition) as c
  where not exists (select from pg_attribute as a where a.attrelid = p_relation and a.attname = c.column_name and not a.attisdropped);
  if v_columns is not null then
    return next row(p_relation::text, 'add columns', format('alter table %s %s', p_relation, v_columns), 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
  end if;
  return query select * from gdpr_internal.encrypt_steps(p_relation, p_definition, v_table.definition);
  return query select * from gdpr_internal.grant_steps(p_relation, p_definition, v_table.definition);
  return next row(p_relation::text, 'generate functions', format('select gdpr_policy.generate_functions(%L)', p_relation), null, false)::gdpr_policy.step;
  if v_new or v_rewrite then
    return next row(
      p_relation::text, case when v_new then 'find the persons in existing rows and encrypt them' else 'rewrite rows for the changed columns' end,
      format('select gdpr_policy.backfill(%L, %L)', p_relation, v_new), 'ACCESS EXCLUSIVE', true
    )::gdpr_policy.step;
  end if;
  -- one that was enabled in batches has taken in those that came meanwhile
  if not v_new and v_table.fingerprint is not null then
    return query select * from gdpr_internal.partition_steps(p_relation);
  end if;
  return query select * from gdpr_internal.index_steps(p_relation, p_definition);
  return query select * from gdpr_internal.search_steps(p_relation, p_definition);
  if v_new or v_rewrite then
    return next row(
      p_relation::text, 'statistics forget the plaintext', format('analyze %s', p_relation), 'SHARE UPDATE EXCLUSIVE', false
    )::gdpr_policy.step;
  end if;
  return query select * from gdpr_internal.trigger_steps(p_relation, p_definition, coalesce(v_table.id, p_next_id));
  return next row(p_relation::text, 'views', format('select gdpr_policy.generate_views(%L)', p_relation), null, false)::gdpr_policy.step;
  return query select * from gdpr_internal.policy_steps(p_relation, p_definition, coalesce(v_table.original, gdpr_internal.original_state(p_relation)), coalesce(v_table.id, p_next_id));
  if not v_new and v_table.definition -> 'purposes' <> p_definition -> 'purposes' then
    return next row(
      p_relation::text, 'the gate of every row follows the purposes', format('select gdpr_policy.extend_table(%L)', p_relation), 'ROW EXCLUSIVE', false
    )::gdpr_policy.step;
  end if;
  return next row(p_relation::text, 'remember the controls', format('select gdpr_policy.settle_table(%L)', p_relation), null, false)::gdpr_policy.step;
end
$function$;
comment on function gdpr_internal.table_steps(regclass, jsonb, smallint) is 'Steps for one table; none when the register and the catalog already agree with the definition.';

create or replace function gdpr_internal.change_problems(p_policy jsonb, p_role name)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    with policy_table as materialized (
      select t.key, t.value, gdpr_internal.find_table(t.key) as relation from jsonb_each(p_policy -> 'tables') as t
    )
    select coalesce(array_agg(x.problem), '{}')
    from (
      select format(
        'tables.%s: %sbelongs to role %s; apply the policy as its owner', to_json(t.key),
        case when c.oid <> t.relation then format('partition %s ', c.oid::regclass) else '' end, c.relowner::regrole
      ) as problem
      from policy_table as t
      cross join lateral gdpr_internal.relation_tree(t.relation) as r (r)
      join pg_class as c on c.oid = r.r
      where not pg_has_role(p_role, c.relowner, 'usage')
      union all
      select format('tables.%s: the subject of a protected table cannot change; unprotect it first', to_json(t.key))
      from policy_table as t
      join gdpr_internal.protected_table as o on o.relation = t.relation and o.unprotected_at is null
      where o.definition #- '{subject,joint}' -> 'subject' <> t.value #- '{subject,joint}' -> 'subject'
      union all
      select format('tables.%s: is being enabled under another definition; let that come to its end, or unprotect it', to_json(t.key))
      from policy_table as t
      join gdpr_internal.protected_table as o on o.relation = t.relation and o.unprotected_at is null
      where o.definition <> t.value and gdpr_internal.enabling_state(o.id) is not null
      union all
      select format('tables.%s.columns.%s: is encrypted; unprotect the table to take that away', to_json(t.key), to_json(c.column_name))
      from policy_table as t
      join gdpr_internal.protected_table as o on o.relation = t.relation and o.unprotected_at is null
      join gdpr_internal.protected_column as c on c.table_id = o.id and c.encrypt <> 'no'
      where coalesce(t.value -> 'columns' -> c.column_name::text ->> 'encrypt', 'no') = 'no'
      union all
      -- or the history of the column would end here
      select format('tables.%s: %s%s', to_json(t.key), to_json(u.was), gdpr_internal.where_column_went(o.relation, u.was))
      from policy_table as t
      join gdpr_internal.protected_table as o on o.relation = t.relation and o.unprotected_at is null
      cross join lateral gdpr_internal.unfollowed_names(o.id) as u
      where u.was <> o.known_as
      union all
      select 'keys: there is no key-encryption key; call gdpr.create_key() first'
      where p_policy -> 'tables' <> '{}' and not gdpr_internal.has_key()
    ) as x
  );
end
$function$;
comment on function gdpr_internal.change_problems(jsonb, name) is 'Why this policy cannot follow the one in force, or not by this role.';

create or replace function gdpr_internal.table_order(p_tables jsonb)
returns table (relation regclass, definition jsonb, n bigint)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with recursive tree (name, depth) as (
    select t.key, 0
    from jsonb_each(p_tables) as t
    where not coalesce(p_tables ? (t.value -> 'subject' ->> 'references'), false)
    union all
    select t.key, p.depth + 1
    from tree as p
    join jsonb_each(p_tables) as t on t.value -> 'subject' ->> 'references' = p.name
    where p.depth < 100
  )
  select gdpr_internal.find_table(o.name), p_tables -> o.name, row_number() over (order by o.depth, o.name)
  from tree as o;
end;
comment on function gdpr_internal.table_order(jsonb) is 'Tables, parents before children.';

create or replace function gdpr_policy.read(p_policy jsonb, p_role name)
returns jsonb
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_read record := gdpr_internal.read_policy(p_policy);
begin
  if v_read.problems = '{}' then
    v_read.problems := gdpr_internal.change_problems(v_read.policy, p_role);
  end if;
  if v_read.problems <> '{}' then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_read.problems, E'\n'));
  end if;
  return v_read.policy;
end
$function$;
comment on function gdpr_policy.read(jsonb, name) is 'A policy in normal form, if this role can apply it. Error: PR001.';

create or replace function gdpr_policy.steps(p_policy jsonb)
returns table (step integer, object text, action text, statement text, lock text, rewrite boolean)
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_order record;
  v_next smallint := (select coalesce(max(t.id), 0) from gdpr_internal.protected_table as t);
  v_generated boolean := false;
begin
  step := 0;
  for object, action, statement, lock, rewrite in select * from gdpr_internal.register_steps(p_policy) loop
    step := step + 1;
    return next;
  end loop;
  for v_order in select * from gdpr_internal.table_order(p_policy -> 'tables') as o order by o.n loop
    if not exists (select from gdpr_internal.protected_table as t where t.relation = v_order.relation and t.unprotected_at is null) then
      v_next := v_next + 1;
    end if;
    for object, action, statement, lock, rewrite in
      select * from gdpr_internal.table_steps(v_order.relation, v_order.definition, v_next)
    loop
      step := step + 1;
      v_generated := v_generated or action = 'generate functions';
      return next;
    end loop;
  end loop;
  if v_generated then
    step := step + 1;
    object := 'erasure';
    action := 'follow the foreign keys between the tables';
    statement := 'select gdpr_policy.generate_erasure()';
    lock := null;
    rewrite := false;
    return next;
  end if;
end
$function$;
comment on function gdpr_policy.steps(jsonb) is 'See gdpr.plan(); takes what gdpr_policy.read() returned. Each step looks itself at what it is given.';
