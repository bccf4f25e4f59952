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
