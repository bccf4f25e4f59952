-- [code] Enabling at size: a large table is protected in moments and batches while the application goes on.
-- GDPR Art. 25, 32. Called by: gdprdb policy apply --batches; gdpr.apply(), when it finds one that was begun.
--
-- gdpr.next_step() says what comes next, from policy, register and catalog alone: whoever asks goes on where another stopped.
-- A row is finished by being touched: the triggers of the table do it, as they do for a new row.

set local role gdpr_owner;

create or replace function gdpr_internal.batch_obstacle(p_role name, p_relation regclass, p_definition jsonb)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_name text;
begin
  v_name := gdpr_internal.partition_obstacle(p_role, p_relation, p_definition);
  if v_name is not null then
    return v_name;
  elsif gdpr_internal.hides_rows(p_role, p_relation) and gdpr_internal.narrowing_policies(p_role, p_relation) is not null then
    return format('row security is forced on the table, and restrictive policies hide rows from its owner: %s', gdpr_internal.narrowing_policies(p_role, p_relation));
  end if;
  select string_agg(s.name, ', ' order by s.name) into v_name
  from gdpr_internal.text_statistics(p_relation, p_definition) as s
  where not has_schema_privilege(p_role, s.namespace, 'create');
  if v_name is not null then
    return format('statistics over columns that become text, in a schema in which the role may not make them anew: %s; drop them', v_name);
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.batch_obstacle(name, regclass, jsonb) is
  'Why a table cannot be enabled in batches, but only at once; null when it can. No personal data.';

create or replace function gdpr_internal.incomplete_code(p_table smallint)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_unclaimed constant text := 't.gdpr_subject_id is null and t.gdpr_purposes is null';
begin
  if gdpr_internal.enabling_state(p_table) = 'claiming' then
    -- a shadow is compared, not believed: what is dropped in the end cannot be looked up again
    return (
      select v_unclaimed || coalesce(string_agg(format(' or t.%I collate "C" is distinct from %s', s.shadow, s.value), '' order by s.place), '')
      from gdpr_internal.shadows(p_table, 't') as s
    );
  end if;
  -- a partition that comes while values are encrypted brings rows that nobody has claimed
  return format('(%s or t.gdpr_subject_id is not null and (%s))', v_unclaimed, gdpr_internal.plaintext_condition(p_table, 't'));
end
$function$;
comment on function gdpr_internal.incomplete_code(smallint) is 'The SQL that says whether row t still has to be written in the state that the enabling of its table is in.';

create or replace function gdpr_internal.enabling_triggers(p_table smallint)
returns setof text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_sealing boolean := gdpr_internal.enabling_state(p_table) = 'sealing';
  v_touched constant text := 'old.gdpr_subject_id is null and old.gdpr_purposes is null and pg_catalog.current_setting(''gdpr.enabling'', true) = ''on''';
  v_waiting constant text := 'old.gdpr_subject_id is null and old.gdpr_purposes is null';
  v_known constant text := 'old.gdpr_purposes is not null';
  v_written text;
  v_forged text;
  v_always text[] := '{}';
  v_trigger record;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select string_agg(format('new.%1$I is distinct from old.%1$I', c.column_name), ' or ') into v_written
  from gdpr_internal.control_columns(v_table.relation, v_table.definition) as c;
  select string_agg(format('pg_catalog.starts_with(new.%I::pg_catalog.text, ''gdpr1:'')', c.column_name), ' or ' order by c.position) into v_forged
  from (
    select c.column_name, c.position from gdpr_internal.protected_column as c where c.table_id = p_table and c.encrypt <> 'no'
    union all
    select w.shadow, w.place from gdpr_internal.shadows(p_table, 'new') as w
  ) as c;
  for v_trigger in
    select *
    from (values
      ('zzz_gdpr_03_text', case when exists (select from gdpr_internal.shadows(p_table, 'new')) then 'before insert or update' end, null,
        format('gdpr_generated.%I()', 'text_' || p_table)),
      -- later such a value would pass for one that is encrypted
      ('zzz_gdpr_04_plain', case when v_forged is not null and not v_sealing then 'before insert or update' end, v_forged, 'gdpr_policy.guard_ciphertext()'),
      -- and so would one in a row whose turn has not come
      ('zzz_gdpr_04_waiting', case when v_sealing then 'before update' end, format('%s and (%s)', v_waiting, v_forged), 'gdpr_policy.guard_ciphertext()'),
      ('zzz_gdpr_05_guard', 'before update', format('current_user <> ''gdpr_worker'' and (%s)', v_written), 'gdpr_policy.guard_gate()'),
      ('zzz_gdpr_10_backfill', case when v_table.parent_id is not null then 'before update' end, v_touched, format('gdpr_generated.%I(''all'')', 'subject_' || p_table)),
      ('zzz_gdpr_10_subject', case when v_table.parent_id is not null then 'before insert' end, null, format('gdpr_generated.%I()', 'subject_' || p_table)),
      ('zzz_gdpr_10_subject_move', case when v_table.parent_id is not null then 'before update' end, v_known, format('gdpr_generated.%I()', 'subject_' || p_table)),
      ('zzz_gdpr_40_backfill', 'before update', v_touched, format('gdpr_generated.%I()', 'protect_' || p_table)),
      ('zzz_gdpr_40_change', case when to_regprocedure(format('gdpr_generated.%I()', 'change_' || p_table)) is not null then 'before update' end, v_known,
        format('gdpr_generated.%I()', 'change_' || p_table)),
      ('zzz_gdpr_40_protect', 'before insert', null, format('gdpr_generated.%I()', 'protect_' || p_table)),
      ('zzz_gdpr_45_seal', case when v_sealing then 'before update' end,
        format('new.gdpr_subject_id is not null and (%s)', gdpr_internal.plaintext_condition(p_table, 'new')),
        format('gdpr_generated.%I()', 'seal_' || p_table))
    ) as t (name, timing, condition, function)
    where t.timing is not null
    union all
    -- tested is what is written, not what is touched: the row may be older than the constraint
    select format('zzz_gdpr_35_held_%s_%s', k.n, o.event), 'before ' || o.event,
      o.condition || format('case when %s then gdpr_generated.%I(%s) is false else false end', k.opened, k.function, k.given),
      format('gdpr_policy.guard_check(%L, ''enabling'')', k.name)
    from (select k.*, row_number() over (order by k.name) as n from gdpr_internal.held_checks(p_table) as k where k.loose or v_sealing) as k
    cross join lateral (
      select 'insert' as event, '' as condition
      union all
      select 'update', format('(%s) and (old.gdpr_subject_id is null or new.gdpr_subject_id is not null) and ', (
        select string_agg(gdpr_internal.differs_code(v_table.relation, u), ' or ') from unnest(k.columns) as u
      ))
    ) as o
    union all
    -- text has no length: it is held, as ever, by the functions that let a row in, and until then by this
    select format('zzz_gdpr_04_length_%s', c.id), 'before update',
      format('%s and length(rtrim(new.%I, '' '')) > %s', v_waiting, c.column_name, substring(c.original_type from '^character varying\((\d+)\)$')),
      format('gdpr_policy.guard_length(%L)', c.column_name)
    from gdpr_internal.protected_column as c
    where v_sealing and c.table_id = p_table and c.encrypt <> 'no' and c.original_type ~ '^character varying\(\d+\)$'
  loop
    -- those that are there stay, as their time is one under the lock; and the one that has kept the shadows would be another
    if not exists (select from pg_trigger as g where g.tgrelid = v_table.relation and g.tgname = v_trigger.name) then
      return next format('create trigger %I %s on %s for each row %s execute function %s',
        v_trigger.name, v_trigger.timing, v_table.relation, 'when (' || v_trigger.condition || ')', v_trigger.function);
      v_always := v_always || format('enable always trigger %I', v_trigger.name);
    elsif exists (
      select from gdpr_internal.relation_tree(v_table.relation) as r (r)
      join pg_trigger as g on g.tgrelid = r.r and g.tgname = v_trigger.name and g.tgenabled <> 'A'
    ) then
      v_always := v_always || format('enable always trigger %I', v_trigger.name);
    end if;
  end loop;
  if v_always <> '{}' then
    return next format('alter table %s %s', v_table.relation, array_to_string(v_always, ', '));
  end if;
  -- those of rows, partitions get with their table; those of statements not
  for v_trigger in
    select r.relation from gdpr_internal.relation_tree(v_table.relation) as r (relation)
    where not exists (select from pg_trigger as g where g.tgrelid = r.relation and g.tgname = 'zzz_gdpr_40_truncate' and g.tgenabled = 'A')
  loop
    return next format(
      'create or replace trigger zzz_gdpr_40_truncate before truncate on %s for each statement execute function gdpr_policy.guard_truncate()',
      v_trigger.relation
    );
    return next format('alter table %s enable always trigger zzz_gdpr_40_truncate', v_trigger.relation);
  end loop;
end
$function$;
comment on function gdpr_internal.enabling_triggers(smallint) is
  'The statements that put on a table the triggers of its enabling: new and changed rows are taken in at once, others when they are touched.';

create or replace function gdpr_internal.index_over(p_relation regclass, p_column name, p_unique boolean)
returns regclass
-- up to PostgreSQL 17 a function of SQL would be planned for each call
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- the one that is part of that of the table, if there is; valid or not
  return (
    select x.indexrelid::regclass
    from pg_index as x
    join pg_attribute as a on a.attrelid = x.indrelid and a.attname = p_column
    where x.indrelid = p_relation and x.indkey::text = a.attnum::text and x.indpred is null and (x.indisunique or not p_unique)
    order by not exists (select from pg_inherits as i where i.inhrelid = x.indexrelid), x.indexrelid
    limit 1
  );
end
$function$;
comment on function gdpr_internal.index_over(regclass, name, boolean) is 'The index over nothing but this column; null when there is none.';

create or replace function gdpr_internal.next_of_index(p_relation regclass, p_column name, p_unique_name name)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_part record;
  v_kind text := case when p_unique_name is null then 'index' else 'unique index' end;
begin
  for v_part in
    select r.relation, c.relkind = 'p' as is_whole, x.own, exists (select from pg_inherits as h where h.inhrelid = x.own) as is_attached,
      gdpr_internal.index_over(i.inhparent, p_column, false) as whole
    from gdpr_internal.relation_tree(p_relation) as r (relation)
    join pg_class as c on c.oid = r.relation and c.relkind in ('r', 'p')
    left join pg_inherits as i on i.inhrelid = r.relation and c.relispartition
    cross join lateral (select gdpr_internal.index_over(r.relation, p_column, p_unique_name is not null) as own) as x
    -- what is attached needs that to which it is
    order by c.relkind <> 'p', cardinality(array(select pg_partition_ancestors(r.relation))), r.relation::oid
  loop
    if v_part.own is null then
      return case when v_part.is_whole then format('create index on only %s (%I)', v_part.relation, p_column)
        else concat_ws(' ', 'create', v_kind, 'concurrently', quote_ident(p_unique_name), 'on', format('%s (%I)', v_part.relation, p_column)) end;
    elsif v_part.whole is not null and not v_part.is_attached then
      return format('alter index %s attach partition %s', v_part.whole, v_part.own);
    end if;
  end loop;
  return null;
end
$function$;
comment on function gdpr_internal.next_of_index(regclass, name, name) is
  'The next statement by which a column is indexed, in each partition by itself and then as a whole, while writers go on; null when all are there.';

create or replace function gdpr_internal.next_index(p_table smallint, p_digests boolean)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass := (select t.relation from gdpr_internal.protected_table as t where t.id = p_table);
  v_index text;
  v_column gdpr_internal.protected_column;
begin
  select format('drop index concurrently %s', x.indexrelid::regclass) into v_index
  from gdpr_internal.enabling_leaves(p_table) as l
  join pg_index as x on x.indrelid = l.leaf and not x.indisvalid
  where exists (
    select from pg_attribute as a where a.attrelid = x.indrelid and a.attnum = any (x.indkey) and gdpr_internal.is_control_column(p_table, a.attname)
  )
  limit 1;
  -- somebody was interrupted
  v_index := coalesce(v_index, gdpr_internal.next_of_index(v_relation, 'gdpr_subject_id', null));
  if v_index is not null then
    return v_index;
  end if;
  for v_column in
    select c.*
    from gdpr_internal.protected_column as c
    cross join lateral gdpr_internal.waits_for_shadow(c) as w
    where p_digests and c.table_id = p_table and 'searchable' in (c.encrypt, w.encrypt)
    order by c.column_name
  loop
    if v_column.encrypt = 'no' then
      v_column.original := gdpr_internal.original_column(v_relation, v_column.column_name, 'searchable');
    end if;
    v_index := gdpr_internal.next_of_index(
      v_relation, format('gdpr_%s_digest', v_column.column_name)::name,
      case when v_column.original ? 'unique_name' then format('gdpr_unique_%s', v_column.id)::name end
    );
    exit when v_index is not null;
  end loop;
  return v_index;
end
$function$;
comment on function gdpr_internal.next_index(smallint, boolean) is
  'The next statement that indexes the subject, and the digests (p_digests) once every row has them, while writers go on; null when all are there.';

create or replace function gdpr_internal.table_next(p_relation regclass, out action text, out statement text, out kind text)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_state text;
  v_index text;
  v_search text;
  v_unchecked text;
  v_encrypts boolean;
  v_kept boolean;
begin
  select * into v_table from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null;
  v_state := gdpr_internal.enabling_state(v_table.id);
  if v_state is null then
    return;
  end if;
  kind := 'transaction';
  if v_state in ('claiming', 'sealing') then
    action := case v_state when 'claiming' then 'find the persons in existing rows' else 'encrypt existing rows' end;
    statement := format('select * from gdpr.backfill(%L)', p_relation);
    kind := 'batches';
    return;
  end if;
  v_encrypts := exists (select from gdpr_internal.stored_columns(v_table.definition) as s where s.encrypt <> 'no');
  v_index := gdpr_internal.next_index(v_table.id, v_state in ('claimed', 'sealed', 'analysed'));
  if v_state in ('sealed', 'analysed') or (v_state = 'claimed' and not v_encrypts) then
    -- after the batches, which would write into it; before the statistics, which are of its expression, too
    v_search := gdpr_internal.next_search_index(v_table.id);
  end if;
  v_kept := gdpr_internal.are_leaves_kept(v_table.id, gdpr_policy.passed_leaves(p_relation));
  select format('alter table %s validate constraint %I', r.r, k.conname) into v_unchecked
  from gdpr_internal.shadows(v_table.id, 't') as s
  cross join gdpr_internal.relation_tree(p_relation) as r (r)
  join pg_constraint as k on k.conrelid = r.r and k.conname = s.shadow and not k.convalidated
  order by r.r <> p_relation
  limit 1;
  if v_state <> 'begun' and coalesce(v_index, v_search) is not null then
    statement := coalesce(v_index, v_search);
    action := case
      when statement ~ '^drop' then 'drop an index that was not finished'
      when v_index is null then 'index what is searched'
      else 'index the subject and the digests'
    end;
    kind := case when statement ~ ' concurrently ' then 'alone' else 'transaction' end;
  elsif v_state = 'claimed' and v_unchecked is not null then
    action := 'make sure that NOT NULL holds';
    statement := v_unchecked;
    kind := 'alone';
  elsif v_state = 'analysed' and v_kept then
    action := 'switch on: triggers, views, the gate';
    statement := format('select gdpr_policy.switch_on(%L)', p_relation);
  else
    select s.action, format('select gdpr_policy.move_enabling(%L, %L)', p_relation, s.state) into action, statement
    from (
      select case
        when v_state = 'begun' then 'generated'
        when v_state = 'generated' and not gdpr_internal.seals_at_once(v_table.relation, v_table.definition) then 'claiming'
        -- the trigger that keeps the shadows was off: they are compared once more; or a partition came meanwhile
        when v_state = 'claimed' and not v_kept or v_state = 'analysed' and not v_encrypts and not v_kept then 'claiming'
        when v_state in ('sealed', 'analysed') and not v_kept then 'sealing'
        when v_state = 'generated' or (v_state = 'claimed' and v_encrypts) then 'sealing'
        else 'analysed'
      end as state
    ) as n
    join (values
      ('generated', 'generate functions'), ('claiming', 'triggers: new rows get their persons'),
      ('sealing', 'room for ciphertext, the clear view, triggers: new rows are encrypted'), ('analysed', 'statistics forget the plaintext')
    ) as s (state, action) on s.state = n.state;
  end if;
end
$function$;
comment on function gdpr_internal.table_next(regclass) is
  'What comes next in the enabling of a table; nothing for one that is not being enabled. kind: transaction (takes moments, and strong locks; with a lock_timeout), alone (outside of a transaction), batches (again and again).';

create or replace function gdpr_policy.next_of(p_relation regclass, out action text, out statement text, out kind text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select n.action, n.statement, n.kind from gdpr_internal.table_next(p_relation) as n;
end;
comment on function gdpr_policy.next_of(regclass) is 'What comes next in the enabling of a table; nulls for one that is not being enabled.';

create or replace function gdpr_policy.unfinished(p_role name)
returns table (relation regclass, action text, statement text, kind text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select t.relation, n.action, n.statement, n.kind
  from (
    select t.relation
    from gdpr_internal.enabling as e
    join gdpr_internal.protected_table as t on t.id = e.table_id
    join pg_class as c on c.oid = t.relation
    where pg_has_role(p_role, c.relowner, 'usage')
    order by e.started_at, t.id
    limit 1
  ) as t
  cross join lateral gdpr_internal.table_next(t.relation) as n;
end;
comment on function gdpr_policy.unfinished(name) is 'What comes next in the enabling that a role has begun, or may go on with; no row without one.';

create or replace function gdpr_policy.enabling_order(p_policy jsonb, p_role name)
returns table (name text, relation regclass, definition jsonb, state text, obstacle text)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  -- read once: a call in the query would be made again wherever the query uses it
  v_tables jsonb := (gdpr_internal.read_policy(p_policy)).policy -> 'tables';
begin
  return query
  select n.key, o.relation, o.definition,
    case when t.id is null then 'new' else coalesce(gdpr_internal.enabling_state(t.id), 'protected') end,
    gdpr_internal.batch_obstacle(p_role, o.relation, o.definition)
  from gdpr_internal.table_order(v_tables) as o
  join jsonb_object_keys(p_policy -> 'tables') as n (key) on gdpr_internal.find_table(n.key) = o.relation
  left join gdpr_internal.protected_table as t on t.relation = o.relation and t.unprotected_at is null
  order by o.n;
end
$function$;
comment on function gdpr_policy.enabling_order(jsonb, name) is
  'The tables of a policy, parents before children, as it names them: new, protected, or how far their enabling has come; obstacle: why one is enabled at once or not at all.';

create or replace function gdpr.next_step(p_policy jsonb)
returns table (object text, action text, statement text, kind text)
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
as $function$
declare
  v_order jsonb;
  v_table record;
  v_done jsonb;
begin
  -- what was begun comes to its end first; its definition stands in the register
  select n.relation::text, n.action, n.statement, n.kind into object, action, statement, kind from gdpr_policy.unfinished(current_user) as n;
  if found then
    return next;
    return;
  end if;
  select
    jsonb_agg(o),
    jsonb_set(p_policy, '{tables}', coalesce(jsonb_object_agg(o.name, p_policy -> 'tables' -> o.name) filter (where o.state = 'protected'), '{}'))
  into v_order, v_done
  from gdpr_policy.enabling_order(p_policy, current_user) as o;
  if exists (select from gdpr.plan(v_done)) then
    object := 'policy';
    action := 'purposes, roles, and tables protected before';
    statement := format('select count(*) from gdpr.apply(%L)', v_done);
    kind := 'transaction';
    return next;
    return;
  end if;
  for v_table in
    select o.* from jsonb_to_recordset(v_order) as o (name text, relation regclass, definition jsonb, state text, obstacle text)
  loop
    continue when v_table.state <> 'new';
    object := v_table.relation::text;
    kind := 'transaction';
    if v_table.obstacle is null then
      action := 'register, add columns';
      statement := format('select gdpr_policy.begin_enabling(%L, %L)', v_table.relation, v_table.definition);
    else
      action := 'protect at once: ' || v_table.obstacle;
      statement := format('select count(*) from gdpr.apply(%L)', jsonb_set(v_done, array['tables', v_table.name], p_policy -> 'tables' -> v_table.name));
    end if;
    return next;
    return;
  end loop;
end
$function$;
comment on function gdpr.next_step(jsonb) is
  'What to run next so that the database comes to this policy while applications work; no row when it is there. Ask, run, ask again: from policy, register and catalog alone, so anybody may stop and anybody go on; a table whose enabling was begun comes first, whatever the policy says of it. kind: transaction (strong locks for a moment: with a short lock_timeout, again when it strikes), alone (outside of a transaction), batches (again and again; gdpr.enabling shows how far it is). gdprdb policy apply --batches does all of this. Error: PR001 policy refused. Art. 25.';

create or replace function gdpr_internal.put_enabling(p_role name, p_relation regclass, p_state text)
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
  if p_state = 'begun' then
    -- one that was registered just now: in a table that is protected, plaintext must not become what is not yet encrypted
    insert into gdpr_internal.enabling (table_id, state)
    select t.id, p_state from gdpr_internal.protected_table as t
    where t.id = v_id and t.fingerprint is null and not exists (select from gdpr_internal.reshape as r where r.table_id = t.id);
    if not found then
      perform gdpr_internal.refuse('enabling_state', format('table %s', p_relation));
    end if;
    perform gdpr_internal.defer_encryption(v_id);
  else
    update gdpr_internal.enabling as e
    set state = p_state, leaf = null, block = 0, sweep = 1, done = 0, sweeping_xid = null, worked_at = statement_timestamp(),
      -- who comes back sweeps what came meanwhile
      passed = case when (e.state, p_state) in (('generated', 'claiming'), ('generated', 'sealing'), ('claimed', 'sealing')) then '{}' else e.passed end
    where e.table_id = v_id and (e.state, p_state) in (
      ('begun', 'generated'), ('generated', 'claiming'), ('generated', 'sealing'), ('claiming', 'claimed'), ('claimed', 'claiming'),
      ('claimed', 'sealing'), ('claimed', 'analysed'), ('sealing', 'sealed'), ('sealed', 'analysed'),
      ('analysed', 'claiming'), ('sealed', 'sealing'), ('analysed', 'sealing')
    );
    if not found then
      perform gdpr_internal.refuse('enabling_state', format('table %s', p_relation));
    end if;
  end if;
end
$function$;
comment on function gdpr_internal.put_enabling(name, regclass, text) is 'See gdpr_policy.put_enabling(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.put_enabling(p_relation regclass, p_state text)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.put_enabling(current_user, p_relation, p_state);
end;
comment on function gdpr_policy.put_enabling(regclass, text) is 'Step of enabling: how far it has come. Error: PR006 when another did that meanwhile.';

create or replace function gdpr_policy.enabling_statements(p_relation regclass, p_step text)
returns setof text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_column gdpr_internal.protected_column;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = gdpr_internal.table_id(p_relation);
  case p_step
    when 'columns' then
      return query
      select format('alter table %s %s', p_relation, string_agg(format('add column %I %s', c.column_name, c.type), ', '))
      from (
        select c.column_name, c.type from gdpr_internal.control_columns(p_relation, v_table.definition) as c
        union all
        select 'gdpr_text_' || a.attnum, 'text'
        from pg_attribute as a where a.attrelid = p_relation and a.attname = any (gdpr_internal.becomes_text(p_relation, v_table.definition))
      ) as c
      where not exists (select from pg_attribute as a where a.attrelid = p_relation and a.attname = c.column_name and not a.attisdropped)
      having count(*) > 0;
      return query select * from gdpr_internal.sweep_policies(p_relation);
    when 'grants' then
      return query select s.statement from gdpr_internal.grant_steps(p_relation, v_table.definition, v_table.definition) as s;
    when 'triggers' then
      return query select * from gdpr_internal.enabling_triggers(v_table.id);
      return query
      select format('alter table %1$s add constraint %2$I check (%2$I is not null) not valid', q.relation, q.shadow)
      from gdpr_internal.required_shadows(v_table.id) as q
      where not exists (select from pg_constraint as k where k.conrelid = q.relation and k.conname = q.shadow);
      -- PostgreSQL tests them whenever a row is written: triggers go on with them, for what changes
      return query
      select format('alter table %s drop constraint %I', p_relation, k.conname)
      from pg_constraint as k
      where k.conrelid = p_relation and k.contype = 'c' and not k.convalidated
        and exists (select from gdpr_internal.held_checks(v_table.id) as h where h.loose and h.name = k.conname);
    when 'text' then
      return next format('drop trigger if exists zzz_gdpr_04_plain on %s', p_relation);
      return query
      select format('drop trigger %I on %s', g.tgname, p_relation)
      from pg_trigger as g where g.tgrelid = p_relation and g.tgname ~ '^zzz_gdpr_35_held_';
      if exists (select from gdpr_internal.shadows(v_table.id, 't')) then
        return next format('drop trigger zzz_gdpr_03_text on %s', p_relation);
      end if;
      return query select s.statement from gdpr_internal.encrypt_steps(p_relation, v_table.definition, null) as s;
      for v_column in
        select * from gdpr_internal.protected_column as c
        where c.table_id = v_table.id and c.encrypt = 'searchable' and c.original ? 'unique_name'
        order by c.column_name
      loop
        return next case
          when v_column.original ? 'unique_constraint' then (
            select format('alter table %s add constraint %I unique using index %I', p_relation, v_column.original ->> 'unique_name', i.relname)
            from pg_class as i where i.oid = gdpr_internal.index_over(p_relation, format('gdpr_%s_digest', v_column.column_name)::name, true)
          )
          else format('alter index %s rename to %I', gdpr_internal.index_over(p_relation, format('gdpr_%s_digest', v_column.column_name)::name, true),
            v_column.original ->> 'unique_name')
        end;
      end loop;
      return query select * from gdpr_internal.viewer_policies(p_relation);
    when 'leave' then
      return query
      select format('drop policy %I on %s', p.polname, p.polrelid::regclass)
      from gdpr_internal.relation_tree(p_relation) as r (r)
      join pg_policy as p on p.polrelid = r.r and p.polname ~ '^gdpr_40_(sweep|as_)';
      return query
      select format('drop trigger %I on %s', g.tgname, p_relation)
      from pg_trigger as g
      where g.tgrelid = p_relation and (g.tgname ~ '^zzz_gdpr_(04|35_held)_' or g.tgname in ('zzz_gdpr_10_backfill', 'zzz_gdpr_40_backfill', 'zzz_gdpr_45_seal'));
    when 'switch' then
      return query select s.statement from gdpr_internal.table_steps(p_relation, v_table.definition, v_table.id) as s;
  end case;
end
$function$;
comment on function gdpr_policy.enabling_statements(regclass, text) is
  'The statements of a step of enabling: columns, grants, triggers, text (room for ciphertext; UNIQUE moves to the digest), leave (triggers and policies that only enabling has), switch (the controls as gdpr.apply() makes them).';

create or replace function gdpr_policy.run_step(p_relation regclass, p_step text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_statement text;
begin
  for v_statement in select s from gdpr_policy.enabling_statements(p_relation, p_step) as s loop
    execute v_statement;
  end loop;
end
$function$;
comment on function gdpr_policy.run_step(regclass, text) is 'Runs the statements of a step of enabling.';

create or replace function gdpr_policy.begin_enabling(p_relation regclass, p_definition jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform pg_advisory_xact_lock(hashtextextended('gdpr.apply', 0));
  perform gdpr_policy.begin_change('apply in batches');
  perform gdpr_policy.register_table(p_relation, p_definition);
  perform gdpr_policy.put_enabling(p_relation, 'begun');
  perform gdpr_policy.lock_tree(p_relation, true);
  perform gdpr_policy.run_step(p_relation, 'columns');
end
$function$;
comment on function gdpr_policy.begin_enabling(regclass, jsonb) is 'Step of enabling: the table is registered and gets its columns.';

create or replace function gdpr_internal.generate_enabling(p_role name, p_relation regclass, p_views boolean)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
begin
  if p_views then
    perform gdpr_internal.make_read_counters(t.id) from gdpr_internal.protected_table as t where t.id = v_id and t.definition ? 'audit_reads';
    perform gdpr_generated.generate_clear_view(v_id);
  else
    perform gdpr_internal.generate_triggers(v_id);
  end if;
end
$function$;
comment on function gdpr_internal.generate_enabling(name, regclass, boolean) is
  'See gdpr_policy.generate_enabling(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.generate_enabling(p_relation regclass, p_views boolean)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.generate_enabling(current_user, p_relation, p_views);
end;
comment on function gdpr_policy.generate_enabling(regclass, boolean) is 'Step of enabling: trigger functions for the state it is in, or the clear view (p_views).';

create or replace function gdpr_policy.move_enabling(p_relation regclass, p_state text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_work record;
  v_passed jsonb;
begin
  perform pg_advisory_xact_lock(hashtextextended('gdpr.apply', 0));
  perform gdpr_policy.begin_change('apply in batches');
  v_work := gdpr_policy.enabling_work(p_relation);
  v_passed := gdpr_policy.passed_leaves(p_relation);
  perform gdpr_policy.put_enabling(p_relation, p_state);
  case p_state
    when 'generated' then
      perform gdpr_policy.run_step(p_relation, 'grants');
      perform gdpr_policy.generate_functions(p_relation);
      perform gdpr_policy.generate_erasure();
    when 'claiming' then
      perform gdpr_policy.lock_tree(p_relation, gdpr_policy.has_shadows(p_relation));
      perform gdpr_policy.run_step(p_relation, 'triggers');
    when 'sealing' then
      if v_work.state in ('sealed', 'analysed') then
        perform gdpr_policy.lock_tree(p_relation, false);
        perform gdpr_policy.run_step(p_relation, 'triggers');
        return;
      end if;
      -- generating takes the time, and no lock: whoever writes now still meets the functions as they were
      if gdpr_policy.has_shadows(p_relation) then
        perform gdpr_policy.encrypt_columns(p_relation);
        perform gdpr_policy.generate_functions(p_relation);
        perform gdpr_policy.lock_tree(p_relation, true);
        perform gdpr_policy.require_kept(p_relation, v_passed);
        perform gdpr_policy.run_step(p_relation, 'text');
        perform gdpr_policy.put_places(p_relation);
      else
        perform gdpr_policy.encrypt_columns(p_relation);
        perform gdpr_policy.generate_enabling(p_relation, false);
        perform gdpr_policy.lock_tree(p_relation, true);
        perform gdpr_policy.run_step(p_relation, 'text');
      end if;
      perform gdpr_policy.run_step(p_relation, 'triggers');
      perform gdpr_policy.put_checks(p_relation);
      perform gdpr_policy.generate_enabling(p_relation, true);
    when 'analysed' then
      execute format('analyze %s', p_relation);
  end case;
end
$function$;
comment on function gdpr_policy.move_enabling(regclass, text) is 'Step of enabling: on to the next state, with what belongs to it.';

create or replace function gdpr_internal.end_enabling(p_role name, p_relation regclass, p_seal boolean)
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
  if p_seal then
    perform gdpr_internal.drop_seal(v_id);
    return;
  end if;
  delete from gdpr_internal.enabling as e where e.table_id = v_id and e.state = 'analysed';
  if not found then
    perform gdpr_internal.refuse('enabling_state', format('table %s', p_relation));
  end if;
  perform gdpr_internal.audit_event('POLICY', null, jsonb_build_object('table', p_relation::text, 'enabled', true));
end
$function$;
comment on function gdpr_internal.end_enabling(name, regclass, boolean) is 'See gdpr_policy.end_enabling(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.end_enabling(p_relation regclass, p_seal boolean)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.end_enabling(current_user, p_relation, p_seal);
end;
comment on function gdpr_policy.end_enabling(regclass, boolean) is 'Step of enabling: it is over; its trigger function (p_seal) goes last.';

create or replace function gdpr_policy.switch_on(p_relation regclass)
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
  v_statements text[];
  v_passed jsonb := gdpr_policy.passed_leaves(p_relation);
  v_locked boolean := false;
begin
  perform pg_advisory_xact_lock(hashtextextended('gdpr.apply', 0));
  perform gdpr_policy.begin_change('apply in batches');
  perform gdpr_policy.end_enabling(p_relation, false);
  v_statements := array(select s from gdpr_policy.enabling_statements(p_relation, 'switch') as s);
  for v_n in 1 .. cardinality(v_statements) loop
    if not v_locked and v_statements[v_n] ~ '^create or replace trigger ' then
      -- generating takes the time, and no lock. Views first, as whoever uses one has it before the table, and would wait for that with it
      perform gdpr_policy.drop_views(p_relation);
      perform gdpr_policy.lock_tree(p_relation, true);
      perform gdpr_policy.require_kept(p_relation, v_passed);
      v_locked := true;
    end if;
    if v_n = cardinality(v_statements) then
      -- what enabling alone had goes before the controls are remembered
      perform gdpr_policy.run_step(p_relation, 'leave');
      perform gdpr_policy.end_enabling(p_relation, true);
    end if;
    execute v_statements[v_n];
  end loop;
end
$function$;
comment on function gdpr_policy.switch_on(regclass) is 'Last step of enabling: the controls that gdpr.apply() puts on a table, in one transaction.';

create or replace function gdpr_policy.finish_enabling(p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_step record;
begin
  execute format('lock table %s in access exclusive mode', p_relation);
  loop
    select * into v_step from gdpr_policy.next_of(p_relation);
    exit when v_step.statement is null;
    if v_step.kind = 'batches' then
      perform gdpr.backfill(p_relation, 1000000000);
    else
      execute replace(v_step.statement, ' concurrently ', ' ');
    end if;
  end loop;
end
$function$;
comment on function gdpr_policy.finish_enabling(regclass) is 'Step of apply(): an enabling that was begun in batches comes to its end in this transaction.';
