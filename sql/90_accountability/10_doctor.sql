-- [code] doctor(): a claim is only made where it is checked.
-- GDPR Art. 5(2), Art. 24, Art. 32(1)(d). Called by: DBAs, officers, auditors, gdprdb doctor (exit code 3 on errors and warnings).

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_tables()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with live as (
    select t.id, t.relation, t.mode, t.definition, t.fingerprint, c.oid is not null as present
    from gdpr_internal.protected_table as t
    left join pg_class as c on c.oid = t.relation
    -- one that is being enabled has not all of it yet: see doctor_enabling()
    where t.unprotected_at is null and gdpr_internal.enabling_state(t.id) is null
  )
  select 'error', 'table_missing', l.relation::text, 'a protected table is gone', 'Restore it, or record with your officer that its data was deleted.'
  from live as l where not l.present
  union all
  select m.severity, m.topic, m.object, m.finding, m.hint
  from live as l
  cross join lateral gdpr_internal.missing_controls(l.relation) as m
  where l.present
  union all
  select 'error', 'renamed', l.relation::text,
    case when n.now is null then format('%s is gone, and the protection does not know it', n.was)
      else format('%s is called %s now, and the protection does not know it: rows cannot be written', n.was, n.now) end,
    format('%s follows it; then change it in the policy file.', gdpr_internal.follow_hint(l.relation))
  from live as l
  cross join lateral gdpr_internal.unfollowed_names(l.id) as n
  where l.present
  union all
  select
    case when w.weaker is null then 'warning' else 'error' end, 'drift', l.relation::text,
    format('the catalog is no longer what apply() left (%s)', coalesce(w.weaker, 'controls or columns were changed')),
    'gdprdb policy plan shows the steps, gdprdb policy apply takes them.'
  from live as l
  cross join lateral (select string_agg(x, ', ') from gdpr_internal.weakened(l.id) as x) as w (weaker)
  where l.present and l.fingerprint is distinct from gdpr_internal.fingerprint(l.relation)
  union all
  select 'warning', 'unclassified', l.relation::text,
    format('column %I is not classified: hidden from %s views', a.attname, case when h.hidden then 'all' else 'redacted' end),
    'Name it in the policy: [tables."..."].columns.'
  from live as l
  join pg_attribute as a on a.attrelid = l.relation and a.attnum > 0 and not a.attisdropped
  cross join lateral (select gdpr_internal.is_hidden_column(l.id, a.attname) as hidden) as h
  where not l.definition -> 'columns' ? a.attname::text and not gdpr_internal.is_control_column(l.id, a.attname)
    and (h.hidden or not exists (
      select from pg_constraint as k where k.conrelid = l.relation and k.contype in ('p', 'f') and a.attnum = any (k.conkey)
    ))
  union all
  select 'error', 'bypassing_view', v.oid::regclass::text,
    format('view over %s belongs to %s, who passes row security', l.relation, v.relowner::regrole),
    'Give the view to a role without superuser and BYPASSRLS, or create it WITH (security_invoker).'
  from live as l
  join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = l.relation and d.classid = 'pg_rewrite'::regclass
  join pg_rewrite as w on w.oid = d.objid
  join pg_class as v on v.oid = w.ev_class and v.relkind in ('v', 'm')
  join pg_roles as o on o.oid = v.relowner
  where (o.rolsuper or o.rolbypassrls)
    and not coalesce('security_invoker=true' = any (v.reloptions) or 'security_invoker=on' = any (v.reloptions), false)
  group by v.oid, v.relowner, l.relation
  union all
  select 'warning', 'copy_of_rows', v.oid::regclass::text, format('a materialized view keeps a copy of %s that no gate protects', t.relation),
    'Protect it by dropping it, or build it on a redacted view.'
  from pg_class as v
  cross join lateral gdpr_internal.read_tables(v.oid) as r (id)
  join gdpr_internal.protected_table as t on t.id = r.id
  where v.relkind = 'm'
  union all
  select 'warning', 'statistics', l.relation::text, 'the planner''s statistics may hold values of persons erased since the last ANALYZE',
    format('ANALYZE %s;', l.relation)
  from live as l
  join pg_stat_all_tables as s on s.relid = l.relation
  where exists (
    select from gdpr_internal.erasure_record as e
    where e.erased_at > coalesce(greatest(s.last_analyze, s.last_autoanalyze), '-infinity')
      and exists (
        select from jsonb_array_elements(e.receipt -> 'tables') as t
        where (t ->> 'table' = l.relation::text or t ->> 'table' in (
          select f.name from gdpr_internal.former_name as f where f.table_id = l.id and f.position is null
        )) and (t ->> 'rows')::bigint > 0
      )
  ) and exists (select from pg_class as c where c.oid = l.relation and c.reltuples >= 0)
  union all
  select 'error', 'deferred_trigger', l.relation::text, format('trigger %I is deferrable: it would run with the rights of whoever commits', g.tgname),
    format('drop trigger %I on %s;', g.tgname, l.relation)
  from live as l
  join pg_trigger as g on g.tgrelid = l.relation and not g.tgisinternal and g.tgdeferrable
  union all
  select 'warning', 'several_owners', string_agg(distinct c.relowner::regrole::text, ', '),
    'protected tables belong to several roles: what one owner plants in a table can read and write the rows of the others (never their keys)',
    'Give all protected tables of a database to one owner.'
  from live as l
  join pg_class as c on c.oid = l.relation
  having count(distinct c.relowner) > 1
  union all
  select 'info', 'index_unused', i.indexrelid::regclass::text,
    format('row security keeps most conditions away from this index of %s', l.relation), 'Equality and ordering reach an index; LIKE, trigram, JSON and expressions do not. See docs/limits.md.'
  from live as l
  join pg_index as i on i.indrelid = l.relation and (i.indexprs is not null or exists (
    select from pg_class as c join pg_am as m on m.oid = c.relam where c.oid = i.indexrelid and m.amname in ('gin', 'gist', 'spgist')
  ))
  join pg_class as o on o.oid = l.relation
  where l.mode = 'enforce' and l.present
    -- the index of a search is reached by its policy
    and not (l.definition ? 'search' and exists (
      select from pg_class as c where c.oid = i.indexrelid and c.relname = gdpr_internal.search_name(o.relname)
    ));
end;
comment on function gdpr_internal.doctor_tables() is 'Findings about protected tables.';

create or replace function gdpr_internal.doctor_roles()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'error', 'owner_role', r.rolname::text, 'an owner of gdprdb may log in, is superuser or passes row security',
    format('alter role %I nologin nosuperuser nobypassrls;', r.rolname)
  from pg_roles as r
  where r.rolname in ('gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer') and (r.rolcanlogin or r.rolsuper or r.rolbypassrls)
  union all
  select 'error', 'owner_member', u.rolname::text, format('%s can act as %s', u.rolname, r.rolname),
    format('revoke %I from %I;', r.rolname, u.rolname)
  from pg_roles as r
  join pg_roles as u on u.rolcanlogin and not u.rolsuper
    -- from version 16 on the creator of a role is a member who may hand it on, but not act as it; and rights can be inherited without SET ROLE
    and (
      pg_has_role(u.oid, r.oid, 'usage')
      or pg_has_role(u.oid, r.oid, case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end)
    )
  where r.rolname in ('gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer')
  union all
  select 'error', 'role_missing', b.role_name::text, 'the policy binds a role that does not exist here', 'Create the role and apply the policy again (roles are not part of a database dump).'
  from gdpr_internal.role_binding as b
  where to_regrole(quote_ident(b.role_name)) is null
  union all
  select 'error', 'membership', b.role_name::text, 'the role is bound by the policy but lacks the group of its audience',
    'Apply the policy again: gdprdb policy apply.'
  from gdpr_internal.role_binding as b
  where b.definition <> '{}' and to_regrole(quote_ident(b.role_name)) is not null
    and not gdpr_internal.in_audience(b.role_name, b.audience)
  union all
  select 'warning', 'bypass', r.rolname::text, 'a login without superuser passes row security', format('alter role %I nobypassrls;', r.rolname)
  from pg_roles as r
  where r.rolbypassrls and not r.rolsuper and r.rolcanlogin
  union all
  select 'warning', 'reads_all', u.rolname::text, format('%s is a member of %s, which passes the grants on every table', u.rolname, r.rolname),
    format('revoke %I from %I;', r.rolname, u.rolname)
  from pg_roles as r
  join pg_roles as u on u.rolcanlogin and not u.rolsuper and pg_has_role(u.oid, r.oid, 'member')
  where r.rolname in ('pg_read_all_data', 'pg_write_all_data')
  union all
  select 'warning', 'base_privilege', format('%s on %s', b.role_name, t.relation),
    'a role of a redacted audience has rights on the table itself (the gate refuses them)', format('revoke all on %s from %I;', t.relation, b.role_name)
  from gdpr_internal.role_binding as b
  cross join gdpr_internal.protected_table as t
  where t.unprotected_at is null and b.audience <> 'clear'
    and to_regrole(quote_ident(b.role_name)) is not null and exists (select from pg_class as c where c.oid = t.relation)
    and (
      has_any_column_privilege(b.role_name, t.relation, 'select, insert, update')
      or has_table_privilege(b.role_name, t.relation, 'delete')
    );
end;
comment on function gdpr_internal.doctor_roles() is 'Findings about roles.';

create or replace function gdpr_internal.doctor_machinery()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with ours as (
    select n.oid, n.nspname from pg_namespace as n where n.nspname in ('gdpr', 'gdpr_internal', 'gdpr_policy', 'gdpr_generated') or n.nspname = any (gdpr_internal.view_schemas())
  ),
  functions as (
    select p.oid, p.proowner, p.prosecdef, p.proconfig, p.proacl, p.prolang, p.pronamespace, p.prosqlbody is not null as atomic, p.proname
    from pg_proc as p
    join ours as o on o.oid = p.pronamespace
    where not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
  )
  select 'error', 'function_owner', f.oid::regprocedure::text, format('a function in gdprdb''s schemas belongs to %s', f.proowner::regrole),
    'Drop it, or find out who put it there.'
  from functions as f
  where f.proowner::regrole::text not in ('gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer')
  union all
  select 'error', 'function_header', f.oid::regprocedure::text, 'a definer function without a fixed search_path', 'gdprdb db upgrade loads the functions again.'
  from functions as f
  where f.prosecdef and not exists (select from unnest(f.proconfig) as c where starts_with(c, 'search_path=pg_catalog,'))
  union all
  select 'error', 'public_function', f.oid::regprocedure::text, 'PUBLIC may execute a function of gdprdb', 'gdprdb db upgrade revokes it.'
  from functions as f
  where exists (select from aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) as a where a.grantee = 0 and a.privilege_type = 'EXECUTE')
    and f.oid::regprocedure::text <> all (array[
      'gdpr_internal.refuse(text,text)', 'gdpr_internal.error_text(text)', 'gdpr_internal.open_value(bytea,bigint,integer,text)',
      'gdpr_generated.is_clear(name)', 'gdpr_generated.is_home()', 'gdpr_policy.is_here(oid,text)', 'gdpr_generated.purpose_mask(name,text)', 'gdpr_internal.given_keys(bytea)',
      'gdpr_policy.purpose_mask(name,text)', 'gdpr_policy.still_allowed(bigint,bigint,name,text)', 'gdpr_policy.refuse_base(name)',
      'gdpr_policy.special_allowed(bigint,name,text)', 'gdpr_policy.refuse_clear(name,regclass,text[])', 'gdpr_policy.refuse_column(name,regclass,name)',
      'gdpr_policy.shows_column(regclass,name)', 'gdpr_policy.shown_columns(regclass)',
      'gdpr_policy.kept_since(name,text,interval,anyelement)', 'gdpr_policy.search_pattern(integer)',
      'gdpr_policy.note_read(smallint,boolean)', 'gdpr_policy.count_read(regclass)'
    ])
    -- constraints of encrypted columns: expressions of the tables' owners, with nobody's rights
    and not (f.proname ~ '^holds_[0-9a-f]{8}_[0-9]+$' and not f.prosecdef and f.pronamespace = 'gdpr_generated'::regnamespace)
  union all
  select 'error', 'public_relation', c.oid::regclass::text, 'PUBLIC has rights on a relation of gdprdb', 'gdprdb db upgrade revokes them.'
  from pg_class as c
  join ours as o on o.oid = c.relnamespace
  where exists (select from aclexplode(c.relacl) as a where a.grantee = 0)
  union all
  select 'error', 'schema_open', o.nspname::text, 'somebody else may create objects in a schema of gdprdb', 'gdprdb db upgrade revokes it.'
  from ours as o
  join pg_namespace as n on n.oid = o.oid
  where exists (
    select from aclexplode(n.nspacl) as a
    where a.privilege_type = 'CREATE' and a.grantee::regrole::text not in ('gdpr_owner', 'gdpr_keyholder', 'gdpr_viewer')
  ) or n.nspowner::regrole::text <> 'gdpr_owner'
  union all
  select 'error', 'internal_row_security', c.oid::regclass::text, 'row security is off on a table of evidence', 'gdprdb db upgrade turns it on.'
  from pg_class as c
  where c.relnamespace = 'gdpr_internal'::regnamespace and c.relkind in ('r', 'p') and c.relowner::regrole::text = 'gdpr_owner'
    and not c.relrowsecurity and c.relname <> 'schema_version'
  union all
  select 'error', 'append_only', c.oid::regclass::text, 'evidence can be changed: its trigger is missing or disabled', 'gdprdb db upgrade puts it back.'
  from pg_class as c
  where c.relnamespace = 'gdpr_internal'::regnamespace
    and c.relname = any (gdpr_internal.evidence_tables())
    and (select count(*) from pg_trigger as g where g.tgrelid = c.oid and g.tgname in ('gdpr_50_append_only', 'gdpr_50_no_truncate') and g.tgenabled = 'A') < 2
  union all
  select 'warning', 'audit_partition', 'gdpr_internal.audit_record_rest', 'audit records lie outside the monthly partitions', 'gdpr.tidy() gives them their months, as soon as it gets the lock.'
  where exists (select from gdpr_internal.audit_record_rest)
  union all
  select 'warning', 'audit_partition', to_char(statement_timestamp() + interval '1 month', 'YYYY_MM'), 'next month has no audit partition', 'gdpr.tidy() makes partitions ahead.'
  where to_regclass('gdpr_internal.audit_record_' || to_char((statement_timestamp() + interval '1 month') at time zone 'UTC', 'YYYY_MM')) is null
  union all
  select 'warning', 'assessment', p.name, 'rests on legitimate interests, and no approved assessment carries it',
    'gdpr.record_assessment(), and gdpr.approve_assessment() by somebody else; until then only a grace period, or another basis, lets its data be used.'
  from gdpr_internal.purpose as p
  where p.basis = 'legitimate_interests' and p.assessed_until <= statement_timestamp()
    and exists (select from gdpr_internal.protected_table as t where t.unprotected_at is null and t.purpose_mask & (1::bigint << p.id) <> 0)
  union all
  select 'info', 'assessment', p.name, 'the assessment of legitimate interests is due for review', 'Review it, and gdpr.approve_assessment() it anew.'
  from gdpr_internal.purpose as p
  where p.basis = 'legitimate_interests' and p.assessed_until > statement_timestamp()
    and p.assessed_until <= statement_timestamp() + interval '30 days'
  union all
  select 'info', 'stale_gates', count(*)::text, 'persons whose gate has passed its instant (right, but slower to read)', 'select gdpr.tidy_gates();'
  from gdpr_internal.subject as s
  where s.until <= statement_timestamp()
  having count(*) > 0
  union all
  select 'info', 'transport', 'ssl', 'connections are not encrypted by the server', 'Turn ssl on unless all clients use the local socket.'
  where not current_setting('ssl')::boolean;
end;
comment on function gdpr_internal.doctor_machinery() is 'Findings about gdprdb''s own objects.';

create or replace function gdpr_internal.doctor_rows()
returns table (severity text, topic text, object text, finding text, hint text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table record;
  v_before text;
  v_gates bigint;
  v_orphans bigint;
  v_plain bigint;
begin
  for v_table in
    select t.id, t.relation, c.reltuples
    from gdpr_internal.protected_table as t
    join pg_class as c on c.oid = t.relation
    where t.unprotected_at is null and gdpr_internal.enabling_state(t.id) is null
    order by t.relation::text
  loop
    object := v_table.relation::text;
    if v_table.reltuples > 1000000 then
      severity := 'info';
      topic := 'rows';
      finding := 'more than a million rows: not read';
      hint := null;
      return next;
      continue;
    end if;
    severity := 'error';
    begin
      v_before := gdpr_internal.before_worker();
      execute format('select * from gdpr_generated.%I()', 'check_' || v_table.id) into v_gates, v_orphans, v_plain;
      -- what a planted row policy did as gdpr_worker is undone with this block
      perform gdpr_internal.after_worker(v_before);
    exception when others then
      topic := 'rows';
      finding := 'the rows cannot be read by gdprdb';
      hint := 'Apply the policy again: gdprdb policy apply.';
      return next;
      continue;
    end;
    if v_gates > 0 then
      topic := 'gates';
      finding := format('%s rows have another gate than their person', v_gates);
      hint := 'Somebody wrote past the triggers. Find out who, then unprotect and protect the table again.';
      return next;
    end if;
    if v_orphans > 0 then
      topic := 'orphans';
      finding := format('%s rows belong to nobody', v_orphans);
      hint := 'Somebody wrote past the triggers. Find out who, then unprotect and protect the table again.';
      return next;
    end if;
    if v_plain > 0 then
      topic := 'plaintext';
      finding := format('%s rows hold plaintext, or ciphertext of somebody else, in an encrypted column', v_plain);
      hint := format('Somebody wrote past the triggers. gdpr.broken_values(%L) names the rows; UPDATE on the table itself replaces a value.', object);
      return next;
    end if;
  end loop;
end
$function$;
comment on function gdpr_internal.doctor_rows() is 'Findings about the rows of protected tables with up to a million rows: gate, subject and ciphertext as the evidence has them.';

create or replace function gdpr_internal.machinery()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  select md5(string_agg(
    format('%s %s %s %s %s', p.oid::regprocedure, p.proowner::regrole, p.prosecdef, p.proconfig, md5(p.prosrc)), E'\n'
    order by p.oid::regprocedure::text collate "C"
  ))
  from pg_proc as p
  where p.pronamespace in ('gdpr'::regnamespace, 'gdpr_internal'::regnamespace, 'gdpr_policy'::regnamespace)
    and not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e');
end;
comment on function gdpr_internal.machinery() is 'A hash over gdprdb''s own functions: owner, SECURITY DEFINER, settings, source.';

create or replace function gdpr.doctor()
returns table (severity text, topic text, object text, finding text, hint text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
begin
  return query
  select f.*
  from (
    select * from gdpr_internal.doctor_tables()
    union all
    select * from gdpr_internal.doctor_roles()
    union all
    select * from gdpr_internal.doctor_machinery()
    union all
    select * from gdpr_internal.doctor_keys()
    union all
    select * from gdpr_internal.doctor_mails()
    union all
    select * from gdpr_internal.doctor_home()
    union all
    select * from gdpr_internal.doctor_types()
    union all
    select * from gdpr_internal.doctor_search()
    union all
    select * from gdpr_internal.doctor_sharing()
    union all
    select * from gdpr_internal.doctor_retention()
    union all
    select * from gdpr_internal.doctor_enabling()
    union all
    select * from gdpr_internal.doctor_requests()
    union all
    select * from gdpr_internal.doctor_accountability()
    union all
    select * from gdpr_internal.doctor_audit()
    union all
    select * from gdpr_internal.doctor_guard()
    union all
    select * from gdpr_internal.doctor_rows()
    union all
    select 'error', 'machinery', 'functions of gdprdb', 'the functions are not those of the release', 'gdprdb db upgrade loads them again.'
    where gdpr_internal.machinery() is distinct from (select s.value #>> '{}' from gdpr_internal.setting as s where s.name = 'machinery')
    union all
    select 'error', 'gates', format('subject %s', s.id), 'the gate of the person is not what the evidence says', 'Somebody changed gdpr_internal.subject. select gdpr.tidy_gates() derives it anew.'
    from (
      select s.id, s.purposes from gdpr_internal.subject as s where s.until > statement_timestamp() order by s.id desc limit 10000
    ) as s
    join gdpr_internal.gate(array(select x.id from gdpr_internal.subject as x where x.until > statement_timestamp() order by x.id desc limit 10000)) as g
      on g.subject_id = s.id
    where g.possible <> s.purposes
  ) as f
  order by array_position(array['error', 'warning', 'info'], f.severity), f.topic, f.object;
end
$function$;
comment on function gdpr.doctor() is
  'What is not as gdprdb claims it is: severity (error, warning, info), topic, object, finding, hint. No error and no warning: the claims of the documentation hold. Art. 5(2), Art. 32(1)(d).';

create or replace function gdpr.release()
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_release text;
begin
  if to_regclass('gdpr_internal.schema_version') is not null then
    select v.version_num into v_release from gdpr_internal.schema_version as v;
  end if;
  return v_release;
end
$function$;
comment on function gdpr.release() is 'The release of gdprdb in this database; null when it was loaded without its migrations.';

set local role gdpr_keyholder;

create or replace function gdpr_internal.doctor_keys()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'error', 'key', 'key-encryption key', 'there is no key',
    case when exists (select from gdpr_internal.subject) then 'Restore gdpr_internal.key_encryption_key and subject_key from their backup.' else 'select gdpr.create_key();' end
  where not exists (select from gdpr_internal.key_encryption_key)
  union all
  select 'warning', 'key', 'key-encryption key', 'the key lies in the database, beside what it encrypts',
    'For production create the key with provider session or file and keep it elsewhere; gdpr.rotate_key() changes a key that is in use.'
  from gdpr_internal.key_encryption_key as k
  where k.provider = 'table' and k.retired_at is null
  union all
  select 'error', 'key', 'key-encryption key', format('the key is not to be had from its file: %s', p.problem),
    'Until the file is back nothing encrypted is read or written. A standby needs the file on its own disk.'
  from (select gdpr_internal.key_file_problem() as problem) as p
  where p.problem is not null
  union all
  select 'warning', 'key', 'key-encryption key', 'a rotation of the key has begun and has not ended: the old key still opens the database',
    'gdprdb keys rotate goes on with it; gdprdb keys rotate --finish ends it, --abort gives it up.'
  from gdpr_internal.key_encryption_key as k
  where k.replaces is not null
  union all
  select 'error', 'data_keys', count(*)::text, 'persons who are not erased have no data key: their ciphertext cannot be read',
    'A restore without the key tables does this: restore gdpr_internal.subject_key from its own backup.'
  from gdpr_internal.subject as s
  where s.erased_at is null and not exists (select from gdpr_internal.subject_key as k where k.subject_id = s.id)
  having count(*) > 0
  union all
  select 'error', 'key', 'key-encryption key', 'there are data keys and no key that wrapped them', 'Restore gdpr_internal.key_encryption_key.'
  where exists (select from gdpr_internal.subject_key as s where not exists (select from gdpr_internal.key_encryption_key as k where k.id = s.kek_id));
end;
comment on function gdpr_internal.doctor_keys() is 'Findings about keys.';
