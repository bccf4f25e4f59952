-- [code] What doctor() finds about the seals over audit records.
-- GDPR Art. 5(2), Art. 32(1)(b).

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_audit()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    'warning', 'audit_seal', 'gdpr_internal.audit_record',
    format(
      '%s: who rules the server can change those since %s unseen',
      case
        when l.last_seal is null then 'audit records were never sealed'
        when l.unsealed = 1 then '1 audit record is not sealed'
        else format('%s audit records are not sealed', l.unsealed)
      end,
      (l.oldest at time zone 'UTC')::date
    ),
    case
      when l.waiting > 0 then 'A transaction is open (pg_stat_activity, pg_prepared_xacts): what it recorded, and what came after it, waits for its end.'
      else 'gdpr.schedule_jobs() has pg_cron seal, or gdprdb audit seal --follow 60.'
    end
  from gdpr.audit_lag() as l
  where l.oldest < statement_timestamp() - interval '1 day';
end;
comment on function gdpr_internal.doctor_audit() is 'Findings about audit records that are not sealed for longer than a day.';
