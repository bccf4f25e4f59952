-- [code] What the doctor says of a database that is not where it was.
-- GDPR Art. 32(1)(c). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_home()
returns table (severity text, topic text, object text, finding text, hint text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_where text := gdpr.whereabouts();
begin
  if v_where = 'restored' then
    perform gdpr_internal.notice_restore('seen by the doctor');
  end if;
  return query
  select f.severity, 'restore', current_database()::text, f.finding, f.hint
  from (
    values
      ('restored', 'error', 'the database was restored from a backup: processing is refused', 'gdprdb ledger replay FILE with the newest ledger; gdpr.accept_restore() only if nothing was lost.'),
      ('promoted', 'warning', 'the server writes a new timeline: a standby took over, or a backup was recovered', 'gdprdb ledger check FILE with the newest ledger tells what was lost; then gdpr.accept_restore().'),
      ('copy', 'info', 'the database is a copy beside the one it was made from', 'gdpr.accept_restore(), once it is to stand on its own.')
  ) as f (place, severity, finding, hint)
  where f.place = v_where;
end
$function$;
comment on function gdpr_internal.doctor_home() is 'Findings about restores; what is noticed here stays noticed.';
