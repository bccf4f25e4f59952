-- [code] Recording and ending lawful bases.
-- GDPR Art. 6(1). Called by: gdpr_dpo, and roles to which the policy gives may = ["basis"].

set local role gdpr_owner;

create or replace function gdpr_internal.require_subjects(p_subjects bigint[])
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_found bigint;
  v_erased bigint;
begin
  select count(*), count(s.erased_at) into v_found, v_erased
  from gdpr_internal.subject as s
  where s.id = any (p_subjects);
  if v_found is distinct from cardinality(p_subjects) then
    perform gdpr_internal.refuse('unknown_subject');
  elsif v_erased > 0 then
    perform gdpr_internal.refuse('erased');
  end if;
end
$function$;
comment on function gdpr_internal.require_subjects(bigint[]) is 'Each of these numbers, each named once, is a person. Errors: PR101 no such person, PR603 erased.';

create or replace function gdpr_internal.check_basis(
  p_purpose text, p_basis text, p_condition text, p_valid_from timestamptz, p_valid_until timestamptz, p_assessment bigint
)
returns smallint
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
  v_in_force bigint;
begin
  if v_purpose >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  elsif p_basis is null or p_basis <> all (gdpr_internal.grounds()) then
    perform gdpr_internal.refuse('basis_refused', 'one of ' || array_to_string(gdpr_internal.grounds(), ', '));
  elsif p_condition <> all (gdpr_internal.special_conditions()) then
    perform gdpr_internal.refuse('basis_refused', 'condition is one of ' || array_to_string(gdpr_internal.special_conditions(), ', '));
  elsif p_valid_until <= statement_timestamp() then
    perform gdpr_internal.refuse('basis_refused', 'valid_until has passed');
  elsif p_valid_until <= p_valid_from then
    perform gdpr_internal.refuse('basis_refused', 'valid_until is before valid_from');
  elsif p_assessment is not null and p_basis <> 'legitimate_interests' then
    perform gdpr_internal.refuse('basis_refused', 'an assessment belongs to legitimate_interests');
  end if;
  if p_basis = 'legitimate_interests' then
    v_in_force := gdpr_internal.assessment_in_force(v_purpose);
    if v_in_force is null or p_assessment <> v_in_force then
      perform gdpr_internal.refuse('assessment_missing', format('purpose %s, assessment in force: %s', p_purpose, coalesce(v_in_force::text, 'none')));
    end if;
  end if;
  return v_purpose;
end
$function$;
comment on function gdpr_internal.check_basis(text, text, text, timestamptz, timestamptz, bigint) is
  'The number of the purpose, where such a basis can be recorded for it. Errors: PR003, PR202, PR204, PR205.';

create or replace function gdpr_internal.add_bases(
  p_subjects bigint[], p_purpose text, p_basis text, p_reason text, p_valid_until timestamptz, p_assessment bigint,
  p_valid_from timestamptz, p_evidence jsonb, p_condition text
)
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.check_basis(p_purpose, p_basis, p_condition, p_valid_from, p_valid_until, p_assessment);
  v_ids bigint[];
begin
  perform gdpr_internal.require_home();
  perform gdpr_internal.require_subjects(p_subjects);
  with recorded as (
    insert into gdpr_internal.basis_record (
      subject_id, purpose_id, basis, condition, reason, evidence, valid_from, valid_until, assessment_id, actor
    )
    select
      s.id, v_purpose, p_basis, p_condition, p_reason, gdpr_internal.seal_evidence(s.id, p_evidence::text),
      coalesce(p_valid_from, statement_timestamp()), coalesce(p_valid_until, 'infinity'),
      case when p_basis = 'legitimate_interests' then gdpr_internal.assessment_in_force(v_purpose) end,
      gdpr_internal.context_setting('actor')
    from unnest(p_subjects) with ordinality as s (id, n)
    order by s.n
    returning id
  )
  select array_agg(r.id order by r.id) into v_ids from recorded as r;
  perform gdpr_internal.refresh_gate(p_subjects);
  perform gdpr_internal.audit_events(
    'BASIS', p_subjects, 'basis_id', v_ids, jsonb_build_object('purpose', p_purpose, 'basis', p_basis)
  );
  return v_ids;
end
$function$;
comment on function gdpr_internal.add_bases(bigint[], text, text, text, timestamptz, bigint, timestamptz, jsonb, text) is
  'Records a basis for each of these persons (named once each), spreads their gates and returns the numbers of the records, in the same order.';

create or replace function gdpr.record_basis(
  p_subject bigint,
  p_purpose text,
  p_basis text,
  p_reason text default null,
  p_valid_until timestamptz default null,
  p_assessment bigint default null,
  p_valid_from timestamptz default null,
  p_evidence jsonb default null,
  p_condition text default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (gdpr_internal.add_bases(
    array[p_subject], p_purpose, p_basis, p_reason, p_valid_until, p_assessment, p_valid_from, p_evidence, p_condition
  ))[1];
end
$function$;
comment on function gdpr.record_basis(bigint, text, text, text, timestamptz, bigint, timestamptz, jsonb, text) is
  'Records a lawful basis of a person for a purpose (contract, legal_obligation, vital_interests, public_task, legitimate_interests) and returns its number. p_reason: why, without personal data. p_valid_until: the first instant at which it no longer holds (gdpr.until(date) for a day; null: for good); p_valid_from: the first at which it does, past or future (null: now). p_evidence: kept encrypted under the person''s key. p_assessment: for legitimate_interests, the approved assessment, which has to be the one in force (null: that one). p_condition: for columns of special categories, the condition of Art. 9(2). Errors: PR101 unknown person, PR603 erased, PR003 unknown purpose, PR202 not such a basis, PR205 no approved assessment. Art. 6(1), 9(2).';

create or replace function gdpr.record_bases(
  p_subjects bigint[],
  p_purpose text,
  p_basis text,
  p_reason text default null,
  p_valid_until timestamptz default null,
  p_assessment bigint default null,
  p_valid_from timestamptz default null,
  p_evidence jsonb default null,
  p_condition text default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[] := array(select distinct s.id from unnest(p_subjects) as s (id) where s.id is not null order by s.id);
begin
  return coalesce(cardinality(gdpr_internal.add_bases(
    v_subjects, p_purpose, p_basis, p_reason, p_valid_until, p_assessment, p_valid_from, p_evidence, p_condition
  )), 0);
end
$function$;
comment on function gdpr.record_bases(bigint[], text, text, text, timestamptz, bigint, timestamptz, jsonb, text) is
  'gdpr.record_basis() for many persons in one statement: all or none of them. Nulls and repetitions in p_subjects count for nothing. Returns how many bases were recorded. Errors: as gdpr.record_basis(). Art. 6(1).';

create or replace function gdpr.end_bases(p_basis_ids bigint[], p_reason text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_ids bigint[];
  v_subjects bigint[];
begin
  perform gdpr_internal.require_read_committed();
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  with ended as (
    insert into gdpr_internal.basis_end (basis_id, reason)
    select b.id, p_reason
    from gdpr_internal.basis_record as b
    where b.id = any (p_basis_ids) and b.valid_until > statement_timestamp()
    on conflict (basis_id) do nothing
    returning basis_id
  )
  select array_agg(b.id order by b.id), array_agg(b.subject_id order by b.id)
  into v_ids, v_subjects
  from ended as e
  join gdpr_internal.basis_record as b on b.id = e.basis_id;
  if v_ids is null then
    perform gdpr_internal.refuse('basis_ended');
  end if;
  perform gdpr_internal.refresh_gate(v_subjects);
  perform gdpr_internal.audit_events('BASIS', v_subjects, 'basis_id', v_ids, '{"ended": true}');
  return cardinality(v_ids);
end
$function$;
comment on function gdpr.end_bases(bigint[], text) is
  'Ends lawful bases now, those that have ended already excepted; returns how many. p_reason, the same for all, must hold no personal data. Errors: PR203 none of them holds, PR004 no reason, PR005 not at READ COMMITTED. Art. 5(1)(a), 6(1).';

create or replace function gdpr.end_basis(p_basis_id bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr.end_bases(array[p_basis_id], p_reason);
end
$function$;
comment on function gdpr.end_basis(bigint, text) is
  'Ends a lawful basis now; what no other basis allows is locked with this statement. p_reason: a word of why, without personal data; what it rests on belongs into the evidence of gdpr.record_basis(). Errors: PR203 unknown or ended, PR004 no reason, PR005 not at READ COMMITTED. Art. 5(1)(a), 6(1).';
