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
  return v_mask = 1::bigint << 62 or gdpr_internal.has_condition(p_subject, v_mask);
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
