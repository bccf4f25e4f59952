-- [code] Row policies that a table has of its own: they narrow a protected table as they did before.
-- GDPR Art. 25, 32. Called by: gdpr.plan().
--
-- PostgreSQL shows a row that any permissive policy shows, and the gate needs one that lets everybody come to it. So what the table's own
-- policies show together is said once more, as one restrictive policy for each command; and since the views read the table as
-- gdpr_viewer, it asks for whoever reads, where theirs are for some roles.

set local role gdpr_owner;

create or replace function gdpr_internal.meant_code(p_roles oid[])
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- by name, and asked for at each statement: a role may be renamed or gone, and a policy that raises an error stops everybody
  select string_agg(format('pg_has_role(current_user, to_regrole(%L)::oid, ''usage'')', o.role::regrole), ' or ' order by o.role::regrole::text collate "C")
  from unnest(p_roles) as o (role)
  having not bool_or(o.role = 0);
end;
comment on function gdpr_internal.meant_code(oid[]) is
  'The SQL that says whether the current user is one of those that a row policy is for (as pg_policy has them); null: it is for everybody.';

create or replace function gdpr_internal.own_policies(p_relation regclass, p_original jsonb)
returns table (name name, definition text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  with own as (
    select
      p.polpermissive, p.polcmd, coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') as shown,
      coalesce(pg_get_expr(p.polwithcheck, p.polrelid), pg_get_expr(p.polqual, p.polrelid), 'true') as written,
      '(select ' || gdpr_internal.meant_code(p.polroles) || ')' as meant,
      p.polname
    from pg_policy as p
    where p.polrelid = p_relation and p.polname !~ '^gdpr_'
  ),
  commands as (
    select
      c.name, c.code, c.shows, c.writes,
      coalesce(string_agg(format('(%s)', concat_ws(' and ', o.meant, '(' || o.shown || ')')), ' or ' order by o.polname) filter (where o.polpermissive), 'false') as shown,
      coalesce(string_agg(format('(%s)', concat_ws(' and ', o.meant, '(' || o.written || ')')), ' or ' order by o.polname) filter (where o.polpermissive), 'false') as written,
      -- those for everybody are for gdpr_viewer, too
      coalesce(string_agg(format(' and (not %s or (%s))', o.meant, o.shown), '' order by o.polname) filter (where not o.polpermissive and o.meant is not null), '') as unless_shown,
      coalesce(string_agg(format(' and (not %s or (%s))', o.meant, o.written), '' order by o.polname) filter (where not o.polpermissive and o.meant is not null), '')
        as unless_written
    from (values ('select', 'r', true, false), ('insert', 'a', false, true), ('update', 'w', true, true), ('delete', 'd', true, false)) as c (name, code, shows, writes)
    left join own as o on o.polcmd::text in ('*', c.code)
    group by c.name, c.code, c.shows, c.writes
  )
  select
    ('gdpr_40_own_' || c.name)::name,
    -- without row security policies sleep; with it, and without any, nobody sees a row
    case when (p_original ->> 'row_security')::boolean then
      format('as restrictive for %s to public', c.name)
      || case when c.shows then format(' using (%s or (%s)%s)', b.beyond, c.shown, c.unless_shown) else '' end
      || case when c.writes then format(' with check (%s or (%s)%s)', b.beyond, c.written, c.unless_written) else '' end
    end
  from commands as c
  cross join (
    select
      -- who answers for persons must find all of theirs. The owner of a table is free of its policies, unless they are forced: then
      -- the owner is taken for an application, whatever else it is
      format(
        'current_user = ''gdpr_worker'' or (select pg_has_role(current_user, ''gdpr_dpo'', ''usage'') %s pg_has_role(current_user, to_regrole(%L)::oid, ''usage''))',
        case when (p_original ->> 'force_row_security')::boolean then 'and not' else 'or' end, r.relowner::regrole
      ) as beyond
    from pg_class as r
    where r.oid = p_relation
  ) as b
  order by c.name;
end;
comment on function gdpr_internal.own_policies(regclass, jsonb) is
  'The restrictive policies, one for each command, by which a table''s own row policies (those for some roles, too) hold on the protected table and through its views (p_original: its state before, as the register has it); definition is null where there is nothing to say. As before, the owner is free of them unless row security was forced; so are gdprdb''s own work for persons, and gdpr_dpo.';
