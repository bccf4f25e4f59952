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
