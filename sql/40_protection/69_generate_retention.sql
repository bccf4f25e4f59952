-- [code] The generator of the functions that find rows whose time is over, count them, empty their columns, delete them.
-- GDPR Art. 5(1)(e). They belong to gdpr_worker. What a person's bases say and which rows are held, their caller tells them.

set local role gdpr_worker;

create or replace function gdpr_generated.retention_moments(p_table smallint)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
begin
  return (
    -- counted where the policy is: whatever zone the session has, a day is a day there
    select coalesce(E'  v_zone text := gdpr_internal.time_zone();\n  v_now timestamp := timezone(v_zone, statement_timestamp());\n' || string_agg(
      case a.atttypid
        when 'timestamptz'::regtype then format(E'  v_moment_%s timestamptz := timezone(v_zone, v_now - interval %L);\n', r.n, r.period)
        when 'date'::regtype then format(E'  v_moment_%s date := v_now - interval %L;\n', r.n, r.period)
        else format(E'  v_moment_%s timestamp := v_now - interval %L;\n', r.n, r.period)
      end, '' order by r.n), '')
    from gdpr_internal.retention_rule as r
    join gdpr_internal.protected_table as t on t.id = r.table_id
    join pg_attribute as a on a.attrelid = t.relation and a.attname = r.after_column
    where r.table_id = p_table
  );
end
$function$;
comment on function gdpr_generated.retention_moments(smallint) is 'Declarations of the moments before which rows are due, one for each rule that counts from a column.';

create or replace function gdpr_generated.retention_left(p_table smallint, p_rule gdpr_internal.retention_rule)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select coalesce(string_agg(
      case e.value
        when 'null' then format('t.%I is not null', c.column_name)
        else format('t.%I is distinct from %s', c.column_name, e.value)
      end, ' or ' order by c.position), 'false')
    from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    cross join lateral (select gdpr_internal.empty_value(t.relation, c.column_name, c.encrypt <> 'no') as value) as e
    where c.table_id = p_table and c.column_name = any ((p_rule).columns)
      -- alone, the rule is for the row: nothing is emptied before it goes
      and ((p_rule).named or (select count(*) > 1 from gdpr_internal.retention_rule as r where r.table_id = p_table))
  );
end
$function$;
comment on function gdpr_generated.retention_left(smallint, gdpr_internal.retention_rule) is 'The SQL that says whether row t still has something in the columns of a rule.';

create or replace function gdpr_generated.referring_rows(p_relation regclass)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select coalesce(string_agg(format(
      'exists (select from %s as c where %s)', l.child,
      (
        select string_agg(format('c.%I = x.%I', u.child, u.parent), ' and ' order by u.n)
        from unnest(l.child_columns, l.parent_columns) with ordinality as u (child, parent, n)
      )
    ), ' or ' order by l.id), 'false')
    from gdpr_internal.protected_link as l
    where l.parent = p_relation and l.on_delete not in ('n', 'd')
  );
end
$function$;
comment on function gdpr_generated.referring_rows(regclass) is 'The SQL that says whether other rows refer to row x, which deleting it would meet or take along.';

create or replace function gdpr_generated.retention_rows(p_table smallint, p_more text)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_due text;
  v_left text;
  v_over text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(
      case when r.after_column is null then format('(d.bits & %s)', 1 << r.n)
      else format('case when t.%I <= v_moment_%s then %s else 0 end', r.after_column, r.n, 1 << r.n) end, ' | ' order by r.n),
    string_agg(format('case when %s then %s else 0 end', gdpr_generated.retention_left(p_table, r), 1 << r.n), ' | ' order by r.n),
    case when bool_and(r.named) then 'false' else format('x.gdpr_due & %1$s = %1$s', sum(1 << r.n)) end
  into v_due, v_left, v_over
  from gdpr_internal.retention_rule as r
  where r.table_id = p_table;
  return format(
    $code$
select x.gdpr_place as place, x.gdpr_part as part, x.gdpr_due & x.gdpr_left as emptying, x.gdpr_held as held, %5$s as over,
  %6$s as referred%7$s
from (
  select t.*, t.ctid as gdpr_place, t.tableoid as gdpr_part, %2$s as gdpr_due, %3$s as gdpr_left,
    coalesce(hs.bits, 0) | coalesce(hk.bits, 0) as gdpr_held
  from %1$s as t
  join unnest(p_subjects, p_due) as d (subject_id, bits) on d.subject_id = t.gdpr_subject_id
  left join (
    select h.subject_id, bit_or(h.bits) as bits from unnest(p_held_subjects, p_held_bits) as h (subject_id, bits) group by h.subject_id
  ) as hs on hs.subject_id = t.gdpr_subject_id
  left join (
    select h.row_key, bit_or(h.bits) as bits from unnest(p_held_keys, p_held_key_bits) as h (row_key, bits) group by h.row_key
  ) as hk on hk.row_key = %4$s
) as x
$code$,
    v_table.relation, v_due, v_left, gdpr_internal.key_text(v_table.relation, 't'), v_over,
    case gdpr_internal.erasure_method(v_table.definition)
      when 'delete' then gdpr_generated.referring_rows(v_table.relation) else 'false'
    end,
    p_more
  );
end
$function$;
comment on function gdpr_generated.retention_rows(smallint, text) is
  'The SQL that judges the rows of persons: due: bits of the rules whose time has come; emptying: of those whose columns still hold something; held: what holds forbid; over: the row''s time is over; referred: other rows refer to it. p_more: more columns.';

create or replace function gdpr_generated.generate_candidates(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_condition text;
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  select string_agg(format('%s and (%s)', d.due, gdpr_generated.retention_left(p_table, d.rule)), ' or ' order by d.n)
    || case when bool_and(d.named) then '' else ' or ' || string_agg(d.due, ' and ' order by d.n) end
  into v_condition
  from (
    select r as rule, r.n, r.named,
      case
        when r.after_column is not null then format('t.%I <= v_moment_%s', r.after_column, r.n)
        -- a closed gate is what a person without a basis has; whose it is closed for another reason, the evidence tells
        else format('(t.gdpr_purposes & %s = 0 or t.gdpr_until <= statement_timestamp())', r.purpose_mask)
      end as due
    from gdpr_internal.retention_rule as r
    where r.table_id = p_table
  ) as d;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_after bigint, p_limit integer)
returns bigint[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
declare
%2$s  v_subjects bigint[];
begin
  select array_agg(s.id) into v_subjects
  from (
    select distinct t.gdpr_subject_id as id from %3$s as t
    where t.gdpr_subject_id > p_after and t.gdpr_purposes >= 0 and (%4$s)
    order by 1
    limit p_limit
  ) as s;
  set constraints all immediate;
  return v_subjects;
end
$body$
$code$,
    'candidates_' || p_table, gdpr_generated.retention_moments(p_table), v_relation, v_condition
  ));
  execute format('comment on function gdpr_generated.%I(bigint, integer) is %L', 'candidates_' || p_table,
    format('The next persons, by number, with a row in %s whose time may be over. Generated by gdpr.apply().', v_relation));
  execute format('grant execute on function gdpr_generated.%I(bigint, integer) to gdpr_owner', 'candidates_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_candidates(smallint) is 'Generates candidates_<table>, which pages through the persons that retention has to look at.';

create or replace function gdpr_generated.generate_overdue(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
declare
  v_relation regclass;
  v_since text;
  v_counts text;
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(format(
      ', case when x.gdpr_due & %s <> 0 then timezone(v_zone, %s + interval %L) end as since_%s', 1 << r.n,
      case when a.atttypid = 'timestamptz'::regtype then format('timezone(v_zone, x.%I)', r.after_column) else format('x.%I', r.after_column) end,
      r.period, r.n
    ), '' order by r.n) filter (where r.after_column is not null),
    string_agg(format(
      E'  select %1$s, count(*) filter (where %2$s and not %3$s and not %4$s), count(*) filter (where %2$s and %3$s),\n'
      '    count(*) filter (where %2$s and not %3$s and %4$s), min(%5$s) filter (where %2$s)\n  from looked as w\n',
      r.n,
      format(case when r.named then '(w.emptying & %s <> 0)' else '(w.over or w.emptying & %s <> 0)' end, 1 << r.n),
      format(case when r.named then '(w.held & %s <> 0)' else '(case when w.over then w.held else w.held & %s end <> 0)' end, 1 << r.n),
      case when r.named then 'false' else '(w.over and w.referred)' end,
      case when r.after_column is null then 'null::timestamptz' else format('w.since_%s', r.n) end
    ), E'  union all\n' order by r.n)
  into v_since, v_counts
  from gdpr_internal.retention_rule as r
  left join pg_attribute as a on a.attrelid = v_relation and a.attname = r.after_column
  where r.table_id = p_table;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(%2$s)
returns table (rule integer, due bigint, held bigint, referred bigint, since timestamptz)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
declare
%3$sbegin
  return query
  with looked as materialized (%4$s)
%5$s  ;
  set constraints all immediate;
end
$body$
$code$,
    'overdue_' || p_table, gdpr_generated.retention_arguments(), gdpr_generated.retention_moments(p_table),
    gdpr_generated.retention_rows(p_table, coalesce(v_since, '')), v_counts
  ));
  execute format('comment on function gdpr_generated.%I is %L', 'overdue_' || p_table,
    format('Counts, rule by rule, rows of persons in %s whose time is over. Generated by gdpr.apply().', v_relation));
  execute format('grant execute on function gdpr_generated.%I to gdpr_owner', 'overdue_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_overdue(smallint) is 'Generates overdue_<table>, which counts what retention would do.';

create or replace function gdpr_generated.retention_arguments()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'p_subjects bigint[], p_due integer[], p_held_subjects bigint[], p_held_bits integer[], p_held_keys text[], '
    'p_held_key_bits integer[]';
end;
comment on function gdpr_generated.retention_arguments() is
  'The arguments of generated functions of retention: persons and the bits of the rules by which their bases are over; what holds keep, by person and by primary key, as bits of rules.';

create or replace function gdpr_generated.generate_retention(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_schema name;
  v_empty text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select n.nspname into v_schema from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = v_table.relation;
  perform gdpr_generated.generate_candidates(p_table);
  perform gdpr_generated.generate_overdue(p_table);
  select string_agg(format(
    '%1$I = case when w.bits & %2$s <> 0 then %3$s else t.%1$I end', c.column_name, 1 << r.n,
    gdpr_internal.empty_value(v_table.relation, c.column_name, c.encrypt <> 'no')
  ), ', ' order by c.position)
  into v_empty
  from gdpr_internal.retention_rule as r
  join gdpr_internal.protected_column as c on c.table_id = r.table_id and c.column_name = any (r.columns)
  where r.table_id = p_table and gdpr_generated.retention_left(p_table, r) <> 'false';
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(%2$s, p_limit integer, out v_removed bigint, out v_emptied bigint)
language plpgsql
volatile
security definer
set search_path = pg_catalog, %3$I, pg_temp
set row_security = on
as $body$
declare
%4$s  v_schema text;
  v_table text;
  v_constraint text;
  v_places tid[];
  v_parts oid[];
  v_bits integer[];
begin
  perform gdpr_internal.refuse_deferred(%5$L);
  select array_agg(l.place), array_agg(l.part), array_agg(l.bits)
  into v_places, v_parts, v_bits
  from (
    select k.place, k.part, case when k.over and k.held = 0 and not k.referred then -1 else k.emptying & ~k.held end as bits
    from (%6$s) as k
    where k.over and k.held = 0 and not k.referred or k.emptying & ~k.held <> 0
    limit p_limit
  ) as l;
  -- by their places: a row that somebody changes meanwhile is somewhere else, and is looked at another time
  %7$s
  get diagnostics v_removed = row_count;
%8$s  set constraints all immediate;
exception when foreign_key_violation or restrict_violation then
  get stacked diagnostics v_schema = schema_name, v_table = table_name, v_constraint = constraint_name;
  perform gdpr_internal.refuse('row_referenced', gdpr_internal.known_obstacle(v_schema, v_table, null, v_constraint));
end
$body$
$code$,
    'retain_' || p_table, gdpr_generated.retention_arguments(), v_schema, gdpr_generated.retention_moments(p_table), v_table.relation,
    gdpr_generated.retention_rows(p_table, ''),
    format(
      case gdpr_internal.erasure_method(v_table.definition)
        when 'delete' then
          E'delete from %1$s as t\n  using unnest(v_places, v_parts, v_bits) as w (place, part, bits)\n'
          '  where w.bits = -1 and t.ctid = w.place and t.tableoid = w.part;'
        else
          E'update %1$s as t\n  set %2$s\n  from unnest(v_places, v_parts, v_bits) as w (place, part, bits)\n'
          '  where w.bits = -1 and t.ctid = w.place and t.tableoid = w.part;'
      end, v_table.relation, gdpr_generated.assign_code(p_table)
    ),
    case when v_empty is null then E'  v_emptied := 0;\n' else format(
      E'  update %1$s as t\n  set %2$s\n  from unnest(v_places, v_parts, v_bits) as w (place, part, bits)\n'
      '  where w.bits > 0 and t.ctid = w.place and t.tableoid = w.part;\n'
      '  get diagnostics v_emptied = row_count;\n', v_table.relation, v_empty
    ) end
  ));
  execute format('comment on function gdpr_generated.%I is %L', 'retain_' || p_table,
    format('Deletes or anonymises rows of persons in %s whose time is over, empties columns whose time is. Generated by gdpr.apply().', v_table.relation));
  execute format('grant execute on function gdpr_generated.%I to gdpr_owner', 'retain_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_retention(smallint) is 'Generates what retention needs of a table: candidates_, overdue_ and retain_<table>.';
