-- 00_foundation/10_registers.sql
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

-- 00_foundation/11_enabling.sql
-- [state] Tables on which protection is being switched on in batches, and how far that has come.
-- GDPR Art. 25. Written by the steps of enabling; whoever may go on with it reads here where.

set local role gdpr_owner;

create table gdpr_internal.enabling (
  table_id smallint primary key references gdpr_internal.protected_table,
  state text not null check (state in ('begun', 'generated', 'claiming', 'claimed', 'sealing', 'sealed', 'analysed')),
  leaf oid,
  block bigint not null default 0,
  sweep integer not null default 1,
  done bigint not null default 0,
  passed jsonb not null default '{}',
  sweeping_xid xid8,
  started_at timestamptz not null default statement_timestamp(),
  worked_at timestamptz not null default statement_timestamp()
)
with (fillfactor = 50);
comment on table gdpr_internal.enabling is
  'One row for each table whose enabling has begun and has not ended; gone when its gate is on. begun: columns are there; generated: functions are; claiming: rows get their persons, and stay plaintext; claimed: all have them; sealing: plaintext and ciphertext stand side by side; sealed: no plaintext is left; analysed: nor in the planner''s statistics. leaf: the partition in which the sweep is, or the table itself; block: where in it the sweep goes on; sweep: rows that were locked are looked at again in the next one; done: rows written in this state; passed: partitions of which no row is left in this state, by OID, with their marks at that time (gdpr_internal.enabling_leaves); sweeping_xid: the transaction in which gdpr.backfill() is writing rows.';

-- 00_foundation/11_shapes.sql
-- [state] The shape of protected tables: what their columns are called, what they were called, whose change is under way.
-- GDPR Art. 5(2), Art. 25. Written by gdpr.apply(), gdpr.reshape() and gdpr.end_reshape() only.

set local role gdpr_owner;

create table gdpr_internal.known_column (
  table_id smallint not null references gdpr_internal.protected_table on delete cascade,
  position smallint not null,
  column_name name not null,
  hidden boolean not null,
  primary key (table_id, position)
);
comment on table gdpr_internal.known_column is
  'The columns of protected tables, all of them, as apply() or end_reshape() last saw them: by its position a column is found again that has another name now. hidden: came after the table was protected, and no policy has classified it.';

create table gdpr_internal.former_name (
  id bigint generated always as identity primary key,
  table_id smallint not null references gdpr_internal.protected_table,
  position smallint,
  name text not null,
  became text,
  column_id integer,
  original_type text,
  special text,
  withheld boolean not null default false,
  until timestamptz not null,
  recorded_by text not null default session_user
);
create index former_name_of on gdpr_internal.former_name (table_id, name, until);
comment on table gdpr_internal.former_name is
  'What tables (position null) and columns were called until when, and what they became (null: the column was dropped): audit records, holds and ciphertext from before are read by it. column_id, original_type, special: of a dropped column that was classified. withheld: it was about somebody else than the row''s person.';

create table gdpr_internal.reshape (
  table_id smallint primary key references gdpr_internal.protected_table,
  neighbours smallint[] not null,
  drifted boolean not null,
  defaults jsonb not null,
  retyped name[] not null default '{}',
  was jsonb not null default '{}',
  state jsonb,
  closing boolean not null default false
);
comment on table gdpr_internal.reshape is
  'Tables whose controls are off in the transaction that reads this: no transaction can commit a row. neighbours: other tables whose generated code names this one, and whose controls were as apply() left them. drifted: those of the table itself were not. defaults: of its columns, by position, as they were. retyped: columns whose ciphertext and stored masks are written anew at the end. was: by column id the type before gdpr.retype(), and whether values may become others (lossy). state: what tells at the end which columns and rows were written meanwhile.';

-- 00_foundation/12_tokens.sql
-- [state] One-time tokens: the secrets in links that are sent to persons.
-- GDPR Art. 32(1)(b). Written by create_token() and take_token() alone; what a token opens, its kind says.

set local role gdpr_owner;

create table gdpr_internal.token (
  digest bytea primary key,
  kind text not null,
  reference bigint not null,
  subject_id bigint,
  valid_until timestamptz not null,
  used_at timestamptz
);
create index token_reference on gdpr_internal.token (reference, kind);
create index token_subject on gdpr_internal.token (subject_id);
comment on table gdpr_internal.token is
  'One-time tokens, as SHA-256 digests: 256 random bits need no salt. reference: the request or registration that the token was made for; kind says which. used_at: it can be taken no more, and only shows who its bearer is.';

-- 00_foundation/14_home.sql
-- [state] Where this database is at home: a copy that was restored elsewhere, or to an earlier time, is told by it.
-- GDPR Art. 5(1)(f), Art. 17, Art. 32(1)(c). Written by gdpr.accept_restore(), gdpr.replay() and whoever notices a restore.

set local role gdpr_owner;

-- pg_dump keeps no OIDs, pg_upgrade does: where this type has another one, everything here came out of a dump
create type gdpr_generated.place as enum ();
comment on type gdpr_generated.place is 'Nothing but its OID: by it a database knows whether it is the one it was, or came out of a dump.';

create table gdpr_internal.home_record (
  id bigint generated always as identity primary key,
  event text not null check (event in ('installed', 'noticed', 'replayed', 'accepted')),
  reason text not null,
  system_identifier bigint not null,
  database_oid oid not null,
  timeline text not null,
  place oid not null,
  data_until timestamptz,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
comment on table gdpr_internal.home_record is
  'Where this database is at home; the last row counts. event noticed: it was found restored, and processing is refused until replayed or accepted. data_until: the newest audit record at that time, so the time that it was restored to.';

insert into gdpr_internal.home_record (event, reason, system_identifier, database_oid, timeline, place)
select
  'installed', 'gdprdb was installed here', s.system_identifier, d.oid, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
  'gdpr_generated.place'::regtype
from pg_control_system() as s
join pg_database as d on d.datname = current_database();

-- 10_collection/10_subjects.sql
-- [state] Subjects, their identifiers (which are also the blocklist) and the sources of their data.
-- GDPR Art. 4(1), Art. 5(1)(d), Art. 13, 14 (source), Art. 17 (a person erased stays so).

set local role gdpr_owner;

create table gdpr_internal.subject (
  id bigint generated by default as identity primary key,
  ref uuid not null default gen_random_uuid(),
  purposes bigint not null,
  until timestamptz not null,
  created_at timestamptz not null default statement_timestamp(),
  erased_at timestamptz
)
with (fillfactor = 80);
comment on table gdpr_internal.subject is
  'A person: a number and nothing that identifies. ref is the pseudonym in redacted views. purposes and until are the gate derived from the evidence: bit n, purpose n is or will be allowed; until: the first instant at which that may change.';

create table gdpr_internal.identifier (
  digest uuid primary key,
  kind text not null,
  subject_id bigint,
  bare_digest uuid,
  recorded_at timestamptz not null default statement_timestamp(),
  retired_at timestamptz,
  blocked_at timestamptz,
  block_reason text,
  by_match boolean not null default false
);
create index identifier_subject on gdpr_internal.identifier (subject_id);
comment on table gdpr_internal.identifier is
  'Keyed digests of identifiers. A digest belongs to a person or is blocked: one probe answers both, and the primary key is the arbiter of every race. bare_digest: the address without its plus-tag. retired_at: no longer the person''s, free for another. by_match: it came with a row that was given to a person who was known by another identifier: nobody has shown that both are the same person''s. No CHECK here or on other tables that every insert of a row writes: each costs a parse of its expression per statement.';

create table gdpr_internal.source (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  table_id smallint not null,
  row_key uuid,
  event text not null default 'created',
  kind text not null,
  details text,
  actor text,
  recorded_at timestamptz not null default statement_timestamp()
);
create index source_subject on gdpr_internal.source (subject_id);
comment on table gdpr_internal.source is
  'Where a person''s data came from (Art. 14(2)(f)): event created, one row for each row collected; changed, one for each change whose source was told. row_key: keyed digest of the row''s primary key. details (form, IP, file, service): ciphertext under the subject''s key.';

-- 10_collection/15_registrations.sql
-- [state] Registrations that wait for the person's confirmation, and addresses that want none.
-- GDPR Art. 5(1)(d), Art. 7(1) (proof), Art. 25(2). Written by gdpr.submit(), gdpr.confirm() and gdpr.opt_out().

set local role gdpr_owner;

create table gdpr_internal.registration (
  id bigint generated by default as identity primary key,
  table_id smallint not null,
  address uuid not null,
  mailbox uuid not null,
  content text,
  submitted_at timestamptz not null default statement_timestamp(),
  valid_until timestamptz not null,
  confirmed_at timestamptz,
  confirming_xid xid8
);
create index registration_address on gdpr_internal.registration (address);
create index registration_mailbox on gdpr_internal.registration (mailbox);
create index registration_valid_until on gdpr_internal.registration (valid_until);
create index registration_confirming on gdpr_internal.registration (confirming_xid) where confirming_xid is not null;
comment on table gdpr_internal.registration is
  'What somebody entered in a form and has not confirmed: nothing of it is in the application''s table. content: ciphertext of row, source and consent under a key of its own; null once confirmed, opted out, or where no mail went out. address: keyed digest; mailbox: that of the address without its plus-tag. confirming_xid: the transaction that inserts the row at this moment. Of no effect from valid_until on, deleted by gdpr.tidy_registrations().';

create table gdpr_internal.registration_mail (
  mailbox uuid not null,
  table_id smallint not null,
  mailed_at timestamptz not null,
  primary key (mailbox, table_id)
);
comment on table gdpr_internal.registration_mail is
  'When a mailbox was last written to about a table: one mail for each interval, however often a form is sent and whatever plus-tags the addresses have. The primary key is the arbiter between two that come at once.';

create table gdpr_internal.opt_out_record (
  id bigint generated always as identity primary key,
  mailbox uuid not null,
  event text not null check (event in ('opted_out', 'lifted')),
  reason text,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index opt_out_record_mailbox on gdpr_internal.opt_out_record (mailbox, id desc);
comment on table gdpr_internal.opt_out_record is
  'Mailboxes (keyed digests of the addresses without plus-tags) whose owners want no mails about registrations, and the end of that. The last event holds.';

set local role gdpr_keyholder;

create table gdpr_internal.registration_key (
  registration_id bigint primary key,
  wrapped bytea not null
);
comment on table gdpr_internal.registration_key is
  'The key of a registration, wrapped like a person''s. Deleting the row makes every copy of the ciphertext unreadable. Left out of data dumps like every table named .._key.';

-- 10_collection/16_probes.sql
-- [state] How often somebody ran into the blocklist.
-- GDPR Art. 32(1)(d). A refusal undoes its transaction, and with it whatever it wrote: only a sequence keeps on counting.

set local role gdpr_owner;

create table gdpr_internal.probe_counter (
  role_name name primary key,
  n integer not null generated always as identity unique
);
comment on table gdpr_internal.probe_counter is
  'Who has a counter of tries with blocked identifiers: each role of the policy, and '''' for all others. The count is the sequence gdpr_internal.probes_<n>.';

create table gdpr_internal.probe_reading (
  role_name name not null,
  read_at timestamptz not null default statement_timestamp(),
  total bigint not null,
  primary key (role_name, read_at)
);
comment on table gdpr_internal.probe_reading is 'The counters as gdpr.tidy_blocklist() read them: the difference of two is the count of the time between.';

-- 10_collection/17_imports.sql
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

-- 10_collection/20_fold.sql
-- [state] How letters fold: the part of a canonical form that must not depend on the server's locale or version.
-- Unicode 14.0.0 case folding of the characters that NFKC leaves alone, decimal digits to ASCII, format and other
-- ignorable characters to nothing. Code points in hexadecimal; several for one character are joined by a space.
-- Data: a later Unicode version is a migration with new digests, never a silent change.

set local role gdpr_owner;

create table gdpr_internal.fold (
  letter text collate "C" primary key,
  folded text not null
);
comment on table gdpr_internal.fold is 'Case folding, digits and ignorable characters beyond ASCII, as used by every identifier digest.';

create function pg_temp.hex_text(p_hex text)
returns text
language sql
immutable
as $function$
  select coalesce(string_agg(chr(('x' || lpad(h, 8, '0'))::bit(32)::integer), '' order by n), '')
  from unnest(string_to_array(p_hex, ' ')) with ordinality as c (h, n)
$function$;

insert into gdpr_internal.fold (letter, folded)
select pg_temp.hex_text(split_part(pair, '>', 1)), pg_temp.hex_text(split_part(pair, '>', 2))
from unnest(string_to_array(replace($map$
ad>,c0>e0,c1>e1,c2>e2,c3>e3,c4>e4,c5>e5,c6>e6,c7>e7,c8>e8,c9>e9,ca>ea,cb>eb,cc>ec,cd>ed,ce>ee,cf>ef,d0>f0,d1>f1,d2>f2,
d3>f3,d4>f4,d5>f5,d6>f6,d8>f8,d9>f9,da>fa,db>fb,dc>fc,dd>fd,de>fe,df>73 73,100>101,102>103,104>105,106>107,108>109,
10a>10b,10c>10d,10e>10f,110>111,112>113,114>115,116>117,118>119,11a>11b,11c>11d,11e>11f,120>121,122>123,124>125,
126>127,128>129,12a>12b,12c>12d,12e>12f,130>69 307,134>135,136>137,139>13a,13b>13c,13d>13e,141>142,143>144,145>146,
147>148,14a>14b,14c>14d,14e>14f,150>151,152>153,154>155,156>157,158>159,15a>15b,15c>15d,15e>15f,160>161,162>163,
164>165,166>167,168>169,16a>16b,16c>16d,16e>16f,170>171,172>173,174>175,176>177,178>ff,179>17a,17b>17c,17d>17e,
181>253,182>183,184>185,186>254,187>188,189>256,18a>257,18b>18c,18e>1dd,18f>259,190>25b,191>192,193>260,194>263,
196>269,197>268,198>199,19c>26f,19d>272,19f>275,1a0>1a1,1a2>1a3,1a4>1a5,1a6>280,1a7>1a8,1a9>283,1ac>1ad,1ae>288,
1af>1b0,1b1>28a,1b2>28b,1b3>1b4,1b5>1b6,1b7>292,1b8>1b9,1bc>1bd,1cd>1ce,1cf>1d0,1d1>1d2,1d3>1d4,1d5>1d6,1d7>1d8,
1d9>1da,1db>1dc,1de>1df,1e0>1e1,1e2>1e3,1e4>1e5,1e6>1e7,1e8>1e9,1ea>1eb,1ec>1ed,1ee>1ef,1f4>1f5,1f6>195,1f7>1bf,
1f8>1f9,1fa>1fb,1fc>1fd,1fe>1ff,200>201,202>203,204>205,206>207,208>209,20a>20b,20c>20d,20e>20f,210>211,212>213,
214>215,216>217,218>219,21a>21b,21c>21d,21e>21f,220>19e,222>223,224>225,226>227,228>229,22a>22b,22c>22d,22e>22f,
230>231,232>233,23a>2c65,23b>23c,23d>19a,23e>2c66,241>242,243>180,244>289,245>28c,246>247,248>249,24a>24b,24c>24d,
24e>24f,345>3b9,34f>,370>371,372>373,376>377,37f>3f3,386>3ac,388>3ad,389>3ae,38a>3af,38c>3cc,38e>3cd,38f>3ce,391>3b1,
392>3b2,393>3b3,394>3b4,395>3b5,396>3b6,397>3b7,398>3b8,399>3b9,39a>3ba,39b>3bb,39c>3bc,39d>3bd,39e>3be,39f>3bf,
3a0>3c0,3a1>3c1,3a3>3c3,3a4>3c4,3a5>3c5,3a6>3c6,3a7>3c7,3a8>3c8,3a9>3c9,3aa>3ca,3ab>3cb,3c2>3c3,3cf>3d7,3d8>3d9,
3da>3db,3dc>3dd,3de>3df,3e0>3e1,3e2>3e3,3e4>3e5,3e6>3e7,3e8>3e9,3ea>3eb,3ec>3ed,3ee>3ef,3f7>3f8,3fa>3fb,3fd>37b,
3fe>37c,3ff>37d,400>450,401>451,402>452,403>453,404>454,405>455,406>456,407>457,408>458,409>459,40a>45a,40b>45b,
40c>45c,40d>45d,40e>45e,40f>45f,410>430,411>431,412>432,413>433,414>434,415>435,416>436,417>437,418>438,419>439,
41a>43a,41b>43b,41c>43c,41d>43d,41e>43e,41f>43f,420>440,421>441,422>442,423>443,424>444,425>445,426>446,427>447,
428>448,429>449,42a>44a,42b>44b,42c>44c,42d>44d,42e>44e,42f>44f,460>461,462>463,464>465,466>467,468>469,46a>46b,
46c>46d,46e>46f,470>471,472>473,474>475,476>477,478>479,47a>47b,47c>47d,47e>47f,480>481,48a>48b,48c>48d,48e>48f,
490>491,492>493,494>495,496>497,498>499,49a>49b,49c>49d,49e>49f,4a0>4a1,4a2>4a3,4a4>4a5,4a6>4a7,4a8>4a9,4aa>4ab,
4ac>4ad,4ae>4af,4b0>4b1,4b2>4b3,4b4>4b5,4b6>4b7,4b8>4b9,4ba>4bb,4bc>4bd,4be>4bf,4c0>4cf,4c1>4c2,4c3>4c4,4c5>4c6,
4c7>4c8,4c9>4ca,4cb>4cc,4cd>4ce,4d0>4d1,4d2>4d3,4d4>4d5,4d6>4d7,4d8>4d9,4da>4db,4dc>4dd,4de>4df,4e0>4e1,4e2>4e3,
4e4>4e5,4e6>4e7,4e8>4e9,4ea>4eb,4ec>4ed,4ee>4ef,4f0>4f1,4f2>4f3,4f4>4f5,4f6>4f7,4f8>4f9,4fa>4fb,4fc>4fd,4fe>4ff,
500>501,502>503,504>505,506>507,508>509,50a>50b,50c>50d,50e>50f,510>511,512>513,514>515,516>517,518>519,51a>51b,
51c>51d,51e>51f,520>521,522>523,524>525,526>527,528>529,52a>52b,52c>52d,52e>52f,531>561,532>562,533>563,534>564,
535>565,536>566,537>567,538>568,539>569,53a>56a,53b>56b,53c>56c,53d>56d,53e>56e,53f>56f,540>570,541>571,542>572,
543>573,544>574,545>575,546>576,547>577,548>578,549>579,54a>57a,54b>57b,54c>57c,54d>57d,54e>57e,54f>57f,550>580,
551>581,552>582,553>583,554>584,555>585,556>586,600>,601>,602>,603>,604>,605>,61c>,660>30,661>31,662>32,663>33,664>34,
665>35,666>36,667>37,668>38,669>39,6dd>,6f0>30,6f1>31,6f2>32,6f3>33,6f4>34,6f5>35,6f6>36,6f7>37,6f8>38,6f9>39,70f>,
7c0>30,7c1>31,7c2>32,7c3>33,7c4>34,7c5>35,7c6>36,7c7>37,7c8>38,7c9>39,890>,891>,8e2>,966>30,967>31,968>32,969>33,
96a>34,96b>35,96c>36,96d>37,96e>38,96f>39,9e6>30,9e7>31,9e8>32,9e9>33,9ea>34,9eb>35,9ec>36,9ed>37,9ee>38,9ef>39,
a66>30,a67>31,a68>32,a69>33,a6a>34,a6b>35,a6c>36,a6d>37,a6e>38,a6f>39,ae6>30,ae7>31,ae8>32,ae9>33,aea>34,aeb>35,
aec>36,aed>37,aee>38,aef>39,b66>30,b67>31,b68>32,b69>33,b6a>34,b6b>35,b6c>36,b6d>37,b6e>38,b6f>39,be6>30,be7>31,
be8>32,be9>33,bea>34,beb>35,bec>36,bed>37,bee>38,bef>39,c66>30,c67>31,c68>32,c69>33,c6a>34,c6b>35,c6c>36,c6d>37,
c6e>38,c6f>39,ce6>30,ce7>31,ce8>32,ce9>33,cea>34,ceb>35,cec>36,ced>37,cee>38,cef>39,d66>30,d67>31,d68>32,d69>33,
d6a>34,d6b>35,d6c>36,d6d>37,d6e>38,d6f>39,de6>30,de7>31,de8>32,de9>33,dea>34,deb>35,dec>36,ded>37,dee>38,def>39,
e50>30,e51>31,e52>32,e53>33,e54>34,e55>35,e56>36,e57>37,e58>38,e59>39,ed0>30,ed1>31,ed2>32,ed3>33,ed4>34,ed5>35,
ed6>36,ed7>37,ed8>38,ed9>39,f20>30,f21>31,f22>32,f23>33,f24>34,f25>35,f26>36,f27>37,f28>38,f29>39,1040>30,1041>31,
1042>32,1043>33,1044>34,1045>35,1046>36,1047>37,1048>38,1049>39,1090>30,1091>31,1092>32,1093>33,1094>34,1095>35,
1096>36,1097>37,1098>38,1099>39,10a0>2d00,10a1>2d01,10a2>2d02,10a3>2d03,10a4>2d04,10a5>2d05,10a6>2d06,10a7>2d07,
10a8>2d08,10a9>2d09,10aa>2d0a,10ab>2d0b,10ac>2d0c,10ad>2d0d,10ae>2d0e,10af>2d0f,10b0>2d10,10b1>2d11,10b2>2d12,
10b3>2d13,10b4>2d14,10b5>2d15,10b6>2d16,10b7>2d17,10b8>2d18,10b9>2d19,10ba>2d1a,10bb>2d1b,10bc>2d1c,10bd>2d1d,
10be>2d1e,10bf>2d1f,10c0>2d20,10c1>2d21,10c2>2d22,10c3>2d23,10c4>2d24,10c5>2d25,10c7>2d27,10cd>2d2d,115f>,1160>,
13f8>13f0,13f9>13f1,13fa>13f2,13fb>13f3,13fc>13f4,13fd>13f5,17b4>,17b5>,17e0>30,17e1>31,17e2>32,17e3>33,17e4>34,
17e5>35,17e6>36,17e7>37,17e8>38,17e9>39,180b>,180c>,180d>,180e>,180f>,1810>30,1811>31,1812>32,1813>33,1814>34,1815>35,
1816>36,1817>37,1818>38,1819>39,1946>30,1947>31,1948>32,1949>33,194a>34,194b>35,194c>36,194d>37,194e>38,194f>39,
19d0>30,19d1>31,19d2>32,19d3>33,19d4>34,19d5>35,19d6>36,19d7>37,19d8>38,19d9>39,1a80>30,1a81>31,1a82>32,1a83>33,
1a84>34,1a85>35,1a86>36,1a87>37,1a88>38,1a89>39,1a90>30,1a91>31,1a92>32,1a93>33,1a94>34,1a95>35,1a96>36,1a97>37,
1a98>38,1a99>39,1b50>30,1b51>31,1b52>32,1b53>33,1b54>34,1b55>35,1b56>36,1b57>37,1b58>38,1b59>39,1bb0>30,1bb1>31,
1bb2>32,1bb3>33,1bb4>34,1bb5>35,1bb6>36,1bb7>37,1bb8>38,1bb9>39,1c40>30,1c41>31,1c42>32,1c43>33,1c44>34,1c45>35,
1c46>36,1c47>37,1c48>38,1c49>39,1c50>30,1c51>31,1c52>32,1c53>33,1c54>34,1c55>35,1c56>36,1c57>37,1c58>38,1c59>39,
1c80>432,1c81>434,1c82>43e,1c83>441,1c84>442,1c85>442,1c86>44a,1c87>463,1c88>a64b,1c90>10d0,1c91>10d1,1c92>10d2,
1c93>10d3,1c94>10d4,1c95>10d5,1c96>10d6,1c97>10d7,1c98>10d8,1c99>10d9,1c9a>10da,1c9b>10db,1c9c>10dc,1c9d>10dd,
1c9e>10de,1c9f>10df,1ca0>10e0,1ca1>10e1,1ca2>10e2,1ca3>10e3,1ca4>10e4,1ca5>10e5,1ca6>10e6,1ca7>10e7,1ca8>10e8,
1ca9>10e9,1caa>10ea,1cab>10eb,1cac>10ec,1cad>10ed,1cae>10ee,1caf>10ef,1cb0>10f0,1cb1>10f1,1cb2>10f2,1cb3>10f3,
1cb4>10f4,1cb5>10f5,1cb6>10f6,1cb7>10f7,1cb8>10f8,1cb9>10f9,1cba>10fa,1cbd>10fd,1cbe>10fe,1cbf>10ff,1e00>1e01,
1e02>1e03,1e04>1e05,1e06>1e07,1e08>1e09,1e0a>1e0b,1e0c>1e0d,1e0e>1e0f,1e10>1e11,1e12>1e13,1e14>1e15,1e16>1e17,
1e18>1e19,1e1a>1e1b,1e1c>1e1d,1e1e>1e1f,1e20>1e21,1e22>1e23,1e24>1e25,1e26>1e27,1e28>1e29,1e2a>1e2b,1e2c>1e2d,
1e2e>1e2f,1e30>1e31,1e32>1e33,1e34>1e35,1e36>1e37,1e38>1e39,1e3a>1e3b,1e3c>1e3d,1e3e>1e3f,1e40>1e41,1e42>1e43,
1e44>1e45,1e46>1e47,1e48>1e49,1e4a>1e4b,1e4c>1e4d,1e4e>1e4f,1e50>1e51,1e52>1e53,1e54>1e55,1e56>1e57,1e58>1e59,
1e5a>1e5b,1e5c>1e5d,1e5e>1e5f,1e60>1e61,1e62>1e63,1e64>1e65,1e66>1e67,1e68>1e69,1e6a>1e6b,1e6c>1e6d,1e6e>1e6f,
1e70>1e71,1e72>1e73,1e74>1e75,1e76>1e77,1e78>1e79,1e7a>1e7b,1e7c>1e7d,1e7e>1e7f,1e80>1e81,1e82>1e83,1e84>1e85,
1e86>1e87,1e88>1e89,1e8a>1e8b,1e8c>1e8d,1e8e>1e8f,1e90>1e91,1e92>1e93,1e94>1e95,1e9e>73 73,1ea0>1ea1,1ea2>1ea3,
1ea4>1ea5,1ea6>1ea7,1ea8>1ea9,1eaa>1eab,1eac>1ead,1eae>1eaf,1eb0>1eb1,1eb2>1eb3,1eb4>1eb5,1eb6>1eb7,1eb8>1eb9,
1eba>1ebb,1ebc>1ebd,1ebe>1ebf,1ec0>1ec1,1ec2>1ec3,1ec4>1ec5,1ec6>1ec7,1ec8>1ec9,1eca>1ecb,1ecc>1ecd,1ece>1ecf,
1ed0>1ed1,1ed2>1ed3,1ed4>1ed5,1ed6>1ed7,1ed8>1ed9,1eda>1edb,1edc>1edd,1ede>1edf,1ee0>1ee1,1ee2>1ee3,1ee4>1ee5,
1ee6>1ee7,1ee8>1ee9,1eea>1eeb,1eec>1eed,1eee>1eef,1ef0>1ef1,1ef2>1ef3,1ef4>1ef5,1ef6>1ef7,1ef8>1ef9,1efa>1efb,
1efc>1efd,1efe>1eff,1f08>1f00,1f09>1f01,1f0a>1f02,1f0b>1f03,1f0c>1f04,1f0d>1f05,1f0e>1f06,1f0f>1f07,1f18>1f10,
1f19>1f11,1f1a>1f12,1f1b>1f13,1f1c>1f14,1f1d>1f15,1f28>1f20,1f29>1f21,1f2a>1f22,1f2b>1f23,1f2c>1f24,1f2d>1f25,
1f2e>1f26,1f2f>1f27,1f38>1f30,1f39>1f31,1f3a>1f32,1f3b>1f33,1f3c>1f34,1f3d>1f35,1f3e>1f36,1f3f>1f37,1f48>1f40,
1f49>1f41,1f4a>1f42,1f4b>1f43,1f4c>1f44,1f4d>1f45,1f59>1f51,1f5b>1f53,1f5d>1f55,1f5f>1f57,1f68>1f60,1f69>1f61,
1f6a>1f62,1f6b>1f63,1f6c>1f64,1f6d>1f65,1f6e>1f66,1f6f>1f67,1f80>1f00 3b9,1f81>1f01 3b9,1f82>1f02 3b9,1f83>1f03 3b9,
1f84>1f04 3b9,1f85>1f05 3b9,1f86>1f06 3b9,1f87>1f07 3b9,1f88>1f00 3b9,1f89>1f01 3b9,1f8a>1f02 3b9,1f8b>1f03 3b9,
1f8c>1f04 3b9,1f8d>1f05 3b9,1f8e>1f06 3b9,1f8f>1f07 3b9,1f90>1f20 3b9,1f91>1f21 3b9,1f92>1f22 3b9,1f93>1f23 3b9,
1f94>1f24 3b9,1f95>1f25 3b9,1f96>1f26 3b9,1f97>1f27 3b9,1f98>1f20 3b9,1f99>1f21 3b9,1f9a>1f22 3b9,1f9b>1f23 3b9,
1f9c>1f24 3b9,1f9d>1f25 3b9,1f9e>1f26 3b9,1f9f>1f27 3b9,1fa0>1f60 3b9,1fa1>1f61 3b9,1fa2>1f62 3b9,1fa3>1f63 3b9,
1fa4>1f64 3b9,1fa5>1f65 3b9,1fa6>1f66 3b9,1fa7>1f67 3b9,1fa8>1f60 3b9,1fa9>1f61 3b9,1faa>1f62 3b9,1fab>1f63 3b9,
1fac>1f64 3b9,1fad>1f65 3b9,1fae>1f66 3b9,1faf>1f67 3b9,1fb2>1f70 3b9,1fb3>3b1 3b9,1fb4>3ac 3b9,1fb7>1fb6 3b9,
1fb8>1fb0,1fb9>1fb1,1fba>1f70,1fbc>3b1 3b9,1fc2>1f74 3b9,1fc3>3b7 3b9,1fc4>3ae 3b9,1fc7>1fc6 3b9,1fc8>1f72,1fca>1f74,
1fcc>3b7 3b9,1fd8>1fd0,1fd9>1fd1,1fda>1f76,1fe8>1fe0,1fe9>1fe1,1fea>1f7a,1fec>1fe5,1ff2>1f7c 3b9,1ff3>3c9 3b9,
1ff4>3ce 3b9,1ff7>1ff6 3b9,1ff8>1f78,1ffa>1f7c,1ffc>3c9 3b9,200b>,200c>,200d>,200e>,200f>,202a>,202b>,202c>,202d>,
202e>,2060>,2061>,2062>,2063>,2064>,2066>,2067>,2068>,2069>,206a>,206b>,206c>,206d>,206e>,206f>,2132>214e,2183>2184,
2c00>2c30,2c01>2c31,2c02>2c32,2c03>2c33,2c04>2c34,2c05>2c35,2c06>2c36,2c07>2c37,2c08>2c38,2c09>2c39,2c0a>2c3a,
2c0b>2c3b,2c0c>2c3c,2c0d>2c3d,2c0e>2c3e,2c0f>2c3f,2c10>2c40,2c11>2c41,2c12>2c42,2c13>2c43,2c14>2c44,2c15>2c45,
2c16>2c46,2c17>2c47,2c18>2c48,2c19>2c49,2c1a>2c4a,2c1b>2c4b,2c1c>2c4c,2c1d>2c4d,2c1e>2c4e,2c1f>2c4f,2c20>2c50,
2c21>2c51,2c22>2c52,2c23>2c53,2c24>2c54,2c25>2c55,2c26>2c56,2c27>2c57,2c28>2c58,2c29>2c59,2c2a>2c5a,2c2b>2c5b,
2c2c>2c5c,2c2d>2c5d,2c2e>2c5e,2c2f>2c5f,2c60>2c61,2c62>26b,2c63>1d7d,2c64>27d,2c67>2c68,2c69>2c6a,2c6b>2c6c,2c6d>251,
2c6e>271,2c6f>250,2c70>252,2c72>2c73,2c75>2c76,2c7e>23f,2c7f>240,2c80>2c81,2c82>2c83,2c84>2c85,2c86>2c87,2c88>2c89,
2c8a>2c8b,2c8c>2c8d,2c8e>2c8f,2c90>2c91,2c92>2c93,2c94>2c95,2c96>2c97,2c98>2c99,2c9a>2c9b,2c9c>2c9d,2c9e>2c9f,
2ca0>2ca1,2ca2>2ca3,2ca4>2ca5,2ca6>2ca7,2ca8>2ca9,2caa>2cab,2cac>2cad,2cae>2caf,2cb0>2cb1,2cb2>2cb3,2cb4>2cb5,
2cb6>2cb7,2cb8>2cb9,2cba>2cbb,2cbc>2cbd,2cbe>2cbf,2cc0>2cc1,2cc2>2cc3,2cc4>2cc5,2cc6>2cc7,2cc8>2cc9,2cca>2ccb,
2ccc>2ccd,2cce>2ccf,2cd0>2cd1,2cd2>2cd3,2cd4>2cd5,2cd6>2cd7,2cd8>2cd9,2cda>2cdb,2cdc>2cdd,2cde>2cdf,2ce0>2ce1,
2ce2>2ce3,2ceb>2cec,2ced>2cee,2cf2>2cf3,3164>,a620>30,a621>31,a622>32,a623>33,a624>34,a625>35,a626>36,a627>37,a628>38,
a629>39,a640>a641,a642>a643,a644>a645,a646>a647,a648>a649,a64a>a64b,a64c>a64d,a64e>a64f,a650>a651,a652>a653,a654>a655,
a656>a657,a658>a659,a65a>a65b,a65c>a65d,a65e>a65f,a660>a661,a662>a663,a664>a665,a666>a667,a668>a669,a66a>a66b,
a66c>a66d,a680>a681,a682>a683,a684>a685,a686>a687,a688>a689,a68a>a68b,a68c>a68d,a68e>a68f,a690>a691,a692>a693,
a694>a695,a696>a697,a698>a699,a69a>a69b,a722>a723,a724>a725,a726>a727,a728>a729,a72a>a72b,a72c>a72d,a72e>a72f,
a732>a733,a734>a735,a736>a737,a738>a739,a73a>a73b,a73c>a73d,a73e>a73f,a740>a741,a742>a743,a744>a745,a746>a747,
a748>a749,a74a>a74b,a74c>a74d,a74e>a74f,a750>a751,a752>a753,a754>a755,a756>a757,a758>a759,a75a>a75b,a75c>a75d,
a75e>a75f,a760>a761,a762>a763,a764>a765,a766>a767,a768>a769,a76a>a76b,a76c>a76d,a76e>a76f,a779>a77a,a77b>a77c,
a77d>1d79,a77e>a77f,a780>a781,a782>a783,a784>a785,a786>a787,a78b>a78c,a78d>265,a790>a791,a792>a793,a796>a797,
a798>a799,a79a>a79b,a79c>a79d,a79e>a79f,a7a0>a7a1,a7a2>a7a3,a7a4>a7a5,a7a6>a7a7,a7a8>a7a9,a7aa>266,a7ab>25c,a7ac>261,
a7ad>26c,a7ae>26a,a7b0>29e,a7b1>287,a7b2>29d,a7b3>ab53,a7b4>a7b5,a7b6>a7b7,a7b8>a7b9,a7ba>a7bb,a7bc>a7bd,a7be>a7bf,
a7c0>a7c1,a7c2>a7c3,a7c4>a794,a7c5>282,a7c6>1d8e,a7c7>a7c8,a7c9>a7ca,a7d0>a7d1,a7d6>a7d7,a7d8>a7d9,a7f5>a7f6,a8d0>30,
a8d1>31,a8d2>32,a8d3>33,a8d4>34,a8d5>35,a8d6>36,a8d7>37,a8d8>38,a8d9>39,a900>30,a901>31,a902>32,a903>33,a904>34,
a905>35,a906>36,a907>37,a908>38,a909>39,a9d0>30,a9d1>31,a9d2>32,a9d3>33,a9d4>34,a9d5>35,a9d6>36,a9d7>37,a9d8>38,
a9d9>39,a9f0>30,a9f1>31,a9f2>32,a9f3>33,a9f4>34,a9f5>35,a9f6>36,a9f7>37,a9f8>38,a9f9>39,aa50>30,aa51>31,aa52>32,
aa53>33,aa54>34,aa55>35,aa56>36,aa57>37,aa58>38,aa59>39,ab70>13a0,ab71>13a1,ab72>13a2,ab73>13a3,ab74>13a4,ab75>13a5,
ab76>13a6,ab77>13a7,ab78>13a8,ab79>13a9,ab7a>13aa,ab7b>13ab,ab7c>13ac,ab7d>13ad,ab7e>13ae,ab7f>13af,ab80>13b0,
ab81>13b1,ab82>13b2,ab83>13b3,ab84>13b4,ab85>13b5,ab86>13b6,ab87>13b7,ab88>13b8,ab89>13b9,ab8a>13ba,ab8b>13bb,
ab8c>13bc,ab8d>13bd,ab8e>13be,ab8f>13bf,ab90>13c0,ab91>13c1,ab92>13c2,ab93>13c3,ab94>13c4,ab95>13c5,ab96>13c6,
ab97>13c7,ab98>13c8,ab99>13c9,ab9a>13ca,ab9b>13cb,ab9c>13cc,ab9d>13cd,ab9e>13ce,ab9f>13cf,aba0>13d0,aba1>13d1,
aba2>13d2,aba3>13d3,aba4>13d4,aba5>13d5,aba6>13d6,aba7>13d7,aba8>13d8,aba9>13d9,abaa>13da,abab>13db,abac>13dc,
abad>13dd,abae>13de,abaf>13df,abb0>13e0,abb1>13e1,abb2>13e2,abb3>13e3,abb4>13e4,abb5>13e5,abb6>13e6,abb7>13e7,
abb8>13e8,abb9>13e9,abba>13ea,abbb>13eb,abbc>13ec,abbd>13ed,abbe>13ee,abbf>13ef,abf0>30,abf1>31,abf2>32,abf3>33,
abf4>34,abf5>35,abf6>36,abf7>37,abf8>38,abf9>39,fe00>,fe01>,fe02>,fe03>,fe04>,fe05>,fe06>,fe07>,fe08>,fe09>,fe0a>,
fe0b>,fe0c>,fe0d>,fe0e>,fe0f>,feff>,ff10>30,ff11>31,ff12>32,ff13>33,ff14>34,ff15>35,ff16>36,ff17>37,ff18>38,ff19>39,
ffa0>,fff9>,fffa>,fffb>,10400>10428,10401>10429,10402>1042a,10403>1042b,10404>1042c,10405>1042d,10406>1042e,
10407>1042f,10408>10430,10409>10431,1040a>10432,1040b>10433,1040c>10434,1040d>10435,1040e>10436,1040f>10437,
10410>10438,10411>10439,10412>1043a,10413>1043b,10414>1043c,10415>1043d,10416>1043e,10417>1043f,10418>10440,
10419>10441,1041a>10442,1041b>10443,1041c>10444,1041d>10445,1041e>10446,1041f>10447,10420>10448,10421>10449,
10422>1044a,10423>1044b,10424>1044c,10425>1044d,10426>1044e,10427>1044f,104a0>30,104a1>31,104a2>32,104a3>33,104a4>34,
104a5>35,104a6>36,104a7>37,104a8>38,104a9>39,104b0>104d8,104b1>104d9,104b2>104da,104b3>104db,104b4>104dc,104b5>104dd,
104b6>104de,104b7>104df,104b8>104e0,104b9>104e1,104ba>104e2,104bb>104e3,104bc>104e4,104bd>104e5,104be>104e6,
104bf>104e7,104c0>104e8,104c1>104e9,104c2>104ea,104c3>104eb,104c4>104ec,104c5>104ed,104c6>104ee,104c7>104ef,
104c8>104f0,104c9>104f1,104ca>104f2,104cb>104f3,104cc>104f4,104cd>104f5,104ce>104f6,104cf>104f7,104d0>104f8,
104d1>104f9,104d2>104fa,104d3>104fb,10570>10597,10571>10598,10572>10599,10573>1059a,10574>1059b,10575>1059c,
10576>1059d,10577>1059e,10578>1059f,10579>105a0,1057a>105a1,1057c>105a3,1057d>105a4,1057e>105a5,1057f>105a6,
10580>105a7,10581>105a8,10582>105a9,10583>105aa,10584>105ab,10585>105ac,10586>105ad,10587>105ae,10588>105af,
10589>105b0,1058a>105b1,1058c>105b3,1058d>105b4,1058e>105b5,1058f>105b6,10590>105b7,10591>105b8,10592>105b9,
10594>105bb,10595>105bc,10c80>10cc0,10c81>10cc1,10c82>10cc2,10c83>10cc3,10c84>10cc4,10c85>10cc5,10c86>10cc6,
10c87>10cc7,10c88>10cc8,10c89>10cc9,10c8a>10cca,10c8b>10ccb,10c8c>10ccc,10c8d>10ccd,10c8e>10cce,10c8f>10ccf,
10c90>10cd0,10c91>10cd1,10c92>10cd2,10c93>10cd3,10c94>10cd4,10c95>10cd5,10c96>10cd6,10c97>10cd7,10c98>10cd8,
10c99>10cd9,10c9a>10cda,10c9b>10cdb,10c9c>10cdc,10c9d>10cdd,10c9e>10cde,10c9f>10cdf,10ca0>10ce0,10ca1>10ce1,
10ca2>10ce2,10ca3>10ce3,10ca4>10ce4,10ca5>10ce5,10ca6>10ce6,10ca7>10ce7,10ca8>10ce8,10ca9>10ce9,10caa>10cea,
10cab>10ceb,10cac>10cec,10cad>10ced,10cae>10cee,10caf>10cef,10cb0>10cf0,10cb1>10cf1,10cb2>10cf2,10d30>30,10d31>31,
10d32>32,10d33>33,10d34>34,10d35>35,10d36>36,10d37>37,10d38>38,10d39>39,11066>30,11067>31,11068>32,11069>33,1106a>34,
1106b>35,1106c>36,1106d>37,1106e>38,1106f>39,110bd>,110cd>,110f0>30,110f1>31,110f2>32,110f3>33,110f4>34,110f5>35,
110f6>36,110f7>37,110f8>38,110f9>39,11136>30,11137>31,11138>32,11139>33,1113a>34,1113b>35,1113c>36,1113d>37,1113e>38,
1113f>39,111d0>30,111d1>31,111d2>32,111d3>33,111d4>34,111d5>35,111d6>36,111d7>37,111d8>38,111d9>39,112f0>30,112f1>31,
112f2>32,112f3>33,112f4>34,112f5>35,112f6>36,112f7>37,112f8>38,112f9>39,11450>30,11451>31,11452>32,11453>33,11454>34,
11455>35,11456>36,11457>37,11458>38,11459>39,114d0>30,114d1>31,114d2>32,114d3>33,114d4>34,114d5>35,114d6>36,114d7>37,
114d8>38,114d9>39,11650>30,11651>31,11652>32,11653>33,11654>34,11655>35,11656>36,11657>37,11658>38,11659>39,116c0>30,
116c1>31,116c2>32,116c3>33,116c4>34,116c5>35,116c6>36,116c7>37,116c8>38,116c9>39,11730>30,11731>31,11732>32,11733>33,
11734>34,11735>35,11736>36,11737>37,11738>38,11739>39,118a0>118c0,118a1>118c1,118a2>118c2,118a3>118c3,118a4>118c4,
118a5>118c5,118a6>118c6,118a7>118c7,118a8>118c8,118a9>118c9,118aa>118ca,118ab>118cb,118ac>118cc,118ad>118cd,
118ae>118ce,118af>118cf,118b0>118d0,118b1>118d1,118b2>118d2,118b3>118d3,118b4>118d4,118b5>118d5,118b6>118d6,
118b7>118d7,118b8>118d8,118b9>118d9,118ba>118da,118bb>118db,118bc>118dc,118bd>118dd,118be>118de,118bf>118df,118e0>30,
118e1>31,118e2>32,118e3>33,118e4>34,118e5>35,118e6>36,118e7>37,118e8>38,118e9>39,11950>30,11951>31,11952>32,11953>33,
11954>34,11955>35,11956>36,11957>37,11958>38,11959>39,11c50>30,11c51>31,11c52>32,11c53>33,11c54>34,11c55>35,11c56>36,
11c57>37,11c58>38,11c59>39,11d50>30,11d51>31,11d52>32,11d53>33,11d54>34,11d55>35,11d56>36,11d57>37,11d58>38,11d59>39,
11da0>30,11da1>31,11da2>32,11da3>33,11da4>34,11da5>35,11da6>36,11da7>37,11da8>38,11da9>39,13430>,13431>,13432>,13433>,
13434>,13435>,13436>,13437>,13438>,16a60>30,16a61>31,16a62>32,16a63>33,16a64>34,16a65>35,16a66>36,16a67>37,16a68>38,
16a69>39,16ac0>30,16ac1>31,16ac2>32,16ac3>33,16ac4>34,16ac5>35,16ac6>36,16ac7>37,16ac8>38,16ac9>39,16b50>30,16b51>31,
16b52>32,16b53>33,16b54>34,16b55>35,16b56>36,16b57>37,16b58>38,16b59>39,16e40>16e60,16e41>16e61,16e42>16e62,
16e43>16e63,16e44>16e64,16e45>16e65,16e46>16e66,16e47>16e67,16e48>16e68,16e49>16e69,16e4a>16e6a,16e4b>16e6b,
16e4c>16e6c,16e4d>16e6d,16e4e>16e6e,16e4f>16e6f,16e50>16e70,16e51>16e71,16e52>16e72,16e53>16e73,16e54>16e74,
16e55>16e75,16e56>16e76,16e57>16e77,16e58>16e78,16e59>16e79,16e5a>16e7a,16e5b>16e7b,16e5c>16e7c,16e5d>16e7d,
16e5e>16e7e,16e5f>16e7f,1bca0>,1bca1>,1bca2>,1bca3>,1d173>,1d174>,1d175>,1d176>,1d177>,1d178>,1d179>,1d17a>,1d7ce>30,
1d7cf>31,1d7d0>32,1d7d1>33,1d7d2>34,1d7d3>35,1d7d4>36,1d7d5>37,1d7d6>38,1d7d7>39,1d7d8>30,1d7d9>31,1d7da>32,1d7db>33,
1d7dc>34,1d7dd>35,1d7de>36,1d7df>37,1d7e0>38,1d7e1>39,1d7e2>30,1d7e3>31,1d7e4>32,1d7e5>33,1d7e6>34,1d7e7>35,1d7e8>36,
1d7e9>37,1d7ea>38,1d7eb>39,1d7ec>30,1d7ed>31,1d7ee>32,1d7ef>33,1d7f0>34,1d7f1>35,1d7f2>36,1d7f3>37,1d7f4>38,1d7f5>39,
1d7f6>30,1d7f7>31,1d7f8>32,1d7f9>33,1d7fa>34,1d7fb>35,1d7fc>36,1d7fd>37,1d7fe>38,1d7ff>39,1e140>30,1e141>31,1e142>32,
1e143>33,1e144>34,1e145>35,1e146>36,1e147>37,1e148>38,1e149>39,1e2f0>30,1e2f1>31,1e2f2>32,1e2f3>33,1e2f4>34,1e2f5>35,
1e2f6>36,1e2f7>37,1e2f8>38,1e2f9>39,1e900>1e922,1e901>1e923,1e902>1e924,1e903>1e925,1e904>1e926,1e905>1e927,
1e906>1e928,1e907>1e929,1e908>1e92a,1e909>1e92b,1e90a>1e92c,1e90b>1e92d,1e90c>1e92e,1e90d>1e92f,1e90e>1e930,
1e90f>1e931,1e910>1e932,1e911>1e933,1e912>1e934,1e913>1e935,1e914>1e936,1e915>1e937,1e916>1e938,1e917>1e939,
1e918>1e93a,1e919>1e93b,1e91a>1e93c,1e91b>1e93d,1e91c>1e93e,1e91d>1e93f,1e91e>1e940,1e91f>1e941,1e920>1e942,
1e921>1e943,1e950>30,1e951>31,1e952>32,1e953>33,1e954>34,1e955>35,1e956>36,1e957>37,1e958>38,1e959>39,1fbf0>30,
1fbf1>31,1fbf2>32,1fbf3>33,1fbf4>34,1fbf5>35,1fbf6>36,1fbf7>37,1fbf8>38,1fbf9>39,e0000>,e0001>,e0002>,e0003>,e0004>,
e0005>,e0006>,e0007>,e0008>,e0009>,e000a>,e000b>,e000c>,e000d>,e000e>,e000f>,e0010>,e0011>,e0012>,e0013>,e0014>,
e0015>,e0016>,e0017>,e0018>,e0019>,e001a>,e001b>,e001c>,e001d>,e001e>,e001f>,e0020>,e0021>,e0022>,e0023>,e0024>,
e0025>,e0026>,e0027>,e0028>,e0029>,e002a>,e002b>,e002c>,e002d>,e002e>,e002f>,e0030>,e0031>,e0032>,e0033>,e0034>,
e0035>,e0036>,e0037>,e0038>,e0039>,e003a>,e003b>,e003c>,e003d>,e003e>,e003f>,e0040>,e0041>,e0042>,e0043>,e0044>,
e0045>,e0046>,e0047>,e0048>,e0049>,e004a>,e004b>,e004c>,e004d>,e004e>,e004f>,e0050>,e0051>,e0052>,e0053>,e0054>,
e0055>,e0056>,e0057>,e0058>,e0059>,e005a>,e005b>,e005c>,e005d>,e005e>,e005f>,e0060>,e0061>,e0062>,e0063>,e0064>,
e0065>,e0066>,e0067>,e0068>,e0069>,e006a>,e006b>,e006c>,e006d>,e006e>,e006f>,e0070>,e0071>,e0072>,e0073>,e0074>,
e0075>,e0076>,e0077>,e0078>,e0079>,e007a>,e007b>,e007c>,e007d>,e007e>,e007f>,e0100>,e0101>,e0102>,e0103>,e0104>,
e0105>,e0106>,e0107>,e0108>,e0109>,e010a>,e010b>,e010c>,e010d>,e010e>,e010f>,e0110>,e0111>,e0112>,e0113>,e0114>,
e0115>,e0116>,e0117>,e0118>,e0119>,e011a>,e011b>,e011c>,e011d>,e011e>,e011f>,e0120>,e0121>,e0122>,e0123>,e0124>,
e0125>,e0126>,e0127>,e0128>,e0129>,e012a>,e012b>,e012c>,e012d>,e012e>,e012f>,e0130>,e0131>,e0132>,e0133>,e0134>,
e0135>,e0136>,e0137>,e0138>,e0139>,e013a>,e013b>,e013c>,e013d>,e013e>,e013f>,e0140>,e0141>,e0142>,e0143>,e0144>,
e0145>,e0146>,e0147>,e0148>,e0149>,e014a>,e014b>,e014c>,e014d>,e014e>,e014f>,e0150>,e0151>,e0152>,e0153>,e0154>,
e0155>,e0156>,e0157>,e0158>,e0159>,e015a>,e015b>,e015c>,e015d>,e015e>,e015f>,e0160>,e0161>,e0162>,e0163>,e0164>,
e0165>,e0166>,e0167>,e0168>,e0169>,e016a>,e016b>,e016c>,e016d>,e016e>,e016f>,e0170>,e0171>,e0172>,e0173>,e0174>,
e0175>,e0176>,e0177>,e0178>,e0179>,e017a>,e017b>,e017c>,e017d>,e017e>,e017f>,e0180>,e0181>,e0182>,e0183>,e0184>,
e0185>,e0186>,e0187>,e0188>,e0189>,e018a>,e018b>,e018c>,e018d>,e018e>,e018f>,e0190>,e0191>,e0192>,e0193>,e0194>,
e0195>,e0196>,e0197>,e0198>,e0199>,e019a>,e019b>,e019c>,e019d>,e019e>,e019f>,e01a0>,e01a1>,e01a2>,e01a3>,e01a4>,
e01a5>,e01a6>,e01a7>,e01a8>,e01a9>,e01aa>,e01ab>,e01ac>,e01ad>,e01ae>,e01af>,e01b0>,e01b1>,e01b2>,e01b3>,e01b4>,
e01b5>,e01b6>,e01b7>,e01b8>,e01b9>,e01ba>,e01bb>,e01bc>,e01bd>,e01be>,e01bf>,e01c0>,e01c1>,e01c2>,e01c3>,e01c4>,
e01c5>,e01c6>,e01c7>,e01c8>,e01c9>,e01ca>,e01cb>,e01cc>,e01cd>,e01ce>,e01cf>,e01d0>,e01d1>,e01d2>,e01d3>,e01d4>,
e01d5>,e01d6>,e01d7>,e01d8>,e01d9>,e01da>,e01db>,e01dc>,e01dd>,e01de>,e01df>,e01e0>,e01e1>,e01e2>,e01e3>,e01e4>,
e01e5>,e01e6>,e01e7>,e01e8>,e01e9>,e01ea>,e01eb>,e01ec>,e01ed>,e01ee>,e01ef>$map$, E'\n', ''), ',')) as m (pair);

drop function pg_temp.hex_text(text);

-- 20_lawful_basis/05_builtin.sql
-- [state] The purposes and bindings that every database has.
-- GDPR Art. 37 to 39 (the data protection officer), Art. 32(4).

set local role gdpr_owner;

insert into gdpr_internal.purpose (id, name, description, basis)
values
  (62, 'compliance', 'Answering persons and authorities, keeping evidence', 'legal_obligation'),
  (63, 'maintenance', 'Migrations and dumps: every row that is not erased, each transaction on record', null);

insert into gdpr_internal.role_binding (role_name, audience, definition)
values ('gdpr_dpo', 'clear', '{}'), ('gdpr_worker', 'clear', '{}');

insert into gdpr_internal.role_purpose (role_name, position, purpose_id)
values ('gdpr_dpo', 100, 62), ('gdpr_worker', 100, 62);

-- 20_lawful_basis/10_bases.sql
-- [state] Lawful bases: evidence of why a person's data may be processed for a purpose, and of the end of it.
-- GDPR Art. 5(2), Art. 6(1). Append-only; gdpr.basis derives the state.

set local role gdpr_owner;

create table gdpr_internal.table_basis (
  table_id smallint not null references gdpr_internal.protected_table on delete cascade,
  purpose_id smallint not null references gdpr_internal.purpose,
  basis text not null,
  valid_until timestamptz not null default 'infinity',
  primary key (table_id, purpose_id, basis)
);
comment on table gdpr_internal.table_basis is
  'Bases that every person has by standing in this table (a customer has a contract by being one). basis undetermined, until the grace period of the purpose ends: for the persons of rows that were there before gdprdb, where the policy asks for a consent or an assessment that nobody has seen yet.';

create table gdpr_internal.basis_record (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  purpose_id smallint not null,
  basis text not null,
  condition text,
  reason text,
  evidence text,
  valid_from timestamptz not null default statement_timestamp(),
  valid_until timestamptz not null default 'infinity',
  assessment_id bigint,
  by_table smallint,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index basis_record_subject on gdpr_internal.basis_record (subject_id);
comment on table gdpr_internal.basis_record is
  'Lawful bases other than consent, per person and purpose. condition: the second condition of Art. 9(2), for special categories. evidence: ciphertext under the person''s key. assessment_id: the version on which a legitimate interest was first rested. by_table: recorded by default when a row entered that protected table.';

create table gdpr_internal.basis_end (
  basis_id bigint primary key references gdpr_internal.basis_record,
  reason text not null,
  by_policy boolean not null default false,
  ended_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
comment on table gdpr_internal.basis_end is
  'Bases that ended before their time, and why. by_policy: because the policy gives another one; what a person ended is not given again by a table.';

-- 20_lawful_basis/15_assessments.sql
-- [state] Assessments of legitimate interests: interest, necessity, balancing, and who decided about them.
-- GDPR Art. 6(1)(f), Art. 5(2). Append-only; gdpr.assessment derives the state.

set local role gdpr_owner;

create table gdpr_internal.assessment (
  id bigint generated always as identity primary key,
  purpose_id smallint not null references gdpr_internal.purpose,
  version integer not null,
  interest text not null,
  necessity text not null,
  balancing text not null,
  review_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  author text not null default session_user,
  actor text,
  unique (purpose_id, version)
);
comment on table gdpr_internal.assessment is
  'Assessments of legitimate interests, one row for each version. review_at: when its author wants it reviewed at the latest.';

create table gdpr_internal.assessment_decision (
  id bigint generated always as identity primary key,
  assessment_id bigint not null references gdpr_internal.assessment,
  approved boolean not null,
  review_at timestamptz not null,
  reason text,
  decided_at timestamptz not null default statement_timestamp(),
  decided_by text not null default session_user,
  actor text
);
create index assessment_decision_assessment on gdpr_internal.assessment_decision (assessment_id);
comment on table gdpr_internal.assessment_decision is
  'Approvals, renewals and rejections of assessments; the latest counts. An approval carries until review_at.';

-- 30_consent/10_consents.sql
-- [state] Consent: the texts that were shown, who was asked what, and evidence of what a person granted, declined or withdrew.
-- GDPR Art. 6(1)(a), Art. 7(1), 7(3). Append-only, drafts of texts excepted; gdpr.consent derives the status.

set local role gdpr_owner;

create table gdpr_internal.consent_form (
  id bigint generated always as identity primary key,
  name text not null check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  version integer not null,
  language text not null check (language ~ '^[a-z]{2,3}(-[a-z0-9]{2,8})*$'),
  purposes text[] not null,
  channels text[] not null,
  title text not null,
  statement text not null,
  privacy_notice text not null,
  digest bytea not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  unique (name, version, language)
);
comment on table gdpr_internal.consent_form is
  'What a person is asked, word by word: one text for each version and language. channels: by which the controller wants to get in touch. digest: SHA-256 of its canonical text. A draft until its version is in consent_form_version; then a trigger keeps it.';

create table gdpr_internal.consent_form_version (
  name text not null,
  version integer not null,
  default_language text not null,
  published_at timestamptz not null default statement_timestamp(),
  published_by text not null default session_user,
  primary key (name, version),
  foreign key (name, version, default_language) references gdpr_internal.consent_form (name, version, language)
);
comment on table gdpr_internal.consent_form_version is
  'Published versions of forms: their texts no longer change. default_language: the text for persons whose language it does not speak.';

-- one row of numbers for questions and answers: which came first can be told
create sequence gdpr_internal.consent_event_seq;

create table gdpr_internal.consent_request (
  id bigint not null default nextval('gdpr_internal.consent_event_seq') primary key,
  subject_id bigint not null,
  purposes smallint[] not null,
  channel text not null check (channel in ('email', 'portal', 'phone', 'paper')),
  form_id bigint references gdpr_internal.consent_form,
  respond_until timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index consent_request_subject on gdpr_internal.consent_request (subject_id, id);
comment on table gdpr_internal.consent_request is
  'Persons asked for consent: for which purposes, by which text, until when. Whether they answered, the records that follow tell.';

create table gdpr_internal.consent_mail (
  mail_id bigint primary key,
  request_id bigint not null references gdpr_internal.consent_request
);
create index consent_mail_request on gdpr_internal.consent_mail (request_id);
comment on table gdpr_internal.consent_mail is 'Mails that ask or remind, to call back those not yet sent once the question is closed.';

create table gdpr_internal.consent_record (
  id bigint not null default nextval('gdpr_internal.consent_event_seq') primary key,
  subject_id bigint not null,
  purpose_id smallint not null,
  event text not null check (event in ('granted', 'declined', 'withdrawn')),
  channel text not null check (channel in ('email', 'portal', 'phone', 'paper', 'web_form', 'api', 'import', 'in_person')),
  contact text[],
  request_id bigint references gdpr_internal.consent_request,
  form_id bigint references gdpr_internal.consent_form,
  evidence text,
  valid_until timestamptz not null default 'infinity',
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
alter sequence gdpr_internal.consent_event_seq owned by gdpr_internal.consent_record.id;
create index consent_record_subject on gdpr_internal.consent_record (subject_id, purpose_id, id desc);
comment on table gdpr_internal.consent_record is
  'Consent as it was given and taken back. contact: the channels by which the person may be contacted (mail, phone, post, social). request_id: the question that it answers. form_id: the very text that the person agreed to. evidence (who, when, how, reference): ciphertext under the person''s key.';

-- 40_protection/10_keys.sql
-- [state] The key-encryption key and one data key per person.
-- GDPR Art. 32(1)(a). Owned by gdpr_keyholder: no other role reads them. Left out of data dumps by
-- pg_dump --exclude-table-data='gdpr_internal.*_key' (docs/keys.md).

set local role gdpr_keyholder;

create table gdpr_internal.key_encryption_key (
  id smallint generated by default as identity primary key,
  provider text not null check (provider in ('table', 'session', 'file')),
  material bytea check (length(material) in (64, 128)),
  location text,
  check_value bytea not null,
  digest_key bytea,
  audit_key bytea check (length(audit_key) = 32),
  ticket_key bytea check (length(ticket_key) = 64),
  replaces smallint,
  predecessor bytea,
  successor bytea,
  rewrapped_to bigint not null default 0,
  waits_for text[],
  created_xid xid8 not null default pg_current_xact_id(),
  created_at timestamptz not null default statement_timestamp(),
  retired_at timestamptz,
  check (case when provider <> 'table' then material is null else retired_at is not null or material is not null end),
  check ((provider = 'file') = (location is not null)),
  check (retired_at is not null or num_nulls(digest_key, audit_key, ticket_key) = 0),
  check (num_nulls(replaces, predecessor, successor) in (0, 3))
);
create unique index key_encryption_key_in_force on gdpr_internal.key_encryption_key ((true)) where retired_at is null;
comment on table gdpr_internal.key_encryption_key is
  'The key-encryption key: 32 bytes AES-256, 32 bytes HMAC-SHA-256; the one in force is not retired. provider table (development): material stands here; session: only a check value, the client gives the key with gdpr.unlock(); file: the server reads it from location. While a rotation lasts, replaces names the key before: predecessor is that key wrapped by this one, successor this key wrapped by that one (of provider session the 32 bytes of its text behind it), material both, rewrapped_to the last person whose data key was re-wrapped; a key before it that is of provider table keeps its material so long. A rotation that was given up runs back: then replaces names a younger key. created_xid: the transaction by which the key came in force; waits_for: those that were going on when it had, and may write with the other key. A retired key keeps its check value only. digest_key: the key of identifier digests, wrapped by this key. audit_key: keys the digests in audit records. ticket_key: seals the unlocked key into a session.';

create table gdpr_internal.subject_key (
  subject_id bigint primary key,
  kek_id smallint not null,
  wrapped bytea not null,
  created_at timestamptz not null default statement_timestamp(),
  renewing_xid xid8
);
alter table gdpr_internal.subject_key alter column wrapped set storage plain;
comment on table gdpr_internal.subject_key is
  'A person''s key ring, wrapped: IV (16 bytes), AES-256-CBC, HMAC-SHA-256 over subject, IV and ciphertext (32). The ring is the data key, 32 + 32 bytes (encryption, MAC); once it was renewed, the keys that it replaced stand behind it (docs/format.md), because old values in the audit log are never written anew. created_at: when the data key in force was made. renewing_xid: the transaction that made it by renewal. Deleting the row makes every copy of the person''s ciphertext unreadable.';

create table gdpr_internal.key_renewal (
  id bigint generated always as identity primary key,
  made_before timestamptz not null,
  persons bigint not null,
  renewed bigint not null default 0,
  renewed_to bigint not null default 0,
  started_at timestamptz not null default statement_timestamp(),
  finished_at timestamptz
);
create unique index key_renewal_open on gdpr_internal.key_renewal ((true)) where finished_at is null;
comment on table gdpr_internal.key_renewal is
  'Renewals of data keys, by which persons whose key was made before made_before get a new one; at most one is not finished. persons: how many there were at the start; renewed_to: the last person of the last batch.';

create type gdpr_internal.keyring as (kek_id smallint, kek bytea, digest_key bytea);
comment on type gdpr_internal.keyring is 'The keys a statement works with: never stored, never returned to a caller outside gdpr_keyholder.';

-- 50_audit/10_records.sql
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

-- 50_audit/12_seals.sql
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

-- 50_audit/13_reads.sql
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

-- 50_audit/14_guard.sql
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

-- 60_subject_rights/10_rights.sql
-- [state] Restrictions, objections and erasures of persons.
-- GDPR Art. 18, Art. 21, Art. 17. Append-only; the gate reads them.

set local role gdpr_owner;

create table gdpr_internal.restriction_record (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  ground text not null check (ground in ('accuracy_contested', 'unlawful_processing', 'legal_claims', 'objection_pending', 'other')),
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index restriction_record_subject on gdpr_internal.restriction_record (subject_id);
comment on table gdpr_internal.restriction_record is 'Restrictions of processing (Art. 18(1)): while one is not lifted only storage is allowed.';

create table gdpr_internal.restriction_end (
  restriction_id bigint primary key references gdpr_internal.restriction_record,
  reason text not null,
  ended_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
comment on table gdpr_internal.restriction_end is 'Restrictions that were lifted, and why (Art. 18(3)). reason: ciphertext under the person''s key, or what a replay says.';

create table gdpr_internal.restriction_exception (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  purpose_id smallint not null,
  ground text not null,
  details text,
  valid_until timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index restriction_exception_subject on gdpr_internal.restriction_exception (subject_id);
comment on table gdpr_internal.restriction_exception is
  'Purposes for which a restricted person may be processed all the same (Art. 18(2)), on which ground and until when. details: why, ciphertext under the person''s key.';

create table gdpr_internal.restriction_exception_end (
  exception_id bigint primary key references gdpr_internal.restriction_exception,
  reason text not null,
  ended_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
comment on table gdpr_internal.restriction_exception_end is 'Exceptions from a restriction that were ended before their time, and why: ciphertext under the person''s key.';

create table gdpr_internal.objection_record (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  purpose_id smallint not null,
  pending boolean not null default false,
  request_id bigint,
  details text,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index objection_record_subject on gdpr_internal.objection_record (subject_id);
comment on table gdpr_internal.objection_record is
  'Objections to a purpose (Art. 21). pending: the purpose is closed until somebody has decided whether compelling grounds override; direct marketing is closed for good. details: what the person wrote, ciphertext under the person''s key.';

create table gdpr_internal.objection_decision (
  id bigint generated always as identity primary key,
  objection_id bigint not null references gdpr_internal.objection_record,
  decision text not null,
  ground text,
  details text,
  decided_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index objection_decision_objection on gdpr_internal.objection_decision (objection_id, id desc);
comment on table gdpr_internal.objection_decision is
  'What became of objections: upheld, overridden (on which ground), taken_back by the person. details: ciphertext under the person''s key.';

create table gdpr_internal.lifting_notice (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  restriction_id bigint references gdpr_internal.restriction_record,
  objection_id bigint references gdpr_internal.objection_record,
  channel text not null,
  mail_id bigint,
  evidence text,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index lifting_notice_subject on gdpr_internal.lifting_notice (subject_id);
comment on table gdpr_internal.lifting_notice is
  'That a person was told that a restriction, or an objection that was being examined, is going to end (Art. 18(3)): by which mail, or with which evidence (ciphertext under the person''s key).';

create table gdpr_internal.erasure_record (
  id bigint generated always as identity primary key,
  subject_id bigint not null unique,
  reason text not null,
  erased_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  receipt jsonb not null
);
comment on table gdpr_internal.erasure_record is 'The erasure ledger: which subject number was erased when, and counts of rows. No values.';

create table gdpr_internal.erasure_remainder (
  subject_id bigint not null,
  table_id smallint not null,
  row_count bigint not null,
  due_at timestamptz not null,
  primary key (subject_id, table_id)
);
create index erasure_remainder_due on gdpr_internal.erasure_remainder (due_at);
comment on table gdpr_internal.erasure_remainder is
  'What stays of persons who were erased, because a period or a hold keeps it: how many rows of a table, and when the first of that ends (infinity: when the hold is released). gdpr_internal.finish_erasures() works it off; the rows themselves are hidden at that very instant.';

create table gdpr_internal.erasure_completion (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  erased_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  receipt jsonb not null
);
create index erasure_completion_subject on gdpr_internal.erasure_completion (subject_id);
comment on table gdpr_internal.erasure_completion is
  'What was erased later of persons in the ledger, when what kept it had ended: counts, and whether the key was destroyed. No values.';

create table gdpr_internal.erasure_review (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  table_id smallint not null,
  column_name name not null,
  row_key text,
  flagged_at timestamptz not null default statement_timestamp()
);
create index erasure_review_subject on gdpr_internal.erasure_review (subject_id);
comment on table gdpr_internal.erasure_review is
  'Free text in rows that outlived an erasure, which a human has to read: where it stands, never the text. row_key: the primary key of the row, gone with the line once it is reviewed.';

-- 60_subject_rights/12_rectifications.sql
-- [state] Rectifications: what was proposed, what was decided about it, what was corrected.
-- GDPR Art. 16. Append-only; values stand here as ciphertext under the person's key alone.

set local role gdpr_owner;

create table gdpr_internal.rectification (
  id bigint generated always as identity primary key,
  subject_id bigint not null,
  content text not null,
  by_person boolean not null,
  proposed_at timestamptz not null default statement_timestamp(),
  proposed_by text not null default session_user,
  actor text
);
create index rectification_subject on gdpr_internal.rectification (subject_id);
comment on table gdpr_internal.rectification is
  'Proposals. content: ciphertext of {"changes", "reason"}. by_person: the person asked, proposed_by is the portal''s login.';

create table gdpr_internal.rectification_record (
  id bigint generated by default as identity primary key,
  subject_id bigint not null,
  rectification_id bigint,
  content text not null,
  columns text[] not null,
  reason text,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index rectification_record_subject on gdpr_internal.rectification_record (subject_id, id);
comment on table gdpr_internal.rectification_record is
  'Rectifications as they were carried out, one row for each person: enough to carry them out again after a restore (gdpr_internal.apply_rectifications()). content: ciphertext of {"values": [{"table", "key", "column", "value"}], "statements": [{"table", "key", "column", "statement"}]}, copies of a value included. columns: which were written, as schema.table.column. reason: ciphertext, or what a replay says.';

create table gdpr_internal.rectification_decision (
  rectification_id bigint primary key references gdpr_internal.rectification,
  approved boolean not null,
  record_id bigint references gdpr_internal.rectification_record,
  reason text,
  decided_at timestamptz not null default statement_timestamp(),
  decided_by text not null default session_user,
  actor text
);
comment on table gdpr_internal.rectification_decision is
  'What an officer decided about a proposal. record_id: what was carried out; null where it was rejected, or the data were so already. reason: ciphertext under the person''s key.';

create type gdpr_internal.correction as (
  n bigint, table_id smallint, row_key text, column_name name, value text, was text, expected boolean, statement text,
  subject_id bigint, old text, problem text
);
comment on type gdpr_internal.correction is
  'One change of a list on its way to a table. n: its place in the list; a copy has that of the value it is a copy of. was: what the author of the list saw (expected: said so); old: what stands there. problem: why it cannot be done, without values.';

-- 60_subject_rights/12_requests.sql
-- [state] Requests of persons, and every step of answering them.
-- GDPR Art. 12(3) to 12(6), Art. 15 to 22, Art. 5(2). Append-only; gdpr.request derives where each one stands.

set local role gdpr_owner;

create table gdpr_internal.request (
  id bigint generated always as identity primary key,
  kind text not null,
  subject_id bigint,
  channel text not null,
  details text,
  received_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index request_subject on gdpr_internal.request (subject_id);
comment on table gdpr_internal.request is
  'What persons asked for, and when it arrived. subject_id: null while nobody knows who asks. details (what exactly is asked, in the person''s words): ciphertext under the person''s key, unreadable once erased; the rest stays as evidence.';

create table gdpr_internal.request_event (
  id bigint generated always as identity primary key,
  request_id bigint not null references gdpr_internal.request,
  event text not null,
  subject_id bigint,
  due_on date,
  paused_days integer not null default 0,
  reason text,
  facts jsonb,
  details text,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index request_event_request on gdpr_internal.request_event (request_id, id);
create index request_event_subject on gdpr_internal.request_event (subject_id) where subject_id is not null;
comment on table gdpr_internal.request_event is
  'The steps of a request: those that move it (received, identity_asked, identity_verified, extended, completed, refused, withdrawn) and those that fulfil it (access_report, rectification, ...). due_on: the last day for the answer from this step on; what holidays and time zone were then, holds. subject_id: who it turned out to be. paused_days: how long the clock stood. reason: a word of a closed list. facts: without personal data; details: ciphertext under the person''s key.';

-- 60_subject_rights/13_sign_ins.sql
-- [state] How often the portal is used: when a mailbox was last sent a link, how many reports a person had.
-- GDPR Art. 12(2), Art. 12(5), Art. 32(1)(b). Written by gdpr.portal_request_sign_in(), for addresses known and unknown, and by the reports.

set local role gdpr_owner;

create table gdpr_internal.sign_in_mail (
  mailbox uuid primary key,
  mailed_at timestamptz not null
);
create index sign_in_mail_mailed_at on gdpr_internal.sign_in_mail (mailed_at);
comment on table gdpr_internal.sign_in_mail is
  'When somebody last asked for a link to the portal under an address (keyed digest without its plus-tag): one mail for each interval. Nobody can tell from it who is known. Deleted by gdpr.tidy_tokens() once of no effect.';

create table gdpr_internal.portal_reading (
  subject_id bigint primary key,
  since timestamptz not null,
  readings integer not null
);
create index portal_reading_since on gdpr_internal.portal_reading (since);
comment on table gdpr_internal.portal_reading is
  'How many reports a person had through the portal in the hour that began at since: a session that fell into other hands, or a page that asks again and again, does not keep the server busy. Deleted by gdpr.tidy_tokens() once of no effect.';

-- 60_subject_rights/15_outbox.sql
-- [state] The outbox: mails that wait, as ciphertext, and the evidence that one was sent, without content.
-- GDPR Art. 5(2), Art. 12(1), Art. 32(1)(a). Filled by asking and by double opt-in, emptied by gdprdb outbox send.

set local role gdpr_owner;

create table gdpr_internal.outbox (
  id bigint generated by default as identity primary key,
  subject_id bigint,
  registration_id bigint,
  notice_id bigint,
  template text not null,
  language text,
  message text not null,
  message_ref uuid not null default gen_random_uuid(),
  queued_at timestamptz not null default statement_timestamp(),
  due_at timestamptz not null,
  expires_at timestamptz not null default 'infinity',
  attempts integer not null default 0,
  taken_by integer,
  dead_at timestamptz,
  failure text
);
create index outbox_due on gdpr_internal.outbox (due_at) where dead_at is null;
create index outbox_subject on gdpr_internal.outbox (subject_id);
create index outbox_registration on gdpr_internal.outbox (registration_id);
create index outbox_notice on gdpr_internal.outbox (notice_id) where notice_id is not null;
comment on table gdpr_internal.outbox is
  'Mails that have not left yet. message: ciphertext of {"to", "token", ...} under the key of the person, of the registration of nobody yet, or of the notice to a recipient. message_ref: makes the Message-ID, the same in every attempt, so that a receiver knows a duplicate. due_at: moved on before each attempt, so that one that crashed comes back by itself. taken_by: the server process of who sends it. dead_at: given up, until somebody retries or drops it.';

create table gdpr_internal.mail_record (
  id bigint generated always as identity primary key,
  mail_id bigint not null,
  subject_id bigint,
  registration_id bigint,
  notice_id bigint,
  template text not null,
  language text,
  event text not null check (event in ('sent', 'expired', 'dropped')),
  reason text,
  attempts integer not null,
  queued_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index mail_record_subject on gdpr_internal.mail_record (subject_id);
comment on table gdpr_internal.mail_record is
  'What became of mails: sent, expired before they could be, dropped by somebody. Who, which template, when; never what stood in them or where they went.';

-- 60_subject_rights/18_replays.sql
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

-- 70_sharing/05_recipients.sql
-- [state] Recipients, what was disclosed to them of whom, and the notices that they have to get.
-- GDPR Art. 4(9), 13(1)(e), 15(1)(c), 19, 28, 30(1)(d), 44 to 49. Append-only but for the content of notices, which is deleted.

set local role gdpr_owner;

create table gdpr_internal.recipient_record (
  id bigint generated always as identity primary key,
  recipient_id bigint not null,
  name text not null check (name <> ''),
  role text not null check (role in ('controller', 'joint_controller', 'processor', 'sub_processor', 'authority')),
  country text not null check (country ~ '^[A-Z]{2}$'),
  safeguard text,
  ground text,
  safeguard_reference text,
  safeguard_until timestamptz,
  contract text,
  address text,
  language text,
  parent_id bigint,
  valid_until timestamptz not null default 'infinity',
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index recipient_record_recipient on gdpr_internal.recipient_record (recipient_id, id desc);
create index recipient_record_name on gdpr_internal.recipient_record (name);
comment on table gdpr_internal.recipient_record is
  'Recipients of personal data, in versions: the last one of a recipient_id (the number of its first) holds. country: where the data go. safeguard, ground, safeguard_reference, safeguard_until: what a transfer to a third country rests on. address: a mailbox of the organisation, where notices go. parent_id: the processor that a sub-processor works for.';

create table gdpr_internal.disclosure_record (
  id bigint generated always as identity primary key,
  recipient_id bigint not null,
  purpose_id smallint not null,
  audience text,
  table_id smallint,
  columns name[],
  categories text[],
  reason text,
  persons bigint not null,
  disclosed_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index disclosure_record_recipient on gdpr_internal.disclosure_record (recipient_id);
comment on table gdpr_internal.disclosure_record is
  'Disclosures: to whom, for what, which columns or categories, how many persons. audience: recorded by an export itself. disclosed_at: earlier than recorded_at when it was recorded afterwards.';

create table gdpr_internal.disclosure_person (
  subject_id bigint not null,
  disclosure_id bigint not null,
  reference text,
  primary key (subject_id, disclosure_id)
);
comment on table gdpr_internal.disclosure_person is
  'The persons of a disclosure. reference: what the recipient knows the person by where that is not the subject_ref of redacted views; ciphertext under the person''s key.';

create table gdpr_internal.notice_record (
  id bigint generated by default as identity primary key,
  recipient_id bigint not null,
  event text not null check (event in ('rectification', 'erasure', 'restriction')),
  details jsonb,
  persons integer not null,
  queued_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index notice_record_recipient on gdpr_internal.notice_record (recipient_id);
comment on table gdpr_internal.notice_record is
  'Notices of Art. 19: one communication to one recipient about one or more persons. details: what was changed, names of tables and columns, no values.';

create table gdpr_internal.notice_person (
  subject_id bigint not null,
  notice_id bigint not null,
  primary key (subject_id, notice_id)
);
comment on table gdpr_internal.notice_person is 'The persons whom a notice is about.';

create table gdpr_internal.notice_event (
  id bigint generated always as identity primary key,
  notice_id bigint not null,
  event text not null check (event in ('sent', 'confirmed', 'impossible')),
  channel text,
  reason text,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user
);
create index notice_event_notice on gdpr_internal.notice_event (notice_id);
comment on table gdpr_internal.notice_event is
  'What became of notices: sent, confirmed by the recipient, or impossible or disproportionate, and why.';

create table gdpr_internal.notice_content (
  notice_id bigint primary key,
  message text not null
);
comment on table gdpr_internal.notice_content is
  'What a notice says until it was sent: ciphertext, under a key of its own, of the references by which the recipient knows the persons. After an erasure nothing else here leads from a reference to a person, and this is deleted with the key.';

set local role gdpr_keyholder;

create table gdpr_internal.notice_key (
  notice_id bigint primary key,
  wrapped bytea not null
);
comment on table gdpr_internal.notice_key is
  'The key of a notice, wrapped like a person''s. Deleting the row makes every copy of the content unreadable. Left out of data dumps like every table named .._key.';

-- 80_retention/10_holds.sql
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

-- 80_retention/12_retention.sql
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

-- 80_retention/14_batches.sql
-- [state] Batches of erasures: who is to be erased, and who has been. The evidence is the erasure ledger; this is the list of work.
-- GDPR Art. 17, Art. 5(1)(e).

set local role gdpr_owner;

create table gdpr_internal.erasure_batch (
  id bigint generated always as identity primary key,
  reason text not null,
  proposed boolean not null default false,
  opened_at timestamptz not null default statement_timestamp(),
  opened_by text not null default session_user,
  actor text
);
comment on table gdpr_internal.erasure_batch is 'Erasures of many persons, decided at once and carried out in chunks. proposed: because nothing speaks for them any more; who has a basis again, or is restricted, when their turn comes is left out.';

create table gdpr_internal.erasure_batch_person (
  batch_id bigint not null references gdpr_internal.erasure_batch,
  subject_id bigint not null,
  done_at timestamptz,
  failure text,
  primary key (batch_id, subject_id)
);
create index erasure_batch_open on gdpr_internal.erasure_batch_person (batch_id, subject_id) where done_at is null and failure is null;
comment on table gdpr_internal.erasure_batch_person is
  'The persons of a batch. Neither done_at nor failure: still to come. failure: the code of the error that their erasure ended with, and the name it has in gdpr.error_code.';

-- 90_accountability/01_registers.sql
-- [state] Parties, impact assessments and personal data breaches: what a controller has to be able to show.
-- GDPR Art. 5(2), 26, 27, 33(5), 34, 35, 36, 37. Append-only; views derive the state. No personal data of data subjects.

set local role gdpr_owner;

create table gdpr_internal.party_record (
  id bigint generated always as identity primary key,
  party_id bigint not null,
  role text not null,
  name text not null,
  contact text not null,
  country text not null,
  reference text,
  valid_until timestamptz not null default 'infinity',
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index party_record_party on gdpr_internal.party_record (party_id, id desc);
comment on table gdpr_internal.party_record is
  'Who answers for the processing besides the controller (which the policy names), in versions: the last one of a party_id (the number of its first) holds. contact: how to reach it. reference: the arrangement of Art. 26, the mandate of Art. 27, the designation of Art. 37.';

create table gdpr_internal.impact_assessment_record (
  id bigint generated always as identity primary key,
  name text not null,
  version integer not null,
  purposes smallint[] not null,
  description text not null,
  necessity text not null,
  risks text not null,
  measures text not null,
  views_sought text,
  review_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  author text not null default session_user,
  actor text,
  unique (name, version)
);
comment on table gdpr_internal.impact_assessment_record is
  'Data protection impact assessments, one row for each version: the four parts of Art. 35(7). views_sought: of the persons or their representatives (Art. 35(9)).';

create table gdpr_internal.impact_assessment_decision (
  id bigint generated always as identity primary key,
  impact_assessment_id bigint not null references gdpr_internal.impact_assessment_record,
  approved boolean not null,
  residual_risk text,
  advice text,
  consultation text,
  reason text,
  review_at timestamptz not null,
  decided_at timestamptz not null default statement_timestamp(),
  decided_by text not null default session_user,
  actor text
);
create index impact_assessment_decision_assessment on gdpr_internal.impact_assessment_decision (impact_assessment_id);
comment on table gdpr_internal.impact_assessment_decision is
  'Approvals, renewals and rejections of impact assessments; the latest counts. advice: of the data protection officer (Art. 35(2)). consultation: the reference of the supervisory authority, where a high risk is left (Art. 36).';

create table gdpr_internal.breach_record (
  id bigint generated always as identity primary key,
  aware_at timestamptz not null,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
comment on table gdpr_internal.breach_record is
  'Personal data breaches. aware_at: when the controller became aware, from when the 72 hours of Art. 33(1) run. What is known of it stands in breach_event.';

create table gdpr_internal.breach_event (
  id bigint generated always as identity primary key,
  breach_id bigint not null references gdpr_internal.breach_record,
  event text not null,
  details jsonb not null,
  happened_at timestamptz not null default statement_timestamp(),
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text
);
create index breach_event_breach on gdpr_internal.breach_event (breach_id, id);
comment on table gdpr_internal.breach_event is
  'What became known of a breach and what was done: facts (of Art. 33(3); later ones add to earlier ones, Art. 33(4)), assessed, notified (the authority), excused (why the persons are not told, Art. 34(3)), closed. details: no personal data.';

create table gdpr_internal.breach_person (
  subject_id bigint not null,
  breach_id bigint not null references gdpr_internal.breach_record,
  recorded_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  primary key (breach_id, subject_id)
);
create index breach_person_subject on gdpr_internal.breach_person (subject_id);
comment on table gdpr_internal.breach_person is 'Whose data a breach is about.';

create table gdpr_internal.breach_communication (
  breach_id bigint not null,
  subject_id bigint not null,
  channel text not null,
  mail_id bigint,
  evidence text,
  told_at timestamptz not null default statement_timestamp(),
  recorded_by text not null default session_user,
  actor text,
  primary key (breach_id, subject_id),
  foreign key (breach_id, subject_id) references gdpr_internal.breach_person
);
comment on table gdpr_internal.breach_communication is
  'Persons who were told of a breach (Art. 34), once each. mail_id: the mail that was queued; evidence: how else, ciphertext under the person''s key.';
