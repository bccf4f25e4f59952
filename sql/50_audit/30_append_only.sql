-- [code] Evidence is only ever added: triggers that refuse everything else, for every role.
-- GDPR Art. 5(2).

set local role gdpr_owner;

do $evidence$
declare
  v_table text;
begin
  foreach v_table in array array[
    'audit_record', 'source', 'basis_record', 'basis_end', 'assessment', 'assessment_decision', 'consent_form_version', 'consent_request',
    'consent_record', 'restriction_record', 'restriction_end', 'restriction_exception', 'restriction_exception_end', 'lifting_notice',
    'objection_record', 'objection_decision', 'request', 'request_event', 'erasure_record', 'mail_record', 'opt_out_record',
    'recipient_record', 'disclosure_record', 'disclosure_person', 'notice_record', 'notice_person', 'notice_event',
    'hold', 'hold_end', 'rectification', 'rectification_record', 'rectification_decision'
  ] loop
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
  perform gdpr_internal.make_audit_partitions();
end
$evidence$;
