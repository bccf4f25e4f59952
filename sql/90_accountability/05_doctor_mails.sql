-- [code] Findings about mails: persons are not told what they have to be told while nobody sends.
-- GDPR Art. 12(1), Art. 5(2). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_mails()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'warning', 'mails', o.template, format('mails given up: %s', count(*)),
    'gdprdb outbox list --dead shows why; gdprdb outbox retry and gdprdb outbox drop decide.'
  from gdpr_internal.outbox as o
  where o.dead_at is not null
  group by o.template
  union all
  -- an attempt sets the time of the next one: what is long due was not even taken
  select 'warning', 'mails', o.template, format('mails due for more than 15 minutes: %s', count(*)),
    'No sender is running, or it does not keep up: gdprdb outbox send --follow.'
  from gdpr_internal.outbox as o
  where o.dead_at is null and o.due_at < statement_timestamp() - interval '15 minutes'
  group by o.template;
end;
comment on function gdpr_internal.doctor_mails() is 'Findings about mails that were given up, or that nobody sends.';
