-- [code] What officers and auditors see of requests.
-- GDPR Art. 12(3), Art. 5(2), Art. 24. Read by: gdpr_dpo, gdpr_auditor (without what persons wrote).

set local role gdpr_owner;

create or replace view gdpr.request as
select
  r.id as request_id,
  r.kind,
  r.subject_id,
  r.channel,
  r.state,
  r.received_at,
  r.due_on,
  r.extended,
  r.paused_at,
  r.closed_at,
  r.outcome,
  r.fulfilled,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(r.subject_id, r.details)::jsonb end as details,
  r.recorded_at,
  r.recorded_by,
  r.actor
from gdpr_internal.request_state as r;
comment on view gdpr.request is
  'Requests of persons, open and closed. state: received (nobody knows yet who asks), identity_pending (the clock stands), open, extended, completed, refused, withdrawn. due_on: the last day for the answer, in the policy''s time zone. outcome: of a completed one the outcome, of a refused one the ground. fulfilled: what was done for it. details: what the person wrote, shown to gdpr_dpo, until erased. Art. 12.';

create or replace view gdpr.request_history as
select
  e.id,
  e.request_id,
  e.recorded_at as at,
  e.event,
  coalesce(r.subject_id, e.subject_id) as subject_id,
  e.reason,
  e.due_on,
  e.paused_days,
  e.facts,
  case
    when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(coalesce(r.subject_id, s.subject_id), e.details)::jsonb
  end as details,
  e.recorded_by,
  e.actor
from gdpr_internal.request_event as e
join gdpr_internal.request as r on r.id = e.request_id
left join lateral (
  select max(x.subject_id) as subject_id from gdpr_internal.request_event as x where x.request_id = e.request_id
) as s on true;
comment on view gdpr.request_history is
  'Every step of every request, in order of id: what happened, when, by whom, until when the answer was due from then on. details are shown to gdpr_dpo, until the person is erased. Art. 5(2).';

create or replace view gdpr.request_board as
select
  r.id as request_id,
  r.kind,
  r.subject_id,
  case
    when r.state = 'identity_pending' then 'paused'
    when r.due_at <= statement_timestamp() then 'overdue'
    when r.due_on - gdpr_internal.local_day(statement_timestamp()) <= 7 then 'due_soon'
    else 'open'
  end as status,
  r.state,
  case when r.state <> 'identity_pending' then r.due_on - gdpr_internal.local_day(statement_timestamp()) end as days_left,
  case when r.state <> 'identity_pending' then r.due_on end as due_on,
  gdpr_internal.request_misses(r) as misses,
  r.received_at,
  r.channel
from gdpr_internal.request_state as r
where not r.closed
order by r.due_on, r.id;
comment on view gdpr.request_board is
  'Requests that are not closed, the most urgent first. status: paused (the person was asked to prove who they are), overdue, due_soon (within a week), open. days_left: whole days until the last one. misses: what is still to be done before gdpr.complete_request(): person, identity, or the step that fulfils its kind; null: close it. Art. 12(3).';
