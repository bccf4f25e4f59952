-- [code] Restriction of processing and objection.
-- GDPR Art. 18, Art. 21. Called by: gdpr_dpo.

set local role gdpr_owner;

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
  if p_ground is null or p_ground <> all (
    array['accuracy_contested', 'unlawful_processing', 'legal_claims', 'objection_pending', 'other']
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'ground is one of accuracy_contested, unlawful_processing, legal_claims, objection_pending, other');
  end if;
  insert into gdpr_internal.restriction_record (subject_id, ground) values (p_subject, p_ground) returning id into v_id;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.queue_notices(array[p_subject], 'restriction');
  perform gdpr_internal.audit_event('RESTRICT', p_subject, jsonb_build_object('restriction_id', v_id, 'ground', p_ground));
  return v_id;
end
$function$;
comment on function gdpr.restrict(bigint, text) is
  'Restricts processing of a person''s data: hidden for every purpose but compliance, with the next statement. Grounds: accuracy_contested, unlawful_processing, legal_claims, objection_pending, other. Returns its number. Errors: PR101, PR603, PR004, PR005. Art. 18(1).';

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
  insert into gdpr_internal.restriction_end (restriction_id, reason)
  select r.id, p_reason
  from gdpr_internal.restriction_record as r
  where r.subject_id = p_subject
  on conflict (restriction_id) do nothing;
  get diagnostics v_lifted = row_count;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.audit_event('LIFT', p_subject, jsonb_build_object('restrictions', v_lifted, 'reason', p_reason));
  return v_lifted;
end
$function$;
comment on function gdpr.lift_restriction(bigint, text) is
  'Lifts every restriction of a person and returns how many; tell the person before (Art. 18(3)). Errors: PR101, PR603, PR004.';

create or replace function gdpr.object_to(p_subject bigint, p_purpose text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
begin
  perform gdpr_internal.require_read_committed();
  perform gdpr_internal.require_subject(p_subject);
  if v_purpose >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  end if;
  insert into gdpr_internal.objection_record (subject_id, purpose_id)
  values (p_subject, v_purpose)
  on conflict (subject_id, purpose_id) do nothing;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.audit_event('OBJECT', p_subject, jsonb_build_object('purpose', p_purpose));
end
$function$;
comment on function gdpr.object_to(bigint, text) is
  'Records a person''s objection to a purpose; from the next statement on it is closed, whatever basis it had. Errors: PR101, PR603, PR003, PR005. Art. 21.';
