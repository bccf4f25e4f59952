-- [code] The generator of the trigger that lets a new row in: whose it is, its source, its gate, its ciphertext.
-- GDPR Art. 6, 14(2)(f), 17, 25, 32. Called by: gdpr.apply().

set local role gdpr_keyholder;

create or replace function gdpr_internal.default_gate_code(p_table smallint, out purposes text, out until text, out known text)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
as $function$
declare
  v_now record;
  v_before record;
begin
  select coalesce(bit_or(1::bigint << b.purpose_id), 0) | (1::bigint << 62) as mask, coalesce(min(b.valid_until), 'infinity') as until
  into v_now
  from gdpr_internal.default_basis as b where b.table_id = p_table and b.basis <> 'undetermined';
  select coalesce(bit_or(1::bigint << b.purpose_id), 0) | (1::bigint << 62) as mask, coalesce(min(b.valid_until), 'infinity') as until
  into v_before
  from gdpr_internal.default_basis as b where b.table_id = p_table;
  purposes := v_now.mask;
  until := format('%L::timestamptz', v_now.until);
  if v_before <> v_now then
    purposes := format('case when tg_op = ''UPDATE'' then %s else %s end', v_before.mask, v_now.mask);
    until := format('case when tg_op = ''UPDATE'' then %L::timestamptz else %L::timestamptz end', v_before.until, v_now.until);
  end if;
  if v_now.until < 'infinity' then
    known := format('statement_timestamp() < %L::timestamptz', v_now.until);
  end if;
end
$function$;
comment on function gdpr_internal.default_gate_code(smallint) is
  'The gate of a new person of a table as code. known: when it is that; afterwards, with an assessment overdue, the register is asked. An UPDATE is the backfill, whose rows have a grace period.';

create or replace function gdpr_internal.new_subject_code(p_table smallint, p_random integer)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
as $function$
declare
  v_gate record := gdpr_internal.default_gate_code(p_table);
  v_bases text;
  v_identifiers text;
  v_present text;
  v_count integer;
  v_claim text;
begin
  select string_agg(
    format('(%s::smallint, %L::text, %L::text, %L::timestamptz)', b.purpose_id, b.basis, b.reason, b.recorded_until), ', ' order by b.purpose_id, b.basis
  )
  into v_bases
  from gdpr_internal.default_basis as b
  where b.table_id = p_table;
  select
    string_agg(format('(v_digest_%s, %L::text)', c.n, c.identifier), ', ' order by c.n),
    string_agg(format('(v_digest_%s is not null)::integer', c.n), ' + ' order by c.n),
    count(*)
  into v_identifiers, v_present, v_count
  from gdpr_internal.column_facts(p_table) as c
  where c.identifier is not null;
  v_claim := case v_count
    when 0 then E'person as (\n  select new.gdpr_subject_id as id\n)'
    when 1 then format(
      E'person as (\n'
      '  insert into gdpr_internal.identifier (digest, kind, subject_id)\n'
      '  select i.digest, i.kind, new.gdpr_subject_id\n'
      '  from (values %s) as i (digest, kind)\n'
      '  where i.digest is not null\n'
      '  on conflict (digest) do nothing\n'
      '  returning subject_id as id\n'
      ')', v_identifiers
    )
    else format(
      E'identifier as (\n'
      '  insert into gdpr_internal.identifier (digest, kind, subject_id)\n'
      '  select i.digest, i.kind, new.gdpr_subject_id\n'
      '  from (values %s) as i (digest, kind)\n'
      '  where i.digest is not null\n'
      '  on conflict (digest) do nothing\n'
      '  returning 1\n'
      '), person as (\n'
      '  select new.gdpr_subject_id as id where (select count(*) from identifier) = %s\n'
      ')', v_identifiers, v_present
    )
  end;
  return format(
    $code$v_source := case
  when tg_op = 'UPDATE' then '{"kind": "before_gdprdb"}'
  when nullif(current_setting('gdpr.source', true), '') is not null then gdpr_internal.context_source()
end;
new.gdpr_subject_id := nextval('gdpr_internal.subject_id_seq');
new.gdpr_subject_ref := gen_random_uuid();
v_key := substr(v_random, %1$s, 64);
%2$sv_body := substr(v_random, %3$s, 16)
  || gdpr_internal.encrypt_iv(v_key, substr(v_keys.kek, 1, 32), substr(v_random, %3$s, 16), 'aes-cbc/pad:none');
with %4$s, subject as (
  insert into gdpr_internal.subject (id, ref, purposes, until)
  select p.id, new.gdpr_subject_ref, %5$s, %10$s from person as p
), data_key as (
  insert into gdpr_internal.subject_key (subject_id, kek_id, wrapped)
  select p.id, v_keys.kek_id, v_body || gdpr_internal.hmac(int8send(p.id) || v_body, substr(v_keys.kek, 33, 32), 'sha256')
  from person as p
)%6$s
insert into gdpr_internal.source (subject_id, table_id, row_key, kind, details, actor)
select p.id, %7$s, v_row, coalesce(v_source ->> 'kind', 'unspecified'), v_details, nullif(current_setting('gdpr.actor', true), '')
from person as p;
v_is_new := found;
%9$snew.gdpr_purposes := %8$s;
new.gdpr_until := %10$s;
$code$,
    p_random,
    gdpr_internal.source_details_code('new.gdpr_subject_id', p_random + 80),
    p_random + 64,
    v_claim,
    v_gate.purposes,
    case when v_bases is null then '' else format(
      E', basis as (\n'
      '  insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, valid_until, by_table)\n'
      '  select p.id, b.purpose_id, b.basis, b.reason, b.valid_until, %s\n'
      '  from person as p\n'
      '  cross join (values %s) as b (purpose_id, basis, reason, valid_until)\n'
      '%s)', p_table, v_bases,
      case when strpos(v_bases, 'undetermined') > 0 then E'  where tg_op = ''UPDATE'' or b.basis <> ''undetermined''\n' else '' end
    ) end,
    p_table,
    (select format('(%s) & %s', v_gate.purposes, t.purpose_mask | (1::bigint << 62)) from gdpr_internal.protected_table as t where t.id = p_table),
    case when v_count > 1 then
      E'if not v_is_new then\n  delete from gdpr_internal.identifier as i where i.subject_id = new.gdpr_subject_id;\nend if;\n'
    else '' end,
    v_gate.until
  );
end
$function$;
comment on function gdpr_internal.new_subject_code(smallint, integer) is
  'Code that makes a new person in one statement: identifiers, data key, default bases, source. The insert of the identifiers is the probe: v_is_new is false when somebody has one already. p_random: where its 96 bytes stand in v_random.';

create or replace function gdpr_internal.generate_protect(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set bytea_output = 'hex'
as $function$
declare
  v_table gdpr_internal.protected_table;
  v_gate record := gdpr_internal.default_gate_code(p_table);
  v_declare text := '';
  v_arrived text[] := '{}';
  v_planted text := '';
  v_open text := '';
  v_read text := '';
  v_store text := '';
  v_plain text[] := '{v_parent is null}';
  v_digests text[] := '{}';
  v_bares text[] := '{}';
  v_kinds text[] := '{}';
  v_matching integer := 0;
  v_constraint name;
  v_moves boolean;
  v_random integer := 0;
  v_column gdpr_internal.column_fact;
begin
  select * into strict v_table from gdpr_internal.protected_table as t where t.id = p_table;
  v_moves := (select c.relkind = 'p' from pg_class as c where c.oid = v_table.relation);
  v_plain := array_remove(v_plain || v_gate.known, null);

  for v_column in select * from gdpr_internal.column_facts(p_table) order by n loop
    continue when v_column.encrypt = 'no' and v_column.identifier is null and not v_column.masked and not v_column.digested;
    v_declare := v_declare || gdpr_internal.variable_code(v_column);
    if v_column.encrypt <> 'no' then
      v_arrived := v_arrived || format('starts_with(new.%I, ''gdpr1:'')', v_column.column_name);
      v_planted := v_planted || format(
        E'if not starts_with(new.%1$I, ''gdpr1:'') then\n  perform gdpr_internal.open_value(null, new.gdpr_subject_id, %2$s, new.%1$I);\nend if;\n',
        v_column.column_name, v_column.column_id
      );
      v_open := v_open || format(
        E'if starts_with(new.%1$I, ''gdpr1:'') then\n  v_parent := gdpr_internal.moved_subject(new.%1$I, new.gdpr_subject_id);\n'
        '  new.%1$I := gdpr_internal.open_value(gdpr_internal.data_key(v_keys, v_parent), v_parent, %2$s, new.%1$I);\nend if;\n',
        v_column.column_name, v_column.column_id
      );
    end if;
    v_read := v_read || gdpr_internal.read_value_code(v_column) || gdpr_internal.digest_code(v_column);
    if v_column.identifier is not null then
      v_digests := v_digests || format('v_digest_%s', v_column.n);
      v_bares := v_bares || gdpr_internal.bare_code(v_column);
      v_kinds := v_kinds || quote_literal(v_column.identifier);
      v_matching := v_matching + v_column.matches::integer;
      v_constraint := coalesce(v_constraint, v_column.unique_name);
      if v_column.identifier = 'email' then
        v_plain := v_plain || format(
          'coalesce(gdpr_internal.bare_form(%2$L, v_canonical_%1$s) = v_canonical_%1$s, true)', v_column.n, v_column.canonical
        );
      end if;
    end if;
    v_store := v_store || gdpr_internal.store_value_code(v_column, v_random * 16 + 1);
    v_random := v_random + (v_column.encrypt <> 'no')::integer;
  end loop;

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
  v_parent bigint%2$s;
  v_is_new boolean := false;
  v_source jsonb;
  v_details text;
  v_row uuid;
  v_random bytea := %3$s;
  v_key bytea;
  v_body bytea;
%4$sbegin
%5$s%6$s%7$s%8$s  if %9$s then
    -- most new rows are new persons
%10$s  end if;
  if not v_is_new then
    v_claim := gdpr_internal.claim_subject(
      v_keys, %11$s::smallint, %12$s, v_parent,
      array[%13$s]::uuid[], array[%14$s]::uuid[], array[%15$s]::text[], %16$s, %17$L, %18$L, v_row, tg_op = 'UPDATE'
    );
    new.gdpr_subject_id := v_claim.subject_id;
    new.gdpr_subject_ref := v_claim.ref;
    new.gdpr_purposes := v_claim.purposes & %19$s;
    new.gdpr_until := v_claim.until;
    v_key := v_claim.data_key;
  end if;
%20$s%21$s  return new;
end
$body$
$code$,
    'protect_' || p_table,
    case when v_table.parent_id is null then '' else ' := new.gdpr_subject_id' end,
    gdpr_internal.random_code(v_random * 16 + 96),
    v_declare,
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'new', gdpr_internal.written_columns(p_table)), '  '),
    gdpr_internal.indented(gdpr_internal.source_code(p_table) || gdpr_internal.keys_code() || gdpr_internal.row_key_code(p_table), '  '),
    case when v_planted = '' and not v_moves then '' else format(
      -- two conditions: the query of the second would be planned for each row whose person is null, as it is for most
      E'  if tg_op = ''INSERT'' and new.gdpr_subject_ref is not null%s then\n'
      '    if exists (select from gdpr_internal.subject as s where s.id = new.gdpr_subject_id and s.ref = new.gdpr_subject_ref) then\n'
      '      -- a row that was stored before: what is no ciphertext there must not become some here\n%s    end if;\n  end if;\n',
      -- a row goes from partition to partition as it is; elsewhere plaintext alone is a copy that an application makes
      case when v_moves then '' else format(' and (%s)', array_to_string(v_arrived, ' or ')) end,
      gdpr_internal.indented(case when v_moves then E'v_parent := new.gdpr_subject_id;\n' else '' end || v_planted, '      ')
    ) end
    || case when v_open = '' then '' else format(E'  if %s then\n%s  end if;\n', array_to_string(v_arrived, ' or '), gdpr_internal.indented(v_open, '    ')) end,
    gdpr_internal.indented(v_read, '  '),
    array_to_string(v_plain, ' and '),
    gdpr_internal.indented(gdpr_internal.new_subject_code(p_table, v_random * 16 + 1), '    '),
    p_table, v_gate.purposes,
    array_to_string(v_digests, ', '), array_to_string(v_bares, ', '), array_to_string(v_kinds, ', '),
    v_matching, v_table.blocklist, v_constraint,
    v_table.purpose_mask | (1::bigint << 62),
    gdpr_internal.indented(gdpr_internal.special_code(p_table, false) || v_store, '  '),
    gdpr_internal.indented(gdpr_internal.check_code(p_table), '  ')
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'protect_' || p_table,
    format('Before a row of %s is stored: whose it is, its source, its gate, its ciphertext. Generated by gdpr.apply().', v_table.relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'protect_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_protect(smallint) is 'Generates the BEFORE INSERT trigger function of a protected table from the register.';

create or replace function gdpr_internal.moved_subject(p_value text, p_subject bigint)
returns bigint
language plpgsql
stable
parallel unsafe
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
