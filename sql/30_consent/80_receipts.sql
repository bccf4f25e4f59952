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
