-- [code] The ledger: what has to be forgotten again after a restore. Numbers and keyed digests, no words that somebody typed.
-- GDPR Art. 5(2), Art. 17, Art. 18, Art. 21, Art. 7(3). Called by: gdprdb ledger export, which signs it with a key of its own.

set local role gdpr_keyholder;

create or replace function gdpr_internal.ledger_mac(p_digest bytea, p_more boolean)
returns bytea
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea := (select k.audit_key from gdpr_internal.key_encryption_key as k where k.retired_at is null);
begin
  if v_key is null then
    perform gdpr_internal.refuse('key_missing');
  end if;
  return gdpr_internal.hmac(convert_to(case when p_more then 'gdprdb/1/ledger/more' else 'gdprdb/1/ledger/end' end, 'UTF8') || p_digest, v_key, 'sha256');
end
$function$;
comment on function gdpr_internal.ledger_mac(bytea, boolean) is
  'By this a database knows a ledger of its own, whose digests were made with the same keys: HMAC-SHA-256 over the digest of a part, and whether another follows. Error: PR401 no key.';

set local role gdpr_owner;

create or replace function gdpr_internal.ledger_positions()
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table name;
  v_last bigint;
  v_positions jsonb := '{}';
begin
  -- registers from which nothing is ever deleted: their last number only grows
  for v_table in
    select c.relname
    from pg_class as c
    where c.relnamespace = 'gdpr_internal'::regnamespace
      and exists (select from pg_attribute as a where a.attrelid = c.oid and a.attname = 'id' and not a.attisdropped)
      and c.relkind in ('r', 'p') and not c.relispartition
      and (c.relname = 'subject' or exists (select from pg_trigger as g where g.tgrelid = c.oid and g.tgname = 'gdpr_50_append_only'))
    order by c.relname
  loop
    execute format('select max(t.id) from gdpr_internal.%I as t', v_table) into v_last;
    v_positions := v_positions || jsonb_build_object(v_table, coalesce(v_last, 0));
  end loop;
  return v_positions;
end
$function$;
comment on function gdpr_internal.ledger_positions() is 'The last number of each register: who has seen a higher one has seen a later state of this database.';

create or replace view gdpr_internal.ledger_entry as
select 'erasure' as kind, e.erased_at as at, e.id, e.subject_id, '{}'::jsonb as details
from gdpr_internal.erasure_record as e
union all
select
  'block', i.blocked_at, null, null,
  jsonb_build_object('digest', i.digest, 'identifier', i.kind, 'erased', i.block_reason = 'erased')
from gdpr_internal.identifier as i
where i.blocked_at is not null
union all
select 'mailbox', o.recorded_at, o.id, null, jsonb_build_object('digest', o.mailbox, 'event', o.event)
from gdpr_internal.opt_out_record as o
union all
select 'restriction', r.recorded_at, r.id, r.subject_id, jsonb_build_object('ground', r.ground)
from gdpr_internal.restriction_record as r
union all
select 'restriction_end', x.ended_at, r.id, r.subject_id, jsonb_build_object('ground', r.ground, 'of', r.recorded_at)
from gdpr_internal.restriction_end as x
join gdpr_internal.restriction_record as r on r.id = x.restriction_id
union all
select 'objection', o.recorded_at, o.id, o.subject_id, jsonb_build_object('purpose', p.name, 'pending', o.pending)
from gdpr_internal.objection_record as o
join gdpr_internal.purpose as p on p.id = o.purpose_id
union all
select
  'objection_decision', d.decided_at, d.id, o.subject_id,
  jsonb_build_object('purpose', p.name, 'event', d.decision, 'ground', d.ground, 'of', o.recorded_at)
from gdpr_internal.objection_decision as d
join gdpr_internal.objection_record as o on o.id = d.objection_id
join gdpr_internal.purpose as p on p.id = o.purpose_id
union all
-- without them the replay would erase what has to be kept
select
  'hold', h.recorded_at, h.id, h.subject_id,
  jsonb_build_object(
    'ground', h.ground, 'until', h.valid_until, 'table_id', h.table_id, 'table_name', t.relation::text, 'digest', h.row_key, 'columns', h.columns
  )
from gdpr_internal.hold as h
left join gdpr_internal.protected_table as t on t.id = h.table_id
union all
select 'hold_end', x.ended_at, h.id, h.subject_id, jsonb_build_object('ground', h.ground, 'of', h.recorded_at)
from gdpr_internal.hold_end as x
join gdpr_internal.hold as h on h.id = x.hold_id
union all
select 'consent', c.recorded_at, c.id, c.subject_id, jsonb_build_object('purpose', p.name, 'event', c.event, 'channel', c.channel)
from gdpr_internal.consent_record as c
join gdpr_internal.purpose as p on p.id = c.purpose_id
-- a grant is not brought back, but who granted again after a no is named, so that they can be asked
where c.event <> 'granted' or exists (
  select from gdpr_internal.consent_record as x
  where x.subject_id = c.subject_id and x.purpose_id = c.purpose_id and x.id < c.id and x.event <> 'granted'
)
union all
select 'basis_end', x.ended_at, b.id, b.subject_id, jsonb_build_object('purpose', p.name, 'basis', b.basis, 'of', b.recorded_at)
from gdpr_internal.basis_end as x
join gdpr_internal.basis_record as b on b.id = x.basis_id
join gdpr_internal.purpose as p on p.id = b.purpose_id
where not x.by_policy
union all
-- ciphertext under the person's key, which the ledger does not hold
select 'rectification', r.recorded_at, r.id, r.subject_id, jsonb_build_object('content', r.content, 'columns', r.columns)
from gdpr_internal.rectification_record as r
join gdpr_internal.subject as s on s.id = r.subject_id and s.erased_at is null;
comment on view gdpr_internal.ledger_entry is
  'What locks, keeps or corrects, and must not come undone by a restore. Reasons are left out: somebody typed them. Bases that the policy ended are left out: it ends them again when it is applied.';

create or replace function gdpr_internal.ledger_lines(p_since timestamptz, p_part integer)
returns setof jsonb
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set quote_all_identifiers = off
set jit = off
as $function$
declare
  v_header jsonb := jsonb_build_object(
    'gdprdb_ledger', 1, 'database', current_database(), 'system_identifier', (select s.system_identifier::text from pg_control_system() as s),
    'taken_at', statement_timestamp(), 'since', p_since, 'positions', gdpr_internal.ledger_positions()
  );
  v_part integer := 0;
  v_entries integer := 0;
  v_digest bytea;
  v_line jsonb;
begin
  for v_line in
    select v_header || '{"part": 1}'
    union all
    (
      select jsonb_strip_nulls(
        jsonb_build_object('kind', e.kind, 'at', e.at, 'id', e.id, 'subject', e.subject_id, 'since', s.created_at) || e.details
      )
      from gdpr_internal.ledger_entry as e
      left join gdpr_internal.subject as s on s.id = e.subject_id
      -- what a transaction wrote that took its time to commit may be in no ledger before this one
      where e.at >= p_since - interval '1 day'
      order by e.at, e.kind, e.id
    )
  loop
    if v_entries = p_part then
      return next gdpr_internal.ledger_seal(v_digest, v_entries, true);
      v_header := v_header || jsonb_build_object('part', v_part + 1, 'previous', encode(v_digest, 'hex'));
      return next v_header;
      v_part := v_part + 1;
      v_entries := 0;
      v_digest := sha256(convert_to(v_header::text, 'UTF8'));
    end if;
    v_digest := sha256(coalesce(v_digest, '') || convert_to(v_line::text, 'UTF8'));
    if v_part = 0 then
      v_part := 1;
    else
      v_entries := v_entries + 1;
    end if;
    return next v_line;
  end loop;
  return next gdpr_internal.ledger_seal(v_digest, v_entries, false);
end
$function$;
comment on function gdpr_internal.ledger_lines(timestamptz, integer) is 'The lines of gdpr.ledger(), all as of one moment.';

create or replace function gdpr.ledger(p_since timestamptz default '-infinity', p_part integer default 100000)
returns setof jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_since is null or p_part is null or p_part < 1 then
    perform gdpr_internal.refuse('invalid_argument', 'since is a time, and a part has at least one entry');
  end if;
  -- what it says of the registers is how they were before its own record
  return query select * from gdpr_internal.ledger_lines(p_since, p_part);
  if current_setting('transaction_read_only')::boolean then
    raise log 'gdprdb: ledger taken by % in a read-only transaction', gdpr_internal.acting_role();
  else
    perform gdpr_internal.audit_event('LEDGER', null, jsonb_build_object('since', p_since));
  end if;
end
$function$;
comment on function gdpr.ledger(timestamptz, integer) is
  'The ledger, one document for each line: a header (which database, when, the last number of each register), then in the order of time erasures, blocked identifiers, mailboxes that opted out, restrictions and their ends, objections and decisions about them, holds and their ends, consents declined and withdrawn, bases that ended, rectifications; and a seal over all of that. Persons are numbers, identifiers keyed digests, corrected values ciphertext under the person''s key. p_since: only what was recorded since, and a day before; infinity: header and seal alone, a checkpoint. More than p_part entries make several such parts. On record; a read-only transaction leaves a line in the server''s log instead. Errors: PR004, PR401 no key. Art. 17, Art. 5(2).';

create or replace function gdpr_internal.ledger_seal(p_digest bytea, p_entries integer, p_more boolean)
returns jsonb
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select jsonb_build_object('seal', jsonb_build_object(
    'entries', p_entries, 'digest', encode(p_digest, 'hex'), 'more', p_more, 'mac', encode(gdpr_internal.ledger_mac(p_digest, p_more), 'hex')
  ));
end;
comment on function gdpr_internal.ledger_seal(bytea, integer, boolean) is
  'The last line of a part. digest: SHA-256 of the digest so far and the next line, from the header on, as PostgreSQL writes jsonb.';

create or replace function gdpr_internal.open_ledger(p_ledger jsonb)
returns bytea
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_seal jsonb := case when jsonb_typeof(p_ledger) = 'array' then p_ledger -> -1 -> 'seal' end;
  v_digest bytea := '';
  v_line jsonb;
begin
  if p_ledger -> 0 -> 'gdprdb_ledger' is distinct from '1' or jsonb_typeof(v_seal) is distinct from 'object' then
    perform gdpr_internal.refuse('ledger_refused', 'a part is a list: header, entries, seal');
  end if;
  for v_line in
    select l.line from jsonb_array_elements(p_ledger) with ordinality as l (line, n)
    where l.n < jsonb_array_length(p_ledger)
    order by l.n
  loop
    v_digest := sha256(v_digest || convert_to(v_line::text, 'UTF8'));
  end loop;
  if v_seal ->> 'mac' is distinct from encode(gdpr_internal.ledger_mac(v_digest, v_seal -> 'more' = 'true'), 'hex') then
    perform gdpr_internal.refuse('ledger_refused', 'it was changed, or the keys here are not those of the database that wrote it');
  end if;
  return v_digest;
end
$function$;
comment on function gdpr_internal.open_ledger(jsonb) is 'The digest of a part of a ledger of this database, whole and unchanged. Errors: PR641, PR401.';
