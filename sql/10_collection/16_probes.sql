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
