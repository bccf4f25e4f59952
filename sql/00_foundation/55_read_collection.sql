-- [code] What a policy says about how rows come into a table.
-- GDPR Art. 25. Called by: gdpr_internal.read_table(), gdpr.plan(), gdpr.unprotect().

set local role gdpr_owner;

create or replace function gdpr_internal.read_double_opt_in(
  p_where text, p_in jsonb, p_subject jsonb, p_columns jsonb, out definition jsonb, out problems text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
declare
  v_in jsonb := case when p_in = 'true' then '{}' else p_in end;
  v_setting text;
  v_intervals interval[] := '{}';
  v_interval record;
  v_address text;
begin
  problems := '{}';
  if coalesce(v_in, 'false') = 'false' then
    return;
  end if;
  problems := gdpr_internal.unknown_keys(p_where, v_in, array['address', 'confirm_within', 'resend_after', 'lifts_block']);
  if jsonb_typeof(v_in) <> 'object' then
    return;
  end if;
  if p_subject <> '"self"' then
    problems := problems || format('%s: is for tables whose rows are persons', p_where);
  end if;
  select coalesce(v_in ->> 'address', case when count(*) = 1 then min(c.key) end) into v_address
  from jsonb_each(p_columns) as c
  where c.value ->> 'identifier' = 'email';
  if p_columns -> v_address ->> 'identifier' is distinct from 'email' then
    problems := problems || format('%s.address: the column with identifier = "email" that the mail goes to', p_where);
  end if;
  foreach v_setting in array array['confirm_within', 'resend_after'] loop
    v_interval := gdpr_internal.read_interval(
      format('%s.%s', p_where, v_setting), coalesce(v_in ->> v_setting, case v_setting when 'confirm_within' then '48 hours' else '1 hour' end)
    );
    problems := array_remove(problems || v_interval.problem, null);
    v_intervals := v_intervals || v_interval.value;
  end loop;
  if v_intervals[2] > v_intervals[1] then
    problems := problems || format('%s.resend_after: has to be shorter than confirm_within', p_where);
  end if;
  if jsonb_typeof(coalesce(v_in -> 'lifts_block', 'false')) <> 'boolean' then
    problems := problems || format('%s.lifts_block: true or false', p_where);
  end if;
  definition := jsonb_build_object(
    'address', v_address, 'confirm_within', v_intervals[1]::text, 'resend_after', v_intervals[2]::text,
    'lifts_block', coalesce(v_in -> 'lifts_block', 'false')
  );
end
$function$;
comment on function gdpr_internal.read_double_opt_in(text, jsonb, jsonb, jsonb) is
  'The setting double_opt_in of a table in normal form (null: no registrations), and its problems.';

create or replace function gdpr_policy.registration_grants(p_relation regclass, p_allowed boolean)
returns setof text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select format('%s on %s %s gdpr_worker', case when p_allowed then 'grant ' || o.privilege else 'revoke ' || o.privilege end, o.name,
    case when p_allowed then 'to' else 'from' end)
  from (
    select 1 as n, 'insert' as privilege, format('table %s', p_relation) as name
    union all
    -- the defaults of serial columns draw from them
    select distinct 2, 'usage', format('sequence %s', d.refobjid::regclass)
    from pg_attrdef as a
    join pg_depend as d on d.classid = 'pg_attrdef'::regclass and d.objid = a.oid and d.refclassid = 'pg_class'::regclass
    join pg_class as c on c.oid = d.refobjid and c.relkind = 'S'
    where a.adrelid = p_relation
  ) as o
  order by o.n, o.name;
end;
comment on function gdpr_policy.registration_grants(regclass, boolean) is
  'Step of apply(): what gdpr_worker needs to insert confirmed registrations, or its end. Run as the owner of the table.';
