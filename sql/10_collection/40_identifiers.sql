-- [code] Whose row is it: matching a new row to a person, creating persons, the blocklist at the door.
-- GDPR Art. 4(1), Art. 14(2)(f), Art. 17. Called by: the generated triggers (claim_subject), DPO (block, unblock, find_subject).

set local role gdpr_keyholder;

do $type$
begin
  if to_regtype('gdpr_internal.claim') is null then
    create type gdpr_internal.claim as (subject_id bigint, ref uuid, purposes bigint, until timestamptz, data_key bytea);
  end if;
end
$type$;
comment on type gdpr_internal.claim is 'A person as a row needs it: number, pseudonym, gate and data key.';

create or replace function gdpr_internal.add_source(
  p_subject bigint, p_table smallint, p_row uuid, p_source jsonb, p_key bytea, p_event text default 'created'
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_details text;
begin
  if p_source - 'kind' <> '{}' then
    v_details := gdpr_internal.seal_value(p_key, gdpr_internal.gen_random_bytes(16), p_subject, 0, (p_source - 'kind')::text);
  end if;
  insert into gdpr_internal.source (subject_id, table_id, row_key, event, kind, details, actor)
  values (p_subject, p_table, p_row, p_event, coalesce(p_source ->> 'kind', 'unspecified'), v_details, gdpr_internal.context_setting('actor'));
end
$function$;
comment on function gdpr_internal.add_source(bigint, smallint, uuid, jsonb, bytea, text) is
  'Records where a row came from; form, IP address, file and the like are encrypted under the person''s key. Art. 14(2)(f).';

create or replace function gdpr_internal.new_subject(
  p_keys gdpr_internal.keyring, p_table smallint, p_subject bigint, p_row uuid, p_source jsonb
)
returns gdpr_internal.claim
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_claim gdpr_internal.claim;
  v_random bytea := gdpr_internal.gen_random_bytes(80);
  v_wrapped bytea;
  v_before boolean := p_source ->> 'kind' = 'before_gdprdb';
begin
  v_claim.subject_id := p_subject;
  v_claim.ref := gen_random_uuid();
  v_claim.data_key := substr(v_random, 1, 64);
  select coalesce(bit_or(1::bigint << b.purpose_id), 0) | (1::bigint << 62), coalesce(min(b.valid_until), 'infinity')
  into v_claim.purposes, v_claim.until
  from gdpr_internal.default_basis as b
  where b.table_id = p_table and (v_before or b.basis <> 'undetermined');
  v_wrapped := gdpr_internal.wrap_key((p_keys).kek, substr(v_random, 65), int8send(p_subject), v_claim.data_key);
  insert into gdpr_internal.subject (id, ref, purposes, until)
  values (p_subject, v_claim.ref, v_claim.purposes, v_claim.until);
  insert into gdpr_internal.subject_key (subject_id, kek_id, wrapped)
  values (p_subject, (p_keys).kek_id, v_wrapped);
  insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, valid_until, by_table)
  select p_subject, b.purpose_id, b.basis, b.reason, b.recorded_until, p_table
  from gdpr_internal.default_basis as b
  where b.table_id = p_table and (v_before or b.basis <> 'undetermined');
  perform gdpr_internal.add_source(p_subject, p_table, p_row, p_source, v_claim.data_key);
  return v_claim;
end
$function$;
comment on function gdpr_internal.new_subject(gdpr_internal.keyring, smallint, bigint, uuid, jsonb) is
  'Creates the person p_subject with a data key, the bases that the table gives by default and the source of the first row.';

create or replace function gdpr_internal.known_subject(
  p_keys gdpr_internal.keyring, p_table smallint, p_mask bigint, p_subject bigint, p_source jsonb
)
returns gdpr_internal.claim
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_claim gdpr_internal.claim;
  v_erased boolean;
begin
  -- who is going to change the gate locks it at once as one who does: two who read it first would wait for each other
  perform from gdpr_internal.subject as s
  where s.id = p_subject and s.purposes & p_mask <> p_mask and not exists (
    select from gdpr_internal.source as o where o.subject_id = p_subject and o.table_id = p_table
  )
  for no key update;
  -- the lock makes this row and a withdrawal meet: whoever comes second sees the other
  select s.id, s.ref, s.purposes, s.until, s.erased_at is not null
  into v_claim.subject_id, v_claim.ref, v_claim.purposes, v_claim.until, v_erased
  from gdpr_internal.subject as s
  where s.id = p_subject
  for share;
  if v_claim.subject_id is null or v_erased then
    perform gdpr_internal.refuse('erased');
  end if;
  v_claim.data_key := gdpr_internal.data_key(p_keys, p_subject);
  if v_claim.data_key is null then
    perform gdpr_internal.refuse('key_missing', 'the data key of this person is gone');
  end if;
  -- one condition after the other: a query in one whose values make it false is planned for them, each time
  if v_claim.purposes & p_mask <> p_mask then
    if not exists (select from gdpr_internal.source as s where s.subject_id = p_subject and s.table_id = p_table) then
      insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, valid_until, by_table)
      select p_subject, b.purpose_id, b.basis, b.reason, b.recorded_until, p_table
      from gdpr_internal.default_basis as b
      where b.table_id = p_table and (p_source ->> 'kind' = 'before_gdprdb' or b.basis <> 'undetermined');
      perform gdpr_internal.refresh_gate(array[p_subject]);
      select s.purposes, s.until into v_claim.purposes, v_claim.until
      from gdpr_internal.subject as s
      where s.id = p_subject;
    end if;
  end if;
  return v_claim;
end
$function$;
comment on function gdpr_internal.known_subject(gdpr_internal.keyring, smallint, bigint, bigint, jsonb) is
  'A person who exists, locked against a change of the gate until the row is written; a first row in a table brings the table''s default bases. Error: PR603 erased.';

create or replace function gdpr_internal.claim_subject(
  p_keys gdpr_internal.keyring,
  p_table smallint,
  p_mask bigint,
  p_parent bigint,
  p_digests uuid[],
  p_bare uuid[],
  p_kinds text[],
  p_matching integer,
  p_blocklist text,
  p_constraint name,
  p_row uuid,
  p_backfill boolean
)
returns gdpr_internal.claim
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_claim gdpr_internal.claim;
  v_hit record;
  v_subject bigint := p_parent;
  v_blocked boolean := false;
  v_digests integer := cardinality(array_remove(p_digests, null));
  v_known integer := 0;
  v_matching uuid[] := p_digests[1:p_matching];
  v_source jsonb := case when p_backfill then '{"kind": "before_gdprdb"}' else gdpr_internal.context_source() end;
begin
  if v_digests > 0 then
    if gdpr_internal.confirming() then
      -- who confirms a registration has proved one address; what else was entered may be somebody else's
      v_matching := array(select d from unnest(v_matching) as d where d = gdpr_internal.confirmed_address());
    end if;
    -- whose is it, and is it blocked; the lock is what an eraser of the same person meets
    for v_hit in
      select i.digest, i.subject_id, i.blocked_at, i.retired_at
      from gdpr_internal.identifier as i
      where i.digest = any (p_digests || p_bare)
      order by array_position(p_digests, i.digest)
      for share
    loop
      v_blocked := v_blocked or v_hit.blocked_at is not null;
      if v_hit.retired_at is null and v_hit.digest = any (p_digests) then
        v_known := v_known + 1;
        if v_subject is null and v_hit.digest = any (v_matching) then
          v_subject := v_hit.subject_id;
        end if;
      end if;
    end loop;
    if v_blocked then
      perform gdpr_internal.meet_blocked(p_table, case when p_backfill and p_blocklist = 'refuse' then 'backfill' else p_blocklist end, p_constraint);
    end if;
  end if;
  if v_subject is null then
    v_subject := nextval('gdpr_internal.subject_id_seq');
    perform gdpr_internal.claim_identifiers(v_subject, p_digests, p_bare, p_kinds);
    if exists (
      select from gdpr_internal.identifier as i
      where i.digest = any (v_matching) and i.subject_id <> v_subject and i.retired_at is null
    ) then
      -- another session was faster with the same person, who can be seen now
      delete from gdpr_internal.identifier as i where i.subject_id = v_subject;
      return gdpr_internal.claim_subject(
        p_keys, p_table, p_mask, p_parent, p_digests, p_bare, p_kinds, p_matching, p_blocklist, p_constraint, p_row, p_backfill
      );
    end if;
    v_claim := gdpr_internal.new_subject(p_keys, p_table, v_subject, p_row, v_source);
  else
    v_claim := gdpr_internal.known_subject(p_keys, p_table, p_mask, v_subject, v_source);
    perform gdpr_internal.add_source(v_subject, p_table, p_row, v_source, v_claim.data_key);
    if v_known < v_digests then
      perform gdpr_internal.claim_identifiers(v_subject, p_digests, p_bare, p_kinds, p_parent is null);
    end if;
  end if;
  return v_claim;
end
$function$;
comment on function gdpr_internal.claim_subject(
  gdpr_internal.keyring, smallint, bigint, bigint, uuid[], uuid[], text[], integer, text, name, uuid, boolean
) is
  'The person a new row belongs to: the parent''s (p_parent), the one who holds one of the first p_matching identifiers, or a new one. Records identifiers and source. Errors: 23505 blocked identifier, PR603 erased. Art. 14(2)(f), Art. 17.';

create or replace function gdpr_internal.claim_identifiers(
  p_subject bigint, p_digests uuid[], p_bare uuid[], p_kinds text[], p_by_match boolean default false
)
returns integer
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_claimed integer;
  v_taken_over integer;
begin
  insert into gdpr_internal.identifier (digest, kind, subject_id, bare_digest, by_match)
  -- a row may hold one number twice: as telephone and as mobile
  select distinct on (d.digest) d.digest, d.kind, p_subject, nullif(d.bare, d.digest), p_by_match
  from unnest(p_digests, p_bare, p_kinds) as d (digest, bare, kind)
  where d.digest is not null
  on conflict (digest) do nothing;
  get diagnostics v_claimed = row_count;
  -- apart: DO UPDATE locks also what its WHERE leaves alone, and two who share the lock on an identifier of a third would
  -- wait for each other
  update gdpr_internal.identifier as i
  set subject_id = p_subject, retired_at = null, recorded_at = statement_timestamp(), by_match = p_by_match
  where i.digest = any (p_digests) and i.retired_at is not null and i.blocked_at is null;
  get diagnostics v_taken_over = row_count;
  return v_claimed + v_taken_over;
end
$function$;
comment on function gdpr_internal.claim_identifiers(bigint, uuid[], uuid[], text[], boolean) is
  'Gives free (or retired) identifiers to a person and returns how many it got; what somebody else holds, or is blocked, stays so. p_by_match: the person was known by another one.';

create or replace function gdpr_internal.meet_blocked(p_table smallint, p_blocklist text, p_constraint name)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation record;
begin
  if p_blocklist <> 'backfill' then
    perform gdpr_internal.count_probe();
  end if;
  if p_blocklist = 'warn' then
    raise warning using
      errcode = '01000', message = 'duplicate or blocked identifier', hint = 'The person may have been erased: check before keeping the row.',
      constraint = 'gdpr_blocked_identifier';
  elsif p_blocklist = 'backfill' then
    perform gdpr_internal.refuse('blocked_rows');
  elsif p_constraint is not null then
    -- word for word what a duplicate gives: a sign-up form must not tell that somebody was erased
    select n.nspname, c.relname into v_relation
    from gdpr_internal.protected_table as t
    join pg_class as c on c.oid = t.relation
    join pg_namespace as n on n.oid = c.relnamespace
    where t.id = p_table;
    raise exception using
      errcode = '23505', message = format('duplicate key value violates unique constraint "%s"', p_constraint),
      schema = v_relation.nspname, table = v_relation.relname, constraint = p_constraint;
  else
    perform gdpr_internal.refuse('blocked_identifier');
  end if;
end
$function$;
comment on function gdpr_internal.meet_blocked(smallint, text, name) is
  'A blocked identifier at the door: a warning, or error 23505, indistinguishable from a duplicate where the column is unique (p_constraint). Art. 17.';

create or replace function gdpr_internal.identifier_digests(p_kind text, p_value text, out digest uuid, out bare uuid)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_canonical text := gdpr_internal.canonical(p_kind, p_value);
  v_keys gdpr_internal.keyring;
begin
  if v_canonical is null then
    perform gdpr_internal.refuse('invalid_argument', 'the value of an identifier cannot be empty');
  end if;
  v_keys := gdpr_internal.keyring();
  digest := gdpr_internal.keyed_digest(v_keys.digest_key, p_kind, v_canonical);
  bare := gdpr_internal.keyed_digest(v_keys.digest_key, p_kind, gdpr_internal.bare_form(p_kind, v_canonical));
end
$function$;
comment on function gdpr_internal.identifier_digests(text, text) is 'The digest of an identifier and of its bare form. Error: PR004 empty value.';

create or replace function gdpr_internal.change_identifier(
  p_table smallint, p_subject bigint, p_old uuid, p_new uuid, p_bare uuid, p_kind text, p_blocklist text, p_constraint name,
  p_held uuid[]
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  -- a column that the policy has made an identifier, or a row that went to another person
  v_stays constant boolean := p_new is not distinct from p_old;
  v_by_match boolean;
begin
  -- one condition after the other: a query in one whose values make it false is planned for them, each time
  if v_stays then
    if p_new is null then
      return;
    elsif exists (select from gdpr_internal.identifier as i where i.digest = p_new and i.retired_at is null and i.blocked_at is null) then
      return;
    end if;
  end if;
  if not (v_stays and p_blocklist = 'warn') then
    if exists (
      select from gdpr_internal.identifier as i
      where i.digest in (p_new, p_bare) and i.blocked_at is not null
      for share
    ) then
      perform gdpr_internal.meet_blocked(p_table, case when v_stays then 'backfill' else p_blocklist end, p_constraint);
    end if;
  end if;
  -- what came by a match does so under another name; in a row of a person, so does what joins others of its kind
  v_by_match := coalesce(
    (select i.by_match from gdpr_internal.identifier as i where i.digest = p_old and i.subject_id = p_subject),
    exists (select from gdpr_internal.protected_table as t where t.id = p_table and t.parent_id is null) and exists (
      select from gdpr_internal.identifier as i where i.subject_id = p_subject and i.kind = p_kind and i.retired_at is null
    )
  );
  if p_old is not null and not v_stays and p_old <> all (array_remove(coalesce(p_held, '{}'), null)) then
    update gdpr_internal.identifier as i
    set retired_at = statement_timestamp()
    where i.digest = p_old and i.subject_id = p_subject and i.retired_at is null;
  end if;
  perform gdpr_internal.claim_identifiers(p_subject, array[p_new], array[p_bare], array[p_kind], v_by_match);
end
$function$;
comment on function gdpr_internal.change_identifier(smallint, bigint, uuid, uuid, uuid, text, text, name, uuid[]) is
  'A person''s identifier changes: the old one is retired (another person may bring it) unless another column of the row holds it (p_held), the new one claimed. One that stays is claimed where nobody holds it. Errors: 23505 blocked, PR103 one that stays is.';

set local role gdpr_owner;

create or replace function gdpr.find_subject(p_kind text, p_value text)
returns bigint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digests record;
  v_subject bigint;
begin
  v_digests := gdpr_internal.identifier_digests(p_kind, p_value);
  select i.subject_id into v_subject
  from gdpr_internal.identifier as i
  where i.digest = v_digests.digest and i.retired_at is null;
  return v_subject;
end
$function$;
comment on function gdpr.find_subject(text, text) is
  'The person with this identifier (kind: email, phone, text), or null. Send the value as a bind parameter.';

create or replace function gdpr.block(p_kind text, p_value text, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digests record;
begin
  v_digests := gdpr_internal.identifier_digests(p_kind, p_value);
  if exists (
    select from gdpr_internal.identifier as i
    where i.digest in (v_digests.digest, v_digests.bare) and i.subject_id is not null and i.retired_at is null
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'the identifier belongs to a person; gdpr.erase() blocks it');
  end if;
  insert into gdpr_internal.identifier as i (digest, kind, blocked_at, block_reason)
  select distinct d.digest, p_kind, statement_timestamp(), p_reason
  from unnest(array[v_digests.digest, v_digests.bare]) as d (digest)
  on conflict (digest) do update
  set subject_id = null, retired_at = null, blocked_at = excluded.blocked_at, block_reason = excluded.block_reason
  where i.blocked_at is null and i.retired_at is not null;
  perform gdpr_internal.audit_event('BLOCK', null, jsonb_build_object('kind', p_kind));
end
$function$;
comment on function gdpr.block(text, text, text) is
  'Puts an identifier on the blocklist: rows that carry it warn or are refused (policy). p_reason must hold no personal data: there is no key of a person to keep it under. Errors: PR004 empty value, or the identifier of a person. Art. 17, Art. 21(3).';

create or replace function gdpr.unblock(p_kind text, p_value text, p_reason text)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digests record;
  v_found boolean;
begin
  v_digests := gdpr_internal.identifier_digests(p_kind, p_value);
  delete from gdpr_internal.identifier as i
  where i.digest in (v_digests.digest, v_digests.bare) and i.blocked_at is not null;
  v_found := found;
  perform gdpr_internal.audit_event('UNBLOCK', null, jsonb_build_object('kind', p_kind, 'reason', p_reason, 'found', v_found));
  return v_found;
end
$function$;
comment on function gdpr.unblock(text, text, text) is 'Takes an identifier off the blocklist, on record; false when it was not there. p_reason, which stays in the audit log, must hold no personal data: there is no key of a person to keep it under.';

create or replace function gdpr.is_blocked(p_kind text, p_value text)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digests record;
begin
  v_digests := gdpr_internal.identifier_digests(p_kind, p_value);
  return exists (
    select from gdpr_internal.identifier as i
    where i.digest in (v_digests.digest, v_digests.bare) and i.blocked_at is not null
  );
end
$function$;
comment on function gdpr.is_blocked(text, text) is 'Whether an identifier, or its address without a plus-tag, is on the blocklist.';

create or replace view gdpr.blocklist as
select i.digest, i.kind, i.blocked_at, i.block_reason as reason
from gdpr_internal.identifier as i
where i.blocked_at is not null;
comment on view gdpr.blocklist is 'Blocked identifiers, as keyed digests.';

create or replace view gdpr.subject as
select
  s.id as subject_id,
  s.created_at,
  s.erased_at,
  exists (
    select from gdpr_internal.restriction_record as r
    where r.subject_id = s.id
      and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = r.id)
  ) as restricted
from gdpr_internal.subject as s;
comment on view gdpr.subject is 'Persons: numbers and states, nothing that identifies.';
