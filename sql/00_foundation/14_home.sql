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
