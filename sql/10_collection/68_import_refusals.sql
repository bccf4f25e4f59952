-- [code] Lines of files that were refused: kept by their numbers until they are taken, or until it was long ago.
-- GDPR Art. 5(1)(d), Art. 5(1)(e). Called by: gdpr.import_rows(); gdpr_admin, the nightly job.
-- Nothing of a row is kept, not even a digest: to try a line again, its file has to be given again.

set local role gdpr_owner;

create or replace function gdpr_internal.refused_before(p_import bigint, p_first bigint, p_last bigint)
returns setof gdpr_internal.import_refusal
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select r.*
  from gdpr_internal.import_refusal as r
  -- notes do not overlap: the last one that begins before may reach in, none before it
  where r.import_id = p_import and r.last_row >= p_first and r.first_row between coalesce(
    (select max(b.first_row) from gdpr_internal.import_refusal as b where b.import_id = p_import and b.first_row <= p_first), p_first
  ) and p_last;
end;
comment on function gdpr_internal.refused_before(bigint, bigint, bigint) is 'The notes of refused lines that have to do with these rows of a file.';

create or replace function gdpr_internal.note_refusals(p_import bigint, p_tried bigint[], p_rows bigint[], p_lines bigint[], p_problems text[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  with before as (
    delete from gdpr_internal.import_refusal as r
    using gdpr_internal.refused_before(
      p_import, (select min(t.n) from unnest(p_tried) as t (n)), (select max(t.n) from unnest(p_tried) as t (n))
    ) as b
    where r.import_id = b.import_id and r.first_row = b.first_row
    returning r.*
  ),
  refused as (
    select b.first_row + g.n as row_number, b.first_line + g.n as line, b.problem, b.noted_at
    from before as b
    cross join lateral generate_series(0, b.last_row - b.first_row) as g (n)
    where b.first_row + g.n <> all (p_tried)
    union all
    select n.row_number, n.line, n.problem, statement_timestamp()
    from unnest(p_rows, p_lines, p_problems) as n (row_number, line, problem)
  ),
  neighbours as (
    select
      r.*,
      r.row_number - row_number() over (partition by r.problem, r.noted_at, r.line - r.row_number order by r.row_number) as island
    from refused as r
  )
  insert into gdpr_internal.import_refusal (import_id, first_row, last_row, first_line, problem, noted_at)
  select p_import, min(n.row_number), max(n.row_number), min(n.line), n.problem, n.noted_at
  from neighbours as n
  group by n.problem, n.noted_at, n.line - n.row_number, n.island;
end
$function$;
comment on function gdpr_internal.note_refusals(bigint, bigint[], bigint[], bigint[], text[]) is
  'Of rows that were tried: notes of those that were refused, and none any more of the others.';

create or replace function gdpr_internal.comes_twice(p_table regclass, p_rows jsonb)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  with unique_key as materialized (
    select array_agg(coalesce(c.column_name, a.attname)::text) as columns
    from pg_index as x
    cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
    join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
    -- an encrypted column is unique by its digest
    left join gdpr_internal.protected_column as c
      on c.table_id = gdpr_internal.table_id(p_table) and a.attname = 'gdpr_' || c.column_name || '_digest'
    where x.indrelid = p_table and x.indisunique and x.indisvalid and x.indpred is null and x.indexprs is null
      and k.n <= x.indnkeyatts
    group by x.indexrelid
  )
  select exists (
    select from jsonb_array_elements(p_rows) as e (content)
    where jsonb_typeof(e.content) = 'object' and not exists (
      select from unique_key as k
      where not exists (select from unnest(k.columns) as n (name) where e.content ->> n.name is null)
    )
  );
end;
comment on function gdpr_internal.comes_twice(regclass, jsonb) is
  'Whether some of these rows could be taken twice unnoticed: they give no unique key of the table in whole.';

create or replace view gdpr.import_refusal as
select t.relation as table_name, i.file, i.run, r.first_row + g.n as row_number, r.first_line + g.n as line, r.problem, r.noted_at
from gdpr_internal.import_refusal as r
join gdpr_internal.import as i on i.id = r.import_id
join gdpr_internal.protected_table as t on t.id = i.table_id
cross join lateral generate_series(0, r.last_row - r.first_row) as g (n)
-- with the file at hand it tells of persons: for who brings them in, and for officers
where has_any_column_privilege(t.relation, 'insert')
  or pg_has_role('gdpr_admin', 'usage') or pg_has_role('gdpr_dpo', 'usage') or pg_has_role('gdpr_auditor', 'usage');
comment on view gdpr.import_refusal is
  'Lines of imported files that were refused and not taken since: row_number among the records of the file, line there, and problem (SQLSTATE, constraint, column; no values). Shown to whoever may insert into the table, to officers and administrators; for half a year; gdpr.import goes on counting them. Art. 5(1)(d).';

create or replace function gdpr.tidy_imports(p_limit integer default 10000)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_deleted integer;
begin
  with past as (
    select r.import_id, r.first_row from gdpr_internal.import_refusal as r
    where r.noted_at < statement_timestamp() - interval '6 months'
    limit p_limit
    for update skip locked
  )
  delete from gdpr_internal.import_refusal as r using past as p where r.import_id = p.import_id and r.first_row = p.first_row;
  get diagnostics v_deleted = row_count;
  return v_deleted;
end
$function$;
comment on function gdpr.tidy_imports(integer) is
  'Deletes up to p_limit notes of lines that imports refused more than half a year ago, and returns how many; gdpr.import keeps their number. Art. 5(1)(e).';
