-- [code] The generator of triggers: plain, static functions for each protected table.
-- GDPR Art. 25. Called by: gdpr.apply(). Runs as gdpr_keyholder, from names in the catalog and the register only: a caller
-- that could hand in text would run it with the keys.

set local role gdpr_keyholder;

create or replace function gdpr_internal.table_check_code(p_table smallint, p_row text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- the owner of the table chooses the types of its columns, at any time: assigning to a domain would run its CHECK with the
  -- keys, converting another type a cast of hers; and the same function on a forged table would open others' values.
  -- Columns of types outside the system are only ever given to format(), which calls their output function.
  select format(
    E'  if coalesce(pg_partition_root(tg_relid), tg_relid) <> %1$L::regclass then\n    perform gdpr_internal.refuse(''drifted'');\n  end if;\n'
    '  if %2$s then\n    perform gdpr_internal.refuse(''drifted'');\n  end if;\n',
    t.relation, string_agg(format('pg_typeof(%s.%I) <> %L::regtype', p_row, a.attname, format_type(a.atttypid, null)), E'\n    or ' order by a.attnum)
  )
  from gdpr_internal.protected_table as t
  join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped and a.atttypid < 16384
  where t.id = p_table
  group by t.relation;
end;
comment on function gdpr_internal.table_check_code(smallint, text) is
  'Code with which a generated trigger function refuses to run on any table but its own, with the types that apply() left. p_row: new or old.';

create or replace function gdpr_internal.text_expression(p_value text, p_type text)
returns text
language sql
immutable
parallel safe
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
parallel safe
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
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    c.id,
    c.column_name,
    row_number() over (order by not c.matches, c.position)::integer,
    c.original_type,
    c.encrypt,
    c.identifier,
    case when c.canonical = 'exact' then 'exact' else coalesce(c.identifier, 'text') end,
    c.mask,
    c.mask = 'pseudonym' or (c.encrypt <> 'no' and c.mask in ('initial', 'email', 'year')),
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
    substring(c.original_type from '^character(?: varying)?\((\d+)\)$')::integer
  from gdpr_internal.protected_column as c
  where c.table_id = p_table;
end;
comment on function gdpr_internal.column_facts(smallint) is
  'What the generators need of each classified column; n numbers the variables of the generated code, matching identifiers first.';

create or replace function gdpr_internal.read_value_code(p_column gdpr_internal.column_fact, p_indent text)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  -- v_<n>: the plaintext as text; a column that is encrypted is text in the table, its old type is checked here
  select replace(
    case
      when (p_column).encrypt = 'no' then format(
        E'v_%s := %s;\n', (p_column).n, gdpr_internal.text_expression(format('new.%I', (p_column).column_name), (p_column).type)
      )
      when (p_column).type = 'text' or (p_column).type = 'character varying' then format(
        E'v_%s := new.%I;\n', (p_column).n, (p_column).column_name
      )
      when (p_column).maximum is not null then format(
        E'if length(rtrim(new.%2$I, '' '')) > %3$s then\n'
        '  perform gdpr_internal.refuse(''value_too_long'', %4$L);\n'
        'end if;\n'
        'v_%1$s := left(new.%2$I, %3$s);\n',
        (p_column).n, (p_column).column_name, (p_column).maximum, format('column %I', (p_column).column_name)
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
    end,
    E'\n', E'\n' || p_indent
  );
$function$;
comment on function gdpr_internal.read_value_code(gdpr_internal.column_fact, text) is
  'Code that reads a new value as text and holds it to the type and length its column had.';

create or replace function gdpr_internal.store_value_code(p_column gdpr_internal.column_fact, p_iv integer, p_key text, p_subject text)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select concat(
    case when (p_column).encrypt = 'searchable' then format(
      E'new.%I := v_digest_%s;\n', 'gdpr_' || (p_column).column_name || '_digest', (p_column).n
    ) end,
    case when (p_column).masked then format(
      E'new.%I := %s;\n',
      'gdpr_' || (p_column).column_name || '_mask',
      case
        when (p_column).mask = 'pseudonym' then format(
          'left(replace(gdpr_internal.keyed_digest(v_ring.digest_key, ''pseudonym'', v_%s)::text, ''-'', ''''), %s)', (p_column).n, least(16, coalesce((p_column).maximum, 16))
        )
        else gdpr_internal.mask_expression(
          (p_column).mask,
          case when (p_column).mask = 'year' then format('v_%s::%s', (p_column).n, (p_column).type) else format('v_%s', (p_column).n) end,
          (p_column).type
        )
      end
    ) end,
    -- gdpr_internal.seal_value() in two assignments: a call for each value costs more than the cipher
    case when (p_column).encrypt <> 'no' then format(
      E'v_body := decode(''0100000001'', ''hex'') || int8send(%1$s) || int4send(%2$s) || substr(v_random, %3$s, 16)\n'
      '  || gdpr_internal.encrypt_iv(convert_to(v_%4$s, ''UTF8''), substr(%5$s, 1, 32), substr(v_random, %3$s, 16), ''aes-cbc/pad:pkcs'');\n'
      'new.%6$I := ''gdpr1:'' || translate(encode(v_body || gdpr_internal.hmac(v_body, substr(%5$s, 33), ''sha256''), ''base64''), chr(10), '''');\n',
      p_subject, (p_column).column_id, p_iv * 16 + 1, (p_column).n, p_key, (p_column).column_name
    ) end
  );
$function$;
comment on function gdpr_internal.store_value_code(gdpr_internal.column_fact, integer, text, text) is 'Code that puts digest, mask and ciphertext of v_<n> into the row.';

create or replace function gdpr_internal.digest_code(p_column gdpr_internal.column_fact)
returns text
language sql
immutable
parallel safe
security invoker
as $function$
  select concat(
    case when (p_column).identifier is not null or (p_column).encrypt = 'searchable' then format(
      E'v_canonical := gdpr_internal.canonical(%2$L, v_%1$s);\nv_digest_%1$s := gdpr_internal.keyed_digest(v_ring.digest_key, %2$L, v_canonical);\n',
      (p_column).n, (p_column).canonical
    ) end,
    case when (p_column).identifier = 'email' then format(
      E'v_bare_%1$s := v_digest_%1$s;\n'
      'if strpos(v_canonical, ''+'') > 0 then\n'
      '  v_bare_%1$s := gdpr_internal.keyed_digest(v_ring.digest_key, %2$L, gdpr_internal.bare_form(%2$L, v_canonical));\n'
      'end if;\n',
      (p_column).n, (p_column).canonical
    ) end
  );
$function$;
comment on function gdpr_internal.digest_code(gdpr_internal.column_fact) is 'Code that computes the digest of v_<n>, and of its bare form.';

create or replace function gdpr_internal.generate_triggers(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set bytea_output = 'hex'
set datestyle = 'ISO'
set timezone = 'UTC'
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_default_mask bigint;
  v_until timestamptz;
  v_grace_mask bigint;
  v_grace_until timestamptz;
  v_purposes smallint[];
  v_bases text[];
  v_declare text := '';
  v_read text := '';
  v_store text := '';
  v_update text := '';
  v_digests text[] := '{}';
  v_bares text[] := '{}';
  v_kinds text[] := '{}';
  v_matching integer := 0;
  v_constraint name;
  v_ivs integer := 0;
  v_column gdpr_internal.column_fact;
  v_same text := '';
  v_check text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select
    coalesce(bit_or(1::bigint << b.purpose_id), 0), coalesce(min(b.valid_until), 'infinity'),
    array_agg(b.purpose_id order by b.purpose_id), array_agg(b.basis order by b.purpose_id)
  into v_default_mask, v_until, v_purposes, v_bases
  from gdpr_internal.default_basis as b where b.table_id = p_table;
  select coalesce(bit_or(1::bigint << b.purpose_id), 0), coalesce(min(b.valid_until), 'infinity')
  into v_grace_mask, v_grace_until
  from gdpr_internal.table_basis as b
  where b.table_id = p_table and b.basis = 'undetermined' and b.valid_until > statement_timestamp();

  for v_column in select * from gdpr_internal.column_facts(p_table) order by n loop
    continue when v_column.encrypt = 'no' and v_column.identifier is null and not v_column.masked;
    v_declare := v_declare || format(E'  v_%s text;\n', v_column.n);
    if v_column.encrypt <> 'no' and v_column.maximum is null and v_column.type not in ('text', 'character varying') then
      v_declare := v_declare || format(E'  v_typed_%s %s;\n', v_column.n, v_column.type);
    end if;
    if v_column.encrypt <> 'no' then
      v_read := v_read || format(
        E'  if starts_with(new.%1$I, ''gdpr1:'') then\n    v_parent := gdpr_internal.moved_subject(new.%1$I, new.gdpr_subject_id);\n'
        '    new.%1$I := gdpr_internal.open_value(gdpr_internal.data_key(v_ring, v_parent), v_parent, %2$s, new.%1$I);\n  end if;\n',
        v_column.column_name, v_column.column_id
      );
    end if;
    v_read := v_read || '  ' || rtrim(gdpr_internal.read_value_code(v_column, '  '), ' ');
    if v_column.identifier is not null or v_column.encrypt = 'searchable' then
      v_declare := v_declare || format(E'  v_digest_%1$s uuid;\n  v_bare_%1$s uuid;\n', v_column.n);
      v_read := v_read || '  ' || replace(rtrim(gdpr_internal.digest_code(v_column), E'\n'), E'\n', E'\n  ') || E'\n';
    end if;
    if v_column.identifier is not null then
      v_digests := v_digests || format('v_digest_%s', v_column.n);
      v_bares := v_bares || format('coalesce(v_bare_%1$s, v_digest_%1$s)', v_column.n);
      v_kinds := v_kinds || quote_literal(v_column.identifier);
      v_matching := v_matching + v_column.matches::integer;
      v_constraint := coalesce(v_constraint, v_column.unique_name);
    end if;
    v_store := v_store || '  ' || replace(rtrim(
      gdpr_internal.store_value_code(v_column, v_ivs, 'v_claim.data_key', 'v_claim.subject_id'), E'\n'), E'\n', E'\n  ') || E'\n';

    v_same := v_same || format(' and new.%1$I is not distinct from old.%1$I', v_column.column_name);
    v_update := v_update || format(
      E'  if v_moved or new.%1$I is distinct from old.%1$I then\n    %2$s',
      v_column.column_name,
      case when v_column.encrypt <> 'no' then format(
        E'if new.%1$I is not distinct from old.%1$I then\n'
        '      new.%1$I := gdpr_internal.open_value(gdpr_internal.data_key(v_ring, old.gdpr_subject_id), old.gdpr_subject_id, %2$s, old.%1$I);\n'
        '    elsif starts_with(new.%1$I, ''gdpr1:'') then\n'
        '      perform gdpr_internal.refuse(''ciphertext_written'', %3$L);\n'
        '    end if;\n    ',
        v_column.column_name, v_column.column_id, format('column %I', v_column.column_name)
      ) else '' end
    );
    v_update := v_update || rtrim(gdpr_internal.read_value_code(v_column, '    '), ' ');
    if v_column.identifier is not null then
      -- the old digest, before v_<n> takes the new value
      v_update := v_update || format(
        E'    v_old := gdpr_internal.keyed_digest(v_ring.digest_key, %1$L, gdpr_internal.canonical(%1$L, %2$s));\n',
        v_column.canonical,
        case when v_column.encrypt = 'no'
          then gdpr_internal.text_expression(format('old.%I', v_column.column_name), v_column.type)
          else format(
            'gdpr_internal.open_value(gdpr_internal.data_key(v_ring, old.gdpr_subject_id), old.gdpr_subject_id, %s, old.%I)',
            v_column.column_id, v_column.column_name
          )
        end
      );
    end if;
    if v_column.identifier is not null or v_column.encrypt = 'searchable' then
      v_update := v_update || '    ' || replace(rtrim(gdpr_internal.digest_code(v_column), E'\n'), E'\n', E'\n    ') || E'\n';
    end if;
    if v_column.identifier is not null then
      v_update := v_update || format(
        E'    perform gdpr_internal.change_identifier(%5$s::smallint, new.gdpr_subject_id, v_old, v_digest_%1$s, coalesce(v_bare_%1$s, v_digest_%1$s), %2$L, %3$L, %4$L);\n',
        v_column.n, v_column.identifier, v_table.blocklist, v_column.unique_name, p_table
      );
    end if;
    v_update := v_update || '    ' || replace(rtrim(
      gdpr_internal.store_value_code(v_column, v_ivs, 'v_key', 'new.gdpr_subject_id'), E'\n'), E'\n', E'\n    ') || E'\n  end if;\n';
    v_ivs := v_ivs + (v_column.encrypt <> 'no')::integer;
  end loop;

  v_check := case when v_table.mode = 'enforce' then
    E'  if tg_nargs = 0 and tg_name <> ''zzz_gdpr_40_backfill'' and (\n'
    '    new.gdpr_until <= statement_timestamp()\n'
    '    or new.gdpr_purposes & gdpr_generated.purpose_mask(gdpr_internal.acting_role(), current_setting(''gdpr.purpose'', true)) = 0\n'
    '  ) then\n'
    '    perform gdpr_internal.check_write(\n'
    '      new.gdpr_subject_id, new.gdpr_purposes, gdpr_internal.acting_role(), current_setting(''gdpr.purpose'', true)\n'
    '    );\n'
    '  end if;\n'
  else '' end;
  v_declare := v_declare || case when v_declare like '%v_digest_%' then E'  v_canonical text;\n' else '' end
    || case when v_ivs > 0 then E'  v_body bytea;\n' else '' end;

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
as $body$
declare
  v_ring gdpr_internal.keyring := gdpr_internal.keyring();
  v_claim gdpr_internal.claim;
  v_parent bigint;
%3$sbegin
%17$s%2$s%4$s  v_claim := gdpr_internal.claim_subject(
    v_ring, %5$s::smallint, %6$s, %19$s, %15$L::smallint[], %16$L::text[], v_parent,
    array[%7$s]::uuid[], array[%8$s]::uuid[], array[%9$s]::text[], %10$s, %11$L, %12$L, tg_op = 'UPDATE'
  );
  new.gdpr_subject_id := v_claim.subject_id;
  new.gdpr_subject_ref := v_claim.ref;
  new.gdpr_purposes := v_claim.purposes & %13$s;
  new.gdpr_until := v_claim.until;
%18$s%14$s  return new;
end
$body$
$code$,
    'protect_' || p_table,
    case when v_table.parent_id is null then '' else E'  v_parent := new.gdpr_subject_id;\n' end,
    v_declare || case when v_ivs > 0 then format(E'  v_random bytea := gdpr_internal.gen_random_bytes(%s);\n', v_ivs * 16) else '' end,
    v_read, p_table,
    case when v_grace_mask = 0 then v_default_mask::text
      else format('case when tg_op = ''UPDATE'' then %s else %s end', v_default_mask | v_grace_mask, v_default_mask) end,
    array_to_string(v_digests, ', '), array_to_string(v_bares, ', '), array_to_string(v_kinds, ', '),
    v_matching, v_table.blocklist, v_constraint,
    v_table.purpose_mask | (1::bigint << 62), v_store, v_purposes, v_bases, gdpr_internal.table_check_code(p_table, 'new'), v_check,
    case when v_grace_mask = 0 then format('%L::timestamptz', v_until)
      else format('case when tg_op = ''UPDATE'' then %L::timestamptz else %L::timestamptz end', least(v_until, v_grace_until), v_until) end
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'protect_' || p_table,
    format('Before a row of %s is stored: whose it is, its source, its gate, its ciphertext. Generated by gdpr.apply().', v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'protect_' || p_table);

  if v_update = '' and v_table.parent_id is null then
    execute format('drop function if exists gdpr_generated.%I()', 'change_' || p_table);
  else
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
as $body$
declare
  v_ring gdpr_internal.keyring;
  v_moved boolean;
  v_key bytea;
%10$s  v_claim gdpr_internal.claim;
%2$sbegin
%9$s  -- an argument: apply() rewrites the row because the policy of a column changed
  v_moved := tg_nargs > 0 or new.gdpr_subject_id is distinct from old.gdpr_subject_id;
  if not v_moved%7$s then
    return new;
  end if;
  if new.gdpr_subject_id is null then
    if old.gdpr_subject_id is null then
      perform gdpr_internal.refuse('erased');
    end if;
    -- erasure: the guard lets nobody but gdpr_worker take a row's subject away
    return new;
  end if;
  v_ring := gdpr_internal.keyring();
%8$s  if v_moved then
    v_claim := gdpr_internal.known_subject(
      v_ring, %3$s::smallint, %4$s, new.gdpr_subject_id, gdpr_internal.context_source()
    );
    new.gdpr_subject_ref := v_claim.ref;
    new.gdpr_purposes := v_claim.purposes & %5$s;
    new.gdpr_until := v_claim.until;
%11$s  end if;
  v_key := gdpr_internal.data_key(v_ring, new.gdpr_subject_id);
  if v_key is null then
    perform gdpr_internal.refuse('erased');
  end if;
%6$s  return new;
end
$body$
$code$,
      'change_' || p_table, v_declare || case when v_ivs > 0 then E'  v_random bytea;\n' else '' end, p_table, v_default_mask,
      v_table.purpose_mask | (1::bigint << 62), v_update, v_same,
      case when v_ivs > 0 then format(E'  v_random := gdpr_internal.gen_random_bytes(%s);\n', v_ivs * 16) else '' end,
      gdpr_internal.table_check_code(p_table, 'new'), case when v_digests <> '{}' then E'  v_old uuid;\n' else '' end,
      replace(v_check, E'\n  ', E'\n    ')
    ));
    execute format(
      'comment on function gdpr_generated.%I() is %L', 'change_' || p_table,
      format('Before a changed row of %s is stored: identifiers and ciphertext of the columns that changed. Generated by gdpr.apply().', v_table.relation)
    );
    execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'change_' || p_table);
  end if;
  perform gdpr_internal.generate_audit(p_table);
  perform gdpr_internal.generate_clear_writes(p_table);
end
$function$;
comment on function gdpr_internal.generate_triggers(smallint) is 'Generates the trigger functions of a protected table from the register.';

create or replace function gdpr_internal.moved_subject(p_value text, p_subject bigint)
returns bigint
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  -- a row on its way to another partition, or from a dump, brings its own ciphertext and subject
  if p_subject is null or gdpr_internal.value_subject(p_value) is distinct from p_subject then
    perform gdpr_internal.refuse('ciphertext_written');
  end if;
  return p_subject;
exception when data_exception then
  perform gdpr_internal.refuse('ciphertext_written');
  return null;
end
$function$;
comment on function gdpr_internal.moved_subject(text, bigint) is
  'The subject of a row that arrives with ciphertext (partition move, data-only restore). Error: PR405 when the ciphertext is not this row''s.';

create or replace function gdpr_internal.key_expression(p_relation regclass, p_row text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select case count(*)
    when 0 then 'null::text'
    when 1 then max(format('format(''%%s'', %s.%I)', p_row, a.attname))
    else format('jsonb_build_array(%s)::text', string_agg(format('format(''%%s'', %s.%I)', p_row, a.attname), ', ' order by k.n))
  end
  from pg_index as x
  cross join lateral unnest(x.indkey) with ordinality as k (attnum, n)
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
  where x.indrelid = p_relation and x.indisprimary;
end;
comment on function gdpr_internal.key_expression(regclass, text) is
  'The primary key of a row as text: the value, or a JSON array of several; null without a primary key.';

create or replace function gdpr_internal.generate_audit(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_changed text;
  v_same text;
  v_all text;
  v_settings text;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select
    string_agg(format(E'      case when %s is distinct from %s then %L end', c.new_text, c.old_text, a.attname), E',\n' order by a.attnum),
    string_agg(format(E'      case when %s is not distinct from %s then %L end', c.new_text, c.old_text, a.attname), E',\n' order by a.attnum),
    string_agg(format('%L, %s', a.attname, c.old_value), ', ' order by a.attnum),
    case when bool_or(not c.stable_text) then
      E'set timezone = ''UTC''\nset datestyle = ''ISO''\nset intervalstyle = ''postgres''\nset extra_float_digits = 3\nset bytea_output = ''hex''\n'
    else '' end
  into v_changed, v_same, v_all, v_settings
  from pg_attribute as a
  join pg_type as y on y.oid = a.atttypid
  cross join lateral (
    select
      -- types of the system only: comparing or converting another type could run what its owner planted, with the keys
      case when k.comparable then format('new.%I', a.attname) else format('format(''%%s'', new.%I)', a.attname) end as new_text,
      case when k.comparable then format('old.%I', a.attname) else format('format(''%%s'', old.%I)', a.attname) end as old_text,
      case when y.oid < 16384 then format('old.%I', a.attname)
        else format('case when old.%1$I is null then null else format(''%%s'', old.%1$I) end', a.attname)
      end as old_value,
      format_type(a.atttypid, null) in (
        'text', 'character varying', 'character', 'uuid', 'boolean', 'smallint', 'integer', 'bigint', 'numeric', 'inet', 'cidr'
      ) as stable_text
    from (
      select y.oid < 16384 and (y.typcategory = 'A' or exists (
        select from pg_opclass as o
        where o.opcdefault and o.opcmethod = 403 and o.opcintype in (y.oid, case when y.typname = 'varchar' then 'text'::regtype else y.oid end)
      )) as comparable
    ) as k
  ) as c
  where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_';

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
  v_old jsonb;
  v_changed text[];
begin
  if tg_op = 'DELETE' then
%8$s  else
%9$s  end if;
  if tg_op = 'INSERT' then
    perform gdpr_internal.write_audit(
      'INSERT', %3$s::smallint, new.gdpr_subject_id, %4$s, format('%%s', new), null, null
    );
  elsif tg_op = 'UPDATE' then
    -- few and large expressions: each of its own costs anew in every transaction
    v_changed := array_remove(array[
%5$s,
      case when new.gdpr_subject_id is distinct from old.gdpr_subject_id then 'gdpr_subject_id' end
    ], null);
    if v_changed = '{}' then
      -- the gate was copied to the row, or nothing changed
      return null;
    end if;
    v_old := jsonb_build_object(%7$s, 'gdpr_subject_id', old.gdpr_subject_id) - array_remove(array[
%10$s,
      case when new.gdpr_subject_id is not distinct from old.gdpr_subject_id then 'gdpr_subject_id' end
    ], null);
    perform gdpr_internal.write_audit(
      'UPDATE', %3$s::smallint, old.gdpr_subject_id, %6$s, format('%%s', new), v_changed,
      gdpr_internal.seal_evidence(old.gdpr_subject_id, v_old::text)
    );
  else
    v_old := jsonb_build_object(%7$s);
    perform gdpr_internal.write_audit(
      'DELETE', %3$s::smallint, old.gdpr_subject_id, %6$s, format('%%s', old), null,
      gdpr_internal.seal_evidence(old.gdpr_subject_id, v_old::text)
    );
  end if;
  return null;
end
$body$
$code$,
    'audit_' || p_table, v_settings, p_table,
    gdpr_internal.key_expression(v_table.relation, 'new'), v_changed,
    gdpr_internal.key_expression(v_table.relation, 'old'), v_all,
    gdpr_internal.table_check_code(p_table, 'old'), gdpr_internal.table_check_code(p_table, 'new'), v_same
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'audit_' || p_table,
    format('After a row of %s has changed: its audit record. Generated by gdpr.apply().', v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'audit_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_audit(smallint) is 'Generates the audit trigger function of a protected table.';

set local role gdpr_owner;

create or replace function gdpr_policy.guard_gate()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refuse('gate_columns');
  return null;
end
$function$;
comment on function gdpr_policy.guard_gate() is 'Refuses every write of the columns gdpr_*; its trigger fires only for those. Error: PR406.';

create or replace function gdpr_policy.guard_truncate()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refuse('truncate_refused');
  return null;
end
$function$;
comment on function gdpr_policy.guard_truncate() is 'Refuses TRUNCATE, which ignores row security and audit. Error: PR407.';
