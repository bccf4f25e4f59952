-- Fills person and the keys of the persons as inserts by the application would, set by set: as superuser, triggers off. Registers,
-- evidence and audit stay empty: no read looks there. Nothing is random, person N has the same key everywhere.
-- Parameter: bench.people.

insert into gdpr_internal.subject_key (subject_id, kek_id, wrapped)
select n, r.kek_id, b.body || gdpr_internal.hmac(int8send(n) || b.body, substr(r.kek, 33), 'sha256')
from generate_series(1, current_setting('bench.people')::bigint) as n
cross join (select (k).* from (select gdpr_internal.keyring() as k offset 0) as k) as r
cross join lateral (
  select gdpr_internal.encrypt_iv(sha512(int8send(n)), substr(r.kek, 1, 32), substr(sha256(int8send(n)), 1, 16), 'aes-cbc/pad:none') as sealed
  offset 0
) as e
cross join lateral (select substr(sha256(int8send(n)), 1, 16) || e.sealed as body offset 0) as b;

create table public.trigger_before as
  select g.tgname as name, case g.tgenabled when 'A' then 'always' when 'R' then 'replica' else '' end as fires
  from pg_trigger as g where g.tgrelid = 'public.person'::regclass and not g.tgisinternal;
alter table public.person disable trigger user;
do $$
declare
  v_email bytea := (select int4send(c.id) from gdpr_internal.protected_column as c where c.column_name = 'email');
  v_phone bytea := (select int4send(c.id) from gdpr_internal.protected_column as c where c.column_name = 'phone');
  v_purposes bigint := (select bit_or(1::bigint << p.id) from gdpr_internal.purpose as p where p.name = 'orders' or p.id = 62);
  v_keys gdpr_internal.keyring := gdpr_internal.keyring();
begin
  insert into public.person (
    id, first_name, last_name, email, phone, birth_date, city, created_at,
    gdpr_subject_id, gdpr_subject_ref, gdpr_purposes, gdpr_until, gdpr_email_digest
  )
  select
    p.id, p.first_name, p.last_name,
    'gdpr1:' || replace(encode(s.email || gdpr_internal.hmac(s.email, substr(k.key, 33), 'sha256'), 'base64'), E'\n', ''),
    'gdpr1:' || replace(encode(s.phone || gdpr_internal.hmac(s.phone, substr(k.key, 33), 'sha256'), 'base64'), E'\n', ''),
    p.birth_date, p.city, p.created_at,
    p.id, gen_random_uuid(), v_purposes, 'infinity', gdpr_internal.keyed_digest((v_keys).digest_key, 'email', p.email)
  from bench.people(1, current_setting('bench.people')::bigint) as p
  cross join lateral (select sha512(int8send(p.id)) as key, substr(sha256(int8send(p.id)), 17) as iv offset 0) as k
  cross join lateral (
    select
      '\x0100000001'::bytea || int8send(p.id) || v_email || k.iv
        || gdpr_internal.encrypt_iv(convert_to(p.email, 'UTF8'), substr(k.key, 1, 32), k.iv, 'aes-cbc/pad:pkcs') as email,
      '\x0100000001'::bytea || int8send(p.id) || v_phone || k.iv
        || gdpr_internal.encrypt_iv(convert_to(p.phone, 'UTF8'), substr(k.key, 1, 32), k.iv, 'aes-cbc/pad:pkcs') as phone
    offset 0
  ) as s;
end
$$;
do $$
declare
  v_trigger record;
begin
  for v_trigger in select * from public.trigger_before loop
    execute format('alter table public.person enable %s trigger %I', v_trigger.fires, v_trigger.name);
  end loop;
end
$$;
drop table public.trigger_before;
