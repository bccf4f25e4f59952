-- [code] What stands in the way of encrypting a column, and what of it goes on otherwise.
-- GDPR Art. 25, 32. Called by: gdpr.plan(). Each refusal says why, and a way out.

set local role gdpr_owner;

create or replace function gdpr_internal.shows_citext(p_relation regclass, p_column name)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(
    (
      select c.original ? 'shown' and not c.original ? 'labels' from gdpr_internal.protected_column as c
      join gdpr_internal.protected_table as t on t.id = c.table_id
      where t.relation = p_relation and t.unprotected_at is null and c.column_name = p_column and c.encrypt <> 'no'
    ),
    (
      select f.shown <> f.carrier and f.labels is null
      from pg_attribute as a
      cross join lateral gdpr_internal.type_forms(a.atttypid, a.atttypmod) as f
      where a.attrelid = p_relation and a.attname = p_column and not a.attisdropped
    ),
    false
  );
end;
comment on function gdpr_internal.shows_citext(regclass, name) is 'Whether the values of a column are citext.';

create or replace function gdpr_internal.column_triggers(p_relation regclass, p_columns text[])
returns table (name name, drop_statement text, create_statement text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    g.tgname,
    format('drop trigger %I on %s', g.tgname, r.r),
    concat_ws('; ',
      pg_get_triggerdef(g.oid),
      case when g.tgenabled <> 'O' then format('alter table %s %s trigger %I', r.r,
        case g.tgenabled when 'D' then 'disable' when 'A' then 'enable always' when 'R' then 'enable replica' end, g.tgname) end,
      format('comment on trigger %I on %s is %L', g.tgname, r.r, obj_description(g.oid, 'pg_trigger'))
    )
  from gdpr_internal.relation_tree(p_relation) as r (r)
  join pg_trigger as g on g.tgrelid = r.r
  where not g.tgisinternal and g.tgparentid = 0 and g.tgname !~ '^zzz_gdpr_'
    and exists (
      select from pg_attribute as a where a.attrelid = r.r and a.attnum = any (g.tgattr) and a.attname::text = any (p_columns)
    );
end;
comment on function gdpr_internal.column_triggers(regclass, text[]) is
  'The application''s triggers UPDATE OF one of these columns, in the table or a partition, whose type cannot change while they are there: how they go and come back.';

create or replace function gdpr_internal.has_held_values(p_relation regclass, p_definition jsonb)
returns boolean
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return exists (
    select from gdpr_internal.stored_columns(p_definition) as s
    join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name
    cross join lateral gdpr_internal.type_forms(a.atttypid, a.atttypmod) as f
    where s.encrypt <> 'no' and (
      f.is_domain or f.labels is not null
      or exists (select from pg_constraint as k where k.conrelid = p_relation and k.contype = 'c' and a.attnum = any (k.conkey))
      or exists (
        select from gdpr_internal.protected_column as c
        join gdpr_internal.protected_table as t on t.id = c.table_id
        where t.relation = p_relation and t.unprotected_at is null and c.column_name = s.column_name and c.encrypt <> 'no'
          and c.original ?| array['checks', 'is_domain', 'labels']
      )
    )
  );
end
$function$;
comment on function gdpr_internal.has_held_values(regclass, jsonb) is
  'Whether an encrypted column of a table has a CHECK constraint, a domain or an enum that has to hold for its plaintext.';

create or replace function gdpr_internal.dependent_problem(p_relation regclass, p_attribute pg_attribute, p_encrypt text, p_class oid, p_object oid, p_name text)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_constraint pg_constraint;
  v_index pg_index;
  v_problem text;
begin
  if p_class = 'pg_constraint'::regclass then
    select * into v_constraint from pg_constraint as k where k.oid = p_object;
    if v_constraint.contype = 'c' then
      if v_constraint.conrelid <> p_relation then
        return case when v_constraint.conislocal and v_constraint.coninhcount = 0
          then format('%s would test the ciphertext; put it on the partitioned table, where it goes on in a trigger', p_name) end;
      end if;
      v_problem := gdpr_internal.check_problem(p_relation, p_object);
      return case when v_problem is not null then format('%s cannot go on in a trigger: it %s', p_name, v_problem) end;
    elsif v_constraint.contype = 'p' then
      return 'is part of the primary key, which erasure keeps and other tables refer to; give the table a key that says nothing, and make this column UNIQUE';
    elsif v_constraint.contype = 'f' then
      return format('is part of a foreign key (%s), which would compare ciphertext; refer by a key that says nothing about the person', p_name);
    elsif v_constraint.contype = 'x' then
      return format('%s cannot compare ciphertext; leave the column out of it, or let encrypt = "searchable" and UNIQUE compare for equality', p_name);
    elsif v_constraint.contype <> 'u' then
      -- NOT NULL, an object since PostgreSQL 18, means the same for ciphertext
      return null;
    end if;
  end if;
  if p_class = 'pg_constraint'::regclass or p_class = 'pg_class'::regclass and exists (select from pg_index as x where x.indexrelid = p_object) then
    select * into v_index from pg_index as x where x.indexrelid = coalesce(nullif(v_constraint.conindid, 0), p_object);
    if v_index.indisreplident then
      return format('%s is the replica identity; choose another index for that', p_name);
    elsif not v_index.indisunique or exists (select from pg_inherits as i where i.inhrelid = v_index.indexrelid) then
      return null;
    elsif v_index.indrelid <> p_relation then
      return format('%s would compare ciphertext; put it on the partitioned table', p_name);
    elsif p_encrypt <> 'searchable' or v_index.indkey::text <> p_attribute.attnum::text or v_index.indpred is not null or v_index.indexprs is not null then
      return format(
        '%s needs encrypt = "searchable" and to be over this column alone, as a digest is what can be compared; else drop it', p_name
      );
    elsif coalesce((to_jsonb(v_index) ->> 'indnullsnotdistinct')::boolean, false) then
      return format('%s counts NULLs as equal, which digests do not; make it NULLS DISTINCT', p_name);
    end if;
    return null;
  elsif p_class = 'pg_statistic_ext'::regclass then
    -- those of columns ANALYZE fills with what is stored
    return case when exists (
      select from pg_statistic_ext as x where x.oid = p_object and x.stxname !~ '^gdpr_00_reshape' and x.stxexprs::text ~ format(':varattno %s\D', p_attribute.attnum)
    ) then format('%s computes from the column, and would from ciphertext; drop it', p_name) end;
  elsif p_class = 'pg_class'::regclass then
    -- a sequence that the column owns
    return null;
  elsif p_class = 'pg_attrdef'::regclass then
    return case when not exists (
      select from pg_attrdef as d
      join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
      where d.oid = p_object and a.attname = p_attribute.attname
    ) then format(
      '%s depends on the column and would keep its plaintext, or be computed from ciphertext; drop it and compute it in a view over gdpr_clear',
      (
        select format('generated column %I of table %s', a.attname, d.adrelid::regclass)
        from pg_attrdef as d
        join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
        where d.oid = p_object
      )
    ) end;
  elsif p_class = 'pg_rewrite'::regclass then
    -- our own views are taken off before
    return case when not exists (
      select from pg_rewrite as w
      join pg_class as c on c.oid = w.ev_class
      where w.oid = p_object and c.relnamespace::regnamespace::text = any (gdpr_internal.view_schemas())
    ) then format(
      '%s depends on the column; drop it, apply, and create it on the view of the table in gdpr_clear', regexp_replace(p_name, '^rule "?_RETURN"? on ', '')
    ) end;
  elsif p_class = 'pg_trigger'::regclass then
    -- one that names the column as what fires it goes on
    return case when exists (select from pg_trigger as g where g.oid = p_object and g.tgqual is not null and g.tgparentid = 0 and g.tgname !~ '^zzz_gdpr_')
      then format('%s depends on the column in its WHEN, which would see ciphertext; test it in the trigger''s function, before the row is stored', p_name) end;
  elsif p_class = 'pg_policy'::regclass then
    return format('%s depends on the column and would compare ciphertext; let it look at plain columns', p_name);
  elsif p_class = 'pg_publication_rel'::regclass then
    -- named with its reason by publication_problems()
    return case when exists (select from pg_publication_rel as r where r.oid = p_object and r.prqual is not null)
      then format('%s depends on the column in its WHERE, which would see ciphertext; take the table out of it', p_name) end;
  end if;
  return format('%s depends on the column; drop it, apply, and create it on the view of the table in gdpr_clear', p_name);
end
$function$;
comment on function gdpr_internal.dependent_problem(regclass, pg_attribute, text, oid, oid, text) is
  'Why an object over a column stands in the way of encrypting it, and a way out; null where it goes on: dropped with the plan (indexes), moved to the digest (UNIQUE), or to a trigger (CHECK).';

create or replace function gdpr_internal.dependent_problems(p_relation regclass, p_attribute pg_attribute, p_encrypt text)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select array(
      select distinct x.problem
      from (
        select gdpr_internal.dependent_problem(p_relation, p_attribute, p_encrypt, d.classid, d.objid, pg_describe_object(d.classid, d.objid, d.objsubid)) as problem
        from (
          select p_relation as part
          union
          select i.relid from pg_partition_tree(p_relation) as i
        ) as r
        join pg_attribute as a on a.attrelid = r.part and a.attname = (p_attribute).attname
        join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = r.part and d.refobjsubid = a.attnum
        union all
        select format('constraint %I looks at the row as a whole, which would hold ciphertext; write it over columns', k.conname)
        from pg_constraint as k
        where k.conrelid = p_relation and k.contype = 'c' and 0::smallint = any (k.conkey)
        union all
        select 'is part of the partition key, which PostgreSQL compares; partition by a column that says nothing about the person'
        from pg_partitioned_table as p
        where p.partrelid = p_relation and (p_attribute).attnum = any (p.partattrs)
      ) as x
      where x.problem is not null
      order by 1
    )
  );
end
$function$;
comment on function gdpr_internal.dependent_problems(regclass, pg_attribute, text) is
  'Constraints and other objects that depend on a column and would lose their meaning when it holds ciphertext.';

create or replace function gdpr_internal.encryption_problems(p_where text, p_relation regclass, p_attribute pg_attribute, p_type text, p_encrypt text)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_problems text[] := '{}';
  v_forms record := gdpr_internal.type_forms(p_attribute.atttypid, p_attribute.atttypmod);
  v_labels oid;
  v_original jsonb := (
    select c.original from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    where t.relation = p_relation and t.unprotected_at is null and c.column_name = p_attribute.attname and c.encrypt <> 'no'
  );
  v_type oid;
  v_schema name;
begin
  if p_attribute.attcollation <> 0 and not (
    select c.collisdeterministic from pg_collation as c where c.oid = p_attribute.attcollation
  ) then
    v_problems := v_problems || format('%s: has a nondeterministic collation, which ciphertext cannot follow; choose a deterministic one, or citext', p_where);
  end if;
  if p_attribute.attidentity <> '' or p_attribute.attgenerated <> '' then
    v_problems := v_problems || format('%s: an identity or generated column cannot be encrypted', p_where);
  end if;
  select y.oid into v_labels from pg_type as y where y.typtype = 'e' and format_type(y.oid, null) = coalesce(v_original ->> 'labels', v_forms.labels);
  if exists (select from pg_cast as c where c.casttarget in (v_labels, (select y.typarray from pg_type as y where y.oid = v_labels))) then
    v_problems := v_problems || format('%s: there is a cast to type %s, whose function would run for whoever reads the column; drop the cast', p_where, format_type(v_labels, null));
  end if;
  if v_original is not null then
    return v_problems;
  end if;
  if v_forms.carrier is null then
    v_problems := v_problems || format(
      '%s: columns of type %s cannot be encrypted: parts of it are outside PostgreSQL''s own types, or it has no text that is the same in every session; keep it as text or jsonb, or a column for each part',
      p_where, p_type
    );
  end if;
  foreach v_type in array array[p_attribute.atttypid, v_labels] loop
    v_schema := gdpr_internal.closed_schema((select y.typnamespace from pg_type as y where y.oid = v_type), p_relation);
    if v_schema is not null then
      v_problems := v_problems || format('%1$s: its type is in schema %2$I; grant usage on schema %2$I to gdpr_keyholder, gdpr_viewer', p_where, v_schema);
    end if;
  end loop;
  return v_problems || gdpr_internal.publication_problems(p_where, p_relation, p_attribute.attname) || array(
    select format('%s: %s', p_where, d) from unnest(gdpr_internal.dependent_problems(p_relation, p_attribute, p_encrypt)) as d
  );
end
$function$;
comment on function gdpr_internal.encryption_problems(text, regclass, pg_attribute, text, text) is
  'What stands in the way of encrypting a column: types, constraints and dependent objects whose meaning ciphertext would lose.';
