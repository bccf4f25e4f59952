-- [code] The guard: refuses statements after which a table is protected less, whatever the statement was.
-- GDPR Art. 25, Art. 32(1)(b), (d). Called by: the event triggers that a superuser installs (gdprdb guard install).
-- It looks at the catalog as a statement left it. gdprdb's own changes are judged by what they leave at their end.

set local role gdpr_owner;

create or replace function gdpr_internal.tables_above(p_relation oid)
returns setof smallint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with recursive above (oid) as (
    select p_relation
    union
    select i.inhparent from above as a join pg_inherits as i on i.inhrelid = a.oid
  )
  select t.id
  from above as a
  join gdpr_internal.protected_table as t on t.relation = a.oid and t.unprotected_at is null;
end;
comment on function gdpr_internal.tables_above(oid) is 'The protected table that a relation is or is part of.';

create or replace function gdpr_internal.read_tables(p_view oid)
returns setof smallint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with recursive tree (oid) as (
    select p_view
    union
    select d.refobjid
    from tree as t
    join pg_rewrite as w on w.ev_class = t.oid
    join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> t.oid
    join pg_class as c on c.oid = d.refobjid
    join pg_namespace as n on n.oid = c.relnamespace
    -- what a redacted view shows may be copied
    where n.nspname <> all (array(select 'gdpr_' || a from unnest(gdpr_internal.audiences()) as a))
  )
  select p.id
  from tree as t
  cross join lateral gdpr_internal.tables_above(t.oid) as p (id);
end;
comment on function gdpr_internal.read_tables(oid) is
  'The protected tables that a view or materialized view reads, through other views and through clear views, but not through redacted ones.';

create or replace function gdpr_internal.guarded_objects(out machinery text[], out tables smallint[], out grants boolean, out made oid[], out copies oid[])
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_ours oid[] := array(
    select n.oid from pg_namespace as n
    where n.nspowner::regrole::text = 'gdpr_owner' or n.nspname = 'gdpr_guard'
  );
begin
  with command as materialized (
    select
      c.command_tag, c.object_type, c.object_identity, c.objid,
      case c.classid
        when 'pg_class'::regclass then c.objid
        when 'pg_trigger'::regclass then (select g.tgrelid from pg_trigger as g where g.oid = c.objid)
        when 'pg_policy'::regclass then (select p.polrelid from pg_policy as p where p.oid = c.objid)
        when 'pg_rewrite'::regclass then (select w.ev_class from pg_rewrite as w where w.oid = c.objid)
        when 'pg_cast'::regclass then (select t.typrelid from pg_cast as k join pg_type as t on t.oid = k.castsource where k.oid = c.objid)
      end as relation,
      case c.classid
        when 'pg_namespace'::regclass then c.objid
        when 'pg_extension'::regclass then (select 'gdpr_internal'::regnamespace::oid from pg_extension as e where e.oid = c.objid and e.extname = 'pgcrypto')
        else to_regnamespace(quote_ident(c.schema_name))
      end as schema,
      c.classid = 'pg_namespace'::regclass as of_schema
    from pg_event_trigger_ddl_commands() as c
    -- words and statistics protect nothing; nor do indexes, but for those that are unique, which are looked at when they go
    where c.command_tag <> 'COMMENT' and c.object_type not in ('index', 'statistics object')
  ),
  object as (
    select o.*, coalesce((select r.relnamespace from pg_class as r where r.oid = o.relation), o.schema) as namespace
    from command as o
  )
  select
    array_agg(distinct format('%s %s', o.object_type, o.object_identity)) filter (where o.namespace = any (v_ours)),
    array_agg(distinct t.id) filter (where t.id is not null),
    coalesce(bool_or(o.command_tag in ('GRANT', 'REVOKE', 'DROP OWNED', 'REASSIGN OWNED')), false),
    array_agg(distinct o.objid) filter (where o.object_type in ('view', 'materialized view')),
    array_agg(distinct o.objid) filter (where o.command_tag in ('CREATE TABLE AS', 'SELECT INTO') or (
      -- what reads a protected table otherwise than by a function is refused: view_findings()
      o.object_type = 'materialized view' and o.command_tag in ('CREATE MATERIALIZED VIEW', 'REFRESH MATERIALIZED VIEW')
      and not exists (select from gdpr_internal.read_tables(o.objid))
    ))
  into machinery, tables, grants, made, copies
  from object as o
  left join lateral (
    select a as id from gdpr_internal.tables_above(o.relation) as a
    union
    select p.id
    from gdpr_internal.protected_table as p
    join pg_class as r on r.oid = p.relation and r.relnamespace = o.objid
    where o.of_schema and p.unprotected_at is null
  ) as t on true;
end
$function$;
comment on function gdpr_internal.guarded_objects() is
  'What the statement of an event trigger touched: objects of gdprdb, protected tables, grants (which name no object), views that were made, tables and materialized views that a query filled.';

create or replace function gdpr_internal.dropped_objects(out machinery text[], out tables smallint[])
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_ours name[] := array(
    select n.nspname from pg_namespace as n
    where n.nspowner::regrole::text = 'gdpr_owner'
  ) || array['gdpr', 'gdpr_internal', 'gdpr_policy', 'gdpr_generated', 'gdpr_guard']::name[] || gdpr_internal.view_schemas()::name[];
begin
  with object as materialized (
    select d.object_type, d.object_identity, d.classid, d.objid,
      coalesce(d.schema_name, d.address_names[1]) as schema,
      c.oid as relation
    from pg_event_trigger_dropped_objects() as d
    -- by name, whether gdpr_owner may enter the schema or not
    left join pg_namespace as n on n.nspname = d.address_names[1]
    left join pg_class as c on c.relnamespace = n.oid and c.relname = d.address_names[2]
    where not d.is_temporary
  )
  select
    array_agg(distinct format('%s %s', o.object_type, o.object_identity)) filter (where o.schema = any (v_ours)),
    array_agg(distinct t.id) filter (where t.id is not null)
  into machinery, tables
  from object as o
  left join lateral (
    select a as id from gdpr_internal.tables_above(o.relation) as a
    union
    select p.id from gdpr_internal.protected_table as p
    where o.classid = 'pg_class'::regclass and p.relation = o.objid and p.unprotected_at is null
    union
    -- partitions and indexes are no longer there to be asked whose they were
    select c.table_id
    from gdpr_internal.control as c
    join gdpr_internal.protected_table as p on p.id = c.table_id and p.unprotected_at is null
    where c.kind in ('child', 'index') and c.name = o.object_identity
  ) as t on true;
end
$function$;
comment on function gdpr_internal.dropped_objects() is 'What the statement of an event trigger dropped: objects of gdprdb, and from which protected tables.';

create or replace function gdpr_internal.view_findings(p_views oid[])
returns setof text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select distinct case v.relkind
    when 'm' then format('materialized view %s would copy rows of %s', v.oid::regclass, t.relation)
    else format('view %s over %s belongs to %s, who passes row security', v.oid::regclass, t.relation, o.rolname)
  end
  from pg_class as v
  join pg_roles as o on o.oid = v.relowner
  cross join lateral gdpr_internal.read_tables(v.oid) as r (id)
  join gdpr_internal.protected_table as t on t.id = r.id
  where v.oid = any (p_views) and (v.relkind = 'm' or (
    (o.rolsuper or o.rolbypassrls) and not coalesce('security_invoker=true' = any (v.reloptions) or 'security_invoker=on' = any (v.reloptions), false)
  ))
  order by 1;
end;
comment on function gdpr_internal.view_findings(oid[]) is 'Which of these views copy or show rows of protected tables past their gate.';

create or replace function gdpr_internal.note_copies(p_relations oid[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_tables text[] := array(
    select distinct t.relation::text
    from pg_locks as l
    cross join lateral gdpr_internal.tables_above(l.relation) as a (id)
    join gdpr_internal.protected_table as t on t.id = a.id
    where l.pid = pg_backend_pid() and l.locktype = 'relation'
    order by 1
  );
  v_relation regclass;
begin
  if v_tables = '{}' then
    return;
  end if;
  foreach v_relation in array p_relations loop
    insert into gdpr_internal.copy_record (relation, of_tables)
    select v_relation, v_tables
    -- what is refreshed each night is one copy
    where not exists (select from gdpr_internal.copy_record as r where r.relation = v_relation and r.of_tables = v_tables);
    perform gdpr_internal.audit_event('COPY', null, jsonb_build_object('table', v_relation::text, 'of', to_jsonb(v_tables)));
    raise warning '% may hold a copy of rows of %, which nothing protects', v_relation, array_to_string(v_tables, ', ')
      using hint = 'Drop it, or protect it: gdprdb policy apply.';
  end loop;
end
$function$;
comment on function gdpr_internal.note_copies(oid[]) is
  'Reports tables and materialized views that a query filled, in a transaction that has read protected tables (whose locks tell): a warning, an audit record, and a finding of doctor() while they exist.';

create or replace function gdpr_internal.guard(p_event text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
-- compiling would take longer than all the rest
set jit = off
as $function$
declare
  v_found record;
  v_weaker text[];
  v_allowed text;
  v_new text[];
begin
  if p_event = 'sql_drop' then
    select d.machinery, d.tables, false as grants, null::oid[] as made, null::oid[] as copies into v_found from gdpr_internal.dropped_objects() as d;
  else
    v_found := gdpr_internal.guarded_objects();
  end if;
  if v_found.copies is not null then
    perform gdpr_internal.note_copies(v_found.copies);
  end if;
  if v_found.machinery is null and v_found.tables is null and not v_found.grants and v_found.made is null then
    return;
  end if;
  v_allowed := gdpr_internal.change_allowed();
  if v_allowed = 'change' then
    return;
  end if;
  v_weaker := coalesce(v_found.machinery, '{}') || array(
    select w from unnest(v_found.tables) as t (id) cross join lateral gdpr_internal.weakened(t.id) as w
  ) || array(select f from gdpr_internal.view_findings(v_found.made) as f);
  if v_found.grants then
    v_weaker := v_weaker || array(
      select 'rights on objects of gdprdb are changed'
      where gdpr_internal.grants() is distinct from (select s.value #>> '{}' from gdpr_internal.setting as s where s.name = 'grants')
      union all
      select format('%s can no longer read or write %s', g.role, t.relation)
      from gdpr_internal.protected_table as t
      join pg_class as c on c.oid = t.relation
      cross join (values ('gdpr_worker', 'select'), ('gdpr_worker', 'update'), ('gdpr_worker', 'delete'), ('gdpr_viewer', 'select')) as g (role, privilege)
      where t.unprotected_at is null and not has_table_privilege(g.role, c.oid, g.privilege)
    );
  end if;
  if v_weaker = '{}' then
    v_new := array(
      select distinct format('%s', p.relid::regclass)
      from unnest(v_found.tables) as t (id)
      join gdpr_internal.protected_table as o on o.id = t.id
      cross join lateral pg_partition_tree(o.relation) as p
      where not exists (
        select from gdpr_internal.control as c where c.table_id = t.id and c.kind = 'child' and c.name = p.relid::regclass::text
      ) and p.relid <> o.relation
      order by 1
    );
    if v_new <> '{}' then
      raise warning 'partitions without row security of their own: %', array_to_string(v_new, ', ')
        using hint = 'gdprdb policy apply covers them; until then only their table does, and who may TRUNCATE them leaves no record.';
    end if;
  elsif v_allowed = 'window' then
    perform gdpr_internal.audit_event('GUARD', null, jsonb_build_object('window', gdpr_internal.open_window(), 'weaker', to_jsonb(v_weaker)));
  else
    perform gdpr_internal.refuse('guarded', array_to_string(v_weaker, E'\n'));
  end if;
end
$function$;
comment on function gdpr_internal.guard(text) is
  'Asked by the guard''s event triggers at the end of each statement that defines something (p_event: ddl_command_end, sql_drop): refuses what leaves a protected table weaker than apply() did, and what changes gdprdb''s own objects, unless gdprdb does it itself or a maintenance window is open. Error: PR510. Art. 32(1)(b).';

create or replace function gdpr_internal.note_guard(p_what text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  raise log 'gdprdb: the guard is %, by %', p_what, gdpr_internal.acting_role();
  perform gdpr_internal.audit_event('GUARD', null, jsonb_build_object('guard', p_what));
  perform gdpr_internal.keep_grants();
end
$function$;
comment on function gdpr_internal.note_guard(text) is 'Puts on record that the guard was installed or removed; the rights there are now are those that it keeps.';
