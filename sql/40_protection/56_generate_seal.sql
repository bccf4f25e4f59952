-- [code] The generator of the trigger that encrypts what a row still holds as plaintext, while its table is being enabled.
-- GDPR Art. 25, 32. Called by: the steps of enabling.

set local role gdpr_keyholder;

create or replace function gdpr_internal.plaintext_condition(p_table smallint, p_row text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select string_agg(format('not pg_catalog.starts_with(%s.%I::pg_catalog.text, ''gdpr1:'')', p_row, c.column_name), ' or ' order by c.position)
  from gdpr_internal.protected_column as c
  where c.table_id = p_table and c.encrypt <> 'no';
end;
comment on function gdpr_internal.plaintext_condition(smallint, text) is
  'The SQL that says whether a row holds plaintext where ciphertext belongs; null for a table that encrypts nothing.';

create or replace function gdpr_internal.generate_seal(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_relation regclass;
  v_seal text := '';
  v_ivs integer := 0;
  v_column gdpr_internal.column_fact;
begin
  if gdpr_internal.enabling_state(p_table) is distinct from 'sealing' then
    return;
  end if;
  select t.relation into strict v_relation from gdpr_internal.protected_table as t where t.id = p_table;
  for v_column in select * from gdpr_internal.column_facts(p_table) order by n loop
    continue when v_column.encrypt = 'no';
    v_seal := v_seal || format(
      E'if not starts_with(new.%1$I, ''gdpr1:'') then\n%2$send if;\n', v_column.column_name,
      gdpr_internal.indented(gdpr_internal.seal_code(
        format('new.%I', v_column.column_name), 'new.gdpr_subject_id', v_column.column_id, format('new.%I', v_column.column_name), v_ivs * 16 + 1
      ), '  ')
    );
    v_ivs := v_ivs + 1;
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
  v_wrapped bytea;
  v_key bytea;
  v_body bytea;
  v_random bytea := %2$s;
begin
%3$s%4$s  select k.wrapped into v_wrapped from gdpr_internal.subject_key as k where k.subject_id = new.gdpr_subject_id;
  if v_wrapped is null then
    perform gdpr_internal.refuse('data_key_missing');
  end if;
  v_key := gdpr_internal.unwrap_key(v_keys.kek, int8send(new.gdpr_subject_id), v_wrapped);
%5$s  return new;
end
$body$
$code$,
    'seal_' || p_table, gdpr_internal.random_code(v_ivs * 16),
    gdpr_internal.indented(gdpr_internal.table_check_code(p_table, 'new', null), '  '),
    gdpr_internal.indented(gdpr_internal.keys_code(), '  '),
    gdpr_internal.indented(v_seal, '  ')
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'seal_' || p_table,
    format('Before a row of %s is stored: what is still plaintext becomes ciphertext. Generated while the table is being enabled.', v_relation)
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'seal_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_seal(smallint) is
  'Generates the trigger function that encrypts what is left of a row''s plaintext, while its table is in state sealing.';

create or replace function gdpr_internal.drop_seal(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if to_regprocedure(format('gdpr_generated.%I()', 'seal_' || p_table)) is not null then
    execute format('drop function gdpr_generated.%I()', 'seal_' || p_table);
  end if;
end
$function$;
comment on function gdpr_internal.drop_seal(smallint) is 'Drops the trigger function of a table''s enabling.';
