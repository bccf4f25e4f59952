-- [code] Evidence is only ever added: triggers that refuse everything else, for every role.
-- GDPR Art. 5(2).

set local role gdpr_owner;

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
  foreach v_table in array array[
    'audit_record',
    'source',
    'basis_record',
    'basis_end',
    'assessment',
    'assessment_decision',
    'consent_form_version',
    'consent_request',
    'consent_record',
    'restriction_record',
    'restriction_end',
    'restriction_exception',
    'restriction_exception_end',
    'lifting_notice',
    'objection_record',
    'objection_decision',
    'request',
    'request_event',
    'erasure_record',
    'mail_record',
    'opt_out_record',
    'hold',
    'hold_end',
    'recipient_record',
    'disclosure_record',
    'disclosure_person',
    'notice_record',
    'notice_person',
    'notice_event',
    'erasure_completion',
    'rectification',
    'rectification_record',
    'rectification_decision',
    'home_record',
    'replay_record'
  ] loop
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
