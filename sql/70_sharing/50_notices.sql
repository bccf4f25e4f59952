-- [code] Notices to recipients: what was rectified, erased or restricted here has to be so there.
-- GDPR Art. 19. Queued by whatever rectifies, erases or restricts; sent by gdprdb outbox send or by hand, settled by gdpr_dpo.
-- What a notice says is sealed under a key of its own: the recipient still has to know whom it is about when here nobody can.

set local role gdpr_keyholder;

create or replace function gdpr_internal.seal_notice(
  p_notice bigint, p_head jsonb, p_language text, p_subjects bigint[], p_refs uuid[], p_sealed text[]
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea := gdpr_internal.gen_random_bytes(64);
  v_wrapped bytea;
  v_message jsonb;
  v_content text;
begin
  select p_head || jsonb_build_object('references', jsonb_agg(distinct coalesce(gdpr_internal.open_evidence(r.subject_id, r.sealed), r.ref::text)))
  into v_message
  from unnest(p_subjects, p_refs, p_sealed) as r (subject_id, ref, sealed);
  v_wrapped := gdpr_internal.wrap_key(
    (gdpr_internal.keyring()).kek, gdpr_internal.gen_random_bytes(16), 'notice'::bytea || int8send(p_notice), v_key
  );
  v_content := gdpr_internal.seal_value(v_key, gdpr_internal.gen_random_bytes(16), -p_notice, 0, v_message::text);
  insert into gdpr_internal.notice_key (notice_id, wrapped) values (p_notice, v_wrapped);
  insert into gdpr_internal.notice_content (notice_id, message) values (p_notice, v_content);
  if p_head ? 'to' then
    perform gdpr_internal.check_mail('notice', p_language, v_message);
    insert into gdpr_internal.outbox (notice_id, template, language, message, due_at)
    values (p_notice, 'notice', p_language, v_content, statement_timestamp());
    perform pg_notify('gdpr_outbox', '');
  end if;
end
$function$;
comment on function gdpr_internal.seal_notice(bigint, jsonb, text, bigint[], uuid[], text[]) is
  'Seals what a notice says: p_head ({"recipient", "event", ...; "to": it leaves by mail}) and, of each person, the agreed reference (p_sealed, under the person''s key) or the pseudonym. Errors: PR402.';

create or replace function gdpr_internal.notice_secret(p_notice bigint)
returns bytea
language plpgsql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_wrapped bytea;
begin
  select k.wrapped into v_wrapped from gdpr_internal.notice_key as k where k.notice_id = p_notice;
  return case when v_wrapped is not null
    then gdpr_internal.unwrap_key((gdpr_internal.keyring()).kek, 'notice'::bytea || int8send(p_notice), v_wrapped) end;
end
$function$;
comment on function gdpr_internal.notice_secret(bigint) is 'The key of a notice, checked; null when it is gone.';

create or replace function gdpr_internal.open_notice(p_notice bigint)
returns jsonb
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  return (
    select gdpr_internal.open_value(gdpr_internal.notice_secret(p_notice), -p_notice, 0, c.message)::jsonb
    from gdpr_internal.notice_content as c where c.notice_id = p_notice
  );
end
$function$;
comment on function gdpr_internal.open_notice(bigint) is 'What a notice says; null once it was sent.';

create or replace function gdpr_internal.forget_notice(p_notice bigint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.notice_key as k where k.notice_id = p_notice;
  delete from gdpr_internal.notice_content as c where c.notice_id = p_notice;
end
$function$;
comment on function gdpr_internal.forget_notice(bigint) is 'Deletes what a notice said, and its key.';

set local role gdpr_owner;

create or replace function gdpr_internal.queue_notices(p_subjects bigint[], p_event text, p_details jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
-- planned while the evidence was small and run when it has grown
set enable_seqscan = off
set jit = off
as $function$
declare
  v_chunk record;
  v_notice bigint;
  v_persons bigint[];
  v_queued bigint := 0;
begin
  if p_event is null or p_event <> all (array['rectification', 'erasure', 'restriction']) then
    perform gdpr_internal.refuse('invalid_argument', 'event is one of rectification, erasure, restriction');
  end if;
  for v_chunk in
    with told as (
      select distinct d.recipient_id, p.subject_id, p.reference
      from gdpr_internal.disclosure_person as p
      join gdpr_internal.disclosure_record as d on d.id = p.disclosure_id
      where p.subject_id = any (p_subjects)
    ),
    numbered as (
      -- a mail that names all persons of a large batch could not be sent: so many in one
      select t.recipient_id, t.subject_id, t.reference, s.ref, (dense_rank() over (partition by t.recipient_id order by t.subject_id) - 1) / 500 as n
      from told as t
      join gdpr_internal.subject as s on s.id = t.subject_id
    )
    select r.recipient_id, r.name, r.address, r.language, array_agg(x.subject_id) as subjects, array_agg(x.ref) as refs, array_agg(x.reference) as sealed
    from numbered as x
    join gdpr_internal.recipient_now as r on r.recipient_id = x.recipient_id
    group by r.recipient_id, r.name, r.address, r.language, x.n
    order by r.recipient_id, x.n
  loop
    v_notice := nextval('gdpr_internal.notice_record_id_seq');
    v_persons := array(select distinct u from unnest(v_chunk.subjects) as u);
    insert into gdpr_internal.notice_record (id, recipient_id, event, details, persons)
    values (v_notice, v_chunk.recipient_id, p_event, p_details, cardinality(v_persons));
    insert into gdpr_internal.notice_person (subject_id, notice_id) select u, v_notice from unnest(v_persons) as u;
    perform gdpr_internal.seal_notice(
      v_notice,
      jsonb_strip_nulls(jsonb_build_object(
        'notice', v_notice, 'recipient', v_chunk.name, 'event', p_event, 'columns', p_details -> 'columns', 'to', v_chunk.address
      )),
      v_chunk.language, v_chunk.subjects, v_chunk.refs, v_chunk.sealed
    );
    v_queued := v_queued + 1;
  end loop;
  return v_queued;
end
$function$;
comment on function gdpr_internal.queue_notices(bigint[], text, jsonb) is
  'A notice to each recipient to whom data of these persons were disclosed, 500 persons in one at the most; returns how many. p_event: rectification, erasure, restriction. p_details: what was changed, {"columns": [names], ...}, no values. An erasure calls it while it holds the persons'' rows and before pseudonyms are replaced and keys destroyed: the recipient knows the persons by those. Errors: PR004, PR402 key locked (only where there is somebody to tell). Art. 19.';

create or replace function gdpr_internal.notices_of(p_subjects bigint[])
returns table (subject_id bigint, notices jsonb)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
-- as above
set enable_seqscan = off
set jit = off
as $function$
#variable_conflict use_column
begin
  return query
  select t.subject_id, jsonb_agg(
    jsonb_build_object('recipient', r.name, 'delivery', case when r.address is null then 'by hand' else 'mail' end) order by r.name
  )
  from (
    select distinct p.subject_id, d.recipient_id
    from gdpr_internal.disclosure_person as p
    join gdpr_internal.disclosure_record as d on d.id = p.disclosure_id
    where p.subject_id = any (p_subjects)
  ) as t
  join gdpr_internal.recipient_now as r on r.recipient_id = t.recipient_id
  group by t.subject_id;
end
$function$;
comment on function gdpr_internal.notices_of(bigint[]) is
  'The recipients whom queue_notices() tells about persons, and how: by mail, or by hand where there is no address. Art. 19.';

create or replace view gdpr.notice as
select
  n.id as notice_id,
  r.name as recipient,
  n.event,
  n.details,
  n.persons,
  coalesce(e.event, 'due') as state,
  case when e.event is null then coalesce(o.state, 'by hand') end as delivery,
  n.queued_at,
  e.recorded_at as settled_at,
  e.channel,
  e.reason,
  e.recorded_by as settled_by
from gdpr_internal.notice_record as n
join gdpr_internal.recipient_now as r on r.recipient_id = n.recipient_id
left join lateral (
  select x.event, x.channel, x.reason, x.recorded_at, x.recorded_by
  from gdpr_internal.notice_event as x where x.notice_id = n.id order by x.id desc limit 1
) as e on true
left join gdpr.outbox as o on o.notice_id = n.id;
comment on view gdpr.notice is
  'Notices to recipients. state: due, sent, confirmed by the recipient, impossible. delivery of those due: the state of the mail, or by hand where the recipient has no address or the mail was dropped. settled_at, channel, reason: of the last step. Art. 19.';

create or replace view gdpr.notice_due as
select n.notice_id, n.recipient, n.event, n.details, n.persons, n.delivery, n.queued_at
from gdpr.notice as n
where n.state = 'due';
comment on view gdpr.notice_due is 'Notices that recipients have not got yet: gdpr.open_notice() shows what to tell, gdpr.notice_sent() settles. Art. 19.';

create or replace function gdpr_internal.settle_notice(p_notice bigint, p_event text, p_channel text, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text;
begin
  perform from gdpr_internal.notice_record as n where n.id = p_notice for update;
  if not found then
    perform gdpr_internal.refuse('notice_settled');
  end if;
  select e.event into v_before from gdpr_internal.notice_event as e where e.notice_id = p_notice order by e.id desc limit 1;
  if v_before is not null and not (v_before = 'sent' and p_event = 'confirmed') then
    perform gdpr_internal.refuse('notice_settled');
  end if;
  insert into gdpr_internal.notice_event (notice_id, event, channel, reason) values (p_notice, p_event, p_channel, p_reason);
  perform gdpr_internal.audit_event('NOTICE', null, jsonb_build_object('notice', p_notice, 'event', p_event));
  perform gdpr_internal.forget_notice(p_notice);
  perform gdpr_internal.cancel_mails(array(select o.id from gdpr_internal.outbox as o where o.notice_id = p_notice), 'settled otherwise');
end
$function$;
comment on function gdpr_internal.settle_notice(bigint, text, text, text) is
  'A notice was sent, confirmed, or cannot be: on record, and what it said is deleted. Error: PR704 there is none that is due (or, to be confirmed, sent).';

create or replace function gdpr.open_notice(p_notice bigint)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_message jsonb := gdpr_internal.open_notice(p_notice);
begin
  if v_message is null then
    perform gdpr_internal.refuse('notice_settled');
  end if;
  perform gdpr_internal.audit_event('NOTICE', null, jsonb_build_object('notice', p_notice, 'opened', true));
  return v_message;
end
$function$;
comment on function gdpr.open_notice(bigint) is
  'What a due notice says, to be told by other means than mail: {"notice", "recipient", "event", "columns", "references": by which the recipient knows the persons}. On record. Errors: PR704 not due, PR402 key locked. Art. 19.';

create or replace function gdpr.notice_sent(p_notice bigint, p_channel text, p_reason text default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if coalesce(p_channel, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a channel is needed, as phone or post');
  end if;
  perform gdpr_internal.settle_notice(p_notice, 'sent', p_channel, p_reason);
end
$function$;
comment on function gdpr.notice_sent(bigint, text, text) is
  'A recipient was told by other means than the mail of the outbox: on record, what the notice said is deleted, a mail that waits is dropped. No personal data in p_reason. Errors: PR704, PR004. Art. 19.';

create or replace function gdpr.confirm_notice(p_notice bigint, p_reason text default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.settle_notice(p_notice, 'confirmed', null, p_reason);
end
$function$;
comment on function gdpr.confirm_notice(bigint, text) is
  'A recipient said that it has done what the notice told, or that it has nothing (p_reason, without personal data). Error: PR704. Art. 19, 28(3)(h).';

create or replace function gdpr.notice_impossible(p_notice bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  perform gdpr_internal.settle_notice(p_notice, 'impossible', null, p_reason);
end
$function$;
comment on function gdpr.notice_impossible(bigint, text) is
  'Telling a recipient proves impossible or needs a disproportionate effort: why, on record (no personal data in p_reason). Errors: PR704, PR004. Art. 19.';
