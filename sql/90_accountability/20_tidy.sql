-- [code] Tidying: what time has made of no effect is deleted, what it has made slow is made fast again.
-- GDPR Art. 5(1)(e). Called by: gdpr_admin, a nightly job. Correctness never waits for it.

set local role gdpr_owner;

create or replace function gdpr.tidy_tokens(p_limit integer default 10000)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_deleted integer;
begin
  with past as (
    select t.digest from gdpr_internal.token as t
    where case
      when t.kind in ('sign_in', 'session') then t.valid_until < statement_timestamp()
      -- an answer by phone that comes late still makes the link one that withdraws
      when t.used_at is null then t.valid_until < statement_timestamp() - interval '1 month'
      when t.kind = 'consent' then t.used_at < statement_timestamp() - interval '1 year' and not exists (
        select from gdpr_internal.consent_request as q
        join gdpr_internal.consent_state as c on c.subject_id = q.subject_id and c.purpose_id = any (q.purposes)
        where q.id = t.reference and c.status in ('granted', 'waiting')
      )
    end
    limit p_limit
    for update skip locked
  )
  delete from gdpr_internal.token as t using past as p where t.digest = p.digest;
  get diagnostics v_deleted = row_count;
  delete from gdpr_internal.sign_in_mail as m
  where m.mailed_at <= statement_timestamp() - gdpr_internal.portal_time('resend');
  delete from gdpr_internal.portal_reading as r where r.since <= statement_timestamp() - interval '1 hour';
  return v_deleted;
end
$function$;
comment on function gdpr.tidy_tokens(integer) is
  'Deletes up to p_limit tokens and returns how many: sign-ins and sessions of the portal that are over, those that were not used a month after their time, and those of questions answered more than a year ago by which nothing can be withdrawn any more. Art. 5(1)(e).';

create or replace function gdpr.tidy(p_limit integer default 10000)
returns table (what text, tidied integer)
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- first: it may take minutes, and holds no rows that somebody waits for
  select 'audit_indexes', gdpr_internal.index_audit_months()
  union all
  select 'registrations', gdpr.tidy_registrations(p_limit)
  union all
  select 'tokens', gdpr.tidy_tokens(p_limit)
  union all
  select 'gates', gdpr.tidy_gates(p_limit)
  union all
  select 'blocklist', gdpr.tidy_blocklist(p_limit)
  union all
  select 'imports', gdpr.tidy_imports(p_limit)
  union all
  select 'erasures', gdpr_internal.finish_erasures(p_limit)
  union all
  -- last: it may lock out writers until the end of the transaction
  select 'audit_months', gdpr_internal.make_audit_partitions();
end;
comment on function gdpr.tidy(integer) is
  'The nightly job: tidy_registrations(), tidy_tokens(), tidy_gates(), tidy_blocklist(), tidy_imports(), partitions of the audit for the months ahead, indexes for the months that are over, and the erasure of what a period kept of the erased until now, up to p_limit of each; returns how many there were. Repeat until all are 0. Never needed for correctness. Art. 5(1)(e).';
