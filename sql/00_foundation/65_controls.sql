-- [code] What apply() left on a table, and the policy in force as people read it.
-- GDPR Art. 5(2), Art. 25. Called by: gdpr.plan() and gdpr.doctor() (drift), DBAs, officers and auditors (views).

set local role gdpr_owner;

create or replace function gdpr_internal.controls(p_relation regclass)
returns table (control text)
language sql
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
begin atomic
  select format('trigger %s %s %s', g.tgrelid::regclass, pg_get_triggerdef(g.oid), g.tgenabled)
  from pg_trigger as g
  where (g.tgrelid = p_relation or g.tgrelid in (select i.relid from pg_partition_tree(p_relation) as i))
    and not g.tgisinternal
  union all
  select format('policy %s %s %s %s %s %s %s', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[],
    pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
  from pg_policy as p
  where (p.polrelid = p_relation or p.polrelid in (select i.relid from pg_partition_tree(p_relation) as i))
  union all
  select format('row security %s %s %s', c.oid::regclass, c.relrowsecurity, c.relforcerowsecurity)
  from pg_class as c
  where c.oid = p_relation or c.oid in (select i.relid from pg_partition_tree(p_relation) as i)
  union all
  select format('function %s %s %s %s %s', f.oid::regprocedure, f.proowner::regrole, f.prosecdef, f.proconfig, md5(f.prosrc))
  from pg_proc as f
  join gdpr_internal.protected_table as t on t.relation = p_relation and t.unprotected_at is null
  where f.pronamespace = 'gdpr_generated'::regnamespace and f.proname ~ ('_' || t.id || '$')
  union all
  select format('view %s %s %s %s', c.oid::regclass, c.relowner::regrole, c.reloptions, pg_get_viewdef(c.oid))
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  join gdpr_internal.protected_table as t on t.relation = p_relation and t.unprotected_at is null and t.view_name = c.relname
  where c.relkind = 'v' and n.nspname = any (gdpr_internal.view_schemas())
  union all
  select format('column %s %s %s', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)
  from pg_attribute as a
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped
  union all
  select format('rule %s', pg_get_ruledef(w.oid))
  from pg_rewrite as w
  where w.ev_class = p_relation
  union all
  select format('child %s', i.inhrelid::regclass)
  from pg_inherits as i
  join pg_class as c on c.oid = i.inhrelid
  where i.inhparent = p_relation
  union all
  select format('cast %s', pg_describe_object('pg_cast'::regclass, k.oid, 0))
  from pg_cast as k
  join pg_class as c on c.oid = p_relation
  where k.castsource = c.reltype
  union all
  select format('foreign key %s %s', k.conname, pg_get_constraintdef(k.oid))
  from pg_constraint as k
  where k.contype = 'f' and k.conparentid = 0
    and (k.conrelid = p_relation or k.conrelid in (select i.relid from pg_partition_tree(p_relation) as i))
  union all
  select format('index %s', pg_get_indexdef(x.indexrelid))
  from pg_index as x
  where x.indrelid = p_relation and exists (
    select from pg_attribute as a
    where a.attrelid = x.indrelid and a.attnum = any (x.indkey) and a.attname ~ '^gdpr_'
  );
end;
comment on function gdpr_internal.controls(regclass) is
  'All that decides what happens to a table''s rows, as the catalog describes it: triggers, policies, row security, rules, children, casts, functions, views, columns, foreign keys (erasure follows them), indexes. What an application adds to them is drift until apply() has seen it.';

create or replace function gdpr_internal.fingerprint(p_relation regclass)
returns bytea
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select sha256(convert_to(coalesce(string_agg(c.control, E'\n' order by c.control collate "C"), ''), 'UTF8'))
  from gdpr_internal.controls(p_relation) as c;
end;
comment on function gdpr_internal.fingerprint(regclass) is 'SHA-256 over the controls of a table: what differs later is drift.';

create or replace function gdpr_internal.settle_table(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.know_columns(gdpr_internal.own_table(p_role, p_relation));
  update gdpr_internal.protected_table as t
  set fingerprint = gdpr_internal.fingerprint(p_relation)
  where t.relation = p_relation and t.unprotected_at is null;
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
    'settings', (select coalesce(jsonb_object_agg(s.name, s.value), '{}') from gdpr_internal.setting as s where s.name <> 'machinery'),
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
select s.name, s.value from gdpr_internal.setting as s where s.name <> 'machinery';
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
  c.original_type as type,
  c.about,
  c.same_as
from gdpr_internal.protected_column as c
join gdpr_internal.protected_table as t on t.id = c.table_id
where t.unprotected_at is null
order by t.relation::text, c.position;
comment on view gdpr.protected_column is 'Classified columns of protected tables.';
