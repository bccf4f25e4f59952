-- [code] How long this machine takes for one person: the sample behind gdpr.estimate().
-- GDPR Art. 25. Called by: gdpr.estimate().

set local role gdpr_keyholder;

create or replace function gdpr_internal.time_person(p_values integer, p_digests integer)
returns interval
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_rounds constant integer := 200;
  v_keys gdpr_internal.keyring;
  v_claim gdpr_internal.claim;
  v_start timestamptz;
  v_time interval;
begin
  v_keys := gdpr_internal.keyring();
  begin
    for v_n in 1 .. 2 * v_rounds loop
      if v_n = v_rounds then
        -- the first half warms up
        v_start := clock_timestamp();
      end if;
      v_claim := gdpr_internal.new_subject(v_keys, 0::smallint, -v_n, gen_random_uuid(), '{"kind": "before_gdprdb"}');
      for v_digest in 1 .. p_digests loop
        insert into gdpr_internal.identifier (digest, kind, subject_id)
        values (gdpr_internal.keyed_digest(v_keys.digest_key, 'estimate', format('%s %s', v_n, v_digest)), 'estimate', -v_n);
      end loop;
      for v_value in 1 .. p_values loop
        perform gdpr_internal.seal_value(v_claim.data_key, gdpr_internal.gen_random_bytes(16), -v_n, 0, 'somebody@example.com');
      end loop;
    end loop;
    v_time := (clock_timestamp() - v_start) / v_rounds;
    raise exception using errcode = 'PR000';
  exception when sqlstate 'PR000' then
    null;
  end;
  return v_time;
end
$function$;
comment on function gdpr_internal.time_person(integer, integer) is
  'How long this machine takes for one person with so many encrypted values and identifiers, by making some and taking them back.';
