-- [code] Every error that gdprdb raises: one table of codes, one function that raises them.
-- The two digits after PR are the station of the journey. No personal data ever goes into a message or a detail.

set local role gdpr_owner;

create or replace view gdpr.error_code (name, sqlstate, message, hint, article) as
values
  ('policy_refused', 'PR001', 'the policy is refused', 'Each line of the detail names one problem; nothing was changed.', 'Art. 25'),
  ('not_protected', 'PR002', 'the table is not protected', 'See gdpr.protected_table for the tables that are.', 'Art. 25'),
  ('unknown_table', 'PR007', 'there is no such table', 'Tables are named as in the policy: schema.table with its capitals, blanks and dots as they are, or quoted as in SQL; without a schema, public. gdpr.protected_table shows those of the policy.', 'Art. 25'),
  ('unknown_purpose', 'PR003', 'unknown purpose', 'Purposes are declared in the policy; gdpr.policy() shows them.', 'Art. 5(1)(b)'),
  ('not_table_owner', '42501', 'the table belongs to another role', 'Call this as the owner of the table or a member of the owner.', 'Art. 25'),
  ('invalid_argument', 'PR004', 'invalid argument', 'See the comment of the function for what it takes.', null),
  ('needs_read_committed', 'PR005', 'this function runs at READ COMMITTED only', 'Begin the transaction with ISOLATION LEVEL READ COMMITTED: rows written meanwhile would be missed otherwise.', 'Art. 7(3)'),
  ('enabling_state', 'PR006', 'the enabling of the table is not in a state for this', 'Somebody else went on with it: ask gdpr.next_step() again.', 'Art. 25'),
  ('rows_hidden', 'PR008', 'row security hides rows of the table from the role that enables it', 'Go on as a superuser or a role with BYPASSRLS, or let the policies in the detail be for other roles until it is done.', 'Art. 25'),
  ('purpose_not_held', '42501', 'the role does not hold the purpose it claims', 'Set gdpr.purpose to one of the role''s purposes, or bind the role to this one in the policy.', 'Art. 5(1)(b)'),
  ('no_purpose', '42501', 'the role holds no purpose for personal data', 'Bind the role to a purpose in the policy ([roles.<name>]), or give it purpose maintenance for migrations and dumps.', 'Art. 5(1)(b)'),
  ('base_refused', '42501', 'the role''s audience may not touch the table itself', 'Read the view of the same name in the schema of the role''s audience.', 'Art. 25'),
  ('clear_refused', '42501', 'the role has no right to read the table behind this view', 'GRANT SELECT on the table to the role: a clear view gives no right that its table does not.', 'Art. 32(4)'),
  ('column_refused', '42501', 'the role has no such right to this column of the table', 'GRANT it on the column or the table to the role: a clear view gives no right that its table does not. UPDATE and DELETE through the view read whole rows.', 'Art. 32(4)'),
  ('unknown_subject', 'PR101', 'unknown subject', 'gdpr.find_subject() and gdpr.subject_of() give the number of a person.', null),
  ('blocked_identifier', '23505', 'duplicate or blocked identifier', 'The value is in use or may not be stored.', 'Art. 17'),
  ('not_yet_linked', 'PR102', 'the parent row of this row does not exist', 'Insert the parent row first: this row belongs to the parent''s subject.', null),
  ('registration_refused', 'PR104', 'the registration is not accepted', 'Each line of the detail names one problem; nothing was kept.', 'Art. 5(1)(d)'),
  ('no_registrations', 'PR105', 'the table takes no registrations', 'Set double_opt_in for the table in the policy.', 'Art. 25'),
  ('registration_conflict', 'PR106', 'the table does not take the confirmed row', 'The registration waits on: mend the cause, and the same link works.', 'Art. 5(1)(d)'),
  ('registration_known', 'PR107', 'there is such an entry already', 'The person who confirms is registered, or was blocked.', 'Art. 5(1)(d)'),
  ('source_missing', 'PR108', 'the table takes no data of unknown source', 'Say where it comes from with gdpr.set_context() or gdpr.source.', 'Art. 14(2)(f)'),
  ('import_refused', 'PR109', 'rows are refused, and nothing is imported', 'Each line of the detail names one row; p_skip (--skip) takes the others.', 'Art. 5(1)(d)'),
  ('import_doubled', 'PR110', 'rows of the file would come in a second time', 'No unique key of the table tells them from those taken before: delete those first, or say p_double (--double) if they are to be there twice.', 'Art. 5(1)(d)'),
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
  ('erasure_incomplete', 'PR605', 'rows of the person are left after the erasure, or may be', 'The detail names tables whose rows a trigger or a row policy of the application kept, or restrictive policies that hide rows from everybody: let those be for the roles that they are meant for (ALTER POLICY ... TO). Nothing was erased.', 'Art. 17'),
  ('erasure_blocked', '23503', 'rows outside gdprdb''s reach refer to rows of the person', 'Nothing was erased: let the constraint cascade or set null, delete these rows first, protect their table, or anonymise the one they refer to.', 'Art. 17'),
  ('review_done', 'PR617', 'there is no such text to review', 'See gdpr.review_due.', 'Art. 17'),
  ('mail_refused', '42501', 'the role does not send mails', 'Bind the role to audience mail in the policy.', 'Art. 32(4)'),
  ('mail_not_taken', 'PR606', 'this session has not taken the mail', 'gdpr.next_mail() gives mails to a session; each one counts an attempt.', null),
  ('report_too_large', 'PR620', 'the report is too large for a mail', 'Give the person a download: gdpr.create_download().', 'Art. 15(3)'),
  ('unknown_request', 'PR607', 'unknown request', 'gdpr.request shows the requests of persons and their numbers.', 'Art. 12'),
  ('request_state', 'PR608', 'the request is not in a state for this', 'gdpr.request_board shows where requests stand and what they miss.', 'Art. 12'),
  ('request_of_another', 'PR609', 'the request is that of another person', 'gdpr.set_context(p_request => ...) names the request that is being fulfilled; leave it empty for what belongs to none.', 'Art. 5(2)'),
  ('too_late_to_extend', 'PR610', 'the time for an answer can be extended within the first month only', 'Answer the request, and say why it is late.', 'Art. 12(3)'),
  ('request_unanswered', 'PR611', 'what the request asks is not done', 'Do it with gdpr.set_context(p_request => ...), on the command line with --request, or complete with an outcome that says why not: fulfilled_in_part, fulfilled_elsewhere, done_before, nothing_held.', 'Art. 12(3)'),
  ('lifting_not_announced', 'PR612', 'the person was not told that the restriction is going to end', 'Tell them first, with gdpr.announce_lifting(): by mail, or with evidence of how else.', 'Art. 18(3)'),
  ('exception_refused', 'PR613', 'there is no such exception from a restriction', 'Exceptions are for restricted persons; with consent, it has to be newer than the restriction.', 'Art. 18(2)'),
  ('not_open_to_objection', 'PR614', 'nobody can object to this purpose', 'Consent is withdrawn with gdpr.withdraw_consent(); for contracts and legal obligations see gdpr.restrict() and gdpr.erase(). Mark direct marketing in the policy.', 'Art. 21(1)'),
  ('no_objection', 'PR615', 'there is no objection to decide about', 'gdpr.objection shows them.', 'Art. 21'),
  ('too_many_requests', 'PR616', 'the person has asked for too much at once', 'Wait for the answers, or until tomorrow; objecting and withdrawing consent are possible at any time.', 'Art. 12(5)'),
  ('too_often', 'PR618', 'the person has had too many reports in this hour', 'Show what was read before, or raise settings.portal.reports.', 'Art. 12(5)'),
  ('restored', 'PR640', 'the database was restored from a backup, and has not forgotten again', 'Replay the ledger (gdprdb ledger replay): it erases, restricts and withdraws again what was since. gdpr.accept_restore() is for a move that lost nothing.', 'Art. 17, Art. 32(1)(c)'),
  ('ledger_refused', 'PR641', 'the ledger cannot be replayed here', 'Take the ledger of this very database, as gdpr.ledger() gave it and all its parts in their order.', 'Art. 17'),
  ('erased', 'PR603', 'the person has been erased', 'Nothing more may be stored about this person.', 'Art. 17'),
  ('rectification_refused', 'PR630', 'the data cannot be corrected so', 'Each line of the detail names one problem; nothing was changed.', 'Art. 16'),
  ('rectification_four_eyes', 'PR631', 'who proposed a correction cannot approve it', 'Another officer has to call gdpr.approve_rectification().', 'Art. 16'),
  ('rectification_decided', 'PR632', 'the proposal was decided already', 'gdpr.rectification shows by whom; propose anew.', 'Art. 16'),
  ('key_missing', 'PR401', 'there is no key-encryption key', 'In a new database gdpr.create_key() makes it; after a restore, restore the key tables from their own backup.', 'Art. 32'),
  ('key_locked', 'PR402', 'the key is locked in this session', 'Give the key with gdpr.unlock(), sent as a bind parameter; gdprdb takes it from GDPRDB_KEY.', 'Art. 32'),
  ('key_wrong', 'PR403', 'this is not the key of this database', 'Give the key that gdpr.create_key() or the last rotation returned, or put it into its file again.', 'Art. 32'),
  ('key_file', 'PR412', 'the file of the key cannot be used', 'The detail says what is missing; gdprdb keys create gives the rights when a superuser calls it.', 'Art. 32'),
  ('rotation_state', 'PR413', 'the rotation of the key is not in a state for this', 'gdpr.key_status shows where it stands: gdpr.rotate_key(), then gdpr.rewrap_keys() until it returns 0, then gdpr.finish_rotation().', 'Art. 32'),
  ('key_not_shown', 'PR417', 'this session was not given the key that would be the only one', 'Give it with gdpr.unlock(), to prove that somebody has it. Until then gdpr.show_new_key() shows a new key again, and gdpr.abort_rotation() goes back to the key before.', 'Art. 32'),
  ('renewal_open', 'PR418', 'another renewal of data keys is going on', 'gdpr.key_renewal shows it: call gdpr.renew_keys() without p_made_before until it returns 0.', 'Art. 32'),
  ('search_words', 'PR420', 'these words cannot be searched for', 'Give one to four words, one of them of three letters or digits at least.', 'Art. 25'),
  ('data_key_missing', 'PR410', 'the data key of this person is gone', 'Restore gdpr_internal.subject_key from its backup.', 'Art. 32'),
  ('tampered', 'PR404', 'an encrypted value fails its integrity check', 'The value was altered, moved from another row or column, or written past the triggers. gdpr.broken_values() names the row; UPDATE on the table itself replaces the value.', 'Art. 32'),
  ('ciphertext_written', 'PR405', 'a ciphertext cannot be written as a value', 'Write the plaintext, or leave the column as it is.', 'Art. 32'),
  ('drifted', 'PR409', 'the table is not as the policy left it', 'Apply the policy again: gdprdb policy apply.', 'Art. 25'),
  ('session_changed', 'PR411', 'code in a table has changed the session', 'A trigger, policy or constraint of the table''s owner left it with other settings, or with something that runs later: remove it.', 'Art. 32'),
  ('deferred_trigger', 'PR604', 'a deferred trigger on the table would run with the rights of whoever commits', 'Drop the trigger or make it NOT DEFERRABLE.', 'Art. 32'),
  ('blocked_rows', 'PR103', 'existing rows carry blocked identifiers', 'Delete these rows, or take the identifiers off the blocklist with gdpr.unblock().', 'Art. 17'),
  ('reshape_refused', 'PR414', 'the table cannot have this shape under its policy', 'Each line of the detail names one problem; nothing was changed. Change the policy first with gdpr.apply(), or leave the column as it is.', 'Art. 25'),
  ('reshape_open', 'PR415', 'the shape of the table is being changed', 'gdpr.end_reshape() puts its controls back, in the same transaction; rows are read and written before gdpr.reshape() or after it.', 'Art. 25'),
  ('reshape_closed', 'PR416', 'the shape of the table is not being changed', 'Begin a transaction and call gdpr.reshape() in it first.', null),
  ('gate_columns', 'PR406', 'the columns gdpr_* are kept by the database', 'Leave them out of the statement.', 'Art. 25'),
  ('truncate_refused', 'PR407', 'a protected table cannot be truncated', 'Delete rows, or erase the persons with gdpr.erase().', 'Art. 5(2)'),
  ('row_changed', '40001', 'another transaction changed the row while this statement ran', 'Repeat the transaction. SELECT ... FOR UPDATE before it waits instead, and so does the same statement on the table itself.', null),
  ('no_primary_key', 'PR408', 'rows of this view cannot be addressed', 'Add a primary key to the table, or a unique one that is NOT NULL, and apply the policy again.', null),
  ('not_revealed', '42501', 'the value may not be revealed to this role', 'The role needs the audience clear, and a basis for its purpose has to hold for the person.', 'Art. 6, Art. 32'),
  ('value_too_long', '22001', 'the value is too long for the column', 'The column keeps the length it had before it was encrypted.', null),
  ('invalid_value', '22023', 'the value does not fit the column''s type', 'The column keeps the type and length it had before it was encrypted.', null),
  ('value_changes', '22023', 'a value would be another one in the new type', 'Choose a type that holds every value; gdpr.retype(..., p_lossy => true) rounds and shortens them.', null),
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
  ('audit_kept', 'PR502', 'audit records of this time cannot be dropped', 'The detail says why. settings.audit_retain of the policy says how long they are kept, a year at least; whole sealed months can go then.', 'Art. 5(1)(e)'),
  ('checkpoint_invalid', 'PR501', 'this is no checkpoint', 'gdpr.audit_checkpoint() gives one; gdprdb audit checkpoint signs it.', 'Art. 5(2)'),
  ('read_unrecorded', 'PR503', 'the transaction is read-only, and reads of this table have to be recorded', 'Read in a transaction that may write (BEGIN READ WRITE, on the primary), or let the policy say audit_reads = true.', 'Art. 32(1)(d)'),
  ('guarded', 'PR510', 'what protects personal data would be weakened', 'Each line of the detail names one control; nothing was changed. gdprdb policy apply, gdpr.unprotect() and gdpr.reshape() need no leave; for anything else an officer opens a maintenance window, on record: gdpr.open_maintenance().', 'Art. 32(1)(b)'),
  ('window_state', 'PR511', 'there is no such maintenance window to open or close', 'gdpr.maintenance shows them; one is open at a time.', 'Art. 32(1)(b)'),
  ('prior_consultation', 'PR901', 'a high risk is left, and the supervisory authority was not asked', 'Ask it before processing begins, and name its case (p_consultation).', 'Art. 36'),
  ('breach_open', 'PR902', 'the breach is not in a state for this', 'gdpr.breach shows what is to be done next.', 'Art. 33'),
  ('unknown_breach', 'PR903', 'there is no such breach', 'gdpr.breach lists them.', 'Art. 33(5)'),
  ('breach_late', 'PR904', 'a notification after 72 hours says why it is late', 'Give the reasons for the delay (p_delay_reason).', 'Art. 33(1)'),
  ('impact_four_eyes', 'PR905', 'the author of an impact assessment cannot approve it', 'Another officer has to call gdpr.approve_impact_assessment().', 'Art. 35'),
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
