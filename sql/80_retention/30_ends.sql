-- [code] When a person's data are over: the end of the last basis, and the time that is kept after it.
-- GDPR Art. 5(1)(e), 17(1)(b). Called by: retention and the proposals of erasure.

set local role gdpr_owner;

create or replace function gdpr_internal.basis_ends(p_subjects bigint[])
returns table (subject_id bigint, purpose_id smallint, ended_at timestamptz)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
#variable_conflict use_column
begin
  return query
  select e.subject_id, e.purpose_id, least(max(e.ended_at), min(o.recorded_at))
  from (
    select b.subject_id, b.purpose_id, least(
        b.valid_until,
        case when b.basis = 'legitimate_interests' then p.assessed_until end,
        x.ended_at,
        case when b.basis = 'undetermined' then (
          select min(c.recorded_at) from gdpr_internal.consent_record as c where c.subject_id = b.subject_id and c.purpose_id = b.purpose_id
        ) end
      ) as ended_at
    from gdpr_internal.basis_record as b
    join gdpr_internal.purpose as p on p.id = b.purpose_id
    left join gdpr_internal.basis_end as x on x.basis_id = b.id
    where b.subject_id = any (p_subjects)
    union all
    select c.subject_id, c.purpose_id, greatest(c.holds_until, c.respond_until, case when c.event = 'granted' then c.valid_until else c.recorded_at end)
    from gdpr_internal.consent_state as c
    where c.subject_id = any (p_subjects) and (c.record_id is not null or c.request_id is not null)
  ) as e
  left join gdpr_internal.standing_objection as o on o.subject_id = e.subject_id and o.purpose_id = e.purpose_id
  group by e.subject_id, e.purpose_id;
end
$function$;
comment on function gdpr_internal.basis_ends(bigint[]) is
  'When the last basis of persons ended, or will end, for each purpose that they ever had one for: the end of a contract, an assessment that was not renewed, a consent withdrawn or expired, a question nobody answered, an objection that stands. No row: there never was one.';

create or replace function gdpr_internal.retention_ends(p_table smallint, p_subjects bigint[])
returns table (subject_id bigint, rule integer, ends_at timestamptz)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  v_zone text := gdpr_internal.time_zone();
begin
  return query
  select s.id, r.n, max(timezone(v_zone, timezone(v_zone, coalesce(e.ended_at, s.created_at)) + coalesce(r.period, p.retain)))
  from gdpr_internal.retention_rule as r
  join gdpr_internal.purpose as p on p.id < 62 and r.purpose_mask & (1::bigint << p.id) <> 0
  cross join gdpr_internal.subject as s
  left join gdpr_internal.basis_ends(p_subjects) as e on e.subject_id = s.id and e.purpose_id = p.id
  where r.table_id = p_table and r.after_column is null and r.in_force and s.id = any (p_subjects)
  group by s.id, r.n;
end
$function$;
comment on function gdpr_internal.retention_ends(smallint, bigint[]) is
  'Until when rules that count from the last basis keep the rows of persons: the latest of the purposes. Who never had a basis counts from the day gdprdb met them.';

create or replace function gdpr_internal.restricted_of(p_subjects bigint[])
returns bigint[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return array(
    select distinct r.subject_id from gdpr_internal.restriction_record as r
    where r.subject_id = any (p_subjects)
      and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = r.id)
  );
end
$function$;
comment on function gdpr_internal.restricted_of(bigint[]) is 'Those of the persons whose data are restricted: they are stored, which is all that Art. 18(2) allows.';
