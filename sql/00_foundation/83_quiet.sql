-- [code] Triggers of the application are kept quiet while rows are touched: that is no change of their data.
-- GDPR Art. 25. Called by: gdpr.backfill().
--
-- As a replica, where the role may be one: nobody waits for that. Else they are switched off for each batch, under a lock that keeps
-- writers out as long as the batch takes: no write gets past them.

set local role gdpr_owner;

create or replace function gdpr_internal.noisy_triggers(p_relation regclass)
returns table (tgname name, tgenabled "char")
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select g.tgname, g.tgenabled
  from pg_trigger as g
  where g.tgrelid = p_relation and not g.tgisinternal and g.tgenabled <> 'D' and g.tgname !~ '^zzz_gdpr_'
    -- those for UPDATE of some columns do not fire
    and g.tgtype & 16 <> 0 and g.tgattr::text = '';
end;
comment on function gdpr_internal.noisy_triggers(regclass) is
  'Triggers of the application that would take the touch of a row for a change of its data: those for UPDATE of any column.';

create or replace function gdpr_internal.quiet_triggers(p_role name, p_relation regclass, out as_replica boolean, out switched text[])
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with noisy as (
    -- rows are touched in partitions: those of the table itself are there, too
    select n.tgname, n.tgenabled
    from gdpr_internal.relation_tree(p_relation) as r (r)
    join pg_class as c on c.oid = r.r and c.relkind = 'r'
    cross join lateral gdpr_internal.noisy_triggers(r.r) as n
  ),
  facts as (
    select
      coalesce(bool_or(n.tgenabled = 'O'), false)
        and not bool_or(n.tgenabled in ('A', 'R'))
        and has_parameter_privilege(p_role, 'session_replication_role', 'set') as as_replica
    from noisy as n
  )
  select f.as_replica, case
    when f.as_replica then '{}'
    else array(
      select case n.tgenabled when 'A' then 'always ' else '' end || format('trigger %I', n.tgname)
      from noisy as n where n.tgenabled in ('O', 'A') order by n.tgname
    )
  end
  from facts as f;
end;
comment on function gdpr_internal.quiet_triggers(name, regclass) is
  'How triggers of the application that would take the touch of a row for a change of its data, those for UPDATE of any column, are kept quiet: as_replica, in a session that applies changes as a replica; or they are switched off (switched: what stands behind ENABLE) for each batch.';
