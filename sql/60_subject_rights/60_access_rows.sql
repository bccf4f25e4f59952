-- [code] What is stored about a person, opened: rows, sources and history, at once or page by page.
-- GDPR Art. 15, 20. Called by: gdpr.access_report(), gdpr.portable_copy(), gdpr.access_rows(). gdpr_worker reads the rows; they
-- are opened here only after it is done. A page names places, not rows: what it gives is asked of the person again.

set local role gdpr_owner;

create or replace function gdpr_internal.about_columns(p_definition jsonb)
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select coalesce(array_agg(c.key order by c.key), '{}')
  from jsonb_each(p_definition -> 'columns') as c
  where c.value ? 'about' and not coalesce(p_definition -> 'subject' -> 'via' ? (c.value ->> 'about'), false);
end;
comment on function gdpr_internal.about_columns(jsonb) is
  'The columns of a table, by its definition, that are or may be about somebody other than the person whose row it is. Art. 15(4).';

create or replace function gdpr_internal.hidden_columns(p_table smallint, p_portable boolean)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $function$
begin
  return (
    select array(
      select c.column_name::text from gdpr_internal.protected_column as c where c.table_id = t.id and c.about = 'someone_else' order by c.position
    ) || array(
      select a.attname::text
      from pg_attribute as a
      where p_portable and a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
        and case when t.definition -> 'columns' ? a.attname::text
          then t.definition -> 'columns' -> a.attname::text ? 'provided'
          -- rows without their keys would no longer belong together
          else not exists (
            select from pg_constraint as k where k.conrelid = t.relation and k.contype in ('p', 'f') and a.attnum = any (k.conkey)
          )
        end
      order by a.attnum
    )
    from gdpr_internal.protected_table as t
    where t.id = p_table
  );
end
$function$;
comment on function gdpr_internal.hidden_columns(smallint, boolean) is
  'The columns of a table that a person is not given: those about somebody else; in a portable copy those too that the person did not provide, and those that the policy does not name, keys excepted. Art. 15(4), 20.';

set local role gdpr_keyholder;

create or replace function gdpr_internal.value_as_json(p_type text, p_value text)
returns jsonb
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set debug_print_plan = off
as $function$
declare
  v_type text := gdpr_internal.base_type(p_type);
  v_other regtype;
  v_value jsonb;
begin
  if v_type in ('text', 'character varying', 'character', 'uuid', 'inet', 'cidr', 'bytea', 'interval') then
    -- the blanks of character(n) are not encrypted
    return to_jsonb(rpad(p_value, coalesce(substring(p_type from '^character.([0-9]+).$')::integer, length(p_value))));
  end if;
  -- what was encrypted had one of PostgreSQL's own types; as such it has the same form as in a plain column
  begin
    if v_type in ('smallint', 'integer', 'bigint', 'numeric') then
      v_value := to_jsonb(p_value::numeric);
    elsif v_type = 'date' then
      v_value := to_jsonb(p_value::date);
    elsif v_type = 'timestamp with time zone' then
      v_value := to_jsonb(p_value::timestamptz);
    else
      v_other := v_type::regtype;
      execute format('select to_jsonb($1::%s)', v_other) into v_value using p_value;
    end if;
  exception when data_exception then
    v_value := to_jsonb(p_value);
  end;
  return v_value;
end
$function$;
comment on function gdpr_internal.value_as_json(text, text) is
  'An opened value as JSON, as to_jsonb() writes the type that the column had; text where it does not fit.';

create or replace function gdpr_internal.opened_rows(
  p_subject bigint, p_tables smallint[], p_portable boolean, p_part oid default null, p_places tid[] default null
)
returns table (table_id smallint, content jsonb)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_before text := gdpr_internal.before_worker();
  v_tables smallint[];
  v_owners bigint[];
  v_rows jsonb[];
  v_keys gdpr_internal.keyring;
begin
  select array_agg(r.table_id), array_agg(r.owner_id), array_agg(r.content) into v_tables, v_owners, v_rows
  from gdpr_generated.access_rows(p_subject, p_tables, p_part, p_places) as r;
  perform gdpr_internal.after_worker(v_before);
  if exists (select from gdpr_internal.protected_column as c where c.table_id = any (v_tables) and c.encrypt <> 'no') then
    v_keys := gdpr_internal.keyring();
  end if;
  return query
  select r.table_id, (r.content || coalesce(o.opened, '{}')) - h.hidden
  from unnest(v_tables, v_owners, v_rows) with ordinality as r (table_id, owner_id, content, n)
  -- a joint row is under the key of the person to whom it belongs
  join (
    select x.owner_id, gdpr_internal.data_key(v_keys, x.owner_id) as data_key
    from (select distinct u.owner_id from unnest(v_owners) as u (owner_id)) as x
    offset 0
  ) as k on k.owner_id = r.owner_id
  join (
    select t.id, gdpr_internal.hidden_columns(t.id, p_portable) as hidden
    from gdpr_internal.protected_table as t where t.id = any (v_tables)
    offset 0
  ) as h on h.id = r.table_id
  cross join lateral (
    select jsonb_object_agg(
      c.column_name,
      gdpr_internal.value_as_json(c.original_type, gdpr_internal.open_value(k.data_key, r.owner_id, c.id, r.content ->> c.column_name))
    ) as opened
    from gdpr_internal.protected_column as c
    where c.table_id = r.table_id and c.encrypt <> 'no' and r.content ->> c.column_name is not null
      and c.column_name::text <> all (h.hidden)
  ) as o
  order by r.n;
end
$function$;
comment on function gdpr_internal.opened_rows(bigint, smallint[], boolean, oid, tid[]) is
  'A person''s rows in plaintext and their original types, in the order of their primary keys: those of some tables, or those at some places of one; columns that are not the person''s to see are left out. Errors: PR402 key locked, PR404 altered value, PR410 the person''s key is gone.';

create or replace function gdpr_internal.opened_sources(p_subject bigint, p_ids bigint[] default null)
returns setof jsonb
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if exists (select from gdpr_internal.source as s where s.subject_id = p_subject and s.details is not null) then
    v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  end if;
  return query
  select jsonb_strip_nulls(jsonb_build_object(
    'at', gdpr_internal.utc(s.recorded_at), 'table', t.relation::text, 'event', s.event, 'kind', s.kind,
    -- who typed it in is data about the member of staff
    'details', case when v_key is not null then gdpr_internal.open_value(v_key, p_subject, 0, s.details)::jsonb - 'user' end
  ))
  from (
    select x.* from gdpr_internal.source as x where p_ids is null and x.subject_id = p_subject
    union all
    select x.* from gdpr_internal.source as x where x.id = any (p_ids) and x.subject_id = p_subject
  ) as s
  left join gdpr_internal.protected_table as t on t.id = s.table_id
  order by s.id;
end
$function$;
comment on function gdpr_internal.opened_sources(bigint, bigint[]) is
  'Where a person''s data came from: when, which table, created or changed, kind and details. Art. 15(1)(g).';

create or replace function gdpr_internal.opened_history(
  p_subject bigint, p_from timestamptz default '-infinity', p_from_id bigint default 0, p_to timestamptz default 'infinity',
  p_to_id bigint default 0
)
returns setof jsonb
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if exists (
    select from gdpr_internal.audit_record as a
    where a.subject_id = p_subject and a.at between p_from and p_to and a.table_id is not null and a.payload is not null
  ) then
    v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  end if;
  return query
  select jsonb_strip_nulls(jsonb_build_object(
    'at', gdpr_internal.utc(a.at), 'operation', a.operation, 'table', t.relation::text,
    'purpose', coalesce(p.name, case when a.table_id is null then a.payload::jsonb ->> 'purpose' end),
    -- which system, not which member of staff (CJEU, C-579/21)
    'by', (
      select b.role_name from gdpr_internal.role_binding as b
      where b.role_name = a.role or pg_has_role(to_regrole(quote_ident(a.role))::oid, to_regrole(quote_ident(b.role_name))::oid, 'usage')
      order by b.role_name <> a.role, b.role_name
      limit 1
    ),
    'changed', to_jsonb(c.changed)
  ))
  || case when c.old is null then '{}' else jsonb_build_object('before', c.old) end
  from gdpr_internal.audit_record as a
  left join gdpr_internal.protected_table as t on t.id = a.table_id
  left join gdpr_internal.purpose as p on p.id = a.purpose_id
  cross join lateral (
    select
      (select array_agg(n) from unnest(gdpr_internal.present_names(a.table_id, a.at, a.changed)) as n where n <> all (x.hidden)) as changed,
      case when v_key is not null and a.table_id is not null and a.payload is not null
        then gdpr_internal.present_row(a.table_id, a.at, gdpr_internal.open_payload(v_key, p_subject, a.payload)) - x.hidden
      end as old
    from (values (gdpr_internal.about_columns(t.definition) || gdpr_internal.withheld_names(t.id) || 'gdpr_subject_id'::text)) as x (hidden)
    offset 0
  ) as c
  where a.subject_id = p_subject and (a.at, a.id) >= (p_from, p_from_id) and (a.at, a.id) <= (p_to, p_to_id)
  order by a.at, a.id;
end
$function$;
comment on function gdpr_internal.opened_history(bigint, timestamptz, bigint, timestamptz, bigint) is
  'What happened to a person''s data: when, what, in which table, for which purpose, by which role of the policy, which columns changed and what they held before. Members of staff are not named.';
