-- [code] Who has old values of the audit log opened, on record.
-- GDPR Art. 5(2), Art. 32(1)(d). Called by: gdpr_dpo, before gdprdb audit show and export read them. A view cannot write.

set local role gdpr_owner;

create or replace function gdpr.note_audit_access(p_selection jsonb default '{}')
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subject bigint;
  v_details jsonb;
begin
  if jsonb_typeof(p_selection) is distinct from 'object' or p_selection - array[
    'id', 'table_id', 'row_key', 'at', 'until', 'subject_id', 'operation', 'actor', 'purpose_id'
  ] <> '{}' then
    perform gdpr_internal.refuse(
      'invalid_argument', 'a selection is an object with any of id, table_id, row_key, at, until, subject_id, operation, actor, purpose_id'
    );
  end if;
  begin
    v_subject := p_selection ->> 'subject_id';
    -- each in its type: what the person behind a record said, did or was called has no way in
    v_details := jsonb_strip_nulls(jsonb_build_object(
      'document', 'audit',
      'id', (p_selection ->> 'id')::bigint,
      'table', (select t.known_as from gdpr_internal.protected_table as t where t.id = (p_selection ->> 'table_id')::smallint),
      'row_key', (p_selection ->> 'row_key')::uuid,
      'at', (p_selection ->> 'at')::timestamptz,
      'until', (p_selection ->> 'until')::timestamptz,
      'operation', substring(p_selection ->> 'operation' from '^[A-Z_]{1,30}$'),
      'actor', case when p_selection ->> 'actor' is not null then true end,
      'purpose', (select u.name from gdpr_internal.purpose as u where u.id = (p_selection ->> 'purpose_id')::smallint)
    ));
  exception when data_exception then
    perform gdpr_internal.refuse('invalid_argument', 'numbers, times and keys of a selection are as in gdpr.audit_log');
  end;
  if v_details ? 'id' then
    select a.subject_id into v_subject from gdpr_internal.audit_record as a
    where a.id = (v_details ->> 'id')::bigint and a.operation in ('UPDATE', 'DELETE');
    if not found then
      -- an event, or nothing: no value is opened
      return false;
    end if;
  end if;
  if current_setting('transaction_read_only')::boolean then
    raise log 'gdprdb: old values of the audit log read by % in a read-only transaction', gdpr_internal.acting_role();
    return false;
  end if;
  perform gdpr_internal.audit_event('ACCESS', v_subject, v_details);
  return true;
end
$function$;
comment on function gdpr.note_audit_access(jsonb) is
  'Puts on record (ACCESS) that old values of gdpr.audit_log are going to be read, whose and which: call it and commit, then read. p_selection: the conditions, any of id, table_id, row_key, at (from then on), until, subject_id, operation, actor, purpose_id, as in the log; of an actor only that one was asked for is kept. Whether a record was written: not for the id of a record without old values; in a read-only transaction there is a line in the server''s log instead. Errors: PR004. Art. 5(2).';
