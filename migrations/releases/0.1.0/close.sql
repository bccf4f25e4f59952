-- 99_seal/99_close.sql
-- [code] Gives back the memberships that 00_open took: from here on nobody who logs in acts as an owner of gdprdb.
-- GDPR Art. 32(1)(b). The very last step of every load.

do $close$
declare
  v_role text;
begin
  if not (select rolsuper from pg_catalog.pg_roles where rolname = session_user) then
    foreach v_role in array array['gdpr_owner', 'gdpr_keyholder', 'gdpr_worker', 'gdpr_viewer'] loop
      execute pg_catalog.format('revoke %I from %I', v_role, session_user);
    end loop;
  end if;
end
$close$;
