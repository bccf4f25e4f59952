-- [code] The nightly jobs, where pg_cron is there to run them.
-- GDPR Art. 5(1)(e). Called by: gdpr_admin. They run as whoever schedules them.

set local role gdpr_owner;

create or replace function gdpr.schedule_jobs()
returns table (job text, schedule text)
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_jobs text[] := array[
    'gdprdb tidy', '7 1 * * *', 'select count(*) from gdpr.tidy()',
    'gdprdb retention', '*/5 2-4 * * *', 'select count(*) from gdpr.run_retention()',
    'gdprdb seal', '*/10 * * * *', 'select gdpr.seal_audit()'
  ];
begin
  if gdpr.policy() #> '{settings,audit_retain}' is not null then
    v_jobs := v_jobs || array['gdprdb audit', '37 4 * * *', 'select count(*) from gdpr.drop_audit()'];
  end if;
  -- a function of that name that somebody else made would run with the caller's rights
  if not exists (
    select from pg_proc as p
    join pg_roles as o on o.oid = p.proowner
    where p.oid = to_regprocedure('cron.schedule(text, text, text)') and o.rolsuper
  ) then
    perform gdpr.refuse_schedule();
  end if;
  for i in 0 .. cardinality(v_jobs) / 3 - 1 loop
    job := v_jobs[3 * i + 1];
    schedule := v_jobs[3 * i + 2];
    execute format('select %I.schedule($1, $2, $3)', 'cron') using job, schedule, v_jobs[3 * i + 3];
    return next;
  end loop;
end
$function$;
comment on function gdpr.schedule_jobs() is
  'Has pg_cron run gdpr.tidy() and gdpr.run_retention() each night, gdpr.seal_audit() every ten minutes and, where the policy has settings.audit_retain, gdpr.drop_audit() each night, as the role that calls this; asked twice, they are replaced. Needs USAGE on schema cron. Errors: PR805 there is no pg_cron in this database. Art. 5(1)(e).';

create or replace function gdpr.refuse_schedule()
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.refuse('cron_missing');
end;
comment on function gdpr.refuse_schedule() is 'Raises PR805.';
