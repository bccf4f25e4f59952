-- [code] Erasing many persons: a list, chunks in transactions of their own, and whoever comes next goes on.
-- GDPR Art. 17, Art. 5(1)(e). Called by: gdpr_dpo, gdprdb subject erase-batch, gdpr.run_retention() for persons whose erasure was approved.

set local role gdpr_owner;

create or replace function gdpr_internal.open_batch(p_subjects bigint[], p_reason text, p_proposed boolean)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_batch bigint;
begin
  if coalesce(cardinality(p_subjects), 0) = 0 or nullif(p_reason, '') is null then
    perform gdpr_internal.refuse('invalid_argument', 'the numbers of persons and a reason are needed');
  elsif exists (
    select from unnest(p_subjects) as p (id) where not exists (select from gdpr_internal.subject as s where s.id = p.id)
  ) then
    perform gdpr_internal.refuse('unknown_subject');
  end if;
  insert into gdpr_internal.erasure_batch (reason, proposed, actor)
  values (p_reason, p_proposed, gdpr_internal.context_setting('actor'))
  returning id into v_batch;
  insert into gdpr_internal.erasure_batch_person (batch_id, subject_id)
  select distinct v_batch, p.id from unnest(p_subjects) as p (id);
  perform gdpr_internal.audit_event('BATCH', null, jsonb_build_object('batch', v_batch, 'persons', cardinality(p_subjects), 'reason', p_reason));
  return v_batch;
end
$function$;
comment on function gdpr_internal.open_batch(bigint[], text, boolean) is
  'See gdpr.open_erasure_batch(). p_proposed: they were proposed, and are left out when that is so no more.';

create or replace function gdpr.open_erasure_batch(p_subjects bigint[], p_reason text)
returns bigint
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.open_batch(p_subjects, p_reason, false);
end;
comment on function gdpr.open_erasure_batch(bigint[], text) is
  'Decides that these persons are to be erased, and returns the number of the batch; gdpr.run_erasure_batch() erases them. Who was erased before counts as done. p_reason, the same for all, stays in the audit log and the ledger: no personal data in it. Errors: PR101 an unknown person, PR004. Art. 17.';

create or replace function gdpr_internal.erase_chunk(p_batch bigint, p_subjects bigint[], p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subject bigint;
  v_failure text;
  v_state text;
  v_name text;
begin
  -- what planted code may raise is anything; a chunk fails as a whole only for what is not one person's
  begin
    perform from gdpr.erase(p_subjects, p_reason);
    v_subject := null;
  exception
    when transaction_rollback or insufficient_resources or operator_intervention or lock_not_available
      or sqlstate 'PR005' or sqlstate 'PR401' or sqlstate 'PR402' or sqlstate 'PR409'
    then
      raise;
    -- somebody in the chunk cannot be erased: one by one, to find out who
    when others then
      if cardinality(p_subjects) = 1 then
        get stacked diagnostics v_state = returned_sqlstate, v_name = constraint_name;
        -- a name that planted code made up may be a value of the row
        v_failure := concat_ws(' ', v_state, (select e.name from gdpr.error_code as e where 'gdpr_' || e.name = v_name limit 1));
      else
        v_subject := p_subjects[1];
      end if;
  end;
  if v_subject is not null then
    foreach v_subject in array p_subjects loop
      perform gdpr_internal.erase_chunk(p_batch, array[v_subject], p_reason);
    end loop;
    return;
  end if;
  update gdpr_internal.erasure_batch_person as b
  set done_at = case when v_failure is null then statement_timestamp() end, failure = v_failure
  where b.batch_id = p_batch and b.subject_id = any (p_subjects);
end
$function$;
comment on function gdpr_internal.erase_chunk(bigint, bigint[], text) is
  'Erases some persons of a batch, at once, or one by one when one of them cannot be: that one is marked, the others go.';

create or replace function gdpr_internal.still_proposed(p_batch bigint, p_subjects bigint[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_kept bigint[];
  v_dropped bigint[];
begin
  -- who is deciding about one of them at this moment, or places a hold, is waited for, and who does so later waits for the erasure
  perform from gdpr_internal.retention_pass as p for update;
  perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for share;
  v_kept := array(select p.subject_id from gdpr_internal.proposable(p_subjects, p_batch) as p order by p.subject_id);
  with dropped as (
    delete from gdpr_internal.erasure_batch_person as b
    where b.batch_id = p_batch and b.subject_id = any (p_subjects) and b.subject_id <> all (v_kept)
    returning b.subject_id
  )
  select array_agg(d.subject_id) into v_dropped from dropped as d;
  if v_dropped is not null then
    perform gdpr_internal.audit_event('BATCH', null, jsonb_build_object('batch', p_batch, 'left_out', v_dropped));
  end if;
  return v_kept;
end
$function$;
comment on function gdpr_internal.still_proposed(bigint, bigint[]) is
  'Those of the persons of a batch for whom still nothing speaks; the others, who have a basis again, are held or restricted, or were erased meanwhile, are taken off its list, on record. They can be proposed again.';

create or replace function gdpr.run_erasure_batch(p_batch bigint, p_chunk integer default 500, out erased integer, out failed integer, out remaining bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_batch gdpr_internal.erasure_batch;
  v_subjects bigint[];
begin
  perform gdpr_internal.require_read_committed();
  select b.* into v_batch from gdpr_internal.erasure_batch as b where b.id = p_batch;
  if v_batch.id is null then
    perform gdpr_internal.refuse('batch_unknown');
  elsif coalesce(p_chunk < 1, true) then
    perform gdpr_internal.refuse('invalid_argument', 'at least one person at a time');
  end if;
  loop
    v_subjects := array(
      select b.subject_id from gdpr_internal.erasure_batch_person as b
      where b.batch_id = p_batch and b.done_at is null and b.failure is null
      order by b.subject_id
      limit p_chunk
      -- who else works on the batch takes the next ones
      for update skip locked
    );
    exit when v_subjects = '{}' or not v_batch.proposed;
    v_subjects := gdpr_internal.still_proposed(p_batch, v_subjects);
    exit when v_subjects <> '{}';
  end loop;
  if v_subjects <> '{}' then
    perform gdpr_internal.erase_chunk(p_batch, v_subjects, v_batch.reason);
  end if;
  select count(*) filter (where b.subject_id = any (v_subjects) and b.done_at is not null),
    count(*) filter (where b.subject_id = any (v_subjects) and b.failure is not null),
    count(*) filter (where b.done_at is null and b.failure is null)
  into erased, failed, remaining
  from gdpr_internal.erasure_batch_person as b
  where b.batch_id = p_batch;
end
$function$;
comment on function gdpr.run_erasure_batch(bigint, integer) is
  'Erases the next p_chunk persons of a batch; commit, and call again while remaining is not 0. After a crash whatever was not committed is still to come. Several sessions may work on one batch. failed: persons whose erasure ended in an error, marked and left out; gdpr.retry_erasure_batch() brings them back. Of a batch of gdpr.approve_erasures(), persons for whom something speaks again are taken off the list instead. Errors: PR803 no such batch, PR004, PR005. Art. 17.';

create or replace function gdpr.retry_erasure_batch(p_batch bigint)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_again bigint;
begin
  if not exists (select from gdpr_internal.erasure_batch as b where b.id = p_batch) then
    perform gdpr_internal.refuse('batch_unknown');
  end if;
  update gdpr_internal.erasure_batch_person as b set failure = null where b.batch_id = p_batch and b.failure is not null;
  get diagnostics v_again = row_count;
  if v_again > 0 then
    perform gdpr_internal.audit_event('BATCH', null, jsonb_build_object('batch', p_batch, 'retried', v_again));
  end if;
  return v_again;
end
$function$;
comment on function gdpr.retry_erasure_batch(bigint) is 'Puts the persons of a batch who could not be erased back to those still to come; returns how many. Error: PR803.';

create or replace view gdpr.erasure_batch as
select
  b.id as batch_id,
  b.reason,
  b.opened_at,
  b.opened_by,
  p.persons,
  p.erased,
  p.failed,
  p.persons - p.erased - p.failed as remaining,
  case when p.persons = p.erased then p.last_at end as finished_at,
  p.failures
from gdpr_internal.erasure_batch as b
cross join lateral (
  select count(*) as persons, count(x.done_at) as erased, count(x.failure) as failed, max(x.done_at) as last_at,
    (
      select jsonb_object_agg(f.failure, f.subjects)
      from (
        select y.failure, jsonb_agg(y.subject_id order by y.subject_id) as subjects
        from gdpr_internal.erasure_batch_person as y
        where y.batch_id = b.id and y.failure is not null
        group by y.failure
      ) as f
    ) as failures
  from gdpr_internal.erasure_batch_person as x
  where x.batch_id = b.id
) as p;
comment on view gdpr.erasure_batch is
  'Batches of erasures and how far they are. failures: numbers of persons by the code and name of the error that kept them from being erased. Art. 17, 5(2).';
