-- [code] Findings about retention: rules that nobody carries out.
-- GDPR Art. 5(1)(e). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_retention()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'warning', 'retention', t.relation::text,
    case when p.finished_at is null then 'retention never ran' else format('retention has not come to its end since %s', p.finished_at::date) end,
    'Run gdprdb retention run each night'
      || case when to_regprocedure('cron.schedule(text, text, text)') is null then '.' else ', or let pg_cron do it: gdprdb retention schedule.' end
  from gdpr_internal.protected_table as t
  cross join gdpr_internal.retention_pass as p
  where t.mode = 'enforce' and t.id = any (gdpr_internal.retention_tables())
    and greatest(p.finished_at, t.protected_at) < statement_timestamp() - interval '7 days'
  union all
  select 'warning', 'erasure_batch', b.batch_id::text, format('persons who could not be erased: %s', count(*)),
    'gdpr.erasure_batch names the errors; gdprdb subject erase-batch --resume tries again with --retry.'
  from gdpr_internal.erasure_batch_person as b
  where b.failure is not null
  group by b.batch_id;
end;
comment on function gdpr_internal.doctor_retention() is 'Findings about retention that does not run, and about persons in batches who could not be erased.';
