-- [code] Reading the tables of a policy.
-- GDPR Art. 25. Called by: gdpr.plan().

set local role gdpr_owner;

create or replace function gdpr_internal.read_link(p_where text, p_relation regclass, p_subject jsonb, out link jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_via text[] := gdpr_internal.text_array(p_subject -> 'via');
  v_joint text[] := gdpr_internal.text_array(p_subject -> 'joint');
  v_found record;
begin
  problems := gdpr_internal.unknown_keys(p_where || '.subject', p_subject, array['via', 'references', 'joint']);
  if v_via is null then
    problems := problems || format('%s.subject: "self" or { via = "column" }', p_where);
    return;
  end if;
  select
    k.confrelid::regclass as parent,
    array_agg(f.attname order by u.n) as columns,
    -- both since PostgreSQL 18, whose catalog says so in columns of its own
    to_jsonb(k) @> '{"conenforced": false}' or to_jsonb(k) @> '{"conperiod": true}' as loose
  into v_found
  from pg_constraint as k
  cross join lateral unnest(k.conkey, k.confkey) with ordinality as u (child, parent, n)
  join pg_attribute as f on f.attrelid = k.confrelid and f.attnum = u.parent
  join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.child
  where k.conrelid = p_relation and k.contype = 'f' and k.conparentid = 0
    and (not p_subject ? 'references' or k.confrelid = gdpr_internal.find_table(p_subject ->> 'references'))
  group by k.oid, k.confrelid, loose
  having array_agg(a.attname::text order by u.n) = v_via or (array_agg(a.attname::text) @> v_via and array_agg(a.attname::text) <@ v_via)
  order by loose, k.oid
  limit 1;
  if v_found.parent is null then
    problems := problems || format('%s.subject.via: there is no foreign key over (%s)', p_where, array_to_string(v_via, ', '));
    return;
  elsif v_found.loose then
    problems := problems || format(
      '%s.subject.via: the foreign key over (%s) is NOT ENFORCED or for a PERIOD, so that a row need not belong to one row of %s; refer by a key that is enforced and compares for equality',
      p_where, array_to_string(v_via, ', '), v_found.parent
    );
    return;
  end if;
  link := jsonb_build_object('via', to_jsonb(v_via), 'references', v_found.parent::text, 'columns', to_jsonb(v_found.columns));
  if not p_subject ? 'joint' then
    return;
  end if;
  select problems || coalesce(array_agg(format(
    '%s.subject.joint: there is no foreign key over %s to the column that %s refers to', p_where, to_json(j.name), to_json(v_via[1])
  )), '{}')
  into problems
  from unnest(v_joint) as j (name)
  where not exists (
    select from pg_constraint as k
    join pg_attribute as a on a.attrelid = k.conrelid and array[a.attnum] = k.conkey
    join pg_attribute as f on f.attrelid = k.confrelid and array[f.attnum] = k.confkey
    where k.conrelid = p_relation and k.contype = 'f' and k.conparentid = 0 and k.confrelid = v_found.parent
      and a.attname = j.name and array[f.attname] = v_found.columns
      and not to_jsonb(k) @> '{"conenforced": false}'
  );
  if v_joint is null or v_joint = '{}' or cardinality(v_via) > 1 or v_joint && v_via
    or cardinality(v_joint) <> (select count(distinct j) from unnest(v_joint) as j)
  then
    problems := problems || format('%s.subject.joint: a list of other link columns, beside a "via" of one column', p_where);
  end if;
  link := link || jsonb_build_object('joint', to_jsonb(v_joint));
end
$function$;
comment on function gdpr_internal.read_link(text, regclass, jsonb) is 'The foreign key through which a child row belongs to its parent''s subject.';

create or replace function gdpr_internal.row_copies(p_relation regclass)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
begin
  return (
    with recursive holding (oid) as (
      select c.reltype from pg_class as c where c.oid = p_relation
      union
      select y.oid
      from holding as h
      cross join lateral (
        select t.oid from pg_type as t where h.oid in (t.typelem, t.typbasetype)
        union all
        select c.reltype from pg_attribute as a join pg_class as c on c.oid = a.attrelid and c.relkind = 'c'
        where a.atttypid = h.oid and not a.attisdropped
      ) as y (oid)
    )
    select format('its whole rows are kept in %s, copies that would not be protected; keep a reference there, or the columns that are needed',
      string_agg(format('%s.%I', a.attrelid::regclass, a.attname), ', ' order by a.attrelid::regclass::text, a.attname))
    from holding as h
    join pg_attribute as a on a.atttypid = h.oid and not a.attisdropped and a.attnum > 0
    join pg_class as c on c.oid = a.attrelid and c.relkind in ('r', 'p', 'm')
    having count(*) > 0
  );
end
$function$;
comment on function gdpr_internal.row_copies(regclass) is
  'The problem with columns whose type is the row type of a table, or is made of it: they hold copies of its rows, and lose what a column that is dropped held in them; null without any.';

create or replace function gdpr_internal.relation_problems(p_where text, p_relation regclass)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select array_remove(array[
      case
        when c.relkind not in ('r', 'p') then format('%s: is not a table', p_where)
        when c.relpersistence = 't' then format('%s: is a temporary table, which is one session''s; keep personal data in tables that stay', p_where)
        when c.relnamespace in (
          'pg_catalog'::regnamespace, 'gdpr_internal'::regnamespace, 'gdpr'::regnamespace, 'gdpr_clear'::regnamespace, 'gdpr_generated'::regnamespace
        ) or c.relnamespace = 'information_schema'::regnamespace
          then format('%s: belongs to the system', p_where)
      end,
      case when c.relispartition then format('%s: is a partition; protect the table it is part of', p_where) end,
      case when c.relkind = 'r' and exists (
        select from pg_inherits as i where i.inhrelid = p_relation or i.inhparent = p_relation
      ) and not c.relispartition then format('%s: takes part in inheritance, whose children would escape; make it a partitioned table, or take the children off (NO INHERIT)', p_where) end,
      (
        select format('%s: partition %s is a foreign table, which takes no row security; detach it', p_where, f.oid::regclass)
        from gdpr_internal.relation_tree(p_relation) as r (r)
        join pg_class as f on f.oid = r.r and f.relkind = 'f' and f.oid <> p_relation
        order by f.oid
        limit 1
      ),
      case when c.relkind in ('r', 'p') and exists (
        select from pg_rewrite as w where w.ev_class = p_relation
      ) then format('%s: has rules, which bypass triggers; drop them, a trigger does the same', p_where) end,
      case when (select count(*) from pg_attribute as a where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname ~ '^gdpr_') > 0
        and not exists (select from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null)
        then format('%s: has columns named gdpr_..., which gdprdb adds itself', p_where) end,
      p_where || ': ' || gdpr_internal.row_copies(p_relation),
      (
        select format('%s: restrictive row policies that are for everybody: %s; withdrawal, erasure and reports would miss what they hide; let each be for the roles that it is meant for (ALTER POLICY ... TO)',
          p_where, string_agg(format('%s on %s', h.policies, h.relation), ', ' order by h.relation::text))
        from gdpr_internal.hiding_policies(p_relation) as h
        having count(*) > 0
      )
    ], null)
    from pg_class as c
    where c.oid = p_relation
  );
end
$function$;
comment on function gdpr_internal.relation_problems(text, regclass) is 'What kinds of relation cannot be protected, and why.';

create or replace function gdpr_internal.read_table(
  p_name text, p_relation regclass, p_in jsonb, p_purposes jsonb, out definition jsonb, out problems text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_where text := 'tables.' || to_json(p_name);
  v_name text;
  v_in jsonb;
  v_columns jsonb := '{}';
  v_subject jsonb := coalesce(p_in -> 'subject', '"self"');
  v_link record;
  v_column record;
  v_purposes text[] := gdpr_internal.text_array(p_in -> 'purposes');
  v_match text[] := coalesce(gdpr_internal.text_array(p_in -> 'match_on'), '{}');
  v_erase jsonb := coalesce(p_in -> 'erase', '"delete"');
  v_method text;
  v_opt_in record;
  v_retain record;
begin
  problems := gdpr_internal.unknown_keys(
    v_where, p_in,
    array['subject', 'match_on', 'mode', 'blocklist', 'purposes', 'double_opt_in', 'source', 'audit_reads', 'erase', 'retain', 'search', 'columns']
  );
  if jsonb_typeof(p_in) <> 'object' then
    return;
  end if;
  if p_relation is null then
    problems := problems || format('%s: there is no such table%s', v_where, gdpr_internal.where_table_went(p_name));
    return;
  end if;
  problems := problems || gdpr_internal.relation_problems(v_where, p_relation);
  if p_relation::text ~ '[[:cntrl:]]' or exists (
    select from pg_attribute as a where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname ~ '[[:cntrl:]]'
  ) then
    problems := problems || format('%s: names with line breaks or other control characters are not supported', v_where);
  end if;
  if exists (select from pg_trigger as g where g.tgrelid = p_relation and not g.tgisinternal and g.tgdeferrable) then
    problems := problems || format('%s: has a deferrable trigger, which would run with the rights of whoever commits; make it NOT DEFERRABLE', v_where);
  end if;

  if v_subject <> '"self"' then
    v_link := gdpr_internal.read_link(v_where, p_relation, v_subject);
    problems := problems || v_link.problems;
    v_subject := v_link.link;
    if v_match <> '{}' then
      problems := problems || format('%s.match_on: is for tables whose rows are persons', v_where);
    end if;
  end if;
  if coalesce(p_in ->> 'mode', 'enforce') not in ('enforce', 'observe') then
    problems := problems || format('%s.mode: "enforce" or "observe"', v_where);
  end if;
  if coalesce(p_in ->> 'blocklist', 'refuse') not in ('refuse', 'warn') then
    problems := problems || format('%s.blocklist: "refuse" or "warn"', v_where);
  end if;
  if v_purposes is null or v_purposes = '{}' then
    problems := problems || format('%s.purposes: at least one', v_where);
  end if;
  foreach v_name in array coalesce(v_purposes, '{}') loop
    if not p_purposes ? v_name then
      problems := problems || format('%s.purposes: there is no purpose %s', v_where, to_json(v_name));
    end if;
  end loop;

  for v_name, v_in in select key, value from jsonb_each(coalesce(p_in -> 'columns', '{}')) order by key loop
    v_column := gdpr_internal.read_column(format('%s.columns.%s', v_where, to_json(v_name)), p_relation, v_name, v_in);
    problems := problems || v_column.problems;
    v_columns := v_columns || jsonb_build_object(v_name, coalesce(v_column.definition, '{}'));
  end loop;
  select problems || coalesce(array_agg(format(
    '%s.columns.%s.about: "someone_else", or the link column of a joint row', v_where, to_json(c.key)
  ) order by c.key), '{}')
  into problems
  from jsonb_each(v_columns) as c
  where c.value ->> 'about' <> 'someone_else' and not coalesce(
    v_subject ? 'joint' and (v_subject -> 'joint') || (v_subject -> 'via') ? (c.value ->> 'about'), false
  );
  if (select count(*) from jsonb_each(v_columns) as c where c.value ? 'age') > 1 then
    problems := problems || format('%s.columns: at most one has age = true', v_where);
  end if;
  foreach v_name in array v_match loop
    if v_columns -> v_name ->> 'identifier' is null then
      problems := problems || format('%s.match_on: %s is not declared with an identifier', v_where, to_json(v_name));
    end if;
  end loop;

  if coalesce(p_in ->> 'source', 'optional') not in ('optional', 'required') then
    problems := problems || format('%s.source: "optional" or "required"', v_where);
  end if;
  if coalesce(p_in -> 'audit_reads', 'false') not in ('true', 'false', '"required"') then
    problems := problems || format('%s.audit_reads: true, false or "required"', v_where);
  end if;
  v_opt_in := gdpr_internal.read_double_opt_in(v_where || '.double_opt_in', p_in -> 'double_opt_in', v_subject, v_columns);
  problems := problems || v_opt_in.problems;

  v_method := coalesce(v_erase ->> 'then', case when jsonb_typeof(v_erase) = 'string' then v_erase #>> '{}' else 'delete' end);
  if v_method not in ('delete', 'anonymise') then
    problems := problems || format('%s.erase: "delete" or "anonymise"', v_where);
  end if;
  if jsonb_typeof(v_erase) = 'object' then
    problems := problems || gdpr_internal.unknown_keys(v_where || '.erase', v_erase, array['keep_until', 'then']);
    problems := array_remove(
      problems || gdpr_internal.keep_problem(v_where || '.erase.keep_until', p_relation, v_erase ->> 'keep_until'), null
    );
  end if;
  if v_method = 'anonymise' then
    problems := problems || gdpr_internal.anonymise_problems(v_where, p_relation, v_columns);
    problems := problems || gdpr_internal.neutral_problems(v_where, p_relation, v_columns);
  end if;

  problems := problems || gdpr_internal.search_problems(v_where, p_relation, p_in -> 'search', v_columns);
  v_retain := gdpr_internal.read_retention(v_where, p_relation, p_in -> 'retain', v_columns, v_purposes);
  problems := problems || v_retain.problems;

  definition := jsonb_build_object(
    'subject', v_subject, 'match_on', to_jsonb(v_match), 'mode', coalesce(p_in ->> 'mode', 'enforce'),
    'blocklist', coalesce(p_in ->> 'blocklist', 'refuse'), 'purposes', to_jsonb(v_purposes),
    'source', coalesce(p_in ->> 'source', 'optional'), 'erase', v_erase, 'columns', v_columns
  ) || case when v_opt_in.definition is null then '{}' else jsonb_build_object('double_opt_in', v_opt_in.definition) end
    || case when coalesce(p_in -> 'audit_reads', 'false') = 'false' then '{}' else jsonb_build_object('audit_reads', p_in -> 'audit_reads') end
    || case when v_retain.definition is null then '{}' else jsonb_build_object('retain', v_retain.definition) end
    || case when p_in ? 'search' then jsonb_build_object('search', p_in -> 'search') else '{}' end;
end
$function$;
comment on function gdpr_internal.read_table(text, regclass, jsonb, jsonb) is 'One table of a policy in normal form, and its problems.';

create or replace function gdpr_internal.neutral_value(p_type text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when p_type ~ '\[\]$' then quote_literal('{}')
    when gdpr_internal.base_type(p_type) in ('text', 'character varying', 'character')
      then quote_literal(left('erased', coalesce(substring(p_type from '\((\d+)\)')::integer, 6)))
    when gdpr_internal.base_type(p_type) in ('smallint', 'integer', 'bigint', 'numeric', 'real', 'double precision') then '0'
    when gdpr_internal.base_type(p_type) in ('date', 'timestamp without time zone', 'timestamp with time zone') then quote_literal('1900-01-01')
    when p_type like 'time%' then quote_literal('00:00')
    when p_type like 'interval%' then quote_literal('0')
    when p_type = 'boolean' then 'false'
    when p_type = 'uuid' then 'gen_random_uuid()'
    when p_type in ('json', 'jsonb') then quote_literal('{}')
    when p_type = 'bytea' then quote_literal('')
    when p_type in ('inet', 'cidr') then quote_literal('0.0.0.0')
  end;
end;
comment on function gdpr_internal.neutral_value(text) is 'The SQL of a value that says nothing, for columns that erasure empties and that cannot be null; null for types that have none.';

create or replace function gdpr_internal.neutral_problems(p_where text, p_relation regclass, p_columns jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(format(
    '%s.columns.%s.erase: a NOT NULL column of type %s has no neutral value; say { value = "..." } or "keep"', p_where, to_json(a.attname),
    format_type(a.atttypid, a.atttypmod)
  ) order by a.attnum), '{}')
  from pg_attribute as a
  where a.attrelid = p_relation and a.attname = any (gdpr_internal.emptied_columns(p_relation))
    and gdpr_internal.erase_rule(p_relation, a.attname, p_columns -> a.attname::text) = 'neutral'
    and gdpr_internal.neutral_value(
      gdpr_internal.column_type(p_relation, a.attname, coalesce(p_columns -> a.attname::text ->> 'encrypt', 'no') <> 'no')
    ) is null;
end;
comment on function gdpr_internal.neutral_problems(text, regclass, jsonb) is 'Columns that anonymisation could not empty.';

create or replace function gdpr_internal.anonymise_problems(p_where text, p_relation regclass, p_columns jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(format(
    '%s: erase = "anonymise" needs every column classified, %s is not', p_where, to_json(a.attname)
  ) order by a.attnum), '{}')
  from pg_attribute as a
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped
    and not p_columns ? a.attname::text
    and a.attname !~ '^gdpr_'
    and not exists (
      select from pg_constraint as k
      where k.conrelid = p_relation and k.contype in ('p', 'f') and a.attnum = any (k.conkey)
    );
end;
comment on function gdpr_internal.anonymise_problems(text, regclass, jsonb) is 'Columns about which anonymisation would have to guess.';

create or replace function gdpr_internal.erasure_method(p_definition jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select coalesce(p_definition -> 'erase' ->> 'then', p_definition ->> 'erase', 'delete');
end;
comment on function gdpr_internal.erasure_method(jsonb) is 'delete or anonymise: what erasure does with the rows of a table.';

create or replace function gdpr_internal.erasure_order_problems(p_tables jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with policy_table as materialized (
    select t.key, t.value, gdpr_internal.find_table(t.key) as relation from jsonb_each(p_tables) as t
  )
  select coalesce(array_agg(distinct format(
    'tables.%s: rows that tables.%s keeps refer to rows here, which are then anonymised and not deleted: %s', to_json(p.key), to_json(c.key), x.problem
  )), '{}')
  from policy_table as p
  join pg_constraint as k on k.contype = 'f' and k.conparentid = 0 and k.confrelid = p.relation
  join policy_table as c on c.relation = k.conrelid
  cross join lateral unnest(gdpr_internal.neutral_problems('tables.' || to_json(p.key), k.confrelid, p.value -> 'columns')) as x (problem)
  where gdpr_internal.erasure_method(p.value) = 'delete'
    and (c.value -> 'erase' ? 'keep_until' or gdpr_internal.erasure_method(c.value) = 'anonymise')
    and not exists (
      select from pg_attribute as a
      where a.attrelid = k.conrelid and a.attnum = any (k.conkey) and not a.attnotnull and not c.value -> 'erase' ? 'keep_until'
    );
end;
comment on function gdpr_internal.erasure_order_problems(jsonb) is
  'Rows that have to stay, because others that stay refer to them, and that cannot be emptied.';

create or replace function gdpr_internal.root_of(p_tables jsonb, p_name text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with recursive up (name) as (
    select p_name
    union
    select p_tables -> u.name -> 'subject' ->> 'references'
    from up as u
    where p_tables -> u.name -> 'subject' ? 'references'
  )
  select u.name from up as u where not coalesce(p_tables -> u.name -> 'subject' ? 'references', false);
end;
comment on function gdpr_internal.root_of(jsonb, text) is
  'The table of persons that the rows of a table belong to in the end; null where the links go in a circle.';

create or replace function gdpr_internal.copy_problems(p_tables jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
-- the guesses about jsonb_each() multiply: compiling took longer than running, fifty times over
set jit = off
begin atomic
  with declared as (
    select
      t.key as table_name, c.key as column_name, c.value ->> 'same_as' as same_as, format('%s.%I', t.key, c.key) as name,
      coalesce(p.original ->> 'type', p.original_type, format_type(a.atttypid, a.atttypmod)) as type
    from (select e.key, e.value, gdpr_internal.find_table(e.key) as relation from jsonb_each(p_tables) as e offset 0) as t
    cross join lateral jsonb_each(coalesce(t.value -> 'columns', '{}')) as c
    left join pg_attribute as a on a.attrelid = t.relation and a.attname = c.key and a.attnum > 0 and not a.attisdropped
    left join gdpr_internal.protected_table as o on o.relation = t.relation and o.unprotected_at is null
    left join gdpr_internal.protected_column as p on p.table_id = o.id and p.column_name = c.key and p.encrypt <> 'no'
  )
  select coalesce(array_agg(format('tables.%s.columns.%s.same_as: %s', to_json(d.table_name), to_json(d.column_name), p.problem) order by d.name), '{}')
  from declared as d
  left join declared as o on o.name = d.same_as
  cross join lateral (
    select case
      when o.name is null then format('%s is no column that this policy declares; write it as schema.table.column', to_json(d.same_as))
      when o.name = d.name then 'is the column itself'
      when o.same_as is not null then format('%s is a copy itself; name the column that it is a copy of', d.same_as)
      when o.type is distinct from d.type then format('%s is %s, this column is %s', d.same_as, o.type, d.type)
      when gdpr_internal.root_of(p_tables, d.table_name) <> gdpr_internal.root_of(p_tables, o.table_name) and '[]' in (
        coalesce(p_tables -> gdpr_internal.root_of(p_tables, d.table_name) -> 'match_on', '[]'),
        coalesce(p_tables -> gdpr_internal.root_of(p_tables, o.table_name) -> 'match_on', '[]')
      ) then format('rows of %s are never of the same person', o.table_name)
    end as problem
  ) as p
  where d.same_as is not null and p.problem is not null;
end;
comment on function gdpr_internal.copy_problems(jsonb) is
  'Columns that cannot be copies (same_as) of the column they name: it has to be declared, of the same type, no copy itself, and of rows of the same person.';

create or replace function gdpr_internal.read_policy(p_policy jsonb, out policy jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purposes record;
  v_roles record;
  v_table record;
  v_name text;
  v_in jsonb;
  v_relation regclass;
  v_tables jsonb := '{}';
  v_parent text;
begin
  problems := gdpr_internal.unknown_keys('policy', p_policy, array['settings', 'purposes', 'roles', 'tables'])
    || gdpr_internal.settings_problems(p_policy -> 'settings')
    || gdpr_internal.unknown_keys('purposes', p_policy -> 'purposes', (select array_agg(k) from jsonb_object_keys(
      case when jsonb_typeof(p_policy -> 'purposes') = 'object' then p_policy -> 'purposes' else '{}' end) as k))
    || gdpr_internal.unknown_keys('roles', p_policy -> 'roles', (select array_agg(k) from jsonb_object_keys(
      case when jsonb_typeof(p_policy -> 'roles') = 'object' then p_policy -> 'roles' else '{}' end) as k))
    || gdpr_internal.unknown_keys('tables', p_policy -> 'tables', (select array_agg(k) from jsonb_object_keys(
      case when jsonb_typeof(p_policy -> 'tables') = 'object' then p_policy -> 'tables' else '{}' end) as k));
  if problems <> '{}' or p_policy is null then
    problems := coalesce(nullif(problems, '{}'), array['policy: is empty']);
    return;
  end if;
  v_purposes := gdpr_internal.read_purposes(p_policy);
  v_roles := gdpr_internal.read_roles(p_policy, v_purposes.purposes);
  problems := problems || v_purposes.problems || v_roles.problems;
  for v_name, v_in in select key, value from jsonb_each(coalesce(p_policy -> 'tables', '{}')) order by key loop
    v_relation := gdpr_internal.find_table(v_name);
    v_table := gdpr_internal.read_table(v_name, v_relation, v_in, v_purposes.purposes);
    problems := problems || v_table.problems;
    if v_relation is not null and v_tables ? v_relation::text then
      problems := problems || format('tables.%s: is named twice', to_json(v_name));
    end if;
    v_tables := v_tables || jsonb_build_object(coalesce(v_relation::text, v_name), coalesce(v_table.definition, '{}'));
  end loop;
  -- parents have to be protected too, and before their children
  for v_name, v_in in select key, value from jsonb_each(v_tables) loop
    v_parent := v_in -> 'subject' ->> 'references';
    if v_parent is not null and not v_tables ? v_parent and not exists (
      select from gdpr_internal.protected_table as t where t.relation::text = v_parent and t.unprotected_at is null
    ) then
      problems := problems || format('tables.%s.subject.via: %s is not protected', to_json(v_name), v_parent);
    elsif gdpr_internal.root_of(v_tables, v_name) is null then
      problems := problems || format(
        'tables.%s.subject.via: leads back to the table itself, so that no row says whose it is; name the column that leads to the person (an author, an owner), or say subject = "self" where each row is a person',
        to_json(v_name)
      );
    end if;
  end loop;
  problems := problems || gdpr_internal.erasure_order_problems(v_tables) || gdpr_internal.retention_order_problems(v_tables)
    || gdpr_internal.copy_problems(v_tables);
  policy := jsonb_build_object(
    'settings', coalesce(p_policy -> 'settings', '{}'),
    'purposes', v_purposes.purposes, 'roles', v_roles.roles, 'tables', v_tables
  );
end
$function$;
comment on function gdpr_internal.read_policy(jsonb) is 'A policy in normal form and all its problems; tables are named as the catalog names them.';
