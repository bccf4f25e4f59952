-- [code] Import: many rows at once, each refused for itself, and none taken twice.
-- GDPR Art. 5(1)(d), Art. 14(2)(f). Called by: applications and importers, with their own rights in the table.
-- COPY FROM is refused by PostgreSQL where row security is on. Rows come as a parameter: nothing is staged that could be left behind.

set local role gdpr_owner;

create or replace function gdpr_internal.import_code(p_table regclass, p_columns text[])
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint := gdpr_internal.table_id(p_table);
  v_code text;
begin
  if exists (
    select from unnest(p_columns) as n (name)
    where not exists (select from gdpr_generated.registered_columns(v_table) as c where c.column_name = n.name)
  ) then
    -- what is no column may be a value: a file without a header
    perform gdpr_internal.refuse('invalid_argument', (
      select format(
        '%s takes the columns %s, and %s of the fields given are none of them; gdprdb import: --map FIELD=COLUMN names its column, --map FIELD= leaves it out',
        p_table, string_agg(quote_ident(c.column_name), ', '), cardinality(p_columns) - count(*) filter (where c.column_name::text = any (p_columns))
      )
      from gdpr_generated.registered_columns(v_table) as c
    ));
  end if;
  select format(
    'insert into %s (%s) select %s from unnest($1) with ordinality as e (content, n) cross join lateral jsonb_to_record(e.content) as r (%s) order by e.n',
    p_table,
    string_agg(quote_ident(c.column_name), ', '),
    string_agg(
      case when p.encrypt <> 'no' then gdpr_internal.text_expression(format('r.%I', c.column_name), c.type) else format('r.%I', c.column_name) end, ', '
    ),
    string_agg(format('%I %s', c.column_name, c.type), ', ')
  )
  into v_code
  from gdpr_generated.registered_columns(v_table) as c
  left join gdpr_internal.protected_column as p on p.table_id = v_table and p.column_name = c.column_name
  where c.column_name = any (p_columns);
  return v_code;
end
$function$;
comment on function gdpr_internal.import_code(regclass, text[]) is
  'The INSERT of rows, $1 as jsonb[], with these columns. Errors: PR002, PR004 a column that the table does not have, or that nobody may give.';

create or replace function gdpr_internal.failed_column(p_table regclass, p_row jsonb)
returns name
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_column record;
begin
  for v_column in
    select c.column_name, c.type
    from gdpr_generated.registered_columns(gdpr_internal.table_id(p_table)) as c
    -- the input functions of other types are not ours to call
    where p_row ? c.column_name::text and to_regtype(c.type) < 16384
  loop
    begin
      execute format('select from jsonb_to_record($1) as r (%I %s)', v_column.column_name, v_column.type) using p_row;
    exception when data_exception then
      return v_column.column_name;
    end;
  end loop;
  return null;
end
$function$;
comment on function gdpr_internal.failed_column(regclass, jsonb) is 'The first column of a row whose value is none of its type, if one is to blame.';

create or replace function gdpr_internal.begin_import(
  p_table regclass, p_rows jsonb, p_source jsonb, p_first bigint, p_file text, p_lines bigint[], p_retry boolean, p_run integer, p_double boolean
)
returns table (code text, contents jsonb[], numbers bigint[], source_before text, import_id bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_table smallint := gdpr_internal.table_id(p_table);
  v_source jsonb := '{"kind": "import"}';
  v_done bigint := 0;
  v_last bigint;
  v_before integer;
  v_run integer;
  v_taken bigint;
  v_retried bigint[];
begin
  if jsonb_typeof(p_rows) is distinct from 'array' or jsonb_typeof(p_source) is distinct from 'object'
    or exists (
      select from jsonb_array_elements(case jsonb_typeof(p_rows) when 'array' then p_rows else '[]' end) as e (content)
      where jsonb_typeof(e.content) not in ('object', 'null') or e.content = '{}'
    )
    or p_first is null or p_first < 1 or p_file !~ '^[0-9a-f]{32,128}$'
    or cardinality(p_lines) <> jsonb_array_length(case jsonb_typeof(p_rows) when 'array' then p_rows else '[]' end)
    or num_nulls(variadic p_lines) > 0 or p_file is null and (p_retry or p_run is not null)
  then
    perform gdpr_internal.refuse(
      'invalid_argument', 'rows are a JSON array of {"column": value, ...}, a source is an object, the first row is 1 or more, a file is a digest in hexadecimal, there are as many lines as rows, and only a file can be tried or given again'
    );
  end if;
  v_last := p_first + jsonb_array_length(p_rows) - 1;
  v_source := p_source || v_source;
  perform gdpr_internal.check_source(v_source);
  if p_file is not null then
    select max(i.run) into v_before from gdpr_internal.import as i where i.table_id = v_table and i.file = p_file;
    if p_run not in (coalesce(v_before, 1), coalesce(v_before, 0) + 1) then
      perform gdpr_internal.refuse('invalid_argument', format('this file was given %s times: go on with that, or with the next', coalesce(v_before, 0)));
    end if;
    -- who imports the same file waits here until this transaction ends
    insert into gdpr_internal.import as i (table_id, file, run)
    values (v_table, p_file, coalesce(p_run, v_before, 1))
    on conflict (table_id, file, run) do update set continued_at = statement_timestamp(), login = session_user
    returning i.last_row, i.id, i.run into v_done, import_id, v_run;
    if v_done > 0 and p_first > v_done + 1 then
      perform gdpr_internal.refuse('invalid_argument', format('rows of this file are missing: go on with row %s', v_done + 1));
    end if;
    if p_retry then
      v_retried := array(
        select r.first_row + g.n
        from gdpr_internal.refused_before(import_id, p_first, v_last) as r
        cross join lateral generate_series(0, r.last_row - r.first_row) as g (n)
      );
    end if;
    v_taken := (select sum(i.taken) from gdpr_internal.import as i where i.table_id = v_table and i.file = p_file and i.run < v_run);
    if v_taken > 0 and p_double is not true and (v_last > v_done or v_retried <> '{}') and gdpr_internal.comes_twice(p_table, p_rows) then
      perform gdpr_internal.refuse('import_doubled', format('%s rows of this file were taken before', v_taken));
    end if;
  end if;
  source_before := coalesce(current_setting('gdpr.source', true), '');
  for contents, numbers, code in
    select array_agg(x.content order by x.n), array_agg(x.n order by x.n), case when x.columns is not null then gdpr_internal.import_code(p_table, x.columns) end
    from (
      select
        e.content, p_first + e.n - 1 as n,
        -- a column that a row leaves out gets its default
        case when jsonb_typeof(e.content) = 'object' then array(select k.name from jsonb_object_keys(e.content) as k (name)) end as columns
      from jsonb_array_elements(p_rows) with ordinality as e (content, n)
      where p_first + e.n - 1 > v_done or p_first + e.n - 1 = any (v_retried)
    ) as x
    group by x.columns
    order by min(x.n)
  loop
    perform set_config('gdpr.source', v_source::text, true);
    return next;
  end loop;
end
$function$;
comment on function gdpr_internal.begin_import(regclass, jsonb, jsonb, bigint, text, bigint[], boolean, integer, boolean) is
  'The INSERT for each set of columns that rows have (null for records that could not be read), these rows and their numbers in the file; those that are done are left out, but, with p_retry, not those that were refused. From here on, new data of this transaction comes from the import. Errors: PR002, PR004, PR110.';

create or replace function gdpr_internal.insert_rows(p_code text, p_contents jsonb[], p_numbers bigint[])
returns table (number bigint, content jsonb, state text, constraint_name text, column_name text)
language plpgsql
volatile
parallel unsafe
-- as the caller, and in the search path of the caller: the application's triggers run inside
security invoker
set debug_print_plan = off
as $function$
#variable_conflict use_column
declare
  v_from integer[] := array[1];
  v_to integer[] := array[pg_catalog.cardinality(p_numbers)];
  v_last integer;
  v_first integer;
  v_half integer;
begin
  if p_code is null then
    -- records that nobody could read
    return query
    select u.number, u.content, '22P02', '', ''
    from rows from (pg_catalog.unnest(p_numbers), pg_catalog.unnest(p_contents)) as u (number, content);
    return;
  end if;
  -- what refuses every row refuses none, too: such an error is not told row by row
  execute p_code using '{}'::pg_catalog.jsonb[];
  while v_from[1] is not null loop
    v_first := v_from[pg_catalog.cardinality(v_from)];
    v_last := v_to[pg_catalog.cardinality(v_to)];
    v_from := v_from[:pg_catalog.cardinality(v_from) - 1];
    v_to := v_to[:pg_catalog.cardinality(v_to) - 1];
    begin
      execute p_code using p_contents[v_first:v_last];
      continue;
    exception
    when others then
      -- of a row: its values (22), the table's constraints and triggers (23, P0001), and what holds of its person;
      -- anything else, as a locked key, would refuse rows that are in order
      if sqlstate !~ '^(22|23|P0001|PR[123]|PR60[123]|PR405)' then
        raise;
      end if;
      get stacked diagnostics state = returned_sqlstate, constraint_name = constraint_name, column_name = column_name;
    end;
    if v_first = v_last then
      number := p_numbers[v_first];
      content := p_contents[v_first];
      return next;
    else
      -- one bad row takes back a whole statement: halve it until the row is alone, the first half first
      v_half := (v_first + v_last) / 2;
      v_from := v_from || array[v_half + 1, v_first];
      v_to := v_to || array[v_last, v_half];
    end if;
  end loop;
end
$function$;
comment on function gdpr_internal.insert_rows(text, jsonb[], bigint[]) is
  'Inserts rows, and tells of each that the table refuses why. It calls nothing of gdpr_internal: applications have no way in there.';

create or replace function gdpr_internal.end_import(
  p_table regclass, p_import bigint, p_skip boolean, p_source_before text, p_last bigint, p_tried bigint[], p_numbers bigint[], p_lines bigint[],
  p_problems text[]
)
returns table (line bigint, problem text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_tried bigint := coalesce(cardinality(p_tried), 0);
  v_refused bigint := coalesce(cardinality(p_numbers), 0);
  v_retried bigint;
  v_run integer;
begin
  if v_refused > 0 and p_skip is not true then
    perform gdpr_internal.refuse('import_refused', (
      select string_agg(format('line %s: %s', u.line, u.problem), E'\n' order by u.line) filter (where u.n <= 20)
        || case when v_refused > 20 then format(E'\nand %s more', v_refused - 20) else '' end
      from (select x.*, row_number() over (order by x.line) as n from unnest(p_lines, p_problems) as x (line, problem)) as u
    ));
  end if;
  if v_tried > 0 then
    perform set_config('gdpr.source', p_source_before, true);
    if p_import is not null then
      select count(*) filter (where t.n <= i.last_row), i.run into v_retried, v_run
      from gdpr_internal.import as i
      cross join unnest(p_tried) as t (n)
      where i.id = p_import
      group by i.run;
      update gdpr_internal.import as i
      set last_row = greatest(i.last_row, p_last), taken = i.taken + v_tried - v_refused, refused = i.refused + v_refused - v_retried
      where i.id = p_import;
      if v_refused + v_retried > 0 then
        perform gdpr_internal.note_refusals(p_import, p_tried, p_numbers, p_lines, p_problems);
      end if;
    end if;
    perform gdpr_internal.audit_event(
      'IMPORT', null,
      jsonb_build_object('table', p_table::text, 'taken', v_tried - v_refused, 'refused', v_refused)
        || jsonb_strip_nulls(jsonb_build_object('retried', nullif(v_retried, 0), 'run', nullif(v_run, 1)))
    );
  end if;
  return query select x.line, x.problem from unnest(p_lines, p_problems) as x (line, problem);
end
$function$;
comment on function gdpr_internal.end_import(regclass, bigint, boolean, text, bigint, bigint[], bigint[], bigint[], text[]) is
  'Keeps how far a file is imported and which of its lines were refused, and records how many rows came; or takes everything back. Error: PR109.';

create or replace function gdpr_internal.blocked_rows(p_table regclass, p_contents jsonb[], p_numbers bigint[])
returns table (number bigint, column_name text)
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_table smallint := gdpr_internal.table_id(p_table);
begin
  -- where they are refused the refusal names them; blocked values do not show by that which of a duplicate and a block it was
  if not exists (select from gdpr_internal.protected_table as t where t.id = v_table and t.blocklist = 'warn') then
    return;
  end if;
  return query
  select r.number, string_agg(c.column_name, ', ' order by c.position)
  from unnest(p_contents, p_numbers) as r (content, number)
  join gdpr_internal.protected_column as c on c.table_id = v_table and c.identifier is not null
  cross join lateral (
    select gdpr_internal.canonical(c.identifier, r.content ->> c.column_name::text) as form offset 0
  ) as f
  cross join lateral gdpr_internal.identifier_digests(c.identifier, r.content ->> c.column_name::text) as d
  where f.form is not null and exists (
    select from gdpr_internal.identifier as i where i.digest in (d.digest, d.bare) and i.blocked_at is not null
  )
  group by r.number;
end
$function$;
comment on function gdpr_internal.blocked_rows(regclass, jsonb[], bigint[]) is
  'Of rows that were inserted where the policy only warns of blocked identifiers: which have one, and in which column.';

create or replace function gdpr.import_rows(
  p_table regclass, p_rows jsonb, p_source jsonb default '{}', p_skip boolean default false, p_first bigint default 1, p_file text default null,
  p_lines bigint[] default null, p_retry boolean default false, p_run integer default null, p_double boolean default false
)
returns table (line bigint, problem text, taken boolean)
language sql
volatile
parallel unsafe
security invoker
-- the guesses about json add up to a plan that counts as dear: to compile it took fifteen times as long as a hundred rows
set jit = off
begin atomic
  with part as materialized (
    select * from gdpr_internal.begin_import(p_table, p_rows, p_source, p_first, p_file, p_lines, p_retry, p_run, p_double)
  ),
  refused as materialized (
    select
      b.number,
      gdpr_internal.error_names(
        b.state, b.constraint_name,
        case when b.state like '22%' and b.column_name = '' then gdpr_internal.failed_column(p_table, b.content)::text else b.column_name end
      ) as problem
    from part as p
    cross join lateral gdpr_internal.insert_rows(p.code, p.contents, p.numbers) as b
  ),
  told as materialized (
    select
      array_agg(r.number) as numbers,
      array_agg(coalesce(p_lines[r.number - p_first + 1], r.number)) as lines,
      array_agg(r.problem) as problems
    from refused as r
  ),
  warned as materialized (
    select
      coalesce(p_lines[b.number - p_first + 1], b.number) as line,
      gdpr_internal.error_names('01000', 'gdpr_blocked_identifier', b.column_name) as problem
    from told as t
    cross join part as p
    cross join lateral gdpr_internal.blocked_rows(p_table, p.contents, p.numbers) as b
    where b.number <> all (coalesce(t.numbers, '{}'))
  )
  select w.line, w.problem, true from warned as w
  union all
  select e.line, e.problem, false
  from told as t
  cross join (
    select min(p.source_before) as source_before, min(p.import_id) as import_id, array_agg(n.number) as tried
    from part as p
    cross join lateral unnest(p.numbers) as n (number)
  ) as p
  cross join lateral gdpr_internal.end_import(
    p_table, p.import_id, p_skip, p.source_before,
    -- PostgreSQL 18 plans with the arguments, before begin_import() has refused what is no array
    p_first + jsonb_array_length(case jsonb_typeof(p_rows) when 'array' then p_rows else '[]' end) - 1, p.tried, t.numbers, t.lines, t.problems
  ) as e
  order by 1;
end;
comment on function gdpr.import_rows(regclass, jsonb, jsonb, boolean, bigint, text, bigint[], boolean, integer, boolean) is
  'Inserts many rows at once, as the caller, and returns those that were refused: line, and problem (SQLSTATE, constraint, column; no values); and, with taken, those of blocked identifiers where the policy only warns of them. p_rows: JSON array of {"column": value, ...}, some thousands at a time; a column that a row leaves out gets its default, and null is a record that could not be read, refused with 22P02. p_source: {"file": ..., "note": ...}, kept as the source of each row. p_skip: take the others when rows are refused; else nothing is taken. p_first: the number of the first row in its file. p_lines: the line of each row there, where it is not its number, to name it by. p_file: what tells this file from others, as its SHA-256: rows of it that were done before are left out, and none may be left out between, so that an import goes on where it stopped and none is doubled. p_retry: those of gdpr.import_refusal are not left out, but tried again. p_run: 2 to give the file again from its beginning, after which 2 goes on with that, and so on; without it, the last one goes on. p_double: rows that no unique key of the table tells from those taken before may come a second time by that. Errors: PR109 rows are refused (not p_skip), PR110 rows would be doubled (not p_double), PR002, PR004. Art. 5(1)(d), 14(2)(f).';

create or replace view gdpr.import as
select t.relation as table_name, i.file, i.run, i.last_row, i.taken, i.refused, i.started_at, i.continued_at, i.login
from gdpr_internal.import as i
join gdpr_internal.protected_table as t on t.id = i.table_id;
comment on view gdpr.import is 'Files that were imported, and how far: rows up to last_row are done, taken or refused; gdpr.import_refusal has the lines of the refused. run: 2 and more where a file was given again on purpose. Art. 14(2)(f).';
