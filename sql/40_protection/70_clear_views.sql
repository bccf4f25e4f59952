-- [code] Clear views: plaintext in the original types, writable, for applications.
-- GDPR Art. 32. The views belong to gdpr_viewer, which may read the tables and the keys and as which no code runs; the row
-- policies of the table apply to whoever asks.
-- Its INSTEAD OF triggers write the table as the caller: the clear view gives no right that the table does not.
-- The same column by column. What a role may select is asked when a statement is planned (shows_column(), "immutable"): its columns are
-- then columns, which reach indexes, and nothing is left to be asked for each row. What a plan took for granted is asked again
-- whenever it is run; a plan that took less for granted than the role may see by now asks for the rest itself.

set local role gdpr_owner;

create or replace function gdpr_policy.shows_column(p_table regclass, p_column name)
returns boolean
language plpgsql
-- not true, but what lets the planner ask: a GRANT or REVOKE on the table makes it plan anew, and refuse_clear() asks when it is run
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- by itself, as an expression that needs no query: asked for each column of each statement that is planned
  if has_table_privilege(p_table, 'select') then
    return true;
  end if;
  return pg_has_role('gdpr_dpo', 'usage') or exists (
    select from pg_attribute as a
    where a.attrelid = p_table and a.attname = p_column and has_column_privilege(p_table, a.attnum, 'select')
  );
end
$function$;
comment on function gdpr_policy.shows_column(regclass, name) is
  'Whether a clear view shows a column to the current user: who may select it in the table, and gdpr_dpo. For the planner, which asks before each plan.';

create or replace function gdpr_policy.shown_columns(p_table regclass)
returns text[]
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if has_table_privilege(p_table, 'select') or pg_has_role('gdpr_dpo', 'usage') then
    return null;
  end if;
  return array(
    select a.attname::text from pg_attribute as a
    where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped and has_column_privilege(p_table, a.attnum, 'select')
    order by a.attnum
  );
end
$function$;
comment on function gdpr_policy.shown_columns(regclass) is
  'The columns of a table that the current user may select, null for all: what a plan of its clear view takes for granted. For the planner, as shows_column().';

create or replace function gdpr_policy.refuse_clear(p_role name, p_table regclass, p_columns text[])
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_policy.refuse_base(p_role) and (
    has_table_privilege(p_role, p_table, 'select') or pg_has_role(p_role, 'gdpr_dpo', 'usage')
    or p_columns <> '{}' and not exists (
      select from unnest(p_columns) as n (name)
      left join pg_attribute as a on a.attrelid = p_table and a.attname = n.name
      where has_column_privilege(p_role, p_table, a.attnum, 'select') is not true
    )
  )
    or gdpr_internal.refuse('clear_refused', format('role %s, table %s', quote_ident(p_role), p_table));
end
$function$;
comment on function gdpr_policy.refuse_clear(name, regclass, text[]) is
  'A clear view shows its table to roles of audience clear that may select these columns of it (null: all), and to gdpr_dpo. Errors: gdpr_clear_refused, gdpr_base_refused, gdpr_no_purpose (42501).';

create or replace function gdpr_policy.refuse_column(p_role name, p_table regclass, p_column name)
returns boolean
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return has_table_privilege(p_role, p_table, 'select') or pg_has_role(p_role, 'gdpr_dpo', 'usage')
    or exists (
      select from pg_attribute as a
      where a.attrelid = p_table and a.attname = p_column and has_column_privilege(p_role, p_table, a.attnum, 'select')
    )
    or gdpr_internal.refuse('column_refused', format('SELECT (%s) on table %s, role %s', quote_ident(p_column), p_table, quote_ident(p_role)));
end
$function$;
comment on function gdpr_policy.refuse_column(name, regclass, name) is
  'Shows a column of a clear view to who may select it in the table, and to gdpr_dpo. Error: gdpr_column_refused (42501).';

create or replace function gdpr_internal.is_control_column(p_table smallint, p_column name)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select p_column in ('gdpr_subject_id', 'gdpr_subject_ref', 'gdpr_purposes', 'gdpr_until') or exists (
    select from gdpr_internal.protected_column as c
    where c.table_id = p_table and p_column = any (array['gdpr_' || c.column_name || '_digest', 'gdpr_' || c.column_name || '_mask', 'gdpr_text_' || c.position])
  );
end;
comment on function gdpr_internal.is_control_column(smallint, name) is 'Whether a column of a protected table was added by gdpr.apply().';

create or replace function gdpr_internal.has_column_triggers(p_table regclass)
returns boolean
language sql
-- reads, but with a snapshot of its own: triggers that came after the statement which asks began are seen
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (
    select from pg_trigger as g where g.tgrelid = p_table and array_length(g.tgattr::smallint[], 1) > 0 and not starts_with(g.tgname, 'zzz_gdpr_')
  );
end;
comment on function gdpr_internal.has_column_triggers(regclass) is 'Whether a table has triggers of its owner''s that are for UPDATE OF some columns.';

create or replace function gdpr.column_triggers(p_table regclass)
returns boolean
language plpgsql
-- not true, but what lets the planner ask: a trigger that comes, goes or changes makes plans that name the table anew
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return
    not gdpr_internal.reads_latest()
    -- a trigger of a partition makes no plan anew that names its root
    or exists (select from pg_class as c where c.oid = p_table and c.relkind = 'p')
    or gdpr_internal.has_column_triggers(p_table);
end
$function$;
comment on function gdpr.column_triggers(regclass) is
  'Whether a table may have triggers for UPDATE OF some columns; false is certain. For the planner, which asks before each plan of an UPDATE through a clear view.';

set local role gdpr_viewer;

create or replace function gdpr_generated.body_expression(p_column_id integer, p_column name)
returns text
language sql
stable
parallel safe
security invoker
begin atomic
  -- what stands before the MAC: 33 bytes of header and IV, and blocks of 16. Counted from 31 before the first byte that is a multiple
  -- of 16, and the length of the text tells which. Subject and column are not what the header says, but whose they are
  select format(
    $code$case when starts_with(t.%1$I collate "C", 'gdpr1:') and octet_length(t.%1$I) %% 4 = 2 then overlay(
      substr(decode(right(t.%1$I, -6), 'base64'), -30, octet_length(t.%1$I) / 4 * 3 & -16)
      placing int8send(t.gdpr_subject_id) || %2$L::bytea from 6
    ) end$code$,
    p_column, int4send(p_column_id)
  );
end;
comment on function gdpr_generated.body_expression(integer, name) is
  'The SQL for what the MAC of a value in this column must cover: its header, if the value belongs to the row, IV and ciphertext; null for what is no ciphertext.';

create or replace function gdpr_generated.open_expression(p_column_id integer, p_column name)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- gdpr_internal.open_value() as one expression: a call of plpgsql for each value is what reading by key would cost most, and next
  -- to it the functions in the expression, each of which is looked up for each statement. So one comparison checks all: the text
  -- must be what header, ciphertext and MAC are written as (base64 itself takes spaces, and bits at the end that say nothing);
  -- what does not pass goes the long way, and is refused there
  select format(
    $code$case
    when t.%1$I collate "C" = 'gdpr1:' || replace(encode(
      x.body_%2$s || gdpr_internal.hmac(x.body_%2$s, substr(x.data_key, 33, 32), 'sha256'), 'base64'
    ), %3$L, '') then convert_from(
      gdpr_internal.decrypt_iv(substr(x.body_%2$s, 34), substr(x.data_key, 1, 32), substr(x.body_%2$s, 18, 16), 'aes-cbc/pad:pkcs'), 'UTF8'
    )
    when t.gdpr_subject_id is null or t.%1$I is null then t.%1$I
    else gdpr_internal.open_value(x.data_key, t.gdpr_subject_id, %2$s, t.%1$I)
  end$code$,
    p_column, p_column_id, E'\n'
  );
end;
comment on function gdpr_generated.open_expression(integer, name) is
  'The SQL that checks and decrypts a column of a clear view. Errors: PR404 altered or moved value, PR410 the person''s key is gone.';

create or replace function gdpr_generated.generate_clear_view(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set bytea_output = 'hex'
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_columns text;
  v_read text;
  v_bodies text;
  v_note text;
  v_column record;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  v_note := gdpr_internal.note_code(p_table, v_table.definition);
  select
    string_agg(
      format(
        -- the type once more, or its length would be lost
        '  case when %s then %s else null::%s end as %I', x.guard, x.code,
        case when c.encrypt <> 'no' then coalesce(c.original ->> 'shown', c.original_type) else format_type(a.atttypid, a.atttypmod) end,
        a.attname
      ), E',\n' order by x.place, a.attnum
    )
    || coalesce(string_agg(
      format(E',\n  case when %s then t.%I end as %I', x.guard, 'gdpr_' || a.attname || '_digest', a.attname || '_digest'), '' order by x.place, a.attnum
    ) filter (where c.encrypt = 'searchable'), ''),
    concat_ws(
      ', ', string_agg(format('b.%I', a.attname), ', ' order by x.place, a.attnum),
      string_agg(format('b.%I', 'gdpr_' || a.attname || '_digest'), ', ' order by x.place, a.attnum) filter (where c.encrypt = 'searchable')
    ),
    string_agg(
      format(E'    %s as body_%s,\n', gdpr_generated.body_expression(c.id, a.attname), c.id), '' order by x.place, a.attnum
    ) filter (where c.encrypt <> 'no')
  into v_columns, v_read, v_bodies
  from pg_attribute as a
  left join gdpr_internal.protected_column as c on c.table_id = p_table and c.column_name = a.attname
  cross join lateral (
    select
      coalesce((c.original ->> 'place')::smallint, a.attnum) as place,
      format(
        'gdpr_policy.shows_column(%1$L::regclass, %2$L) or gdpr_policy.refuse_column(current_user, %1$L::regclass, %2$L)',
        v_table.relation, a.attname
      ) as guard,
      case
        when c.encrypt is null or c.encrypt = 'no' then format('t.%I', a.attname)
        else format(
          '(%s)::%s%s',
          case when c.special is null then gdpr_generated.open_expression(c.id, a.attname)
            else format(
              'case when (select gdpr_policy.special_allowed(null, current_user, current_setting(''gdpr.purpose'', true))) '
              'or gdpr_policy.special_allowed(t.gdpr_subject_id, current_user, current_setting(''gdpr.purpose'', true)) then %s end',
              gdpr_generated.open_expression(c.id, a.attname)
            )
          end,
          coalesce(c.original ->> 'shown', c.original_type),
          -- or it would be that of the encoding's name in convert_from(): sorted otherwise, and another type to prepared statements
          (
            select ' collate ' || coalesce(c.original ->> 'collation', 'pg_catalog."default"')
            from pg_type as y where y.oid = to_regtype(coalesce(c.original ->> 'shown', c.original_type)) and y.typcollation <> 0
          )
        )
      end as code
  ) as x
  where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped and not gdpr_internal.is_control_column(p_table, a.attname)
    and not gdpr_internal.is_hidden_column(p_table, a.attname);

  perform gdpr_generated.drop_clear_view(p_table);
  execute format(
    E'create view gdpr_clear.%1$I as\nselect\n%2$s\n'
    -- in brackets: the row policies of the table bring sub-selects along, which are looked for before each execution of a plan, in
    -- every expression of the query that holds them
    'from (\n  select b.gdpr_subject_id, %3$s\n  from %4$s as b\n'
    '  where (select gdpr_generated.is_clear(current_user) and has_table_privilege(%4$L::regclass, ''select'')'
    ' or gdpr_policy.refuse_clear(current_user, %4$L::regclass, gdpr_policy.shown_columns(%4$L::regclass)))%6$s\n'
    ') as t%5$s',
    v_table.view_name, v_columns, v_read, v_table.relation,
    -- keys are read here and not in a view of their own, which would show them to whoever may read all data;
    -- offset 0: each value is decoded and the key unwrapped once;
    -- a scalar and not a join: SELECT ... FOR UPDATE through the view locks the row of the table and nothing else
    coalesce(format(
      $code$
cross join lateral (
  select
%s    k.data_key
  from (
    select (
      select gdpr_internal.decrypt_iv(
        substr(w.wrapped, 17, length(w.wrapped) - 48),
        (
          select coalesce(
            case when e.replaces is null and e.material is not null then array_fill(substr(e.material, 1, 32), array[1], array[e.id::integer]) end,
            gdpr_internal.given_keys(e.ticket_key),
            case when gdpr_internal.refuse('key_locked') then null::bytea[] end
          )
          from gdpr_internal.key_encryption_key as e
          where e.retired_at is null
        )[w.kek_id],
        substr(w.wrapped, 1, 16),
        'aes-cbc/pad:none'
      )
      from gdpr_internal.subject_key as w
      where w.subject_id = t.gdpr_subject_id
    ) as data_key
  ) as k
  offset 0
) as x$code$, v_bodies
    ), '')
    || case when v_note is null then ''
      -- noted it is by then, unless it cannot be
      else E'\nwhere ' || gdpr_internal.count_code(p_table, '(select not current_setting(''transaction_read_only'')::boolean)', 'reads_')
    end,
    -- with the first row, and before any function of the caller's hears of it: of all conditions on the table this one costs nothing
    coalesce(E'\n    and (' || v_note || ' is not null or b.gdpr_subject_id is null)', '')
  );
  execute format(
    'comment on view gdpr_clear.%I is %L', v_table.view_name,
    format('%s in plaintext, for roles of audience clear. Writable. Generated by gdpr.apply().', v_table.relation)
  );
  for v_column in
    select a.attname,
      case when c.encrypt <> 'no' then coalesce(c.original ->> 'default', c.original ->> 'type_default') else pg_get_expr(d.adbin, d.adrelid) end as expression
    from pg_attribute as a
    join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
    left join gdpr_internal.protected_column as c on c.table_id = p_table and c.column_name = a.attname
    where a.attrelid = v_table.relation and a.attgenerated = '' and not gdpr_internal.is_control_column(p_table, a.attname)
    and not gdpr_internal.is_hidden_column(p_table, a.attname)
  loop
    execute format('alter view gdpr_clear.%I alter column %I set default %s', v_table.view_name, v_column.attname, v_column.expression);
  end loop;
  execute format(
    'create or replace trigger gdpr_30_snapshot instead of update or delete on gdpr_clear.%I for each row execute function gdpr_policy.note_snapshot()',
    v_table.view_name
  );
  execute format(
    'create or replace trigger gdpr_40_write instead of insert or update or delete on gdpr_clear.%I for each row execute function gdpr_generated.%I()',
    v_table.view_name, 'write_' || p_table
  );
  execute format('grant select, insert, update, delete on gdpr_clear.%I to gdpr_app', v_table.view_name);
  execute format('grant select on gdpr_clear.%I to gdpr_dpo', v_table.view_name);
end
$function$;
comment on function gdpr_generated.generate_clear_view(smallint) is 'Generates gdpr_clear.<table> and its triggers.';

create or replace function gdpr_generated.drop_clear_view(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_view text := (select format('gdpr_clear.%I', t.view_name) from gdpr_internal.protected_table as t where t.id = p_table);
begin
  if to_regclass(v_view) is not null then
    execute format('drop view %s', v_view);
  end if;
end
$function$;
comment on function gdpr_generated.drop_clear_view(smallint) is 'Drops a clear view.';

set local role gdpr_keyholder;

create or replace function gdpr_internal.generate_clear_writes(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_names text;
  v_values text;
  v_names_auto text;
  v_values_auto text;
  v_identity text;
  v_always text;
  v_given text;
  v_kept text;
  v_back text;
  v_into text;
  v_set text;
  v_key text;
  v_insert text;
  v_change text;
  v_changes text;
  v_refuse text;
  v_returned text;
  v_again text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(format('%I', a.attname), ', ' order by a.attnum) filter (where not a.generated),
    string_agg(a.value, ', ' order by a.attnum) filter (where not a.generated),
    string_agg(format('%I', a.attname), ', ' order by a.attnum) filter (where not a.identity and not a.generated),
    string_agg(a.value, ', ' order by a.attnum) filter (where not a.identity and not a.generated),
    string_agg(format('new.%I is null', a.attname), ' and ') filter (where a.identity),
    max(a.attname::text) filter (where a.always),
    -- what a view would swallow and a table refuses: values for columns that the database alone writes
    string_agg(format(
      E'if pg_catalog.num_nonnulls(new.%I) operator(pg_catalog.>) 0 then\n    raise exception using errcode = %L, message = %L, detail = %L;\n  end if;\n  ',
      a.attname, '428C9', format('cannot insert a non-DEFAULT value into column "%s"', a.attname), a.detail
    ), '' order by a.attnum) filter (where a.generated),
    string_agg(format(
      E'if not pg_catalog.record_image_eq(row(new.%1$I), row(old.%1$I)) then\n      raise exception using errcode = %2$L, message = %3$L, detail = %4$L;\n    end if;\n    ',
      a.attname, '428C9', format('column "%s" can only be updated to DEFAULT', a.attname), a.detail
    ), '' order by a.attnum) filter (where a.generated or a.always),
    string_agg(format('t.%I', a.attname), ', ' order by a.attnum) filter (where not a.encrypted),
    string_agg(format('new.%I', a.attname), ', ' order by a.attnum) filter (where not a.encrypted),
    string_agg(
      case when a.encrypted
        -- as images (gdpr_internal.differs_code()); no function that the caller's search_path could replace: it would hear the plaintext
        then format(
          '%1$I = case when pg_catalog.record_image_eq(row(new.%1$I), row(old.%1$I)) then t.%1$I else %2$s end',
          a.attname, a.value
        )
        else format('%I = %s', a.attname, a.value)
      end, ', ' order by a.attnum
    ) filter (where not a.always and not a.generated),
    string_agg(
      format(
        '(%1$s, %2$L, pg_catalog.record_image_eq(row(new.%2$I), row(old.%2$I)), %3$L)',
        a.attnum, a.attname, format('%I = %s', a.attname, a.value)
      ), E',\n            ' order by a.attnum
    ) filter (where not a.always and not a.generated)
  into v_names, v_values, v_names_auto, v_values_auto, v_identity, v_always, v_given, v_kept, v_back, v_into, v_set, v_changes
  from (
    select
      a.attnum, a.attname, a.attidentity <> '' as identity, a.attidentity = 'a' as always, a.attgenerated <> '' as generated,
      format('Column "%s" is %s.', a.attname, case when a.attgenerated <> '' then 'a generated column' else 'an identity column defined as GENERATED ALWAYS' end)
        as detail,
      coalesce(c.encrypt <> 'no', false) as encrypted,
      case when c.encrypt = 'no' or c.encrypt is null then format('new.%I', a.attname)
        -- no cast that the owner of a type could have planted
        when c.original ? 'labels' then format('gdpr.text_of(new.%I)', a.attname)
        else gdpr_internal.text_expression(format('new.%I', a.attname), c.original_type)
      end as value
    from pg_attribute as a
    left join gdpr_internal.protected_column as c on c.table_id = p_table and c.column_name = a.attname
    where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped
      and not gdpr_internal.is_control_column(p_table, a.attname)
    and not gdpr_internal.is_hidden_column(p_table, a.attname)
  ) as a;
  v_key := gdpr_internal.row_condition(v_table.relation);

  select
    concat_ws(', ', v_back, string_agg(format('t.%I', 'gdpr_' || c.column_name || '_digest'), ', ' order by c.position)),
    concat_ws(', ', v_into, string_agg(format('new.%I', c.column_name || '_digest'), ', ' order by c.position))
  into v_back, v_into
  from gdpr_internal.protected_column as c
  where c.table_id = p_table and c.encrypt = 'searchable';
  v_returned := nullif(v_back, '');
  v_into := nullif(v_into, '');
  v_back := case when v_back = '' then '' else format(E'\n    returning %s into %s', v_back, v_into) end;
  v_insert := format(
    E'insert into %s as t (%s)\n    values (%s)%s;', v_table.relation, v_names, v_values, v_back
  );
  if v_identity is not null then
    v_insert := format(
      E'if %s then\n    insert into %s as t (%s)\n    values (%s)%s;\n  else\n    %s\n  end if;',
      v_identity, v_table.relation, v_names_auto, v_values_auto, v_back,
      case when v_always is null then v_insert else format(
        'raise exception using errcode = %L, message = %L;', '428C9', format('cannot insert a non-DEFAULT value into column "%s"', v_always)
      ) end
    );
  end if;
  -- whose function this is, the caller's: no function of gdprdb's own could be named in it
  select
    string_agg(format(
      'raise exception using errcode = %L, message = %L, hint = %L, constraint = %L;', e.sqlstate, e.message, e.hint, 'gdpr_' || e.name
    ), '') filter (where e.name = 'no_primary_key'),
    string_agg(format(
      'raise exception using errcode = %L, message = %L, hint = %L, constraint = %L, detail = pg_catalog.format(%L, v_refused, current_user);',
      e.sqlstate, e.message, e.hint, 'gdpr_' || e.name, 'UPDATE (%I) on table ' || replace(v_table.relation::text, '%', '%%') || ', role %I'
    ), '') filter (where e.name = 'column_refused')
  into v_change, v_refuse
  from gdpr.error_code as e;
  v_again := gdpr_internal.seen_again_code(p_table, v_key);
  v_change := case
    when v_key is null then v_change
    else format(
      E'%14$s  if tg_op = ''UPDATE'' then\n    %10$s'
      -- RETURNING ... INTO empties what it would have filled
      'v_new := new;\n    '
      -- who may update some columns writes those that change, and no others; the same where a trigger of the application's is for
      -- some columns, or each UPDATE through the view would look to it like one of all columns. For most neither is so, and the
      -- planner knows
      'if not pg_catalog.has_table_privilege(%5$L::pg_catalog.regclass, ''update'') or gdpr.column_triggers(%5$L::pg_catalog.regclass) then\n'
      '      v_all := pg_catalog.has_table_privilege(%5$L::pg_catalog.regclass, ''update'');\n'
      '      if not v_all and pg_catalog.has_any_column_privilege(%5$L::pg_catalog.regclass, ''update'')\n'
      '        or exists (\n'
      '          select from pg_catalog.pg_trigger as g\n'
      '          where g.tgrelid operator(pg_catalog.=) %16$s and pg_catalog.array_length(g.tgattr::smallint[], 1) operator(pg_catalog.>) 0\n'
      '            and not pg_catalog.starts_with(g.tgname::pg_catalog.text, ''zzz_gdpr_'')\n'
      '        )\n      then\n'
      '        select pg_catalog.string_agg(c.code, '', '' order by c.n),\n'
      '          pg_catalog.min(c.name) filter (where not pg_catalog.has_column_privilege(%5$L::pg_catalog.regclass, c.name, ''update''))\n'
      '        into v_set, v_refused\n'
      '        from (\n          values\n            %6$s\n        ) as c (n, name, kept, code)\n'
      '        where not c.kept;\n'
      '        if v_refused is not null then\n          %7$s\n        end if;\n'
      '        if v_set is not null then\n'
      '          loop\n'
      '            execute pg_catalog.format(%8$L, v_set)%9$s using new, old, v_version, v_next, v_seen;\n'
      '            get diagnostics v_count = row_count;\n'
      '            exit when v_count operator(pg_catalog.>) 0;\n%12$s            new := v_new;\n'
      '          end loop;\n'
      '          return new;\n'
      '        elsif not v_all then\n          return new;\n        end if;\n'
      '      end if;\n'
      '    end if;\n'
      '    loop\n'
      '      update %1$s as t set %2$s\n      where %3$s and %15$s%4$s;\n'
      '      exit when found;\n%11$s      new := v_new;\n'
      '    end loop;\n'
      '    return new;\n'
      '  end if;\n'
      '  loop\n'
      '    delete from %1$s as t where %3$s and %15$s;\n'
      '    exit when found;\n%13$s'
      '  end loop;\n',
      v_table.relation, v_set, v_key, v_back, v_table.relation, v_changes, v_refuse,
      format(
        E'update %s as t set %%s\nfrom (select ($1).*) as new cross join (select ($2).*) as old\nwhere %s and %s%s',
        replace(v_table.relation::text, '%', '%%'), replace(v_key, '%', '%%'), gdpr_internal.seen_condition('$3', '$4', '$5'),
        replace(coalesce(E'\nreturning ' || v_returned, ''), '%', '%%')
      ),
      coalesce(' into ' || v_into, ''), v_kept,
      gdpr_internal.indented(v_again, '      '), gdpr_internal.indented(v_again, '            '), gdpr_internal.indented(v_again, '    '),
      gdpr_internal.snapshot_code(), gdpr_internal.seen_condition('v_version', 'v_next', 'v_seen'),
      case (select c.relkind from pg_class as c where c.oid = v_table.relation)
        -- not pg_partition_tree(), which locks all of them
        when 'p' then format(
          'any (array(with recursive p (oid) as (select %L::pg_catalog.regclass::pg_catalog.oid union all'
          ' select i.inhrelid from pg_catalog.pg_inherits as i join p on p.oid operator(pg_catalog.=) i.inhparent) select p.oid from p))', v_table.relation
        )
        else format('%L::pg_catalog.regclass::pg_catalog.oid', v_table.relation)
      end
    )
  end;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns trigger
language plpgsql
volatile
security invoker
-- no search_path: the application's own triggers run inside, with the application's
set debug_print_plan = off
as $body$
declare
  v_set text;
  v_refused text;
  v_count bigint;
  v_all boolean;
  v_seen pg_catalog.pg_snapshot;
  v_next bigint;
  v_version pg_catalog.xid;
  v_before pg_catalog.xid;
  v_new record;
  v_now record;
begin
  if tg_op = 'INSERT' then
  %2$s
    if not found then
      return null;
    end if;
    return new;
  end if;
  %3$s
  return old;
end
$body$
$code$,
    'write_' || p_table, concat(v_given, v_insert), v_change
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'write_' || p_table,
    format('Writes gdpr_clear.%I through to %s, as the caller. Generated by gdpr.apply().', v_table.view_name, v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_viewer', 'write_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_clear_writes(smallint) is 'Generates the INSTEAD OF trigger of a clear view.';

create or replace function gdpr_internal.drop_generated_controls(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc as p
    where p.pronamespace = 'gdpr_generated'::regnamespace and p.proowner = 'gdpr_keyholder'::regrole
      and (
        p.proname = any (array(
          select f.kind || p_table from unnest(array['write_', 'protect_', 'change_', 'seal_', 'text_', 'audit_', 'audit_arrivals_', 'values_']) as f (kind)
        ))
        or p.proname ~ ('^holds_[0-9a-f]{8}_' || p_table || '$')
      )
  loop
    execute format('drop function %s', v_function);
  end loop;
end
$function$;
comment on function gdpr_internal.drop_generated_controls(smallint) is 'Drops the trigger functions of a table.';
