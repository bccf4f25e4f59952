-- [code] The whole story of a consent, with the evidence.
-- GDPR Art. 7(1): the controller can demonstrate it. Read by: gdpr_dpo, gdpr_auditor (without the evidence).

set local role gdpr_owner;

create or replace view gdpr.consent_history as
select h.at, h.subject_id, p.name as purpose, h.event, h.channel, h.contact, h.request_id, h.form_id, h.until, h.evidence, h.recorded_by, h.actor
from (
  select
    q.id, q.recorded_at as at, q.subject_id, u.purpose_id, 'asked' as event, q.channel, null::text[] as contact,
    q.id as request_id, q.form_id, q.respond_until as until, null::jsonb as evidence, q.recorded_by, q.actor
  from gdpr_internal.consent_request as q
  cross join lateral unnest(q.purposes) as u (purpose_id)
  union all
  select
    r.id, r.recorded_at, r.subject_id, r.purpose_id, r.event, r.channel, r.contact, r.request_id, r.form_id,
    case when r.event = 'granted' then r.valid_until end,
    case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(r.subject_id, r.evidence)::jsonb end,
    r.recorded_by, r.actor
  from gdpr_internal.consent_record as r
) as h
join gdpr_internal.purpose as p on p.id = h.purpose_id
order by h.id;
comment on view gdpr.consent_history is
  'Every question and every answer, in order: asked, granted, declined, withdrawn. until: deadline of a question, end of a grant. evidence is shown to gdpr_dpo, while the person is not erased. Art. 7(1).';
