-- [code] Row security that a table has of its own, while it is being enabled: its rows are hidden neither from the backfill nor from
-- what gdprdb does for persons, and no row is shown to anybody who did not see it before.
-- GDPR Art. 25, 32. Called by: the steps of enabling, gdpr.backfill().

set local role gdpr_owner;

create or replace function gdpr_policy.is_sweeping(p_relation regclass)
returns boolean
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select exists (
    select from gdpr_internal.enabling as e
    join gdpr_internal.protected_table as t on t.id = e.table_id
    where t.relation = p_relation and e.sweeping_xid = pg_current_xact_id_if_assigned()
  );
end;
comment on function gdpr_policy.is_sweeping(regclass) is
  'Whether gdpr.backfill() is writing rows of this table in this transaction at this moment: a setting could be set by anybody.';

create or replace function gdpr_internal.hides_rows(p_role name, p_relation regclass)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select c.relrowsecurity and c.relforcerowsecurity and not (r.rolsuper or r.rolbypassrls)
  from pg_class as c, pg_roles as r
  where c.oid = p_relation and r.rolname = p_role;
end;
comment on function gdpr_internal.hides_rows(name, regclass) is 'Whether row security of a table is for its owner, too, when this role is.';

create or replace function gdpr_internal.narrowing_policies(p_role name, p_relation regclass)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select string_agg(quote_ident(p.polname), ', ' order by p.polname)
  from pg_policy as p
  where p.polrelid = p_relation and not p.polpermissive and p.polcmd in ('*', 'r', 'w') and p.polname !~ '^gdpr_'
    and exists (select from unnest(p.polroles) as o (role) where case o.role when 0 then true else pg_has_role(p_role, o.role, 'usage') end);
end;
comment on function gdpr_internal.narrowing_policies(name, regclass) is 'Restrictive policies of a table''s own that are for this role: no other policy shows what they hide.';

create or replace function gdpr_internal.hiding_policies(p_relation regclass)
returns table (relation regclass, policies text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select r.r, gdpr_internal.narrowing_policies('gdpr_worker', r.r)
  from gdpr_internal.relation_tree(p_relation) as r (r)
  where gdpr_internal.narrowing_policies('gdpr_worker', r.r) is not null;
end;
comment on function gdpr_internal.hiding_policies(regclass) is
  'Row policies of a table''s own, and of its partitions, that hide rows from what gdprdb does for persons: a withdrawal that misses a row leaves it open, an erasure leaves it there, and both would say that all is done. Art. 7(3), 15, 17.';

create or replace function gdpr_internal.require_all_rows(p_role name, p_relation regclass)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_narrowing text;
begin
  if not gdpr_internal.hides_rows(p_role, p_relation) then
    return;
  end if;
  v_narrowing := gdpr_internal.narrowing_policies(p_role, p_relation);
  if v_narrowing is not null or not exists (
    select from pg_policy as p
    where p.polrelid = p_relation and p.polname = 'gdpr_40_sweep' and pg_has_role(p_role, p.polroles[1], 'usage')
  ) then
    perform gdpr_internal.refuse('rows_hidden', format('table %s, %s', p_relation, coalesce('policies ' || v_narrowing, 'policy gdpr_40_sweep is missing')));
  end if;
end
$function$;
comment on function gdpr_internal.require_all_rows(name, regclass) is
  'Makes sure that the backfill sees every row of a table: a row that it does not see would stay plaintext, and be taken for encrypted. Error: PR008.';

create or replace function gdpr_internal.sweep_policies(p_relation regclass)
returns setof text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- there already when somebody switches row security on meanwhile
  select format('create policy %I on %s for all to %s using (%4$s) with check (%4$s)', p.name, r.r, p.roles, p.condition)
  from gdpr_internal.relation_tree(p_relation) as r (r)
  cross join (
    values
      -- whoever owns the table, and may call the function
      ('gdpr_40_sweep', 'gdpr_admin', format('(select gdpr_policy.is_sweeping(%L))', p_relation)),
      -- in their own functions: the clear view reads as gdpr_viewer for others
      ('gdpr_40_owners', 'gdpr_worker, gdpr_viewer', 'current_user in (''gdpr_worker'', ''gdpr_viewer'')')
  ) as p (name, roles, condition)
  where not exists (select from pg_policy as o where o.polrelid = r.r and o.polname = p.name);
end;
comment on function gdpr_internal.sweep_policies(regclass) is
  'The statements that let the backfill, and what gdprdb does for persons, see all rows of a table that has row security of its own.';

create or replace function gdpr_internal.viewer_policies(p_relation regclass)
returns setof text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select format('create policy %I on %s as %s for %s to gdpr_viewer%s%s', 'gdpr_40_as_' || p.n, p_relation,
    case when p.polpermissive then 'permissive' else 'restrictive' end,
    case p.polcmd when '*' then 'all' when 'r' then 'select' else 'update' end,
    -- a role that is gone is nobody's: it opens nothing, and what narrows goes on
    format(' using (case when (%s) is %s then %s else %s end)', p.meant, p.holds, coalesce(p.shown, 'true'), (not p.polpermissive)::text),
    case when p.polcmd <> 'r' then format(' with check (case when (%s) is %s then %s else %s end)', p.meant, p.holds, coalesce(p.written, p.shown, 'true'), (not p.polpermissive)::text) end
  )
  from (
    select p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid) as shown, pg_get_expr(p.polwithcheck, p.polrelid) as written,
      row_number() over (order by p.polname) as n, case when p.polpermissive then 'true' else 'not false' end as holds,
      gdpr_internal.meant_code(p.polroles) as meant
    from pg_policy as p
    -- those for everybody are for the viewer, too
    where p.polrelid = p_relation and p.polcmd in ('*', 'r', 'w') and p.polname !~ '^gdpr_' and p.polroles <> '{0}'
  ) as p
  union all
  select format('create policy gdpr_40_as_owner on %s for all to gdpr_viewer using (%s)', p_relation, gdpr_internal.meant_code(array[c.relowner]))
  from pg_class as c
  where c.oid = p_relation and not c.relforcerowsecurity;
end;
comment on function gdpr_internal.viewer_policies(regclass) is
  'The statements by which the clear view, which reads as gdpr_viewer, shows whoever reads it the rows that the table''s own policies show him: each policy for some roles again, for the viewer on their behalf.';
