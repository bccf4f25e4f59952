-- [code] Searching plain columns for parts of words, through an index, in a table whose rows are hidden.
-- GDPR Art. 25, 32. Row security lets no condition reach an index that could tell of a hidden row by an error or a function of the
-- caller's: LIKE is one. Here the condition is a row policy itself, of a name that sorts before the gate, for one role alone: the owner
-- of the search view. It reaches the index; what hidden rows meet is this one operator of PostgreSQL's, with a pattern made here, which
-- raises no error; then the gate decides. Nothing of the caller's is evaluated on a row before that.

set local role gdpr_owner;

create or replace function gdpr_policy.search_pattern(p_word integer)
returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_words text[] := array(
    select w from unnest(regexp_split_to_array(coalesce(current_setting('gdpr.search', true), ''), '\s+')) as w where w <> ''
  );
begin
  if v_words = '{}' then
    return null;
  elsif cardinality(v_words) > 4 or (select max(length(regexp_replace(w, '[^[:alnum:]]', '', 'g'))) from unnest(v_words) as w) < 3 then
    perform gdpr_internal.refuse('search_words');
  end if;
  -- every sign stands for itself: a pattern that ends in its escape sign is an error in rows that match up to there, and would tell of them
  return '%' || coalesce(replace(replace(replace(v_words[p_word], '\', '\\'), '%', '\%'), '_', '\_') || '%', '');
end
$function$;
comment on function gdpr_policy.search_pattern(integer) is
  'The pattern of a word of gdpr.search, anywhere in a text; of a word too many, what fits all; null without any. Error: PR420 more than four words, or none of three letters or digits.';

create or replace function gdpr_internal.search_condition(p_columns jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select string_agg(format('(%s) operator(pg_catalog.~~*) (select gdpr_policy.search_pattern(%s))', gdpr_internal.search_expression(p_columns), n), ' and ' order by n)
  from generate_series(1, 4) as n;
end;
comment on function gdpr_internal.search_condition(jsonb) is 'The SQL of whether a row has all words of gdpr.search in its searched columns.';

create or replace function gdpr_internal.search_index_code(p_relation regclass, p_search jsonb)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select format('on %s using gin ((%s) %I.gin_trgm_ops)', p_relation, gdpr_internal.search_expression(p_search), (
    select n.nspname from pg_extension as e join pg_namespace as n on n.oid = e.extnamespace where e.extname = 'pg_trgm'
  ));
end;
comment on function gdpr_internal.search_index_code(regclass, jsonb) is 'The SQL of what the index by which a table is searched is over.';

create or replace function gdpr_internal.next_search_index(p_table smallint)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_problems text[];
  v_index record;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  if not v_table.definition ? 'search' then
    return null;
  end if;
  select i.oid::regclass as name, x.indisvalid as is_valid into v_index
  from pg_index as x join pg_class as i on i.oid = x.indexrelid
  where x.indrelid = v_table.relation and i.relname = 'gdpr_search_' || p_table;
  if v_index.is_valid then
    return null;
  elsif v_index.name is not null then
    -- somebody was interrupted
    return format('drop index concurrently %s', v_index.name);
  end if;
  v_problems := gdpr_internal.search_problems(
    format('tables.%s', to_json(v_table.relation::text)), v_table.relation, v_table.definition -> 'search', v_table.definition -> 'columns'
  );
  if v_problems <> '{}' then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_problems, E'\n'));
  end if;
  return format(
    'create index concurrently %I %s', 'gdpr_search_' || p_table,
    gdpr_internal.search_index_code(v_table.relation, v_table.definition -> 'search')
  );
end
$function$;
comment on function gdpr_internal.next_search_index(smallint) is
  'The next statement that indexes what is searched in a table that is being enabled, while writers go on, under a name that it has until the end; null when it is there. Error: PR001 it cannot be searched any more.';

create or replace function gdpr_internal.search_steps(p_relation regclass, p_definition jsonb)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_search jsonb := p_definition -> 'search';
  v_class pg_class;
  v_schema name;
  v_index name;
  v_comment text := 'gdprdb: ' || gdpr_internal.search_expression(v_search);
  v_there oid;
  v_built name;
begin
  select * into v_class from pg_class as c where c.oid = p_relation;
  select n.nspname into v_schema from pg_namespace as n where n.oid = v_class.relnamespace;
  v_index := gdpr_internal.search_name(v_class.relname);
  select c.oid into v_there from pg_class as c join pg_index as x on x.indexrelid = c.oid
  where x.indrelid = p_relation and c.relname = v_index;
  if exists (select from pg_policy as p where p.polrelid = p_relation and p.polname = 'gdpr_30_search') then
    return next row(p_relation::text, 'drop policy gdpr_30_search', format('drop policy if exists gdpr_30_search on %s', p_relation), 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
  end if;
  if v_there is not null and obj_description(v_there, 'pg_class') is distinct from v_comment then
    return next row(p_relation::text, format('drop %I', v_index), format('drop index %I.%I', v_schema, v_index), 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
    v_there := null;
  end if;
  if v_search is null then
    return;
  end if;
  if v_there is null then
    -- while the table was being enabled
    select i.relname into v_built
    from pg_index as x
    join pg_class as i on i.oid = x.indexrelid
    join gdpr_internal.protected_table as t on t.relation = x.indrelid and t.unprotected_at is null
    where x.indrelid = p_relation and x.indisvalid and i.relname = 'gdpr_search_' || t.id;
    return next row(
      p_relation::text, 'index what is searched',
      case
        when v_built is not null then format('alter index %I.%I rename to %I', v_schema, v_built, v_index)
        else format('create index %I %s', v_index, gdpr_internal.search_index_code(p_relation, v_search))
      end, 'SHARE', false
    )::gdpr_policy.step;
    return next row(p_relation::text, 'name the index', format('comment on index %I.%I is %L', v_schema, v_index, v_comment), null, false)::gdpr_policy.step;
  end if;
  return next row(
    p_relation::text, 'let the search view read the key',
    format('grant select (%s) on table %s to gdpr_owner', (
      select string_agg(format('%I', a.attname), ', ' order by a.attnum)
      from pg_index as x join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = any (x.indkey)
      where x.indrelid = p_relation and x.indisprimary
    ) || coalesce((select ', ' || string_agg(format('%I', c.name), ', ') from jsonb_array_elements_text(v_search) as c (name)), ''), p_relation), null, false
  )::gdpr_policy.step;
  return next row(
    p_relation::text, 'policy gdpr_30_search',
    format('create policy gdpr_30_search on %s as restrictive for select to gdpr_owner using (%s)', p_relation, gdpr_internal.search_condition(v_search)),
    'ACCESS EXCLUSIVE', false
  )::gdpr_policy.step;
end
$function$;
comment on function gdpr_internal.search_steps(regclass, jsonb) is 'Steps by which a table can be searched: the index, and the condition as a row policy of the search view''s owner.';

create or replace function gdpr_internal.drop_search(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set client_min_messages = 'warning'
as $function$
declare
  v_name name := (select gdpr_internal.search_name(t.view_name) from gdpr_internal.protected_table as t where t.id = p_table);
begin
  if exists (
    select from pg_class as c
    where c.relname = v_name and c.relnamespace = 'gdpr_clear'::regnamespace and c.relowner = 'gdpr_owner'::regrole and c.relkind = 'v'
  ) then
    execute format('drop function if exists gdpr_clear.%I(text)', v_name);
    execute format('drop view gdpr_clear.%I', v_name);
  end if;
end
$function$;
comment on function gdpr_internal.drop_search(smallint) is 'Drops the search view of a table and its function.';

create or replace function gdpr_internal.generate_search(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_name name;
  v_keys text;
  v_types text;
  v_read text[];
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  perform gdpr_internal.drop_search(p_table);
  if not v_table.definition ? 'search' then
    return;
  end if;
  v_name := gdpr_internal.search_name(v_table.view_name);
  select string_agg(format('t.%I', a.attname), ', ' order by a.attnum), string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum),
    array_agg(a.attname::text order by a.attnum) || array(select jsonb_array_elements_text(v_table.definition -> 'search'))
  into v_keys, v_types, v_read
  from pg_index as x
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = any (x.indkey)
  where x.indrelid = v_table.relation and x.indisprimary;
  execute format(
    E'create view gdpr_clear.%1$I with (security_barrier) as\nselect %2$s\nfrom %3$s as t\n'
    'where (select gdpr_generated.is_clear(current_user) and has_table_privilege(current_user, %3$L::regclass, ''select'')'
    ' or gdpr_policy.refuse_clear(current_user, %3$L::regclass, %4$L::text[]))\n'
    -- said again, for a table that is only observed
    '  and %5$s',
    v_name, v_keys, v_table.relation, v_read, gdpr_internal.search_condition(v_table.definition -> 'search')
  );
  execute format('comment on view gdpr_clear.%I is %L', v_name, format(
    'Keys of the rows of %s that hold all words of gdpr.search, which the function of the same name sets. Generated by gdpr.apply().', v_table.relation
  ));
  execute format(
    E'create function gdpr_clear.%1$I(p_words text)\nreturns table (%2$s)\nlanguage plpgsql\nvolatile\nparallel unsafe\nsecurity invoker\nas %3$L',
    v_name, v_types, format(
      E'#variable_conflict use_column\nbegin\n'
      '  perform pg_catalog.set_config(''gdpr.search'', p_words, true);\n'
      '  return query select s.* from gdpr_clear.%I as s;\n'
      '  perform pg_catalog.set_config(''gdpr.search'', '''', true);\n'
      'end', v_name
    )
  );
  execute format('comment on function gdpr_clear.%I(text) is %L', v_name, format(
    'Primary keys of the rows of %s that the role may see and that hold every word, in part or whole, in whatever case, in the searched columns. Error: PR420. Generated by gdpr.apply().',
    v_table.relation
  ));
  execute format('revoke all on function gdpr_clear.%I(text) from public', v_name);
  execute format('grant execute on function gdpr_clear.%I(text) to gdpr_app, gdpr_dpo', v_name);
  execute format('grant select on gdpr_clear.%I to gdpr_app, gdpr_dpo', v_name);
end
$function$;
comment on function gdpr_internal.generate_search(smallint) is 'Generates gdpr_clear.<table>_search, view and function, for a table that the policy lets be searched.';

create or replace function gdpr_internal.doctor_search()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    'info', 'search', t.relation::text,
    'parts of words are searched before the gate: who measures the time of a search, or explains one, learns how many hidden rows hold them',
    'That is the price of the index; take "search" out of the policy where even this must not be known.'
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null and t.definition ? 'search';
end;
comment on function gdpr_internal.doctor_search() is 'Findings about tables that can be searched.';
