-- [code] Tries with blocked identifiers are counted, by role and time, and nothing about them is kept: no digest, no row.
-- GDPR Art. 5(1)(e), 32(1)(d). Counted by: gdpr_internal.meet_blocked(); read by officers, the counters by gdpr.tidy_blocklist().

set local role gdpr_owner;

create or replace function gdpr_internal.make_probe_counter(p_role name)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_n integer;
begin
  insert into gdpr_internal.probe_counter (role_name) values (p_role)
  on conflict (role_name) do nothing
  returning n into v_n;
  if v_n is not null then
    execute format('create sequence gdpr_internal.%I owned by gdpr_internal.probe_counter.n', 'probes_' || v_n);
  end if;
end
$function$;
comment on function gdpr_internal.make_probe_counter(name) is 'Gives a role of the policy a counter of its own, once.';

create or replace function gdpr_internal.count_probe()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_role name := gdpr_internal.acting_role();
  v_n integer;
begin
  select c.n into v_n
  from gdpr_internal.probe_counter as c
  where c.role_name in (v_role, '') or pg_has_role(v_role, to_regrole(quote_ident(c.role_name))::oid, 'usage')
    -- a superuser is a member of everything
    and not (select r.rolsuper from pg_roles as r where r.rolname = v_role)
  order by (c.role_name <> v_role), (c.role_name = ''), c.role_name
  limit 1;
  perform nextval(format('gdpr_internal.%I', 'probes_' || v_n)::regclass);
end
$function$;
comment on function gdpr_internal.count_probe() is 'Counts a try with a blocked identifier, for the role of the session; the count outlives the refusal.';

create or replace function gdpr_internal.probe_totals()
returns table (role_name name, total bigint)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query
  select c.role_name, coalesce(pg_sequence_last_value(format('gdpr_internal.%I', 'probes_' || c.n)::regclass), 0)
  from gdpr_internal.probe_counter as c;
end
$function$;
comment on function gdpr_internal.probe_totals() is 'All tries with blocked identifiers so far, by role.';

create or replace view gdpr.probe as
with readings as (
  select r.role_name, r.read_at, r.total from gdpr_internal.probe_reading as r
  union all
  select t.role_name, statement_timestamp(), t.total from gdpr_internal.probe_totals() as t
)
select
  coalesce(nullif(r.role_name, ''), '(other roles)') as role,
  lag(r.read_at) over w as counted_from,
  r.read_at as counted_until,
  r.total - coalesce(lag(r.total) over w, 0) as tries
from readings as r
window w as (partition by r.role_name order by r.read_at);
comment on view gdpr.probe is
  'How many rows with blocked identifiers were refused (or warned about), by role, from one nightly gdpr.tidy() to the next. Which identifiers they were is not kept. A crash of the server may add up to 32 to a counter. Art. 32(1)(d).';

create or replace function gdpr.tidy_blocklist(p_limit integer default 10000)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_retain interval := (select (s.value #>> '{}')::interval from gdpr_internal.setting as s where s.name = 'blocklist_retain');
  v_deleted integer;
begin
  insert into gdpr_internal.probe_reading (role_name, total)
  select t.role_name, t.total
  from gdpr_internal.probe_totals() as t
  where t.total > coalesce((select max(r.total) from gdpr_internal.probe_reading as r where r.role_name = t.role_name), 0)
  on conflict (role_name, read_at) do nothing;
  if v_retain is null then
    return 0;
  end if;
  with past as (
    select i.digest from gdpr_internal.identifier as i
    where i.blocked_at < statement_timestamp() - v_retain
    limit p_limit
    for update skip locked
  )
  delete from gdpr_internal.identifier as i using past as p where i.digest = p.digest;
  get diagnostics v_deleted = row_count;
  if v_deleted > 0 then
    perform gdpr_internal.audit_event('UNBLOCK', null, jsonb_build_object('reason', 'blocklist_retain', 'identifiers', v_deleted));
  end if;
  return v_deleted;
end
$function$;
comment on function gdpr.tidy_blocklist(integer) is
  'Reads the counters of gdpr.probe, and deletes up to p_limit blocked identifiers that are older than settings.blocklist_retain of the policy, on record; returns how many. Without that setting they stay. Art. 5(1)(e).';

do $counters$
declare
  v_role name;
begin
  perform gdpr_internal.make_probe_counter('');
  for v_role in select b.role_name from gdpr_internal.role_binding as b loop
    perform gdpr_internal.make_probe_counter(v_role);
  end loop;
end
$counters$;
