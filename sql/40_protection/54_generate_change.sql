-- [code] The generator of the trigger that lets a changed row in: identifiers and ciphertext of the columns that changed.
-- GDPR Art. 16, 25, 32. Called by: gdpr.apply().

set local role gdpr_keyholder;

create or replace function gdpr_internal.same_value_code(p_column gdpr_internal.column_fact, p_was text)
returns text
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format(
    E'declare\n'
    '  v_kept boolean;\n'
    'begin\n'
    '  begin\n'
    '    v_kept := new.%1$I is null or coalesce((new.%1$I::%2$s)%4$s = (%3$s::%2$s)%4$s, false);\n'
    '  exception when data_exception then\n'
    '    v_kept := false;\n'
    '  end;\n'
    '  if not v_kept then\n'
    '    perform gdpr_internal.refuse(''value_changes'', %5$L);\n'
    '  end if;\n'
    'end;\n',
    p_column.column_name, p_was,
    case
      -- by way of the cast, as 1e+06 is the text of a real and not that of an integer
      when exists (
        select from pg_cast as c where c.castsource = to_regtype(p_column.type) and c.casttarget = to_regtype(p_was) and c.castmethod <> 'i'
      ) and gdpr_internal.base_type(p_column.type) not in ('text', 'character varying', 'character') then format('v_typed_%s', p_column.n)
      else format('v_%s', p_column.n)
    end,
    case
      when gdpr_internal.base_type(p_was) = 'json' then '::jsonb'
      when exists (
        select from pg_opclass as o join pg_am as m on m.oid = o.opcmethod
        join pg_type as y on y.oid = o.opcintype and y.typcollation = 0
        where m.amname = 'btree' and o.opcdefault and o.opcintype = to_regtype(p_was)
      ) then ''
      else '::text collate "C"'
    end,
    format('column %I', p_column.column_name)
  );
$function$;
comment on function gdpr_internal.same_value_code(gdpr_internal.column_fact, text) is
  'Code that refuses a value which, read as the new type of its column, is another one in the type that it had.';

create or replace function gdpr_internal.change_value_code(p_column gdpr_internal.column_fact, p_table gdpr_internal.protected_table, p_random integer)
returns text
language plpgsql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_old_value text := format('(v_old_key, old.gdpr_subject_id, %s, old.%I)', p_column.column_id, p_column.column_name);
  v_differs text := gdpr_internal.differs_code(p_table.relation, p_column.column_name);
  v_held text;
  v_was text := (
    select w.was ->> 'type'
    from gdpr_internal.reshape as r
    cross join lateral (select r.was -> p_column.column_id::text) as w (was)
    where r.table_id = p_table.id and not (w.was ->> 'lossy')::boolean
  );
  v_code text := '';
begin
  if p_column.encrypt <> 'no' then
    v_code := format(
      E'if not %4$s then\n'
      '  new.%1$I := %2$s;\n'
      'elsif starts_with(new.%1$I, ''gdpr1:'') then\n'
      '  perform gdpr_internal.refuse(''ciphertext_written'', %3$L);\n'
      'end if;\n',
      p_column.column_name, 'gdpr_internal.open_value' || v_old_value, format('column %I', p_column.column_name), v_differs
    );
  end if;
  v_code := v_code || gdpr_internal.read_value_code(p_column)
    || case when v_was is null then '' else gdpr_internal.same_value_code(p_column, v_was) end
    || gdpr_internal.digest_code(p_column);
  if p_column.identifier is not null then
    -- a row may hold one number twice: where one of them changes, the person still has the other
    select string_agg(
      format(
        'gdpr_internal.keyed_digest(v_keys.digest_key, %1$L, gdpr_internal.canonical(%1$L, %2$s))', p_column.canonical,
        case
          when f.encrypt = 'no' then gdpr_internal.plain_code(f, 'new')
          else format(
            -- one that changes too is plaintext until its turn comes
            'case when starts_with(new.%2$I, ''gdpr1:'') then gdpr_internal.value_or_null(v_key, new.gdpr_subject_id, %1$s, new.%2$I) else new.%2$I end',
            f.column_id, f.column_name
          )
        end
      ), ', ' order by f.n
    )
    into v_held
    from gdpr_internal.column_facts(p_table.id) as f
    where f.identifier is not null and f.canonical = p_column.canonical and f.column_name <> p_column.column_name;
    v_code := v_code || format(
      E'v_old := gdpr_internal.keyed_digest(v_keys.digest_key, %1$L, gdpr_internal.canonical(%1$L, %2$s));\n%10$s'
      'perform gdpr_internal.change_identifier(\n'
      '  %3$s::smallint, new.gdpr_subject_id, v_old, v_digest_%4$s, %5$s, %6$L, %7$L, %8$L, %9$s\n'
      ');\n',
      p_column.canonical,
      case when p_column.encrypt = 'no' then gdpr_internal.plain_code(p_column, 'old') else 'gdpr_internal.value_or_null' || v_old_value end,
      p_table.id, p_column.n, gdpr_internal.bare_code(p_column), p_column.identifier, p_table.blocklist, p_column.unique_name,
      coalesce('case when not v_moved and v_old is not null then array[' || v_held || '] end', 'null'),
      case when p_column.digested then format(
        E'if v_old is null and old.%1$I is not null and not v_moved then\n'
        '  -- a broken value: the digest beside it, if it is this person''s\n'
        '  select i.digest into v_old from gdpr_internal.identifier as i\n'
        '  where i.digest = old.%2$I and i.subject_id = old.gdpr_subject_id and i.retired_at is null and i.blocked_at is null;\n'
        'end if;\n', p_column.column_name, 'gdpr_' || p_column.column_name || '_digest'
      ) else '' end
    );
  end if;
  return format(
    E'if %s or %s then\n%send if;\n',
    case when p_column.encrypt <> 'no' then 'v_moved or v_renewing' else 'v_moved' end, v_differs,
    gdpr_internal.indented(v_code || gdpr_internal.store_value_code(p_column, p_random), '  ')
  );
end
$function$;
comment on function gdpr_internal.change_value_code(gdpr_internal.column_fact, gdpr_internal.protected_table, integer) is
  'Code that stores a column anew when its value changed, when the row went to another person, or when the person has a new key. v_old_key: the data key of the person the row belonged to.';

create or replace function gdpr_internal.generate_change(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set bytea_output = 'hex'
-- what is dropped need not have been there
set client_min_messages = warning
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_default_mask bigint;
  v_declare text := '';
  v_same text := '';
  v_update text := '';
  v_ivs integer := 0;
  v_identifiers boolean := false;
  v_column gdpr_internal.column_fact;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  select coalesce(bit_or(1::bigint << b.purpose_id), 0) into v_default_mask from gdpr_internal.default_basis as b
  where b.table_id = p_table and b.basis <> 'undetermined';

  for v_column in select * from gdpr_internal.column_facts(p_table) order by n loop
    continue when v_column.encrypt = 'no' and v_column.identifier is null and not v_column.masked and not v_column.digested;
    v_declare := v_declare || gdpr_internal.variable_code(v_column);
    v_same := v_same || ' and not ' || gdpr_internal.differs_code(v_table.relation, v_column.column_name);
    v_update := v_update || gdpr_internal.change_value_code(v_column, v_table, v_ivs * 16 + 1);
    v_ivs := v_ivs + (v_column.encrypt <> 'no')::integer;
    v_identifiers := v_identifiers or v_column.identifier is not null;
  end loop;
  if v_update = '' and v_table.parent_id is null then
    execute format('drop function if exists gdpr_generated.%I()', 'change_' || p_table);
    return;
  end if;

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
  v_keys gdpr_internal.keyring;
  v_claim gdpr_internal.claim;
  v_moved boolean;
  v_renewing boolean;
  v_wrapped bytea;
  v_key bytea;
%2$sbegin
%3$s  -- an argument: apply() rewrites the row because the policy of a column changed
  v_moved := tg_nargs > 0 or new.gdpr_subject_id is distinct from old.gdpr_subject_id;
  v_renewing := coalesce(current_setting('gdpr.renewing', true), '') <> '' and gdpr_internal.renewing(new.gdpr_subject_id);
  if not v_moved and not v_renewing%4$s then
    return new;
  end if;
  if new.gdpr_subject_id is null then
    if old.gdpr_subject_id is null then
      perform gdpr_internal.refuse('erased');
    end if;
    -- erasure: the guard lets nobody but gdpr_worker take a row's subject away
    return new;
  end if;
%5$s  if v_moved then
    v_claim := gdpr_internal.known_subject(
      v_keys, %6$s::smallint, %7$s, new.gdpr_subject_id, gdpr_internal.context_source()
    );
    if new.gdpr_subject_id is distinct from old.gdpr_subject_id then
      perform gdpr_internal.add_source(
        new.gdpr_subject_id, %6$s::smallint, gdpr_internal.row_key(%6$s::smallint, %12$s), gdpr_internal.context_source(), v_claim.data_key
      );
    end if;
    new.gdpr_subject_ref := v_claim.ref;
    new.gdpr_purposes := v_claim.purposes & %8$s;
    new.gdpr_until := v_claim.until;
    -- once more, now that nobody can take it away
    select k.wrapped into v_wrapped from gdpr_internal.subject_key as k where k.subject_id = new.gdpr_subject_id;
%9$s  end if;
  if v_wrapped is null then
    perform gdpr_internal.refuse(case
      when exists (select from gdpr_internal.subject as s where s.id = new.gdpr_subject_id and s.erased_at is null) then 'data_key_missing'
      else 'erased'
    end);
  end if;
%13$s%10$s%11$s  return new;
end
$body$
$code$,
    'change_' || p_table,
    v_declare
      || case when v_ivs > 0 then E'  v_old_key bytea;\n  v_random bytea;\n  v_body bytea;\n' else '' end
      || case when v_identifiers then E'  v_old uuid;\n' else '' end,
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'new', gdpr_internal.written_columns(p_table)), '  '),
    v_same,
    gdpr_internal.indented(gdpr_internal.keys_code('new.gdpr_subject_id'), '  '),
    p_table, v_default_mask,
    v_table.purpose_mask | (1::bigint << 62),
    gdpr_internal.indented(gdpr_internal.check_code(p_table), '    '),
    gdpr_internal.indented(gdpr_internal.special_code(p_table, true), '  ')
    || case when v_ivs > 0 then format(
      E'  v_old_key := case when new.gdpr_subject_id = old.gdpr_subject_id then v_key else gdpr_internal.data_key(v_keys, old.gdpr_subject_id) end;\n'
      '  v_random := %s;\n', gdpr_internal.random_code(v_ivs * 16)
    ) else '' end,
    gdpr_internal.indented(v_update, '  '),
    gdpr_internal.key_text(v_table.relation, 'new'),
    gdpr_internal.indented(gdpr_internal.unwrap_code('v_key', 'v_keys.kek', 'new.gdpr_subject_id'), '  ')
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'change_' || p_table,
    format('Before a changed row of %s is stored: identifiers and ciphertext of the columns that changed. Generated by gdpr.apply().', v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'change_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_change(smallint) is 'Generates the BEFORE UPDATE trigger function of a protected table from the register.';

create or replace function gdpr_internal.generate_triggers(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.generate_values(p_table);
  perform gdpr_internal.generate_protect(p_table);
  perform gdpr_internal.generate_change(p_table);
  perform gdpr_internal.generate_text(p_table);
  perform gdpr_internal.generate_seal(p_table);
  perform gdpr_internal.generate_audit(p_table);
  perform gdpr_internal.generate_arrivals(p_table);
  perform gdpr_internal.generate_clear_writes(p_table);
end
$function$;
comment on function gdpr_internal.generate_triggers(smallint) is 'Generates the trigger functions of a protected table from the register.';
