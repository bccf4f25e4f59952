-- [code] What the policy says of a table whose columns have other names now.
-- GDPR Art. 25. Called by: gdpr_internal.follow_shape().

set local role gdpr_owner;

create or replace function gdpr_internal.renamed(p_name text, p_names jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select coalesce(p_names ->> p_name, p_name);
end;
comment on function gdpr_internal.renamed(text, jsonb) is 'A name after a renaming {"was": "now"}.';

create or replace function gdpr_internal.renamed_list(p_list jsonb, p_names jsonb)
returns jsonb
language sql
immutable
parallel safe
security invoker
begin atomic
  select coalesce(jsonb_agg(gdpr_internal.renamed(e.name, p_names) order by e.n), '[]')
  from jsonb_array_elements_text(p_list) with ordinality as e (name, n);
end;
comment on function gdpr_internal.renamed_list(jsonb, jsonb) is 'A list of names after a renaming.';

create or replace function gdpr_internal.renamed_period(p_erase jsonb, p_names jsonb)
returns jsonb
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when p_erase ? 'keep_until' and jsonb_typeof(p_erase) = 'object' then p_erase || jsonb_build_object('keep_until', format(
      '%s after %s', split_part(p_erase ->> 'keep_until', ' after ', 1),
      gdpr_internal.renamed(split_part(p_erase ->> 'keep_until', ' after ', 2), p_names)
    ))
    else p_erase
  end;
end;
comment on function gdpr_internal.renamed_period(jsonb, jsonb) is 'What a policy says about erasure, after a renaming: "7 years after <column>".';

create or replace function gdpr_internal.renamed_definition(p_definition jsonb, p_names jsonb, p_dropped text[], p_places jsonb)
returns jsonb
language sql
immutable
parallel safe
security invoker
begin atomic
  select p_definition || jsonb_strip_nulls(jsonb_build_object(
    'subject', case when jsonb_typeof(p_definition -> 'subject') = 'object' then p_definition -> 'subject' || jsonb_strip_nulls(jsonb_build_object(
      'via', gdpr_internal.renamed_list(p_definition -> 'subject' -> 'via', p_names),
      'references', gdpr_internal.renamed(p_definition -> 'subject' ->> 'references', p_places),
      'joint', case when p_definition -> 'subject' ? 'joint' then gdpr_internal.renamed_list(p_definition -> 'subject' -> 'joint', p_names) end
    )) end,
    'match_on', gdpr_internal.renamed_list(p_definition -> 'match_on', p_names),
    'erase', gdpr_internal.renamed_period(p_definition -> 'erase', p_names),
    'retain', (
      select jsonb_agg(r.rule || jsonb_strip_nulls(jsonb_build_object(
        'after', gdpr_internal.renamed(r.rule ->> 'after', p_names),
        'columns', case when r.rule ? 'columns' then gdpr_internal.renamed_list(r.rule -> 'columns', p_names) end
      )) order by r.n)
      from jsonb_array_elements(p_definition -> 'retain') with ordinality as r (rule, n)
    ),
    'double_opt_in', case when p_definition ? 'double_opt_in' then p_definition -> 'double_opt_in' || jsonb_build_object(
      'address', gdpr_internal.renamed(p_definition -> 'double_opt_in' ->> 'address', p_names)
    ) end
  )) || jsonb_build_object('columns', (
    select coalesce(jsonb_object_agg(gdpr_internal.renamed(c.key, p_names), c.value || jsonb_strip_nulls(jsonb_build_object(
      'about', gdpr_internal.renamed(c.value ->> 'about', p_names),
      'same_as', gdpr_internal.renamed(c.value ->> 'same_as', p_places),
      'erase', gdpr_internal.renamed_period(c.value -> 'erase', p_names)
    ))), '{}')
    from jsonb_each(p_definition -> 'columns') as c
    where c.key <> all (p_dropped)
  ));
end;
comment on function gdpr_internal.renamed_definition(jsonb, jsonb, text[], jsonb) is
  'The definition of a table after its columns were renamed (p_names: {"was": "now"}) or dropped, and tables and columns that it refers to were renamed (p_places: "schema.table", "schema.table.column").';

create or replace function gdpr_internal.sql_tokens(p_sql text)
returns setof text
language sql
immutable
parallel safe
security invoker
begin atomic
  select m[1]
  from regexp_matches(
    -- a string, a quoted identifier, a word with what stands before it that makes it no column (a cast, a qualifier), anything else
    p_sql, '(''(?:[^'']|'''')*''|"(?:[^"]|"")+"|(?:::|[.])\s*(?:"(?:[^"]|"")+"|[[:alnum:]_$]+)|[[:alpha:]_][[:alnum:]_$]*\s*\(?|\s+|.)', 'gs'
  ) as m;
end;
comment on function gdpr_internal.sql_tokens(text) is
  'The words of a definition as PostgreSQL writes it; a cast or a qualifier stays with its name, a function with its bracket.';

create or replace function gdpr_internal.renamed_sql(p_sql text, p_names jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- UNIQUE (a) is no call of a function: its bracket stands apart, where PostgreSQL writes it
  select string_agg(coalesce(quote_ident(n.value #>> '{}') || substring(t.token from '\s+$'), quote_ident(n.value #>> '{}'), t.token), '' order by t.n)
  from gdpr_internal.sql_tokens(p_sql) with ordinality as t (token, n)
  left join jsonb_each(p_names) as n on quote_ident(n.key) = rtrim(t.token);
end;
comment on function gdpr_internal.renamed_sql(text, jsonb) is
  'The definition of an index or a constraint, as PostgreSQL writes it, after its columns were renamed.';

create or replace function gdpr_internal.renamed_original(p_original jsonb, p_names jsonb, p_dropped text[], p_was text, p_now text)
returns jsonb
language sql
immutable
parallel safe
security invoker
begin atomic
  select (p_original - array['constraints', 'checks', 'indexes']) || coalesce(jsonb_object_agg(k.kind, k.list), '{}')
  from (
    select o.kind, jsonb_agg(o.value || jsonb_build_object(
      'definition', replace(
        gdpr_internal.renamed_sql(o.value ->> 'definition', p_names), format(' ON %s USING ', p_was), format(' ON %s USING ', p_now)
      ),
      -- an index is named with its schema, a constraint is not
      'name', case o.kind
        when 'indexes' then replace(o.value ->> 'name', split_part(p_was, '.', 1) || '.', split_part(p_now, '.', 1) || '.')
        else o.value ->> 'name'
      end
    ) order by o.n) as list
    from (
      select 'constraints' as kind, c.value, c.n from jsonb_array_elements(p_original -> 'constraints') with ordinality as c (value, n)
      union all
      select 'checks', c.value, c.n from jsonb_array_elements(p_original -> 'checks') with ordinality as c (value, n)
      union all
      select 'indexes', i.value, i.n from jsonb_array_elements(p_original -> 'indexes') with ordinality as i (value, n)
    ) as o
    where not exists (
      select from gdpr_internal.sql_tokens(o.value ->> 'definition') as t (token)
      join unnest(p_dropped) as d (name) on quote_ident(d.name) = rtrim(t.token)
    )
    group by o.kind
  ) as k;
end;
comment on function gdpr_internal.renamed_original(jsonb, jsonb, text[], text, text) is
  'The constraints and indexes that unprotect() will put back, after columns were renamed or dropped and the table is called p_now instead of p_was.';
