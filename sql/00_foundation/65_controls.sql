-- [code] What apply() left on a table, and the policy in force as people read it.
-- GDPR Art. 5(2), Art. 25. Called by: gdpr.plan() and gdpr.doctor() (drift), DBAs, officers and auditors (views).

set local role gdpr_owner;

create or replace function gdpr_internal.rights(p_kind "char", p_owner oid, p_rights aclitem[])
returns text[]
language sql
stable
parallel safe
security invoker
begin atomic
  select array_agg(r.item::text order by r.item::text collate "C") from unnest(coalesce(p_rights, acldefault(p_kind, p_owner))) as r (item);
end;
comment on function gdpr_internal.rights("char", oid, aclitem[]) is
  'Who has which rights on an object, as text: a restored dump has the same rights in another order, and no list where it is the default. p_kind: as acldefault() takes it.';

create or replace function gdpr_internal.controls(p_relation regclass)
returns table (kind text, name text, definition text, keeps boolean, opens boolean)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set bytea_output = 'hex'
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set timezone = 'UTC'
set extra_float_digits = 3
set standard_conforming_strings = on
set quote_all_identifiers = off
as $function$
#variable_conflict use_column
begin
  return query
  with relations as (
    select c.oid, c.oid::regclass::text as name, c.relowner, c.relrowsecurity, c.relforcerowsecurity, c.reltype
    from pg_class as c
    where c.oid = p_relation or c.oid in (select i.relid from pg_partition_tree(p_relation) as i)
  ),
  ours as (
    select t.id, t.view_name, t.definition ? 'search' as searched
    from gdpr_internal.protected_table as t
    where t.relation = p_relation and t.unprotected_at is null
  )
  select
    'trigger', format('%s on %s', quote_ident(g.tgname), r.name), format('%s %s', pg_get_triggerdef(g.oid), g.tgenabled),
    g.tgname ~ '^zzz_gdpr_',
    -- what runs at commit runs with the rights of whoever commits; what runs after gdprdb's own sees ciphertext, and can undo it
    g.tgdeferrable or (g.tgtype & 3 = 3 and g.tgname > 'zzz_gdpr_40_protect' and g.tgname !~ '^zzz_gdpr_')
  from relations as r
  join pg_trigger as g on g.tgrelid = r.oid and not g.tgisinternal
  union all
  select
    'policy', format('%s on %s', quote_ident(p.polname), r.name),
    format(
      '%s %s %s %s %s', p.polcmd, p.polpermissive,
      -- a restored dump has the same roles in another order
      array(select o.role::regrole::text from unnest(p.polroles) as o (role) order by o.role::regrole::text collate "C"),
      pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)
    ),
    p.polname ~ '^gdpr_' or not p.polpermissive, p.polpermissive
  from relations as r
  join pg_policy as p on p.polrelid = r.oid
  union all
  select s.kind, format('of %s', r.name), '', true, false
  from relations as r
  cross join lateral (values ('row security', r.relrowsecurity), ('forced row security', r.relforcerowsecurity)) as s (kind, is_on)
  where s.is_on
  union all
  select 'owner', format('of %s', r.name), r.relowner::regrole::text, true, false
  from relations as r
  union all
  select
    'function', f.oid::regprocedure::text,
    format(
      '%s %s %s %s %s', f.proowner::regrole, f.prosecdef, f.proconfig,
      gdpr_internal.rights('f', f.proowner, f.proacl),
      md5(f.prosrc)
    ), true, false
  from ours as t
  join pg_proc as f on f.pronamespace = 'gdpr_generated'::regnamespace and f.proname ~ ('_' || t.id || '$')
  union all
  select
    'view', c.oid::regclass::text,
    format(
      '%s %s %s %s', c.relowner::regrole,
      gdpr_internal.rights('r', c.relowner, c.relacl),
      c.reloptions, pg_get_viewdef(c.oid)
    ), true, false
  from ours as t
  join pg_class as c on c.relkind = 'v'
  join pg_namespace as n on n.oid = c.relnamespace and n.nspname = any (gdpr_internal.view_schemas())
  where c.relname = t.view_name or t.searched and n.nspname = 'gdpr_clear' and c.relname = gdpr_internal.search_name(t.view_name)
  union all
  select n.kind, format('%s of %s', quote_ident(a.attname), p_relation), n.definition, n.kind = 'column', false
  from pg_attribute as a
  cross join lateral (
    values ('column', format_type(a.atttypid, a.atttypmod), true), ('not null', '', a.attnotnull)
  ) as n (kind, definition, present)
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and n.present
  union all
  -- what is computed can be computed anew, from another column (SET EXPRESSION, since PostgreSQL 17)
  select 'generated column', format('%s of %s', quote_ident(a.attname), p_relation), pg_get_expr(d.adbin, d.adrelid), false, false
  from pg_attribute as a
  join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = p_relation and a.attgenerated <> ''
  union all
  select 'rule', format('%s on %s', quote_ident(w.rulename), p_relation), pg_get_ruledef(w.oid), false, true
  from pg_rewrite as w
  where w.ev_class = p_relation
  union all
  -- a partition gets the row triggers of its table; what inherits otherwise gets nothing
  select 'child', i.inhrelid::regclass::text, '', true, not c.relispartition
  from pg_inherits as i
  join pg_class as c on c.oid = i.inhrelid
  where i.inhparent in (select r.oid from relations as r)
  union all
  select 'grant', format('%s to %s on %s', g.privilege, g.grantee, p_relation), '', true, false
  from (
    values ('gdpr_worker', 'select'), ('gdpr_worker', 'update'), ('gdpr_worker', 'delete'), ('gdpr_viewer', 'select')
  ) as g (grantee, privilege)
  where has_table_privilege(g.grantee, p_relation, g.privilege)
  union all
  select 'cast', pg_describe_object('pg_cast'::regclass, k.oid, 0), '', false, true
  from pg_cast as k
  join relations as r on r.oid = p_relation and k.castsource = r.reltype
  union all
  select 'foreign key', format('%s on %s', quote_ident(k.conname), r.name), pg_get_constraintdef(k.oid), false, false
  from relations as r
  join pg_constraint as k on k.conrelid = r.oid and k.contype = 'f' and k.conparentid = 0
  union all
  select 'index', x.indexrelid::regclass::text, pg_get_indexdef(x.indexrelid), x.indisunique, false
  from pg_index as x
  where x.indrelid = p_relation and exists (
    select from pg_attribute as a
    where a.attrelid = x.indrelid and a.attnum = any (x.indkey) and a.attname ~ '^gdpr_'
  );
end
$function$;
comment on function gdpr_internal.controls(regclass) is
  'All that decides what happens to a table''s rows, as the catalog describes it: triggers, policies, row security, owners, rules, children, casts, functions, views, columns, expressions of generated ones, foreign keys (erasure follows them), indexes. What an application adds to them is drift until apply() has seen it. keeps: the table is protected less when it goes or changes; opens: when it comes.';

create or replace function gdpr_internal.lines_hash(p_lines text[])
returns bytea
language sql
immutable
parallel safe
security invoker
begin atomic
  select sha256(convert_to(coalesce(string_agg(l, E'\n' order by l collate "C"), ''), 'UTF8')) from unnest(p_lines) as l;
end;
comment on function gdpr_internal.lines_hash(text[]) is 'SHA-256 over lines, whatever their order.';

create or replace function gdpr_internal.fingerprint(p_relation regclass)
returns bytea
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.lines_hash(array_agg(format('%s %s %s', c.kind, c.name, c.definition))) from gdpr_internal.controls(p_relation) as c;
end;
comment on function gdpr_internal.fingerprint(regclass) is 'SHA-256 over the controls of a table: what differs later is drift.';

create or replace function gdpr_internal.remember_controls(p_table smallint, p_kind text default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass := (select t.relation from gdpr_internal.protected_table as t where t.id = p_table);
begin
  delete from gdpr_internal.control as c where c.table_id = p_table and (p_kind is null or c.kind = p_kind);
  with found as materialized (
    select c.* from gdpr_internal.controls(v_relation) as c
  ), kept as (
    insert into gdpr_internal.control (table_id, kind, name, definition, keeps, opens)
    select p_table, f.kind, f.name, md5(f.definition), f.keeps, f.opens
    from found as f
    where p_kind is null or f.kind = p_kind
  )
  update gdpr_internal.protected_table as t
  set fingerprint = (select gdpr_internal.lines_hash(array_agg(format('%s %s %s', f.kind, f.name, f.definition))) from found as f)
  where t.id = p_table and p_kind is null;
end
$function$;
comment on function gdpr_internal.remember_controls(smallint, text) is
  'The controls of a table as they stand now are those it has to have: what differs later is drift, and what is less is weaker. p_kind: those that were generated anew, in a table that had drifted and stays so.';

create or replace function gdpr_internal.weakened(p_table smallint)
returns setof text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with had as materialized (
    select c.kind, c.name, c.definition, c.keeps from gdpr_internal.control as c where c.table_id = p_table
  ),
  has as materialized (
    select c.kind, c.name, md5(c.definition) as definition, c.opens
    from gdpr_internal.protected_table as t
    join pg_class as r on r.oid = t.relation
    cross join lateral gdpr_internal.controls(t.relation) as c
    where t.id = p_table
  )
  select format('%s %s is %s', h.kind, h.name, case when n.name is null then 'gone' else 'changed' end) as finding
  from had as h
  left join has as n on n.kind = h.kind and n.name = h.name
  where h.keeps and n.definition is distinct from h.definition
  union all
  select format('%s %s is %s', n.kind, n.name, case when h.name is null then 'new' else 'changed' end)
  from has as n
  left join had as h on h.kind = n.kind and h.name = n.name
  where n.opens and not coalesce(h.keeps, false) and h.definition is distinct from n.definition
    -- nothing is closed yet of a table that is being enabled
    and exists (select from had)
  order by finding;
end;
comment on function gdpr_internal.weakened(smallint) is
  'What protects a table less than when apply() left it: controls that are gone or changed, and what came and opens it. An added column, index, constraint or trigger of the application does not.';

create or replace function gdpr_internal.refuse_opened(p_table smallint)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_found text;
begin
  if gdpr_internal.guard_stands() and gdpr_internal.change_allowed() is distinct from 'window' then
    select string_agg(w, E'\n') into v_found
    from gdpr_internal.weakened(p_table) as w
    where exists (select from gdpr_internal.control as c where c.table_id = p_table) and w ~ '^(policy|rule|cast|trigger|owner|child) '
      and w !~ '^(policy gdpr_|trigger zzz_gdpr_)';
    if v_found is not null then
      perform gdpr_internal.refuse('guarded', v_found);
    end if;
  end if;
end
$function$;
comment on function gdpr_internal.refuse_opened(smallint) is
  'Where the guard stands, apply() takes nothing for settled that somebody else weakened or opened. Error: PR510.';

create or replace function gdpr_internal.settle_table(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refuse_opened(gdpr_internal.own_table(p_role, p_relation));
  -- all is ciphertext: from now on plaintext is a value that somebody planted
  update gdpr_internal.protected_column as c set encrypting_xid = null
  where c.table_id = gdpr_internal.own_table(p_role, p_relation) and c.encrypting_xid is not null;
  perform gdpr_internal.remember_controls(gdpr_internal.own_table(p_role, p_relation));
  perform gdpr_internal.know_columns(gdpr_internal.own_table(p_role, p_relation));
end
$function$;
comment on function gdpr_internal.settle_table(name, regclass) is 'See gdpr_policy.settle_table(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.settle_table(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.settle_table(current_user, p_relation);
end;
comment on function gdpr_policy.settle_table(regclass) is 'Step of apply(): remembers the controls as they stand now; what differs later is drift.';

create or replace function gdpr_internal.purpose_definition(p_purpose gdpr_internal.purpose)
returns jsonb
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $function$
begin
  return jsonb_strip_nulls(jsonb_build_object(
    'description', p_purpose.description, 'basis', p_purpose.basis, 'respond_within', p_purpose.respond_within::text,
    'remind', p_purpose.remind::text,
    'valid_for', p_purpose.valid_for::text, 'retain', p_purpose.retain::text,
    'while_waiting', case when p_purpose.basis = 'consent' then p_purpose.while_waiting end,
    'grace', case when p_purpose.basis in ('consent', 'legitimate_interests') then coalesce(to_jsonb(p_purpose.grace::text), 'false') end,
    'condition', p_purpose.condition, 'automated_decision', p_purpose.automated_decision,
    'direct_marketing', nullif(p_purpose.direct_marketing, false)
  ));
end
$function$;
comment on function gdpr_internal.purpose_definition(gdpr_internal.purpose) is 'A purpose as the policy writes it, durations in PostgreSQL''s style.';

create or replace function gdpr.policy()
returns jsonb
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select jsonb_build_object(
    'settings', (select coalesce(jsonb_object_agg(s.name, s.value), '{}') from gdpr_internal.setting as s where s.name not in ('machinery', 'grants')),
    'purposes', (
      select coalesce(jsonb_object_agg(p.name, gdpr_internal.purpose_definition(p)), '{}')
      from gdpr_internal.purpose as p where p.id < 62
    ),
    'roles', (
      select coalesce(jsonb_object_agg(b.role_name, b.definition), '{}') from gdpr_internal.role_binding as b where b.definition <> '{}'
    ),
    'tables', (
      select coalesce(jsonb_object_agg(t.relation::text, gdpr_internal.definition_as_written(t.definition)), '{}') from gdpr_internal.protected_table as t
      where t.unprotected_at is null
    )
  );
end;
comment on function gdpr.policy() is 'The policy in force, in normal form: what apply() would take to leave everything as it is.';

create or replace view gdpr.settings as
select s.name, s.value from gdpr_internal.setting as s where s.name not in ('machinery', 'grants');
comment on view gdpr.settings is 'Settings of the policy.';

create or replace view gdpr.protected_table as
select
  t.relation as table_name,
  t.mode,
  t.blocklist,
  (
    select array_agg(p.name order by p.id) from gdpr_internal.purpose as p where p.id < 62 and t.purpose_mask & (1::bigint << p.id) <> 0
  ) as purposes,
  (select r.relation from gdpr_internal.protected_table as r where r.id = t.parent_id) as parent,
  format('gdpr_clear.%I', t.view_name) as clear_view,
  t.definition -> 'erase' as erase,
  t.protected_at
from gdpr_internal.protected_table as t
where t.unprotected_at is null;
comment on view gdpr.protected_table is 'Tables that hold people, and how the policy treats them.';

create or replace view gdpr.protected_column as
select
  t.relation as table_name,
  c.column_name,
  c.category,
  c.special,
  c.sensitive,
  c.encrypt,
  c.identifier,
  c.matches,
  c.mask,
  c.erase,
  c.provided,
  coalesce(c.original ->> 'type', c.original_type) as type,
  c.about,
  c.same_as
from gdpr_internal.protected_column as c
join gdpr_internal.protected_table as t on t.id = c.table_id
where t.unprotected_at is null
order by t.relation::text, c.position;
comment on view gdpr.protected_column is 'Classified columns of protected tables.';
