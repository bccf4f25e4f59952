-- [code] A new data key for persons: everything under the old one is encrypted anew, while applications work on.
-- GDPR Art. 32(1)(a). Called by: gdpr_admin, gdprdb keys renew. A person is renewed in one transaction: key, rows, evidence, mails.
-- Old values in the audit log are sealed as they are; for them the old key stays in the person's key ring, until erasure destroys
-- all of it, or until a later renewal finds that the months which it served were dropped.

set local role gdpr_keyholder;

create or replace function gdpr_internal.renewing(p_subject bigint)
returns boolean
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return exists (
    select from gdpr_internal.subject_key as k
    where k.subject_id = p_subject and k.renewing_xid = pg_current_xact_id_if_assigned()
  );
end
$function$;
comment on function gdpr_internal.renewing(bigint) is 'Whether this transaction has given the person a new data key.';

create or replace function gdpr_internal.ring_entry(p_key bytea, p_version integer, p_made_at timestamptz)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select p_key || int4send(p_version) || int8send(floor(extract(epoch from p_made_at))::bigint) || '\x00000000'::bytea;
end;
comment on function gdpr_internal.ring_entry(bytea, integer, timestamptz) is
  'An entry of a key ring, 80 bytes: key (64), version (4), when it was made (seconds since 1970, 8), zeros (4).';

create or replace function gdpr_internal.renewed_ring(p_ring bytea, p_made_at timestamptz, p_key bytea)
returns bytea
language sql
stable
strict
parallel safe
security invoker
begin atomic
  select
    gdpr_internal.ring_entry(
      p_key, ('x' || encode(gdpr_internal.key_version(p_ring), 'hex'))::bit(32)::integer + 1, statement_timestamp()
    )
    || case when length(p_ring) = 64 then gdpr_internal.ring_entry(p_ring, 1, p_made_at) else p_ring end;
end;
comment on function gdpr_internal.renewed_ring(bytea, timestamptz, bytea) is
  'A key ring with a new data key in front. p_made_at: when the key was made, of a ring of that one alone.';

create or replace function gdpr_internal.pruned_ring(p_ring bytea, p_kept_since timestamptz)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  -- a key served until the one before it in the ring was made
  select string_agg(substr(p_ring, e.n * 80 + 1, 80), ''::bytea order by e.n)
  from generate_series(0, length(p_ring) / 80 - 1) as e (n)
  where e.n < 2
    or to_timestamp(('x' || encode(substr(p_ring, e.n * 80 - 11, 8), 'hex'))::bit(64)::bigint) + interval '1 day' >= p_kept_since;
end;
comment on function gdpr_internal.pruned_ring(bytea, timestamptz) is
  'A key ring without the keys that served no longer than until p_kept_since; the first two always stay.';

create or replace function gdpr_internal.renewed_value(p_ring bytea, p_subject bigint, p_value text)
returns text
language plpgsql
volatile
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_internal.seal_value(
    p_ring, gdpr_internal.gen_random_bytes(16), p_subject, 0, gdpr_internal.open_value(p_ring, p_subject, 0, p_value)
  );
end
$function$;
comment on function gdpr_internal.renewed_value(bytea, bigint, text) is
  'A value of evidence (column 0) under the key in force of the ring. Error: PR404.';

create or replace function gdpr_internal.is_renewed(p_old jsonb, p_new jsonb)
returns boolean
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_old text;
  v_new text;
  v_subject bigint;
  v_ring bytea;
begin
  if exists (select from jsonb_object_keys(p_old) as k (name) where not p_new ? k.name)
    or exists (select from jsonb_object_keys(p_new) as k (name) where not p_old ? k.name)
  then
    return false;
  end if;
  for v_old, v_new in
    select o.value, n.value from jsonb_each_text(p_old) as o join jsonb_each_text(p_new) as n using (key)
    where o.value is distinct from n.value
  loop
    if not coalesce(starts_with(v_old, 'gdpr1:') and starts_with(v_new, 'gdpr1:'), false) then
      return false;
    end if;
    v_subject := gdpr_internal.value_subject(v_old);
    if not gdpr_internal.renewing(v_subject) then
      return false;
    end if;
    v_ring := gdpr_internal.data_key(gdpr_internal.keyring(), v_subject);
    if gdpr_internal.open_value(v_ring, v_subject, 0, v_old) <> gdpr_internal.open_value(v_ring, v_subject, 0, v_new) then
      return false;
    end if;
  end loop;
  return true;
end
$function$;
comment on function gdpr_internal.is_renewed(jsonb, jsonb) is
  'Whether two states of a row of evidence say the same, and differ in nothing but ciphertext of persons whose key this transaction renews. Error: PR404.';

create or replace function gdpr_internal.renew_evidence(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set debug_print_plan = off
as $function$
declare
  v_kek bytea := (gdpr_internal.keyring()).kek;
  v_rings bytea[];
begin
  -- the same order as p_subjects: unnested side by side below
  select array_agg(gdpr_internal.unwrap_key(v_kek, int8send(k.subject_id), k.wrapped) order by s.n)
  into v_rings
  from unnest(p_subjects) with ordinality as s (id, n)
  join gdpr_internal.subject_key as k on k.subject_id = s.id;
  update gdpr_internal.source as x set details = gdpr_internal.renewed_value(r.ring, r.id, x.details)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id and x.details is not null;
  update gdpr_internal.basis_record as x set evidence = gdpr_internal.renewed_value(r.ring, r.id, x.evidence)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id and x.evidence is not null;
  update gdpr_internal.consent_record as x set evidence = gdpr_internal.renewed_value(r.ring, r.id, x.evidence)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id and x.evidence is not null;
  update gdpr_internal.request as x set details = gdpr_internal.renewed_value(r.ring, r.id, x.details)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id and x.details is not null;
  -- whose request it is may have turned out later: the header says whose key it is
  update gdpr_internal.request_event as x set details = gdpr_internal.renewed_value(r.ring, r.id, x.details)
  from unnest(p_subjects, v_rings) as r (id, ring)
  where x.request_id in (
    select q.id from gdpr_internal.request as q where q.subject_id = any (p_subjects)
    union all
    select e.request_id from gdpr_internal.request_event as e where e.subject_id = any (p_subjects)
  ) and x.details is not null and gdpr_internal.value_subject(x.details) = r.id;
  update gdpr_internal.rectification as x set content = gdpr_internal.renewed_value(r.ring, r.id, x.content)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id;
  update gdpr_internal.rectification_record as x set
    content = gdpr_internal.renewed_value(r.ring, r.id, x.content),
    reason = case when starts_with(x.reason, 'gdpr1:') then gdpr_internal.renewed_value(r.ring, r.id, x.reason) else x.reason end
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id;
  update gdpr_internal.restriction_exception as x set details = gdpr_internal.renewed_value(r.ring, r.id, x.details)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id and x.details is not null;
  update gdpr_internal.restriction_end as x set reason = gdpr_internal.renewed_value(r.ring, r.id, x.reason)
  from unnest(p_subjects, v_rings) as r (id, ring)
  join gdpr_internal.restriction_record as o on o.subject_id = r.id
  where x.restriction_id = o.id and starts_with(x.reason, 'gdpr1:');
  update gdpr_internal.restriction_exception_end as x set reason = gdpr_internal.renewed_value(r.ring, r.id, x.reason)
  from unnest(p_subjects, v_rings) as r (id, ring)
  join gdpr_internal.restriction_exception as o on o.subject_id = r.id
  where x.exception_id = o.id and starts_with(x.reason, 'gdpr1:');
  update gdpr_internal.hold_end as x set reason = gdpr_internal.renewed_value(r.ring, r.id, x.reason)
  from unnest(p_subjects, v_rings) as r (id, ring)
  join gdpr_internal.hold as o on o.subject_id = r.id
  where x.hold_id = o.id and starts_with(x.reason, 'gdpr1:');
  update gdpr_internal.rectification_decision as x set reason = gdpr_internal.renewed_value(r.ring, r.id, x.reason)
  from unnest(p_subjects, v_rings) as r (id, ring)
  join gdpr_internal.rectification as o on o.subject_id = r.id
  where x.rectification_id = o.id and starts_with(x.reason, 'gdpr1:');
  update gdpr_internal.objection_record as x set details = gdpr_internal.renewed_value(r.ring, r.id, x.details)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id and x.details is not null;
  update gdpr_internal.objection_decision as x set details = gdpr_internal.renewed_value(r.ring, r.id, x.details)
  from unnest(p_subjects, v_rings) as r (id, ring)
  join gdpr_internal.objection_record as o on o.subject_id = r.id
  where x.objection_id = o.id and x.details is not null;
  update gdpr_internal.lifting_notice as x set evidence = gdpr_internal.renewed_value(r.ring, r.id, x.evidence)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id and x.evidence is not null;
  update gdpr_internal.disclosure_person as x set reference = gdpr_internal.renewed_value(r.ring, r.id, x.reference)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id and x.reference is not null;
  update gdpr_internal.outbox as x set message = gdpr_internal.renewed_value(r.ring, r.id, x.message)
  from unnest(p_subjects, v_rings) as r (id, ring) where x.subject_id = r.id;
end
$function$;
comment on function gdpr_internal.renew_evidence(bigint[]) is
  'Encrypts evidence and mails of persons anew: all that stands in gdprdb''s own tables under their key, but for the audit log. Error: PR404 a value is damaged.';

set local role gdpr_owner;

create or replace function gdpr_internal.renew_rows(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := gdpr_internal.before_worker();
begin
  perform gdpr_generated.renew_rows(p_subjects);
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr_internal.renew_rows(bigint[]) is 'Writes the rows of persons anew, under their new keys, in every protected table.';

set local role gdpr_keyholder;

create or replace function gdpr_internal.renew_persons(p_subjects bigint[])
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
  v_subjects bigint[];
  v_kept_since timestamptz := gdpr_internal.dropped_before()::timestamp at time zone 'UTC';
  v_too_long bigint;
begin
  -- who is writing a row of somebody holds a share lock on the person: that one comes later; who comes now waits
  v_subjects := array(
    select s.id from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for no key update skip locked
  );
  perform from gdpr_internal.subject_key as k where k.subject_id = any (v_subjects) order by k.subject_id for update;
  -- now, and not before: while one waits, a rotation may have ended, and another begun and wrapped these anew
  v_keys := gdpr_internal.keyring();
  -- a version of its own: sessions with an older snapshot have to fail here, they would use the key that they see
  update gdpr_internal.subject as s set ref = s.ref where s.id = any (v_subjects);
  with batch as materialized (
    select k.subject_id, k.created_at, gdpr_internal.unwrap_key(v_keys.kek, int8send(k.subject_id), k.wrapped) as ring
    from gdpr_internal.subject_key as k
    where k.subject_id = any (v_subjects)
  ), renewed as (
    update gdpr_internal.subject_key as k
    set kek_id = v_keys.kek_id,
      wrapped = gdpr_internal.wrap_key(
        v_keys.kek, gdpr_internal.gen_random_bytes(16), int8send(b.subject_id),
        gdpr_internal.renewed_ring(b.ring, b.created_at, gdpr_internal.gen_random_bytes(64))
      ),
      created_at = statement_timestamp(),
      renewing_xid = pg_current_xact_id()
    from batch as b
    where k.subject_id = b.subject_id
    returning k.subject_id, length(k.wrapped) as size
  )
  select array_agg(r.subject_id order by r.subject_id), min(r.subject_id) filter (where r.size > 7600)
  into v_subjects, v_too_long
  from renewed as r;
  if v_too_long is not null then
    -- a page holds no more
    perform gdpr_internal.refuse('invalid_argument', format(
      'the data key of person %s was renewed more often than can be kept: drop months of the audit log first', v_too_long
    ));
  elsif v_subjects is not null then
    perform set_config('gdpr.renewing', 'on', true);
    perform gdpr_internal.renew_rows(v_subjects);
    perform gdpr_internal.renew_evidence(v_subjects);
    perform set_config('gdpr.renewing', '', true);
    -- now that nothing else is under them: keys of audit records that were dropped
    update gdpr_internal.subject_key as k
    set wrapped = gdpr_internal.wrap_key(v_keys.kek, gdpr_internal.gen_random_bytes(16), int8send(k.subject_id), p.pruned)
    from gdpr_internal.subject_key as o
    cross join lateral (select gdpr_internal.unwrap_key(v_keys.kek, int8send(o.subject_id), o.wrapped) as ring offset 0) as r
    cross join lateral (select gdpr_internal.pruned_ring(r.ring, v_kept_since) as pruned offset 0) as p
    where v_kept_since > '-infinity' and o.subject_id = any (v_subjects) and length(o.wrapped) > 48 + 2 * 80
      and k.subject_id = o.subject_id and length(p.pruned) < length(r.ring);
  end if;
  return coalesce(cardinality(v_subjects), 0);
end
$function$;
comment on function gdpr_internal.renew_persons(bigint[]) is
  'Gives persons a new data key and encrypts anew what is under the old one; returns how many. Persons of whom somebody is writing a row are left out.';

create or replace function gdpr.renew_key(p_subject bigint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  perform gdpr_internal.require_read_committed();
  -- here one waits for whoever is writing
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  if not found then
    perform gdpr_internal.refuse('unknown_subject');
  elsif gdpr_internal.renew_persons(array[p_subject]) = 0 then
    perform gdpr_internal.refuse(case
      when exists (select from gdpr_internal.subject as s where s.id = p_subject and s.erased_at is not null) then 'erased' else 'data_key_missing'
    end);
  end if;
  perform gdpr_internal.audit_event('KEY', p_subject, '{"renewed": 1}');
end
$function$;
comment on function gdpr.renew_key(bigint) is
  'Gives a person a new data key and encrypts anew, in this transaction, every value that is under the old one: rows, evidence, mails. Old values in the audit log stay as they were sealed, and readable: the old key is kept for them, beside the new one, until erasure destroys both. Errors: PR101 unknown person, PR603 erased, PR402, PR404 a value is damaged, PR410, PR004 too often, PR005 not at READ COMMITTED. Art. 32(1)(a).';

create or replace function gdpr_internal.renew_batch(p_subjects bigint[])
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint;
  v_done bigint := 0;
begin
  begin
    return gdpr_internal.renew_persons(p_subjects);
  exception when others then
    perform gdpr_internal.keyring();
  end;
  -- one of them stands in the way of the others: somebody writes its rows, a value is damaged, a trigger refuses
  foreach v_subject in array p_subjects loop
    begin
      v_done := v_done + gdpr_internal.renew_persons(array[v_subject]);
    exception
      when lock_not_available or deadlock_detected then
        null;
      when others then
        -- its words could be those of the application, with a value in them
        raise warning using
          message = format('the data key of person %s is not renewed: SQLSTATE %s', v_subject, sqlstate), errcode = '01000',
          hint = 'gdpr.renew_key() of this person gives the error.';
    end;
  end loop;
  return v_done;
end
$function$;
comment on function gdpr_internal.renew_batch(bigint[]) is
  'Renews persons together, or one by one where somebody stands in the way; who cannot be renewed keeps the key, with a warning unless it is only a lock.';

create or replace function gdpr.renew_keys(p_limit integer default 500, p_made_before timestamptz default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
-- rather this gives up than an application: less than deadlock_timeout
set lock_timeout = '500ms'
set jit = off
set debug_print_plan = off
as $function$
declare
  v_renewal gdpr_internal.key_renewal;
  v_subjects bigint[];
  v_done bigint;
begin
  perform gdpr_internal.require_read_committed();
  if coalesce(p_limit < 1, true) then
    perform gdpr_internal.refuse('invalid_argument', 'the limit is a positive number');
  elsif p_made_before > statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'keys that are older than a time in the future are never all renewed');
  end if;
  perform gdpr_internal.keyring();
  -- a second caller waits and goes on where the first one came to
  perform pg_advisory_xact_lock(hashtextextended('gdpr.renew_keys', 0));
  select * into v_renewal from gdpr_internal.key_renewal as r where r.finished_at is null;
  if v_renewal.id is null then
    insert into gdpr_internal.key_renewal (made_before, persons)
    select t.made_before, (select count(*) from gdpr_internal.subject_key as k where k.created_at < t.made_before)
    from (select coalesce(p_made_before, statement_timestamp())) as t (made_before)
    returning * into v_renewal;
    perform gdpr_internal.audit_event('KEY', null, jsonb_build_object('renewing', v_renewal.persons, 'made_before', v_renewal.made_before));
  elsif p_made_before <> v_renewal.made_before then
    perform gdpr_internal.refuse('renewal_open', format('of keys made before %s', v_renewal.made_before));
  end if;
  v_subjects := array(
    select k.subject_id from gdpr_internal.subject_key as k
    where k.subject_id > v_renewal.renewed_to and k.created_at < v_renewal.made_before
    order by k.subject_id
    limit p_limit
  );
  if v_subjects <> '{}' then
    v_done := gdpr_internal.renew_batch(v_subjects);
    update gdpr_internal.key_renewal as r
    set renewed = r.renewed + v_done, renewed_to = v_subjects[cardinality(v_subjects)]
    where r.id = v_renewal.id;
    -- a batch may find all of its persons locked: the next one goes on
    return greatest(v_done, 1);
  end if;
  -- the end is reached: now those who were left out
  v_subjects := array(
    select k.subject_id from gdpr_internal.subject_key as k where k.created_at < v_renewal.made_before order by k.subject_id limit p_limit
  );
  v_done := case when v_subjects = '{}' then 0 else gdpr_internal.renew_batch(v_subjects) end;
  update gdpr_internal.key_renewal as r
  set renewed = r.renewed + v_done, finished_at = case when v_subjects = '{}' then clock_timestamp() end
  where r.id = v_renewal.id;
  if v_subjects = '{}' then
    perform gdpr_internal.audit_event('KEY', null, jsonb_build_object('renewed', v_renewal.renewed));
  end if;
  return v_done;
end
$function$;
comment on function gdpr.renew_keys(integer, timestamptz) is
  'Gives up to p_limit persons a new data key, each as gdpr.renew_key() does; call it, each time in a transaction of its own, until it returns 0. p_made_before: whose key is older than that (without it: all that there are at the first call). What the first call began, later ones go on with, whoever calls them and after whatever crash; gdpr.key_renewal shows how far it is. Persons of whom somebody is writing at this moment come last; where one cannot be renewed, a warning says so and the renewal stays open. Errors: PR418 another renewal is going on, PR402, PR004, PR005 not at READ COMMITTED. Art. 32(1)(a).';

create or replace view gdpr.key_renewal as
select
  r.id,
  r.made_before,
  r.started_at,
  r.persons,
  r.renewed,
  case when r.finished_at is null
    then (select count(*) from gdpr_internal.subject_key as k where k.created_at < r.made_before) else 0 end as remaining,
  r.finished_at
from gdpr_internal.key_renewal as r;
comment on view gdpr.key_renewal is
  'Renewals of data keys and how far they are: of persons whose key was made before made_before, how many there were, how many have a new one, how many are still to come. Who was erased meanwhile is in neither.';
