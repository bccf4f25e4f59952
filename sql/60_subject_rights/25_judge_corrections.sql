-- [code] What cannot be done of a list of changes, and writing the rest.
-- GDPR Art. 16, Art. 9, Art. 17. Rows are written by gdpr_worker: digests, masks, ciphertext and audit follow by the tables' own triggers.

set local role gdpr_owner;

create or replace function gdpr_internal.judge_identifiers(p_corrections gdpr_internal.correction[])
returns gdpr_internal.correction[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set enable_nestloop = off
set jit = off
as $function$
declare
  v_new gdpr_internal.correction[];
  v_kinds text[];
  v_refusing boolean[];
begin
  select array_agg(c.correction), array_agg(i.identifier), array_agg(t.blocklist = 'refuse')
  into v_new, v_kinds, v_refusing
  from (select x as correction from unnest(p_corrections) as x) as c
  join gdpr_internal.protected_column as i on i.table_id = (c.correction).table_id and i.column_name = (c.correction).column_name
  join gdpr_internal.protected_table as t on t.id = i.table_id
  where (c.correction).problem is null and (c.correction).value is distinct from (c.correction).old and i.identifier is not null
    and (i.matches or i.identifier = 'email');
  if v_new is null then
    return p_corrections;
  end if;
  return array(
    with given as materialized (
      select c.n, c.table_id, c.row_key, c.column_name, c.subject_id, d.digest, d.bare, r.refusing
      from unnest(v_new) with ordinality as c
      join gdpr_internal.digests_of(v_kinds, array(select x.value from unnest(v_new) as x)) as d on d.n = c.ordinality
      join unnest(v_refusing) with ordinality as r (refusing, n) on r.n = c.ordinality
    ), held as materialized (
      select i.digest, i.subject_id, i.blocked_at is not null as blocked
      from gdpr_internal.identifier as i
      where i.digest = any (array(select g.digest from given as g union select g.bare from given as g)) and i.retired_at is null
    ), refused as (
      select g.table_id, g.row_key, g.column_name,
        case
          when h.blocked then 'has an identifier that is blocked'
          else 'has an identifier of another person'
        end as problem
      from given as g
      join held as h on h.digest = g.digest
      where h.blocked and g.refusing or not h.blocked and h.subject_id <> g.subject_id
      union all
      select g.table_id, g.row_key, g.column_name, 'has an identifier that is blocked'
      from given as g
      join held as h on h.digest = g.bare
      where h.blocked and g.refusing
      union all
      select g.table_id, g.row_key, g.column_name, 'has an identifier that the list gives to two persons'
      from given as g
      where g.digest in (select x.digest from given as x group by x.digest having count(distinct x.subject_id) > 1)
    ), worst as (
      select r.table_id, r.row_key, r.column_name, min(r.problem) as problem from refused as r group by r.table_id, r.row_key, r.column_name
    )
    select row(
      c.n, c.table_id, c.row_key, c.column_name, c.value, c.was, c.expected, c.statement, c.subject_id, c.old, coalesce(c.problem, w.problem)
    )::gdpr_internal.correction
    from unnest(p_corrections) as c
    left join worst as w on w.table_id = c.table_id and w.row_key = c.row_key and w.column_name = c.column_name and c.statement is null
  );
end
$function$;
comment on function gdpr_internal.judge_identifiers(gdpr_internal.correction[]) is
  'Finds new identifiers that are blocked or belong to somebody else: e-mail addresses, and what match_on names. Told to officers alone. Art. 17.';

create or replace function gdpr_internal.judge_corrections(p_corrections gdpr_internal.correction[], p_subject bigint, p_lock boolean)
returns gdpr_internal.correction[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set enable_nestloop = off
set jit = off
as $function$
declare
  v_judged gdpr_internal.correction[];
begin
  v_judged := array(
    select row(
      c.n, c.table_id, c.row_key, c.column_name, c.value, c.was, c.expected, c.statement, coalesce(c.subject_id, p_subject), c.old,
      case
        when c.problem is not null then c.problem
        when coalesce(c.subject_id, p_subject) is null then 'does not say of whom it is'
        when s.erased_at is not null then 'is about a person who was erased'
        when c.statement is not null then null
        when c.expected and c.was is distinct from c.old then 'was changed meanwhile'
        when c.value is null and k.needed then 'leaves a column empty that may not be'
        when count(*) filter (where c.statement is null) over (partition by c.table_id, c.row_key, c.column_name) > 1 then 'is about a value that the list names twice'
      end
    )::gdpr_internal.correction
    from unnest(gdpr_internal.find_rows(p_corrections, p_subject, p_lock)) as c
    left join gdpr_internal.subject as s on s.id = c.subject_id
    left join (
      select t.id, x.column_name, x.needed
      from gdpr_internal.protected_table as t
      cross join lateral gdpr_internal.rectifiable_columns(t.id) as x
      where t.id in (select y.table_id from unnest(p_corrections) as y)
    ) as k on k.id = c.table_id and k.column_name = c.column_name
  );
  v_judged := gdpr_internal.judge_identifiers(gdpr_internal.with_copies(v_judged, p_lock));
  return array(
    select row(
      c.n, c.table_id, c.row_key, c.column_name, c.value, c.was, c.expected, c.statement, c.subject_id, c.old,
      case
        when c.problem is null and c.statement is null and c.value is not null and c.value is distinct from c.old and exists (
          select from gdpr_internal.protected_column as x
          join gdpr_internal.protected_table as t on t.id = x.table_id
          where x.table_id = c.table_id and x.column_name = c.column_name and x.special is not null
            and not gdpr_internal.has_condition(c.subject_id, t.purpose_mask)
        ) then 'needs a condition of Art. 9(2)'
        else c.problem
      end
    )::gdpr_internal.correction
    from unnest(v_judged) as c
    order by c.n, c.table_id, c.row_key, c.column_name
  );
end
$function$;
comment on function gdpr_internal.judge_corrections(gdpr_internal.correction[], bigint, boolean) is
  'A list of changes as an officer would carry it out, copies included, each with the reason if it cannot be.';

create or replace function gdpr_internal.refuse_problems(p_corrections gdpr_internal.correction[])
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_lines text;
  v_condition boolean;
begin
  select
    string_agg(format('change %s %s', c.n, c.problem), E'\n' order by c.n) filter (where c.place <= 100)
      || case when count(*) > 100 then format(E'\nand %s more', count(*) - 100) else '' end,
    bool_and(c.problem = 'needs a condition of Art. 9(2)')
  into v_lines, v_condition
  from (
    select x.n, x.problem, row_number() over (order by x.n) as place from unnest(p_corrections) as x where x.problem is not null
  ) as c;
  if v_lines is not null then
    perform gdpr_internal.refuse(case when v_condition then 'condition_missing' else 'rectification_refused' end, v_lines);
  end if;
end
$function$;
comment on function gdpr_internal.refuse_problems(gdpr_internal.correction[]) is 'Errors: PR630 with a line for each problem, PR208 where a condition of Art. 9(2) is all that is missing.';

create or replace function gdpr_internal.write_corrections(p_corrections gdpr_internal.correction[])
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_table record;
  v_before text;
  v_rows bigint;
  v_all bigint := 0;
  v_state text;
  v_constraint text;
  v_column text;
begin
  for v_table in
    select r.table_id, array_agg(r.row_key) as keys, array_agg(r.subject_id) as subjects, array_agg(r.changes) as changes, count(*) as rows
    from (
      select c.table_id, c.row_key, c.subject_id, jsonb_object_agg(c.column_name, c.value) as changes
      from unnest(p_corrections) as c
      where c.statement is null and c.problem is null and c.value is distinct from c.old
      group by c.table_id, c.row_key, c.subject_id
    ) as r
    join gdpr_internal.protected_table as t on t.id = r.table_id
    group by r.table_id, t.depth
    order by t.depth, r.table_id
  loop
    v_before := gdpr_internal.before_worker();
    begin
      execute format('select gdpr_generated.%I($1, $2, $3)', 'rectify_' || v_table.table_id)
      into v_rows using v_table.keys, v_table.subjects, v_table.changes;
    exception
    when transaction_rollback then
      -- a deadlock or an older snapshot is not the value's fault: the client may try again
      raise;
    when others then
      get stacked diagnostics v_state = returned_sqlstate, v_constraint = constraint_name, v_column = column_name;
      perform gdpr_internal.refuse('rectification_refused', gdpr_internal.error_names(v_state, v_constraint, v_column));
    end;
    perform gdpr_internal.after_worker(v_before);
    if v_rows <> v_table.rows then
      perform gdpr_internal.refuse('rectification_refused', 'a trigger of the table kept rows as they were');
    end if;
    v_all := v_all + v_rows;
  end loop;
  return v_all;
end
$function$;
comment on function gdpr_internal.write_corrections(gdpr_internal.correction[]) is
  'Writes what differs, one statement for each table, and returns the rows. What a table says of a value it does not take is not passed on, but for codes and names. Error: PR630.';
