-- [code] Findings about tables whose enabling has begun and has not ended.
-- GDPR Art. 25. Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_enabling()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'warning', 'enabling', t.relation::text,
    format('protection is being switched on since %s (%s), and is not in force yet: no gate, no audit, plaintext in rows',
      timezone('UTC', e.started_at)::date, e.state),
    'gdprdb policy apply goes on with it; gdpr.enabling shows how far it is; gdpr.unprotect() gives the table back.'
  from gdpr_internal.enabling as e
  join gdpr_internal.protected_table as t on t.id = e.table_id;
end;
comment on function gdpr_internal.doctor_enabling() is 'Findings about tables that are being enabled.';
