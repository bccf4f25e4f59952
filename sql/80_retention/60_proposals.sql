-- [code] Persons for whom nothing speaks any more: a list for the officer, who decides.
-- GDPR Art. 5(1)(e), 17(1)(a), 17(1)(b). Called by: gdpr_dpo, gdprdb retention proposals|approve.

set local role gdpr_owner;

create or replace function gdpr_internal.stands_in(p_subject bigint)
returns bigint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select bit_or(t.purpose_mask)
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null and exists (
    select from gdpr_internal.source as s where s.subject_id = p_subject and s.table_id = t.id
  );
end;
comment on function gdpr_internal.stands_in(bigint) is 'The purposes of the tables that a person''s data were collected in, as bits.';

create or replace function gdpr_internal.proposable(p_subjects bigint[], p_batch bigint default null)
returns table (subject_id bigint, since timestamptz)
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
  select e.subject_id, max(e.ends_at)
  from (
    select s.id as subject_id, timezone(v_zone, timezone(v_zone, coalesce(x.ended_at, s.created_at)) + coalesce(p.retain, interval '0')) as ends_at
    from (
      select i.id, i.created_at, gdpr_internal.stands_in(i.id) as mask
      from gdpr_internal.subject as i
      where i.id = any (p_subjects) and i.erased_at is null
    ) as s
    join gdpr_internal.purpose as p on p.id < 62 and s.mask & (1::bigint << p.id) <> 0
    left join gdpr_internal.basis_ends(p_subjects) as x on x.subject_id = s.id and x.purpose_id = p.id
  ) as e
  where not exists (select from gdpr_internal.live_hold as h where h.subject_id = e.subject_id and h.table_id is null)
    and e.subject_id <> all (gdpr_internal.restricted_of(p_subjects))
    and not exists (select from gdpr_internal.erasure_batch_person as b 
      where b.subject_id = e.subject_id and b.done_at is null and b.batch_id is distinct from p_batch
    )
  group by e.subject_id
  having max(e.ends_at) <= statement_timestamp();
end
$function$;
comment on function gdpr_internal.proposable(bigint[], bigint) is
  'Those of the persons who have no basis left for any purpose of the tables they stand in, and whose purposes'' time of retention is over too; since when. Not those under a hold, restricted, or in a batch already, other than p_batch.';

create or replace function gdpr.erasure_proposals(p_limit integer default null)
returns table (subject_id bigint, since timestamptz)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  v_after bigint := 0;
  v_left bigint := coalesce(p_limit, 9223372036854775807);
  v_found bigint;
  v_page bigint[];
begin
  loop
    v_page := array(
      select s.id from gdpr_internal.subject as s
      where s.id > v_after and s.erased_at is null
        -- closed for everything, or past the instant at which something closes
        and (s.purposes & 4611686018427387903 = 0 or s.until <= statement_timestamp())
      order by s.id
      limit 10000
    );
    exit when v_page = '{}' or v_left <= 0;
    return query select p.subject_id, p.since from gdpr_internal.proposable(v_page) as p order by p.subject_id limit v_left;
    get diagnostics v_found = row_count;
    v_left := v_left - v_found;
    v_after := v_page[cardinality(v_page)];
  end loop;
end
$function$;
comment on function gdpr.erasure_proposals(integer) is
  'Persons (at most p_limit) whose data nothing justifies any more: no basis holds for any purpose of their tables, and what the purposes retain after the last one is over. since: from when on. Nothing happens by itself: gdpr.approve_erasures(), a new basis, or a hold. Art. 5(1)(e), 17(1).';

create or replace function gdpr.approve_erasures(p_subjects bigint[] default null, p_reason text default 'no lawful basis left')
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[];
begin
  if p_subjects is null then
    v_subjects := array(select p.subject_id from gdpr.erasure_proposals() as p);
    if v_subjects = '{}' then
      return null;
    end if;
  else
    v_subjects := array(select p.subject_id from gdpr_internal.proposable(p_subjects) as p);
    if not p_subjects <@ v_subjects then
      perform gdpr_internal.refuse('not_proposed');
    end if;
  end if;
  return gdpr_internal.open_batch(v_subjects, p_reason, true);
end
$function$;
comment on function gdpr.approve_erasures(bigint[], text) is
  'Approves the erasure of persons whom gdpr.erasure_proposals() names (null: of all of them) and returns the number of the batch that erases them, which gdpr.run_retention() carries out, but for those who have a basis again, are held or restricted by then; null when nobody is proposed. p_reason, the same for all, stays in the audit log and the ledger: no personal data in it. Errors: PR804 somebody is not proposed, PR004. Art. 17(1).';
