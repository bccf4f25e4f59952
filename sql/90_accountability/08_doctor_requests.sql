-- [code] Findings about persons who wait: requests past their last day, objections that nobody decides about.
-- GDPR Art. 12(3), 21(1). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_requests()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'warning', 'request', r.kind, format('%s overdue, since %s', count(*), min(r.due_on)), 'gdprdb request board shows what they miss.'
  from gdpr_internal.request_state as r
  where not r.closed and r.state <> 'identity_pending' and r.due_at <= statement_timestamp()
  group by r.kind
  union all
  -- closed without a decision, a request takes the objection off the board, and the purpose stays closed
  select 'warning', 'objection', p.name, format('%s wait for a decision, and no open request reminds of it', count(*)),
    'gdprdb objection list --status pending; gdprdb objection decide.'
  from gdpr_internal.standing_objection as o
  join gdpr_internal.purpose as p on p.id = o.purpose_id
  join gdpr_internal.subject as s on s.id = o.subject_id and s.erased_at is null
  left join gdpr_internal.request_state as r on r.id = o.request_id and not r.closed
  where o.pending and r.id is null
    and (o.request_id is not null or o.recorded_at < statement_timestamp() - interval '1 month')
    and not exists (select from gdpr_internal.objection_decision as d where d.objection_id = o.id)
  group by p.name;
end;
comment on function gdpr_internal.doctor_requests() is
  'Findings about requests that are overdue, and about objections that wait for a decision with no open request, or for a month without any.';
