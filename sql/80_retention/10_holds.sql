-- [state] Holds: what may not be deleted, although the person asks for it or its time is over.
-- GDPR Art. 17(3), Art. 5(2). Append-only; read by erasure and by retention.

set local role gdpr_owner;

create table gdpr_internal.hold (
  id bigint generated always as identity primary key,
  subject_id bigint,
  table_id smallint references gdpr_internal.protected_table,
  row_key uuid,
  columns name[],
  ground text not null,
  reference text not null,
  valid_until timestamptz not null default 'infinity',
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text,
  check (subject_id is not null or table_id is not null),
  check (table_id is not null or (row_key is null and columns is null))
);
create index hold_subject on gdpr_internal.hold (subject_id);
create index hold_table on gdpr_internal.hold (table_id);
comment on table gdpr_internal.hold is
  'What has to be kept, and why (Art. 17(3)). subject_id null: of every person; table_id null: in every table; row_key null: every row; columns null: the whole row. row_key: keyed digest of the primary key; such a hold stays on the row, whoever''s it becomes, and subject_id says whose it was.';

create table gdpr_internal.hold_end (
  hold_id bigint primary key references gdpr_internal.hold,
  reason text not null,
  ended_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
comment on table gdpr_internal.hold_end is 'Holds that were released, and why: of a person, ciphertext under that person''s key.';
