-- [state] Consent: the texts that were shown, who was asked what, and evidence of what a person granted, declined or withdrew.
-- GDPR Art. 6(1)(a), Art. 7(1), 7(3). Append-only, drafts of texts excepted; gdpr.consent derives the status.

set local role gdpr_owner;

create table gdpr_internal.consent_form (
  id bigint generated always as identity primary key,
  name text not null check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  version integer not null,
  language text not null check (language ~ '^[a-z]{2,3}(-[a-z0-9]{2,8})*$'),
  purposes text[] not null,
  channels text[] not null,
  title text not null,
  statement text not null,
  privacy_notice text not null,
  digest bytea not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  unique (name, version, language)
);
comment on table gdpr_internal.consent_form is
  'What a person is asked, word by word: one text for each version and language. channels: by which the controller wants to get in touch. digest: SHA-256 of its canonical text. A draft until its version is in consent_form_version; then a trigger keeps it.';

create table gdpr_internal.consent_form_version (
  name text not null,
  version integer not null,
  default_language text not null,
  published_at timestamptz not null default statement_timestamp(),
  published_by text not null default session_user,
  primary key (name, version),
  foreign key (name, version, default_language) references gdpr_internal.consent_form (name, version, language)
);
comment on table gdpr_internal.consent_form_version is
  'Published versions of forms: their texts no longer change. default_language: the text for persons whose language it does not speak.';

-- one row of numbers for questions and answers: which came first can be told
create sequence gdpr_internal.consent_event_seq;

create table gdpr_internal.consent_request (
  id bigint not null default nextval('gdpr_internal.consent_event_seq') primary key,
  subject_id bigint not null,
  purposes smallint[] not null,
  channel text not null check (channel in ('email', 'portal', 'phone', 'paper')),
  form_id bigint references gdpr_internal.consent_form,
  respond_until timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index consent_request_subject on gdpr_internal.consent_request (subject_id, id);
comment on table gdpr_internal.consent_request is
  'Persons asked for consent: for which purposes, by which text, until when. Whether they answered, the records that follow tell.';

create table gdpr_internal.consent_mail (
  mail_id bigint primary key,
  request_id bigint not null references gdpr_internal.consent_request
);
create index consent_mail_request on gdpr_internal.consent_mail (request_id);
comment on table gdpr_internal.consent_mail is 'Mails that ask or remind, to call back those not yet sent once the question is closed.';

create table gdpr_internal.consent_record (
  id bigint not null default nextval('gdpr_internal.consent_event_seq') primary key,
  subject_id bigint not null,
  purpose_id smallint not null,
  event text not null check (event in ('granted', 'declined', 'withdrawn')),
  channel text not null check (channel in ('email', 'portal', 'phone', 'paper', 'web_form', 'api', 'import', 'in_person')),
  contact text[],
  request_id bigint references gdpr_internal.consent_request,
  form_id bigint references gdpr_internal.consent_form,
  evidence text,
  valid_until timestamptz not null default 'infinity',
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
alter sequence gdpr_internal.consent_event_seq owned by gdpr_internal.consent_record.id;
create index consent_record_subject on gdpr_internal.consent_record (subject_id, purpose_id, id desc);
comment on table gdpr_internal.consent_record is
  'Consent as it was given and taken back. contact: the channels by which the person may be contacted (mail, phone, post, social). request_id: the question that it answers. form_id: the very text that the person agreed to. evidence (who, when, how, reference): ciphertext under the person''s key.';
