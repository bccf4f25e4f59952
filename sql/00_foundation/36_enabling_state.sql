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

create or replace function gdpr_internal.seals_at_once(p_relation regclass, p_definition jsonb)
returns boolean
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return exists (select from gdpr_internal.stored_columns(p_definition) as s where s.encrypt <> 'no')
    and not exists (select from gdpr_internal.stored_columns(p_definition) as s where s.encrypt = 'searchable')
    and gdpr_internal.becomes_text(p_relation, p_definition) = '{}'
    and not gdpr_internal.has_held_values(p_relation, p_definition);
end
$function$;
comment on function gdpr_internal.seals_at_once(regclass, jsonb) is
  'Whether rows of a table get their persons and their ciphertext in one go. It takes two where something has to be there for every row before the first plaintext goes: digests of what is searchable, shadows of what is not text, the persons where constraints go on in triggers.';

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
      and not gdpr_internal.seals_at_once(t.relation, t.definition)
    from gdpr_internal.protected_table as t
    where t.id = p_table
  );
end
$function$;
comment on function gdpr_internal.is_claiming(smallint) is 'Whether rows of a table get their persons and stay plaintext for now.';
