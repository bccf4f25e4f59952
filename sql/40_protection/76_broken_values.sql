-- [code] Which values of a table cannot be opened: where they stand, and nothing of them.
-- GDPR Art. 5(1)(f), Art. 32(1)(b). Called by: whoever looks after the database, when reading gives PR404 or the doctor counts some.
-- Rows are read by gdpr_worker, which has no key; values are tried by gdpr_keyholder, and all that comes out is an error's code.

set local role gdpr_worker;

create or replace function gdpr_generated.broken_rows(p_table smallint, p_limit integer)
returns table (row_key text, subject_id bigint, column_name name, error text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
as $function$
declare
  v_relation regclass;
  v_ids integer[];
  v_values text;
begin
  select t.relation, array_agg(c.id order by c.id), string_agg(format('t.%I::text', c.column_name), ', ' order by c.id)
  into v_relation, v_ids, v_values
  from gdpr_internal.protected_table as t
  join gdpr_internal.protected_column as c on c.table_id = t.id and c.encrypt <> 'no'
  where t.id = p_table
  group by t.id;
  if v_ids is null then
    return;
  end if;
  return query execute format(
    'select %s, t.gdpr_subject_id, c.column_name, b.error '
    'from %s as t cross join lateral gdpr_internal.broken_columns(t.gdpr_subject_id, $1, array[%s]) as b '
    'join gdpr_internal.protected_column as c on c.id = b.column_id where t.gdpr_subject_id is not null limit $2',
    gdpr_internal.key_text(v_relation, 't'), v_relation, v_values
  ) using v_ids, p_limit;
  set constraints all immediate;
end
$function$;
comment on function gdpr_generated.broken_rows(smallint, integer) is 'See gdpr.broken_values().';

set local role gdpr_owner;

create or replace function gdpr.broken_values(p_table regclass, p_limit integer default 1000)
returns table (row_key text, subject_id bigint, column_name name, error text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_table smallint := gdpr_internal.table_id(p_table);
  v_before text := gdpr_internal.before_worker();
begin
  return query select b.row_key, b.subject_id, b.column_name, b.error from gdpr_generated.broken_rows(v_table, p_limit) as b;
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr.broken_values(regclass, integer) is
  'The encrypted values of a table that cannot be opened: primary key of the row as text (several columns: a JSON array; null without one), person, column, and why: PR404, it was altered, moved or planted; PR410, the person''s key is gone. Nothing of the values. Reads every row and opens every value, until p_limit are found (null: all). UPDATE on the table itself replaces one. Errors: PR002 not protected, PR402 key locked. Art. 32(1)(b).';
