-- [state] How far each file was imported, and which of its lines were refused.
-- GDPR Art. 5(1)(d), Art. 14(2)(f). Written by gdpr.import_rows(); holds no personal data: numbers, codes and names of the catalog.

set local role gdpr_owner;

create table gdpr_internal.import (
  id bigint generated always as identity unique,
  table_id smallint not null,
  file text not null check (file ~ '^[0-9a-f]{32,128}$'),
  run integer not null default 1 check (run > 0),
  last_row bigint not null default 0,
  taken bigint not null default 0,
  refused bigint not null default 0,
  started_at timestamptz not null default statement_timestamp(),
  continued_at timestamptz not null default statement_timestamp(),
  login name not null default session_user,
  primary key (table_id, file, run)
);
comment on table gdpr_internal.import is
  'Files that were imported into a table. file: what tells one content from another, as a SHA-256. run: 1, and one more each time that it was given again on purpose. Rows up to last_row are done: taken into the table, or refused.';

create table gdpr_internal.import_refusal (
  import_id bigint not null,
  first_row bigint not null,
  last_row bigint not null check (last_row >= first_row),
  first_line bigint not null,
  problem text not null check (problem ~ '^SQLSTATE [0-9A-Z]{5}(, constraint .{1,63})?(, column .{1,63})?$'),
  noted_at timestamptz not null default statement_timestamp(),
  primary key (import_id, first_row)
);
create index import_refusal_noted_at on gdpr_internal.import_refusal (noted_at);
comment on table gdpr_internal.import_refusal is
  'Lines of files that were refused and not taken since. One row for neighbours with the same problem, whose lines follow each other as their rows do: where all of a file is refused for one reason, one for each call. problem: SQLSTATE and names of the catalog, never a value. Whoever has the file can tell from it what was said of a person there: deleted by gdpr.tidy_imports() after half a year.';
