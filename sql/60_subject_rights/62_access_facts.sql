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
      'description', (select d.description from pg_description as d where d.objoid = t.relation and d.classoid = 'pg_class'::regclass and d.objsubid = 0),
      'kept_for', t.definition -> 'erase' ->> 'keep_until'
    )) || jsonb_build_object(
      'columns', (
        select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
          'name', a.attname, 'type', coalesce(c.original_type, format_type(a.atttypid, a.atttypmod)),
          'description', (select d.description from pg_description as d where d.objoid = t.relation and d.classoid = 'pg_class'::regclass and d.objsubid = a.attnum),
          'category', c.category, 'special_category', c.special
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
          'ground', r.ground, 'since', gdpr_internal.utc(r.recorded_at), 'lifted_at', gdpr_internal.utc(e.ended_at),
          'reason', case when starts_with(e.reason, 'gdpr1:') then gdpr_internal.open_evidence(s.id, e.reason) else e.reason end
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
