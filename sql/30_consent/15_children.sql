-- [code] Consent of a child: where a birth date is known, a guardian has to stand behind it.
-- GDPR Art. 8. Called by: gdpr.record_consent(), gdpr.answer_consent(). The rows are read by gdpr_worker, birth dates opened by
-- gdpr_keyholder, and all that comes out is yes or no.

set local role gdpr_keyholder;

create or replace function gdpr_internal.born_after(p_subject bigint, p_column integer, p_value text, p_day date)
returns boolean
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set debug_print_plan = off
as $function$
declare
  v_key bytea;
  v_birth text;
begin
  if starts_with(p_value, 'gdpr1:') then
    v_key := gdpr_internal.data_key(gdpr_internal.keyring(), p_subject);
  end if;
  v_birth := gdpr_internal.open_value(v_key, p_subject, p_column, p_value);
  return coalesce(v_birth::date > p_day, false);
exception when data_exception then
  return false;
end
$function$;
comment on function gdpr_internal.born_after(bigint, integer, text, date) is
  'Whether a stored birth date, ciphertext or text, lies after a day; false for what is no date. Errors: PR402 key locked, PR404 altered value.';

set local role gdpr_owner;

create or replace function gdpr_internal.children(p_subjects bigint[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_column record;
  v_of_age date := (statement_timestamp() at time zone gdpr_internal.time_zone())::date - make_interval(years => coalesce(
    (select (s.value #>> '{}')::integer from gdpr_internal.setting as s where s.name = 'child_age'), 16
  ));
  v_before text;
  v_found bigint[];
  v_children bigint[] := '{}';
begin
  for v_column in
    select t.id as table_id, c.id
    from gdpr_internal.protected_column as c
    join gdpr_internal.protected_table as t on t.id = c.table_id
    where t.unprotected_at is null and c.age
    order by c.id
  loop
    v_before := gdpr_internal.before_worker();
    execute format(
      'select array_agg(distinct b.subject_id) from gdpr_generated.%I($1) as b where gdpr_internal.born_after(b.subject_id, $2, b.birth, $3)',
      'births_' || v_column.table_id
    ) into v_found using p_subjects, v_column.id, v_of_age;
    perform gdpr_internal.after_worker(v_before);
    v_children := v_children || coalesce(v_found, '{}');
  end loop;
  return v_children;
end
$function$;
comment on function gdpr_internal.children(bigint[]) is
  'Those of the persons who are known to be under the age limit of the policy (settings.child_age, else 16) today: by the columns marked age = true of any protected table. Art. 8(1).';

create or replace function gdpr_internal.require_guardians(p_subjects bigint[], p_evidence jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if coalesce(p_evidence #>> '{guardian,name}', '') <> '' and coalesce(p_evidence #>> '{guardian,verified}', '') <> '' then
    return;
  end if;
  if gdpr_internal.children(p_subjects) <> '{}' then
    perform gdpr_internal.refuse('guardian_missing');
  end if;
end
$function$;
comment on function gdpr_internal.require_guardians(bigint[], jsonb) is
  'Consent of persons known to be children needs {"guardian": {"name": ..., "verified": how}} in its evidence. Error: PR310. Art. 8(1), 8(2).';

create or replace function gdpr_internal.require_guardian(p_subject bigint, p_evidence jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.require_guardians(array[p_subject], p_evidence);
end
$function$;
comment on function gdpr_internal.require_guardian(bigint, jsonb) is 'gdpr_internal.require_guardians() for one person. Error: PR310.';
