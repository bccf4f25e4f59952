-- [code] The functions generated for protected tables follow the release that generates them.
-- GDPR Art. 25. Tables whose controls had drifted stay drifted: only apply() mends them.

set local role gdpr_owner;

do $regenerate$
declare
  v_table gdpr_internal.protected_table;
  v_settled boolean;
begin
  -- the load has made and granted gdpr_worker's functions anew
  perform gdpr_internal.remember_worker();
  perform gdpr_internal.generate_purposes();
  perform gdpr_internal.generate_addresses();
  for v_table in select * from gdpr_internal.protected_table as t where t.unprotected_at is null order by t.id loop
    continue when not exists (select from pg_catalog.pg_class as c where c.oid = v_table.relation);
    v_settled := v_table.fingerprint is not distinct from gdpr_internal.fingerprint(v_table.relation);
    perform gdpr_internal.generate_triggers(v_table.id);
    perform gdpr_internal.generate_workers(array[v_table.id]);
    perform gdpr_internal.remember_controls(v_table.id, case when not v_settled then 'function' end);
  end loop;
  perform gdpr_internal.generate_worker(null);
  insert into gdpr_internal.setting (name, value)
  values ('machinery', to_jsonb(gdpr_internal.machinery()))
  on conflict (name) do update set value = excluded.value;
  -- if this load was let pass by the guard, it looks now
  perform gdpr_internal.end_change();
end
$regenerate$;

reset role;
