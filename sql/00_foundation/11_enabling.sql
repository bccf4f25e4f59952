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
