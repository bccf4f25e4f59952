-- [code] gdprdb's own changes of its objects and of a table's controls, which the guard lets pass and judges by what they leave.
-- GDPR Art. 5(2), Art. 32(1)(b). Called by: gdpr.apply(), gdpr.unprotect(), loads and what else defines something; the guard.

set local role gdpr_owner;

create or replace function gdpr_internal.guard_stands()
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select count(*) = 2 from pg_event_trigger as e where e.evtname in ('gdpr_guard_end', 'gdpr_guard_drop') and e.evtenabled <> 'D';
end;
comment on function gdpr_internal.guard_stands() is 'Whether the guard''s event triggers are there and enabled.';

create or replace function gdpr_internal.open_window()
returns bigint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select max(w.id)
  from gdpr_internal.maintenance_window as w
  where w.until > clock_timestamp()
    and not exists (select from gdpr_internal.maintenance_window_end as e where e.window_id = w.id);
end;
comment on function gdpr_internal.open_window() is 'The maintenance window that is open now, or null.';

create or replace function gdpr_internal.change_allowed()
returns text
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(
    (
      select 'change' from gdpr_internal.own_change as c
      -- numbers of transactions begin anew after a restore
      where c.xid = pg_current_xact_id_if_assigned() and c.at >= transaction_timestamp()
    ),
    (select 'window' from gdpr_internal.open_window() as w where w is not null)
  );
end;
comment on function gdpr_internal.change_allowed() is
  'Why what protects tables may be changed here and now: change (by gdprdb itself, in this transaction), window (of maintenance), or null.';

create or replace function gdpr_internal.begin_change(p_what text)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not gdpr_internal.guard_stands() or gdpr_internal.change_allowed() is not distinct from 'change' then
    return false;
  end if;
  set constraints gdpr_internal.gdpr_50_whole deferred;
  -- the server's log keeps this even when the transaction, and its audit record, is rolled back
  raise log 'gdprdb: % by %', p_what, gdpr_internal.acting_role();
  insert into gdpr_internal.own_change (what) values (p_what);
  return true;
end
$function$;
comment on function gdpr_internal.begin_change(text) is
  'gdprdb''s own change of its objects or of a table''s controls begins, on record: until end_change(), or the end of the transaction, the guard lets statements pass, and then looks at what they left. Returns whether it began here.';

create or replace function gdpr_internal.end_change(p_begun boolean default true)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_begun then
    perform gdpr_internal.settle_change(c.what) from gdpr_internal.own_change as c where c.xid = pg_current_xact_id_if_assigned();
  end if;
end
$function$;
comment on function gdpr_internal.end_change(boolean) is
  'gdprdb''s own change ends, if it began here: everything that the register demands has to be there again. Error: PR510.';

create or replace function gdpr_policy.begin_change(p_what text)
returns boolean
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.begin_change(p_what);
end;
comment on function gdpr_policy.begin_change(text) is 'Before the first step of apply(), unprotect() or reshape(), where the guard stands: see gdpr_internal.begin_change().';

create or replace function gdpr_policy.end_change(p_begun boolean)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.end_change(p_begun);
end;
comment on function gdpr_policy.end_change(boolean) is 'After the last step of apply(), unprotect() or reshape(): see gdpr_internal.end_change(). Error: PR510.';

create or replace function gdpr_internal.grants()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  with ours as (
    select n.oid, n.nspname, n.nspowner, n.nspacl from pg_namespace as n where n.nspowner::regrole::text = 'gdpr_owner'
  )
  select md5(string_agg(g.line, E'\n' order by g.line collate "C"))
  from (
    select format('%s %s', o.nspname, gdpr_internal.rights('n', o.nspowner, o.nspacl)) as line
    from ours as o
    union all
    select format('%s %s %s', c.oid::regclass, gdpr_internal.rights(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner, c.relacl), (
      select string_agg(format('%s %s', a.attname, gdpr_internal.rights('c', c.relowner, a.attacl)), ' ' order by a.attname collate "C")
      from pg_attribute as a where a.attrelid = c.oid and a.attacl is not null
    ))
    from pg_class as c
    join ours as o on o.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'S') and c.relname !~ '^audit_record_'
    union all
    select format('%s %s', p.oid::regprocedure, gdpr_internal.rights('f', p.proowner, p.proacl))
    from pg_proc as p
    join ours as o on o.oid = p.pronamespace
  ) as g;
end;
comment on function gdpr_internal.grants() is 'A hash over who may do what with gdprdb''s own schemas, tables, views and functions.';

create or replace function gdpr_internal.keep_grants()
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  insert into gdpr_internal.setting (name, value)
  values ('grants', to_jsonb(gdpr_internal.grants()))
  on conflict (name) do update set value = excluded.value;
end;
comment on function gdpr_internal.keep_grants() is 'The rights on gdprdb''s objects as they stand now are those that the guard keeps.';

create or replace function gdpr_internal.settle_change(p_what text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
set jit = off
as $function$
declare
  v_weaker text[];
begin
  if gdpr_internal.open_window() is null then
    v_weaker := array(
      select w
      from gdpr_internal.protected_table as t
      cross join lateral gdpr_internal.weakened(t.id) as w
      where t.unprotected_at is null
    ) || array(
      select d.finding || ': ' || d.object from gdpr_internal.doctor_machinery() as d where d.severity = 'error'
      union all
      select 'functions of gdprdb are not those of the release'
      where gdpr_internal.machinery() is distinct from (select s.value #>> '{}' from gdpr_internal.setting as s where s.name = 'machinery')
    );
    if v_weaker <> '{}' then
      perform gdpr_internal.refuse('guarded', array_to_string(v_weaker, E'\n'));
    end if;
  end if;
  -- not before: the change may be the one that makes room for this month's records
  perform gdpr_internal.audit_event('GUARD', null, jsonb_build_object('change', p_what));
  perform gdpr_internal.keep_grants();
  delete from gdpr_internal.own_change as c where c.xid = pg_current_xact_id();
end
$function$;
comment on function gdpr_internal.settle_change(text) is
  'gdprdb''s own change is over: every table has to have the controls that the register demands, and gdprdb''s functions to be those of the release. Error: PR510.';

create or replace function gdpr_internal.require_whole()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_stack text;
begin
  if not exists (select from gdpr_internal.own_change as c where c.xid = new.xid) then
    return null;
  end if;
  get diagnostics v_stack = pg_context;
  if strpos(v_stack, E'\n') = 0 then
    perform gdpr_internal.settle_change(new.what);
  else
    -- SET CONSTRAINTS from within a function, as those of gdpr_worker do: the change may go on, and is looked at in the end
    set constraints gdpr_internal.gdpr_50_whole deferred;
    update gdpr_internal.own_change as c set at = clock_timestamp() where c.xid = new.xid;
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.require_whole() is
  'At the end of a transaction in which gdprdb changed something and did not say that it was done: as end_change(). Error: PR510.';

create or replace function gdpr_internal.stamp_change()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- facts, whatever the row said
  new.xid := pg_current_xact_id();
  new.at := clock_timestamp();
  return new;
end
$function$;
comment on function gdpr_internal.stamp_change() is 'A change of gdprdb''s own is of the transaction that says so, and of no other.';

create or replace function gdpr_internal.record_window()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  new.opened_at := clock_timestamp();
  new.login := session_user;
  perform gdpr_internal.audit_event('GUARD', null, jsonb_build_object('window', new.id, 'until', new.until));
  return new;
end
$function$;
comment on function gdpr_internal.record_window() is 'A maintenance window is on record, whoever opened it, and however.';

create or replace function gdpr_internal.record_window_end()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  new.ended_at := clock_timestamp();
  new.login := session_user;
  perform gdpr_internal.audit_event('GUARD', null, jsonb_build_object('window', new.window_id, 'closed', true));
  return new;
end
$function$;
comment on function gdpr_internal.record_window_end() is 'The end of a maintenance window is on record.';

create or replace function gdpr_internal.keep_register()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if gdpr_internal.guard_stands() and gdpr_internal.change_allowed() is null then
    perform gdpr_internal.refuse('guarded', format('table gdpr_internal.%I', tg_table_name));
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.keep_register() is
  'Where the guard stands, what it demands changes with gdprdb''s own changes alone. Error: PR510.';

do $triggers$
declare
  v_trigger record;
begin
  for v_trigger in
    select *
    from (values
      ('own_change', 'gdpr_50_record', 'trigger', 'before insert or update', 'for each row execute function gdpr_internal.stamp_change()'),
      ('maintenance_window', 'gdpr_50_record', 'trigger', 'before insert', 'for each row execute function gdpr_internal.record_window()'),
      ('maintenance_window_end', 'gdpr_50_record', 'trigger', 'before insert', 'for each row execute function gdpr_internal.record_window_end()'),
      ('protected_table', 'gdpr_50_keep', 'trigger', 'before insert or update or delete or truncate', 'for each statement execute function gdpr_internal.keep_register()'),
      ('control', 'gdpr_50_keep', 'trigger', 'before insert or update or delete or truncate', 'for each statement execute function gdpr_internal.keep_register()'),
      ('own_change', 'gdpr_50_whole', 'constraint trigger', 'after insert or update', 'deferrable initially deferred for each row execute function gdpr_internal.require_whole()')
    ) as t (table_name, name, kind, timing, action)
  loop
    -- an upgrade is a change itself, whose end waits in own_change: it cannot be altered meanwhile, nor need it
    continue when exists (
      select from pg_trigger as g
      where g.tgrelid = format('gdpr_internal.%I', v_trigger.table_name)::regclass and g.tgname = v_trigger.name and g.tgenabled = 'A'
    );
    execute format('drop trigger if exists %I on gdpr_internal.%I', v_trigger.name, v_trigger.table_name);
    execute format('create %s %I %s on gdpr_internal.%I %s', v_trigger.kind, v_trigger.name, v_trigger.timing, v_trigger.table_name, v_trigger.action);
    execute format('alter table gdpr_internal.%I enable always trigger %I', v_trigger.table_name, v_trigger.name);
  end loop;
end
$triggers$;
