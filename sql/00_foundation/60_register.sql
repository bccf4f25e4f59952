-- [code] Writing the policy register: the definer half of apply().
-- GDPR Art. 25, Art. 30. Called by: gdpr.apply() and gdpr.unprotect(), as their steps; granted to gdpr_admin.

set local role gdpr_owner;

create or replace function gdpr_policy.put_settings(p_settings jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_problems text[] := gdpr_internal.settings_problems(p_settings);
begin
  if v_problems <> '{}' then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_problems, E'\n'));
  end if;
  delete from gdpr_internal.setting as s where not p_settings ? s.name and s.name not in ('machinery', 'grants');
  insert into gdpr_internal.setting (name, value)
  select key, value from jsonb_each(p_settings)
  on conflict (name) do update set value = excluded.value;
  perform gdpr_internal.generate_addresses();
end
$function$;
comment on function gdpr_policy.put_settings(jsonb) is 'Step of apply(): the settings of the policy.';

create or replace function gdpr_policy.put_purpose(p_name text, p_definition jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_read record := gdpr_internal.read_purposes(jsonb_build_object('purposes', jsonb_build_object(p_name, p_definition)));
begin
  if v_read.problems <> '{}' then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_read.problems, E'\n'));
  end if;
  insert into gdpr_internal.purpose (
    id, name, description, basis, respond_within, remind, valid_for, while_waiting, retain, grace, condition, automated_decision,
    direct_marketing
  )
  values (
    coalesce(
      (select p.id from gdpr_internal.purpose as p where p.name = p_name),
      (select coalesce(max(p.id) + 1, 0) from gdpr_internal.purpose as p where p.id < 62)
    ),
    p_name, p_definition ->> 'description', p_definition ->> 'basis',
    (p_definition ->> 'respond_within')::interval, (p_definition ->> 'remind')::interval, (p_definition ->> 'valid_for')::interval,
    coalesce(p_definition ->> 'while_waiting', 'lock'), (p_definition ->> 'retain')::interval,
    nullif(p_definition ->> 'grace', 'false')::interval, p_definition ->> 'condition', p_definition ->> 'automated_decision',
    coalesce((p_definition ->> 'direct_marketing')::boolean, false)
  )
  on conflict (name) do update
  set description = excluded.description, basis = excluded.basis, respond_within = excluded.respond_within,
    remind = excluded.remind, valid_for = excluded.valid_for, while_waiting = excluded.while_waiting, retain = excluded.retain,
    grace = excluded.grace, condition = excluded.condition, automated_decision = excluded.automated_decision,
    direct_marketing = excluded.direct_marketing;
  perform gdpr_internal.follow_basis(gdpr_internal.purpose_id(p_name));
  perform gdpr_internal.audit_event('POLICY', null, jsonb_build_object('purpose', p_name, 'definition', p_definition));
end
$function$;
comment on function gdpr_policy.put_purpose(text, jsonb) is 'Step of apply(): declares or changes a purpose; its bit is never given to another.';

create or replace function gdpr_internal.audience_group(p_audience text)
returns name
language sql
immutable
parallel safe
security invoker
begin atomic
  select case p_audience when 'clear' then 'gdpr_app' else 'gdpr_' || p_audience end;
end;
comment on function gdpr_internal.audience_group(text) is 'The group role of an audience: gdpr_app for clear, else gdpr_<audience>.';

create or replace function gdpr_internal.in_audience(p_role name, p_audience text)
returns boolean
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return pg_has_role(
    p_role, gdpr_internal.audience_group(p_audience),
    -- before version 16 a role inherits from all of its groups or from none
    case when current_setting('server_version_num')::integer >= 160000 then 'usage' else 'member' end
  );
end
$function$;
comment on function gdpr_internal.in_audience(name, text) is
  'Whether a role is in the group of an audience, and (from PostgreSQL 16 on, where each membership says it) inherits its rights.';

create or replace function gdpr_internal.basis_functions()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'gdpr.record_basis(bigint, text, text, text, timestamptz, bigint, timestamptz, jsonb, text), '
    'gdpr.record_bases(bigint[], text, text, text, timestamptz, bigint, timestamptz, jsonb, text), '
    'gdpr.end_basis(bigint, text), gdpr.end_bases(bigint[], text), gdpr.record_assessment(text, text, text, text, date), '
    'gdpr.approve_assessment(bigint, date, text), gdpr.reject_assessment(bigint, text), '
    'gdpr.subject_of(regclass, text), gdpr.subjects_of(regclass, text[]), gdpr.find_subject(text, text)';
end;
comment on function gdpr_internal.basis_functions() is 'What a role of the policy with may = ["basis"] can call.';

create or replace function gdpr_internal.consent_functions()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'gdpr.record_consent(bigint, text, boolean, text, jsonb, timestamptz, text[], bigint), '
    'gdpr.withdraw_consent(bigint, text, text, jsonb), gdpr.request_consent(bigint, text[], text, text, interval, boolean), '
    'gdpr.request_consents(bigint[], text[], text, text, interval, boolean), gdpr.consent_receipt(bigint, text), gdpr.subject_of(regclass, text), gdpr.find_subject(text, text)';
end;
comment on function gdpr_internal.consent_functions() is 'What a role of the policy with may = ["consent"] can call.';

create or replace function gdpr_internal.rectify_functions()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'gdpr.propose_rectification(bigint, jsonb, text), gdpr.subject_of(regclass, text), gdpr.find_subject(text, text)';
end;
comment on function gdpr_internal.rectify_functions() is 'What a role of the policy with may = ["rectify"] can call.';

create or replace function gdpr_internal.disclosure_functions()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select 'gdpr.record_disclosure(text, bigint[], text, regclass, text[], text[], text, text, text[], timestamptz), '
    'gdpr.subject_of(regclass, text), gdpr.subjects_of(regclass, text[]), gdpr.find_subject(text, text)';
end;
comment on function gdpr_internal.disclosure_functions() is 'What a role of the policy with may = ["disclose"] can call.';

create or replace function gdpr_policy.bind_role(p_role name, p_definition jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_read record;
begin
  -- called by a plan after its checks, or by an administrator at will: checked here too
  v_read := gdpr_internal.read_roles(jsonb_build_object('roles', jsonb_build_object(p_role, p_definition)), gdpr.policy() -> 'purposes');
  if v_read.problems <> '{}' then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_read.problems, E'\n'));
  end if;
  perform gdpr_internal.revoke_binding(p_role);
  insert into gdpr_internal.role_binding (role_name, audience, may, recipient, definition)
  values (
    p_role, p_definition ->> 'audience', gdpr_internal.text_array(p_definition -> 'may'), p_definition ->> 'recipient', p_definition
  );
  perform gdpr_internal.make_probe_counter(p_role);
  insert into gdpr_internal.role_purpose (role_name, position, purpose_id)
  select p_role, n, gdpr_internal.purpose_id(name)
  from jsonb_array_elements_text(p_definition -> 'purposes') with ordinality as p (name, n);
  if not gdpr_internal.in_audience(p_role, p_definition ->> 'audience') then
    execute format(
      'grant %I to %I%s', gdpr_internal.audience_group(p_definition ->> 'audience'), p_role,
      -- or a NOINHERIT role would have the group and none of its rights
      case when current_setting('server_version_num')::integer >= 160000 then ' with inherit true' end
    );
  end if;
  if p_definition -> 'may' ? 'consent' then
    execute format('grant execute on function %s to %I', gdpr_internal.consent_functions(), p_role);
  end if;
  if p_definition -> 'may' ? 'basis' then
    execute format('grant execute on function %s to %I', gdpr_internal.basis_functions(), p_role);
  end if;
  if p_definition -> 'may' ? 'rectify' then
    execute format('grant execute on function %s to %I', gdpr_internal.rectify_functions(), p_role);
  end if;
  if p_definition -> 'may' ? 'disclose' then
    execute format('grant execute on function %s to %I', gdpr_internal.disclosure_functions(), p_role);
  end if;
  perform gdpr_internal.generate_purposes();
  perform gdpr_internal.audit_event('POLICY', null, jsonb_build_object('role', p_role, 'definition', p_definition));
end
$function$;
comment on function gdpr_policy.bind_role(name, jsonb) is 'Step of apply(): binds a role to its audience, purposes and rights.';

create or replace function gdpr_internal.revoke_binding(p_role name)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.role_binding as b where b.role_name = p_role;
  if not found or to_regrole(quote_ident(p_role)) is null then
    return;
  end if;
  -- the group stays: it belongs to the server, and another database may have given it; without a binding it opens nothing
  execute format(
    'revoke execute on function %s, %s, %s, %s from %I',
    gdpr_internal.consent_functions(), gdpr_internal.basis_functions(), gdpr_internal.disclosure_functions(), gdpr_internal.rectify_functions(), p_role
  );
end
$function$;
comment on function gdpr_internal.revoke_binding(name) is 'Takes from a role what its binding gave.';

create or replace function gdpr_policy.unbind_role(p_role name)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.revoke_binding(p_role);
  perform gdpr_internal.generate_purposes();
  perform gdpr_internal.audit_event('POLICY', null, jsonb_build_object('role', p_role, 'unbound', true));
end
$function$;
comment on function gdpr_policy.unbind_role(name) is 'Step of apply(): a role that the policy no longer names loses its purposes.';

create or replace function gdpr_internal.original_state(p_relation regclass)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select jsonb_build_object('row_security', c.relrowsecurity, 'force_row_security', c.relforcerowsecurity) || coalesce((
    select jsonb_build_object('partitions', jsonb_object_agg(
      p.oid::regclass::text, jsonb_build_object('row_security', p.relrowsecurity, 'force_row_security', p.relforcerowsecurity)
    ))
    from gdpr_internal.relation_tree(p_relation) as r (r)
    join pg_class as p on p.oid = r.r and (p.relrowsecurity, p.relforcerowsecurity) <> (c.relrowsecurity, c.relforcerowsecurity)
    having count(*) > 0
  ), '{}')
  from pg_class as c
  where c.oid = p_relation;
end;
comment on function gdpr_internal.original_state(regclass) is
  'What unprotect() has to give back of a table; partitions: where that is something else than of the table.';

create or replace function gdpr_internal.partition_defaults(p_relation regclass, p_column name)
returns table (relation regclass, expression text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
begin atomic
  with own (relation, expression) as (
    select r.r, pg_get_expr(d.adbin, d.adrelid)
    from gdpr_internal.relation_tree(p_relation) as r (r)
    join pg_attribute as a on a.attrelid = r.r and a.attname = p_column and not a.attisdropped
    left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
  )
  select o.relation, o.expression
  from own as w
  join own as o on o.relation <> w.relation and o.expression is distinct from w.expression
  where w.relation = p_relation
  order by cardinality(array(select pg_partition_ancestors(o.relation))), o.relation::oid;
end;
comment on function gdpr_internal.partition_defaults(regclass, name) is
  'Partitions in which a column has another default than in their table (null: none), which ALTER TABLE of that would take away; those first of which others are part.';

create or replace function gdpr_internal.original_column(p_relation regclass, p_column name, p_encrypt text)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select case when p_encrypt = 'no' then '{}' else jsonb_strip_nulls(jsonb_build_object(
      'default', (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef as d where d.adrelid = p_relation and d.adnum = a.attnum),
      'type_default', case when not a.atthasdef then gdpr_internal.type_default(a.atttypid) end,
      'partition_defaults', (
        select jsonb_object_agg(d.relation::text, coalesce(d.expression, '')) from gdpr_internal.partition_defaults(p_relation, p_column) as d
      ),
      'type', nullif(format_type(a.atttypid, a.atttypmod), f.carrier),
      'shown', nullif(f.shown, f.carrier),
      'is_domain', nullif(f.is_domain, false),
      'labels', f.labels,
      'collation', (
        select format('%I.%I', n.nspname, l.collname) from pg_collation as l join pg_namespace as n on n.oid = l.collnamespace
        where l.oid = a.attcollation and l.collname <> 'default'
      ),
      'constraints', (
        select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('name', k.conname, 'definition', pg_get_constraintdef(k.oid), 'comment', obj_description(k.oid, 'pg_constraint'))) order by k.conname)
        from pg_constraint as k
        where k.conrelid = p_relation and k.contype = 'u' and a.attnum = any (k.conkey)
      ),
      'checks', gdpr_internal.checks_over(p_relation, a.attnum),
      'indexes', (
        select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
          -- of a partitioned table PostgreSQL gives the index alone, which would be valid nowhere
          'name', i.oid::regclass::text, 'definition', regexp_replace(pg_get_indexdef(x.indexrelid), ' ON ONLY ', ' ON '),
          'comment', obj_description(i.oid, 'pg_class')
        )) order by r.r <> p_relation, i.relname)
        from gdpr_internal.relation_tree(p_relation) as r (r)
        join pg_attribute as b on b.attrelid = r.r and b.attname = a.attname
        join pg_index as x on x.indrelid = r.r
        join pg_class as i on i.oid = x.indexrelid
        where not x.indisprimary and not exists (select from pg_inherits as h where h.inhrelid = x.indexrelid)
          and exists (
            select from pg_depend as d
            where d.classid = 'pg_class'::regclass and d.objid = x.indexrelid and d.refobjid = r.r and d.refobjsubid = b.attnum
          )
          and not exists (select from pg_constraint as k where k.conindid = x.indexrelid and k.contype = 'u')
      ),
      'unique_name', (
        select i.relname from pg_index as x
        join pg_class as i on i.oid = x.indexrelid
        where x.indrelid = p_relation and x.indisunique and x.indkey::text = a.attnum::text and x.indpred is null
        order by i.relname
        limit 1
      ),
      'unique_constraint', (
        select true from pg_constraint as k where k.conrelid = p_relation and k.contype = 'u' and k.conkey = array[a.attnum] limit 1
      ),
      'unique_timing', (
        select case when k.condeferred then 'deferrable initially deferred' when k.condeferrable then 'deferrable' end
        from pg_constraint as k
        where k.conrelid = p_relation and k.contype = 'u' and k.conkey = array[a.attnum]
        order by k.conname
        limit 1
      )
    )) end
    from pg_attribute as a
    cross join lateral gdpr_internal.type_forms(a.atttypid, a.atttypmod) as f
    where a.attrelid = p_relation and a.attname = p_column
  );
end
$function$;
comment on function gdpr_internal.original_column(regclass, name, text) is
  'What encryption takes from a column: default (partition_defaults: where that of a partition is another; empty: none), collation, indexes and constraints, and its type, where that is none of PostgreSQL''s own: type (as it was), shown (in views), is_domain, labels (of which enum), type_default.';

create or replace function gdpr_internal.definition_as_written(p_definition jsonb)
returns jsonb
language sql
immutable
parallel safe
security invoker
begin atomic
  select (p_definition #- '{subject,columns}') || jsonb_build_object('columns', (
    select coalesce(jsonb_object_agg(c.key, c.value || jsonb_build_object('encrypt', case c.value ->> 'encrypt'
      when 'yes' then 'true'::jsonb when 'no' then 'false'::jsonb else c.value -> 'encrypt' end)), '{}')
    from jsonb_each(p_definition -> 'columns') as c
  ));
end;
comment on function gdpr_internal.definition_as_written(jsonb) is 'The normal form of a table as a policy would write it.';

create or replace function gdpr_internal.name_of_view(p_relation regclass)
returns name
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case
    when exists (
      select from gdpr_internal.protected_table as t
      where t.view_name = c.relname and t.unprotected_at is null and t.relation <> p_relation
    ) then left(n.nspname || '_' || c.relname, 63)
    else c.relname
  end
  from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = p_relation;
end;
comment on function gdpr_internal.name_of_view(regclass) is 'What the views of a table are called: as the table, with its schema where another has that name.';

create or replace function gdpr_internal.put_table(p_table smallint, p_definition jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_relation regclass := (select t.relation from gdpr_internal.protected_table as t where t.id = p_table);
  v_parent gdpr_internal.protected_table;
begin
  if p_definition -> 'subject' <> '"self"' then
    select * into v_parent from gdpr_internal.protected_table as t
    where t.relation = gdpr_internal.find_table(p_definition -> 'subject' ->> 'references') and t.unprotected_at is null;
    if v_parent.id is null then
      perform gdpr_internal.refuse('not_protected', p_definition -> 'subject' ->> 'references');
    end if;
  end if;
  update gdpr_internal.protected_table as t
  set definition = p_definition,
    mode = p_definition ->> 'mode',
    blocklist = p_definition ->> 'blocklist',
    purpose_mask = (
      select bit_or(1::bigint << gdpr_internal.purpose_id(p.name)) from jsonb_array_elements_text(p_definition -> 'purposes') as p (name)
    ),
    parent_id = v_parent.id,
    via_columns = gdpr_internal.text_array(p_definition -> 'subject' -> 'via')::name[],
    parent_columns = gdpr_internal.text_array(p_definition -> 'subject' -> 'columns')::name[],
    joint_columns = gdpr_internal.text_array(p_definition -> 'subject' -> 'joint')::name[],
    depth = coalesce(v_parent.depth + 1, 0)
  where t.id = p_table;

  delete from gdpr_internal.protected_column as c
  where c.table_id = p_table and not p_definition -> 'columns' ? c.column_name::text;
  insert into gdpr_internal.protected_column as c (
    table_id, column_name, position, category, sensitive, encrypt, identifier, canonical, matches, age, special, provided, about, review, mask, erase, same_as, original_type, original,
    encrypting_xid
  )
  select
    p_table, a.attname, a.attnum, d.value ->> 'category', (d.value ->> 'sensitive')::boolean, d.value ->> 'encrypt',
    d.value ->> 'identifier', d.value ->> 'canonical', p_definition -> 'match_on' ? d.key, d.value ? 'age', d.value ->> 'special',
    not d.value ? 'provided', d.value ->> 'about', d.value ? 'review', d.value ->> 'mask',
    gdpr_internal.erase_rule(v_relation, d.key, d.value), d.value ->> 'same_as',
    coalesce(case when d.value ->> 'encrypt' <> 'no' then f.carrier end, format_type(a.atttypid, a.atttypmod)),
    gdpr_internal.original_column(v_relation, a.attname, d.value ->> 'encrypt'),
    case when d.value ->> 'encrypt' <> 'no' then pg_current_xact_id() end
  from jsonb_each(p_definition -> 'columns') as d
  join pg_attribute as a on a.attrelid = v_relation and a.attname = d.key and not a.attisdropped
  cross join lateral gdpr_internal.type_forms(a.atttypid, a.atttypmod) as f
  on conflict (table_id, column_name) do update
  set position = excluded.position, category = excluded.category, sensitive = excluded.sensitive, identifier = excluded.identifier, canonical = excluded.canonical,
    matches = excluded.matches, age = excluded.age, special = excluded.special, provided = excluded.provided, about = excluded.about,
    review = excluded.review, mask = excluded.mask, erase = excluded.erase, same_as = excluded.same_as,
    original_type = case when c.encrypt = 'no' then excluded.original_type else c.original_type end,
    original = case
      when c.encrypt = 'no' and excluded.encrypt = 'no' then '{}'
      when c.encrypt = 'no' then gdpr_internal.with_loose_checks(excluded.original, c.original)
      else c.original
    end,
    encrypting_xid = case when c.encrypt = 'no' then excluded.encrypting_xid else c.encrypting_xid end,
    encrypt = excluded.encrypt;
end
$function$;
comment on function gdpr_internal.put_table(smallint, jsonb) is 'Writes the definition of a protected table, in normal form, into the register. Error: PR002 its parent is not protected.';

create or replace function gdpr_internal.register_table(p_role name, p_relation regclass, p_definition jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint;
  v_read record;
begin
  perform gdpr_internal.require_owner(p_role, p_relation);
  -- called by a plan after its checks, or by an administrator at will: checked here too
  v_read := gdpr_internal.read_table(
    p_relation::text, p_relation, gdpr_internal.definition_as_written(p_definition), gdpr.policy() -> 'purposes'
  );
  if v_read.problems <> '{}' or v_read.definition <> p_definition then
    perform gdpr_internal.refuse('policy_refused', array_to_string(v_read.problems, E'\n'));
  end if;
  select t.id into v_id from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null;
  if v_id is null then
    insert into gdpr_internal.protected_table (id, relation, known_as, view_name, definition, mode, blocklist, purpose_mask, original)
    values (
      (select coalesce(max(t.id), 0) + 1 from gdpr_internal.protected_table as t), p_relation, p_relation::text, gdpr_internal.name_of_view(p_relation),
      p_definition, p_definition ->> 'mode', p_definition ->> 'blocklist', 0, gdpr_internal.original_state(p_relation)
    )
    returning id into v_id;
  end if;
  perform gdpr_internal.put_table(v_id, p_definition);
  perform gdpr_internal.put_table_bases(v_id);
  perform gdpr_internal.know_columns(v_id);
  perform gdpr_internal.audit_event('POLICY', null, jsonb_build_object('table', p_relation::text, 'definition', p_definition));
end
$function$;
comment on function gdpr_internal.register_table(name, regclass, jsonb) is 'See gdpr_policy.register_table(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.register_table(p_relation regclass, p_definition jsonb)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.register_table(current_user, p_relation, p_definition);
end;
comment on function gdpr_policy.register_table(regclass, jsonb) is 'Step of apply(): the table, its columns and the bases it gives by default, in the register.';

create or replace function gdpr_internal.table_id(p_relation regclass)
returns smallint
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint;
begin
  select t.id into v_id from gdpr_internal.protected_table as t where t.relation = p_relation and t.unprotected_at is null;
  if v_id is null then
    perform gdpr_internal.refuse('not_protected', p_relation::text);
  end if;
  return v_id;
end
$function$;
comment on function gdpr_internal.table_id(regclass) is 'The number of a protected table. Error: PR002.';

create or replace function gdpr_internal.require_owner(p_role name, p_relation regclass)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not coalesce((select pg_has_role(p_role, c.relowner, 'usage') from pg_class as c where c.oid = p_relation), false) then
    perform gdpr_internal.refuse('not_table_owner', p_relation::text);
  end if;
end
$function$;
comment on function gdpr_internal.require_owner(name, regclass) is
  'A step of apply() does to a table only what its owner may: an administrator without rights on it is refused. Error: 42501.';

create or replace function gdpr_internal.own_table(p_role name, p_relation regclass)
returns smallint
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_owner(p_role, p_relation);
  return gdpr_internal.table_id(p_relation);
end
$function$;
comment on function gdpr_internal.own_table(name, regclass) is 'The number of a protected table that the caller owns. Errors: PR002, 42501.';

create or replace function gdpr_internal.generate_workers(p_tables smallint[], p_referred smallint[] default '{}', p_erasure boolean default false)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint;
begin
  perform gdpr_internal.require_worker();
  -- gdpr_worker may create functions only here, where no row of a table is touched
  grant create on schema gdpr_generated to gdpr_worker;
  foreach v_table in array p_tables loop
    perform gdpr_generated.generate_rows(v_table);
    perform gdpr_generated.generate_registrations(v_table);
  end loop;
  foreach v_table in array p_referred loop
    perform gdpr_generated.generate_retention(v_table);
  end loop;
  perform gdpr_generated.generate_dispatch();
  if p_erasure then
    perform gdpr_generated.generate_erasures();
  end if;
  revoke create on schema gdpr_generated from gdpr_worker;
  perform gdpr_internal.remember_worker();
end
$function$;
comment on function gdpr_internal.generate_workers(smallint[], smallint[], boolean) is
  'Generates the functions of gdpr_worker for these tables, and the dispatcher. p_referred: tables of which only retention is made anew, for it looks for rows that refer to theirs. p_erasure: erasure too, which follows the foreign keys between all protected tables.';

create or replace function gdpr_internal.generate_worker(p_table smallint)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.generate_workers(array_remove(array[p_table], null), p_erasure => true);
end;
comment on function gdpr_internal.generate_worker(smallint) is 'Generates the functions of gdpr_worker for a table (null: only the dispatcher), and erasure.';

create or replace function gdpr_internal.follow_references(p_relation regclass, p_tables smallint[], p_erasure boolean)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_referred smallint[];
  v_drifted smallint[];
begin
  select
    coalesce(array_agg(t.id order by t.id), '{}'),
    coalesce(array_agg(t.id) filter (where t.fingerprint is distinct from gdpr_internal.fingerprint(t.relation)), '{}')
  into v_referred, v_drifted
  from gdpr_internal.protected_table as t
  where t.unprotected_at is null and t.relation <> p_relation
    and exists (select from pg_constraint as k where k.contype = 'f' and k.conrelid = p_relation and k.confrelid = t.relation);
  perform gdpr_internal.generate_workers(p_tables, v_referred, p_erasure);
  perform gdpr_internal.remember_controls(t, case when t = any (v_drifted) then 'function' end) from unnest(v_referred) as t;
end
$function$;
comment on function gdpr_internal.follow_references(regclass, smallint[], boolean) is
  'A table was protected or given back: the functions of these tables are made anew, and those that it refers to know whether they may look for its rows. See generate_workers().';

create or replace function gdpr_internal.extend_table(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_before text;
begin
  perform gdpr_internal.give_bases(v_id);
  perform gdpr_internal.refresh_table(v_id);
  v_before := gdpr_internal.before_worker();
  execute format('select gdpr_generated.%I(null)', 'spread_' || v_id);
  perform gdpr_internal.after_worker(v_before);
end
$function$;
comment on function gdpr_internal.extend_table(name, regclass) is 'See gdpr_policy.extend_table(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.extend_table(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.extend_table(current_user, p_relation);
end;
comment on function gdpr_policy.extend_table(regclass) is
  'Step of apply(): the purposes of a table changed; persons in it get the bases it gives by default now, and every row its gate anew.';

create or replace function gdpr_internal.generate_functions(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
  v_neighbours smallint[];
begin
  perform gdpr_internal.know_columns(v_id);
  perform gdpr_internal.generate_triggers(v_id);
  select r.neighbours || gdpr_internal.neighbours(v_id) into v_neighbours from gdpr_internal.reshape as r where r.table_id = v_id;
  if v_neighbours is null then
    perform gdpr_internal.follow_references(p_relation, array[v_id], false);
  else
    -- what others say of this table, in its own words of now; close_reshape() settles them
    v_neighbours := array(
      select t.id from gdpr_internal.protected_table as t where t.id = any (v_neighbours) and t.unprotected_at is null order by t.id
    );
    perform gdpr_internal.generate_triggers(n) from unnest(v_neighbours) as n;
    perform gdpr_internal.generate_workers(v_neighbours || v_id);
  end if;
  perform gdpr_internal.make_audit_partitions();
end
$function$;
comment on function gdpr_internal.generate_functions(name, regclass) is 'See gdpr_policy.generate_functions(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.generate_functions(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.generate_functions(current_user, p_relation);
end;
comment on function gdpr_policy.generate_functions(regclass) is 'Step of apply(): the static functions of a table; those of erasure come last, see gdpr_policy.generate_erasure().';

create or replace function gdpr_policy.generate_erasure()
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.generate_worker(null);
end;
comment on function gdpr_policy.generate_erasure() is
  'Step of apply(): erasure, which follows the foreign keys between all protected tables, and so is made once, after the last of them.';

create or replace function gdpr_internal.generate_views(p_role name, p_relation regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_id smallint := gdpr_internal.own_table(p_role, p_relation);
begin
  perform gdpr_internal.make_read_counters(t.id) from gdpr_internal.protected_table as t where t.id = v_id and t.definition ? 'audit_reads';
  perform gdpr_generated.generate_clear_view(v_id);
  perform gdpr_internal.generate_search(v_id);
  perform gdpr_generated.generate_redacted_view(v_id, a) from unnest(gdpr_internal.audiences()) as a;
end
$function$;
comment on function gdpr_internal.generate_views(name, regclass) is 'See gdpr_policy.generate_views(); takes the role of the caller, which a definer function cannot see.';

create or replace function gdpr_policy.generate_views(p_relation regclass)
returns void
language sql
volatile
parallel unsafe
security invoker
begin atomic
  select gdpr_internal.generate_views(current_user, p_relation);
end;
comment on function gdpr_policy.generate_views(regclass) is 'Step of apply(): the clear view and the redacted views of a table.';
