-- [code] Erasure before and after: the plan, what is finished when a period or a hold ends, the texts a human has to read.
-- GDPR Art. 17, 17(3), 5(1)(e). Called by: gdpr_dpo; finish_erasures() by tidy, retention and the release of a hold.

set local role gdpr_owner;

create or replace function gdpr.erasure_plan(p_subject bigint)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_plan jsonb;
  v_constraint text;
  v_detail text;
begin
  perform gdpr_internal.require_subject(p_subject);
  begin
    v_plan := gdpr.erase(p_subject, 'plan');
    -- the variable outlives what this undoes
    raise exception using errcode = 'PR000', message = 'planned';
  exception
    when sqlstate 'PR000' then
      null;
    when foreign_key_violation then
      get stacked diagnostics v_constraint = constraint_name, v_detail = pg_exception_detail;
      if v_constraint <> 'gdpr_erasure_blocked' then
        raise;
      end if;
      v_plan := jsonb_build_object('subject', p_subject, 'blocked_by', v_detail);
  end;
  return v_plan - 'erased_at' || jsonb_build_object('planned_at', statement_timestamp());
end
$function$;
comment on function gdpr.erasure_plan(bigint) is
  'What erasing a person would do, as the receipt would say it: the erasure is carried out and undone. blocked_by: the table and constraint outside the policy that stand in the way. Errors: PR101, PR603 erased already, PR005, PR605, PR409. Art. 17.';

create or replace function gdpr_internal.finish_erasures(p_limit integer, p_subjects bigint[] default null)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_subjects bigint[];
  v_facts gdpr_internal.erased_fact[];
  v_destroyed bigint[];
begin
  perform gdpr_internal.require_read_committed();
  if p_subjects is null and not gdpr_generated.is_home() and gdpr.whereabouts() = 'restored' then
    -- what was held after the backup is not known yet
    return 0;
  end if;
  select array_agg(l.id order by l.id)
  into v_subjects
  from (
    select s.id
    from gdpr_internal.subject as s
    where s.id in (
      select r.subject_id from gdpr_internal.erasure_remainder as r
      where case when p_subjects is null then r.due_at <= statement_timestamp() else r.subject_id = any (p_subjects) end
    )
    order by s.id
    limit p_limit
    for update skip locked
  ) as l;
  if v_subjects is null then
    return 0;
  end if;
  v_facts := gdpr_internal.erase_rows(v_subjects);
  v_destroyed := gdpr_internal.note_remainder(v_subjects, v_facts);
  insert into gdpr_internal.erasure_completion (subject_id, receipt)
  select s.id, jsonb_build_object(
    'subject', s.id, 'erased_at', statement_timestamp(), 'tables', coalesce(r.tables, '[]'), 'key_destroyed', d.id is not null
  )
  from unnest(v_subjects) as s (id)
  left join gdpr_internal.receipt_tables(v_subjects, v_facts) as r on r.subject_id = s.id
  left join unnest(v_destroyed) as d (id) on d.id = s.id
  -- asked again before anything ended, it writes nothing
  where d.id is not null or exists (select from unnest(v_facts) as f where f.subject_id = s.id and f.what <> 'kept');
  perform gdpr_internal.audit_events('ERASE', v_subjects, 'finished', v_subjects, '{}');
  return cardinality(v_subjects);
end
$function$;
comment on function gdpr_internal.finish_erasures(integer, bigint[]) is
  'Erases what was kept of up to p_limit erased persons and is due, destroys their keys when nothing is left, adds to the ledger; returns how many persons. p_subjects: these, whatever is due of them (after a hold was released); otherwise nothing in a restored database, until the ledger is replayed. Errors: PR005, PR605, PR409. Art. 17, 5(1)(e).';

create or replace view gdpr.erasure_ledger as
select
  e.id, e.subject_id, e.reason, e.erased_at, e.recorded_by, e.receipt,
  (select sum(r.row_count) from gdpr_internal.erasure_remainder as r where r.subject_id = e.subject_id) as kept_rows,
  (select min(r.due_at) from gdpr_internal.erasure_remainder as r where r.subject_id = e.subject_id) as kept_until,
  (select jsonb_agg(c.receipt order by c.id) from gdpr_internal.erasure_completion as c where c.subject_id = e.subject_id) as finished
from gdpr_internal.erasure_record as e;
comment on view gdpr.erasure_ledger is
  'Persons erased: number, time, reason, receipt. kept_rows, kept_until: what a period or a hold still keeps, and when the first of that ends; finished: receipts of what was erased later. No values. Art. 17, Art. 5(2).';

create or replace view gdpr.review_due as
select r.id as review_id, r.subject_id, t.relation as table_name, r.column_name, r.row_key, r.flagged_at
from gdpr_internal.erasure_review as r
join gdpr_internal.protected_table as t on t.id = r.table_id;
comment on view gdpr.review_due is
  'Free text in rows that outlived an erasure: a human reads whether it speaks of the erased, and says so with gdpr.finish_review(). row_key: the primary key of the row. Never the text. Art. 17.';

create or replace function gdpr.finish_review(p_review bigint, p_outcome text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_review gdpr_internal.erasure_review;
begin
  if p_outcome is null or p_outcome not in ('kept', 'cleared') then
    perform gdpr_internal.refuse('invalid_argument', 'outcome is kept or cleared');
  end if;
  delete from gdpr_internal.erasure_review as r where r.id = p_review returning r.* into v_review;
  if v_review.id is null then
    perform gdpr_internal.refuse('review_done');
  end if;
  perform gdpr_internal.audit_event('REVIEW', v_review.subject_id, jsonb_build_object(
    'review', p_review, 'table', v_review.table_id, 'column', v_review.column_name, 'outcome', p_outcome
  ));
end
$function$;
comment on function gdpr.finish_review(bigint, text) is
  'Says that a text of gdpr.review_due was read: cleared (it spoke of the erased, and was changed in the table) or kept. On record without the row. Errors: PR004, PR617 no such review. Art. 17.';
