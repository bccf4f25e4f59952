-- [code] The record of processing activities, from what the database is: purposes, bases, persons, data, recipients, retention, security.
-- GDPR Art. 30(1), 32(1). Called by: gdpr_dpo, gdpr_auditor, gdpr_admin. Nothing is typed in twice: what the policy and the registers say.

set local role gdpr_owner;

create or replace view gdpr.processing_activity as
select
  p.name as purpose,
  p.description,
  (
    select array_agg(distinct b.basis order by b.basis)
    from (
      select p.basis
      union all
      select t.basis from gdpr_internal.table_basis as t where t.purpose_id = p.id and t.basis <> 'undetermined'
    ) as b (basis)
    where b.basis is not null
  ) as lawful_bases,
  p.condition as special_condition,
  gdpr_internal.assessment_in_force(p.id) as assessment_id,
  array(
    select a.impact_assessment_id from gdpr.impact_assessment as a
    where p.name = any (a.purposes) and a.status = 'in_force' order by a.impact_assessment_id
  ) as impact_assessments,
  p.automated_decision,
  d.persons,
  d.tables,
  d.categories,
  d.special_categories,
  array(
    select r.name
    from gdpr_internal.recipient_now as r
    where r.valid_until > statement_timestamp() and (
      exists (
        select from gdpr_internal.role_binding as b
        join gdpr_internal.role_purpose as x on x.role_name = b.role_name
        where b.recipient = r.name and x.purpose_id = p.id
      )
      or exists (select from gdpr_internal.disclosure_record as x where x.recipient_id = r.recipient_id and x.purpose_id = p.id)
    )
    order by r.name
  ) as recipients,
  array(
    select x.role_name::text from gdpr_internal.role_purpose as x where x.purpose_id = p.id order by x.role_name
  ) as roles,
  p.retain as retained_after_last_basis,
  d.retention
from gdpr_internal.purpose as p
cross join lateral (
  select
    coalesce(array_agg(distinct t.relation::text order by t.relation::text) filter (where t.parent_id is null), '{}') as persons,
    coalesce(array_agg(distinct t.relation::text order by t.relation::text), '{}') as tables,
    coalesce(array_agg(distinct c.category order by c.category) filter (where c.category is not null), '{}') as categories,
    coalesce(array_agg(distinct c.special order by c.special) filter (where c.special is not null), '{}') as special_categories,
    (
      select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'table', n.relation::text, 'columns', case when r.named then to_jsonb(r.columns) end,
        'period', coalesce(r.period, p.retain)::text, 'counted_from', coalesce(r.after_column::text, 'end of the last basis')
      )) order by n.relation::text, r.n)
      from gdpr_internal.retention_rule as r
      join gdpr_internal.protected_table as n on n.id = r.table_id
      where r.in_force and r.purpose_mask & (1::bigint << p.id) <> 0 and coalesce(r.period, p.retain) is not null
    ) as retention
  from gdpr_internal.protected_table as t
  left join gdpr_internal.protected_column as c on c.table_id = t.id
  where t.unprotected_at is null and t.purpose_mask & (1::bigint << p.id) <> 0
) as d
where p.id < 62;
comment on view gdpr.processing_activity is
  'Processing activities, one row for each purpose of the policy: on what bases, with which assessments, of whose data (persons: tables whose rows are persons), which categories, to which recipients (bound by the policy, or disclosed to), by which roles, kept how long. Art. 30(1)(b) to (f).';

create or replace function gdpr_internal.security_measures()
returns jsonb
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select jsonb_build_object(
    'encryption', jsonb_build_object(
      'algorithm', 'AES-256-CBC with HMAC-SHA-256, a data key for each person',
      'columns', (
        select coalesce(jsonb_agg(format('%s.%I', t.relation, c.column_name) order by t.relation::text, c.position), '[]')
        from gdpr_internal.protected_column as c
        join gdpr_internal.protected_table as t on t.id = c.table_id
        where t.unprotected_at is null and c.encrypt <> 'no'
      ),
      'transport', current_setting('ssl')::boolean
    ),
    'pseudonymisation', jsonb_build_object(
      'audiences', (select coalesce(jsonb_agg(distinct b.audience order by b.audience) filter (where b.audience not in ('clear', 'mail')), '[]') from gdpr_internal.role_binding as b)
    ),
    'access_control', jsonb_build_object(
      'row_security', 'a row is processed only while a lawful basis for the role''s purpose holds',
      'enforced', (select coalesce(jsonb_agg(t.relation::text order by t.relation::text), '[]') from gdpr_internal.protected_table as t where t.unprotected_at is null and t.mode = 'enforce'),
      'observed', (select coalesce(jsonb_agg(t.relation::text order by t.relation::text), '[]') from gdpr_internal.protected_table as t where t.unprotected_at is null and t.mode = 'observe')
    ),
    'logging', jsonb_build_object(
      'audit', 'every change, append-only, old values encrypted',
      'last_seal_at', (select max(s.sealed_at) from gdpr.audit_seal as s)
    ),
    'erasure', 'the data key of an erased person is destroyed; a restored backup refuses to process until it has forgotten again'
  );
end;
comment on function gdpr_internal.security_measures() is
  'Technical measures as the database has them, for Art. 30(1)(g) and 32(1): what is encrypted, pseudonymised, enforced, recorded. Organisational ones people add.';

create or replace function gdpr.processing_record()
returns jsonb
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
set intervalstyle = 'postgres'
begin atomic
  select jsonb_build_object(
    'database', current_database(),
    'drawn_up_at', statement_timestamp(),
    'release', gdpr.release(),
    'parties', (
      select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'role', p.role, 'name', p.name, 'contact', p.contact, 'country', p.country, 'reference', p.reference
      )) order by array_position(array['controller'] || gdpr_internal.party_roles(), p.role), p.name), '[]')
      from gdpr.party as p
      where p.valid_until > statement_timestamp()
    ),
    'activities', (select coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(a)) order by a.purpose), '[]') from gdpr.processing_activity as a),
    'persons', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'table', t.relation::text, 'description', obj_description(t.relation, 'pg_class'),
        'columns', (
          select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'column', c.column_name, 'category', c.category, 'special', c.special, 'sensitive', c.sensitive, 'encrypted', c.encrypt <> 'no'
          )) order by c.position), '[]')
          from gdpr_internal.protected_column as c where c.table_id = t.id
        )
      ) order by t.relation::text), '[]')
      from gdpr_internal.protected_table as t
      where t.unprotected_at is null
    ),
    'recipients', (
      select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'name', r.name, 'role', r.role, 'country', r.country, 'transfer', r.transfer, 'safeguard', r.safeguard, 'ground', r.ground,
        'safeguard_reference', r.safeguard_reference, 'contract', r.contract, 'works_for', r.works_for, 'problem', r.problem
      )) order by r.name), '[]')
      from gdpr.recipient as r
      where r.valid_until > statement_timestamp()
    ),
    'security_measures', gdpr_internal.security_measures()
  );
end;
comment on function gdpr.processing_record() is
  'The record of processing activities of this database, drawn up at this moment: parties, activities (one for each purpose), persons and categories of data, recipients with transfers and safeguards, retention, technical measures. A JSON document, no personal data of data subjects. Art. 30(1).';
