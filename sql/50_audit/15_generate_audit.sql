-- [code] The generator of audit triggers: one record for each changed row, static SQL.
-- GDPR Art. 5(2), Art. 32(1)(d). Called by: gdpr.apply(). Runs as gdpr_keyholder, from names in the catalog and the register only.

set local role gdpr_keyholder;

create or replace function gdpr_internal.key_expression(p_relation regclass, p_row text)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select case count(*)
      when 0 then 'null::text'
      when 1 then max(format('format(''%%s'', %s.%I)', p_row, a.attname))
      else format('jsonb_build_array(%s)::text', string_agg(format('format(''%%s'', %s.%I)', p_row, a.attname), ', ' order by k.n))
    end
    from pg_index as x
    cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
    join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
    where x.indrelid = p_relation and x.indisprimary
  );
end
$function$;
comment on function gdpr_internal.key_expression(regclass, text) is
  'The primary key of a row as text: the value, or a JSON array of several; null without a primary key.';

create or replace function gdpr_internal.audit_context_code()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select
    E'gdpr_generated.purpose_held(v_role, nullif(current_setting(''gdpr.purpose'', true), '''')) as purpose_id,\n'
    '  nullif(current_setting(''gdpr.actor'', true), '''') as actor, nullif(current_setting(''gdpr.request'', true), '''') as request,\n'
    '  v_role as role, nullif(current_setting(''application_name''), '''') as application_name';
end;
comment on function gdpr_internal.audit_context_code() is 'The SQL of who changes something and for what: five columns of an audit record.';

create or replace function gdpr_internal.audit_row_code(
  p_table smallint, p_operation text, p_context text, p_subject text, p_key text, p_row text, p_changed text, p_payload text, p_from text
)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- the gate in the row is a copy, kept without a record: it is no part of the row's hash
  select format(
    E'insert into gdpr_internal.audit_record (\n'
    '  operation, table_id, purpose_id, actor, request, role, application_name, subject_id, row_key, changed, row_hash, payload\n'
    ')\n'
    'select\n'
    '  %1$L, %2$s, %3$s,\n'
    '  %4$s, gdpr_internal.keyed_digest(k.audit_key, %2$L, %5$s),\n'
    '  %6$s, gdpr_internal.hmac(convert_to(format(''%%s'', row(%7$s)), ''UTF8''), k.audit_key, ''sha256''), %8$s\n'
    'from %9$s;\n',
    p_operation, p_table, p_context, p_subject, gdpr_internal.key_expression(t.relation, p_key),
    p_changed, string_agg(format('%s.%I', p_row, a.attname), ', ' order by a.attnum), p_payload, p_from
  )
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
    and (a.attname !~ '^gdpr_' or a.attname = 'gdpr_subject_id')
  where t.id = p_table
  group by t.relation;
end;
comment on function gdpr_internal.audit_row_code(smallint, text, text, text, text, text, text, text, text) is
  'Code that writes audit records. p_key: the row whose key it is; p_row: the row as stored or as deleted; the others: expressions, and where they, and k.audit_key, come from.';

create or replace function gdpr_internal.output_settings(p_relation regclass)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(string_agg(s.code, '' order by s.code), '')
  from (
    values
      (E'set timezone = ''UTC''\n', array['timestamp with time zone', 'time with time zone']),
      (E'set datestyle = ''ISO''\n', array['timestamp with time zone', 'timestamp without time zone', 'date']),
      (E'set intervalstyle = ''postgres''\n', array['interval']),
      (E'set extra_float_digits = 3\n', array['real', 'double precision']),
      (E'set bytea_output = ''hex''\n', array['bytea'])
  ) as s (code, types)
  where exists (
    select from pg_attribute as a
    where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
      and (
        format_type(a.atttypid, null) = any (s.types)
        -- arrays, ranges, domains, composite types: of whatever
        or format_type(a.atttypid, null) <> all (array[
          'text', 'character varying', 'character', 'uuid', 'boolean', 'smallint', 'integer', 'bigint', 'numeric', 'inet', 'cidr', 'json', 'jsonb',
          'timestamp with time zone', 'time with time zone', 'timestamp without time zone', 'time without time zone', 'date', 'interval',
          'real', 'double precision', 'bytea'
        ])
      )
  );
end;
comment on function gdpr_internal.output_settings(regclass) is
  'The settings that a function has to pin so that the rows of a table turn into the same text in every session: each costs in every call, so only those that its types ask for.';

create or replace function gdpr_internal.row_pairs(p_relation regclass, p_row text)
returns text[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select array_agg(
    -- types of the system only: converting another type could run what its owner planted, with the keys
    format(
      case when a.atttypid < 16384 then '%1$L, %2$s.%1$I' else '%1$L, case when %2$s.%1$I is null then null else format(''%%s'', %2$s.%1$I) end' end,
      a.attname, p_row
    ) order by a.attnum
  )
  from pg_attribute as a
  where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_';
end;
comment on function gdpr_internal.row_pairs(regclass, text) is
  'The SQL of names and values of a row, for gdpr_internal.object_code(): as audit records keep rows.';

create or replace function gdpr_internal.object_code(p_pairs text[])
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select string_agg(format('jsonb_build_object(%s)', o.pairs), ' || ' order by o.part)
  from (
    -- a function takes a hundred arguments, a table has more columns than that
    select p.n / 50 as part, string_agg(p.pair, ', ' order by p.n) as pairs
    from (select u.pair, u.n - 1 as n from unnest(p_pairs) with ordinality as u (pair, n)) as p
    group by p.n / 50
  ) as o;
end;
comment on function gdpr_internal.object_code(text[]) is 'The SQL that makes an object of pairs (name, value), however many there are.';

create or replace function gdpr_internal.generate_audit(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_changed text;
  v_same text;
  v_renewed text;
  v_all text[];
  v_context constant text := gdpr_internal.audit_context_code();
  v_from constant text := '(values (v_audit_key)) as k (audit_key)';
begin
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(format(E'      case when %s then %L end', k.differs, a.attname), E',\n' order by a.attnum),
    string_agg(format(E'      case when not %s then %L end', k.differs, a.attname), E',\n' order by a.attnum),
    gdpr_internal.row_pairs(v_relation, 'old')
  into v_changed, v_same, v_all
  from pg_attribute as a
  cross join lateral (select gdpr_internal.differs_code(v_relation, a.attname) as differs) as k
  where a.attrelid = v_relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_';

  -- the same value under a new key is no change
  select coalesce(format(
    E'    if coalesce(current_setting(''gdpr.renewing'', true), '''') <> '''' and gdpr_internal.renewing(old.gdpr_subject_id) then\n'
    '      v_key := gdpr_internal.data_key(gdpr_internal.keyring(), old.gdpr_subject_id);\n'
    '      v_renewed := array_remove(array[\n%s\n      ], null);\n'
    '      v_changed := array(select c.name from unnest(v_changed) with ordinality as c (name, n) where c.name <> all (v_renewed) order by c.n);\n'
    '    end if;\n',
    string_agg(format(
      E'        case when new.gdpr_subject_id = old.gdpr_subject_id and gdpr_internal.open_value(v_key, new.gdpr_subject_id, %1$s, new.%2$I)\n'
      '          is not distinct from gdpr_internal.open_value(v_key, old.gdpr_subject_id, %1$s, old.%2$I) collate pg_catalog."C" then %2$L end', c.id, c.column_name
    ), E',\n' order by c.position)
  ), '')
  into v_renewed
  from gdpr_internal.protected_column as c
  where c.table_id = p_table and c.encrypt <> 'no';

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
set debug_print_plan = off
%2$sas $body$
declare
  v_role name := gdpr_internal.acting_role();
  v_changed text[];
  v_keys gdpr_internal.keyring;
  v_told boolean;
  v_source jsonb;
  v_details text;
  v_audit_key bytea;
  v_wrapped bytea;
  v_key bytea;
  v_random bytea;
  v_body bytea;
  v_payload text;
  v_renewed text[] := '{}';
begin
  if tg_op = 'INSERT' then
%17$s%4$s    return null;
  elsif tg_op = 'UPDATE' then
%3$s    v_changed := array_remove(array[
%5$s,
      case when new.gdpr_subject_id is distinct from old.gdpr_subject_id then 'gdpr_subject_id' end
    ], null);
%19$s    if v_changed = '{}' then
      -- the gate was copied to the row, or nothing changed
      return null;
    end if;
  else
%6$s  end if;
  select e.audit_key, e.material, e.id, e.digest_key, k.wrapped
  into v_audit_key, v_keys.kek, v_keys.kek_id, v_keys.digest_key, v_wrapped
  from gdpr_internal.key_encryption_key as e
  left join gdpr_internal.subject_key as k on k.subject_id = old.gdpr_subject_id
  where e.retired_at is null;
  v_told := tg_op = 'UPDATE' and new.gdpr_subject_id is not null and coalesce(current_setting('gdpr.source', true), '') <> '';
  if v_keys.kek is null and (v_told or v_wrapped is not null) then
    v_keys := gdpr_internal.keyring();
  elsif v_told then
    v_keys.digest_key := gdpr_internal.opened_digest_key(v_keys);
  end if;
  if v_wrapped is not null
    -- what retention ends is not kept here for later
    and not (coalesce(current_setting('gdpr.forgetting', true), '') <> '' and gdpr_internal.forgetting(%12$s::smallint))
  then
%18$s    v_random := gdpr_internal.gen_random_bytes(32);
    if tg_op = 'UPDATE' then
      -- a null in the array takes nothing away
      v_payload := (%7$s) - array[
%8$s,
      case when new.gdpr_subject_id is not distinct from old.gdpr_subject_id then 'gdpr_subject_id' end
      ] - v_renewed;
    else
      v_payload := %14$s;
    end if;
%9$s  end if;
  if tg_op = 'UPDATE' then
    if v_told then
%13$s    end if;
%10$s    if v_changed && %15$L::text[] then
%16$s    end if;
  else
%11$s  end if;
  return null;
end
$body$
$code$,
    'audit_' || p_table, gdpr_internal.output_settings(v_relation),
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'new', null), '    '),
    gdpr_internal.indented(gdpr_internal.audit_row_code(
      p_table, 'INSERT', v_context, 'new.gdpr_subject_id', 'new', 'new', 'null', 'null',
      'gdpr_internal.key_encryption_key as k where k.retired_at is null'), '    '),
    v_changed,
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'old', null), '    '),
    gdpr_internal.object_code(v_all || '''gdpr_subject_id'', old.gdpr_subject_id'::text), v_same,
    gdpr_internal.indented(gdpr_internal.seal_code('v_payload', 'old.gdpr_subject_id', 0, 'v_payload', 1), '    '),
    gdpr_internal.indented(gdpr_internal.audit_row_code(
      p_table, 'UPDATE', v_context, 'old.gdpr_subject_id', 'old', 'new', 'v_changed', 'v_payload', v_from), '    '),
    gdpr_internal.indented(gdpr_internal.audit_row_code(
      p_table, 'DELETE', v_context, 'old.gdpr_subject_id', 'old', 'old', 'null', 'v_payload', v_from), '    '),
    p_table, gdpr_internal.indented(gdpr_internal.change_source_code(p_table), '      '), gdpr_internal.object_code(v_all),
    array(
      select a.attname
      from pg_index as x
      join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = any (x.indkey)
      where x.indrelid = v_relation and x.indisprimary
    ) || 'gdpr_subject_id'::name,
    -- under the person and the key that it has now, the row would have no beginning
    gdpr_internal.indented(gdpr_internal.audit_row_code(
      p_table, 'MOVE', v_context, 'new.gdpr_subject_id', 'new', 'new', 'v_changed', 'null', v_from), '      '),
    -- an INSERT gives everything else to format()
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'new', array['gdpr_subject_id']::name[]), '    '),
    gdpr_internal.indented(gdpr_internal.unwrap_code('v_key', 'v_keys.kek', 'old.gdpr_subject_id'), '    '),
    v_renewed
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'audit_' || p_table,
    format('After a row of %s has changed: its audit record. Generated by gdpr.apply().', v_relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'audit_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_audit(smallint) is 'Generates the audit trigger function of a protected table.';
