-- [code] The pieces of code from which the triggers of a protected table are generated.
-- GDPR Art. 25, 32. From names in the catalog and the register only: a caller that could hand in text would run it with the keys.
-- In the pieces v_<n> is the plaintext of a column, v_key the person's data key (with those it replaced behind it), v_keys the keys of the statement.
-- Few and large expressions: plpgsql prepares each one anew in every transaction.

set local role gdpr_keyholder;

create or replace function gdpr_internal.random_code(p_bytes integer)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- pgcrypto gives 1,024 bytes at the most
  select string_agg(format('gdpr_internal.gen_random_bytes(%s)', least(1024, p_bytes - b.done)), ' || ' order by b.done)
  from generate_series(0, p_bytes - 1, 1024) as b (done);
end;
comment on function gdpr_internal.random_code(integer) is 'The SQL of so many random bytes, one at least.';

create or replace function gdpr_internal.table_check_code(p_table smallint, p_row text, p_columns name[])
returns text
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    -- the owner of the table chooses the types of its columns, at any time: assigning to a domain would run its CHECK with the
    -- keys, converting another type a cast of hers; and the same function on a forged table would open others' values.
    -- Columns of types outside the system are only ever compared as images, or given to format(), which calls their output function.
    -- The planner knows of most that they are as they were; the row itself is asked where it does not. One comparison of two arrays:
    -- each function in an expression is looked up anew in every transaction.
    select format(
      E'if tg_relid <> %1$L::regclass or not gdpr_internal.keeps_types(%1$L, %4$L, %3$L) then\n'
      '  if tg_relid <> %1$L::regclass and pg_partition_root(tg_relid) is distinct from %1$L::regclass\n'
      '    or array[%2$s] <> %3$L::regtype[]\n'
      '  then\n'
      '    perform gdpr_internal.refuse(''drifted'');\n'
      '  end if;\n'
      'end if;\n',
      t.relation,
      string_agg(
        case
          -- a table that is being enabled makes text of them in a moment that has no time to generate this function
          when a.type = 'varchar'::regtype and gdpr_internal.enabling_state(p_table) is not null
            then format('case pg_typeof(%1$s.%2$I) when ''varchar''::regtype then ''text''::regtype else pg_typeof(%1$s.%2$I) end', p_row, a.attname)
          else format('pg_typeof(%s.%I)', p_row, a.attname)
        end, ', ' order by a.attnum
      ),
      array_agg(
        case when a.type = 'varchar'::regtype and gdpr_internal.enabling_state(p_table) is not null then 'text'::regtype else a.type::regtype end
        order by a.attnum
      ),
      array_agg(a.attname order by a.attnum)
    )
    from gdpr_internal.protected_table as t
    join lateral (
      select a.attname, a.attnum, gdpr_internal.stored_type(t.relation, a) as type
      from pg_attribute as a
      where a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped and (p_columns is null or a.attname = any (p_columns))
    ) as a on a.type < 16384
    where t.id = p_table
    group by t.relation
  );
end
$function$;
comment on function gdpr_internal.table_check_code(smallint, text, name[]) is
  'Code with which a generated trigger function refuses to run on any table but its own, with the types that apply() left. p_row: new or old; p_columns: those that the function reads other than by format(), or writes; null: all.';

create or replace function gdpr_internal.written_columns(p_table smallint)
returns name[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select array(
    select a.attname
    from gdpr_internal.protected_table as t
    join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
    where t.id = p_table and (
      a.attname ^@ 'gdpr_'
      or exists (select from gdpr_internal.protected_column as c where c.table_id = p_table and c.column_name = a.attname)
      or exists (select from pg_index as x where x.indrelid = t.relation and x.indisprimary and a.attnum = any (x.indkey))
    )
  );
end;
comment on function gdpr_internal.written_columns(smallint) is
  'The columns of a protected table that the triggers which let rows in read or write: classified ones, the primary key, gdpr_*.';

create or replace function gdpr_internal.differs_code(p_relation regclass, p_column name)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- equal is not the same: collations take letters for each other, a month is 30 days, 1.0 is 1.00; and json has no operator at all.
  -- Images of values are compared without asking their type, so that nothing of its owner's runs; they cost more, and where equal
  -- is the same an operator is asked
  select format(
    case
      when s.type in ('text'::regtype, 'varchar'::regtype)
        then '(new.%1$I is distinct from old.%1$I collate pg_catalog."C")'
      when s.type in (
        'boolean'::regtype, 'smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'uuid'::regtype, 'bytea'::regtype,
        'date'::regtype, 'time'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype
      ) then '(new.%1$I is distinct from old.%1$I)'
      else 'pg_catalog.record_image_ne(row(new.%1$I), row(old.%1$I))'
    end, a.attname
  )
  from pg_attribute as a
  cross join lateral (select gdpr_internal.stored_type(p_relation, a) as type) as s
  where a.attrelid = p_relation and a.attname = p_column;
end;
comment on function gdpr_internal.differs_code(regclass, name) is
  'The SQL of whether another value of a column is stored than before, even if its type takes both for equal: for triggers on UPDATE.';

create or replace function gdpr_internal.text_expression(p_value text, p_type text)
returns text
language sql
immutable
parallel unsafe
security invoker
begin atomic
  select case
    when gdpr_internal.base_type(p_type) in (
      'text', 'character varying', 'character', 'uuid', 'boolean', 'smallint', 'integer', 'bigint', 'numeric', 'inet', 'cidr', 'json', 'jsonb'
    ) then format('%s::pg_catalog.text', p_value)
    else format('gdpr.text_of(%s)', p_value)
  end;
end;
comment on function gdpr_internal.text_expression(text, text) is 'The SQL that turns a value of a type into text that does not depend on the session''s settings.';

create or replace function gdpr_internal.mask_expression(p_mask text, p_value text, p_type text)
returns text
language sql
immutable
parallel unsafe
security invoker
begin atomic
  select case p_mask
    when 'show' then p_value
    when 'initial' then format('(left(%1$s::text, 1) || ''.'')::%2$s', p_value, p_type)
    when 'email' then format(
      '(left(%1$s::text, 1) || ''***'' || case when strpos(split_part(%1$s::text, ''@'', -1), ''.'') > 0 and strpos(%1$s::text, ''@'') > 0 '
      'then ''@***.'' || split_part(%1$s::text, ''.'', -1) else '''' end)::%2$s', p_value, p_type
    )
    -- a date by way of timestamp: by way of timestamptz it would ask the session's time zone, at twice the price
    when 'year' then format('date_trunc(''year'', %1$s%3$s)::%2$s', p_value, p_type, case when p_type = 'date' then '::timestamp' else '' end)
    else format('null::%s', p_type)
  end;
end;
comment on function gdpr_internal.mask_expression(text, text, text) is
  'The SQL of a mask over a plain column: expressions that the planner can inline, no function of ours per row.';

create or replace function gdpr_internal.column_facts(p_table smallint)
returns setof gdpr_internal.column_fact
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query
  select
    c.id,
    c.column_name,
    row_number() over (order by not c.matches, c.position)::integer,
    case when w.waits then w.carrier else c.original_type end,
    -- rows that get their persons stay plaintext for now
    case when gdpr_internal.is_claiming(p_table) then 'no' else c.encrypt end,
    c.identifier,
    case when c.canonical = 'exact' then 'exact' else coalesce(c.identifier, 'text') end,
    c.mask,
    c.mask = 'pseudonym' or ((c.encrypt <> 'no' or w.waits) and c.mask in ('initial', 'email', 'year')),
    c.matches,
    coalesce(
      c.original ->> 'unique_name',
      (
        select i.relname from pg_index as x
        join pg_class as i on i.oid = x.indexrelid
        join pg_attribute as a on a.attrelid = x.indrelid and a.attname = c.column_name
        join gdpr_internal.protected_table as t on t.id = c.table_id and t.relation = x.indrelid
        where x.indisunique and x.indkey::text = a.attnum::text
        limit 1
      )
    )::name,
    substring(c.original_type from '^character(?: varying)?\((\d+)\)$')::integer,
    c.encrypt = 'searchable' or w.waits and w.encrypt = 'searchable',
    case when w.waits then 'gdpr_text_' || c.position else c.column_name end
  from gdpr_internal.protected_column as c
  cross join lateral gdpr_internal.waits_for_shadow(c) as w
  where c.table_id = p_table;
end
$function$;
comment on function gdpr_internal.column_facts(smallint) is
  'What the generators need of each classified column; n numbers the variables of the generated code, matching identifiers first.';

create or replace function gdpr_internal.plain_code(p_column gdpr_internal.column_fact, p_row text)
returns text
language sql
immutable
parallel unsafe
security invoker
begin atomic
  -- a shadow is text already: no cast of its column's type comes near the keys
  select case
    when (p_column).source <> (p_column).column_name then format('%s.%I', p_row, (p_column).source)
    else gdpr_internal.text_expression(format('%s.%I', p_row, (p_column).column_name), (p_column).type)
  end;
end;
comment on function gdpr_internal.plain_code(gdpr_internal.column_fact, text) is 'The SQL of the text of a column that holds plaintext in row p_row (new, old).';

create or replace function gdpr_internal.read_value_code(p_column gdpr_internal.column_fact)
returns text
language sql
immutable
parallel unsafe
security invoker
as $function$
  -- v_<n>: the plaintext as text; a column that is encrypted is text in the table, its old type is checked here
  select case
    when (p_column).encrypt = 'no' then format(
      E'v_%s := %s;\n', (p_column).n, gdpr_internal.plain_code(p_column, 'new')
    )
    when (p_column).type = 'text' or (p_column).type = 'character varying' then format(
      E'v_%s := new.%I;\n', (p_column).n, (p_column).column_name
    )
    when (p_column).maximum is not null then format(
      E'v_%1$s := case when length(rtrim(new.%2$I, '' '')) > %3$s\n'
      '  then case when gdpr_internal.refuse(''value_too_long'', %4$L) then null end else %5$s end;\n',
      (p_column).n, (p_column).column_name, (p_column).maximum, format('column %I', (p_column).column_name),
      -- blanks at the end of character(n) are no part of the value
      format(case when (p_column).type ^@ 'character(' then 'rtrim(new.%1$I, '' '')' else 'left(new.%1$I, %2$s)' end, (p_column).column_name, (p_column).maximum)
    )
    else format(
      E'begin\n'
      '  v_typed_%1$s := new.%2$I;\n'
      '  v_%1$s := %3$s;\n'
      'exception when data_exception then\n'
      '  perform gdpr_internal.refuse(''invalid_value'', %4$L);\n'
      'end;\n',
      (p_column).n, (p_column).column_name,
      gdpr_internal.text_expression(format('v_typed_%s', (p_column).n), (p_column).type),
      format('column %I', (p_column).column_name)
    )
  end;
$function$;
comment on function gdpr_internal.read_value_code(gdpr_internal.column_fact) is
  'Code that reads a new value as text and holds it to the type and length its column had.';

create or replace function gdpr_internal.seal_code(p_target text, p_subject text, p_column integer, p_value text, p_random integer)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- gdpr_internal.seal_value() in two assignments: a call for each value costs more than the cipher
  select format(
    E'v_body := ''\\x01''::bytea || gdpr_internal.key_version(v_key) || int8send(%1$s) || int4send(%2$s) || substr(v_random, %3$s, 16)\n'
    '  || gdpr_internal.encrypt_iv(convert_to(%4$s, ''UTF8''), substr(v_key, 1, 32), substr(v_random, %3$s, 16), ''aes-cbc/pad:pkcs'');\n'
    '%5$s := ''gdpr1:'' || replace(encode(v_body || gdpr_internal.hmac(v_body, substr(v_key, 33, 32), ''sha256''), ''base64''), chr(10), '''');\n',
    p_subject, p_column, p_random, p_value, p_target
  );
end;
comment on function gdpr_internal.seal_code(text, text, integer, text, integer) is
  'Code that encrypts p_value (an expression, text) into p_target under v_key, with the IV that stands at p_random in v_random.';

create or replace function gdpr_internal.store_value_code(p_column gdpr_internal.column_fact, p_random integer)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select concat(
    case when (p_column).digested then format(
      E'new.%1$I := v_digest_%2$s;\n'
      -- the call is for values without content only, which are nobody''s identifier and yet equal
      'if v_digest_%2$s is null and v_%2$s is not null then\n'
      '  new.%1$I := gdpr_internal.keyed_digest(v_keys.digest_key, %3$L, gdpr_internal.equal_form(%3$L, v_%2$s));\n'
      'end if;\n',
      'gdpr_' || (p_column).column_name || '_digest', (p_column).n, (p_column).canonical
    ) end,
    case when (p_column).masked then format(
      E'new.%I := %s;\n',
      'gdpr_' || (p_column).column_name || '_mask',
      case
        when (p_column).mask = 'pseudonym' then format(
          'left(replace(gdpr_internal.keyed_digest(v_keys.digest_key, ''pseudonym'', v_%s)::text, ''-'', ''''), %s)', (p_column).n, least(16, coalesce((p_column).maximum, 16))
        )
        else gdpr_internal.mask_expression(
          (p_column).mask,
          case when (p_column).mask = 'year' then format('v_%s::%s', (p_column).n, (p_column).type) else format('v_%s', (p_column).n) end,
          (p_column).type
        )
      end
    ) end,
    case when (p_column).encrypt <> 'no' then gdpr_internal.seal_code(
      format('new.%I', (p_column).column_name), 'new.gdpr_subject_id', (p_column).column_id, format('v_%s', (p_column).n), p_random
    ) end
  );
$function$;
comment on function gdpr_internal.store_value_code(gdpr_internal.column_fact, integer) is
  'Code that puts digest, mask and ciphertext of v_<n> into the row. p_random: where its IV stands in v_random.';

create or replace function gdpr_internal.canonical_code(p_kind text, p_value text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- most addresses are plain ASCII without a tag or an encoded domain, where folding is lower(): no call for those
  select case when p_kind = 'email' then format(
    'case when %1$s collate "C" ~ ''^[A-Za-z0-9._-]+@[A-Za-z0-9.-]*[A-Za-z0-9-]$'' and strpos(lower(%1$s collate "C"), ''xn--'') = 0 '
    'then lower(%1$s collate "C") else gdpr_internal.canonical(%2$L, %1$s) end', p_value, p_kind
  ) else format('gdpr_internal.canonical(%L, %s)', p_kind, p_value) end;
end;
comment on function gdpr_internal.canonical_code(text, text) is 'The SQL of gdpr_internal.canonical(), without a call where the form is obvious.';

create or replace function gdpr_internal.digest_code(p_column gdpr_internal.column_fact)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select case when (p_column).identifier is not null or (p_column).digested then format(
    E'v_canonical_%1$s := %3$s;\nv_digest_%1$s := gdpr_internal.keyed_digest(v_keys.digest_key, %2$L, v_canonical_%1$s);\n',
    (p_column).n, (p_column).canonical, gdpr_internal.canonical_code(
      (p_column).canonical,
      -- types whose equal values are written in several ways
      case when (p_column).digested and (p_column).identifier is null
          and (p_column).type ~ '^(numeric|interval|real|double precision)[^[]*$'
        then format('gdpr.equal_text(%s)', case
          when (p_column).encrypt = 'no' then format('new.%I', (p_column).column_name) else format('v_typed_%s', (p_column).n)
        end)
        else format('v_%s', (p_column).n)
      end
    )
  ) else '' end;
$function$;
comment on function gdpr_internal.digest_code(gdpr_internal.column_fact) is 'Code that computes the digest of v_<n>.';

create or replace function gdpr_internal.bare_code(p_column gdpr_internal.column_fact)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select case when (p_column).identifier = 'email' then format(
    'case gdpr_internal.bare_form(%2$L, v_canonical_%1$s) when v_canonical_%1$s then v_digest_%1$s '
    'else gdpr_internal.keyed_digest(v_keys.digest_key, %2$L, gdpr_internal.bare_form(%2$L, v_canonical_%1$s)) end',
    (p_column).n, (p_column).canonical
  ) else format('v_digest_%s', (p_column).n) end;
$function$;
comment on function gdpr_internal.bare_code(gdpr_internal.column_fact) is 'The SQL of the digest of v_<n> without a plus-tag.';

create or replace function gdpr_internal.variable_code(p_column gdpr_internal.column_fact)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select concat(
    format(E'  v_%s text;\n', (p_column).n),
    case when (p_column).encrypt <> 'no' and (p_column).maximum is null and (p_column).type not in ('text', 'character varying')
      then format(E'  v_typed_%s %s;\n', (p_column).n, (p_column).type)
    end,
    case when (p_column).identifier is not null or (p_column).digested
      then format(E'  v_canonical_%1$s text;\n  v_digest_%1$s uuid;\n', (p_column).n)
    end
  );
$function$;
comment on function gdpr_internal.variable_code(gdpr_internal.column_fact) is 'Declarations of the variables that the code of a column uses.';

create or replace function gdpr_internal.keys_code(p_subject text default null)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- the key in a table is read here; one that the session holds takes the call
  select concat(
    E'select k.id, k.material, gdpr_internal.decrypt_iv(\n'
    '  substr(k.digest_key, 17, 32), substr(k.material, 1, 32), substr(k.digest_key, 1, 16), ''aes-cbc/pad:none''\n'
    ')', case when p_subject is not null then ', w.wrapped' end, E'\n'
    'into v_keys.kek_id, v_keys.kek, v_keys.digest_key', case when p_subject is not null then ', v_wrapped' end, E'\n'
    'from gdpr_internal.key_encryption_key as k\n',
    case when p_subject is not null then format(E'left join gdpr_internal.subject_key as w on w.subject_id = %s\n', p_subject) end,
    E'where k.retired_at is null;\n'
    'if v_keys.kek is null then\n'
    '  v_keys := gdpr_internal.keyring();\n'
    'end if;\n'
  );
end;
comment on function gdpr_internal.keys_code(text) is
  'Code that reads the keys of the statement into v_keys; p_subject: and the data key of this person into v_wrapped, as it is stored.';

create or replace function gdpr_internal.unwrap_code(p_target text, p_kek text, p_subject text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- gdpr_internal.unwrap_key() for most; what this does not open takes the call
  select format(
    -- 112 bytes: a key that was never replaced
    E'%1$s := case when length(v_wrapped) = 112\n'
    '  and substr(v_wrapped, 81) = gdpr_internal.hmac(int8send(%3$s) || substr(v_wrapped, 1, 80), substr(%2$s, 33, 32), ''sha256'')\n'
    '  then gdpr_internal.decrypt_iv(substr(v_wrapped, 17, 64), substr(%2$s, 1, 32), substr(v_wrapped, 1, 16), ''aes-cbc/pad:none'') end;\n'
    'if %1$s is null then\n'
    '  %1$s := gdpr_internal.unwrap_key(%2$s, int8send(%3$s), v_wrapped);\n'
    'end if;\n',
    p_target, p_kek, p_subject
  );
end;
comment on function gdpr_internal.unwrap_code(text, text, text) is
  'Code that unwraps the data key in v_wrapped of a person (p_subject) with a key-encryption key (p_kek) into p_target. Error: PR404.';

create or replace function gdpr_internal.check_code(p_table smallint)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case when t.mode = 'enforce' and gdpr_internal.enabling_state(p_table) is null then
    E'if tg_nargs = 0 and tg_name <> ''zzz_gdpr_40_backfill'' and (\n'
    '  new.gdpr_until <= statement_timestamp()\n'
    '  or new.gdpr_purposes & gdpr_generated.purpose_mask(gdpr_internal.acting_role(), current_setting(''gdpr.purpose'', true)) = 0\n'
    ') then\n'
    '  perform gdpr_internal.check_write(\n'
    '    new.gdpr_subject_id, new.gdpr_purposes, gdpr_internal.acting_role(), current_setting(''gdpr.purpose'', true)\n'
    '  );\n'
    'end if;\n'
  else '' end
  from gdpr_internal.protected_table as t
  where t.id = p_table;
end;
comment on function gdpr_internal.check_code(smallint) is
  'Code that says why the gate will not let a row in; nothing for a table that is only observed, or still being enabled.';

create or replace function gdpr_internal.special_code(p_table smallint, p_changed boolean)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case when count(*) = 0 then '' else format(
    E'if tg_nargs = 0 and tg_name <> ''zzz_gdpr_40_backfill'' and (\n  %s\n) then\n'
    '  perform gdpr_internal.check_special(new.gdpr_subject_id, gdpr_internal.acting_role(), current_setting(''gdpr.purpose'', true));\n'
    'end if;\n',
    string_agg(
      concat(format('new.%I is not null', c.column_name), case when p_changed then ' and ' || gdpr_internal.differs_code(t.relation, c.column_name) end),
      E'\n  or ' order by c.position
    )
  ) end
  from gdpr_internal.protected_column as c
  join gdpr_internal.protected_table as t on t.id = c.table_id
  where c.table_id = p_table and c.special is not null and t.mode = 'enforce' and gdpr_internal.enabling_state(p_table) is null;
end;
comment on function gdpr_internal.special_code(smallint, boolean) is
  'Code that asks for a condition of Art. 9(2) where a column of a special category is given a value (p_changed: another than before); nothing for tables without one.';

create or replace function gdpr_internal.indented(p_code text, p_indent text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case when p_code = '' then '' else p_indent || replace(rtrim(p_code, E'\n'), E'\n', E'\n' || p_indent) || E'\n' end;
end;
comment on function gdpr_internal.indented(text, text) is 'Lines of generated code, indented: DBAs read what is generated.';
