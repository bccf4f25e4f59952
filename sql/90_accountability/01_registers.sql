-- [state] Parties, impact assessments and personal data breaches: what a controller has to be able to show.
-- GDPR Art. 5(2), 26, 27, 33(5), 34, 35, 36, 37. Append-only; views derive the state. No personal data of data subjects.

set local role gdpr_owner;

create table gdpr_internal.party_record (
  id bigint generated always as identity primary key,
  party_id bigint not null,
  role text not null,
  name text not null,
  contact text not null,
  country text not null,
  reference text,
  valid_until timestamptz not null default 'infinity',
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index party_record_party on gdpr_internal.party_record (party_id, id desc);
comment on table gdpr_internal.party_record is
  'Who answers for the processing besides the controller (which the policy names), in versions: the last one of a party_id (the number of its first) holds. contact: how to reach it. reference: the arrangement of Art. 26, the mandate of Art. 27, the designation of Art. 37.';

create table gdpr_internal.impact_assessment_record (
  id bigint generated always as identity primary key,
  name text not null,
  version integer not null,
  purposes smallint[] not null,
  description text not null,
  necessity text not null,
  risks text not null,
  measures text not null,
  views_sought text,
  review_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  author text not null default session_user,
  actor text,
  unique (name, version)
);
comment on table gdpr_internal.impact_assessment_record is
  'Data protection impact assessments, one row for each version: the four parts of Art. 35(7). views_sought: of the persons or their representatives (Art. 35(9)).';

create table gdpr_internal.impact_assessment_decision (
  id bigint generated always as identity primary key,
  impact_assessment_id bigint not null references gdpr_internal.impact_assessment_record,
  approved boolean not null,
  residual_risk text,
  advice text,
  consultation text,
  reason text,
  review_at timestamptz not null,
  decided_at timestamptz not null default statement_timestamp(),
  decided_by text not null default session_user,
  actor text
);
create index impact_assessment_decision_assessment on gdpr_internal.impact_assessment_decision (impact_assessment_id);
comment on table gdpr_internal.impact_assessment_decision is
  'Approvals, renewals and rejections of impact assessments; the latest counts. advice: of the data protection officer (Art. 35(2)). consultation: the reference of the supervisory authority, where a high risk is left (Art. 36).';

create table gdpr_internal.breach_record (
  id bigint generated always as identity primary key,
  aware_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
comment on table gdpr_internal.breach_record is
  'Personal data breaches. aware_at: when the controller became aware, from when the 72 hours of Art. 33(1) run. What is known of it stands in breach_event.';

create table gdpr_internal.breach_event (
  id bigint generated always as identity primary key,
  breach_id bigint not null references gdpr_internal.breach_record,
  event text not null,
  details jsonb not null,
  happened_at timestamptz not null default statement_timestamp(),
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index breach_event_breach on gdpr_internal.breach_event (breach_id, id);
comment on table gdpr_internal.breach_event is
  'What became known of a breach and what was done: facts (of Art. 33(3); later ones add to earlier ones, Art. 33(4)), assessed, notified (the authority), excused (why the persons are not told, Art. 34(3)), closed. details: no personal data.';

create table gdpr_internal.breach_person (
  subject_id bigint not null,
  breach_id bigint not null references gdpr_internal.breach_record,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  primary key (breach_id, subject_id)
);
create index breach_person_subject on gdpr_internal.breach_person (subject_id);
comment on table gdpr_internal.breach_person is 'Whose data a breach is about.';

create table gdpr_internal.breach_communication (
  breach_id bigint not null,
  subject_id bigint not null,
  channel text not null,
  mail_id bigint,
  evidence text,
  told_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text,
  primary key (breach_id, subject_id),
  foreign key (breach_id, subject_id) references gdpr_internal.breach_person
);
comment on table gdpr_internal.breach_communication is
  'Persons who were told of a breach (Art. 34), once each. mail_id: the mail that was queued; evidence: how else, ciphertext under the person''s key.';
