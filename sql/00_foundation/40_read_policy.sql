-- [code] Reading a policy: one normal form, every problem named, nothing changed.
-- GDPR Art. 25. Called by: gdpr.plan().

set local role gdpr_owner;

create or replace function gdpr_internal.base_type(p_type text)
returns text
language sql
immutable
parallel unsafe
security invoker
begin atomic
  select regexp_replace(p_type, '\([0-9,]+\)', '');
end;
comment on function gdpr_internal.base_type(text) is 'A type as format_type() names it, without its length.';

create or replace function gdpr_internal.unknown_keys(p_where text, p_object jsonb, p_known text[])
returns text[]
language sql
immutable
parallel unsafe
security invoker
begin atomic
  select case
    when p_object is null then '{}'
    when jsonb_typeof(p_object) <> 'object' then array[format('%s: has to be a table of settings', p_where)]
    else (
      select coalesce(array_agg(format('%s: unknown setting %s; known are %s', p_where, to_json(k.key), array_to_string(p_known, ', '))), '{}')
      from jsonb_object_keys(p_object) as k (key)
      where k.key <> all (p_known)
    )
  end;
end;
comment on function gdpr_internal.unknown_keys(text, jsonb, text[]) is 'Problems: settings that nobody reads, most often misspelt.';

create or replace function gdpr_internal.read_interval(p_where text, p_value text, out value interval, out problem text)
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
begin
  value := p_value::interval;
  if value <= interval '0' then
    problem := format('%s: has to be longer than nothing', p_where);
  end if;
exception when data_exception then
  problem := format('%s: %s is not a duration such as "14 days"', p_where, to_json(p_value));
end
$function$;
comment on function gdpr_internal.read_interval(text, text) is 'A duration of the policy, or the problem with it.';

create or replace function gdpr_internal.text_array(p_value jsonb)
returns text[]
language plpgsql
immutable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select case jsonb_typeof(p_value)
      when 'array' then (select coalesce(array_agg(e.value order by e.n), '{}') from jsonb_array_elements_text(p_value) with ordinality as e (value, n))
      when 'string' then array[p_value #>> '{}']
    end
  );
end
$function$;
comment on function gdpr_internal.text_array(jsonb) is 'A list of texts; one text counts as a list of one; null for anything else.';

create or replace function gdpr_internal.find_table(p_name text)
returns regclass
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_name constant text := '(?:"(?:[^"]|"")+"|(?:[a-zA-Z_]|[^\x01-\x7f])(?:[a-zA-Z0-9_$]|[^\x01-\x7f])*)';
  v_parts text[];
  v_table regclass;
begin
  -- looked up in the catalog: a cast to regclass would need USAGE on the application's schema.
  -- parse_ident() raises what is no name, and a parallel plan cannot catch errors
  if p_name ~ format('^\s*%1$s(?:\s*\.\s*%1$s)*\s*$', v_name) then
    v_parts := parse_ident(p_name);
  end if;
  -- the LIMIT makes each reading of the name one probe of an index: a policy asks for its tables many times
  select t.oid into v_table
  from (
    -- as written in TOML: a schema, the first dot that makes sense, and the name with its capitals and spaces
    select i as rank, left(p_name, i - 1) as schema_name, substr(p_name, i + 1) as table_name
    from generate_series(1, least(length(p_name), 64)) as i -- no name is longer than 63
    where substr(p_name, i, 1) = '.'
    union all
    select length(p_name) + 2, case when cardinality(v_parts) = 1 then 'public' else v_parts[cardinality(v_parts) - 1] end, v_parts[cardinality(v_parts)]
    union all
    select length(p_name) + 1, 'public', p_name
  ) as r
  cross join lateral (
    select c.oid
    from pg_class as c
    where c.relname = r.table_name and c.relnamespace = (select n.oid from pg_namespace as n where n.nspname = r.schema_name)
    limit 1
  ) as t
  order by r.rank
  limit 1;
  return v_table;
end
$function$;
comment on function gdpr_internal.find_table(text) is 'The table that a policy names: schema.name, quoted as in SQL or plain; without a schema, public.';

create or replace function gdpr.table_named(p_table text)
returns regclass
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table regclass := gdpr_internal.find_table(p_table);
begin
  if v_table is null then
    perform gdpr_internal.refuse('unknown_table', p_table);
  end if;
  return v_table;
end
$function$;
comment on function gdpr.table_named(text) is
  'The table of a name as policies and the command line write it: schema.name with its capitals, blanks and dots as they are (the first dot that makes sense ends the schema), or quoted as in SQL; without a schema, public. Null is no table. Error: PR007.';

create or replace function gdpr_internal.read_purposes(p_policy jsonb, out purposes jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
declare
  v_name text;
  v_in jsonb;
  v_definition jsonb;
  v_setting text;
  v_interval record;
begin
  purposes := '{}';
  problems := '{}';
  for v_name, v_in in select key, value from jsonb_each(coalesce(p_policy -> 'purposes', '{}')) order by key loop
    problems := problems || gdpr_internal.unknown_keys(
      'purposes.' || v_name, v_in,
      array[
        'description', 'basis', 'respond_within', 'remind', 'valid_for', 'while_waiting', 'retain', 'grace', 'condition', 'automated_decision',
        'direct_marketing'
      ]
    );
    continue when jsonb_typeof(v_in) <> 'object';
    if v_name in ('compliance', 'maintenance') then
      problems := problems || format('purposes.%s: is built in', v_name);
    elsif v_name !~ '^[a-z][a-z0-9_]{0,62}$' then
      problems := problems || format('purposes.%s: a name is lower case letters, digits and _', to_json(v_name));
    end if;
    if coalesce(v_in ->> 'basis', '') <> all (gdpr_internal.grounds() || 'consent'::text) then
      problems := problems || format('purposes.%s.basis: one of %s, consent', v_name, array_to_string(gdpr_internal.grounds(), ', '));
    end if;
    if v_in ? 'grace' and v_in ->> 'basis' not in ('consent', 'legitimate_interests') then
      problems := problems || format('purposes.%s: grace is for consent and legitimate_interests', v_name);
    end if;
    if v_in ->> 'condition' <> all (gdpr_internal.special_conditions()) then
      problems := problems || format('purposes.%s.condition: one of %s', v_name, array_to_string(gdpr_internal.special_conditions(), ', '));
    end if;
    if v_in ->> 'direct_marketing' not in ('true', 'false') then
      problems := problems || format('purposes.%s.direct_marketing: true or false', v_name);
    end if;
    if v_in ->> 'basis' <> 'consent' and v_in ?| array['respond_within', 'remind', 'valid_for', 'while_waiting'] then
      problems := problems || format('purposes.%s: respond_within, remind, valid_for and while_waiting are for consent', v_name);
    end if;
    if coalesce(v_in ->> 'while_waiting', 'lock') not in ('allow', 'lock') then
      problems := problems || format('purposes.%s.while_waiting: "allow" or "lock"', v_name);
    end if;
    if jsonb_typeof(v_in -> 'automated_decision') <> 'string' then
      problems := problems || format('purposes.%s.automated_decision: words for the person', v_name);
    end if;
    -- false is as good as nothing said
    v_definition := jsonb_strip_nulls(v_in || jsonb_build_object('direct_marketing', nullif(v_in -> 'direct_marketing', 'false')));
    if v_in ->> 'basis' = 'consent' then
      v_definition := v_definition || jsonb_build_object('while_waiting', coalesce(v_in ->> 'while_waiting', 'lock'));
    end if;
    if v_in ->> 'basis' in ('consent', 'legitimate_interests') then
      -- by default nothing is locked on the day that a table is switched on
      v_definition := '{"grace": "90 days"}' || v_definition;
    end if;
    foreach v_setting in array array['respond_within', 'remind', 'valid_for', 'retain', 'grace'] loop
      continue when not v_definition ? v_setting or (v_setting = 'grace' and v_definition -> 'grace' = 'false');
      v_interval := gdpr_internal.read_interval(format('purposes.%s.%s', v_name, v_setting), v_definition ->> v_setting);
      if v_interval.problem is not null then
        problems := problems || v_interval.problem;
      else
        v_definition := v_definition || jsonb_build_object(v_setting, v_interval.value::text);
      end if;
    end loop;
    if not v_in ? 'respond_within' and v_in ? 'remind' then
      problems := problems || format('purposes.%s.remind: there is no deadline to remind of; say respond_within', v_name);
    elsif (gdpr_internal.read_interval('', v_in ->> 'remind')).value >= (gdpr_internal.read_interval('', v_in ->> 'respond_within')).value then
      problems := problems || format('purposes.%s.remind: has to be shorter than respond_within', v_name);
    end if;
    purposes := purposes || jsonb_build_object(v_name, v_definition);
  end loop;
  if (select count(*) from (
    select key from jsonb_object_keys(purposes) as n (key)
    union select p.name from gdpr_internal.purpose as p where p.id < 62
  ) as a) > 62 then
    problems := problems || 'purposes: at most 62, those used before counted'::text;
  end if;
end
$function$;
comment on function gdpr_internal.read_purposes(jsonb) is 'The purposes of a policy in normal form, and their problems.';

create or replace function gdpr_internal.read_roles(p_policy jsonb, p_purposes jsonb, out roles jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_name text;
  v_in jsonb;
  v_purposes text[];
  v_may text[];
  v_purpose text;
begin
  roles := '{}';
  problems := '{}';
  for v_name, v_in in select key, value from jsonb_each(coalesce(p_policy -> 'roles', '{}')) order by key loop
    problems := problems || gdpr_internal.unknown_keys('roles.' || v_name, v_in, array['audience', 'purposes', 'may', 'recipient']);
    continue when jsonb_typeof(v_in) <> 'object';
    if to_regrole(quote_ident(v_name)) is null then
      problems := problems || format('roles.%s: there is no such role in this server', v_name);
    elsif v_name ~ '^gdpr_(owner|keyholder|worker|viewer|admin|dpo|auditor|app|bi|export|api|integration|portal|mail)$' then
      problems := problems || format('roles.%s: is gdprdb''s own', v_name);
    elsif (select r.rolsuper or r.rolbypassrls from pg_roles as r where r.rolname = v_name) then
      problems := problems || format('roles.%s: a superuser or a role with BYPASSRLS passes every rule', v_name);
    end if;
    if coalesce(v_in ->> 'audience', '') <> all (gdpr_internal.audiences() || array['clear', 'mail']) then
      problems := problems || format('roles.%s.audience: "clear", "bi", "export", "api", "integration" or "mail"', v_name);
    end if;
    if v_in ? 'recipient' and (
      coalesce(v_in ->> 'audience', '') <> all (gdpr_internal.outgoing_audiences()) or coalesce(v_in ->> 'recipient', '') = ''
    ) then
      problems := problems || format('roles.%s.recipient: who gets what audience export, api or integration reads, as gdpr.recipient names it', v_name);
    end if;
    v_purposes := gdpr_internal.text_array(v_in -> 'purposes');
    if v_in ->> 'audience' = 'mail' then
      v_purposes := coalesce(v_purposes, '{}');
      if v_purposes <> '{}' or coalesce(gdpr_internal.text_array(v_in -> 'may'), '{}') <> '{}' then
        problems := problems || format('roles.%s: a role that sends mails has no purposes and may do nothing else', v_name);
      end if;
    elsif v_purposes is null or v_purposes = '{}' then
      problems := problems || format('roles.%s.purposes: at least one', v_name);
    end if;
    foreach v_purpose in array coalesce(v_purposes, '{}') loop
      if v_purpose = 'compliance' then
        problems := problems || format('roles.%s.purposes: compliance belongs to gdpr_dpo', v_name);
      elsif v_purpose <> 'maintenance' and not p_purposes ? v_purpose then
        problems := problems || format('roles.%s.purposes: there is no purpose %s', v_name, to_json(v_purpose));
      end if;
    end loop;
    if 'maintenance' = any (v_purposes) and v_in ->> 'audience' <> 'clear' then
      problems := problems || format('roles.%s: maintenance touches the tables themselves, which needs audience clear', v_name);
    end if;
    v_may := coalesce(gdpr_internal.text_array(v_in -> 'may'), '{}');
    if not v_may <@ array['basis', 'consent', 'disclose', 'rectify'] then
      problems := problems || format('roles.%s.may: "basis", "consent", "disclose" and "rectify"', v_name);
    end if;
    roles := roles || jsonb_build_object(v_name, jsonb_build_object(
      'audience', v_in -> 'audience', 'purposes', to_jsonb(v_purposes), 'may', to_jsonb(v_may)
    ) || case when v_in ? 'recipient' then jsonb_build_object('recipient', v_in -> 'recipient') else '{}' end);
  end loop;
end
$function$;
comment on function gdpr_internal.read_roles(jsonb, jsonb) is 'The bindings of roles in normal form, and their problems.';

create or replace function gdpr_internal.column_reference(p_name text)
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
    select coalesce(
      (
        select format('%s.%I', a.attrelid::regclass, a.attname)
        from pg_attribute as a
        where a.attrelid = gdpr_internal.find_table(substring(p_name from '^(.*)[.][^.]*$')) and a.attnum > 0 and not a.attisdropped
          and a.attname::text = btrim(substring(p_name from '[^.]*$'), '"')
      ), p_name
    )
  );
end
$function$;
comment on function gdpr_internal.column_reference(text) is 'A column named as schema.table.column, in the catalog''s writing; as it came if there is none.';

create or replace function gdpr_internal.read_column(p_where text, p_relation regclass, p_name text, p_in jsonb, out definition jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_attribute pg_attribute;
  v_type text;
  v_encrypt text;
  v_mask text;
  v_erase jsonb := p_in -> 'erase';
begin
  problems := gdpr_internal.unknown_keys(
    p_where, p_in, array[
      'category', 'identifier', 'language', 'sensitive', 'encrypt', 'mask', 'canonical', 'erase', 'age', 'special', 'provided', 'about', 'review', 'same_as'
    ]
  );
  if jsonb_typeof(p_in) <> 'object' then
    return;
  end if;
  select a.* into v_attribute from pg_attribute as a
  where a.attrelid = p_relation and a.attname = p_name and a.attnum > 0 and not a.attisdropped;
  if v_attribute.attname is null then
    problems := problems || format('%s: the table has no such column%s', p_where, gdpr_internal.where_column_went(p_relation, p_name));
    return;
  end if;
  v_encrypt := case p_in -> 'encrypt' when 'true' then 'yes' when 'false' then 'no' when '"searchable"' then 'searchable' else 'no' end;
  v_type := gdpr_internal.column_type(p_relation, p_name, v_encrypt <> 'no');
  if p_in -> 'encrypt' not in ('true', 'false', '"searchable"') then
    problems := problems || format('%s.encrypt: true, false or "searchable"', p_where);
  end if;
  -- a word that is neither must not leave the column open
  if p_in -> 'sensitive' not in ('true', 'false') then
    problems := problems || format('%s.sensitive: true or false', p_where);
  end if;
  v_mask := coalesce(p_in ->> 'mask', case when v_encrypt <> 'no' or p_in ->> 'sensitive' = 'true' then 'hide' else 'show' end);
  if v_mask not in ('show', 'hide', 'initial', 'email', 'year', 'pseudonym') then
    problems := problems || format('%s.mask: one of show, hide, initial, email, year, pseudonym', p_where);
  elsif v_mask = 'show' and (v_encrypt <> 'no' or p_in ->> 'sensitive' = 'true') then
    problems := problems || format('%s.mask: a sensitive column cannot be shown', p_where);
  elsif v_mask in ('initial', 'email', 'pseudonym') and gdpr_internal.base_type(v_type) not in ('text', 'character varying', 'character') then
    problems := problems || format('%s.mask: %s is for text, the column is %s', p_where, v_mask, v_type);
  elsif v_mask = 'year' and gdpr_internal.base_type(v_type) not in ('date', 'timestamp without time zone', 'timestamp with time zone') then
    problems := problems || format('%s.mask: year is for dates and timestamps, the column is %s', p_where, v_type);
  end if;
  if coalesce(p_in ->> 'identifier', 'text') not in ('email', 'phone', 'text') then
    problems := problems || format('%s.identifier: one of email, phone, text', p_where);
  end if;
  if coalesce(p_in ->> 'canonical', 'identifier') not in ('identifier', 'exact') then
    problems := problems || format('%s.canonical: "identifier" or "exact"', p_where);
  elsif p_in ->> 'canonical' = 'exact' and p_in ? 'identifier' then
    problems := problems || format('%s.canonical: an identifier is compared in its canonical form', p_where);
  elsif p_in ->> 'canonical' = 'exact' and gdpr_internal.shows_citext(p_relation, p_name) then
    problems := problems || format('%s.canonical: citext counts values as equal that differ in case, "exact" would not', p_where);
  end if;
  if p_in ->> 'age' = 'true' and gdpr_internal.base_type(v_type) not in ('date', 'timestamp without time zone', 'timestamp with time zone') then
    problems := problems || format('%s.age: is for birth dates, the column is %s', p_where, v_type);
  elsif coalesce(p_in ->> 'age', 'false') not in ('true', 'false') then
    problems := problems || format('%s.age: true or false', p_where);
  end if;
  if coalesce(p_in ->> 'provided', 'true') not in ('true', 'false') then
    problems := problems || format('%s.provided: true or false', p_where);
  end if;
  if p_in ->> 'special' <> all (gdpr_internal.special_kinds()) then
    problems := problems || format('%s.special: one of %s', p_where, array_to_string(gdpr_internal.special_kinds(), ', '));
  elsif p_in ? 'special' and (v_encrypt <> 'yes' or v_mask <> 'hide') then
    problems := problems || format('%s: a special category needs encrypt = true and mask = "hide"', p_where);
  elsif p_in ? 'special' and p_in ? 'identifier' then
    problems := problems || format('%s: a special category cannot identify', p_where);
  end if;
  if octet_length('gdpr_' || p_name || '_digest') > 63 and (v_encrypt <> 'no' or v_mask = 'pseudonym') then
    problems := problems || format('%s: the name is too long, gdpr_<column>_digest has to fit into 63 bytes', p_where);
  end if;
  if v_encrypt = 'searchable' and exists (
    select from pg_attribute as a where a.attrelid = p_relation and a.attname = p_name || '_digest' and not a.attisdropped
  ) then
    problems := problems || format('%s: the clear view needs the name %s, which is a column of the table', p_where, to_json(p_name || '_digest'));
  end if;
  if p_in ? 'identifier' and gdpr_internal.base_type(v_type) not in (
    'text', 'character varying', 'character', 'smallint', 'integer', 'bigint', 'numeric', 'uuid'
  ) then
    problems := problems || format('%s.identifier: a column of type %s cannot be an identifier', p_where, v_type);
  end if;
  if coalesce(p_in ->> 'language', 'true') not in ('true', 'false') then
    problems := problems || format('%s.language: true or false', p_where);
  elsif p_in ->> 'language' = 'true' and gdpr_internal.base_type(v_type) not in ('text', 'character varying', 'character') then
    problems := problems || format('%s.language: is for text, the column is %s', p_where, v_type);
  end if;
  if v_encrypt <> 'no' then
    if p_in ->> 'sensitive' = 'false' then
      problems := problems || format('%s: is encrypted and not sensitive, which contradict each other', p_where);
    end if;
    problems := problems || gdpr_internal.encryption_problems(p_where, p_relation, v_attribute, v_type, v_encrypt);
  end if;
  if v_erase is not null then
    problems := array_remove(
      problems || gdpr_internal.erase_problem(p_where, p_relation, v_attribute, v_type, v_encrypt, v_mask, v_erase), null
    );
  end if;
  if coalesce(p_in ->> 'review', 'true') not in ('true', 'false') then
    problems := problems || format('%s.review: true or false', p_where);
  end if;
  definition := jsonb_strip_nulls(jsonb_build_object(
    'category', coalesce(p_in ->> 'category', 'other'),
    'sensitive', coalesce(p_in ->> 'sensitive' = 'true', false) or v_encrypt <> 'no',
    'encrypt', v_encrypt,
    'identifier', p_in ->> 'identifier',
    'canonical', coalesce(p_in ->> 'canonical', 'identifier'),
    'language', case when p_in ->> 'language' = 'true' then true end,
    'mask', v_mask,
    'erase', v_erase,
    'age', case when p_in ->> 'age' = 'true' then true end,
    'special', p_in ->> 'special',
    'provided', case when p_in ->> 'provided' = 'false' then false end,
    'about', p_in ->> 'about',
    'review', case when p_in ->> 'review' = 'true' then true end,
    'same_as', gdpr_internal.column_reference(p_in ->> 'same_as')
  ));
end
$function$;
comment on function gdpr_internal.read_column(text, regclass, text, jsonb) is 'One column of a policy in normal form, and its problems.';
