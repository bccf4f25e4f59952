-- [code] The bases that a table gives by default: who stands in it has them, and they follow the policy and the assessments.
-- GDPR Art. 6(1). Called by: the steps of gdpr.apply(), decisions about assessments.

set local role gdpr_owner;

create or replace view gdpr_internal.default_basis as
select
  b.table_id,
  b.purpose_id,
  b.basis,
  case when b.basis = 'undetermined' then 'in the table before gdprdb' else 'by default of the table' end as reason,
  b.valid_until as recorded_until,
  case when b.basis = 'legitimate_interests' then p.assessed_until else b.valid_until end as valid_until
from gdpr_internal.table_basis as b
join gdpr_internal.purpose as p on p.id = b.purpose_id
where case when b.basis = 'legitimate_interests' then p.assessed_until else b.valid_until end > statement_timestamp();
comment on view gdpr_internal.default_basis is
  'Bases that a table gives to whoever enters it now: legitimate interests only while an approved assessment carries them; undetermined ones, until the grace period ends, to the persons of rows that were there before gdprdb. recorded_until: what the record says; valid_until: until when it holds as things stand.';

create or replace function gdpr_internal.put_table_bases(p_table smallint)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before jsonb := (
    select jsonb_agg(b order by b.purpose_id, b.basis) from gdpr_internal.table_basis as b where b.table_id = p_table
  );
begin
  delete from gdpr_internal.table_basis as b where b.table_id = p_table;
  insert into gdpr_internal.table_basis (table_id, purpose_id, basis, valid_until)
  select t.id, p.id, d.basis, d.valid_until
  from gdpr_internal.protected_table as t
  cross join lateral jsonb_array_elements_text(t.definition -> 'purposes') as n (name)
  join gdpr_internal.purpose as p on p.name = n.name
  cross join lateral (
    select p.basis, 'infinity'::timestamptz as valid_until where p.basis <> 'consent'
    union all
    select 'undetermined', t.protected_at + p.grace
    where p.basis = 'consent' or (p.basis = 'legitimate_interests' and not exists (
      select from gdpr_internal.assessment as a
      join gdpr_internal.assessment_decision as x on x.assessment_id = a.id
      where a.purpose_id = p.id
    ))
  ) as d
  where t.id = p_table and d.valid_until is not null;
  return v_before is distinct from (
    select jsonb_agg(b order by b.purpose_id, b.basis) from gdpr_internal.table_basis as b where b.table_id = p_table
  );
end
$function$;
comment on function gdpr_internal.put_table_bases(smallint) is
  'Derives from policy and assessments which bases a table gives: the purpose''s own, and for rows from before gdprdb a grace period where that one is consent, or legitimate interests of which no assessment was decided. Returns whether anything changed.';

create or replace function gdpr_internal.give_bases(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into gdpr_internal.basis_end (basis_id, reason, by_policy)
  select r.id, 'the policy gives another basis or grace period', true
  from gdpr_internal.basis_record as r
  where r.by_table = p_table and r.basis = 'undetermined' and r.valid_until > statement_timestamp()
    and not exists (
      select from gdpr_internal.table_basis as b
      where b.table_id = p_table and b.purpose_id = r.purpose_id and b.basis = r.basis and b.valid_until = r.valid_until
    )
  on conflict (basis_id) do nothing;
  insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, valid_until, by_table)
  select d.subject_id, b.purpose_id, b.basis, b.reason, b.recorded_until, p_table
  from (
    select s.subject_id, bool_or(s.kind = 'before_gdprdb') as before
    from gdpr_internal.source as s
    join gdpr_internal.subject as p on p.id = s.subject_id
    where s.table_id = p_table and p.erased_at is null
    group by s.subject_id
  ) as d
  join gdpr_internal.default_basis as b on b.table_id = p_table
  where (b.basis <> 'undetermined' or d.before) and not exists (
    select from gdpr_internal.basis_record as r
    where r.subject_id = d.subject_id and r.purpose_id = b.purpose_id and r.basis = b.basis and r.by_table is not null
      -- what somebody ended stays ended
      and not exists (select from gdpr_internal.basis_end as e where e.basis_id = r.id and e.by_policy)
  );
end
$function$;
comment on function gdpr_internal.give_bases(smallint) is 'Gives the persons in a table the bases that it gives by default now and that no table gave them before; their gates are still to be refreshed.';

create or replace function gdpr_internal.refresh_table(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refresh_gate(
    array(select distinct s.subject_id from gdpr_internal.source as s where s.table_id = p_table)
  );
end
$function$;
comment on function gdpr_internal.refresh_table(smallint) is 'Refreshes the gates of all persons in a table.';

create or replace function gdpr_internal.follow_tables(p_purpose smallint, p_all boolean)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table record;
  v_begun boolean;
begin
  for v_table in
    select t.id, t.fingerprint is not distinct from gdpr_internal.fingerprint(t.relation) as settled
    from gdpr_internal.protected_table as t
    where t.unprotected_at is null and t.purpose_mask & (1::bigint << p_purpose) <> 0
  loop
    continue when not gdpr_internal.put_table_bases(v_table.id) and not p_all;
    v_begun := gdpr_internal.begin_change('bases') or coalesce(v_begun, false);
    perform gdpr_internal.generate_triggers(v_table.id);
    perform gdpr_internal.remember_controls(v_table.id, case when not v_table.settled then 'function' end);
    perform gdpr_internal.give_bases(v_table.id);
    perform gdpr_internal.refresh_table(v_table.id);
  end loop;
  perform gdpr_internal.end_change(v_begun);
end
$function$;
comment on function gdpr_internal.follow_tables(smallint, boolean) is
  'Tables of a purpose (p_all: also those to which nothing seems to have changed) give the bases that policy and assessments say now, to new rows and to the persons who are there.';

create or replace function gdpr_internal.follow_basis(p_purpose smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[];
begin
  perform gdpr_internal.follow_tables(p_purpose, false);
  with ended as (
    insert into gdpr_internal.basis_end (basis_id, reason, by_policy)
    select b.id, 'the policy rests the purpose on another basis', true
    from gdpr_internal.basis_record as b
    join gdpr_internal.purpose as p on p.id = b.purpose_id
    where b.purpose_id = p_purpose and b.by_table is not null and b.basis <> p.basis and b.basis <> 'undetermined'
      and not exists (select from gdpr_internal.basis_end as e where e.basis_id = b.id)
    returning basis_id
  )
  select array_agg(distinct b.subject_id) into v_subjects
  from ended as e
  join gdpr_internal.basis_record as b on b.id = e.basis_id;
  perform gdpr_internal.refresh_gate(v_subjects);
end
$function$;
comment on function gdpr_internal.follow_basis(smallint) is
  'After the policy rests a purpose on another basis: bases that tables gave by default end, the new ones are given.';

create or replace function gdpr_internal.follow_assessment(p_purpose smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.follow_tables(p_purpose, true);
  perform gdpr_internal.refresh_gate(array(
    select distinct b.subject_id from gdpr_internal.basis_record as b where b.purpose_id = p_purpose and b.basis = 'legitimate_interests'
  ));
end
$function$;
comment on function gdpr_internal.follow_assessment(smallint) is
  'After a decision about an assessment of a purpose: its tables give legitimate interests or give them no longer, and every person who rests on them gets the gate anew.';
