-- [code] The gate: which purposes a person may be processed for, exact at the statement's time, and its copy in every row.
-- GDPR Art. 5(1)(a), 5(1)(b), 6, 7(3), 18, 21. Truth: the evidence tables. The subject row and the protected rows hold copies
-- that say "maybe" and until when; past that instant the evidence itself is asked.

set local role gdpr_owner;

create or replace function gdpr_internal.gate(p_subjects bigint[])
returns table (subject_id bigint, allowed bigint, possible bigint, until timestamptz)
language plpgsql
stable
parallel restricted
security definer
rows 1
set search_path = pg_catalog, pg_temp
-- one plan for the session: planning took ten times as long as reading the evidence of one person
set plan_cache_mode = force_generic_plan
-- and one that fits when the tables have grown since
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
as $function$
#variable_conflict use_column
begin
  return query
  select
    s.id,
    -- what is kept of the erased stands in the row, until it ends
    case when s.erased_at is not null then 0 else coalesce(p.allowed, 0) & o.mask & r.mask | (1::bigint << 62) end,
    case when s.erased_at is not null then 0 else coalesce(p.possible, 0) & o.mask & r.mask end | (1::bigint << 62),
    case
      when s.erased_at is not null or r.mask = 0 then 'infinity'
      when p.allowed & o.mask & r.mask <> p.possible & o.mask & r.mask then '-infinity'
      else coalesce(least(p.until, r.until), 'infinity')
    end
  from gdpr_internal.subject as s
  cross join lateral (
    -- exceptions are looked for only where there is something to be excepted from
    select case when x.restricted then coalesce(e.mask, 0) else -1 end as mask, e.until
    from (
      select exists (
        select from gdpr_internal.restriction_record as x
        where x.subject_id = s.id
          and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = x.id)
      ) as restricted
    ) as x
    left join lateral (
      select bit_or(1::bigint << y.purpose_id) as mask, min(y.valid_until) as until
      from gdpr_internal.standing_exception as y
      where x.restricted and y.subject_id = s.id
    ) as e on true
  ) as r
  cross join lateral (
    select ~coalesce(bit_or(1::bigint << x.purpose_id), 0) as mask from gdpr_internal.standing_objection as x where x.subject_id = s.id
  ) as o
  cross join lateral (
    select
      bit_or(1::bigint << x.purpose_id) as possible,
      coalesce(bit_or(1::bigint << x.purpose_id) filter (where x.valid_from <= statement_timestamp()), 0) as allowed,
      min(case when x.valid_from > statement_timestamp() then x.valid_from else x.valid_until end) as until
    from (
      select b.purpose_id, b.valid_from, b.valid_until
      from gdpr_internal.held_basis as b
      where b.subject_id = s.id
      union all
      select c.purpose_id, '-infinity'::timestamptz, c.holds_until
      from gdpr_internal.consent_state as c
      where c.subject_id = s.id
    ) as x
    where x.valid_until > statement_timestamp()
  ) as p
  where s.id = any (p_subjects);
end
$function$;
comment on function gdpr_internal.gate(bigint[]) is
  'The gate of persons from the evidence: bits allowed at statement_timestamp(), bits that are or will be allowed by what is recorded, and the first instant at which a bit may change (-infinity: ask the evidence each time).';

create or replace function gdpr_internal.still_allowed(p_subject bigint, p_mask bigint)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_allowed bigint;
begin
  if p_subject is null then
    return true;
  end if;
  select g.allowed into v_allowed from gdpr_internal.gate(array[p_subject]) as g;
  return coalesce(v_allowed & p_mask <> 0, false);
end
$function$;
comment on function gdpr_internal.still_allowed(bigint, bigint) is
  'Whether a person may be processed for one of the purposes in p_mask at this very statement.';

create or replace function gdpr_policy.still_allowed(p_subject bigint, p_purposes bigint, p_role name, p_claim text)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_internal.still_allowed(p_subject, p_purposes & gdpr_policy.purpose_mask(p_role, p_claim));
end
$function$;
comment on function gdpr_policy.still_allowed(bigint, bigint, name, text) is
  'The slow and exact path of the row policies, for rows past the instant at which their gate may change: asks the evidence.';

create or replace function gdpr_internal.refuse_deferred(p_relation regclass)
returns void
language plpgsql
volatile
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if exists (
    select from pg_trigger as g where g.tgrelid = p_relation and g.tgdeferrable and not g.tgisinternal
  ) then
    perform gdpr_internal.refuse('deferred_trigger', p_relation::text);
  end if;
end
$function$;
comment on function gdpr_internal.refuse_deferred(regclass) is
  'A deferred trigger that the owner of a table planted would run at commit, as the officer who erases or restricts. Error: PR604.';

create or replace function gdpr_internal.remember_worker()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.worker_function;
  insert into gdpr_internal.worker_function (function, definer, settings, grants)
  select p.proname, p.prosecdef, p.proconfig, p.proacl
  from pg_proc as p
  where p.pronamespace = 'gdpr_generated'::regnamespace and p.proowner = 'gdpr_worker'::regrole;
end
$function$;
comment on function gdpr_internal.remember_worker() is 'Notes the functions of gdpr_worker after they were generated.';

create or replace function gdpr_internal.require_path(p_path text)
returns void
language plpgsql
volatile
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_path <> 'pg_catalog, pg_temp' then
    perform gdpr_internal.refuse('session_changed', 'search_path');
  end if;
end
$function$;
comment on function gdpr_internal.require_path(text) is
  'Refuses to go on when the search_path of the caller is no longer what its SET clause said: a plain SET in planted code outlives that clause, and the caller would look for its operators and functions there. Error: PR411.';

create or replace function gdpr_internal.require_worker(p_path text default current_setting('search_path'))
returns void
language plpgsql
volatile
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- the default is evaluated by the caller
  perform gdpr_internal.require_path(p_path);
  -- volatile, to see what this very statement has changed.
  -- code planted in a table runs as gdpr_worker while that table is written; it could ALTER, GRANT or DROP gdpr_worker's own
  -- functions. Asked before and after each call, so that no such change is committed.
  if exists (
    select
    from gdpr_internal.worker_function as w
    left join pg_proc as p on p.proname = w.function and p.pronamespace = 'gdpr_generated'::regnamespace
    where (p.proowner, p.prosecdef, p.proconfig, p.proacl) is distinct from ('gdpr_worker'::regrole::oid, w.definer, w.settings, w.grants)
  ) then
    perform gdpr_internal.refuse('drifted', 'functions of gdpr_worker');
  end if;
end
$function$;
comment on function gdpr_internal.require_worker(text) is
  'Refuses to go on when functions of gdpr_worker are not what was generated, or when code that ran in them changed the search_path of their caller. Errors: PR409, PR411.';

create or replace function gdpr_internal.deferrable_writes()
returns text
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select coalesce(string_agg(concat_ws(' ',
      d.relation, pg_stat_get_xact_tuples_inserted(d.relation), pg_stat_get_xact_tuples_updated(d.relation), pg_stat_get_xact_tuples_deleted(d.relation)
    ), ', ' order by d.relation), '')
    from (
      select distinct g.tgrelid as relation
      from pg_trigger as g
      where g.tgdeferrable and (
        -- gdprdb's own are no other's code
        not g.tgisinternal and g.tgrelid <> all (array['gdpr_internal.own_change', 'gdpr_internal.read_note']::regclass[])
        -- foreign keys are checked as the owner of a table, constraints over functions as whoever commits
        or g.tgfoid = 'unique_key_recheck()'::regprocedure and exists (
          -- functions of PostgreSQL itself are no dependencies
          select from pg_depend as x
          where x.classid = 'pg_class'::regclass and x.objid = g.tgconstrindid
            and x.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
        )
      )
    ) as d
  );
end
$function$;
comment on function gdpr_internal.deferrable_writes() is
  'How many rows this transaction wrote in each table from which code can be put off until commit.';

create or replace function gdpr_internal.function_writes()
returns text
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return case when current_setting('track_counts')::boolean then concat_ws(
    ' ', pg_stat_get_xact_tuples_inserted('pg_proc'::regclass), pg_stat_get_xact_tuples_updated('pg_proc'::regclass),
    pg_stat_get_xact_tuples_deleted('pg_proc'::regclass)
  ) end;
end
$function$;
comment on function gdpr_internal.function_writes() is
  'How often this transaction has made, changed or dropped a function, what was taken back included; null where nobody counts.';

create or replace function gdpr_internal.before_worker()
returns text
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_worker();
  return concat(gdpr_internal.function_writes(), '/', gdpr_internal.deferrable_writes());
end
$function$;
comment on function gdpr_internal.before_worker() is
  'Called before a function of gdpr_worker that touches rows; what it returns is for after_worker(). Error: PR409.';

create or replace function gdpr_internal.after_worker(p_before text, p_path text default current_setting('search_path'))
returns void
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_path(p_path);
  -- looking at each function takes ten times as long as asking whether one was changed since
  if split_part(p_before, '/', 1) is distinct from gdpr_internal.function_writes() then
    perform gdpr_internal.require_worker(p_path);
  end if;
  -- what planted code leaves behind would run later, with the rights of the officer whose session this is
  if substr(p_before, strpos(p_before, '/') + 1) is distinct from gdpr_internal.deferrable_writes() then
    perform gdpr_internal.refuse('deferred_trigger', 'a table that was written along');
  elsif exists (select from pg_cursors as c where c.is_holdable and c.creation_time = statement_timestamp()) then
    perform gdpr_internal.refuse('session_changed', 'cursor');
  elsif pg_my_temp_schema() <> 0 and exists (
    select from pg_class as c where c.relnamespace = pg_my_temp_schema() and c.relowner = 'gdpr_worker'::regrole
  ) then
    perform gdpr_internal.refuse('session_changed', 'temporary table');
  end if;
end
$function$;
comment on function gdpr_internal.after_worker(text, text) is
  'Called right after a function of gdpr_worker that touches rows, with what before_worker() returned: refuses to go on when code planted in a table left something behind that would run with the rights of others. Errors: PR409, PR411, PR604.';

create or replace function gdpr_internal.spread_gate(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := gdpr_internal.before_worker();
begin
  perform gdpr_generated.spread_gate(p_subjects);
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr_internal.spread_gate(bigint[]) is 'Copies the gate of persons to their rows in every protected table.';

create or replace function gdpr_internal.refresh_gate(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_changed bigint[];
begin
  -- rows being inserted for these persons hold a share lock here: they are waited for, and seen by the next statement
  perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for no key update;
  with changed as (
    update gdpr_internal.subject as s
    set purposes = g.possible, until = g.until
    from gdpr_internal.gate(p_subjects) as g
    where s.id = g.subject_id
      -- a gate that asks the evidence each time is touched all the same: sessions with an older snapshot have to fail here
      and ((s.purposes, s.until) is distinct from (g.possible, g.until) or g.until = '-infinity')
    returning s.id
  )
  select array_agg(c.id) into v_changed from changed as c;
  if v_changed is not null then
    perform gdpr_internal.spread_gate(v_changed);
  end if;
end
$function$;
comment on function gdpr_internal.refresh_gate(bigint[]) is
  'Derives the gate of these persons anew and, where it changed, spreads it to all their rows, one statement per table.';

create or replace function gdpr.tidy_gates(p_limit integer default 10000)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[];
begin
  select array_agg(d.id)
  into v_subjects
  from (
    select s.id from gdpr_internal.subject as s
    where s.until <= statement_timestamp()
      -- until a basis of the future begins, the evidence has to be asked anyway
      and (s.until > '-infinity' or not exists (
        select from gdpr_internal.basis_record as b where b.subject_id = s.id and b.valid_from > statement_timestamp()
      ))
    limit p_limit
  ) as d;
  perform gdpr_internal.refresh_gate(coalesce(v_subjects, '{}'));
  return coalesce(cardinality(v_subjects), 0);
end
$function$;
comment on function gdpr.tidy_gates(integer) is
  'Brings up to p_limit expired gates up to date and returns how many. Never needed for correctness: rows past their instant are checked against the evidence, this only makes them fast again.';

create or replace function gdpr_policy.refuse_write(p_subject bigint, p_role name, p_claim text)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose record;
begin
  select p.id, p.name, p.basis into v_purpose
  from gdpr_internal.purpose as p
  where 1::bigint << p.id = gdpr_policy.purpose_mask(p_role, p_claim);
  return gdpr_internal.refuse(
    case
      when exists (select from gdpr_internal.subject as s where s.id = p_subject and s.erased_at is not null) then 'erased'
      when exists (
        select from gdpr_internal.restriction_record as r
        where r.subject_id = p_subject
          and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = r.id)
      ) then 'restricted'
      when exists (
        select from gdpr_internal.standing_objection as o where o.subject_id = p_subject and o.purpose_id = v_purpose.id
      ) then 'objected'
      when v_purpose.basis = 'consent' then 'consent_missing'
      else 'basis_missing'
    end,
    format('subject %s, purpose %s', p_subject, v_purpose.name)
  );
end
$function$;
comment on function gdpr_policy.refuse_write(bigint, name, text) is
  'Says why a row may not be written. Errors: PR201, PR301, PR601, PR602, PR603.';

create or replace function gdpr_internal.check_write(p_subject bigint, p_purposes bigint, p_role name, p_claim text)
returns void
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- who passes row security passes this, too; and a person who confirms a registration needs nobody's basis but that
  if not gdpr_internal.confirming() and not gdpr_policy.still_allowed(p_subject, p_purposes, p_role, p_claim)
    and not exists (select from pg_roles as r where r.rolname = p_role and (r.rolsuper or r.rolbypassrls))
  then
    perform gdpr_policy.refuse_write(p_subject, p_role, p_claim);
  end if;
end
$function$;
comment on function gdpr_internal.check_write(bigint, bigint, name, text) is
  'Asked by the triggers of a table for a row that the gate may not let in: the row policy would refuse it too, without a reason.';

create or replace function gdpr_internal.require_subject(p_subject bigint)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_erased boolean;
begin
  select s.erased_at is not null into v_erased from gdpr_internal.subject as s where s.id = p_subject;
  if v_erased is null then
    perform gdpr_internal.refuse('unknown_subject');
  elsif v_erased then
    perform gdpr_internal.refuse('erased');
  end if;
end
$function$;
comment on function gdpr_internal.require_subject(bigint) is 'Errors: PR101 no such person, PR603 erased.';
