-- [state] Requests of persons, and every step of answering them.
-- GDPR Art. 12(3) to 12(6), Art. 15 to 22, Art. 5(2). Append-only; gdpr.request derives where each one stands.

set local role gdpr_owner;

create table gdpr_internal.request (
  id bigint generated always as identity primary key,
  kind text not null,
  subject_id bigint,
  channel text not null,
  details text,
  received_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index request_subject on gdpr_internal.request (subject_id);
comment on table gdpr_internal.request is
  'What persons asked for, and when it arrived. subject_id: null while nobody knows who asks. details (what exactly is asked, in the person''s words): ciphertext under the person''s key, unreadable once erased; the rest stays as evidence.';

create table gdpr_internal.request_event (
  id bigint generated always as identity primary key,
  request_id bigint not null references gdpr_internal.request,
  event text not null,
  subject_id bigint,
  due_on date,
  paused_days integer not null default 0,
  reason text,
  facts jsonb,
  details text,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index request_event_request on gdpr_internal.request_event (request_id, id);
create index request_event_subject on gdpr_internal.request_event (subject_id) where subject_id is not null;
comment on table gdpr_internal.request_event is
  'The steps of a request: those that move it (received, identity_asked, identity_verified, extended, completed, refused, withdrawn) and those that fulfil it (access_report, rectification, ...). due_on: the last day for the answer from this step on; what holidays and time zone were then, holds. subject_id: who it turned out to be. paused_days: how long the clock stood. reason: a word of a closed list. facts: without personal data; details: ciphertext under the person''s key.';
