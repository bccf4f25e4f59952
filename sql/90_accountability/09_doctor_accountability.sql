-- [code] Findings about breaches whose hours run, about impact assessments that are missing, and about who answers for it all.
-- GDPR Art. 5(2), 30, 33, 35. Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_accountability()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    case when b.overdue then 'error' else 'warning' end, 'breach', format('breach %s', b.breach_id),
    case
      when b.overdue then format('the authority was to be told by %s', to_char(b.notify_by at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'))
      else format('%s; 72 hours end at %s', replace(b.status, '_', ' '), to_char(b.notify_by at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'))
    end,
    'gdprdb breach show says what is to be done next.'
  from gdpr.breach as b
  where b.status <> 'closed'
  union all
  select 'warning', 'impact_assessment', d.purpose, format('no impact assessment is in force: %s', array_to_string(d.reasons, ', ')),
    'gdpr.record_impact_assessment(), and another officer approves it.'
  from gdpr.impact_assessment_due as d
  union all
  select 'warning', 'impact_assessment', format('%s, version %s', a.name, a.version), 'its review is due',
    'gdpr.approve_impact_assessment() renews it, gdpr.record_impact_assessment() makes a new version.'
  from gdpr.impact_assessment as a
  where a.status = 'review_due'
    and not exists (select from gdpr.impact_assessment as n where n.name = a.name and n.status = 'in_force')
  union all
  select 'info', 'controller', 'settings', 'the policy does not name the controller', 'settings.controller: record of processing, receipts and letters name it.'
  where not exists (select from gdpr_internal.setting as s where s.name = 'controller')
    and exists (select from gdpr_internal.protected_table as t where t.unprotected_at is null);
end;
comment on function gdpr_internal.doctor_accountability() is
  'Findings about breaches that are open, purposes without the impact assessment that they call for, reviews that are due, and a controller that nobody names.';
