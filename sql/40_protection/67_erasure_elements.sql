-- [code] Elements of arrays, and strings in documents, that are an identifier of the persons who are erased.
-- GDPR Art. 17. Called by: generated erasure and retention. gdpr_worker, which writes the rows, has no key to know an identifier by.

set local role gdpr_keyholder;

create or replace function gdpr_internal.identifiers_among(p_subjects bigint[], p_kinds text[], p_values text[])
returns text[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
begin
  v_keys := gdpr_internal.keyring();
  return array(
    select distinct f.value
    from (
      select v.value, k.kind, gdpr_internal.canonical(k.kind, v.value) as form
      from unnest(p_values) as v (value)
      cross join unnest(p_kinds) as k (kind)
      where v.value is not null
      offset 0
    ) as f
    join gdpr_internal.identifier as i on i.digest in (
      gdpr_internal.keyed_digest(v_keys.digest_key, f.kind, f.form),
      gdpr_internal.keyed_digest(v_keys.digest_key, f.kind, gdpr_internal.bare_form(f.kind, f.form))
    )
    where exists (
      select from gdpr_internal.subject as s
      where s.id = any (p_subjects) and (
        i.subject_id = s.id
        -- erasure has blocked them already. Of nobody else who was erased: planted code could ask here, and nobody would count it
        or i.blocked_at = s.erased_at and (
          s.erased_at = statement_timestamp() or exists (select from gdpr_internal.erasure_remainder as r where r.subject_id = s.id)
        )
      )
    )
  );
end
$function$;
comment on function gdpr_internal.identifiers_among(bigint[], text[], text[]) is
  'Which of these texts are identifiers, of these kinds, of persons who are being erased, or an address of theirs with a tag. Errors: PR402.';

create or replace function gdpr_internal.without_identifiers(p_subjects bigint[], p_kinds text[], p_values text[])
returns text[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_found text[] := gdpr_internal.identifiers_among(p_subjects, p_kinds, p_values);
begin
  if p_values is null or v_found = '{}' then
    return p_values;
  end if;
  return array(
    select v.value from unnest(p_values) with ordinality as v (value, n)
    where v.value is null or v.value <> all (v_found)
    order by v.n
  );
end
$function$;
comment on function gdpr_internal.without_identifiers(bigint[], text[], text[]) is
  'An array without the elements that identify persons who are being erased; the others in their order.';

create or replace function gdpr_internal.json_texts(p_value jsonb)
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  with recursive node (key, value) as (
    select null::text, p_value
    union all
    select c.key, c.value
    from node as n
    cross join lateral (
      select e.key, e.value from jsonb_each(case jsonb_typeof(n.value) when 'object' then n.value else '{}' end) as e
      union all
      select null, a.value from jsonb_array_elements(case jsonb_typeof(n.value) when 'array' then n.value else '[]' end) as a (value)
    ) as c
  )
  select array(
    select n.key from node as n where n.key is not null
    union
    select n.value #>> '{}' from node as n where jsonb_typeof(n.value) = 'string'
  );
end;
comment on function gdpr_internal.json_texts(jsonb) is 'Every string of a document, and every key.';

create or replace function gdpr_internal.json_without_texts(p_value jsonb, p_texts text[])
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  return case jsonb_typeof(p_value)
    when 'object' then (
      select coalesce(jsonb_object_agg(e.key, gdpr_internal.json_without_texts(e.value, p_texts)), '{}')
      from jsonb_each(p_value) as e
      where e.key <> all (p_texts) and not (jsonb_typeof(e.value) = 'string' and e.value #>> '{}' = any (p_texts))
    )
    when 'array' then (
      select coalesce(jsonb_agg(gdpr_internal.json_without_texts(e.value, p_texts) order by e.n), '[]')
      from jsonb_array_elements(p_value) with ordinality as e (value, n)
      where not (jsonb_typeof(e.value) = 'string' and e.value #>> '{}' = any (p_texts))
    )
    when 'string' then case when p_value #>> '{}' = any (p_texts) then 'null' else p_value end
    else p_value
  end;
end
$function$;
comment on function gdpr_internal.json_without_texts(jsonb, text[]) is 'A document without these strings: elements and members that are one, or whose key is one, at any depth.';

create or replace function gdpr_internal.json_without_identifiers(p_subjects bigint[], p_kinds text[], p_value jsonb)
returns jsonb
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_found text[] := gdpr_internal.identifiers_among(p_subjects, p_kinds, gdpr_internal.json_texts(p_value));
begin
  return case when v_found = '{}' then p_value else gdpr_internal.json_without_texts(p_value, v_found) end;
end
$function$;
comment on function gdpr_internal.json_without_identifiers(bigint[], text[], jsonb) is
  'A document without what identifies persons who are being erased, wherever it stands.';
