-- 00_foundation/20_errors.sql
-- [code] Every error that gdprdb raises: one table of codes, one function that raises them.
-- The two digits after PR are the station of the journey. No personal data ever goes into a message or a detail.

set local role gdpr_owner;

create or replace view gdpr.error_code (name, sqlstate, message, hint, article) as
values
  ('policy_refused', 'PR001', 'the policy is refused', 'Each line of the detail names one problem; nothing was changed.', 'Art. 25'),
  ('not_protected', 'PR002', 'the table is not protected', 'See gdpr.protected_table for the tables that are.', 'Art. 25'),
  ('unknown_purpose', 'PR003', 'unknown purpose', 'Purposes are declared in the policy; gdpr.policy() shows them.', 'Art. 5(1)(b)'),
  ('not_table_owner', '42501', 'the table belongs to another role', 'Call apply() as the owner of the table or a member of the owner.', 'Art. 25'),
  ('invalid_argument', 'PR004', 'invalid argument', 'See the comment of the function for what it takes.', null),
  ('needs_read_committed', 'PR005', 'this function runs at READ COMMITTED only', 'Begin the transaction with ISOLATION LEVEL READ COMMITTED: rows written meanwhile would be missed otherwise.', 'Art. 7(3)'),
  ('purpose_not_held', '42501', 'the role does not hold the purpose it claims', 'Set gdpr.purpose to one of the role''s purposes, or bind the role to this one in the policy.', 'Art. 5(1)(b)'),
  ('no_purpose', '42501', 'the role holds no purpose for personal data', 'Bind the role to a purpose in the policy ([roles.<name>]), or give it purpose maintenance for migrations and dumps.', 'Art. 5(1)(b)'),
  ('base_refused', '42501', 'the role''s audience may not touch the table itself', 'Read the view of the same name in the schema of the role''s audience.', 'Art. 25'),
  ('clear_refused', '42501', 'the role has no right to read the table behind this view', 'GRANT SELECT on the table to the role: a clear view gives no right that its table does not.', 'Art. 32(4)'),
  ('unknown_subject', 'PR101', 'unknown subject', 'gdpr.find_subject() and gdpr.subject_of() give the number of a person.', null),
  ('blocked_identifier', '23505', 'duplicate or blocked identifier', 'The value is in use or may not be stored.', 'Art. 17'),
  ('not_yet_linked', 'PR102', 'the parent row of this row does not exist', 'Insert the parent row first: this row belongs to the parent''s subject.', null),
  ('registration_refused', 'PR104', 'the registration is not accepted', 'Each line of the detail names one problem; nothing was kept.', 'Art. 5(1)(d)'),
  ('no_registrations', 'PR105', 'the table takes no registrations', 'Set double_opt_in for the table in the policy.', 'Art. 25'),
  ('registration_conflict', 'PR106', 'the table does not take the confirmed row', 'The registration waits on: mend the cause, and the same link works.', 'Art. 5(1)(d)'),
  ('registration_known', 'PR107', 'there is such an entry already', 'The person who confirms is registered, or was blocked.', 'Art. 5(1)(d)'),
  ('source_missing', 'PR108', 'the table takes no data of unknown source', 'Say where it comes from with gdpr.set_context() or gdpr.source.', 'Art. 14(2)(f)'),
  ('basis_missing', 'PR201', 'no lawful basis for this purpose', 'Record a basis with gdpr.record_basis() before writing data of this person.', 'Art. 6'),
  ('basis_refused', 'PR202', 'this basis cannot be recorded', 'consent is recorded with gdpr.record_consent().', 'Art. 6'),
  ('basis_ended', 'PR203', 'the basis does not exist or has ended', 'See gdpr.basis for the bases that hold.', 'Art. 6'),
  ('assessment_missing', 'PR205', 'no approved assessment of legitimate interests', 'Record one with gdpr.record_assessment() and have somebody else approve it.', 'Art. 6(1)(f)'),
  ('four_eyes', 'PR206', 'the author of an assessment cannot approve it', 'Another officer has to call gdpr.approve_assessment().', 'Art. 6(1)(f)'),
  ('condition_missing', 'PR208', 'no condition of Art. 9(2) for special categories of data', 'Record a basis with p_condition, or leave the column empty.', 'Art. 9'),
  ('consent_missing', 'PR301', 'no consent for this purpose', 'Ask for consent, or record one that was given with gdpr.record_consent().', 'Art. 6(1)(a), Art. 7'),
  ('consent_not_asked', 'PR302', 'the purpose does not rest on consent', 'Consent is recorded for purposes whose basis is consent; gdpr.object_to() records an objection to any other.', 'Art. 6(1)(a)'),
  ('token_refused', 'PR303', 'the token is not valid', 'It was used, its time has passed, or it is none: ask for a new one.', 'Art. 32'),
  ('evidence_missing', 'PR304', 'a consent by phone or on paper needs evidence', 'Say who took it, when, how, and where it can be found: {"who", "when", "how", "reference"}.', 'Art. 7(1)'),
  ('form_refused', 'PR305', 'this consent form cannot be used', 'gdpr.consent_form shows forms, their versions and languages; gdpr.publish_form() publishes a draft.', 'Art. 7(2)'),
  ('no_address', 'PR306', 'no e-mail address is known of this person', 'Ask by another channel, or declare the column that holds it with identifier = "email".', 'Art. 7'),
  ('guardian_missing', 'PR310', 'the person is known to be a child, and no guardian consents', 'Give evidence with {"guardian": {"name": ..., "verified": how}}.', 'Art. 8'),
  ('built_in_purpose', 'PR204', 'the purpose is built in', 'compliance and maintenance need no basis, and nobody can object to them here.', 'Art. 6(1)(c)'),
  ('restricted', 'PR601', 'processing of this person''s data is restricted', 'Only storage is allowed until the restriction is lifted with gdpr.lift_restriction().', 'Art. 18'),
  ('objected', 'PR602', 'the person has objected to this purpose', 'The objection has to be respected.', 'Art. 21'),
  ('erasure_incomplete', 'PR605', 'rows of the person are left after the erasure', 'A trigger of the application kept them; nothing was erased.', 'Art. 17'),
  ('erasure_blocked', '23503', 'rows outside gdprdb''s reach refer to rows of the person', 'Nothing was erased: let the constraint cascade or set null, delete these rows first, protect their table, or anonymise the one they refer to.', 'Art. 17'),
  ('review_done', 'PR617', 'there is no such text to review', 'See gdpr.review_due.', 'Art. 17'),
  ('mail_refused', '42501', 'the role does not send mails', 'Bind the role to audience mail in the policy.', 'Art. 32(4)'),
  ('mail_not_taken', 'PR606', 'this session has not taken the mail', 'gdpr.next_mail() gives mails to a session; each one counts an attempt.', null),
  ('report_too_large', 'PR620', 'the report is too large for a mail', 'Give the person a download: gdpr.create_download().', 'Art. 15(3)'),
  ('unknown_request', 'PR607', 'unknown request', 'gdpr.request shows the requests of persons and their numbers.', 'Art. 12'),
  ('request_state', 'PR608', 'the request is not in a state for this', 'gdpr.request_board shows where requests stand and what they miss.', 'Art. 12'),
  ('request_of_another', 'PR609', 'the request is that of another person', 'gdpr.set_context(p_request => ...) names the request that is being fulfilled; leave it empty for what belongs to none.', 'Art. 5(2)'),
  ('too_late_to_extend', 'PR610', 'the time for an answer can be extended within the first month only', 'Answer the request, and say why it is late.', 'Art. 12(3)'),
  ('request_unanswered', 'PR611', 'what the request asks is not done', 'Do it with gdpr.set_context(p_request => ...), or complete with an outcome that says why not: fulfilled_in_part, fulfilled_elsewhere, done_before, nothing_held.', 'Art. 12(3)'),
  ('lifting_not_announced', 'PR612', 'the person was not told that the restriction is going to end', 'Tell them first, with gdpr.announce_lifting(): by mail, or with evidence of how else.', 'Art. 18(3)'),
  ('exception_refused', 'PR613', 'there is no such exception from a restriction', 'Exceptions are for restricted persons; with consent, it has to be newer than the restriction.', 'Art. 18(2)'),
  ('not_open_to_objection', 'PR614', 'nobody can object to this purpose', 'Consent is withdrawn with gdpr.withdraw_consent(); for contracts and legal obligations see gdpr.restrict() and gdpr.erase(). Mark direct marketing in the policy.', 'Art. 21(1)'),
  ('no_objection', 'PR615', 'there is no objection to decide about', 'gdpr.objection shows them.', 'Art. 21'),
  ('too_many_requests', 'PR616', 'twenty requests of this person are open', 'They have to be answered first.', 'Art. 12(5)'),
  ('restored', 'PR640', 'the database was restored from a backup, and has not forgotten again', 'Replay the ledger (gdprdb ledger replay): it erases, restricts and withdraws again what was since. gdpr.accept_restore() is for a move that lost nothing.', 'Art. 17, Art. 32(1)(c)'),
  ('ledger_refused', 'PR641', 'the ledger cannot be replayed here', 'Take the ledger of this very database, as gdpr.ledger() gave it and all its parts in their order.', 'Art. 17'),
  ('erased', 'PR603', 'the person has been erased', 'Nothing more may be stored about this person.', 'Art. 17'),
  ('rectification_refused', 'PR630', 'the data cannot be corrected so', 'Each line of the detail names one problem; nothing was changed.', 'Art. 16'),
  ('rectification_four_eyes', 'PR631', 'who proposed a correction cannot approve it', 'Another officer has to call gdpr.approve_rectification().', 'Art. 16'),
  ('rectification_decided', 'PR632', 'the proposal was decided already', 'gdpr.rectification shows by whom; propose anew.', 'Art. 16'),
  ('key_missing', 'PR401', 'there is no key-encryption key', 'Create one with gdpr.create_key().', 'Art. 32'),
  ('key_locked', 'PR402', 'the key is locked in this session', 'Give the key with gdpr.unlock(), sent as a bind parameter.', 'Art. 32'),
  ('key_wrong', 'PR403', 'this is not the key of this database', 'The key is the one that gdpr.create_key() returned.', 'Art. 32'),
  ('data_key_missing', 'PR410', 'the data key of this person is gone', 'Restore gdpr_internal.subject_key from its backup.', 'Art. 32'),
  ('tampered', 'PR404', 'an encrypted value fails its integrity check', 'The value was altered or moved from another row or column.', 'Art. 32'),
  ('ciphertext_written', 'PR405', 'a ciphertext cannot be written as a value', 'Write the plaintext, or leave the column as it is.', 'Art. 32'),
  ('drifted', 'PR409', 'the table is not as the policy left it', 'Apply the policy again: gdprdb policy apply.', 'Art. 25'),
  ('session_changed', 'PR411', 'code in a table has changed the session', 'A trigger, policy or constraint of the table''s owner left it with other settings, or with something that runs later: remove it.', 'Art. 32'),
  ('deferred_trigger', 'PR604', 'a deferred trigger on the table would run with the rights of whoever commits', 'Drop the trigger or make it NOT DEFERRABLE.', 'Art. 32'),
  ('blocked_rows', 'PR103', 'existing rows carry blocked identifiers', 'Delete these rows, or take the identifiers off the blocklist with gdpr.unblock().', 'Art. 17'),
  ('gate_columns', 'PR406', 'the columns gdpr_* are kept by the database', 'Leave them out of the statement.', 'Art. 25'),
  ('truncate_refused', 'PR407', 'a protected table cannot be truncated', 'Delete rows, or erase the persons with gdpr.erase().', 'Art. 5(2)'),
  ('no_primary_key', 'PR408', 'rows of this view cannot be addressed', 'Add a primary key to the table and apply the policy again.', null),
  ('not_revealed', '42501', 'the value may not be revealed to this role', 'The role needs the audience clear, and a basis for its purpose has to hold for the person.', 'Art. 6, Art. 32'),
  ('value_too_long', '22001', 'the value is too long for the column', 'The column keeps the length it had before it was encrypted.', null),
  ('invalid_value', '22023', 'the value does not fit the column''s type', 'The column keeps the type and length it had before it was encrypted.', null),
  ('export_only', '42501', 'what this role reads goes to a recipient and is recorded', 'Call gdpr.export_rows(), which records the disclosure with the rows that it returns.', 'Art. 5(2)'),
  ('export_refused', '42501', 'the role does not export', 'Bind it to audience export, api or integration in the policy.', 'Art. 32(4)'),
  ('transfer_refused', 'PR701', 'nothing may be disclosed to this recipient', 'Register it anew with gdpr.record_recipient(), with a safeguard for the transfer; gdpr.adequacy lists countries that need none.', 'Art. 44'),
  ('unknown_recipient', 'PR702', 'unknown recipient', 'gdpr.record_recipient() registers one; gdpr.recipient lists them.', 'Art. 30(1)(d)'),
  ('not_sharable', 'PR703', 'persons may not be processed for this purpose', 'Leave them out (p_locked => ''leave_out''), or see gdpr.basis and gdpr.consent.', 'Art. 6'),
  ('purpose_of_table', 'PR705', 'the table may not be used for this purpose', 'Its purposes stand in the policy: [tables.<name>].', 'Art. 5(1)(b)'),
  ('notice_settled', 'PR704', 'there is no such notice to settle', 'gdpr.notice_due lists those that are.', 'Art. 19'),
  ('hold_ended', 'PR801', 'the hold does not exist or has ended', 'See gdpr.hold for the holds there are.', 'Art. 17(3)'),
  ('row_referenced', 'PR802', 'other rows refer to rows whose time is over', 'Protect the table that holds them, or let retention anonymise: erase = "anonymise".', 'Art. 5(1)(e)'),
  ('batch_unknown', 'PR803', 'there is no such batch', 'gdpr.erasure_batch shows the batches of erasures.', 'Art. 17'),
  ('not_proposed', 'PR804', 'the erasure of somebody here is not proposed', 'See gdpr.erasure_proposals(); gdpr.open_erasure_batch() erases whom you name.', 'Art. 17'),
  ('cron_missing', 'PR805', 'there is no pg_cron in this database', 'Run gdprdb retention run and gdpr.tidy() from another scheduler, or let the server''s administrator install it.', null),
  ('append_only', '55000', 'evidence can only be added', 'Rows of evidence are never changed or deleted.', 'Art. 5(2)');
comment on view gdpr.error_code is 'All errors of gdprdb: the name is the CONSTRAINT of the error, with SQLSTATE, message, hint and article.';

create or replace function gdpr_internal.refuse(p_name text, p_detail text default null)
returns boolean
language plpgsql
-- stable: a view that calls a volatile function cannot be merged into the query that reads it
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_error record;
begin
  select * into strict v_error from gdpr_internal.error_text(p_name);
  if p_detail is null then
    raise exception using errcode = v_error.sqlstate, message = v_error.message, hint = v_error.hint,
      constraint = 'gdpr_' || p_name;
  end if;
  raise exception using errcode = v_error.sqlstate, message = v_error.message, hint = v_error.hint,
    constraint = 'gdpr_' || p_name, detail = p_detail;
end
$function$;
comment on function gdpr_internal.refuse(text, text) is
  'Raises the error p_name of gdpr.error_code; never returns. p_detail must not hold personal data. boolean, so that a policy can call it.';

create or replace function gdpr_internal.error_text(p_name text)
returns table (sqlstate text, message text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select e.sqlstate, e.message, e.hint from gdpr.error_code as e where e.name = p_name;
end;
comment on function gdpr_internal.error_text(text) is 'The text of an error; a definer function, so that any role can be told why it was refused.';

-- 00_foundation/28_home.sql
-- [code] Whether this is the database it was: restored from an older dump or backup, it refuses to process until it has forgotten
-- again. GDPR Art. 5(1)(f), Art. 17, Art. 18, Art. 32(1)(c). Asked in every statement (purpose_mask), so what is asked there is cheap.

set local role gdpr_owner;

create or replace function gdpr_policy.is_here(p_database oid, p_timeline text)
returns boolean
language sql
stable
parallel safe
security invoker
-- no SET clause: the planner puts it into every statement
begin atomic
  select split_part(pg_relation_filepath('pg_catalog.pg_class'::regclass), '/', -2) = p_database::text
    and case
      when current_setting('in_hot_standby') = 'on' then true
      -- any position does; a constant would be looked up while planning, which fails on a standby
      else left(pg_walfile_name(case when statement_timestamp() > '-infinity' then '0/1'::pg_lsn end), 8) = p_timeline
    end;
end;
comment on function gdpr_policy.is_here(oid, text) is
  'Whether this database has this OID and the server writes this timeline (a standby writes none). Both change without a dump: by a copy with CREATE DATABASE, by point-in-time recovery and failover.';

create or replace function gdpr_internal.current_place(
  out system_identifier bigint, out database_oid oid, out timeline text, out place oid
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_position pg_lsn := '0/1';
begin
  select s.system_identifier into system_identifier from pg_control_system() as s;
  select d.oid into database_oid from pg_database as d where d.datname = current_database();
  if not current_setting('in_hot_standby')::boolean then
    timeline := left(pg_walfile_name(v_position), 8);
  end if;
  -- looked up each time: a constant would outlive the type
  place := to_regtype('gdpr_generated.place');
end
$function$;
comment on function gdpr_internal.current_place() is 'Where this database is now, in the terms of gdpr_internal.home_record. timeline is null on a standby.';

create or replace function gdpr.whereabouts()
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_home gdpr_internal.home_record;
  v_here record := gdpr_internal.current_place();
begin
  select * into v_home from gdpr_internal.home_record as h order by h.id desc limit 1;
  if coalesce(v_home.event, 'noticed') = 'noticed' or v_home.place <> v_here.place then
    return 'restored';
  elsif v_home.database_oid <> v_here.database_oid then
    -- beside the original it can be told from it; where that is gone, this one may have taken its place
    return case
      when v_home.system_identifier = v_here.system_identifier
        and exists (select from pg_database as d where d.oid = v_home.database_oid) then 'copy'
      else 'restored'
    end;
  elsif v_home.timeline <> v_here.timeline then
    return case
      when exists (
        select from unnest(array['', '_time', '_xid', '_lsn', '_name']) as s (suffix)
        where current_setting('recovery_target' || s.suffix) <> ''
      ) then 'restored'
      when (select s.value #>> '{}' from gdpr_internal.setting as s where s.name = 'new_timeline') = 'refuse' then 'restored'
      else 'promoted'
    end;
  end if;
  return 'home';
end
$function$;
comment on function gdpr.whereabouts() is
  'home: the database it was. restored: from an older dump or backup; processing is refused until gdpr.replay() or gdpr.accept_restore(). promoted: the server writes another timeline, as after the failover to a standby; the ledger tells whether something was lost. copy: made with CREATE DATABASE ... TEMPLATE, beside the original. Art. 32(1)(c).';

create or replace function gdpr_internal.require_home()
returns void
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not gdpr_generated.is_home() and gdpr.whereabouts() = 'restored'
    and coalesce(gdpr_generated.purpose_held(gdpr_internal.acting_role(), null) < 62, true)
  then
    perform gdpr_internal.refuse('restored');
  end if;
end
$function$;
comment on function gdpr_internal.require_home() is
  'Refuses to process in a restored database, to everybody but officers and maintenance. Error: PR640.';

create or replace function gdpr_internal.generate_home()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_home gdpr_internal.home_record;
  v_condition text := 'false';
begin
  select * into v_home from gdpr_internal.home_record as h order by h.id desc limit 1;
  if v_home.event <> 'noticed' then
    -- a dump names the type, and brings the number along: the planner compares the two, and nothing is left to do
    v_condition := format(
      '(%L::regtype)::oid = %s and gdpr_policy.is_here(%s, %L)',
      'gdpr_generated.place', v_home.place, v_home.database_oid, v_home.timeline
    );
  end if;
  execute format(
    'create or replace function gdpr_generated.is_home() returns boolean language sql stable parallel restricted security invoker '
    'begin atomic select %s; end', v_condition
  );
  comment on function gdpr_generated.is_home() is
    'Whether this is the database that gdpr_internal.home_record names: its numbers as code, because every statement asks. False: gdpr.whereabouts() says more.';
  grant execute on function gdpr_generated.is_home() to public;
end
$function$;
comment on function gdpr_internal.generate_home() is 'Generates gdpr_generated.is_home() from the last home_record, never from where the database is: loading the code again makes no restored database one at home.';

create or replace function gdpr_internal.record_home(p_event text, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
begin
  if p_event <> 'noticed' then
    -- a new number, younger than everything here: a dump of this database cannot come to it again by being restored the same way
    perform gdpr_internal.enforce_append_only();
    execute 'create or replace function gdpr_generated.is_home() returns boolean language sql stable parallel restricted security invoker begin atomic select false; end';
    execute 'drop type gdpr_generated.place';
    execute 'create type gdpr_generated.place as enum ()';
    comment on type gdpr_generated.place is 'Nothing but its OID: by it a database knows whether it is the one it was, or came out of a dump.';
  end if;
  insert into gdpr_internal.home_record (event, reason, system_identifier, database_oid, timeline, place, data_until)
  select
    p_event, p_reason, h.system_identifier, h.database_oid, h.timeline, h.place,
    (select max(a.at) from gdpr_internal.audit_record as a)
  from gdpr_internal.current_place() as h;
  perform gdpr_internal.generate_home();
  perform gdpr_internal.audit_event('HOME', null, jsonb_build_object('event', p_event, 'reason', p_reason));
end
$function$;
comment on function gdpr_internal.record_home(text, text) is
  'Records where the database is now: noticed (it was found restored), replayed or accepted (it is at home here from now on).';

create or replace function gdpr_internal.notice_restore(p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not current_setting('transaction_read_only')::boolean
    and (select h.event from gdpr_internal.home_record as h order by h.id desc limit 1) is distinct from 'noticed'
  then
    -- one at a time: two would be two records of one event
    perform pg_advisory_xact_lock(hashtextextended('gdpr.home', 0));
    perform gdpr_internal.record_home('noticed', p_reason);
    raise log 'gdprdb: the database was restored (%): processing is refused', p_reason;
  end if;
end
$function$;
comment on function gdpr_internal.notice_restore(text) is
  'Makes what was noticed last: recovery settings are taken out of the configuration, and a ledger is looked at once. Nothing in a read-only transaction.';

create or replace function gdpr.accept_restore(p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if coalesce(btrim(p_reason), '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  perform pg_advisory_xact_lock(hashtextextended('gdpr.home', 0));
  perform gdpr_internal.record_home('accepted', p_reason);
end
$function$;
comment on function gdpr.accept_restore(text) is
  'Declares that this database has lost nothing and is at home here: after a planned move or copy, or a failover whose ledger was checked. After a restore use gdpr.replay(), or the erased are back for good. On record with the reason. Error: PR004 no reason. Art. 5(2), Art. 32(1)(c).';

-- 00_foundation/30_context.sql
-- [code] Who and why: the context of a statement, and the purposes that a role may process for.
-- GDPR Art. 5(1)(b), Art. 29, Art. 32(4). A setting is a claim of the caller: it can narrow what the role may do, never widen it.

set local role gdpr_owner;

create or replace function gdpr_internal.context_setting(p_name text)
returns text
language sql
stable
parallel restricted
security invoker
-- no SET clause: inlined into its callers; every name is qualified by its bound body
begin atomic
  select nullif(current_setting('gdpr.' || p_name, true), '');
end;
comment on function gdpr_internal.context_setting(text) is
  'A gdpr.* setting, or null. After a transaction a custom setting is an empty string, which means the same as unset.';

create or replace function gdpr_internal.check_source(p_source jsonb)
returns void
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- asked for every row that comes with a source: a few comparisons, no loop over its keys
  if jsonb_typeof(p_source) is distinct from 'object' or coalesce(
    p_source - array['kind', 'note', 'language'] - case p_source ->> 'kind'
      when 'web_form' then array['form', 'url', 'ip', 'referrer', 'user_agent']
      when 'import' then array['file', 'line']
      when 'manual' then array['user', 'reason']
      when 'api' then array['service', 'ip', 'user_agent']
      when 'integration' then array['system', 'record']
      when 'migration' then array['file', 'system', 'record']
    end <> '{}', true
  ) or p_source ->> 'ip' !~ '^[0-9A-Fa-f:.]{2,45}$' or p_source ->> 'line' !~ '^[1-9][0-9]{0,17}$'
    or p_source ->> 'url' !~ '^https?://' or p_source ->> 'referrer' !~ '^https?://'
  then
    perform gdpr_internal.refuse(
      'invalid_argument',
      'a source is {"kind": "web_form", "form", "url", "ip", "referrer", "user_agent"}, {"kind": "import", "file", "line"}, '
      '{"kind": "manual", "user", "reason"}, {"kind": "api", "service", "ip", "user_agent"}, {"kind": "integration", "system", "record"} '
      'or {"kind": "migration", "file", "system", "record"}, each with "note" and "language" if need be'
    );
  end if;
end
$function$;
comment on function gdpr_internal.check_source(jsonb) is 'Refuses what is no source: an unknown kind, a detail that its kind does not have, an ip, line or url that is none. Error: PR004.';

create or replace function gdpr_internal.context_source()
returns jsonb
language plpgsql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_text text := nullif(current_setting('gdpr.source', true), '');
  v_source jsonb;
begin
  if v_text is null then
    return null;
  end if;
  begin
    v_source := v_text::jsonb;
  exception when data_exception then
    v_source := 'null';
  end;
  -- these are evidence, which gdpr.confirm() alone gives
  if not v_source ? 'registration' or not gdpr_internal.confirming() then
    perform gdpr_internal.check_source(v_source);
  end if;
  return v_source;
end
$function$;
comment on function gdpr_internal.context_source() is 'The source that the session claims for new data, or null. Error: PR004 no JSON object with a known kind.';

create or replace function gdpr_internal.acting_role()
returns name
language sql
stable
parallel restricted
security invoker
begin atomic
  select coalesce(nullif(current_setting('role'), 'none')::name, session_user);
end;
comment on function gdpr_internal.acting_role() is
  'The role the session acts as. Inside definer functions current_user is the definer; SET ROLE and the login still tell.';

create or replace function gdpr_internal.purpose_inherited(p_role name, p_claim text)
returns smallint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint;
begin
  select rp.purpose_id
  into v_purpose
  from gdpr_internal.role_purpose as rp
  join gdpr_internal.purpose as p on p.id = rp.purpose_id
  where (rp.role_name = p_role or pg_has_role(p_role, to_regrole(quote_ident(rp.role_name))::oid, 'usage'))
    and (p_claim is null or p.name = p_claim)
    -- what these read leaves the house, and is recorded: no statement of theirs passes the gate
    and not exists (select from gdpr_internal.role_binding as b where b.role_name = rp.role_name and b.recipient is not null)
  order by (rp.role_name <> p_role), rp.position, rp.purpose_id
  limit 1;
  return v_purpose;
end
$function$;
comment on function gdpr_internal.purpose_inherited(name, text) is
  'The purpose that p_role works for, its memberships counted: the one it claims if it holds it, its first one if it claims none, else null.';

create or replace function gdpr_generated.define(p_code text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_mark text := E'\nas $' || E'body$\n';
  v_start integer := strpos(p_code, v_mark);
  v_body text := rtrim(substr(p_code, v_start + length(v_mark)), E'\n');
begin
  -- names of tables, columns and roles stand in the body: a literal holds them, a dollar quote could be closed by one
  execute ltrim(left(p_code, v_start), E'\n') || 'as ' || quote_literal(left(v_body, length(v_body) - 6));
end
$function$;
comment on function gdpr_generated.define(text) is 'Creates a generated function from its text, as the role that generates it.';

create or replace function gdpr_internal.clear_inherited(p_role name)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return exists (
    select
    from gdpr_internal.role_binding as b
    where (b.role_name = p_role or pg_has_role(p_role, to_regrole(quote_ident(b.role_name))::oid, 'usage'))
      and b.audience = 'clear'
  );
end
$function$;
comment on function gdpr_internal.clear_inherited(name) is
  'Whether this database binds a role, or one it is a member of, to audience clear. Groups do not tell: they belong to the whole server.';

create or replace function gdpr_internal.generate_purposes()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_branches text;
  v_clear text;
begin
  perform gdpr_internal.generate_home();
  -- SQL bodies bound here: the planner puts them into the statements that row policies guard, whatever search_path those have
  select string_agg(quote_literal(b.role_name), ', ' order by b.role_name) into v_clear
  from gdpr_internal.role_binding as b
  where b.audience = 'clear';
  execute format(
    'create or replace function gdpr_generated.is_clear(p_role name) returns boolean language sql stable parallel restricted security invoker '
    'begin atomic select p_role in (%s); end',
    v_clear
  );
  comment on function gdpr_generated.is_clear(name) is 'Whether a role is bound to audience clear by its own name. Generated by gdpr.apply().';
  select string_agg(
    format(
      'when p_role = %L then case coalesce(p_claim, '''') when '''' then %s %s else gdpr_policy.purpose_mask(p_role, p_claim) end',
      r.role_name, r.masks[1], r.claims
    ), E'\n' order by r.role_name
  )
  into v_branches
  from (
    select rp.role_name, array_agg(1::bigint << rp.purpose_id order by rp.position) as masks,
      string_agg(format('when %L then %s', p.name, 1::bigint << rp.purpose_id), ' ' order by rp.position) as claims
    from gdpr_internal.role_purpose as rp
    join gdpr_internal.purpose as p on p.id = rp.purpose_id
    where rp.purpose_id < 62
      and not exists (select from gdpr_internal.role_binding as b where b.role_name = rp.role_name and b.recipient is not null)
      -- maintenance leaves a record: those roles take the long way
      and not exists (select from gdpr_internal.role_purpose as m where m.role_name = rp.role_name and m.purpose_id >= 62)
    group by rp.role_name
  ) as r;
  execute format(
    E'create or replace function gdpr_generated.purpose_mask(p_role name, p_claim text) returns bigint language sql stable parallel restricted '
    'security invoker begin atomic select case when p_role = ''gdpr_worker'' then %s\n'
    'when not gdpr_generated.is_home() then gdpr_policy.purpose_mask(p_role, p_claim)\n%s\nelse gdpr_policy.purpose_mask(p_role, p_claim) end; end',
    1::bigint << 62, v_branches
  );
  comment on function gdpr_generated.purpose_mask(name, text) is
    'The bit of the gate that a statement of a role may pass: the bindings of the policy as code, because every statement asks. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.is_clear(name), gdpr_generated.purpose_mask(name, text) to public;
  select string_agg(
    format(
      'when p_role = %L then case coalesce(p_claim, '''') when '''' then %s %s else gdpr_internal.purpose_inherited(p_role, p_claim) end',
      r.role_name, r.ids[1], r.claims
    ), E'\n' order by r.role_name
  )
  into v_branches
  from (
    select rp.role_name, array_agg(rp.purpose_id order by rp.position) as ids,
      string_agg(format('when %L then %s', p.name, rp.purpose_id), ' ' order by rp.position) as claims
    from gdpr_internal.role_purpose as rp
    join gdpr_internal.purpose as p on p.id = rp.purpose_id
    where rp.role_name <> 'gdpr_worker'
      and not exists (select from gdpr_internal.role_binding as b where b.role_name = rp.role_name and b.recipient is not null)
    group by rp.role_name
  ) as r;
  execute format(
    E'create or replace function gdpr_generated.purpose_held(p_role name, p_claim text) returns smallint language sql stable parallel restricted '
    'security invoker begin atomic select (case %s\nelse gdpr_internal.purpose_inherited(p_role, p_claim) end)::smallint; end',
    v_branches
  );
  comment on function gdpr_generated.purpose_held(name, text) is
    'The purpose a role works for, or null: the bindings of the policy as code, because every statement asks. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.purpose_held(name, text) to gdpr_keyholder;
end
$function$;
comment on function gdpr_internal.generate_purposes() is 'Generates gdpr_generated.purpose_held(), purpose_mask() and is_clear() from the bindings of roles, and is_home().';

create or replace function gdpr_internal.export_binding(p_role name)
returns name
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select b.role_name
    from gdpr_internal.role_binding as b
    where b.recipient is not null
      and (b.role_name = p_role or pg_has_role(p_role, to_regrole(quote_ident(b.role_name))::oid, 'usage'))
    order by (b.role_name <> p_role), b.role_name
    limit 1
  );
end
$function$;
comment on function gdpr_internal.export_binding(name) is
  'The binding of a role, or of one it is a member of, that names a recipient, else null.';

create or replace function gdpr_policy.purpose_mask(p_role name, p_claim text)
returns bigint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint;
begin
  if p_role = 'gdpr_worker' then
    -- gdprdb's own functions: the claim in the setting is not theirs
    return 1::bigint << 62;
  end if;
  v_purpose := gdpr_generated.purpose_held(p_role, nullif(p_claim, ''));
  if v_purpose < 62 then
    if not gdpr_generated.is_home() and gdpr.whereabouts() = 'restored' then
      perform gdpr_internal.refuse('restored');
    end if;
    return 1::bigint << v_purpose;
  end if;
  if v_purpose is null then
    if p_role = gdpr_internal.acting_role() and gdpr_internal.confirming() then
      return 1::bigint << 62;
    end if;
    perform gdpr_internal.refuse(
      case
        when gdpr_internal.export_binding(p_role) is not null then 'export_only'
        when nullif(p_claim, '') is null then 'no_purpose'
        else 'purpose_not_held'
      end,
      format('role %s', quote_ident(p_role))
    );
  end if;
  if v_purpose = 63 then
    perform gdpr_internal.note_maintenance();
  end if;
  return 1::bigint << 62;
end
$function$;
comment on function gdpr_policy.purpose_mask(name, text) is
  'The bit of the gate that a statement of p_role may pass (p_claim: setting gdpr.purpose). Once per statement, as an InitPlan of the row policies. Errors: gdpr_no_purpose, gdpr_purpose_not_held, gdpr_export_only (42501), PR640 restored from a backup. Art. 5(1)(b).';

create or replace function gdpr.purpose_bit()
returns bigint
language sql
stable
parallel restricted
security invoker
begin atomic
  select gdpr_policy.purpose_mask(current_user, current_setting('gdpr.purpose', true));
end;
comment on function gdpr.purpose_bit() is 'The bit of the purpose this statement works for (bit 62: compliance and maintenance).';

create or replace function gdpr_internal.check_context(p_role name, p_purpose text, p_source jsonb)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_purpose is not null then
    perform gdpr_policy.purpose_mask(p_role, p_purpose);
  end if;
  if p_source is not null then
    perform set_config('gdpr.source', p_source::text, true);
    perform gdpr_internal.context_source();
  end if;
  return true;
end
$function$;
comment on function gdpr_internal.check_context(name, text, jsonb) is 'Refuses a purpose that the role does not hold and a source of unknown kind.';

create or replace function gdpr.set_context(
  p_actor text default null,
  p_purpose text default null,
  p_source jsonb default null,
  p_request text default null
)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.check_context(current_user, p_purpose, p_source);
  select
    set_config('gdpr.actor', coalesce(p_actor, ''), true),
    set_config('gdpr.purpose', coalesce(p_purpose, ''), true),
    set_config('gdpr.source', coalesce(p_source::text, ''), true),
    set_config('gdpr.request', coalesce(p_request, ''), true);
end;
comment on function gdpr.set_context(text, text, jsonb, text) is
  'Says, for this transaction, who acts (actor: end user, free text), for which purpose (one the role holds), where new data comes from (source: {"kind": "web_form", "form", "url", "ip", "referrer", "user_agent"}, {"kind": "import", "file", "line"}, {"kind": "manual", "user", "reason"}, {"kind": "api", "service", "ip", "user_agent"}, {"kind": "integration", "system", "record"} or {"kind": "migration", "file", "system", "record"}; all details optional) and in which request. Errors: 42501 purpose not held, PR004 no such source. Art. 5(1)(b), Art. 13, 14.';

create or replace function gdpr_policy.refuse_base(p_role name)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if gdpr_internal.clear_inherited(p_role) then
    return true;
  end if;
  return gdpr_internal.refuse(
    case
      when gdpr_internal.export_binding(p_role) is not null then 'export_only'
      when gdpr_generated.purpose_held(p_role, null) is null then 'no_purpose'
      else 'base_refused'
    end,
    format('role %s', quote_ident(p_role))
  );
end
$function$;
comment on function gdpr_policy.refuse_base(name) is
  'Lets roles of audience clear touch a protected table itself, tells every other role why not. Errors: gdpr_no_purpose, gdpr_base_refused (42501).';

create or replace function gdpr_internal.purpose_id(p_name text)
returns smallint
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint;
begin
  select p.id into v_id from gdpr_internal.purpose as p where p.name = p_name;
  if v_id is null then
    perform gdpr_internal.refuse('unknown_purpose');
  end if;
  return v_id;
end
$function$;
comment on function gdpr_internal.purpose_id(text) is 'The number of a purpose. Error: PR003 unknown purpose.';

create or replace function gdpr_internal.require_read_committed()
returns void
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform gdpr_internal.refuse('needs_read_committed');
  end if;
end
$function$;
comment on function gdpr_internal.require_read_committed() is
  'Refuses to lock data under an older snapshot: rows that other sessions inserted meanwhile would keep the old gate.';

create or replace function gdpr.text_of(p_value anyelement)
returns text
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 3
set bytea_output = 'hex'
as $function$
begin
  -- format() calls the output function; a cast could be one that the owner of the type planted
  return format('%s', p_value);
end
$function$;
comment on function gdpr.text_of(anyelement) is 'A value as text that means the same in every session: ISO dates in UTC, shortest exact floats, hexadecimal bytea.';

-- 00_foundation/34_terms.sql
-- [code] The terms of the law that policies and records use, each named once.
-- GDPR Art. 6(1), Art. 9(1), 9(2). The words are those of the W3C Data Privacy Vocabulary where it has them.

set local role gdpr_owner;

create or replace function gdpr_internal.grounds()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['contract', 'legal_obligation', 'vital_interests', 'public_task', 'legitimate_interests'];
end;
comment on function gdpr_internal.grounds() is 'The lawful bases of Art. 6(1) other than consent.';

create or replace function gdpr_internal.special_kinds()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'racial_or_ethnic_origin', 'political_opinion', 'religious_or_philosophical_belief', 'trade_union_membership', 'genetic', 'biometric',
    'health', 'sex_life', 'sexual_orientation'
  ];
end;
comment on function gdpr_internal.special_kinds() is 'The special categories of personal data of Art. 9(1).';

create or replace function gdpr_internal.special_conditions()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'explicit_consent', 'employment_law', 'vital_interests', 'not_for_profit', 'made_public', 'legal_claims', 'public_interest', 'health_care',
    'public_health', 'archiving'
  ];
end;
comment on function gdpr_internal.special_conditions() is 'The conditions of Art. 9(2), (a) to (j), under which special categories may be processed.';

create or replace function gdpr_internal.audiences()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['bi', 'export', 'api', 'integration'];
end;
comment on function gdpr_internal.audiences() is 'The audiences of redacted views: each has a schema and a group, both named gdpr_<audience>.';

create or replace function gdpr_internal.outgoing_audiences()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['export', 'api', 'integration'];
end;
comment on function gdpr_internal.outgoing_audiences() is 'The audiences through which data leave for recipients (Art. 4(9)).';

create or replace function gdpr_internal.view_schemas()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['gdpr_clear'] || array(select 'gdpr_' || a from unnest(gdpr_internal.audiences()) as a);
end;
comment on function gdpr_internal.view_schemas() is 'The schemas of the views that are generated for protected tables.';

-- 00_foundation/35_time.sql
-- [code] Days as the policy counts them: "until 31 March" ends where the company is, whatever the session's TimeZone.
-- GDPR Art. 5(1)(e). Called by: whoever records something that ends; gdprdb's own functions.

set local role gdpr_owner;

create or replace function gdpr_internal.time_zone()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce((select s.value #>> '{}' from gdpr_internal.setting as s where s.name = 'time_zone'), 'UTC');
end;
comment on function gdpr_internal.time_zone() is 'The time zone of the policy (settings.time_zone), else UTC.';

create or replace function gdpr.until(p_date date)
returns timestamptz
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_zone text := gdpr_internal.time_zone();
  v_midnight timestamp := p_date + 1;
  v_end timestamptz := v_midnight at time zone v_zone;
begin
  -- where clocks go back from one to midnight it strikes twelve twice, and PostgreSQL means the second time
  if (v_end - interval '1 hour') at time zone v_zone = v_midnight then
    v_end := v_end - interval '1 hour';
  end if;
  return v_end;
end
$function$;
comment on function gdpr.until(date) is
  'The instant at which a day ends in the time zone of the policy (settings.time_zone, else UTC): what is valid until 31 March holds through all of it. Days on which the clocks change included.';

create or replace function gdpr_internal.utc(p_at timestamptz)
returns text
language sql
stable
parallel safe
security invoker
begin atomic
  select case when isfinite(p_at) then to_char(timezone('UTC', p_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end;
end;
comment on function gdpr_internal.utc(timestamptz) is 'An instant as documents have it: ISO 8601 in UTC; null for one that never comes.';

-- 00_foundation/35_tokens.sql
-- [code] One-time tokens: made, known, taken.
-- GDPR Art. 32(1)(b). Called by: asking for consent, double opt-in, the portal. A token leaves the database once, in the mail
-- that carries it. The functions pin debug_print_plan: with it the log would show the constants of nested statements.

set local role gdpr_owner;

create or replace function gdpr_internal.create_tokens(
  p_kind text, p_references bigint[], p_subjects bigint[], p_valid_until timestamptz[]
)
returns table (reference bigint, token text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  return query
  with made as materialized (
    select
      n.reference, n.subject_id, n.valid_until,
      rtrim(translate(encode(gdpr_internal.gen_random_bytes(32), 'base64'), '+/', '-_'), '=') as token
    from unnest(p_references, p_subjects, p_valid_until) as n (reference, subject_id, valid_until)
  ),
  kept as (
    insert into gdpr_internal.token (digest, kind, reference, subject_id, valid_until)
    select sha256(convert_to(m.token, 'UTF8')), p_kind, m.reference, m.subject_id, m.valid_until
    from made as m
  )
  select m.reference, m.token from made as m;
end
$function$;
comment on function gdpr_internal.create_tokens(text, bigint[], bigint[], timestamptz[]) is
  'Makes one token for each reference, with its person (null: nobody yet) and the instant until which it can be taken. The only time that the tokens are seen.';

create or replace function gdpr_internal.create_token(p_kind text, p_reference bigint, p_subject bigint, p_valid_until timestamptz)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_token text;
begin
  select t.token into v_token
  from gdpr_internal.create_tokens(p_kind, array[p_reference], array[p_subject], array[p_valid_until]) as t;
  return v_token;
end
$function$;
comment on function gdpr_internal.create_token(text, bigint, bigint, timestamptz) is
  'Makes a token of 32 random bytes (base64url, 43 characters). Only its digest is kept.';

create or replace function gdpr_internal.know_token(p_token text, p_kind text, p_fresh boolean default false)
returns gdpr_internal.token
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  -- whatever was given, one digest of 43 bytes at the most and one probe of the index; the text and not the bytes it stands
  -- for is digested, so that a token has one spelling
  v_digest bytea := sha256(convert_to(case when octet_length(p_token) = 43 then p_token else '' end, 'UTF8'));
  v_token gdpr_internal.token;
begin
  perform gdpr_internal.require_home();
  -- first the person, then the token: as everybody does who asks anew or records an answer, so that they never wait in a ring
  perform from gdpr_internal.subject as s
  where s.id = (select t.subject_id from gdpr_internal.token as t where t.digest = v_digest and t.kind = p_kind)
  for no key update;
  select t.* into v_token
  from gdpr_internal.token as t
  where t.digest = v_digest
    and t.kind = p_kind
    -- the clock: a statement that began before the deadline and waited is late
    and case when t.used_at is null then t.valid_until > clock_timestamp() else not p_fresh end
  for update;
  if not found then
    perform gdpr_internal.refuse('token_refused');
  end if;
  return v_token;
end
$function$;
comment on function gdpr_internal.know_token(text, text, boolean) is
  'The token of this kind, locked: one that can be taken or, unless p_fresh, one that was (used_at). Error: PR303, the same for a token that was guessed, mangled, made for something else, withdrawn or not used in time.';

create or replace function gdpr_internal.take_token(p_token text, p_kind text)
returns gdpr_internal.token
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_token gdpr_internal.token;
begin
  v_token := gdpr_internal.know_token(p_token, p_kind, true);
  update gdpr_internal.token as t set used_at = statement_timestamp() where t.digest = v_token.digest;
  return v_token;
end
$function$;
comment on function gdpr_internal.take_token(text, text) is
  'Takes a token of this kind, once: whoever comes second, at the same time too, is refused. Error: PR303, as know_token() raises it.';

-- 00_foundation/40_read_policy.sql
-- [code] Reading a policy: one normal form, every problem named, nothing changed.
-- GDPR Art. 25. Called by: gdpr.plan().

set local role gdpr_owner;

create or replace function gdpr_internal.base_type(p_type text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select regexp_replace(p_type, '\([0-9,]+\)', '');
end;
comment on function gdpr_internal.base_type(text) is 'A type as format_type() names it, without its length.';

create or replace function gdpr_internal.unknown_keys(p_where text, p_object jsonb, p_known text[])
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when p_object is null then '{}'
    when jsonb_typeof(p_object) <> 'object' then array[format('%s: has to be a table of settings', p_where)]
    else (
      select coalesce(array_agg(format('%s: unknown setting %s; known are %s', p_where, to_json(k.key), array_to_string(p_known, ', '))), '{}')
      from jsonb_object_keys(p_object) as k (key)
      where k.key <> all (p_known)
    )
  end;
end;
comment on function gdpr_internal.unknown_keys(text, jsonb, text[]) is 'Problems: settings that nobody reads, most often misspelt.';

create or replace function gdpr_internal.read_interval(p_where text, p_value text, out value interval, out problem text)
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
begin
  value := p_value::interval;
  if value <= interval '0' then
    problem := format('%s: has to be longer than nothing', p_where);
  end if;
exception when data_exception then
  problem := format('%s: %s is not a duration such as "14 days"', p_where, to_json(p_value));
end
$function$;
comment on function gdpr_internal.read_interval(text, text) is 'A duration of the policy, or the problem with it.';

create or replace function gdpr_internal.text_array(p_value jsonb)
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select case jsonb_typeof(p_value)
    when 'array' then (select coalesce(array_agg(e.value order by e.n), '{}') from jsonb_array_elements_text(p_value) with ordinality as e (value, n))
    when 'string' then array[p_value #>> '{}']
  end;
end;
comment on function gdpr_internal.text_array(jsonb) is 'A list of texts; one text counts as a list of one; null for anything else.';

create or replace function gdpr_internal.find_table(p_name text)
returns regclass
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_parts text[];
  v_table regclass;
begin
  -- looked up in the catalog: a cast to regclass would need USAGE on the application's schema
  begin
    v_parts := parse_ident(p_name);
  exception when invalid_parameter_value then
    v_parts := null;
  end;
  -- the LIMIT makes each reading of the name one probe of an index: a policy asks for its tables many times
  select t.oid into v_table
  from (
    -- as written in TOML: a schema, a dot, and the name with its capitals and spaces
    select 1 as rank, left(p_name, i - 1) as schema_name, substr(p_name, i + 1) as table_name
    from generate_series(1, length(p_name)) as i
    where substr(p_name, i, 1) = '.'
    union all
    select 2, case when cardinality(v_parts) = 1 then 'public' else v_parts[cardinality(v_parts) - 1] end, v_parts[cardinality(v_parts)]
    union all
    select 2, 'public', p_name
  ) as r
  cross join lateral (
    select c.oid
    from pg_class as c
    where c.relname = r.table_name and c.relnamespace = (select n.oid from pg_namespace as n where n.nspname = r.schema_name)
    limit 1
  ) as t
  order by r.rank
  limit 1;
  return v_table;
end
$function$;
comment on function gdpr_internal.find_table(text) is 'The table that a policy names: schema.name, quoted as in SQL or plain; without a schema, public.';

create or replace function gdpr_internal.read_purposes(p_policy jsonb, out purposes jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
declare
  v_name text;
  v_in jsonb;
  v_definition jsonb;
  v_setting text;
  v_interval record;
begin
  purposes := '{}';
  problems := '{}';
  for v_name, v_in in select key, value from jsonb_each(coalesce(p_policy -> 'purposes', '{}')) order by key loop
    problems := problems || gdpr_internal.unknown_keys(
      'purposes.' || v_name, v_in,
      array[
        'description', 'basis', 'respond_within', 'remind', 'valid_for', 'while_waiting', 'retain', 'grace', 'condition', 'automated_decision',
        'direct_marketing'
      ]
    );
    continue when jsonb_typeof(v_in) <> 'object';
    if v_name in ('compliance', 'maintenance') then
      problems := problems || format('purposes.%s: is built in', v_name);
    elsif v_name !~ '^[a-z][a-z0-9_]{0,62}$' then
      problems := problems || format('purposes.%s: a name is lower case letters, digits and _', to_json(v_name));
    end if;
    if coalesce(v_in ->> 'basis', '') <> all (gdpr_internal.grounds() || 'consent'::text) then
      problems := problems || format('purposes.%s.basis: one of %s, consent', v_name, array_to_string(gdpr_internal.grounds(), ', '));
    end if;
    if v_in ? 'grace' and v_in ->> 'basis' not in ('consent', 'legitimate_interests') then
      problems := problems || format('purposes.%s: grace is for consent and legitimate_interests', v_name);
    end if;
    if v_in ->> 'condition' <> all (gdpr_internal.special_conditions()) then
      problems := problems || format('purposes.%s.condition: one of %s', v_name, array_to_string(gdpr_internal.special_conditions(), ', '));
    end if;
    if v_in ->> 'direct_marketing' not in ('true', 'false') then
      problems := problems || format('purposes.%s.direct_marketing: true or false', v_name);
    end if;
    if v_in ->> 'basis' <> 'consent' and v_in ?| array['respond_within', 'remind', 'valid_for', 'while_waiting'] then
      problems := problems || format('purposes.%s: respond_within, remind, valid_for and while_waiting are for consent', v_name);
    end if;
    if coalesce(v_in ->> 'while_waiting', 'lock') not in ('allow', 'lock') then
      problems := problems || format('purposes.%s.while_waiting: "allow" or "lock"', v_name);
    end if;
    if jsonb_typeof(v_in -> 'automated_decision') <> 'string' then
      problems := problems || format('purposes.%s.automated_decision: words for the person', v_name);
    end if;
    -- false is as good as nothing said
    v_definition := jsonb_strip_nulls(v_in || jsonb_build_object('direct_marketing', nullif(v_in -> 'direct_marketing', 'false')));
    if v_in ->> 'basis' = 'consent' then
      v_definition := v_definition || jsonb_build_object('while_waiting', coalesce(v_in ->> 'while_waiting', 'lock'));
    end if;
    if v_in ->> 'basis' in ('consent', 'legitimate_interests') then
      -- by default nothing is locked on the day that a table is switched on
      v_definition := '{"grace": "90 days"}' || v_definition;
    end if;
    foreach v_setting in array array['respond_within', 'remind', 'valid_for', 'retain', 'grace'] loop
      continue when not v_definition ? v_setting or (v_setting = 'grace' and v_definition -> 'grace' = 'false');
      v_interval := gdpr_internal.read_interval(format('purposes.%s.%s', v_name, v_setting), v_definition ->> v_setting);
      if v_interval.problem is not null then
        problems := problems || v_interval.problem;
      else
        v_definition := v_definition || jsonb_build_object(v_setting, v_interval.value::text);
      end if;
    end loop;
    if not v_in ? 'respond_within' and v_in ? 'remind' then
      problems := problems || format('purposes.%s.remind: there is no deadline to remind of; say respond_within', v_name);
    elsif (gdpr_internal.read_interval('', v_in ->> 'remind')).value >= (gdpr_internal.read_interval('', v_in ->> 'respond_within')).value then
      problems := problems || format('purposes.%s.remind: has to be shorter than respond_within', v_name);
    end if;
    purposes := purposes || jsonb_build_object(v_name, v_definition);
  end loop;
  if (select count(*) from (
    select key from jsonb_object_keys(purposes) as n (key)
    union select p.name from gdpr_internal.purpose as p where p.id < 62
  ) as a) > 62 then
    problems := problems || 'purposes: at most 62, those used before counted'::text;
  end if;
end
$function$;
comment on function gdpr_internal.read_purposes(jsonb) is 'The purposes of a policy in normal form, and their problems.';

create or replace function gdpr_internal.read_roles(p_policy jsonb, p_purposes jsonb, out roles jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_name text;
  v_in jsonb;
  v_purposes text[];
  v_may text[];
  v_purpose text;
begin
  roles := '{}';
  problems := '{}';
  for v_name, v_in in select key, value from jsonb_each(coalesce(p_policy -> 'roles', '{}')) order by key loop
    problems := problems || gdpr_internal.unknown_keys('roles.' || v_name, v_in, array['audience', 'purposes', 'may', 'recipient']);
    continue when jsonb_typeof(v_in) <> 'object';
    if to_regrole(quote_ident(v_name)) is null then
      problems := problems || format('roles.%s: there is no such role in this server', v_name);
    elsif v_name ~ '^gdpr_(owner|keyholder|worker|viewer|admin|dpo|auditor|app|bi|export|api|integration|portal|mail)$' then
      problems := problems || format('roles.%s: is gdprdb''s own', v_name);
    elsif (select r.rolsuper or r.rolbypassrls from pg_roles as r where r.rolname = v_name) then
      problems := problems || format('roles.%s: a superuser or a role with BYPASSRLS passes every rule', v_name);
    end if;
    if coalesce(v_in ->> 'audience', '') <> all (gdpr_internal.audiences() || array['clear', 'mail']) then
      problems := problems || format('roles.%s.audience: "clear", "bi", "export", "api", "integration" or "mail"', v_name);
    end if;
    if v_in ? 'recipient' and (
      coalesce(v_in ->> 'audience', '') <> all (gdpr_internal.outgoing_audiences()) or coalesce(v_in ->> 'recipient', '') = ''
    ) then
      problems := problems || format('roles.%s.recipient: who gets what audience export, api or integration reads, as gdpr.recipient names it', v_name);
    end if;
    v_purposes := gdpr_internal.text_array(v_in -> 'purposes');
    if v_in ->> 'audience' = 'mail' then
      v_purposes := coalesce(v_purposes, '{}');
      if v_purposes <> '{}' or coalesce(gdpr_internal.text_array(v_in -> 'may'), '{}') <> '{}' then
        problems := problems || format('roles.%s: a role that sends mails has no purposes and may do nothing else', v_name);
      end if;
    elsif v_purposes is null or v_purposes = '{}' then
      problems := problems || format('roles.%s.purposes: at least one', v_name);
    end if;
    foreach v_purpose in array coalesce(v_purposes, '{}') loop
      if v_purpose = 'compliance' then
        problems := problems || format('roles.%s.purposes: compliance belongs to gdpr_dpo', v_name);
      elsif v_purpose <> 'maintenance' and not p_purposes ? v_purpose then
        problems := problems || format('roles.%s.purposes: there is no purpose %s', v_name, to_json(v_purpose));
      end if;
    end loop;
    if 'maintenance' = any (v_purposes) and v_in ->> 'audience' <> 'clear' then
      problems := problems || format('roles.%s: maintenance touches the tables themselves, which needs audience clear', v_name);
    end if;
    v_may := coalesce(gdpr_internal.text_array(v_in -> 'may'), '{}');
    if not v_may <@ array['basis', 'consent', 'disclose', 'rectify'] then
      problems := problems || format('roles.%s.may: "basis", "consent", "disclose" and "rectify"', v_name);
    end if;
    roles := roles || jsonb_build_object(v_name, jsonb_build_object(
      'audience', v_in -> 'audience', 'purposes', to_jsonb(v_purposes), 'may', to_jsonb(v_may)
    ) || case when v_in ? 'recipient' then jsonb_build_object('recipient', v_in -> 'recipient') else '{}' end);
  end loop;
end
$function$;
comment on function gdpr_internal.read_roles(jsonb, jsonb) is 'The bindings of roles in normal form, and their problems.';

create or replace function gdpr_internal.column_reference(p_name text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select coalesce(
    (
      select format('%s.%I', a.attrelid::regclass, a.attname)
      from pg_attribute as a
      where a.attrelid = gdpr_internal.find_table(substring(p_name from '^(.*)[.][^.]*$')) and a.attnum > 0 and not a.attisdropped
        and a.attname::text = btrim(substring(p_name from '[^.]*$'), '"')
    ), p_name
  );
end;
comment on function gdpr_internal.column_reference(text) is 'A column named as schema.table.column, in the catalog''s writing; as it came if there is none.';

create or replace function gdpr_internal.read_column(p_where text, p_relation regclass, p_name text, p_in jsonb, out definition jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_attribute pg_attribute;
  v_type text;
  v_encrypt text;
  v_mask text;
  v_erase jsonb := p_in -> 'erase';
begin
  problems := gdpr_internal.unknown_keys(
    p_where, p_in, array[
      'category', 'identifier', 'language', 'sensitive', 'encrypt', 'mask', 'canonical', 'erase', 'age', 'special', 'provided', 'about', 'review', 'same_as'
    ]
  );
  if jsonb_typeof(p_in) <> 'object' then
    return;
  end if;
  select a.* into v_attribute from pg_attribute as a
  where a.attrelid = p_relation and a.attname = p_name and a.attnum > 0 and not a.attisdropped;
  if v_attribute.attname is null then
    problems := problems || format('%s: the table has no such column', p_where);
    return;
  end if;
  v_type := coalesce(
    (
      select c.original_type from gdpr_internal.protected_column as c
      join gdpr_internal.protected_table as t on t.id = c.table_id
      where t.relation = p_relation and t.unprotected_at is null and c.column_name = p_name
    ),
    format_type(v_attribute.atttypid, v_attribute.atttypmod)
  );
  v_encrypt := case p_in ->> 'encrypt' when 'true' then 'yes' when 'false' then 'no' else coalesce(p_in ->> 'encrypt', 'no') end;
  if v_encrypt not in ('no', 'yes', 'searchable') then
    problems := problems || format('%s.encrypt: true, false or "searchable"', p_where);
  end if;
  v_mask := coalesce(p_in ->> 'mask', case when v_encrypt <> 'no' or p_in ->> 'sensitive' = 'true' then 'hide' else 'show' end);
  if v_mask not in ('show', 'hide', 'initial', 'email', 'year', 'pseudonym') then
    problems := problems || format('%s.mask: one of show, hide, initial, email, year, pseudonym', p_where);
  elsif v_mask = 'show' and (v_encrypt <> 'no' or p_in ->> 'sensitive' = 'true') then
    problems := problems || format('%s.mask: a sensitive column cannot be shown', p_where);
  elsif v_mask in ('initial', 'email', 'pseudonym') and gdpr_internal.base_type(v_type) not in ('text', 'character varying', 'character') then
    problems := problems || format('%s.mask: %s is for text, the column is %s', p_where, v_mask, v_type);
  elsif v_mask = 'year' and gdpr_internal.base_type(v_type) not in ('date', 'timestamp without time zone', 'timestamp with time zone') then
    problems := problems || format('%s.mask: year is for dates and timestamps, the column is %s', p_where, v_type);
  end if;
  if coalesce(p_in ->> 'identifier', 'text') not in ('email', 'phone', 'text') then
    problems := problems || format('%s.identifier: one of email, phone, text', p_where);
  end if;
  if coalesce(p_in ->> 'canonical', 'identifier') not in ('identifier', 'exact') then
    problems := problems || format('%s.canonical: "identifier" or "exact"', p_where);
  elsif p_in ->> 'canonical' = 'exact' and p_in ? 'identifier' then
    problems := problems || format('%s.canonical: an identifier is compared in its canonical form', p_where);
  end if;
  if p_in ->> 'age' = 'true' and gdpr_internal.base_type(v_type) not in ('date', 'timestamp without time zone', 'timestamp with time zone') then
    problems := problems || format('%s.age: is for birth dates, the column is %s', p_where, v_type);
  elsif coalesce(p_in ->> 'age', 'false') not in ('true', 'false') then
    problems := problems || format('%s.age: true or false', p_where);
  end if;
  if coalesce(p_in ->> 'provided', 'true') not in ('true', 'false') then
    problems := problems || format('%s.provided: true or false', p_where);
  end if;
  if p_in ->> 'special' <> all (gdpr_internal.special_kinds()) then
    problems := problems || format('%s.special: one of %s', p_where, array_to_string(gdpr_internal.special_kinds(), ', '));
  elsif p_in ? 'special' and (v_encrypt <> 'yes' or v_mask <> 'hide') then
    problems := problems || format('%s: a special category needs encrypt = true and mask = "hide"', p_where);
  elsif p_in ? 'special' and p_in ? 'identifier' then
    problems := problems || format('%s: a special category cannot identify', p_where);
  end if;
  if octet_length('gdpr_' || p_name || '_digest') > 63 and (v_encrypt <> 'no' or v_mask = 'pseudonym') then
    problems := problems || format('%s: the name is too long, gdpr_<column>_digest has to fit into 63 bytes', p_where);
  end if;
  if v_encrypt = 'searchable' and exists (
    select from pg_attribute as a where a.attrelid = p_relation and a.attname = p_name || '_digest' and not a.attisdropped
  ) then
    problems := problems || format('%s: the clear view needs the name %s, which is a column of the table', p_where, to_json(p_name || '_digest'));
  end if;
  if p_in ? 'identifier' and gdpr_internal.base_type(v_type) not in (
    'text', 'character varying', 'character', 'smallint', 'integer', 'bigint', 'numeric', 'uuid'
  ) then
    problems := problems || format('%s.identifier: a column of type %s cannot be an identifier', p_where, v_type);
  end if;
  if coalesce(p_in ->> 'language', 'true') not in ('true', 'false') then
    problems := problems || format('%s.language: true or false', p_where);
  elsif p_in ->> 'language' = 'true' and gdpr_internal.base_type(v_type) not in ('text', 'character varying', 'character') then
    problems := problems || format('%s.language: is for text, the column is %s', p_where, v_type);
  end if;
  if v_encrypt <> 'no' then
    if p_in ->> 'sensitive' = 'false' then
      problems := problems || format('%s: is encrypted and not sensitive, which contradict each other', p_where);
    end if;
    problems := problems || gdpr_internal.encryption_problems(p_where, p_relation, v_attribute, v_type, v_encrypt);
  end if;
  if v_erase is not null then
    problems := array_remove(
      problems || gdpr_internal.erase_problem(p_where, p_relation, v_attribute, v_type, v_encrypt, v_mask, v_erase), null
    );
  end if;
  if coalesce(p_in ->> 'review', 'true') not in ('true', 'false') then
    problems := problems || format('%s.review: true or false', p_where);
  end if;
  definition := jsonb_strip_nulls(jsonb_build_object(
    'category', coalesce(p_in ->> 'category', 'other'),
    'sensitive', coalesce(p_in ->> 'sensitive' = 'true', false) or v_encrypt <> 'no',
    'encrypt', v_encrypt,
    'identifier', p_in ->> 'identifier',
    'canonical', coalesce(p_in ->> 'canonical', 'identifier'),
    'language', case when p_in ->> 'language' = 'true' then true end,
    'mask', v_mask,
    'erase', v_erase,
    'age', case when p_in ->> 'age' = 'true' then true end,
    'special', p_in ->> 'special',
    'provided', case when p_in ->> 'provided' = 'false' then false end,
    'about', p_in ->> 'about',
    'review', case when p_in ->> 'review' = 'true' then true end,
    'same_as', gdpr_internal.column_reference(p_in ->> 'same_as')
  ));
end
$function$;
comment on function gdpr_internal.read_column(text, regclass, text, jsonb) is 'One column of a policy in normal form, and its problems.';

create or replace function gdpr_internal.encryption_problems(p_where text, p_relation regclass, p_attribute pg_attribute, p_type text, p_encrypt text)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_problems text[] := '{}';
  v_protected boolean := exists (
    select from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    where t.relation = p_relation and t.unprotected_at is null and c.column_name = p_attribute.attname and c.encrypt <> 'no'
  );
  v_dependent record;
begin
  if p_attribute.attcollation <> 0 and not (
    select c.collisdeterministic from pg_collation as c where c.oid = p_attribute.attcollation
  ) then
    v_problems := v_problems || format('%s: has a nondeterministic collation, which ciphertext cannot follow', p_where);
  end if;
  if not v_protected and not exists (
    select from pg_type as y
    where y.oid = p_attribute.atttypid and y.typtype = 'b' and y.typnamespace = 'pg_catalog'::regnamespace
      and y.typname <> all (array['money', 'xml', 'tsvector', 'tsquery', 'pg_lsn', 'oid', 'regclass'])
  ) then
    v_problems := v_problems || format('%s: columns of type %s cannot be encrypted yet', p_where, p_type);
  end if;
  if p_attribute.attidentity <> '' or p_attribute.attgenerated <> '' then
    v_problems := v_problems || format('%s: an identity or generated column cannot be encrypted', p_where);
  end if;
  if v_protected then
    return v_problems;
  end if;
  for v_dependent in
    select
      d.classid,
      d.objid,
      case
        when d.classid = 'pg_constraint'::regclass then (select k.contype::text from pg_constraint as k where k.oid = d.objid)
        when d.classid = 'pg_class'::regclass then (select c.relkind::text from pg_class as c where c.oid = d.objid)
      end as kind,
      pg_describe_object(d.classid, d.objid, d.objsubid) as name,
      case when d.classid = 'pg_class'::regclass then d.objid end as index_id,
      case when d.classid = 'pg_constraint'::regclass then (select k.conindid from pg_constraint as k where k.oid = d.objid) end as constraint_index
    from pg_depend as d
    where d.refclassid = 'pg_class'::regclass and d.refobjid = p_relation and d.refobjsubid = p_attribute.attnum
  loop
    if v_dependent.classid = 'pg_attrdef'::regclass and exists (
      select from pg_attrdef as x where x.oid = v_dependent.objid and x.adnum = p_attribute.attnum
    ) then
      continue;
    elsif v_dependent.classid = 'pg_rewrite'::regclass and exists (
      -- our own views are taken off before
      select from pg_rewrite as w
      join pg_class as c on c.oid = w.ev_class
      where w.oid = v_dependent.objid and c.relnamespace::regnamespace::text = any (gdpr_internal.view_schemas())
    ) then
      continue;
    elsif v_dependent.kind = 'u' or v_dependent.kind = 'i' then
      if exists (
        select from pg_index as x
        where x.indexrelid = coalesce(nullif(v_dependent.constraint_index, 0), v_dependent.index_id) and x.indisunique
          and (p_encrypt <> 'searchable' or x.indkey::text <> p_attribute.attnum::text or x.indpred is not null or x.indexprs is not null)
      ) then
        v_problems := v_problems || format(
          '%s: %s needs encrypt = "searchable" and to be over this column alone', p_where, v_dependent.name
        );
      end if;
    elsif v_dependent.kind = 'p' then
      v_problems := v_problems || format('%s: is part of the primary key', p_where);
    elsif v_dependent.kind = 'f' then
      v_problems := v_problems || format('%s: is part of a foreign key (%s)', p_where, v_dependent.name);
    elsif v_dependent.kind = 'c' then
      v_problems := v_problems || format('%s: %s would test the ciphertext; drop it and test in the application or a trigger', p_where, v_dependent.name);
    elsif v_dependent.kind = 'x' then
      v_problems := v_problems || format('%s: %s cannot compare ciphertext', p_where, v_dependent.name);
    elsif coalesce(v_dependent.kind, '') not in ('S', 'n') then
      -- n: NOT NULL, an object since PostgreSQL 18, means the same for ciphertext
      v_problems := v_problems || format('%s: %s depends on the column; drop it, apply, and create it on the view gdpr_clear', p_where, v_dependent.name);
    end if;
  end loop;
  if exists (
    select from pg_partitioned_table as p where p.partrelid = p_relation and p_attribute.attnum = any (p.partattrs)
  ) then
    v_problems := v_problems || format('%s: is part of the partition key', p_where);
  end if;
  return v_problems;
end
$function$;
comment on function gdpr_internal.encryption_problems(text, regclass, pg_attribute, text, text) is
  'What stands in the way of encrypting a column: types, constraints and dependent objects whose meaning ciphertext would lose.';

-- 00_foundation/41_read_addresses.sql
-- [code] What a policy says about addresses that mean the same mailbox, and how long the blocklist remembers.
-- GDPR Art. 17, 5(1)(e). Called by: gdpr_internal.settings_problems().

set local role gdpr_owner;

create or replace function gdpr_internal.address_problems(p_addresses jsonb)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_domain text;
  v_rule jsonb;
  v_where text;
  v_problems text[] := '{}';
begin
  if p_addresses is null then
    return '{}';
  elsif jsonb_typeof(p_addresses) <> 'object' then
    return array['settings.addresses: has to be a table of domains'];
  end if;
  for v_domain, v_rule in select key, value from jsonb_each(p_addresses) loop
    v_where := format('settings.addresses.%s', to_json(v_domain));
    v_problems := v_problems || gdpr_internal.unknown_keys(v_where, v_rule, array['tag', 'ignore_dots', 'same_as']);
    continue when jsonb_typeof(v_rule) <> 'object';
    if v_domain !~ '^[^@\s.]+(\.[^@\s.]+)+$' or gdpr_internal.canonical('email', 'x@' || v_domain) <> 'x@' || v_domain then
      v_problems := v_problems || format('%s: a domain in its canonical form, as "gmail.com"', v_where);
    end if;
    if v_rule ->> 'tag' !~ '^[-+=_%#]?$' then
      v_problems := v_problems || format('%s.tag: the character that begins a tag, one of + - = _ %% #, or "" for none', v_where);
    end if;
    if jsonb_typeof(coalesce(v_rule -> 'ignore_dots', 'false')) <> 'boolean' then
      v_problems := v_problems || format('%s.ignore_dots: true or false', v_where);
    end if;
    if v_rule ? 'same_as' and (
      v_rule ?| array['tag', 'ignore_dots'] or v_rule ->> 'same_as' = v_domain or not p_addresses ? (v_rule ->> 'same_as')
      or p_addresses -> (v_rule ->> 'same_as') ? 'same_as'
    ) then
      v_problems := v_problems || format('%s.same_as: another domain of this list, whose rules hold for both', v_where);
    end if;
  end loop;
  return v_problems;
end
$function$;
comment on function gdpr_internal.address_problems(jsonb) is 'What is wrong with settings.addresses of a policy.';

create or replace function gdpr_internal.retain_problem(p_retain jsonb)
returns text
language sql
stable
parallel safe
security invoker
begin atomic
  select (gdpr_internal.read_interval('settings.blocklist_retain', p_retain #>> '{}')).problem where p_retain is not null;
end;
comment on function gdpr_internal.retain_problem(jsonb) is 'What is wrong with settings.blocklist_retain of a policy, or null.';

-- 00_foundation/41_read_adequacy.sql
-- [code] What a policy says about countries with an adequacy decision.
-- GDPR Art. 45. Called by: gdpr_internal.settings_problems(), the register of recipients.

set local role gdpr_owner;

create or replace function gdpr_internal.countries()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select string_to_array(
    'AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI '
    'CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ '
    'GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS '
    'LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG '
    'PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK '
    'TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW',
    ' '
  );
end;
comment on function gdpr_internal.countries() is 'The country codes of ISO 3166-1 (alpha-2).';

create or replace function gdpr_internal.adequacy_problems(p_adequacy jsonb)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_entry jsonb;
  v_where text;
  v_setting text;
  v_problems text[] := '{}';
begin
  if p_adequacy is null then
    return '{}';
  elsif jsonb_typeof(p_adequacy) <> 'array' then
    return array['settings.adequacy: has to be a list of tables, [[settings.adequacy]]'];
  end if;
  for v_entry in select e.value from jsonb_array_elements(p_adequacy) as e loop
    v_where := format('settings.adequacy.%s', coalesce(to_json(v_entry ->> 'country')::text, '?'));
    v_problems := v_problems || gdpr_internal.unknown_keys(v_where, v_entry, array['country', 'scope', 'from', 'until', 'source']);
    continue when jsonb_typeof(v_entry) <> 'object';
    if coalesce(v_entry ->> 'country', '') <> all (gdpr_internal.countries()) then
      v_problems := v_problems || format('%s.country: two letters of ISO 3166-1, as "GB"', v_where);
    end if;
    if coalesce(v_entry ->> 'source', '') = '' then
      v_problems := v_problems || format('%s.source: the decision, as "(EU) 2026/179"', v_where);
    end if;
    foreach v_setting in array array['from', 'until'] loop
      if v_entry ->> v_setting !~ '^\d{4}-\d{2}-\d{2}$' or v_setting = 'from' and not v_entry ? 'from' then
        v_problems := v_problems || format('%s.%s: a day, as "2026-01-31"', v_where, v_setting);
      end if;
    end loop;
  end loop;
  return v_problems;
end
$function$;
comment on function gdpr_internal.adequacy_problems(jsonb) is 'What is wrong with settings.adequacy of a policy.';

-- 00_foundation/42_read_settings.sql
-- [code] Reading the settings of a policy.
-- GDPR Art. 25. Called by: gdpr_internal.read_policy(), and gdpr_policy.put_settings(), which anybody in gdpr_admin can call.

set local role gdpr_owner;

create or replace function gdpr_internal.weekdays()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'];
end;
comment on function gdpr_internal.weekdays() is 'The days of the week in the order of ISO 8601.';

create or replace function gdpr_internal.is_holiday(p_text text)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
as $function$
begin
  -- 2024 has a 29 February
  return p_text ~ '^([0-9]{4}-)?[0-9]{2}-[0-9]{2}$' and right('2024-' || p_text, 10)::date is not null;
exception when data_exception then
  return false;
end
$function$;
comment on function gdpr_internal.is_holiday(text) is 'Whether a text is a day (2027-03-26) or one of every year (12-25).';

create or replace function gdpr_internal.settings_problems(p_settings jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.unknown_keys('settings', p_settings, array[
      'phone_country_code', 'time_zone', 'child_age', 'new_timeline', 'controller', 'working_days', 'holidays', 'portal', 'adequacy',
      'addresses', 'blocklist_retain'
    ])
    || gdpr_internal.unknown_keys('settings.controller', p_settings -> 'controller', array['name', 'address', 'country', 'email', 'url'])
    || gdpr_internal.unknown_keys('settings.portal', p_settings -> 'portal', array['link', 'resend', 'session'])
    || gdpr_internal.adequacy_problems(p_settings -> 'adequacy')
    || gdpr_internal.address_problems(p_settings -> 'addresses')
    || array_remove(array[
    (gdpr_internal.read_interval('settings.portal.link', p_settings #>> '{portal,link}')).problem,
    (gdpr_internal.read_interval('settings.portal.resend', p_settings #>> '{portal,resend}')).problem,
    (gdpr_internal.read_interval('settings.portal.session', p_settings #>> '{portal,session}')).problem,
    gdpr_internal.retain_problem(p_settings -> 'blocklist_retain'),
    case when p_settings ->> 'phone_country_code' !~ '^[1-9][0-9]{0,2}$' then 'settings.phone_country_code: digits such as "49"' end,
    case when p_settings ? 'time_zone' and not exists (
      -- names only: offsets and abbreviations know no summer, and '+2' counts westwards
      select from pg_timezone_names as z where z.name = p_settings ->> 'time_zone'
    ) then 'settings.time_zone: a name of the time zone database such as "Europe/Berlin"' end,
    case when p_settings ->> 'new_timeline' not in ('warn', 'refuse') then 'settings.new_timeline: warn or refuse' end,
    case when p_settings ->> 'child_age' !~ '^1[3-6]$' then 'settings.child_age: 13 to 16' end,
    case when jsonb_typeof(p_settings -> 'controller') = 'object' and coalesce(p_settings -> 'controller' ->> 'name', '') = ''
      then 'settings.controller.name: who decides on the processing (Art. 4(7))' end,
    case when p_settings ? 'working_days' and (
      jsonb_typeof(p_settings -> 'working_days') <> 'array' or p_settings -> 'working_days' = '[]'
      or not gdpr_internal.text_array(p_settings -> 'working_days') <@ gdpr_internal.weekdays()
    ) then 'settings.working_days: a list of ' || array_to_string(gdpr_internal.weekdays(), ', ') end,
    case when p_settings ? 'holidays' and (jsonb_typeof(p_settings -> 'holidays') <> 'array' or exists (
      select from unnest(gdpr_internal.text_array(p_settings -> 'holidays')) as h (day)
      where not coalesce(gdpr_internal.is_holiday(h.day), false)
    )) then 'settings.holidays: a list of days such as "2027-03-26", or "12-25" for every year' end
  ], null);
end;
comment on function gdpr_internal.settings_problems(jsonb) is 'What is wrong with the settings of a policy.';

-- 00_foundation/45_read_erase.sql
-- [code] Reading what erasure does with one column: empty, replace, generalise, take parts out, keep for a time.
-- GDPR Art. 17, Art. 25. Called by: gdpr.plan() and the register.

set local role gdpr_owner;

create or replace function gdpr_internal.json_steps(p_path text)
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_step constant text := '\.([A-Za-z_][A-Za-z0-9_-]*)|\.\*|\[\*\]|\[([0-9]+)\]|\["([^"\\]+)"\]';
begin
  if p_path !~ ('^\$(' || v_step || ')+$') then
    return null;
  end if;
  return (
    select jsonb_agg(coalesce(m.step[1], m.step[2], m.step[3]) order by m.n)
    from regexp_matches(p_path, v_step, 'g') with ordinality as m (step, n)
  );
end
$function$;
comment on function gdpr_internal.json_steps(text) is
  'The steps of a path as $.contact.email, $.history[*].ip, $["odd key"], $[0]: keys and positions as text, null for every element; null: it is no such path.';

create or replace function gdpr_internal.json_without(p_value jsonb, p_steps text[])
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_step text := p_steps[1];
  v_kind text := jsonb_typeof(p_value);
  v_rest text[] := p_steps[2:];
begin
  if v_kind is null or v_kind not in ('object', 'array') or (v_kind = 'array' and v_step !~ '^[0-9]+$') then
    return p_value;
  elsif v_rest = '{}' then
    return case
      when v_step is null then case v_kind when 'object' then '{}'::jsonb else '[]'::jsonb end
      when v_kind = 'object' then p_value - v_step
      else p_value - v_step::integer
    end;
  elsif v_step is not null then
    return case
      when v_kind = 'object' and p_value ? v_step then jsonb_set(p_value, array[v_step], gdpr_internal.json_without(p_value -> v_step, v_rest))
      when v_kind = 'array' and p_value -> v_step::integer is not null
        then jsonb_set(p_value, array[v_step], gdpr_internal.json_without(p_value -> v_step::integer, v_rest))
      else p_value
    end;
  elsif v_kind = 'object' then
    return (select coalesce(jsonb_object_agg(e.key, gdpr_internal.json_without(e.value, v_rest)), '{}') from jsonb_each(p_value) as e);
  end if;
  return (
    select coalesce(jsonb_agg(gdpr_internal.json_without(e.value, v_rest) order by e.n), '[]')
    from jsonb_array_elements(p_value) with ordinality as e (value, n)
  );
end
$function$;
comment on function gdpr_internal.json_without(jsonb, text[]) is 'A document without what stands at these steps (a null step: every element).';

create or replace function gdpr_internal.json_only(p_value jsonb, p_paths jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_paths @> '[[]]' and exists (select from jsonb_array_elements(p_paths) as p where p = '[]') then
    return p_value;
  elsif jsonb_typeof(p_value) = 'object' then
    return (
      select coalesce(jsonb_object_agg(e.key, gdpr_internal.json_only(e.value, t.tails)), '{}')
      from jsonb_each(p_value) as e
      cross join lateral (
        select jsonb_agg(p - 0) as tails from jsonb_array_elements(p_paths) as p where p ->> 0 = e.key or p -> 0 = 'null'
      ) as t
      where t.tails is not null
    );
  elsif jsonb_typeof(p_value) = 'array' then
    return (
      select coalesce(jsonb_agg(gdpr_internal.json_only(e.value, t.tails) order by e.n), '[]')
      from jsonb_array_elements(p_value) with ordinality as e (value, n)
      cross join lateral (
        select jsonb_agg(p - 0) as tails from jsonb_array_elements(p_paths) as p where p ->> 0 = (e.n - 1)::text or p -> 0 = 'null'
      ) as t
      where t.tails is not null
    );
  end if;
  return 'null';
end
$function$;
comment on function gdpr_internal.json_only(jsonb, jsonb) is 'What of a document stands at these paths (an array of arrays of steps); all else is left out.';

create or replace function gdpr_internal.keep_problem(p_where text, p_relation regclass, p_keep text)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_interval record := gdpr_internal.read_interval(p_where, split_part(coalesce(p_keep, ''), ' after ', 1));
begin
  return coalesce(v_interval.problem, case when not exists (
    select from pg_attribute as a
    where a.attrelid = p_relation and a.attname = split_part(coalesce(p_keep, ''), ' after ', 2) and not a.attisdropped
      and a.atttypid in ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
  ) then format('%s: "<duration> after <date column>"', p_where) end);
end
$function$;
comment on function gdpr_internal.keep_problem(text, regclass, text) is 'Why this is no period, as "7 years after invoice_date"; null when it is.';

create or replace function gdpr_internal.generalise_problem(p_type text, p_encrypt text, p_mask text, p_to jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when p_to #>> '{}' in ('year', 'decade') then case
      when gdpr_internal.base_type(p_type) not in ('date', 'timestamp without time zone', 'timestamp with time zone') then 'is for dates and timestamps'
      when p_encrypt <> 'no' and (p_mask <> 'year' or p_to #>> '{}' <> 'year') then 'to the year, of an encrypted column, needs mask = "year": nobody can read it any more when the key is gone'
    end
    when p_to #>> '{}' = 'initial' then case
      when gdpr_internal.base_type(p_type) not in ('text', 'character varying', 'character') then 'to the initial is for text'
      when p_encrypt <> 'no' and p_mask <> 'initial' then 'to the initial, of an encrypted column, needs mask = "initial": nobody can read it any more when the key is gone'
    end
    when jsonb_typeof(p_to) <> 'number' or (p_to #>> '{}')::numeric <= 0 then '"year", "decade", "initial", the step of a range, or how many characters stay'
    when p_encrypt <> 'no' then 'of an encrypted column is not possible: nobody can read it any more when the key is gone'
    when gdpr_internal.base_type(p_type) in ('text', 'character varying', 'character') and p_to #>> '{}' ~ '[.]' then 'of text: how many characters stay'
    when gdpr_internal.base_type(p_type) in ('smallint', 'integer', 'bigint') and p_to #>> '{}' ~ '[.]' then 'of whole numbers: a whole step'
    when gdpr_internal.base_type(p_type) not in (
      'text', 'character varying', 'character', 'smallint', 'integer', 'bigint', 'numeric', 'real', 'double precision'
    ) then 'is for text and numbers'
  end;
end;
comment on function gdpr_internal.generalise_problem(text, text, text, jsonb) is 'Why a column of this type cannot be generalised so; null when it can.';

create or replace function gdpr_internal.erase_problem(
  p_where text, p_relation regclass, p_attribute pg_attribute, p_type text, p_encrypt text, p_mask text, p_erase jsonb
)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_problem text;
begin
  if jsonb_typeof(p_erase) = 'string' then
    return case
      when p_erase #>> '{}' not in ('keep', 'null') then format('%s.erase: "keep", "null" or a table of value, generalise, paths, keep_paths, elements, keep_until', p_where)
      when p_erase #>> '{}' = 'keep' and p_encrypt <> 'no' then format('%s.erase: ciphertext cannot be kept, its key goes', p_where)
      when p_erase #>> '{}' = 'null' and p_attribute.attnotnull then format('%s.erase: the column is NOT NULL', p_where)
    end;
  elsif jsonb_typeof(p_erase) <> 'object' or (select count(*) from jsonb_object_keys(p_erase - 'then') as k) <> 1
    or not p_erase ?| array['value', 'generalise', 'paths', 'keep_paths', 'elements', 'keep_until']
    or (p_erase ? 'then' and not p_erase ? 'keep_until')
  then
    return format('%s.erase: "keep", "null" or a table of value, generalise, paths, keep_paths, elements, keep_until', p_where);
  elsif p_erase ? 'generalise' then
    return p_where || '.erase.generalise: ' || gdpr_internal.generalise_problem(p_type, p_encrypt, p_mask, p_erase -> 'generalise');
  elsif p_erase ?| array['paths', 'keep_paths'] then
    return case
      when p_type not in ('json', 'jsonb') or p_encrypt <> 'no' then format('%s.erase: paths are of json and jsonb columns that are not encrypted', p_where)
      when (
        select count(gdpr_internal.json_steps(p)) is distinct from nullif(count(*), 0)
        from unnest(gdpr_internal.text_array(coalesce(p_erase -> 'paths', p_erase -> 'keep_paths'))) as p
      ) then format('%s.erase: a list of paths as "$.contact.email", "$.history[*].ip"', p_where)
    end;
  elsif p_erase ? 'elements' then
    return case
      when p_erase ->> 'elements' <> 'all' then format('%s.erase.elements: "all"', p_where)
      when p_type !~ '\[\]$' or p_encrypt <> 'no' then format('%s.erase.elements: is for arrays that are not encrypted', p_where)
    end;
  elsif p_erase ? 'keep_until' then
    v_problem := gdpr_internal.keep_problem(p_where || '.erase.keep_until', p_relation, p_erase ->> 'keep_until');
    if v_problem is null and p_erase ? 'then' then
      v_problem := gdpr_internal.erase_problem(p_where, p_relation, p_attribute, p_type, p_encrypt, p_mask, p_erase -> 'then');
    end if;
    return coalesce(v_problem, case
      when p_erase -> 'then' ? 'keep_until' then format('%s.erase.then: another period', p_where)
    end);
  end if;
  return null;
end
$function$;
comment on function gdpr_internal.erase_problem(text, regclass, pg_attribute, text, text, text, jsonb) is
  'Why erasure cannot treat a column as the policy says; null when it can.';

create or replace function gdpr_internal.erase_rule(p_relation regclass, p_column text, p_definition jsonb)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_erase jsonb := p_definition -> 'erase';
begin
  if v_erase ? 'keep_until' then
    v_erase := v_erase -> 'then';
  end if;
  return case
    when v_erase ? 'value' then 'value:' || (v_erase ->> 'value')
    when v_erase ? 'generalise' then 'generalise:' || (v_erase ->> 'generalise')
    when v_erase ? 'elements' then 'value:{}'
    when v_erase ?| array['paths', 'keep_paths'] then (
      select case when v_erase ? 'paths' then 'without:' else 'only:' end || jsonb_agg(gdpr_internal.json_steps(p))::text
      from unnest(gdpr_internal.text_array(coalesce(v_erase -> 'paths', v_erase -> 'keep_paths'))) as p
    )
    when v_erase is not null then v_erase #>> '{}'
    when p_definition is not null and not (p_definition ->> 'sensitive')::boolean and not p_definition ? 'identifier'
      and not coalesce(p_definition -> 'erase' ? 'keep_until', false)
      and p_definition ->> 'category' <> all (array['identity', 'contact', 'demographic', 'online']) then 'keep'
    when (select a.attnotnull from pg_attribute as a where a.attrelid = p_relation and a.attname = p_column) then 'neutral'
    else 'null'
  end;
end
$function$;
comment on function gdpr_internal.erase_rule(regclass, text, jsonb) is
  'What anonymisation does with a column: the policy''s word, else it empties what is sensitive, identifies or describes the person, what nobody classified (p_definition null), and what was kept for a time.';

create or replace function gdpr_internal.emptied_columns(p_relation regclass)
returns name[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(a.attname order by a.attnum), '{}')
  from pg_attribute as a
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
    and a.attidentity = '' and a.attgenerated = ''
    and not exists (
      select from pg_constraint as k
      where k.conrelid = p_relation and k.contype in ('p', 'f') and a.attnum = any (k.conkey)
    );
end;
comment on function gdpr_internal.emptied_columns(regclass) is 'The columns whose values anonymisation may change: all but keys and what the database computes.';

-- 00_foundation/50_read_tables.sql
-- [code] Reading the tables of a policy.
-- GDPR Art. 25. Called by: gdpr.plan().

set local role gdpr_owner;

create or replace function gdpr_internal.read_link(p_where text, p_relation regclass, p_subject jsonb, out link jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_via text[] := gdpr_internal.text_array(p_subject -> 'via');
  v_joint text[] := gdpr_internal.text_array(p_subject -> 'joint');
  v_found record;
begin
  problems := gdpr_internal.unknown_keys(p_where || '.subject', p_subject, array['via', 'references', 'joint']);
  if v_via is null then
    problems := problems || format('%s.subject: "self" or { via = "column" }', p_where);
    return;
  end if;
  select
    k.confrelid::regclass as parent,
    array_agg(f.attname order by u.n) as columns
  into v_found
  from pg_constraint as k
  cross join lateral unnest(k.conkey, k.confkey) with ordinality as u (child, parent, n)
  join pg_attribute as f on f.attrelid = k.confrelid and f.attnum = u.parent
  join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.child
  where k.conrelid = p_relation and k.contype = 'f' and k.conparentid = 0
    and (not p_subject ? 'references' or k.confrelid = gdpr_internal.find_table(p_subject ->> 'references'))
  group by k.oid, k.confrelid
  having array_agg(a.attname::text order by u.n) = v_via or (array_agg(a.attname::text) @> v_via and array_agg(a.attname::text) <@ v_via)
  order by k.oid
  limit 1;
  if v_found.parent is null then
    problems := problems || format('%s.subject.via: there is no foreign key over (%s)', p_where, array_to_string(v_via, ', '));
    return;
  end if;
  link := jsonb_build_object('via', to_jsonb(v_via), 'references', v_found.parent::text, 'columns', to_jsonb(v_found.columns));
  if not p_subject ? 'joint' then
    return;
  end if;
  select problems || coalesce(array_agg(format(
    '%s.subject.joint: there is no foreign key over %s to the column that %s refers to', p_where, to_json(j.name), to_json(v_via[1])
  )), '{}')
  into problems
  from unnest(v_joint) as j (name)
  where not exists (
    select from pg_constraint as k
    join pg_attribute as a on a.attrelid = k.conrelid and array[a.attnum] = k.conkey
    join pg_attribute as f on f.attrelid = k.confrelid and array[f.attnum] = k.confkey
    where k.conrelid = p_relation and k.contype = 'f' and k.conparentid = 0 and k.confrelid = v_found.parent
      and a.attname = j.name and array[f.attname] = v_found.columns
  );
  if v_joint is null or v_joint = '{}' or cardinality(v_via) > 1 or v_joint && v_via
    or cardinality(v_joint) <> (select count(distinct j) from unnest(v_joint) as j)
  then
    problems := problems || format('%s.subject.joint: a list of other link columns, beside a "via" of one column', p_where);
  end if;
  link := link || jsonb_build_object('joint', to_jsonb(v_joint));
end
$function$;
comment on function gdpr_internal.read_link(text, regclass, jsonb) is 'The foreign key through which a child row belongs to its parent''s subject.';

create or replace function gdpr_internal.relation_problems(p_where text, p_relation regclass)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select array_remove(array[
    case
      when c.relkind not in ('r', 'p') then format('%s: is not a table', p_where)
      when c.relpersistence = 't' then format('%s: is a temporary table', p_where)
      when c.relnamespace in (
        'pg_catalog'::regnamespace, 'gdpr_internal'::regnamespace, 'gdpr'::regnamespace, 'gdpr_clear'::regnamespace, 'gdpr_generated'::regnamespace
      ) or c.relnamespace = 'information_schema'::regnamespace
        then format('%s: belongs to the system', p_where)
    end,
    case when c.relispartition then format('%s: is a partition; protect the table it is part of', p_where) end,
    case when c.relkind = 'r' and exists (
      select from pg_inherits as i where i.inhrelid = p_relation or i.inhparent = p_relation
    ) and not c.relispartition then format('%s: takes part in inheritance, whose children would escape', p_where) end,
    case when exists (
      select from pg_rewrite as w where w.ev_class = p_relation
    ) then format('%s: has rules, which bypass triggers', p_where) end,
    case when (select count(*) from pg_attribute as a where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname ~ '^gdpr_') > 0
      and not exists (select from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null)
      then format('%s: has columns named gdpr_..., which gdprdb adds itself', p_where) end
  ], null)
  from pg_class as c
  where c.oid = p_relation;
end;
comment on function gdpr_internal.relation_problems(text, regclass) is 'What kinds of relation cannot be protected, and why.';

create or replace function gdpr_internal.read_table(
  p_name text, p_relation regclass, p_in jsonb, p_purposes jsonb, out definition jsonb, out problems text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_where text := 'tables.' || to_json(p_name);
  v_name text;
  v_in jsonb;
  v_columns jsonb := '{}';
  v_subject jsonb := coalesce(p_in -> 'subject', '"self"');
  v_link record;
  v_column record;
  v_purposes text[] := gdpr_internal.text_array(p_in -> 'purposes');
  v_match text[] := coalesce(gdpr_internal.text_array(p_in -> 'match_on'), '{}');
  v_erase jsonb := coalesce(p_in -> 'erase', '"delete"');
  v_method text;
  v_opt_in record;
  v_retain record;
begin
  problems := gdpr_internal.unknown_keys(
    v_where, p_in, array['subject', 'match_on', 'mode', 'blocklist', 'purposes', 'double_opt_in', 'source', 'erase', 'retain', 'columns']
  );
  if jsonb_typeof(p_in) <> 'object' then
    return;
  end if;
  if p_relation is null then
    problems := problems || format('%s: there is no such table', v_where);
    return;
  end if;
  problems := problems || gdpr_internal.relation_problems(v_where, p_relation);
  if p_relation::text ~ '[[:cntrl:]]' or exists (
    select from pg_attribute as a where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname ~ '[[:cntrl:]]'
  ) then
    problems := problems || format('%s: names with line breaks or other control characters are not supported', v_where);
  end if;
  if exists (select from pg_trigger as g where g.tgrelid = p_relation and not g.tgisinternal and g.tgdeferrable) then
    problems := problems || format('%s: has a deferrable trigger, which would run with the rights of whoever commits; make it NOT DEFERRABLE', v_where);
  end if;

  if v_subject <> '"self"' then
    v_link := gdpr_internal.read_link(v_where, p_relation, v_subject);
    problems := problems || v_link.problems;
    v_subject := v_link.link;
    if v_match <> '{}' then
      problems := problems || format('%s.match_on: is for tables whose rows are persons', v_where);
    end if;
  end if;
  if coalesce(p_in ->> 'mode', 'enforce') not in ('enforce', 'observe') then
    problems := problems || format('%s.mode: "enforce" or "observe"', v_where);
  end if;
  if coalesce(p_in ->> 'blocklist', 'refuse') not in ('refuse', 'warn') then
    problems := problems || format('%s.blocklist: "refuse" or "warn"', v_where);
  end if;
  if v_purposes is null or v_purposes = '{}' then
    problems := problems || format('%s.purposes: at least one', v_where);
  end if;
  foreach v_name in array coalesce(v_purposes, '{}') loop
    if not p_purposes ? v_name then
      problems := problems || format('%s.purposes: there is no purpose %s', v_where, to_json(v_name));
    end if;
  end loop;

  for v_name, v_in in select key, value from jsonb_each(coalesce(p_in -> 'columns', '{}')) order by key loop
    v_column := gdpr_internal.read_column(format('%s.columns.%s', v_where, to_json(v_name)), p_relation, v_name, v_in);
    problems := problems || v_column.problems;
    v_columns := v_columns || jsonb_build_object(v_name, coalesce(v_column.definition, '{}'));
  end loop;
  select problems || coalesce(array_agg(format(
    '%s.columns.%s.about: "someone_else", or the link column of a joint row', v_where, to_json(c.key)
  ) order by c.key), '{}')
  into problems
  from jsonb_each(v_columns) as c
  where c.value ->> 'about' <> 'someone_else' and not coalesce(
    v_subject ? 'joint' and (v_subject -> 'joint') || (v_subject -> 'via') ? (c.value ->> 'about'), false
  );
  if (select count(*) from jsonb_each(v_columns) as c where c.value ? 'age') > 1 then
    problems := problems || format('%s.columns: at most one has age = true', v_where);
  end if;
  foreach v_name in array v_match loop
    if v_columns -> v_name ->> 'identifier' is null then
      problems := problems || format('%s.match_on: %s is not declared with an identifier', v_where, to_json(v_name));
    end if;
  end loop;

  if coalesce(p_in ->> 'source', 'optional') not in ('optional', 'required') then
    problems := problems || format('%s.source: "optional" or "required"', v_where);
  end if;
  v_opt_in := gdpr_internal.read_double_opt_in(v_where || '.double_opt_in', p_in -> 'double_opt_in', v_subject, v_columns);
  problems := problems || v_opt_in.problems;

  v_method := coalesce(v_erase ->> 'then', case when jsonb_typeof(v_erase) = 'string' then v_erase #>> '{}' else 'delete' end);
  if v_method not in ('delete', 'anonymise') then
    problems := problems || format('%s.erase: "delete" or "anonymise"', v_where);
  end if;
  if jsonb_typeof(v_erase) = 'object' then
    problems := problems || gdpr_internal.unknown_keys(v_where || '.erase', v_erase, array['keep_until', 'then']);
    problems := array_remove(
      problems || gdpr_internal.keep_problem(v_where || '.erase.keep_until', p_relation, v_erase ->> 'keep_until'), null
    );
  end if;
  if v_method = 'anonymise' then
    problems := problems || gdpr_internal.anonymise_problems(v_where, p_relation, v_columns);
    problems := problems || gdpr_internal.neutral_problems(v_where, p_relation, v_columns);
  end if;

  v_retain := gdpr_internal.read_retention(v_where, p_relation, p_in -> 'retain', v_columns, v_purposes);
  problems := problems || v_retain.problems;

  definition := jsonb_build_object(
    'subject', v_subject, 'match_on', to_jsonb(v_match), 'mode', coalesce(p_in ->> 'mode', 'enforce'),
    'blocklist', coalesce(p_in ->> 'blocklist', 'refuse'), 'purposes', to_jsonb(v_purposes),
    'source', coalesce(p_in ->> 'source', 'optional'), 'erase', v_erase, 'columns', v_columns
  ) || case when v_opt_in.definition is null then '{}' else jsonb_build_object('double_opt_in', v_opt_in.definition) end
    || case when v_retain.definition is null then '{}' else jsonb_build_object('retain', v_retain.definition) end;
end
$function$;
comment on function gdpr_internal.read_table(text, regclass, jsonb, jsonb) is 'One table of a policy in normal form, and its problems.';

create or replace function gdpr_internal.neutral_value(p_type text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when p_type ~ '\[\]$' then quote_literal('{}')
    when gdpr_internal.base_type(p_type) in ('text', 'character varying', 'character')
      then quote_literal(left('erased', coalesce(substring(p_type from '\((\d+)\)')::integer, 6)))
    when gdpr_internal.base_type(p_type) in ('smallint', 'integer', 'bigint', 'numeric', 'real', 'double precision') then '0'
    when gdpr_internal.base_type(p_type) in ('date', 'timestamp without time zone', 'timestamp with time zone') then quote_literal('1900-01-01')
    when p_type like 'time%' then quote_literal('00:00')
    when p_type like 'interval%' then quote_literal('0')
    when p_type = 'boolean' then 'false'
    when p_type = 'uuid' then 'gen_random_uuid()'
    when p_type in ('json', 'jsonb') then quote_literal('{}')
    when p_type = 'bytea' then quote_literal('')
    when p_type in ('inet', 'cidr') then quote_literal('0.0.0.0')
  end;
end;
comment on function gdpr_internal.neutral_value(text) is 'The SQL of a value that says nothing, for columns that erasure empties and that cannot be null; null for types that have none.';

create or replace function gdpr_internal.neutral_problems(p_where text, p_relation regclass, p_columns jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(format(
    '%s.columns.%s.erase: a NOT NULL column of type %s has no neutral value; say { value = "..." } or "keep"', p_where, to_json(a.attname),
    format_type(a.atttypid, a.atttypmod)
  ) order by a.attnum), '{}')
  from pg_attribute as a
  where a.attrelid = p_relation and a.attname = any (gdpr_internal.emptied_columns(p_relation))
    and gdpr_internal.erase_rule(p_relation, a.attname, p_columns -> a.attname::text) = 'neutral'
    and gdpr_internal.neutral_value(coalesce(
      (
        select c.original_type from gdpr_internal.protected_column as c
        join gdpr_internal.protected_table as t on t.id = c.table_id
        where t.relation = p_relation and t.unprotected_at is null and c.column_name = a.attname
      ),
      format_type(a.atttypid, a.atttypmod)
    )) is null;
end;
comment on function gdpr_internal.neutral_problems(text, regclass, jsonb) is 'Columns that anonymisation could not empty.';

create or replace function gdpr_internal.anonymise_problems(p_where text, p_relation regclass, p_columns jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(format(
    '%s: erase = "anonymise" needs every column classified, %s is not', p_where, to_json(a.attname)
  ) order by a.attnum), '{}')
  from pg_attribute as a
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped
    and not p_columns ? a.attname::text
    and a.attname !~ '^gdpr_'
    and not exists (
      select from pg_constraint as k
      where k.conrelid = p_relation and k.contype in ('p', 'f') and a.attnum = any (k.conkey)
    );
end;
comment on function gdpr_internal.anonymise_problems(text, regclass, jsonb) is 'Columns about which anonymisation would have to guess.';

create or replace function gdpr_internal.erasure_method(p_definition jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select coalesce(p_definition -> 'erase' ->> 'then', p_definition ->> 'erase', 'delete');
end;
comment on function gdpr_internal.erasure_method(jsonb) is 'delete or anonymise: what erasure does with the rows of a table.';

create or replace function gdpr_internal.erasure_order_problems(p_tables jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(distinct format(
    'tables.%s: rows that tables.%s keeps refer to rows here, which are then anonymised and not deleted: %s', to_json(p.key), to_json(c.key), x.problem
  )), '{}')
  from jsonb_each(p_tables) as p
  join pg_constraint as k on k.contype = 'f' and k.conparentid = 0 and k.confrelid = gdpr_internal.find_table(p.key)
  join jsonb_each(p_tables) as c on gdpr_internal.find_table(c.key) = k.conrelid
  cross join lateral unnest(gdpr_internal.neutral_problems('tables.' || to_json(p.key), k.confrelid, p.value -> 'columns')) as x (problem)
  where gdpr_internal.erasure_method(p.value) = 'delete'
    and (c.value -> 'erase' ? 'keep_until' or gdpr_internal.erasure_method(c.value) = 'anonymise')
    and not exists (
      select from pg_attribute as a
      where a.attrelid = k.conrelid and a.attnum = any (k.conkey) and not a.attnotnull and not c.value -> 'erase' ? 'keep_until'
    );
end;
comment on function gdpr_internal.erasure_order_problems(jsonb) is
  'Rows that have to stay, because others that stay refer to them, and that cannot be emptied.';

create or replace function gdpr_internal.root_of(p_tables jsonb, p_name text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with recursive up (name, depth) as (
    select p_name, 0
    union all
    select p_tables -> u.name -> 'subject' ->> 'references', u.depth + 1
    from up as u
    where p_tables -> u.name -> 'subject' ? 'references' and u.depth < 100
  )
  select u.name from up as u order by u.depth desc limit 1;
end;
comment on function gdpr_internal.root_of(jsonb, text) is 'The table of persons that the rows of a table belong to in the end.';

create or replace function gdpr_internal.copy_problems(p_tables jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
-- the guesses about jsonb_each() multiply: compiling took longer than running, fifty times over
set jit = off
begin atomic
  with declared as (
    select
      t.key as table_name, c.key as column_name, c.value ->> 'same_as' as same_as, format('%s.%I', t.key, c.key) as name,
      coalesce(p.original_type, format_type(a.atttypid, a.atttypmod)) as type
    from (select e.key, e.value, gdpr_internal.find_table(e.key) as relation from jsonb_each(p_tables) as e offset 0) as t
    cross join lateral jsonb_each(coalesce(t.value -> 'columns', '{}')) as c
    left join pg_attribute as a on a.attrelid = t.relation and a.attname = c.key and a.attnum > 0 and not a.attisdropped
    left join gdpr_internal.protected_table as o on o.relation = t.relation and o.unprotected_at is null
    left join gdpr_internal.protected_column as p on p.table_id = o.id and p.column_name = c.key and p.encrypt <> 'no'
  )
  select coalesce(array_agg(format('tables.%s.columns.%s.same_as: %s', to_json(d.table_name), to_json(d.column_name), p.problem) order by d.name), '{}')
  from declared as d
  left join declared as o on o.name = d.same_as
  cross join lateral (
    select case
      when o.name is null then format('%s is no column that this policy declares; write it as schema.table.column', to_json(d.same_as))
      when o.name = d.name then 'is the column itself'
      when o.same_as is not null then format('%s is a copy itself; name the column that it is a copy of', d.same_as)
      when o.type is distinct from d.type then format('%s is %s, this column is %s', d.same_as, o.type, d.type)
      when gdpr_internal.root_of(p_tables, d.table_name) <> gdpr_internal.root_of(p_tables, o.table_name) and '[]' in (
        coalesce(p_tables -> gdpr_internal.root_of(p_tables, d.table_name) -> 'match_on', '[]'),
        coalesce(p_tables -> gdpr_internal.root_of(p_tables, o.table_name) -> 'match_on', '[]')
      ) then format('rows of %s are never of the same person', o.table_name)
    end as problem
  ) as p
  where d.same_as is not null and p.problem is not null;
end;
comment on function gdpr_internal.copy_problems(jsonb) is
  'Columns that cannot be copies (same_as) of the column they name: it has to be declared, of the same type, no copy itself, and of rows of the same person.';

create or replace function gdpr_internal.read_policy(p_policy jsonb, out policy jsonb, out problems text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purposes record;
  v_roles record;
  v_table record;
  v_name text;
  v_in jsonb;
  v_relation regclass;
  v_tables jsonb := '{}';
  v_parent text;
begin
  problems := gdpr_internal.unknown_keys('policy', p_policy, array['settings', 'purposes', 'roles', 'tables'])
    || gdpr_internal.settings_problems(p_policy -> 'settings')
    || gdpr_internal.unknown_keys('purposes', p_policy -> 'purposes', (select array_agg(k) from jsonb_object_keys(
      case when jsonb_typeof(p_policy -> 'purposes') = 'object' then p_policy -> 'purposes' else '{}' end) as k))
    || gdpr_internal.unknown_keys('roles', p_policy -> 'roles', (select array_agg(k) from jsonb_object_keys(
      case when jsonb_typeof(p_policy -> 'roles') = 'object' then p_policy -> 'roles' else '{}' end) as k))
    || gdpr_internal.unknown_keys('tables', p_policy -> 'tables', (select array_agg(k) from jsonb_object_keys(
      case when jsonb_typeof(p_policy -> 'tables') = 'object' then p_policy -> 'tables' else '{}' end) as k));
  if problems <> '{}' or p_policy is null then
    problems := coalesce(nullif(problems, '{}'), array['policy: is empty']);
    return;
  end if;
  v_purposes := gdpr_internal.read_purposes(p_policy);
  v_roles := gdpr_internal.read_roles(p_policy, v_purposes.purposes);
  problems := problems || v_purposes.problems || v_roles.problems;
  for v_name, v_in in select key, value from jsonb_each(coalesce(p_policy -> 'tables', '{}')) order by key loop
    v_relation := gdpr_internal.find_table(v_name);
    v_table := gdpr_internal.read_table(v_name, v_relation, v_in, v_purposes.purposes);
    problems := problems || v_table.problems;
    if v_relation is not null and v_tables ? v_relation::text then
      problems := problems || format('tables.%s: is named twice', to_json(v_name));
    end if;
    v_tables := v_tables || jsonb_build_object(coalesce(v_relation::text, v_name), coalesce(v_table.definition, '{}'));
  end loop;
  -- parents have to be protected too, and before their children
  for v_name, v_in in select key, value from jsonb_each(v_tables) loop
    v_parent := v_in -> 'subject' ->> 'references';
    if v_parent is not null and not v_tables ? v_parent and not exists (
      select from gdpr_internal.protected_table as t where t.relation::text = v_parent and t.unprotected_at is null
    ) then
      problems := problems || format('tables.%s.subject.via: %s is not protected', to_json(v_name), v_parent);
    elsif v_parent = v_name then
      problems := problems || format('tables.%s.subject.via: refers to the table itself', to_json(v_name));
    end if;
  end loop;
  problems := problems || gdpr_internal.erasure_order_problems(v_tables) || gdpr_internal.retention_order_problems(v_tables)
    || gdpr_internal.copy_problems(v_tables);
  policy := jsonb_build_object(
    'settings', coalesce(p_policy -> 'settings', '{}'),
    'purposes', v_purposes.purposes, 'roles', v_roles.roles, 'tables', v_tables
  );
end
$function$;
comment on function gdpr_internal.read_policy(jsonb) is 'A policy in normal form and all its problems; tables are named as the catalog names them.';

-- 00_foundation/52_read_retention.sql
-- [code] Reading the retention rules of a table: what is kept for how long, counted from when.
-- GDPR Art. 5(1)(e). Called by: gdpr_internal.read_table().

set local role gdpr_owner;

create or replace function gdpr_internal.empty_value(p_relation regclass, p_column name, p_encrypted boolean)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when not a.attnotnull then 'null'
    -- a value that cannot be told from others would be emptied again and again
    when p_encrypted or n.value ~ '[()]' or exists (
      select from pg_index as x where x.indrelid = p_relation and x.indisunique and a.attnum = any (x.indkey)
    ) then null
    else n.value
  end
  from pg_attribute as a
  cross join lateral (select gdpr_internal.neutral_value(format_type(a.atttypid, a.atttypmod)) as value) as n
  where a.attrelid = p_relation and a.attname = p_column and not a.attisdropped;
end;
comment on function gdpr_internal.empty_value(regclass, name, boolean) is
  'The SQL of what retention leaves in a column whose time is over: NULL, else a neutral constant; null where neither can be stored and recognised.';

create or replace function gdpr_internal.is_date_column(p_relation regclass, p_column text, p_columns jsonb)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(p_columns -> p_column ->> 'encrypt', 'no') = 'no' and exists (
    select from pg_attribute as a
    where a.attrelid = p_relation and a.attname = p_column and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
      and a.atttypid in ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
  );
end;
comment on function gdpr_internal.is_date_column(regclass, text, jsonb) is 'Whether retention can count from a column: a date or timestamp that is not encrypted.';

create or replace function gdpr_internal.is_key_column(p_relation regclass, p_column text)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (
    select from pg_constraint as k
    join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = any (k.conkey)
    where k.conrelid = p_relation and k.contype in ('p', 'f') and a.attname = p_column
  );
end;
comment on function gdpr_internal.is_key_column(regclass, text) is 'Whether a column is part of a primary or foreign key.';

create or replace function gdpr_internal.read_retention_rule(
  p_where text, p_relation regclass, p_in jsonb, p_columns jsonb, p_purposes text[], out definition jsonb, out problems text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
declare
  v_period record := gdpr_internal.read_interval(p_where || '.for', p_in ->> 'for');
  v_after text := p_in ->> 'after';
  v_columns text[] := gdpr_internal.text_array(p_in -> 'columns');
  v_name text;
begin
  problems := gdpr_internal.unknown_keys(p_where, p_in, array['columns', 'for', 'after', 'purpose']);
  if jsonb_typeof(p_in) <> 'object' then
    return;
  end if;
  if not p_in ? 'for' then
    problems := problems || format('%s.for: how long, as "2 years"', p_where);
  end if;
  problems := array_remove(problems || v_period.problem, null);
  if not coalesce(v_after = 'last_basis' or gdpr_internal.is_date_column(p_relation, v_after, p_columns), false) then
    problems := problems || format('%s.after: a date or timestamp column that is not encrypted, or "last_basis"', p_where);
  end if;
  if p_in ? 'purpose' and (v_after is distinct from 'last_basis' or not coalesce(p_in ->> 'purpose' = any (p_purposes), false)) then
    problems := problems || format('%s.purpose: one of the table''s purposes, with after = "last_basis"', p_where);
  end if;
  if p_in ? 'columns' and coalesce(v_columns, '{}') = '{}' then
    problems := problems || format('%s.columns: at least one; without it the rule is for the rest of the row', p_where);
  end if;
  foreach v_name in array coalesce(v_columns, '{}') loop
    if not p_columns ? v_name or gdpr_internal.is_key_column(p_relation, v_name) then
      problems := problems || format('%s.columns: %s has to be classified, and no part of a key', p_where, to_json(v_name));
    elsif gdpr_internal.empty_value(p_relation, v_name, p_columns -> v_name ->> 'encrypt' <> 'no') is null then
      problems := problems || format('%s.columns: %s cannot be emptied; let it be null', p_where, to_json(v_name));
    end if;
  end loop;
  definition := jsonb_strip_nulls(jsonb_build_object(
    'columns', to_jsonb(v_columns), 'for', v_period.value::text, 'after', v_after, 'purpose', p_in -> 'purpose'
  ));
end
$function$;
comment on function gdpr_internal.read_retention_rule(text, regclass, jsonb, jsonb, text[]) is 'One retention rule in normal form, and its problems.';

create or replace function gdpr_internal.read_retention(
  p_where text, p_relation regclass, p_in jsonb, p_columns jsonb, p_purposes text[], out definition jsonb, out problems text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_in jsonb;
  v_rule record;
  v_n integer := 0;
  v_facts jsonb;
begin
  problems := '{}';
  if p_in is null then
    return;
  elsif jsonb_typeof(p_in) <> 'array' or jsonb_array_length(p_in) not between 1 and 30 then
    problems := array[format('%s.retain: a list of rules, 30 at the most', p_where)];
    return;
  end if;
  definition := '[]';
  for v_in in select r.rule from jsonb_array_elements(p_in) as r (rule) loop
    v_n := v_n + 1;
    v_rule := gdpr_internal.read_retention_rule(format('%s.retain[%s]', p_where, v_n), p_relation, v_in, p_columns, p_purposes);
    problems := problems || v_rule.problems;
    definition := definition || jsonb_build_array(v_rule.definition);
  end loop;
  if (select count(*) <> count(distinct c.name) from jsonb_array_elements(definition) as r (rule), jsonb_array_elements_text(r.rule -> 'columns') as c (name)) then
    problems := problems || format('%s.retain: a column is named by one rule', p_where);
  end if;
  if exists (
    select from jsonb_array_elements(definition) as r (rule), jsonb_array_elements(definition) as o (rule) where o.rule -> 'columns' ? (r.rule ->> 'after')
  ) then
    problems := problems || format('%s.retain: a column that rules count from stays as long as the row', p_where);
  end if;
  case (select count(*) from jsonb_array_elements(definition) as r (rule) where not r.rule ? 'columns')
    when 0 then null;
    when 1 then
      if v_n > 1 then
        v_facts := jsonb_build_object('columns', p_columns, 'retain', definition);
        problems := problems || gdpr_internal.anonymise_problems(p_where, p_relation, p_columns) || (
          select coalesce(array_agg(format('%s.retain: %s cannot be emptied before the row goes; let it be null, or name it in a rule', p_where, to_json(c.name))), '{}')
          from unnest(gdpr_internal.rest_columns(p_relation, v_facts)) as c (name)
          where gdpr_internal.empty_value(p_relation, c.name, p_columns -> c.name::text ->> 'encrypt' <> 'no') is null
        );
      end if;
    else
      problems := problems || format('%s.retain: one rule without columns, for the rest of the row', p_where);
  end case;
end
$function$;
comment on function gdpr_internal.read_retention(text, regclass, jsonb, jsonb, text[]) is 'The retention rules of a table in normal form, and their problems.';

create or replace function gdpr_internal.retention_order_problems(p_tables jsonb)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(distinct format(
    'tables.%s.retain: deletes rows that %s refers to, which is not protected; protect it too, or say erase = "anonymise"', to_json(t.key), k.conrelid::regclass
  )), '{}')
  from jsonb_each(p_tables) as t
  join pg_constraint as k on k.confrelid = gdpr_internal.find_table(t.key)
  where k.contype = 'f' and k.confdeltype not in ('n', 'd') and k.conparentid = 0
    and gdpr_internal.erasure_method(t.value) = 'delete'
    and exists (select from jsonb_array_elements(t.value -> 'retain') as r (rule) where not r.rule ? 'columns')
    and not p_tables ? k.conrelid::regclass::text
    and not exists (select from gdpr_internal.protected_table as o where o.relation = k.conrelid and o.unprotected_at is null);
end;
comment on function gdpr_internal.retention_order_problems(jsonb) is
  'Tables whose rows would stand in the way of rows that retention deletes, or go along, and of which gdprdb knows nothing.';

-- 00_foundation/55_read_collection.sql
-- [code] What a policy says about how rows come into a table.
-- GDPR Art. 25. Called by: gdpr_internal.read_table(), gdpr.plan(), gdpr.unprotect().

set local role gdpr_owner;

create or replace function gdpr_internal.read_double_opt_in(
  p_where text, p_in jsonb, p_subject jsonb, p_columns jsonb, out definition jsonb, out problems text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
declare
  v_in jsonb := case when p_in = 'true' then '{}' else p_in end;
  v_setting text;
  v_intervals interval[] := '{}';
  v_interval record;
  v_address text;
begin
  problems := '{}';
  if coalesce(v_in, 'false') = 'false' then
    return;
  end if;
  problems := gdpr_internal.unknown_keys(p_where, v_in, array['address', 'confirm_within', 'resend_after', 'lifts_block']);
  if jsonb_typeof(v_in) <> 'object' then
    return;
  end if;
  if p_subject <> '"self"' then
    problems := problems || format('%s: is for tables whose rows are persons', p_where);
  end if;
  select coalesce(v_in ->> 'address', case when count(*) = 1 then min(c.key) end) into v_address
  from jsonb_each(p_columns) as c
  where c.value ->> 'identifier' = 'email';
  if p_columns -> v_address ->> 'identifier' is distinct from 'email' then
    problems := problems || format('%s.address: the column with identifier = "email" that the mail goes to', p_where);
  end if;
  foreach v_setting in array array['confirm_within', 'resend_after'] loop
    v_interval := gdpr_internal.read_interval(
      format('%s.%s', p_where, v_setting), coalesce(v_in ->> v_setting, case v_setting when 'confirm_within' then '48 hours' else '1 hour' end)
    );
    problems := array_remove(problems || v_interval.problem, null);
    v_intervals := v_intervals || v_interval.value;
  end loop;
  if v_intervals[2] > v_intervals[1] then
    problems := problems || format('%s.resend_after: has to be shorter than confirm_within', p_where);
  end if;
  if jsonb_typeof(coalesce(v_in -> 'lifts_block', 'false')) <> 'boolean' then
    problems := problems || format('%s.lifts_block: true or false', p_where);
  end if;
  definition := jsonb_build_object(
    'address', v_address, 'confirm_within', v_intervals[1]::text, 'resend_after', v_intervals[2]::text,
    'lifts_block', coalesce(v_in -> 'lifts_block', 'false')
  );
end
$function$;
comment on function gdpr_internal.read_double_opt_in(text, jsonb, jsonb, jsonb) is
  'The setting double_opt_in of a table in normal form (null: no registrations), and its problems.';

create or replace function gdpr_policy.registration_grants(p_relation regclass, p_allowed boolean)
returns setof text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select format('%s on %s %s gdpr_worker', case when p_allowed then 'grant ' || o.privilege else 'revoke ' || o.privilege end, o.name,
    case when p_allowed then 'to' else 'from' end)
  from (
    select 1 as n, 'insert' as privilege, format('table %s', p_relation) as name
    union all
    -- the defaults of serial columns draw from them
    select distinct 2, 'usage', format('sequence %s', d.refobjid::regclass)
    from pg_attrdef as a
    join pg_depend as d on d.classid = 'pg_attrdef'::regclass and d.objid = a.oid and d.refclassid = 'pg_class'::regclass
    join pg_class as c on c.oid = d.refobjid and c.relkind = 'S'
    where a.adrelid = p_relation
  ) as o
  order by o.n, o.name;
end;
comment on function gdpr_policy.registration_grants(regclass, boolean) is
  'Step of apply(): what gdpr_worker needs to insert confirmed registrations, or its end. Run as the owner of the table.';

-- 00_foundation/60_register.sql
-- [code] Writing the policy register: the definer half of apply().
-- GDPR Art. 25, Art. 30. Called by: gdpr.apply() and gdpr.unprotect(), as their steps; granted to gdpr_admin.

set local role gdpr_owner;

create or replace function gdpr_policy.put_settings(p_settings jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_problems text[] := gdpr_internal.settings_problems(p_settings);
begin
  if v_problems <> '{}' then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_problems, E'\n'));
  end if;
  delete from gdpr_internal.setting as s where not p_settings ? s.name and s.name <> 'machinery';
  insert into gdpr_internal.setting (name, value)
  select key, value from jsonb_each(p_settings)
  on conflict (name) do update set value = excluded.value;
  perform gdpr_internal.generate_addresses();
end
$function$;
comment on function gdpr_policy.put_settings(jsonb) is 'Step of apply(): the settings of the policy.';

create or replace function gdpr_policy.put_purpose(p_name text, p_definition jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_read record := gdpr_internal.read_purposes(jsonb_build_object('purposes', jsonb_build_object(p_name, p_definition)));
begin
  if v_read.problems <> '{}' then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_read.problems, E'\n'));
  end if;
  insert into gdpr_internal.purpose (
    id, name, description, basis, respond_within, remind, valid_for, while_waiting, retain, grace, condition, automated_decision,
    direct_marketing
  )
  values (
    coalesce(
      (select p.id from gdpr_internal.purpose as p where p.name = p_name),
      (select coalesce(max(p.id) + 1, 0) from gdpr_internal.purpose as p where p.id < 62)
    ),
    p_name, p_definition ->> 'description', p_definition ->> 'basis',
    (p_definition ->> 'respond_within')::interval, (p_definition ->> 'remind')::interval, (p_definition ->> 'valid_for')::interval,
    coalesce(p_definition ->> 'while_waiting', 'lock'), (p_definition ->> 'retain')::interval,
    nullif(p_definition ->> 'grace', 'false')::interval, p_definition ->> 'condition', p_definition ->> 'automated_decision',
    coalesce((p_definition ->> 'direct_marketing')::boolean, false)
  )
  on conflict (name) do update
  set description = excluded.description, basis = excluded.basis, respond_within = excluded.respond_within,
    remind = excluded.remind, valid_for = excluded.valid_for, while_waiting = excluded.while_waiting, retain = excluded.retain,
    grace = excluded.grace, condition = excluded.condition, automated_decision = excluded.automated_decision,
    direct_marketing = excluded.direct_marketing;
  perform gdpr_internal.follow_basis(gdpr_internal.purpose_id(p_name));
  perform gdpr_internal.audit_event('POLICY', null, jsonb_build_object('purpose', p_name, 'definition', p_definition));
end
$function$;
comment on function gdpr_policy.put_purpose(text, jsonb) is 'Step of apply(): declares or changes a purpose; its bit is never given to another.';

create or replace function gdpr_internal.audience_group(p_audience text)
returns name
language sql
immutable
parallel safe
security invoker
begin atomic
  select case p_audience when 'clear' then 'gdpr_app' else 'gdpr_' || p_audience end;
end;
comment on function gdpr_internal.audience_group(text) is 'The group role of an audience: gdpr_app for clear, else gdpr_<audience>.';

create or replace function gdpr_internal.basis_functions()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'gdpr.record_basis(bigint, text, text, text, timestamptz, bigint, timestamptz, jsonb, text), '
    'gdpr.record_bases(bigint[], text, text, text, timestamptz, bigint, timestamptz, jsonb, text), '
    'gdpr.end_basis(bigint, text), gdpr.end_bases(bigint[], text), gdpr.record_assessment(text, text, text, text, date), '
    'gdpr.approve_assessment(bigint, date, text), gdpr.reject_assessment(bigint, text), '
    'gdpr.subject_of(regclass, text), gdpr.subjects_of(regclass, text[]), gdpr.find_subject(text, text)';
end;
comment on function gdpr_internal.basis_functions() is 'What a role of the policy with may = ["basis"] can call.';

create or replace function gdpr_internal.consent_functions()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'gdpr.record_consent(bigint, text, boolean, text, jsonb, timestamptz, text[], bigint), '
    'gdpr.withdraw_consent(bigint, text, text, jsonb), gdpr.request_consent(bigint, text[], text, text, interval, boolean), '
    'gdpr.request_consents(bigint[], text[], text, text, interval, boolean), gdpr.consent_receipt(bigint, text), gdpr.subject_of(regclass, text), gdpr.find_subject(text, text)';
end;
comment on function gdpr_internal.consent_functions() is 'What a role of the policy with may = ["consent"] can call.';

create or replace function gdpr_internal.rectify_functions()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'gdpr.propose_rectification(bigint, jsonb, text), gdpr.subject_of(regclass, text), gdpr.find_subject(text, text)';
end;
comment on function gdpr_internal.rectify_functions() is 'What a role of the policy with may = ["rectify"] can call.';

create or replace function gdpr_internal.disclosure_functions()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'gdpr.record_disclosure(text, bigint[], text, regclass, text[], text[], text, text, text[], timestamptz), '
    'gdpr.subject_of(regclass, text), gdpr.subjects_of(regclass, text[]), gdpr.find_subject(text, text)';
end;
comment on function gdpr_internal.disclosure_functions() is 'What a role of the policy with may = ["disclose"] can call.';

create or replace function gdpr_policy.bind_role(p_role name, p_definition jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_read record;
begin
  -- called by a plan after its checks, or by an administrator at will: checked here too
  v_read := gdpr_internal.read_roles(jsonb_build_object('roles', jsonb_build_object(p_role, p_definition)), gdpr.policy() -> 'purposes');
  if v_read.problems <> '{}' then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_read.problems, E'\n'));
  end if;
  perform gdpr_internal.revoke_binding(p_role);
  insert into gdpr_internal.role_binding (role_name, audience, may, recipient, definition)
  values (
    p_role, p_definition ->> 'audience', gdpr_internal.text_array(p_definition -> 'may'), p_definition ->> 'recipient', p_definition
  );
  perform gdpr_internal.make_probe_counter(p_role);
  insert into gdpr_internal.role_purpose (role_name, position, purpose_id)
  select p_role, n, gdpr_internal.purpose_id(name)
  from jsonb_array_elements_text(p_definition -> 'purposes') with ordinality as p (name, n);
  if not pg_has_role(p_role, gdpr_internal.audience_group(p_definition ->> 'audience'), 'member') then
    execute format('grant %I to %I', gdpr_internal.audience_group(p_definition ->> 'audience'), p_role);
  end if;
  if p_definition -> 'may' ? 'consent' then
    execute format('grant execute on function %s to %I', gdpr_internal.consent_functions(), p_role);
  end if;
  if p_definition -> 'may' ? 'basis' then
    execute format('grant execute on function %s to %I', gdpr_internal.basis_functions(), p_role);
  end if;
  if p_definition -> 'may' ? 'rectify' then
    execute format('grant execute on function %s to %I', gdpr_internal.rectify_functions(), p_role);
  end if;
  if p_definition -> 'may' ? 'disclose' then
    execute format('grant execute on function %s to %I', gdpr_internal.disclosure_functions(), p_role);
  end if;
  perform gdpr_internal.generate_purposes();
  perform gdpr_internal.audit_event('POLICY', null, jsonb_build_object('role', p_role, 'definition', p_definition));
end
$function$;
comment on function gdpr_policy.bind_role(name, jsonb) is 'Step of apply(): binds a role to its audience, purposes and rights.';

create or replace function gdpr_internal.revoke_binding(p_role name)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.role_binding as b where b.role_name = p_role;
  if not found or to_regrole(quote_ident(p_role)) is null then
    return;
  end if;
  -- the group stays: it belongs to the server, and another database may have given it; without a binding it opens nothing
  execute format(
    'revoke execute on function %s, %s, %s, %s from %I',
    gdpr_internal.consent_functions(), gdpr_internal.basis_functions(), gdpr_internal.disclosure_functions(), gdpr_internal.rectify_functions(), p_role
  );
end
$function$;
comment on function gdpr_internal.revoke_binding(name) is 'Takes from a role what its binding gave.';

create or replace function gdpr_policy.unbind_role(p_role name)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.revoke_binding(p_role);
  perform gdpr_internal.generate_purposes();
  perform gdpr_internal.audit_event('POLICY', null, jsonb_build_object('role', p_role, 'unbound', true));
end
$function$;
comment on function gdpr_policy.unbind_role(name) is 'Step of apply(): a role that the policy no longer names loses its purposes.';

create or replace function gdpr_internal.original_state(p_relation regclass)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select jsonb_build_object('row_security', c.relrowsecurity, 'force_row_security', c.relforcerowsecurity)
  from pg_class as c
  where c.oid = p_relation;
end;
comment on function gdpr_internal.original_state(regclass) is 'What unprotect() has to give back of a table.';

create or replace function gdpr_internal.original_column(p_relation regclass, p_column name, p_encrypt text)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case when p_encrypt = 'no' then '{}' else jsonb_strip_nulls(jsonb_build_object(
    'default', (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef as d where d.adrelid = p_relation and d.adnum = a.attnum),
    'collation', (
      select format('%I.%I', n.nspname, l.collname) from pg_collation as l join pg_namespace as n on n.oid = l.collnamespace
      where l.oid = a.attcollation and l.collname <> 'default'
    ),
    'constraints', (
      select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('name', k.conname, 'definition', pg_get_constraintdef(k.oid), 'comment', obj_description(k.oid, 'pg_constraint'))) order by k.conname)
      from pg_constraint as k
      where k.conrelid = p_relation and k.contype = 'u' and a.attnum = any (k.conkey)
    ),
    'indexes', (
      select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('name', i.oid::regclass::text, 'definition', pg_get_indexdef(x.indexrelid), 'comment', obj_description(i.oid, 'pg_class'))) order by i.relname)
      from pg_index as x
      join pg_class as i on i.oid = x.indexrelid
      where x.indrelid = p_relation and not x.indisprimary
        and exists (
          select from pg_depend as d
          where d.classid = 'pg_class'::regclass and d.objid = x.indexrelid and d.refobjid = p_relation and d.refobjsubid = a.attnum
        )
        and not exists (select from pg_constraint as k where k.conindid = x.indexrelid and k.contype = 'u')
    ),
    'unique_name', (
      select i.relname from pg_index as x
      join pg_class as i on i.oid = x.indexrelid
      where x.indrelid = p_relation and x.indisunique and x.indkey::text = a.attnum::text and x.indpred is null
      order by i.relname
      limit 1
    ),
    'unique_constraint', (
      select true from pg_constraint as k where k.conrelid = p_relation and k.contype = 'u' and k.conkey = array[a.attnum] limit 1
    )
  )) end
  from pg_attribute as a
  where a.attrelid = p_relation and a.attname = p_column;
end;
comment on function gdpr_internal.original_column(regclass, name, text) is 'Default, collation, indexes and constraints that encryption takes from a column.';

create or replace function gdpr_internal.definition_as_written(p_definition jsonb)
returns jsonb
language sql
immutable
parallel safe
security invoker
begin atomic
  select (p_definition #- '{subject,columns}') || jsonb_build_object('columns', (
    select coalesce(jsonb_object_agg(c.key, c.value || jsonb_build_object('encrypt', case c.value ->> 'encrypt'
      when 'yes' then 'true'::jsonb when 'no' then 'false'::jsonb else c.value -> 'encrypt' end)), '{}')
    from jsonb_each(p_definition -> 'columns') as c
  ));
end;
comment on function gdpr_internal.definition_as_written(jsonb) is 'The normal form of a table as a policy would write it.';

create or replace function gdpr_internal.register_table(p_role name, p_relation regclass, p_definition jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint;
  v_parent gdpr_internal.protected_table;
  v_name name;
  v_relname name;
  v_schema name;
  v_read record;
begin
  perform gdpr_internal.require_owner(p_role, p_relation);
  -- called by a plan after its checks, or by an administrator at will: checked here too
  v_read := gdpr_internal.read_table(
    p_relation::text, p_relation, gdpr_internal.definition_as_written(p_definition), gdpr.policy() -> 'purposes'
  );
  if v_read.problems <> '{}' or v_read.definition <> p_definition then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_read.problems, E'\n'));
  end if;
  select c.relname, n.nspname into v_relname, v_schema
  from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = p_relation;
  if p_definition -> 'subject' <> '"self"' then
    select * into v_parent from gdpr_internal.protected_table as t
    where t.relation = gdpr_internal.find_table(p_definition -> 'subject' ->> 'references') and t.unprotected_at is null;
    if v_parent.id is null then
      perform gdpr_internal.refuse('not_protected', p_definition -> 'subject' ->> 'references');
    end if;
  end if;
  select t.id into v_id from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null;
  v_name := case
    when exists (
      select from gdpr_internal.protected_table as t
      where t.view_name = v_relname and t.unprotected_at is null and t.relation <> p_relation
    ) then left(v_schema || '_' || v_relname, 63)
    else v_relname
  end;
  if v_id is null then
    insert into gdpr_internal.protected_table (id, relation, view_name, definition, mode, blocklist, purpose_mask, original)
    values (
      (select coalesce(max(t.id), 0) + 1 from gdpr_internal.protected_table as t), p_relation, v_name, p_definition, p_definition ->> 'mode', p_definition ->> 'blocklist', 0,
      gdpr_internal.original_state(p_relation)
    )
    returning id into v_id;
  end if;
  update gdpr_internal.protected_table as t
  set definition = p_definition,
    mode = p_definition ->> 'mode',
    blocklist = p_definition ->> 'blocklist',
    purpose_mask = (
      select bit_or(1::bigint << gdpr_internal.purpose_id(p.name)) from jsonb_array_elements_text(p_definition -> 'purposes') as p (name)
    ),
    parent_id = v_parent.id,
    via_columns = gdpr_internal.text_array(p_definition -> 'subject' -> 'via')::name[],
    parent_columns = gdpr_internal.text_array(p_definition -> 'subject' -> 'columns')::name[],
    joint_columns = gdpr_internal.text_array(p_definition -> 'subject' -> 'joint')::name[],
    depth = coalesce(v_parent.depth + 1, 0)
  where t.id = v_id;

  perform gdpr_internal.put_table_bases(v_id);

  delete from gdpr_internal.protected_column as c
  where c.table_id = v_id and not p_definition -> 'columns' ? c.column_name::text;
  insert into gdpr_internal.protected_column as c (
    table_id, column_name, position, category, sensitive, encrypt, identifier, canonical, matches, age, special, provided, about, review, mask, erase, same_as, original_type, original
  )
  select
    v_id, a.attname, a.attnum, d.value ->> 'category', (d.value ->> 'sensitive')::boolean, d.value ->> 'encrypt',
    d.value ->> 'identifier', d.value ->> 'canonical', p_definition -> 'match_on' ? d.key, d.value ? 'age', d.value ->> 'special',
    not d.value ? 'provided', d.value ->> 'about', d.value ? 'review', d.value ->> 'mask',
    gdpr_internal.erase_rule(p_relation, d.key, d.value), d.value ->> 'same_as',
    format_type(a.atttypid, a.atttypmod),
    gdpr_internal.original_column(p_relation, a.attname, d.value ->> 'encrypt')
  from jsonb_each(p_definition -> 'columns') as d
  join pg_attribute as a on a.attrelid = p_relation and a.attname = d.key and not a.attisdropped
  on conflict (table_id, column_name) do update
  set category = excluded.category, sensitive = excluded.sensitive, identifier = excluded.identifier, canonical = excluded.canonical,
    matches = excluded.matches, age = excluded.age, special = excluded.special, provided = excluded.provided, about = excluded.about,
    review = excluded.review, mask = excluded.mask, erase = excluded.erase, same_as = excluded.same_as,
    original_type = case when c.encrypt = 'no' then excluded.original_type else c.original_type end,
    original = case when c.encrypt = 'no' then excluded.original else c.original end,
    encrypt = excluded.encrypt;
  perform gdpr_internal.audit_event('POLICY', null, jsonb_build_object('table', p_relation::text, 'definition', p_definition));
end
$function$;
comment on function gdpr_internal.register_table(name, regclass, jsonb) is 'See gdpr_policy.register_table(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.register_table(p_relation regclass, p_definition jsonb)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.register_table(current_user, p_relation, p_definition);
end;
comment on function gdpr_policy.register_table(regclass, jsonb) is 'Step of apply(): the table, its columns and the bases it gives by default, in the register.';

create or replace function gdpr_internal.table_id(p_relation regclass)
returns smallint
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint;
begin
  select t.id into v_id from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null;
  if v_id is null then
    perform gdpr_internal.refuse('not_protected', p_relation::text);
  end if;
  return v_id;
end
$function$;
comment on function gdpr_internal.table_id(regclass) is 'The number of a protected table. Error: PR002.';

create or replace function gdpr_internal.require_owner(p_role name, p_relation regclass)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not coalesce((select pg_has_role(p_role, c.relowner, 'usage') from pg_class as c where c.oid = p_relation), false) then
    perform gdpr_internal.refuse('not_table_owner', p_relation::text);
  end if;
end
$function$;
comment on function gdpr_internal.require_owner(name, regclass) is
  'A step of apply() does to a table only what its owner may: an administrator without rights on it is refused. Error: 42501.';

create or replace function gdpr_internal.own_table(p_role name, p_relation regclass)
returns smallint
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_owner(p_role, p_relation);
  return gdpr_internal.table_id(p_relation);
end
$function$;
comment on function gdpr_internal.own_table(name, regclass) is 'The number of a protected table that the caller owns. Errors: PR002, 42501.';

create or replace function gdpr_internal.generate_worker(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_worker();
  -- gdpr_worker may create functions only here, where no row of a table is touched
  grant create on schema gdpr_generated to gdpr_worker;
  if p_table is not null then
    perform gdpr_generated.generate_rows(p_table);
    perform gdpr_generated.generate_registrations(p_table);
  end if;
  perform gdpr_generated.generate_dispatch();
  revoke create on schema gdpr_generated from gdpr_worker;
  perform gdpr_internal.remember_worker();
end
$function$;
comment on function gdpr_internal.generate_worker(smallint) is 'Generates the functions of gdpr_worker for a table (null: only the dispatcher).';

create or replace function gdpr_internal.follow_references(p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table record;
begin
  for v_table in
    select t.id, t.fingerprint is not distinct from gdpr_internal.fingerprint(t.relation) as settled
    from gdpr_internal.protected_table as t
    where t.unprotected_at is null and t.relation <> p_relation
      and exists (select from pg_constraint as k where k.contype = 'f' and k.conrelid = p_relation and k.confrelid = t.relation)
  loop
    perform gdpr_internal.generate_worker(v_table.id);
    if v_table.settled then
      update gdpr_internal.protected_table as t set fingerprint = gdpr_internal.fingerprint(t.relation) where t.id = v_table.id;
    end if;
  end loop;
end
$function$;
comment on function gdpr_internal.follow_references(regclass) is
  'After a table was protected or given back: those that it refers to know whether they may look for its rows.';

create or replace function gdpr_internal.extend_table(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_before text;
begin
  perform gdpr_internal.give_bases(v_id);
  perform gdpr_internal.refresh_table(v_id);
  v_before := gdpr_internal.before_worker();
  execute format('select gdpr_generated.%I(null)', 'spread_' || v_id);
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr_internal.extend_table(name, regclass) is 'See gdpr_policy.extend_table(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.extend_table(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.extend_table(current_user, p_relation);
end;
comment on function gdpr_policy.extend_table(regclass) is
  'Step of apply(): the purposes of a table changed; persons in it get the bases it gives by default now, and every row its gate anew.';

create or replace function gdpr_internal.generate_functions(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
begin
  perform gdpr_internal.generate_triggers(v_id);
  perform gdpr_internal.generate_worker(v_id);
  perform gdpr_internal.follow_references(p_relation);
  perform gdpr_internal.make_audit_partitions();
end
$function$;
comment on function gdpr_internal.generate_functions(name, regclass) is 'See gdpr_policy.generate_functions(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.generate_functions(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.generate_functions(current_user, p_relation);
end;
comment on function gdpr_policy.generate_functions(regclass) is 'Step of apply(): the static functions of a table.';

create or replace function gdpr_internal.generate_views(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
begin
  perform gdpr_generated.generate_clear_view(v_id);
  perform gdpr_generated.generate_redacted_view(v_id, a) from unnest(gdpr_internal.audiences()) as a;
end
$function$;
comment on function gdpr_internal.generate_views(name, regclass) is 'See gdpr_policy.generate_views(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.generate_views(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.generate_views(current_user, p_relation);
end;
comment on function gdpr_policy.generate_views(regclass) is 'Step of apply(): the clear view and the redacted views of a table.';

-- 00_foundation/64_retention_rules.sql
-- [code] The retention rules that are in force, as the policy and its purposes give them.
-- GDPR Art. 5(1)(e). Read by: the generator of retention, gdpr.retention_plan(), gdpr.run_retention().

set local role gdpr_owner;

create or replace function gdpr_internal.rest_columns(p_relation regclass, p_definition jsonb)
returns name[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(a.attname order by a.attnum), '{}')
  from jsonb_each(p_definition -> 'columns') as c
  join pg_attribute as a on a.attrelid = p_relation and a.attname = c.key and not a.attisdropped
  where gdpr_internal.erase_rule(p_relation, c.key, c.value) <> 'keep'
    and not gdpr_internal.is_key_column(p_relation, c.key)
    and not exists (
      select from jsonb_array_elements(p_definition -> 'retain') as r (rule)
      where coalesce(r.rule -> 'columns' ? c.key, false) or r.rule ->> 'after' = c.key
    );
end;
comment on function gdpr_internal.rest_columns(regclass, jsonb) is
  'The columns of a retention rule that names none: those that anonymising would empty, but for the ones that other rules name or count from.';

create or replace view gdpr_internal.retention_rule as
select
  t.id as table_id,
  (r.n - 1)::integer as n,
  r.rule ? 'columns' as named,
  case
    when r.rule ? 'columns' then gdpr_internal.text_array(r.rule -> 'columns')::name[]
    else gdpr_internal.rest_columns(t.relation, t.definition)
  end as columns,
  (r.rule ->> 'for')::interval as period,
  nullif(r.rule ->> 'after', 'last_basis')::name as after_column,
  coalesce(1::bigint << p.id, t.purpose_mask) as purpose_mask,
  true as in_force
from gdpr_internal.protected_table as t
cross join lateral jsonb_array_elements(t.definition -> 'retain') with ordinality as r (rule, n)
left join gdpr_internal.purpose as p on p.name = r.rule ->> 'purpose'
where t.unprotected_at is null
union all
select
  t.id, 0, false, '{}'::name[], null, null, t.purpose_mask,
  not exists (select from gdpr_internal.purpose as p where p.id < 62 and t.purpose_mask & (1::bigint << p.id) <> 0 and p.retain is null)
from gdpr_internal.protected_table as t
where t.unprotected_at is null and not t.definition ? 'retain';
comment on view gdpr_internal.retention_rule is
  'Rules of a table, numbered from 0. named: for the columns it names; else for the rest of the row, which goes when every rule''s time is over. after_column null: counted from the end of the last basis for the purposes of purpose_mask. period null: each purpose''s own. A table without rules has the one of its purposes, in force when each of them says how long it retains.';

create or replace function gdpr_policy.kept_since(p_role name, p_claim text, p_period interval, p_type anyelement)
returns anyelement
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_zone text := gdpr_internal.time_zone();
  v_since timestamp := timezone(v_zone, statement_timestamp()) - p_period;
begin
  if gdpr_policy.purpose_mask(p_role, p_claim) = 1::bigint << 62 then
    v_since := '-infinity';
  end if;
  return case when pg_typeof(p_type) = 'timestamptz'::regtype then timezone(v_zone, v_since) else v_since end;
end
$function$;
comment on function gdpr_policy.kept_since(name, text, interval, anyelement) is
  'The moment, as date or timestamp of the type of p_type, up to which rows of a table are over for a statement of p_role, by a rule that keeps them for p_period; compliance and maintenance see all. Once per statement, as an InitPlan of the row policies. Art. 5(1)(e).';

-- 00_foundation/65_controls.sql
-- [code] What apply() left on a table, and the policy in force as people read it.
-- GDPR Art. 5(2), Art. 25. Called by: gdpr.plan() and gdpr.doctor() (drift), DBAs, officers and auditors (views).

set local role gdpr_owner;

create or replace function gdpr_internal.controls(p_relation regclass)
returns table (control text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set bytea_output = 'hex'
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set timezone = 'UTC'
set extra_float_digits = 3
set standard_conforming_strings = on
set quote_all_identifiers = off
begin atomic
  select format('trigger %s %s %s', g.tgrelid::regclass, pg_get_triggerdef(g.oid), g.tgenabled)
  from pg_trigger as g
  where (g.tgrelid = p_relation or g.tgrelid in (select i.relid from pg_partition_tree(p_relation) as i))
    and not g.tgisinternal
  union all
  select format('policy %s %s %s %s %s %s %s', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[],
    pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
  from pg_policy as p
  where (p.polrelid = p_relation or p.polrelid in (select i.relid from pg_partition_tree(p_relation) as i))
  union all
  select format('row security %s %s %s', c.oid::regclass, c.relrowsecurity, c.relforcerowsecurity)
  from pg_class as c
  where c.oid = p_relation or c.oid in (select i.relid from pg_partition_tree(p_relation) as i)
  union all
  select format('function %s %s %s %s %s', f.oid::regprocedure, f.proowner::regrole, f.prosecdef, f.proconfig, md5(f.prosrc))
  from pg_proc as f
  join gdpr_internal.protected_table as t on t.relation = p_relation and t.unprotected_at is null
  where f.pronamespace = 'gdpr_generated'::regnamespace and f.proname ~ ('_' || t.id || '$')
  union all
  select format('view %s %s %s %s', c.oid::regclass, c.relowner::regrole, c.reloptions, pg_get_viewdef(c.oid))
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  join gdpr_internal.protected_table as t on t.relation = p_relation and t.unprotected_at is null and t.view_name = c.relname
  where c.relkind = 'v' and n.nspname = any (gdpr_internal.view_schemas())
  union all
  select format('column %s %s %s', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)
  from pg_attribute as a
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped
  union all
  select format('rule %s', pg_get_ruledef(w.oid))
  from pg_rewrite as w
  where w.ev_class = p_relation
  union all
  select format('child %s', i.inhrelid::regclass)
  from pg_inherits as i
  join pg_class as c on c.oid = i.inhrelid
  where i.inhparent = p_relation
  union all
  select format('cast %s', pg_describe_object('pg_cast'::regclass, k.oid, 0))
  from pg_cast as k
  join pg_class as c on c.oid = p_relation
  where k.castsource = c.reltype
  union all
  select format('foreign key %s %s', k.conname, pg_get_constraintdef(k.oid))
  from pg_constraint as k
  where k.contype = 'f' and k.conparentid = 0
    and (k.conrelid = p_relation or k.conrelid in (select i.relid from pg_partition_tree(p_relation) as i))
  union all
  select format('index %s', pg_get_indexdef(x.indexrelid))
  from pg_index as x
  where x.indrelid = p_relation and exists (
    select from pg_attribute as a
    where a.attrelid = x.indrelid and a.attnum = any (x.indkey) and a.attname ~ '^gdpr_'
  );
end;
comment on function gdpr_internal.controls(regclass) is
  'All that decides what happens to a table''s rows, as the catalog describes it: triggers, policies, row security, rules, children, casts, functions, views, columns, foreign keys (erasure follows them), indexes. What an application adds to them is drift until apply() has seen it.';

create or replace function gdpr_internal.fingerprint(p_relation regclass)
returns bytea
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select sha256(convert_to(coalesce(string_agg(c.control, E'\n' order by c.control collate "C"), ''), 'UTF8'))
  from gdpr_internal.controls(p_relation) as c;
end;
comment on function gdpr_internal.fingerprint(regclass) is 'SHA-256 over the controls of a table: what differs later is drift.';

create or replace function gdpr_internal.settle_table(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_owner(p_role, p_relation);
  update gdpr_internal.protected_table as t
  set fingerprint = gdpr_internal.fingerprint(p_relation)
  where t.relation = p_relation and t.unprotected_at is null;
end
$function$;
comment on function gdpr_internal.settle_table(name, regclass) is 'See gdpr_policy.settle_table(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.settle_table(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.settle_table(current_user, p_relation);
end;
comment on function gdpr_policy.settle_table(regclass) is 'Step of apply(): remembers the controls as they stand now; what differs later is drift.';

create or replace function gdpr_internal.purpose_definition(p_purpose gdpr_internal.purpose)
returns jsonb
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
begin
  return jsonb_strip_nulls(jsonb_build_object(
    'description', p_purpose.description, 'basis', p_purpose.basis, 'respond_within', p_purpose.respond_within::text,
    'remind', p_purpose.remind::text,
    'valid_for', p_purpose.valid_for::text, 'retain', p_purpose.retain::text,
    'while_waiting', case when p_purpose.basis = 'consent' then p_purpose.while_waiting end,
    'grace', case when p_purpose.basis in ('consent', 'legitimate_interests') then coalesce(to_jsonb(p_purpose.grace::text), 'false') end,
    'condition', p_purpose.condition, 'automated_decision', p_purpose.automated_decision,
    'direct_marketing', nullif(p_purpose.direct_marketing, false)
  ));
end
$function$;
comment on function gdpr_internal.purpose_definition(gdpr_internal.purpose) is 'A purpose as the policy writes it, durations in PostgreSQL''s style.';

create or replace function gdpr.policy()
returns jsonb
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select jsonb_build_object(
    'settings', (select coalesce(jsonb_object_agg(s.name, s.value), '{}') from gdpr_internal.setting as s where s.name <> 'machinery'),
    'purposes', (
      select coalesce(jsonb_object_agg(p.name, gdpr_internal.purpose_definition(p)), '{}')
      from gdpr_internal.purpose as p where p.id < 62
    ),
    'roles', (
      select coalesce(jsonb_object_agg(b.role_name, b.definition), '{}') from gdpr_internal.role_binding as b where b.definition <> '{}'
    ),
    'tables', (
      select coalesce(jsonb_object_agg(t.relation::text, gdpr_internal.definition_as_written(t.definition)), '{}') from gdpr_internal.protected_table as t
      where t.unprotected_at is null
    )
  );
end;
comment on function gdpr.policy() is 'The policy in force, in normal form: what apply() would take to leave everything as it is.';

create or replace view gdpr.settings as
select s.name, s.value from gdpr_internal.setting as s where s.name <> 'machinery';
comment on view gdpr.settings is 'Settings of the policy.';

create or replace view gdpr.protected_table as
select
  t.relation as table_name,
  t.mode,
  t.blocklist,
  (
    select array_agg(p.name order by p.id) from gdpr_internal.purpose as p where p.id < 62 and t.purpose_mask & (1::bigint << p.id) <> 0
  ) as purposes,
  (select r.relation from gdpr_internal.protected_table as r where r.id = t.parent_id) as parent,
  format('gdpr_clear.%I', t.view_name) as clear_view,
  t.definition -> 'erase' as erase,
  t.protected_at
from gdpr_internal.protected_table as t
where t.unprotected_at is null;
comment on view gdpr.protected_table is 'Tables that hold people, and how the policy treats them.';

create or replace view gdpr.protected_column as
select
  t.relation as table_name,
  c.column_name,
  c.category,
  c.special,
  c.sensitive,
  c.encrypt,
  c.identifier,
  c.matches,
  c.mask,
  c.erase,
  c.provided,
  c.original_type as type,
  c.about,
  c.same_as
from gdpr_internal.protected_column as c
join gdpr_internal.protected_table as t on t.id = c.table_id
where t.unprotected_at is null
order by t.relation::text, c.position;
comment on view gdpr.protected_column is 'Classified columns of protected tables.';

-- 00_foundation/70_plan.sql
-- [code] plan(): what a policy would change, step by step, and every reason to refuse it.
-- GDPR Art. 25. Called by: DBAs, gdprdb policy plan, gdpr.apply().

set local role gdpr_owner;

do $type$
begin
  if to_regtype('gdpr_policy.step') is null then
    create type gdpr_policy.step as (object text, action text, statement text, lock text, rewrite boolean);
  end if;
end
$type$;
comment on type gdpr_policy.step is 'One step of a plan: the object, what happens, the statement, the strongest lock it takes on the table, whether the table is rewritten.';

create or replace function gdpr_internal.register_steps(p_policy jsonb)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_now jsonb := gdpr.policy();
  v_name text;
  v_in jsonb;
begin
  if p_policy -> 'settings' <> v_now -> 'settings' then
    return next row('settings', 'set', format('select gdpr_policy.put_settings(%L)', p_policy -> 'settings'), null, false)::gdpr_policy.step;
  end if;
  for v_name, v_in in select key, value from jsonb_each(p_policy -> 'purposes') order by key loop
    if v_in is distinct from v_now -> 'purposes' -> v_name then
      return next row(
        'purpose ' || v_name, case when v_now -> 'purposes' ? v_name then 'change' else 'declare' end,
        format('select gdpr_policy.put_purpose(%L, %L)', v_name, v_in), null, false
      )::gdpr_policy.step;
    end if;
  end loop;
  for v_name, v_in in select key, value from jsonb_each(p_policy -> 'roles') order by key loop
    if v_in is distinct from v_now -> 'roles' -> v_name
      or not pg_has_role(v_name, gdpr_internal.audience_group(v_in ->> 'audience'), 'member')
    then
      return next row('role ' || v_name, 'bind', format('select gdpr_policy.bind_role(%L, %L)', v_name, v_in), null, false)::gdpr_policy.step;
    end if;
  end loop;
  for v_name in select key from jsonb_object_keys(v_now -> 'roles') as r (key) order by key loop
    if not p_policy -> 'roles' ? v_name then
      return next row('role ' || v_name, 'unbind', format('select gdpr_policy.unbind_role(%L)', v_name), null, false)::gdpr_policy.step;
    end if;
  end loop;
end
$function$;
comment on function gdpr_internal.register_steps(jsonb) is 'Steps for settings, purposes and roles.';

create or replace function gdpr_internal.stored_columns(p_definition jsonb)
returns table (column_name text, encrypt text, kind text, masked boolean)
language sql
immutable
parallel safe
security invoker
begin atomic
  select
    d.key,
    d.value ->> 'encrypt',
    case when d.value ->> 'canonical' = 'exact' then 'exact' else coalesce(d.value ->> 'identifier', 'text') end,
    d.value ->> 'mask' = 'pseudonym' or (d.value ->> 'encrypt' <> 'no' and d.value ->> 'mask' in ('initial', 'email', 'year'))
  from jsonb_each(p_definition -> 'columns') as d;
end;
comment on function gdpr_internal.stored_columns(jsonb) is 'The columns of a definition that keep something beside or instead of the plaintext.';

create or replace function gdpr_internal.control_columns(p_relation regclass, p_definition jsonb)
returns table (column_name text, type text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select c.column_name, c.type
  from (
    values ('gdpr_subject_id', 'bigint', 1), ('gdpr_subject_ref', 'uuid', 2), ('gdpr_purposes', 'bigint', 3), ('gdpr_until', 'timestamptz', 4)
    union all
    select 'gdpr_' || s.column_name || '_digest', 'uuid', 5
    from gdpr_internal.stored_columns(p_definition) as s where s.encrypt = 'searchable'
    union all
    select 'gdpr_' || s.column_name || '_mask',
      coalesce(
        (
          select c.original_type from gdpr_internal.protected_column as c
          join gdpr_internal.protected_table as t on t.id = c.table_id
          where t.relation = p_relation and t.unprotected_at is null and c.column_name = s.column_name
        ),
        format_type(a.atttypid, a.atttypmod)
      ), 6
    from gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name
    where s.masked
  ) as c (column_name, type, n)
  order by c.n, c.column_name;
end;
comment on function gdpr_internal.control_columns(regclass, jsonb) is 'The columns that a definition adds to its table.';

create or replace function gdpr_internal.encrypt_steps(p_relation regclass, p_definition jsonb, p_old jsonb)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_column record;
  v_alter text[] := '{}';
  v_object record;
begin
  for v_object in
    select distinct
      case when k.oid is not null then format('alter table %s drop constraint %I', p_relation, k.conname)
        else format('drop index %s', x.indexrelid::regclass) end as statement,
      coalesce(k.conname, x.indexrelid::regclass::text) as name
    from gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name
    join pg_index as x on x.indrelid = p_relation and not x.indisprimary and x.indexrelid in (
      select d.objid from pg_depend as d
      where d.classid = 'pg_class'::regclass and d.refobjid = p_relation and d.refobjsubid = a.attnum
      union all
      select i.indexrelid from pg_index as i where i.indrelid = p_relation and a.attnum = any (i.indkey)
    )
    left join pg_constraint as k on k.conindid = x.indexrelid and k.conrelid = p_relation and k.contype = 'u'
    where s.encrypt <> 'no' and coalesce(p_old -> 'columns' -> s.column_name ->> 'encrypt', 'no') = 'no'
    order by 2
  loop
    return next row(p_relation::text, format('drop %s, which would index ciphertext', v_object.name), v_object.statement, 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
  end loop;
  for v_column in
    select a.attname, a.attnum, format_type(a.atttypid, a.atttypmod) as type, s.encrypt,
      (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef as d where d.adrelid = p_relation and d.adnum = a.attnum) as expression
    from gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name
    where s.encrypt <> 'no' and coalesce(p_old -> 'columns' -> s.column_name ->> 'encrypt', 'no') = 'no'
    order by a.attnum
  loop
    if v_column.type <> 'text' then
      if v_column.expression is not null then
        v_alter := v_alter || format('alter column %I drop default', v_column.attname);
      end if;
      v_alter := v_alter || format(
        'alter column %1$I type text using %2$s', v_column.attname,
        replace(gdpr_internal.text_expression(format('%I', v_column.attname), v_column.type), 'gdpr_internal.', 'gdpr.')
      );
      if v_column.expression is not null then
        v_alter := v_alter || format(
          'alter column %I set default %s', v_column.attname, gdpr_internal.text_expression(format('(%s)', v_column.expression), v_column.type)
        );
      end if;
    end if;
  end loop;
  if v_alter <> '{}' then
    return next row(
      p_relation::text, 'encrypted columns become text',
      format('alter table %s %s', p_relation, array_to_string(v_alter, ', ')), 'ACCESS EXCLUSIVE', true
    )::gdpr_policy.step;
  end if;
end
$function$;
comment on function gdpr_internal.encrypt_steps(regclass, jsonb, jsonb) is 'Steps that make room for ciphertext in columns that are encrypted from now on.';

create or replace function gdpr_internal.index_steps(p_relation regclass, p_definition jsonb)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_column record;
  v_unique jsonb;
  v_name name;
begin
  if not exists (
    select from pg_index as x
    join pg_attribute as a on a.attrelid = x.indrelid and a.attname = 'gdpr_subject_id'
    where x.indrelid = p_relation and x.indkey::text = a.attnum::text
  ) then
    return next row(
      p_relation::text, 'index the subject',
      format('create index on %s (gdpr_subject_id)', p_relation), 'SHARE', false
    )::gdpr_policy.step;
  end if;
  for v_column in
    select s.column_name, 'gdpr_' || s.column_name || '_digest' as digest
    from gdpr_internal.stored_columns(p_definition) as s
    where s.encrypt = 'searchable'
    order by s.column_name
  loop
    v_unique := coalesce(
      (
        select c.original from gdpr_internal.protected_column as c
        join gdpr_internal.protected_table as t on t.id = c.table_id
        where t.relation = p_relation and t.unprotected_at is null and c.column_name = v_column.column_name and c.encrypt <> 'no'
      ),
      gdpr_internal.original_column(p_relation, v_column.column_name, 'searchable')
    );
    v_name := v_unique ->> 'unique_name';
    continue when exists (
      select from pg_index as x
      join pg_attribute as a on a.attrelid = x.indrelid and a.attname = v_column.digest
      where x.indrelid = p_relation and x.indkey::text = a.attnum::text and (x.indisunique or v_name is null)
    );
    return next row(
      p_relation::text, format('index the digest of %I', v_column.column_name),
      case
        when v_unique ? 'unique_constraint' then format('alter table %s add constraint %I unique (%I)', p_relation, v_name, v_column.digest)
        when v_name is not null then format('create unique index %I on %s (%I)', v_name, p_relation, v_column.digest)
        else format('create index on %s (%I)', p_relation, v_column.digest)
      end,
      'SHARE', false
    )::gdpr_policy.step;
  end loop;
end
$function$;
comment on function gdpr_internal.index_steps(regclass, jsonb) is 'Steps that index the subject and the digests; UNIQUE of a column moves, with its name, to its digest.';

create or replace function gdpr_internal.trigger_steps(p_relation regclass, p_definition jsonb, p_table smallint)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_via text[] := gdpr_internal.text_array(p_definition -> 'subject' -> 'via');
  v_watched boolean;
  v_controls text;
  v_trigger record;
begin
  select coalesce(bool_or(d.value ? 'identifier' or s.encrypt <> 'no' or s.masked), false) into v_watched
  from jsonb_each(p_definition -> 'columns') as d
  join gdpr_internal.stored_columns(p_definition) as s on s.column_name = d.key;
  select string_agg(format('%I', c.column_name), ', ') into v_controls
  from gdpr_internal.control_columns(p_relation, p_definition) as c;

  -- after the application's own BEFORE triggers: they work with plaintext, and what they change is encrypted too.
  -- hardly a WHEN: its expression would be parsed again for every statement, which costs more than the call
  for v_trigger in
    select *
    from (values
      ('zzz_gdpr_05_guard', format('before update of %s', v_controls), 'when (current_user <> ''gdpr_worker'')', 'gdpr_policy.guard_gate()'),
      ('zzz_gdpr_10_subject', case when v_via is not null then 'before insert' end, '', format('gdpr_generated.%I()', 'subject_' || p_table)),
      ('zzz_gdpr_10_subject_move', case when v_via is not null then 'before update' end, '', format('gdpr_generated.%I()', 'subject_' || p_table)),
      ('zzz_gdpr_40_protect', 'before insert', '', format('gdpr_generated.%I()', 'protect_' || p_table)),
      ('zzz_gdpr_40_change', case when v_watched or v_via is not null then 'before update' end, '', format('gdpr_generated.%I()', 'change_' || p_table)),
      ('zzz_gdpr_50_audit', 'after insert or update or delete', '', format('gdpr_generated.%I()', 'audit_' || p_table))
    ) as t (name, timing, condition, function)
    where t.timing is not null
  loop
    return next row(
      p_relation::text, 'trigger ' || v_trigger.name,
      format('create or replace trigger %I %s on %s for each row %s execute function %s',
        v_trigger.name, v_trigger.timing, p_relation, v_trigger.condition, v_trigger.function),
      'SHARE ROW EXCLUSIVE', false
    )::gdpr_policy.step;
    return next row(
      p_relation::text, 'enable always ' || v_trigger.name,
      format('alter table %s enable always trigger %I', p_relation, v_trigger.name), 'SHARE ROW EXCLUSIVE', false
    )::gdpr_policy.step;
  end loop;
  for v_trigger in select r.relation from gdpr_internal.relation_tree(p_relation) as r (relation) loop
    return next row(
      v_trigger.relation::text, 'trigger zzz_gdpr_40_truncate',
      format('create or replace trigger zzz_gdpr_40_truncate before truncate on %s for each statement execute function gdpr_policy.guard_truncate()', v_trigger.relation),
      'SHARE ROW EXCLUSIVE', false
    )::gdpr_policy.step;
    return next row(
      v_trigger.relation::text, 'enable always zzz_gdpr_40_truncate',
      format('alter table %s enable always trigger zzz_gdpr_40_truncate', v_trigger.relation), 'SHARE ROW EXCLUSIVE', false
    )::gdpr_policy.step;
  end loop;
end
$function$;
comment on function gdpr_internal.trigger_steps(regclass, jsonb, smallint) is 'Steps that put the triggers on a table.';

create or replace function gdpr_internal.relation_tree(p_relation regclass)
returns setof regclass
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select p_relation
  union
  select t.relid from pg_partition_tree(p_relation) as t;
end;
comment on function gdpr_internal.relation_tree(regclass) is 'A table and all its partitions.';

create or replace function gdpr_internal.retention_condition(p_relation regclass, p_definition jsonb)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select '((' || string_agg(format(
    '%I > (select gdpr_policy.kept_since(current_user, current_setting(''gdpr.purpose'', true), %L, null::%s))', coalesce(a.attname, ''), r.rule ->> 'for',
    format_type(a.atttypid, null)
  ), ' or ' order by r.n) || ') is not false)'
  from jsonb_array_elements(p_definition -> 'retain') with ordinality as r (rule, n)
  left join pg_attribute as a on a.attrelid = p_relation and a.attname = r.rule ->> 'after' and not a.attisdropped
  having bool_and(a.attname is not null) and not bool_and(r.rule ? 'columns');
end;
comment on function gdpr_internal.retention_condition(regclass, jsonb) is
  'The SQL by which rows are shown whose time is not over, for tables all of whose rules count from columns; null for others: without a basis the gate is closed anyway.';

create or replace function gdpr_internal.policy_steps(p_relation regclass, p_definition jsonb, p_original jsonb)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_enforce boolean := p_definition ->> 'mode' = 'enforce';
  v_mask text := '(select gdpr_generated.purpose_mask(current_user, current_setting(''gdpr.purpose'', true)))';
  v_caller text := 'current_user, current_setting(''gdpr.purpose'', true)';
  v_gate text := format(
    -- gdpr_worker sees rows that somebody closed by hand, too: erasure and the doctor have to find them
    '((gdpr_purposes & %s) <> 0 and (gdpr_until > statement_timestamp() or gdpr_policy.still_allowed(gdpr_subject_id, gdpr_purposes, %s))) or current_user = ''gdpr_worker''',
    v_mask, v_caller
  );
  v_base text := '(select gdpr_generated.is_clear(current_user) or gdpr_policy.refuse_base(current_user))';
  -- a row whose time is over is hidden at that instant, whenever retention comes to delete it
  v_shown text := format('(%s)', v_gate) || coalesce(' and ' || gdpr_internal.retention_condition(p_relation, p_definition), '');
  v_policy record;
begin
  for v_relation in select r from gdpr_internal.relation_tree(p_relation) as r loop
    for v_policy in
      select * from (values
        ('gdpr_40_owners', 'for all to gdpr_worker, gdpr_viewer using (true) with check (true)'),
        ('gdpr_40_base', format('for all to public using (%1$s) with check (%1$s)', v_base)),
        ('gdpr_40_gate', format(
          -- the same to see and to write: PostgreSQL drops a check that says it twice; why a write is refused, the trigger says
          'as restrictive for all to public using (%s) with check (%s)', v_shown, v_gate
        ))
      ) as p (name, definition)
    loop
      if exists (select from pg_policy as p where p.polrelid = v_relation and p.polname = v_policy.name) then
        return next row(
          v_relation::text, 'drop policy ' || v_policy.name,
          format('drop policy if exists %I on %s', v_policy.name, v_relation), 'ACCESS EXCLUSIVE', false
        )::gdpr_policy.step;
      end if;
      if v_enforce then
        return next row(
          v_relation::text, 'policy ' || v_policy.name,
          format('create policy %I on %s %s', v_policy.name, v_relation, v_policy.definition), 'ACCESS EXCLUSIVE', false
        )::gdpr_policy.step;
      end if;
    end loop;
    return next row(
      v_relation::text, case when v_enforce then 'force row security' else 'observe: row security as it was' end,
      format('alter table %s %s row level security, %s row level security', v_relation,
        case when v_enforce or (p_original ->> 'row_security')::boolean then 'enable' else 'disable' end,
        case when v_enforce or (p_original ->> 'force_row_security')::boolean then 'force' else 'no force' end),
      'ACCESS EXCLUSIVE', false
    )::gdpr_policy.step;
  end loop;
end
$function$;
comment on function gdpr_internal.policy_steps(regclass, jsonb, jsonb) is
  'Steps that put the gate on a table and its partitions: owners of the machinery, roles that may touch the table, the gate itself (restrictive, for all, to public).';

create or replace function gdpr_internal.table_steps(p_relation regclass, p_definition jsonb, p_next_id smallint)
returns setof gdpr_policy.step
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_new boolean;
  v_changed boolean;
  v_rewrite boolean;
  v_columns text;
  v_schema name;
begin
  select * into v_table from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null;
  v_new := v_table.id is null;
  v_changed := v_new or v_table.definition <> p_definition;
  if not v_changed and v_table.fingerprint is not distinct from gdpr_internal.fingerprint(p_relation) then
    return;
  end if;
  v_rewrite := not v_new and exists (
    select s.column_name, s.encrypt, s.kind, s.masked, p_definition -> 'columns' -> s.column_name ->> 'mask',
      p_definition -> 'columns' -> s.column_name ->> 'identifier'
    from gdpr_internal.stored_columns(p_definition) as s
    where s.encrypt <> 'no' or s.masked or p_definition -> 'columns' -> s.column_name ? 'identifier'
    except
    select s.column_name, s.encrypt, s.kind, s.masked, v_table.definition -> 'columns' -> s.column_name ->> 'mask',
      v_table.definition -> 'columns' -> s.column_name ->> 'identifier'
    from gdpr_internal.stored_columns(v_table.definition) as s
  );

  if v_changed then
    if not v_new then
      return next row(p_relation::text, 'take the controls off', format('select gdpr_policy.controls_off(%L)', p_relation), 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
    end if;
    return next row(
      p_relation::text, case when v_new then 'register' else 'change' end,
      format('select gdpr_policy.register_table(%L, %L)', p_relation, p_definition), null, false
    )::gdpr_policy.step;
  end if;
  select string_agg(format('add column %I %s', c.column_name, c.type), ', ') into v_columns
  from gdpr_internal.control_columns(p_relation, p_definition) as c
  where not exists (select from pg_attribute as a where a.attrelid = p_relation and a.attname = c.column_name and not a.attisdropped);
  if v_columns is not null then
    return next row(p_relation::text, 'add columns', format('alter table %s %s', p_relation, v_columns), 'ACCESS EXCLUSIVE', false)::gdpr_policy.step;
  end if;
  return query select * from gdpr_internal.encrypt_steps(p_relation, p_definition, v_table.definition);
  select n.nspname into v_schema from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = p_relation;
  return next row(
    p_relation::text, 'let the machinery read and write',
    format('grant usage on schema %I to gdpr_owner, gdpr_keyholder, gdpr_worker, gdpr_viewer, gdpr_dpo', v_schema), null, false
  )::gdpr_policy.step;
  return next row(
    p_relation::text, 'let the machinery read and write',
    format('grant select on table %1$s to gdpr_worker, gdpr_viewer', p_relation), null, false
  )::gdpr_policy.step;
  -- one column is enough for SELECT ... FOR UPDATE through the clear view, which asks its owner too
  return next row(
    p_relation::text, 'let the machinery read and write',
    format('grant update (gdpr_until) on table %1$s to gdpr_viewer', p_relation), null, false
  )::gdpr_policy.step;
  return next row(
    p_relation::text, 'let the machinery read and write',
    format('grant update, delete on table %1$s to gdpr_worker', p_relation), null, false
  )::gdpr_policy.step;
  if p_definition ? 'double_opt_in' or v_table.definition ? 'double_opt_in' then
    return query
    select p_relation::text, 'confirmed registrations', s.statement, null::text, false
    from gdpr_policy.registration_grants(p_relation, p_definition ? 'double_opt_in') as s (statement);
  end if;
  return next row(p_relation::text, 'generate functions', format('select gdpr_policy.generate_functions(%L)', p_relation), null, false)::gdpr_policy.step;
  if v_new or v_rewrite then
    return next row(
      p_relation::text, case when v_new then 'find the persons in existing rows and encrypt them' else 'rewrite rows for the changed columns' end,
      format('select gdpr_policy.backfill(%L, %L)', p_relation, v_new), 'ACCESS EXCLUSIVE', true
    )::gdpr_policy.step;
  end if;
  return query select * from gdpr_internal.index_steps(p_relation, p_definition);
  if v_new or v_rewrite then
    return next row(
      p_relation::text, 'statistics forget the plaintext', format('analyze %s', p_relation), 'SHARE UPDATE EXCLUSIVE', false
    )::gdpr_policy.step;
  end if;
  return query select * from gdpr_internal.trigger_steps(p_relation, p_definition, coalesce(v_table.id, p_next_id));
  return next row(p_relation::text, 'views', format('select gdpr_policy.generate_views(%L)', p_relation), null, false)::gdpr_policy.step;
  return query select * from gdpr_internal.policy_steps(p_relation, p_definition, coalesce(v_table.original, gdpr_internal.original_state(p_relation)));
  if not v_new and v_table.definition -> 'purposes' <> p_definition -> 'purposes' then
    return next row(
      p_relation::text, 'the gate of every row follows the purposes', format('select gdpr_policy.extend_table(%L)', p_relation), 'ROW EXCLUSIVE', false
    )::gdpr_policy.step;
  end if;
  return next row(p_relation::text, 'remember the controls', format('select gdpr_policy.settle_table(%L)', p_relation), null, false)::gdpr_policy.step;
end
$function$;
comment on function gdpr_internal.table_steps(regclass, jsonb, smallint) is 'Steps for one table; none when the register and the catalog already agree with the definition.';

create or replace function gdpr_internal.change_problems(p_policy jsonb, p_role name)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select coalesce(array_agg(x.problem), '{}')
    from (
      select format('tables.%s: belongs to role %s; apply the policy as its owner', to_json(t.key), c.relowner::regrole) as problem
      from jsonb_each(p_policy -> 'tables') as t
      join pg_class as c on c.oid = gdpr_internal.find_table(t.key)
      where not pg_has_role(p_role, c.relowner, 'usage')
      union all
      select format('tables.%s: the subject of a protected table cannot change; unprotect it first', to_json(t.key))
      from jsonb_each(p_policy -> 'tables') as t
      join gdpr_internal.protected_table as o on o.relation = gdpr_internal.find_table(t.key) and o.unprotected_at is null
      where o.definition #- '{subject,joint}' -> 'subject' <> t.value #- '{subject,joint}' -> 'subject'
      union all
      select format('tables.%s.columns.%s: is encrypted; unprotect the table to take that away', to_json(t.key), to_json(c.column_name))
      from jsonb_each(p_policy -> 'tables') as t
      join gdpr_internal.protected_table as o on o.relation = gdpr_internal.find_table(t.key) and o.unprotected_at is null
      join gdpr_internal.protected_column as c on c.table_id = o.id and c.encrypt <> 'no'
      where coalesce(t.value -> 'columns' -> c.column_name::text ->> 'encrypt', 'no') = 'no'
      union all
      select 'keys: there is no key-encryption key; call gdpr.create_key() first'
      where p_policy -> 'tables' <> '{}' and not gdpr_internal.has_key()
    ) as x
  );
end
$function$;
comment on function gdpr_internal.change_problems(jsonb, name) is 'Why this policy cannot follow the one in force, or not by this role.';

create or replace function gdpr_internal.table_order(p_tables jsonb)
returns table (relation regclass, definition jsonb, n bigint)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with recursive tree (name, depth) as (
    select t.key, 0
    from jsonb_each(p_tables) as t
    where not coalesce(p_tables ? (t.value -> 'subject' ->> 'references'), false)
    union all
    select t.key, p.depth + 1
    from tree as p
    join jsonb_each(p_tables) as t on t.value -> 'subject' ->> 'references' = p.name
    where p.depth < 100
  )
  select gdpr_internal.find_table(o.name), p_tables -> o.name, row_number() over (order by o.depth, o.name)
  from tree as o;
end;
comment on function gdpr_internal.table_order(jsonb) is 'Tables, parents before children.';

create or replace function gdpr_policy.steps(p_policy jsonb, p_role name)
returns table (step integer, object text, action text, statement text, lock text, rewrite boolean)
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_read record;
  v_order record;
  v_next smallint := (select coalesce(max(t.id), 0) from gdpr_internal.protected_table as t);
begin
  v_read := gdpr_internal.read_policy(p_policy);
  if v_read.problems = '{}' then
    v_read.problems := gdpr_internal.change_problems(v_read.policy, p_role);
  end if;
  if v_read.problems <> '{}' then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_read.problems, E'\n'));
  end if;
  step := 0;
  for object, action, statement, lock, rewrite in select * from gdpr_internal.register_steps(v_read.policy) loop
    step := step + 1;
    return next;
  end loop;
  for v_order in select * from gdpr_internal.table_order(v_read.policy -> 'tables') as o order by o.n loop
    if not exists (select from gdpr_internal.protected_table as t where t.relation = v_order.relation and t.unprotected_at is null) then
      v_next := v_next + 1;
    end if;
    for object, action, statement, lock, rewrite in
      select * from gdpr_internal.table_steps(v_order.relation, v_order.definition, v_next)
    loop
      step := step + 1;
      return next;
    end loop;
  end loop;
end
$function$;
comment on function gdpr_policy.steps(jsonb, name) is 'See gdpr.plan(); takes the role that would apply the policy.';

-- 00_foundation/80_apply.sql
-- [code] plan() and apply(): the policy becomes the database. They run as the caller, who owns the tables.
-- GDPR Art. 25. Called by: DBAs, gdprdb policy plan|apply.

set local role gdpr_owner;

create or replace function gdpr_policy.unique_candidates(p_policy jsonb)
returns table (relation regclass, column_name text, kind text)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_policy jsonb := (gdpr_internal.read_policy(p_policy)).policy;
begin
  return query
  select o.relation, s.column_name, s.kind
  from gdpr_internal.table_order(v_policy -> 'tables') as o
  cross join lateral gdpr_internal.stored_columns(o.definition) as s
  where s.encrypt = 'searchable'
    and gdpr_internal.original_column(o.relation, s.column_name, s.encrypt) ? 'unique_name'
    and not exists (
      select from gdpr_internal.protected_table as t
      join gdpr_internal.protected_column as c on c.table_id = t.id
      where t.relation = o.relation and t.unprotected_at is null and c.column_name = s.column_name and c.encrypt <> 'no'
    );
end
$function$;
comment on function gdpr_policy.unique_candidates(jsonb) is 'Unique columns whose uniqueness would move to a digest.';

create or replace function gdpr.plan(p_policy jsonb)
returns table (step integer, object text, action text, statement text, lock text, rewrite boolean)
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
as $function$
declare
  v_candidate record;
  v_collisions bigint;
  v_problems text[] := '{}';
begin
  return query select * from gdpr_policy.steps(p_policy, current_user) as s order by s.step;
  for v_candidate in select * from gdpr_policy.unique_candidates(p_policy) loop
    execute format(
      'select count(*) from (select from %s where %I is not null group by gdpr_policy.canonical_of(%L, %I::text) having count(*) > 1) as c',
      v_candidate.relation, v_candidate.column_name, v_candidate.kind, v_candidate.column_name
    ) into v_collisions;
    if v_collisions > 0 then
      v_problems := v_problems || format(
        'tables.%s.columns.%s: is UNIQUE, and %s of its values are written in several ways that become one (see canonical = "exact")',
        to_json(v_candidate.relation::text), to_json(v_candidate.column_name), v_collisions
      );
    end if;
  end loop;
  if v_problems <> '{}' then
    perform gdpr.refuse_policy(v_problems);
  end if;
end
$function$;
comment on function gdpr.plan(jsonb) is
  'The steps that would bring the database to this policy: object, action, statement, strongest lock on the table, whether the table is rewritten; none when it is there already. Changes nothing. p_policy: {"settings", "purposes", "roles", "tables"}, as the TOML file has it. Error: PR001 with every problem on a line of the detail. Art. 25.';

create or replace function gdpr.refuse_policy(p_problems text[])
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.refuse('policy_refused', array_to_string(p_problems, E'\n'));
end;
comment on function gdpr.refuse_policy(text[]) is 'Raises PR001 with these problems.';

create or replace function gdpr.apply(p_policy jsonb)
returns table (step integer, object text, action text, statement text, lock text, rewrite boolean)
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
as $function$
begin
  -- one at a time: two plans made side by side would both be right and together wrong
  perform pg_advisory_xact_lock(hashtextextended('gdpr.apply', 0));
  for step, object, action, statement, lock, rewrite in select * from gdpr.plan(p_policy) as p order by p.step loop
    execute statement;
    return next;
  end loop;
end
$function$;
comment on function gdpr.apply(jsonb) is
  'Brings the database to this policy and returns the steps it took; asked twice, none the second time. All in one transaction: a step that fails undoes them all. Run as the owner of the tables and member of gdpr_admin. Error: PR001 policy refused. Art. 25.';

create or replace function gdpr_policy.partition_tree(p_relation regclass)
returns setof regclass
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select r from gdpr_internal.relation_tree(p_relation) as r;
end;
comment on function gdpr_policy.partition_tree(regclass) is 'A table and all its partitions.';

create or replace function gdpr_policy.table_facts(p_relation regclass, out id smallint, out via text[], out original jsonb, out schema_name name, out last_of_schema boolean)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  select t.id, t.via_columns::text[], t.original, n.nspname, not exists (
    select from gdpr_internal.protected_table as o
    join pg_class as x on x.oid = o.relation
    where o.unprotected_at is null and o.id <> t.id and x.relnamespace = n.oid
  )
  into id, via, original, schema_name, last_of_schema
  from gdpr_internal.protected_table as t
  join pg_class as c on c.oid = t.relation
  join pg_namespace as n on n.oid = c.relnamespace
  where t.id = gdpr_internal.table_id(p_relation);
end
$function$;
comment on function gdpr_policy.table_facts(regclass) is 'What the steps that run as the table''s owner need to know. Error: PR002.';

create or replace function gdpr_policy.backfill(p_relation regclass, p_new boolean)
returns bigint
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_facts record := gdpr_policy.table_facts(p_relation);
  v_relation regclass;
  v_forced regclass[] := '{}';
  v_trigger record;
  v_back text[] := '{}';
  v_statement text;
  v_rows bigint;
begin
  -- this is no change of the data: the application's triggers must not see it
  for v_relation in select r from gdpr_policy.partition_tree(p_relation) as r loop
    if (select c.relforcerowsecurity from pg_class as c where c.oid = v_relation) then
      execute format('alter table %s no force row level security', v_relation);
      v_forced := v_forced || v_relation;
    end if;
    for v_trigger in
      select t.tgname, t.tgenabled from pg_trigger as t
      where t.tgrelid = v_relation and not t.tgisinternal and t.tgenabled <> 'D' and t.tgparentid = 0
    loop
      execute format('alter table %s disable trigger %I', v_relation, v_trigger.tgname);
      v_back := v_back || format('alter table %s enable %s trigger %I', v_relation,
        case v_trigger.tgenabled when 'A' then 'always' when 'R' then 'replica' else '' end, v_trigger.tgname);
    end loop;
  end loop;
  if v_facts.via is not null then
    execute format('create trigger zzz_gdpr_10_backfill before update on %s for each row execute function gdpr_generated.%I(''all'')',
      p_relation, 'subject_' || v_facts.id);
  end if;
  if p_new then
    execute format('create trigger zzz_gdpr_40_backfill before update on %s for each row execute function gdpr_generated.%I()',
      p_relation, 'protect_' || v_facts.id);
  else
    execute format('create trigger zzz_gdpr_40_backfill before update on %s for each row execute function gdpr_generated.%I(''all'')',
      p_relation, 'change_' || v_facts.id);
  end if;
  execute format('update %s set gdpr_purposes = gdpr_purposes where %s', p_relation,
    case when p_new then 'gdpr_subject_id is null' else 'gdpr_subject_id is not null' end);
  get diagnostics v_rows = row_count;
  if v_facts.via is not null then
    execute format('drop trigger zzz_gdpr_10_backfill on %s', p_relation);
  end if;
  execute format('drop trigger zzz_gdpr_40_backfill on %s', p_relation);
  foreach v_statement in array v_back loop
    execute v_statement;
  end loop;
  foreach v_relation in array v_forced loop
    execute format('alter table %s force row level security', v_relation);
  end loop;
  return v_rows;
end
$function$;
comment on function gdpr_policy.backfill(regclass, boolean) is
  'Step of apply(): existing rows go through the same trigger as new ones (p_new), or have their changed columns written anew. Returns the rows.';

create or replace function gdpr_policy.controls_off(p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_name name;
begin
  for v_relation in select r from gdpr_policy.partition_tree(p_relation) as r loop
    for v_name in select p.polname from pg_policy as p where p.polrelid = v_relation and p.polname ~ '^gdpr_40_' loop
      execute format('drop policy %I on %s', v_name, v_relation);
    end loop;
    for v_name in
      select t.tgname from pg_trigger as t
      where t.tgrelid = v_relation and t.tgname ~ '^zzz_gdpr_' and t.tgparentid = 0
    loop
      execute format('drop trigger %I on %s', v_name, v_relation);
    end loop;
  end loop;
  perform gdpr_policy.drop_views(p_relation);
end
$function$;
comment on function gdpr_policy.controls_off(regclass) is 'Takes triggers, policies and views off a table; row security stays on, so that nobody sees a row meanwhile.';

create or replace function gdpr_internal.drop_views(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
begin
  perform gdpr_generated.drop_redacted_view(v_id, a) from unnest(gdpr_internal.audiences()) as a;
  perform gdpr_generated.drop_clear_view(v_id);
end
$function$;
comment on function gdpr_internal.drop_views(name, regclass) is 'See gdpr_policy.drop_views(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.drop_views(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.drop_views(current_user, p_relation);
end;
comment on function gdpr_policy.drop_views(regclass) is 'Drops the clear view and the redacted views of a table.';

create or replace function gdpr_internal.begin_unprotect(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_child regclass;
begin
  select t.relation into v_child from gdpr_internal.protected_table as t where t.parent_id = v_id and t.unprotected_at is null limit 1;
  if v_child is not null then
    perform gdpr_internal.refuse('invalid_argument', format('unprotect %s first: its rows belong to subjects of this table', v_child));
  end if;
  update gdpr_internal.protected_table as t set unprotecting_xid = pg_current_xact_id() where t.id = v_id;
  -- the server's log keeps this even when the transaction, and its audit record, is rolled back
  raise log 'gdprdb: unprotect of % by %', p_relation, gdpr_internal.acting_role();
  perform gdpr_internal.audit_event('UNPROTECT', null, jsonb_build_object('table', p_relation::text));
end
$function$;
comment on function gdpr_internal.begin_unprotect(name, regclass) is 'See gdpr_policy.begin_unprotect(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.begin_unprotect(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.begin_unprotect(current_user, p_relation);
end;
comment on function gdpr_policy.begin_unprotect(regclass) is 'Step of unprotect(): opens decryption in place for this transaction, on record. Errors: PR002, PR004 while children are protected.';

create or replace function gdpr_internal.restore_statements(p_role name, p_relation regclass)
returns setof text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_alter text[] := '{}';
  v_column gdpr_internal.protected_column;
  v_object record;
begin
  for v_column in
    select * from gdpr_internal.protected_column as c where c.table_id = v_id and c.encrypt <> 'no' order by c.position
  loop
    if v_column.original ? 'default' then
      v_alter := v_alter || format('alter column %I drop default', v_column.column_name);
    end if;
    v_alter := v_alter || format(
      'alter column %1$I type %2$s%5$s using gdpr_policy.decrypt_for_unprotect(%3$s, %4$s, %1$I)::%2$s',
      v_column.column_name, v_column.original_type, 'gdpr_subject_id', v_column.id,
      coalesce(' collate ' || (v_column.original ->> 'collation'), '')
    );
    if v_column.original ? 'default' then
      v_alter := v_alter || format('alter column %I set default %s', v_column.column_name, v_column.original ->> 'default');
    end if;
  end loop;
  if v_alter <> '{}' then
    return next format('alter table %s %s', p_relation, array_to_string(v_alter, ', '));
  end if;
  return next format('alter table %s %s', p_relation, (
    select string_agg(format('drop column %I', a.attname), ', ' order by a.attnum)
    from pg_attribute as a
    where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and gdpr_internal.is_control_column(v_id, a.attname)
  ));
  for v_object in
    select distinct k.kind, k.value ->> 'name' as name, k.value ->> 'definition' as definition, k.value ->> 'comment' as comment
    from gdpr_internal.protected_column as c
    cross join lateral (
      select 'constraint' as kind, value from jsonb_array_elements(coalesce(c.original -> 'constraints', '[]'))
      union all
      select 'index', value from jsonb_array_elements(coalesce(c.original -> 'indexes', '[]'))
    ) as k
    where c.table_id = v_id
    order by 1, 2
  loop
    if v_object.kind = 'constraint' then
      return next format('alter table %s add constraint %I %s', p_relation, v_object.name, v_object.definition);
      if v_object.comment is not null then
        return next format('comment on constraint %I on %s is %L', v_object.name, p_relation, v_object.comment);
      end if;
    else
      return next v_object.definition;
      if v_object.comment is not null then
        return next format('comment on index %s is %L', v_object.name, v_object.comment);
      end if;
    end if;
  end loop;
end
$function$;
comment on function gdpr_internal.restore_statements(name, regclass) is 'See gdpr_policy.restore_statements(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.restore_statements(p_relation regclass)
returns setof text
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select s from gdpr_internal.restore_statements(current_user, p_relation) as s;
end;
comment on function gdpr_policy.restore_statements(regclass) is 'The statements that give a table back its columns, indexes and constraints.';

create or replace function gdpr_internal.finish_unprotect(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
begin
  update gdpr_internal.protected_table as t
  set unprotected_at = statement_timestamp(), unprotecting_xid = null
  where t.id = v_id;
  perform gdpr_internal.generate_worker(null);
  perform gdpr_internal.drop_generated_controls(v_id);
  perform gdpr_internal.require_worker();
  perform gdpr_generated.drop_generated_rows(v_id);
  perform gdpr_internal.remember_worker();
  perform gdpr_internal.follow_references(p_relation);
end
$function$;
comment on function gdpr_internal.finish_unprotect(name, regclass) is 'See gdpr_policy.finish_unprotect(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.finish_unprotect(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.finish_unprotect(current_user, p_relation);
end;
comment on function gdpr_policy.finish_unprotect(regclass) is 'Step of unprotect(): the register keeps the table as evidence, the generated functions go.';

create or replace function gdpr.unprotect(p_table regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
as $function$
declare
  v_facts record := gdpr_policy.table_facts(p_table);
  v_statement text;
  v_relation regclass;
begin
  perform pg_advisory_xact_lock(hashtextextended('gdpr.apply', 0));
  execute format('lock table %s in access exclusive mode', p_table);
  perform gdpr_policy.begin_unprotect(p_table);
  perform gdpr_policy.controls_off(p_table);
  for v_statement in select s from gdpr_policy.restore_statements(p_table) as s loop
    execute v_statement;
  end loop;
  for v_relation in select r from gdpr_policy.partition_tree(p_table) as r loop
    execute format('alter table %s %s row level security, %s row level security', v_relation,
      case when (v_facts.original ->> 'row_security')::boolean then 'enable' else 'disable' end,
      case when (v_facts.original ->> 'force_row_security')::boolean then 'force' else 'no force' end);
  end loop;
  for v_statement in select s from gdpr_policy.registration_grants(p_table, false) as s loop
    execute v_statement;
  end loop;
  execute format('revoke all on table %s from gdpr_worker, gdpr_viewer', p_table);
  if v_facts.last_of_schema then
    execute format('revoke usage on schema %I from gdpr_owner, gdpr_keyholder, gdpr_worker, gdpr_viewer, gdpr_dpo', v_facts.schema_name);
  end if;
  perform gdpr_policy.finish_unprotect(p_table);
end
$function$;
comment on function gdpr.unprotect(regclass) is
  'Takes the protection off a table: values are decrypted in place, types, defaults, indexes, constraints and row security are as before; the evidence stays. Run as the owner of the table and member of gdpr_admin. Errors: PR002 not protected, PR004 while tables belong to it, PR402 key locked.';

-- 10_collection/30_canonical.sql
-- [code] Canonical forms: when two spellings are the same identifier.
-- GDPR Art. 5(1)(d), Art. 17: who was erased under one spelling must not come back under another.

set local role gdpr_owner;

create or replace function gdpr_internal.fold_text(p_value text)
returns text
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_folded text;
begin
  if octet_length(p_value) = length(p_value) then
    return lower(p_value collate "C");
  end if;
  -- a sub-select, so that each letter is one probe of the index whatever the planner believes of the table
  select string_agg(
    coalesce((select f.folded from gdpr_internal.fold as f where f.letter = c.letter), lower(c.letter collate "C")), '' order by c.n
  )
  into v_folded
  from unnest(string_to_array(normalize(p_value, nfkc), null)) with ordinality as c (letter, n);
  return normalize(coalesce(v_folded, ''), nfkc);
end
$function$;
comment on function gdpr_internal.fold_text(text) is
  'NFKC, Unicode case folding, decimal digits to ASCII, format characters removed; the same on every server, whatever its locale.';

create or replace function gdpr_internal.punycode_decode(p_label text)
returns text
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_mark integer := length(p_label) - strpos(reverse(p_label), '-') + 1;
  v_output text[] := '{}';
  v_rest text := p_label;
  v_n bigint := 128;
  v_i bigint := 0;
  v_bias integer := 72;
  v_old_i bigint;
  v_weight bigint;
  v_k integer;
  v_t integer;
  v_digit integer;
  v_position integer := 1;
  v_delta bigint;
  v_size integer;
begin
  if strpos(p_label, '-') > 0 then
    v_output := coalesce(string_to_array(left(p_label, v_mark - 1), null), '{}');
    v_rest := substr(p_label, v_mark + 1);
  end if;
  while v_position <= length(v_rest) loop
    v_old_i := v_i;
    v_weight := 1;
    v_k := 36;
    loop
      v_digit := strpos('abcdefghijklmnopqrstuvwxyz0123456789', substr(v_rest, v_position, 1)) - 1;
      if v_digit < 0 or v_position > length(v_rest) then
        return 'xn--' || p_label;
      end if;
      v_position := v_position + 1;
      v_i := v_i + v_digit * v_weight;
      v_t := least(greatest(v_k - v_bias, 1), 26);
      exit when v_digit < v_t;
      v_weight := v_weight * (36 - v_t);
      if v_weight > 4294967296 or v_i > 4294967296 then
        return 'xn--' || p_label;
      end if;
      v_k := v_k + 36;
    end loop;
    v_size := cardinality(v_output) + 1;
    v_delta := case when v_old_i = 0 then (v_i - v_old_i) / 700 else (v_i - v_old_i) / 2 end;
    v_delta := v_delta + v_delta / v_size;
    v_k := 0;
    while v_delta > 455 loop
      v_delta := v_delta / 35;
      v_k := v_k + 36;
    end loop;
    v_bias := v_k + (36 * v_delta / (v_delta + 38))::integer;
    v_n := v_n + v_i / v_size;
    v_i := v_i % v_size;
    if v_n > 1114111 or v_n between 55296 and 57343 then
      return 'xn--' || p_label;
    end if;
    v_output := v_output[:v_i::integer] || chr(v_n::integer) || v_output[v_i::integer + 1:];
    v_i := v_i + 1;
  end loop;
  return array_to_string(v_output, '');
end
$function$;
comment on function gdpr_internal.punycode_decode(text) is
  'The Unicode form of an IDNA label given without its xn-- (RFC 3492); a label that is no Punycode is given back with it.';

create or replace function gdpr_internal.canonical_domain(p_domain text)
returns text
language plpgsql
stable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_labels text[];
  v_label text;
begin
  -- no domain is longer than 253 letters
  if strpos(p_domain, 'xn--') = 0 or length(p_domain) > 253 then
    return rtrim(p_domain, '.');
  end if;
  v_labels := string_to_array(rtrim(p_domain, '.'), '.');
  for v_i in 1 .. cardinality(v_labels) loop
    if starts_with(v_labels[v_i], 'xn--') then
      v_label := gdpr_internal.punycode_decode(substr(v_labels[v_i], 5));
      -- one that folds to something else is another domain: xn--fa-hia.example is not fass.example
      if gdpr_internal.fold_text(v_label) = v_label then
        v_labels[v_i] := v_label;
      end if;
    end if;
  end loop;
  return gdpr_internal.fold_text(array_to_string(v_labels, '.'));
end
$function$;
comment on function gdpr_internal.canonical_domain(text) is 'A folded domain with its IDNA labels in Unicode and without the root dot.';

create or replace function gdpr_internal.canonical_phone(p_folded text)
returns text
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digits text := regexp_replace(p_folded, '[^0-9]', '', 'g');
  v_country text;
begin
  if starts_with(p_folded, '+') then
    -- the trunk zero is written in brackets beside a country code
    v_digits := regexp_replace(replace(p_folded, '(0)', ''), '[^0-9]', '', 'g');
  elsif starts_with(v_digits, '00') then
    v_digits := ltrim(v_digits, '0');
  elsif starts_with(v_digits, '0') then
    select s.value #>> '{}' into v_country from gdpr_internal.setting as s where s.name = 'phone_country_code';
    v_digits := coalesce(v_country || substr(v_digits, 2), v_digits);
  end if;
  return v_digits;
end
$function$;
comment on function gdpr_internal.canonical_phone(text) is
  'The E.164 digits of a folded phone number; a national number (leading 0) gets the setting phone_country_code in front.';

create or replace function gdpr_internal.canonical(p_kind text, p_value text)
returns text
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_text text;
  v_at integer;
begin
  if p_kind = 'exact' then
    return p_value;
  end if;
  v_text := case when octet_length(p_value) = length(p_value) then lower(p_value collate "C") else gdpr_internal.fold_text(p_value) end;
  v_text := btrim(v_text, E' \t\r\n\u00a0\u3000');
  if p_kind = 'email' then
    v_text := translate(v_text, E'\u3002 \t\r\n\u00a0\u3000', '.');
    if strpos(v_text, 'xn--') > 0 or right(v_text, 1) = '.' then
      v_at := length(v_text) - strpos(reverse(v_text), '@') + 1;
      if strpos(v_text, '@') > 0 then
        v_text := left(v_text, v_at) || gdpr_internal.canonical_domain(substr(v_text, v_at + 1));
      end if;
    end if;
  elsif p_kind = 'phone' then
    v_text := gdpr_internal.canonical_phone(v_text);
  elsif p_kind <> 'text' then
    perform gdpr_internal.refuse('invalid_argument', 'the kind of an identifier is email, phone, text or exact');
  end if;
  return nullif(v_text, '');
end
$function$;
comment on function gdpr_internal.canonical(text, text) is
  'The canonical form of an identifier. email: folded, no spaces, IDNA domain; phone: E.164 digits; text: folded and trimmed; exact: as it is. Null for a value without content.';

create or replace function gdpr_internal.generate_addresses()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_local text := 'split_part(p_canonical, ''@'', 1)';
  v_domain text := 'substr(p_canonical, strpos(p_canonical, ''@'') + 1)';
  v_rules text;
begin
  -- asked for every address that comes in: the policy as code, which the planner puts into the triggers
  select string_agg(
    format(
      'when %s = %L then %s || %L', v_domain, d.domain,
      case when (d.rule ->> 'ignore_dots')::boolean then format('replace(%s, %L, %L)', l.part, '.', '') else l.part end,
      '@' || d.same_as
    ), ' ' order by d.domain
  )
  into v_rules
  from (
    select a.key as domain, coalesce(a.value ->> 'same_as', a.key) as same_as,
      '{"tag": "+"}' || case when a.value ? 'same_as' then s.value -> (a.value ->> 'same_as') else a.value end as rule
    from gdpr_internal.setting as s
    cross join lateral jsonb_each(s.value) as a
    where s.name = 'addresses'
  ) as d
  cross join lateral (
    select case
      when d.rule ->> 'tag' = '' then v_local
      else format('case when strpos(%1$s, %2$L) > 1 then split_part(%1$s, %2$L, 1) else %1$s end', v_local, d.rule ->> 'tag')
    end as part
  ) as l;
  execute format(
    'create or replace function gdpr_generated.bare_address(p_canonical text) returns text language sql stable parallel safe '
    'security invoker begin atomic select case %s when strpos(%2$s, %3$L) > 1 then split_part(%2$s, %3$L, 1) || substr(p_canonical, strpos(p_canonical, %4$L)) '
    'else p_canonical end; end',
    v_rules, v_local, '+', '@'
  );
  comment on function gdpr_generated.bare_address(text) is
    'The mailbox that a canonical address means: without its plus-tag, or by the rules of settings.addresses. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.bare_address(text) to gdpr_keyholder;
end
$function$;
comment on function gdpr_internal.generate_addresses() is 'Generates gdpr_generated.bare_address() from settings.addresses of the policy.';

do $addresses$
begin
  perform gdpr_internal.generate_addresses();
end
$addresses$;

create or replace function gdpr_internal.bare_form(p_kind text, p_canonical text)
returns text
language sql
stable
parallel safe
security invoker
begin atomic
  select case when p_kind = 'email' then gdpr_generated.bare_address(p_canonical) else p_canonical end;
end;
comment on function gdpr_internal.bare_form(text, text) is
  'The mailbox that a canonical address means, without tags and what else its domain ignores: what the blocklist checks and blocks besides the address itself.';

create or replace function gdpr_policy.canonical_of(p_kind text, p_value text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.canonical(p_kind, p_value);
end;
comment on function gdpr_policy.canonical_of(text, text) is 'The canonical form of a value, so that plan() can look for values that would become equal.';

-- 10_collection/40_identifiers.sql
-- [code] Whose row is it: matching a new row to a person, creating persons, the blocklist at the door.
-- GDPR Art. 4(1), Art. 14(2)(f), Art. 17. Called by: the generated triggers (claim_subject), DPO (block, unblock, find_subject).

set local role gdpr_keyholder;

do $type$
begin
  if to_regtype('gdpr_internal.claim') is null then
    create type gdpr_internal.claim as (subject_id bigint, ref uuid, purposes bigint, until timestamptz, data_key bytea);
  end if;
end
$type$;
comment on type gdpr_internal.claim is 'A person as a row needs it: number, pseudonym, gate and data key.';

create or replace function gdpr_internal.add_source(
  p_subject bigint, p_table smallint, p_row uuid, p_source jsonb, p_key bytea, p_event text default 'created'
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_details text;
begin
  if p_source - 'kind' <> '{}' then
    v_details := gdpr_internal.seal_value(p_key, gdpr_internal.gen_random_bytes(16), p_subject, 0, (p_source - 'kind')::text);
  end if;
  insert into gdpr_internal.source (subject_id, table_id, row_key, event, kind, details, actor)
  values (p_subject, p_table, p_row, p_event, coalesce(p_source ->> 'kind', 'unspecified'), v_details, gdpr_internal.context_setting('actor'));
end
$function$;
comment on function gdpr_internal.add_source(bigint, smallint, uuid, jsonb, bytea, text) is
  'Records where a row came from; form, IP address, file and the like are encrypted under the person''s key. Art. 14(2)(f).';

create or replace function gdpr_internal.new_subject(
  p_keys gdpr_internal.keyring, p_table smallint, p_subject bigint, p_row uuid, p_source jsonb
)
returns gdpr_internal.claim
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_claim gdpr_internal.claim;
  v_random bytea := gdpr_internal.gen_random_bytes(80);
  v_wrapped bytea;
  v_before boolean := p_source ->> 'kind' = 'before_gdprdb';
begin
  v_claim.subject_id := p_subject;
  v_claim.ref := gen_random_uuid();
  v_claim.data_key := substr(v_random, 1, 64);
  select coalesce(bit_or(1::bigint << b.purpose_id), 0) | (1::bigint << 62), coalesce(min(b.valid_until), 'infinity')
  into v_claim.purposes, v_claim.until
  from gdpr_internal.default_basis as b
  where b.table_id = p_table and (v_before or b.basis <> 'undetermined');
  v_wrapped := gdpr_internal.wrap_key((p_keys).kek, substr(v_random, 65), int8send(p_subject), v_claim.data_key);
  insert into gdpr_internal.subject (id, ref, purposes, until)
  values (p_subject, v_claim.ref, v_claim.purposes, v_claim.until);
  insert into gdpr_internal.subject_key (subject_id, kek_id, wrapped)
  values (p_subject, (p_keys).kek_id, v_wrapped);
  insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, valid_until, by_table)
  select p_subject, b.purpose_id, b.basis, b.reason, b.recorded_until, p_table
  from gdpr_internal.default_basis as b
  where b.table_id = p_table and (v_before or b.basis <> 'undetermined');
  perform gdpr_internal.add_source(p_subject, p_table, p_row, p_source, v_claim.data_key);
  return v_claim;
end
$function$;
comment on function gdpr_internal.new_subject(gdpr_internal.keyring, smallint, bigint, uuid, jsonb) is
  'Creates the person p_subject with a data key, the bases that the table gives by default and the source of the first row.';

create or replace function gdpr_internal.known_subject(
  p_keys gdpr_internal.keyring, p_table smallint, p_mask bigint, p_subject bigint, p_row uuid, p_source jsonb
)
returns gdpr_internal.claim
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_claim gdpr_internal.claim;
  v_erased boolean;
begin
  -- who is going to change the gate locks it at once as one who does: two who read it first would wait for each other
  perform from gdpr_internal.subject as s
  where s.id = p_subject and s.purposes & p_mask <> p_mask and not exists (
    select from gdpr_internal.source as o where o.subject_id = p_subject and o.table_id = p_table
  )
  for no key update;
  -- the lock makes this row and a withdrawal meet: whoever comes second sees the other
  select s.id, s.ref, s.purposes, s.until, s.erased_at is not null
  into v_claim.subject_id, v_claim.ref, v_claim.purposes, v_claim.until, v_erased
  from gdpr_internal.subject as s
  where s.id = p_subject
  for share;
  if v_claim.subject_id is null or v_erased then
    perform gdpr_internal.refuse('erased');
  end if;
  v_claim.data_key := gdpr_internal.data_key(p_keys, p_subject);
  if v_claim.data_key is null then
    perform gdpr_internal.refuse('key_missing', 'the data key of this person is gone');
  end if;
  if v_claim.purposes & p_mask <> p_mask and not exists (
    select from gdpr_internal.source as s where s.subject_id = p_subject and s.table_id = p_table
  ) then
    insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, valid_until, by_table)
    select p_subject, b.purpose_id, b.basis, b.reason, b.recorded_until, p_table
    from gdpr_internal.default_basis as b
    where b.table_id = p_table and (p_source ->> 'kind' = 'before_gdprdb' or b.basis <> 'undetermined');
    perform gdpr_internal.refresh_gate(array[p_subject]);
    select s.purposes, s.until into v_claim.purposes, v_claim.until
    from gdpr_internal.subject as s
    where s.id = p_subject;
  end if;
  perform gdpr_internal.add_source(p_subject, p_table, p_row, p_source, v_claim.data_key);
  return v_claim;
end
$function$;
comment on function gdpr_internal.known_subject(gdpr_internal.keyring, smallint, bigint, bigint, uuid, jsonb) is
  'A person who exists, locked against a change of the gate until the row is written; a first row in a table brings the table''s default bases. Error: PR603 erased.';

create or replace function gdpr_internal.claim_subject(
  p_keys gdpr_internal.keyring,
  p_table smallint,
  p_mask bigint,
  p_parent bigint,
  p_digests uuid[],
  p_bare uuid[],
  p_kinds text[],
  p_matching integer,
  p_blocklist text,
  p_constraint name,
  p_row uuid,
  p_backfill boolean
)
returns gdpr_internal.claim
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_claim gdpr_internal.claim;
  v_hit record;
  v_subject bigint := p_parent;
  v_blocked boolean := false;
  v_digests integer := cardinality(array_remove(p_digests, null));
  v_known integer := 0;
  v_matching uuid[] := p_digests[1:p_matching];
  v_source jsonb := case when p_backfill then '{"kind": "before_gdprdb"}' else gdpr_internal.context_source() end;
begin
  if v_digests > 0 then
    if gdpr_internal.confirming() then
      -- who confirms a registration has proved one address; what else was entered may be somebody else's
      v_matching := array(select d from unnest(v_matching) as d where d = gdpr_internal.confirmed_address());
    end if;
    -- whose is it, and is it blocked; the lock is what an eraser of the same person meets
    for v_hit in
      select i.digest, i.subject_id, i.blocked_at, i.retired_at
      from gdpr_internal.identifier as i
      where i.digest = any (p_digests || p_bare)
      order by array_position(p_digests, i.digest)
      for share
    loop
      v_blocked := v_blocked or v_hit.blocked_at is not null;
      if v_hit.retired_at is null and v_hit.digest = any (p_digests) then
        v_known := v_known + 1;
        if v_subject is null and v_hit.digest = any (v_matching) then
          v_subject := v_hit.subject_id;
        end if;
      end if;
    end loop;
    if v_blocked then
      perform gdpr_internal.meet_blocked(p_table, case when p_backfill and p_blocklist = 'refuse' then 'backfill' else p_blocklist end, p_constraint);
    end if;
  end if;
  if v_subject is null then
    v_subject := nextval('gdpr_internal.subject_id_seq');
    perform gdpr_internal.claim_identifiers(v_subject, p_digests, p_bare, p_kinds);
    if exists (
      select from gdpr_internal.identifier as i
      where i.digest = any (v_matching) and i.subject_id <> v_subject and i.retired_at is null
    ) then
      -- another session was faster with the same person, who can be seen now
      delete from gdpr_internal.identifier as i where i.subject_id = v_subject;
      return gdpr_internal.claim_subject(
        p_keys, p_table, p_mask, p_parent, p_digests, p_bare, p_kinds, p_matching, p_blocklist, p_constraint, p_row, p_backfill
      );
    end if;
    v_claim := gdpr_internal.new_subject(p_keys, p_table, v_subject, p_row, v_source);
  else
    v_claim := gdpr_internal.known_subject(p_keys, p_table, p_mask, v_subject, p_row, v_source);
    if v_known < v_digests then
      perform gdpr_internal.claim_identifiers(v_subject, p_digests, p_bare, p_kinds, p_parent is null);
    end if;
  end if;
  return v_claim;
end
$function$;
comment on function gdpr_internal.claim_subject(
  gdpr_internal.keyring, smallint, bigint, bigint, uuid[], uuid[], text[], integer, text, name, uuid, boolean
) is
  'The person a new row belongs to: the parent''s (p_parent), the one who holds one of the first p_matching identifiers, or a new one. Records identifiers and source. Errors: 23505 blocked identifier, PR603 erased. Art. 14(2)(f), Art. 17.';

create or replace function gdpr_internal.claim_identifiers(
  p_subject bigint, p_digests uuid[], p_bare uuid[], p_kinds text[], p_by_match boolean default false
)
returns integer
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_claimed integer;
begin
  insert into gdpr_internal.identifier as i (digest, kind, subject_id, bare_digest, by_match)
  select d.digest, d.kind, p_subject, nullif(d.bare, d.digest), p_by_match
  from unnest(p_digests, p_bare, p_kinds) as d (digest, bare, kind)
  where d.digest is not null
  on conflict (digest) do update
  set subject_id = excluded.subject_id, retired_at = null, recorded_at = statement_timestamp(), by_match = excluded.by_match
  where i.retired_at is not null and i.blocked_at is null;
  get diagnostics v_claimed = row_count;
  return v_claimed;
end
$function$;
comment on function gdpr_internal.claim_identifiers(bigint, uuid[], uuid[], text[], boolean) is
  'Gives free (or retired) identifiers to a person and returns how many it got; what somebody else holds, or is blocked, stays so. p_by_match: the person was known by another one.';

create or replace function gdpr_internal.meet_blocked(p_table smallint, p_blocklist text, p_constraint name)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation record;
begin
  if p_blocklist <> 'backfill' then
    perform gdpr_internal.count_probe();
  end if;
  if p_blocklist = 'warn' then
    raise warning using
      errcode = '01000', message = 'duplicate or blocked identifier', hint = 'The person may have been erased: check before keeping the row.',
      constraint = 'gdpr_blocked_identifier';
  elsif p_blocklist = 'backfill' then
    perform gdpr_internal.refuse('blocked_rows');
  elsif p_constraint is not null then
    -- word for word what a duplicate gives: a sign-up form must not tell that somebody was erased
    select n.nspname, c.relname into v_relation
    from gdpr_internal.protected_table as t
    join pg_class as c on c.oid = t.relation
    join pg_namespace as n on n.oid = c.relnamespace
    where t.id = p_table;
    raise exception using
      errcode = '23505', message = format('duplicate key value violates unique constraint "%s"', p_constraint),
      schema = v_relation.nspname, table = v_relation.relname, constraint = p_constraint;
  else
    perform gdpr_internal.refuse('blocked_identifier');
  end if;
end
$function$;
comment on function gdpr_internal.meet_blocked(smallint, text, name) is
  'A blocked identifier at the door: a warning, or error 23505, indistinguishable from a duplicate where the column is unique (p_constraint). Art. 17.';

create or replace function gdpr_internal.identifier_digests(p_kind text, p_value text, out digest uuid, out bare uuid)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_canonical text := gdpr_internal.canonical(p_kind, p_value);
  v_keys gdpr_internal.keyring;
begin
  if v_canonical is null then
    perform gdpr_internal.refuse('invalid_argument', 'the value of an identifier cannot be empty');
  end if;
  v_keys := gdpr_internal.keyring();
  digest := gdpr_internal.keyed_digest(v_keys.digest_key, p_kind, v_canonical);
  bare := gdpr_internal.keyed_digest(v_keys.digest_key, p_kind, gdpr_internal.bare_form(p_kind, v_canonical));
end
$function$;
comment on function gdpr_internal.identifier_digests(text, text) is 'The digest of an identifier and of its bare form. Error: PR004 empty value.';

create or replace function gdpr_internal.change_identifier(
  p_table smallint, p_subject bigint, p_old uuid, p_new uuid, p_bare uuid, p_kind text, p_blocklist text, p_constraint name
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_by_match boolean;
begin
  if p_new is not distinct from p_old then
    return;
  end if;
  if exists (
    select from gdpr_internal.identifier as i
    where i.digest in (p_new, p_bare) and i.blocked_at is not null
    for share
  ) then
    perform gdpr_internal.meet_blocked(p_table, p_blocklist, p_constraint);
  end if;
  -- what came by a match does so under another name; in a row of a person, so does what joins others of its kind
  v_by_match := coalesce(
    (select i.by_match from gdpr_internal.identifier as i where i.digest = p_old and i.subject_id = p_subject),
    exists (select from gdpr_internal.protected_table as t where t.id = p_table and t.parent_id is null) and exists (
      select from gdpr_internal.identifier as i where i.subject_id = p_subject and i.kind = p_kind and i.retired_at is null
    )
  );
  update gdpr_internal.identifier as i
  set retired_at = statement_timestamp()
  where i.digest = p_old and i.subject_id = p_subject and i.retired_at is null;
  perform gdpr_internal.claim_identifiers(p_subject, array[p_new], array[p_bare], array[p_kind], v_by_match);
end
$function$;
comment on function gdpr_internal.change_identifier(smallint, bigint, uuid, uuid, uuid, text, text, name) is
  'A person''s identifier changes: the old one is retired (another person may bring it), the new one claimed. Error: 23505 blocked.';

set local role gdpr_owner;

create or replace function gdpr.find_subject(p_kind text, p_value text)
returns bigint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digests record;
  v_subject bigint;
begin
  v_digests := gdpr_internal.identifier_digests(p_kind, p_value);
  select i.subject_id into v_subject
  from gdpr_internal.identifier as i
  where i.digest = v_digests.digest and i.retired_at is null;
  return v_subject;
end
$function$;
comment on function gdpr.find_subject(text, text) is
  'The person with this identifier (kind: email, phone, text), or null. Send the value as a bind parameter.';

create or replace function gdpr.block(p_kind text, p_value text, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digests record;
begin
  v_digests := gdpr_internal.identifier_digests(p_kind, p_value);
  if exists (
    select from gdpr_internal.identifier as i
    where i.digest in (v_digests.digest, v_digests.bare) and i.subject_id is not null and i.retired_at is null
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'the identifier belongs to a person; gdpr.erase() blocks it');
  end if;
  insert into gdpr_internal.identifier as i (digest, kind, blocked_at, block_reason)
  select distinct d.digest, p_kind, statement_timestamp(), p_reason
  from unnest(array[v_digests.digest, v_digests.bare]) as d (digest)
  on conflict (digest) do update
  set subject_id = null, retired_at = null, blocked_at = excluded.blocked_at, block_reason = excluded.block_reason
  where i.blocked_at is null and i.retired_at is not null;
  perform gdpr_internal.audit_event('BLOCK', null, jsonb_build_object('kind', p_kind));
end
$function$;
comment on function gdpr.block(text, text, text) is
  'Puts an identifier on the blocklist: rows that carry it warn or are refused (policy). Errors: PR004 empty value, or the identifier of a person. Art. 17, Art. 21(3).';

create or replace function gdpr.unblock(p_kind text, p_value text, p_reason text)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digests record;
  v_found boolean;
begin
  v_digests := gdpr_internal.identifier_digests(p_kind, p_value);
  delete from gdpr_internal.identifier as i
  where i.digest in (v_digests.digest, v_digests.bare) and i.blocked_at is not null;
  v_found := found;
  perform gdpr_internal.audit_event('UNBLOCK', null, jsonb_build_object('kind', p_kind, 'reason', p_reason, 'found', v_found));
  return v_found;
end
$function$;
comment on function gdpr.unblock(text, text, text) is 'Takes an identifier off the blocklist, on record; false when it was not there.';

create or replace function gdpr.is_blocked(p_kind text, p_value text)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_digests record;
begin
  v_digests := gdpr_internal.identifier_digests(p_kind, p_value);
  return exists (
    select from gdpr_internal.identifier as i
    where i.digest in (v_digests.digest, v_digests.bare) and i.blocked_at is not null
  );
end
$function$;
comment on function gdpr.is_blocked(text, text) is 'Whether an identifier, or its address without a plus-tag, is on the blocklist.';

create or replace view gdpr.blocklist as
select i.digest, i.kind, i.blocked_at, i.block_reason as reason
from gdpr_internal.identifier as i
where i.blocked_at is not null;
comment on view gdpr.blocklist is 'Blocked identifiers, as keyed digests.';

create or replace view gdpr.subject as
select
  s.id as subject_id,
  s.created_at,
  s.erased_at,
  exists (
    select from gdpr_internal.restriction_record as r
    where r.subject_id = s.id
      and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = r.id)
  ) as restricted
from gdpr_internal.subject as s;
comment on view gdpr.subject is 'Persons: numbers and states, nothing that identifies.';

-- 10_collection/50_probes.sql
-- [code] Tries with blocked identifiers are counted, by role and time, and nothing about them is kept: no digest, no row.
-- GDPR Art. 5(1)(e), 32(1)(d). Counted by: gdpr_internal.meet_blocked(); read by officers, the counters by gdpr.tidy_blocklist().

set local role gdpr_owner;

create or replace function gdpr_internal.make_probe_counter(p_role name)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_n integer;
begin
  insert into gdpr_internal.probe_counter (role_name) values (p_role)
  on conflict (role_name) do nothing
  returning n into v_n;
  if v_n is not null then
    execute format('create sequence gdpr_internal.%I owned by gdpr_internal.probe_counter.n', 'probes_' || v_n);
  end if;
end
$function$;
comment on function gdpr_internal.make_probe_counter(name) is 'Gives a role of the policy a counter of its own, once.';

create or replace function gdpr_internal.count_probe()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_role name := gdpr_internal.acting_role();
  v_n integer;
begin
  select c.n into v_n
  from gdpr_internal.probe_counter as c
  where c.role_name in (v_role, '') or pg_has_role(v_role, to_regrole(quote_ident(c.role_name))::oid, 'usage')
    -- a superuser is a member of everything
    and not (select r.rolsuper from pg_roles as r where r.rolname = v_role)
  order by (c.role_name <> v_role), (c.role_name = ''), c.role_name
  limit 1;
  perform nextval(format('gdpr_internal.%I', 'probes_' || v_n)::regclass);
end
$function$;
comment on function gdpr_internal.count_probe() is 'Counts a try with a blocked identifier, for the role of the session; the count outlives the refusal.';

create or replace function gdpr_internal.probe_totals()
returns table (role_name name, total bigint)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query
  select c.role_name, coalesce(pg_sequence_last_value(format('gdpr_internal.%I', 'probes_' || c.n)::regclass), 0)
  from gdpr_internal.probe_counter as c;
end
$function$;
comment on function gdpr_internal.probe_totals() is 'All tries with blocked identifiers so far, by role.';

create or replace view gdpr.probe as
with readings as (
  select r.role_name, r.read_at, r.total from gdpr_internal.probe_reading as r
  union all
  select t.role_name, statement_timestamp(), t.total from gdpr_internal.probe_totals() as t
)
select
  coalesce(nullif(r.role_name, ''), '(other roles)') as role,
  lag(r.read_at) over w as counted_from,
  r.read_at as counted_until,
  r.total - coalesce(lag(r.total) over w, 0) as tries
from readings as r
window w as (partition by r.role_name order by r.read_at);
comment on view gdpr.probe is
  'How many rows with blocked identifiers were refused (or warned about), by role, from one nightly gdpr.tidy() to the next. Which identifiers they were is not kept. A crash of the server may add up to 32 to a counter. Art. 32(1)(d).';

create or replace function gdpr.tidy_blocklist(p_limit integer default 10000)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_retain interval := (select (s.value #>> '{}')::interval from gdpr_internal.setting as s where s.name = 'blocklist_retain');
  v_deleted integer;
begin
  insert into gdpr_internal.probe_reading (role_name, total)
  select t.role_name, t.total
  from gdpr_internal.probe_totals() as t
  where t.total > coalesce((select max(r.total) from gdpr_internal.probe_reading as r where r.role_name = t.role_name), 0)
  on conflict (role_name, read_at) do nothing;
  if v_retain is null then
    return 0;
  end if;
  with past as (
    select i.digest from gdpr_internal.identifier as i
    where i.blocked_at < statement_timestamp() - v_retain
    limit p_limit
    for update skip locked
  )
  delete from gdpr_internal.identifier as i using past as p where i.digest = p.digest;
  get diagnostics v_deleted = row_count;
  if v_deleted > 0 then
    perform gdpr_internal.audit_event('UNBLOCK', null, jsonb_build_object('reason', 'blocklist_retain', 'identifiers', v_deleted));
  end if;
  return v_deleted;
end
$function$;
comment on function gdpr.tidy_blocklist(integer) is
  'Reads the counters of gdpr.probe, and deletes up to p_limit blocked identifiers that are older than settings.blocklist_retain of the policy, on record; returns how many. Without that setting they stay. Art. 5(1)(e).';

do $counters$
declare
  v_role name;
begin
  perform gdpr_internal.make_probe_counter('');
  for v_role in select b.role_name from gdpr_internal.role_binding as b loop
    perform gdpr_internal.make_probe_counter(v_role);
  end loop;
end
$counters$;

-- 10_collection/60_registrations.sql
-- [code] Double opt-in: a registration is put aside, encrypted, until the person confirms it by mail.
-- GDPR Art. 5(1)(d), Art. 7(1), Art. 25(2). Called by: gdpr_portal, gdpr_app. The row is checked and inserted by gdpr_worker's
-- generated functions: what a table's owner plants in it gets neither keys nor evidence.

set local role gdpr_keyholder;

create or replace function gdpr_internal.put_registration(
  p_table smallint, p_address uuid, p_mailbox uuid, p_content jsonb, p_to text, p_language text, p_within interval, p_mailed boolean
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
  v_id bigint := nextval('gdpr_internal.registration_id_seq');
  v_until timestamptz := statement_timestamp() + p_within;
  v_key bytea := gdpr_internal.gen_random_bytes(64);
  v_wrapped bytea;
  v_content text;
  v_mail jsonb;
begin
  -- a registration of nobody yet: minus its number stands for the person in the header
  v_wrapped := gdpr_internal.wrap_key((gdpr_internal.keyring()).kek, gdpr_internal.gen_random_bytes(16), int8send(-v_id), v_key);
  v_content := gdpr_internal.seal_value(v_key, gdpr_internal.gen_random_bytes(16), -v_id, 0, p_content::text);
  -- who asks is not told whether a mail goes out: without one as much is done, and nothing is kept that could be confirmed
  insert into gdpr_internal.registration (id, table_id, address, mailbox, content, valid_until)
  values (v_id, p_table, p_address, p_mailbox, case when p_mailed then v_content end, v_until);
  v_mail := jsonb_build_object(
    'to', p_to, 'token', gdpr_internal.create_token('registration', v_id, null, v_until), 'confirm_by', to_char(v_until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')
  );
  perform gdpr_internal.check_mail('registration', p_language, v_mail);
  v_content := gdpr_internal.seal_value(v_key, gdpr_internal.gen_random_bytes(16), -v_id, 0, v_mail::text);
  if p_mailed then
    insert into gdpr_internal.registration_key (registration_id, wrapped) values (v_id, v_wrapped);
    insert into gdpr_internal.outbox (registration_id, template, language, message, due_at, expires_at)
    values (v_id, 'registration', p_language, v_content, statement_timestamp(), v_until);
  end if;
  -- in any case: everybody may listen
  perform pg_notify('gdpr_outbox', '');
end
$function$;
comment on function gdpr_internal.put_registration(smallint, uuid, uuid, jsonb, text, text, interval, boolean) is
  'Puts a registration aside under a key of its own, and queues the mail that asks for confirmation (p_mailed).';

create or replace function gdpr_internal.registration_secret(p_registration bigint)
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
  select k.wrapped into v_wrapped from gdpr_internal.registration_key as k where k.registration_id = p_registration;
  return case when v_wrapped is not null then gdpr_internal.unwrap_key((gdpr_internal.keyring()).kek, int8send(-p_registration), v_wrapped) end;
end
$function$;
comment on function gdpr_internal.registration_secret(bigint) is 'The key of a registration, checked; null when it is gone.';

create or replace function gdpr_internal.open_registration(p_registration gdpr_internal.registration)
returns jsonb
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  v_key := gdpr_internal.registration_secret(p_registration.id);
  return gdpr_internal.open_value(v_key, -p_registration.id, 0, p_registration.content)::jsonb;
end
$function$;
comment on function gdpr_internal.open_registration(gdpr_internal.registration) is 'What was entered: {"row", "source", "consent", "form"}.';

create or replace function gdpr_internal.empty_registrations(p_registrations bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.registration_key as k where k.registration_id = any (p_registrations);
  update gdpr_internal.registration as r set content = null where r.id = any (p_registrations) and r.content is not null;
  perform gdpr_internal.cancel_mails(array(select o.id from gdpr_internal.outbox as o where o.registration_id = any (p_registrations)), 'closed');
end
$function$;
comment on function gdpr_internal.empty_registrations(bigint[]) is 'Forgets what was entered: key, content and mails that wait.';

set local role gdpr_owner;

create or replace function gdpr_internal.opted_out(p_mailbox uuid)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(
    (select r.event = 'opted_out' from gdpr_internal.opt_out_record as r where r.mailbox = p_mailbox order by r.id desc limit 1), false
  );
end;
comment on function gdpr_internal.opted_out(uuid) is 'Whether the owner of a mailbox wants no mails about registrations.';

create or replace function gdpr_internal.confirmed_address()
returns uuid
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (select r.address from gdpr_internal.registration as r where r.confirming_xid = pg_current_xact_id_if_assigned());
end
$function$;
comment on function gdpr_internal.confirmed_address() is
  'The digest of the address by which gdpr.confirm() is inserting a row at this moment, else null: all that the person has proved to be theirs.';

create or replace function gdpr_internal.proves_mailbox(p_address text)
returns boolean
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_local text := left(p_address, length(p_address) - strpos(reverse(p_address), '@'));
begin
  -- domains with the same canonical form are the same domain
  return gdpr_internal.canonical('email', v_local || '@x') = lower(v_local collate "C") || '@x';
end
$function$;
comment on function gdpr_internal.proves_mailbox(text) is
  'Whether who reads mails to this spelling of an address owns the mailbox of its canonical form: that folds letters which a mail server may tell apart.';

create or replace function gdpr_internal.confirming()
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return exists (select from gdpr_internal.registration as r where r.confirming_xid = pg_current_xact_id_if_assigned());
end
$function$;
comment on function gdpr_internal.confirming() is
  'Whether gdpr.confirm() is inserting a row at this moment: the person asked for it, whoever carries it out.';

create or replace function gdpr.submit(p_table text, p_row jsonb, p_source jsonb default null, p_consent text[] default '{}', p_form bigint default null)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_settings jsonb;
  v_source jsonb := coalesce(p_source, '{"kind": "web_form"}');
  v_problems text[] := '{}';
  v_before text;
  v_to text;
  v_digests record;
  v_blocked boolean;
begin
  perform gdpr_internal.require_home();
  -- a name: a regclass would need USAGE on the application's schema, and a form has no business there
  select * into v_table from gdpr_internal.protected_table as t where t.relation = gdpr_internal.find_table(p_table) and t.unprotected_at is null;
  v_settings := v_table.definition -> 'double_opt_in';
  if v_settings is null then
    perform gdpr_internal.refuse('no_registrations');
  end if;
  if jsonb_typeof(p_row) is distinct from 'object' or pg_column_size(p_row) > 65536 or pg_column_size(p_source) > 8192 then
    perform gdpr_internal.refuse('invalid_argument', 'a row is {"column": value, ...} of 64 kB at the most, a source has 8 kB at the most');
  end if;
  perform gdpr_internal.check_source(v_source);
  perform gdpr_internal.require_consent_purpose(n.name) from unnest(p_consent) as n (name);
  if p_form is not null then
    perform gdpr_internal.require_form(p_form, coalesce(p_consent, '{}'));
  end if;

  -- what can be known now; duplicates cannot: a form must not tell who is a customer
  v_before := gdpr_internal.before_worker();
  execute format('select gdpr_generated.%I($1)', 'check_registration_' || v_table.id) into v_problems using p_row;
  perform gdpr_internal.after_worker(v_before);
  v_to := btrim(p_row ->> (v_settings ->> 'address'));
  if not gdpr_internal.is_address(v_to) then
    v_problems := v_problems || format('column %I: is no e-mail address', v_settings ->> 'address');
  end if;
  if v_problems <> '{}' then
    perform gdpr_internal.refuse('registration_refused', array_to_string(v_problems, E'\n'));
  end if;

  v_digests := gdpr_internal.identifier_digests('email', v_to);
  v_blocked := gdpr_internal.opted_out(v_digests.bare) or exists (
    select from gdpr_internal.identifier as i
    where i.digest in (v_digests.digest, v_digests.bare) and i.blocked_at is not null
      and not ((v_settings ->> 'lifts_block')::boolean and i.block_reason = 'erased')
  );
  insert into gdpr_internal.registration_mail as m (mailbox, table_id, mailed_at)
  values (v_digests.bare, v_table.id, statement_timestamp())
  on conflict (mailbox, table_id) do update
  set mailed_at = excluded.mailed_at
  where m.mailed_at <= statement_timestamp() - (v_settings ->> 'resend_after')::interval;
  perform gdpr_internal.put_registration(
    v_table.id, v_digests.digest, v_digests.bare,
    jsonb_build_object('row', p_row, 'source', v_source, 'consent', to_jsonb(coalesce(p_consent, '{}')), 'form', p_form), v_to,
    gdpr_internal.registration_language(v_table.definition, p_row, v_source), (v_settings ->> 'confirm_within')::interval,
    found and not v_blocked
  );
  return jsonb_build_object('status', 'submitted', 'confirm_within', v_settings ->> 'confirm_within');
end
$function$;
comment on function gdpr.submit(text, jsonb, jsonb, text[], bigint) is
  'Puts a registration for a table aside, encrypted, and sends a mail that asks to confirm it; nothing is in the table yet. p_table: as the policy names it. p_row: {"column": value}. p_source: where it was entered ({"kind": "web_form", "form", "url", "ip", "language", ...}). p_consent: purposes that were ticked, recorded when it is confirmed. p_form: the published text beside the ticks (number of gdpr.consent_form), recorded with them. The answer is always the same: a form does not tell who is known, blocked, has opted out or was written to just now. Errors: PR105 the policy takes no registrations there, PR104 with every problem on a line of the detail, PR004, PR003, PR302, PR305 not such a text. Art. 7(1), 25(2).';

create or replace function gdpr_internal.is_address(p_text text)
returns boolean
language sql
immutable
parallel safe
security invoker
begin atomic
  select coalesce(
    p_text ~ '^[^@[:space:][:cntrl:]<>()\[\],;:"\\]+@[^@[:space:][:cntrl:]<>()\[\],;:"\\.]+(\.[^@[:space:][:cntrl:]<>()\[\],;:"\\.]+)*$'
    and octet_length(p_text) <= 254, false
  );
end;
comment on function gdpr_internal.is_address(text) is 'Whether a text can be the address of one mailbox.';

create or replace function gdpr_internal.require_consent_purpose(p_purpose text)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not exists (
    select from gdpr_internal.purpose as p where p.id = gdpr_internal.purpose_id(p_purpose) and p.basis = 'consent'
  ) then
    perform gdpr_internal.refuse('consent_not_asked');
  end if;
end
$function$;
comment on function gdpr_internal.require_consent_purpose(text) is 'Errors: PR003 unknown purpose, PR302 it does not rest on consent.';

create or replace function gdpr_internal.registration_language(p_definition jsonb, p_row jsonb, p_source jsonb)
returns text
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_language text := p_source ->> 'language';
begin
  select coalesce(nullif(p_row ->> c.key, ''), v_language) into v_language
  from (select null) as one (n)
  left join jsonb_each(p_definition -> 'columns') as c on c.value ->> 'language' = 'true'
  limit 1;
  return case when v_language ~ '^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$' then v_language end;
end
$function$;
comment on function gdpr_internal.registration_language(jsonb, jsonb, jsonb) is
  'The language to write in: that of the row''s column with language = true, else that of the form; null where neither is a tag.';

create or replace function gdpr_internal.know_registration(p_token text)
returns gdpr_internal.registration
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_id bigint;
  v_registration gdpr_internal.registration;
begin
  v_id := (gdpr_internal.know_token(p_token, 'registration')).reference;
  -- all of this mailbox, always in the same order: two confirmations at once meet here and not in a deadlock
  perform from gdpr_internal.registration as r
  where r.mailbox = (select x.mailbox from gdpr_internal.registration as x where x.id = v_id)
  order by r.id
  for update;
  select * into v_registration from gdpr_internal.registration as r where r.id = v_id and r.valid_until > statement_timestamp();
  if v_registration.id is null then
    perform gdpr_internal.refuse('token_refused');
  end if;
  return v_registration;
end
$function$;
comment on function gdpr_internal.know_registration(text) is 'The registration of a token, locked. Error: PR303, constant.';

create or replace function gdpr_internal.error_names(p_state text, p_constraint text, p_column text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select concat_ws(', ',
    'SQLSTATE ' || p_state,
    (
      select 'constraint ' || n.name
      from (
        select k.conname from pg_constraint as k union all select c.relname from pg_class as c where c.relkind = 'i'
        union all select 'gdpr_' || e.name from gdpr.error_code as e
      ) as n (name)
      where n.name = p_constraint limit 1
    ),
    (select 'column ' || a.attname from pg_attribute as a where a.attname = p_column limit 1)
  );
end;
comment on function gdpr_internal.error_names(text, text, text) is
  'What can be told of an error that a row met in its table: the code, and names that are some. What the server or planted code says beside them may hold values.';

create or replace function gdpr_internal.insert_registration(p_table smallint, p_row jsonb)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_before text := gdpr_internal.before_worker();
  v_subject bigint;
  v_state text;
  v_constraint text;
  v_column text;
begin
  begin
    execute format('select gdpr_generated.%I($1)', 'insert_registration_' || p_table) into v_subject using p_row;
  exception
  when transaction_rollback then
    -- a deadlock or an older snapshot is not the row's fault: the client may try again
    raise;
  when others then
    get stacked diagnostics v_state = returned_sqlstate, v_constraint = constraint_name, v_column = column_name;
    -- what the server says of the row may hold values of it: only codes go on, and names that are some
    perform gdpr_internal.refuse(
      case when v_state = '23505' then 'registration_known' else 'registration_conflict' end,
      gdpr_internal.error_names(v_state, v_constraint, v_column)
    );
  end;
  perform gdpr_internal.after_worker(v_before);
  return v_subject;
end
$function$;
comment on function gdpr_internal.insert_registration(smallint, jsonb) is
  'Inserts a confirmed row and returns its person. Errors: PR107 there is such a row, PR106 the table refuses it.';

create or replace function gdpr_internal.lift_own_block(p_registration bigint, p_address uuid, p_to text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.identifier as i
  where i.digest in (p_address, (gdpr_internal.identifier_digests('email', p_to)).bare) and i.blocked_at is not null and i.block_reason = 'erased';
  if found then
    perform gdpr_internal.audit_event('UNBLOCK', null, jsonb_build_object(
      'kind', 'email', 'reason', 'confirmed by the owner of the address', 'found', true, 'registration', p_registration
    ));
  end if;
end
$function$;
comment on function gdpr_internal.lift_own_block(bigint, uuid, text) is
  'Somebody who was erased comes back, and has proved that the address is theirs: the block of the erasure is lifted, on record. What an officer blocked stays so.';

create or replace function gdpr.confirm(p_token text, p_evidence jsonb default null)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_registration gdpr_internal.registration;
  v_table gdpr_internal.protected_table;
  v_content jsonb;
  v_source jsonb;
  v_before text := current_setting('gdpr.source', true);
  v_to text;
  v_subject bigint;
begin
  v_registration := gdpr_internal.know_registration(p_token);
  if v_registration.confirmed_at is not null then
    return jsonb_build_object('status', 'already_confirmed', 'confirmed_at', v_registration.confirmed_at);
  elsif v_registration.content is null then
    perform gdpr_internal.refuse('token_refused');
  end if;
  select * into v_table from gdpr_internal.protected_table as t where t.id = v_registration.table_id and t.unprotected_at is null;
  if v_table.definition -> 'double_opt_in' is null then
    perform gdpr_internal.refuse('no_registrations');
  end if;
  v_content := gdpr_internal.open_registration(v_registration);
  v_source := v_content -> 'source' || jsonb_strip_nulls(jsonb_build_object(
    'registration', v_registration.id, 'submitted_at', v_registration.submitted_at, 'confirmed_at', statement_timestamp(), 'confirmation', p_evidence
  ));
  v_to := btrim(v_content -> 'row' ->> (v_table.definition #>> '{double_opt_in,address}'));
  if not gdpr_internal.proves_mailbox(v_to) and exists (
    select from gdpr_internal.identifier as i where i.digest = v_registration.address and i.retired_at is null
  ) then
    perform gdpr_internal.refuse('registration_known');
  end if;
  if (v_table.definition -> 'double_opt_in' ->> 'lifts_block')::boolean then
    perform gdpr_internal.lift_own_block(v_registration.id, v_registration.address, v_to);
  end if;

  perform set_config('gdpr.source', v_source::text, true);
  update gdpr_internal.registration as r set confirming_xid = pg_current_xact_id() where r.id = v_registration.id;
  v_subject := gdpr_internal.insert_registration(v_table.id, v_content -> 'row');
  -- every registration of this address for this table is answered with it
  update gdpr_internal.registration as r
  set confirmed_at = statement_timestamp(), confirming_xid = null
  where r.address = v_registration.address and r.table_id = v_registration.table_id and r.confirmed_at is null;
  perform set_config('gdpr.source', coalesce(v_before, ''), true);

  perform gdpr.record_consent(v_subject, n.purpose, true, 'web_form', v_source, p_form => (v_content ->> 'form')::bigint)
  from jsonb_array_elements_text(v_content -> 'consent') as n (purpose);
  perform gdpr_internal.empty_registrations(array(
    select r.id from gdpr_internal.registration as r
    where r.address = v_registration.address and r.table_id = v_registration.table_id
  ));
  perform gdpr_internal.audit_event('CONFIRM', v_subject, jsonb_build_object('registration', v_registration.id, 'table', v_table.relation::text));
  return jsonb_build_object('status', 'confirmed', 'confirmed_at', statement_timestamp());
end
$function$;
comment on function gdpr.confirm(text, jsonb) is
  'Confirms a registration by the token of its mail: inserts the row, with its source (that of the form, and both times) and the consent that was ticked. Once: a second call says already_confirmed. p_evidence: of this click ({"ip", "user_agent", ...}), kept encrypted with the source. Errors: PR303 for whatever is no token in time; PR107 there is such an entry, PR106 the table refuses the row: nothing is lost, the same link can be tried again. Art. 7(1).';

create or replace function gdpr.opt_out(p_token text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_registration gdpr_internal.registration;
begin
  v_registration := gdpr_internal.know_registration(p_token);
  if not gdpr_internal.opted_out(v_registration.mailbox) then
    insert into gdpr_internal.opt_out_record (mailbox, event) values (v_registration.mailbox, 'opted_out');
  end if;
  perform gdpr_internal.empty_registrations(array(
    select r.id from gdpr_internal.registration as r where r.mailbox = v_registration.mailbox
  ));
  return '{"status": "opted_out"}';
end
$function$;
comment on function gdpr.opt_out(text) is
  'By the token of a mail that asks to confirm a registration: what was entered is forgotten, and no registration sends a mail to this mailbox, with whatever plus-tag, until gdpr.lift_opt_out(). Idempotent. Error: PR303. Art. 21(2).';

create or replace function gdpr.lift_opt_out(p_value text, p_reason text)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_mailbox uuid := (gdpr_internal.identifier_digests('email', p_value)).bare;
begin
  if p_reason is null then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  elsif not gdpr_internal.opted_out(v_mailbox) then
    return false;
  end if;
  insert into gdpr_internal.opt_out_record (mailbox, event, reason) values (v_mailbox, 'lifted', p_reason);
  return true;
end
$function$;
comment on function gdpr.lift_opt_out(text, text) is
  'Lets registrations send mails to an address again, on record; false when its owner had not opted out. Send the address as a bind parameter. Error: PR004.';

create or replace function gdpr.tidy_registrations(p_limit integer default 10000)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_past bigint[];
begin
  select coalesce(array_agg(p.id), '{}') into v_past
  from (
    select r.id from gdpr_internal.registration as r
    where r.valid_until <= statement_timestamp()
    limit p_limit
    for update skip locked
  ) as p;
  perform gdpr_internal.empty_registrations(v_past);
  delete from gdpr_internal.token as t where t.kind = 'registration' and t.reference = any (v_past);
  delete from gdpr_internal.registration_mail as m
  using gdpr_internal.registration as r
  where r.id = any (v_past) and m.mailbox = r.mailbox and m.table_id = r.table_id and m.mailed_at <= r.submitted_at;
  delete from gdpr_internal.registration as r where r.id = any (v_past);
  return cardinality(v_past);
end
$function$;
comment on function gdpr.tidy_registrations(integer) is
  'Deletes up to p_limit registrations that were not confirmed, or no longer have to say that they were, and returns how many. They are of no effect from their time on, with or without it. Art. 5(1)(e).';

create or replace view gdpr.registration as
select
  r.id as registration_id,
  t.relation as table_name,
  r.submitted_at,
  r.valid_until,
  case when r.confirmed_at is not null then 'confirmed' when r.content is not null then 'waiting' else 'closed' end as status,
  r.confirmed_at
from gdpr_internal.registration as r
join gdpr_internal.protected_table as t on t.id = r.table_id
where r.valid_until > statement_timestamp();
comment on view gdpr.registration is
  'Registrations in their time: waiting for confirmation, confirmed, closed (opted out, or one of several within the interval). Nothing of what was entered. Art. 5(2).';

create or replace view gdpr.opt_out as
select o.digest, o.opted_out_at
from (
  select distinct on (r.mailbox) r.mailbox as digest, r.recorded_at as opted_out_at, r.event
  from gdpr_internal.opt_out_record as r
  order by r.mailbox, r.id desc
) as o
where o.event = 'opted_out';
comment on view gdpr.opt_out is 'Mailboxes (keyed digests, as gdpr.digest(''email'', ...) gives them for the address without its plus-tag) whose owners want no mails about registrations.';

-- 20_lawful_basis/20_bases.sql
-- [code] Recording and ending lawful bases.
-- GDPR Art. 6(1). Called by: gdpr_dpo, and roles to which the policy gives may = ["basis"].

set local role gdpr_owner;

create or replace function gdpr_internal.require_subjects(p_subjects bigint[])
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_found bigint;
  v_erased bigint;
begin
  select count(*), count(s.erased_at) into v_found, v_erased
  from gdpr_internal.subject as s
  where s.id = any (p_subjects);
  if v_found is distinct from cardinality(p_subjects) then
    perform gdpr_internal.refuse('unknown_subject');
  elsif v_erased > 0 then
    perform gdpr_internal.refuse('erased');
  end if;
end
$function$;
comment on function gdpr_internal.require_subjects(bigint[]) is 'Each of these numbers, each named once, is a person. Errors: PR101 no such person, PR603 erased.';

create or replace function gdpr_internal.check_basis(
  p_purpose text, p_basis text, p_condition text, p_valid_from timestamptz, p_valid_until timestamptz, p_assessment bigint
)
returns smallint
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
  v_in_force bigint;
begin
  if v_purpose >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  elsif p_basis is null or p_basis <> all (gdpr_internal.grounds()) then
    perform gdpr_internal.refuse('basis_refused', 'one of ' || array_to_string(gdpr_internal.grounds(), ', '));
  elsif p_condition <> all (gdpr_internal.special_conditions()) then
    perform gdpr_internal.refuse('basis_refused', 'condition is one of ' || array_to_string(gdpr_internal.special_conditions(), ', '));
  elsif p_valid_until <= statement_timestamp() then
    perform gdpr_internal.refuse('basis_refused', 'valid_until has passed');
  elsif p_valid_until <= p_valid_from then
    perform gdpr_internal.refuse('basis_refused', 'valid_until is before valid_from');
  elsif p_assessment is not null and p_basis <> 'legitimate_interests' then
    perform gdpr_internal.refuse('basis_refused', 'an assessment belongs to legitimate_interests');
  end if;
  if p_basis = 'legitimate_interests' then
    v_in_force := gdpr_internal.assessment_in_force(v_purpose);
    if v_in_force is null or p_assessment <> v_in_force then
      perform gdpr_internal.refuse('assessment_missing', format('purpose %s, assessment in force: %s', p_purpose, coalesce(v_in_force::text, 'none')));
    end if;
  end if;
  return v_purpose;
end
$function$;
comment on function gdpr_internal.check_basis(text, text, text, timestamptz, timestamptz, bigint) is
  'The number of the purpose, where such a basis can be recorded for it. Errors: PR003, PR202, PR204, PR205.';

create or replace function gdpr_internal.add_bases(
  p_subjects bigint[], p_purpose text, p_basis text, p_reason text, p_valid_until timestamptz, p_assessment bigint,
  p_valid_from timestamptz, p_evidence jsonb, p_condition text
)
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.check_basis(p_purpose, p_basis, p_condition, p_valid_from, p_valid_until, p_assessment);
  v_ids bigint[];
begin
  perform gdpr_internal.require_home();
  perform gdpr_internal.require_subjects(p_subjects);
  with recorded as (
    insert into gdpr_internal.basis_record (
      subject_id, purpose_id, basis, condition, reason, evidence, valid_from, valid_until, assessment_id, actor
    )
    select
      s.id, v_purpose, p_basis, p_condition, p_reason, gdpr_internal.seal_evidence(s.id, p_evidence::text),
      coalesce(p_valid_from, statement_timestamp()), coalesce(p_valid_until, 'infinity'),
      case when p_basis = 'legitimate_interests' then gdpr_internal.assessment_in_force(v_purpose) end,
      gdpr_internal.context_setting('actor')
    from unnest(p_subjects) with ordinality as s (id, n)
    order by s.n
    returning id
  )
  select array_agg(r.id order by r.id) into v_ids from recorded as r;
  perform gdpr_internal.refresh_gate(p_subjects);
  perform gdpr_internal.audit_events(
    'BASIS', p_subjects, 'basis_id', v_ids, jsonb_build_object('purpose', p_purpose, 'basis', p_basis)
  );
  return v_ids;
end
$function$;
comment on function gdpr_internal.add_bases(bigint[], text, text, text, timestamptz, bigint, timestamptz, jsonb, text) is
  'Records a basis for each of these persons (named once each), spreads their gates and returns the numbers of the records, in the same order.';

create or replace function gdpr.record_basis(
  p_subject bigint,
  p_purpose text,
  p_basis text,
  p_reason text default null,
  p_valid_until timestamptz default null,
  p_assessment bigint default null,
  p_valid_from timestamptz default null,
  p_evidence jsonb default null,
  p_condition text default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (gdpr_internal.add_bases(
    array[p_subject], p_purpose, p_basis, p_reason, p_valid_until, p_assessment, p_valid_from, p_evidence, p_condition
  ))[1];
end
$function$;
comment on function gdpr.record_basis(bigint, text, text, text, timestamptz, bigint, timestamptz, jsonb, text) is
  'Records a lawful basis of a person for a purpose (contract, legal_obligation, vital_interests, public_task, legitimate_interests) and returns its number. p_reason: why, without personal data. p_valid_until: the first instant at which it no longer holds (gdpr.until(date) for a day; null: for good); p_valid_from: the first at which it does, past or future (null: now). p_evidence: kept encrypted under the person''s key. p_assessment: for legitimate_interests, the approved assessment, which has to be the one in force (null: that one). p_condition: for columns of special categories, the condition of Art. 9(2). Errors: PR101 unknown person, PR603 erased, PR003 unknown purpose, PR202 not such a basis, PR205 no approved assessment. Art. 6(1), 9(2).';

create or replace function gdpr.record_bases(
  p_subjects bigint[],
  p_purpose text,
  p_basis text,
  p_reason text default null,
  p_valid_until timestamptz default null,
  p_assessment bigint default null,
  p_valid_from timestamptz default null,
  p_evidence jsonb default null,
  p_condition text default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[] := array(select distinct s.id from unnest(p_subjects) as s (id) where s.id is not null order by s.id);
begin
  return coalesce(cardinality(gdpr_internal.add_bases(
    v_subjects, p_purpose, p_basis, p_reason, p_valid_until, p_assessment, p_valid_from, p_evidence, p_condition
  )), 0);
end
$function$;
comment on function gdpr.record_bases(bigint[], text, text, text, timestamptz, bigint, timestamptz, jsonb, text) is
  'gdpr.record_basis() for many persons in one statement: all or none of them. Nulls and repetitions in p_subjects count for nothing. Returns how many bases were recorded. Errors: as gdpr.record_basis(). Art. 6(1).';

create or replace function gdpr.end_bases(p_basis_ids bigint[], p_reason text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_ids bigint[];
  v_subjects bigint[];
begin
  perform gdpr_internal.require_read_committed();
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  with ended as (
    insert into gdpr_internal.basis_end (basis_id, reason)
    select b.id, p_reason
    from gdpr_internal.basis_record as b
    where b.id = any (p_basis_ids) and b.valid_until > statement_timestamp()
    on conflict (basis_id) do nothing
    returning basis_id
  )
  select array_agg(b.id order by b.id), array_agg(b.subject_id order by b.id)
  into v_ids, v_subjects
  from ended as e
  join gdpr_internal.basis_record as b on b.id = e.basis_id;
  if v_ids is null then
    perform gdpr_internal.refuse('basis_ended');
  end if;
  perform gdpr_internal.refresh_gate(v_subjects);
  perform gdpr_internal.audit_events('BASIS', v_subjects, 'basis_id', v_ids, '{"ended": true}');
  return cardinality(v_ids);
end
$function$;
comment on function gdpr.end_bases(bigint[], text) is
  'Ends lawful bases now, those that have ended already excepted; returns how many. Errors: PR203 none of them holds, PR004 no reason, PR005 not at READ COMMITTED. Art. 5(1)(a), 6(1).';

create or replace function gdpr.end_basis(p_basis_id bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr.end_bases(array[p_basis_id], p_reason);
end
$function$;
comment on function gdpr.end_basis(bigint, text) is
  'Ends a lawful basis now; what no other basis allows is locked with this statement. Errors: PR203 unknown or ended, PR004 no reason, PR005 not at READ COMMITTED. Art. 5(1)(a), 6(1).';

-- 20_lawful_basis/22_held_bases.sql
-- [code] Which bases other than consent carry a person's processing, and until when: the one place that says so.
-- GDPR Art. 6(1). Read by: the gate, gdpr.basis, gdpr.basis_overview, gdpr.would_lock.

set local role gdpr_owner;

create or replace view gdpr_internal.held_basis as
select
  b.id,
  b.subject_id,
  b.purpose_id,
  b.basis,
  b.valid_from,
  case when b.basis = 'legitimate_interests' then least(b.valid_until, p.assessed_until) else b.valid_until end as valid_until,
  b.condition
from gdpr_internal.basis_record as b
join gdpr_internal.purpose as p on p.id = b.purpose_id
where not exists (select from gdpr_internal.basis_end as e where e.basis_id = b.id)
  -- undetermined is over once the person has said something
  and (b.basis <> 'undetermined' or not exists (
    select from gdpr_internal.consent_record as c where c.subject_id = b.subject_id and c.purpose_id = b.purpose_id
  ));
comment on view gdpr_internal.held_basis is
  'Recorded bases that did not end early, with the instant at which they end by themselves: legitimate interests when the assessment is due for review, undetermined ones when the grace period ends.';

-- 20_lawful_basis/25_default_bases.sql
-- [code] The bases that a table gives by default: who stands in it has them, and they follow the policy and the assessments.
-- GDPR Art. 6(1). Called by: the steps of gdpr.apply(), decisions about assessments.

set local role gdpr_owner;

create or replace view gdpr_internal.default_basis as
select
  b.table_id,
  b.purpose_id,
  b.basis,
  case when b.basis = 'undetermined' then 'in the table before gdprdb' else 'by default of the table' end as reason,
  b.valid_until as recorded_until,
  case when b.basis = 'legitimate_interests' then p.assessed_until else b.valid_until end as valid_until
from gdpr_internal.table_basis as b
join gdpr_internal.purpose as p on p.id = b.purpose_id
where case when b.basis = 'legitimate_interests' then p.assessed_until else b.valid_until end > statement_timestamp();
comment on view gdpr_internal.default_basis is
  'Bases that a table gives to whoever enters it now: legitimate interests only while an approved assessment carries them; undetermined ones, until the grace period ends, to the persons of rows that were there before gdprdb. recorded_until: what the record says; valid_until: until when it holds as things stand.';

create or replace function gdpr_internal.put_table_bases(p_table smallint)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before jsonb := (
    select jsonb_agg(b order by b.purpose_id, b.basis) from gdpr_internal.table_basis as b where b.table_id = p_table
  );
begin
  delete from gdpr_internal.table_basis as b where b.table_id = p_table;
  insert into gdpr_internal.table_basis (table_id, purpose_id, basis, valid_until)
  select t.id, p.id, d.basis, d.valid_until
  from gdpr_internal.protected_table as t
  cross join lateral jsonb_array_elements_text(t.definition -> 'purposes') as n (name)
  join gdpr_internal.purpose as p on p.name = n.name
  cross join lateral (
    select p.basis, 'infinity'::timestamptz as valid_until where p.basis <> 'consent'
    union all
    select 'undetermined', t.protected_at + p.grace
    where p.basis = 'consent' or (p.basis = 'legitimate_interests' and not exists (
      select from gdpr_internal.assessment as a
      join gdpr_internal.assessment_decision as x on x.assessment_id = a.id
      where a.purpose_id = p.id
    ))
  ) as d
  where t.id = p_table and d.valid_until is not null;
  return v_before is distinct from (
    select jsonb_agg(b order by b.purpose_id, b.basis) from gdpr_internal.table_basis as b where b.table_id = p_table
  );
end
$function$;
comment on function gdpr_internal.put_table_bases(smallint) is
  'Derives from policy and assessments which bases a table gives: the purpose''s own, and for rows from before gdprdb a grace period where that one is consent, or legitimate interests of which no assessment was decided. Returns whether anything changed.';

create or replace function gdpr_internal.give_bases(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into gdpr_internal.basis_end (basis_id, reason, by_policy)
  select r.id, 'the policy gives another basis or grace period', true
  from gdpr_internal.basis_record as r
  where r.by_table = p_table and r.basis = 'undetermined' and r.valid_until > statement_timestamp()
    and not exists (
      select from gdpr_internal.table_basis as b
      where b.table_id = p_table and b.purpose_id = r.purpose_id and b.basis = r.basis and b.valid_until = r.valid_until
    )
  on conflict (basis_id) do nothing;
  insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, valid_until, by_table)
  select d.subject_id, b.purpose_id, b.basis, b.reason, b.recorded_until, p_table
  from (
    select s.subject_id, bool_or(s.kind = 'before_gdprdb') as before
    from gdpr_internal.source as s
    join gdpr_internal.subject as p on p.id = s.subject_id
    where s.table_id = p_table and p.erased_at is null
    group by s.subject_id
  ) as d
  join gdpr_internal.default_basis as b on b.table_id = p_table
  where (b.basis <> 'undetermined' or d.before) and not exists (
    select from gdpr_internal.basis_record as r
    where r.subject_id = d.subject_id and r.purpose_id = b.purpose_id and r.basis = b.basis and r.by_table is not null
      -- what somebody ended stays ended
      and not exists (select from gdpr_internal.basis_end as e where e.basis_id = r.id and e.by_policy)
  );
end
$function$;
comment on function gdpr_internal.give_bases(smallint) is 'Gives the persons in a table the bases that it gives by default now and that no table gave them before; their gates are still to be refreshed.';

create or replace function gdpr_internal.refresh_table(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refresh_gate(
    array(select distinct s.subject_id from gdpr_internal.source as s where s.table_id = p_table)
  );
end
$function$;
comment on function gdpr_internal.refresh_table(smallint) is 'Refreshes the gates of all persons in a table.';

create or replace function gdpr_internal.follow_tables(p_purpose smallint, p_all boolean)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table record;
begin
  for v_table in
    select t.id, t.fingerprint is not distinct from gdpr_internal.fingerprint(t.relation) as settled
    from gdpr_internal.protected_table as t
    where t.unprotected_at is null and t.purpose_mask & (1::bigint << p_purpose) <> 0
  loop
    continue when not gdpr_internal.put_table_bases(v_table.id) and not p_all;
    perform gdpr_internal.generate_triggers(v_table.id);
    if v_table.settled then
      update gdpr_internal.protected_table as t set fingerprint = gdpr_internal.fingerprint(t.relation) where t.id = v_table.id;
    end if;
    perform gdpr_internal.give_bases(v_table.id);
    perform gdpr_internal.refresh_table(v_table.id);
  end loop;
end
$function$;
comment on function gdpr_internal.follow_tables(smallint, boolean) is
  'Tables of a purpose (p_all: also those to which nothing seems to have changed) give the bases that policy and assessments say now, to new rows and to the persons who are there.';

create or replace function gdpr_internal.follow_basis(p_purpose smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[];
begin
  perform gdpr_internal.follow_tables(p_purpose, false);
  with ended as (
    insert into gdpr_internal.basis_end (basis_id, reason, by_policy)
    select b.id, 'the policy rests the purpose on another basis', true
    from gdpr_internal.basis_record as b
    join gdpr_internal.purpose as p on p.id = b.purpose_id
    where b.purpose_id = p_purpose and b.by_table is not null and b.basis <> p.basis and b.basis <> 'undetermined'
      and not exists (select from gdpr_internal.basis_end as e where e.basis_id = b.id)
    returning basis_id
  )
  select array_agg(distinct b.subject_id) into v_subjects
  from ended as e
  join gdpr_internal.basis_record as b on b.id = e.basis_id;
  perform gdpr_internal.refresh_gate(v_subjects);
end
$function$;
comment on function gdpr_internal.follow_basis(smallint) is
  'After the policy rests a purpose on another basis: bases that tables gave by default end, the new ones are given.';

create or replace function gdpr_internal.follow_assessment(p_purpose smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.follow_tables(p_purpose, true);
  perform gdpr_internal.refresh_gate(array(
    select distinct b.subject_id from gdpr_internal.basis_record as b where b.purpose_id = p_purpose and b.basis = 'legitimate_interests'
  ));
end
$function$;
comment on function gdpr_internal.follow_assessment(smallint) is
  'After a decision about an assessment of a purpose: its tables give legitimate interests or give them no longer, and every person who rests on them gets the gate anew.';

-- 20_lawful_basis/30_assessments.sql
-- [code] Assessing legitimate interests: written by one, approved by another, reviewed in time.
-- GDPR Art. 6(1)(f). Called by: gdpr_dpo, and roles to which the policy gives may = ["basis"].

set local role gdpr_owner;

create or replace view gdpr.assessment as
select
  a.id as assessment_id,
  p.name as purpose,
  a.version,
  case
    when d.id is null then 'draft'
    when not d.approved then 'rejected'
    when d.review_at <= statement_timestamp() then 'review_due'
    when exists (
      select from gdpr_internal.assessment as n
      cross join lateral (
        select x.approved, x.review_at from gdpr_internal.assessment_decision as x where x.assessment_id = n.id order by x.id desc limit 1
      ) as l
      where n.purpose_id = a.purpose_id and n.version > a.version and l.approved
    ) then 'superseded'
    else 'in_force'
  end as status,
  a.interest,
  a.necessity,
  a.balancing,
  a.author,
  a.recorded_at,
  d.decided_by as approver,
  d.decided_at,
  d.reason as decision_reason,
  coalesce(d.review_at, a.review_at) as review_at
from gdpr_internal.assessment as a
join gdpr_internal.purpose as p on p.id = a.purpose_id
left join lateral (
  select x.* from gdpr_internal.assessment_decision as x where x.assessment_id = a.id order by x.id desc limit 1
) as d on true;
comment on view gdpr.assessment is
  'Assessments of legitimate interests, all versions. status: draft (nobody has approved it), in_force, review_due (its date has passed: bases that rest on it do not hold), superseded (a later version was approved), rejected. Art. 6(1)(f).';

create or replace function gdpr_internal.assessment_in_force(p_purpose smallint)
returns bigint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select a.assessment_id
  from gdpr.assessment as a
  join gdpr_internal.purpose as p on p.name = a.purpose
  where p.id = p_purpose and p.assessed_until > statement_timestamp() and a.status = 'in_force';
end;
comment on function gdpr_internal.assessment_in_force(smallint) is 'The assessment that carries the legitimate interests of a purpose now, or null.';

create or replace function gdpr.record_assessment(
  p_purpose text,
  p_interest text,
  p_necessity text,
  p_balancing text,
  p_review date
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
  v_id bigint;
begin
  if v_purpose >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  elsif '' in (coalesce(p_interest, ''), coalesce(p_necessity, ''), coalesce(p_balancing, '')) then
    perform gdpr_internal.refuse('invalid_argument', 'interest, necessity and balancing are needed');
  elsif p_review is null or not isfinite(p_review) or gdpr.until(p_review) <= statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'the review is on a day to come');
  end if;
  -- one at a time: versions are counted
  perform from gdpr_internal.purpose as p where p.id = v_purpose for update;
  insert into gdpr_internal.assessment (purpose_id, version, interest, necessity, balancing, review_at, actor)
  select
    v_purpose, (select count(*) + 1 from gdpr_internal.assessment as a where a.purpose_id = v_purpose),
    p_interest, p_necessity, p_balancing, gdpr.until(p_review), gdpr_internal.context_setting('actor')
  returning id into v_id;
  perform gdpr_internal.audit_event('ASSESSMENT', null, jsonb_build_object('assessment_id', v_id, 'purpose', p_purpose));
  return v_id;
end
$function$;
comment on function gdpr.record_assessment(text, text, text, text, date) is
  'Records an assessment of legitimate interests for a purpose, a new version each time: the interest pursued, why the processing is necessary for it, and how it weighs against the persons'' rights; no personal data. p_review: the last day on which it counts. Nothing rests on it until somebody else approves it. Returns its number. Errors: PR003 unknown purpose, PR004 a part is missing. Art. 6(1)(f).';

create or replace function gdpr_internal.decide_assessment(p_assessment bigint, p_approved boolean, p_reason text, p_review date)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_assessment gdpr_internal.assessment;
  v_review timestamptz;
  v_until timestamptz;
begin
  perform gdpr_internal.require_read_committed();
  select * into v_assessment from gdpr_internal.assessment as a where a.id = p_assessment;
  if v_assessment.id is null then
    perform gdpr_internal.refuse('invalid_argument', 'there is no such assessment');
  end if;
  v_review := coalesce(gdpr.until(p_review), v_assessment.review_at);
  if p_approved and v_assessment.author = session_user then
    perform gdpr_internal.refuse('four_eyes');
  elsif p_approved and (v_review <= statement_timestamp() or not isfinite(v_review)) then
    perform gdpr_internal.refuse('invalid_argument', 'the review is on a day to come');
  end if;
  perform from gdpr_internal.purpose as p where p.id = v_assessment.purpose_id for update;
  insert into gdpr_internal.assessment_decision (assessment_id, approved, review_at, reason, actor)
  values (p_assessment, p_approved, v_review, p_reason, gdpr_internal.context_setting('actor'));
  select d.review_at into v_until
  from gdpr_internal.assessment as a
  cross join lateral (
    select x.approved, x.review_at from gdpr_internal.assessment_decision as x where x.assessment_id = a.id order by x.id desc limit 1
  ) as d
  where a.purpose_id = v_assessment.purpose_id and d.approved
  order by a.version desc
  limit 1;
  update gdpr_internal.purpose as p set assessed_until = coalesce(v_until, '-infinity') where p.id = v_assessment.purpose_id;
  perform gdpr_internal.follow_assessment(v_assessment.purpose_id);
  perform gdpr_internal.audit_event('ASSESSMENT', null, jsonb_build_object('assessment_id', p_assessment, 'approved', p_approved));
end
$function$;
comment on function gdpr_internal.decide_assessment(bigint, boolean, text, date) is
  'Records a decision about an assessment and spreads it to all who rest on the purpose''s legitimate interests.';

create or replace function gdpr.approve_assessment(p_assessment bigint, p_review date default null, p_reason text default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.decide_assessment(p_assessment, true, p_reason, p_review);
end
$function$;
comment on function gdpr.approve_assessment(bigint, date, text) is
  'Approves an assessment, or renews it: from now until the end of p_review (null: the day its author named) the purpose may rest on legitimate interests, and with that instant no longer, unless renewed. The latest approved version is the one in force. Whoever wrote it cannot approve it (the login counts). Errors: PR004 unknown assessment or a day that has passed, PR206 four eyes, PR005 not at READ COMMITTED. Art. 6(1)(f).';

create or replace function gdpr.reject_assessment(p_assessment bigint, p_reason text)
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
  perform gdpr_internal.decide_assessment(p_assessment, false, p_reason, null);
end
$function$;
comment on function gdpr.reject_assessment(bigint, text) is
  'Rejects an assessment, also one in force: with this statement nothing rests on it any more (an earlier version that is still approved takes over). Errors: PR004 unknown assessment or no reason, PR005 not at READ COMMITTED. Art. 6(1)(f).';

-- 20_lawful_basis/35_special.sql
-- [code] Special categories of data: besides the basis, a condition of Art. 9(2) has to hold.
-- GDPR Art. 9. Asked by: the clear views, gdpr.reveal() and the triggers of tables with columns marked special. Tables without
-- such columns never ask.

set local role gdpr_owner;

create or replace function gdpr_policy.special_allowed(p_subject bigint, p_role name, p_claim text)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_mask bigint := gdpr_policy.purpose_mask(p_role, p_claim);
begin
  return v_mask = 1::bigint << 62 or gdpr_internal.has_condition(p_subject, v_mask);
end
$function$;
comment on function gdpr_policy.special_allowed(bigint, name, text) is
  'Whether special categories of a person''s data may be processed for the purpose of this statement: compliance, maintenance, a purpose that has a condition of Art. 9(2) for everybody, a basis recorded with one, or consent for a purpose that asks for explicit consent. p_subject null: whether everybody''s may.';

create or replace function gdpr_internal.check_special(p_subject bigint, p_role name, p_claim text)
returns void
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not gdpr_policy.special_allowed(p_subject, p_role, p_claim) then
    perform gdpr_internal.refuse('condition_missing', format('subject %s', p_subject));
  end if;
end
$function$;
comment on function gdpr_internal.check_special(bigint, name, text) is 'Asked by the triggers of a table when a column marked special is given a value. Error: PR208.';

-- 30_consent/15_children.sql
-- [code] Consent of a child: where a birth date is known, a guardian has to stand behind it.
-- GDPR Art. 8. Called by: gdpr.record_consent(), gdpr.answer_consent(). The rows are read by gdpr_worker, birth dates opened by
-- gdpr_keyholder, and all that comes out is yes or no.

set local role gdpr_keyholder;

create or replace function gdpr_internal.born_after(p_subject bigint, p_column integer, p_value text, p_day date)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set debug_print_plan = off
as $function$
declare
  v_birth text := p_value;
begin
  if starts_with(p_value, 'gdpr1:') then
    v_birth := gdpr_internal.open_value(gdpr_internal.data_key(gdpr_internal.keyring(), p_subject), p_subject, p_column, p_value);
  end if;
  return coalesce(v_birth::date > p_day, false);
exception when data_exception then
  return false;
end
$function$;
comment on function gdpr_internal.born_after(bigint, integer, text, date) is
  'Whether a stored birth date, ciphertext or text, lies after a day; false for what is no date. Errors: PR402 key locked, PR404 altered value.';

set local role gdpr_owner;

create or replace function gdpr_internal.children(p_subjects bigint[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_column record;
  v_of_age date := (statement_timestamp() at time zone gdpr_internal.time_zone())::date - make_interval(years => coalesce(
    (select (s.value #>> '{}')::integer from gdpr_internal.setting as s where s.name = 'child_age'), 16
  ));
  v_before text;
  v_found bigint[];
  v_children bigint[] := '{}';
begin
  for v_column in
    select t.id as table_id, c.id
    from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    where t.unprotected_at is null and c.age
    order by c.id
  loop
    v_before := gdpr_internal.before_worker();
    execute format(
      'select array_agg(distinct b.subject_id) from gdpr_generated.%I($1) as b where gdpr_internal.born_after(b.subject_id, $2, b.birth, $3)',
      'births_' || v_column.table_id
    ) into v_found using p_subjects, v_column.id, v_of_age;
    perform gdpr_internal.after_worker(v_before);
    v_children := v_children || coalesce(v_found, '{}');
  end loop;
  return v_children;
end
$function$;
comment on function gdpr_internal.children(bigint[]) is
  'Those of the persons who are known to be under the age limit of the policy (settings.child_age, else 16) today: by the columns marked age = true of any protected table. Art. 8(1).';

create or replace function gdpr_internal.require_guardians(p_subjects bigint[], p_evidence jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if coalesce(p_evidence #>> '{guardian,name}', '') <> '' and coalesce(p_evidence #>> '{guardian,verified}', '') <> '' then
    return;
  end if;
  if gdpr_internal.children(p_subjects) <> '{}' then
    perform gdpr_internal.refuse('guardian_missing');
  end if;
end
$function$;
comment on function gdpr_internal.require_guardians(bigint[], jsonb) is
  'Consent of persons known to be children needs {"guardian": {"name": ..., "verified": how}} in its evidence. Error: PR310. Art. 8(1), 8(2).';

create or replace function gdpr_internal.require_guardian(p_subject bigint, p_evidence jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_guardians(array[p_subject], p_evidence);
end
$function$;
comment on function gdpr_internal.require_guardian(bigint, jsonb) is 'gdpr_internal.require_guardians() for one person. Error: PR310.';

-- 30_consent/20_forms.sql
-- [code] Consent forms: recorded as drafts, published as versions, chosen by the person's language.
-- GDPR Art. 4(11) (informed), Art. 7(1) (demonstrate), 7(2) (plain language). Called by: gdpr_dpo, gdprdb form.

set local role gdpr_owner;

create or replace function gdpr_internal.form_text(p_form gdpr_internal.consent_form)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- a field to a line: none of them can hold a line break but the statement, which comes last
  select concat_ws(
    chr(10),
    'gdprdb consent form 1',
    'name: ' || (p_form).name,
    'version: ' || (p_form).version,
    'language: ' || (p_form).language,
    'purposes: ' || array_to_string((p_form).purposes, ' '),
    'channels: ' || array_to_string((p_form).channels, ' '),
    'privacy notice: ' || (p_form).privacy_notice,
    'title: ' || (p_form).title,
    '',
    (p_form).statement
  );
end;
comment on function gdpr_internal.form_text(gdpr_internal.consent_form) is
  'The canonical text of a form, over which its digest is taken: the same fields in the same order, UTF-8 in NFC, lines ended by a line feed.';

create or replace function gdpr_internal.known_channels(p_channels text[])
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not coalesce(p_channels <@ array['mail', 'phone', 'post', 'social'], true) then
    perform gdpr_internal.refuse('invalid_argument', 'channels of contact are mail, phone, post, social');
  end if;
  return (select array_agg(distinct c order by c) from unnest(p_channels) as c);
end
$function$;
comment on function gdpr_internal.known_channels(text[]) is 'Channels of contact, each once, in order; null for none. Error: PR004.';

create or replace function gdpr_internal.consent_purposes(p_purposes text[])
returns smallint[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purposes smallint[];
begin
  select array_agg(distinct gdpr_internal.purpose_id(n)) into v_purposes from unnest(p_purposes) as n;
  if v_purposes is null then
    perform gdpr_internal.refuse('invalid_argument', 'at least one purpose');
  elsif exists (select from gdpr_internal.purpose as p where p.id = any (v_purposes) and p.basis is distinct from 'consent') then
    perform gdpr_internal.refuse('consent_not_asked');
  end if;
  return v_purposes;
end
$function$;
comment on function gdpr_internal.consent_purposes(text[]) is
  'The numbers of purposes that rest on consent. Errors: PR003 unknown, PR004 none, PR302 another basis.';

create or replace function gdpr_internal.require_form(p_form bigint, p_purposes text[])
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not exists (
    select from gdpr_internal.consent_form as f
    join gdpr_internal.consent_form_version as v on v.name = f.name and v.version = f.version
    where f.id = p_form and p_purposes <@ f.purposes
  ) then
    perform gdpr_internal.refuse('form_refused', 'it is not published, or does not ask for all of the purposes');
  end if;
end
$function$;
comment on function gdpr_internal.require_form(bigint, text[]) is
  'Refuses a form by which nobody can have agreed to these purposes. Error: PR305.';

create or replace function gdpr.record_form(
  p_name text,
  p_language text,
  p_purposes text[],
  p_channels text[],
  p_title text,
  p_statement text,
  p_privacy_notice text
)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_form gdpr_internal.consent_form;
begin
  v_form.name := p_name;
  v_form.language := lower(replace(p_language, '_', '-'));
  v_form.title := btrim(normalize(p_title, nfc));
  v_form.statement := btrim(replace(normalize(p_statement, nfc), chr(13), ''), chr(10) || ' ');
  v_form.privacy_notice := p_privacy_notice;
  v_form.channels := coalesce(gdpr_internal.known_channels(p_channels), '{}');
  select array_agg(p.name order by p.name) into v_form.purposes
  from gdpr_internal.purpose as p
  where p.id = any (gdpr_internal.consent_purposes(p_purposes));
  if not coalesce(v_form.name ~ '^[a-z][a-z0-9_]{0,62}$', false) then
    perform gdpr_internal.refuse('invalid_argument', 'the name of a form is lower case letters, digits and _');
  elsif not coalesce(v_form.language ~ '^[a-z]{2,3}(-[a-z0-9]{2,8})*$', false) then
    perform gdpr_internal.refuse('invalid_argument', 'the language is a tag such as en or de-at');
  elsif coalesce(v_form.statement, '') = '' or coalesce(v_form.title, '') = '' or v_form.title ~ '[[:cntrl:]]' then
    perform gdpr_internal.refuse('invalid_argument', 'a form has a statement, and a title of one line');
  elsif not coalesce(v_form.privacy_notice ~ '^https?://[^[:space:][:cntrl:]]+$', false) then
    perform gdpr_internal.refuse('invalid_argument', 'the privacy notice is a link that begins with https://');
  end if;
  -- one writer of a form at a time: two drafts would become one version
  perform pg_advisory_xact_lock(hashtextextended('gdpr.form ' || p_name, 0));
  select coalesce(max(v.version), 0) + 1 into v_form.version from gdpr_internal.consent_form_version as v where v.name = p_name;
  v_form.digest := sha256(convert_to(gdpr_internal.form_text(v_form), 'UTF8'));
  insert into gdpr_internal.consent_form as f (
    name, version, language, purposes, channels, title, statement, privacy_notice, digest
  )
  values (
    v_form.name, v_form.version, v_form.language, v_form.purposes, v_form.channels, v_form.title, v_form.statement,
    v_form.privacy_notice, v_form.digest
  )
  on conflict (name, version, language) do update
  set purposes = excluded.purposes, channels = excluded.channels, title = excluded.title, statement = excluded.statement,
    privacy_notice = excluded.privacy_notice, digest = excluded.digest, recorded_at = excluded.recorded_at,
    recorded_by = excluded.recorded_by
  where f.digest <> excluded.digest;
  perform gdpr_internal.audit_event('FORM', null, jsonb_build_object(
    'form', v_form.name, 'version', v_form.version, 'language', v_form.language, 'digest', encode(v_form.digest, 'hex')
  ));
  return v_form.version;
end
$function$;
comment on function gdpr.record_form(text, text, text[], text[], text, text, text) is
  'Records the text of a consent form in one language as a draft, and returns its version: the one after the last that was published. p_channels: of contact that it asks for (mail, phone, post, social). Once more with the same name and language replaces the draft. Errors: PR003 unknown purpose, PR302 a purpose that does not rest on consent, PR004. Art. 7(2).';

create or replace function gdpr.publish_form(p_name text, p_default_language text)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_version integer;
  v_asks integer;
  v_default boolean;
begin
  perform pg_advisory_xact_lock(hashtextextended('gdpr.form ' || p_name, 0));
  select f.version, count(distinct (f.purposes, f.channels)), bool_or(f.language = lower(replace(p_default_language, '_', '-')))
  into v_version, v_asks, v_default
  from gdpr_internal.consent_form as f
  where f.name = p_name
    and not exists (select from gdpr_internal.consent_form_version as v where v.name = f.name and v.version = f.version)
  group by f.version;
  if v_version is null then
    perform gdpr_internal.refuse('form_refused', 'there is no draft of this name');
  elsif not coalesce(v_default, false) then
    perform gdpr_internal.refuse('form_refused', 'the draft has no text in the default language');
  elsif v_asks > 1 then
    perform gdpr_internal.refuse('form_refused', 'its languages ask for different purposes or channels');
  end if;
  insert into gdpr_internal.consent_form_version (name, version, default_language)
  values (p_name, v_version, lower(replace(p_default_language, '_', '-')));
  perform gdpr_internal.audit_event('FORM', null, jsonb_build_object('form', p_name, 'version', v_version, 'published', true));
  return v_version;
end
$function$;
comment on function gdpr.publish_form(text, text) is
  'Publishes the draft of a form in all its languages, and returns the version: from now on its texts do not change, and persons are asked by it. p_default_language: for persons whose language it does not speak. Error: PR305 no draft, no text in that language, or texts that ask for different things. Art. 7(1).';

create or replace function gdpr_internal.keep_form()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if tg_op = 'TRUNCATE' then
    perform gdpr_internal.refuse('append_only', tg_table_name);
  elsif exists (select from gdpr_internal.consent_form_version as v where v.name = old.name and v.version = old.version) then
    perform gdpr_internal.refuse('append_only', tg_table_name);
  end if;
  return case tg_op when 'DELETE' then old else new end;
end
$function$;
comment on function gdpr_internal.keep_form() is 'Refuses every change of a form that was published. Error: 55000.';

create or replace trigger gdpr_30_keep_form
before update or delete on gdpr_internal.consent_form
for each row execute function gdpr_internal.keep_form();
alter table gdpr_internal.consent_form enable always trigger gdpr_30_keep_form;
create or replace trigger gdpr_30_no_truncate
before truncate on gdpr_internal.consent_form
for each statement execute function gdpr_internal.keep_form();
alter table gdpr_internal.consent_form enable always trigger gdpr_30_no_truncate;

create or replace function gdpr_internal.form_languages(p_name text)
returns table (tag text, form_id bigint, language text)
-- plpgsql, here and where persons are asked one by one: a function in SQL is planned anew by each caller
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query
  select l.tag, f.id, f.language
  from (
    select v.version, v.default_language
    from gdpr_internal.consent_form_version as v
    where v.name = p_name
    order by v.version desc
    limit 1
  ) as v
  join gdpr_internal.consent_form as f on f.name = p_name and f.version = v.version
  cross join lateral (
    select f.language
    union all
    select '' where f.language = v.default_language
  ) as l (tag);
end
$function$;
comment on function gdpr_internal.form_languages(text) is
  'The texts of the last published version of a form by language; the one under the empty tag is for everybody else.';

create or replace function gdpr_internal.language_chain(p_language text)
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    lower(replace(btrim(p_language), '_', '-')),
    split_part(lower(replace(btrim(p_language), '_', '-')), '-', 1),
    ''
  ];
end;
comment on function gdpr_internal.language_chain(text) is
  'The languages to try for a person, in order: the own (de-at), its base (de), whatever is the default (empty).';

create or replace view gdpr.consent_form as
select
  f.id as form_id,
  f.name,
  f.version,
  f.language,
  f.purposes,
  f.channels,
  f.title,
  f.statement,
  f.privacy_notice,
  encode(f.digest, 'hex') as digest,
  gdpr_internal.form_text(f) as canonical_text,
  v.published_at,
  v.published_by,
  coalesce(v.default_language = f.language, false) as is_default,
  v.version is not null and v.version = max(v.version) over (partition by f.name) as is_current,
  f.recorded_at,
  f.recorded_by
from gdpr_internal.consent_form as f
left join gdpr_internal.consent_form_version as v on v.name = f.name and v.version = f.version;
comment on view gdpr.consent_form is
  'Consent forms, each version and language; published_at is null for drafts. digest: SHA-256 of canonical_text in UTF-8. is_current: persons are asked by this version. Art. 7(1).';

-- 30_consent/30_states.sql
-- [code] Where a person's consent stands, purpose by purpose: derived from questions and answers when somebody asks.
-- GDPR Art. 7. Read by: the gate (consent_state), everybody who works with consent (gdpr.consent).

set local role gdpr_owner;

create or replace function gdpr_internal.after(p_interval interval)
returns timestamptz
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_zone text := gdpr_internal.time_zone();
begin
  return timezone(v_zone, timezone(v_zone, statement_timestamp()) + p_interval);
end
$function$;
comment on function gdpr_internal.after(interval) is
  'This statement''s time and a duration, counted in the time zone of the policy: a day is a day there, whatever zone the session has.';

create or replace view gdpr_internal.consent_state as
select
  s.id as subject_id,
  s.erased_at is not null as erased,
  p.id as purpose_id,
  p.name as purpose,
  p.basis,
  r.id as record_id,
  r.event,
  r.channel,
  r.contact,
  r.form_id,
  r.valid_until,
  r.recorded_at,
  r.recorded_by,
  r.actor,
  q.request_id,
  q.respond_until,
  case
    -- a grant that holds is not shaken by a new question
    when r.event = 'granted' and r.valid_until > statement_timestamp() then 'granted'
    when q.respond_until > statement_timestamp() then 'waiting'
    when q.respond_until is not null then 'not_responded'
    when r.event = 'granted' then 'expired'
    else coalesce(r.event, 'pending')
  end as status,
  greatest(
    case when r.event = 'granted' then r.valid_until end,
    -- a no stays a no while the person is asked again; and asking again prolongs no waiting
    case when p.while_waiting = 'allow' and coalesce(r.event = 'granted', true) then q.first_until end
  ) as holds_until
from gdpr_internal.subject as s
cross join gdpr_internal.purpose as p
left join lateral (
  select x.*
  from gdpr_internal.consent_record as x
  where x.subject_id = s.id and x.purpose_id = p.id
  order by x.id desc
  limit 1
) as r on true
left join lateral (
  select
    max(x.id) as request_id,
    (array_agg(x.respond_until order by x.id desc))[1] as respond_until,
    min(x.respond_until) as first_until
  from gdpr_internal.consent_request as x
  where x.subject_id = s.id and x.id > coalesce(r.id, 0) and p.id = any (x.purposes)
) as q on true
where p.id < 62;
comment on view gdpr_internal.consent_state is
  'Consent of each person by purpose: the last answer, the last question since and its deadline, found by one probe of an index each. holds_until: until when it is a basis: as long as a grant is valid or, with while_waiting = allow and no earlier no, until the first deadline that passes without an answer.';

create or replace view gdpr.consent as
select
  c.record_id as consent_id,
  c.subject_id,
  c.purpose,
  c.status,
  case c.status
    when 'pending' then 'dpv:ConsentUnknown'
    when 'waiting' then 'dpv:ConsentRequested'
    when 'granted' then 'dpv:ConsentGiven'
    when 'declined' then 'dpv:ConsentRefused'
    when 'not_responded' then 'dpv:ConsentRequestDeferred'
    when 'expired' then 'dpv:ConsentExpired'
    when 'withdrawn' then 'dpv:ConsentWithdrawn'
  end as dpv,
  coalesce(c.holds_until > statement_timestamp(), false) as holds,
  c.channel,
  c.contact,
  c.recorded_at,
  case when c.event = 'granted' then c.valid_until end as valid_until,
  c.request_id,
  c.respond_until,
  c.form_id,
  c.recorded_by,
  c.actor
from gdpr_internal.consent_state as c
where c.record_id is not null
  or c.request_id is not null
  or c.basis = 'consent' and not c.erased and exists (
    select from gdpr_internal.source as o
    join gdpr_internal.protected_table as h on h.id = o.table_id
    where o.subject_id = c.subject_id and h.unprotected_at is null and h.purpose_mask & (1::bigint << c.purpose_id) <> 0
  );
comment on view gdpr.consent is
  'Where the consent of each person stands at the statement''s time, for each purpose that asks for it. status: pending (known, not asked), waiting, granted, declined, not_responded, expired, withdrawn; dpv: the same in the W3C Data Privacy Vocabulary. holds: whether it allows processing now, other bases, restriction and objection aside. contact: channels by which the person may be contacted. respond_until: the deadline of a question that is open or was not answered. Art. 7.';

-- 30_consent/40_answers.sql
-- [code] Answers: consent granted, declined and withdrawn, by staff and by the person.
-- GDPR Art. 6(1)(a), Art. 7. Called by: gdpr_dpo, and roles to which the policy gives may = ["consent"].

set local role gdpr_owner;

create or replace function gdpr_internal.open_purposes(p_request gdpr_internal.consent_request)
returns smallint[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
-- a plan outlives the statistics it was made with: planned while this table had one page, it would read all of it by now
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
set plan_cache_mode = force_generic_plan
as $function$
begin
  return (
    select coalesce(array_agg(u.purpose_id order by u.purpose_id), '{}')
    from unnest(p_request.purposes) as u (purpose_id)
    where not exists (
        select from gdpr_internal.consent_record as r
        where r.subject_id = p_request.subject_id and r.purpose_id = u.purpose_id and r.id > p_request.id
      )
      and not exists (
        select from gdpr_internal.consent_request as q
        where q.subject_id = p_request.subject_id and q.id > p_request.id and u.purpose_id = any (q.purposes)
      )
  );
end
$function$;
comment on function gdpr_internal.open_purposes(gdpr_internal.consent_request) is
  'The purposes of a question that nobody has answered, and about which the person was not asked anew.';

create or replace function gdpr_internal.close_questions(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
set plan_cache_mode = force_generic_plan
as $function$
declare
  v_closed bigint[];
  v_mails bigint[];
begin
  -- first the few that something still waits for, found by index one by one: whether a question is open is the dearer look
  with waited_for as materialized (
    select q
    from gdpr_internal.consent_request as q
    cross join lateral (
      (select from gdpr_internal.token as t where t.reference = q.id and t.kind = 'consent' and t.used_at is null)
      union all
      (select from gdpr_internal.consent_mail as m where m.request_id = q.id)
      limit 1
    ) as waiting
    where q.subject_id = any (p_subjects)
  )
  select array_agg((w.q).id) into v_closed
  from waited_for as w
  where gdpr_internal.open_purposes(w.q) = '{}';
  if v_closed is null then
    return;
  end if;
  -- the link of a question that was answered still withdraws; that of one asked anew is dead
  delete from gdpr_internal.token as t
  where t.kind = 'consent' and t.reference = any (v_closed) and t.used_at is null
    and not exists (
      select from gdpr_internal.consent_record as r where r.subject_id = t.subject_id and r.request_id = t.reference
    );
  update gdpr_internal.token as t
  set used_at = statement_timestamp()
  where t.kind = 'consent' and t.reference = any (v_closed) and t.used_at is null;
  with called as (
    delete from gdpr_internal.consent_mail as m where m.request_id = any (v_closed) returning m.mail_id
  )
  select array_agg(c.mail_id) into v_mails from called as c;
  perform gdpr_internal.cancel_mails(v_mails, 'the question is closed');
end
$function$;
comment on function gdpr_internal.close_questions(bigint[]) is
  'After an answer, or a new question: questions of these persons that have nothing open any more take no answer by their token, and their mails not yet sent are called back.';

create or replace function gdpr_internal.add_consents(
  p_subject bigint,
  p_purposes smallint[],
  p_events text[],
  p_channel text,
  p_contact text[],
  p_form bigint,
  p_evidence jsonb,
  p_valid_until timestamptz
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
-- as in open_purposes(), for the checks of foreign keys too
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
as $function$
declare
  v_evidence text;
  v_id bigint;
begin
  perform gdpr_internal.require_home();
  -- before the record takes its number: of two that come at once, the one that commits last has the last word
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  perform gdpr_internal.require_subject(p_subject);
  if p_channel is null or p_channel <> all (
    array['email', 'portal', 'phone', 'paper', 'web_form', 'api', 'import', 'in_person']
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'channel is one of email, portal, phone, paper, web_form, api, import, in_person');
  end if;
  if 'granted' = any (p_events) then
    perform gdpr_internal.require_guardian(p_subject, p_evidence);
  end if;
  v_evidence := gdpr_internal.seal_evidence(p_subject, p_evidence::text);
  with added as (
    insert into gdpr_internal.consent_record (
      subject_id, purpose_id, event, channel, contact, request_id, form_id, evidence, valid_until, actor
    )
    select
      p_subject, n.purpose_id, n.event, p_channel,
      case when n.event = 'granted' then coalesce(gdpr_internal.known_channels(p_contact), f.channels) end,
      q.id, f.id, v_evidence,
      coalesce(p_valid_until, gdpr_internal.after(p.valid_for), 'infinity'),
      gdpr_internal.context_setting('actor')
    from unnest(p_purposes, p_events) as n (purpose_id, event)
    join gdpr_internal.consent_state as c on c.subject_id = p_subject and c.purpose_id = n.purpose_id
    join gdpr_internal.purpose as p on p.id = n.purpose_id
    left join gdpr_internal.consent_request as q on q.id = c.request_id
    left join gdpr_internal.consent_form as f on f.id = coalesce(p_form, q.form_id)
    order by n.purpose_id
    returning id, purpose_id, event
  )
  select max(a.id) into v_id
  from added as a
  join gdpr_internal.purpose as p on p.id = a.purpose_id
  cross join lateral gdpr_internal.audit_event(
    'CONSENT', p_subject, jsonb_build_object('consent_id', a.id, 'purpose', p.name, 'event', a.event, 'channel', p_channel)
  ) as e;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.close_questions(array[p_subject]);
  return v_id;
end
$function$;
comment on function gdpr_internal.add_consents(bigint, smallint[], text[], text, text[], bigint, jsonb, timestamptz) is
  'Adds one record for each purpose, spreads the gate, and closes the questions that they answer. The text that a person agreed to is that of the question, unless p_form names one.';

create or replace function gdpr.record_consent(
  p_subject bigint,
  p_purpose text,
  p_granted boolean,
  p_channel text,
  p_evidence jsonb default null,
  p_valid_until timestamptz default null,
  p_contact text[] default null,
  p_form bigint default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purposes smallint[] := gdpr_internal.consent_purposes(array[p_purpose]);
begin
  if p_granted is null then
    perform gdpr_internal.refuse('invalid_argument', 'granted is true or false');
  elsif not p_granted then
    perform gdpr_internal.require_read_committed();
  elsif p_channel in ('phone', 'paper') and exists (
    select from unnest(array['who', 'when', 'how', 'reference']) as k where coalesce(btrim(p_evidence ->> k), '') = ''
  ) then
    perform gdpr_internal.refuse('evidence_missing');
  end if;
  if p_valid_until <= statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'valid_until has passed');
  end if;
  if p_form is not null then
    perform gdpr_internal.require_form(p_form, array[p_purpose]);
  end if;
  return gdpr_internal.add_consents(
    p_subject, v_purposes, array[case when p_granted then 'granted' else 'declined' end], p_channel, p_contact, p_form,
    p_evidence, p_valid_until
  );
end
$function$;
comment on function gdpr.record_consent(bigint, text, boolean, text, jsonb, timestamptz, text[], bigint) is
  'Records that a person granted or declined consent for a purpose: by which channel (email, portal, phone, paper, web_form, api, import, in_person); with which evidence (jsonb, kept encrypted; by phone and on paper {"who", "when", "how", "reference"} are required for a grant); until when (else as long as the purpose''s valid_for says); by which channels the person may be contacted (mail, phone, post, social; else those of the form); by which published text (number of gdpr.consent_form; else that of an open question). Returns its number. Errors: PR101, PR603, PR003, PR004, PR005, PR302, PR304 evidence is missing, PR305 not such a form, PR310 a child without a guardian. Art. 6(1)(a), 7(1).';

create or replace function gdpr.withdraw_consent(p_subject bigint, p_purpose text, p_channel text default 'portal', p_evidence jsonb default null)
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
  v_id := gdpr_internal.add_consents(
    p_subject, gdpr_internal.consent_purposes(array[p_purpose]), array['withdrawn'], p_channel, null, null, p_evidence, null
  );
  perform gdpr_internal.note_request(p_subject, 'withdrawal', jsonb_build_object('consent_id', v_id, 'purpose', p_purpose));
  return v_id;
end
$function$;
comment on function gdpr.withdraw_consent(bigint, text, text, jsonb) is
  'Withdraws a person''s consent for a purpose; in force in the next statement of every session once committed. Errors: PR101, PR603, PR003, PR004, PR005, PR302; PR607, PR608, PR609 for the request that the context names. Art. 7(3).';

-- 30_consent/50_contact.sql
-- [code] Whether a person may be contacted by a channel.
-- GDPR Art. 6(1)(a), Art. 7; ePrivacy Directive Art. 13. Called by: applications, before they write or ring.

set local role gdpr_owner;

create or replace function gdpr_internal.may_contact(p_subject bigint, p_channel text, p_purpose text, p_role name)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
begin
  perform gdpr_internal.require_home();
  perform gdpr_internal.known_channels(array[p_channel]);
  if gdpr_generated.purpose_held(p_role, p_purpose) is null
    and coalesce(gdpr_generated.purpose_held(p_role, null) < 62, true)
  then
    perform gdpr_internal.refuse('purpose_not_held', format('role %s', quote_ident(p_role)));
  end if;
  return gdpr_internal.still_allowed(p_subject, 1::bigint << v_purpose) and (
    exists (
      select from gdpr_internal.consent_state as c
      where c.subject_id = p_subject and c.purpose_id = v_purpose and c.status = 'granted' and p_channel = any (c.contact)
    )
    or exists (
      select from gdpr.basis as b
      where b.subject_id = p_subject and b.purpose = p_purpose and b.holds and b.basis <> 'undetermined'
    )
  );
end
$function$;
comment on function gdpr_internal.may_contact(bigint, text, text, name) is 'See gdpr.may_contact(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr.may_contact(p_subject bigint, p_channel text, p_purpose text)
returns boolean
language sql
stable
parallel restricted
security invoker
begin atomic
  select gdpr_internal.may_contact(p_subject, p_channel, p_purpose, current_user);
end;
comment on function gdpr.may_contact(bigint, text, text) is
  'Whether a person may be contacted by a channel (mail, phone, post, social) for a purpose at this very statement: the purpose is open for the person, and either rests on a basis other than consent, or on a consent that names the channel. False while an answer is waited for. For roles that hold the purpose, and for gdpr_dpo. Errors: PR003, PR004, 42501 the role does not hold the purpose. Art. 7.';

-- 30_consent/60_asking.sql
-- [code] Asking for consent: by e-mail, in the portal, by phone, on paper; one person or a hundred thousand.
-- GDPR Art. 7(1), 7(2), 12(1). Called by: gdpr_dpo, and roles to which the policy gives may = ["consent"].

set local role gdpr_owner;

create or replace function gdpr_internal.askable(p_subjects bigint[], p_purposes smallint[])
returns bigint[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
-- a plan outlives the statistics it was made with: see open_purposes()
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
as $function$
begin
  return (
    select coalesce(array_agg(s.id order by s.id), '{}')
    from gdpr_internal.subject as s
    where s.id = any (p_subjects)
      and s.erased_at is null
      and not exists (
        select from gdpr_internal.restriction_record as x
        where x.subject_id = s.id
          and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = x.id)
      )
      and not exists (
        select from gdpr_internal.standing_objection as o where o.subject_id = s.id and o.purpose_id = any (p_purposes)
      )
  );
end
$function$;
comment on function gdpr_internal.askable(bigint[], smallint[]) is
  'Of these persons, those that may be asked: not erased, not restricted, without an objection to one of the purposes.';

create or replace function gdpr_internal.respond_until(p_purposes smallint[], p_respond_within interval)
returns timestamptz
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_until timestamptz;
begin
  -- one link has one deadline: of several purposes, the shortest
  select gdpr_internal.after(coalesce(p_respond_within, min(p.respond_within))) into v_until
  from gdpr_internal.purpose as p
  where p.id = any (p_purposes);
  if v_until is null then
    perform gdpr_internal.refuse('invalid_argument', 'neither the call nor the policy says respond_within');
  elsif v_until <= statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'respond_within is a time to come');
  elsif exists (
    select from gdpr_internal.purpose as p
    where p.id = any (p_purposes) and p.while_waiting = 'allow' and v_until > gdpr_internal.after(p.respond_within)
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'data are unlocked while an answer is waited for: no longer than the policy says');
  end if;
  return v_until;
end
$function$;
comment on function gdpr_internal.respond_until(smallint[], interval) is
  'The deadline of a question that is asked now, in the time zone of the policy. Error: PR004 no deadline, or with while_waiting = allow one later than the policy''s.';

create or replace function gdpr_internal.queue_question(
  p_subjects bigint[], p_requests bigint[], p_tokens text[], p_emails text[], p_languages text[], p_forms bigint[],
  p_purposes smallint[], p_respond_until timestamptz, p_attach_form boolean
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
as $function$
declare
  v_controller jsonb := (select s.value from gdpr_internal.setting as s where s.name = 'controller');
  v_purposes text[];
  v_remind_at timestamptz;
  v_messages jsonb[];
begin
  select
    array_agg(coalesce(p.description, p.name) order by p.id),
    timezone(gdpr_internal.time_zone(), timezone(gdpr_internal.time_zone(), p_respond_until) - max(p.remind))
  into v_purposes, v_remind_at
  from gdpr_internal.purpose as p
  where p.id = any (p_purposes);
  select array_agg(
    jsonb_build_object(
      'to', u.email, 'token', u.token, 'purposes', v_purposes,
      'respond_by', to_char(timezone(gdpr_internal.time_zone(), p_respond_until), 'YYYY-MM-DD'),
      'title', f.title, 'statement', f.statement, 'privacy_notice', f.privacy_notice, 'channels', f.channels,
      'reference', u.request_id::text, 'attach_form', p_attach_form, 'controller', v_controller
    )
    order by u.n
  )
  into v_messages
  from unnest(p_emails, p_tokens, p_forms, p_requests) with ordinality as u (email, token, form_id, request_id, n)
  left join gdpr_internal.consent_form as f on f.id = u.form_id;
  insert into gdpr_internal.consent_mail (mail_id, request_id)
  select q.mail_id, q.request_id
  from unnest(
    gdpr_internal.queue_mails(p_subjects, 'consent_request', p_languages, v_messages, statement_timestamp(), p_respond_until), p_requests
  ) as q (mail_id, request_id);
  if v_remind_at > statement_timestamp() then
    insert into gdpr_internal.consent_mail (mail_id, request_id)
    select q.mail_id, q.request_id
    from unnest(
      gdpr_internal.queue_mails(p_subjects, 'consent_reminder', p_languages, v_messages, v_remind_at, p_respond_until), p_requests
    ) as q (mail_id, request_id);
  end if;
end
$function$;
comment on function gdpr_internal.queue_question(bigint[], bigint[], text[], text[], text[], bigint[], smallint[], timestamptz, boolean) is
  'Queues the mails that ask, and those that remind where a purpose of the policy says so: with a link or, p_attach_form, with the form to be filled in and no token. All arrays stand in the order of the persons.';

create or replace function gdpr.request_consents(
  p_subjects bigint[],
  p_purposes text[],
  p_channel text,
  p_form text default null,
  p_respond_within interval default null,
  p_attach_form boolean default false
)
returns table (subject_id bigint, request_id bigint, respond_until timestamptz, token text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
-- one plan for the session: asked one by one, planning took twice as long as asking
set plan_cache_mode = force_generic_plan
as $function$
declare
  v_purposes smallint[] := gdpr_internal.consent_purposes(p_purposes);
  v_until timestamptz := gdpr_internal.respond_until(v_purposes, p_respond_within);
  v_asks text[];
  v_subjects bigint[];
  v_emails text[];
  v_languages text[];
  v_forms bigint[];
  v_requests bigint[];
  v_tokens text[];
begin
  if p_channel is null or p_channel not in ('email', 'portal', 'phone', 'paper') then
    perform gdpr_internal.refuse('invalid_argument', 'channel is one of email, portal, phone, paper');
  elsif p_attach_form is null or p_attach_form and (p_channel <> 'email' or p_form is null) then
    perform gdpr_internal.refuse('invalid_argument', 'a form is attached to a mail that asks by a published form');
  end if;
  if p_form is not null then
    select f.purposes into v_asks
    from gdpr.consent_form as f
    where f.name = p_form and f.is_current and f.is_default;
    if v_asks is null then
      perform gdpr_internal.refuse('form_refused', 'there is no published form of this name');
    elsif not p_purposes <@ v_asks then
      perform gdpr_internal.refuse('form_refused', 'it does not ask for all of the purposes');
    end if;
  end if;
  -- an answer that is being recorded is waited for
  perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for no key update;
  v_subjects := gdpr_internal.askable(p_subjects, v_purposes);
  select
    array_agg(a.id order by a.id), array_agg(c.email order by a.id),
    array_agg(coalesce(f.language, substring(l.tags[2] from '^[a-z]{2,3}$')) order by a.id), array_agg(f.form_id order by a.id)
  into v_subjects, v_emails, v_languages, v_forms
  from unnest(v_subjects) as a (id)
  -- nobody looks at rows of the tables for what is asked on paper without a form
  left join gdpr_internal.contacts(case when p_channel = 'email' or p_form is not null then v_subjects end) as c on c.subject_id = a.id
  cross join lateral (select gdpr_internal.language_chain(coalesce(c.language, '')) as tags) as l
  left join lateral (
    select x.form_id, x.language
    from gdpr_internal.form_languages(p_form) as x
    where x.tag = any (l.tags)
    order by array_position(l.tags, x.tag)
    limit 1
  ) as f on true
  where p_channel <> 'email' or c.email is not null;
  if v_subjects is null then
    return;
  end if;
  with asked as (
    insert into gdpr_internal.consent_request (subject_id, purposes, channel, form_id, respond_until, actor)
    select u.subject_id, v_purposes, p_channel, u.form_id, v_until, gdpr_internal.context_setting('actor')
    from unnest(v_subjects, v_forms) with ordinality as u (subject_id, form_id, n)
    order by u.n
    returning id
  )
  select array_agg(a.id order by a.id) into v_requests from asked as a;
  perform gdpr_internal.close_questions(v_subjects);
  -- who holds a form in hand needs no link, and a form that is passed on opens nothing
  if p_channel in ('email', 'portal') and not p_attach_form then
    select array_agg(t.token order by t.reference) into v_tokens
    from gdpr_internal.create_tokens('consent', v_requests, v_subjects, array_fill(v_until, array[cardinality(v_subjects)])) as t;
  end if;
  if p_channel = 'email' then
    perform gdpr_internal.queue_question(v_subjects, v_requests, v_tokens, v_emails, v_languages, v_forms, v_purposes, v_until, p_attach_form);
    v_tokens := null;
  end if;
  -- asking changes what is allowed only where the policy allows while it waits
  if exists (select from gdpr_internal.purpose as p where p.id = any (v_purposes) and p.while_waiting = 'allow') then
    perform gdpr_internal.refresh_gate(v_subjects);
  end if;
  perform gdpr_internal.audit_event('ASK', u.subject_id, jsonb_build_object(
    'request_id', u.request_id, 'purposes', p_purposes, 'channel', p_channel, 'form_id', u.form_id
  ))
  from unnest(v_subjects, v_requests, v_forms) as u (subject_id, request_id, form_id);
  return query
  select u.subject_id, u.request_id, v_until, u.token
  from unnest(v_subjects, v_requests, v_tokens) as u (subject_id, request_id, token);
end
$function$;
comment on function gdpr.request_consents(bigint[], text[], text, text, interval, boolean) is
  'Asks persons for consent to purposes, once for all of them, by channel email (a mail with a link is queued), portal (the token is returned, for a link), phone or paper; by the published form p_form in each person''s language; to be answered within p_respond_within (else as the policy says; of several purposes, the shortest). p_attach_form: the mail has no link, and the form attached, to be filled in and sent back; it bears the number of the question, and staff record the answer with gdpr.record_consent(). Persons that cannot be asked are left out: unknown, erased, restricted, with an objection, by e-mail without an address. A question asked anew takes the place of the one before. Errors: PR003, PR004, PR302 not a purpose of consent, PR305 not such a form. Art. 7.';

create or replace function gdpr.request_consent(
  p_subject bigint,
  p_purposes text[],
  p_channel text,
  p_form text default null,
  p_respond_within interval default null,
  p_attach_form boolean default false,
  out request_id bigint,
  out respond_until timestamptz,
  out token text
)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  select r.request_id, r.respond_until, r.token into request_id, respond_until, token
  from gdpr.request_consents(array[p_subject], p_purposes, p_channel, p_form, p_respond_within, p_attach_form) as r;
  if request_id is null then
    perform gdpr_internal.require_subject(p_subject);
    perform gdpr_internal.refuse(case
      when gdpr_internal.askable(array[p_subject], gdpr_internal.consent_purposes(p_purposes)) <> '{}' then 'no_address'
      when gdpr_internal.askable(array[p_subject], '{}') <> '{}' then 'objected'
      else 'restricted'
    end);
  end if;
end
$function$;
comment on function gdpr.request_consent(bigint, text[], text, text, interval, boolean) is
  'Asks one person for consent, as request_consents() does; returns the number of the question, its deadline and, for the portal, the token. Errors: PR101, PR603, PR601 restricted, PR602 objected, PR306 no e-mail address, PR003, PR004, PR302, PR305. Art. 7.';

-- 30_consent/70_portal.sql
-- [code] What the bearer of a token may do: read what was asked, answer it once, take consent back whenever.
-- GDPR Art. 7(3): as easy to withdraw as to give. Called by: gdpr_portal, which can do nothing else with a token; the person
-- comes from the token, never from the caller.

set local role gdpr_owner;

create or replace function gdpr.portal_form(p_token text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_request gdpr_internal.consent_request;
  v_token gdpr_internal.token;
begin
  v_token := gdpr_internal.know_token(p_token, 'consent');
  select q.* into v_request from gdpr_internal.consent_request as q where q.id = v_token.reference;
  return (
    select jsonb_build_object(
      'answerable', v_token.used_at is null,
      'respond_until', v_request.respond_until,
      'language', f.language, 'title', f.title, 'statement', f.statement, 'privacy_notice', f.privacy_notice, 'channels', f.channels,
      'purposes', (
        select jsonb_agg(jsonb_build_object(
          'name', c.purpose, 'description', p.description, 'status', c.status, 'channels', c.contact,
          'answerable', v_token.used_at is null and c.purpose_id = any (gdpr_internal.open_purposes(v_request))
        ) order by c.purpose_id)
        from gdpr_internal.consent_state as c
        join gdpr_internal.purpose as p on p.id = c.purpose_id
        where c.subject_id = v_request.subject_id and c.purpose_id = any (v_request.purposes)
      )
    )
    from (values (v_request.form_id)) as r (form_id)
    left join gdpr_internal.consent_form as f on f.id = r.form_id
  );
end
$function$;
comment on function gdpr.portal_form(text) is
  'What the bearer of a token was asked, to be shown: title and statement in the person''s language, privacy_notice, channels, respond_until, and purposes with name, description, status and whether they can still be answered. Nothing that identifies anybody. Error: PR303 the token is not valid. Art. 7(2).';

create or replace function gdpr_internal.check_portal_evidence(p_evidence jsonb)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if pg_column_size(p_evidence) > 16384 then
    perform gdpr_internal.refuse('invalid_argument', 'evidence has 16 kB at the most');
  end if;
end
$function$;
comment on function gdpr_internal.check_portal_evidence(jsonb) is
  'What a visitor of the portal may have kept for good, as evidence is. Error: PR004 more than 16 kB.';

create or replace function gdpr.answer_consent(
  p_token text, p_granted text[], p_channels text[] default null, p_evidence jsonb default null
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_token gdpr_internal.token;
  v_request gdpr_internal.consent_request;
  v_open smallint[];
  v_granted smallint[] := '{}';
  v_asked text[];
begin
  perform gdpr_internal.require_read_committed();
  v_token := gdpr_internal.take_token(p_token, 'consent');
  perform gdpr_internal.check_portal_evidence(p_evidence);
  select q.* into v_request from gdpr_internal.consent_request as q where q.id = v_token.reference;
  v_open := gdpr_internal.open_purposes(v_request);
  if v_open = '{}' then
    perform gdpr_internal.refuse('token_refused');
  end if;
  if p_granted <> '{}' then
    v_granted := gdpr_internal.consent_purposes(p_granted);
  end if;
  if p_granted is null or not v_granted <@ v_open then
    perform gdpr_internal.refuse('invalid_argument', 'granted: purposes that were asked and are open; an empty list declines all');
  end if;
  select f.channels into v_asked from gdpr_internal.consent_form as f where f.id = v_request.form_id;
  if not p_channels <@ v_asked then
    perform gdpr_internal.refuse('invalid_argument', 'channels: those that the form asks for');
  end if;
  perform gdpr_internal.add_consents(
    v_request.subject_id, v_open, (select array_agg(case when u = any (v_granted) then 'granted' else 'declined' end) from unnest(v_open) as u),
    v_request.channel, p_channels, null, p_evidence, null
  );
  return (
    select jsonb_object_agg(c.purpose, c.status) from gdpr_internal.consent_state as c
    where c.subject_id = v_request.subject_id and c.purpose_id = any (v_open)
  );
end
$function$;
comment on function gdpr.answer_consent(text, text[], text[], jsonb) is
  'Answers a question by its token, once, before its deadline: p_granted are granted, the other purposes that were asked are declined. p_channels: of those that the form asks for, the channels of contact that the person allows (null: all of them). p_evidence: how the answer was given (kept encrypted, 16 kB at the most). Returns the status of each purpose. Errors: PR303 the token is not valid, PR004 a purpose or channel that was not asked, PR310 a child without a guardian, PR005. Art. 7, 8.';

create or replace function gdpr.portal_withdraw(p_token text, p_purposes text[] default null)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_token gdpr_internal.token;
  v_request gdpr_internal.consent_request;
  v_purposes smallint[];
begin
  perform gdpr_internal.require_read_committed();
  v_token := gdpr_internal.know_token(p_token, 'consent');
  select q.* into v_request from gdpr_internal.consent_request as q where q.id = v_token.reference;
  if p_purposes is not null and not gdpr_internal.consent_purposes(p_purposes) <@ v_request.purposes then
    perform gdpr_internal.refuse('invalid_argument', 'purposes: those that were asked');
  end if;
  -- what is not granted, nor allowed while an answer is waited for, is withdrawn already
  select array_agg(c.purpose_id) into v_purposes
  from gdpr_internal.consent_state as c
  where c.subject_id = v_request.subject_id and c.purpose_id = any (v_request.purposes)
    and (p_purposes is null or c.purpose = any (p_purposes))
    and c.status in ('granted', 'waiting');
  if v_purposes is not null then
    perform gdpr_internal.add_consents(
      v_request.subject_id, v_purposes, array_fill('withdrawn'::text, array[cardinality(v_purposes)]), v_request.channel, null, null, null, null
    );
  end if;
  return (
    select jsonb_object_agg(c.purpose, c.status) from gdpr_internal.consent_state as c
    where c.subject_id = v_request.subject_id and c.purpose_id = any (v_request.purposes)
  );
end
$function$;
comment on function gdpr.portal_withdraw(text, text[]) is
  'Withdraws consent by the token with which it was given, or asked for: for p_purposes, or all that were asked; as often and as long after as the person likes; in force in the next statement of every session. Returns the status of each purpose. Errors: PR303 the token is not valid, PR004 a purpose that was not asked, PR005. Art. 7(3).';

-- 30_consent/80_receipts.sql
-- [code] Consent receipts: what a person agreed to, as a document for the person and for other systems.
-- GDPR Art. 7(1), 13, 15. The structure is that of ISO/IEC TS 27560 (record, processing, parties, events), its terms are those
-- of the W3C Data Privacy Vocabulary; docs/consent-receipt.schema.json describes it. Called by: gdpr_dpo, may = ["consent"].

set local role gdpr_owner;

create or replace function gdpr_internal.receipt_processing(p_purpose smallint, p_form bigint)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'iso_8601'
begin atomic
  select jsonb_strip_nulls(jsonb_build_object(
    'purposes', jsonb_build_array(jsonb_build_object(
      'purpose_id', p.name, 'purpose', coalesce(p.description, p.name), 'purpose_type', 'dpv:Purpose'
    )),
    'lawful_basis', 'eu-gdpr:A6-1-a',
    'privacy_notice', f.privacy_notice,
    'language', f.language,
    'notice', case when f.id is not null then jsonb_build_object(
      'form', f.name, 'version', f.version, 'title', f.title, 'statement', f.statement, 'sha256', encode(f.digest, 'hex')
    ) end,
    'pii_information', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'pii_attribute_id', t.relation::text || '.' || c.column_name, 'pii_type', c.category, 'sensitive_pii_category', c.sensitive
      ) order by t.relation::text, c.position), '[]')
      from gdpr_internal.protected_column as c
      join gdpr_internal.protected_table as t on t.id = c.table_id
      where t.unprotected_at is null and t.purpose_mask & (1::bigint << p.id) <> 0 and c.category <> 'key'
    ),
    'pii_controllers', jsonb_build_array('controller'),
    'retention_period', coalesce(p.retain, p.valid_for)::text,
    'withdrawal_method', 'dpv:WithdrawConsent',
    'privacy_rights', jsonb_build_array(
      'eu-gdpr:A7-3', 'eu-gdpr:A13', 'eu-gdpr:A15', 'eu-gdpr:A16', 'eu-gdpr:A17', 'eu-gdpr:A18', 'eu-gdpr:A20', 'eu-gdpr:A77'
    )
  ))
  from gdpr_internal.purpose as p
  left join gdpr_internal.consent_form as f on f.id = p_form
  where p.id = p_purpose;
end;
comment on function gdpr_internal.receipt_processing(smallint, bigint) is
  'The processing that a consent is about: purpose, the text agreed to, classes of data in the tables of the purpose, rights.';

create or replace function gdpr_internal.receipt_events(p_subject bigint, p_purpose smallint)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
    'event_time', to_char(timezone('UTC', e.at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'event_type', case when e.event = 'granted' then 'dpv:ExpressedConsent' end,
    'event_state', case e.event
      when 'asked' then 'dpv:ConsentRequested' when 'granted' then 'dpv:ConsentGiven'
      when 'declined' then 'dpv:ConsentRefused' else 'dpv:ConsentWithdrawn'
    end,
    'collection_method', e.channel,
    'contact_channels', e.contact,
    'valid_until', case when isfinite(e.until) then to_char(timezone('UTC', e.until), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end,
    'entity_id', case when e.event = 'asked' then 'controller' else 'pii_principal' end
  )) order by e.id), '[]')
  from (
    select q.id, q.recorded_at as at, 'asked' as event, q.channel, null::text[] as contact, q.respond_until as until
    from gdpr_internal.consent_request as q
    where q.subject_id = p_subject and p_purpose = any (q.purposes)
    union all
    select r.id, r.recorded_at, r.event, r.channel, r.contact, case when r.event = 'granted' then r.valid_until end
    from gdpr_internal.consent_record as r
    where r.subject_id = p_subject and r.purpose_id = p_purpose
  ) as e;
end;
comment on function gdpr_internal.receipt_events(bigint, smallint) is 'Questions and answers in order, as events of a receipt; evidence stays out.';

create or replace function gdpr.consent_receipt(p_subject bigint, p_purpose text)
returns jsonb
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_state gdpr_internal.consent_state;
  v_controller jsonb;
begin
  perform gdpr_internal.require_subject(p_subject);
  select c.* into v_state
  from gdpr_internal.consent_state as c
  where c.subject_id = p_subject and c.purpose_id = gdpr_internal.purpose_id(p_purpose);
  if v_state.record_id is null then
    perform gdpr_internal.refuse('consent_missing', 'the person has not answered');
  end if;
  select s.value into v_controller from gdpr_internal.setting as s where s.name = 'controller';
  return jsonb_build_object(
    'schema_version', 'ISO/IEC TS 27560:2023',
    'record_id', v_state.record_id::text,
    'receipt_created', to_char(timezone('UTC', statement_timestamp()), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'pii_principal_id', (select s.ref from gdpr_internal.subject as s where s.id = p_subject),
    'status', v_state.status,
    'pii_processing', jsonb_build_array(gdpr_internal.receipt_processing(v_state.purpose_id, v_state.form_id)),
    'party_identification', jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
      'party_id', 'controller', 'party_role', 'dpv:DataController', 'party_name', coalesce(v_controller ->> 'name', ''),
      'party_address', v_controller -> 'address', 'party_country', v_controller -> 'country',
      'party_email', v_controller -> 'email', 'party_url', v_controller -> 'url'
    ))),
    'events', gdpr_internal.receipt_events(p_subject, v_state.purpose_id)
  );
end
$function$;
comment on function gdpr.consent_receipt(bigint, text) is
  'The receipt of a person''s answer for a purpose: jsonb in the structure of ISO/IEC TS 27560 with terms of the W3C Data Privacy Vocabulary (docs/consent-receipt.schema.json): what was asked in which words, who answered when and by which channel, how it stands. The person is a pseudonym. The controller is named by settings.controller of the policy. Errors: PR101, PR603, PR003, PR301 no answer yet. Art. 7(1).';

-- 40_protection/20_crypto.sql
-- [code] Values and keys: the format gdpr1:, wrapping, the unlocked key of a session.
-- GDPR Art. 32(1)(a). AES-256-CBC with a random IV, then HMAC-SHA-256 over everything before it (encrypt-then-MAC).
-- Format and test vectors: docs/format.md. The functions here take keys as arguments; which keys, says 30_keys.sql.
-- They pin debug_print_plan: with it the caller would be shown the plans of nested statements.

set local role gdpr_keyholder;

create or replace function gdpr_internal.value_header(p_subject bigint, p_column integer)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select '\x0100000001'::bytea || int8send(p_subject) || int4send(p_column);
end;
comment on function gdpr_internal.value_header(bigint, integer) is
  'The 17 bytes before every ciphertext: version 1, key version 1 (4 bytes), subject (8), column id (4), big-endian.';

create or replace function gdpr_internal.seal_value(p_key bytea, p_iv bytea, p_subject bigint, p_column integer, p_value text)
returns text
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_body bytea := gdpr_internal.value_header(p_subject, p_column) || p_iv
    || gdpr_internal.encrypt_iv(convert_to(p_value, 'UTF8'), substr(p_key, 1, 32), p_iv, 'aes-cbc/pad:pkcs');
begin
  return 'gdpr1:' || replace(encode(v_body || gdpr_internal.hmac(v_body, substr(p_key, 33), 'sha256'), 'base64'), E'\n', '');
end
$function$;
comment on function gdpr_internal.seal_value(bytea, bytea, bigint, integer, text) is
  'Encrypts a value: p_key 64 bytes (AES-256, HMAC), p_iv 16 random bytes. Returns gdpr1: and base64 of header, IV, ciphertext, MAC.';

create or replace function gdpr_internal.open_value(p_key bytea, p_subject bigint, p_column integer, p_value text)
returns text
language plpgsql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_raw bytea;
  v_length integer;
begin
  if p_value is null or not starts_with(p_value, 'gdpr1:') then
    return p_value;
  elsif p_key is null then
    -- a restore without the key tables: no value at all would look like one that was never given
    perform gdpr_internal.refuse('data_key_missing', format('column id %s', p_column));
  end if;
  if octet_length(p_value) % 4 <> 2 or p_value !~ '^gdpr1:[A-Za-z0-9+/]+={0,2}$' then
    perform gdpr_internal.refuse('tampered', format('column id %s', p_column));
  end if;
  v_raw := decode(substr(p_value, 7), 'base64');
  v_length := length(v_raw);
  if substr(v_raw, 6, 12) is distinct from int8send(p_subject) || int4send(p_column)
    or substr(v_raw, v_length - 31) is distinct from
      gdpr_internal.hmac(substr(v_raw, 1, v_length - 32), substr(p_key, 33), 'sha256')
  then
    perform gdpr_internal.refuse('tampered', format('column id %s', p_column));
  end if;
  return convert_from(
    gdpr_internal.decrypt_iv(substr(v_raw, 34, v_length - 65), substr(p_key, 1, 32), substr(v_raw, 18, 16), 'aes-cbc/pad:pkcs'),
    'UTF8'
  );
end
$function$;
comment on function gdpr_internal.open_value(bytea, bigint, integer, text) is
  'Checks and decrypts a value that belongs to this subject and column; plaintext (a row not yet encrypted) is returned as it is. Errors: PR404 altered or moved value, PR410 the person''s key is gone.';

create or replace function gdpr_internal.value_subject(p_value text)
returns bigint
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select ('x' || encode(substr(decode(substr(p_value, 7), 'base64'), 6, 8), 'hex'))::bit(64)::bigint;
end;
comment on function gdpr_internal.value_subject(text) is 'The subject in a ciphertext''s header.';

create or replace function gdpr_internal.value_column(p_value text)
returns integer
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select ('x' || encode(substr(decode(substr(p_value, 7), 'base64'), 14, 4), 'hex'))::bit(32)::integer;
end;
comment on function gdpr_internal.value_column(text) is 'The column id in a ciphertext''s header (0: evidence and audit payloads).';

create or replace function gdpr_internal.wrap_key(p_kek bytea, p_iv bytea, p_context bytea, p_key bytea)
returns bytea
language plpgsql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_body bytea := p_iv || gdpr_internal.encrypt_iv(p_key, substr(p_kek, 1, 32), p_iv, 'aes-cbc/pad:none');
begin
  return v_body || gdpr_internal.hmac(p_context || v_body, substr(p_kek, 33), 'sha256');
end
$function$;
comment on function gdpr_internal.wrap_key(bytea, bytea, bytea, bytea) is
  'Wraps a key (a multiple of 16 bytes) under a key-encryption key of 64 bytes: IV, ciphertext, HMAC over context, IV and ciphertext.';

create or replace function gdpr_internal.unwrap_key(p_kek bytea, p_context bytea, p_wrapped bytea)
returns bytea
language sql
-- not strict, and stable as refuse() is: the planner puts it into the expression that calls it
stable
parallel safe
security invoker
begin atomic
  select case
    when substr(p_wrapped, length(p_wrapped) - 31)
      = gdpr_internal.hmac(p_context || substr(p_wrapped, 1, length(p_wrapped) - 32), substr(p_kek, 33), 'sha256')
      then gdpr_internal.decrypt_iv(
        substr(p_wrapped, 17, length(p_wrapped) - 48), substr(p_kek, 1, 32), substr(p_wrapped, 1, 16), 'aes-cbc/pad:none'
      )
    when p_wrapped is null or p_kek is null then null
    else case when gdpr_internal.refuse('tampered', 'wrapped key') then null::bytea end
  end;
end;
comment on function gdpr_internal.unwrap_key(bytea, bytea, bytea) is
  'Checks and unwraps a key. Error: PR404. Writers use it: a damaged key must never encrypt; readers need no check, the MAC of each value covers the key.';

create or replace function gdpr_internal.derive_key(p_key text)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select
    gdpr_internal.hmac('gdprdb/1/encrypt'::bytea, convert_to(p_key, 'UTF8'), 'sha256')
    || gdpr_internal.hmac('gdprdb/1/authenticate'::bytea, convert_to(p_key, 'UTF8'), 'sha256');
end;
comment on function gdpr_internal.derive_key(text) is
  'The 64 bytes of key-encryption key behind the text that gdpr.create_key() returned: two HMAC-SHA-256 with separate labels.';

create or replace function gdpr_internal.ticket_context()
returns bytea
language sql
stable
parallel restricted
security invoker
begin atomic
  select convert_to(
    format('%s/%s/%s', pg_backend_pid(), extract(epoch from pg_postmaster_start_time()), session_user), 'UTF8'
  );
end;
comment on function gdpr_internal.ticket_context() is 'Binds an unlocked key to this session of this server: its ticket opens nothing elsewhere.';

create or replace function gdpr_internal.open_ticket(p_ticket_key bytea)
returns bytea
language sql
stable
parallel restricted
security invoker
begin atomic
  select case
    when substr(t.ticket, 81) = gdpr_internal.hmac(
      gdpr_internal.ticket_context() || substr(t.ticket, 1, 80), substr(p_ticket_key, 33), 'sha256'
    ) then gdpr_internal.decrypt_iv(substr(t.ticket, 17, 64), substr(p_ticket_key, 1, 32), substr(t.ticket, 1, 16), 'aes-cbc/pad:none')
  end
  from (
    select case
      when length(current_setting('gdpr.unlocked', true)) = 152 and current_setting('gdpr.unlocked', true) ~ '^[A-Za-z0-9+/]+={0,2}$' then decode(current_setting('gdpr.unlocked', true), 'base64')
    end as ticket
  ) as t;
end;
comment on function gdpr_internal.open_ticket(bytea) is
  'The key-encryption key that gdpr.unlock() left in this session, sealed by the ticket key; null when there is none, or it is another session''s.';

create or replace function gdpr_internal.keyring()
returns gdpr_internal.keyring
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
  v_ticket_key bytea;
begin
  select k.id, k.material, k.digest_key, k.ticket_key into v_keys.kek_id, v_keys.kek, v_keys.digest_key, v_ticket_key
  from gdpr_internal.key_encryption_key as k
  where k.retired_at is null;
  if v_keys.kek is null then
    v_keys.kek := gdpr_internal.open_ticket(v_ticket_key);
  end if;
  if v_keys.kek_id is null then
    perform gdpr_internal.refuse('key_missing');
  elsif v_keys.kek is null then
    perform gdpr_internal.refuse('key_locked');
  end if;
  -- unchecked: doctor() checks its MAC, and this runs for every row
  v_keys.digest_key := gdpr_internal.decrypt_iv(
    substr(v_keys.digest_key, 17, 32), substr(v_keys.kek, 1, 32), substr(v_keys.digest_key, 1, 16), 'aes-cbc/pad:none'
  );
  return v_keys;
end
$function$;
comment on function gdpr_internal.keyring() is 'The keys of this statement, for functions of gdpr_keyholder. Errors: PR401 no key yet, PR402 locked.';

create or replace function gdpr_internal.data_key(p_keys gdpr_internal.keyring, p_subject bigint)
returns bytea
language plpgsql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_wrapped bytea;
begin
  select k.wrapped into v_wrapped from gdpr_internal.subject_key as k where k.subject_id = p_subject;
  if v_wrapped is null then
    return null;
  end if;
  return gdpr_internal.unwrap_key(p_keys.kek, int8send(p_subject), v_wrapped);
end
$function$;
comment on function gdpr_internal.data_key(gdpr_internal.keyring, bigint) is 'A person''s data key, checked; null when it was destroyed.';

create or replace function gdpr_internal.seal_evidence(p_subject bigint, p_value text)
returns text
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if p_value is null then
    return null;
  end if;
  v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  return gdpr_internal.seal_value(v_key, gdpr_internal.gen_random_bytes(16), p_subject, 0, p_value);
end
$function$;
comment on function gdpr_internal.seal_evidence(bigint, text) is
  'Encrypts a detail of evidence (source, consent) under the person''s key: erasure takes it along. Null if the key is gone.';

create or replace function gdpr_internal.open_payload(p_key bytea, p_subject bigint, p_value text)
returns jsonb
language plpgsql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_changes jsonb;
  v_column text;
  v_value text;
begin
  v_changes := gdpr_internal.open_value(p_key, p_subject, 0, p_value)::jsonb;
  for v_column, v_value in select key, value #>> '{}' from jsonb_each(v_changes) where jsonb_typeof(value) = 'string' loop
    if starts_with(v_value, 'gdpr1:') then
      v_changes := v_changes || jsonb_build_object(
        v_column, gdpr_internal.open_value(p_key, p_subject, gdpr_internal.value_column(v_value), v_value)
      );
    end if;
  end loop;
  return v_changes;
end
$function$;
comment on function gdpr_internal.open_payload(bytea, bigint, text) is
  'The old values in the payload of an audit record, encrypted columns opened too.';

create or replace function gdpr_internal.open_changes(p_subject bigint, p_value text)
returns jsonb
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if p_value is null then
    return null;
  end if;
  v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  return case when v_key is not null then gdpr_internal.open_payload(v_key, p_subject, p_value) end;
end
$function$;
comment on function gdpr_internal.open_changes(bigint, text) is
  'Decrypts the old values of an audit record, encrypted columns too; null when the person''s key was destroyed. Only views that ask for gdpr_dpo call it.';

create or replace function gdpr_internal.open_evidence(p_subject bigint, p_value text)
returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if p_value is null then
    return null;
  end if;
  v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  return case when v_key is not null then gdpr_internal.open_value(v_key, p_subject, 0, p_value) end;
end
$function$;
comment on function gdpr_internal.open_evidence(bigint, text) is
  'Decrypts a detail of evidence; null when the person''s key was destroyed. Only views that ask for gdpr_dpo call it.';

-- 40_protection/30_keys.sql
-- [code] Making, giving and showing keys, and reading single values.
-- GDPR Art. 32(1)(a). Called by: DBAs (create_key), applications (unlock, reveal, digest), gdprdb keys.

set local role gdpr_keyholder;

create or replace function gdpr.create_key(p_provider text default 'table')
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key text := encode(gdpr_internal.gen_random_bytes(32), 'hex');
  v_kek bytea := gdpr_internal.derive_key(v_key);
  v_stored bytea;
begin
  if p_provider is null or p_provider not in ('table', 'session') then
    perform gdpr_internal.refuse('invalid_argument', 'provider is table or session');
  end if;
  -- one key; a second caller waits here and is refused
  lock table gdpr_internal.key_encryption_key in share row exclusive mode;
  if exists (select from gdpr_internal.key_encryption_key) then
    perform gdpr_internal.refuse('invalid_argument', 'there is a key already');
  elsif exists (select from gdpr_internal.subject) then
    perform gdpr_internal.refuse('invalid_argument', 'there are persons whose key is lost: restore the key tables from their backup');
  end if;
  if p_provider = 'table' then
    v_stored := v_kek;
  end if;
  insert into gdpr_internal.key_encryption_key (provider, material, check_value, digest_key, audit_key, ticket_key)
  values (
    p_provider,
    v_stored,
    gdpr_internal.hmac('gdprdb/1/check'::bytea, v_kek, 'sha256'),
    gdpr_internal.wrap_key(v_kek, gdpr_internal.gen_random_bytes(16), 'digest'::bytea, gdpr_internal.gen_random_bytes(32)),
    gdpr_internal.gen_random_bytes(32),
    gdpr_internal.gen_random_bytes(64)
  );
  perform gdpr_internal.audit_event('KEY', null, jsonb_build_object('created', p_provider));
  return case p_provider when 'session' then v_key end;
end
$function$;
comment on function gdpr.create_key(text) is
  'Creates the key-encryption key. provider table: kept in the database, for development. provider session: returned once (64 hexadecimal digits) and never stored; each session gives it with gdpr.unlock(). Errors: PR004 there is a key already, or persons whose key has to be restored. Art. 32(1)(a).';

create or replace function gdpr.unlock(p_key text)
returns void
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea := gdpr_internal.derive_key(p_key);
  v_check bytea;
  v_secret bytea;
begin
  select k.check_value, k.ticket_key into v_check, v_secret
  from gdpr_internal.key_encryption_key as k
  where k.retired_at is null;
  if v_check is null then
    perform gdpr_internal.refuse('key_missing');
  elsif v_kek is null or v_check <> gdpr_internal.hmac('gdprdb/1/check'::bytea, v_kek, 'sha256') then
    perform gdpr_internal.refuse('key_wrong');
  end if;
  -- the setting is readable by all code of the session: what stands in it opens only with the secret
  perform set_config(
    'gdpr.unlocked',
    translate(
      encode(gdpr_internal.wrap_key(v_secret, gdpr_internal.gen_random_bytes(16), gdpr_internal.ticket_context(), v_kek), 'base64'), E'\n', ''
    ),
    false
  );
end
$function$;
comment on function gdpr.unlock(text) is
  'Gives the key to this session (provider session). Send it as a bind parameter, never in the statement''s text. RESET gdpr.unlocked locks again. Errors: PR403 wrong key, PR401 no key yet. Art. 32(1)(a).';

create or replace view gdpr.key_status as
select
  k.id,
  k.provider,
  k.created_at,
  k.provider = 'table' or gdpr_internal.open_ticket(k.ticket_key) is not null as unlocked,
  (select count(*) from gdpr_internal.subject_key as s where s.kek_id = k.id) as data_keys
from gdpr_internal.key_encryption_key as k;
comment on view gdpr.key_status is 'The key-encryption key: provider, age, whether it is unlocked in this session, how many data keys it wraps. No key material.';

create or replace function gdpr_internal.reveal(p_value text, p_role name, p_claim text)
returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint;
  v_mask bigint;
begin
  if p_value is null or not starts_with(p_value, 'gdpr1:') then
    return p_value;
  end if;
  begin
    v_subject := gdpr_internal.value_subject(p_value);
  exception when others then
    v_subject := null;
  end;
  if v_subject is null then
    perform gdpr_internal.refuse('tampered');
  end if;
  perform gdpr_policy.refuse_base(p_role);
  v_mask := gdpr_policy.purpose_mask(p_role, p_claim);
  if exists (select from gdpr_internal.subject as s where s.id = v_subject and s.erased_at is not null) then
    return null;
  end if;
  if v_mask <> 1::bigint << 62 then
    -- the table's purposes count too; evidence (column 0) is for compliance alone
    select t.purpose_mask & v_mask into v_mask
    from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    where c.id = gdpr_internal.value_column(p_value);
  end if;
  if not gdpr_internal.still_allowed(v_subject, coalesce(v_mask, 0)) or (
    exists (
      select from gdpr_internal.protected_column as c where c.id = gdpr_internal.value_column(p_value) and c.special is not null
    )
    and not gdpr_policy.special_allowed(v_subject, p_role, p_claim)
  ) then
    perform gdpr_internal.refuse('not_revealed');
  end if;
  return gdpr_internal.open_value(
    gdpr_internal.data_key(gdpr_internal.keyring(), v_subject), v_subject, gdpr_internal.value_column(p_value), p_value
  );
end
$function$;
comment on function gdpr_internal.reveal(text, name, text) is 'See gdpr.reveal(text); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr.reveal(p_value text)
returns text
language sql
stable
parallel restricted
security invoker
begin atomic
  select gdpr_internal.reveal(p_value, current_user, current_setting('gdpr.purpose', true));
end;
comment on function gdpr.reveal(text) is
  'Decrypts one value of the base table, for roles of audience clear, while the person may be processed for the role''s purpose; null when the person was erased. Errors: 42501 not allowed, PR404 altered value, PR402 locked, PR410 the person''s key is gone. Art. 32.';

create or replace function gdpr_internal.keyed_digest(p_key bytea, p_kind text, p_canonical text)
returns uuid
language sql
-- stable, as convert_to() is: declared immutable it would not be inlined
stable
parallel safe
security invoker
begin atomic
  select encode(substr(gdpr_internal.hmac(convert_to(p_kind || ':' || p_canonical, 'UTF8'), p_key, 'sha256'), 1, 16), 'hex')::uuid;
end;
comment on function gdpr_internal.keyed_digest(bytea, text, text) is 'The first 128 bits of HMAC-SHA-256 over kind and canonical form.';

create or replace function gdpr.digest(p_kind text, p_value text)
returns uuid
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
begin
  v_keys := gdpr_internal.keyring();
  return gdpr_internal.keyed_digest(v_keys.digest_key, p_kind, gdpr_internal.canonical(p_kind, p_value));
end
$function$;
comment on function gdpr.digest(text, text) is
  'The keyed digest of an identifier (kind: email, phone, text, exact) for look-ups: where email_digest = gdpr.digest(''email'', $1). Null for a value without content. Art. 32.';

create or replace function gdpr_internal.has_key()
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (select from gdpr_internal.key_encryption_key);
end;
comment on function gdpr_internal.has_key() is 'Whether gdpr.create_key() was called.';

create or replace function gdpr_policy.decrypt_for_unprotect(p_subject bigint, p_column integer, p_value text)
returns text
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if not exists (
    select from gdpr_internal.protected_table as t
    join gdpr_internal.protected_column as c on c.table_id = t.id
    where c.id = p_column and t.unprotecting_xid = pg_current_xact_id_if_assigned()
  ) then
    perform gdpr_internal.refuse('not_revealed');
  end if;
  if p_value is null or not starts_with(p_value, 'gdpr1:') then
    return p_value;
  end if;
  return gdpr_internal.open_value(gdpr_internal.data_key(gdpr_internal.keyring(), p_subject), p_subject, p_column, p_value);
end
$function$;
comment on function gdpr_policy.decrypt_for_unprotect(bigint, integer, text) is
  'Step of unprotect(): decrypts a stored value, only in the transaction that takes the protection off, on record. Error: 42501 outside of one.';

-- 40_protection/38_standing.sql
-- [code] Which objections close a purpose, and which exceptions open one to a restricted person: the one place that says so.
-- GDPR Art. 18(2), Art. 21. Read by: the gate, asking for consent, gdpr.would_lock.

set local role gdpr_owner;

create or replace view gdpr_internal.standing_objection as
select o.id, o.subject_id, o.purpose_id, o.pending, o.request_id, o.recorded_at
from gdpr_internal.objection_record as o
where not exists (
  select from gdpr_internal.objection_decision as d where d.objection_id = o.id and d.decision in ('overridden', 'taken_back')
);
comment on view gdpr_internal.standing_objection is
  'Objections that close their purpose: all but those that were overridden or taken back. One for each person and purpose.';

create or replace view gdpr_internal.standing_exception as
select x.id, x.subject_id, x.purpose_id, x.ground, x.valid_until
from gdpr_internal.restriction_exception as x
where x.valid_until > statement_timestamp()
  and not exists (select from gdpr_internal.restriction_exception_end as e where e.exception_id = x.id);
comment on view gdpr_internal.standing_exception is
  'Exceptions from restrictions that have not ended, before their time or with it.';

-- 40_protection/40_gate.sql
-- [code] The gate: which purposes a person may be processed for, exact at the statement's time, and its copy in every row.
-- GDPR Art. 5(1)(a), 5(1)(b), 6, 7(3), 18, 21. Truth: the evidence tables. The subject row and the protected rows hold copies
-- that say "maybe" and until when; past that instant the evidence itself is asked.

set local role gdpr_owner;

create or replace function gdpr_internal.gate(p_subjects bigint[])
returns table (subject_id bigint, allowed bigint, possible bigint, until timestamptz)
language plpgsql
stable
parallel restricted
security definer
rows 1
set search_path = pg_catalog, pg_temp
-- one plan for the session: planning took ten times as long as reading the evidence of one person
set plan_cache_mode = force_generic_plan
-- and one that fits when the tables have grown since
set enable_seqscan = off
-- a plan that counts as dear would be compiled, at a hundred times the cost of running it
set jit = off
as $function$
#variable_conflict use_column
begin
  return query
  select
    s.id,
    -- what is kept of the erased stands in the row, until it ends
    case when s.erased_at is not null then 0 else coalesce(p.allowed, 0) & o.mask & r.mask | (1::bigint << 62) end,
    case when s.erased_at is not null then 0 else coalesce(p.possible, 0) & o.mask & r.mask end | (1::bigint << 62),
    case
      when s.erased_at is not null or r.mask = 0 then 'infinity'
      when p.allowed & o.mask & r.mask <> p.possible & o.mask & r.mask then '-infinity'
      else coalesce(least(p.until, r.until), 'infinity')
    end
  from gdpr_internal.subject as s
  cross join lateral (
    -- exceptions are looked for only where there is something to be excepted from
    select case when x.restricted then coalesce(e.mask, 0) else -1 end as mask, e.until
    from (
      select exists (
        select from gdpr_internal.restriction_record as x
        where x.subject_id = s.id
          and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = x.id)
      ) as restricted
    ) as x
    left join lateral (
      select bit_or(1::bigint << y.purpose_id) as mask, min(y.valid_until) as until
      from gdpr_internal.standing_exception as y
      where x.restricted and y.subject_id = s.id
    ) as e on true
  ) as r
  cross join lateral (
    select ~coalesce(bit_or(1::bigint << x.purpose_id), 0) as mask from gdpr_internal.standing_objection as x where x.subject_id = s.id
  ) as o
  cross join lateral (
    select
      bit_or(1::bigint << x.purpose_id) as possible,
      coalesce(bit_or(1::bigint << x.purpose_id) filter (where x.valid_from <= statement_timestamp()), 0) as allowed,
      min(case when x.valid_from > statement_timestamp() then x.valid_from else x.valid_until end) as until
    from (
      select b.purpose_id, b.valid_from, b.valid_until
      from gdpr_internal.held_basis as b
      where b.subject_id = s.id
      union all
      select c.purpose_id, '-infinity'::timestamptz, c.holds_until
      from gdpr_internal.consent_state as c
      where c.subject_id = s.id
    ) as x
    where x.valid_until > statement_timestamp()
  ) as p
  where s.id = any (p_subjects);
end
$function$;
comment on function gdpr_internal.gate(bigint[]) is
  'The gate of persons from the evidence: bits allowed at statement_timestamp(), bits that are or will be allowed by what is recorded, and the first instant at which a bit may change (-infinity: ask the evidence each time).';

create or replace function gdpr_internal.still_allowed(p_subject bigint, p_mask bigint)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_allowed bigint;
begin
  if p_subject is null then
    return true;
  end if;
  select g.allowed into v_allowed from gdpr_internal.gate(array[p_subject]) as g;
  return coalesce(v_allowed & p_mask <> 0, false);
end
$function$;
comment on function gdpr_internal.still_allowed(bigint, bigint) is
  'Whether a person may be processed for one of the purposes in p_mask at this very statement.';

create or replace function gdpr_policy.still_allowed(p_subject bigint, p_purposes bigint, p_role name, p_claim text)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_internal.still_allowed(p_subject, p_purposes & gdpr_policy.purpose_mask(p_role, p_claim));
end
$function$;
comment on function gdpr_policy.still_allowed(bigint, bigint, name, text) is
  'The slow and exact path of the row policies, for rows past the instant at which their gate may change: asks the evidence.';

create or replace function gdpr_internal.refuse_deferred(p_relation regclass)
returns void
language plpgsql
volatile
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if exists (
    select from pg_trigger as g where g.tgrelid = p_relation and g.tgdeferrable and not g.tgisinternal
  ) then
    perform gdpr_internal.refuse('deferred_trigger', p_relation::text);
  end if;
end
$function$;
comment on function gdpr_internal.refuse_deferred(regclass) is
  'A deferred trigger that the owner of a table planted would run at commit, as the officer who erases or restricts. Error: PR604.';

create or replace function gdpr_internal.remember_worker()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.worker_function;
  insert into gdpr_internal.worker_function (function, definer, settings, grants)
  select p.proname, p.prosecdef, p.proconfig, p.proacl
  from pg_proc as p
  where p.pronamespace = 'gdpr_generated'::regnamespace and p.proowner = 'gdpr_worker'::regrole;
end
$function$;
comment on function gdpr_internal.remember_worker() is 'Notes the functions of gdpr_worker after they were generated.';

create or replace function gdpr_internal.require_worker(p_path text default current_setting('search_path'))
returns void
language plpgsql
volatile
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- the default is evaluated by the caller: a plain SET in planted code outlives the SET clause of the function that it ran in,
  -- and the caller would look for its operators and functions there
  if p_path <> 'pg_catalog, pg_temp' then
    perform gdpr_internal.refuse('session_changed', 'search_path');
  end if;
  -- volatile, to see what this very statement has changed.
  -- code planted in a table runs as gdpr_worker while that table is written; it could ALTER, GRANT or DROP gdpr_worker's own
  -- functions. Asked before and after each call, so that no such change is committed.
  if exists (
    select
    from gdpr_internal.worker_function as w
    left join pg_proc as p on p.proname = w.function and p.pronamespace = 'gdpr_generated'::regnamespace
    where (p.proowner, p.prosecdef, p.proconfig, p.proacl) is distinct from ('gdpr_worker'::regrole::oid, w.definer, w.settings, w.grants)
  ) then
    perform gdpr_internal.refuse('drifted', 'functions of gdpr_worker');
  end if;
end
$function$;
comment on function gdpr_internal.require_worker(text) is
  'Refuses to go on when functions of gdpr_worker are not what was generated, or when code that ran in them changed the search_path of their caller. Errors: PR409, PR411.';

create or replace function gdpr_internal.deferrable_writes()
returns text
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select string_agg(concat_ws(' ',
      d.relation, pg_stat_get_xact_tuples_inserted(d.relation), pg_stat_get_xact_tuples_updated(d.relation), pg_stat_get_xact_tuples_deleted(d.relation)
    ), ', ' order by d.relation)
    from (
      select distinct g.tgrelid as relation
      from pg_trigger as g
      where g.tgdeferrable and (
        not g.tgisinternal
        -- foreign keys are checked as the owner of a table, constraints over functions as whoever commits
        or g.tgfoid = 'unique_key_recheck()'::regprocedure and exists (
          -- functions of PostgreSQL itself are no dependencies
          select from pg_depend as x
          where x.classid = 'pg_class'::regclass and x.objid = g.tgconstrindid
            and x.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
        )
      )
    ) as d
  );
end
$function$;
comment on function gdpr_internal.deferrable_writes() is
  'How many rows this transaction wrote in each table from which code can be put off until commit.';

create or replace function gdpr_internal.before_worker()
returns text
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_worker();
  return gdpr_internal.deferrable_writes();
end
$function$;
comment on function gdpr_internal.before_worker() is
  'Called before a function of gdpr_worker that touches rows; what it returns is for after_worker(). Error: PR409.';

create or replace function gdpr_internal.after_worker(p_before text, p_path text default current_setting('search_path'))
returns void
language plpgsql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_worker(p_path);
  -- what planted code leaves behind would run later, with the rights of the officer whose session this is
  if gdpr_internal.deferrable_writes() is distinct from p_before then
    perform gdpr_internal.refuse('deferred_trigger', 'a table that was written along');
  elsif exists (select from pg_cursors as c where c.is_holdable and c.creation_time = statement_timestamp()) then
    perform gdpr_internal.refuse('session_changed', 'cursor');
  elsif pg_my_temp_schema() <> 0 and exists (
    select from pg_class as c where c.relnamespace = pg_my_temp_schema() and c.relowner = 'gdpr_worker'::regrole
  ) then
    perform gdpr_internal.refuse('session_changed', 'temporary table');
  end if;
end
$function$;
comment on function gdpr_internal.after_worker(text, text) is
  'Called right after a function of gdpr_worker that touches rows, with what before_worker() returned: refuses to go on when code planted in a table left something behind that would run with the rights of others. Errors: PR409, PR411, PR604.';

create or replace function gdpr_internal.spread_gate(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := gdpr_internal.before_worker();
begin
  perform gdpr_generated.spread_gate(p_subjects);
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr_internal.spread_gate(bigint[]) is 'Copies the gate of persons to their rows in every protected table.';

create or replace function gdpr_internal.refresh_gate(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_changed bigint[];
begin
  -- rows being inserted for these persons hold a share lock here: they are waited for, and seen by the next statement
  perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for no key update;
  with changed as (
    update gdpr_internal.subject as s
    set purposes = g.possible, until = g.until
    from gdpr_internal.gate(p_subjects) as g
    where s.id = g.subject_id
      -- a gate that asks the evidence each time is touched all the same: sessions with an older snapshot have to fail here
      and ((s.purposes, s.until) is distinct from (g.possible, g.until) or g.until = '-infinity')
    returning s.id
  )
  select array_agg(c.id) into v_changed from changed as c;
  if v_changed is not null then
    perform gdpr_internal.spread_gate(v_changed);
  end if;
end
$function$;
comment on function gdpr_internal.refresh_gate(bigint[]) is
  'Derives the gate of these persons anew and, where it changed, spreads it to all their rows, one statement per table.';

create or replace function gdpr.tidy_gates(p_limit integer default 10000)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[];
begin
  select array_agg(d.id)
  into v_subjects
  from (
    select s.id from gdpr_internal.subject as s
    where s.until <= statement_timestamp()
      -- until a basis of the future begins, the evidence has to be asked anyway
      and (s.until > '-infinity' or not exists (
        select from gdpr_internal.basis_record as b where b.subject_id = s.id and b.valid_from > statement_timestamp()
      ))
    limit p_limit
  ) as d;
  perform gdpr_internal.refresh_gate(coalesce(v_subjects, '{}'));
  return coalesce(cardinality(v_subjects), 0);
end
$function$;
comment on function gdpr.tidy_gates(integer) is
  'Brings up to p_limit expired gates up to date and returns how many. Never needed for correctness: rows past their instant are checked against the evidence, this only makes them fast again.';

create or replace function gdpr_policy.refuse_write(p_subject bigint, p_role name, p_claim text)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose record;
begin
  select p.id, p.name, p.basis into v_purpose
  from gdpr_internal.purpose as p
  where 1::bigint << p.id = gdpr_policy.purpose_mask(p_role, p_claim);
  return gdpr_internal.refuse(
    case
      when exists (select from gdpr_internal.subject as s where s.id = p_subject and s.erased_at is not null) then 'erased'
      when exists (
        select from gdpr_internal.restriction_record as r
        where r.subject_id = p_subject
          and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = r.id)
      ) then 'restricted'
      when exists (
        select from gdpr_internal.standing_objection as o where o.subject_id = p_subject and o.purpose_id = v_purpose.id
      ) then 'objected'
      when v_purpose.basis = 'consent' then 'consent_missing'
      else 'basis_missing'
    end,
    format('subject %s, purpose %s', p_subject, v_purpose.name)
  );
end
$function$;
comment on function gdpr_policy.refuse_write(bigint, name, text) is
  'Says why a row may not be written. Errors: PR201, PR301, PR601, PR602, PR603.';

create or replace function gdpr_internal.check_write(p_subject bigint, p_purposes bigint, p_role name, p_claim text)
returns void
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- who passes row security passes this, too; and a person who confirms a registration needs nobody's basis but that
  if not gdpr_internal.confirming() and not gdpr_policy.still_allowed(p_subject, p_purposes, p_role, p_claim)
    and not exists (select from pg_roles as r where r.rolname = p_role and (r.rolsuper or r.rolbypassrls))
  then
    perform gdpr_policy.refuse_write(p_subject, p_role, p_claim);
  end if;
end
$function$;
comment on function gdpr_internal.check_write(bigint, bigint, name, text) is
  'Asked by the triggers of a table for a row that the gate may not let in: the row policy would refuse it too, without a reason.';

create or replace function gdpr_internal.require_subject(p_subject bigint)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_erased boolean;
begin
  select s.erased_at is not null into v_erased from gdpr_internal.subject as s where s.id = p_subject;
  if v_erased is null then
    perform gdpr_internal.refuse('unknown_subject');
  elsif v_erased then
    perform gdpr_internal.refuse('erased');
  end if;
end
$function$;
comment on function gdpr_internal.require_subject(bigint) is 'Errors: PR101 no such person, PR603 erased.';

-- 40_protection/45_basis_views.sql
-- [code] Bases as people look at them: one by one, counted, and what enforcement hides when.
-- GDPR Art. 5(2), 6(1), 30. Read by: gdpr_dpo, gdpr_auditor, gdprdb basis.

set local role gdpr_owner;

create or replace view gdpr.basis as
select
  b.id as basis_id,
  b.subject_id,
  p.name as purpose,
  b.basis,
  b.condition,
  b.reason,
  b.valid_from,
  least(b.valid_until, h.valid_until, e.ended_at) as valid_until,
  e.reason as end_reason,
  coalesce(b.valid_from <= statement_timestamp() and h.valid_until > statement_timestamp(), false) as holds,
  case
    when e.basis_id is not null then 'ended'
    when h.id is null then 'decided'
    when b.valid_until <= statement_timestamp() then 'expired'
    when h.valid_until <= statement_timestamp() then 'review_due'
    when b.valid_from > statement_timestamp() then 'future'
    else 'holds'
  end as status,
  b.assessment_id,
  t.relation as by_table,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(b.subject_id, b.evidence)::jsonb end as evidence,
  b.recorded_at,
  b.recorded_by,
  b.actor
from gdpr_internal.basis_record as b
join gdpr_internal.purpose as p on p.id = b.purpose_id
left join gdpr_internal.held_basis as h on h.id = b.id
left join gdpr_internal.basis_end as e on e.basis_id = b.id
left join gdpr_internal.protected_table as t on t.id = b.by_table;
comment on view gdpr.basis is
  'Lawful bases other than consent, per person and purpose, with their history. status: holds, future (not yet valid), ended (before its time), expired, review_due (the assessment of the legitimate interest has to be reviewed first), decided (undetermined until the person gave or refused consent). holds: whether it allows processing at this statement. by_table: recorded by default by that table. evidence: shown to gdpr_dpo, while the person is not erased. Art. 6(1).';

create or replace view gdpr_internal.ground as
select
  h.subject_id,
  h.purpose_id,
  h.basis,
  case when h.valid_until <= statement_timestamp() then 'over' when h.valid_from > statement_timestamp() then 'future' else 'holds' end as status,
  h.valid_from,
  h.valid_until
from gdpr_internal.held_basis as h
union all
select
  c.subject_id,
  c.purpose_id,
  'consent',
  case when c.event <> 'granted' then c.event when c.valid_until <= statement_timestamp() then 'expired' else 'holds' end,
  c.recorded_at,
  case when c.event = 'granted' then c.valid_until else '-infinity' end
from (
  select distinct on (x.subject_id, x.purpose_id) x.subject_id, x.purpose_id, x.event, x.recorded_at, x.valid_until
  from gdpr_internal.consent_record as x
  order by x.subject_id, x.purpose_id, x.id desc
) as c;
comment on view gdpr_internal.ground is 'On what the processing of persons rests, consent among it: from when, until when, and how that stands at this statement.';

create or replace function gdpr_internal.has_condition(p_subject bigint, p_mask bigint)
returns boolean
language sql
stable
parallel restricted
security invoker
begin atomic
  select exists (
    select from gdpr_internal.purpose as p
    -- explicit consent is given by a person, never by a policy
    where p.id < 62 and 1::bigint << p.id & p_mask <> 0 and p.condition <> 'explicit_consent'
  ) or exists (
    select
    from gdpr_internal.held_basis as h
    where h.subject_id = p_subject and 1::bigint << h.purpose_id & p_mask <> 0 and h.condition is not null
      and h.valid_from <= statement_timestamp() and h.valid_until > statement_timestamp()
  ) or exists (
    select
    from gdpr_internal.ground as g
    join gdpr_internal.purpose as p on p.id = g.purpose_id
    where g.subject_id = p_subject and 1::bigint << g.purpose_id & p_mask <> 0 and g.basis = 'consent' and g.status = 'holds'
      and p.condition = 'explicit_consent'
  );
end;
comment on function gdpr_internal.has_condition(bigint, bigint) is
  'Whether a condition of Art. 9(2) holds for a person and one of these purposes (bits): of the purpose, of a basis recorded for the person, or explicit consent.';

create or replace view gdpr_internal.person_purpose as
select
  t.id as table_id,
  t.relation,
  t.mode,
  p.id as purpose_id,
  p.name as purpose,
  x.subject_id
from (
  select distinct o.table_id, o.subject_id from gdpr_internal.source as o
) as x
join gdpr_internal.protected_table as t on t.id = x.table_id and t.unprotected_at is null
join gdpr_internal.purpose as p on p.id < 62 and t.purpose_mask & (1::bigint << p.id) <> 0
join gdpr_internal.subject as s on s.id = x.subject_id and s.erased_at is null;
comment on view gdpr_internal.person_purpose is 'Persons of whom a protected table collected rows, with each purpose that the table may be used for.';

create or replace view gdpr.basis_overview as
select
  x.relation as table_name,
  x.mode,
  x.purpose,
  coalesce(g.basis, 'none') as basis,
  coalesce(g.status, 'none') as status,
  count(distinct x.subject_id) as persons,
  nullif(min(g.valid_until) filter (where g.status = 'holds'), 'infinity') as first_end
from gdpr_internal.person_purpose as x
left join gdpr_internal.ground as g on g.subject_id = x.subject_id and g.purpose_id = x.purpose_id
group by x.relation, x.mode, x.purpose, coalesce(g.basis, 'none'), coalesce(g.status, 'none');
comment on view gdpr.basis_overview is
  'How many persons of each protected table have which basis for which purpose, and how it stands: holds, future, over, or of a consent granted (holds), declined, withdrawn, expired; none: no basis at all. first_end: when the first of those that hold ends (null: none of them does). A person with several bases counts in each. Art. 5(2), 6(1).';

create or replace view gdpr.would_lock as
select
  w.relation as table_name,
  w.mode,
  w.purpose,
  w.cause,
  w.locks_at,
  count(*) as persons
from (
  select
    x.relation, x.mode, x.purpose,
    case
      when r.subject_id is not null then 'restricted'
      when o.subject_id is not null then 'objected'
      when i.begins is null or i.begins > statement_timestamp() then 'no_basis'
      else 'basis_ends'
    end as cause,
    case
      when r.subject_id is null and o.subject_id is null and i.begins <= statement_timestamp() then i.ends
      else statement_timestamp()
    end as locks_at
  from gdpr_internal.person_purpose as x
  left join (
    -- unbroken from now on: a later basis counts where it begins before the earlier ones end
    select
      u.subject_id, u.purpose_id, min(u.valid_from) as begins,
      coalesce(min(u.so_far) filter (where u.valid_from > u.so_far), max(u.valid_until)) as ends
    from (
      select
        g.subject_id, g.purpose_id, g.valid_from, g.valid_until,
        max(g.valid_until) over (
          partition by g.subject_id, g.purpose_id order by g.valid_from rows between unbounded preceding and 1 preceding
        ) as so_far
      from gdpr_internal.ground as g
      where g.valid_until > statement_timestamp()
    ) as u
    group by u.subject_id, u.purpose_id
  ) as i on i.subject_id = x.subject_id and i.purpose_id = x.purpose_id
  left join (
    select distinct y.subject_id from gdpr_internal.restriction_record as y
    where not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = y.id)
  ) as r on r.subject_id = x.subject_id and not exists (
    select from gdpr_internal.standing_exception as e where e.subject_id = x.subject_id and e.purpose_id = x.purpose_id
  )
  left join gdpr_internal.standing_objection as o on o.subject_id = x.subject_id and o.purpose_id = x.purpose_id
) as w
where w.locks_at < 'infinity'
group by w.relation, w.mode, w.purpose, w.cause, w.locks_at;
comment on view gdpr.would_lock is
  'What enforcement hides (mode observe: would hide), how many persons, from when on, if nothing more is recorded. cause: no_basis, restricted, objected (locked at this statement); basis_ends (locked at locks_at). Art. 5(1)(a), 6(1).';

-- 40_protection/50_value_code.sql
-- [code] The pieces of code from which the triggers of a protected table are generated.
-- GDPR Art. 25, 32. From names in the catalog and the register only: a caller that could hand in text would run it with the keys.
-- In the pieces v_<n> is the plaintext of a column, v_key the person's data key, v_keys the keys of the statement.
-- Few and large expressions: plpgsql prepares each one anew in every transaction.

set local role gdpr_keyholder;

create or replace function gdpr_internal.table_check_code(p_table smallint, p_row text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- the owner of the table chooses the types of its columns, at any time: assigning to a domain would run its CHECK with the
  -- keys, converting another type a cast of hers; and the same function on a forged table would open others' values.
  -- Columns of types outside the system are only ever given to format(), which calls their output function.
  select format(
    E'if tg_relid <> %1$L::regclass and pg_partition_root(tg_relid) is distinct from %1$L::regclass then\n  perform gdpr_internal.refuse(''drifted'');\nend if;\n'
    'if %2$s then\n'
    '  perform gdpr_internal.refuse(''drifted'');\nend if;\n',
    t.relation, string_agg(format('pg_typeof(%s.%I) <> %L::regtype', p_row, a.attname, format_type(a.atttypid, null)), E'\n  or ' order by a.attnum)
  )
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped and a.atttypid < 16384
  where t.id = p_table
  group by t.relation;
end;
comment on function gdpr_internal.table_check_code(smallint, text) is
  'Code with which a generated trigger function refuses to run on any table but its own, with the types that apply() left. p_row: new or old.';

create or replace function gdpr_internal.text_expression(p_value text, p_type text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when gdpr_internal.base_type(p_type) in (
      'text', 'character varying', 'character', 'uuid', 'boolean', 'smallint', 'integer', 'bigint', 'numeric', 'inet', 'cidr', 'json', 'jsonb'
    ) then format('%s::pg_catalog.text', p_value)
    else format('gdpr.text_of(%s)', p_value)
  end;
end;
comment on function gdpr_internal.text_expression(text, text) is 'The SQL that turns a value of a type into text that does not depend on the session''s settings.';

create or replace function gdpr_internal.mask_expression(p_mask text, p_value text, p_type text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case p_mask
    when 'show' then p_value
    when 'initial' then format('(left(%1$s::text, 1) || ''.'')::%2$s', p_value, p_type)
    when 'email' then format(
      '(left(%1$s::text, 1) || ''***'' || case when strpos(split_part(%1$s::text, ''@'', -1), ''.'') > 0 and strpos(%1$s::text, ''@'') > 0 '
      'then ''@***.'' || split_part(%1$s::text, ''.'', -1) else '''' end)::%2$s', p_value, p_type
    )
    -- a date by way of timestamp: by way of timestamptz it would ask the session's time zone, at twice the price
    when 'year' then format('date_trunc(''year'', %1$s%3$s)::%2$s', p_value, p_type, case when p_type = 'date' then '::timestamp' else '' end)
    else format('null::%s', p_type)
  end;
end;
comment on function gdpr_internal.mask_expression(text, text, text) is
  'The SQL of a mask over a plain column: expressions that the planner can inline, no function of ours per row.';

create or replace function gdpr_internal.column_facts(p_table smallint)
returns setof gdpr_internal.column_fact
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    c.id,
    c.column_name,
    row_number() over (order by not c.matches, c.position)::integer,
    c.original_type,
    c.encrypt,
    c.identifier,
    case when c.canonical = 'exact' then 'exact' else coalesce(c.identifier, 'text') end,
    c.mask,
    c.mask = 'pseudonym' or (c.encrypt <> 'no' and c.mask in ('initial', 'email', 'year')),
    c.matches,
    coalesce(
      c.original ->> 'unique_name',
      (
        select i.relname from pg_index as x
        join pg_class as i on i.oid = x.indexrelid
        join pg_attribute as a on a.attrelid = x.indrelid and a.attname = c.column_name
        join gdpr_internal.protected_table as t on t.id = c.table_id and t.relation = x.indrelid
        where x.indisunique and x.indkey::text = a.attnum::text
        limit 1
      )
    )::name,
    substring(c.original_type from '^character(?: varying)?\((\d+)\)$')::integer
  from gdpr_internal.protected_column as c
  where c.table_id = p_table;
end;
comment on function gdpr_internal.column_facts(smallint) is
  'What the generators need of each classified column; n numbers the variables of the generated code, matching identifiers first.';

create or replace function gdpr_internal.read_value_code(p_column gdpr_internal.column_fact)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  -- v_<n>: the plaintext as text; a column that is encrypted is text in the table, its old type is checked here
  select case
    when (p_column).encrypt = 'no' then format(
      E'v_%s := %s;\n', (p_column).n, gdpr_internal.text_expression(format('new.%I', (p_column).column_name), (p_column).type)
    )
    when (p_column).type = 'text' or (p_column).type = 'character varying' then format(
      E'v_%s := new.%I;\n', (p_column).n, (p_column).column_name
    )
    when (p_column).maximum is not null then format(
      E'v_%1$s := case when length(rtrim(new.%2$I, '' '')) > %3$s\n'
      '  then case when gdpr_internal.refuse(''value_too_long'', %4$L) then null end else left(new.%2$I, %3$s) end;\n',
      (p_column).n, (p_column).column_name, (p_column).maximum, format('column %I', (p_column).column_name)
    )
    else format(
      E'begin\n'
      '  v_typed_%1$s := new.%2$I;\n'
      '  v_%1$s := %3$s;\n'
      'exception when data_exception then\n'
      '  perform gdpr_internal.refuse(''invalid_value'', %4$L);\n'
      'end;\n',
      (p_column).n, (p_column).column_name,
      gdpr_internal.text_expression(format('v_typed_%s', (p_column).n), (p_column).type),
      format('column %I', (p_column).column_name)
    )
  end;
$function$;
comment on function gdpr_internal.read_value_code(gdpr_internal.column_fact) is
  'Code that reads a new value as text and holds it to the type and length its column had.';

create or replace function gdpr_internal.seal_code(p_target text, p_subject text, p_column integer, p_value text, p_random integer)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- gdpr_internal.seal_value() in two assignments: a call for each value costs more than the cipher
  select format(
    E'v_body := decode(''0100000001'', ''hex'') || int8send(%1$s) || int4send(%2$s) || substr(v_random, %3$s, 16)\n'
    '  || gdpr_internal.encrypt_iv(convert_to(%4$s, ''UTF8''), substr(v_key, 1, 32), substr(v_random, %3$s, 16), ''aes-cbc/pad:pkcs'');\n'
    '%5$s := ''gdpr1:'' || replace(encode(v_body || gdpr_internal.hmac(v_body, substr(v_key, 33), ''sha256''), ''base64''), chr(10), '''');\n',
    p_subject, p_column, p_random, p_value, p_target
  );
end;
comment on function gdpr_internal.seal_code(text, text, integer, text, integer) is
  'Code that encrypts p_value (an expression, text) into p_target under v_key, with the IV that stands at p_random in v_random.';

create or replace function gdpr_internal.store_value_code(p_column gdpr_internal.column_fact, p_random integer)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select concat(
    case when (p_column).encrypt = 'searchable' then format(
      E'new.%I := v_digest_%s;\n', 'gdpr_' || (p_column).column_name || '_digest', (p_column).n
    ) end,
    case when (p_column).masked then format(
      E'new.%I := %s;\n',
      'gdpr_' || (p_column).column_name || '_mask',
      case
        when (p_column).mask = 'pseudonym' then format(
          'left(replace(gdpr_internal.keyed_digest(v_keys.digest_key, ''pseudonym'', v_%s)::text, ''-'', ''''), %s)', (p_column).n, least(16, coalesce((p_column).maximum, 16))
        )
        else gdpr_internal.mask_expression(
          (p_column).mask,
          case when (p_column).mask = 'year' then format('v_%s::%s', (p_column).n, (p_column).type) else format('v_%s', (p_column).n) end,
          (p_column).type
        )
      end
    ) end,
    case when (p_column).encrypt <> 'no' then gdpr_internal.seal_code(
      format('new.%I', (p_column).column_name), 'new.gdpr_subject_id', (p_column).column_id, format('v_%s', (p_column).n), p_random
    ) end
  );
$function$;
comment on function gdpr_internal.store_value_code(gdpr_internal.column_fact, integer) is
  'Code that puts digest, mask and ciphertext of v_<n> into the row. p_random: where its IV stands in v_random.';

create or replace function gdpr_internal.canonical_code(p_kind text, p_value text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- most addresses are plain ASCII without a tag or an encoded domain, where folding is lower(): no call for those
  select case when p_kind = 'email' then format(
    'case when %1$s collate "C" ~ ''^[A-Za-z0-9._-]+@[A-Za-z0-9.-]*[A-Za-z0-9-]$'' and strpos(lower(%1$s collate "C"), ''xn--'') = 0 '
    'then lower(%1$s collate "C") else gdpr_internal.canonical(%2$L, %1$s) end', p_value, p_kind
  ) else format('gdpr_internal.canonical(%L, %s)', p_kind, p_value) end;
end;
comment on function gdpr_internal.canonical_code(text, text) is 'The SQL of gdpr_internal.canonical(), without a call where the form is obvious.';

create or replace function gdpr_internal.digest_code(p_column gdpr_internal.column_fact)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select case when (p_column).identifier is not null or (p_column).encrypt = 'searchable' then format(
    E'v_canonical_%1$s := %3$s;\nv_digest_%1$s := gdpr_internal.keyed_digest(v_keys.digest_key, %2$L, v_canonical_%1$s);\n',
    (p_column).n, (p_column).canonical, gdpr_internal.canonical_code((p_column).canonical, format('v_%s', (p_column).n))
  ) else '' end;
$function$;
comment on function gdpr_internal.digest_code(gdpr_internal.column_fact) is 'Code that computes the digest of v_<n>.';

create or replace function gdpr_internal.bare_code(p_column gdpr_internal.column_fact)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select case when (p_column).identifier = 'email' then format(
    'case gdpr_internal.bare_form(%2$L, v_canonical_%1$s) when v_canonical_%1$s then v_digest_%1$s '
    'else gdpr_internal.keyed_digest(v_keys.digest_key, %2$L, gdpr_internal.bare_form(%2$L, v_canonical_%1$s)) end',
    (p_column).n, (p_column).canonical
  ) else format('v_digest_%s', (p_column).n) end;
$function$;
comment on function gdpr_internal.bare_code(gdpr_internal.column_fact) is 'The SQL of the digest of v_<n> without a plus-tag.';

create or replace function gdpr_internal.variable_code(p_column gdpr_internal.column_fact)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select concat(
    format(E'  v_%s text;\n', (p_column).n),
    case when (p_column).encrypt <> 'no' and (p_column).maximum is null and (p_column).type not in ('text', 'character varying')
      then format(E'  v_typed_%s %s;\n', (p_column).n, (p_column).type)
    end,
    case when (p_column).identifier is not null or (p_column).encrypt = 'searchable'
      then format(E'  v_canonical_%1$s text;\n  v_digest_%1$s uuid;\n', (p_column).n)
    end
  );
$function$;
comment on function gdpr_internal.variable_code(gdpr_internal.column_fact) is 'Declarations of the variables that the code of a column uses.';

create or replace function gdpr_internal.keys_code()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- the key in a table is read here; one that the session holds takes the call
  select
    E'select k.id, k.material, gdpr_internal.decrypt_iv(\n'
    '  substr(k.digest_key, 17, 32), substr(k.material, 1, 32), substr(k.digest_key, 1, 16), ''aes-cbc/pad:none''\n'
    ')\n'
    'into v_keys\n'
    'from gdpr_internal.key_encryption_key as k\n'
    'where k.retired_at is null;\n'
    'if v_keys.kek is null then\n'
    '  v_keys := gdpr_internal.keyring();\n'
    'end if;\n';
end;
comment on function gdpr_internal.keys_code() is 'Code that reads the keys of the statement into v_keys.';

create or replace function gdpr_internal.check_code(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case when t.mode = 'enforce' then
    E'if tg_nargs = 0 and tg_name <> ''zzz_gdpr_40_backfill'' and (\n'
    '  new.gdpr_until <= statement_timestamp()\n'
    '  or new.gdpr_purposes & gdpr_generated.purpose_mask(gdpr_internal.acting_role(), current_setting(''gdpr.purpose'', true)) = 0\n'
    ') then\n'
    '  perform gdpr_internal.check_write(\n'
    '    new.gdpr_subject_id, new.gdpr_purposes, gdpr_internal.acting_role(), current_setting(''gdpr.purpose'', true)\n'
    '  );\n'
    'end if;\n'
  else '' end
  from gdpr_internal.protected_table as t
  where t.id = p_table;
end;
comment on function gdpr_internal.check_code(smallint) is 'Code that says why the gate will not let a row in; nothing for a table that is only observed.';

create or replace function gdpr_internal.special_code(p_table smallint, p_condition text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case when count(*) = 0 then '' else format(
    E'if tg_nargs = 0 and tg_name <> ''zzz_gdpr_40_backfill'' and (\n  %s\n) then\n'
    '  perform gdpr_internal.check_special(new.gdpr_subject_id, gdpr_internal.acting_role(), current_setting(''gdpr.purpose'', true));\n'
    'end if;\n',
    string_agg(format(p_condition, c.column_name), E'\n  or ' order by c.position)
  ) end
  from gdpr_internal.protected_column as c
  join gdpr_internal.protected_table as t on t.id = c.table_id
  where c.table_id = p_table and c.special is not null and t.mode = 'enforce';
end;
comment on function gdpr_internal.special_code(smallint, text) is
  'Code that asks for a condition of Art. 9(2) where a column of a special category is given a value (p_condition: how one is recognised, %1$I the column); nothing for tables without one.';

create or replace function gdpr_internal.indented(p_code text, p_indent text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case when p_code = '' then '' else p_indent || replace(rtrim(p_code, E'\n'), E'\n', E'\n' || p_indent) || E'\n' end;
end;
comment on function gdpr_internal.indented(text, text) is 'Lines of generated code, indented: DBAs read what is generated.';

-- 40_protection/51_sources.sql
-- [code] Where the data of a row came from: the code that the triggers of a table carry, and what people ask.
-- GDPR Art. 13, Art. 14(2)(f), Art. 15(1)(g). Called by: the generators of triggers; gdpr_dpo.

set local role gdpr_keyholder;

create or replace function gdpr_internal.key_text(p_relation regclass, p_row text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case count(*)
    when 0 then 'null::pg_catalog.text'
    when 1 then max(k.value)
    else format('jsonb_build_array(%s)::pg_catalog.text', string_agg(k.value, ', ' order by k.n))
  end
  from (
    select u.n, gdpr_internal.text_expression(format('%s.%I', p_row, a.attname), format_type(a.atttypid, a.atttypmod)) as value
    from pg_index as x
    cross join lateral unnest(x.indkey) with ordinality as u (attnum, n)
    join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = u.attnum
    where x.indrelid = p_relation and x.indisprimary
  ) as k;
end;
comment on function gdpr_internal.key_text(regclass, text) is
  'The SQL of a row''s primary key as text that is the same in every session: the value, or a JSON array of several.';

create or replace function gdpr_internal.row_key_code(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select format(E'v_row := gdpr_internal.keyed_digest(v_keys.digest_key, %L, %s);\n', 'row ' || t.id, gdpr_internal.key_text(t.relation, 'new'))
  from gdpr_internal.protected_table as t
  where t.id = p_table;
end;
comment on function gdpr_internal.row_key_code(smallint) is 'Code that computes the digest of the new row''s primary key.';

create or replace function gdpr_internal.source_code(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case when t.definition ->> 'source' = 'required' then format(
    E'if tg_op = ''INSERT'' and coalesce(current_setting(''gdpr.source'', true), '''') = '''' then\n  perform gdpr_internal.refuse(''source_missing'', %L);\nend if;\n',
    t.relation
  ) else '' end
  from gdpr_internal.protected_table as t
  where t.id = p_table;
end;
comment on function gdpr_internal.source_code(smallint) is 'Code that refuses a row without a source, for tables whose policy demands one.';

create or replace function gdpr_internal.row_key(p_table smallint, p_key text)
returns uuid
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
begin
  v_keys := gdpr_internal.keyring();
  return gdpr_internal.keyed_digest(v_keys.digest_key, 'row ' || p_table, p_key);
end
$function$;
comment on function gdpr_internal.row_key(smallint, text) is 'The digest of a primary key as sources keep it.';

create or replace function gdpr_internal.change_source(
  p_table smallint, p_subject bigint, p_key text, p_keys gdpr_internal.keyring, p_data_key bytea
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if p_data_key is not null then
    perform gdpr_internal.add_source(
      p_subject, p_table, gdpr_internal.keyed_digest((p_keys).digest_key, 'row ' || p_table, p_key), gdpr_internal.context_source(), p_data_key, 'changed'
    );
  end if;
end
$function$;
comment on function gdpr_internal.change_source(smallint, bigint, text, gdpr_internal.keyring, bytea) is
  'Records where a change of a row came from; nothing of a person whose data key is gone. Art. 14(2)(f).';

set local role gdpr_owner;

create or replace function gdpr.source_of(p_table regclass, p_key text)
returns table (event text, kind text, details jsonb, actor text, recorded_at timestamptz)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint := gdpr_internal.table_id(p_table);
  v_subject bigint := gdpr.subject_of(p_table, p_key);
  v_row uuid;
begin
  v_row := gdpr_internal.row_key(v_table, case
    -- written in another way, the same key
    when (select x.indnatts > 1 from pg_index as x where x.indrelid = p_table and x.indisprimary) then p_key::jsonb::text
    else p_key
  end);
  return query
  select s.event, s.kind, gdpr_internal.open_evidence(s.subject_id, s.details)::jsonb, s.actor, s.recorded_at
  from (
    (
      select x.* from gdpr_internal.source as x
      where x.subject_id = v_subject and x.table_id = v_table and x.row_key = v_row and x.event = 'created'
      order by x.id
      limit 1
    )
    union all
    (
      select x.* from gdpr_internal.source as x
      where x.subject_id = v_subject and x.table_id = v_table and x.row_key = v_row and x.event = 'changed'
      order by x.id desc
      limit 1
    )
  ) as s;
end
$function$;
comment on function gdpr.source_of(regclass, text) is
  'Where the data of a row came from, by its primary key as text (several columns: a JSON array of texts): the source of its creation and, if one was told, of its last change, with the details of the kind (web form: form, url, ip, referrer; import: file, line; API: service; integration: system, record; manual: user). Errors: PR002 not protected, PR004 key of the wrong type, PR408 no primary key. Art. 14(2)(f), 15(1)(g).';

-- 40_protection/52_generate_protect.sql
-- [code] The generator of the trigger that lets a new row in: whose it is, its source, its gate, its ciphertext.
-- GDPR Art. 6, 14(2)(f), 17, 25, 32. Called by: gdpr.apply().

set local role gdpr_keyholder;

create or replace function gdpr_internal.default_gate_code(p_table smallint, out purposes text, out until text, out known text)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
as $function$
declare
  v_now record;
  v_before record;
begin
  select coalesce(bit_or(1::bigint << b.purpose_id), 0) | (1::bigint << 62) as mask, coalesce(min(b.valid_until), 'infinity') as until
  into v_now
  from gdpr_internal.default_basis as b where b.table_id = p_table and b.basis <> 'undetermined';
  select coalesce(bit_or(1::bigint << b.purpose_id), 0) | (1::bigint << 62) as mask, coalesce(min(b.valid_until), 'infinity') as until
  into v_before
  from gdpr_internal.default_basis as b where b.table_id = p_table;
  purposes := v_now.mask;
  until := format('%L::timestamptz', v_now.until);
  if v_before <> v_now then
    purposes := format('case when tg_op = ''UPDATE'' then %s else %s end', v_before.mask, v_now.mask);
    until := format('case when tg_op = ''UPDATE'' then %L::timestamptz else %L::timestamptz end', v_before.until, v_now.until);
  end if;
  if v_now.until < 'infinity' then
    known := format('statement_timestamp() < %L::timestamptz', v_now.until);
  end if;
end
$function$;
comment on function gdpr_internal.default_gate_code(smallint) is
  'The gate of a new person of a table as code. known: when it is that; afterwards, with an assessment overdue, the register is asked. An UPDATE is the backfill, whose rows have a grace period.';

create or replace function gdpr_internal.new_subject_code(p_table smallint, p_random integer)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
as $function$
declare
  v_gate record := gdpr_internal.default_gate_code(p_table);
  v_bases text;
  v_identifiers text;
  v_present text;
  v_count integer;
  v_claim text;
begin
  select string_agg(
    format('(%s::smallint, %L::text, %L::text, %L::timestamptz)', b.purpose_id, b.basis, b.reason, b.recorded_until), ', ' order by b.purpose_id, b.basis
  )
  into v_bases
  from gdpr_internal.default_basis as b
  where b.table_id = p_table;
  select
    string_agg(format('(v_digest_%s, %L::text)', c.n, c.identifier), ', ' order by c.n),
    string_agg(format('(v_digest_%s is not null)::integer', c.n), ' + ' order by c.n),
    count(*)
  into v_identifiers, v_present, v_count
  from gdpr_internal.column_facts(p_table) as c
  where c.identifier is not null;
  v_claim := case v_count
    when 0 then E'person as (\n  select new.gdpr_subject_id as id\n)'
    when 1 then format(
      E'person as (\n'
      '  insert into gdpr_internal.identifier (digest, kind, subject_id)\n'
      '  select i.digest, i.kind, new.gdpr_subject_id\n'
      '  from (values %s) as i (digest, kind)\n'
      '  where i.digest is not null\n'
      '  on conflict (digest) do nothing\n'
      '  returning subject_id as id\n'
      ')', v_identifiers
    )
    else format(
      E'identifier as (\n'
      '  insert into gdpr_internal.identifier (digest, kind, subject_id)\n'
      '  select i.digest, i.kind, new.gdpr_subject_id\n'
      '  from (values %s) as i (digest, kind)\n'
      '  where i.digest is not null\n'
      '  on conflict (digest) do nothing\n'
      '  returning 1\n'
      '), person as (\n'
      '  select new.gdpr_subject_id as id where (select count(*) from identifier) = %s\n'
      ')', v_identifiers, v_present
    )
  end;
  return format(
    $code$v_source := case
  when tg_op = 'UPDATE' then '{"kind": "before_gdprdb"}'
  when nullif(current_setting('gdpr.source', true), '') is not null then gdpr_internal.context_source()
end;
new.gdpr_subject_id := nextval('gdpr_internal.subject_id_seq');
new.gdpr_subject_ref := gen_random_uuid();
v_key := substr(v_random, %1$s, 64);
if v_source - 'kind' <> '{}' then
%2$send if;
v_body := substr(v_random, %3$s, 16)
  || gdpr_internal.encrypt_iv(v_key, substr(v_keys.kek, 1, 32), substr(v_random, %3$s, 16), 'aes-cbc/pad:none');
with %4$s, subject as (
  insert into gdpr_internal.subject (id, ref, purposes, until)
  select p.id, new.gdpr_subject_ref, %5$s, %10$s from person as p
), data_key as (
  insert into gdpr_internal.subject_key (subject_id, kek_id, wrapped)
  select p.id, v_keys.kek_id, v_body || gdpr_internal.hmac(int8send(p.id) || v_body, substr(v_keys.kek, 33), 'sha256')
  from person as p
)%6$s
insert into gdpr_internal.source (subject_id, table_id, row_key, kind, details, actor)
select p.id, %7$s, v_row, coalesce(v_source ->> 'kind', 'unspecified'), v_details, nullif(current_setting('gdpr.actor', true), '')
from person as p;
v_is_new := found;
%9$snew.gdpr_purposes := %8$s;
new.gdpr_until := %10$s;
$code$,
    p_random,
    gdpr_internal.indented(gdpr_internal.seal_code('v_details', 'new.gdpr_subject_id', 0, '(v_source - ''kind'')::text', p_random + 80), '  '),
    p_random + 64,
    v_claim,
    v_gate.purposes,
    case when v_bases is null then '' else format(
      E', basis as (\n'
      '  insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, valid_until, by_table)\n'
      '  select p.id, b.purpose_id, b.basis, b.reason, b.valid_until, %s\n'
      '  from person as p\n'
      '  cross join (values %s) as b (purpose_id, basis, reason, valid_until)\n'
      '%s)', p_table, v_bases,
      case when strpos(v_bases, 'undetermined') > 0 then E'  where tg_op = ''UPDATE'' or b.basis <> ''undetermined''\n' else '' end
    ) end,
    p_table,
    (select format('(%s) & %s', v_gate.purposes, t.purpose_mask | (1::bigint << 62)) from gdpr_internal.protected_table as t where t.id = p_table),
    case when v_count > 1 then
      E'if not v_is_new then\n  delete from gdpr_internal.identifier as i where i.subject_id = new.gdpr_subject_id;\nend if;\n'
    else '' end,
    v_gate.until
  );
end
$function$;
comment on function gdpr_internal.new_subject_code(smallint, integer) is
  'Code that makes a new person in one statement: identifiers, data key, default bases, source. The insert of the identifiers is the probe: v_is_new is false when somebody has one already. p_random: where its 96 bytes stand in v_random.';

create or replace function gdpr_internal.generate_protect(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set bytea_output = 'hex'
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_gate record := gdpr_internal.default_gate_code(p_table);
  v_declare text := '';
  v_arrived text[] := '{}';
  v_open text := '';
  v_read text := '';
  v_store text := '';
  v_plain text[] := '{v_parent is null}';
  v_digests text[] := '{}';
  v_bares text[] := '{}';
  v_kinds text[] := '{}';
  v_matching integer := 0;
  v_constraint name;
  v_random integer := 0;
  v_column gdpr_internal.column_fact;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  v_plain := array_remove(v_plain || v_gate.known, null);

  for v_column in select * from gdpr_internal.column_facts(p_table) order by n loop
    continue when v_column.encrypt = 'no' and v_column.identifier is null and not v_column.masked;
    v_declare := v_declare || gdpr_internal.variable_code(v_column);
    if v_column.encrypt <> 'no' then
      v_arrived := v_arrived || format('starts_with(new.%I, ''gdpr1:'')', v_column.column_name);
      v_open := v_open || format(
        E'if starts_with(new.%1$I, ''gdpr1:'') then\n  v_parent := gdpr_internal.moved_subject(new.%1$I, new.gdpr_subject_id);\n'
        '  new.%1$I := gdpr_internal.open_value(gdpr_internal.data_key(v_keys, v_parent), v_parent, %2$s, new.%1$I);\nend if;\n',
        v_column.column_name, v_column.column_id
      );
    end if;
    v_read := v_read || gdpr_internal.read_value_code(v_column) || gdpr_internal.digest_code(v_column);
    if v_column.identifier is not null then
      v_digests := v_digests || format('v_digest_%s', v_column.n);
      v_bares := v_bares || gdpr_internal.bare_code(v_column);
      v_kinds := v_kinds || quote_literal(v_column.identifier);
      v_matching := v_matching + v_column.matches::integer;
      v_constraint := coalesce(v_constraint, v_column.unique_name);
      if v_column.identifier = 'email' then
        v_plain := v_plain || format(
          'coalesce(gdpr_internal.bare_form(%2$L, v_canonical_%1$s) = v_canonical_%1$s, true)', v_column.n, v_column.canonical
        );
      end if;
    end if;
    v_store := v_store || gdpr_internal.store_value_code(v_column, v_random * 16 + 1);
    v_random := v_random + (v_column.encrypt <> 'no')::integer;
  end loop;

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
as $body$
declare
  v_keys gdpr_internal.keyring;
  v_claim gdpr_internal.claim;
  v_parent bigint%2$s;
  v_is_new boolean := false;
  v_source jsonb;
  v_details text;
  v_row uuid;
  v_random bytea := gdpr_internal.gen_random_bytes(%3$s);
  v_key bytea;
  v_body bytea;
%4$sbegin
%5$s%6$s%7$s%8$s  if %9$s then
    -- most new rows are new persons
%10$s  end if;
  if not v_is_new then
    v_claim := gdpr_internal.claim_subject(
      v_keys, %11$s::smallint, %12$s, v_parent,
      array[%13$s]::uuid[], array[%14$s]::uuid[], array[%15$s]::text[], %16$s, %17$L, %18$L, v_row, tg_op = 'UPDATE'
    );
    new.gdpr_subject_id := v_claim.subject_id;
    new.gdpr_subject_ref := v_claim.ref;
    new.gdpr_purposes := v_claim.purposes & %19$s;
    new.gdpr_until := v_claim.until;
    v_key := v_claim.data_key;
  end if;
%20$s%21$s  return new;
end
$body$
$code$,
    'protect_' || p_table,
    case when v_table.parent_id is null then '' else ' := new.gdpr_subject_id' end,
    v_random * 16 + 96,
    v_declare,
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'new'), '  '),
    gdpr_internal.indented(gdpr_internal.source_code(p_table) || gdpr_internal.keys_code() || gdpr_internal.row_key_code(p_table), '  '),
    case when v_open = '' then '' else format(
      E'  if %s then\n%s  end if;\n', array_to_string(v_arrived, ' or '), gdpr_internal.indented(v_open, '    ')
    ) end,
    gdpr_internal.indented(v_read, '  '),
    array_to_string(v_plain, ' and '),
    gdpr_internal.indented(gdpr_internal.new_subject_code(p_table, v_random * 16 + 1), '    '),
    p_table, v_gate.purposes,
    array_to_string(v_digests, ', '), array_to_string(v_bares, ', '), array_to_string(v_kinds, ', '),
    v_matching, v_table.blocklist, v_constraint,
    v_table.purpose_mask | (1::bigint << 62),
    gdpr_internal.indented(gdpr_internal.special_code(p_table, 'new.%1$I is not null') || v_store, '  '),
    gdpr_internal.indented(gdpr_internal.check_code(p_table), '  ')
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'protect_' || p_table,
    format('Before a row of %s is stored: whose it is, its source, its gate, its ciphertext. Generated by gdpr.apply().', v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'protect_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_protect(smallint) is 'Generates the BEFORE INSERT trigger function of a protected table from the register.';

create or replace function gdpr_internal.moved_subject(p_value text, p_subject bigint)
returns bigint
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- a row on its way to another partition, or from a dump, brings its own ciphertext and subject
  if p_subject is null or gdpr_internal.value_subject(p_value) is distinct from p_subject then
    perform gdpr_internal.refuse('ciphertext_written');
  end if;
  return p_subject;
exception when data_exception then
  perform gdpr_internal.refuse('ciphertext_written');
  return null;
end
$function$;
comment on function gdpr_internal.moved_subject(text, bigint) is
  'The subject of a row that arrives with ciphertext (partition move, data-only restore). Error: PR405 when the ciphertext is not this row''s.';

-- 40_protection/54_generate_change.sql
-- [code] The generator of the trigger that lets a changed row in: identifiers and ciphertext of the columns that changed.
-- GDPR Art. 16, 25, 32. Called by: gdpr.apply().

set local role gdpr_keyholder;

create or replace function gdpr_internal.change_value_code(p_column gdpr_internal.column_fact, p_table gdpr_internal.protected_table, p_random integer)
returns text
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_old_value text := format('gdpr_internal.open_value(v_old_key, old.gdpr_subject_id, %s, old.%I)', p_column.column_id, p_column.column_name);
  v_code text := '';
begin
  if p_column.encrypt <> 'no' then
    v_code := format(
      E'if new.%1$I is not distinct from old.%1$I then\n'
      '  new.%1$I := %2$s;\n'
      'elsif starts_with(new.%1$I, ''gdpr1:'') then\n'
      '  perform gdpr_internal.refuse(''ciphertext_written'', %3$L);\n'
      'end if;\n',
      p_column.column_name, v_old_value, format('column %I', p_column.column_name)
    );
  end if;
  v_code := v_code || gdpr_internal.read_value_code(p_column) || gdpr_internal.digest_code(p_column);
  if p_column.identifier is not null then
    v_code := v_code || format(
      E'v_old := gdpr_internal.keyed_digest(v_keys.digest_key, %1$L, gdpr_internal.canonical(%1$L, %2$s));\n'
      'perform gdpr_internal.change_identifier(\n'
      '  %3$s::smallint, new.gdpr_subject_id, v_old, v_digest_%4$s, %5$s, %6$L, %7$L, %8$L\n'
      ');\n',
      p_column.canonical,
      case when p_column.encrypt = 'no' then gdpr_internal.text_expression(format('old.%I', p_column.column_name), p_column.type) else v_old_value end,
      p_table.id, p_column.n, gdpr_internal.bare_code(p_column), p_column.identifier, p_table.blocklist, p_column.unique_name
    );
  end if;
  return format(
    E'if v_moved or new.%1$I is distinct from old.%1$I then\n%2$send if;\n',
    p_column.column_name, gdpr_internal.indented(v_code || gdpr_internal.store_value_code(p_column, p_random), '  ')
  );
end
$function$;
comment on function gdpr_internal.change_value_code(gdpr_internal.column_fact, gdpr_internal.protected_table, integer) is
  'Code that stores a column anew when its value changed, or when the row went to another person. v_old_key: the data key of the person the row belonged to.';

create or replace function gdpr_internal.generate_change(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set bytea_output = 'hex'
-- what is dropped need not have been there
set client_min_messages = warning
-- what is not there need not be dropped, nor spoken of
set client_min_messages = 'warning'
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_default_mask bigint;
  v_declare text := '';
  v_same text := '';
  v_update text := '';
  v_ivs integer := 0;
  v_identifiers boolean := false;
  v_column gdpr_internal.column_fact;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select coalesce(bit_or(1::bigint << b.purpose_id), 0) into v_default_mask from gdpr_internal.default_basis as b
  where b.table_id = p_table and b.basis <> 'undetermined';

  for v_column in select * from gdpr_internal.column_facts(p_table) order by n loop
    continue when v_column.encrypt = 'no' and v_column.identifier is null and not v_column.masked;
    v_declare := v_declare || gdpr_internal.variable_code(v_column);
    v_same := v_same || format(' and new.%1$I is not distinct from old.%1$I', v_column.column_name);
    v_update := v_update || gdpr_internal.change_value_code(v_column, v_table, v_ivs * 16 + 1);
    v_ivs := v_ivs + (v_column.encrypt <> 'no')::integer;
    v_identifiers := v_identifiers or v_column.identifier is not null;
  end loop;
  if v_update = '' and v_table.parent_id is null then
    execute format('drop function if exists gdpr_generated.%I()', 'change_' || p_table);
    return;
  end if;

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
as $body$
declare
  v_keys gdpr_internal.keyring;
  v_claim gdpr_internal.claim;
  v_moved boolean;
  v_wrapped bytea;
  v_key bytea;
%2$sbegin
%3$s  -- an argument: apply() rewrites the row because the policy of a column changed
  v_moved := tg_nargs > 0 or new.gdpr_subject_id is distinct from old.gdpr_subject_id;
  if not v_moved%4$s then
    return new;
  end if;
  if new.gdpr_subject_id is null then
    if old.gdpr_subject_id is null then
      perform gdpr_internal.refuse('erased');
    end if;
    -- erasure: the guard lets nobody but gdpr_worker take a row's subject away
    return new;
  end if;
%5$s  if v_moved then
    v_claim := gdpr_internal.known_subject(
      v_keys, %6$s::smallint, %7$s, new.gdpr_subject_id, gdpr_internal.row_key(%6$s::smallint, %12$s), gdpr_internal.context_source()
    );
    new.gdpr_subject_ref := v_claim.ref;
    new.gdpr_purposes := v_claim.purposes & %8$s;
    new.gdpr_until := v_claim.until;
%9$s  end if;
  select k.wrapped into v_wrapped from gdpr_internal.subject_key as k where k.subject_id = new.gdpr_subject_id;
  if v_wrapped is null then
    perform gdpr_internal.refuse('erased');
  end if;
  v_key := gdpr_internal.unwrap_key(v_keys.kek, int8send(new.gdpr_subject_id), v_wrapped);
%10$s%11$s  return new;
end
$body$
$code$,
    'change_' || p_table,
    v_declare
      || case when v_ivs > 0 then E'  v_old_key bytea;\n  v_random bytea;\n  v_body bytea;\n' else '' end
      || case when v_identifiers then E'  v_old uuid;\n' else '' end,
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'new'), '  '),
    v_same,
    gdpr_internal.indented(gdpr_internal.keys_code(), '  '),
    p_table, v_default_mask,
    v_table.purpose_mask | (1::bigint << 62),
    gdpr_internal.indented(gdpr_internal.check_code(p_table), '    '),
    gdpr_internal.indented(
      gdpr_internal.special_code(p_table, 'new.%1$I is not null and new.%1$I is distinct from old.%1$I'), '  '
    )
    || case when v_ivs > 0 then format(
      E'  v_old_key := case when new.gdpr_subject_id = old.gdpr_subject_id then v_key else gdpr_internal.data_key(v_keys, old.gdpr_subject_id) end;\n'
      '  v_random := gdpr_internal.gen_random_bytes(%s);\n', v_ivs * 16
    ) else '' end,
    gdpr_internal.indented(v_update, '  '),
    gdpr_internal.key_text(v_table.relation, 'new')
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'change_' || p_table,
    format('Before a changed row of %s is stored: identifiers and ciphertext of the columns that changed. Generated by gdpr.apply().', v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'change_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_change(smallint) is 'Generates the BEFORE UPDATE trigger function of a protected table from the register.';

create or replace function gdpr_internal.generate_triggers(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.generate_protect(p_table);
  perform gdpr_internal.generate_change(p_table);
  perform gdpr_internal.generate_audit(p_table);
  perform gdpr_internal.generate_clear_writes(p_table);
end
$function$;
comment on function gdpr_internal.generate_triggers(smallint) is 'Generates the trigger functions of a protected table from the register.';

-- 40_protection/58_guards.sql
-- [code] Triggers that refuse what row security cannot see.
-- GDPR Art. 5(2), 25.

set local role gdpr_owner;

create or replace function gdpr_policy.guard_gate()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refuse('gate_columns');
  return null;
end
$function$;
comment on function gdpr_policy.guard_gate() is 'Refuses every write of the columns gdpr_*; its trigger fires only for those. Error: PR406.';

create or replace function gdpr_policy.guard_truncate()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refuse('truncate_refused');
  return null;
end
$function$;
comment on function gdpr_policy.guard_truncate() is 'Refuses TRUNCATE, which ignores row security and audit. Error: PR407.';

-- 40_protection/60_generate_rows.sql
-- [code] The generator of functions that read and write the rows of protected tables.
-- GDPR Art. 7(3), 17, 25. They belong to gdpr_worker, which has no key and no evidence: what a table's owner plants in his
-- table (triggers, policies, defaults) runs with the rights of whoever writes or reads it.

set local role gdpr_worker;

create or replace function gdpr_generated.generate_rows(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_parent regclass;
  v_link text;
  v_schema name;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  -- the application's own triggers run inside these functions and may rely on their schema
  select n.nspname into v_schema from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = v_table.relation;

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_subjects bigint[])
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, %4$I, pg_temp
set row_security = on
set plan_cache_mode = force_generic_plan
as $body$
begin
  perform gdpr_internal.refuse_deferred(%5$L);
  if p_subjects is null then
    update %2$s as t
    set gdpr_purposes = s.purposes & %3$s, gdpr_until = s.until
    from gdpr_internal.subject as s
    where s.id = t.gdpr_subject_id and s.erased_at is null
      and (t.gdpr_purposes, t.gdpr_until) is distinct from (s.purposes & %3$s, s.until);
    set constraints all immediate;
    return;
  end if;
  update %2$s as t
  set gdpr_purposes = s.purposes & %3$s, gdpr_until = s.until
  from gdpr_internal.subject as s
  where t.gdpr_subject_id = any (p_subjects)
    and s.id = t.gdpr_subject_id and s.erased_at is null
    and ((t.gdpr_purposes, t.gdpr_until) is distinct from (s.purposes & %3$s, s.until) or s.until = '-infinity');
  -- a deferred trigger that somebody planted runs here, not at commit with the rights of whoever commits
  set constraints all immediate;
end
$body$
$code$,
    'spread_' || p_table, v_table.relation, v_table.purpose_mask | (1::bigint << 62), v_schema, v_table.relation
  ));
  execute format(
    'comment on function gdpr_generated.%I(bigint[]) is %L', 'spread_' || p_table,
    format('Copies the gate of persons to their rows in %s. Generated by gdpr.apply().', v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I(bigint[]) to gdpr_owner', 'spread_' || p_table);

  if v_table.parent_id is not null then
    select t.relation into strict v_parent from gdpr_internal.protected_table as t where t.id = v_table.parent_id;
    select string_agg(format('p.%I = new.%I', u.parent, u.child), ' and ' order by u.n)
    into v_link
    from unnest(v_table.parent_columns, v_table.via_columns) with ordinality as u (parent, child, n);
    perform gdpr_generated.define(format(
      $code$
create or replace function gdpr_generated.%1$I()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
declare
  v_subject bigint;
  v_found boolean;
begin
  if tg_op = 'UPDATE' and tg_nargs = 0 and %5$s then
    if new.gdpr_subject_id is distinct from old.gdpr_subject_id and new.gdpr_subject_id is not null then
      -- the parent row went to another person and took this row along: so do the rows below
      perform gdpr_generated.move_children(%6$s::smallint, new);
    end if;
    return new;
  end if;
  if %2$s then
    -- an orphan stays with the person it was about; a new row without a parent is a person of its own
    new.gdpr_subject_id := case when tg_op = 'UPDATE' then old.gdpr_subject_id end;
    return new;
  end if;
  select p.gdpr_subject_id, true into v_subject, v_found from %3$s as p where %4$s;
  -- a row policy that somebody planted on the parent has just run as gdpr_worker
  perform gdpr_internal.require_worker();
  if not coalesce(v_found, false) then
    perform gdpr_internal.refuse('not_yet_linked');
  elsif v_subject is null then
    perform gdpr_internal.refuse('erased');
  end if;
  new.gdpr_subject_id := v_subject;
  if tg_op = 'UPDATE' and v_subject is distinct from old.gdpr_subject_id and old.gdpr_subject_id is not null then
    perform gdpr_generated.move_children(%6$s::smallint, new);
  end if;
  return new;
end
$body$
$code$,
      'subject_' || p_table,
      (select string_agg(format('new.%I is null', c), ' or ') from unnest(v_table.via_columns) as c),
      v_parent, v_link,
      (
        select format('(%s)', string_agg(format('new.%1$I is not distinct from old.%1$I', c), ' and ') || ' or new.gdpr_subject_id is null')
        from unnest(v_table.via_columns) as c
      ),
      p_table
    ));
    execute format(
      'comment on function gdpr_generated.%I() is %L', 'subject_' || p_table,
      format('Before a row of %s is stored: the subject of its parent row. Generated by gdpr.apply().', v_table.relation)
    );
    execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'subject_' || p_table);
  end if;

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_keys text[])
returns bigint[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
declare
  v_subjects bigint[];
begin
  select array_agg(distinct t.gdpr_subject_id) into v_subjects
  from %2$s
  where t.gdpr_subject_id is not null;
  set constraints all immediate;
  return v_subjects;
exception when data_exception then
  perform gdpr_internal.refuse('invalid_argument', 'the key does not have the type of the primary key');
  return null;
end
$body$
$code$,
    'subjects_of_' || p_table, gdpr_generated.key_rows(v_table.relation)
  ));
  execute format(
    'comment on function gdpr_generated.%I(text[]) is %L', 'subjects_of_' || p_table,
    format('The subjects of rows of %s by their primary keys. Generated by gdpr.apply().', v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I(text[]) to gdpr_owner', 'subjects_of_' || p_table);
  perform gdpr_generated.generate_births(p_table);
  perform gdpr_generated.generate_keys(p_table);
  perform gdpr_generated.generate_export(p_table);
  perform gdpr_generated.generate_contacts(p_table);
  perform gdpr_generated.generate_access(p_table);
  perform gdpr_generated.generate_retention(p_table);
  perform gdpr_generated.generate_rectify(p_table);

  select string_agg(format(
    E' or (t.gdpr_subject_id is not null and t.%1$I is not null and (not starts_with(t.%1$I, ''gdpr1:'') or gdpr_internal.value_subject(t.%1$I) is distinct from t.gdpr_subject_id))',
    c.column_name), '')
  into v_link
  from gdpr_internal.protected_column as c
  where c.table_id = p_table and c.encrypt <> 'no';
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns table (gates bigint, orphans bigint, plain bigint)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
begin
  return query
  select
    count(*) filter (where t.gdpr_subject_id is not null and s.erased_at is null
      and (t.gdpr_purposes, t.gdpr_until) is distinct from (s.purposes & %3$s, s.until)),
    count(*) filter (where t.gdpr_subject_id is null and t.gdpr_purposes is distinct from 9223372036854775807),
    count(*) filter (where false%4$s)
  from %2$s as t
  left join gdpr_internal.subject as s on s.id = t.gdpr_subject_id;
  set constraints all immediate;
end
$body$
$code$,
    'check_' || p_table, v_table.relation, v_table.purpose_mask | (1::bigint << 62), coalesce(v_link, '')
  ));
  execute format('comment on function gdpr_generated.%I() is %L', 'check_' || p_table,
    format('Counts rows of %s whose gate differs from the person''s, that belong to nobody, or hold plaintext. Generated by gdpr.apply().', v_table.relation));
  execute format('grant execute on function gdpr_generated.%I() to gdpr_owner', 'check_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_rows(smallint) is 'Generates the functions of a protected table that touch its rows: spread the gate, find the parent.';

create or replace function gdpr_generated.move_children(p_table smallint, p_row anyelement)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_child record;
begin
  for v_child in
    select c.relation,
      (select string_agg(format('c.%I = ($1).%I', u.child, u.parent), ' and ') from unnest(c.via_columns, c.parent_columns) as u (child, parent)) as link
    from gdpr_internal.protected_table as c
    where c.parent_id = p_table and c.unprotected_at is null
  loop
    execute format('update %s as c set gdpr_subject_id = ($1).gdpr_subject_id where %s', v_child.relation, v_child.link) using p_row;
  end loop;
end
$function$;
comment on function gdpr_generated.move_children(smallint, anyelement) is
  'A row that goes to another person takes the rows below it along; their own triggers encrypt them anew.';

create or replace function gdpr_generated.generate_dispatch()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_calls text;
begin
  select string_agg(format(E'  perform gdpr_generated.%I(p_subjects);\n', 'spread_' || t.id), '' order by t.id)
  into v_calls
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.spread_gate(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
begin
%s  return;
end
$body$
$code$,
    coalesce(v_calls, '')
  ));
  comment on function gdpr_generated.spread_gate(bigint[]) is 'Copies the gate of persons to their rows in every protected table. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.spread_gate(bigint[]) to gdpr_owner;
  perform gdpr_generated.generate_contact_dispatch();
  perform gdpr_generated.generate_access_dispatch();
  perform gdpr_generated.generate_erasures();
end
$function$;
comment on function gdpr_generated.generate_dispatch() is
  'Generates gdpr_generated.spread_gate(), contacts(), access_rows(), one static call for each protected table, and the functions of erasure, which follow the foreign keys between all protected tables.';

create or replace function gdpr_generated.drop_generated_rows(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc as p
    where p.pronamespace = 'gdpr_generated'::regnamespace and p.proowner = 'gdpr_worker'::regrole
      and p.proname ~ format('^[a-z_]+_%s$', p_table)
  loop
    execute format('drop function %s', v_function);
  end loop;
end
$function$;
comment on function gdpr_generated.drop_generated_rows(smallint) is 'Drops what generate_rows() made.';

-- 40_protection/62_generate_births.sql
-- [code] The generator of the function that reads the birth dates of persons, as they are stored.
-- GDPR Art. 8. It belongs to gdpr_worker, as all that touches rows: ciphertext comes out as ciphertext.

set local role gdpr_worker;

create or replace function gdpr_generated.generate_births(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
-- what is dropped need not have been there
set client_min_messages = warning
-- what is not there need not be dropped, nor spoken of
set client_min_messages = 'warning'
as $function$
declare
  v_column record;
begin
  select c.column_name, t.relation, c.encrypt into v_column
  from gdpr_internal.protected_column as c
  join gdpr_internal.protected_table as t on t.id = c.table_id
  where c.table_id = p_table and c.age
  order by c.id
  limit 1;
  if v_column.column_name is null then
    execute format('drop function if exists gdpr_generated.%I(bigint[])', 'births_' || p_table);
    return;
  end if;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_subjects bigint[])
returns table (subject_id bigint, birth text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set datestyle = 'ISO'
set timezone = 'UTC'
as $body$
begin
  return query
  select t.gdpr_subject_id, t.%2$I::text from %3$s as t where t.gdpr_subject_id = any (p_subjects) and t.%2$I is not null;
  set constraints all immediate;
end
$body$
$code$,
    'births_' || p_table, v_column.column_name, v_column.relation
  ));
  execute format('comment on function gdpr_generated.%I(bigint[]) is %L', 'births_' || p_table,
    format('Birth dates in %s of these persons, as stored. Generated by gdpr.apply().', v_column.relation));
  execute format('grant execute on function gdpr_generated.%I(bigint[]) to gdpr_owner', 'births_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_births(smallint) is 'Generates births_<table> for a table with a column marked age = true, and drops it for others.';

-- 40_protection/64_generate_keys.sql
-- [code] The generator of the function that lists the primary keys of rows and whose they are.
-- GDPR Art. 17(3). It belongs to gdpr_worker, as all that touches rows; what becomes of the keys (a digest) is not its business.

set local role gdpr_worker;

create or replace function gdpr_generated.generate_keys(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_named text;
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  v_named := gdpr_generated.key_rows(v_relation);
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_subjects bigint[], p_keys text[])
returns table (subject_id bigint, row_key text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
begin
  if p_subjects is not null then
    return query
    select t.gdpr_subject_id, %3$s from %2$s as t where t.gdpr_subject_id = any (p_subjects);
  else
    return query
    select t.gdpr_subject_id, %3$s from %4$s;
  end if;
  set constraints all immediate;
exception when data_exception then
  perform gdpr_internal.refuse('invalid_argument', 'the key does not have the type of the primary key');
end
$body$
$code$,
    'keys_' || p_table, v_relation, gdpr_internal.key_text(v_relation, 't'),
    v_named
  ));
  execute format('comment on function gdpr_generated.%I(bigint[], text[]) is %L', 'keys_' || p_table,
    format('Primary keys of rows of %s and whose they are: of these persons, or named by these keys. Generated by gdpr.apply().', v_relation));
  execute format('grant execute on function gdpr_generated.%I(bigint[], text[]) to gdpr_owner', 'keys_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_keys(smallint) is 'Generates keys_<table>, which lists primary keys.';

create or replace function gdpr_generated.key_rows(p_relation regclass)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- keys become values of their types apart: a condition that casts is not leakproof, and under row security reads the whole table
  select format(
    '(select u.n%s from unnest(p_keys) with ordinality as u (key, n) offset 0) as k join %s as t on %s',
    string_agg(
      format(', (%s)::%s as %I', case when x.indnatts = 1 then 'u.key' else format('u.key::jsonb ->> %s', k.n - 1) end,
        format_type(a.atttypid, a.atttypmod), 'k' || k.n),
      '' order by k.n
    ),
    p_relation,
    coalesce(string_agg(format('t.%I = k.%I', a.attname, 'k' || k.n), ' and ' order by k.n), 'gdpr_internal.refuse(''no_primary_key'')')
  )
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = p_relation and x.indisprimary;
end;
comment on function gdpr_generated.key_rows(regclass) is
  'The SQL that finds rows t by p_keys, their primary keys as text (several columns: a JSON array of texts), in the order k.n; one that refuses without a primary key.';

-- 40_protection/65_generate_contacts.sql
-- [code] Where a person can be written to, and in which language: read from the tables whose rows are persons.
-- GDPR Art. 7, 12(1). The rows are read by gdpr_worker's generated functions, as stored; gdpr_keyholder opens what is encrypted.

set local role gdpr_worker;

create or replace function gdpr_generated.generate_contacts(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_email record;
  v_language record;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select c.id, format('nullif(format(''%%s'', t.%I), '''')', c.column_name) as value into v_email
  from gdpr_internal.protected_column as c
  where c.table_id = p_table and c.identifier = 'email' and v_table.parent_id is null
  order by c.position
  limit 1;
  select c.id, format('nullif(format(''%%s'', t.%I), '''')', c.column_name) as value into v_language
  from gdpr_internal.protected_column as c
  where c.table_id = p_table and v_table.definition -> 'columns' -> c.column_name::text ->> 'language' = 'true'
  order by c.position
  limit 1;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_subjects bigint[])
returns table (subject_id bigint, email text, email_column integer, language text, language_column integer)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set plan_cache_mode = force_generic_plan
set debug_print_plan = off
as $body$
begin
  return query
  select distinct on (t.gdpr_subject_id) t.gdpr_subject_id, %2$s, %3$s, %4$s, %5$s
  from %6$s as t
  where t.gdpr_subject_id = any (p_subjects)%7$s
  -- of several rows of a person, the one written last
  order by t.gdpr_subject_id, t.ctid desc;
  set constraints all immediate;
end
$body$
$code$,
    'contacts_' || p_table,
    coalesce(v_email.value, 'null::text'), coalesce(v_email.id::text, 'null::integer'),
    coalesce(v_language.value, 'null::text'), coalesce(v_language.id::text, 'null::integer'),
    v_table.relation, case when v_email.id is null and v_language.id is null then ' and false' else '' end
  ));
  execute format(
    'comment on function gdpr_generated.%I(bigint[]) is %L', 'contacts_' || p_table,
    format('E-mail address and language of persons as %s stores them. Generated by gdpr.apply().', v_table.relation)
  );
end
$function$;
comment on function gdpr_generated.generate_contacts(smallint) is
  'Generates the look-up of address and language in a protected table: the first column with identifier = "email" (tables of persons alone), the first with language = true.';

create or replace function gdpr_generated.generate_contact_dispatch()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_calls text;
begin
  select string_agg(
    format(E'  return query select %s, c.* from gdpr_generated.%I(p_subjects) as c;\n', t.id, 'contacts_' || t.id), '' order by t.depth, t.id
  )
  into v_calls
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.contacts(p_subjects bigint[])
returns table (n integer, subject_id bigint, email text, email_column integer, language text, language_column integer)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
begin
%s  return;
end
$body$
$code$,
    coalesce(v_calls, '')
  ));
  comment on function gdpr_generated.contacts(bigint[]) is
    'E-mail address and language of persons, as each protected table stores them. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.contacts(bigint[]) to gdpr_keyholder;
end
$function$;
comment on function gdpr_generated.generate_contact_dispatch() is 'Generates gdpr_generated.contacts(): one static call for each protected table.';

set local role gdpr_keyholder;

create or replace function gdpr_internal.contacts(p_subjects bigint[])
returns table (subject_id bigint, email text, language text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_ids bigint[];
  v_emails text[];
  v_email_columns integer[];
  v_languages text[];
  v_language_columns integer[];
  v_kek bytea;
  v_before text;
begin
  if p_subjects is null then
    return;
  end if;
  v_before := gdpr_internal.before_worker();
  select
    array_agg(p.subject_id), array_agg(p.email), array_agg(p.email_column), array_agg(p.language), array_agg(p.language_column)
  into v_ids, v_emails, v_email_columns, v_languages, v_language_columns
  from (
    select
      c.subject_id,
      (array_agg(c.email order by c.n) filter (where c.email is not null))[1] as email,
      (array_agg(c.email_column order by c.n) filter (where c.email is not null))[1] as email_column,
      (array_agg(c.language order by c.n) filter (where c.language is not null))[1] as language,
      (array_agg(c.language_column order by c.n) filter (where c.language is not null))[1] as language_column
    from gdpr_generated.contacts(p_subjects) as c
    group by c.subject_id
  ) as p;
  perform gdpr_internal.after_worker(v_before);
  if exists (select from unnest(v_emails || v_languages) as v where starts_with(v, 'gdpr1:')) then
    v_kek := (gdpr_internal.keyring()).kek;
  end if;
  return query
  select
    u.subject_id,
    gdpr_internal.open_value(k.data_key, u.subject_id, u.email_column, u.email),
    gdpr_internal.open_value(k.data_key, u.subject_id, u.language_column, u.language)
  from unnest(v_ids, v_emails, v_email_columns, v_languages, v_language_columns)
    as u (subject_id, email, email_column, language, language_column)
  left join lateral (
    select gdpr_internal.unwrap_key(v_kek, int8send(x.subject_id), x.wrapped) as data_key
    from gdpr_internal.subject_key as x
    where x.subject_id = u.subject_id
    offset 0
  ) as k on true;
end
$function$;
comment on function gdpr_internal.contacts(bigint[]) is
  'E-mail address and language of persons, in plaintext, for mails that are about to be queued; only the key is asked for where values are encrypted. Errors: PR402 key locked, PR404.';

-- 40_protection/66_generate_registrations.sql
-- [code] The generator of functions that check and insert registered rows.
-- GDPR Art. 25. They belong to gdpr_worker: casts, domains, CHECK constraints, defaults and triggers that a table's owner made
-- run in them, with neither keys nor evidence in reach.

set local role gdpr_worker;

create or replace function gdpr_generated.registered_columns(p_table smallint)
returns table (column_name name, type text, maximum text, needed boolean, optional boolean)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    a.attname,
    coalesce(c.original_type, format_type(a.atttypid, a.atttypmod)),
    substring(coalesce(c.original_type, format_type(a.atttypid, a.atttypmod)) from '^character(?: varying)?\((\d+)\)$'),
    a.attnotnull,
    a.atthasdef or a.attidentity <> ''
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
  left join gdpr_internal.protected_column as c on c.table_id = t.id and c.column_name = a.attname
  where t.id = p_table and a.attidentity <> 'a' and a.attgenerated = '' and a.attname !~ '^gdpr_'
  order by a.attnum;
end;
comment on function gdpr_generated.registered_columns(smallint) is 'The columns that a registration can fill, with the types they have for applications.';

create or replace function gdpr_generated.failed_checks(p_relation regclass, p_row jsonb)
returns text[]
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_check record;
  v_failed boolean;
  v_problems text[] := '{}';
begin
  for v_check in
    select k.conname, pg_get_expr(k.conbin, k.conrelid) as expression
    from pg_constraint as k
    where k.conrelid = p_relation and k.contype = 'c'
      -- a column that was not given may have a default, which nobody knows yet
      and not exists (
        select from pg_attribute as a
        where a.attrelid = k.conrelid and a.attnum = any (k.conkey) and (a.atthasdef or a.attidentity <> '') and not p_row ? a.attname::text
      )
    order by k.conname
  loop
    begin
      execute format('select exists (select from jsonb_populate_record(null::%s, $1) where not (%s))', p_relation, v_check.expression)
      into v_failed using p_row;
    exception when others then
      -- what cannot be known now is known when the row is inserted
      v_failed := false;
    end;
    if v_failed then
      v_problems := v_problems || format('constraint %I', v_check.conname);
    end if;
  end loop;
  return v_problems;
end
$function$;
comment on function gdpr_generated.failed_checks(regclass, jsonb) is
  'The CHECK constraints of a table that a row would violate; they run here as gdpr_worker, like everything that a table''s owner made.';

create or replace function gdpr_generated.generate_registrations(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
-- what is dropped need not have been there
set client_min_messages = warning
-- what is not there need not be dropped, nor spoken of
set client_min_messages = 'warning'
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_schema name;
  v_names text;
  v_columns text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  if not v_table.definition ? 'double_opt_in' then
    execute format('drop function if exists gdpr_generated.%I(jsonb)', 'check_registration_' || p_table);
    execute format('drop function if exists gdpr_generated.%I(jsonb)', 'insert_registration_' || p_table);
    return;
  end if;
  select n.nspname into v_schema from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = v_table.relation;
  select
    string_agg(quote_literal(c.column_name), ', '),
    string_agg(concat(
      -- the values themselves never go into a problem
      format(
        E'  begin\n    perform from jsonb_to_record(p_row) as x (%1$I %2$s);\n'
        '  exception when others then\n    v_problems := v_problems || %3$L::text;\n  end;\n',
        c.column_name, c.type,
        format('column %I: ', c.column_name) || case when c.maximum is not null then format('longer than %s characters', c.maximum) else 'no value of type ' || c.type end
      ),
      case when c.needed then format(
        E'  if %1$sp_row ->> %2$L is null then\n    v_problems := v_problems || %3$L::text;\n  end if;\n',
        case when c.optional then format('p_row ? %L and ', c.column_name) else '' end, c.column_name, format('column %I: is missing', c.column_name)
      ) end
    ), '')
  into v_names, v_columns
  from gdpr_generated.registered_columns(p_table) as c;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_row jsonb)
returns text[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, %2$I, pg_temp
set debug_print_plan = off
as $body$
declare
  v_problems text[];
begin
  select coalesce(array_agg(format('column %%I: there is no such column', k.name) order by k.name), '{}') into v_problems
  from jsonb_object_keys(p_row) as k (name)
  where k.name <> all (array[%3$s]);
%4$s  v_problems := v_problems || gdpr_generated.failed_checks(%5$L, p_row);
  set constraints all immediate;
  return v_problems;
end
$body$
$code$,
    'check_registration_' || p_table, v_schema, v_names, v_columns, v_table.relation
  ));
  execute format(
    'comment on function gdpr_generated.%I(jsonb) is %L', 'check_registration_' || p_table,
    format('What keeps a row out of %s, as far as it can be known before. Generated by gdpr.apply().', v_table.relation)
  );
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_row jsonb)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, %2$I, pg_temp
set row_security = on
set debug_print_plan = off
as $body$
declare
  v_subject bigint;
begin
  perform gdpr_internal.refuse_deferred(%3$L);
  -- only the columns that were given: the others have their defaults
  execute (
    select format(%4$L, string_agg(format('%%I', k.name), ', '), string_agg(format('r.%%I', k.name), ', '))
    from jsonb_object_keys(p_row) as k (name)
    where k.name = any (array[%5$s])
  ) into v_subject using p_row;
  set constraints all immediate;
  return v_subject;
end
$body$
$code$,
    'insert_registration_' || p_table, v_schema, v_table.relation,
    format(
      'insert into %1$s (%%s) select %%s from jsonb_populate_record(null::%1$s, $1) as r returning gdpr_subject_id',
      replace(v_table.relation::text, '%', '%%')
    ),
    v_names
  ));
  execute format(
    'comment on function gdpr_generated.%I(jsonb) is %L', 'insert_registration_' || p_table,
    format('Inserts a confirmed registration into %s and returns its person. Generated by gdpr.apply().', v_table.relation)
  );
  execute format(
    'grant execute on function gdpr_generated.%I(jsonb), gdpr_generated.%I(jsonb) to gdpr_owner',
    'check_registration_' || p_table, 'insert_registration_' || p_table
  );
end
$function$;
comment on function gdpr_generated.generate_registrations(smallint) is
  'Generates the functions that check and insert registered rows of a table whose policy says double_opt_in, drops them elsewhere.';

-- 40_protection/67_erasure_code.sql
-- [code] What erasure needs to know of tables: the foreign keys between them, and the SQL that empties a column.
-- GDPR Art. 17. Read by: the generator of erasure; the doctor.

set local role gdpr_owner;

create or replace view gdpr_internal.protected_link as
select
  k.oid as id,
  k.conname as name,
  c.id as child_id,
  c.relation as child,
  p.id as parent_id,
  p.relation as parent,
  k.confdeltype as on_delete,
  n.child_columns,
  n.parent_columns,
  case
    when k.confmatchtype <> 'f' then n.nullable[1:1]
    when cardinality(n.nullable) = cardinality(n.child_columns) then n.nullable
  end as cut_columns
from pg_constraint as k
join gdpr_internal.protected_table as c on c.unprotected_at is null and c.relation = coalesce(pg_partition_root(k.conrelid), k.conrelid)
join gdpr_internal.protected_table as p on p.unprotected_at is null and p.relation = coalesce(pg_partition_root(k.confrelid), k.confrelid)
cross join lateral (
  select
    array_agg(a.attname order by u.n) as child_columns,
    array_agg(f.attname order by u.n) as parent_columns,
    -- of a composite key the column that tells nothing else: one null is enough
    array_agg(a.attname order by s.shared, u.n desc) filter (where not a.attnotnull and a.attgenerated = '' and not s.partitions) as nullable
  from unnest(k.conkey, k.confkey) with ordinality as u (child, parent, n)
  join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.child
  join pg_attribute as f on f.attrelid = k.confrelid and f.attnum = u.parent
  cross join lateral (
    select
      (
        select count(*) from pg_constraint as o
        where o.conrelid = k.conrelid and o.contype in ('f', 'u') and o.conparentid = 0 and u.child = any (o.conkey)
      ) as shared,
      exists (
        select from pg_partitioned_table as x
        join pg_attribute as b on b.attrelid = x.partrelid and b.attnum = any (x.partattrs)
        where x.partrelid = c.relation and b.attname = a.attname
      ) as partitions
  ) as s
) as n
where k.contype = 'f' and k.conparentid = 0;
comment on view gdpr_internal.protected_link is
  'Foreign keys between protected tables, partitions counted as their table. cut_columns: what has to be null to cut the link (null: it cannot be cut).';

create or replace function gdpr_internal.link_fingerprint()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select md5(coalesce(string_agg(
    concat_ws(' ', l.child_id, l.name, l.parent_id, l.on_delete, l.child_columns::text, l.parent_columns::text, l.cut_columns::text), ',' order by l.child_id, l.name
  ), ''))
  from gdpr_internal.protected_link as l;
end;
comment on function gdpr_internal.link_fingerprint() is 'A hash of the foreign keys that erasure was generated for: the application may have added one since.';

create or replace function gdpr_internal.erase_columns(p_table smallint, p_about name default null)
returns setof gdpr_internal.erase_fact
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    a.attname,
    r.rule,
    y.type,
    substring(y.type from '^character(?: varying)?\((\d+)\)$')::integer,
    coalesce(c.original ? 'unique_name', false) or exists (
      select from pg_index as x where x.indrelid = t.relation and x.indisunique and x.indkey::text = a.attnum::text
    ),
    coalesce(c.encrypt <> 'no', false)
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
    and a.attname !~ '^gdpr_' and a.attidentity = '' and a.attgenerated = ''
  left join gdpr_internal.protected_column as c on c.table_id = t.id and c.column_name = a.attname
  cross join lateral (
    select coalesce(case when p_about is null or c.erase <> 'keep' then c.erase end, gdpr_internal.erase_rule(t.relation, a.attname, null)) as rule
  ) as r
  cross join lateral (select coalesce(c.original_type, format_type(a.atttypid, a.atttypmod)) as type) as y
  where t.id = p_table and r.rule <> 'keep' and (p_about is null or c.about = p_about)
    -- keys say nothing by themselves, and others refer to them: only the policy's word empties one
    and (c.erase is not null and r.rule <> 'neutral' or a.attname = any (gdpr_internal.emptied_columns(t.relation)))
  order by a.attnum;
end;
comment on function gdpr_internal.erase_columns(smallint, name) is 'The columns that anonymisation empties, and how; one that nobody classified, too. p_about: those about the person whom this link of a joint row leads to.';

create or replace function gdpr_internal.generalised_code(p_column gdpr_internal.erase_fact, p_row text, p_to text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when p_to = 'initial' and (p_column).encrypted then format('left(%s.%I, 1)', p_row, 'gdpr_' || (p_column).column_name || '_mask')
    when p_to = 'initial' then format('left(%s.%I, 1)', p_row, (p_column).column_name)
    when p_to = 'year' and (p_column).encrypted then format('to_char(%s.%I, ''YYYY-MM-DD'')', p_row, 'gdpr_' || (p_column).column_name || '_mask')
    when p_to in ('year', 'decade') and gdpr_internal.base_type((p_column).type) = 'timestamp with time zone'
      then format('date_trunc(%L, %s.%I at time zone ''UTC'') at time zone ''UTC''', p_to, p_row, (p_column).column_name)
    when p_to in ('year', 'decade') then format('date_trunc(%L, %s.%I)::%s', p_to, p_row, (p_column).column_name, (p_column).type)
    when gdpr_internal.base_type((p_column).type) in ('text', 'character varying', 'character')
      then format('left(%s.%I, %s)', p_row, (p_column).column_name, p_to)
    else format('(floor(%1$s.%2$I::numeric / %3$s) * %3$s)::%4$s', p_row, (p_column).column_name, p_to, (p_column).type)
  end;
end;
comment on function gdpr_internal.generalised_code(gdpr_internal.erase_fact, text, text) is
  'The SQL of a value made coarser; of an encrypted column, whose key goes, what its mask shows.';

create or replace function gdpr_internal.pruned_code(p_column gdpr_internal.erase_fact, p_row text, p_paths jsonb, p_only boolean)
returns text
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_code text := format('%s.%I::jsonb', p_row, p_column.column_name);
  v_path jsonb;
begin
  if p_only then
    v_code := format('gdpr_internal.json_only(%s, %L)', v_code, p_paths);
  else
    for v_path in select p from jsonb_array_elements(p_paths) as p loop
      v_code := format('gdpr_internal.json_without(%s, %L)', v_code, array(select jsonb_array_elements_text(v_path)));
    end loop;
  end if;
  return format('(%s)::%s', v_code, p_column.type);
end
$function$;
comment on function gdpr_internal.pruned_code(gdpr_internal.erase_fact, text, jsonb, boolean) is
  'The SQL of a document without what stands at these paths, or (p_only) with nothing else.';

create or replace function gdpr_internal.erase_expression(p_column gdpr_internal.erase_fact, p_row text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case
    when (p_column).erase = 'null' then 'null'
    when starts_with((p_column).erase, 'value:') then quote_literal(substr((p_column).erase, 7))
    when starts_with((p_column).erase, 'generalise:') then gdpr_internal.generalised_code(p_column, p_row, substr((p_column).erase, 12))
    when starts_with((p_column).erase, 'without:') then gdpr_internal.pruned_code(p_column, p_row, substr((p_column).erase, 9)::jsonb, false)
    when starts_with((p_column).erase, 'only:') then gdpr_internal.pruned_code(p_column, p_row, substr((p_column).erase, 6)::jsonb, true)
    when (p_column).is_unique then 'left(''erased-'' || gen_random_uuid()::text, ' || coalesce((p_column).maximum, 43) || ')'
    else gdpr_internal.neutral_value((p_column).type)
  end;
end;
comment on function gdpr_internal.erase_expression(gdpr_internal.erase_fact, text) is
  'What an erased column of the row p_row holds afterwards: null, the policy''s value, less of what it was, or a neutral value where null is not allowed.';

-- 40_protection/67_generate_access.sql
-- [code] The generator of functions that read everything a person has in a table, for the person.
-- GDPR Art. 15, 20. They belong to gdpr_worker and return rows as stored; gdpr_keyholder opens what is encrypted afterwards.

set local role gdpr_worker;

create or replace function gdpr_generated.access_code(
  p_table smallint, out rows_of_person text, out concerns_person text, out hidden text, out row_key text
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_parent regclass;
  v_link record;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select t.relation into v_parent from gdpr_internal.protected_table as t where t.id = v_table.parent_id;
  rows_of_person := format('select t.tableoid as gdpr_part, t.ctid, t.* from %s as t where t.gdpr_subject_id = p_subject', v_table.relation);
  concerns_person := 't.gdpr_subject_id = p_subject';
  hidden := '';
  for v_link in
    select
      l.name,
      case when l.name = any (v_table.via_columns) then 't.gdpr_subject_id = p_subject' else format(
        'exists (select from %s as p where p.%I = t.%I and p.gdpr_subject_id = p_subject)', v_parent, v_table.parent_columns[1], l.name
      ) end as mine,
      array(
        select c.column_name from gdpr_internal.protected_column as c where c.table_id = p_table and c.about = l.name order by c.position
      ) as columns,
      l.name = any (v_table.via_columns) as via
    from unnest(v_table.via_columns || v_table.joint_columns) with ordinality as l (name, n)
    where v_table.joint_columns is not null
    order by l.n
  loop
    hidden := hidden || format(
      E'\n      - case when %s then array[]::text[] when t.%I is null and t.gdpr_subject_id = p_subject then array[]::text[] else %L::text[] end',
      v_link.mine, v_link.name, v_link.columns || v_link.name
    );
    if not v_link.via then
      concerns_person := concerns_person || ' or ' || v_link.mine;
      rows_of_person := rows_of_person || format(
        E'\n      union all\n      select t.tableoid, t.ctid, t.* from %s as p join %s as t on t.%I = p.%I where p.gdpr_subject_id = p_subject',
        v_parent, v_table.relation, v_link.name, v_table.parent_columns[1]
      );
    end if;
  end loop;
  if v_table.joint_columns is not null then
    rows_of_person := format(E'select distinct on (u.gdpr_part, u.ctid) u.* from (\n      %s\n    ) as u', rows_of_person);
  end if;
  select coalesce(string_agg(format('t.%I', a.attname), ', ' order by k.n), 't.ctid')
  into row_key
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = v_table.relation and x.indisprimary;
end
$function$;
comment on function gdpr_generated.access_code(smallint) is
  'The SQL from which access to a table is generated: the rows that concern a person, of which she may be a joint holder; whether a row t does; what to take from a joint row because it is about the others; the order of rows.';

create or replace function gdpr_generated.generate_access(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_columns text;
  v_code record := gdpr_generated.access_code(p_table);
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  select string_agg(format('t.%I', a.attname), ', ' order by a.attnum)
  into v_columns
  from pg_attribute as a
  where a.attrelid = v_relation and a.attnum > 0 and not a.attisdropped and not gdpr_internal.is_control_column(p_table, a.attname);

  -- offset 0: the rows are found by the person, or by their place, and sorted then; never read in the order of another index
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_subject bigint, p_part oid, p_places tid[])
returns table (owner_id bigint, content jsonb)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set debug_print_plan = off
set timezone = 'UTC'
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 3
set bytea_output = 'hex'
as $body$
#variable_conflict use_variable
begin
  if p_places is null then
    return query
    select t.gdpr_subject_id, (select to_jsonb(gdpr_row) from (select %3$s) as gdpr_row)%4$s
    from (
      %5$s
      offset 0
    ) as t
    order by %6$s;
  else
    return query
    select t.gdpr_subject_id, (select to_jsonb(gdpr_row) from (select %3$s) as gdpr_row)%4$s
    from (select t.ctid, t.* from %2$s as t where t.tableoid = p_part and t.ctid = any (p_places) offset 0) as t
    where %7$s
    order by %6$s;
  end if;
  set constraints all immediate;
end
$body$
$code$,
    'access_' || p_table, v_relation, v_columns, v_code.hidden, v_code.rows_of_person, v_code.row_key, v_code.concerns_person
  ));
  execute format(
    'comment on function gdpr_generated.%I(bigint, oid, tid[]) is %L', 'access_' || p_table,
    format('A person''s rows in %s as stored: all, or those at some places of a partition. Generated by gdpr.apply().', v_relation)
  );
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_subject bigint, p_size integer)
returns table (part oid, places tid[])
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $body$
#variable_conflict use_variable
begin
  return query
  select p.gdpr_part, array_agg(p.ctid order by p.n)
  from (
    select t.gdpr_part, t.ctid, row_number() over (partition by t.gdpr_part order by %3$s) as n
    from (
      %2$s
      offset 0
    ) as t
  ) as p
  group by p.gdpr_part, (p.n - 1) / p_size
  order by p.gdpr_part, (p.n - 1) / p_size;
  set constraints all immediate;
end
$body$
$code$,
    'access_pages_' || p_table, v_code.rows_of_person, v_code.row_key
  ));
  execute format(
    'comment on function gdpr_generated.%I(bigint, integer) is %L', 'access_pages_' || p_table,
    format('Where a person''s rows in %s are, so many at a time. Generated by gdpr.apply().', v_relation)
  );
end
$function$;
comment on function gdpr_generated.generate_access(smallint) is
  'Generates the functions that read all rows of a person in a protected table, at once or by their places.';

create or replace function gdpr_generated.generate_access_dispatch()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_rows text;
  v_pages text;
begin
  select
    string_agg(format(
      E'  if p_tables is null or %1$s = any (p_tables) then\n'
      '    return query select %1$s::smallint, r.* from gdpr_generated.%2$I(p_subject, p_part, p_places) as r;\n'
      '  end if;\n',
      t.id, 'access_' || t.id
    ), '' order by t.depth, t.id),
    string_agg(format(
      E'  return query select %1$s::smallint, p.part, p.places from gdpr_generated.%2$I(p_subject, p_size) as p;\n',
      t.id, 'access_pages_' || t.id
    ), '' order by t.depth, t.id)
  into v_rows, v_pages
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.access_rows(p_subject bigint, p_tables smallint[], p_part oid, p_places tid[])
returns table (table_id smallint, owner_id bigint, content jsonb)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
begin
%s  return;
end
$body$
$code$,
    coalesce(v_rows, '')
  ));
  comment on function gdpr_generated.access_rows(bigint, smallint[], oid, tid[]) is
    'A person''s rows as stored, in some protected tables (null: all), or at some places of one. Generated by gdpr.apply().';
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.access_pages(p_subject bigint, p_size integer)
returns table (table_id smallint, part oid, places tid[])
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
begin
%s  return;
end
$body$
$code$,
    coalesce(v_pages, '')
  ));
  comment on function gdpr_generated.access_pages(bigint, integer) is
    'Where a person''s rows are in every protected table, so many at a time. Generated by gdpr.apply().';
  grant execute on function
    gdpr_generated.access_rows(bigint, smallint[], oid, tid[]), gdpr_generated.access_pages(bigint, integer) to gdpr_keyholder;
end
$function$;
comment on function gdpr_generated.generate_access_dispatch() is
  'Generates gdpr_generated.access_rows() and access_pages(): one static call for each protected table.';

-- 40_protection/67_generate_rectify.sql
-- [code] Reading single values of rows as stored, and the generator of the function that corrects them.
-- GDPR Art. 16. They belong to gdpr_worker: casts, domains, triggers and constraints that a table's owner made run in them, with
-- neither keys nor evidence in reach. Values are told as text that is the same in every session.

set local role gdpr_worker;

create or replace function gdpr_generated.key_code(p_relation regclass, p_key text, p_typed boolean)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select string_agg(
    case when p_typed then format('t.%I = ', a.attname) else '' end
    || format('(%s)::%s', case when x.indnatts = 1 then p_key else format('%s::jsonb ->> %s', p_key, k.n - 1) end, format_type(a.atttypid, a.atttypmod)),
    case when p_typed then ' and ' else ', ' end order by k.n
  )
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = p_relation and x.indisprimary;
end;
comment on function gdpr_generated.key_code(regclass, text, boolean) is
  'The SQL that finds a row t by its primary key as text, or (p_typed false) that only reads the text with the key''s types; null without a primary key.';

create or replace function gdpr_generated.readable_keys(p_relation regclass, p_keys text[])
returns text[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_read text := format(
    'select count((%s)) from unnest($1) as k (key)', coalesce(gdpr_generated.key_code(p_relation, 'k.key', false), 'k.key')
  );
  v_keys text[] := p_keys;
begin
  begin
    execute v_read using p_keys;
  exception when others then
    -- one of them is no key of this table: which, only one at a time can tell
    for i in 1 .. cardinality(p_keys) loop
      begin
        execute v_read using array[p_keys[i]];
      exception when others then
        v_keys[i] := null;
      end;
    end loop;
  end;
  return v_keys;
end
$function$;
comment on function gdpr_generated.readable_keys(regclass, text[]) is 'The keys, null for those that cannot be one of this table: they find no row.';

create or replace function gdpr_generated.read_values(p_relation regclass, p_column name, p_type text, p_values text[])
returns table (value text, wrong boolean)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
as $function$
declare
  v_read text;
  v_values text[];
  v_one text[];
  v_wrong boolean[] := array_fill(false, array[cardinality(p_values)]);
begin
  -- the type's own input function, as COPY would call it: a cast would cut a text that is too long. A type of p_type is
  -- PostgreSQL's own; any other is read as part of a row, because its schema may be closed to gdpr_worker.
  v_read := format(
    'select array_agg(%s order by v.n) from unnest($1) with ordinality as v (value, n)',
    case
      when p_type in ('json', 'jsonb') then format('v.value::%s::text', p_type)
      when p_type is not null then gdpr_internal.text_expression(
        format('(select x.value from jsonb_to_record(jsonb_build_object(''value'', v.value)) as x (value %s))', p_type), p_type
      )
      else format('gdpr.text_of((jsonb_populate_record((select t from %s as t limit 1), jsonb_build_object(%L, v.value))).%I)', p_relation, p_column, p_column)
    end
  );
  begin
    execute v_read into v_values using p_values;
  exception when others then
    v_values := '{}';
    for i in 1 .. cardinality(p_values) loop
      begin
        execute v_read into v_one using p_values[i:i];
        v_values[i] := v_one[1];
      exception when others then
        v_values[i] := null;
        v_wrong[i] := true;
      end;
    end loop;
  end;
  return query select u.value, u.wrong from unnest(v_values, v_wrong) as u (value, wrong);
end
$function$;
comment on function gdpr_generated.read_values(regclass, name, text, text[]) is
  'Values as a column would hold them, in order, as text that is the same in every session; wrong: the column cannot hold it. p_type: a type of PostgreSQL''s own that the column has or, encrypted, had; else null.';

create or replace function gdpr_generated.read_cells(p_table smallint, p_keys text[], p_columns name[], p_values text[], p_lock boolean)
returns table (n bigint, row_key text, subject_id bigint, stored text, value text, wrong boolean)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
as $function$
declare
  v_relation regclass;
  v_keys text[];
  v_column record;
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  v_keys := gdpr_generated.readable_keys(v_relation, p_keys);
  for v_column in
    select c.column_name, c.stored_expression, c.own_type, array_agg(u.n order by u.n) as places,
      array_agg(u.key order by u.n) as keys, array_agg(u.value order by u.n) as given
    from unnest(v_keys, p_columns, p_values) with ordinality as u (key, column_name, value, n)
    join gdpr_internal.rectifiable_columns(p_table) as c on c.column_name = u.column_name
    group by c.column_name, c.stored_expression, c.own_type
  loop
    return query execute format(
      'select $1[r.n], f.row_key, f.subject_id, f.stored, r.value, r.wrong '
      'from gdpr_generated.read_values($2, $3, $4, $5) with ordinality as r (value, wrong, n) '
      'left join ('
      'select k.n, %1$s as row_key, t.gdpr_subject_id as subject_id, %2$s as stored '
      'from unnest($6) with ordinality as k (key, n) join %3$s as t on %4$s where t.gdpr_subject_id is not null%5$s'
      ') as f on f.n = r.n',
      gdpr_internal.key_text(v_relation, 't'), v_column.stored_expression, v_relation,
      coalesce(gdpr_generated.key_code(v_relation, 'k.key', true), 'gdpr_internal.refuse(''no_primary_key'')'),
      case when p_lock then ' for no key update of t' else '' end
    ) using v_column.places, v_relation, v_column.column_name, v_column.own_type, v_column.given, v_column.keys;
  end loop;
  set constraints all immediate;
end
$function$;
comment on function gdpr_generated.read_cells(smallint, text[], name[], text[], boolean) is
  'For each place of the lists: the row of that key, whose it is, what the column holds as stored (ciphertext stays so), and the new value as the column would hold it. p_lock: against changes until the transaction ends. Error: PR408.';

create or replace function gdpr_generated.cells_of(p_table smallint, p_subjects bigint[], p_column name, p_lock boolean)
returns table (row_key text, subject_id bigint, stored text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
as $function$
declare
  v_relation regclass;
  v_stored text;
begin
  select t.relation, c.stored_expression into strict v_relation, v_stored
  from gdpr_internal.protected_table as t
  join gdpr_internal.rectifiable_columns(p_table) as c on c.column_name = p_column
  where t.id = p_table;
  return query execute format(
    'select %s, t.gdpr_subject_id, %s from %s as t where t.gdpr_subject_id = any ($1) and t.%I is not null%s',
    gdpr_internal.key_text(v_relation, 't'), v_stored, v_relation, p_column, case when p_lock then ' for no key update of t' else '' end
  ) using p_subjects;
  set constraints all immediate;
end
$function$;
comment on function gdpr_generated.cells_of(smallint, bigint[], name, boolean) is 'What a column holds in all rows of these persons, as stored.';

create or replace function gdpr_generated.generate_rectify(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_schema name;
  v_columns text;
begin
  select t.relation, n.nspname into strict v_relation, v_schema
  from gdpr_internal.protected_table as t
  join pg_class as c on c.oid = t.relation
  join pg_namespace as n on n.oid = c.relnamespace
  where t.id = p_table;
  select string_agg(
    format('(%L, %L)', c.column_name, format(
      case when not c.encrypted and c.own_type in ('json', 'jsonb')
        then 'case when v.changes ? %1$L then (v.changes ->> %1$L)::%3$s else t.%2$I end' else '(jsonb_populate_record(t, v.changes)).%2$I' end,
      c.column_name, c.column_name, c.own_type
    )), ', '
  )
  into v_columns
  from gdpr_internal.rectifiable_columns(p_table) as c
  where c.refusal is null;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_keys text[], p_subjects bigint[], p_changes jsonb[])
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, %2$I, pg_temp
set row_security = on
set debug_print_plan = off
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
as $body$
declare
  v_rows bigint;
begin
  perform gdpr_internal.refuse_deferred(%3$L);
  -- only columns that some row changes: the application's triggers of the others stay quiet
  execute (
    select format(%4$L, string_agg(format('%%I = %%s', c.name, c.value), ', '))
    from (values %5$s) as c (name, value)
    where exists (select from unnest(p_changes) as x where x ? c.name)
  ) using p_keys, p_subjects, p_changes;
  get diagnostics v_rows = row_count;
  set constraints all immediate;
  return v_rows;
end
$body$
$code$,
    'rectify_' || p_table, v_schema, v_relation,
    format(
      'update %s as t set %%s from unnest($1, $2, $3) as v (key, subject_id, changes) where %s and t.gdpr_subject_id = v.subject_id',
      replace(v_relation::text, '%', '%%'), replace(coalesce(gdpr_generated.key_code(v_relation, 'v.key', true), 'false'), '%', '%%')
    ),
    coalesce(v_columns, '(null, null)')
  ));
  execute format(
    'comment on function gdpr_generated.%I(text[], bigint[], jsonb[]) is %L', 'rectify_' || p_table,
    format('Corrects rows of %s by primary key and person; {"column": value as text}. Returns the rows. Generated by gdpr.apply().', v_relation)
  );
  execute format('grant execute on function gdpr_generated.%I(text[], bigint[], jsonb[]) to gdpr_owner', 'rectify_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_rectify(smallint) is 'Generates the function that corrects rows of a protected table.';

-- 40_protection/68_erasure_steps.sql
-- [code] The generator of the steps of erasure: for each protected table one function a step.
-- GDPR Art. 17. All belong to gdpr_worker. Rows go whatever shape the foreign keys have: what stays is found first, rows
-- that it cannot but refer to are anonymised, other links to what goes are cut, and tables that refer to each other in a
-- circle are deleted from in one statement, at whose end PostgreSQL checks their keys.

set local role gdpr_worker;

create or replace function gdpr_generated.define_step(p_table smallint, p_step text, p_holds boolean, p_body text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_name name := format('t%s_%s', p_table, p_step);
  v_relation regclass;
  v_schema name;
begin
  -- the application's own triggers run inside these functions and may rely on their schema
  select t.relation, n.nspname into strict v_relation, v_schema
  from gdpr_internal.protected_table as t
  join pg_class as c on c.oid = t.relation
  join pg_namespace as n on n.oid = c.relnamespace
  where t.id = p_table;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_subjects bigint[]%2$s)
returns setof gdpr_internal.erased_fact
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, %3$I, pg_temp
set row_security = on
as $body$
begin
%4$s  -- a deferred trigger that somebody planted runs here, not at commit with the rights of the officer
  set constraints all immediate;
end
$body$
$code$,
    v_name, case when p_holds then ', p_holds gdpr_internal.held_fact[]' else '' end, v_schema, gdpr_internal.indented(p_body, '  ')
  ));
  execute format(
    'comment on function gdpr_generated.%I is %L', v_name,
    format('Erasure in %s, step %s. Generated by gdpr.apply().', v_relation, p_step)
  );
end
$function$;
comment on function gdpr_generated.define_step(smallint, text, boolean, text) is 'Defines one step of the erasure of a table.';

create or replace function gdpr_generated.facts_code(p_table smallint, p_what text, p_rows text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select format(
    E'select %1$s::smallint, %2$L, g.subject_id, count(*), %4$s, null::name, null::text[] from %3$s as g group by g.subject_id\n', p_table, p_what, p_rows,
    case p_what when 'kept' then 'min(g.until)' else 'null::timestamptz' end
  ) || coalesce(string_agg(format(
    E'union all\nselect %1$s::smallint, ''review'', g.subject_id, count(*), null::timestamptz, %2$L::name, array_agg(g.row_key) from %3$s as g where g.%4$I group by g.subject_id\n',
    p_table, c.column_name, p_rows, 'review_' || c.id
  ), '' order by c.position), '')
  from gdpr_internal.protected_column as c
  where c.table_id = p_table and c.review and p_what <> 'deleted';
end;
comment on function gdpr_generated.facts_code(smallint, text, text) is 'The query that counts what a step did for each person, and names rows whose free text a human has to read.';

create or replace function gdpr_generated.review_code(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(max(', ' || gdpr_internal.key_text(t.relation, 't') || ' as row_key')
    || string_agg(format(', t.%I is not null as %I', c.column_name, 'review_' || c.id), '' order by c.position), '')
  from gdpr_internal.protected_column as c
  join gdpr_internal.protected_table as t on t.id = c.table_id
  where c.table_id = p_table and c.review;
end;
comment on function gdpr_generated.review_code(smallint) is 'What a step returns of a row besides its person, where the table has free text to review.';

create or replace function gdpr_generated.assign_code(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select string_agg(format('%I = %s', a.attname, x.value), ', ' order by a.attnum)
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
  cross join lateral (
    select case
      when a.attname in ('gdpr_subject_id', 'gdpr_subject_ref') or a.attname ~ '^gdpr_.*_(digest|mask)$' then 'null'
      when a.attname = 'gdpr_purposes' then '9223372036854775807'
      when a.attname = 'gdpr_until' then '''infinity'''
      when a.attname = any (t.via_columns || t.joint_columns) and not a.attnotnull then 'null'
      else (select gdpr_internal.erase_expression(e, 't') from gdpr_internal.erase_columns(t.id) as e where e.column_name = a.attname)
    end as value
  ) as x
  where t.id = p_table and x.value is not null;
end;
comment on function gdpr_generated.assign_code(smallint) is 'The assignments that make a row one of nobody.';

create or replace function gdpr_generated.generate_keep(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_row text;
  v_ends text;
  v_least text;
  v_assign text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  v_row := gdpr_generated.period_code(v_table.definition -> 'erase');
  select
    string_agg(format(', greatest(%s, (w.columns ->> %2$L)::timestamptz, (o.columns ->> %2$L)::timestamptz) as %3$I',
      gdpr_generated.period_code(v_table.definition -> 'columns' -> e.column_name::text -> 'erase'), e.column_name, 'end_' || e.n), '' order by e.n),
    string_agg(format(', case when x.%1$I > statement_timestamp() then x.%1$I end', 'end_' || e.n), '' order by e.n)
      filter (where v_table.definition #> array['columns', e.column_name, 'erase'] ? 'keep_until'),
    string_agg(format(E',\n    %1$I = case when e.until is null or e.row_until > statement_timestamp() or e.%2$I > statement_timestamp() then t.%1$I else %3$s end',
      e.column_name, 'end_' || e.n, gdpr_internal.erase_expression(row(e.column_name, e.erase, e.type, e.maximum, e.is_unique, e.encrypted), 't')), '' order by e.n)
  into v_ends, v_least, v_assign
  from gdpr_internal.erase_columns(p_table) with ordinality as e (column_name, erase, type, maximum, is_unique, encrypted, n)
  where gdpr_internal.erase_expression(row(e.column_name, e.erase, e.type, e.maximum, e.is_unique, e.encrypted), 't') is not null;

  perform gdpr_generated.define_step(p_table, 'keep', true, format(
    $code$perform gdpr_internal.refuse_deferred(%1$L);
-- what follows goes by the place of these rows
perform from %1$s as t where t.gdpr_subject_id = any (p_subjects) for update;
if %2$sp_holds is not null or exists (select from %1$s as t where t.gdpr_subject_id = any (p_subjects) and t.gdpr_purposes < 0) then
  return query
  with single as (
    select h.subject_id, h.row_key, h.column_name, max(h.until) as until
    from unnest(p_holds) as h
    where h.table_id = %3$s
    group by h.subject_id, h.row_key, h.column_name
  ), held as materialized (
    select h.subject_id, h.row_key, max(h.until) filter (where h.column_name is null) as row_until, min(h.until) as until,
      jsonb_object_agg(h.column_name, h.until) filter (where h.column_name is not null) as columns
    from single as h
    group by h.subject_id, h.row_key
  ), kept as (
    update %1$s as t
    set gdpr_purposes = case when e.until is null then %4$s else %5$s end, gdpr_until = coalesce(e.until, 'infinity')%6$s
    from (
      select x.*, case when x.row_until > statement_timestamp() then x.row_until else least(x.held_until%7$s) end as until
      from (
        select t.ctid as place, t.tableoid as part, greatest(%8$s, w.row_until, o.row_until) as row_until,
          least(w.until, o.until) as held_until%9$s
        from %1$s as t
        left join held as w on w.subject_id = t.gdpr_subject_id and w.row_key is null
        left join held as o on o.subject_id = t.gdpr_subject_id and o.row_key = %10$s
        where t.gdpr_subject_id = any (p_subjects)
      ) as x
    ) as e
    where t.ctid = e.place and t.tableoid = e.part and t.gdpr_subject_id = any (p_subjects) and (e.until is not null or t.gdpr_purposes < 0)
    returning t.gdpr_subject_id as subject_id, e.until%11$s
  ), stays as (
    select * from kept where until is not null
  )
%12$send if;
$code$,
    v_table.relation,
    case when v_row <> 'null::timestamptz' or v_least is not null then 'true or ' else '' end,
    p_table, 1::bigint << 62, '(-4611686018427387904)', coalesce(v_assign, ''), coalesce(v_least, ''), v_row, coalesce(v_ends, ''),
    gdpr_internal.key_text(v_table.relation, 't'), gdpr_generated.review_code(p_table),
    gdpr_internal.indented(rtrim(gdpr_generated.facts_code(p_table, 'kept', 'stays'), E'\n') || ';', '  ')
  ));
end
$function$;
comment on function gdpr_generated.generate_keep(smallint) is
  'Generates the first step of erasure: rows that a period or a hold keeps are closed to all but compliance until that ends (gdpr_purposes below zero marks them), and lose the columns that nothing keeps.';

create or replace function gdpr_generated.period_code(p_erase jsonb)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case when p_erase ? 'keep_until' then format(
    '(t.%I + interval %L)::timestamptz', split_part(p_erase ->> 'keep_until', ' after ', 2), split_part(p_erase ->> 'keep_until', ' after ', 1)
  ) else 'null::timestamptz' end;
end;
comment on function gdpr_generated.period_code(jsonb) is 'The SQL of the end of a period "7 years after invoice_date" for row t; of null without one.';

create or replace function gdpr_generated.generate_anonymise(p_table smallint, p_step text, p_condition text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  perform gdpr_generated.define_step(p_table, p_step, false, format(
    $code$return query
with gone as (
  update %1$s as t
  set %2$s
  from (
    select x.ctid as place, x.tableoid as part, x.gdpr_subject_id as subject_id
    from %1$s as x
    where x.gdpr_subject_id = any (p_subjects) and x.gdpr_purposes >= 0%3$s
  ) as e
  where t.ctid = e.place and t.tableoid = e.part and t.gdpr_subject_id = any (p_subjects)
  returning e.subject_id%4$s
)
%5$s;
$code$,
    v_relation, gdpr_generated.assign_code(p_table), p_condition, gdpr_generated.review_code(p_table),
    rtrim(gdpr_generated.facts_code(p_table, case p_step when 'spare' then 'spared' else 'anonymised' end, 'gone'), E'\n')
  ));
end
$function$;
comment on function gdpr_generated.generate_anonymise(smallint, text, text) is
  'Generates the step that empties rows and makes them rows of nobody: all of the persons'' (anonymise), or those that rows which stay refer to (spare).';

create or replace function gdpr_generated.join_code(p_child text, p_child_columns name[], p_parent text, p_parent_columns name[])
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select string_agg(format('%s.%I = %s.%I', p_child, u.child, p_parent, u.parent), ' and ' order by u.n)
  from unnest(p_child_columns, p_parent_columns) with ordinality as u (child, parent, n);
end;
comment on function gdpr_generated.join_code(text, name[], text, name[]) is 'The SQL of a foreign key as a condition.';

create or replace function gdpr_generated.generate_links(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_method text;
  v_others constant text := '(c.gdpr_subject_id is null or exists (select from gdpr_internal.subject as s where s.id = c.gdpr_subject_id and s.erased_at is null))';
  v_unlink text;
  v_stays text;
begin
  select gdpr_internal.erasure_method(t.definition) into strict v_method from gdpr_internal.protected_table as t where t.id = p_table;
  select string_agg(format(
    E'return query\n'
    'with cut as (\n'
    '  update %1$s as c set %2$s from %3$s as t\n'
    '  where t.gdpr_subject_id = any (p_subjects) and t.gdpr_purposes >= 0 and %4$s and c.gdpr_purposes >= 0 and %5$s\n'
    '  returning t.gdpr_subject_id as subject_id\n'
    ')\n'
    'select %6$s::smallint, ''unlinked'', g.subject_id, count(*), null::timestamptz, null::name, null::text[] from cut as g group by g.subject_id;\n',
    l.child, (select string_agg(format('%I = null', x), ', ') from unnest(l.cut_columns) as x), l.parent,
    gdpr_generated.join_code('c', l.child_columns, 't', l.parent_columns), v_others, p_table
  ), '' order by l.id)
  into v_unlink
  from gdpr_internal.protected_link as l
  join gdpr_internal.protected_table as p on p.id = l.parent_id
  where l.child_id = p_table and l.cut_columns is not null and l.on_delete not in ('n', 'd') and gdpr_internal.erasure_method(p.definition) = 'delete';
  if v_unlink is not null then
    perform gdpr_generated.define_step(p_table, 'unlink', false, v_unlink);
  end if;

  select string_agg(format(
    'exists (select from %s as c where %s and (c.gdpr_purposes < 0%s))', l.child,
    gdpr_generated.join_code('c', l.child_columns, 'x', l.parent_columns),
    -- what can be cut is cut afterwards, but not in a row that is kept
    case when l.cut_columns is not null then '' else ' or ' || v_others end
  ), E'\n      or ' order by l.id)
  into v_stays
  from gdpr_internal.protected_link as l
  where l.parent_id = p_table;
  if v_method = 'delete' and v_stays is not null then
    perform gdpr_generated.generate_anonymise(p_table, 'spare', format(E'\n      and (%s)', v_stays));
  end if;
end
$function$;
comment on function gdpr_generated.generate_links(smallint) is
  'Generates the steps that cut what rows of others refer to (unlink), and that anonymise rows which others refer to all the same (spare).';

create or replace function gdpr_generated.generate_joint(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_parent regclass;
  v_link name;
  v_nullable boolean;
  v_body text := '';
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  if v_table.joint_columns is null then
    return;
  end if;
  select t.relation into strict v_parent from gdpr_internal.protected_table as t where t.id = v_table.parent_id;
  foreach v_link in array v_table.joint_columns loop
    select not a.attnotnull into v_nullable from pg_attribute as a where a.attrelid = v_table.relation and a.attname = v_link;
    v_body := v_body || format(
      $code$return query
with moved as (
  update %1$s as t
  set %2$I = t.%3$I%4$s%5$s
  from (
    select x.ctid as place, x.tableoid as part, x.gdpr_subject_id as subject_id
    from %1$s as x
    join %6$s as p on p.%7$I = x.%3$I
    join gdpr_internal.subject as s on s.id = p.gdpr_subject_id and s.erased_at is null
    where x.gdpr_subject_id = any (p_subjects) and x.gdpr_purposes >= 0
  ) as e
  where t.ctid = e.place and t.tableoid = e.part and t.gdpr_subject_id = any (p_subjects)
  returning e.subject_id%8$s
)
%9$s;
return query
with moved as (
  update %1$s as t
  set %3$I = %10$s%11$s
  from %6$s as p
  where p.gdpr_subject_id = any (p_subjects) and p.gdpr_purposes >= 0 and t.%3$I = p.%7$I and t.gdpr_purposes >= 0
    and exists (select from gdpr_internal.subject as s where s.id = t.gdpr_subject_id and s.erased_at is null)
  returning p.gdpr_subject_id as subject_id%8$s
)
%9$s;
$code$,
      v_table.relation, v_table.via_columns[1], v_link,
      case when v_nullable then format(', %I = null', v_link) else '' end,
      gdpr_generated.about_code(p_table, v_table.via_columns[1]),
      v_parent, v_table.parent_columns[1], gdpr_generated.review_code(p_table),
      rtrim(gdpr_generated.facts_code(p_table, 'passed_on', 'moved'), E'\n'),
      case when v_nullable then 'null' else format('t.%I', v_table.via_columns[1]) end,
      gdpr_generated.about_code(p_table, v_link)
    );
  end loop;
  perform gdpr_generated.define_step(p_table, 'pass_on', false, v_body);
end
$function$;
comment on function gdpr_generated.generate_joint(smallint) is
  'Generates the step for rows of several persons: they go to one who is not erased, or lose the link to one who is, and what they say about the erased.';

create or replace function gdpr_generated.about_code(p_table smallint, p_link name)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(string_agg(format(', %I = %s', e.column_name, gdpr_internal.erase_expression(e, 't')), ''), '')
  from gdpr_internal.erase_columns(p_table, p_link) as e
  where gdpr_internal.erase_expression(e, 't') is not null;
end;
comment on function gdpr_generated.about_code(smallint, name) is 'The assignments that empty what a joint row says about the person of one link.';

-- 40_protection/69_generate_erasure.sql
-- [code] The generator of erasure: the deletions in their order, and erase_rows(), which calls every step of every table.
-- GDPR Art. 17. It follows the foreign keys between all protected tables, and so is made anew with each.

set local role gdpr_worker;

create or replace function gdpr_generated.generate_deletes()
returns smallint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_group record;
  v_order smallint[] := '{}';
begin
  for v_group in
    -- tables that refer to each other in a circle are one group; groups that refer come before those that they refer to
    with recursive node as (
      select t.id from gdpr_internal.protected_table as t
      where t.unprotected_at is null and gdpr_internal.erasure_method(t.definition) = 'delete'
    ), reach (id, other) as (
      select n.id, n.id from node as n
      union
      select r.id, l.parent_id
      from reach as r
      join gdpr_internal.protected_link as l on l.child_id = r.other
      join node as n on n.id = l.parent_id
    ), grouped as (
      select r.id, (select min(b.other) from reach as b join reach as c on c.id = b.other and c.other = b.id where b.id = r.id) as head, count(*) as reached
      from reach as r
      group by r.id
    )
    select g.head, array_agg(g.id order by g.id) as ids, max(g.reached) as reached
    from grouped as g
    group by g.head
    order by max(g.reached) desc, g.head
  loop
    perform gdpr_generated.define_step(v_group.head, 'delete', false, (
      select format(E'return query\nwith %s\n%s;\n',
        string_agg(format(
          E'gone_%1$s as (\n  delete from %2$s as t where t.gdpr_subject_id = any (p_subjects) and t.gdpr_purposes >= 0 returning t.gdpr_subject_id as subject_id\n)',
          t.id, t.relation
        ), ', ' order by t.id),
        string_agg(rtrim(gdpr_generated.facts_code(t.id, 'deleted', 'gone_' || t.id), E'\n'), E'\nunion all\n' order by t.id)
      )
      from gdpr_internal.protected_table as t
      where t.id = any (v_group.ids)
    ));
    v_order := v_order || v_group.head;
  end loop;
  return v_order;
end
$function$;
comment on function gdpr_generated.generate_deletes() is 'Generates the steps that delete rows, one for each circle of foreign keys; returns their tables in order.';

create or replace function gdpr_generated.generate_erasures()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table record;
  v_function regprocedure;
  v_deletes smallint[];
  v_calls record;
begin
  for v_function in
    select p.oid from pg_proc as p
    where p.pronamespace = 'gdpr_generated'::regnamespace and p.proowner = 'gdpr_worker'::regrole and p.proname ~ '^t[0-9]+_[a-z_]+$'
  loop
    execute format('drop function %s', v_function);
  end loop;
  for v_table in
    select t.id, gdpr_internal.erasure_method(t.definition) as method from gdpr_internal.protected_table as t where t.unprotected_at is null order by t.id
  loop
    perform gdpr_generated.generate_keep(v_table.id);
    perform gdpr_generated.generate_joint(v_table.id);
    if v_table.method = 'anonymise' then
      perform gdpr_generated.generate_anonymise(v_table.id, 'anonymise', '');
    end if;
    perform gdpr_generated.generate_links(v_table.id);
  end loop;
  v_deletes := gdpr_generated.generate_deletes();
  select
    string_agg(c.call, '' order by t.depth desc, t.id) filter (where c.step = 'keep') as keep,
    string_agg(c.call, '' order by t.depth desc, t.id) filter (where c.step in ('pass_on', 'anonymise')) as anonymise,
    string_agg(c.call, '' order by t.id) filter (where c.step = 'unlink') as unlink,
    string_agg(c.call || E'v_more := v_more or found;\n', '' order by t.depth desc, t.id) filter (where c.step = 'spare') as spare,
    string_agg(c.call, '' order by array_position(v_deletes, t.id)) filter (where c.step = 'delete') as deletes
  into v_calls
  from gdpr_internal.protected_table as t
  join pg_proc as p on p.pronamespace = 'gdpr_generated'::regnamespace and p.proname ~ ('^t' || t.id || '_')
  cross join lateral (
    select s.step, format(E'return query select * from gdpr_generated.%I(p_subjects%s);\n', p.proname, case s.step when 'keep' then ', p_holds' else '' end) as call
    from (select substr(p.proname, length('t' || t.id || '_') + 1)) as s (step)
  ) as c
  where t.unprotected_at is null;

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.erase_rows(p_subjects bigint[], p_holds gdpr_internal.held_fact[])
returns setof gdpr_internal.erased_fact
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
declare
  v_more boolean;
begin
  if gdpr_internal.link_fingerprint() <> %1$L then
    perform gdpr_internal.refuse('drifted', 'foreign keys between protected tables');
  end if;
%2$s%3$s%4$s%5$s  return;
end
$body$
$code$,
    gdpr_internal.link_fingerprint(),
    gdpr_internal.indented(coalesce(v_calls.keep, '') || coalesce(v_calls.anonymise, ''), '  '),
    -- a row that is anonymised stays, and so does what it refers to
    coalesce(gdpr_internal.indented(
      E'loop\n  v_more := false;\n' || gdpr_internal.indented(v_calls.spare, '  ') || E'  exit when not v_more;\nend loop;\n', '  '
    ), ''),
    gdpr_internal.indented(coalesce(v_calls.unlink, '') || coalesce(v_calls.deletes, ''), '  '),
    (
      select gdpr_internal.indented(coalesce(string_agg(format(
        E'if exists (select from %1$s as t where t.gdpr_subject_id = any (p_subjects) and t.gdpr_purposes >= 0) then\n'
        '  perform gdpr_internal.refuse(''erasure_incomplete'', %1$L);\nend if;\n', t.relation
      ), '' order by t.id), ''), '  ')
      from gdpr_internal.protected_table as t
      where t.unprotected_at is null
    )
  ));
  comment on function gdpr_generated.erase_rows(bigint[], gdpr_internal.held_fact[]) is
    'Erases the rows of persons in every protected table and says what it did, a line for each table, person and kind. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.erase_rows(bigint[], gdpr_internal.held_fact[]) to gdpr_owner;
end
$function$;
comment on function gdpr_generated.generate_erasures() is
  'Generates erasure for all protected tables: it follows the foreign keys between them, and so is made anew with each.';

-- 40_protection/69_generate_retention.sql
-- [code] The generator of the functions that find rows whose time is over, count them, empty their columns, delete them.
-- GDPR Art. 5(1)(e). They belong to gdpr_worker. What a person's bases say and which rows are held, their caller tells them.

set local role gdpr_worker;

create or replace function gdpr_generated.retention_moments(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
begin atomic
  -- counted where the policy is: whatever zone the session has, a day is a day there
  select coalesce(E'  v_zone text := gdpr_internal.time_zone();\n  v_now timestamp := timezone(v_zone, statement_timestamp());\n' || string_agg(
    case a.atttypid
      when 'timestamptz'::regtype then format(E'  v_moment_%s timestamptz := timezone(v_zone, v_now - interval %L);\n', r.n, r.period)
      when 'date'::regtype then format(E'  v_moment_%s date := v_now - interval %L;\n', r.n, r.period)
      else format(E'  v_moment_%s timestamp := v_now - interval %L;\n', r.n, r.period)
    end, '' order by r.n), '')
  from gdpr_internal.retention_rule as r
  join gdpr_internal.protected_table as t on t.id = r.table_id
  join pg_attribute as a on a.attrelid = t.relation and a.attname = r.after_column
  where r.table_id = p_table;
end;
comment on function gdpr_generated.retention_moments(smallint) is 'Declarations of the moments before which rows are due, one for each rule that counts from a column.';

create or replace function gdpr_generated.retention_left(p_table smallint, p_rule gdpr_internal.retention_rule)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(string_agg(
    case e.value
      when 'null' then format('t.%I is not null', c.column_name)
      else format('t.%I is distinct from %s', c.column_name, e.value)
    end, ' or ' order by c.position), 'false')
  from gdpr_internal.protected_column as c
  join gdpr_internal.protected_table as t on t.id = c.table_id
  cross join lateral (select gdpr_internal.empty_value(t.relation, c.column_name, c.encrypt <> 'no') as value) as e
  where c.table_id = p_table and c.column_name = any ((p_rule).columns)
    -- alone, the rule is for the row: nothing is emptied before it goes
    and ((p_rule).named or (select count(*) > 1 from gdpr_internal.retention_rule as r where r.table_id = p_table));
end;
comment on function gdpr_generated.retention_left(smallint, gdpr_internal.retention_rule) is 'The SQL that says whether row t still has something in the columns of a rule.';

create or replace function gdpr_generated.referring_rows(p_relation regclass)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(string_agg(format(
    'exists (select from %s as c where %s)', l.child,
    (
      select string_agg(format('c.%I = x.%I', u.child, u.parent), ' and ' order by u.n)
      from unnest(l.child_columns, l.parent_columns) with ordinality as u (child, parent, n)
    )
  ), ' or ' order by l.id), 'false')
  from gdpr_internal.protected_link as l
  where l.parent = p_relation and l.on_delete not in ('n', 'd');
end;
comment on function gdpr_generated.referring_rows(regclass) is 'The SQL that says whether other rows refer to row x, which deleting it would meet or take along.';

create or replace function gdpr_generated.retention_rows(p_table smallint, p_more text)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_due text;
  v_left text;
  v_over text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(
      case when r.after_column is null then format('(d.bits & %s)', 1 << r.n)
      else format('case when t.%I <= v_moment_%s then %s else 0 end', r.after_column, r.n, 1 << r.n) end, ' | ' order by r.n),
    string_agg(format('case when %s then %s else 0 end', gdpr_generated.retention_left(p_table, r), 1 << r.n), ' | ' order by r.n),
    case when bool_and(r.named) then 'false' else format('x.gdpr_due & %1$s = %1$s', sum(1 << r.n)) end
  into v_due, v_left, v_over
  from gdpr_internal.retention_rule as r
  where r.table_id = p_table;
  return format(
    $code$
select x.gdpr_place as place, x.gdpr_part as part, x.gdpr_due & x.gdpr_left as emptying, x.gdpr_held as held, %5$s as over,
  %6$s as referred%7$s
from (
  select t.*, t.ctid as gdpr_place, t.tableoid as gdpr_part, %2$s as gdpr_due, %3$s as gdpr_left,
    coalesce(hs.bits, 0) | coalesce(hk.bits, 0) as gdpr_held
  from %1$s as t
  join unnest(p_subjects, p_due) as d (subject_id, bits) on d.subject_id = t.gdpr_subject_id
  left join (
    select h.subject_id, bit_or(h.bits) as bits from unnest(p_held_subjects, p_held_bits) as h (subject_id, bits) group by h.subject_id
  ) as hs on hs.subject_id = t.gdpr_subject_id
  left join (
    select h.row_key, bit_or(h.bits) as bits from unnest(p_held_keys, p_held_key_bits) as h (row_key, bits) group by h.row_key
  ) as hk on hk.row_key = %4$s
) as x
$code$,
    v_table.relation, v_due, v_left, gdpr_internal.key_text(v_table.relation, 't'), v_over,
    case gdpr_internal.erasure_method(v_table.definition)
      when 'delete' then gdpr_generated.referring_rows(v_table.relation) else 'false'
    end,
    p_more
  );
end
$function$;
comment on function gdpr_generated.retention_rows(smallint, text) is
  'The SQL that judges the rows of persons: due: bits of the rules whose time has come; emptying: of those whose columns still hold something; held: what holds forbid; over: the row''s time is over; referred: other rows refer to it. p_more: more columns.';

create or replace function gdpr_generated.generate_candidates(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_condition text;
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  select string_agg(format('%s and (%s)', d.due, gdpr_generated.retention_left(p_table, d.rule)), ' or ' order by d.n)
    || case when bool_and(d.named) then '' else ' or ' || string_agg(d.due, ' and ' order by d.n) end
  into v_condition
  from (
    select r as rule, r.n, r.named,
      case
        when r.after_column is not null then format('t.%I <= v_moment_%s', r.after_column, r.n)
        -- a closed gate is what a person without a basis has; whose it is closed for another reason, the evidence tells
        else format('(t.gdpr_purposes & %s = 0 or t.gdpr_until <= statement_timestamp())', r.purpose_mask)
      end as due
    from gdpr_internal.retention_rule as r
    where r.table_id = p_table
  ) as d;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_after bigint, p_limit integer)
returns bigint[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
declare
%2$s  v_subjects bigint[];
begin
  select array_agg(s.id) into v_subjects
  from (
    select distinct t.gdpr_subject_id as id from %3$s as t
    where t.gdpr_subject_id > p_after and t.gdpr_purposes >= 0 and (%4$s)
    order by 1
    limit p_limit
  ) as s;
  set constraints all immediate;
  return v_subjects;
end
$body$
$code$,
    'candidates_' || p_table, gdpr_generated.retention_moments(p_table), v_relation, v_condition
  ));
  execute format('comment on function gdpr_generated.%I(bigint, integer) is %L', 'candidates_' || p_table,
    format('The next persons, by number, with a row in %s whose time may be over. Generated by gdpr.apply().', v_relation));
  execute format('grant execute on function gdpr_generated.%I(bigint, integer) to gdpr_owner', 'candidates_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_candidates(smallint) is 'Generates candidates_<table>, which pages through the persons that retention has to look at.';

create or replace function gdpr_generated.generate_overdue(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
declare
  v_relation regclass;
  v_since text;
  v_counts text;
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(format(
      ', case when x.gdpr_due & %s <> 0 then timezone(v_zone, %s + interval %L) end as since_%s', 1 << r.n,
      case when a.atttypid = 'timestamptz'::regtype then format('timezone(v_zone, x.%I)', r.after_column) else format('x.%I', r.after_column) end,
      r.period, r.n
    ), '' order by r.n) filter (where r.after_column is not null),
    string_agg(format(
      E'  select %1$s, count(*) filter (where %2$s and not %3$s and not %4$s), count(*) filter (where %2$s and %3$s),\n'
      '    count(*) filter (where %2$s and not %3$s and %4$s), min(%5$s) filter (where %2$s)\n  from looked as w\n',
      r.n,
      format(case when r.named then '(w.emptying & %s <> 0)' else '(w.over or w.emptying & %s <> 0)' end, 1 << r.n),
      format(case when r.named then '(w.held & %s <> 0)' else '(case when w.over then w.held else w.held & %s end <> 0)' end, 1 << r.n),
      case when r.named then 'false' else '(w.over and w.referred)' end,
      case when r.after_column is null then 'null::timestamptz' else format('w.since_%s', r.n) end
    ), E'  union all\n' order by r.n)
  into v_since, v_counts
  from gdpr_internal.retention_rule as r
  left join pg_attribute as a on a.attrelid = v_relation and a.attname = r.after_column
  where r.table_id = p_table;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(%2$s)
returns table (rule integer, due bigint, held bigint, referred bigint, since timestamptz)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
declare
%3$sbegin
  return query
  with looked as materialized (%4$s)
%5$s  ;
  set constraints all immediate;
end
$body$
$code$,
    'overdue_' || p_table, gdpr_generated.retention_arguments(), gdpr_generated.retention_moments(p_table),
    gdpr_generated.retention_rows(p_table, coalesce(v_since, '')), v_counts
  ));
  execute format('comment on function gdpr_generated.%I is %L', 'overdue_' || p_table,
    format('Counts, rule by rule, rows of persons in %s whose time is over. Generated by gdpr.apply().', v_relation));
  execute format('grant execute on function gdpr_generated.%I to gdpr_owner', 'overdue_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_overdue(smallint) is 'Generates overdue_<table>, which counts what retention would do.';

create or replace function gdpr_generated.retention_arguments()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'p_subjects bigint[], p_due integer[], p_held_subjects bigint[], p_held_bits integer[], p_held_keys text[], '
    'p_held_key_bits integer[]';
end;
comment on function gdpr_generated.retention_arguments() is
  'The arguments of generated functions of retention: persons and the bits of the rules by which their bases are over; what holds keep, by person and by primary key, as bits of rules.';

create or replace function gdpr_generated.generate_retention(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_schema name;
  v_empty text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select n.nspname into v_schema from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = v_table.relation;
  perform gdpr_generated.generate_candidates(p_table);
  perform gdpr_generated.generate_overdue(p_table);
  select string_agg(format(
    '%1$I = case when w.bits & %2$s <> 0 then %3$s else t.%1$I end', c.column_name, 1 << r.n,
    gdpr_internal.empty_value(v_table.relation, c.column_name, c.encrypt <> 'no')
  ), ', ' order by c.position)
  into v_empty
  from gdpr_internal.retention_rule as r
  join gdpr_internal.protected_column as c on c.table_id = r.table_id and c.column_name = any (r.columns)
  where r.table_id = p_table and gdpr_generated.retention_left(p_table, r) <> 'false';
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(%2$s, p_limit integer, out v_removed bigint, out v_emptied bigint)
language plpgsql
volatile
security definer
set search_path = pg_catalog, %3$I, pg_temp
set row_security = on
as $body$
declare
%4$s  v_constraint name;
  v_places tid[];
  v_parts oid[];
  v_bits integer[];
begin
  perform gdpr_internal.refuse_deferred(%5$L);
  select array_agg(l.place), array_agg(l.part), array_agg(l.bits)
  into v_places, v_parts, v_bits
  from (
    select k.place, k.part, case when k.over and k.held = 0 and not k.referred then -1 else k.emptying & ~k.held end as bits
    from (%6$s) as k
    where k.over and k.held = 0 and not k.referred or k.emptying & ~k.held <> 0
    limit p_limit
  ) as l;
  -- by their places: a row that somebody changes meanwhile is somewhere else, and is looked at another time
  %7$s
  get diagnostics v_removed = row_count;
%8$s  set constraints all immediate;
exception when foreign_key_violation then
  get stacked diagnostics v_constraint = constraint_name;
  perform gdpr_internal.refuse('row_referenced', v_constraint);
end
$body$
$code$,
    'retain_' || p_table, gdpr_generated.retention_arguments(), v_schema, gdpr_generated.retention_moments(p_table), v_table.relation,
    gdpr_generated.retention_rows(p_table, ''),
    format(
      case gdpr_internal.erasure_method(v_table.definition)
        when 'delete' then
          E'delete from %1$s as t\n  using unnest(v_places, v_parts, v_bits) as w (place, part, bits)\n'
          '  where w.bits = -1 and t.ctid = w.place and t.tableoid = w.part;'
        else
          E'update %1$s as t\n  set %2$s\n  from unnest(v_places, v_parts, v_bits) as w (place, part, bits)\n'
          '  where w.bits = -1 and t.ctid = w.place and t.tableoid = w.part;'
      end, v_table.relation, gdpr_generated.assign_code(p_table)
    ),
    case when v_empty is null then E'  v_emptied := 0;\n' else format(
      E'  update %1$s as t\n  set %2$s\n  from unnest(v_places, v_parts, v_bits) as w (place, part, bits)\n'
      '  where w.bits > 0 and t.ctid = w.place and t.tableoid = w.part;\n'
      '  get diagnostics v_emptied = row_count;\n', v_table.relation, v_empty
    ) end
  ));
  execute format('comment on function gdpr_generated.%I is %L', 'retain_' || p_table,
    format('Deletes or anonymises rows of persons in %s whose time is over, empties columns whose time is. Generated by gdpr.apply().', v_table.relation));
  execute format('grant execute on function gdpr_generated.%I to gdpr_owner', 'retain_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_retention(smallint) is 'Generates what retention needs of a table: candidates_, overdue_ and retain_<table>.';

-- 40_protection/70_clear_views.sql
-- [code] Clear views: plaintext in the original types, writable, for applications.
-- GDPR Art. 32. The views belong to gdpr_viewer, which may read the tables and the keys and as which no code runs; the row
-- policies of the table apply to whoever asks.
-- Its INSTEAD OF triggers write the table as the caller: the clear view gives no right that the table does not.

set local role gdpr_owner;

create or replace function gdpr_policy.refuse_clear(p_role name, p_table regclass)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_policy.refuse_base(p_role) and (
    has_any_column_privilege(p_role, p_table, 'select') or pg_has_role(p_role, 'gdpr_dpo', 'usage')
  )
    or gdpr_internal.refuse('clear_refused', format('role %s, table %s', quote_ident(p_role), p_table));
end
$function$;
comment on function gdpr_policy.refuse_clear(name, regclass) is
  'A clear view shows its table to roles of audience clear that may read the table, and to gdpr_dpo. Errors: gdpr_clear_refused, gdpr_base_refused, gdpr_no_purpose (42501).';

create or replace function gdpr_internal.is_control_column(p_table smallint, p_column name)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select p_column in ('gdpr_subject_id', 'gdpr_subject_ref', 'gdpr_purposes', 'gdpr_until') or exists (
    select from gdpr_internal.protected_column as c
    where c.table_id = p_table and p_column in ('gdpr_' || c.column_name || '_digest', 'gdpr_' || c.column_name || '_mask')
  );
end;
comment on function gdpr_internal.is_control_column(smallint, name) is 'Whether a column of a protected table was added by gdpr.apply().';

set local role gdpr_viewer;

create or replace function gdpr_generated.open_expression(p_column_id integer, p_column name)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- gdpr_internal.open_value() as one expression: a call of plpgsql for each value is what reading by key would cost most
  -- refuse() is told something of the row: with constants alone the planner runs it, to estimate an IN list
  select format(
    $code$case
    when t.gdpr_subject_id is null or t.%1$I is null or not starts_with(t.%1$I, 'gdpr1:') then t.%1$I
    when x.data_key is null then case when gdpr_internal.refuse('data_key_missing', case when t.gdpr_subject_id is not null then %2$L end) then null end
    when substr(x.raw_%3$s, 6, 12) = int8send(t.gdpr_subject_id) || %4$L::bytea
      and substr(x.raw_%3$s, length(x.raw_%3$s) - 31)
        = gdpr_internal.hmac(substr(x.raw_%3$s, 1, length(x.raw_%3$s) - 32), substr(x.data_key, 33), 'sha256')
      then convert_from(gdpr_internal.decrypt_iv(
        substr(x.raw_%3$s, 34, length(x.raw_%3$s) - 65), substr(x.data_key, 1, 32), substr(x.raw_%3$s, 18, 16), 'aes-cbc/pad:pkcs'
      ), 'UTF8')
    else case when gdpr_internal.refuse('tampered', case when t.gdpr_subject_id is not null then %2$L end) then null end
  end$code$,
    p_column, format('column id %s', p_column_id), p_column_id, int4send(p_column_id)
  );
end;
comment on function gdpr_generated.open_expression(integer, name) is
  'The SQL that checks and decrypts a column of a clear view. Errors: PR404 altered or moved value, PR410 the person''s key is gone.';

create or replace function gdpr_generated.generate_clear_view(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set bytea_output = 'hex'
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_columns text;
  v_raw text;
  v_column record;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(
      case
        when c.encrypt is null or c.encrypt = 'no' then format('  t.%I', a.attname)
        else format(
          '  (%s)::%s as %I',
          case when c.special is null then gdpr_generated.open_expression(c.id, a.attname)
            else format(
              'case when (select gdpr_policy.special_allowed(null, current_user, current_setting(''gdpr.purpose'', true))) '
              'or gdpr_policy.special_allowed(t.gdpr_subject_id, current_user, current_setting(''gdpr.purpose'', true)) then %s end',
              gdpr_generated.open_expression(c.id, a.attname)
            )
          end,
          c.original_type, a.attname
        )
      end, E',\n' order by a.attnum
    )
    || coalesce(string_agg(
      format(E',\n  t.%I as %I', 'gdpr_' || a.attname || '_digest', a.attname || '_digest'), '' order by a.attnum
    ) filter (where c.encrypt = 'searchable'), ''),
    string_agg(
      format(
        E'    case when starts_with(t.%1$I, ''gdpr1:'') and octet_length(t.%1$I) %% 4 = 2 then decode(substr(t.%1$I, 7), ''base64'') end as raw_%2$s,\n',
        a.attname, c.id
      ), '' order by a.attnum
    ) filter (where c.encrypt <> 'no')
  into v_columns, v_raw
  from pg_attribute as a
  left join gdpr_internal.protected_column as c on c.table_id = p_table and c.column_name = a.attname
  where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped and not gdpr_internal.is_control_column(p_table, a.attname);

  perform gdpr_generated.drop_clear_view(p_table);
  execute format(
    E'create view gdpr_clear.%I as\nselect\n%s\nfrom %s as t%s\n'
    'where (select gdpr_generated.is_clear(current_user) and has_any_column_privilege(current_user, %L::regclass, ''select'') or gdpr_policy.refuse_clear(current_user, %L::regclass))',
    v_table.view_name, v_columns, v_table.relation,
    -- keys are read here and not in a view of their own, which would show them to whoever may read all data;
    -- offset 0: each value is decoded and the key unwrapped once;
    -- a scalar and not a join: SELECT ... FOR UPDATE through the view locks the row of the table and nothing else
    coalesce(format(
      $code$
cross join lateral (
  select (select k.wrapped from gdpr_internal.subject_key as k where k.subject_id = t.gdpr_subject_id) as wrapped
  offset 0
) as k
cross join lateral (
  select
%s    gdpr_internal.decrypt_iv(
      substr(k.wrapped, 17, 64),
      substr((
        select case when c.material is null and gdpr_internal.refuse('key_locked') then null else c.material end
        from (
          select case when e.provider = 'table' then e.material else gdpr_internal.open_ticket(e.ticket_key) end as material
          from gdpr_internal.key_encryption_key as e
          where e.retired_at is null
        ) as c
      ), 1, 32),
      substr(k.wrapped, 1, 16),
      'aes-cbc/pad:none'
    ) as data_key
  offset 0
) as x$code$, v_raw
    ), ''),
    v_table.relation, v_table.relation
  );
  execute format(
    'comment on view gdpr_clear.%I is %L', v_table.view_name,
    format('%s in plaintext, for roles of audience clear. Writable. Generated by gdpr.apply().', v_table.relation)
  );
  for v_column in
    select a.attname,
      case when c.encrypt <> 'no' then c.original ->> 'default' else pg_get_expr(d.adbin, d.adrelid) end as expression
    from pg_attribute as a
    join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
    left join gdpr_internal.protected_column as c on c.table_id = p_table and c.column_name = a.attname
    where a.attrelid = v_table.relation and a.attgenerated = '' and not gdpr_internal.is_control_column(p_table, a.attname)
  loop
    execute format('alter view gdpr_clear.%I alter column %I set default %s', v_table.view_name, v_column.attname, v_column.expression);
  end loop;
  execute format(
    'create or replace trigger gdpr_40_write instead of insert or update or delete on gdpr_clear.%I for each row execute function gdpr_generated.%I()',
    v_table.view_name, 'write_' || p_table
  );
  execute format('grant select, insert, update, delete on gdpr_clear.%I to gdpr_app', v_table.view_name);
  execute format('grant select on gdpr_clear.%I to gdpr_dpo', v_table.view_name);
end
$function$;
comment on function gdpr_generated.generate_clear_view(smallint) is 'Generates gdpr_clear.<table> and its triggers.';

create or replace function gdpr_generated.drop_clear_view(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_view text := (select format('gdpr_clear.%I', t.view_name) from gdpr_internal.protected_table as t where t.id = p_table);
begin
  if to_regclass(v_view) is not null then
    execute format('drop view %s', v_view);
  end if;
end
$function$;
comment on function gdpr_generated.drop_clear_view(smallint) is 'Drops a clear view.';

set local role gdpr_keyholder;

create or replace function gdpr_internal.generate_clear_writes(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_names text;
  v_values text;
  v_names_auto text;
  v_values_auto text;
  v_identity text;
  v_always text;
  v_back text;
  v_into text;
  v_set text;
  v_key text;
  v_insert text;
  v_change text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(format('%I', a.attname), ', ' order by a.attnum) filter (where not a.generated),
    string_agg(a.value, ', ' order by a.attnum) filter (where not a.generated),
    string_agg(format('%I', a.attname), ', ' order by a.attnum) filter (where not a.identity and not a.generated),
    string_agg(a.value, ', ' order by a.attnum) filter (where not a.identity and not a.generated),
    string_agg(format('new.%I is null', a.attname), ' and ') filter (where a.identity),
    max(a.attname::text) filter (where a.always),
    string_agg(format('t.%I', a.attname), ', ' order by a.attnum) filter (where not a.encrypted),
    string_agg(format('new.%I', a.attname), ', ' order by a.attnum) filter (where not a.encrypted),
    string_agg(
      case when a.encrypted
        -- no operator that the caller's search_path could replace: it would hear the plaintext
        then format(
          '%1$I = case when coalesce(pg_catalog.texteq(new.%1$I::pg_catalog.text, old.%1$I::pg_catalog.text), new.%1$I is null and old.%1$I is null) then t.%1$I else %2$s end',
          a.attname, a.value
        )
        else format('%I = %s', a.attname, a.value)
      end, ', ' order by a.attnum
    ) filter (where not a.always and not a.generated)
  into v_names, v_values, v_names_auto, v_values_auto, v_identity, v_always, v_back, v_into, v_set
  from (
    select
      a.attnum, a.attname, a.attidentity <> '' as identity, a.attidentity = 'a' as always, a.attgenerated <> '' as generated,
      coalesce(c.encrypt <> 'no', false) as encrypted,
      case when c.encrypt <> 'no' then gdpr_internal.text_expression(format('new.%I', a.attname), c.original_type)
        else format('new.%I', a.attname)
      end as value
    from pg_attribute as a
    left join gdpr_internal.protected_column as c on c.table_id = p_table and c.column_name = a.attname
    where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped
      and not gdpr_internal.is_control_column(p_table, a.attname)
  ) as a;
  select string_agg(format('t.%1$I operator(pg_catalog.=) old.%1$I', a.attname), ' and ')
  into v_key
  from pg_index as x
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = any (x.indkey)
  where x.indrelid = v_table.relation and x.indisprimary;

  select
    concat_ws(', ', v_back, string_agg(format('t.%I', 'gdpr_' || c.column_name || '_digest'), ', ' order by c.position)),
    concat_ws(', ', v_into, string_agg(format('new.%I', c.column_name || '_digest'), ', ' order by c.position))
  into v_back, v_into
  from gdpr_internal.protected_column as c
  where c.table_id = p_table and c.encrypt = 'searchable';
  v_back := case when v_back = '' then '' else format(E'\n    returning %s into %s', v_back, v_into) end;
  v_insert := format(
    E'insert into %s as t (%s)\n    values (%s)%s;', v_table.relation, v_names, v_values, v_back
  );
  if v_identity is not null then
    v_insert := format(
      E'if %s then\n    insert into %s as t (%s)\n    values (%s)%s;\n  else\n    %s\n  end if;',
      v_identity, v_table.relation, v_names_auto, v_values_auto, v_back,
      case when v_always is null then v_insert else format(
        'raise exception using errcode = %L, message = %L;', '428C9', format('cannot insert a non-DEFAULT value into column "%s"', v_always)
      ) end
    );
  end if;
  v_change := case
    when v_key is null then (
      select format(
        'raise exception using errcode = %L, message = %L, hint = %L, constraint = %L;',
        e.sqlstate, e.message, e.hint, 'gdpr_' || e.name
      )
      from gdpr.error_code as e where e.name = 'no_primary_key'
    )
    else format(
      E'if tg_op = ''UPDATE'' then\n'
      '    update %1$s as t set %2$s\n    where %3$s%4$s;\n'
      '    if not found then\n      return null;\n    end if;\n'
      '    return new;\n'
      '  end if;\n'
      '  delete from %1$s as t where %3$s;\n'
      '  if not found then\n    return null;\n  end if;\n',
      v_table.relation, v_set, v_key, v_back
    )
  end;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns trigger
language plpgsql
volatile
security invoker
-- no search_path: the application's own triggers run inside, with the application's
set debug_print_plan = off
as $body$
begin
  if tg_op = 'INSERT' then
  %2$s
    return new;
  end if;
  %3$s
  return old;
end
$body$
$code$,
    'write_' || p_table, v_insert, v_change
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'write_' || p_table,
    format('Writes gdpr_clear.%I through to %s, as the caller. Generated by gdpr.apply().', v_table.view_name, v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_viewer', 'write_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_clear_writes(smallint) is 'Generates the INSTEAD OF trigger of a clear view.';

create or replace function gdpr_internal.drop_generated_controls(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc as p
    where p.pronamespace = 'gdpr_generated'::regnamespace and p.proowner = 'gdpr_keyholder'::regrole
      and p.proname in ('write_' || p_table, 'protect_' || p_table, 'change_' || p_table, 'audit_' || p_table)
  loop
    execute format('drop function %s', v_function);
  end loop;
end
$function$;
comment on function gdpr_internal.drop_generated_controls(smallint) is 'Drops the trigger functions of a table.';

-- 50_audit/15_generate_audit.sql
-- [code] The generator of audit triggers: one record for each changed row, static SQL.
-- GDPR Art. 5(2), Art. 32(1)(d). Called by: gdpr.apply(). Runs as gdpr_keyholder, from names in the catalog and the register only.

set local role gdpr_keyholder;

create or replace function gdpr_internal.key_expression(p_relation regclass, p_row text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case count(*)
    when 0 then 'null::text'
    when 1 then max(format('format(''%%s'', %s.%I)', p_row, a.attname))
    else format('jsonb_build_array(%s)::text', string_agg(format('format(''%%s'', %s.%I)', p_row, a.attname), ', ' order by k.n))
  end
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = p_relation and x.indisprimary;
end;
comment on function gdpr_internal.key_expression(regclass, text) is
  'The primary key of a row as text: the value, or a JSON array of several; null without a primary key.';

create or replace function gdpr_internal.audit_row_code(p_table smallint, p_operation text, p_row text, p_changed text, p_payload text, p_from text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- the gate in the row is a copy, kept without a record: it is no part of the row's hash
  select format(
    E'insert into gdpr_internal.audit_record (\n'
    '  operation, table_id, subject_id, row_key, purpose_id, actor, request, role, application_name, changed, row_hash, payload\n'
    ')\n'
    'select\n'
    '  %1$L, %2$s, %3$s.gdpr_subject_id, gdpr_internal.keyed_digest(k.audit_key, %2$L, %4$s),\n'
    '  gdpr_generated.purpose_held(v_role, nullif(current_setting(''gdpr.purpose'', true), '''')),\n'
    '  nullif(current_setting(''gdpr.actor'', true), ''''), nullif(current_setting(''gdpr.request'', true), ''''),\n'
    '  v_role, nullif(current_setting(''application_name''), ''''), %6$s,\n'
    '  gdpr_internal.hmac(convert_to(format(''%%s'', row(%5$s)), ''UTF8''), k.audit_key, ''sha256''), %7$s\n'
    'from %8$s;\n',
    p_operation, p_table, case p_operation when 'INSERT' then 'new' else 'old' end,
    gdpr_internal.key_expression(t.relation, case p_operation when 'INSERT' then 'new' else 'old' end),
    string_agg(format('%s.%I', p_row, a.attname), ', ' order by a.attnum),
    p_changed, p_payload, p_from
  )
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
    and (a.attname !~ '^gdpr_' or a.attname = 'gdpr_subject_id')
  where t.id = p_table
  group by t.relation;
end;
comment on function gdpr_internal.audit_row_code(smallint, text, text, text, text, text) is
  'Code that writes one audit record. p_row: new or old, the row as stored or as deleted; p_changed, p_payload: expressions; p_from: where k.audit_key comes from.';

create or replace function gdpr_internal.output_settings(p_relation regclass)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(string_agg(s.code, '' order by s.code), '')
  from (
    values
      (E'set timezone = ''UTC''\n', array['timestamp with time zone', 'time with time zone']),
      (E'set datestyle = ''ISO''\n', array['timestamp with time zone', 'timestamp without time zone', 'date']),
      (E'set intervalstyle = ''postgres''\n', array['interval']),
      (E'set extra_float_digits = 3\n', array['real', 'double precision']),
      (E'set bytea_output = ''hex''\n', array['bytea'])
  ) as s (code, types)
  where exists (
    select from pg_attribute as a
    where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
      and (
        format_type(a.atttypid, null) = any (s.types)
        -- arrays, ranges, domains, composite types: of whatever
        or format_type(a.atttypid, null) <> all (array[
          'text', 'character varying', 'character', 'uuid', 'boolean', 'smallint', 'integer', 'bigint', 'numeric', 'inet', 'cidr', 'json', 'jsonb',
          'timestamp with time zone', 'time with time zone', 'timestamp without time zone', 'time without time zone', 'date', 'interval',
          'real', 'double precision', 'bytea'
        ])
      )
  );
end;
comment on function gdpr_internal.output_settings(regclass) is
  'The settings that a function has to pin so that the rows of a table turn into the same text in every session: each costs in every call, so only those that its types ask for.';

create or replace function gdpr_internal.object_code(p_pairs text[])
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select string_agg(format('jsonb_build_object(%s)', o.pairs), ' || ' order by o.part)
  from (
    -- a function takes a hundred arguments, a table has more columns than that
    select p.n / 50 as part, string_agg(p.pair, ', ' order by p.n) as pairs
    from (select u.pair, u.n - 1 as n from unnest(p_pairs) with ordinality as u (pair, n)) as p
    group by p.n / 50
  ) as o;
end;
comment on function gdpr_internal.object_code(text[]) is 'The SQL that makes an object of pairs (name, value), however many there are.';

create or replace function gdpr_internal.generate_audit(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_changed text;
  v_same text;
  v_all text[];
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(format(E'      case when %s is distinct from %s then %L end', c.new_text, c.old_text, a.attname), E',\n' order by a.attnum),
    string_agg(format(E'      case when %s is not distinct from %s then %L end', c.new_text, c.old_text, a.attname), E',\n' order by a.attnum),
    array_agg(format('%L, %s', a.attname, c.old_value) order by a.attnum)
  into v_changed, v_same, v_all
  from pg_attribute as a
  join pg_type as y on y.oid = a.atttypid
  cross join lateral (
    select
      -- types of the system only: comparing or converting another type could run what its owner planted, with the keys
      case when k.comparable then format('new.%I', a.attname) else format('format(''%%s'', new.%I)', a.attname) end as new_text,
      case when k.comparable then format('old.%I', a.attname) else format('format(''%%s'', old.%I)', a.attname) end as old_text,
      case when y.oid < 16384 then format('old.%I', a.attname)
        else format('case when old.%1$I is null then null else format(''%%s'', old.%1$I) end', a.attname)
      end as old_value
    from (
      select y.oid < 16384 and (y.typcategory = 'A' or exists (
        select from pg_opclass as o
        where o.opcdefault and o.opcmethod = 403 and o.opcintype in (y.oid, case when y.typname = 'varchar' then 'text'::regtype else y.oid end)
      )) as comparable
    ) as k
  ) as c
  where a.attrelid = v_relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_';

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
%2$sas $body$
declare
  v_role name := gdpr_internal.acting_role();
  v_changed text[];
  v_keys gdpr_internal.keyring;
  v_kek bytea;
  v_audit_key bytea;
  v_wrapped bytea;
  v_key bytea;
  v_random bytea;
  v_body bytea;
  v_payload text;
begin
  if tg_op = 'INSERT' then
%3$s%4$s    return null;
  elsif tg_op = 'UPDATE' then
%3$s    v_changed := array_remove(array[
%5$s,
      case when new.gdpr_subject_id is distinct from old.gdpr_subject_id then 'gdpr_subject_id' end
    ], null);
    if v_changed = '{}' then
      -- the gate was copied to the row, or nothing changed
      return null;
    end if;
    if new.gdpr_subject_id is not null and coalesce(current_setting('gdpr.source', true), '') <> '' then
      v_keys := gdpr_internal.keyring();
    end if;
  else
%6$s  end if;
  select e.audit_key, e.material, k.wrapped
  into v_audit_key, v_kek, v_wrapped
  from gdpr_internal.key_encryption_key as e
  left join gdpr_internal.subject_key as k on k.subject_id = old.gdpr_subject_id
  where e.retired_at is null;
  if v_wrapped is not null
    -- what retention ends is not kept here for later
    and not (coalesce(current_setting('gdpr.forgetting', true), '') <> '' and gdpr_internal.forgetting())
  then
    if v_kek is null then
      v_kek := coalesce((v_keys).kek, (gdpr_internal.keyring()).kek);
    end if;
    v_key := gdpr_internal.unwrap_key(v_kek, int8send(old.gdpr_subject_id), v_wrapped);
    v_random := gdpr_internal.gen_random_bytes(16);
    if tg_op = 'UPDATE' then
      v_payload := (%7$s) - array_remove(array[
%8$s,
      case when new.gdpr_subject_id is not distinct from old.gdpr_subject_id then 'gdpr_subject_id' end
      ], null);
    else
      v_payload := %14$s;
    end if;
%9$s  end if;
  if tg_op = 'UPDATE' then
    if (v_keys).kek is not null then
      perform gdpr_internal.change_source(
        %12$s::smallint, new.gdpr_subject_id, %13$s, v_keys,
        case when new.gdpr_subject_id = old.gdpr_subject_id then v_key else gdpr_internal.data_key(v_keys, new.gdpr_subject_id) end
      );
    end if;
%10$s  else
%11$s  end if;
  return null;
end
$body$
$code$,
    'audit_' || p_table, gdpr_internal.output_settings(v_relation),
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'new'), '  '),
    gdpr_internal.indented(gdpr_internal.audit_row_code(
      p_table, 'INSERT', 'new', 'null', 'null', 'gdpr_internal.key_encryption_key as k where k.retired_at is null'), '    '),
    v_changed,
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'old'), '  '),
    gdpr_internal.object_code(v_all || '''gdpr_subject_id'', old.gdpr_subject_id'::text), v_same,
    gdpr_internal.indented(gdpr_internal.seal_code('v_payload', 'old.gdpr_subject_id', 0, 'v_payload', 1), '    '),
    gdpr_internal.indented(gdpr_internal.audit_row_code(
      p_table, 'UPDATE', 'new', 'v_changed', 'v_payload', '(values (v_audit_key)) as k (audit_key)'), '    '),
    gdpr_internal.indented(gdpr_internal.audit_row_code(
      p_table, 'DELETE', 'old', 'null', 'v_payload', '(values (v_audit_key)) as k (audit_key)'), '    '),
    p_table, gdpr_internal.key_text(v_relation, 'new'), gdpr_internal.object_code(v_all)
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'audit_' || p_table,
    format('After a row of %s has changed: its audit record. Generated by gdpr.apply().', v_relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'audit_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_audit(smallint) is 'Generates the audit trigger function of a protected table.';

-- 50_audit/20_records.sql
-- [code] Writing and reading audit records.
-- GDPR Art. 5(2), Art. 32(1)(d). Written by the generated triggers and by gdprdb's own functions; read by gdpr_dpo, gdpr_auditor.

set local role gdpr_keyholder;

create or replace function gdpr_internal.audit_event(p_operation text, p_subject bigint, p_details jsonb)
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
  insert into gdpr_internal.audit_record (
    operation, subject_id, purpose_id, actor, request, role, application_name, payload
  )
  values (
    p_operation, p_subject,
    gdpr_generated.purpose_held(v_role, gdpr_internal.context_setting('purpose')),
    gdpr_internal.context_setting('actor'),
    gdpr_internal.context_setting('request'),
    v_role,
    nullif(current_setting('application_name'), ''),
    p_details::text
  );
end
$function$;
comment on function gdpr_internal.audit_event(text, bigint, jsonb) is
  'Records an event of gdprdb itself (policy, key, basis, consent, restriction, erasure, maintenance). p_details must not hold personal data.';

create or replace function gdpr_internal.note_maintenance()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if current_setting('transaction_read_only')::boolean then
    raise log 'gdprdb: purpose maintenance used by % in a read-only transaction', gdpr_internal.acting_role();
  elsif pg_current_xact_id_if_assigned() is null or not exists (
    select from gdpr_internal.audit_record as a
    where a.at >= transaction_timestamp() - interval '1 minute'
      and a.xid = pg_current_xact_id() and a.operation = 'MAINTENANCE'
  ) then
    perform gdpr_internal.audit_event('MAINTENANCE', null, '{}');
  end if;
end
$function$;
comment on function gdpr_internal.note_maintenance() is
  'One record for each transaction that uses purpose maintenance; a read-only transaction leaves a line in the server''s log instead.';

create or replace view gdpr.audit_log as
select
  a.id,
  a.at,
  a.xid,
  t.relation as table_name,
  a.operation,
  a.subject_id,
  a.row_key,
  p.name as purpose,
  a.actor,
  a.login,
  a.role,
  a.client_addr,
  a.application_name,
  a.request,
  a.changed,
  case
    when a.table_id is null then a.payload::jsonb
    when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_changes(a.subject_id, a.payload)
  end as old,
  a.row_hash
from gdpr_internal.audit_record as a
left join gdpr_internal.protected_table as t on t.id = a.table_id
left join gdpr_internal.purpose as p on p.id = a.purpose_id;
comment on view gdpr.audit_log is
  'Audit records. operation: INSERT, UPDATE, DELETE of a protected row, or an event of gdprdb (POLICY, KEY, BASIS, CONSENT, ERASE, ...). old: what the changed columns held before (for gdpr_dpo, until the person is erased), or the details of an event. row_key: keyed digest of the primary key. Art. 5(2).';

create or replace view gdpr.source as
select
  s.id,
  s.subject_id,
  t.relation as table_name,
  s.event,
  s.kind,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(s.subject_id, s.details)::jsonb end as details,
  s.actor,
  s.recorded_at
from gdpr_internal.source as s
left join gdpr_internal.protected_table as t on t.id = s.table_id;
comment on view gdpr.source is
  'Where each row of personal data came from, and its changes as far as that was told (event created, changed; Art. 14(2)(f)); details are shown to gdpr_dpo, while the person is not erased.';

set local role gdpr_owner;

create or replace function gdpr_internal.append_only()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refuse('append_only', tg_table_name);
  return null;
end
$function$;
comment on function gdpr_internal.append_only() is 'Refuses every change of evidence. Error: 55000.';

create or replace function gdpr_internal.make_audit_partitions(p_months integer default 3)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_month timestamptz;
  v_name name;
  v_made integer := 0;
begin
  for v_month in
    select generate_series(date_trunc('month', statement_timestamp()), statement_timestamp() + make_interval(months => p_months), '1 month')
  loop
    v_name := 'audit_record_' || to_char(v_month, 'YYYY_MM');
    if to_regclass('gdpr_internal.' || v_name) is null then
      execute format(
        'create table gdpr_internal.%I partition of gdpr_internal.audit_record for values from (%L) to (%L)',
        v_name, v_month, v_month + interval '1 month'
      );
      execute format('comment on table gdpr_internal.%I is %L', v_name, 'Audit records of one month (UTC).');
      execute format('alter table gdpr_internal.%I enable row level security', v_name);
      v_made := v_made + 1;
    end if;
  end loop;
  return v_made;
end
$function$;
comment on function gdpr_internal.make_audit_partitions(integer) is 'Makes the monthly partitions of this month and the next p_months; returns how many were missing.';

-- 50_audit/25_consent_history.sql
-- [code] The whole story of a consent, with the evidence.
-- GDPR Art. 7(1): the controller can demonstrate it. Read by: gdpr_dpo, gdpr_auditor (without the evidence).

set local role gdpr_owner;

create or replace view gdpr.consent_history as
select h.at, h.subject_id, p.name as purpose, h.event, h.channel, h.contact, h.request_id, h.form_id, h.until, h.evidence, h.recorded_by, h.actor
from (
  select
    q.id, q.recorded_at as at, q.subject_id, u.purpose_id, 'asked' as event, q.channel, null::text[] as contact,
    q.id as request_id, q.form_id, q.respond_until as until, null::jsonb as evidence, q.recorded_by, q.actor
  from gdpr_internal.consent_request as q
  cross join lateral unnest(q.purposes) as u (purpose_id)
  union all
  select
    r.id, r.recorded_at, r.subject_id, r.purpose_id, r.event, r.channel, r.contact, r.request_id, r.form_id,
    case when r.event = 'granted' then r.valid_until end,
    case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(r.subject_id, r.evidence)::jsonb end,
    r.recorded_by, r.actor
  from gdpr_internal.consent_record as r
) as h
join gdpr_internal.purpose as p on p.id = h.purpose_id
order by h.id;
comment on view gdpr.consent_history is
  'Every question and every answer, in order: asked, granted, declined, withdrawn. until: deadline of a question, end of a grant. evidence is shown to gdpr_dpo, while the person is not erased. Art. 7(1).';

-- 50_audit/25_events.sql
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

-- 50_audit/30_append_only.sql
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

-- 60_subject_rights/20_restrict.sql
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
  select r.id, p_reason
  from gdpr_internal.restriction_record as r
  where r.subject_id = p_subject
  on conflict (restriction_id) do nothing;
  get diagnostics v_lifted = row_count;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.audit_event('LIFT', p_subject, jsonb_build_object('restrictions', v_lifted, 'reason', p_reason));
  perform gdpr_internal.note_request(p_subject, 'restriction_lifted', jsonb_build_object('restrictions', v_lifted));
  return v_lifted;
end
$function$;
comment on function gdpr.lift_restriction(bigint, text) is
  'Lifts every restriction of a person and returns how many. Who obtained it is told before: by gdpr.announce_lifting() or, where nobody did that, by the mail that this queues itself; without an address somebody has to tell the person and say how. The controller''s own (ground other) ends without. Errors: PR101, PR603, PR004, PR612 the person was not told and has no address; PR607, PR608, PR609 for the request that the context names. Art. 18(3).';

-- 60_subject_rights/21_due_dates.sql
-- [code] The last day for an answer: months of the calendar, pauses, days off.
-- GDPR Art. 12(3); Regulation (EEC, Euratom) 1182/71 Art. 3: the day of receipt does not count, a period of months ends with the
-- same date or the last day of the month, and one that would end on a day off with the next working day.

set local role gdpr_owner;

create or replace function gdpr_internal.local_day(p_at timestamptz)
returns date
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return timezone(gdpr_internal.time_zone(), p_at)::date;
end
$function$;
comment on function gdpr_internal.local_day(timestamptz) is 'The day that an instant belongs to, in the time zone of the policy.';

create or replace function gdpr_internal.working_days()
returns integer[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(
    (
      select array_agg(array_position(gdpr_internal.weekdays(), d.name))
      from gdpr_internal.setting as s
      cross join lateral jsonb_array_elements_text(s.value) as d (name)
      where s.name = 'working_days'
    ),
    array[1, 2, 3, 4, 5]
  );
end;
comment on function gdpr_internal.working_days() is 'The days of the week on which people work (settings.working_days), by their ISO numbers; else Monday to Friday.';

create or replace function gdpr_internal.working_day(p_day date)
returns date
language plpgsql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
as $function$
declare
  v_week integer[] := gdpr_internal.working_days();
  v_holidays text[] := array(
    select h.day from gdpr_internal.setting as s cross join lateral jsonb_array_elements_text(s.value) as h (day) where s.name = 'holidays'
  );
  v_day date := p_day;
begin
  while extract(isodow from v_day)::integer <> all (v_week)
    or to_char(v_day, 'YYYY-MM-DD') = any (v_holidays) or to_char(v_day, 'MM-DD') = any (v_holidays)
  loop
    v_day := v_day + 1;
    -- a year without a working day is a mistake in the settings, and no reason to wait for ever
    exit when v_day > p_day + 366;
  end loop;
  return v_day;
end
$function$;
comment on function gdpr_internal.working_day(date) is
  'The day itself, or the next working day after it: settings.working_days and settings.holidays ("2027-03-26", or "12-25" for every year).';

create or replace function gdpr_internal.due_on(p_received_at timestamptz, p_months integer, p_paused_days integer)
returns date
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.working_day(
    (gdpr_internal.local_day(p_received_at) + make_interval(months => p_months))::date + p_paused_days
  );
end;
comment on function gdpr_internal.due_on(timestamptz, integer, integer) is
  'The last day for the answer to a request: months after the day it was received in the policy''s time zone (31 January: the last day of February), moved on by the days that the clock stood, and to the next working day. Art. 12(3).';

-- 60_subject_rights/22_request_states.sql
-- [code] Where each request stands, derived from its steps; and the one function that adds a step.
-- GDPR Art. 12, Art. 5(2). Read by: gdpr_dpo, gdpr_auditor.

set local role gdpr_owner;

create or replace view gdpr_internal.request_state as
select
  r.id,
  r.kind,
  coalesce(r.subject_id, e.subject_id) as subject_id,
  r.channel,
  r.received_at,
  case e.last
    when 'identity_asked' then 'identity_pending'
    when 'completed' then 'completed'
    when 'refused' then 'refused'
    when 'withdrawn' then 'withdrawn'
    else case when e.extended then 'extended' when coalesce(r.subject_id, e.subject_id) is null then 'received' else 'open' end
  end as state,
  coalesce(e.last in ('completed', 'refused', 'withdrawn'), false) as closed,
  e.extended,
  e.due_on,
  gdpr.until(e.due_on) as due_at,
  e.paused_days,
  case when e.last = 'identity_asked' then e.last_at end as paused_at,
  case when e.last in ('completed', 'refused', 'withdrawn') then e.last_at end as closed_at,
  case when e.last in ('completed', 'refused', 'withdrawn') then e.last_reason end as outcome,
  e.fulfilled,
  r.details,
  r.recorded_at,
  r.recorded_by,
  r.actor
from gdpr_internal.request as r
cross join lateral (
  select
    (array_agg(x.event order by x.id desc) filter (where x.moves))[1] as last,
    (array_agg(x.recorded_at order by x.id desc) filter (where x.moves))[1] as last_at,
    (array_agg(x.reason order by x.id desc) filter (where x.moves))[1] as last_reason,
    (array_agg(x.due_on order by x.id desc) filter (where x.due_on is not null))[1] as due_on,
    max(x.subject_id) as subject_id,
    coalesce(bool_or(x.event = 'extended'), false) as extended,
    sum(x.paused_days)::integer as paused_days,
    array_agg(distinct x.event) filter (where not x.moves) as fulfilled
  from (
    select y.*, y.event in (
      'received', 'identity_asked', 'identity_verified', 'extended', 'completed', 'refused', 'withdrawn'
    ) as moves
    from gdpr_internal.request_event as y
    where y.request_id = r.id
  ) as x
) as e;
comment on view gdpr_internal.request_state is
  'Requests as they stand: state, last day for the answer, how long the clock stood, what was done to fulfil them.';

create or replace function gdpr_internal.fulfilling_events()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'access_report', 'portable_copy', 'rectification', 'restriction', 'restriction_lifted', 'objection_pending', 'objection', 'erasure', 'withdrawal'
  ];
end;
comment on function gdpr_internal.fulfilling_events() is 'What can be done to fulfil a request, as its steps are called.';

create or replace function gdpr_internal.add_request_event(
  p_request gdpr_internal.request_state, p_event text, p_reason text default null, p_details jsonb default null, p_facts jsonb default null,
  p_due_on date default null, p_paused_days integer default 0, p_subject bigint default null
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subject bigint := coalesce(p_request.subject_id, p_subject);
begin
  if p_details is not null and v_subject is null then
    perform gdpr_internal.refuse('invalid_argument', 'details are kept under the key of a person: say first who asks, with gdpr.verify_identity()');
  end if;
  insert into gdpr_internal.request_event (request_id, event, subject_id, due_on, paused_days, reason, facts, details, actor)
  values (
    p_request.id, p_event, p_subject, p_due_on, p_paused_days, p_reason, p_facts,
    gdpr_internal.seal_evidence(v_subject, p_details::text), gdpr_internal.context_setting('actor')
  );
  perform gdpr_internal.audit_event('REQUEST', v_subject, jsonb_strip_nulls(jsonb_build_object(
    'request_id', p_request.id, 'kind', p_request.kind, 'event', p_event, 'reason', p_reason, 'due_on', p_due_on
  )));
end
$function$;
comment on function gdpr_internal.add_request_event(gdpr_internal.request_state, text, text, jsonb, jsonb, date, integer, bigint) is
  'Adds a step to a request, and an audit record. p_facts must not hold personal data; p_details are encrypted under the person''s key.';

create or replace function gdpr_internal.take_request(p_request bigint, p_states text[])
returns gdpr_internal.request_state
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
begin
  -- two that answer the same request meet here; the second sees what the first has done
  perform from gdpr_internal.request as r where r.id = p_request for update;
  if not found then
    perform gdpr_internal.refuse('unknown_request');
  end if;
  select * into v_request from gdpr_internal.request_state as r where r.id = p_request;
  if v_request.state <> all (p_states) then
    perform gdpr_internal.refuse(
      'request_state', format('request %s is %s; this takes one that is %s', p_request, v_request.state, array_to_string(p_states, ', '))
    );
  end if;
  return v_request;
end
$function$;
comment on function gdpr_internal.take_request(bigint, text[]) is
  'A request, locked, if it is in one of these states. Errors: PR607 no such request, PR608 in another state.';

create or replace function gdpr_internal.note_request(p_subject bigint, p_event text, p_details jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_named text := gdpr_internal.context_setting('request');
  v_request gdpr_internal.request_state;
begin
  -- digits name a request; anything else is a ticket of the application, which the audit log keeps
  if v_named is null or v_named !~ '^[0-9]{1,18}$' then
    return null;
  elsif p_event is null or p_event <> all (gdpr_internal.fulfilling_events()) then
    perform gdpr_internal.refuse('invalid_argument', 'event is one of ' || array_to_string(gdpr_internal.fulfilling_events(), ', '));
  end if;
  v_request := gdpr_internal.take_request(v_named::bigint, array['open', 'extended']);
  if v_request.subject_id is distinct from p_subject then
    perform gdpr_internal.refuse('request_of_another');
  end if;
  perform gdpr_internal.add_request_event(v_request, p_event, p_facts => p_details);
  return v_request.id;
end
$function$;
comment on function gdpr_internal.note_request(bigint, text, jsonb) is
  'Called by whatever fulfils a right: where the context names a request (gdpr.request, its number) this is appended to it, and its number returned; else null. p_event: access_report, portable_copy, rectification, restriction, restriction_lifted, objection_pending, objection, erasure, withdrawal. p_details: facts without personal data. Errors: PR607 no such request, PR608 it is not open, PR609 of another person. Art. 5(2).';

-- 60_subject_rights/23_requests.sql
-- [code] Receiving a request and moving it on: identity, extension, refusal, answer.
-- GDPR Art. 12(3) one month, 12(5) refusal, 12(6) identity. Called by: gdpr_dpo; the portal opens requests through its functions.

set local role gdpr_owner;

create or replace function gdpr.open_request(
  p_kind text, p_subject bigint, p_channel text default 'office', p_received_at timestamptz default statement_timestamp(),
  p_details jsonb default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_kinds text[] := array['access', 'rectification', 'portability', 'restriction', 'objection', 'erasure', 'withdrawal'];
  v_channels text[] := array['office', 'portal', 'email', 'post', 'phone', 'in_person'];
  v_received timestamptz := coalesce(p_received_at, statement_timestamp());
  v_request gdpr_internal.request_state;
begin
  if p_kind is null or p_kind <> all (v_kinds) then
    perform gdpr_internal.refuse('invalid_argument', 'kind is one of ' || array_to_string(v_kinds, ', '));
  elsif p_channel is null or p_channel <> all (v_channels) then
    perform gdpr_internal.refuse('invalid_argument', 'channel is one of ' || array_to_string(v_channels, ', '));
  elsif v_received > statement_timestamp() or v_received < '2018-05-25' then
    perform gdpr_internal.refuse('invalid_argument', 'received_at is a time in the past, since the Regulation applies');
  elsif p_subject is null and p_details is not null then
    perform gdpr_internal.refuse('invalid_argument', 'details are kept under the key of a person: say first who asks, with gdpr.verify_identity()');
  end if;
  if p_subject is not null then
    perform gdpr_internal.require_subject(p_subject);
  end if;
  insert into gdpr_internal.request (kind, subject_id, channel, details, received_at, actor)
  values (
    p_kind, p_subject, p_channel, gdpr_internal.seal_evidence(p_subject, p_details::text), v_received, gdpr_internal.context_setting('actor')
  )
  returning id into v_request.id;
  v_request.kind := p_kind;
  v_request.subject_id := p_subject;
  perform gdpr_internal.add_request_event(v_request, 'received', p_due_on => gdpr_internal.due_on(v_received, 1, 0));
  return v_request.id;
end
$function$;
comment on function gdpr.open_request(text, bigint, text, timestamptz, jsonb) is
  'Records that a person asks for something and returns the number of the request; the answer is due one calendar month after p_received_at (a time in the past, not in the future), gdpr.request says on which day. p_kind: access, rectification, portability, restriction, objection, erasure, withdrawal. p_subject: null where it is not known who asks, until gdpr.verify_identity(). p_channel: office, portal, email, post, phone, in_person. p_details: what exactly, kept encrypted under the person''s key. While the request is open, gdpr.set_context(p_request => its number) ties what fulfils it to it. Errors: PR004, PR101, PR603. Art. 12(3), 15 to 22.';

create or replace function gdpr.ask_identity(p_request bigint, p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.add_request_event(
    gdpr_internal.take_request(p_request, array['received', 'open', 'extended']), 'identity_asked', p_details => p_details
  );
end
$function$;
comment on function gdpr.ask_identity(bigint, jsonb) is
  'Records that the person was asked to prove who they are: the clock stands until gdpr.verify_identity(). Only where there are reasonable doubts. p_details: how it was asked, kept encrypted. Errors: PR607, PR608 closed or asked already, PR004. Art. 12(6).';

create or replace function gdpr.verify_identity(p_request bigint, p_subject bigint default null, p_details jsonb default null)
returns date
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
  v_paused integer;
  v_due date;
begin
  v_request := gdpr_internal.take_request(p_request, array['received', 'identity_pending']);
  if coalesce(p_subject, v_request.subject_id) is null then
    perform gdpr_internal.refuse('invalid_argument', 'say which person it is');
  elsif p_subject <> v_request.subject_id then
    perform gdpr_internal.refuse('request_of_another');
  end if;
  perform gdpr_internal.require_subject(coalesce(p_subject, v_request.subject_id));
  v_paused := coalesce(gdpr_internal.local_day(statement_timestamp()) - gdpr_internal.local_day(v_request.paused_at), 0);
  v_due := gdpr_internal.due_on(v_request.received_at, case when v_request.extended then 3 else 1 end, v_request.paused_days + v_paused);
  perform gdpr_internal.add_request_event(
    v_request, 'identity_verified', p_details => p_details, p_due_on => v_due, p_paused_days => v_paused, p_subject => p_subject
  );
  return v_due;
end
$function$;
comment on function gdpr.verify_identity(bigint, bigint, jsonb) is
  'Records that it is known who asks, and returns the day until which the answer is due: later by the days since gdpr.ask_identity(). p_subject: the person, where the request names none yet. p_details: by what it was proved, kept encrypted. Errors: PR607, PR608 nothing was asked, PR609 the request is that of another person, PR004, PR101, PR603. Art. 12(6).';

create or replace function gdpr.extend_request(p_request bigint, p_reason text, p_details jsonb default null)
returns date
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
  v_due date;
begin
  if p_reason is null or p_reason not in ('complexity', 'number_of_requests') then
    perform gdpr_internal.refuse('invalid_argument', 'reason is complexity or number_of_requests');
  end if;
  v_request := gdpr_internal.take_request(p_request, array['received', 'open']);
  if v_request.due_at <= statement_timestamp() then
    perform gdpr_internal.refuse('too_late_to_extend', format('the answer was due on %s', to_char(v_request.due_on, 'YYYY-MM-DD')));
  end if;
  v_due := gdpr_internal.due_on(v_request.received_at, 3, v_request.paused_days);
  perform gdpr_internal.add_request_event(v_request, 'extended', p_reason, p_details, p_due_on => v_due);
  return v_due;
end
$function$;
comment on function gdpr.extend_request(bigint, text, jsonb) is
  'Extends the time for the answer by two months, once, within the first; returns the new day. Tell the person, and why, within the first month. p_reason: complexity or number_of_requests. p_details: more of it, kept encrypted. Errors: PR004, PR607, PR608 extended already, paused or closed, PR610 the first month is over. Art. 12(3).';

create or replace view gdpr.refusal_ground (name, kind, article) as
select g.name, k.kind, g.article
from (
  values
  ('manifestly_unfounded', 'access,rectification,portability,restriction,objection,erasure', 'Art. 12(5)(b)'),
  ('excessive', 'access,rectification,portability,restriction,objection,erasure', 'Art. 12(5)(b)'),
  ('not_identified', 'access,rectification,portability,restriction,objection,erasure,withdrawal', 'Art. 11(2), 12(2)'),
  ('rights_of_others', 'access', 'Art. 15(4)'),
  ('rights_of_others', 'portability', 'Art. 20(4)'),
  ('data_accurate', 'rectification', 'Art. 16'),
  ('no_ground', 'erasure', 'Art. 17(1)'),
  ('freedom_of_expression', 'erasure', 'Art. 17(3)(a)'),
  ('legal_obligation', 'erasure', 'Art. 17(3)(b)'),
  ('public_health', 'erasure', 'Art. 17(3)(c)'),
  ('archiving_or_research', 'erasure', 'Art. 17(3)(d)'),
  ('legal_claims', 'erasure', 'Art. 17(3)(e)'),
  ('no_ground', 'restriction', 'Art. 18(1)'),
  ('no_consent_or_contract', 'portability', 'Art. 20(1)(a)'),
  ('not_automated', 'portability', 'Art. 20(1)(b)'),
  ('public_task', 'portability', 'Art. 20(3)'),
  ('not_open_to_objection', 'objection', 'Art. 21(1)'),
  ('compelling_grounds', 'objection', 'Art. 21(1)'),
  ('legal_claims', 'objection', 'Art. 21(1)'),
  ('public_interest_task', 'objection', 'Art. 21(6)')
) as g (name, kinds, article)
cross join lateral unnest(string_to_array(g.kinds, ',')) as k (kind);
comment on view gdpr.refusal_ground is
  'On which grounds a request of which kind can be refused, and where the law says so. Withdrawal of consent is refused to somebody unknown only.';

create or replace function gdpr.refuse_request(p_request bigint, p_ground text, p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
begin
  v_request := gdpr_internal.take_request(p_request, array['received', 'identity_pending', 'open', 'extended']);
  if p_ground is null or not exists (select from gdpr.refusal_ground as g where g.name = p_ground and g.kind = v_request.kind) then
    perform gdpr_internal.refuse('invalid_argument', (
      select format('the ground for refusing %s is one of %s', v_request.kind, string_agg(g.name, ', ' order by g.name))
      from gdpr.refusal_ground as g where g.kind = v_request.kind
    ));
  elsif p_ground = 'not_identified' and v_request.state in ('open', 'extended') then
    perform gdpr_internal.refuse('request_state', 'the person is identified');
  elsif v_request.kind = 'objection' and p_ground <> 'not_identified' and exists (
    select from gdpr_internal.standing_objection as o
    join gdpr_internal.purpose as p on p.id = o.purpose_id
    where o.request_id = p_request and p.direct_marketing
  ) then
    perform gdpr_internal.refuse('request_state', 'an objection to direct marketing is not decided about: it was respected at once');
  end if;
  perform gdpr_internal.add_request_event(v_request, 'refused', p_ground, p_details);
end
$function$;
comment on function gdpr.refuse_request(bigint, text, jsonb) is
  'Closes a request without doing what it asks. p_ground: one of gdpr.refusal_ground for its kind. p_details: the reasons, kept encrypted; tell them to the person within the month, with the right to complain to the authority and to go to court. Errors: PR004 not such a ground, PR607, PR608 closed already. Art. 12(4), 12(5), 17(3).';

create or replace function gdpr.withdraw_request(p_request bigint, p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.add_request_event(
    gdpr_internal.take_request(p_request, array['received', 'identity_pending', 'open', 'extended']), 'withdrawn', p_details => p_details
  );
end
$function$;
comment on function gdpr.withdraw_request(bigint, jsonb) is
  'Closes a request because the person does not want it any more. Errors: PR607, PR608 closed already, PR004.';

create or replace function gdpr_internal.request_misses(p_request gdpr_internal.request_state)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when p_request.closed then null
    when p_request.state = 'identity_pending' then 'identity'
    when p_request.state = 'received' then 'person'
    when n.needs = any (p_request.fulfilled) then null
    when p_request.kind = 'erasure' and exists (
      select from gdpr_internal.subject as s where s.id = p_request.subject_id and s.erased_at is not null
    ) then null
    else n.needs
  end
  from (
    select case p_request.kind
      when 'access' then 'access_report' when 'portability' then 'portable_copy' else p_request.kind
    end as needs
  ) as n;
end;
comment on function gdpr_internal.request_misses(gdpr_internal.request_state) is
  'What is still to be done before a request can be completed as fulfilled: person, identity, or the step of its kind; null for nothing.';

create or replace function gdpr.complete_request(p_request bigint, p_outcome text default 'fulfilled', p_details jsonb default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_outcomes text[] := array['fulfilled', 'fulfilled_in_part', 'fulfilled_elsewhere', 'done_before', 'nothing_held'];
  v_request gdpr_internal.request_state;
  v_misses text;
begin
  if p_outcome is null or p_outcome <> all (v_outcomes) then
    perform gdpr_internal.refuse('invalid_argument', 'outcome is one of ' || array_to_string(v_outcomes, ', '));
  end if;
  v_request := gdpr_internal.take_request(p_request, case
    -- of somebody who is not known there is nothing that could be done
    when p_outcome = 'nothing_held' then array['received', 'identity_pending', 'open', 'extended'] else array['open', 'extended']
  end);
  v_misses := gdpr_internal.request_misses(v_request);
  if p_outcome = 'fulfilled' and v_misses is not null then
    perform gdpr_internal.refuse('request_unanswered', format('%s of this request misses: %s', v_request.kind, v_misses));
  end if;
  perform gdpr_internal.add_request_event(v_request, 'completed', p_outcome, p_details);
end
$function$;
comment on function gdpr.complete_request(bigint, text, jsonb) is
  'Closes a request that was answered. p_outcome: fulfilled (only if what its kind asks was done: the report given, the person erased, ...), fulfilled_in_part, fulfilled_elsewhere (outside of gdprdb), done_before, nothing_held. p_details: kept encrypted. Errors: PR004, PR607, PR608 closed already or identity pending, PR611 what was asked is not done. Art. 12(3), 5(2).';

create or replace function gdpr_internal.name_request(p_request bigint)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := coalesce(current_setting('gdpr.request', true), '');
begin
  perform set_config('gdpr.request', coalesce(p_request::text, ''), true);
  return v_before;
end
$function$;
comment on function gdpr_internal.name_request(bigint) is
  'Names the request that the next steps fulfil, for functions that do so themselves; returns what the caller''s context said, for end_request().';

create or replace function gdpr_internal.end_request(p_request bigint, p_before text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_request gdpr_internal.request_state;
begin
  select * into v_request from gdpr_internal.request_state as r where r.id = p_request;
  -- what somebody has to decide stays open
  if v_request.id is not null and gdpr_internal.request_misses(v_request) is null then
    perform gdpr.complete_request(p_request);
  end if;
  perform set_config('gdpr.request', p_before, true);
end
$function$;
comment on function gdpr_internal.end_request(bigint, text) is
  'After name_request(): completes the request if nothing of it is left to be done, and gives the caller''s context back.';

-- 60_subject_rights/24_corrections.sql
-- [code] A list of changes, read and judged: which rows, whose, what stands there, what cannot be done and why.
-- GDPR Art. 16, Art. 5(1)(d). Called by: proposing, approving, rectifying, comparing. Problems never hold a value.

set local role gdpr_keyholder;

create or replace function gdpr_internal.open_values(p_subjects bigint[], p_columns integer[], p_values text[])
returns text[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea;
begin
  if exists (select from unnest(p_values) as v where starts_with(v, 'gdpr1:')) then
    v_kek := (gdpr_internal.keyring()).kek;
  end if;
  return (
    select coalesce(array_agg(
      case when u.column_id is null then u.value else gdpr_internal.open_value(k.data_key, u.subject_id, u.column_id, u.value) end order by u.n
    ), '{}')
    from unnest(p_subjects, p_columns, p_values) with ordinality as u (subject_id, column_id, value, n)
    left join lateral (
      select gdpr_internal.unwrap_key(v_kek, int8send(x.subject_id), x.wrapped) as data_key
      from gdpr_internal.subject_key as x
      where x.subject_id = u.subject_id and u.column_id is not null and starts_with(u.value, 'gdpr1:')
      offset 0
    ) as k on true
  );
end
$function$;
comment on function gdpr_internal.open_values(bigint[], integer[], text[]) is
  'Stored values in plaintext, place by place (p_columns null: not encrypted). Errors: PR402 key locked, PR404, PR410.';

create or replace function gdpr_internal.digests_of(p_kinds text[], p_values text[])
returns table (n bigint, digest uuid, bare uuid)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
begin
  v_keys := gdpr_internal.keyring();
  return query
  select
    c.n, gdpr_internal.keyed_digest(v_keys.digest_key, c.kind, c.form),
    gdpr_internal.keyed_digest(v_keys.digest_key, c.kind, gdpr_internal.bare_form(c.kind, c.form))
  from (
    select u.n, u.kind, gdpr_internal.canonical(u.kind, u.value) as form
    from unnest(p_kinds, p_values) with ordinality as u (kind, value, n)
    offset 0
  ) as c
  where c.form is not null;
end
$function$;
comment on function gdpr_internal.digests_of(text[], text[]) is 'The digests of identifiers and of their bare forms, by their places; values without content have none.';

set local role gdpr_owner;

create or replace function gdpr_internal.rectifiable_columns(p_table smallint)
returns table (
  column_name name, type text, own_type text, stored_expression text, column_id integer, encrypted boolean, identifier text,
  special boolean, needed boolean, refusal text
)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    a.attname,
    d.type,
    -- a type of PostgreSQL's own can be named by anybody
    case when a.atttypid < 16384 then d.type end,
    case when d.encrypted then format('t.%I', a.attname) else gdpr_internal.text_expression(format('t.%I', a.attname), d.type) end,
    case when d.encrypted then c.id end,
    d.encrypted,
    c.identifier,
    c.special is not null,
    a.attnotnull,
    case
      when a.attname ~ '^gdpr_' and gdpr_internal.is_control_column(p_table, a.attname) then 'is kept by the database'
      when a.attgenerated <> '' or a.attidentity <> '' then 'is generated'
      when exists (select from pg_index as x where x.indrelid = a.attrelid and x.indisprimary and a.attnum = any (x.indkey))
        then 'is part of the primary key'
      when exists (select from pg_constraint as k where k.conrelid = a.attrelid and k.contype = 'f' and a.attnum = any (k.conkey))
        then 'is part of a foreign key'
    end
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
  left join gdpr_internal.protected_column as c on c.table_id = t.id and c.column_name = a.attname
  cross join lateral (
    select
      coalesce(c.encrypt <> 'no', false) as encrypted,
      case when c.encrypt <> 'no' then c.original_type else format_type(a.atttypid, a.atttypmod) end as type
  ) as d
  where t.id = p_table
  order by a.attnum;
end;
comment on function gdpr_internal.rectifiable_columns(smallint) is
  'The columns of a protected table for those who correct values. own_type: where it is a type of PostgreSQL''s own; stored_expression: the value of row t as text; column_id: of its ciphertext; refusal: why the column cannot be corrected.';

create or replace function gdpr_internal.read_corrections(p_changes jsonb)
returns gdpr_internal.correction[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if jsonb_typeof(p_changes) is distinct from 'array' then
    perform gdpr_internal.refuse('invalid_argument', 'changes are a list of {"table", "key", "column", "value"} or {"table", "key", "column", "statement"}');
  end if;
  return (
    with change as (
      select e.n, e.value as change, jsonb_typeof(e.value) = 'object' as is_object
      from jsonb_array_elements(p_changes) with ordinality as e (value, n)
    ), named as materialized (
      select t.id, x.name, t.relation
      from (select distinct c.change ->> 'table' as name from change as c where c.is_object and c.change ? 'table') as x
      join gdpr_internal.protected_table as t on t.relation = gdpr_internal.find_table(x.name) and t.unprotected_at is null
    ), allowed as materialized (
      select x.id, c.* from named as x cross join lateral gdpr_internal.rectifiable_columns(x.id) as c
    )
    select coalesce(array_agg(row(
      c.n, t.id, c.change ->> 'key', c.change ->> 'column',
      -- an array or a document is given as such, or as text
      c.change ->> 'value', c.change ->> 'was', c.change ? 'was', c.change ->> 'statement', null, null,
      case
        when not c.is_object then 'is no object'
        when c.change - array['table', 'key', 'column', 'value', 'was', 'statement'] <> '{}' then 'has other settings than table, key, column, value, was, statement'
        when (c.change ? 'value') = (c.change ? 'statement') then 'needs either a value or a statement'
        when c.change ? 'statement' and coalesce(btrim(c.change ->> 'statement'), '') = '' then 'needs words in its statement'
        when c.change ? 'table' and t.id is null then 'names a table that is not protected'
        when (c.change ? 'value' or c.change ?| array['table', 'key', 'column'])
          and '' = any (array[coalesce(c.change ->> 'table', ''), coalesce(c.change ->> 'key', ''), coalesce(c.change ->> 'column', '')])
          then 'needs a table, the primary key of a row and a column'
        when c.change ? 'column' and a.column_name is null then 'names a column that the table does not have'
        when c.change ? 'value' and a.refusal is not null then format('column %I %s', a.column_name, a.refusal)
      end
    )::gdpr_internal.correction order by c.n), '{}')
    from change as c
    left join named as t on c.is_object and t.name = c.change ->> 'table'
    left join allowed as a on a.id = t.id and a.column_name = c.change ->> 'column'
  );
end
$function$;
comment on function gdpr_internal.read_corrections(jsonb) is 'A list of changes as it was given, with what is wrong with it at first sight. Error: PR004 no list.';

create or replace function gdpr_internal.find_rows(p_corrections gdpr_internal.correction[], p_subject bigint, p_lock boolean)
returns gdpr_internal.correction[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_done gdpr_internal.correction[] := array(
    select c from unnest(p_corrections) as c where c.problem is not null or c.column_name is null or c.row_key is null
  );
  v_table smallint;
  v_asked gdpr_internal.correction[];
  v_found gdpr_internal.correction[];
  v_before text;
begin
  for v_table in
    select distinct c.table_id from unnest(p_corrections) as c where c.problem is null and c.column_name is not null and c.row_key is not null
  loop
    v_asked := array(
      select c from unnest(p_corrections) as c where c.table_id = v_table and c.problem is null and c.column_name is not null and c.row_key is not null
    );
    v_before := gdpr_internal.before_worker();
    v_found := array(
      select row(
        a.n, a.table_id, coalesce(r.row_key, a.row_key), a.column_name, r.value, a.was, a.expected, a.statement, r.subject_id, r.stored,
        case
          -- the same words whether there is no such row or it is somebody else's
          when r.subject_id is null or r.subject_id <> p_subject then 'has the key of no row' || case when p_subject is null then '' else ' of this person' end
          when r.wrong then 'has a value that the column cannot hold'
        end
      )::gdpr_internal.correction
      from gdpr_generated.read_cells(
        v_table, array(select x.row_key from unnest(v_asked) as x), array(select x.column_name from unnest(v_asked) as x),
        array(select x.value from unnest(v_asked) as x), p_lock
      ) as r
      join unnest(v_asked) with ordinality as a on a.ordinality = r.n
    );
    perform gdpr_internal.after_worker(v_before);
    v_done := v_done || gdpr_internal.open_corrections(v_table, v_found);
  end loop;
  return v_done;
end
$function$;
comment on function gdpr_internal.find_rows(gdpr_internal.correction[], bigint, boolean) is
  'Whose the rows are and what stands in them; values in the form in which the column would hold them. p_subject: every row has to be this person''s. p_lock: no other session changes them until the transaction ends.';

create or replace function gdpr_internal.open_corrections(p_table smallint, p_corrections gdpr_internal.correction[])
returns gdpr_internal.correction[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_open text[];
begin
  v_open := gdpr_internal.open_values(
    array(select case when c.problem is null then c.subject_id end from unnest(p_corrections) with ordinality as c order by c.ordinality),
    array(
      select x.column_id from unnest(p_corrections) with ordinality as c
      join gdpr_internal.rectifiable_columns(p_table) as x on x.column_name = c.column_name
      order by c.ordinality
    ),
    array(select case when c.problem is null then c.old end from unnest(p_corrections) with ordinality as c order by c.ordinality)
  );
  return array(
    select row(c.n, c.table_id, c.row_key, c.column_name, c.value, c.was, c.expected, c.statement, c.subject_id, o.value, c.problem)::gdpr_internal.correction
    from rows from (unnest(p_corrections), unnest(v_open)) as c (
      n, table_id, row_key, column_name, value, was, expected, statement, subject_id, old, problem, opened
    )
    cross join lateral (select c.opened as value) as o
  );
end
$function$;
comment on function gdpr_internal.open_corrections(smallint, gdpr_internal.correction[]) is 'What stands in the rows of one table, decrypted where it is ciphertext.';

create or replace function gdpr_internal.linked_columns()
returns table (table_id smallint, column_name name, link text, kind text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  with known as (
    select c.table_id, c.column_name, c.identifier, c.same_as, format('%s.%I', t.relation, c.column_name) as name
    from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    where t.unprotected_at is null
  )
  select k.table_id, k.column_name, o.name, o.identifier
  from known as k
  join known as o on o.name = coalesce(k.same_as, k.name)
  where k.same_as is not null or exists (select from known as x where x.same_as = k.name);
end;
comment on function gdpr_internal.linked_columns() is 'Columns that hold copies of one value (same_as), and the column they are copies of; link names the latter for all of them, kind is what identifier it is.';

create or replace function gdpr_internal.with_copies(p_corrections gdpr_internal.correction[], p_lock boolean)
returns gdpr_internal.correction[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_origins gdpr_internal.correction[] := array(
    select c from unnest(p_corrections) as c
    join gdpr_internal.linked_columns() as l on l.table_id = c.table_id and l.column_name = c.column_name
    where c.problem is null and c.old is not null and c.value is distinct from c.old
  );
  v_copy record;
  v_before text;
  v_found gdpr_internal.correction[];
  v_copies gdpr_internal.correction[] := '{}';
begin
  for v_copy in
    select l.table_id, l.column_name, l.link, l.kind, array_agg(distinct c.subject_id) as subjects
    from unnest(v_origins) as c
    join gdpr_internal.linked_columns() as o on o.table_id = c.table_id and o.column_name = c.column_name
    join gdpr_internal.linked_columns() as l on l.link = o.link
    group by l.table_id, l.column_name, l.link, l.kind
  loop
    v_before := gdpr_internal.before_worker();
    v_found := array(
      select row(null, v_copy.table_id, r.row_key, v_copy.column_name, null, null, false, null, r.subject_id, r.stored, null)::gdpr_internal.correction
      from gdpr_generated.cells_of(v_copy.table_id, v_copy.subjects, v_copy.column_name, p_lock) as r
    );
    perform gdpr_internal.after_worker(v_before);
    -- a copy that says something else is another fact, and stays
    v_copies := v_copies || array(
      select distinct on (f.row_key)
        row(c.n, f.table_id, f.row_key, f.column_name, c.value, null, false, null, f.subject_id, f.old, null)::gdpr_internal.correction
      from unnest(gdpr_internal.open_corrections(v_copy.table_id, v_found)) as f
      join unnest(v_origins) as c on c.subject_id = f.subject_id
        and (c.old = f.old or gdpr_internal.canonical(v_copy.kind, c.old) = gdpr_internal.canonical(v_copy.kind, f.old))
      join gdpr_internal.linked_columns() as o on o.table_id = c.table_id and o.column_name = c.column_name and o.link = v_copy.link
      where not exists (
        select from unnest(p_corrections) as x
        where (x.table_id, x.column_name, x.row_key) = (f.table_id, f.column_name, f.row_key) and x.statement is null
      )
      order by f.row_key, c.n
    );
  end loop;
  return p_corrections || v_copies;
end
$function$;
comment on function gdpr_internal.with_copies(gdpr_internal.correction[], boolean) is
  'Adds the copies (same_as) of what changes, in all rows of the same person that hold the value as it was; copies that hold another value, or none, are left alone. Art. 16.';

-- 60_subject_rights/24_request_views.sql
-- [code] What officers and auditors see of requests.
-- GDPR Art. 12(3), Art. 5(2), Art. 24. Read by: gdpr_dpo, gdpr_auditor (without what persons wrote).

set local role gdpr_owner;

create or replace view gdpr.request as
select
  r.id as request_id,
  r.kind,
  r.subject_id,
  r.channel,
  r.state,
  r.received_at,
  r.due_on,
  r.extended,
  r.paused_at,
  r.closed_at,
  r.outcome,
  r.fulfilled,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(r.subject_id, r.details)::jsonb end as details,
  r.recorded_at,
  r.recorded_by,
  r.actor
from gdpr_internal.request_state as r;
comment on view gdpr.request is
  'Requests of persons, open and closed. state: received (nobody knows yet who asks), identity_pending (the clock stands), open, extended, completed, refused, withdrawn. due_on: the last day for the answer, in the policy''s time zone. outcome: of a completed one the outcome, of a refused one the ground. fulfilled: what was done for it. details: what the person wrote, shown to gdpr_dpo, until erased. Art. 12.';

create or replace view gdpr.request_history as
select
  e.id,
  e.request_id,
  e.recorded_at as at,
  e.event,
  coalesce(r.subject_id, e.subject_id) as subject_id,
  e.reason,
  e.due_on,
  e.paused_days,
  e.facts,
  case
    when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(coalesce(r.subject_id, s.subject_id), e.details)::jsonb
  end as details,
  e.recorded_by,
  e.actor
from gdpr_internal.request_event as e
join gdpr_internal.request as r on r.id = e.request_id
left join lateral (
  select max(x.subject_id) as subject_id from gdpr_internal.request_event as x where x.request_id = e.request_id
) as s on true;
comment on view gdpr.request_history is
  'Every step of every request, in order of id: what happened, when, by whom, until when the answer was due from then on. details are shown to gdpr_dpo, until the person is erased. Art. 5(2).';

create or replace view gdpr.request_board as
select
  r.id as request_id,
  r.kind,
  r.subject_id,
  case
    when r.state = 'identity_pending' then 'paused'
    when r.due_at <= statement_timestamp() then 'overdue'
    when r.due_on - gdpr_internal.local_day(statement_timestamp()) <= 7 then 'due_soon'
    else 'open'
  end as status,
  r.state,
  case when r.state <> 'identity_pending' then r.due_on - gdpr_internal.local_day(statement_timestamp()) end as days_left,
  case when r.state <> 'identity_pending' then r.due_on end as due_on,
  gdpr_internal.request_misses(r) as misses,
  r.received_at,
  r.channel
from gdpr_internal.request_state as r
where not r.closed
order by r.due_on, r.id;
comment on view gdpr.request_board is
  'Requests that are not closed, the most urgent first. status: paused (the person was asked to prove who they are), overdue, due_soon (within a week), open. days_left: whole days until the last one. misses: what is still to be done before gdpr.complete_request(): person, identity, or the step that fulfils its kind; null: close it. Art. 12(3).';

-- 60_subject_rights/25_exceptions.sql
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
  insert into gdpr_internal.restriction_exception_end (exception_id, reason) values (p_exception, p_reason)
  on conflict (exception_id) do nothing;
  perform gdpr_internal.refresh_gate(array[v_subject]);
  perform gdpr_internal.audit_event('EXCEPT', v_subject, jsonb_build_object('exception_id', p_exception, 'ended', true));
end
$function$;
comment on function gdpr.end_exception(bigint, text) is
  'Ends an exception from a restriction before its time. p_reason: without personal data. Errors: PR004, PR005, PR613 unknown or ended. Art. 18(2).';

create or replace view gdpr.restriction as
select
  r.id as restriction_id,
  r.subject_id,
  r.ground,
  r.recorded_at,
  r.recorded_by,
  exists (select from gdpr_internal.lifting_notice as n where n.restriction_id = r.id) as lifting_announced,
  e.ended_at,
  e.reason as end_reason
from gdpr_internal.restriction_record as r
left join gdpr_internal.restriction_end as e on e.restriction_id = r.id;
comment on view gdpr.restriction is 'Restrictions of processing, those that were lifted too, and whether the person was told before. Art. 18.';

create or replace view gdpr.restriction_exception as
select
  x.id as exception_id,
  x.subject_id,
  p.name as purpose,
  x.ground,
  least(x.valid_until, e.ended_at) as valid_until,
  e.reason as end_reason,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(x.subject_id, x.details)::jsonb end as details,
  x.recorded_at,
  x.recorded_by,
  x.actor
from gdpr_internal.restriction_exception as x
join gdpr_internal.purpose as p on p.id = x.purpose_id
left join gdpr_internal.restriction_exception_end as e on e.exception_id = x.id;
comment on view gdpr.restriction_exception is
  'For which purposes restricted persons were processed all the same, why, and until when. details are shown to gdpr_dpo, until the person is erased. Art. 18(2).';

-- 60_subject_rights/25_judge_corrections.sql
-- [code] What cannot be done of a list of changes, and writing the rest.
-- GDPR Art. 16, Art. 9, Art. 17. Rows are written by gdpr_worker: digests, masks, ciphertext and audit follow by the tables' own triggers.

set local role gdpr_owner;

create or replace function gdpr_internal.judge_identifiers(p_corrections gdpr_internal.correction[])
returns gdpr_internal.correction[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set enable_nestloop = off
set jit = off
as $function$
declare
  v_new gdpr_internal.correction[];
  v_kinds text[];
  v_refusing boolean[];
begin
  select array_agg(c.correction), array_agg(i.identifier), array_agg(t.blocklist = 'refuse')
  into v_new, v_kinds, v_refusing
  from (select x as correction from unnest(p_corrections) as x) as c
  join gdpr_internal.protected_column as i on i.table_id = (c.correction).table_id and i.column_name = (c.correction).column_name
  join gdpr_internal.protected_table as t on t.id = i.table_id
  where (c.correction).problem is null and (c.correction).value is distinct from (c.correction).old and i.identifier is not null
    and (i.matches or i.identifier = 'email');
  if v_new is null then
    return p_corrections;
  end if;
  return array(
    with given as materialized (
      select c.n, c.table_id, c.row_key, c.column_name, c.subject_id, d.digest, d.bare, r.refusing
      from unnest(v_new) with ordinality as c
      join gdpr_internal.digests_of(v_kinds, array(select x.value from unnest(v_new) as x)) as d on d.n = c.ordinality
      join unnest(v_refusing) with ordinality as r (refusing, n) on r.n = c.ordinality
    ), held as materialized (
      select i.digest, i.subject_id, i.blocked_at is not null as blocked
      from gdpr_internal.identifier as i
      where i.digest = any (array(select g.digest from given as g union select g.bare from given as g)) and i.retired_at is null
    ), refused as (
      select g.table_id, g.row_key, g.column_name,
        case
          when h.blocked then 'has an identifier that is blocked'
          else 'has an identifier of another person'
        end as problem
      from given as g
      join held as h on h.digest = g.digest
      where h.blocked and g.refusing or not h.blocked and h.subject_id <> g.subject_id
      union all
      select g.table_id, g.row_key, g.column_name, 'has an identifier that is blocked'
      from given as g
      join held as h on h.digest = g.bare
      where h.blocked and g.refusing
      union all
      select g.table_id, g.row_key, g.column_name, 'has an identifier that the list gives to two persons'
      from given as g
      where g.digest in (select x.digest from given as x group by x.digest having count(distinct x.subject_id) > 1)
    ), worst as (
      select r.table_id, r.row_key, r.column_name, min(r.problem) as problem from refused as r group by r.table_id, r.row_key, r.column_name
    )
    select row(
      c.n, c.table_id, c.row_key, c.column_name, c.value, c.was, c.expected, c.statement, c.subject_id, c.old, coalesce(c.problem, w.problem)
    )::gdpr_internal.correction
    from unnest(p_corrections) as c
    left join worst as w on w.table_id = c.table_id and w.row_key = c.row_key and w.column_name = c.column_name and c.statement is null
  );
end
$function$;
comment on function gdpr_internal.judge_identifiers(gdpr_internal.correction[]) is
  'Finds new identifiers that are blocked or belong to somebody else: e-mail addresses, and what match_on names. Told to officers alone. Art. 17.';

create or replace function gdpr_internal.judge_corrections(p_corrections gdpr_internal.correction[], p_subject bigint, p_lock boolean)
returns gdpr_internal.correction[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set enable_nestloop = off
set jit = off
as $function$
declare
  v_judged gdpr_internal.correction[];
begin
  v_judged := array(
    select row(
      c.n, c.table_id, c.row_key, c.column_name, c.value, c.was, c.expected, c.statement, coalesce(c.subject_id, p_subject), c.old,
      case
        when c.problem is not null then c.problem
        when coalesce(c.subject_id, p_subject) is null then 'does not say of whom it is'
        when s.erased_at is not null then 'is about a person who was erased'
        when c.statement is not null then null
        when c.expected and c.was is distinct from c.old then 'was changed meanwhile'
        when c.value is null and k.needed then 'leaves a column empty that may not be'
        when count(*) filter (where c.statement is null) over (partition by c.table_id, c.row_key, c.column_name) > 1 then 'is about a value that the list names twice'
      end
    )::gdpr_internal.correction
    from unnest(gdpr_internal.find_rows(p_corrections, p_subject, p_lock)) as c
    left join gdpr_internal.subject as s on s.id = c.subject_id
    left join (
      select t.id, x.column_name, x.needed
      from gdpr_internal.protected_table as t
      cross join lateral gdpr_internal.rectifiable_columns(t.id) as x
      where t.id in (select y.table_id from unnest(p_corrections) as y)
    ) as k on k.id = c.table_id and k.column_name = c.column_name
  );
  v_judged := gdpr_internal.judge_identifiers(gdpr_internal.with_copies(v_judged, p_lock));
  return array(
    select row(
      c.n, c.table_id, c.row_key, c.column_name, c.value, c.was, c.expected, c.statement, c.subject_id, c.old,
      case
        when c.problem is null and c.statement is null and c.value is not null and c.value is distinct from c.old and exists (
          select from gdpr_internal.protected_column as x
          join gdpr_internal.protected_table as t on t.id = x.table_id
          where x.table_id = c.table_id and x.column_name = c.column_name and x.special is not null
            and not gdpr_internal.has_condition(c.subject_id, t.purpose_mask)
        ) then 'needs a condition of Art. 9(2)'
        else c.problem
      end
    )::gdpr_internal.correction
    from unnest(v_judged) as c
    order by c.n, c.table_id, c.row_key, c.column_name
  );
end
$function$;
comment on function gdpr_internal.judge_corrections(gdpr_internal.correction[], bigint, boolean) is
  'A list of changes as an officer would carry it out, copies included, each with the reason if it cannot be.';

create or replace function gdpr_internal.refuse_problems(p_corrections gdpr_internal.correction[])
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_lines text;
  v_condition boolean;
begin
  select
    string_agg(format('change %s %s', c.n, c.problem), E'\n' order by c.n) filter (where c.place <= 100)
      || case when count(*) > 100 then format(E'\nand %s more', count(*) - 100) else '' end,
    bool_and(c.problem = 'needs a condition of Art. 9(2)')
  into v_lines, v_condition
  from (
    select x.n, x.problem, row_number() over (order by x.n) as place from unnest(p_corrections) as x where x.problem is not null
  ) as c;
  if v_lines is not null then
    perform gdpr_internal.refuse(case when v_condition then 'condition_missing' else 'rectification_refused' end, v_lines);
  end if;
end
$function$;
comment on function gdpr_internal.refuse_problems(gdpr_internal.correction[]) is 'Errors: PR630 with a line for each problem, PR208 where a condition of Art. 9(2) is all that is missing.';

create or replace function gdpr_internal.write_corrections(p_corrections gdpr_internal.correction[])
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_table record;
  v_before text;
  v_rows bigint;
  v_all bigint := 0;
  v_state text;
  v_constraint text;
  v_column text;
begin
  for v_table in
    select r.table_id, array_agg(r.row_key) as keys, array_agg(r.subject_id) as subjects, array_agg(r.changes) as changes, count(*) as rows
    from (
      select c.table_id, c.row_key, c.subject_id, jsonb_object_agg(c.column_name, c.value) as changes
      from unnest(p_corrections) as c
      where c.statement is null and c.problem is null and c.value is distinct from c.old
      group by c.table_id, c.row_key, c.subject_id
    ) as r
    join gdpr_internal.protected_table as t on t.id = r.table_id
    group by r.table_id, t.depth
    order by t.depth, r.table_id
  loop
    v_before := gdpr_internal.before_worker();
    begin
      execute format('select gdpr_generated.%I($1, $2, $3)', 'rectify_' || v_table.table_id)
      into v_rows using v_table.keys, v_table.subjects, v_table.changes;
    exception
    when transaction_rollback then
      -- a deadlock or an older snapshot is not the value's fault: the client may try again
      raise;
    when others then
      get stacked diagnostics v_state = returned_sqlstate, v_constraint = constraint_name, v_column = column_name;
      perform gdpr_internal.refuse('rectification_refused', gdpr_internal.error_names(v_state, v_constraint, v_column));
    end;
    perform gdpr_internal.after_worker(v_before);
    if v_rows <> v_table.rows then
      perform gdpr_internal.refuse('rectification_refused', 'a trigger of the table kept rows as they were');
    end if;
    v_all := v_all + v_rows;
  end loop;
  return v_all;
end
$function$;
comment on function gdpr_internal.write_corrections(gdpr_internal.correction[]) is
  'Writes what differs, one statement for each table, and returns the rows. What a table says of a value it does not take is not passed on, but for codes and names. Error: PR630.';

-- 60_subject_rights/26_objections.sql
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

-- 60_subject_rights/26_rectify.sql
-- [code] Rectification: proposed by the person or by staff, approved by an officer who is somebody else, carried out in all tables.
-- GDPR Art. 16, Art. 19. Called by: gdpr_dpo; roles to which the policy gives may = ["rectify"] propose.

set local role gdpr_owner;

create or replace function gdpr_internal.seal_changes(p_subject bigint, p_content jsonb)
returns text
language sql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  select coalesce(
    gdpr_internal.seal_evidence(p_subject, p_content::text), case when gdpr_internal.refuse('data_key_missing') then '' end
  );
end;
comment on function gdpr_internal.seal_changes(bigint, jsonb) is 'New values as evidence keeps them. Error: PR410: nothing is kept that the person''s key does not close.';

create or replace function gdpr_internal.record_corrections(p_corrections gdpr_internal.correction[], p_rectification bigint, p_reason text)
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set quote_all_identifiers = off
as $function$
declare
  v_records bigint[];
  v_subjects bigint[];
begin
  if exists (
    select from unnest(p_corrections) as c
    left join gdpr_internal.subject as s on s.id = c.subject_id and s.erased_at is null
    where s.id is null
  ) then
    perform gdpr_internal.refuse('erased');
  end if;
  with change as (
    select
      c.subject_id, c.n, c.value, c.statement, c.column_name is not null as placed,
      jsonb_build_object('table', t.relation::text, 'key', c.row_key, 'column', c.column_name) as place,
      format('%s.%I', t.relation, c.column_name) as name
    from unnest(p_corrections) as c
    left join gdpr_internal.protected_table as t on t.id = c.table_id
    where c.statement is not null or c.value is distinct from c.old
  ), person as (
    select
      c.subject_id,
      jsonb_build_object(
        'values', coalesce(jsonb_agg(c.place || jsonb_build_object('value', c.value) order by c.n) filter (where c.statement is null), '[]'),
        'statements', coalesce(
          jsonb_agg(case when c.placed then c.place else '{}' end || jsonb_build_object('statement', c.statement) order by c.n)
          filter (where c.statement is not null), '[]'
        )
      ) as content,
      array_agg(distinct c.name) filter (where c.statement is null) as columns
    from change as c
    group by c.subject_id
  ), recorded as (
    insert into gdpr_internal.rectification_record (subject_id, rectification_id, content, columns, reason, actor)
    select
      p.subject_id, p_rectification, gdpr_internal.seal_changes(p.subject_id, p.content), coalesce(p.columns, '{}'), p_reason,
      gdpr_internal.context_setting('actor')
    from person as p
    order by p.subject_id
    returning id, subject_id
  )
  select array_agg(r.id order by r.id), array_agg(r.subject_id order by r.id) into v_records, v_subjects from recorded as r;
  perform gdpr_internal.audit_events('RECTIFY', v_subjects, 'rectification_record', v_records, '{}');
  perform gdpr_internal.queue_notices(array_agg(c.subject_id), 'rectification', jsonb_build_object('columns', c.columns))
  from (
    -- statements that complete the data go to the recipients too: they learn about which of them
    select r.subject_id, coalesce(nullif(r.columns, '{}'), '{supplementary_statement}') as columns
    from gdpr_internal.rectification_record as r
    where r.id = any (v_records)
  ) as c
  group by c.columns;
  return coalesce(v_records, '{}');
end
$function$;
comment on function gdpr_internal.record_corrections(gdpr_internal.correction[], bigint, text) is
  'The evidence of a rectification, one record for each person for whom something changes; returns their numbers. Error: PR603.';

create or replace function gdpr_internal.carry_out(p_changes jsonb, p_subject bigint, p_rectification bigint, p_reason text)
returns table (record_id bigint, written bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_corrections gdpr_internal.correction[] := gdpr_internal.read_corrections(p_changes);
  v_subjects bigint[] := array[p_subject];
  v_records bigint[];
begin
  perform gdpr_internal.require_read_committed();
  perform gdpr_internal.refuse_problems(v_corrections);
  if p_subject is null then
    select array_agg(distinct s.subject_id) into v_subjects
    from (select c.table_id, array_agg(c.row_key) as keys from unnest(v_corrections) as c where c.table_id is not null group by c.table_id) as k
    join gdpr_internal.protected_table as t on t.id = k.table_id
    cross join lateral unnest(gdpr.subjects_of(t.relation, k.keys)) as s (subject_id);
  end if;
  -- persons before rows, as an eraser locks them
  perform from gdpr_internal.subject as s where s.id = any (v_subjects) order by s.id for share;
  v_corrections := gdpr_internal.judge_corrections(v_corrections, p_subject, true);
  perform gdpr_internal.refuse_problems(v_corrections);
  written := gdpr_internal.write_corrections(v_corrections);
  v_records := gdpr_internal.record_corrections(v_corrections, p_rectification, p_reason);
  if p_subject is not null then
    perform gdpr_internal.note_request(p_subject, 'rectification', jsonb_build_object('record', v_records[1]));
  end if;
  return query select r.id, written from unnest(v_records) as r (id);
end
$function$;
comment on function gdpr_internal.carry_out(jsonb, bigint, bigint, text) is
  'Carries a list of changes out: all of it or, with a problem, nothing. Returns the records, one for each person. p_subject null: rows of whomever. Errors: PR630, PR208, PR005.';

create or replace function gdpr_internal.propose_rectification(p_subject bigint, p_changes jsonb, p_reason text, p_by_person boolean)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_corrections gdpr_internal.correction[] := gdpr_internal.read_corrections(p_changes);
  v_id bigint;
begin
  perform gdpr_internal.require_subject(p_subject);
  if v_corrections = '{}' then
    perform gdpr_internal.refuse('invalid_argument', 'at least one change is needed');
  elsif octet_length(p_changes::text) > 1000000 then
    perform gdpr_internal.refuse('invalid_argument', 'changes of one proposal are at most a million bytes');
  end if;
  -- what only an officer may know is asked when it is approved: whether an identifier is another's or blocked, what stands there now
  perform gdpr_internal.refuse_problems(gdpr_internal.find_rows(v_corrections, p_subject, false));
  insert into gdpr_internal.rectification (subject_id, content, by_person, actor)
  values (
    p_subject, gdpr_internal.seal_changes(p_subject, jsonb_build_object('changes', p_changes, 'reason', p_reason)), p_by_person,
    gdpr_internal.context_setting('actor')
  )
  returning id into v_id;
  perform gdpr_internal.audit_event('RECTIFY', p_subject, jsonb_build_object('proposal', v_id));
  return v_id;
end
$function$;
comment on function gdpr_internal.propose_rectification(bigint, jsonb, text, boolean) is
  'See gdpr.propose_rectification(). p_by_person: the person asked; only the portal says so, which knows by the token who it is.';

create or replace function gdpr.propose_rectification(p_subject bigint, p_changes jsonb, p_reason text default null)
returns bigint
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  select gdpr_internal.propose_rectification(p_subject, p_changes, p_reason, false);
end;
comment on function gdpr.propose_rectification(bigint, jsonb, text) is
  'Proposes corrections of a person''s data; nothing changes until another officer approves them. p_changes: a list of {"table", "key" (the row''s primary key as text; of several columns a JSON array of texts), "column", "value" (null empties)}, with "was" if it counts only while that value stands; or {"table", "key", "column", "statement"}, {"statement"}: a supplementary statement that is kept beside the data. Values and reason are kept as ciphertext under the person''s key. Returns its number. Errors: PR101, PR603, PR004, PR630 with a line for each change that cannot be (not this person''s row, a key, a value that the column cannot hold). Art. 16.';

create or replace function gdpr_internal.decide_rectification(p_rectification bigint)
returns gdpr_internal.rectification
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_rectification gdpr_internal.rectification;
begin
  -- two who decide at once meet here
  select * into v_rectification from gdpr_internal.rectification as r where r.id = p_rectification for update;
  if v_rectification.id is null then
    perform gdpr_internal.refuse('invalid_argument', 'there is no such proposal');
  elsif exists (select from gdpr_internal.rectification_decision as d where d.rectification_id = p_rectification) then
    perform gdpr_internal.refuse('rectification_decided');
  end if;
  return v_rectification;
end
$function$;
comment on function gdpr_internal.decide_rectification(bigint) is 'A proposal about which nobody has decided, locked. Errors: PR004, PR632.';

create or replace function gdpr.approve_rectification(p_rectification bigint, p_reason text default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_rectification gdpr_internal.rectification;
  v_content jsonb;
  v_record bigint;
begin
  perform gdpr_internal.require_read_committed();
  v_rectification := gdpr_internal.decide_rectification(p_rectification);
  if v_rectification.proposed_by = session_user and not v_rectification.by_person then
    perform gdpr_internal.refuse('rectification_four_eyes');
  end if;
  perform gdpr_internal.require_subject(v_rectification.subject_id);
  v_content := gdpr_internal.open_evidence(v_rectification.subject_id, v_rectification.content)::jsonb;
  select c.record_id into v_record
  from gdpr_internal.carry_out(v_content -> 'changes', v_rectification.subject_id, p_rectification, p_reason) as c;
  insert into gdpr_internal.rectification_decision (rectification_id, approved, record_id, reason, actor)
  values (p_rectification, true, v_record, p_reason, gdpr_internal.context_setting('actor'));
  return v_record;
end
$function$;
comment on function gdpr.approve_rectification(bigint, text) is
  'Approves a proposal and carries it out, as gdpr.rectify() does: all of it or nothing. Not by the login that proposed it, unless the person did. p_reason: no personal data. Returns the record''s number, null where the data were so already. Errors: PR004 no such proposal, PR632 decided already, PR631 four eyes, PR630, PR208, PR603, PR005. Art. 16.';

create or replace function gdpr.reject_rectification(p_rectification bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_rectification gdpr_internal.rectification;
begin
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  v_rectification := gdpr_internal.decide_rectification(p_rectification);
  insert into gdpr_internal.rectification_decision (rectification_id, approved, reason, actor)
  values (p_rectification, false, p_reason, gdpr_internal.context_setting('actor'));
  perform gdpr_internal.audit_event(
    'RECTIFY', v_rectification.subject_id, jsonb_build_object('proposal', p_rectification, 'approved', false)
  );
end
$function$;
comment on function gdpr.reject_rectification(bigint, text) is
  'Rejects a proposal; whoever made it may take it back so. p_reason: the ground, which the person is told (Art. 12(4)); no personal data. Errors: PR004 no such proposal or no reason, PR632 decided already. Art. 16.';

create or replace function gdpr.rectify(p_subject bigint, p_changes jsonb, p_reason text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  perform gdpr_internal.require_subject(p_subject);
  return (select c.record_id from gdpr_internal.carry_out(p_changes, p_subject, null, p_reason) as c);
end
$function$;
comment on function gdpr.rectify(bigint, jsonb, text) is
  'Corrects a person''s data at once, in one transaction: p_changes as gdpr.propose_rectification() takes them. Columns declared same_as follow in all tables where they held the old value; identifiers, digests, masks, ciphertext and audit follow by themselves. p_reason: no personal data. Returns the record''s number, null where the data were so already. Errors: PR101, PR603, PR004, PR630 with a line for each change that cannot be (an identifier that is blocked or another person''s, too), PR208 special categories without a condition, PR005. Art. 16.';

create or replace function gdpr.rectify_rows(p_changes jsonb, p_reason text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  return (
    select jsonb_build_object('persons', count(*), 'rows', coalesce(max(c.written), 0)) from gdpr_internal.carry_out(p_changes, null, null, p_reason) as c
  );
end
$function$;
comment on function gdpr.rectify_rows(jsonb, text) is
  'Corrects rows of many persons at once: p_changes as gdpr.rectify() takes them, the persons are those of the rows. Returns how many persons and rows changed. Errors: those of gdpr.rectify(). Art. 5(1)(d), Art. 16.';

create or replace function gdpr.compare_rectification(p_changes jsonb, p_subject bigint default null)
returns table (change bigint, subject_id bigint, table_name text, row_key text, column_name name, old text, new text, problem text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set quote_all_identifiers = off
as $function$
begin
  return query
  select c.n, c.subject_id, t.relation::text, c.row_key, c.column_name, c.old, coalesce(c.statement, c.value), c.problem
  from unnest(gdpr_internal.judge_corrections(gdpr_internal.read_corrections(p_changes), p_subject, false)) as c
  left join gdpr_internal.protected_table as t on t.id = c.table_id
  where c.problem is not null or c.statement is not null or c.value is distinct from c.old
  order by c.n, c.table_id, c.row_key, c.column_name;
end
$function$;
comment on function gdpr.compare_rectification(jsonb, bigint) is
  'What a list of changes, as gdpr.rectify() takes it, would change, and what is in the way: a row for each value that differs, copies included (they bear the number of the change they follow), with the reason if it cannot be. p_subject: whose rows they have to be; null: anybody''s. Changes nothing. Error: PR004 no list. Art. 16.';

create or replace function gdpr_internal.apply_rectifications(p_records bigint[])
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set enable_nestloop = off
set jit = off
as $function$
declare
  v_records bigint[];
  v_subjects bigint[];
  v_changes jsonb;
  v_corrections gdpr_internal.correction[];
begin
  perform gdpr_internal.require_read_committed();
  perform from gdpr_internal.subject as s
  where s.id in (select r.subject_id from gdpr_internal.rectification_record as r where r.id = any (p_records))
  order by s.id
  for share;
  with record as materialized (
    select r.id, r.subject_id, gdpr_internal.open_evidence(r.subject_id, r.content)::jsonb as content
    from gdpr_internal.rectification_record as r
    join gdpr_internal.subject as s on s.id = r.subject_id and s.erased_at is null
    where r.subject_id in (select x.subject_id from gdpr_internal.rectification_record as x where x.id = any (p_records))
  ), latest as (
    -- of several rectifications of one value the last one counts, in whatever order they are asked for
    select distinct on (r.subject_id, v.value - 'value') r.id, r.subject_id, v.value as change
    from record as r
    cross join lateral jsonb_array_elements(r.content -> 'values') as v
    order by r.subject_id, v.value - 'value', r.id desc
  )
  select jsonb_agg(l.change order by l.id), array_agg(l.id order by l.id), array_agg(l.subject_id order by l.id)
  into v_changes, v_records, v_subjects
  from latest as l
  where l.id = any (p_records);
  if v_changes is null then
    return 0;
  end if;
  -- a row that is gone, or another person's by now, has nothing to be corrected
  v_corrections := array(
    select c
    from unnest(gdpr_internal.find_rows(gdpr_internal.read_corrections(v_changes), null, true)) as c
    join unnest(v_subjects) with ordinality as s (id, n) on s.n = c.n and s.id = c.subject_id
    where c.problem is null and c.value is distinct from c.old
  );
  perform gdpr_internal.write_corrections(v_corrections);
  perform gdpr_internal.audit_events(
    'RECTIFY', array_agg(r.subject_id), 'rectification_record', array_agg(r.id), '{"again": true}'
  )
  from (
    select distinct v_subjects[c.n] as subject_id, v_records[c.n] as id from unnest(v_corrections) as c
  ) as r
  having count(*) > 0;
  return cardinality(v_corrections);
end
$function$;
comment on function gdpr_internal.apply_rectifications(bigint[]) is
  'Carries recorded rectifications out again, as after a restore: a value that is so already is not written, one that a later record of the person names is left to that, rows that are gone are passed over. Twice changes nothing. Returns the values written. Errors: PR630, PR005.';

create or replace function gdpr_internal.apply_rectification(p_record bigint)
returns bigint
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.apply_rectifications(array[p_record]);
end;
comment on function gdpr_internal.apply_rectification(bigint) is 'gdpr_internal.apply_rectifications() for one record.';

create or replace view gdpr.rectification as
select
  r.id as rectification_id,
  r.subject_id,
  case when d.approved then 'approved' when not d.approved then 'rejected' else 'proposed' end as status,
  r.by_person,
  o.content -> 'changes' as changes,
  o.content ->> 'reason' as reason,
  r.proposed_at,
  r.proposed_by,
  r.actor,
  d.record_id,
  d.decided_at,
  d.decided_by,
  d.reason as decision_reason
from gdpr_internal.rectification as r
left join gdpr_internal.rectification_decision as d on d.rectification_id = r.id
cross join lateral (
  select case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(r.subject_id, r.content)::jsonb end as content
) as o;
comment on view gdpr.rectification is
  'Proposed corrections and what was decided about them. changes and reason are shown to gdpr_dpo, while the person is not erased. Art. 16.';

create or replace view gdpr.rectification_log as
select
  r.id as record_id,
  r.subject_id,
  r.rectification_id,
  r.columns,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(r.subject_id, r.content)::jsonb end as content,
  r.reason,
  r.recorded_at,
  r.recorded_by,
  r.actor
from gdpr_internal.rectification_record as r;
comment on view gdpr.rectification_log is
  'Rectifications that were carried out: which columns, when, by whom. content: {"values", "statements"}, shown to gdpr_dpo, while the person is not erased; what stood there before, gdpr.audit_log has. Art. 16, Art. 5(2).';

create or replace view gdpr.supplementary_statement as
select
  l.record_id,
  l.subject_id,
  s.value ->> 'table' as table_name,
  s.value ->> 'key' as row_key,
  s.value ->> 'column' as column_name,
  s.value ->> 'statement' as statement,
  l.recorded_at
from gdpr.rectification_log as l
cross join lateral jsonb_array_elements(l.content -> 'statements') as s;
comment on view gdpr.supplementary_statement is
  'Statements with which persons have completed their data, about a value or about all of it; for gdpr_dpo. They belong into what the person is told on access. Art. 16.';

create or replace view gdpr.rectifiable_column as
select t.relation as table_name, c.column_name, c.type, not c.needed as nullable
from gdpr_internal.protected_table as t
cross join lateral gdpr_internal.rectifiable_columns(t.id) as c
where t.unprotected_at is null and c.refusal is null;
comment on view gdpr.rectifiable_column is
  'The columns in which values can be corrected: those of protected tables but keys, generated ones and what the database keeps, with the types they have for applications. Art. 16.';

create or replace function gdpr.rows_of(p_table regclass, p_subject bigint)
returns setof text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query select r.row_key from gdpr_internal.rows_of(gdpr_internal.table_id(p_table), array[p_subject], null) as r;
end
$function$;
comment on function gdpr.rows_of(regclass, bigint) is
  'The primary keys, as text, of a person''s rows in a protected table (several columns: JSON arrays of texts). Error: PR002.';

-- 60_subject_rights/30_erase.sql
-- [code] Erasure: every row of persons, their keys, their identifiers.
-- GDPR Art. 17, 19. Called by: gdpr_dpo. The rows are touched by gdpr_worker's generated functions, the keys by gdpr_keyholder's.

set local role gdpr_keyholder;

create or replace function gdpr_internal.destroy_keys(p_subjects bigint[])
returns bigint[]
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with gone as (
    delete from gdpr_internal.subject_key as k where k.subject_id = any (p_subjects) returning k.subject_id
  )
  select coalesce(array_agg(g.subject_id), '{}') from gone as g;
end;
comment on function gdpr_internal.destroy_keys(bigint[]) is
  'Destroys the data keys of persons and says whose there were: every copy of their ciphertext (table, log, replica, backup, audit) is unreadable from then on.';

set local role gdpr_owner;

create or replace function gdpr_internal.block_subjects(p_subjects bigint[], p_reason text)
returns table (subject_id bigint, blocked bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into gdpr_internal.identifier (digest, kind, blocked_at, block_reason)
  select distinct on (i.bare_digest) i.bare_digest, i.kind, statement_timestamp(), p_reason
  from gdpr_internal.identifier as i
  where i.subject_id = any (p_subjects) and i.bare_digest is not null
  order by i.bare_digest
  on conflict (digest) do nothing;
  return query
  with mine as (
    select i.digest, i.subject_id from gdpr_internal.identifier as i where i.subject_id = any (p_subjects) order by i.digest for update
  ), turned as (
    update gdpr_internal.identifier as i
    set subject_id = null, bare_digest = null, retired_at = null, blocked_at = statement_timestamp(), block_reason = p_reason
    from mine as m
    where i.digest = m.digest
    returning m.subject_id
  )
  select t.subject_id, count(*) from turned as t group by t.subject_id;
end
$function$;
comment on function gdpr_internal.block_subjects(bigint[], text) is
  'Turns persons'' identifiers, and their addresses without plus-tags, into blocked ones; says how many of each person.';

create or replace function gdpr_internal.erase_rows(p_subjects bigint[])
returns gdpr_internal.erased_fact[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_holds gdpr_internal.held_fact[];
  v_facts gdpr_internal.erased_fact[];
  v_before text;
begin
  if exists (select from gdpr_internal.live_hold) then
    select array_agg(row(t.id, h.subject_id, h.row_key, c.name, h.until)::gdpr_internal.held_fact)
    into v_holds
    from gdpr_internal.protected_table as t
    cross join lateral gdpr_internal.held_rows(t.id, p_subjects) as h
    cross join lateral unnest(coalesce(h.columns, array[null]::name[])) as c (name)
    where t.unprotected_at is null;
  end if;
  v_before := gdpr_internal.before_worker();
  select array_agg(f) into v_facts from gdpr_generated.erase_rows(p_subjects, v_holds) as f;
  perform gdpr_internal.after_worker(v_before);
  return v_facts;
end
$function$;
comment on function gdpr_internal.erase_rows(bigint[]) is 'Erases the rows of persons, what holds and periods keep excepted, and says what was done.';

create or replace function gdpr_internal.note_remainder(p_subjects bigint[], p_facts gdpr_internal.erased_fact[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.erasure_remainder as r where r.subject_id = any (p_subjects);
  insert into gdpr_internal.erasure_remainder (subject_id, table_id, row_count, due_at)
  select f.subject_id, f.table_id, f.row_count, f.until from unnest(p_facts) as f where f.what = 'kept';
  insert into gdpr_internal.erasure_review (subject_id, table_id, column_name, row_key)
  select f.subject_id, f.table_id, f.column_name, k.key
  from unnest(p_facts) as f
  cross join lateral unnest(f.row_keys) as k (key)
  where f.what = 'review'
    and not exists (
      select from gdpr_internal.erasure_review as r
      where r.subject_id = f.subject_id and r.table_id = f.table_id and r.column_name = f.column_name and r.row_key = k.key
    );
  return gdpr_internal.destroy_keys(array(
    select s from unnest(p_subjects) as s
    except
    select f.subject_id from unnest(p_facts) as f where f.what = 'kept'
  ));
end
$function$;
comment on function gdpr_internal.note_remainder(bigint[], gdpr_internal.erased_fact[]) is
  'Remembers what stays of persons and what a human has to read, and destroys the keys of those of whom nothing stays: returns whose.';

create or replace function gdpr_internal.receipt_tables(p_subjects bigint[], p_facts gdpr_internal.erased_fact[])
returns table (subject_id bigint, tables jsonb)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with fact as (
    select
      f.subject_id,
      f.table_id,
      sum(f.row_count) filter (where f.what in ('deleted', 'anonymised', 'spared')) as erased,
      sum(f.row_count) filter (where f.what = 'spared') as spared,
      sum(f.row_count) filter (where f.what = 'kept') as kept,
      min(f.until) filter (where f.what = 'kept') as until,
      sum(f.row_count) filter (where f.what = 'passed_on') as passed_on,
      sum(f.row_count) filter (where f.what = 'unlinked') as unlinked,
      jsonb_object_agg(f.column_name, f.row_count) filter (where f.what = 'review') as review
    from unnest(p_facts) as f
    group by f.subject_id, f.table_id
  )
  select
    s.id,
    jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'table', t.relation::text,
      'method', gdpr_internal.erasure_method(t.definition),
      'rows', coalesce(f.erased, 0),
      'anonymised_instead', f.spared,
      'kept', f.kept,
      'kept_until', case when f.until < 'infinity' then f.until end,
      'kept_for', case when f.kept > 0 then coalesce(t.definition -> 'erase' ->> 'keep_until', 'hold or column') end,
      'passed_on', f.passed_on,
      'unlinked', f.unlinked,
      'review', f.review
    )) order by t.depth desc, t.id)
  from unnest(p_subjects) as s (id)
  cross join gdpr_internal.protected_table as t
  left join fact as f on f.subject_id = s.id and f.table_id = t.id
  where t.unprotected_at is null
  group by s.id;
end;
comment on function gdpr_internal.receipt_tables(bigint[], gdpr_internal.erased_fact[]) is
  'What was done, as receipts say it: a list of tables for each person. rows: erased; anonymised_instead: of these, emptied and not deleted, as rows that stay refer to them; kept, kept_until, kept_for: what a period or a hold keeps, restricted; passed_on: joint rows that stay with the other person, without what was about this one; unlinked: rows of others here whose reference to a row of the person was cut; review: columns of free text in rows that stay, and in how many.';

create or replace function gdpr_internal.erase_persons(p_subjects bigint[], p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_blocked jsonb;
  v_facts gdpr_internal.erased_fact[];
  v_destroyed bigint[];
  v_records bigint[];
  v_schema name;
  v_table name;
  v_constraint name;
begin
  -- recipients know the persons by what is replaced and destroyed below
  perform gdpr_internal.queue_notices(p_subjects, 'erasure');
  perform gdpr_internal.forget_mails(p_subjects);
  delete from gdpr_internal.token as t where t.subject_id = any (p_subjects);
  select jsonb_object_agg(b.subject_id, b.blocked) into v_blocked from gdpr_internal.block_subjects(p_subjects, 'erased') as b;
  update gdpr_internal.subject as s
  set erased_at = statement_timestamp(), ref = gen_random_uuid(), purposes = 1::bigint << 62, until = 'infinity'
  where s.id = any (p_subjects);
  v_facts := gdpr_internal.erase_rows(p_subjects);
  v_destroyed := gdpr_internal.note_remainder(p_subjects, v_facts);
  with written as (
    insert into gdpr_internal.erasure_record (subject_id, reason, receipt)
    select s.id, p_reason, jsonb_build_object(
      'subject', s.id,
      'erased_at', statement_timestamp(),
      'tables', coalesce(r.tables, '[]'),
      'identifiers_blocked', coalesce((v_blocked ->> s.id::text)::bigint, 0),
      'key_destroyed', d.id is not null
    )
    from unnest(p_subjects) with ordinality as s (id, n)
    left join gdpr_internal.receipt_tables(p_subjects, v_facts) as r on r.subject_id = s.id
    left join unnest(v_destroyed) as d (id) on d.id = s.id
    order by s.n
    returning id, subject_id
  )
  select array_agg(w.id), array_agg(w.subject_id) into v_records, p_subjects from written as w;
  perform gdpr_internal.audit_events('ERASE', p_subjects, 'erasure', v_records, '{}');
exception when foreign_key_violation or not_null_violation or check_violation or unique_violation or exclusion_violation then
  get stacked diagnostics v_schema = schema_name, v_table = table_name, v_constraint = constraint_name;
  if v_table = '' or starts_with(v_constraint, 'gdpr_') then
    raise;
  end if;
  -- the words of PostgreSQL would show keys and whole rows
  perform gdpr_internal.refuse('erasure_blocked', format('table %I.%I, constraint %I', v_schema, v_table, v_constraint));
end
$function$;
comment on function gdpr_internal.erase_persons(bigint[], text) is
  'Erases persons who were found and locked: mails, tokens, identifiers, rows, keys; writes receipts and audit records. Errors: 23503 (erasure_blocked) what stands in the way, PR605, PR409.';

create or replace function gdpr_internal.lock_persons(p_subjects bigint[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_found bigint;
begin
  perform gdpr_internal.require_read_committed();
  -- before the persons, as a confirmation locks them
  perform from gdpr_internal.registration as r
  join gdpr_internal.identifier as i on i.digest = r.address
  where i.subject_id = any (p_subjects)
  order by r.id
  for update of r;
  -- whoever is inserting rows of these persons holds a share lock on an identifier, and then on the person: in their order
  perform from gdpr_internal.identifier as i where i.subject_id = any (p_subjects) order by i.digest for update;
  perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for update;
  get diagnostics v_found = row_count;
  if v_found <> (select count(distinct s) from unnest(p_subjects) as s) or array_position(p_subjects, null) is not null then
    perform gdpr_internal.refuse('unknown_subject');
  end if;
  return array(
    select s.id from gdpr_internal.subject as s where s.id = any (p_subjects) and s.erased_at is null order by s.id
  );
end
$function$;
comment on function gdpr_internal.lock_persons(bigint[]) is
  'Locks persons against whoever writes rows of them, and returns those who are not erased yet. Errors: PR101, PR005.';

create or replace function gdpr.erase(p_subjects bigint[], p_reason text)
returns setof jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_new bigint[];
begin
  if p_reason is null or p_subjects is null then
    perform gdpr_internal.refuse('invalid_argument', 'the numbers of persons and a reason are needed');
  end if;
  v_new := gdpr_internal.lock_persons(p_subjects);
  if v_new <> '{}' then
    perform gdpr_internal.erase_persons(v_new, p_reason);
  end if;
  if cardinality(v_new) = 1 then
    -- a request is one person's
    perform gdpr_internal.note_request(v_new[1], 'erasure', jsonb_build_object('reason', p_reason));
  end if;
  return query
  select e.receipt
  from unnest(p_subjects) with ordinality as s (id, n)
  join gdpr_internal.erasure_record as e on e.subject_id = s.id
  order by s.n;
end
$function$;
comment on function gdpr.erase(bigint[], text) is
  'Erases many persons at once, all or none of them, and returns their receipts in the order asked for: a few thousand in a transaction are done as fast as can be. See gdpr.erase(bigint, text). Errors: PR101 unknown person, PR004, PR005 not at READ COMMITTED, 23503 (erasure_blocked), PR605, PR409. Art. 17.';

create or replace function gdpr.erase(p_subject bigint, p_reason text default 'erasure request')
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (select r from gdpr.erase(array[p_subject], p_reason) as r);
end
$function$;
comment on function gdpr.erase(bigint, text) is
  'Erases a person: rows of every protected table are deleted or anonymised, whatever shape their foreign keys have; identifiers are blocked; the data key is destroyed unless a hold or a period keeps rows (those are restricted, and go when it ends). Rows that others refer to all the same are anonymised, references that may be null are cut. Returns a receipt without values; asked twice it gives the first one. gdpr.erasure_plan() shows before what it would do. The planner''s statistics keep sample values of plaintext columns until the next ANALYZE (gdprdb subject erase runs it). Errors: PR101 unknown person, PR004, PR005 not at READ COMMITTED, 23503 (erasure_blocked) a table outside the policy refers to the rows, PR605 a trigger keeps rows, PR409 foreign keys were added since apply(). Art. 17.';

create or replace function gdpr.subjects_of(p_table regclass, p_keys text[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint;
  v_before text;
  v_subjects bigint[];
begin
  select t.id into v_table from gdpr_internal.protected_table as t where t.relation = p_table and t.unprotected_at is null;
  if v_table is null then
    perform gdpr_internal.refuse('not_protected');
  end if;
  v_before := gdpr_internal.before_worker();
  execute format('select gdpr_generated.%I($1)', 'subjects_of_' || v_table) into v_subjects using p_keys;
  perform gdpr_internal.after_worker(v_before);
  return coalesce(v_subjects, '{}');
end
$function$;
comment on function gdpr.subjects_of(regclass, text[]) is
  'The persons to whom rows belong, each once, by the rows'' primary keys as text (several columns: a JSON array of texts); keys without a row, and rows of nobody, count for nothing. Errors: PR002 not protected, PR004 key of the wrong type, PR408 no primary key.';

create or replace function gdpr.subject_of(p_table regclass, p_key text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (gdpr.subjects_of(p_table, array[p_key]))[1];
end
$function$;
comment on function gdpr.subject_of(regclass, text) is
  'The person a row belongs to, by the row''s primary key as text (several columns: a JSON array of texts); null when there is no such row. Errors: PR002 not protected, PR004 key of the wrong type, PR408 no primary key.';

-- 60_subject_rights/35_finish_erasure.sql
-- [code] Erasure before and after: the plan, what is finished when a period or a hold ends, the texts a human has to read.
-- GDPR Art. 17, 17(3), 5(1)(e). Called by: gdpr_dpo; finish_erasures() by tidy, retention and the release of a hold.

set local role gdpr_owner;

create or replace function gdpr.erasure_plan(p_subject bigint)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_plan jsonb;
  v_constraint text;
  v_detail text;
begin
  perform gdpr_internal.require_subject(p_subject);
  begin
    v_plan := gdpr.erase(p_subject, 'plan');
    -- the variable outlives what this undoes
    raise exception using errcode = 'PR000', message = 'planned';
  exception
    when sqlstate 'PR000' then
      null;
    when foreign_key_violation then
      get stacked diagnostics v_constraint = constraint_name, v_detail = pg_exception_detail;
      if v_constraint <> 'gdpr_erasure_blocked' then
        raise;
      end if;
      v_plan := jsonb_build_object('subject', p_subject, 'blocked_by', v_detail);
  end;
  return v_plan - 'erased_at' || jsonb_build_object('planned_at', statement_timestamp());
end
$function$;
comment on function gdpr.erasure_plan(bigint) is
  'What erasing a person would do, as the receipt would say it: the erasure is carried out and undone. blocked_by: the table and constraint outside the policy that stand in the way. Errors: PR101, PR603 erased already, PR005, PR605, PR409. Art. 17.';

create or replace function gdpr_internal.finish_erasures(p_limit integer, p_subjects bigint[] default null)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_subjects bigint[];
  v_facts gdpr_internal.erased_fact[];
  v_destroyed bigint[];
begin
  perform gdpr_internal.require_read_committed();
  if p_subjects is null and not gdpr_generated.is_home() and gdpr.whereabouts() = 'restored' then
    -- what was held after the backup is not known yet
    return 0;
  end if;
  select array_agg(l.id order by l.id)
  into v_subjects
  from (
    select s.id
    from gdpr_internal.subject as s
    where s.id in (
      select r.subject_id from gdpr_internal.erasure_remainder as r
      where case when p_subjects is null then r.due_at <= statement_timestamp() else r.subject_id = any (p_subjects) end
    )
    order by s.id
    limit p_limit
    for update skip locked
  ) as l;
  if v_subjects is null then
    return 0;
  end if;
  v_facts := gdpr_internal.erase_rows(v_subjects);
  v_destroyed := gdpr_internal.note_remainder(v_subjects, v_facts);
  insert into gdpr_internal.erasure_completion (subject_id, receipt)
  select s.id, jsonb_build_object(
    'subject', s.id, 'erased_at', statement_timestamp(), 'tables', coalesce(r.tables, '[]'), 'key_destroyed', d.id is not null
  )
  from unnest(v_subjects) as s (id)
  left join gdpr_internal.receipt_tables(v_subjects, v_facts) as r on r.subject_id = s.id
  left join unnest(v_destroyed) as d (id) on d.id = s.id
  -- asked again before anything ended, it writes nothing
  where d.id is not null or exists (select from unnest(v_facts) as f where f.subject_id = s.id and f.what <> 'kept');
  perform gdpr_internal.audit_events('ERASE', v_subjects, 'finished', v_subjects, '{}');
  return cardinality(v_subjects);
end
$function$;
comment on function gdpr_internal.finish_erasures(integer, bigint[]) is
  'Erases what was kept of up to p_limit erased persons and is due, destroys their keys when nothing is left, adds to the ledger; returns how many persons. p_subjects: these, whatever is due of them (after a hold was released); otherwise nothing in a restored database, until the ledger is replayed. Errors: PR005, PR605, PR409. Art. 17, 5(1)(e).';

create or replace view gdpr.erasure_ledger as
select
  e.id, e.subject_id, e.reason, e.erased_at, e.recorded_by, e.receipt,
  (select sum(r.row_count) from gdpr_internal.erasure_remainder as r where r.subject_id = e.subject_id) as kept_rows,
  (select min(r.due_at) from gdpr_internal.erasure_remainder as r where r.subject_id = e.subject_id) as kept_until,
  (select jsonb_agg(c.receipt order by c.id) from gdpr_internal.erasure_completion as c where c.subject_id = e.subject_id) as finished
from gdpr_internal.erasure_record as e;
comment on view gdpr.erasure_ledger is
  'Persons erased: number, time, reason, receipt. kept_rows, kept_until: what a period or a hold still keeps, and when the first of that ends; finished: receipts of what was erased later. No values. Art. 17, Art. 5(2).';

create or replace view gdpr.review_due as
select r.id as review_id, r.subject_id, t.relation as table_name, r.column_name, r.row_key, r.flagged_at
from gdpr_internal.erasure_review as r
join gdpr_internal.protected_table as t on t.id = r.table_id;
comment on view gdpr.review_due is
  'Free text in rows that outlived an erasure: a human reads whether it speaks of the erased, and says so with gdpr.finish_review(). row_key: the primary key of the row. Never the text. Art. 17.';

create or replace function gdpr.finish_review(p_review bigint, p_outcome text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_review gdpr_internal.erasure_review;
begin
  if p_outcome is null or p_outcome not in ('kept', 'cleared') then
    perform gdpr_internal.refuse('invalid_argument', 'outcome is kept or cleared');
  end if;
  delete from gdpr_internal.erasure_review as r where r.id = p_review returning r.* into v_review;
  if v_review.id is null then
    perform gdpr_internal.refuse('review_done');
  end if;
  perform gdpr_internal.audit_event('REVIEW', v_review.subject_id, jsonb_build_object(
    'review', p_review, 'table', v_review.table_id, 'column', v_review.column_name, 'outcome', p_outcome
  ));
end
$function$;
comment on function gdpr.finish_review(bigint, text) is
  'Says that a text of gdpr.review_due was read: cleared (it spoke of the erased, and was changed in the table) or kept. On record without the row. Errors: PR004, PR617 no such review. Art. 17.';

-- 60_subject_rights/50_outbox.sql
-- [code] Queueing mails, taking them to be sent, saying what became of them.
-- GDPR Art. 12(1), Art. 32(1)(a). Queued by gdprdb's own functions; taken by roles of audience mail (gdprdb outbox send).
-- One attempt is two transactions: next_mail() counts it and moves due_at on; open_mail() locks the row until the sender has
-- said what came of it. A sender that dies in between loses no mail, and sends one twice at most.

set local role gdpr_keyholder;

create or replace function gdpr_internal.check_mail(p_template text, p_language text, p_message jsonb)
returns void
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if p_template is null or p_template !~ '^[a-z][a-z0-9_]{0,62}$' then
    perform gdpr_internal.refuse('invalid_argument', 'the name of a template is lower case letters, digits and _');
  elsif p_language !~ '^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$' then
    perform gdpr_internal.refuse('invalid_argument', 'a language is a tag such as de or pt-BR');
  elsif jsonb_typeof(p_message) is distinct from 'object' or jsonb_typeof(p_message -> 'to') is distinct from 'string' then
    perform gdpr_internal.refuse('invalid_argument', 'a message is {"to": address, ...}');
  elsif pg_column_size(p_message) > 100000 then
    perform gdpr_internal.refuse('invalid_argument', 'a message has 100,000 bytes at the most');
  end if;
end
$function$;
comment on function gdpr_internal.check_mail(text, text, jsonb) is 'Refuses a mail that nobody could send. Error: PR004.';

create or replace function gdpr_internal.queue_mails(
  p_subjects bigint[], p_template text, p_languages text[], p_messages jsonb[],
  p_not_before timestamptz default statement_timestamp(), p_not_after timestamptz default 'infinity'
)
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea;
  v_ids bigint[];
begin
  v_kek := (gdpr_internal.keyring()).kek;
  perform gdpr_internal.check_mail(p_template, m.language, m.message)
  from unnest(p_languages, p_messages) as m (language, message);
  with asked as (
    select m.n, m.subject_id, m.language, m.message
    from unnest(p_subjects, p_languages, p_messages) with ordinality as m (subject_id, language, message, n)
  ),
  queued as (
    insert into gdpr_internal.outbox (id, subject_id, template, language, message, due_at, expires_at)
    select
      nextval('gdpr_internal.outbox_id_seq'), a.subject_id, p_template, a.language,
      gdpr_internal.seal_value(
        gdpr_internal.unwrap_key(v_kek, int8send(a.subject_id), k.wrapped), gdpr_internal.gen_random_bytes(16), a.subject_id, 0, a.message::text
      ),
      coalesce(p_not_before, statement_timestamp()), coalesce(p_not_after, 'infinity')
    from asked as a
    join gdpr_internal.subject_key as k on k.subject_id = a.subject_id
    order by a.n
    returning id, subject_id
  )
  select array_agg(q.id order by q.id) into v_ids from queued as q;
  if coalesce(cardinality(v_ids), 0) <> cardinality(p_subjects) then
    perform gdpr_internal.refuse('data_key_missing');
  end if;
  perform pg_notify('gdpr_outbox', '');
  return v_ids;
end
$function$;
comment on function gdpr_internal.queue_mails(bigint[], text, text[], jsonb[], timestamptz, timestamptz) is
  'Queues one mail to each of the persons, p_languages and p_messages ({"to", "token", ...: the template''s variables}) standing in their order, encrypted under the person''s key: not sent before p_not_before, nor after p_not_after. Returns the mails'' numbers in the same order. Errors: PR004, PR402, PR410. Art. 12(1), 32(1)(a).';

create or replace function gdpr_internal.queue_mail(
  p_subject bigint, p_template text, p_language text, p_message jsonb,
  p_not_before timestamptz default statement_timestamp(), p_not_after timestamptz default 'infinity'
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  return (gdpr_internal.queue_mails(array[p_subject], p_template, array[p_language], array[p_message], p_not_before, p_not_after))[1];
end
$function$;
comment on function gdpr_internal.queue_mail(bigint, text, text, jsonb, timestamptz, timestamptz) is
  'Queues a mail to one person; see queue_mails().';

create or replace function gdpr_internal.open_message(p_mail gdpr_internal.outbox)
returns jsonb
language plpgsql
stable
parallel restricted
security invoker
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if p_mail.subject_id is not null then
    v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_mail.subject_id);
  elsif p_mail.notice_id is not null then
    v_key := gdpr_internal.notice_secret(p_mail.notice_id);
  else
    v_key := gdpr_internal.registration_secret(p_mail.registration_id);
  end if;
  return case when v_key is not null then
    gdpr_internal.open_value(v_key, coalesce(p_mail.subject_id, -p_mail.notice_id, -p_mail.registration_id), 0, p_mail.message)::jsonb
  end;
end
$function$;
comment on function gdpr_internal.open_message(gdpr_internal.outbox) is 'The content of a mail; null when its key was destroyed.';

create or replace function gdpr.open_mail(
  p_mail bigint, out template text, out language text, out message jsonb, out message_ref uuid, out queued_at timestamptz
)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_mail gdpr_internal.outbox;
begin
  perform gdpr_internal.require_mailer();
  -- locked until the end of the transaction: nobody else takes the mail while this sender lives, however long it takes
  select o.* into v_mail from gdpr_internal.outbox as o where o.id = p_mail and o.taken_by = pg_backend_pid() for update;
  if v_mail.id is null then
    perform gdpr_internal.refuse('mail_not_taken');
  end if;
  message := gdpr_internal.open_message(v_mail);
  template := v_mail.template;
  language := v_mail.language;
  message_ref := v_mail.message_ref;
  queued_at := v_mail.queued_at;
end
$function$;
comment on function gdpr.open_mail(bigint) is
  'Opens a mail that next_mail() gave to this session, and locks it until the end of the transaction: send it, say gdpr.mail_sent() or gdpr.mail_failed(), commit. message: {"to", ...}. message_ref: for the Message-ID. For roles of audience mail. Errors: 42501, PR606 not taken by this session, PR402 key locked. Art. 12(1).';

set local role gdpr_owner;

create or replace function gdpr_internal.require_mailer()
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- a restored outbox holds mails that were sent
  perform gdpr_internal.require_home();
  -- membership in the group is the server's; what this database allows, its policy says
  if not exists (
    select from gdpr_internal.role_binding as b
    where b.audience = 'mail' and pg_has_role(gdpr_internal.acting_role(), to_regrole(quote_ident(b.role_name))::oid, 'usage')
  ) then
    perform gdpr_internal.refuse('mail_refused', format('role %s', quote_ident(gdpr_internal.acting_role())));
  end if;
end
$function$;
comment on function gdpr_internal.require_mailer() is 'Refuses roles that the policy does not bind to audience mail. Error: gdpr_mail_refused (42501).';

create or replace function gdpr_internal.retry_after(p_attempts integer)
returns interval
language sql
volatile
parallel safe
security invoker
begin atomic
  -- the jitter keeps mails that failed together from coming back together
  select least(interval '1 minute' * power(2, least(p_attempts, 20) - 1), interval '6 hours') * (0.75 + random() / 2);
end;
comment on function gdpr_internal.retry_after(integer) is 'How long a mail waits after an attempt: a minute, doubled each time, six hours at the most, a quarter more or less.';

create or replace function gdpr_internal.record_mail(p_mail gdpr_internal.outbox, p_event text, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into gdpr_internal.mail_record (
    mail_id, subject_id, registration_id, notice_id, template, language, event, reason, attempts, queued_at
  )
  values (
    p_mail.id, p_mail.subject_id, p_mail.registration_id, p_mail.notice_id, p_mail.template, p_mail.language, p_event, p_reason,
    p_mail.attempts, p_mail.queued_at
  );
  delete from gdpr_internal.outbox as o where o.id = p_mail.id;
end
$function$;
comment on function gdpr_internal.record_mail(gdpr_internal.outbox, text, text) is 'A mail leaves the outbox, and what became of it stays.';

create or replace function gdpr.next_mail()
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_mail gdpr_internal.outbox;
begin
  perform gdpr_internal.require_mailer();
  loop
    select o.* into v_mail
    from gdpr_internal.outbox as o
    where o.dead_at is null and o.due_at <= statement_timestamp()
    order by o.due_at
    limit 1
    for update skip locked;
    exit when v_mail.id is null;
    if v_mail.expires_at <= statement_timestamp() then
      perform gdpr_internal.record_mail(v_mail, 'expired', v_mail.failure);
    elsif v_mail.attempts >= 12 then
      update gdpr_internal.outbox as o
      set dead_at = statement_timestamp(), failure = coalesce(o.failure, 'never finished') where o.id = v_mail.id;
    elsif v_mail.template not like 'rights%' and exists (
      select from gdpr_internal.restriction_record as r
      where r.subject_id = v_mail.subject_id
        and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = r.id)
    ) then
      -- Art. 18(2): stored, and nothing else, until the restriction is lifted
      update gdpr_internal.outbox as o set due_at = statement_timestamp() + interval '1 hour' where o.id = v_mail.id;
    else
      update gdpr_internal.outbox as o
      set attempts = o.attempts + 1,
        due_at = statement_timestamp() + gdpr_internal.retry_after(o.attempts + 1),
        taken_by = pg_backend_pid()
      where o.id = v_mail.id;
      exit;
    end if;
  end loop;
  return v_mail.id;
end
$function$;
comment on function gdpr.next_mail() is
  'Takes the mail that has been due for longest, for this session, and returns its number, or null. Counts the attempt and sets the time of the next: commit, then gdpr.open_mail(). Mails past their time leave, after 12 attempts one is dead, those of restricted persons wait, unless they serve their rights (template rights...). For roles of audience mail. Error: 42501. Art. 12(1), 18(2).';

create or replace function gdpr.next_mail_at()
returns timestamptz
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_mailer();
  return (select min(o.due_at) from gdpr_internal.outbox as o where o.dead_at is null);
end
$function$;
comment on function gdpr.next_mail_at() is
  'When the next mail is due, or null. LISTEN gdpr_outbox tells of new ones (the payload is empty). For roles of audience mail. Error: 42501.';

create or replace function gdpr.mail_sent(p_mail bigint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_mail gdpr_internal.outbox;
begin
  perform gdpr_internal.require_mailer();
  select o.* into v_mail from gdpr_internal.outbox as o where o.id = p_mail and o.taken_by = pg_backend_pid() for update;
  if v_mail.id is null then
    perform gdpr_internal.refuse('mail_not_taken');
  end if;
  perform gdpr_internal.record_mail(v_mail, 'sent', null);
  if v_mail.notice_id is not null then
    perform gdpr_internal.settle_notice(v_mail.notice_id, 'sent', 'mail', null);
  end if;
end
$function$;
comment on function gdpr.mail_sent(bigint) is
  'A mail that this session has open was sent: its content is deleted, that it was sent stays (gdpr.mail_log). For roles of audience mail. Errors: 42501, PR606 not taken by this session. Art. 5(1)(e), 5(2).';

create or replace function gdpr.mail_failed(p_mail bigint, p_permanent boolean, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_mailer();
  update gdpr_internal.outbox as o
  set dead_at = case when p_permanent or o.attempts >= 12 then statement_timestamp() end,
    -- servers repeat addresses in their answers: codes and a few words, nothing that could be one
    failure = case when p_reason ~ '^[A-Za-z0-9. ]{1,60}$' then p_reason else 'unspecified' end
  where o.id = p_mail and o.taken_by = pg_backend_pid();
  if not found then
    perform gdpr_internal.refuse('mail_not_taken');
  end if;
end
$function$;
comment on function gdpr.mail_failed(bigint, boolean, text) is
  'A mail that this session has open was not sent. p_permanent: trying again is of no use, it is dead until gdpr.retry_mails(); else it is tried again later. p_reason: codes and words as 550 5.1.1, never an address. For roles of audience mail. Errors: 42501, PR606 not taken by this session.';

create or replace function gdpr_internal.cancel_mails(p_mails bigint[], p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- one that is being sent at this moment cannot be called back, and nobody has to wait for it
  perform gdpr_internal.record_mail(o, 'dropped', p_reason)
  from (select x.* from gdpr_internal.outbox as x where x.id = any (p_mails) for update skip locked) as o;
end
$function$;
comment on function gdpr_internal.cancel_mails(bigint[], text) is 'Calls back mails that have not been sent: a reminder after the answer. p_reason must not hold personal data.';

create or replace function gdpr_internal.forget_mails(p_subjects bigint[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.record_mail(o, 'dropped', 'erased')
  from (select x.* from gdpr_internal.outbox as x where x.subject_id = any (p_subjects) order by x.id for update) as o;
  perform gdpr_internal.empty_registrations(array(
    select r.id from gdpr_internal.registration as r
    join gdpr_internal.identifier as i on i.digest = r.address
    where i.subject_id = any (p_subjects)
  ));
end
$function$;
comment on function gdpr_internal.forget_mails(bigint[]) is 'Erasure, before the identifiers are blocked: the persons'' mails leave the outbox (one that is being sent is waited for), and what was entered under an address of theirs and never confirmed is forgotten. Art. 17.';

create or replace function gdpr.retry_mails(p_mails bigint[] default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_retried bigint;
begin
  update gdpr_internal.outbox as o
  set dead_at = null, attempts = 0, due_at = statement_timestamp()
  where o.dead_at is not null and (p_mails is null or o.id = any (p_mails));
  get diagnostics v_retried = row_count;
  perform pg_notify('gdpr_outbox', '');
  return v_retried;
end
$function$;
comment on function gdpr.retry_mails(bigint[]) is 'Lets dead mails (null: all) be tried again from now on; returns how many.';

create or replace function gdpr.drop_mails(p_mails bigint[], p_reason text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_dropped bigint;
begin
  if p_reason is null or p_mails is null then
    perform gdpr_internal.refuse('invalid_argument', 'the numbers of mails and a reason are needed');
  end if;
  perform gdpr_internal.record_mail(o, 'dropped', p_reason)
  from (select x.* from gdpr_internal.outbox as x where x.id = any (p_mails) order by x.id for update) as o;
  get diagnostics v_dropped = row_count;
  return v_dropped;
end
$function$;
comment on function gdpr.drop_mails(bigint[], text) is
  'Deletes mails that were not sent, dead or waiting; returns how many. p_reason, which must not hold personal data, stays in gdpr.mail_log. Error: PR004.';

create or replace view gdpr.outbox as
select
  o.id as mail_id,
  o.subject_id,
  o.registration_id,
  o.notice_id,
  o.template,
  o.language,
  case
    when o.dead_at is not null then 'dead'
    when o.attempts > 0 then 'retry'
    when o.due_at > statement_timestamp() then 'later'
    else 'waiting'
  end as state,
  o.queued_at,
  o.due_at,
  o.expires_at,
  o.attempts,
  o.failure,
  o.dead_at
from gdpr_internal.outbox as o;
comment on view gdpr.outbox is
  'Mails that have not left, without content. state: waiting, later (not before due_at), retry (being sent, or failed and tried again at due_at), dead (given up: gdpr.retry_mails(), gdpr.drop_mails()). failure: what the mail server said, codes only. Art. 12(1).';

create or replace view gdpr.mail_log as
select m.id, m.mail_id, m.subject_id, m.registration_id, m.notice_id, m.template, m.language, m.event, m.reason, m.attempts, m.queued_at, m.recorded_at, m.recorded_by
from gdpr_internal.mail_record as m;
comment on view gdpr.mail_log is
  'What became of mails: sent, expired, dropped; to whom (the number of the person, a registration or a notice), which template, when. No content, no address. Art. 5(2).';

-- 60_subject_rights/60_access_rows.sql
-- [code] What is stored about a person, opened: rows, sources and history, at once or page by page.
-- GDPR Art. 15, 20. Called by: gdpr.access_report(), gdpr.portable_copy(), gdpr.access_rows(). gdpr_worker reads the rows; they
-- are opened here only after it is done. A page names places, not rows: what it gives is asked of the person again.

set local role gdpr_owner;

create or replace function gdpr_internal.about_columns(p_definition jsonb)
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select coalesce(array_agg(c.key order by c.key), '{}')
  from jsonb_each(p_definition -> 'columns') as c
  where c.value ? 'about' and not coalesce(p_definition -> 'subject' -> 'via' ? (c.value ->> 'about'), false);
end;
comment on function gdpr_internal.about_columns(jsonb) is
  'The columns of a table, by its definition, that are or may be about somebody other than the person whose row it is. Art. 15(4).';

create or replace function gdpr_internal.hidden_columns(p_table smallint, p_portable boolean)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $function$
begin
  return (
    select array(
      select c.column_name::text from gdpr_internal.protected_column as c where c.table_id = t.id and c.about = 'someone_else' order by c.position
    ) || array(
      select a.attname::text
      from pg_attribute as a
      where p_portable and a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
        and case when t.definition -> 'columns' ? a.attname::text
          then t.definition -> 'columns' -> a.attname::text ? 'provided'
          -- rows without their keys would no longer belong together
          else not exists (
            select from pg_constraint as k where k.conrelid = t.relation and k.contype in ('p', 'f') and a.attnum = any (k.conkey)
          )
        end
      order by a.attnum
    )
    from gdpr_internal.protected_table as t
    where t.id = p_table
  );
end
$function$;
comment on function gdpr_internal.hidden_columns(smallint, boolean) is
  'The columns of a table that a person is not given: those about somebody else; in a portable copy those too that the person did not provide, and those that the policy does not name, keys excepted. Art. 15(4), 20.';

set local role gdpr_keyholder;

create or replace function gdpr_internal.json_value(p_type text, p_value text)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set debug_print_plan = off
as $function$
declare
  v_type text := gdpr_internal.base_type(p_type);
  v_other regtype;
  v_value jsonb;
begin
  if v_type in ('text', 'character varying', 'character', 'uuid', 'inet', 'cidr', 'bytea', 'interval') then
    -- the blanks of character(n) are not encrypted
    return to_jsonb(rpad(p_value, coalesce(substring(p_type from '^character.([0-9]+).$')::integer, length(p_value))));
  end if;
  -- what was encrypted had one of PostgreSQL's own types; as such it has the same form as in a plain column
  begin
    if v_type in ('smallint', 'integer', 'bigint', 'numeric') then
      v_value := to_jsonb(p_value::numeric);
    elsif v_type = 'date' then
      v_value := to_jsonb(p_value::date);
    elsif v_type = 'timestamp with time zone' then
      v_value := to_jsonb(p_value::timestamptz);
    else
      v_other := v_type::regtype;
      execute format('select to_jsonb($1::%s)', v_other) into v_value using p_value;
    end if;
  exception when data_exception then
    v_value := to_jsonb(p_value);
  end;
  return v_value;
end
$function$;
comment on function gdpr_internal.json_value(text, text) is
  'An opened value as JSON, as to_jsonb() writes the type that the column had; text where it does not fit.';

create or replace function gdpr_internal.opened_rows(
  p_subject bigint, p_tables smallint[], p_portable boolean, p_part oid default null, p_places tid[] default null
)
returns table (table_id smallint, content jsonb)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_before text := gdpr_internal.before_worker();
  v_tables smallint[];
  v_owners bigint[];
  v_rows jsonb[];
  v_keys gdpr_internal.keyring;
begin
  select array_agg(r.table_id), array_agg(r.owner_id), array_agg(r.content) into v_tables, v_owners, v_rows
  from gdpr_generated.access_rows(p_subject, p_tables, p_part, p_places) as r;
  perform gdpr_internal.after_worker(v_before);
  if exists (select from gdpr_internal.protected_column as c where c.table_id = any (v_tables) and c.encrypt <> 'no') then
    v_keys := gdpr_internal.keyring();
  end if;
  return query
  select r.table_id, (r.content || coalesce(o.opened, '{}')) - h.hidden
  from unnest(v_tables, v_owners, v_rows) with ordinality as r (table_id, owner_id, content, n)
  -- a joint row is under the key of the person to whom it belongs
  join (
    select x.owner_id, gdpr_internal.data_key(v_keys, x.owner_id) as data_key
    from (select distinct u.owner_id from unnest(v_owners) as u (owner_id)) as x
    offset 0
  ) as k on k.owner_id = r.owner_id
  join (
    select t.id, gdpr_internal.hidden_columns(t.id, p_portable) as hidden
    from gdpr_internal.protected_table as t where t.id = any (v_tables)
    offset 0
  ) as h on h.id = r.table_id
  cross join lateral (
    select jsonb_object_agg(
      c.column_name,
      gdpr_internal.json_value(c.original_type, gdpr_internal.open_value(k.data_key, r.owner_id, c.id, r.content ->> c.column_name))
    ) as opened
    from gdpr_internal.protected_column as c
    where c.table_id = r.table_id and c.encrypt <> 'no' and r.content ->> c.column_name is not null
      and c.column_name::text <> all (h.hidden)
  ) as o
  order by r.n;
end
$function$;
comment on function gdpr_internal.opened_rows(bigint, smallint[], boolean, oid, tid[]) is
  'A person''s rows in plaintext and their original types, in the order of their primary keys: those of some tables, or those at some places of one; columns that are not the person''s to see are left out. Errors: PR402 key locked, PR404 altered value, PR410 the person''s key is gone.';

create or replace function gdpr_internal.opened_sources(p_subject bigint, p_ids bigint[] default null)
returns setof jsonb
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if exists (select from gdpr_internal.source as s where s.subject_id = p_subject and s.details is not null) then
    v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  end if;
  return query
  select jsonb_strip_nulls(jsonb_build_object(
    'at', gdpr_internal.utc(s.recorded_at), 'table', t.relation::text, 'event', s.event, 'kind', s.kind,
    -- who typed it in is data about the member of staff
    'details', case when v_key is not null then gdpr_internal.open_value(v_key, p_subject, 0, s.details)::jsonb - 'user' end
  ))
  from (
    select x.* from gdpr_internal.source as x where p_ids is null and x.subject_id = p_subject
    union all
    select x.* from gdpr_internal.source as x where x.id = any (p_ids) and x.subject_id = p_subject
  ) as s
  left join gdpr_internal.protected_table as t on t.id = s.table_id
  order by s.id;
end
$function$;
comment on function gdpr_internal.opened_sources(bigint, bigint[]) is
  'Where a person''s data came from: when, which table, created or changed, kind and details. Art. 15(1)(g).';

create or replace function gdpr_internal.opened_history(
  p_subject bigint, p_from timestamptz default '-infinity', p_from_id bigint default 0, p_to timestamptz default 'infinity',
  p_to_id bigint default 0
)
returns setof jsonb
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set debug_print_plan = off
as $function$
declare
  v_key bytea;
begin
  if exists (
    select from gdpr_internal.audit_record as a
    where a.subject_id = p_subject and a.at between p_from and p_to and a.table_id is not null and a.payload is not null
  ) then
    v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  end if;
  return query
  select jsonb_strip_nulls(jsonb_build_object(
    'at', gdpr_internal.utc(a.at), 'operation', a.operation, 'table', t.relation::text,
    'purpose', coalesce(p.name, case when a.table_id is null then a.payload::jsonb ->> 'purpose' end),
    -- which system, not which member of staff (CJEU, C-579/21)
    'by', (
      select b.role_name from gdpr_internal.role_binding as b
      where b.role_name = a.role or pg_has_role(to_regrole(quote_ident(a.role))::oid, to_regrole(quote_ident(b.role_name))::oid, 'usage')
      order by b.role_name <> a.role, b.role_name
      limit 1
    ),
    'changed', to_jsonb(c.changed)
  ))
  || case when c.old is null then '{}' else jsonb_build_object('before', c.old) end
  from gdpr_internal.audit_record as a
  left join gdpr_internal.protected_table as t on t.id = a.table_id
  left join gdpr_internal.purpose as p on p.id = a.purpose_id
  cross join lateral (
    select
      (select array_agg(n) from unnest(a.changed) as n where n <> all (x.hidden)) as changed,
      case when v_key is not null and a.table_id is not null and a.payload is not null
        then gdpr_internal.open_payload(v_key, p_subject, a.payload) - x.hidden
      end as old
    from (values (gdpr_internal.about_columns(t.definition) || 'gdpr_subject_id'::text)) as x (hidden)
    offset 0
  ) as c
  where a.subject_id = p_subject and (a.at, a.id) >= (p_from, p_from_id) and (a.at, a.id) <= (p_to, p_to_id)
  order by a.at, a.id;
end
$function$;
comment on function gdpr_internal.opened_history(bigint, timestamptz, bigint, timestamptz, bigint) is
  'What happened to a person''s data: when, what, in which table, for which purpose, by which role of the policy, which columns changed and what they held before. Members of staff are not named.';

-- 60_subject_rights/62_access_facts.sql
-- [code] What a person is told besides the data: purposes and bases, categories, consents, restrictions, mails.
-- GDPR Art. 15(1), 15(2). Called by: gdpr.access_report(), gdpr.portable_copy(). Facts only: words are the letter's.

set local role gdpr_owner;

create or replace function gdpr_internal.described_table(p_table smallint, p_portable boolean)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $function$
declare
  v_hidden text[] := gdpr_internal.hidden_columns(p_table, p_portable);
begin
  return (
    select jsonb_strip_nulls(jsonb_build_object(
      'table', t.relation::text,
      'description', obj_description(t.relation, 'pg_class'),
      'kept_for', t.definition -> 'erase' ->> 'keep_until'
    )) || jsonb_build_object(
      'columns', (
        select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
          'name', a.attname, 'type', coalesce(c.original_type, format_type(a.atttypid, a.atttypmod)),
          'description', col_description(t.relation, a.attnum), 'category', c.category, 'special_category', c.special
        )) order by a.attnum), '[]')
        from pg_attribute as a
        left join gdpr_internal.protected_column as c on c.table_id = t.id and c.column_name = a.attname
        where a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
          and a.attname::text <> all (v_hidden)
      ),
      'left_out', to_jsonb(v_hidden)
    )
    from gdpr_internal.protected_table as t
    where t.id = p_table
  );
end
$function$;
comment on function gdpr_internal.described_table(smallint, boolean) is
  'A protected table for the person whose rows it holds: its columns with types and categories, those that are left out by name, the words of the database''s own comments.';

create or replace function gdpr_internal.purpose_facts(p_subject bigint, p_tables smallint[])
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set intervalstyle = 'iso_8601'
as $function$
begin
  return (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'purpose', p.name, 'description', p.description, 'basis', p.basis,
      'article', case p.basis
        when 'consent' then 'eu-gdpr:A6-1-a' when 'contract' then 'eu-gdpr:A6-1-b' when 'legal_obligation' then 'eu-gdpr:A6-1-c'
        when 'vital_interests' then 'eu-gdpr:A6-1-d' when 'public_task' then 'eu-gdpr:A6-1-e' else 'eu-gdpr:A6-1-f'
      end,
      'condition', p.condition, 'automated_decision', p.automated_decision, 'retain', coalesce(p.retain, p.valid_for)::text,
      'objected_at', gdpr_internal.utc(o.recorded_at)
    )) || jsonb_build_object(
      'allowed', gdpr_internal.still_allowed(p_subject, 1::bigint << p.id),
      'tables', t.names,
      'bases', b.bases
    ) order by p.id), '[]')
    from gdpr_internal.purpose as p
    left join gdpr_internal.standing_objection as o on o.subject_id = p_subject and o.purpose_id = p.id
    cross join lateral (
      select coalesce(jsonb_agg(t.relation::text order by t.id), '[]') as names
      from gdpr_internal.protected_table as t
      where t.id = any (p_tables) and t.purpose_mask & (1::bigint << p.id) <> 0
    ) as t
    cross join lateral (
      select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'basis', x.basis, 'condition', x.condition, 'reason', x.reason, 'holds', coalesce(
          x.valid_from <= statement_timestamp() and h.valid_until > statement_timestamp(), false
        ),
        'valid_from', gdpr_internal.utc(x.valid_from),
        'valid_until', gdpr_internal.utc(least(x.valid_until, h.valid_until, e.ended_at)), 'end_reason', e.reason
      )) order by x.id), '[]') as bases
      from gdpr_internal.basis_record as x
      left join gdpr_internal.held_basis as h on h.id = x.id
      left join gdpr_internal.basis_end as e on e.basis_id = x.id
      where x.subject_id = p_subject and x.purpose_id = p.id
    ) as b
    where p.id < 62 and (t.names <> '[]' or b.bases <> '[]' or o.id is not null)
  );
end
$function$;
comment on function gdpr_internal.purpose_facts(bigint, smallint[]) is
  'For what and on which basis a person''s data in these tables are processed, how long, and whether machines decide alone. Art. 15(1)(a), (d), (h).';

create or replace function gdpr_internal.category_facts(p_tables smallint[])
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $function$
begin
  return (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'category', c.category, 'special_category', c.special, 'columns', c.columns
    )) order by c.category, c.special), '[]')
    from (
      select c.category, c.special, jsonb_agg(format('%s.%s', t.relation, c.column_name) order by t.id, c.position) as columns
      from gdpr_internal.protected_column as c
      join gdpr_internal.protected_table as t on t.id = c.table_id
      where t.id = any (p_tables) and c.column_name::text <> all (gdpr_internal.about_columns(t.definition))
      group by c.category, c.special
    ) as c
  );
end
$function$;
comment on function gdpr_internal.category_facts(smallint[]) is 'The categories of personal data in these tables, with their columns. Art. 15(1)(b).';

create or replace function gdpr_internal.consent_facts(p_subject bigint)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
begin
  return (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'at', gdpr_internal.utc(e.at), 'purpose', p.name, 'event', e.event, 'channel', e.channel, 'contact_channels', e.contact,
      'until', gdpr_internal.utc(e.until), 'form', f.name, 'form_version', f.version, 'language', f.language,
      -- who took the answer, and a guardian, are other persons
      'evidence', e.evidence - array['who', 'guardian']
    )) order by e.id, p.id), '[]')
    from (
      select
        q.id, q.recorded_at as at, u.purpose_id, 'asked' as event, q.channel, null::text[] as contact, q.form_id, q.respond_until as until,
        null::jsonb as evidence
      from gdpr_internal.consent_request as q
      cross join lateral unnest(q.purposes) as u (purpose_id)
      where q.subject_id = p_subject
      union all
      select
        r.id, r.recorded_at, r.purpose_id, r.event, r.channel, r.contact, r.form_id, case when r.event = 'granted' then r.valid_until end,
        gdpr_internal.open_evidence(r.subject_id, r.evidence)::jsonb
      from gdpr_internal.consent_record as r
      where r.subject_id = p_subject
    ) as e
    join gdpr_internal.purpose as p on p.id = e.purpose_id
    left join gdpr_internal.consent_form as f on f.id = e.form_id
  );
end
$function$;
comment on function gdpr_internal.consent_facts(bigint) is 'What a person was asked and answered, in order, with the evidence. Art. 7, 15.';

create or replace function gdpr_internal.standing_facts(p_subject bigint)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
begin
  return (
    select jsonb_strip_nulls(jsonb_build_object(
      'subject_id', s.id, 'known_since', gdpr_internal.utc(s.created_at), 'erased_at', gdpr_internal.utc(s.erased_at)
    )) || jsonb_build_object(
      'identifiers', (
        select coalesce(jsonb_agg(i.kind order by i.kind), '[]') from gdpr_internal.identifier as i
        where i.subject_id = s.id and i.retired_at is null
      ),
      'restrictions', (
        select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
          'ground', r.ground, 'since', gdpr_internal.utc(r.recorded_at), 'lifted_at', gdpr_internal.utc(e.ended_at), 'reason', e.reason
        )) order by r.id), '[]')
        from gdpr_internal.restriction_record as r
        left join gdpr_internal.restriction_end as e on e.restriction_id = r.id
        where r.subject_id = s.id
      ),
      'mails', (
        select coalesce(jsonb_agg(jsonb_build_object(
          'at', gdpr_internal.utc(m.recorded_at), 'mail', m.template, 'event', m.event
        ) order by m.id), '[]')
        from gdpr_internal.mail_record as m where m.subject_id = s.id
      )
    )
    from gdpr_internal.subject as s
    where s.id = p_subject
  );
end
$function$;
comment on function gdpr_internal.standing_facts(bigint) is 'A person''s standing: since when known, restrictions, which kinds of identifiers, which mails were sent.';

create or replace function gdpr_internal.request_facts(p_subject bigint)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
begin
  return (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'request_id', r.id, 'kind', r.kind, 'channel', r.channel, 'received_at', gdpr_internal.utc(r.received_at), 'state', r.state,
      'due_on', r.due_on, 'extended', r.extended, 'closed_at', gdpr_internal.utc(r.closed_at), 'outcome', r.outcome,
      'details', gdpr_internal.open_evidence(p_subject, r.details)::jsonb
    )) order by r.id), '[]')
    from gdpr_internal.request_state as r
    where r.subject_id = p_subject
  );
end
$function$;
comment on function gdpr_internal.request_facts(bigint) is 'What a person has asked for, and how that stands.';

create or replace function gdpr_internal.recipient_facts(p_subject bigint)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
begin
  return (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'recipient', r.recipient, 'role', r.role, 'country', r.country, 'transfer', r.transfer, 'purposes', r.purposes,
      'categories', r.categories, 'disclosures', r.disclosures, 'first_disclosed_at', gdpr_internal.utc(r.first_disclosed_at),
      'last_disclosed_at', gdpr_internal.utc(r.last_disclosed_at)
    )) order by r.recipient), '[]')
    from gdpr.recipients_of(p_subject) as r
  );
end
$function$;
comment on function gdpr_internal.recipient_facts(bigint) is
  'To whom a person''s data were disclosed, where that is and on what a transfer out of the EEA rests. Art. 15(1)(c), 15(2).';

-- 60_subject_rights/63_access_pages.sql
-- [code] Persons with many rows, page by page: no answer is larger than its page, whatever a person has.
-- GDPR Art. 15, 20. Called by: gdpr_dpo, in one transaction at REPEATABLE READ (gdprdb subject export).

set local role gdpr_keyholder;

create or replace function gdpr_internal.row_pages(p_subject bigint, p_size integer)
returns table (table_id smallint, part oid, places tid[])
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := gdpr_internal.before_worker();
  v_pages jsonb;
begin
  select jsonb_agg(jsonb_build_object('table_id', p.table_id, 'part', p.part, 'places', p.places::text)) into v_pages
  from gdpr_generated.access_pages(p_subject, p_size) as p;
  perform gdpr_internal.after_worker(v_before);
  return query
  select (p.value ->> 'table_id')::smallint, (p.value ->> 'part')::oid, (p.value ->> 'places')::tid[]
  from jsonb_array_elements(v_pages) with ordinality as p (value, n)
  order by p.n;
end
$function$;
comment on function gdpr_internal.row_pages(bigint, integer) is 'Where a person''s rows are: table, partition and places, p_size at a time.';

set local role gdpr_owner;

create or replace function gdpr.access_pages(p_subject bigint, p_portable boolean default false, p_size integer default 1000)
returns table (section text, table_name text, page jsonb)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_tables smallint[];
begin
  if p_size is null or p_size not between 1 and 100000 then
    perform gdpr_internal.refuse('invalid_argument', 'p_size is 1 to 100000');
  end if;
  perform gdpr_internal.note_access(p_subject, case when p_portable then 'portable_copy' else 'access_report' end);
  if p_portable then
    v_tables := gdpr_internal.portable_tables(p_subject);
  end if;
  return query
  select 'rows', t.relation::text, jsonb_build_object('table', p.table_id, 'part', p.part, 'places', p.places::text, 'portable', p_portable)
  from gdpr_internal.row_pages(p_subject, p_size) with ordinality as p (table_id, part, places, n)
  join gdpr_internal.protected_table as t on t.id = p.table_id
  where v_tables is null or p.table_id = any (v_tables)
  order by p.table_id, p.n;
  if p_portable then
    return;
  end if;
  return query
  select 'sources', null::text, jsonb_build_object('sources', jsonb_agg(s.id order by s.id))
  from (
    select x.id, row_number() over (order by x.id) as n from gdpr_internal.source as x where x.subject_id = p_subject
  ) as s
  group by (s.n - 1) / p_size
  order by (s.n - 1) / p_size;
  return query
  select 'history', null::text, jsonb_build_object(
    'from', min(h.at), 'from_id', (array_agg(h.id order by h.n))[1], 'to', max(h.at), 'to_id', (array_agg(h.id order by h.n desc))[1]
  )
  from (
    select x.at, x.id, row_number() over (order by x.at, x.id) as n from gdpr_internal.audit_record as x where x.subject_id = p_subject
  ) as h
  group by (h.n - 1) / p_size
  order by (h.n - 1) / p_size;
end
$function$;
comment on function gdpr.access_pages(bigint, boolean, integer) is
  'The pages of an access report (p_portable: of a portable copy), p_size entries each, for gdpr.access_rows(): section rows (with table_name), sources, history. In one transaction at REPEATABLE READ with the pages, else rows that change in between are missed. Recorded in the audit log. Errors: PR101 unknown person, PR004. Art. 15, 20.';

create or replace function gdpr.access_rows(p_subject bigint, p_page jsonb)
returns setof jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_portable boolean := coalesce((p_page ->> 'portable')::boolean, false);
begin
  perform gdpr_internal.note_access(p_subject, case when v_portable then 'portable_copy' else 'access_report' end);
  if p_page ? 'places' then
    return query
    select r.content
    from gdpr_internal.opened_rows(
      p_subject, array[(p_page ->> 'table')::smallint], v_portable, (p_page ->> 'part')::oid, (p_page ->> 'places')::tid[]
    ) as r;
  elsif p_page ? 'sources' then
    return query
    select s from gdpr_internal.opened_sources(p_subject, array(select jsonb_array_elements_text(p_page -> 'sources')::bigint)) as s;
  elsif p_page ? 'to_id' then
    return query
    select h from gdpr_internal.opened_history(
      p_subject, (p_page ->> 'from')::timestamptz, (p_page ->> 'from_id')::bigint, (p_page ->> 'to')::timestamptz, (p_page ->> 'to_id')::bigint
    ) as h;
  else
    perform gdpr_internal.refuse('invalid_argument', 'a page is what gdpr.access_pages() returned');
  end if;
end
$function$;
comment on function gdpr.access_rows(bigint, jsonb) is
  'The entries of one page that gdpr.access_pages() named, as in gdpr.access_report(): rows of a table, sources or history. Whatever the page says, only what belongs to this person. Recorded in the audit log, once for each transaction. Errors: PR101 unknown person, PR004 no such page, PR402 key locked, PR404. Art. 15, 20.';

-- 60_subject_rights/64_access_report.sql
-- [code] The answer to a person who asks what is stored: access reports and portable copies, whole or page by page.
-- GDPR Art. 15, 20. Called by: gdpr_dpo; the portal and the sender of mails through 66_downloads.sql. Each reading is in the
-- audit log. docs/access-report.schema.json and docs/portable-copy.schema.json describe the documents.

set local role gdpr_owner;

create or replace function gdpr_internal.note_access(p_subject bigint, p_document text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not exists (select from gdpr_internal.subject as s where s.id = p_subject) then
    perform gdpr_internal.refuse('unknown_subject');
  end if;
  if not exists (
    select from gdpr_internal.audit_record as a
    where a.subject_id = p_subject and a.at >= transaction_timestamp() - interval '1 minute'
      and a.xid = pg_current_xact_id() and a.operation = 'ACCESS' and a.payload::jsonb ->> 'document' = p_document
  ) then
    -- the line in the server's log stays when the transaction, and its audit record, is rolled back
    raise log 'gdprdb: % of subject % read by %', p_document, p_subject, gdpr_internal.acting_role();
    perform gdpr_internal.audit_event('ACCESS', p_subject, jsonb_build_object('document', p_document));
    perform gdpr_internal.note_request(p_subject, p_document);
  end if;
end
$function$;
comment on function gdpr_internal.note_access(bigint, text) is
  'Records that everything about a person is read, and that it answers the request that the context names: once for each transaction, page by page or not. Errors: PR101 unknown person, PR607 to PR609 of the request.';

create or replace function gdpr_internal.portable_tables(p_subject bigint)
returns smallint[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
begin
  return (
    select coalesce(array_agg(t.id), '{}')
    from gdpr_internal.protected_table as t
    where t.unprotected_at is null and exists (
      select from gdpr_internal.held_basis as b
      where b.subject_id = p_subject and b.basis = 'contract' and t.purpose_mask & (1::bigint << b.purpose_id) <> 0
        and b.valid_from <= statement_timestamp() and b.valid_until > statement_timestamp()
      union all
      select from gdpr_internal.consent_state as c
      where c.subject_id = p_subject and c.status = 'granted' and t.purpose_mask & (1::bigint << c.purpose_id) <> 0
    )
  );
end
$function$;
comment on function gdpr_internal.portable_tables(bigint) is
  'The tables of which a purpose rests, for this person and now, on a contract or on consent. Art. 20(1)(a).';

create or replace function gdpr_internal.document_head(p_document text)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $function$
begin
  return (
    select jsonb_build_object(
      'document', p_document,
      'version', 1,
      'created_at', gdpr_internal.utc(statement_timestamp()),
      'controller', coalesce((select s.value from gdpr_internal.setting as s where s.name = 'controller'), '{}')
    )
  );
end
$function$;
comment on function gdpr_internal.document_head(text) is 'How every document for a person begins.';

create or replace function gdpr_internal.table_documents(p_subject bigint, p_tables smallint[], p_portable boolean, p_rows boolean)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if p_rows then
    return (
      select coalesce(jsonb_agg(
        gdpr_internal.described_table(r.table_id, p_portable) || jsonb_build_object('row_count', r.n, 'rows', r.contents) order by r.table_id
      ), '[]')
      from (
        select o.table_id, count(*) as n, jsonb_agg(o.content order by o.n) as contents
        from gdpr_internal.opened_rows(p_subject, p_tables, p_portable) with ordinality as o (table_id, content, n)
        group by o.table_id
      ) as r
    );
  end if;
  return (
    select coalesce(jsonb_agg(
      gdpr_internal.described_table(r.table_id, p_portable) || jsonb_build_object('row_count', r.n) order by r.table_id
    ), '[]')
    from (
      select p.table_id, sum(cardinality(p.places)) as n
      from gdpr_internal.row_pages(p_subject, 1000) as p
      where p_tables is null or p.table_id = any (p_tables)
      group by p.table_id
    ) as r
  );
end
$function$;
comment on function gdpr_internal.table_documents(bigint, smallint[], boolean, boolean) is
  'The tables in which a person has rows, described, with the rows or only their number.';

create or replace function gdpr_internal.access_document(p_subject bigint, p_rows boolean)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_tables jsonb;
  v_ids smallint[];
begin
  perform gdpr_internal.note_access(p_subject, 'access_report');
  v_tables := gdpr_internal.table_documents(p_subject, null, false, p_rows);
  select coalesce(array_agg(t.id), '{}') into v_ids
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null and v_tables @> jsonb_build_array(jsonb_build_object('table', t.relation::text));
  return gdpr_internal.document_head('access_report')
    || jsonb_build_object(
      'subject', gdpr_internal.standing_facts(p_subject),
      'purposes', gdpr_internal.purpose_facts(p_subject, v_ids),
      'categories', gdpr_internal.category_facts(v_ids),
      'recipients', gdpr_internal.recipient_facts(p_subject),
      'consents', gdpr_internal.consent_facts(p_subject),
      'requests', gdpr_internal.request_facts(p_subject),
      'rights', to_jsonb(array[
        'eu-gdpr:A16', 'eu-gdpr:A17', 'eu-gdpr:A18', 'eu-gdpr:A20', 'eu-gdpr:A21', 'eu-gdpr:A7-3', 'eu-gdpr:A77'
      ]),
      'tables', v_tables
    )
    || case when p_rows then jsonb_build_object(
      'sources', (
        select coalesce(jsonb_agg(s.entry order by s.n), '[]') from gdpr_internal.opened_sources(p_subject) with ordinality as s (entry, n)
      ),
      'history', (
        select coalesce(jsonb_agg(h.entry order by h.n), '[]') from gdpr_internal.opened_history(p_subject) with ordinality as h (entry, n)
      )
    ) else '{}' end;
end
$function$;
comment on function gdpr_internal.access_document(bigint, boolean) is 'See gdpr.access_report().';

create or replace function gdpr_internal.portable_document(p_subject bigint, p_rows boolean)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.note_access(p_subject, 'portable_copy');
  return gdpr_internal.document_head('portable_copy') || jsonb_build_object(
    'tables', gdpr_internal.table_documents(p_subject, gdpr_internal.portable_tables(p_subject), true, p_rows)
  );
end
$function$;
comment on function gdpr_internal.portable_document(bigint, boolean) is 'See gdpr.portable_copy().';

create or replace function gdpr.access_report(p_subject bigint, p_rows boolean default true)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_internal.access_document(p_subject, p_rows);
end
$function$;
comment on function gdpr.access_report(bigint, boolean) is
  'Everything about a person, for the person: rows of every protected table in plaintext and original types, columns that the policy does not name included; purposes, bases, consents, categories, recipients, requests, sources, retention, restrictions, mails, rights, the controller, and the history of changes with the values of before. Left out: columns about somebody else (setting about), members of staff. p_rows false: without rows, sources and history, which gdpr.access_pages() then gives. Restricted persons too; of the erased, what a hold or a law keeps. Recorded in the audit log. docs/access-report.schema.json. Errors: PR101 unknown person, PR402 key locked, PR404, PR607 to PR609 (the request in gdpr.request). Art. 15.';

create or replace function gdpr.portable_copy(p_subject bigint, p_rows boolean default true)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return gdpr_internal.portable_document(p_subject, p_rows);
end
$function$;
comment on function gdpr.portable_copy(bigint, boolean) is
  'What a person provided, to take along: rows of the tables of which a purpose rests, for this person now, on consent or on a contract; without columns that the policy says were not provided (provided = false), are about somebody else, or does not name, keys excepted. p_rows false: without rows. Recorded in the audit log. docs/portable-copy.schema.json. Errors: PR101 unknown person, PR402 key locked, PR404, PR607 to PR609 (the request in gdpr.request). Art. 20.';

-- 60_subject_rights/66_downloads.sql
-- [code] Handing a report over: a mail with an encrypted archive, or a token that opens a download once.
-- GDPR Art. 12(3), 15(3), 20, 32(1)(a). Called by: gdpr_dpo; gdpr_mail (gdprdb outbox send); gdpr_portal.
-- The report itself is never stored. A mail waits as an order, and its sender reads the report when it leaves: what waited in the
-- outbox would be a second copy of everything about a person, and out of date by the time it is sent.

set local role gdpr_owner;

create or replace function gdpr_internal.report(p_subject bigint, p_portable boolean)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return case when p_portable then gdpr_internal.portable_document(p_subject, true) else gdpr_internal.access_document(p_subject, true) end;
end
$function$;
comment on function gdpr_internal.report(bigint, boolean) is 'The access report of a person, or (p_portable) the portable copy.';

create or replace function gdpr_internal.passphrase()
returns text
language sql
volatile
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  -- 120 bits in 24 characters that nobody takes for another when they are read out
  select string_agg(
    substr('0123456789abcdefghjkmnpqrstvwxyz', (get_byte(r.bytes, n) & 31) + 1, 1) || case when n % 4 = 3 and n < 23 then '-' else '' end,
    '' order by n
  )
  from (select gdpr_internal.gen_random_bytes(24) as bytes offset 0) as r
  cross join generate_series(0, 23) as n;
end;
comment on function gdpr_internal.passphrase() is 'A passphrase to be read out over the telephone: six groups of four letters and digits, 120 random bits.';

create or replace function gdpr.send_report(p_subject bigint, p_portable boolean default false, out mail_id bigint, out passphrase text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_contact record;
begin
  perform gdpr_internal.require_subject(p_subject);
  select c.* into v_contact from gdpr_internal.contacts(array[p_subject]) as c;
  if v_contact.email is null then
    perform gdpr_internal.refuse('no_address');
  end if;
  perform gdpr_internal.refuse_large(p_subject);
  passphrase := gdpr_internal.passphrase();
  mail_id := gdpr_internal.queue_mail(
    p_subject, case when p_portable then 'rights_copy' else 'rights_report' end,
    case when v_contact.language ~ '^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,4}$' then replace(v_contact.language, '_', '-') end,
    jsonb_build_object('to', v_contact.email, 'passphrase', passphrase), p_not_after => statement_timestamp() + interval '7 days'
  );
  perform gdpr_internal.audit_event('SEND', p_subject, jsonb_build_object('mail_id', mail_id));
  perform gdpr_internal.note_request(
    p_subject, case when p_portable then 'portable_copy' else 'access_report' end, jsonb_build_object('mail_id', mail_id)
  );
end
$function$;
comment on function gdpr.send_report(bigint, boolean) is
  'Queues a mail to a person with the access report (p_portable: the portable copy) as an archive encrypted with AES-256. Returns the passphrase, this once: tell it by another channel, never by mail. The archive is made when the mail is sent, within seven days. Errors: PR101, PR603, PR306 no address, PR620 too large for a mail, PR402. Art. 12(3), 15(3).';

create or replace function gdpr_internal.refuse_large(p_subject bigint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if (select sum(cardinality(p.places)) from gdpr_internal.row_pages(p_subject, 1000) as p) > 20000 then
    perform gdpr_internal.refuse('report_too_large');
  end if;
end
$function$;
comment on function gdpr_internal.refuse_large(bigint) is 'Refuses a report of more than 20,000 rows: mail servers would. Error: PR620.';

create or replace function gdpr.mail_report(p_mail bigint)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_mail gdpr_internal.outbox;
begin
  perform gdpr_internal.require_mailer();
  select o.* into v_mail
  from gdpr_internal.outbox as o
  where o.id = p_mail and o.taken_by = pg_backend_pid() and o.template in ('rights_report', 'rights_copy')
  for update;
  if v_mail.id is null then
    perform gdpr_internal.refuse('mail_not_taken');
  end if;
  perform gdpr_internal.refuse_large(v_mail.subject_id);
  return gdpr_internal.report(v_mail.subject_id, v_mail.template = 'rights_copy');
end
$function$;
comment on function gdpr.mail_report(bigint) is
  'The report that a mail orders which this session has taken, for the archive that it carries. For roles of audience mail. Errors: 42501, PR606 not taken by this session, PR620 too large, PR402. Art. 15(3), 32(1)(a).';

create or replace function gdpr.create_download(p_subject bigint, p_valid_for interval default '7 days', p_portable boolean default false)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  perform gdpr_internal.require_subject(p_subject);
  if p_valid_for is null or p_portable is null or p_valid_for <= interval '0' or p_valid_for > interval '31 days' then
    perform gdpr_internal.refuse('invalid_argument', 'p_valid_for is up to 31 days');
  end if;
  -- one door at a time
  delete from gdpr_internal.token as t where t.subject_id = p_subject and t.kind = 'download';
  perform gdpr_internal.note_request(
    p_subject, case when p_portable then 'portable_copy' else 'access_report' end,
    jsonb_build_object('download_until', statement_timestamp() + p_valid_for)
  );
  perform gdpr_internal.audit_event('DOWNLOAD', p_subject, jsonb_build_object('valid_until', statement_timestamp() + p_valid_for));
  return gdpr_internal.create_token('download', p_portable::integer, p_subject, statement_timestamp() + p_valid_for);
end
$function$;
comment on function gdpr.create_download(bigint, interval, boolean) is
  'A token with which its bearer downloads a person''s access report (p_portable: the portable copy) once, through gdpr.portal_download(), until p_valid_for (31 days at the most) has passed. An earlier token of the person that was not used opens nothing any more. Errors: PR101, PR603, PR004. Art. 12(3), 15(3).';

create or replace function gdpr.portal_download(p_token text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_token gdpr_internal.token := gdpr_internal.take_token(p_token, 'download');
begin
  -- used up: nothing more has to be known of it, and the reading is in the audit log
  delete from gdpr_internal.token as t where t.digest = v_token.digest;
  return gdpr_internal.report(v_token.subject_id, v_token.reference = 1);
end
$function$;
comment on function gdpr.portal_download(text) is
  'The report for which gdpr.create_download() made the token. It opens once: commit when the bearer has it. The person comes from the token. Errors: PR303 the token is not valid, PR402 key locked. Art. 15(3), 20.';

-- 60_subject_rights/70_sign_in.sql
-- [code] Signing in to the portal: a link by mail, once, for a session that ends.
-- GDPR Art. 12(2), 12(6), Art. 32(1)(b). Called by: gdpr_portal. Who asks for a link learns nothing about the address: known or
-- not, blocked or written to a minute ago, the answer and the work are the same.

set local role gdpr_keyholder;

create or replace function gdpr_internal.put_sign_in(p_subject bigint, p_to text, p_language text, p_until timestamptz)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_kek bytea := (gdpr_internal.keyring()).kek;
  v_owner bigint := coalesce(p_subject, 0);
  v_wrapped bytea;
  v_message text;
  v_mail jsonb;
begin
  -- of nobody there is no key: one is made, and thrown away, so that as much is done
  v_wrapped := gdpr_internal.wrap_key(v_kek, gdpr_internal.gen_random_bytes(16), int8send(v_owner), gdpr_internal.gen_random_bytes(64));
  v_wrapped := coalesce((select k.wrapped from gdpr_internal.subject_key as k where k.subject_id = v_owner), v_wrapped);
  v_mail := jsonb_build_object(
    'to', p_to, 'token', gdpr_internal.create_token('sign_in', v_owner, p_subject, p_until),
    'sign_in_by', to_char(p_until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')
  );
  perform gdpr_internal.check_mail('rights_sign_in', p_language, v_mail);
  v_message := gdpr_internal.seal_value(
    gdpr_internal.unwrap_key(v_kek, int8send(v_owner), v_wrapped), gdpr_internal.gen_random_bytes(16), v_owner, 0, v_mail::text
  );
  if p_subject is not null then
    insert into gdpr_internal.outbox (subject_id, template, language, message, due_at, expires_at)
    values (p_subject, 'rights_sign_in', p_language, v_message, statement_timestamp(), p_until);
  end if;
  -- in any case: everybody may listen
  perform pg_notify('gdpr_outbox', '');
end
$function$;
comment on function gdpr_internal.put_sign_in(bigint, text, text, timestamptz) is
  'Makes a token for signing in and queues the mail that carries it; p_subject null: does as much, and nothing comes of it. Errors: PR004, PR401, PR402.';

set local role gdpr_owner;

create or replace function gdpr_internal.portal_time(p_name text)
returns interval
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(
    (select (s.value ->> p_name)::interval from gdpr_internal.setting as s where s.name = 'portal'),
    case p_name when 'link' then interval '30 minutes' when 'resend' then interval '5 minutes' when 'session' then interval '1 hour' end
  );
end;
comment on function gdpr_internal.portal_time(text) is
  'settings.portal: link (how long one works), resend (one mail to a mailbox in this time), session (how long it lasts).';

create or replace function gdpr.portal_request_sign_in(p_email text, p_language text default null)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_to text := btrim(p_email);
  v_until timestamptz := statement_timestamp() + gdpr_internal.portal_time('link');
  v_digests record;
  v_subject bigint;
begin
  perform gdpr_internal.require_home();
  if not gdpr_internal.is_address(v_to) then
    perform gdpr_internal.refuse('invalid_argument', 'this is no e-mail address');
  end if;
  v_digests := gdpr_internal.identifier_digests('email', v_to);
  select i.subject_id into v_subject from gdpr_internal.identifier as i where i.digest = v_digests.digest and i.retired_at is null;
  -- whoever enters the telephone number of another beside an address of their own is given to that person, or gets theirs: who has
  -- addresses that came in such a way is signed in by none, and asks at the office. Of nobody it is asked too
  if exists (
    select from gdpr_internal.identifier as i
    where i.subject_id = coalesce(v_subject, 0) and i.kind = 'email' and i.by_match and i.retired_at is null
  ) then
    v_subject := null;
  end if;
  insert into gdpr_internal.sign_in_mail as m (mailbox, mailed_at)
  values (v_digests.bare, statement_timestamp())
  on conflict (mailbox) do update
  set mailed_at = excluded.mailed_at
  where m.mailed_at <= statement_timestamp() - gdpr_internal.portal_time('resend');
  perform gdpr_internal.put_sign_in(
    -- to the spelling that was entered: only if whoever reads it owns the mailbox of the one that is known
    case when found and gdpr_internal.proves_mailbox(v_to) then v_subject end, v_to, p_language, v_until
  );
  return jsonb_build_object('status', 'sent_if_known', 'link_for', gdpr_internal.portal_time('link')::text);
end
$function$;
comment on function gdpr.portal_request_sign_in(text, text) is
  'Sends a link by which the owner of an address signs in to the portal (template rights_sign_in, in p_language), if a person is known by it, and by no address that came with a row matched by something else; one mail to a mailbox in each interval (settings.portal.resend). The answer is always the same. Send the address as a bind parameter. Errors: PR004 no address, PR401, PR402 key locked, PR640 the database was restored. Art. 12(2), 32(1)(b).';

create or replace function gdpr.portal_sign_in(p_token text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint;
  v_until timestamptz := statement_timestamp() + gdpr_internal.portal_time('session');
begin
  v_subject := (gdpr_internal.take_token(p_token, 'sign_in')).subject_id;
  if not exists (select from gdpr_internal.subject as s where s.id = v_subject and s.erased_at is null) then
    perform gdpr_internal.refuse('token_refused');
  end if;
  perform gdpr_internal.audit_event('SIGN_IN', v_subject, '{}');
  return jsonb_build_object('session', gdpr_internal.create_token('session', v_subject, v_subject, v_until), 'valid_until', v_until);
end
$function$;
comment on function gdpr.portal_sign_in(text) is
  'Takes the token of a link, once, and returns {"session", "valid_until"}: the secret by which the other portal_ functions know the person, until then (settings.portal.session) or gdpr.portal_sign_out(). Call it on POST alone: programs that look at links before the person does send GET. Keep the session in a cookie (Secure, HttpOnly, SameSite), never in an address. Error: PR303, the same for every token that is none. Art. 12(6), 32(1)(b).';

create or replace function gdpr_internal.session_subject(p_session text)
returns bigint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint;
begin
  -- a backup holds sessions too, and what it shows may have been forgotten since
  perform gdpr_internal.require_home();
  select t.subject_id into v_subject
  from gdpr_internal.token as t
  join gdpr_internal.subject as s on s.id = t.subject_id
  where t.digest = sha256(convert_to(case when octet_length(p_session) = 43 then p_session else '' end, 'UTF8'))
    and t.kind = 'session' and t.valid_until > clock_timestamp() and s.erased_at is null;
  if not found then
    perform gdpr_internal.refuse('token_refused');
  end if;
  return v_subject;
end
$function$;
comment on function gdpr_internal.session_subject(text) is
  'The person who is signed in. Errors: PR303, the same for a session that was guessed, has ended, or is a token for something else; PR640 the database was restored.';

create or replace function gdpr.portal_sign_out(p_session text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  perform gdpr_internal.session_subject(p_session);
  delete from gdpr_internal.token as t where t.digest = sha256(convert_to(p_session, 'UTF8'));
end
$function$;
comment on function gdpr.portal_sign_out(text) is 'Ends a session. Error: PR303 it has ended.';

-- 60_subject_rights/72_portal.sql
-- [code] The portal: what a person who is signed in sees and asks for.
-- GDPR Art. 7(3), 12(2), 15 to 22. Called by: gdpr_portal, which has nothing else. The person comes from the session, never from
-- the caller; what is asked for is recorded as a request at once, and done at once where nobody has to decide.

set local role gdpr_owner;

create or replace function gdpr_internal.portal_open(p_subject bigint, p_kind text, p_details jsonb default null, p_at_once boolean default false)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if jsonb_typeof(p_details) <> 'object' or pg_column_size(p_details) > 16384 then
    perform gdpr_internal.refuse('invalid_argument', 'details are {"name": value, ...} of 16 kB at the most');
  end if;
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  if not p_at_once and (select count(*) from gdpr_internal.request_state as r where r.subject_id = p_subject and not r.closed) >= 20 then
    perform gdpr_internal.refuse('too_many_requests');
  end if;
  return gdpr.open_request(p_kind, p_subject, 'portal', statement_timestamp(), p_details);
end
$function$;
comment on function gdpr_internal.portal_open(bigint, text, jsonb, boolean) is
  'Records what a person asks for in the portal, where the session has proved who it is. p_at_once: it is done now, however many requests are open: whoever fills the list must not keep a person from saying no. Errors: PR004, PR616 twenty requests are open.';

create or replace function gdpr_internal.portal_answered(p_subject bigint, p_kind text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  if exists (
    select from gdpr_internal.request_state as r
    where r.subject_id = p_subject and r.kind = p_kind and r.channel = 'portal' and r.state = 'completed'
      and gdpr_internal.local_day(r.closed_at) = gdpr_internal.local_day(statement_timestamp())
  ) then
    return null;
  end if;
  return gdpr_internal.portal_open(p_subject, p_kind, null, true);
end
$function$;
comment on function gdpr_internal.portal_answered(bigint, text) is
  'A request for what the portal gives at once; null where the person had the same today: who pages to and fro asks once.';

create or replace function gdpr.portal_data(p_session text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_request bigint := gdpr_internal.portal_answered(v_subject, 'access');
  v_before text := gdpr_internal.name_request(v_request);
  v_report jsonb;
begin
  v_report := gdpr.access_report(v_subject);
  perform gdpr_internal.end_request(v_request, v_before);
  return v_report;
end
$function$;
comment on function gdpr.portal_data(text) is
  'Everything about the person who is signed in, as gdpr.access_report() gives it. The first time on a day is recorded as a request for access, answered. Errors: PR303 the session has ended, PR402. Art. 15.';

create or replace function gdpr.portal_copy(p_session text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_request bigint := gdpr_internal.portal_answered(v_subject, 'portability');
  v_before text := gdpr_internal.name_request(v_request);
  v_copy jsonb;
begin
  v_copy := gdpr.portable_copy(v_subject);
  perform gdpr_internal.end_request(v_request, v_before);
  return v_copy;
end
$function$;
comment on function gdpr.portal_copy(text) is
  'What the person who is signed in provided, to take along, as gdpr.portable_copy() gives it. The first time on a day is recorded as a request for portability, answered. Errors: PR303 the session has ended, PR402. Art. 20.';

create or replace function gdpr.portal_purposes(p_session text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
begin
  return (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'purpose', p.name,
      'description', p.description,
      'allowed', g.allowed & (1::bigint << p.id) <> 0,
      'bases', b.bases,
      'consent', c.status,
      'channels', c.contact,
      'consent_until', nullif(c.valid_until, 'infinity'),
      'respond_until', case when c.status = 'waiting' then c.respond_until end,
      'objection', o.status,
      'direct_marketing', p.direct_marketing,
      'open_to_objection', o.status is null and (
        p.direct_marketing or p.basis in ('legitimate_interests', 'public_task') or b.bases && array['legitimate_interests', 'public_task']
      )
    )) order by p.id), '[]')
    from gdpr_internal.gate(array[v_subject]) as g
    cross join gdpr_internal.purpose as p
    left join gdpr.consent as c on c.subject_id = v_subject and c.purpose = p.name
    left join lateral (
      select array_agg(distinct h.basis) as bases from gdpr_internal.held_basis as h
      where h.subject_id = v_subject and h.purpose_id = p.id and h.valid_until > statement_timestamp()
    ) as b on true
    left join lateral (
      select x.status from gdpr.objection as x
      where x.subject_id = v_subject and x.purpose = p.name and x.status in ('pending', 'upheld')
    ) as o on true
    where p.id < 62 and (b.bases is not null or c.status is not null or o.status is not null)
  );
end
$function$;
comment on function gdpr.portal_purposes(text) is
  'For what the data of the person who is signed in are used: each purpose with description, whether it is allowed now, its bases, where consent stands (channels, until when), objections, and whether the person can object. Error: PR303 the session has ended. Art. 7(3), 21(4).';

create or replace function gdpr.portal_withdraw_consent(p_session text, p_purpose text)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_request bigint;
  v_before text;
begin
  perform gdpr_internal.consent_purposes(array[p_purpose]);
  if exists (
    select from gdpr.consent as c where c.subject_id = v_subject and c.purpose = p_purpose and c.status in ('granted', 'waiting')
  ) then
    v_request := gdpr_internal.portal_open(v_subject, 'withdrawal', null, true);
    v_before := gdpr_internal.name_request(v_request);
    perform gdpr.withdraw_consent(v_subject, p_purpose, 'portal');
    perform gdpr_internal.end_request(v_request, v_before);
  end if;
  return (select c.status from gdpr.consent as c where c.subject_id = v_subject and c.purpose = p_purpose);
end
$function$;
comment on function gdpr.portal_withdraw_consent(text, text) is
  'Withdraws consent to a purpose, in force in the next statement of every session; on record as a request that was fulfilled. What is not granted stays as it is. Returns where the consent stands. Errors: PR303 the session has ended, PR003, PR302, PR005. Art. 7(3).';

create or replace function gdpr.portal_answer_consent(
  p_session text, p_purpose text, p_granted boolean, p_channels text[] default null, p_evidence jsonb default null
)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_purpose smallint := (gdpr_internal.consent_purposes(array[p_purpose]))[1];
  v_asked record;
begin
  perform gdpr_internal.require_read_committed();
  if p_granted is null then
    perform gdpr_internal.refuse('invalid_argument', 'granted is true or false');
  end if;
  perform gdpr_internal.check_portal_evidence(p_evidence);
  -- a question that another session answers meanwhile is closed when it is looked at
  perform from gdpr_internal.subject as s where s.id = v_subject for no key update;
  select c.status, f.channels into v_asked
  from gdpr_internal.consent_state as c
  left join gdpr_internal.consent_request as q on q.id = c.request_id
  left join gdpr_internal.consent_form as f on f.id = q.form_id
  where c.subject_id = v_subject and c.purpose_id = v_purpose;
  if v_asked.status is distinct from 'waiting' then
    perform gdpr_internal.refuse('invalid_argument', 'this purpose was not asked, or not in time');
  elsif not p_channels <@ v_asked.channels then
    perform gdpr_internal.refuse('invalid_argument', 'channels: those that the form asks for');
  end if;
  perform gdpr_internal.add_consents(
    v_subject, array[v_purpose], array[case when p_granted then 'granted' else 'declined' end], 'portal', p_channels, null, p_evidence, null
  );
  return (select c.status from gdpr.consent as c where c.subject_id = v_subject and c.purpose = p_purpose);
end
$function$;
comment on function gdpr.portal_answer_consent(text, text, boolean, text[], jsonb) is
  'Grants or declines a purpose that the person was asked for and that waits for an answer. p_channels: of those that the form asks for, the channels of contact that the person allows (null: all). p_evidence: how the answer was given, kept encrypted. Returns where the consent stands. Errors: PR303 the session has ended, PR003, PR004 not asked, PR005, PR302, PR310. Art. 7, 8.';

create or replace function gdpr.portal_object(p_session text, p_purpose text, p_details jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
  v_request bigint;
  v_before text;
begin
  perform gdpr_internal.require_objectionable(v_subject, p_purpose);
  -- the first one closes the purpose; said again, it is one request more
  v_request := gdpr_internal.portal_open(v_subject, 'objection', p_details, not exists (
    select from gdpr.objection as o where o.subject_id = v_subject and o.purpose = p_purpose and o.status in ('pending', 'upheld')
  ));
  v_before := gdpr_internal.name_request(v_request);
  perform gdpr.object_to(v_subject, p_purpose, p_details);
  perform gdpr_internal.end_request(v_request, v_before);
  return v_request;
end
$function$;
comment on function gdpr.portal_object(text, text, jsonb) is
  'Objects to a purpose: closed from the next statement on; direct marketing for good, others until an officer has decided. p_details: the person''s reasons, kept encrypted. Returns the number of the request. Errors: PR303 the session has ended, PR003, PR004, PR005, PR614 the purpose is not open to objection, PR616 said again while twenty requests are open. Art. 21.';

create or replace function gdpr.portal_restrict(p_session text, p_ground text, p_details jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if p_ground is null or p_ground not in ('accuracy_contested', 'unlawful_processing', 'legal_claims') then
    perform gdpr_internal.refuse('invalid_argument', 'ground is accuracy_contested, unlawful_processing or legal_claims; see portal_object() for objections');
  end if;
  return gdpr_internal.portal_open(
    gdpr_internal.session_subject(p_session), 'restriction', coalesce(p_details, '{}') || jsonb_build_object('ground', p_ground)
  );
end
$function$;
comment on function gdpr.portal_restrict(text, text, jsonb) is
  'Asks for restriction of processing: accuracy_contested, unlawful_processing, legal_claims. An officer decides. p_details: why, kept encrypted. Returns the number of the request. Errors: PR303 the session has ended, PR004, PR616. Art. 18(1).';

create or replace function gdpr.portal_correct(p_session text, p_changes jsonb, p_reason text default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
begin
  return gdpr_internal.portal_open(v_subject, 'rectification', jsonb_strip_nulls(jsonb_build_object(
    'proposal', gdpr_internal.propose_rectification(v_subject, p_changes, p_reason, true), 'reason', p_reason
  )));
end
$function$;
comment on function gdpr.portal_correct(text, jsonb, text) is
  'Asks for something to be corrected or completed. p_changes: a list of {"table", "key", "column", "value"}, rows and keys as portal_data() shows them, or of {"statement"}, words to be kept beside the data; an officer approves them (gdpr.approve_rectification()). p_reason: kept encrypted. Returns the number of the request. Errors: PR303 the session has ended, PR004, PR616, and those of gdpr.propose_rectification(): a change that cannot be, somebody else''s row. Art. 16.';

create or replace function gdpr.portal_erase(p_session text, p_details jsonb default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  return gdpr_internal.portal_open(gdpr_internal.session_subject(p_session), 'erasure', p_details);
end
$function$;
comment on function gdpr.portal_erase(text, jsonb) is
  'Asks to be erased. An officer carries it out, or says why not. p_details: kept encrypted. Returns the number of the request. Errors: PR303 the session has ended, PR004, PR616. Art. 17.';

create or replace function gdpr.portal_requests(p_session text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_subject bigint := gdpr_internal.session_subject(p_session);
begin
  return (
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'request', r.id, 'kind', r.kind, 'state', r.state, 'channel', r.channel, 'received_at', r.received_at,
      'due_on', case when not r.closed and r.state <> 'identity_pending' then r.due_on end,
      'extended', r.extended, 'closed_at', r.closed_at, 'outcome', r.outcome,
      'article', (select g.article from gdpr.refusal_ground as g where r.state = 'refused' and g.name = r.outcome and g.kind = r.kind),
      'details', gdpr_internal.open_evidence(v_subject, r.details)::jsonb
    )) order by r.id desc), '[]')
    from gdpr_internal.request_state as r
    where r.subject_id = v_subject
  );
end
$function$;
comment on function gdpr.portal_requests(text) is
  'The requests of the person who is signed in, the newest first: number, kind, state, when it was received and until when the answer is due, what came of it and, of one that was refused, by which article. Error: PR303 the session has ended. Art. 12(3), 12(4).';

-- 60_subject_rights/80_ledger.sql
-- [code] The ledger: what has to be forgotten again after a restore. Numbers and keyed digests, no words that somebody typed.
-- GDPR Art. 5(2), Art. 17, Art. 18, Art. 21, Art. 7(3). Called by: gdprdb ledger export, which signs it with a key of its own.

set local role gdpr_keyholder;

create or replace function gdpr_internal.ledger_mac(p_digest bytea, p_more boolean)
returns bytea
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_key bytea := (select k.audit_key from gdpr_internal.key_encryption_key as k where k.retired_at is null);
begin
  if v_key is null then
    perform gdpr_internal.refuse('key_missing');
  end if;
  return gdpr_internal.hmac(convert_to(case when p_more then 'gdprdb/1/ledger/more' else 'gdprdb/1/ledger/end' end, 'UTF8') || p_digest, v_key, 'sha256');
end
$function$;
comment on function gdpr_internal.ledger_mac(bytea, boolean) is
  'By this a database knows a ledger of its own, whose digests were made with the same keys: HMAC-SHA-256 over the digest of a part, and whether another follows. Error: PR401 no key.';

set local role gdpr_owner;

create or replace function gdpr_internal.ledger_positions()
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table name;
  v_last bigint;
  v_positions jsonb := '{}';
begin
  -- registers from which nothing is ever deleted: their last number only grows
  for v_table in
    select c.relname
    from pg_class as c
    where c.relnamespace = 'gdpr_internal'::regnamespace
      and exists (select from pg_attribute as a where a.attrelid = c.oid and a.attname = 'id' and not a.attisdropped)
      and c.relkind in ('r', 'p') and not c.relispartition
      and (c.relname = 'subject' or exists (select from pg_trigger as g where g.tgrelid = c.oid and g.tgname = 'gdpr_50_append_only'))
    order by c.relname
  loop
    execute format('select max(t.id) from gdpr_internal.%I as t', v_table) into v_last;
    v_positions := v_positions || jsonb_build_object(v_table, coalesce(v_last, 0));
  end loop;
  return v_positions;
end
$function$;
comment on function gdpr_internal.ledger_positions() is 'The last number of each register: who has seen a higher one has seen a later state of this database.';

create or replace view gdpr_internal.ledger_entry as
select 'erasure' as kind, e.erased_at as at, e.id, e.subject_id, '{}'::jsonb as details
from gdpr_internal.erasure_record as e
union all
select
  'block', i.blocked_at, null, null,
  jsonb_build_object('digest', i.digest, 'identifier', i.kind, 'erased', i.block_reason = 'erased')
from gdpr_internal.identifier as i
where i.blocked_at is not null
union all
select 'mailbox', o.recorded_at, o.id, null, jsonb_build_object('digest', o.mailbox, 'event', o.event)
from gdpr_internal.opt_out_record as o
union all
select 'restriction', r.recorded_at, r.id, r.subject_id, jsonb_build_object('ground', r.ground)
from gdpr_internal.restriction_record as r
union all
select 'restriction_end', x.ended_at, r.id, r.subject_id, jsonb_build_object('ground', r.ground, 'of', r.recorded_at)
from gdpr_internal.restriction_end as x
join gdpr_internal.restriction_record as r on r.id = x.restriction_id
union all
select 'objection', o.recorded_at, o.id, o.subject_id, jsonb_build_object('purpose', p.name, 'pending', o.pending)
from gdpr_internal.objection_record as o
join gdpr_internal.purpose as p on p.id = o.purpose_id
union all
select
  'objection_decision', d.decided_at, d.id, o.subject_id,
  jsonb_build_object('purpose', p.name, 'event', d.decision, 'ground', d.ground, 'of', o.recorded_at)
from gdpr_internal.objection_decision as d
join gdpr_internal.objection_record as o on o.id = d.objection_id
join gdpr_internal.purpose as p on p.id = o.purpose_id
union all
-- without them the replay would erase what has to be kept
select
  'hold', h.recorded_at, h.id, h.subject_id,
  jsonb_build_object(
    'ground', h.ground, 'until', h.valid_until, 'table_id', h.table_id, 'table_name', t.relation::text, 'digest', h.row_key, 'columns', h.columns
  )
from gdpr_internal.hold as h
left join gdpr_internal.protected_table as t on t.id = h.table_id
union all
select 'hold_end', x.ended_at, h.id, h.subject_id, jsonb_build_object('ground', h.ground, 'of', h.recorded_at)
from gdpr_internal.hold_end as x
join gdpr_internal.hold as h on h.id = x.hold_id
union all
select 'consent', c.recorded_at, c.id, c.subject_id, jsonb_build_object('purpose', p.name, 'event', c.event, 'channel', c.channel)
from gdpr_internal.consent_record as c
join gdpr_internal.purpose as p on p.id = c.purpose_id
-- a grant is not brought back, but who granted again after a no is named, so that they can be asked
where c.event <> 'granted' or exists (
  select from gdpr_internal.consent_record as x
  where x.subject_id = c.subject_id and x.purpose_id = c.purpose_id and x.id < c.id and x.event <> 'granted'
)
union all
select 'basis_end', x.ended_at, b.id, b.subject_id, jsonb_build_object('purpose', p.name, 'basis', b.basis, 'of', b.recorded_at)
from gdpr_internal.basis_end as x
join gdpr_internal.basis_record as b on b.id = x.basis_id
join gdpr_internal.purpose as p on p.id = b.purpose_id
where not x.by_policy
union all
-- ciphertext under the person's key, which the ledger does not hold
select 'rectification', r.recorded_at, r.id, r.subject_id, jsonb_build_object('content', r.content, 'columns', r.columns)
from gdpr_internal.rectification_record as r
join gdpr_internal.subject as s on s.id = r.subject_id and s.erased_at is null;
comment on view gdpr_internal.ledger_entry is
  'What locks, keeps or corrects, and must not come undone by a restore. Reasons are left out: somebody typed them. Bases that the policy ended are left out: it ends them again when it is applied.';

create or replace function gdpr.ledger(p_since timestamptz default '-infinity', p_part integer default 100000)
returns setof jsonb
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set quote_all_identifiers = off
set jit = off
as $function$
declare
  v_header jsonb := jsonb_build_object(
    'gdprdb_ledger', 1, 'database', current_database(), 'system_identifier', (select s.system_identifier::text from pg_control_system() as s),
    'taken_at', statement_timestamp(), 'since', p_since, 'positions', gdpr_internal.ledger_positions()
  );
  v_part integer := 0;
  v_entries integer := 0;
  v_digest bytea;
  v_line jsonb;
begin
  if p_since is null or p_part is null or p_part < 1 then
    perform gdpr_internal.refuse('invalid_argument', 'since is a time, and a part has at least one entry');
  end if;
  for v_line in
    select v_header || '{"part": 1}'
    union all
    (
      select jsonb_strip_nulls(
        jsonb_build_object('kind', e.kind, 'at', e.at, 'id', e.id, 'subject', e.subject_id, 'since', s.created_at) || e.details
      )
      from gdpr_internal.ledger_entry as e
      left join gdpr_internal.subject as s on s.id = e.subject_id
      -- what a transaction wrote that took its time to commit may be in no ledger before this one
      where e.at >= p_since - interval '1 day'
      order by e.at, e.kind, e.id
    )
  loop
    if v_entries = p_part then
      return next gdpr_internal.ledger_seal(v_digest, v_entries, true);
      v_header := v_header || jsonb_build_object('part', v_part + 1, 'previous', encode(v_digest, 'hex'));
      return next v_header;
      v_part := v_part + 1;
      v_entries := 0;
      v_digest := sha256(convert_to(v_header::text, 'UTF8'));
    end if;
    v_digest := sha256(coalesce(v_digest, '') || convert_to(v_line::text, 'UTF8'));
    if v_part = 0 then
      v_part := 1;
    else
      v_entries := v_entries + 1;
    end if;
    return next v_line;
  end loop;
  return next gdpr_internal.ledger_seal(v_digest, v_entries, false);
end
$function$;
comment on function gdpr.ledger(timestamptz, integer) is
  'The ledger, one document for each line: a header (which database, when, the last number of each register), then in the order of time erasures, blocked identifiers, mailboxes that opted out, restrictions and their ends, objections and decisions about them, holds and their ends, consents declined and withdrawn, bases that ended, rectifications; and a seal over all of that. Persons are numbers, identifiers keyed digests, corrected values ciphertext under the person''s key. p_since: only what was recorded since, and a day before; infinity: header and seal alone, a checkpoint. More than p_part entries make several such parts. Errors: PR004, PR401 no key. Art. 17, Art. 5(2).';

create or replace function gdpr_internal.ledger_seal(p_digest bytea, p_entries integer, p_more boolean)
returns jsonb
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select jsonb_build_object('seal', jsonb_build_object(
    'entries', p_entries, 'digest', encode(p_digest, 'hex'), 'more', p_more, 'mac', encode(gdpr_internal.ledger_mac(p_digest, p_more), 'hex')
  ));
end;
comment on function gdpr_internal.ledger_seal(bytea, integer, boolean) is
  'The last line of a part. digest: SHA-256 of the digest so far and the next line, from the header on, as PostgreSQL writes jsonb.';

create or replace function gdpr_internal.open_ledger(p_ledger jsonb)
returns bytea
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_seal jsonb := case when jsonb_typeof(p_ledger) = 'array' then p_ledger -> -1 -> 'seal' end;
  v_digest bytea := '';
  v_line jsonb;
begin
  if p_ledger -> 0 -> 'gdprdb_ledger' is distinct from '1' or jsonb_typeof(v_seal) is distinct from 'object' then
    perform gdpr_internal.refuse('ledger_refused', 'a part is a list: header, entries, seal');
  end if;
  for v_line in
    select l.line from jsonb_array_elements(p_ledger) with ordinality as l (line, n)
    where l.n < jsonb_array_length(p_ledger)
    order by l.n
  loop
    v_digest := sha256(v_digest || convert_to(v_line::text, 'UTF8'));
  end loop;
  if v_seal ->> 'mac' is distinct from encode(gdpr_internal.ledger_mac(v_digest, v_seal -> 'more' = 'true'), 'hex') then
    perform gdpr_internal.refuse('ledger_refused', 'it was changed, or the keys here are not those of the database that wrote it');
  end if;
  return v_digest;
end
$function$;
comment on function gdpr_internal.open_ledger(jsonb) is 'The digest of a part of a ledger of this database, whole and unchanged. Errors: PR641, PR401.';

-- 60_subject_rights/82_missing.sql
-- [code] What the database lacks of its ledger.
-- GDPR Art. 32(1)(c), Art. 17. Called by: gdpr.replay(), and gdpr_dpo by gdprdb ledger check.

set local role gdpr_owner;

create or replace function gdpr_internal.ledger_missing(p_ledger jsonb)
returns table (
  n bigint, kind text, at timestamptz, subject_id bigint, since timestamptz, purpose_id smallint, event text, channel text,
  ground text, basis text, record_at timestamptz, digest uuid, identifier text, erased boolean, pending boolean, until timestamptz,
  table_id smallint, columns text[], content text
)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
-- planned while a table had one page, it would read all of it for each entry by now
set enable_seqscan = off
set jit = off
as $function$
#variable_conflict use_column
begin
  return query
  select l.n, e.kind, e.at, e.subject, e.since, p.id, e.event, e.channel, e.ground, e.basis, e.of, e.digest, e.identifier, e.erased,
    e.pending, e.until, e.table_id, e.columns, e.content
  from jsonb_array_elements(p_ledger) with ordinality as l (line, n)
  cross join lateral jsonb_to_record(l.line) as e (
    kind text, at timestamptz, subject bigint, since timestamptz, purpose text, event text, channel text, ground text, basis text,
    of timestamptz, digest uuid, identifier text, erased boolean, pending boolean, until timestamptz, table_id smallint, table_name text,
    columns text[], content text
  )
  left join gdpr_internal.purpose as p on p.name = e.purpose
  left join gdpr_internal.subject as s on s.id = e.subject
  where case
    when e.kind = 'erasure' then not exists (select from gdpr_internal.erasure_record as x where x.subject_id = e.subject)
    when e.kind = 'block' then not exists (select from gdpr_internal.identifier as x where x.digest = e.digest and x.blocked_at is not null)
    when e.kind = 'mailbox' then not exists (
      select from gdpr_internal.opt_out_record as x where x.mailbox = e.digest and x.event = e.event and x.recorded_at = e.at
    )
    -- who is not there, or not any more, has nothing that could be locked
    when e.subject is not null and (s.id is null or s.erased_at is not null) or e.purpose is not null and p.id is null then false
    when e.kind = 'restriction' then not exists (
      select from gdpr_internal.restriction_record as x where x.subject_id = s.id and x.recorded_at = e.at and x.ground = e.ground
    )
    when e.kind = 'restriction_end' then not exists (
      select from gdpr_internal.restriction_record as x
      join gdpr_internal.restriction_end as y on y.restriction_id = x.id
      where x.subject_id = s.id and x.recorded_at = e.of and x.ground = e.ground
    )
    when e.kind = 'objection' then not exists (
      select from gdpr_internal.objection_record as x where x.subject_id = s.id and x.purpose_id = p.id and x.recorded_at = e.at
    )
    when e.kind = 'objection_decision' then not exists (
      select from gdpr_internal.objection_record as x
      join gdpr_internal.objection_decision as y on y.objection_id = x.id
      where x.subject_id = s.id and x.purpose_id = p.id and x.recorded_at = e.of and y.decided_at = e.at
    )
    when e.kind = 'hold' then not exists (
      select from gdpr_internal.hold as x
      where x.recorded_at = e.at and x.ground = e.ground and (x.subject_id, x.table_id) is not distinct from (e.subject, e.table_id)
    ) and (e.table_id is null or exists (
      select from gdpr_internal.protected_table as t
      where t.id = e.table_id and t.relation::text = e.table_name and t.unprotected_at is null
    ))
    when e.kind = 'hold_end' then exists (
      select from gdpr_internal.hold as x
      where x.recorded_at = e.of and x.ground = e.ground and x.subject_id is not distinct from e.subject
        and not exists (select from gdpr_internal.hold_end as y where y.hold_id = x.id)
    )
    when e.kind = 'consent' then not exists (
      select from gdpr_internal.consent_record as x
      where x.subject_id = s.id and x.purpose_id = p.id and x.event = e.event and x.recorded_at = e.at
    )
    when e.kind = 'rectification' then not exists (
      select from gdpr_internal.rectification_record as x where x.subject_id = s.id and x.recorded_at = e.at
    )
    when e.kind = 'basis_end' then exists (
      select from gdpr_internal.basis_record as x
      where x.subject_id = s.id and x.purpose_id = p.id and x.basis = e.basis and x.recorded_at = e.of
        and not exists (select from gdpr_internal.basis_end as y where y.basis_id = x.id)
    )
    else false
  end;
end
$function$;
comment on function gdpr_internal.ledger_missing(jsonb) is
  'The entries of a part of a ledger that this database does not know, found by what they say and not by their numbers, which a restored database gives again.';

create or replace function gdpr_internal.position_reached()
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- after a replay the numbers up to the ledger's are used up, though some of their records are lost
  select jsonb_object_agg(p.key, greatest(p.value::bigint, (
    select max((r.positions ->> p.key)::bigint) from gdpr_internal.replay_record as r
  )))
  from jsonb_each_text(gdpr_internal.ledger_positions()) as p;
end;
comment on function gdpr_internal.position_reached() is 'The last number of each register that this database has seen, or knows of by a ledger that it replayed.';

create or replace function gdpr_internal.positions_beyond(p_positions jsonb, p_before jsonb)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(jsonb_object_agg(p.key, p.value::bigint - (p_before ->> p.key)::bigint), '{}')
  from jsonb_each_text(p_positions) as p
  where p.value::bigint > (p_before ->> p.key)::bigint;
end;
comment on function gdpr_internal.positions_beyond(jsonb, jsonb) is 'By how many records each register was longer.';

create or replace function gdpr.check_ledger(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_digest bytea := gdpr_internal.open_ledger(p_ledger);
  v_missing jsonb;
  v_behind jsonb;
begin
  select coalesce(jsonb_object_agg(m.kind, m.entries), '{}') into v_missing
  from (
    select m.kind, count(*) as entries
    from gdpr_internal.ledger_missing(p_ledger) as m
    where m.event is distinct from 'granted' and m.event is distinct from 'lifted'
    group by m.kind
  ) as m;
  v_behind := gdpr_internal.positions_beyond(p_ledger -> 0 -> 'positions', gdpr_internal.position_reached());
  if v_missing <> '{}' or v_behind <> '{}' then
    perform gdpr_internal.notice_restore(format('behind the ledger of %s', p_ledger -> 0 ->> 'taken_at'));
  end if;
  return jsonb_build_object(
    'taken_at', p_ledger -> 0 -> 'taken_at', 'digest', encode(v_digest, 'hex'), 'missing', v_missing, 'behind', v_behind,
    'whereabouts', gdpr.whereabouts()
  );
end
$function$;
comment on function gdpr.check_ledger(jsonb) is
  'Compares the database with a part of its ledger, or with a checkpoint: missing (entries by kind that are not here), behind (registers that were longer then, and by how many records). If there is anything, the database was restored from an older state, and from now on refuses to process. Errors: PR641 not a ledger of this database, PR401. Art. 32(1)(c).';

-- 60_subject_rights/84_replay.sql
-- [code] After a restore: forgetting again what the ledger says.
-- GDPR Art. 17, Art. 18, Art. 21, Art. 7(3), Art. 5(2). Called by: gdpr_dpo, gdprdb ledger replay.

set local role gdpr_owner;

create or replace function gdpr_internal.pass_positions(p_positions jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_position record;
  v_sequence text;
begin
  for v_position in select p.key, p.value::bigint as last from jsonb_each_text(p_positions) as p loop
    continue when to_regclass('gdpr_internal.' || quote_ident(v_position.key)) is null or v_position.last < 1;
    v_sequence := pg_get_serial_sequence('gdpr_internal.' || quote_ident(v_position.key), 'id');
    -- consent_request takes its numbers from the sequence of consent_record
    continue when v_sequence is null;
    -- one number is lost, and the sequence never goes back
    perform setval(v_sequence::regclass, greatest(nextval(v_sequence::regclass), v_position.last));
  end loop;
end
$function$;
comment on function gdpr_internal.pass_positions(jsonb) is
  'No number that was given before the restore is given to somebody else after it.';

create or replace function gdpr_internal.replay_holds(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_by text := format('ledger replay by %s', session_user);
  v_reason constant text := 'replayed from the ledger';
  v_holds bigint;
  v_ends bigint;
begin
  insert into gdpr_internal.hold (subject_id, table_id, row_key, columns, ground, reference, valid_until, recorded_at, recorded_by)
  select m.subject_id, m.table_id, m.digest, m.columns::name[], m.ground, v_reason, m.until, m.at, v_by
  from gdpr_internal.ledger_missing(p_ledger) as m
  where m.kind = 'hold'
  order by m.n;
  get diagnostics v_holds = row_count;
  insert into gdpr_internal.hold_end (hold_id, reason, ended_at, recorded_by)
  select h.id, v_reason, m.at, v_by
  from gdpr_internal.ledger_missing(p_ledger) as m
  join gdpr_internal.hold as h
    on h.recorded_at = m.record_at and h.ground = m.ground and h.subject_id is not distinct from m.subject_id
  where m.kind = 'hold_end'
  on conflict (hold_id) do nothing;
  get diagnostics v_ends = row_count;
  return jsonb_build_object('holds', v_holds, 'hold_ends', v_ends);
end
$function$;
comment on function gdpr_internal.replay_holds(jsonb) is 'Records holds again before anybody is erased: what they keep is kept.';

create or replace function gdpr_internal.replay_erasures(p_ledger jsonb)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_reason text := format('replayed from the ledger of %s', p_ledger -> 0 ->> 'taken_at');
  v_subjects bigint[];
  v_unknown bigint;
  v_erased bigint := 0;
begin
  -- came and went after the backup: nothing is here but the number, and it stays taken
  with gone as (
    insert into gdpr_internal.subject (id, purposes, until, created_at, erased_at)
    select m.subject_id, 1::bigint << 62, 'infinity', m.since, m.at
    from gdpr_internal.ledger_missing(p_ledger) as m
    where m.kind = 'erasure' and not exists (select from gdpr_internal.subject as s where s.id = m.subject_id)
    returning id, erased_at
  )
  insert into gdpr_internal.erasure_record (subject_id, reason, erased_at, receipt)
  select g.id, v_reason, g.erased_at, jsonb_build_object('subject', g.id, 'erased_at', g.erased_at, 'replayed', true, 'tables', jsonb_build_array())
  from gone as g;
  get diagnostics v_unknown = row_count;
  for v_subjects in
    select array_agg(m.subject_id order by m.subject_id)
    from (
      select m.subject_id, row_number() over (order by m.subject_id) as n
      from gdpr_internal.ledger_missing(p_ledger) as m
      where m.kind = 'erasure'
    ) as m
    group by m.n / 5000
  loop
    perform gdpr.erase(v_subjects, v_reason);
    v_erased := v_erased + cardinality(v_subjects);
  end loop;
  return v_unknown + v_erased;
end
$function$;
comment on function gdpr_internal.replay_erasures(jsonb) is 'Erases again who was erased; persons who are not here are recorded as erased. Returns how many.';

create or replace function gdpr_internal.replay_locks(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_by text := format('ledger replay by %s', session_user);
  v_reason constant text := 'replayed from the ledger';
  v_counts jsonb;
begin
  with missing as materialized (
    select * from gdpr_internal.ledger_missing(p_ledger)
  ),
  blocks as (
    insert into gdpr_internal.identifier as i (digest, kind, blocked_at, block_reason)
    select m.digest, m.identifier, m.at, case when m.erased then 'erased' else v_reason end
    from missing as m
    where m.kind = 'block'
    on conflict (digest) do update
    set subject_id = null, bare_digest = null, retired_at = null, blocked_at = excluded.blocked_at, block_reason = excluded.block_reason
    where i.blocked_at is null and i.retired_at is not null
    returning i.digest
  ),
  mailboxes as (
    insert into gdpr_internal.opt_out_record (mailbox, event, reason, recorded_at, recorded_by)
    select m.digest, m.event, v_reason, m.at, v_by
    from missing as m
    where m.kind = 'mailbox'
    order by m.n
    returning id
  ),
  restrictions as (
    insert into gdpr_internal.restriction_record (subject_id, ground, recorded_at, recorded_by)
    select m.subject_id, m.ground, m.at, v_by
    from missing as m
    where m.kind = 'restriction'
    order by m.n
    returning id, subject_id, ground, recorded_at
  ),
  restriction_ends as (
    insert into gdpr_internal.restriction_end (restriction_id, reason, ended_at, recorded_by)
    select r.id, v_reason, m.at, v_by
    from missing as m
    join (
      select * from restrictions
      union all
      select x.id, x.subject_id, x.ground, x.recorded_at from gdpr_internal.restriction_record as x
    ) as r on r.subject_id = m.subject_id and r.recorded_at = m.record_at and r.ground = m.ground
    where m.kind = 'restriction_end'
    on conflict (restriction_id) do nothing
    returning restriction_id
  ),
  objections as (
    insert into gdpr_internal.objection_record (subject_id, purpose_id, pending, recorded_at, recorded_by)
    select m.subject_id, m.purpose_id, coalesce(m.pending, false), m.at, v_by
    from missing as m
    where m.kind = 'objection'
    order by m.n
    returning id, subject_id, purpose_id, recorded_at
  ),
  objection_decisions as (
    insert into gdpr_internal.objection_decision (objection_id, decision, ground, decided_at, recorded_by)
    select o.id, m.event, m.ground, m.at, v_by
    from missing as m
    join (
      select * from objections
      union all
      select x.id, x.subject_id, x.purpose_id, x.recorded_at from gdpr_internal.objection_record as x
    ) as o on o.subject_id = m.subject_id and o.purpose_id = m.purpose_id and o.recorded_at = m.record_at
    where m.kind = 'objection_decision'
    order by m.n
    returning id
  ),
  consents as (
    insert into gdpr_internal.consent_record (subject_id, purpose_id, event, channel, recorded_at, recorded_by)
    select m.subject_id, m.purpose_id, m.event, m.channel, m.at, v_by
    from missing as m
    where m.kind = 'consent' and m.event <> 'granted'
    order by m.n
    returning id
  ),
  basis_ends as (
    insert into gdpr_internal.basis_end (basis_id, reason, ended_at, recorded_by)
    select b.id, v_reason, m.at, v_by
    from missing as m
    join gdpr_internal.basis_record as b
      on b.subject_id = m.subject_id and b.purpose_id = m.purpose_id and b.basis = m.basis and b.recorded_at = m.record_at
    where m.kind = 'basis_end'
    on conflict (basis_id) do nothing
    returning basis_id
  )
  select jsonb_build_object(
    'blocks', (select count(*) from blocks),
    'mailboxes', (select count(*) from mailboxes),
    'restrictions', (select count(*) from restrictions),
    'restriction_ends', (select count(*) from restriction_ends),
    'objections', (select count(*) from objections),
    'objection_decisions', (select count(*) from objection_decisions),
    'consents', (select count(*) from consents),
    'basis_ends', (select count(*) from basis_ends)
  )
  into v_counts;
  return v_counts;
end
$function$;
comment on function gdpr_internal.replay_locks(jsonb) is
  'Records again what locks, at its own time, by "ledger replay". A digest that belongs to a person here is not blocked. Returns how many of each.';

create or replace function gdpr_internal.replay_rectifications(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_records bigint[];
  v_record bigint;
  v_refused bigint[] := '{}';
begin
  with recorded as (
    insert into gdpr_internal.rectification_record (subject_id, content, columns, reason, recorded_at, recorded_by)
    select m.subject_id, m.content, m.columns, 'replayed from the ledger', m.at, format('ledger replay by %s', session_user)
    from gdpr_internal.ledger_missing(p_ledger) as m
    where m.kind = 'rectification'
    order by m.n
    returning id
  )
  select coalesce(array_agg(r.id order by r.id), '{}') into v_records from recorded as r;
  begin
    perform gdpr_internal.apply_rectifications(v_records);
  exception when integrity_constraint_violation or sqlstate 'PR630' then
    -- one value that a table does not take any more must not keep all others from being forgotten
    foreach v_record in array v_records loop
      begin
        perform gdpr_internal.apply_rectifications(array[v_record]);
      exception when integrity_constraint_violation or sqlstate 'PR630' then
        v_refused := v_refused || v_record;
      end;
    end loop;
  end;
  return jsonb_build_object('rectifications', cardinality(v_records), 'rectifications_refused', v_refused);
end
$function$;
comment on function gdpr_internal.replay_rectifications(jsonb) is
  'Records rectifications again and carries them out. rectifications_refused: records whose values a table does not take any more; an officer has to look at them (gdpr.rectification_log).';

create or replace function gdpr.replay(p_ledger jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set quote_all_identifiers = off
as $function$
declare
  v_digest bytea;
  v_header jsonb := p_ledger -> 0;
  v_more boolean := p_ledger -> -1 -> 'seal' -> 'more' = 'true';
  v_last gdpr_internal.replay_record;
  v_before jsonb;
  v_reused text;
  v_subjects bigint[];
  v_result jsonb;
  v_id bigint;
begin
  perform gdpr_internal.require_read_committed();
  v_digest := gdpr_internal.open_ledger(p_ledger);
  perform pg_advisory_xact_lock(hashtextextended('gdpr.home', 0));
  select * into v_last from gdpr_internal.replay_record as r order by r.id desc limit 1;
  if v_header ? 'previous' and v_header ->> 'previous' is distinct from encode(v_last.digest, 'hex') then
    perform gdpr_internal.refuse('ledger_refused', format('part %s comes after part %s', v_header ->> 'part', (v_header ->> 'part')::integer - 1));
  end if;
  v_before := case when v_header ? 'previous' then v_last.before else gdpr_internal.position_reached() end;
  if not v_header ? 'previous' and (v_header ->> 'since')::timestamptz > (
    select coalesce(case when h.event = 'noticed' then h.data_until end, (select max(a.at) from gdpr_internal.audit_record as a), '-infinity')
    from (select max(x.id) as id from gdpr_internal.home_record as x) as last
    left join gdpr_internal.home_record as h on h.id = last.id
  ) then
    perform gdpr_internal.refuse('ledger_refused', 'it begins after the time that this database was restored to');
  end if;
  select string_agg(distinct s.id::text, ', ') into v_reused
  from jsonb_to_recordset(p_ledger) as e (subject bigint, since timestamptz)
  join gdpr_internal.subject as s on s.id = e.subject and s.created_at <> e.since;
  if v_reused is not null then
    perform gdpr_internal.refuse('ledger_refused', format('numbers of the ledger were given to other persons after the restore: %s', left(v_reused, 200)));
  end if;

  -- before anything is recorded, as whoever locks data does; what comes at the same time waits
  select array_agg(s.id order by s.id) into v_subjects
  from (
    select s.id from gdpr_internal.subject as s
    join (select distinct e.subject from jsonb_to_recordset(p_ledger) as e (subject bigint)) as e on e.subject = s.id
    order by s.id
    for no key update of s
  ) as s;
  v_result := gdpr_internal.replay_holds(p_ledger);
  v_result := v_result || jsonb_build_object('erasures', gdpr_internal.replay_erasures(p_ledger));
  v_result := v_result || gdpr_internal.replay_rectifications(p_ledger) || gdpr_internal.replay_locks(p_ledger);
  select array_agg(s.id) into v_subjects
  from gdpr_internal.subject as s
  where s.id = any (v_subjects) and s.erased_at is null;
  perform gdpr_internal.refresh_gate(coalesce(v_subjects, '{}'));
  perform gdpr_internal.close_questions(coalesce(v_subjects, '{}'));
  -- a backup of the keys that is older than the data brings back those of the erased
  perform gdpr_internal.destroy_keys(array(
    select s.id from gdpr_internal.subject as s
    where s.erased_at is not null and not exists (select from gdpr_internal.erasure_remainder as r where r.subject_id = s.id)
  ));
  perform gdpr_internal.pass_positions(v_header -> 'positions');
  v_result := v_result || jsonb_build_object(
    'granted_again', (
      select coalesce(jsonb_agg(jsonb_build_object('subject', m.subject_id, 'purpose', p.name, 'at', m.at) order by m.n), '[]')
      from gdpr_internal.ledger_missing(p_ledger) as m
      join gdpr_internal.purpose as p on p.id = m.purpose_id
      where m.event = 'granted'
    ),
    'unknown_purposes', (
      select coalesce(jsonb_agg(distinct e.purpose), '[]')
      from jsonb_to_recordset(p_ledger) as e (purpose text)
      where e.purpose is not null and not exists (select from gdpr_internal.purpose as p where p.name = e.purpose)
    ),
    'unknown_tables', (
      select coalesce(jsonb_agg(distinct e.table_name), '[]')
      from jsonb_to_recordset(p_ledger) as e (table_id smallint, table_name text)
      where e.table_name is not null and not exists (
        select from gdpr_internal.protected_table as t
        where t.id = e.table_id and t.relation::text = e.table_name and t.unprotected_at is null
      )
    ),
    'lost', gdpr_internal.positions_beyond(v_header -> 'positions', v_before)
  );
  insert into gdpr_internal.replay_record (digest, part, taken_at, positions, before, result, actor)
  values (
    v_digest, (v_header ->> 'part')::integer, (v_header ->> 'taken_at')::timestamptz, v_header -> 'positions', v_before, v_result,
    gdpr_internal.context_setting('actor')
  )
  returning id into v_id;
  perform gdpr_internal.audit_event('REPLAY', null, jsonb_build_object('replay_id', v_id) || v_result);
  if not v_more and gdpr.whereabouts() <> 'home' then
    perform gdpr_internal.record_home('replayed', format('ledger of %s', v_header ->> 'taken_at'));
  end if;
  return v_result;
end
$function$;
comment on function gdpr.replay(jsonb) is
  'Forgets again what a restore brought back, from the lines of one part of gdpr.ledger() as a list: erasures, blocked identifiers, opt-outs, restrictions and their ends, objections and decisions about them, holds and their ends, consents declined and withdrawn, bases that ended, rectifications. Records keep their own time and say that they were replayed; what is here already is left alone. After the last part processing goes on. Returns how many of each were brought back, and what was not: granted_again (consents given after a no: ask again), rectifications_refused (records whose values no table takes any more), lost (records of each register made after the backup), unknown_purposes and unknown_tables (apply the policy in force, and replay again). Errors: PR641 not a ledger of this database, changed, a part left out, begun too late, or numbers given to others since; PR401, PR402, PR005. Art. 17, Art. 5(2).';

create or replace view gdpr.replay_log as
select r.id, r.taken_at, r.part, r.result, r.recorded_at, r.recorded_by, r.actor
from gdpr_internal.replay_record as r;
comment on view gdpr.replay_log is 'Ledgers that were replayed after a restore, and what came of it. Art. 5(2).';

create or replace view gdpr.home as
select h.id, h.event, h.reason, h.data_until, h.recorded_at, h.recorded_by
from gdpr_internal.home_record as h;
comment on view gdpr.home is
  'Where this database was at home: installed, noticed (found restored, to the time data_until), replayed, accepted. The last row counts. Art. 5(2).';

-- 70_sharing/10_redacted_views.sql
-- [code] Redacted views: one schema for each audience, no decryption on the way.
-- GDPR Art. 5(1)(c), Art. 25. Column classes decide; what the policy does not name is hidden.

set local role gdpr_keyholder;

create or replace function gdpr_internal.redacted_columns(p_table smallint)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select string_agg(
      case
        when f.column_name is null then format('  null::%s as %I', format_type(a.atttypid, a.atttypmod), a.attname)
        when f.masked then format('  t.%I as %I', 'gdpr_' || a.attname || '_mask', a.attname)
        else format('  %s as %I', gdpr_internal.mask_expression(f.mask, format('t.%I', a.attname), f.type), a.attname)
      end, E',\n' order by a.attnum
    )
    from pg_attribute as a
    left join gdpr_internal.column_facts(p_table) as f on f.column_name = a.attname
    where a.attrelid = (select t.relation from gdpr_internal.protected_table as t where t.id = p_table) and a.attnum > 0
      and not a.attisdropped and not gdpr_internal.is_control_column(p_table, a.attname)
  );
end
$function$;
comment on function gdpr_internal.redacted_columns(smallint) is
  'The columns of a table as redacted views show them, as the select list of a query over the table as t: the same names and types, masked, or NULL.';

set local role gdpr_viewer;

create or replace function gdpr_generated.generate_redacted_view(p_table smallint, p_audience name)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_schema name := 'gdpr_' || p_audience;
  v_columns text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  v_columns := gdpr_internal.redacted_columns(p_table);
  perform gdpr_generated.drop_redacted_view(p_table, p_audience);
  execute format(
    E'create view %I.%I with (security_barrier) as\nselect\n  t.gdpr_subject_ref as subject_ref,\n%s\nfrom %s as t',
    v_schema, v_table.view_name, v_columns, v_table.relation
  );
  execute format(
    'comment on view %I.%I is %L', v_schema, v_table.view_name,
    format('%s as audience %s may see it; subject_ref is a stable pseudonym of the person. Generated by gdpr.apply().', v_table.relation, p_audience)
  );
  execute format('grant select on %I.%I to %I', v_schema, v_table.view_name, 'gdpr_' || p_audience);
end
$function$;
comment on function gdpr_generated.generate_redacted_view(smallint, name) is
  'Generates gdpr_<audience>.<table>: same names, order and types as the table, subject_ref in front, masks as inline expressions or stored values.';

create or replace function gdpr_generated.drop_redacted_view(p_table smallint, p_audience name)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_view text := (
    select format('%I.%I', 'gdpr_' || p_audience, t.view_name) from gdpr_internal.protected_table as t where t.id = p_table
  );
begin
  if to_regclass(v_view) is not null then
    execute format('drop view %s', v_view);
  end if;
end
$function$;
comment on function gdpr_generated.drop_redacted_view(smallint, name) is 'Drops a redacted view.';

-- 70_sharing/20_transfers.sql
-- [code] Where data may go: the EEA, countries with an adequacy decision, and what a transfer elsewhere rests on.
-- GDPR Art. 44 to 49. Called by: gdpr.record_recipient(), disclosures, the doctor. The operator keeps the list up to date in the policy:
-- decisions are taken, annulled and run out between two releases.

set local role gdpr_owner;

create or replace function gdpr_internal.safeguards()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'adequacy', 'standard_clauses', 'binding_rules', 'code_of_conduct', 'certification', 'public_instrument', 'authorised_clauses', 'derogation'
  ];
end;
comment on function gdpr_internal.safeguards() is
  'What a transfer to a third country can rest on: adequacy (Art. 45, a decision limited in scope that covers the recipient), Art. 46(2) (c) standard_clauses, (b) binding_rules, (e) code_of_conduct, (f) certification, (a) public_instrument, 46(3)(a) authorised_clauses, and derogation (Art. 49).';

create or replace function gdpr_internal.derogations()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'explicit_consent', 'contract', 'contract_in_interest', 'public_interest', 'legal_claims', 'vital_interests', 'public_register',
    'compelling_interests'
  ];
end;
comment on function gdpr_internal.derogations() is 'The grounds of Art. 49(1), (a) to (g) and its second subparagraph.';

create or replace view gdpr.adequacy as
with shipped (country, scope, valid_from, valid_until, source) as (
  select m.country, null, null::date, null::date, 'EEA'
  from unnest(string_to_array(
    'AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK', ' '
  )) as m (country)
  union all
  values
    ('AD', null, date '2010-10-19', null::date, '2010/625/EU'),
    ('AR', null, date '2003-06-30', null, '2003/490/EC'),
    ('BR', null, date '2026-01-26', null, '(EU) 2026/179'),
    ('CA', 'commercial organisations (PIPEDA)', date '2001-12-20', null, '2002/2/EC'),
    ('CH', null, date '2000-07-26', null, '2000/518/EC'),
    ('FO', null, date '2010-03-05', null, '2010/146/EU'),
    ('GB', null, date '2021-06-28', date '2031-12-27', '(EU) 2021/1772, as extended in December 2025'),
    ('GG', null, date '2003-11-21', null, '2003/821/EC'),
    ('IL', null, date '2011-01-31', null, '2011/61/EU'),
    ('IM', null, date '2004-04-28', null, '2004/411/EC'),
    ('JE', null, date '2008-05-08', null, '2008/393/EC'),
    ('JP', null, date '2019-01-23', null, '(EU) 2019/419'),
    ('KR', null, date '2021-12-17', null, '(EU) 2022/254'),
    ('NZ', null, date '2012-12-19', null, '2013/65/EU'),
    ('US', 'organisations certified under the EU-US Data Privacy Framework', date '2023-07-10', null, '(EU) 2023/1795'),
    ('UY', null, date '2012-08-21', null, '2012/484/EU')
),
own as (
  select e.value ->> 'country' as country, e.value ->> 'scope' as scope, (e.value ->> 'from')::date as valid_from,
    (e.value ->> 'until')::date as valid_until, e.value ->> 'source' as source
  from gdpr_internal.setting as s
  cross join lateral jsonb_array_elements(s.value) as e
  where s.name = 'adequacy'
)
select s.country, s.scope, s.valid_from, s.valid_until, s.source from shipped as s
where not exists (select from own as o where o.country = s.country)
union all
select o.country, o.scope, o.valid_from, o.valid_until, o.source from own as o;
comment on view gdpr.adequacy is
  'Countries where personal data may go without a safeguard: the EEA, and those of an adequacy decision (Art. 45) from its day to its last. scope: it covers only such recipients. State of the list: November 2026; entries of settings.adequacy in the policy replace those of the same country. valid_until in the past ends one.';

create or replace function gdpr_internal.transfer_problem(p_recipient gdpr_internal.recipient_record)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_parent gdpr_internal.recipient_record;
  v_problem text;
begin
  if p_recipient.valid_until <= statement_timestamp() then
    return 'its entry in the register has ended';
  end if;
  if p_recipient.parent_id is not null then
    select r.* into v_parent from gdpr_internal.recipient_record as r
    where r.recipient_id = p_recipient.parent_id order by r.id desc limit 1;
    v_problem := gdpr_internal.transfer_problem(v_parent);
    if v_problem is not null then
      return format('%s, for which it works: %s', v_parent.name, v_problem);
    end if;
  end if;
  if exists (
    select from gdpr.adequacy as a
    where a.country = p_recipient.country and a.scope is null and gdpr_internal.adequate_now(a.valid_from, a.valid_until)
  ) then
    return null;
  end if;
  return case
    when p_recipient.safeguard is null then format('a transfer to %s needs a safeguard', p_recipient.country)
    when p_recipient.safeguard_until <= statement_timestamp() then 'the safeguard of the transfer has ended'
    when p_recipient.safeguard = 'adequacy' and not exists (
      select from gdpr.adequacy as a
      where a.country = p_recipient.country and gdpr_internal.adequate_now(a.valid_from, a.valid_until)
    ) then format('no adequacy decision for %s is in force', p_recipient.country)
  end;
end
$function$;
comment on function gdpr_internal.transfer_problem(gdpr_internal.recipient_record) is
  'Why nothing may be disclosed to a recipient at this statement, or null: it has ended, or its transfer, or that of the processor it works for, rests on nothing. Art. 44.';

create or replace function gdpr_internal.adequate_now(p_from date, p_until date)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select (statement_timestamp() at time zone gdpr_internal.time_zone())::date
    between coalesce(p_from, '-infinity') and coalesce(p_until, 'infinity');
end;
comment on function gdpr_internal.adequate_now(date, date) is 'Whether a decision with these days is in force today, in the time zone of the policy.';

-- 70_sharing/30_recipients.sql
-- [code] The register of recipients.
-- GDPR Art. 13(1)(e), 26, 28, 30(1)(d), 44 to 49. Called by: gdpr_dpo; read by disclosures, exports and access reports.

set local role gdpr_owner;

create or replace view gdpr_internal.recipient_now as
select distinct on (r.recipient_id) r.*
from gdpr_internal.recipient_record as r
order by r.recipient_id, r.id desc;
comment on view gdpr_internal.recipient_now is 'The version of each recipient that holds.';

create or replace function gdpr_internal.check_recipient(p_recipient gdpr_internal.recipient_record)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_problem text;
begin
  v_problem := case
    when coalesce(p_recipient.name, '') = '' then 'a recipient has a name'
    when p_recipient.role is null or p_recipient.role <> all (array['controller', 'joint_controller', 'processor', 'sub_processor', 'authority'])
      then 'role is one of controller, joint_controller, processor, sub_processor, authority'
    when p_recipient.country is null or p_recipient.country <> all (gdpr_internal.countries())
      then 'country is two capital letters of ISO 3166-1, as GB'
    when p_recipient.safeguard <> all (gdpr_internal.safeguards())
      then format('safeguard is one of %s', array_to_string(gdpr_internal.safeguards(), ', '))
    when p_recipient.safeguard = 'derogation' and (p_recipient.ground is null or p_recipient.ground <> all (gdpr_internal.derogations()))
      then format('a derogation has a ground: %s', array_to_string(gdpr_internal.derogations(), ', '))
    when p_recipient.safeguard = 'adequacy' and p_recipient.safeguard_reference is null
      then 'a decision limited in scope needs a reference that shows that the recipient is covered'
    when p_recipient.ground is not null and p_recipient.safeguard is distinct from 'derogation' then 'a ground is for a derogation'
    when p_recipient.role in ('joint_controller', 'processor', 'sub_processor') and p_recipient.contract is null
      then 'joint controllers and processors work under a contract (Art. 26, 28): name it'
    when (p_recipient.role = 'sub_processor') <> (p_recipient.parent_id is not null)
      then 'a sub-processor, and nobody else, works for a registered processor'
    when p_recipient.address is not null and not gdpr_internal.is_address(p_recipient.address) then 'address is a mail address, of the organisation and not of a person'
    when p_recipient.language !~ '^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$' then 'language is a tag such as de or pt-BR'
  end;
  if v_problem is not null then
    perform gdpr_internal.refuse('invalid_argument', v_problem);
  end if;
end
$function$;
comment on function gdpr_internal.check_recipient(gdpr_internal.recipient_record) is 'Refuses an entry of the register that is none. Error: PR004.';

create or replace function gdpr.record_recipient(
  p_name text,
  p_role text,
  p_country text,
  p_safeguard text default null,
  p_contract text default null,
  p_address text default null,
  p_parent text default null,
  p_valid_until timestamptz default null,
  p_ground text default null,
  p_safeguard_reference text default null,
  p_safeguard_until timestamptz default null,
  p_language text default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_new gdpr_internal.recipient_record;
  v_ancestor bigint;
  v_problem text;
begin
  -- two who register the same name at once make one recipient
  perform pg_advisory_xact_lock(hashtextextended('gdpr.recipient', 0));
  v_new.name := p_name;
  v_new.role := p_role;
  v_new.country := p_country;
  v_new.safeguard := p_safeguard;
  v_new.ground := p_ground;
  v_new.safeguard_reference := p_safeguard_reference;
  v_new.safeguard_until := p_safeguard_until;
  v_new.contract := p_contract;
  v_new.address := p_address;
  v_new.language := p_language;
  v_new.valid_until := coalesce(p_valid_until, 'infinity');
  select r.recipient_id into v_new.recipient_id from gdpr_internal.recipient_now as r where r.name = p_name;
  select r.recipient_id into v_new.parent_id
  from gdpr_internal.recipient_now as r
  where r.name = p_parent and r.role in ('processor', 'sub_processor');
  perform gdpr_internal.check_recipient(v_new);
  v_ancestor := v_new.parent_id;
  while v_ancestor is not null loop
    if v_ancestor = v_new.recipient_id then
      perform gdpr_internal.refuse('invalid_argument', 'a processor cannot work for itself');
    end if;
    select r.parent_id into v_ancestor from gdpr_internal.recipient_now as r where r.recipient_id = v_ancestor;
  end loop;
  -- an entry that ends here and now needs no safeguard any more
  v_problem := case when v_new.valid_until > statement_timestamp() then gdpr_internal.transfer_problem(v_new) end;
  if v_problem is not null then
    perform gdpr_internal.refuse('transfer_refused', v_problem);
  end if;
  insert into gdpr_internal.recipient_record (
    recipient_id, name, role, country, safeguard, ground, safeguard_reference, safeguard_until, contract, address, language, parent_id, valid_until
  )
  values (
    coalesce(v_new.recipient_id, (select coalesce(max(r.recipient_id), 0) + 1 from gdpr_internal.recipient_record as r)),
    v_new.name, v_new.role, v_new.country, v_new.safeguard, v_new.ground, v_new.safeguard_reference, v_new.safeguard_until, v_new.contract,
    v_new.address, v_new.language, v_new.parent_id, v_new.valid_until
  )
  returning recipient_id into v_new.recipient_id;
  perform gdpr_internal.audit_event('RECIPIENT', null, jsonb_build_object('recipient', v_new.recipient_id, 'name', p_name, 'role', p_role, 'country', p_country));
  return v_new.recipient_id;
end
$function$;
comment on function gdpr.record_recipient(text, text, text, text, text, text, text, timestamptz, text, text, timestamptz, text) is
  'Registers a recipient, or a new version of the one of this name; returns its number. p_role: controller, joint_controller, processor, sub_processor, authority. p_country: where the data go, ISO 3166-1 (alpha-2). p_safeguard: what a transfer rests on where neither the EEA nor an adequacy decision covers the country (gdpr.adequacy): standard_clauses, binding_rules, code_of_conduct, certification, public_instrument, authorised_clauses, derogation (with p_ground, of Art. 49(1)), or adequacy where the decision is limited in scope (with p_safeguard_reference that shows that the recipient is covered). p_contract: needed for joint controllers and processors. p_address: a mailbox of the organisation, where notices go (in p_language). p_parent: the processor that a sub-processor works for. p_valid_until: nothing is disclosed from then on; now or earlier ends the entry. Errors: PR004, PR701 transfer without a safeguard. Art. 28, 30(1)(d), 44.';

create or replace function gdpr.end_recipient(p_name text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_last gdpr_internal.recipient_record;
begin
  select * into v_last from gdpr_internal.recipient_now as r where r.name = p_name;
  if v_last.id is null then
    perform gdpr_internal.refuse('unknown_recipient');
  end if;
  perform gdpr.record_recipient(
    v_last.name, v_last.role, v_last.country, v_last.safeguard, v_last.contract, v_last.address,
    (select p.name from gdpr_internal.recipient_now as p where p.recipient_id = v_last.parent_id), statement_timestamp(), v_last.ground,
    v_last.safeguard_reference, v_last.safeguard_until, v_last.language
  );
end
$function$;
comment on function gdpr.end_recipient(text) is
  'Ends the entry of a recipient: nothing may be disclosed to it from now on. It still gets notices about what it has. Error: PR702.';

create or replace function gdpr_internal.require_recipient(p_name text)
returns gdpr_internal.recipient_record
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_recipient gdpr_internal.recipient_record;
  v_problem text;
begin
  select * into v_recipient from gdpr_internal.recipient_now as r where r.name = p_name;
  if v_recipient.id is null then
    perform gdpr_internal.refuse('unknown_recipient');
  end if;
  v_problem := gdpr_internal.transfer_problem(v_recipient);
  if v_problem is not null then
    perform gdpr_internal.refuse('transfer_refused', v_problem);
  end if;
  return v_recipient;
end
$function$;
comment on function gdpr_internal.require_recipient(text) is
  'The recipient of this name, to whom something may be disclosed now. Errors: PR702 unknown, PR701 it has ended, or its transfer rests on nothing.';

create or replace view gdpr.recipient as
select
  r.recipient_id,
  r.name,
  r.role,
  r.country,
  coalesce((
    select case when a.source = 'EEA' then 'EEA' else 'adequacy' end
    from gdpr.adequacy as a
    where a.country = r.country and a.scope is null and gdpr_internal.adequate_now(a.valid_from, a.valid_until)
    limit 1
  ), r.safeguard) as transfer,
  r.safeguard,
  r.ground,
  r.safeguard_reference,
  r.safeguard_until,
  r.contract,
  r.address,
  r.language,
  p.name as works_for,
  r.valid_until,
  gdpr_internal.transfer_problem(t) as problem,
  (select count(*) from gdpr_internal.recipient_record as v where v.recipient_id = r.recipient_id) as versions,
  r.recorded_at,
  r.recorded_by
from gdpr_internal.recipient_now as r
join gdpr_internal.recipient_record as t on t.id = r.id
left join gdpr_internal.recipient_now as p on p.recipient_id = r.parent_id;
comment on view gdpr.recipient is
  'Recipients of personal data as registered last. transfer: what the data may go there on (EEA, adequacy, a safeguard). problem: why nothing may be disclosed to it now. Art. 30(1)(d), (e).';

create or replace view gdpr.recipient_history as
select
  r.id, r.recipient_id, r.name, r.role, r.country, r.safeguard, r.ground, r.safeguard_reference, r.safeguard_until, r.contract, r.address,
  r.language, r.parent_id, r.valid_until, r.recorded_at, r.recorded_by
from gdpr_internal.recipient_record as r;
comment on view gdpr.recipient_history is 'All versions of the recipients, oldest first by id: who changed what about them, when. Art. 5(2).';

-- 70_sharing/40_disclosures.sql
-- [code] Disclosures: who was told what about whom, recorded in sets, and only of persons who may be shared.
-- GDPR Art. 5(1)(b), 5(2), 6, 15(1)(c), 18(2), 19. Called by: gdpr_dpo, roles with may = ["disclose"], gdpr.export_rows().

set local role gdpr_owner;

create or replace function gdpr_internal.sharable(p_subjects bigint[], p_mask bigint)
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_allowed bigint[];
begin
  -- a withdrawal or an erasure and this meet on the person's row: whoever comes second sees the other
  perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for share;
  select coalesce(array_agg(s.id order by s.id), '{}') into v_allowed
  from gdpr_internal.subject as s
  where s.id = any (p_subjects)
    and s.erased_at is null
    and s.purposes & p_mask <> 0
    and (s.until > statement_timestamp() or gdpr_internal.still_allowed(s.id, p_mask));
  return v_allowed;
end
$function$;
comment on function gdpr_internal.sharable(bigint[], bigint) is
  'Those of the persons who may be processed for the purpose of p_mask at this statement, each once, locked against a change until the end of the transaction.';

create or replace function gdpr_internal.disclosing_purpose(p_purpose text)
returns smallint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_role name := gdpr_internal.acting_role();
  v_purpose smallint;
begin
  v_purpose := gdpr_internal.purpose_id(p_purpose);
  if v_purpose >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  elsif not pg_has_role(v_role, 'gdpr_dpo', 'usage') and not exists (
    select from gdpr_internal.role_purpose as rp
    where rp.purpose_id = v_purpose and pg_has_role(v_role, to_regrole(quote_ident(rp.role_name))::oid, 'usage')
  ) then
    perform gdpr_internal.refuse('purpose_not_held', format('role %s', quote_ident(v_role)));
  end if;
  return v_purpose;
end
$function$;
comment on function gdpr_internal.disclosing_purpose(text) is
  'The number of a purpose for which the session''s role may disclose: one of its own; officers, any. Errors: PR003, PR204 built in, 42501.';

create or replace function gdpr_internal.put_disclosure(
  p_disclosure gdpr_internal.disclosure_record, p_subjects bigint[], p_references text[] default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_id bigint;
begin
  insert into gdpr_internal.disclosure_record (recipient_id, purpose_id, audience, table_id, columns, categories, reason, persons, disclosed_at)
  values (
    p_disclosure.recipient_id, p_disclosure.purpose_id, p_disclosure.audience, p_disclosure.table_id, p_disclosure.columns,
    p_disclosure.categories, p_disclosure.reason, cardinality(p_subjects), coalesce(p_disclosure.disclosed_at, statement_timestamp())
  )
  returning id into v_id;
  insert into gdpr_internal.disclosure_person (subject_id, disclosure_id, reference)
  select s.id, v_id, case when s.reference is not null then gdpr_internal.seal_evidence(s.id, s.reference) end
  from unnest(p_subjects, p_references) as s (id, reference);
  perform gdpr_internal.audit_event('DISCLOSE', null, jsonb_build_object(
    'disclosure', v_id, 'recipient', p_disclosure.recipient_id, 'persons', cardinality(p_subjects)
  ));
  return v_id;
end
$function$;
comment on function gdpr_internal.put_disclosure(gdpr_internal.disclosure_record, bigint[], text[]) is
  'Records a disclosure of these persons, each named once, and returns its number.';

create or replace function gdpr_internal.check_columns(p_table regclass, p_columns text[], p_categories text[], out columns name[], out categories text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint;
begin
  if p_table is null then
    if p_columns is not null then
      perform gdpr_internal.refuse('invalid_argument', 'columns are those of p_table');
    end if;
    categories := p_categories;
  else
    v_table := gdpr_internal.table_id(p_table);
    columns := p_columns::name[];
    if exists (
      select from unnest(p_columns) as c (name)
      where not exists (
        select from pg_attribute as a where a.attrelid = p_table and a.attname = c.name and a.attnum > 0 and not a.attisdropped
      )
    ) then
      perform gdpr_internal.refuse('invalid_argument', 'the table has no such column');
    end if;
    select coalesce(p_categories, array_agg(distinct c.category order by c.category)) into categories
    from gdpr_internal.protected_column as c
    where c.table_id = v_table and (p_columns is null or c.column_name = any (p_columns));
  end if;
  if columns is null and categories is null then
    perform gdpr_internal.refuse('invalid_argument', 'say what was disclosed: categories, or a table and its columns');
  end if;
end
$function$;
comment on function gdpr_internal.check_columns(regclass, text[], text[]) is
  'What was disclosed: columns that the table has, and their categories as the policy classifies them. Errors: PR002, PR004.';

create or replace function gdpr.record_disclosure(
  p_recipient text,
  p_subjects bigint[],
  p_purpose text,
  p_table regclass default null,
  p_columns text[] default null,
  p_categories text[] default null,
  p_reason text default null,
  p_locked text default 'refuse',
  p_references text[] default null,
  p_disclosed_at timestamptz default null
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_new gdpr_internal.disclosure_record;
  v_what record;
  v_persons bigint[];
  v_references text[];
  v_asked bigint;
  v_id bigint;
begin
  if p_locked is null or p_locked not in ('refuse', 'leave_out') then
    perform gdpr_internal.refuse('invalid_argument', 'locked is refuse or leave_out');
  elsif p_subjects is null or cardinality(p_references) <> cardinality(p_subjects) then
    perform gdpr_internal.refuse('invalid_argument', 'the persons are needed, and as many references where there are some');
  elsif p_disclosed_at > statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'a disclosure is recorded when it is made, or afterwards');
  end if;
  v_new.purpose_id := gdpr_internal.disclosing_purpose(p_purpose);
  v_what := gdpr_internal.check_columns(p_table, p_columns, p_categories);
  v_new.columns := v_what.columns;
  v_new.categories := v_what.categories;
  v_new.table_id := (select t.id from gdpr_internal.protected_table as t where t.relation = p_table and t.unprotected_at is null);
  v_new.reason := p_reason;
  v_new.disclosed_at := p_disclosed_at;
  v_asked := (select count(distinct s.id) from unnest(p_subjects) as s (id));
  if p_disclosed_at < statement_timestamp() then
    -- it has happened: whether it should have, the record does not change
    select r.recipient_id into v_new.recipient_id from gdpr_internal.recipient_now as r where r.name = p_recipient;
    if v_new.recipient_id is null then
      perform gdpr_internal.refuse('unknown_recipient');
    end if;
    perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for share;
    select coalesce(array_agg(s.id), '{}') into v_persons
    from gdpr_internal.subject as s
    where s.id = any (p_subjects) and s.erased_at is null;
  else
    v_new.recipient_id := (gdpr_internal.require_recipient(p_recipient)).recipient_id;
    v_persons := gdpr_internal.sharable(p_subjects, 1::bigint << v_new.purpose_id);
  end if;
  if cardinality(v_persons) < v_asked and p_locked = 'refuse' then
    perform gdpr_internal.refuse('not_sharable', format('%s of %s', v_asked - cardinality(v_persons), v_asked));
  end if;
  if cardinality(v_persons) > 0 then
    if p_references is not null then
      select array_agg(r.reference order by r.n) into v_references
      from (
        select max(a.reference) as reference, v.n
        from unnest(p_subjects, p_references) as a (id, reference)
        join unnest(v_persons) with ordinality as v (id, n) on v.id = a.id
        group by v.n
      ) as r;
    end if;
    v_id := gdpr_internal.put_disclosure(v_new, v_persons, v_references);
  end if;
  return jsonb_strip_nulls(jsonb_build_object('disclosure', v_id, 'persons', cardinality(v_persons), 'left_out', v_asked - cardinality(v_persons)));
end
$function$;
comment on function gdpr.record_disclosure(text, bigint[], text, regclass, text[], text[], text, text, text[], timestamptz) is
  'Records that data of persons go to a recipient; before they do. p_subjects: as gdpr.subjects_of() finds them by rows. p_purpose: one for which each of them may be processed now. What: p_table with p_columns (null: all; their categories follow), or p_categories. p_locked: refuse all when a person may not be shared (erased, restricted, no basis), or leave_out those. p_references: what the recipient knows each person by (a customer number), kept as ciphertext; else it is the subject_ref of redacted views. p_disclosed_at: of a disclosure that was made earlier, of persons who may be locked by now. p_reason must not hold personal data. Returns {"disclosure", "persons", "left_out"}. For gdpr_dpo and roles with may = ["disclose"]. Errors: PR701, PR702, PR703, PR003, PR004, 42501. Art. 5(2), 15(1)(c), 19.';

create or replace view gdpr.disclosure as
select
  d.id as disclosure_id,
  r.name as recipient,
  p.name as purpose,
  d.audience,
  t.relation as table_name,
  d.columns,
  d.categories,
  d.persons,
  d.reason,
  d.disclosed_at,
  d.recorded_at,
  d.recorded_by
from gdpr_internal.disclosure_record as d
join gdpr_internal.recipient_now as r on r.recipient_id = d.recipient_id
join gdpr_internal.purpose as p on p.id = d.purpose_id
left join gdpr_internal.protected_table as t on t.id = d.table_id;
comment on view gdpr.disclosure is
  'Disclosures: to whom, for what purpose, which data of how many persons, when. audience: recorded by an export itself. Of one person: gdpr.recipients_of(). Art. 5(2), 30(1)(d).';

create or replace function gdpr.recipients_of(p_subject bigint)
returns table (
  recipient text, role text, country text, transfer text, purposes text[], categories text[], disclosures bigint,
  first_disclosed_at timestamptz, last_disclosed_at timestamptz
)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query
  select
    r.name, r.role, r.country, r.transfer, array_agg(distinct p.name order by p.name),
    array_agg(distinct c.category order by c.category) filter (where c.category is not null),
    count(distinct d.id), min(d.disclosed_at), max(d.disclosed_at)
  from gdpr_internal.disclosure_person as x
  join gdpr_internal.disclosure_record as d on d.id = x.disclosure_id
  join gdpr.recipient as r on r.recipient_id = d.recipient_id
  join gdpr_internal.purpose as p on p.id = d.purpose_id
  left join lateral unnest(d.categories) as c (category) on true
  where x.subject_id = p_subject
  group by r.name, r.role, r.country, r.transfer
  order by r.name;
end
$function$;
comment on function gdpr.recipients_of(bigint) is
  'The recipients to whom data of a person were disclosed: who they are, where, on what a transfer rests, for which purposes, which categories of data, how often and when. Art. 15(1)(c), 15(2), 19.';

-- 70_sharing/50_notices.sql
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

-- 70_sharing/60_generate_export.sql
-- [code] The generator of the functions by which rows of a table leave as redacted views show them.
-- GDPR Art. 5(1)(c), 5(2). They belong to gdpr_worker, as all that reads rows for somebody else; who may be shared, gdpr_owner decides in between.

set local role gdpr_worker;

create or replace function gdpr_generated.generate_export(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns bigint[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
declare
  v_subjects bigint[];
begin
  select array_agg(distinct t.gdpr_subject_id) into v_subjects from %2$s as t where t.gdpr_subject_id is not null;
  set constraints all immediate;
  return v_subjects;
end
$body$
$code$,
    'persons_' || p_table, v_relation
  ));
  execute format('comment on function gdpr_generated.%I() is %L', 'persons_' || p_table,
    format('The persons of all rows of %s. Generated by gdpr.apply().', v_relation));
  execute format('grant execute on function gdpr_generated.%I() to gdpr_owner', 'persons_' || p_table);

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I(p_keys text[], p_mask bigint, p_subjects bigint[])
returns table (subject_ref uuid, data json)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
begin
  if p_keys is null then
    return query
    select t.gdpr_subject_ref, row_to_json(v)
    from unnest(p_subjects) as s (id)
    join %2$s as t on t.gdpr_subject_id = s.id
    cross join lateral (
      select
%4$s
    ) as v
    where (t.gdpr_purposes & p_mask) <> 0;
  else
    return query
    select t.gdpr_subject_ref, row_to_json(v)
    from %3$s
    join unnest(p_subjects) as s (id) on s.id = t.gdpr_subject_id
    cross join lateral (
      select
%4$s
    ) as v
    where (t.gdpr_purposes & p_mask) <> 0
    order by k.n;
  end if;
  set constraints all immediate;
end
$body$
$code$,
    'export_' || p_table, v_relation, gdpr_generated.key_rows(v_relation), gdpr_internal.redacted_columns(p_table)
  ));
  execute format('comment on function gdpr_generated.%I(text[], bigint, bigint[]) is %L', 'export_' || p_table,
    format('Rows of %s as redacted views show them, of these persons. Generated by gdpr.apply().', v_relation));
  execute format('grant execute on function gdpr_generated.%I(text[], bigint, bigint[]) to gdpr_owner', 'export_' || p_table);
end
$function$;
comment on function gdpr_generated.generate_export(smallint) is
  'Generates persons_<table> (whose rows there are) and export_<table> (the rows, redacted).';

-- 70_sharing/70_exports.sql
-- [code] Exports: rows that leave for a recipient, and the record of it, in one statement.
-- GDPR Art. 5(2), 15(1)(c), 19, 30(1)(d). Called by: roles of audience export, api or integration; gdpr_dpo; gdprdb share export.
-- A SELECT cannot write: a role that is bound to a recipient therefore reads no view, but calls this.

set local role gdpr_owner;

create or replace function gdpr_internal.exporter(p_role name)
returns gdpr_internal.role_binding
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_binding gdpr_internal.role_binding;
begin
  select * into v_binding
  from gdpr_internal.role_binding as b
  where b.audience = any (gdpr_internal.outgoing_audiences())
    and (b.role_name = p_role or pg_has_role(p_role, to_regrole(quote_ident(b.role_name))::oid, 'usage'))
  -- who is bound to a recipient in one way is so in every way
  order by (b.recipient is null), (b.role_name <> p_role), b.role_name
  limit 1;
  if v_binding.role_name is null then
    if not pg_has_role(p_role, 'gdpr_dpo', 'usage') then
      perform gdpr_internal.refuse('export_refused', format('role %s', quote_ident(p_role)));
    end if;
    v_binding.audience := 'export';
  end if;
  return v_binding;
end
$function$;
comment on function gdpr_internal.exporter(name) is
  'How a role exports: its binding to audience export, api or integration; an officer without one exports as audience export. Error: gdpr_export_refused (42501).';

create or replace function gdpr.export_rows(
  p_table text,
  p_keys text[] default null,
  p_recipient text default null,
  p_purpose text default null,
  p_locked text default 'leave_out',
  p_reason text default null
)
returns table (subject_ref uuid, data json)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_exporter gdpr_internal.role_binding := gdpr_internal.exporter(gdpr_internal.acting_role());
  v_new gdpr_internal.disclosure_record;
  v_purpose text;
  v_before text;
  v_mask bigint;
  v_usable bigint;
  v_found bigint[];
  v_persons bigint[];
begin
  perform gdpr_internal.require_home();
  select t.id, t.purpose_mask into v_new.table_id, v_usable
  from gdpr_internal.protected_table as t
  where t.relation = gdpr_internal.find_table(p_table) and t.unprotected_at is null;
  if v_new.table_id is null then
    perform gdpr_internal.refuse('not_protected');
  elsif p_locked is null or p_locked not in ('refuse', 'leave_out') then
    perform gdpr_internal.refuse('invalid_argument', 'locked is refuse or leave_out');
  elsif p_recipient <> v_exporter.recipient then
    perform gdpr_internal.refuse('invalid_argument', 'the policy binds this role to another recipient');
  end if;
  v_new.recipient_id := (gdpr_internal.require_recipient(coalesce(v_exporter.recipient, p_recipient))).recipient_id;
  v_purpose := coalesce(p_purpose, gdpr_internal.context_setting('purpose'), (
    select p.name from gdpr_internal.role_purpose as rp
    join gdpr_internal.purpose as p on p.id = rp.purpose_id
    where rp.role_name = v_exporter.role_name
    order by rp.position limit 1
  ));
  v_new.purpose_id := gdpr_internal.disclosing_purpose(v_purpose);
  v_mask := 1::bigint << v_new.purpose_id;

  if v_usable & v_mask = 0 then
    perform gdpr_internal.refuse('purpose_of_table', v_purpose);
  end if;
  v_before := gdpr_internal.before_worker();
  -- the names of generated functions come from the register
  if p_keys is null then
    execute format('select gdpr_generated.%I()', 'persons_' || v_new.table_id) into v_found;
  else
    execute format('select gdpr_generated.%I($1)', 'subjects_of_' || v_new.table_id) into v_found using p_keys;
  end if;
  perform gdpr_internal.after_worker(v_before);
  v_persons := gdpr_internal.sharable(coalesce(v_found, '{}'), v_mask);
  if p_locked = 'refuse' and cardinality(v_persons) < coalesce(cardinality(v_found), 0) then
    perform gdpr_internal.refuse('not_sharable', format('%s of %s', cardinality(v_found) - cardinality(v_persons), cardinality(v_found)));
  end if;
  if cardinality(v_persons) > 0 then
    v_new.audience := v_exporter.audience;
    v_new.reason := p_reason;
    select array_agg(c.column_name order by c.position), array_agg(distinct c.category) into v_new.columns, v_new.categories
    from gdpr_internal.protected_column as c
    where c.table_id = v_new.table_id and c.mask <> 'hide';
    perform gdpr_internal.put_disclosure(v_new, v_persons);
  end if;
  for subject_ref, data in
    execute format('select * from gdpr_generated.%I($1, $2, $3)', 'export_' || v_new.table_id) using p_keys, v_mask, v_persons
  loop
    return next;
  end loop;
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr.export_rows(text, text[], text, text, text, text) is
  'Rows of a protected table as redacted views show them (data: the columns by name), and in the same statement the record that they went to a recipient: of exactly those persons whose rows are returned. p_table: as the policy names it. p_keys: primary keys as text (several columns: a JSON array of texts), else all rows. p_recipient: for roles that the policy binds to none. p_purpose: one of the role''s, else that of the context, else its first. Only persons who may be processed for it are shared; p_locked => ''refuse'' refuses all when one of those asked for may not. For roles of audience export, api or integration, and gdpr_dpo. Errors: PR002, PR701, PR702, PR703, PR705 the table is not used for this purpose, PR003, PR004, PR408, PR640 the database was restored, 42501. Art. 5(2), 15(1)(c), 19.';

-- 80_retention/20_holds.sql
-- [code] Holds: placing, releasing, and which rows of which persons they keep.
-- GDPR Art. 17(3). Called by: gdpr_dpo; held_rows() by erasure and retention. Rows are listed by gdpr_worker, which has no keys, and
-- their primary keys digested by gdpr_keyholder, which touches no rows.

set local role gdpr_keyholder;

create or replace function gdpr_internal.row_keys(p_table smallint, p_keys text[])
returns uuid[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
begin
  v_keys := gdpr_internal.keyring();
  return array(
    select gdpr_internal.keyed_digest(v_keys.digest_key, 'row ' || p_table, k.key)
    from unnest(p_keys) with ordinality as k (key, n)
    order by k.n
  );
end
$function$;
comment on function gdpr_internal.row_keys(smallint, text[]) is 'gdpr_internal.row_key() for many rows, in their order.';

set local role gdpr_owner;

create or replace function gdpr_internal.hold_article(p_ground text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case p_ground
    when 'freedom_of_expression' then 'Art. 17(3)(a)'
    when 'legal_obligation' then 'Art. 17(3)(b)'
    when 'public_health' then 'Art. 17(3)(c)'
    when 'archiving' then 'Art. 17(3)(d)'
    when 'legal_claims' then 'Art. 17(3)(e)'
  end;
end;
comment on function gdpr_internal.hold_article(text) is 'The article that a ground of a hold stands on; null: it is no ground.';

create or replace view gdpr_internal.live_hold as
select h.id, h.subject_id, h.table_id, h.row_key, h.columns, h.ground, h.valid_until
from gdpr_internal.hold as h
where h.valid_until > statement_timestamp()
  and not exists (select from gdpr_internal.hold_end as e where e.hold_id = h.id);
comment on view gdpr_internal.live_hold is 'Holds that hold at the statement''s time: one whose day has come ends by itself.';

create or replace function gdpr_internal.rows_of(p_table smallint, p_subjects bigint[], p_keys text[])
returns table (subject_id bigint, row_key text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := gdpr_internal.before_worker();
  v_subjects bigint[];
  v_rows text[];
begin
  execute format('select array_agg(k.subject_id), array_agg(k.row_key) from gdpr_generated.%I($1, $2) as k', 'keys_' || p_table)
  into v_subjects, v_rows
  using p_subjects, p_keys;
  perform gdpr_internal.after_worker(v_before);
  return query select r.subject_id, r.row_key from unnest(v_subjects, v_rows) as r (subject_id, row_key);
end
$function$;
comment on function gdpr_internal.rows_of(smallint, bigint[], text[]) is
  'The primary keys of rows, as gdprdb digests them, and whose they are: of these persons, or (p_subjects null) those named by these keys. Errors: PR004 key of the wrong type, PR408 no primary key.';

create or replace function gdpr.place_hold(
  p_subject bigint, p_ground text, p_reference text, p_table regclass default null, p_key text default null, p_columns name[] default null,
  p_until timestamptz default 'infinity'
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint := case when p_table is not null then gdpr_internal.table_id(p_table) end;
  v_row record;
  v_subject bigint := p_subject;
  v_digest uuid;
  v_erased boolean := false;
  v_id bigint;
begin
  perform gdpr_internal.require_read_committed();
  if gdpr_internal.hold_article(p_ground) is null then
    perform gdpr_internal.refuse('invalid_argument', 'ground is one of legal_claims, legal_obligation, public_health, archiving, freedom_of_expression');
  elsif nullif(p_reference, '') is null then
    perform gdpr_internal.refuse('invalid_argument', 'a reference is needed: the law, the file number');
  elsif coalesce(p_until <= statement_timestamp(), true) then
    perform gdpr_internal.refuse('invalid_argument', 'a hold ends in the future');
  elsif v_table is null and (p_subject is null or p_key is not null or p_columns is not null) then
    perform gdpr_internal.refuse('invalid_argument', 'a hold is of a person, or names a table; rows and columns are of a table');
  elsif p_columns = '{}' or exists (
    select from unnest(p_columns) as c (name)
    where not exists (
      select from pg_attribute as a
      where a.attrelid = p_table and a.attname = c.name and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
    )
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'the table has no such columns');
  end if;
  -- retention that is under way has asked for holds already: it is waited for, and what it left is held
  perform from gdpr_internal.retention_pass as p for share;
  if p_key is not null then
    select r.subject_id, r.row_key into v_row from gdpr_internal.rows_of(v_table, null, array[p_key]) as r;
    if v_row.row_key is null then
      perform gdpr_internal.refuse('invalid_argument', 'there is no row with this key');
    elsif v_row.subject_id is null or coalesce(p_subject, v_row.subject_id) <> v_row.subject_id then
      perform gdpr_internal.refuse('invalid_argument', 'the row is not of this person');
    end if;
    v_subject := v_row.subject_id;
    v_digest := gdpr_internal.row_key(v_table, v_row.row_key);
  end if;
  if v_subject is not null then
    -- an erasure that is under way is waited for, and one that comes later sees this hold
    perform from gdpr_internal.subject as s where s.id = v_subject for key share;
    v_erased := exists (select from gdpr_internal.erasure_remainder as r where r.subject_id = v_subject);
    if not v_erased then
      perform gdpr_internal.require_subject(v_subject);
    end if;
  end if;
  insert into gdpr_internal.hold (subject_id, table_id, row_key, columns, ground, reference, valid_until, actor)
  values (v_subject, v_table, v_digest, p_columns, p_ground, p_reference, p_until, gdpr_internal.context_setting('actor'))
  returning id into v_id;
  if v_erased then
    -- what a period still kept of the person has another end now
    perform gdpr_internal.finish_erasures(1, array[v_subject]);
  end if;
  perform gdpr_internal.audit_event('HOLD', v_subject, jsonb_build_object('hold_id', v_id, 'ground', p_ground));
  return v_id;
end
$function$;
comment on function gdpr.place_hold(bigint, text, text, regclass, text, name[], timestamptz) is
  'Holds data: neither erasure nor retention deletes it until the hold is released or p_until comes. Of a person (p_subject; of one who was erased, what is still kept) in all tables, in one (p_table), in one row of it (p_key: primary key as text, several columns as a JSON array of texts) or in some columns; p_subject null with a table: of every person there. p_ground: legal_claims (Art. 17(3)(e)), legal_obligation (b), public_health (c), archiving (d), freedom_of_expression (a). p_reference: law or file number, no personal data. Returns its number. Errors: PR101, PR603, PR002, PR004, PR005, PR408. Art. 17(3).';

create or replace function gdpr.release_hold(p_hold bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_hold gdpr_internal.live_hold;
begin
  perform gdpr_internal.require_read_committed();
  if nullif(p_reason, '') is null then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  select h.* into v_hold from gdpr_internal.live_hold as h where h.id = p_hold;
  if v_hold.id is null then
    perform gdpr_internal.refuse('hold_ended');
  end if;
  insert into gdpr_internal.hold_end (hold_id, reason, actor)
  values (p_hold, p_reason, gdpr_internal.context_setting('actor'))
  on conflict (hold_id) do nothing;
  if not found then
    perform gdpr_internal.refuse('hold_ended');
  end if;
  perform gdpr_internal.audit_event('RELEASE', v_hold.subject_id, jsonb_build_object('hold_id', p_hold, 'reason', p_reason));
  -- of those it kept something of although they were erased; a row under hold may have become another's
  perform gdpr_internal.finish_erasures(2147483647, array(
    select distinct r.subject_id from gdpr_internal.erasure_remainder as r
    where coalesce(v_hold.table_id, r.table_id) = r.table_id
      and (v_hold.subject_id is null or v_hold.row_key is not null or v_hold.subject_id = r.subject_id)
  ));
end
$function$;
comment on function gdpr.release_hold(bigint, text) is
  'Ends a hold; what it kept of persons who were erased meanwhile goes now. p_reason: no personal data. Errors: PR801 no such hold or ended before, PR004, PR005. Art. 17(3).';

create or replace function gdpr_internal.held_rows(p_table smallint, p_subjects bigint[])
returns table (subject_id bigint, row_key text, columns name[], until timestamptz, hold_id bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[];
  v_keys text[];
begin
  return query
  select p.subject_id, null::text, h.columns, h.valid_until, h.id
  from gdpr_internal.live_hold as h
  join unnest(p_subjects) as p (subject_id) on p.subject_id = h.subject_id
  where h.row_key is null and coalesce(h.table_id, p_table) = p_table
  union all
  select p.subject_id, null::text, h.columns, h.valid_until, h.id
  from gdpr_internal.live_hold as h
  cross join unnest(p_subjects) as p (subject_id)
  where h.row_key is null and h.table_id = p_table and h.subject_id is null;
  if not exists (select from gdpr_internal.live_hold as h where h.table_id = p_table and h.row_key is not null) then
    return;
  end if;
  select array_agg(r.subject_id), array_agg(r.row_key) into v_subjects, v_keys from gdpr_internal.rows_of(p_table, p_subjects, null) as r;
  return query
  select r.subject_id, r.row_key, h.columns, h.valid_until, h.id
  from unnest(v_subjects, v_keys, gdpr_internal.row_keys(p_table, v_keys)) as r (subject_id, row_key, digest)
  join gdpr_internal.live_hold as h on h.table_id = p_table and h.row_key = r.digest;
end
$function$;
comment on function gdpr_internal.held_rows(smallint, bigint[]) is
  'What holds keep of these persons in a table, one row a hold: row_key null: all their rows; columns null: the whole row; until, hold_id: which hold, and when it ends by itself. row_key: the primary key as gdpr_internal.key_text() writes it.';

create or replace view gdpr.hold as
select
  h.id as hold_id,
  h.subject_id,
  t.relation as table_name,
  h.row_key,
  h.columns,
  h.ground,
  gdpr_internal.hold_article(h.ground) as article,
  h.reference,
  case
    when e.hold_id is not null then 'released'
    when h.valid_until <= statement_timestamp() then 'over'
    else 'holds'
  end as state,
  h.recorded_at as held_since,
  h.valid_until as held_until,
  h.recorded_by,
  e.ended_at as released_at,
  e.reason as release_reason,
  e.recorded_by as released_by
from gdpr_internal.hold as h
left join gdpr_internal.protected_table as t on t.id = h.table_id
left join gdpr_internal.hold_end as e on e.hold_id = h.id;
comment on view gdpr.hold is
  'Holds: what of whom may not be deleted, on which ground, until when. subject_id null: of every person in the table; table_name null: in every table; row_key: keyed digest of one row''s primary key; columns null: whole rows. state: holds, over (its day came), released. Art. 17(3), 5(2).';

-- 80_retention/30_ends.sql
-- [code] When a person's data are over: the end of the last basis, and the time that is kept after it.
-- GDPR Art. 5(1)(e), 17(1)(b). Called by: retention and the proposals of erasure.

set local role gdpr_owner;

create or replace function gdpr_internal.basis_ends(p_subjects bigint[])
returns table (subject_id bigint, purpose_id smallint, ended_at timestamptz)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
#variable_conflict use_column
begin
  return query
  select e.subject_id, e.purpose_id, least(max(e.ended_at), min(o.recorded_at))
  from (
    select b.subject_id, b.purpose_id, least(
        b.valid_until,
        case when b.basis = 'legitimate_interests' then p.assessed_until end,
        x.ended_at,
        case when b.basis = 'undetermined' then (
          select min(c.recorded_at) from gdpr_internal.consent_record as c where c.subject_id = b.subject_id and c.purpose_id = b.purpose_id
        ) end
      ) as ended_at
    from gdpr_internal.basis_record as b
    join gdpr_internal.purpose as p on p.id = b.purpose_id
    left join gdpr_internal.basis_end as x on x.basis_id = b.id
    where b.subject_id = any (p_subjects)
    union all
    select c.subject_id, c.purpose_id, greatest(c.holds_until, c.respond_until, case when c.event = 'granted' then c.valid_until else c.recorded_at end)
    from gdpr_internal.consent_state as c
    where c.subject_id = any (p_subjects) and (c.record_id is not null or c.request_id is not null)
  ) as e
  left join gdpr_internal.objection_record as o on o.subject_id = e.subject_id and o.purpose_id = e.purpose_id
  group by e.subject_id, e.purpose_id;
end
$function$;
comment on function gdpr_internal.basis_ends(bigint[]) is
  'When the last basis of persons ended, or will end, for each purpose that they ever had one for: the end of a contract, an assessment that was not renewed, a consent withdrawn or expired, a question nobody answered, an objection. No row: there never was one.';

create or replace function gdpr_internal.retention_ends(p_table smallint, p_subjects bigint[])
returns table (subject_id bigint, rule integer, ends_at timestamptz)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  v_zone text := gdpr_internal.time_zone();
begin
  return query
  select s.id, r.n, max(timezone(v_zone, timezone(v_zone, coalesce(e.ended_at, s.created_at)) + coalesce(r.period, p.retain)))
  from gdpr_internal.retention_rule as r
  join gdpr_internal.purpose as p on p.id < 62 and r.purpose_mask & (1::bigint << p.id) <> 0
  cross join gdpr_internal.subject as s
  left join gdpr_internal.basis_ends(p_subjects) as e on e.subject_id = s.id and e.purpose_id = p.id
  where r.table_id = p_table and r.after_column is null and r.in_force and s.id = any (p_subjects)
  group by s.id, r.n;
end
$function$;
comment on function gdpr_internal.retention_ends(smallint, bigint[]) is
  'Until when rules that count from the last basis keep the rows of persons: the latest of the purposes. Who never had a basis counts from the day gdprdb met them.';

create or replace function gdpr_internal.restricted_of(p_subjects bigint[])
returns bigint[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return array(
    select distinct r.subject_id from gdpr_internal.restriction_record as r
    where r.subject_id = any (p_subjects)
      and not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = r.id)
  );
end
$function$;
comment on function gdpr_internal.restricted_of(bigint[]) is 'Those of the persons whose data are restricted: they are stored, which is all that Art. 18(2) allows.';

-- 80_retention/40_retention.sql
-- [code] Retention: what is over, and its end, page by page of persons.
-- GDPR Art. 5(1)(e). Called by: gdpr_admin, gdprdb retention, pg_cron. Rows are touched by gdpr_worker's generated functions.

set local role gdpr_owner;

create or replace function gdpr_internal.forgetting()
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return exists (select from gdpr_internal.retention_pass as p where p.forgetting_xid = pg_current_xact_id_if_assigned());
end
$function$;
comment on function gdpr_internal.forgetting() is
  'Whether retention is deleting at this moment: the audit trail says that, and does not keep for later what may be kept no longer.';

create or replace function gdpr_internal.rule_bits(p_table smallint, p_columns name[])
returns integer
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- bit 30 belongs to no rule: a row of which anything is held stays
  select case
    when p_columns is null then 2147483647
    else coalesce(bit_or(1 << r.n) filter (where r.columns && p_columns), 0) | (1 << 30)
  end
  from gdpr_internal.retention_rule as r
  where r.table_id = p_table;
end;
comment on function gdpr_internal.rule_bits(smallint, name[]) is 'The rules that a hold on these columns (null: all) stops, as bits.';

create or replace function gdpr_internal.retention_page(
  p_table smallint, p_subjects bigint[],
  out due integer[], out held_subjects bigint[], out held_bits integer[], out held_keys text[], out held_key_bits integer[]
)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  select array_agg(coalesce(e.bits, 0) order by s.n) into due
  from unnest(p_subjects) with ordinality as s (subject_id, n)
  left join (
    select x.subject_id, bit_or(1 << x.rule) as bits
    from gdpr_internal.retention_ends(p_table, p_subjects) as x
    where x.ends_at <= statement_timestamp()
    group by x.subject_id
  ) as e on e.subject_id = s.subject_id;
  select
    array_agg(h.subject_id) filter (where h.row_key is null), array_agg(h.bits) filter (where h.row_key is null),
    array_agg(h.row_key) filter (where h.row_key is not null), array_agg(h.bits) filter (where h.row_key is not null)
  into held_subjects, held_bits, held_keys, held_key_bits
  from (
    select x.subject_id, x.row_key, gdpr_internal.rule_bits(p_table, x.columns) as bits from gdpr_internal.held_rows(p_table, p_subjects) as x
    union all
    select r.subject_id, null, 2147483647 from unnest(gdpr_internal.restricted_of(p_subjects)) as r (subject_id)
  ) as h;
end
$function$;
comment on function gdpr_internal.retention_page(smallint, bigint[]) is
  'What the generated functions have to be told of a page of persons: the bits of rules by which their bases are over, in their order, and what is held of whom.';

create or replace function gdpr_internal.retention_tables()
returns smallint[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- rows that refer to others before those
  select array_agg(t.id order by t.depth desc, t.id)
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null and exists (select from gdpr_internal.retention_rule as r where r.table_id = t.id and r.in_force);
end;
comment on function gdpr_internal.retention_tables() is 'The tables that have retention rules in force, in the order in which retention goes through them.';

create or replace function gdpr_internal.retention_candidates(p_table smallint, p_after bigint, p_limit integer)
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := gdpr_internal.before_worker();
  v_page bigint[];
begin
  execute format('select gdpr_generated.%I($1, $2)', 'candidates_' || p_table) into v_page using p_after, p_limit;
  perform gdpr_internal.after_worker(v_before);
  return v_page;
end
$function$;
comment on function gdpr_internal.retention_candidates(smallint, bigint, integer) is
  'The next persons after p_after who have a row in a table whose time may be over; null at the end.';

create or replace function gdpr_internal.retain(p_table smallint, p_subjects bigint[], p_limit integer, out removed bigint, out emptied bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_page record := gdpr_internal.retention_page(p_table, p_subjects);
  v_before text := gdpr_internal.before_worker();
begin
  execute format('select * from gdpr_generated.%I($1, $2, $3, $4, $5, $6, $7)', 'retain_' || p_table)
  into removed, emptied
  using p_subjects, v_page.due, v_page.held_subjects, v_page.held_bits, v_page.held_keys, v_page.held_key_bits, p_limit;
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr_internal.retain(smallint, bigint[], integer) is 'Ends what is over of these persons in a table, up to p_limit rows.';

create or replace function gdpr_internal.erase_approved(p_limit integer)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_persons bigint := gdpr_internal.finish_erasures(p_limit);
  v_batch bigint;
begin
  if v_persons = 0 then
    select b.batch_id into v_batch from gdpr_internal.erasure_batch_person as b
    where b.done_at is null and b.failure is null
    order by b.batch_id
    limit 1;
    if v_batch is not null then
      select r.erased + r.failed into v_persons from gdpr.run_erasure_batch(v_batch, p_limit) as r;
    end if;
  end if;
  return v_persons;
end
$function$;
comment on function gdpr_internal.erase_approved(integer) is
  'What retention does for whole persons: finishes erasures of which a period is over, else erases the next of a batch that is open; returns how many.';

create or replace function gdpr.run_retention(p_limit integer default 10000)
returns table (table_name regclass, removed bigint, emptied bigint, persons bigint, more boolean)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_pass gdpr_internal.retention_pass;
  v_tables smallint[];
  v_observed smallint[];
  v_n integer;
  v_page bigint[];
  v_done record;
  v_left bigint := p_limit;
  v_looked bigint := 0;
begin
  perform gdpr_internal.require_read_committed();
  if coalesce(p_limit < 1, true) then
    perform gdpr_internal.refuse('invalid_argument', 'at least one row at a time');
  elsif not gdpr_generated.is_home() and gdpr.whereabouts() = 'restored' then
    -- holds that were placed after the backup are not here yet
    perform gdpr_internal.refuse('restored');
  end if;
  persons := gdpr_internal.erase_approved(least(p_limit, 1000));
  if persons > 0 then
    removed := 0;
    emptied := 0;
    more := true;
    return next;
    return;
  end if;
  select p.* into v_pass from gdpr_internal.retention_pass as p for update;
  update gdpr_internal.retention_pass set forgetting_xid = pg_current_xact_id();
  perform set_config('gdpr.forgetting', 'on', true);
  v_observed := array(select t.id from gdpr_internal.protected_table as t where t.mode = 'observe');
  v_tables := array(select t.id from unnest(gdpr_internal.retention_tables()) with ordinality as t (id, n) where t.id <> all (v_observed) order by t.n);
  v_n := coalesce(array_position(v_tables, v_pass.table_id), 1);
  if v_tables[v_n] is distinct from v_pass.table_id then
    v_pass.after_subject := 0;
  end if;
  more := true;
  while more and v_n <= cardinality(v_tables) loop
    select t.relation, 0, 0 into table_name, removed, emptied from gdpr_internal.protected_table as t where t.id = v_tables[v_n];
    loop
      v_page := gdpr_internal.retention_candidates(v_tables[v_n], v_pass.after_subject, least(p_limit, 10000));
      exit when v_page is null;
      v_done := gdpr_internal.retain(v_tables[v_n], v_page, v_left::integer);
      removed := removed + v_done.removed;
      emptied := emptied + v_done.emptied;
      v_left := v_left - v_done.removed - v_done.emptied;
      v_looked := v_looked + cardinality(v_page);
      exit when v_left <= 0;
      v_pass.after_subject := v_page[cardinality(v_page)];
      exit when v_looked >= 20 * p_limit::bigint;
    end loop;
    if removed + emptied > 0 then
      perform gdpr_internal.audit_event('RETAIN', null, jsonb_build_object('table', table_name::text, 'removed', removed, 'emptied', emptied));
      return next;
    end if;
    if v_page is null then
      v_n := v_n + 1;
      v_pass.after_subject := 0;
    else
      exit;
    end if;
  end loop;
  more := v_n <= cardinality(v_tables);
  perform set_config('gdpr.forgetting', '', true);
  update gdpr_internal.retention_pass
  set table_id = case when more then v_tables[v_n] end, after_subject = v_pass.after_subject, forgetting_xid = null,
    finished_at = case when more then finished_at else statement_timestamp() end;
  if not more then
    table_name := null;
    removed := 0;
    emptied := 0;
    return next;
  end if;
end
$function$;
comment on function gdpr.run_retention(integer) is
  'Deletes or anonymises rows whose time is over and empties columns whose time is, up to p_limit rows, going on where the call before stopped: one transaction, short locks. Holds, restrictions (Art. 18(2)) and rows that others refer to win. Finishes erasures whose period is over first, and carries out batches of erasures. Returns what was done in which table (persons: how many were erased); more is false when all has been gone through: call until then. Tables in mode observe are left alone. Errors: PR004, PR005, PR604, PR605, PR802, PR640 the database was restored: replay the ledger first. Art. 5(1)(e).';

create or replace function gdpr.retention_plan()
returns table (
  table_name regclass, rule integer, columns name[], kept_for text, counted_from text, rows_due bigint, rows_held bigint, rows_referred bigint,
  oldest timestamptz
)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
#variable_conflict use_column
declare
  v_table smallint;
  v_after bigint;
  v_page bigint[];
  v_facts record;
  v_before text;
  v_found jsonb;
  v_counts jsonb;
begin
  foreach v_table in array coalesce(gdpr_internal.retention_tables(), '{}') loop
    v_after := 0;
    v_found := '[]';
    loop
      v_page := gdpr_internal.retention_candidates(v_table, v_after, 10000);
      exit when v_page is null;
      v_facts := gdpr_internal.retention_page(v_table, v_page);
      v_before := gdpr_internal.before_worker();
      execute format('select jsonb_agg(o) from gdpr_generated.%I($1, $2, $3, $4, $5, $6) as o', 'overdue_' || v_table)
      into v_counts
      using v_page, v_facts.due, v_facts.held_subjects, v_facts.held_bits, v_facts.held_keys, v_facts.held_key_bits;
      perform gdpr_internal.after_worker(v_before);
      v_found := v_found || v_counts;
      v_after := v_page[cardinality(v_page)];
    end loop;
    return query
    select
      t.relation, r.n + 1, nullif(r.columns, '{}'),
      coalesce(r.period::text, (
        select string_agg(format('%s: %s', p.name, p.retain), ', ' order by p.id) from gdpr_internal.purpose as p
        where p.id < 62 and r.purpose_mask & (1::bigint << p.id) <> 0
      )),
      coalesce(r.after_column::text, 'last_basis'),
      coalesce(f.due, 0)::bigint, coalesce(f.held, 0)::bigint, coalesce(f.referred, 0)::bigint, f.since
    from gdpr_internal.retention_rule as r
    join gdpr_internal.protected_table as t on t.id = r.table_id
    left join (
      select c.rule, sum(c.due) as due, sum(c.held) as held, sum(c.referred) as referred, min(c.since) as since
      from jsonb_to_recordset(v_found) as c (rule integer, due bigint, held bigint, referred bigint, since timestamptz)
      group by c.rule
    ) as f on f.rule = r.n
    where r.table_id = v_table and r.in_force
    order by r.n;
  end loop;
end
$function$;
comment on function gdpr.retention_plan() is
  'What retention would do now, rule by rule (its number in the policy): rows_due: rows to delete, anonymise or empty columns of; rows_held: those that a hold or a restriction keeps; rows_referred: those that wait for rows that refer to them; oldest: since when the longest overdue is, where the rule counts from a column. Looks at every person who may have something due: a report, not a query of every day. Art. 5(1)(e), 30(1)(f).';

create or replace view gdpr.retention_due as
select p.table_name, p.rule, p.columns, p.kept_for, p.counted_from, p.rows_due, p.rows_held, p.rows_referred, p.oldest
from gdpr.retention_plan() as p
where p.rows_due + p.rows_held + p.rows_referred > 0;
comment on view gdpr.retention_due is 'The rules of gdpr.retention_plan() under which something is over. Art. 5(1)(e).';

-- 80_retention/50_batches.sql
-- [code] Erasing many persons: a list, chunks in transactions of their own, and whoever comes next goes on.
-- GDPR Art. 17, Art. 5(1)(e). Called by: gdpr_dpo, gdprdb subject erase-batch, gdpr.run_retention() for persons whose erasure was approved.

set local role gdpr_owner;

create or replace function gdpr.open_erasure_batch(p_subjects bigint[], p_reason text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_batch bigint;
begin
  if coalesce(cardinality(p_subjects), 0) = 0 or nullif(p_reason, '') is null then
    perform gdpr_internal.refuse('invalid_argument', 'the numbers of persons and a reason are needed');
  elsif exists (
    select from unnest(p_subjects) as p (id) where not exists (select from gdpr_internal.subject as s where s.id = p.id)
  ) then
    perform gdpr_internal.refuse('unknown_subject');
  end if;
  insert into gdpr_internal.erasure_batch (reason, actor) values (p_reason, gdpr_internal.context_setting('actor')) returning id into v_batch;
  insert into gdpr_internal.erasure_batch_person (batch_id, subject_id)
  select distinct v_batch, p.id from unnest(p_subjects) as p (id);
  perform gdpr_internal.audit_event('BATCH', null, jsonb_build_object('batch', v_batch, 'persons', cardinality(p_subjects), 'reason', p_reason));
  return v_batch;
end
$function$;
comment on function gdpr.open_erasure_batch(bigint[], text) is
  'Decides that these persons are to be erased, and returns the number of the batch; gdpr.run_erasure_batch() erases them. Who was erased before counts as done. Errors: PR101 an unknown person, PR004. Art. 17.';

create or replace function gdpr_internal.erase_chunk(p_batch bigint, p_subjects bigint[], p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subject bigint;
  v_failure text;
  v_state text;
  v_name text;
begin
  -- what planted code may raise is anything; a chunk fails as a whole only for what is not one person's
  begin
    perform from gdpr.erase(p_subjects, p_reason);
    v_subject := null;
  exception
    when transaction_rollback or insufficient_resources or operator_intervention or lock_not_available
      or sqlstate 'PR005' or sqlstate 'PR401' or sqlstate 'PR402' or sqlstate 'PR409'
    then
      raise;
    -- somebody in the chunk cannot be erased: one by one, to find out who
    when others then
      if cardinality(p_subjects) = 1 then
        get stacked diagnostics v_state = returned_sqlstate, v_name = constraint_name;
        -- a name that planted code made up may be a value of the row
        v_failure := concat_ws(' ', v_state, (select e.name from gdpr.error_code as e where 'gdpr_' || e.name = v_name limit 1));
      else
        v_subject := p_subjects[1];
      end if;
  end;
  if v_subject is not null then
    foreach v_subject in array p_subjects loop
      perform gdpr_internal.erase_chunk(p_batch, array[v_subject], p_reason);
    end loop;
    return;
  end if;
  update gdpr_internal.erasure_batch_person as b
  set done_at = case when v_failure is null then statement_timestamp() end, failure = v_failure
  where b.batch_id = p_batch and b.subject_id = any (p_subjects);
end
$function$;
comment on function gdpr_internal.erase_chunk(bigint, bigint[], text) is
  'Erases some persons of a batch, at once, or one by one when one of them cannot be: that one is marked, the others go.';

create or replace function gdpr.run_erasure_batch(p_batch bigint, p_chunk integer default 500, out erased integer, out failed integer, out remaining bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_reason text := (select b.reason from gdpr_internal.erasure_batch as b where b.id = p_batch);
  v_subjects bigint[];
begin
  perform gdpr_internal.require_read_committed();
  if v_reason is null then
    perform gdpr_internal.refuse('batch_unknown');
  elsif coalesce(p_chunk < 1, true) then
    perform gdpr_internal.refuse('invalid_argument', 'at least one person at a time');
  end if;
  v_subjects := array(
    select b.subject_id from gdpr_internal.erasure_batch_person as b
    where b.batch_id = p_batch and b.done_at is null and b.failure is null
    order by b.subject_id
    limit p_chunk
    -- who else works on the batch takes the next ones
    for update skip locked
  );
  if v_subjects <> '{}' then
    perform gdpr_internal.erase_chunk(p_batch, v_subjects, v_reason);
  end if;
  select count(*) filter (where b.subject_id = any (v_subjects) and b.done_at is not null),
    count(*) filter (where b.subject_id = any (v_subjects) and b.failure is not null),
    count(*) filter (where b.done_at is null and b.failure is null)
  into erased, failed, remaining
  from gdpr_internal.erasure_batch_person as b
  where b.batch_id = p_batch;
end
$function$;
comment on function gdpr.run_erasure_batch(bigint, integer) is
  'Erases the next p_chunk persons of a batch; commit, and call again while remaining is not 0. After a crash whatever was not committed is still to come. Several sessions may work on one batch. failed: persons whose erasure ended in an error, marked and left out; gdpr.retry_erasure_batch() brings them back. Errors: PR803 no such batch, PR004, PR005. Art. 17.';

create or replace function gdpr.retry_erasure_batch(p_batch bigint)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_again bigint;
begin
  if not exists (select from gdpr_internal.erasure_batch as b where b.id = p_batch) then
    perform gdpr_internal.refuse('batch_unknown');
  end if;
  update gdpr_internal.erasure_batch_person as b set failure = null where b.batch_id = p_batch and b.failure is not null;
  get diagnostics v_again = row_count;
  return v_again;
end
$function$;
comment on function gdpr.retry_erasure_batch(bigint) is 'Puts the persons of a batch who could not be erased back to those still to come; returns how many. Error: PR803.';

create or replace view gdpr.erasure_batch as
select
  b.id as batch_id,
  b.reason,
  b.opened_at,
  b.opened_by,
  p.persons,
  p.erased,
  p.failed,
  p.persons - p.erased - p.failed as remaining,
  case when p.persons = p.erased then p.last_at end as finished_at,
  p.failures
from gdpr_internal.erasure_batch as b
cross join lateral (
  select count(*) as persons, count(x.done_at) as erased, count(x.failure) as failed, max(x.done_at) as last_at,
    (
      select jsonb_object_agg(f.failure, f.subjects)
      from (
        select y.failure, jsonb_agg(y.subject_id order by y.subject_id) as subjects
        from gdpr_internal.erasure_batch_person as y
        where y.batch_id = b.id and y.failure is not null
        group by y.failure
      ) as f
    ) as failures
  from gdpr_internal.erasure_batch_person as x
  where x.batch_id = b.id
) as p;
comment on view gdpr.erasure_batch is
  'Batches of erasures and how far they are. failures: numbers of persons by the code and name of the error that kept them from being erased. Art. 17, 5(2).';

-- 80_retention/60_proposals.sql
-- [code] Persons for whom nothing speaks any more: a list for the officer, who decides.
-- GDPR Art. 5(1)(e), 17(1)(a), 17(1)(b). Called by: gdpr_dpo, gdprdb retention proposals|approve.

set local role gdpr_owner;

create or replace function gdpr_internal.stands_in(p_subject bigint)
returns bigint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select bit_or(t.purpose_mask)
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null and exists (
    select from gdpr_internal.source as s where s.subject_id = p_subject and s.table_id = t.id
  );
end;
comment on function gdpr_internal.stands_in(bigint) is 'The purposes of the tables that a person''s data were collected in, as bits.';

create or replace function gdpr_internal.proposable(p_subjects bigint[])
returns table (subject_id bigint, since timestamptz)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  v_zone text := gdpr_internal.time_zone();
begin
  return query
  select e.subject_id, max(e.ends_at)
  from (
    select s.id as subject_id, timezone(v_zone, timezone(v_zone, coalesce(x.ended_at, s.created_at)) + coalesce(p.retain, interval '0')) as ends_at
    from (
      select i.id, i.created_at, gdpr_internal.stands_in(i.id) as mask
      from gdpr_internal.subject as i
      where i.id = any (p_subjects) and i.erased_at is null
    ) as s
    join gdpr_internal.purpose as p on p.id < 62 and s.mask & (1::bigint << p.id) <> 0
    left join gdpr_internal.basis_ends(p_subjects) as x on x.subject_id = s.id and x.purpose_id = p.id
  ) as e
  where not exists (select from gdpr_internal.live_hold as h where h.subject_id = e.subject_id and h.table_id is null)
    and e.subject_id <> all (gdpr_internal.restricted_of(p_subjects))
    and not exists (select from gdpr_internal.erasure_batch_person as b where b.subject_id = e.subject_id and b.done_at is null)
  group by e.subject_id
  having max(e.ends_at) <= statement_timestamp();
end
$function$;
comment on function gdpr_internal.proposable(bigint[]) is
  'Those of the persons who have no basis left for any purpose of the tables they stand in, and whose purposes'' time of retention is over too; since when. Not those under a hold, restricted, or in a batch already.';

create or replace function gdpr.erasure_proposals(p_limit integer default null)
returns table (subject_id bigint, since timestamptz)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  v_after bigint := 0;
  v_left bigint := coalesce(p_limit, 9223372036854775807);
  v_found bigint;
  v_page bigint[];
begin
  loop
    v_page := array(
      select s.id from gdpr_internal.subject as s
      where s.id > v_after and s.erased_at is null
        -- closed for everything, or past the instant at which something closes
        and (s.purposes & 4611686018427387903 = 0 or s.until <= statement_timestamp())
      order by s.id
      limit 10000
    );
    exit when v_page = '{}' or v_left <= 0;
    return query select p.subject_id, p.since from gdpr_internal.proposable(v_page) as p order by p.subject_id limit v_left;
    get diagnostics v_found = row_count;
    v_left := v_left - v_found;
    v_after := v_page[cardinality(v_page)];
  end loop;
end
$function$;
comment on function gdpr.erasure_proposals(integer) is
  'Persons (at most p_limit) whose data nothing justifies any more: no basis holds for any purpose of their tables, and what the purposes retain after the last one is over. since: from when on. Nothing happens by itself: gdpr.approve_erasures(), a new basis, or a hold. Art. 5(1)(e), 17(1).';

create or replace function gdpr.approve_erasures(p_subjects bigint[] default null, p_reason text default 'no lawful basis left')
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[];
begin
  if p_subjects is null then
    v_subjects := array(select p.subject_id from gdpr.erasure_proposals() as p);
    if v_subjects = '{}' then
      return null;
    end if;
  else
    v_subjects := array(select p.subject_id from gdpr_internal.proposable(p_subjects) as p);
    if not p_subjects <@ v_subjects then
      perform gdpr_internal.refuse('not_proposed');
    end if;
  end if;
  return gdpr.open_erasure_batch(v_subjects, p_reason);
end
$function$;
comment on function gdpr.approve_erasures(bigint[], text) is
  'Approves the erasure of persons whom gdpr.erasure_proposals() names (null: of all of them) and returns the number of the batch that erases them, which gdpr.run_retention() carries out; null when nobody is proposed. Errors: PR804 somebody is not proposed, PR004. Art. 17(1).';

-- 80_retention/70_schedule.sql
-- [code] The nightly jobs, where pg_cron is there to run them.
-- GDPR Art. 5(1)(e). Called by: gdpr_admin. They run as whoever schedules them.

set local role gdpr_owner;

create or replace function gdpr.schedule_jobs()
returns table (job text, schedule text)
language plpgsql
volatile
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_jobs constant text[] := array[
    'gdprdb tidy', '7 1 * * *', 'select count(*) from gdpr.tidy()',
    'gdprdb retention', '*/5 2-4 * * *', 'select count(*) from gdpr.run_retention()'
  ];
begin
  -- a function of that name that somebody else made would run with the caller's rights
  if not exists (
    select from pg_proc as p
    join pg_roles as o on o.oid = p.proowner
    where p.oid = to_regprocedure('cron.schedule(text, text, text)') and o.rolsuper
  ) then
    perform gdpr.refuse_schedule();
  end if;
  for i in 0 .. cardinality(v_jobs) / 3 - 1 loop
    job := v_jobs[3 * i + 1];
    schedule := v_jobs[3 * i + 2];
    execute format('select %I.schedule($1, $2, $3)', 'cron') using job, schedule, v_jobs[3 * i + 3];
    return next;
  end loop;
end
$function$;
comment on function gdpr.schedule_jobs() is
  'Has pg_cron run gdpr.tidy() and gdpr.run_retention() each night, in batches, as the role that calls this; asked twice, they are replaced. Needs USAGE on schema cron. Errors: PR805 there is no pg_cron in this database. Art. 5(1)(e).';

create or replace function gdpr.refuse_schedule()
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.refuse('cron_missing');
end;
comment on function gdpr.refuse_schedule() is 'Raises PR805.';

-- 90_accountability/05_doctor_mails.sql
-- [code] Findings about mails: persons are not told what they have to be told while nobody sends.
-- GDPR Art. 12(1), Art. 5(2). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_mails()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'warning', 'mails', o.template, format('mails given up: %s', count(*)),
    'gdprdb outbox list --dead shows why; gdprdb outbox retry and gdprdb outbox drop decide.'
  from gdpr_internal.outbox as o
  where o.dead_at is not null
  group by o.template
  union all
  -- an attempt sets the time of the next one: what is long due was not even taken
  select 'warning', 'mails', o.template, format('mails due for more than 15 minutes: %s', count(*)),
    'No sender is running, or it does not keep up: gdprdb outbox send --follow.'
  from gdpr_internal.outbox as o
  where o.dead_at is null and o.due_at < statement_timestamp() - interval '15 minutes'
  group by o.template;
end;
comment on function gdpr_internal.doctor_mails() is 'Findings about mails that were given up, or that nobody sends.';

-- 90_accountability/06_doctor_home.sql
-- [code] What the doctor says of a database that is not where it was.
-- GDPR Art. 32(1)(c). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_home()
returns table (severity text, topic text, object text, finding text, hint text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_where text := gdpr.whereabouts();
begin
  if v_where = 'restored' then
    perform gdpr_internal.notice_restore('seen by the doctor');
  end if;
  return query
  select f.severity, 'restore', current_database()::text, f.finding, f.hint
  from (
    values
      ('restored', 'error', 'the database was restored from a backup: processing is refused', 'gdprdb ledger replay FILE with the newest ledger; gdpr.accept_restore() only if nothing was lost.'),
      ('promoted', 'warning', 'the server writes a new timeline: a standby took over, or a backup was recovered', 'gdprdb ledger check FILE with the newest ledger tells what was lost; then gdpr.accept_restore().'),
      ('copy', 'info', 'the database is a copy beside the one it was made from', 'gdpr.accept_restore(), once it is to stand on its own.')
  ) as f (place, severity, finding, hint)
  where f.place = v_where;
end
$function$;
comment on function gdpr_internal.doctor_home() is 'Findings about restores; what is noticed here stays noticed.';

-- 90_accountability/06_doctor_retention.sql
-- [code] Findings about retention: rules that nobody carries out.
-- GDPR Art. 5(1)(e). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_retention()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'warning', 'retention', t.relation::text,
    case when p.finished_at is null then 'retention never ran' else format('retention has not come to its end since %s', p.finished_at::date) end,
    'Run gdprdb retention run each night'
      || case when to_regprocedure('cron.schedule(text, text, text)') is null then '.' else ', or let pg_cron do it: gdprdb retention schedule.' end
  from gdpr_internal.protected_table as t
  cross join gdpr_internal.retention_pass as p
  where t.mode = 'enforce' and t.id = any (gdpr_internal.retention_tables())
    and greatest(p.finished_at, t.protected_at) < statement_timestamp() - interval '7 days'
  union all
  select 'warning', 'erasure_batch', b.batch_id::text, format('persons who could not be erased: %s', count(*)),
    'gdpr.erasure_batch names the errors; gdprdb subject erase-batch --resume tries again with --retry.'
  from gdpr_internal.erasure_batch_person as b
  where b.failure is not null
  group by b.batch_id;
end;
comment on function gdpr_internal.doctor_retention() is 'Findings about retention that does not run, and about persons in batches who could not be erased.';

-- 90_accountability/07_doctor_sharing.sql
-- [code] Findings about recipients and about notices that they did not get.
-- GDPR Art. 19, 44, 5(2). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_sharing()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'warning', 'transfer', r.name, format('nothing may be disclosed to it any more: %s', r.problem),
    'gdpr.record_recipient() with a safeguard or a longer term, or with p_valid_until = now() once nothing is disclosed to it.'
  from gdpr.recipient as r
  -- an entry that was ended on purpose is no finding, unless somebody still is bound to it
  where r.problem is not null and (
    r.valid_until > statement_timestamp()
    or exists (select from gdpr_internal.role_binding as b where b.recipient = r.name)
  )
  union all
  select 'warning', 'transfer', r.name, format('nothing may be disclosed to it from %s on', to_char(e.ends, 'YYYY-MM-DD')),
    'gdpr.record_recipient() with a longer term, or a safeguard for the time after.'
  from gdpr.recipient as r
  cross join lateral (
    select least(r.valid_until, case when r.transfer = r.safeguard then r.safeguard_until end, (
      select min(a.valid_until)::timestamptz from gdpr.adequacy as a
      where a.country = r.country and r.transfer = 'adequacy' and gdpr_internal.adequate_now(a.valid_from, a.valid_until)
    )) as ends
  ) as e
  where r.problem is null and e.ends < statement_timestamp() + interval '30 days'
  union all
  select 'warning', 'recipient', b.role_name::text, format('the policy binds the role to recipient %s, which is not registered', b.recipient),
    'gdpr.record_recipient(), or another name in the policy; until then the role reads nothing.'
  from gdpr_internal.role_binding as b
  where b.recipient is not null and not exists (select from gdpr_internal.recipient_now as r where r.name = b.recipient)
  union all
  select 'info', 'recipient', b.role_name::text, format('what a role of audience %s reads in views is not recorded: it is bound to no recipient', b.audience),
    'Say recipient in the policy where the data leave the organisation.'
  from gdpr_internal.role_binding as b
  where b.audience = any (gdpr_internal.outgoing_audiences()) and b.recipient is null
  union all
  select 'warning', 'notices', d.recipient, format('notices due for more than 7 days: %s', count(*)),
    'gdprdb share notices --due lists them; gdpr.open_notice() says what to tell.'
  from gdpr.notice_due as d
  where d.queued_at < statement_timestamp() - interval '7 days'
  group by d.recipient;
end;
comment on function gdpr_internal.doctor_sharing() is 'Findings about recipients whose transfers rest on nothing, or soon will, and about notices that are due.';

-- 90_accountability/10_doctor.sql
-- [code] doctor(): a claim is only made where it is checked.
-- GDPR Art. 5(2), Art. 24, Art. 32(1)(d). Called by: DBAs, officers, auditors, gdprdb doctor (exit code 3 on errors and warnings).

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_tables()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with live as (
    select t.id, t.relation, t.mode, t.definition, t.fingerprint, t.parent_id is not null as child, c.oid is not null as present
    from gdpr_internal.protected_table as t
    left join pg_class as c on c.oid = t.relation
    where t.unprotected_at is null
  ),
  relations as (
    select l.id, l.relation, l.mode, l.child, r.r as part
    from live as l
    cross join lateral gdpr_internal.relation_tree(l.relation) as r (r)
    where l.present
  )
  select 'error', 'table_missing', l.relation::text, 'a protected table is gone', 'Restore it, or record with your officer that its data was deleted.'
  from live as l where not l.present
  union all
  select 'error', 'row_security', r.part::text,
    case when not c.relrowsecurity then 'row security is off' else 'row security is not forced: the owner sees every row' end,
    'Apply the policy again: gdprdb policy apply.'
  from relations as r join pg_class as c on c.oid = r.part
  where r.mode = 'enforce' and not (c.relrowsecurity and c.relforcerowsecurity)
  union all
  select 'error', 'policies', r.part::text, 'a row policy of gdprdb is missing', 'Apply the policy again: gdprdb policy apply.'
  from relations as r
  where r.mode = 'enforce' and (
    select count(*) from pg_policy as p where p.polrelid = r.part and p.polname in ('gdpr_40_owners', 'gdpr_40_base', 'gdpr_40_gate')
  ) < 3
  union all
  select 'error', 'triggers', r.part::text, format('trigger %s is %s', n.name, case when g.oid is null then 'missing' else 'disabled' end),
    'Apply the policy again: gdprdb policy apply.'
  from relations as r
  cross join lateral (
    select n.name
    from unnest(
      array['zzz_gdpr_05_guard', 'zzz_gdpr_40_protect', 'zzz_gdpr_50_audit', 'zzz_gdpr_40_truncate']
      || case when r.child then array['zzz_gdpr_10_subject', 'zzz_gdpr_10_subject_move'] end
      || case when to_regprocedure(format('gdpr_generated.%I()', 'change_' || r.id)) is not null then array['zzz_gdpr_40_change'] end
    ) as n (name)
  ) as n
  left join pg_trigger as g on g.tgrelid = r.part and g.tgname = n.name
  where g.oid is null or g.tgenabled <> 'A'
  union all
  select 'warning', 'drift', l.relation::text, 'the catalog is no longer what apply() left (controls or columns were changed)',
    'gdprdb policy plan shows the steps, gdprdb policy apply takes them.'
  from live as l
  where l.present and l.fingerprint is distinct from gdpr_internal.fingerprint(l.relation)
  union all
  select 'warning', 'unclassified', l.relation::text, format('column %I is not classified: hidden from redacted views', a.attname),
    'Name it in the policy: [tables."..."].columns.'
  from live as l
  join pg_attribute as a on a.attrelid = l.relation and a.attnum > 0 and not a.attisdropped
  where not l.definition -> 'columns' ? a.attname::text and not gdpr_internal.is_control_column(l.id, a.attname)
    and not exists (
      select from pg_constraint as k where k.conrelid = l.relation and k.contype in ('p', 'f') and a.attnum = any (k.conkey)
    )
  union all
  select 'error', 'bypassing_view', v.oid::regclass::text,
    format('view over %s belongs to %s, who passes row security', l.relation, v.relowner::regrole),
    'Give the view to a role without superuser and BYPASSRLS, or create it WITH (security_invoker).'
  from live as l
  join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = l.relation and d.classid = 'pg_rewrite'::regclass
  join pg_rewrite as w on w.oid = d.objid
  join pg_class as v on v.oid = w.ev_class and v.relkind in ('v', 'm')
  join pg_roles as o on o.oid = v.relowner
  where (o.rolsuper or o.rolbypassrls)
    and not coalesce('security_invoker=true' = any (v.reloptions) or 'security_invoker=on' = any (v.reloptions), false)
  group by v.oid, v.relowner, l.relation
  union all
  select 'warning', 'copy_of_rows', v.oid::regclass::text, format('a materialized view keeps a copy of %s that no gate protects', l.relation),
    'Protect it by dropping it, or build it on a redacted view.'
  from live as l
  join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = l.relation and d.classid = 'pg_rewrite'::regclass
  join pg_rewrite as w on w.oid = d.objid
  join pg_class as v on v.oid = w.ev_class and v.relkind = 'm'
  group by v.oid, l.relation
  union all
  select 'warning', 'statistics', l.relation::text, 'the planner''s statistics may hold values of persons erased since the last ANALYZE',
    format('ANALYZE %s;', l.relation)
  from live as l
  join pg_stat_all_tables as s on s.relid = l.relation
  where exists (
    select from gdpr_internal.erasure_record as e
    where e.erased_at > coalesce(greatest(s.last_analyze, s.last_autoanalyze), '-infinity')
      and exists (
        select from jsonb_array_elements(e.receipt -> 'tables') as t
        where t ->> 'table' = l.relation::text and (t ->> 'rows')::bigint > 0
      )
  ) and exists (select from pg_class as c where c.oid = l.relation and c.reltuples >= 0)
  union all
  select 'error', 'deferred_trigger', l.relation::text, format('trigger %I is deferrable: it would run with the rights of whoever commits', g.tgname),
    format('drop trigger %I on %s;', g.tgname, l.relation)
  from live as l
  join pg_trigger as g on g.tgrelid = l.relation and not g.tgisinternal and g.tgdeferrable
  union all
  select 'warning', 'several_owners', string_agg(distinct c.relowner::regrole::text, ', '),
    'protected tables belong to several roles: what one owner plants in a table can read and write the rows of the others (never their keys)',
    'Give all protected tables of a database to one owner.'
  from live as l
  join pg_class as c on c.oid = l.relation
  having count(distinct c.relowner) > 1
  union all
  select 'info', 'index_unused', i.indexrelid::regclass::text,
    format('row security keeps most conditions away from this index of %s', l.relation), 'Equality and ordering reach an index; LIKE, trigram, JSON and expressions do not. See docs/limits.md.'
  from live as l
  join pg_index as i on i.indrelid = l.relation and (i.indexprs is not null or exists (
    select from pg_class as c join pg_am as m on m.oid = c.relam where c.oid = i.indexrelid and m.amname in ('gin', 'gist', 'spgist')
  ))
  where l.mode = 'enforce' and l.present;
end;
comment on function gdpr_internal.doctor_tables() is 'Findings about protected tables.';

create or replace function gdpr_internal.doctor_roles()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'error', 'owner_role', r.rolname::text, 'an owner of gdprdb may log in, is superuser or passes row security',
    format('alter role %I nologin nosuperuser nobypassrls;', r.rolname)
  from pg_roles as r
  where r.rolname in ('gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer') and (r.rolcanlogin or r.rolsuper or r.rolbypassrls)
  union all
  select 'error', 'owner_member', u.rolname::text, format('%s can act as %s', u.rolname, r.rolname),
    format('revoke %I from %I;', r.rolname, u.rolname)
  from pg_roles as r
  join pg_roles as u on u.rolcanlogin and not u.rolsuper
    -- from version 16 on the creator of a role is a member who may hand it on, but not act as it
    and pg_has_role(u.oid, r.oid, case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end)
  where r.rolname in ('gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer')
  union all
  select 'error', 'role_missing', b.role_name::text, 'the policy binds a role that does not exist here', 'Create the role and apply the policy again (roles are not part of a database dump).'
  from gdpr_internal.role_binding as b
  where to_regrole(quote_ident(b.role_name)) is null
  union all
  select 'error', 'membership', b.role_name::text, 'the role is bound by the policy but lacks the group of its audience',
    'Apply the policy again: gdprdb policy apply.'
  from gdpr_internal.role_binding as b
  where b.definition <> '{}' and to_regrole(quote_ident(b.role_name)) is not null
    and not pg_has_role(b.role_name, gdpr_internal.audience_group(b.audience), 'member')
  union all
  select 'warning', 'bypass', r.rolname::text, 'a login without superuser passes row security', format('alter role %I nobypassrls;', r.rolname)
  from pg_roles as r
  where r.rolbypassrls and not r.rolsuper and r.rolcanlogin
  union all
  select 'warning', 'reads_all', u.rolname::text, format('%s is a member of %s, which passes the grants on every table', u.rolname, r.rolname),
    format('revoke %I from %I;', r.rolname, u.rolname)
  from pg_roles as r
  join pg_roles as u on u.rolcanlogin and not u.rolsuper and pg_has_role(u.oid, r.oid, 'member')
  where r.rolname in ('pg_read_all_data', 'pg_write_all_data')
  union all
  select 'warning', 'base_privilege', format('%s on %s', b.role_name, t.relation),
    'a role of a redacted audience has rights on the table itself (the gate refuses them)', format('revoke all on %s from %I;', t.relation, b.role_name)
  from gdpr_internal.role_binding as b
  cross join gdpr_internal.protected_table as t
  where t.unprotected_at is null and b.audience <> 'clear'
    and to_regrole(quote_ident(b.role_name)) is not null and exists (select from pg_class as c where c.oid = t.relation)
    and (
      has_any_column_privilege(b.role_name, t.relation, 'select, insert, update')
      or has_table_privilege(b.role_name, t.relation, 'delete')
    );
end;
comment on function gdpr_internal.doctor_roles() is 'Findings about roles.';

create or replace function gdpr_internal.doctor_machinery()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with ours as (
    select n.oid, n.nspname from pg_namespace as n where n.nspname in ('gdpr', 'gdpr_internal', 'gdpr_policy', 'gdpr_generated') or n.nspname = any (gdpr_internal.view_schemas())
  ),
  functions as (
    select p.oid, p.proowner, p.prosecdef, p.proconfig, p.proacl, p.prolang, p.pronamespace, p.prosqlbody is not null as atomic, p.proname
    from pg_proc as p
    join ours as o on o.oid = p.pronamespace
    where not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
  )
  select 'error', 'function_owner', f.oid::regprocedure::text, format('a function in gdprdb''s schemas belongs to %s', f.proowner::regrole),
    'Drop it, or find out who put it there.'
  from functions as f
  where f.proowner::regrole::text not in ('gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer')
  union all
  select 'error', 'function_header', f.oid::regprocedure::text, 'a definer function without a fixed search_path', 'gdprdb db upgrade loads the functions again.'
  from functions as f
  where f.prosecdef and not exists (select from unnest(f.proconfig) as c where starts_with(c, 'search_path=pg_catalog,'))
  union all
  select 'error', 'public_function', f.oid::regprocedure::text, 'PUBLIC may execute a function of gdprdb', 'gdprdb db upgrade revokes it.'
  from functions as f
  where exists (select from aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) as a where a.grantee = 0 and a.privilege_type = 'EXECUTE')
    and f.oid::regprocedure::text <> all (array[
      'gdpr_internal.refuse(text,text)', 'gdpr_internal.error_text(text)', 'gdpr_internal.open_value(bytea,bigint,integer,text)',
      'gdpr_generated.is_clear(name)', 'gdpr_generated.is_home()', 'gdpr_policy.is_here(oid,text)', 'gdpr_generated.purpose_mask(name,text)', 'gdpr_internal.open_ticket(bytea)', 'gdpr_internal.ticket_context()',
      'gdpr_policy.purpose_mask(name,text)', 'gdpr_policy.still_allowed(bigint,bigint,name,text)', 'gdpr_policy.refuse_base(name)',
      'gdpr_policy.special_allowed(bigint,name,text)', 'gdpr_policy.refuse_clear(name,regclass)',
      'gdpr_policy.kept_since(name,text,interval,anyelement)'
    ])
  union all
  select 'error', 'public_relation', c.oid::regclass::text, 'PUBLIC has rights on a relation of gdprdb', 'gdprdb db upgrade revokes them.'
  from pg_class as c
  join ours as o on o.oid = c.relnamespace
  where exists (select from aclexplode(c.relacl) as a where a.grantee = 0)
  union all
  select 'error', 'schema_open', o.nspname::text, 'somebody else may create objects in a schema of gdprdb', 'gdprdb db upgrade revokes it.'
  from ours as o
  join pg_namespace as n on n.oid = o.oid
  where exists (
    select from aclexplode(n.nspacl) as a
    where a.privilege_type = 'CREATE' and a.grantee::regrole::text not in ('gdpr_owner', 'gdpr_keyholder', 'gdpr_viewer')
  ) or n.nspowner::regrole::text <> 'gdpr_owner'
  union all
  select 'error', 'internal_row_security', c.oid::regclass::text, 'row security is off on a table of evidence', 'gdprdb db upgrade turns it on.'
  from pg_class as c
  where c.relnamespace = 'gdpr_internal'::regnamespace and c.relkind in ('r', 'p') and c.relowner::regrole::text = 'gdpr_owner'
    and not c.relrowsecurity and c.relname <> 'schema_version'
  union all
  select 'error', 'append_only', c.oid::regclass::text, 'evidence can be changed: its trigger is missing or disabled', 'gdprdb db upgrade puts it back.'
  from pg_class as c
  where c.relnamespace = 'gdpr_internal'::regnamespace
    and c.relname = any (gdpr_internal.evidence_tables())
    and (select count(*) from pg_trigger as g where g.tgrelid = c.oid and g.tgname in ('gdpr_50_append_only', 'gdpr_50_no_truncate') and g.tgenabled = 'A') < 2
  union all
  select 'warning', 'audit_partition', 'gdpr_internal.audit_record_rest', 'audit records lie outside the monthly partitions', 'gdprdb policy apply makes partitions ahead.'
  where exists (select from gdpr_internal.audit_record_rest)
  union all
  select 'warning', 'audit_partition', to_char(statement_timestamp() + interval '1 month', 'YYYY_MM'), 'next month has no audit partition', 'gdprdb policy apply makes partitions ahead.'
  where to_regclass('gdpr_internal.audit_record_' || to_char((statement_timestamp() + interval '1 month') at time zone 'UTC', 'YYYY_MM')) is null
  union all
  select 'warning', 'assessment', p.name, 'rests on legitimate interests, and no approved assessment carries it',
    'gdpr.record_assessment(), and gdpr.approve_assessment() by somebody else; until then only a grace period, or another basis, lets its data be used.'
  from gdpr_internal.purpose as p
  where p.basis = 'legitimate_interests' and p.assessed_until <= statement_timestamp()
    and exists (select from gdpr_internal.protected_table as t where t.unprotected_at is null and t.purpose_mask & (1::bigint << p.id) <> 0)
  union all
  select 'info', 'assessment', p.name, 'the assessment of legitimate interests is due for review', 'Review it, and gdpr.approve_assessment() it anew.'
  from gdpr_internal.purpose as p
  where p.basis = 'legitimate_interests' and p.assessed_until > statement_timestamp()
    and p.assessed_until <= statement_timestamp() + interval '30 days'
  union all
  select 'info', 'stale_gates', count(*)::text, 'persons whose gate has passed its instant (right, but slower to read)', 'select gdpr.tidy_gates();'
  from gdpr_internal.subject as s
  where s.until <= statement_timestamp()
  having count(*) > 0
  union all
  select 'info', 'transport', 'ssl', 'connections are not encrypted by the server', 'Turn ssl on unless all clients use the local socket.'
  where not current_setting('ssl')::boolean;
end;
comment on function gdpr_internal.doctor_machinery() is 'Findings about gdprdb''s own objects.';

create or replace function gdpr_internal.doctor_rows()
returns table (severity text, topic text, object text, finding text, hint text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table record;
  v_before text;
  v_gates bigint;
  v_orphans bigint;
  v_plain bigint;
begin
  for v_table in
    select t.id, t.relation, c.reltuples
    from gdpr_internal.protected_table as t
    join pg_class as c on c.oid = t.relation
    where t.unprotected_at is null
    order by t.relation::text
  loop
    object := v_table.relation::text;
    if v_table.reltuples > 1000000 then
      severity := 'info';
      topic := 'rows';
      finding := 'more than a million rows: not read';
      hint := null;
      return next;
      continue;
    end if;
    severity := 'error';
    begin
      v_before := gdpr_internal.before_worker();
      execute format('select * from gdpr_generated.%I()', 'check_' || v_table.id) into v_gates, v_orphans, v_plain;
      -- what a planted row policy did as gdpr_worker is undone with this block
      perform gdpr_internal.after_worker(v_before);
    exception when others then
      topic := 'rows';
      finding := 'the rows cannot be read by gdprdb';
      hint := 'Apply the policy again: gdprdb policy apply.';
      return next;
      continue;
    end;
    if v_gates > 0 then
      topic := 'gates';
      finding := format('%s rows have another gate than their person', v_gates);
      hint := 'Somebody wrote past the triggers. Find out who, then unprotect and protect the table again.';
      return next;
    end if;
    if v_orphans > 0 then
      topic := 'orphans';
      finding := format('%s rows belong to nobody', v_orphans);
      hint := 'Somebody wrote past the triggers. Find out who, then unprotect and protect the table again.';
      return next;
    end if;
    if v_plain > 0 then
      topic := 'plaintext';
      finding := format('%s rows hold plaintext, or ciphertext of somebody else, in an encrypted column', v_plain);
      hint := 'Somebody wrote past the triggers. Find out who, then unprotect and protect the table again.';
      return next;
    end if;
  end loop;
end
$function$;
comment on function gdpr_internal.doctor_rows() is 'Findings about the rows of protected tables with up to a million rows: gate, subject and ciphertext as the evidence has them.';

create or replace function gdpr_internal.machinery()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select md5(string_agg(
    format('%s %s %s %s %s', p.oid::regprocedure, p.proowner::regrole, p.prosecdef, p.proconfig, md5(p.prosrc)), E'\n'
    order by p.oid::regprocedure::text collate "C"
  ))
  from pg_proc as p
  where p.pronamespace in ('gdpr'::regnamespace, 'gdpr_internal'::regnamespace, 'gdpr_policy'::regnamespace)
    and not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e');
end;
comment on function gdpr_internal.machinery() is 'A hash over gdprdb''s own functions: owner, SECURITY DEFINER, settings, source.';

create or replace function gdpr.doctor()
returns table (severity text, topic text, object text, finding text, hint text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
begin
  return query
  select f.*
  from (
    select * from gdpr_internal.doctor_tables()
    union all
    select * from gdpr_internal.doctor_roles()
    union all
    select * from gdpr_internal.doctor_machinery()
    union all
    select * from gdpr_internal.doctor_keys()
    union all
    select * from gdpr_internal.doctor_mails()
    union all
    select * from gdpr_internal.doctor_home()
    union all
    select * from gdpr_internal.doctor_sharing()
    union all
    select * from gdpr_internal.doctor_retention()
    union all
    select * from gdpr_internal.doctor_rows()
    union all
    select 'error', 'machinery', 'functions of gdprdb', 'the functions are not those of the release', 'gdprdb db upgrade loads them again.'
    where gdpr_internal.machinery() is distinct from (select s.value #>> '{}' from gdpr_internal.setting as s where s.name = 'machinery')
    union all
    select 'error', 'gates', format('subject %s', s.id), 'the gate of the person is not what the evidence says', 'Somebody changed gdpr_internal.subject. select gdpr.tidy_gates() derives it anew.'
    from (
      select s.id, s.purposes from gdpr_internal.subject as s where s.until > statement_timestamp() order by s.id desc limit 10000
    ) as s
    join gdpr_internal.gate(array(select x.id from gdpr_internal.subject as x where x.until > statement_timestamp() order by x.id desc limit 10000)) as g
      on g.subject_id = s.id
    where g.possible <> s.purposes
  ) as f
  order by array_position(array['error', 'warning', 'info'], f.severity), f.topic, f.object;
end
$function$;
comment on function gdpr.doctor() is
  'What is not as gdprdb claims it is: severity (error, warning, info), topic, object, finding, hint. No error and no warning: the claims of the documentation hold. Art. 5(2), Art. 32(1)(d).';

create or replace function gdpr.release()
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_release text;
begin
  if to_regclass('gdpr_internal.schema_version') is not null then
    select v.version_num into v_release from gdpr_internal.schema_version as v;
  end if;
  return v_release;
end
$function$;
comment on function gdpr.release() is 'The release of gdprdb in this database; null when it was loaded without its migrations.';

set local role gdpr_keyholder;

create or replace function gdpr_internal.doctor_keys()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'error', 'key', 'key-encryption key', 'there is no key',
    case when exists (select from gdpr_internal.subject) then 'Restore gdpr_internal.key_encryption_key and subject_key from their backup.' else 'select gdpr.create_key();' end
  where not exists (select from gdpr_internal.key_encryption_key)
  union all
  select 'warning', 'key', 'key-encryption key', 'the key lies in the database, beside what it encrypts',
    'For production create the key with provider session and keep it elsewhere.'
  from gdpr_internal.key_encryption_key as k
  where k.provider = 'table'
  union all
  select 'error', 'data_keys', count(*)::text, 'persons who are not erased have no data key: their ciphertext cannot be read',
    'A restore without the key tables does this: restore gdpr_internal.subject_key from its own backup.'
  from gdpr_internal.subject as s
  where s.erased_at is null and not exists (select from gdpr_internal.subject_key as k where k.subject_id = s.id)
  having count(*) > 0
  union all
  select 'error', 'key', 'key-encryption key', 'there are data keys and no key that wrapped them', 'Restore gdpr_internal.key_encryption_key.'
  where exists (select from gdpr_internal.subject_key as s where not exists (select from gdpr_internal.key_encryption_key as k where k.id = s.kek_id));
end;
comment on function gdpr_internal.doctor_keys() is 'Findings about keys.';

-- 90_accountability/20_tidy.sql
-- [code] Tidying: what time has made of no effect is deleted, what it has made slow is made fast again.
-- GDPR Art. 5(1)(e). Called by: gdpr_admin, a nightly job. Correctness never waits for it.

set local role gdpr_owner;

create or replace function gdpr.tidy_tokens(p_limit integer default 10000)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_deleted integer;
begin
  with past as (
    select t.digest from gdpr_internal.token as t
    where case
      when t.kind in ('sign_in', 'session') then t.valid_until < statement_timestamp()
      -- an answer by phone that comes late still makes the link one that withdraws
      when t.used_at is null then t.valid_until < statement_timestamp() - interval '1 month'
      when t.kind = 'consent' then t.used_at < statement_timestamp() - interval '1 year' and not exists (
        select from gdpr_internal.consent_request as q
        join gdpr_internal.consent_state as c on c.subject_id = q.subject_id and c.purpose_id = any (q.purposes)
        where q.id = t.reference and c.status in ('granted', 'waiting')
      )
    end
    limit p_limit
    for update skip locked
  )
  delete from gdpr_internal.token as t using past as p where t.digest = p.digest;
  get diagnostics v_deleted = row_count;
  delete from gdpr_internal.sign_in_mail as m
  where m.mailed_at <= statement_timestamp() - gdpr_internal.portal_time('resend');
  return v_deleted;
end
$function$;
comment on function gdpr.tidy_tokens(integer) is
  'Deletes up to p_limit tokens and returns how many: sign-ins and sessions of the portal that are over, those that were not used a month after their time, and those of questions answered more than a year ago by which nothing can be withdrawn any more. Art. 5(1)(e).';

create or replace function gdpr.tidy(p_limit integer default 10000)
returns table (what text, tidied integer)
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'registrations', gdpr.tidy_registrations(p_limit)
  union all
  select 'tokens', gdpr.tidy_tokens(p_limit)
  union all
  select 'gates', gdpr.tidy_gates(p_limit)
  union all
  select 'blocklist', gdpr.tidy_blocklist(p_limit)
  union all
  select 'erasures', gdpr_internal.finish_erasures(p_limit);
end;
comment on function gdpr.tidy(integer) is
  'The nightly job: tidy_registrations(), tidy_tokens(), tidy_gates(), tidy_blocklist(), and the erasure of what a period kept of the erased until now, up to p_limit of each; returns how many there were. Repeat until all are 0. Never needed for correctness. Art. 5(1)(e).';

-- 99_seal/10_grants.sql
-- [code] Security last: everything is revoked, then each grant stands with its reason.
-- GDPR Art. 25, Art. 32(1)(b). Runs at the end of every load; per-schema default privileges would do nothing.

-- 1. nothing for nobody
do $revoke$
declare
  v_role text;
begin
  foreach v_role in array array['gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer'] loop
    execute format('set local role %I', v_role);
    -- each owner revokes what it owns; REVOKE on the objects of another would only warn
    declare
      v_object record;
    begin
      for v_object in
        select format('revoke all on function %s from public', p.oid::regprocedure) as statement
        from pg_catalog.pg_proc as p
        where p.pronamespace in ('gdpr'::regnamespace, 'gdpr_internal'::regnamespace, 'gdpr_policy'::regnamespace, 'gdpr_generated'::regnamespace)
          and p.proowner = v_role::regrole
        union all
        select format('revoke all on table %s from public, gdpr_admin, gdpr_dpo, gdpr_auditor, gdpr_app, gdpr_bi, gdpr_export, gdpr_api, gdpr_integration, gdpr_portal, gdpr_mail', c.oid::regclass)
        from pg_catalog.pg_class as c
        where c.relnamespace in ('gdpr'::regnamespace, 'gdpr_internal'::regnamespace)
          and c.relowner = v_role::regrole and c.relkind in ('r', 'p', 'v')
      loop
        execute v_object.statement;
      end loop;
    end;
  end loop;
  reset role;
end
$revoke$;

set local role gdpr_owner;
revoke all on schema gdpr, gdpr_internal, gdpr_policy, gdpr_generated, gdpr_clear, gdpr_bi, gdpr_export, gdpr_api, gdpr_integration from public;

-- 2. schemas
comment on schema gdpr is 'gdprdb: functions and views that people call.';
comment on schema gdpr_internal is 'gdprdb: registers, evidence, keys and helpers. Nothing here is called by name from outside.';
comment on schema gdpr_policy is 'gdprdb: the steps of gdpr.apply() and the functions of row policies, for gdpr_admin.';
comment on schema gdpr_generated is 'gdprdb: functions generated for each protected table, and their generators.';
comment on schema gdpr_clear is 'gdprdb: protected tables in plaintext, writable, for applications.';
comment on schema gdpr_bi is 'gdprdb: redacted views for audience bi.';
comment on schema gdpr_export is 'gdprdb: redacted views for audience export.';
comment on schema gdpr_api is 'gdprdb: redacted views for audience api.';
comment on schema gdpr_integration is 'gdprdb: redacted views for audience integration.';
grant usage on schema gdpr to
  gdpr_admin, gdpr_dpo, gdpr_auditor, gdpr_app, gdpr_bi, gdpr_export, gdpr_api, gdpr_integration, gdpr_portal, gdpr_mail;
grant usage on schema gdpr_policy, gdpr_generated to gdpr_admin; -- apply() names their functions as the table's owner
grant usage on schema gdpr_clear to gdpr_app, gdpr_dpo;
grant usage on schema gdpr_bi to gdpr_bi;
grant usage on schema gdpr_export to gdpr_export;
grant usage on schema gdpr_api to gdpr_api;
grant usage on schema gdpr_integration to gdpr_integration;

-- 3. row security on every table of evidence: a grant given by mistake shows nothing
do $rows$
declare
  v_table record;
begin
  for v_table in
    select c.oid::regclass as name
    from pg_catalog.pg_class as c
    where c.relnamespace = 'gdpr_internal'::regnamespace and c.relkind in ('r', 'p') and c.relname <> 'schema_version'
      and c.relowner = 'gdpr_owner'::regrole
  loop
    execute format('alter table %s enable row level security', v_table.name);
    continue when exists (
      select from pg_catalog.pg_policy as p where p.polrelid = v_table.name and p.polname = 'gdpr_machinery'
    );
    execute format('create policy gdpr_machinery on %s for all to gdpr_keyholder, gdpr_worker, gdpr_viewer using (true) with check (true)', v_table.name);
  end loop;
end
$rows$;

-- 4. what the owners of functions need from each other
-- triggers run as gdpr_keyholder: they create persons, identifiers, sources, default bases and audit records
grant select, insert, update, delete on gdpr_internal.identifier to gdpr_keyholder;
grant select, insert, update on gdpr_internal.subject to gdpr_keyholder; -- update: for the share lock
grant select, insert on gdpr_internal.source, gdpr_internal.basis_record to gdpr_keyholder;
grant usage on sequence gdpr_internal.subject_id_seq to gdpr_keyholder;
grant select, insert, update on gdpr_internal.outbox to gdpr_keyholder; -- it seals mails and opens them; update: for the lock
grant select, insert, update on gdpr_internal.registration to gdpr_keyholder; -- it seals registrations and empties them
grant usage on sequence gdpr_internal.outbox_id_seq, gdpr_internal.registration_id_seq to gdpr_keyholder;
grant select, insert, delete on gdpr_internal.notice_content to gdpr_keyholder; -- it seals notices, opens and deletes them
grant insert on gdpr_internal.audit_record to gdpr_keyholder;
grant select on
  gdpr_internal.audit_record, gdpr_internal.purpose, gdpr_internal.protected_table, gdpr_internal.protected_column,
  gdpr_internal.table_basis, gdpr_internal.default_basis, gdpr_internal.role_binding to gdpr_keyholder;
grant select on gdpr.error_code to gdpr_keyholder;
grant execute on function
  gdpr_internal.erasure_method(jsonb), gdpr_internal.neutral_value(text), gdpr_internal.base_type(text), gdpr_internal.refuse(text, text),
  gdpr_internal.refuse_deferred(regclass), gdpr_internal.require_worker(text), gdpr_generated.define(text),
  gdpr_internal.link_fingerprint(), gdpr_internal.erase_columns(smallint, name), gdpr_internal.erase_expression(gdpr_internal.erase_fact, text),
  gdpr_internal.generalised_code(gdpr_internal.erase_fact, text, text), gdpr_internal.pruned_code(gdpr_internal.erase_fact, text, jsonb, boolean),
  gdpr_internal.json_without(jsonb, text[]), gdpr_internal.json_only(jsonb, jsonb),
  gdpr_internal.time_zone(), gdpr_internal.empty_value(regclass, name, boolean), gdpr_internal.text_array(jsonb), gdpr_internal.rest_columns(regclass, jsonb) to gdpr_worker;
grant execute on function gdpr_internal.rectifiable_columns(smallint), gdpr.text_of(anyelement) to gdpr_worker; -- values that are corrected
revoke create on schema gdpr_generated from gdpr_worker; -- what is planted in a table runs as gdpr_worker while that is written
grant execute on function gdpr_generated.define(text) to gdpr_keyholder;
-- row functions run as gdpr_worker: they read the gate they copy
grant select on gdpr_internal.subject, gdpr_internal.protected_table, gdpr_internal.protected_column, gdpr_internal.protected_link,
  gdpr_internal.retention_rule to gdpr_worker;
-- what the key holder's functions call: the context, the gate, identifiers, mails
grant execute on function
  gdpr_internal.acting_role(), gdpr_internal.context_setting(text), gdpr_internal.context_source(), gdpr_internal.check_source(jsonb),
  gdpr_internal.purpose_inherited(name, text),
  gdpr_policy.purpose_mask(name, text), gdpr_policy.refuse_base(name), gdpr_policy.special_allowed(bigint, name, text),
  gdpr_internal.refuse(text, text), gdpr_internal.still_allowed(bigint, bigint), gdpr_internal.check_write(bigint, bigint, name, text),
  gdpr_internal.forgetting(), gdpr_internal.check_special(bigint, name, text), gdpr_internal.refresh_gate(bigint[]), gdpr_internal.before_worker(),
  gdpr_internal.after_worker(text, text), gdpr_internal.confirming(), gdpr_internal.confirmed_address(),
  gdpr_internal.canonical(text, text), gdpr_internal.bare_form(text, text), gdpr_internal.count_probe(),
  gdpr_internal.base_type(text), gdpr_internal.is_control_column(smallint, name),
  gdpr_internal.utc(timestamptz), gdpr_internal.about_columns(jsonb), gdpr_internal.hidden_columns(smallint, boolean),
  gdpr_internal.create_token(text, bigint, bigint, timestamptz), gdpr_internal.cancel_mails(bigint[], text), gdpr_internal.require_mailer()
to gdpr_keyholder;

-- 5. row policies are evaluated as whoever touches the table; the schemas' USAGE keeps them from being called by name
grant execute on function
  gdpr_internal.refuse(text, text), gdpr_internal.error_text(text),
  gdpr_policy.is_here(oid, text), gdpr_policy.purpose_mask(name, text), gdpr_policy.still_allowed(bigint, bigint, name, text),
  gdpr_policy.refuse_base(name),
  gdpr_policy.special_allowed(bigint, name, text), gdpr_policy.kept_since(name, text, interval, anyelement),
  gdpr_policy.refuse_clear(name, regclass) to public;

-- 6. policy and keys: gdpr_admin, who sees no data
do $steps$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid::regprocedure from pg_catalog.pg_proc as p
    where p.pronamespace = 'gdpr_policy'::regnamespace and p.proowner = 'gdpr_owner'::regrole
  loop
    execute format('grant execute on function %s to gdpr_admin', v_function);
  end loop;
end
$steps$;
-- the halves of steps that take the caller's role: reached through gdpr_policy alone, since nobody has USAGE here
grant execute on function
  gdpr_internal.register_table(name, regclass, jsonb), gdpr_internal.generate_functions(name, regclass),
  gdpr_internal.generate_views(name, regclass), gdpr_internal.settle_table(name, regclass), gdpr_internal.extend_table(name, regclass),
  gdpr_internal.drop_views(name, regclass), gdpr_internal.begin_unprotect(name, regclass),
  gdpr_internal.restore_statements(name, regclass), gdpr_internal.finish_unprotect(name, regclass) to gdpr_admin;

grant execute on function
  gdpr.plan(jsonb), gdpr.apply(jsonb), gdpr.refuse_policy(text[]), gdpr.unprotect(regclass), gdpr.tidy_gates(integer) to gdpr_admin;
grant execute on function gdpr.policy(), gdpr.doctor(), gdpr.release() to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr.whereabouts() to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr.release() to gdpr_mail, gdpr_app, gdpr_portal; -- the command line asks before it starts
grant select on gdpr.settings, gdpr.protected_table, gdpr.protected_column to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant select on gdpr.error_code to
  gdpr_admin, gdpr_dpo, gdpr_auditor, gdpr_app, gdpr_bi, gdpr_export, gdpr_api, gdpr_integration, gdpr_portal, gdpr_mail;

-- 7. the rights of persons: gdpr_dpo
grant execute on function
  gdpr.record_basis(bigint, text, text, text, timestamptz, bigint, timestamptz, jsonb, text),
  gdpr.record_bases(bigint[], text, text, text, timestamptz, bigint, timestamptz, jsonb, text),
  gdpr.end_basis(bigint, text), gdpr.end_bases(bigint[], text), gdpr.record_assessment(text, text, text, text, date),
  gdpr.approve_assessment(bigint, date, text), gdpr.reject_assessment(bigint, text), gdpr.subjects_of(regclass, text[]),
  gdpr.record_consent(bigint, text, boolean, text, jsonb, timestamptz, text[], bigint), gdpr.withdraw_consent(bigint, text, text, jsonb),
  gdpr.request_consent(bigint, text[], text, text, interval, boolean), gdpr.request_consents(bigint[], text[], text, text, interval, boolean),
  gdpr.record_form(text, text, text[], text[], text, text, text), gdpr.publish_form(text, text), gdpr.consent_receipt(bigint, text),
  gdpr.restrict(bigint, text), gdpr.lift_restriction(bigint, text), gdpr.object_to(bigint, text, jsonb),
  gdpr.access_report(bigint, boolean), gdpr.portable_copy(bigint, boolean), gdpr.access_pages(bigint, boolean, integer),
  gdpr.access_rows(bigint, jsonb), gdpr.send_report(bigint, boolean), gdpr.create_download(bigint, interval, boolean),
  gdpr.erase(bigint, text), gdpr.erase(bigint[], text), gdpr.erasure_plan(bigint), gdpr.finish_review(bigint, text),
  gdpr.block(text, text, text), gdpr.unblock(text, text, text), gdpr.is_blocked(text, text),
  gdpr.find_subject(text, text), gdpr.subject_of(regclass, text), gdpr.source_of(regclass, text) to gdpr_dpo;
grant select on
  gdpr.subject, gdpr.basis, gdpr.basis_overview, gdpr.would_lock, gdpr.assessment, gdpr.consent, gdpr.consent_history, gdpr.blocklist,
  gdpr.erasure_ledger, gdpr.review_due to gdpr_dpo;

grant execute on function
  gdpr.open_request(text, bigint, text, timestamptz, jsonb), gdpr.ask_identity(bigint, jsonb), gdpr.verify_identity(bigint, bigint, jsonb),
  gdpr.extend_request(bigint, text, jsonb), gdpr.refuse_request(bigint, text, jsonb), gdpr.withdraw_request(bigint, jsonb),
  gdpr.complete_request(bigint, text, jsonb), gdpr.announce_lifting(bigint, text, jsonb),
  gdpr.except_from_restriction(bigint, text, text, timestamptz, jsonb), gdpr.end_exception(bigint, text),
  gdpr.decide_objection(bigint, text, text, text, jsonb) to gdpr_dpo;
grant select on gdpr.request, gdpr.request_history, gdpr.request_board, gdpr.refusal_ground, gdpr.restriction, gdpr.restriction_exception,
  gdpr.objection to gdpr_dpo, gdpr_auditor;
-- called by the board as whoever reads it
grant execute on function
  gdpr_internal.request_misses(gdpr_internal.request_state), gdpr_internal.local_day(timestamptz), gdpr.until(date) to gdpr_dpo, gdpr_auditor;

-- rectification: officers; who may propose it besides, the policy says
grant execute on function
  gdpr.propose_rectification(bigint, jsonb, text), gdpr.approve_rectification(bigint, text), gdpr.reject_rectification(bigint, text),
  gdpr.rectify(bigint, jsonb, text), gdpr.rectify_rows(jsonb, text), gdpr.compare_rectification(jsonb, bigint),
  gdpr.rows_of(regclass, bigint) to gdpr_dpo;
grant select on gdpr.rectification, gdpr.rectification_log to gdpr_dpo, gdpr_auditor;
grant select on gdpr.supplementary_statement, gdpr.rectifiable_column to gdpr_dpo;
grant execute on function gdpr_internal.rectifiable_columns(smallint) to gdpr_dpo; -- called by the view as whoever reads it

-- 8. auditors read evidence, never plaintext
grant select on
  gdpr.subject, gdpr.basis, gdpr.basis_overview, gdpr.would_lock, gdpr.assessment, gdpr.consent, gdpr.consent_history, gdpr.blocklist,
  gdpr.erasure_ledger, gdpr.review_due to gdpr_auditor;

-- 8c. the ledger holds numbers and digests: auditors may take it away; what it locks, and what unlocks, is the officer's
grant execute on function gdpr.ledger(timestamptz, integer) to gdpr_dpo, gdpr_auditor;
grant execute on function gdpr.check_ledger(jsonb), gdpr.replay(jsonb), gdpr.accept_restore(text) to gdpr_dpo;
grant select on gdpr.replay_log, gdpr.home to gdpr_admin, gdpr_dpo, gdpr_auditor;

-- 8a. mails: who sends takes one and says what came of it; officers and administrators see that there are some, never what is in them
grant execute on function
  gdpr.next_mail(), gdpr.next_mail_at(), gdpr.mail_sent(bigint), gdpr.mail_failed(bigint, boolean, text), gdpr.mail_report(bigint) to gdpr_mail;
grant execute on function gdpr.retry_mails(bigint[]), gdpr.drop_mails(bigint[], text) to gdpr_admin, gdpr_dpo;
grant select on gdpr.outbox, gdpr.mail_log to gdpr_admin, gdpr_dpo, gdpr_auditor;

-- 8b. double opt-in: anybody's form; what a table takes, its policy says
grant execute on function gdpr.submit(text, jsonb, jsonb, text[], bigint), gdpr.confirm(text, jsonb), gdpr.opt_out(text) to gdpr_portal, gdpr_app;
grant execute on function gdpr.lift_opt_out(text, text) to gdpr_dpo;
grant execute on function gdpr.tidy_registrations(integer), gdpr.tidy_tokens(integer), gdpr.tidy_blocklist(integer), gdpr.tidy(integer) to gdpr_admin;
grant select on gdpr.registration, gdpr.opt_out to gdpr_admin, gdpr_dpo, gdpr_auditor;

-- 8c. retention: officers decide what has to stay; administrators see what stays
grant execute on function
  gdpr.place_hold(bigint, text, text, regclass, text, name[], timestamptz), gdpr.release_hold(bigint, text),
  gdpr.open_erasure_batch(bigint[], text), gdpr.run_erasure_batch(bigint, integer), gdpr.retry_erasure_batch(bigint),
  gdpr.erasure_proposals(integer), gdpr.approve_erasures(bigint[], text) to gdpr_dpo;
grant select on gdpr.erasure_batch to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr.run_retention(integer), gdpr.schedule_jobs(), gdpr.refuse_schedule() to gdpr_admin;
grant execute on function gdpr.retention_plan() to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant select on gdpr.retention_due to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant select on gdpr.hold to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr_internal.hold_article(text) to gdpr_admin, gdpr_dpo, gdpr_auditor; -- called by gdpr.hold
-- how often, never which: who keeps the blocklist and who administers see tries of a form
grant select on gdpr.probe to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr_internal.probe_totals() to gdpr_admin, gdpr_dpo, gdpr_auditor; -- called by that view

-- 8d. recipients and what they were told: officers keep the register; nobody else opens a notice
grant execute on function
  gdpr.record_recipient(text, text, text, text, text, text, text, timestamptz, text, text, timestamptz, text),
  gdpr.end_recipient(text),
  gdpr.record_disclosure(text, bigint[], text, regclass, text[], text[], text, text, text[], timestamptz), gdpr.recipients_of(bigint),
  gdpr.open_notice(bigint), gdpr.notice_sent(bigint, text, text), gdpr.confirm_notice(bigint, text), gdpr.notice_impossible(bigint, text)
to gdpr_dpo;
grant execute on function gdpr.export_rows(text, text[], text, text, text, text) to gdpr_dpo, gdpr_export, gdpr_api, gdpr_integration;
grant select on gdpr.adequacy, gdpr.recipient, gdpr.recipient_history, gdpr.disclosure, gdpr.notice, gdpr.notice_due to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function
  gdpr_internal.transfer_problem(gdpr_internal.recipient_record), gdpr_internal.adequate_now(date, date) to gdpr_admin, gdpr_dpo, gdpr_auditor; -- called by those views

-- consent forms hold no personal data; applications show them, and may only contact whom they may
grant select on gdpr.consent_form to gdpr_admin, gdpr_dpo, gdpr_auditor, gdpr_app;
grant execute on function gdpr_internal.form_text(gdpr_internal.consent_form) to gdpr_admin, gdpr_dpo, gdpr_auditor, gdpr_app;
grant execute on function
  gdpr.may_contact(bigint, text, text), gdpr_internal.may_contact(bigint, text, text, name) to gdpr_dpo, gdpr_app;
-- the portal: whose consent it is, says the token
grant execute on function
  gdpr.portal_form(text), gdpr.answer_consent(text, text[], text[], jsonb), gdpr.portal_withdraw(text, text[]), gdpr.portal_download(text) to gdpr_portal;
-- and who is signed in, says the session
grant execute on function
  gdpr.portal_request_sign_in(text, text), gdpr.portal_sign_in(text), gdpr.portal_sign_out(text), gdpr.portal_data(text), gdpr.portal_copy(text),
  gdpr.portal_purposes(text), gdpr.portal_withdraw_consent(text, text), gdpr.portal_answer_consent(text, text, boolean, text[], jsonb),
  gdpr.portal_object(text, text, jsonb), gdpr.portal_restrict(text, text, jsonb), gdpr.portal_correct(text, jsonb, text), gdpr.portal_erase(text, jsonb),
  gdpr.portal_requests(text) to gdpr_portal;

-- 9. everyone who works with personal data says who and why
grant execute on function
  gdpr.set_context(text, text, jsonb, text), gdpr_internal.check_context(name, text, jsonb), gdpr.purpose_bit(),
  gdpr.text_of(anyelement), gdpr.until(date) to
  gdpr_keyholder, gdpr_worker, gdpr_admin, gdpr_dpo, gdpr_app, gdpr_bi, gdpr_export, gdpr_api, gdpr_integration;

set local role gdpr_keyholder;
-- keys: their owner alone, even where a login may read all data (pg_read_all_data); views decrypt as gdpr_viewer
alter table gdpr_internal.key_encryption_key enable row level security;
alter table gdpr_internal.subject_key enable row level security;
alter table gdpr_internal.registration_key enable row level security;
alter table gdpr_internal.notice_key enable row level security;
do $keys$
begin
  if not exists (
    select from pg_catalog.pg_policy as p
    where p.polname = 'gdpr_views' and p.polrelid = 'gdpr_internal.key_encryption_key'::regclass
  ) then
    create policy gdpr_views on gdpr_internal.key_encryption_key for select to gdpr_viewer using (true);
    create policy gdpr_views on gdpr_internal.subject_key for select to gdpr_viewer using (true);
  end if;
end
$keys$;
grant select on gdpr_internal.key_encryption_key, gdpr_internal.subject_key to gdpr_viewer;
grant execute on function
  gdpr_internal.text_expression(text, text), gdpr_internal.mask_expression(text, text, text), gdpr_internal.column_facts(smallint) to gdpr_viewer;
grant execute on function gdpr_internal.redacted_columns(smallint) to gdpr_viewer, gdpr_worker;
grant execute on function gdpr_internal.open_evidence(bigint, text), gdpr_internal.open_changes(bigint, text) to gdpr_dpo, gdpr_auditor; -- called by views that show it to gdpr_dpo alone
grant execute on function
  gdpr_internal.opened_rows(bigint, smallint[], boolean, oid, tid[]), gdpr_internal.opened_sources(bigint, bigint[]),
  gdpr_internal.opened_history(bigint, timestamptz, bigint, timestamptz, bigint), gdpr_internal.row_pages(bigint, integer),
  gdpr_internal.seal_evidence(bigint, text), gdpr_internal.contacts(bigint[]), gdpr_internal.audit_event(text, bigint, jsonb),
  gdpr_internal.audit_events(text, bigint[], text, bigint[], jsonb), gdpr_internal.note_maintenance(),
  gdpr_internal.ledger_mac(bytea, boolean),
  gdpr_internal.identifier_digests(text, text), gdpr_internal.doctor_keys(), gdpr_internal.born_after(bigint, integer, text, date), gdpr_internal.destroy_keys(bigint[]), gdpr_internal.has_key(),
  gdpr_internal.generate_triggers(smallint),
  gdpr_internal.drop_generated_controls(smallint), gdpr_internal.text_expression(text, text),
  gdpr_internal.mask_expression(text, text, text), gdpr_internal.column_facts(smallint) to gdpr_owner;
grant execute on function
  gdpr_internal.key_expression(regclass, text), gdpr_internal.key_text(regclass, text), gdpr_internal.text_expression(text, text),
  gdpr_internal.value_subject(text),
  gdpr_internal.indented(text, text) to gdpr_worker;
set local role gdpr_owner;
grant execute on function gdpr_internal.is_control_column(smallint, name) to gdpr_worker, gdpr_viewer;
grant select on gdpr_internal.protected_table, gdpr_internal.protected_column to gdpr_viewer;
grant execute on function gdpr_internal.base_type(text) to gdpr_viewer;
set local role gdpr_viewer;
grant execute on function
  gdpr_generated.generate_clear_view(smallint), gdpr_generated.drop_clear_view(smallint),
  gdpr_generated.generate_redacted_view(smallint, name), gdpr_generated.drop_redacted_view(smallint, name) to gdpr_owner;
alter default privileges revoke execute on functions from public;
set local role gdpr_keyholder;
-- clear views call them as whoever reads; without a key, which no role can get, they open nothing
grant execute on function
  gdpr_internal.open_value(bytea, bigint, integer, text), gdpr_internal.open_ticket(bytea), gdpr_internal.ticket_context() to public;
grant execute on function gdpr_policy.decrypt_for_unprotect(bigint, integer, text) to gdpr_admin;
grant execute on function gdpr.create_key(text) to gdpr_admin;
grant execute on function gdpr.unlock(text) to gdpr_admin, gdpr_dpo, gdpr_app, gdpr_portal, gdpr_mail;
grant execute on function gdpr.open_mail(bigint) to gdpr_mail;
grant execute on function
  gdpr_internal.queue_mails(bigint[], text, text[], jsonb[], timestamptz, timestamptz),
  gdpr_internal.queue_mail(bigint, text, text, jsonb, timestamptz, timestamptz),
  gdpr_internal.put_sign_in(bigint, text, text, timestamptz),
  gdpr_internal.put_registration(smallint, uuid, uuid, jsonb, text, text, interval, boolean),
  gdpr_internal.open_registration(gdpr_internal.registration), gdpr_internal.empty_registrations(bigint[]),
  gdpr_internal.seal_notice(bigint, jsonb, text, bigint[], uuid[], text[]), gdpr_internal.open_notice(bigint), gdpr_internal.forget_notice(bigint),
  gdpr_internal.row_key(smallint, text), gdpr_internal.row_keys(smallint, text[]), gdpr_internal.open_evidence(bigint, text),
  gdpr_internal.open_values(bigint[], integer[], text[]), gdpr_internal.digests_of(text[], text[]) to gdpr_owner;
grant select on gdpr.key_status to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr_internal.reveal(text, name, text), gdpr.reveal(text), gdpr.digest(text, text) to gdpr_app, gdpr_dpo;
grant select on gdpr.audit_log, gdpr.source to gdpr_dpo, gdpr_auditor;

set local role gdpr_worker;
grant execute on function
  gdpr_generated.generate_rows(smallint), gdpr_generated.generate_registrations(smallint), gdpr_generated.generate_dispatch(), gdpr_generated.drop_generated_rows(smallint),
  gdpr_generated.read_cells(smallint, text[], name[], text[], boolean), gdpr_generated.cells_of(smallint, bigint[], name, boolean) to gdpr_owner;

-- 10. what is generated later starts closed; its generator grants it
alter default privileges revoke execute on functions from public;
set local role gdpr_keyholder;
alter default privileges revoke execute on functions from public;
set local role gdpr_owner;
alter default privileges revoke execute on functions from public;
reset role;

-- 99_seal/20_regenerate.sql
-- [code] The functions generated for protected tables follow the release that generates them.
-- GDPR Art. 25. Tables whose controls had drifted stay drifted: only apply() mends them.

set local role gdpr_owner;

do $regenerate$
declare
  v_table gdpr_internal.protected_table;
  v_settled boolean;
begin
  -- the load has made and granted gdpr_worker's functions anew
  perform gdpr_internal.remember_worker();
  perform gdpr_internal.generate_purposes();
  perform gdpr_internal.generate_addresses();
  for v_table in select * from gdpr_internal.protected_table as t where t.unprotected_at is null order by t.id loop
    continue when not exists (select from pg_catalog.pg_class as c where c.oid = v_table.relation);
    v_settled := v_table.fingerprint is not distinct from gdpr_internal.fingerprint(v_table.relation);
    perform gdpr_internal.generate_triggers(v_table.id);
    perform gdpr_internal.generate_worker(v_table.id);
    if v_settled then
      update gdpr_internal.protected_table as t set fingerprint = gdpr_internal.fingerprint(t.relation) where t.id = v_table.id;
    end if;
  end loop;
  perform gdpr_internal.generate_worker(null);
  insert into gdpr_internal.setting (name, value)
  values ('machinery', to_jsonb(gdpr_internal.machinery()))
  on conflict (name) do update set value = excluded.value;
end
$regenerate$;

reset role;
