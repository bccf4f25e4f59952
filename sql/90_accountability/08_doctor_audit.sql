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
    case
      when l.last_seal is null then format('audit records were never sealed: who rules the server can change those since %s unseen', date(l.oldest at time zone 'UTC'))
      else format('%s audit records are not sealed, the oldest of %s; %s wait for a transaction that is still open', l.unsealed, date(l.oldest at time zone 'UTC'), l.waiting)
    end,
    'select gdpr.schedule_jobs(), or gdprdb audit seal --follow 60; where records wait, end the transaction (pg_stat_activity, pg_prepared_xacts).'
  from gdpr.audit_lag() as l
  where l.oldest < statement_timestamp() - interval '1 day';
end;
comment on function gdpr_internal.doctor_audit() is 'Findings about audit records that are not sealed for longer than a day.';
