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
