-- [state] Lawful bases: evidence of why a person's data may be processed for a purpose, and of the end of it.
-- GDPR Art. 5(2), Art. 6(1). Append-only; gdpr.basis derives the state.

set local role gdpr_owner;

create table gdpr_internal.table_basis (
  table_id smallint not null references gdpr_internal.protected_table on delete cascade,
  purpose_id smallint not null references gdpr_internal.purpose,
  basis text not null,
  valid_until timestamptz not null default 'infinity',
  primary key (table_id, purpose_id, basis)
);
comment on table gdpr_internal.table_basis is
  'Bases that every person has by standing in this table (a customer has a contract by being one). basis undetermined, until the grace period of the purpose ends: for the persons of rows that were there before gdprdb, where the policy asks for a consent or an assessment that nobody has seen yet.';

create table gdpr_internal.basis_record (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  purpose_id smallint not null,
  basis text not null,
  condition text,
  reason text,
  evidence text,
  valid_from timestamptz not null default statement_timestamp(),
  valid_until timestamptz not null default 'infinity',
  assessment_id bigint,
  by_table smallint,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index basis_record_subject on gdpr_internal.basis_record (subject_id);
comment on table gdpr_internal.basis_record is
  'Lawful bases other than consent, per person and purpose. condition: the second condition of Art. 9(2), for special categories. evidence: ciphertext under the person''s key. assessment_id: the version on which a legitimate interest was first rested. by_table: recorded by default when a row entered that protected table.';

create table gdpr_internal.basis_end (
  basis_id bigint primary key references gdpr_internal.basis_record,
  reason text not null,
  by_policy boolean not null default false,
  ended_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
comment on table gdpr_internal.basis_end is
  'Bases that ended before their time, and why. by_policy: because the policy gives another one; what a person ended is not given again by a table.';
