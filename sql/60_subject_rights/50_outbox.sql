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
  if v_retried > 0 then
    perform gdpr_internal.audit_event('MAIL', null, jsonb_build_object('retried', v_retried));
  end if;
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
  if v_dropped > 0 then
    perform gdpr_internal.audit_event('MAIL', null, jsonb_build_object('dropped', v_dropped));
  end if;
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
