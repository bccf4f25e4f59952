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
        -- of encrypted columns, held by triggers
        union all select k.value ->> 'name' from gdpr_internal.protected_column as c cross join jsonb_array_elements(c.original -> 'checks') as k
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

create or replace function gdpr_internal.present_registration(p_table smallint, p_at timestamptz, p_row jsonb)
returns jsonb
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when not exists (select from gdpr_internal.former_name as f where f.table_id = p_table) then p_row
    else (
      select coalesce(jsonb_object_agg(a.attname, e.value), '{}')
      from jsonb_each(p_row) as e
      join gdpr_internal.protected_table as t on t.id = p_table
      join pg_attribute as a on a.attrelid = t.relation and a.attname = gdpr_internal.present_name(p_table, p_at, e.key) and not a.attisdropped
    )
  end;
end;
comment on function gdpr_internal.present_registration(smallint, timestamptz, jsonb) is
  'What somebody entered then, under the names that the columns have now, without columns that were dropped since.';

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
  v_content := v_content || jsonb_build_object(
    'row', gdpr_internal.present_registration(v_table.id, v_registration.submitted_at, v_content -> 'row')
  );
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
    perform gdpr_internal.audit_event('OPT_OUT', null, jsonb_build_object('registration', v_registration.id));
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
  perform gdpr_internal.audit_event('OPT_OUT', null, '{"lifted": true}');
  return true;
end
$function$;
comment on function gdpr.lift_opt_out(text, text) is
  'Lets registrations send mails to an address again, on record; false when its owner had not opted out. Send the address as a bind parameter. p_reason must hold no personal data. Error: PR004.';

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
