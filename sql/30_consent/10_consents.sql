-- [state] Consent: evidence of what a person granted, declined or withdrew.
-- GDPR Art. 6(1)(a), Art. 7(1), 7(3). Append-only; the latest record for a person and purpose is in force; gdpr.consent derives the status.

set local role gdpr_owner;

create table gdpr_internal.consent_record (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  purpose_id smallint not null,
  event text not null check (event in ('granted', 'declined', 'withdrawn')),
  channel text not null check (channel in ('email', 'portal', 'phone', 'paper', 'web_form', 'api', 'import', 'in_person')),
  evidence text,
  valid_until timestamptz not null default 'infinity',
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index consent_record_subject on gdpr_internal.consent_record (subject_id, purpose_id, id desc);
comment on table gdpr_internal.consent_record is
  'Consent as it was given and taken back. evidence (who, when, how, reference): ciphertext under the person''s key.';
