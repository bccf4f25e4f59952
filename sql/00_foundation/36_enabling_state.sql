-- [code] How far the enabling of a table has come: what everything else asks that treats such a table otherwise.
-- GDPR Art. 25. Called by: generators, gdpr.plan(), gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.enabling_state(p_table smallint)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select e.state from gdpr_internal.enabling as e where e.table_id = p_table
  );
end
$function$;
comment on function gdpr_internal.enabling_state(smallint) is 'How far the enabling of a table has come; null for one that is enabled, or is not protected.';

create or replace function gdpr_internal.seals_at_once(p_definition jsonb)
returns boolean
language sql
immutable
parallel safe
security invoker
begin atomic
  select coalesce(bool_or(s.value ->> 'encrypt' <> 'no'), false) and not coalesce(bool_or(s.value ->> 'encrypt' = 'searchable'), false)
  from jsonb_each(p_definition -> 'columns') as s;
end;
comment on function gdpr_internal.seals_at_once(jsonb) is
  'Whether rows of a table get their persons and their ciphertext in one go: what is searchable has to be found by its digest everywhere before its plaintext goes, and takes two.';

create or replace function gdpr_internal.is_claiming(p_table smallint)
returns boolean
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select coalesce(gdpr_internal.enabling_state(p_table) in ('generated', 'claiming', 'claimed'), false)
      and not gdpr_internal.seals_at_once(t.definition)
    from gdpr_internal.protected_table as t
    where t.id = p_table
  );
end
$function$;
comment on function gdpr_internal.is_claiming(smallint) is 'Whether rows of a table get their persons and stay plaintext for now.';
