-- [code] Exceptions from a restriction: one purpose, one ground, until a day, on record.
-- GDPR Art. 18(2). Called by: gdpr_dpo. The roles that the policy binds to the purpose see the person again; nobody else does.

set local role gdpr_owner;

create or replace function gdpr.except_from_restriction(
  p_subject bigint, p_purpose text, p_ground text, p_until timestamptz, p_details jsonb default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
  v_restricted_at timestamptz;
  v_id bigint;
begin
  perform gdpr_internal.require_read_committed();
  perform gdpr_internal.require_subject(p_subject);
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  if v_purpose >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  elsif p_ground is null or p_ground not in ('consent', 'legal_claims', 'rights_of_others', 'public_interest') then
    perform gdpr_internal.refuse('invalid_argument', 'ground is one of consent, legal_claims, rights_of_others, public_interest');
  elsif p_until is null or p_until <= statement_timestamp() or p_until = 'infinity' then
    perform gdpr_internal.refuse('invalid_argument', 'until is a time to come');
  elsif p_ground <> 'consent' and coalesce(p_details, '{}') = '{}' then
    perform gdpr_internal.refuse('invalid_argument', 'details say what claim, whose rights, or which interest it is for');
  end if;
  select max(r.recorded_at) into v_restricted_at
  from gdpr_internal.restriction_record as r
  where r.subject_id = p_subject and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = r.id);
  if v_restricted_at is null then
    perform gdpr_internal.refuse('exception_refused', 'the person is not restricted');
  elsif p_ground = 'consent' and not exists (
    select from gdpr_internal.consent_state as c
    where c.subject_id = p_subject and c.purpose_id = v_purpose and c.basis = 'consent' and c.status = 'granted' and c.recorded_at >= v_restricted_at
  ) then
    perform gdpr_internal.refuse('exception_refused', 'the person has not consented to this purpose since the restriction');
  end if;
  insert into gdpr_internal.restriction_exception (subject_id, purpose_id, ground, details, valid_until, actor)
  values (
    p_subject, v_purpose, p_ground, gdpr_internal.seal_evidence(p_subject, p_details::text), p_until, gdpr_internal.context_setting('actor')
  )
  returning id into v_id;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.audit_event('EXCEPT', p_subject, jsonb_build_object(
    'exception_id', v_id, 'purpose', p_purpose, 'ground', p_ground, 'until', p_until
  ));
  return v_id;
end
$function$;
comment on function gdpr.except_from_restriction(bigint, text, text, timestamptz, jsonb) is
  'Lets a restricted person be processed for one purpose all the same, until p_until, and returns the number of the exception. p_ground: consent (given to this purpose after the restriction; withdrawn, it ends), legal_claims, rights_of_others, public_interest. p_details: which claim, whose rights; required but for consent, kept encrypted. It opens nothing that no basis carries or an objection closes; roles bound to the purpose see the person, others do not. Errors: PR003, PR004, PR005, PR101, PR204, PR603, PR613 not restricted, or no such consent. Art. 18(2).';

create or replace function gdpr.end_exception(p_exception bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subject bigint;
begin
  perform gdpr_internal.require_read_committed();
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  select x.subject_id into v_subject from gdpr_internal.standing_exception as x where x.id = p_exception;
  if v_subject is null then
    perform gdpr_internal.refuse('exception_refused', 'there is no such exception, or it has ended');
  end if;
  insert into gdpr_internal.restriction_exception_end (exception_id, reason)
  values (p_exception, gdpr_internal.seal_evidence(v_subject, p_reason))
  on conflict (exception_id) do nothing;
  perform gdpr_internal.refresh_gate(array[v_subject]);
  perform gdpr_internal.audit_event('EXCEPT', v_subject, jsonb_build_object('exception_id', p_exception, 'ended', true));
end
$function$;
comment on function gdpr.end_exception(bigint, text) is
  'Ends an exception from a restriction before its time. p_reason: kept encrypted under the person''s key. Errors: PR004, PR005, PR613 unknown or ended. Art. 18(2).';

create or replace view gdpr.restriction as
select
  r.id as restriction_id,
  r.subject_id,
  r.ground,
  r.recorded_at,
  r.recorded_by,
  exists (select from gdpr_internal.lifting_notice as n where n.restriction_id = r.id) as lifting_announced,
  e.ended_at,
  gdpr_internal.open_reason(r.subject_id, e.reason) as end_reason
from gdpr_internal.restriction_record as r
left join gdpr_internal.restriction_end as e on e.restriction_id = r.id;
comment on view gdpr.restriction is 'Restrictions of processing, those that were lifted too, and whether the person was told before. end_reason: for gdpr_dpo, until the person is erased. Art. 18.';

create or replace view gdpr.restriction_exception as
select
  x.id as exception_id,
  x.subject_id,
  p.name as purpose,
  x.ground,
  least(x.valid_until, e.ended_at) as valid_until,
  gdpr_internal.open_reason(x.subject_id, e.reason) as end_reason,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(x.subject_id, x.details)::jsonb end as details,
  x.recorded_at,
  x.recorded_by,
  x.actor
from gdpr_internal.restriction_exception as x
join gdpr_internal.purpose as p on p.id = x.purpose_id
left join gdpr_internal.restriction_exception_end as e on e.exception_id = x.id;
comment on view gdpr.restriction_exception is
  'For which purposes restricted persons were processed all the same, why, and until when. details are shown to gdpr_dpo, until the person is erased. Art. 18(2).';
