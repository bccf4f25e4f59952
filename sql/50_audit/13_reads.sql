-- [state] Reads of tables whose policy says audit_reads, from the statement to the end of its transaction.
-- GDPR Art. 5(2), Art. 32(1)(d). Rows become audit records when the transaction ends.

set local role gdpr_owner;

create table gdpr_internal.read_note (
  xid xid8 default pg_current_xact_id(),
  table_id smallint,
  n bigint,
  base bigint not null,
  at timestamptz not null default statement_timestamp(),
  purpose_id smallint,
  actor text,
  request text,
  role name not null,
  primary key (xid, table_id, n)
);
comment on table gdpr_internal.read_note is
  'Statements of open transactions that read a table whose reads are recorded. n, base: where the counters of rows read through the clear view, and in the table itself, stood.';
