-- [code] Events of many persons at once.
-- GDPR Art. 5(2). Called by: gdprdb's own set-based functions.

set local role gdpr_keyholder;

create or replace function gdpr_internal.audit_events(p_operation text, p_subjects bigint[], p_reference text, p_references bigint[], p_details jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_role name := gdpr_internal.acting_role();
begin
  -- a transaction has its number before its records have theirs: gdpr.seal_audit() counts on it
  perform pg_current_xact_id();
  insert into gdpr_internal.audit_record (
    operation, subject_id, purpose_id, actor, request, role, application_name, payload
  )
  select
    p_operation, e.subject_id, c.purpose_id, c.actor, c.request, v_role, c.application_name,
    (jsonb_build_object(p_reference, e.reference) || p_details)::text
  from unnest(p_subjects, p_references) as e (subject_id, reference)
  cross join (
    select
      gdpr_generated.purpose_held(v_role, gdpr_internal.context_setting('purpose')) as purpose_id,
      gdpr_internal.context_setting('actor') as actor,
      gdpr_internal.context_setting('request') as request,
      nullif(current_setting('application_name'), '') as application_name
    offset 0
  ) as c;
end
$function$;
comment on function gdpr_internal.audit_events(text, bigint[], text, bigint[], jsonb) is
  'gdpr_internal.audit_event() for many persons: one record each, with p_details and, under the name p_reference, the person''s own of p_references. No personal data in p_details.';
