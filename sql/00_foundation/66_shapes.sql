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

create or replace function gdpr_internal.follow_hint(p_relation regclass)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select format('select * from gdpr.reshape(%L, array[]::text[]);', p_relation);
end;
comment on function gdpr_internal.follow_hint(regclass) is 'The statement that follows what plain DDL did to a table.';

create or replace function gdpr_internal.where_column_went(p_relation regclass, p_name text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(
    (
      select case
        when u.now is null then format('; it was dropped: %s follows that, then take it out of the policy', gdpr_internal.follow_hint(p_relation))
        else format('; it is called %s now: %s follows that, then name it so in the policy', to_json(u.now), gdpr_internal.follow_hint(p_relation))
      end
      from gdpr_internal.protected_table as t
      cross join lateral gdpr_internal.unfollowed_names(t.id) as u
      where t.relation = p_relation and t.unprotected_at is null and u.was = p_name
      limit 1
    ),
    (
      select case when f.became is null then format('; it was dropped on %s: take it out of the policy', to_char(f.until, 'YYYY-MM-DD'))
        else format('; it is called %s now: name it so in the policy', to_json(gdpr_internal.present_name(t.id, '-infinity', p_name))) end
      from gdpr_internal.protected_table as t
      join gdpr_internal.former_name as f on f.table_id = t.id and f.name = p_name and f.position is not null
      where t.relation = p_relation and t.unprotected_at is null
      order by f.until
      limit 1
    ), ''
  );
end;
comment on function gdpr_internal.where_column_went(regclass, text) is
  'What to say of a column that a policy names and a protected table no longer has; nothing if it never had it.';

create or replace function gdpr_internal.where_table_went(p_name text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select coalesce(
    (
      select format('; it is called %s now: %sname it so in the policy', to_json(t.relation::text),
        case when t.known_as <> t.relation::text then gdpr_internal.follow_hint(t.relation) || ' follows that, then ' else '' end)
      from gdpr_internal.protected_table as t
      where t.unprotected_at is null and (
        replace(t.known_as, '"', '') in (replace(p_name, '"', ''), 'public.' || replace(p_name, '"', ''))
        or exists (
          select from gdpr_internal.former_name as f
          where f.table_id = t.id and f.position is null
            and replace(f.name, '"', '') in (replace(p_name, '"', ''), 'public.' || replace(p_name, '"', ''))
        )
      )
      order by t.id desc
      limit 1
    ), ''
  );
end;
comment on function gdpr_internal.where_table_went(text) is
  'What to say of a table that a policy names and that has another name now; nothing if there never was one.';
