-- [code] discover(): which tables hold persons, which rows belong to them, what their columns are. A proposal, with reasons.
-- GDPR Art. 4(1), 25, 30. Called by: DBAs, gdprdb discover. Writes nothing, on a standby neither; no value leaves the database,
-- not in results, errors, logs or the text of statements.

set local role gdpr_owner;

create or replace function gdpr_policy.person_points(p_words text, p_columns jsonb)
returns integer
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  -- a name of a person in a table with other names than that of a row's (billing_first_name) says less
  select coalesce(sum(case
    when c.value ->> 'confidence' = 'low' then 0
    when c.value ->> 'kind' in ('given_name', 'family_name') then case when c.value ->> 'words' ~ '^_[^_]+(_na?a?me?n?)?_$' or c.value ->> 'words' !~ '_.*_.*_.*_' then 2 else 1 end
    when c.value ->> 'kind' in ('birth_date', 'national_id') then 3
    when c.value ->> 'kind' in ('email', 'full_name') then 2
    when c.value ->> 'kind' in ('name', 'phone', 'gender', 'street', 'username', 'credential', 'family', 'nationality', 'salary', 'photo') then 1
    when c.value ->> 'kind' = any (gdpr_policy.special_kinds()) then 1
    else 0
  end), 0)::integer + greatest(gdpr_policy.person_words(p_words), 0)
  from jsonb_array_elements(p_columns) as c;
end;
comment on function gdpr_policy.person_points(text, jsonb) is 'How much speaks for each row of a table being a person: what its columns hold, and its name.';

create or replace function gdpr_policy.identifies(p_columns jsonb)
returns boolean
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (
    select from jsonb_array_elements(p_columns) as c
    where c.value ->> 'confidence' <> 'low'
      and c.value ->> 'kind' in ('email', 'full_name', 'name', 'given_name', 'family_name', 'national_id', 'username', 'phone')
  );
end;
comment on function gdpr_policy.identifies(jsonb) is 'Whether a table has a column by which a person can be told.';

create or replace function gdpr_policy.look_at_tables(p_sample integer)
returns table (relation regclass, name text, words text, problem text, rows_seen integer, failed text, columns jsonb)
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table record;
  v_facts jsonb;
  v_known jsonb := gdpr_policy.name_kinds(array(
    select distinct w.words
    from gdpr_policy.discover_tables() as t
    cross join lateral gdpr_policy.discover_columns(t.relation) as c
    cross join lateral (values (c.words), (c.comment)) as w (words)
    where w.words is not null
  ));
begin
  for v_table in select * from gdpr_policy.discover_tables() loop
    relation := v_table.relation;
    name := v_table.name;
    words := v_table.words;
    problem := v_table.problem;
    v_facts := case when v_table.readable then gdpr_policy.sample_columns(v_table.relation, p_sample) else '{}' end;
    failed := case when not v_table.readable then 'not readable' else v_facts ->> 'error' end;
    v_facts := v_facts - 'error';
    select max((f.value ->> 'filled')::integer) into rows_seen from jsonb_each(v_facts) as f;
    select coalesce(jsonb_agg(jsonb_build_object(
      'column', c.name, 'n', c.attnum, 'words', c.words, 'class', c.class, 'key', c.is_key, 'unique', c.is_unique,
      'kind', r.kind, 'confidence', r.confidence, 'reason', r.reason,
      'distinct', v_facts -> c.attnum::text -> 'distinct', 'filled', v_facts -> c.attnum::text -> 'filled'
    ) order by c.attnum), '[]')
    into columns
    from gdpr_policy.discover_columns(v_table.relation) as c
    cross join lateral gdpr_policy.recognise(v_known -> c.words, v_known -> c.comment, c.class, coalesce(v_facts -> c.attnum::text, '{}')) as r;
    return next;
  end loop;
end
$function$;
comment on function gdpr_policy.look_at_tables(integer) is 'What the columns of each table hold, by themselves: not yet whose they are.';

create or replace function gdpr_policy.links(p_relations regclass[])
returns table (child regclass, parent regclass, via text[], words text, required boolean, one_to_one boolean)
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  select k.conrelid::regclass, k.confrelid::regclass,
    array_agg(a.attname::text order by u.n), gdpr_policy.name_words(string_agg(a.attname, '_' order by u.n)), bool_and(a.attnotnull),
    exists (
      select from pg_constraint as p
      where p.conrelid = k.conrelid and p.contype in ('p', 'u') and p.conkey @> k.conkey and p.conkey <@ k.conkey
    )
  from pg_constraint as k
  cross join lateral unnest(k.conkey) with ordinality as u (attnum, n)
  join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.attnum
  where k.contype = 'f' and k.conparentid = 0 and k.conrelid <> k.confrelid
    and k.conrelid = any (p_relations) and k.confrelid = any (p_relations)
  group by k.oid, k.conrelid, k.confrelid, k.conkey;
end;
comment on function gdpr_policy.links(regclass[]) is 'Foreign keys between these tables.';

create or replace function gdpr_policy.place_tables(p_tables jsonb)
returns jsonb
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_placed jsonb := '{}';
  v_table record;
  v_link record;
  v_found integer;
begin
  -- persons, the clearest first
  for v_table in
    select t.key as name, t.value, (t.value ->> 'relation')::regclass as relation, (t.value ->> 'points')::integer as points,
      gdpr_policy.person_words(t.value ->> 'words') as person_words
    from jsonb_each(p_tables) as t
    where (t.value ->> 'identifies')::boolean
    order by (t.value ->> 'points')::integer desc, t.key
  loop
    continue when v_table.points < 2 or v_table.points < 4 and v_table.person_words < 1 and not exists (
      select from jsonb_array_elements(v_table.value -> 'columns') as c
      where c.value ->> 'kind' in ('email', 'national_id') and c.value ->> 'confidence' <> 'low'
    );
    -- a copy of somebody's name or address in a row that belongs to her
    select l.* into v_link
    from gdpr_policy.links((select array_agg((t.value ->> 'relation')::regclass) from jsonb_each(p_tables) as t)) as l
    join jsonb_each(v_placed) as p on (p.value ->> 'relation')::regclass = l.parent
    where l.child = v_table.relation and not gdpr_policy.is_actor(l.words)
      and (l.one_to_one or l.required and v_table.person_words < 2 or v_table.points < 4)
    order by l.one_to_one desc, l.required desc
    limit 1;
    continue when v_link.child is not null;
    v_placed := v_placed || jsonb_build_object(v_table.name, v_table.value || jsonb_build_object(
      'place', 'persons',
      'confidence', case when v_table.person_words < 0 then 'low' when v_table.points >= 5 then 'high' else 'medium' end
    ));
  end loop;
  -- their rows, and the rows of those
  loop
    v_found := 0;
    for v_table in
      select t.key as name, t.value, (t.value ->> 'relation')::regclass as relation
      from jsonb_each(p_tables) as t
      where not v_placed ? t.key and t.value ->> 'problem' is null
      order by t.key
    loop
      select l.*, p.key as parent_name, p.value ->> 'confidence' as parent_confidence, gdpr_policy.is_actor(l.words) as by_actor
      into v_link
      from gdpr_policy.links((select array_agg((t.value ->> 'relation')::regclass) from jsonb_each(p_tables) as t)) as l
      join jsonb_each(v_placed) as p on (p.value ->> 'relation')::regclass = l.parent
      where l.child = v_table.relation and p.value ->> 'confidence' <> 'low'
      -- whom a row is about, rather than who handled it; a link that is always there; persons rather than rows of theirs
      order by gdpr_policy.is_actor(l.words), p.value ->> 'place' = 'persons' desc, l.required desc, gdpr_policy.person_words(l.words) desc, l.via
      limit 1;
      continue when v_link.child is null or v_link.by_actor and not exists (
        select from jsonb_array_elements(v_table.value -> 'columns') as c
        where c.value ->> 'kind' in ('email', 'phone', 'full_name', 'given_name', 'family_name', 'street', 'ip_address') and not (c.value ->> 'key')::boolean
      );
      v_found := v_found + 1;
      v_placed := v_placed || jsonb_build_object(v_table.name, v_table.value || jsonb_build_object(
        'place', 'rows', 'via', to_jsonb(v_link.via), 'parent', v_link.parent_name,
        'confidence', case when v_link.by_actor then 'low' when v_link.required then 'high' else 'medium' end
      ));
    end loop;
    exit when v_found = 0;
  end loop;
  return v_placed;
end
$function$;
comment on function gdpr_policy.place_tables(jsonb) is
  'Which tables hold persons (place persons) and which hold rows of theirs (place rows, via a foreign key of parent), with how much confidence.';

create or replace function gdpr.discover(p_sample integer default 1000)
returns table (
  table_name text, column_name text, category text, identifier text, special text, sensitive boolean, encrypt text, mask text,
  confidence text, reason text, definition jsonb
)
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
set jit = off
as $function$
#variable_conflict use_column
declare
  v_tables jsonb;
  v_placed jsonb;
  v_table record;
  v_column record;
  v_kind text;
  v_class record;
  v_unique text[];
  v_rows text;
begin
  if coalesce(p_sample < 0 or p_sample > 100000, true) then
    perform gdpr_policy.refuse_sample();
  end if;
  select coalesce(jsonb_object_agg(t.name, jsonb_build_object(
    'relation', t.relation, 'words', t.words, 'problem', t.problem, 'failed', t.failed, 'seen', t.rows_seen, 'columns', t.columns,
    'points', gdpr_policy.person_points(t.words, t.columns), 'identifies', gdpr_policy.identifies(t.columns)
  )), '{}')
  into v_tables
  from gdpr_policy.look_at_tables(p_sample) as t;
  v_placed := gdpr_policy.place_tables(v_tables);

  for v_table in
    select t.key as name, t.value || coalesce(v_placed -> t.key, '{}') as facts, (t.value ->> 'relation')::regclass as relation,
      v_placed -> t.key ->> 'place' as place,
      case when t.value ->> 'problem' is not null and v_placed ? t.key then 'low' else v_placed -> t.key ->> 'confidence' end as confidence
    from jsonb_each(v_tables) as t
    -- persons, then their rows, as a policy is read
    order by case v_placed -> t.key ->> 'place' when 'persons' then 1 when 'rows' then 2 else 3 end, t.key
  loop
    continue when v_table.place is null and not exists (
      select from jsonb_array_elements(v_table.facts -> 'columns') as c
      where c.value ->> 'confidence' <> 'low' and (
        c.value ->> 'kind' = any (gdpr_policy.special_kinds())
        or c.value ->> 'kind' in ('email', 'phone', 'national_id', 'iban', 'card', 'credential', 'birth_date', 'ip_address', 'given_name', 'family_name', 'full_name')
        -- with addresses in it
        or c.value ->> 'kind' = 'free_text' and c.value ->> 'confidence' = 'high'
      )
    );
    v_rows := case
      when v_table.facts ->> 'failed' is not null then format(' (values not looked at: %s)', v_table.facts ->> 'failed')
      when v_table.facts ->> 'seen' is null then ' (no values to look at)'
      else ''
    end;
    v_unique := array(
      select c.value ->> 'column' from jsonb_array_elements(v_table.facts -> 'columns') as c
      where c.value ->> 'kind' = 'email' and c.value ->> 'confidence' <> 'low' and c.value ->> 'class' = 't'
        and ((c.value ->> 'unique')::boolean or coalesce((c.value ->> 'distinct')::numeric >= (c.value ->> 'filled')::numeric * 0.9, true))
      order by (c.value ->> 'unique')::boolean desc, (c.value ->> 'n')::integer
      limit 1
    );
    table_name := v_table.name;
    column_name := null;
    category := v_table.place;
    identifier := null; special := null; sensitive := null; encrypt := null; mask := null;
    confidence := coalesce(v_table.confidence, 'low');
    reason := case v_table.place
      when 'persons' then format('a row is a person: %s%s', coalesce((
        select string_agg(format('%s (%s)', c.value ->> 'column', gdpr_policy.kind_words(c.value ->> 'kind')), ', ' order by (c.value ->> 'n')::integer)
        from (
          select c.value from jsonb_array_elements(v_table.facts -> 'columns') as c
          where c.value ->> 'confidence' <> 'low' and c.value ->> 'kind' in ('email', 'full_name', 'name', 'given_name', 'family_name', 'national_id', 'username', 'phone', 'birth_date')
          order by (c.value ->> 'n')::integer
          limit 4
        ) as c
      ), 'its name'), case when v_table.confidence = 'low' and v_table.facts ->> 'problem' is null then '; its name speaks of organisations, whose contacts are persons only where they are people' else '' end || coalesce((
        select format('; it refers to %s, too, through %s: say subject = { via = ... } if its rows are about that person', min(p.key), array_to_string(l.via, ', '))
        from gdpr_policy.links((select array_agg((t.value ->> 'relation')::regclass) from jsonb_each(v_placed) as t)) as l
        join jsonb_each(v_placed) as p on (p.value ->> 'relation')::regclass = l.parent and p.value ->> 'place' = 'persons'
        where l.child = v_table.relation and not gdpr_policy.is_actor(l.words)
        group by l.via
        order by l.via
        limit 1
      ), ''))
      when 'rows' then format('a row belongs to the person of %s, through %s', v_table.facts ->> 'parent', (select string_agg(u.name, ', ') from jsonb_array_elements_text(v_table.facts -> 'via') as u (name)))
      else 'columns like those of persons, and no foreign key to a table of persons: link it, or say subject = "self" where each row is a person'
    end || coalesce('; it cannot be protected: it' || (v_table.facts ->> 'problem'), '') || v_rows;
    definition := case v_table.place
      when 'persons' then jsonb_build_object('subject', 'self', 'purposes', array['service'])
        || case when v_unique <> '{}' then jsonb_build_object('match_on', v_unique) else '{}' end
      when 'rows' then jsonb_build_object('subject', jsonb_build_object('via', case
          when jsonb_array_length(v_table.facts -> 'via') = 1 then v_table.facts -> 'via' -> 0 else v_table.facts -> 'via' end), 'purposes', array['service'])
    end;
    return next;

    for v_column in
      select c.value ->> 'column' as name, c.value ->> 'words' as words, c.value ->> 'class' as class, (c.value ->> 'key')::boolean as is_key,
        (c.value ->> 'unique')::boolean as is_unique, c.value ->> 'kind' as kind, c.value ->> 'confidence' as confidence, c.value ->> 'reason' as reason
      from jsonb_array_elements(v_table.facts -> 'columns') as c
      order by (c.value ->> 'n')::integer
    loop
      v_kind := case
        -- an address of a place, where no other part of one is, is a state of affairs
        when v_column.kind = 'region' and not exists (
          select from jsonb_array_elements(v_table.facts -> 'columns') as o where o.value ->> 'kind' in ('city', 'postcode')
        ) then null
        when v_column.confidence = 'low' then null
        when v_table.place = 'rows' and v_column.kind in ('name', 'title', 'language', 'occupation') then null
        else v_column.kind
      end;
      category := null; identifier := null; special := null; sensitive := null; encrypt := null; mask := null; definition := null;
      column_name := v_column.name;
      confidence := v_column.confidence;
      reason := v_column.reason;
      if v_table.place is null then
        continue when v_kind is null or v_kind in ('name', 'title', 'city', 'region', 'country', 'postcode', 'language', 'occupation', 'device', 'location', 'username')
          or v_kind = 'free_text' and v_column.confidence <> 'high';
        confidence := 'low';
      elsif v_kind is null and v_column.is_key then
        v_kind := 'key';
        confidence := 'high';
        reason := 'part of a key';
      elsif v_kind is null and v_column.class in ('n', 'b', 'd') and v_column.confidence is null then
        v_kind := 'other';
        confidence := 'medium';
        reason := 'neither name nor type tell of a person';
      elsif v_kind is null then
        confidence := 'low';
        reason := coalesce(v_column.reason || ': ', '') || 'not recognised; hidden from redacted views until it is classified';
        return next;
        continue;
      end if;
      v_class := gdpr_policy.classify(v_table.relation, v_column.name, v_column.class, v_column.is_unique, v_kind);
      definition := v_class.definition;
      category := definition ->> 'category';
      identifier := definition ->> 'identifier';
      special := definition ->> 'special';
      sensitive := coalesce((definition ->> 'sensitive')::boolean, false);
      encrypt := case definition ->> 'encrypt' when 'true' then 'yes' else coalesce(definition ->> 'encrypt', 'no') end;
      mask := coalesce(definition ->> 'mask', 'show');
      reason := reason || case
        when v_class.obstacle is null then ''
        when v_kind = any (gdpr_policy.special_kinds()) then format('; as it is it cannot be protected as a special category: %s', v_class.obstacle)
        when v_class.definition ->> 'encrypt' = 'searchable' then '; unique, so with a digest'
        else format('; not encrypted: %s', v_class.obstacle)
      end;
      return next;
    end loop;
  end loop;
end
$function$;
comment on function gdpr.discover(integer) is
  'Looks at names, types, comments and a sample of p_sample values of every table that the caller may read and no policy protects, and proposes how to classify them, with reasons: a line for each table (column_name null; category: persons, rows of persons, or null where that is not known) and for each of its columns. definition: what a policy would say. confidence: high, medium, or low, which is for people to decide. Never a value: counts and words only. Reads only. Error: PR004 p_sample is not between 0 (names only) and 100000. Art. 4(1), 25, 30.';

create or replace function gdpr_policy.refuse_sample()
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.refuse('invalid_argument', 'the sample has 0 to 100000 rows of each table');
end;
comment on function gdpr_policy.refuse_sample() is 'Error: PR004.';

create or replace function gdpr.draft_policy(p_sample integer default 1000)
returns jsonb
language sql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  with found as materialized (
    select * from gdpr.discover(p_sample)
  )
  select jsonb_build_object(
    'purposes', jsonb_build_object('service', jsonb_build_object('description', 'What these data are for: say it, and part it into purposes', 'basis', 'contract')),
    'tables', coalesce(jsonb_object_agg(t.table_name, t.definition || jsonb_build_object('columns', (
      select coalesce(jsonb_object_agg(c.column_name, c.definition), '{}')
      from found as c
      where c.table_name = t.table_name and c.column_name is not null and c.confidence <> 'low' and c.definition is not null
    ))), '{}')
  )
  from found as t
  where t.column_name is null and t.confidence <> 'low' and t.definition is not null;
end;
comment on function gdpr.draft_policy(integer) is
  'What gdpr.discover() finds, but for what it is not sure of, as a policy that gdpr.plan() takes: a beginning, with one purpose that says nothing yet and no roles. Art. 25.';
