-- [code] Finding audit records by more than the person: indexes of the months that are over, where nobody writes any more.
-- GDPR Art. 5(2), Art. 15(1)(c). Called by: gdpr.tidy(); readers of gdpr.audit_log. The month that goes on has none of them: every
-- write of the application would pay for them.

set local role gdpr_owner;

create or replace function gdpr_internal.index_audit_months()
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
-- a transaction that wrote in that month and goes on: another night
set lock_timeout = '2s'
as $function$
declare
  v_partition name;
  v_column name;
  v_indexed integer := 0;
begin
  for v_partition in
    select c.relname
    from gdpr_internal.droppable_months(date_trunc('month', statement_timestamp())::date) as m
    join pg_class as c on c.oid = m.partition
    where to_regclass(format('gdpr_internal.%I', c.relname || '_row_key')) is null
    order by m.month
  loop
    begin
      foreach v_column in array array['actor', 'table_id', 'purpose_id', 'row_key']::name[] loop
        execute format(
          'create index if not exists %1$I on gdpr_internal.%2$I (%3$I) where %3$I is not null',
          v_partition || '_' || v_column, v_partition, v_column
        );
      end loop;
      execute format('analyze gdpr_internal.%I', v_partition);
      v_indexed := v_indexed + 1;
    exception when lock_not_available then
      null;
    end;
  end loop;
  return v_indexed;
end
$function$;
comment on function gdpr_internal.index_audit_months() is
  'Indexes the audit records of months that are over by actor, table, purpose and row; returns how many months that were not indexed yet. Nobody waits for it, and it waits for nobody longer than two seconds.';

create or replace function gdpr.audit_table_id(p_table text)
returns smallint
language sql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select t.id
  from gdpr_internal.protected_table as t
  cross join (select gdpr_internal.find_table(p_table) as relation) as n
  left join pg_class as c on c.oid = t.relation
  -- what is no longer there is found by the name that it had
  where t.relation = n.relation
    or n.relation is null and c.oid is null and t.known_as in (p_table, 'public.' || p_table)
    or n.relation is null and c.oid is null and array_to_string(parse_ident(t.known_as), '.') in (p_table, 'public.' || p_table)
  order by t.id desc
  limit 1;
end;
comment on function gdpr.audit_table_id(text) is
  'The number of a table, named as gdpr.table_named() takes it, in gdpr.audit_log.table_id, by which indexes find its records; null if it has never been protected. A table that was dropped is found by the name that it had. Art. 5(2).';

create or replace function gdpr.audit_purpose_id(p_purpose text)
returns smallint
language sql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select p.id from gdpr_internal.purpose as p where p.name = p_purpose;
end;
comment on function gdpr.audit_purpose_id(text) is
  'The number of a purpose in gdpr.audit_log.purpose_id, by which indexes find its records; null if there is none of this name. Art. 5(2).';

create or replace function gdpr.audit_row_key(p_table text, p_key text)
returns uuid
language sql
stable
strict
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.audit_row_key(t.id, p_key) from (select gdpr.audit_table_id(p_table) as id) as t where t.id is not null;
end;
comment on function gdpr.audit_row_key(text, text) is
  'What gdpr.audit_log.row_key holds of a row of a table (schema.table), by its primary key as text (several columns: a JSON array of texts), there or deleted. Null if the table has never been protected. Art. 5(2).';
