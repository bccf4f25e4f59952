-- [code] Looking at the columns of a table: their names, types, comments, and a sample of their values.
-- GDPR Art. 4(1), 25, 30. Called by: gdpr.discover(). Reads with the rights of the caller; only counts leave.

set local role gdpr_owner;

create or replace function gdpr_policy.relation_problem(p_relation regclass)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select substr(string_agg(p.problem, ';'), 2) from unnest(gdpr_internal.relation_problems('', p_relation)) as p (problem);
end;
comment on function gdpr_policy.relation_problem(regclass) is 'Why a table cannot be protected, or null.';

create or replace function gdpr_policy.is_protected(p_relation regclass)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (select from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null);
end;
comment on function gdpr_policy.is_protected(regclass) is 'Whether a policy protects the table.';

create or replace function gdpr_policy.column_problems(p_relation regclass, p_column text, p_definition jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(regexp_replace(p.problem, '^[^:]*: ', '')), '{}')
  from unnest((gdpr_internal.read_column('', p_relation, p_column, p_definition)).problems) as p (problem);
end;
comment on function gdpr_policy.column_problems(regclass, text, jsonb) is 'What apply() would have against this classification of a column.';

create or replace function gdpr_policy.discover_tables()
returns table (relation regclass, name text, words text, problem text, readable boolean)
language sql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select c.oid::regclass, format('%s.%s', n.nspname, c.relname), gdpr_policy.name_words(c.relname),
    gdpr_policy.relation_problem(c.oid::regclass),
    -- a row policy of somebody else would run code of somebody else, with the rights of who looks
    has_any_column_privilege(c.oid, 'select') and (pg_has_role(c.relowner, 'usage') or not row_security_active(c.oid))
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and n.nspname !~ '^gdpr(_(internal|policy|generated|clear|bi|export|api|integration))?$'
    and (pg_has_role(c.relowner, 'usage') or has_any_column_privilege(c.oid, 'select'))
    and not exists (select from pg_depend as d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
    and not gdpr_policy.is_protected(c.oid::regclass)
  order by n.nspname, c.relname;
end;
comment on function gdpr_policy.discover_tables() is
  'The tables that the caller may look at and that no policy protects yet. readable: whether their values may be sampled.';

create or replace function gdpr_policy.discover_columns(p_relation regclass)
returns table (attnum smallint, name text, words text, comment text, class text, system_type boolean, is_key boolean, is_unique boolean)
language sql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  select a.attnum, a.attname::text, gdpr_policy.name_words(a.attname), gdpr_policy.name_words(col_description(a.attrelid, a.attnum)),
    case
      when y.oid = 'bytea'::regtype then 'y'
      when y.typname in ('json', 'jsonb') or y.typcategory = 'A' then 'j'
      when y.typcategory in ('S', 'E') or y.typname = 'citext' then 't'
      when y.typcategory in ('D', 'N', 'I', 'B') then lower(y.typcategory::text)
      else '-'
    end,
    a.atttypid < 16384,
    exists (select from pg_constraint as k where k.conrelid = a.attrelid and k.contype in ('p', 'f') and a.attnum = any (k.conkey))
      or a.attidentity <> '',
    exists (
      select from pg_index as x
      where x.indrelid = a.attrelid and x.indisunique and x.indkey::text = a.attnum::text and x.indpred is null and x.indexprs is null
    )
  from pg_attribute as a
  join pg_type as y on y.oid = a.atttypid
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped
  order by a.attnum;
end;
comment on function gdpr_policy.discover_columns(regclass) is
  'The columns of a table. class: t text, d dates and times, n numbers, i addresses of the net, b boolean, y bytes, j documents and arrays.';

create or replace function gdpr_policy.sample_code(p_relation regclass, p_sample integer)
returns text
language sql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  select format(
    $sample$
with s as materialized (
  select %s from %s as t%s limit %s
), v as materialized (
  select c.attnum, c.value, gdpr_policy.values_like(c.value) as kinds
  from s
  cross join lateral (values %s) as c (attnum, value)
  where c.value <> ''
)
select jsonb_object_agg(f.attnum, f.facts || coalesce(k.kinds, '{}'))
from (
  select v.attnum, jsonb_build_object(
    'filled', count(*), 'distinct', count(distinct v.value), 'length', avg(length(v.value)),
    'spaced', avg(case when v.value ~ '\S\s+\S' then 1 else 0 end)
  ) as facts
  from v
  group by v.attnum
) as f
left join (
  select x.attnum, jsonb_object_agg(x.kind, x.hits) as kinds
  from (select v.attnum, u.kind, count(*) as hits from v cross join lateral unnest(v.kinds) as u (kind) group by v.attnum, u.kind) as x
  group by x.attnum
) as k on k.attnum = f.attnum
$sample$,
    string_agg(format('t.%I', a.attname), ', ' order by a.attnum),
    p_relation,
    -- whole pages, so that a large table costs no more than a small one; more than needed, for pages that are nearly empty
    case when p.pages > greatest(200, p_sample / 5)
      then format(' tablesample system (%s)', least(100, greatest(50, p_sample / 5) * 100.0::numeric / p.pages)) else '' end,
    p_sample,
    string_agg(format('(%s, left(s.%I::pg_catalog.text, 300))', a.attnum, a.attname), ', ' order by a.attnum)
  )
  from pg_attribute as a
  cross join (
    select sum(pg_relation_size(t.relid)) / current_setting('block_size')::bigint as pages
    from pg_partition_tree(p_relation) as t
    where t.isleaf
  ) as p
  -- types of the system only: an output function of somebody else would run with the rights of who looks
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
    and format_type(a.atttypid, null) in ('text', 'character varying', 'character', 'bigint', 'numeric', 'json', 'jsonb')
    and has_column_privilege(a.attrelid, a.attnum, 'select')
    and not exists (
      select from pg_constraint as k where k.conrelid = a.attrelid and k.contype in ('p', 'f') and a.attnum = any (k.conkey)
        and a.atttypid in ('bigint'::regtype, 'numeric'::regtype)
    )
  group by p.pages
  having p_sample > 0;
end;
comment on function gdpr_policy.sample_code(regclass, integer) is
  'The query that looks at a sample of a table''s values: those columns that the caller may read and that are of types of the system. Null: there are none.';

create or replace function gdpr_policy.sample_columns(p_relation regclass, p_sample integer)
returns jsonb
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
set jit = off
as $function$
declare
  v_code text;
  v_facts jsonb;
begin
  v_code := gdpr_policy.sample_code(p_relation, p_sample);
  if v_code is not null then
    execute v_code into v_facts;
  end if;
  return coalesce(v_facts, '{}');
exception when others then
  -- locked, not to be read, damaged: what it says could hold a value
  return jsonb_build_object('error', sqlstate);
end
$function$;
comment on function gdpr_policy.sample_columns(regclass, integer) is
  'What a sample of a table''s values looks like, by the number of the column: how many are there (filled, distinct), how long, how many with spaces in them, how many of each kind of gdpr_policy.values_like(). error: the SQLSTATE for which nothing was read.';

create or replace function gdpr_policy.recognise(
  p_named jsonb, p_commented jsonb, p_class text, p_facts jsonb, out kind text, out confidence text, out reason text
)
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_filled numeric := coalesce((p_facts ->> 'filled')::numeric, 0);
  v_distinct numeric := coalesce((p_facts ->> 'distinct')::numeric, 0);
  v_named text;
  v_by text := 'name';
  v_seen text;
  v_hits numeric;
  v_expected text[];
begin
  select w.value ->> 'kind' into v_named
  from jsonb_array_elements(p_named) with ordinality as w (value, n)
  where strpos(w.value ->> 'types', p_class) > 0
  order by w.n
  limit 1;
  if v_named is null then
    -- prose speaks of many things: only what has a name of its own
    select w.value ->> 'kind' into v_named
    from jsonb_array_elements(p_commented) with ordinality as w (value, n)
    where (w.value ->> 'rank')::integer < 10 and strpos(w.value ->> 'types', p_class) > 0
    order by w.n
    limit 1;
    v_by := 'comment';
  end if;
  -- what nine of ten values are; numbers of which every tenth has the check digit by chance have to be many
  select f.kind, f.hits into v_seen, v_hits
  from (
    select k.key as kind, k.value::text::numeric as hits
    from jsonb_each(p_facts) as k
    where k.key <> all (array['filled', 'distinct', 'length', 'spaced', 'email_inside', 'phone_like', 'date'])
  ) as f
  where f.hits >= v_filled * case when f.kind in ('email', 'ip_address', 'phone') then 0.8 when f.kind = 'hash' then 0.5 else 0.9 end
    and (f.kind in ('email', 'ip_address', 'phone', 'hash') and v_filled >= 3 or v_distinct >= 8 or v_named in ('national_id', 'iban', 'card') and v_filled >= 3)
    and (f.kind not in ('bsn', 'nif') or v_named = 'national_id' or v_distinct >= 20 and f.hits >= v_filled * 0.98)
  order by f.hits desc, f.kind in ('bsn', 'nif', 'my_number')
  limit 1;
  if v_seen is not null and coalesce(v_named, '') <> 'credential' and not coalesce(v_named = any (gdpr_policy.special_kinds()), false) then
    kind := case v_seen
      when 'hash' then 'credential'
      when 'email' then 'email' when 'phone' then case v_named when 'fax' then 'fax' else 'phone' end when 'ip_address' then 'ip_address' when 'iban' then 'iban' when 'card' then 'card'
      else 'national_id'
    end;
    confidence := case when kind = v_named or v_filled >= 20 then 'high' else 'medium' end;
    reason := format('%s of %s sampled values are %s%s', v_hits, v_filled, gdpr_policy.kind_words(v_seen),
      case when kind = v_named then format(', as the %s says', v_by) else '' end);
    return;
  end if;
  if v_named is null then
    v_hits := coalesce((p_facts ->> 'email_inside')::numeric, 0);
    if p_class in ('t', 'j') and v_hits > 0 then
      kind := 'free_text';
      confidence := 'high';
      reason := format('%s of %s sampled values hold an e-mail address inside other text', v_hits, v_filled);
    elsif p_class = 't' and v_filled >= 5 and (p_facts ->> 'length')::numeric >= 30 and (p_facts ->> 'spaced')::numeric >= 0.7
      and v_distinct >= v_filled * 0.5
    then
      kind := 'free_text';
      confidence := 'medium';
      reason := format('long texts, of %s sampled hardly two alike', v_filled);
    end if;
    return;
  end if;
  kind := v_named;
  reason := format('%s says %s', v_by, gdpr_policy.kind_words(v_named));
  v_expected := case v_named
    when 'email' then array['email', 'email_inside'] when 'phone' then array['phone', 'phone_like'] when 'fax' then array['phone', 'phone_like'] when 'ip_address' then array['ip_address']
    when 'birth_date' then array['date']
  end;
  if v_expected is not null and p_class in ('t', 'n') and v_filled >= 3 then
    select coalesce(sum(k.value::text::numeric), 0) into v_hits from jsonb_each(p_facts) as k where k.key = any (v_expected);
    if v_filled >= 5 and v_hits < v_filled * 0.3 then
      confidence := 'low';
      reason := format('%s, but only %s of %s sampled values look like it', reason, v_hits, v_filled);
    else
      confidence := case when v_hits >= v_filled * 0.8 and v_by = 'name' then 'high' else 'medium' end;
      reason := format('%s; so do %s of %s sampled values', reason, v_hits, v_filled);
    end if;
  else
    confidence := case
      when v_by = 'name' and v_named in ('credential', 'birth_date', 'given_name', 'family_name', 'full_name') then 'high'
      else 'medium'
    end;
    if v_named = 'free_text' and coalesce((p_facts ->> 'email_inside')::numeric, 0) > 0 then
      confidence := 'high';
      reason := format('%s; %s of %s sampled values hold an e-mail address', reason, p_facts ->> 'email_inside', v_filled);
    end if;
  end if;
end
$function$;
comment on function gdpr_policy.recognise(jsonb, jsonb, text, jsonb) is
  'What a column holds, as its name and comment (what gdpr_policy.name_kinds() says of them) and sampled values say; values win over names. Null: nothing that tells of a person.';

create or replace function gdpr_policy.special_kinds()
returns text[]
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.special_kinds();
end;
comment on function gdpr_policy.special_kinds() is 'The special categories of Art. 9(1).';

create or replace function gdpr_policy.kind_words(p_kind text)
returns text
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select coalesce(
    (
      select w.words
      from (values
        ('email', 'e-mail addresses'), ('phone', 'telephone numbers'), ('fax', 'fax numbers'), ('ip_address', 'IP addresses'), ('iban', 'IBANs (by check digits)'),
        ('card', 'card numbers (by check digits)'), ('hash', 'hashes of passwords'), ('codice_fiscale', 'Italian codici fiscali (by check letter)'),
        ('dni', 'Spanish DNI or NIE (by check letter)'), ('nino', 'British national insurance numbers'), ('nir', 'French NIR (by check digits)'),
        ('ssn', 'American social security numbers'), ('bsn', 'Dutch BSN (by check digit)'), ('nif', 'Portuguese NIF (by check digit)'),
        ('pesel', 'Polish PESEL (by check digit)'), ('cpf', 'Brazilian CPF (by check digits)'), ('steuer_id', 'German tax numbers (by check digit)'),
        ('my_number', 'Japanese My Numbers (by check digit)'), ('national_id', 'a number of a person'), ('credential', 'credentials'),
        ('name', 'a name, in a table of persons'), ('salary', 'pay, or what somebody is worth'), ('free_text', 'free text, which may hold anything'), ('birth_date', 'a date of birth'),
        ('street', 'an address'), ('device', 'a device or browser'), ('social', 'an account elsewhere')
      ) as w (kind, words)
      where w.kind = p_kind
    ),
    replace(p_kind, '_', ' ')
  );
end;
comment on function gdpr_policy.kind_words(text) is 'What was recognised, in words.';

create or replace function gdpr_policy.classify(p_relation regclass, p_column text, p_class text, p_unique boolean, p_kind text, out definition jsonb, out obstacle text)
language plpgsql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_wanted jsonb;
  v_try jsonb;
  v_problems text[];
begin
  v_wanted := case
    when p_kind = any (gdpr_policy.special_kinds())
      then jsonb_build_object('category', 'special', 'special', p_kind, 'sensitive', true, 'encrypt', true, 'mask', 'hide')
    else case p_kind
      when 'credential' then '{"category": "credential", "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'email' then case when p_class = 't'
        then '{"category": "contact", "identifier": "email", "sensitive": true, "encrypt": "searchable", "mask": "email"}'
        else '{"category": "contact", "sensitive": true, "encrypt": true, "mask": "hide"}' end
      when 'phone' then '{"category": "contact", "identifier": "phone", "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'national_id' then '{"category": "identity", "identifier": "text", "sensitive": true, "encrypt": "searchable", "mask": "hide"}'
      -- a house has one, and many people
      when 'fax' then '{"category": "contact", "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'iban' then '{"category": "financial", "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'card' then '{"category": "financial", "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'salary' then '{"category": "financial", "sensitive": true, "mask": "hide"}'
      when 'birth_date' then case when p_class = 'd'
        then '{"category": "demographic", "age": true, "sensitive": true, "encrypt": true, "mask": "year"}'
        else '{"category": "demographic", "sensitive": true, "encrypt": true, "mask": "hide"}' end
      when 'given_name' then '{"category": "identity", "mask": "initial"}'
      when 'family_name' then '{"category": "identity", "mask": "initial"}'
      when 'full_name' then '{"category": "identity", "mask": "initial"}'
      when 'name' then '{"category": "identity", "mask": "initial"}'
      when 'username' then '{"category": "online", "mask": "pseudonym"}'
      when 'street' then '{"category": "contact", "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'postcode' then '{"category": "contact", "sensitive": true, "mask": "hide"}'
      when 'city' then '{"category": "contact", "sensitive": true, "mask": "hide"}'
      when 'region' then '{"category": "contact", "sensitive": true, "mask": "hide"}'
      when 'country' then '{"category": "contact", "mask": "show"}'
      when 'ip_address' then '{"category": "online", "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'device' then '{"category": "online", "sensitive": true, "mask": "hide"}'
      when 'location' then '{"category": "online", "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'social' then '{"category": "contact", "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'photo' then '{"category": "identity", "sensitive": true, "mask": "hide"}'
      when 'language' then case when p_class = 't' then '{"category": "demographic", "language": true, "mask": "show"}' else '{"category": "demographic"}' end
      when 'free_text' then '{"category": "free_text", "review": true, "sensitive": true, "encrypt": true, "mask": "hide"}'
      when 'key' then '{"category": "key"}'
      when 'other' then '{"category": "other"}'
      else '{"category": "demographic", "sensitive": true, "mask": "hide"}'
    end::jsonb
  end;
  -- as it is wanted; with a digest that keeps it unique; without ciphertext; without what its type has no room for
  for v_try in
    select t.definition
    from (values
      (1, v_wanted),
      (2, case when p_unique and v_wanted -> 'encrypt' = 'true' and p_kind not in ('credential') and not v_wanted ? 'special'
        then v_wanted || '{"encrypt": "searchable"}' end),
      (3, v_wanted - 'encrypt' - 'special' || case when v_wanted ->> 'mask' = 'show' then '{}' else '{"sensitive": true}'::jsonb end),
      (4, v_wanted - 'encrypt' - 'special' - 'identifier' - 'age' - 'language' - 'mask' || '{"sensitive": true, "mask": "hide"}')
    ) as t (n, definition)
    where t.definition is not null
    order by t.n
  loop
    v_problems := gdpr_policy.column_problems(p_relation, p_column, v_try);
    definition := v_try;
    exit when v_problems = '{}';
    obstacle := coalesce(obstacle, v_problems[1]);
  end loop;
  if definition = v_wanted then
    obstacle := null;
  end if;
end
$function$;
comment on function gdpr_policy.classify(regclass, text, text, boolean, text) is
  'How a policy would classify a column of this kind: the strictest way that apply() takes. obstacle: why not stricter.';
