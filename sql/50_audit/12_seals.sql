-- [state] Seals: what shows that nobody has changed the audit records since.
-- GDPR Art. 5(2), Art. 32(1)(b). Written by gdpr.seal_audit() only; hashes of ciphertext and numbers, no personal data.

set local role gdpr_owner;

create table gdpr_internal.audit_catalog (
  fingerprint bytea primary key,
  objects text[] not null,
  recorded_at timestamptz not null default statement_timestamp()
);
comment on table gdpr_internal.audit_catalog is
  'The catalog as seals found it: fingerprint is SHA-256 over objects, each the name of what protects personal data (a table, trigger, policy, function, view, role) and the first bytes of a hash of its definition.';

create table gdpr_internal.audit_seal (
  id bigint primary key,
  place oid not null,
  month date not null,
  from_xid xid8 not null,
  below_xid xid8 not null,
  records bigint not null,
  first_id bigint,
  last_id bigint,
  root bytea not null,
  leaves bytea not null,
  catalog bytea not null references gdpr_internal.audit_catalog,
  sealed_at timestamptz not null,
  previous bytea not null,
  hash bytea not null,
  own_xid xid8 not null,
  seen_id bigint
);
create index audit_seal_month on gdpr_internal.audit_seal (place, month, from_xid);
comment on table gdpr_internal.audit_seal is
  'A seal over the records of a place and a month (UTC) whose transactions are numbered from from_xid to below below_xid: root, their Merkle tree hash (RFC 6962), leaves, SHA-256 over that of the leaves of each block, and hash, SHA-256 over the text of the seal, which holds the hash of the previous one. own_xid, seen_id: the transaction that sealed, and the last number a record had before that began (null: not known); records of later transactions have higher ones.';

create table gdpr_internal.audit_block (
  -- no foreign key: blocks are written while the seal over them is still being computed
  seal_id bigint,
  block integer,
  hash bytea not null,
  leaves bytea not null,
  primary key (seal_id, block)
);
-- hashes cannot be compressed
alter table gdpr_internal.audit_block alter column leaves set storage external;
comment on table gdpr_internal.audit_block is
  'Parts of a seal, 65,536 records each: the hash of that part of the tree, and the first 8 bytes of each leaf, which tell what record it is that no longer fits.';
