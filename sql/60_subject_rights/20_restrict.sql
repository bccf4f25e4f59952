-- [code] Restriction of processing: what is stored and no more, until the person was told that it ends.
-- GDPR Art. 18. Called by: gdpr_dpo.

set local role gdpr_owner;

create or replace function gdpr_internal.restriction_grounds()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['accuracy_contested', 'unlawful_processing', 'legal_claims', 'objection_pending', 'other'];
end;
comment on function gdpr_internal.restriction_grounds() is
  'Why processing is restricted: the grounds of Art. 18(1)(a) to (d), by which the person obtains it, and other, the controller''s own caution.';

create or replace function gdpr.restrict(p_subject bigint, p_ground text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id bigint;
begin
  perform gdpr_internal.require_read_committed();
  perform gdpr_internal.require_subject(p_subject);
  if p_ground is null or p_ground <> all (gdpr_internal.restriction_grounds()) then
    perform gdpr_internal.refuse('invalid_argument', 'ground is one of ' || array_to_string(gdpr_internal.restriction_grounds(), ', '));
  end if;
  insert into gdpr_internal.restriction_record (subject_id, ground) values (p_subject, p_ground) returning id into v_id;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.queue_notices(array[p_subject], 'restriction');
  perform gdpr_internal.audit_event('RESTRICT', p_subject, jsonb_build_object('restriction_id', v_id, 'ground', p_ground));
  perform gdpr_internal.note_request(p_subject, 'restriction', jsonb_build_object('restriction_id', v_id));
  return v_id;
end
$function$;
comment on function gdpr.restrict(bigint, text) is
  'Restricts processing of a person''s data: hidden for every purpose but compliance, with the next statement. Grounds: accuracy_contested, unlawful_processing, legal_claims, objection_pending (Art. 18(1)(a) to (d)), or other, the controller''s own caution. Returns its number. Errors: PR101, PR603, PR004, PR005; PR607, PR608, PR609 for the request that the context names. Art. 18(1).';

create or replace view gdpr_internal.liftable as
select
  r.subject_id,
  r.id as restriction_id,
  null::bigint as objection_id,
  r.ground = 'other' or exists (select from gdpr_internal.lifting_notice as n where n.restriction_id = r.id) as announced
from gdpr_internal.restriction_record as r
where not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = r.id)
union all
select
  o.subject_id,
  null,
  o.id,
  exists (select from gdpr_internal.lifting_notice as n where n.objection_id = o.id)
from gdpr_internal.standing_objection as o
where o.pending and not exists (select from gdpr_internal.objection_decision as d where d.objection_id = o.id);
comment on view gdpr_internal.liftable is
  'Restrictions that hold and objections that are examined, and whether the person was told that they will end. Who did not obtain the restriction (ground other) need not be told.';

create or replace function gdpr.announce_lifting(p_subject bigint, p_channel text default 'email', p_evidence jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_mail bigint;
  v_contact record;
begin
  perform gdpr_internal.require_subject(p_subject);
  if p_channel is null or p_channel not in ('email', 'post', 'phone', 'in_person') then
    perform gdpr_internal.refuse('invalid_argument', 'channel is one of email, post, phone, in_person');
  elsif p_channel <> 'email' and exists (
    select from unnest(array['who', 'when', 'how', 'reference']) as k where coalesce(btrim(p_evidence ->> k), '') = ''
  ) then
    perform gdpr_internal.refuse('evidence_missing');
  end if;
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  if not exists (select from gdpr_internal.liftable as l where l.subject_id = p_subject) then
    return 0;
  end if;
  if p_channel = 'email' then
    select c.email, c.language into v_contact from gdpr_internal.contacts(array[p_subject]) as c;
    if v_contact.email is null then
      perform gdpr_internal.refuse('no_address');
    end if;
    v_mail := gdpr_internal.queue_mail(
      p_subject, 'rights_lifting', substring((gdpr_internal.language_chain(coalesce(v_contact.language, '')))[2] from '^[a-z]{2,3}$'),
      jsonb_build_object('to', v_contact.email, 'controller', (select s.value from gdpr_internal.setting as s where s.name = 'controller'))
    );
  end if;
  insert into gdpr_internal.lifting_notice (subject_id, restriction_id, objection_id, channel, mail_id, evidence, actor)
  select
    p_subject, l.restriction_id, l.objection_id, p_channel, v_mail, gdpr_internal.seal_evidence(p_subject, p_evidence::text),
    gdpr_internal.context_setting('actor')
  from gdpr_internal.liftable as l
  where l.subject_id = p_subject;
  perform gdpr_internal.audit_event('ANNOUNCE', p_subject, jsonb_strip_nulls(jsonb_build_object('channel', p_channel, 'mail_id', v_mail)));
  return (select count(*) from gdpr_internal.liftable as l where l.subject_id = p_subject);
end
$function$;
comment on function gdpr.announce_lifting(bigint, text, jsonb) is
  'Tells a person that restrictions of processing, and objections that are examined, are going to end; before that, nothing lifts them. p_channel email: queues the mail (template rights_lifting) to the address in the tables; post, phone, in_person: p_evidence {"who", "when", "how", "reference"} says how they were told, kept encrypted. Returns how many restrictions and objections it is about. Errors: PR101, PR603, PR004, PR304 evidence is missing, PR306 no address, PR402. Art. 18(3).';

create or replace function gdpr.lift_restriction(p_subject bigint, p_reason text)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_lifted integer;
begin
  perform gdpr_internal.require_subject(p_subject);
  if p_reason is null then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  -- a restriction that another session adds meanwhile is seen, and was not announced
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  if exists (
    select from gdpr_internal.liftable as l where l.subject_id = p_subject and l.restriction_id is not null and not l.announced
  ) then
    if not exists (select from gdpr_internal.contacts(array[p_subject]) as c where c.email is not null) then
      perform gdpr_internal.refuse('lifting_not_announced');
    end if;
    perform gdpr.announce_lifting(p_subject);
  end if;
  insert into gdpr_internal.restriction_end (restriction_id, reason)
  select r.id, gdpr_internal.seal_evidence(p_subject, p_reason)
  from gdpr_internal.restriction_record as r
  where r.subject_id = p_subject
  on conflict (restriction_id) do nothing;
  get diagnostics v_lifted = row_count;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.audit_event('LIFT', p_subject, jsonb_build_object('restrictions', v_lifted));
  perform gdpr_internal.note_request(p_subject, 'restriction_lifted', jsonb_build_object('restrictions', v_lifted));
  return v_lifted;
end
$function$;
comment on function gdpr.lift_restriction(bigint, text) is
  'Lifts every restriction of a person and returns how many. p_reason: kept encrypted under the person''s key. Who obtained it is told before: by gdpr.announce_lifting() or, where nobody did that, by the mail that this queues itself; without an address somebody has to tell the person and say how. The controller''s own (ground other) ends without. Errors: PR101, PR603, PR004, PR612 the person was not told and has no address; PR607, PR608, PR609 for the request that the context names. Art. 18(3).';
