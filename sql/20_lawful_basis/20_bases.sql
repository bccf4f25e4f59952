-- [code] Recording and ending lawful bases, and what holds now.
-- GDPR Art. 6(1). Called by: gdpr_dpo, and roles to which the policy gives may = ["basis"].

set local role gdpr_owner;

create or replace function gdpr.record_basis(
  p_subject bigint,
  p_purpose text,
  p_basis text,
  p_reason text default null,
  p_valid_until timestamptz default null,
  p_assessment bigint default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
  v_id bigint;
begin
  perform gdpr_internal.require_subject(p_subject);
  if v_purpose >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  end if;
  if p_basis is null or p_basis <> all (
    array['contract', 'legal_obligation', 'vital_interests', 'public_task', 'legitimate_interests']
  ) then
    perform gdpr_internal.refuse('basis_refused', 'one of contract, legal_obligation, vital_interests, public_task, legitimate_interests');
  end if;
  if p_valid_until <= statement_timestamp() then
    perform gdpr_internal.refuse('basis_refused', 'valid_until has passed');
  end if;
  insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, valid_until, assessment_id)
  values (p_subject, v_purpose, p_basis, p_reason, coalesce(p_valid_until, 'infinity'), p_assessment)
  returning id into v_id;
  perform gdpr_internal.refresh_gate(array[p_subject]);
  perform gdpr_internal.audit_event('BASIS', p_subject, jsonb_build_object('basis_id', v_id, 'purpose', p_purpose, 'basis', p_basis));
  return v_id;
end
$function$;
comment on function gdpr.record_basis(bigint, text, text, text, timestamptz, bigint) is
  'Records a lawful basis of a person for a purpose (contract, legal_obligation, vital_interests, public_task, legitimate_interests), valid from now until p_valid_until (null: for good); returns its number. Errors: PR101 unknown person, PR003 unknown purpose, PR202 not such a basis. Art. 6(1).';

create or replace function gdpr.end_basis(p_basis_id bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subject bigint;
begin
  perform gdpr_internal.require_read_committed();
  if p_reason is null then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  select b.subject_id into v_subject from gdpr_internal.basis_record as b where b.id = p_basis_id;
  insert into gdpr_internal.basis_end (basis_id, reason)
  select b.id, p_reason
  from gdpr_internal.basis_record as b
  where b.id = p_basis_id and b.valid_until > statement_timestamp()
  on conflict (basis_id) do nothing;
  if not found then
    perform gdpr_internal.refuse('basis_ended');
  end if;
  perform gdpr_internal.refresh_gate(array[v_subject]);
  perform gdpr_internal.audit_event('BASIS', v_subject, jsonb_build_object('basis_id', p_basis_id, 'ended', true));
end
$function$;
comment on function gdpr.end_basis(bigint, text) is
  'Ends a lawful basis now; what no other basis allows is locked with this statement. Errors: PR203 unknown or ended, PR005 not at READ COMMITTED. Art. 5(1)(a), 6(1).';

create or replace view gdpr.basis as
select
  b.id as basis_id,
  b.subject_id,
  p.name as purpose,
  b.basis,
  b.reason,
  b.valid_from,
  least(b.valid_until, e.ended_at) as valid_until,
  e.reason as end_reason,
  b.valid_from <= statement_timestamp() and b.valid_until > statement_timestamp() and e.basis_id is null as holds,
  b.assessment_id,
  t.relation as by_table,
  b.recorded_at,
  b.recorded_by
from gdpr_internal.basis_record as b
join gdpr_internal.purpose as p on p.id = b.purpose_id
left join gdpr_internal.basis_end as e on e.basis_id = b.id
left join gdpr_internal.protected_table as t on t.id = b.by_table;
comment on view gdpr.basis is
  'Lawful bases other than consent, per person and purpose, with their history. holds: whether it allows processing at this statement. by_table: recorded by default by that table. Art. 6(1).';
