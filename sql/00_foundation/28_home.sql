-- [code] Whether this is the database it was: restored from an older dump or backup, it refuses to process until it has forgotten
-- again. GDPR Art. 5(1)(f), Art. 17, Art. 18, Art. 32(1)(c). Asked in every statement (purpose_mask), so what is asked there is cheap.

set local role gdpr_owner;

create or replace function gdpr_policy.is_here(p_database oid, p_timeline text)
returns boolean
language sql
stable
parallel safe
security invoker
-- no SET clause: the planner puts it into every statement
begin atomic
  select pg_relation_filepath('pg_catalog.pg_class'::regclass) like ('%/' || p_database || '/%')
    and case
      when current_setting('in_hot_standby') = 'on' then true
      -- any position does; a constant would be looked up while planning, which fails on a standby
      else starts_with(pg_walfile_name(case when current_user is not null then '0/1'::pg_lsn end), p_timeline)
    end;
end;
comment on function gdpr_policy.is_here(oid, text) is
  'Whether this database has this OID and the server writes this timeline (a standby writes none). Both change without a dump: by a copy with CREATE DATABASE, by point-in-time recovery and failover.';

create or replace function gdpr_internal.current_place(
  out system_identifier bigint, out database_oid oid, out timeline text, out place oid
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_position pg_lsn := '0/1';
begin
  select s.system_identifier into system_identifier from pg_control_system() as s;
  select d.oid into database_oid from pg_database as d where d.datname = current_database();
  if not current_setting('in_hot_standby')::boolean then
    timeline := left(pg_walfile_name(v_position), 8);
  end if;
  -- looked up each time: a constant would outlive the type
  place := to_regtype('gdpr_generated.place');
end
$function$;
comment on function gdpr_internal.current_place() is 'Where this database is now, in the terms of gdpr_internal.home_record. timeline is null on a standby.';

create or replace function gdpr.whereabouts()
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_home gdpr_internal.home_record;
  v_here record := gdpr_internal.current_place();
begin
  select * into v_home from gdpr_internal.home_record as h order by h.id desc limit 1;
  if coalesce(v_home.event, 'noticed') = 'noticed' or v_home.place <> v_here.place then
    return 'restored';
  elsif v_home.database_oid <> v_here.database_oid then
    -- beside the original it can be told from it; where that is gone, this one may have taken its place
    return case
      when v_home.system_identifier = v_here.system_identifier
        and exists (select from pg_database as d where d.oid = v_home.database_oid) then 'copy'
      else 'restored'
    end;
  elsif v_home.timeline <> v_here.timeline then
    return case
      when exists (
        select from unnest(array['', '_time', '_xid', '_lsn', '_name']) as s (suffix)
        where current_setting('recovery_target' || s.suffix) <> ''
      ) then 'restored'
      when (select s.value #>> '{}' from gdpr_internal.setting as s where s.name = 'new_timeline') = 'refuse' then 'restored'
      else 'promoted'
    end;
  end if;
  return 'home';
end
$function$;
comment on function gdpr.whereabouts() is
  'home: the database it was. restored: from an older dump or backup; processing is refused until gdpr.replay() or gdpr.accept_restore(). promoted: the server writes another timeline, as after the failover to a standby; the ledger tells whether something was lost. copy: made with CREATE DATABASE ... TEMPLATE, beside the original. Art. 32(1)(c).';

create or replace function gdpr_internal.require_home()
returns void
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not gdpr_generated.is_home() and gdpr.whereabouts() = 'restored'
    and coalesce(gdpr_generated.purpose_held(gdpr_internal.acting_role(), null) < 62, true)
  then
    perform gdpr_internal.refuse('restored');
  end if;
end
$function$;
comment on function gdpr_internal.require_home() is
  'Refuses to process in a restored database, to everybody but officers and maintenance. Error: PR640.';

create or replace function gdpr_internal.generate_home()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_home gdpr_internal.home_record;
  v_condition text := 'false';
begin
  select * into v_home from gdpr_internal.home_record as h order by h.id desc limit 1;
  if v_home.event <> 'noticed' then
    -- a dump names the type, and brings the number along: the planner compares the two, and nothing is left to do
    v_condition := format(
      '(%L::regtype)::oid = %s and gdpr_policy.is_here(%s, %L)',
      'gdpr_generated.place', v_home.place, v_home.database_oid, v_home.timeline
    );
  end if;
  execute format(
    'create or replace function gdpr_generated.is_home() returns boolean language sql stable parallel restricted security invoker '
    'begin atomic select %s; end', v_condition
  );
  comment on function gdpr_generated.is_home() is
    'Whether this is the database that gdpr_internal.home_record names: its numbers as code, because every statement asks. False: gdpr.whereabouts() says more.';
  grant execute on function gdpr_generated.is_home() to public;
end
$function$;
comment on function gdpr_internal.generate_home() is 'Generates gdpr_generated.is_home() from the last home_record, never from where the database is: loading the code again makes no restored database one at home.';

create or replace function gdpr_internal.record_home(p_event text, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_begun boolean := gdpr_internal.begin_change('home');
begin
  if p_event <> 'noticed' then
    -- a new number, younger than everything here: a dump of this database cannot come to it again by being restored the same way
    perform gdpr_internal.enforce_append_only();
    execute 'create or replace function gdpr_generated.is_home() returns boolean language sql stable parallel restricted security invoker begin atomic select false; end';
    -- waits for whoever still writes records for the former place
    execute 'alter table gdpr_internal.audit_record alter place set default 0';
    execute 'drop type gdpr_generated.place';
    execute 'create type gdpr_generated.place as enum ()';
    execute $default$alter table gdpr_internal.audit_record alter place set default 'gdpr_generated.place'::regtype$default$;
    comment on type gdpr_generated.place is 'Nothing but its OID: by it a database knows whether it is the one it was, or came out of a dump.';
  end if;
  insert into gdpr_internal.home_record (event, reason, system_identifier, database_oid, timeline, place, data_until)
  select
    p_event, p_reason, h.system_identifier, h.database_oid, h.timeline, h.place,
    (select max(a.at) from gdpr_internal.audit_record as a)
  from gdpr_internal.current_place() as h;
  perform gdpr_internal.generate_home();
  perform gdpr_internal.audit_event('HOME', null, jsonb_build_object('event', p_event, 'reason', p_reason));
  perform gdpr_internal.end_change(v_begun);
end
$function$;
comment on function gdpr_internal.record_home(text, text) is
  'Records where the database is now: noticed (it was found restored), replayed or accepted (it is at home here from now on).';

create or replace function gdpr_internal.notice_restore(p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not current_setting('transaction_read_only')::boolean
    and (select h.event from gdpr_internal.home_record as h order by h.id desc limit 1) is distinct from 'noticed'
  then
    -- one at a time: two would be two records of one event
    perform pg_advisory_xact_lock(hashtextextended('gdpr.home', 0));
    perform gdpr_internal.record_home('noticed', p_reason);
    raise log 'gdprdb: the database was restored (%): processing is refused', p_reason;
  end if;
end
$function$;
comment on function gdpr_internal.notice_restore(text) is
  'Makes what was noticed last: recovery settings are taken out of the configuration, and a ledger is looked at once. Nothing in a read-only transaction.';

create or replace function gdpr.accept_restore(p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if coalesce(btrim(p_reason), '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  perform pg_advisory_xact_lock(hashtextextended('gdpr.home', 0));
  perform gdpr_internal.record_home('accepted', p_reason);
end
$function$;
comment on function gdpr.accept_restore(text) is
  'Declares that this database has lost nothing and is at home here: after a planned move or copy, or a failover whose ledger was checked. After a restore use gdpr.replay(), or the erased are back for good. On record with the reason. It must hold no personal data. Error: PR004 no reason. Art. 5(2), Art. 32(1)(c).';
