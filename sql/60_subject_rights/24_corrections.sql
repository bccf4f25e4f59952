-- [code] A list of changes, read and judged: which rows, whose, what stands there, what cannot be done and why.
-- GDPR Art. 16, Art. 5(1)(d). Called by: proposing, approving, rectifying, comparing. Problems never hold a value.

set local role gdpr_keyholder;

create or replace function gdpr_internal.open_values(p_subjects bigint[], p_columns integer[], p_values text[])
returns text[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea;
begin
  if exists (select from unnest(p_values) as v where starts_with(v, 'gdpr1:')) then
    v_kek := (gdpr_internal.keyring()).kek;
  end if;
  return (
    select coalesce(array_agg(
      case when u.column_id is null then u.value else gdpr_internal.open_value(k.data_key, u.subject_id, u.column_id, u.value) end order by u.n
    ), '{}')
    from unnest(p_subjects, p_columns, p_values) with ordinality as u (subject_id, column_id, value, n)
    left join lateral (
      select gdpr_internal.unwrap_key(v_kek, int8send(x.subject_id), x.wrapped) as data_key
      from gdpr_internal.subject_key as x
      where x.subject_id = u.subject_id and u.column_id is not null and starts_with(u.value, 'gdpr1:')
      offset 0
    ) as k on true
  );
end
$function$;
comment on function gdpr_internal.open_values(bigint[], integer[], text[]) is
  'Stored values in plaintext, place by place (p_columns null: not encrypted). Errors: PR402 key locked, PR404, PR410.';

create or replace function gdpr_internal.digests_of(p_kinds text[], p_values text[])
returns table (n bigint, digest uuid, bare uuid)
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
  return query
  select
    c.n, gdpr_internal.keyed_digest(v_keys.digest_key, c.kind, c.form),
    gdpr_internal.keyed_digest(v_keys.digest_key, c.kind, gdpr_internal.bare_form(c.kind, c.form))
  from (
    select u.n, u.kind, gdpr_internal.canonical(u.kind, u.value) as form
    from unnest(p_kinds, p_values) with ordinality as u (kind, value, n)
    offset 0
  ) as c
  where c.form is not null;
end
$function$;
comment on function gdpr_internal.digests_of(text[], text[]) is 'The digests of identifiers and of their bare forms, by their places; values without content have none.';

set local role gdpr_owner;

create or replace function gdpr_internal.rectifiable_columns(p_table smallint)
returns table (
  column_name name, type text, own_type text, stored_expression text, column_id integer, encrypted boolean, identifier text,
  special boolean, needed boolean, refusal text
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
begin
  return query
  select
    a.attname,
    d.type,
    -- a type of PostgreSQL's own can be named by anybody
    case when a.atttypid < 16384 then d.type end,
    case when d.encrypted then format('t.%I', a.attname) else gdpr_internal.text_expression(format('t.%I', a.attname), d.type) end,
    case when d.encrypted then c.id end,
    d.encrypted,
    c.identifier,
    c.special is not null,
    a.attnotnull,
    case
      when a.attname ~ '^gdpr_' and gdpr_internal.is_control_column(p_table, a.attname) then 'is kept by the database'
      when a.attgenerated <> '' or a.attidentity <> '' then 'is generated'
      when exists (select from pg_index as x where x.indrelid = a.attrelid and x.indisprimary and a.attnum = any (x.indkey))
        then 'is part of the primary key'
      when exists (select from pg_constraint as k where k.conrelid = a.attrelid and k.contype = 'f' and a.attnum = any (k.conkey))
        then 'is part of a foreign key'
    end
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
  left join gdpr_internal.protected_column as c on c.table_id = t.id and c.column_name = a.attname
  cross join lateral (
    select
      coalesce(c.encrypt <> 'no', false) as encrypted,
      case when c.encrypt <> 'no' then c.original_type else format_type(a.atttypid, a.atttypmod) end as type
  ) as d
  where t.id = p_table
  order by a.attnum;
end
$function$;
comment on function gdpr_internal.rectifiable_columns(smallint) is
  'The columns of a protected table for those who correct values. own_type: where it is a type of PostgreSQL''s own; stored_expression: the value of row t as text; column_id: of its ciphertext; refusal: why the column cannot be corrected.';

create or replace function gdpr_internal.read_corrections(p_changes jsonb)
returns gdpr_internal.correction[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if jsonb_typeof(p_changes) is distinct from 'array' then
    perform gdpr_internal.refuse('invalid_argument', 'changes are a list of {"table", "key", "column", "value"} or {"table", "key", "column", "statement"}');
  end if;
  return (
    with change as (
      select e.n, e.value as change, jsonb_typeof(e.value) = 'object' as is_object
      from jsonb_array_elements(p_changes) with ordinality as e (value, n)
    ), named as materialized (
      select t.id, x.name, t.relation
      from (select distinct c.change ->> 'table' as name from change as c where c.is_object and c.change ? 'table') as x
      join gdpr_internal.protected_table as t on t.relation = gdpr_internal.find_table(x.name) and t.unprotected_at is null
    ), allowed as materialized (
      select x.id, c.* from named as x cross join lateral gdpr_internal.rectifiable_columns(x.id) as c
    )
    select coalesce(array_agg(row(
      c.n, t.id, c.change ->> 'key', c.change ->> 'column',
      -- an array or a document is given as such, or as text
      c.change ->> 'value', c.change ->> 'was', c.change ? 'was', c.change ->> 'statement', null, null,
      case
        when not c.is_object then 'is no object'
        when c.change - array['table', 'key', 'column', 'value', 'was', 'statement'] <> '{}' then 'has other settings than table, key, column, value, was, statement'
        when (c.change ? 'value') = (c.change ? 'statement') then 'needs either a value or a statement'
        when c.change ? 'statement' and coalesce(btrim(c.change ->> 'statement'), '') = '' then 'needs words in its statement'
        when c.change ? 'table' and t.id is null then 'names a table that is not protected'
        when (c.change ? 'value' or c.change ?| array['table', 'key', 'column'])
          and '' = any (array[coalesce(c.change ->> 'table', ''), coalesce(c.change ->> 'key', ''), coalesce(c.change ->> 'column', '')])
          then 'needs a table, the primary key of a row and a column'
        when c.change ? 'column' and a.column_name is null then 'names a column that the table does not have'
        when c.change ? 'value' and a.refusal is not null then format('column %I %s', a.column_name, a.refusal)
      end
    )::gdpr_internal.correction order by c.n), '{}')
    from change as c
    left join named as t on c.is_object and t.name = c.change ->> 'table'
    left join allowed as a on a.id = t.id and a.column_name = c.change ->> 'column'
  );
end
$function$;
comment on function gdpr_internal.read_corrections(jsonb) is 'A list of changes as it was given, with what is wrong with it at first sight. Error: PR004 no list.';

create or replace function gdpr_internal.find_rows(p_corrections gdpr_internal.correction[], p_subject bigint, p_lock boolean)
returns gdpr_internal.correction[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_done gdpr_internal.correction[] := array(
    select c from unnest(p_corrections) as c where c.problem is not null or c.column_name is null or c.row_key is null
  );
  v_table smallint;
  v_asked gdpr_internal.correction[];
  v_found gdpr_internal.correction[];
  v_before text;
begin
  for v_table in
    select distinct c.table_id from unnest(p_corrections) as c where c.problem is null and c.column_name is not null and c.row_key is not null
  loop
    v_asked := array(
      select c from unnest(p_corrections) as c where c.table_id = v_table and c.problem is null and c.column_name is not null and c.row_key is not null
    );
    v_before := gdpr_internal.before_worker();
    v_found := array(
      select row(
        a.n, a.table_id, coalesce(r.row_key, a.row_key), a.column_name, r.value, a.was, a.expected, a.statement, r.subject_id, r.stored,
        case
          -- the same words whether there is no such row or it is somebody else's
          when r.subject_id is null or r.subject_id <> p_subject then 'has the key of no row' || case when p_subject is null then '' else ' of this person' end
          when r.wrong then 'has a value that the column cannot hold'
        end
      )::gdpr_internal.correction
      from gdpr_generated.read_cells(
        v_table, array(select x.row_key from unnest(v_asked) as x), array(select x.column_name from unnest(v_asked) as x),
        array(select x.value from unnest(v_asked) as x), p_lock
      ) as r
      join unnest(v_asked) with ordinality as a on a.ordinality = r.n
    );
    perform gdpr_internal.after_worker(v_before);
    v_done := v_done || gdpr_internal.open_corrections(v_table, v_found);
  end loop;
  return v_done;
end
$function$;
comment on function gdpr_internal.find_rows(gdpr_internal.correction[], bigint, boolean) is
  'Whose the rows are and what stands in them; values in the form in which the column would hold them. p_subject: every row has to be this person''s. p_lock: no other session changes them until the transaction ends.';

create or replace function gdpr_internal.open_corrections(p_table smallint, p_corrections gdpr_internal.correction[])
returns gdpr_internal.correction[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_open text[];
begin
  v_open := gdpr_internal.open_values(
    array(select case when c.problem is null then c.subject_id end from unnest(p_corrections) with ordinality as c order by c.ordinality),
    array(
      select x.column_id from unnest(p_corrections) with ordinality as c
      join gdpr_internal.rectifiable_columns(p_table) as x on x.column_name = c.column_name
      order by c.ordinality
    ),
    array(select case when c.problem is null then c.old end from unnest(p_corrections) with ordinality as c order by c.ordinality)
  );
  return array(
    select row(c.n, c.table_id, c.row_key, c.column_name, c.value, c.was, c.expected, c.statement, c.subject_id, o.value, c.problem)::gdpr_internal.correction
    from rows from (unnest(p_corrections), unnest(v_open)) as c (
      n, table_id, row_key, column_name, value, was, expected, statement, subject_id, old, problem, opened
    )
    cross join lateral (select c.opened as value) as o
  );
end
$function$;
comment on function gdpr_internal.open_corrections(smallint, gdpr_internal.correction[]) is 'What stands in the rows of one table, decrypted where it is ciphertext.';

create or replace function gdpr_internal.linked_columns()
returns table (table_id smallint, column_name name, link text, kind text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  with known as (
    select c.table_id, c.column_name, c.identifier, c.same_as, format('%s.%I', t.relation, c.column_name) as name
    from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    where t.unprotected_at is null
  )
  select k.table_id, k.column_name, o.name, o.identifier
  from known as k
  join known as o on o.name = coalesce(k.same_as, k.name)
  where k.same_as is not null or exists (select from known as x where x.same_as = k.name);
end;
comment on function gdpr_internal.linked_columns() is 'Columns that hold copies of one value (same_as), and the column they are copies of; link names the latter for all of them, kind is what identifier it is.';

create or replace function gdpr_internal.with_copies(p_corrections gdpr_internal.correction[], p_lock boolean)
returns gdpr_internal.correction[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_origins gdpr_internal.correction[] := array(
    select c from unnest(p_corrections) as c
    join gdpr_internal.linked_columns() as l on l.table_id = c.table_id and l.column_name = c.column_name
    where c.problem is null and c.old is not null and c.value is distinct from c.old
  );
  v_copy record;
  v_before text;
  v_found gdpr_internal.correction[];
  v_copies gdpr_internal.correction[] := '{}';
begin
  for v_copy in
    select l.table_id, l.column_name, l.link, l.kind, array_agg(distinct c.subject_id) as subjects
    from unnest(v_origins) as c
    join gdpr_internal.linked_columns() as o on o.table_id = c.table_id and o.column_name = c.column_name
    join gdpr_internal.linked_columns() as l on l.link = o.link
    group by l.table_id, l.column_name, l.link, l.kind
  loop
    v_before := gdpr_internal.before_worker();
    v_found := array(
      select row(null, v_copy.table_id, r.row_key, v_copy.column_name, null, null, false, null, r.subject_id, r.stored, null)::gdpr_internal.correction
      from gdpr_generated.cells_of(v_copy.table_id, v_copy.subjects, v_copy.column_name, p_lock) as r
    );
    perform gdpr_internal.after_worker(v_before);
    -- a copy that says something else is another fact, and stays
    v_copies := v_copies || array(
      select distinct on (f.row_key)
        row(c.n, f.table_id, f.row_key, f.column_name, c.value, null, false, null, f.subject_id, f.old, null)::gdpr_internal.correction
      from unnest(gdpr_internal.open_corrections(v_copy.table_id, v_found)) as f
      join unnest(v_origins) as c on c.subject_id = f.subject_id
        and (c.old = f.old or gdpr_internal.canonical(v_copy.kind, c.old) = gdpr_internal.canonical(v_copy.kind, f.old))
      join gdpr_internal.linked_columns() as o on o.table_id = c.table_id and o.column_name = c.column_name and o.link = v_copy.link
      where not exists (
        select from unnest(p_corrections) as x
        where (x.table_id, x.column_name, x.row_key) = (f.table_id, f.column_name, f.row_key) and x.statement is null
      )
      order by f.row_key, c.n
    );
  end loop;
  return p_corrections || v_copies;
end
$function$;
comment on function gdpr_internal.with_copies(gdpr_internal.correction[], boolean) is
  'Adds the copies (same_as) of what changes, in all rows of the same person that hold the value as it was; copies that hold another value, or none, are left alone. Art. 16.';
