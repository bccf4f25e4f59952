-- [code] Triggers that refuse what row security cannot see.
-- GDPR Art. 5(2), 25.

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

create or replace function gdpr_policy.guard_ciphertext()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refuse('ciphertext_written');
  return null;
end
$function$;
comment on function gdpr_policy.guard_ciphertext() is
  'Refuses plaintext that looks like ciphertext while a table is being enabled; its trigger fires only for that. Error: PR405.';

create or replace function gdpr_policy.guard_length()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.refuse('value_too_long', format('column %I', tg_argv[0]));
  return null;
end
$function$;
comment on function gdpr_policy.guard_length() is
  'Refuses a value that its column, which has become text, would not have taken, in a row that still waits for its person while a table is being enabled; its trigger fires only for that. Error: 22001.';

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
