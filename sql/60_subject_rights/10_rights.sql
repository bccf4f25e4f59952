-- [state] Restrictions, objections and erasures of persons.
-- GDPR Art. 18, Art. 21, Art. 17. Append-only; the gate reads them.

set local role gdpr_owner;

create table gdpr_internal.restriction_record (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  ground text not null check (ground in ('accuracy_contested', 'unlawful_processing', 'legal_claims', 'objection_pending', 'other')),
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index restriction_record_subject on gdpr_internal.restriction_record (subject_id);
comment on table gdpr_internal.restriction_record is 'Restrictions of processing (Art. 18(1)): while one is not lifted only storage is allowed.';

create table gdpr_internal.restriction_end (
  restriction_id bigint primary key references gdpr_internal.restriction_record,
  reason text not null,
  ended_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
comment on table gdpr_internal.restriction_end is 'Restrictions that were lifted, and why (Art. 18(3)). reason: ciphertext under the person''s key, or what a replay says.';

create table gdpr_internal.restriction_exception (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  purpose_id smallint not null,
  ground text not null,
  details text,
  valid_until timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index restriction_exception_subject on gdpr_internal.restriction_exception (subject_id);
comment on table gdpr_internal.restriction_exception is
  'Purposes for which a restricted person may be processed all the same (Art. 18(2)), on which ground and until when. details: why, ciphertext under the person''s key.';

create table gdpr_internal.restriction_exception_end (
  exception_id bigint primary key references gdpr_internal.restriction_exception,
  reason text not null,
  ended_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
comment on table gdpr_internal.restriction_exception_end is 'Exceptions from a restriction that were ended before their time, and why: ciphertext under the person''s key.';

create table gdpr_internal.objection_record (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  purpose_id smallint not null,
  pending boolean not null default false,
  request_id bigint,
  details text,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index objection_record_subject on gdpr_internal.objection_record (subject_id);
comment on table gdpr_internal.objection_record is
  'Objections to a purpose (Art. 21). pending: the purpose is closed until somebody has decided whether compelling grounds override; direct marketing is closed for good. details: what the person wrote, ciphertext under the person''s key.';

create table gdpr_internal.objection_decision (
  id bigint generated always as identity primary key,
  objection_id bigint not null references gdpr_internal.objection_record,
  decision text not null,
  ground text,
  details text,
  decided_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index objection_decision_objection on gdpr_internal.objection_decision (objection_id, id desc);
comment on table gdpr_internal.objection_decision is
  'What became of objections: upheld, overridden (on which ground), taken_back by the person. details: ciphertext under the person''s key.';

create table gdpr_internal.lifting_notice (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  restriction_id bigint references gdpr_internal.restriction_record,
  objection_id bigint references gdpr_internal.objection_record,
  channel text not null,
  mail_id bigint,
  evidence text,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index lifting_notice_subject on gdpr_internal.lifting_notice (subject_id);
comment on table gdpr_internal.lifting_notice is
  'That a person was told that a restriction, or an objection that was being examined, is going to end (Art. 18(3)): by which mail, or with which evidence (ciphertext under the person''s key).';

create table gdpr_internal.erasure_record (
  id bigint generated always as identity primary key,
  subject_id bigint not null unique,
  reason text not null,
  erased_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  receipt jsonb not null
);
comment on table gdpr_internal.erasure_record is 'The erasure ledger: which subject number was erased when, and counts of rows. No values.';

create table gdpr_internal.erasure_remainder (
  subject_id bigint not null,
  table_id smallint not null,
  row_count bigint not null,
  due_at timestamptz not null,
  primary key (subject_id, table_id)
);
create index erasure_remainder_due on gdpr_internal.erasure_remainder (due_at);
comment on table gdpr_internal.erasure_remainder is
  'What stays of persons who were erased, because a period or a hold keeps it: how many rows of a table, and when the first of that ends (infinity: when the hold is released). gdpr_internal.finish_erasures() works it off; the rows themselves are hidden at that very instant.';

create table gdpr_internal.erasure_completion (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  erased_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  receipt jsonb not null
);
create index erasure_completion_subject on gdpr_internal.erasure_completion (subject_id);
comment on table gdpr_internal.erasure_completion is
  'What was erased later of persons in the ledger, when what kept it had ended: counts, and whether the key was destroyed. No values.';

create table gdpr_internal.erasure_review (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  table_id smallint not null,
  column_name name not null,
  row_key text,
  flagged_at timestamptz not null default statement_timestamp()
);
create index erasure_review_subject on gdpr_internal.erasure_review (subject_id);
comment on table gdpr_internal.erasure_review is
  'Free text in rows that outlived an erasure, which a human has to read: where it stands, never the text. row_key: the primary key of the row, gone with the line once it is reviewed.';
