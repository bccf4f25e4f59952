-- [state] How far each file was imported.
-- GDPR Art. 5(1)(d), Art. 14(2)(f). Written by gdpr.import_rows(); holds no personal data.

set local role gdpr_owner;

create table gdpr_internal.import (
  table_id smallint not null,
  file text not null check (file ~ '^[0-9a-f]{32,128}$'),
  last_row bigint not null default 0,
  taken bigint not null default 0,
  refused bigint not null default 0,
  started_at timestamptz not null default statement_timestamp(),
  continued_at timestamptz not null default statement_timestamp(),
  login name not null default session_user,
  primary key (table_id, file)
);
comment on table gdpr_internal.import is
  'Files that were imported into a table. file: what tells one content from another, as a SHA-256. Rows up to last_row are done: taken into the table, or refused.';
