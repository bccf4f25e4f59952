-- [state] The guard's memory: maintenance windows, and which transaction is gdprdb's own change.
-- GDPR Art. 5(2), Art. 32(1)(b). Every row is put on record in the audit log by the triggers of 16_changes.

set local role gdpr_owner;

create table gdpr_internal.maintenance_window (
  id bigint generated always as identity primary key,
  reason text not null check (reason ~ '\S' and length(reason) <= 1000),
  until timestamptz not null,
  opened_at timestamptz not null default statement_timestamp(),
  login name not null default session_user
);
comment on table gdpr_internal.maintenance_window is
  'Times in which the guard lets what protects tables be weakened, on record. reason: no personal data.';

create table gdpr_internal.maintenance_window_end (
  window_id bigint primary key references gdpr_internal.maintenance_window,
  ended_at timestamptz not null default statement_timestamp(),
  login name not null default session_user
);
comment on table gdpr_internal.maintenance_window_end is 'Maintenance windows that were closed before their time.';

create table gdpr_internal.own_change (
  xid xid8 primary key default pg_current_xact_id(),
  what text not null,
  at timestamptz not null default clock_timestamp()
);
comment on table gdpr_internal.own_change is
  'The transaction, as long as it lasts, in which gdprdb changes its own objects or a table''s controls: apply, unprotect, upgrade. The guard looks at what it leaves, and not at each step.';

create table gdpr_internal.copy_record (
  relation regclass not null,
  of_tables text[] not null,
  made_at timestamptz not null default statement_timestamp(),
  login name not null default session_user
);
comment on table gdpr_internal.copy_record is
  'Tables made by CREATE TABLE AS or SELECT INTO, and materialized views filled, in a transaction that read protected tables, as the guard saw it. doctor() reports those that are still there.';
