-- [state] The policy register: settings, purposes, bindings of roles, protected tables and columns.
-- GDPR Art. 5(1)(b) (purpose limitation), Art. 25, Art. 30. Written by gdpr.apply() only; read by everything.

set local role gdpr_owner;

create table gdpr_internal.setting (
  name text primary key,
  value jsonb not null
);
comment on table gdpr_internal.setting is 'Settings of the policy: phone_country_code (text of digits), time_zone, child_age, new_timeline, controller (name, address, country, email, url), working_days, holidays, portal (link, resend, session, reports), adequacy, addresses, blocklist_retain, audit_retain. machinery: a hash of gdprdb''s functions as the release loaded them; grants: a hash of the rights on gdprdb''s objects as its own last change left them.';

create table gdpr_internal.purpose (
  id smallint primary key check (id between 0 and 63),
  name text not null unique check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  description text,
  basis text check (basis in ('contract', 'legal_obligation', 'vital_interests', 'public_task', 'legitimate_interests', 'consent')),
  respond_within interval,
  remind interval,
  valid_for interval,
  while_waiting text not null default 'lock' check (while_waiting in ('allow', 'lock')),
  retain interval,
  grace interval,
  condition text,
  direct_marketing boolean not null default false,
  automated_decision text,
  assessed_until timestamptz not null default '-infinity',
  created_at timestamptz not null default statement_timestamp()
);
comment on table gdpr_internal.purpose is
  'Purposes of processing (Art. 5(1)(b)). id is the bit of the gate: 0 to 61 for the policy, 62 compliance and 63 maintenance built in (both read bit 62). A purpose is never deleted: evidence points at it. grace: how long rows from before gdprdb may go on without consent or assessment. condition: of Art. 9(2), by default. direct_marketing: an objection holds at once and for good (Art. 21(3)). automated_decision: what the person is told about the logic and the consequences of decisions taken by machines alone (Art. 15(1)(h)). assessed_until: until when an approved assessment carries legitimate interests, as gdpr_internal.assessment_decision says.';

create table gdpr_internal.role_binding (
  role_name name primary key,
  audience name not null,
  may text[] not null default '{}',
  recipient text,
  definition jsonb not null
);
comment on table gdpr_internal.role_binding is
  'Database roles that the policy binds to an audience. may: rights beyond reading within purposes (basis, consent, disclose, rectify). recipient: who gets what the role reads; it reads through gdpr.export_rows() alone.';

create table gdpr_internal.role_purpose (
  role_name name not null references gdpr_internal.role_binding on delete cascade,
  position smallint not null,
  purpose_id smallint not null references gdpr_internal.purpose,
  primary key (role_name, position)
);
comment on table gdpr_internal.role_purpose is 'Purposes a role may process for; position 1 is the one it works for when it says nothing.';

create table gdpr_internal.protected_table (
  id smallint primary key,
  relation regclass not null,
  known_as text not null,
  view_name name not null,
  definition jsonb not null,
  mode text not null check (mode in ('enforce', 'observe')),
  blocklist text not null check (blocklist in ('refuse', 'warn')),
  purpose_mask bigint not null,
  parent_id smallint references gdpr_internal.protected_table,
  via_columns name[],
  parent_columns name[],
  joint_columns name[],
  depth smallint not null default 0,
  original jsonb not null,
  fingerprint bytea,
  protected_at timestamptz not null default statement_timestamp(),
  unprotecting_xid xid8,
  unprotected_at timestamptz,
  check ((parent_id is null) = (via_columns is null))
);
create unique index protected_table_relation on gdpr_internal.protected_table (relation) where unprotected_at is null;
create unique index protected_table_view_name on gdpr_internal.protected_table (view_name) where unprotected_at is null;
comment on table gdpr_internal.protected_table is
  'Tables that hold people. parent_id and via_columns: a child row belongs to its parent''s subject. joint_columns: links to further persons whom a row is about, each to what via_columns refers to. original: what unprotect() puts back. fingerprint: the controls in the catalog as apply() left them. known_as: its name, when apply() or end_reshape() last saw it.';

create table gdpr_internal.control (
  table_id smallint not null references gdpr_internal.protected_table,
  kind text not null,
  name text not null,
  definition text not null,
  keeps boolean not null,
  opens boolean not null,
  primary key (table_id, kind, name)
);
comment on table gdpr_internal.control is
  'The controls of protected tables as apply() left them, see gdpr_internal.controls(). definition: a hash. keeps: the table is protected less when it goes or changes; opens: when it comes.';

create table gdpr_internal.protected_column (
  id integer generated by default as identity primary key,
  table_id smallint not null references gdpr_internal.protected_table on delete cascade,
  column_name name not null,
  position smallint not null,
  category text not null,
  sensitive boolean not null,
  encrypt text not null check (encrypt in ('no', 'yes', 'searchable')),
  identifier text,
  canonical text not null check (canonical in ('identifier', 'exact')),
  matches boolean not null default false,
  age boolean not null default false,
  special text,
  provided boolean not null default true,
  about text,
  review boolean not null default false,
  mask text not null check (mask in ('show', 'hide', 'initial', 'email', 'year', 'pseudonym')),
  erase text not null,
  same_as text,
  original_type text not null,
  original jsonb not null default '{}',
  encrypting_xid xid8,
  unique (table_id, column_name)
);
comment on table gdpr_internal.protected_column is
  'Classified columns. id is the column id in the header of every ciphertext. age: a birth date. special: which category of Art. 9(1). about: null, the row''s person; someone_else; or the link column of a joint row whose person it is about (a joint link that is null: the row''s person). review: free text that a human reads where the row outlives an erasure. provided: by the person, and not derived by the controller (Art. 20). same_as: the column (schema.table.column) that this one holds copies of. original: default, indexes and constraints that encryption took away and unprotect() puts back. encrypting_xid: the transaction that encrypts its rows, in which they still hold plaintext.';

create table gdpr_internal.worker_function (
  -- the name: pg_upgrade gives functions other OIDs, and refuses to run where a table holds some
  function name primary key,
  definer boolean not null,
  settings text[],
  grants aclitem[]
);
comment on table gdpr_internal.worker_function is
  'The functions of gdpr_worker as they were generated: what planted code changes of them is found before it commits.';

create type gdpr_internal.column_fact as (
  column_id integer, column_name name, n integer, type text, encrypt text, identifier text, canonical text,
  mask text, masked boolean, matches boolean, unique_name name, maximum integer, digested boolean, source name
);
comment on type gdpr_internal.column_fact is
  'What the generators need of a classified column. n: its number in the generated code; canonical: the kind of its digest; masked: a masked value is stored; maximum: its length limit; digested: a digest for searching is; source: where its text stands, the column or its shadow.';

create type gdpr_internal.erase_fact as (column_name name, erase text, type text, maximum integer, is_unique boolean, encrypted boolean);
comment on type gdpr_internal.erase_fact is 'What erasure needs of a column.';

create type gdpr_internal.held_fact as (table_id smallint, subject_id bigint, row_key text, column_name name, until timestamptz);
comment on type gdpr_internal.held_fact is
  'What a hold keeps of a person: all rows of a table or one (row_key), whole or a column, until when.';

create type gdpr_internal.erased_fact as (
  table_id smallint, what text, subject_id bigint, row_count bigint, until timestamptz, column_name name, row_keys text array
);
comment on type gdpr_internal.erased_fact is
  'What erasure did with rows of a person in a table. what: deleted, anonymised, spared (anonymised, as rows that stay refer to them), kept (until), passed_on (to the other person of a joint row), unlinked (rows of others that referred to one), review (rows that stay with free text in column_name; row_keys).';
