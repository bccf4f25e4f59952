-- [code] What a column's type and CHECK constraints said about plaintext goes on holding: the trigger around them, and they themselves.
-- GDPR Art. 5(1)(d), 32. Called by: gdpr.apply(). Ciphertext is text without a meaning, so a CHECK over an encrypted column is taken
-- off the table. It is tested between two calls of values_<table>: the first (open) shows it plaintext, the second (close) puts back
-- what was opened for it. The expressions and casts are the owner's code: they stand in the WHEN of triggers of their own, run as
-- whoever writes, as before, and never beside a key.

set local role gdpr_keyholder;

create or replace function gdpr_internal.held_checks(p_table smallint)
returns table (name name, function name, expression text, arguments text, given text, opened text, columns name[], encrypted name[], loose boolean)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
begin
  return query
  select
    k.name::name, format('holds_%s_%s', left(md5(k.name), 8), p_table)::name, k.expression,
    string_agg(format('%I %s', u.name, u.type), ', ' order by u.n),
    string_agg(
      case when c.id is null then format('new.%I', a.attname)
        else format('new.%I::pg_catalog.text::%s::%s', a.attname, c.original_type, u.type)
      end, ', ' order by u.n
    ),
    coalesce(string_agg(format('not pg_catalog.starts_with(new.%I, ''gdpr1:'') is true', a.attname), ' and ' order by u.n) filter (where c.id is not null), 'true'),
    array_agg(a.attname order by u.n),
    array_agg(a.attname order by u.n) filter (where c.id is not null),
    k.loose
  from (
    select distinct on (e.value ->> 'name') e.value ->> 'name' as name, e.value ->> 'check' as expression, e.value -> 'columns' as columns,
      gdpr_internal.is_loose(e.value) as loose
    from gdpr_internal.protected_column as o
    cross join lateral jsonb_array_elements(o.original -> 'checks') as e
    where o.table_id = p_table and (o.encrypt <> 'no' or gdpr_internal.is_claiming(p_table)) and e.value ? 'check'
    order by e.value ->> 'name', o.position
  ) as k
  join gdpr_internal.protected_table as t on t.id = p_table
  cross join lateral rows from (jsonb_to_recordset(k.columns) as (position smallint, name text, type text)) with ordinality as u (position, name, type, n)
  join pg_attribute as a on a.attrelid = t.relation and a.attnum = u.position
  left join gdpr_internal.protected_column as c on c.table_id = p_table and c.column_name = a.attname and c.encrypt <> 'no'
  group by k.name, k.expression, k.loose
  -- a column that is dropped takes its constraints along
  having bool_and(not a.attisdropped);
end
$function$;
comment on function gdpr_internal.held_checks(smallint) is
  'The CHECK constraints that encryption took off a table: the function that holds each, how a new row is given to it, when all of it is plaintext (opened), over which columns, and whether it is NOT VALID (loose), so that old rows need not fulfil it.';

create or replace function gdpr_internal.may_open(p_subject bigint)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_role name := gdpr_internal.acting_role();
begin
  -- the owner of the table chose the functions in a constraint and can exchange them: what a constraint is shown of values that the
  -- statement does not bring itself, is what its role may read
  return (gdpr_internal.clear_inherited(v_role) or pg_has_role(v_role, 'gdpr_dpo', 'usage'))
    and gdpr_internal.still_allowed(p_subject, gdpr_policy.purpose_mask(v_role, current_setting('gdpr.purpose', true)));
end
$function$;
comment on function gdpr_internal.may_open(bigint) is
  'Whether stored values are opened for the constraints over them: to roles of audience clear and officers, while the person may be processed. p_subject null: of a row that the role was let to already.';

create or replace function gdpr_internal.changed_code(p_relation regclass, p_columns name[])
returns text
language sql
stable
parallel safe
security invoker
begin atomic
  select string_agg(gdpr_internal.differs_code(p_relation, u.name), ' or ' order by u.n)
  from unnest(p_columns) with ordinality as u (name, n);
end;
comment on function gdpr_internal.changed_code(regclass, name[]) is 'The SQL of whether one of these columns changed.';

create or replace function gdpr_internal.value_check_code(p_column gdpr_internal.protected_column)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_values text := case
    when p_column.original_type ~ '\[\]$' then format('(select u from unnest(v_typed_%s) as u where u is not null)', p_column.id)
    else format('(values (new.%I))', p_column.column_name)
  end;
begin
  return concat(
    case when gdpr_internal.base_type(p_column.original_type) not in ('text', 'character varying', 'character') then format(
      E'begin\n  v_typed_%1$s := new.%2$I;\nexception when data_exception then\n  perform gdpr_internal.refuse(''invalid_value'', %3$L);\nend;\n',
      p_column.id, p_column.column_name, format('column %I', p_column.column_name)
    ) end,
    case when p_column.original ? 'labels' then format(
      E'if exists (\n  select from %s as v (value)\n'
      '  where not exists (select from pg_enum as e where e.enumtypid = %L::regtype and e.enumlabel = v.value)\n) then\n'
      '  perform gdpr_internal.refuse(''invalid_value'', %L);\nend if;\n',
      v_values, p_column.original ->> 'labels', format('column %I', p_column.column_name)
    ) end
  );
end
$function$;
comment on function gdpr_internal.value_check_code(gdpr_internal.protected_column) is
  'Code that holds a new plaintext to the type that its column had, before anything of the owner''s casts it: an error of a cast would repeat the value.';

create or replace function gdpr_internal.generate_values(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
-- what is dropped need not have been there
set client_min_messages = 'warning'
as $function$
declare
  v_relation regclass;
  v_check record;
  v_column gdpr_internal.protected_column;
  v_declare text := '';
  v_moved text[] := '{}';
  v_open text := '';
  v_seal text := '';
  v_code text;
  v_test text := '';
  v_reopen text := '';
  v_back text := '';
  v_shared name[];
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  for v_check in
    -- before anything is encrypted all others hold where they were
    select * from gdpr_internal.held_checks(p_table) as k where k.loose or not gdpr_internal.is_claiming(p_table)
  loop
    execute format(
      E'create or replace function gdpr_generated.%I(%s)\nreturns boolean\nlanguage sql\nvolatile\nsecurity invoker\nbegin atomic\n  select %s;\nend',
      v_check.function, v_check.arguments, v_check.expression
    );
    execute format('comment on function gdpr_generated.%I is %L', v_check.function,
      format('Constraint %I of %s, over plaintext. Generated by gdpr.apply().', v_check.name, v_relation));
    -- called by the WHEN of a trigger, as whoever writes; by name it is reached by nobody
    execute format('grant execute on function gdpr_generated.%I to public', v_check.function);
    if cardinality(v_check.columns) > 1 then
      v_shared := v_shared || v_check.encrypted;
      v_reopen := v_reopen || format(E'if %s then\n', gdpr_internal.changed_code(v_relation, v_check.columns)) || (
        select string_agg(format(
          E'  if not %3$s then\n'
          '    new.%1$I := gdpr_internal.open_value(v_key, old.gdpr_subject_id, %2$s, old.%1$I);\n  end if;\n',
          c.column_name, c.id, gdpr_internal.differs_code(v_relation, c.column_name)
        ), '' order by c.id)
        from gdpr_internal.protected_column as c
        where c.table_id = p_table and c.column_name = any (v_check.encrypted)
      ) || E'end if;\n';
    end if;
  end loop;
  if gdpr_internal.is_claiming(p_table) then
    return;
  end if;
  for v_column in
    select c.* from gdpr_internal.protected_column as c
    where c.table_id = p_table and c.encrypt <> 'no' and (
      c.original ?| array['is_domain', 'labels'] or c.column_name in (select unnest(k.encrypted) from gdpr_internal.held_checks(p_table) as k)
    )
    order by c.id
  loop
    if gdpr_internal.base_type(v_column.original_type) not in ('text', 'character varying', 'character') then
      v_declare := v_declare || format(E'  v_typed_%s %s;\n', v_column.id, v_column.original_type);
    end if;
    v_moved := v_moved || format('starts_with(new.%I, ''gdpr1:'')', v_column.column_name);
    v_open := v_open || format(
      E'if starts_with(new.%1$I, ''gdpr1:'') then\n  v_subject := gdpr_internal.moved_subject(new.%1$I, new.gdpr_subject_id);\n'
      '  new.%1$I := gdpr_internal.open_value(gdpr_internal.data_key(v_keys, v_subject), v_subject, %2$s, new.%1$I);\n'
      'else\n  perform gdpr_internal.open_value(null, new.gdpr_subject_id, %2$s, new.%1$I);\nend if;\n',
      v_column.column_name, v_column.id
    );
    v_seal := v_seal || format(
      E'new.%1$I := gdpr_internal.seal_value(v_key, gdpr_internal.gen_random_bytes(16), new.gdpr_subject_id, %2$s, new.%1$I);\n',
      v_column.column_name, v_column.id
    );
    v_code := gdpr_internal.value_check_code(v_column);
    if v_code <> '' then
      v_test := v_test || format(
        E'if new.%1$I is not null and not starts_with(new.%1$I, ''gdpr1:'') then\n%2$send if;\n', v_column.column_name, gdpr_internal.indented(v_code, '  ')
      );
    end if;
    if v_column.column_name = any (v_shared) then
      v_back := v_back || format(
        E'if %3$s and starts_with(old.%1$I, ''gdpr1:'')\n'
        '  and new.%1$I collate pg_catalog."C" = gdpr_internal.value_or_null(v_key, old.gdpr_subject_id, %2$s, old.%1$I)\n'
        'then\n  new.%1$I := old.%1$I;\nend if;\n',
        v_column.column_name, v_column.id, gdpr_internal.differs_code(v_relation, v_column.column_name)
      );
    end if;
  end loop;
  if v_moved = '{}' then
    execute format('drop function if exists gdpr_generated.%I()', 'values_' || p_table);
    return;
  end if;

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
as $body$
declare
  v_keys gdpr_internal.keyring;
  v_subject bigint;
  v_key bytea;
%2$sbegin
%3$s  if tg_op = 'UPDATE' and new.gdpr_subject_id is null then
    -- erasure: what is left says nothing, and fulfils nothing
    return new;
  end if;
  if tg_argv[0] = 'open' then
    if tg_op = 'INSERT' then
      -- a row on its way to another partition, or from a dump; the mark is for the second call, the column is filled after both
      new.gdpr_purposes := null;
      if (%4$s) and gdpr_internal.may_open(new.gdpr_subject_id) then
%5$s%6$s        new.gdpr_purposes := -1;
      end if;
%7$s    end if;
%8$s  elsif tg_op = 'INSERT' then
    if new.gdpr_purposes = -1 then
%5$s        v_key := gdpr_internal.data_key(v_keys, new.gdpr_subject_id);
%9$s      new.gdpr_purposes := null;
    end if;
%10$s  end if;
  return new;
end
$body$
$code$,
    'values_' || p_table,
    v_declare,
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'new', null), '  '),
    array_to_string(v_moved, ' or '),
    gdpr_internal.indented(gdpr_internal.keys_code(), '        '),
    gdpr_internal.indented(v_open, '        '),
    case when v_reopen = '' then '' else format(
      E'    elsif (%s) and gdpr_internal.may_open(null) then\n%s      v_key := gdpr_internal.data_key(v_keys, old.gdpr_subject_id);\n%s',
      gdpr_internal.changed_code(v_relation, array(select distinct unnest(k.columns) from gdpr_internal.held_checks(p_table) as k where cardinality(k.columns) > 1)),
      gdpr_internal.indented(gdpr_internal.keys_code(), '      '), gdpr_internal.indented(v_reopen, '      ')
    ) end,
    gdpr_internal.indented(v_test, '    '),
    gdpr_internal.indented(v_seal, '      '),
    case when v_back = '' then '' else format(
      E'  elsif %s then\n%s    v_key := gdpr_internal.data_key(v_keys, old.gdpr_subject_id);\n%s',
      gdpr_internal.changed_code(v_relation, v_shared), gdpr_internal.indented(gdpr_internal.keys_code(), '    '), gdpr_internal.indented(v_back, '    ')
    ) end
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'values_' || p_table,
    format('Before a row of %s is checked (open) and after it (close): plaintext for constraints and types. Generated by gdpr.apply().', v_relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'values_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_values(smallint) is
  'Generates the functions that hold CHECK constraints, domains and enums of encrypted columns; drops them for tables that have none.';

set local role gdpr_owner;

create or replace function gdpr_internal.check_statements(p_role name, p_relation regclass)
returns setof text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_sealing boolean := gdpr_internal.enabling_state(v_id) is not distinct from 'sealing';
  v_trigger record;
  v_domains text;
  v_changed text;
begin
  select
    string_agg(format('when pg_catalog.starts_with(new.%I, ''gdpr1:'') then false %s', c.column_name, c.cast), E' else false end or case ' order by c.position),
    string_agg(
      case when v_sealing
        -- what is touched is not tested: the value may be older than the constraint
        then format('when not %s then false %s', gdpr_internal.differs_code(p_relation, c.column_name), c.cast)
        else format('when pg_catalog.starts_with(new.%I, ''gdpr1:'') then false %s', c.column_name, c.cast)
      end, E' else false end or case ' order by c.position
    )
  into v_domains, v_changed
  from (
    select c.column_name, c.position, format(
      -- a cast, for what it raises: the domain's own error, which does not repeat the value
      'when (new.%1$I::pg_catalog.text::%2$s::%3$s) is null then false', c.column_name, c.original_type, c.original ->> 'type'
    ) as cast
    from gdpr_internal.protected_column as c
    where c.table_id = v_id and c.encrypt <> 'no' and c.original ? 'is_domain'
  ) as c;
  v_domains := 'case ' || v_domains || ' else false end';
  v_changed := 'case ' || v_changed || ' else false end';
  for v_trigger in
    select *
    from (
      select 'zzz_gdpr_30_open' as name, 'insert or update' as event, '' as condition, format('gdpr_generated.%I(''open'')', 'values_' || v_id) as function
      union all
      select 'zzz_gdpr_34_domain', 'insert', format('when (%s)', v_domains), 'gdpr_policy.guard_check()' where v_domains is not null
      union all
      select 'zzz_gdpr_34_domain_change', 'update', format('when (case when new.gdpr_subject_id is null then false else %s end)', v_changed), 'gdpr_policy.guard_check()'
      where v_domains is not null
      union all
      select format('zzz_gdpr_35_check_%s', k.n), 'insert or update',
        format('when (case when %s then gdpr_generated.%I(%s) is false else false end)', k.opened, k.function, k.given),
        format('gdpr_policy.guard_check(%L)', k.name)
      from (select k.*, row_number() over (order by k.name) as n from gdpr_internal.held_checks(v_id) as k) as k
      -- until it ends, gdpr_internal.enabling_triggers() has others for them
      where not v_sealing
      union all
      select 'zzz_gdpr_36_close', 'insert or update', '', format('gdpr_generated.%I(''close'')', 'values_' || v_id)
    ) as t
    where to_regprocedure(format('gdpr_generated.%I()', 'values_' || v_id)) is not null
  loop
    return next format(
      'create or replace trigger %I before %s on %s for each row %s execute function %s',
      v_trigger.name, v_trigger.event, p_relation, v_trigger.condition, v_trigger.function
    );
    return next format('alter table %s enable always trigger %I', p_relation, v_trigger.name);
  end loop;
end
$function$;
comment on function gdpr_internal.check_statements(name, regclass) is
  'See gdpr_policy.check_statements(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.check_statements(p_relation regclass)
returns setof text
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select s from gdpr_internal.check_statements(current_user, p_relation) as s;
end;
comment on function gdpr_policy.check_statements(regclass) is 'The statements that put the triggers on a table by which constraints and types of encrypted columns hold.';

create or replace function gdpr_policy.put_checks(p_relation regclass)
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
  for v_statement in select s from gdpr_policy.check_statements(p_relation) as s loop
    execute v_statement;
  end loop;
end
$function$;
comment on function gdpr_policy.put_checks(regclass) is
  'Step of apply(): CHECK constraints, domains and enums of encrypted columns hold in triggers, which see plaintext.';

create or replace function gdpr_policy.guard_check()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if tg_op = 'UPDATE' and new.gdpr_subject_id is null and tg_argv[1] is null then
    -- erasure: what is left says nothing, and fulfils nothing
    return new;
  end if;
  raise exception using errcode = '23514', message = format('new row for relation "%s" violates check constraint "%s"', tg_table_name, tg_argv[0]),
    schema = tg_table_schema, table = tg_table_name, constraint = tg_argv[0];
end
$function$;
comment on function gdpr_policy.guard_check() is
  'Says, as PostgreSQL would, which CHECK constraint over an encrypted column a row violates; its trigger fires only then. Error: 23514.';
