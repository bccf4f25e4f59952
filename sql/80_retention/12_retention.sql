-- [state] Where retention is: the one who runs it holds this row, and the next call goes on from here.
-- GDPR Art. 5(1)(e).

set local role gdpr_owner;

create table gdpr_internal.retention_pass (
  id smallint primary key default 1 check (id = 1),
  table_id smallint,
  after_subject bigint not null default 0,
  forgetting_xid xid8,
  forgetting_table smallint,
  finished_at timestamptz
);
insert into gdpr_internal.retention_pass default values;
comment on table gdpr_internal.retention_pass is
  'One row. table_id, after_subject: the table and the person up to which retention has come; null between two passes. forgetting_xid, forgetting_table: the transaction that deletes rows at this moment, and of which table: its audit records of them keep no old values. Rows of other tables that planted code changes meanwhile are recorded whole. finished_at: when all tables had been gone through last.';
