-- [code] Special categories of data: besides the basis, a condition of Art. 9(2) has to hold.
-- GDPR Art. 9. Asked by: the clear views, gdpr.reveal() and the triggers of tables with columns marked special. Tables without
-- such columns never ask.

set local role gdpr_owner;

create or replace function gdpr_policy.special_allowed(p_subject bigint, p_role name, p_claim text)
returns boolean
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_mask bigint := gdpr_policy.purpose_mask(p_role, p_claim);
begin
  return v_mask = 1::bigint << 62 or exists (
    select from gdpr_internal.purpose as p
    -- explicit consent is given by a person, never by a policy
    where p.id < 62 and 1::bigint << p.id = v_mask and p.condition <> 'explicit_consent'
  ) or exists (
    select
    from gdpr_internal.held_basis as h
    where h.subject_id = p_subject and 1::bigint << h.purpose_id = v_mask and h.condition is not null
      and h.valid_from <= statement_timestamp() and h.valid_until > statement_timestamp()
  ) or exists (
    select
    from gdpr_internal.ground as g
    join gdpr_internal.purpose as p on p.id = g.purpose_id
    where g.subject_id = p_subject and 1::bigint << g.purpose_id = v_mask and g.basis = 'consent' and g.status = 'holds'
      and p.condition = 'explicit_consent'
  );
end
$function$;
comment on function gdpr_policy.special_allowed(bigint, name, text) is
  'Whether special categories of a person''s data may be processed for the purpose of this statement: compliance, maintenance, a purpose that has a condition of Art. 9(2) for everybody, a basis recorded with one, or consent for a purpose that asks for explicit consent. p_subject null: whether everybody''s may.';

create or replace function gdpr_internal.check_special(p_subject bigint, p_role name, p_claim text)
returns void
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not gdpr_policy.special_allowed(p_subject, p_role, p_claim) then
    perform gdpr_internal.refuse('condition_missing', format('subject %s', p_subject));
  end if;
end
$function$;
comment on function gdpr_internal.check_special(bigint, name, text) is 'Asked by the triggers of a table when a column marked special is given a value. Error: PR208.';
