-- [code] Objection: direct marketing ends at once and for good, other purposes are closed until somebody has decided.
-- GDPR Art. 21, Art. 18(1)(d). Called by: gdpr_dpo, the portal.

set local role gdpr_owner;

create or replace function gdpr_internal.is_weighed(p_subject bigint, p_purpose gdpr_internal.purpose)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select not (p_purpose).direct_marketing and (
    coalesce((p_purpose).basis in ('legitimate_interests', 'public_task'), false)
    or exists (
      select from gdpr_internal.held_basis as b
      where b.subject_id = p_subject and b.purpose_id = (p_purpose).id and b.basis in ('legitimate_interests', 'public_task')
        and b.valid_until > statement_timestamp()
    )
  );
end;
comment on function gdpr_internal.is_weighed(bigint, gdpr_internal.purpose) is
  'Whether an objection of this person to this purpose is decided about: it rests on legitimate interests or a public task, and is no direct marketing. Art. 21(1).';

create or replace function gdpr_internal.require_objectionable(p_subject bigint, p_purpose text)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose gdpr_internal.purpose;
begin
  select * into strict v_purpose from gdpr_internal.purpose as p where p.id = gdpr_internal.purpose_id(p_purpose);
  if v_purpose.id < 62 and not v_purpose.direct_marketing and v_purpose.basis <> 'consent'
    and not gdpr_internal.is_weighed(p_subject, v_purpose)
  then
    perform gdpr_internal.refuse('not_open_to_objection', format('purpose %s rests on %s', p_purpose, v_purpose.basis));
  end if;
end
$function$;
comment on function gdpr_internal.require_objectionable(bigint, text) is
  'What a person can object to alone: a purpose that the law opens to objection, or that rests on consent. Errors: PR003, PR614. Art. 21.';

create or replace function gdpr.object_to(p_subject bigint, p_purpose text, p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose gdpr_internal.purpose;
  v_weighed boolean;
  v_request bigint;
begin
  perform gdpr_internal.require_read_committed();
  select * into strict v_purpose from gdpr_internal.purpose as p where p.id = gdpr_internal.purpose_id(p_purpose);
  perform gdpr_internal.require_subject(p_subject);
  if v_purpose.id >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  end if;
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  v_weighed := gdpr_internal.is_weighed(p_subject, v_purpose);
  v_request := gdpr_internal.note_request(
    p_subject, case when v_weighed then 'objection_pending' else 'objection' end, jsonb_build_object('purpose', p_purpose)
  );
  if exists (
    select from gdpr_internal.standing_objection as o where o.subject_id = p_subject and o.purpose_id = v_purpose.id
  ) then
    return;
  end if;
  insert into gdpr_internal.objection_record (subject_id, purpose_id, pending, request_id, details)
  values (
    p_subject, v_purpose.id, v_weighed, v_request, gdpr_internal.seal_evidence(p_subject, p_details::text)
  );
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.audit_event('OBJECT', p_subject, jsonb_build_object('purpose', p_purpose));
end
$function$;
comment on function gdpr.object_to(bigint, text, jsonb) is
  'Records a person''s objection to a purpose; from the next statement on it is closed, whatever basis it had: until gdpr.decide_objection() where it rests, for everybody or for this person, on legitimate interests or a public task; for good where it is direct marketing (direct_marketing = true in the policy) or rests on consent; and where it rests on anything else, because an officer chose to honour it: no article asks for that. Repeated, it changes nothing. p_details: the person''s reasons, kept encrypted. Errors: PR101, PR603, PR003, PR004, PR005; PR607, PR608, PR609 for the request that the context names. Art. 21(1), 21(2), 21(3), 18(1)(d).';

create or replace function gdpr.decide_objection(
  p_subject bigint, p_purpose text, p_decision text, p_ground text default null, p_details jsonb default null
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
  v_objection gdpr_internal.standing_objection;
begin
  perform gdpr_internal.require_read_committed();
  perform gdpr_internal.require_subject(p_subject);
  if p_decision is null or p_decision not in ('upheld', 'overridden', 'taken_back') then
    perform gdpr_internal.refuse('invalid_argument', 'decision is upheld, overridden or taken_back');
  elsif (p_decision = 'overridden') <> (p_ground is not null)
    or p_ground not in ('compelling_grounds', 'legal_claims', 'public_interest_task')
  then
    perform gdpr_internal.refuse('invalid_argument', 'what overrides is one of compelling_grounds, legal_claims, public_interest_task, and nothing else has a ground');
  elsif p_decision <> 'upheld' and coalesce(p_details, '{}') = '{}' then
    perform gdpr_internal.refuse('invalid_argument', 'details show the grounds that override, or how the person took it back');
  end if;
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  select * into v_objection from gdpr_internal.standing_objection as o where o.subject_id = p_subject and o.purpose_id = v_purpose;
  if v_objection.id is null then
    perform gdpr_internal.refuse('no_objection');
  elsif p_decision <> 'taken_back' and (
    not v_objection.pending or exists (select from gdpr_internal.objection_decision as d where d.objection_id = v_objection.id)
  ) then
    perform gdpr_internal.refuse('no_objection', 'it stands, and is not to be decided about');
  elsif p_decision = 'overridden' and not exists (
    select from gdpr_internal.liftable as l where l.objection_id = v_objection.id and l.announced
  ) then
    perform gdpr_internal.refuse('lifting_not_announced');
  end if;
  insert into gdpr_internal.objection_decision (objection_id, decision, ground, details, actor)
  values (
    v_objection.id, p_decision, p_ground, gdpr_internal.seal_evidence(p_subject, p_details::text), gdpr_internal.context_setting('actor')
  );
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.audit_event('DECIDE', p_subject, jsonb_strip_nulls(jsonb_build_object(
    'objection_id', v_objection.id, 'purpose', p_purpose, 'decision', p_decision, 'ground', p_ground
  )));
  perform gdpr_internal.note_request(p_subject, 'objection', jsonb_strip_nulls(jsonb_build_object(
    'purpose', p_purpose, 'decision', p_decision, 'ground', p_ground
  )));
end
$function$;
comment on function gdpr.decide_objection(bigint, text, text, text, jsonb) is
  'Decides about an objection. p_decision: upheld (the purpose stays closed), overridden (it opens again; the person has to have been told by gdpr.announce_lifting()), taken_back (by the person; also one to direct marketing). p_ground of overridden: compelling_grounds, legal_claims (Art. 21(1)), public_interest_task (statistics and research, Art. 21(6)). p_details: which, or how it was taken back; required unless upheld, kept encrypted. Errors: PR003, PR004, PR005, PR101, PR603, PR612 the person was not told, PR615 no objection to decide about; PR607, PR608, PR609 for the request that the context names. Art. 21(1), 21(6), 18(3).';

create or replace view gdpr.objection as
select
  o.id as objection_id,
  o.subject_id,
  p.name as purpose,
  coalesce(d.decision, case when o.pending then 'pending' else 'upheld' end) as status,
  d.ground,
  o.request_id,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(o.subject_id, o.details)::jsonb end as details,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(o.subject_id, d.details)::jsonb end as decision_details,
  exists (select from gdpr_internal.lifting_notice as n where n.objection_id = o.id) as lifting_announced,
  o.recorded_at,
  o.recorded_by,
  d.decided_at,
  d.recorded_by as decided_by
from gdpr_internal.objection_record as o
join gdpr_internal.purpose as p on p.id = o.purpose_id
left join lateral (
  select x.* from gdpr_internal.objection_decision as x where x.objection_id = o.id order by x.id desc limit 1
) as d on true;
comment on view gdpr.objection is
  'Objections. status: pending (closed until decided), upheld (closed), overridden, taken_back (open again). details of the person and of the decision are shown to gdpr_dpo, until the person is erased. Art. 21.';
