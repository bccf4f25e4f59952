-- [code] Reading what erasure does with one column: empty, replace, generalise, take parts out, keep for a time.
-- GDPR Art. 17, Art. 25. Called by: gdpr.plan() and the register.

set local role gdpr_owner;

create or replace function gdpr_internal.json_steps(p_path text)
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_step constant text := '\.([A-Za-z_][A-Za-z0-9_-]*)|\.\*|\[\*\]|\[([0-9]+)\]|\["([^"\\]+)"\]';
begin
  if p_path !~ ('^\$(' || v_step || ')+$') then
    return null;
  end if;
  return (
    select jsonb_agg(coalesce(m.step[1], m.step[2], m.step[3]) order by m.n)
    from regexp_matches(p_path, v_step, 'g') with ordinality as m (step, n)
  );
end
$function$;
comment on function gdpr_internal.json_steps(text) is
  'The steps of a path as $.contact.email, $.history[*].ip, $["odd key"], $[0]: keys and positions as text, null for every element; null: it is no such path.';

create or replace function gdpr_internal.json_without(p_value jsonb, p_steps text[])
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_step text := p_steps[1];
  v_kind text := jsonb_typeof(p_value);
  v_rest text[] := p_steps[2:];
begin
  if v_kind is null or v_kind not in ('object', 'array') or (v_kind = 'array' and v_step !~ '^[0-9]+$') then
    return p_value;
  elsif v_rest = '{}' then
    return case
      when v_step is null then case v_kind when 'object' then '{}'::jsonb else '[]'::jsonb end
      when v_kind = 'object' then p_value - v_step
      else p_value - v_step::integer
    end;
  elsif v_step is not null then
    return case
      when v_kind = 'object' and p_value ? v_step then jsonb_set(p_value, array[v_step], gdpr_internal.json_without(p_value -> v_step, v_rest))
      when v_kind = 'array' and p_value -> v_step::integer is not null
        then jsonb_set(p_value, array[v_step], gdpr_internal.json_without(p_value -> v_step::integer, v_rest))
      else p_value
    end;
  elsif v_kind = 'object' then
    return (select coalesce(jsonb_object_agg(e.key, gdpr_internal.json_without(e.value, v_rest)), '{}') from jsonb_each(p_value) as e);
  end if;
  return (
    select coalesce(jsonb_agg(gdpr_internal.json_without(e.value, v_rest) order by e.n), '[]')
    from jsonb_array_elements(p_value) with ordinality as e (value, n)
  );
end
$function$;
comment on function gdpr_internal.json_without(jsonb, text[]) is 'A document without what stands at these steps (a null step: every element).';

create or replace function gdpr_internal.json_only(p_value jsonb, p_paths jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_paths @> '[[]]' and exists (select from jsonb_array_elements(p_paths) as p where p = '[]') then
    return p_value;
  elsif jsonb_typeof(p_value) = 'object' then
    return (
      select coalesce(jsonb_object_agg(e.key, gdpr_internal.json_only(e.value, t.tails)), '{}')
      from jsonb_each(p_value) as e
      cross join lateral (
        select jsonb_agg(p - 0) as tails from jsonb_array_elements(p_paths) as p where p ->> 0 = e.key or p -> 0 = 'null'
      ) as t
      where t.tails is not null
    );
  elsif jsonb_typeof(p_value) = 'array' then
    return (
      select coalesce(jsonb_agg(gdpr_internal.json_only(e.value, t.tails) order by e.n), '[]')
      from jsonb_array_elements(p_value) with ordinality as e (value, n)
      cross join lateral (
        select jsonb_agg(p - 0) as tails from jsonb_array_elements(p_paths) as p where p ->> 0 = (e.n - 1)::text or p -> 0 = 'null'
      ) as t
      where t.tails is not null
    );
  end if;
  return 'null';
end
$function$;
comment on function gdpr_internal.json_only(jsonb, jsonb) is 'What of a document stands at these paths (an array of arrays of steps); all else is left out.';

create or replace function gdpr_internal.keep_problem(p_where text, p_relation regclass, p_keep text)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_interval record := gdpr_internal.read_interval(p_where, split_part(coalesce(p_keep, ''), ' after ', 1));
begin
  return coalesce(v_interval.problem, case when not exists (
    select from pg_attribute as a
    where a.attrelid = p_relation and a.attname = split_part(coalesce(p_keep, ''), ' after ', 2) and not a.attisdropped
      and a.atttypid in ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
  ) then format('%s: "<duration> after <date column>"', p_where) end);
end
$function$;
comment on function gdpr_internal.keep_problem(text, regclass, text) is 'Why this is no period, as "7 years after invoice_date"; null when it is.';

create or replace function gdpr_internal.generalise_problem(p_type text, p_encrypt text, p_mask text, p_to jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when p_to #>> '{}' in ('year', 'decade') then case
      when gdpr_internal.base_type(p_type) not in ('date', 'timestamp without time zone', 'timestamp with time zone') then 'is for dates and timestamps'
      when p_encrypt <> 'no' and (p_mask <> 'year' or p_to #>> '{}' <> 'year') then 'to the year, of an encrypted column, needs mask = "year": nobody can read it any more when the key is gone'
    end
    when p_to #>> '{}' = 'initial' then case
      when gdpr_internal.base_type(p_type) not in ('text', 'character varying', 'character') then 'to the initial is for text'
      when p_encrypt <> 'no' and p_mask <> 'initial' then 'to the initial, of an encrypted column, needs mask = "initial": nobody can read it any more when the key is gone'
    end
    when jsonb_typeof(p_to) <> 'number' or (p_to #>> '{}')::numeric <= 0 then '"year", "decade", "initial", the step of a range, or how many characters stay'
    when p_encrypt <> 'no' then 'of an encrypted column is not possible: nobody can read it any more when the key is gone'
    when gdpr_internal.base_type(p_type) in ('text', 'character varying', 'character') and p_to #>> '{}' ~ '[.]' then 'of text: how many characters stay'
    when gdpr_internal.base_type(p_type) in ('smallint', 'integer', 'bigint') and p_to #>> '{}' ~ '[.]' then 'of whole numbers: a whole step'
    when gdpr_internal.base_type(p_type) not in (
      'text', 'character varying', 'character', 'smallint', 'integer', 'bigint', 'numeric', 'real', 'double precision'
    ) then 'is for text and numbers'
  end;
end;
comment on function gdpr_internal.generalise_problem(text, text, text, jsonb) is 'Why a column of this type cannot be generalised so; null when it can.';

create or replace function gdpr_internal.elements_problem(p_type text, p_encrypt text, p_elements jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when p_encrypt <> 'no' then 'is for arrays and documents that are not encrypted'
    when p_elements = '"all"' then case when p_type !~ '\[\]$' then 'all of them is for arrays' end
    when gdpr_internal.text_array(p_elements) <@ array['email', 'phone', 'text'] is not true or p_elements = '[]'
      then '"all", or those that identify the person: "email", "phone", "text", or a list of these'
    when p_type not in ('json', 'jsonb') and p_type !~ '^(text|character varying|character|([^ ]+\.)?citext)(\(\d+\))?\[\]$'
      then 'that identify the person is for arrays of text, json and jsonb'
  end;
end;
comment on function gdpr_internal.elements_problem(text, text, jsonb) is 'Why no such elements can be taken out of a column; null when they can.';

create or replace function gdpr_internal.erase_problem(
  p_where text, p_relation regclass, p_attribute pg_attribute, p_type text, p_encrypt text, p_mask text, p_erase jsonb
)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_problem text;
begin
  if jsonb_typeof(p_erase) = 'string' then
    return case
      when p_erase #>> '{}' not in ('keep', 'null') then format('%s.erase: "keep", "null" or a table of value, generalise, paths, keep_paths, elements, keep_until', p_where)
      when p_erase #>> '{}' = 'keep' and p_encrypt <> 'no' then format('%s.erase: ciphertext cannot be kept, its key goes', p_where)
      when p_erase #>> '{}' = 'null' and p_attribute.attnotnull then format('%s.erase: the column is NOT NULL', p_where)
    end;
  elsif jsonb_typeof(p_erase) <> 'object' or (select count(*) from jsonb_object_keys(p_erase - 'then') as k) <> 1
    or not p_erase ?| array['value', 'generalise', 'paths', 'keep_paths', 'elements', 'keep_until']
    or (p_erase ? 'then' and not p_erase ? 'keep_until')
  then
    return format('%s.erase: "keep", "null" or a table of value, generalise, paths, keep_paths, elements, keep_until', p_where);
  elsif p_erase ? 'value' and exists (
    select from pg_type as y
    where y.typtype = 'e' and format_type(y.oid, null) = p_type
      and not exists (select from pg_enum as e where e.enumtypid = y.oid and e.enumlabel = p_erase ->> 'value')
  ) then
    return format('%s.erase.value: is no label of %s', p_where, p_type);
  elsif p_erase ? 'generalise' then
    return p_where || '.erase.generalise: ' || gdpr_internal.generalise_problem(p_type, p_encrypt, p_mask, p_erase -> 'generalise');
  elsif p_erase ?| array['paths', 'keep_paths'] then
    return case
      when p_type not in ('json', 'jsonb') or p_encrypt <> 'no' then format('%s.erase: paths are of json and jsonb columns that are not encrypted', p_where)
      when (
        select count(gdpr_internal.json_steps(p)) is distinct from nullif(count(*), 0)
        from unnest(gdpr_internal.text_array(coalesce(p_erase -> 'paths', p_erase -> 'keep_paths'))) as p
      ) then format('%s.erase: a list of paths as "$.contact.email", "$.history[*].ip"', p_where)
    end;
  elsif p_erase ? 'elements' then
    return p_where || '.erase.elements: ' || gdpr_internal.elements_problem(p_type, p_encrypt, p_erase -> 'elements');
  elsif p_erase ? 'keep_until' then
    v_problem := gdpr_internal.keep_problem(p_where || '.erase.keep_until', p_relation, p_erase ->> 'keep_until');
    if v_problem is null and p_erase ? 'then' then
      v_problem := gdpr_internal.erase_problem(p_where, p_relation, p_attribute, p_type, p_encrypt, p_mask, p_erase -> 'then');
    end if;
    return coalesce(v_problem, case
      when p_erase -> 'then' ? 'keep_until' then format('%s.erase.then: another period', p_where)
    end);
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.erase_problem(text, regclass, pg_attribute, text, text, text, jsonb) is
  'Why erasure cannot treat a column as the policy says; null when it can.';

create or replace function gdpr_internal.erase_rule(p_relation regclass, p_column text, p_definition jsonb)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_erase jsonb := p_definition -> 'erase';
begin
  if v_erase ? 'keep_until' then
    v_erase := v_erase -> 'then';
  end if;
  return case
    when v_erase ? 'value' then 'value:' || (v_erase ->> 'value')
    when v_erase ? 'generalise' then 'generalise:' || (v_erase ->> 'generalise')
    when v_erase -> 'elements' = '"all"' then 'value:{}'
    when v_erase ? 'elements' then 'elements:' || gdpr_internal.text_array(v_erase -> 'elements')::text
    when v_erase ?| array['paths', 'keep_paths'] then (
      select case when v_erase ? 'paths' then 'without:' else 'only:' end || jsonb_agg(gdpr_internal.json_steps(p))::text
      from unnest(gdpr_internal.text_array(coalesce(v_erase -> 'paths', v_erase -> 'keep_paths'))) as p
    )
    when v_erase is not null then v_erase #>> '{}'
    when p_definition is not null and not (p_definition ->> 'sensitive')::boolean and not p_definition ? 'identifier'
      and not coalesce(p_definition -> 'erase' ? 'keep_until', false)
      and p_definition ->> 'category' <> all (array['identity', 'contact', 'demographic', 'online']) then 'keep'
    when (select a.attnotnull from pg_attribute as a where a.attrelid = p_relation and a.attname = p_column) then 'neutral'
    else 'null'
  end;
end
$function$;
comment on function gdpr_internal.erase_rule(regclass, text, jsonb) is
  'What anonymisation does with a column: the policy''s word, else it empties what is sensitive, identifies or describes the person, what nobody classified (p_definition null), and what was kept for a time.';

create or replace function gdpr_internal.emptied_columns(p_relation regclass)
returns name[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select coalesce(array_agg(a.attname order by a.attnum), '{}')
    from pg_attribute as a
    where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
      and a.attidentity = '' and a.attgenerated = ''
      and not exists (
        select from pg_constraint as k
        where k.conrelid = p_relation and k.contype in ('p', 'f') and a.attnum = any (k.conkey)
      )
  );
end
$function$;
comment on function gdpr_internal.emptied_columns(regclass) is 'The columns whose values anonymisation may change: all but keys and what the database computes.';
