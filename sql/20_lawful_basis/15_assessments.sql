-- [state] Assessments of legitimate interests: interest, necessity, balancing, and who decided about them.
-- GDPR Art. 6(1)(f), Art. 5(2). Append-only; gdpr.assessment derives the state.

set local role gdpr_owner;

create table gdpr_internal.assessment (
  id bigint generated always as identity primary key,
  purpose_id smallint not null references gdpr_internal.purpose,
  version integer not null,
  interest text not null,
  necessity text not null,
  balancing text not null,
  review_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  author text not null default session_user,
  actor text,
  unique (purpose_id, version)
);
comment on table gdpr_internal.assessment is
  'Assessments of legitimate interests, one row for each version. review_at: when its author wants it reviewed at the latest.';

create table gdpr_internal.assessment_decision (
  id bigint generated always as identity primary key,
  assessment_id bigint not null references gdpr_internal.assessment,
  approved boolean not null,
  review_at timestamptz not null,
  reason text,
  decided_at timestamptz not null default statement_timestamp(),
  decided_by text not null default session_user,
  actor text
);
create index assessment_decision_assessment on gdpr_internal.assessment_decision (assessment_id);
comment on table gdpr_internal.assessment_decision is
  'Approvals, renewals and rejections of assessments; the latest counts. An approval carries until review_at.';
