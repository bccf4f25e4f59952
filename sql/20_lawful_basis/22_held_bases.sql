-- [code] Which bases other than consent carry a person's processing, and until when: the one place that says so.
-- GDPR Art. 6(1). Read by: the gate, gdpr.basis, gdpr.basis_overview, gdpr.would_lock.

set local role gdpr_owner;

create or replace view gdpr_internal.held_basis as
select
  b.id,
  b.subject_id,
  b.purpose_id,
  b.basis,
  b.valid_from,
  case when b.basis = 'legitimate_interests' then least(b.valid_until, p.assessed_until) else b.valid_until end as valid_until,
  b.condition
from gdpr_internal.basis_record as b
join gdpr_internal.purpose as p on p.id = b.purpose_id
where not exists (select from gdpr_internal.basis_end as e where e.basis_id = b.id)
  -- undetermined is over once the person has said something
  and (b.basis <> 'undetermined' or not exists (
    select from gdpr_internal.consent_record as c where c.subject_id = b.subject_id and c.purpose_id = b.purpose_id
  ));
comment on view gdpr_internal.held_basis is
  'Recorded bases that did not end early, with the instant at which they end by themselves: legitimate interests when the assessment is due for review, undetermined ones when the grace period ends.';
