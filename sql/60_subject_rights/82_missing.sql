-- [code] What the database lacks of its ledger.
-- GDPR Art. 32(1)(c), Art. 17. Called by: gdpr.replay(), and gdpr_dpo by gdprdb ledger check.

set local role gdpr_owner;

create or replace function gdpr_internal.ledger_missing(p_ledger jsonb)
returns table (
  n bigint, kind text, at timestamptz, subject_id bigint, since timestamptz, purpose_id smallint, event text, channel text,
  ground text, basis text, record_at timestamptz, digest uuid, identifier text, erased boolean, pending boolean, until timestamptz,
  table_id smallint, columns text[], content text
)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
-- planned while a table had one page, it would read all of it for each entry by now
set enable_seqscan = off
set jit = off
as $function$
#variable_conflict use_column
begin
  return query
  select l.n, e.kind, e.at, e.subject, e.since, p.id, e.event, e.channel, e.ground, e.basis, e.of, e.digest, e.identifier, e.erased,
    e.pending, e.until, e.table_id, e.columns, e.content
  from jsonb_array_elements(p_ledger) with ordinality as l (line, n)
  cross join lateral jsonb_to_record(l.line) as e (
    kind text, at timestamptz, subject bigint, since timestamptz, purpose text, event text, channel text, ground text, basis text,
    of timestamptz, digest uuid, identifier text, erased boolean, pending boolean, until timestamptz, table_id smallint, table_name text,
    columns text[], content text
  )
  left join gdpr_internal.purpose as p on p.name = e.purpose
  left join gdpr_internal.subject as s on s.id = e.subject
  where case
    when e.kind = 'erasure' then not exists (select from gdpr_internal.erasure_record as x where x.subject_id = e.subject)
    when e.kind = 'block' then not exists (select from gdpr_internal.identifier as x where x.digest = e.digest and x.blocked_at is not null)
    when e.kind = 'mailbox' then not exists (
      select from gdpr_internal.opt_out_record as x where x.mailbox = e.digest and x.event = e.event and x.recorded_at = e.at
    )
    -- who is not there, or not any more, has nothing that could be locked
    when e.subject is not null and (s.id is null or s.erased_at is not null) or e.purpose is not null and p.id is null then false
    when e.kind = 'restriction' then not exists (
      select from gdpr_internal.restriction_record as x where x.subject_id = s.id and x.recorded_at = e.at and x.ground = e.ground
    )
    when e.kind = 'restriction_end' then not exists (
      select from gdpr_internal.restriction_record as x
      join gdpr_internal.restriction_end as y on y.restriction_id = x.id
      where x.subject_id = s.id and x.recorded_at = e.of and x.ground = e.ground
    )
    when e.kind = 'objection' then not exists (
      select from gdpr_internal.objection_record as x where x.subject_id = s.id and x.purpose_id = p.id and x.recorded_at = e.at
    )
    when e.kind = 'objection_decision' then not exists (
      select from gdpr_internal.objection_record as x
      join gdpr_internal.objection_decision as y on y.objection_id = x.id
      where x.subject_id = s.id and x.purpose_id = p.id and x.recorded_at = e.of and y.decided_at = e.at
    )
    when e.kind = 'hold' then not exists (
      select from gdpr_internal.hold as x
      where x.recorded_at = e.at and x.ground = e.ground and (x.subject_id, x.table_id) is not distinct from (e.subject, e.table_id)
    ) and (e.table_id is null or exists (
      select from gdpr_internal.protected_table as t
      where t.id = e.table_id and t.relation::text = e.table_name and t.unprotected_at is null
    ))
    when e.kind = 'hold_end' then exists (
      select from gdpr_internal.hold as x
      where x.recorded_at = e.of and x.ground = e.ground and x.subject_id is not distinct from e.subject
        and not exists (select from gdpr_internal.hold_end as y where y.hold_id = x.id)
    )
    when e.kind = 'consent' then not exists (
      select from gdpr_internal.consent_record as x
      where x.subject_id = s.id and x.purpose_id = p.id and x.event = e.event and x.recorded_at = e.at
    )
    when e.kind = 'rectification' then not exists (
      select from gdpr_internal.rectification_record as x where x.subject_id = s.id and x.recorded_at = e.at
    )
    when e.kind = 'basis_end' then exists (
      select from gdpr_internal.basis_record as x
      where x.subject_id = s.id and x.purpose_id = p.id and x.basis = e.basis and x.recorded_at = e.of
        and not exists (select from gdpr_internal.basis_end as y where y.basis_id = x.id)
    )
    else false
  end;
end
$function$;
comment on function gdpr_internal.ledger_missing(jsonb) is
  'The entries of a part of a ledger that this database does not know, found by what they say and not by their numbers, which a restored database gives again.';

create or replace function gdpr_internal.position_reached()
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- after a replay the numbers up to the ledger's are used up, though some of their records are lost
  select jsonb_object_agg(p.key, greatest(p.value::bigint, (
    select max((r.positions ->> p.key)::bigint) from gdpr_internal.replay_record as r
  )))
  from jsonb_each_text(gdpr_internal.ledger_positions()) as p;
end;
comment on function gdpr_internal.position_reached() is 'The last number of each register that this database has seen, or knows of by a ledger that it replayed.';

create or replace function gdpr_internal.positions_beyond(p_positions jsonb, p_before jsonb)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(jsonb_object_agg(p.key, p.value::bigint - (p_before ->> p.key)::bigint), '{}')
  from jsonb_each_text(p_positions) as p
  where p.value::bigint > (p_before ->> p.key)::bigint;
end;
comment on function gdpr_internal.positions_beyond(jsonb, jsonb) is 'By how many records each register was longer.';

create or replace function gdpr.check_ledger(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_digest bytea := gdpr_internal.open_ledger(p_ledger);
  v_missing jsonb;
  v_behind jsonb;
begin
  select coalesce(jsonb_object_agg(m.kind, m.entries), '{}') into v_missing
  from (
    select m.kind, count(*) as entries
    from gdpr_internal.ledger_missing(p_ledger) as m
    where m.event is distinct from 'granted' and m.event is distinct from 'lifted'
    group by m.kind
  ) as m;
  v_behind := gdpr_internal.positions_beyond(p_ledger -> 0 -> 'positions', gdpr_internal.position_reached());
  if v_missing <> '{}' or v_behind <> '{}' then
    perform gdpr_internal.notice_restore(format('behind the ledger of %s', p_ledger -> 0 ->> 'taken_at'));
  end if;
  return jsonb_build_object(
    'taken_at', p_ledger -> 0 -> 'taken_at', 'digest', encode(v_digest, 'hex'), 'missing', v_missing, 'behind', v_behind,
    'whereabouts', gdpr.whereabouts()
  );
end
$function$;
comment on function gdpr.check_ledger(jsonb) is
  'Compares the database with a part of its ledger, or with a checkpoint: missing (entries by kind that are not here), behind (registers that were longer then, and by how many records). If there is anything, the database was restored from an older state, and from now on refuses to process. Errors: PR641 not a ledger of this database, PR401. Art. 32(1)(c).';
