-- [code] What doctor() finds about the guard and about copies of protected rows.
-- GDPR Art. 5(2), Art. 32(1)(d).

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_guard()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with guard as (
    select e.evtname, e.evtenabled, e.evtevent, o.rolsuper and f.prosecdef and n.nspname = 'gdpr_guard' as sound
    from pg_event_trigger as e
    join pg_proc as f on f.oid = e.evtfoid
    join pg_namespace as n on n.oid = f.pronamespace
    join pg_roles as o on o.oid = f.proowner
    where e.evtname in ('gdpr_guard_end', 'gdpr_guard_drop')
  )
  select 'info', 'guard', 'event triggers', 'no guard keeps controls from being weakened: what is weakened is found here and by the next seal',
    'A superuser runs gdprdb guard install.'
  where not exists (select from guard)
  union all
  select 'error', 'guard', 'event triggers', 'the guard is not whole: an event trigger is missing, disabled or another one than gdprdb installs',
    'A superuser runs gdprdb guard install, or gdprdb guard remove.'
  where exists (select from guard) and (select count(*) filter (where g.evtenabled = 'A' and g.sound) from guard as g) <> 2
  union all
  select 'error', 'guard', 'event_triggers', 'event triggers are switched off (setting event_triggers)', 'alter system reset event_triggers, and look at ALTER ROLE ... SET.'
  where exists (select from guard) and (current_setting('event_triggers', true) = 'off' or exists (
    select from pg_db_role_setting as s cross join lateral unnest(s.setconfig) as c where c = 'event_triggers=off'
  ))
  union all
  select 'warning', 'maintenance', format('window %s', w.id), format('a maintenance window is open until %s: controls may be weakened', w.until),
    'gdprdb guard close.'
  from gdpr_internal.maintenance_window as w
  where w.id = (select o from gdpr_internal.open_window() as o)
  union all
  select 'warning', 'copy_of_rows', c.oid::regclass::text, format('the table may hold a copy of rows of %s that nothing protects', array_to_string(r.of_tables, ', ')),
    'Drop it, or protect it by the policy.'
  from gdpr_internal.copy_record as r
  join pg_class as c on c.oid = r.relation
  where not exists (select from gdpr_internal.tables_above(c.oid))
  union all
  select 'warning', 'copy_of_rows', c.oid::regclass::text, 'the table has the columns of a protected one, and is none: a copy', 'Drop it, or protect it by the policy.'
  from pg_attribute as a
  join pg_class as c on c.oid = a.attrelid and c.relkind in ('r', 'p')
  where a.attname = 'gdpr_subject_id' and not a.attisdropped
    and not exists (select from gdpr_internal.tables_above(c.oid)) and not exists (select from gdpr_internal.copy_record as r where r.relation = c.oid)
    -- a partition that was detached still has it: see doctor_types()
    and not exists (select from pg_policy as p where p.polrelid = c.oid and p.polname = 'gdpr_40_gate')
    and c.relnamespace not in (select n.oid from pg_namespace as n where n.nspowner::regrole::text = 'gdpr_owner');
end;
comment on function gdpr_internal.doctor_guard() is 'Findings about the guard, maintenance windows, and tables that hold copies of protected rows.';
