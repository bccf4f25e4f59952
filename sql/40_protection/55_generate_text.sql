-- [code] The generator of the trigger that keeps the text of columns in their shadows, while their table is being enabled.
-- GDPR Art. 25, 32. Called by: the steps of enabling. It runs as whoever writes: types of the owner's come near no key.

set local role gdpr_keyholder;

create or replace function gdpr_internal.generate_text(p_table smallint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
-- what is dropped need not have been there
set client_min_messages = 'warning'
as $function$
declare
  v_keep text;
begin
  select string_agg(format(
    E'new.%I := case when new.%I is not null then %s end;\n', s.shadow, s.column_name,
    -- the settings of gdpr.text_of() are those of the trigger function
    replace(s.value, 'gdpr.text_of(', 'format(''%s'', ')
  ), '' order by s.place)
  into v_keep
  from gdpr_internal.shadows(p_table, 'new') as s;
  if v_keep is null then
    execute format('drop function if exists gdpr_generated.%I()', 'text_' || p_table);
    return;
  end if;
  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.%1$I()
returns trigger
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 3
set bytea_output = 'hex'
as $body$
begin
%2$s  return new;
end
$body$
$code$,
    'text_' || p_table, gdpr_internal.indented(v_keep, '  ')
  ));
  execute format(
    'comment on function gdpr_generated.%I() is %L', 'text_' || p_table,
    format(
      'Before a row of %s is stored: columns that encryption will make text of, as text beside them. Generated while the table is being enabled.',
      (select t.relation from gdpr_internal.protected_table as t where t.id = p_table)
    )
  );
  execute format('grant execute on function gdpr_generated.%I() to gdpr_admin', 'text_' || p_table);
end
$function$;
comment on function gdpr_internal.generate_text(smallint) is
  'Generates the trigger function that keeps the shadows of a table; drops it for tables that have none.';
