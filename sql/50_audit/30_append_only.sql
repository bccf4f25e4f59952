-- [code] Evidence is only ever added: triggers that refuse everything else, for every role.
-- GDPR Art. 5(2).

set local role gdpr_owner;

create or replace function gdpr_internal.evidence_tables()
returns name[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'audit_record',
    'audit_catalog',
    'audit_seal',
    'audit_block',
    'former_name',
    'source',
    'opt_out_record',
    'basis_record',
    'basis_end',
    'assessment',
    'assessment_decision',
    'consent_form_version',
    'consent_request',
    'consent_record',
    'request',
    'request_event',
    'rectification',
    'rectification_record',
    'rectification_decision',
    'restriction_record',
    'restriction_end',
    'restriction_exception',
    'restriction_exception_end',
    'lifting_notice',
    'objection_record',
    'objection_decision',
    'erasure_record',
    'erasure_completion',
    'mail_record',
    'recipient_record',
    'disclosure_record',
    'disclosure_person',
    'notice_record',
    'notice_person',
    'notice_event',
    'hold',
    'hold_end',
    'party_record',
    'impact_assessment_record',
    'impact_assessment_decision',
    'breach_record',
    'breach_event',
    'breach_person',
    'breach_communication',
    'maintenance_window',
    'maintenance_window_end',
    'home_record',
    'replay_record'
  ]::name[];
end;
comment on function gdpr_internal.evidence_tables() is 'The tables of evidence in gdpr_internal, in the order of the journey: rows are added, never changed. Art. 5(2).';

create or replace function gdpr_internal.enforce_append_only()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table text;
begin
  foreach v_table in array gdpr_internal.evidence_tables() loop
    -- pg_restore --disable-triggers leaves them enabled, but no longer always
    continue when (
      select count(*) from pg_trigger as g
      where g.tgrelid = to_regclass('gdpr_internal.' || v_table) and g.tgname in ('gdpr_50_append_only', 'gdpr_50_no_truncate') and g.tgenabled = 'A'
    ) = 2;
    execute format(
      'create or replace trigger gdpr_50_append_only before update or delete on gdpr_internal.%I for each row execute function gdpr_internal.append_only()',
      v_table
    );
    execute format('alter table gdpr_internal.%I enable always trigger gdpr_50_append_only', v_table);
    execute format(
      'create or replace trigger gdpr_50_no_truncate before truncate on gdpr_internal.%I for each statement execute function gdpr_internal.append_only()',
      v_table
    );
    execute format('alter table gdpr_internal.%I enable always trigger gdpr_50_no_truncate', v_table);
  end loop;
end
$function$;
comment on function gdpr_internal.enforce_append_only() is
  'Puts the triggers on the tables of evidence that refuse every change, for every role and in every session, where they are missing or disabled.';

do $evidence$
begin
  perform gdpr_internal.enforce_append_only();
  perform gdpr_internal.make_audit_partitions();
end
$evidence$;
