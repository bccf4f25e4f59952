-- [code] Whose data a breach is about, and telling them.
-- GDPR Art. 34. Called by: gdpr_dpo. The words are the officer's: clear and plain, in the languages that the persons read.

set local role gdpr_owner;

create or replace function gdpr.persons_touched(p_login name, p_from timestamptz, p_until timestamptz, p_table regclass default null)
returns table (subject_id bigint, records bigint, first_at timestamptz, last_at timestamptz)
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select a.subject_id, count(*), min(a.at), max(a.at)
  from gdpr_internal.audit_record as a
  left join gdpr_internal.protected_table as t on t.id = a.table_id
  where a.at >= p_from and a.at <= p_until and a.login = p_login and a.subject_id is not null
    and (p_table is null or t.relation = p_table)
  group by a.subject_id
  order by min(a.at), a.subject_id;
end;
comment on function gdpr.persons_touched(name, timestamptz, timestamptz, regclass) is
  'Whose data a login changed between two points in time, as the audit has it: whom a stolen password or a faulty program may be about. p_table: in this table only. What was only read is not here. Art. 33(3)(a).';

create or replace function gdpr.add_breach_persons(p_breach bigint, p_subjects bigint[])
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_added bigint;
begin
  if not exists (select from gdpr_internal.breach_record as b where b.id = p_breach) then
    perform gdpr_internal.refuse('unknown_breach');
  elsif exists (
    select from unnest(p_subjects) as u (id) where not exists (select from gdpr_internal.subject as s where s.id = u.id)
  ) then
    perform gdpr_internal.refuse('unknown_subject');
  end if;
  insert into gdpr_internal.breach_person (breach_id, subject_id)
  select distinct p_breach, u.id
  from unnest(p_subjects) as u (id)
  on conflict do nothing;
  get diagnostics v_added = row_count;
  perform gdpr_internal.audit_event('BREACH', null, jsonb_build_object('breach_id', p_breach, 'event', 'persons', 'added', v_added));
  return v_added;
end
$function$;
comment on function gdpr.add_breach_persons(bigint, bigint[]) is
  'Records whose data a breach is about, and returns how many were not recorded yet. Errors: PR101 unknown person (nobody is recorded), PR903. Art. 33(3)(a), 34.';

create or replace view gdpr.breach_person as
select
  p.breach_id,
  p.subject_id,
  s.erased_at is not null as erased,
  c.channel,
  c.told_at,
  p.recorded_at
from gdpr_internal.breach_person as p
join gdpr_internal.subject as s on s.id = p.subject_id
left join gdpr_internal.breach_communication as c on c.breach_id = p.breach_id and c.subject_id = p.subject_id;
comment on view gdpr.breach_person is 'Whose data breaches are about, and when and how they were told (null: not yet). Art. 34.';

create or replace function gdpr.tell_breach(p_breach bigint, p_messages jsonb, p_limit integer default 10000, p_after bigint default 0)
returns table (queued bigint, without_address bigint, last_subject bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_state gdpr_internal.breach_state;
  v_persons bigint[];
  v_mails bigint[];
  v_told record;
begin
  if jsonb_typeof(p_messages) is distinct from 'object' or p_messages = '{}' or exists (
    select from jsonb_each(p_messages) as m
    where m.key !~ '^[a-z]{2,3}$' or jsonb_typeof(m.value) <> 'string' or btrim(m.value #>> '{}') = '' or length(m.value #>> '{}') > 10000
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'the words are {"en": text, "de": text, ...}, up to 10,000 characters each; the first language is for whoever reads none of them');
  end if;
  -- two at once would tell the same persons twice
  perform from gdpr_internal.breach_record as b where b.id = p_breach for update;
  select * into v_state from gdpr_internal.breach_state as s where s.id = p_breach;
  if v_state.id is null then
    perform gdpr_internal.refuse('unknown_breach');
  elsif not v_state.facts ?& array['consequences', 'measures'] then
    perform gdpr_internal.refuse('breach_open', 'the persons are told the likely consequences and the measures taken (Art. 34(2)): gdpr.amend_breach()');
  end if;
  select array_agg(p.subject_id order by p.subject_id) into v_persons
  from (
    select p.subject_id
    from gdpr_internal.breach_person as p
    join gdpr_internal.subject as s on s.id = p.subject_id and s.erased_at is null
    where p.breach_id = p_breach and p.subject_id > p_after and not exists (
      select from gdpr_internal.breach_communication as c where c.breach_id = p_breach and c.subject_id = p.subject_id
    )
    order by p.subject_id
    limit p_limit
  ) as p;
  select
    array_agg(w.subject_id order by w.subject_id) as subjects,
    array_agg(w.language order by w.subject_id) as languages,
    array_agg(jsonb_build_object(
      'to', w.email, 'message', p_messages ->> w.language, 'reference', p_breach,
      'controller', (select s.value from gdpr_internal.setting as s where s.name = 'controller'),
      'officer', (
        select jsonb_build_object('name', o.name, 'contact', o.contact) from gdpr_internal.party_now as o
        where o.role = 'data_protection_officer' and o.valid_until > statement_timestamp() order by o.id limit 1
      )
    ) order by w.subject_id) as messages
  into v_told
  from (
    select distinct on (c.subject_id)
      c.subject_id, c.email,
      coalesce(
        (
          select l.tag from unnest(gdpr_internal.language_chain(coalesce(c.language, ''))) with ordinality as l (tag, n)
          where p_messages ? l.tag order by l.n limit 1
        ),
        case when p_messages ? 'en' then 'en' else (select min(k) from jsonb_object_keys(p_messages) as k) end
      ) as language
    from gdpr_internal.contacts(v_persons) as c
    where c.email is not null
    order by c.subject_id
  ) as w;
  if v_told.subjects is not null then
    v_mails := gdpr_internal.queue_mails(v_told.subjects, 'rights_breach', v_told.languages, v_told.messages);
    insert into gdpr_internal.breach_communication (breach_id, subject_id, channel, mail_id, actor)
    select p_breach, u.subject_id, 'email', u.mail_id, gdpr_internal.context_setting('actor')
    from unnest(v_told.subjects, v_mails) as u (subject_id, mail_id);
  end if;
  queued := coalesce(cardinality(v_told.subjects), 0);
  without_address := coalesce(cardinality(v_persons), 0) - queued;
  last_subject := v_persons[cardinality(v_persons)];
  perform gdpr_internal.audit_event('BREACH', null, jsonb_build_object('breach_id', p_breach, 'event', 'told', 'persons', queued));
  return next;
end
$function$;
comment on function gdpr.tell_breach(bigint, jsonb, integer, bigint) is
  'Queues a mail (template rights_breach) to the persons of a breach who were not told yet: p_limit of them, in the order of their numbers, after p_after. Repeat with last_subject, each time in a transaction of its own, until that is null. p_messages: the officer''s words by language, {"en": ..., "de": ...}: what happened, what it may mean, what was done, what the person can do. Persons without an address are counted and stay to be told in another way (gdpr.breach_told()). Mails go out once each, whatever restriction, objection or missing consent says: the law asks for them. Errors: PR004, PR903, PR902 consequences or measures are not recorded, PR402 the key is locked. Art. 34(1), (2).';

create or replace function gdpr.breach_told(p_breach bigint, p_subject bigint, p_channel text, p_evidence jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if p_channel is null or p_channel not in ('post', 'phone', 'in_person') then
    perform gdpr_internal.refuse('invalid_argument', 'channel is one of post, phone, in_person');
  elsif exists (
    select from unnest(array['who', 'when', 'how', 'reference']) as k where coalesce(btrim(p_evidence ->> k), '') = ''
  ) then
    perform gdpr_internal.refuse('evidence_missing');
  elsif not exists (select from gdpr_internal.breach_record as b where b.id = p_breach) then
    perform gdpr_internal.refuse('unknown_breach');
  elsif not exists (select from gdpr_internal.breach_person as p where p.breach_id = p_breach and p.subject_id = p_subject) then
    perform gdpr_internal.refuse('unknown_subject', 'the breach is not about this person');
  end if;
  insert into gdpr_internal.breach_communication (breach_id, subject_id, channel, evidence, actor)
  values (p_breach, p_subject, p_channel, gdpr_internal.seal_evidence(p_subject, p_evidence::text), gdpr_internal.context_setting('actor'))
  on conflict do nothing;
  perform gdpr_internal.audit_event('BREACH', p_subject, jsonb_build_object('breach_id', p_breach, 'event', 'told', 'channel', p_channel));
end
$function$;
comment on function gdpr.breach_told(bigint, bigint, text, jsonb) is
  'Records that a person was told of a breach by post, by phone or in person: p_evidence {"who", "when", "how", "reference"}, kept encrypted. Errors: PR004, PR101 the breach is not about this person, PR304 evidence is missing, PR603, PR903. Art. 34.';
