-- [code] Where the data of a row came from: the code that the triggers of a table carry, and what people ask.
-- GDPR Art. 13, Art. 14(2)(f), Art. 15(1)(g). Called by: the generators of triggers; gdpr_dpo.

set local role gdpr_keyholder;

create or replace function gdpr_internal.key_text(p_relation regclass, p_row text)
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
      when 0 then 'null::pg_catalog.text'
      when 1 then max(k.value)
      else format('jsonb_build_array(%s)::pg_catalog.text', string_agg(k.value, ', ' order by k.n))
    end
    from (
      select u.n, gdpr_internal.text_expression(format('%s.%I', p_row, a.attname), format_type(a.atttypid, a.atttypmod)) as value
      from pg_index as x
      cross join lateral unnest(x.indkey) with ordinality as u (attnum, n)
      join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = u.attnum
      where x.indrelid = p_relation and x.indisprimary
    ) as k
  );
end
$function$;
comment on function gdpr_internal.key_text(regclass, text) is
  'The SQL of a row''s primary key as text that is the same in every session: the value, or a JSON array of several.';

create or replace function gdpr_internal.row_key_code(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select format(E'v_row := gdpr_internal.keyed_digest(v_keys.digest_key, %L, %s);\n', 'row ' || t.id, gdpr_internal.key_text(t.relation, 'new'))
  from gdpr_internal.protected_table as t
  where t.id = p_table;
end;
comment on function gdpr_internal.row_key_code(smallint) is 'Code that computes the digest of the new row''s primary key.';

create or replace function gdpr_internal.source_code(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case when t.definition ->> 'source' = 'required' then format(
    E'if tg_op = ''INSERT'' and coalesce(current_setting(''gdpr.source'', true), '''') = '''' then\n  perform gdpr_internal.refuse(''source_missing'', %L);\nend if;\n',
    t.relation
  ) else '' end
  from gdpr_internal.protected_table as t
  where t.id = p_table;
end;
comment on function gdpr_internal.source_code(smallint) is 'Code that refuses a row without a source, for tables whose policy demands one.';

create or replace function gdpr_internal.row_key(p_table smallint, p_key text)
returns uuid
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
begin
  v_keys := gdpr_internal.keyring();
  return gdpr_internal.keyed_digest(v_keys.digest_key, 'row ' || p_table, p_key);
end
$function$;
comment on function gdpr_internal.row_key(smallint, text) is 'The digest of a primary key as sources keep it.';

create or replace function gdpr_internal.source_details_code(p_subject text, p_random integer)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select format(
    E'if v_source - ''kind'' <> ''{}'' then\n%send if;\n',
    gdpr_internal.indented(gdpr_internal.seal_code('v_details', p_subject, 0, '(v_source - ''kind'')::text', p_random), '  ')
  );
end;
comment on function gdpr_internal.source_details_code(text, integer) is
  'Code that encrypts what v_source says besides its kind into v_details, under v_key. p_random: where its IV stands in v_random.';

create or replace function gdpr_internal.change_source_code(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select format(
    E'if new.gdpr_subject_id <> old.gdpr_subject_id then\n'
    '  v_key := gdpr_internal.data_key(v_keys, new.gdpr_subject_id);\n'
    'end if;\n'
    '-- nothing of a person whose data key is gone\n'
    'if v_key is not null then\n'
    '  v_source := gdpr_internal.context_source();\n'
    '%s'
    '  insert into gdpr_internal.source (subject_id, table_id, row_key, event, kind, details, actor)\n'
    '  values (\n'
    '    new.gdpr_subject_id, %s, gdpr_internal.keyed_digest(v_keys.digest_key, %L, %s), ''changed'', v_source ->> ''kind'', v_details,\n'
    '    nullif(current_setting(''gdpr.actor'', true), '''')\n'
    '  );\n'
    'end if;\n',
    gdpr_internal.indented(gdpr_internal.source_details_code('new.gdpr_subject_id', 17), '  '),
    t.id, 'row ' || t.id, gdpr_internal.key_text(t.relation, 'new')
  )
  from gdpr_internal.protected_table as t
  where t.id = p_table;
end;
comment on function gdpr_internal.change_source_code(smallint) is
  'Code that records where a change of a row came from, once the session has told (Art. 14(2)(f)). v_key: the data key of the person that the row belonged to.';

set local role gdpr_owner;

create or replace function gdpr.source_of(p_table regclass, p_key text)
returns table (event text, kind text, details jsonb, actor text, recorded_at timestamptz)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint := gdpr_internal.table_id(p_table);
  v_subject bigint := gdpr.subject_of(p_table, p_key);
  v_row uuid;
begin
  v_row := gdpr_internal.row_key(v_table, case
    -- written in another way, the same key
    when (select x.indnatts > 1 from pg_index as x where x.indrelid = p_table and x.indisprimary) then p_key::jsonb::text
    else p_key
  end);
  return query
  select s.event, s.kind, gdpr_internal.open_evidence(s.subject_id, s.details)::jsonb, s.actor, s.recorded_at
  from (
    (
      select x.* from gdpr_internal.source as x
      where x.subject_id = v_subject and x.table_id = v_table and x.row_key = v_row and x.event = 'created'
      order by x.id
      limit 1
    )
    union all
    (
      select x.* from gdpr_internal.source as x
      where x.subject_id = v_subject and x.table_id = v_table and x.row_key = v_row and x.event = 'changed'
      order by x.id desc
      limit 1
    )
  ) as s;
end
$function$;
comment on function gdpr.source_of(regclass, text) is
  'Where the data of a row came from, by its primary key as text (several columns: a JSON array of texts): the source of its creation and, if one was told, of its last change, with the details of the kind (web form: form, url, ip, referrer; import: file, line; API: service; integration: system, record; manual: user). Errors: PR002 not protected, PR004 key of the wrong type, PR408 no primary key. Art. 14(2)(f), 15(1)(g).';
