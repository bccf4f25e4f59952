-- [code] After a restore: forgetting again what the ledger says.
-- GDPR Art. 17, Art. 18, Art. 21, Art. 7(3), Art. 5(2). Called by: gdpr_dpo, gdprdb ledger replay.

set local role gdpr_owner;

create or replace function gdpr_internal.pass_positions(p_positions jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_position record;
  v_sequence text;
begin
  for v_position in select p.key, p.value::bigint as last from jsonb_each_text(p_positions) as p loop
    continue when to_regclass('gdpr_internal.' || quote_ident(v_position.key)) is null or v_position.last < 1;
    v_sequence := pg_get_serial_sequence('gdpr_internal.' || quote_ident(v_position.key), 'id');
    -- consent_request takes its numbers from the sequence of consent_record
    continue when v_sequence is null;
    -- one number is lost, and the sequence never goes back
    perform setval(v_sequence::regclass, greatest(nextval(v_sequence::regclass), v_position.last));
  end loop;
end
$function$;
comment on function gdpr_internal.pass_positions(jsonb) is
  'No number that was given before the restore is given to somebody else after it.';

create or replace function gdpr_internal.replay_holds(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_by text := format('ledger replay by %s', session_user);
  v_reason constant text := 'replayed from the ledger';
  v_holds bigint;
  v_ends bigint;
begin
  insert into gdpr_internal.hold (subject_id, table_id, row_key, columns, ground, reference, valid_until, recorded_at, recorded_by)
  select m.subject_id, m.table_id, m.digest, m.columns::name[], m.ground, v_reason, m.until, m.at, v_by
  from gdpr_internal.ledger_missing(p_ledger) as m
  where m.kind = 'hold'
  order by m.n;
  get diagnostics v_holds = row_count;
  insert into gdpr_internal.hold_end (hold_id, reason, ended_at, recorded_by)
  select h.id, v_reason, m.at, v_by
  from gdpr_internal.ledger_missing(p_ledger) as m
  join gdpr_internal.hold as h
    on h.recorded_at = m.record_at and h.ground = m.ground and h.subject_id is not distinct from m.subject_id
  where m.kind = 'hold_end'
  on conflict (hold_id) do nothing;
  get diagnostics v_ends = row_count;
  return jsonb_build_object('holds', v_holds, 'hold_ends', v_ends);
end
$function$;
comment on function gdpr_internal.replay_holds(jsonb) is 'Records holds again before anybody is erased: what they keep is kept.';

create or replace function gdpr_internal.replay_erasures(p_ledger jsonb)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_reason text := format('replayed from the ledger of %s', p_ledger -> 0 ->> 'taken_at');
  v_subjects bigint[];
  v_unknown bigint;
  v_erased bigint := 0;
begin
  -- came and went after the backup: nothing is here but the number, and it stays taken
  with gone as (
    insert into gdpr_internal.subject (id, purposes, until, created_at, erased_at)
    select m.subject_id, 1::bigint << 62, 'infinity', m.since, m.at
    from gdpr_internal.ledger_missing(p_ledger) as m
    where m.kind = 'erasure' and not exists (select from gdpr_internal.subject as s where s.id = m.subject_id)
    returning id, erased_at
  )
  insert into gdpr_internal.erasure_record (subject_id, reason, erased_at, receipt)
  select g.id, v_reason, g.erased_at, jsonb_build_object('subject', g.id, 'erased_at', g.erased_at, 'replayed', true, 'tables', jsonb_build_array())
  from gone as g;
  get diagnostics v_unknown = row_count;
  for v_subjects in
    select array_agg(m.subject_id order by m.subject_id)
    from (
      select m.subject_id, row_number() over (order by m.subject_id) as n
      from gdpr_internal.ledger_missing(p_ledger) as m
      where m.kind = 'erasure'
    ) as m
    group by m.n / 5000
  loop
    perform gdpr.erase(v_subjects, v_reason);
    v_erased := v_erased + cardinality(v_subjects);
  end loop;
  return v_unknown + v_erased;
end
$function$;
comment on function gdpr_internal.replay_erasures(jsonb) is 'Erases again who was erased; persons who are not here are recorded as erased. Returns how many.';

create or replace function gdpr_internal.replay_locks(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_by text := format('ledger replay by %s', session_user);
  v_reason constant text := 'replayed from the ledger';
  v_counts jsonb;
begin
  with missing as materialized (
    select * from gdpr_internal.ledger_missing(p_ledger)
  ),
  blocks as (
    insert into gdpr_internal.identifier as i (digest, kind, blocked_at, block_reason)
    select m.digest, m.identifier, m.at, case when m.erased then 'erased' else v_reason end
    from missing as m
    where m.kind = 'block'
    on conflict (digest) do update
    set subject_id = null, bare_digest = null, retired_at = null, blocked_at = excluded.blocked_at, block_reason = excluded.block_reason
    where i.blocked_at is null and i.retired_at is not null
    returning i.digest
  ),
  mailboxes as (
    insert into gdpr_internal.opt_out_record (mailbox, event, reason, recorded_at, recorded_by)
    select m.digest, m.event, v_reason, m.at, v_by
    from missing as m
    where m.kind = 'mailbox'
    order by m.n
    returning id
  ),
  restrictions as (
    insert into gdpr_internal.restriction_record (subject_id, ground, recorded_at, recorded_by)
    select m.subject_id, m.ground, m.at, v_by
    from missing as m
    where m.kind = 'restriction'
    order by m.n
    returning id, subject_id, ground, recorded_at
  ),
  restriction_ends as (
    insert into gdpr_internal.restriction_end (restriction_id, reason, ended_at, recorded_by)
    select r.id, v_reason, m.at, v_by
    from missing as m
    join (
      select * from restrictions
      union all
      select x.id, x.subject_id, x.ground, x.recorded_at from gdpr_internal.restriction_record as x
    ) as r on r.subject_id = m.subject_id and r.recorded_at = m.record_at and r.ground = m.ground
    where m.kind = 'restriction_end'
    on conflict (restriction_id) do nothing
    returning restriction_id
  ),
  objections as (
    insert into gdpr_internal.objection_record (subject_id, purpose_id, pending, recorded_at, recorded_by)
    select m.subject_id, m.purpose_id, coalesce(m.pending, false), m.at, v_by
    from missing as m
    where m.kind = 'objection'
    order by m.n
    returning id, subject_id, purpose_id, recorded_at
  ),
  objection_decisions as (
    insert into gdpr_internal.objection_decision (objection_id, decision, ground, decided_at, recorded_by)
    select o.id, m.event, m.ground, m.at, v_by
    from missing as m
    join (
      select * from objections
      union all
      select x.id, x.subject_id, x.purpose_id, x.recorded_at from gdpr_internal.objection_record as x
    ) as o on o.subject_id = m.subject_id and o.purpose_id = m.purpose_id and o.recorded_at = m.record_at
    where m.kind = 'objection_decision'
    order by m.n
    returning id
  ),
  consents as (
    insert into gdpr_internal.consent_record (subject_id, purpose_id, event, channel, recorded_at, recorded_by)
    select m.subject_id, m.purpose_id, m.event, m.channel, m.at, v_by
    from missing as m
    where m.kind = 'consent' and m.event <> 'granted'
    order by m.n
    returning id
  ),
  basis_ends as (
    insert into gdpr_internal.basis_end (basis_id, reason, ended_at, recorded_by)
    select b.id, v_reason, m.at, v_by
    from missing as m
    join gdpr_internal.basis_record as b
      on b.subject_id = m.subject_id and b.purpose_id = m.purpose_id and b.basis = m.basis and b.recorded_at = m.record_at
    where m.kind = 'basis_end'
    on conflict (basis_id) do nothing
    returning basis_id
  )
  select jsonb_build_object(
    'blocks', (select count(*) from blocks),
    'mailboxes', (select count(*) from mailboxes),
    'restrictions', (select count(*) from restrictions),
    'restriction_ends', (select count(*) from restriction_ends),
    'objections', (select count(*) from objections),
    'objection_decisions', (select count(*) from objection_decisions),
    'consents', (select count(*) from consents),
    'basis_ends', (select count(*) from basis_ends)
  )
  into v_counts;
  return v_counts;
end
$function$;
comment on function gdpr_internal.replay_locks(jsonb) is
  'Records again what locks, at its own time, by "ledger replay". A digest that belongs to a person here is not blocked. Returns how many of each.';

create or replace function gdpr_internal.replay_rectifications(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_records bigint[];
  v_record bigint;
  v_refused bigint[] := '{}';
begin
  with recorded as (
    insert into gdpr_internal.rectification_record (subject_id, content, columns, reason, recorded_at, recorded_by)
    select m.subject_id, m.content, m.columns, 'replayed from the ledger', m.at, format('ledger replay by %s', session_user)
    from gdpr_internal.ledger_missing(p_ledger) as m
    where m.kind = 'rectification'
    order by m.n
    returning id
  )
  select coalesce(array_agg(r.id order by r.id), '{}') into v_records from recorded as r;
  begin
    perform gdpr_internal.apply_rectifications(v_records);
  exception when integrity_constraint_violation or sqlstate 'PR630' then
    -- one value that a table does not take any more must not keep all others from being forgotten
    foreach v_record in array v_records loop
      begin
        perform gdpr_internal.apply_rectifications(array[v_record]);
      exception when integrity_constraint_violation or sqlstate 'PR630' then
        v_refused := v_refused || v_record;
      end;
    end loop;
  end;
  return jsonb_build_object('rectifications', cardinality(v_records), 'rectifications_refused', v_refused);
end
$function$;
comment on function gdpr_internal.replay_rectifications(jsonb) is
  'Records rectifications again and carries them out. rectifications_refused: records whose values a table does not take any more; an officer has to look at them (gdpr.rectification_log).';

create or replace function gdpr.replay(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set quote_all_identifiers = off
as $function$
declare
  v_digest bytea;
  v_header jsonb := p_ledger -> 0;
  v_more boolean := p_ledger -> -1 -> 'seal' -> 'more' = 'true';
  v_last gdpr_internal.replay_record;
  v_before jsonb;
  v_reused text;
  v_subjects bigint[];
  v_result jsonb;
  v_id bigint;
begin
  perform gdpr_internal.require_read_committed();
  v_digest := gdpr_internal.open_ledger(p_ledger);
  perform pg_advisory_xact_lock(hashtextextended('gdpr.home', 0));
  select * into v_last from gdpr_internal.replay_record as r order by r.id desc limit 1;
  if v_header ? 'previous' and v_header ->> 'previous' is distinct from encode(v_last.digest, 'hex') then
    perform gdpr_internal.refuse('ledger_refused', format('part %s comes after part %s', v_header ->> 'part', (v_header ->> 'part')::integer - 1));
  end if;
  v_before := case when v_header ? 'previous' then v_last.before else gdpr_internal.position_reached() end;
  if not v_header ? 'previous' and (v_header ->> 'since')::timestamptz > (
    select coalesce(case when h.event = 'noticed' then h.data_until end, (select max(a.at) from gdpr_internal.audit_record as a), '-infinity')
    from (select max(x.id) as id from gdpr_internal.home_record as x) as last
    left join gdpr_internal.home_record as h on h.id = last.id
  ) then
    perform gdpr_internal.refuse('ledger_refused', 'it begins after the time that this database was restored to');
  end if;
  select string_agg(distinct s.id::text, ', ') into v_reused
  from jsonb_to_recordset(p_ledger) as e (subject bigint, since timestamptz)
  join gdpr_internal.subject as s on s.id = e.subject and s.created_at <> e.since;
  if v_reused is not null then
    perform gdpr_internal.refuse('ledger_refused', format('numbers of the ledger were given to other persons after the restore: %s', left(v_reused, 200)));
  end if;

  -- before anything is recorded, as whoever locks data does; what comes at the same time waits
  select array_agg(s.id order by s.id) into v_subjects
  from (
    select s.id from gdpr_internal.subject as s
    join (select distinct e.subject from jsonb_to_recordset(p_ledger) as e (subject bigint)) as e on e.subject = s.id
    order by s.id
    for no key update of s
  ) as s;
  v_result := gdpr_internal.replay_holds(p_ledger);
  v_result := v_result || jsonb_build_object('erasures', gdpr_internal.replay_erasures(p_ledger));
  v_result := v_result || gdpr_internal.replay_rectifications(p_ledger) || gdpr_internal.replay_locks(p_ledger);
  select array_agg(s.id) into v_subjects
  from gdpr_internal.subject as s
  where s.id = any (v_subjects) and s.erased_at is null;
  perform gdpr_internal.refresh_gate(coalesce(v_subjects, '{}'));
  perform gdpr_internal.close_questions(coalesce(v_subjects, '{}'));
  -- a backup of the keys that is older than the data brings back those of the erased
  perform gdpr_internal.destroy_keys(array(
    select s.id from gdpr_internal.subject as s
    where s.erased_at is not null and not exists (select from gdpr_internal.erasure_remainder as r where r.subject_id = s.id)
  ));
  perform gdpr_internal.pass_positions(v_header -> 'positions');
  v_result := v_result || jsonb_build_object(
    'granted_again', (
      select coalesce(jsonb_agg(jsonb_build_object('subject', m.subject_id, 'purpose', p.name, 'at', m.at) order by m.n), '[]')
      from gdpr_internal.ledger_missing(p_ledger) as m
      join gdpr_internal.purpose as p on p.id = m.purpose_id
      where m.event = 'granted'
    ),
    'unknown_purposes', (
      select coalesce(jsonb_agg(distinct e.purpose), '[]')
      from jsonb_to_recordset(p_ledger) as e (purpose text)
      where e.purpose is not null and not exists (select from gdpr_internal.purpose as p where p.name = e.purpose)
    ),
    'unknown_tables', (
      select coalesce(jsonb_agg(distinct e.table_name), '[]')
      from jsonb_to_recordset(p_ledger) as e (table_id smallint, table_name text)
      where e.table_name is not null and not exists (
        select from gdpr_internal.protected_table as t
        where t.id = e.table_id and t.relation::text = e.table_name and t.unprotected_at is null
      )
    ),
    'lost', gdpr_internal.positions_beyond(v_header -> 'positions', v_before)
  );
  insert into gdpr_internal.replay_record (digest, part, taken_at, positions, before, result, actor)
  values (
    v_digest, (v_header ->> 'part')::integer, (v_header ->> 'taken_at')::timestamptz, v_header -> 'positions', v_before, v_result,
    gdpr_internal.context_setting('actor')
  )
  returning id into v_id;
  perform gdpr_internal.audit_event('REPLAY', null, jsonb_build_object('replay_id', v_id) || v_result);
  if not v_more and gdpr.whereabouts() <> 'home' then
    perform gdpr_internal.record_home('replayed', format('ledger of %s', v_header ->> 'taken_at'));
  end if;
  return v_result;
end
$function$;
comment on function gdpr.replay(jsonb) is
  'Forgets again what a restore brought back, from the lines of one part of gdpr.ledger() as a list: erasures, blocked identifiers, opt-outs, restrictions and their ends, objections and decisions about them, holds and their ends, consents declined and withdrawn, bases that ended, rectifications. Records keep their own time and say that they were replayed; what is here already is left alone. After the last part processing goes on. Returns how many of each were brought back, and what was not: granted_again (consents given after a no: ask again), rectifications_refused (records whose values no table takes any more), lost (records of each register made after the backup), unknown_purposes and unknown_tables (apply the policy in force, and replay again). Errors: PR641 not a ledger of this database, changed, a part left out, begun too late, or numbers given to others since; PR401, PR402, PR005. Art. 17, Art. 5(2).';

create or replace view gdpr.replay_log as
select r.id, r.taken_at, r.part, r.result, r.recorded_at, r.recorded_by, r.actor
from gdpr_internal.replay_record as r;
comment on view gdpr.replay_log is 'Ledgers that were replayed after a restore, and what came of it. Art. 5(2).';

create or replace view gdpr.home as
select h.id, h.event, h.reason, h.data_until, h.recorded_at, h.recorded_by
from gdpr_internal.home_record as h;
comment on view gdpr.home is
  'Where this database was at home: installed, noticed (found restored, to the time data_until), replayed, accepted. The last row counts. Art. 5(2).';
