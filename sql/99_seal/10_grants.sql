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
    select c.oid::regclass as name, c.relrowsecurity
    from pg_catalog.pg_class as c
    where c.relnamespace = 'gdpr_internal'::regnamespace and c.relkind in ('r', 'p') and c.relname <> 'schema_version'
      and c.relowner = 'gdpr_owner'::regrole
  loop
    if not v_table.relrowsecurity then
      execute format('alter table %s enable row level security', v_table.name);
    end if;
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
grant select, insert, update, delete on gdpr_internal.read_note to gdpr_keyholder;
grant select on gdpr_internal.erasure_remainder to gdpr_keyholder; -- whose erasure is not finished
-- a renewal encrypts evidence anew: their triggers let nothing else through
grant update (details) on gdpr_internal.source to gdpr_keyholder;
grant update (evidence) on gdpr_internal.basis_record to gdpr_keyholder;
grant select, update (evidence) on gdpr_internal.consent_record, gdpr_internal.lifting_notice to gdpr_keyholder;
grant select, update (details) on gdpr_internal.request, gdpr_internal.request_event, gdpr_internal.restriction_exception,
  gdpr_internal.objection_record, gdpr_internal.objection_decision to gdpr_keyholder;
grant select, update (content) on gdpr_internal.rectification to gdpr_keyholder;
grant select, update (content, reason) on gdpr_internal.rectification_record to gdpr_keyholder;
grant select on gdpr_internal.restriction_record, gdpr_internal.hold to gdpr_keyholder;
grant select, update (reason) on gdpr_internal.restriction_end, gdpr_internal.restriction_exception_end, gdpr_internal.hold_end,
  gdpr_internal.rectification_decision to gdpr_keyholder;
grant select, update (reference) on gdpr_internal.disclosure_person to gdpr_keyholder;
grant select on
  gdpr_internal.audit_record, gdpr_internal.purpose, gdpr_internal.protected_table, gdpr_internal.protected_column, gdpr_internal.any_column,
  gdpr_internal.enabling, gdpr_internal.table_basis, gdpr_internal.default_basis, gdpr_internal.role_binding, gdpr_internal.reshape to gdpr_keyholder;
grant select on gdpr.error_code to gdpr_keyholder;
grant execute on function
  gdpr_internal.erasure_method(jsonb), gdpr_internal.neutral_value(text), gdpr_internal.base_type(text), gdpr_internal.refuse(text, text),
  gdpr_internal.refuse_deferred(regclass), gdpr_internal.require_worker(text), gdpr_generated.define(text),
  gdpr_internal.link_fingerprint(), gdpr_internal.erase_columns(smallint, name), gdpr_internal.erase_expression(gdpr_internal.erase_fact, text, text),
  gdpr_internal.generalised_code(gdpr_internal.erase_fact, text, text), gdpr_internal.pruned_code(gdpr_internal.erase_fact, text, jsonb, boolean),
  gdpr_internal.json_without(jsonb, text[]), gdpr_internal.json_only(jsonb, jsonb),
  gdpr_internal.known_obstacle(text, text, text, text),
  gdpr_internal.time_zone(), gdpr_internal.empty_value(regclass, name, boolean), gdpr_internal.text_array(jsonb), gdpr_internal.rest_columns(regclass, jsonb) to gdpr_worker;
grant execute on function gdpr_internal.rectifiable_columns(smallint), gdpr.text_of(anyelement) to gdpr_worker; -- values that are corrected
revoke create on schema gdpr_generated from gdpr_worker; -- what is planted in a table runs as gdpr_worker while that is written
grant execute on function gdpr_generated.define(text) to gdpr_keyholder;
-- row functions run as gdpr_worker: they read the gate they copy
grant select on gdpr_internal.subject, gdpr_internal.protected_table, gdpr_internal.protected_column, gdpr_internal.protected_link,
  gdpr_internal.retention_rule to gdpr_worker;
-- what the key holder's functions call: the context, the gate, identifiers, mails
grant execute on function
  gdpr_internal.acting_role(), gdpr_internal.context_setting(text), gdpr_internal.context_source(), gdpr_internal.check_source(jsonb), gdpr_internal.is_misshaped(jsonb),
  gdpr_internal.purpose_inherited(name, text), gdpr_internal.clear_inherited(name),
  gdpr_policy.purpose_mask(name, text), gdpr_policy.refuse_base(name), gdpr_policy.special_allowed(bigint, name, text),
  gdpr_internal.refuse(text, text), gdpr_internal.still_allowed(bigint, bigint), gdpr_internal.check_write(bigint, bigint, name, text),
  gdpr_internal.forgetting(smallint), gdpr_internal.check_special(bigint, name, text), gdpr_internal.refresh_gate(bigint[]), gdpr_internal.before_worker(),
  gdpr_internal.after_worker(text, text), gdpr_internal.confirming(), gdpr_internal.confirmed_address(),
  gdpr_internal.canonical(text, text), gdpr_internal.equal_form(text, text), gdpr_internal.bare_form(text, text), gdpr_internal.count_probe(),
  gdpr_internal.base_type(text), gdpr_internal.neutral_value(text), gdpr_internal.is_control_column(smallint, name), gdpr_internal.is_hidden_column(smallint, name), gdpr_internal.enabling_state(smallint), gdpr_internal.is_claiming(smallint), gdpr_internal.is_loose(jsonb),
  gdpr_internal.shadows(smallint, text), gdpr_internal.stored_type(regclass, pg_attribute), gdpr_internal.waits_for_shadow(gdpr_internal.protected_column),
  gdpr_internal.keeps_types(regclass, name[], regtype[]), gdpr_internal.utc(timestamptz), gdpr_internal.about_columns(jsonb), gdpr_internal.hidden_columns(smallint, boolean),
  gdpr_internal.present_names(smallint, timestamptz, text[]), gdpr_internal.present_row(smallint, timestamptz, jsonb), gdpr_internal.withheld_names(smallint),
  gdpr_internal.create_token(text, bigint, bigint, timestamptz), gdpr_internal.cancel_mails(bigint[], text), gdpr_internal.require_mailer(),
  gdpr_internal.require_read_committed(), gdpr_internal.dropped_before(), gdpr_internal.renew_rows(bigint[])
to gdpr_keyholder;

-- 5. row policies are evaluated as whoever touches the table; the schemas' USAGE keeps them from being called by name
grant execute on function
  gdpr_internal.refuse(text, text), gdpr_internal.error_text(text),
  gdpr_policy.is_here(oid, text), gdpr_policy.purpose_mask(name, text), gdpr_policy.still_allowed(bigint, bigint, name, text),
  gdpr_policy.refuse_base(name),
  gdpr_policy.special_allowed(bigint, name, text), gdpr_policy.kept_since(name, text, interval, anyelement),
  gdpr_policy.search_pattern(integer),
  gdpr_policy.refuse_clear(name, regclass, text[]), gdpr_policy.refuse_column(name, regclass, name),
  gdpr_policy.shows_column(regclass, name), gdpr_policy.shown_columns(regclass) to public;

grant execute on function gdpr_policy.note_snapshot() to gdpr_viewer; -- makes the triggers of clear views

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
  gdpr_internal.drop_views(name, regclass), gdpr_internal.check_statements(name, regclass), gdpr_internal.begin_unprotect(name, regclass),
  gdpr_internal.restore_statements(name, regclass), gdpr_internal.finish_unprotect(name, regclass),
  gdpr_internal.own_table(name, regclass), gdpr_internal.open_reshape(name, regclass), gdpr_internal.watch_reshape(name, regclass), gdpr_internal.follow_shape(name, regclass), gdpr_internal.close_reshape(name, regclass),
  gdpr_internal.retype_column(name, regclass, name, text, boolean),
  gdpr_internal.encrypt_columns(name, regclass), gdpr_internal.put_places(name, regclass),
  gdpr_internal.put_enabling(name, regclass, text), gdpr_internal.generate_enabling(name, regclass, boolean),
  gdpr_internal.end_enabling(name, regclass, boolean), gdpr_internal.enabling_work(name, regclass),
  gdpr_internal.take_blocks(name, regclass, bigint), gdpr_internal.pass_leaf(name, regclass, regclass, text),
  gdpr_internal.count_written(name, regclass, bigint) to gdpr_admin;

grant execute on function
  gdpr.plan(jsonb), gdpr.apply(jsonb), gdpr.next_step(jsonb), gdpr.backfill(regclass, integer), gdpr.estimate(jsonb), gdpr.refuse_policy(text[]), gdpr.unprotect(regclass), gdpr.tidy_gates(integer),
  gdpr.reshape(regclass), gdpr.reshape(regclass, text[], text), gdpr.end_reshape(regclass), gdpr.retype(regclass, name, text, boolean) to gdpr_admin;
grant execute on function gdpr.discover(integer), gdpr.draft_policy(integer) to gdpr_admin; -- with the rights of whoever calls
grant execute on function gdpr.policy(), gdpr.doctor(), gdpr.release() to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr.whereabouts() to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr.release() to gdpr_mail, gdpr_app, gdpr_portal; -- the command line asks before it starts
grant execute on function gdpr.table_named(text) to
  gdpr_admin, gdpr_dpo, gdpr_auditor, gdpr_app, gdpr_bi, gdpr_export, gdpr_api, gdpr_integration; -- names only
grant select on gdpr.settings, gdpr.protected_table, gdpr.protected_column, gdpr.enabling to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr_internal.enabling_leaves(smallint) to gdpr_admin, gdpr_dpo, gdpr_auditor; -- called by that view
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

-- the audit: administrators and officers close records into seals; auditors, who write nothing, verify
grant execute on function gdpr.seal_audit() to gdpr_admin, gdpr_dpo;
grant execute on function
  gdpr.verify_audit(jsonb), gdpr.audit_checkpoint(), gdpr.audit_lag(), gdpr.audit_catalog_changes(bigint) to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant select on gdpr.audit_seal to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant select on gdpr.audit_block, gdpr.audit_catalog, gdpr.audit_dropped, gdpr.audit_leaf to gdpr_dpo, gdpr_auditor;
grant execute on function gdpr_internal.drops(), gdpr_internal.sealed_retain(bigint) to gdpr_dpo, gdpr_auditor; -- called by that view
grant execute on function gdpr.drop_audit(date) to gdpr_admin;
grant execute on function gdpr.history(regclass, text, bigint), gdpr.note_audit_access(jsonb) to gdpr_dpo;
grant execute on function gdpr.broken_values(regclass, integer) to gdpr_admin, gdpr_dpo; -- where, and nothing of the values
grant execute on function gdpr.audit_table_id(text), gdpr.audit_purpose_id(text), gdpr.audit_row_key(text, text) to gdpr_dpo, gdpr_auditor;
grant execute on function gdpr.due_audit(date) to gdpr_admin, gdpr_dpo, gdpr_auditor;

-- maintenance is opened by the officer, for those who do it
grant execute on function gdpr.open_maintenance(text, timestamptz), gdpr.close_maintenance() to gdpr_dpo;
grant select on gdpr.guard, gdpr.maintenance to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr_internal.guard_stands(), gdpr_internal.open_window() to gdpr_admin, gdpr_dpo, gdpr_auditor; -- called by that view

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
-- an import writes with the rights of its caller; these say how, and keep count
grant execute on function
  gdpr.import_rows(regclass, jsonb, jsonb, boolean, bigint, text, bigint[], boolean, integer, boolean),
  gdpr_internal.begin_import(regclass, jsonb, jsonb, bigint, text, bigint[], boolean, integer, boolean),
  gdpr_internal.blocked_rows(regclass, jsonb[], bigint[]),
  gdpr_internal.insert_rows(text, jsonb[], bigint[]), gdpr_internal.failed_column(regclass, jsonb), gdpr_internal.error_names(text, text, text),
  gdpr_internal.end_import(regclass, bigint, boolean, text, bigint, bigint[], bigint[], bigint[], text[]) to gdpr_app, gdpr_admin;
grant select on gdpr.import, gdpr.import_refusal to gdpr_app, gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr.tidy_registrations(integer), gdpr.tidy_tokens(integer), gdpr.tidy_blocklist(integer), gdpr.tidy_imports(integer),
  gdpr.tidy(integer) to gdpr_admin;
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

-- 8e. accountability: officers keep the registers; administrators and auditors read them
grant execute on function
  gdpr.record_party(text, text, text, text, text, timestamptz),
  gdpr.record_impact_assessment(text, text[], text, text, text, text, date, text),
  gdpr.approve_impact_assessment(bigint, text, text, text, date), gdpr.reject_impact_assessment(bigint, text),
  gdpr.record_breach(jsonb, timestamptz), gdpr.amend_breach(bigint, jsonb), gdpr.assess_breach(bigint, text, text),
  gdpr.notify_breach(bigint, text, text, timestamptz, text), gdpr.excuse_breach(bigint, text, text), gdpr.close_breach(bigint, text),
  gdpr.add_breach_persons(bigint, bigint[]), gdpr.tell_breach(bigint, jsonb, integer, bigint), gdpr.breach_told(bigint, bigint, text, jsonb) to gdpr_dpo;
grant execute on function gdpr.persons_touched(name, timestamptz, timestamptz, regclass) to gdpr_dpo, gdpr_auditor;
grant execute on function gdpr.processing_record() to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant select on gdpr.party, gdpr.impact_assessment, gdpr.impact_assessment_due, gdpr.processing_activity to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant select on gdpr.breach, gdpr.breach_history, gdpr.breach_person to gdpr_dpo, gdpr_auditor;
-- called by those views as whoever reads them
grant execute on function gdpr_internal.breach_status(gdpr_internal.breach_state) to gdpr_dpo, gdpr_auditor;
grant execute on function gdpr_internal.assessment_in_force(smallint) to gdpr_admin, gdpr_dpo, gdpr_auditor;

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
  gdpr.portal_requests(text), gdpr.portal_take_back_objection(text, text, jsonb), gdpr.portal_withdraw_request(text, bigint, jsonb) to gdpr_portal;

-- 9. everyone who works with personal data says who and why
grant execute on function
  gdpr.set_context(text, text, jsonb, text), gdpr_internal.check_context(name, text, jsonb), gdpr.purpose_bit(),
  gdpr.text_of(anyelement), gdpr.equal_text(anyelement), gdpr.until(date) to
  gdpr_keyholder, gdpr_worker, gdpr_admin, gdpr_dpo, gdpr_app, gdpr_bi, gdpr_export, gdpr_api, gdpr_integration;
grant execute on function gdpr.column_triggers(regclass) to gdpr_app; -- the clear views' triggers run as whoever writes

set local role gdpr_keyholder;
-- keys: their owner alone, even where a login may read all data (pg_read_all_data); views decrypt as gdpr_viewer
alter table gdpr_internal.key_encryption_key enable row level security;
alter table gdpr_internal.subject_key enable row level security;
alter table gdpr_internal.registration_key enable row level security;
alter table gdpr_internal.notice_key enable row level security;
alter table gdpr_internal.key_renewal enable row level security;
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
grant execute on function gdpr_internal.open_reason(bigint, text) to gdpr_owner, gdpr_dpo, gdpr_auditor, gdpr_admin; -- asks for gdpr_dpo itself
grant execute on function gdpr_internal.open_evidence(bigint, text), gdpr_internal.open_changes(bigint, text) to gdpr_dpo, gdpr_auditor; -- called by views that show it to gdpr_dpo alone
grant execute on function
  gdpr_internal.opened_rows(bigint, smallint[], boolean, oid, tid[]), gdpr_internal.opened_sources(bigint, bigint[]),
  gdpr_internal.opened_history(bigint, timestamptz, bigint, timestamptz, bigint), gdpr_internal.row_pages(bigint, integer),
  gdpr_internal.seal_evidence(bigint, text), gdpr_internal.contacts(bigint[]), gdpr_internal.audit_event(text, bigint, jsonb),
  gdpr_internal.audit_events(text, bigint[], text, bigint[], jsonb), gdpr_internal.note_maintenance(),
  gdpr_internal.make_read_counters(smallint), gdpr_internal.drop_read_counters(smallint),
  gdpr_internal.ledger_mac(bytea, boolean), gdpr_internal.is_renewed(jsonb, jsonb),
  gdpr_internal.audit_row_key(smallint, text), gdpr_internal.open_version(smallint, bigint, jsonb, text),
  gdpr_internal.identifier_digests(text, text), gdpr_internal.doctor_keys(), gdpr_internal.born_after(bigint, integer, text, date), gdpr_internal.destroy_keys(bigint[]), gdpr_internal.has_key(),
  gdpr_internal.generate_triggers(smallint), gdpr_internal.held_checks(smallint), gdpr_internal.differs_code(regclass, name), gdpr_internal.plaintext_condition(smallint, text), gdpr_internal.drop_seal(smallint),
  gdpr_internal.time_person(integer, integer),
  gdpr_internal.drop_generated_controls(smallint), gdpr_internal.text_expression(text, text),
  gdpr_internal.mask_expression(text, text, text), gdpr_internal.column_facts(smallint) to gdpr_owner;
grant execute on function
  gdpr_internal.key_expression(regclass, text), gdpr_internal.key_text(regclass, text), gdpr_internal.text_expression(text, text),
  gdpr_internal.output_settings(regclass), gdpr_internal.row_pairs(regclass, text), gdpr_internal.object_code(text[]),
  gdpr_internal.value_subject(text),
  gdpr_internal.indented(text, text) to gdpr_worker;
set local role gdpr_owner;
grant execute on function gdpr_internal.is_control_column(smallint, name) to gdpr_worker, gdpr_viewer;
grant execute on function gdpr_internal.is_hidden_column(smallint, name) to gdpr_viewer, gdpr_worker;
grant select on gdpr_internal.protected_table, gdpr_internal.protected_column to gdpr_viewer;
grant execute on function gdpr_internal.note_code(smallint, jsonb), gdpr_internal.count_code(smallint, text, text) to gdpr_viewer;
grant execute on function gdpr_internal.base_type(text) to gdpr_viewer;
set local role gdpr_viewer;
grant execute on function
  gdpr_generated.generate_clear_view(smallint), gdpr_generated.drop_clear_view(smallint),
  gdpr_generated.generate_redacted_view(smallint, name), gdpr_generated.drop_redacted_view(smallint, name) to gdpr_owner;
alter default privileges revoke execute on functions from public;
set local role gdpr_keyholder;
-- clear views call them as whoever reads; without a key, which no role can get, they open nothing
grant execute on function
  gdpr_internal.open_value(bytea, bigint, integer, text), gdpr_internal.given_keys(bytea),
  gdpr_policy.note_read(smallint, boolean), gdpr_policy.count_read(regclass) to public;
grant execute on function gdpr_policy.decrypt_for_unprotect(bigint, integer, text) to gdpr_admin;
grant execute on function
  gdpr.create_key(text, text, text), gdpr.rotate_key(text, text, text), gdpr.rewrap_keys(integer), gdpr.finish_rotation(),
  gdpr.show_new_key(), gdpr.abort_rotation(), gdpr.lock_keys(),
  gdpr.renew_key(bigint), gdpr.renew_keys(integer, timestamptz) to gdpr_admin;
grant execute on function gdpr.check_key(text, integer) to gdpr_admin, gdpr_dpo, gdpr_auditor; -- whoever keeps the copy
grant execute on function gdpr_internal.is_unlocked(), gdpr_internal.key_state(gdpr_internal.key_encryption_key) to gdpr_admin, gdpr_dpo, gdpr_auditor; -- called by gdpr.key_status
grant execute on function gdpr.unlock(text, boolean) to gdpr_admin, gdpr_dpo, gdpr_app, gdpr_portal, gdpr_mail;
-- erasure takes the person's addresses out of arrays and documents
grant execute on function
  gdpr_internal.without_identifiers(bigint[], text[], text[]), gdpr_internal.json_without_identifiers(bigint[], text[], jsonb) to gdpr_worker;
grant execute on function gdpr_internal.broken_columns(bigint, integer[], text[]) to gdpr_worker; -- says which, and nothing of them
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
grant select on gdpr.key_status, gdpr.key_renewal to gdpr_admin, gdpr_dpo, gdpr_auditor;
grant execute on function gdpr_internal.reveal(text, name, text), gdpr.reveal(text), gdpr.digest(text, text), gdpr.digest_of(text, anyelement), gdpr.digests(text, text[]) to gdpr_app, gdpr_dpo;
grant select on gdpr.audit_log, gdpr.source to gdpr_dpo, gdpr_auditor;

set local role gdpr_worker;
grant execute on function
  gdpr_generated.registered_columns(smallint),
  gdpr_generated.generate_rows(smallint), gdpr_generated.generate_registrations(smallint), gdpr_generated.generate_dispatch(), gdpr_generated.drop_generated_rows(smallint),
  gdpr_generated.generate_retention(smallint), gdpr_generated.generate_erasures(),
  gdpr_generated.read_cells(smallint, text[], name[], text[], boolean), gdpr_generated.cells_of(smallint, bigint[], name, boolean),
  gdpr_generated.broken_rows(smallint, integer) to gdpr_owner;

-- 10. what is generated later starts closed; its generator grants it
alter default privileges revoke execute on functions from public;
set local role gdpr_keyholder;
alter default privileges revoke execute on functions from public;
set local role gdpr_owner;
alter default privileges revoke execute on functions from public;
reset role;
