-- [code] What the columns of protected tables are called, and were called when a record was written.
-- GDPR Art. 5(2), Art. 25. Called by: the steps of apply() and end_reshape(), readers of audit records and holds, doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.know_columns(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_first boolean := not exists (select from gdpr_internal.known_column as k where k.table_id = p_table);
  v_shown name[] := array(select k.column_name from gdpr_internal.known_column as k where k.table_id = p_table and not k.hidden);
begin
  delete from gdpr_internal.known_column as k where k.table_id = p_table;
  insert into gdpr_internal.known_column (table_id, position, column_name, hidden)
  select
    p_table, a.attnum, a.attname,
    not v_first and a.attname <> all (v_shown) and not t.definition -> 'columns' ? a.attname::text
      and not gdpr_internal.is_control_column(p_table, a.attname)
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
  where t.id = p_table;
  update gdpr_internal.protected_table as t set known_as = t.relation::text where t.id = p_table;
end
$function$;
comment on function gdpr_internal.know_columns(smallint) is
  'Remembers the columns of a table by name and position. Those that were not known before, and that the policy does not classify, are hidden from every view; at the first time none is.';

create or replace function gdpr_internal.is_hidden_column(p_table smallint, p_column name)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (
    select from gdpr_internal.known_column as k where k.table_id = p_table and k.column_name = p_column and k.hidden
  );
end;
comment on function gdpr_internal.is_hidden_column(smallint, name) is
  'Whether a column came after its table was protected and waits to be classified: no view shows it.';

create or replace function gdpr_internal.changed_names(p_table smallint)
returns table ("position" smallint, was name, now name)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select k.position, k.column_name, a.attname
  from gdpr_internal.known_column as k
  join gdpr_internal.protected_table as t on t.id = k.table_id
  left join pg_attribute as a on a.attrelid = t.relation and a.attnum = k.position and not a.attisdropped
  where k.table_id = p_table and a.attname is distinct from k.column_name;
end;
comment on function gdpr_internal.changed_names(smallint) is
  'Columns that are no longer called what they were (now), or that are gone (now is null).';

create or replace function gdpr_internal.unfollowed_names(p_table smallint)
returns table (was text, now text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- a restored table has other positions, but all the names: only a name that is gone tells of a change
  select t.known_as, t.relation::text
  from gdpr_internal.protected_table as t
  where t.id = p_table and t.known_as <> t.relation::text
  union all
  select c.was::text, c.now::text
  from gdpr_internal.changed_names(p_table) as c
  join gdpr_internal.protected_table as t on t.id = p_table
  where not exists (
    select from pg_attribute as a where a.attrelid = t.relation and a.attname = c.was and a.attnum > 0 and not a.attisdropped
  );
end;
comment on function gdpr_internal.unfollowed_names(smallint) is
  'Names of a table and its columns that somebody changed, or dropped (now is null), past gdpr.reshape().';

create or replace view gdpr_internal.any_column as
select c.id, c.table_id, c.original_type, c.special from gdpr_internal.protected_column as c
union all
select f.column_id, f.table_id, f.original_type, f.special from gdpr_internal.former_name as f where f.column_id is not null;
comment on view gdpr_internal.any_column is 'Classified columns by the id in their ciphertext, those that were dropped too.';

create or replace function gdpr_internal.present_name(p_table smallint, p_at timestamptz, p_name text)
returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_name text := p_name;
  v_at timestamptz := p_at;
  v_former gdpr_internal.former_name;
begin
  loop
    select f.* into v_former
    from gdpr_internal.former_name as f
    where f.table_id = p_table and f.name = v_name and f.position is not null and f.until > v_at
    order by f.until
    limit 1;
    exit when v_former.id is null;
    if v_former.became is null then
      -- another column may have the name by now
      return gdpr_internal.dropped_name(v_name, v_former.until);
    end if;
    v_name := v_former.became;
    v_at := v_former.until;
  end loop;
  return v_name;
end
$function$;
comment on function gdpr_internal.present_name(smallint, timestamptz, text) is
  'What a column that had this name then is called now; with the day in brackets if it was dropped since.';

create or replace function gdpr_internal.dropped_name(p_name text, p_until timestamptz)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
begin atomic
  select format('%s (dropped %s)', p_name, to_char(p_until, 'YYYY-MM-DD'));
end;
comment on function gdpr_internal.dropped_name(text, timestamptz) is 'What a dropped column is called in what was recorded of it.';

create or replace function gdpr_internal.present_names(p_table smallint, p_at timestamptz, p_names text[])
returns text[]
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when p_names is null or not exists (select from gdpr_internal.former_name as f where f.table_id = p_table) then p_names
    else array(
      select gdpr_internal.present_name(p_table, p_at, n.name) from unnest(p_names) with ordinality as n (name, place) order by n.place
    )
  end;
end;
comment on function gdpr_internal.present_names(smallint, timestamptz, text[]) is
  'What columns that had these names then are called now.';

create or replace function gdpr_internal.present_row(p_table smallint, p_at timestamptz, p_row jsonb)
returns jsonb
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when p_row is null or not exists (select from gdpr_internal.former_name as f where f.table_id = p_table) then p_row
    else (
      select coalesce(jsonb_object_agg(gdpr_internal.present_name(p_table, p_at, e.key), e.value), '{}') from jsonb_each(p_row) as e
    )
  end;
end;
comment on function gdpr_internal.present_row(smallint, timestamptz, jsonb) is
  'A row as it was recorded then, under the names that its columns have now.';

create or replace function gdpr_internal.withheld_names(p_table smallint)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(gdpr_internal.dropped_name(f.name, f.until)), '{}')
  from gdpr_internal.former_name as f
  where f.table_id = p_table and f.withheld;
end;
comment on function gdpr_internal.withheld_names(smallint) is
  'Dropped columns that were about somebody else than the row''s person, as gdpr_internal.present_row() calls them.';

create or replace function gdpr_internal.missing_controls(p_relation regclass)
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with relations as (
    select t.id, t.relation, t.mode, t.parent_id is not null as child, r.r as part
    from gdpr_internal.protected_table as t
    cross join lateral gdpr_internal.relation_tree(t.relation) as r (r)
    where t.relation = p_relation and t.unprotected_at is null
  )
  select 'error', 'row_security', r.part::text,
    case when not c.relrowsecurity then 'row security is off' else 'row security is not forced: the owner sees every row' end,
    'Apply the policy again: gdprdb policy apply.'
  from relations as r join pg_class as c on c.oid = r.part
  where r.mode = 'enforce' and not (c.relrowsecurity and c.relforcerowsecurity)
  union all
  select 'error', 'policies', r.part::text, 'a row policy of gdprdb is missing', 'Apply the policy again: gdprdb policy apply.'
  from relations as r
  where r.mode = 'enforce' and (
    select count(*) from pg_policy as p where p.polrelid = r.part and p.polname in ('gdpr_40_owners', 'gdpr_40_base', 'gdpr_40_gate')
  ) < 3
  union all
  select 'error', 'triggers', r.part::text, format('trigger %s is %s', n.name, case when g.oid is null then 'missing' else 'disabled' end),
    'Apply the policy again: gdprdb policy apply.'
  from relations as r
  cross join lateral (
    select n.name
    from unnest(
      array['zzz_gdpr_05_guard', 'zzz_gdpr_40_protect', 'zzz_gdpr_50_audit', 'zzz_gdpr_40_truncate']
      || case when r.child then array['zzz_gdpr_10_subject', 'zzz_gdpr_10_subject_move'] end
      || case when to_regprocedure(format('gdpr_generated.%I()', 'change_' || r.id)) is not null then array['zzz_gdpr_40_change'] end
    ) as n (name)
  ) as n
  left join pg_trigger as g on g.tgrelid = r.part and g.tgname = n.name
  where g.oid is null or g.tgenabled <> 'A';
end;
comment on function gdpr_internal.missing_controls(regclass) is
  'Findings about the controls of a table and its partitions: row security, policies, triggers.';
