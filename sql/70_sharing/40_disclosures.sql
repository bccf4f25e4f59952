-- [code] Disclosures: who was told what about whom, recorded in sets, and only of persons who may be shared.
-- GDPR Art. 5(1)(b), 5(2), 6, 15(1)(c), 18(2), 19. Called by: gdpr_dpo, roles with may = ["disclose"], gdpr.export_rows().

set local role gdpr_owner;

create or replace function gdpr_internal.sharable(p_subjects bigint[], p_mask bigint)
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_allowed bigint[];
begin
  -- a withdrawal or an erasure and this meet on the person's row: whoever comes second sees the other
  perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for share;
  select coalesce(array_agg(s.id order by s.id), '{}') into v_allowed
  from gdpr_internal.subject as s
  where s.id = any (p_subjects)
    and s.erased_at is null
    and s.purposes & p_mask <> 0
    and (s.until > statement_timestamp() or gdpr_internal.still_allowed(s.id, p_mask));
  return v_allowed;
end
$function$;
comment on function gdpr_internal.sharable(bigint[], bigint) is
  'Those of the persons who may be processed for the purpose of p_mask at this statement, each once, locked against a change until the end of the transaction.';

create or replace function gdpr_internal.disclosing_purpose(p_purpose text)
returns smallint
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_role name := gdpr_internal.acting_role();
  v_purpose smallint;
begin
  v_purpose := gdpr_internal.purpose_id(p_purpose);
  if v_purpose >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  elsif not pg_has_role(v_role, 'gdpr_dpo', 'usage') and not exists (
    select from gdpr_internal.role_purpose as rp
    where rp.purpose_id = v_purpose and pg_has_role(v_role, to_regrole(quote_ident(rp.role_name))::oid, 'usage')
  ) then
    perform gdpr_internal.refuse('purpose_not_held', format('role %s', quote_ident(v_role)));
  end if;
  return v_purpose;
end
$function$;
comment on function gdpr_internal.disclosing_purpose(text) is
  'The number of a purpose for which the session''s role may disclose: one of its own; officers, any. Errors: PR003, PR204 built in, 42501.';

create or replace function gdpr_internal.put_disclosure(
  p_disclosure gdpr_internal.disclosure_record, p_subjects bigint[], p_references text[] default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_id bigint;
begin
  insert into gdpr_internal.disclosure_record (recipient_id, purpose_id, audience, table_id, columns, categories, reason, persons, disclosed_at)
  values (
    p_disclosure.recipient_id, p_disclosure.purpose_id, p_disclosure.audience, p_disclosure.table_id, p_disclosure.columns,
    p_disclosure.categories, p_disclosure.reason, cardinality(p_subjects), coalesce(p_disclosure.disclosed_at, statement_timestamp())
  )
  returning id into v_id;
  insert into gdpr_internal.disclosure_person (subject_id, disclosure_id, reference)
  select s.id, v_id, case when s.reference is not null then gdpr_internal.seal_evidence(s.id, s.reference) end
  from unnest(p_subjects, p_references) as s (id, reference);
  perform gdpr_internal.audit_event('DISCLOSE', null, jsonb_build_object(
    'disclosure', v_id, 'recipient', p_disclosure.recipient_id, 'persons', cardinality(p_subjects)
  ));
  return v_id;
end
$function$;
comment on function gdpr_internal.put_disclosure(gdpr_internal.disclosure_record, bigint[], text[]) is
  'Records a disclosure of these persons, each named once, and returns its number.';

create or replace function gdpr_internal.check_columns(p_table regclass, p_columns text[], p_categories text[], out columns name[], out categories text[])
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint;
begin
  if p_table is null then
    if p_columns is not null then
      perform gdpr_internal.refuse('invalid_argument', 'columns are those of p_table');
    end if;
    categories := p_categories;
  else
    v_table := gdpr_internal.table_id(p_table);
    columns := p_columns::name[];
    if exists (
      select from unnest(p_columns) as c (name)
      where not exists (
        select from pg_attribute as a where a.attrelid = p_table and a.attname = c.name and a.attnum > 0 and not a.attisdropped
      )
    ) then
      perform gdpr_internal.refuse('invalid_argument', 'the table has no such column');
    end if;
    select coalesce(p_categories, array_agg(distinct c.category order by c.category)) into categories
    from gdpr_internal.protected_column as c
    where c.table_id = v_table and (p_columns is null or c.column_name = any (p_columns));
  end if;
  if columns is null and categories is null then
    perform gdpr_internal.refuse('invalid_argument', 'say what was disclosed: categories, or a table and its columns');
  end if;
end
$function$;
comment on function gdpr_internal.check_columns(regclass, text[], text[]) is
  'What was disclosed: columns that the table has, and their categories as the policy classifies them. Errors: PR002, PR004.';

create or replace function gdpr.record_disclosure(
  p_recipient text,
  p_subjects bigint[],
  p_purpose text,
  p_table regclass default null,
  p_columns text[] default null,
  p_categories text[] default null,
  p_reason text default null,
  p_locked text default 'refuse',
  p_references text[] default null,
  p_disclosed_at timestamptz default null
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_new gdpr_internal.disclosure_record;
  v_what record;
  v_persons bigint[];
  v_references text[];
  v_asked bigint;
  v_id bigint;
begin
  if p_locked is null or p_locked not in ('refuse', 'leave_out') then
    perform gdpr_internal.refuse('invalid_argument', 'locked is refuse or leave_out');
  elsif p_subjects is null or cardinality(p_references) <> cardinality(p_subjects) then
    perform gdpr_internal.refuse('invalid_argument', 'the persons are needed, and as many references where there are some');
  elsif p_disclosed_at > statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'a disclosure is recorded when it is made, or afterwards');
  end if;
  v_new.purpose_id := gdpr_internal.disclosing_purpose(p_purpose);
  v_what := gdpr_internal.check_columns(p_table, p_columns, p_categories);
  v_new.columns := v_what.columns;
  v_new.categories := v_what.categories;
  v_new.table_id := (select t.id from gdpr_internal.protected_table as t where t.relation = p_table and t.unprotected_at is null);
  v_new.reason := p_reason;
  v_new.disclosed_at := p_disclosed_at;
  v_asked := (select count(distinct s.id) from unnest(p_subjects) as s (id));
  if p_disclosed_at < statement_timestamp() then
    -- it has happened: whether it should have, the record does not change
    select r.recipient_id into v_new.recipient_id from gdpr_internal.recipient_now as r where r.name = p_recipient;
    if v_new.recipient_id is null then
      perform gdpr_internal.refuse('unknown_recipient');
    end if;
    perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for share;
    select coalesce(array_agg(s.id), '{}') into v_persons
    from gdpr_internal.subject as s
    where s.id = any (p_subjects) and s.erased_at is null;
  else
    v_new.recipient_id := (gdpr_internal.require_recipient(p_recipient)).recipient_id;
    v_persons := gdpr_internal.sharable(p_subjects, 1::bigint << v_new.purpose_id);
  end if;
  if cardinality(v_persons) < v_asked and p_locked = 'refuse' then
    perform gdpr_internal.refuse('not_sharable', format('%s of %s', v_asked - cardinality(v_persons), v_asked));
  end if;
  if cardinality(v_persons) > 0 then
    if p_references is not null then
      select array_agg(r.reference order by r.n) into v_references
      from (
        select max(a.reference) as reference, v.n
        from unnest(p_subjects, p_references) as a (id, reference)
        join unnest(v_persons) with ordinality as v (id, n) on v.id = a.id
        group by v.n
      ) as r;
    end if;
    v_id := gdpr_internal.put_disclosure(v_new, v_persons, v_references);
  end if;
  return jsonb_strip_nulls(jsonb_build_object('disclosure', v_id, 'persons', cardinality(v_persons), 'left_out', v_asked - cardinality(v_persons)));
end
$function$;
comment on function gdpr.record_disclosure(text, bigint[], text, regclass, text[], text[], text, text, text[], timestamptz) is
  'Records that data of persons go to a recipient; before they do. p_subjects: as gdpr.subjects_of() finds them by rows. p_purpose: one for which each of them may be processed now. What: p_table with p_columns (null: all; their categories follow), or p_categories. p_locked: refuse all when a person may not be shared (erased, restricted, no basis), or leave_out those. p_references: what the recipient knows each person by (a customer number), kept as ciphertext; else it is the subject_ref of redacted views. p_disclosed_at: of a disclosure that was made earlier, of persons who may be locked by now. p_reason must not hold personal data. Returns {"disclosure", "persons", "left_out"}. For gdpr_dpo and roles with may = ["disclose"]. Errors: PR701, PR702, PR703, PR003, PR004, 42501. Art. 5(2), 15(1)(c), 19.';

create or replace view gdpr.disclosure as
select
  d.id as disclosure_id,
  r.name as recipient,
  p.name as purpose,
  d.audience,
  t.relation as table_name,
  d.columns,
  d.categories,
  d.persons,
  d.reason,
  d.disclosed_at,
  d.recorded_at,
  d.recorded_by
from gdpr_internal.disclosure_record as d
join gdpr_internal.recipient_now as r on r.recipient_id = d.recipient_id
join gdpr_internal.purpose as p on p.id = d.purpose_id
left join gdpr_internal.protected_table as t on t.id = d.table_id;
comment on view gdpr.disclosure is
  'Disclosures: to whom, for what purpose, which data of how many persons, when. audience: recorded by an export itself. Of one person: gdpr.recipients_of(). Art. 5(2), 30(1)(d).';

create or replace function gdpr.recipients_of(p_subject bigint)
returns table (
  recipient text, role text, country text, transfer text, purposes text[], categories text[], disclosures bigint,
  first_disclosed_at timestamptz, last_disclosed_at timestamptz
)
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query
  select
    r.name, r.role, r.country, r.transfer, array_agg(distinct p.name order by p.name),
    array_agg(distinct c.category order by c.category) filter (where c.category is not null),
    count(distinct d.id), min(d.disclosed_at), max(d.disclosed_at)
  from gdpr_internal.disclosure_person as x
  join gdpr_internal.disclosure_record as d on d.id = x.disclosure_id
  join gdpr.recipient as r on r.recipient_id = d.recipient_id
  join gdpr_internal.purpose as p on p.id = d.purpose_id
  left join lateral unnest(d.categories) as c (category) on true
  where x.subject_id = p_subject
  group by r.name, r.role, r.country, r.transfer
  order by r.name;
end
$function$;
comment on function gdpr.recipients_of(bigint) is
  'The recipients to whom data of a person were disclosed: who they are, where, on what a transfer rests, for which purposes, which categories of data, how often and when. Art. 15(1)(c), 15(2), 19.';
