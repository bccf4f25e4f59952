-- [code] Retention: what is over, and its end, page by page of persons.
-- GDPR Art. 5(1)(e). Called by: gdpr_admin, gdprdb retention, pg_cron. Rows are touched by gdpr_worker's generated functions.

set local role gdpr_owner;

create or replace function gdpr_internal.forgetting(p_table smallint)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return exists (select from gdpr_internal.retention_pass as p where p.forgetting_xid = pg_current_xact_id_if_assigned() and p.forgetting_table = p_table);
end
$function$;
comment on function gdpr_internal.forgetting(smallint) is
  'Whether retention is deleting rows of this table at this moment: the audit trail says that, and does not keep for later what may be kept no longer.';

create or replace function gdpr_internal.rule_bits(p_table smallint, p_columns name[])
returns integer
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- bit 30 belongs to no rule: a row of which anything is held stays
  select case
    when p_columns is null then 2147483647
    else coalesce(bit_or(1 << r.n) filter (where r.columns && p_columns), 0) | (1 << 30)
  end
  from gdpr_internal.retention_rule as r
  where r.table_id = p_table;
end;
comment on function gdpr_internal.rule_bits(smallint, name[]) is 'The rules that a hold on these columns (null: all) stops, as bits.';

create or replace function gdpr_internal.retention_page(
  p_table smallint, p_subjects bigint[],
  out due integer[], out held_subjects bigint[], out held_bits integer[], out held_keys text[], out held_key_bits integer[]
)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  select array_agg(coalesce(e.bits, 0) order by s.n) into due
  from unnest(p_subjects) with ordinality as s (subject_id, n)
  left join (
    select x.subject_id, bit_or(1 << x.rule) as bits
    from gdpr_internal.retention_ends(p_table, p_subjects) as x
    where x.ends_at <= statement_timestamp()
    group by x.subject_id
  ) as e on e.subject_id = s.subject_id;
  select
    array_agg(h.subject_id) filter (where h.row_key is null), array_agg(h.bits) filter (where h.row_key is null),
    array_agg(h.row_key) filter (where h.row_key is not null), array_agg(h.bits) filter (where h.row_key is not null)
  into held_subjects, held_bits, held_keys, held_key_bits
  from (
    select x.subject_id, x.row_key, gdpr_internal.rule_bits(p_table, x.columns) as bits from gdpr_internal.held_rows(p_table, p_subjects) as x
    union all
    select r.subject_id, null, 2147483647 from unnest(gdpr_internal.restricted_of(p_subjects)) as r (subject_id)
  ) as h;
end
$function$;
comment on function gdpr_internal.retention_page(smallint, bigint[]) is
  'What the generated functions have to be told of a page of persons: the bits of rules by which their bases are over, in their order, and what is held of whom.';

create or replace function gdpr_internal.retention_tables()
returns smallint[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- rows that refer to others before those
  select array_agg(t.id order by t.depth desc, t.id)
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null and exists (select from gdpr_internal.retention_rule as r where r.table_id = t.id and r.in_force);
end;
comment on function gdpr_internal.retention_tables() is 'The tables that have retention rules in force, in the order in which retention goes through them.';

create or replace function gdpr_internal.retention_candidates(p_table smallint, p_after bigint, p_limit integer)
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := gdpr_internal.before_worker();
  v_page bigint[];
begin
  execute format('select gdpr_generated.%I($1, $2)', 'candidates_' || p_table) into v_page using p_after, p_limit;
  perform gdpr_internal.after_worker(v_before);
  return v_page;
end
$function$;
comment on function gdpr_internal.retention_candidates(smallint, bigint, integer) is
  'The next persons after p_after who have a row in a table whose time may be over; null at the end.';

create or replace function gdpr_internal.retain(p_table smallint, p_subjects bigint[], p_limit integer, out removed bigint, out emptied bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  -- whom somebody restricts, or gives a basis, at this moment is left for the next time; who does it later waits, and finds the rows gone.
  -- Nobody is waited for: retention goes through persons once for each table, in no order that others could keep
  v_subjects bigint[] := array(
    select s.id from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for share skip locked
  );
  v_page record := gdpr_internal.retention_page(p_table, v_subjects);
  v_before text := gdpr_internal.before_worker();
begin
  execute format('select * from gdpr_generated.%I($1, $2, $3, $4, $5, $6, $7)', 'retain_' || p_table)
  into removed, emptied
  using v_subjects, v_page.due, v_page.held_subjects, v_page.held_bits, v_page.held_keys, v_page.held_key_bits, p_limit;
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr_internal.retain(smallint, bigint[], integer) is
  'Ends what is over of these persons in a table, up to p_limit rows. Persons about whom another session is deciding are passed over.';

create or replace function gdpr_internal.erase_approved(p_limit integer)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_persons bigint := gdpr_internal.finish_erasures(p_limit);
  v_batch bigint;
begin
  if v_persons = 0 then
    select b.batch_id into v_batch from gdpr_internal.erasure_batch_person as b
    where b.done_at is null and b.failure is null
    order by b.batch_id
    limit 1;
    if v_batch is not null then
      select r.erased + r.failed into v_persons from gdpr.run_erasure_batch(v_batch, p_limit) as r;
    end if;
  end if;
  return v_persons;
end
$function$;
comment on function gdpr_internal.erase_approved(integer) is
  'What retention does for whole persons: finishes erasures of which a period is over, else erases the next of a batch that is open; returns how many.';

create or replace function gdpr.run_retention(p_limit integer default 10000)
returns table (table_name regclass, removed bigint, emptied bigint, persons bigint, more boolean)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_pass gdpr_internal.retention_pass;
  v_tables smallint[];
  v_observed smallint[];
  v_n integer;
  v_page bigint[];
  v_done record;
  v_left bigint := p_limit;
  v_looked bigint := 0;
begin
  perform gdpr_internal.require_read_committed();
  if coalesce(p_limit < 1, true) then
    perform gdpr_internal.refuse('invalid_argument', 'at least one row at a time');
  elsif not gdpr_generated.is_home() and gdpr.whereabouts() = 'restored' then
    -- holds that were placed after the backup are not here yet
    perform gdpr_internal.refuse('restored');
  end if;
  persons := gdpr_internal.erase_approved(least(p_limit, 1000));
  if persons > 0 then
    removed := 0;
    emptied := 0;
    more := true;
    return next;
    return;
  end if;
  select p.* into v_pass from gdpr_internal.retention_pass as p for update;
  update gdpr_internal.retention_pass set forgetting_xid = pg_current_xact_id();
  perform set_config('gdpr.forgetting', 'on', true);
  v_observed := array(select t.id from gdpr_internal.protected_table as t where t.mode = 'observe');
  v_tables := array(select t.id from unnest(gdpr_internal.retention_tables()) with ordinality as t (id, n) where t.id <> all (v_observed) order by t.n);
  v_n := coalesce(array_position(v_tables, v_pass.table_id), 1);
  if v_tables[v_n] is distinct from v_pass.table_id then
    v_pass.after_subject := 0;
  end if;
  more := true;
  while more and v_n <= cardinality(v_tables) loop
    select t.relation, 0, 0 into table_name, removed, emptied from gdpr_internal.protected_table as t where t.id = v_tables[v_n];
    update gdpr_internal.retention_pass set forgetting_table = v_tables[v_n];
    loop
      v_page := gdpr_internal.retention_candidates(v_tables[v_n], v_pass.after_subject, least(p_limit, 10000));
      exit when v_page is null;
      v_done := gdpr_internal.retain(v_tables[v_n], v_page, v_left::integer);
      removed := removed + v_done.removed;
      emptied := emptied + v_done.emptied;
      v_left := v_left - v_done.removed - v_done.emptied;
      v_looked := v_looked + cardinality(v_page);
      exit when v_left <= 0;
      v_pass.after_subject := v_page[cardinality(v_page)];
      exit when v_looked >= 20 * p_limit::bigint;
    end loop;
    if removed + emptied > 0 then
      perform gdpr_internal.audit_event('RETAIN', null, jsonb_build_object('table', table_name::text, 'removed', removed, 'emptied', emptied));
      return next;
    end if;
    if v_page is null then
      v_n := v_n + 1;
      v_pass.after_subject := 0;
    else
      exit;
    end if;
  end loop;
  more := v_n <= cardinality(v_tables);
  perform set_config('gdpr.forgetting', '', true);
  update gdpr_internal.retention_pass
  set table_id = case when more then v_tables[v_n] end, after_subject = v_pass.after_subject, forgetting_xid = null, forgetting_table = null,
    finished_at = case when more then finished_at else statement_timestamp() end;
  if not more then
    table_name := null;
    removed := 0;
    emptied := 0;
    return next;
  end if;
end
$function$;
comment on function gdpr.run_retention(integer) is
  'Deletes or anonymises rows whose time is over and empties columns whose time is, up to p_limit rows, going on where the call before stopped: one transaction, short locks. Holds, restrictions (Art. 18(2)) and rows that others refer to win. Finishes erasures whose period is over first, and carries out batches of erasures. Returns what was done in which table (persons: how many were erased); more is false when all has been gone through: call until then. Tables in mode observe are left alone. Errors: PR004, PR005, PR604, PR605, PR802, PR640 the database was restored: replay the ledger first. Art. 5(1)(e).';

create or replace function gdpr.retention_plan()
returns table (
  table_name regclass, rule integer, columns name[], kept_for text, counted_from text, rows_due bigint, rows_held bigint, rows_referred bigint,
  oldest timestamptz
)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
#variable_conflict use_column
declare
  v_table smallint;
  v_after bigint;
  v_page bigint[];
  v_facts record;
  v_before text;
  v_found jsonb;
  v_counts jsonb;
begin
  foreach v_table in array coalesce(gdpr_internal.retention_tables(), '{}') loop
    v_after := 0;
    v_found := '[]';
    loop
      v_page := gdpr_internal.retention_candidates(v_table, v_after, 10000);
      exit when v_page is null;
      v_facts := gdpr_internal.retention_page(v_table, v_page);
      v_before := gdpr_internal.before_worker();
      execute format('select jsonb_agg(o) from gdpr_generated.%I($1, $2, $3, $4, $5, $6) as o', 'overdue_' || v_table)
      into v_counts
      using v_page, v_facts.due, v_facts.held_subjects, v_facts.held_bits, v_facts.held_keys, v_facts.held_key_bits;
      perform gdpr_internal.after_worker(v_before);
      v_found := v_found || v_counts;
      v_after := v_page[cardinality(v_page)];
    end loop;
    return query
    select
      t.relation, r.n + 1, nullif(r.columns, '{}'),
      coalesce(r.period::text, (
        select string_agg(format('%s: %s', p.name, p.retain), ', ' order by p.id) from gdpr_internal.purpose as p
        where p.id < 62 and r.purpose_mask & (1::bigint << p.id) <> 0
      )),
      coalesce(r.after_column::text, 'last_basis'),
      coalesce(f.due, 0)::bigint, coalesce(f.held, 0)::bigint, coalesce(f.referred, 0)::bigint, f.since
    from gdpr_internal.retention_rule as r
    join gdpr_internal.protected_table as t on t.id = r.table_id
    left join (
      select c.rule, sum(c.due) as due, sum(c.held) as held, sum(c.referred) as referred, min(c.since) as since
      from jsonb_to_recordset(v_found) as c (rule integer, due bigint, held bigint, referred bigint, since timestamptz)
      group by c.rule
    ) as f on f.rule = r.n
    where r.table_id = v_table and r.in_force
    order by r.n;
  end loop;
end
$function$;
comment on function gdpr.retention_plan() is
  'What retention would do now, rule by rule (its number in the policy): rows_due: rows to delete, anonymise or empty columns of; rows_held: those that a hold or a restriction keeps; rows_referred: those that wait for rows that refer to them; oldest: since when the longest overdue is, where the rule counts from a column. Looks at every person who may have something due: a report, not a query of every day. Art. 5(1)(e), 30(1)(f).';

create or replace view gdpr.retention_due as
select p.table_name, p.rule, p.columns, p.kept_for, p.counted_from, p.rows_due, p.rows_held, p.rows_referred, p.oldest
from gdpr.retention_plan() as p
where p.rows_due + p.rows_held + p.rows_referred > 0;
comment on view gdpr.retention_due is 'The rules of gdpr.retention_plan() under which something is over. Art. 5(1)(e).';
