-- [code] Which objections close a purpose, and which exceptions open one to a restricted person: the one place that says so.
-- GDPR Art. 18(2), Art. 21. Read by: the gate, asking for consent, gdpr.would_lock.

set local role gdpr_owner;

create or replace view gdpr_internal.standing_objection as
select o.id, o.subject_id, o.purpose_id, o.pending, o.request_id, o.recorded_at
from gdpr_internal.objection_record as o
where not exists (
  select from gdpr_internal.objection_decision as d where d.objection_id = o.id and d.decision in ('overridden', 'taken_back')
);
comment on view gdpr_internal.standing_objection is
  'Objections that close their purpose: all but those that were overridden or taken back. One for each person and purpose.';

create or replace view gdpr_internal.standing_exception as
select x.id, x.subject_id, x.purpose_id, x.ground, x.valid_until
from gdpr_internal.restriction_exception as x
where x.valid_until > statement_timestamp()
  and not exists (select from gdpr_internal.restriction_exception_end as e where e.exception_id = x.id);
comment on view gdpr_internal.standing_exception is
  'Exceptions from restrictions that have not ended, before their time or with it.';
