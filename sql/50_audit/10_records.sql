-- [state] Audit records: who changed which personal data, when and for what purpose.
-- GDPR Art. 5(2), Art. 30, Art. 32(1)(d). Partitioned by month, append-only. Holds all that sealing needs: xid, order, row hash.

set local role gdpr_owner;

create table gdpr_internal.audit_record (
  id bigint generated always as identity,
  at timestamptz not null default clock_timestamp(),
  xid xid8 not null default pg_current_xact_id(),
  operation text not null,
  table_id smallint,
  subject_id bigint,
  row_key uuid,
  purpose_id smallint,
  actor text,
  request text,
  login name not null default session_user,
  role name not null,
  client_addr inet default inet_client_addr(),
  application_name text,
  changed text[],
  row_hash bytea,
  payload text,
  -- by name, so that a dump brings the type and not its number: records after a restore have another
  place oid not null default 'gdpr_generated.place'::regtype,
  primary key (id, at)
)
partition by range (at);
create index audit_record_subject on gdpr_internal.audit_record (subject_id, at);
comment on table gdpr_internal.audit_record is
  'One record for each changed row or event. row_key: keyed digest of the primary key. row_hash: HMAC-SHA-256 of the row as stored. payload: old values of what changed, ciphertext under the person''s key (events: jsonb text without personal data).';
comment on column gdpr_internal.audit_record.place is 'The life of the database in which it was written: transaction numbers begin anew where a dump is restored.';
comment on column gdpr_internal.audit_record.login is 'The login (session_user): a fact.';
comment on column gdpr_internal.audit_record.role is 'The role set with SET ROLE, else the login: a fact.';
comment on column gdpr_internal.audit_record.actor is 'The end user that the application claims to act for.';

create table gdpr_internal.audit_record_rest partition of gdpr_internal.audit_record default;
comment on table gdpr_internal.audit_record_rest is 'Records of months for which no partition was made ahead; doctor() reports rows here.';
