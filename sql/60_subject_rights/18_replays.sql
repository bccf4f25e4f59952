-- [state] Replays of the ledger after a restore.
-- GDPR Art. 5(2), Art. 17. Append-only. Written by gdpr.replay().

set local role gdpr_owner;

create table gdpr_internal.replay_record (
  id bigint generated always as identity primary key,
  digest bytea not null,
  part integer not null,
  taken_at timestamptz not null,
  positions jsonb not null,
  before jsonb not null,
  result jsonb not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
comment on table gdpr_internal.replay_record is
  'Ledgers that were replayed, part by part, and what came of it. positions: the last number of each register in the database that wrote the ledger; before: those here when its first part was replayed.';
