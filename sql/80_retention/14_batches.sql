-- [state] Batches of erasures: who is to be erased, and who has been. The evidence is the erasure ledger; this is the list of work.
-- GDPR Art. 17, Art. 5(1)(e).

set local role gdpr_owner;

create table gdpr_internal.erasure_batch (
  id bigint generated always as identity primary key,
  reason text not null,
  proposed boolean not null default false,
  opened_at timestamptz not null default statement_timestamp(),
  opened_by text not null default session_user,
  actor text
);
comment on table gdpr_internal.erasure_batch is 'Erasures of many persons, decided at once and carried out in chunks. proposed: because nothing speaks for them any more; who has a basis again, or is restricted, when their turn comes is left out.';

create table gdpr_internal.erasure_batch_person (
  batch_id bigint not null references gdpr_internal.erasure_batch,
  subject_id bigint not null,
  done_at timestamptz,
  failure text,
  primary key (batch_id, subject_id)
);
create index erasure_batch_open on gdpr_internal.erasure_batch_person (batch_id, subject_id) where done_at is null and failure is null;
comment on table gdpr_internal.erasure_batch_person is
  'The persons of a batch. Neither done_at nor failure: still to come. failure: the code of the error that their erasure ended with, and the name it has in gdpr.error_code.';
