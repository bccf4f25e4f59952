-- [code] The retention rules that are in force, as the policy and its purposes give them.
-- GDPR Art. 5(1)(e). Read by: the generator of retention, gdpr.retention_plan(), gdpr.run_retention().

set local role gdpr_owner;

create or replace function gdpr_internal.rest_columns(p_relation regclass, p_definition jsonb)
returns name[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(array_agg(a.attname order by a.attnum), '{}')
  from jsonb_each(p_definition -> 'columns') as c
  join pg_attribute as a on a.attrelid = p_relation and a.attname = c.key and not a.attisdropped
  where gdpr_internal.erase_rule(p_relation, c.key, c.value) <> 'keep'
    and not gdpr_internal.is_key_column(p_relation, c.key)
    and not exists (
      select from jsonb_array_elements(p_definition -> 'retain') as r (rule)
      where coalesce(r.rule -> 'columns' ? c.key, false) or r.rule ->> 'after' = c.key
    );
end;
comment on function gdpr_internal.rest_columns(regclass, jsonb) is
  'The columns of a retention rule that names none: those that anonymising would empty, but for the ones that other rules name or count from.';

create or replace view gdpr_internal.retention_rule as
select
  t.id as table_id,
  (r.n - 1)::integer as n,
  r.rule ? 'columns' as named,
  case
    when r.rule ? 'columns' then gdpr_internal.text_array(r.rule -> 'columns')::name[]
    else gdpr_internal.rest_columns(t.relation, t.definition)
  end as columns,
  (r.rule ->> 'for')::interval as period,
  nullif(r.rule ->> 'after', 'last_basis')::name as after_column,
  coalesce(1::bigint << p.id, t.purpose_mask) as purpose_mask,
  true as in_force
from gdpr_internal.protected_table as t
cross join lateral jsonb_array_elements(t.definition -> 'retain') with ordinality as r (rule, n)
left join gdpr_internal.purpose as p on p.name = r.rule ->> 'purpose'
where t.unprotected_at is null
union all
select
  t.id, 0, false, '{}'::name[], null, null, t.purpose_mask,
  not exists (select from gdpr_internal.purpose as p where p.id < 62 and t.purpose_mask & (1::bigint << p.id) <> 0 and p.retain is null)
from gdpr_internal.protected_table as t
where t.unprotected_at is null and not t.definition ? 'retain';
comment on view gdpr_internal.retention_rule is
  'Rules of a table, numbered from 0. named: for the columns it names; else for the rest of the row, which goes when every rule''s time is over. after_column null: counted from the end of the last basis for the purposes of purpose_mask. period null: each purpose''s own. A table without rules has the one of its purposes, in force when each of them says how long it retains.';

create or replace function gdpr_policy.kept_since(p_role name, p_claim text, p_period interval, p_type anyelement)
returns anyelement
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_zone text := gdpr_internal.time_zone();
  v_since timestamp := timezone(v_zone, statement_timestamp()) - p_period;
begin
  if gdpr_policy.purpose_mask(p_role, p_claim) = 1::bigint << 62 then
    v_since := '-infinity';
  end if;
  return case when pg_typeof(p_type) = 'timestamptz'::regtype then timezone(v_zone, v_since) else v_since end;
end
$function$;
comment on function gdpr_policy.kept_since(name, text, interval, anyelement) is
  'The moment, as date or timestamp of the type of p_type, up to which rows of a table are over for a statement of p_role, by a rule that keeps them for p_period; compliance and maintenance see all. Once per statement, as an InitPlan of the row policies. Art. 5(1)(e).';
